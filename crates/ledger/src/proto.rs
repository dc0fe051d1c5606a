//! Fabric's protobuf messages, generated from the vendored definitions.
#![allow(missing_docs, clippy::all, rustdoc::all)]

pub mod common {
    include!(concat!(env!("OUT_DIR"), "/common.rs"));
}
pub mod msp {
    include!(concat!(env!("OUT_DIR"), "/msp.rs"));
}
pub mod orderer {
    include!(concat!(env!("OUT_DIR"), "/orderer.rs"));
    pub mod smartbft {
        include!(concat!(env!("OUT_DIR"), "/orderer.smartbft.rs"));
    }
}
pub mod etcdraft {
    include!(concat!(env!("OUT_DIR"), "/etcdraft.rs"));
}
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/protos.rs"));
}
pub mod raft {
    include!(concat!(env!("OUT_DIR"), "/raft.rs"));
}
