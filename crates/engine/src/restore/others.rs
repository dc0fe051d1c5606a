//! Orderers that stay while others of their channels come back with fewer entries than they had. A raft leader remembers how far each
//! follower was, and a follower that has less than that panics ("tocommit(N) is out of range"). Only a leader that was elected while the
//! restored orderers did not run remembers nothing of them: therefore every other orderer is restarted before they are started.
//!
//! What the restored orderers have acknowledged is not lost by that: the others are a quorum, and each of them has the blocks that any of
//! them had before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeId, Observation, Relation, Remedy, Rule, WalKind};
use fabkeep_platform::{BlockFiles, Platform, ProbeScope};

use super::RestoreOptions;
use crate::EngineError;
use crate::event::Reporter;
use crate::misuse::{Misuse, Request};
use crate::point::{CapturedNode, RecoveryPoint, config_of};
use crate::transform::quorum;
use crate::window::observe;

/// What a channel's configuration calls raft.
const RAFT: &str = "etcdraft";
/// How often the orderers are asked.
const ASKED_AGAIN: Duration = Duration::from_millis(500);

/// The orderers that are restarted, in this order, and the raft channels that they share with the restored ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Others {
    pub nodes: Vec<NodeId>,
    pub channels: BTreeSet<String>,
}

/// Heights by channel.
pub(super) type Heights = BTreeMap<String, u64>;

/// Looks for the others of the orderers that are restored, and judges whether they can be restarted one at a time. `begun`: those whose
/// restart an earlier run has begun.
pub(super) fn find(
    platform: &dyn Platform,
    point: &RecoveryPoint,
    restored: &dyn Fn(&NodeId) -> bool,
    options: &RestoreOptions,
    begun: &dyn Fn(&NodeId) -> bool,
) -> Result<(Others, Vec<Finding>), EngineError> {
    let channels = channels(point, restored, options);
    if channels.is_empty() {
        return Err(Misuse::of(Request::RestartOthers, "no raft orderer is among the nodes that are restored")
            .next(Remedy::ChooseNodes)
            .into());
    }
    let mut observed = orderers(platform, restored);
    observed
        .retain(|known| channels.iter().any(|channel| is_in(known, channel)) && (known.running || begun(&known.node)));
    // Fewer elections: those that lead come last.
    observed.sort_by_key(|known| known.channels.values().filter(|answer| answer.leads == Some(true)).count());
    let mut findings = Vec::new();
    for channel in &channels {
        findings.extend(judge(platform, point, channel, restored, &observed));
    }
    Ok((Others { nodes: observed.into_iter().map(|known| known.node).collect(), channels }, findings))
}

/// The raft channels of the orderers that are restored.
fn channels(point: &RecoveryPoint, restored: &dyn Fn(&NodeId) -> bool, options: &RestoreOptions) -> BTreeSet<String> {
    let orderers: Vec<&CapturedNode> =
        point.nodes.iter().filter(|node| node.facts.role == NodeRole::Orderer && restored(&node.facts.id)).collect();
    let empty = orderers.iter().any(|node| options.replicate.contains(&node.facts.id.to_string()));
    let with_log = |channel: &str| {
        let logs = orderers.iter().flat_map(|node| &node.facts.raft);
        logs.into_iter().any(|raft| raft.channel == channel && raft.kind == WalKind::Raft)
    };
    let is_raft = |config: &fabkeep_ledger::channel_config::ChannelConfig| config.consensus_type == RAFT;
    let named = point
        .channels
        .iter()
        .filter(|channel| with_log(&channel.name) || (empty && channel.config.as_ref().is_some_and(is_raft)));
    named.map(|channel| channel.name.clone()).collect()
}

/// Whether an orderer takes part in a channel's consensus, as far as it tells.
fn is_in(observed: &Observation, channel: &str) -> bool {
    observed.channels.get(channel).is_some_and(|answer| answer.relation != Some(Relation::Follower))
}

fn orderers(platform: &dyn Platform, restored: &dyn Fn(&NodeId) -> bool) -> Vec<Observation> {
    let is_other = |id: &NodeId| {
        let mut nodes = platform.network().nodes();
        nodes.any(|node| node.id == *id && node.role == NodeRole::Orderer) && !restored(id)
    };
    observe(platform, ProbeScope { block_files: BlockFiles::IfSilent, health: false }, is_other)
}

/// What forbids to restart the others of a channel.
fn judge(
    platform: &dyn Platform,
    point: &RecoveryPoint,
    channel: &str,
    restored: &dyn Fn(&NodeId) -> bool,
    others: &[Observation],
) -> Vec<Finding> {
    let declared = config_of(&point.channels, channel);
    let declared = declared.map_or(0, |config| config.consenters.len());
    let known = platform.network().nodes().filter(|node| node.role == NodeRole::Orderer).count();
    let come = point.nodes.iter().filter(|node| node.facts.role == NodeRole::Orderer && restored(&node.facts.id));
    let come = come.filter(|node| !platform.network().nodes().any(|known| known.id == node.facts.id)).count();
    let running: Vec<&Observation> = others.iter().filter(|known| is_in(known, channel)).collect();
    let needed = quorum(WalKind::Raft, declared);
    let mut findings = Vec::new();
    if known + come < declared {
        findings.push(Finding::error(
            Rule::OrderersLevel,
            channel,
            format!("it has {declared} consenters, and only {} orderers are known here: one that is not restarted may lead, and remember later entries", known + come),
            Remedy::from("name all of them in the inventory, or all of their namespaces").or(by_hand()),
        ));
    }
    if running.len() < needed {
        findings.push(Finding::error(
            Rule::OrderersLevel,
            channel,
            format!("{} of its {declared} consenters run beside those that are restored: no leader can be awaited before {needed} do", running.len()),
            "start the others first, or restore all orderers of the channel together",
        ));
    } else if running.iter().all(|known| known.channels.get(channel).is_none_or(|answer| answer.leads.is_none())) {
        findings.push(Finding::error(
            Rule::OrderersLevel,
            channel,
            "no orderer tells which of them leads it: a leader could not be awaited",
            Remedy::from(
                "name the orderers' operations endpoints in the inventory (operations = \"http://host:port\")",
            )
            .or(by_hand()),
        ));
    }
    findings
}

fn by_hand() -> Remedy {
    Remedy::from("restart them by hand, one after the other").and(Remedy::WithoutRestartOthers)
}

impl Others {
    /// The highest height of each channel that any of them has.
    pub fn heights(&self, platform: &dyn Platform) -> Heights {
        let mut out = Heights::new();
        for known in self.observed(platform) {
            for channel in &self.channels {
                let height = out.entry(channel.clone()).or_default();
                *height = (*height).max(known.height(channel).unwrap_or(0));
            }
        }
        out
    }

    fn observed(&self, platform: &dyn Platform) -> Vec<Observation> {
        let asked = ProbeScope { block_files: BlockFiles::Never, health: false };
        observe(platform, asked, |id| self.nodes.contains(id))
    }

    /// Channels that have no leader among them, or that the restarted one does not have as high as they were before.
    fn waits_for(&self, platform: &dyn Platform, restarted: &NodeId, before: &Heights) -> Vec<String> {
        let observed = self.observed(platform);
        let is_led = |channel: &str| {
            let answers = observed.iter().filter_map(|known| known.channels.get(channel));
            answers.into_iter().any(|answer| answer.leads == Some(true))
        };
        let own = observed.iter().find(|known| known.node == *restarted);
        let mut out = Vec::new();
        for channel in &self.channels {
            let wanted = before.get(channel).copied().unwrap_or(0);
            // It may not be in every channel.
            let has = own.is_some_and(|own| !is_in(own, channel) || own.height(channel) >= Some(wanted));
            if !is_led(channel) {
                out.push(format!("{channel} has no leader"));
            } else if !has {
                out.push(format!("{restarted} does not have {channel} at height {wanted}"));
            }
        }
        out
    }

    /// Waits until every channel has a leader among them, and the restarted one has what they had before.
    pub fn wait(
        &self,
        platform: &dyn Platform,
        restarted: &NodeId,
        before: &Heights,
        deadline: Duration,
        reporter: &dyn Reporter,
    ) -> Result<(), EngineError> {
        let begun = Instant::now();
        loop {
            let waits = self.waits_for(platform, restarted, before);
            if waits.is_empty() {
                return Ok(());
            }
            if reporter.is_interrupted() {
                return Err(EngineError::Stopped);
            }
            if begun.elapsed() > deadline {
                return Err(EngineError::Precondition(vec![Finding::error(
                    Rule::OrderersLevel,
                    restarted,
                    format!("it was restarted, and after {} s {}", deadline.as_secs(), waits.join("; ")),
                    "read the orderers' logs and correct what they name; then run the same command again: it continues",
                )]));
            }
            std::thread::sleep(ASKED_AGAIN);
        }
    }
}
