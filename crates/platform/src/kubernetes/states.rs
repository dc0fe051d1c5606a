//! What helps to find a fault in a cluster: events, the states of pods and workloads; and the secrets that must not be told with them.

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::Kubernetes;
use super::connection::failed;
use super::objects::{SCALED, name_of, resource, text};
use crate::PlatformError;

/// Most events of a namespace.
const MAX_EVENTS: u32 = 500;

/// A file's name, and what it holds.
pub type StateRead = (String, Result<Value, PlatformError>);

impl Kubernetes {
    /// Returns the events and the states of pods, workloads and claims of each namespace. Specifications are left out: environments and
    /// commands can hold secrets.
    pub fn states(&self) -> Vec<StateRead> {
        let mut out = Vec::new();
        for (namespace, _) in &self.analysis.all {
            let name = &namespace.name;
            out.push((format!("{name}/events.json"), self.events(name)));
            let pods = self.connection.pods(name).map(|pods| pods.iter().map(state_of_pod).collect());
            out.push((format!("{name}/pods.json"), pods));
            let workloads = SCALED.iter().chain(&["DaemonSet"]).flat_map(|kind| {
                let of_kind = namespace.of_kind(kind).iter();
                of_kind.map(move |object| {
                    json!({"kind": kind, "name": name_of(object), "replicas": object.pointer("/spec/replicas"),
                        "status": object.get("status")})
                })
            });
            out.push((format!("{name}/workloads.json"), Ok(workloads.collect())));
            let claims = namespace.of_kind("PersistentVolumeClaim").iter().map(|claim| {
                json!({"name": name_of(claim), "class": claim.pointer("/spec/storageClassName"),
                    "size": claim.pointer("/spec/resources/requests/storage"), "status": claim.get("status")})
            });
            out.push((format!("{name}/claims.json"), Ok(claims.collect())));
        }
        out
    }

    fn events(&self, namespace: &str) -> Result<Value, PlatformError> {
        let events = resource("v1", "Event", Some("events"));
        let listed = self.connection.try_run(|client| {
            let (events, parameters) = (events.clone(), ListParams::default().limit(MAX_EVENTS));
            async move { Api::<DynamicObject>::namespaced_with(client, namespace, &events).list(&parameters).await }
        });
        let listed = listed.map_err(|error| failed(&format!("listing Event in namespace {namespace}"), &error))?;
        let told = listed.items.into_iter().filter_map(|event| {
            let event = serde_json::to_value(event).ok()?;
            let about = format!(
                "{} {}",
                text(&event, "/involvedObject/kind").unwrap_or_default(),
                text(&event, "/involvedObject/name").unwrap_or_default()
            );
            Some(json!({"about": about, "type": event.get("type"), "reason": event.get("reason"),
                "message": event.get("message"), "count": event.get("count"), "first": event.get("firstTimestamp"),
                "last": event.get("lastTimestamp")}))
        });
        Ok(told.collect())
    }

    /// Returns every value of the Secrets in the network's namespaces.
    pub fn secret_values(&self) -> Vec<Vec<u8>> {
        let namespaces = self.analysis.all.iter().map(|(namespace, _)| namespace);
        let of_namespaces = namespaces.flat_map(|namespace| {
            let secrets = namespace.of_kind("Secret").iter();
            secrets.flat_map(|secret| namespace.secret(name_of(secret)).into_values())
        });
        of_namespaces.collect()
    }

    /// Returns the texts of the network's ConfigMaps, and of its workloads' commands and environments as lines `NAME=VALUE`.
    pub fn configuration_texts(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (namespace, workloads) in &self.analysis.all {
            for map in namespace.of_kind("ConfigMap") {
                let data = map.get("data").and_then(Value::as_object);
                for (key, value) in data.into_iter().flatten() {
                    let value = value.as_str().unwrap_or_default();
                    out.extend([value.to_owned(), format!("{key}={value}")]);
                }
            }
            for workload in workloads {
                let inits = workload.spec.init_containers.iter().flatten();
                for container in workload.spec.containers.iter().chain(inits) {
                    let words = container.command.iter().chain(&container.args).flatten();
                    out.push(words.cloned().collect::<Vec<_>>().join(" "));
                    let named = container.env.iter().flatten();
                    out.extend(named.filter_map(|env| Some(format!("{}={}", env.name, env.value.as_ref()?))));
                }
            }
        }
        out
    }
}

/// Returns what a pod does, without what it was told to do.
fn state_of_pod(pod: &Value) -> Value {
    json!({"name": name_of(pod), "created": pod.pointer("/metadata/creationTimestamp"),
        "deleted": pod.pointer("/metadata/deletionTimestamp"), "node": pod.pointer("/spec/nodeName"),
        "status": pod.get("status")})
}
