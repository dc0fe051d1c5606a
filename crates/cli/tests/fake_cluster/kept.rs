//! Snapshots that stay in the cluster with their recovery points.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fabkeep_fake_cluster::{Answer, Call, fabric};
use serde_json::{Value, json};

use crate::scene::{Ended, Scene, ended};

fn scene(groups: bool) -> Scene {
    let scene = Scene::new();
    scene.cluster.serve_snapshots(groups);
    scene
}

fn keep(scene: &Scene, count: &str) -> Ended {
    let backup = scene.backup(&["--volumes", "snapshot", "--keep-snapshots", count]);
    assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
    backup
}

fn clean(scene: &Scene, more: &[&str]) -> Ended {
    let cleaned = ended(&scene.on_cluster(&["clean"]).args(more).output().unwrap());
    assert_eq!(cleaned.code, 0, "{}", cleaned.text);
    cleaned
}

/// What was made for snapshots and is there: objects by kind and name, and what the driver keeps.
fn there(scene: &Scene) -> Vec<String> {
    let mut out = scene.cluster.snapshot_handles();
    for kind in ["VolumeSnapshot", "VolumeGroupSnapshot"] {
        for namespace in fabric::namespaces(&scene.nodes) {
            out.extend(scene.cluster.names(kind, &namespace).iter().map(|name| format!("{kind} {namespace}/{name}")));
        }
    }
    for kind in ["VolumeSnapshotContent", "VolumeGroupSnapshotContent"] {
        out.extend(scene.cluster.names(kind, "").iter().map(|name| format!("{kind} {name}")));
    }
    out
}

fn delete_namespaces(scene: &Scene) {
    for namespace in fabric::namespaces(&scene.nodes) {
        scene.cluster.delete("Namespace", "", &namespace);
    }
}

fn points(scene: &Scene) -> Vec<String> {
    let listed = scene.command(&["list", "--repo", "repository", "--output", "json"]).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let points = listed["points"].as_array().unwrap();
    points.iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
}

/// Runs a command and kills it at the first request that is meant.
fn killed(scene: &Scene, arguments: &[&str], is_meant: impl Fn(&Call) -> bool + Send + Sync + 'static) {
    let child = Arc::new(AtomicU32::new(0));
    let pid = Arc::clone(&child);
    scene.cluster.before(move |_, call| {
        if is_meant(call) && pid.load(Ordering::Relaxed) > 0 {
            let pid = pid.swap(0, Ordering::Relaxed).to_string();
            std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
        }
        Answer::Go
    });
    let mut command = scene.on_cluster(&["backup", "--repo", "repository", "--writer", "keys/writer", "-q"]);
    let mut running = command.args(arguments).spawn().unwrap();
    child.store(running.id(), Ordering::Relaxed);
    assert!(!running.wait().unwrap().success());
    scene.cluster.forget_hooks();
}

#[test]
fn the_newest_recovery_points_keep_their_snapshots_and_older_ones_do_not() {
    for groups in [false, true] {
        let scene = scene(groups);
        keep(&scene, "2");
        assert_eq!(scene.cluster.snapshot_handles().len(), 3);
        let first = scene.cluster.snapshot_handles();
        let show = scene.run(&["show", "--repo", "repository", "--identity", "keys/identity"]);
        assert!(show.text.contains("3 of them were left in the cluster"), "{}", show.text);
        assert!(show.text.contains("do not replace the repository"), "{}", show.text);
        for content in scene.cluster.list("VolumeSnapshotContent", "") {
            assert_eq!(content["spec"]["deletionPolicy"], "Retain");
        }
        let claims = fabric::namespaces(&scene.nodes).into_iter().flat_map(|namespace| {
            let claims = scene.cluster.list("PersistentVolumeClaim", &namespace);
            claims.into_iter().filter(|claim| claim["metadata"]["name"].as_str().unwrap().starts_with("fabkeep"))
        });
        assert_eq!(claims.count(), 0, "clones go");
        clean(&scene, &[]);
        clean(&scene, &["--repo", "repository"]);
        assert_eq!(scene.cluster.snapshot_handles(), first, "clean leaves what is kept");
        keep(&scene, "2");
        assert_eq!(scene.cluster.snapshot_handles().len(), 6);
        keep(&scene, "2");
        let left = scene.cluster.snapshot_handles();
        assert!(left.len() == 6 && first.iter().all(|handle| !left.contains(handle)), "{first:?} {left:?}");
        assert_eq!(scene.cluster.names("VolumeSnapshotContent", "").len(), 6);
        // A backup that does not ask for it neither keeps nor removes any.
        let other = scene.backup(&["--volumes", "snapshot"]);
        assert!(matches!(other.code, 0 | 3), "{}", other.text);
        assert_eq!(scene.cluster.snapshot_handles(), left);
        keep(&scene, "0");
        assert_eq!(there(&scene), Vec::<String>::new());
    }
}

#[test]
fn what_is_kept_outlasts_its_namespace_and_goes_with_its_recovery_point() {
    for groups in [false, true] {
        let scene = scene(groups);
        // The last complete recovery point cannot be forgotten.
        scene.back_up();
        keep(&scene, "1");
        let kept = scene.cluster.snapshot_handles();
        delete_namespaces(&scene);
        assert_eq!(scene.cluster.snapshot_handles(), kept);
        clean(&scene, &["--repo", "repository"]);
        assert_eq!(scene.cluster.snapshot_handles(), kept, "its recovery point is there");
        let point = points(&scene).pop().unwrap();
        let forgotten = scene.run(&["forget", "--repo", "repository", "--identity", "keys/identity", &point]);
        assert_eq!(forgotten.code, 0, "{}", forgotten.text);
        clean(&scene, &[]);
        assert_eq!(scene.cluster.snapshot_handles(), kept, "without the repository nobody knows");
        let look = clean(&scene, &["--repo", "repository", "--dry-run"]);
        assert!(look.text.contains("would remove VolumeSnapshot") && look.text.contains(&point), "{}", look.text);
        assert_eq!(scene.cluster.snapshot_handles(), kept);
        clean(&scene, &["--repo", "repository"]);
        assert_eq!(there(&scene), Vec::<String>::new());
    }
}

#[test]
fn what_a_stranger_marked_is_neither_counted_nor_removed() {
    let scene = scene(false);
    keep(&scene, "1");
    let mut content = scene.cluster.list("VolumeSnapshotContent", "").remove(0);
    let handle = content["status"]["snapshotHandle"].clone();
    // The note of another content, with the same handle: signed, and not of this one.
    content["metadata"]["name"] = "strange".into();
    content["metadata"].as_object_mut().unwrap().remove("uid");
    content["spec"]["deletionPolicy"] = "Delete".into();
    scene.cluster.put(content.clone());
    let note = json!({"repository": "x", "root": "y", "point": "20200101T000000Z-00000000", "network": "n"});
    content["metadata"]["annotations"]["fabkeep.io/kept"] = note.to_string().into();
    content["metadata"]["name"] = "unsigned".into();
    scene.cluster.put(content);
    let point = points(&scene).pop().unwrap();
    keep(&scene, "1");
    let forgotten = scene.run(&["forget", "--repo", "repository", "--identity", "keys/identity", &point]);
    assert_eq!(forgotten.code, 0, "{}", forgotten.text);
    let cleaned = clean(&scene, &["--repo", "repository"]);
    assert!(!cleaned.text.contains("removed VolumeSnapshot"), "{}", cleaned.text);
    let names = scene.cluster.names("VolumeSnapshotContent", "");
    assert!(names.contains(&"strange".to_owned()) && names.contains(&"unsigned".to_owned()), "{names:?}");
    assert!(!scene.cluster.snapshot_handles().contains(&handle.as_str().unwrap().to_owned()));
}

#[test]
fn a_backup_that_is_killed_before_its_commit_keeps_nothing() {
    let arguments = ["--volumes", "snapshot", "--keep-snapshots", "2"];
    for groups in [false, true] {
        // When the helper pods go, everything is read and nothing is committed.
        let scene = scene(groups);
        killed(&scene, &arguments, |call| call.is("delete", "pods"));
        assert_eq!(points(&scene), Vec::<String>::new());
        assert!(!there(&scene).is_empty());
        clean(&scene, &[]);
        assert_eq!(there(&scene), Vec::<String>::new());
    }
}

#[test]
fn a_backup_that_is_killed_while_it_marks_what_is_kept_leaves_nothing_that_is_not_found() {
    let arguments = ["--volumes", "snapshot", "--keep-snapshots", "2"];
    for groups in [false, true] {
        for plural in
            ["volumegroupsnapshotcontents", "volumesnapshotcontents", "volumegroupsnapshots", "volumesnapshots"]
        {
            if !groups && plural.starts_with("volumegroup") {
                continue;
            }
            let scene = scene(groups);
            killed(&scene, &arguments, move |call| call.is("patch", plural));
            let point = points(&scene).pop().unwrap();
            clean(&scene, &[]);
            // The next one keeps its own, and what is left of this one goes with its recovery point.
            keep(&scene, "2");
            let forgotten = scene.run(&["forget", "--repo", "repository", "--identity", "keys/identity", &point]);
            assert_eq!(forgotten.code, 0, "{}", forgotten.text);
            clean(&scene, &["--repo", "repository"]);
            assert_eq!(scene.cluster.snapshot_handles().len(), 3, "{groups} {plural}: {:?}", there(&scene));
            keep(&scene, "0");
            assert_eq!(there(&scene), Vec::<String>::new(), "{groups} {plural}");
        }
    }
}

#[test]
fn without_the_right_to_keep_them_nothing_is_begun() {
    let scene = scene(true);
    scene.cluster.forbid(|call| call.is("list", "volumesnapshotcontents"));
    let refused = scene.backup(&["--volumes", "snapshot", "--keep-snapshots", "1"]);
    assert!(!matches!(refused.code, 0 | 3), "{}", refused.text);
    assert!(refused.text.contains("the snapshots that backups have kept"), "{}", refused.text);
    assert_eq!(there(&scene), Vec::<String>::new());
    let misused = scene.backup(&["--keep-snapshots", "1"]);
    assert!(misused.code == 2 && misused.text.contains("--volumes snapshot"), "{}", misused.text);
}

#[test]
fn what_cannot_be_kept_is_told_and_removed() {
    let scene = scene(true);
    scene.back_up();
    scene.cluster.forbid(|call| call.is("patch", "volumesnapshots"));
    let backup = keep(&scene, "1");
    assert!(backup.code == 3 && backup.text.contains("could not be kept in the cluster"), "{}", backup.text);
    scene.cluster.forget_hooks();
    let point = points(&scene).pop().unwrap();
    let forgotten = scene.run(&["forget", "--repo", "repository", "--identity", "keys/identity", &point]);
    assert_eq!(forgotten.code, 0, "{}", forgotten.text);
    clean(&scene, &["--repo", "repository"]);
    assert_eq!(there(&scene), Vec::<String>::new());
}

#[test]
fn the_plan_says_that_they_stay_and_what_they_are_not() {
    let scene = scene(true);
    let plan = scene.backup(&["--volumes", "snapshot", "--keep-snapshots", "3", "--dry-run"]);
    assert!(plan.text.contains("stay in the cluster for the newest 3 recovery points"), "{}", plan.text);
    assert!(plan.text.contains("do not replace the repository"), "{}", plan.text);
    assert_eq!(there(&scene), Vec::<String>::new());
}
