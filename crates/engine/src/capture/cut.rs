//! A cut: per channel one height that every captured peer has and the ordering service exceeds. Peers' chains end there; orderers' chains
//! too, unless their raft snapshot lies beyond: then behind the snapshot's block (I3). Raft state is the donor's (`level.rs`), SmartBFT's logs are
//! left out (`rebuild.rs`).

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeFacts, Remedy, Rule, WalKind};
use fabkeep_platform::{Platform, SnapshotPlan, SnapshotReport};
use fabkeep_store::PointWriter;

use super::chains::members;
use super::cursor::{Member, height_of};
use super::databases::Facts;
use super::pass::{self, Effort, Pass};
use super::survey::Survey;
use super::{ByChannel, CaptureOptions, SNAPSHOT_DEADLINE, snapshots, until_settled};
use crate::EngineError;
use crate::event::Reporter;
use fabkeep_parallel as parallel;

/// Where a channel is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// The height of every peer.
    pub peers: u64,
    /// The height of every orderer.
    pub orderers: u64,
    /// The orderer whose raft state all take, by its place in the survey.
    pub donor: Option<usize>,
}

/// Blocks by which a peer may be behind what the highest had a whole pass before it: more is reported.
const REPORTED_LAG: u64 = 100;

/// Cuts by channel; a channel without one is captured as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Cuts {
    pub by_channel: ByChannel<Cut>,
}

impl Cuts {
    /// Returns where a node's chain ends.
    pub fn limit(&self, channel: &str, peer: bool) -> Option<u64> {
        self.by_channel.get(channel).map(|cut| if peer { cut.peers } else { cut.orderers })
    }

    /// Chooses the heights from what was listed: peers were listed before orderers, so the orderers have at least as many blocks.
    pub fn choose(
        survey: &Survey,
        facts: &Facts,
        writer: &PointWriter<'_>,
        options: &CaptureOptions,
    ) -> Result<Cuts, EngineError> {
        let mut by_channel = ByChannel::new();
        for (channel, members) in members(survey, writer, options) {
            let heights = parallel::map(members.iter(), options.threads, |member: &Member<'_>| {
                // A chain that cannot be read is found by the walk, with its place.
                (member.node, member.peer, height_of(member).ok().flatten())
            });
            let lowest_peer = heights.iter().filter(|(_, peer, _)| *peer).filter_map(|(_, _, height)| *height).min();
            let donor = heights
                .iter()
                .filter(|(node, peer, _)| !*peer && has_log(facts, *node, &channel))
                .filter_map(|(node, _, height)| Some((*node, (*height)?)))
                .rev()
                .max_by_key(|(_, height)| *height);
            let Some(wanted) = lowest_peer.or(donor.map(|(_, height)| height)) else { continue };
            let snapshot = donor.and_then(|(node, _)| {
                let raft = facts.nodes[node].raft.iter().find(|raft| raft.channel == channel)?;
                raft.snapshot.as_ref()?.block
            });
            // An orderer never captured lower than the cut is found by I1.
            let orderers = wanted.max(snapshot.map_or(0, |block| block.saturating_add(1)));
            let orderers = donor.map_or(orderers, |(_, height)| orderers.min(height));
            by_channel.insert(channel, Cut { peers: wanted, orderers, donor: donor.map(|(node, _)| node) });
        }
        Ok(Cuts { by_channel })
    }
}

fn has_log(facts: &Facts, node: usize, channel: &str) -> bool {
    facts.nodes[node].raft.iter().any(|raft| raft.channel == channel && raft.kind == WalKind::Raft && raft.files > 0)
}

/// What came of a cut.
pub(super) enum Outcome {
    /// It is made; from these snapshots.
    Made(Box<Pass>, Option<SnapshotReport>),
    /// Rules forbid it.
    Forbidden(Vec<Finding>),
}

/// Captures the bulk, and, where nothing forbids it, the difference up to the cut.
pub(super) fn capture(
    platform: &dyn Platform,
    writer: &mut PointWriter<'_>,
    options: &CaptureOptions,
    planned: Option<&SnapshotPlan>,
    reporter: &dyn Reporter,
) -> Result<Outcome, EngineError> {
    let taken = planned.map(|plan| snapshots::take(platform, plan, SNAPSHOT_DEADLINE, reporter)).transpose()?;
    let mut bulk = pass::run(platform, writer, options, Effort::Bulk, reporter)?;
    let forbidden = forbidden(&bulk, options);
    if !forbidden.is_empty() {
        return Ok(Outcome::Forbidden(forbidden));
    }
    let read_bytes = bulk.read_bytes;
    writer.begin_again(std::mem::take(&mut bulk.sources));
    let options = CaptureOptions { reread: false, ..options.clone() };
    let mut cut = until_settled(writer, &options, reporter, |writer| {
        pass::run(platform, writer, &options, Effort::Cut, reporter)
    })?;
    cut.findings.extend(laggards(&bulk.facts, &cut.facts));
    let read_bytes = cut.read_bytes + read_bytes;
    Ok(Outcome::Made(Box::new(Pass { read_bytes, ..cut }), taken))
}

/// Peers that are so far behind that every peer comes back much lower than it was. While nodes are gone over a running network grows, so
/// that only a peer counts that has not even what the highest had a whole pass before.
fn laggards(bulk: &[NodeFacts], cut: &[NodeFacts]) -> Vec<Finding> {
    let heights = |facts: &'_ [NodeFacts]| -> ByChannel<Vec<(u64, String)>> {
        let mut out = ByChannel::new();
        for node in facts.iter().filter(|node| node.role == NodeRole::Peer) {
            for ledger in &node.ledgers {
                let entry: &mut Vec<_> = out.entry(ledger.channel.clone()).or_default();
                entry.push((ledger.height, node.id.to_string()));
            }
        }
        out
    };
    let (before, now) = (heights(bulk), heights(cut));
    let mut findings = Vec::new();
    for (channel, peers) in &before {
        let (Some((_, lowest)), Some((highest, _))) = (peers.iter().min(), peers.iter().max()) else { continue };
        let Some((height, _)) = now.get(channel).and_then(|peers| peers.iter().min()) else { continue };
        if highest.saturating_sub(*height) > REPORTED_LAG {
            findings.push(Finding::warning(
                Rule::LevelBefore,
                format!("{lowest} {channel}"),
                format!("every chain is cut at height {height}, which is this peer's; the highest peer had {highest}"),
                Remedy::from(
                    "no action is needed: the orderers have the later blocks, and peers fetch them after a restore",
                )
                .or(Remedy::ExcludeNode),
            ));
        }
    }
    findings
}

/// What a cut cannot serve: state that cannot be replayed to the cut.
fn forbidden(bulk: &Pass, options: &CaptureOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    if options.include_derived {
        findings.push(Finding::error(
            Rule::StoresInOrder,
            "derived data",
            "a cut leaves state, history and index out, because they have other heights than the chains",
            Remedy::WithoutDerived.or(Remedy::CaptureInWindow),
        ));
    }
    for node in &bulk.facts {
        for ledger in node.ledgers.iter().filter(|ledger| node.role == NodeRole::Peer && ledger.first_block > 0) {
            findings.push(Finding::error(
                Rule::SnapshotJoined,
                format!("{} {}", node.id, ledger.channel),
                format!(
                    "the peer joined this channel by snapshot and its chain begins at block {}: its state cannot be replayed to the height of a cut",
                    ledger.first_block
                ),
                Remedy::CaptureInWindow.or(Remedy::CutOrWait),
            ));
        }
    }
    findings
}
