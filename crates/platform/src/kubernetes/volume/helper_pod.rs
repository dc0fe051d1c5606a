//! The pod of a helper: what it mounts, where it may run, whose rights it has, and the resources that its namespace asks it to declare.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};
use serde_json::{Map, Value, json};

use super::helper::{CONTAINER, HelperOptions, ROOT};
use crate::kubernetes::discover::FoundNode;
use crate::kubernetes::discover::mounts::{Holder, Mount};
use crate::kubernetes::discover::workloads::WorkloadObject;
use crate::kubernetes::objects::{MANAGED_BY, Namespace, RUN, annotation, label};
use crate::kubernetes::uses::selects;

/// A helper ends by itself after this long, in seconds, if a killed run left it.
const LIFETIME_SECONDS: i64 = 24 * 60 * 60;
/// The label of a namespace that admits only pods of a level of the pod security standards.
const ENFORCED_LEVEL: &str = "pod-security.kubernetes.io/enforce";
/// The label of a helper that fills volumes: the restore that it does that for.
pub(in crate::kubernetes) const RESTORE: &str = "fabkeep.io/restore";
/// OpenShift chooses the users of a namespace's pods.
const CHOSEN_USERS: &str = "openshift.io/sa.scc.uid-range";
/// The user of a helper that may not be root, where nothing says whose the files are: `nobody`.
const NOBODY: i64 = 65_534;
/// What a helper may use where its namespace asks for limits.
const LIMITS: [(&str, &str); 3] = [("cpu", "1"), ("memory", "256Mi"), ("ephemeral-storage", "64Mi")];
const REQUESTS: [(&str, &str); 3] = [("cpu", "10m"), ("memory", "32Mi"), ("ephemeral-storage", "16Mi")];

/// Whose rights a helper has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Root's rights to read and write all files and to give them to other users.
    Root,
    /// Those of the workload's user, without any capability: the level *restricted* admits it. `None`: the cluster chooses the user.
    Workload(Option<i64>),
}

/// A helper for nodes that share volumes or are one.
pub(crate) struct HelperPod<'a> {
    pub name: &'a str,
    /// The run of fabkeep that makes it.
    pub run: &'a str,
    pub options: &'a HelperOptions,
    /// Nodes by position in the network.
    pub nodes: &'a [(usize, &'a FoundNode, &'a WorkloadObject)],
    /// The machine that it must run on.
    pub host: Option<&'a str>,
    /// It mounts these instead of the claims, by claim.
    pub clones: Option<&'a BTreeMap<(String, String), String>>,
    pub namespace: Option<&'a Namespace>,
    /// It mounts nothing, and may run on any machine of its workload: it only shows whether helpers are admitted and run.
    pub trial: bool,
}

fn is_mounted(mount: &Mount) -> bool {
    !matches!(mount.holder, Holder::Objects(_) | Holder::Ephemeral(_))
}

impl HelperPod<'_> {
    /// Returns the rights that it should have: root's, unless its namespace enforces the level *restricted*.
    pub fn rights(&self) -> Rights {
        let level = self.namespace.and_then(|namespace| label(&namespace.object, ENFORCED_LEVEL));
        if level == Some("restricted") { self.rights_of_workload() } else { Rights::Root }
    }

    /// Returns the rights of the nodes' workload.
    pub fn rights_of_workload(&self) -> Rights {
        let declared = self.nodes.iter().find_map(|(_, node, workload)| {
            let own = rights_of_container(node, workload).and_then(|context| context.run_as_user);
            own.or_else(|| workload.spec.security_context.as_ref()?.run_as_user)
        });
        let of_files = || {
            let owners = self.nodes.iter().filter_map(|(_, node, _)| self.options.owners.get(&node.node.id));
            owners.map(|owner| i64::from(*owner)).find(|owner| *owner != 0)
        };
        let chosen = self.namespace.is_some_and(|namespace| annotation(&namespace.object, CHOSEN_USERS).is_some());
        Rights::Workload(match declared {
            Some(user) => Some(user),
            None if chosen => None,
            None => Some(of_files().unwrap_or(NOBODY)),
        })
    }

    /// Returns the pod with these rights.
    pub fn manifest(&self, rights: Rights) -> Option<Value> {
        let (_, first, workload) = self.nodes.first()?;
        let (volumes, mounted) = if self.trial { (Vec::new(), Vec::new()) } else { self.volumes()? };
        let mut pod_spec = json!({
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": LIFETIME_SECONDS,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": CONTAINER,
                "image": self.options.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"],
                "securityContext": container_rights(rights),
                "resources": self.resources(rights),
                "volumeMounts": mounted
            }],
            "volumes": volumes
        });
        if let Rights::Workload(user) = rights {
            let context = workload.spec.security_context.as_ref();
            pod_spec["securityContext"] = pod_rights(context, rights_of_container(first, workload), user)?;
        }
        if let Some(host) = self.host {
            // A volume that one pod has is given to another on the same machine only.
            pod_spec["nodeName"] = host.into();
        }
        let spread = place_as(&mut pod_spec, workload)?;
        if let Some(secrets) = &workload.spec.image_pull_secrets {
            pod_spec["imagePullSecrets"] = serde_json::to_value(secrets).ok()?;
        }
        let mut labels = json!({MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": "helper", RUN: self.run});
        if let Some(restore) = &self.options.restore {
            labels[RESTORE] = restore.as_str().into();
        }
        for name in spread {
            labels[name] = "yes".into();
        }
        Some(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": first.node.id.organization, "labels": labels},
            "spec": pod_spec
        }))
    }

    /// Returns its volumes, and where it mounts them: each node's paths below a root of their own.
    fn volumes(&self) -> Option<(Vec<Value>, Vec<Value>)> {
        let mut volumes: Vec<Value> = Vec::new();
        let mut mounted: Vec<Value> = Vec::new();
        for (position, node, workload) in self.nodes {
            for mount in node.mounts.iter().filter(|mount| is_mounted(mount)) {
                let volume = match (&mount.holder, self.clones) {
                    (Holder::Claim(claim), Some(clones)) => {
                        let Some(clone) = clones.get(&(node.node.id.organization.clone(), claim.clone())) else {
                            continue;
                        };
                        json!({"persistentVolumeClaim": {"claimName": clone}})
                    }
                    (_, Some(_)) => continue,
                    (Holder::Claim(claim), None) => json!({"persistentVolumeClaim": {"claimName": claim}}),
                    (_, None) => {
                        let known =
                            workload.spec.volumes.iter().flatten().find(|volume| volume.name == mount.volume)?;
                        let mut value = serde_json::to_value(known).ok()?;
                        value.as_object_mut()?.remove("name");
                        value
                    }
                };
                let at = volumes.iter().position(|known| *known == volume).unwrap_or_else(|| {
                    volumes.push(volume);
                    volumes.len() - 1
                });
                let mut entry =
                    json!({"name": format!("v{at}"), "mountPath": format!("{ROOT}/{position}{}", mount.path)});
                if !mount.sub_path.is_empty() {
                    entry["subPath"] = mount.sub_path.clone().into();
                }
                if self.clones.is_some() {
                    entry["readOnly"] = true.into();
                }
                mounted.push(entry);
            }
        }
        for (at, volume) in volumes.iter_mut().enumerate() {
            volume["name"] = format!("v{at}").into();
        }
        Some((volumes, mounted))
    }

    /// Returns what it requests of the machine; limits, and what else a quota of its namespace counts, where they are asked for.
    fn resources(&self, rights: Rights) -> Value {
        let quotas = self.namespace.map_or(&[][..], |namespace| namespace.of_kind("ResourceQuota"));
        let counted = |key: &str| {
            quotas.iter().any(|quota| quota.pointer("/spec/hard").is_some_and(|hard| hard.get(key).is_some()))
        };
        // A cluster that refused a helper with root's rights may want limits, too.
        let careful = rights != Rights::Root;
        let chosen = |list: [(&'static str, &'static str); 3], prefix: &str, always: bool| -> Map<String, Value> {
            let is_chosen = |name: &str| {
                let usual = name != "ephemeral-storage";
                (usual && (always || careful))
                    || counted(&format!("{prefix}.{name}"))
                    || (prefix == "requests" && counted(name))
            };
            list.iter()
                .filter(|(name, _)| is_chosen(name))
                .map(|(name, value)| ((*name).to_owned(), (*value).into()))
                .collect()
        };
        let (requests, limits) = (chosen(REQUESTS, "requests", true), chosen(LIMITS, "limits", false));
        if limits.is_empty() { json!({"requests": requests}) } else { json!({"requests": requests, "limits": limits}) }
    }
}

/// Returns what the workload declares of the rights of a node's container.
fn rights_of_container<'a>(node: &FoundNode, workload: &'a WorkloadObject) -> Option<&'a SecurityContext> {
    let name = &node.node.workload.as_ref()?.container;
    workload.spec.containers.iter().find(|container| container.name == *name)?.security_context.as_ref()
}

fn container_rights(rights: Rights) -> Value {
    match rights {
        Rights::Root => json!({
            "runAsUser": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]}
        }),
        Rights::Workload(user) => {
            let mut context = json!({
                "runAsNonRoot": true,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"}
            });
            if let Some(user) = user {
                context["runAsUser"] = user.into();
            }
            context
        }
    }
}

/// Returns the user, groups and labels of the workload's pods: they say which files may be read and written. A pod has a group only with a user:
/// containerd does not start another one.
fn pod_rights(
    pod: Option<&PodSecurityContext>,
    container: Option<&SecurityContext>,
    user: Option<i64>,
) -> Option<Value> {
    let declared = pod.map(serde_json::to_value).transpose().ok()?.unwrap_or_default();
    let own_group = container.and_then(|container| container.run_as_group).map(Value::from);
    let mut out = json!({"runAsNonRoot": true});
    if let Some(user) = user {
        out["runAsUser"] = user.into();
        if let Some(group) = own_group.or_else(|| declared.get("runAsGroup").cloned()) {
            out["runAsGroup"] = group;
        }
    }
    for field in ["fsGroup", "fsGroupChangePolicy", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxOptions"]
    {
        if let Some(value) = declared.get(field) {
            out[field] = value.clone();
        }
    }
    Some(out)
}

/// Lets a helper run where its workload's pods may: a claim that binds to where its first pod runs binds there for good. The labels by which
/// helpers keep apart from each other as the workloads' pods do.
fn place_as(pod_spec: &mut Value, workload: &WorkloadObject) -> Option<Vec<String>> {
    let spec = serde_json::to_value(&workload.spec).ok()?;
    let labels = serde_json::to_value(&workload.labels).ok()?;
    for field in ["nodeSelector", "tolerations", "priorityClassName", "schedulerName", "topologySpreadConstraints"] {
        if let Some(value) = spec.get(field) {
            pod_spec[field] = value.clone();
        }
    }
    let mut affinity = json!({});
    for field in ["nodeAffinity", "podAntiAffinity"] {
        // Pods that it has to be near to may be scaled down: podAffinity would keep the helper from running.
        if let Some(value) = spec.pointer(&format!("/affinity/{field}")) {
            affinity[field] = value.clone();
        }
    }
    let mut spread = Vec::new();
    let own = |selector: Option<&Value>, spread: &mut Vec<String>| -> Option<Value> {
        let selector = selector.filter(|selector| selects(selector, &labels))?;
        let label = format!("spread.fabkeep.io/{}", short_hash(&selector.to_string()));
        if !spread.contains(&label) {
            spread.push(label.clone());
        }
        Some(json!({"matchLabels": {label: "yes"}}))
    };
    if let Some(all) = pod_spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut) {
        let more: Vec<Value> = all
            .iter()
            .filter_map(|known| {
                let selector = own(known.get("labelSelector"), &mut spread)?;
                let mut known = known.clone();
                known["labelSelector"] = selector;
                known.as_object_mut()?.remove("matchLabelKeys");
                Some(known)
            })
            .collect();
        all.extend(more);
    }
    for (list, at) in [
        ("requiredDuringSchedulingIgnoredDuringExecution", "/labelSelector"),
        ("preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm/labelSelector"),
    ] {
        let terms = affinity.pointer_mut(&format!("/podAntiAffinity/{list}")).and_then(Value::as_array_mut);
        let Some(terms) = terms else { continue };
        let more: Vec<Value> = terms
            .iter()
            .filter_map(|term| {
                let selector = own(term.pointer(at), &mut spread)?;
                let mut term = term.clone();
                *term.pointer_mut(at)? = selector;
                Some(term)
            })
            .collect();
        terms.extend(more);
    }
    if affinity.as_object().is_some_and(|map| !map.is_empty()) {
        pod_spec["affinity"] = affinity;
    }
    Some(spread)
}

/// Tells selectors apart in a label's name.
fn short_hash(text: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hex::encode(&hash.as_ref()[..6])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_helper_may_run_where_its_workload_may_and_keeps_apart_from_other_helpers_as_its_pods_do() {
        let terms =
            json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]});
        let apart = json!({"labelSelector": {"matchLabels": {"role": "peer"}}, "topologyKey": "zone"});
        let spec = json!({
            "containers": [],
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "fabric", "operator": "Exists"}],
            "priorityClassName": "high",
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "of-others"}}}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms},
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
            },
        });
        let workload = WorkloadObject {
            namespace: "org1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "peer0".to_owned(),
            replicas: 1,
            spec: serde_json::from_value(spec).unwrap(),
            labels: BTreeMap::from([("role".to_owned(), "peer".to_owned())]),
            annotations: BTreeMap::new(),
            instance: None,
            templates: Vec::new(),
            pods: Vec::new(),
            custom: None,
        };
        let mut placed = json!({});
        let spread = place_as(&mut placed, &workload).unwrap();
        assert_eq!(placed["nodeSelector"]["disk"], "ssd");
        assert_eq!(placed["tolerations"][0]["key"], "fabric");
        assert_eq!(placed["priorityClassName"], "high");
        assert_eq!(placed["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"], terms);
        assert!(placed["affinity"].get("podAffinity").is_none());
        let anti = placed["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"].clone();
        assert_eq!(anti.as_array().unwrap().len(), 2);
        assert_eq!(anti[1]["labelSelector"]["matchLabels"][&spread[0]], "yes");
        // What spreads over others' pods is taken as it is.
        assert_eq!((spread.len(), placed["topologySpreadConstraints"].as_array().unwrap().len()), (1, 1));
    }
}
