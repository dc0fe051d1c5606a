//! `--missing` after a restore that ended early: claims that an earlier run created are not taken for the nodes' own data.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fabkeep_engine::RestoreOptions;
use fabkeep_fake_cluster::fabric::{self, THREE_NODES};
use fabkeep_fake_cluster::{Answer, Call};
use serde_json::json;

use super::restores::{captured, differences, findings_of, found, options, restore};
use super::scene::Scene;

type Dies = fn(&Call) -> bool;

fn missing() -> RestoreOptions {
    RestoreOptions { missing: true, ..options() }
}

/// A network that is captured and gone.
fn gone() -> (Scene, std::collections::BTreeMap<String, u64>) {
    let scene = captured(&THREE_NODES);
    let before = scene.contents();
    for namespace in fabric::namespaces(&THREE_NODES) {
        assert!(scene.cluster.delete("Namespace", "", &namespace));
    }
    (scene, before)
}

fn assert_back(scene: &Scene, before: &std::collections::BTreeMap<String, u64>, when: &str) {
    let restored = restore(scene, &missing()).unwrap();
    assert!(restored.well, "{when}: {:?}", restored.findings);
    assert_eq!(differences(scene, before), Vec::<String>::new(), "{when}");
}

#[test]
fn the_same_command_fills_what_a_killed_one_has_created() {
    // The first workload, the first helper pod, and a command in it: claims are there, and nothing is in them.
    let moments: [(&str, Dies); 3] = [
        ("the first workload", |call| call.is("create", "deployments") && call.is_write()),
        ("the first helper pod", |call| call.is("create", "pods") && call.is_write() && call.subresource.is_empty()),
        ("the first command", Call::is_exec),
    ];
    for (when, dies) in moments {
        let (scene, before) = gone();
        let dead = AtomicUsize::new(0);
        scene.cluster.before(move |_, call| {
            let now = dead.fetch_or(usize::from(dies(call)), Ordering::SeqCst) > 0 || dies(call);
            if now { Answer::Refuse(401, "Unauthorized", "killed".to_owned()) } else { Answer::Go }
        });
        restore(&scene, &missing()).unwrap_err();
        scene.cluster.forget_hooks();
        assert_back(&scene, &before, when);
    }
}

#[test]
fn the_same_command_fills_what_a_refused_one_has_created() {
    // A Secret that somebody else makes meanwhile ends the first run.
    let (scene, before) = gone();
    let made = Arc::new(AtomicUsize::new(0));
    scene.cluster.before(move |cluster, call| {
        if call.is("create", "deployments") && call.is_write() && made.fetch_add(1, Ordering::SeqCst) == 0 {
            cluster.patch("Secret", "org1", "peer0-tls", &json!({"data": {"server.crt": "TUlOVEVE"}}));
        }
        Answer::Go
    });
    let error = restore(&scene, &missing()).unwrap_err();
    assert!(found(&findings_of(&error), "K1", "org1/peer0-tls").is_some(), "{error}");
    scene.cluster.forget_hooks();
    assert!(scene.cluster.delete("Secret", "org1", "peer0-tls"));
    assert_back(&scene, &before, "refused");
    // A helper pod that the cluster does not admit any more ends it as well.
    let (scene, before) = gone();
    scene.cluster.fault(usize::MAX, Answer::forbidden(), |call| call.is("create", "pods") && call.is_write());
    restore(&scene, &missing()).unwrap_err();
    scene.cluster.forget_hooks();
    assert_back(&scene, &before, "not admitted");
}

#[test]
fn a_workload_that_others_create_meanwhile_waits_for_its_data() {
    let (scene, before) = gone();
    let deployment = captured(&THREE_NODES).cluster.get("Deployment", "org1", "peer0").unwrap();
    scene.cluster.before(move |cluster, call| {
        let comes = call.is("create", "deployments") && call.is_write() && call.name == "peer0";
        if comes && cluster.get("Deployment", &call.namespace, "peer0").is_none() {
            let mut own = deployment.clone();
            own["metadata"] = json!({"name": "peer0", "namespace": call.namespace});
            cluster.put(own);
        }
        Answer::Go
    });
    let restored = restore(&scene, &options()).unwrap();
    assert!(found(&restored.findings, "K2", "Deployment org1/peer0").is_some(), "{:?}", restored.findings);
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
}
