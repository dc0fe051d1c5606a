//! Hyperledger Fabric's on-disk formats: block files and the hash chain, block signatures and the channel configuration that defines them,
//! LevelDB directories, the private-data store, raft and SmartBFT logs, node layouts, certificates.
//!
//! The crate does not know where bytes are stored: readers take [`std::io::Read`] or a path. Every length in a file is checked
//! against a limit and against the available bytes before memory is allocated.
#![deny(missing_docs)]

pub mod block;
pub mod block_file;
pub mod block_signature;
pub mod ca_config;
pub mod ca_dump;
pub mod certificate;
pub mod chain;
pub mod chaincode_package;
pub mod channel_config;
pub mod dump_commands;
pub mod idemix;
pub mod kept_environment;
pub mod layout;
pub mod legacy_package;
pub mod leveldb;
pub mod msp;
pub mod msp_config;
pub mod node_settings;
pub mod policy;
pub mod private_hashes;
pub mod private_store;
pub mod proto;
pub mod raft;
pub mod smartbft;
pub mod varint;
pub mod wal_split;
mod wire;
pub mod yaml;

/// A SHA-256 digest, as Fabric uses it for header, data and commit hashes.
pub type Hash = [u8; 32];

/// Digest of several byte strings, one after the other.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}
