//! Peers that come back beside others: with another peer's ledger, and after they were joined by snapshot.

use super::network::Network;

fn lose(network: &Network, peer: &str) {
    network.kill(&[peer]);
    std::fs::remove_dir_all(network.path().join(peer).join("production")).unwrap();
}

/// It starts, has what the others have, and takes part.
fn goes_on(network: &Network, peer: &str) {
    network.net("up", &[peer]);
    network.check();
    network.wait_until_accepted();
    network.transactions(&format!("with {peer}"), 20);
    network.check();
    network.backup(&["--quiesce", "wait"]);
}

pub fn takes_the_ledger_of_another(network: &Network) {
    let _scenario = network.also("a peer restored with the ledger of another peer");
    network.transactions("since", 20);
    lose(network, "Org2/peer1");
    let told = network.restore(&["--node", "Org2/peer1", "--ledger-from", "Org2/peer1=Org2/peer0", "--replace"]);
    assert!(told.contains("it gets the ledger of Org2/peer0"), "{told}");
    goes_on(network, "Org2/peer1");
}

/// A peer of a snapshot is captured with everything that it cannot rebuild, and does not go back to an earlier height.
pub fn joined_by_snapshot(network: &Network) {
    let _scenario = network.also("a peer that was joined by snapshot lost and restored");
    let peer = "Org1/peer1";
    let tls = network.path().join("Org1/peer0/tls/ca.crt").display().to_string();
    let at = ["--peerAddress", "127.0.0.1:18050", "--tlsRootCertFile", &tls];
    // Block 0 means the last one.
    network
        .net("peer", &[&["Org1/peer0", "snapshot", "submitrequest", "-c", "mychannel", "-b", "0"], &at[..]].concat());
    let snapshots = network.path().join("Org1/peer0/production/snapshots/completed/mychannel");
    let snapshot = network.wait_for("a snapshot", || Some(std::fs::read_dir(&snapshots).ok()?.next()?.unwrap().path()));
    lose(network, peer);
    network.net("up", &[peer]);
    network.net("peer", &[peer, "channel", "joinbysnapshot", "--snapshotpath", &snapshot.display().to_string()]);
    network.wait_for("the joined channel", || {
        let listed = network.net("peer", &[peer, "channel", "list"]);
        listed.lines().any(|line| line.trim() == "mychannel").then_some(())
    });
    let genesis = network.path().join("artifacts/settlement.block").display().to_string();
    network.net("peer", &[peer, "channel", "join", "-b", &genesis]);
    let package = network.path().join("chaincode/multi.tar.gz").display().to_string();
    network.net("peer", &[peer, "lifecycle", "chaincode", "install", &package]);
    network.check();
    network.transactions("behind the snapshot", 20);
    network.check();
    network.backup(&["--quiesce", "wait"]);
    network.refused(&["--replace", "--at-height", "mychannel=5", "--assume-stopped", peer], "joined by snapshot");
    lose(network, peer);
    network.restore(&["--node", peer, "--replace"]);
    goes_on(network, peer);
}
