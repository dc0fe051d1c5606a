//! Certificate authorities: kept parts, entries that an older database loses, dumps of their database servers.

pub(super) mod databases;
pub(super) mod forgotten;
pub(super) mod keep;
