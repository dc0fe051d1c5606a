//! A larger network of real nodes, with raft snapshots: it is not part of the project, and lies beside the checkout where it is there at
//! all (`../shared/fixtures/network-medium.tar.zst`). Without it this test says that it tested nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::path::Path;

use bench::Bench;
use fabkeep_engine::{CaptureOptions, VerifyLevel};

#[test]
fn a_network_with_raft_snapshots_comes_back_and_costs_little() {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/network-medium.tar.zst");
    let Ok(packed) = std::fs::read(&packed) else {
        eprintln!("NOT TESTED: {} is not there", packed.display());
        return;
    };
    let bench = Bench::new(&packed);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let heights: Vec<_> =
        captured.point.channels.iter().map(|channel| (channel.name.as_str(), channel.height)).collect();
    assert_eq!(heights, [("mychannel", 224), ("settlement", 220)]);
    let orderer = captured.point.nodes.iter().find(|node| node.facts.id.node == "orderer1").unwrap();
    assert!(orderer.facts.raft.iter().any(|raft| raft.snapshot.is_some()));
    // 7 nodes with 90 MB of block files, raft logs and private data. A quarter of what restic needs for it would be 8.7 MB.
    let bytes = bench.repository().usage().unwrap().0;
    assert!(bytes < 4_500_000, "{bytes}");
    let proof = bench.verify(VerifyLevel::Full).unwrap();
    assert_eq!(proof.findings, captured.point.findings);
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&captured.point, &restored);
}
