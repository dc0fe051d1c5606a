//! Reads the bytes of a captured file's parts, except block records.

use std::collections::HashMap;

use fabkeep_ledger::raft::MAX_FILE_BYTES;
use fabkeep_ledger::wal_split;
use fabkeep_store::PointReader;

use crate::EngineError;
use crate::point::{CapturedEntry, Channel, Content, EntryContent, Part, RecoveryPoint};
use crate::replay::Blocks;

/// Opens parts of files.
pub(crate) struct Contents<'a> {
    reader: &'a PointReader<'a>,
    blocks: HashMap<&'a str, Blocks<'a>>,
}

impl<'a> Contents<'a> {
    pub fn new(reader: &'a PointReader<'a>, point: &'a RecoveryPoint) -> Self {
        Contents::of_channels(reader, &point.channels)
    }

    /// Returns the same, with the channels' blocks from these.
    pub fn of_channels(reader: &'a PointReader<'a>, channels: &'a [Channel]) -> Self {
        let blocks = channels.iter().map(|channel| (channel.name.as_str(), Blocks::new(reader, channel))).collect();
        Contents { reader, blocks }
    }

    /// Returns the bytes of a raw or raft-log part, checked against their hash and length.
    ///
    /// # Errors
    /// [`EngineError`], naming `file`.
    pub fn bytes(&self, file: &str, part: &Part) -> Result<Vec<u8>, EngineError> {
        let wrong = |problem: String| EngineError::Point { point: file.to_owned(), problem };
        let bytes = match &part.content {
            Content::Raw { blob } => self.reader.blob(blob)?.to_vec(),
            Content::Wal { channel, split, hash } => {
                let blocks = self.blocks.get(channel.as_str());
                let split = self.reader.blob(split)?;
                let mut damaged = None;
                let joined = wal_split::join(&split, MAX_FILE_BYTES, &mut |number| {
                    blocks?.record(number).unwrap_or_else(|error| {
                        damaged = Some(error);
                        None
                    })
                });
                if let Some(error) = damaged {
                    return Err(error);
                }
                let bytes = joined.map_err(|error| wrong(error.to_string()))?;
                if self.reader.names().name(&bytes) != *hash {
                    return Err(wrong("the joined raft log is not the one that was captured".to_owned()));
                }
                bytes
            }
            Content::Blocks { .. } => {
                return Err(wrong("a part with blocks belongs to a file that is not a block file".to_owned()));
            }
        };
        if bytes.len() as u64 != part.len {
            return Err(wrong(format!("a part has {} bytes, {} were captured", bytes.len(), part.len)));
        }
        Ok(bytes)
    }
}

impl Contents<'_> {
    /// Returns a whole file that is not made of blocks; small ones only: the caller knows its size.
    pub fn whole(&self, file: &CapturedEntry) -> Result<Vec<u8>, EngineError> {
        let EntryContent::File { size, parts } = &file.content else { return Ok(Vec::new()) };
        check_parts(&file.path, *size, parts)?;
        let mut out = vec![0; usize::try_from(*size).unwrap_or(0)];
        for part in parts {
            let (from, bytes) = (part.offset as usize, self.bytes(&file.path, part)?);
            out[from..from + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(out)
    }
}

/// Returns whether a file is made of block records.
pub(crate) fn is_block_file(parts: &[Part]) -> bool {
    parts.iter().any(|part| matches!(part.content, Content::Blocks { .. }))
}

/// Returns the channel of a block file.
pub(crate) fn channel_of(parts: &[Part]) -> Option<&str> {
    parts.iter().find_map(|part| match &part.content {
        Content::Blocks { channel, .. } => Some(channel.as_str()),
        _ => None,
    })
}

/// Refuses parts that overlap, are out of order or extend beyond the end of the file.
pub(crate) fn check_parts(file: &str, size: u64, parts: &[Part]) -> Result<(), EngineError> {
    let mut at = 0;
    for part in parts {
        let end = part.offset.checked_add(part.len).filter(|&end| part.offset >= at && end <= size);
        let Some(end) = end else {
            return Err(EngineError::Point {
                point: file.to_owned(),
                problem: format!("its parts do not fit into its {size} bytes"),
            });
        };
        at = end;
    }
    Ok(())
}
