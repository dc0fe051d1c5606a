//! Helper pods: they mount what a workload mounts, if no pod of it runs or its image has no shell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabkeep_network::{NodeDirectory, NodeId, Remedy};
use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use parking_lot::Mutex;
use serde_json::Value;

use super::helper_pod::{HelperPod, Rights};
use crate::PlatformError;
use crate::kubernetes::connection::exec::{ContainerRef, command_name};
use crate::kubernetes::connection::{Connection, failed};
use crate::kubernetes::discover::FoundNode;
use crate::kubernetes::discover::mounts::{self, Holder};
use crate::kubernetes::discover::workloads::WorkloadObject;
use crate::kubernetes::objects::{MANAGED_BY, RUN, label, name_of, text};

/// A helper pod that does not run after this long is reported.
const SLOW: Duration = Duration::from_secs(5);
/// How long what a helper pod mounts may be missing, and how often that is looked for.
const ABSENT: Duration = Duration::from_secs(15);
/// How long a helper pod may take to run.
const START: Duration = Duration::from_secs(180);
/// The same for one that mounts clones of snapshots, which may be copied before they can be mounted.
const START_WITH_CLONES: Duration = Duration::from_secs(30 * 60);
/// The same for one that is only tried.
const START_OF_TRIAL: Duration = Duration::from_secs(90);
/// Where helpers mount volumes.
pub(super) const ROOT: &str = "/fabkeep";
pub(in crate::kubernetes) const CONTAINER: &str = "helper";

/// How helper pods and the clones that they mount are made.
#[derive(Debug, Clone)]
pub struct HelperOptions {
    /// Their image: any with a POSIX shell, tar and sha256sum.
    pub image: String,
    /// VolumeSnapshotClasses and VolumeGroupSnapshotClasses that are preferred to the defaults of their drivers.
    pub snapshot_classes: Vec<String>,
    /// Users that the captured files of nodes belong to: of a helper that may not be root, where its workload names none.
    pub owners: BTreeMap<NodeId, u32>,
    /// The restore that they fill volumes for: the same for each run of it.
    pub restore: Option<String>,
}

impl Default for HelperOptions {
    fn default() -> Self {
        HelperOptions {
            image: "busybox:1.36".to_owned(),
            snapshot_classes: Vec::new(),
            owners: BTreeMap::new(),
            restore: None,
        }
    }
}

/// Helper pods that do not run yet: since when, and what is said of each.
#[derive(Default)]
pub(crate) struct Starting(Mutex<BTreeMap<String, (Instant, String)>>);

impl Starting {
    fn begin(&self, pod: &str) {
        self.0.lock().insert(pod.to_owned(), (Instant::now(), String::new()));
    }

    fn waits(&self, pod: &str, why: &str) {
        if let Some((_, said)) = self.0.lock().get_mut(pod) {
            why.clone_into(said);
        }
    }

    fn end(&self, pod: &str) {
        self.0.lock().remove(pod);
    }

    /// Returns those that take long.
    pub fn slow(&self) -> Vec<(String, String)> {
        let known = self.0.lock();
        let slow = known.iter().filter(|(_, (since, said))| since.elapsed() >= SLOW && !said.is_empty());
        slow.map(|(pod, (_, said))| (pod.clone(), said.clone())).collect()
    }
}

/// A helper pod, and the nodes whose volumes it mounts: a node's directories lie below its root.
#[derive(Debug, Clone)]
pub(crate) struct Helper {
    pub place: ContainerRef,
    /// By position in the network: where its container's paths begin.
    pub roots: Vec<(usize, String)>,
    pub rights: Rights,
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

/// Starts a helper and waits until it runs.
pub(crate) fn start(connection: &Arc<Connection>, wanted: &HelperPod<'_>) -> Result<Helper, PlatformError> {
    let namespace = wanted.nodes.first().map_or("", |(_, node, _)| node.node.id.organization.as_str());
    let pod = format!("{namespace}/{}", wanted.name);
    connection.starting.begin(&pod);
    let started = start_now(connection, wanted, &pod);
    connection.starting.end(&pod);
    started
}

fn start_now(connection: &Arc<Connection>, wanted: &HelperPod<'_>, label: &str) -> Result<Helper, PlatformError> {
    let (name, nodes, clones) = (wanted.name, wanted.nodes, wanted.clones);
    // A clone is nobody else's: it may be read on any machine.
    let live = nodes.iter().find_map(|(_, node, _)| node.pod.as_ref()?.host.clone());
    let named = || nodes.iter().find_map(|(.., workload)| workload.spec.node_name.clone());
    let host = live.or_else(named).filter(|host| clones.is_none() && !wanted.trial && !host.is_empty());
    let limit = match (wanted.trial, clones) {
        (true, _) => START_OF_TRIAL,
        (false, Some(_)) => START_WITH_CLONES,
        (false, None) => START,
    };
    let namespace = nodes.first().map(|(_, node, _)| node.node.id.organization.clone()).unwrap_or_default();
    let wrong = |problem: String, next: Remedy| PlatformError::Cluster {
        what: format!("starting the helper pod {namespace}/{name}"),
        problem,
        next,
    };
    let fixed = nodes.iter().find_map(|(_, node, workload)| Some((node, workload, on_a_machine(node)?.1)));
    if let Some((node, workload, path)) = fixed
        && clones.is_none()
        && !wanted.trial
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
            "name the machine in its pod template (nodeName, or nodeSelector kubernetes.io/hostname), or start it"
                .into(),
        ));
    }
    let wanted = HelperPod { host: host.as_deref(), ..*wanted };
    let rights = create(connection, &wanted, false)?;
    let (begun, mut look_for_absent) = (Instant::now(), ABSENT);
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
                    "find out what removes it, then run the same command again".into(),
                ));
            }
            create_with(connection, &wanted, rights, false)?;
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
            .or_else(|| scheduling.and_then(|condition| condition.message.clone()))
            .unwrap_or_else(|| "it is not running yet".to_owned());
        connection.starting.waits(label, &why);
        let mut absent = Vec::new();
        if begun.elapsed() > look_for_absent {
            look_for_absent = begun.elapsed() + ABSENT;
            absent = connection.absent(&namespace, &wanted.manifest(rights).unwrap_or_default());
        }
        if !absent.is_empty() {
            return Err(wrong(
                format!("{why}; these objects do not exist: {}", absent.join(", ")),
                Remedy::from("find out what removed them; then run the same command again").and(Remedy::RemoveHelpers),
            ));
        }
        let mut is_final = vec!["ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError"];
        if wanted.trial {
            // A backup waits: a registry may answer again.
            is_final.push("ImagePullBackOff");
        }
        if is_final.iter().any(|reason| why.starts_with(reason)) || begun.elapsed() > limit {
            let next = if scheduling.is_some() {
                Remedy::from(
                    "add a suitable node to the cluster, or correct the storage class of the claim that is not bound",
                )
            } else {
                Remedy::NameHelperImage.and("check the pod with `kubectl describe`")
            };
            return Err(wrong(why, next.and(Remedy::RemoveHelpers)));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    let roots = nodes.iter().map(|(position, ..)| (*position, format!("{ROOT}/{position}"))).collect();
    Ok(Helper {
        place: ContainerRef { namespace, pod: name.to_owned(), container: CONTAINER.to_owned() },
        roots,
        rights,
    })
}

/// Creates a helper pod, with the rights that the cluster admits; with `dry_run` the cluster only says whether it would. Returns the rights.
pub(in crate::kubernetes) fn create(
    connection: &Connection,
    wanted: &HelperPod<'_>,
    dry_run: bool,
) -> Result<Rights, PlatformError> {
    let rights = wanted.rights();
    match create_with(connection, wanted, rights, dry_run) {
        // An admission controller may refuse root's rights and admit the workload's.
        Err(PlatformError::Forbidden { .. }) if rights == Rights::Root => {
            let rights = wanted.rights_of_workload();
            create_with(connection, wanted, rights, dry_run).map(|()| rights)
        }
        created => created.map(|()| rights),
    }
}

fn create_with(
    connection: &Connection,
    wanted: &HelperPod<'_>,
    rights: Rights,
    dry_run: bool,
) -> Result<(), PlatformError> {
    let namespace = wanted.nodes.first().map(|(_, node, _)| node.node.id.organization.as_str()).unwrap_or_default();
    let what = format!("creating the helper pod {namespace}/{}", wanted.name);
    let manifest = wanted.manifest(rights).and_then(|manifest| serde_json::from_value::<Pod>(manifest).ok());
    let pod = manifest.ok_or_else(|| PlatformError::Cluster {
        what: what.clone(),
        problem: "its manifest cannot be created".to_owned(),
        next: "report this to fabkeep's makers".into(),
    })?;
    let parameters = PostParams { dry_run, ..PostParams::default() };
    let created = connection.try_run(|client| {
        let (pod, parameters) = (pod.clone(), parameters.clone());
        async move { Api::<Pod>::namespaced(client, namespace).create(&parameters, &pod).await }
    });
    match created {
        Ok(_) => Ok(()),
        // Made by a try whose answer was lost.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(failed(&what, &error)),
    }
}

/// Counts the processes whose arguments contain `$1`, without this one and the shell that started it.
const USERS: &str = r#"read -r own rest < /proc/self/stat
count=0
for file in /proc/[0-9]*/cmdline; do
  case $file in "/proc/$$/cmdline" | "/proc/$own/cmdline") continue ;; esac
  case $(tr '\000' '\n' < "$file" 2>/dev/null) in *"$1"*) count=$((count + 1)) ;; esac
done
echo "$count""#;

/// Returns whether commands of fabkeep run in a helper: the run that made it still works there. A run that was killed leaves none, because
/// they end with their streams.
pub(in crate::kubernetes) fn is_used(connection: &Connection, place: &ContainerRef) -> Result<bool, PlatformError> {
    if !runs(connection, place)? {
        return Ok(false);
    }
    let counted = connection.output(place, USERS, &[&command_name(&place.pod)], &[], 32);
    // In a helper in which nothing can be executed, nothing is.
    Ok(counted.is_ok_and(|count| String::from_utf8_lossy(&count).trim().parse::<u32>().is_ok_and(|count| count > 0)))
}

/// Returns whether a helper still runs.
pub(crate) fn runs(connection: &Connection, place: &ContainerRef) -> Result<bool, PlatformError> {
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
