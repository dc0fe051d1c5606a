//! Finding, capturing and restoring networks on a real cluster, laid out as the deployers do, with real nodes' data and fake nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod drills;
mod faults;
mod losses;
mod network;
mod operator;
mod proxy;
mod relocation;
mod restricted;
mod run;
mod styles;
mod whole;
mod windows;
