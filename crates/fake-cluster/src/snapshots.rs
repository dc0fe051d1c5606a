//! The snapshot API, where a test wants it: a snapshot is a copy of a volume's folder, a group copies several under one lock.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::controllers::{keys, owner, put};
use crate::folders;
use crate::selector::Selector;
use crate::state::{Key, State, now, text};

pub(crate) const GROUP: &str = "snapshot.storage.k8s.io";
pub(crate) const GROUPS: &str = "groupsnapshot.storage.k8s.io";
/// A claim with this annotation cannot be snapshotted: its value is the driver's message.
const FAILS: &str = "k8s.local/fail-snapshot";

/// Returns the folder of what a driver calls by this handle.
pub(crate) fn folder(root: &Path, handle: &str) -> PathBuf {
    root.join("snapshots").join(handle)
}

fn key(group: &str, plural: &str, namespace: &str, name: &str) -> Key {
    Key { group: group.to_owned(), plural: plural.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn copy(from: &Path, to: &Path) {
    folders::remove(to);
    let _ = std::fs::create_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "copying {} to {}", from.display(), to.display());
}

fn claim<'s>(state: &'s State, namespace: &str, name: &str) -> Option<&'s Value> {
    state.find("PersistentVolumeClaim", namespace, name)
}

/// Copies a claim's volume: the handle of its snapshot, and its size in bytes; else the driver's message.
fn cut(state: &mut State, namespace: &str, claim_name: &str) -> Result<(String, u64), String> {
    let Some(found) = claim(state, namespace, claim_name).cloned() else {
        return Err(format!("there is no claim {claim_name}"));
    };
    if let Some(message) = found.pointer("/metadata/annotations").and_then(|all| all.get(FAILS)).and_then(Value::as_str)
    {
        return Err(message.to_owned());
    }
    let handle = format!("handle-{}", state.fresh());
    copy(&folders::volume(&state.root, text(&found, "/spec/volumeName")), &folder(&state.root, &handle));
    Ok((handle, 1 << 30))
}

/// The status of a snapshot that is bound to this content.
fn bound(content: &str, size: u64, group: Option<&str>) -> Value {
    let mut status = json!({"readyToUse": true, "creationTime": now(), "restoreSize": size.to_string(),
        "boundVolumeSnapshotContentName": content});
    if let Some(group) = group {
        status["volumeGroupSnapshotName"] = group.into();
    }
    status
}

/// Makes the content of a snapshot that was cut: its name.
fn put_content(
    state: &mut State,
    (namespace, snapshot, uid): (&str, &str, &Value),
    (handle, size): (&str, u64),
    (policy, class, group): (&str, &str, Option<&str>),
) -> String {
    let name = format!("snapcontent-{namespace}-{snapshot}-{handle}");
    let content = key(GROUP, "volumesnapshotcontents", "", &name);
    let mut object = json!({"metadata": {"name": name}, "spec": {"deletionPolicy": policy, "driver": "fake",
        "source": {"volumeHandle": "a volume"},
        "volumeSnapshotRef": {"kind": "VolumeSnapshot", "namespace": namespace, "name": snapshot, "uid": uid}},
        "status": {"readyToUse": true, "snapshotHandle": handle, "restoreSize": size}});
    if let Some(group) = group {
        object["status"]["volumeGroupSnapshotHandle"] = group.into();
    } else {
        object["spec"]["volumeSnapshotClassName"] = class.into();
    }
    put(state, &content, object, &format!("{GROUP}/v1"), "VolumeSnapshotContent");
    name
}

fn policy(state: &State, plural: &str, group: &str, class: &str) -> String {
    let class = state.objects.get(&key(group, plural, "", class));
    class.map(|class| text(class, "/deletionPolicy").to_owned()).unwrap_or_else(|| "Delete".to_owned())
}

fn set_status(state: &mut State, at: &Key, mut object: Value, status: Value) {
    if object.get("status") != Some(&status) {
        object["status"] = status;
        state.store(at, object, "MODIFIED");
    }
}

/// Takes what was asked for.
pub(crate) fn take(state: &mut State) {
    for content in keys(state, GROUP, "volumesnapshotcontents") {
        let Some(object) = state.objects.get(&content).cloned() else { continue };
        let handle = text(&object, "/spec/source/snapshotHandle").to_owned();
        if handle.is_empty() || !text(&object, "/status/snapshotHandle").is_empty() {
            continue;
        }
        let is_there = folder(&state.root, &handle).is_dir();
        let status = if is_there {
            json!({"readyToUse": true, "snapshotHandle": handle, "restoreSize": 1_u64 << 30})
        } else {
            json!({"readyToUse": false, "error": {"message": format!("the driver knows no snapshot {handle}")}})
        };
        set_status(state, &content, object, status);
    }
    for snapshot in keys(state, GROUP, "volumesnapshots") {
        let Some(object) = state.objects.get(&snapshot).cloned() else { continue };
        if !text(&object, "/status/creationTime").is_empty() {
            continue;
        }
        let named = text(&object, "/spec/source/volumeSnapshotContentName").to_owned();
        if !named.is_empty() {
            bind(state, &snapshot, object, &named);
            continue;
        }
        let claim = text(&object, "/spec/source/persistentVolumeClaimName").to_owned();
        match cut(state, &snapshot.namespace, &claim) {
            Err(message) => {
                let status = json!({"readyToUse": false, "error": {"message": message}});
                set_status(state, &snapshot, object, status);
            }
            Ok((handle, size)) => {
                let class = text(&object, "/spec/volumeSnapshotClassName").to_owned();
                let policy = policy(state, "volumesnapshotclasses", GROUP, &class);
                let of = (snapshot.namespace.as_str(), snapshot.name.as_str(), &object["metadata"]["uid"]);
                let content = put_content(state, of, (&handle, size), (&policy, &class, None));
                set_status(state, &snapshot, object, bound(&content, size, None));
            }
        }
    }
    for group in keys(state, GROUPS, "volumegroupsnapshots") {
        let Some(object) = state.objects.get(&group).cloned() else { continue };
        if !text(&object, "/status/creationTime").is_empty() {
            continue;
        }
        let labels = object.pointer("/spec/source/selector/matchLabels").and_then(Value::as_object);
        let selector: Vec<String> = labels
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        let selector = Selector { labels: selector.join(","), fields: String::new() };
        let claims = state.list("", "persistentvolumeclaims", &group.namespace, &selector);
        let names: Vec<String> = claims.iter().map(|claim| text(claim, "/metadata/name").to_owned()).collect();
        let mut members = Vec::new();
        let mut error = names.is_empty().then(|| "no claim has the group's labels".to_owned());
        for claim in names {
            match cut(state, &group.namespace, &claim) {
                Ok((handle, size)) => members.push((claim, handle, size)),
                Err(message) => error = Some(message),
            }
        }
        if let Some(message) = error {
            members.iter().for_each(|(_, handle, _)| folders::remove(&folder(&state.root, handle)));
            let status = json!({"readyToUse": false, "error": {"message": message}});
            set_status(state, &group, object, status);
            continue;
        }
        take_group(state, &group, object, members);
    }
}

/// Makes the objects of a group that was cut.
fn take_group(state: &mut State, group: &Key, object: Value, members: Vec<(String, String, u64)>) {
    let class = text(&object, "/spec/volumeGroupSnapshotClassName").to_owned();
    let policy = policy(state, "volumegroupsnapshotclasses", GROUPS, &class);
    let handle = format!("group-{}", state.fresh());
    let content = format!("groupsnapcontent-{handle}");
    let infos: Vec<Value> = members.iter().map(|(_, handle, _)| json!({"snapshotHandle": handle})).collect();
    let whole = json!({"metadata": {"name": content}, "spec": {"deletionPolicy": policy, "driver": "fake",
        "volumeGroupSnapshotRef": {"namespace": group.namespace, "name": group.name, "uid": object["metadata"]["uid"]}},
        "status": {"readyToUse": true, "volumeGroupSnapshotHandle": handle, "volumeSnapshotInfoList": infos}});
    let at = key(GROUPS, "volumegroupsnapshotcontents", "", &content);
    put(state, &at, whole, &format!("{GROUPS}/v1"), "VolumeGroupSnapshotContent");
    let mut owner = owner("VolumeGroupSnapshot", &object);
    owner["apiVersion"] = format!("{GROUPS}/v1").into();
    let status = json!({"readyToUse": true, "creationTime": now(), "boundVolumeGroupSnapshotContentName": content});
    set_status(state, group, object, status);
    for (number, (claim, of, size)) in members.into_iter().enumerate() {
        let name = format!("snapshot-{}-{number}", group.name);
        let member = json!({"metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {"source": {"persistentVolumeClaimName": claim}}});
        let at = key(GROUP, "volumesnapshots", &group.namespace, &name);
        put(state, &at, member, &format!("{GROUP}/v1"), "VolumeSnapshot");
        let Some(member) = state.objects.get(&at).cloned() else { continue };
        let own = (group.namespace.as_str(), name.as_str(), &member["metadata"]["uid"]);
        let content = put_content(state, own, (&of, size), (&policy, "", Some(&handle)));
        set_status(state, &at, member, bound(&content, size, Some(&group.name)));
    }
}

/// Binds a snapshot to a content that somebody has made for it.
fn bind(state: &mut State, at: &Key, object: Value, name: &str) {
    let content = key(GROUP, "volumesnapshotcontents", "", name);
    let Some(mut found) = state.objects.get(&content).cloned() else { return };
    let of = "/spec/volumeSnapshotRef";
    let meant = (text(&found, &format!("{of}/namespace")), text(&found, &format!("{of}/name")));
    if meant != (at.namespace.as_str(), at.name.as_str()) {
        return;
    }
    if found.pointer("/status/readyToUse") != Some(&json!(true)) {
        let status = json!({"readyToUse": false, "error": found["status"]["error"]});
        set_status(state, at, object, status);
        return;
    }
    let size = found.pointer("/status/restoreSize").and_then(Value::as_u64).unwrap_or(0);
    found["spec"]["volumeSnapshotRef"]["uid"] = object["metadata"]["uid"].clone();
    state.store(&content, found, "MODIFIED");
    set_status(state, at, object, bound(name, size, None));
}

/// What goes with a snapshot, a group, or the content of one.
pub(crate) fn removed(state: &mut State, gone: &Key, object: &Value) {
    let is_deleted = |content: &Value| text(content, "/spec/deletionPolicy") == "Delete";
    let bound = match gone.plural.as_str() {
        "volumesnapshots" => ("volumesnapshotcontents", "/status/boundVolumeSnapshotContentName"),
        "volumegroupsnapshots" => ("volumegroupsnapshotcontents", "/status/boundVolumeGroupSnapshotContentName"),
        "volumesnapshotcontents" => {
            // The driver removes the members of a group with it, and none of them alone.
            if is_deleted(object) && object.pointer("/status/volumeGroupSnapshotHandle").is_none() {
                folders::remove(&folder(&state.root, text(object, "/status/snapshotHandle")));
            }
            return;
        }
        _ => {
            let members = object.pointer("/status/volumeSnapshotInfoList").and_then(Value::as_array);
            for member in members.into_iter().flatten().filter(|_| is_deleted(object)) {
                folders::remove(&folder(&state.root, text(member, "/snapshotHandle")));
            }
            return;
        }
    };
    let content = key(&gone.group, bound.0, "", text(object, bound.1));
    if state.objects.get(&content).is_some_and(is_deleted) {
        state.drop_object(&content);
    }
}

/// Fills the volume of a claim that is made from a snapshot; `false` while there is no such snapshot.
pub(crate) fn fill(state: &State, claim: &Value, volume: &str) -> bool {
    let (kind, name) = (text(claim, "/spec/dataSource/kind"), text(claim, "/spec/dataSource/name"));
    if kind != "VolumeSnapshot" {
        return true;
    }
    let snapshot = state.objects.get(&key(GROUP, "volumesnapshots", text(claim, "/metadata/namespace"), name));
    let content = snapshot.map(|snapshot| text(snapshot, "/status/boundVolumeSnapshotContentName"));
    let content = content.and_then(|name| state.objects.get(&key(GROUP, "volumesnapshotcontents", "", name)));
    let Some(content) = content else { return false };
    let from = folder(&state.root, text(content, "/status/snapshotHandle"));
    if !from.is_dir() {
        return false;
    }
    copy(&from, &folders::volume(&state.root, volume));
    true
}

/// The handles of what the driver keeps.
pub(crate) fn handles(root: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(root.join("snapshots")).into_iter().flatten().flatten();
    let mut handles: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    handles.sort();
    handles
}
