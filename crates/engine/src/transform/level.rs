//! Brings orderers to the state of one donor (O2): the chain, raft log and snapshot of one orderer replace those of the others, which were
//! read at other moments. Orderers with this state start in any order without a fork.

use std::collections::BTreeSet;

use fabkeep_ledger::channel_config::ChannelConfig;
use fabkeep_ledger::layout::{Class, DirectoryRole, Kind, NodeRole, ORDERER_CHAINS};
use fabkeep_ledger::raft::FIRST_LOG_FILE;
use fabkeep_network::{
    Finding, LedgerFacts, NodeDirectory, NodeFacts, NodeId, RaftFacts, Relation, Remedy, Rule, consensus_relation,
};

use crate::located::locate;
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent};

/// A node, to be changed.
pub(crate) struct Levelled<'a> {
    pub facts: &'a mut NodeFacts,
    pub directories: &'a mut Vec<CapturedDirectory>,
}

/// What of a channel is levelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LevelledPart {
    Chain,
    Log,
    Snapshot,
}

impl LevelledPart {
    /// What it is, for people.
    fn what(self) -> &'static str {
        match self {
            LevelledPart::Chain => "chains",
            LevelledPart::Log => "raft logs, as its configuration has them",
            LevelledPart::Snapshot => "raft snapshots, as its configuration has them",
        }
    }

    /// The name of a first file.
    fn first_file(self) -> &'static str {
        match self {
            LevelledPart::Chain => "blockfile_000000",
            LevelledPart::Log => FIRST_LOG_FILE,
            LevelledPart::Snapshot => "0000000000000001-0000000000000001.snap",
        }
    }
}

/// Whether an orderer takes part in a channel's consensus: a follower fetches its blocks, whether it has no log or that of a time when it was
/// a consenter.
pub(crate) fn is_consenter(facts: &NodeFacts, channel: &str, config: Option<&ChannelConfig>) -> bool {
    facts.role == NodeRole::Orderer
        && raft_of(facts, channel).is_some()
        && config.is_none_or(|config| consensus_relation(facts, config) != Relation::Follower)
}

/// Gives a channel's chain and raft state of one orderer to all other consenters; a note that says so, or what forbids it.
pub(crate) fn to_donor(
    channel: &str,
    config: Option<&ChannelConfig>,
    donor: usize,
    nodes: &mut [Levelled<'_>],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let given = taken(nodes[donor].directories, channel);
    let (ledger, raft) = (ledger_of(nodes[donor].facts, channel), raft_of(nodes[donor].facts, channel));
    let donor_id = nodes[donor].facts.id.clone();
    let mut levelled = Vec::new();
    for (position, node) in nodes.iter_mut().enumerate() {
        if position == donor || !is_consenter(node.facts, channel, config) {
            continue;
        }
        match replace(node, channel, &[LevelledPart::Chain, LevelledPart::Log, LevelledPart::Snapshot], &given) {
            Ok(()) => {
                add_donor_ledger(node.facts, channel, ledger.as_ref());
                node.facts.raft.retain(|known| known.channel != channel);
                node.facts.raft.extend(raft.clone());
                levelled.push(node.facts.id.to_string());
            }
            Err(part) => findings.push(no_place(&node.facts.id, channel, &donor_id, part)),
        }
    }
    if !levelled.is_empty() {
        findings.push(Finding::note(
            Rule::OrderersLevel,
            channel,
            format!("{} get the chain and raft state of {donor_id}, which are from one moment", levelled.join(" and ")),
            "no action is needed: orderers restored from different moments could fork",
        ));
    }
    findings
}

/// Notes the donor's chain in a node's facts. The index is made anew, of every channel.
pub(super) fn add_donor_ledger(facts: &mut NodeFacts, channel: &str, ledger: Option<&LedgerFacts>) {
    facts.ledgers.retain(|known| known.channel != channel);
    facts.ledgers.extend(ledger.cloned());
    facts.ledgers.iter_mut().for_each(|ledger| ledger.index_height = None);
}

/// What forbids to level a node.
pub(super) fn no_place(id: &NodeId, channel: &str, donor: &NodeId, part: LevelledPart) -> Finding {
    Finding::error(
        Rule::OrderersLevel,
        format!("{id} {channel}"),
        format!("it cannot get the chain and raft state of {donor}: none of its directories is for {}", part.what()),
        Remedy::from("create the directories of ORDERER_CONSENSUS_WALDIR and SNAPDIR, name them in the inventory and capture again")
            .or(Remedy::CaptureInWindow),
    )
}

pub(crate) fn ledger_of(facts: &NodeFacts, channel: &str) -> Option<LedgerFacts> {
    facts.ledgers.iter().find(|known| known.channel == channel).cloned()
}

pub(crate) fn raft_of(facts: &NodeFacts, channel: &str) -> Option<RaftFacts> {
    facts.raft.iter().find(|known| known.channel == channel).cloned()
}

/// What a file is: which part, of which channel.
fn part_of_channel(directory: &NodeDirectory, path: &str) -> Option<(LevelledPart, String)> {
    match directory.classify(path, false).kind {
        Kind::BlockFile(of) => Some((LevelledPart::Chain, of)),
        Kind::WalFile(of) => Some((LevelledPart::Log, of)),
        Kind::RaftSnapshot(of) => Some((LevelledPart::Snapshot, of)),
        _ => None,
    }
}

/// What a file is of a channel.
fn part_of(directory: &NodeDirectory, path: &str, channel: &str) -> Option<LevelledPart> {
    part_of_channel(directory, path).and_then(|(part, of)| (of == channel).then_some(part))
}

/// A channel's files of a node, with their names.
pub(super) fn taken(directories: &[CapturedDirectory], channel: &str) -> Vec<(LevelledPart, String, CapturedEntry)> {
    let mut out = Vec::new();
    for captured in directories {
        for entry in &captured.entries {
            let Some(part) = part_of(&captured.directory, &entry.path, channel) else { continue };
            let name = entry.path.rsplit('/').next().unwrap_or(&entry.path).to_owned();
            out.push((part, name, entry.clone()));
        }
    }
    out
}

/// Where a directory keeps a channel's part: the folder inside it.
fn folder(directory: &NodeDirectory, part: LevelledPart, channel: &str) -> Option<String> {
    let inside = |role: DirectoryRole| match (part, role) {
        (LevelledPart::Chain, DirectoryRole::OrdererLedger) => Some(format!("{ORDERER_CHAINS}/{channel}")),
        (LevelledPart::Log, DirectoryRole::OrdererWal) | (LevelledPart::Snapshot, DirectoryRole::OrdererSnapshots) => {
            Some(channel.to_owned())
        }
        _ => None,
    };
    let nested = directory.nested.iter().find_map(|(at, role)| Some(format!("{at}/{}", inside(*role)?)));
    nested.or_else(|| inside(directory.role))
}

/// Whether a folder is where an orderer keeps a part, if its logs and snapshots have folders of their own.
fn is_usual(directory: &NodeDirectory, part: LevelledPart, path: &str) -> bool {
    let (_, role, inside) = directory.part(path);
    match part {
        LevelledPart::Chain => true,
        LevelledPart::Log => role == DirectoryRole::OrdererWal || inside.starts_with("etcdraft/wal/"),
        LevelledPart::Snapshot => role == DirectoryRole::OrdererSnapshots || inside.starts_with("etcdraft/snapshot/"),
    }
}

/// Where a node keeps a channel's part: by what it has there, else by its directories' roles.
/// `beside`: where its configuration has the snapshots, as seen from the logs.
fn place(
    directories: &[CapturedDirectory],
    part: LevelledPart,
    channel: &str,
    beside: Option<&str>,
) -> Option<(usize, String)> {
    let has = directories.iter().enumerate().find_map(|(position, captured)| {
        let of_part = |entry: &&CapturedEntry| part_of(&captured.directory, &entry.path, channel) == Some(part);
        let entry = captured.entries.iter().find(of_part)?;
        Some((position, entry.path.rsplit_once('/')?.0.to_owned()))
    });
    // The node has made the folder, and nothing in it yet.
    let in_empty = || {
        let is_empty = |captured: &CapturedDirectory, folder: &str| {
            let below = |entry: &&CapturedEntry| entry.path.rsplit_once('/').is_some_and(|(above, _)| above == folder);
            !captured
                .entries
                .iter()
                .filter(below)
                .any(|entry| part_of(&captured.directory, &entry.path, channel).is_some())
        };
        let folders = directories.iter().enumerate().flat_map(|(position, captured)| {
            let folders = captured.entries.iter().filter(|entry| {
                matches!(entry.content, EntryContent::Directory)
                    && part_of(&captured.directory, &format!("{}/{}", entry.path, part.first_file()), channel)
                        == Some(part)
                    && is_empty(captured, &entry.path)
            });
            folders.map(|entry| (position, entry.path.clone())).collect::<Vec<_>>()
        });
        let folders: Vec<(usize, String)> = folders.collect();
        // Logs may be found among snapshots, and snapshots among logs: by their names alone both folders could be the one.
        let usual = folders.iter().find(|(position, path)| is_usual(&directories[*position].directory, part, path));
        usual.or(folders.first()).cloned()
    };
    let beside_others = || {
        directories.iter().enumerate().find_map(|(position, captured)| {
            let (_, folder) = captured.entries.iter().find_map(|entry| {
                let (of, other) = part_of_channel(&captured.directory, &entry.path)?;
                let folder = entry.path.rsplit_once('/')?.0.strip_suffix(&other)?;
                (of == part).then_some((of, folder))
            })?;
            Some((position, format!("{folder}{channel}")))
        })
    };
    let by_role = || {
        directories
            .iter()
            .enumerate()
            .find_map(|(position, captured)| Some((position, folder(&captured.directory, part, channel)?)))
    };
    let in_ledger = || {
        let (own, other) = match part {
            LevelledPart::Log => ("etcdraft/wal", "etcdraft/snapshot"),
            LevelledPart::Snapshot => ("etcdraft/snapshot", "etcdraft/wal"),
            LevelledPart::Chain => return None,
        };
        // Where the other of the two lies, unless nothing tells.
        let known = directories.iter().enumerate().find_map(|(position, captured)| {
            captured.entries.iter().find_map(|entry| Some((position, entry.path.find(other)?, &entry.path)))
        });
        match known {
            Some((position, at, path)) => Some((position, format!("{}{own}/{channel}", &path[..at]))),
            None if part == LevelledPart::Snapshot => place(directories, LevelledPart::Log, channel, None),
            None => {
                let ledger =
                    directories.iter().position(|known| known.directory.role == DirectoryRole::OrdererLedger)?;
                Some((ledger, format!("{own}/{channel}")))
            }
        }
    };
    if let (None, LevelledPart::Snapshot, Some(beside)) = (&has, part, beside) {
        let (position, log) = place(directories, LevelledPart::Log, channel, None)?;
        let logs = log.strip_suffix(channel)?.trim_end_matches('/');
        let known: Vec<&NodeDirectory> = directories.iter().map(|captured| &captured.directory).collect();
        return locate(&known, (position, logs), &format!("{beside}/{channel}"));
    }
    has.or_else(in_empty).or_else(beside_others).or_else(by_role).or_else(in_ledger)
}

/// Puts given files in the place of a node's own of these parts.
pub(super) fn replace(
    node: &mut Levelled<'_>,
    channel: &str,
    parts: &[LevelledPart],
    given: &[(LevelledPart, String, CapturedEntry)],
) -> Result<(), LevelledPart> {
    let Levelled { facts, directories } = node;
    let filled: BTreeSet<LevelledPart> = given.iter().map(|(part, ..)| *part).collect();
    let mut places = Vec::new();
    for part in filled {
        let (directory, folder) =
            place(directories, part, channel, facts.snapshots_from_logs.as_deref()).ok_or(part)?;
        places.push((part, directory, folder));
    }
    for captured in directories.iter_mut() {
        let of = captured.directory.clone();
        // The node's own index names places in block files that go: it is made anew.
        let is_index =
            |path: &str| parts.contains(&LevelledPart::Chain) && of.classify(path, false).class == Class::Derived;
        captured.entries.retain(|entry| {
            !matches!(entry.content, EntryContent::File { .. })
                || !(part_of(&of, &entry.path, channel).is_some_and(|part| parts.contains(&part))
                    || is_index(&entry.path))
        });
    }
    for (part, position, folder) in places {
        let captured = &mut directories[position];
        let Some(like) = add_folders(captured, &folder) else { return Err(part) };
        for (_, name, entry) in given.iter().filter(|(of, ..)| *of == part) {
            captured.entries.push(CapturedEntry {
                path: format!("{folder}/{name}"),
                // The files belong to the node whose place they are in.
                uid: like.0,
                gid: like.1,
                ..entry.clone()
            });
        }
        captured.entries.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(())
}

/// Makes sure that a folder and those above it are among the entries; the owner of what is there.
fn add_folders(captured: &mut CapturedDirectory, folder: &str) -> Option<(u32, u32)> {
    let mut above = captured.entries.iter().find(|entry| entry.path.is_empty())?.clone();
    let mut path = String::new();
    for name in folder.split('/') {
        path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        above = match captured.entries.iter().find(|entry| entry.path == path) {
            Some(entry) => entry.clone(),
            None => {
                let made = CapturedEntry { path: path.clone(), ..above };
                captured.entries.push(made.clone());
                made
            }
        };
    }
    Some((above.uid, above.gid))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fabkeep_network::{KeyFacts, KeyPurpose, WalKind};
    use serde_json::json;

    use super::*;

    fn orderer(key: &str) -> NodeFacts {
        let certificate = json!({"common_name": "o", "units": [], "issuer": "ca", "serial": "1", "not_before": 0,
            "not_after": 1, "names": [], "is_ca": false, "key_sha256": key});
        NodeFacts {
            id: NodeId { organization: "OrdererOrg".to_owned(), node: "orderer1".to_owned() },
            role: NodeRole::Orderer,
            msp_id: None,
            running: false,
            ledgers: Vec::new(),
            raft: vec![RaftFacts::new("ch", WalKind::Raft)],
            keys: vec![KeyFacts {
                path: "tls/server.crt".to_owned(),
                purpose: KeyPurpose::Tls,
                certificate: serde_json::from_value(certificate).unwrap(),
                key: None,
            }],
            ca: None,
            snapshots_from_logs: None,
        }
    }

    #[test]
    fn an_orderer_that_left_the_consenters_is_none_whatever_log_it_has() {
        let consenter = json!({"id": null, "msp_id": null, "host": "o", "port": 1, "client_tls_key": "aa",
            "server_tls_key": "aa", "identity_key": null});
        let config: ChannelConfig = serde_json::from_value(json!({"channel": "ch", "sequence": 1, "organizations": [],
            "consensus_type": "etcdraft", "consensus_state": "STATE_NORMAL", "consenters": [consenter],
            "orderer_addresses": [], "capabilities": {}, "max_message_count": 1, "absolute_max_bytes": 1,
            "preferred_max_bytes": 1, "batch_timeout": "2s"}))
        .unwrap();
        assert!(is_consenter(&orderer("aa"), "ch", Some(&config)));
        assert!(!is_consenter(&orderer("bb"), "ch", Some(&config)));
        assert!(!is_consenter(&orderer("aa"), "other", Some(&config)));
        // Without a configuration the log decides.
        assert!(is_consenter(&orderer("bb"), "ch", None));
    }
}
