//! The manifest: the tables and the log that make up the database.

use std::collections::BTreeMap;
use std::io::Read;

use super::log::{LogEnd, read_log};
use super::{LevelDbError, corrupt};
use crate::varint;

/// A table as the manifest names it.
#[derive(Debug)]
pub(super) struct TableFile {
    /// Its length in bytes.
    pub size: u64,
    /// Its first and its last internal key.
    pub bounds: (Vec<u8>, Vec<u8>),
}

/// A database's current version.
#[derive(Debug, Default)]
pub(super) struct Version {
    /// Tables by number.
    pub tables: BTreeMap<u64, TableFile>,
    /// Number of the oldest log that still counts.
    pub log_number: u64,
    /// Whether the manifest itself ends in a torn record.
    pub torn: bool,
}

pub(super) const COMPARATOR: u64 = 1;
pub(super) const LOG_NUMBER: u64 = 2;
pub(super) const NEXT_FILE: u64 = 3;
pub(super) const LAST_SEQUENCE: u64 = 4;
const COMPACT_POINTER: u64 = 5;
const DELETED_FILE: u64 = 6;
pub(super) const NEW_FILE: u64 = 7;
const PREVIOUS_LOG: u64 = 9;

impl Version {
    /// Reads a manifest's records.
    pub fn read(file: &str, source: impl Read) -> Result<Version, LevelDbError> {
        let mut version = Version::default();
        let mut records = 0;
        let end = read_log(file, source, |record, offset| {
            records += 1;
            version.apply(record).ok_or_else(|| corrupt(file, offset, "a version edit does not decode"))
        })?;
        if records == 0 {
            return Err(corrupt(file, 0, "the manifest holds no version"));
        }
        version.torn = end != LogEnd::Clean;
        Ok(version)
    }

    fn apply(&mut self, mut edit: &[u8]) -> Option<()> {
        fn integer(edit: &mut &[u8]) -> Option<u64> {
            let (value, used) = varint::read(edit)?;
            *edit = &edit[used..];
            Some(value)
        }
        fn bytes<'a>(edit: &mut &'a [u8]) -> Option<&'a [u8]> {
            let len = usize::try_from(integer(edit)?).ok()?;
            let (bytes, rest) = edit.split_at_checked(len)?;
            *edit = rest;
            Some(bytes)
        }
        while !edit.is_empty() {
            match integer(&mut edit)? {
                COMPARATOR => {
                    bytes(&mut edit)?;
                }
                LOG_NUMBER => self.log_number = integer(&mut edit)?,
                NEXT_FILE | LAST_SEQUENCE | PREVIOUS_LOG => {
                    integer(&mut edit)?;
                }
                COMPACT_POINTER => {
                    integer(&mut edit)?;
                    bytes(&mut edit)?;
                }
                DELETED_FILE => {
                    integer(&mut edit)?;
                    let number = integer(&mut edit)?;
                    self.tables.remove(&number);
                }
                NEW_FILE => {
                    integer(&mut edit)?;
                    let (number, size) = (integer(&mut edit)?, integer(&mut edit)?);
                    let bounds = (bytes(&mut edit)?.to_vec(), bytes(&mut edit)?.to_vec());
                    self.tables.insert(number, TableFile { size, bounds });
                }
                _ => return None,
            }
        }
        Some(())
    }
}
