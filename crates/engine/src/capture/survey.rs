//! The survey: every node's directories listed, every file given its place in the node's layout, running nodes recognised and
//! their databases copied aside until the copy proves consistent.
//!
//! The order keeps the invariants for nodes that run: all peers before any orderer (I1); in a peer block files before private data
//! (I2); in an orderer snapshots before chains before logs (I3). Block files only grow, so listing them fixes their extent.

use std::collections::BTreeMap;
use std::path::Path;

use fabkeep_ledger::block_file::{BOOTSTRAPPING_SNAPSHOT, BlockFileExtent, file_number};
use fabkeep_ledger::layout::{Class, Kind, NodeRole, Place};
use fabkeep_network::{Finding, Node, NodeDirectory, Rule};
use fabkeep_platform::{EntryKind, HostVolume, NodeState, Platform, Volume, VolumeEntry};

use super::{CaptureOptions, live};
use crate::EngineError;

/// A node as the survey found it.
pub struct PlannedNode {
    /// The node.
    pub node: Node,
    /// Whether it runs.
    pub running: bool,
    /// Whether a channel on it was joined by snapshot (P4).
    pub joined_by_snapshot: bool,
    pub(crate) directories: Vec<SurveyedDirectory>,
}

/// A directory as the survey found it.
pub(crate) struct SurveyedDirectory {
    pub directory: NodeDirectory,
    pub volume: Box<dyn Volume>,
    pub entries: Vec<(VolumeEntry, Place)>,
    /// Copies of parts of a running node's directory: by relative path, instead of the source.
    pub staged: BTreeMap<String, HostVolume>,
}

/// The block files of one channel in one directory.
#[derive(Debug, Clone)]
pub(crate) struct ChainFiles {
    pub channel: String,
    /// The chain directory's path in its node directory.
    pub path: String,
    pub files: Vec<BlockFileExtent>,
    pub joined_by_snapshot: bool,
}

/// Everything that the survey found.
pub(crate) struct Survey {
    pub nodes: Vec<PlannedNode>,
    pub findings: Vec<Finding>,
}

impl SurveyedDirectory {
    /// The volume and path to read a file from: the copy, where there is one.
    pub fn source<'a>(&'a self, path: &'a str) -> (&'a dyn Volume, &'a str) {
        for (prefix, copy) in &self.staged {
            if path == prefix {
                return (copy, "");
            }
            if let Some(rest) = path.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('/')) {
                return (copy, rest);
            }
        }
        (self.volume.as_ref(), path)
    }

    /// A directory inside as a path of this machine: the copy, where there is one.
    pub fn local(&self, path: &str) -> std::path::PathBuf {
        match self.staged.get(path) {
            Some(copy) => copy.local(""),
            None => self.volume.local(path),
        }
    }

    pub fn is_staged(&self, path: &str) -> bool {
        self.source(path).1 != path
    }

    /// Files that a recovery needs (with `derived`, those that a node rebuilds too).
    pub fn files(&self, derived: bool) -> impl Iterator<Item = &(VolumeEntry, Place)> {
        self.entries.iter().filter(move |(entry, place)| entry.kind == EntryKind::File && is_wanted(place, derived))
    }

    /// LevelDB directories of which something is wanted, in order.
    pub fn databases(&self, derived: bool) -> Vec<String> {
        let mut names: Vec<String> = self
            .files(derived)
            .filter_map(|(_, place)| match &place.kind {
                Kind::LevelDb(directory) => Some(directory.clone()),
                _ => None,
            })
            .collect();
        names.dedup();
        names.sort();
        names.dedup();
        names
    }

    /// The channels' chain directories.
    pub fn chains(&self) -> Vec<ChainFiles> {
        let mut chains: BTreeMap<(String, String), Vec<BlockFileExtent>> = BTreeMap::new();
        for (entry, place) in self.files(false) {
            let Kind::BlockFile(channel) = &place.kind else { continue };
            let Some((path, name)) = entry.path.rsplit_once('/') else { continue };
            let Some(number) = file_number(name) else { continue };
            let extent = BlockFileExtent { number, len: entry.stamp.size };
            chains.entry((channel.clone(), path.to_owned())).or_default().push(extent);
        }
        chains
            .into_iter()
            .map(|((channel, path), mut files)| {
                files.sort_by_key(|file| file.number);
                let marker = format!("{path}/{BOOTSTRAPPING_SNAPSHOT}");
                let joined_by_snapshot = self.entries.iter().any(|(entry, _)| entry.path == marker);
                ChainFiles { channel, path, files, joined_by_snapshot }
            })
            .collect()
    }

    /// Directories of raft or SmartBFT log files, by channel.
    pub fn logs(&self) -> BTreeMap<String, String> {
        self.by_parent(|kind| match kind {
            Kind::WalFile(channel) => Some(channel.clone()),
            _ => None,
        })
    }

    /// Directories of raft snapshots, by channel.
    pub fn snapshots(&self) -> BTreeMap<String, String> {
        self.by_parent(|kind| match kind {
            Kind::RaftSnapshot(channel) => Some(channel.clone()),
            _ => None,
        })
    }

    fn by_parent(&self, channel: impl Fn(&Kind) -> Option<String>) -> BTreeMap<String, String> {
        self.files(false)
            .filter_map(|(entry, place)| Some((channel(&place.kind)?, entry.path.rsplit_once('/')?.0.to_owned())))
            .collect()
    }
}

fn is_wanted(place: &Place, derived: bool) -> bool {
    match place.class {
        Class::Authoritative => true,
        Class::Derived => derived,
        Class::Skip => false,
    }
}

impl Survey {
    pub fn chain_bytes(&self) -> u64 {
        self.sum(|_, place| matches!(place.kind, Kind::BlockFile(_)))
    }

    pub fn file_bytes(&self) -> u64 {
        self.sum(|_, place| !matches!(place.kind, Kind::BlockFile(_)))
    }

    pub fn database_bytes(&self) -> u64 {
        self.sum(|_, place| matches!(place.kind, Kind::LevelDb(_) | Kind::WalFile(_) | Kind::RaftSnapshot(_)))
    }

    fn sum(&self, wanted: impl Fn(&VolumeEntry, &Place) -> bool) -> u64 {
        self.nodes
            .iter()
            .flat_map(|node| &node.directories)
            .flat_map(|directory| directory.files(false))
            .filter(|(entry, place)| wanted(entry, place))
            .map(|(entry, _)| entry.stamp.size)
            .sum()
    }
}

/// Surveys every node that is not excluded. With `scratch`, running nodes' databases are copied there; without, nothing is copied
/// (a plan only).
pub(crate) fn survey(
    platform: &dyn Platform,
    options: &CaptureOptions,
    scratch: Option<&Path>,
) -> Result<Survey, EngineError> {
    let mut survey = Survey { nodes: Vec::new(), findings: Vec::new() };
    for name in &options.exclude {
        if !platform.network().nodes().any(|node| node.id.to_string() == *name) {
            return Err(EngineError::Usage(format!(
                "--exclude {name}: the network has no such node; `fabkeep discover` or the inventory names them (Organization/node)"
            )));
        }
    }
    let mut nodes: Vec<&Node> =
        platform.network().nodes().filter(|node| !options.exclude.contains(&node.id.to_string())).collect();
    // I1: all peers before any orderer.
    nodes.sort_by_key(|node| match node.role {
        NodeRole::Peer => 0,
        NodeRole::Orderer => 1,
        NodeRole::CertificateAuthority => 2,
        NodeRole::Files => 3,
    });
    for (position, node) in nodes.into_iter().enumerate() {
        let running = platform.state(&node.id)? == NodeState::Running;
        let mut planned =
            PlannedNode { node: node.clone(), running, joined_by_snapshot: false, directories: Vec::new() };
        for directory in &node.directories {
            let Some(volume) = platform.volume(directory)? else {
                survey.findings.push(Finding::error(
                    Rule::NotPersistent,
                    &node.id,
                    format!("its {} directory {} does not exist", directory.role, directory.path),
                    "correct the inventory, or leave the node out (--exclude)",
                ));
                continue;
            };
            let scratch = scratch.map(|scratch| scratch.join(format!("{position}-{}", planned.directories.len())));
            let surveyed =
                survey_directory(&mut planned, directory, volume, scratch.as_deref(), options, &mut survey.findings)?;
            planned.directories.push(surveyed);
        }
        check_emptiness(&planned, &mut survey.findings);
        survey.nodes.push(planned);
    }
    Ok(survey)
}

fn survey_directory(
    node: &mut PlannedNode,
    directory: &NodeDirectory,
    volume: Box<dyn Volume>,
    scratch: Option<&Path>,
    options: &CaptureOptions,
    findings: &mut Vec<Finding>,
) -> Result<SurveyedDirectory, EngineError> {
    let mut staged = BTreeMap::new();
    let live = scratch.filter(|_| node.running);
    if let Some(scratch) = live {
        // I3: snapshots before chains.
        let before = list(volume.as_ref(), directory, &mut node.joined_by_snapshot)?;
        let probe =
            SurveyedDirectory { directory: directory.clone(), volume, entries: before, staged: BTreeMap::new() };
        for path in probe.snapshots().into_values() {
            live::copy_snapshots(&probe, &path, scratch, &mut staged)?;
        }
        return survey_running(node, probe.directory, probe.volume, scratch, staged, options, findings);
    }
    let entries = list(volume.as_ref(), directory, &mut node.joined_by_snapshot)?;
    check_entries(node, &entries, findings);
    Ok(SurveyedDirectory { directory: directory.clone(), volume, entries, staged })
}

fn survey_running(
    node: &mut PlannedNode,
    directory: NodeDirectory,
    volume: Box<dyn Volume>,
    scratch: &Path,
    mut staged: BTreeMap<String, HostVolume>,
    options: &CaptureOptions,
    findings: &mut Vec<Finding>,
) -> Result<SurveyedDirectory, EngineError> {
    let entries = list(volume.as_ref(), &directory, &mut node.joined_by_snapshot)?;
    check_entries(node, &entries, findings);
    let mut surveyed = SurveyedDirectory { directory, volume, entries, staged: BTreeMap::new() };
    let mut problems = Vec::new();
    for path in surveyed.databases(options.include_derived || node.joined_by_snapshot) {
        problems.extend(live::copy_database(&surveyed, &path, scratch, options.live_attempts, &mut staged)?);
    }
    for path in surveyed.logs().into_values() {
        problems.extend(live::copy_logs(&surveyed, &path, scratch, options.live_attempts, &mut staged)?);
    }
    for path in live::sqlite_files(&surveyed) {
        problems.extend(live::copy_sqlite(&surveyed, &path, scratch, options.live_attempts, &mut staged)?);
    }
    for (path, problem) in problems {
        findings.push(Finding::error(
            Rule::LiveCopy,
            format!("{} {path}", node.node.id),
            format!("the node runs, and no copy of this proved consistent in {} attempts: {problem}", options.live_attempts),
            "stop the node and run the backup again, give it more attempts (--live-attempts), or leave it out (--exclude)",
        ));
    }
    live::replace_entries(&mut surveyed, &staged, node.joined_by_snapshot)?;
    surveyed.staged = staged;
    Ok(surveyed)
}

fn list(
    volume: &dyn Volume,
    directory: &NodeDirectory,
    joined_by_snapshot: &mut bool,
) -> Result<Vec<(VolumeEntry, Place)>, EngineError> {
    let entries = volume.list()?;
    *joined_by_snapshot |= entries.iter().any(|entry| entry.path.rsplit('/').next() == Some(BOOTSTRAPPING_SNAPSHOT));
    Ok(entries
        .into_iter()
        .map(|entry| {
            let place = directory.classify(&entry.path, *joined_by_snapshot);
            (entry, place)
        })
        .collect())
}

/// A node that holds nothing is not a node that needs nothing.
fn check_emptiness(node: &PlannedNode, findings: &mut Vec<Finding>) {
    let files = node.directories.iter().flat_map(|directory| directory.files(true)).count();
    if files == 0 && !node.directories.is_empty() && node.node.role != NodeRole::Files {
        findings.push(Finding::error(
            Rule::NotPersistent,
            &node.node.id,
            "its directories hold no file",
            "correct the inventory, or leave the node out (--exclude)",
        ));
    }
}

fn check_entries(node: &PlannedNode, entries: &[(VolumeEntry, Place)], findings: &mut Vec<Finding>) {
    for (entry, _) in entries.iter().filter(|(_, place)| place.class == Class::Authoritative) {
        let subject = || format!("{} {}", node.node.id, entry.path);
        match &entry.kind {
            EntryKind::Special => findings.push(Finding::warning(
                Rule::FileReadable,
                subject(),
                "it is a socket, pipe or device and is not captured",
                "nothing, if the node makes it anew at its start",
            )),
            EntryKind::Symlink(target) if leaves(&entry.path, target) => findings.push(Finding::error(
                Rule::Contained,
                subject(),
                format!("it links to {target}, outside of the node's directory"),
                "name the directory it leads to in the inventory and put the file in place of the link, or leave the node out (--exclude)",
            )),
            _ => {}
        }
    }
}

/// Whether a link at `path` with this target leaves the directory that `path` is relative to.
pub(crate) fn leaves(path: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return true;
    }
    let mut depth = path.split('/').count() as i64 - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

/// Files of stopped nodes that changed while they were captured.
pub(crate) fn changed_since(survey: &Survey) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for node in survey.nodes.iter().filter(|node| !node.running) {
        for directory in &node.directories {
            let now: BTreeMap<String, VolumeEntry> =
                directory.volume.list()?.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
            for (entry, _) in directory.files(false) {
                let same = now.get(&entry.path).is_some_and(|now| now.stamp == entry.stamp);
                if !same {
                    findings.push(Finding::error(
                        Rule::FileReadable,
                        format!("{} {}", node.node.id, entry.path),
                        "it changed while it was captured, though the node seemed stopped",
                        "give the node a status command in the inventory, or stop it; then run the backup again",
                    ));
                }
            }
        }
    }
    Ok(findings)
}
