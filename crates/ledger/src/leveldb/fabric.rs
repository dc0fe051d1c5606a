//! The content of Fabric's LevelDB directories: the height of each store, and the list of ledgers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Database, LevelDbError, corrupt};
use crate::private_hashes::{self, PrivateWrite};
use crate::private_store::keys;
use crate::{Hash, varint};

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

/// Height that the world state (`stateLeveldb`) or the history of keys (`historyLeveldb`) has reached for a channel.
///
/// # Errors
/// [`LevelDbError`].
pub fn state_height(directory: &Path, channel: &str) -> Result<Savepoint, LevelDbError> {
    lookup(directory, channel, b"s", order_preserving)
}

/// Returns whether a database that a peer keeps for all channels (`configHistory`) has anything of one.
///
/// # Errors
/// [`LevelDbError`].
pub fn knows_channel(directory: &Path, channel: &str) -> Result<bool, LevelDbError> {
    let (from, to) = ([channel.as_bytes(), &[0]].concat(), [channel.as_bytes(), &[1]].concat());
    Ok(!Database::open(directory)?.range(&from, &to)?.is_empty())
}

/// Returns the organizations whose own data of `_lifecycle` a world state (`stateLeveldb`) contains: a peer's has that of its organization
/// alone, and of the others the hashes.
///
/// # Errors
/// [`LevelDbError`].
pub fn own_organizations(directory: &Path, channel: &str) -> Result<BTreeSet<String>, LevelDbError> {
    // `channel 0 d namespace 0 key`; private data is in the namespace `chaincode$$pcollection`.
    let prefix = [channel.as_bytes(), b"\0d_lifecycle$$p_implicit_org_"].concat();
    let end = [prefix.as_slice(), &[0xff]].concat();
    let entries = Database::open(directory)?.range(&prefix, &end)?;
    let organization = |key: &Vec<u8>| {
        let name = key.get(prefix.len()..)?.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    };
    Ok(entries.keys().filter_map(organization).collect())
}

/// What a peer's list of ledgers says of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerStatus {
    /// The peer opens it at its start.
    Active,
    /// Paused with `peer node pause`: not opened until it is resumed.
    Paused,
    /// Being made when the peer stopped: the next start removes what there is of it.
    UnderConstruction,
    /// Being removed when the peer stopped: the next start removes the rest.
    UnderDeletion,
}

impl LedgerStatus {
    /// Returns whether the peer's next start removes the ledger.
    pub fn is_removed_by_start(self) -> bool {
        matches!(self, LedgerStatus::UnderConstruction | LedgerStatus::UnderDeletion)
    }
}

/// A peer's list of ledgers (`ledgerProvider`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerList {
    /// Each ledger with its status, by name.
    pub ledgers: BTreeMap<String, LedgerStatus>,
    /// The data format's version; `None` before Fabric 2.0.
    pub format: Option<String>,
}

const FORMAT_KEY: &[u8] = b"f";
/// Names the one ledger that a peer before Fabric 2.3 was making when it stopped.
const OLD_UNDER_CONSTRUCTION_KEY: &[u8] = b"underConstructionLedgerKey";

/// Reads a peer's list of ledgers: `s<id>` with a status since Fabric 2.0, `l<id>` with the genesis block before.
///
/// # Errors
/// [`LevelDbError`].
pub fn ledger_list(directory: &Path) -> Result<LedgerList, LevelDbError> {
    let database = Database::open(directory)?;
    let named = |key: &[u8]| String::from_utf8_lossy(&key[1..]).into_owned();
    let format = database.get(FORMAT_KEY)?.map(|value| String::from_utf8_lossy(&value).into_owned());
    let mut ledgers = BTreeMap::new();
    for (key, value) in database.range(b"s", b"t")? {
        let status = ledger_status(&value).ok_or_else(|| {
            corrupt("the list of ledgers", 0, format!("the status of ledger {} does not decode", named(&key)))
        })?;
        ledgers.insert(named(&key), status);
    }
    if format.is_none() && ledgers.is_empty() {
        ledgers.extend(database.range(b"l", b"m")?.into_keys().map(|key| (named(&key), LedgerStatus::Active)));
    }
    if let Some(id) = database.get(OLD_UNDER_CONSTRUCTION_KEY)? {
        ledgers.entry(String::from_utf8_lossy(&id).into_owned()).or_insert(LedgerStatus::UnderConstruction);
    }
    Ok(LedgerList { ledgers, format })
}

/// Returns the status in a ledger's metadata: field 1, absent for an active one. Other fields say where it began.
fn ledger_status(metadata: &[u8]) -> Option<LedgerStatus> {
    let status = match metadata.split_first() {
        Some((0x08, rest)) => varint::read(rest)?.0,
        _ => 0,
    };
    Some(match status {
        0 => LedgerStatus::Active,
        1 => LedgerStatus::Paused,
        2 => LedgerStatus::UnderConstruction,
        3 => LedgerStatus::UnderDeletion,
        _ => return None,
    })
}

/// Returns the channels that a peer opens at its start.
///
/// # Errors
/// [`LevelDbError`].
pub fn ledger_ids(directory: &Path) -> Result<Vec<String>, LevelDbError> {
    let list = ledger_list(directory)?;
    Ok(list.ledgers.into_iter().filter(|(_, status)| !status.is_removed_by_start()).map(|(id, _)| id).collect())
}

/// Returns where a block index has a block: number of the block file, and the offset of its record in it, in bytes.
///
/// # Errors
/// [`LevelDbError`].
pub fn block_location(directory: &Path, channel: &str, number: u64) -> Result<Option<(u32, u64)>, LevelDbError> {
    let mut key = [channel.as_bytes(), &[0, b'n']].concat();
    ordered(number, &mut key);
    let Some(value) = Database::open(directory)?.get(&key)? else { return Ok(None) };
    let decode = || {
        let (file, used) = varint::read(&value)?;
        let (offset, _) = varint::read(value.get(used..)?)?;
        Some((u32::try_from(file).ok()?, offset))
    };
    decode()
        .map(Some)
        .ok_or_else(|| corrupt("the block index", 0, format!("the place of block {number} does not decode")))
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
pub(crate) const MAX_TRANSACTIONS: u64 = 1 << 20;

/// Private data that a peer (`pvtdataStore`) still wants of a channel: it is a member of the collection and has it not. What it may not have
/// is not among it.
///
/// # Errors
/// [`LevelDbError`].
pub fn missing_private_data(directory: &Path, channel: &str) -> Result<Vec<MissingPrivateData>, LevelDbError> {
    let database = Database::open(directory)?;
    let mut out = Vec::new();
    // What it asks for first, and what it has asked for in vain and asks for now and then.
    for group in [keys::MISSING, keys::MISSING_LATER] {
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

/// Returns the block counted down from the end, `chaincode 0 collection`; the value is a set of bits.
fn missing(key: &[u8], value: &[u8]) -> Option<MissingPrivateData> {
    let (block, rest) = keys::counted_down(key)?;
    let (chaincode, collection) = keys::names(rest)?;
    let (bits, words) = value.split_first_chunk::<8>()?;
    let bits = u64::from_be_bytes(*bits).min(MAX_TRANSACTIONS);
    let mut transactions = Vec::new();
    for (word, number) in words.chunks_exact(8).zip(0u64..) {
        let word = u64::from_be_bytes(word.try_into().ok()?);
        transactions.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| number * 64 + bit));
    }
    transactions.retain(|&number| number < bits);
    Some(MissingPrivateData { chaincode, collection, block, transactions })
}

/// Returns whether a peer's open `pvtdataStore` has a transaction's private data of a collection.
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
    ordered(block, &mut key);
    ordered(transaction, &mut key);
    key.extend([chaincode.as_bytes(), &[0], collection.as_bytes()].concat());
    Ok(store.get(&key)?.is_some())
}

/// A number as Fabric orders it in keys: a count of bytes, and that many bytes, big endian.
pub(crate) fn ordered(number: u64, key: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let used = &bytes[(number.leading_zeros() / 8) as usize..];
    key.push(used.len() as u8);
    key.extend(used);
}

/// Reads a number as [`ordered`] writes it; what is behind it.
pub(crate) fn read_ordered(key: &[u8]) -> Option<(u64, &[u8])> {
    let (&len, rest) = key.split_first().filter(|(len, _)| **len <= 8)?;
    let (number, rest) = rest.split_at_checked(usize::from(len))?;
    Some((number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), rest))
}

/// Returns what a peer's open `pvtdataStore` holds of blocks `from..to`, with the hash that the block must have of it.
///
/// # Errors
/// [`LevelDbError`].
pub fn stored_private_data(
    store: &Database,
    channel: &str,
    from: u64,
    to: u64,
) -> Result<Vec<(PrivateWrite, Hash)>, LevelDbError> {
    let mut out = Vec::new();
    private_data(store, channel, from, to, |write, value| {
        out.extend(private_hashes::of_stored(value).map(|hash| (write, hash)));
    })?;
    Ok(out)
}

/// Goes over what a peer's open `pvtdataStore` holds of blocks `from..to`.
fn private_data(
    store: &Database,
    channel: &str,
    from: u64,
    to: u64,
    mut each: impl FnMut(PrivateWrite, &[u8]),
) -> Result<(), LevelDbError> {
    let prefix = [channel.as_bytes(), &[0, 2]].concat();
    let bound = |block: u64| {
        let mut key = prefix.clone();
        ordered(block, &mut key);
        key
    };
    for (key, value) in store.range(&bound(from), &bound(to))? {
        let decode = || {
            let (block, rest) = read_ordered(&key[prefix.len()..])?;
            let (transaction, rest) = read_ordered(rest)?;
            let mut parts = rest.splitn(2, |&byte| byte == 0);
            let mut text = || Some(String::from_utf8_lossy(parts.next()?).into_owned());
            let (chaincode, collection) = (text()?, text()?);
            Some(PrivateWrite { block, transaction, chaincode, collection })
        };
        if let Some(write) = decode() {
            each(write, &value);
        }
    }
    Ok(())
}

/// Returns the chaincode packages (`label:hash`) that an organization has approved, from what a peer's open `pvtdataStore` holds of blocks
/// `from..to`.
///
/// # Errors
/// [`LevelDbError`].
pub fn approved_packages(
    store: &Database,
    channel: &str,
    msp_id: &str,
    from: u64,
    to: u64,
) -> Result<Vec<String>, LevelDbError> {
    let collection = format!("_implicit_org_{msp_id}");
    let mut out = Vec::new();
    private_data(store, channel, from, to, |write, value| {
        if write.chaincode == "_lifecycle" && write.collection == collection {
            out.extend(private_hashes::approved_packages(value));
        }
    })?;
    Ok(out)
}

/// Returns whether a peer's open `pvtdataStore` notes that it may not have private data of a collection in a block: it is no member.
///
/// # Errors
/// [`LevelDbError`].
pub fn is_no_member(store: &Database, channel: &str, write: &PrivateWrite) -> Result<bool, LevelDbError> {
    let names = [write.chaincode.as_bytes(), &[0], write.collection.as_bytes(), &[0]].concat();
    let mut key = [channel.as_bytes(), &[0, keys::NOT_A_MEMBER], &names].concat();
    keys::count_down(write.block, &mut key);
    Ok(store.get(&key)?.is_some())
}

/// Returns whether private data of a channel was purged from a peer's open `pvtdataStore`: what is left of a write has another hash then.
///
/// # Errors
/// [`LevelDbError`].
pub fn has_purged(store: &Database, channel: &str) -> Result<bool, LevelDbError> {
    let (from, to) = ([channel.as_bytes(), b"\0c"].concat(), [channel.as_bytes(), b"\0f"].concat());
    Ok(!store.range(&from, &to)?.is_empty())
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
    read_ordered(value).map(|(number, _)| number)
}
