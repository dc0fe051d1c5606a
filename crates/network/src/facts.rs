//! What a capture knows about a node; the rules judge these facts.

use fabkeep_ledger::certificate::CertificateSummary;
use fabkeep_ledger::layout::NodeRole;
use serde::{Deserialize, Serialize};

use crate::NodeId;

/// All facts about one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Which node.
    pub id: NodeId,
    /// What it is.
    pub role: NodeRole,
    /// Its MSP, when known.
    pub msp_id: Option<String>,
    /// Whether it ran while it was captured.
    pub running: bool,
    /// Its chains.
    pub ledgers: Vec<LedgerFacts>,
    /// Its raft or SmartBFT logs.
    pub raft: Vec<RaftFacts>,
    /// Its certificates, and for each the location of its key.
    pub keys: Vec<KeyFacts>,
    /// Facts about the database, for a certificate authority.
    pub ca: Option<CaFacts>,
    /// An orderer's directory of raft snapshots, relative to that of its raft logs, where its configuration names both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_from_logs: Option<String>,
}

/// One chain on one node. Heights count blocks from genesis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerFacts {
    /// The channel.
    pub channel: String,
    /// Number of the first block: above 0 for a ledger joined by snapshot.
    pub first_block: u64,
    /// Height of the block files.
    pub height: u64,
    /// Header hash of the last block, hex.
    pub tip_hash: String,
    /// Commit hash of the last block, hex (peers).
    pub commit_hash: Option<String>,
    /// Bytes of an unfinished block at the end, dropped.
    pub torn_bytes: u64,
    /// Height that the block index claims.
    pub index_height: Option<u64>,
    /// Height that the world state claims (LevelDB).
    pub state_height: Option<u64>,
    /// Height that the peer's history database has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_height: Option<u64>,
    /// Height that the private-data store claims.
    pub private_height: Option<u64>,
    /// Raft index of the last block (raft orderers).
    pub raft_index: Option<u64>,
    /// Private data that the peer is a member for and does not have, by collection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_private: Vec<MissingCollection>,
    /// Whether keys of private data were purged from the peer's store, where that was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged: Option<bool>,
    /// Blocks whose signatures could not be checked: the chain begins behind a snapshot, and no configuration was known yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unchecked_signatures: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Private data of one collection that a peer does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCollection {
    /// Chaincode and collection.
    pub collection: String,
    /// Transactions whose data is missing.
    pub transactions: u64,
    /// The first block with one.
    pub first_block: u64,
    /// The last block with one.
    pub last_block: u64,
    /// How many of them another captured peer has; `None` when that was not looked for.
    pub held_elsewhere: Option<u64>,
}

/// What kind of log an orderer keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalKind {
    /// etcd's raft.
    Raft,
    /// SmartBFT.
    SmartBft,
}

/// One channel's consensus log on one orderer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftFacts {
    /// The channel.
    pub channel: String,
    /// Raft or SmartBFT.
    pub kind: WalKind,
    /// Log files.
    pub files: usize,
    /// Raft index of the first entry.
    pub first_index: Option<u64>,
    /// Raft index of the last entry.
    pub last_index: Option<u64>,
    /// The hard state's commit index.
    pub commit: u64,
    /// The hard state's term (raft).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// The newest snapshot.
    pub snapshot: Option<RaftSnapshotFacts>,
    /// Raft index of the newest snapshot that the log notes.
    pub noted_snapshot: Option<u64>,
    /// The noted snapshots, `(term, index)`, at which etcd can open the log, where it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens_at: Option<Vec<(u64, u64)>>,
    /// An unfinished last record: file and offset.
    pub torn: Option<(String, u64)>,
    /// The consenter that wrote the log (SmartBFT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<u64>,
    /// The highest block that the log proposes (SmartBFT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed: Option<u64>,
}

impl RaftFacts {
    /// Facts about a log of which nothing is known yet.
    pub fn new(channel: &str, kind: WalKind) -> Self {
        RaftFacts {
            channel: channel.to_owned(),
            kind,
            files: 0,
            first_index: None,
            last_index: None,
            commit: 0,
            term: None,
            snapshot: None,
            noted_snapshot: None,
            opens_at: None,
            torn: None,
            signer: None,
            proposed: None,
        }
    }
}

/// A raft snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftSnapshotFacts {
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: u64,
    /// Number of the block in it.
    pub block: Option<u64>,
    /// Header hash of the block in it, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_hash: Option<String>,
}

/// The purpose of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyPurpose {
    /// The node's identity.
    Enrolment,
    /// The node's TLS certificate.
    Tls,
    /// A certificate authority's own certificate.
    Authority,
    /// A certificate that the node trusts, or of a user of the node: no key is expected.
    Trusted,
}

impl std::fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            KeyPurpose::Enrolment => "enrolment",
            KeyPurpose::Tls => "TLS",
            KeyPurpose::Authority => "CA",
            KeyPurpose::Trusted => "trusted",
        })
    }
}

/// One certificate file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// Its location: directory role and path.
    pub path: String,
    /// Its purpose.
    pub purpose: KeyPurpose,
    /// Its content; `None` if it cannot be read.
    pub certificate: Option<CertificateSummary>,
    /// The location of its private key, if that is in the set.
    pub key: Option<String>,
}

/// Facts about a certificate authority's database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaFacts {
    /// `sqlite`, or what the configuration names.
    pub database: String,
    /// Registered identities, when they can be counted.
    pub identities: Option<u64>,
    /// Certificates issued.
    pub certificates: Option<u64>,
    /// Certificates revoked.
    pub revoked: Option<u64>,
    /// Whether the database passed its own integrity check.
    pub whole: Option<bool>,
}
