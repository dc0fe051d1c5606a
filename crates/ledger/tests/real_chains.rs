//! Chains of real nodes: hashes, configuration and signatures hold on every node of both bundled networks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::atomic::AtomicU64;

use fabkeep_ledger::block_file::ChainReader;
use fabkeep_ledger::block_signature::SignatureChecker;
use fabkeep_ledger::chain::{check_blocks, walk_directory};
use fabkeep_ledger::channel_config::ChannelConfig;

fn network(packed: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(packed, folder.path()).unwrap();
    folder
}

/// Walks one chain with signatures; returns the number of blocks and the configurations met.
fn check_signatures(chain: &Path) -> (u64, Vec<ChannelConfig>) {
    let mut reader = ChainReader::open(chain).unwrap();
    let checker = SignatureChecker::default();
    let mut configs: Vec<ChannelConfig> = Vec::new();
    let mut blocks = 0;
    while let Some(batch) = reader.next_batch(64 << 10, u64::MAX).unwrap() {
        check_blocks(&batch.buffer, &batch.blocks, "batch").unwrap();
        for span in &batch.blocks {
            if span.number > 0 {
                let validation = &configs.last().unwrap().validation;
                let header = span.header_bytes(&batch.buffer);
                checker
                    .check(&header, span.slots(&batch.buffer), validation)
                    .unwrap_or_else(|error| panic!("{} block {}: {error}", chain.display(), span.number));
            }
            let first = span.envelopes(&batch.buffer).next().unwrap();
            configs.extend(ChannelConfig::from_envelope(first).unwrap());
            blocks += 1;
        }
    }
    assert_eq!(reader.torn_tail(), None);
    (blocks, configs)
}

#[test]
fn every_block_of_every_raft_node_is_signed_as_its_configuration_demands() {
    let network = network(fabkeep_fixtures::NETWORK_SMALL);
    let peers = ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"]
        .map(|node| network.path().join(node).join("production/ledgersData/chains/chains"));
    let orderers = ["orderer1", "orderer2", "orderer3"]
        .map(|node| network.path().join("OrdererOrg").join(node).join("production/chains"));
    for chains in peers.iter().chain(&orderers) {
        let (blocks, configs) = check_signatures(&chains.join("mychannel"));
        assert_eq!(blocks, 27);
        assert_eq!(configs.first().unwrap().max_message_count, 5);
        assert_eq!(configs.last().unwrap().max_message_count, 4);
        assert_eq!(configs.last().unwrap().consenters.len(), 3);
        assert_eq!(configs.last().unwrap().consensus_type, "etcdraft");
        assert_eq!(check_signatures(&chains.join("settlement")).0, 8);
        let walk = walk_directory(&chains.join("mychannel"), 2, &AtomicU64::new(0)).unwrap();
        assert_eq!((walk.blocks, walk.tip.unwrap().height, walk.first), (27, 27, 0));
    }
}

#[test]
fn every_block_of_every_smartbft_node_is_signed_by_a_quorum() {
    let network = network(fabkeep_fixtures::NETWORK_BFT);
    for node in ["orderer1", "orderer2", "orderer3", "orderer4"] {
        let chain = network.path().join("OrdererOrg").join(node).join("production/chains/mychannel");
        let (blocks, configs) = check_signatures(&chain);
        assert_eq!(blocks, 24);
        assert_eq!(configs.last().unwrap().consensus_type, "BFT");
        assert_eq!(configs.last().unwrap().consenters.len(), 4);
        assert_eq!(configs.last().unwrap().consenters[0].msp_id.as_deref(), Some("OrdererMSP"));
    }
    let chain = network.path().join("Org1/peer0/production/ledgersData/chains/chains/mychannel");
    assert_eq!(check_signatures(&chain).0, 24);
}
