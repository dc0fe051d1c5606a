//! Files that make a node act at its next start: remove a channel or a ledger, join a channel, wait for a height.

use fabkeep_ledger::channel_config::ChannelConfig;
use fabkeep_ledger::layout::Class;
use fabkeep_ledger::layout::{DirectoryRole, NodeRole, ORDERER_CHAINS, PEER_CHAINS};
use fabkeep_ledger::leveldb::{self, LedgerList, LedgerStatus};
use fabkeep_network::{Finding, OrLeaveOut, Rule};
use fabkeep_platform::EntryKind;

use super::databases::Notes;
use super::identities;
use super::survey::{PlannedNode, SurveyedDirectory};

const PENDING_REMOVE: &str = "pendingops/remove/";
const PENDING_JOIN: &str = "pendingops/join/";
/// Longest block that is looked into.
const MAX_BLOCK_BYTES: u64 = 256 << 20;
const PRE_RESET_HEIGHT: &str = "__preResetHeight";
/// A peer's list of ledgers, relative to its data directory.
pub(super) const LEDGER_LIST: &str = "ledgersData/ledgerProvider";

/// Returns where a directory's parts of a role begin; empty: the directory itself.
pub(super) fn roots(directory: &SurveyedDirectory, role: DirectoryRole) -> impl Iterator<Item = &str> {
    let own = (directory.directory.role == role).then_some("");
    own.into_iter()
        .chain(directory.directory.nested.iter().filter(move |(_, of)| *of == role).map(|(at, _)| at.as_str()))
}

/// Returns a path inside a part of a directory, as a path of the directory.
pub(super) fn inside(root: &str, path: &str) -> String {
    if root.is_empty() { path.to_owned() } else { format!("{root}/{path}") }
}

/// Leaves out what a peer's next start removes: there is nothing to recover of it, and its blocks may be half gone.
pub(super) fn leave_out_removed(
    node: &mut PlannedNode,
    earlier: impl Fn(&PlannedNode, &SurveyedDirectory, &str) -> Option<LedgerList>,
) {
    let mut removed: Vec<(usize, String, String)> = Vec::new();
    for (position, directory) in node.directories.iter().enumerate() {
        for root in roots(directory, DirectoryRole::PeerData) {
            let path = inside(root, LEDGER_LIST);
            // A list that cannot be read has its finding from the checks.
            let list = match directory.local(&path) {
                Some(local) => leveldb::ledger_list(&local).ok(),
                None => earlier(node, directory, &path),
            };
            let of_start = list.into_iter().flat_map(|list| list.ledgers);
            removed.extend(of_start.filter(|(_, status)| status.is_removed_by_start()).map(|(channel, _)| {
                let chain = inside(root, &format!("{PEER_CHAINS}/{channel}"));
                (position, channel, chain)
            }));
        }
    }
    for (position, channel, chain) in removed {
        let below = format!("{chain}/");
        for (entry, place) in &mut node.directories[position].entries {
            if entry.path == chain || entry.path.starts_with(&below) {
                place.class = Class::Skip;
            }
        }
        node.removed_by_start.insert(channel);
    }
}

/// Finds the marks of one directory.
pub(super) fn check(node: &PlannedNode, directory: &SurveyedDirectory, notes: &Notes<'_>, found: &dyn Fn(Finding)) {
    for root in roots(directory, DirectoryRole::PeerData) {
        check_ledger_list(node, directory, root, notes, found);
        for (channel, path) in marks(directory, root, PEER_CHAINS).filter_map(|path| {
            let (channel, name) = path.strip_prefix(&format!("{}/", inside(root, PEER_CHAINS)))?.split_once('/')?;
            (name == PRE_RESET_HEIGHT).then_some((channel, path))
        }) {
            found(Finding::warning(
                Rule::StartWork,
                format!("{} {channel}", node.node.id),
                format!(
                    "{path} exists: the peer was reset or rolled back, and does not endorse for this channel until it has reached the height that the file contains"
                ),
                "let the peer run until it has caught up, and back up again; a peer restored from this point has to catch up too",
            ));
        }
    }
    for root in roots(directory, DirectoryRole::OrdererLedger) {
        let chains = inside(root, ORDERER_CHAINS);
        for path in marks(directory, root, PENDING_REMOVE) {
            let name = path.rsplit('/').next().unwrap_or(path);
            let channel = name.strip_suffix(".remove").unwrap_or(name);
            let chain = format!("{chains}/{channel}");
            let there = directory.entries.iter().any(|(entry, _)| entry.path == chain);
            let subject = format!("{} {channel}", node.node.id);
            found(if there {
                Finding::error(
                    Rule::StartWork,
                    subject,
                    format!("{path} exists: when the orderer starts, it deletes this channel's chain"),
                    OrLeaveOut(
                        "if the channel is to be removed, let the orderer finish that; otherwise move the file away before the orderer is started",
                    ),
                )
            } else {
                Finding::warning(
                    Rule::StartWork,
                    subject,
                    format!("{path} exists: the orderer was removing this channel, and its chain is gone"),
                    "let the orderer finish the removal: start it once; delete the channel's raft log before joining it again (O10)",
                )
            });
        }
        for path in marks(directory, root, PENDING_JOIN) {
            // The orderer looks at no other name.
            let Some(channel) = path.rsplit('/').next().and_then(|name| name.strip_suffix(".join")) else { continue };
            let subject = format!("{} {channel}", node.node.id);
            if let Some(problem) = problem_of_join(directory, path, channel) {
                found(Finding::error(
                    Rule::StartWork,
                    subject,
                    format!("{path} {problem}: the orderer does not start with it"),
                    OrLeaveOut("move the file away, and join the channel again when the orderer runs"),
                ));
                continue;
            }
            found(Finding::note(
                Rule::StartWork,
                subject,
                format!(
                    "{path} exists: the orderer is joining this channel, and continues to fetch blocks when it starts"
                ),
                "no action is needed if that is intended; the join needs another orderer of the channel that has the blocks",
            ));
        }
    }
}

/// Returns why an orderer cannot begin with a join file: it must be a configuration block of the channel.
fn problem_of_join(directory: &SurveyedDirectory, path: &str, channel: &str) -> Option<String> {
    let (entry, _) = directory.entries.iter().find(|(entry, _)| entry.path == path)?;
    if entry.stamp.size > MAX_BLOCK_BYTES {
        return Some(format!("is longer than {MAX_BLOCK_BYTES} bytes and cannot be a configuration block"));
    }
    // A file that cannot be read has its finding where it is kept.
    let bytes = identities::read(directory, entry, MAX_BLOCK_BYTES)?;
    match ChannelConfig::from_block(&bytes) {
        Ok(Some(config)) if config.channel == channel => None,
        Ok(Some(config)) => Some(format!("contains the configuration of another channel, {}", config.channel)),
        Ok(None) => Some("is not a configuration block".to_owned()),
        Err(problem) => Some(format!("is not a configuration block that can be read ({problem})")),
    }
}

/// Files below a path of a part.
fn marks<'a>(directory: &'a SurveyedDirectory, root: &str, below: &str) -> impl Iterator<Item = &'a str> {
    let below = inside(root, below.trim_end_matches('/'));
    directory
        .entries
        .iter()
        .filter(|(entry, place)| entry.kind == EntryKind::File && place.class != Class::Skip)
        .filter_map(move |(entry, _)| {
            let name = entry.path.strip_prefix(below.as_str())?.strip_prefix('/')?;
            // The orderer writes a mark under such a name first, and removes what is left of them at its start.
            (!name.ends_with('~')).then_some(entry.path.as_str())
        })
}

/// Returns a peer's list of ledgers. A database that cannot be read has its finding from the checks.
pub(super) fn ledger_list(directory: &SurveyedDirectory, root: &str, notes: &Notes<'_>) -> Option<LedgerList> {
    let path = inside(root, LEDGER_LIST);
    match directory.local(&path) {
        Some(local) => leveldb::ledger_list(&local).ok(),
        None => notes.recall(directory, &path)?.list,
    }
}

/// Every ledger that a peer lists must have its chain, and every chain must be listed.
fn check_ledger_list(
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    root: &str,
    notes: &Notes<'_>,
    found: &dyn Fn(Finding),
) {
    let path = inside(root, LEDGER_LIST);
    let Some(list) = ledger_list(directory, root, notes) else { return };
    notes.amend(directory, &path, |known| known.list = Some(list.clone()));
    let subject = |channel: &str| format!("{} {channel}", node.node.id);
    let take =
        OrLeaveOut("take the peer's data directory from another peer of the organization or an earlier recovery point");
    if list.format.is_none() && !list.ledgers.is_empty() {
        found(Finding::note(
            Rule::StartWork,
            format!("{} {path}", node.node.id),
            "the list of ledgers has no format version: the data was written by a Fabric version before 2.0",
            "restore it for the version that wrote it, or run `peer node upgrade-dbs` before a peer of 2.x opens it",
        ));
    }
    let chains: Vec<_> = directory
        .chains()
        .into_iter()
        .filter(|chain| chain.path == inside(root, &format!("{PEER_CHAINS}/{}", chain.channel)))
        .collect();
    for (channel, status) in &list.ledgers {
        let there = chains.iter().any(|chain| chain.channel == *channel);
        match status {
            LedgerStatus::Active | LedgerStatus::Paused if !there => found(Finding::error(
                Rule::HashChain,
                subject(channel),
                format!(
                    "the peer lists this ledger, but its block files ({}) are missing",
                    inside(root, &format!("{PEER_CHAINS}/{channel}"))
                ),
                take,
            )),
            LedgerStatus::Active => {}
            LedgerStatus::Paused => found(Finding::warning(
                Rule::StartWork,
                subject(channel),
                "the ledger is paused: the peer does not open it until `peer node resume`",
                "no action is needed if that is intended; it is paused on a restored peer too",
            )),
            LedgerStatus::UnderConstruction => found(Finding::warning(
                Rule::StartWork,
                subject(channel),
                "the ledger was being created when the peer stopped: the next start removes it, and the recovery point leaves it out",
                "join the channel again when the peer runs",
            )),
            LedgerStatus::UnderDeletion => found(Finding::warning(
                Rule::StartWork,
                subject(channel),
                "the ledger was being removed when the peer stopped: the next start removes the rest, and the recovery point leaves it out",
                "no action is needed if the peer left the channel on purpose",
            )),
        }
    }
    for chain in chains.iter().filter(|chain| !list.ledgers.contains_key(&chain.channel)) {
        found(Finding::error(
            Rule::StoresInOrder,
            subject(&chain.channel),
            format!(
                "block files exist ({}), but the peer's list of ledgers ({path}) does not name the channel: the peer does not open it",
                chain.path
            ),
            OrLeaveOut(
                "a peer that leaves a channel removes its block files: the list is older than they are. Restore both from one moment",
            ),
        ));
    }
}

/// Returns the channels that a node has, by its own records: those of its chains.
pub(super) fn channels(node: &PlannedNode) -> Vec<String> {
    let mut out: Vec<String> =
        node.directories.iter().flat_map(SurveyedDirectory::chains).map(|chain| chain.channel).collect();
    if node.node.role == NodeRole::Peer {
        out.extend(node.removed_by_start.iter().cloned());
    }
    out.sort();
    out.dedup();
    out
}
