//! Drills beside a network on the fake cluster: nothing of it is touched, everything that a drill makes is removed again, and a drill fails
//! for the right reason.

use std::collections::BTreeSet;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use fabkeep_engine::{DrillCluster, DrillOptions, DrillPlace, Drilled, RestoreOptions, Silent, drill};
use fabkeep_fake_cluster::fabric::{self, Kind, Node, SMALL};
use fabkeep_fake_cluster::{Answer, Call};
use fabkeep_platform::kubernetes::ClusterAddress;
use fabkeep_store::{DrillResult, IdentityFile, Repository};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::restores::PEER;
use super::scene::{Ended, Scene, ended};

/// Connects to DNS and to nothing else: `nc -z -w 3 ADDRESS PORT`.
const FENCED: &str = "for port; do :; done; [ \"$port\" = 53 ]";

const fn scratch(node: Node, organization: &'static str) -> Node {
    Node { organization, ..node }
}

/// Three orderers, two peers and a certificate authority.
const NETWORK: [Node; 6] = [SMALL[0], SMALL[1], SMALL[2], SMALL[3], SMALL[4], SMALL[5]];
/// What a drill makes of all of them.
const COPIES: [Node; 6] = [
    scratch(SMALL[0], "drill-OrdererOrg"),
    scratch(SMALL[1], "drill-OrdererOrg"),
    scratch(SMALL[2], "drill-OrdererOrg"),
    scratch(SMALL[3], "drill-Org1"),
    scratch(SMALL[4], "drill-Org1"),
    scratch(SMALL[5], "drill-Org1"),
];

/// A network that is captured, on a cluster where drills are closed off and their nodes answer.
pub(super) fn captured(nodes: &[Node]) -> Scene {
    let scene = Scene::with(nodes);
    prepare(&scene);
    scene.back_up();
    scene
}

/// Lets the nodes of drills answer, and nothing lead out of them.
fn prepare(scene: &Scene) {
    for node in scene.nodes.iter().filter(|node| node.kind == Kind::Orderer) {
        // Nothing answers by TLS here: that would be waited for at each question.
        let mut object = scene.cluster.get("Deployment", &node.namespace(), node.name).unwrap();
        let container = &mut object["spec"]["template"]["spec"]["containers"][0];
        let mut settings = container["env"].as_array().cloned().unwrap_or_default();
        settings.push(json!({"name": "ORDERER_ADMIN_TLS_ENABLED", "value": "false"}));
        container["env"] = settings.into();
        scene.cluster.put(object);
    }
    let copies: Vec<Node> = COPIES.to_vec();
    fabric::serve_operations(&scene.cluster, &copies);
    scene.cluster.answer_http(|_, get| {
        let answer = r#"{"result": {"CAName": "ca-org1", "CAChain": "TFMw"}, "success": true}"#;
        (get.path == "/cainfo").then(|| (200, answer.to_owned()))
    });
    scene.cluster.tool("nc", FENCED);
}

fn drill_command(scene: &Scene, more: &[&str]) -> std::process::Command {
    let mut command =
        scene.command(&["drill", "--repo", "repository", "--identity", "keys/identity", "--deadline", "10", "-q"]);
    command.args(["--output", "json", "--kubernetes", "--kubeconfig"]).arg(scene.cluster.kubeconfig()).args(more);
    command
}

/// What a drill ended with, and its result.
fn drilled(scene: &Scene, more: &[&str]) -> (Ended, Value) {
    read(&drill_command(scene, more).output().unwrap())
}

fn read(output: &Output) -> (Ended, Value) {
    (ended(output), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn recorded(scene: &Scene) -> Vec<Value> {
    let listed = scene
        .command(&["drills", "--repo", "repository", "--identity", "keys/identity", "--output", "json"])
        .output()
        .unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    listed["drills"].as_array().unwrap().clone()
}

fn namespaces(scene: &Scene) -> Vec<String> {
    let mut names = scene.cluster.names("Namespace", "");
    names.retain(|name| name.starts_with("drill-"));
    names
}

/// Writes that touch anything but scratch namespaces.
fn strange_writes(calls: &[Call]) -> Vec<String> {
    let of_drill = |call: &&Call| {
        call.namespace.starts_with("drill-") || (call.resource == "namespaces" && call.name.starts_with("drill-"))
    };
    let writes = calls.iter().filter(|call| call.is_write() || call.is_exec());
    writes
        .filter(|call| !of_drill(call))
        .map(|call| format!("{} {} {}/{}", call.verb, call.resource, call.namespace, call.name))
        .collect()
}

fn sentences(of: &Value) -> String {
    let all = of.as_array().into_iter().flatten().filter_map(Value::as_str);
    all.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_drill_proves_a_network_beside_it_and_leaves_nothing() {
    let scene = Scene::with(&NETWORK);
    // Ways in, which a copy must not have.
    let ways = json!({"metadata": {"annotations": {"external-dns.alpha.kubernetes.io/hostname": "peer0.example.com"}},
        "spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.1"], "ports": [{"port": 7051, "nodePort": 30051}]}});
    scene.cluster.patch("Service", "org1", "peer0", &ways);
    scene.cluster.put(json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "in", "namespace": "org1"}, "spec": {"rules": [{"host": "peer0.example.com"}]}}));
    scene.cluster.put(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "open", "namespace": "org1"}, "spec": {"podSelector": {}, "egress": [{}]}}));
    scene.cluster.patch("Namespace", "", "org1", &json!({"metadata": {"labels": {"istio-injection": "enabled"}}}));
    prepare(&scene);
    scene.back_up();
    let before = scene.contents();
    scene.cluster.forget_calls();
    let seen = scene.path("seen");
    let check = format!("env | grep ^FABKEEP_DRILL > {}", seen.display());
    let limits = ["--max-rto", "10m", "--max-rpo", "1h", "--check", &check];
    let (ended, result) = drilled(&scene, &limits);
    assert!(matches!(ended.code, 0 | 3), "{}", ended.text);
    assert_eq!(result["drill"]["result"], "proven", "{}", ended.text);
    let proven = sentences(&result["drill"]["proven"]);
    for part in [
        "files hashed",
        "chains are open",
        "mychannel has a leader: drill-ordererorg/",
        "on 2 peers",
        "certificate authority drill-org1/ca answers, as ca-org1",
        "no panic",
        "NetworkPolicies are enforced",
        "the given check succeeded",
    ] {
        assert!(proven.contains(part), "{part}\n{proven}");
    }
    assert_eq!(result["drill"]["rpo_blocks"]["mychannel"], 0, "{}", ended.text);
    assert!(result["drill"]["rto_seconds"].as_f64().unwrap() > 0.0 && result["drill"]["bytes"].as_u64().unwrap() > 0);
    // Nothing of the network was touched, and nothing is left.
    let calls = scene.cluster.calls();
    assert_eq!(strange_writes(&calls), Vec::<String>::new());
    assert_eq!((namespaces(&scene), scene.contents()), (Vec::new(), before));
    // The fence comes before everything else in each namespace.
    for namespace in ["drill-org1", "drill-ordererorg"] {
        let first = calls.iter().find(|call| call.verb == "create" && call.namespace == namespace).unwrap();
        assert_eq!(first.resource, "networkpolicies", "{namespace}");
        let created = |resource: &str| -> Vec<Value> {
            let all = calls.iter().filter(|call| call.is("create", resource) && call.namespace == namespace);
            all.map(|call| call.body.clone()).collect()
        };
        assert_eq!((created("networkpolicies").len(), created("ingresses").len()), (1, 0));
        for service in created("services") {
            assert!(service["spec"].get("type").is_none() && service["spec"].get("externalIPs").is_none(), "{service}");
            assert!(
                service.pointer("/spec/ports/0/nodePort").is_none() && service["metadata"].get("annotations").is_none()
            );
        }
    }
    let made = calls.iter().find(|call| call.is("create", "namespaces") && call.name == "drill-org1").unwrap();
    assert!(made.body["metadata"]["labels"].get("istio-injection").is_none(), "{}", made.body);
    let variables = std::fs::read_to_string(seen).unwrap();
    for part in ["FABKEEP_DRILL_NAMESPACE_ORG1=drill-org1", "drill-org1/peer0:7051", "FABKEEP_DRILL_CHANNELS=mychannel"]
    {
        assert!(variables.contains(part), "{part}\n{variables}");
    }
    let all = recorded(&scene);
    assert_eq!((all.len(), &all[0]["result"], &all[0]["removed"]), (1, &json!("proven"), &json!(true)));
    let table = scene.run(&["drills", "--repo", "repository"]);
    assert!(table.code == 0 && table.text.contains("proven"), "{}", table.text);
}

#[test]
fn a_namespace_that_is_there_is_neither_used_nor_removed() {
    let scene = captured(&PEER);
    let theirs = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "drill-org1"}});
    scene.cluster.put(theirs.clone());
    scene
        .cluster
        .put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": "drill-org1"}}));
    scene.cluster.forget_calls();
    let (ended, result) = drilled(&scene, &[]);
    assert_eq!(ended.code, 4, "{}", ended.text);
    assert!(sentences(&result["drill"]["problems"]).contains("K10 Namespace drill-org1"), "{}", ended.text);
    assert_eq!(scene.cluster.calls().iter().filter(|call| call.is_write()).count(), 0);
    assert!(scene.cluster.get("ConfigMap", "drill-org1", "mine").is_some());
    // One that somebody makes at the same moment is not the drill's either.
    assert!(scene.cluster.delete("Namespace", "", "drill-org1"));
    scene.cluster.before(move |cluster, call| {
        if call.is("create", "namespaces") && cluster.get("Namespace", "", "drill-org1").is_none() {
            cluster.put(theirs.clone());
        }
        Answer::Go
    });
    let (ended, _) = drilled(&scene, &[]);
    assert_eq!(ended.code, 4, "{}", ended.text);
    assert_eq!(namespaces(&scene), ["drill-org1"]);
    // What a drill's namespace says, copied to another one, makes it none.
    let cleaned = scene.run(&["clean", "--kubeconfig", &scene.cluster.kubeconfig().display().to_string()]);
    assert!(cleaned.code == 0 && !cleaned.text.contains("drill-org1"), "{}", cleaned.text);
}

#[test]
fn a_check_that_fails_and_limits_that_are_exceeded_are_told_by_the_exit_code() {
    let scene = captured(&PEER);
    let (ended, result) = drilled(&scene, &["--check", "echo the balance is wrong >&2; exit 3", "--max-rto", "1ms"]);
    assert_eq!((ended.code, &result["drill"]["result"]), (7, &json!("unproven")), "{}", ended.text);
    assert!(sentences(&result["drill"]["problems"]).contains("the balance is wrong"), "{}", ended.text);
    assert_eq!(namespaces(&scene), Vec::<String>::new());
    for limit in ["--max-rto", "--max-rpo"] {
        let (ended, result) = drilled(&scene, &[limit, "1ms"]);
        assert_eq!((ended.code, &result["drill"]["result"]), (8, &json!("over-limit")), "{}", ended.text);
        assert!(sentences(&result["over"]).contains("are allowed"), "{}", ended.text);
    }
    assert_eq!(recorded(&scene).len(), 3);
}

/// A drill whose policies have no time to have an effect.
fn at_once(scene: &Scene, unfenced: bool) -> Drilled {
    let repository = Repository::open(&scene.path("repository").display().to_string()).unwrap();
    let commit = repository.point("latest").unwrap();
    let identity = IdentityFile::read(&scene.path("keys/identity")).unwrap();
    let address = ClusterAddress { kubeconfig: Some(scene.cluster.kubeconfig()), context: None };
    let cluster = DrillCluster { settle: Duration::ZERO, unfenced, ..DrillCluster::new(address, "drill-") };
    let restore = RestoreOptions { deadline: Duration::from_secs(10), ..RestoreOptions::default() };
    let options = DrillOptions { restore, ..DrillOptions::default() };
    drill(&repository, &commit, &identity, &DrillPlace::Cluster(Box::new(cluster)), &options, &Silent).unwrap()
}

#[test]
fn where_policies_are_not_enforced_no_node_starts_unless_that_is_accepted() {
    let scene = captured(&PEER);
    for (tool, part) in [("exit 0", "Service org1/peer0"), ("exit 1", "cannot be checked")] {
        scene.cluster.tool("nc", tool);
        scene.cluster.forget_calls();
        let refused = at_once(&scene, false);
        assert_eq!(refused.drill.result, DrillResult::Refused, "{refused:?}");
        assert!(refused.drill.problems[0].contains(part), "{:?}", refused.drill.problems);
        assert!(!scene.cluster.calls().iter().any(|call| call.is("create", "deployments")));
        assert_eq!(namespaces(&scene), Vec::<String>::new());
    }
    let accepted = at_once(&scene, true);
    assert_eq!(accepted.drill.result, DrillResult::Proven, "{accepted:?}");
    assert!(accepted.drill.not_proven.iter().any(|sentence| sentence.contains("reached nothing outside")));
}

/// Starts a drill, and waits until its first Deployment is there.
fn begun(scene: &Scene) -> Child {
    let child = drill_command(scene, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while scene.cluster.get("Deployment", "drill-org1", "peer0").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn what_a_killed_drill_left_is_removed_by_clean_and_nothing_else() {
    let scene = captured(&PEER);
    // It waits for ever in the middle.
    scene.cluster.before(|cluster, call| {
        let midway = call.is_exec() && cluster.get("Deployment", "drill-org1", "peer0").is_some();
        if midway { Answer::Hang } else { Answer::Go }
    });
    let mut child = begun(&scene);
    child.kill().unwrap();
    child.wait().unwrap();
    scene.cluster.forget_hooks();
    assert_eq!(namespaces(&scene), ["drill-org1"]);
    // Somebody's own namespace, made from that one's manifest.
    let mut copy = scene.cluster.get("Namespace", "", "drill-org1").unwrap();
    copy["metadata"] = json!({"name": "drill-copy", "labels": copy["metadata"]["labels"],
        "annotations": copy["metadata"]["annotations"]});
    scene.cluster.put(copy);
    let (ended, _) = drilled(&scene, &[]);
    assert!(ended.code == 4 && ended.text.contains("fabkeep clean"), "{}", ended.text);
    // A backup of the whole cluster takes no copy for a part of the network.
    let kubeconfig = scene.cluster.kubeconfig().display().to_string();
    let found = scene.run(&["discover", "--kubernetes", "--kubeconfig", &kubeconfig]);
    assert!(found.text.contains("org1") && !found.text.contains("drill-org1"), "{}", found.text);
    let look = scene.run(&["clean", "--kubeconfig", &kubeconfig, "--dry-run"]);
    assert!(look.text.contains("would remove Namespace drill-org1"), "{}", look.text);
    let cleaned = scene.run(&["clean", "--kubeconfig", &kubeconfig]);
    assert!(cleaned.code == 0 && cleaned.text.contains("removed Namespace drill-org1"), "{}", cleaned.text);
    assert_eq!(namespaces(&scene), ["drill-copy"]);
    assert!(scene.cluster.get("Deployment", "org1", "peer0").is_some());
    let (ended, _) = drilled(&scene, &[]);
    assert!(matches!(ended.code, 0 | 3), "{}", ended.text);
}

#[test]
fn a_drill_that_is_stopped_removes_what_it_made() {
    let scene = captured(&PEER);
    scene.cluster.before(|_, call| {
        if call.is_exec() {
            std::thread::sleep(Duration::from_millis(50));
        }
        Answer::Go
    });
    for signal in [Signal::INT, Signal::TERM] {
        let child = begun(&scene);
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
        let (ended, result) = read(&child.wait_with_output().unwrap());
        assert_eq!((ended.code, &result["drill"]["result"]), (130, &json!("interrupted")), "{}", ended.text);
        assert_eq!(namespaces(&scene), Vec::<String>::new());
    }
}

#[test]
fn a_drill_that_is_kept_is_removed_by_the_command_that_it_prints() {
    let scene = captured(&PEER);
    let (ended, result) = drilled(&scene, &["--keep"]);
    assert!(matches!(ended.code, 0 | 3), "{}", ended.text);
    assert_eq!((namespaces(&scene), &result["kept"]), (vec!["drill-org1".to_owned()], &json!(true)));
    assert!(scene.cluster.pod("drill-org1", "peer0-").is_some());
    assert_eq!(recorded(&scene)[0]["removed"], false);
    let removal: Vec<&str> = result["removal"].as_str().unwrap().split(' ').skip(1).collect();
    let removed = scene.run(&removal);
    assert_eq!(removed.code, 0, "{}", removed.text);
    assert_eq!(namespaces(&scene), Vec::<String>::new());
}

#[test]
fn what_cannot_be_removed_is_told_with_the_command_that_removes_it() {
    let scene = captured(&PEER);
    scene.cluster.forbid(|call| call.is("delete", "namespaces"));
    let (ended, result) = drilled(&scene, &[]);
    assert_eq!((ended.code, &result["drill"]["result"]), (6, &json!("proven")), "{}", ended.text);
    assert!(sentences(&result["left"]).contains("drill-org1"), "{}", ended.text);
    assert!(result["removal"].as_str().unwrap().contains("clean --namespace drill-org1"), "{}", ended.text);
    scene.cluster.forget_hooks();
}

#[test]
fn the_plan_of_a_drill_changes_nothing() {
    let scene = captured(&PEER);
    scene.cluster.forget_calls();
    let (ended, plan) = drilled(&scene, &["--dry-run"]);
    assert!(matches!(ended.code, 0 | 3), "{}", ended.text);
    let steps = plan["steps"].as_array().unwrap();
    let objects: BTreeSet<&str> = steps.iter().filter_map(|step| step["object"].as_str()).collect();
    assert!(objects.contains("Deployment drill-org1/peer0") && !objects.iter().any(|object| object.contains(" org1/")));
    assert_eq!(scene.cluster.calls().iter().filter(|call| call.is_write()).count(), 0);
    assert_eq!(recorded(&scene).len(), 0);
}
