//! What is lost when pods go, and what cannot be stopped: known before anything is scaled down or deleted.

use std::collections::BTreeSet;

use fabkeep_network::{DirectorySource, Finding, NodeId, Remedy, Rule};
use serde_json::Value;

use super::Kubernetes;
use super::discover::{Analysis, FoundNode};
use super::objects::{SCALED, text};
use super::places::PlannedNodes;
use super::volume::helper;
use crate::ObjectRef;

/// Returns whether fabkeep can scale a workload to 0: not a DaemonSet, not a bare pod, and nothing that a controller runs which fabkeep does
/// not know.
pub fn is_scalable(workload: &ObjectRef) -> bool {
    SCALED.contains(&workload.kind.as_str())
}

/// Returns whether an object is a StatefulSet that deletes the claims of pods that it scales away.
pub(super) fn deletes_claims_when_scaled(object: &Value) -> bool {
    text(object, "/kind").is_none_or(|kind| kind == "StatefulSet")
        && text(object, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled") == Some("Delete")
}

/// Says what such a StatefulSet does.
pub(super) fn claims_go_with(workload: &str) -> String {
    format!(
        "{workload} deletes its claims when it is scaled down (persistentVolumeClaimRetentionPolicy): stopping it deletes the data of its nodes"
    )
}

/// Returns an error for each directory with data that goes with the pods of these nodes. `remedy`: what else can be done than to give
/// it a claim.
fn lost_with_pods<'a>(nodes: impl Iterator<Item = &'a FoundNode>, remedy: &Remedy) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in nodes {
        let data = |directory: &&fabkeep_network::NodeDirectory| {
            directory.source == DirectorySource::Ephemeral && directory.role.is_data()
        };
        for directory in node.node.directories.iter().filter(data) {
            let at = directory.mounted_at.as_deref().unwrap_or(&directory.path);
            findings.push(Finding::error(
                Rule::NotPersistent,
                &node.node.id,
                format!("its {} directory {at} is on no volume: stopping the node deletes it", directory.role),
                Remedy::from("give the node a PersistentVolumeClaim there").or(remedy.clone()),
            ));
        }
    }
    findings
}

fn workload_of(node: &FoundNode) -> Option<ObjectRef> {
    node.node.workload.as_ref().map(ObjectRef::from)
}

/// Returns an error for each node, chosen or not, that loses data when these workloads are scaled to 0: data on no volume, and claims that
/// their StatefulSet deletes. `remedy`: what else can be done than to give
/// it a claim.
pub(super) fn lost(analysis: &Analysis, workloads: &[ObjectRef], remedy: &Remedy) -> Vec<Finding> {
    let workloads: BTreeSet<&ObjectRef> = workloads.iter().collect();
    let going = analysis.nodes.iter().filter(|node| workload_of(node).is_some_and(|known| workloads.contains(&known)));
    let mut findings = lost_with_pods(going, remedy);
    for workload in workloads {
        let namespace = analysis.all.iter().find(|(known, _)| known.name == workload.namespace);
        let object = namespace.and_then(|(namespace, _)| namespace.find(&workload.kind, &workload.name));
        let wants_pods = |object: &&Value| object.pointer("/spec/replicas").and_then(Value::as_u64) != Some(0);
        if workload.kind == "StatefulSet" && object.filter(wants_pods).is_some_and(deletes_claims_when_scaled) {
            findings.push(Finding::error(
                Rule::NotPersistent,
                workload,
                claims_go_with(&workload.to_string()),
                "set its whenScaled to Retain first",
            ));
        }
    }
    findings
}

/// Returns the error for a node that runs and cannot be stopped. `remedy` is what to do.
pub(super) fn unstoppable(node: &NodeId, workload: &ObjectRef, remedy: impl Into<Remedy>) -> Finding {
    let why = match workload.kind.as_str() {
        "Pod" => "it is a pod that no controller runs".to_owned(),
        "DaemonSet" => format!("{workload} runs it"),
        _ => format!("{workload} runs it, a controller that fabkeep does not know"),
    };
    Finding::error(
        Rule::OperatorScales,
        node,
        format!("it runs, and fabkeep cannot stop it by scaling a workload to 0: {why}"),
        remedy,
    )
}

impl Kubernetes {
    /// Returns what is lost when the pod of a node is deleted: data on no volume, of this node and of others in the pod.
    pub fn lost_by_restart(&self, id: &NodeId) -> Vec<Finding> {
        let place = |node: &FoundNode| {
            let workload = node.node.workload.as_ref();
            workload.map(|known| (known.namespace.clone(), known.kind.clone(), known.name.clone(), known.ordinal))
        };
        let own = self.position(id).and_then(|position| place(&self.analysis.nodes[position]));
        let with_it = self.analysis.nodes.iter().filter(|node| own.is_some() && place(node) == own);
        let by_hand = Remedy::from("save what it holds elsewhere").and("restart the node by hand");
        lost_with_pods(with_it, &by_hand)
    }
}

impl PlannedNodes {
    /// Returns what is lost when these workloads are scaled to 0, of any node.
    pub fn lost_when_stopped(&self, workloads: &[ObjectRef]) -> Vec<Finding> {
        let accept = Remedy::Override { rule: Rule::NotPersistent, accept: "that this is lost".to_owned() };
        lost(&self.0, workloads, &Remedy::from("save what it holds elsewhere").and(accept))
    }

    /// Returns the error for a node whose data is on one machine that its workload does not name: when it is stopped, nothing tells where.
    pub fn without_machine(&self, node: &NodeId) -> Option<Finding> {
        let found = self.0.nodes.iter().find(|found| found.node.id == *node)?;
        let (directory, path) = helper::on_a_machine(found)?;
        let own = workload_of(found)?;
        let mut workloads = self.0.all.iter().flat_map(|(_, workloads)| workloads);
        let workload = workloads.find(|known| known.object() == own)?;
        if helper::names_machine(workload) {
            return None;
        }
        let at = directory.mounted_at.as_deref().unwrap_or(&directory.path);
        Some(Finding::error(
            Rule::NotPersistent,
            node,
            format!(
                "its {} directory {at} is the hostPath {path} of one machine, and {own} does not name the machine: it could be filled on another one",
                directory.role
            ),
            "name the machine in its pod template (nodeName, or nodeSelector kubernetes.io/hostname), then run the same command again",
        ))
    }

    /// Returns the error for a node whose workload has pods and cannot be scaled.
    pub fn unstoppable(&self, node: &NodeId, workload: &ObjectRef) -> Option<Finding> {
        let running = self.0.all.iter().any(|(namespace, workloads)| {
            // A declared pod looks like one that lives, but nothing has told its state.
            let declared = || namespace.find("Pod", &workload.name).is_some_and(|pod| pod.get("status").is_none());
            let mut own = workloads.iter().filter(|known| known.object() == *workload);
            own.any(|known| !known.pods.is_empty()) && !(workload.kind == "Pod" && declared())
        });
        let remedy = match workload.kind.as_str() {
            "Pod" | "DaemonSet" => {
                let (kind, name) = (workload.kind.to_lowercase(), &workload.name);
                format!(
                    "delete it first, and this restore creates it again: kubectl -n {} delete {kind} {name}; its volumes stay",
                    workload.namespace
                )
            }
            _ => format!("scale {workload} to 0 by hand, wait until its pods are gone, and run the same command again"),
        };
        (running && !is_scalable(workload)).then(|| unstoppable(node, workload, remedy))
    }
}
