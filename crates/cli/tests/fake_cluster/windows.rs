//! Notes of windows in a cluster: what this machine signed is undone, what somebody else wrote is reported, and nothing of it is done.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::scene::{Ended, Scene, ended};

fn note(scene: &Scene, text: &str) {
    scene.cluster.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fabkeep-window", "namespace": "org1"},
        "data": {"window.json": text},
    }));
}

fn resume(scene: &Scene, more: &[&str]) -> Ended {
    ended(&scene.on_cluster(&["resume"]).args(more).output().unwrap())
}

/// Closes a window whose hook kills the run: the window stays open.
fn killed_inside(scene: &Scene) {
    let reopened = scene.path("reopened").display().to_string();
    let after = format!("touch {reopened}");
    let ended = scene.backup(&["--quiesce", "hook", "--hook-before", "kill -9 $PPID", "--hook-after", &after]);
    assert_eq!(ended.code, -1, "{}", ended.text);
    assert!(scene.cluster.get("ConfigMap", "org1", "fabkeep-window").is_some());
}

#[test]
fn a_note_that_somebody_else_wrote_is_reported_and_nothing_of_it_is_done() {
    let scene = Scene::new();
    let pwned = scene.path("pwned").display().to_string();
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "payments"}}));
    let policy = |namespace: &str, name: &str| {
        scene.cluster.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"podSelector": {}},
        }));
    };
    policy("payments", "deny-all");
    policy("org1", "deny-all");
    policy("org1", "fabkeep-window-mine");
    let policies = || (scene.cluster.names("NetworkPolicy", "payments"), scene.cluster.names("NetworkPolicy", "org1"));
    let before = policies();
    let planted = json!({
        "run": "x", "begun": "2026-11-25T00:00:00Z", "by": "backup-host, process 7",
        "changes": [
            {"change": "hook", "before": "true", "after": format!("touch {pwned}")},
            {"change": "fence", "namespace": "payments", "policy": "deny-all", "object": {}},
            {"change": "fence", "namespace": "org1", "policy": "deny-all", "object": {}},
            {"change": "scale", "kind": "Deployment", "namespace": "payments", "name": "mint"},
        ],
    });
    note(&scene, &planted.to_string());
    let status = ended(&scene.on_cluster(&["status", "--logs", "0"]).output().unwrap());
    assert!(
        status.code == 3 && status.text.contains("W2") && status.text.contains("kubectl -n org1 delete configmap"),
        "{}",
        status.text
    );
    assert!(!status.text.contains(&pwned), "{}", status.text);
    let resumed = resume(&scene, &[]);
    assert!(resumed.code == 4 && resumed.text.contains("W2"), "{}", resumed.text);
    let window = scene.backup(&["--quiesce", "stop"]);
    assert!(window.code == 4 && window.text.contains("W2"), "{}", window.text);
    let plain = scene.backup(&[]);
    assert!(matches!(plain.code, 0 | 3), "{}", plain.text);
    // Asked for every step: what is not a window's, or not the network's, is left alone all the same.
    let mut child = scene
        .on_cluster(&["resume", "--unsigned"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"y\ny\ny\ny\ny\n").unwrap();
    let asked = ended(&child.wait_with_output().unwrap());
    assert!(asked.text.contains("is not one of the network's"), "{}", asked.text);
    assert_eq!(policies(), before);
    assert!(scene.cluster.get("ConfigMap", "org1", "fabkeep-window").is_none(), "{}", asked.text);
    assert!(!scene.path("pwned").exists());
    assert!(resume(&scene, &[]).text.contains("no window is open"));
}

#[test]
fn a_window_of_this_machine_is_undone_by_its_own_record_and_never_by_an_altered_note() {
    let scene = Scene::new();
    killed_inside(&scene);
    let reopened = scene.path("reopened");
    let object = scene.cluster.get("ConfigMap", "org1", "fabkeep-window").unwrap();
    let text = object["data"]["window.json"].as_str().unwrap().to_owned();
    assert!(!text.contains("touch") && !text.contains("kill"), "the note names a command: {text}");
    // In every namespace of the network, and altered in each.
    for namespace in ["org1", "ordererorg"] {
        let change = json!({"data": {"window.json": text.replace("hook", "stop")}});
        scene.cluster.patch("ConfigMap", namespace, "fabkeep-window", &change);
    }
    let status = ended(&scene.on_cluster(&["status", "--logs", "0"]).output().unwrap());
    assert!(status.text.contains("W2"), "{}", status.text);
    for namespace in ["org1", "ordererorg"] {
        let change = json!({"data": {"window.json": text}});
        scene.cluster.patch("ConfigMap", namespace, "fabkeep-window", &change);
    }
    let undone = resume(&scene, &[]);
    assert_eq!(undone.code, 0, "{}", undone.text);
    assert!(reopened.exists());
    assert!(scene.cluster.get("ConfigMap", "org1", "fabkeep-window").is_none());
    // The same note again, when the window is over: it is reported, and nothing of it is undone.
    std::fs::remove_file(&reopened).unwrap();
    note(&scene, &text);
    let status = ended(&scene.on_cluster(&["status", "--logs", "0"]).output().unwrap());
    assert!(status.text.contains("has closed that window"), "{}", status.text);
    let again = resume(&scene, &[]);
    assert!(again.code == 4 && again.text.contains("W2"), "{}", again.text);
    let plain = scene.backup(&[]);
    assert!(matches!(plain.code, 0 | 3), "{}", plain.text);
    assert!(!reopened.exists());
}

/// Scaling such a node to 0 deletes what the backup is about to capture.
#[test]
fn a_window_does_not_stop_nodes_that_lose_their_data_then() {
    let scene = Scene::new();
    let mut peer = scene.cluster.get("Deployment", "org1", "peer0").unwrap();
    peer["spec"]["template"]["spec"]["volumes"][0] = json!({"name": "data", "emptyDir": {}});
    scene.cluster.put(peer);
    let refused = scene.backup(&["--quiesce", "stop"]);
    assert_eq!(refused.code, 4, "{}", refused.text);
    assert!(refused.text.contains("K3") && refused.text.contains("stopping the node deletes it"), "{}", refused.text);
    assert_eq!(scene.cluster.get("Deployment", "org1", "peer0").unwrap()["spec"]["replicas"], 1);
    assert!(scene.cluster.get("ConfigMap", "org1", "fabkeep-window").is_none());
}
