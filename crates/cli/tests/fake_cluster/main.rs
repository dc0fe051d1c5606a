//! Networks on the fake cluster: found, captured and restored by the command, without a cluster and without root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod attested;
mod bad_points;
mod beside;
mod bundle;
mod claims;
mod doctor;
mod drills;
mod from_snapshots;
mod guards;
mod kept;
mod missing;
mod others;
mod rehearsal;
mod restores;
mod scene;
mod snapshots;
mod streams;
mod whole;
mod windows;
mod wrapped;
