//! No-transaction windows: the ways to keep transactions away from a network, recorded so that another run can undo them.

mod machine;
mod note;

pub use machine::Machine;
pub use note::{NoteProblem, NotedWindows, StrangeNote};

use fabkeep_network::{NodeId, Remedy};
use serde::{Deserialize, Serialize};

use crate::{ObjectRef, PlatformError};

/// What keeps transactions away while a network is captured. Several may be combined: hooks first, then clients, then the fence; nodes
/// are stopped when heights are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesce {
    /// Commands that stop the transactions, and let them flow again.
    pub hook: Option<Hook>,
    /// Client workloads scaled to 0, on Kubernetes: `Kind/namespace/name`.
    pub scale: Vec<ObjectRef>,
    /// NetworkPolicies around peers and orderers that let in nothing but each other, on Kubernetes.
    pub fence: bool,
    /// Nodes stopped.
    pub stop: bool,
}

impl Quiesce {
    /// Returns whether nothing is changed: the window only waits for equal heights.
    pub fn changes_nothing(&self) -> bool {
        *self == Quiesce::default()
    }
}

/// Commands of the operator's own, run by `sh -c` on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Stops the transactions.
    pub before: String,
    /// Lets them flow again. It may be run more than once.
    pub after: String,
}

/// One thing that a window changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// The operator's command has run.
    Hook(Hook),
    /// A command of the operator's has run, and this machine does not know which.
    UnknownHook,
    /// A workload is scaled to 0.
    Scale {
        /// The workload.
        #[serde(flatten)]
        workload: ObjectRef,
        /// How many replicas it had; records of older versions do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u32>,
    },
    /// A NetworkPolicy isolates a workload's pods.
    Fence {
        /// The policy's namespace.
        namespace: String,
        /// The policy's name.
        policy: String,
        /// The policy.
        object: serde_json::Value,
    },
    /// A node is stopped: on Kubernetes its workload is scaled to 0.
    Stop {
        /// The node.
        node: NodeId,
        /// The workload, on Kubernetes.
        workload: Option<ObjectRef>,
        /// How many replicas the workload had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u32>,
    },
}

impl Change {
    /// Returns whether it is made only after heights are equal.
    pub fn is_stop(&self) -> bool {
        matches!(self, Change::Stop { .. })
    }

    /// Returns the workload that is scaled to 0, and how many replicas it had.
    pub fn scaled(&self) -> Option<(&ObjectRef, Option<u32>)> {
        match self {
            Change::Scale { workload, replicas } | Change::Stop { workload: Some(workload), replicas, .. } => {
                Some((workload, *replicas))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Hook(hook) if hook.before.is_empty() => write!(f, "hook, undone by `{}`", hook.after),
            Change::Hook(hook) => write!(f, "run `{}`", hook.before),
            Change::UnknownHook => f.write_str("a hook whose commands this machine does not know"),
            Change::Scale { workload, .. } => write!(f, "scale {workload} to 0"),
            Change::Fence { namespace, policy, .. } => write!(f, "fence: NetworkPolicy {namespace}/{policy}"),
            Change::Stop { node, workload: None, .. } => write!(f, "stop {node}"),
            Change::Stop { node, workload: Some(workload), .. } => write!(f, "stop {node}: scale {workload} to 0"),
        }
    }
}

/// Returns a hook whose command is not known on this machine.
pub(crate) fn unknown_hook() -> PlatformError {
    PlatformError::NotHere {
        problem: "the window began with a hook, and this machine has no record of its commands; everything else of the window is undone".to_owned(),
        next: Remedy::UndoHook,
    }
}

/// An open window: noted before anything is changed, until everything is undone. The note itself names no command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// Names the window.
    pub run: String,
    /// When it was begun, RFC 3339.
    pub begun: String,
    /// Who began it: machine and process.
    pub by: String,
    /// What it changes, in order; undone in the order that the nodes need.
    pub changes: Vec<Change>,
}
