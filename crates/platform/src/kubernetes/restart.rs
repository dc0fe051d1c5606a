//! Restarts a node: its pod is deleted, and its workload makes another one.

use std::time::{Duration, Instant};

use fabkeep_network::NodeId;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::Value;

use super::discover::workloads::live_pod;
use super::{Kubernetes, objects};
use crate::{ObjectRef, PlatformError};

const POLL: Duration = Duration::from_millis(500);

impl Kubernetes {
    /// Returns the workload that runs a node, and makes its pod anew when it is deleted; `None` for a standalone pod, which nothing makes
    /// anew.
    pub fn remade_by(&self, node: &NodeId) -> Option<ObjectRef> {
        let position = self.position(node)?;
        let workload = self.analysis.nodes[position].node.workload.as_ref()?;
        Some(ObjectRef::from(workload)).filter(|workload| workload.kind != "Pod")
    }

    /// Deletes the pod of a node, and waits until another one has taken its place and is ready; `false` when that does not happen before the
    /// deadline. A node without a pod is only waited for.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when the cluster cannot be asked, or refuses.
    pub fn restart(
        &self,
        node: &NodeId,
        deadline: Duration,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<bool, PlatformError> {
        let (Some(workload), Some(position)) = (self.remade_by(node), self.position(node)) else { return Ok(false) };
        let ordinal = self.analysis.nodes[position].node.workload.as_ref().and_then(|workload| workload.ordinal);
        let name = ordinal.map(|ordinal| format!("{}-{ordinal}", workload.name));
        let pods = || -> Result<Vec<Value>, PlatformError> {
            let mut pods = self.pod_objects(&workload)?;
            pods.retain(|pod| name.as_deref().is_none_or(|name| objects::name_of(pod) == name));
            Ok(pods)
        };
        let uid = |pod: &Value| objects::text(pod, "/metadata/uid").unwrap_or_default().to_owned();
        let before: Vec<String> = pods()?.iter().map(uid).collect();
        for pod in pods()? {
            self.delete_pod(&workload.namespace, objects::name_of(&pod))?;
        }
        let begun = Instant::now();
        loop {
            let now = pods()?;
            let (old, new): (Vec<&Value>, Vec<&Value>) = now.iter().partition(|pod| before.contains(&uid(pod)));
            if old.is_empty() && new.into_iter().filter_map(live_pod).any(|pod| pod.ready) {
                return Ok(true);
            }
            if begun.elapsed() > deadline || is_interrupted() {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Deletes a pod, which gets its own time to end.
    fn delete_pod(&self, namespace: &str, name: &str) -> Result<(), PlatformError> {
        let deleted =
            self.connection.run_if_there(&format!("deleting the pod {namespace}/{name}"), |client| async move {
                Api::<Pod>::namespaced(client, namespace).delete(name, &DeleteParams::default()).await
            });
        deleted.map(|_| ())
    }
}
