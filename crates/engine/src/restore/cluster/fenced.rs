//! What scratch namespaces get of the declared objects: nothing that leads in or out, nothing that acts by itself, nothing that is shared
//! with the network that it is a copy of.

use std::collections::BTreeSet;

use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_platform::kubernetes::hand_made_volume;
use fabkeep_platform::{Declaration, ObjectRef};
use serde_json::{Value, json};

use crate::point::RecoveryPoint;

/// Kinds that a drill creates, with the API groups that are Kubernetes' own. Ingresses, routes, policies, addresses that somebody wrote by hand,
/// jobs, autoscalers and all custom resources are none of them.
const KINDS: [(&str, &str); 17] = [
    ("", "Namespace"),
    ("", "Secret"),
    ("", "ConfigMap"),
    ("", "ServiceAccount"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("", "LimitRange"),
    ("", "ResourceQuota"),
    ("", "PersistentVolumeClaim"),
    ("", "Service"),
    ("policy", "PodDisruptionBudget"),
    ("apps", "StatefulSet"),
    ("apps", "Deployment"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("", "ReplicationController"),
    ("", "Pod"),
];
/// Fields of a Service by which it is reached from outside of the cluster.
const WAYS_IN: [&str; 9] = [
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "allocateLoadBalancerNodePorts",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "type",
];
/// Beginnings of labels and annotations by which GitOps controllers know their objects.
const MANAGERS: [&str; 3] = ["argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/"];
/// Volumes of a pod that nobody else has.
const OWN_VOLUMES: [&str; 8] =
    ["name", "emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim", "ephemeral"];
/// Volumes that a driver makes for one pod.
const INLINE: &str = "csi";

/// Returns what a drill creates, and what to know about it.
pub(super) fn fenced(declared: Vec<Declaration>, point: &RecoveryPoint) -> (Vec<Declaration>, Vec<Finding>) {
    let (mut out, mut left_out, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for mut known in declared {
        if !is_created(&known) {
            left_out.push(known.label());
            continue;
        }
        of_nobody(&mut known);
        match known.kind.as_str() {
            "Service" => inside_only(&mut known),
            "PersistentVolumeClaim" => findings.extend(by_hand(&known)),
            kind => {
                if let Some(at) = spec_of(kind) {
                    findings.extend(workload(&mut known, at, point));
                }
            }
        }
        out.push(known);
    }
    if !left_out.is_empty() {
        let first = left_out.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let more = if left_out.len() > 8 { ", …" } else { "" };
        findings.push(Finding::note(
            Rule::DrillFenced,
            format!("{} objects", left_out.len()),
            format!("they are left out, because they lead in or out of a drill or act by themselves: {first}{more}"),
            "no action is needed: that they work is not proven by a drill",
        ));
    }
    (out, findings)
}

fn is_created(known: &Declaration) -> bool {
    let group = known.api_version.split_once('/').map_or("", |(group, _)| group);
    let leads_out = known.kind == "Service" && known.object.pointer("/spec/type") == Some(&json!("ExternalName"));
    KINDS.contains(&(group, known.kind.as_str())) && !leads_out
}

/// Takes away what says that a GitOps controller manages an object: it would take the copy for one of its own that is to go.
fn of_nobody(known: &mut Declaration) {
    for field in ["labels", "annotations"] {
        let notes = known.object.pointer_mut(&format!("/metadata/{field}")).and_then(Value::as_object_mut);
        if let Some(notes) = notes {
            notes.retain(|key, _| !MANAGERS.iter().any(|manager| key.starts_with(manager)));
        }
    }
}

/// A Service that pods of the cluster reach, and nobody else. Annotations of it make load balancers, names in DNS, routes.
fn inside_only(known: &mut Declaration) {
    if let Some(spec) = known.object.get_mut("spec").and_then(Value::as_object_mut) {
        WAYS_IN.iter().for_each(|field| drop(spec.remove(*field)));
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
    known.object.get_mut("metadata").and_then(Value::as_object_mut).map(|metadata| metadata.remove("annotations"));
}

/// A claim that waits for a volume which somebody made by hand would take one that is meant for something else.
fn by_hand(known: &Declaration) -> Option<Finding> {
    let class = known.object.pointer("/spec/storageClassName").and_then(Value::as_str)?;
    let of_volume = hand_made_volume(known).map(|(class, _)| class);
    (class.is_empty() || of_volume.as_deref() == Some(class)).then(|| {
        Finding::error(
            Rule::DrillFenced,
            known.label(),
            "it waits for a volume that somebody made by hand: a drill would take one that is meant for something else",
            Remedy::OtherStorageClass { from: class.to_owned(), to: None },
        )
    })
}

fn spec_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some("/spec"),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" => {
            Some("/spec/template/spec")
        }
        _ => None,
    }
}

/// Takes away what a workload shares with others or with its machine; what cannot be taken away forbids the drill.
fn workload(known: &mut Declaration, at: &str, point: &RecoveryPoint) -> Vec<Finding> {
    let (label, object) = (known.label(), ObjectRef::from(&*known));
    let mut findings = Vec::new();
    let Some(spec) = known.object.pointer_mut(at).and_then(Value::as_object_mut) else { return findings };
    let of_machine = ["hostNetwork", "hostPID", "hostIPC"];
    for field in of_machine.into_iter().filter(|field| spec.get(*field) == Some(&Value::Bool(true))) {
        findings.push(Finding::error(
            Rule::DrillFenced,
            &label,
            format!("its pods are not isolated from their machine ({field}): no NetworkPolicy closes them off"),
            "drill this recovery point in a cluster of its own by a restore, or take that field from the workload and capture again",
        ));
    }
    // Pods of a drill must not push away others.
    for field in ["priorityClassName", "priority", "preemptionPolicy"] {
        spec.remove(field);
    }
    let data = data_paths(&object, point);
    let shared: BTreeSet<String> = spec
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|volume| volume.as_object().is_some_and(|volume| !volume.keys().all(|key| is_own(key))))
        .filter_map(|volume| Some(volume.get("name")?.as_str()?.to_owned()))
        .collect();
    let mut holding: BTreeSet<&String> = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                port.as_object_mut().map(|port| port.remove("hostPort"));
            }
            for mount in container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten() {
                let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default().trim_end_matches('/');
                let name = mount.get("name").and_then(Value::as_str).and_then(|name| shared.get(name));
                let holds =
                    |data: &&str| data.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                holding.extend(name.filter(|_| data.iter().any(holds)));
            }
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(name) = volume.get("name").and_then(Value::as_str).and_then(|name| shared.get(name)) else { continue };
        let kind = volume.as_object().and_then(|volume| volume.keys().find(|key| !is_own(key)).cloned());
        let kind = kind.unwrap_or_default();
        if holding.contains(name) {
            findings.push(Finding::error(
                Rule::DrillFenced,
                &label,
                format!("volume {name} ({kind}) holds a node's data, and a copy of the workload would have the same data: a drill must not write there"),
                "drill this recovery point into a folder, or move the data to a claim and capture again",
            ));
        } else {
            findings.push(Finding::warning(
                Rule::DrillFenced,
                &label,
                format!("volume {name} ({kind}) is shared with others: in the drill it is an empty directory"),
                "no action is needed if the node starts without it; what it does with it (Docker for chaincode, for example) is not proven",
            ));
        }
        *volume = json!({"name": name, "emptyDir": {}});
    }
    findings
}

fn is_own(volume: &str) -> bool {
    OWN_VOLUMES.contains(&volume) || volume == INLINE
}

/// Where the containers of a workload's nodes see data that is restored.
fn data_paths<'p>(object: &ObjectRef, point: &'p RecoveryPoint) -> Vec<&'p str> {
    let of_it = point.nodes.iter().filter(|node| node.workload.as_ref().map(ObjectRef::from).as_ref() == Some(object));
    let volumes = of_it.flat_map(|node| &node.directories).filter(|known| known.directory.source.is_volume());
    volumes.filter_map(|known| known.directory.mounted_at.as_deref()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fabkeep_network::Severity;

    use super::*;

    fn declared(api_version: &str, kind: &str, name: &str, object: Value) -> Declaration {
        Declaration {
            namespace: "drill-org1".to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            object,
        }
    }

    fn point() -> RecoveryPoint {
        let point = json!({"fabkeep": "0", "network": "n", "created": "2026-01-01T00:00:00Z", "derived": false,
            "excluded": [], "channels": [], "nodes": [], "findings": []});
        serde_json::from_value(point).unwrap()
    }

    #[test]
    fn what_leads_in_or_out_or_acts_by_itself_is_left_out() {
        let all = [
            declared("networking.k8s.io/v1", "Ingress", "in", Value::Null),
            declared("gateway.networking.k8s.io/v1", "HTTPRoute", "in", Value::Null),
            declared("networking.k8s.io/v1", "NetworkPolicy", "open", Value::Null),
            declared("example.com/v1", "Secret", "not-a-secret", Value::Null),
            declared("batch/v1", "CronJob", "job", Value::Null),
            declared("v1", "Endpoints", "out", Value::Null),
            declared(
                "v1",
                "Service",
                "out",
                json!({"spec": {"type": "ExternalName", "externalName": "db.example.com"}}),
            ),
            declared("v1", "Secret", "keys", Value::Null),
        ];
        let (created, findings) = fenced(all.to_vec(), &point());
        assert_eq!(created.iter().map(Declaration::label).collect::<Vec<_>>(), ["Secret drill-org1/keys"]);
        assert!(findings.len() == 1 && findings[0].subject == "7 objects", "{findings:?}");
    }

    #[test]
    fn services_are_reached_from_inside_only() {
        let service = json!({"metadata": {"name": "p", "labels": {"argocd.argoproj.io/instance": "net"}, "annotations": {"external-dns.alpha.kubernetes.io/hostname": "p.example.com"}},
            "spec": {"type": "LoadBalancer", "loadBalancerIP": "1.2.3.4", "externalIPs": ["1.2.3.4"], "selector": {"app": "p"},
                "ports": [{"port": 7051, "nodePort": 30051}], "externalTrafficPolicy": "Local"}});
        let (created, _) = fenced(vec![declared("v1", "Service", "p", service)], &point());
        let expected = json!({"metadata": {"name": "p", "labels": {}}, "spec": {"selector": {"app": "p"}, "ports": [{"port": 7051}]}});
        assert_eq!(created[0].object, expected);
    }

    #[test]
    fn a_workload_shares_nothing_with_its_machine_or_is_refused() {
        let spec = json!({"hostNetwork": true, "priorityClassName": "high",
            "containers": [{"name": "peer", "ports": [{"containerPort": 7051, "hostPort": 7051}],
                "volumeMounts": [{"name": "docker", "mountPath": "/host/var/run"}]}],
            "volumes": [{"name": "docker", "hostPath": {"path": "/var/run"}}, {"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]});
        let object = json!({"spec": {"template": {"spec": spec}}});
        let (created, findings) = fenced(vec![declared("apps/v1", "Deployment", "peer0", object)], &point());
        let spec = created[0].object.pointer("/spec/template/spec").unwrap();
        assert_eq!(spec["containers"][0]["ports"], json!([{"containerPort": 7051}]));
        assert_eq!(spec["volumes"][0], json!({"name": "docker", "emptyDir": {}}));
        assert_eq!(spec["volumes"][1]["persistentVolumeClaim"]["claimName"], "d");
        assert_eq!(spec.get("priorityClassName"), None);
        let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Error, Severity::Warning]);
        let claim = declared("v1", "PersistentVolumeClaim", "d", json!({"spec": {"storageClassName": ""}}));
        assert_eq!(fenced(vec![claim], &point()).1[0].severity, Severity::Error);
    }
}
