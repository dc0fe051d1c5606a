//! What claims contain and who else mounts them: a restore finds the place of everything that was captured, or says before it begins what
//! has none.

use std::time::Duration;

use fabkeep_engine::{ClusterTarget, Done, EngineError, RestoreOptions, RestoreTarget, Silent};
use fabkeep_fake_cluster::{Answer, Cluster};
use fabkeep_network::Finding;
use fabkeep_platform::kubernetes::Mapping;
use serde_json::{Value, json};

use super::restores::{
    PEER, PEERS, captured, damage, differences, found, options, replace_all, replace_peer, replicas, restore,
    restore_into, target, with_plan,
};
use super::scene::Scene;

/// The peer's claim is mounted above its data: it contains more than that.
fn with_rest() -> Scene {
    let scene = Scene::with(&PEER);
    let volume = scene.cluster.volume("org1", "peer0-data");
    let inside = volume.join("production");
    std::fs::create_dir(&inside).unwrap();
    for entry in std::fs::read_dir(&volume).unwrap().map(Result::unwrap) {
        if entry.path() != inside {
            std::fs::rename(entry.path(), inside.join(entry.file_name())).unwrap();
        }
    }
    std::fs::create_dir(volume.join("scripts")).unwrap();
    std::fs::write(volume.join("scripts/run.sh"), "exec peer node start").unwrap();
    // Where the peer's endpoint looks for its heights.
    std::os::unix::fs::symlink("production/ledgersData", volume.join("ledgersData")).unwrap();
    let mut object = scene.cluster.get("Deployment", "org1", "peer0").unwrap();
    object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = json!("/var/hyperledger");
    scene.cluster.put(object);
    scene
}

/// A pod that mounts the claim at a path of its own.
fn second_pod(cluster: &Cluster, owners: Value) {
    let metadata = json!({"name": "look", "namespace": "org1", "ownerReferences": owners});
    cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "look", "image": "busybox", "command": ["sleep", "9999"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "peer0-data"}}]}}));
}

/// Of a controller that fabkeep does not know: no restore creates its pods.
fn of_a_notebook() -> Value {
    json!([{"apiVersion": "example.com/v1", "kind": "Notebook", "name": "look", "uid": "1", "controller": true}])
}

fn nodes_of(scene: &Scene) -> Vec<String> {
    let shown = scene.on_cluster(&["discover", "--output", "json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let nodes = shown["topology"]["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["node"].as_str().unwrap().to_owned()).collect()
}

fn lose_and_restore(scene: &Scene) {
    let run = scene.cluster.volume("org1", "peer0-data").join("scripts/run.sh");
    assert!(scene.cluster.delete("Namespace", "", "org1"));
    assert!(!run.exists());
    restore(scene, &options()).unwrap();
    let run = scene.cluster.volume("org1", "peer0-data").join("scripts/run.sh");
    assert_eq!(std::fs::read_to_string(run).unwrap(), "exec peer node start");
}

#[test]
fn what_a_claim_contains_belongs_to_its_node_whoever_else_mounts_it() {
    let scene = with_rest();
    let alone = nodes_of(&scene);
    second_pod(&scene.cluster, of_a_notebook());
    assert_eq!(nodes_of(&scene), alone);
    // Captured with the other pod, restored without it.
    scene.back_up();
    lose_and_restore(&scene);
    // Captured without it, restored beside it.
    scene.back_up();
    second_pod(&scene.cluster, json!([]));
    std::fs::remove_dir_all(scene.cluster.volume("org1", "peer0-data").join("scripts")).unwrap();
    let restored = restore(&scene, &replace_all()).unwrap();
    assert!(found(&restored.findings, "B8", "Pod org1/look").is_some(), "{:?}", restored.findings);
    assert!(scene.cluster.volume("org1", "peer0-data").join("scripts/run.sh").exists());
    // A pod that has ended.
    scene.cluster.patch("Pod", "org1", "look", &json!({"status": {"phase": "Succeeded"}}));
    assert_eq!(nodes_of(&scene), alone);
}

#[test]
fn what_belonged_to_no_node_and_has_no_place_any_more_is_left_out_and_reported() {
    let scene = with_rest();
    // The node sees only its own part of the claim, the other pod everything.
    let mut object = scene.cluster.get("Deployment", "org1", "peer0").unwrap();
    let mount = &mut object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0];
    mount["mountPath"] = json!("/var/hyperledger/production");
    mount["subPath"] = json!("production");
    scene.cluster.put(object);
    second_pod(&scene.cluster, of_a_notebook());
    scene.back_up();
    assert!(nodes_of(&scene).iter().any(|node| node.ends_with("peer0-data.files")));
    scene.cluster.delete("Pod", "org1", "look");
    damage_part(&scene);
    let restored = restore(&scene, &replace_all()).unwrap();
    assert!(found(&restored.findings, "K3", "org1/peer0-data.files").is_some(), "{:?}", restored.findings);
    assert_eq!(replicas(&scene.cluster, "peer0"), 1);
}

fn damage_part(scene: &Scene) {
    let chain = "production/ledgersData/chains/chains/mychannel/blockfile_000000";
    std::fs::write(scene.cluster.volume("org1", "peer0-data").join(chain), b"this is no block file").unwrap();
}

#[test]
fn a_directory_without_a_place_is_refused_before_anything_is_changed() {
    let scene = captured(&PEERS);
    damage(&scene);
    let mut object = scene.cluster.get("Deployment", "org1", "peer0").unwrap();
    // Somebody has given it a volume that goes with its pod.
    object["spec"]["template"]["spec"]["volumes"][0] =
        json!({"name": object["spec"]["template"]["spec"]["volumes"][0]["name"], "emptyDir": {}});
    scene.cluster.put(object);
    scene.cluster.forget_calls();
    let error = restore(&scene, &replace_peer()).unwrap_err();
    let EngineError::Precondition(findings) = &error else { panic!("{error}") };
    assert!(found(findings, "K3", "org1/peer0").is_some(), "{findings:?}");
    let writes = scene.cluster.calls().into_iter().filter(|call| call.is_write() && call.resource != "pods");
    assert_eq!(writes.map(|call| call.name).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_claim_that_came_back_empty_is_not_taken_for_one_that_is_there() {
    let scene = captured(&PEERS);
    let missing = RestoreOptions { missing: true, ..options() };
    let nothing = restore(&scene, &missing).unwrap();
    assert!(nothing.findings.iter().all(|finding| !finding.what.contains("come back empty")), "{:?}", nothing.findings);
    // A StatefulSet makes a new claim for its pod as soon as the old one is gone.
    let mut claim = scene.cluster.get("PersistentVolumeClaim", "org1", "peer0-data").unwrap();
    claim["metadata"] = json!({"name": "peer0-data", "namespace": "org1"});
    claim["spec"].as_object_mut().unwrap().remove("volumeName");
    assert!(scene.cluster.delete("PersistentVolumeClaim", "org1", "peer0-data"));
    // An API server counts in whole seconds: the claim is younger than the recovery point in the next one.
    let second = jiff::Timestamp::now().as_second();
    while jiff::Timestamp::now().as_second() == second {
        std::thread::sleep(Duration::from_millis(10));
    }
    scene.cluster.put(claim);
    let restored = restore(&scene, &missing).unwrap();
    let told = restored.findings.iter().find(|finding| finding.what.contains("may have come back empty")).unwrap();
    assert!(told.subject == "org1/peer0" && format!("{:?}", told.remedy).contains("RestoreNodes"), "{told:?}");
}

#[test]
fn a_workload_that_may_not_be_scaled_down_does_not_count_as_stopped() {
    let scene = captured(&PEERS);
    let before = scene.contents();
    damage(&scene);
    scene.cluster.before(|_, call| {
        // The right is taken away between the dry run and the stop.
        let refused = call.name == "peer1" && call.is("patch", "deployments") && call.is_write();
        if refused { Answer::forbidden() } else { Answer::Go }
    });
    let error = restore(&scene, &replace_all()).unwrap_err();
    let EngineError::Interrupted { done, .. } = &error else { panic!("{error}") };
    assert!(done.contains(&Done::NodeStopped { node: "Deployment org1/peer0".to_owned() }), "{done:?}");
    assert!(!done.contains(&Done::NodeStopped { node: "Deployment org1/peer1".to_owned() }), "{done:?}");
    assert_eq!((replicas(&scene.cluster, "peer0"), replicas(&scene.cluster, "peer1")), (1, 1));
    // The first one refused: nothing was done.
    scene.cluster.forget_hooks();
    scene.cluster.before(|_, call| {
        if call.is("patch", "deployments") && call.is_write() { Answer::forbidden() } else { Answer::Go }
    });
    let error = restore(&scene, &replace_peer()).unwrap_err();
    assert!(!matches!(error, EngineError::Interrupted { .. }), "{error}");
    scene.cluster.forget_hooks();
    restore(&scene, &replace_all()).unwrap();
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
}

#[test]
fn room_is_judged_for_all_that_a_claim_holds() {
    let scene = Scene::with(&PEERS);
    let mut shared = scene.cluster.get("PersistentVolumeClaim", "org1", "peer0-data").unwrap();
    shared["metadata"] = json!({"name": "shared", "namespace": "org1"});
    shared["spec"].as_object_mut().unwrap().remove("volumeName");
    shared["status"] = json!({});
    scene.cluster.put(shared);
    for name in ["peer0", "peer1"] {
        let from = scene.cluster.volume("org1", &format!("{name}-data"));
        let to = scene.cluster.volume("org1", "shared").join(name);
        std::fs::rename(&from, &to).unwrap();
        // Where the peers' endpoints look for their heights.
        std::os::unix::fs::symlink(to, from).unwrap();
        let mut object = scene.cluster.get("Deployment", "org1", name).unwrap();
        let spec = &mut object["spec"]["template"]["spec"];
        spec["volumes"][0]["persistentVolumeClaim"]["claimName"] = json!("shared");
        spec["containers"][0]["volumeMounts"][0]["subPath"] = json!(name);
        scene.cluster.put(object);
    }
    scene.back_up();
    let bytes = with_plan(&scene, &target(&scene), &replace_all(), |plan| plan.bytes).unwrap();
    // Enough for each of them.
    let free = bytes / 1024 - 1;
    scene.cluster.tool("df", &format!("echo 'Filesystem 1024-blocks'; echo 'x 1 1 {free} 99% /'"));
    let error = restore(&scene, &replace_all()).unwrap_err();
    let EngineError::Precondition(findings) = &error else { panic!("{error}") };
    assert!(found(findings, "B9", "claim org1/shared").is_some(), "{findings:?}");
    assert_eq!((replicas(&scene.cluster, "peer0"), replicas(&scene.cluster, "peer1")), (1, 1));
    restore(&scene, &replace_peer()).unwrap();
}

#[test]
fn volumes_that_were_made_by_hand_are_described_before_a_restore_waits_for_them() {
    let scene = Scene::with(&PEER);
    let cluster = &scene.cluster;
    let by_hand = |class: &str| {
        json!({"storageClassName": class, "persistentVolumeReclaimPolicy": "Retain", "capacity": {"storage": "7Gi"},
            "accessModes": ["ReadWriteOnce"], "nfs": {"server": "nas", "path": "/exports/peer0"}})
    };
    for class in ["", "manual"] {
        let notes = json!({"volume.kubernetes.io/storage-provisioner": null});
        cluster.patch(
            "PersistentVolumeClaim",
            "org1",
            "peer0-data",
            &json!({"metadata": {"annotations": notes}, "spec": {"storageClassName": class}}),
        );
        let notes = json!({"pv.kubernetes.io/provisioned-by": null});
        let volume = "pvc-org1-peer0-data";
        let mut spec = by_hand(class);
        spec["csi"] = Value::Null;
        cluster.patch("PersistentVolume", "", volume, &json!({"metadata": {"annotations": notes}, "spec": spec}));
        let backup = scene.backup(&["--output", "json"]);
        assert!(
            backup.text.contains("was made by hand: 7Gi, ReadWriteOnce, NFS nas:/exports/peer0"),
            "{}",
            backup.text
        );
        // The network is as it was captured: what is known of its volume makes no difference.
        let there = planned(&scene, true);
        assert!(found(&there, "K8", "claims").is_none(), "{:?}", there);
        assert!(!there.iter().any(|finding| finding.subject.contains("PersistentVolumeClaim")), "{:?}", there);
        if class.is_empty() {
            continue;
        }
        assert!(cluster.delete("Namespace", "", "org1"));
        cluster.delete("PersistentVolume", "", volume);
        let lost = planned(&scene, false);
        let told = found(&lost, "K8", "1 claims").unwrap();
        for part in [
            "org1/peer0-data (7Gi, ReadWriteOnce, NFS nas:/exports/peer0",
            "class manual",
            "reclaim policy Retain",
            "0 volumes wait",
        ] {
            assert!(told.what.contains(part), "{part} in {told:?}");
        }
        cluster.put(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "again"}, "spec": by_hand(class), "status": {"phase": "Available"}}));
        let again = planned(&scene, false);
        assert!(found(&again, "K8", "claims").is_none(), "{:?}", again);
    }
}

#[test]
fn a_claim_of_a_volume_that_was_made_by_hand_comes_back_on_a_storage_class() {
    let scene = Scene::with(&PEER);
    let cluster = &scene.cluster;
    cluster.patch("PersistentVolumeClaim", "org1", "peer0-data", &json!({"spec": {"storageClassName": ""}}));
    let by_hand = json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": null}},
        "spec": {"storageClassName": "", "persistentVolumeReclaimPolicy": "Retain"}});
    cluster.patch("PersistentVolume", "", "pvc-org1-peer0-data", &by_hand);
    let before = scene.contents();
    scene.back_up();
    let volume = cluster.volume("org1", "peer0-data");
    assert!(cluster.delete("Namespace", "", "org1"));
    cluster.delete("PersistentVolume", "", "pvc-org1-peer0-data");
    // A volume that is retained keeps its data.
    std::fs::remove_dir_all(volume).unwrap();
    let lost = planned(&scene, false);
    assert!(found(&lost, "K8", "claims").is_some(), "{lost:?}");
    let RestoreTarget::Cluster(mut there) = target(&scene) else { unreachable!("the scene is a cluster") };
    for from in [Some(String::new()), None] {
        there.relocation.storage_classes = vec![Mapping { from, to: "standard".to_owned() }];
        let plan = plan(&scene, &RestoreTarget::Cluster(there.clone()));
        assert!(found(&plan, "K8", "claims").is_none(), "{plan:?}");
    }
    restore_into(&scene, &RestoreTarget::Cluster(there), &options(), &Silent).unwrap();
    let claim = cluster.get("PersistentVolumeClaim", "org1", "peer0-data").unwrap();
    assert_eq!(claim["spec"]["storageClassName"], "standard");
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
}

/// What the plan of a restore of everything finds.
fn planned(scene: &Scene, existing_workloads: bool) -> Vec<Finding> {
    let RestoreTarget::Cluster(cluster) = target(scene) else { unreachable!("the scene is a cluster") };
    plan(scene, &RestoreTarget::Cluster(ClusterTarget { existing_workloads, ..cluster }))
}

fn plan(scene: &Scene, target: &RestoreTarget<'_>) -> Vec<Finding> {
    with_plan(scene, target, &options(), |plan| plan.findings).unwrap()
}
