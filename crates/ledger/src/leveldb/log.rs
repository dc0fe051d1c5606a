//! The log format that LevelDB uses for its write-ahead logs and manifests: 32 KiB blocks of checksummed chunks.

use std::io::Read;

use super::{LevelDbError, MAX_RECORD_BYTES, corrupt, mask_crc};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// How a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// Behind a whole record.
    Clean,
    /// Inside a record that begins at this offset: the writer was stopped while writing.
    Torn(u64),
}

/// Reads a log's records in order and gives each to `on_record` with its offset.
///
/// # Errors
/// [`LevelDbError`], naming `file` and the offset; whatever `on_record` returns.
pub fn read_log(
    file: &str,
    mut source: impl Read,
    mut on_record: impl FnMut(&[u8], u64) -> Result<(), LevelDbError>,
) -> Result<LogEnd, LevelDbError> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut record: Vec<u8> = Vec::new();
    let mut record_start = None;
    let mut base = 0u64;
    loop {
        block.clear();
        source
            .by_ref()
            .take(BLOCK_BYTES as u64)
            .read_to_end(&mut block)
            .map_err(|source| LevelDbError::Io { file: file.to_owned(), source })?;
        let last_block = block.len() < BLOCK_BYTES;
        let mut at = 0;
        while block.len() - at >= HEADER_BYTES {
            let offset = base + at as u64;
            let crc = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            let len = usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
            let kind = block[at + 6];
            let data = at + HEADER_BYTES;
            if data + len > block.len() {
                // Torn, or a wrong length in front of whole data?
                let whole = mask_crc(crc32c::crc32c(&block[at + 6..])) == crc;
                if !last_block || whole {
                    return Err(corrupt(file, offset, "the chunk's length does not match its data"));
                }
                return Ok(LogEnd::Torn(record_start.unwrap_or(offset)));
            }
            if mask_crc(crc32c::crc32c(&block[at + 6..data + len])) != crc {
                if last_block && block[at..].iter().all(|&byte| byte == 0) {
                    return Ok(LogEnd::Torn(record_start.unwrap_or(offset)));
                }
                return Err(corrupt(file, offset, "the chunk's checksum is wrong"));
            }
            match (kind, record_start) {
                (FULL, None) => on_record(&block[data..data + len], offset)?,
                (FIRST, None) => {
                    record_start = Some(offset);
                    record.clear();
                    record.extend_from_slice(&block[data..data + len]);
                }
                (MIDDLE | LAST, Some(start)) => {
                    record.extend_from_slice(&block[data..data + len]);
                    if record.len() > MAX_RECORD_BYTES {
                        return Err(corrupt(file, start, format!("a record is longer than {MAX_RECORD_BYTES} bytes")));
                    }
                    if kind == LAST {
                        on_record(&record, start)?;
                        record_start = None;
                    }
                }
                _ => return Err(corrupt(file, offset, format!("a chunk of type {kind} is not allowed here"))),
            }
            at = data + len;
        }
        let rest = &block[at..];
        if !last_block && rest.iter().any(|&byte| byte != 0) {
            return Err(corrupt(file, base + at as u64, "the padding is not zero"));
        }
        if last_block {
            let torn = record_start.or((!rest.is_empty()).then_some(base + at as u64));
            return Ok(torn.map_or(LogEnd::Clean, LogEnd::Torn));
        }
        base += BLOCK_BYTES as u64;
    }
}

/// Writes records in the log format, into memory.
#[derive(Debug, Default)]
pub struct LogWriter {
    /// Bytes that the log has already.
    behind: usize,
    bytes: Vec<u8>,
}

impl LogWriter {
    /// Returns a writer that appends to a log of this many bytes.
    pub fn behind(len: usize) -> Self {
        LogWriter { behind: len, bytes: Vec::new() }
    }

    /// Appends one record.
    pub fn append(&mut self, record: &[u8]) {
        let mut rest = record;
        let mut first = true;
        loop {
            let left = BLOCK_BYTES - (self.behind + self.bytes.len()) % BLOCK_BYTES;
            if left < HEADER_BYTES {
                self.bytes.extend(std::iter::repeat_n(0, left));
                continue;
            }
            let take = rest.len().min(left - HEADER_BYTES);
            let kind = match (first, take == rest.len()) {
                (true, true) => FULL,
                (true, false) => FIRST,
                (false, true) => LAST,
                (false, false) => MIDDLE,
            };
            let crc = mask_crc(crc32c::crc32c_append(crc32c::crc32c(&[kind]), &rest[..take]));
            self.bytes.extend(crc.to_le_bytes());
            self.bytes.extend((take as u16).to_le_bytes());
            self.bytes.push(kind);
            self.bytes.extend(&rest[..take]);
            rest = &rest[take..];
            first = false;
            if kind == FULL || kind == LAST {
                return;
            }
        }
    }

    /// Returns the bytes written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn log() -> (Vec<Vec<u8>>, Vec<u8>) {
        let records: Vec<Vec<u8>> =
            [3usize, 0, 40_000, 32_750, 5, 100_000].iter().map(|&len| vec![len as u8; len]).collect();
        let mut writer = LogWriter::default();
        records.iter().for_each(|record| writer.append(record));
        (records, writer.into_bytes())
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, LogEnd), LevelDbError> {
        let mut records = Vec::new();
        let end = read_log("log", bytes, |record, _| {
            records.push(record.to_vec());
            Ok(())
        })?;
        Ok((records, end))
    }

    #[test]
    fn what_was_written_is_read() {
        let (records, bytes) = log();
        assert_eq!(read(&bytes).unwrap(), (records, LogEnd::Clean));
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let (records, bytes) = log();
        for at in (0..bytes.len()).filter(|at| at % 97 == 0 || at % 32_768 < 20 || at + 20 > bytes.len()) {
            let mut broken = bytes.clone();
            broken[at] ^= 0x41;
            match read(&broken) {
                Err(_) => {}
                Ok((found, end)) => assert!(end != LogEnd::Clean && found.len() < records.len(), "byte {at}"),
            }
        }
    }

    #[test]
    fn a_cut_log_is_torn_or_ends_behind_a_record() {
        let (records, bytes) = log();
        for cut in (0..bytes.len()).step_by(1_013) {
            let (found, _) = read(&bytes[..cut]).unwrap();
            assert_eq!(found, records[..found.len()]);
        }
    }
}
