//! What others do to a restore's volumes: another run of fabkeep, somebody who deletes claims, GitOps controllers; and what keeps pods from
//! starting.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fabkeep_engine::{EngineError, Event, Notice, Reporter, RestoreOptions};
use fabkeep_fake_cluster::{Answer, Cluster};
use fabkeep_platform::Progress;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::restores::{
    PEER, captured, damage, differences, findings_of, found, replace_peer, replicas, restore, restore_into, target,
};
use super::scene::Scene;

/// Keeps what is waited for, and does something about it.
struct Waits<'a> {
    seen: Mutex<Vec<String>>,
    then: &'a (dyn Fn() + Sync),
    stop: bool,
}

impl Reporter for Waits<'_> {
    fn event(&self, event: Event<'_>) {
        let said = match event {
            Event::Notice(Notice::Platform(Progress::WaitsFor(finding))) => {
                format!("{}: {}", finding.subject, finding.what)
            }
            Event::Notice(Notice::Platform(Progress::WaitsForHelper { pod, problem })) => format!("{pod}: {problem}"),
            _ => return,
        };
        self.seen.lock().push(said);
        (self.then)();
    }

    fn is_interrupted(&self) -> bool {
        self.stop && !self.seen.lock().is_empty()
    }
}

#[test]
fn a_restore_does_not_take_the_volume_in_which_another_run_works() {
    let scene = captured(&PEER);
    damage(&scene);
    let name = "fabkeep-19a-2";
    let labels = json!({"app.kubernetes.io/managed-by": "fabkeep", "app.kubernetes.io/component": "helper",
        "fabkeep.io/run": "19a"});
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "org1", "labels": labels},
        "spec": {"containers": [{"name": "helper", "image": "busybox"}],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "peer0-data"}}]}}));
    // A command of that run, which goes on.
    let mut command = Command::new("sh").args(["-c", "sleep 300; :", &format!("fabkeep:{name}")]).spawn().unwrap();
    scene.cluster.forget_calls();
    let error = restore(&scene, &replace_peer()).unwrap_err();
    let findings = findings_of(&error);
    let other = found(&findings, "K2", &format!("Pod org1/{name}")).unwrap_or_else(|| panic!("{error}"));
    assert!(other.what.contains("another run of fabkeep (19a)"), "{other:?}");
    let changed = |call: &fabkeep_fake_cluster::Call| call.is_write() && call.resource != "pods";
    assert!(!scene.cluster.calls().iter().any(changed), "nothing was changed");
    assert!(scene.cluster.get("Pod", "org1", name).is_some());
    // When that run is over, its helper is what a killed run has left.
    command.kill().unwrap();
    command.wait().unwrap();
    let restored = restore(&scene, &replace_peer()).unwrap();
    assert!(restored.well, "{:?}", restored.findings);
    assert!(scene.cluster.get("Pod", "org1", name).is_none());
}

#[test]
fn a_claim_that_is_deleted_while_it_is_filled_is_not_called_proven() {
    let scene = captured(&PEER);
    let before = scene.contents();
    damage(&scene);
    let deleted = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&deleted);
    scene.cluster.before(move |cluster, call| {
        let fills = call.is_exec() && call.command.iter().any(|word| word.contains("tar xpf"));
        if fills && !once.swap(true, Ordering::SeqCst) {
            // As long as a pod mounts it, it stays.
            let kept = json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}});
            cluster.patch("PersistentVolumeClaim", "org1", "peer0-data", &kept);
            cluster.delete("PersistentVolumeClaim", "org1", "peer0-data");
        }
        Answer::Go
    });
    let error = restore(&scene, &replace_peer()).unwrap_err();
    assert!(deleted.load(Ordering::SeqCst) && matches!(error, EngineError::Interrupted { .. }), "{error}");
    let findings = findings_of(&error);
    let lost = found(&findings, "K3", "PersistentVolumeClaim org1/peer0-data").unwrap_or_else(|| panic!("{error}"));
    assert!(lost.what.contains("deleted while it was filled"), "{lost:?}");
    assert_eq!(replicas(&scene.cluster, "peer0"), 0);
    // The claim goes with its last pod, and the same command makes it again.
    scene.cluster.patch("PersistentVolumeClaim", "org1", "peer0-data", &json!({"metadata": {"finalizers": null}}));
    assert!(scene.cluster.get("PersistentVolumeClaim", "org1", "peer0-data").is_none());
    let restored = restore(&scene, &replace_peer()).unwrap();
    assert!(restored.well, "{:?}", restored.findings);
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
}

/// A controller's object, and how the peer's Deployment names it.
struct GitOps {
    object: Value,
    labels: Value,
    annotations: Value,
    /// Where it says whether it acts, and what stands there while it does.
    at: &'static str,
    acts: Value,
}

fn gitops() -> [GitOps; 4] {
    let flux = |kind: &str, group: &str, label: &str| GitOps {
        object: json!({"apiVersion": format!("{group}.toolkit.fluxcd.io/{}", if kind == "HelmRelease" { "v2" } else { "v1" }),
            "kind": kind, "metadata": {"name": "network", "namespace": "gitops"}, "spec": {"interval": "1m"}}),
        labels: json!({format!("{label}.toolkit.fluxcd.io/name"): "network",
            format!("{label}.toolkit.fluxcd.io/namespace"): "gitops"}),
        annotations: json!({}),
        at: "/spec/suspend",
        acts: Value::Null,
    };
    let argo = |labels: Value, annotations: Value| GitOps {
        object: json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
            "metadata": {"name": "network", "namespace": "gitops"},
            "spec": {"syncPolicy": {"automated": {"selfHeal": true, "prune": true}}},
            "status": {"resources": [{"kind": "Deployment", "namespace": "org1", "name": "peer0"}]}}),
        labels,
        annotations,
        at: "/spec/syncPolicy/automated",
        acts: json!({"selfHeal": true, "prune": true}),
    };
    [
        argo(json!({}), json!({"argocd.argoproj.io/tracking-id": "network:apps/Deployment:org1/peer0"})),
        argo(json!({"app.kubernetes.io/instance": "network"}), json!({})),
        flux("Kustomization", "kustomize", "kustomize"),
        flux("HelmRelease", "helm", "helm"),
    ]
}

/// A peer that a controller puts back to one replica, as often as it is scaled down while the controller acts.
fn managed(kind: &GitOps) -> (Scene, Arc<AtomicUsize>) {
    let scene = Scene::with(&PEER);
    let (api_version, name) = (kind.object["apiVersion"].as_str().unwrap(), kind.object["kind"].as_str().unwrap());
    scene.cluster.serve_kind(api_version, name, &format!("{}s", name.to_lowercase()), true);
    scene.cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gitops"}}));
    scene.cluster.put(kind.object.clone());
    let notes = json!({"metadata": {"labels": kind.labels, "annotations": kind.annotations}});
    scene.cluster.patch("Deployment", "org1", "peer0", &notes);
    scene.back_up();
    damage(&scene);
    let healed = Arc::new(AtomicUsize::new(0));
    let (count, name, at, acts) = (Arc::clone(&healed), name.to_owned(), kind.at, kind.acts.clone());
    scene.cluster.before(move |cluster: &Cluster, call| {
        let at_rest = || cluster.get("Deployment", "org1", "peer0").is_some_and(|peer| peer["spec"]["replicas"] == 0);
        let object = cluster.get(&name, "gitops", "network").unwrap();
        let is_acting = object.pointer(at).unwrap_or(&Value::Null) == &acts;
        if call.is_exec() && is_acting && at_rest() {
            count.fetch_add(1, Ordering::SeqCst);
            cluster.scale("Deployment", "org1", "peer0", 1);
        }
        Answer::Go
    });
    (scene, healed)
}

#[test]
fn gitops_controllers_are_suspended_while_volumes_are_filled_and_act_again_afterwards() {
    for kind in gitops() {
        let (scene, healed) = managed(&kind);
        let name = kind.object["kind"].as_str().unwrap();
        scene.cluster.forget_calls();
        let restored = restore(&scene, &replace_peer()).unwrap();
        assert!(restored.well, "{name}: {:?}", restored.findings);
        assert_eq!(healed.load(Ordering::SeqCst), 0, "{name} acted while it was to be suspended");
        let suspended = scene.cluster.calls().iter().any(|call| call.is("patch", &format!("{}s", name.to_lowercase())));
        assert!(suspended, "{name}");
        let now = scene.cluster.get(name, "gitops", "network").unwrap();
        assert_eq!(now.pointer(kind.at).unwrap_or(&Value::Null), &kind.acts, "{name} acts as before");
        assert_eq!(replicas(&scene.cluster, "peer0"), 1);
    }
}

#[test]
fn a_controller_that_was_suspended_by_a_killed_restore_acts_again_after_the_same_command() {
    for kind in gitops() {
        let (scene, _) = managed(&kind);
        let name = kind.object["kind"].as_str().unwrap().to_owned();
        let dead = AtomicBool::new(false);
        scene.cluster.before(move |_, call| {
            let fills = call.is_exec() && call.command.iter().any(|word| word.contains("tar xpf"));
            if fills || dead.load(Ordering::SeqCst) {
                dead.store(true, Ordering::SeqCst);
                return Answer::Refuse(401, "Unauthorized", "killed".to_owned());
            }
            Answer::Go
        });
        restore(&scene, &replace_peer()).unwrap_err();
        scene.cluster.forget_hooks();
        let stays = scene.cluster.get(&name, "gitops", "network").unwrap();
        assert_ne!(stays.pointer(kind.at).unwrap_or(&Value::Null), &kind.acts, "{name} is suspended still");
        let restored = restore(&scene, &replace_peer()).unwrap();
        assert!(restored.well, "{name}: {:?}", restored.findings);
        let now = scene.cluster.get(&name, "gitops", "network").unwrap();
        assert_eq!(now.pointer(kind.at).unwrap_or(&Value::Null), &kind.acts, "{name}");
    }
}

#[test]
fn a_controller_that_may_not_be_suspended_is_named_and_its_intrusion_is_repaired_or_refused() {
    let [kind, ..] = gitops();
    let (scene, _) = managed(&kind);
    scene.cluster.forbid(|call| call.is("patch", "applications"));
    let error = restore(&scene, &replace_peer()).unwrap_err();
    let findings = findings_of(&error);
    assert!(findings.iter().any(|finding| finding.rule.code() == "K2"), "{error}");
}

#[test]
fn what_keeps_a_pod_from_starting_is_reported_at_once() {
    // What it shows of its containers, and what is reported of it.
    let waiting = |reason: &str, message: &str| {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        json!({"phase": "Pending", "containerStatuses": [{"name": "peer", "image": "x", "imageID": "", "ready": false,
            "restartCount": 0, "state": state}]})
    };
    let unschedulable = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu"}]});
    let cases = [
        (waiting("ErrImagePull", "manifest unknown"), "ErrImagePull: the image"),
        (waiting("CreateContainerConfigError", "secret \"x\" not found"), "CreateContainerConfigError"),
        (unschedulable, "cannot be scheduled on any Kubernetes node: 0/1 nodes"),
    ];
    for (status, said) in cases {
        let scene = captured(&PEER);
        damage(&scene);
        scene.cluster.pod_status(move |pod| {
            let of_peer = pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("peer0-"));
            of_peer.then(|| status.clone())
        });
        let waits = Waits { seen: Mutex::default(), then: &|| {}, stop: true };
        let begun = Instant::now();
        let patient = RestoreOptions { deadline: Duration::from_secs(600), ..replace_peer() };
        let _ = restore_into(&scene, &target(&scene), &patient, &waits);
        assert!(begun.elapsed() < Duration::from_secs(60), "{said}");
        assert!(waits.seen.lock().iter().any(|seen| seen.contains(said)), "{said}: {:?}", waits.seen.lock());
    }
}

#[test]
fn a_pod_that_needs_what_does_not_exist_is_reported_at_once() {
    let scene = captured(&PEER);
    damage(&scene);
    scene.cluster.before(|cluster, call| {
        let starts = call.is("patch", "deployments") && call.body["spec"]["replicas"] == 1;
        if starts && call.name == "peer0" {
            cluster.delete("Secret", "org1", "peer0-tls");
        }
        Answer::Go
    });
    let waits = Waits { seen: Mutex::default(), then: &|| {}, stop: true };
    let patient = RestoreOptions { deadline: Duration::from_secs(600), ..replace_peer() };
    let _ = restore_into(&scene, &target(&scene), &patient, &waits);
    let seen = waits.seen.lock();
    assert!(seen.iter().any(|seen| seen.contains("cannot start without Secret org1/peer0-tls")), "{seen:?}");
}

#[test]
fn a_helper_pod_that_does_not_start_is_reported_while_it_is_waited_for() {
    let scene = captured(&PEER);
    damage(&scene);
    let bound = Arc::new(AtomicBool::new(false));
    let free = Arc::clone(&bound);
    scene.cluster.pod_status(move |pod| {
        let helper = pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("fabkeep-"));
        let waits = helper && !free.load(Ordering::SeqCst);
        waits.then(|| {
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Too many pods"}]})
        })
    });
    let cluster = &scene.cluster;
    let then = || {
        bound.store(true, Ordering::SeqCst);
        // Whatever changes makes the cluster look at its pods again.
        cluster
            .put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nudge", "namespace": "org1"}}));
    };
    let waits = Waits { seen: Mutex::default(), then: &then, stop: false };
    let restored = restore_into(&scene, &target(&scene), &replace_peer(), &waits).unwrap();
    assert!(restored.well, "{:?}", restored.findings);
    let seen = waits.seen.lock();
    assert!(seen.iter().any(|seen| seen.contains("org1/fabkeep-") && seen.contains("Too many pods")), "{seen:?}");
}
