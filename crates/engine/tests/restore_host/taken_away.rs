//! Data that is there and that the recovery point has not: it is not taken away unless that is asked for.

use base64::Engine;
use fabkeep_engine::{CaptureOptions, RestoreOptions, Silent};
use fabkeep_fixtures::Growth;

use super::place::{Place, refused, tree};

fn reported(findings: &[fabkeep_network::Finding]) -> String {
    let of_rule = findings.iter().filter(|finding| finding.rule.code() == "B11");
    of_rule.map(|finding| format!("{}: {}\n", finding.subject, finding.what)).collect()
}

#[test]
fn a_channel_a_store_a_key_and_blocks_that_only_the_node_has_are_not_taken_away() {
    let place = Place::new(&["Org1/peer0"]);
    let production = place.path("Org1/peer0/production");
    let chains = production.join("ledgersData/chains/chains");
    std::fs::create_dir(chains.join("newchannel")).unwrap();
    std::fs::copy(chains.join("mychannel/blockfile_000000"), chains.join("newchannel/blockfile_000000")).unwrap();
    let key = place.path("Org1/peer1/tls/server.key");
    std::fs::copy(&key, place.path("Org1/peer0/tls/newer.key")).unwrap();
    // Keys of other forms: DER, and idemix.
    let pem = std::fs::read_to_string(key).unwrap();
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(lines).unwrap();
    std::fs::write(place.path("Org1/peer0/tls/newer.der"), der).unwrap();
    std::fs::write(place.path("Org1/peer0/msp/keystore/IssuerSecretKey"), b"a secret").unwrap();
    let before = tree(&place.bench.network());
    let findings = refused(place.restore(&place.options(), &Silent));
    let said = reported(&findings);
    for lost in ["channel newchannel", "key newer.key", "key newer.der", "key keystore/IssuerSecretKey"] {
        assert!(said.contains(lost), "{lost} in {said}");
    }
    assert_eq!(tree(&place.bench.network()), before);
    let overridden = RestoreOptions { overrides: vec!["B11".to_owned()], ..place.options() };
    let restored = place.restore(&overridden, &Silent).unwrap();
    assert!(restored.findings.iter().any(|finding| finding.rule.code() == "B11"));
    let record: Vec<_> = super::place::named(&place.bench.network(), ".overridden");
    assert!(std::fs::read_to_string(&record[0]).unwrap().contains("newchannel"));
}

#[test]
fn a_point_without_stores_does_not_empty_nodes_that_have_them() {
    let place = Place::new(&[]);
    // As a recovery point of nodes that had lost their data.
    let lost = ["Org1/peer0/production", "OrdererOrg/orderer1/production"];
    for path in lost {
        std::fs::rename(place.path(path), place.path(&format!("{path}.lost"))).unwrap();
    }
    let captured = place.bench.capture(&CaptureOptions::default());
    for path in lost {
        let _ = std::fs::remove_dir_all(place.path(path));
        std::fs::rename(place.path(&format!("{path}.lost")), place.path(path)).unwrap();
    }
    if captured.is_err() {
        // Such a point is refused at its capture.
        return;
    }
    let before = tree(&place.bench.network());
    let findings = refused(place.restore(&place.options(), &Silent));
    assert!(!findings.is_empty());
    assert_eq!(tree(&place.bench.network()), before);
}

#[test]
fn blocks_that_no_node_that_stays_has_are_not_given_up_and_those_that_one_has_are() {
    let place = Place::new(&[]);
    Growth::open(&place.bench.network(), "mychannel").unwrap().grow(5, 2).unwrap();
    let findings = refused(place.restore(&place.options(), &Silent));
    let said = reported(&findings);
    assert!(said.contains("mychannel has height") && said.contains("no node that is not restored"), "{said}");
    // One peer alone: the others keep the blocks.
    let alone = Place { nodes: vec!["Org1/peer0".to_owned()], ..place };
    let restored = alone.restore(&alone.options(), &Silent).unwrap();
    let said = reported(&restored.findings);
    assert!(said.contains("which is not restored, has these blocks"), "{said}");
}
