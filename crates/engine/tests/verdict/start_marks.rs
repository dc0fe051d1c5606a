//! What files order for a node's next start.

use std::fs;

use super::{assert_found, assert_no_alarm, assert_refused, verdict};
use crate::bench::Bench;
use fabkeep_engine::{CaptureOptions, EntryContent};
use fabkeep_fixtures::write_to_store;
use fabkeep_network::Severity;

const LEDGERS: &str = "Org1/peer0/production/ledgersData";

fn listed(bench: &Bench, entries: &[(&str, Option<&[u8]>)]) {
    let entries: Vec<(Vec<u8>, Option<Vec<u8>>)> =
        entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.map(<[u8]>::to_vec))).collect();
    write_to_store(&bench.network().join(LEDGERS).join("ledgerProvider"), &entries).unwrap();
}

#[test]
fn a_channel_that_the_next_start_deletes_is_an_error() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for orderer in ["orderer1", "orderer3"] {
        let folder = bench.network().join("OrdererOrg").join(orderer).join("production/pendingops/remove");
        fs::write(folder.join("settlement.remove"), "").unwrap();
    }
    assert_refused(&bench, "B10", "OrdererOrg/orderer1 settlement", "settlement.remove");
    assert_refused(&bench, "B10", "OrdererOrg/orderer3 settlement", "deletes this channel's chain");
}

/// The genesis block of the network's channel, as `osnadmin channel join` takes it.
fn genesis(bench: &Bench) -> Vec<u8> {
    fs::read(bench.network().join("artifacts/mychannel.block")).unwrap()
}

#[test]
fn a_channel_that_is_being_joined_is_reported() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let folder = bench.network().join("OrdererOrg/orderer1/production/pendingops/join");
    fs::write(folder.join("mychannel.join"), genesis(&bench)).unwrap();
    // Neither is a join file.
    fs::write(folder.join("notes"), "").unwrap();
    fs::write(folder.join("x.join~"), "").unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B10", "OrdererOrg/orderer1 mychannel", "is joining this channel");
    assert_no_alarm(&findings);
}

#[test]
fn a_join_file_that_is_no_configuration_block_of_its_channel_is_an_error() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let folder = bench.network().join("OrdererOrg/orderer1/production/pendingops/join");
    let block = genesis(&bench);
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write("empty.join", b"");
    write("text.join", b"a block");
    write("cut.join", &block[..block.len() / 2]);
    write("other.join", &block);
    for (channel, what) in [
        ("empty", "empty.join is not a configuration block"),
        ("text", "text.join is not a configuration block"),
        ("cut", "cut.join is not a configuration block"),
        ("other", "another channel, mychannel"),
    ] {
        assert_refused(&bench, "B10", &format!("OrdererOrg/orderer1 {channel}"), what);
    }
}

#[test]
fn a_peer_that_was_reset_is_reported() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    fs::write(bench.network().join(LEDGERS).join("chains/chains/mychannel/__preResetHeight"), "500").unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B10", "Org1/peer0 mychannel", "__preResetHeight");
}

#[test]
fn ledgers_under_construction_and_deletion_are_left_out_and_paused_ones_kept() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    listed(&bench, &[("snewchannel", Some(&[8, 2]))]);
    fs::create_dir_all(bench.network().join(LEDGERS).join("chains/chains/newchannel")).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B10", "Org1/peer0 newchannel", "the next start removes");

    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    listed(&bench, &[("ssettlement", Some(&[8, 3]))]);
    let chain = bench.network().join(LEDGERS).join("chains/chains/settlement");
    let block_file = chain.join("blockfile_000000");
    // Its front is gone: it cannot be walked any more.
    fs::write(&block_file, &fs::read(&block_file).unwrap()[5000..]).unwrap();
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    assert_found(&captured.point.findings, "B10", "Org1/peer0 settlement", "was being removed");
    let peer = captured.point.nodes.iter().find(|node| node.facts.id.to_string() == "Org1/peer0").unwrap();
    assert!(peer.facts.ledgers.iter().all(|ledger| ledger.channel != "settlement"));
    let of_chain =
        peer.directories.iter().flat_map(|directory| &directory.entries).filter(|entry| {
            entry.path.contains("chains/settlement") && matches!(entry.content, EntryContent::File { .. })
        });
    assert_eq!(of_chain.count(), 0);
    fs::remove_file(&block_file).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");

    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    listed(&bench, &[("ssettlement", Some(&[8, 1]))]);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    assert_found(&captured.point.findings, "B10", "Org1/peer0 settlement", "paused");
    let peer = captured.point.nodes.iter().find(|node| node.facts.id.to_string() == "Org1/peer0").unwrap();
    assert!(peer.facts.ledgers.iter().any(|ledger| ledger.channel == "settlement"));
}

#[test]
fn a_peers_list_of_before_2_0_is_read_and_a_ledger_of_it_that_is_gone_is_an_error() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    listed(
        &bench,
        &[
            ("lmychannel", Some(b"genesis")),
            ("lsettlement", Some(b"genesis")),
            ("smychannel", None),
            ("ssettlement", None),
            ("f", None),
        ],
    );
    let data = bench.network().join("Org1/peer0/production");
    fs::rename(data.join("transientstore"), data.join("transientStore")).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B10", "Org1/peer0", "before 2.0");
    assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
    fs::remove_dir_all(data.join("ledgersData/chains/chains/settlement")).unwrap();
    assert_refused(&bench, "B1", "Org1/peer0 settlement", "lists this ledger");
}

#[test]
fn a_chain_that_the_list_of_ledgers_does_not_name_is_an_error() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    listed(&bench, &[("ssettlement", None)]);
    assert_refused(&bench, "I2", "Org1/peer0 settlement", "does not name the channel");
}
