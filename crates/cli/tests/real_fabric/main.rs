//! Real Fabric nodes on restored data: the network starts, agrees, accepts transactions on every channel, and the next recovery point
//! of it is complete.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod heights;
mod network;
mod others;
mod peers;
mod pods;

use fabkeep_ledger::block_file::ChainReader;
use fabkeep_ledger::raft::{RaftState, newest_snapshot};
use network::{Consensus, Network};

/// A recovery point taken under load, everything lost by a crash, restored; and the same again from one of the restored network.
fn everything_lost_twice(version: &str, consensus: Consensus, name: &str, consistency: &str, raft_state: &str) {
    let scenario = format!(
        "captured under load ({consistency}), killed, everything lost, restored twice, raft state {raft_state}"
    );
    let Some(network) = Network::start(version, consensus, name, &scenario) else { return };
    let mut load = network.load("load", 400);
    network.backup(&["--consistency", consistency]);
    load.wait().unwrap();
    network.kill(&[]);
    for prefix in ["second", "third"] {
        network.lose_all_data();
        let told = network.restore(&["--replace", "--raft-state", raft_state]);
        let rebuilt = told.contains("raft state created from block");
        assert_eq!(rebuilt, consensus == Consensus::Raft && raft_state == "rebuilt", "{told}");
        // The chain is enough for what comes after a restore from the chain.
        network.goes_on(prefix, if raft_state == "rebuilt" { &["--without-raft-logs"] } else { &[] });
        network.kill(&[]);
    }
    if raft_state == "rebuilt" {
        network.refused(&["--replace", "--raft-state", "captured"], "captured without raft logs");
    }
}

#[test]
fn a_raft_network_of_2_5_goes_on_after_losing_everything() {
    everything_lost_twice("2.5", Consensus::Raft, "everything", "cut", "rebuilt");
}

/// Each node as it was when it was read: under load orderers are captured at different heights.
#[test]
fn a_raft_network_of_3_1_goes_on_after_losing_everything() {
    everything_lost_twice("3.1", Consensus::Raft, "everything", "as-read", "rebuilt");
}

#[test]
fn a_raft_network_goes_on_with_captured_logs_after_losing_everything() {
    everything_lost_twice("2.5", Consensus::Raft, "captured", "as-read", "captured");
}

#[test]
fn a_smartbft_network_goes_on_after_losing_everything() {
    everything_lost_twice("3.1", Consensus::SmartBft, "bft", "as-read", "rebuilt");
}

/// Back to heights in the middle, twice: once more from a recovery point of the network that went on from the first.
fn goes_back(version: &str, consensus: Consensus, name: &str) {
    let scenario = "restored to two thirds of every channel's height, twice";
    let Some(network) = Network::start(version, consensus, name, scenario) else { return };
    for prefix in ["second", "third"] {
        network.transactions(&format!("before the {prefix}"), 60);
        network.backup(&["--quiesce", "wait"]);
        network.kill(&[]);
        let back: Vec<String> = network
            .channels()
            .iter()
            .map(|channel| format!("{channel}={}", network.captured_height(channel) * 2 / 3))
            .collect();
        let mut arguments = vec!["--replace"];
        back.iter().for_each(|height| arguments.extend(["--at-height", height]));
        let told = network.restore(&arguments);
        assert!(told.contains("it goes back to height"), "{told}");
        network.goes_on(prefix, &[]);
    }
}

#[test]
fn a_raft_network_of_2_5_goes_back_to_earlier_heights() {
    goes_back("2.5", Consensus::Raft, "back");
}

#[test]
fn a_raft_network_of_3_1_goes_back_to_earlier_heights() {
    goes_back("3.1", Consensus::Raft, "back");
}

#[test]
fn a_smartbft_network_goes_back_to_earlier_heights() {
    goes_back("3.1", Consensus::SmartBft, "backbft");
}

#[test]
fn a_smartbft_network_goes_on_from_a_cut_after_losing_everything() {
    everything_lost_twice("3.1", Consensus::SmartBft, "bftcut", "cut", "rebuilt");
}

/// What is written from a block is what a real orderer writes when it takes a snapshot at that block.
fn snapshots_are_those_of_real_orderers(version: &str) {
    let scenario = "raft snapshots made from blocks equal those of orderers";
    let Some(network) = Network::start(version, Consensus::Raft, "snapshot", scenario) else { return };
    network.net("drive", &["mychannel", "mix", "400", "--prefix", "load"]);
    let mut compared = 0;
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        let production = network.path().join("OrdererOrg").join(orderer).join("production");
        let folder = production.join("etcdraft/snapshot/mychannel");
        let Some(real) = newest_snapshot(&folder).unwrap() else { continue };
        let mut reader = ChainReader::open(&production.join("chains/mychannel")).unwrap();
        while let Some(batch) = reader.next_batch(1 << 20, u64::MAX).unwrap() {
            let Some(span) = batch.blocks.iter().find(|span| Some(span.number) == real.block) else { continue };
            let state = RaftState::of_block(&batch.buffer[span.canonical.start..span.metadata.end], real.term).unwrap();
            assert_eq!(state.snapshot_file(), real.file);
            assert!(state.snapshot() == std::fs::read(folder.join(&real.file)).unwrap(), "{orderer} {real:?}");
            compared += 1;
        }
    }
    assert!(compared > 0, "no orderer took a snapshot");
}

#[test]
fn a_raft_snapshot_is_the_one_that_an_orderer_of_2_5_writes() {
    snapshots_are_those_of_real_orderers("2.5");
}

#[test]
fn a_raft_snapshot_is_the_one_that_an_orderer_of_3_1_writes() {
    snapshots_are_those_of_real_orderers("3.1");
}

/// One node of each role is lost while the others go on: a peer gets its captured data, an orderer comes back empty and replicates.
#[test]
fn one_peer_and_one_orderer_come_back_beside_the_others() {
    let scenario = "one peer, and one orderer that replicates, lost in a living network";
    let Some(network) = Network::start("2.5", Consensus::Raft, "one", scenario) else { return };
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
    others::comes_back_older(&network);
}
