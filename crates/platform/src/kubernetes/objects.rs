//! The objects of namespaces: their kinds, how they are listed, and which of their fields a new cluster needs (K6).

use std::collections::BTreeMap;

use base64::Engine;
use fabkeep_network::{Finding, Rule};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use serde_json::Value;

use super::clean::clean;
use super::connection::{Connection, is_forbidden, is_missing};
use super::served::{self, ServedKind};
use crate::{Declaration, PlatformError};

/// Objects asked for at a time.
const PAGE: u32 = 250;
/// Lists asked for at the same time.
const REQUESTS: usize = 32;
/// What fabkeep puts on everything that it makes in a cluster.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "fabkeep");
/// The run that made it.
pub(crate) const RUN: &str = "fabkeep.io/run";
/// How many replicas a workload had before it was put to sleep.
pub(crate) const REPLICAS: &str = "fabkeep.io/replicas";

/// Begins the names of the progress records of restores.
pub const RESTORE_RECORD: &str = "fabkeep-restore-";

/// Most replicas that are believed of that annotation: others can write it too.
const MAX_NOTED_REPLICAS: u32 = 100;

/// What a claim of a recovery point has of the volume that somebody made by hand for it. In a cluster no claim has it.
pub(crate) const HAND_MADE: &str = "fabkeep.io/volume";

/// Kinds of workloads that are scaled.
pub(crate) const SCALED: [&str; 4] = ["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"];

/// A kind of object: the versions that serve it, the newest first.
pub(crate) struct ObjectKind {
    pub name: &'static str,
    plural: &'static str,
    pub versions: &'static [&'static str],
    /// Without it no capture is whole.
    needed: bool,
}

const fn kind(name: &'static str, plural: &'static str, versions: &'static [&'static str], needed: bool) -> ObjectKind {
    ObjectKind { name, plural, versions, needed }
}

/// Kinds in the order in which a new cluster wants them.
pub(crate) const KINDS: &[ObjectKind] = &[
    kind("Secret", "secrets", &["v1"], true),
    kind("ConfigMap", "configmaps", &["v1"], true),
    kind("ServiceAccount", "serviceaccounts", &["v1"], false),
    kind("Role", "roles", &["rbac.authorization.k8s.io/v1"], false),
    kind("RoleBinding", "rolebindings", &["rbac.authorization.k8s.io/v1"], false),
    kind("LimitRange", "limitranges", &["v1"], false),
    kind("ResourceQuota", "resourcequotas", &["v1"], false),
    kind("NetworkPolicy", "networkpolicies", &["networking.k8s.io/v1"], false),
    kind("PersistentVolumeClaim", "persistentvolumeclaims", &["v1"], true),
    kind("Service", "services", &["v1"], true),
    kind("Endpoints", "endpoints", &["v1"], false),
    kind("EndpointSlice", "endpointslices", &["discovery.k8s.io/v1"], false),
    kind("Ingress", "ingresses", &["networking.k8s.io/v1"], false),
    kind("PodDisruptionBudget", "poddisruptionbudgets", &["policy/v1"], false),
    kind("HorizontalPodAutoscaler", "horizontalpodautoscalers", &["autoscaling/v2", "autoscaling/v1"], false),
    kind("StatefulSet", "statefulsets", &["apps/v1"], true),
    kind("Deployment", "deployments", &["apps/v1"], true),
    kind("DaemonSet", "daemonsets", &["apps/v1"], false),
    kind("CronJob", "cronjobs", &["batch/v1"], false),
    kind("ReplicaSet", "replicasets", &["apps/v1"], false),
    kind("ReplicationController", "replicationcontrollers", &["v1"], false),
    kind("Pod", "pods", &["v1"], true),
];

/// API groups of Fabric's operators and of cert-manager: their custom resources declare nodes and certificates (K1, K2).
pub(crate) const OPERATOR_GROUPS: [&str; 3] = ["hlf.kungfusoftware.es", "ibp.com", "cert-manager.io"];
/// Custom resources that are only a step on the way to another.
pub(crate) const PASSING_KINDS: [&str; 3] = ["CertificateRequest", "Order", "Challenge"];

/// One namespace and its objects, by kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Namespace {
    pub name: String,
    pub object: Value,
    pub objects: BTreeMap<String, Vec<Value>>,
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path)?.as_str()
}

pub(crate) fn name_of(object: &Value) -> &str {
    text(object, "/metadata/name").unwrap_or_default()
}

pub(crate) fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(name)?.as_str()
}

pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Returns how many replicas fabkeep noted on a workload that it scaled to 0. On one that wants pods the annotation says nothing.
pub(crate) fn noted_replicas(object: &Value) -> Option<u32> {
    if object.pointer("/spec/replicas").and_then(Value::as_u64) != Some(0) {
        return None;
    }
    annotation(object, REPLICAS)?.parse().ok().filter(|replicas| *replicas <= MAX_NOTED_REPLICAS)
}

/// Returns the controller that owns an object: kind and name.
pub(crate) fn controller(object: &Value) -> Option<(&str, &str)> {
    controller_with_version(object).map(|(_, kind, name)| (kind, name))
}

/// Returns the controller that owns an object: API version, kind and name.
pub(crate) fn controller_with_version(object: &Value) -> Option<(&str, &str, &str)> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true))).or(owners.first())?;
    Some((text(owner, "/apiVersion").unwrap_or_default(), text(owner, "/kind")?, text(owner, "/name")?))
}

impl Namespace {
    pub fn of_kind(&self, kind: &str) -> &[Value] {
        self.objects.get(kind).map_or(&[], Vec::as_slice)
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of_kind(kind).iter().find(|object| name_of(object) == name)
    }

    /// Returns a ConfigMap's values by key.
    pub fn config_map(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let Some(object) = self.find("ConfigMap", name) else { return BTreeMap::new() };
        let mut out: BTreeMap<String, Vec<u8>> = strings(object, "data").map(|(k, v)| (k, v.into_bytes())).collect();
        out.extend(strings(object, "binaryData").filter_map(|(k, v)| Some((k, decode(&v)?))));
        out
    }

    /// Returns a Secret's values by key.
    pub fn secret(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let Some(object) = self.find("Secret", name) else { return BTreeMap::new() };
        strings(object, "data").filter_map(|(k, v)| Some((k, decode(&v)?))).collect()
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn strings<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (String, String)> + 'a {
    let map = object.get(field).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
}

/// Returns the API's name of a version and kind.
pub(crate) fn resource(api_version: &str, kind: &str, plural: Option<&str>) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let known = plural.or_else(|| KINDS.iter().find(|known| known.name == kind).map(|known| known.plural));
    match known {
        Some(plural) => ApiResource::from_gvk_with_plural(&gvk, plural),
        None => ApiResource::from_gvk(&gvk),
    }
}

async fn list_all(client: Client, namespace: String, resource: ApiResource) -> kube::Result<Vec<DynamicObject>> {
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
    let mut parameters = ListParams::default().limit(PAGE);
    let mut out = Vec::new();
    let mut restarts = 0;
    loop {
        let page = match api.list(&parameters).await {
            // The list is too old to be gone on with: it begins anew, in the end without pages.
            Err(kube::Error::Api(status)) if status.code == 410 && parameters.continue_token.is_some() => {
                restarts += 1;
                out.clear();
                parameters = if restarts < 3 { ListParams::default().limit(PAGE) } else { ListParams::default() };
                continue;
            }
            page => page?,
        };
        out.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(out),
        }
    }
}

fn whole(object: DynamicObject, api_version: &str, kind: &str) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    // Lists leave these out of their items.
    value["apiVersion"] = api_version.into();
    value["kind"] = kind.into();
    value
}

/// Reads the objects of namespaces, operators' custom resources among them. `listed`: they are those of a list, and one that was deleted
/// since then is left out.
pub(crate) fn read_namespaces(
    connection: &Connection,
    names: &[String],
    listed: bool,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Namespace>, PlatformError> {
    let operators = connection.served()?.of_operators();
    let custom: Vec<_> = operators.map(|known| (known.resource(), known.kind.clone())).collect();
    let mut out = Vec::new();
    for name in names {
        let namespaces = resource("v1", "Namespace", Some("namespaces"));
        let asked = connection.try_run(|client| {
            let namespaces = namespaces.clone();
            async move { Api::<DynamicObject>::all_with(client, &namespaces).get(name).await }
        });
        let object = match asked {
            Ok(object) => whole(object, "v1", "Namespace"),
            // A Role cannot give the right to read the namespace itself: its labels are not needed for life.
            Err(error) if is_forbidden(&error) => {
                serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            }
            Err(error) if is_missing(&error) && listed => continue,
            Err(error) => return Err(super::connection::failed(&format!("reading namespace {name}"), &error)),
        };
        let namespace = Namespace { name: name.clone(), object, objects: BTreeMap::new() };
        out.push(read_namespace(connection, namespace, &custom, findings)?);
    }
    Ok(out)
}

/// Reads a namespace: everything of [`KINDS`] and of the operators' custom resources, which say what its nodes are.
fn read_namespace(
    connection: &Connection,
    mut namespace: Namespace,
    custom: &[(ApiResource, String)],
    findings: &mut Vec<Finding>,
) -> Result<Namespace, PlatformError> {
    let name = &namespace.name.clone();
    let mut hidden = Vec::new();
    // All kinds at once: a request waits more than it works.
    let kinds: Vec<(ApiResource, &str, bool)> =
        KINDS.iter().map(|kind| (resource(kind.versions[0], kind.name, None), kind.name, kind.needed)).collect();
    let custom = custom.iter().map(|(resource, kind)| (resource.clone(), kind.as_str(), false));
    let asked: Vec<(ApiResource, &str, bool)> = kinds.into_iter().chain(custom).collect();
    let lists = connection.wait(async {
        let requests =
            asked.iter().map(|(resource, _, _)| list_all(connection.client(), name.to_owned(), resource.clone()));
        futures_util::future::join_all(requests).await
    });
    for ((resource, kind, needed), list) in asked.into_iter().zip(lists) {
        let known = KINDS.iter().find(|known| known.name == kind);
        let older = known.map_or(&[][..], |known| &known.versions[1..]);
        let (list, api_version) = match list {
            Ok(list) => (Ok(list), resource.api_version.clone()),
            Err(error) if is_missing(&error) && !older.is_empty() => {
                let older_resource = self::resource(older[0], kind, None);
                let again = connection.try_run(|client| list_all(client, name.to_owned(), older_resource.clone()));
                (again, older[0].to_owned())
            }
            Err(error) if super::connection::is_passing(&error) => {
                let again = connection.try_run(|client| list_all(client, name.to_owned(), resource.clone()));
                (again, resource.api_version.clone())
            }
            Err(error) => (Err(error), resource.api_version.clone()),
        };
        match list {
            Ok(list) => {
                let objects: Vec<Value> = list
                    .into_iter()
                    .map(|object| whole(object, &api_version, kind))
                    .filter(|object| !is_ours(kind, object))
                    .collect();
                if !objects.is_empty() {
                    namespace.objects.entry(kind.to_owned()).or_default().extend(objects);
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) if is_forbidden(&error) && !needed => hidden.push(kind.to_owned()),
            Err(error) => {
                return Err(super::connection::failed(&format!("listing {kind} in namespace {name}"), &error));
            }
        }
    }
    let by_hand = namespace.of_kind("Service").iter().any(|service| is_served_by_hand(&namespace, name_of(service)));
    for kind in hidden.iter().filter(|kind| by_hand || !matches!(kind.as_str(), "Endpoints" | "EndpointSlice")) {
        findings.push(Finding::warning(
            Rule::Declared,
            format!("{kind} in {name}"),
            "fabkeep has no right to list these: they are not in the recovery point",
            "give it the rights of its Role (docs/kubernetes.md), or back these objects up separately",
        ));
    }
    Ok(namespace)
}

/// Returns whether fabkeep made an object for a backup or a restore. Its label alone does not tell: tools put it on what is the user's.
pub(crate) fn is_ours(kind: &str, object: &Value) -> bool {
    let name = name_of(object);
    let component = label(object, "app.kubernetes.io/component");
    let holds = |key: &str| object.get("data").is_some_and(|data| data.get(key).is_some());
    label(object, MANAGED_BY.0) == Some(MANAGED_BY.1)
        && match kind {
            "Pod" => super::volume::helper::run_of(object).is_some(),
            "PersistentVolumeClaim" => {
                super::snapshots::run_of(name).is_some_and(|run| label(object, RUN) == Some(run))
            }
            "ConfigMap" => {
                name == super::window::RECORD || (component == Some("restore") && holds(super::progress::KEY))
            }
            "NetworkPolicy" => name.starts_with(super::window::FENCE),
            _ => false,
        }
}

/// Returns whether somebody says by hand where a Service leads: it selects no pods.
fn is_served_by_hand(namespace: &Namespace, service: &str) -> bool {
    let of_cluster = namespace.name == "default" && service == "kubernetes";
    namespace.find("Service", service).filter(|_| !of_cluster).is_some_and(|service| {
        let selector = service.pointer("/spec/selector").and_then(Value::as_object);
        selector.is_none_or(serde_json::Map::is_empty) && text(service, "/spec/type") != Some("ExternalName")
    })
}

/// Returns whether somebody wrote these addresses of a Service, and no controller.
fn are_addresses_by_hand(namespace: &Namespace, kind: &str, object: &Value) -> bool {
    let service = match kind {
        "Endpoints" => Some(name_of(object)),
        _ => label(object, "kubernetes.io/service-name"),
    };
    let by_controller = label(object, "endpointslice.kubernetes.io/managed-by")
        .is_some_and(|by| by.ends_with("controller.k8s.io"))
        || annotation(object, "control-plane.alpha.kubernetes.io/leader").is_some();
    !by_controller
        && controller(object).is_none()
        && service.is_some_and(|service| is_served_by_hand(namespace, service))
}

pub(crate) fn is_operator_group(group: &str) -> bool {
    OPERATOR_GROUPS.iter().any(|known| group == *known || group.ends_with(&format!(".{known}")))
}

/// Returns whether a group's kinds are Kubernetes' own: of those only [`KINDS`] declare a network. Whether a custom kind belongs to a
/// namespace, the cluster reports.
pub(crate) fn is_of_kubernetes(group: &str) -> bool {
    group.ends_with(".k8s.io") && group != "gateway.networking.k8s.io"
}

/// What was found of kinds beside [`KINDS`] and the operators'.
#[derive(Debug, Default)]
pub(crate) struct Others {
    pub declarations: Vec<Declaration>,
    pub findings: Vec<Finding>,
}

/// Returns every other object that declares something in these namespaces, of whatever kind the API server serves.
pub(crate) fn read_others(connection: &Connection, namespaces: &[&str]) -> Result<Others, PlatformError> {
    let served = connection.served()?;
    let kinds: Vec<&ServedKind> = served.of_others().collect();
    let asked: Vec<(&str, &ServedKind)> =
        namespaces.iter().flat_map(|name| kinds.iter().map(move |kind| (*name, *kind))).collect();
    let mut out = Others::default();
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut hidden: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for batch in asked.chunks(REQUESTS) {
        let lists = connection.wait(async {
            let requests =
                batch.iter().map(|(name, kind)| list_all(connection.client(), (*name).to_owned(), kind.resource()));
            futures_util::future::join_all(requests).await
        });
        for ((name, kind), list) in batch.iter().zip(lists) {
            let list = match list {
                Err(error) if super::connection::is_passing(&error) => {
                    connection.try_run(|client| list_all(client, (*name).to_owned(), kind.resource()))
                }
                other => other,
            };
            match list {
                Ok(list) => {
                    let declared = list
                        .into_iter()
                        .map(|object| whole(object, &kind.api_version, &kind.kind))
                        .filter(|object| controller(object).is_none());
                    for object in declared {
                        *counts.entry((&kind.api_version, &kind.kind)).or_default() += 1;
                        out.declarations.push(declaration(name, &kind.kind, &object));
                    }
                }
                Err(error) if is_missing(&error) => {}
                Err(error) if is_forbidden(&error) => hidden.entry(name).or_default().push(&kind.plural),
                Err(error) => out.findings.push(Finding::warning(
                    Rule::Declared,
                    format!("{} in {name}", kind.plural),
                    format!("they could not be listed and are not in the recovery point: {error}"),
                    "check what serves this API (kubectl api-resources), and back up again",
                )),
            }
        }
    }
    out.findings.extend(hidden.into_iter().map(|(name, kinds)| {
        Finding::note(
            Rule::Declared,
            format!("namespace {name}"),
            format!("fabkeep has no right to list {}: it is unknown whether there are any", kinds.join(", ")),
            "give it the rights of its Role (docs/kubernetes.md), if objects of these kinds belong to the network",
        )
    }));
    out.findings.extend(served.unanswered_declaring().map(|version| {
        Finding::warning(
            Rule::Declared,
            version,
            "this API does not answer: it is unknown whether it has objects of the network",
            "check what serves it (kubectl get apiservices), and back up again",
        )
    }));
    let count = |kind: &&ServedKind| counts.get(&(kind.api_version.as_str(), kind.kind.as_str())).copied().unwrap_or(0);
    let definitions = served::definitions(kinds.iter().map(|kind| (*kind, count(kind))));
    out.findings.extend(definitions.into_iter().map(|(name, (version, count))| {
        Finding::note(
            Rule::Declared,
            name,
            format!("{count} objects of this custom kind are in the recovery point, in version {version}"),
            "in a new cluster install its definition (CRD) first: a restore reports kinds that the cluster does not serve and creates the rest",
        )
    }));
    Ok(out)
}

/// Returns whether an object is made by something else in the cluster, so that a new cluster makes it too.
fn is_made_by_others(kind: &str, object: &Value) -> bool {
    let name = name_of(object);
    match kind {
        "Secret" => text(object, "/type") == Some("kubernetes.io/service-account-token"),
        "ConfigMap" => matches!(name, "kube-root-ca.crt" | "istio-ca-root-cert" | "openshift-service-ca.crt"),
        "Pod" | "ReplicaSet" | "ReplicationController" => controller(object).is_some(),
        "RoleBinding" | "Role" => name.starts_with("system:"),
        _ => false,
    }
}

/// Returns an object with only the fields that a new cluster needs.
fn declaration(namespace: &str, kind: &str, object: &Value) -> Declaration {
    let cleaned = clean(kind, object);
    Declaration {
        namespace: if kind == "Namespace" { String::new() } else { namespace.to_owned() },
        api_version: text(&cleaned, "/apiVersion").unwrap_or("v1").to_owned(),
        kind: kind.to_owned(),
        name: name_of(&cleaned).to_owned(),
        object: cleaned,
    }
}

/// Returns the namespace's objects as a new cluster needs them: the namespace first, then in the order of [`KINDS`], custom resources last.
pub(crate) fn declarations(namespace: &Namespace) -> Vec<Declaration> {
    let mut out = Vec::new();
    let mut add = |kind: &str, object: &Value| out.push(declaration(&namespace.name, kind, object));
    add("Namespace", &namespace.object);
    for kind in KINDS {
        let is_kept = |object: &&Value| match kind.name {
            "Endpoints" | "EndpointSlice" => are_addresses_by_hand(namespace, kind.name, object),
            name => !is_made_by_others(name, object),
        };
        namespace.of_kind(kind.name).iter().filter(is_kept).for_each(|object| add(kind.name, object));
    }
    for (kind, objects) in &namespace.objects {
        if !KINDS.iter().any(|known| known.name == kind) {
            objects.iter().for_each(|object| add(kind, object));
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_that_somebody_wrote_are_declared_and_those_of_controllers_are_not() {
        let named = |kind: &str, name: &str, more: Value| {
            let mut object = json!({"kind": kind, "metadata": {"name": name}});
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let slice = |name: &str, service: &str, by: Option<&str>| {
            let mut labels = json!({"kubernetes.io/service-name": service});
            if let Some(by) = by {
                labels["endpointslice.kubernetes.io/managed-by"] = by.into();
            }
            json!({"kind": "EndpointSlice", "metadata": {"name": name, "labels": labels}})
        };
        let (mirror, own) = ("endpointslicemirroring-controller.k8s.io", "endpointslice-controller.k8s.io");
        let mut namespace = Namespace {
            name: "org1".to_owned(),
            object: json!({"metadata": {"name": "org1"}}),
            ..Namespace::default()
        };
        let services = vec![
            named("Service", "outside", json!({"spec": {"ports": []}})),
            named("Service", "peer", json!({"spec": {"selector": {"app": "peer"}}})),
            named("Service", "other", json!({"spec": {"type": "ExternalName"}})),
        ];
        let leader =
            json!({"metadata": {"name": "outside", "annotations": {"control-plane.alpha.kubernetes.io/leader": "x"}}});
        let endpoints = ["outside", "peer", "other", "nobody"].map(|name| named("Endpoints", name, json!({})));
        let slices = vec![
            slice("by-hand", "outside", None),
            slice("by-staff", "outside", Some("staff")),
            slice("mirrored", "outside", Some(mirror)),
            slice("peer-x", "peer", Some(own)),
        ];
        for (kind, objects) in [("Service", services), ("Endpoints", endpoints.to_vec()), ("EndpointSlice", slices)] {
            namespace.objects.insert(kind.to_owned(), objects);
        }
        let declared = |namespace: &Namespace| -> Vec<String> {
            let all = declarations(namespace).into_iter();
            all.filter(|known| known.kind.starts_with("Endpoint"))
                .map(|known| format!("{} {}", known.kind, known.name))
                .collect()
        };
        assert_eq!(declared(&namespace), ["Endpoints outside", "EndpointSlice by-hand", "EndpointSlice by-staff"]);
        namespace.objects.insert("Endpoints".to_owned(), vec![leader]);
        assert_eq!(declared(&namespace).len(), 2);
    }
}
