//! Detects stores of different histories on one node: a raft log, a snapshot or a block index that does not belong to the node's chain.

use std::collections::BTreeMap;

use fabkeep_ledger::Hash;
use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{Finding, OrLeaveOut, Rule};

use super::KnownHashes;
use super::cursor::Cursor;
use super::databases::NodeChecks;

/// Blocks by the raft index of the entry that ordered them: number and header hash.
pub(super) type Ordered = BTreeMap<u64, (u64, Hash)>;

const RAFT_REMEDY: OrLeaveOut = OrLeaveOut(
    "a channel that was removed leaves its raft log and snapshots behind (O10): take the orderer's raft directories of this channel from another orderer or an earlier recovery point together with its chain",
);

/// Compares what a node's other stores say of a chain with the chain that was walked.
pub(super) fn compare(
    channel: &str,
    cursor: &Cursor<'_>,
    checked: &NodeChecks,
    known: &KnownHashes,
    ordered: &Ordered,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if cursor.problem.is_some() {
        return findings;
    }
    let subject = format!("{} {channel}", cursor.member.label);
    if !cursor.member.peer {
        findings.extend(raft_log(&subject, channel, cursor, checked, ordered));
        findings.extend(smartbft_log(&subject, channel, cursor, checked, known));
        findings.extend(raft_snapshot(&subject, channel, cursor, checked, known));
    }
    findings.extend(index(&subject, channel, cursor, checked));
    findings.extend(not_rebuilt(&subject, channel, cursor, checked));
    findings
}

/// P4: of a ledger joined by snapshot nothing can be rebuilt, so that its stores must know the channel.
fn not_rebuilt(subject: &str, channel: &str, cursor: &Cursor<'_>, checked: &NodeChecks) -> Vec<Finding> {
    let member = cursor.member;
    if !member.files.joined_by_snapshot || !member.peer {
        return Vec::new();
    }
    let node = &member.survey.nodes[member.node];
    let heights = checked.heights.get(channel).cloned().unwrap_or_default();
    let is_there = |store: &str| {
        let current = format!("{store}/CURRENT");
        let found = |path: &str| path == current || path.ends_with(&format!("ledgersData/{current}"));
        node.directories[member.directory].entries.iter().any(|(entry, _)| found(&entry.path))
    };
    let couch = node.node.directories.iter().any(|directory| directory.role == DirectoryRole::StateDatabase);
    let stores = [
        ("block index (ledgersData/chains/index)", heights.index, true),
        ("state database (ledgersData/stateLeveldb)", heights.state, is_there("stateLeveldb") && !couch),
        (
            "history database (ledgersData/historyLeveldb)",
            heights.history,
            heights.history_read && is_there("historyLeveldb"),
        ),
    ];
    let lacks = stores
        .into_iter()
        .filter(|(_, height, wanted)| *wanted && height.is_none_or(|height| height < cursor.first_block));
    let collections = !heights.private_writes.is_empty() || !heights.missing_private.is_empty();
    let forgotten = (collections && heights.in_config_history == Some(false)).then(|| {
        Finding::error(
            Rule::SnapshotJoined,
            subject,
            format!(
                "the ledger was joined by snapshot at height {} and has collections, and its configuration history (ledgersData/configHistory) does not contain the channel: it cannot be rebuilt",
                cursor.first_block
            ),
            OrLeaveOut("take the peer's whole data directory from an earlier recovery point, or join the channel again"),
        )
    });
    lacks
        .map(|(store, height, _)| {
            let has =
                height.map_or("does not contain the channel".to_owned(), |height| format!("ends at height {height}"));
            Finding::error(
                Rule::SnapshotJoined,
                subject,
                format!(
                    "the ledger was joined by snapshot at height {}, and its {store} {has}: it cannot be rebuilt",
                    cursor.first_block
                ),
                OrLeaveOut(
                    "take the peer's whole data directory from an earlier recovery point, or join the channel again",
                ),
            )
        })
        .chain(forgotten)
        .collect()
}

/// Returns every entry of the log that ordered a block of the chain must propose that very block.
fn raft_log(
    subject: &str,
    channel: &str,
    cursor: &Cursor<'_>,
    checked: &NodeChecks,
    ordered: &Ordered,
) -> Option<Finding> {
    let proposals = checked.proposals.get(channel)?;
    let own_index = cursor.raft_index.filter(|_| !cursor.inherits_index);
    let tip = cursor.tip.zip(own_index).map(|(tip, index)| (index, (tip.height.saturating_sub(1), tip.header_hash)));
    let below = cursor.next;
    let blocks = ordered.iter().map(|(index, block)| (*index, *block)).chain(tip);
    let (index, (number, _), entry) = blocks
        .filter(|(_, (number, _))| *number < below)
        .filter_map(|(index, block)| Some((index, block, proposals.at(index)?)))
        .find(|(_, block, entry)| *entry != Some(*block))?;
    let holds = match entry {
        Some((other, _)) if other == number => format!("another block {other}"),
        Some((other, _)) => format!("block {other}"),
        None => "no block".to_owned(),
    };
    Some(Finding::error(
        Rule::RaftInOrder,
        subject,
        format!(
            "its raft log belongs to an earlier existence of the channel: entry {index} ordered block {number} of the chain, and the log's entry {index} proposes {holds}; the orderer panics when it starts"
        ),
        RAFT_REMEDY,
    ))
}

/// Returns a block that a SmartBFT log proposed and the chain has must be that very block. The log also contains proposals that a later
/// view replaced: the last one of each number counts.
fn smartbft_log(
    subject: &str,
    channel: &str,
    cursor: &Cursor<'_>,
    checked: &NodeChecks,
    known: &KnownHashes,
) -> Option<Finding> {
    let last: BTreeMap<u64, Hash> = checked.proposed.get(channel)?.iter().copied().collect();
    let in_chain = |number: &u64| {
        let tip = cursor.tip.filter(|tip| tip.height.checked_sub(1) == Some(*number)).map(|tip| tip.header_hash);
        known.get(number).copied().or(tip).filter(|_| *number < cursor.next)
    };
    let compared: Vec<bool> = last.iter().filter_map(|(number, hash)| Some(in_chain(number)? == *hash)).collect();
    // One proposal that did not become a block is nothing; a log none of whose proposals did is another channel's.
    if compared.is_empty() || compared.contains(&true) {
        return None;
    }
    Some(Finding::error(
        Rule::RaftInOrder,
        subject,
        format!(
            "its SmartBFT log belongs to an earlier existence of the channel: none of the {} blocks that it proposes equals the chain's block of that number",
            compared.len()
        ),
        RAFT_REMEDY,
    ))
}

fn raft_snapshot(
    subject: &str,
    channel: &str,
    cursor: &Cursor<'_>,
    checked: &NodeChecks,
    known: &KnownHashes,
) -> Option<Finding> {
    let raft = checked.raft.iter().find(|raft| raft.channel == channel)?;
    let snapshot = raft.snapshot.as_ref()?;
    let (number, found) = (snapshot.block?, snapshot.block_hash.as_ref()?);
    let tip = cursor.tip.filter(|tip| tip.height.checked_sub(1) == Some(number)).map(|tip| tip.header_hash);
    let expected = hex::encode(known.get(&number).copied().or(tip)?);
    (expected != *found && number < cursor.next).then(|| {
        Finding::error(
            Rule::RaftInOrder,
            subject,
            format!(
                "its raft snapshot at index {} belongs to an earlier existence of the channel: the header hash of its block {number} is {found}, the chain's is {expected}",
                snapshot.index
            ),
            RAFT_REMEDY,
        )
    })
}

/// Checks that the index has the last block at its place. The recovery point leaves the index out, unless nothing can be rebuilt.
fn index(subject: &str, channel: &str, cursor: &Cursor<'_>, checked: &NodeChecks) -> Option<Finding> {
    let (number, file, offset) = checked.heights.get(channel)?.indexed_at?;
    let last = cursor.last.filter(|_| number.checked_add(1) == Some(cursor.next))?;
    let member = cursor.member;
    if member.survey.nodes[member.node].running || (file, offset) == last {
        return None;
    }
    let what = format!(
        "its block index belongs to another chain or to other block files: it has block {number} at byte {offset} of block file {file}, the block is at byte {} of file {}",
        last.1, last.0
    );
    let remedy = if member.files.joined_by_snapshot {
        "a channel joined by snapshot cannot rebuild its index (P4): check whether this peer can read its old blocks; take its whole data directory from one moment"
    } else {
        "the recovery point does not contain the index; remove the index directory before you start this node again, which rebuilds it"
    };
    Some(Finding::warning(Rule::IndexNotAhead, subject, what, remedy))
}
