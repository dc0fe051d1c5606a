//! What was not checked is not called signed.

use std::fs;

use super::{assert_found, verdict};
use crate::bench::{Bench, join_by_snapshot};
use fabkeep_engine::{CaptureOptions, VerifyLevel};

fn chain(bench: &Bench, peer: &str) -> std::path::PathBuf {
    bench.network().join(peer).join("production/ledgersData/chains/chains/mychannel")
}

#[test]
fn signatures_behind_a_snapshot_are_not_proven_where_no_configuration_is_known() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for node in ["OrdererOrg", "Org2", "Org1/peer1"] {
        fs::remove_dir_all(bench.network().join(node)).unwrap();
    }
    // Block 16 is a configuration block.
    join_by_snapshot(&chain(&bench, "Org1/peer0"), 20);
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B2", "Org1/peer0 mychannel", "7 blocks, from block 20 on, are not proven");
    let proof = bench.verify(VerifyLevel::Full).unwrap();
    assert!(
        proof.not_proven.iter().any(|line| line.to_string().contains("signatures of 7 blocks of Org1/peer0")),
        "{proof:#?}"
    );
    let of_channel: Vec<&String> = proof.proven.iter().filter(|line| line.starts_with("mychannel")).collect();
    assert!(of_channel.iter().all(|line| !line.contains("signed as configured")), "{of_channel:?}");
    // The next capture goes on from there, and says the same.
    let (_, findings) = verdict(&bench, &CaptureOptions::default());
    assert_found(&findings, "B2", "Org1/peer0 mychannel", "7 blocks");
}

#[test]
fn a_configuration_block_behind_the_snapshot_proves_what_comes_after_it() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for node in ["OrdererOrg", "Org2", "Org1/peer1"] {
        fs::remove_dir_all(bench.network().join(node)).unwrap();
    }
    join_by_snapshot(&chain(&bench, "Org1/peer0"), 12);
    let (_, findings) = verdict(&bench, &CaptureOptions::default());
    assert_found(&findings, "B2", "Org1/peer0 mychannel", "5 blocks, from block 12 on, are not proven");
}

#[test]
fn where_another_node_has_the_configuration_the_signatures_are_checked() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    join_by_snapshot(&chain(&bench, "Org1/peer0"), 20);
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made);
    assert!(findings.iter().all(|finding| finding.rule.code() != "B2"), "{findings:#?}");
    let proof = bench.verify(VerifyLevel::Full).unwrap();
    assert!(proof.proven.iter().any(|line| line.contains("signed as configured on 7 nodes")), "{proof:#?}");
}
