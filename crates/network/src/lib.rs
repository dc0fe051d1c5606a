//! The network model: organizations, nodes and their directories; facts that a capture collects about them; and the rules that decide
//! whether they are a recoverable set. Nothing here reads files.
#![deny(missing_docs)]

mod facts;
mod finding;
mod heights;
mod logs;
mod membership;
mod model;
mod remedy;
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
pub use remedy::{OrLeaveOut, Quiet, Remedy};
pub use rules::{EXPIRY_WARNING_DAYS, check_keys, check_set};
pub use stage::Stage;
