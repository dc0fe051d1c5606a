//! Files and folders beside the chains that are none of theirs: what would keep a restored node from starting is left out and told, what no
//! node looks at is no chain.

use std::fs;

use fabkeep_network::{Finding, Severity};

use super::absence::Place;
use super::{assert_found, assert_no_alarm, verdict};
use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;

const PEER_CHAIN: &str = "Org1/peer0/production/ledgersData/chains/chains/mychannel";
const ORDERER_CHAIN: &str = "OrdererOrg/orderer1/production/chains/mychannel";

#[test]
fn a_name_like_a_block_files_is_left_out_with_a_warning() {
    let place = Place::new();
    for chain in [PEER_CHAIN, ORDERER_CHAIN] {
        let node: String = chain.split('/').take(2).collect::<Vec<_>>().join("/");
        for name in ["blockfile_000000.bak", "blockfile_", "blockfile_000000~", "blockfile_1", "blockfile_0000001"] {
            let (made, findings) = place.after(&node, |bench| {
                fs::write(bench.network().join(chain).join(name), "").unwrap();
            });
            assert!(made, "{name}: {findings:#?}");
            assert_found(&findings, "B6", &node, &format!("mychannel/{name}"));
            let alarms: Vec<&Finding> = findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
            assert_eq!(alarms.len(), 1, "{name}: {alarms:#?}");
        }
    }
}

#[test]
fn a_restored_chain_has_block_files_alone() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for chain in [PEER_CHAIN, ORDERER_CHAIN] {
        let chain = bench.network().join(chain);
        fs::copy(chain.join("blockfile_000000"), chain.join("blockfile_000000.bak")).unwrap();
        fs::write(chain.join("notes"), "kept").unwrap();
        fs::create_dir(chain.join("blockfile_folder")).unwrap();
        fs::write(chain.join("blockfile_folder/blockfile_x"), "kept").unwrap();
    }
    bench.capture(&CaptureOptions::default()).unwrap();
    let restored = bench.restore_all().unwrap();
    for chain in [PEER_CHAIN, ORDERER_CHAIN] {
        assert!(restored.join(chain).join("blockfile_000000").exists());
        assert!(!restored.join(chain).join("blockfile_000000.bak").exists());
        // A node looks at files alone.
        assert!(restored.join(chain).join("notes").exists());
        assert!(restored.join(chain).join("blockfile_folder/blockfile_x").exists());
    }
}

#[test]
fn a_folder_beside_a_peers_chains_that_its_list_of_ledgers_does_not_name_is_no_chain() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let chains = bench.network().join("Org1/peer0/production/ledgersData/chains/chains");
    for name in ["lost+found", "notes"] {
        fs::create_dir(chains.join(name)).unwrap();
    }
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
}

#[test]
fn a_folder_beside_an_orderers_chains_that_nothing_knows_as_a_channel_is_no_lost_chain() {
    const ORDERER: &str = "OrdererOrg/orderer1";
    let place = Place::new();
    let chains = |bench: &Bench| bench.network().join("OrdererOrg/orderer1/production/chains");
    // A disk that is mounted there has one.
    let (made, findings) = place.after(ORDERER, |bench| fs::create_dir(chains(bench).join("lost+found")).unwrap());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
    // An orderer takes every folder for a channel, and removes one without blocks.
    let (made, findings) = place.after(ORDERER, |bench| fs::create_dir(chains(bench).join("oldchannel")).unwrap());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B1", ORDERER, "the orderer removes the folder when it starts");
    let lost = |bench: &Bench| fs::remove_file(chains(bench).join("mychannel/blockfile_000000")).unwrap();
    place.refused_after(ORDERER, lost, "B1", ORDERER, "contains no block file");
    // Its own log knows a channel that no other node has.
    let of_log = |bench: &Bench| {
        fs::create_dir(chains(bench).join("alone")).unwrap();
        let log = bench.network().join("OrdererOrg/orderer1/production/etcdraft/wal");
        super::copy(&log.join("mychannel"), &log.join("alone"));
    };
    place.refused_after(ORDERER, of_log, "B1", ORDERER, "chains/alone contains no block file");
}

#[test]
fn a_file_in_the_place_of_a_folder_that_the_node_makes_is_an_error() {
    let place = Place::new();
    for (node, folder) in [
        ("Org1/peer0", "ledgersData/fileLock"),
        ("Org1/peer0", "ledgersData/chains/index"),
        ("Org1/peer0", "externalbuilder"),
        ("OrdererOrg/orderer1", "index"),
    ] {
        let change = |bench: &Bench| {
            let path = bench.network().join(node).join("production").join(folder);
            let _ = fs::remove_dir_all(&path);
            fs::write(path, "x").unwrap();
        };
        place.refused_after(node, change, "K3", node, &format!("{folder} it is a file"));
    }
}
