//! Nodes that the network's last recovery point contains and that are not found any more.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Rule};
use fabkeep_store::{PointWriter, Sources};

use super::survey::Survey;
use super::{CaptureOptions, source_name};

/// Compares the nodes with those of the last recovery point, and notes them for the next one. Chaincode comes and goes with its versions, and
/// files that are of no node have no name of their own.
pub(super) fn check(
    survey: &Survey,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    sources: &mut Sources,
) -> Vec<Finding> {
    let lasts = |role: NodeRole| !matches!(role, NodeRole::Chaincode | NodeRole::Files);
    let nodes = survey.nodes.iter().filter(|node| lasts(node.node.role));
    let now: BTreeSet<String> = nodes.map(|node| node.node.id.to_string()).collect();
    let name = source_name(writer, &["nodes"]);
    let before = writer.earlier(&name).filter(|_| !options.reread);
    let before: BTreeSet<String> =
        before.and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default();
    let gone = before.difference(&now).filter(|node| !options.exclude.contains(node));
    let findings = gone.map(|node| {
        Finding::warning(
            Rule::NotPersistent,
            node,
            "the last recovery point contains this node, and it is not found any more: this recovery point does not contain it",
            "if it was lost, mount its disks or restore it from an earlier recovery point; no action is needed if it was removed or renamed on purpose: the next backup does not report it again",
        )
    });
    let findings = findings.collect();
    if let Ok(value) = serde_json::to_value(now) {
        sources.insert(name.to_string(), value);
    }
    findings
}
