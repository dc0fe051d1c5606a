//! Reads single hashes of a node's own chain: the block file that a block is in is found by the first blocks of the
//! files, and read from its beginning to the block, so that its links are checked.

use std::collections::BTreeMap;

use fabkeep_ledger::Hash;
use fabkeep_ledger::block_file::{BlockFileError, BlockFileExtent, ChainReader, StartAt, check_sequence, file_name};
use fabkeep_ledger::chain::{ChainError, Tip, check_blocks, place};
use fabkeep_platform::Volume;

use crate::capture::ChainFiles;

/// Bytes of blocks read at a time.
const BATCH_BYTES: usize = 1 << 20;

/// What a node has of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHashes {
    pub header: Hash,
    pub commit: Option<Hash>,
}

/// A channel's block files on one node.
pub(super) struct OwnChain<'a> {
    volume: &'a dyn Volume,
    folder: String,
    files: Vec<BlockFileExtent>,
    /// Number of the first block of each file that was looked at, by position.
    begins: BTreeMap<usize, Option<u64>>,
    /// Position of the file whose blocks are `read`, and up to which number it was read; `None`: to its end.
    held: Option<(usize, Option<u64>)>,
    read: BTreeMap<u64, BlockHashes>,
    /// Bytes read.
    pub bytes: u64,
}

impl<'a> OwnChain<'a> {
    pub fn open(volume: &'a dyn Volume, files: &ChainFiles) -> Result<Self, ChainError> {
        check_sequence(&files.files)?;
        Ok(OwnChain {
            volume,
            folder: files.path.clone(),
            files: files.files.clone(),
            begins: BTreeMap::new(),
            held: None,
            read: BTreeMap::new(),
            bytes: 0,
        })
    }

    fn reader(&self, position: usize) -> ChainReader<'a> {
        let extent = self.files[position];
        let (volume, folder) = (self.volume, self.folder.clone());
        let open = move |number: u32, offset: u64| {
            volume.open(&format!("{folder}/{}", file_name(number)), offset..extent.len.max(offset))
        };
        let start = StartAt { file: extent.number, offset: 0, number: None };
        ChainReader::new(vec![extent], start, Box::new(open))
    }

    /// Returns the number of a file's first block; `None` when it has no complete block.
    fn begin(&mut self, position: usize) -> Result<Option<u64>, ChainError> {
        if let Some(known) = self.begins.get(&position) {
            return Ok(*known);
        }
        let batch = self.reader(position).next_batch(1, u64::MAX)?;
        let first = batch.and_then(|batch| Some(batch.blocks.first()?.number));
        self.begins.insert(position, first);
        Ok(first)
    }

    /// Reads a file to a block, or to its end.
    fn read_file(&mut self, position: usize, until: Option<u64>) -> Result<(), ChainError> {
        let covers = |(held, to): (usize, Option<u64>)| {
            held == position && (to.is_none() || until.is_some_and(|until| to >= Some(until)))
        };
        if self.held.is_some_and(covers) {
            return Ok(());
        }
        (self.held, self.read) = (None, BTreeMap::new());
        let mut reader = self.reader(position);
        let mut tip: Option<Tip> = None;
        while let Some(batch) = reader.next_batch(BATCH_BYTES, until.unwrap_or(u64::MAX))? {
            let at = place(&batch);
            let checked = check_blocks(&batch.buffer, &batch.blocks, &at)?;
            tip = Tip::link(tip, &checked, &at)?;
            for (span, header) in batch.blocks.iter().zip(checked.header_hashes) {
                let commit = span.slots(&batch.buffer).commit_hash();
                self.read.insert(span.number, BlockHashes { header, commit });
            }
            self.bytes += batch.len;
        }
        if let (Some(torn), true) = (reader.torn_tail(), position + 1 < self.files.len()) {
            let expected = tip.map_or(0, |tip| tip.height);
            let file = file_name(self.files[position].number);
            return Err(BlockFileError::CutInside { file, offset: torn.offset, expected }.into());
        }
        self.held = Some((position, until));
        Ok(())
    }

    /// Returns the number of the first block, and the height: 0 and 0 without a block.
    pub fn extent(&mut self) -> Result<(u64, u64), ChainError> {
        for position in (0..self.files.len()).rev() {
            if self.begin(position)?.is_none() {
                continue;
            }
            self.read_file(position, None)?;
            let height = self.read.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
            let first = self.begin(0)?.unwrap_or(0);
            return Ok((first, height));
        }
        Ok((0, 0))
    }

    /// Returns the hashes of a block; `None` when the chain has no such block.
    pub fn block(&mut self, number: u64) -> Result<Option<BlockHashes>, ChainError> {
        if let Some(known) = self.read.get(&number) {
            return Ok(Some(*known));
        }
        // The last file that begins at the block or before it.
        let (mut low, mut high) = (0, self.files.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.begin(middle)?.is_some_and(|first| first <= number) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(position) = low.checked_sub(1) else { return Ok(None) };
        self.read_file(position, Some(number))?;
        Ok(self.read.get(&number).copied())
    }
}
