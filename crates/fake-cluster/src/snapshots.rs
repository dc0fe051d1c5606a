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

/// Returns the folder of a snapshot.
fn folder(root: &Path, namespace: &str, name: &str) -> PathBuf {
    root.join("snapshots").join(namespace).join(name)
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

/// Copies a claim's volume: the status of its snapshot.
fn cut(state: &State, namespace: &str, claim_name: &str, snapshot: &str) -> Value {
    let Some(found) = claim(state, namespace, claim_name) else {
        return json!({"readyToUse": false, "error": {"message": format!("there is no claim {claim_name}")}});
    };
    if let Some(message) = found.pointer("/metadata/annotations").and_then(|all| all.get(FAILS)).and_then(Value::as_str)
    {
        return json!({"readyToUse": false, "error": {"message": message}});
    }
    copy(&folders::volume(&state.root, text(found, "/spec/volumeName")), &folder(&state.root, namespace, snapshot));
    let size = found.pointer("/spec/resources/requests/storage").cloned().unwrap_or_else(|| "1Gi".into());
    json!({
        "readyToUse": true, "creationTime": now(), "restoreSize": size,
        "boundVolumeSnapshotContentName": format!("snapcontent-{namespace}-{snapshot}"),
    })
}

fn put_content(state: &mut State, namespace: &str, snapshot: &str, policy: &str) {
    let name = format!("snapcontent-{namespace}-{snapshot}");
    let content = key(GROUP, "volumesnapshotcontents", "", &name);
    let object = json!({"metadata": {"name": name}, "spec": {"deletionPolicy": policy, "driver": "fake",
        "volumeSnapshotRef": {"kind": "VolumeSnapshot", "namespace": namespace, "name": snapshot}}});
    put(state, &content, object, &format!("{GROUP}/v1"), "VolumeSnapshotContent");
}

fn policy(state: &State, plural: &str, group: &str, class: &str) -> String {
    let class = state.objects.get(&key(group, plural, "", class));
    class.map(|class| text(class, "/deletionPolicy").to_owned()).unwrap_or_else(|| "Delete".to_owned())
}

/// Takes what was asked for.
pub(crate) fn take(state: &mut State) {
    for snapshot in keys(state, GROUP, "volumesnapshots") {
        let Some(object) = state.objects.get(&snapshot).cloned() else { continue };
        if !text(&object, "/status/creationTime").is_empty() {
            continue;
        }
        let claim = text(&object, "/spec/source/persistentVolumeClaimName");
        let status = cut(state, &snapshot.namespace, claim, &snapshot.name);
        if object.get("status") == Some(&status) {
            continue;
        }
        let taken = status.get("error").is_none();
        let mut object = object;
        object["status"] = status;
        let class = text(&object, "/spec/volumeSnapshotClassName").to_owned();
        state.store(&snapshot, object, "MODIFIED");
        if taken {
            let policy = policy(state, "volumesnapshotclasses", GROUP, &class);
            put_content(state, &snapshot.namespace, &snapshot.name, &policy);
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
        let mut error = names.is_empty().then(|| json!({"message": "no claim has the group's labels"}));
        for (number, claim) in names.iter().enumerate() {
            let name = format!("snapshot-{}-{number}", group.name);
            let mut status = cut(state, &group.namespace, claim, &name);
            match status.get("error") {
                Some(found) => error = Some(found.clone()),
                None => {
                    status["volumeGroupSnapshotName"] = group.name.clone().into();
                    members.push((name, claim.clone(), status));
                }
            }
        }
        let mut object = object;
        if let Some(error) = error {
            let status = json!({"readyToUse": false, "error": error});
            if object.get("status") != Some(&status) {
                object["status"] = status;
                state.store(&group, object, "MODIFIED");
            }
            continue;
        }
        object["status"] = json!({"readyToUse": true, "creationTime": now()});
        let class = text(&object, "/spec/volumeGroupSnapshotClassName").to_owned();
        let policy = policy(state, "volumegroupsnapshotclasses", GROUPS, &class);
        let owner = owner("VolumeGroupSnapshot", &object);
        state.store(&group, object, "MODIFIED");
        for (name, claim, status) in members {
            let mut owner = owner.clone();
            owner["apiVersion"] = format!("{GROUPS}/v1").into();
            let member = json!({"metadata": {"name": name, "ownerReferences": [owner]},
                "spec": {"source": {"persistentVolumeClaimName": claim}}, "status": status});
            let at = key(GROUP, "volumesnapshots", &group.namespace, &name);
            put(state, &at, member, &format!("{GROUP}/v1"), "VolumeSnapshot");
            put_content(state, &group.namespace, &name, &policy);
        }
    }
}

/// What goes with a snapshot.
pub(crate) fn removed(state: &mut State, snapshot: &Key) {
    let content = format!("snapcontent-{}-{}", snapshot.namespace, snapshot.name);
    let content = key(GROUP, "volumesnapshotcontents", "", &content);
    if state.objects.get(&content).is_some_and(|content| text(content, "/spec/deletionPolicy") == "Delete") {
        folders::remove(&folder(&state.root, &snapshot.namespace, &snapshot.name));
        state.drop_object(&content);
    }
}

/// Fills the volume of a claim that is a clone of a snapshot; `false` while there is no such snapshot.
pub(crate) fn fill(state: &State, claim: &Value, volume: &str) -> bool {
    let (kind, name) = (text(claim, "/spec/dataSource/kind"), text(claim, "/spec/dataSource/name"));
    if kind != "VolumeSnapshot" {
        return true;
    }
    let from = folder(&state.root, text(claim, "/metadata/namespace"), name);
    if !from.is_dir() {
        return false;
    }
    copy(&from, &folders::volume(&state.root, volume));
    true
}
