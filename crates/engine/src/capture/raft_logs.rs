//! Raft logs and snapshots that need not be stored: they were checked like all others, and a restore creates the state of all consenters of
//! a channel from its last block.

use std::collections::BTreeSet;

use fabkeep_network::{Finding, RaftFacts, Remedy, Rule, WalKind};

use super::chains::Chains;
use super::databases::Facts;
use crate::point::Channel;

/// Returns the channels whose logs need not be stored. Why those of the others are stored nevertheless is found.
pub(super) fn left_out(facts: &Facts, chains: &Chains, findings: &mut Vec<Finding>) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for channel in &chains.channels {
        let of_channel = |known: &&RaftFacts| known.channel == channel.name;
        let consenters: Vec<(usize, &RaftFacts)> = (0..)
            .zip(&facts.nodes)
            .filter_map(|(node, checked)| Some((node, checked.raft.iter().find(of_channel)?)))
            .collect();
        if consenters.is_empty() {
            continue;
        }
        let (subject, count) = (&channel.name, consenters.len());
        findings.push(match needed(channel, &consenters, chains) {
            None => {
                out.insert(channel.name.clone());
                Finding::note(
                    Rule::LogPresent,
                    subject,
                    format!("the raft logs of its {count} consenters were checked and are not stored, as requested"),
                    Remedy::from("no action is needed for a restore of all of them, which creates their raft state from the chain")
                        .or(Remedy::Replicate { node: None }),
                )
            }
            Some(why) => Finding::note(
                Rule::LogPresent,
                subject,
                format!("the raft logs of its {count} consenters are stored although that was not requested: {why}"),
                "no action is needed: a restore could not create them",
            ),
        });
    }
    out
}

/// Why a restore could not create the consenters' state; `None` if it could.
fn needed(channel: &Channel, consenters: &[(usize, &RaftFacts)], chains: &Chains) -> Option<String> {
    let declared = channel.config.as_ref().map_or(0, |config| config.consenters.len());
    if consenters.len() < declared {
        return Some(format!(
            "the channel has {declared}, and a restore that lacks one of them needs what these logs have"
        ));
    }
    let height = |node: usize| {
        let ledger = chains.ledgers[node].iter().find(|ledger| ledger.channel == channel.name);
        ledger.map_or(0, |ledger| ledger.height)
    };
    let highest = consenters.iter().map(|(node, _)| height(*node)).max()?;
    let raft = consenters.iter().filter(|(node, log)| log.kind == WalKind::Raft && height(*node) == highest);
    let why = raft.filter_map(|(node, _)| chains.no_raft_state.get(&(*node, channel.name.clone()))).next();
    why.cloned()
}
