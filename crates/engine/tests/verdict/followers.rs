//! Orderers that are no consenters, and other kinds of consensus, by the channel's configuration.

use std::fs;

use super::{assert_found, assert_refused, verdict};
use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;
use fabkeep_network::{Severity, check_set};

/// Gives an orderer a TLS certificate that no channel names: then it is a follower.
fn evict(bench: &Bench, orderer: &str) {
    let tls = bench.network().join("OrdererOrg").join(orderer).join("tls");
    super::replace(&bench.network().join("Org1/peer0/tls"), &tls);
}

#[test]
fn a_follower_needs_no_raft_log_and_a_consenter_does() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    fs::remove_dir_all(bench.network().join("OrdererOrg/orderer3/production/etcdraft/wal/mychannel")).unwrap();
    assert_refused(&bench, "O6", "OrdererOrg/orderer3 mychannel", "no raft");
    evict(&bench, "orderer3");
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "O7", "OrdererOrg/orderer3 mychannel", "not the key of any of the channel's 3 consenters");
}

#[test]
fn a_consenter_without_the_channel_is_missed() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let data = bench.network().join("OrdererOrg/orderer3/production");
    fs::remove_dir_all(data.join("chains/settlement")).unwrap();
    fs::remove_dir_all(data.join("etcdraft/wal/settlement")).unwrap();
    fs::remove_dir_all(data.join("index")).unwrap();
    assert_refused(&bench, "O6", "OrdererOrg/orderer3 settlement", "names this orderer as a consenter");
}

#[test]
fn a_raft_log_that_a_removed_channel_left_behind_is_reported() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let data = bench.network().join("OrdererOrg/orderer3/production");
    evict(&bench, "orderer3");
    fs::remove_dir_all(data.join("chains/settlement")).unwrap();
    fs::remove_dir_all(data.join("index")).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "O10", "OrdererOrg/orderer3 settlement", "no block files");
}

#[test]
fn kafka_and_solo_are_named_as_such() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let mut facts: Vec<_> = captured.point.nodes.iter().map(|node| node.facts.clone()).collect();
    facts.iter_mut().for_each(|node| node.raft.clear());
    let mut config = captured.point.channels[0].config.clone().unwrap();
    for (kind, severity, about) in [
        ("kafka", Severity::Error, "ordered by Kafka"),
        ("solo", Severity::Warning, "solo orderer"),
        ("other", Severity::Error, "\"other\" is not supported"),
    ] {
        config.consensus_type = kind.to_owned();
        config.consenters.clear();
        let findings = check_set(&facts, &[&config], false, 1_800_000_000);
        let of_channel: Vec<_> = findings.iter().filter(|finding| finding.subject.contains("mychannel")).collect();
        assert_eq!(of_channel.len(), 1, "{of_channel:#?}");
        assert_eq!(of_channel[0].severity, severity);
        assert!(of_channel[0].what.contains(about) && of_channel[0].what.contains("orderer2"), "{of_channel:#?}");
    }
}

#[test]
fn consenters_that_are_not_in_the_set_are_named() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let absent = |findings: &[fabkeep_network::Finding]| {
        findings.iter().filter(|finding| finding.what.contains("are not in the set")).cloned().collect::<Vec<_>>()
    };
    let (_, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(absent(&findings).is_empty(), "{findings:#?}");
    let exclude = vec!["OrdererOrg/orderer3".to_owned()];
    let (made, findings) = verdict(&bench, &CaptureOptions { exclude, ..CaptureOptions::default() });
    assert!(made, "{findings:#?}");
    assert_found(&findings, "O7", "mychannel", "1 of the channel's 3 consenters are not in the set");
    assert!(absent(&findings).iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
}
