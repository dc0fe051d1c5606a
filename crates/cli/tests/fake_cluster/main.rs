//! Networks on the fake cluster: found, captured and restored by the command, without a cluster and without root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod attested;
mod claims;
mod guards;
mod others;
mod restores;
mod scene;
mod snapshots;
mod streams;
mod whole;
mod windows;
mod wrapped;
