//! The survey: lists every node's directories, classifies every file by the node's layout, detects running nodes, and copies their
//! databases until a copy is consistent.
//!
//! The order preserves the invariants for running nodes: all peers before any orderer (I1); in a peer block files before private data
//! (I2); in an orderer snapshots before chains before logs (I3). Block files only grow, so a listing defines which bytes are captured.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fabkeep_ledger::block_file::{BOOTSTRAPPING_SNAPSHOT, BlockFileExtent, file_number};
use fabkeep_ledger::layout::{Class, DirectoryRole, Kind, NodeRole, Place, is_like_a_block_file};
use fabkeep_ledger::node_settings::StateDatabase;
use fabkeep_network::{DirectorySource, Finding, Node, NodeDirectory, OrLeaveOut, Remedy, Rule};
use fabkeep_platform::{EntryKind, HostVolume, NodeState, Platform, PlatformError, Stamp, Unread, Volume, VolumeEntry};
use fabkeep_store::PointWriter;

use super::entries::{check_entries, leave_out_links};
use super::links::{self, LedTo, Links};
use super::staging::{self, CopySource, LiveStore};
use super::{CaptureOptions, databases, presence, servers, settings, start_marks};
use crate::EngineError;
use crate::misuse::{Misuse, Request};
use fabkeep_parallel as parallel;

/// A node as the survey found it.
pub struct PlannedNode {
    /// The node.
    pub node: Node,
    /// Whether it runs, and its files change while they are read.
    pub running: bool,
    /// Whether its volumes are read from snapshots.
    pub snapshot: bool,
    /// Whether a channel on it was joined by snapshot (P4).
    pub joined_by_snapshot: bool,
    /// Ledgers that the node's next start removes: they are left out.
    pub(crate) removed_by_start: BTreeSet<String>,
    pub(crate) directories: Vec<SurveyedDirectory>,
}

impl PlannedNode {
    /// Returns whether an unfinished record at the end of a file is no sign of damage: the node was writing it.
    pub(crate) fn may_be_torn(&self) -> bool {
        self.running || self.snapshot
    }
}

/// A directory as the survey found it.
pub(crate) struct SurveyedDirectory {
    pub directory: NodeDirectory,
    pub volume: Box<dyn Volume>,
    pub entries: Vec<(VolumeEntry, Place)>,
    /// Copies of parts of it, by relative path, read instead of the source.
    pub staged: BTreeMap<String, HostVolume>,
    /// What its links lead to.
    pub links: Links,
}

/// The block files of one channel in one directory.
#[derive(Debug, Clone)]
pub(crate) struct ChainFiles {
    pub channel: String,
    /// The chain directory's path in its node directory.
    pub path: String,
    pub files: Vec<BlockFileExtent>,
    /// Data that shows whether each file is the one that an earlier capture read.
    pub stamps: BTreeMap<u32, Stamp>,
    pub joined_by_snapshot: bool,
}

/// Everything that the survey found.
pub(crate) struct Survey {
    pub nodes: Vec<PlannedNode>,
    pub findings: Vec<Finding>,
}

impl SurveyedDirectory {
    /// Returns the volume and path to read a file from: the copy, where there is one.
    pub fn source<'a>(&'a self, path: &'a str) -> (&'a dyn Volume, &'a str) {
        match self.copy_of(path) {
            Some((copy, inside)) => (copy, inside),
            None => (self.volume.as_ref(), path),
        }
    }

    fn copy_of<'a>(&'a self, path: &'a str) -> Option<(&'a HostVolume, &'a str)> {
        self.staged.iter().find_map(|(prefix, copy)| {
            if path == prefix {
                return Some((copy, ""));
            }
            let inside =
                if prefix.is_empty() { Some(path) } else { path.strip_prefix(prefix.as_str())?.strip_prefix('/') };
            Some((copy, inside?))
        })
    }

    /// Returns a directory or file inside as a path of this machine: the copy, where there is one; `None` when it is far away and was not
    /// copied because nothing changed.
    pub fn local(&self, path: &str) -> Option<std::path::PathBuf> {
        match self.copy_of(path) {
            Some((copy, inside)) => copy.local(inside),
            None => self.volume.local(path),
        }
    }

    pub fn is_staged(&self, path: &str) -> bool {
        self.copy_of(path).is_some()
    }

    /// Returns what an entry is, or what it leads to if it is a link.
    pub fn led_to<'a>(&'a self, entry: &'a VolumeEntry) -> LedTo<'a> {
        match &entry.kind {
            EntryKind::Symlink(_) => self.links.led_to(&entry.path),
            _ => LedTo::Entry(entry),
        }
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

    /// Returns the channels' chain directories.
    pub fn chains(&self) -> Vec<ChainFiles> {
        let mut chains: BTreeMap<(String, String), BTreeMap<u32, Stamp>> = BTreeMap::new();
        for (entry, place) in self.files(false) {
            let Kind::BlockFile(channel) = &place.kind else { continue };
            let Some((path, name)) = entry.path.rsplit_once('/') else { continue };
            let Some(number) = file_number(name) else { continue };
            chains.entry((channel.clone(), path.to_owned())).or_default().insert(number, entry.stamp);
        }
        chains
            .into_iter()
            .map(|((channel, path), stamps)| {
                let extent = |(&number, stamp): (&u32, &Stamp)| BlockFileExtent { number, len: stamp.size };
                let files = stamps.iter().map(extent).collect();
                let marker = format!("{path}/{BOOTSTRAPPING_SNAPSHOT}");
                let joined_by_snapshot = self.entries.iter().any(|(entry, _)| entry.path == marker);
                ChainFiles { channel, path, files, stamps, joined_by_snapshot }
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

pub(crate) fn is_wanted(place: &Place, derived: bool) -> bool {
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
        self.nodes.iter().map(database_bytes).sum()
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

/// Returns the bytes of a node's databases and logs.
pub(crate) fn database_bytes(node: &PlannedNode) -> u64 {
    let files = node.directories.iter().flat_map(|directory| directory.files(false));
    let is_database = |place: &Place| matches!(place.kind, Kind::LevelDb(_) | Kind::WalFile(_) | Kind::RaftSnapshot(_));
    files.filter(|(_, place)| is_database(place)).map(|(entry, _)| entry.stamp.size).sum()
}

/// The folder for a survey's copies, and the data that shows which copies are not needed.
#[derive(Clone, Copy)]
pub(crate) struct Staging<'a> {
    pub scratch: &'a Path,
    pub writer: &'a PointWriter<'a>,
}

/// Surveys every node that is not excluded. With `staging`, what has to be copied is; without, nothing is copied (a plan only).
pub(crate) fn survey(
    platform: &dyn Platform,
    options: &CaptureOptions,
    staging: Option<Staging<'_>>,
) -> Result<Survey, EngineError> {
    for name in &options.exclude {
        if !platform.network().nodes().any(|node| node.id.to_string() == *name) {
            return Err(Misuse::of(Request::ExcludeNode(name.clone()), format!("the network has no node {name}"))
                .next(Remedy::ListNodes)
                .into());
        }
    }
    let mut survey = Survey { nodes: Vec::new(), findings: platform.findings().to_vec() };
    let nodes: Vec<&Node> =
        platform.network().nodes().filter(|node| !options.exclude.contains(&node.id.to_string())).collect();
    // State databases before their peers (P3); all peers before any orderer (I1); what depends on no order beside the peers.
    let turns: [&[NodeRole]; 3] = [
        &[NodeRole::StateDatabase],
        &[NodeRole::Peer, NodeRole::CertificateAuthority, NodeRole::CaDatabase, NodeRole::Chaincode, NodeRole::Files],
        &[NodeRole::Orderer],
    ];
    let mut position = 0;
    for roles in turns {
        let of_turn: Vec<(usize, &Node)> = roles
            .iter()
            .flat_map(|role| nodes.iter().filter(move |node| node.role == *role))
            .map(|node| {
                position += 1;
                (position, *node)
            })
            .collect();
        let threads = platform.readers().unwrap_or(1);
        let results =
            parallel::map(of_turn, threads, |(position, node)| survey_node(platform, node, position, options, staging));
        for result in results {
            let (planned, findings) = result?;
            survey.findings.extend(findings);
            survey.nodes.push(planned);
        }
    }
    survey.findings.extend(links::judge_followed(&survey.nodes));
    Ok(survey)
}

/// Surveys one node.
pub(crate) fn survey_node(
    platform: &dyn Platform,
    node: &Node,
    position: usize,
    options: &CaptureOptions,
    staging: Option<Staging<'_>>,
) -> Result<(PlannedNode, Vec<Finding>), EngineError> {
    let mut findings = Vec::new();
    let with_databases =
        (node.role == NodeRole::CertificateAuthority).then(|| settings::with_databases(platform, node));
    let node = with_databases.as_ref().unwrap_or(node);
    // What may run is read as what runs.
    let state = platform.state(&node.id)?;
    let running = !matches!(state, NodeState::Stopped | NodeState::Snapshot);
    let mut planned = PlannedNode {
        node: node.clone(),
        running,
        snapshot: state == NodeState::Snapshot,
        joined_by_snapshot: false,
        removed_by_start: BTreeSet::new(),
        directories: Vec::new(),
    };
    let mut dumped = false;
    let dumps = platform.network().nodes().flat_map(|node| &node.directories);
    let any_dump = dumps.into_iter().any(|directory| directory.role == DirectoryRole::DatabaseDump);
    for directory in in_order(node, running) {
        let of_server = directory.source == DirectorySource::Server;
        if of_server && options.copy_databases {
            continue;
        }
        let opened = match platform.volume(&node.id, directory) {
            Err(error @ PlatformError::Io { .. }) => {
                findings.push(unreadable(node, directory, error.into())?);
                continue;
            }
            // A server that does not let its database be dumped is no reason to hide the other findings.
            Err(PlatformError::NotHere { problem, next }) if directory.role == DirectoryRole::DatabaseDump => {
                findings.push(Finding::error(Rule::CaDatabase, &node.id, problem, next.or(Remedy::ExcludeNode)));
                continue;
            }
            other => other?,
        };
        let Some(volume) = opened else {
            // Ephemeral data is gone without its pod; the platform has reported that. A stopped server is not dumped: its files are copied.
            if directory.source != DirectorySource::Ephemeral && !of_server {
                findings.push(Finding::error(
                    Rule::NotPersistent,
                    &node.id,
                    format!("its {} directory {} does not exist", directory.role, directory.path),
                    OrLeaveOut("correct the inventory"),
                ));
            }
            continue;
        };
        let scratch =
            staging.map(|staging| (staging, staging.scratch.join(format!("{position}-{}", planned.directories.len()))));
        let scratch = scratch.as_ref().map(|(staging, folder)| (*staging, folder.as_path()));
        dumped |= of_server;
        let surveyed = if dumped && directory.role == DirectoryRole::Database {
            // The dump has what is in it; the server makes its files anew.
            let (mut entries, _) = list(volume.as_ref(), directory, &mut planned.joined_by_snapshot)?;
            entries
                .iter_mut()
                .filter(|(entry, _)| !entry.path.is_empty())
                .for_each(|(_, place)| place.class = Class::Skip);
            let (staged, links) = (BTreeMap::new(), Links::default());
            Ok(SurveyedDirectory { directory: directory.clone(), volume, entries, staged, links })
        } else {
            survey_directory(&mut planned, directory, volume, scratch, options, any_dump, &mut findings)
        };
        match surveyed {
            Ok(surveyed) => planned.directories.push(surveyed),
            Err(error) => findings.push(unreadable(node, directory, error)?),
        }
    }
    start_marks::leave_out_removed(&mut planned, |node, directory, path| {
        databases::known_list(staging?.writer, node, directory, path)
    });
    presence::check(&planned, options.include_derived, &mut findings);
    state_database(&planned, options.include_derived, &mut findings);
    Ok((planned, findings))
}

/// Returns a finding with the path of data that cannot be read or captured, so that other problems are found too.
fn unreadable(node: &Node, directory: &NodeDirectory, error: EngineError) -> Result<Finding, EngineError> {
    match error {
        // A stream from a cluster that breaks says nothing of the directory.
        EngineError::Platform(PlatformError::Io { path, source })
            if node.workload.is_none()
                || matches!(
                    source.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotADirectory
                ) =>
        {
            let what = format!("its {} directory cannot be listed: {source}", directory.role);
            Ok(not_listed(node, &path, what, &source))
        }
        other => Err(other),
    }
}

/// Returns the finding that a directory, or a part of one, is not listed.
fn not_listed(node: &Node, path: &str, what: String, source: &std::io::Error) -> Finding {
    let remedy = match source.kind() {
        std::io::ErrorKind::PermissionDenied => OrLeaveOut("make it readable for the user who runs fabkeep"),
        std::io::ErrorKind::NotADirectory => OrLeaveOut("correct the inventory"),
        _ => OrLeaveOut("check the disk, or move the directory away if no node uses it"),
    };
    Finding::error(Rule::FileReadable, format!("{} {}", node.id, shortened(path)), what, remedy)
}

/// Most characters of a path in a message.
const MAX_SHOWN: usize = 400;

/// A path as messages show it: of one that is too long, its beginning and its end.
fn shortened(path: &str) -> String {
    let count = path.chars().count();
    if count <= MAX_SHOWN {
        return path.to_owned();
    }
    let part = MAX_SHOWN / 2;
    let (begin, end): (String, String) = (path.chars().take(part).collect(), path.chars().skip(count - part).collect());
    format!("{begin}…{end}")
}

/// Returns the directories of a node that runs, in the order that keeps I3 where they lie apart: snapshots, then chains, then logs.
fn in_order(node: &Node, running: bool) -> Vec<&NodeDirectory> {
    let rank = |directory: &NodeDirectory| match directory.role {
        DirectoryRole::OrdererSnapshots => 0,
        DirectoryRole::OrdererLedger => 1,
        DirectoryRole::OrdererWal => 2,
        _ => 3,
    };
    let mut out: Vec<&NodeDirectory> = node.directories.iter().collect();
    if running && node.role == NodeRole::Orderer {
        out.sort_by_key(|directory| rank(directory));
    }
    out
}

fn survey_directory(
    node: &mut PlannedNode,
    directory: &NodeDirectory,
    volume: Box<dyn Volume>,
    staging: Option<(Staging<'_>, &Path)>,
    options: &CaptureOptions,
    any_dump: bool,
    findings: &mut Vec<Finding>,
) -> Result<SurveyedDirectory, EngineError> {
    let (entries, unread) = list(volume.as_ref(), directory, &mut node.joined_by_snapshot)?;
    for part in unread {
        let path = format!("{}/{}", directory.path.trim_end_matches('/'), part.path);
        let what = format!("a part of its {} directory cannot be listed: {}", directory.role, part.source);
        findings.push(not_listed(&node.node, &path, what, &part.source));
    }
    let links = Links::of(&entries, &directory.excluded, volume.local("").is_some());
    let mut surveyed =
        SurveyedDirectory { directory: directory.clone(), volume, entries, staged: BTreeMap::new(), links };
    report_left_out(node, &surveyed, findings);
    servers::leave_out(node, &mut surveyed, any_dump, findings);
    leave_out_links(node, &mut surveyed.entries, findings);
    let far = surveyed.volume.local("").is_none();
    let derived = options.include_derived || node.joined_by_snapshot;
    let Some((staging, scratch)) = staging.filter(|_| node.running || far) else {
        check_entries(node, &surveyed.entries, findings);
        return Ok(surveyed);
    };
    let (is_snapshot, not_known) = (
        |wanted: &CopySource| wanted.copied == LiveStore::Snapshots,
        |node: &PlannedNode, directory: &SurveyedDirectory, wanted: &CopySource| {
            options.reread || !databases::is_known(staging.writer, node, directory, &wanted.path)
        },
    );
    let mut all = (BTreeMap::new(), Vec::new());
    let mut copy =
        |node: &PlannedNode, surveyed: &SurveyedDirectory, wanted: Vec<CopySource>| -> Result<(), EngineError> {
            let wanted = wanted.into_iter().filter(|wanted| not_known(node, surveyed, wanted)).collect();
            let (copies, problems) = staging::stage(surveyed, wanted, scratch, options.live_attempts, node.running)?;
            all.0.extend(copies);
            all.1.extend(problems);
            Ok(())
        };
    if node.running {
        // I3: snapshots before chains, chains before logs. Listing the block files fixes their extent.
        let snapshots: Vec<CopySource> = staging::wanted(&surveyed, derived, true)
            .into_iter()
            .filter(|wanted| is_snapshot(wanted) && not_known(node, &surveyed, wanted))
            .collect();
        if !snapshots.is_empty() {
            copy(node, &surveyed, snapshots)?;
            (surveyed.entries, _) = list(surveyed.volume.as_ref(), directory, &mut node.joined_by_snapshot)?;
        }
    }
    check_entries(node, &surveyed.entries, findings);
    let wanted = staging::wanted(&surveyed, derived, node.running);
    let wanted = wanted.into_iter().filter(|wanted| !(node.running && is_snapshot(wanted))).collect();
    copy(node, &surveyed, wanted)?;
    let (staged, problems) = all;
    for (path, problem) in problems {
        let subject = format!("{} {}", node.node.id, if path.is_empty() { &directory.path } else { &path });
        findings.push(if node.running {
            Finding::error(
                Rule::LiveCopy,
                subject,
                format!(
                    "the node runs, and none of {} copies of this was consistent: {problem}",
                    options.live_attempts
                ),
                Remedy::from("stop the node and run the backup again").or(Remedy::MoreAttempts).or(Remedy::ExcludeNode),
            )
        } else {
            Finding::error(
                Rule::FileReadable,
                subject,
                format!("it cannot be copied: {problem}"),
                OrLeaveOut("check the disk and the file's permissions"),
            )
        });
    }
    staging::replace_entries(&mut surveyed, &staged, node.joined_by_snapshot)?;
    surveyed.staged = staged;
    Ok(surveyed)
}

/// An entry, and its place in the node's layout.
type Listed = (VolumeEntry, Place);

fn list(
    volume: &dyn Volume,
    directory: &NodeDirectory,
    joined_by_snapshot: &mut bool,
) -> Result<(Vec<Listed>, Vec<Unread>), EngineError> {
    let (entries, unread) = volume.list_readable()?;
    *joined_by_snapshot |= entries.iter().any(|entry| entry.path.rsplit('/').next() == Some(BOOTSTRAPPING_SNAPSHOT));
    let placed = entries.into_iter().map(|entry| {
        let mut place = directory.classify(&entry.path, *joined_by_snapshot);
        if looks_like_a_block_file(directory, &entry) {
            place.class = Class::Skip;
        }
        (entry, place)
    });
    Ok((placed.collect(), unread))
}

/// Returns whether a restored node, which has no block index, would take an entry for a block file, and the entry is none.
fn looks_like_a_block_file(directory: &NodeDirectory, entry: &VolumeEntry) -> bool {
    let (_, role, inside) = directory.part(&entry.path);
    entry.kind != EntryKind::Directory && is_like_a_block_file(role, inside)
}

/// Names what [`list`] leaves out because no node starts with it.
fn report_left_out(node: &PlannedNode, surveyed: &SurveyedDirectory, findings: &mut Vec<Finding>) {
    for (entry, _) in surveyed.entries.iter().filter(|(entry, _)| looks_like_a_block_file(&surveyed.directory, entry)) {
        findings.push(Finding::warning(
            Rule::FileReadable,
            format!("{} {}", node.node.id, entry.path),
            "its name begins as those of block files do, and it is none: it is not captured. A node without its block index, such as a restored one, does not start with it",
            "move it out of the chain's directory: the node itself would not start either once its block index is rebuilt",
        ));
    }
}

/// What becomes of a host's CouchDB (P3): on a cluster the platform says it.
fn state_database(node: &PlannedNode, include_derived: bool, findings: &mut Vec<Finding>) {
    if node.node.workload.is_some() {
        return;
    }
    let database = node.node.role == NodeRole::StateDatabase;
    if database && !include_derived && !node.joined_by_snapshot {
        findings.push(Finding::note(
            Rule::StateDatabaseOlder,
            &node.node.id,
            "its files are left out: a restore empties the database, and its peer rebuilds the world state from the blocks",
            Remedy::from("no action is needed").or(Remedy::IncludeDerived),
        ));
    }
    if node.node.role == NodeRole::Peer && node.node.served_by.is_empty() {
        let (settings, _) = settings::node_settings(node);
        if let StateDatabase::CouchDb { address } = settings.state_database {
            findings.push(Finding::warning(
                Rule::StateDatabaseOlder,
                &node.node.id,
                format!("its world state is in a CouchDB at {address}, which is not a node of the inventory"),
                "empty that CouchDB before this peer is started from this recovery point; or add it to the inventory as a node with role = \"state-database\" and name it in the peer's served_by: then a restore empties it",
            ));
        }
    }
}
