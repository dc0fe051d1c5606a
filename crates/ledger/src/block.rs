//! One block of a block file: the positions of its parts, and its hashes.

use std::ops::Range;

use crate::{Hash, varint};

/// Metadata slot of the orderers' signatures.
pub const SLOT_SIGNATURES: usize = 0;
/// Metadata slot of the last configuration block's number (deprecated since 2.0, still written).
pub const SLOT_LAST_CONFIG: usize = 1;
/// Metadata slot of the validation codes, one byte a transaction. Written by peers.
pub const SLOT_TRANSACTIONS_FILTER: usize = 2;
/// Metadata slot of the consenter's own metadata (deprecated).
pub const SLOT_ORDERER: usize = 3;
/// Metadata slot of the commit hash. Written by peers.
pub const SLOT_COMMIT_HASH: usize = 4;
/// Most metadata slots a block may claim.
pub const MAX_SLOTS: u64 = 64;

/// Where the parts of one block lie in a buffer. All ranges are byte ranges of that buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSpan {
    /// The block's number.
    pub number: u64,
    /// Header and data: what every node of the channel holds alike.
    pub canonical: Range<usize>,
    /// Metadata, from the slot count to the end of the block: what differs between nodes.
    pub metadata: Range<usize>,
    /// The previous block's header hash; empty for genesis.
    pub previous_hash: Range<usize>,
    /// The hash of the envelopes that the header names.
    pub data_hash: Range<usize>,
    /// The envelopes, each after its length.
    pub envelopes: Range<usize>,
    /// How many envelopes.
    pub envelope_count: u64,
}

/// Why bytes are not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes end inside the named part.
    #[error("the block ends inside its {0}")]
    Cut(&'static str),
    /// The named part breaks the format.
    #[error("the block's {0} is malformed")]
    Malformed(&'static str),
    /// The block ends before its record does.
    #[error("{0} bytes are left over after the block's metadata")]
    LeftOver(usize),
}

struct Cursor<'a> {
    buffer: &'a [u8],
    at: usize,
    end: usize,
}

impl Cursor<'_> {
    fn integer(&mut self, part: &'static str) -> Result<u64, BlockError> {
        let rest = &self.buffer[self.at..self.end];
        match varint::read(rest) {
            Some((value, used)) => {
                self.at += used;
                Ok(value)
            }
            None if rest.len() < varint::MAX_BYTES && rest.iter().all(|byte| byte & 0x80 != 0) => {
                Err(BlockError::Cut(part))
            }
            None => Err(BlockError::Malformed(part)),
        }
    }

    fn bytes(&mut self, part: &'static str) -> Result<Range<usize>, BlockError> {
        let len = self.integer(part)?;
        let left = (self.end - self.at) as u64;
        if len > left {
            return Err(BlockError::Cut(part));
        }
        let start = self.at;
        self.at += len as usize;
        Ok(start..self.at)
    }
}

impl BlockSpan {
    /// Finds header and data at the front of `buffer[range]`; the metadata range is left empty at their end.
    pub fn parse_canonical(buffer: &[u8], range: Range<usize>) -> Result<BlockSpan, BlockError> {
        let mut cursor = Cursor { buffer, at: range.start, end: range.end };
        let number = cursor.integer("number")?;
        let data_hash = cursor.bytes("data hash")?;
        if data_hash.len() != 32 {
            return Err(BlockError::Malformed("data hash"));
        }
        let previous_hash = cursor.bytes("previous hash")?;
        if previous_hash.len() != 32 && !(previous_hash.is_empty() && number == 0) {
            return Err(BlockError::Malformed("previous hash"));
        }
        let envelope_count = cursor.integer("envelope count")?;
        let envelopes = cursor.at;
        for _ in 0..envelope_count {
            cursor.bytes("envelopes")?;
        }
        Ok(BlockSpan {
            number,
            canonical: range.start..cursor.at,
            metadata: cursor.at..cursor.at,
            previous_hash,
            data_hash,
            envelopes: envelopes..cursor.at,
            envelope_count,
        })
    }

    /// Finds a whole block that fills `buffer[range]` exactly.
    pub fn parse(buffer: &[u8], range: Range<usize>) -> Result<BlockSpan, BlockError> {
        let mut span = Self::parse_canonical(buffer, range.clone())?;
        let mut cursor = Cursor { buffer, at: span.canonical.end, end: range.end };
        let slots = cursor.integer("metadata count")?;
        if slots > MAX_SLOTS {
            return Err(BlockError::Malformed("metadata count"));
        }
        for _ in 0..slots {
            cursor.bytes("metadata")?;
        }
        if cursor.at != range.end {
            return Err(BlockError::LeftOver(range.end - cursor.at));
        }
        span.metadata = span.canonical.end..range.end;
        Ok(span)
    }

    /// Returns the envelopes' bytes, in order.
    pub fn envelopes<'a>(&self, buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        length_prefixed(&buffer[self.envelopes.clone()])
    }

    /// Returns the metadata slots' bytes, in order.
    pub fn slots<'a>(&self, buffer: &'a [u8]) -> Slots<'a> {
        Slots::new(&buffer[self.metadata.clone()])
    }

    /// SHA-256 over the envelopes: must equal the header's data hash.
    pub fn compute_data_hash(&self, buffer: &[u8]) -> Hash {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for envelope in self.envelopes(buffer) {
            context.update(envelope);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    /// Returns the header hash: what the next block names as its previous hash.
    pub fn header_hash(&self, buffer: &[u8]) -> Hash {
        crate::sha256(&[&self.header_bytes(buffer)])
    }

    /// Returns the header in ASN.1 DER, the form that is hashed and signed.
    pub fn header_bytes(&self, buffer: &[u8]) -> Vec<u8> {
        header_der(self.number, &buffer[self.previous_hash.clone()], &buffer[self.data_hash.clone()])
    }
}

/// Returns a block header in ASN.1 DER: SEQUENCE { INTEGER number, OCTET STRING previous hash, OCTET STRING data hash }.
pub fn header_der(number: u64, previous_hash: &[u8], data_hash: &[u8]) -> Vec<u8> {
    let mut integer: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
    if integer.first().is_none_or(|&byte| byte & 0x80 != 0) {
        integer.insert(0, 0);
    }
    let body = 2 + integer.len() + 2 + previous_hash.len() + 2 + data_hash.len();
    let mut out = Vec::with_capacity(body + 2);
    // Every part is below 128 bytes: hashes are at most 32 bytes, the integer at most 9.
    out.extend([0x30, body as u8, 0x02, integer.len() as u8]);
    out.extend(integer);
    out.extend([0x04, previous_hash.len() as u8]);
    out.extend(previous_hash);
    out.extend([0x04, data_hash.len() as u8]);
    out.extend(data_hash);
    out
}

/// The metadata slots of one block, read from the count onward.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    bytes: &'a [u8],
}

impl<'a> Slots<'a> {
    /// Takes metadata bytes as a block file holds them: a count, then each slot after its length.
    pub fn new(bytes: &'a [u8]) -> Self {
        Slots { bytes: varint::read(bytes).map_or(&[], |(_, used)| &bytes[used..]) }
    }

    /// One slot's bytes; empty when the block has fewer slots.
    pub fn get(&self, slot: usize) -> &'a [u8] {
        self.all().nth(slot).unwrap_or_default()
    }

    /// Returns the commit hash, which peers write: it depends on the world state's changes of all blocks up to this one. `None` where
    /// there is none.
    pub fn commit_hash(&self) -> Option<Hash> {
        // A metadata message around 32 bytes.
        let (head, hash) = self.get(SLOT_COMMIT_HASH).split_at_checked(2)?;
        if head == [0x0a, 32] { hash.first_chunk::<32>().copied() } else { None }
    }

    /// Returns every slot's bytes, in order.
    pub fn all(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        length_prefixed(self.bytes)
    }
}

fn length_prefixed(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (len, used) = varint::read(rest)?;
        let end = used.checked_add(usize::try_from(len).ok()?)?;
        let item = rest.get(used..end)?;
        rest = &rest[end..];
        Some(item)
    })
}
