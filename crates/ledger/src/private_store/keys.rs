//! Keys of the private-data store: `ledger 0 group …`.

use crate::leveldb::read_ordered;

/// Set while a peer before Fabric 2.0 commits a block.
pub(crate) const PENDING: u8 = 0;
/// The last block.
pub(crate) const LAST_BLOCK: u8 = 1;
/// `block transaction chaincode 0 collection`: private data. Before Fabric 1.2 without names.
pub(crate) const DATA: u8 = 2;
/// `expiring block, committing block`: what expires.
pub(crate) const EXPIRY: u8 = 3;
/// `block counted down, chaincode 0 collection`: transactions whose data the peer lacks, is a member for, and asks for first.
pub(crate) const MISSING: u8 = 4;
/// `chaincode 0 collection 0 block counted down`: transactions whose data the peer may not have.
pub(crate) const NOT_A_MEMBER: u8 = 5;
/// `block counted down`: collections that the peer became a member of with this block.
pub(crate) const ELIGIBILITY: u8 = 6;
/// Blocks whose data came later and is not in the state yet, before Fabric 2.0.
pub(crate) const OLD_UPDATES: u8 = 7;
/// As [`MISSING`]: what was asked for in vain and is asked for now and then.
pub(crate) const MISSING_LATER: u8 = 8;
/// As [`DATA`]: hashes of a snapshot that the ledger was made from.
pub(crate) const SNAPSHOT_HASHES: u8 = 9;
/// The last block of the snapshot that the ledger was made from.
pub(crate) const SNAPSHOT: u8 = b'a';
/// `chaincode 0 collection 0 hash of a key, block, transaction`: the key.
pub(crate) const HASHED_KEYS: u8 = b'b';
/// `chaincode 0 collection 0 hash of a key`, with block and transaction as value: a purge to be carried out.
pub(crate) const PURGE: u8 = b'c';
/// `chaincode 0 collection`: block and transaction of the collection's last purge.
pub(crate) const LAST_PURGE: u8 = b'd';
/// As [`PURGE`], and kept for ever.
pub(crate) const PURGED: u8 = b'e';

/// Bytes of a key's hash.
pub(crate) const HASH_BYTES: usize = 32;

/// Block and transaction.
pub(crate) type Place = (u64, u64);

/// A key's ledger and group, and what is behind them.
pub(crate) fn split(key: &[u8]) -> Option<(&str, u8, &[u8])> {
    let end = key.iter().position(|&byte| byte == 0)?;
    let (&group, rest) = key[end + 1..].split_first()?;
    Some((std::str::from_utf8(&key[..end]).ok()?, group, rest))
}

/// First and last numbers of keys and values: block and transaction, or expiring and committing block.
pub(crate) fn place(bytes: &[u8]) -> Option<(Place, &[u8])> {
    let (block, rest) = read_ordered(bytes)?;
    let (transaction, rest) = read_ordered(rest)?;
    Some(((block, transaction), rest))
}

/// A block counted down from the end: how many leading bytes are all ones, and the rest.
pub(crate) fn counted_down(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&leading, rest) = bytes.split_first().filter(|(leading, _)| **leading <= 8)?;
    let (number, rest) = rest.split_at_checked(8 - usize::from(leading))?;
    Some((u64::MAX - number.iter().fold(u64::MAX, |sum, &byte| sum << 8 | u64::from(byte)), rest))
}

/// Writes a block as [`counted_down`] reads it.
pub(crate) fn count_down(block: u64, key: &mut Vec<u8>) {
    let inverse = (u64::MAX - block).to_be_bytes();
    let leading = inverse.iter().take_while(|&&byte| byte == 0xff).count();
    key.push(leading as u8);
    key.extend(&inverse[leading..]);
}

/// `chaincode 0 collection`, and what is behind the zero byte that ends it.
pub(crate) fn collection(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut zeros = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
    let end = zeros.nth(1)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Chaincode and collection.
pub(crate) fn names(collection: &[u8]) -> Option<(String, String)> {
    let mut parts = collection.splitn(2, |&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
    Some((parts.next()?, parts.next()?))
}
