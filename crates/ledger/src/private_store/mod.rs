//! A peer's private-data store (`ledgersData/pvtdataStore`) as it has to be for a chain that ends at an earlier height.
//!
//! # What a peer at height N starts from
//!
//! A peer whose block files end with block N-1 makes world state, history, configuration history, bookkeeping and block index anew from the
//! blocks and this store, when they are left out together. In `ledgersData` there must be:
//!
//! - `chains/chains/<channel>`: blocks 0 to N-1. Without `__preResetHeight`: with it the peer does not endorse until that height is reached.
//! - `pvtdataStore`: what [`Trim`] gives. It ends with block N-1 too. One that ends before makes the next commit fail ("expected block number");
//!   one that ends behind has what Fabric takes for the private data of the next blocks, which panics where these are other blocks.
//! - `ledgerProvider`: as it is. It lists the peer's channels with their status (and of a channel joined by snapshot what the snapshot said), which
//!   holds at every height; without it the peer has no channels.
//!
//! To be left out: `stateLeveldb` (or the databases in CouchDB, and `couchdbRedoLogs`, the last block's updates of a history that no longer
//! is), `historyLeveldb`, `configHistory`, `bookkeeper` and `chains/index`; `transientstore` beside `ledgersData`, which has private data of
//! transactions behind N. `fileLock` is an empty database that only keeps two commands from running at once: the peer makes it anew; it may stay.
//! `snapshots` are derived, and may stay as far as their blocks are below N.
//!
//! A channel that was joined by snapshot cannot have its state made anew: nothing below its state's own height can be given back. The store of such a
//! ledger is trimmed down to the snapshot's height and not below.
//!
//! # Purged private data
//!
//! Where keys of private data were purged (`PurgePrivateData`), Fabric (seen in 2.5.16 and 3.1.5) cannot make the state anew from its own store: what is
//! left of a write has another hash than the block names, and the channel does not open ("hash of pvt data for collection … does not match").
//! This concerns every height, the current one too. [`Trim`] leaves such writes out. Where purging took all of a write's keys, nothing is lost by it; where
//! keys are left, they are noted as missing, so that the peer asks the other members of the collection for them.
//!
//! Purges in blocks from N on did not happen: their markers are left out. What is physically gone stays gone; it is counted. The last purge of
//! a key replaces the marker of an earlier one: a key purged below N and again behind it has no marker afterwards, and where the purge below N
//! was still to be carried out, its data stays in the store (not in the state).

pub(crate) mod keys;
mod trim;

pub use trim::{Loss, Trim, TrimError, Trimmed, WritesOf};
