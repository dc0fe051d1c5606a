//! Data that a peer could rebuild and that is captured all the same (`--include-derived`, or a ledger joined by snapshot): what is captured
//! of it is used as it is.

use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::leveldb;
use fabkeep_network::{Finding, Remedy, Rule};

use super::CaptureOptions;
use super::survey::PlannedNode;

/// What to do about derived data that must not be restored.
pub(super) fn without() -> Remedy {
    Remedy::from("stop the peer and remove its derived data (peer node rebuild-dbs)").or(Remedy::WithoutDerived)
}

/// Finds a world state of another organization's peer: at the same height a peer does not notice.
pub(super) fn check(node: &PlannedNode, options: &CaptureOptions, found: &dyn Fn(Finding)) {
    let captured = options.include_derived || node.joined_by_snapshot;
    let Some(msp_id) = node.node.msp_id.as_deref().filter(|_| captured && node.node.role == NodeRole::Peer) else {
        return;
    };
    for directory in &node.directories {
        for chain in directory.chains() {
            let channel = chain.channel.as_str();
            let store = chain.path.strip_suffix(&format!("/chains/chains/{channel}"));
            let Some(path) = store.map(|store| format!("{store}/stateLeveldb")) else { continue };
            // A state that cannot be read has its finding from the check of databases.
            let organizations =
                directory.local(&path).and_then(|local| leveldb::own_organizations(&local, channel).ok());
            let other = organizations.into_iter().flatten().find(|organization| organization != msp_id);
            if let Some(organization) = other {
                found(Finding::error(
                    Rule::StoresInOrder,
                    format!("{} {channel}", node.node.id),
                    format!(
                        "its state database ({path}) belongs to a peer of {organization}: it contains that organization's private data, and the peer belongs to {msp_id}"
                    ),
                    without(),
                ));
            }
        }
    }
}
