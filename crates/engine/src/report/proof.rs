//! What a recovery point proves and what it does not, in sentences: from what its capture found.

use std::collections::BTreeSet;

use fabkeep_ledger::channel_config::OrganizationKind;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{KeyPurpose, Severity};

use crate::point::{Channel, RecoveryPoint};
use crate::units::counted;

/// Returns what was proven when the point was captured.
pub(super) fn proven(point: &RecoveryPoint) -> Vec<String> {
    let mut out = vec![
        "The commit record is signed by a writer of this repository, and the manifest is the one that it names."
            .to_owned(),
    ];
    for channel in &point.channels {
        let holders = ledgers(point, channel).count();
        let unchecked: u64 = ledgers(point, channel).map(|(_, ledger)| ledger.unchecked_signatures).sum();
        let signed = if unchecked == 0 { ", and signed as the channel's policy requires" } else { "" };
        out.push(format!(
            "{}: {} are linked by their hashes, equal on the {} that hold them{signed}.",
            channel.name,
            counted(channel.height - channel.first_block.min(channel.height), "block"),
            counted(holders as u64, "node")
        ));
    }
    let has = |role: NodeRole| point.nodes.iter().any(|node| node.facts.role == role);
    if has(NodeRole::Peer) && has(NodeRole::Orderer) {
        out.push(
            "Heights fit together: no peer is above the ordering service; inside each node blocks, private data and \
             logs are in order."
                .to_owned(),
        );
    }
    let own = || {
        let keys = point.nodes.iter().flat_map(|node| &node.facts.keys);
        keys.filter(|key| key.purpose != KeyPurpose::Trusted)
    };
    let (all, with_key) = (own().count(), own().filter(|key| key.key.is_some()).count());
    if all > 0 && all == with_key {
        out.push(format!("The private keys of all {all} certificates of the nodes are in the set."));
    } else if all > 0 {
        out.push(format!("The private keys of {with_key} of {all} certificates of the nodes are in the set."));
    }
    out.push("Databases and logs were opened and checked while they were captured.".to_owned());
    out
}

/// Returns what was not proven.
pub(super) fn not_proven(point: &RecoveryPoint) -> Vec<String> {
    let mut out = vec!["That the nodes start on the restored data: no drill of this point is recorded.".to_owned()];
    out.push(
        "That the repository still holds every byte: this report reads the manifest only, a full verification reads \
         everything."
            .to_owned(),
    );
    let warnings = point.findings.iter().filter(|finding| finding.severity >= Severity::Warning).count();
    if warnings > 0 {
        out.push(format!("What {} of the capture speak of: see the findings.", counted(warnings as u64, "warning")));
    }
    if !point.excluded.is_empty() {
        out.push(format!("Anything about nodes that were left out on request: {}.", point.excluded.join(", ")));
    }
    for channel in &point.channels {
        out.extend(of_channel(point, channel));
    }
    for node in &point.nodes {
        for ledger in &node.facts.ledgers {
            let lost = |missing: &&fabkeep_network::MissingCollection| {
                missing.held_elsewhere.is_none_or(|held| held < missing.transactions)
            };
            let missing: u64 = ledger.missing_private.iter().filter(lost).map(|missing| missing.transactions).sum();
            if missing > 0 {
                out.push(format!(
                    "{} {}: that private data of {} can be fetched from another peer.",
                    node.facts.id,
                    ledger.channel,
                    counted(missing, "transaction")
                ));
            }
        }
    }
    if !point.derived && point.nodes.iter().any(|node| node.facts.role == NodeRole::Peer) {
        out.push("How long the peers take to rebuild state, history and indexes: these are not in the set.".to_owned());
    }
    out
}

fn of_channel(point: &RecoveryPoint, channel: &Channel) -> Vec<String> {
    let mut out = Vec::new();
    for (node, ledger) in ledgers(point, channel).filter(|(_, ledger)| ledger.unchecked_signatures > 0) {
        out.push(format!(
            "{} {}: the signatures of {}: its chain begins after a snapshot, and no configuration before them is \
             known.",
            node.facts.id,
            channel.name,
            counted(ledger.unchecked_signatures, "block")
        ));
    }
    let Some(config) = &channel.config else {
        out.push(format!(
            "{}: which organizations and consenters it has: its configuration is not in the set.",
            channel.name
        ));
        return out;
    };
    let holds = |role: NodeRole| ledgers(point, channel).filter(move |(node, _)| node.facts.role == role);
    let captured: BTreeSet<&str> = holds(NodeRole::Peer).filter_map(|(node, _)| node.facts.msp_id.as_deref()).collect();
    let members = config.organizations.iter().filter(|known| known.kind == OrganizationKind::Application);
    let absent: BTreeSet<&str> =
        members.map(|known| known.msp_id.as_str()).filter(|msp| !captured.contains(msp)).collect();
    if !absent.is_empty() {
        let names = absent.into_iter().collect::<Vec<_>>().join(", ");
        out.push(format!("{}: anything about peers and keys of {names}: no peer of them is in the set.", channel.name));
    }
    let (consenters, orderers) = (config.consenters.len(), holds(NodeRole::Orderer).count());
    if orderers < consenters {
        out.push(format!(
            "{}: anything about {} that the configuration names and the set does not have.",
            channel.name,
            counted((consenters - orderers) as u64, "consenter")
        ));
    }
    out
}

fn ledgers<'p>(
    point: &'p RecoveryPoint,
    channel: &'p Channel,
) -> impl Iterator<Item = (&'p crate::point::CapturedNode, &'p fabkeep_network::LedgerFacts)> {
    point.nodes.iter().flat_map(move |node| {
        let of_channel = node.facts.ledgers.iter().filter(move |ledger| ledger.channel == channel.name);
        of_channel.map(move |ledger| (node, ledger))
    })
}
