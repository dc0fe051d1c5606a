//! Table files: sorted, checksummed blocks with an index and a footer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Entry, LevelDbError, MAX_TABLE_BLOCK_BYTES, corrupt, mask_crc};
use crate::varint;

pub(super) const FOOTER_BYTES: u64 = 48;
pub(super) const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
const TRAILER_BYTES: u64 = 5;
/// A block's last byte before its checksum: how it is compressed.
pub(super) const NOT_COMPRESSED: u8 = 0;
pub(super) const SNAPPY: u8 = 1;

/// An open table file.
pub(super) struct Table {
    file: File,
    name: String,
    len: u64,
    index: Handle,
    metaindex: Handle,
}

#[derive(Clone, Copy)]
struct Handle {
    offset: u64,
    len: u64,
}

impl Handle {
    fn read(bytes: &[u8]) -> Option<(Handle, usize)> {
        let (offset, a) = varint::read(bytes)?;
        let (len, b) = varint::read(&bytes[a..])?;
        Some((Handle { offset, len }, a + b))
    }

    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)?.checked_add(TRAILER_BYTES)
    }
}

impl Table {
    /// Opens a table and reads its footer.
    pub fn open(path: &Path, name: &str) -> Result<Table, LevelDbError> {
        let io = |source| LevelDbError::Io { file: name.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        if len < FOOTER_BYTES {
            return Err(corrupt(name, 0, format!("{len} bytes are too few for a table")));
        }
        let at = len - FOOTER_BYTES;
        let mut footer = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut footer, at).map_err(io)?;
        let bad = || corrupt(name, at, "the footer is malformed");
        if footer[40..] != MAGIC.to_le_bytes() {
            return Err(corrupt(name, at, "the footer does not end with a table's magic number"));
        }
        let (metaindex, a) = Handle::read(&footer[..40]).ok_or_else(bad)?;
        let (index, b) = Handle::read(&footer[a..40]).ok_or_else(bad)?;
        if footer[a + b..40].iter().any(|&byte| byte != 0) || index.end() != Some(at) {
            return Err(bad());
        }
        Ok(Table { file, name: name.to_owned(), len, index, metaindex })
    }

    /// Reads every block and checks its checksum, and that the blocks fill the file.
    pub fn check(&self) -> Result<(), LevelDbError> {
        let mut covered = FOOTER_BYTES;
        let mut handles = vec![self.metaindex, self.index];
        for (_, value) in self.entries(self.metaindex)? {
            let (handle, _) = self.handle(&value)?;
            handles.push(handle);
        }
        for (_, value) in self.entries(self.index)? {
            handles.push(self.handle(&value)?.0);
        }
        for handle in handles {
            self.raw_block(handle)?;
            covered += handle.len + TRAILER_BYTES;
        }
        if covered != self.len {
            return Err(corrupt(&self.name, 0, format!("the index covers {covered} of {} bytes", self.len)));
        }
        Ok(())
    }

    /// Returns a cursor in front of the first block that can hold user keys from `from` on.
    pub fn cursor(self, from: &[u8]) -> Result<Cursor, LevelDbError> {
        let mut blocks = self.entries(self.index)?;
        blocks.drain(..blocks.partition_point(|(separator, _)| user_key(separator) < from));
        Ok(Cursor { table: self, blocks: blocks.into_iter(), entries: Vec::new().into_iter() })
    }

    fn handle(&self, bytes: &[u8]) -> Result<(Handle, usize), LevelDbError> {
        Handle::read(bytes).ok_or_else(|| corrupt(&self.name, self.index.offset, "a block handle does not decode"))
    }

    fn raw_block(&self, handle: Handle) -> Result<Vec<u8>, LevelDbError> {
        let bad = |problem: &str| corrupt(&self.name, handle.offset, problem);
        let end = handle.end().filter(|&end| end <= self.len).ok_or_else(|| bad("a block lies outside the file"))?;
        if handle.len > MAX_TABLE_BLOCK_BYTES as u64 {
            return Err(bad("a block is too long"));
        }
        let mut bytes = vec![0; (end - handle.offset) as usize];
        self.file
            .read_exact_at(&mut bytes, handle.offset)
            .map_err(|source| LevelDbError::Io { file: self.name.clone(), source })?;
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if mask_crc(crc32c::crc32c(body)).to_le_bytes() != crc {
            return Err(bad("the block's checksum is wrong"));
        }
        bytes.truncate(bytes.len() - 4);
        Ok(bytes)
    }

    fn entries(&self, handle: Handle) -> Result<Vec<Entry>, LevelDbError> {
        let bad = |problem: &str| corrupt(&self.name, handle.offset, problem);
        let mut raw = self.raw_block(handle)?;
        let block = match raw.pop() {
            Some(NOT_COMPRESSED) => raw,
            Some(SNAPPY) => {
                let len = snap::raw::decompress_len(&raw).map_err(|_| bad("the block does not decompress"))?;
                if len > MAX_TABLE_BLOCK_BYTES {
                    return Err(bad("a block is too long"));
                }
                snap::raw::Decoder::new().decompress_vec(&raw).map_err(|_| bad("the block does not decompress"))?
            }
            _ => return Err(bad("the block's compression is unknown")),
        };
        parse_entries(&block).ok_or_else(|| bad("the block's entries do not decode"))
    }
}

/// Entries of a table in their order, one block at a time in memory.
pub(super) struct Cursor {
    table: Table,
    blocks: std::vec::IntoIter<Entry>,
    entries: std::vec::IntoIter<Entry>,
}

impl Iterator for Cursor {
    /// Internal key and value.
    type Item = Result<Entry, LevelDbError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let (_, value) = self.blocks.next()?;
            match self.table.handle(&value).and_then(|(handle, _)| self.table.entries(handle)) {
                Ok(entries) => self.entries = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn parse_entries(block: &[u8]) -> Option<Vec<Entry>> {
    let (rest, count) = block.split_last_chunk::<4>()?;
    let restarts = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(4)?;
    let body = rest.get(..rest.len().checked_sub(restarts)?)?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let mut next = || -> Option<usize> {
            let (value, used) = varint::read(&body[at..])?;
            at += used;
            usize::try_from(value).ok()
        };
        let (shared, own, value_len) = (next()?, next()?, next()?);
        let mut key = entries.last().map(|(key, _)| key.as_slice()).unwrap_or_default().get(..shared)?.to_vec();
        let own_end = at.checked_add(own)?;
        key.extend(body.get(at..own_end)?);
        let value_end = own_end.checked_add(value_len)?;
        let value = body.get(own_end..value_end)?.to_vec();
        at = value_end;
        entries.push((key, value));
    }
    Some(entries)
}

/// Returns an internal key without its sequence number and type.
pub(super) fn user_key(internal: &[u8]) -> &[u8] {
    &internal[..internal.len().saturating_sub(8)]
}

/// Returns an internal key's sequence number, and whether it is a value (not a deletion).
pub(super) fn sequence(internal: &[u8]) -> (u64, bool) {
    let tail = internal.last_chunk::<8>().map_or(0, |tail| u64::from_le_bytes(*tail));
    (tail >> 8, tail & 0xff == 1)
}
