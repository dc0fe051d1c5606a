//! The main job on real data: capture, verify, restore, compare.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use bench::Bench;
use fabkeep_engine::{CaptureOptions, VerifyLevel};

#[test]
fn a_raft_network_comes_back_bit_for_bit() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let heights: Vec<_> =
        captured.point.channels.iter().map(|channel| (channel.name.as_str(), channel.height)).collect();
    assert_eq!(heights, [("mychannel", 27), ("settlement", 8)]);
    let proof = bench.verify(VerifyLevel::Full).unwrap();
    assert_eq!(proof.findings, captured.point.findings);
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&captured.point, &restored);
}

#[test]
fn a_smartbft_network_comes_back_bit_for_bit() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    assert_eq!(captured.point.channels[0].height, 24);
    bench.verify(VerifyLevel::Full).unwrap();
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&captured.point, &restored);
}
