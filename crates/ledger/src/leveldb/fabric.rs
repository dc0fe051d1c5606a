//! What Fabric keeps in its LevelDB directories: how far each store has come, and which ledgers there are.

use std::path::Path;

use serde::{Deserialize, Serialize};

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

/// Private data that a peer is a member for and does not have, of one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingPrivateData {
    /// The chaincode.
    pub chaincode: String,
    /// The collection.
    pub collection: String,
    /// The block.
    pub block: u64,
    /// Numbers of the transactions in it.
    pub transactions: Vec<u64>,
}

/// Most blocks with missing private data that are read of a channel.
const MAX_MISSING: usize = 100_000;
/// Most transactions of a block that a note of missing data may name.
const MAX_TRANSACTIONS: u64 = 1 << 20;

/// Private data that a peer (`pvtdataStore`) still wants of a channel: it is a member of the collection and has it not. What it may not have
/// is not among it.
///
/// # Errors
/// [`LevelDbError`].
pub fn missing_private_data(directory: &Path, channel: &str) -> Result<Vec<MissingPrivateData>, LevelDbError> {
    let database = Database::open(directory)?;
    let mut out = Vec::new();
    // What it asks for first, and what it has asked for in vain and asks for now and then.
    for group in [4, 8] {
        let prefix = [channel.as_bytes(), &[0, group]].concat();
        let end = [channel.as_bytes(), &[0, group + 1]].concat();
        for (key, value) in database.range(&prefix, &end)? {
            let bad =
                || corrupt("the private-data store", 0, format!("a note of missing data of {channel} does not decode"));
            if out.len() < MAX_MISSING {
                out.push(missing(&key[prefix.len()..], &value).ok_or_else(bad)?);
            }
        }
    }
    out.sort_by(|a, b| (&a.chaincode, &a.collection, a.block).cmp(&(&b.chaincode, &b.collection, b.block)));
    Ok(out)
}

/// `chaincode 0 collection 0 block`, the block counted down from the end; the value is a set of bits.
fn missing(key: &[u8], value: &[u8]) -> Option<MissingPrivateData> {
    let mut parts = key.splitn(3, |&byte| byte == 0);
    let mut text = || Some(String::from_utf8_lossy(parts.next()?).into_owned());
    let (chaincode, collection) = (text()?, text()?);
    let (&leading, rest) = parts.next()?.split_first()?;
    (leading <= 8 && rest.len() == 8 - usize::from(leading)).then_some(())?;
    let inverse = rest.iter().fold(u64::MAX, |sum, &byte| sum << 8 | u64::from(byte));
    let (bits, words) = value.split_first_chunk::<8>()?;
    let bits = u64::from_be_bytes(*bits).min(MAX_TRANSACTIONS);
    let mut transactions = Vec::new();
    for (word, number) in words.chunks_exact(8).zip(0u64..) {
        let word = u64::from_be_bytes(word.try_into().ok()?);
        transactions.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| number * 64 + bit));
    }
    transactions.retain(|&number| number < bits);
    Some(MissingPrivateData { chaincode, collection, block: u64::MAX - inverse, transactions })
}

/// Whether a peer's open `pvtdataStore` has a transaction's private data of a collection.
///
/// # Errors
/// [`LevelDbError`].
pub fn has_private_data(
    store: &Database,
    channel: &str,
    (block, transaction): (u64, u64),
    (chaincode, collection): (&str, &str),
) -> Result<bool, LevelDbError> {
    let mut key = [channel.as_bytes(), &[0, 2]].concat();
    for number in [block, transaction] {
        let bytes = number.to_be_bytes();
        let used = &bytes[(number.leading_zeros() / 8) as usize..];
        key.push(used.len() as u8);
        key.extend(used);
    }
    key.extend([chaincode.as_bytes(), &[0], collection.as_bytes()].concat());
    Ok(store.get(&key)?.is_some())
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
