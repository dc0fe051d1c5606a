//! The nodes: what discovery remarks, what each node's directories hold, its keys.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{NodeId, Rule};
use fabkeep_platform::Platform;

use super::{Diagnosis, DoctorOptions, Outcome, Topic};
use crate::Reporter;
use crate::capture::{Looked, look};
use crate::event::step;
use crate::units;

/// Looks at every node, except those that cannot be read.
pub(super) fn examine(
    out: &mut Diagnosis,
    platform: &dyn Platform,
    options: &DoctorOptions,
    unread: &BTreeSet<NodeId>,
    reporter: &dyn Reporter,
) -> Looked {
    let network = platform.network();
    let nodes = network.nodes().filter(|node| node.role != NodeRole::Files).count();
    let what =
        format!("{} of {}", units::counted(nodes, "node"), units::counted(network.organizations.len(), "organization"));
    out.ok(Topic::Network, format!("network {}", network.name), what);
    for name in options.capture.exclude.iter().filter(|name| !network.nodes().any(|node| node.id.to_string() == **name))
    {
        out.fail(Topic::Nodes, name, "the network has no such node", fabkeep_network::Remedy::ListNodes);
    }
    platform.findings().iter().for_each(|finding| out.finding(Topic::Nodes, finding.clone()));
    let mut looked = step(reporter, "look at the nodes", None, || look(platform, &options.capture, unread));
    for (node, error) in std::mem::take(&mut looked.failed) {
        out.error(Topic::Nodes, Outcome::Failed, node, error);
    }
    let mut findings = std::mem::take(&mut looked.findings);
    findings.sort_by(|a, b| (b.severity, &a.subject, a.rule).cmp(&(a.severity, &b.subject, b.rule)));
    findings.dedup();
    for node in &looked.nodes {
        let has_ledgers = matches!(node.role, NodeRole::Peer | NodeRole::Orderer);
        let none = has_ledgers && node.channels.is_empty();
        let told = findings.iter().any(|finding| finding.rule == Rule::NotPersistent && finding.subject == node.node);
        if none && !told {
            out.warn(
                Topic::Nodes,
                &node.node,
                format!("no channel was found in the directories of this {}", node.role),
                "if it has joined a channel, name the directory of its ledgers: on hosts in the inventory, on Kubernetes as a volume of its workload; `fabkeep discover` shows what was found",
            );
            continue;
        }
        if findings.iter().any(|finding| finding.subject.split(' ').next() == Some(&node.node)) {
            continue;
        }
        let channels = match (has_ledgers, node.channels.len()) {
            (false, _) => String::new(),
            (true, 1) => format!("channel {}; ", node.channels.join(", ")),
            (true, _) => format!("channels {}; ", node.channels.join(", ")),
        };
        let runs = match (node.role, node.running) {
            // What belongs to no node does not run.
            (NodeRole::Files, _) => "",
            (_, true) => "; it runs",
            (_, false) => "; it is stopped",
        };
        let files = units::counted(node.files, "file");
        let what = format!("{}; {channels}{files}, {}{runs}", node.role, units::bytes(node.bytes));
        out.ok(Topic::Nodes, &node.node, what);
    }
    findings.into_iter().for_each(|finding| out.finding(Topic::Nodes, finding));
    looked
}
