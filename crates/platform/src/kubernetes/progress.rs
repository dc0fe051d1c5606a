//! A note that a restore keeps in the cluster while it is under way: a ConfigMap that only its own run writes.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::connection::{failed, is_missing};
use super::objects::{MANAGED_BY, resource};
use super::target::Target;
use crate::PlatformError;

/// Where in the ConfigMap the text is.
const KEY: &str = "progress.json";
/// Longest note that is read, in bytes.
const MAX_NOTE_BYTES: usize = 1 << 20;

/// A note as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its text.
    pub text: String,
    /// The object's version.
    pub version: String,
}

/// What came of writing a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was written; the object's new version.
    Version(String),
    /// Somebody else has written or removed it since it was read.
    Conflict,
}

fn version_of(object: &DynamicObject) -> String {
    object.metadata.resource_version.clone().unwrap_or_default()
}

impl Target {
    fn notes(&self, client: kube::Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client, namespace, &resource("v1", "ConfigMap", None))
    }

    /// Reads a note; `None` when there is none, or no such namespace.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn read_note(&self, namespace: &str, name: &str) -> Result<Option<Note>, PlatformError> {
        let what = format!("reading the restore's progress record {namespace}/{name}");
        let found = self.connection.run(&what, |client| {
            let api = self.notes(client, namespace);
            async move { api.get_opt(name).await }
        })?;
        let Some(found) = found else { return Ok(None) };
        let text =
            found.data.pointer("/data").and_then(|data| data.get(KEY)).and_then(Value::as_str).unwrap_or_default();
        if text.len() > MAX_NOTE_BYTES {
            return Err(PlatformError::Cluster {
                what,
                problem: format!("it is longer than {MAX_NOTE_BYTES} bytes: no restore wrote it"),
                next: format!("look who made it, then delete ConfigMap {namespace}/{name}"),
            });
        }
        Ok(Some(Note { text: text.to_owned(), version: version_of(&found) }))
    }

    /// Writes a note: a new one, or in the place of the one that was read or written with this version.
    ///
    /// # Errors
    /// [`PlatformError::Forbidden`], [`PlatformError::Cluster`].
    pub fn write_note(
        &self,
        namespace: &str,
        name: &str,
        text: &str,
        version: Option<&str>,
    ) -> Result<Written, PlatformError> {
        let what = format!("writing the restore's progress record {namespace}/{name}");
        let labels = json!({MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": "restore"});
        let written = match version {
            Some(version) => {
                let patch = json!({"metadata": {"resourceVersion": version}, "data": {KEY: text}});
                self.connection.try_run(|client| {
                    let (api, patch) = (self.notes(client, namespace), patch.clone());
                    async move { api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await }
                })
            }
            None => {
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": name, "namespace": namespace, "labels": labels},
                    "data": {KEY: text},
                });
                let object: DynamicObject = serde_json::from_value(object).map_err(|error| PlatformError::Cluster {
                    what: what.clone(),
                    problem: error.to_string(),
                    next: "report this to fabkeep's makers".to_owned(),
                })?;
                self.connection.try_run(|client| {
                    let (api, object) = (self.notes(client, namespace), object.clone());
                    async move { api.create(&PostParams::default(), &object).await }
                })
            }
        };
        match written {
            Ok(object) => Ok(Written::Version(version_of(&object))),
            Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && version.is_some()) => {
                // The answer to a try that was carried out may have been lost: then it is ours.
                match self.read_note(namespace, name)? {
                    Some(note) if note.text == text => Ok(Written::Version(note.version)),
                    _ => Ok(Written::Conflict),
                }
            }
            Err(error) => Err(failed(&what, &error)),
        }
    }

    /// Removes a note; that it is gone already is fine.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn remove_note(&self, namespace: &str, name: &str) -> Result<(), PlatformError> {
        let gone = self.connection.try_run(|client| {
            let api = self.notes(client, namespace);
            async move { api.delete(name, &DeleteParams::default()).await.map(|_| ()) }
        });
        match gone {
            Err(error) if !is_missing(&error) => {
                Err(failed(&format!("removing the restore's progress record {namespace}/{name}"), &error))
            }
            _ => Ok(()),
        }
    }
}
