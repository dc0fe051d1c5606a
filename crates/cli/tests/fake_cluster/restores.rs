//! Restores into the fake cluster beside others who change it, killed, refused: what is touched, what is said, what is right in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fabkeep_engine::{
    ClusterTarget, Done, EngineError, Event, Reporter, RestoreOptions, RestorePlan, RestoreTarget, Restored, Silent,
};
use fabkeep_fake_cluster::fabric::{self, Node, SMALL};
use fabkeep_fake_cluster::{Answer, Cluster};
use fabkeep_network::{Finding, Severity};
use fabkeep_platform::kubernetes::ClusterAddress;
use fabkeep_store::{IdentityFile, Repository};
use serde_json::{Value, json};

use super::scene::Scene;

/// Two peers of one organization.
pub(super) const PEERS: [Node; 2] = [SMALL[3], SMALL[4]];
pub(super) const PEER: [Node; 1] = [SMALL[3]];
const BLOCKS: &str = "ledgersData/chains/chains/mychannel/blockfile_000000";

/// A network that is captured.
pub(super) fn captured(nodes: &[Node]) -> Scene {
    let scene = Scene::with(nodes);
    scene.back_up();
    scene
}

pub(super) fn options() -> RestoreOptions {
    RestoreOptions { start: true, deadline: Duration::from_secs(5), ..RestoreOptions::default() }
}

pub(super) fn target(scene: &Scene) -> RestoreTarget<'static> {
    let address = ClusterAddress { kubeconfig: Some(scene.cluster.kubeconfig()), context: None };
    RestoreTarget::Cluster(ClusterTarget { address, ..ClusterTarget::default() })
}

pub(super) fn restore(scene: &Scene, options: &RestoreOptions) -> Result<Restored, EngineError> {
    restore_with(scene, options, &Silent)
}

fn restore_with(scene: &Scene, options: &RestoreOptions, reporter: &dyn Reporter) -> Result<Restored, EngineError> {
    restore_into(scene, &target(scene), options, reporter)
}

pub(super) fn restore_into(
    scene: &Scene,
    target: &RestoreTarget<'_>,
    options: &RestoreOptions,
    reporter: &dyn Reporter,
) -> Result<Restored, EngineError> {
    with_plan(scene, target, options, |plan| plan.execute(reporter))?
}

/// Makes the plan of a restore of the newest recovery point.
pub(super) fn with_plan<T>(
    scene: &Scene,
    target: &RestoreTarget<'_>,
    options: &RestoreOptions,
    then: impl FnOnce(RestorePlan<'_>) -> T,
) -> Result<T, EngineError> {
    let repository = Repository::open(&scene.path("repository").display().to_string()).unwrap();
    let commit = repository.point("latest").unwrap();
    let identity = IdentityFile::read(&scene.path("keys/identity")).unwrap();
    RestorePlan::make(&repository, &commit, &identity, target, options).map(then)
}

/// One peer's data replaced.
pub(super) fn replace_peer() -> RestoreOptions {
    RestoreOptions { nodes: vec!["org1/peer0".to_owned()], replace: true, ..options() }
}

pub(super) fn damage(scene: &Scene) {
    let file = scene.cluster.volume("org1", "peer0-data").join(BLOCKS);
    std::fs::write(file, b"this is no block file").unwrap();
}

fn set_data(cluster: &Cluster, secret: &str, text: &str) {
    cluster.patch("Secret", "org1", secret, &json!({"data": {"server.crt": text}}));
}

fn data(cluster: &Cluster, secret: &str) -> Value {
    cluster.get("Secret", "org1", secret).map_or(Value::Null, |secret| secret["data"]["server.crt"].clone())
}

pub(super) fn replicas(cluster: &Cluster, name: &str) -> u64 {
    cluster.get("Deployment", "org1", name).unwrap()["spec"]["replicas"].as_u64().unwrap()
}

fn records(cluster: &Cluster) -> Vec<String> {
    cluster.names("ConfigMap", "org1").into_iter().filter(|name| name.starts_with("fabkeep-restore")).collect()
}

pub(super) fn found<'a>(findings: &'a [Finding], rule: &str, subject: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.rule.code() == rule && finding.subject.contains(subject))
}

/// What only the captured data has of the files that a claim holds now, what is set aside left out.
pub(super) fn differences(scene: &Scene, before: &std::collections::BTreeMap<String, u64>) -> Vec<String> {
    let now = scene.contents();
    let derived =
        ["/stateLeveldb/", "/historyLeveldb/", "/configHistory/", "/bookkeeper/", "/chains/index/", "/fileLock/"];
    let counts = |path: &String| {
        !path.contains("/.before-") && !derived.iter().any(|part| path.contains(part)) && !path.ends_with("/LOCK")
    };
    let mut out: Vec<String> = before
        .iter()
        .filter(|(path, hash)| path.ends_with(BLOCKS) && now.get(*path) != Some(*hash))
        .map(|(path, _)| path.clone())
        .collect();
    out.extend(now.keys().filter(|path| counts(path) && !before.contains_key(*path)).cloned());
    out
}

#[test]
fn one_nodes_restore_leaves_alone_what_others_use() {
    let scene = Scene::with(&PEERS);
    // Both peers take settings from one Secret, one as a projected volume, one as environment.
    let shared = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shared", "namespace": "org1"}, "data": {"server.crt": "YQ=="}});
    scene.cluster.put(shared);
    for (name, field, value) in [
        ("peer0", "volumes", json!({"name": "shared", "projected": {"sources": [{"secret": {"name": "shared"}}]}})),
        ("peer1", "env", json!({"secretRef": {"name": "shared"}})),
    ] {
        let mut object = scene.cluster.get("Deployment", "org1", name).unwrap();
        let spec = &mut object["spec"]["template"]["spec"];
        match field {
            "volumes" => spec["volumes"].as_array_mut().unwrap().push(value),
            _ => spec["containers"][0]["envFrom"] = json!([value]),
        }
        scene.cluster.put(object);
    }
    assert!(matches!(scene.backup(&[]).code, 0 | 3));
    for secret in ["peer0-tls", "peer1-tls", "shared"] {
        set_data(&scene.cluster, secret, "UkVORVdFRA==");
    }
    let before = scene.contents();
    damage(&scene);
    let restored = restore(&scene, &replace_peer()).unwrap();
    assert_ne!(data(&scene.cluster, "peer0-tls"), "UkVORVdFRA==");
    assert_eq!(data(&scene.cluster, "peer1-tls"), "UkVORVdFRA==");
    assert_eq!(data(&scene.cluster, "shared"), "UkVORVdFRA==");
    let reported = found(&restored.findings, "B8", "org1/shared").unwrap();
    assert!(reported.what.contains("Deployment org1/peer1"), "{}", reported.what);
    assert!(found(&restored.findings, "B8", "peer1-tls").is_none(), "what is not this restore's is not even reported");
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    assert_eq!(records(&scene.cluster), Vec::<String>::new());
}

#[test]
fn the_mark_of_an_earlier_restore_is_not_believed() {
    let scene = captured(&PEERS);
    let repository = Repository::open(&scene.path("repository").display().to_string()).unwrap();
    let point = repository.point("latest").unwrap().id.to_string();
    let before = scene.contents();
    damage(&scene);
    let note = json!({"metadata": {"annotations": {"fabkeep.io/restored-from": point}}});
    scene.cluster.patch("PersistentVolumeClaim", "org1", "peer0-data", &note);
    // A Deployment that somebody scaled down with fabkeep's note looks like one of an earlier run.
    let stopped = json!({"metadata": {"annotations": {"fabkeep.io/replicas": "1"}}, "spec": {"replicas": 0}});
    scene.cluster.patch("Deployment", "org1", "peer0", &stopped);
    let volume = scene.cluster.volume("org1", "peer0-data");
    std::fs::write(volume.join(".fabkeep-restore"), format!("{point}\n")).unwrap();
    let restored = restore(&scene, &replace_peer()).unwrap();
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    assert!(restored.proven.iter().any(|sentence| sentence.contains("files hashed")), "{:?}", restored.proven);
    assert_eq!(replicas(&scene.cluster, "peer0"), 1);
    // Where nothing is filled, nothing is said to be proven.
    let missing = RestoreOptions { missing: true, ..options() };
    let nothing = restore(&scene, &missing).unwrap();
    assert!(nothing.proven.iter().all(|sentence| !sentence.contains("block checked") && !sentence.contains("hashed")));
}

#[test]
fn a_refusal_has_changed_nothing() {
    let scene = captured(&PEERS);
    damage(&scene);
    let replace = replace_peer();
    let without = RestoreOptions { replace: false, ..replace.clone() };
    scene
        .cluster
        .tool("df", "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo 'x 100 99 1 99% /'");
    for (options, rule) in [(&without, "B8"), (&replace, "B9")] {
        scene.cluster.forget_calls();
        let error = restore(&scene, options).unwrap_err();
        let EngineError::Precondition(findings) = &error else { panic!("{error}") };
        assert!(findings.iter().any(|finding| finding.rule.code() == rule), "{findings:?}");
        let writes = scene.cluster.calls().into_iter().filter(|call| call.is_write() && call.resource != "pods");
        assert_eq!(writes.map(|call| call.name).collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(replicas(&scene.cluster, "peer0"), 1);
    }
}

#[test]
fn a_secret_that_somebody_else_makes_meanwhile_is_refused_by_name() {
    let scene = captured(&PEERS);
    assert!(scene.cluster.delete("Secret", "org1", "peer1-tls"));
    let mint = |cluster: &Cluster, call: &fabkeep_fake_cluster::Call| {
        if call.is("create", "secrets")
            && call.name == "peer1-tls"
            && cluster.get("Secret", "org1", "peer1-tls").is_none()
        {
            cluster.put(
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "peer1-tls", "namespace": "org1"},
                "data": {"server.crt": "TUlOVEVE"}}),
            );
        }
        Answer::Go
    };
    scene.cluster.before(mint);
    let missing = RestoreOptions { missing: true, ..options() };
    let error = restore(&scene, &missing).unwrap_err();
    let findings = findings_of(&error);
    assert!(found(&findings, "K1", "org1/peer1-tls").is_some(), "{error}");
    assert_eq!(data(&scene.cluster, "peer1-tls"), "TUlOVEVE");
    assert_eq!(records(&scene.cluster), Vec::<String>::new());
    // With --replace the recovery point's takes its place, and the other is kept beside it.
    let replace = RestoreOptions { nodes: vec!["org1/peer1".to_owned()], replace: true, ..options() };
    // As long as it is made again and again, that is said.
    let again = restore(&scene, &replace).unwrap_err();
    assert!(found(&findings_of(&again), "K1", "org1/peer1-tls").is_some(), "{again}");
    scene.cluster.forget_hooks();
    let restored = restore(&scene, &replace).unwrap();
    assert_ne!(data(&scene.cluster, "peer1-tls"), "TUlOVEVE");
    assert!(restored.set_aside.iter().any(|aside| aside.to.contains("peer1-tls.before-")), "{:?}", restored.set_aside);
}

pub(super) fn findings_of(error: &EngineError) -> Vec<Finding> {
    match error {
        EngineError::Precondition(findings) => findings.clone(),
        EngineError::Interrupted { source, .. } => findings_of(source),
        _ => Vec::new(),
    }
}

#[test]
fn nodes_of_which_nothing_was_changed_are_scaled_up_again() {
    let scene = captured(&PEERS);
    damage(&scene);
    // Its volume cannot be looked at any more when the node is stopped.
    scene.cluster.before(|cluster, call| {
        let stopped = cluster.get("Deployment", "org1", "peer0").unwrap()["spec"]["replicas"] == 0;
        if stopped && call.is("create", "pods") { Answer::forbidden() } else { Answer::Go }
    });
    let error = restore(&scene, &replace_peer()).unwrap_err();
    let EngineError::Interrupted { done, .. } = &error else { panic!("{error}") };
    assert!(done.contains(&Done::NodeStopped { node: "Deployment org1/peer0".to_owned() }), "{done:?}");
    assert!(done.contains(&Done::NodeStarted { node: "Deployment org1/peer0".to_owned() }), "{done:?}");
    assert_eq!(replicas(&scene.cluster, "peer0"), 1);
    assert_eq!(records(&scene.cluster), Vec::<String>::new());
}

#[test]
fn a_pod_that_appears_during_the_fill_makes_it_be_repeated() {
    let scene = captured(&PEERS);
    let before = scene.contents();
    damage(&scene);
    let intrusions = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&intrusions);
    scene.cluster.before(move |cluster, call| {
        let unpacks = call.is_exec() && call.command.iter().any(|word| word.contains("tar xpf"));
        if unpacks && seen.fetch_add(1, Ordering::Relaxed) == 0 {
            // GitOps puts the declared replicas back, and the node writes.
            cluster.scale("Deployment", "org1", "peer0", 1);
            let file = cluster.volume("org1", "peer0-data").join("ledgersData/written-by-the-node");
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, b"x").unwrap();
        }
        Answer::Go
    });
    let restored = restore(&scene, &replace_peer()).unwrap();
    assert!(found(&restored.findings, "K2", "Pod org1/peer0").is_some(), "{:?}", restored.findings);
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    assert_eq!(replicas(&scene.cluster, "peer0"), 1);
}

#[test]
fn a_crash_loop_is_told_with_its_last_lines_and_its_rule_at_once() {
    let scene = captured(&PEER);
    damage(&scene);
    scene.cluster.pod_status(|pod| {
        let peer = pod["metadata"]["name"].as_str().unwrap_or_default().starts_with("peer0-");
        peer.then(|| {
            json!({"phase": "Running", "containerStatuses": [{"name": "peer", "ready": false, "restartCount": 1, "image": "x", "imageID": "",
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}]})
        })
    });
    scene.cluster.before(|cluster, call| {
        if call.is("list", "pods") {
            for name in cluster.names("Pod", "org1") {
                cluster.set_log(
                    "org1",
                    &name,
                    "panic: the state database [height=9] is ahead of the block store [height=3]\n",
                );
            }
        }
        Answer::Go
    });
    let begun = Instant::now();
    let slow = RestoreOptions { deadline: Duration::from_secs(300), ..replace_peer() };
    let restored = restore(&scene, &slow).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(!restored.well);
    let reported =
        restored.findings.iter().find(|finding| finding.rule.code() == "I2" && finding.severity == Severity::Error);
    assert!(
        reported.is_some_and(|finding| finding.what.contains("is ahead of the block store")),
        "{:?}",
        restored.findings
    );
}

#[test]
fn a_helper_may_run_where_its_workload_may() {
    let scene = Scene::with(&PEER);
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
    scene.cluster.patch(
        "Deployment",
        "org1",
        "peer0",
        &json!({"spec": {"template": {"spec": {"affinity": affinity}}}}),
    );
    assert!(matches!(scene.backup(&[]).code, 0 | 3));
    damage(&scene);
    scene.cluster.forget_calls();
    restore(&scene, &replace_peer()).unwrap();
    let helpers: Vec<Value> =
        scene.cluster.calls().into_iter().filter(|call| call.is("create", "pods")).map(|call| call.body).collect();
    assert!(!helpers.is_empty());
    for helper in helpers {
        assert_eq!(helper["spec"]["affinity"]["nodeAffinity"], affinity["nodeAffinity"]);
    }
}

/// Says that it is interrupted when the program is killed: nothing waits for an answer that does not come.
struct Killed(Arc<AtomicU64>);

impl Reporter for Killed {
    fn event(&self, _: Event<'_>) {}

    fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Runs a restore that is killed at its request number `at`, then the same command. Whether it was killed.
pub(super) fn killed_at(scene: &Scene, options: &RestoreOptions, at: u64) -> bool {
    let (count, killed) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let dead = Arc::clone(&killed);
    scene.cluster.before(move |_, _| {
        if count.fetch_add(1, Ordering::Relaxed) + 1 < at {
            return Answer::Go;
        }
        // From here on the program does nothing any more.
        dead.store(1, Ordering::Relaxed);
        Answer::Refuse(401, "Unauthorized", "killed".to_owned())
    });
    let first = restore_with(scene, options, &Killed(Arc::clone(&killed)));
    scene.cluster.forget_hooks();
    let was_killed = killed.load(Ordering::Relaxed) > 0;
    if was_killed {
        let second = restore(scene, options);
        assert!(second.as_ref().is_ok_and(|restored| restored.well), "killed at {at} ({first:?}), then: {second:?}");
    } else {
        assert!(first.as_ref().is_ok_and(|restored| restored.well), "{first:?}");
    }
    was_killed
}

#[test]
fn killed_at_any_request_the_same_command_ends_right() {
    let scene = captured(&PEER);
    let before = scene.contents();
    let replace = replace_peer();
    // Every fifth request, from another one on each time; with FABKEEP_KILLS every one.
    let every = if std::env::var_os("FABKEEP_KILLS").is_some() { 1 } else { 5 };
    let seed = std::env::var("FABKEEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(std::process::id);
    println!("seed {seed}: set FABKEEP_SEED to run the same again");
    let mut kills = 0;
    for at in (u64::from(seed) % every + 1..).step_by(usize::try_from(every).unwrap()) {
        damage(&scene);
        set_data(&scene.cluster, "peer0-tls", "UkVORVdFRA==");
        let was_killed = killed_at(&scene, &replace, at);
        assert_eq!(differences(&scene, &before), Vec::<String>::new(), "killed at {at}");
        assert_ne!(data(&scene.cluster, "peer0-tls"), "UkVORVdFRA==", "killed at {at}");
        assert_eq!(replicas(&scene.cluster, "peer0"), 1, "killed at {at}");
        assert_eq!(records(&scene.cluster), Vec::<String>::new(), "killed at {at}");
        forget_asides(&scene);
        if !was_killed {
            break;
        }
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills > 5);
}

fn forget_asides(scene: &Scene) {
    let volume = scene.cluster.volume("org1", "peer0-data");
    for entry in std::fs::read_dir(volume).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with(".before-") {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    for secret in scene.cluster.names("Secret", "org1").into_iter().filter(|name| name.contains(".before-")) {
        scene.cluster.delete("Secret", "org1", &secret);
    }
}

#[test]
fn a_network_that_is_gone_comes_back_wherever_the_restore_is_killed() {
    let scene = captured(&fabric::THREE_NODES);
    let before = scene.contents();
    let all = options();
    // Another place each time; with FABKEEP_KILLS more of them.
    let seed = std::env::var("FABKEEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(std::process::id);
    let kills: u64 = std::env::var("FABKEEP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6);
    println!("seed {seed}: set FABKEEP_SEED to run the same again");
    let mut random = u64::from(seed);
    for _ in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (random >> 33) % 260 + 1;
        for namespace in fabric::namespaces(&fabric::THREE_NODES) {
            scene.cluster.delete("Namespace", "", &namespace);
        }
        killed_at(&scene, &all, at);
        assert_eq!(differences(&scene, &before), Vec::<String>::new(), "seed {seed}, killed at {at}");
    }
}

#[test]
fn a_progress_record_that_somebody_changed_is_not_believed() {
    let scene = captured(&PEER);
    let before = scene.contents();
    damage(&scene);
    let replace = replace_peer();
    // Killed while it fills.
    let killed = Arc::new(AtomicU64::new(0));
    let dead = Arc::clone(&killed);
    scene.cluster.before(move |_, call| {
        let unpacks = call.is_exec() && call.command.iter().any(|word| word.contains("tar xpf"));
        if unpacks || dead.load(Ordering::Relaxed) > 0 {
            dead.store(1, Ordering::Relaxed);
            return Answer::Refuse(401, "Unauthorized", "killed".to_owned());
        }
        Answer::Go
    });
    restore_with(&scene, &replace, &Killed(killed)).unwrap_err();
    scene.cluster.forget_hooks();
    let names = records(&scene.cluster);
    assert_eq!(names.len(), 1);
    let record = scene.cluster.get("ConfigMap", "org1", &names[0]).unwrap();
    let text = record["data"]["progress.json"].as_str().unwrap();
    let forged = text.replace(r#"\"done\":\"filling\""#, r#"\"done\":\"filled\""#);
    assert_ne!(forged, text);
    scene.cluster.patch("ConfigMap", "org1", &names[0], &json!({"data": {"progress.json": forged}}));
    let restored = restore(&scene, &replace).unwrap();
    assert!(found(&restored.findings, "B8", &names[0]).is_some(), "{:?}", restored.findings);
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    assert_eq!(replicas(&scene.cluster, "peer0"), 1);
}

fn custom(api_version: &str, kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "org1", "resourceVersion": "7"},
        "spec": {"hosts": [name]}, "status": {"seen": true},
    })
}

#[test]
fn whatever_kind_declares_something_in_the_namespace_comes_back() {
    let scene = Scene::with(&PEER);
    scene.cluster.serve_kind("networking.istio.io/v1", "VirtualService", "virtualservices", true);
    scene.cluster.serve_kind("k8s.cni.cncf.io/v1", "NetworkAttachment", "network-attachments", true);
    scene.cluster.serve_kind("wgpolicyk8s.io/v1", "Report", "reports", true);
    scene.cluster.serve_kind("secrets.example.com/v1beta1", "External", "externals", true);
    scene.cluster.put(custom("networking.istio.io/v1", "VirtualService", "peer0"));
    scene.cluster.put(custom("k8s.cni.cncf.io/v1", "NetworkAttachment", "fast"));
    scene.cluster.put(custom("wgpolicyk8s.io/v1", "Report", "made"));
    scene.cluster.put(custom("secrets.example.com/v1beta1", "External", "vault"));
    let mut owned = custom("networking.istio.io/v1", "VirtualService", "owned");
    let owner = scene.cluster.get("Deployment", "org1", "peer0").unwrap()["metadata"]["uid"].clone();
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "peer0", "uid": owner, "controller": true}]);
    scene.cluster.put(owned);
    scene.back_up();
    let shown = scene.run(&["show", "--repo", "repository", "--identity", "keys/identity"]);
    assert!(shown.text.contains("virtualservices.networking.istio.io"), "{}", shown.text);

    // The new cluster has one of the kinds not, and another in another version.
    for (kind, name) in [
        ("VirtualService", "peer0"),
        ("VirtualService", "owned"),
        ("NetworkAttachment", "fast"),
        ("External", "vault"),
        ("Report", "made"),
    ] {
        assert!(scene.cluster.delete(kind, "org1", name));
    }
    scene.cluster.forget_kind("virtualservices");
    scene.cluster.forget_kind("externals");
    scene.cluster.serve_kind("networking.istio.io/v1beta1", "VirtualService", "virtualservices", true);
    let restored = restore(&scene, &replace_all()).unwrap();
    let other = scene.cluster.get("VirtualService", "org1", "peer0").unwrap();
    assert_eq!(
        (&other["spec"]["hosts"][0], &other["apiVersion"]),
        (&json!("peer0"), &json!("networking.istio.io/v1beta1"))
    );
    assert!(scene.cluster.get("NetworkAttachment", "org1", "fast").is_some());
    assert!(scene.cluster.get("VirtualService", "org1", "owned").is_none());
    assert!(scene.cluster.get("Report", "org1", "made").is_none());
    let missing = found(&restored.findings, "K6", "External org1/vault").unwrap();
    assert!(missing.what.contains("does not serve secrets.example.com/v1beta1 External"), "{}", missing.what);

    scene.cluster.serve_kind("secrets.example.com/v1beta1", "External", "externals", true);
    restore(&scene, &RestoreOptions { missing: true, ..options() }).unwrap();
    assert!(scene.cluster.get("External", "org1", "vault").is_some());
}

/// Everything replaced.
pub(super) fn replace_all() -> RestoreOptions {
    RestoreOptions { replace: true, ..options() }
}

#[test]
fn kinds_that_are_hidden_or_do_not_answer_are_findings_and_end_no_backup() {
    let scene = Scene::with(&PEER);
    scene.cluster.serve_kind("networking.istio.io/v1", "VirtualService", "virtualservices", true);
    scene.cluster.serve_kind("secrets.example.com/v1", "External", "externals", true);
    scene.cluster.before(|_, call| match call.resource.as_str() {
        "virtualservices" => Answer::forbidden(),
        "externals" => Answer::Refuse(400, "BadRequest", "broken".to_owned()),
        _ => Answer::Go,
    });
    scene.back_up();
    let shown = scene.run(&["show", "--repo", "repository", "--identity", "keys/identity"]);
    assert!(shown.text.contains("no right to list virtualservices"), "{}", shown.text);
    assert!(shown.text.contains("externals in org1"), "{}", shown.text);
}

/// Whether a file of this name is in peer0's place, and whether it is in what was set aside.
fn where_is(scene: &Scene, name: &str) -> (bool, bool) {
    let contents = scene.contents();
    let found: Vec<&String> = contents.keys().filter(|path| path.ends_with(name)).collect();
    let aside = |path: &&&String| path.contains("/.before-");
    (found.iter().any(|path| !aside(&path)), found.iter().any(|path| aside(&path)))
}

/// The node runs, and writes.
fn runs_and_writes(cluster: &Cluster) {
    cluster.scale("Deployment", "org1", "peer0", 1);
    let file = cluster.volume("org1", "peer0-data").join("lifecycle/written-by-the-node");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, b"x").unwrap();
}

/// Ends at its first command in a container that holds this text, as by a kill.
fn killed_at_command(scene: &Scene, options: &RestoreOptions, text: &'static str) {
    let killed = Arc::new(AtomicU64::new(0));
    let dead = Arc::clone(&killed);
    scene.cluster.before(move |_, call| {
        let reached = call.is_exec() && call.command.iter().any(|word| word.contains(text));
        if reached || dead.load(Ordering::Relaxed) > 0 {
            dead.store(1, Ordering::Relaxed);
            return Answer::Refuse(401, "Unauthorized", "killed".to_owned());
        }
        Answer::Go
    });
    restore_with(scene, options, &Killed(killed)).unwrap_err();
    scene.cluster.forget_hooks();
}

#[test]
fn what_a_node_wrote_behind_the_fill_is_set_aside() {
    let scene = captured(&PEER);
    let before = scene.contents();
    let replace = replace_peer();
    let no_start = RestoreOptions { start: false, ..replace.clone() };
    // Behind a whole fill; scaled down again by hand; inside a fill.
    for (killed, at_rest) in [(false, false), (false, true), (true, false), (true, true)] {
        damage(&scene);
        if killed {
            killed_at_command(&scene, &replace, "tar xpf");
        } else {
            restore(&scene, &no_start).unwrap();
        }
        runs_and_writes(&scene.cluster);
        if at_rest {
            scene.cluster.scale("Deployment", "org1", "peer0", 0);
        }
        let state = format!("killed {killed}, at rest {at_rest}");
        let refused = restore(&scene, &RestoreOptions { replace: false, ..replace.clone() }).unwrap_err();
        assert!(found(&findings_of(&refused), "B8", "org1/peer0").is_some(), "{state}: {refused}");
        assert_eq!(where_is(&scene, "written-by-the-node"), (true, false), "{state}");
        let restored = restore(&scene, &replace).unwrap();
        assert!(restored.well, "{state}: {:?}", restored.findings);
        assert_eq!(where_is(&scene, "written-by-the-node"), (false, true), "{state}");
        assert_eq!(differences(&scene, &before), Vec::<String>::new(), "{state}");
        assert_eq!((replicas(&scene.cluster, "peer0"), records(&scene.cluster)), (1, Vec::new()), "{state}");
        forget_asides(&scene);
    }
}

#[test]
fn a_secret_that_is_deleted_and_whose_successor_is_refused_is_told_and_its_node_is_not_started() {
    let scene = captured(&PEER);
    let replace = replace_peer();
    // Whatever comes is refused; or only what comes from the recovery point.
    for everything in [true, false] {
        set_data(&scene.cluster, "peer0-tls", "UkVORVdFRA==");
        scene.cluster.forbid(move |call| {
            let old = call.body["data"]["server.crt"] == "UkVORVdFRA==";
            // A policy that comes between the dry run and the replacement.
            call.is("create", "secrets") && call.is_write() && call.name == "peer0-tls" && (everything || !old)
        });
        let error = restore(&scene, &replace).unwrap_err();
        let EngineError::Interrupted { done, .. } = &error else { panic!("{error}") };
        let aside = |done: &Done| matches!(done, Done::SetAside { what, .. } if what == "Secret org1/peer0-tls");
        assert!(done.iter().any(aside), "{done:?}");
        assert_eq!(replicas(&scene.cluster, "peer0"), 0);
        // What was there is put back, where that is not refused too.
        assert_eq!(data(&scene.cluster, "peer0-tls") == "UkVORVdFRA==", !everything);
        scene.cluster.forget_hooks();
        let restored = restore(&scene, &replace).unwrap();
        assert!(restored.well, "{:?}", restored.findings);
        assert!(!matches!(data(&scene.cluster, "peer0-tls"), Value::Null));
        assert_ne!(data(&scene.cluster, "peer0-tls"), "UkVORVdFRA==");
        assert_eq!((replicas(&scene.cluster, "peer0"), records(&scene.cluster)), (1, Vec::new()));
        forget_asides(&scene);
    }
    // Where nothing was scaled down before it.
    set_data(&scene.cluster, "peer0-tls", "UkVORVdFRA==");
    assert!(scene.cluster.delete("Deployment", "org1", "peer0"));
    assert!(scene.cluster.delete("PersistentVolumeClaim", "org1", "peer0-data"));
    scene.cluster.forbid(|call| call.is("create", "secrets") && call.is_write() && call.name == "peer0-tls");
    let error = restore(&scene, &replace).unwrap_err();
    assert!(matches!(&error, EngineError::Interrupted { done, .. } if !done.is_empty()), "{error}");
}

#[test]
fn others_may_label_or_remove_the_progress_record() {
    let scene = captured(&PEER);
    let before = scene.contents();
    let is_record =
        |call: &fabkeep_fake_cluster::Call| call.is("patch", "configmaps") && call.name.starts_with("fabkeep-restore");
    for removes in [false, true] {
        damage(&scene);
        let count = AtomicU64::new(0);
        scene.cluster.before(move |cluster, call| {
            let number = if is_record(call) { count.fetch_add(1, Ordering::Relaxed) } else { 1 };
            if removes && number == 2 {
                cluster.delete("ConfigMap", "org1", &call.name);
            } else if !removes && number % 2 == 0 {
                let label = json!({"metadata": {"labels": {"seen": number.to_string()}}});
                cluster.patch("ConfigMap", "org1", &call.name, &label);
            }
            Answer::Go
        });
        let restored = restore(&scene, &replace_peer()).unwrap();
        scene.cluster.forget_hooks();
        assert!(restored.well, "{:?}", restored.findings);
        assert_eq!(differences(&scene, &before), Vec::<String>::new());
        assert_eq!((replicas(&scene.cluster, "peer0"), records(&scene.cluster)), (1, Vec::new()));
        forget_asides(&scene);
    }
}

#[test]
fn a_progress_record_that_is_put_there_again_is_not_believed() {
    let scene = captured(&PEER);
    let before = scene.contents();
    let replace = replace_peer();
    damage(&scene);
    killed_at_command(&scene, &replace, "rm -f .fabkeep-restore");
    let names = records(&scene.cluster);
    let record = scene.cluster.get("ConfigMap", "org1", &names[0]).unwrap();
    restore(&scene, &replace).unwrap();
    forget_asides(&scene);
    damage(&scene);
    let again = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": record["data"],
        "metadata": {"name": names[0], "namespace": "org1", "labels": record["metadata"]["labels"]}});
    scene.cluster.put(again);
    let restored = restore(&scene, &replace).unwrap();
    assert!(found(&restored.findings, "B8", &names[0]).is_some(), "{:?}", restored.findings);
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    assert!(!restored.set_aside.is_empty());
}

/// A restore that ends before its pods are ready.
fn ends_waiting(scene: &Scene, options: &RestoreOptions) {
    scene.cluster.pod_status(|pod| {
        let peer = pod["metadata"]["name"].as_str().unwrap_or_default().starts_with("peer0-");
        peer.then(|| json!({"phase": "Pending"}))
    });
    let short = RestoreOptions { deadline: Duration::from_secs(1), ..options.clone() };
    let restored = restore(scene, &short).unwrap();
    assert!(!restored.well && records(&scene.cluster).len() == 1, "{:?}", restored.findings);
    scene.cluster.pod_status(|_| None);
}

#[test]
fn the_same_command_never_takes_what_an_earlier_run_filled_for_proven() {
    let scene = captured(&PEER);
    let before = scene.contents();
    let replace = replace_peer();
    damage(&scene);
    ends_waiting(&scene, &replace);
    // It is not ready yet: what was filled is left, and that is a warning.
    let one = RestoreOptions { replace: false, ..replace.clone() };
    scene.cluster.patch("ConfigMap", "org1", &records(&scene.cluster)[0], &json!({"metadata": {"labels": {"a": "b"}}}));
    let restored = restore(&scene, &one).unwrap();
    let warning = found(&restored.findings, "B8", "run ").unwrap();
    assert!(warning.severity == Severity::Warning && warning.what.contains("org1/peer0"), "{warning:?}");
    assert_eq!(records(&scene.cluster), Vec::<String>::new());
    // Everything is ready: a run that is over is not gone on with.
    damage(&scene);
    ends_waiting(&scene, &replace);
    scene.cluster.scale("Deployment", "org1", "peer0", 0);
    scene.cluster.scale("Deployment", "org1", "peer0", 1);
    forget_asides(&scene);
    damage(&scene);
    let restored = restore(&scene, &replace).unwrap();
    assert!(found(&restored.findings, "B8", "ConfigMap").is_some_and(|note| note.what.contains("begins anew")));
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    assert_eq!((replicas(&scene.cluster, "peer0"), records(&scene.cluster)), (1, Vec::new()));
}

#[test]
fn names_with_blanks_at_their_ends_or_like_options_come_back() {
    let scene = Scene::with(&PEER);
    let names = ["-n", " x", "x ", "-n -e", "\\n", "lifecycle/chaincodes/a.tar.gz "];
    let volume = scene.cluster.volume("org1", "peer0-data");
    std::fs::create_dir_all(volume.join("lifecycle/chaincodes")).unwrap();
    for name in names {
        std::fs::write(volume.join(name), name).unwrap();
    }
    scene.back_up();
    let before = scene.contents();
    damage(&scene);
    restore(&scene, &replace_peer()).unwrap();
    assert_eq!(differences(&scene, &before), Vec::<String>::new());
    for name in names {
        assert_eq!(std::fs::read_to_string(volume.join(name)).unwrap_or_default(), name);
    }
}

#[test]
fn lists_that_expire_between_their_pages_begin_anew() {
    let scene = Scene::with(&PEER);
    for number in 0..300 {
        let name = format!("many-{number:03}");
        scene
            .cluster
            .put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "org1"}}));
    }
    // Every page but the first is too old, whenever it is asked for.
    scene.cluster.before(|_, call| if call.query.contains_key("continue") { Answer::gone() } else { Answer::Go });
    scene.back_up();
    scene.cluster.forget_hooks();
    for number in [0, 299] {
        assert!(scene.cluster.delete("ConfigMap", "org1", &format!("many-{number:03}")));
    }
    restore(&scene, &RestoreOptions { missing: true, ..options() }).unwrap();
    assert!(scene.cluster.get("ConfigMap", "org1", "many-000").is_some());
    assert!(scene.cluster.get("ConfigMap", "org1", "many-299").is_some());
}
