//! Snapshots of volumes: what would be taken together, what cannot be, and what was taken.

use fabkeep_network::{NodeId, Remedy};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Snapshots that show their volumes at one moment, if the driver takes groups; else at moments close to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSet {
    /// The namespace of the claims.
    pub namespace: String,
    /// The CSI driver; `None` when this may not be read.
    pub driver: Option<String>,
    /// The class of the snapshots; of the group, if they are taken as a group. `None`: the cluster's default for the driver.
    pub class: Option<String>,
    /// Whether the driver takes them at one moment.
    pub grouped: bool,
    /// The claims.
    pub claims: Vec<SnapshotClaim>,
    /// Sets of one phase are taken at the same time, and after those of all earlier phases: data of a later phase may be newer than data
    /// of an earlier one, never older (I1, I3).
    pub phase: u8,
}

/// A claim that a snapshot is taken of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotClaim {
    /// Its name.
    pub name: String,
    /// The storage class of a clone of the snapshot.
    pub storage_class: String,
}

impl SnapshotSet {
    /// Returns the names of its claims.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.claims.iter().map(|claim| claim.name.as_str())
    }
}

/// A volume that no snapshot can be taken of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoSnapshot {
    /// The node that needs it.
    pub node: NodeId,
    /// The volume, for people.
    pub volume: String,
    /// Why not.
    pub problem: String,
    /// What to do.
    pub remedy: Remedy,
}

/// The snapshots of a network's volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotPlan {
    /// In the order of their phases.
    pub sets: Vec<SnapshotSet>,
    /// Volumes that have to be read in another way.
    pub obstacles: Vec<NoSnapshot>,
    /// The nodes whose volumes are read from the snapshots.
    pub nodes: Vec<NodeId>,
}

/// What was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Each set.
    pub sets: Vec<TakenSet>,
    /// Seconds from the first request until the last snapshot was cut.
    pub seconds: f64,
}

/// A set that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenSet {
    /// The namespace of the claims.
    pub namespace: String,
    /// The CSI driver, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Whether the driver took them at one moment.
    pub grouped: bool,
    /// The claims, and when the driver says that it took the snapshot.
    pub claims: Vec<(String, Timestamp)>,
}

impl SnapshotReport {
    /// Returns how many volumes there are.
    pub fn volumes(&self) -> usize {
        self.sets.iter().map(|set| set.claims.len()).sum()
    }
}
