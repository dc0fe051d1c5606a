//! The plan of a restore: which directory goes where, what stands in its way, which rules speak against it.

use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, NodeId, Rule, Severity, check_set};
use fabkeep_platform::{Host, NodeState, Platform};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use super::databases::{PlannedLoad, plan_loads};
use super::keep::{self, PresentFile};
use super::{RestoreOptions, living, present};
use crate::EngineError;
use crate::arrange::{Arranged, arrange, is_named};
use crate::content::check_parts;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedNode, EntryContent, RecoveryPoint};

/// What a restore would do.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// The recovery point.
    pub point: String,
    /// What would be done, in order.
    pub steps: Vec<RestoreStep>,
    /// What speaks against it, and what to know.
    pub findings: Vec<Finding>,
    /// Bytes to write, holes not counted.
    pub bytes: u64,
    /// Files to write.
    pub files: u64,
    #[serde(skip)]
    pub(crate) directories: Vec<PlannedDirectory>,
    #[serde(skip)]
    pub(crate) journal: PathBuf,
    #[serde(skip)]
    pub(crate) to_stop: Vec<NodeId>,
    #[serde(skip)]
    pub(crate) to_start: Vec<NodeId>,
    /// Dumps to load.
    #[serde(skip)]
    pub(crate) loads: Vec<PlannedLoad>,
    /// What was made of the recovery point.
    #[serde(skip)]
    pub(crate) arranged: String,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum RestoreStep {
    /// A node is stopped.
    Stop {
        /// Which.
        node: String,
    },
    /// A directory is written beside its place and proven there.
    Write {
        /// Of which node.
        node: String,
        /// Its place.
        path: PathBuf,
        /// Files.
        files: u64,
        /// Bytes, holes not counted.
        bytes: u64,
    },
    /// A file that is there stays: it is copied to what is written.
    Keep {
        /// Of which node.
        node: String,
        /// The file.
        path: PathBuf,
    },
    /// What is there is set aside.
    SetAside {
        /// From where.
        path: PathBuf,
        /// To where.
        to: PathBuf,
    },
    /// The written directory takes its place.
    Place {
        /// Where.
        path: PathBuf,
    },
    /// A dump is loaded into its database, what that holds dumped beside before.
    Load {
        /// Of which node.
        node: String,
        /// Where: kind, host, port, name.
        database: String,
    },
    /// A node is started.
    Start {
        /// Which.
        node: String,
    },
}

/// A directory and the places it passes.
#[derive(Debug, Clone)]
pub(crate) struct PlannedDirectory {
    pub node: usize,
    pub directory: usize,
    pub id: NodeId,
    /// Where it goes.
    pub place: PathBuf,
    /// Where it is written first.
    pub staging: PathBuf,
    /// Where what is there goes.
    pub aside: PathBuf,
    /// Something is there.
    pub occupied: bool,
    /// The place is a mount point: its entries are moved, not the directory itself.
    pub mounted: bool,
    /// What is there and stays.
    pub kept: Vec<PresentFile>,
    /// What comes and what stays of a certificate authority fit.
    pub fits: bool,
}

impl PlannedDirectory {
    /// What stays of what is there, in a sentence.
    pub fn kept_told(&self) -> String {
        keep::told(&self.id, &self.kept, self.fits)
    }
}

impl RestorePlan {
    /// Findings that forbid the restore, less those whose rules are overridden.
    pub fn refusals(&self, overrides: &[String]) -> Vec<Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .filter(|finding| !overrides.iter().any(|code| code == finding.rule.code()))
            .cloned()
            .collect()
    }

    /// What a journal of another plan does not share.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.arranged.as_bytes());
        for directory in &self.directories {
            hasher.update(directory.id.to_string().as_bytes());
            hasher.update(directory.place.as_os_str().as_encoded_bytes());
            for file in &directory.kept {
                hasher.update(&[1]);
                hasher.update(file.entry.path.as_bytes());
            }
            hasher.update(&[0]);
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Makes the plan of a restore.
///
/// # Errors
/// [`EngineError`] when the recovery point cannot be read or does not hold what is asked for.
pub fn plan_restore(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    platform: Option<&Host>,
    options: &RestoreOptions,
) -> Result<RestorePlan, EngineError> {
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    make(
        commit,
        &mut arrange(point, &options.nodes, &options.ledgers, &options.replicate, true)?,
        &reader,
        platform,
        options,
    )
}

pub(super) fn make(
    commit: &Commit,
    arranged: &mut Arranged,
    reader: &PointReader<'_>,
    platform: Option<&Host>,
    options: &RestoreOptions,
) -> Result<RestorePlan, EngineError> {
    let (point, nodes) = (&arranged.point, &arranged.nodes);
    let mut plan = RestorePlan {
        point: commit.id.to_string(),
        steps: Vec::new(),
        findings: arranged.findings.clone(),
        bytes: 0,
        files: 0,
        arranged: arranged.fingerprint(),
        directories: Vec::new(),
        journal: PathBuf::new(),
        loads: Vec::new(),
        to_stop: Vec::new(),
        to_start: Vec::new(),
    };
    let common = common_folder(point);
    for (index, node) in point.nodes.iter().enumerate().filter(|(_, node)| is_named(&node.facts.id, nodes)) {
        for (position, directory) in node.directories.iter().enumerate() {
            let place = match (&options.to, platform) {
                (Some(to), _) => {
                    let inside = Path::new(&directory.directory.path).strip_prefix(&common).unwrap_or(Path::new(""));
                    to.join(inside)
                }
                (None, Some(platform)) => match place_on(platform, node, directory) {
                    Some(place) => place,
                    None => {
                        plan.findings.push(Finding::error(
                            Rule::NotPersistent,
                            &node.facts.id,
                            format!("the inventory names no place for its {} directory {}", directory.directory.role, directory.directory.path),
                            "add the directory to the inventory, leave the node out (--node names the others), or restore into a folder (--to)",
                        ));
                        continue;
                    }
                },
                (None, None) => {
                    return Err(EngineError::Usage("a restore needs a folder (--to) or an inventory".to_owned()));
                }
            };
            check_entries(&node.facts.id, directory)?;
            let planned = planned_directory(commit.id.as_str(), index, position, &node.facts.id, place)?;
            plan.directories.push(planned);
        }
    }
    plan.journal = journal_path(commit.id.as_str(), &plan, options)?;
    let resuming = plan.journal.exists();
    if options.ca_keep.is_asked() {
        present::keep(&mut plan, arranged, reader, options)?;
    }
    let arranged = &*arranged;
    let point = &arranged.point;
    judge(&mut plan, arranged, platform, options, resuming)?;
    check_space(&mut plan, point)?;
    present::compare_authorities(&mut plan, point, reader)?;
    if let Some(platform) = platform.filter(|_| options.to.is_none()) {
        plan_loads(&mut plan, point, reader, platform, options.replace, resuming)?;
    }
    add_steps(&mut plan, point);
    Ok(plan)
}

/// The deepest folder that holds all captured directories.
fn common_folder(point: &RecoveryPoint) -> PathBuf {
    let mut folders = point
        .nodes
        .iter()
        .flat_map(|node| &node.directories)
        .filter_map(|directory| Path::new(&directory.directory.path).parent().map(Path::to_path_buf));
    let first = folders.next().unwrap_or_default();
    folders.fold(first, |common, folder| {
        common.ancestors().find(|ancestor| folder.starts_with(ancestor)).unwrap_or(Path::new("")).to_path_buf()
    })
}

/// The platform's place for a captured directory: the one of the same role and, among several, of the same name or position.
fn place_on(platform: &Host, node: &CapturedNode, captured: &CapturedDirectory) -> Option<PathBuf> {
    let network = platform.network();
    let known = network.nodes().find(|known| known.id == node.facts.id)?;
    if captured.directory.role == DirectoryRole::DatabaseDump {
        // Beside the authority's home, wherever that is here.
        let home = node.directories.iter().find(|known| known.directory.role == DirectoryRole::CaHome)?;
        let suffix = captured.directory.path.strip_prefix(home.directory.path.as_str())?;
        return Some(PathBuf::from(format!("{}{suffix}", place_on(platform, node, home)?.display())));
    }
    let same_role: Vec<_> =
        known.directories.iter().filter(|directory| directory.role == captured.directory.role).collect();
    let name = |path: &str| Path::new(path).file_name().map(std::ffi::OsStr::to_os_string);
    let position = node
        .directories
        .iter()
        .filter(|directory| directory.directory.role == captured.directory.role)
        .position(|directory| directory.directory.path == captured.directory.path)?;
    let exact = same_role.iter().find(|directory| directory.path == captured.directory.path);
    let named = same_role.iter().find(|directory| name(&directory.path) == name(&captured.directory.path));
    let found = match (exact, same_role.len()) {
        (Some(exact), _) => exact,
        (None, 1) => same_role.first()?,
        (None, _) => named.or_else(|| same_role.get(position))?,
    };
    Some(PathBuf::from(&found.path))
}

/// Refuses entries that would leave their directory: the manifest is signed, and still not trusted with that.
fn check_entries(id: &NodeId, directory: &CapturedDirectory) -> Result<(), EngineError> {
    let mut links: Vec<&str> = Vec::new();
    for entry in &directory.entries {
        let wrong = |problem: &str| EngineError::Point {
            point: format!("{id} {}", entry.path),
            problem: format!("rule {}: {problem}", Rule::Contained),
        };
        let plain = entry.path.split('/').all(|part| !matches!(part, "." | "..") && !part.contains('\0'));
        let empty_part = !entry.path.is_empty() && entry.path.split('/').any(str::is_empty);
        if !plain || empty_part || entry.path.starts_with('/') {
            return Err(wrong("the path leaves the node's directory"));
        }
        if links.iter().any(|link| entry.path.strip_prefix(link).is_some_and(|rest| rest.starts_with('/'))) {
            return Err(wrong("the path leads through a symbolic link"));
        }
        match &entry.content {
            EntryContent::Symlink { target } => {
                if crate::capture::leaves(&entry.path, target) {
                    return Err(wrong("the link leaves the node's directory"));
                }
                links.push(&entry.path);
            }
            EntryContent::File { size, parts } => check_parts(&entry.path, *size, parts)?,
            EntryContent::Directory => {}
        }
    }
    Ok(())
}

fn planned_directory(
    point: &str,
    node: usize,
    directory: usize,
    id: &NodeId,
    place: PathBuf,
) -> Result<PlannedDirectory, EngineError> {
    let place = std::path::absolute(&place).map_err(io(&place))?;
    // A place that is a link to the data's true home keeps being one.
    let place = place.canonicalize().unwrap_or(place);
    if place.exists() && !place.is_dir() {
        return Err(EngineError::Io {
            path: place.display().to_string(),
            source: std::io::ErrorKind::NotADirectory.into(),
        });
    }
    let staging_name = format!("fabkeep-restore-{point}");
    let aside_name = format!("before-{point}");
    let mounted = is_mount_point(&place);
    let beside = |suffix: &str| {
        let mut name = place.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{suffix}"));
        place.with_file_name(name)
    };
    let (staging, aside) = if mounted {
        (place.join(format!(".{staging_name}")), place.join(format!(".{aside_name}")))
    } else {
        (beside(&staging_name), beside(&aside_name))
    };
    let occupied = match std::fs::read_dir(&place) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            // What an earlier run of this restore left, and what an own file system brings.
            .any(|entry| {
                let path = entry.path();
                let own = path == staging || super::place::is_aside(&path, &aside);
                !own && entry.file_name() != "lost+found"
            }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(source) => return Err(EngineError::Io { path: place.display().to_string(), source }),
    };
    Ok(PlannedDirectory {
        node,
        directory,
        id: id.clone(),
        place,
        staging,
        aside,
        occupied,
        mounted,
        kept: Vec::new(),
        fits: false,
    })
}

fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (path.metadata(), path.parent().map(Path::metadata)) {
        (Ok(own), Some(Ok(parent))) => own.dev() != parent.dev(),
        _ => false,
    }
}

fn journal_path(point: &str, plan: &RestorePlan, options: &RestoreOptions) -> Result<PathBuf, EngineError> {
    let folder = match (&options.to, plan.directories.first()) {
        (Some(to), _) => std::path::absolute(to).map_err(io(to))?,
        (None, Some(first)) => first.place.parent().map(Path::to_path_buf).unwrap_or_default(),
        (None, None) => PathBuf::from("."),
    };
    Ok(folder.join(format!(".fabkeep-restore-{point}.journal")))
}

fn judge(
    plan: &mut RestorePlan,
    arranged: &Arranged,
    platform: Option<&Host>,
    options: &RestoreOptions,
    resuming: bool,
) -> Result<(), EngineError> {
    let point = &arranged.point;
    let now = jiff::Timestamp::now().as_second();
    let chosen: Vec<_> = point
        .nodes
        .iter()
        .filter(|node| is_named(&node.facts.id, &arranged.nodes))
        .map(|node| node.facts.clone())
        .collect();
    let configs: Vec<_> = point.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    // The invariants over what is restored together; what is left where it is cannot be judged here.
    plan.findings.extend(check_set(&chosen, &configs, point.derived, now));
    let orderers = |nodes: &mut dyn Iterator<Item = NodeRole>| nodes.filter(|role| *role == NodeRole::Orderer).count();
    let all = orderers(&mut point.nodes.iter().map(|node| node.facts.role));
    // Those that come back empty are as old as nothing.
    let some = orderers(&mut chosen.iter().filter(|node| !node.raft.is_empty()).map(|node| node.role));
    if some > 0 && some < all {
        plan.findings.push(Finding::warning(
            Rule::OrderersLevel,
            format!("{some} of {all} orderers"),
            "orderers older than the rest of their cluster stop the leader (\"tocommit(N) is out of range\")",
            "let them come back empty and take everything from the others (--replicate NODE), or restart all other orderers before you start the restored ones; if they are all lost, restore all together",
        ));
    }
    if !options.replace && !resuming {
        for directory in plan.directories.iter().filter(|directory| directory.occupied) {
            plan.findings.push(Finding::error(
                Rule::NotOverwritten,
                &directory.id,
                format!("{} is not empty", directory.place.display()),
                "restore into another folder (--to DIR), or let the data there be set aside (--replace)",
            ));
        }
    }
    if let Some(platform) = platform.filter(|_| options.to.is_none()) {
        plan.findings.extend(living::judge(platform, point, &|id| is_named(id, &arranged.nodes)));
        for node in &chosen {
            if !platform.network().nodes().any(|known| known.id == node.id) {
                continue;
            }
            if platform.state(&node.id)? == NodeState::Running {
                if options.stop {
                    plan.to_stop.push(node.id.clone());
                } else {
                    plan.findings.push(Finding::error(
                        Rule::LiveCopy,
                        &node.id,
                        "the node runs: its data must not be replaced under it",
                        "stop it, or let fabkeep do so by its stop command (--stop)",
                    ));
                }
            }
        }
        // Independent services first: CAs, then orderers all together, then peers.
        for role in [NodeRole::CertificateAuthority, NodeRole::Orderer, NodeRole::Peer] {
            let of_role = chosen.iter().filter(|node| node.role == role).map(|node| node.id.clone());
            plan.to_start.extend(of_role.filter(|_| options.start));
        }
    }
    Ok(())
}

/// Refuses when a file system has less room than the restore needs.
fn check_space(plan: &mut RestorePlan, point: &RecoveryPoint) -> Result<(), EngineError> {
    use std::os::unix::fs::MetadataExt;
    let mut needs: std::collections::BTreeMap<u64, (u64, u64, PathBuf)> = std::collections::BTreeMap::new();
    for directory in &plan.directories {
        let Some(existing) = directory.place.ancestors().find(|path| path.exists()) else { continue };
        let metadata = existing.metadata().map_err(io(existing))?;
        let room = rustix::fs::statvfs(existing)
            .map_err(|error| EngineError::Io { path: existing.display().to_string(), source: error.into() })?;
        let bytes = point.nodes[directory.node].directories[directory.directory].data_bytes();
        let need =
            needs.entry(metadata.dev()).or_insert_with(|| (0, room.f_bavail * room.f_frsize, existing.to_path_buf()));
        need.0 += bytes;
    }
    for (bytes, room, path) in needs.into_values() {
        if bytes > room {
            plan.findings.push(Finding::error(
                Rule::RoomEnough,
                path.display(),
                format!("the restore needs {bytes} bytes there, {room} are free"),
                "make room, or restore into a folder on another disk (--to DIR)",
            ));
        }
    }
    Ok(())
}

fn add_steps(plan: &mut RestorePlan, point: &RecoveryPoint) {
    plan.steps.extend(plan.to_stop.iter().map(|node| RestoreStep::Stop { node: node.to_string() }));
    for planned in &plan.directories {
        let captured = &point.nodes[planned.node].directories[planned.directory];
        let files = captured.entries.iter().filter(|entry| matches!(entry.content, EntryContent::File { .. }));
        let (count, bytes) = (files.count() as u64, captured.data_bytes());
        plan.files += count;
        plan.bytes += bytes;
        plan.steps.push(RestoreStep::Write {
            node: planned.id.to_string(),
            path: planned.place.clone(),
            files: count,
            bytes,
        });
    }
    for planned in &plan.directories {
        for file in &planned.kept {
            plan.steps
                .push(RestoreStep::Keep { node: planned.id.to_string(), path: planned.place.join(&file.entry.path) });
        }
        if planned.occupied {
            plan.steps.push(RestoreStep::SetAside { path: planned.place.clone(), to: planned.aside.clone() });
        }
        plan.steps.push(RestoreStep::Place { path: planned.place.clone() });
    }
    for load in &plan.loads {
        let node = plan.directories[load.directory].id.to_string();
        plan.steps.push(RestoreStep::Load { node, database: load.access.label() });
    }
    plan.steps.extend(plan.to_start.iter().map(|node| RestoreStep::Start { node: node.to_string() }));
}
