//! The preflight names what a backup or a restore would meet on a cluster, and changes nothing.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use fabkeep_fake_cluster::{Answer, fabric};
use serde_json::{Value, json};

use crate::scene::Scene;

/// What the preflight said.
struct Said {
    code: i32,
    document: Value,
    text: String,
}

const WITH_KEYS: [&str; 9] =
    ["doctor", "--repo", "repository", "--writer", "keys/writer", "--identity", "keys/identity", "--output", "json"];

fn doctor(scene: &Scene, more: &[&str]) -> Said {
    let ended = scene.on_cluster(&WITH_KEYS).args(more).arg("-q").output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    Said {
        code: ended.status.code().unwrap(),
        document: serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {text}")),
        text,
    }
}

impl Said {
    /// Returns the checks of a topic that ended so and whose text holds these words.
    fn named(&self, topic: &str, outcome: &str, words: &[&str]) -> Vec<&Value> {
        let checks = self.document["checks"].as_array().unwrap().iter();
        checks
            .filter(|check| check["topic"] == topic && check["outcome"] == outcome)
            .filter(|check| words.iter().all(|word| check.to_string().contains(word)))
            .collect()
    }

    /// Asserts that one check names the fault and what to do about it.
    fn names(&self, topic: &str, outcome: &str, words: &[&str]) {
        let found = self.named(topic, outcome, words);
        assert!(!found.is_empty(), "no {outcome} {topic} with {words:?}: {}", self.text);
        assert!(found.iter().all(|check| !check["remedy"].as_str().unwrap_or_default().is_empty()), "{found:?}");
        let code = if outcome == "failed" { 4 } else { 3 };
        assert!(self.code >= code && self.document["outcome"] != "ok", "{}: {}", self.code, self.text);
    }
}

/// Two peers and an orderer without any fault: what their MSPs name has the names under which it is mounted.
fn flawless() -> Scene {
    let scene = Scene::new();
    for node in fabric::THREE_NODES {
        let mut secret = scene.cluster.get("Secret", &node.namespace(), &format!("{}-msp", node.name)).unwrap();
        let config = BASE64.decode(secret["data"]["config.yaml"].as_str().unwrap()).unwrap();
        let config = String::from_utf8(config).unwrap();
        let lines = config.lines().map(|line| match line.split_once("cacerts/") {
            Some((begin, _)) => format!("{begin}cacerts/ca.pem\n"),
            None => format!("{line}\n"),
        });
        secret["data"]["config.yaml"] = BASE64.encode(lines.collect::<String>()).into();
        scene.cluster.put(secret);
    }
    scene
}

fn stopped(scene: &Scene) {
    scene.cluster.scale("Deployment", "org1", "peer1", 0);
}

#[test]
fn a_network_without_faults_is_all_ok_and_nothing_is_changed() {
    let scene = flawless();
    let pods: BTreeSet<String> = scene.cluster.names("Pod", "org1").into_iter().collect();
    let contents = scene.contents();
    scene.cluster.forget_calls();
    let said = doctor(&scene, &[]);
    assert_eq!(said.code, 0, "{}", said.text);
    for outcome in ["warning", "failed"] {
        let bad = said.document["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == outcome);
        assert_eq!(bad.count(), 0, "{}", said.text);
    }
    for topic in
        ["network", "rights", "helpers", "storage", "clocks", "leftovers", "nodes", "room", "repository", "keys"]
    {
        assert!(!said.named(topic, "ok", &[]).is_empty(), "{topic}: {}", said.text);
    }
    assert!(said.document["effort"]["bytes"].as_u64().unwrap() > 0, "{}", said.text);
    let rights = said.document["rights"].as_array().unwrap();
    assert!(rights.len() > 100 && rights.iter().all(|right| right["allowed"] == true), "{}", rights.len());
    // What it wrote: helper pods, which are gone.
    for call in scene.cluster.calls().into_iter().filter(|call| call.is_write()) {
        let asks = matches!(call.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io");
        let helper = call.resource == "pods" && call.name.starts_with("fabkeep-");
        assert!(asks || helper || call.subresource == "portforward", "{call:?}");
    }
    assert_eq!(scene.cluster.names("Pod", "org1").into_iter().collect::<BTreeSet<_>>(), pods);
    assert_eq!(scene.contents(), contents);
    scene.back_up();
    assert_eq!(doctor(&scene, &[]).code, 0);
}

#[test]
fn without_helper_pods_none_is_made_and_nothing_else_is_written() {
    let scene = flawless();
    stopped(&scene);
    scene.cluster.forget_calls();
    let said = doctor(&scene, &["--no-pods"]);
    assert_eq!(said.code, 0, "{}", said.text);
    assert!(!said.named("nodes", "note", &["org1/peer1", "not looked at"]).is_empty(), "{}", said.text);
    assert!(!said.named("helpers", "note", &["not tried"]).is_empty(), "{}", said.text);
    assert!(!scene.cluster.calls().iter().any(|call| call.is("create", "pods")), "{}", said.text);
}

#[test]
fn a_missing_right_is_named_with_its_namespace_and_the_command_that_gives_it() {
    let scene = flawless();
    scene.cluster.forbid(|call| call.is("list", "secrets") && call.namespace == "org1");
    let said = doctor(&scene, &[]);
    said.names("rights", "failed", &["list secrets", "namespace org1", "kubectl -n org1 create rolebinding"]);
    assert!(said.named("rights", "failed", &["ordererorg"]).is_empty(), "{}", said.text);
    // The network cannot be opened; what can be checked is checked.
    assert!(!said.named("repository", "ok", &[]).is_empty(), "{}", said.text);
    assert_eq!(scene.backup(&[]).code, 1);
}

#[test]
fn a_missing_right_without_which_less_is_captured_is_a_warning() {
    let scene = flawless();
    scene.cluster.forbid(|call| call.is("list", "networkpolicies"));
    let said = doctor(&scene, &[]);
    said.names("rights", "warning", &["list networkpolicies.networking.k8s.io", "not in the recovery point"]);
    assert_eq!(said.code, 3, "{}", said.text);
}

#[test]
fn a_missing_right_to_run_commands_in_pods_is_named() {
    let scene = flawless();
    scene.cluster.forbid(|call| call.is_exec());
    let said = doctor(&scene, &[]);
    said.names("rights", "failed", &["create pods/exec", "get pods/exec"]);
    said.names("helpers", "failed", &["org1/peer0"]);
}

#[test]
fn rights_of_a_restore_are_told_apart_and_count_when_they_are_asked_for() {
    let scene = flawless();
    scene.cluster.forbid(|call| call.is("create", "secrets") || call.is("patch", "deployments"));
    let said = doctor(&scene, &[]);
    assert_eq!(said.code, 0, "{}", said.text);
    assert!(!said.named("rights", "note", &["for a restore", "create secrets"]).is_empty(), "{}", said.text);
    let said = doctor(&scene, &["--for", "restore"]);
    said.names("rights", "failed", &["for a restore", "create secrets", "fabkeep-restore"]);
    assert!(!said.named("rights", "note", &["for windows", "patch deployments.apps"]).is_empty(), "{}", said.text);
    doctor(&scene, &["--for", "window"]).names("rights", "failed", &["for windows", "patch deployments.apps"]);
}

#[test]
fn an_image_that_cannot_be_pulled_fails_where_a_helper_is_needed_and_warns_elsewhere() {
    let scene = flawless();
    scene.cluster.pod_status(|pod| {
        let helper = pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("fabkeep-"));
        let waiting =
            json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image \"registry.invalid/busybox\""});
        helper.then(
            || json!({"phase": "Pending", "containerStatuses": [{"name": "helper", "state": {"waiting": waiting}}]}),
        )
    });
    let said = doctor(&scene, &[]);
    said.names("helpers", "warning", &["ImagePullBackOff", "own containers instead", "--helper-image"]);
    assert_eq!(said.code, 3, "{}", said.text);
    stopped(&scene);
    let said = doctor(&scene, &[]);
    said.names("helpers", "failed", &["namespace org1", "ImagePullBackOff", "org1/peer1 (it does not run)"]);
    assert!(!scene.cluster.names("Pod", "org1").iter().any(|name| name.starts_with("fabkeep-")));
}

#[test]
fn a_helper_pod_that_is_not_admitted_is_named_with_the_reason() {
    let scene = flawless();
    stopped(&scene);
    scene.cluster.before(|_, call| match call.is("create", "pods") {
        true => Answer::Refuse(403, "Forbidden", "exceeded quota: pods, requested: 1, used: 2, limited: 2".to_owned()),
        false => Answer::Go,
    });
    doctor(&scene, &[]).names("helpers", "failed", &["exceeded quota", "org1/peer1"]);
}

#[test]
fn a_helper_image_without_the_tools_is_named() {
    let scene = flawless();
    stopped(&scene);
    scene.cluster.image_without_shell("busybox");
    doctor(&scene, &[]).names("helpers", "failed", &["busybox:1.36 lacks", "--helper-image"]);
}

#[test]
fn a_storage_class_that_is_gone_is_named() {
    let scene = flawless();
    let claim = json!({"spec": {"storageClassName": "gone"}});
    scene.cluster.patch("PersistentVolumeClaim", "org1", "peer0-data", &claim);
    let said = doctor(&scene, &[]);
    said.names(
        "storage",
        "warning",
        &["claim org1/peer0-data", "no storage class gone", "K8", "--storage-class gone=standard"],
    );
    doctor(&scene, &["--for", "restore"]).names("storage", "failed", &["no storage class gone"]);
}

#[test]
fn snapshots_that_cannot_be_taken_are_named_when_they_are_asked_for() {
    let scene = flawless();
    let said = doctor(&scene, &[]);
    assert!(said.code == 0 && !said.named("snapshots", "note", &[]).is_empty(), "{}", said.text);
    doctor(&scene, &["--for", "snapshot"]).names("snapshots", "failed", &[]);
}

#[test]
fn clocks_that_differ_are_named() {
    let scene = flawless();
    scene.cluster.set_clock_ahead(600);
    doctor(&scene, &[]).names("clocks", "warning", &["the API server", "s ahead of", "timedatectl"]);
    scene.cluster.set_clock_ahead(0);
    scene.cluster.tool("date", r#"case "$*" in +%s) echo $(($($REAL +%s) - 3600));; *) $REAL "$@";; esac"#);
    let said = doctor(&scene, &[]);
    said.names("clocks", "warning", &["node node-1", "s behind"]);
    assert!(!said.named("clocks", "ok", &["the API server"]).is_empty(), "{}", said.text);
}

#[test]
fn a_window_that_was_left_open_is_named() {
    let scene = flawless();
    scene.cluster.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fabkeep-window", "namespace": "org1"},
        "data": {"window.json": "{}"},
    }));
    doctor(&scene, &[]).names("leftovers", "warning", &["W2", "kubectl -n org1 delete configmap"]);
    doctor(&scene, &["--for", "window"]).names("leftovers", "failed", &["W2"]);
}

#[test]
fn a_restore_that_did_not_end_and_what_a_killed_run_left_are_named() {
    let scene = flawless();
    let managed = json!({"app.kubernetes.io/managed-by": "fabkeep", "app.kubernetes.io/component": "restore"});
    scene.cluster.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "fabkeep-restore-0123456789abcdef", "namespace": "org1", "labels": managed},
        "data": {"progress": "{}"},
    }));
    let said = doctor(&scene, &[]);
    said.names(
        "leftovers",
        "warning",
        &[
            "ConfigMap org1/fabkeep-restore-",
            "fabkeep restore",
            "kubectl -n org1 delete configmap fabkeep-restore-0123456789abcdef",
        ],
    );
    let helper = json!({"app.kubernetes.io/managed-by": "fabkeep", "fabkeep.io/run": "19ab0"});
    scene.cluster.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fabkeep-19ab0-0", "namespace": "org1", "labels": helper},
        "spec": {"containers": [{"name": "helper", "image": "busybox:1.36"}]},
    }));
    let scaled = json!({"metadata": {"annotations": {"fabkeep.io/replicas": "1"}}, "spec": {"replicas": 0}});
    scene.cluster.patch("Deployment", "org1", "peer1", &scaled);
    let said = doctor(&scene, &[]);
    said.names("leftovers", "warning", &["Pod org1/fabkeep-19ab0-0", "fabkeep clean"]);
    said.names("leftovers", "warning", &["Deployment org1/peer1", "scaled it to 0", "fabkeep resume"]);
    assert!(scene.cluster.get("Pod", "org1", "fabkeep-19ab0-0").is_some(), "it was removed");
}

#[test]
fn a_node_whose_keys_or_channels_are_not_found_is_named() {
    let scene = flawless();
    let secret = scene.cluster.get("Secret", "org1", "peer0-msp").unwrap();
    let mut without = secret.clone();
    without["data"].as_object_mut().unwrap().remove("key.pem");
    scene.cluster.put(without);
    std::fs::remove_dir_all(scene.cluster.volume("org1", "peer1-data").join("ledgersData/chains/chains")).unwrap();
    let said = doctor(&scene, &[]);
    said.names("nodes", "failed", &["org1/peer0", "I5", "private key"]);
    let without_channels = said.named("nodes", "failed", &["org1/peer1"]).len();
    assert!(
        without_channels + said.named("nodes", "warning", &["org1/peer1", "no channel"]).len() > 0,
        "{}",
        said.text
    );
    assert_eq!(scene.backup(&[]).code, 4);
}

#[test]
fn a_certificate_authority_and_all_other_nodes_are_looked_at() {
    let scene = Scene::with(&fabric::SMALL);
    let said = doctor(&scene, &[]);
    let nodes = said.document["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 9, "{nodes:?}");
    assert!(!said.named("nodes", "ok", &["org1/ca"]).is_empty(), "{}", said.text);
}
