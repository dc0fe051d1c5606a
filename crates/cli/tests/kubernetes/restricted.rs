//! A namespace that enforces the pod security level *restricted*: everything deleted, everything back, without root.

use crate::cluster::Cluster;
use crate::network::{NODES, Network};
use crate::run::Place;
use crate::styles;
use crate::whole::{assert_same, needed};

const USER: &str = "7051";

#[test]
fn a_restricted_namespace_gets_its_nodes_back() {
    let Some(cluster) = Cluster::get() else { return };
    let nodes = NODES.split_at(6).0.split_at(3).1;
    let network = Network::of(&cluster, &styles::TEST_NETWORK, "restricted", nodes);
    network.deploy();
    let namespace = network.namespaces["Org1"].clone();
    // The nodes become what the level asks for: a user of their own, who owns their files.
    let container = serde_json::json!({"name": "main", "securityContext": {"allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}}});
    let user: u32 = USER.parse().unwrap();
    let pod = serde_json::json!({"runAsNonRoot": true, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"}});
    let patch =
        serde_json::json!({"spec": {"template": {"spec": {"securityContext": pod, "containers": [container]}}}});
    let pods = cluster.json(&["-n", &namespace, "get", "pods"]);
    let first = pods.pointer("/items/0/metadata/name").unwrap().as_str().unwrap();
    cluster.sh(
        &namespace,
        first,
        &format!("chown -R {USER}:{USER} /var/hyperledger/fabric* /var/hyperledger/fabric-ca-server"),
    );
    for node in nodes {
        cluster.kubectl(&["-n", &namespace, "patch", "deployment", node.name, "-p", &patch.to_string()], &[]);
        cluster.kubectl(&["-n", &namespace, "rollout", "status", "deployment", node.name, "--timeout=120s"], &[]);
    }
    let before = needed(network.style, network.fingerprint());
    let level = |value: &str| cluster.kubectl(&["label", "namespace", &namespace, "--overwrite", value], &[]);
    level("pod-security.kubernetes.io/enforce=restricted");
    let place = Place::new(&network);
    place.backup();

    cluster.remove_namespaces(&network.names());
    let reported = place.restore(&[]);
    println!("{reported}");
    let labelled = cluster.json(&["get", "namespace", &namespace]);
    assert_eq!(labelled["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    assert!(!reported.contains("will belong to"), "{reported}");
    // The next backup finds it as it was, also while a node is down and a helper reads its volume.
    cluster.kubectl(&["-n", &namespace, "scale", "deployment", "peer1", "--replicas=0"], &[]);
    place.backup();
    level("pod-security.kubernetes.io/enforce=privileged");
    assert_same(&before, &needed(network.style, network.fingerprint()));
}
