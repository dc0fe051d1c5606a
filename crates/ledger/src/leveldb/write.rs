//! Creates a database: the files of a LevelDB directory that goleveldb can open, from entries in the order of their keys.

use std::io;

use super::log::LogWriter;
use super::manifest::{COMPARATOR, LAST_SEQUENCE, LOG_NUMBER, NEW_FILE, NEXT_FILE};
use super::table::{FOOTER_BYTES, MAGIC, NOT_COMPRESSED, SNAPPY};
use super::{Entry, LevelDbError, corrupt, mask_crc};
use crate::varint;

/// A table's block is written once it has this many bytes, a table is ended after the block that makes it this long: goleveldb's defaults.
const BLOCK_BYTES: usize = 4 << 10;
const TABLE_BYTES: usize = 2 << 20;
/// Every so many entries a block has a key in full.
const RESTART_INTERVAL: usize = 16;
/// Bytes that goleveldb lets level 1 have before it compacts it; each level below may have ten times as many.
const LEVEL_1_BYTES: u64 = 100 << 20;
const LAST_LEVEL: u64 = 6;
/// Every key occurs once, so that all entries may have one sequence number.
const SEQUENCE: u64 = 1;
const LOG: u64 = 1;
const MANIFEST: u64 = 2;
const FIRST_TABLE: u64 = 3;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteSummary {
    /// Entries.
    pub entries: u64,
    /// Tables.
    pub tables: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Writes a database that holds these entries, whose keys must ascend. `sink` gets every file whole, with its name; `CURRENT`, without which
/// the others are no database, is the last. One table is in memory at a time, and of those before it what the manifest says of them.
///
/// # Errors
/// What `entries` gives; a [`LevelDbError`] where keys do not ascend or `sink` fails.
pub fn write<E: From<LevelDbError>>(
    entries: impl IntoIterator<Item = Result<Entry, E>>,
    sink: &mut dyn FnMut(&str, Vec<u8>) -> io::Result<()>,
) -> Result<WriteSummary, E> {
    let mut written = WriteSummary::default();
    let mut put = |name: &str, bytes: Vec<u8>| {
        written.bytes += bytes.len() as u64;
        sink(name, bytes).map_err(|source| LevelDbError::Io { file: name.to_owned(), source })
    };
    let mut tables: Vec<TableMeta> = Vec::new();
    let mut end = |table: TableWriter| {
        let (bytes, made) = table.finish();
        put(&format!("{:06}.ldb", FIRST_TABLE + tables.len() as u64), bytes)?;
        tables.push(made);
        Ok::<_, LevelDbError>(())
    };
    let mut table = TableWriter::default();
    for entry in entries {
        let (key, value) = entry?;
        if written.entries > 0 && key <= table.last {
            return Err(corrupt("the entries to write", written.entries, "the keys do not ascend").into());
        }
        table.add(key, &value);
        written.entries += 1;
        if table.bytes.len() >= TABLE_BYTES {
            let last = table.last.clone();
            end(std::mem::take(&mut table))?;
            table.last = last;
        }
    }
    if table.first.is_some() {
        end(table)?;
    }
    written.tables = tables.len() as u64;
    put(&format!("{LOG:06}.log"), Vec::new())?;
    let manifest = format!("MANIFEST-{MANIFEST:06}");
    put(&manifest, manifest_of(&tables))?;
    put("CURRENT", format!("{manifest}\n").into_bytes())?;
    Ok(written)
}

/// A table that was made: what the manifest says of it.
struct TableMeta {
    size: u64,
    first: Vec<u8>,
    last: Vec<u8>,
}

/// Returns the manifest, with one version edit. Tables lie in the first level that is not compacted at once.
fn manifest_of(tables: &[TableMeta]) -> Vec<u8> {
    let total: u64 = tables.iter().map(|table| table.size).sum();
    let holds = |level: &u64| total < LEVEL_1_BYTES * 10u64.pow(*level as u32 - 1);
    let level = (1..LAST_LEVEL).find(holds).unwrap_or(LAST_LEVEL);
    let mut edit = Vec::new();
    let put_bytes = |bytes: &[u8], edit: &mut Vec<u8>| {
        varint::write(bytes.len() as u64, edit);
        edit.extend(bytes);
    };
    varint::write(COMPARATOR, &mut edit);
    put_bytes(b"leveldb.BytewiseComparator", &mut edit);
    let numbers = [(LOG_NUMBER, LOG), (NEXT_FILE, FIRST_TABLE + tables.len() as u64), (LAST_SEQUENCE, SEQUENCE)];
    numbers.into_iter().flat_map(|(field, number)| [field, number]).for_each(|number| varint::write(number, &mut edit));
    for (number, table) in (FIRST_TABLE..).zip(tables) {
        [NEW_FILE, level, number, table.size].into_iter().for_each(|number| varint::write(number, &mut edit));
        put_bytes(&internal(&table.first), &mut edit);
        put_bytes(&internal(&table.last), &mut edit);
    }
    let mut log = LogWriter::default();
    log.append(&edit);
    log.into_bytes()
}

/// Returns a key as tables and manifests hold it: with sequence number and type (a value).
fn internal(key: &[u8]) -> Vec<u8> {
    [key, &(SEQUENCE << 8 | 1).to_le_bytes()].concat()
}

/// A table that is being made.
#[derive(Default)]
struct TableWriter {
    bytes: Vec<u8>,
    first: Option<Vec<u8>>,
    last: Vec<u8>,
    block: BlockWriter,
    index: BlockWriter,
}

impl TableWriter {
    fn add(&mut self, key: Vec<u8>, value: &[u8]) {
        self.block.add(&internal(&key), value, RESTART_INTERVAL);
        self.first.get_or_insert_with(|| key.clone());
        self.last = key;
        if self.block.len() >= BLOCK_BYTES {
            self.end_block();
        }
    }

    fn end_block(&mut self) {
        let handle = put_block(std::mem::take(&mut self.block), &mut self.bytes);
        self.index.add(&internal(&self.last), &handle, 1);
    }

    fn finish(mut self) -> (Vec<u8>, TableMeta) {
        if self.block.len() > BlockWriter::default().len() {
            self.end_block();
        }
        let mut footer = put_block(BlockWriter::default(), &mut self.bytes);
        footer.extend(put_block(self.index, &mut self.bytes));
        footer.resize(FOOTER_BYTES as usize - 8, 0);
        self.bytes.extend(footer);
        self.bytes.extend(MAGIC.to_le_bytes());
        let made = TableMeta { size: self.bytes.len() as u64, first: self.first.unwrap_or_default(), last: self.last };
        (self.bytes, made)
    }
}

/// Appends a block with its compression and checksum; where it lies.
fn put_block(block: BlockWriter, out: &mut Vec<u8>) -> Vec<u8> {
    let plain = block.finish();
    let at = out.len();
    match snap::raw::Encoder::new().compress_vec(&plain) {
        Ok(compressed) if compressed.len() < plain.len() => {
            out.extend(compressed);
            out.push(SNAPPY);
        }
        _ => {
            out.extend(plain);
            out.push(NOT_COMPRESSED);
        }
    }
    let mut handle = Vec::new();
    varint::write(at as u64, &mut handle);
    varint::write((out.len() - 1 - at) as u64, &mut handle);
    let crc = mask_crc(crc32c::crc32c(&out[at..]));
    out.extend(crc.to_le_bytes());
    handle
}

/// A block that is being made: entries with what they share with the key before, and where keys stand in full.
#[derive(Default)]
struct BlockWriter {
    bytes: Vec<u8>,
    last: Vec<u8>,
    restarts: Vec<u32>,
    entries: usize,
}

impl BlockWriter {
    fn add(&mut self, key: &[u8], value: &[u8], interval: usize) {
        let mut shared = 0;
        if self.entries.is_multiple_of(interval) {
            self.restarts.push(self.bytes.len() as u32);
        } else {
            shared = self.last.iter().zip(key).take_while(|(one, other)| one == other).count();
        }
        for number in [shared, key.len() - shared, value.len()] {
            varint::write(number as u64, &mut self.bytes);
        }
        self.bytes.extend(&key[shared..]);
        self.bytes.extend(value);
        self.last.clear();
        self.last.extend(key);
        self.entries += 1;
    }

    fn len(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len().max(1) + 4
    }

    fn finish(mut self) -> Vec<u8> {
        if self.restarts.is_empty() {
            self.restarts.push(0);
        }
        let count = self.restarts.len() as u32;
        self.restarts.push(count);
        self.bytes.extend(self.restarts.iter().flat_map(|number| number.to_le_bytes()));
        self.bytes
    }
}
