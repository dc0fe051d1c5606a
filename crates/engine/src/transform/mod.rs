//! Transforms a recovery point before a restore is planned: selects nodes, brings orderers to one height with raft state that is created
//! anew or taken from a donor, gives a peer another peer's ledger, renames namespaces. Only the manifest changes; its parts say whether
//! bytes are read from the repository or were created here.

mod height;
mod ledger;
pub(crate) mod level;
mod private_store;
pub(crate) mod rebuild;
pub(crate) mod relocate;
mod replicate;
mod signers;

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeFacts, NodeId, Remedy, Rule, Severity, WalKind};
use fabkeep_store::PointReader;

use crate::misuse::{Misuse, Request};
use crate::point::{Channel, RecoveryPoint, config_of};
use crate::{EngineError, contained};
use level::{Levelled, is_consenter, ledger_of, raft_of};

pub use height::{GoBack, HeightOf};
pub use ledger::LedgerFrom;

/// Where the raft state of orderers comes from that are restored together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RaftSource {
    /// It is written from each channel's last block.
    #[default]
    Rebuilt,
    /// The captured logs and snapshots; one orderer's where they were captured at different heights.
    Captured,
}

/// A recovery point as it is restored.
pub(crate) struct Transformed {
    pub point: RecoveryPoint,
    /// Nodes that are restored, as `Organization/node`; empty: all.
    pub nodes: Vec<String>,
    /// What was changed, and what forbids the restore.
    pub findings: Vec<Finding>,
}

impl Transformed {
    /// Tells this arrangement from others of the same recovery point.
    pub fn fingerprint(&self) -> String {
        let reported: Vec<&str> = self.findings.iter().map(|finding| finding.what.as_str()).collect();
        format!("{:?} {reported:?}", self.nodes)
    }
}

/// Whether a node is among those that are named; without names all are.
pub(crate) fn is_named(id: &NodeId, names: &[String]) -> bool {
    names.is_empty() || names.contains(&id.to_string())
}

/// What a restore asks for.
pub(crate) struct RestoreScope<'a> {
    /// Nodes to restore, as `Organization/node`; empty: all.
    pub nodes: &'a [String],
    /// Peers that take another peer's ledger.
    pub ledgers: &'a [LedgerFrom],
    /// Orderers that come back empty.
    pub replicate: &'a [String],
    /// Where the raft state of orderers comes from that are restored together.
    pub raft_state: RaftSource,
    /// To which earlier heights channels go back.
    pub go_back: &'a GoBack,
    /// All of the nodes are restored. Else some of them may be left as they are: then nothing is levelled.
    pub together: bool,
}

/// Makes of a recovery point what is restored.
pub(crate) fn transform(
    mut point: RecoveryPoint,
    reader: &PointReader<'_>,
    asked: &RestoreScope<'_>,
) -> Result<Transformed, EngineError> {
    let RestoreScope { nodes, ledgers, replicate, .. } = *asked;
    for name in nodes {
        if !point.nodes.iter().any(|node| node.facts.id.to_string() == *name) {
            return Err(Misuse::of(
                Request::RestoreNode(name.clone()),
                format!("the recovery point has no node {name}"),
            )
            .next(Remedy::ListCaptured)
            .into());
        }
    }
    contained::check(&point, point.nodes.iter())?;
    let (went_back, mut findings) = height::go_back(&mut point, reader, asked.go_back, nodes)?;
    let nodes = with_state_databases(&point, nodes, &mut findings);
    // A CouchDB that no restore reaches must be emptied by hand.
    findings.extend(
        point
            .findings
            .iter()
            .filter(|finding| finding.rule == Rule::StateDatabaseOlder && finding.severity == Severity::Warning)
            .filter(|finding| {
                let restored = |id: &NodeId| is_named(id, &nodes) && id.to_string() == finding.subject;
                point.nodes.iter().any(|node| restored(&node.facts.id))
            })
            .cloned(),
    );
    for from in ledgers {
        findings.push(ledger::take(&mut point, from, &nodes)?);
    }
    findings.extend(private_store::write_anew(&mut point, reader, &nodes, asked.together)?);
    findings.extend(replicate::leave_empty(&mut point, replicate, &nodes)?);
    if asked.together {
        findings.extend(orderers(&mut point, reader, &nodes, asked.raft_state, &went_back)?);
    }
    findings.extend(height::left_behind(&point, &nodes, &went_back));
    Ok(Transformed { point, nodes, findings })
}

/// A peer's state database goes with it: what it holds must not be ahead of the peer's blocks (P3). One that serves other peers too stays.
fn with_state_databases(point: &RecoveryPoint, nodes: &[String], findings: &mut Vec<Finding>) -> Vec<String> {
    let mut out = nodes.to_vec();
    let peers = || point.nodes.iter().filter(|node| node.facts.role == NodeRole::Peer);
    for node in peers().filter(|node| nodes.contains(&node.facts.id.to_string())) {
        for database in &node.served_by {
            let name = database.to_string();
            if out.contains(&name) || !point.nodes.iter().any(|known| known.facts.id == *database) {
                continue;
            }
            let others: Vec<NodeId> = peers()
                .filter(|peer| peer.served_by.contains(database))
                .map(|peer| peer.facts.id.clone())
                .filter(|peer| !nodes.contains(&peer.to_string()))
                .collect();
            if others.is_empty() {
                findings.push(Finding::note(
                    Rule::StateDatabaseOlder,
                    &node.facts.id,
                    format!("its state database {name} is restored with it: its state must not be ahead of the blocks"),
                    "no action is needed: the peer rebuilds it from its blocks",
                ));
                out.push(name);
            } else {
                let names: Vec<String> = others.iter().map(ToString::to_string).collect();
                findings.push(Finding::warning(
                    Rule::StateDatabaseOlder,
                    &node.facts.id,
                    format!("its state database {name} serves {} too: it is left as it is", names.join(" and ")),
                    Remedy::from("no action is needed unless its state is ahead of the restored blocks: then the peer does not open the channel")
                        .or(Remedy::RestoreNodes { nodes: others, replace: false }),
                ));
            }
        }
    }
    out
}

/// How many of a channel's consenters must run for it to order: of raft a majority, of SmartBFT more than two thirds.
pub(crate) fn quorum(kind: WalKind, consenters: usize) -> usize {
    match kind {
        WalKind::Raft => consenters / 2 + 1,
        WalKind::SmartBft => {
            let faulty = consenters.saturating_sub(1) / 3;
            (consenters + faulty + 1).div_ceil(2)
        }
    }
}

/// The channels, and how many consenters the configuration of each names.
fn declared_consenters(point: &RecoveryPoint) -> Vec<(String, usize)> {
    let count = |channel: &Channel| channel.config.as_ref().map_or(0, |config| config.consenters.len());
    point.channels.iter().map(|channel| (channel.name.clone(), count(channel))).collect()
}

/// Arranges the orderers channel by channel: at one height, with one state.
fn orderers(
    point: &mut RecoveryPoint,
    reader: &PointReader<'_>,
    nodes: &[String],
    raft: RaftSource,
    went_back: &BTreeSet<String>,
) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    let channels = declared_consenters(point);
    for (channel, declared) in channels {
        // That only some are chosen is another matter: the plan tells of it.
        let RecoveryPoint { nodes: all_nodes, channels, without_logs, .. } = &mut *point;
        let config = config_of(channels, &channel);
        let captured = all_nodes.iter().filter(|node| is_consenter(&node.facts, &channel, config)).count();
        let without_logs = without_logs.contains(&channel);
        let mut chosen: Vec<Levelled<'_>> = all_nodes
            .iter_mut()
            .filter(|node| is_named(&node.facts.id, nodes))
            .map(|node| Levelled { facts: &mut node.facts, directories: &mut node.directories })
            .collect();
        let consenters: Vec<usize> =
            (0..chosen.len()).filter(|&position| is_consenter(chosen[position].facts, &channel, config)).collect();
        let rank = |position: usize| standing(chosen[position].facts, &channel);
        let Some(&donor) = consenters.iter().max_by_key(|&&position| rank(position)) else { continue };
        let kind = raft_of(chosen[donor].facts, &channel).map_or(WalKind::Raft, |raft| raft.kind);
        let all = declared.max(consenters.len());
        let needed = quorum(kind, all);
        if captured < needed {
            findings.push(Finding::warning(
                Rule::OrderersLevel,
                &channel,
                format!("{captured} of its {all} consenters are in the recovery point; it orders no transactions until {needed} run"),
                "make sure that enough others run, and that none of them is older than these",
            ));
        }
        let heights: BTreeSet<u64> = consenters.iter().map(|&position| rank(position).0).collect();
        let is_level = heights.len() < 2;
        // An orderer that stays must not meet others that forgot what they told it.
        let together = consenters.len() == all && captured == consenters.len();
        let is_other = kind == WalKind::Raft || !is_level || went_back.contains(&channel) || without_logs;
        if raft == RaftSource::Rebuilt && together && is_other && rank(donor).0 > 0 {
            let known = channels.iter().find(|known| known.name == channel);
            let given = known.map(|known| rebuild::made_anew(reader, known, kind, donor, &consenters, &chosen));
            match given.transpose()? {
                Some(Ok(given)) => {
                    findings.extend(rebuild::give(&channel, donor, &consenters, given, &mut chosen));
                    continue;
                }
                Some(Err(note)) => findings.push(note),
                None => {}
            }
        }
        // Without logs there is nothing to give; that they are missing is judged node by node.
        if is_level || without_logs {
            continue;
        }
        match kind {
            WalKind::Raft => findings.extend(level::to_donor(&channel, config, donor, &mut chosen)),
            WalKind::SmartBft => {
                let highest = rank(donor).0;
                let there = consenters.iter().filter(|&&position| rank(position).0 == highest).count();
                findings.push(behind_smartbft(&channel, &heights, there, needed));
            }
        }
    }
    Ok(findings)
}

/// Consenters of one channel that would be restored as they were captured, at different heights.
pub(crate) fn not_level(nodes: &[&NodeFacts], channels_of: &[Channel]) -> Vec<Finding> {
    let channels: BTreeSet<&str> = nodes.iter().flat_map(|node| &node.raft).map(|raft| raft.channel.as_str()).collect();
    let mut findings = Vec::new();
    for channel in channels {
        let config = config_of(channels_of, channel);
        let heights: BTreeSet<u64> = nodes
            .iter()
            .filter(|node| is_consenter(node, channel, config))
            .map(|node| standing(node, channel).0)
            .collect();
        if heights.len() > 1 {
            findings.push(Finding::error(
                Rule::OrderersLevel,
                channel,
                format!("orderers captured at different heights would be restored beside others: {heights:?}"),
                Remedy::RestoreLost,
            ));
        }
    }
    findings
}

/// What makes one orderer's state of a channel newer than another's.
fn standing(facts: &NodeFacts, channel: &str) -> (u64, u64, u64) {
    let height = ledger_of(facts, channel).map_or(0, |ledger| ledger.height);
    let raft = raft_of(facts, channel);
    let last = raft.as_ref().and_then(|raft| raft.last_index).unwrap_or(0);
    let snapshot = raft.and_then(|raft| raft.snapshot).map_or(0, |snapshot| snapshot.index);
    (height, last, snapshot)
}

/// SmartBFT's nodes sign blocks as a quorum: those that are behind fetch them, as long as a quorum remembers them.
fn behind_smartbft(channel: &str, heights: &BTreeSet<u64>, there: usize, needed: usize) -> Finding {
    let reported: Vec<String> = heights.iter().map(u64::to_string).collect();
    let what = format!(
        "its SmartBFT orderers were captured at heights {}, {there} of them at the highest",
        reported.join(" and ")
    );
    if there >= needed {
        Finding::warning(
            Rule::OrderersLevel,
            channel,
            format!("{what}: they are a quorum, and the others fetch the missing blocks from them"),
            Remedy::from("start all orderers together")
                .and(Remedy::SeeStatus)
                .and("compare their heights before clients can connect"),
        )
    } else {
        Finding::error(
            Rule::OrderersLevel,
            channel,
            format!("{what}: fewer than the {needed} that must have a block"),
            Remedy::from("restore another recovery point: these orderers could order other blocks at the same heights")
                .or(Remedy::CaptureInWindow),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_are_those_of_the_two_protocols() {
        let of = |kind| [1, 3, 4, 5, 7].map(|consenters| quorum(kind, consenters));
        assert_eq!(of(WalKind::Raft), [1, 2, 3, 3, 4]);
        assert_eq!(of(WalKind::SmartBft), [1, 2, 3, 4, 5]);
    }
}
