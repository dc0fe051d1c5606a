//! LevelDB tables, written by another implementation: read right, and every damage found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use fabkeep_ledger::leveldb::{Database, LevelDbError};

fn key(i: u32) -> Vec<u8> {
    format!("mychannel\0key{i:06}").into_bytes()
}

fn value(i: u32) -> Vec<u8> {
    (0..(i % 300)).map(|j| (i.wrapping_mul(j + 1) >> 3) as u8).collect()
}

fn make(folder: &Path) {
    let options = rusty_leveldb::Options { write_buffer_size: 64 << 10, ..Default::default() };
    let mut database = rusty_leveldb::DB::open(folder, options).unwrap();
    for i in 0..4_000 {
        database.put(&key(i), &value(i)).unwrap();
    }
    for i in (0..4_000).step_by(7) {
        database.delete(&key(i)).unwrap();
    }
    database.put(&key(8), b"new").unwrap();
    database.flush().unwrap();
    database.close().unwrap();
}

fn tables(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut tables: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ldb"))
        .collect();
    tables.sort();
    tables
}

#[test]
fn tables_and_log_together_give_the_newest_values() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    assert!(tables(folder.path()).len() > 1);
    let database = Database::open(folder.path()).unwrap();
    assert!(database.check().unwrap().tables > 1);
    assert_eq!(database.get(&key(8)).unwrap().as_deref(), Some(b"new".as_slice()));
    assert_eq!(database.get(&key(14)).unwrap(), None);
    assert_eq!(database.get(b"absent").unwrap(), None);
    for i in [1, 99, 1_000, 2_346, 3_998] {
        assert_eq!(database.get(&key(i)).unwrap(), Some(value(i)), "{i}");
    }
    let all = database.range(b"mychannel", b"mychannem").unwrap();
    assert_eq!(all.len(), (0..4_000).filter(|i| i % 7 != 0).count());
}

#[test]
fn every_flipped_cut_or_missing_table_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let check = || Database::open(folder.path()).and_then(|database| database.check());
    let live: Vec<_> = tables(folder.path())
        .into_iter()
        .filter(|path| {
            // Only tables of the current version count.
            let whole = std::fs::read(path).unwrap();
            std::fs::remove_file(path).unwrap();
            let needed = matches!(check(), Err(LevelDbError::Missing { .. }));
            std::fs::write(path, whole).unwrap();
            needed
        })
        .collect();
    assert!(!live.is_empty());
    for path in live {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read(&path).unwrap();
        let ends = (0..80).chain(whole.len() - 80..whole.len());
        for at in ends.chain((0..whole.len()).step_by(whole.len() / 150 + 1)) {
            let mut broken = whole.clone();
            broken[at] ^= 0x24;
            std::fs::write(&path, &broken).unwrap();
            let error = check().expect_err(&format!("{name} byte {at}"));
            assert!(error.to_string().contains(&name), "{error}");
        }
        for len in [0, 47, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(check().unwrap_err().to_string().contains(&name));
        }
        std::fs::write(&path, &whole).unwrap();
        check().unwrap();
    }
}
