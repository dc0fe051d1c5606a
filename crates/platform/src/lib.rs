//! Where a network lives. A [`Platform`] knows its nodes, reads their directories, starts and stops them; `host` is the one whose
//! nodes are directories and commands of this machine, named by an inventory file.
#![deny(missing_docs)]

mod discover;
mod host;
mod inventory;
mod volume;

use std::path::PathBuf;

use fabkeep_network::{Network, NodeDirectory, NodeId};

pub use discover::{Discovered, discover};
pub use host::Host;
pub use inventory::{Commands, INVENTORY_HEADER, Inventory, InventoryNode, InventoryOrganization};
pub use volume::{EntryKind, HostVolume, Stamp, Volume, VolumeEntry};

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
}

/// What went wrong on a platform.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The inventory cannot be read or says something impossible.
    #[error("{file}: {problem}")]
    Inventory {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// Reading a directory or file failed.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A name that cannot be kept.
    #[error("{path}: the name is not UTF-8")]
    Name {
        /// Where, with the odd bytes replaced.
        path: String,
    },
    /// A node's command failed.
    #[error("the {which} command of {node} failed: {problem}")]
    Command {
        /// The node.
        node: String,
        /// `start`, `stop` or `status`.
        which: &'static str,
        /// What happened.
        problem: String,
    },
}

/// A place where networks live.
pub trait Platform: Sync {
    /// The network.
    fn network(&self) -> &Network;

    /// Opens a directory of a node for reading; `None` when it does not exist.
    ///
    /// # Errors
    /// [`PlatformError`] when it exists and cannot be read.
    fn volume(&self, directory: &NodeDirectory) -> Result<Option<Box<dyn Volume>>, PlatformError>;

    /// Whether a node runs: by its status command, else by the locks that it holds.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    fn state(&self, node: &NodeId) -> Result<NodeState, PlatformError>;

    /// Runs a node's stop command; `false` when it has none.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    fn stop(&self, node: &NodeId) -> Result<bool, PlatformError>;

    /// Runs a node's start command; `false` when it has none.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    fn start(&self, node: &NodeId) -> Result<bool, PlatformError>;

    /// Where a directory lies on this machine, for a restore into it.
    fn place(&self, directory: &NodeDirectory) -> PathBuf;
}
