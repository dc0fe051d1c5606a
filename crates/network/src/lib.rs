//! The network model: organizations, nodes and their directories; what a capture learned of them; and the rules that say whether
//! that makes a recoverable set. Nothing here reads a file.
#![deny(missing_docs)]

mod facts;
mod finding;
mod heights;
mod logs;
mod membership;
mod model;
mod rules;
mod stage;

pub use facts::{
    CaFacts, KeyFacts, KeyPurpose, LedgerFacts, MissingCollection, NodeFacts, RaftFacts, RaftSnapshotFacts, WalKind,
};
pub use finding::{Finding, Rule, Severity};
pub use heights::{
    ChannelAnswer, Grown, HeightSource, Observation, Participating, Reading, Relation, Standing, contradictions, grown,
    standings, unanswered,
};
pub use logs::{LogLevel, LogMessage, classify as classify_log};
pub use membership::{Consensus, relation as consensus_relation};
pub use model::{DirectorySource, Network, Node, NodeDirectory, NodeId, Operations, Organization, Workload};
pub use rules::{EXPIRY_WARNING_DAYS, check_set};
pub use stage::Stage;
