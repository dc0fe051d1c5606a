//! Heights of running nodes from several sources, and conclusions from them: nodes that do not answer, sources that contradict each other,
//! nodes that lag, chains that grew. This module only judges answers; others query the nodes.

use std::collections::BTreeMap;

use fabkeep_ledger::layout::NodeRole;
use serde::{Deserialize, Serialize};

use crate::Remedy;
use crate::finding::{Finding, Rule};
use crate::model::NodeId;
use crate::remedy::OrLeaveOut;

/// Sources of a height, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeightSource {
    /// The operations endpoint's `/metrics`.
    Metrics,
    /// An orderer's channel participation API.
    Participation,
    /// `peer channel getinfo`.
    GetInfo,
    /// The block files themselves.
    BlockFiles,
}

impl std::fmt::Display for HeightSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            HeightSource::Metrics => "metrics",
            HeightSource::Participation => "participation API",
            HeightSource::GetInfo => "peer channel getinfo",
            HeightSource::BlockFiles => "block files",
        })
    }
}

/// One answer to the question for a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Who answered.
    pub source: HeightSource,
    /// Blocks from genesis.
    pub height: u64,
    /// When the question was asked, and when the answer was there: milliseconds since 1970.
    pub asked_ms: i64,
    /// When the answer was there.
    pub answered_ms: i64,
}

/// The relation of an orderer to a channel's consensus (`participation_consensus_relation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// It takes no part, and its channel is known otherwise.
    Other,
    /// It is a consenter.
    Consenter,
    /// It follows: it is no consenter of the channel (O7).
    Follower,
    /// It takes its blocks over from others before it becomes a consenter.
    ConfigTracker,
}

impl Relation {
    /// From the metric's value.
    pub fn from_metric(value: f64) -> Relation {
        match value as i64 {
            1 => Relation::Consenter,
            2 => Relation::Follower,
            3 => Relation::ConfigTracker,
            _ => Relation::Other,
        }
    }

    /// From the participation API's word.
    pub fn from_word(word: &str) -> Relation {
        match word {
            "consenter" => Relation::Consenter,
            "follower" => Relation::Follower,
            "config-tracker" => Relation::ConfigTracker,
            _ => Relation::Other,
        }
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Relation::Other => "other",
            Relation::Consenter => "consenter",
            Relation::Follower => "follower",
            Relation::ConfigTracker => "config tracker",
        })
    }
}

/// What an orderer does in a channel (`participation_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Participating {
    /// It no longer takes part.
    Inactive,
    /// All is as it should be.
    Active,
    /// It fetches the channel's blocks from others.
    Onboarding,
    /// The channel failed to start on it.
    Failed,
}

impl Participating {
    /// From the metric's value.
    pub fn from_metric(value: f64) -> Option<Participating> {
        Some(match value as i64 {
            0 => Participating::Inactive,
            1 => Participating::Active,
            2 => Participating::Onboarding,
            3 => Participating::Failed,
            _ => return None,
        })
    }

    /// From the participation API's word.
    pub fn from_word(word: &str) -> Option<Participating> {
        Some(match word {
            "inactive" => Participating::Inactive,
            "active" => Participating::Active,
            "onboarding" => Participating::Onboarding,
            "failed" => Participating::Failed,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Participating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Participating::Inactive => "inactive",
            Participating::Active => "active",
            Participating::Onboarding => "onboarding",
            Participating::Failed => "failed",
        })
    }
}

/// What a node says of one channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelAnswer {
    /// Heights, in the order in which they were asked for.
    pub readings: Vec<Reading>,
    /// Whether it leads the channel's raft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads: Option<bool>,
    /// Its relation to the channel's consensus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Relation>,
    /// What it does in the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participating: Option<Participating>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Which node.
    pub node: NodeId,
    /// What it is.
    pub role: NodeRole,
    /// Whether it runs.
    pub running: bool,
    /// By channel.
    pub channels: BTreeMap<String, ChannelAnswer>,
    /// Sources that were asked and did not answer, and why.
    pub silent: Vec<(HeightSource, String)>,
    /// What `/healthz` says: `OK`, or what fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

impl Observation {
    /// Returns a node of which nothing is known yet.
    pub fn new(node: NodeId, role: NodeRole, running: bool) -> Self {
        Observation { node, role, running, channels: BTreeMap::new(), silent: Vec::new(), health: None }
    }

    /// Adds an answer.
    pub fn add(&mut self, channel: &str, reading: Reading) {
        self.channels.entry(channel.to_owned()).or_default().readings.push(reading);
    }

    /// Returns its height: the newest answer of the best source that answered. Block files are what the node has; the others are what it
    /// says.
    pub fn height(&self, channel: &str) -> Option<u64> {
        let readings = &self.channels.get(channel)?.readings;
        let files = readings.iter().rev().find(|reading| reading.source == HeightSource::BlockFiles);
        let best = readings.iter().map(|reading| reading.source).min()?;
        files.or(readings.iter().rev().find(|reading| reading.source == best)).map(|reading| reading.height)
    }

    /// Returns whether it holds chains.
    pub fn has_ledger(&self) -> bool {
        matches!(self.role, NodeRole::Peer | NodeRole::Orderer)
    }
}

/// Answers that cannot both be true (H1): a height never falls, so an answer that was there before another was asked for is at most as
/// high. That a node's metrics are a block behind its files is no contradiction: they are written after the block.
pub fn contradictions(observation: &Observation) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (channel, answer) in &observation.channels {
        let pair = answer.readings.iter().enumerate().find_map(|(i, earlier)| {
            let later = answer.readings[i + 1..]
                .iter()
                .find(|later| earlier.answered_ms <= later.asked_ms && earlier.height > later.height)?;
            // What a node says may be behind what it has for as long as a commit takes.
            let behind = earlier.source == HeightSource::BlockFiles && later.source != HeightSource::BlockFiles;
            (!behind).then_some((earlier, later))
        });
        if let Some((earlier, later)) = pair {
            findings.push(Finding::error(
                Rule::HeightsAgree,
                format!("{} {channel}", observation.node),
                format!(
                    "its {} said height {}, and {} afterwards its {} said {}",
                    earlier.source,
                    earlier.height,
                    milliseconds(later.asked_ms - earlier.answered_ms),
                    later.source,
                    later.height
                ),
                OrLeaveOut(
                    "one of the two is wrong: compare with `peer channel getinfo` and the node's log; restart the node",
                ),
            ));
        }
    }
    findings
}

fn milliseconds(ms: i64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { format!("{} s", ms / 1000) }
}

/// Returns a running node with a ledger whose height no source reports (H2): it is unknown, not zero.
pub fn unanswered(observation: &Observation) -> Option<Finding> {
    let reported = observation.channels.values().any(|answer| !answer.readings.is_empty());
    if !observation.has_ledger() || !observation.running || reported {
        return None;
    }
    let why: Vec<String> = observation.silent.iter().map(|(source, problem)| format!("{source}: {problem}")).collect();
    let why = if why.is_empty() { "no source is known".to_owned() } else { why.join("; ") };
    Some(Finding::warning(
        Rule::HeightsKnown,
        &observation.node,
        format!("the node runs, and no source reports its heights: {why}"),
        "check the node's log and its operations endpoint (on hosts: `operations` in the inventory)",
    ))
}

/// A node's lag on a channel, in blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The channel.
    pub channel: String,
    /// The highest height of any node.
    pub highest: u64,
    /// Every node of the channel: its height; `None` when it is not known.
    pub nodes: Vec<(NodeId, NodeRole, Option<u64>)>,
}

impl Standing {
    /// Nodes that are not at the highest height: name, height, blocks behind.
    pub fn laggards(&self) -> impl Iterator<Item = (&NodeId, Option<u64>, u64)> {
        self.nodes
            .iter()
            .filter(|(_, _, height)| *height != Some(self.highest))
            .map(|(node, _, height)| (node, *height, self.highest - height.unwrap_or(0)))
    }
}

/// Compares the heights of the nodes of each channel. `members`: channels that a node is known to hold, whether it answers or not.
pub fn standings(observations: &[Observation], members: &BTreeMap<NodeId, Vec<String>>) -> Vec<Standing> {
    let mut out: BTreeMap<&str, Standing> = BTreeMap::new();
    for observation in observations.iter().filter(|observation| observation.has_ledger()) {
        let known = members.get(&observation.node).into_iter().flatten().map(String::as_str);
        let mut channels: Vec<&str> = observation.channels.keys().map(String::as_str).chain(known).collect();
        channels.sort_unstable();
        channels.dedup();
        for channel in channels {
            let standing = out.entry(channel).or_insert_with(|| Standing {
                channel: channel.to_owned(),
                highest: 0,
                nodes: Vec::new(),
            });
            let height = observation.height(channel);
            standing.highest = standing.highest.max(height.unwrap_or(0));
            standing.nodes.push((observation.node.clone(), observation.role, height));
        }
    }
    out.into_values().collect()
}

/// Blocks that a node got between two observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// The channel.
    pub channel: String,
    /// The node.
    pub node: NodeId,
    /// Its height before.
    pub from: u64,
    /// Its height after.
    pub to: u64,
}

/// Returns what grew since heights were equal: inside a no-transaction window every entry is a failure of the window (W1).
pub fn grown(before: &[Standing], after: &[Standing]) -> Vec<Grown> {
    let mut out = Vec::new();
    for now in after {
        let earlier = before.iter().find(|standing| standing.channel == now.channel);
        for (node, _, height) in &now.nodes {
            let known = earlier.and_then(|standing| standing.nodes.iter().find(|(known, ..)| known == node));
            let (Some(&(_, _, Some(from))), Some(to)) = (known, *height) else { continue };
            if to > from {
                out.push(Grown { channel: now.channel.clone(), node: node.clone(), from, to });
            }
        }
    }
    out
}

impl Grown {
    /// As a finding against the window.
    pub fn finding(&self) -> Finding {
        Finding::error(
            Rule::WindowQuiet,
            format!("{} {}", self.node, self.channel),
            format!("inside the no-transaction window its height went from {} to {}", self.from, self.to),
            Remedy::keep_transactions_away().or(Remedy::ExtendWindow).or(Remedy::CaptureAtCut),
        )
    }
}
