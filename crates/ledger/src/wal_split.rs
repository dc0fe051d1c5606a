//! Splits a raft log: an entry that proposes a block is stored as the number of the block, because the channel stores the block itself
//! once.
//!
//! A split is a sequence of operations:
//!
//! - `0x00 | uvarint n | n bytes`: these bytes, unchanged;
//! - `0x01 | uvarint number | uvarint slots`: the protobuf `common.Block` with that number: header, data, and metadata with
//!   `slots` empty slots (0: no metadata field).

use std::collections::BTreeMap;

use prost::Message;

use crate::block::BlockSpan;
use crate::proto::{common, raft as raft_proto};
use crate::raft::{Record, RecordKind};
use crate::{Hash, sha256, varint};

const LITERAL: u8 = 0;
const BLOCK: u8 = 1;
/// Most empty metadata slots that a proposal may carry.
const MAX_SLOTS: u64 = 16;

/// Why a split cannot be put together again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The operations do not decode.
    #[error("the split raft log does not decode")]
    Malformed,
    /// A block that it names is not to be had.
    #[error("the split raft log names block {0}, which the channel does not hold")]
    NoBlock(u64),
}

/// Splits `bytes[range]` of a log file. `known` gives the header hash of a block that the channel holds, by number; an entry
/// becomes a reference only when its block has that very header and its data hashes to what the header says.
pub fn split(
    bytes: &[u8],
    range: std::ops::Range<usize>,
    records: &[Record],
    known: &dyn Fn(u64) -> Option<Hash>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut literal_from = range.start;
    for record in records.iter().filter(|record| record.kind == RecordKind::Entry) {
        if record.data.start < range.start || record.data.end > range.end {
            continue;
        }
        let data = &bytes[record.data.clone()];
        let Some((number, slots, proposal)) = proposal(data, known) else { continue };
        // The proposal is the entry's last field.
        let at = record.data.end - proposal;
        literal(&bytes[literal_from..at], &mut out);
        out.push(BLOCK);
        varint::write(number, &mut out);
        varint::write(slots, &mut out);
        literal_from = record.data.end;
    }
    literal(&bytes[literal_from..range.end], &mut out);
    out
}

/// What the entries of a channel's raft log propose, by raft index: number and header hash of a block, or none (an empty entry, a change of
/// the consenters). An entry that a later leader overwrote is not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposals {
    by_index: BTreeMap<u64, Option<(u64, Hash)>>,
}

impl Proposals {
    /// Adds what a log file's entries propose; files in their order.
    pub fn read(&mut self, bytes: &[u8], records: &[Record]) {
        for record in records.iter().filter(|record| record.kind == RecordKind::Entry) {
            let Ok(entry) = raft_proto::Entry::decode(&bytes[record.data.clone()]) else { continue };
            let header = common::Block::decode(entry.data.as_slice()).ok().and_then(|block| block.header);
            let block = header.filter(|header| header.previous_hash.len() <= 32 && header.data_hash.len() == 32);
            let block = block.map(|header| {
                let der = crate::block::header_der(header.number, &header.previous_hash, &header.data_hash);
                (header.number, sha256(&[&der]))
            });
            // A new leader's entry takes the place of what stood there and after it.
            drop(self.by_index.split_off(&entry.index));
            self.by_index.insert(entry.index, block);
        }
    }

    /// Returns the entry at a raft index, when the log holds it.
    pub fn at(&self, index: u64) -> Option<Option<(u64, Hash)>> {
        self.by_index.get(&index).copied()
    }

    /// Returns the lowest block number that an entry proposes.
    pub fn lowest_block(&self) -> Option<u64> {
        self.by_index.values().flatten().map(|(number, _)| *number).filter(|&number| number > 0).min()
    }
}

fn literal(bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        out.push(LITERAL);
        varint::write(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

/// Returns the block number, slot count and length of the block at an entry's end, when the entry holds a block that the channel has.
fn proposal(entry: &[u8], known: &dyn Fn(u64) -> Option<Hash>) -> Option<(u64, u64, usize)> {
    let data = raft_proto::Entry::decode(entry).ok()?.data;
    if !entry.ends_with(&data) || data.is_empty() {
        return None;
    }
    let block = common::Block::decode(data.as_slice()).ok()?;
    let header = block.header.as_ref()?;
    let der = crate::block::header_der(header.number, &header.previous_hash, &header.data_hash);
    if header.previous_hash.len() != 32 || header.data_hash.len() != 32 || known(header.number)? != sha256(&[&der]) {
        return None;
    }
    let envelopes: Vec<&[u8]> = block.data.as_ref()?.data.iter().map(Vec::as_slice).collect();
    if sha256(&envelopes) != header.data_hash.as_slice() {
        return None;
    }
    let slots = block.metadata.as_ref().map_or(0, |metadata| metadata.metadata.len() as u64);
    if slots > MAX_SLOTS {
        return None;
    }
    // Bit for bit, or not at all.
    (encode(header, &envelopes, slots) == data).then_some((header.number, slots, data.len()))
}

/// Returns a block as an entry proposes it: before it was signed, with empty metadata slots.
pub(crate) fn encode(header: &common::BlockHeader, envelopes: &[&[u8]], slots: u64) -> Vec<u8> {
    let block = common::Block {
        header: Some(header.clone()),
        data: Some(common::BlockData { data: envelopes.iter().map(|envelope| envelope.to_vec()).collect() }),
        metadata: (slots > 0).then(|| common::BlockMetadata { metadata: vec![Vec::new(); slots as usize] }),
    };
    block.encode_to_vec()
}

/// Numbers of the blocks that a split refers to.
///
/// # Errors
/// [`SplitError::Malformed`].
pub fn referenced_blocks(split: &[u8]) -> Result<Vec<u64>, SplitError> {
    let mut numbers = Vec::new();
    walk(split, |operation| {
        if let Operation::Block { number, .. } = operation {
            numbers.push(number);
        }
        Ok(())
    })?;
    Ok(numbers)
}

/// Puts the bytes together again. `block` gives a block's canonical record by number.
///
/// # Errors
/// [`SplitError`].
pub fn join(
    split: &[u8],
    max_bytes: u64,
    block: &mut dyn FnMut(u64) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, SplitError> {
    let mut out = Vec::new();
    walk(split, |operation| {
        match operation {
            Operation::Literal(bytes) => out.extend_from_slice(bytes),
            Operation::Block { number, slots } => {
                let record = block(number).ok_or(SplitError::NoBlock(number))?;
                let span =
                    BlockSpan::parse_canonical(&record, 0..record.len()).map_err(|_| SplitError::NoBlock(number))?;
                let header = common::BlockHeader {
                    number,
                    previous_hash: record[span.previous_hash.clone()].to_vec(),
                    data_hash: record[span.data_hash.clone()].to_vec(),
                };
                let envelopes: Vec<&[u8]> = span.envelopes(&record).collect();
                out.extend(encode(&header, &envelopes, slots));
            }
        }
        if out.len() as u64 > max_bytes { Err(SplitError::Malformed) } else { Ok(()) }
    })?;
    Ok(out)
}

enum Operation<'a> {
    Literal(&'a [u8]),
    Block { number: u64, slots: u64 },
}

fn walk<'a>(
    split: &'a [u8],
    mut on_operation: impl FnMut(Operation<'a>) -> Result<(), SplitError>,
) -> Result<(), SplitError> {
    let mut rest = split;
    while let Some((&kind, tail)) = rest.split_first() {
        let (first, used) = varint::read(tail).ok_or(SplitError::Malformed)?;
        rest = &tail[used..];
        match kind {
            LITERAL => {
                let len = usize::try_from(first).map_err(|_| SplitError::Malformed)?;
                let bytes = rest.get(..len).ok_or(SplitError::Malformed)?;
                rest = &rest[len..];
                on_operation(Operation::Literal(bytes))?;
            }
            BLOCK => {
                let (slots, used) = varint::read(rest).ok_or(SplitError::Malformed)?;
                if slots > MAX_SLOTS {
                    return Err(SplitError::Malformed);
                }
                rest = &rest[used..];
                on_operation(Operation::Block { number: first, slots })?;
            }
            _ => return Err(SplitError::Malformed),
        }
    }
    Ok(())
}
