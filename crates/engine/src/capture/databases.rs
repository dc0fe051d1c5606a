//! Checks everything that is not a chain: LevelDB directories, raft and SmartBFT logs, snapshots, CA databases, keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fabkeep_ledger::layout::{Class, DirectoryRole, Kind, NodeRole};
use fabkeep_ledger::leveldb::{self, Database, LedgerList, MissingPrivateData, Report};
use fabkeep_ledger::private_hashes::PrivateWrite;
use fabkeep_ledger::raft::{self, RaftError};
use fabkeep_ledger::wal_split::Proposals;
use fabkeep_ledger::{Hash, smartbft};
use fabkeep_network::{
    CaFacts, Finding, KeyFacts, LedgerFacts, MissingCollection, NodeFacts, OrLeaveOut, RaftFacts, RaftSnapshotFacts,
    Rule, WalKind,
};
use fabkeep_platform::VolumeEntry;
use fabkeep_store::{BlobId, PointWriter, Sources};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::survey::{PlannedNode, Survey, SurveyedDirectory};
use super::{ByChannel, CaptureOptions, files, keys, over_nodes, source_name};
use super::{authority, chain_folders, derived, identities, named, packages, private_data, settings, start_marks};
use crate::EngineError;
use crate::event::{Event, Reporter};

/// What the stores of one node say of a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heights {
    pub index: Option<u64>,
    pub state: Option<u64>,
    pub history: Option<u64>,
    /// Whether the history database could be asked.
    pub history_read: bool,
    /// Whether the peer's configuration history has anything of the channel, where it could be read.
    pub in_config_history: Option<bool>,
    pub private: Option<u64>,
    /// What the peer lacks, by collection; what exactly, when its store was at hand.
    pub missing_private: Vec<MissingCollection>,
    pub missing: Vec<MissingPrivateData>,
    /// Where the block index has the last block that it knows: number, block file, offset.
    pub indexed_at: Option<(u64, u32, u64)>,
    /// Private data that the peer holds of the first and the last blocks, with the hashes that the blocks must have of it.
    pub private_writes: Vec<(PrivateWrite, Hash)>,
    /// Chaincode packages (`label:hash`) that the peer's organization approved in the first and the last blocks.
    pub approved: BTreeSet<String>,
    /// Whether the private-data store is not, file by file, what the earlier capture read.
    pub private_changed: bool,
    /// Whether private data was purged, where the store was at hand: then what is left of it may have another hash.
    pub purged: Option<bool>,
}

/// What the checks learned of one node.
#[derive(Debug, Default)]
pub(crate) struct NodeChecks {
    pub heights: ByChannel<Heights>,
    pub raft: Vec<RaftFacts>,
    pub keys: Vec<KeyFacts>,
    pub ca: Option<CaFacts>,
    /// Lowest block that a channel's raft log speaks of.
    pub lowest_logged: ByChannel<u64>,
    /// What the entries of a channel's raft log propose, where the log was read.
    pub proposals: ByChannel<Proposals>,
    /// What the entries of a channel's SmartBFT log propose: number and header hash.
    pub proposed: ByChannel<Vec<(u64, Hash)>>,
}

/// What the checks learned of all nodes, in the survey's order.
#[derive(Debug)]
pub(crate) struct Facts {
    pub nodes: Vec<NodeChecks>,
    pub findings: Vec<Finding>,
    /// What the next capture needs not learn again, for the index.
    pub learned: Sources,
}

/// What the index keeps of a database or log on a volume that is far away: unchanged, it is not copied again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct CachedFacts {
    /// Heights by channel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    heights: BTreeMap<String, u64>,
    /// A peer's list of ledgers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<LedgerList>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<RaftFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lowest_logged: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<RaftSnapshotFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaFacts>,
    /// Missing private data, by channel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, Vec<MissingCollection>>,
    /// How many files it had: one that is gone is a change, though the others are as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    files: Option<usize>,
}

impl CachedFacts {
    pub fn of_authority(facts: CaFacts) -> Self {
        CachedFacts { ca: Some(facts), ..CachedFacts::default() }
    }
}

fn known_name(writer: &PointWriter<'_>, node: &PlannedNode, directory: &SurveyedDirectory, path: &str) -> BlobId {
    source_name(writer, &["known", &node.node.id.to_string(), &directory.directory.path, path])
}

fn known(
    writer: &PointWriter<'_>,
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    path: &str,
) -> Option<CachedFacts> {
    serde_json::from_value(writer.source(&known_name(writer, node, directory, path))?.clone()).ok()
}

/// Returns the list of ledgers that an earlier capture read, of a directory that is far away and unchanged.
pub(super) fn known_list(
    writer: &PointWriter<'_>,
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    path: &str,
) -> Option<LedgerList> {
    known(writer, node, directory, path)?.list
}

/// Returns whether an earlier capture looked at this database or log as it is now.
pub(crate) fn is_known(
    writer: &PointWriter<'_>,
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    path: &str,
) -> bool {
    let known = known(writer, node, directory, path);
    let files: Vec<_> = files_of(directory, path).collect();
    directory.volume.local("").is_none()
        && known.is_some_and(|known| known.files.is_none_or(|count| count == files.len()))
        && files.iter().all(|entry| files::is_unchanged(writer, node, directory, entry))
}

/// Returns the authoritative files of a database or log.
fn files_of<'a>(directory: &'a SurveyedDirectory, path: &str) -> impl Iterator<Item = &'a VolumeEntry> {
    let inside = format!("{path}/");
    let of = move |entry: &VolumeEntry| {
        let journal =
            || ["-wal", "-journal"].iter().any(|suffix| entry.path.strip_suffix(*suffix) == inside.strip_suffix('/'));
        Some(entry.path.as_str()) == inside.strip_suffix('/') || entry.path.starts_with(&inside) || journal()
    };
    let all = directory.files(true).filter(|(_, place)| place.class == Class::Authoritative);
    all.map(|(entry, _)| entry).filter(move |entry| of(entry))
}

/// Whether the files of a database are those that an earlier capture read.
fn is_unchanged(writer: &PointWriter<'_>, node: &PlannedNode, directory: &SurveyedDirectory, path: &str) -> bool {
    let inside = format!("{path}/");
    let mut of_database = directory.files(true).filter(|(entry, _)| entry.path.starts_with(&inside));
    of_database.all(|(entry, _)| files::is_unchanged(writer, node, directory, entry))
}

/// Notes for the next capture, of directories that are far away.
pub(super) struct Notes<'a> {
    pub writer: &'a PointWriter<'a>,
    node: &'a PlannedNode,
    learned: &'a Mutex<Sources>,
}

impl Notes<'_> {
    pub fn take(&self, directory: &SurveyedDirectory, path: &str, known: CachedFacts) {
        if directory.volume.local("").is_some() {
            return;
        }
        let known = CachedFacts { files: Some(files_of(directory, path).count()), ..known };
        let name = known_name(self.writer, self.node, directory, path).to_string();
        if let Ok(value) = serde_json::to_value(known) {
            self.learned.lock().insert(name, value);
        }
    }

    /// Whether a database's files are those that an earlier capture read.
    pub fn is_unchanged(&self, directory: &SurveyedDirectory, path: &str) -> bool {
        is_unchanged(self.writer, self.node, directory, path)
    }

    /// Adds to what this capture has learned of it.
    pub fn amend(&self, directory: &SurveyedDirectory, path: &str, change: impl FnOnce(&mut CachedFacts)) {
        let name = known_name(self.writer, self.node, directory, path).to_string();
        let mut known: CachedFacts = {
            let learned = self.learned.lock();
            learned.get(&name).and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
        };
        change(&mut known);
        self.take(directory, path, known);
    }

    /// Returns what an earlier capture learned, taken over for the next.
    pub fn recall(&self, directory: &SurveyedDirectory, path: &str) -> Option<CachedFacts> {
        let known = known(self.writer, self.node, directory, path)?;
        self.take(directory, path, known.clone());
        Some(known)
    }
}

impl Facts {
    /// Puts everything known of each node together.
    pub fn into_node_facts(self, survey: &Survey, ledgers: &[Vec<LedgerFacts>]) -> Vec<NodeFacts> {
        survey
            .nodes
            .iter()
            .zip(self.nodes)
            .zip(ledgers)
            .map(|((node, checked), ledgers)| NodeFacts {
                id: node.node.id.clone(),
                role: node.node.role,
                msp_id: node.node.msp_id.clone(),
                running: node.running,
                ledgers: ledgers.clone(),
                raft: checked.raft,
                keys: checked.keys,
                ca: checked.ca,
                snapshots_from_logs: settings::snapshots_from_logs(node),
            })
            .collect()
    }
}

pub(crate) fn check(
    survey: &Survey,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
) -> Result<Facts, EngineError> {
    let findings = Mutex::new(Vec::new());
    let learned = Mutex::new(Sources::new());
    let found = |finding: Finding| {
        findings.lock().push(finding);
    };
    let nodes = over_nodes(survey, options.threads, |_, node| {
        let mut checked = NodeChecks::default();
        let notes = Notes { writer, node, learned: &learned };
        for directory in &node.directories {
            check_databases(node, directory, writer, options, reporter, &found);
            check_logs(node, directory, &notes, &mut checked, reporter, &found);
            chain_folders::check(survey, node, directory, &notes, &found);
            start_marks::check(node, directory, &notes, &found);
            if directory.directory.role == DirectoryRole::DatabaseDump {
                checked.ca = Some(authority::check_dump(node, directory, &found));
            }
        }
        let homes = settings::surveyed_homes(node);
        let of_files = authority::check_homes(node, &homes, &notes, &found);
        // The content of a dump is more informative than its absence.
        checked.ca = checked.ca.take().or(of_files);
        read_heights(node, &notes, &mut checked);
        if node.node.role == NodeRole::Peer {
            private_data::read(node, &notes, &mut checked.heights);
            packages::check(node, writer, options, &found);
            derived::check(node, options, &found);
        }
        checked.keys = keys::collect(node, &found);
        authority::check_keys(node, &homes, &checked.keys, &found);
        authority::check_further(node, &homes, &found);
        identities::check(node, &checked.keys, &found);
        named::check(node, &survey.nodes, &found);
        checked
    });
    let mut nodes = nodes;
    private_data::look_elsewhere(survey, &mut nodes);
    packages::check_approved(survey, &nodes, &found);
    let mut findings = findings.into_inner();
    findings.sort_by(|a: &Finding, b: &Finding| (a.rule, &a.subject).cmp(&(b.rule, &b.subject)));
    Ok(Facts { nodes, findings, learned: learned.into_inner() })
}

fn check_databases(
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
    found: &dyn Fn(Finding),
) {
    for path in directory.databases(options.include_derived) {
        let inside = format!("{path}/");
        let bytes: u64 = directory
            .files(true)
            .filter(|(entry, _)| entry.path.starts_with(&inside))
            .map(|(entry, _)| entry.stamp.size)
            .sum();
        let unchanged = !options.reread && is_unchanged(writer, node, directory, &path);
        if let Some(local) = directory.local(&path) {
            let subject = || format!("{} {path}", node.node.id);
            // Files that are as they were do not tell that none of them is gone: that the rest still opens as a whole does.
            let check = |database: Database| {
                if unchanged { database.get(&[0]).map(|_| Report::default()) } else { database.check() }
            };
            match Database::open(&local).and_then(check) {
                Ok(report) => {
                    if let Some((file, offset)) = report.torn.filter(|_| !node.may_be_torn()) {
                        found(Finding::warning(
                            Rule::DatabaseWhole,
                            subject(),
                            format!("{file} ends inside a record (byte {offset}), though the node is stopped"),
                            "this happens after a crash, and the node drops the record when it starts; a truncated file looks the same",
                        ));
                    }
                }
                Err(error) => found(Finding::error(
                    Rule::DatabaseWhole,
                    subject(),
                    error.to_string(),
                    OrLeaveOut(
                        "take the directory from an earlier recovery point (or let the node rebuild it, if it is derived)",
                    ),
                )),
            }
        }
        reporter.event(Event::Advance { bytes, blocks: 0 });
    }
}

fn check_logs(
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    notes: &Notes<'_>,
    checked: &mut NodeChecks,
    reporter: &dyn Reporter,
    found: &dyn Fn(Finding),
) {
    if node.node.role != NodeRole::Orderer {
        return;
    }
    let remedy =
        OrLeaveOut("take the orderer's ledger and raft directories from another orderer or an earlier recovery point");
    let damaged = |channel: &str, error: RaftError| {
        found(Finding::error(
            Rule::RaftLogWhole,
            format!("{} {channel} raft log", node.node.id),
            error.to_string(),
            remedy,
        ));
    };
    for (channel, path) in directory.logs() {
        let Some(local) = directory.local(&path) else {
            if let Some(known) = notes.recall(directory, &path) {
                known.log.iter().for_each(|log| found_torn(node, &channel, log, found));
                known.log.into_iter().for_each(|log| attach_log(&mut checked.raft, log));
                checked.lowest_logged.extend(known.lowest_logged.map(|lowest| (channel, lowest)));
            }
            continue;
        };
        let smart = directory.files(false).any(|(entry, place)| {
            place.kind == Kind::WalFile(channel.clone())
                && entry.path.rsplit('/').next().is_some_and(|name| smartbft::wal_file_number(name).is_some())
        });
        let facts =
            if smart { smartbft_facts(&channel, &local, checked) } else { raft_facts(&channel, &local, checked) };
        match facts {
            Ok(facts) => {
                found_torn(node, &channel, &facts, found);
                let lowest_logged = checked.lowest_logged.get(&channel).copied();
                notes.take(
                    directory,
                    &path,
                    CachedFacts { log: Some(facts.clone()), lowest_logged, ..CachedFacts::default() },
                );
                attach_log(&mut checked.raft, facts);
            }
            Err(error) => damaged(&channel, error),
        }
    }
    for (channel, path) in directory.snapshots() {
        let Some(local) = directory.local(&path) else {
            let known = notes.recall(directory, &path).and_then(|known| known.snapshot);
            if let Some(snapshot) = known {
                attach_snapshot(&mut checked.raft, &channel, snapshot);
            }
            continue;
        };
        match raft::newest_snapshot(&local) {
            Ok(Some(snapshot)) => {
                let facts = RaftSnapshotFacts {
                    term: snapshot.term,
                    index: snapshot.index,
                    block: snapshot.block,
                    block_hash: snapshot.block_hash.map(hex::encode),
                };
                // One directory may hold logs and snapshots: what is known of both stands together.
                let log = checked.raft.iter().find(|known| known.channel == channel);
                let log = log.filter(|_| directory.logs().get(&channel) == Some(&path)).cloned();
                let lowest_logged = checked.lowest_logged.get(&channel).copied().filter(|_| log.is_some());
                notes.take(
                    directory,
                    &path,
                    CachedFacts { snapshot: Some(facts.clone()), log, lowest_logged, ..CachedFacts::default() },
                );
                attach_snapshot(&mut checked.raft, &channel, facts);
            }
            Ok(None) => {}
            Err(error) => found(Finding::error(
                Rule::RaftLogWhole,
                format!("{} {channel} raft snapshot", node.node.id),
                error.to_string(),
                remedy,
            )),
        }
    }
    let bytes: u64 = directory
        .files(false)
        .filter(|(_, place)| matches!(place.kind, Kind::WalFile(_) | Kind::RaftSnapshot(_)))
        .map(|(entry, _)| entry.stamp.size)
        .sum();
    reporter.event(Event::Advance { bytes, blocks: 0 });
}

/// An unfinished record at a log's end. Of a raft log it is left out; SmartBFT repairs its log by itself.
fn found_torn(node: &PlannedNode, channel: &str, facts: &RaftFacts, found: &dyn Fn(Finding)) {
    let Some((file, offset)) = &facts.torn else { return };
    let subject = format!("{} {channel} raft log", node.node.id);
    let cut = match facts.kind {
        WalKind::Raft => {
            "the recovery point ends the log after its last complete record, because Fabric does not repair it (O5)"
        }
        WalKind::SmartBft => "the recovery point contains the log as it is; SmartBFT repairs it when it starts",
    };
    let what = format!("{file} ends inside a record (byte {offset}): {cut}");
    found(if node.may_be_torn() {
        Finding::note(Rule::RaftLogWhole, subject, what, "no action is needed: the orderer was writing it")
    } else {
        let remedy = match facts.kind {
            WalKind::Raft => {
                "this happens after a crash: the orderer does not start with its own directory; restore it from this recovery point, or truncate the file at that byte"
            }
            WalKind::SmartBft => {
                "this happens after a crash, and the orderer drops the record when it starts; a truncated file looks the same"
            }
        };
        Finding::warning(Rule::RaftLogWhole, subject, what, remedy)
    });
}

/// Logs and snapshots may lie in directories of their own, and come in any order.
fn attach_log(raft: &mut Vec<RaftFacts>, mut log: RaftFacts) {
    match raft.iter_mut().find(|known| known.channel == log.channel) {
        Some(known) => {
            log.snapshot = log.snapshot.or(known.snapshot.take());
            *known = log;
        }
        None => raft.push(log),
    }
}

fn attach_snapshot(raft: &mut Vec<RaftFacts>, channel: &str, facts: RaftSnapshotFacts) {
    match raft.iter_mut().find(|known| known.channel == channel) {
        Some(known) => known.snapshot = Some(facts),
        None => raft.push(RaftFacts { snapshot: Some(facts), ..RaftFacts::new(channel, WalKind::Raft) }),
    }
}

fn raft_facts(channel: &str, local: &Path, checked: &mut NodeChecks) -> Result<RaftFacts, RaftError> {
    let mut proposals = Proposals::default();
    let summary = raft::check_wal_directory(local, |_, wal| proposals.read(&wal.bytes, &wal.records))?;
    if let Some(lowest) = proposals.lowest_block() {
        checked.lowest_logged.insert(channel.to_owned(), lowest);
    }
    checked.proposals.insert(channel.to_owned(), proposals);
    Ok(RaftFacts {
        files: summary.files,
        first_index: summary.first_index,
        last_index: summary.last_index,
        commit: summary.commit,
        term: Some(summary.term),
        noted_snapshot: summary.snapshots.iter().map(|(_, index)| *index).max().filter(|&index| index > 0),
        opens_at: Some(summary.opens_at),
        torn: summary.torn,
        ..RaftFacts::new(channel, WalKind::Raft)
    })
}

fn smartbft_facts(channel: &str, local: &Path, checked: &mut NodeChecks) -> Result<RaftFacts, RaftError> {
    let summary = smartbft::check_wal_directory(local)?;
    let proposed = summary.proposals.iter().map(|(number, _)| *number).max();
    if let Some(lowest) = summary.proposals.iter().map(|(number, _)| *number).min() {
        checked.lowest_logged.insert(channel.to_owned(), lowest);
    }
    checked.proposed.insert(channel.to_owned(), summary.proposals);
    Ok(RaftFacts {
        files: summary.files,
        torn: summary.torn,
        signer: summary.signer,
        proposed,
        ..RaftFacts::new(channel, WalKind::SmartBft)
    })
}

/// Heights that a node's databases claim. What cannot be read (a running node's derived data moves) is not claimed.
fn read_heights(node: &PlannedNode, notes: &Notes<'_>, checked: &mut NodeChecks) {
    for directory in &node.directories {
        for chain in directory.chains() {
            let heights = checked.heights.entry(chain.channel.clone()).or_default();
            let channel = chain.channel.as_str();
            let (store, depth) = match node.node.role {
                NodeRole::Peer => (chain.path.strip_suffix(&format!("/chains/chains/{channel}")), "chains/index"),
                _ => (chain.path.strip_suffix(&format!("chains/{channel}")), "index"),
            };
            let Some(store) = store else { continue };
            let join = |name: &str| {
                if store.is_empty() || store.ends_with('/') {
                    format!("{store}{name}")
                } else {
                    format!("{store}/{name}")
                }
            };
            let read = |path: String, read: fn(&Path, &str) -> Result<Option<u64>, leveldb::LevelDbError>| {
                let Some(local) = directory.local(&path) else {
                    return notes.recall(directory, &path)?.heights.get(channel).copied();
                };
                let height = read(&local, channel).ok().flatten();
                notes.amend(directory, &path, |known| {
                    known.heights.extend(height.map(|height| (channel.to_owned(), height)));
                });
                height
            };
            heights.index = read(join(depth), leveldb::block_index_height);
            if let (Some(last), Some(local)) =
                (heights.index.and_then(|height| height.checked_sub(1)), directory.local(&join(depth)))
            {
                let place = leveldb::block_location(&local, channel, last).ok().flatten();
                heights.indexed_at = place.map(|(file, offset)| (last, file, offset));
            }
            if node.node.role == NodeRole::Peer {
                heights.state = read(join("stateLeveldb"), leveldb::state_height);
                heights.history = read(join("historyLeveldb"), leveldb::state_height);
                heights.history_read = directory.local(&join("historyLeveldb")).is_some();
                let config_history = directory.local(&join("configHistory"));
                heights.in_config_history =
                    config_history.and_then(|local| leveldb::knows_channel(&local, channel).ok());
                heights.private = read(join("pvtdataStore"), leveldb::private_data_height);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raft_log_and_its_snapshot_meet_in_either_order() {
        let log = || RaftFacts {
            files: 1,
            first_index: Some(7),
            last_index: Some(9),
            commit: 9,
            noted_snapshot: Some(7),
            ..RaftFacts::new("c", WalKind::Raft)
        };
        let snapshot = || RaftSnapshotFacts { term: 2, index: 7, block: Some(3), block_hash: None };
        let mut first = Vec::new();
        attach_log(&mut first, log());
        attach_snapshot(&mut first, "c", snapshot());
        let mut second = Vec::new();
        attach_snapshot(&mut second, "c", snapshot());
        attach_log(&mut second, log());
        assert_eq!(first, second);
        assert_eq!(first, [RaftFacts { snapshot: Some(snapshot()), ..log() }]);
    }
}
