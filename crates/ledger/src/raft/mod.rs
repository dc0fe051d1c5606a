//! An etcdraft orderer's write-ahead log and snapshots: checked and read, never opened for writing; and created anew from a block.

mod frame;
mod rebuild;
mod snapshot;
mod wal;

pub use frame::write_log_record;
pub use rebuild::{FIRST_LOG_FILE, NoState, RaftState, SEGMENT_BYTES};
pub use snapshot::{RaftSnapshot, newest_snapshot, read_snapshot};
pub use wal::{
    Record, RecordKind, Wal, WalSummary, check_wal_directory, hard_state_bytes, next_record, read_up_to_hole,
};

use std::io;

/// Longest record accepted, in bytes: an entry holds at most one block.
pub const MAX_RECORD_BYTES: u64 = 256 << 20;
/// Longest log or snapshot file accepted, in bytes (etcd preallocates 64 MB and may go over by one record).
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// What is wrong with a raft log or snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// Reading failed.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes break the format or their checksum.
    #[error("{file} at byte {offset}: {problem}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where, in bytes.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The directory holds no log, or a log is missing between others.
    #[error("{0}")]
    Missing(String),
}

fn corrupt(file: &str, offset: u64, problem: impl Into<String>) -> RaftError {
    RaftError::Corrupt { file: file.to_owned(), offset, problem: problem.into() }
}
