//! Helper pods: they mount what a workload mounts, if no pod of it runs or its image has no shell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabkeep_network::NodeDirectory;
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::PlatformError;
use crate::kubernetes::connection::exec::Place;
use crate::kubernetes::connection::{Connection, failed};
use crate::kubernetes::discover::FoundNode;
use crate::kubernetes::discover::mounts::{self, Holder, Mount};
use crate::kubernetes::discover::workloads::WorkloadObject;
use crate::kubernetes::objects::{MANAGED_BY, RUN, label, name_of, text};
use crate::kubernetes::uses::selects;

/// How long a helper pod may take to run.
const START: Duration = Duration::from_secs(180);
/// A helper that a killed run left ends by itself after this long, in seconds.
const LIFETIME_SECONDS: i64 = 24 * 60 * 60;
/// The same for one that mounts clones of snapshots, which may be copied before they can be mounted.
const START_WITH_CLONES: Duration = Duration::from_secs(30 * 60);
/// Where helpers mount volumes.
const ROOT: &str = "/fabkeep";
const CONTAINER: &str = "helper";

/// How helper pods and the clones that they mount are made.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    /// Their image: any with a POSIX shell, tar and sha256sum.
    pub image: String,
    /// VolumeSnapshotClasses and VolumeGroupSnapshotClasses that are preferred to the defaults of their drivers.
    pub snapshot_classes: Vec<String>,
}

impl Default for HelperOptions {
    fn default() -> Self {
        HelperOptions { image: "busybox:1.36".to_owned(), snapshot_classes: Vec::new() }
    }
}

/// A helper pod, and the nodes whose volumes it mounts: a node's directories lie below its root.
#[derive(Debug, Clone)]
pub(crate) struct Helper {
    pub place: Place,
    /// By position in the network: where its container's paths begin.
    pub roots: Vec<(usize, String)>,
}

fn is_mounted(mount: &Mount) -> bool {
    !matches!(mount.holder, Holder::Objects(_) | Holder::Ephemeral(_))
}

/// Returns the pod of a helper for these nodes, which share volumes or are one.
fn manifest(
    name: &str,
    run: &str,
    options: &HelperOptions,
    nodes: &[(usize, &FoundNode, &WorkloadObject)],
    host: Option<&str>,
    clones: Option<&BTreeMap<(String, String), String>>,
) -> Option<Value> {
    let (_, first, workload) = nodes.first()?;
    let spec = &workload.spec;
    let mut volumes: Vec<Value> = Vec::new();
    let mut mounted: Vec<Value> = Vec::new();
    for (position, node, workload) in nodes {
        for mount in node.mounts.iter().filter(|mount| is_mounted(mount)) {
            let volume = match (&mount.holder, clones) {
                (Holder::Claim(claim), Some(clones)) => {
                    let Some(clone) = clones.get(&(node.node.id.organization.clone(), claim.clone())) else { continue };
                    json!({"persistentVolumeClaim": {"claimName": clone}})
                }
                (_, Some(_)) => continue,
                (Holder::Claim(claim), None) => json!({"persistentVolumeClaim": {"claimName": claim}}),
                (_, None) => {
                    let known = workload.spec.volumes.iter().flatten().find(|volume| volume.name == mount.volume)?;
                    let mut value = serde_json::to_value(known).ok()?;
                    value.as_object_mut()?.remove("name");
                    value
                }
            };
            let at = volumes.iter().position(|known| known["source"] == volume).unwrap_or_else(|| {
                volumes.push(json!({"source": volume}));
                volumes.len() - 1
            });
            let mut entry = json!({"name": format!("v{at}"), "mountPath": format!("{ROOT}/{position}{}", mount.path)});
            if !mount.sub_path.is_empty() {
                entry["subPath"] = mount.sub_path.clone().into();
            }
            if clones.is_some() {
                entry["readOnly"] = true.into();
            }
            mounted.push(entry);
        }
    }
    let volumes: Vec<Value> = volumes
        .into_iter()
        .enumerate()
        .map(|(at, volume)| {
            let mut volume = volume["source"].clone();
            volume["name"] = format!("v{at}").into();
            volume
        })
        .collect();
    let mut pod_spec = json!({
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 0,
        "activeDeadlineSeconds": LIFETIME_SECONDS,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "containers": [{
            "name": CONTAINER,
            "image": options.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"],
            // Files belong to many users: reading, writing and giving them back takes root, and nothing else of root's powers.
            "securityContext": {
                "runAsUser": 0,
                "runAsNonRoot": false,
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]}
            },
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "volumeMounts": mounted
        }],
        "volumes": volumes
    });
    if let Some(host) = host {
        // A volume that one pod has is given to another on the same machine only.
        pod_spec["nodeName"] = host.into();
    }
    let spread = place_as(&mut pod_spec, workload)?;
    if let Some(secrets) = &spec.image_pull_secrets {
        pod_spec["imagePullSecrets"] = serde_json::to_value(secrets).ok()?;
    }
    let mut labels = json!({MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": "helper", RUN: run});
    for name in spread {
        labels[name] = "yes".into();
    }
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": first.node.id.organization,
            "labels": labels
        },
        "spec": pod_spec
    }))
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

/// Returns the hostPath that holds a directory of a node: it is on one machine.
pub(in crate::kubernetes) fn on_a_machine(node: &FoundNode) -> Option<(&NodeDirectory, &str)> {
    node.node.directories.iter().filter(|directory| directory.source.is_volume()).find_map(|directory| {
        let mount = mounts::holding(&node.mounts, directory.mounted_at.as_deref()?)?;
        if let Holder::HostPath(path) = &mount.holder { Some((directory, path.as_str())) } else { None }
    })
}

/// Returns whether a workload's pods run on one machine that it names: directly, by a selector, or by an affinity.
pub(in crate::kubernetes) fn names_machine(workload: &WorkloadObject) -> bool {
    const HOST: &str = "kubernetes.io/hostname";
    let spec = &workload.spec;
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_name.as_ref().is_some_and(|name| !name.is_empty())
        || spec.node_selector.as_ref().is_some_and(|labels| labels.contains_key(HOST))
        || required.is_some_and(|required| {
            let by_label = |term: &NodeSelectorTerm| term.match_expressions.iter().flatten().any(|one| one.key == HOST);
            let by_name = |term: &NodeSelectorTerm| term.match_fields.as_ref().is_some_and(|fields| !fields.is_empty());
            required.node_selector_terms.iter().all(|term| by_label(term) || by_name(term))
        })
}

/// Starts a helper for nodes and waits until it runs. `clones`: it mounts these instead of the claims, by claim.
pub(crate) fn start(
    connection: &Arc<Connection>,
    name: &str,
    run: &str,
    options: &HelperOptions,
    nodes: &[(usize, &FoundNode, &WorkloadObject)],
    clones: Option<&BTreeMap<(String, String), String>>,
) -> Result<Helper, PlatformError> {
    // A clone is nobody else's: it may be read on any machine.
    let live = nodes.iter().find_map(|(_, node, _)| node.pod.as_ref()?.host.clone());
    let named = || nodes.iter().find_map(|(.., workload)| workload.spec.node_name.clone());
    let host = live.or_else(named).filter(|host| clones.is_none() && !host.is_empty());
    let limit = if clones.is_some() { START_WITH_CLONES } else { START };
    let namespace = nodes.first().map(|(_, node, _)| node.node.id.organization.clone()).unwrap_or_default();
    let wrong = |problem: String, next: &str| PlatformError::Cluster {
        what: format!("starting the helper pod {namespace}/{name}"),
        problem,
        next: next.to_owned(),
    };
    let fixed = nodes.iter().find_map(|(_, node, workload)| Some((node, workload, on_a_machine(node)?.1)));
    if let Some((node, workload, path)) = fixed
        && clones.is_none()
        && host.is_none()
        && !names_machine(workload)
        && !connection.has_one_machine()?
    {
        return Err(wrong(
            format!(
                "{} has its data in the hostPath {path} of one machine, no pod of it runs, and {} does not name the machine",
                node.node.id,
                workload.label()
            ),
            "name the machine in its pod template (nodeName, or nodeSelector kubernetes.io/hostname), or start it",
        ));
    }
    let manifest = manifest(name, run, options, nodes, host.as_deref(), clones);
    let pod: Pod = manifest
        .and_then(|manifest| serde_json::from_value(manifest).ok())
        .ok_or_else(|| wrong("its manifest cannot be created".to_owned(), "report this to fabkeep's makers"))?;
    let create = || {
        let created = connection.try_run(|client| {
            let (pod, namespace) = (pod.clone(), namespace.clone());
            async move { Api::<Pod>::namespaced(client, &namespace).create(&PostParams::default(), &pod).await }
        });
        match created {
            Ok(_) => Ok(()),
            // Made by a try whose answer was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(failed(&format!("creating the helper pod {namespace}/{name}"), &error)),
        }
    };
    create()?;
    let begun = Instant::now();
    loop {
        let found = connection.run("looking at the helper pod", |client| {
            let namespace = namespace.clone();
            async move { Api::<Pod>::namespaced(client, &namespace).get_opt(name).await }
        })?;
        let Some(found) = found else {
            // Somebody removed it.
            if begun.elapsed() > limit {
                return Err(wrong(
                    "something keeps removing it".to_owned(),
                    "find out what removes it, then run the same command again",
                ));
            }
            create()?;
            std::thread::sleep(Duration::from_millis(250));
            continue;
        };
        let status = found.status.unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let running =
            containers.iter().any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
        if running {
            break;
        }
        let waits = containers.iter().find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            Some(format!("{} {}", waiting.reason.clone()?, waiting.message.clone().unwrap_or_default()))
        });
        let scheduling = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        let why = waits
            .or(scheduling.and_then(|condition| condition.message.clone()))
            .unwrap_or_else(|| "it is not running yet".to_owned());
        if why.starts_with("ErrImageNeverPull") || why.starts_with("InvalidImageName") || begun.elapsed() > limit {
            return Err(wrong(
                why,
                "name an image that this cluster can pull (--helper-image), and check the pod with `kubectl describe`; `fabkeep clean` removes it",
            ));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    let roots = nodes.iter().map(|(position, ..)| (*position, format!("{ROOT}/{position}"))).collect();
    Ok(Helper { place: Place { namespace, pod: name.to_owned(), container: CONTAINER.to_owned() }, roots })
}

/// Returns whether a helper still runs.
pub(crate) fn runs(connection: &Connection, place: &Place) -> Result<bool, PlatformError> {
    let found = connection.run("looking at a helper pod", |client| async move {
        Api::<Pod>::namespaced(client, &place.namespace).get_opt(&place.pod).await
    })?;
    Ok(found.is_some_and(|pod| {
        let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        let running = |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some();
        pod.metadata.deletion_timestamp.is_none()
            && statuses.iter().any(|container| container.state.as_ref().is_some_and(running))
    }))
}

/// Removes a pod at once; that it is gone already is fine.
pub(crate) fn remove(connection: &Connection, namespace: &str, name: &str) -> Result<(), PlatformError> {
    let deleted =
        connection.run_if_there(&format!("removing the helper pod {namespace}/{name}"), |client| async move {
            let parameters = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            Api::<Pod>::namespaced(client, namespace).delete(name, &parameters).await
        });
    deleted.map(|_| ())
}

/// Returns the run that made a helper pod; `None` for every other pod, whatever its labels say.
pub(in crate::kubernetes) fn run_of(pod: &Value) -> Option<&str> {
    let run = label(pod, RUN)?;
    let number = name_of(pod).strip_prefix("fabkeep-")?.strip_prefix(run)?.strip_prefix('-')?;
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array)?;
    let is_ours = label(pod, MANAGED_BY.0) == Some(MANAGED_BY.1)
        && is_run(run)
        && number.parse::<u32>().is_ok()
        && matches!(containers.as_slice(), [only] if text(only, "/name") == Some(CONTAINER));
    is_ours.then_some(run)
}

/// Returns whether a text names a run: hexadecimal digits.
pub(in crate::kubernetes) fn is_run(text: &str) -> bool {
    !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Helper pods in a namespace, of any run: name, run, and age in seconds.
pub(crate) fn left(connection: &Connection, namespace: &str) -> Result<Vec<(String, String, i64)>, PlatformError> {
    let now = jiff::Timestamp::now().as_second();
    let pods = connection.pods(namespace)?;
    let own = pods.iter().filter_map(|pod| {
        let run = run_of(pod)?.to_owned();
        let made = text(pod, "/metadata/creationTimestamp").and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let age = made.map_or(0, |made| now.saturating_sub(made.as_second()));
        Some((name_of(pod).to_owned(), run, age))
    });
    Ok(own.collect())
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
