//! The workloads of a namespace: what runs pods, with which template, and which pods exist.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_network::{Finding, Rule, Workload};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::Value;

use super::recognise::role_of_custom_kind;
use crate::ObjectRef;
use crate::kubernetes::objects::{
    Namespace, controller, controller_with_version, is_operator_group, label, name_of, noted_replicas, text,
};
use crate::kubernetes::served::group_of;

/// Kinds of controllers whose template is read.
const KINDS: [&str; 5] = ["StatefulSet", "Deployment", "DaemonSet", "ReplicaSet", "ReplicationController"];

/// Most pods of a StatefulSet that are looked at: each may be a node, and others can write any number.
const MAX_REPLICAS: u32 = 1_000;

/// A pod that exists.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LivePod {
    pub name: String,
    /// The Kubernetes node that it runs on.
    pub host: Option<String>,
    /// Containers that run.
    pub running: Vec<String>,
    pub ready: bool,
    pub labels: BTreeMap<String, String>,
}

/// A workload.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadObject {
    pub namespace: String,
    pub kind: String,
    pub name: String,
    pub replicas: u32,
    pub spec: PodSpec,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Its only pod, where pods of one controller are nodes of their own.
    pub instance: Option<String>,
    /// A StatefulSet's volumes by template: volume name.
    pub templates: Vec<String>,
    pub pods: Vec<LivePod>,
    /// The operator's custom resource that it belongs to: API version, kind, name.
    pub custom: Option<(String, String, String)>,
}

/// A pod that a workload runs or would run.
pub(crate) struct Instance {
    /// The name of the node.
    pub name: String,
    /// Which of a StatefulSet's pods.
    pub ordinal: Option<u32>,
    /// The StatefulSet's claims: name of the volume, name of the claim.
    pub claims: Vec<(String, String)>,
}

/// The containers of a pod that run as long as it does: its own, and init containers that are restarted always (sidecars).
pub(crate) fn lasting_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always")))
}

impl WorkloadObject {
    pub fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    pub fn object(&self) -> ObjectRef {
        ObjectRef::new(&self.kind, &self.namespace, &self.name)
    }

    pub fn key(&self) -> (String, String, String) {
        (self.namespace.clone(), self.kind.clone(), self.instance.as_ref().unwrap_or(&self.name).clone())
    }

    /// Returns whether the names of its pods are known before they exist.
    pub fn names_its_pods(&self) -> bool {
        matches!(self.kind.as_str(), "StatefulSet" | "Pod") || self.instance.is_some()
    }

    /// Returns whether a node with this pod is one of its.
    pub fn runs(&self, node: &Workload, pod: Option<&LivePod>) -> bool {
        let same = (&self.namespace, &self.kind, &self.name) == (&node.namespace, &node.kind, &node.name);
        same && self.instance.as_ref().is_none_or(|name| pod.is_some_and(|pod| pod.name == *name))
    }

    /// Whether Kubernetes' own controllers run it, and not one that fabkeep does not know.
    pub fn is_known(&self) -> bool {
        self.kind == "Pod" || KINDS.contains(&self.kind.as_str())
    }

    /// The pods that it runs or would run.
    pub fn instances(&self, namespace: &Namespace) -> Vec<Instance> {
        if let Some(name) = &self.instance {
            return vec![Instance { name: name.clone(), ordinal: ordinal(name, &self.name), claims: Vec::new() }];
        }
        if self.kind != "StatefulSet" {
            return vec![Instance { name: self.name.clone(), ordinal: None, claims: Vec::new() }];
        }
        let object = namespace.find("StatefulSet", &self.name);
        let first = object.and_then(|object| object.pointer("/spec/ordinals/start")?.as_u64()).unwrap_or(0);
        let first = u32::try_from(first).unwrap_or(0);
        // A StatefulSet that sleeps still has its first pod's claims.
        (first..first.saturating_add(self.replicas.max(1)))
            .map(|ordinal| {
                let pod = format!("{}-{ordinal}", self.name);
                let claims = self.templates.iter().map(|volume| (volume.clone(), format!("{volume}-{pod}"))).collect();
                Instance { name: pod, ordinal: Some(ordinal), claims }
            })
            .collect()
    }

    /// The live pod of an instance.
    pub fn pod(&self, ordinal: Option<u32>) -> Option<&LivePod> {
        match ordinal.filter(|_| self.instance.is_none()) {
            Some(ordinal) => {
                let name = format!("{}-{ordinal}", self.name);
                self.pods.iter().find(|pod| pod.name == name)
            }
            None => self.pods.iter().find(|pod| pod.ready).or(self.pods.first()),
        }
    }
}

/// Which of a workload's pods one is, by its name.
pub(crate) fn ordinal(pod: &str, workload: &str) -> Option<u32> {
    pod.strip_prefix(workload)?.strip_prefix('-')?.parse().ok()
}

fn from_value<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

fn labels(object: &Value, at: &str) -> BTreeMap<String, String> {
    object.pointer(at).and_then(from_value).unwrap_or_default()
}

/// A pod as it lives; `None` while it goes.
pub(crate) fn live_pod(object: &Value) -> Option<LivePod> {
    let pod: Pod = from_value(object)?;
    let (metadata, status) = (&pod.metadata, pod.status.as_ref());
    let gone = metadata.deletion_timestamp.is_some()
        || status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    if gone {
        return None;
    }
    let statuses = || status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    // Sidecars are init containers that go on.
    let init = || status.into_iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    Some(LivePod {
        name: metadata.name.clone().unwrap_or_default(),
        host: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        running: statuses()
            .chain(init())
            .filter(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
            .map(|container| container.name.clone())
            .collect(),
        ready: statuses().count() > 0 && statuses().all(|container| container.ready),
        labels: metadata.labels.clone().unwrap_or_default(),
    })
}

/// The name of a kind of controller: with its group, where Kubernetes itself has another kind of this name.
fn kind_of_controller(api_version: &str, kind: &str) -> String {
    let group = group_of(api_version);
    if KINDS.contains(&kind) && !matches!(group, "" | "apps" | "extensions") {
        format!("{kind}.{group}")
    } else {
        kind.to_owned()
    }
}

/// What pods of one controller keep their data in: where it differs, they are nodes of their own.
fn kept_by(pod: &Value) -> BTreeSet<String> {
    let of_volume = |volume: &Value| {
        let claim = text(volume, "/persistentVolumeClaim/claimName").map(|name| format!("claim {name}"));
        let folder = || text(volume, "/hostPath/path").map(|path| format!("folder {path}"));
        let share = || {
            let server = text(volume, "/nfs/server")?;
            Some(format!("share {server}:{}", text(volume, "/nfs/path")?))
        };
        claim.or_else(folder).or_else(share)
    };
    let list = |at: &str| pod.pointer(at).and_then(Value::as_array).into_iter().flatten();
    let kept: BTreeSet<String> = list("/spec/volumes").filter_map(of_volume).collect();
    if kept.is_empty() {
        return list("/spec/containers").filter_map(|container| text(container, "/name")).map(str::to_owned).collect();
    }
    kept
}

/// The workload that a pod belongs to: kind and name.
fn workload_of_pod(namespace: &Namespace, pod: &Value) -> Option<(String, String)> {
    let (api_version, kind, name) = controller_with_version(pod)?;
    let kind = kind_of_controller(api_version, kind);
    if kind == "ReplicaSet" {
        let owner = namespace.find("ReplicaSet", name).and_then(controller);
        // Where those cannot be listed: a ReplicaSet's name is its Deployment's and a hash.
        let base = name.rsplit_once('-').map_or(name, |(base, _)| base);
        let of_deployment = || namespace.find("Deployment", base).map(|_| ("Deployment", base));
        if let Some((kind, name)) = owner.or_else(of_deployment) {
            return Some((kind.to_owned(), name.to_owned()));
        }
    }
    Some((kind, name.to_owned()))
}

/// What a workload's pods are. One that cannot be understood is reported.
fn pod_spec(object: &Value, at: &str, subject: &str, findings: &mut Vec<Finding>) -> Option<PodSpec> {
    let read = serde_json::from_value(object.pointer(at).cloned().unwrap_or_default());
    let unread = |problem: &serde_json::Error| {
        findings.push(Finding::warning(
            Rule::Recognised,
            subject,
            format!("what its pods are cannot be read ({problem}): whether it is a node, and where its data is, is not known"),
            "look whether it is one: then nothing of it is in the recovery point. Report this to fabkeep's makers, with the workload",
        ));
    };
    read.inspect_err(unread).ok()
}

/// Every workload of a namespace, pods without one included.
pub(crate) fn workloads(namespace: &Namespace, findings: &mut Vec<Finding>) -> Vec<WorkloadObject> {
    let mut by_owner: BTreeMap<(String, String), Vec<(LivePod, &Value)>> = BTreeMap::new();
    let mut out = Vec::new();
    let subject = |kind: &str, name: &str| format!("{kind} {}/{name}", namespace.name);
    let of_pod = |kind: &str, name: &str, pod: &Value, pods: Vec<LivePod>, findings: &mut Vec<Finding>| {
        Some(WorkloadObject {
            namespace: namespace.name.clone(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            replicas: u32::try_from(pods.len()).unwrap_or(1).max(1),
            spec: pod_spec(pod, "/spec", &subject(kind, name), findings)?,
            labels: labels(pod, "/metadata/labels"),
            annotations: labels(pod, "/metadata/annotations"),
            instance: None,
            templates: Vec::new(),
            pods,
            custom: None,
        })
    };
    for pod in namespace.of_kind("Pod") {
        match workload_of_pod(namespace, pod) {
            // Pods that a Kubernetes node makes of its own files have that node for a controller.
            Some((kind, _)) if kind == "Node" => {
                out.extend(of_pod("Pod", name_of(pod), pod, live_pod(pod).into_iter().collect(), findings))
            }
            Some(owner) => by_owner.entry(owner).or_default().extend(live_pod(pod).map(|live| (live, pod))),
            None => out.extend(of_pod("Pod", name_of(pod), pod, live_pod(pod).into_iter().collect(), findings)),
        }
    }
    for kind in KINDS {
        for object in namespace.of_kind(kind) {
            if matches!(kind, "ReplicaSet" | "ReplicationController") && controller(object).is_some() {
                continue;
            }
            let name = name_of(object).to_owned();
            let Some(spec) = pod_spec(object, "/spec/template/spec", &subject(kind, &name), findings) else { continue };
            // A DaemonSet has as many as there are machines for them.
            let replicas =
                ["/spec/replicas", "/status/desiredNumberScheduled"].iter().find_map(|at| object.pointer(at));
            let replicas = u32::try_from(replicas.and_then(Value::as_u64).unwrap_or(1)).unwrap_or(u32::MAX);
            let most = if kind == "StatefulSet" { MAX_REPLICAS } else { u32::MAX };
            if replicas > most {
                findings.push(Finding::warning(
                    Rule::Recognised,
                    subject(kind, &name),
                    format!("it requests {replicas} replicas: only the first {MAX_REPLICAS} are looked at"),
                    "correct its replicas",
                ));
            }
            let templates = object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
            out.push(WorkloadObject {
                namespace: namespace.name.clone(),
                kind: kind.to_owned(),
                pods: by_owner
                    .remove(&(kind.to_owned(), name.clone()))
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(live, _)| live)
                    .collect(),
                custom: custom_of(namespace, object),
                name,
                replicas: noted_replicas(object).unwrap_or(replicas).min(most),
                spec,
                labels: labels(object, "/spec/template/metadata/labels"),
                annotations: labels(object, "/spec/template/metadata/annotations"),
                instance: None,
                templates: templates.into_iter().flatten().map(|template| name_of(template).to_owned()).collect(),
            });
        }
    }
    // What controllers of other kinds run: each pod that has a number has data of its own, and so have those whose volumes differ; the
    // others are pods of one node.
    for ((kind, name), pods) in by_owner.into_iter().filter(|((kind, _), _)| kind != "Job") {
        let (numbered, others): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|(live, _)| ordinal(&live.name, &name).is_some());
        let apart =
            |instance: String, workload: WorkloadObject| WorkloadObject { instance: Some(instance), ..workload };
        for (live, pod) in numbered {
            let instance = live.name.clone();
            out.extend(of_pod(&kind, &name, pod, vec![live], findings).map(|known| apart(instance, known)));
        }
        let mut alike: BTreeMap<BTreeSet<String>, Vec<(LivePod, &Value)>> = BTreeMap::new();
        for (live, pod) in others {
            alike.entry(kept_by(pod)).or_default().push((live, pod));
        }
        let several = alike.len() > 1;
        for mut pods in alike.into_values() {
            pods.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
            let Some((instance, pod)) = pods.first().map(|(live, pod)| (live.name.clone(), *pod)) else { continue };
            let pods = pods.into_iter().map(|(live, _)| live).collect();
            let workload = of_pod(&kind, &name, pod, pods, findings);
            out.extend(workload.map(|known| if several { apart(instance, known) } else { known }));
        }
    }
    out.sort_by(|a, b| (&a.name, &a.kind, &a.instance).cmp(&(&b.name, &b.kind, &b.instance)));
    out
}

/// The operator's custom resource that a workload belongs to: its owner, else the one that has its name or that of its release; one that
/// makes a node before others, such as identities.
fn custom_of(namespace: &Namespace, object: &Value) -> Option<(String, String, String)> {
    let release = ["release", "app.kubernetes.io/instance"].into_iter().filter_map(|name| label(object, name));
    let names: Vec<&str> = release.chain([name_of(object)]).collect();
    let owner = controller(object);
    let mut best: Option<(u8, (String, String, String))> = None;
    for (kind, objects) in &namespace.objects {
        for custom in objects {
            let api = text(custom, "/apiVersion").unwrap_or_default();
            let (group, name) = (group_of(api), name_of(custom));
            if !is_operator_group(group) || group == "cert-manager.io" {
                continue;
            }
            let rank = match (role_of_custom_kind(kind).is_some(), name == name_of(object)) {
                _ if owner == Some((kind, name)) => 4,
                _ if !names.contains(&name) => continue,
                (true, true) => 3,
                (true, false) => 2,
                (false, _) => 1,
            };
            if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                best = Some((rank, (api.to_owned(), kind.clone(), name.to_owned())));
            }
        }
    }
    best.map(|(_, custom)| custom)
}

/// The workloads that a host name in the cluster leads to, from a namespace, and which of their pods: by the Service of this name and its
/// selector, or by the name that a pod has behind its Service.
pub(crate) fn behind<'a>(
    all: &'a [(Namespace, Vec<WorkloadObject>)],
    from: &str,
    host: &str,
) -> Vec<(&'a WorkloadObject, Option<u32>)> {
    let parts: Vec<&str> = host.split('.').collect();
    let namespace = |at: usize| {
        let name = parts.get(at).copied().unwrap_or(from);
        all.iter().find(|(known, _)| known.name == name)
    };
    let by_service: Vec<_> = namespace(1).into_iter().flat_map(|known| of_service(known, parts[0])).collect();
    if !by_service.is_empty() {
        return by_service.into_iter().map(|workload| (workload, None)).collect();
    }
    let (Some(known), [pod, service, ..]) = (namespace(2), parts.as_slice()) else { return Vec::new() };
    let selected = of_service(known, service);
    let named = selected.into_iter().filter_map(|workload| match ordinal(pod, &workload.name) {
        _ if workload.instance.as_deref() == Some(*pod) => Some((workload, ordinal(pod, &workload.name))),
        _ if workload.instance.is_some() => None,
        Some(ordinal) => Some((workload, Some(ordinal))),
        None => (workload.spec.hostname.as_deref().unwrap_or(&workload.name) == *pod).then_some((workload, None)),
    });
    named.collect()
}

/// The workloads whose pods a Service selects.
fn of_service<'a>((namespace, workloads): &'a (Namespace, Vec<WorkloadObject>), name: &str) -> Vec<&'a WorkloadObject> {
    let selector = namespace.find("Service", name).map(|service| labels(service, "/spec/selector")).unwrap_or_default();
    let selects =
        |workload: &&WorkloadObject| selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value));
    if selector.is_empty() { Vec::new() } else { workloads.iter().filter(selects).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_custom_resource_that_makes_a_node_counts_before_others_of_its_name() {
        let custom = |kind: &str, name: &str| json!({"apiVersion": "hlf.kungfusoftware.es/v1alpha1", "kind": kind, "metadata": {"name": name}});
        let mut namespace = Namespace { name: "org1".to_owned(), ..Namespace::default() };
        for (kind, names) in [
            ("FabricFollowerChannel", &["org1-peer0"][..]),
            ("FabricIdentity", &["org1-peer0", "admin"]),
            ("FabricPeer", &["org1-peer0", "release", "other"]),
        ] {
            namespace.objects.insert(kind.to_owned(), names.iter().map(|name| custom(kind, name)).collect());
        }
        let of = |owner: Option<(&str, &str)>, name: &str| {
            let owners = owner.map(|(kind, name)| json!([{"kind": kind, "name": name, "controller": true}]));
            let labels = json!({"release": "release"});
            let metadata = json!({"name": name, "labels": labels, "ownerReferences": owners});
            custom_of(&namespace, &json!({"metadata": metadata})).map(|(_, kind, name)| format!("{kind} {name}"))
        };
        assert_eq!(of(Some(("FabricPeer", "other")), "org1-peer0").as_deref(), Some("FabricPeer other"));
        assert_eq!(of(Some(("FabricIdentity", "admin")), "org1-peer0").as_deref(), Some("FabricIdentity admin"));
        // What is declared has no owner.
        assert_eq!(of(None, "org1-peer0").as_deref(), Some("FabricPeer org1-peer0"));
        assert_eq!(of(None, "x").as_deref(), Some("FabricPeer release"));
        assert_eq!(of(None, "admin").as_deref(), Some("FabricPeer release"));
    }
}
