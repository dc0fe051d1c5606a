//! Errors of a capture, a verification or a restore. The variant says how far a restore got: before its first change it ends with
//! [`EngineError::Precondition`] or with a read error; after it with [`EngineError::Interrupted`] or [`EngineError::ProofFailed`], which
//! list what was done.

use std::error::Error;

use fabkeep_ledger::chain::ChainError;
use fabkeep_network::Finding;
use fabkeep_platform::PlatformError;
use fabkeep_store::StoreError;
use serde::{Deserialize, Serialize};

use crate::misuse::Misuse;

/// An engine's error.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An error of the repository.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An error of the platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// An error of a chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Local input or output.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A backup breaks rules: nothing was committed.
    #[error("{} findings of severity error; the first: {}", .0.len(), first(.0))]
    Refused(Vec<Finding>),
    /// A restore would break rules. It ends with this before its first change only: the target is as it was.
    #[error("{} findings of severity error; the first: {}", .0.len(), first(.0))]
    Precondition(Vec<Finding>),
    /// A restore ended early after its first change.
    #[error("the restore ended after its first change: {source}")]
    Interrupted {
        /// What was done until then, in order, by this run and by earlier runs of the same restore.
        done: Vec<Done>,
        /// How to continue.
        next: Next,
        /// Why it ended.
        #[source]
        source: Box<EngineError>,
    },
    /// The data that a restore wrote differs from the captured data.
    #[error("the proof failed: {source}")]
    ProofFailed {
        /// What was done until then, in order, by this run and by earlier runs of the same restore.
        done: Vec<Done>,
        /// How to continue.
        next: Next,
        /// What differs.
        #[source]
        source: Difference,
    },
    /// Data that was read back differs from the captured data. [`EngineError::after`] makes a [`EngineError::ProofFailed`] of it.
    #[error(transparent)]
    Differs(#[from] Difference),
    /// The recovery point contains something invalid.
    #[error("recovery point {point}: {problem}")]
    Point {
        /// Which one.
        point: String,
        /// What is wrong.
        problem: String,
    },
    /// What was requested cannot be done.
    #[error(transparent)]
    Usage(Box<Misuse>),
    /// What a window changed could not be undone: it stays open, with its record.
    #[error("the window stays open: {0}")]
    WindowLeft(#[source] PlatformError),
    /// Stopped on request.
    #[error("stopped on request")]
    Stopped,
}

impl From<Misuse> for EngineError {
    fn from(misuse: Misuse) -> EngineError {
        EngineError::Usage(Box::new(misuse))
    }
}

/// Data that was read back and differs from the captured data.
#[derive(Debug, thiserror::Error)]
#[error("{subject}: {problem}")]
pub struct Difference {
    /// Which file, directory, database or object.
    pub subject: String,
    /// What differs.
    pub problem: String,
    /// What the reader of it said.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl Difference {
    /// Returns a difference that was seen by comparing.
    pub fn new(subject: impl ToString, problem: impl Into<String>) -> Self {
        Difference { subject: subject.to_string(), problem: problem.into(), source: None }
    }

    /// Returns a difference that a reader of the format ended with.
    pub fn by(subject: impl ToString, source: impl Error + Send + Sync + 'static) -> Self {
        Difference { subject: subject.to_string(), problem: source.to_string(), source: Some(Box::new(source)) }
    }
}

/// One thing that a restore did to its target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "kebab-case")]
pub enum Done {
    /// A node was stopped, or its workload scaled down to 0.
    NodeStopped {
        /// Which.
        node: String,
    },
    /// A node was started, or its workload scaled up again.
    NodeStarted {
        /// Which.
        node: String,
    },
    /// The stop of a node was begun, and it is not known whether the node was stopped.
    NodeStopping {
        /// Which.
        node: String,
    },
    /// The start of a node was begun, and failed or did not end: it may run.
    NodeStarting {
        /// Which.
        node: String,
    },
    /// The restart of a node that is not restored was begun: it may be stopped, or run again.
    // An earlier version wrote the other names into its journals.
    #[serde(alias = "restarting")]
    NodeRestarting {
        /// Which.
        node: String,
    },
    /// A node that is not restored was restarted.
    #[serde(alias = "restarted")]
    NodeRestarted {
        /// Which.
        node: String,
    },
    /// Data was written, but is not in its place yet: nothing uses it.
    Written {
        /// Of which node.
        node: String,
        /// Where it lies.
        path: String,
    },
    /// Existing data was set aside.
    SetAside {
        /// What.
        what: String,
        /// Where it is now.
        to: String,
    },
    /// Data was put into its place.
    Placed {
        /// Of which node.
        node: String,
        /// Where.
        path: String,
    },
    /// The earlier content of a database was dumped.
    DatabaseDumped {
        /// Of which node.
        node: String,
        /// The dump's folder.
        to: String,
    },
    /// A dump was loaded into a database, whole or in part.
    DatabaseLoaded {
        /// Of which node.
        node: String,
        /// The database.
        database: String,
    },
    /// An object of the cluster was created.
    ObjectCreated {
        /// `Kind namespace/name`.
        object: String,
    },
    /// An object of the cluster was replaced.
    ObjectReplaced {
        /// `Kind namespace/name`.
        object: String,
    },
}

/// How to continue after a restore that ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "next", rename_all = "kebab-case")]
pub enum Next {
    /// The same command continues where this run ended.
    SameCommand,
    /// All data is in place: only these nodes must be started, by the same command or by hand.
    StartNodes {
        /// Which.
        nodes: Vec<String>,
    },
}

impl EngineError {
    /// Returns what a restore that has made its first change ends with for this reason. What was done before stands in front of what an
    /// inner step has reported already.
    #[must_use]
    pub fn after(self, mut done: Vec<Done>, next: Next) -> EngineError {
        let mut add = |inner: Vec<Done>| {
            let new: Vec<Done> = inner.into_iter().filter(|act| !done.contains(act)).collect();
            done.extend(new);
        };
        match self {
            EngineError::Differs(source) => EngineError::ProofFailed { done, next, source },
            EngineError::ProofFailed { done: inner, next, source } => {
                add(inner);
                EngineError::ProofFailed { done, next, source }
            }
            EngineError::Interrupted { done: inner, next, source } => {
                add(inner);
                EngineError::Interrupted { done, next, source }
            }
            other => EngineError::Interrupted { done, next, source: Box::new(other) },
        }
    }

    /// Returns whether the target of a restore is as it was before the command.
    #[must_use]
    pub fn is_before_first_change(&self) -> bool {
        !matches!(self, EngineError::Interrupted { .. } | EngineError::ProofFailed { .. })
    }
}

fn first(findings: &[Finding]) -> String {
    findings
        .first()
        .map_or_else(String::new, |finding| format!("{} {}: {}", finding.rule, finding.subject, finding.what))
}

/// Wraps a system error with its place.
pub(crate) fn io(path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.as_ref().display().to_string();
    move |source| EngineError::Io { path, source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn stopped(node: &str) -> Done {
        Done::NodeStopped { node: node.to_owned() }
    }

    #[test]
    fn what_ends_a_restore_after_its_first_change_carries_what_was_done_and_its_source() {
        let inner = EngineError::Precondition(Vec::new());
        assert!(inner.is_before_first_change());
        let error = inner.after(vec![stopped("Org1/peer0")], Next::SameCommand);
        assert!(!error.is_before_first_change());
        let source = error.source().unwrap().downcast_ref::<Box<EngineError>>();
        assert!(matches!(source.map(|error| &**error), Some(EngineError::Precondition(_))));

        let error = error.after(vec![stopped("Org1/peer1"), stopped("Org1/peer0")], Next::SameCommand);
        let EngineError::Interrupted { done, source, .. } = error else { panic!() };
        assert_eq!(done, [stopped("Org1/peer1"), stopped("Org1/peer0")]);
        assert!(matches!(*source, EngineError::Precondition(_)));
    }

    #[test]
    fn a_difference_after_the_first_change_is_a_failed_proof() {
        let error = EngineError::from(Difference::new("a/b", "bytes 0 to 4 differ"));
        let error = error.after(vec![stopped("Org1/peer0")], Next::SameCommand);
        assert!(matches!(error, EngineError::ProofFailed { .. }));
        assert_eq!(error.source().unwrap().to_string(), "a/b: bytes 0 to 4 differ");
    }
}
