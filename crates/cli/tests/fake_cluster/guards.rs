//! What is known before the first change: data that goes with a pod, nodes that cannot be stopped, notes that somebody else wrote.

use std::sync::atomic::{AtomicBool, Ordering};

use fabkeep_engine::{EngineError, RestoreOptions};
use fabkeep_fake_cluster::{Answer, Cluster, FakeCluster};
use fabkeep_network::Finding;
use serde_json::{Value, json};

use super::restores::{
    PEER, PEERS, captured, damage, differences, findings_of, found, options, replace_peer, replicas, restore,
};
use super::scene::{Scene, ended};

/// The Deployment of a peer of the first organization.
fn deployment(scene: &Scene, name: &str) -> Value {
    scene.cluster.get("Deployment", "org1", name).unwrap()
}

/// Runs a peer in another way: as this kind of workload, with the same pods.
fn run_as(scene: &Scene, kind: &str) {
    let mut object = deployment(scene, "peer0");
    assert!(scene.cluster.delete("Deployment", "org1", "peer0"));
    let template = object["spec"]["template"].clone();
    match kind {
        "Pod" => scene.cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
            "metadata": {"name": "peer0", "namespace": "org1", "labels": template["metadata"]["labels"]}})),
        "DaemonSet" => scene.cluster.put(json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "peer0", "namespace": "org1"},
            "spec": {"selector": object["spec"]["selector"], "template": template}})),
        "Rollout" => {
            scene.cluster.serve_kind("argoproj.io/v1alpha1", "Rollout", "rollouts", true);
            let spec = json!({"replicas": 1, "selector": object["spec"]["selector"], "template": template});
            scene.cluster.put(json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
                "metadata": {"name": "peer0", "namespace": "org1"}, "spec": spec}));
            let owner = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "peer0", "uid": "",
                "controller": true}]);
            scene.cluster.put(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": spec,
                "metadata": {"name": "peer0-1", "namespace": "org1", "ownerReferences": owner}}));
        }
        _ => {
            // A StatefulSet that deletes the claims of what it scales away.
            let volumes = object["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap();
            volumes.retain(|volume| volume["name"] != "data");
            let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "storageClassName": "standard", "resources": {"requests": {"storage": "1Gi"}}}});
            let spec = json!({"replicas": 1, "serviceName": "peer0", "selector": object["spec"]["selector"],
                "template": object["spec"]["template"], "volumeClaimTemplates": [claim],
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"}});
            scene.cluster.put(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
                "metadata": {"name": "peer0", "namespace": "org1"}, "spec": spec}));
            copy(&scene.cluster.volume("org1", "peer0-data"), &scene.cluster.volume("org1", "data-peer0-0"));
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    let done = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(done.unwrap().success());
}

/// What forbids a restore, which has changed nothing.
fn refused(scene: &Scene, options: &RestoreOptions) -> Vec<Finding> {
    scene.cluster.forget_calls();
    let error = restore(scene, options).unwrap_err();
    assert!(matches!(error, EngineError::Precondition(_)), "{error}");
    let is_write = |call: &fabkeep_fake_cluster::Call| call.is_write() && call.resource != "pods";
    let writes: Vec<_> = scene.cluster.calls().into_iter().filter(is_write).map(|call| call.name).collect();
    assert_eq!(writes, Vec::<String>::new(), "{error}");
    findings_of(&error)
}

fn backed_up(scene: &Scene) {
    let backup = scene.backup(&[]);
    assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
}

/// A certificate authority beside a peer, in one pod, with its home on an emptyDir.
fn with_an_authority_in_the_pod() -> Scene {
    let scene = Scene::with(&PEER);
    let mut object = deployment(&scene, "peer0");
    let spec = &mut object["spec"]["template"]["spec"];
    spec["volumes"].as_array_mut().unwrap().push(json!({"name": "home", "emptyDir": {}}));
    spec["containers"].as_array_mut().unwrap().push(json!({"name": "ca", "image": "hyperledger/fabric-ca:1.5",
        "command": ["fabric-ca-server", "start"],
        "env": [{"name": "FABRIC_CA_SERVER_HOME", "value": "/etc/hyperledger/fabric-ca-server"}],
        "volumeMounts": [{"name": "home", "mountPath": "/etc/hyperledger/fabric-ca-server"}]}));
    scene.cluster.put(object);
    let pod = scene.cluster.pod("org1", "peer0-").unwrap();
    copy(
        &scene.network().join("Org1/ca"),
        &scene.cluster.path("org1", &pod, "ca", "/etc/hyperledger/fabric-ca-server"),
    );
    scene
}

#[test]
fn a_restore_does_not_stop_a_pod_that_holds_another_nodes_data_on_no_volume() {
    let scene = with_an_authority_in_the_pod();
    backed_up(&scene);
    damage(&scene);
    let findings = refused(&scene, &replace_peer());
    let lost = findings.iter().find(|finding| finding.rule.code() == "K3" && finding.what.contains("ca-home"));
    assert!(lost.is_some_and(|finding| finding.what.contains("stopping the node deletes it")), "{findings:?}");
    let accepted = RestoreOptions { overrides: vec!["K3".to_owned()], ..replace_peer() };
    restore(&scene, &accepted).unwrap();
    // A pod that runs on volumes only is stopped as ever.
    let plain = captured(&PEER);
    damage(&plain);
    restore(&plain, &replace_peer()).unwrap();
}

#[test]
fn nothing_scales_down_a_stateful_set_that_deletes_its_claims_then() {
    let scene = Scene::with(&PEER);
    run_as(&scene, "StatefulSet");
    backed_up(&scene);
    let replace = RestoreOptions { nodes: vec!["org1/peer0-0".to_owned()], ..replace_peer() };
    let findings = refused(&scene, &replace);
    assert!(found(&findings, "K3", "StatefulSet org1/peer0").is_some(), "{findings:?}");
    // Neither does a window, as a node or as a client.
    let stopped = scene.backup(&["--quiesce", "stop"]);
    assert!(stopped.code == 4 && stopped.text.contains("whenScaled"), "{}", stopped.text);
    let mut client = scene.cluster.get("StatefulSet", "org1", "peer0").unwrap();
    client["metadata"] = json!({"name": "shop", "namespace": "org1"});
    client["spec"]["selector"] = json!({"matchLabels": {"app": "shop"}});
    client["spec"]["template"] = json!({"metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "m", "image": "acme/shop:1"}]}});
    scene.cluster.put(client);
    let scaled = scene.backup(&["--quiesce", "scale", "--client", "org1/statefulset/shop"]);
    assert!(scaled.code == 4 && scaled.text.contains("whenScaled"), "{}", scaled.text);
    assert_eq!(scene.cluster.get("StatefulSet", "org1", "shop").unwrap()["spec"]["replicas"], 1);
}

#[test]
fn nothing_is_replaced_under_a_node_that_an_unknown_controller_runs() {
    let scene = Scene::with(&PEER);
    run_as(&scene, "Rollout");
    backed_up(&scene);
    damage(&scene);
    let before = scene.contents();
    let findings = refused(&scene, &replace_peer());
    let fixed = found(&findings, "K2", "org1/peer0").unwrap_or_else(|| panic!("{findings:?}"));
    assert!(
        fixed.what.contains("Rollout org1/peer0") && format!("{:?}", fixed.remedy).contains("by hand"),
        "{fixed:?}"
    );
    assert_eq!(scene.contents(), before);
    // In an empty cluster nothing would mount its claim before the data is in: that is said before anything is created.
    assert!(scene.cluster.delete("Namespace", "", "org1"));
    let findings = refused(&scene, &options());
    assert!(found(&findings, "K3", "org1/peer0").is_some(), "{findings:?}");
}

#[test]
fn a_window_that_stops_nodes_names_those_that_it_cannot_stop() {
    for kind in ["DaemonSet", "Pod", "Rollout"] {
        let scene = Scene::with(&PEERS);
        run_as(&scene, kind);
        let stopped = scene.backup(&["--quiesce", "stop"]);
        assert!(stopped.code == 4 && stopped.text.contains("K2"), "{kind}: {}", stopped.text);
        assert!(stopped.text.contains("org1/peer0") && stopped.text.contains("cannot stop it"), "{}", stopped.text);
        assert_eq!(replicas(&scene.cluster, "peer1"), 1);
        assert!(scene.cluster.get("ConfigMap", "org1", "fabkeep-window").is_none());
        backed_up(&scene);
    }
}

#[test]
fn nodes_that_are_daemon_sets_or_bare_pods_are_restored_when_they_are_gone() {
    for kind in ["DaemonSet", "Pod"] {
        let scene = Scene::with(&PEER);
        run_as(&scene, kind);
        backed_up(&scene);
        let before = scene.contents();
        damage(&scene);
        let findings = refused(&scene, &replace_peer());
        let runs = found(&findings, "K2", "org1/peer0").unwrap_or_else(|| panic!("{findings:?}"));
        assert!(format!("{:?}", runs.remedy).contains(&format!("delete {} peer0", kind.to_lowercase())), "{runs:?}");
        assert!(scene.cluster.delete(kind, "org1", "peer0"));
        let restored = restore(&scene, &replace_peer()).unwrap();
        assert_eq!(differences(&scene, &before), Vec::<String>::new(), "{kind}: {restored:?}");
        assert!(scene.cluster.pod("org1", "peer0").is_some(), "{kind}: {restored:?}");
        // The whole network is gone.
        assert!(scene.cluster.delete("Namespace", "", "org1"));
        let restored = restore(&scene, &options()).unwrap();
        assert_eq!(differences(&scene, &before), Vec::<String>::new(), "{kind}: {restored:?}");
        assert!(scene.cluster.get(kind, "org1", "peer0").is_some(), "{kind}: {restored:?}");
    }
}

fn shop(cluster: &FakeCluster, name: &str, replicas: u64) {
    let labels = json!({"app": name});
    cluster.put(json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "org1"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "m", "image": "acme/shop:1"}]}}}}));
}

/// Does something once, as soon as a pod is reached while this Deployment is at 0 replicas.
fn meanwhile(
    scene: &Scene,
    (namespace, name): (&'static str, &'static str),
    act: impl Fn(&Cluster) + Send + Sync + 'static,
) {
    let done = AtomicBool::new(false);
    scene.cluster.before(move |cluster, call| {
        let stopped = cluster.get("Deployment", namespace, name).is_some_and(|known| known["spec"]["replicas"] == 0);
        if stopped && !call.subresource.is_empty() && !done.swap(true, Ordering::Relaxed) {
            act(cluster);
        }
        Answer::Go
    });
}

#[test]
fn a_window_undoes_what_is_still_as_it_left_it_and_tells_what_is_not() {
    type Act = fn(&Cluster);
    let acts: [(Act, Option<u64>, &str); 3] = [
        (|cluster| cluster.scale("Deployment", "org1", "shop", 5), Some(5), "somebody scaled it to 5 replicas"),
        (
            |cluster| {
                let unnoted = json!({"metadata": {"annotations": {"fabkeep.io/replicas": null}}});
                cluster.patch("Deployment", "org1", "shop", &unnoted);
            },
            Some(2),
            "",
        ),
        (|cluster| assert!(cluster.delete("Deployment", "org1", "shop")), None, "somebody deleted it"),
    ];
    for (act, left, told) in acts {
        let scene = Scene::with(&PEER);
        shop(&scene.cluster, "shop", 2);
        meanwhile(&scene, ("org1", "shop"), act);
        let backup = scene.backup(&["--quiesce", "scale", "--client", "org1/shop"]);
        assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
        let now =
            scene.cluster.get("Deployment", "org1", "shop").map(|shop| shop["spec"]["replicas"].as_u64().unwrap());
        assert_eq!(now, left, "{}", backup.text);
        assert!(backup.text.contains(told) && backup.text.contains("W2") != told.is_empty(), "{}", backup.text);
        assert!(scene.cluster.get("ConfigMap", "org1", "fabkeep-window").is_none());
    }
}

#[test]
fn a_window_whose_client_is_gone_is_undone_by_resume() {
    let scene = Scene::with(&PEER);
    shop(&scene.cluster, "shop", 2);
    shop(&scene.cluster, "bank", 3);
    scene.cluster.before(|cluster, call| {
        let stopped = |name| replicas(cluster, name) == 0;
        // The run is killed in its window.
        if call.is_exec() && stopped("bank") && stopped("shop") { Answer::Hang } else { Answer::Go }
    });
    let arguments = ["--quiesce", "scale", "--client", "org1/shop", "--client", "org1/bank"];
    let mut command = scene.on_cluster(&["backup", "--repo", "repository", "--writer", "keys/writer", "-q"]);
    let mut child = command.args(arguments).spawn().unwrap();
    let begun = std::time::Instant::now();
    while replicas(&scene.cluster, "bank") + replicas(&scene.cluster, "shop") > 0 {
        assert!(begun.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    scene.cluster.forget_hooks();
    assert!(scene.cluster.delete("Deployment", "org1", "shop"));
    let resumed = ended(&scene.on_cluster(&["resume"]).output().unwrap());
    assert!(matches!(resumed.code, 0 | 3) && resumed.text.contains("somebody deleted it"), "{}", resumed.text);
    assert_eq!(replicas(&scene.cluster, "bank"), 3);
    assert!(scene.cluster.get("ConfigMap", "org1", "fabkeep-window").is_none());
}

#[test]
fn an_operator_gets_its_replicas_back_whatever_became_of_the_note_on_it() {
    let scene = Scene::with(&PEER);
    scene.cluster.serve_kind("hlf.kungfusoftware.es/v1alpha1", "FabricPeer", "fabricpeers", true);
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ops"}}));
    scene.cluster.put(json!({"apiVersion": "hlf.kungfusoftware.es/v1alpha1", "kind": "FabricPeer",
        "metadata": {"name": "peer0", "namespace": "org1"}, "spec": {"replicas": 1}}));
    let operators = [
        ("hlf-operator", "quay.io/kfsoftware/hlf-operator:1.9"),
        ("hlf-operator-ui", "ghcr.io/k/hlf-operator-ui:0.0.17"),
    ];
    for (name, image) in operators {
        shop(&scene.cluster, name, 1);
        let mut object = deployment(&scene, name);
        assert!(scene.cluster.delete("Deployment", "org1", name));
        object["metadata"] = json!({"name": name, "namespace": "ops"});
        object["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        object.as_object_mut().unwrap().remove("status");
        scene.cluster.put(object);
    }
    backed_up(&scene);
    damage(&scene);
    meanwhile(&scene, ("ops", "hlf-operator"), |cluster| {
        let unnoted = json!({"metadata": {"annotations": {"fabkeep.io/replicas": null}}});
        cluster.patch("Deployment", "ops", "hlf-operator", &unnoted);
    });
    scene.cluster.forget_calls();
    let restored = restore(&scene, &replace_peer()).unwrap();
    assert!(restored.well, "{restored:?}");
    let scaled = |name: &str| {
        let calls = scene.cluster.calls();
        calls.iter().filter(|call| call.is("patch", "deployments") && call.name == name).count()
    };
    assert_eq!(scene.cluster.get("Deployment", "ops", "hlf-operator").unwrap()["spec"]["replicas"], 1);
    assert!(scaled("hlf-operator") >= 2, "it was scaled down while the volumes were filled");
    assert_eq!(scaled("hlf-operator-ui"), 0);
}

#[test]
fn a_number_of_replicas_that_somebody_noted_is_not_believed() {
    let scene = Scene::with(&PEER);
    let planted = |name: &str, replicas: &str| {
        let note = json!({"metadata": {"annotations": {"fabkeep.io/replicas": replicas}}});
        scene.cluster.patch("Deployment", "org1", name, &note);
    };
    planted("peer0", "5");
    backed_up(&scene);
    assert!(scene.cluster.delete("Namespace", "", "org1"));
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "org1"}}));
    shop(&scene.cluster, "old-billing", 0);
    planted("old-billing", "40");
    let restored = restore(&scene, &options()).unwrap();
    assert!(restored.well, "{restored:?}");
    assert_eq!((replicas(&scene.cluster, "peer0"), replicas(&scene.cluster, "old-billing")), (1, 0));
    // Neither is a number that would take all memory.
    let scene = Scene::with(&PEER);
    run_as(&scene, "StatefulSet");
    for replicas in [1, 0] {
        let note =
            json!({"metadata": {"annotations": {"fabkeep.io/replicas": "200000000"}}, "spec": {"replicas": replicas}});
        scene.cluster.patch("StatefulSet", "org1", "peer0", &note);
        let discovered = scene.discover();
        assert!(matches!(discovered.code, 0 | 3) && discovered.text.contains("peer0-0"), "{}", discovered.text);
    }
}

#[test]
fn only_helpers_of_fabkeep_are_removed_whatever_the_labels_of_others_say() {
    let scene = captured(&PEER);
    let pod = |name: &str, container: &str, labels: Value| {
        scene.cluster.put(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "org1", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": container, "image": "acme/x:1"}],
                "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "peer0-data"}}]}}));
    };
    let own = |run: &str| json!({"app.kubernetes.io/managed-by": "fabkeep", "app.kubernetes.io/component": "helper", "fabkeep.io/run": run});
    pod("writer", "m", json!({"app.kubernetes.io/managed-by": "fabkeep"}));
    pod("not-a-helper", "helper", own("x"));
    pod("fabkeep-19a-0-shop", "helper", own("19a"));
    pod("fabkeep-19a-1", "shop", own("19a"));
    pod("fabkeep-19a-2", "helper", own("19a"));
    damage(&scene);
    let restored = restore(&scene, &replace_peer()).unwrap();
    let strangers = ["writer", "not-a-helper", "fabkeep-19a-0-shop", "fabkeep-19a-1"];
    for name in strangers {
        assert!(scene.cluster.get("Pod", "org1", name).is_some(), "{name}");
        assert!(found(&restored.findings, "B8", &format!("Pod org1/{name}")).is_some(), "{:?}", restored.findings);
    }
    assert!(scene.cluster.get("Pod", "org1", "fabkeep-19a-2").is_none(), "a killed run has left it");
    pod("fabkeep-19a-2", "helper", own("19a"));
    let cleaned = ended(&scene.on_cluster(&["clean"]).output().unwrap());
    assert!(cleaned.code == 0 && cleaned.text.contains("fabkeep-19a-2"), "{}", cleaned.text);
    assert!(scene.cluster.get("Pod", "org1", "fabkeep-19a-2").is_none());
    assert!(strangers.iter().all(|name| scene.cluster.get("Pod", "org1", name).is_some()), "{}", cleaned.text);
}

/// A Service to which somebody's note leads the name of an orderer.
fn with_old_names(service: &Value) -> Scene {
    let scene = Scene::with(&PEER);
    let note = json!([service]).to_string();
    let note = json!({"metadata": {"annotations": {"fabkeep.io/old-names": note}}});
    scene.cluster.patch("Deployment", "org1", "peer0", &note);
    backed_up(&scene);
    assert!(scene.cluster.delete("Namespace", "", "org1"));
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}}));
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "trap", "namespace": "evil"},
        "spec": {"clusterIP": "10.6.6.6", "ports": [{"port": 7050}]}}));
    scene
}

#[test]
fn a_note_of_old_names_leads_to_services_of_the_network_that_are_there() {
    let aliases = |scene: &Scene| deployment(scene, "peer0")["spec"]["template"]["spec"]["hostAliases"].clone();
    let scene = with_old_names(&json!({"namespace": "evil", "service": "trap", "names": ["orderer1.example.com"]}));
    let restored = restore(&scene, &options()).unwrap();
    assert!(found(&restored.findings, "K5", "org1/peer0").is_some(), "{:?}", restored.findings);
    assert_eq!(aliases(&scene), Value::Null);
    let scene = with_old_names(&json!({"namespace": "org1", "service": "nope", "names": ["x.old"]}));
    let findings = refused(&scene, &options());
    assert!(findings.iter().any(|finding| finding.rule.code() == "K5" && finding.what.contains("org1/nope")));
    let accepted = RestoreOptions { overrides: vec!["K5".to_owned()], ..options() };
    restore(&scene, &accepted).unwrap();
    assert_eq!(aliases(&scene), Value::Null);
    // One that the restore creates is used.
    let scene = with_old_names(&json!({"namespace": "org1", "service": "peer0", "names": ["peer0.old"]}));
    let restored = restore(&scene, &options()).unwrap();
    assert!(found(&restored.findings, "K5", "org1/peer0").is_none(), "{:?}", restored.findings);
    assert_eq!(aliases(&scene)[0]["hostnames"], json!(["peer0.old"]));
}

#[test]
fn what_pods_of_any_controller_use_is_left_to_them() {
    let scene = Scene::with(&PEER);
    let secret = |name: &str, text: &str| {
        scene
            .cluster
            .put(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "org1"},
            "data": {"a": text}}));
    };
    let shared = ["of-a-rollout", "of-a-set", "of-a-job", "of-nobody"];
    shared.iter().for_each(|name| secret(name, "Y2FwdHVyZWQ="));
    let mut object = deployment(&scene, "peer0");
    let volumes = object["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap();
    volumes.extend(shared.map(|name| json!({"name": name, "secret": {"secretName": name}})));
    scene.cluster.put(object);
    backed_up(&scene);
    shared.iter().for_each(|name| secret(name, "bmV3"));
    let spec = |secret: &str| {
        json!({"containers": [{"name": "m", "image": "acme/app:1"}],
            "volumes": [{"name": "x", "secret": {"secretName": secret}}]})
    };
    let put = |kind: &str, api_version: &str, name: &str, owner: Value, spec: Value| {
        scene.cluster.put(json!({"apiVersion": api_version, "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": "org1", "labels": {"app": "app"}, "ownerReferences": owner}}));
    };
    let owner = |api_version: &str, kind: &str, name: &str| json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": "", "controller": true}]);
    scene.cluster.serve_kind("argoproj.io/v1alpha1", "Rollout", "rollouts", true);
    put("Rollout", "argoproj.io/v1alpha1", "app", json!([]), json!({}));
    let set = |secret: &str| {
        json!({"replicas": 1, "selector": {"matchLabels": {"app": "app"}},
            "template": {"metadata": {"labels": {"app": "app"}}, "spec": spec(secret)}})
    };
    put("ReplicaSet", "apps/v1", "app-1", owner("argoproj.io/v1alpha1", "Rollout", "app"), set("of-a-rollout"));
    put("ReplicaSet", "apps/v1", "bare", json!([]), set("of-a-set"));
    put("Job", "batch/v1", "job", json!([]), json!({}));
    put("Pod", "v1", "job-x", owner("batch/v1", "Job", "job"), spec("of-a-job"));
    damage(&scene);
    let restored = restore(&scene, &replace_peer()).unwrap();
    let now = shared.map(|name| scene.cluster.get("Secret", "org1", name).unwrap()["data"]["a"].clone());
    assert_eq!(now, ["bmV3", "bmV3", "bmV3", "Y2FwdHVyZWQ="], "{:?}", restored.findings);
}

/// A peer on a hostPath of one of two machines, whose workload names the machine or does not.
fn on_a_host_path(machine: Option<&str>) -> Scene {
    let scene = Scene::with(&PEER);
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}}));
    copy(&scene.cluster.volume("org1", "peer0-data"), &scene.cluster.folder().join("host/srv/peer0"));
    let mut object = deployment(&scene, "peer0");
    let spec = &mut object["spec"]["template"]["spec"];
    spec["volumes"][0] = json!({"name": "data", "hostPath": {"path": "/srv/peer0"}});
    if let Some(machine) = machine {
        spec["nodeName"] = machine.into();
    }
    scene.cluster.put(object);
    backed_up(&scene);
    scene
}

#[test]
fn what_lies_on_one_machine_is_reached_on_that_machine_or_not_at_all() {
    let helpers = |scene: &Scene| -> Vec<Value> {
        let calls = scene.cluster.calls().into_iter();
        calls
            .filter(|call| call.is("create", "pods") && call.is_write())
            .map(|call| call.body["spec"]["nodeName"].clone())
            .collect()
    };
    let scene = on_a_host_path(Some("node-2"));
    scene.cluster.forget_calls();
    restore(&scene, &replace_peer()).unwrap();
    let pods = helpers(&scene);
    assert!(!pods.is_empty() && pods.iter().all(|machine| machine == "node-2"), "{pods:?}");
    scene.cluster.scale("Deployment", "org1", "peer0", 0);
    scene.cluster.forget_calls();
    backed_up(&scene);
    let pods = helpers(&scene);
    assert!(!pods.is_empty() && pods.iter().all(|machine| machine == "node-2"), "{pods:?}");
    // Where nothing names the machine, only a running pod shows it.
    let scene = on_a_host_path(None);
    let findings = refused(&scene, &replace_peer());
    let unknown = found(&findings, "K3", "org1/peer0").unwrap_or_else(|| panic!("{findings:?}"));
    assert!(
        unknown.what.contains("hostPath /srv/peer0") && format!("{:?}", unknown.remedy).contains("nodeName"),
        "{unknown:?}"
    );
    scene.cluster.scale("Deployment", "org1", "peer0", 0);
    scene.cluster.forget_calls();
    let backup = scene.backup(&[]);
    assert!(backup.text.contains("does not name the machine"), "{}", backup.text);
    assert_eq!(helpers(&scene), Vec::<Value>::new());
    // A cluster of one machine has no other.
    assert!(scene.cluster.delete("Node", "", "node-2"));
    backed_up(&scene);
}
