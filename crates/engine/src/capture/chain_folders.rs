//! Folders beside a node's chains: one without block files is a chain that was lost, or none (B1).

use fabkeep_ledger::layout::{Class, DirectoryRole, Kind, ORDERER_CHAINS, PEER_CHAINS, Place};
use fabkeep_network::{Finding, OrLeaveOut, Rule};
use fabkeep_platform::{EntryKind, VolumeEntry};

use super::databases::Notes;
use super::start_marks;
use super::survey::{PlannedNode, Survey, SurveyedDirectory};

/// A chain's directory without its block files is a chain that was lost. A peer opens only what its list of ledgers names: other
/// directories beside the chains are none of its business. An orderer takes every folder for a channel, and removes one without blocks.
pub(super) fn check(
    survey: &Survey,
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    notes: &Notes<'_>,
    found: &dyn Fn(Finding),
) {
    let root = match directory.directory.role {
        DirectoryRole::PeerData => PEER_CHAINS,
        DirectoryRole::OrdererLedger => ORDERER_CHAINS,
        _ => return,
    };
    let chains = directory.chains();
    let is_peer = directory.directory.role == DirectoryRole::PeerData;
    let list = is_peer.then(|| start_marks::ledger_list(directory, "", notes)).flatten();
    let is_listed = |channel: &str| list.as_ref().is_none_or(|list| list.ledgers.contains_key(channel));
    let standing =
        |(entry, place): &&(VolumeEntry, Place)| entry.kind == EntryKind::Directory && place.class != Class::Skip;
    for (entry, _) in directory.entries.iter().filter(standing) {
        let Some(channel) = entry.path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) else { continue };
        if !channel.contains('/') && is_listed(channel) && !chains.iter().any(|chain| chain.path == entry.path) {
            if !is_peer && !is_channel(survey, node, channel, notes) {
                let below = format!("{}/", entry.path);
                let is_empty = !directory.entries.iter().any(|(entry, _)| entry.path.starts_with(&below));
                // What a file system has at its root is nobody's data.
                if channel != "lost+found" && !(is_empty && channel.contains(|c: char| !is_of_a_name(c))) {
                    found(Finding::warning(
                        Rule::HashChain,
                        format!("{} {channel}", node.node.id),
                        format!(
                            "the folder {} contains no block file, and no other node, log or recovery point knows such a channel: the orderer removes the folder when it starts",
                            entry.path
                        ),
                        "no action is needed if it is left over; move it elsewhere if its content is needed",
                    ));
                }
                continue;
            }
            found(Finding::error(
                Rule::HashChain,
                format!("{} {channel}", node.node.id),
                format!("the chain's directory {} contains no block file", entry.path),
                OrLeaveOut("take the chain from another node or an earlier recovery point"),
            ));
        }
    }
}

/// Whether a name of a channel may contain this.
fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// Whether anything but the folder of its chain knows a channel: a log or a snapshot of its consensus, another node, an earlier recovery point.
fn is_channel(survey: &Survey, node: &PlannedNode, channel: &str, notes: &Notes<'_>) -> bool {
    let of_consensus = |(_, place): &(VolumeEntry, Place)| match &place.kind {
        Kind::WalFile(of) | Kind::RaftSnapshot(of) => of == channel,
        _ => false,
    };
    let others = survey.nodes.iter().flat_map(|node| &node.directories);
    node.directories.iter().any(|directory| directory.entries.iter().any(of_consensus))
        || others.flat_map(SurveyedDirectory::chains).any(|chain| chain.channel == channel)
        || notes.writer.channels().any(|known| known == channel)
}
