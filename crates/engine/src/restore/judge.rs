//! Judges the rules over all nodes that are restored together, for every kind of target.

use fabkeep_ledger::layout::{Kind, NodeRole};
use fabkeep_network::{Finding, NodeFacts, Remedy, Rule, check_set};

use super::RestoreOptions;
use crate::point::{CapturedNode, RecoveryPoint};

/// Judges the nodes that are restored; what is left where it is cannot be judged here. An orderer that comes back empty (`replicate`) lacks
/// its channels because it was asked to: only its keys are judged.
pub(super) fn set(
    point: &RecoveryPoint,
    restored: &dyn Fn(usize, &CapturedNode) -> bool,
    options: &RestoreOptions,
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
        facts.into_iter().partition(|node| options.replicate.contains(&node.id.to_string()));
    let mut findings = check_set(&filled, &configs, point.derived, now);
    let chosen = point.nodes.iter().enumerate().filter(|(position, node)| restored(*position, node));
    findings.extend(chosen.flat_map(|(_, node)| without_log(point, node)));
    findings.extend(check_set(&emptied, &[], point.derived, now));
    if some > 0 && some < all && !options.restart_others {
        findings.push(Finding::warning(
            Rule::OrderersLevel,
            format!("{some} of {all} orderers"),
            "a raft orderer that has fewer entries than its leader remembers panics (\"tocommit(N) is out of range\")",
            Remedy::Replicate { node: None }
                .or(Remedy::RestartOthers)
                .or("if all orderers are lost, restore all of them together"),
        ));
    }
    findings
}

/// Raft logs that are not in the recovery point, and that nothing created: an orderer does not take part in consensus without them.
fn without_log(point: &RecoveryPoint, node: &CapturedNode) -> Vec<Finding> {
    let has_log = |channel: &str| {
        node.directories.iter().any(|captured| {
            let is_log =
                |path: &str| captured.directory.classify(path, false).kind == Kind::WalFile(channel.to_owned());
            captured.entries.iter().any(|entry| is_log(&entry.path))
        })
    };
    let missing = node.facts.raft.iter().map(|raft| raft.channel.as_str());
    let missing =
        missing.filter(|channel| point.without_logs.iter().any(|known| known == channel) && !has_log(channel));
    missing
        .map(|channel| {
            let id = &node.facts.id;
            Finding::error(
                Rule::LogPresent,
                format!("{id} {channel}"),
                "its raft log is not in the recovery point, which was captured without raft logs, and can be created only for all consenters of the channel together",
                Remedy::Replicate { node: Some(id.clone()) }.or(Remedy::RestoreOrderersTogether),
            )
        })
        .collect()
}
