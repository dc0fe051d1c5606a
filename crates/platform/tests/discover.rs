//! A first inventory of a real network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use fabkeep_platform::{Host, NodeState, Platform, Volume, discover};

#[test]
fn every_node_and_every_other_directory_of_a_network_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("network-small");
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &root).unwrap();
    let found = discover(&root, folder.path()).unwrap();
    assert_eq!(found.remarks, []);
    let host = Host::new(&found.inventory, folder.path()).unwrap();
    let nodes: Vec<String> = host.network().nodes().map(|node| format!("{} {}", node.id, node.role)).collect();
    assert_eq!(
        nodes,
        [
            "OrdererOrg/orderer1 orderer",
            "OrdererOrg/orderer2 orderer",
            "OrdererOrg/orderer3 orderer",
            "OrdererOrg/files files",
            "Org1/peer0 peer",
            "Org1/peer1 peer",
            "Org1/ca ca",
            "Org1/files files",
            "Org2/peer0 peer",
            "Org2/peer1 peer",
            "Org2/ca ca",
            "Org2/files files",
            "network/files files",
        ]
    );
    // Every file of the network is in exactly one directory.
    let mut captured = 0;
    for node in host.network().nodes() {
        assert_eq!(host.state(&node.id).unwrap(), NodeState::Stopped);
        for directory in &node.directories {
            let volume = host.volume(&node.id, directory).unwrap().unwrap();
            captured +=
                volume.list("").unwrap().iter().filter(|entry| entry.kind == fabkeep_platform::EntryKind::File).count();
        }
    }
    let all = fabkeep_platform::HostVolume::new(root).list("").unwrap();
    let all = all.iter().filter(|entry| entry.kind == fabkeep_platform::EntryKind::File).count();
    assert_eq!(captured, all);
}

#[test]
fn a_locked_database_means_a_running_node() {
    let folder = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, folder.path()).unwrap();
    let found = discover(folder.path(), folder.path()).unwrap();
    let host = Host::new(&found.inventory, folder.path()).unwrap();
    let peer = host.network().nodes().find(|node| node.id.to_string() == "Org1/peer0").unwrap().id.clone();
    let lock = std::fs::File::open(folder.path().join("Org1/peer0/production/ledgersData/fileLock/LOCK")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(host.state(&peer).unwrap(), NodeState::Running);
    drop(lock);
    assert_eq!(host.state(&peer).unwrap(), NodeState::Stopped);
}
