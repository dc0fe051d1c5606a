//! No-transaction windows on a cluster: hooks, clients and nodes scaled to 0, NetworkPolicies; noted in ConfigMaps of the namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Rule};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use serde_json::{Value, json};

use super::connection::{failed, is_missing};
use super::discover::FoundNode;
use super::objects::{MANAGED_BY, name_of, resource, text};
use super::{Kubernetes, Stage};
use crate::host::run_hook;
use crate::{Change, ClientWorkload, PlatformError, Quiesce, WindowRecord};

/// The ConfigMap that notes a window, and its key.
const RECORD: &str = "fabkeep-window";
const RECORD_KEY: &str = "window.json";
/// A namespace's label that holds its name; the API server keeps it there.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// How long a stage may take to become ready when it is woken behind a window.
const AWAKE: Duration = Duration::from_secs(300);

fn workload_of(kind: &str, namespace: &str, name: &str) -> ClientWorkload {
    ClientWorkload { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

impl Kubernetes {
    pub(super) fn plan_window(&self, quiesce: &Quiesce) -> Result<(Vec<Change>, Vec<Finding>), PlatformError> {
        let mut findings = Vec::new();
        let mut changes: Vec<Change> = quiesce.hook.iter().cloned().map(Change::Hook).collect();
        for client in &quiesce.scale {
            let of_network = self.analysis.nodes.iter().find(|node| {
                node.node.workload.as_ref().is_some_and(|known| {
                    known.kind == client.kind && known.namespace == client.namespace && known.name == client.name
                })
            });
            if let Some(node) = of_network {
                return Err(PlatformError::NotHere {
                    problem: format!("{client} runs {}, a node of the network, and no client", node.node.id),
                    next: "name workloads that send transactions; --quiesce stop stops the nodes themselves".to_owned(),
                });
            }
            changes.push(Change::Scale(client.clone()));
        }
        if quiesce.fence {
            changes.extend(self.fences(&mut findings)?);
        }
        if quiesce.stop {
            changes.extend(self.operators_of_nodes()?);
            changes.extend(self.stops());
        }
        Ok((changes, findings))
    }

    /// Operators that would start stopped nodes again: asleep before these, awake behind them (K2).
    fn operators_of_nodes(&self) -> Result<Vec<Change>, PlatformError> {
        let custom = |node: &FoundNode| node.custom.as_ref().map(|(api_version, ..)| api_version.clone());
        let Some(managed) = self.analysis.nodes.iter().find(|node| node.custom.is_some()) else {
            return Ok(Vec::new());
        };
        let versions: BTreeSet<String> = self.analysis.nodes.iter().filter_map(custom).collect();
        let operators = self.target().operators(&versions.iter().map(String::as_str).collect::<Vec<_>>())?;
        if operators.is_empty() {
            return Err(PlatformError::NotHere {
                problem: format!(
                    "K2: an operator manages {}, and its Deployment is not to be seen: it would start the node again",
                    managed.node.id
                ),
                next: "give fabkeep the right to list and patch the operator's Deployment, or use --quiesce scale, fence or hook"
                    .to_owned(),
            });
        }
        let scaled =
            operators.iter().map(|(namespace, name)| Change::Scale(workload_of("Deployment", namespace, name)));
        Ok(scaled.collect())
    }

    /// Every node's workload, those last that others need: peers before orderers (I1).
    fn stops(&self) -> Vec<Change> {
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for stage in self.node_stages().iter().rev() {
            for (kind, namespace, name) in &stage.workloads {
                let workload = workload_of(kind, namespace, name);
                let node = self.analysis.nodes.iter().find(|found| {
                    stage.nodes.contains(&found.node.id)
                        && found.node.workload.as_ref().is_some_and(|known| {
                            known.kind == *kind && known.namespace == *namespace && known.name == *name
                        })
                });
                if let (Some(node), true) = (node, seen.insert(workload.clone())) {
                    out.push(Change::Stop { node: node.node.id.clone(), workload: Some(workload) });
                }
            }
        }
        out
    }

    /// Stages of nodes that can be scaled, without what is no node.
    fn node_stages(&self) -> Vec<Stage> {
        let mut stages = self.stages(None);
        for stage in &mut stages {
            stage.workloads.retain(|(kind, ..)| matches!(kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet"));
        }
        stages.retain(|stage| stage.name != "others" && !stage.workloads.is_empty());
        stages
    }

    fn fences(&self, findings: &mut Vec<Finding>) -> Result<Vec<Change>, PlatformError> {
        // What the nodes' pods are selected by: namespace and labels.
        let mut inside: Vec<(String, String, Value)> = Vec::new();
        for found in &self.analysis.nodes {
            if !matches!(found.node.role, NodeRole::Peer | NodeRole::Orderer | NodeRole::Chaincode) {
                continue;
            }
            let Some(known) = found.node.workload.as_ref() else { continue };
            let selector = self
                .analysis
                .all
                .iter()
                .find(|(namespace, _)| namespace.name == known.namespace)
                .and_then(|(namespace, _)| namespace.find(&known.kind, &known.name))
                .and_then(|object| object.pointer("/spec/selector").cloned());
            match selector {
                Some(selector) => inside.push((known.namespace.clone(), known.name.clone(), selector)),
                None => findings.push(Finding::warning(
                    Rule::WindowQuiet,
                    &found.node.id,
                    format!("{} {} has no selector: no fence can stand around its pods", known.kind, known.name),
                    "stop its clients another way (--quiesce hook or scale)",
                )),
            }
        }
        inside.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        inside.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
        let namespaces: BTreeSet<&String> = inside.iter().map(|(namespace, ..)| namespace).collect();
        for (namespace, _) in &self.analysis.all {
            if !namespaces.contains(&namespace.name) {
                continue;
            }
            for policy in namespace.of_kind("NetworkPolicy") {
                findings.push(Finding::warning(
                    Rule::WindowQuiet,
                    format!("NetworkPolicy {}/{}", namespace.name, name_of(policy)),
                    "what this policy lets in, a fence cannot keep out: policies add up",
                    "look whether it lets clients in to peers and orderers; if so, use --quiesce scale or hook",
                ));
            }
        }
        let from: Vec<Value> = inside
            .iter()
            .map(|(namespace, _, selector)| {
                let mut peer = json!({"podSelector": selector});
                if namespaces.len() > 1 {
                    peer["namespaceSelector"] = json!({"matchLabels": {NAMESPACE_LABEL: namespace}});
                }
                peer
            })
            .collect();
        Ok(inside
            .iter()
            .map(|(namespace, name, selector)| {
                let policy = format!("fabkeep-window-{name}");
                let object = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"name": policy, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
                    "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{"from": from}]},
                });
                Change::Fence { namespace: namespace.clone(), policy, object }
            })
            .collect())
    }

    pub(super) fn change(&self, changes: &[Change]) -> Result<(), PlatformError> {
        let target = self.target();
        let mut going = Vec::new();
        for change in changes {
            match change {
                Change::Hook(hook) => run_hook("hook-before", &hook.before)?,
                Change::Scale(workload) | Change::Stop { workload: Some(workload), .. } => {
                    target.sleep(&workload.kind, &workload.namespace, &workload.name)?;
                    going.push((workload.kind.clone(), workload.namespace.clone(), workload.name.clone()));
                    if change.is_stop() {
                        self.note_asleep(workload);
                    }
                }
                Change::Fence { object, .. } => self.make("NetworkPolicy", "networking.k8s.io/v1", object)?,
                Change::Stop { workload: None, .. } => {}
            }
        }
        if going.is_empty() { Ok(()) } else { self.wait_until_gone(&going) }
    }

    fn make(&self, kind: &str, api_version: &str, object: &Value) -> Result<(), PlatformError> {
        let namespace = text(object, "/metadata/namespace").unwrap_or_default().to_owned();
        let what = format!("creating {kind} {namespace}/{}", name_of(object));
        let object: DynamicObject = serde_json::from_value(object.clone()).map_err(|error| PlatformError::Cluster {
            what: what.clone(),
            problem: error.to_string(),
            next: "report this to fabkeep's makers".to_owned(),
        })?;
        let resource = resource(api_version, kind, None);
        let made = self.connection.try_run(|client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
            let object = object.clone();
            async move { api.create(&PostParams::default(), &object).await.map(|_| ()) }
        });
        match made {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map_err(|error| failed(&what, &error)),
        }
    }

    fn unmake(&self, kind: &str, api_version: &str, namespace: &str, name: &str) -> Result<(), PlatformError> {
        let resource = resource(api_version, kind, None);
        let gone = self.connection.try_run(|client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
            async move { api.delete(name, &DeleteParams::default()).await.map(|_| ()) }
        });
        match gone {
            Err(error) if !is_missing(&error) => Err(failed(&format!("deleting {kind} {namespace}/{name}"), &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn undo(&self, changes: &[Change], told: &dyn Fn(&str)) -> Result<(), PlatformError> {
        let target = self.target();
        let mut result = Ok(());
        // Nodes awake first, those first that others need; then the way to them, then their clients.
        let stopped: Vec<&ClientWorkload> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Stop { workload, .. } => workload.as_ref(),
                _ => None,
            })
            .collect();
        let mut woken: BTreeSet<&ClientWorkload> = BTreeSet::new();
        for mut stage in self.node_stages() {
            let of_window = |(kind, namespace, name): &(String, String, String)| {
                stopped
                    .iter()
                    .copied()
                    .find(|known| known.kind == *kind && known.namespace == *namespace && known.name == *name)
            };
            stage.workloads.retain(|workload| of_window(workload).is_some());
            for (kind, namespace, name) in &stage.workloads {
                told(&format!("waking {kind} {namespace}/{name}"));
                result = result.and(target.wake(kind, namespace, name));
                woken.extend(of_window(&(kind.clone(), namespace.clone(), name.clone())));
            }
            if !stage.workloads.is_empty() {
                let ready = self.wait_until_ready(&stage, &BTreeMap::new(), AWAKE, told, &|| false);
                result =
                    result.and(
                        ready.and_then(|awake| match awake.findings.first() {
                            None => Ok(()),
                            Some(finding) => Err(PlatformError::Cluster {
                                what: format!("waking {} behind the window", stage.name),
                                problem: format!("{}: {}", finding.subject, finding.what),
                                next: "look at its pods' events and logs; `fabkeep resume` wakes what still sleeps"
                                    .to_owned(),
                            }),
                        }),
                    );
            }
        }
        // What the network does not show any more is woken all the same.
        for workload in stopped.into_iter().filter(|workload| !woken.contains(workload)) {
            result = result.and(target.wake(&workload.kind, &workload.namespace, &workload.name));
        }
        self.forget_asleep();
        for change in changes {
            if let Change::Fence { namespace, policy, .. } = change {
                result = result.and(self.unmake("NetworkPolicy", "networking.k8s.io/v1", namespace, policy));
            }
        }
        for change in changes {
            match change {
                Change::Scale(workload) => {
                    result = result.and(target.wake(&workload.kind, &workload.namespace, &workload.name));
                }
                Change::Hook(hook) => result = result.and(run_hook("hook-after", &hook.after)),
                Change::Fence { .. } | Change::Stop { .. } => {}
            }
        }
        result
    }

    pub(super) fn noted_window(&self) -> Result<Option<WindowRecord>, PlatformError> {
        let resource = resource("v1", "ConfigMap", None);
        for namespace in self.namespaces() {
            let found = self.connection.run(&format!("looking for an open window in {namespace}"), |client| {
                let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
                async move { api.get_opt(RECORD).await }
            })?;
            let Some(found) = found else { continue };
            let note = found.data.pointer(&format!("/data/{RECORD_KEY}")).and_then(Value::as_str).unwrap_or_default();
            return serde_json::from_str(note).map(Some).map_err(|error| PlatformError::Cluster {
                what: format!("reading ConfigMap {namespace}/{RECORD}"),
                problem: error.to_string(),
                next: "undo what it says by hand, then delete it".to_owned(),
            });
        }
        Ok(None)
    }

    pub(super) fn write_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        if let Some(open) = self.noted_window()? {
            return Err(PlatformError::NotHere {
                problem: format!("another window is open since {} (by {})", open.begun, open.by),
                next: "`fabkeep status` shows it, `fabkeep resume` undoes it".to_owned(),
            });
        }
        let note = serde_json::to_string_pretty(record).unwrap_or_default();
        // In every namespace: whoever looks at one of them sees it.
        let namespaces = self.namespaces();
        for (position, namespace) in namespaces.iter().enumerate() {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": RECORD, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
                "data": {RECORD_KEY: note},
            });
            if let Err(error) = self.make("ConfigMap", "v1", &object) {
                // Nothing is changed yet: no note either.
                for noted in &namespaces[..position] {
                    let _ = self.unmake("ConfigMap", "v1", noted, RECORD);
                }
                return Err(error);
            }
        }
        // Two that began at once: the one whose note is not in the first namespace goes back.
        match self.noted_window()? {
            Some(open) if open.run == record.run => Ok(()),
            _ => Err(PlatformError::NotHere {
                problem: "another window was opened at the same moment".to_owned(),
                next: "`fabkeep status` shows it; run the backup again when it is over".to_owned(),
            }),
        }
    }

    pub(super) fn remove_window(&self) -> Result<(), PlatformError> {
        // The first namespace's note decides who has the window: it goes last.
        self.namespaces().iter().rev().try_for_each(|namespace| self.unmake("ConfigMap", "v1", namespace, RECORD))
    }
}
