//! Restores from snapshots that stayed in the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fabkeep_fake_cluster::{Answer, fabric};
use serde_json::{Value, json};

use crate::scene::{Ended, Scene};

/// A network whose newest recovery point has kept its snapshots.
fn kept(groups: bool) -> Scene {
    let scene = Scene::new();
    scene.cluster.serve_snapshots(groups);
    let backup = scene.backup(&["--volumes", "snapshot", "--keep-snapshots", "1"]);
    assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
    scene
}

fn delete_namespaces(scene: &Scene) {
    for namespace in fabric::namespaces(&scene.nodes) {
        scene.cluster.delete("Namespace", "", &namespace);
    }
}

fn restored(scene: &Scene, more: &[&str]) -> Ended {
    let restored = scene.restore(more);
    assert!(matches!(restored.code, 0 | 3), "{}", restored.text);
    restored
}

/// What a restore from the repository alone writes.
fn from_repository(scene: &Scene) -> BTreeMap<String, u64> {
    delete_namespaces(scene);
    restored(scene, &[]);
    scene.contents()
}

/// Snapshots in the namespaces, and contents that are none of the kept ones.
fn left(scene: &Scene) -> Vec<String> {
    let mut out = scene.cluster.names("VolumeSnapshotContent", "");
    out.retain(|name| name.starts_with("fabkeep-"));
    for namespace in fabric::namespaces(&scene.nodes) {
        out.extend(scene.cluster.names("VolumeSnapshot", &namespace).into_iter().filter(|name| name.contains("lent")));
    }
    out
}

/// The folder of the snapshot of a claim.
fn snapshot_of(scene: &Scene, claim: &str) -> std::path::PathBuf {
    let contents = scene.cluster.list("VolumeSnapshotContent", "");
    let note = |content: &Value| content["metadata"]["annotations"]["fabkeep.io/kept"].as_str().unwrap().to_owned();
    let found = contents.iter().find(|content| note(content).contains(&format!("\"claim\":\"{claim}\""))).unwrap();
    scene.cluster.snapshot_folder(found["status"]["snapshotHandle"].as_str().unwrap())
}

#[test]
fn deleted_namespaces_come_back_from_snapshots_as_from_the_repository() {
    for groups in [false, true] {
        let scene = kept(groups);
        let expected = from_repository(&scene);
        let handles = scene.cluster.snapshot_handles();
        // Twice: what is kept stays.
        for _ in 0..2 {
            delete_namespaces(&scene);
            let plan = scene.restore(&["--from-snapshots", "--dry-run"]);
            assert!(plan.text.contains("make claim org1/peer0-data from the kept snapshot"), "{}", plan.text);
            let restored = restored(&scene, &["--from-snapshots"]);
            assert!(restored.text.contains("files hashed inside the volumes"), "{}", restored.text);
            assert_eq!(scene.contents(), expected);
            for claim in ["peer0-data", "peer1-data"] {
                let claim = scene.cluster.get("PersistentVolumeClaim", "org1", claim).unwrap();
                assert_eq!(claim["spec"]["dataSource"]["kind"], "VolumeSnapshot");
            }
            assert_eq!(left(&scene), Vec::<String>::new());
            assert_eq!(scene.cluster.snapshot_handles(), handles);
        }
    }
}

#[test]
fn what_a_snapshot_holds_is_not_believed() {
    let scene = kept(true);
    let expected = from_repository(&scene);
    delete_namespaces(&scene);
    let folder = snapshot_of(&scene, "peer0-data");
    let mut files = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    let chain = files.iter().find(|path| path.ends_with("blockfile_000000")).unwrap();
    // One byte, in the middle.
    let mut bytes = std::fs::read(chain).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(chain, bytes).unwrap();
    // A file that grew, strange files and folders, and a link in the place of a folder.
    let other = files.iter().find(|path| !path.ends_with("blockfile_000000") && path.is_file()).unwrap();
    std::fs::write(other, "something else").unwrap();
    std::fs::create_dir_all(folder.join("strange/deep/er")).unwrap();
    std::fs::write(folder.join("strange/deep/file"), "x").unwrap();
    std::fs::write(chain.with_file_name("blockfile_000001"), "x").unwrap();
    std::fs::write(folder.join("-rf *"), "x").unwrap();
    let chains = chain.parent().unwrap().parent().unwrap();
    let elsewhere = scene.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(chains, chains.with_file_name("moved")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, chains).unwrap();
    restored(&scene, &["--from-snapshots"]);
    assert_eq!(scene.contents(), expected);
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing is written through a link");
    assert!(!scene.cluster.volume("org1", "peer0-data").join("strange").exists());
}

#[test]
fn a_claim_without_a_usable_snapshot_is_filled_from_the_repository_and_the_plan_says_why() {
    let faults: [(&str, Value); 5] = [
        ("is in error: the array is on fire", json!({"status": {"error": {"message": "the array is on fire"}}})),
        ("is not ready to be used", json!({"status": {"readyToUse": false}})),
        ("is of another driver than recorded", json!({"spec": {"driver": "other"}})),
        ("has another handle than recorded", json!({"status": {"snapshotHandle": "other"}})),
        ("has 5 bytes, and", json!({"status": {"restoreSize": 5}})),
    ];
    let scene = kept(false);
    let expected = from_repository(&scene);
    let contents = scene.cluster.names("VolumeSnapshotContent", "");
    let name = contents.iter().find(|name| name.contains("org1")).unwrap();
    for (why, fault) in faults {
        delete_namespaces(&scene);
        let sound = scene.cluster.get("VolumeSnapshotContent", "", name).unwrap();
        scene.cluster.patch("VolumeSnapshotContent", "", name, &fault);
        let restored = restored(&scene, &["--from-snapshots"]);
        assert!(
            restored.text.contains("from the repository: its snapshot") && restored.text.contains(why),
            "{}",
            restored.text
        );
        assert!(restored.text.contains("from the kept snapshot"), "the others come from theirs: {}", restored.text);
        assert_eq!(scene.contents(), expected);
        let back = json!({"spec": {"driver": "fake"}, "status": {"error": null, "readyToUse": true,
            "snapshotHandle": sound["status"]["snapshotHandle"], "restoreSize": sound["status"]["restoreSize"]}});
        scene.cluster.patch("VolumeSnapshotContent", "", name, &back);
    }
    // Another one of the same name, and none.
    delete_namespaces(&scene);
    let mut another = scene.cluster.get("VolumeSnapshotContent", "", name).unwrap();
    scene.cluster.delete("VolumeSnapshotContent", "", name);
    another["metadata"].as_object_mut().unwrap().remove("uid");
    scene.cluster.put(another);
    let plan = scene.restore(&["--from-snapshots", "--dry-run"]);
    assert!(plan.text.contains("another one than the recorded one"), "{}", plan.text);
    scene.cluster.delete("VolumeSnapshotContent", "", name);
    let restored = restored(&scene, &["--from-snapshots"]);
    assert!(restored.text.contains("its snapshot is gone from the cluster"), "{}", restored.text);
    assert_eq!(scene.contents(), expected);
}

#[test]
fn a_driver_that_lost_its_snapshot_is_told_and_the_repository_serves() {
    let scene = kept(false);
    let expected = from_repository(&scene);
    delete_namespaces(&scene);
    std::fs::remove_dir_all(snapshot_of(&scene, "peer1-data")).unwrap();
    let restored = restored(&scene, &["--from-snapshots"]);
    assert!(restored.text.contains("its kept snapshot cannot be used"), "{}", restored.text);
    assert_eq!(scene.contents(), expected);
    assert_eq!(left(&scene), Vec::<String>::new());
}

#[test]
fn a_claim_that_is_there_is_refused_as_ever_and_one_that_was_deleted_comes_from_its_own_snapshot() {
    for groups in [false, true] {
        let scene = kept(groups);
        let before = scene.contents();
        let refused = scene.restore(&["--from-snapshots"]);
        assert!(!matches!(refused.code, 0 | 3) && refused.text.contains("B8"), "{}", refused.text);
        assert_eq!(scene.contents(), before);
        scene.cluster.scale("Deployment", "org1", "peer0", 0);
        scene.cluster.delete("PersistentVolumeClaim", "org1", "peer0-data");
        let restored = restored(&scene, &["--from-snapshots", "--missing"]);
        assert!(restored.text.contains("make claim org1/peer0-data from the kept snapshot"), "{}", restored.text);
        assert_eq!(left(&scene), Vec::<String>::new());
        assert!(!scene.cluster.calls().iter().any(|call| call.is("create", "volumesnapshotcontents")));
    }
}

#[test]
fn another_namespace_can_be_made_from_the_snapshots_too() {
    let scene = kept(true);
    delete_namespaces(&scene);
    let restored = restored(&scene, &["--from-snapshots", "--map-namespace", "org1=org9", "--no-start"]);
    assert!(restored.text.contains("make claim org9/peer0-data from the kept snapshot"), "{}", restored.text);
    assert!(scene.cluster.get("PersistentVolumeClaim", "org9", "peer0-data").is_some());
}

#[test]
fn killed_anywhere_the_same_command_goes_on() {
    let kinds = [
        ("create", "volumesnapshotcontents"),
        ("create", "volumesnapshots"),
        ("create", "persistentvolumeclaims"),
        ("create", "pods"),
        ("delete", "volumesnapshots"),
        ("delete", "volumesnapshotcontents"),
        ("patch", "configmaps"),
    ];
    let scene = kept(true);
    let expected = from_repository(&scene);
    let handles = scene.cluster.snapshot_handles();
    let mut interrupted = 0;
    for (verb, plural) in kinds {
        for nth in [0_u32, 2] {
            delete_namespaces(&scene);
            let (child, seen) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
            let pid = Arc::clone(&child);
            scene.cluster.before(move |_, call| {
                if call.is(verb, plural)
                    && seen.fetch_add(1, Ordering::Relaxed) == nth
                    && pid.load(Ordering::Relaxed) > 0
                {
                    let pid = pid.swap(0, Ordering::Relaxed).to_string();
                    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
                }
                Answer::Go
            });
            let mut running = scene.restore_command(&["--from-snapshots"]).spawn().unwrap();
            child.store(running.id(), Ordering::Relaxed);
            let is_whole = running.wait().unwrap().code().is_some();
            scene.cluster.forget_hooks();
            if !is_whole {
                interrupted += 1;
                restored(&scene, &["--from-snapshots"]);
            }
            assert_eq!(scene.contents(), expected, "{verb} {plural} {nth}");
            let cleaned = scene.on_cluster(&["clean"]).output().unwrap();
            assert!(cleaned.status.success());
            assert_eq!(left(&scene), Vec::<String>::new(), "{verb} {plural} {nth}");
            assert_eq!(scene.cluster.snapshot_handles(), handles, "{verb} {plural} {nth}");
        }
    }
    assert!(interrupted >= 8, "{interrupted}");
}
