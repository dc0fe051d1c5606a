//! Raft and SmartBFT logs of real orderers: whole, split to almost nothing, and joined bit for bit; every flipped byte is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::Path;

use fabkeep_ledger::block::BlockSpan;
use fabkeep_ledger::block_file::ChainReader;
use fabkeep_ledger::proto::{common, etcdraft, raft as proto};
use fabkeep_ledger::raft::{
    FIRST_LOG_FILE, NoState, RaftState, RecordKind, SEGMENT_BYTES, Wal, check_wal_directory, hard_state_bytes,
    newest_snapshot, read_snapshot, read_up_to_hole, write_log_record,
};
use fabkeep_ledger::{Hash, smartbft, varint, wal_split};
use prost::Message;

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

/// A block as its block file holds it.
fn record(chain: &Path, number: u64) -> Vec<u8> {
    let mut reader = ChainReader::open(chain).unwrap();
    while let Some(batch) = reader.next_batch(1 << 20, u64::MAX).unwrap() {
        if let Some(span) = batch.blocks.iter().find(|span| span.number == number) {
            return batch.buffer[span.canonical.start..span.metadata.end].to_vec();
        }
    }
    panic!("no block {number}")
}

#[test]
fn a_raft_log_is_written_as_a_real_orderer_writes_it() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    let production = network.path().join("OrdererOrg/orderer1/production");
    let made = RaftState::of_block(&record(&production.join("chains/settlement"), 7), 2).unwrap().log();
    let path = production.join("etcdraft/wal/settlement").join(FIRST_LOG_FILE);
    assert_eq!(path.metadata().unwrap().len(), SEGMENT_BYTES);
    let real = Wal::parse("real", read_up_to_hole(&path).unwrap(), &mut None).unwrap();
    // Checksum, metadata, the note of a snapshot of nothing: what every log begins with.
    let head: Vec<RecordKind> = real.records[..3].iter().map(|record| record.kind).collect();
    assert_eq!(head, [RecordKind::Crc, RecordKind::Metadata, RecordKind::Snapshot]);
    assert_eq!(made[..real.records[2].end], real.bytes[..real.records[2].end]);
    // Every record of the real log, framed again.
    let (mut crc, mut again) = (0, Vec::new());
    for record in &real.records {
        let data = &real.bytes[record.data.clone()];
        write_log_record(record.kind, (!data.is_empty()).then_some(data), &mut crc, &mut again);
    }
    assert!(again == real.bytes);
}

/// What a follower writes that lacks entries which the leader does not have any more: the leader sends its snapshot.
#[test]
fn a_log_goes_on_behind_a_snapshot_that_a_leader_has_sent() {
    let entry =
        |index| (RecordKind::Entry, Some(proto::Entry { index, term: 2, ..Default::default() }.encode_to_vec()));
    let state = |commit| {
        let state = proto::HardState { term: 2, vote: 0, commit };
        (RecordKind::HardState, Some(hard_state_bytes(&state)))
    };
    let note = |index| {
        (RecordKind::Snapshot, Some(proto::WalSnapshot { index, term: 2, ..Default::default() }.encode_to_vec()))
    };
    let read = |more: &[(RecordKind, Option<Vec<u8>>)]| {
        let (mut crc, mut log) = (0, Vec::new());
        let head =
            [(RecordKind::Crc, None), (RecordKind::Metadata, None), note(0), entry(1), entry(2), entry(3), state(3)];
        for (kind, data) in head.iter().chain(more) {
            write_log_record(*kind, data.as_deref(), &mut crc, &mut log);
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FIRST_LOG_FILE), log).unwrap();
        check_wal_directory(folder.path(), |_, _| {})
    };
    let indexes =
        |more: &[(RecordKind, Option<Vec<u8>>)]| read(more).map(|summary| (summary.first_index, summary.last_index));
    assert_eq!(indexes(&[entry(4)]).unwrap(), (Some(1), Some(4)));
    assert_eq!(indexes(&[state(188), note(188)]).unwrap(), (Some(189), Some(188)));
    assert_eq!(indexes(&[state(188), note(188), entry(189), state(189)]).unwrap(), (Some(189), Some(189)));
    // Its own snapshot, of entries that it has.
    assert_eq!(indexes(&[entry(4), note(3), entry(5)]).unwrap(), (Some(1), Some(5)));
    assert!(read(&[entry(189)]).is_err());
    assert!(read(&[state(188), note(188), entry(190)]).is_err());
    // Killed before the note was written: the orderer does not start.
    assert!(read(&[state(188)]).is_err());
}

#[test]
fn raft_state_of_every_block_reads_back_as_what_the_block_says() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    let chain = network.path().join("OrdererOrg/orderer2/production/chains/mychannel");
    let scratch = tempfile::tempdir().unwrap();
    let mut last = 0;
    for number in 1..27 {
        let state = RaftState::of_block(&record(&chain, number), 5).unwrap();
        assert_eq!((state.number, state.consenters.as_slice()), (number, [1, 2, 3].as_slice()));
        assert!(state.index > last, "block {number}: {} behind {last}", state.index);
        last = state.index;
        std::fs::write(scratch.path().join(FIRST_LOG_FILE), state.log()).unwrap();
        let mut kinds = Vec::new();
        let log = check_wal_directory(scratch.path(), |_, wal| {
            kinds = wal.records.iter().map(|record| record.kind).collect();
            let note = wal.records.iter().rev().find(|record| record.kind == RecordKind::Snapshot).unwrap();
            let note = proto::WalSnapshot::decode(&wal.bytes[note.data.clone()]).unwrap();
            assert_eq!(note.conf_state.unwrap().voters, [1, 2, 3]);
        })
        .unwrap();
        assert_eq!((log.term, log.commit, log.last_index, log.torn), (5, state.index, None, None));
        assert_eq!(log.snapshots, [(0, 0), (5, state.index)]);
        assert_eq!(kinds.len(), 5);
        let file = scratch.path().join(state.snapshot_file());
        std::fs::write(&file, state.snapshot()).unwrap();
        let snapshot = read_snapshot(&file).unwrap();
        assert_eq!((snapshot.term, snapshot.index), (5, state.index));
        assert_eq!((snapshot.block, snapshot.block_hash), (Some(number), Some(state.hash)));
    }
}

#[test]
fn a_block_that_tells_no_raft_state_gives_none() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    let chain = network.path().join("OrdererOrg/orderer1/production/chains/mychannel");
    assert_eq!(RaftState::of_block(&record(&chain, 0), 1), Err(NoState::Index), "the first block was not ordered");
    let whole = record(&chain, 5);
    for end in [0, 1, 40, whole.len() - 1] {
        assert!(matches!(RaftState::of_block(&whole[..end], 1), Err(NoState::Block(_))), "{end} bytes");
    }
}

/// A block whose metadata names other consenters.
fn with_consenters(record: &[u8], consenters: &[u64]) -> Vec<u8> {
    let span = BlockSpan::parse(record, 0..record.len()).unwrap();
    let mut slots: Vec<Vec<u8>> = span.slots(record).all().map(<[u8]>::to_vec).collect();
    let mut signed = common::Metadata::decode(slots[0].as_slice()).unwrap();
    let mut value = common::OrdererBlockMetadata::decode(signed.value.as_slice()).unwrap();
    let mut wrapped = common::Metadata::decode(value.consenter_metadata.as_slice()).unwrap();
    let mut raft = etcdraft::BlockMetadata::decode(wrapped.value.as_slice()).unwrap();
    raft.consenter_ids = consenters.to_vec();
    wrapped.value = raft.encode_to_vec();
    value.consenter_metadata = wrapped.encode_to_vec();
    signed.value = value.encode_to_vec();
    slots[0] = signed.encode_to_vec();
    let mut out = record[span.canonical].to_vec();
    varint::write(slots.len() as u64, &mut out);
    for slot in slots {
        varint::write(slot.len() as u64, &mut out);
        out.extend(slot);
    }
    out
}

#[test]
fn consenters_that_cannot_be_give_no_raft_state() {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    let block = record(&network.path().join("OrdererOrg/orderer1/production/chains/mychannel"), 5);
    let of = |consenters: &[u64]| RaftState::of_block(&with_consenters(&block, consenters), 1);
    assert_eq!(of(&[1, 2, 3]), RaftState::of_block(&block, 1));
    assert_eq!(of(&[2, 5]).unwrap().consenters, [2, 5]);
    let many: Vec<u64> = (1..2_000).collect();
    for wrong in [&[][..], &[0, 1], &[1, 2, 1], &many] {
        assert_eq!(of(wrong), Err(NoState::Consenters(wrong.len())));
    }
}

#[test]
fn a_smartbft_log_that_nothing_was_written_to_is_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let (name, bytes) = smartbft::empty_log();
    std::fs::write(scratch.path().join(name), &bytes).unwrap();
    let summary = smartbft::check_wal_directory(scratch.path()).unwrap();
    assert_eq!((summary.files, summary.entries, summary.torn, summary.signer), (1, 0, None, None));
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
