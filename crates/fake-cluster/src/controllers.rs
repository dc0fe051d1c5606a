//! Controllers of a cluster, which act immediately: pods of workloads, bound claims, addresses, service accounts, garbage collection.

use serde_json::{Value, json};

use crate::folders;
use crate::selector::Selector;
use crate::state::{Key, State, now, text};

/// The name of the only machine.
pub(crate) const NODE: &str = "node-1";

/// What an object brings with it when it is created.
pub(crate) fn created(state: &mut State, key: &Key) {
    match key.plural.as_str() {
        "namespaces" => {
            let name = key.name.clone();
            if let Some(object) = state.objects.get_mut(key) {
                object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.clone().into();
                object["status"] = json!({"phase": "Active"});
            }
            let _ = state.create("", "serviceaccounts", &name, json!({"metadata": {"name": "default"}}));
            let root = json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "a certificate"}});
            let _ = state.create("", "configmaps", &name, root);
        }
        "services" => {
            let number = state.fresh();
            let Some(object) = state.objects.get_mut(key) else { return };
            if object.pointer("/spec/clusterIP").is_none()
                && object.pointer("/spec/type") != Some(&json!("ExternalName"))
            {
                let low = u32::from_str_radix(&number, 16).unwrap_or(1) % 60_000 + 257;
                let address = format!("10.96.{}.{}", low >> 8, low & 255);
                object["spec"]["clusterIP"] = address.clone().into();
                object["spec"]["clusterIPs"] = json!([address]);
            }
            let (uid, name, namespace) = (object["metadata"]["uid"].clone(), key.name.clone(), key.namespace.clone());
            let _ = state.create("", "endpoints", &namespace, json!({"metadata": {"name": name}, "subsets": []}));
            let slice = json!({"metadata": {"name": format!("{name}-{number}"), "ownerReferences":
                [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid, "controller": true}]},
                "addressType": "IPv4", "endpoints": []});
            let _ = state.create("discovery.k8s.io", "endpointslices", &namespace, slice);
        }
        _ => {}
    }
}

/// What goes with an object that is removed.
pub(crate) fn removed(state: &mut State, key: &Key, object: &Value) {
    match key.plural.as_str() {
        "namespaces" => {
            let inside: Vec<Key> = state.objects.keys().filter(|known| known.namespace == key.name).cloned().collect();
            inside.iter().for_each(|key| state.drop_object(key));
        }
        "services" => {
            let endpoints = Key { plural: "endpoints".to_owned(), ..key.clone() };
            state.drop_object(&endpoints);
        }
        "volumesnapshots" | "volumegroupsnapshots" | "volumesnapshotcontents" | "volumegroupsnapshotcontents" => {
            crate::snapshots::removed(state, key, object)
        }
        "pods" => folders::remove(&folders::pod(&state.root, &key.namespace, &key.name)),
        "persistentvolumeclaims" => {
            let volume = Key {
                group: String::new(),
                plural: "persistentvolumes".to_owned(),
                namespace: String::new(),
                name: text(object, "/spec/volumeName").to_owned(),
            };
            let Some(known) = state.objects.get(&volume) else { return };
            if text(known, "/spec/persistentVolumeReclaimPolicy") == "Retain" {
                let mut known = known.clone();
                known["status"]["phase"] = "Released".into();
                state.store(&volume, known, "MODIFIED");
            } else {
                folders::remove(&folders::volume(&state.root, &volume.name));
                state.drop_object(&volume);
            }
        }
        _ => {}
    }
}

/// Acts until nothing changes.
pub(crate) fn reconcile(state: &mut State) {
    for _ in 0..20 {
        let before = state.version();
        collect_garbage(state);
        workloads(state);
        crate::snapshots::take(state);
        bind_claims(state);
        start_pods(state);
        if state.version() == before {
            return;
        }
    }
}

pub(crate) fn keys(state: &State, group: &str, plural: &str) -> Vec<Key> {
    state.objects.keys().filter(|key| key.group == group && key.plural == plural).cloned().collect()
}

/// Objects whose owner is gone go too.
fn collect_garbage(state: &mut State) {
    let gone: Vec<Key> = state
        .objects
        .iter()
        .filter(|(key, object)| {
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.is_some_and(|owners| {
                !owners.is_empty()
                    && owners.iter().all(|owner| {
                        let (kind, name) = (text(owner, "/kind"), text(owner, "/name"));
                        let group = text(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
                        let Some(kind) = state.kind_named(kind, Some(group)) else { return false };
                        let namespace = if kind.namespaced { key.namespace.clone() } else { String::new() };
                        let key = Key {
                            group: kind.group.clone(),
                            plural: kind.plural.clone(),
                            namespace,
                            name: name.to_owned(),
                        };
                        let uid = text(owner, "/uid");
                        state
                            .objects
                            .get(&key)
                            .is_none_or(|owner| !uid.is_empty() && text(owner, "/metadata/uid") != uid)
                    })
            })
        })
        .map(|(key, _)| key.clone())
        .collect();
    gone.iter().for_each(|key| state.drop_object(key));
}

fn workloads(state: &mut State) {
    for key in keys(state, "apps", "deployments") {
        let Some(deployment) = state.objects.get(&key).cloned() else { continue };
        let hash = hash(&deployment["spec"]["template"]);
        let current = format!("{}-{hash}", key.name);
        let wanted = replicas(&deployment);
        for set in owned(state, &key, &deployment, "replicasets") {
            if set.name != current {
                scale(state, &set, 0);
            }
        }
        let set = Key { plural: "replicasets".to_owned(), name: current.clone(), ..key.clone() };
        if state.objects.contains_key(&set) {
            scale(state, &set, wanted);
        } else {
            let mut template = deployment["spec"]["template"].clone();
            template["metadata"]["labels"]["pod-template-hash"] = hash.clone().into();
            let labels = template["metadata"]["labels"].clone();
            let made = json!({
                "metadata": {"name": current, "labels": labels, "ownerReferences": [owner("Deployment", &deployment)]},
                "spec": {"replicas": wanted, "selector": deployment["spec"]["selector"], "template": template},
            });
            put(state, &set, made, "apps/v1", "ReplicaSet");
        }
    }
    for key in keys(state, "apps", "replicasets") {
        let Some(set) = state.objects.get(&key).cloned() else { continue };
        let wanted = usize::try_from(replicas(&set)).unwrap_or(0);
        let pods = owned(state, &key, &set, "pods");
        for _ in pods.len()..wanted {
            let name = format!("{}-{}", key.name, state.fresh());
            make_pod(state, &key, &set, "ReplicaSet", &name);
        }
        pods.iter().skip(wanted).for_each(|pod| state.drop_object(pod));
    }
    for key in keys(state, "apps", "statefulsets") {
        let Some(set) = state.objects.get(&key).cloned() else { continue };
        let wanted = usize::try_from(replicas(&set)).unwrap_or(0);
        let hash = hash(&set["spec"]["template"]);
        let names: Vec<String> = (0..wanted).map(|ordinal| format!("{}-{ordinal}", key.name)).collect();
        for pod in owned(state, &key, &set, "pods") {
            let label =
                state.objects.get(&pod).map(|pod| text(pod, "/metadata/labels/controller-revision-hash") == hash);
            if !names.contains(&pod.name) || label != Some(true) {
                state.drop_object(&pod);
            }
        }
        for (ordinal, name) in names.iter().enumerate() {
            make_claims(state, &key, &set, ordinal);
            if !state.objects.contains_key(&Key {
                group: String::new(),
                plural: "pods".to_owned(),
                name: name.clone(),
                ..key.clone()
            }) {
                make_pod(state, &key, &set, "StatefulSet", name);
            }
        }
    }
    for key in keys(state, "apps", "daemonsets") {
        let Some(set) = state.objects.get(&key).cloned() else { continue };
        if owned(state, &key, &set, "pods").is_empty() {
            let name = format!("{}-{}", key.name, state.fresh());
            make_pod(state, &key, &set, "DaemonSet", &name);
        }
    }
    for plural in ["deployments", "replicasets", "statefulsets"] {
        for key in keys(state, "apps", plural) {
            tell_status(state, &key);
        }
    }
}

/// The pods of a workload as they are now, in its status.
fn tell_status(state: &mut State, key: &Key) {
    let Some(object) = state.objects.get(key).cloned() else { return };
    let selector = Selector { labels: selector_text(&object), ..Selector::default() };
    let pods = state.list("", "pods", &key.namespace, &selector);
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let mut status = json!({
        "observedGeneration": object["metadata"]["generation"], "replicas": pods.len(), "updatedReplicas": pods.len(),
    });
    if ready > 0 {
        status["readyReplicas"] = ready.into();
        status["availableReplicas"] = ready.into();
    }
    if object.get("status") != Some(&status) {
        let mut object = object;
        object["status"] = status;
        state.store(key, object, "MODIFIED");
    }
}

fn selector_text(object: &Value) -> String {
    let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    labels.into_iter().flatten().map(|(key, value)| format!("{key}={},", value.as_str().unwrap_or_default())).collect()
}

fn is_ready(pod: &Value) -> bool {
    pod.pointer("/status/conditions")
        .and_then(Value::as_array)
        .is_some_and(|all| all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
}

fn replicas(object: &Value) -> u64 {
    object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
}

fn scale(state: &mut State, key: &Key, wanted: u64) {
    let Some(object) = state.objects.get(key).filter(|object| replicas(object) != wanted) else { return };
    let mut object = object.clone();
    object["spec"]["replicas"] = wanted.into();
    state.store(key, object, "MODIFIED");
}

pub(crate) fn owner(kind: &str, object: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true})
}

/// Objects of a plural that an object controls.
fn owned(state: &State, key: &Key, object: &Value, plural: &str) -> Vec<Key> {
    let uid = text(object, "/metadata/uid");
    state
        .objects
        .iter()
        .filter(|(known, _)| known.plural == plural && known.namespace == key.namespace)
        .filter(|(_, known)| {
            known.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|owners| {
                owners.iter().any(|owner| text(owner, "/uid") == uid && owner["controller"] == true)
            })
        })
        .map(|(known, _)| known.clone())
        .collect()
}

/// Returns the same for the same value, as a few letters.
fn hash(value: &Value) -> String {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in value.to_string().bytes() {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    format!("{:08x}", sum >> 32)
}

pub(crate) fn put(state: &mut State, key: &Key, mut object: Value, api_version: &str, kind: &str) {
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object["metadata"]["namespace"] = key.namespace.clone().into();
    object["metadata"]["uid"] = format!("uid-{}", state.fresh()).into();
    object["metadata"]["creationTimestamp"] = now().into();
    object["metadata"]["generation"] = 1.into();
    state.store(key, object, "ADDED");
}

fn make_pod(state: &mut State, key: &Key, set: &Value, kind: &str, name: &str) {
    let template = &set["spec"]["template"];
    let mut pod = json!({"metadata": template["metadata"], "spec": template["spec"]});
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["ownerReferences"] = json!([owner(kind, set)]);
    if kind == "StatefulSet" {
        pod["metadata"]["labels"]["controller-revision-hash"] = hash(template).into();
        pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = name.into();
        let templates =
            set.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).cloned().unwrap_or_default();
        if !templates.is_empty() && !pod["spec"]["volumes"].is_array() {
            pod["spec"]["volumes"] = json!([]);
        }
        for template in &templates {
            let of = text(template, "/metadata/name");
            let claim = json!({"name": of, "persistentVolumeClaim": {"claimName": format!("{of}-{name}")}});
            if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
                volumes.retain(|volume| volume["name"] != of);
                volumes.push(claim);
            }
        }
    }
    let pod_key = Key {
        group: String::new(),
        plural: "pods".to_owned(),
        namespace: key.namespace.clone(),
        name: name.to_owned(),
    };
    if !state.objects.contains_key(&pod_key) {
        put(state, &pod_key, pod, "v1", "Pod");
    }
}

fn make_claims(state: &mut State, key: &Key, set: &Value, ordinal: usize) {
    for template in set.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten() {
        let name = format!("{}-{}-{ordinal}", text(template, "/metadata/name"), key.name);
        let claim = Key {
            group: String::new(),
            plural: "persistentvolumeclaims".to_owned(),
            namespace: key.namespace.clone(),
            name: name.clone(),
        };
        if !state.objects.contains_key(&claim) {
            let mut object = json!({"metadata": template["metadata"], "spec": template["spec"]});
            object["metadata"]["name"] = name.into();
            put(state, &claim, object, "v1", "PersistentVolumeClaim");
        }
    }
}

/// Binds claims: to the volume that they name, to a free one without a class, or to a new one of their class.
fn bind_claims(state: &mut State) {
    for key in keys(state, "", "persistentvolumeclaims") {
        let Some(claim) = state.objects.get(&key).filter(|claim| text(claim, "/status/phase") != "Bound").cloned()
        else {
            continue;
        };
        let class = claim.pointer("/spec/storageClassName").and_then(Value::as_str);
        let volume = match (text(&claim, "/spec/volumeName"), class) {
            ("", Some("")) => free_volume(state),
            ("", class) => new_volume(state, &key, &claim, class),
            (named, _) => {
                let named = volume_key(named);
                state.objects.contains_key(&named).then_some(named)
            }
        };
        let by_hand = class == Some("");
        let mut claim = claim;
        let volume = volume.filter(|volume| crate::snapshots::fill(state, &claim, &volume.name));
        match volume {
            Some(volume) => {
                let _ = std::fs::create_dir_all(folders::volume(&state.root, &volume.name));
                if let Some(mut object) = state.objects.get(&volume).cloned() {
                    object["spec"]["claimRef"] = json!({"kind": "PersistentVolumeClaim", "namespace": key.namespace,
                        "name": key.name, "uid": claim["metadata"]["uid"]});
                    object["status"]["phase"] = "Bound".into();
                    state.store(&volume, object, "MODIFIED");
                }
                claim["spec"]["volumeName"] = volume.name.into();
                if !claim["metadata"]["annotations"].is_object() {
                    claim["metadata"]["annotations"] = json!({});
                }
                claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = "yes".into();
                if !by_hand {
                    claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] = "fake".into();
                }
                claim["status"] = json!({"phase": "Bound", "accessModes": claim["spec"]["accessModes"],
                    "capacity": claim["spec"]["resources"]["requests"]});
            }
            None if text(&claim, "/status/phase") == "Pending" => continue,
            None => claim["status"] = json!({"phase": "Pending"}),
        }
        state.store(&key, claim, "MODIFIED");
    }
}

pub(crate) fn volume_key(name: &str) -> Key {
    Key {
        group: String::new(),
        plural: "persistentvolumes".to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    }
}

fn free_volume(state: &State) -> Option<Key> {
    let free = |volume: &Value| {
        text(volume, "/spec/storageClassName").is_empty() && volume.pointer("/spec/claimRef").is_none()
    };
    keys(state, "", "persistentvolumes").into_iter().find(|key| state.objects.get(key).is_some_and(free))
}

fn new_volume(state: &mut State, key: &Key, claim: &Value, class: Option<&str>) -> Option<Key> {
    let classes = keys(state, "storage.k8s.io", "storageclasses");
    let default = |key: &&Key| {
        let marked = state.objects.get(key).and_then(|class| class.pointer("/metadata/annotations"));
        marked.is_some_and(|all| all.get("storageclass.kubernetes.io/is-default-class") == Some(&json!("true")))
    };
    let class = match class {
        Some(class) => class.to_owned(),
        None => classes.iter().find(default)?.name.clone(),
    };
    let found = state.objects.get(classes.iter().find(|known| known.name == class)?)?;
    let policy = if text(found, "/reclaimPolicy") == "Retain" { "Retain" } else { "Delete" };
    let volume = volume_key(&format!("pvc-{}-{}", key.namespace, key.name));
    let object = json!({
        "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "fake"}}, "spec": {"capacity": claim["spec"]["resources"]["requests"], "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": policy, "storageClassName": class, "csi": {"driver": "fake", "volumeHandle": volume.name}}, "status": {"phase": "Available"},
    });
    let mut object = object;
    object["metadata"]["name"] = volume.name.clone().into();
    put(state, &volume, object, "v1", "PersistentVolume");
    Some(volume)
}

/// Pods run once what they mount is there.
fn start_pods(state: &mut State) {
    for key in keys(state, "", "pods") {
        let Some(pod) =
            state.objects.get(&key).filter(|pod| matches!(text(pod, "/status/phase"), "" | "Pending")).cloned()
        else {
            continue;
        };
        let waits = what_it_waits_for(state, &key, &pod);
        let mut now_is = pod.clone();
        let made = state.pod_status.as_ref().and_then(|make| make(&pod));
        now_is["status"] = match (made, waits) {
            (Some(status), _) => status,
            (None, Some(Waits::Scheduling(why))) => json!({"phase": "Pending", "conditions":
                [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}]}),
            (None, Some(Waits::Mounting(why))) => {
                let waiting = json!({"waiting": {"reason": "ContainerCreating", "message": why}});
                let containers = statuses(&pod, &|_| waiting.clone(), false);
                json!({"phase": "Pending", "containerStatuses": containers})
            }
            (None, None) => running(&pod),
        };
        if text(&now_is, "/spec/nodeName").is_empty() && text(&now_is, "/status/conditions/0/reason") != "Unschedulable"
        {
            now_is["spec"]["nodeName"] = NODE.into();
        }
        if now_is != pod {
            state.store(&key, now_is, "MODIFIED");
        }
    }
}

enum Waits {
    Scheduling(String),
    Mounting(String),
}

fn what_it_waits_for(state: &State, key: &Key, pod: &Value) -> Option<Waits> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    for volume in volumes {
        if let Some(claim) = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
            match state.find("PersistentVolumeClaim", &key.namespace, claim) {
                None => return Some(Waits::Scheduling(format!("persistentvolumeclaim \"{claim}\" not found"))),
                Some(claim) if text(claim, "/status/phase") != "Bound" => {
                    return Some(Waits::Scheduling("pod has unbound immediate PersistentVolumeClaims".to_owned()));
                }
                Some(_) => {}
            }
        }
        for (kind, pointer) in [("Secret", "/secret/secretName"), ("ConfigMap", "/configMap/name")] {
            let optional = volume.pointer(&pointer.replace("secretName", "optional").replace("name", "optional"));
            if let Some(name) = volume.pointer(pointer).and_then(Value::as_str)
                && optional != Some(&json!(true))
                && state.find(kind, &key.namespace, name).is_none()
            {
                return Some(Waits::Mounting(format!("{} \"{name}\" not found", kind.to_lowercase())));
            }
        }
    }
    None
}

/// Returns the status of a pod that runs and is ready.
pub(crate) fn running(pod: &Value) -> Value {
    let started = now();
    let names = ["Initialized", "ContainersReady", "PodScheduled", "Ready"];
    let conditions = names.map(|name| json!({"type": name, "status": "True"}));
    let containers = statuses(pod, &|_| json!({"running": {"startedAt": started}}), true);
    json!({"phase": "Running", "podIP": "127.0.0.1", "startTime": started, "conditions": conditions,
        "containerStatuses": containers})
}

/// Returns a status for each container, with a state of its own.
pub(crate) fn statuses(pod: &Value, state: &dyn Fn(&str) -> Value, ready: bool) -> Vec<Value> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .map(|container| {
            let name = text(container, "/name");
            json!({"name": name, "image": container["image"], "imageID": "", "ready": ready, "started": ready,
                "restartCount": 0, "state": state(name)})
        })
        .collect()
}
