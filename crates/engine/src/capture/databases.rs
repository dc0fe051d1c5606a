//! Checks of everything that is not a chain: LevelDB directories, raft and SmartBFT logs, snapshots, CA databases, keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use fabkeep_ledger::layout::{DirectoryRole, Kind, NodeRole, ORDERER_CHAINS, PEER_CHAINS};
use fabkeep_ledger::leveldb::{self, Database};
use fabkeep_ledger::raft::{self, RaftError};
use fabkeep_ledger::{smartbft, wal_split};
use fabkeep_network::{
    CaFacts, Finding, KeyFacts, LedgerFacts, NodeFacts, RaftFacts, RaftSnapshotFacts, Rule, WalKind,
};
use fabkeep_platform::EntryKind;
use fabkeep_store::PointWriter;

use super::survey::{PlannedNode, Survey, SurveyedDirectory};
use super::{ByChannel, CaptureOptions, files, keys, over_nodes};
use crate::EngineError;
use crate::event::{Event, Reporter};

/// What the stores of one node say of a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heights {
    pub index: Option<u64>,
    pub state: Option<u64>,
    pub private: Option<u64>,
}

/// What the checks learned of one node.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub heights: ByChannel<Heights>,
    pub raft: Vec<RaftFacts>,
    pub keys: Vec<KeyFacts>,
    pub ca: Option<CaFacts>,
    /// Lowest block that a channel's raft log speaks of.
    pub lowest_logged: ByChannel<u64>,
}

/// What the checks learned of all nodes, in the survey's order.
#[derive(Debug)]
pub(crate) struct Facts {
    pub nodes: Vec<Checked>,
    pub findings: Vec<Finding>,
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
    let found = |finding: Finding| {
        findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding);
    };
    let nodes = over_nodes(survey, options.threads, |_, node| {
        let mut checked = Checked::default();
        for directory in &node.directories {
            check_databases(node, directory, writer, options, reporter, &found);
            check_logs(node, directory, &mut checked, reporter, &found);
            check_chain_directories(node, directory, &found);
            check_ledger_list(node, directory, &found);
            if directory.directory.role == DirectoryRole::CaHome {
                checked.ca = Some(check_ca(node, directory, &found));
            }
        }
        read_heights(node, &mut checked);
        checked.keys = keys::collect(node, &found);
        checked
    });
    let mut findings = findings.into_inner().unwrap_or_default();
    findings.sort_by(|a: &Finding, b: &Finding| (a.rule, &a.subject).cmp(&(b.rule, &b.subject)));
    Ok(Facts { nodes, findings })
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
        let unchanged = !options.reread
            && directory
                .files(true)
                .filter(|(entry, _)| entry.path.starts_with(&inside))
                .all(|(entry, _)| files::is_unchanged(writer, node, directory, entry));
        if !unchanged {
            let subject = || format!("{} {path}", node.node.id);
            match Database::open(&directory.local(&path)).and_then(|database| database.check()) {
                Ok(report) => {
                    if let Some((file, offset)) = report.torn.filter(|_| !node.running) {
                        found(Finding::warning(
                            Rule::DatabaseWhole,
                            subject(),
                            format!("{file} ends inside a record (byte {offset}), though the node is stopped"),
                            "a crash leaves that, and the node drops the record at its start; a cut file looks the same",
                        ));
                    }
                }
                Err(error) => found(Finding::error(
                    Rule::DatabaseWhole,
                    subject(),
                    error.to_string(),
                    "take the directory from an earlier recovery point (or let the node rebuild it, if it is derived), or leave the node out (--exclude)",
                )),
            }
        }
        reporter.event(Event::Advance { bytes, blocks: 0 });
    }
}

fn check_logs(
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    checked: &mut Checked,
    reporter: &dyn Reporter,
    found: &dyn Fn(Finding),
) {
    if node.node.role != NodeRole::Orderer {
        return;
    }
    let remedy = "take the orderer's ledger and raft directories from another orderer or an earlier recovery point, or leave the node out (--exclude)";
    let damaged = |channel: &str, error: RaftError| {
        found(Finding::error(
            Rule::RaftLogWhole,
            format!("{} {channel} raft log", node.node.id),
            error.to_string(),
            remedy,
        ));
    };
    for (channel, path) in directory.logs() {
        let local = directory.local(&path);
        let smart = directory.files(false).any(|(entry, place)| {
            place.kind == Kind::WalFile(channel.clone())
                && entry.path.rsplit('/').next().is_some_and(|name| smartbft::wal_file_number(name).is_some())
        });
        let facts = if smart { smartbft_facts(&channel, &local) } else { raft_facts(&channel, &local, checked) };
        match facts {
            Ok(facts) => {
                if let Some((file, offset)) = facts.torn.as_ref().filter(|_| !node.running) {
                    found(Finding::warning(
                        Rule::RaftLogWhole,
                        format!("{} {channel} raft log", node.node.id),
                        format!("{file} ends inside a record (byte {offset}), though the node is stopped"),
                        "a crash leaves that, and the node drops the record at its start; a cut file looks the same",
                    ));
                }
                checked.raft.push(facts);
            }
            Err(error) => damaged(&channel, error),
        }
    }
    for (channel, path) in directory.snapshots() {
        match raft::newest_snapshot(&directory.local(&path)) {
            Ok(Some(snapshot)) => {
                attach_snapshot(&mut checked.raft, &channel, snapshot);
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

fn attach_snapshot(raft: &mut Vec<RaftFacts>, channel: &str, snapshot: raft::RaftSnapshot) {
    let facts = RaftSnapshotFacts { term: snapshot.term, index: snapshot.index, block: snapshot.block };
    match raft.iter_mut().find(|known| known.channel == channel) {
        Some(known) => known.snapshot = Some(facts),
        None => raft.push(RaftFacts {
            channel: channel.to_owned(),
            kind: WalKind::Raft,
            files: 0,
            first_index: None,
            last_index: None,
            commit: 0,
            snapshot: Some(facts),
            noted_snapshot: None,
            torn: None,
        }),
    }
}

fn raft_facts(channel: &str, local: &Path, checked: &mut Checked) -> Result<RaftFacts, RaftError> {
    let mut lowest: Option<u64> = None;
    let summary = raft::check_wal_directory(local, |_, wal| {
        lowest = lowest.into_iter().chain(wal_split::lowest_block(&wal.bytes, &wal.records)).min();
    })?;
    if let Some(lowest) = lowest {
        checked.lowest_logged.insert(channel.to_owned(), lowest);
    }
    Ok(RaftFacts {
        channel: channel.to_owned(),
        kind: WalKind::Raft,
        files: summary.files,
        first_index: summary.first_index,
        last_index: summary.last_index,
        commit: summary.commit,
        snapshot: None,
        noted_snapshot: summary.snapshots.iter().map(|(_, index)| *index).max().filter(|&index| index > 0),
        torn: summary.torn,
    })
}

fn smartbft_facts(channel: &str, local: &Path) -> Result<RaftFacts, RaftError> {
    let summary = smartbft::check_wal_directory(local)?;
    Ok(RaftFacts {
        channel: channel.to_owned(),
        kind: WalKind::SmartBft,
        files: summary.files,
        first_index: None,
        last_index: None,
        commit: 0,
        snapshot: None,
        noted_snapshot: None,
        torn: summary.torn,
    })
}

/// Heights that a node's databases claim. What cannot be read (a running node's derived data moves) is not claimed.
fn read_heights(node: &PlannedNode, checked: &mut Checked) {
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
                read(&directory.local(&path), channel).ok().flatten()
            };
            heights.index = read(join(depth), leveldb::block_index_height);
            if node.node.role == NodeRole::Peer {
                heights.state = read(join("stateLeveldb"), leveldb::state_height);
                heights.private = read(join("pvtdataStore"), leveldb::private_data_height);
            }
        }
    }
}

/// A chain's directory without its block files is a chain that was lost.
fn check_chain_directories(node: &PlannedNode, directory: &SurveyedDirectory, found: &dyn Fn(Finding)) {
    let root = match directory.directory.role {
        DirectoryRole::PeerData => PEER_CHAINS,
        DirectoryRole::OrdererLedger => ORDERER_CHAINS,
        _ => return,
    };
    let chains = directory.chains();
    for (entry, _) in directory.entries.iter().filter(|(entry, _)| entry.kind == EntryKind::Directory) {
        let Some(channel) = entry.path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) else { continue };
        if !channel.contains('/') && !chains.iter().any(|chain| chain.path == entry.path) {
            found(Finding::error(
                Rule::HashChain,
                format!("{} {channel}", node.node.id),
                format!("the chain's directory {} holds no block file", entry.path),
                "take the chain from another node or an earlier recovery point, or leave the node out (--exclude)",
            ));
        }
    }
}

/// Every ledger that a peer lists must have its chain, and every chain must be listed.
fn check_ledger_list(node: &PlannedNode, directory: &SurveyedDirectory, found: &dyn Fn(Finding)) {
    if directory.directory.role != DirectoryRole::PeerData {
        return;
    }
    let path = "ledgersData/ledgerProvider";
    let chains: BTreeMap<String, String> =
        directory.chains().into_iter().map(|chain| (chain.channel, chain.path)).collect();
    // A database that cannot be read has its finding already.
    let Ok(listed) = leveldb::ledger_ids(&directory.local(path)) else { return };
    for channel in listed.iter().filter(|channel| !chains.contains_key(*channel)) {
        found(Finding::error(
            Rule::HashChain,
            format!("{} {channel}", node.node.id),
            "the peer lists this ledger, its block files are missing",
            "take the chain from another node or an earlier recovery point, or leave the node out (--exclude)",
        ));
    }
    for channel in chains.keys().filter(|channel| !listed.contains(channel)) {
        found(Finding::warning(
            Rule::HashChain,
            format!("{} {channel}", node.node.id),
            "block files are there, the peer's list of ledgers does not name the channel: the peer will not open it",
            "nothing, if the channel was left; else restore ledgerProvider from an earlier recovery point",
        ));
    }
}

fn check_ca(node: &PlannedNode, directory: &SurveyedDirectory, found: &dyn Fn(Finding)) -> CaFacts {
    let mut facts =
        CaFacts { database: "none found".to_owned(), identities: None, certificates: None, revoked: None, whole: None };
    let database = directory.files(false).find(|(_, place)| place.kind == Kind::Sqlite);
    let Some((entry, _)) = database else {
        found(Finding::warning(
            Rule::CaDatabase,
            &node.node.id,
            "no sqlite database is in its home: the CA may use PostgreSQL or MySQL",
            "back that database up beside this recovery point; its dump is not part of it",
        ));
        return facts;
    };
    facts.database = format!("sqlite {}", entry.path);
    // Looked at in memory: opening a file may write beside it.
    let count = || -> rusqlite::Result<(bool, [u64; 3])> {
        let local = directory.source(&entry.path).0.local(directory.source(&entry.path).1);
        let uri = format!("file:{}?mode=ro&immutable=1", percent(&local));
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
        let database = rusqlite::Connection::open_with_flags(uri, flags)?;
        let check: String = database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|n| n.max(0) as u64);
        Ok((
            check == "ok",
            [
                count("SELECT count(*) FROM users")?,
                count("SELECT count(*) FROM certificates")?,
                count("SELECT count(*) FROM certificates WHERE status = 'revoked'")?,
            ],
        ))
    };
    match count() {
        Ok((whole, [identities, certificates, revoked])) => {
            facts.whole = Some(whole);
            facts.identities = Some(identities);
            facts.certificates = Some(certificates);
            facts.revoked = Some(revoked);
        }
        Err(error) => {
            facts.whole = Some(false);
            found(Finding::error(
                Rule::CaDatabase,
                format!("{} {}", node.node.id, entry.path),
                format!("sqlite cannot read it: {error}"),
                "restore the database from an earlier recovery point, or leave the CA out (--exclude)",
            ));
        }
    }
    facts
}

/// A path in an sqlite URI.
fn percent(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}
