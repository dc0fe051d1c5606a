//! One raft orderer with its captured raft state beside others that went on: they are restarted first.

use super::network::{Consensus, Network};
use super::peers;

/// A follower is lost after its leader has learned of later entries of it.
pub fn comes_back_older(network: &Network) {
    let _scenario = network.also("one orderer restored with its captured raft log, every other one restarted first");
    network.with_commands();
    network.backup(&["--quiesce", "wait"]);
    network.transactions("later", 20);
    let lost = network.follower("mychannel");
    network.kill(&[&lost]);
    std::fs::remove_dir_all(network.path().join(&lost).join("production")).unwrap();
    network.refused(&["--node", &lost, "--replace"], "--restart-others");
    let told = network.restore(&["--node", &lost, "--replace", "--restart-others", "--start"]);
    let mut others = (1..=3).map(|number| format!("OrdererOrg/orderer{number}")).filter(|id| *id != lost);
    assert!(others.all(|other| told.contains(&format!("restart {other}, and wait"))), "{told}");
    assert!(told.contains(&format!("started: {lost}")), "{told}");
    network.wait_until_accepted();
    network.transactions("with all orderers", 20);
    network.check();
    network.backup(&["--quiesce", "wait"]);
}

#[test]
fn nodes_of_3_1_come_back_one_by_one_beside_the_others() {
    let scenario = "one orderer and two peers restored one by one in a living network";
    let Some(network) = Network::start("3.1", Consensus::Raft, "beside", scenario) else { return };
    comes_back_older(&network);
    peers::takes_the_ledger_of_another(&network);
    peers::joined_by_snapshot(&network);
}
