//! Real Fabric nodes on restored data: the network starts, agrees, accepts transactions on every channel, and the next recovery point
//! of it is complete.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod network;

use network::{Consensus, Network};

/// A cut under load, everything lost by a crash, restored; and the same again from a recovery point of the restored network.
fn everything_lost_twice(version: &str, name: &str) {
    let Some(network) = Network::start(version, Consensus::Raft, name) else { return };
    let mut load = network.load("load", 400);
    network.backup(&["--consistency", "cut"]);
    load.wait().unwrap();
    network.kill(&[]);
    network.lose_all_data();
    network.restore(&["--replace"]);
    network.goes_on("second");
    network.kill(&[]);
    network.lose_all_data();
    network.restore(&["--replace"]);
    network.goes_on("third");
}

#[test]
fn a_raft_network_of_2_5_goes_on_after_losing_everything() {
    everything_lost_twice("2.5", "everything");
}

#[test]
fn a_raft_network_of_3_1_goes_on_after_losing_everything() {
    everything_lost_twice("3.1", "everything");
}

#[test]
fn a_smartbft_network_goes_on_after_losing_everything() {
    let Some(network) = Network::start("3.1", Consensus::SmartBft, "bft") else { return };
    network.backup(&["--quiesce", "wait"]);
    network.kill(&[]);
    network.lose_all_data();
    network.restore(&["--replace"]);
    network.goes_on("second");
}

/// One node of each role is lost while the others go on: a peer gets its captured data, an orderer comes back empty and replicates.
#[test]
fn one_peer_and_one_orderer_come_back_beside_the_others() {
    let Some(network) = Network::start("2.5", Consensus::Raft, "one") else { return };
    network.backup(&["--quiesce", "wait"]);
    network.transactions("later", 20);
    network.kill(&["Org1/peer1"]);
    std::fs::remove_dir_all(network.path().join("Org1/peer1/production")).unwrap();
    network.restore(&["--node", "Org1/peer1", "--replace"]);
    network.net("up", &["Org1/peer1"]);
    network.check();

    network.kill(&["OrdererOrg/orderer2"]);
    std::fs::remove_dir_all(network.path().join("OrdererOrg/orderer2/production")).unwrap();
    network.restore(&["--node", "OrdererOrg/orderer2", "--replicate", "OrdererOrg/orderer2", "--replace"]);
    network.net("up", &["OrdererOrg/orderer2"]);
    // A leader that remembers what the orderer had would stop it.
    for other in ["OrdererOrg/orderer1", "OrdererOrg/orderer3"] {
        network.net("down", &[other]);
        network.net("up", &[other]);
    }
    network.wait_until_accepted();
    network.fabkeep(&["show", "--repo", "repository", "--identity", "keys/identity", "--genesis", "genesis"]);
    for channel in ["mychannel", "settlement"] {
        let block = format!("{}/genesis/{channel}.block", network.path().parent().unwrap().display());
        network.net("osnadmin", &["OrdererOrg/orderer2", "join", "--channelID", channel, "--config-block", &block]);
    }
    network.check();
    network.transactions("with the orderer", 20);
    network.check();
    network.backup(&["--quiesce", "wait"]);
}
