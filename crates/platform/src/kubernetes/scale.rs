//! Scales workloads down and up, in the stages of the start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{NodeId, Stage};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::connection::{failed, is_forbidden, is_missing};
use super::discover::workloads::{LivePod, WorkloadObject, live_pod};
use super::mounting::MountingPod;
use super::objects::{REPLICAS, SCALED, noted_replicas, resource};
use super::target::{Target, api, handle};
use super::{Kubernetes, is_scalable, objects, stopping};
use crate::{Declaration, ObjectRef, PlatformError};

/// How long pods may take to go.
const GOING: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);

/// The state of a workload in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadState {
    /// There is none.
    Missing,
    /// It wants pods.
    Running,
    /// fabkeep scaled it down, and has not scaled it up again.
    ScaledDown,
    /// It wants no pods, by somebody else's will.
    AtRest,
}

/// Workloads that start together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageWorkloads {
    /// What they are.
    pub stage: Stage,
    /// The workloads.
    pub workloads: Vec<ObjectRef>,
    /// The nodes that they run.
    pub nodes: Vec<NodeId>,
}

/// A workload that was scaled down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaledDown {
    /// Kind, namespace and name.
    pub workload: String,
    /// How many replicas it had.
    pub replicas: u32,
}

/// What came of scaling a workload up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaledUp {
    /// It wants pods again, or as few as before.
    Done,
    /// Somebody has scaled it up meanwhile, to this many replicas: that stays.
    Running(u32),
    /// It does not exist any more.
    Gone,
}

/// Most replicas that a workload is scaled up to, whatever is recorded.
const MAX_REPLICAS: u32 = 1_000;

/// How many replicas a workload wants.
fn wanted(object: &Value) -> u32 {
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    u32::try_from(replicas).unwrap_or(u32::MAX)
}

impl Target {
    /// Returns how many replicas a workload wants, or wanted before fabkeep scaled it to 0. `None` if it does not exist.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn replicas(&self, workload: &ObjectRef) -> Result<Option<u32>, PlatformError> {
        let declaration = handle(workload);
        let found = self.get_value(&declaration, &format!("looking at {}", declaration.label()))?;
        Ok(found.map(|found| noted_replicas(&found).unwrap_or_else(|| wanted(&found))))
    }

    fn get_value(&self, declaration: &Declaration, what: &str) -> Result<Option<Value>, PlatformError> {
        let found = self.get(declaration, what)?;
        Ok(found.map(|found| serde_json::to_value(found).unwrap_or_default()))
    }

    /// Scales a workload down to 0; how many replicas it had is noted on it.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`]; [`PlatformError::NotHere`] when it cannot be scaled, or loses its claims then.
    pub fn scale_down(&self, workload: &ObjectRef) -> Result<ScaledDown, PlatformError> {
        let declaration = handle(workload);
        let what = format!("scaling {} down", declaration.label());
        if !SCALED.contains(&workload.kind.as_str()) {
            return Err(PlatformError::NotHere {
                problem: format!("{} cannot be scaled to 0", declaration.label()),
                next: "stop it by hand, then run the same command again".into(),
            });
        }
        let found = self.connection.run(&what, |client| {
            let api = api(&self.connection, client, &declaration);
            async move { api.get(&workload.name).await }
        })?;
        let found = serde_json::to_value(found).unwrap_or_default();
        // Somebody who has scaled it up meanwhile knows better than the note.
        let recorded = noted_replicas(&found).unwrap_or_else(|| wanted(&found));
        if wanted(&found) > 0 && stopping::deletes_claims_when_scaled(&found) {
            return Err(PlatformError::NotHere {
                problem: format!("K3: {}", stopping::claims_go_with(&declaration.label())),
                next: "set whenScaled to Retain".into(),
            });
        }
        let patch = json!({"metadata": {"annotations": {REPLICAS: recorded.to_string()}}, "spec": {"replicas": 0}});
        self.patch(&declaration, &patch, &what)?;
        Ok(ScaledDown { workload: declaration.label(), replicas: recorded })
    }

    /// Scales a workload that wants no pods up to `known` replicas; without it, to those that are noted on it. One that wants pods, by
    /// somebody else's will, stays as it is.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`]; [`PlatformError::NotHere`] when it is not known how many replicas it had.
    pub fn scale_up(&self, workload: &ObjectRef, known: Option<u32>) -> Result<ScaledUp, PlatformError> {
        let declaration = handle(workload);
        let label = declaration.label();
        let what = format!("scaling {label} up");
        let Some(found) = self.get_value(&declaration, &what)? else { return Ok(ScaledUp::Gone) };
        let running = wanted(&found);
        if running > 0 {
            if objects::annotation(&found, REPLICAS).is_some() {
                self.patch(&declaration, &json!({"metadata": {"annotations": {REPLICAS: null}}}), &what)?;
            }
            return Ok(if known == Some(running) { ScaledUp::Done } else { ScaledUp::Running(running) });
        }
        let Some(replicas) = known.or(noted_replicas(&found)) else {
            return Err(PlatformError::NotHere {
                problem: format!(
                    "{label} is at 0 replicas, and it is not known how many it had: its annotation {REPLICAS} is gone or not valid"
                ),
                next: "scale it up by hand, then run the same command again".into(),
            });
        };
        if replicas > MAX_REPLICAS {
            return Err(PlatformError::NotHere {
                problem: format!("{label} is recorded with {replicas} replicas"),
                next: format!("scale it by hand: fabkeep scales up to at most {MAX_REPLICAS}").into(),
            });
        }
        let patch = json!({"metadata": {"annotations": {REPLICAS: null}}, "spec": {"replicas": replicas}});
        self.patch(&declaration, &patch, &what)?;
        Ok(ScaledUp::Done)
    }

    /// Returns the state of a workload.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn workload(&self, workload: &ObjectRef) -> Result<WorkloadState, PlatformError> {
        let declaration = handle(workload);
        let found = self.get_value(&declaration, &format!("looking at {}", declaration.label()))?;
        let Some(found) = found else { return Ok(WorkloadState::Missing) };
        Ok(match (wanted(&found), noted_replicas(&found).is_some()) {
            (0, true) => WorkloadState::ScaledDown,
            (0, false) if workload.kind != "Pod" && workload.kind != "DaemonSet" => WorkloadState::AtRest,
            _ => WorkloadState::Running,
        })
    }

    /// Identity and generation of a workload, which show whether somebody has changed it since. `None` if it does not exist.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn generation(&self, workload: &ObjectRef) -> Result<Option<String>, PlatformError> {
        let declaration = handle(workload);
        let found = self.get(&declaration, &format!("looking at {}", declaration.label()))?;
        Ok(found.and_then(|found| Some(format!("{} {}", found.metadata.uid?, found.metadata.generation?))))
    }

    /// Returns who has set the number of a workload's replicas last, as the API server notes it.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn scaled_by(&self, workload: &ObjectRef) -> Result<Option<String>, PlatformError> {
        let declaration = handle(workload);
        let found = self.get(&declaration, &format!("looking at {}", declaration.label()))?;
        let managers = found.and_then(|found| found.metadata.managed_fields).unwrap_or_default();
        let of_replicas = managers.into_iter().filter(|manager| {
            manager.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
        });
        Ok(of_replicas.max_by_key(|manager| manager.time.clone()).and_then(|manager| manager.manager))
    }

    /// Returns whether a workload wants pods and all of them are ready.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn is_ready(&self, workload: &ObjectRef) -> Result<bool, PlatformError> {
        let declaration = handle(workload);
        let found = self.get(&declaration, &format!("looking at {}", declaration.label()))?;
        let number = |path: &str| found.as_ref()?.data.pointer(path)?.as_u64();
        let wanted = number("/spec/replicas").unwrap_or(1);
        Ok(wanted > 0 && number("/status/readyReplicas").is_some_and(|ready| ready >= wanted))
    }
}

impl Kubernetes {
    /// Returns the stages in which workloads start. A pod with several nodes starts with the last of them. `chosen`: nodes whose workloads
    /// are meant; all without.
    pub fn stages(&self, chosen: Option<&[NodeId]>) -> Vec<StageWorkloads> {
        let empty = |stage| StageWorkloads { stage, workloads: Vec::new(), nodes: Vec::new() };
        let mut stages: BTreeMap<Stage, StageWorkloads> = BTreeMap::new();
        for workload in self.analysis.all.iter().flat_map(|(_, workloads)| workloads) {
            let of_it = self.analysis.nodes.iter().filter(|node| {
                node.node.workload.as_ref().is_some_and(|known| ObjectRef::from(known) == workload.object())
            });
            let nodes: Vec<_> = of_it.collect();
            if chosen.is_some_and(|chosen| !nodes.iter().any(|node| chosen.contains(&node.node.id))) {
                continue;
            }
            let of_nodes = nodes.iter().map(|node| Stage::of(node.node.role)).filter(|stage| *stage != Stage::Others);
            let stage = of_nodes.max().unwrap_or(Stage::Others);
            let stage = stages.entry(stage).or_insert_with(|| empty(stage));
            stage.workloads.push(workload.object());
            let running = nodes.iter().filter(|node| node.node.role != NodeRole::Files);
            stage.nodes.extend(running.map(|node| node.node.id.clone()));
        }
        stages.into_values().collect()
    }

    pub(super) fn workload(&self, wanted: &ObjectRef) -> Option<&WorkloadObject> {
        let (_, workloads) = self.analysis.all.iter().find(|(known, _)| known.name == wanted.namespace)?;
        workloads.iter().find(|workload| workload.kind == wanted.kind && workload.name == wanted.name)
    }

    /// Returns whether a pod is of a workload.
    pub fn is_of(&self, pod: &MountingPod, workload: &ObjectRef) -> bool {
        let owner = pod.made_by.as_ref().map(|(kind, name)| (kind.as_str(), name.as_str()));
        pod.namespace == workload.namespace && is_pod_of(&pod.name, owner, workload)
    }

    /// Waits until no pod of these workloads is left. Returns those that somebody has scaled up meanwhile: their pods are not waited for.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when pods stay.
    pub fn wait_until_gone(&self, workloads: &[ObjectRef]) -> Result<Vec<ObjectRef>, PlatformError> {
        let target = self.target();
        let begun = Instant::now();
        loop {
            let (mut left, mut up) = (Vec::new(), Vec::new());
            for workload in workloads {
                let pods = self.pods_of(workload, true)?;
                if is_scalable(workload) && target.workload(workload)? == WorkloadState::Running {
                    up.push(workload.clone());
                }
                left.extend(pods.into_iter().map(|pod| format!("{}/{}", workload.namespace, pod.name)));
            }
            if left.is_empty() || !up.is_empty() {
                return Ok(up);
            }
            if begun.elapsed() > GOING {
                return Err(PlatformError::Cluster {
                    what: "scaling workloads down".to_owned(),
                    problem: format!("after {} s these pods still exist: {}", GOING.as_secs(), left.join(", ")),
                    next:
                        "check whether an operator or autoscaler starts them again (K2); then run the same command again".into(),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Pods of a workload as they are now; with `going`, those too that are on their way out.
    pub(super) fn pods_of(&self, workload: &ObjectRef, going: bool) -> Result<Vec<LivePod>, PlatformError> {
        let mut out = Vec::new();
        for pod in self.pod_objects(workload)? {
            match live_pod(&pod) {
                Some(live) => out.push(live),
                None if going && pod.pointer("/metadata/deletionTimestamp").is_some() => out.push(LivePod {
                    name: objects::name_of(&pod).to_owned(),
                    host: None,
                    running: Vec::new(),
                    ready: false,
                    labels: BTreeMap::new(),
                }),
                None => {}
            }
        }
        Ok(out)
    }

    /// Pods of a workload, as the API server has them.
    pub(super) fn pod_objects(&self, workload: &ObjectRef) -> Result<Vec<Value>, PlatformError> {
        let pods = self.connection.pods(&workload.namespace)?;
        let of_it = |pod: &Value| is_pod_of(objects::name_of(pod), objects::controller(pod), workload);
        Ok(pods.into_iter().filter(of_it).collect())
    }
}

/// Returns whether a pod with this owner is of a workload.
fn is_pod_of(pod: &str, owner: Option<(&str, &str)>, workload: &ObjectRef) -> bool {
    let ObjectRef { kind, name, .. } = workload;
    match (kind.as_str(), owner) {
        ("Pod", _) => pod == name,
        (_, Some((owner_kind, owner_name))) if owner_kind == kind => owner_name == name,
        // A ReplicaSet's name is its Deployment's and a hash; so do controllers of other kinds that make ReplicaSets (Argo's Rollout).
        ("StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController", _) => false,
        (_, Some(("ReplicaSet", set))) => set.rsplit_once('-').is_some_and(|(base, _)| base == *name),
        _ => false,
    }
}

impl super::Connection {
    /// Returns whether the cluster has one machine only; `false` without the right to list them.
    pub(super) fn has_one_machine(&self) -> Result<bool, PlatformError> {
        let machines = resource("v1", "Node", None);
        let list = self.try_run(|client| {
            let machines = machines.clone();
            async move { Api::<DynamicObject>::all_with(client, &machines).list(&ListParams::default().limit(2)).await }
        });
        match list {
            Ok(list) => Ok(list.items.len() == 1),
            Err(error) if is_forbidden(&error) || is_missing(&error) => Ok(false),
            Err(error) => Err(failed("listing the cluster's machines", &error)),
        }
    }

    /// Returns every pod of a namespace.
    pub(super) fn pods(&self, namespace: &str) -> Result<Vec<Value>, PlatformError> {
        let pods = resource("v1", "Pod", None);
        let list =
            self.run(&format!("listing pods in {namespace}"), |client| {
                let pods = pods.clone();
                async move {
                    Api::<DynamicObject>::namespaced_with(client, namespace, &pods).list(&ListParams::default()).await
                }
            })?;
        Ok(list.items.into_iter().map(|pod| serde_json::to_value(pod).unwrap_or_default()).collect())
    }
}
