//! Links that lead to nothing, or around in a circle: for a node nothing is there.

use std::fs;
use std::os::unix::fs::symlink;

use super::absence::Place;
use super::{assert_no_alarm, verdict};
use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;

/// Puts a link in the place of a file.
fn replaced(bench: &Bench, path: &str, target: &str) {
    let path = bench.network().join(path);
    fs::remove_file(&path).unwrap();
    symlink(target, &path).unwrap();
}

#[test]
fn a_link_to_nothing_in_the_place_of_a_file_that_a_node_needs_is_as_if_it_were_missing() {
    let place = Place::new();
    for (path, rule) in [
        ("Org1/peer0/config/core.yaml", "K3"),
        ("Org1/peer0/tls/ca.crt", "I5"),
        ("OrdererOrg/orderer1/config/orderer.yaml", "K3"),
        ("OrdererOrg/orderer1/tls/ca.crt", "I5"),
        ("Org1/ca/fabric-ca-server-config.yaml", "C5"),
        ("Org1/ca/IssuerPublicKey", "C5"),
        ("Org1/ca/IssuerRevocationPublicKey", "C5"),
        ("Org1/ca/msp/keystore/IssuerSecretKey", "C5"),
        ("Org1/ca/msp/keystore/IssuerRevocationPrivateKey", "C5"),
    ] {
        let node: String = path.split('/').take(2).collect::<Vec<_>>().join("/");
        let name = path.rsplit('/').next().unwrap();
        for target in ["nowhere.gone", name, "gone/deeper"] {
            place.refused_after(&node, |bench| replaced(bench, path, target), rule, &node, name);
        }
    }
}

#[test]
fn a_link_to_nothing_in_the_place_of_a_nodes_own_folder_is_an_error() {
    let place = Place::new();
    for path in [
        "Org1/peer0/production/snapshots",
        "Org1/peer0/production/ledgersData/bookkeeper",
        "OrdererOrg/orderer1/production/pendingops",
        "OrdererOrg/orderer1/production/etcdraft/snapshot",
    ] {
        let node: String = path.split('/').take(2).collect::<Vec<_>>().join("/");
        let name = path.rsplit('/').next().unwrap();
        let change = |bench: &Bench| {
            let path = bench.network().join(path);
            let _ = fs::remove_dir_all(&path);
            symlink("gone", &path).unwrap();
        };
        place.refused_after(&node, change, "K3", &node, &format!("{name} it is a link that leads to nothing"));
    }
}

#[test]
fn links_that_lead_to_a_file_beside_them_are_that_file() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let moved = |path: &str, to: &str, target: &str| {
        let (path, to) = (bench.network().join(path), bench.network().join(to));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(&path, &to).unwrap();
        symlink(target, &path).unwrap();
    };
    moved("Org1/peer0/config/core.yaml", "Org1/peer0/config/versions/2/core.yaml", "current/core.yaml");
    symlink("versions/2", bench.network().join("Org1/peer0/config/current")).unwrap();
    moved("Org1/ca/IssuerPublicKey", "Org1/ca/keys/IssuerPublicKey", "keys/IssuerPublicKey");
    moved("OrdererOrg/orderer1/tls/ca.crt", "OrdererOrg/orderer1/tls/root.pem", "root.pem");
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
    let restored = bench.restore_all().unwrap();
    assert!(fs::read(restored.join("Org1/peer0/config/core.yaml")).is_ok_and(|bytes| !bytes.is_empty()));
    assert!(restored.join("Org1/ca/IssuerPublicKey").exists());
}
