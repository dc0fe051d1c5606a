//! LevelDB directories as goleveldb writes them: checked, read and created anew, never changed in place.
//!
//! A directory is intact if `CURRENT` names a manifest, the manifest's records are correct, every table that it names exists with
//! correct checksums, and the log that it names can be read. After a crash a log may end with an incomplete record.

mod database;
mod fabric;
mod log;
mod manifest;
mod table;
mod write;

use std::io;

pub use database::{Database, Entries, Report};
pub use fabric::{
    LedgerList, LedgerStatus, MissingPrivateData, Savepoint, approved_packages, block_index_height, block_location,
    has_private_data, has_purged, is_no_member, knows_channel, ledger_ids, ledger_list, missing_private_data,
    own_organizations, private_data_height, state_height, stored_private_data,
};
pub(crate) use fabric::{MAX_TRANSACTIONS, ordered, read_ordered};
pub use log::{LogEnd, LogWriter, read_log};
pub use write::{WriteSummary, write};

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Longest record of a log accepted, in bytes: a batch holds one block's worth of writes.
pub const MAX_RECORD_BYTES: usize = 512 << 20;
/// Longest table block accepted after decompression, in bytes.
pub const MAX_TABLE_BLOCK_BYTES: usize = 256 << 20;
/// Longest manifest accepted, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// What is wrong with a LevelDB directory.
#[derive(Debug, thiserror::Error)]
pub enum LevelDbError {
    /// Reading failed.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file that another one names is not there.
    #[error("{file} is missing; {named_by} names it")]
    Missing {
        /// The missing file.
        file: String,
        /// Who names it.
        named_by: String,
    },
    /// Bytes do not match their checksum or the format.
    #[error("{file} at byte {offset}: {problem}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where, in bytes.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
}

fn corrupt(file: &str, offset: u64, problem: impl Into<String>) -> LevelDbError {
    LevelDbError::Corrupt { file: file.to_owned(), offset, problem: problem.into() }
}

/// LevelDB stores CRC-32C rotated and shifted, so that a checksum of checksums stays useful.
fn mask_crc(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}
