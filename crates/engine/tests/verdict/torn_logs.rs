//! A raft log whose last record was being written is stored up to its last whole record.

use std::fs;
use std::path::PathBuf;

use super::{assert_found, assert_refused, data_of, write_sparse};
use crate::bench::{Bench, lock};
use fabkeep_engine::{CaptureOptions, VerifyLevel};
use fabkeep_fixtures::Growth;
use fabkeep_ledger::raft::{RecordKind, Wal, check_wal_directory};
use fabkeep_network::Severity;

const LOG: &str = "production/etcdraft/wal/mychannel/0000000000000000-0000000000000000.wal";

fn log(bench: &Bench, orderer: &str) -> PathBuf {
    bench.network().join("OrdererOrg").join(orderer).join(LOG)
}

/// Appends the beginning of an entry that is longer than two sectors: the frame says more than was written.
fn tear(path: &std::path::Path) -> usize {
    let len = fs::metadata(path).unwrap().len();
    let wal = Wal::parse("wal", data_of(path), &mut None).unwrap();
    let end = wal.bytes.len();
    let entry = wal
        .records
        .iter()
        .rev()
        .filter(|record| record.kind == RecordKind::Entry)
        .max_by_key(|record| record.end - record.start)
        .unwrap();
    let mut torn = wal.bytes.clone();
    torn.extend_from_within(entry.start..entry.start + (entry.end - entry.start) / 3);
    write_sparse(path, &torn, len);
    end
}

#[test]
fn a_torn_record_of_a_running_orderer_is_not_stored() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(3, 4).unwrap();
    let end = tear(&log(&bench, "orderer1"));
    let _lock = lock(&bench.network().join("OrdererOrg/orderer1/production/index/LOCK"));
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    assert_found(&captured.point.findings, "B5", "OrdererOrg/orderer1 mychannel", "last complete record");
    let note = captured.point.findings.iter().find(|finding| finding.rule.code() == "B5").unwrap();
    assert_eq!(note.severity, Severity::Note);
    bench.verify(VerifyLevel::Full).unwrap();
    let restored = bench.restore_all().unwrap().join("OrdererOrg/orderer1").join(LOG);
    assert_eq!(fs::metadata(&restored).unwrap().len(), fs::metadata(log(&bench, "orderer1")).unwrap().len());
    let summary = check_wal_directory(restored.parent().unwrap(), |_, wal| assert_eq!(wal.bytes.len(), end)).unwrap();
    assert_eq!(summary.torn, None);
    // Nor by a second capture that finds the file unchanged.
    bench.capture(&CaptureOptions::default()).unwrap();
    fs::remove_dir_all(bench.path("restored")).unwrap();
    let restored = bench.restore_all().unwrap().join("OrdererOrg/orderer1").join(LOG);
    assert_eq!(check_wal_directory(restored.parent().unwrap(), |_, _| {}).unwrap().torn, None);
}

#[test]
fn a_stopped_orderer_with_a_torn_log_is_warned_of() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    tear(&log(&bench, "orderer2"));
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    assert_found(&captured.point.findings, "B5", "OrdererOrg/orderer2 mychannel", "last complete record");
    assert!(captured.point.findings.iter().any(|finding| finding.severity == Severity::Warning));
}

#[test]
fn a_tail_that_reaches_back_over_committed_entries_is_an_error() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(6, 4).unwrap();
    let path = log(&bench, "orderer3");
    let len = fs::metadata(&path).unwrap().len();
    let wal = Wal::parse("wal", data_of(&path), &mut None).unwrap();
    let entry = wal.records.iter().rev().filter(|record| record.kind == RecordKind::Entry).nth(1).unwrap();
    write_sparse(&path, &wal.bytes[..entry.start + (entry.end - entry.start) / 2], len);
    assert_refused(&bench, "O3", "OrdererOrg/orderer3 mychannel", "the raft log ends at");
}

/// etcd begins to read with the last file whose name does not have a higher index than the newest snapshot.
#[test]
fn a_log_file_under_another_ones_name_is_an_error() {
    for (channel, name) in [
        ("settlement", "0000000000000001-0000000000000005.wal"),
        ("mychannel", "0000000000000000-0000000000000001.wal"),
    ] {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        let folder = bench.network().join("OrdererOrg/orderer1/production/etcdraft/wal").join(channel);
        fs::rename(folder.join("0000000000000000-0000000000000000.wal"), folder.join(name)).unwrap();
        assert_refused(&bench, "O5", &format!("OrdererOrg/orderer1 {channel}"), "the raft log cannot be opened at");
    }
}
