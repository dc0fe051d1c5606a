//! Restores on hosts: killed at any step, inside mount points, beside other nodes' directories, over running nodes, over data that the
//! recovery point has not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
#[path = "restore_host/copies.rs"]
mod copies;
#[path = "restore_host/equal.rs"]
mod equal;
#[path = "restore_host/kills.rs"]
mod kills;
#[path = "restore_host/linked.rs"]
mod linked;
#[path = "restore_host/mounts.rs"]
mod mounts;
#[path = "restore_host/nothing_left.rs"]
mod nothing_left;
#[path = "restore_host/obstacles.rs"]
mod obstacles;
#[path = "restore_host/odd_names.rs"]
mod odd_names;
#[path = "restore_host/others.rs"]
mod others;
#[path = "restore_host/place.rs"]
mod place;
#[path = "restore_host/running.rs"]
mod running;
#[path = "restore_host/same_place.rs"]
mod same_place;
#[path = "restore_host/shared.rs"]
mod shared;
#[path = "restore_host/taken_away.rs"]
mod taken_away;
