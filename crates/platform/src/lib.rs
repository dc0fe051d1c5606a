//! Access to networks. A [`Platform`] knows the nodes of a network and reads their directories. `host`: directories and commands of this
//! machine, named by an inventory file. `kubernetes`: workloads, volumes, Secrets and ConfigMaps of a cluster, which are discovered.
#![deny(missing_docs)]

mod command;
pub mod host;
pub mod kubernetes;
mod object_ref;
mod probe;
mod progress;
mod shell;
mod snapshot;
mod sql;
mod volume;
mod window;

use std::time::Duration;

use fabkeep_network::{Finding, Network, NodeDirectory, NodeId, Observation, Remedy};

pub use command::{Until, check};
pub use host::{
    ClientFiles, Commands, Discovered, Evidence, Host, HostVolume, INVENTORY_HEADER, Inventory, InventoryNode,
    InventoryOrganization, Mount, Mounts, Remark, Running, SqlAccess, discover, discover_compose, discover_docker,
    dump_directory, in_use, is_below, may_be_shared, normal, trusted_link,
};
pub use object_ref::ObjectRef;
pub use probe::block_files::heights as block_file_heights;
pub use probe::{BlockFiles, ProbeScope};
pub use progress::{OnProgress, Progress};
pub use snapshot::{
    FoundSnapshot, KeptGroup, KeptSnapshot, NoSnapshot, SnapshotClaim, SnapshotPlan, SnapshotReport, SnapshotSet,
    TakenSet,
};
pub use volume::{ASIDE, EntryKind, Fetch, STAGED, Stamp, Unread, Volume, VolumeEntry, is_aside};
pub use window::{Change, Hook, Machine, NoteProblem, NotedWindows, Quiesce, StrangeNote, WindowRecord};

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It runs.
    Running,
    /// It does not run.
    Stopped,
    /// Its volumes are read from snapshots, which do not change. They show what a power cut would leave.
    Snapshot,
    /// It is unknown.
    Unknown,
}

/// An error of a platform.
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
    /// The platform cannot do what was requested.
    #[error("{problem}")]
    NotHere {
        /// The request, and why it is impossible.
        problem: String,
        /// What to do next.
        next: Remedy,
    },
    /// Reading a directory or file failed.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// The system's error.
        source: std::io::Error,
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
    /// The API server refused it, by rights, by a quota or by an admission policy, and did nothing.
    #[error("{what}: {problem}")]
    Forbidden {
        /// The request.
        what: String,
        /// Its answer.
        problem: String,
        /// What to do next.
        next: Remedy,
    },
    /// The cluster cannot be reached, or refused.
    #[error("{what}: {problem}")]
    Cluster {
        /// The request.
        what: String,
        /// Its answer.
        problem: String,
        /// What to do next.
        next: Remedy,
    },
}

/// An object that declares a part of the network: a Secret, a ConfigMap, a workload … It contains the fields that a new cluster needs.
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
    /// The object, without fields that are valid only in one cluster.
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
    /// In the order in which they must be created in a new cluster.
    pub objects: Vec<Declaration>,
    /// Kinds that could not be listed, and other requirements for a new cluster.
    pub findings: Vec<Finding>,
}

fn no_snapshots() -> PlatformError {
    PlatformError::NotHere {
        problem: "snapshots are taken of volumes on Kubernetes only".to_owned(),
        next: Remedy::WithoutSnapshots
            .or("mount a snapshot of the file system and name its directories in an inventory"),
    }
}

/// A place where networks run.
pub trait Platform: Sync {
    /// Returns the network.
    fn network(&self) -> &Network;

    /// Returns the findings of discovery.
    fn findings(&self) -> &[Finding] {
        &[]
    }

    /// Returns the objects that declare the network.
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

    /// Returns how a directory is read and why, for the plan.
    fn strategy(&self, node: &NodeId, directory: &NodeDirectory) -> String;

    /// Returns helper pods that do not run yet and were asked for some seconds ago, and what is said of each.
    fn slow_helpers(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Returns whether a node runs.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn state(&self, node: &NodeId) -> Result<NodeState, PlatformError>;

    /// Queries all sources of a node for its heights and health. Sources that do not answer are reported in the result.
    fn observe(&self, node: &NodeId, asked: ProbeScope) -> Observation;

    /// Returns what a node logged since a moment, at most the last few megabytes; `None` when no log is known.
    ///
    /// # Errors
    /// What the system says.
    fn log(&self, node: &NodeId, since: jiff::Timestamp) -> Result<Option<String>, PlatformError>;

    /// Returns the changes of a window, in order, and reasons against it.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] when this platform cannot.
    fn closing(&self, quiesce: &Quiesce) -> Result<(Vec<Change>, Vec<Finding>), PlatformError>;

    /// Makes the changes of a window. Changes that are already made are not an error. `until`: what ends the wait for the operator's command.
    ///
    /// # Errors
    /// [`PlatformError`]; some of the changes may have been made.
    fn close(&self, changes: &[Change], until: Until<'_>) -> Result<(), PlatformError>;

    /// Undoes the changes of a window, in the order that the nodes need. Changes that are already undone are not an error. `reported` is called
    /// with what the call waits for.
    ///
    /// # Errors
    /// [`PlatformError`] of the first change that could not be undone; all others are undone.
    fn reopen(&self, changes: &[Change], reported: &OnProgress<'_>) -> Result<(), PlatformError>;

    /// Returns the recorded windows: the one that this machine opened, and records that it did not sign.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn window(&self) -> Result<NotedWindows, PlatformError>;

    /// Records a window before it changes anything.
    ///
    /// # Errors
    /// [`PlatformError`], also if another window is recorded.
    fn note_window(&self, record: &WindowRecord) -> Result<(), PlatformError>;

    /// Removes the record of a window that this machine opened.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn forget_window(&self, record: &WindowRecord) -> Result<(), PlatformError>;

    /// Whether a step that a note without this machine's signature names may be undone when a person agrees: it is of a kind that a window
    /// changes, and belongs to this network.
    ///
    /// # Errors
    /// The reason why it must not be undone.
    fn may_undo(&self, change: &Change) -> Result<(), String>;

    /// Removes a record that this machine did not sign.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn forget_note(&self, note: &StrangeNote) -> Result<(), PlatformError>;

    /// Plans snapshots of the volumes of nodes.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] when this platform takes none.
    fn plan_snapshots(&self, _nodes: &[&NodeId]) -> Result<SnapshotPlan, PlatformError> {
        Err(no_snapshots())
    }

    /// Takes the snapshots of a plan. When this returns they are cut, and the volumes may change again: until [`Platform::finish`] the
    /// volumes of the plan's nodes are read from the snapshots. `limit`: how long a set may take.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn take_snapshots(
        &self,
        _plan: &SnapshotPlan,
        _limit: Duration,
        _reported: &OnProgress<'_>,
    ) -> Result<SnapshotReport, PlatformError> {
        Err(no_snapshots())
    }

    /// Returns what is to be recorded of the snapshots that were taken. From now on [`Platform::finish`] leaves them in the cluster; unless
    /// [`Platform::keep_snapshots`] is called, they are removed when this platform is closed.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn snapshots_to_keep(&self) -> Result<Vec<KeptSnapshot>, PlatformError> {
        Err(no_snapshots())
    }

    /// Keeps the snapshots that were taken, each with a note.
    ///
    /// # Errors
    /// [`PlatformError`]: then they are removed when this platform is closed.
    fn keep_snapshots(&self, _notes: &[(KeptSnapshot, String)]) -> Result<(), PlatformError> {
        Err(no_snapshots())
    }

    /// Returns access to the snapshots that earlier runs have kept; `None` when this platform takes none.
    fn kept_snapshots(&self) -> Option<kubernetes::KeptSnapshots> {
        None
    }

    /// Returns how many directories should be read at the same time, if that is not the number of cores: remote ones mostly wait.
    fn readers(&self) -> Option<usize> {
        None
    }

    /// The capture is over: removes what was created for it in the place.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn finish(&self) -> Result<(), PlatformError> {
        Ok(())
    }
}
