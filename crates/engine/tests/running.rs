//! Nodes that run while they are captured (P6): every backup of a growing network verifies and keeps the invariants, or is refused.
//! The network grows by the test writer: block files, raft logs and private-data logs as real nodes append to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bench::{Bench, locks};
use fabkeep_engine::{CaptureOptions, EngineError, VerifyLevel};
use fabkeep_fixtures::Growth;
use fabkeep_network::Severity;

#[test]
fn every_backup_of_a_running_growing_network_is_consistent() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let stop = AtomicBool::new(false);
    let blocks = AtomicU64::new(0);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && blocks.load(Ordering::Relaxed) < 5_000 {
                growth.grow(1, 2).unwrap();
                blocks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let mut heights = Vec::new();
        // On a busy machine the writer is slow too: more backups then, so that each has something new.
        let begun = std::time::Instant::now();
        let slow = || blocks.load(Ordering::Relaxed) <= 10 && begun.elapsed() < std::time::Duration::from_secs(120);
        while heights.len() < 10 || slow() {
            let captured = bench.capture(&CaptureOptions::default()).unwrap();
            assert!(captured.point.nodes.iter().any(|node| node.facts.running));
            let errors: Vec<_> =
                captured.point.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
            assert!(errors.is_empty(), "{errors:?}");
            let proof = bench.verify(VerifyLevel::Full).unwrap();
            assert!(proof.findings.iter().all(|finding| finding.severity < Severity::Error), "{:?}", proof.findings);
            heights.push(captured.point.channels[0].height);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(blocks.load(Ordering::Relaxed) > 10, "the writer stood still");
        assert!(heights.is_sorted() && heights.last() > heights.first() && heights[0] >= 27, "{heights:?}");
    });
    bench.restore_all().unwrap();
}

#[test]
fn a_database_that_never_holds_still_is_refused_with_the_way_out() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    // A manifest that names a table that is not there: no copy of it can be good.
    let store = bench.network().join("Org1/peer0/production/ledgersData/pvtdataStore");
    std::fs::remove_file(store.join("000002.log")).unwrap();
    match bench.capture(&CaptureOptions { live_attempts: 3, ..CaptureOptions::default() }) {
        Err(EngineError::Refused(findings)) => {
            let finding = findings.iter().find(|finding| finding.rule.code() == "P6").unwrap();
            assert!(
                finding.subject.contains("Org1/peer0") && format!("{:?}", finding.remedy).contains("stop the node"),
                "{finding:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.repository().history().unwrap().commits.is_empty());
}
