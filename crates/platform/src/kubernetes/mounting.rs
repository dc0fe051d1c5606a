//! Who mounts claims: pods of others, and helper pods of other runs. Whether claims are there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::Value;

use super::connection::exec::ContainerRef;
use super::objects::resource;
use super::target::Target;
use super::volume::helper;
use super::volume::helper_pod::RESTORE;
use super::{Kubernetes, objects};
use crate::{ObjectRef, PlatformError};

/// How long the commands of a run that was killed may go on.
const STREAMS_END: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(500);

/// A pod that has mounted claims, or is about to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountingPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Claims of those asked for.
    pub claims: Vec<String>,
    /// What made it: kind and name.
    pub made_by: Option<(String, String)>,
}

impl Target {
    /// Pods of a namespace that mount one of these claims, those too that are on their way out; fabkeep's own helpers left out.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn pods_mounting(&self, namespace: &str, claims: &BTreeSet<String>) -> Result<Vec<MountingPod>, PlatformError> {
        let mut out = Vec::new();
        for pod in self.connection.pods(namespace)? {
            let ended = matches!(objects::text(&pod, "/status/phase"), Some("Succeeded" | "Failed"));
            if ended || helper::run_of(&pod).is_some() {
                continue;
            }
            let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
            let named = volumes.filter_map(|volume| objects::text(volume, "/persistentVolumeClaim/claimName"));
            let mounted: Vec<String> = named.filter(|claim| claims.contains(*claim)).map(str::to_owned).collect();
            if mounted.is_empty() {
                continue;
            }
            let made_by = objects::controller(&pod).map(|(kind, name)| (kind.to_owned(), name.to_owned()));
            let name = objects::name_of(&pod).to_owned();
            out.push(MountingPod { namespace: namespace.to_owned(), name, claims: mounted, made_by });
        }
        Ok(out)
    }
}

/// A helper pod of another run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherHelper {
    /// The pod.
    pub pod: ObjectRef,
    /// The run that made it.
    pub run: String,
    /// The restore that it fills volumes for.
    restore: Option<String>,
}

impl Kubernetes {
    /// Returns helper pods of other runs that mount one of these claims.
    fn helpers_of_others(&self, claims: &BTreeSet<(String, String)>) -> Result<Vec<OtherHelper>, PlatformError> {
        let namespaces: BTreeSet<&String> = claims.iter().map(|(namespace, _)| namespace).collect();
        let mut out = Vec::new();
        for namespace in namespaces {
            for pod in self.connection.pods(namespace)? {
                let Some(run) = helper::run_of(&pod).filter(|run| *run != self.run) else { continue };
                let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
                let mut named = volumes.filter_map(|volume| objects::text(volume, "/persistentVolumeClaim/claimName"));
                if named.any(|claim| claims.contains(&(namespace.clone(), claim.to_owned()))) {
                    let restore = objects::label(&pod, RESTORE).map(str::to_owned);
                    let run = run.to_owned();
                    out.push(OtherHelper {
                        pod: ObjectRef::new("Pod", namespace, objects::name_of(&pod)),
                        run,
                        restore,
                    });
                }
            }
        }
        Ok(out)
    }

    /// Returns helper pods in which another run of fabkeep works and that mount one of these claims: a backup that reads them, or another
    /// restore. Those of earlier runs of the same restore do not count. What a killed run has left ends soon, and is waited for.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn helpers_in_use(&self, claims: &BTreeSet<(String, String)>) -> Result<Vec<OtherHelper>, PlatformError> {
        let begun = Instant::now();
        loop {
            let mut used = self.helpers_of_others(claims)?;
            used.retain(|other| other.restore.is_none() || other.restore != self.options.restore);
            let mut out = Vec::new();
            for other in used {
                let (namespace, pod) = (other.pod.namespace.clone(), other.pod.name.clone());
                let place = ContainerRef { namespace, pod, container: helper::CONTAINER.to_owned() };
                if helper::is_used(&self.connection, &place)? {
                    out.push(other);
                }
            }
            if out.is_empty() || begun.elapsed() > STREAMS_END {
                return Ok(out);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Removes helper pods of other runs that mount one of these claims: a run that was killed has left them, and a claim is not given to
    /// a pod on another Kubernetes node while they have it.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn remove_left_helpers(&self, claims: &BTreeSet<(String, String)>) -> Result<(), PlatformError> {
        for other in self.helpers_of_others(claims)? {
            helper::remove(&self.connection, &other.pod.namespace, &other.pod.name)?;
        }
        Ok(())
    }
}

impl Target {
    /// Returns which of these claims are being deleted or do not exist.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn claims_lost(&self, namespace: &str, claims: &BTreeSet<String>) -> Result<Vec<String>, PlatformError> {
        let resource = resource("v1", "PersistentVolumeClaim", None);
        let list = self.connection.run(&format!("listing claims in namespace {namespace}"), |client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
            async move { api.list(&ListParams::default()).await }
        })?;
        let stays = |claim: &DynamicObject| claim.metadata.deletion_timestamp.is_none();
        let there: BTreeSet<String> =
            list.items.into_iter().filter(stays).filter_map(|claim| claim.metadata.name).collect();
        Ok(claims.difference(&there).cloned().collect())
    }
}
