//! Reads a channel's block files as a stream of batches: complete blocks in one buffer, with the positions of their parts.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use crate::block::{BlockError, BlockSpan};
use crate::{Hash, varint};

/// Bytes at which Fabric starts the next block file.
pub const ROLL_OVER_BYTES: u64 = 64 << 20;
/// Longest block accepted, in bytes. Fabric's own limit for a message is 100 MiB.
pub const MAX_BLOCK_BYTES: u64 = 256 << 20;
/// Name of the file that says a ledger was joined from a snapshot.
pub const BOOTSTRAPPING_SNAPSHOT: &str = "bootstrappingSnapshot.info";

/// What the names of block files begin with. A node that has no block index takes every file of a chain's directory with such a name for
/// one, and does not start when the rest is not a number, or the number is not that of a file.
const PREFIX: &str = "blockfile_";

/// Returns the number in `blockfile_NNNNNN`, or `None` for other names.
pub fn file_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// Returns whether a file's name in a chain's directory is like a block file's and is none: `blockfile_000000.bak`, `blockfile_1`.
pub fn is_like_a_block_file(name: &str) -> bool {
    name.starts_with(PREFIX) && file_number(name).is_none()
}

/// Returns the name of block file `number`.
pub fn file_name(number: u32) -> String {
    format!("{PREFIX}{number:06}")
}

/// What `bootstrappingSnapshot.info` says: the block that a ledger joined by snapshot begins after.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BootstrappingSnapshot {
    /// Number of the last block in the snapshot.
    #[prost(uint64, tag = "1")]
    pub last_block: u64,
    /// Its header hash.
    #[prost(bytes = "vec", tag = "2")]
    pub last_block_hash: Vec<u8>,
    /// The header hash of the block before it.
    #[prost(bytes = "vec", tag = "3")]
    pub previous_block_hash: Vec<u8>,
}

impl BootstrappingSnapshot {
    /// Reads the file's bytes; `None` when they are not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let found = <Self as prost::Message>::decode(bytes).ok()?;
        (found.last_block_hash.len() == 32).then_some(found)
    }
}

/// One block file of a chain: its number and how many bytes of it to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockFileExtent {
    /// The number in the file's name.
    pub number: u32,
    /// Bytes to read; the file may have grown since.
    pub len: u64,
}

/// Lists a chain directory's block files in order, with their sizes now.
///
/// # Errors
/// [`BlockFileError::Io`] when the directory cannot be read, [`BlockFileError::MissingFile`] when the numbers have a gap or
/// do not begin at 0, [`BlockFileError::NoFiles`] when there is none.
pub fn list_block_files(directory: &Path) -> Result<Vec<BlockFileExtent>, BlockFileError> {
    let io = |source| BlockFileError::Io { file: directory.display().to_string(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        if let Some(number) = entry.file_name().to_str().and_then(file_number) {
            files.push(BlockFileExtent { number, len: entry.metadata().map_err(io)?.len() });
        }
    }
    files.sort_by_key(|file| file.number);
    check_sequence(&files)?;
    Ok(files)
}

/// Refuses a list of block files with a gap.
///
/// # Errors
/// [`BlockFileError::MissingFile`] or [`BlockFileError::NoFiles`].
pub fn check_sequence(files: &[BlockFileExtent]) -> Result<(), BlockFileError> {
    if files.is_empty() {
        return Err(BlockFileError::NoFiles);
    }
    for (expected, file) in (0u32..).zip(files) {
        if file.number != expected {
            return Err(BlockFileError::MissingFile { file: file_name(expected), next: file_name(file.number) });
        }
    }
    Ok(())
}

/// Why a chain's block files cannot be read to their end.
#[derive(Debug, thiserror::Error)]
pub enum BlockFileError {
    /// Reading failed.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// No block file at all.
    #[error("there is no block file (blockfile_000000)")]
    NoFiles,
    /// A block file is missing between others.
    #[error("{file} is missing, while {next} is there")]
    MissingFile {
        /// The missing file's name.
        file: String,
        /// The file found instead.
        next: String,
    },
    /// The file is shorter than it was when it was listed.
    #[error("{file} ends at byte {offset}, it had {expected} bytes when it was listed")]
    Shrunk {
        /// The file.
        file: String,
        /// Where it ends now.
        offset: u64,
        /// Its size before.
        expected: u64,
    },
    /// The bytes at a place are no block.
    #[error("{file} at byte {offset}, where block {expected} should be: {problem}")]
    Malformed {
        /// The file.
        file: String,
        /// Where the record starts.
        offset: u64,
        /// Number of the block that should be there.
        expected: u64,
        /// What is wrong.
        problem: BlockError,
    },
    /// A record's length is longer than a block may be.
    #[error(
        "{file} at byte {offset}, where block {expected} should be: the record claims {claimed} bytes; a block has at most {MAX_BLOCK_BYTES}"
    )]
    TooLong {
        /// The file.
        file: String,
        /// Where the record starts.
        offset: u64,
        /// Number of the block that should be there.
        expected: u64,
        /// The length it claims, in bytes.
        claimed: u64,
    },
    /// A record's length prefix does not fit the whole block behind it.
    #[error(
        "{file} at byte {offset}: the length before block {expected} does not match the block, which is complete ({actual} bytes)"
    )]
    LengthLies {
        /// The file.
        file: String,
        /// Where the record starts.
        offset: u64,
        /// The block's number.
        expected: u64,
        /// The block's true length, in bytes.
        actual: u64,
    },
    /// A block carries another number than its place demands.
    #[error("{file} at byte {offset}: block {found} is in the place of block {expected}")]
    OutOfSequence {
        /// The file.
        file: String,
        /// Where the record starts.
        offset: u64,
        /// The number that should be there.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// A record is cut in a file that is not the last.
    #[error("{file} at byte {offset}: block {expected} is truncated, and later block files exist")]
    CutInside {
        /// The file.
        file: String,
        /// Where the record starts.
        offset: u64,
        /// Number of the block that should be there.
        expected: u64,
    },
}

/// Blocks read from one block file: one buffer and where each block lies in it.
#[derive(Debug)]
pub struct Batch {
    /// Number of the block file.
    pub file: u32,
    /// Offset in that file of the first record, in bytes.
    pub offset: u64,
    /// Bytes of the file that the batch covers: the records with their length prefixes.
    pub len: u64,
    /// The records' bytes, and possibly some of the next record after them.
    pub buffer: Vec<u8>,
    /// The blocks, in order.
    pub blocks: Vec<BlockSpan>,
}

impl Batch {
    /// Returns the file's bytes that the batch covers.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len as usize]
    }
}

/// An incomplete record at the end of the last block file: what a crash leaves, and what the node truncates at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// Number of the block file.
    pub file: u32,
    /// Where the incomplete record starts, in bytes.
    pub offset: u64,
    /// How many bytes there are of it.
    pub len: u64,
}

/// Opens a block file at an offset: `(file number, offset in bytes)`.
pub type OpenBlockFile<'a> = Box<dyn Fn(u32, u64) -> io::Result<Box<dyn Read + Send>> + Send + 'a>;

/// Reads a chain's block files from a place to their end.
pub struct ChainReader<'a> {
    files: Vec<BlockFileExtent>,
    open: OpenBlockFile<'a>,
    index: usize,
    source: Option<Box<dyn Read + Send>>,
    /// Bytes read from the current file so far.
    read_to: u64,
    /// Bytes read and not yet handed out; they begin at `parsed_to`.
    carry: Vec<u8>,
    parsed_to: u64,
    next_number: Option<u64>,
    /// Header hash of the block before the next one, when it was read.
    last_header: Option<Hash>,
    torn: Option<TornTail>,
}

/// Where a reader starts: offset 0 of file 0 for a whole chain, or the place a previous capture stopped at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartAt {
    /// Number of the block file.
    pub file: u32,
    /// Offset of the next record in it, in bytes.
    pub offset: u64,
    /// Number of the block expected there; `None` accepts any (a ledger joined by snapshot).
    pub number: Option<u64>,
}

impl<'a> ChainReader<'a> {
    /// Returns a reader over `files` (as [`list_block_files`] gives them), starting at `start`.
    pub fn new(files: Vec<BlockFileExtent>, start: StartAt, open: OpenBlockFile<'a>) -> Self {
        let index = files.iter().position(|file| file.number >= start.file).unwrap_or(files.len());
        ChainReader {
            files,
            open,
            index,
            source: None,
            read_to: start.offset,
            carry: Vec::new(),
            parsed_to: start.offset,
            next_number: start.number,
            last_header: None,
            torn: None,
        }
    }

    /// Returns a reader over a chain directory on this machine, from its first block.
    ///
    /// # Errors
    /// As [`list_block_files`].
    pub fn open(directory: &Path) -> Result<Self, BlockFileError> {
        let joined_by_snapshot = directory.join(BOOTSTRAPPING_SNAPSHOT).exists();
        let start = StartAt { number: (!joined_by_snapshot).then_some(0), ..StartAt::default() };
        Self::open_at(directory, start)
    }

    /// Returns a reader over a chain directory on this machine, from a place in it.
    ///
    /// # Errors
    /// As [`list_block_files`].
    pub fn open_at(directory: &Path, start: StartAt) -> Result<Self, BlockFileError> {
        let files = list_block_files(directory)?;
        let directory = directory.to_path_buf();
        Ok(Self::new(
            files,
            start,
            Box::new(move |number, offset| {
                let mut file = std::fs::File::open(directory.join(file_name(number)))?;
                io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
                Ok(Box::new(file))
            }),
        ))
    }

    /// Returns the incomplete record at the chain's end, once the end was reached.
    pub fn torn_tail(&self) -> Option<TornTail> {
        self.torn
    }

    /// Number of the next block, when it is known.
    pub fn next_number(&self) -> Option<u64> {
        self.next_number
    }

    /// Returns the position of the next record: file number and offset in bytes.
    pub fn position(&self) -> (u32, u64) {
        let index = self.index.min(self.files.len().saturating_sub(1));
        (self.files.get(index).map_or(0, |file| file.number), self.parsed_to)
    }

    /// Reads blocks of one file: about `target_bytes` of them, at least one, and none above number `until`.
    /// `None` at the chain's end (or when the next block is above `until`).
    ///
    /// # Errors
    /// [`BlockFileError`], naming file, offset and block.
    pub fn next_batch(&mut self, target_bytes: usize, until: u64) -> Result<Option<Batch>, BlockFileError> {
        loop {
            let Some(extent) = self.files.get(self.index).copied() else { return Ok(None) };
            if self.next_number.is_some_and(|number| number > until) {
                return Ok(None);
            }
            if self.parsed_to >= extent.len {
                self.index += 1;
                if self.index < self.files.len() {
                    (self.source, self.read_to, self.parsed_to) = (None, 0, 0);
                    self.carry.clear();
                }
                continue;
            }
            let mut buffer = std::mem::take(&mut self.carry);
            let mut wanted = target_bytes;
            loop {
                self.fill(&mut buffer, wanted, extent)?;
                let (blocks, used) = self.parse(&buffer, extent, until)?;
                if !blocks.is_empty() {
                    self.carry = buffer[used..].to_vec();
                    let offset = self.parsed_to;
                    self.parsed_to += used as u64;
                    return Ok(Some(Batch { file: extent.number, offset, len: used as u64, buffer, blocks }));
                }
                if self.read_to >= extent.len {
                    return self.end_inside_record(&buffer, extent).map(|()| None);
                }
                // One record is longer than the buffer: its length is within the limit and within the file.
                wanted = self.record_len(&buffer, extent)?.max(wanted + 1);
            }
        }
    }

    fn fill(&mut self, buffer: &mut Vec<u8>, wanted: usize, extent: BlockFileExtent) -> Result<(), BlockFileError> {
        let io = |source| BlockFileError::Io { file: file_name(extent.number), source };
        let missing = (wanted.saturating_sub(buffer.len()) as u64).min(extent.len - self.read_to);
        if missing == 0 {
            return Ok(());
        }
        let source = match &mut self.source {
            Some(source) => source,
            none => none.insert((self.open)(extent.number, self.read_to).map_err(io)?),
        };
        buffer.reserve(missing as usize);
        let got = source.by_ref().take(missing).read_to_end(buffer).map_err(io)? as u64;
        self.read_to += got;
        if got < missing {
            return Err(BlockFileError::Shrunk {
                file: file_name(extent.number),
                offset: self.read_to,
                expected: extent.len,
            });
        }
        Ok(())
    }

    /// Bytes that the first record needs in the buffer, its length prefix included.
    fn record_len(&self, buffer: &[u8], extent: BlockFileExtent) -> Result<usize, BlockFileError> {
        let file = || file_name(extent.number);
        let expected = self.next_number.unwrap_or(0);
        match varint::read(buffer) {
            Some((len, _)) if len > MAX_BLOCK_BYTES => {
                Err(BlockFileError::TooLong { file: file(), offset: self.parsed_to, expected, claimed: len })
            }
            Some((len, prefix)) => {
                let left = extent.len - self.parsed_to;
                Ok((prefix as u64 + len).min(left) as usize)
            }
            None if buffer.len() < varint::MAX_BYTES => Ok(varint::MAX_BYTES),
            None => Err(BlockFileError::Malformed {
                file: file(),
                offset: self.parsed_to,
                expected,
                problem: BlockError::Malformed("length"),
            }),
        }
    }

    fn parse(
        &mut self,
        buffer: &[u8],
        extent: BlockFileExtent,
        until: u64,
    ) -> Result<(Vec<BlockSpan>, usize), BlockFileError> {
        let mut blocks: Vec<BlockSpan> = Vec::new();
        let mut at = 0;
        while let Some((len, prefix)) = varint::read(&buffer[at..]) {
            if self.next_number.is_some_and(|number| number > until) {
                break;
            }
            let start = at + prefix;
            if len > (buffer.len() - start) as u64 {
                break;
            }
            let end = start + len as usize;
            let offset = self.parsed_to + at as u64;
            let file = || file_name(extent.number);
            let span = match BlockSpan::parse(buffer, start..end) {
                Ok(span) => span,
                Err(problem) => {
                    let expected = self.next_number.unwrap_or(0);
                    return Err(BlockFileError::Malformed { file: file(), offset, expected, problem });
                }
            };
            if let Some(expected) = self.next_number.filter(|&expected| expected != span.number) {
                return Err(BlockFileError::OutOfSequence { file: file(), offset, expected, found: span.number });
            }
            self.next_number = Some(span.number + 1);
            blocks.push(span);
            at = end;
        }
        if let Some(last) = blocks.last() {
            self.last_header = Some(last.header_hash(buffer));
        }
        Ok((blocks, at))
    }

    /// The file ends inside a record. A crash leaves that in the last file only, and never with the block behind it whole.
    fn end_inside_record(&mut self, buffer: &[u8], extent: BlockFileExtent) -> Result<(), BlockFileError> {
        let file = || file_name(extent.number);
        let (offset, expected) = (self.parsed_to, self.next_number.unwrap_or(0));
        if let Some(actual) = self.whole_block_behind_wrong_length(buffer) {
            return Err(BlockFileError::LengthLies { file: file(), offset, expected, actual });
        }
        // No crash makes a length that no block has.
        self.record_len(buffer, extent)?;
        if self.index + 1 < self.files.len() {
            return Err(BlockFileError::CutInside { file: file(), offset, expected });
        }
        self.torn = Some(TornTail { file: extent.number, offset, len: extent.len - offset });
        self.index = self.files.len();
        Ok(())
    }

    /// Returns the number of a complete block behind a wrong length. From the length alone, an incomplete record and a flipped length look
    /// alike. If a complete block that continues the chain follows a prefix, the length is wrong, and dropping the block would lose it.
    fn whole_block_behind_wrong_length(&self, buffer: &[u8]) -> Option<u64> {
        let expected = self.next_number?;
        (1..=8usize.min(buffer.len())).find_map(|prefix| {
            let span = BlockSpan::parse_canonical(buffer, prefix..buffer.len()).ok()?;
            let continues = match self.last_header {
                Some(hash) => buffer[span.previous_hash.clone()] == hash,
                None => span.compute_data_hash(buffer) == buffer[span.data_hash.clone()],
            };
            if span.number != expected || !continues {
                return None;
            }
            let end = whole_metadata_end(buffer, span.canonical.end)?;
            Some((end - prefix) as u64)
        })
    }
}

fn whole_metadata_end(buffer: &[u8], start: usize) -> Option<usize> {
    let (slots, used) = varint::read(&buffer[start..])?;
    if slots > crate::block::MAX_SLOTS {
        return None;
    }
    let mut at = start + used;
    for _ in 0..slots {
        let (len, used) = varint::read(buffer.get(at..)?)?;
        at = at.checked_add(used)?.checked_add(usize::try_from(len).ok()?)?;
    }
    (at <= buffer.len()).then_some(at)
}

/// Puts a record together again from its canonical part and its metadata, as the block file held it.
pub fn write_record(canonical: &[u8], metadata: &[u8], out: &mut Vec<u8>) {
    varint::write((canonical.len() + metadata.len()) as u64, out);
    out.extend_from_slice(canonical);
    out.extend_from_slice(metadata);
}

/// Splits a buffer of canonical records, one behind the other, into blocks.
///
/// # Errors
/// [`BlockError`] when the bytes are not a sequence of canonical records.
pub fn parse_canonical_records(buffer: &[u8]) -> Result<Vec<BlockSpan>, BlockError> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < buffer.len() {
        let span = BlockSpan::parse_canonical(buffer, at..buffer.len())?;
        at = span.canonical.end;
        blocks.push(span);
    }
    Ok(blocks)
}

/// Returns the byte range of the metadata at the front of `bytes`, as a block file holds it.
pub fn metadata_prefix(bytes: &[u8]) -> Option<Range<usize>> {
    whole_metadata_end(bytes, 0).map(|end| 0..end)
}

/// Returns a block's metadata in the metadata of consecutive blocks; `position` 0 is the first one's. `None` when it is not there whole.
pub fn metadata_at(bytes: &[u8], position: u64) -> Option<&[u8]> {
    let mut rest = bytes;
    for _ in 0..position {
        rest = rest.get(metadata_prefix(rest)?.end..)?;
    }
    rest.get(metadata_prefix(rest)?)
}
