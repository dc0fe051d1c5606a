//! What the API server would refuse is known before the first change; what others undo during a restore ends it by name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fabkeep_engine::{EngineError, RestoreOptions};
use fabkeep_fake_cluster::{Answer, Call, Cluster};
use fabkeep_network::Finding;
use serde_json::json;

use super::restores::{PEERS, captured, damage, differences, findings_of, found, replace_peer, replicas, restore};
use super::scene::Scene;

type Denies = fn(&Cluster, &Call) -> bool;

/// A policy's refusal: 422, unless it says otherwise.
fn denied() -> Answer {
    Answer::Refuse(422, "Invalid", "ValidatingAdmissionPolicy 'strict' denied request".to_owned())
}

fn policy(scene: &Scene, denies: impl Fn(&Cluster, &Call) -> bool + Send + Sync + 'static) {
    scene.cluster.before(move |cluster, call| if denies(cluster, call) { denied() } else { Answer::Go });
}

/// What forbids the restore of one peer, whose pod has seen nothing of it.
fn refused(scene: &Scene, options: &RestoreOptions) -> Vec<Finding> {
    scene.cluster.forget_calls();
    let error = restore(scene, options).unwrap_err();
    assert!(matches!(error, EngineError::Precondition(_)), "{error}");
    assert_eq!(scene.cluster.calls().iter().find(|call| call.is_write()), None, "{error}");
    assert_eq!(replicas(&scene.cluster, "peer0"), 1);
    findings_of(&error)
}

#[test]
fn what_a_policy_forbids_is_known_before_the_first_change() {
    let cases: [(&str, &str, Denies); 4] = [
        ("scale it down", "Deployment org1/peer0", |_, call| call.is("patch", "deployments")),
        ("scale it up", "Deployment org1/peer0", |_, call| {
            call.is("patch", "deployments") && call.body["spec"]["replicas"] != 0
        }),
        ("create a helper pod for it", "org1/peer0", |_, call| {
            call.is("create", "pods") && call.subresource.is_empty()
        }),
        ("delete it", "Secret org1/peer0-tls", |_, call| call.is("delete", "secrets")),
    ];
    for (change, subject, denies) in cases {
        let scene = captured(&PEERS);
        let before = scene.contents();
        damage(&scene);
        scene.cluster.patch("Secret", "org1", "peer0-tls", &json!({"data": {"server.crt": "UkVORVdFRA=="}}));
        let allowed = std::sync::Arc::new(AtomicUsize::new(0));
        let now_allowed = std::sync::Arc::clone(&allowed);
        policy(&scene, move |cluster, call| allowed.load(Ordering::SeqCst) == 0 && denies(cluster, call));
        let findings = refused(&scene, &replace_peer());
        let finding = found(&findings, "K6", subject).unwrap_or_else(|| panic!("{change}: {findings:?}"));
        assert!(finding.what.contains(change) && finding.what.contains("'strict'"), "{finding:?}");
        // Without the policy the same command does it.
        now_allowed.store(1, Ordering::SeqCst);
        restore(&scene, &replace_peer()).unwrap();
        assert_eq!(differences(&scene, &before), Vec::<String>::new(), "{change}");
    }
}

#[test]
fn an_object_that_finalizers_would_keep_is_not_replaced() {
    let scene = captured(&PEERS);
    damage(&scene);
    let kept = json!({"metadata": {"finalizers": ["example.com/keep"]}, "data": {"server.crt": "UkVORVdFRA=="}});
    scene.cluster.patch("Secret", "org1", "peer0-tls", &kept);
    let findings = refused(&scene, &replace_peer());
    let finding = found(&findings, "K6", "Secret org1/peer0-tls").unwrap_or_else(|| panic!("{findings:?}"));
    assert!(finding.what.contains("example.com/keep"), "{finding:?}");
}

#[test]
fn a_node_that_somebody_keeps_scaling_up_is_named_and_stopped_in_the_end() {
    let scene = captured(&PEERS);
    damage(&scene);
    let helper = |call: &Call| call.is("create", "pods") && !call.is_dry_run() && call.subresource.is_empty();
    // From the first helper on, whatever fabkeep scales down is scaled up at once, a hundred times.
    let (filling, ups) = (AtomicUsize::new(0), AtomicUsize::new(0));
    scene.cluster.before(move |cluster, call| {
        let begun = filling.fetch_add(usize::from(helper(call)), Ordering::SeqCst) > 0;
        let stopped = cluster.get("Deployment", "org1", "peer0").is_some_and(|peer| peer["spec"]["replicas"] == 0);
        if begun && stopped && ups.fetch_add(1, Ordering::SeqCst) < 100 {
            cluster.scale("Deployment", "org1", "peer0", 1);
        }
        Answer::Go
    });
    let begun = Instant::now();
    let error = restore(&scene, &replace_peer()).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let findings = findings_of(&error);
    assert!(findings.iter().any(|finding| finding.rule.code() == "K2"), "{error}: {findings:?}");
}
