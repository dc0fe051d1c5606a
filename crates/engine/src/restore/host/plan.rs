//! The plan of a restore on hosts: the place of each directory, obstacles, and rules that forbid it.

use std::path::{Path, PathBuf};

use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_platform::{Host, Mounts, Platform, STAGED};
use fabkeep_store::{NameKey, PointReader};

use super::journal::{self, of_another};
use super::places::{self, Placed};
use super::prove::{compare, is_as_captured};
use super::same_files::{self, SameFile};
use super::staging::{Staging, resolve};
use super::{Places, existing, may_change, old_paths, restart, room, running, same_place};
use crate::error::io;
use crate::misuse::{Misuse, Request};
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, RecoveryPoint};
use crate::restore::ca::databases::{PlannedLoad, plan_loads};
use crate::restore::ca::keep::{self, ExistingFile};
use crate::restore::others::{self, Others};
use crate::restore::owners;
use crate::restore::progress::{Record, Step};
use crate::restore::{KeptFiles, RestoreOptions, RestorePlan, RestoreStep, Way, judge, surviving};
use crate::transform::{Transformed, is_named, transform};
use crate::{Done, EngineError};

/// Format of the journal: another one's is not gone on with.
const JOURNAL_FORMAT: &[u8] = b"3";

/// What a restore on hosts would do.
pub(in crate::restore) struct Plan<'a> {
    pub places: Places<'a>,
    pub steps: Vec<RestoreStep>,
    pub findings: Vec<Finding>,
    /// Bytes to write, holes not counted.
    pub bytes: u64,
    /// Files to write.
    pub files: u64,
    /// Those of them that are there as captured.
    pub kept: KeptFiles,
    pub directories: Vec<PlannedDirectory>,
    /// Directories that an earlier run has put into place, and that are others by now: they are restored anew.
    pub again: Vec<usize>,
    /// An earlier run of this restore is gone on with.
    pub resuming: bool,
    /// What that run has done.
    pub done: Vec<Done>,
    pub journal: PathBuf,
    pub to_stop: Vec<NodeId>,
    pub to_start: Vec<NodeId>,
    /// Orderers that stay, and are restarted before restored ones are started.
    pub others: Others,
    /// Dumps to load.
    pub loads: Vec<PlannedLoad>,
}

/// A directory and the places it passes.
#[derive(Debug, Clone)]
pub(in crate::restore) struct PlannedDirectory {
    pub node: usize,
    pub directory: usize,
    pub id: NodeId,
    /// Further nodes that are restored and have the same directory.
    pub shared: Vec<NodeId>,
    /// Its place, and the intermediate places.
    pub staging: Staging,
    /// Something is there that would be set aside.
    pub occupied: bool,
    /// What is there is what was captured, as far as it was compared: it stays.
    pub equal: bool,
    /// Block files that are there as captured: they stay. `None`: not known yet.
    pub same: Option<Vec<SameFile>>,
    /// What is there and stays of a certificate authority.
    pub kept: Vec<ExistingFile>,
    /// What comes and what stays of a certificate authority fit.
    pub fits: bool,
}

impl PlannedDirectory {
    /// Block files that are there and stay, as far as it is known.
    pub fn kept_files(&self) -> KeptFiles {
        let bytes = |file: &SameFile| file.size;
        self.same.iter().flatten().map(bytes).fold(KeptFiles::default(), KeptFiles::and)
    }

    /// What stays of what is there, in a sentence.
    pub fn kept_sentence(&self) -> String {
        keep::reported(&self.id, &self.kept, self.fits)
    }
}

impl<'a> Plan<'a> {
    /// A plan of nothing yet.
    fn new(places: &Places<'a>, transformed: &Transformed) -> Plan<'a> {
        Plan {
            places: places.clone(),
            steps: Vec::new(),
            findings: transformed.findings.clone(),
            bytes: 0,
            files: 0,
            kept: KeptFiles::default(),
            directories: Vec::new(),
            again: Vec::new(),
            resuming: false,
            done: Vec::new(),
            journal: PathBuf::new(),
            loads: Vec::new(),
            to_stop: Vec::new(),
            to_start: Vec::new(),
            others: Others::default(),
        }
    }

    /// Returns a directory and what was captured of it.
    fn captured<'p>(&'p self, index: usize, point: &'p RecoveryPoint) -> (&'p PlannedDirectory, &'p CapturedDirectory) {
        let planned = &self.directories[index];
        (planned, &point.nodes[planned.node].directories[planned.directory])
    }

    /// Tells this plan from others: a journal of another is not gone on with.
    fn fingerprint(&self, transformed: &Transformed, options: &RestoreOptions) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(JOURNAL_FORMAT);
        hasher.update(transformed.fingerprint().as_bytes());
        if options.go_back.is_asked() {
            hasher.update(format!("{:?}", options.go_back).as_bytes());
        }
        if options.restart_others {
            hasher.update(b"restart others");
        }
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

/// Makes the plan of a restore on hosts.
pub(in crate::restore) fn make<'a>(
    id: &str,
    point: RecoveryPoint,
    reader: PointReader<'a>,
    repository: Option<&Path>,
    places: &Places<'a>,
    options: &RestoreOptions,
) -> Result<RestorePlan<'a>, EngineError> {
    let mut transformed = transform(point, &reader, &options.asked())?;
    let mut plan = Plan::new(places, &transformed);
    let placed = places::place_all(&mut plan, &mut transformed)?;
    plan.directories = directories(id, &placed, &mut transformed, reader.names(), &mut plan)?;
    plan.journal = journal_path(id, &plan)?;
    let found = journal::read(&plan.journal)?;
    // A certificate authority's files that stay are part of what tells plans apart.
    if options.ca_keep.is_asked() {
        existing::keep(&mut plan, &mut transformed, &reader, options, found.as_ref())?;
    }
    let fingerprint = plan.fingerprint(&transformed, options);
    // Earlier runs count only when they were of this restore.
    if found.as_ref().is_some_and(|found| !found.is_of(id, &fingerprint)) {
        return Err(of_another(&plan.journal));
    }
    plan.resuming = found.is_some();
    plan.done = found.as_ref().map(|found| plan.done_by(found)).unwrap_or_default();
    judge(&mut plan, &transformed, &reader, options, found.unwrap_or_default())?;
    same_place::check(&mut plan, &transformed.point, reader.names(), repository)?;
    add_steps(&mut plan, &transformed.point);
    let target = match places {
        Places::Below(to) => to.display().to_string(),
        Places::Of(host) => host.network().name.clone(),
    };
    let (steps, findings) = (std::mem::take(&mut plan.steps), std::mem::take(&mut plan.findings));
    Ok(RestorePlan {
        point: id.to_owned(),
        target,
        fingerprint,
        steps,
        findings,
        bytes: plan.bytes,
        files: plan.files,
        kept: plan.kept,
        options: options.clone(),
        reader,
        transformed,
        way: Way::Host(Box::new(plan)),
    })
}

/// What speaks against the restore before its first change: broken rules over the set, data in the way, nodes that run.
fn judge(
    plan: &mut Plan<'_>,
    transformed: &Transformed,
    reader: &PointReader<'_>,
    options: &RestoreOptions,
    mut record: Record,
) -> Result<(), EngineError> {
    let point = &transformed.point;
    settled(plan, point, reader, &mut record);
    find_equal(plan, point, reader, options, &record);
    let is_restored = |id: &NodeId| is_named(id, &transformed.nodes);
    plan.findings.extend(judge::set(point, &|_, node| is_restored(&node.facts.id), options));
    let nodes = || point.nodes.iter().map(|node| &node.facts).filter(|node| is_restored(&node.id));
    if let Some(name) = options.assume_stopped.iter().find(|name| !nodes().any(|node| node.id.to_string() == **name)) {
        return Err(Misuse::of(
            Request::AssumeStopped(name.clone()),
            format!("{name} is not among the nodes that are restored"),
        )
        .into());
    }
    if !options.replace {
        in_the_way(plan, &record);
    }
    if let Some(host) = plan.places.host() {
        plan.findings.extend(surviving::judge(host, point, &is_restored, options.restart_others));
        if options.restart_others {
            let begun = |id: &NodeId| record.is_restarting(&id.to_string());
            let (others, findings) = others::find(host, point, &is_restored, options, &begun)?;
            plan.findings.extend(findings);
            plan.findings.extend(others.nodes.iter().filter_map(|id| restart::no_command(host, id)));
            plan.others = others;
        }
        let chosen: Vec<NodeId> = nodes().map(|node| node.id.clone()).collect();
        running::judge(plan, host, &chosen, options, &record)?;
        if options.replace {
            // Until it is stopped a node writes: whether its directories are as captured is known after that.
            let Plan { directories, to_stop, .. } = &mut *plan;
            directories
                .iter_mut()
                .filter(|planned| to_stop.contains(&planned.id) && !same_place::is_used_by_others(host, planned))
                .for_each(|planned| (planned.equal, planned.same) = (false, None));
        }
        if options.start {
            plan.to_start = host.start_order().into_iter().filter(|id| chosen.contains(id)).collect();
        }
    } else {
        running::judge_places(plan, point, &record)?;
    }
    judge_owners(plan, point);
    may_change::check(plan, point, &record)?;
    room::check(plan, point, &record)?;
    existing::compare(plan, transformed, reader, options, &record)?;
    match plan.places.host() {
        Some(host) => plan_loads(plan, point, reader, host, options.replace),
        None => old_paths::check(plan, point, reader),
    }
}

/// Files that cannot get their owner back: only root may give them away.
fn judge_owners(plan: &mut Plan<'_>, point: &RecoveryPoint) {
    let (own, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if own == 0 {
        return;
    }
    let mut findings = Vec::new();
    for planned in plan.directories.iter().filter(|planned| !planned.equal) {
        let entries = &point.nodes[planned.node].directories[planned.directory].entries;
        findings.extend(owners::judge(
            format!("{} {}", planned.id, planned.staging.place.display()),
            entries,
            |entry| (entry.uid, entry.gid) == (own, group),
            &format!("{own}:{group}"),
            "run the restore as root, or change the owner (chown -R) before the node is started",
        ));
    }
    plan.findings.extend(findings);
}

/// Data that is there, and would have to be set aside.
fn in_the_way(plan: &mut Plan<'_>, record: &Record) {
    let occupied = plan.directories.iter().enumerate().filter(|(index, planned)| {
        planned.occupied && !planned.equal && !record.is_switching(*index) && !record.is_equal(*index)
    });
    let findings = occupied.map(|(_, planned)| {
        Finding::error(
            Rule::NotOverwritten,
            &planned.id,
            format!("{} is not empty", planned.staging.place.display()),
            Remedy::RestoreElsewhere.or(Remedy::SetAside),
        )
    });
    let findings: Vec<Finding> = findings.collect();
    plan.findings.extend(findings);
}

/// Looks at what earlier runs have settled: what has changed since is restored anew, what its node has been started on is left alone.
fn settled(plan: &mut Plan<'_>, point: &RecoveryPoint, reader: &PointReader<'_>, record: &mut Record) {
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
                format!("no action is needed if the node works; to restore it again, remove {}", plan.journal.display()),
            ));
        } else if planned.kept.is_empty()
            && !record.is_loaded(index)
            && !is_as_captured(planned, captured, reader.names())
        {
            plan.again.push(index);
        }
    }
    plan.again.iter().for_each(|&directory| record.add(Step::Again { directory }));
}

/// Finds directories that are there as they were captured: nothing of theirs has to be replaced. Of others those files that stay.
fn find_equal(
    plan: &mut Plan<'_>,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    options: &RestoreOptions,
    record: &Record,
) {
    let untouched: Vec<usize> = plan
        .directories
        .iter()
        .enumerate()
        .filter(|(index, planned)| planned.occupied && !record.is_switching(*index) && !planned.staging.is_staged())
        .map(|(index, _)| index)
        .collect();
    if options.replace {
        let places: Vec<_> = untouched.iter().map(|&index| plan.captured(index, point)).collect();
        let found = same_files::find(&places, reader.names(), options.threads());
        for (&index, same) in untouched.iter().zip(found) {
            plan.directories[index].same = Some(same);
        }
    }
    for index in untouched {
        let (planned, captured) = plan.captured(index, point);
        let equal = planned.kept.is_empty() && is_as_captured(planned, captured, reader.names());
        plan.directories[index].equal = equal;
    }
}

/// How every directory gets into its place. What the recovery point has where another node lives is left out of it.
fn directories(
    point: &str,
    places: &[Placed],
    transformed: &mut Transformed,
    names: &NameKey,
    plan: &mut Plan<'_>,
) -> Result<Vec<PlannedDirectory>, EngineError> {
    let mounts = Mounts::read()?;
    let network = plan.places.host().map(Host::network);
    let mut out = Vec::new();
    for Placed { node, directory, id, shared, place } in places {
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
        let is_folder = |entry: &&CapturedEntry| matches!(entry.content, EntryContent::Directory);
        let folders: Vec<String> = captured.entries.iter().filter(is_folder).map(|entry| entry.path.clone()).collect();
        let staging = Staging::new(point, place.clone(), &mounts, &others, &folders)?;
        leave_out_mounted(id, captured, &staging, names, &mut plan.findings);
        leave_out_others(id, captured, &staging, &mut plan.findings);
        blocked(id, captured, &staging, &mut plan.findings);
        let occupied = staging.is_occupied(id)?;
        out.push(PlannedDirectory {
            node: *node,
            directory: *directory,
            id: id.clone(),
            shared: shared.clone(),
            staging,
            occupied,
            equal: false,
            same: None,
            kept: Vec::new(),
            fits: false,
        });
    }
    Ok(out)
}

/// Leaves out files that are mounted into the place, where they are what was captured: a mount point cannot be replaced.
fn leave_out_mounted(
    id: &NodeId,
    captured: &mut CapturedDirectory,
    staging: &Staging,
    names: &NameKey,
    findings: &mut Vec<Finding>,
) {
    captured.entries.retain(|entry| {
        if !staging.mounted_files.contains(&entry.path) {
            return true;
        }
        let path = staging.placed(&entry.path);
        let is_equal = match &entry.content {
            EntryContent::File { size, parts } => compare(&path, *size, parts, names).is_ok(),
            _ => false,
        };
        if !is_equal {
            findings.push(Finding::error(
                Rule::RoomEnough,
                id,
                format!(
                    "{} is a mount point and differs from the captured file: it cannot be replaced",
                    path.display()
                ),
                Remedy::from("unmount it, and run the same command again").or(Remedy::RestoreElsewhere
                    .and("put the captured content where the mount comes from")
                    .and("run the same command again")),
            ));
        }
        false
    });
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
            Remedy::RestoreElsewhere.or("correct the inventory"),
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
                    "{} is a mount point or contains one, and is not a directory in the recovery point",
                    staging.placed(&entry.path).display()
                ),
                Remedy::from("unmount what is mounted there").or(Remedy::RestoreElsewhere),
            ));
        }
    }
}

/// The journal lies where no directory of the plan is moved: beside the first one, and where nothing can be written there, beside the next
/// one, or inside one that is a mount point. An earlier run's stays where it is.
fn journal_path(point: &str, plan: &Plan<'_>) -> Result<PathBuf, EngineError> {
    let folders = match &plan.places {
        Places::Below(to) => vec![outside(&std::path::absolute(to).map_err(io(to))?, plan)],
        Places::Of(_) => plan.directories.iter().flat_map(|planned| journal_folders(planned, plan)).collect(),
    };
    let journals: Vec<PathBuf> = folders.iter().map(|folder| folder.join(format!("{STAGED}{point}.journal"))).collect();
    let is_there = |journal: &&PathBuf| journal.symlink_metadata().is_ok();
    let may_be = |journal: &&PathBuf| journal.parent().is_some_and(|folder| may_change::closed(folder).is_none());
    let found = journals.iter().find(is_there).or_else(|| journals.iter().find(may_be)).or(journals.first());
    Ok(found.cloned().unwrap_or_else(|| PathBuf::from(format!("{STAGED}{point}.journal"))))
}

/// Where a journal may lie because of a directory.
fn journal_folders(planned: &PlannedDirectory, plan: &Plan<'_>) -> Vec<PathBuf> {
    let place = &planned.staging.place;
    let beside = outside(place.parent().unwrap_or(place), plan);
    let inside = planned.staging.regions.first().filter(|region| region.mounted && region.at.is_dir());
    std::iter::once(beside).chain(inside.map(|_| place.clone())).collect()
}

/// A folder, or the nearest one above it that lies in no place of the plan.
fn outside(folder: &Path, plan: &Plan<'_>) -> PathBuf {
    let is_moved = |folder: &Path| plan.directories.iter().any(|planned| folder.starts_with(&planned.staging.place));
    folder.ancestors().find(|folder| !is_moved(folder)).unwrap_or(folder).to_path_buf()
}

fn add_steps(plan: &mut Plan<'_>, point: &RecoveryPoint) {
    plan.steps.extend(plan.to_stop.iter().map(|node| RestoreStep::Stop { node: node.to_string() }));
    for planned in plan.directories.iter().filter(|planned| !planned.equal) {
        let captured = &point.nodes[planned.node].directories[planned.directory];
        let files = captured.entries.iter().filter(|entry| matches!(entry.content, EntryContent::File { .. }));
        let (count, bytes) = (files.count() as u64, captured.data_bytes());
        let kept = planned.kept_files();
        plan.files += count;
        plan.bytes += bytes;
        plan.kept += kept;
        plan.steps.push(RestoreStep::Write {
            node: planned.id.to_string(),
            path: planned.staging.place.clone(),
            files: count,
            bytes,
            kept,
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
    plan.steps.extend(plan.others.nodes.iter().map(|node| RestoreStep::Restart { node: node.to_string() }));
    plan.steps.extend(plan.to_start.iter().map(|node| RestoreStep::Start { nodes: vec![node.to_string()] }));
}
