//! Restores an orderer without ledgers, which it then fetches from the others: an older copy of its ledger would stop their leader (O2).

use std::collections::BTreeSet;

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, Remedy, Rule, WalKind};

use super::level::{is_consenter, raft_of};
use super::{declared_consenters, is_named, quorum};
use crate::EngineError;
use crate::misuse::{Misuse, Request};
use crate::point::{CapturedDirectory, RecoveryPoint, config_of};

/// Leaves out the ledgers and raft state of these orderers.
pub(super) fn leave_empty(
    point: &mut RecoveryPoint,
    orderers: &[String],
    nodes: &[String],
) -> Result<Vec<Finding>, EngineError> {
    let wrong = |name: &String, problem: String| Misuse::of(Request::Replicate(name.clone()), problem);
    for name in orderers {
        let Some(node) = point.nodes.iter().find(|node| node.facts.id.to_string() == *name) else {
            return Err(wrong(name, format!("the recovery point has no node {name}"))
                .next(Remedy::ListCaptured)
                .into());
        };
        if node.facts.role != NodeRole::Orderer {
            return Err(wrong(name, format!("{name} is not an orderer")).into());
        }
        if !is_named(&node.facts.id, nodes) {
            return Err(wrong(name, format!("{name} is not among the nodes that are restored"))
                .next(Remedy::ChooseNodes)
                .into());
        }
    }
    let mut findings = Vec::new();
    let channels = declared_consenters(point);
    let is_empty = |name: &str| orderers.iter().any(|empty| empty == name);
    for (channel, declared) in channels {
        let config = config_of(&point.channels, &channel);
        let of_channel = point.nodes.iter().filter(|node| is_consenter(&node.facts, &channel, config));
        let consenters: Vec<_> = of_channel.collect();
        let empty = consenters.iter().filter(|node| is_empty(&node.facts.id.to_string())).count();
        let Some(first) = consenters.first().filter(|_| empty > 0) else { continue };
        let kind = raft_of(&first.facts, &channel).map_or(WalKind::Raft, |raft| raft.kind);
        let all = declared.max(consenters.len());
        if all - empty < quorum(kind, all) {
            findings.push(Finding::error(
                Rule::LogPresent,
                &channel,
                format!("{empty} of its {all} consenters would be restored without ledgers: the others are not a quorum and could not provide the chain"),
                Remedy::ReplicateFewer.and("restore the others together from the recovery point"),
            ));
        }
    }
    for node in point.nodes.iter_mut().filter(|node| is_empty(&node.facts.id.to_string())) {
        let channels: BTreeSet<String> = node.facts.ledgers.iter().map(|ledger| ledger.channel.clone()).collect();
        node.directories.iter_mut().for_each(drop_ledger);
        node.facts.ledgers.clear();
        node.facts.raft.clear();
        findings.push(Finding::warning(
            Rule::OrderersLevel,
            &node.facts.id,
            format!(
                "it is restored with its keys but without its ledger, raft log and snapshots ({}), as requested: an old copy beside orderers that kept running stops their leader",
                channels.into_iter().collect::<Vec<_>>().join(", ")
            ),
            Remedy::from("restart the other orderers, one after the other (a leader that remembers the entries of this one would stop)")
                .and(Remedy::WriteGenesisBlocks)
                .and("join it to each channel with that block: it fetches all blocks from the others"),
        ));
    }
    Ok(findings)
}

fn drop_ledger(captured: &mut CapturedDirectory) {
    let directory = captured.directory.clone();
    captured.entries.retain(|entry| {
        let (_, role, inside) = directory.part(&entry.path);
        let ledger =
            matches!(role, DirectoryRole::OrdererLedger | DirectoryRole::OrdererWal | DirectoryRole::OrdererSnapshots);
        !ledger || inside.is_empty()
    });
}
