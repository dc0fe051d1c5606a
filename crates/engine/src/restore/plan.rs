//! The plan of a restore: which directory goes where, what stands in its way, which rules speak against it.

use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{Finding, NodeId, Rule, Severity};
use fabkeep_platform::{Host, Mounts, Platform};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use super::ca_keep::{self, ExistingFile};
use super::databases::{PlannedLoad, plan_loads};
use super::journal::{Record, of_another};
use super::prove::is_as_captured;
use super::staging::{Staging, resolve};
use super::{RestoreOptions, existing, judge, old_paths, room, taken_away};
use crate::EngineError;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedNode, EntryContent, RecoveryPoint};
use crate::transform::{Transformed, is_named};

/// Format of the journal: another one's is not gone on with.
const JOURNAL_FORMAT: &[u8] = b"2";

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
    /// Directories that an earlier run has put into place, and that are others by now: they are restored anew.
    #[serde(skip)]
    pub(crate) again: Vec<usize>,
    /// An earlier run of this restore is gone on with.
    #[serde(skip)]
    pub(crate) resuming: bool,
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
    pub(crate) transformed: String,
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
    /// Where it goes, and the places on the way.
    pub staging: Staging,
    /// Something is there that would be set aside.
    pub occupied: bool,
    /// What is there is what was captured, as far as it was compared: it stays.
    pub equal: bool,
    /// What is there and stays.
    pub kept: Vec<ExistingFile>,
    /// What comes and what stays of a certificate authority fit.
    pub fits: bool,
}

impl PlannedDirectory {
    /// What stays of what is there, in a sentence.
    pub fn kept_told(&self) -> String {
        ca_keep::reported(&self.id, &self.kept, self.fits)
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
        hasher.update(JOURNAL_FORMAT);
        hasher.update(self.transformed.as_bytes());
        for directory in &self.directories {
            hasher.update(directory.id.to_string().as_bytes());
            hasher.update(directory.staging.place.as_os_str().as_encoded_bytes());
            for region in &directory.staging.regions {
                hasher.update(&[2]);
                hasher.update(region.staging.as_os_str().as_encoded_bytes());
            }
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
    make(commit, &mut super::arranged(point, &reader, options)?, &reader, platform, options)
}

pub(super) fn make(
    commit: &Commit,
    transformed: &mut Transformed,
    reader: &PointReader<'_>,
    platform: Option<&Host>,
    options: &RestoreOptions,
) -> Result<RestorePlan, EngineError> {
    let id = commit.id.as_str();
    let mut plan = RestorePlan {
        point: commit.id.to_string(),
        steps: Vec::new(),
        findings: transformed.findings.clone(),
        bytes: 0,
        files: 0,
        transformed: transformed.fingerprint(),
        directories: Vec::new(),
        again: Vec::new(),
        resuming: false,
        journal: PathBuf::new(),
        loads: Vec::new(),
        to_stop: Vec::new(),
        to_start: Vec::new(),
    };
    let places = places(&transformed.point, &transformed.nodes, platform, options, &mut plan.findings)?;
    plan.directories = directories(id, &places, transformed, platform, options, &mut plan.findings)?;
    plan.journal = journal_path(id, &plan, options)?;
    let found = Record::read(&plan.journal)?;
    if options.ca_keep.is_asked() {
        existing::keep(&mut plan, transformed, reader, options, found.as_ref())?;
    }
    // Earlier runs count only when they were of this restore.
    if found.as_ref().is_some_and(|found| !found.is_of(id, &plan.fingerprint())) {
        return Err(of_another(&plan.journal));
    }
    plan.resuming = found.is_some();
    let mut record = found.unwrap_or_default();
    settled(&mut plan, &transformed.point, reader, &mut record);
    let transformed = &*transformed;
    let point = &transformed.point;
    if !options.replace {
        find_equal(&mut plan, point, reader, &record);
    }
    judge::judge(&mut plan, transformed, platform, options, &record)?;
    room::check(&mut plan, point, reader, &record)?;
    existing::compare_authorities(&mut plan, point, reader, &record)?;
    taken_away::check(&mut plan, transformed, reader, platform, options, &record)?;
    if let Some(platform) = platform.filter(|_| options.to.is_none()) {
        plan_loads(&mut plan, point, reader, platform, options.replace)?;
    }
    if options.to.is_some() {
        old_paths::check(&mut plan, point, reader)?;
    }
    add_steps(&mut plan, point);
    Ok(plan)
}

/// Looks at what earlier runs have settled: what has changed since is restored anew, what its node has been started on is left alone.
fn settled(plan: &mut RestorePlan, point: &RecoveryPoint, reader: &PointReader<'_>, record: &mut Record) {
    for (index, planned) in plan.directories.iter().enumerate().filter(|(index, _)| record.is_settled(*index)) {
        let captured = &point.nodes[planned.node].directories[planned.directory];
        if record.is_started(&planned.id.to_string()) {
            plan.findings.push(Finding::warning(
                Rule::NotOverwritten,
                &planned.id,
                format!(
                    "{} was put into place by an earlier run of this restore, and the node was started since: this run does not read it",
                    planned.staging.place.display()
                ),
                format!("nothing, if the node runs well; to restore it anew, remove {}", plan.journal.display()),
            ));
        } else if planned.kept.is_empty()
            && !record.is_loaded(index)
            && !is_as_captured(planned, captured, reader.names())
        {
            plan.again.push(index);
        }
    }
    plan.again.iter().for_each(|index| record.forget(*index));
}

/// Finds directories that are there as they were captured: nothing of theirs has to be replaced.
fn find_equal(plan: &mut RestorePlan, point: &RecoveryPoint, reader: &PointReader<'_>, record: &Record) {
    for (index, planned) in plan.directories.iter_mut().enumerate() {
        let captured = &point.nodes[planned.node].directories[planned.directory];
        planned.equal = planned.occupied
            && planned.kept.is_empty()
            && !record.is_switching(index)
            && !planned.staging.is_staged()
            && is_as_captured(planned, captured, reader.names());
    }
}

/// Where a captured directory goes.
struct Placed {
    node: usize,
    directory: usize,
    id: NodeId,
    place: PathBuf,
}

/// Finds the place of every directory of the nodes that are restored.
fn places(
    point: &RecoveryPoint,
    nodes: &[String],
    platform: Option<&Host>,
    options: &RestoreOptions,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Placed>, EngineError> {
    let common = common_folder(point);
    let mut places: Vec<Placed> = Vec::new();
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
                        findings.push(Finding::error(
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
            let id = node.facts.id.clone();
            let place = resolve(&id, &place)?;
            if let Some(other) = places.iter().find(|other| other.place == place) {
                return Err(EngineError::Usage(format!(
                    "{} is the place of a directory of {} and of one of {id}: correct the inventory",
                    place.display(),
                    other.id
                )));
            }
            places.push(Placed { node: index, directory: position, id, place });
        }
    }
    Ok(places)
}

/// How every directory gets into its place. What the recovery point has where another node lives is left out of it.
fn directories(
    point: &str,
    places: &[Placed],
    transformed: &mut Transformed,
    platform: Option<&Host>,
    options: &RestoreOptions,
    findings: &mut Vec<Finding>,
) -> Result<Vec<PlannedDirectory>, EngineError> {
    let mounts = Mounts::read()?;
    let network = platform.filter(|_| options.to.is_none()).map(Host::network);
    let mut out = Vec::new();
    for Placed { node, directory, id, place } in places {
        let mut others: Vec<PathBuf> = places.iter().map(|other| other.place.clone()).collect();
        let known = || network.into_iter().flat_map(|network| network.nodes());
        let of_others = known().filter(|known| known.id != *id).flat_map(|known| &known.directories);
        for known in of_others {
            others.push(resolve(id, Path::new(&known.path))?);
        }
        let captured = &mut transformed.point.nodes[*node].directories[*directory];
        let own = known().filter(|known| known.id == *id).flat_map(|known| &known.directories);
        let here = own.filter(|known| Path::new(&known.path) == place.as_path()).flat_map(|known| &known.excluded);
        let excluded = here.chain(&captured.directory.excluded).map(|path| place.join(path));
        others.extend(excluded.filter(|path| path.symlink_metadata().is_ok()));
        let staging = Staging::new(point, place.clone(), &mounts, &others)?;
        leave_out_others(id, captured, &staging, findings);
        blocked(id, captured, &staging, findings);
        let occupied = staging.is_occupied()?;
        out.push(PlannedDirectory {
            node: *node,
            directory: *directory,
            id: id.clone(),
            staging,
            occupied,
            equal: false,
            kept: Vec::new(),
            fits: false,
        });
    }
    Ok(out)
}

/// Leaves out what was captured where another node has its place.
fn leave_out_others(id: &NodeId, captured: &mut CapturedDirectory, staging: &Staging, findings: &mut Vec<Finding>) {
    let is_file = |entry: &crate::point::CapturedEntry| !matches!(entry.content, EntryContent::Directory);
    if let Some(entry) = captured.entries.iter().find(|entry| staging.is_others(&entry.path) && is_file(entry)) {
        findings.push(Finding::error(
            Rule::NotOverwritten,
            id,
            format!(
                "the recovery point has files of it at {}, which is another node's place here",
                staging.placed(&entry.path).display()
            ),
            "restore into another folder (--to DIR), or correct the inventory",
        ));
    }
    captured.entries.retain(|entry| !staging.is_others(&entry.path));
}

/// What cannot be put into its place because of what is mounted there.
fn blocked(id: &NodeId, captured: &CapturedDirectory, staging: &Staging, findings: &mut Vec<Finding>) {
    for region in staging.regions.iter().filter(|region| region.mounted && !region.at.is_dir()) {
        findings.push(Finding::error(
            Rule::NotOverwritten,
            id,
            format!("{} is a file that is mounted there: it cannot be replaced", region.at.display()),
            "unmount it, run the same command again, and mount it afterwards",
        ));
    }
    for entry in &captured.entries {
        if staging.is_fixed(&entry.path) && !matches!(entry.content, EntryContent::Directory) {
            findings.push(Finding::error(
                Rule::NotOverwritten,
                id,
                format!(
                    "{} is a mount point, or holds one, and is no directory in the recovery point",
                    staging.placed(&entry.path).display()
                ),
                "unmount what is mounted there, or restore into another folder (--to DIR)",
            ));
        }
    }
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

/// The journal lies where no directory of the plan is moved.
fn journal_path(point: &str, plan: &RestorePlan, options: &RestoreOptions) -> Result<PathBuf, EngineError> {
    let mut folder = match (&options.to, plan.directories.first()) {
        (Some(to), _) => std::path::absolute(to).map_err(io(to))?,
        (None, Some(first)) => first.staging.place.parent().map(Path::to_path_buf).unwrap_or_default(),
        (None, None) => PathBuf::from("."),
    };
    while let Some(holds) = plan.directories.iter().find(|planned| folder.starts_with(&planned.staging.place)) {
        let Some(above) = holds.staging.place.parent() else { break };
        folder = above.to_path_buf();
    }
    Ok(folder.join(format!(".fabkeep-restore-{point}.journal")))
}

fn add_steps(plan: &mut RestorePlan, point: &RecoveryPoint) {
    plan.steps.extend(plan.to_stop.iter().map(|node| RestoreStep::Stop { node: node.to_string() }));
    for planned in plan.directories.iter().filter(|planned| !planned.equal) {
        let captured = &point.nodes[planned.node].directories[planned.directory];
        let files = captured.entries.iter().filter(|entry| matches!(entry.content, EntryContent::File { .. }));
        let (count, bytes) = (files.count() as u64, captured.data_bytes());
        plan.files += count;
        plan.bytes += bytes;
        plan.steps.push(RestoreStep::Write {
            node: planned.id.to_string(),
            path: planned.staging.place.clone(),
            files: count,
            bytes,
        });
    }
    for planned in plan.directories.iter().filter(|planned| !planned.equal) {
        for file in &planned.kept {
            plan.steps.push(RestoreStep::Keep {
                node: planned.id.to_string(),
                path: planned.staging.placed(&file.entry.path),
            });
        }
        for region in planned.staging.regions.iter().filter(|_| planned.occupied) {
            plan.steps.push(RestoreStep::SetAside { path: region.at.clone(), to: region.aside.clone() });
        }
        plan.steps.push(RestoreStep::Place { path: planned.staging.place.clone() });
    }
    for load in &plan.loads {
        let node = plan.directories[load.directory].id.to_string();
        plan.steps.push(RestoreStep::Load { node, database: load.access.label() });
    }
    plan.steps.extend(plan.to_start.iter().map(|node| RestoreStep::Start { node: node.to_string() }));
}
