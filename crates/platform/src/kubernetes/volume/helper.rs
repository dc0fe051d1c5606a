//! Helper pods: they mount what a workload mounts, where no pod of it runs or its image has no shell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::PlatformError;
use crate::kubernetes::connection::exec::Place;
use crate::kubernetes::connection::{Connection, failed, is_missing};
use crate::kubernetes::discover::FoundNode;
use crate::kubernetes::discover::mounts::{Holder, Mount};
use crate::kubernetes::objects::MANAGED_BY;

/// How long a helper pod may take to run.
const START: Duration = Duration::from_secs(180);
/// A helper that a killed run left ends by itself after this long, in seconds.
const LIFETIME_SECONDS: i64 = 24 * 60 * 60;
/// Where helpers mount volumes.
const ROOT: &str = "/fabkeep";
const CONTAINER: &str = "helper";

/// How helper pods are made.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    /// Their image: any with a POSIX shell, tar and sha256sum.
    pub image: String,
}

impl Default for HelperOptions {
    fn default() -> Self {
        HelperOptions { image: "busybox:1.36".to_owned() }
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

/// The pod of a helper for these nodes, which share volumes or are one.
fn manifest(
    name: &str,
    run: &str,
    options: &HelperOptions,
    nodes: &[(usize, &FoundNode, &PodSpec)],
    host: Option<&str>,
) -> Option<Value> {
    let (_, first, spec) = nodes.first()?;
    let mut volumes: Vec<Value> = Vec::new();
    let mut mounts: Vec<Value> = Vec::new();
    for (position, node, spec) in nodes {
        for mount in node.mounts.iter().filter(|mount| is_mounted(mount)) {
            let volume = match &mount.holder {
                Holder::Claim(claim) => json!({"persistentVolumeClaim": {"claimName": claim}}),
                _ => {
                    let known = spec.volumes.iter().flatten().find(|volume| volume.name == mount.volume)?;
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
            mounts.push(entry);
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
            "volumeMounts": mounts
        }],
        "volumes": volumes
    });
    match host {
        // A volume that one pod has is given to another on the same machine only.
        Some(host) => pod_spec["nodeName"] = host.into(),
        None => {
            if let Some(selector) = &spec.node_selector {
                pod_spec["nodeSelector"] = serde_json::to_value(selector).ok()?;
            }
        }
    }
    if let Some(tolerations) = &spec.tolerations {
        pod_spec["tolerations"] = serde_json::to_value(tolerations).ok()?;
    }
    if let Some(secrets) = &spec.image_pull_secrets {
        pod_spec["imagePullSecrets"] = serde_json::to_value(secrets).ok()?;
    }
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": first.node.id.organization,
            "labels": {MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": "helper", "fabkeep.io/run": run}
        },
        "spec": pod_spec
    }))
}

/// Starts a helper for nodes and waits until it runs.
pub(crate) fn start(
    connection: &Arc<Connection>,
    name: &str,
    run: &str,
    options: &HelperOptions,
    nodes: &[(usize, &FoundNode, &PodSpec)],
) -> Result<Helper, PlatformError> {
    let host = nodes.iter().find_map(|(_, node, _)| node.pod.as_ref()?.host.clone());
    let namespace = nodes.first().map(|(_, node, _)| node.node.id.organization.clone()).unwrap_or_default();
    let wrong = |problem: String, next: &str| PlatformError::Cluster {
        what: format!("starting the helper pod {namespace}/{name}"),
        problem,
        next: next.to_owned(),
    };
    let manifest = manifest(name, run, options, nodes, host.as_deref());
    let pod: Pod = manifest
        .and_then(|manifest| serde_json::from_value(manifest).ok())
        .ok_or_else(|| wrong("its manifest cannot be made".to_owned(), "report this to fabkeep's makers"))?;
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
            if begun.elapsed() > START {
                return Err(wrong(
                    "it is removed again and again".to_owned(),
                    "find out by whom, then run the same command again",
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
        if why.starts_with("ErrImageNeverPull") || why.starts_with("InvalidImageName") || begun.elapsed() > START {
            return Err(wrong(
                why,
                "name an image that this cluster can pull (--helper-image), and look at the pod with `kubectl describe`; `fabkeep clean` removes it",
            ));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    let roots = nodes.iter().map(|(position, ..)| (*position, format!("{ROOT}/{position}"))).collect();
    Ok(Helper { place: Place { namespace, pod: name.to_owned(), container: CONTAINER.to_owned() }, roots })
}

/// Whether a helper still runs.
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
    let result = connection.try_run(|client| async move {
        let parameters = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        Api::<Pod>::namespaced(client, namespace).delete(name, &parameters).await.map(|_| ())
    });
    match result {
        Err(error) if !is_missing(&error) => {
            Err(failed(&format!("removing the helper pod {namespace}/{name}"), &error))
        }
        _ => Ok(()),
    }
}

/// Helper pods in a namespace, of any run: name, run, and age in seconds.
pub(crate) fn left(connection: &Connection, namespace: &str) -> Result<Vec<(String, String, i64)>, PlatformError> {
    let selector = format!("{}={},app.kubernetes.io/component=helper", MANAGED_BY.0, MANAGED_BY.1);
    let pods = connection.run(&format!("listing helper pods in {namespace}"), |client| {
        let parameters = ListParams::default().labels(&selector);
        async move { Api::<Pod>::namespaced(client, namespace).list(&parameters).await }
    })?;
    let now = jiff::Timestamp::now().as_second();
    Ok(pods
        .items
        .into_iter()
        .map(|pod| {
            let run = pod.metadata.labels.as_ref().and_then(|labels| labels.get("fabkeep.io/run")).cloned();
            let made = pod.metadata.creation_timestamp.map_or(now, |time| time.0.as_second());
            (pod.metadata.name.unwrap_or_default(), run.unwrap_or_default(), now - made)
        })
        .collect())
}
