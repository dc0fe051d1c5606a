//! Snapshots that stay in the cluster: what is recorded of them, how they are marked, found again and removed. Their contents are retained:
//! they outlast the deletion of their namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use fabkeep_network::Remedy;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::remove::let_go;
use super::take::{DriverWait, if_ready};
use super::{KEPT, clones, contents, group_contents, groups, plan, snapshots};
use crate::kubernetes::connection::{Connection, failed};
use crate::kubernetes::objects::{MANAGED_BY, RUN, annotation, name_of, text};
use crate::kubernetes::{ClusterAddress, Kubernetes};
use crate::{FoundSnapshot, KeptGroup, KeptSnapshot, PlatformError};

/// Holds the note of a kept snapshot, on its content.
const NOTE: &str = "fabkeep.io/kept";

/// Access to the snapshots that backups have kept in a cluster.
#[derive(Clone)]
pub struct KeptSnapshots {
    pub(super) connection: Arc<Connection>,
}

impl Kubernetes {
    /// Returns what is to be recorded of the snapshots of this run, which stay when the volumes were read.
    pub(in crate::kubernetes) fn staying_snapshots(&self) -> Result<Vec<KeptSnapshot>, PlatformError> {
        let (taken, known_groups) = {
            let taken = self.taken.lock();
            let Some(taken) = taken.as_ref() else { return Ok(Vec::new()) };
            (taken.snapshots.clone(), taken.groups.clone())
        };
        let mut out = Vec::new();
        for ((namespace, claim), name) in taken {
            let what = format!("waiting until the snapshot of claim {namespace}/{claim} can be kept");
            let mut wait = DriverWait::new(what.clone(), clones::READY, None);
            let status = wait.until(|| self.snapshot_status(&namespace, &name), if_ready)?;
            let content = text(&status, "/boundVolumeSnapshotContentName").unwrap_or_default().to_owned();
            let found = self.connection.run(&what, |client| {
                let content = &content;
                async move { contents(client).get(content).await }
            })?;
            let found = serde_json::to_value(found).unwrap_or_default();
            let group = match text(&status, "/volumeGroupSnapshotName") {
                Some(group) => {
                    let version = known_groups.iter().find(|(of, name, _)| *of == namespace && name == group);
                    version.map(|(.., version)| self.staying_group(&namespace, group, version)).transpose()?
                }
                None => None,
            };
            let class = match &group {
                Some((_, class)) => class.clone(),
                None => text(&found, "/spec/volumeSnapshotClassName").map(str::to_owned),
            };
            let missing = |what_is: &str| PlatformError::Cluster {
                what: what.clone(),
                problem: format!("its VolumeSnapshotContent {content} has no {what_is}"),
                next: Remedy::from("look at it with `kubectl describe volumesnapshotcontent`"),
            };
            out.push(KeptSnapshot {
                namespace,
                claim,
                name,
                content_uid: text(&found, "/metadata/uid").ok_or_else(|| missing("uid"))?.to_owned(),
                handle: text(&found, "/status/snapshotHandle").ok_or_else(|| missing("handle"))?.to_owned(),
                driver: text(&found, "/spec/driver").ok_or_else(|| missing("driver"))?.to_owned(),
                class,
                restore_bytes: found.pointer("/status/restoreSize").and_then(Value::as_u64).unwrap_or(0),
                group: group.map(|(group, _)| group),
                content,
            });
        }
        if let Some(taken) = self.taken.lock().as_mut() {
            taken.staying = true;
        }
        Ok(out)
    }

    /// Returns a group and its class.
    fn staying_group(
        &self,
        namespace: &str,
        name: &str,
        version: &'static str,
    ) -> Result<(KeptGroup, Option<String>), PlatformError> {
        let what = format!("looking at the group of snapshots {namespace}/{name}");
        let found =
            self.connection.run(&what, |client| async move { groups(client, namespace, version).get(name).await })?;
        let content = text(&found.data, "/status/boundVolumeGroupSnapshotContentName").unwrap_or_default().to_owned();
        let bound = self.connection.run(&what, |client| {
            let content = &content;
            async move { group_contents(client, version).get(content).await }
        })?;
        let class = text(&found.data, "/spec/volumeGroupSnapshotClassName").map(str::to_owned);
        let content_uid = bound.metadata.uid.unwrap_or_default();
        Ok((KeptGroup { name: name.to_owned(), content, content_uid }, class))
    }

    /// Keeps this run's snapshots. Contents are retained before anything else says that they are kept: killed in between, `clean` still
    /// removes all of it.
    pub(in crate::kubernetes) fn keep_taken(&self, notes: &[(KeptSnapshot, String)]) -> Result<(), PlatformError> {
        let version = plan::group_api(&self.connection)?;
        let labels = json!({MANAGED_BY.0: MANAGED_BY.1, "app.kubernetes.io/component": KEPT, RUN: self.run});
        let retained = json!({"metadata": {"labels": labels}, "spec": {"deletionPolicy": "Retain"}});
        let named = json!({"metadata": {"labels": labels}});
        let of_groups: BTreeSet<(&str, &KeptGroup)> =
            notes.iter().filter_map(|(kept, _)| Some((kept.namespace.as_str(), kept.group.as_ref()?))).collect();
        for (_, group) in &of_groups {
            let what = format!("keeping the content {} of group {}", group.content, group.name);
            let Some(version) = version else { continue };
            patch(&self.connection, &what, &group.content, &retained, |client| group_contents(client, version))?;
        }
        for (kept, note) in notes {
            let mut change = retained.clone();
            change["metadata"]["annotations"] = json!({NOTE: note});
            let what = format!("keeping the content {} of the snapshot of claim {}", kept.content, kept.of());
            patch(&self.connection, &what, &kept.content, &change, contents)?;
        }
        for (namespace, group) in of_groups {
            let what = format!("keeping the group of snapshots {namespace}/{}", group.name);
            let Some(version) = version else { continue };
            patch(&self.connection, &what, &group.name, &named, |client| groups(client, namespace, version))?;
        }
        for (kept, _) in notes {
            let what = format!("keeping the snapshot {}/{}", kept.namespace, kept.name);
            patch(&self.connection, &what, &kept.name, &named, |client| snapshots(client, &kept.namespace))?;
        }
        *self.taken.lock() = None;
        Ok(())
    }

    /// Returns access to what earlier runs have kept.
    pub(in crate::kubernetes) fn earlier_snapshots(&self) -> KeptSnapshots {
        KeptSnapshots { connection: Arc::clone(&self.connection) }
    }
}

fn patch(
    connection: &Connection,
    what: &str,
    name: &str,
    change: &Value,
    api: impl Fn(kube::Client) -> Api<DynamicObject>,
) -> Result<(), PlatformError> {
    let patched = connection.run(what, |client| {
        let api = api(client);
        async move { api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await }
    });
    patched.map(|_| ())
}

impl KeptSnapshots {
    /// Connects.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn open(address: &ClusterAddress) -> Result<KeptSnapshots, PlatformError> {
        Ok(KeptSnapshots { connection: Arc::new(Connection::open(address)?) })
    }

    /// Returns what says in the cluster that it was kept. Anybody may have written that.
    ///
    /// # Errors
    /// [`PlatformError`], without the right to list the contents of snapshots too.
    pub fn list(&self) -> Result<Vec<FoundSnapshot>, PlatformError> {
        if self.connection.served()?.resource(plan::SNAPSHOT_API, "VolumeSnapshotContent").is_none() {
            return Ok(Vec::new());
        }
        let selector = format!("{}={},app.kubernetes.io/component={KEPT}", MANAGED_BY.0, MANAGED_BY.1);
        let list = self.connection.run("listing the snapshots that backups have kept", |client| {
            let parameters = ListParams::default().labels(&selector);
            async move { contents(client).list(&parameters).await }
        })?;
        let now = jiff::Timestamp::now().as_second();
        let found = list.items.into_iter().filter_map(|item| {
            let made = item.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
            // One that is being deleted is kept no longer.
            if item.metadata.deletion_timestamp.is_some() {
                return None;
            }
            let value = serde_json::to_value(item).ok()?;
            Some(FoundSnapshot {
                content: name_of(&value).to_owned(),
                content_uid: text(&value, "/metadata/uid")?.to_owned(),
                handle: text(&value, "/status/snapshotHandle")?.to_owned(),
                note: annotation(&value, NOTE)?.to_owned(),
                age_seconds: made.map_or(0, |made| now.saturating_sub(made)),
            })
        });
        Ok(found.collect())
    }

    /// Removes kept snapshots and their groups, with what their drivers keep of them. What is gone is fine, and what has another uid than the
    /// recorded one is somebody else's.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn remove(&self, kept: &[&KeptSnapshot]) -> Result<(), PlatformError> {
        let version = plan::group_api(&self.connection)?;
        let of_groups: BTreeSet<(&str, &KeptGroup)> =
            kept.iter().filter_map(|kept| Some((kept.namespace.as_str(), kept.group.as_ref()?))).collect();
        // All contents first: the controller removes the members of a group with it.
        let (mut wholes, mut singles) = (Vec::new(), Vec::new());
        for (namespace, group) in of_groups {
            let Some(version) = version else { continue };
            let what = format!("removing the kept group of snapshots {namespace}/{}", group.name);
            let api = |client| group_contents(client, version);
            if let Some(found) = self.released(&what, &group.content, &group.content_uid, api)? {
                wholes.push((what, namespace, group, version, bound_to(&found, "/spec/volumeGroupSnapshotRef/uid")));
            }
        }
        for kept in kept {
            let what = format!("removing the kept snapshot {}/{} of claim {}", kept.namespace, kept.name, kept.of());
            if let Some(found) = self.released(&what, &kept.content, &kept.content_uid, contents)? {
                singles.push((what, kept, bound_to(&found, "/spec/volumeSnapshotRef/uid")));
            }
        }
        for (what, namespace, group, version, uid) in wholes {
            if !self.delete(&what, &group.name, &uid, |client| groups(client, namespace, version))? {
                self.delete(&what, &group.content, &group.content_uid, |client| group_contents(client, version))?;
            }
        }
        for (what, kept, uid) in singles {
            if !self.delete(&what, &kept.name, &uid, |client| snapshots(client, &kept.namespace))? {
                self.delete(&what, &kept.content, &kept.content_uid, contents)?;
            }
        }
        Ok(())
    }

    /// Lets the driver remove what a content stands for when the content goes. Returns it, if it is the recorded one.
    fn released(
        &self,
        what: &str,
        name: &str,
        uid: &str,
        api: impl Fn(kube::Client) -> Api<DynamicObject>,
    ) -> Result<Option<Value>, PlatformError> {
        let found = self.connection.run(what, |client| {
            let api = api(client);
            async move { api.get_opt(name).await }
        })?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(uid)) else { return Ok(None) };
        let change = let_go();
        let patched = self.connection.run_if_there(what, |client| {
            let (api, change) = (api(client), Patch::Merge(&change));
            async move { api.patch(name, &PatchParams::default(), &change).await }
        })?;
        Ok(patched.map(|_| serde_json::to_value(found).unwrap_or_default()))
    }

    /// Deletes an object, if it is there and has this uid. Returns whether it was.
    fn delete(
        &self,
        what: &str,
        name: &str,
        uid: &str,
        api: impl Fn(kube::Client) -> Api<DynamicObject>,
    ) -> Result<bool, PlatformError> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let deleted = self.connection.try_run(|client| {
            let (api, parameters) = (api(client), parameters.clone());
            async move { api.delete(name, &parameters).await.map(|_| ()) }
        });
        match deleted {
            Ok(()) => Ok(true),
            // There is none, or another one.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(false),
            Err(error) => Err(failed(what, &error)),
        }
    }
}

/// Returns the uid of what a content is bound to.
fn bound_to(content: &Value, reference: &str) -> String {
    text(content, reference).unwrap_or_default().to_owned()
}
