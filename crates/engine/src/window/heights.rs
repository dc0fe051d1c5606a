//! Queries the heights of all nodes, and waits until they are equal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{
    Finding, HeightSource, NodeFacts, NodeId, Observation, Reading, Remedy, Rule, Standing, contradictions, standings,
    unanswered,
};
use fabkeep_platform::{Platform, ProbeScope};

use crate::EngineError;
use crate::event::{Event, Notice, Reporter};
use fabkeep_parallel as parallel;

/// The pause between two questions; the first ones come quicker.
const POLL: Duration = Duration::from_millis(500);
const FIRST_POLL: Duration = Duration::from_millis(50);
/// Nodes asked at a time.
const ASKED_AT_ONCE: usize = 16;

/// Asks every node that holds chains.
pub(crate) fn observe_all(platform: &dyn Platform, asked: ProbeScope) -> Vec<Observation> {
    observe(platform, asked, |_| true)
}

/// Asks those of them that are wanted.
pub(crate) fn observe(
    platform: &dyn Platform,
    asked: ProbeScope,
    wanted: impl Fn(&NodeId) -> bool,
) -> Vec<Observation> {
    let holds = |role: NodeRole| matches!(role, NodeRole::Peer | NodeRole::Orderer);
    let nodes: Vec<_> = platform.network().nodes().filter(|node| holds(node.role) && wanted(&node.id)).collect();
    parallel::map(nodes, ASKED_AT_ONCE, |node| platform.observe(&node.id, asked))
}

/// Waits until all nodes of each channel have one height, and keep it for `settle`.
pub(crate) fn wait_until_level(
    platform: &dyn Platform,
    members: &BTreeMap<NodeId, Vec<String>>,
    deadline: Duration,
    settle: Duration,
    reporter: &dyn Reporter,
) -> Result<(Vec<Standing>, Vec<Observation>), EngineError> {
    let begun = Instant::now();
    let mut level: Option<(Instant, Vec<Standing>)> = None;
    let mut said = Vec::new();
    loop {
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        let asked = ProbeScope { block_files: fabkeep_platform::BlockFiles::IfSilent, health: false };
        let mut observed = observe_all(platform, asked);
        observed.retain(|observation| members.contains_key(&observation.node));
        let now = standings(&observed, members);
        let behind = behind(&now);
        if behind.is_empty() {
            let since = match level.take().filter(|(_, earlier)| *earlier == now) {
                Some((since, _)) => since,
                None => Instant::now(),
            };
            if since.elapsed() >= settle {
                return Ok((now, observed));
            }
            level = Some((since, now.clone()));
        } else {
            level = None;
            if behind != said {
                reporter.event(Event::Notice(Notice::Behind { chains: &behind }));
                said = behind;
            }
        }
        if begun.elapsed() > deadline {
            return Err(EngineError::Refused(not_level(&now, &observed, begun.elapsed())));
        }
        std::thread::sleep(if begun.elapsed() < Duration::from_secs(2) { FIRST_POLL } else { POLL });
    }
}

/// Who is behind, and by how much.
fn behind(standings: &[Standing]) -> Vec<String> {
    let mut out = Vec::new();
    for standing in standings {
        for (node, height, lag) in standing.laggards() {
            out.push(match height {
                Some(height) => format!("{node} {} {height} ({lag} behind)", standing.channel),
                None => format!("{node} {} unknown", standing.channel),
            });
        }
    }
    out
}

/// Findings against nodes that did not become level in time.
fn not_level(standings: &[Standing], observed: &[Observation], after: Duration) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for observation in observed {
        findings.extend(
            unanswered(observation).map(|finding| Finding { severity: fabkeep_network::Severity::Error, ..finding }),
        );
        findings.extend(contradictions(observation));
    }
    for standing in standings {
        for (node, height, lag) in standing.laggards() {
            let what = match height {
                Some(height) => format!(
                    "its height is {height}, {lag} behind the highest ({}), after {} s",
                    standing.highest,
                    after.as_secs()
                ),
                None => {
                    format!("its height is unknown after {} s; the highest is {}", after.as_secs(), standing.highest)
                }
            };
            findings.push(Finding::error(
                Rule::LevelBefore,
                format!("{node} {}", standing.channel),
                what,
                Remedy::LongerWindow.or("read its log").or(Remedy::ExcludeNode).or(Remedy::CaptureAtCut),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::error(
            Rule::LevelBefore,
            "heights",
            format!("within {} s they were equal, but not long enough: new blocks are still added", after.as_secs()),
            Remedy::keep_transactions_away().or(Remedy::CaptureAtCut),
        ));
    }
    findings
}

/// Compares what the nodes said before the capture with what the capture found in their block files.
pub(crate) fn cross_check(observed: &[Observation], facts: &[NodeFacts], read_ms: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for observation in observed {
        let Some(node) = facts.iter().find(|node| node.id == observation.node) else { continue };
        let mut both = observation.clone();
        for ledger in &node.ledgers {
            let reading = Reading {
                source: HeightSource::BlockFiles,
                height: ledger.height,
                asked_ms: read_ms,
                answered_ms: read_ms,
            };
            both.add(&ledger.channel, reading);
        }
        findings.extend(contradictions(&both));
    }
    findings
}
