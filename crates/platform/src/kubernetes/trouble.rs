//! Reasons why a workload's pods do not run: crash loops, images that cannot be pulled, pods that cannot be scheduled, volumes that cannot
//! be mounted. They are reported immediately, with the container's last log lines, instead of after a deadline.

use std::time::Duration;

use fabkeep_network::{Finding, Remedy, Rule, Severity, classify_log};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, ListParams, LogParams};
use serde_json::Value;

use super::Kubernetes;
use super::connection::Connection;
use super::objects::{name_of, resource, text};
use super::uses::required;
use crate::ObjectRef;

/// Lines of a log that ended that are read, and how many of them are reported.
const READ_LINES: i64 = 200;
const QUOTED_LINES: usize = 6;
/// Most bytes of such a log, and the longest line that is reported.
const MAX_LOG_BYTES: i64 = 256 << 10;
const MAX_LINE_CHARS: usize = 240;
/// A container that ended this often for a reason that no rule names does not come up by itself.
const HOPELESS_RESTARTS: i64 = 3;
/// How long an image that cannot be pulled, and a configuration that is not there, may last.
const IMAGE: Duration = Duration::from_secs(60);
const CONFIGURATION: Duration = Duration::from_secs(30);

/// Reasons of events of volumes that cannot be mounted or attached.
const FAILED_MOUNTS: [&str; 3] = ["FailedMount", "FailedAttachVolume", "FailedMapVolume"];
/// How the kubelet's answer begins when it has no log of a container any more.
const NO_LOG: &str = "unable to retrieve container logs for ";

/// What keeps a pod from running.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub finding: Finding,
    /// If it lasts for so long, waiting longer does not help; `None`: it may still pass.
    pub hopeless_after: Option<Duration>,
}

impl Kubernetes {
    /// Returns what prevents a workload's pods from running, as far as the API server shows it.
    pub(super) fn troubles(&self, workload: &ObjectRef, pods: &[Value]) -> Vec<Trouble> {
        if pods.is_empty() {
            return self.connection.creation_failure(workload).into_iter().collect();
        }
        pods.iter().filter_map(|pod| trouble(&self.connection, &workload.namespace, pod)).collect()
    }
}

fn trouble(connection: &Connection, namespace: &str, pod: &Value) -> Option<Trouble> {
    let subject = format!("Pod {namespace}/{}", name_of(pod));
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .flat_map(|at| pod.pointer(at).and_then(Value::as_array).into_iter().flatten());
    for status in statuses {
        let container = text(status, "/name").unwrap_or_default();
        let waiting = text(status, "/state/waiting/reason").unwrap_or_default();
        let message = text(status, "/state/waiting/message").unwrap_or_default();
        let restarts = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        let ended = status.pointer("/state/terminated/exitCode").and_then(Value::as_i64).is_some_and(|code| code != 0);
        match waiting {
            "CrashLoopBackOff" | "RunContainerError" => {
                return Some(crash(connection, namespace, pod, container, restarts, subject));
            }
            _ if ended && restarts > 0 => {
                return Some(crash(connection, namespace, pod, container, restarts, subject));
            }
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                let image = text(status, "/image").unwrap_or_default();
                let never = matches!(waiting, "InvalidImageName" | "ErrImageNeverPull");
                let finding = Finding::error(
                    Rule::Declared,
                    subject,
                    format!(
                        "{waiting}: the image {image} of container {container} cannot be pulled: {}",
                        shortened(message)
                    ),
                    Remedy::from("make the image available to the cluster (imagePullSecrets may be missing)")
                        .or(Remedy::OtherRegistry),
                );
                return Some(Trouble { finding, hopeless_after: Some(if never { Duration::ZERO } else { IMAGE }) });
            }
            "CreateContainerConfigError" | "CreateContainerError" => {
                let finding = Finding::error(
                    Rule::Declared,
                    subject,
                    format!("{waiting}: container {container} cannot be created: {}", shortened(message)),
                    "a Secret, a ConfigMap or a key in one that it names is missing: check the pod with `kubectl describe`",
                );
                return Some(Trouble { finding, hopeless_after: Some(CONFIGURATION) });
            }
            _ => {}
        }
    }
    let pending = text(pod, "/status/phase").is_none_or(|phase| phase == "Pending");
    let absent = if pending { connection.absent(namespace, pod) } else { Vec::new() };
    if !absent.is_empty() {
        let finding = Finding::error(
            Rule::Declared,
            subject,
            format!("it cannot start without {}, which does not exist", absent.join(", ")),
            "find out what removed it, or what was to create it; then run the same command again",
        );
        return Some(Trouble { finding, hopeless_after: Some(CONFIGURATION) });
    }
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    for condition in conditions {
        let is = |kind: &str| text(condition, "/type") == Some(kind) && text(condition, "/status") == Some("False");
        if is("PodScheduled") {
            let finding = Finding::error(
                Rule::ReadyPerChannel,
                subject,
                format!(
                    "it cannot be scheduled on any Kubernetes node: {}",
                    shortened(text(condition, "/message").unwrap_or("unschedulable"))
                ),
                "add a suitable node to the cluster, or correct the workload's affinity, tolerations or requests; a volume may be bound in another zone",
            );
            return Some(Trouble { finding, hopeless_after: None });
        }
    }
    let mount = pending.then(|| connection.newest_event(namespace, ("Pod", name_of(pod)), &FAILED_MOUNTS)).flatten()?;
    let finding = Finding::error(
        Rule::Declared,
        subject,
        format!("a volume cannot be mounted: {}", shortened(&mount)),
        "check the pod's events (`kubectl describe`): a Secret may be missing, or the volume is attached to another Kubernetes node",
    );
    Some(Trouble { finding, hopeless_after: None })
}

/// Returns a container that ends again and again: its last lines, and the rule that they speak of.
fn crash(
    connection: &Connection,
    namespace: &str,
    pod: &Value,
    container: &str,
    restarts: i64,
    subject: String,
) -> Trouble {
    let log = connection.ended_log(namespace, name_of(pod), container).unwrap_or_default();
    let worst = classify_log(&log, "").into_iter().find(|message| message.severity == Severity::Error);
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last: Vec<String> =
        lines[lines.len().saturating_sub(QUOTED_LINES)..].iter().map(|line| shortened(line)).collect();
    let words =
        if last.is_empty() { "it has no log".to_owned() } else { format!("its last lines: {}", last.join(" | ")) };
    let (rule, remedy, by_rule) = match worst {
        Some(message) => (message.rule, message.remedy, message.rule != Rule::LogsClean),
        None => (Rule::LogsClean, "read the container's log (`kubectl logs --previous`)".to_owned(), false),
    };
    let finding = Finding::error(
        rule,
        subject,
        format!("container {container} keeps crashing ({restarts} restarts); {words}"),
        remedy,
    );
    let hopeless = by_rule || restarts >= HOPELESS_RESTARTS;
    Trouble { finding, hopeless_after: hopeless.then_some(Duration::ZERO) }
}

fn shortened(line: &str) -> String {
    line.trim().chars().take(MAX_LINE_CHARS).collect()
}

impl Connection {
    /// Returns the end of the log of a container that ended; of one that runs again, of its life before.
    fn ended_log(&self, namespace: &str, pod: &str, container: &str) -> Option<String> {
        [true, false].into_iter().find_map(|previous| {
            let parameters = LogParams {
                container: Some(container.to_owned()),
                previous,
                tail_lines: Some(READ_LINES),
                limit_bytes: Some(MAX_LOG_BYTES),
                ..LogParams::default()
            };
            let read = self.try_run(|client| {
                let (api, parameters) = (Api::<Pod>::namespaced(client, namespace), parameters.clone());
                async move { api.logs(pod, &parameters).await }
            });
            // What the kubelet answers when the log is gone already.
            read.ok().filter(|text| !text.trim().is_empty() && !text.starts_with(NO_LOG))
        })
    }

    /// Returns Secrets, ConfigMaps and claims that a pod needs and that do not exist. What may not be read counts as existing.
    pub(super) fn absent(&self, namespace: &str, pod: &Value) -> Vec<String> {
        let named = pod.get("spec").map(required).unwrap_or_default();
        let is_absent = |(kind, name): &(&str, String)| {
            let resource = resource("v1", kind, None);
            let found = self.try_run(|client| {
                let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
                async move { api.get_metadata_opt(name).await }
            });
            matches!(found, Ok(None))
        };
        named.iter().filter(|known| is_absent(known)).map(|(kind, name)| format!("{kind} {namespace}/{name}")).collect()
    }

    /// Returns what an object's newest event with one of these reasons says. Without the right to list events: nothing.
    fn newest_event(&self, namespace: &str, (kind, name): (&str, &str), reasons: &[&str]) -> Option<String> {
        let events = resource("v1", "Event", Some("events"));
        let parameters = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let list = self.try_run(|client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &events);
            let parameters = parameters.clone();
            async move { api.list(&parameters).await }
        });
        let wanted = |event: &&DynamicObject| {
            let of = |at: &str| event.data.pointer(at).and_then(Value::as_str).unwrap_or_default();
            of("/involvedObject/kind") == kind && of("/involvedObject/name") == name && reasons.contains(&of("/reason"))
        };
        let items = list.ok()?.items;
        let newest = items.iter().rfind(wanted)?;
        newest.data.pointer("/message").and_then(Value::as_str).map(str::to_owned)
    }

    /// Returns why a workload's pods cannot even be created: a quota, a webhook, an account that is missing.
    fn creation_failure(&self, workload: &ObjectRef) -> Option<Trouble> {
        let declaration = super::target::handle(workload);
        let found = self.try_run(|client| {
            let api = super::target::api(self, client, &declaration);
            async move { api.get_opt(&workload.name).await }
        });
        let found = found.ok()??;
        let conditions = found.data.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let mut failures = conditions.filter(|condition| {
            text(condition, "/type") == Some("ReplicaFailure") && text(condition, "/status") == Some("True")
        });
        let failure = match failures.next() {
            Some(failure) => text(failure, "/message").unwrap_or("ReplicaFailure").to_owned(),
            // Only Deployments and ReplicaSets say it in their state.
            None => self.newest_event(&workload.namespace, (&workload.kind, &workload.name), &["FailedCreate"])?,
        };
        let finding = Finding::error(
            Rule::Declared,
            workload.to_string(),
            format!("its pods cannot be created: {}", shortened(&failure)),
            "a quota, an admission webhook or a missing service account prevents them: correct that; the same command continues",
        );
        Some(Trouble { finding, hopeless_after: Some(IMAGE) })
    }
}
