//! Cuts: one height over all nodes of a network that runs and grows, without a window.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench::{Bench, locks};
use fabkeep_engine::{CaptureOptions, Captured, Consistency, EngineError, RestoreOptions, VerifyLevel, WindowOptions};
use fabkeep_fixtures::Growth;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::Severity;
use fabkeep_platform::Quiesce;

fn cut() -> CaptureOptions {
    CaptureOptions { consistency: Consistency::Cut { fallback: None }, ..CaptureOptions::default() }
}

/// One height of all peers, one of all orderers, not below the peers'; raft state of one moment.
fn assert_level(captured: &Captured) -> u64 {
    let heights = |role: NodeRole| -> BTreeSet<u64> {
        let nodes = captured.point.nodes.iter().filter(|node| node.facts.role == role);
        nodes.flat_map(|node| &node.facts.ledgers).filter(|l| l.channel == "mychannel").map(|l| l.height).collect()
    };
    let (peers, orderers) = (heights(NodeRole::Peer), heights(NodeRole::Orderer));
    assert_eq!((peers.len(), orderers.len()), (1, 1), "{peers:?} {orderers:?}");
    assert!(orderers.first() >= peers.first(), "I1: {peers:?} {orderers:?}");
    let logs: BTreeSet<String> = captured
        .point
        .nodes
        .iter()
        .filter(|node| node.facts.role == NodeRole::Orderer)
        .map(|node| format!("{:?}", node.facts.raft.iter().find(|raft| raft.channel == "mychannel").unwrap()))
        .collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    let bad: Vec<_> = captured.point.findings.iter().filter(|finding| finding.severity >= Severity::Warning).collect();
    assert!(bad.is_empty(), "{bad:?}");
    *peers.first().unwrap()
}

/// Stops the writer when the test ends, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many backups; 50 unless the environment says otherwise.
fn wanted() -> usize {
    std::env::var("FABKEEP_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

#[test]
fn many_cuts_of_a_growing_network_are_all_level_and_none_stops_the_writer() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let (stop, blocks) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    let longest = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // 100 blocks a second, in bursts of one to three; a raft snapshot now and then, as etcdraft takes them.
            let mut longest = Duration::ZERO;
            let begun = Instant::now();
            let mut due = 0;
            while !stop.load(Ordering::Relaxed) {
                let burst = 1 + blocks.load(Ordering::Relaxed) % 3;
                let one = Instant::now();
                growth.grow(burst, 2).unwrap();
                longest = longest.max(one.elapsed());
                due += burst;
                if blocks.fetch_add(burst, Ordering::Relaxed) % 500 < burst {
                    growth.compact().unwrap();
                }
                std::thread::sleep(Duration::from_millis(10 * due).saturating_sub(begun.elapsed()));
            }
            longest
        });
        let _stop = Stop(&stop);
        let mut heights = Vec::new();
        for _ in 0..wanted() {
            let captured = bench.capture(&cut()).unwrap();
            assert!(captured.point.nodes.iter().any(|node| node.facts.running));
            heights.push(assert_level(&captured));
            let proof = bench.verify(VerifyLevel::Full).unwrap();
            assert!(proof.findings.iter().all(|finding| finding.severity < Severity::Error), "{:?}", proof.findings);
        }
        stop.store(true, Ordering::Relaxed);
        let longest = writer.join().unwrap();
        assert!(heights.is_sorted() && heights.last() > heights.first(), "{heights:?}");
        println!(
            "heights {} to {}, {} blocks written",
            heights[0],
            heights[heights.len() - 1],
            blocks.load(Ordering::Relaxed)
        );
        longest
    });
    // No lock is taken from the writer: what it waits for is the machine.
    assert!(longest < Duration::from_secs(60), "the writer stood still for {longest:?}");
    bench.restore_all().unwrap();
}

#[test]
fn a_cut_restores_chains_that_end_where_they_were_cut_and_one_raft_state_for_all_orderers() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(40, 2).unwrap();
    // Org2's second peer lags three blocks behind: everybody is cut to where it is.
    let lagging = bench.network().join("Org2/peer1/production/ledgersData/chains/chains/mychannel/blockfile_000000");
    let len = bench::offset_of_block(&lagging, 64);
    std::fs::File::options().write(true).open(&lagging).unwrap().set_len(len).unwrap();
    let captured = bench.capture(&cut()).unwrap();
    assert_eq!(assert_level(&captured), 64);
    bench.verify(VerifyLevel::Full).unwrap();
    bench.restore_all().unwrap();
    let restored = bench.path("restored");
    let heights: BTreeSet<u64> =
        bench::chains(&restored, "mychannel").iter().map(|chain| bench::height(chain)).collect();
    assert_eq!(heights, BTreeSet::from([64]));
    let wal = |orderer: &str| {
        let folder = restored.join("OrdererOrg").join(orderer).join("production/etcdraft/wal/mychannel");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(wal("orderer1"), wal("orderer2"));
    assert_eq!(wal("orderer1"), wal("orderer3"));
    // The next cut goes on from there.
    growth.grow(5, 2).unwrap();
    let next = bench.capture(&CaptureOptions { exclude: vec!["Org2/peer1".to_owned()], ..cut() }).unwrap();
    assert_eq!(assert_level(&next), 72);
    // A peer that stands still while the others go on is reported: everybody is cut to where it is.
    growth.grow(120, 2).unwrap();
    let standing = bench.network().join("Org2/peer0/production/ledgersData/chains/chains/mychannel/blockfile_000000");
    let len = bench::offset_of_block(&standing, 73);
    std::fs::File::options().write(true).open(&standing).unwrap().set_len(len).unwrap();
    let last = bench.capture(&CaptureOptions { exclude: vec!["Org2/peer1".to_owned()], ..cut() }).unwrap();
    let reported: Vec<_> = last.point.findings.iter().filter(|finding| finding.rule.code() == "W3").collect();
    assert!(reported.len() == 1 && reported[0].subject == "Org2/peer0 mychannel", "{reported:?}");
    assert!(reported[0].what.contains("cut at height 73") && reported[0].what.contains("had 192"), "{reported:?}");
}

/// Cuts a chain: its last blocks are not there yet.
fn cut_chain(production: &Path, chain: &str, height: u64) {
    let file = production.join(chain).join("mychannel/blockfile_000000");
    std::fs::File::options().write(true).open(&file).unwrap().set_len(bench::offset_of_block(&file, height)).unwrap();
}

#[test]
fn a_cut_of_smartbft_orderers_ends_at_one_height_without_what_their_logs_propose() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    let height = bench::height(&bench.network().join("Org1/peer0/production/ledgersData/chains/chains/mychannel"));
    // One peer lags five blocks behind, one orderer six.
    cut_chain(&bench.network().join("Org2/peer1/production"), "ledgersData/chains/chains", height - 5);
    cut_chain(&bench.network().join("OrdererOrg/orderer4/production"), "chains", height - 6);
    std::fs::remove_dir_all(bench.network().join("OrdererOrg/orderer4/production/index")).unwrap();
    let _locks = locks(&bench);
    let captured = bench.capture(&cut()).unwrap();
    let note = captured.point.findings.iter().find(|finding| finding.what.contains("empty SmartBFT log")).unwrap();
    assert!((note.rule.code(), note.severity) == ("O2", Severity::Note) && note.what.contains("orderer4"), "{note:?}");
    bench.verify(VerifyLevel::Full).unwrap();
    bench.restore_below("level", &RestoreOptions::default()).unwrap();
    let heights: BTreeSet<u64> =
        bench::chains(&bench.path("level"), "mychannel").iter().map(|chain| bench::height(chain)).collect();
    assert_eq!(heights, BTreeSet::from([height - 5]));
    for orderer in ["orderer1", "orderer2", "orderer3", "orderer4"] {
        let production = bench.path("level/OrdererOrg").join(orderer).join("production");
        assert_eq!(bench::height(&production.join("chains/mychannel")), height - 5);
        let found = fabkeep_ledger::smartbft::check_wal_directory(&production.join("etcdraft/wal/mychannel")).unwrap();
        assert_eq!((found.files, found.entries), (1, 0));
    }
}

#[test]
fn what_a_cut_cannot_serve_is_refused_with_its_rule_and_falls_back_as_asked() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let with_derived = |options: CaptureOptions| CaptureOptions { include_derived: true, ..options };
    match bench.capture(&with_derived(cut())) {
        Err(EngineError::Refused(findings)) => {
            assert!(
                findings.iter().any(|finding| finding.rule.code() == "I2" && finding.what.contains("a cut leaves"))
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.repository().history().unwrap().commits.is_empty());
    let fallback = Some(WindowOptions {
        quiesce: Quiesce::default(),
        deadline: Duration::from_secs(10),
        settle: Some(Duration::ZERO),
        extend: false,
        stay_closed: false,
    });
    let consistency = Consistency::Cut { fallback };
    let captured = bench.capture(&with_derived(CaptureOptions { consistency, ..CaptureOptions::default() })).unwrap();
    assert!(captured.point.window.is_some());
    assert!(captured.point.findings.iter().any(|finding| finding.rule.code() == "I2"), "the fallback is reported");
}
