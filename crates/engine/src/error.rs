//! What ends a capture, a verification or a restore.

use fabkeep_ledger::chain::ChainError;
use fabkeep_network::Finding;
use fabkeep_platform::PlatformError;
use fabkeep_store::StoreError;

/// An engine's error.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The repository's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The platform's.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A chain's.
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
    /// Rules are broken: nothing was committed or changed.
    #[error("{} findings of severity error; the first: {}", .0.len(), first(.0))]
    Refused(Vec<Finding>),
    /// The recovery point holds something that it should not.
    #[error("recovery point {point}: {problem}")]
    Point {
        /// Which one.
        point: String,
        /// What is wrong.
        problem: String,
    },
    /// What was asked for is not there.
    #[error("{0}")]
    Usage(String),
    /// Stopped on request.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
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
