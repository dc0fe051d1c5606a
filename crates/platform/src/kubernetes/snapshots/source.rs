//! Kept snapshots as sources of new claims. A content can only be bound to the snapshot that it was made for: where that is gone, or in
//! another namespace, a content and a snapshot of the same handle are lent to the restore, and taken back when the claims are filled.

use std::time::Duration;

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::take::{DriverWait, if_ready};
use super::{LENT, claims, contents, plan, snapshots};
use crate::kubernetes::Target;
use crate::kubernetes::connection::{Connection, failed, is_forbidden};
use crate::kubernetes::objects::{MANAGED_BY, annotation, name_of, resource, text};
use crate::{Declaration, KeptSnapshot, PlatformError};

/// How long a snapshot that is there may take until it can be used.
const READY: Duration = Duration::from_secs(120);
/// How long an error of it may last: the repository is another source.
const ERROR_FOR: Duration = Duration::from_secs(5);
/// Begins the names of what is lent.
const PREFIX: &str = "fabkeep-lent-";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// A snapshot that a claim can be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSource {
    /// The VolumeSnapshot, in the claim's namespace.
    pub name: String,
    /// Whether it was lent: it is to be taken back.
    pub lent: bool,
}

/// Returns whether a name is one that was given to something lent.
pub(super) fn is_lent(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Target {
    /// Returns why a claim cannot be made from a kept snapshot; `None` when nothing is known against it.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn unusable(&self, kept: &KeptSnapshot, claim: &Declaration) -> Result<Option<String>, PlatformError> {
        if self.connection.served()?.resource(plan::SNAPSHOT_API, "VolumeSnapshotContent").is_none() {
            return Ok(Some(format!("the cluster does not serve {}", plan::SNAPSHOT_API)));
        }
        let what = format!("looking at the kept snapshot of claim {}", kept.of());
        let found = self.connection.try_run(|client| async move { contents(client).get_opt(&kept.content).await });
        let found = match found {
            Ok(Some(found)) => serde_json::to_value(found).unwrap_or_default(),
            Ok(None) => return Ok(Some("its snapshot is gone from the cluster".to_owned())),
            Err(error) if is_forbidden(&error) => {
                return Ok(Some("fabkeep has no right to look at the contents of snapshots".to_owned()));
            }
            Err(error) => return Err(failed(&what, &error)),
        };
        if let Some(problem) = differs(kept, &found) {
            return Ok(Some(problem));
        }
        Ok(self.provisioner(claim)?.filter(|(_, driver)| *driver != kept.driver).map(|(class, driver)| {
            format!("its storage class {class} is of driver {driver}, and its snapshot of {}", kept.driver)
        }))
    }

    /// Returns the storage class of a claim, and the driver of the class; `None` when they are not known.
    fn provisioner(&self, claim: &Declaration) -> Result<Option<(String, String)>, PlatformError> {
        let classes = resource("storage.k8s.io/v1", "StorageClass", Some("storageclasses"));
        let list = self.connection.try_run(|client| {
            let classes = classes.clone();
            async move { Api::<DynamicObject>::all_with(client, &classes).list(&ListParams::default()).await }
        });
        let list = match list {
            Ok(list) => list.items,
            Err(error) if is_forbidden(&error) => return Ok(None),
            Err(error) => return Err(failed("listing storage classes", &error)),
        };
        let wanted = text(&claim.object, "/spec/storageClassName");
        let mut known = list.into_iter().filter_map(|class| serde_json::to_value(class).ok());
        let found = known.find(|class| match wanted {
            Some(wanted) => name_of(class) == wanted,
            None => annotation(class, DEFAULT_CLASS) == Some("true"),
        });
        Ok(found.map(|class| (name_of(&class).to_owned(), text(&class, "/provisioner").unwrap_or_default().to_owned())))
    }

    /// Returns a snapshot in the claim's namespace that the claim can be made from; `lent` names what is made for it where that is needed.
    /// Else the reason why there is none.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn snapshot_source(
        &self,
        kept: &KeptSnapshot,
        namespace: &str,
        mark: &str,
    ) -> Result<Result<SnapshotSource, String>, PlatformError> {
        let what = format!("looking at the kept snapshot {}/{}", kept.namespace, kept.name);
        if namespace == kept.namespace {
            let own = self
                .connection
                .run(&what, |client| async move { snapshots(client, namespace).get_opt(&kept.name).await })?;
            let is_bound = own.is_some_and(|own| {
                own.metadata.deletion_timestamp.is_none()
                    && text(&own.data, "/status/boundVolumeSnapshotContentName") == Some(kept.content.as_str())
                    && own.data.pointer("/status/readyToUse").and_then(Value::as_bool) == Some(true)
            });
            if is_bound {
                return Ok(Ok(SnapshotSource { name: kept.name.clone(), lent: false }));
            }
        }
        let name = format!("{PREFIX}{mark}");
        match self.lend(kept, namespace, &name) {
            Ok(()) => Ok(Ok(SnapshotSource { name, lent: true })),
            Err(error) => {
                self.take_back(namespace, &name)?;
                Ok(Err(error.to_string()))
            }
        }
    }

    fn lend(&self, kept: &KeptSnapshot, namespace: &str, name: &str) -> Result<(), PlatformError> {
        let labels = json!({MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": LENT});
        let content = json!({
            "apiVersion": plan::SNAPSHOT_API, "kind": "VolumeSnapshotContent",
            "metadata": {"name": name, "labels": labels},
            // The driver's snapshot is not this object's: it stays when this goes.
            "spec": {"deletionPolicy": "Retain", "driver": kept.driver, "source": {"snapshotHandle": kept.handle},
                "volumeSnapshotRef": {"name": name, "namespace": namespace}},
        });
        let snapshot = json!({
            "apiVersion": plan::SNAPSHOT_API, "kind": "VolumeSnapshot",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"source": {"volumeSnapshotContentName": name}},
        });
        let what = format!("making the kept snapshot of claim {} usable in namespace {namespace}", kept.of());
        put_new(&self.connection, &what, content, contents)?;
        put_new(&self.connection, &what, snapshot, |client| snapshots(client, namespace))?;
        let status = || {
            let found =
                self.connection.run(&what, |client| async move { snapshots(client, namespace).get(name).await })?;
            Ok(found.data.get("status").cloned())
        };
        DriverWait::new(what.clone(), READY, None).with_errors_for(ERROR_FOR).until(status, if_ready).map(|_| ())
    }

    /// Takes back what was lent: the driver's snapshot stays.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn take_back(&self, namespace: &str, name: &str) -> Result<(), PlatformError> {
        take_back(&self.connection, namespace, name)
    }

    /// Returns the snapshot that a claim was made from.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn source_of(&self, namespace: &str, claim: &str) -> Result<Option<String>, PlatformError> {
        let found = self.connection.run(&format!("looking at claim {namespace}/{claim}"), |client| async move {
            claims(client, namespace).get_opt(claim).await
        })?;
        Ok(found.and_then(|found| {
            let kind = text(&found.data, "/spec/dataSource/kind");
            let name = text(&found.data, "/spec/dataSource/name").filter(|_| kind == Some("VolumeSnapshot"));
            name.map(str::to_owned)
        }))
    }
}

/// Returns a declared claim that is made from a snapshot, large enough for it.
pub fn made_from(claim: &Declaration, kept: &KeptSnapshot, source: &SnapshotSource) -> Declaration {
    let mut claim = claim.clone();
    let at = "/spec/resources/requests/storage";
    if text(&claim.object, at).is_some_and(|asked| super::clones::bytes(asked) < u128::from(kept.restore_bytes)) {
        claim.object["spec"]["resources"]["requests"]["storage"] = kept.restore_bytes.to_string().into();
    }
    claim.object["spec"]["dataSource"] =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": source.name});
    claim
}

pub(super) fn take_back(connection: &Connection, namespace: &str, name: &str) -> Result<(), PlatformError> {
    let what = format!("removing the lent snapshot {namespace}/{name}");
    connection.run_if_there(&what, |client| async move {
        snapshots(client, namespace).delete(name, &DeleteParams::default()).await.map(|_| ())
    })?;
    let found = connection.run(&what, |client| async move { contents(client).get_opt(name).await })?;
    // One that lets the driver's snapshot go is not what was lent.
    let is_lent = found.is_some_and(|found| text(&found.data, "/spec/deletionPolicy") == Some("Retain"));
    if is_lent {
        connection.run_if_there(&what, |client| async move {
            contents(client).delete(name, &DeleteParams::default()).await.map(|_| ())
        })?;
    }
    Ok(())
}

/// Creates an object. One of the same name is an earlier run's: the name says what it stands for.
fn put_new(
    connection: &Connection,
    what: &str,
    object: Value,
    api: impl Fn(kube::Client) -> Api<DynamicObject>,
) -> Result<(), PlatformError> {
    super::take::create(connection, what, object, api)
}

/// Returns how a content differs from the recorded one, or why it cannot be used.
fn differs(kept: &KeptSnapshot, found: &Value) -> Option<String> {
    if text(found, "/metadata/uid") != Some(kept.content_uid.as_str()) {
        return Some(format!("VolumeSnapshotContent {} is another one than the recorded one", kept.content));
    }
    if text(found, "/metadata/deletionTimestamp").is_some() {
        return Some("its snapshot is being deleted".to_owned());
    }
    if let Some(message) = text(found, "/status/error/message") {
        return Some(format!("its snapshot is in error: {message}"));
    }
    if text(found, "/spec/driver") != Some(kept.driver.as_str()) {
        return Some("its snapshot is of another driver than recorded".to_owned());
    }
    if text(found, "/status/snapshotHandle") != Some(kept.handle.as_str()) {
        return Some("its snapshot has another handle than recorded".to_owned());
    }
    if found.pointer("/status/readyToUse").and_then(Value::as_bool) != Some(true) {
        return Some("its snapshot is not ready to be used".to_owned());
    }
    let size = found.pointer("/status/restoreSize").and_then(Value::as_u64);
    size.filter(|size| *size < kept.restore_bytes)
        .map(|size| format!("its snapshot has {size} bytes, and {} were recorded", kept.restore_bytes))
}
