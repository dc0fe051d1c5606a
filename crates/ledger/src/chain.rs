//! The hash chain: every block's data hash, and every header's link to the previous one.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Hash;
use crate::block::BlockSpan;
use crate::block_file::{
    BOOTSTRAPPING_SNAPSHOT, Batch, BlockFileError, BlockFileExtent, ChainReader, StartAt, TornTail, file_name,
    list_block_files,
};
use fabkeep_parallel as parallel;

/// Why a chain is not one.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The block files cannot be read.
    #[error(transparent)]
    File(#[from] BlockFileError),
    /// A block's envelopes do not hash to what its header says.
    #[error("block {number} ({place}): its data does not match its data hash")]
    DataHash {
        /// The block's number.
        number: u64,
        /// File and offset.
        place: String,
    },
    /// A block's previous hash is not its predecessor's header hash.
    #[error(
        "block {number} ({place}): its previous hash is {found}, the header hash of block {} is {expected}",
        number.wrapping_sub(1)
    )]
    Link {
        /// The block's number.
        number: u64,
        /// File and offset.
        place: String,
        /// Header hash of the block before it, in hex.
        expected: String,
        /// What the block names, in hex.
        found: String,
    },
    /// Two block files do not follow each other.
    #[error("{place} begins with block {found}, the file before it ends with block {}", expected.wrapping_sub(1))]
    Sequence {
        /// The file.
        place: String,
        /// The number that should be there.
        expected: u64,
        /// The number found.
        found: u64,
    },
}

impl ChainError {
    /// Number of the block that is wrong, when it is known.
    pub fn block(&self) -> Option<u64> {
        match self {
            ChainError::DataHash { number, .. } | ChainError::Link { number, .. } => Some(*number),
            ChainError::Sequence { expected, .. } => Some(*expected),
            ChainError::File(
                BlockFileError::Malformed { expected, .. }
                | BlockFileError::TooLong { expected, .. }
                | BlockFileError::LengthLies { expected, .. }
                | BlockFileError::OutOfSequence { expected, .. }
                | BlockFileError::CutInside { expected, .. },
            ) => Some(*expected),
            ChainError::File(_) => None,
        }
    }
}

/// What checking consecutive blocks proved: their header hashes, and the link still to be made to the block before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBlocks {
    /// Number of the first block.
    pub first: u64,
    /// What the first block names as its predecessor's header hash; empty for genesis.
    pub first_previous: Vec<u8>,
    /// Header hash of every block, in order.
    pub header_hashes: Vec<Hash>,
}

/// Checks blocks that lie in one buffer: data hashes, numbers and the links between them.
///
/// # Errors
/// [`ChainError::DataHash`], [`ChainError::Link`] or [`ChainError::Sequence`]; `place` names the buffer in them.
pub fn check_blocks(buffer: &[u8], blocks: &[BlockSpan], place: &str) -> Result<CheckedBlocks, ChainError> {
    let mut hashes: Vec<Hash> = Vec::with_capacity(blocks.len());
    for (i, span) in blocks.iter().enumerate() {
        if span.compute_data_hash(buffer) != buffer[span.data_hash.clone()] {
            return Err(ChainError::DataHash { number: span.number, place: place.to_owned() });
        }
        if let (Some(previous), Some(before)) = (hashes.last(), i.checked_sub(1).and_then(|i| blocks.get(i))) {
            check_link(span.number, before.number + 1, &buffer[span.previous_hash.clone()], previous, place)?;
        }
        hashes.push(span.header_hash(buffer));
    }
    Ok(CheckedBlocks {
        first: blocks.first().map_or(0, |span| span.number),
        first_previous: blocks.first().map(|span| buffer[span.previous_hash.clone()].to_vec()).unwrap_or_default(),
        header_hashes: hashes,
    })
}

fn check_link(number: u64, expected: u64, names: &[u8], previous: &Hash, place: &str) -> Result<(), ChainError> {
    if number != expected {
        return Err(ChainError::Sequence { place: place.to_owned(), expected, found: number });
    }
    if names != previous {
        return Err(ChainError::Link {
            number,
            place: place.to_owned(),
            expected: hex::encode(previous),
            found: hex::encode(names),
        });
    }
    Ok(())
}

/// A chain's end so far: what the next blocks must link to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Blocks from genesis to here: the last block's number plus one.
    pub height: u64,
    /// Header hash of the last block.
    pub header_hash: Hash,
}

impl Tip {
    /// Links checked blocks to the chain behind them (`None`: the chain begins here).
    ///
    /// # Errors
    /// [`ChainError::Link`] or [`ChainError::Sequence`].
    pub fn link(before: Option<Tip>, checked: &CheckedBlocks, place: &str) -> Result<Option<Tip>, ChainError> {
        let Some(last) = checked.header_hashes.last() else { return Ok(before) };
        if let Some(tip) = before {
            check_link(checked.first, tip.height, &checked.first_previous, &tip.header_hash, place)?;
        }
        Ok(Some(Tip { height: checked.first + checked.header_hashes.len() as u64, header_hash: *last }))
    }
}

/// What a walk over a chain directory proved.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Number of the first block: above 0 for a ledger joined by snapshot.
    pub first: u64,
    /// Height and header hash at the end.
    pub tip: Option<Tip>,
    /// Blocks walked.
    pub blocks: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The incomplete record at the end, if any.
    pub torn: Option<TornTail>,
}

struct FileWalk {
    checked_first: Option<CheckedBlocks>,
    tip: Option<Tip>,
    blocks: u64,
    torn: Option<TornTail>,
}

/// Bytes read at a time: small enough to stay in a core's cache between reading and hashing.
const WALK_BYTES: usize = 512 << 10;

/// Walks a chain directory: parse, data hashes, links. Block files are walked in parallel, each as a stream, so that memory
/// does not grow with the ledger. `progress` counts bytes.
///
/// # Errors
/// [`ChainError`], the first in chain order among those found.
pub fn walk_directory(directory: &Path, threads: usize, progress: &AtomicU64) -> Result<Walk, ChainError> {
    let files = list_block_files(directory)?;
    let starts_at_genesis = !directory.join(BOOTSTRAPPING_SNAPSHOT).exists();
    let walk_one = |index: usize| {
        let first_number = (index == 0 && starts_at_genesis).then_some(0);
        walk_file(directory, &files, index, first_number, progress)
    };
    let results = parallel::map_until(0..files.len(), threads, walk_one, Result::is_err);
    let mut walk = Walk { first: 0, tip: None, blocks: 0, bytes: 0, torn: None };
    for (extent, result) in files.iter().zip(results) {
        let file = result?;
        if let Some(checked) = &file.checked_first {
            if walk.tip.is_none() {
                walk.first = checked.first;
            }
            Tip::link(walk.tip, checked, &file_name(extent.number))?;
        }
        walk.tip = file.tip.or(walk.tip);
        walk.blocks += file.blocks;
        walk.bytes += extent.len;
        walk.torn = file.torn;
    }
    Ok(walk)
}

fn walk_file(
    directory: &Path,
    files: &[BlockFileExtent],
    index: usize,
    first_number: Option<u64>,
    progress: &AtomicU64,
) -> Result<FileWalk, ChainError> {
    let extent = files[index];
    let path = directory.join(file_name(extent.number));
    let start = StartAt { file: extent.number, offset: 0, number: first_number };
    let open = move |_, _| Ok(Box::new(std::fs::File::open(&path)?) as Box<dyn std::io::Read + Send>);
    let mut reader = ChainReader::new(vec![extent], start, Box::new(open));
    let mut walk = FileWalk { checked_first: None, tip: None, blocks: 0, torn: None };
    while let Some(batch) = reader.next_batch(WALK_BYTES, u64::MAX)? {
        let place = place(&batch);
        let checked = check_blocks(&batch.buffer, &batch.blocks, &place)?;
        walk.tip = Tip::link(walk.tip, &checked, &place)?;
        walk.blocks += batch.blocks.len() as u64;
        progress.fetch_add(batch.len, Ordering::Relaxed);
        walk.checked_first.get_or_insert(checked);
    }
    walk.torn = reader.torn_tail();
    match walk.torn {
        Some(torn) if index + 1 < files.len() => Err(BlockFileError::CutInside {
            file: file_name(extent.number),
            offset: torn.offset,
            expected: walk.tip.map_or(0, |tip| tip.height),
        }
        .into()),
        _ => Ok(walk),
    }
}

/// Names a batch in errors: file and offset.
pub fn place(batch: &Batch) -> String {
    format!("{} from byte {}", file_name(batch.file), batch.offset)
}
