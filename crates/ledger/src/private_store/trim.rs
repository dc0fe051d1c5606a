//! The entries of the store without those of the last blocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use super::keys::{self, Place};
use crate::leveldb::{Database, Entries, Entry, LevelDbError, MAX_TRANSACTIONS, ordered};
use crate::private_hashes::{self, PrivateWrite};
use crate::wire::{self, Value};
use crate::{Hash, sha256, varint};

/// Why a store cannot be brought to a height.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The store cannot be read.
    #[error(transparent)]
    LevelDb(#[from] LevelDbError),
    /// The store has nothing of a ledger.
    #[error("the private-data store has no ledger {0}")]
    UnknownLedger(String),
    /// A ledger without its genesis block.
    #[error("ledger {0} cannot end before its first block")]
    NoBlock(String),
    /// The store ends below the height.
    #[error("the private-data store of ledger {ledger} has the height {held}: it cannot be brought to {height}")]
    Behind {
        /// The ledger.
        ledger: String,
        /// The height that it was to have.
        height: u64,
        /// The height that it has.
        held: u64,
    },
    /// The ledger was made from a snapshot of later blocks.
    #[error("ledger {ledger} was joined by a snapshot of height {snapshot}: it cannot be brought to {height}")]
    BelowSnapshot {
        /// The ledger.
        ledger: String,
        /// The height that it was to have.
        height: u64,
        /// The snapshot's height.
        snapshot: u64,
    },
    /// A key or value that is none of Fabric's.
    #[error("the private-data store of ledger {ledger} has an entry that does not decode: key {key}")]
    Entry {
        /// The ledger.
        ledger: String,
        /// The key behind the ledger's name, in hexadecimal digits.
        key: String,
    },
    /// The blocks cannot be read.
    #[error("the private data that block {block} of ledger {ledger} names: {source}")]
    Block {
        /// The ledger.
        ledger: String,
        /// The block.
        block: u64,
        /// Why.
        source: io::Error,
    },
}

/// Private data of one collection that a store at the earlier height lacks or is given back. Writes are counted: of one transaction to the collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Keys whose last purge is in a block that is no more. They were to be given back.
    pub purged_keys: u64,
    /// Of these, keys whose purge was not carried out yet: all that the store had of them is still there.
    pub purged_keys_held: u64,
    /// Writes that purges have taken all keys of. Left out.
    pub emptied_writes: u64,
    /// Writes that purges have taken some keys of: what is left of them is left out and noted as missing.
    pub cut_writes: u64,
    /// Blocks that private data of the collection lives for, where the store tells.
    pub block_to_live: Option<u64>,
    /// Writes that expired in a block that is no more and are still there: they are given back.
    pub expired_writes_held: u64,
    /// Writes that expired in a block that is no more and are gone.
    pub expired_writes: u64,
}

/// What came of a ledger's part of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// The height that it had.
    pub held: u64,
    /// The height that it has now.
    pub height: u64,
    /// Entries that were left out.
    pub removed: u64,
    /// By chaincode and collection. Those that lose nothing and whose data does not expire are not named.
    pub collections: BTreeMap<(String, String), Loss>,
}

/// Tells of a block (ledger, number) what private data its valid transactions wrote, with the hashes that the block names
/// ([`private_hashes::of_block`]). Asked for blocks below the height only, and only where the store has purged or expiring data;
/// for a ledger at most twice from its lower to its higher blocks.
pub type WritesOf<'a> = &'a mut dyn FnMut(&str, u64) -> io::Result<Vec<(PrivateWrite, Hash)>>;

/// A store's entries in the order of their keys, with ledgers brought to earlier heights: to be given to [`crate::leveldb::write`]. Whatever is not of
/// one of these ledgers stays as it is.
pub struct Trim<'a> {
    entries: Entries<'a>,
    ledgers: BTreeMap<String, Ledger>,
    writes_of: WritesOf<'a>,
    /// Notes of missing data that are added, by key.
    notes: BTreeMap<Vec<u8>, Bits>,
    ready: VecDeque<Entry>,
}

impl<'a> Trim<'a> {
    /// Looks at what the store says of each ledger that is brought to a height (as many blocks stay).
    ///
    /// # Errors
    /// [`TrimError`].
    pub fn new(
        store: &'a Database,
        heights: &BTreeMap<String, u64>,
        writes_of: WritesOf<'a>,
    ) -> Result<Trim<'a>, TrimError> {
        let mut ledgers = BTreeMap::new();
        for (name, &height) in heights {
            let mut ledger = Ledger::read(store, name, height)?;
            ledger.count_expired(&mut *writes_of)?;
            ledgers.insert(name.clone(), ledger);
        }
        let entries = store.entries(b"", None)?;
        Ok(Trim { entries, ledgers, writes_of, notes: BTreeMap::new(), ready: VecDeque::new() })
    }

    /// What came of each ledger. Complete once there are no more entries.
    pub fn report(&self) -> BTreeMap<String, Trimmed> {
        self.ledgers.iter().map(|(name, ledger)| (name.clone(), ledger.trimmed.clone())).collect()
    }

    fn step(&mut self) -> Result<Option<Entry>, TrimError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            let next = self.entries.next().transpose()?;
            while let Some(note) = self.notes.first_entry()
                && next.as_ref().is_none_or(|(key, _)| note.key() < key)
            {
                let (key, bits) = note.remove_entry();
                self.ready.push_back((key, bits.write()));
            }
            let Some((key, value)) = next else {
                match self.ready.is_empty() {
                    true => return Ok(None),
                    false => continue,
                }
            };
            let of_ledger =
                keys::split(&key).and_then(|(name, group, rest)| Some((self.ledgers.get_mut(name)?, group, rest)));
            let Some((ledger, group, rest)) = of_ledger else {
                self.ready.push_back((key, value));
                continue;
            };
            let mut note = self.notes.remove(&key);
            match ledger.keep(group, rest, value, &mut self.notes, &mut *self.writes_of)? {
                Some(value) if note.is_some() => {
                    let held = Bits::read(&value).ok_or_else(|| ledger.bad(group, rest))?;
                    note.iter_mut().for_each(|note| note.add(&held));
                    self.ready.extend(note.map(|note| (key, note.write())));
                }
                Some(value) => self.ready.push_back((key, value)),
                None => ledger.trimmed.removed += 1,
            }
        }
    }
}

impl Iterator for Trim<'_> {
    type Item = Result<Entry, TrimError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Hashes of a block's writes, by transaction and collection.
type Hashes = BTreeMap<(u64, Vec<u8>), Hash>;

/// One ledger's part of the store.
struct Ledger {
    name: String,
    height: u64,
    /// The first block that is not in the snapshot that the ledger was made from.
    first: u64,
    /// Expiry of what expires next: what expired before is gone.
    next_expiry: Option<u64>,
    /// Collections with purged data: the last purge.
    last_purge: BTreeMap<Vec<u8>, Place>,
    /// Purges below the height that are still to be carried out, by collection and hash of the key.
    to_purge: BTreeMap<Vec<u8>, Place>,
    /// Writes that are left out.
    left_out: BTreeSet<(Place, Vec<u8>)>,
    /// The block that was read last.
    block: Option<(u64, Hashes)>,
    trimmed: Trimmed,
}

impl Ledger {
    fn read(store: &Database, name: &str, height: u64) -> Result<Ledger, TrimError> {
        if height == 0 {
            return Err(TrimError::NoBlock(name.to_owned()));
        }
        let key = |group: u8| [name.as_bytes(), &[0, group]].concat();
        let number = |group: u8| -> Result<Option<u64>, TrimError> {
            let Some(value) = store.get(&key(group))? else { return Ok(None) };
            let next = varint::read(&value).and_then(|(number, _)| number.checked_add(1));
            next.map(Some).ok_or_else(|| bad_entry(name, group, &[]))
        };
        let held = number(keys::LAST_BLOCK)?.ok_or_else(|| TrimError::UnknownLedger(name.to_owned()))?;
        if height > held {
            return Err(TrimError::Behind { ledger: name.to_owned(), height, held });
        }
        let first = number(keys::SNAPSHOT)?.unwrap_or(0);
        if height < first {
            return Err(TrimError::BelowSnapshot { ledger: name.to_owned(), height, snapshot: first });
        }
        let mut ledger = Ledger {
            name: name.to_owned(),
            height,
            first,
            next_expiry: None,
            last_purge: BTreeMap::new(),
            to_purge: BTreeMap::new(),
            left_out: BTreeSet::new(),
            block: None,
            trimmed: Trimmed { held, height, ..Trimmed::default() },
        };
        ledger.read_expiry(store)?;
        ledger.read_purges(store)?;
        Ok(ledger)
    }

    fn bad(&self, group: u8, rest: &[u8]) -> TrimError {
        bad_entry(&self.name, group, rest)
    }

    /// Calls `on_entry` with each entry of groups `from..to`: group, rest of the key, value.
    fn scan(
        &mut self,
        store: &Database,
        (from, to): (u8, u8),
        mut on_entry: impl FnMut(&mut Ledger, u8, &[u8], &[u8]) -> Option<()>,
    ) -> Result<(), TrimError> {
        let key = |group: u8| [self.name.as_bytes(), &[0, group]].concat();
        let (from, to) = (key(from), key(to));
        for entry in store.entries(&from, Some(&to))? {
            let (key, value) = entry?;
            let (group, rest) = (key[from.len() - 1], &key[from.len()..]);
            on_entry(self, group, rest, &value).ok_or_else(|| self.bad(group, rest))?;
        }
        Ok(())
    }

    fn loss(&mut self, collection: &[u8]) -> Option<&mut Loss> {
        Some(self.trimmed.collections.entry(keys::names(collection)?).or_default())
    }

    /// How long data of each collection lives, and what of it has expired behind the height and is still there.
    fn read_expiry(&mut self, store: &Database) -> Result<(), TrimError> {
        self.scan(store, (keys::EXPIRY, keys::EXPIRY + 1), |ledger, _, rest, value| {
            let ((expiring, committing), _) = keys::place(rest).filter(|(_, rest)| rest.is_empty())?;
            ledger.next_expiry.get_or_insert(expiring);
            let came_back = committing < ledger.height && (ledger.height..ledger.trimmed.held).contains(&expiring);
            let block_to_live = expiring.checked_sub(committing)?.checked_sub(1)?;
            for (collection, writes) in held_writes(value) {
                let loss = ledger.loss(&collection)?;
                loss.block_to_live = Some(block_to_live);
                loss.expired_writes_held += if came_back { writes } else { 0 };
            }
            Some(())
        })
    }

    fn read_purges(&mut self, store: &Database) -> Result<(), TrimError> {
        self.scan(store, (keys::PURGE, keys::PURGED + 1), |ledger, group, rest, value| {
            let (place, _) = keys::place(value).filter(|(_, rest)| rest.is_empty())?;
            let collection = match group {
                keys::LAST_PURGE => rest,
                _ => keys::collection(rest).filter(|(_, hash)| hash.len() == keys::HASH_BYTES)?.0,
            };
            let last = ledger.last_purge.entry(collection.to_vec()).or_default();
            *last = place.max(*last);
            let behind = place.0 >= ledger.height;
            match group {
                keys::PURGE if behind => ledger.loss(collection)?.purged_keys_held += 1,
                keys::PURGE => {
                    ledger.to_purge.insert(rest.to_vec(), place);
                }
                keys::PURGED if behind => ledger.loss(collection)?.purged_keys += 1,
                _ => {}
            }
            Some(())
        })
    }

    /// Counts the writes that were there at the height and have expired since: blocks tell of them, the store no longer does.
    fn count_expired(&mut self, writes_of: WritesOf<'_>) -> Result<(), TrimError> {
        // Expiring blocks of what is gone and would live.
        let gone = self.height..self.trimmed.held.min(self.next_expiry.unwrap_or(0));
        let mut blocks = BTreeMap::new();
        for (names, loss) in &self.trimmed.collections {
            let Some(life) = loss.block_to_live.and_then(|blocks| blocks.checked_add(1)) else { continue };
            let to = gone.end.saturating_sub(life).min(self.height);
            let from = gone.start.saturating_sub(life).max(self.first);
            if from < to {
                blocks.insert(names.clone(), from..to);
            }
        }
        let from = blocks.values().map(|blocks| blocks.start).min().unwrap_or(0);
        let to = blocks.values().map(|blocks| blocks.end).max().unwrap_or(0);
        for block in from..to {
            for (write, _) in self.writes(block, writes_of)? {
                let names = (write.chaincode, write.collection);
                if blocks.get(&names).is_some_and(|blocks| blocks.contains(&block)) {
                    self.trimmed.collections.entry(names).or_default().expired_writes += 1;
                }
            }
        }
        Ok(())
    }

    fn writes(&self, block: u64, writes_of: WritesOf<'_>) -> Result<Vec<(PrivateWrite, Hash)>, TrimError> {
        let failed = |source| TrimError::Block { ledger: self.name.clone(), block, source };
        writes_of(&self.name, block).map_err(failed)
    }

    /// The value that an entry keeps, if it stays.
    fn keep(
        &mut self,
        group: u8,
        rest: &[u8],
        value: Vec<u8>,
        notes: &mut BTreeMap<Vec<u8>, Bits>,
        writes_of: WritesOf<'_>,
    ) -> Result<Option<Vec<u8>>, TrimError> {
        let height = self.height;
        let block = match group {
            // The state is made anew from all of the data, and from no block that was being committed.
            keys::PENDING | keys::OLD_UPDATES => return Ok(None),
            keys::LAST_BLOCK => {
                let mut last = Vec::new();
                varint::write(height - 1, &mut last);
                return Ok(Some(last));
            }
            keys::SNAPSHOT => return Ok(Some(value)),
            keys::LAST_PURGE => {
                let purges = self.to_purge.iter().filter(|(key, _)| key.len() == rest.len() + 1 + keys::HASH_BYTES);
                let last = purges.filter(|(key, _)| key.starts_with(rest)).map(|(_, place)| *place).max();
                return Ok(match self.last_purge.get(rest) {
                    Some(&(block, _)) if block < height => Some(value),
                    _ => last.map(|(block, transaction)| {
                        let mut value = Vec::new();
                        [block, transaction].into_iter().for_each(|number| ordered(number, &mut value));
                        value
                    }),
                });
            }
            keys::DATA | keys::SNAPSHOT_HASHES => keys::place(rest).map(|((block, _), _)| block),
            keys::EXPIRY => keys::place(rest).map(|((_, committing), _)| committing),
            keys::MISSING | keys::MISSING_LATER => keys::counted_down(rest).map(|(block, _)| block),
            keys::ELIGIBILITY => keys::counted_down(rest).map(|(block, _)| block),
            keys::NOT_A_MEMBER => {
                keys::collection(rest).and_then(|(_, rest)| keys::counted_down(rest)).map(|(block, _)| block)
            }
            keys::HASHED_KEYS => of_hashed_key(rest).map(|(_, (block, _))| block),
            keys::PURGE | keys::PURGED => keys::place(&value).map(|((block, _), _)| block),
            _ => None,
        };
        if block.ok_or_else(|| self.bad(group, rest))? >= height {
            return Ok(None);
        }
        let stays = match group {
            keys::DATA => self.is_whole(rest, &value, notes, writes_of)?,
            keys::HASHED_KEYS if !self.left_out.is_empty() => of_hashed_key(rest)
                .is_none_or(|(collection, place)| !self.left_out.contains(&(place, collection.to_vec()))),
            _ => true,
        };
        Ok(stays.then_some(value))
    }

    /// Whether a write is what its block names. What purges have left of one is counted and noted as missing.
    fn is_whole(
        &mut self,
        rest: &[u8],
        value: &[u8],
        notes: &mut BTreeMap<Vec<u8>, Bits>,
        writes_of: WritesOf<'_>,
    ) -> Result<bool, TrimError> {
        let Some((place, collection)) = keys::place(rest) else { return Err(self.bad(keys::DATA, rest)) };
        if place.0 < self.first || self.last_purge.get(collection).is_none_or(|last| place > *last) {
            return Ok(true);
        }
        // A transaction that is not valid writes no state: nothing is compared.
        let Some(expected) = self.expected(place, collection, writes_of)? else { return Ok(true) };
        let written = wire::bytes(value, 2).unwrap_or_default();
        let (mut left, mut purged) = (0u64, 0u64);
        for key in wire::all(written, 3).map(|write| wire::bytes(write, 1).unwrap_or_default()) {
            let marker = self.to_purge.get(&[collection, &[0], &sha256(&[key])].concat());
            if marker.is_some_and(|marker| place <= *marker) { purged += 1 } else { left += 1 }
        }
        if purged == 0 && private_hashes::of_stored(value) == Some(expected) {
            return Ok(true);
        }
        let Some(loss) = self.loss(collection) else { return Err(self.bad(keys::DATA, rest)) };
        if left == 0 {
            loss.emptied_writes += 1;
        } else {
            loss.cut_writes += 1;
            let mut key = [self.name.as_bytes(), &[0, keys::MISSING]].concat();
            keys::count_down(place.0, &mut key);
            key.extend(collection);
            if !notes.entry(key).or_default().set(place.1) {
                return Err(self.bad(keys::DATA, rest));
            }
        }
        self.left_out.insert((place, collection.to_vec()));
        Ok(false)
    }

    /// The hash that the block has of a write.
    fn expected(
        &mut self,
        (block, transaction): Place,
        collection: &[u8],
        writes_of: WritesOf<'_>,
    ) -> Result<Option<Hash>, TrimError> {
        if self.block.as_ref().is_none_or(|(number, _)| *number != block) {
            let of = |(write, hash): (PrivateWrite, Hash)| {
                let collection = [write.chaincode.as_bytes(), &[0], write.collection.as_bytes()].concat();
                ((write.transaction, collection), hash)
            };
            self.block = Some((block, self.writes(block, writes_of)?.into_iter().map(of).collect()));
        }
        Ok(self.block.as_ref().and_then(|(_, hashes)| hashes.get(&(transaction, collection.to_vec())).copied()))
    }
}

fn bad_entry(ledger: &str, group: u8, rest: &[u8]) -> TrimError {
    TrimError::Entry { ledger: ledger.to_owned(), key: hex::encode([&[group], rest].concat()) }
}

/// Collection and place of a hashed key.
fn of_hashed_key(rest: &[u8]) -> Option<(&[u8], Place)> {
    let (collection, rest) = keys::collection(rest)?;
    let (place, rest) = keys::place(rest.get(keys::HASH_BYTES..)?)?;
    rest.is_empty().then_some((collection, place))
}

/// Collections of an expiry entry that have data, and how many writes.
fn held_writes(value: &[u8]) -> Vec<(Vec<u8>, u64)> {
    let mut out = Vec::new();
    for namespace in wire::all(value, 1) {
        let chaincode = wire::bytes(namespace, 1).unwrap_or_default();
        for present in wire::bytes(namespace, 2).into_iter().flat_map(|of| wire::all(of, 1)) {
            let collection = [chaincode, &[0], wire::bytes(present, 1).unwrap_or_default()].concat();
            let writes = wire::fields(wire::bytes(present, 2).unwrap_or_default()).map(|(_, value)| match value {
                // Packed: every number ends with a byte below 128.
                Value::Bytes(packed) => packed.iter().filter(|byte| **byte < 0x80).count() as u64,
                _ => 1,
            });
            out.push((collection, writes.sum()));
        }
    }
    out
}

/// A set of transactions as a note of missing data has it: length in bits, and words.
#[derive(Debug, Default)]
struct Bits {
    len: u64,
    words: Vec<u64>,
}

impl Bits {
    fn read(value: &[u8]) -> Option<Bits> {
        let (len, words) = value.split_first_chunk::<8>()?;
        let len = u64::from_be_bytes(*len);
        let words: Vec<u64> = words.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)).collect();
        (len.div_ceil(64) == words.len() as u64).then_some(Bits { len, words })
    }

    /// Whether the transaction's number is one that a block may have.
    fn set(&mut self, transaction: u64) -> bool {
        if transaction >= MAX_TRANSACTIONS {
            return false;
        }
        self.len = self.len.max(transaction + 1);
        self.words.resize(self.len.div_ceil(64) as usize, 0);
        self.words[(transaction / 64) as usize] |= 1 << (transaction % 64);
        true
    }

    fn add(&mut self, other: &Bits) {
        self.len = self.len.max(other.len);
        self.words.resize(self.words.len().max(other.words.len()), 0);
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    fn write(&self) -> Vec<u8> {
        std::iter::once(&self.len).chain(&self.words).flat_map(|word| word.to_be_bytes()).collect()
    }
}
