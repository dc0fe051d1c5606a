//! The current state of a network: running nodes, heights, leaders, certificates that expire, errors in logs, open windows.

use std::collections::BTreeMap;

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{
    DirectorySource, Finding, LogMessage, NodeId, Observation, Participating, Relation, Rule, contradictions,
    standings, unanswered,
};
use fabkeep_platform::{BlockFiles, NodeState, Platform, ProbeScope, WindowRecord};
use serde::Serialize;

use crate::capture::certificates_of;
use crate::window::{noted_findings, observe_all};
use crate::{EngineError, logs};
use fabkeep_parallel as parallel;

/// Certificates read at a time.
const AT_ONCE: usize = 8;
const DAY_SECONDS: i64 = 86_400;

/// What is looked at.
#[derive(Debug, Clone)]
pub struct StatusOptions {
    /// Read every node's block files too, so that what it says is compared with what it has.
    pub block_files: bool,
    /// Read certificates.
    pub certificates: bool,
    /// Read logs since then.
    pub logs_since: Option<jiff::Timestamp>,
}

/// The network now.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkStatus {
    /// When it was looked at, RFC 3339.
    pub at: String,
    /// Its name.
    pub network: String,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// A window that is open.
    pub window: Option<WindowRecord>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// A node now.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Which: `Organization/node`.
    pub node: String,
    /// What it is.
    pub role: NodeRole,
    /// Whether it runs; `None` if that is unknown.
    pub running: Option<bool>,
    /// What `/healthz` says.
    pub health: Option<String>,
    /// Its channels.
    pub channels: Vec<ChannelStatus>,
    /// Days until its first certificate expires, and whose that is.
    pub expires: Option<(i64, String)>,
    /// What its log says.
    pub log: Vec<LogMessage>,
    /// What it answered, source by source.
    pub observation: Observation,
}

/// A channel on a node.
#[derive(Debug, Clone, Serialize)]
pub struct ChannelStatus {
    /// Its name.
    pub channel: String,
    /// Its height; `None` when it is not known.
    pub height: Option<u64>,
    /// Blocks behind the highest node.
    pub lag: Option<u64>,
    /// Who reported the height.
    pub source: Option<String>,
    /// Blocks a second since the status before.
    pub blocks_per_second: Option<f64>,
    /// Whether the node leads the channel's raft.
    pub leads: Option<bool>,
    /// Its relation to the channel's consensus.
    pub relation: Option<Relation>,
    /// What an orderer does in the channel.
    pub participating: Option<Participating>,
}

/// Looks at the network.
///
/// # Errors
/// [`EngineError::Platform`] when it cannot be looked at at all. What a single node does not answer is reported in its place.
pub fn status(
    platform: &dyn Platform,
    options: &StatusOptions,
    before: Option<&NetworkStatus>,
) -> Result<NetworkStatus, EngineError> {
    let at = jiff::Timestamp::now();
    // On a cluster a silent node's files are behind a helper pod: none is made for a look.
    let block_files = match (options.block_files, platform.readers().is_none()) {
        (true, _) => BlockFiles::Always,
        (false, true) => BlockFiles::IfSilent,
        (false, false) => BlockFiles::Never,
    };
    let observed = observe_all(platform, ProbeScope { block_files, health: true });
    let standings = standings(&observed, &BTreeMap::new());
    let mut findings: Vec<Finding> = Vec::new();
    let noted = platform.window()?;
    findings.extend(noted_findings(&noted));
    let window = noted.open;
    for observation in &observed {
        findings.extend(contradictions(observation));
        findings.extend(unanswered(observation));
        findings.extend(followers(observation));
        findings.extend(not_active(observation));
        if observation.health.as_deref().is_some_and(|health| health != "OK") {
            findings.push(Finding::warning(
                Rule::ReadyPerChannel,
                &observation.node,
                format!("/healthz says: {}", observation.health.as_deref().unwrap_or_default()),
                "check the component that it names: Docker or chaincode builders, CouchDB",
            ));
        }
    }
    let mut logs: BTreeMap<NodeId, Vec<LogMessage>> = BTreeMap::new();
    if let Some(since) = options.logs_since {
        for read in logs::read(platform, since, |_| true) {
            findings.extend(logs::judged(&read));
            logs.insert(read.0, read.1.unwrap_or_default());
        }
    }
    let mut certificates = certificates(platform, options, &mut findings);
    let mut nodes = Vec::new();
    for node in platform.network().nodes().filter(|node| node.role != NodeRole::Files) {
        let observation = match observed.iter().find(|observation| observation.node == node.id) {
            Some(observation) => observation.clone(),
            None => {
                let running = platform.state(&node.id).is_ok_and(|state| state == NodeState::Running);
                Observation::new(node.id.clone(), node.role, running)
            }
        };
        let state = || platform.state(&node.id).unwrap_or(NodeState::Unknown);
        let running = if observation.running { NodeState::Running } else { state() };
        let channels = standings
            .iter()
            .filter_map(|standing| {
                let (_, _, height) = standing.nodes.iter().find(|(known, ..)| *known == node.id)?;
                let answer = observation.channels.get(&standing.channel);
                let reading = answer
                    .and_then(|answer| answer.readings.iter().rev().find(|reading| Some(reading.height) == *height));
                Some(ChannelStatus {
                    channel: standing.channel.clone(),
                    height: *height,
                    lag: height.map(|height| standing.highest - height),
                    source: reading.map(|reading| reading.source.to_string()),
                    blocks_per_second: before.and_then(|before| rate(before, &node.id, &standing.channel, *height, at)),
                    leads: answer.and_then(|answer| answer.leads),
                    relation: answer.and_then(|answer| answer.relation),
                    participating: answer.and_then(|answer| answer.participating),
                })
            })
            .collect();
        nodes.push(NodeStatus {
            node: node.id.to_string(),
            role: node.role,
            running: (running != NodeState::Unknown).then_some(running == NodeState::Running),
            health: observation.health.clone(),
            channels,
            expires: certificates.remove(&node.id),
            log: logs.remove(&node.id).unwrap_or_default(),
            observation,
        });
    }
    findings.sort_by(|a, b| (b.severity, a.rule, &a.subject).cmp(&(a.severity, b.rule, &b.subject)));
    Ok(NetworkStatus { at: at.to_string(), network: platform.network().name.clone(), nodes, window, findings })
}

/// Reports an orderer that is a follower although it may be meant as a consenter (O7).
fn followers(observation: &Observation) -> Vec<Finding> {
    let following = observation.channels.iter().filter(|(_, answer)| answer.relation == Some(Relation::Follower));
    following
        .filter(|_| observation.role == NodeRole::Orderer)
        .map(|(channel, _)| {
            Finding::warning(
                Rule::ConsenterKey,
                format!("{} {channel}", observation.node),
                "it is a follower of this channel, not a consenter",
                "if it should be a consenter, compare its TLS public key with the one in the channel configuration (O7)",
            )
        })
        .collect()
}

/// Returns an orderer that does not serve a channel, though it runs (P7).
fn not_active(observation: &Observation) -> Vec<Finding> {
    let channels = observation.channels.iter().filter_map(|(channel, answer)| Some((channel, answer.participating?)));
    channels
        .filter_map(|(channel, participating)| {
            let remedy = match participating {
                Participating::Active => return None,
                Participating::Onboarding => {
                    "wait: it fetches the channel's blocks from the other orderers; it cannot be backed up before it is active"
                }
                Participating::Failed => "read its log, and restart it; `osnadmin channel list` shows the same state",
                Participating::Inactive => {
                    "if it should serve the channel, read its log; if it was removed, `osnadmin channel remove` deletes the rest (O10)"
                }
            };
            let subject = format!("{} {channel}", observation.node);
            Some(Finding::warning(Rule::ReadyPerChannel, subject, format!("the orderer reports the channel as {participating}"), remedy))
        })
        .collect()
}

fn rate(before: &NetworkStatus, node: &NodeId, channel: &str, now: Option<u64>, at: jiff::Timestamp) -> Option<f64> {
    let earlier = before.nodes.iter().find(|known| known.node == node.to_string())?;
    let height = earlier.channels.iter().find(|known| known.channel == channel)?.height?;
    let then: jiff::Timestamp = before.at.parse().ok()?;
    let seconds = (at.as_millisecond() - then.as_millisecond()) as f64 / 1000.0;
    (seconds > 0.0).then(|| now.map(|now| now.saturating_sub(height) as f64 / seconds)).flatten()
}

/// Returns the certificate of each node that expires first; those that do soon are findings.
fn certificates(
    platform: &dyn Platform,
    options: &StatusOptions,
    findings: &mut Vec<Finding>,
) -> BTreeMap<NodeId, (i64, String)> {
    if !options.certificates {
        return BTreeMap::new();
    }
    let now = jiff::Timestamp::now().as_second();
    let nodes: Vec<_> = platform.network().nodes().filter(|node| node.role != NodeRole::Files).collect();
    let read = parallel::map(nodes, AT_ONCE, |node| {
        let runs = platform.state(&node.id).is_ok_and(|state| state == NodeState::Running);
        let near = platform.readers().is_none();
        let keys = certificates_of(platform, node, |directory| {
            let holds = matches!(directory.role, DirectoryRole::Msp | DirectoryRole::Tls | DirectoryRole::CaHome);
            // No helper pod is made for a look.
            holds && (near || runs || directory.source == DirectorySource::Objects)
        });
        (node.id.clone(), keys)
    });
    let mut out = BTreeMap::new();
    for (node, certificates) in read {
        for (path, certificate) in certificates {
            let days = (certificate.not_after - now).div_euclid(DAY_SECONDS);
            if days < fabkeep_network::EXPIRY_WARNING_DAYS {
                let what = if days < 0 {
                    format!("the certificate of {} expired {} days ago", certificate.common_name, -days)
                } else {
                    format!("the certificate of {} expires in {days} days", certificate.common_name)
                };
                findings.push(Finding::warning(Rule::Certificates, format!("{node} {path}"), what, "renew it"));
            }
            let first = out.entry(node.clone()).or_insert((days, certificate.common_name.clone()));
            if days < first.0 {
                *first = (days, certificate.common_name);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orderer_that_runs_and_does_not_serve_a_channel_is_told() {
        let id = NodeId { organization: "Org".to_owned(), node: "orderer1".to_owned() };
        let mut observation = Observation::new(id, NodeRole::Orderer, true);
        let states = [Participating::Active, Participating::Onboarding, Participating::Failed, Participating::Inactive];
        for (number, state) in states.into_iter().enumerate() {
            observation.channels.entry(format!("channel{number}")).or_default().participating = Some(state);
        }
        observation.channels.entry("untold".to_owned()).or_default();
        let reported: Vec<(String, String)> =
            not_active(&observation).into_iter().map(|finding| (finding.subject, finding.what)).collect();
        let expected = ["onboarding", "failed", "inactive"].iter().enumerate().map(|(number, word)| {
            (format!("Org/orderer1 channel{}", number + 1), format!("the orderer reports the channel as {word}"))
        });
        assert_eq!(reported, expected.collect::<Vec<_>>());
    }
}
