//! Private-data stores of real peers at every earlier height, and made-up ones for what real ones seldom hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use fabkeep_ledger::Hash;
use fabkeep_ledger::block_file::ChainReader;
use fabkeep_ledger::leveldb::{self, Database, Entry, LevelDbError, private_data_height};
use fabkeep_ledger::private_hashes::{self, PrivateWrite};
use fabkeep_ledger::private_store::{Loss, Trim, TrimError, Trimmed};

/// Ledgers mychannel (28 blocks) and settlement (4 blocks) of a peer whose purger runs every 10 blocks: purges carried out (blocks 10, 12, 17) and to
/// be carried out (22 to 24), writes with several keys, collection `short` whose data lives for 6 blocks. Fabric 2.5.16.
const PURGED: &[u8] = include_bytes!("purged.tar.zst");

type Writes = BTreeMap<u64, Vec<(PrivateWrite, Hash)>>;

/// What the valid transactions of a chain wrote, by block.
fn writes(chain: &Path) -> Writes {
    let mut out = Writes::new();
    let mut reader = ChainReader::open(chain).unwrap();
    while let Some(batch) = reader.next_batch(1 << 20, u64::MAX).unwrap() {
        for block in &batch.blocks {
            out.insert(block.number, private_hashes::of_block(block, &batch.buffer));
        }
    }
    out
}

fn heights(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(ledger, height)| ((*ledger).to_owned(), *height)).collect()
}

/// A store brought to heights, in a new directory; the report, and the blocks that were asked for.
fn trim(
    store: &Path,
    to: &[(&str, u64)],
    writes: &Writes,
) -> Result<(tempfile::TempDir, BTreeMap<String, Trimmed>, Vec<u64>), TrimError> {
    let database = Database::open(store).unwrap();
    let mut asked = Vec::new();
    let mut writes_of = |ledger: &str, block: u64| {
        assert_eq!(ledger, "mychannel");
        asked.push(block);
        Ok(writes.get(&block).cloned().unwrap_or_default())
    };
    let folder = tempfile::tempdir().unwrap();
    let mut trimmed = Trim::new(&database, &heights(to), &mut writes_of)?;
    leveldb::write(&mut trimmed, &mut |name, bytes| std::fs::write(folder.path().join(name), bytes))?;
    let report = trimmed.report();
    drop(trimmed);
    Database::open(folder.path()).unwrap().check().unwrap();
    Ok((folder, report, asked))
}

fn all(store: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    Database::open(store).unwrap().entries(b"", None).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The block that an entry of a ledger belongs to; `None` for what belongs to none. Numbers of the stores here fit a byte.
fn block_of(key: &[u8], value: &[u8]) -> Option<u64> {
    let small = |bytes: &[u8]| match bytes {
        [0, ..] => 0,
        [1, number, ..] => u64::from(*number),
        _ => panic!("{bytes:?}"),
    };
    let down = |bytes: &[u8]| match bytes {
        [7, number, ..] => u64::from(!*number),
        [8, ..] => 0,
        _ => panic!("{bytes:?}"),
    };
    let rest = &key[1..];
    let behind_names = || rest.splitn(3, |&byte| byte == 0).nth(2).unwrap();
    match key[0] {
        1 => None,
        2 => Some(small(rest)),
        3 => Some(small(&rest[usize::from(rest[0]) + 1..])),
        4 | 8 | 6 => Some(down(rest)),
        5 => Some(down(behind_names())),
        b'b' => Some(small(&behind_names()[32..])),
        b'c' | b'd' | b'e' => Some(small(value)),
        group => panic!("{group}"),
    }
}

#[test]
fn of_real_stores_stays_exactly_what_belongs_to_the_blocks_below_the_height() {
    for (packed, ledgers) in [
        (fabkeep_fixtures::NETWORK_SMALL, &[("mychannel", 27), ("settlement", 8)][..]),
        (fabkeep_fixtures::NETWORK_BFT, &[("mychannel", 24)]),
    ] {
        let network = tempfile::tempdir().unwrap();
        fabkeep_fixtures::unpack(packed, network.path()).unwrap();
        for peer in ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"] {
            let store = network.path().join(peer).join("production/ledgersData/pvtdataStore");
            let before = all(&store);
            for &(ledger, tip) in ledgers {
                let prefix = [ledger.as_bytes(), &[0]].concat();
                let mut stayed = BTreeSet::new();
                for height in 1..=tip {
                    let (folder, report, asked) = trim(&store, &[(ledger, height)], &Writes::new()).unwrap();
                    let mut expected = before.clone();
                    expected.retain(|key, value| {
                        let of_ledger = key.strip_prefix(&prefix[..]);
                        of_ledger.is_none_or(|key| block_of(key, value).is_none_or(|block| block < height))
                    });
                    expected.insert([&prefix[..], &[1]].concat(), vec![height as u8 - 1]);
                    assert_eq!(all(folder.path()), expected, "{peer} {ledger} {height}");
                    assert_eq!(private_data_height(folder.path(), ledger).unwrap(), Some(height));
                    let trimmed = &report[ledger];
                    assert_eq!((trimmed.held, trimmed.height), (tip, height));
                    assert_eq!(trimmed.removed, (before.len() - expected.len()) as u64);
                    assert!(trimmed.collections.is_empty() && asked.is_empty(), "nothing is purged or expires");
                    stayed.insert(expected.len());
                }
                assert!(stayed.len() > 3, "{peer} {ledger}: {stayed:?}");
                assert_eq!(stayed.last(), Some(&before.len()));
            }
        }
    }
}

fn purged() -> (tempfile::TempDir, PathBuf, Writes) {
    let folder = tempfile::tempdir().unwrap();
    fabkeep_fixtures::unpack(PURGED, folder.path()).unwrap();
    let writes = writes(&folder.path().join("chains/mychannel"));
    let store = folder.path().join("pvtdataStore");
    (folder, store, writes)
}

/// Fabric compares what the store holds of a block with the block's hashes when it makes the state anew, and leaves out keys whose purge is to be
/// carried out. One that is not equal keeps the channel from opening.
#[test]
fn what_stays_beside_purged_data_is_what_the_blocks_name() {
    let (_folder, store, writes) = purged();
    let prefix = b"mychannel\0".as_slice();
    let whole = |key: &[u8], value: &[u8]| {
        let block = block_of(key, value).unwrap();
        let mut names = key[1..].rsplitn(3, |&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let (collection, chaincode) = (names.next().unwrap(), names.next().unwrap());
        let of_block = writes[&block].iter().find(|(write, _)| {
            write.collection == collection && write.chaincode == chaincode && write.transaction == 0
        });
        private_hashes::of_stored(value)
            == Some(of_block.expect("every transaction here is the only one of its block").1)
    };
    let before = all(&store);
    let settlement = |entries: &BTreeMap<Vec<u8>, Vec<u8>>| {
        let mut entries = entries.clone();
        entries.retain(|key, _| !key.starts_with(prefix));
        entries
    };
    for height in 1..=28 {
        let (folder, _, _) = trim(&store, &[("mychannel", height)], &writes).unwrap();
        let after = all(folder.path());
        assert_eq!(settlement(&after), settlement(&before));
        let of = |entries: &BTreeMap<Vec<u8>, Vec<u8>>| -> Vec<Entry> {
            let entries =
                entries.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_vec(), value.clone())));
            entries.collect()
        };
        let (before, after) = (of(&before), of(&after));
        let mut data = BTreeSet::new();
        for (key, value) in &after {
            assert!(block_of(key, value).is_none_or(|block| block < height));
            if key[0] == 2 {
                assert!(whole(key, value), "{height} {key:?}");
                data.insert(key[1..].to_vec());
            }
        }
        // Keys of what was left out lead nowhere: they are left out too. All others are there.
        let hashed = |key: &[u8]| {
            let end = key.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(1).unwrap().0;
            [&key[end + 33..], &key[1..end]].concat()
        };
        for (key, value) in before.iter().filter(|(key, _)| key[0] == b'b') {
            let stays = after.contains(&(key.clone(), value.clone()));
            assert_eq!(stays, data.contains(&hashed(key)), "{height} {key:?}");
        }
        // A write that is whole and has no key whose purge is to be carried out stays.
        let to_purge: Vec<&[u8]> = match height {
            0..=22 => vec![],
            23 => vec![b"\x02pb"],
            24 => vec![b"\x02pb", b"\x02pi"],
            _ => vec![b"\x02pb", b"\x02pi", b"\x02x2"],
        };
        for (key, value) in before.iter().filter(|(key, value)| key[0] == 2 && block_of(key, value).unwrap() < height) {
            let named = |name: &&[u8]| value.windows(name.len()).any(|window| window == *name);
            let stays = whole(key, value) && !to_purge.iter().any(named);
            assert_eq!(data.contains(&key[1..]), stays, "{height} {key:?}");
        }
        // The last purge of a collection is that of one of its keys, and stands where one is to be carried out.
        let group = |group: u8| after.iter().filter(move |(key, _)| key[0] == group);
        let collections: BTreeSet<&[u8]> = group(b'c').map(|(key, _)| &key[1..key.len() - 33]).collect();
        assert_eq!(group(b'd').map(|(key, _)| &key[1..]).collect::<BTreeSet<_>>(), collections);
        for (key, value) in group(b'd') {
            let last = group(b'c').filter(|(of, _)| of[1..].starts_with(&key[1..])).map(|(_, value)| value).max();
            assert_eq!(Some(value), last);
        }
    }
}

#[test]
fn what_is_lost_by_purging_and_expiry_is_counted_by_collection() {
    let (_folder, store, writes) = purged();
    let of = |height| {
        let (folder, report, asked) = trim(&store, &[("mychannel", height)], &writes).unwrap();
        let of = |collection: &str| {
            let names = ("multi".to_owned(), collection.to_owned());
            report["mychannel"].collections.get(&names).copied().unwrap_or_default()
        };
        let missing = leveldb::missing_private_data(folder.path(), "mychannel").unwrap();
        let missing = missing.into_iter().map(|one| (one.collection, one.block, one.transactions)).collect::<Vec<_>>();
        ((of("collectionMarbles"), of("collectionMarblePrivateDetails"), of("short")), missing, asked)
    };
    let none = Loss::default();
    let short = Loss { block_to_live: Some(6), ..none };
    let note = |collection: &str, block| (collection.to_owned(), block, vec![0]);

    let ((marbles, details, expired), missing, asked) = of(28);
    assert_eq!(marbles, Loss { emptied_writes: 8, cut_writes: 2, ..none });
    assert_eq!(details, Loss { emptied_writes: 1, cut_writes: 1, ..none });
    assert_eq!(expired, short);
    let marked =
        [note("collectionMarblePrivateDetails", 19), note("collectionMarbles", 4), note("collectionMarbles", 13)];
    assert_eq!(missing, marked);
    assert!(asked.is_sorted());

    let ((marbles, details, expired), missing, _) = of(20);
    let behind = Loss { purged_keys: 2, purged_keys_held: 2, ..none };
    assert_eq!(marbles, Loss { emptied_writes: 5, cut_writes: 1, ..behind });
    assert_eq!(details, Loss { purged_keys: 1, purged_keys_held: 1, ..none });
    // Of blocks 14, 15 and 18; that of block 11 was gone before.
    assert_eq!(expired, Loss { expired_writes_held: 3, ..short });
    assert_eq!(missing, [note("collectionMarbles", 4)]);

    let ((marbles, _, expired), missing, asked) = of(15);
    assert_eq!(marbles.purged_keys, 3);
    assert_eq!(marbles.purged_keys_held, 2);
    // Of block 14; those of blocks 8 and 11 are gone.
    assert_eq!(expired, Loss { expired_writes_held: 1, expired_writes: 2, ..short });
    assert_eq!(missing, [note("collectionMarbles", 4)]);
    assert_eq!(asked[..6], [8, 9, 10, 11, 12, 13], "blocks whose data of 6 blocks' life is gone and would live");
}

/// A store with these entries.
fn made(entries: &[(&[u8], &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut entries: Vec<Entry> = entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    entries.sort();
    let entries = entries.into_iter().map(Ok::<_, LevelDbError>);
    leveldb::write(entries, &mut |name, bytes| std::fs::write(folder.path().join(name), bytes)).unwrap();
    folder
}

fn try_trim(entries: &[(&[u8], &[u8])], height: u64) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, TrimError> {
    let (folder, ..) = trim(made(entries).path(), &[("mychannel", height)], &Writes::new())?;
    Ok(all(folder.path()))
}

#[test]
fn heights_that_a_ledger_cannot_be_brought_to_are_refused() {
    let plain: &[(&[u8], &[u8])] = &[(b"mychannel\0\x01", &[9])];
    assert!(matches!(try_trim(plain, 0), Err(TrimError::NoBlock(_))));
    assert!(matches!(try_trim(plain, 11), Err(TrimError::Behind { height: 11, held: 10, .. })));
    assert!(matches!(try_trim(&[(b"mychannel1\0\x01", &[9])], 3), Err(TrimError::UnknownLedger(_))));
    assert_eq!(try_trim(plain, 10).unwrap()[b"mychannel\0\x01".as_slice()], [9]);

    let snapshot: &[(&[u8], &[u8])] =
        &[(b"mychannel\0\x01", &[9]), (b"mychannel\0a", &[6]), (b"mychannel\0\x09\x01\x02\0a\0b", b"hashes")];
    assert!(matches!(try_trim(snapshot, 6), Err(TrimError::BelowSnapshot { height: 6, snapshot: 7, .. })));
    let after = try_trim(snapshot, 7).unwrap();
    assert_eq!(after.len(), 3);
    assert_eq!(after[b"mychannel\0\x01".as_slice()], [6]);
}

#[test]
fn entries_that_are_none_of_fabrics_are_refused_and_those_of_other_ledgers_are_not_looked_at() {
    for (key, value) in [
        (b"mychannel\0\x0a".as_slice(), b"".as_slice()),
        (b"mychannel\0z", b""),
        (b"mychannel\0\x02", b""),
        (b"mychannel\0\x02\x09", b""),
        (b"mychannel\0\x02\x01\x03", b""),
        (b"mychannel\0\x03\x01\x05\x01\x03x", b""),
        (b"mychannel\0\x03\x01\x03\x01\x05", b""),
        (b"mychannel\0\x04\x07", b""),
        (b"mychannel\0\x05multi\0collection", b""),
        (b"mychannel\0bmulti\0collection\0short", b""),
        (b"mychannel\0cmulti\0collection\0short", b"\x01\x03\0"),
        (b"mychannel\0dmulti\0collection", b"\x01"),
    ] {
        let entries: &[(&[u8], &[u8])] = &[(b"mychannel\0\x01", &[9]), (key, value)];
        assert!(matches!(try_trim(entries, 5), Err(TrimError::Entry { .. })), "{key:?}");
        let other = [b"other", &key[9..]].concat();
        let entries: &[(&[u8], &[u8])] =
            &[(b"mychannel\0\x01", &[9]), (b"_\0f", b"2.5"), (&other, value), (b"x", b"y")];
        assert_eq!(try_trim(entries, 5).unwrap().len(), 4);
    }
}

#[test]
fn what_older_versions_of_fabric_leave_behind_goes_and_their_data_stays() {
    let entries: &[(&[u8], &[u8])] = &[
        (b"mychannel\0\x00", b""),
        (b"mychannel\0\x01", &[9]),
        // Fabric 1.1: no names. Block 10 was being committed.
        (b"mychannel\0\x02\x01\x04\0", b"data"),
        (b"mychannel\0\x02\x01\x0a\0", b"data"),
        (b"mychannel\0\x06\x07\xfb", b"block 4"),
        (b"mychannel\0\x06\x07\xfa", b"block 5"),
        (b"mychannel\0\x07", b"\x01\x04"),
    ];
    let after = try_trim(entries, 10).unwrap();
    let keys: Vec<&[u8]> = after.keys().map(|key| &key[10..]).collect();
    assert_eq!(keys, [b"\x01".as_slice(), b"\x02\x01\x04\0", b"\x06\x07\xfa", b"\x06\x07\xfb"]);
    assert_eq!(try_trim(entries, 5).unwrap().len(), 3);
}

/// A write to a collection as the store holds it: its keys.
fn write_of(keys: &[&str]) -> Vec<u8> {
    let writes = keys.iter().flat_map(|key| {
        let write = [&[0x0a, key.len() as u8], key.as_bytes()].concat();
        [&[0x1a, write.len() as u8], &write[..]].concat()
    });
    let writes: Vec<u8> = writes.collect();
    [b"\x0a\x01c\x12".as_slice(), &[writes.len() as u8], &writes].concat()
}

#[test]
fn what_purges_left_is_noted_beside_what_was_missing_before() {
    let hash = |value: &[u8]| private_hashes::of_stored(value).unwrap();
    let (ab, b, c) = (write_of(&["a", "b"]), write_of(&["b"]), write_of(&["c"]));
    let of = |transaction, value: &[u8]| {
        let write = PrivateWrite { block: 4, transaction, chaincode: "m".to_owned(), collection: "c".to_owned() };
        (write, hash(value))
    };
    // Transaction 0 lost a key, 70 is whole, 71 is not valid, 72 is of the time behind the last purge.
    let writes = Writes::from([(4, vec![of(0, &ab), of(70, &c)])]);
    let store = made(&[
        (b"mychannel\0\x01", &[9]),
        (b"mychannel\0\x02\x01\x04\0m\0c", &b),
        (b"mychannel\0\x02\x01\x04\x01\x46m\0c", &c),
        (b"mychannel\0\x02\x01\x04\x01\x47m\0c", &b),
        (b"mychannel\0\x02\x01\x04\x01\x48m\0c", &b),
        (b"mychannel\0\x04\x07\xfbm\0c", &[0, 0, 0, 0, 0, 0, 0, 66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
        (b"mychannel\0dm\0c", b"\x01\x04\x01\x47"),
    ]);
    let (folder, report, asked) = trim(store.path(), &[("mychannel", 10)], &writes).unwrap();
    let after = all(folder.path());
    let note = [0, 0, 0, 0, 0, 0, 0, 66, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
    assert_eq!(after[b"mychannel\0\x04\x07\xfbm\0c".as_slice()], note);
    assert_eq!((after.len(), asked), (6, vec![4]));
    assert!(!after.contains_key(b"mychannel\0\x02\x01\x04\0m\0c".as_slice()));
    let loss = report["mychannel"].collections[&("m".to_owned(), "c".to_owned())];
    assert_eq!(loss, Loss { cut_writes: 1, ..Loss::default() });
}

#[test]
fn blocks_that_cannot_be_read_end_it() {
    let (_folder, store, _) = purged();
    let database = Database::open(&store).unwrap();
    let mut writes_of = |_: &str, _: u64| Err(io::Error::other("no such block"));
    let mut trimmed = Trim::new(&database, &heights(&[("mychannel", 28)]), &mut writes_of).unwrap();
    let error = trimmed.find_map(Result::err).unwrap();
    assert!(matches!(error, TrimError::Block { block: 4, .. }), "{error}");
}
