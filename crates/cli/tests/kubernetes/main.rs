//! Finding, capturing and restoring networks on a real cluster, laid out as the deployers do, with real nodes' data and fake nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod drills;
mod faults;
mod kept;
mod losses;
mod network;
#[path = "../object_store/mod.rs"]
mod object_store;
mod operator;
mod proxy;
mod relocation;
mod restricted;
mod run;
mod scheduled;
mod styles;
mod whole;
mod windows;
