//! Orderers of a cut are levelled to one donor (O2): each channel's chain, raft log and snapshot of the highest orderer take the place of
//! the others', which were read at other moments. That is what was seen to start in any order without a fork (FABRIC.md section 7).

use std::collections::BTreeSet;

use fabkeep_ledger::layout::{DirectoryRole, Kind, NodeRole, ORDERER_CHAINS};
use fabkeep_network::{Finding, NodeDirectory, NodeFacts, Rule};

use super::cut::Cuts;
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent};

/// What of a channel is levelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Chain,
    Log,
    Snapshot,
}

/// Levels every channel that has a donor; a note for each orderer that took another's data.
pub(super) fn orderers(
    cuts: &Cuts,
    facts: &mut [NodeFacts],
    directories: &mut [Vec<CapturedDirectory>],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (channel, cut) in &cuts.by_channel {
        let Some(donor) = cut.donor else { continue };
        let given = taken(&directories[donor], channel);
        let (ledger, raft) = (ledger_of(&facts[donor], channel), raft_of(&facts[donor], channel));
        let donor_id = facts[donor].id.clone();
        let mut levelled = Vec::new();
        for node in 0..facts.len() {
            // A follower has no log, and is no consenter: it fetches its blocks.
            let consenter = facts[node].role == NodeRole::Orderer && raft_of(&facts[node], channel).is_some();
            if node == donor || !consenter {
                continue;
            }
            match replace(&mut directories[node], channel, &given) {
                Ok(()) => {
                    facts[node].ledgers.retain(|known| known.channel != *channel);
                    facts[node].ledgers.extend(ledger.clone());
                    facts[node].raft.retain(|known| known.channel != *channel);
                    facts[node].raft.extend(raft.clone());
                    levelled.push(facts[node].id.to_string());
                }
                Err(part) => findings.push(Finding::error(
                    Rule::OrderersLevel,
                    format!("{} {channel}", facts[node].id),
                    format!("it cannot be levelled to {donor_id}: none of its directories is for a {part:?}"),
                    "name the directories of ORDERER_CONSENSUS_WALDIR and SNAPDIR in the inventory, or use a window (--quiesce …)",
                )),
            }
        }
        if !levelled.is_empty() {
            findings.push(Finding::note(
                Rule::OrderersLevel,
                channel,
                format!("{} take chain and raft state of {donor_id}, which are of one moment", levelled.join(" and ")),
                "nothing: orderers restored from different moments can fork",
            ));
        }
    }
    findings
}

fn ledger_of(facts: &NodeFacts, channel: &str) -> Option<fabkeep_network::LedgerFacts> {
    facts.ledgers.iter().find(|known| known.channel == channel).cloned()
}

fn raft_of(facts: &NodeFacts, channel: &str) -> Option<fabkeep_network::RaftFacts> {
    facts.raft.iter().find(|known| known.channel == channel).cloned()
}

/// What a file is of a channel.
fn part_of(directory: &NodeDirectory, path: &str, channel: &str) -> Option<Part> {
    match directory.classify(path, false).kind {
        Kind::BlockFile(of) if of == channel => Some(Part::Chain),
        Kind::WalFile(of) if of == channel => Some(Part::Log),
        Kind::RaftSnapshot(of) if of == channel => Some(Part::Snapshot),
        _ => None,
    }
}

/// A channel's files of a node, with their names.
fn taken(directories: &[CapturedDirectory], channel: &str) -> Vec<(Part, String, CapturedEntry)> {
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
fn folder(directory: &NodeDirectory, part: Part, channel: &str) -> Option<String> {
    let inside = |role: DirectoryRole| match (part, role) {
        (Part::Chain, DirectoryRole::OrdererLedger) => Some(format!("{ORDERER_CHAINS}/{channel}")),
        (Part::Log, DirectoryRole::OrdererWal) | (Part::Snapshot, DirectoryRole::OrdererSnapshots) => {
            Some(channel.to_owned())
        }
        _ => None,
    };
    let nested = directory.nested.iter().find_map(|(at, role)| Some(format!("{at}/{}", inside(*role)?)));
    nested.or_else(|| inside(directory.role))
}

/// Where a node keeps a channel's part: by what it has there, else by its directories' roles.
fn place(directories: &[CapturedDirectory], part: Part, channel: &str) -> Option<(usize, String)> {
    let has = directories.iter().enumerate().find_map(|(position, captured)| {
        let of_part = |entry: &&CapturedEntry| part_of(&captured.directory, &entry.path, channel) == Some(part);
        let entry = captured.entries.iter().find(of_part)?;
        Some((position, entry.path.rsplit_once('/')?.0.to_owned()))
    });
    let by_role = || {
        directories
            .iter()
            .enumerate()
            .find_map(|(position, captured)| Some((position, folder(&captured.directory, part, channel)?)))
    };
    // Without a directory for snapshots they lie with the logs, or beside them in the ledger's.
    let with_logs = || (part == Part::Snapshot).then(|| place(directories, Part::Log, channel)).flatten();
    let in_ledger = || {
        let below = match part {
            Part::Log => "etcdraft/wal",
            Part::Snapshot => "etcdraft/snapshot",
            Part::Chain => return None,
        };
        let ledger = directories.iter().position(|known| known.directory.role == DirectoryRole::OrdererLedger)?;
        Some((ledger, format!("{below}/{channel}")))
    };
    has.or_else(by_role).or_else(with_logs).or_else(in_ledger)
}

/// Puts the donor's files in the place of a node's own.
fn replace(
    directories: &mut [CapturedDirectory],
    channel: &str,
    given: &[(Part, String, CapturedEntry)],
) -> Result<(), Part> {
    let parts: BTreeSet<Part> = given.iter().map(|(part, ..)| *part).collect();
    let mut places = Vec::new();
    for part in parts {
        let (directory, folder) = place(directories, part, channel).ok_or(part)?;
        places.push((part, directory, folder));
    }
    for captured in directories.iter_mut() {
        let of = captured.directory.clone();
        captured.entries.retain(|entry| {
            !matches!(entry.content, EntryContent::File { .. }) || part_of(&of, &entry.path, channel).is_none()
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
