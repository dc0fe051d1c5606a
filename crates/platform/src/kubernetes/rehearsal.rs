//! Tries changes as dry runs: the API server says whether it admits them, and does nothing.

use fabkeep_network::NodeId;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::connection::{AFTER_REFUSAL, failed, is_refused};
use super::objects::{REPLICAS, SCALED};
use super::target::{Target, api, handle};
use super::volume::helper;
use super::{Kubernetes, Volumes};
use crate::{Declaration, ObjectRef, PlatformError};

/// A change that a restore is going to ask for.
#[derive(Debug, Clone, Copy)]
pub enum TriedChange<'a> {
    /// To scale a workload to 0, and up again.
    Stop {
        /// The workload.
        workload: &'a ObjectRef,
        /// Whether it is scaled up again.
        start: bool,
    },
    /// To create an object; whether it is there already does not matter.
    Create(&'a Declaration),
    /// To delete an object.
    Delete(&'a Declaration),
}

/// A change that the API server would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedChange {
    /// The object that would be changed.
    pub object: String,
    /// The change: `scale it down`.
    pub change: &'static str,
    /// What the API server said.
    pub said: String,
}

impl Target {
    /// What to do about a change that is refused.
    pub const AFTER_REFUSAL: &str = AFTER_REFUSAL;

    /// Returns those of the changes that the API server would refuse, by rights, a quota or an admission policy. What else may be in their
    /// way is not said: a webhook that cannot take part in a dry run, or an object that is missing.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when the API server does not answer.
    pub fn refused(&self, changes: &[TriedChange<'_>]) -> Result<Vec<RefusedChange>, PlatformError> {
        let mut out = Vec::new();
        for change in changes {
            let mut refused = |object: String, change: &'static str, result: Result<(), kube::Error>| {
                out.extend(said(result).map(|said| RefusedChange { object, change, said }));
            };
            match *change {
                TriedChange::Stop { workload, start } => {
                    let replicas = self.replicas(workload)?.unwrap_or_default();
                    let down = self.try_scale(workload, json!({REPLICAS: replicas.to_string()}), 0);
                    refused(workload.to_string(), "scale it down", down);
                    if start && replicas > 0 {
                        let up = self.try_scale(workload, json!({REPLICAS: null}), replicas);
                        refused(workload.to_string(), "scale it up", up);
                    }
                }
                TriedChange::Create(declaration) => {
                    // What needs the address of a Service that is not there yet cannot be tried.
                    let Ok(object) = self.as_created(declaration, "trying out") else { continue };
                    let parameters = PostParams { dry_run: true, ..PostParams::default() };
                    let created = self.connection.try_run(|client| {
                        let (api, object) = (api(&self.connection, client, declaration), object.clone());
                        let parameters = parameters.clone();
                        async move { api.create(&parameters, &object).await.map(|_| ()) }
                    });
                    refused(declaration.label(), "create it", created);
                }
                TriedChange::Delete(declaration) => {
                    let deleted =
                        self.connection.try_run(|client| {
                            let api = api(&self.connection, client, declaration);
                            async move {
                                api.delete(&declaration.name, &DeleteParams::default().dry_run()).await.map(|_| ())
                            }
                        });
                    refused(declaration.label(), "delete it", deleted);
                }
            }
        }
        Ok(out)
    }

    fn try_scale(
        &self,
        workload: &ObjectRef,
        annotations: serde_json::Value,
        replicas: u32,
    ) -> Result<(), kube::Error> {
        if !SCALED.contains(&workload.kind.as_str()) {
            return Ok(());
        }
        let declaration = handle(workload);
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}});
        self.connection.try_run(|client| {
            let (api, patch) = (api(&self.connection, client, &declaration), Patch::Merge(patch.clone()));
            let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
            async move { api.patch(&workload.name, &parameters, &patch).await.map(|_| ()) }
        })
    }

    /// Returns the finalizers of an object in the cluster: they keep it after its deletion.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn finalizers(&self, declaration: &Declaration) -> Result<Vec<String>, PlatformError> {
        let found = self.get(declaration, &format!("looking at {}", declaration.label()))?;
        Ok(found.and_then(|found| found.metadata.finalizers).unwrap_or_default())
    }
}

impl Kubernetes {
    /// Returns the helper pods for these nodes' volumes that the cluster would not admit, with the rights of root and with those of the
    /// workload.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when the API server does not answer.
    pub fn refused_helpers(&self, nodes: &[&NodeId]) -> Result<Vec<RefusedChange>, PlatformError> {
        let mut out: Vec<RefusedChange> = Vec::new();
        let mut tried = Vec::new();
        for position in nodes.iter().filter_map(|node| self.position(node)) {
            let group = self.group(position);
            if tried.contains(&group) {
                continue;
            }
            let said = self.with_helper_pod(&group, position, Volumes::Own, |pod| {
                helper::create(&self.connection, pod, true).map(|_| ())
            });
            let id = &self.analysis.nodes[position].node.id;
            match said {
                Err(PlatformError::Forbidden { problem, .. }) => out.push(RefusedChange {
                    object: id.to_string(),
                    change: "create a helper pod for it",
                    said: problem,
                }),
                Ok(()) | Err(PlatformError::NotHere { .. } | PlatformError::Cluster { .. }) => {}
                Err(error) => return Err(error),
            }
            tried.push(group);
        }
        Ok(out)
    }
}

/// Returns what the API server said when it refused.
fn said(result: Result<(), kube::Error>) -> Option<String> {
    let error = result.err()?;
    if !is_refused(&error) {
        tracing::debug!(error = %failed("trying a change", &error), "a change could not be tried");
        return None;
    }
    match error {
        kube::Error::Api(status) => Some(status.message),
        other => Some(other.to_string()),
    }
}
