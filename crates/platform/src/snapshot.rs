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
    /// Those that stay in the cluster with the recovery point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptSnapshot>,
}

/// A snapshot that stays in its cluster. It is recognised by its content's uid and handle, never by labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSnapshot {
    /// The namespace of the claim and of the VolumeSnapshot.
    pub namespace: String,
    /// The claim that it was taken of.
    pub claim: String,
    /// The VolumeSnapshot.
    pub name: String,
    /// Its VolumeSnapshotContent, which outlasts the namespace.
    pub content: String,
    /// The uid of the content.
    pub content_uid: String,
    /// The driver's name of the snapshot.
    pub handle: String,
    /// The CSI driver.
    pub driver: String,
    /// The class of the snapshots, or of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Least bytes of a volume that is made from it; 0 if the driver does not say.
    pub restore_bytes: u64,
    /// The group that it was taken in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<KeptGroup>,
}

/// A group of snapshots that stays in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeptGroup {
    /// The VolumeGroupSnapshot.
    pub name: String,
    /// Its VolumeGroupSnapshotContent.
    pub content: String,
    /// The uid of the content.
    pub content_uid: String,
}

impl KeptSnapshot {
    /// Returns its claim as `namespace/name`.
    pub fn of(&self) -> String {
        format!("{}/{}", self.namespace, self.claim)
    }
}

/// A snapshot in a cluster that says that it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSnapshot {
    /// Its VolumeSnapshotContent.
    pub content: String,
    /// The uid of the content.
    pub content_uid: String,
    /// The driver's name of the snapshot.
    pub handle: String,
    /// Its note, as it was written by whoever kept it.
    pub note: String,
    /// Its age in seconds.
    pub age_seconds: i64,
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
