//! Volumes captured by snapshots: taken together or in order, read through clones, and removed with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use fabkeep_fake_cluster::{Answer, fabric};
use serde_json::{Value, json};

use crate::scene::{Ended, Scene, ended};

const KINDS: [&str; 2] = ["VolumeSnapshot", "VolumeSnapshotContent"];

fn scene(groups: bool) -> Scene {
    let scene = Scene::new();
    scene.cluster.serve_snapshots(groups);
    scene
}

/// What backups made in the cluster and did not remove.
fn left(scene: &Scene) -> Vec<String> {
    let mut out = Vec::new();
    for namespace in fabric::namespaces(&scene.nodes) {
        out.extend(KINDS.iter().flat_map(|kind| scene.cluster.names(kind, &namespace)));
        let claims = scene.cluster.list("PersistentVolumeClaim", &namespace);
        let name = |claim: &Value| claim["metadata"]["name"].as_str().unwrap().to_owned();
        out.extend(claims.iter().map(name).filter(|name| name.starts_with("fabkeep")));
        let labelled = claims.iter().filter(|claim| claim["metadata"]["labels"]["fabkeep.io/snapshot"].is_string());
        out.extend(labelled.map(|claim| format!("label of {}", name(claim))));
        out.extend(scene.cluster.names("Pod", &namespace).into_iter().filter(|name| name.starts_with("fabkeep")));
    }
    out.extend(scene.cluster.names("VolumeSnapshotContent", ""));
    let volumes = scene.cluster.names("PersistentVolume", "");
    out.extend(volumes.into_iter().filter(|name| name.contains("fabkeep")));
    out
}

fn clean(scene: &Scene) -> Ended {
    ended(&scene.on_cluster(&["clean"]).output().unwrap())
}

/// Takes the data of every node away as soon as the snapshots are read: what is captured after that is theirs.
fn lose_everything_after_the_snapshots(scene: &Scene) {
    let folders: Vec<_> =
        scene.nodes.iter().map(|node| scene.cluster.volume(&node.namespace(), &node.claim())).collect();
    scene.cluster.before(move |_, call| {
        if call.is("create", "persistentvolumeclaims") {
            for folder in &folders {
                std::fs::remove_dir_all(folder).unwrap();
                std::fs::create_dir(folder).unwrap();
            }
        }
        Answer::Go
    });
}

#[test]
fn what_is_captured_is_what_the_snapshots_show() {
    for groups in [false, true] {
        let scene = scene(groups);
        let before = scene.contents();
        lose_everything_after_the_snapshots(&scene);
        let backup = scene.backup(&["--volumes", "snapshot"]);
        assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
        assert!(backup.text.contains("volumes: 3 snapshots"), "{}", backup.text);
        // Two of the claims are in one namespace.
        assert_eq!(backup.text.contains("in one group"), groups, "{}", backup.text);
        assert_eq!(left(&scene), Vec::<String>::new());
        scene.cluster.forget_hooks();
        let restored = scene.restore(&["--replace"]);
        assert!(matches!(restored.code, 0 | 3) && restored.text.contains("every block checked"), "{}", restored.text);
        let after = scene.contents();
        let lost: Vec<_> =
            before.keys().filter(|name| !after.contains_key(*name) && name.contains("/chains/chains/")).collect();
        assert!(lost.is_empty(), "{lost:?}");
        let verify = scene.verify();
        assert_eq!(verify.code, 0, "{}", verify.text);
    }
}

#[test]
fn orderers_are_taken_after_peers() {
    let scene = scene(false);
    let orderer = scene.nodes.iter().find(|node| node.claim().starts_with("orderer")).unwrap().namespace();
    let peers = AtomicU32::new(u32::MAX);
    let peers = Arc::new(peers);
    let seen = Arc::clone(&peers);
    scene.cluster.before(move |cluster, call| {
        if call.is("create", "volumesnapshots") && call.namespace == orderer {
            let cut = cluster.list("VolumeSnapshot", "org1");
            let cut = cut.iter().filter(|snapshot| snapshot["status"]["creationTime"].is_string()).count();
            seen.store(u32::try_from(cut).unwrap(), Ordering::Relaxed);
        }
        Answer::Go
    });
    let backup = scene.backup(&["--volumes", "snapshot"]);
    assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
    assert_eq!(peers.load(Ordering::Relaxed), 2);
}

#[test]
fn a_window_ends_when_the_snapshots_are_cut() {
    let scene = scene(true);
    let closed = scene.path("closed");
    let open = Arc::new(AtomicBool::new(false));
    let (seen, file) = (Arc::clone(&open), closed.clone());
    scene.cluster.before(move |_, call| {
        if call.is("create", "persistentvolumeclaims") {
            seen.store(!file.exists(), Ordering::Relaxed);
        }
        if call.is("create", "volumesnapshots") || call.is("create", "volumegroupsnapshots") {
            assert!(file.exists(), "a snapshot was taken outside the window");
        }
        Answer::Go
    });
    let (before, after) = (format!("touch {}", closed.display()), format!("rm -f {}", closed.display()));
    let window = ["--quiesce", "hook", "--hook-before", &before, "--hook-after", &after, "--settle", "0.1"];
    let backup = scene.backup(&[&["--volumes", "snapshot"], &window[..]].concat());
    assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
    assert!(open.load(Ordering::Relaxed), "the clones were read inside the window");
    assert!(backup.text.contains("no-transaction window") && backup.text.contains("3 snapshots"), "{}", backup.text);
}

#[test]
fn a_volume_without_a_snapshot_refuses_all_of_them_or_is_read_without() {
    let scene = scene(false);
    scene.cluster.patch("VolumeSnapshotClass", "", "fake", &json!({"driver": "another"}));
    let refused = scene.backup(&["--volumes", "snapshot"]);
    assert_eq!(refused.code, 4, "{}", refused.text);
    assert!(refused.text.contains("K9") && refused.text.contains("no VolumeSnapshotClass"), "{}", refused.text);
    assert!(refused.text.contains("org1/peer0"), "{}", refused.text);
    let plan = scene.backup(&["--volumes", "auto", "--dry-run"]);
    assert!(plan.text.contains("read the volumes without snapshots, because ordererorg/orderer1"), "{}", plan.text);
    let streamed = scene.backup(&["--volumes", "auto"]);
    assert!(matches!(streamed.code, 0 | 3) && !streamed.text.contains("snapshots"), "{}", streamed.text);

    let without = Scene::new();
    let refused = without.backup(&["--volumes", "snapshot"]);
    assert!(
        refused.code != 0 && refused.text.contains("does not serve snapshot.storage.k8s.io/v1"),
        "{}",
        refused.text
    );
    let streamed = without.backup(&["--volumes", "auto"]);
    assert!(matches!(streamed.code, 0 | 3), "{}", streamed.text);
}

#[test]
fn a_plan_names_the_snapshots_and_changes_nothing() {
    let scene = scene(true);
    let plan = scene.backup(&["--volumes", "snapshot", "--dry-run"]);
    assert!(plan.text.contains("take one group snapshot of peer0-data, peer1-data in namespace org1"), "{}", plan.text);
    assert_eq!(left(&scene), Vec::<String>::new());
    assert!(!scene.cluster.calls().iter().any(|call| call.is("create", "volumesnapshots")));
}

#[test]
fn an_error_of_the_driver_ends_the_backup_in_its_words_and_leaves_nothing() {
    let scene = scene(true);
    let failing = json!({"metadata": {"annotations": {"k8s.local/fail-snapshot": "the disk array is on fire"}}});
    scene.cluster.patch("PersistentVolumeClaim", "org1", "peer1-data", &failing);
    let failed = scene.backup(&["--volumes", "snapshot"]);
    assert!(!matches!(failed.code, 0 | 3), "{}", failed.text);
    assert!(failed.text.contains("the disk array is on fire"), "{}", failed.text);
    assert!(failed.text.contains("--volumes stream"), "{}", failed.text);
    assert_eq!(left(&scene), Vec::<String>::new());
}

#[test]
fn what_a_killed_backup_left_is_removed_by_clean() {
    for groups in [false, true] {
        let scene = scene(groups);
        // Kept by their classes, as snapshots and clones must not be.
        let retain = json!({"deletionPolicy": "Retain"});
        scene.cluster.patch("VolumeSnapshotClass", "", "fake", &retain);
        if groups {
            scene.cluster.patch("VolumeGroupSnapshotClass", "", "fake", &retain);
        }
        scene.cluster.patch("StorageClass", "", "standard", &json!({"reclaimPolicy": "Retain"}));
        let child = Arc::new(AtomicU32::new(0));
        let pid = Arc::clone(&child);
        scene.cluster.before(move |_, call| {
            // The last clone is there, its helper pod is not.
            if call.is("create", "pods") && pid.load(Ordering::Relaxed) > 0 {
                let pid = pid.swap(0, Ordering::Relaxed).to_string();
                std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
            }
            Answer::Go
        });
        let mut command = scene.on_cluster(&["backup", "--repo", "repository", "--writer", "keys/writer", "-q"]);
        let mut running = command.args(["--volumes", "snapshot"]).spawn().unwrap();
        child.store(running.id(), Ordering::Relaxed);
        assert!(!running.wait().unwrap().success());
        scene.cluster.forget_hooks();
        let found = left(&scene);
        assert!(found.iter().any(|name| name.starts_with("fabkeep")), "{found:?}");
        let cleaned = clean(&scene);
        assert!(cleaned.code == 0 && cleaned.text.contains("VolumeSnapshot"), "{}", cleaned.text);
        assert_eq!(left(&scene), Vec::<String>::new(), "{}", cleaned.text);
        let again = scene.backup(&["--volumes", "snapshot"]);
        assert!(matches!(again.code, 0 | 3), "{}", again.text);
        assert_eq!(left(&scene), Vec::<String>::new());
    }
}
