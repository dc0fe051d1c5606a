//! Attestations compared with nodes on a cluster.

use std::fs;
use std::path::{Path, PathBuf};

use fabkeep_fixtures::Growth;

use crate::scene::{Ended, Scene, ended};

/// The folders of this name below a folder.
fn folders(below: &Path, name: &str, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let path = entry.path();
        if path.ends_with(name) { out.push(path) } else { folders(&path, name, out) }
    }
}

fn verify(scene: &Scene) -> Ended {
    ended(&scene.on_cluster(&["attest", "verify", "statement", "-q"]).output().unwrap())
}

#[test]
fn nodes_on_a_cluster_agree_lag_or_fork() {
    let scene = Scene::new();
    // The other organization runs on hosts, and has made one block more.
    let other = scene.path("other");
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &other).unwrap();
    let attest = |file: &str| {
        let backup = ["backup", "--repo", "repository", "--writer", "keys/writer", "--root", "other", "-q"];
        assert_eq!(scene.run(&backup).code, 0);
        let attest = ["attest", "--repo", "repository", "--identity", "keys/identity", "--file", file, "-q"];
        let made = scene.run(&attest);
        assert_eq!(made.code, 0, "{}", made.text);
    };
    attest("statement");
    let agrees = verify(&scene);
    assert_eq!(agrees.code, 3, "{}", agrees.text);
    assert!(agrees.text.contains("nothing says whose key"), "{}", agrees.text);
    assert!(agrees.text.contains("6 of 6 chains agree"), "{}", agrees.text);

    fs::remove_file(scene.path("statement")).unwrap();
    Growth::open(&other, "settlement").unwrap().grow(1, 3).unwrap();
    attest("statement");
    let lags = verify(&scene);
    assert_eq!(lags.code, 3, "{}", lags.text);
    assert!(lags.text.contains("org1/peer0 settlement: it is 1 block behind"), "{}", lags.text);

    // The nodes' own ninth block is another one.
    Growth::open(&scene.network(), "settlement").unwrap().grow(1, 1).unwrap();
    let peer = scene.network().join("Org1/peer0/production/ledgersData/chains/chains/settlement");
    let orderer = scene.network().join("OrdererOrg/orderer1/production/chains/settlement");
    let mut replaced = 0;
    for node in &scene.nodes {
        let mut chains = Vec::new();
        folders(&scene.cluster.volume(&node.namespace(), &node.claim()), "chains/settlement", &mut chains);
        let from = if node.namespace() == "org1" { &peer } else { &orderer };
        for chain in chains {
            fs::copy(from.join("blockfile_000000"), chain.join("blockfile_000000")).unwrap();
            replaced += 1;
        }
    }
    assert_eq!(replaced, 3);
    let forked = verify(&scene);
    assert_eq!(forked.code, 7, "{}", forked.text);
    assert!(forked.text.contains("org1/peer0 settlement: the chain forks at block 8:"), "{}", forked.text);
    assert!(forked.text.contains("3 of 6 chains agree"), "{}", forked.text);
    assert!(
        scene
            .cluster
            .list("Pod", "")
            .iter()
            .all(|pod| pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] != "fabkeep")
    );
}
