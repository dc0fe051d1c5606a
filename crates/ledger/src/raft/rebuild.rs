//! Creates raft state from a channel's last block: a log without entries that records a snapshot, and that snapshot. If all orderers get
//! it, they continue after that block. The bytes are those that etcd writes.

use super::frame::{bytes, integers, write_log_record};
use super::wal::{RecordKind, hard_state_bytes};
use crate::block::{BlockError, BlockSpan};
use crate::block_signature::raft_metadata;
use crate::proto::{common, raft as proto};
use crate::{Hash, wal_split};

/// The name of a log's first file.
pub const FIRST_LOG_FILE: &str = "0000000000000000-0000000000000000.wal";
/// Bytes that etcd preallocates for a log file.
pub const SEGMENT_BYTES: u64 = 64_000_000;
/// Most consenters that are believed.
const MAX_CONSENTERS: usize = 1 << 10;

/// Why a block gives no raft state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoState {
    /// The bytes are no block.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// It was not ordered by raft, or in the format of Fabric 1.
    #[error("its SIGNATURES metadata names no raft index")]
    Index,
    /// The consenters are none, too many, or one of them twice.
    #[error("its SIGNATURES metadata names {0} consenters, or one of them twice")]
    Consenters(usize),
}

/// What a channel's last block says of its raft state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftState {
    /// The term that it is written in.
    pub term: u64,
    /// Raft index of the block's entry.
    pub index: u64,
    /// The consenters' raft numbers.
    pub consenters: Vec<u64>,
    /// The block's number.
    pub number: u64,
    /// The block's header hash.
    pub hash: Hash,
    /// The block as it was proposed: that is what an orderer keeps in a snapshot.
    block: Vec<u8>,
}

impl RaftState {
    /// Reads the state from a block as a block file holds it, and puts it into a term.
    ///
    /// # Errors
    /// [`NoState`].
    pub fn of_block(record: &[u8], term: u64) -> Result<RaftState, NoState> {
        let span = BlockSpan::parse(record, 0..record.len())?;
        let metadata = raft_metadata(span.slots(record)).ok_or(NoState::Index)?;
        let consenters = metadata.consenter_ids;
        let mut distinct = consenters.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if !(1..=MAX_CONSENTERS).contains(&consenters.len()) || distinct.len() != consenters.len() || distinct[0] == 0 {
            return Err(NoState::Consenters(consenters.len()));
        }
        let header = common::BlockHeader {
            number: span.number,
            previous_hash: record[span.previous_hash.clone()].to_vec(),
            data_hash: record[span.data_hash.clone()].to_vec(),
        };
        let envelopes: Vec<&[u8]> = span.envelopes(record).collect();
        let slots = span.slots(record).all().count() as u64;
        Ok(RaftState {
            term,
            index: metadata.raft_index,
            consenters,
            number: span.number,
            hash: span.header_hash(record),
            block: wal_split::encode(&header, &envelopes, slots),
        })
    }

    /// The log: the beginning of a file of [`SEGMENT_BYTES`] bytes, the rest of which is zeros.
    pub fn log(&self) -> Vec<u8> {
        let message = |fields: &[(u8, u64)]| {
            let mut out = Vec::new();
            integers(fields, &mut out);
            out
        };
        let mut note = message(&[(1, self.index), (2, self.term)]);
        bytes(3, &self.conf_state(), &mut note);
        // Every log begins with the note of a snapshot of nothing.
        let nothing = message(&[(1, 0), (2, 0)]);
        let state = hard_state_bytes(&proto::HardState { term: self.term, vote: 0, commit: self.index });
        let (mut crc, mut out) = (0, Vec::new());
        for (kind, data) in [
            (RecordKind::Crc, None),
            (RecordKind::Metadata, None),
            (RecordKind::Snapshot, Some(nothing)),
            (RecordKind::Snapshot, Some(note)),
            (RecordKind::HardState, Some(state)),
        ] {
            write_log_record(kind, data.as_deref(), &mut crc, &mut out);
        }
        out
    }

    /// The snapshot file.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut metadata = Vec::new();
        bytes(1, &self.conf_state(), &mut metadata);
        integers(&[(2, self.index), (3, self.term)], &mut metadata);
        let mut snapshot = Vec::with_capacity(self.block.len() + metadata.len() + 16);
        bytes(1, &self.block, &mut snapshot);
        bytes(2, &metadata, &mut snapshot);
        let mut file = Vec::with_capacity(snapshot.len() + 16);
        integers(&[(1, u64::from(crc32c::crc32c(&snapshot)))], &mut file);
        bytes(2, &snapshot, &mut file);
        file
    }

    /// The snapshot file's name.
    pub fn snapshot_file(&self) -> String {
        format!("{:016x}-{:016x}.snap", self.term, self.index)
    }

    /// The consenters as etcd writes them: the voters, and that no change of them is under way.
    fn conf_state(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.consenters.iter().for_each(|&consenter| integers(&[(1, consenter)], &mut out));
        integers(&[(5, 0)], &mut out);
        out
    }
}
