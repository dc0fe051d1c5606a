//! A second backup costs what is new, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use bench::Bench;
use fabkeep_engine::{CaptureOptions, VerifyLevel};
use fabkeep_fixtures::Growth;
use fabkeep_platform::Platform;

#[test]
fn a_second_backup_reads_and_writes_what_is_new() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(400, 3).unwrap();
    let first = bench.capture(&CaptureOptions::default()).unwrap();
    assert_eq!(first.point.channels[0].height, 427);

    // Nothing new: three objects (manifest, index, commit), no old block read.
    let idle = bench.capture(&CaptureOptions::default()).unwrap();
    assert_eq!(idle.stats.objects, 3);
    assert_eq!(idle.read_bytes, 0);

    let mut costs = Vec::new();
    for blocks in [10, 40] {
        growth.grow(blocks, 3).unwrap();
        let next = bench.capture(&CaptureOptions::default()).unwrap();
        assert_eq!(next.point.channels[0].height, growth.height());
        assert!(next.stats.objects <= 6, "{:?}", next.stats);
        // Seven chains of new blocks, and the raft logs and private-data logs that grew, are read; the old blocks are not.
        let new = blocks * 7 * 3 * 4_500;
        let logs: u64 = (3 * 16) << 20;
        assert!(next.read_bytes < new * 2 + logs, "{} of {new}", next.read_bytes);
        costs.push(next.stats.bytes - idle.stats.bytes);
        bench.verify(VerifyLevel::Full).unwrap();
    }
    assert!(costs[1] < costs[0] * 6 && costs[1] * 3 < first.stats.bytes, "{costs:?}, first {:?}", first.stats);

    // Read everything again on request: the same result, nothing new to write.
    let reread = bench.capture(&CaptureOptions { reread: true, ..CaptureOptions::default() }).unwrap();
    assert!(reread.read_bytes > 7 * 427 * 3 * 4_000);
    assert_eq!(reread.point.channels[0].tip_hash, {
        let again = bench.capture(&CaptureOptions::default()).unwrap();
        again.point.channels[0].tip_hash.clone()
    });
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&reread.point, &restored);
}

#[test]
fn a_chain_that_was_replaced_is_captured_anew_and_told() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), "settlement").unwrap();
    growth.grow(5, 2).unwrap();
    bench.capture(&CaptureOptions::default()).unwrap();
    // The network is set back and grows otherwise.
    std::fs::remove_dir_all(bench.network()).unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &bench.network()).unwrap();
    let mut growth = Growth::open(&bench.network(), "settlement").unwrap();
    growth.grow(7, 1).unwrap();
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let reported =
        captured.point.findings.iter().any(|finding| finding.rule.code() == "I4" && finding.subject == "settlement");
    assert!(reported, "{:?}", captured.point.findings);
    bench.verify(VerifyLevel::Full).unwrap();
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&captured.point, &restored);
}

/// Two networks with channels and nodes of the same names, in turn into one repository: neither is taken for the other.
#[test]
fn networks_of_the_same_channel_names_do_not_disturb_each_other() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let other = bench.path("staging");
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_BFT, &other).unwrap();
    let found = fabkeep_platform::discover(&other, bench.folder.path()).unwrap();
    let other = fabkeep_platform::Host::new(&found.inventory, bench.folder.path()).unwrap();
    let first = [bench.host(), other].map(|host| {
        let captured = bench.capture_from(&host, &CaptureOptions::default()).unwrap();
        let about_chains = |finding: &&fabkeep_network::Finding| finding.what.contains("last recovery point");
        assert_eq!(captured.point.findings.iter().find(about_chains), None);
        (host, captured.point.channels[0].tip_hash.clone())
    });
    assert_ne!(first[0].1, first[1].1);
    for (host, tip) in first {
        let idle = bench.capture_from(&host, &CaptureOptions::default()).unwrap();
        assert_eq!((idle.read_bytes, idle.stats.objects), (0, 3), "{}", host.network().name);
        assert_eq!(idle.point.channels[0].tip_hash, tip);
    }
}

#[test]
fn a_network_whose_raft_logs_were_compacted_is_captured_and_verified() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(10, 2).unwrap();
    growth.compact().unwrap();
    growth.grow(20, 2).unwrap();
    growth.compact().unwrap();
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let orderers = captured.point.nodes.iter().filter(|node| node.facts.id.organization == "OrdererOrg");
    assert_eq!(orderers.filter(|node| node.facts.ledgers.iter().any(|ledger| ledger.height == 57)).count(), 3);
    let proof = bench.verify(fabkeep_engine::VerifyLevel::Full).unwrap();
    assert!(proof.findings.iter().all(|finding| finding.severity < fabkeep_network::Severity::Error));
    bench.restore_all().unwrap();
}
