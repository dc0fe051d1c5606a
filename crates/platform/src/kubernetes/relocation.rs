//! Another place for captured objects: other namespaces, storage classes, image registries. The names by which nodes call each other are
//! part of channel configurations, packages and certificates, and cannot change: hostAliases in every pod resolve them to the Services in
//! the new namespaces, before DNS is used.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::objects::text;
use crate::Declaration;

/// How a storage class without a name is written.
const NO_CLASS: &str = "\"\"";

/// `OLD=NEW`, or `NEW` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// What is replaced; `None`: everything.
    pub from: Option<String>,
    /// What takes its place.
    pub to: String,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = match text.split_once('=') {
            // Volumes that were made by hand have no class.
            Some((from, to)) if from.trim() == NO_CLASS => (Some(""), to.trim()),
            Some((from, to)) if from.trim().is_empty() => return Err(format!("OLD=NEW, with both of them: {to}")),
            Some((from, to)) => (Some(from.trim()), to.trim()),
            None => (None, text.trim()),
        };
        if to.is_empty() || to.contains('=') {
            return Err("OLD=NEW, with both of them".to_owned());
        }
        Ok(Mapping { from: from.map(str::to_owned), to: to.to_owned() })
    }
}

/// The place to which captured objects are restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relocation {
    /// Namespaces, old and new.
    pub namespaces: BTreeMap<String, String>,
    /// Storage classes of claims.
    pub storage_classes: Vec<Mapping>,
    /// Beginnings of image names: `docker.io/hyperledger=registry.local/fabric`.
    pub registries: Vec<Mapping>,
}

/// What workloads say of old names: each a Service and the names that lead to it.
pub(crate) const OLD_NAMES: &str = "fabkeep.io/old-names";

/// A Service, and names from another place that lead to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldNames {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// The names.
    pub names: Vec<String>,
}

impl Relocation {
    /// Returns whether anything is restored to another place.
    pub fn is_asked(&self) -> bool {
        *self != Relocation::default()
    }

    /// Returns a namespace's new name.
    pub fn namespace(&self, old: &str) -> String {
        self.namespaces.get(old).cloned().unwrap_or_else(|| old.to_owned())
    }

    /// Returns a declared object as it is in the new place. `original_there`: what it was captured from is in the same cluster, and keeps
    /// what only one can have.
    pub fn declaration(&self, known: &Declaration, original_there: bool) -> Declaration {
        let mut out = known.clone();
        let moved = if known.kind == "Namespace" {
            self.namespaces.get(&known.name)
        } else {
            self.namespaces.get(&known.namespace)
        };
        if let Some(new) = moved {
            if known.kind == "Namespace" {
                out.name = new.clone();
                out.object["metadata"]["name"] = new.as_str().into();
            } else {
                out.namespace = new.clone();
                out.object["metadata"]["namespace"] = new.as_str().into();
            }
        }
        self.subjects(&mut out);
        self.claims(&mut out);
        if known.kind == "NetworkPolicy" {
            self.selectors(&mut out.object);
        }
        if let Some(spec) = pod_spec_mut(&mut out) {
            self.images(spec);
        }
        if known.kind == "Service" && moved.is_some() && original_there {
            for port in out.object.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
                port.as_object_mut().map(|port| port.remove("nodePort"));
            }
        }
        out
    }

    /// Accounts that rights are given to.
    fn subjects(&self, out: &mut Declaration) {
        if out.kind != "RoleBinding" {
            return;
        }
        for subject in out.object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            let new = text(subject, "/namespace").and_then(|old| self.namespaces.get(old));
            if let Some(new) = new.cloned() {
                subject["namespace"] = new.into();
            }
        }
    }

    fn claims(&self, out: &mut Declaration) {
        let mut specs = Vec::new();
        match out.kind.as_str() {
            "PersistentVolumeClaim" => specs.extend(out.object.get_mut("spec")),
            "StatefulSet" => {
                let templates = out.object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
                specs.extend(templates.into_iter().flatten().filter_map(|template| template.get_mut("spec")));
            }
            _ => {}
        }
        for spec in specs {
            let old = text(spec, "/storageClassName").map(str::to_owned);
            let fits = |mapping: &&Mapping| mapping.from.is_none() || mapping.from == old;
            if let Some(mapping) = self.storage_classes.iter().find(fits) {
                spec["storageClassName"] = mapping.to.as_str().into();
            }
        }
    }

    /// Policies let in namespaces by their names.
    fn selectors(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map.iter_mut() {
                    let label = matches!(key.as_str(), "kubernetes.io/metadata.name" | "name");
                    let new = inner.as_str().filter(|_| label).and_then(|old| self.namespaces.get(old)).cloned();
                    match new {
                        Some(new) => *inner = new.into(),
                        None if key == "metadata" => {}
                        None => self.selectors(inner),
                    }
                }
            }
            Value::Array(all) => all.iter_mut().for_each(|inner| self.selectors(inner)),
            _ => {}
        }
    }

    fn images(&self, spec: &mut Value) {
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(image) = text(container, "/image").map(str::to_owned) else { continue };
                if let Some(new) = self.image(&image) {
                    container["image"] = new.into();
                }
            }
        }
    }

    /// Returns an image's name in its new registry, if it gets one.
    pub fn image(&self, image: &str) -> Option<String> {
        let full = full_name(image);
        self.registries.iter().find_map(|mapping| {
            let from = mapping.from.as_deref()?;
            let rest = [image, &full].into_iter().find_map(|name| {
                let rest = name.strip_prefix(from.trim_end_matches('/'))?;
                rest.starts_with('/').then_some(rest)
            })?;
            Some(format!("{}{rest}", mapping.to.trim_end_matches('/')))
        })
    }

    /// Returns all declared objects in the new place, and the old names that workloads are given.
    pub fn declarations(&self, declared: &[Declaration], original_there: bool) -> (Vec<Declaration>, Vec<OldNames>) {
        let mut out: Vec<Declaration> = declared.iter().map(|known| self.declaration(known, original_there)).collect();
        let mut names = Vec::new();
        for known in declared.iter().filter(|known| known.kind == "Service") {
            let (old, companion) = match self.old_names(known) {
                Some(found) => found,
                None => continue,
            };
            // An earlier move may have made it.
            let is_there = |companion: &Declaration| {
                let place = (&companion.namespace, &companion.name);
                out.iter().any(|other| other.kind == "Service" && (&other.namespace, &other.name) == place)
            };
            if let Some(companion) = companion.filter(|companion| !is_there(companion)) {
                // Beside the one that it answers for: workloads come after all Services.
                let at = out.iter().position(|other| other.kind == "Service" && other.namespace == companion.namespace);
                out.insert(at.unwrap_or(0), companion);
            }
            names.push(old);
        }
        for known in &mut out {
            if known.kind != "ReplicaSet" && pod_spec_mut(known).is_some() {
                self.tell(known, &names);
            }
        }
        (out, names)
    }

    /// Notes old names on a workload; creating it makes hostAliases of them.
    fn tell(&self, known: &mut Declaration, more: &[OldNames]) {
        let mut all = old_names(&known.object);
        for old in &mut all {
            old.namespace = self.namespace(&old.namespace);
        }
        all.extend(more.iter().cloned());
        // What the workload itself says of a name stays; then what was noted first.
        let all = merged(all, own_names(known));
        if all.is_empty() {
            return;
        }
        if !known.object["metadata"]["annotations"].is_object() {
            known.object["metadata"]["annotations"] = json!({});
        }
        known.object["metadata"]["annotations"][OLD_NAMES] = json!(all).to_string().into();
    }

    /// Returns the names that led to a Service in its old namespace; for one without an address another that has one.
    fn old_names(&self, known: &Declaration) -> Option<(OldNames, Option<Declaration>)> {
        let namespace = self.namespaces.get(&known.namespace)?.clone();
        let spec = known.object.get("spec").unwrap_or(&Value::Null);
        if text(spec, "/type") == Some("ExternalName") {
            return None;
        }
        let short = format!("{}.{}", known.name, known.namespace);
        let names = vec![short.clone(), format!("{short}.svc"), format!("{short}.svc.cluster.local")];
        if text(spec, "/clusterIP") != Some("None") {
            return Some((OldNames { namespace, service: known.name.clone(), names }, None));
        }
        // Whoever made the endpoints of one without a selector knows where they are now.
        let selector = spec.get("selector")?;
        let ports = spec.get("ports").cloned().unwrap_or_default();
        let name = format!("{}-by-old-name", known.name.chars().take(51).collect::<String>());
        let companion = Declaration {
            namespace: namespace.clone(),
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: name.clone(),
            object: json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": namespace},
                // Raft and gossip call each other before they are ready.
                "spec": {"selector": selector, "ports": ports, "publishNotReadyAddresses": true},
            }),
        };
        Some((OldNames { namespace, service: name, names }, Some(companion)))
    }
}

/// Old names, each once and each Service once. `taken`: names that lead somewhere else.
fn merged(all: Vec<OldNames>, mut taken: BTreeSet<String>) -> Vec<OldNames> {
    let mut out: Vec<OldNames> = Vec::new();
    for OldNames { namespace, service, mut names } in all {
        names.retain(|name| taken.insert(name.clone()));
        if names.is_empty() {
            continue;
        }
        match out.iter_mut().find(|known| (&known.namespace, &known.service) == (&namespace, &service)) {
            Some(known) => known.names.append(&mut names),
            None => out.push(OldNames { namespace, service, names }),
        }
    }
    out
}

/// Docker's short names.
fn full_name(image: &str) -> String {
    let host = image.split_once('/').map_or("", |(host, _)| host);
    if host.contains(['.', ':']) || host == "localhost" {
        return image.to_owned();
    }
    if host.is_empty() { format!("docker.io/library/{image}") } else { format!("docker.io/{image}") }
}

/// Returns where a workload of this kind says what its pods are.
pub(super) fn spec_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some("/spec"),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template/spec")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

fn pod_spec_mut(known: &mut Declaration) -> Option<&mut Value> {
    known.object.pointer_mut(spec_of(&known.kind)?)
}

/// Names in a workload's own hostAliases.
fn own_names(known: &Declaration) -> BTreeSet<String> {
    let aliases = spec_of(&known.kind).and_then(|at| known.object.pointer(at)?.get("hostAliases")?.as_array());
    aliases
        .into_iter()
        .flatten()
        .flat_map(|alias| alias.get("hostnames").and_then(Value::as_array).into_iter().flatten())
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

/// Returns the addresses in a workload's own hostAliases, each with a name that leads there.
pub fn alias_addresses(known: &Declaration) -> Vec<(String, String)> {
    let aliases = spec_of(&known.kind).and_then(|at| known.object.pointer(at)?.get("hostAliases")?.as_array());
    aliases
        .into_iter()
        .flatten()
        .filter_map(|alias| {
            let name = alias.get("hostnames")?.as_array()?.first()?.as_str()?;
            Some((text(alias, "/ip")?.to_owned(), name.to_owned()))
        })
        .collect()
}

/// Returns whether a workload has hostAliases of its own: addresses of the place that it was captured in.
pub fn has_own_aliases(known: &Declaration) -> bool {
    !own_names(known).is_empty()
}

/// Old names that are noted on a workload, by which it reaches Services since it was moved.
pub fn old_names(object: &Value) -> Vec<OldNames> {
    let text = object.pointer("/metadata/annotations").and_then(|all| all.get(OLD_NAMES)).and_then(Value::as_str);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Takes away what is noted of old names on a workload, but for what is kept.
pub fn keep_old_names(object: &mut Value, keep: &dyn Fn(&OldNames) -> bool) {
    let all = old_names(object);
    let kept: Vec<&OldNames> = all.iter().filter(|old| keep(old)).collect();
    if kept.len() == all.len() {
        return;
    }
    let Some(notes) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    if kept.is_empty() {
        notes.remove(OLD_NAMES);
    } else {
        notes.insert(OLD_NAMES.to_owned(), json!(kept).to_string().into());
    }
}

/// Takes the hostAliases out that were made of old names: their addresses belong to one cluster.
pub(super) fn forget_addresses(kind: &str, object: &mut Value) {
    let names: BTreeSet<String> = old_names(object).into_iter().flat_map(|old| old.names).collect();
    if names.is_empty() {
        return;
    }
    let Some(spec) = spec_of(kind).and_then(|at| object.pointer_mut(at)) else { return };
    let Some(list) = spec.get_mut("hostAliases").and_then(Value::as_array_mut) else { return };
    list.retain(|alias| {
        let mut hosts =
            alias.get("hostnames").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        !hosts.all(|host| names.contains(host))
    });
    if list.is_empty() {
        spec.as_object_mut().map(|spec| spec.remove("hostAliases"));
    }
}

/// Lets a workload's pods know names by addresses, beside its own hostAliases.
pub(super) fn add_aliases(kind: &str, object: &mut Value, aliases: &[(String, Vec<String>)]) {
    let Some(spec) = spec_of(kind).and_then(|at| object.pointer_mut(at)) else { return };
    if !spec["hostAliases"].is_array() {
        spec["hostAliases"] = json!([]);
    }
    let Some(list) = spec["hostAliases"].as_array_mut() else { return };
    list.extend(aliases.iter().map(|(address, names)| json!({"ip": address, "hostnames": names})));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn declared(kind: &str, namespace: &str, name: &str, object: Value) -> Declaration {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Declaration { namespace, api_version: "v1".to_owned(), kind: kind.to_owned(), name, object }
    }

    fn to_new() -> Relocation {
        Relocation {
            namespaces: BTreeMap::from([("old".to_owned(), "new".to_owned())]),
            storage_classes: vec!["gp2=fast".parse().unwrap(), "slow".parse().unwrap()],
            registries: vec!["docker.io/hyperledger=mirror.local/fabric".parse().unwrap()],
        }
    }

    #[test]
    fn images_move_by_their_full_names_and_others_stay() {
        let to = to_new();
        for image in ["hyperledger/fabric-peer:2.5", "docker.io/hyperledger/fabric-peer:2.5"] {
            assert_eq!(to.image(image).as_deref(), Some("mirror.local/fabric/fabric-peer:2.5"));
        }
        for image in ["hyperledger2/x", "busybox", "quay.io/hyperledger/x", "docker.io/hyperledger"] {
            assert_eq!(to.image(image), None, "{image}");
        }
        assert!("a=".parse::<Mapping>().is_err() && "=a".parse::<Mapping>().is_err() && "".parse::<Mapping>().is_err());
    }

    #[test]
    fn namespaces_classes_and_accounts_move_and_what_stays_stays() {
        let to = to_new();
        let claim = json!({"metadata": {"namespace": "old"}, "spec": {"storageClassName": "gp2"}});
        let moved = to.declaration(&declared("PersistentVolumeClaim", "old", "c", claim), false);
        assert_eq!((moved.namespace.as_str(), &moved.object["metadata"]["namespace"]), ("new", &json!("new")));
        assert_eq!(moved.object["spec"]["storageClassName"], "fast");
        let set = json!({"metadata": {}, "spec": {"volumeClaimTemplates": [{"spec": {"storageClassName": "other"}}, {"spec": {}}],
            "template": {"spec": {"containers": [{"image": "hyperledger/fabric-peer"}]}}}});
        let moved = to.declaration(&declared("StatefulSet", "old", "s", set), false);
        assert_eq!(moved.object.pointer("/spec/volumeClaimTemplates/0/spec/storageClassName"), Some(&json!("slow")));
        assert_eq!(moved.object.pointer("/spec/volumeClaimTemplates/1/spec/storageClassName"), Some(&json!("slow")));
        let image = moved.object.pointer("/spec/template/spec/containers/0/image");
        assert_eq!(image, Some(&json!("mirror.local/fabric/fabric-peer")));
        let binding = json!({"metadata": {}, "subjects": [{"name": "a", "namespace": "old"}, {"name": "b", "namespace": "else"}]});
        let moved = to.declaration(&declared("RoleBinding", "old", "b", binding), false);
        assert_eq!(moved.object.pointer("/subjects/0/namespace"), Some(&json!("new")));
        assert_eq!(moved.object.pointer("/subjects/1/namespace"), Some(&json!("else")));
        let policy = json!({"metadata": {"name": "old"}, "spec": {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "old"}}}]}]}});
        let moved = to.declaration(&declared("NetworkPolicy", "old", "old", policy), false);
        let label = "/spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes.io~1metadata.name";
        assert_eq!(moved.object.pointer(label), Some(&json!("new")));
        assert_eq!(moved.object["metadata"]["name"], "old");
        let service =
            declared("Service", "old", "s", json!({"metadata": {}, "spec": {"ports": [{"nodePort": 30051}]}}));
        assert_eq!(to.declaration(&service, true).object["spec"]["ports"], json!([{}]));
        assert_eq!(to.declaration(&service, false).object["spec"]["ports"], json!([{"nodePort": 30051}]));
        let namespace = to.declaration(&declared("Namespace", "", "old", json!({"metadata": {"name": "old"}})), false);
        assert_eq!((namespace.name.as_str(), &namespace.object["metadata"]["name"]), ("new", &json!("new")));
    }

    #[test]
    fn old_names_lead_to_services_and_a_pods_own_aliases_stay() {
        let to = to_new();
        let own = json!({"metadata": {}, "spec": {"template": {"spec": {"hostAliases": [{"ip": "10.0.0.9", "hostnames": ["peer0.old"]}]}}}});
        let all = [
            declared("Service", "old", "peer0", json!({"metadata": {}, "spec": {"ports": [{"port": 7051}]}})),
            declared(
                "Service",
                "old",
                "set",
                json!({"metadata": {}, "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 1}]}}),
            ),
            declared("Service", "old", "by-hand", json!({"metadata": {}, "spec": {"clusterIP": "None"}})),
            declared("Service", "old", "outside", json!({"metadata": {}, "spec": {"type": "ExternalName"}})),
            declared("Service", "else", "x", json!({"metadata": {}, "spec": {}})),
            declared("Deployment", "old", "d", own.clone()),
        ];
        let (moved, names) = to.declarations(&all, false);
        assert_eq!(names.iter().map(|known| known.service.as_str()).collect::<Vec<_>>(), ["peer0", "set-by-old-name"]);
        assert_eq!(names[0].names, ["peer0.old", "peer0.old.svc", "peer0.old.svc.cluster.local"]);
        let companion = moved.iter().find(|known| known.name == "set-by-old-name").unwrap();
        assert_eq!(
            (companion.namespace.as_str(), companion.object.pointer("/spec/selector/a")),
            ("new", Some(&json!("b")))
        );
        assert_eq!(moved.len(), all.len() + 1);

        let workload = moved.iter().find(|known| known.kind == "Deployment").unwrap();
        let of_workload = old_names(&workload.object);
        assert_eq!(of_workload[0].names, ["peer0.old.svc", "peer0.old.svc.cluster.local"]);
        assert_eq!(of_workload[1], names[1]);
        assert!(has_own_aliases(workload));
        let mut object = workload.object.clone();
        add_aliases("Deployment", &mut object, &[("10.1.1.1".to_owned(), of_workload[0].names.clone())]);
        let aliases = object.pointer("/spec/template/spec/hostAliases").unwrap();
        assert_eq!(aliases[0]["ip"], "10.0.0.9");
        assert_eq!(
            aliases[1],
            json!({"ip": "10.1.1.1", "hostnames": ["peer0.old.svc", "peer0.old.svc.cluster.local"]})
        );
        // Captured again, the addresses are left out, and the names go with it to the next place.
        forget_addresses("Deployment", &mut object);
        assert_eq!(object, workload.object);
        let further = Relocation {
            namespaces: BTreeMap::from([("new".to_owned(), "third".to_owned())]),
            ..Relocation::default()
        };
        let (moved, _) = further.declarations(&moved, false);
        let workload = moved.iter().find(|known| known.kind == "Deployment").unwrap();
        let all = old_names(&workload.object);
        assert_eq!((all[0].namespace.as_str(), all[0].names[0].as_str()), ("third", "peer0.old.svc"));
        assert!(all[0].names.iter().any(|name| name == "peer0.new"));
        // Each Service and each name once.
        let services: BTreeSet<&str> = all.iter().map(|old| old.service.as_str()).collect();
        let every: Vec<&String> = all.iter().flat_map(|old| &old.names).collect();
        assert_eq!((services.len(), every.len()), (all.len(), every.iter().collect::<BTreeSet<_>>().len()), "{all:?}");
        let companions = moved.iter().filter(|known| known.kind == "Service" && known.name == "set-by-old-name");
        assert_eq!(companions.count(), 1);
        assert_eq!(
            workload.object.pointer("/spec/template/spec/hostAliases"),
            own.pointer("/spec/template/spec/hostAliases")
        );
    }
}
