//! Raft and SmartBFT logs of real orderers: whole, split to almost nothing, and joined bit for bit; every flipped byte is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::Path;

use fabkeep_ledger::block_file::ChainReader;
use fabkeep_ledger::raft::{Wal, check_wal_directory, newest_snapshot};
use fabkeep_ledger::{Hash, smartbft, wal_split};

fn blocks(chain: &Path) -> HashMap<u64, (Hash, Vec<u8>)> {
    let mut reader = ChainReader::open(chain).unwrap();
    let mut blocks = HashMap::new();
    while let Some(batch) = reader.next_batch(1 << 20, u64::MAX).unwrap() {
        for span in &batch.blocks {
            let record = batch.buffer[span.canonical.clone()].to_vec();
            blocks.insert(span.number, (span.header_hash(&batch.buffer), record));
        }
    }
    blocks
}

#[test]
fn a_raft_log_is_split_to_almost_nothing_and_joined_bit_for_bit() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        for (channel, height) in [("mychannel", 27), ("settlement", 8)] {
            let production = network.path().join("OrdererOrg").join(orderer).join("production");
            let blocks = blocks(&production.join("chains").join(channel));
            assert_eq!(blocks.len(), height);
            let mut logs: Vec<Vec<u8>> = Vec::new();
            let summary = check_wal_directory(&production.join("etcdraft/wal").join(channel), |_, wal: &Wal| {
                let known = |number| blocks.get(&number).map(|block| block.0);
                let split = wal_split::split(&wal.bytes, 0..wal.bytes.len(), &wal.records, &known);
                let referenced = wal_split::referenced_blocks(&split).unwrap();
                assert!(referenced.len() >= height - 2, "{referenced:?}");
                assert!(split.len() * 10 < wal.bytes.len(), "{} of {}", split.len(), wal.bytes.len());
                let mut block = |number| blocks.get(&number).map(|block| block.1.clone());
                assert_eq!(wal_split::join(&split, u64::MAX, &mut block).unwrap(), wal.bytes);
                logs.push(wal.bytes.clone());
            })
            .unwrap();
            assert_eq!(summary.torn, None);
            assert!(summary.commit > 0);
            newest_snapshot(&production.join("etcdraft/snapshot").join(channel)).unwrap();
        }
    }
}

#[test]
fn every_flipped_byte_of_a_raft_log_is_found() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    let directory = network.path().join("OrdererOrg/orderer1/production/etcdraft/wal/settlement");
    let mut whole = None;
    let clean = check_wal_directory(&directory, |_, wal| whole = Some(wal.bytes.clone())).unwrap();
    let whole = whole.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("0000000000000000-0000000000000000.wal");
    let positions = (0..whole.len()).filter(|at| at % 61 == 0 || *at < 400 || at + 200 > whole.len());
    for at in positions.chain([whole.len() + 5]) {
        let mut broken = whole.clone();
        broken.resize(whole.len() + 4096, 0);
        broken[at] ^= 0x10;
        std::fs::write(&path, &broken).unwrap();
        match check_wal_directory(scratch.path(), |_, _| {}) {
            Err(_) => {}
            Ok(found) => assert!(found.torn.is_some() && found != clean, "byte {at}: {found:?}"),
        }
    }
}

#[test]
fn smartbft_logs_are_whole_and_every_flipped_byte_is_found() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_BFT, network.path()).unwrap();
    for orderer in ["orderer1", "orderer2", "orderer3", "orderer4"] {
        let wal = network.path().join("OrdererOrg").join(orderer).join("production/etcdraft/wal/mychannel");
        let summary = smartbft::check_wal_directory(&wal).unwrap();
        assert_eq!(summary.torn, None);
        assert!(summary.entries > 10);
    }
    let wal = network.path().join("OrdererOrg/orderer1/production/etcdraft/wal/mychannel");
    let path = wal.join("0000000000000002.wal");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).filter(|at| at % 61 == 0 || *at < 64 || at + 64 > whole.len()) {
        let mut broken = whole.clone();
        broken[at] ^= 0x10;
        std::fs::write(&path, &broken).unwrap();
        match smartbft::check_wal_directory(&wal) {
            Err(_) => {}
            Ok(found) => assert!(found.torn.is_some(), "byte {at}"),
        }
    }
}
