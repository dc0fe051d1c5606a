//! Removes what was made for snapshots: clones first, then snapshots, then the labels of claims.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::source::{is_lent, take_back};
use super::{
    CLONE, CreatedSnapshots, GROUP_LABEL, LENT, SNAPSHOT, claims, contents, group_contents, groups, members, plan,
    snapshots,
};
use crate::PlatformError;
use crate::kubernetes::Kubernetes;
use crate::kubernetes::connection::{Connection, failed, is_forbidden};
use crate::kubernetes::objects::{MANAGED_BY, RUN, label, resource, text};
use crate::kubernetes::volume::helper::is_run;

/// Something of a run that can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kubernetes) enum Thing {
    /// A clone of a snapshot.
    Clone,
    /// A snapshot.
    Snapshot,
    /// A group of snapshots, in this version of the API.
    Group(&'static str),
    /// The label of a claim.
    Label,
    /// A snapshot that was lent to a restore.
    Lent,
}

impl Thing {
    /// Returns what it is, for people.
    pub fn kind(self) -> &'static str {
        match self {
            Thing::Clone => "PersistentVolumeClaim",
            Thing::Snapshot | Thing::Lent => "VolumeSnapshot",
            Thing::Group(_) => "VolumeGroupSnapshot",
            Thing::Label => "label of PersistentVolumeClaim",
        }
    }

    fn api(self, client: kube::Client, namespace: &str) -> Api<DynamicObject> {
        match self {
            Thing::Clone | Thing::Label => claims(client, namespace),
            Thing::Snapshot | Thing::Lent => snapshots(client, namespace),
            Thing::Group(version) => groups(client, namespace, version),
        }
    }
}

impl Kubernetes {
    /// Removes this run's snapshots and clones; the volumes are read in their own place again.
    pub(in crate::kubernetes) fn remove_snapshots(&self) -> Result<(), PlatformError> {
        self.frozen.lock().clear();
        let Some(mut taken) = self.taken.lock().take() else { return Ok(()) };
        if taken.staying {
            let staying = CreatedSnapshots {
                snapshots: std::mem::take(&mut taken.snapshots),
                groups: std::mem::take(&mut taken.groups),
                names: taken.names,
                staying: true,
                ..CreatedSnapshots::default()
            };
            *self.taken.lock() = Some(staying);
        }
        let clones = taken.clones.iter().map(|((namespace, _), name)| (Thing::Clone, namespace, name));
        let groups = taken.groups.iter().map(|(namespace, name, version)| (Thing::Group(version), namespace, name));
        let single = taken.snapshots.iter().map(|((namespace, _), name)| (Thing::Snapshot, namespace, name));
        let labelled = taken.labelled.iter().map(|(namespace, claim)| (Thing::Label, namespace, claim));
        let mut result = Ok(());
        // What cannot be removed keeps nothing else from being removed.
        for (thing, namespace, name) in clones.chain(groups).chain(single).chain(labelled) {
            result = result.and(remove(&self.connection, thing, namespace, name));
        }
        result
    }
}

/// Removes a thing; that it is gone is fine.
pub(in crate::kubernetes) fn remove(
    connection: &Connection,
    thing: Thing,
    namespace: &str,
    name: &str,
) -> Result<(), PlatformError> {
    match thing {
        Thing::Label => {
            let change = json!({"metadata": {"labels": {GROUP_LABEL: null}}});
            let what = format!("removing the label {GROUP_LABEL} of claim {namespace}/{name}");
            let patched = connection.run_if_there(&what, |client| {
                let (api, change) = (claims(client, namespace), Patch::Merge(change.clone()));
                async move { api.patch(name, &PatchParams::default(), &change).await }
            });
            return patched.map(|_| ());
        }
        Thing::Lent => return take_back(connection, namespace, name),
        Thing::Clone => delete_with_volume(connection, namespace, name)?,
        Thing::Snapshot => delete_with_content(connection, namespace, name)?,
        Thing::Group(version) => {
            delete_with_group_content(connection, namespace, name, version)?;
            for member in members(connection, namespace, name)?.into_values() {
                delete_with_content(connection, namespace, &member)?;
            }
        }
    }
    let deleted = connection
        .run_if_there(&format!("removing the {} {namespace}/{name}", thing.kind()), |client| async move {
            thing.api(client, namespace).delete(name, &DeleteParams::default()).await
        });
    deleted.map(|_| ())
}

/// Lets the volume of a clone go with its claim, where its class would keep it.
fn delete_with_volume(connection: &Connection, namespace: &str, name: &str) -> Result<(), PlatformError> {
    let found = connection.run(&format!("looking at claim {namespace}/{name}"), |client| async move {
        claims(client, namespace).get_opt(name).await
    })?;
    let volume = found.and_then(|claim| text(&claim.data, "/spec/volumeName").map(str::to_owned));
    let Some(volume) = volume else { return Ok(()) };
    let volumes = resource("v1", "PersistentVolume", Some("persistentvolumes"));
    let known = |found: &Value| text(found, "/spec/persistentVolumeReclaimPolicy") == Some("Retain");
    let change = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    let of_claim = move |found: &Value| {
        (text(found, "/spec/claimRef/namespace"), text(found, "/spec/claimRef/name")) == (Some(namespace), Some(name))
    };
    let what = format!("letting the volume {volume} of clone {namespace}/{name} be deleted");
    change_policy(connection, &what, |client| Api::all_with(client, &volumes), &volume, &change, &|found: &Value| {
        known(found) && of_claim(found)
    })
}

/// Lets what a driver keeps of a snapshot go with the snapshot, where its class would keep it.
fn delete_with_content(connection: &Connection, namespace: &str, name: &str) -> Result<(), PlatformError> {
    let found = connection.run(&format!("looking at the snapshot {namespace}/{name}"), |client| async move {
        snapshots(client, namespace).get_opt(name).await
    })?;
    let content =
        found.and_then(|found| text(&found.data, "/status/boundVolumeSnapshotContentName").map(str::to_owned));
    let Some(content) = content else { return Ok(()) };
    let what = format!("letting the content {content} of snapshot {namespace}/{name} be deleted");
    let of = ("/spec/volumeSnapshotRef", namespace, name);
    change_policy(connection, &what, contents, &content, &let_go(), &|found: &Value| is_retained(found, of))
}

/// Lets what a driver keeps of a group go with the group, where its class would keep it.
fn delete_with_group_content(
    connection: &Connection,
    namespace: &str,
    name: &str,
    version: &str,
) -> Result<(), PlatformError> {
    let found = connection
        .run(&format!("looking at the group of snapshots {namespace}/{name}"), |client| async move {
            groups(client, namespace, version).get_opt(name).await
        })?;
    let content =
        found.and_then(|found| text(&found.data, "/status/boundVolumeGroupSnapshotContentName").map(str::to_owned));
    let Some(content) = content else { return Ok(()) };
    let what = format!("letting the content {content} of the group of snapshots {namespace}/{name} be deleted");
    let of = ("/spec/volumeGroupSnapshotRef", namespace, name);
    let api = |client| group_contents(client, version);
    change_policy(connection, &what, api, &content, &let_go(), &|found: &Value| is_retained(found, of))
}

/// Returns whether a content would outlast the snapshot or group that it is of: where its reference is, its namespace, its name.
fn is_retained(content: &Value, (reference, namespace, name): (&str, &str, &str)) -> bool {
    let at = |field: &str| text(content, &format!("{reference}/{field}"));
    text(content, "/spec/deletionPolicy") == Some("Retain")
        && (at("namespace"), at("name")) == (Some(namespace), Some(name))
}

/// The change by which a content goes with what it is of.
pub(super) fn let_go() -> Value {
    json!({"spec": {"deletionPolicy": "Delete"}})
}

/// Changes an object of the whole cluster, if it is as wanted. Without the right to read it, it is left to its policy.
fn change_policy(
    connection: &Connection,
    what: &str,
    api: impl Fn(kube::Client) -> Api<DynamicObject>,
    name: &str,
    change: &Value,
    wanted: &dyn Fn(&Value) -> bool,
) -> Result<(), PlatformError> {
    let found = connection.try_run(|client| {
        let api = api(client);
        async move { api.get_opt(name).await }
    });
    let found = match found {
        Ok(found) => found,
        Err(error) if is_forbidden(&error) => return Ok(()),
        Err(error) => return Err(failed(what, &error)),
    };
    if !found.is_some_and(|found| wanted(&found.data)) {
        return Ok(());
    }
    let patched = connection.run_if_there(what, |client| {
        let api = api(client);
        async move { api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await }
    });
    patched.map(|_| ())
}

/// What runs left in a namespace: what it is, its name, its run, its age in seconds.
pub(in crate::kubernetes) fn left(
    connection: &Connection,
    namespace: &str,
) -> Result<Vec<(Thing, String, String, i64)>, PlatformError> {
    let served = connection.served()?;
    let version = plan::group_api(connection)?;
    let with_snapshots = served.resource(plan::SNAPSHOT_API, "VolumeSnapshot").is_some();
    let of = |component: &str| format!("{}={},app.kubernetes.io/component={component}", MANAGED_BY.0, MANAGED_BY.1);
    let mut searches = vec![(Thing::Clone, of(CLONE))];
    searches.extend(version.map(|version| (Thing::Group(version), of(SNAPSHOT))));
    if with_snapshots {
        searches.push((Thing::Snapshot, of(SNAPSHOT)));
        searches.push((Thing::Lent, of(LENT)));
    }
    searches.push((Thing::Label, GROUP_LABEL.to_owned()));
    let now = jiff::Timestamp::now().as_second();
    let mut out = Vec::new();
    for (thing, selector) in searches {
        let what = format!("listing what backups left in namespace {namespace} ({})", thing.kind());
        let list = connection.run_if_there(&what, |client| {
            let (api, parameters) = (thing.api(client, namespace), ListParams::default().labels(&selector));
            async move { api.list(&parameters).await }
        })?;
        let Some(list) = list else { continue };
        for item in list.items {
            let name = item.metadata.name.clone().unwrap_or_default();
            let made = item.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
            if thing == Thing::Lent {
                if is_lent(&name) {
                    out.push((thing, name, "of a restore".to_owned(), made.map_or(0, |made| now.saturating_sub(made))));
                }
                continue;
            }
            let value = serde_json::to_value(&item).unwrap_or_default();
            let mark = if thing == Thing::Label { GROUP_LABEL } else { RUN };
            let mark = label(&value, mark).unwrap_or_default().to_owned();
            // A label has no time of its own: the name of its group has that of its run.
            let own = if thing == Thing::Label { mark.as_str() } else { name.as_str() };
            let Some(run) = run_of(own).filter(|run| thing == Thing::Label || *run == mark).map(str::to_owned) else {
                // Somebody else's, whatever its labels say.
                continue;
            };
            let begun = i64::from_str_radix(&run, 16).ok().map(|ms| ms / 1_000);
            let since = if thing == Thing::Label { begun } else { made };
            let age = since.map_or(0, |since| now.saturating_sub(since));
            out.push((thing, name, run, age));
        }
    }
    Ok(out)
}

/// Returns the run that gave this name to something that it made for snapshots.
pub(in crate::kubernetes) fn run_of(name: &str) -> Option<&str> {
    let (run, number) = name.strip_prefix("fabkeep-")?.split_once("-s")?;
    (is_run(run) && number.parse::<u32>().is_ok()).then_some(run)
}
