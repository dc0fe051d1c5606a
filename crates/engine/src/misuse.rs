//! A request that cannot be followed: which part of it, why, and what to do instead. The command line names its options for the parts.

use fabkeep_network::Remedy;

use crate::attest::BlockRange;
use crate::transform::LedgerFrom;

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A node is left out of a capture.
    ExcludeNode(String),
    /// A node is restored.
    RestoreNode(String),
    /// A peer takes the ledger of another one.
    LedgerFrom(LedgerFrom),
    /// An orderer is restored without ledgers.
    Replicate(String),
    /// A channel goes back to a number of blocks; `None` where it does not matter which one.
    Height {
        /// Which channel.
        channel: String,
        /// How many blocks are kept.
        height: Option<u64>,
    },
    /// All channels go back to a time.
    Before,
    /// A namespace gets another name.
    MapNamespace {
        /// The captured name.
        from: String,
        /// The other name; `None` where it does not matter which one.
        to: Option<String>,
    },
    /// The other orderers are restarted first.
    RestartOthers,
    /// A channel is attested.
    AttestChannel(String),
    /// Header hashes of these blocks are attested.
    AttestBlocks(BlockRange),
    /// A node is declared stopped.
    AssumeStopped(String),
}

/// Why a request cannot be followed. Nothing was begun.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Misuse {
    /// The part of it that is wrong, where it is a certain one.
    pub request: Option<Request>,
    /// What is wrong.
    pub problem: String,
    /// What to do instead.
    pub next: Option<Remedy>,
}

impl Misuse {
    /// Returns what is wrong with a request as a whole.
    pub fn new(problem: impl Into<String>) -> Self {
        Misuse { request: None, problem: problem.into(), next: None }
    }

    /// Returns what is wrong with a part of a request.
    pub fn of(request: Request, problem: impl Into<String>) -> Self {
        Misuse { request: Some(request), ..Misuse::new(problem) }
    }

    /// Adds what to do instead.
    #[must_use]
    pub fn next(self, next: impl Into<Remedy>) -> Self {
        Misuse { next: Some(next.into()), ..self }
    }
}
