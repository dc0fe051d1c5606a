//! Where a network lives. A [`Platform`] knows its nodes and reads their directories. `host`: directories and commands of this
//! machine, named by an inventory file. `kubernetes`: workloads, volumes, Secrets and ConfigMaps of a cluster, found by what they are.
#![deny(missing_docs)]

pub mod host;
pub mod kubernetes;
mod probe;
mod shell;
mod sql;
mod volume;
mod window;

use fabkeep_network::{Finding, Network, NodeDirectory, NodeId, Observation};

pub use host::{
    ClientFiles, Commands, Discovered, Evidence, Host, HostVolume, INVENTORY_HEADER, Inventory, InventoryNode,
    InventoryOrganization, Mount, Mounts, Running, SqlAccess, discover, discover_compose, discover_docker,
    dump_directory, is_below,
};
pub use probe::block_files::heights as block_file_heights;
pub use probe::{Asked, BlockFiles};
pub use volume::{EntryKind, Fetch, Stamp, Volume, VolumeEntry};
pub use window::{
    Change, ClientWorkload, Hook, Machine, NoteProblem, NotedWindows, Quiesce, StrangeNote, WindowRecord,
};

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It runs.
    Running,
    /// It does not.
    Stopped,
    /// Nothing tells.
    Unknown,
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
    /// The platform cannot do what is asked.
    #[error("{problem}")]
    NotHere {
        /// What, and why not.
        problem: String,
        /// What to do.
        next: String,
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
    #[error("{path}: the name is not UTF-8, or holds a line break")]
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
    /// The API server says that fabkeep has no right to do this.
    #[error("{what}: {problem}")]
    Forbidden {
        /// What was asked of it.
        what: String,
        /// What it said.
        problem: String,
        /// What to do.
        next: String,
    },
    /// The cluster cannot be reached, or refused.
    #[error("{what}: {problem}")]
    Cluster {
        /// What was asked of it.
        what: String,
        /// What it said.
        problem: String,
        /// What to do.
        next: String,
    },
}

/// An object that declares a part of the network: a Secret, a ConfigMap, a workload … It holds what a new cluster needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Its namespace; empty for the namespaces themselves.
    pub namespace: String,
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The object, without what belongs to one life in one cluster.
    pub object: serde_json::Value,
}

impl Declaration {
    /// `Kind namespace/name`, as messages name it.
    pub fn label(&self) -> String {
        if self.namespace.is_empty() {
            format!("{} {}", self.kind, self.name)
        } else {
            format!("{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The objects that declare a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// In the order in which a new cluster wants them.
    pub objects: Vec<Declaration>,
    /// What could not be looked for, and what a new cluster needs besides.
    pub findings: Vec<Finding>,
}

/// A place where networks live.
pub trait Platform: Sync {
    /// The network.
    fn network(&self) -> &Network;

    /// What was found when the network was looked for.
    fn findings(&self) -> &[Finding] {
        &[]
    }

    /// The objects that declare the network.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    fn declarations(&self) -> Result<Declared, PlatformError> {
        Ok(Declared::default())
    }

    /// Opens a directory of a node for reading; `None` when it does not exist.
    ///
    /// # Errors
    /// [`PlatformError`] when it exists and cannot be read.
    fn volume(&self, node: &NodeId, directory: &NodeDirectory) -> Result<Option<Box<dyn Volume>>, PlatformError>;

    /// How a directory is read, and why so, for the plan.
    fn strategy(&self, node: &NodeId, directory: &NodeDirectory) -> String;

    /// Whether a node runs.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn state(&self, node: &NodeId) -> Result<NodeState, PlatformError>;

    /// Asks a node for its heights and health, all sources that it has. What does not answer is reported in the answer.
    fn observe(&self, node: &NodeId, asked: Asked) -> Observation;

    /// What a node logged since a moment, at most the last few megabytes; `None` when no log is known.
    ///
    /// # Errors
    /// What the system says.
    fn log(&self, node: &NodeId, since: jiff::Timestamp) -> Result<Option<String>, PlatformError>;

    /// What a window would change, in order, and what speaks against it.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] when this platform cannot.
    fn closing(&self, quiesce: &Quiesce) -> Result<(Vec<Change>, Vec<Finding>), PlatformError>;

    /// Does what a window changes; that it is done already is fine.
    ///
    /// # Errors
    /// [`PlatformError`]; some of it may be done.
    fn close(&self, changes: &[Change]) -> Result<(), PlatformError>;

    /// Undoes what a window changed, in the order that the nodes need; that it is undone already is fine. `reported` is called with what is
    /// waited for.
    ///
    /// # Errors
    /// [`PlatformError`] of the first thing that could not be undone; the others are.
    fn reopen(&self, changes: &[Change], reported: &dyn Fn(&str)) -> Result<(), PlatformError>;

    /// What is noted of windows here: the one that this machine opened, and notes that it did not sign.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn window(&self) -> Result<NotedWindows, PlatformError>;

    /// Notes a window before it changes anything.
    ///
    /// # Errors
    /// [`PlatformError`]; also when another window is noted.
    fn note_window(&self, record: &WindowRecord) -> Result<(), PlatformError>;

    /// Removes the note of a window that this machine opened.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn forget_window(&self, record: &WindowRecord) -> Result<(), PlatformError>;

    /// Whether a step that a note without this machine's signature names may be undone when a person agrees: it is of a kind that a window
    /// changes, and belongs to this network.
    ///
    /// # Errors
    /// Why not.
    fn may_undo(&self, change: &Change) -> Result<(), String>;

    /// Removes a note that this machine did not sign.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn forget_note(&self, note: &StrangeNote) -> Result<(), PlatformError>;

    /// How many directories are best read at a time, where that is not the number of cores: far ones wait more than they work.
    fn readers(&self) -> Option<usize> {
        None
    }

    /// The capture is over: what was made for it in the place goes.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn finish(&self) -> Result<(), PlatformError> {
        Ok(())
    }
}
