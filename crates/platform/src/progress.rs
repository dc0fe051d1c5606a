//! Progress of a platform call: what it does or waits for.

use fabkeep_network::{Finding, NodeId};
use serde::Serialize;

use crate::ObjectRef;

/// The current activity.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress<'a> {
    /// A node is started by its command.
    Starting(&'a NodeId),
    /// A workload is scaled up.
    ScalingUp(&'a ObjectRef),
    /// What was found while a window was undone, and stays as it is.
    Left(&'a Finding),
    /// What is not ready yet.
    WaitsFor(&'a Finding),
    /// A snapshot is not there yet, and this is reported of it.
    WaitsForSnapshot {
        /// What is waited for.
        what: &'a str,
        /// The message of the CSI driver or of the snapshot controller.
        problem: &'a str,
    },
    /// A helper pod does not run yet.
    WaitsForHelper {
        /// Its namespace and name.
        pod: &'a str,
        /// What the cluster says of it.
        problem: &'a str,
    },
    /// A database server does not answer yet.
    WaitsForDatabase {
        /// Whose it is.
        node: &'a NodeId,
        /// What was seen of it.
        problem: &'a str,
    },
}

/// Receives progress.
pub type OnProgress<'a> = dyn Fn(&Progress<'_>) + 'a;
