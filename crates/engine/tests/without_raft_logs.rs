//! Recovery points without raft logs: they were checked, the chain is enough for all orderers together, and nothing else is promised.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::path::Path;

use bench::Bench;
use fabkeep_engine::{
    CaptureOptions, Captured, Consistency, EngineError, GoBack, RaftSource, RestoreOptions, VerifyLevel,
};
use fabkeep_fixtures::Growth;
use fabkeep_ledger::raft::{FIRST_LOG_FILE, check_wal_directory, newest_snapshot};
use fabkeep_network::Severity;

const CHANNELS: [&str; 2] = ["mychannel", "settlement"];

fn without() -> CaptureOptions {
    CaptureOptions { without_raft_logs: true, ..CaptureOptions::default() }
}

/// Files of raft and SmartBFT logs and of raft snapshots in a recovery point.
fn stored_logs(captured: &Captured) -> Vec<String> {
    let entries = captured.point.nodes.iter().flat_map(|node| &node.directories).flat_map(|known| &known.entries);
    let ends = [".wal", ".snap"];
    entries.map(|entry| entry.path.clone()).filter(|path| ends.iter().any(|end| path.ends_with(end))).collect()
}

fn assert_refused(restored: Result<fabkeep_engine::Restored, EngineError>, orderer: &str) {
    let Err(EngineError::Precondition(findings)) = restored else { panic!("{restored:?}") };
    let found = findings.iter().find(|finding| finding.rule.code() == "O6").unwrap_or_else(|| panic!("{findings:?}"));
    assert!(found.subject.starts_with(orderer), "{found:?}");
    assert!(found.what.contains("without raft logs"), "{found:?}");
    let remedy = format!("{:?}", found.remedy);
    assert!(remedy.contains("Replicate") && remedy.contains(orderer.rsplit('/').next().unwrap()), "{found:?}");
}

#[test]
fn all_orderers_come_back_with_raft_state_of_their_chain() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let whole = bench.capture(&CaptureOptions { reread: true, ..CaptureOptions::default() }).unwrap();
    assert!(!stored_logs(&whole).is_empty() && whole.point.without_logs.is_empty());
    let captured = bench.capture(&without()).unwrap();
    assert_eq!(stored_logs(&captured), Vec::<String>::new());
    assert_eq!(captured.point.without_logs, CHANNELS);
    assert!(captured.point.findings.iter().all(|finding| finding.severity == Severity::Note));
    // What was checked is known.
    let facts = |captured: &Captured| {
        format!("{:?}", captured.point.nodes.iter().map(|node| &node.facts.raft).collect::<Vec<_>>())
    };
    assert_eq!(facts(&whole), facts(&captured));
    bench.verify(VerifyLevel::Full).unwrap();

    bench.restore_below("restored", &RestoreOptions::default()).unwrap();
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        for channel in CHANNELS {
            let etcdraft = bench.path("restored/OrdererOrg").join(orderer).join("production/etcdraft");
            let log = check_wal_directory(&etcdraft.join("wal").join(channel), |_, _| {}).unwrap();
            let snapshot = newest_snapshot(&etcdraft.join("snapshot").join(channel)).unwrap().unwrap();
            assert_eq!((log.files, log.commit), (1, snapshot.index), "{orderer} {channel}");
        }
    }
    // In place, and the next recovery points of it are as complete as all others.
    bench.restore(&RestoreOptions { replace: true, ..RestoreOptions::default() }).unwrap();
    let again = bench.capture(&CaptureOptions::default()).unwrap();
    assert!(!stored_logs(&again).is_empty() && again.point.without_logs.is_empty());
    let heights = vec!["mychannel=20".parse().unwrap()];
    bench.capture(&without()).unwrap();
    let go_back = GoBack { heights, before: None };
    bench.restore_below("earlier", &RestoreOptions { go_back, ..RestoreOptions::default() }).unwrap();
    let earlier = bench.path("earlier/OrdererOrg/orderer1/production");
    assert_eq!(bench::height(&earlier.join("chains/mychannel")), 20);
    let snapshot = newest_snapshot(&earlier.join("etcdraft/snapshot/mychannel")).unwrap().unwrap();
    assert_eq!(snapshot.block, Some(19));
}

#[test]
fn what_needs_a_captured_log_is_refused_with_the_way_out() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&without()).unwrap();
    let one = "OrdererOrg/orderer2".to_owned();
    let as_captured = RestoreOptions { raft_state: RaftSource::Captured, ..RestoreOptions::default() };
    assert_refused(bench.restore_below("captured", &as_captured), "OrdererOrg/orderer1");
    let alone = RestoreOptions { nodes: vec![one.clone()], ..RestoreOptions::default() };
    assert_refused(bench.restore_below("alone", &alone), &one);
    assert!(!bench.path("captured").exists() && !bench.path("alone").exists());
    bench.restore_below("empty", &RestoreOptions { replicate: vec![one], ..alone }).unwrap();
    // Orderers at other heights are levelled by the chain, and not by logs that are not there.
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(3, 2).unwrap();
    bench.capture(&without()).unwrap();
    assert_refused(bench.restore_below("captured", &as_captured), "OrdererOrg/orderer1");
}

#[test]
fn smartbft_orderers_come_back_with_empty_logs() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    for consistency in [Consistency::AsRead, Consistency::Cut { fallback: None }] {
        let captured = bench.capture(&CaptureOptions { consistency, ..without() }).unwrap();
        assert_eq!(stored_logs(&captured), Vec::<String>::new());
        let to = if bench.path("restored").exists() { "cut" } else { "restored" };
        bench.restore_below(to, &RestoreOptions::default()).unwrap();
        for orderer in ["orderer1", "orderer2", "orderer3", "orderer4"] {
            let logs = bench.path(to).join("OrdererOrg").join(orderer).join("production/etcdraft/wal/mychannel");
            let sizes: Vec<u64> =
                std::fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
            assert_eq!(sizes, [16], "{}", logs.display());
        }
        let alone = RestoreOptions { nodes: vec!["OrdererOrg/orderer1".to_owned()], ..RestoreOptions::default() };
        assert_refused(bench.restore_below("alone", &alone), "OrdererOrg/orderer1");
    }
}

#[test]
fn a_cut_without_raft_logs_is_restored_from_the_chain() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let cut = || CaptureOptions { consistency: Consistency::Cut { fallback: None }, ..without() };
    let captured = bench.capture(&cut()).unwrap();
    assert_eq!((stored_logs(&captured), captured.point.without_logs.len()), (Vec::new(), 2));
    bench.restore_below("restored", &RestoreOptions::default()).unwrap();
    let as_captured = RestoreOptions { raft_state: RaftSource::Captured, ..RestoreOptions::default() };
    assert_refused(bench.restore_below("captured", &as_captured), "OrdererOrg/orderer1");
}

/// Logs that nothing could create are stored in spite of the option.
#[test]
fn logs_that_a_restore_could_not_create_are_stored() {
    let told = |captured: &Captured, channel: &str, part: &str| {
        let notes =
            captured.point.findings.iter().filter(|finding| finding.rule.code() == "O6" && finding.subject == channel);
        let notes: Vec<_> = notes.collect();
        assert!(notes.len() == 1 && notes[0].what.contains(part), "{notes:?}");
    };
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().without_consenters().grow(1, 2).unwrap();
    let captured = bench.capture(&without()).unwrap();
    assert_eq!(captured.point.without_logs, ["settlement"]);
    assert!(!stored_logs(&captured).is_empty());
    assert!(stored_logs(&captured).iter().all(|path| path.contains("mychannel")), "{:?}", stored_logs(&captured));
    told(&captured, "mychannel", "stored although");
    told(&captured, "settlement", "checked and are not stored");
    bench.restore_below("restored", &RestoreOptions::default()).unwrap();
    let log = Path::new("OrdererOrg/orderer1/production/etcdraft/wal/mychannel").join(FIRST_LOG_FILE);
    assert!(
        std::fs::read(bench.network().join(&log)).unwrap() == std::fs::read(bench.path("restored").join(&log)).unwrap()
    );

    // A consenter that is not captured may remember what these have told it.
    let exclude = vec!["OrdererOrg/orderer3".to_owned()];
    let captured = bench.capture(&CaptureOptions { exclude, ..without() }).unwrap();
    assert!(captured.point.without_logs.is_empty() && !stored_logs(&captured).is_empty());
    told(&captured, "settlement", "the channel has 3");
    bench.restore_below("two", &RestoreOptions::default()).unwrap();
}

/// That a log is not stored does not mean that it is not looked at.
#[test]
fn a_damaged_log_refuses_the_backup_also_where_it_is_not_stored() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let log = bench.network().join("OrdererOrg/orderer1/production/etcdraft/wal/mychannel").join(FIRST_LOG_FILE);
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    match bench.capture(&without()) {
        Err(EngineError::Refused(findings)) => {
            assert!(findings.iter().any(|finding| finding.rule.code() == "B5"), "{findings:?}");
        }
        other => panic!("{other:?}"),
    }
}
