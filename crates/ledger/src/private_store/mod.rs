//! A peer's private-data store (`ledgersData/pvtdataStore`), brought to the state that a chain at an earlier height needs.
//!
//! # What a peer at height N needs
//!
//! A peer whose block files end with block N-1 rebuilds world state, history, configuration history, bookkeeping and block index from the
//! blocks and this store, if all of them are left out together. `ledgersData` must contain:
//!
//! - `chains/chains/<channel>`: blocks 0 to N-1, without `__preResetHeight`: with it the peer does not endorse until that height is reached.
//! - `pvtdataStore`: the result of [`Trim`]. It ends with block N-1 too. A store that ends earlier makes the next commit fail ("expected block
//!   number"); in a store that ends later, Fabric takes the entries for private data of the next blocks, and panics if these are other blocks.
//! - `ledgerProvider`: unchanged. It lists the peer's channels with their status (and the snapshot's metadata for a channel joined by
//!   snapshot), which is valid at every height; without it the peer has no channels.
//!
//! These must be left out: `stateLeveldb` (or the databases in CouchDB, and `couchdbRedoLogs`, the last block's updates of a history that
//! does not exist any more), `historyLeveldb`, `configHistory`, `bookkeeper` and `chains/index`; also `transientstore` beside `ledgersData`,
//! which has private data of transactions after N. `fileLock` is an empty database that only prevents two commands from running at once: the
//! peer creates it again; it may stay. `snapshots` are derived, and may stay if their blocks are below N.
//!
//! The state of a channel that was joined by snapshot cannot be rebuilt: nothing below the height of its own state can be restored. The store
//! of such a ledger is trimmed down to the snapshot's height and not below.
//!
//! # Purged private data
//!
//! Where keys of private data were purged (`PurgePrivateData`), Fabric (seen in 2.5.16 and 3.1.5) cannot make the state anew from its own store: what is
//! left of a write has another hash than the block names, and the channel does not open ("hash of pvt data for collection … does not match").
//! This concerns every height, the current one too. [`Trim`] leaves such writes out. Where purging took all of a write's keys, nothing is lost by it; where
//! keys are left, they are noted as missing, so that the peer asks the other members of the collection for them: where no member has them they
//! are lost from the state. (Once the peer has made its state, it takes them from its store at its next start, when they are put back
//! together with the list of their blocks that Fabric 1.x kept under group 7. Tried with 3.1.5 and not done here.)
//!
//! Purges in blocks from N on did not happen: their markers are left out. Data that is physically gone stays gone; it is counted. The last
//! purge of a key replaces the marker of an earlier one: a key that was purged below N and again later has no marker afterwards, and if the
//! purge below N had not been executed yet, its data stays in the store (not in the state).

pub(crate) mod keys;
mod trim;

pub use trim::{Loss, Trim, TrimError, Trimmed, WritesOf};
