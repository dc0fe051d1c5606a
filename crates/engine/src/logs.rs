//! The logs of peers and orderers as part of a proof: the lines since a given time, classified.

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, LogMessage, NodeId, Rule, Severity, classify_log};
use fabkeep_platform::Platform;

use fabkeep_parallel as parallel;

/// Logs read at a time.
const AT_ONCE: usize = 8;

/// What one node logged; `Err` when its log cannot be read.
pub(crate) type NodeLog = (NodeId, Result<Vec<LogMessage>, String>);

/// Reads the logs of every peer and orderer that has one.
pub(crate) fn read(platform: &dyn Platform, since: jiff::Timestamp, wanted: impl Fn(&NodeId) -> bool) -> Vec<NodeLog> {
    let nodes: Vec<NodeId> = platform
        .network()
        .nodes()
        .filter(|node| matches!(node.role, NodeRole::Peer | NodeRole::Orderer) && wanted(&node.id))
        .map(|node| node.id.clone())
        .collect();
    let since_text = since.to_string();
    let read = parallel::map(nodes, AT_ONCE, |node| {
        let log = match platform.log(&node, since) {
            Ok(None) => return None,
            Ok(Some(log)) => Ok(classify_log(&log, &since_text)),
            Err(error) => Err(error.to_string()),
        };
        Some((node, log))
    });
    read.into_iter().flatten().collect()
}

/// As findings: what is known to be bad; other errors are counted only. A log that cannot be read is reported.
pub(crate) fn findings(
    platform: &dyn Platform,
    since: jiff::Timestamp,
    wanted: impl Fn(&NodeId) -> bool,
) -> Vec<Finding> {
    read(platform, since, wanted).iter().flat_map(judged).collect()
}

/// Returns the classified log of one node.
pub(crate) fn judged((node, log): &NodeLog) -> Vec<Finding> {
    match log {
        Ok(messages) => {
            let loud = messages.iter().filter(|message| message.severity >= Severity::Warning);
            loud.map(|message| message.finding(node)).collect()
        }
        Err(problem) => vec![Finding::note(
            Rule::LogsClean,
            node,
            format!("its log cannot be read: {problem}"),
            "give fabkeep the right to read it (pods/log), or correct `log` in the inventory",
        )],
    }
}
