//! To another place: other namespaces of the same cluster, while the captured network goes on; another storage class, another registry;
//! and from there to a third place.

use std::collections::BTreeMap;
use std::process::Output;

use crate::cluster::Cluster;
use crate::network::Network;
use crate::run::{Place, succeeded};
use crate::styles;
use crate::whole::{assert_same, needed};

const HEADLESS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: gossip}\nspec:\n  clusterIP: None\n  selector: {node: peer0}\n  ports: [{name: grpc, port: 7051}]\n";

/// What must be the same in both places, by place without its namespace's name; what fabkeep adds is left out.
fn placeless(network: &Network<'_>) -> BTreeMap<String, String> {
    let names: Vec<(&str, String)> =
        network.namespaces.iter().map(|(organization, namespace)| (*organization, format!("{namespace} "))).collect();
    let all = needed(network.style, network.fingerprint());
    let short = |place: String| {
        let of = names.iter().find_map(|(organization, namespace)| {
            place.strip_prefix(namespace.as_str()).map(|rest| format!("{organization} {rest}"))
        });
        of.unwrap()
    };
    all.into_iter().map(|(place, hash)| (short(place), hash)).collect()
}

fn pods(network: &Network<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for namespace in network.names() {
        let list = network.cluster.json(&["-n", &namespace, "get", "pods"]);
        out.extend(list["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["uid"].to_string()));
    }
    out.sort();
    out
}

fn refused(output: Output, code: i32, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(part), "{text}");
}

/// The addresses that a node's pod knows names by.
fn hosts(network: &Network<'_>, organization: &str, node: &str) -> BTreeMap<String, String> {
    let namespace = &network.namespaces[organization];
    let list = network.cluster.json(&["-n", namespace, "get", "pods", "-l", &format!("node={node}")]);
    let pod = list.pointer("/items/0/metadata/name").unwrap().as_str().unwrap();
    let text = network.cluster.sh(namespace, pod, "cat /etc/hosts");
    let mut out = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or_default();
        out.extend(words.map(|name| (name.to_owned(), address.to_owned())));
    }
    out
}

fn address(network: &Network<'_>, organization: &str, service: &str) -> String {
    let object = network.cluster.json(&["-n", &network.namespaces[organization], "get", "service", service]);
    object.pointer("/spec/clusterIP").unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_network_lives_again_beside_the_captured_one_and_moves_on_from_there() {
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::new(&cluster, &styles::RAW, "away");
    network.deploy();
    cluster.apply(&network.namespaces["Org1"], HEADLESS);
    let (heights, before, pods_before) = (network.heights(), placeless(&network), pods(&network));
    let place = Place::new(&network);
    println!("{}", place.backup());
    let copy = Network::new(&cluster, &styles::RAW, "away-copy");
    let repo = place.repo();
    let restore = |from: &Network<'_>, to: &Network<'_>, more: &[&str]| {
        let mut command = place.command(&["restore", "--repo", repo.to_str().unwrap(), "--kubeconfig"]);
        command.arg(cluster.kubeconfig()).args(more);
        for (old, new) in from.names().iter().zip(to.names()) {
            command.args(["--map-namespace", &format!("{old}={new}")]);
        }
        command.output().unwrap()
    };

    println!("-- what cannot be is refused before anything is made");
    refused(restore(&network, &copy, &["--storage-class", "nowhere"]), 4, "K8");
    refused(restore(&network, &copy, &["--map-namespace", "none=other"]), 2, "has no namespace none");
    assert!(!cluster.try_kubectl(&["get", "namespace", &copy.names()[0]], &[]).status.success());

    println!("-- beside the captured network, which runs");
    let more = ["--storage-class", "csi-local=local-path", "--registry", "k8s.local/hyperledger=mirror.local/fabric"];
    println!("{}", succeeded(restore(&network, &copy, &more)));
    assert_eq!(heights, copy.heights());
    assert_same(&before, &placeless(&copy));
    assert_eq!(pods_before, pods(&network), "the captured network was touched");
    assert_same(&before, &placeless(&network));
    let orderers = copy.namespaces["OrdererOrg"].clone();
    let claim = cluster.json(&["-n", &orderers, "get", "pvc", "orderer1-wal"]);
    assert_eq!(claim["spec"]["storageClassName"], "local-path");
    let workload = cluster.json(&["-n", &orderers, "get", "deployment", "orderer1"]);
    let image = workload.pointer("/spec/template/spec/containers/0/image").unwrap();
    assert_eq!(image, "mirror.local/fabric/fabric-orderer:2.5");

    println!("-- old names lead to the new place from every pod");
    let old = |organization: &str, service: &str| format!("{service}.{}", network.namespaces[organization]);
    let known = hosts(&copy, "Org2", "peer0");
    for (organization, service) in [("OrdererOrg", "orderer1"), ("Org1", "peer0"), ("Org2", "ca-db")] {
        let name = old(organization, service);
        let full = format!("{name}.svc.cluster.local");
        let expected = address(&copy, organization, service);
        assert_ne!(expected, address(&network, organization, service));
        assert_eq!((&known[&name], &known[&full]), (&expected, &expected), "{known:?}");
    }
    let companion = address(&copy, "Org1", "gossip-by-old-name");
    assert_eq!(known[&old("Org1", "gossip")], companion);

    println!("-- again: there is nothing to do");
    let again = succeeded(restore(&network, &copy, &["--missing"]));
    assert!(again.contains("nothing to do"), "{again}");

    println!("-- moved from there to a third place; the names of both go with it");
    let addresses_of_copy: Vec<String> = hosts(&copy, "Org1", "peer0").into_values().collect();
    let third = Network::new(&cluster, &styles::RAW, "away-third");
    let mut migrate = place.command(&["migrate", "--repo", repo.to_str().unwrap(), "--kubeconfig"]);
    migrate.arg(cluster.kubeconfig());
    for (old, new) in copy.names().iter().zip(third.names()) {
        migrate.args(["--namespace", old, "--map-namespace", &format!("{old}={new}")]);
    }
    println!("{}", succeeded(migrate.output().unwrap()));
    assert!(pods(&copy).is_empty(), "what was moved still runs");
    let mut status = place.command(&["status", "--kubeconfig"]);
    status.arg(cluster.kubeconfig());
    copy.names().iter().for_each(|name| {
        status.args(["--namespace", name]);
    });
    let reported = succeeded(status.output().unwrap());
    assert!(reported.contains("W2") && reported.contains("fabkeep resume"), "{reported}");
    assert_eq!(heights, third.heights());
    let known = hosts(&third, "Org1", "peer0");
    let orderer = address(&third, "OrdererOrg", "orderer1");
    assert_eq!(known[&old("OrdererOrg", "orderer1")], orderer);
    assert_eq!(known[&format!("orderer1.{}", copy.namespaces["OrdererOrg"])], orderer);
    let stale =
        known.values().filter(|address| addresses_of_copy.contains(address) && address.starts_with("10.96")).count();
    assert_eq!(stale, 0, "addresses of the place before: {known:?}");
}
