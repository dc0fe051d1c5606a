//! Databases that were made: read back by the own reader and by another implementation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io;

use fabkeep_ledger::leveldb::{Database, Entry, LevelDbError, WriteSummary, write};
use proptest::prelude::*;
use rusty_leveldb::LdbIterator;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn made(model: &Model) -> (tempfile::TempDir, WriteSummary) {
    let folder = tempfile::tempdir().unwrap();
    let entries = model.iter().map(|(key, value)| Ok::<_, LevelDbError>((key.clone(), value.clone())));
    let mut names = Vec::new();
    let written = write(entries, &mut |name, bytes| {
        names.push(name.to_owned());
        std::fs::write(folder.path().join(name), bytes)
    })
    .unwrap();
    assert_eq!(names.last().map(String::as_str), Some("CURRENT"));
    assert_eq!(written.tables as usize + 3, names.len());
    assert_eq!(written.entries, model.len() as u64);
    let bytes: u64 = names.iter().map(|name| folder.path().join(name).metadata().unwrap().len()).sum();
    assert_eq!(written.bytes, bytes);
    (folder, written)
}

/// The own reader, and after it (it changes the directory) another implementation.
fn assert_holds(folder: &tempfile::TempDir, model: &Model) {
    let database = Database::open(folder.path()).unwrap();
    let report = database.check().unwrap();
    assert_eq!(report.torn, None);
    let read: Vec<Entry> = database.entries(b"", None).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(read.iter().map(|(key, value)| (key, value)).eq(model));
    let options = rusty_leveldb::Options { create_if_missing: false, paranoid_checks: true, ..Default::default() };
    let mut other = rusty_leveldb::DB::open(folder.path(), options).unwrap();
    let mut iterator = other.new_iter().unwrap();
    let mut model_entries = model.iter();
    while let Some((key, value)) = iterator.next() {
        assert_eq!(Some((&key.to_vec(), &value.to_vec())), model_entries.next());
    }
    assert_eq!(model_entries.next(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(model in proptest::collection::btree_map(
        proptest::collection::vec(0u8..4, 0..12), proptest::collection::vec(any::<u8>(), 0..400), 0..400)
    ) {
        let (folder, _) = made(&model);
        assert_holds(&folder, &model);
    }
}

#[test]
fn tables_are_cut_and_do_not_overlap() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut model = Model::new();
    for _ in 0..40_000 {
        let number = random() % 1_000_000;
        let key = [b"mychannel\0\x02\x03".as_slice(), &number.to_be_bytes()[5..], b"chaincode\0collection"].concat();
        model.insert(key, (0..number % 700).map(|_| random() as u8).collect());
    }
    // Values that fill blocks and tables by themselves.
    model.insert(b"big".to_vec(), (0..5 << 20).map(|_| random() as u8).collect());
    model.insert(b"mychannel\0\x05".to_vec(), vec![7; 3 << 20]);
    let (folder, written) = made(&model);
    assert!(written.tables > 7, "{written:?}");
    let database = Database::open(folder.path()).unwrap();
    let keys: Vec<&Vec<u8>> = model.keys().collect();
    for at in (0..keys.len()).step_by(1_999) {
        assert_eq!(database.get(keys[at]).unwrap().as_ref(), model.get(keys[at]));
        let to = keys[(at + 40).min(keys.len() - 1)];
        let range = database.range(keys[at], to).unwrap();
        assert!(range.iter().eq(model.range(keys[at].clone()..to.clone())));
    }
    let largest = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).max();
    assert!(largest < Some(6 << 20), "{largest:?}");
    assert_holds(&folder, &model);
}

#[test]
fn a_database_of_nothing_is_one() {
    let (folder, written) = made(&Model::new());
    assert_eq!((written.tables, written.entries), (0, 0));
    assert_holds(&folder, &Model::new());
}

#[test]
fn keys_that_do_not_ascend_and_files_that_cannot_be_written_are_errors() {
    let attempt = |keys: &[&str], failing: &str| {
        // A value that does not compress, so that each fills a table.
        let value: Vec<u8> = (0..3u32 << 18).flat_map(|i| i.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
        let entries = keys.iter().map(|key| Ok::<_, LevelDbError>((key.as_bytes().to_vec(), value.clone())));
        write(entries, &mut |name, _| if name == failing { Err(io::Error::other("full")) } else { Ok(()) })
    };
    for keys in [&["a", "a"][..], &["b", "a"], &["", ""], &["a", "ab", "aa"]] {
        let error = attempt(keys, "").unwrap_err();
        assert!(matches!(error, LevelDbError::Corrupt { .. }), "{keys:?}");
    }
    assert_eq!(attempt(&["", "a", "aa"], "").unwrap().entries, 3);
    for file in ["000003.ldb", "000004.ldb", "000001.log", "MANIFEST-000002", "CURRENT"] {
        assert!(matches!(attempt(&["", "a", "aa"], file), Err(LevelDbError::Io { file: named, .. }) if named == file));
    }
    let broken =
        [Ok((b"a".to_vec(), vec![])), Err(LevelDbError::Missing { file: String::new(), named_by: String::new() })];
    assert!(matches!(write(broken, &mut |_, _| Ok(())), Err(LevelDbError::Missing { .. })));
}
