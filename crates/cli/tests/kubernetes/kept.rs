//! Snapshots that stay in the cluster: everything deleted, everything back from them; a driver that fails is told and leaves nothing.

use crate::cluster::Cluster;
use crate::network::{NODES, Network};
use crate::run::{Place, succeeded};
use crate::styles;
use crate::whole::{assert_same, needed};

/// Contents of snapshots whose claims were in these namespaces.
fn contents(cluster: &Cluster, namespaces: &[String]) -> usize {
    let all = cluster.json(&["get", "volumesnapshotcontents"]);
    let of = |content: &&serde_json::Value| {
        let namespace = content.pointer("/spec/volumeSnapshotRef/namespace").and_then(|name| name.as_str());
        namespace.is_some_and(|name| namespaces.iter().any(|known| known == name))
    };
    all["items"].as_array().unwrap().iter().filter(of).count()
}

#[test]
fn a_network_that_is_gone_comes_back_from_snapshots_that_stayed() {
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::of(&cluster, &styles::TEST_NETWORK, "kept", NODES.split_at(6).0);
    network.deploy();
    let before = needed(network.style, network.fingerprint());
    let heights = network.heights();
    let place = Place::new(&network);
    let repo = place.repo().display().to_string();
    let backup = |keep: &str| {
        let arguments = ["backup", "--repo", &repo, "--volumes", "snapshot", "--keep-snapshots", keep];
        succeeded(place.on_cluster(&arguments).output().unwrap())
    };
    let reported = backup("1");
    println!("{reported}");
    let kept = contents(&cluster, &network.names());
    assert!(kept > 0, "{reported}");

    cluster.remove_namespaces(&network.names());
    assert_eq!(contents(&cluster, &network.names()), kept, "they outlast their namespaces");
    let reported = place.restore(&["--from-snapshots"]);
    println!("{reported}");
    assert!(reported.contains("from the kept snapshot"), "{reported}");
    assert_eq!(heights, network.heights());
    assert_same(&before, &needed(network.style, network.fingerprint()));

    // The next one keeps its own, and none is kept when none is asked for.
    backup("1");
    backup("0");
    let begun = std::time::Instant::now();
    while contents(&cluster, &network.names()) > 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(120), "snapshots are left");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}
