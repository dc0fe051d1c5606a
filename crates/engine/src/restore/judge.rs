//! Judges the rules over all nodes that are restored together, for every kind of target.

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeFacts, Rule, check_set};

use crate::point::{CapturedNode, RecoveryPoint};

/// Judges the nodes that are restored; what is left where it is cannot be judged here. An orderer that comes back empty (`replicate`) lacks
/// its channels because it was asked to: only its keys are judged.
pub(super) fn set(
    point: &RecoveryPoint,
    restored: &dyn Fn(usize, &CapturedNode) -> bool,
    replicate: &[String],
) -> Vec<Finding> {
    let chosen = point.nodes.iter().enumerate().filter(|(position, node)| restored(*position, node));
    let facts: Vec<NodeFacts> = chosen.map(|(_, node)| node.facts.clone()).collect();
    let configs: Vec<_> = point.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    let now = jiff::Timestamp::now().as_second();
    let orderer = |node: &&NodeFacts| node.role == NodeRole::Orderer;
    let all = point.nodes.iter().map(|node| &node.facts).filter(orderer).count();
    // Those that come back empty are as old as nothing.
    let some = facts.iter().filter(orderer).filter(|node| !node.raft.is_empty()).count();
    let (emptied, filled): (Vec<NodeFacts>, Vec<NodeFacts>) =
        facts.into_iter().partition(|node| replicate.contains(&node.id.to_string()));
    let mut findings = check_set(&filled, &configs, point.derived, now);
    findings.extend(check_set(&emptied, &[], point.derived, now));
    if some > 0 && some < all {
        findings.push(Finding::warning(
            Rule::OrderersLevel,
            format!("{some} of {all} orderers"),
            "a raft orderer that has fewer entries than its leader remembers panics (\"tocommit(N) is out of range\")",
            "restore them without ledgers, which they fetch from the others (--replicate NODE), or restart all other orderers before the restored ones start; if all orderers are lost, restore all of them together",
        ));
    }
    findings
}
