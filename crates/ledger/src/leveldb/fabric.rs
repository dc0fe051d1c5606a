//! What Fabric keeps in its LevelDB directories: how far each store has come, and which ledgers there are.

use std::path::Path;

use super::{Database, LevelDbError, corrupt};
use crate::varint;

/// How far a store has come: blocks it holds, counted from genesis (the last block's number plus one).
pub type Savepoint = Option<u64>;

/// Height that the block index (`chains/index`, an orderer's `index`) has reached for a channel.
///
/// # Errors
/// [`LevelDbError`].
pub fn block_index_height(directory: &Path, channel: &str) -> Result<Savepoint, LevelDbError> {
    lookup(directory, channel, b"indexCheckpointKey", |value| Some(varint::read(value)?.0))
}

/// Height that the private-data store (`pvtdataStore`) has reached for a channel.
///
/// # Errors
/// [`LevelDbError`].
pub fn private_data_height(directory: &Path, channel: &str) -> Result<Savepoint, LevelDbError> {
    lookup(directory, channel, &[1], |value| Some(varint::read(value)?.0))
}

/// Height that the world state (`stateLeveldb`) has reached for a channel.
///
/// # Errors
/// [`LevelDbError`].
pub fn state_height(directory: &Path, channel: &str) -> Result<Savepoint, LevelDbError> {
    lookup(directory, channel, b"s", order_preserving)
}

/// The channels that a peer's `ledgerProvider` lists.
///
/// # Errors
/// [`LevelDbError`].
pub fn ledger_ids(directory: &Path) -> Result<Vec<String>, LevelDbError> {
    let entries = Database::open(directory)?.range(b"s", b"t")?;
    Ok(entries.into_keys().map(|key| String::from_utf8_lossy(&key[1..]).into_owned()).collect())
}

fn lookup(
    directory: &Path,
    channel: &str,
    key: &[u8],
    decode: impl Fn(&[u8]) -> Option<u64>,
) -> Result<Savepoint, LevelDbError> {
    let key = [channel.as_bytes(), &[0], key].concat();
    let Some(value) = Database::open(directory)?.get(&key)? else { return Ok(None) };
    let bad = || corrupt("the savepoint", 0, format!("the savepoint of channel {channel} does not decode"));
    let number = decode(&value).ok_or_else(bad)?;
    number.checked_add(1).map(Some).ok_or_else(bad)
}

/// Fabric's order-preserving integer: a count of bytes as a varint, then that many bytes, big endian.
fn order_preserving(value: &[u8]) -> Option<u64> {
    let (&len, rest) = value.split_first()?;
    let bytes = rest.get(..usize::from(len))?;
    (len <= 8).then(|| bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}
