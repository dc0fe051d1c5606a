//! Certificate authorities: what of them stays, what an older database forgets, dumps of their database servers.

pub(super) mod databases;
pub(super) mod forgotten;
pub(super) mod keep;
