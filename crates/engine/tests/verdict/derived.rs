//! Derived data that is captured all the same (`--include-derived`): what a peer would neither notice nor rebuild.

use std::fs;

use fabkeep_engine::CaptureOptions;
use fabkeep_network::Finding;

use super::{assert_found, assert_no_alarm, copy, verdict};
use crate::bench::{Bench, offset_of_block};

const STORES: &str = "production/ledgersData";

fn with_derived() -> CaptureOptions {
    CaptureOptions { include_derived: true, ..CaptureOptions::default() }
}

/// What is found with the derived data, and without.
fn both(change: impl Fn(&Bench)) -> [(bool, Vec<Finding>); 2] {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    change(&bench);
    [verdict(&bench, &with_derived()), verdict(&bench, &CaptureOptions::default())]
}

fn remove(bench: &Bench, peer: &str, stores: &[&str]) {
    for store in stores {
        fs::remove_dir_all(bench.network().join(peer).join(STORES).join(store)).unwrap();
    }
}

#[test]
fn stores_that_a_peer_does_not_rebuild_beside_its_state_are_missed() {
    for store in ["configHistory", "bookkeeper"] {
        let [(made, findings), without] = both(|bench| remove(bench, "Org1/peer0", &[store]));
        assert!(!made, "{store}: {findings:#?}");
        assert_found(&findings, "I2", "Org1/peer0", &format!("ledgersData/{store} it is missing, and the world state"));
        assert!(without.0, "{:#?}", without.1);
        assert_no_alarm(&without.1);
    }
    // Together with the state they are made again.
    let all = ["stateLeveldb", "configHistory", "bookkeeper", "historyLeveldb", "chains/index"];
    for (made, findings) in both(|bench| remove(bench, "Org1/peer0", &all)) {
        assert!(made, "{findings:#?}");
        assert_no_alarm(&findings);
    }
}

#[test]
fn the_state_of_another_organizations_peer_is_an_error() {
    let swap = |from: &'static str| {
        move |bench: &Bench| {
            remove(bench, "Org1/peer0", &["stateLeveldb"]);
            let store = |peer: &str| bench.network().join(peer).join(STORES).join("stateLeveldb");
            copy(&store(from), &store("Org1/peer0"));
        }
    };
    let [(made, findings), without] = both(swap("Org2/peer0"));
    assert!(!made, "{findings:#?}");
    assert_found(&findings, "I2", "Org1/peer0 mychannel", "belongs to a peer of Org2MSP");
    assert!(without.0, "{:#?}", without.1);
    assert_no_alarm(&without.1);
    // Peers of one organization have the same.
    for (made, findings) in both(swap("Org1/peer1")) {
        assert!(made, "{findings:#?}");
        assert_no_alarm(&findings);
    }
}

#[test]
fn a_history_that_is_ahead_of_the_blocks_is_an_error() {
    let [(made, findings), without] = both(|bench| {
        let chain = bench.network().join("Org1/peer0").join(STORES).join("chains/chains/mychannel/blockfile_000000");
        let end = offset_of_block(&chain, 20);
        fs::File::options().write(true).open(chain).unwrap().set_len(end).unwrap();
        remove(bench, "Org1/peer0", &["chains/index", "stateLeveldb", "configHistory", "bookkeeper"]);
    });
    assert!(!made, "{findings:#?}");
    assert_found(&findings, "I2", "Org1/peer0 mychannel", "the history database has height 27, the block store 20");
    assert!(without.0, "{:#?}", without.1);
    assert_found(&without.1, "I2", "Org1/peer0 mychannel", "the history database has height 27, the block store 20");
}
