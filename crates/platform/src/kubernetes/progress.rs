//! Stores the progress record of a restore in the cluster: a ConfigMap that only its own run writes.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::connection::failed;
use super::objects::{MANAGED_BY, resource};
use super::target::Target;
use crate::PlatformError;

/// Where in the ConfigMap the text is.
pub(crate) const KEY: &str = "progress.json";
/// Longest note that is read, in bytes.
const MAX_NOTE_BYTES: usize = 1 << 20;

/// A note as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its text.
    pub text: String,
    /// The object's version.
    pub version: String,
    /// The object itself: another one of the same name has another.
    pub uid: String,
}

/// What came of writing a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was written so.
    Note(Note),
    /// Another run has written it since it was read.
    Conflict,
}

/// How often a note is written anew because others changed its object, and not its text.
const TRIES: usize = 8;

fn note(text: &str, object: DynamicObject) -> Note {
    Note {
        text: text.to_owned(),
        version: object.metadata.resource_version.unwrap_or_default(),
        uid: object.metadata.uid.unwrap_or_default(),
    }
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
                next: format!("find out who created it, then delete ConfigMap {namespace}/{name}").into(),
            });
        }
        let text = text.to_owned();
        Ok(Some(note(&text, found)))
    }

    /// Writes a note: a new one, or in the place of the one that was read or written `before`. Others may change the object's labels, or
    /// remove it, meanwhile; its text is this run's own.
    ///
    /// # Errors
    /// [`PlatformError::Forbidden`], [`PlatformError::Cluster`].
    pub fn write_note(
        &self,
        namespace: &str,
        name: &str,
        text: &str,
        before: Option<&Note>,
    ) -> Result<Written, PlatformError> {
        let what = format!("writing the restore's progress record {namespace}/{name}");
        let mut there = before.cloned();
        for _ in 0..TRIES {
            match self.put_note(namespace, name, text, there.as_ref()) {
                Ok(object) => return Ok(Written::Note(note(text, object))),
                // The answer to a try that was carried out may have been lost: then it is ours.
                Err(kube::Error::Api(status)) if status.code == 409 || (status.code == 404 && there.is_some()) => {
                    there = self.read_note(namespace, name)?;
                    match &there {
                        Some(found) if found.text == text => return Ok(Written::Note(found.clone())),
                        Some(found) if before.is_none_or(|before| before.text != found.text) => break,
                        _ => {}
                    }
                }
                Err(error) => return Err(failed(&what, &error)),
            }
        }
        Ok(Written::Conflict)
    }

    /// One try to write a note, over the one that is `there`.
    fn put_note(
        &self,
        namespace: &str,
        name: &str,
        text: &str,
        there: Option<&Note>,
    ) -> Result<DynamicObject, kube::Error> {
        if let Some(there) = there {
            let patch = json!({"metadata": {"resourceVersion": there.version}, "data": {KEY: text}});
            return self.connection.try_run(|client| {
                let (api, patch) = (self.notes(client, namespace), patch.clone());
                async move { api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await }
            });
        }
        let labels = json!({MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": "restore"});
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "data": {KEY: text},
        });
        let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.connection.try_run(|client| {
            let (api, object) = (self.notes(client, namespace), object.clone());
            async move { api.create(&PostParams::default(), &object).await }
        })
    }

    /// Removes a note; that it is gone already is fine.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn remove_note(&self, namespace: &str, name: &str) -> Result<(), PlatformError> {
        let what = format!("removing the restore's progress record {namespace}/{name}");
        let deleted = self.connection.run_if_there(&what, |client| {
            let api = self.notes(client, namespace);
            async move { api.delete(name, &DeleteParams::default()).await }
        });
        deleted.map(|_| ())
    }
}
