//! A drill beside a running network: none of its pods is touched, and nothing is left.

use crate::cluster::Cluster;
use crate::network::Network;
use crate::run::Place;
use crate::styles;

fn pods(network: &Network<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for namespace in network.names() {
        let list = network.cluster.json(&["-n", &namespace, "get", "pods"]);
        let uids = list["items"].as_array().unwrap().iter();
        out.extend(uids.map(|pod| {
            format!("{} {}", pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        }));
    }
    out.sort();
    out
}

#[test]
fn a_drill_proves_a_network_beside_it_and_leaves_nothing() {
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::new(&cluster, &styles::RAW, "drilled");
    network.deploy();
    let place = Place::new(&network);
    println!("{}", place.backup());
    let (heights, before) = (network.heights(), pods(&network));
    let repo = place.repo();
    let check = "kubectl --kubeconfig \"$KUBECONFIG\" get pods -n \"${FABKEEP_DRILL_NAMESPACES%% *}\"";
    let check = check.replacen("kubectl", &crate::cluster::kubectl(), 1);
    let drill = |more: &[&str]| {
        let mut command =
            place.command(&["drill", "--repo", repo.to_str().unwrap(), "--prefix", "d-", "--check", &check]);
        command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(more).output().unwrap()
    };
    let mut drilled = drill(&[]);
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    if drilled.status.code() == Some(4) {
        // Whether policies are enforced depends on the cluster.
        assert!(text(&drilled).contains("NetworkPolicies"), "{}", text(&drilled));
        drilled = drill(&["--allow-unfenced"]);
    }
    let said = text(&drilled);
    println!("{said}{}", String::from_utf8_lossy(&drilled.stderr));
    assert!(matches!(drilled.status.code(), Some(0 | 3)), "{:?}", drilled.status);
    for part in ["has a leader", "certificate authority d-", "the given check succeeded", "RTO", "blocks since then"] {
        assert!(said.contains(part), "{part}");
    }
    network.assert_no_secret_in(&said);
    assert_eq!((heights, before), (network.heights(), pods(&network)), "the running network was touched");
    for name in network.names() {
        let there = cluster.try_kubectl(&["get", "namespace", &format!("d-{name}")], &[]);
        assert!(!there.status.success(), "{name}");
    }
    let listed = place.ok(&["drills", "--repo", repo.to_str().unwrap()]);
    assert!(listed.contains("proven"), "{listed}");
}
