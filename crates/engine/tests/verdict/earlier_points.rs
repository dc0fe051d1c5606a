//! An earlier recovery point is a hint, never evidence.

use std::fs;
use std::path::PathBuf;

use super::{assert_no_alarm, assert_refused, replace, verdict};
use crate::bench::Bench;
use fabkeep_engine::{CaptureOptions, VerifyLevel};
use fabkeep_fixtures::Growth;

fn chain(bench: &Bench, peer: &str) -> PathBuf {
    bench.network().join(peer).join("production/ledgersData/chains/chains/mychannel/blockfile_000000")
}

/// Two networks of the same beginning that grew apart to the same height.
fn forked(blocks: u64) -> (Bench, Bench) {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let fork = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(blocks, 2).unwrap();
    Growth::open(&fork.network(), "mychannel").unwrap().grow(blocks, 3).unwrap();
    (bench, fork)
}

#[test]
fn a_fork_of_equal_length_after_the_first_backup_is_found() {
    for blocks in [1, 12] {
        let (bench, fork) = forked(blocks);
        bench.capture(&CaptureOptions::default()).unwrap();
        fs::copy(chain(&fork, "Org1/peer1"), chain(&bench, "Org1/peer1")).unwrap();
        assert_refused(&bench, "I4", "Org1/peer1 mychannel", "forks at block 27");
    }
}

#[test]
fn a_shorter_fork_and_a_longer_one_after_the_first_backup_are_found() {
    let (bench, fork) = forked(12);
    bench.capture(&CaptureOptions::default()).unwrap();
    let whole = fs::read(chain(&fork, "Org1/peer1")).unwrap();
    let offset = crate::bench::offset_of_block(&chain(&fork, "Org1/peer1"), 33);
    fs::write(chain(&bench, "Org1/peer1"), &whole[..offset as usize]).unwrap();
    assert_refused(&bench, "I4", "Org1/peer1 mychannel", "forks at block 27");
    Growth::open(&fork.network(), "mychannel").unwrap().grow(4, 1).unwrap();
    fs::copy(chain(&fork, "Org1/peer1"), chain(&bench, "Org1/peer1")).unwrap();
    assert_refused(&bench, "I4", "Org1/peer1 mychannel", "forks at block 27");
}

#[test]
fn a_peer_that_fetched_its_blocks_anew_is_read_again_without_a_false_alarm() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(10, 2).unwrap();
    bench.capture(&CaptureOptions::default()).unwrap();
    for other in ["Org2/peer1", "Org2/peer0", "Org1/peer1"] {
        // The same blocks with other signature bytes, in the same file.
        fs::copy(chain(&bench, other), chain(&bench, "Org1/peer0")).unwrap();
        let captured = bench.capture(&CaptureOptions::default()).unwrap();
        assert!(captured.read_bytes > 0);
        bench.verify(VerifyLevel::Full).unwrap();
        let restored = bench.restore_all().unwrap();
        bench.assert_equal(&captured.point, &restored);
        fs::remove_dir_all(restored).unwrap();
    }
}

#[test]
fn a_levelled_orderer_and_one_with_another_ones_data_raise_no_alarm() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(6, 2).unwrap();
    bench.capture(&CaptureOptions::default()).unwrap();
    let data = |name: &str| bench.network().join("OrdererOrg").join(name).join("production");
    replace(&data("orderer2"), &data("orderer1"));
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(6, 2).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    bench.verify(VerifyLevel::Full).unwrap();
}

#[test]
fn a_network_built_anew_at_the_same_paths_is_a_new_history() {
    let (bench, fork) = forked(9);
    bench.capture(&CaptureOptions::default()).unwrap();
    Growth::open(&fork.network(), "mychannel").unwrap().grow(30, 1).unwrap();
    replace(&fork.network(), &bench.network());
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    super::assert_found(&captured.point.findings, "I4", "mychannel", "new history");
    bench.verify(VerifyLevel::Full).unwrap();
    let restored = bench.restore_all().unwrap();
    bench.assert_equal(&captured.point, &restored);
}

#[test]
fn a_moved_network_and_a_restored_one_raise_no_alarm_and_cost_no_new_blocks() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(10, 2).unwrap();
    let first = bench.capture(&CaptureOptions::default()).unwrap();
    let restored = bench.restore_all().unwrap();
    for (node, data) in [("Org1/peer0", "production"), ("OrdererOrg/orderer1", "production")] {
        replace(&restored.join(node).join(data), &bench.network().join(node).join(data));
    }
    let again = bench.capture(&CaptureOptions::default()).unwrap();
    assert_no_alarm(&again.point.findings);
    assert_eq!(again.point.channels[0].segments, first.point.channels[0].segments);
}

#[test]
fn what_is_unchanged_is_not_read_and_a_grown_chain_is_read_from_its_last_block() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(200, 3).unwrap();
    bench.capture(&CaptureOptions::default()).unwrap();
    assert_eq!(bench.capture(&CaptureOptions::default()).unwrap().read_bytes, 0);
    // One node's file is another one of the same content: it is read again by itself.
    let one = chain(&bench, "Org2/peer0");
    let bytes = fs::read(&one).unwrap();
    fs::remove_file(&one).unwrap();
    fs::write(&one, &bytes).unwrap();
    let again = bench.capture(&CaptureOptions::default()).unwrap();
    let size = bytes.len() as u64;
    assert!(again.read_bytes >= size && again.read_bytes < 2 * size, "{} of {size}", again.read_bytes);
}

/// A node that is gone since the last recovery point is named once, whether or not a window was opened.
#[test]
fn a_node_that_is_gone_is_reported() {
    use fabkeep_engine::{Consistency, WindowOptions};
    let window = Consistency::Window(WindowOptions {
        quiesce: fabkeep_platform::Quiesce::default(),
        deadline: std::time::Duration::from_secs(30),
        settle: Some(std::time::Duration::ZERO),
        extend: true,
        stay_closed: false,
    });
    for consistency in [Consistency::AsRead, window] {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        bench.capture(&CaptureOptions::default()).unwrap();
        fs::rename(bench.network().join("Org1/peer1"), bench.path("away")).unwrap();
        fs::rename(bench.network().join("Org2/ca"), bench.path("away too")).unwrap();
        let options = CaptureOptions { consistency, ..CaptureOptions::default() };
        let findings = bench.capture(&options).unwrap().point.findings;
        super::assert_found(&findings, "K3", "Org1/peer1", "it is not found any more");
        super::assert_found(&findings, "K3", "Org2/ca", "it is not found any more");
        let findings = bench.capture(&options).unwrap().point.findings;
        assert!(findings.iter().all(|finding| !finding.what.contains("not found any more")), "{findings:#?}");
    }
}

#[test]
fn a_repository_in_a_nodes_directory_is_refused() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let folder = bench.network().join("Org1/ca/repository");
    fs::rename(bench.location(), &folder).unwrap();
    std::os::unix::fs::symlink(&folder, bench.location()).unwrap();
    assert_refused(&bench, "R1", "Org1/ca", "contains the repository");
}

#[test]
fn a_channel_that_no_node_has_any_more_is_named() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    for chain in crate::bench::chains(&bench.network(), "settlement") {
        fs::remove_dir_all(chain).unwrap();
    }
    let (_, findings) = verdict(&bench, &CaptureOptions::default());
    for node in ["Org1/peer0", "Org2/peer1", "OrdererOrg/orderer2"] {
        let of_channel = format!("{node} settlement");
        assert!(findings.iter().any(|finding| finding.subject.starts_with(&of_channel)), "{node}: {findings:#?}");
    }
    // Every other trace of it is gone as well: nothing but the earlier recovery point knows it.
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for organization in ["Org1", "Org2"] {
        fs::remove_dir_all(bench.network().join(organization)).unwrap();
    }
    bench.capture(&CaptureOptions::default()).unwrap();
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        let production = bench.network().join("OrdererOrg").join(orderer).join("production");
        for part in ["chains/settlement", "etcdraft/wal/settlement", "etcdraft/snapshot/settlement", "index"] {
            fs::remove_dir_all(production.join(part)).unwrap();
        }
    }
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    super::assert_found(
        &findings,
        "K3",
        "OrdererOrg/orderer1 settlement",
        "the last recovery point contains this channel, and the node has no block of it now",
    );
}
