//! Streams from a cluster, in one run: `kubectl exec … tar` of every node's ledger, a first backup, and one after few new blocks.
//!
//! `FABKEEP_TEST_KUBECONFIG=… cargo bench --bench kubernetes` prints times and ratios; `FABKEEP_BENCH_NODE_MIB` sets the size of each of
//! seven nodes' ledgers (256). Needs a cluster that tests may use, with their images; without one it says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unused_imports)]

#[path = "../tests/kubernetes/cluster.rs"]
mod cluster;
#[path = "../tests/kubernetes/network.rs"]
mod network;
#[path = "../tests/kubernetes/run.rs"]
mod run;
#[path = "../tests/kubernetes/styles/mod.rs"]
mod styles;

use std::process::{Child, Stdio};
use std::time::Instant;

use cluster::Cluster;
use fabkeep_fixtures::Growth;
use network::{Kind, NODES, Network};
use run::Place;

/// Pods with a ledger: namespace, pod, and the node's data there.
fn ledgers(network: &Network<'_>) -> Vec<(String, String, &'static str)> {
    let mut out = Vec::new();
    for namespace in network.names() {
        let pods = network.cluster.json(&["-n", &namespace, "get", "pods"]);
        for pod in pods["items"].as_array().unwrap() {
            let name = pod.pointer("/metadata/name").unwrap().as_str().unwrap().to_owned();
            let image = pod.pointer("/spec/containers/0/image").unwrap().as_str().unwrap();
            if image.contains("fabric-peer") || image.contains("fabric-orderer") {
                out.push((namespace.clone(), name, "/var/hyperledger/"));
            }
        }
    }
    out
}

fn tar(network: &Network<'_>, (namespace, pod, directory): &(String, String, &str)) -> Child {
    let script = ["-n", namespace, "exec", pod, "--", "tar", "-cf", "-", directory];
    network.cluster.command(&script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn timed(name: &str, mib: f64, work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{name:<52} {seconds:>8.2} s {:>7.0} MiB/s", mib / seconds);
    seconds
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let wanted: u64 = std::env::var("FABKEEP_BENCH_NODE_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(256);
    let wanted = if test { 2 } else { wanted };
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::new(&cluster, &styles::OWKIN, "bench");
    let mut growth = Growth::open(network.folder(), "mychannel").unwrap();
    let chain = network.folder().join("OrdererOrg/orderer1/production/chains/mychannel");
    let size = || -> u64 {
        let files = std::fs::read_dir(&chain).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    while size() < wanted << 20 {
        growth.grow(200, 10).unwrap();
        // As orderers do: the raft log stays short.
        growth.compact().unwrap();
    }
    let nodes = NODES.iter().filter(|node| node.kind != Kind::Ca).count();
    let mib = (size() * nodes as u64) as f64 / f64::from(1 << 20);
    network.deploy();
    println!("\n{nodes} nodes, {mib:.0} MiB of block files in all, height {}", growth.height());
    let ledgers = ledgers(&network);
    assert_eq!(ledgers.len(), nodes);
    let one_by_one = timed("kubectl exec tar, one node after the other", mib, || {
        ledgers.iter().for_each(|ledger| assert!(tar(&network, ledger).wait().unwrap().success()));
    });
    let at_once = timed("kubectl exec tar, all nodes at once", mib, || {
        let children: Vec<Child> = ledgers.iter().map(|ledger| tar(&network, ledger)).collect();
        children.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    });
    let place = Place::new(&network);
    let first = timed("fabkeep backup, first: verified, encrypted, kept", mib, || {
        println!("{}", place.backup());
    });
    let nothing = timed("fabkeep backup, nothing new", mib, || {
        place.backup();
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    let since = std::time::SystemTime::now();
    growth.grow(20, 10).unwrap();
    network.refill(&["OrdererOrg", "Org1", "Org2"], since);
    let few = timed("fabkeep backup, 20 new blocks on every node", mib, || {
        println!("{}", place.backup());
    });
    println!(
        "first copy: {:.2}x of kubectl exec tar one after the other, {:.2}x of all at once",
        one_by_one / first,
        at_once / first
    );
    println!(
        "after few new blocks: {:.0}x as fast as the first ({:.0}x with nothing new)",
        first / few,
        first / nothing
    );
}
