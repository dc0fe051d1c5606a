//! Takes away what belongs to one life of an object in one cluster (K6).

use serde_json::Value;

use super::objects::{HAND_MADE, REPLICAS, SCALED, noted_replicas, text};
use super::scratch;

/// Annotations that belong to one life of an object.
const PASSING_ANNOTATIONS: [&str; 12] = [
    "fabkeep.io/restored-from",
    "deployment.kubernetes.io/revision",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-resizer",
    REPLICAS,
    HAND_MADE,
    scratch::MARK,
    scratch::POINT,
];

/// Returns an object without what belongs to one life in one cluster (K6).
pub(crate) fn clean(kind: &str, object: &Value) -> Value {
    let mut object = object.clone();
    let replicas = noted_replicas(&object);
    remove(&mut object, "", &["status"]);
    remove(
        &mut object,
        "/metadata",
        &[
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
            "ownerReferences",
            "finalizers",
            "generateName",
        ],
    );
    super::relocation::forget_addresses(kind, &mut object);
    remove(&mut object, "/metadata/annotations", &PASSING_ANNOTATIONS);
    if object.pointer("/metadata/annotations").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        remove(&mut object, "/metadata", &["annotations"]);
    }
    match kind {
        "Namespace" => {
            remove(&mut object, "", &["spec"]);
            remove(&mut object, "/metadata/labels", &["kubernetes.io/metadata.name", scratch::DRILL]);
        }
        // What it was filled from, as a snapshot, is not in a new cluster; fabkeep fills it.
        "PersistentVolumeClaim" => remove(&mut object, "/spec", &["volumeName", "dataSource", "dataSourceRef"]),
        "Service" => {
            if text(&object, "/spec/clusterIP") != Some("None") {
                remove(&mut object, "/spec", &["clusterIP", "clusterIPs"]);
            }
            remove(&mut object, "/spec", &["healthCheckNodePort"]);
        }
        "ServiceAccount" => remove(&mut object, "", &["secrets"]),
        "Pod" => {
            remove(&mut object, "/spec", &["nodeName"]);
            // The mount of the service account's token is added by the API server, with a name of its own.
            let is_token = |name: Option<&str>| {
                name.is_some_and(|name| name.starts_with("kube-api-access-") || name.contains("-token-"))
            };
            if let Some(volumes) = object.pointer_mut("/spec/volumes").and_then(Value::as_array_mut) {
                volumes.retain(|volume| !is_token(volume.get("name").and_then(Value::as_str)));
            }
            for list in ["/spec/containers", "/spec/initContainers"] {
                for container in object.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                        mounts.retain(|mount| !is_token(mount.get("name").and_then(Value::as_str)));
                    }
                }
            }
        }
        kind if SCALED.contains(&kind) => {
            // A workload at 0 replicas by fabkeep is declared with the replicas that it had.
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = replicas.into();
            }
        }
        _ => {}
    }
    object
}

/// Takes away what a recovery point knows of a claim and no cluster does.
pub(crate) fn without_notes(object: &Value) -> Value {
    let mut object = object.clone();
    remove(&mut object, "/metadata/annotations", &[HAND_MADE]);
    object
}

fn remove(object: &mut Value, at: &str, fields: &[&str]) {
    if let Some(map) = object.pointer_mut(at).and_then(Value::as_object_mut) {
        for field in fields {
            map.remove(*field);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_belongs_to_one_life_in_one_cluster_is_left_out() {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Bound"},
            "metadata": {"name": "data-peer-0", "uid": "x", "resourceVersion": "5", "finalizers": ["kubernetes.io/pvc-protection"],
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"}, "labels": {"app": "peer"}},
            "spec": {"volumeName": "pvc-1", "dataSource": {"name": "s"}, "dataSourceRef": {"name": "s"}, "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
        });
        let expected = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-peer-0", "labels": {"app": "peer"}},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
        });
        assert_eq!(clean("PersistentVolumeClaim", &claim), expected);
        let headless = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        assert_eq!(clean("Service", &headless), headless);
        let service =
            json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"nodePort": 30051}]}});
        assert_eq!(clean("Service", &service).pointer("/spec"), Some(&json!({"ports": [{"nodePort": 30051}]})));
        let stopped =
            json!({"metadata": {"name": "d", "annotations": {"fabkeep.io/replicas": "2"}}, "spec": {"replicas": 0}});
        assert_eq!(clean("Deployment", &stopped).pointer("/spec/replicas"), Some(&json!(2)));
    }
}
