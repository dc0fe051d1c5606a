//! Stores of different histories on one node, and nodes of different networks.

use std::fs;

use super::{assert_found, assert_no_alarm, assert_refused, copy, replace, verdict};
use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;
use fabkeep_fixtures::Growth;

const WAL: &str = "production/etcdraft/wal/settlement";

/// A channel's first life: the same beginning, other blocks behind it.
fn first_life() -> Bench {
    let first = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&first.network(), "settlement").unwrap().grow(30, 3).unwrap();
    first
}

#[test]
fn a_raft_log_of_the_channels_first_life_is_found_on_one_orderer_and_on_all() {
    let first = first_life();
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "settlement").unwrap().grow(10, 2).unwrap();
    let stale = |orderer: &str| {
        let node = format!("OrdererOrg/{orderer}");
        replace(&first.network().join(&node).join(WAL), &bench.network().join(&node).join(WAL));
    };
    stale("orderer1");
    assert_refused(&bench, "I3", "OrdererOrg/orderer1 settlement", "an earlier existence of the channel");
    stale("orderer2");
    stale("orderer3");
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(!made);
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        assert_found(&findings, "I3", &format!("OrdererOrg/{orderer} settlement"), "an earlier existence");
    }
}

#[test]
fn a_stale_raft_log_is_found_after_an_earlier_point_too() {
    let first = first_life();
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "settlement").unwrap().grow(10, 2).unwrap();
    bench.capture(&CaptureOptions::default()).unwrap();
    replace(
        &first.network().join("OrdererOrg/orderer3").join(WAL),
        &bench.network().join("OrdererOrg/orderer3").join(WAL),
    );
    assert_refused(&bench, "I3", "OrdererOrg/orderer3 settlement", "an earlier existence");
}

#[test]
fn a_raft_snapshot_of_another_life_is_found() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let other = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for (network, transactions) in [(&bench, 2), (&other, 3)] {
        let mut growth = Growth::open(&network.network(), "settlement").unwrap();
        growth.grow(10, transactions).unwrap();
        growth.compact().unwrap();
    }
    let snapshots = "OrdererOrg/orderer2/production/etcdraft/snapshot/settlement";
    replace(&other.network().join(snapshots), &bench.network().join(snapshots));
    assert_refused(&bench, "I3", "OrdererOrg/orderer2 settlement", "snapshot at index");
}

#[test]
fn entries_that_a_later_leader_overwrote_are_no_contradiction() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(12, 2).unwrap();
    growth.compact().unwrap();
    growth.grow(5, 1).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made);
    assert_no_alarm(&findings);
}

#[test]
fn a_peer_with_the_chain_of_another_network_of_the_same_names_is_named() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let other = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    replace(&other.network().join("Org2/peer1/production"), &bench.network().join("Org2/peer1/production"));
    assert_refused(&bench, "I4", "Org2/peer1 mychannel", "forks at block 0");
}

#[test]
fn an_index_of_another_chain_is_reported() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let other = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let index = "production/ledgersData/chains/index";
    // The index of a peer whose blocks lie at other places.
    let chain = "production/ledgersData/chains/chains/mychannel/blockfile_000000";
    let place = |node: &str| crate::bench::offset_of_block(&other.network().join(node).join(chain), 26);
    let other_node =
        ["Org1/peer1", "Org2/peer0", "Org2/peer1"].into_iter().find(|node| place(node) != place("Org1/peer0"));
    let Some(other_node) = other_node else { return };
    replace(&other.network().join(other_node).join(index), &bench.network().join("Org1/peer0").join(index));
    let (_, findings) = verdict(&bench, &CaptureOptions::default());
    assert_found(&findings, "P5", "Org1/peer0 mychannel", "block index belongs to another chain");
}

#[test]
fn a_smartbft_log_in_a_raft_channel_is_no_log_of_it() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let other = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    let wal = "OrdererOrg/orderer1/production/etcdraft/wal/mychannel";
    replace(&other.network().join(wal), &bench.network().join(wal));
    assert_refused(&bench, "I3", "OrdererOrg/orderer1 mychannel", "SmartBFT");
}

#[test]
fn an_orderer_with_anothers_identity_is_no_second_consenter() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let identity = |name: &str| bench.network().join("OrdererOrg").join(name).join("tls");
    replace(&identity("orderer2"), &identity("orderer1"));
    assert_refused(&bench, "O7", "OrdererOrg/orderer2 mychannel", "same TLS key");
}

#[test]
fn a_private_data_store_of_another_organizations_peer_is_reported() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let store = "production/ledgersData/pvtdataStore";
    let other = bench.path("store");
    copy(&bench.network().join("Org2/peer0").join(store), &other);
    replace(&other, &bench.network().join("Org1/peer0").join(store));
    assert_refused(&bench, "I2", "Org1/peer0 mychannel", "private-data store");
}

#[test]
fn an_identity_of_another_network_is_found() {
    let (bench, other) = (Bench::new(fabkeep_fixtures::NETWORK_SMALL), Bench::new(fabkeep_fixtures::NETWORK_BFT));
    for node in ["Org1/peer0", "OrdererOrg/orderer1"] {
        let msp = bench.network().join(node).join("msp");
        fs::remove_dir_all(&msp).unwrap();
        super::copy(&other.network().join(node).join("msp"), &msp);
    }
    for node in ["Org1/peer0", "OrdererOrg/orderer1"] {
        assert_refused(&bench, "I5", &format!("{node} mychannel"), "the identity belongs to another network");
    }
}

#[test]
fn a_certificate_authority_that_lost_its_issuers_keys_is_compared_with_what_it_had() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let home = bench.network().join("Org1/ca");
    for name in [
        "IssuerPublicKey",
        "IssuerRevocationPublicKey",
        "msp/keystore/IssuerSecretKey",
        "msp/keystore/IssuerRevocationPrivateKey",
    ] {
        fs::remove_file(home.join(name)).unwrap();
    }
    assert_refused(&bench, "C5", "Org1/ca", "idemix issuer");
}

/// Real orderers write blocks that change the consenters with the raft index of the block before, also when several follow each other.
#[test]
fn blocks_with_the_raft_index_of_the_block_before_them_are_no_other_history() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), "settlement").unwrap();
    growth.grow(5, 2).unwrap();
    let quiet = |what: &str| {
        for reread in [false, false, true] {
            let (made, findings) = verdict(&bench, &CaptureOptions { reread, ..CaptureOptions::default() });
            let alarms: Vec<_> = findings.iter().filter(|finding| finding.rule.code() == "I3").collect();
            assert!(made && alarms.is_empty(), "{what}: {findings:?}");
        }
    };
    quiet("before");
    for block in ["first", "second"] {
        growth.inherit_index();
        growth.grow(1, 1).unwrap();
        quiet(block);
    }
    growth.grow(3, 2).unwrap();
    quiet("behind");
    growth.compact().unwrap();
    quiet("compacted");
}

#[test]
fn the_identity_of_another_organizations_peer_is_found_by_its_roots_where_no_configuration_names_the_msp() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let (own, other) = (bench.network().join("Org1/peer0"), bench.network().join("Org2/peer0"));
    fs::remove_dir_all(own.join("config")).unwrap();
    let (_, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(!findings.iter().any(|finding| finding.rule.code() == "I2"), "{findings:?}");
    for folder in ["msp", "tls"] {
        replace(&other.join(folder), &own.join(folder));
    }
    assert_refused(&bench, "I2", "Org1/peer0 mychannel", "a peer of another organization");
}
