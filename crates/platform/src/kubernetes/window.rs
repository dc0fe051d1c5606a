//! No-transaction windows on a cluster: hooks, clients and nodes scaled to 0, NetworkPolicies. The window is recorded in ConfigMaps of the
//! namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Quiet, Remedy, Rule, Stage};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use serde_json::{Value, json};

use super::connection::failed;
use super::discover::FoundNode;
use super::objects::{MANAGED_BY, Namespace, SCALED, name_of, resource, text};
use super::scale::ScaledUp;
use super::stopping::is_scalable;
use super::{Kubernetes, StageWorkloads, stopping};
use crate::command::Until;
use crate::host::run_hook;
use crate::window::unknown_hook;
use crate::{Change, NotedWindows, ObjectRef, OnProgress, PlatformError, Progress, Quiesce, StrangeNote, WindowRecord};

/// The ConfigMap that notes a window, and its key.
pub(crate) const RECORD: &str = "fabkeep-window";
const RECORD_KEY: &str = "window.json";
/// What a fence's name begins with.
pub(crate) const FENCE: &str = "fabkeep-window-";
/// Longest note read, in bytes: a ConfigMap has at most 1 MiB.
const MAX_NOTE_BYTES: usize = 1 << 20;
/// A namespace's label that holds its name; the API server keeps it there.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// How long a stage may take to become ready when it is started again after a window.
const READY_WITHIN: Duration = Duration::from_secs(300);

fn without_stopping() -> Remedy {
    Remedy::KeepTransactionsAway { by: vec![Quiet::Scale, Quiet::Fence, Quiet::Hook] }
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
                    problem: format!("{client} runs {}, which is a node of the network and not a client", node.node.id),
                    next: Remedy::NameClients.or(Remedy::KeepTransactionsAway { by: vec![Quiet::Stop] }),
                });
            }
            let replicas = self.target().replicas(client)?.ok_or_else(|| PlatformError::NotHere {
                problem: format!("{client} does not exist"),
                next: Remedy::NameClients,
            })?;
            changes.push(Change::Scale { workload: client.clone(), replicas: Some(replicas) });
        }
        if quiesce.fence {
            changes.extend(self.fences(&mut findings)?);
        }
        if quiesce.stop {
            changes.extend(self.operators_of_nodes()?);
            changes.extend(self.stops());
        }
        findings.extend(self.judged(&changes, quiesce.stop));
        Ok((changes, findings))
    }

    /// Operators that would start stopped nodes again: scaled down before these, up again after them (K2).
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
                    "K2: an operator manages {}, but its Deployment cannot be found: it would start the node again",
                    managed.node.id
                ),
                next: Remedy::from("give fabkeep the right to list and patch the operator's Deployment")
                    .or(without_stopping()),
            });
        }
        let scaled = operators.iter().map(|(namespace, name)| {
            let workload = ObjectRef::new("Deployment", namespace, name);
            let replicas = self.target().replicas(&workload)?;
            Ok(Change::Scale { workload, replicas })
        });
        scaled.collect()
    }

    /// Returns every node's workload, those last that others need: peers before orderers (I1).
    fn stops(&self) -> Vec<Change> {
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for stage in self.node_stages().iter().rev() {
            for workload in &stage.workloads {
                let node = self.analysis.nodes.iter().find(|found| {
                    stage.nodes.contains(&found.node.id)
                        && found.node.workload.as_ref().is_some_and(|known| ObjectRef::from(known) == *workload)
                });
                if let (Some(node), true) = (node, seen.insert(workload.clone())) {
                    let replicas = self.workload(workload).map(|known| known.replicas);
                    out.push(Change::Stop { node: node.node.id.clone(), workload: Some(workload.clone()), replicas });
                }
            }
        }
        out
    }

    /// Returns what a window that scales these to 0 would destroy, and the nodes that it could not stop.
    fn judged(&self, changes: &[Change], stop: bool) -> Vec<Finding> {
        let remedy = without_stopping();
        let scaled: Vec<ObjectRef> = changes.iter().filter_map(|change| Some(change.scaled()?.0.clone())).collect();
        let mut findings = stopping::lost(&self.analysis, &scaled, &remedy);
        for node in self.analysis.nodes.iter().filter(|_| stop) {
            let works = matches!(
                node.node.role,
                NodeRole::Peer
                    | NodeRole::Orderer
                    | NodeRole::CertificateAuthority
                    | NodeRole::StateDatabase
                    | NodeRole::CaDatabase
            );
            let Some(workload) = node.node.workload.as_ref().map(ObjectRef::from) else { continue };
            if works && node.pod.is_some() && !is_scalable(&workload) {
                findings.push(stopping::unstoppable(&node.node.id, &workload, remedy.clone()));
            }
        }
        findings
    }

    /// Stages of nodes that can be scaled, without what is no node.
    fn node_stages(&self) -> Vec<StageWorkloads> {
        let mut stages = self.stages(None);
        for stage in &mut stages {
            stage.workloads.retain(|workload| SCALED.contains(&workload.kind.as_str()));
        }
        stages.retain(|stage| stage.stage != Stage::Others && !stage.workloads.is_empty());
        stages
    }

    fn fences(&self, findings: &mut Vec<Finding>) -> Result<Vec<Change>, PlatformError> {
        // What the nodes' pods are selected by: namespace, name and kind of their workload, labels.
        let mut inside: Vec<(String, String, String, Value)> = Vec::new();
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
                Some(selector) => {
                    inside.push((known.namespace.clone(), known.name.clone(), known.kind.clone(), selector));
                }
                None => findings.push(Finding::warning(
                    Rule::WindowQuiet,
                    &found.node.id,
                    format!("{} {} has no selector: a fence cannot select its pods", known.kind, known.name),
                    Remedy::KeepTransactionsAway { by: vec![Quiet::Scale, Quiet::Hook, Quiet::Stop] },
                )),
            }
        }
        inside.sort_by(|a, b| (&a.0, &a.1, &a.2).cmp(&(&b.0, &b.1, &b.2)));
        inside.dedup_by(|a, b| (&a.0, &a.1, &a.2) == (&b.0, &b.1, &b.2));
        let namespaces: BTreeSet<&String> = inside.iter().map(|(namespace, ..)| namespace).collect();
        for (namespace, _) in &self.analysis.all {
            if !namespaces.contains(&namespace.name) {
                continue;
            }
            for policy in namespace.of_kind("NetworkPolicy") {
                findings.push(Finding::warning(
                    Rule::WindowQuiet,
                    format!("NetworkPolicy {}/{}", namespace.name, name_of(policy)),
                    "a fence cannot block what this policy admits: NetworkPolicies are additive",
                    Remedy::from("no action is needed if it admits no clients to peers and orderers")
                        .or(Remedy::KeepTransactionsAway { by: vec![Quiet::Scale, Quiet::Hook, Quiet::Stop] }),
                ));
            }
        }
        let from: Vec<Value> = inside
            .iter()
            .map(|(namespace, _, _, selector)| {
                let mut peer = json!({"podSelector": selector});
                if namespaces.len() > 1 {
                    peer["namespaceSelector"] = json!({"matchLabels": {NAMESPACE_LABEL: namespace}});
                }
                peer
            })
            .collect();
        Ok(inside
            .iter()
            .enumerate()
            .map(|(at, (namespace, name, kind, selector))| {
                // One of another kind may have the same name.
                let has_name =
                    |(other, known, ..): &&(String, String, String, Value)| (other, known) == (namespace, name);
                let policy = match inside[..at].iter().any(|known| has_name(&known)) {
                    true => format!("{FENCE}{name}.{}", kind.to_lowercase()),
                    false => format!("{FENCE}{name}"),
                };
                let object = json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"name": policy, "namespace": namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
                    "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": [{"from": from}]},
                });
                Change::Fence { namespace: namespace.clone(), policy, object }
            })
            .collect())
    }

    pub(super) fn change(&self, changes: &[Change], until: Until<'_>) -> Result<(), PlatformError> {
        let target = self.target();
        let mut going = Vec::new();
        for change in changes {
            match change {
                Change::Hook(hook) => run_hook("hook-before", &hook.before, until)?,
                Change::Scale { workload, .. } | Change::Stop { workload: Some(workload), .. } => {
                    target.scale_down(workload)?;
                    going.push(workload.clone());
                    if change.is_stop() {
                        self.note_stopped(workload);
                    }
                }
                Change::Fence { object, .. } => self.make("NetworkPolicy", "networking.k8s.io/v1", object)?,
                Change::Stop { workload: None, .. } | Change::UnknownHook => {}
            }
        }
        if going.is_empty() {
            return Ok(());
        }
        match self.wait_until_gone(&going)?.first() {
            None => Ok(()),
            Some(up) => Err(PlatformError::Cluster {
                what: "scaling workloads down".to_owned(),
                problem: format!("somebody scaled {up} up again meanwhile (K2)"),
                next: "find out what starts it (GitOps, an operator, an autoscaler, a person) and suspend that; then run the same command again".into(),
            }),
        }
    }

    fn make(&self, kind: &str, api_version: &str, object: &Value) -> Result<(), PlatformError> {
        let namespace = text(object, "/metadata/namespace").unwrap_or_default().to_owned();
        let name = name_of(object).to_owned();
        let what = format!("creating {kind} {namespace}/{name}");
        let object: DynamicObject = serde_json::from_value(object.clone()).map_err(|error| PlatformError::Cluster {
            what: what.clone(),
            problem: error.to_string(),
            next: "report this to fabkeep's makers".into(),
        })?;
        let resource = resource(api_version, kind, None);
        let made = self.connection.try_run(|client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
            let object = object.clone();
            async move { api.create(&PostParams::default(), &object).await.map(|_| ()) }
        });
        match made {
            // A run that was killed may have made it; what somebody else made under this name is not ours.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there = self.look(kind, api_version, &namespace, &name)?;
                let same =
                    |field: &str| there.as_ref().and_then(|there| there.data.get(field)) == object.data.get(field);
                if there.as_ref().is_some_and(is_ours) && same("spec") && same("data") {
                    return Ok(());
                }
                Err(PlatformError::NotHere {
                    problem: format!(
                        "{kind} {namespace}/{name} already exists and differs from the one that fabkeep creates"
                    ),
                    next: format!(
                        "check it, and delete it if nobody needs it: kubectl -n {namespace} delete {kind} {name}"
                    )
                    .into(),
                })
            }
            other => other.map_err(|error| failed(&what, &error)),
        }
    }

    fn look(
        &self,
        kind: &str,
        api_version: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DynamicObject>, PlatformError> {
        let resource = resource(api_version, kind, None);
        self.connection.run(&format!("looking at {kind} {namespace}/{name}"), |client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
            async move { api.get_opt(name).await }
        })
    }

    /// Removes a fence that fabkeep made. What somebody else made under its name stays.
    fn unfence(&self, namespace: &str, policy: &str) -> Result<(), PlatformError> {
        let (kind, api_version) = ("NetworkPolicy", "networking.k8s.io/v1");
        match self.look(kind, api_version, namespace, policy)? {
            None => Ok(()),
            Some(there) if is_ours(&there) => self.unmake(kind, api_version, namespace, policy),
            Some(_) => Err(PlatformError::NotHere {
                problem: format!("{kind} {namespace}/{policy} was not created by fabkeep: it was left alone"),
                next: format!(
                    "check it, and delete it if nobody needs it: kubectl -n {namespace} delete {kind} {policy}"
                )
                .into(),
            }),
        }
    }

    fn unmake(&self, kind: &str, api_version: &str, namespace: &str, name: &str) -> Result<(), PlatformError> {
        let resource = resource(api_version, kind, None);
        let deleted = self.connection.run_if_there(&format!("deleting {kind} {namespace}/{name}"), |client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
            async move { api.delete(name, &DeleteParams::default()).await }
        });
        deleted.map(|_| ())
    }

    pub(super) fn undo(&self, changes: &[Change], reported: &OnProgress<'_>) -> Result<(), PlatformError> {
        for change in changes {
            self.bounded(change).map_err(|problem| PlatformError::NotHere {
                problem: format!("{change}: {problem}; nothing was undone"),
                next: Remedy::NameNamespaces,
            })?;
        }
        let mut result = Ok(());
        // Nodes are scaled up first, those first that others need; then the way to them, then their clients.
        let mut stopped: BTreeMap<&ObjectRef, Option<u32>> =
            changes.iter().filter(|change| change.is_stop()).filter_map(Change::scaled).collect();
        for mut stage in self.node_stages() {
            stage.workloads.retain(|workload| stopped.contains_key(&workload));
            let mut started = Vec::new();
            for workload in &stage.workloads {
                let replicas = stopped.remove(workload).flatten();
                reported(&Progress::ScalingUp(workload));
                match self.scale_back(workload, replicas, reported) {
                    Ok(true) => started.push(workload.clone()),
                    Ok(false) => {}
                    Err(error) => result = result.and(Err(error)),
                }
            }
            stage.workloads = started;
            if !stage.workloads.is_empty() {
                let ready = self.wait_until_ready(&stage, &BTreeMap::new(), READY_WITHIN, reported, &|| false);
                result = result.and(ready.and_then(|ready| match ready.findings.first() {
                    None => Ok(()),
                    Some(finding) => Err(PlatformError::Cluster {
                        what: format!("starting {} after the window", stage.stage),
                        problem: format!("{}: {}", finding.subject, finding.what),
                        next: Remedy::from("check its pods' events and logs").and(Remedy::UndoWindow),
                    }),
                }));
            }
        }
        // What the network does not show any more is started again all the same.
        for (workload, replicas) in stopped {
            result = result.and(self.scale_back(workload, replicas, reported).map(|_| ()));
        }
        self.forget_stopped();
        for change in changes {
            if let Change::Fence { namespace, policy, .. } = change {
                result = result.and(self.unfence(namespace, policy));
            }
        }
        for change in changes {
            match change {
                Change::Scale { workload, replicas } => {
                    result = result.and(self.scale_back(workload, *replicas, reported).map(|_| ()));
                }
                Change::Hook(hook) => result = result.and(run_hook("hook-after", &hook.after, Until::ITS_END)),
                Change::UnknownHook => result = result.and(Err(unknown_hook())),
                Change::Fence { .. } | Change::Stop { .. } => {}
            }
        }
        result
    }

    /// Scales a workload up that the window has at 0 replicas; `false` when it is gone. What somebody else has done with it meanwhile stays,
    /// and is reported.
    fn scale_back(
        &self,
        workload: &ObjectRef,
        replicas: Option<u32>,
        reported: &OnProgress<'_>,
    ) -> Result<bool, PlatformError> {
        let scaled = self.target().scale_up(workload, replicas)?;
        let (what, remedy) = match scaled {
            ScaledUp::Done => return Ok(true),
            ScaledUp::Running(now) => (
                format!(
                    "somebody scaled it to {now} replicas while the window was open: it stays so{}",
                    replicas.map_or(String::new(), |before| format!(", and had {before} before"))
                ),
                "check whether transactions were sent meanwhile (the heights that fabkeep reports), and scale it as you want it",
            ),
            ScaledUp::Gone => (
                "somebody deleted it while the window was open: there is nothing to scale up".to_owned(),
                "no action is needed if it was deleted on purpose; else deploy it again",
            ),
        };
        reported(&Progress::Left(&Finding::warning(Rule::WindowUndone, workload, what, remedy)));
        Ok(scaled != ScaledUp::Gone)
    }

    /// A window changes replicas of workloads and fences around the network's nodes, whatever a note says.
    fn bounded(&self, change: &Change) -> Result<(), String> {
        match change {
            Change::Hook(_) | Change::UnknownHook | Change::Stop { workload: None, .. } => Ok(()),
            Change::Scale { workload, .. } | Change::Stop { workload: Some(workload), .. } => {
                if SCALED.contains(&workload.kind.as_str()) {
                    return Ok(());
                }
                Err(format!("a window does not scale a {:?}", workload.kind))
            }
            Change::Fence { namespace, policy, .. } => {
                if !self.namespaces().contains(namespace) {
                    return Err(format!("namespace {namespace:?} is not one of the network's"));
                }
                if !policy.starts_with(FENCE) {
                    return Err(format!("NetworkPolicy {policy:?} is not one that a window creates"));
                }
                Ok(())
            }
        }
    }

    /// What may be undone without this machine's signature: what a window changes, in the network's own namespaces.
    pub(super) fn undoable(&self, change: &Change) -> Result<(), String> {
        self.bounded(change)?;
        match change {
            Change::Hook(_) | Change::UnknownHook => {
                Err("commands are never taken from a record of a window".to_owned())
            }
            Change::Scale { workload, .. } | Change::Stop { workload: Some(workload), .. } => {
                if self.namespaces().contains(&workload.namespace) {
                    return Ok(());
                }
                Err(format!("namespace {:?} is not one of the network's", workload.namespace))
            }
            Change::Fence { .. } => Ok(()),
            Change::Stop { workload: None, .. } => Err("it names no workload".to_owned()),
        }
    }

    /// Returns the namespaces that a note is written for, each with its life in this cluster.
    fn window_place(&self) -> Vec<String> {
        let of = |namespace: &Namespace| {
            let uid = text(&namespace.object, "/metadata/uid").unwrap_or_default();
            format!("namespace {} {uid}", namespace.name)
        };
        self.analysis.all.iter().map(|(namespace, _)| of(namespace)).collect()
    }

    pub(super) fn noted_windows(&self) -> Result<NotedWindows, PlatformError> {
        let here = self.window_place();
        let mut noted = NotedWindows::default();
        for (namespace, own) in self.namespaces().into_iter().zip(&here) {
            let Some(found) = self.look("ConfigMap", "v1", &namespace, RECORD)? else { continue };
            let note = found.data.pointer(&format!("/data/{RECORD_KEY}")).and_then(Value::as_str).unwrap_or_default();
            let note = if note.len() > MAX_NOTE_BYTES { "" } else { note };
            match self.machine.read(note, &|place| place.contains(own)) {
                Ok(open) => noted.open = noted.open.or(Some(open)),
                Err((problem, says)) => noted.strange.push(StrangeNote {
                    at: format!("ConfigMap {namespace}/{RECORD}"),
                    removal: format!("kubectl -n {namespace} delete configmap {RECORD}"),
                    namespace,
                    problem,
                    says,
                }),
            }
        }
        if noted.open.is_none() {
            noted.open = self.machine.remembered(&|place| place.iter().any(|one| here.contains(one)));
        }
        Ok(noted)
    }

    pub(super) fn write_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        let noted = self.noted_windows()?;
        if let Some(open) = noted.open {
            return Err(PlatformError::NotHere {
                problem: format!("another window has been open since {} (opened by {})", open.begun, open.by),
                next: Remedy::SeeStatus.and(Remedy::UndoWindow),
            });
        }
        if let Some(strange) = noted.strange.first() {
            return Err(PlatformError::NotHere {
                problem: format!("{} exists, but {}", strange.at, strange.problem),
                next: Remedy::SeeStatus,
            });
        }
        let place = self.window_place();
        let note = self.machine.sign(record, &place)?;
        self.machine.remember(record, &place, false)?;
        let written = self.write_notes(record, &note);
        if written.is_err() {
            self.machine.forget(&record.run)?;
            return written;
        }
        self.machine.remember(record, &place, true)
    }

    fn write_notes(&self, record: &WindowRecord, note: &str) -> Result<(), PlatformError> {
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
        // Two that began at once: the one whose record is not in the first namespace gives up.
        match self.noted_windows()?.open {
            Some(open) if open.run == record.run => Ok(()),
            _ => Err(PlatformError::NotHere {
                problem: "another window was opened at the same moment".to_owned(),
                next: Remedy::SeeStatus.and("run the backup again when that window is closed"),
            }),
        }
    }

    pub(super) fn remove_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        let here = self.window_place();
        self.machine.remember(record, &here, false)?;
        // The record in the first namespace decides who has the window: it is removed last. Records of others stay, and are reported.
        for (namespace, own) in self.namespaces().into_iter().zip(&here).rev() {
            let Some(found) = self.look("ConfigMap", "v1", &namespace, RECORD)? else { continue };
            let note = found.data.pointer(&format!("/data/{RECORD_KEY}")).and_then(Value::as_str).unwrap_or_default();
            if self.machine.read(note, &|place| place.contains(own)).is_ok_and(|open| open.run == record.run) {
                self.remove_note(&namespace)?;
            }
        }
        self.machine.forget(&record.run)
    }

    pub(super) fn remove_note(&self, namespace: &str) -> Result<(), PlatformError> {
        self.unmake("ConfigMap", "v1", namespace, RECORD)
    }
}

/// Returns whether fabkeep made an object.
fn is_ours(object: &DynamicObject) -> bool {
    object.metadata.labels.as_ref().is_some_and(|labels| labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1))
}
