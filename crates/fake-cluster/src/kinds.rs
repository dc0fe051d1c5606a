//! The kinds of objects that the cluster serves, and the documents by which a client discovers them.

use serde_json::{Value, json};

/// A kind of object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Empty for the core API.
    pub group: String,
    /// The versions that serve it, the preferred one first.
    pub versions: Vec<String>,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    /// Subresources by name, as `scale`.
    pub subresources: Vec<String>,
    /// What may be done with it.
    pub verbs: Vec<&'static str>,
}

const ALL_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn kind(api: &str, name: &str, plural: &str, namespaced: bool, subresources: &[&str]) -> Kind {
    let (group, versions) = api.split_once('/').unwrap_or(("", api));
    Kind {
        group: group.to_owned(),
        versions: versions.split(',').map(str::to_owned).collect(),
        kind: name.to_owned(),
        plural: plural.to_owned(),
        namespaced,
        subresources: subresources.iter().map(|&name| name.to_owned()).collect(),
        verbs: ALL_VERBS.to_vec(),
    }
}

/// Returns what every cluster serves.
pub(crate) fn built_in() -> Vec<Kind> {
    let scaled = &["scale", "status"];
    let status = &["status"];
    vec![
        kind("v1", "Namespace", "namespaces", false, status),
        kind("v1", "Node", "nodes", false, status),
        kind("v1", "PersistentVolume", "persistentvolumes", false, status),
        kind("v1", "Secret", "secrets", true, &[]),
        kind("v1", "ConfigMap", "configmaps", true, &[]),
        kind("v1", "ServiceAccount", "serviceaccounts", true, &[]),
        kind("v1", "LimitRange", "limitranges", true, &[]),
        kind("v1", "ResourceQuota", "resourcequotas", true, status),
        kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", true, status),
        kind("v1", "Service", "services", true, status),
        kind("v1", "Endpoints", "endpoints", true, &[]),
        kind("v1", "Event", "events", true, &[]),
        kind("v1", "Pod", "pods", true, &["exec", "log", "portforward", "status", "eviction"]),
        kind("v1", "PodTemplate", "podtemplates", true, &[]),
        kind("v1", "ReplicationController", "replicationcontrollers", true, scaled),
        kind("apps/v1", "StatefulSet", "statefulsets", true, scaled),
        kind("apps/v1", "Deployment", "deployments", true, scaled),
        kind("apps/v1", "DaemonSet", "daemonsets", true, status),
        kind("apps/v1", "ReplicaSet", "replicasets", true, scaled),
        kind("apps/v1", "ControllerRevision", "controllerrevisions", true, &[]),
        kind("batch/v1", "Job", "jobs", true, status),
        kind("batch/v1", "CronJob", "cronjobs", true, status),
        kind("autoscaling/v2,v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true, status),
        kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true, status),
        kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true, &[]),
        kind("networking.k8s.io/v1", "Ingress", "ingresses", true, status),
        kind("networking.k8s.io/v1", "IngressClass", "ingressclasses", false, &[]),
        kind("rbac.authorization.k8s.io/v1", "Role", "roles", true, &[]),
        kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true, &[]),
        kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false, &[]),
        kind("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false, &[]),
        kind("storage.k8s.io/v1", "StorageClass", "storageclasses", false, &[]),
        kind("storage.k8s.io/v1", "CSIDriver", "csidrivers", false, &[]),
        kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", true, &[]),
        kind("coordination.k8s.io/v1", "Lease", "leases", true, &[]),
        kind("events.k8s.io/v1", "Event", "events", true, &[]),
        kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false, status),
        kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", false, &[]),
    ]
}

/// Returns the kind that a CustomResourceDefinition declares.
pub(crate) fn of_definition(definition: &Value) -> Option<Kind> {
    let spec = definition.get("spec")?;
    let served = |version: &&Value| version.get("served").and_then(Value::as_bool).unwrap_or(true);
    let versions: Vec<&Value> = spec.get("versions")?.as_array()?.iter().filter(served).collect();
    let mut names: Vec<String> =
        versions.iter().filter_map(|version| Some(version.get("name")?.as_str()?.to_owned())).collect();
    // The API server prefers the version that sounds most stable.
    names.sort_by_key(|name| (name.contains("alpha"), name.contains("beta"), std::cmp::Reverse(name.clone())));
    Some(Kind {
        group: spec.get("group")?.as_str()?.to_owned(),
        versions: names,
        kind: spec.pointer("/names/kind")?.as_str()?.to_owned(),
        plural: spec.pointer("/names/plural")?.as_str()?.to_owned(),
        namespaced: spec.get("scope").and_then(Value::as_str) != Some("Cluster"),
        subresources: vec!["status".to_owned()],
        verbs: ALL_VERBS.to_vec(),
    })
}

impl Kind {
    /// `v1` or `apps/v1`, in the preferred version.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.versions[0])
    }
}

pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Returns the document at `/apis`.
pub(crate) fn groups(kinds: &[Kind]) -> Value {
    let mut names: Vec<&str> = kinds.iter().map(|kind| kind.group.as_str()).filter(|group| !group.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    let groups: Vec<Value> = names.into_iter().map(|name| group(kinds, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn versions<'k>(kinds: &'k [Kind], group: &str) -> Vec<&'k str> {
    let mut out: Vec<&str> = Vec::new();
    for version in kinds.iter().filter(|kind| kind.group == group).flat_map(|kind| &kind.versions) {
        if !out.contains(&version.as_str()) {
            out.push(version);
        }
    }
    out
}

/// Returns the document at `/apis/GROUP`.
pub(crate) fn group(kinds: &[Kind], name: &str) -> Value {
    let entry = |version: &str| json!({"groupVersion": api_version(name, version), "version": version});
    let all = versions(kinds, name);
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name,
        "versions": all.iter().map(|version| entry(version)).collect::<Vec<_>>(),
        "preferredVersion": all.first().map(|version| entry(version)),
    })
}

/// Returns the document at `/api/v1` or `/apis/GROUP/VERSION`; `None` when there is no such version.
pub(crate) fn resources(kinds: &[Kind], group: &str, version: &str) -> Option<Value> {
    let mut out = Vec::new();
    let of_it = |kind: &&Kind| kind.group == group && kind.versions.iter().any(|known| known == version);
    for kind in kinds.iter().filter(of_it) {
        out.push(json!({
            "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": kind.verbs,
        }));
        for name in &kind.subresources {
            let verbs: &[&str] = match name.as_str() {
                "exec" | "portforward" => &["create", "get"],
                "log" => &["get"],
                "eviction" => &["create"],
                _ => &["get", "patch", "update"],
            };
            let of = match name.as_str() {
                "scale" => "Scale",
                "eviction" => "Eviction",
                "exec" => "PodExecOptions",
                "portforward" => "PodPortForwardOptions",
                _ => &kind.kind,
            };
            out.push(json!({
                "name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "kind": of, "verbs": verbs,
            }));
        }
    }
    (!out.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": out,
        })
    })
}
