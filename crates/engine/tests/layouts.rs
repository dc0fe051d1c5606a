//! Layouts beside the usual one: a ledger joined by snapshot, an orderer with its raft directories elsewhere, a node of data alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::fs;

use bench::{Bench, join_by_snapshot};
use fabkeep_engine::{CaptureOptions, EngineError, RestoreOptions, RestoreTarget, VerifyLevel};
use fabkeep_ledger::block_file::BOOTSTRAPPING_SNAPSHOT;
use fabkeep_platform::{Host, Inventory};

#[test]
fn a_ledger_joined_by_snapshot_is_kept_with_everything_it_cannot_rebuild() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let chain = bench.network().join("Org1/peer0/production/ledgersData/chains/chains/mychannel");
    join_by_snapshot(&chain, 12);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let peer = captured.point.nodes.iter().find(|node| node.facts.id.to_string() == "Org1/peer0").unwrap();
    assert_eq!((peer.facts.ledgers[0].first_block, peer.facts.ledgers[0].height), (12, 27));
    let data = peer.directories.iter().find(|directory| directory.directory.path.ends_with("production")).unwrap();
    let has = |name: &str| data.entries.iter().any(|entry| entry.path.starts_with(name) && entry.size() > 0);
    assert!(has("ledgersData/stateLeveldb/") && has("ledgersData/chains/index/") && has("ledgersData/configHistory/"));
    bench.verify(VerifyLevel::Full).unwrap();
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&captured.point, &restored);
    // A second backup goes on from there.
    let again = bench.capture(&CaptureOptions::default()).unwrap();
    assert_eq!((again.read_bytes, again.stats.objects), (0, 3));

    // What the snapshot says of the block before must hold.
    let info = chain.join(BOOTSTRAPPING_SNAPSHOT);
    let mut wrong = fs::read(&info).unwrap();
    wrong[6] ^= 1;
    fs::write(&info, wrong).unwrap();
    match bench.capture(&CaptureOptions { reread: true, ..CaptureOptions::default() }) {
        Err(EngineError::Refused(findings)) => assert!(findings[0].subject.contains("Org1/peer0"), "{findings:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_network_where_every_ledger_was_joined_by_snapshot_is_captured_from_there() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    fs::remove_dir_all(bench.network().join("OrdererOrg")).unwrap();
    for peer in ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"] {
        let chain = bench.network().join(peer).join("production/ledgersData/chains/chains/mychannel");
        join_by_snapshot(&chain, if peer == "Org2/peer1" { 18 } else { 15 });
    }
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    assert_eq!(captured.point.channels[0].first_block, 15);
    bench.verify(VerifyLevel::Full).unwrap();
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&captured.point, &restored);
}

#[test]
fn an_orderer_with_raft_directories_on_volumes_of_their_own_goes_back_to_them() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let orderer = bench.network().join("OrdererOrg/orderer1");
    let moved = [("wal", "raft-wal"), ("snapshot", "raft-snap")];
    for (from, to) in moved {
        fs::rename(orderer.join("production/etcdraft").join(from), bench.path(to)).unwrap();
    }
    let inventory: Inventory = {
        let file = bench.path("fabkeep.toml");
        let text = r#"
            network = "apart"
            [[organization]]
            name = "OrdererOrg"
            [[organization.node]]
            name = "orderer1"
            role = "orderer"
            [organization.node.directories]
            orderer-ledger = "network/OrdererOrg/orderer1/production"
            orderer-wal = "raft-wal"
            orderer-snapshots = "raft-snap"
            msp = "network/OrdererOrg/orderer1/msp"
            tls = "network/OrdererOrg/orderer1/tls"
        "#;
        fs::write(&file, text).unwrap();
        Inventory::read(&file).unwrap()
    };
    let host = Host::new(&inventory, bench.folder.path()).unwrap();
    let captured = bench.capture_from(&host, &CaptureOptions::default()).unwrap();
    assert_eq!(captured.point.nodes[0].facts.raft.len(), 2);
    let wal = bench.path("raft-wal/mychannel/0000000000000000-0000000000000000.wal");
    let before = fs::read(&wal).unwrap();
    fs::remove_dir_all(bench.path("raft-wal")).unwrap();
    fs::remove_dir_all(orderer.join("production")).unwrap();
    let options = RestoreOptions { replace: true, ..RestoreOptions::default() };
    let restored = bench.restore_to(&RestoreTarget::Host(&host), &options, &fabkeep_engine::Silent).unwrap();
    assert_eq!(fs::read(&wal).unwrap(), before);
    // What was as captured was left alone.
    assert!(restored.directories.iter().all(|directory| directory.set_aside.is_none()), "{restored:?}");

    // Without its log the orderer must not pass for complete (O6).
    fs::remove_dir_all(bench.path("raft-wal/mychannel")).unwrap();
    match bench.capture_from(&host, &CaptureOptions::default()) {
        Err(EngineError::Refused(findings)) => assert_eq!(findings[0].rule.code(), "O6"),
        other => panic!("{other:?}"),
    }
}

/// Orderers whose configuration names this directory for raft snapshots; none was taken yet.
fn with_snapshots_in(named: &str) -> Bench {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        let home = bench.network().join("OrdererOrg").join(orderer);
        let file = home.join("config/orderer.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let changed = text.replace("SnapDir: ../production/etcdraft/snapshot", &format!("SnapDir: {named}"));
        assert_ne!(changed, text);
        fs::write(&file, changed).unwrap();
        fs::remove_dir_all(home.join("production/etcdraft/snapshot")).unwrap();
    }
    bench
}

#[test]
fn a_made_raft_snapshot_lies_where_the_configuration_has_it() {
    let bench = with_snapshots_in("../production/etcdraft/wal");
    bench.capture(&CaptureOptions::default()).unwrap();
    bench.restore_below("restored", &RestoreOptions::default()).unwrap();
    let restored = bench.path("restored");
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        let raft = restored.join("OrdererOrg").join(orderer).join("production/etcdraft");
        let made = fs::read_dir(raft.join("wal/mychannel")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(made.into_iter().any(|name| name.to_string_lossy().ends_with(".snap")), "{orderer}");
        assert!(!raft.join("snapshot/mychannel").exists(), "{orderer}");
    }
}

#[test]
fn a_made_raft_snapshot_without_a_place_is_refused() {
    let bench = with_snapshots_in("../elsewhere");
    bench.capture(&CaptureOptions::default()).unwrap();
    let error = bench.restore_below("restored", &RestoreOptions::default()).unwrap_err();
    assert!(
        matches!(&error, EngineError::Precondition(findings) if findings[0].what.contains("raft snapshots")),
        "{error:?}"
    );
}

#[test]
fn a_file_current_outside_of_a_nodes_databases_is_a_file_as_any_other() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for folder in ["Org1/peer0/production/ledgersData/couchdbRedoLogs", "Org1/ca/old"] {
        fs::create_dir_all(bench.network().join(folder)).unwrap();
        fs::write(bench.network().join(folder).join("CURRENT"), "1.2.3").unwrap();
    }
    bench.capture(&CaptureOptions::default()).unwrap();
    let restored = bench.restore_all().unwrap();
    assert_eq!(fs::read_to_string(restored.join("Org1/ca/old/CURRENT")).unwrap(), "1.2.3");
}
