//! What a node of its role must have and has not.

use std::fs;

use super::{assert_found, assert_refused, verdict};
use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;
use fabkeep_network::Finding;
use fabkeep_platform::{Host, Inventory, discover};

/// A host whose inventory was written while everything was there.
fn written_before(bench: &Bench) -> Host {
    let found = discover(&bench.network(), bench.folder.path()).unwrap();
    let text = found.inventory.to_text().unwrap();
    fs::write(bench.path("fabkeep.toml"), text).unwrap();
    Host::new(&Inventory::read(&bench.path("fabkeep.toml")).unwrap(), bench.folder.path()).unwrap()
}

/// A network whose inventory was written while everything was there.
pub struct Place {
    bench: Bench,
    host: Host,
}

impl Place {
    pub fn new() -> Place {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        let host = written_before(&bench);
        Place { bench, host }
    }

    /// What a capture finds when `change` was done to a node's directory; it must be refused. The directory is as before then.
    pub fn refused_after(&self, of: &str, change: impl Fn(&Bench), rule: &str, node: &str, about: &str) {
        let (made, findings) = self.after(of, change);
        assert!(!made, "{rule} {node} {about}: a recovery point was made; {findings:#?}");
        assert_found(&findings, rule, node, about);
    }

    /// The same, whatever comes of it.
    pub fn after(&self, of: &str, change: impl Fn(&Bench)) -> (bool, Vec<Finding>) {
        let (here, aside) = (self.bench.network().join(of), self.bench.path("aside"));
        super::copy(&here, &aside);
        change(&self.bench);
        let judged = match self.bench.capture_from(&self.host, &CaptureOptions::default()) {
            Ok(captured) => (true, captured.point.findings),
            Err(fabkeep_engine::EngineError::Refused(findings)) => (false, findings),
            Err(error) => panic!("{error}"),
        };
        fs::remove_dir_all(&here).unwrap();
        fs::rename(&aside, &here).unwrap();
        judged
    }
}

/// The organization and node that a path lies in.
fn node_of(path: &str) -> String {
    path.split('/').take(2).collect::<Vec<_>>().join("/")
}

fn emptied(bench: &Bench, path: &str) {
    let path = bench.network().join(path);
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir_all(&path).unwrap();
}

#[test]
fn an_empty_data_directory_is_an_error_though_the_keys_are_there() {
    let place = Place::new();
    place.refused_after("Org1/peer0", |bench| emptied(bench, "Org1/peer0/production"), "K3", "Org1/peer0", "is empty");
    place.refused_after(
        "OrdererOrg/orderer1",
        |bench| emptied(bench, "OrdererOrg/orderer1/production"),
        "K3",
        "OrdererOrg/orderer1",
        "contains no chains",
    );
    place.refused_after("Org2/ca", |bench| emptied(bench, "Org2/ca"), "K3", "Org2/ca", "is empty");
    let frame = |bench: &Bench| {
        emptied(bench, "Org2/peer0/production");
        fs::create_dir_all(bench.network().join("Org2/peer0/production/ledgersData")).unwrap();
    };
    place.refused_after("Org2/peer0", frame, "K3", "Org2/peer0", "production");
    let locks = |bench: &Bench| {
        emptied(bench, "Org2/peer0/production");
        let folder = bench.network().join("Org2/peer0/production/ledgersData/ledgerProvider");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("LOCK"), "").unwrap();
    };
    place.refused_after("Org2/peer0", locks, "K3", "Org2/peer0", "production");
}

#[test]
fn all_orderers_emptied_at_once_are_all_named() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let host = written_before(&bench);
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        emptied(&bench, &format!("OrdererOrg/{orderer}/production"));
    }
    let Err(fabkeep_engine::EngineError::Refused(findings)) = bench.capture_from(&host, &CaptureOptions::default())
    else {
        panic!("a recovery point was made")
    };
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        assert_found(&findings, "K3", orderer, "production");
    }
}

#[test]
fn one_lost_store_of_several_is_an_error_with_its_path() {
    let place = Place::new();
    for (lost, rule, node, about) in [
        ("Org1/peer0/production/ledgersData/pvtdataStore", "I2", "Org1/peer0", "ledgersData/pvtdataStore"),
        ("Org1/peer0/production/ledgersData/ledgerProvider", "K3", "Org1/peer0", "ledgersData/ledgerProvider"),
        ("Org1/peer1/production/lifecycle", "K3", "Org1/peer1", "lifecycle/chaincodes"),
        ("Org1/peer0/production/ledgersData/chains/chains/settlement", "B1", "Org1/peer0", "settlement"),
        ("OrdererOrg/orderer1/production/chains/settlement", "I2", "OrdererOrg/orderer1", "settlement"),
        ("OrdererOrg/orderer2/production/etcdraft/wal/settlement", "O6", "OrdererOrg/orderer2", "settlement"),
        ("OrdererOrg/orderer2/production/etcdraft", "O6", "OrdererOrg/orderer2", "mychannel"),
        ("Org1/peer0/msp/cacerts", "I5", "Org1/peer0", "cacerts"),
        ("Org1/peer0/msp/signcerts", "I5", "Org1/peer0", "enrolment certificate"),
        ("Org1/peer0/msp/keystore", "I5", "Org1/peer0", "private key"),
        ("Org1/ca/msp/keystore", "C5", "Org1/ca", "private key"),
    ] {
        let remove = |bench: &Bench| fs::remove_dir_all(bench.network().join(lost)).unwrap();
        place.refused_after(&node_of(lost), remove, rule, node, about);
        place.refused_after(&node_of(lost), |bench| emptied(bench, lost), rule, node, about);
    }
    // Where the folder is there, the index beside it tells which chains are missing.
    let (lost, node) = ("OrdererOrg/orderer1/production/chains", "OrdererOrg/orderer1");
    let remove = |bench: &Bench| fs::remove_dir_all(bench.network().join(lost)).unwrap();
    place.refused_after(&node_of(lost), remove, "K3", node, "chains");
    place.refused_after(&node_of(lost), |bench| emptied(bench, lost), "I2", node, "chains/mychannel");
}

#[test]
fn a_lost_file_of_an_identity_is_an_error_with_its_path() {
    let place = Place::new();
    for (lost, rule, node, about) in [
        ("Org1/peer0/msp/config.yaml", "I5", "Org1/peer0", "config.yaml"),
        ("Org1/peer0/tls/server.crt", "I5", "Org1/peer0", "server.crt"),
        ("Org1/peer0/tls/server.key", "I5", "Org1/peer0", "server.key"),
        ("Org1/peer0/tls/ca.crt", "I5", "Org1/peer0", "ca.crt"),
        ("OrdererOrg/orderer1/tls/ca.crt", "I5", "OrdererOrg/orderer1", "ca.crt"),
        ("Org1/peer0/config/core.yaml", "K3", "Org1/peer0", "core.yaml"),
        ("Org1/ca/ca-cert.pem", "C5", "Org1/ca", "ca-cert.pem"),
        ("Org1/ca/fabric-ca-server.db", "C3", "Org1/ca", "fabric-ca-server.db"),
        ("Org1/ca/fabric-ca-server-config.yaml", "C5", "Org1/ca", "fabric-ca-server-config.yaml"),
    ] {
        let remove = |bench: &Bench| fs::remove_file(bench.network().join(lost)).unwrap();
        place.refused_after(&node_of(lost), remove, rule, node, about);
    }
}

#[test]
fn the_tls_certificate_of_a_ca_that_serves_tls_is_missed() {
    let place = Place::new();
    let remove = |bench: &Bench| {
        let home = bench.network().join("Org1/ca");
        let config = home.join("fabric-ca-server-config.yaml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("(default: false)\n  enabled: false", "(default: false)\n  enabled: true"))
            .unwrap();
        fs::remove_file(home.join("tls-cert.pem")).unwrap();
    };
    place.refused_after("Org1/ca", remove, "I5", "Org1/ca", "tls-cert.pem");
}

#[test]
fn an_empty_tls_directory_is_an_error() {
    let place = Place::new();
    place.refused_after(
        "OrdererOrg/orderer1",
        |bench| emptied(bench, "OrdererOrg/orderer1/tls"),
        "I5",
        "OrdererOrg/orderer1",
        "tls",
    );
}

#[test]
fn another_authoritys_certificate_is_not_the_cas_own() {
    let place = Place::new();
    let swap = |bench: &Bench| {
        fs::copy(bench.network().join("Org2/ca/ca-cert.pem"), bench.network().join("Org1/ca/ca-cert.pem")).unwrap();
    };
    place.refused_after("Org1/ca", swap, "C5", "Org1/ca", "private key");
}

#[test]
fn cacerts_that_did_not_issue_the_nodes_certificate_are_an_error() {
    let place = Place::new();
    let swap = |bench: &Bench| {
        let folder = bench.network().join("Org1/peer0/msp/cacerts");
        super::replace(&bench.network().join("Org2/peer0/msp/cacerts"), &folder);
    };
    place.refused_after("Org1/peer0", swap, "I5", "Org1/peer0", "was not issued by any of the CA certificates");
}

#[test]
fn a_channel_that_a_peers_other_stores_know_was_lost() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let data = bench.network().join("Org1/peer0/production/ledgersData");
    fs::remove_dir_all(data.join("chains/chains/settlement")).unwrap();
    fabkeep_fixtures::write_to_store(&data.join("ledgerProvider"), &[(b"ssettlement".to_vec(), None)]).unwrap();
    assert_refused(&bench, "I2", "Org1/peer0 settlement", "pvtdataStore");
}

#[test]
fn channels_that_a_node_had_in_the_earlier_point_and_has_no_more_are_missed() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    // What a peer makes that starts on an empty volume: the frame, no ledger.
    let data = bench.network().join("Org2/peer1/production");
    fs::remove_dir_all(data.join("ledgersData/chains/chains")).unwrap();
    fs::create_dir_all(data.join("ledgersData/chains/chains")).unwrap();
    for store in ["ledgersData/ledgerProvider", "ledgersData/pvtdataStore"] {
        for entry in fs::read_dir(data.join(store)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "log") {
                fs::write(path, "").unwrap();
            }
        }
    }
    for derived in ["stateLeveldb", "historyLeveldb", "configHistory", "bookkeeper", "chains/index"] {
        fs::remove_dir_all(data.join("ledgersData").join(derived)).unwrap();
    }
    assert_refused(&bench, "K3", "Org2/peer1", "2 channels");
    let (made, findings) = verdict(&bench, &CaptureOptions { reread: true, ..CaptureOptions::default() });
    assert!(made, "{findings:#?}");
    assert_found(&findings, "K3", "Org2/peer1 settlement", "other peers of its organization");
}

#[test]
fn a_ledger_joined_by_snapshot_must_have_what_it_cannot_rebuild() {
    for (lost, about) in [
        ("ledgersData/stateLeveldb", "stateLeveldb"),
        ("ledgersData/chains/index", "chains/index"),
        ("ledgersData/configHistory", "configHistory"),
        ("ledgersData/bookkeeper", "bookkeeper"),
    ] {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        let data = bench.network().join("Org1/peer0/production");
        crate::bench::join_by_snapshot(&data.join("ledgersData/chains/chains/mychannel"), 12);
        fs::remove_dir_all(data.join(lost)).unwrap();
        assert_refused(&bench, "P4", "Org1/peer0", about);
    }
    // A database that the peer's start has made anew is there, and knows nothing.
    for anew in ["historyLeveldb", "configHistory"] {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        let data = bench.network().join("Org1/peer0/production/ledgersData");
        crate::bench::join_by_snapshot(&data.join("chains/chains/mychannel"), 12);
        for entry in fs::read_dir(data.join(anew)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "log") {
                fs::write(path, "").unwrap();
            }
        }
        assert_refused(&bench, "P4", "Org1/peer0 mychannel", anew);
    }
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let chain = bench.network().join("Org1/peer0/production/ledgersData/chains/chains/mychannel");
    crate::bench::join_by_snapshot(&chain, 12);
    fs::remove_file(chain.join("bootstrappingSnapshot.info")).unwrap();
    assert_refused(&bench, "B1", "Org1/peer0 mychannel", "block 12");
}

#[test]
fn no_chaincode_package_on_any_peer_of_an_organization_that_has_approved_one_is_a_finding() {
    let removed = |peers: &[&str]| {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        for peer in peers {
            let production = bench.network().join(peer).join("production");
            for folder in ["lifecycle/chaincodes", "externalbuilder/builds"] {
                for entry in fs::read_dir(production.join(folder)).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
                }
            }
        }
        verdict(&bench, &CaptureOptions::default())
    };
    // Which of its peers endorse is an organization's choice.
    let (made, findings) = removed(&["Org1/peer0"]);
    assert!(made, "{findings:#?}");
    super::assert_no_alarm(&findings);
    let (made, findings) = removed(&["Org1/peer0", "Org1/peer1"]);
    assert!(made, "{findings:#?}");
    for peer in ["Org1/peer0", "Org1/peer1"] {
        assert_found(&findings, "K3", peer, "nor does that of any other captured peer of Org1MSP");
    }
    assert!(!findings.iter().any(|finding| finding.what.contains("Org2MSP")), "{findings:#?}");
}
