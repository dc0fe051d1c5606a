//! Bytes that somebody made up: every reader gives an error or a result, never a panic, and allocates no more than there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use fabkeep_ledger::block_file::{ChainReader, parse_canonical_records};
use fabkeep_ledger::certificate::{Certificate, public_key_of_private_pem};
use fabkeep_ledger::chain::check_blocks;
use fabkeep_ledger::channel_config::ChannelConfig;
use fabkeep_ledger::leveldb::{Database, read_log};
use fabkeep_ledger::private_store::Trim;
use fabkeep_ledger::raft::{Wal, newest_snapshot};
use fabkeep_ledger::{smartbft, wal_split};
use proptest::prelude::*;

/// Feeds bytes to every reader.
fn read_everything(bytes: &[u8], folder: &Path) {
    let _ = parse_canonical_records(bytes);
    let _ = ChannelConfig::from_envelope(bytes);
    let _ = Certificate::from_pem(bytes);
    let _ = Certificate::from_der(bytes);
    let _ = public_key_of_private_pem(bytes);
    let _ = read_log("log", bytes, |_, _| Ok(()));
    let _ = Wal::parse("wal", bytes.to_vec(), &mut None);
    let _ = wal_split::referenced_blocks(bytes);
    let _ = wal_split::join(bytes, 1 << 20, &mut |_| None);
    std::fs::create_dir_all(folder).unwrap();
    for name in [
        "blockfile_000000",
        "MANIFEST-000001",
        "000005.ldb",
        "0000000000000001.wal",
        "0000000000000001-0000000000000001.snap",
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    std::fs::write(folder.join("CURRENT"), "MANIFEST-000001\n").unwrap();
    if let Ok(mut reader) = ChainReader::open(folder) {
        while let Ok(Some(batch)) = reader.next_batch(4096, u64::MAX) {
            let _ = check_blocks(&batch.buffer, &batch.blocks, "batch");
        }
    }
    if let Ok(database) = Database::open(folder) {
        let _ = database.check();
        let heights = ["mychannel", "settlement"].map(|ledger| (ledger.to_owned(), 3)).into();
        let mut no_writes = |_: &str, _: u64| Ok(Vec::new());
        let _ = Trim::new(&database, &heights, &mut no_writes).map(Iterator::count);
    }
    let _ = smartbft::check_wal_directory(folder);
    let _ = newest_snapshot(folder);
}

/// Real bytes to start from: a block file, a database's log, a raft log, a certificate.
fn real() -> Vec<Vec<u8>> {
    let network = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network.path()).unwrap();
    let read = |path: &str| {
        let mut bytes = std::fs::read(network.path().join(path)).unwrap();
        bytes.truncate(20_000);
        bytes
    };
    vec![
        read("Org1/peer0/production/ledgersData/chains/chains/settlement/blockfile_000000"),
        read("Org1/peer0/production/ledgersData/pvtdataStore/000002.log"),
        read("Org1/peer0/production/ledgersData/pvtdataStore/MANIFEST-000003"),
        read("OrdererOrg/orderer1/production/etcdraft/wal/settlement/0000000000000000-0000000000000000.wal"),
        read("Org1/ca/ca-cert.pem"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_are_no_reason_to_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let folder = tempfile::tempdir().unwrap();
        read_everything(&bytes, folder.path());
    }
}

#[test]
fn damaged_real_bytes_are_no_reason_to_panic() {
    let folder = tempfile::tempdir().unwrap();
    let real = real();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for round in 0..600 {
        let mut bytes = real[round % real.len()].clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % bytes.len();
            match random() % 4 {
                0 => bytes[at] = random() as u8,
                1 => bytes[at] = [0x00, 0x7f, 0x80, 0xff][random() % 4],
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let other = &real[random() % real.len()];
                    let from = random() % other.len();
                    let piece = &other[from..(from + random() % 64).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
        read_everything(&bytes, folder.path());
    }
}
