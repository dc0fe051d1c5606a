//! What to do next about a finding, as data. What fabkeep itself can be asked for has a variant of its own: the command line names its
//! options for it.

use serde::{Deserialize, Serialize};

use crate::{NodeId, Rule};

/// What to do next about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Remedy {
    /// One of these.
    Any {
        /// Which.
        of: Vec<Remedy>,
    },
    /// All of these, in this order.
    All {
        /// Which.
        of: Vec<Remedy>,
    },

    /// Back up without the node.
    ExcludeNode,
    /// Back up without these nodes.
    ExcludeNodes,
    /// Keep transactions away, in one of these ways.
    KeepTransactionsAway {
        /// The ways that are possible.
        by: Vec<Quiet>,
    },
    /// Name the workloads that send transactions.
    NameClients,
    /// Give nodes more time to become level in a window.
    LongerWindow,
    /// Let a window be extended when chains grow in it.
    ExtendWindow,
    /// Back up in a no-transaction window.
    CaptureInWindow,
    /// Back up at a cut, which needs no window.
    CaptureAtCut,
    /// Back up at a cut, and in a window where a cut is not possible.
    CutOrWait,
    /// Try more often to copy what changes.
    MoreAttempts,
    /// Capture derived data, too.
    IncludeDerived,
    /// Leave derived data out: a peer that is restored without it rebuilds it.
    WithoutDerived,
    /// Back up and read everything again.
    ReadAgain,
    /// If the change is intended: back up once without what earlier recovery points say.
    Intended,
    /// Give the network another name in the repository.
    NameNetwork,
    /// Name all namespaces of the network.
    NameNamespaces,
    /// Name the cluster: a kubeconfig, and a context of it.
    NameCluster,
    /// Name an image of helper pods that the cluster can pull.
    NameHelperImage,
    /// Remove helper pods that were left.
    RemoveHelpers,
    /// Remove what a drill has left.
    RemoveDrills,
    /// Let the scratch namespaces of a drill have other names.
    OtherScratchNames,
    /// Let a drill run though nothing keeps its nodes from reaching others.
    DrillUnfenced,
    /// Read volumes without snapshots.
    WithoutSnapshots,
    /// Copy the files of a database server instead of dumping its databases.
    CopyDatabases,
    /// Write an inventory and use it instead of discovering the nodes each time.
    WriteInventory,
    /// Name the compose files that are started together, in their order.
    NameComposeFiles,
    /// Name the newest recovery point that is known.
    ExpectPoint,
    /// Name the repository.
    NameRepository,
    /// Name the writer key, or have another one made.
    NameWriterKey,
    /// Name the identity.
    NameIdentity,
    /// Name another folder for temporary copies.
    NameWorkFolder,
    /// Let helper pods be tried.
    TryHelperPods,

    /// See which nodes the network has.
    ListNodes,
    /// See which nodes the recovery point has.
    ListCaptured,
    /// Compare the nodes of the network with those of the recovery point.
    CompareNodes,
    /// See who uses which host name.
    ListNames,
    /// Ask for an attestation that states every header hash of these blocks.
    AttestBlocks {
        /// Which: `CHANNEL=FIRST..LAST`.
        blocks: String,
    },
    /// See heights, logs and open windows.
    SeeStatus,
    /// Write the genesis blocks that channels are joined with.
    WriteGenesisBlocks,
    /// Undo an open window.
    UndoWindow,
    /// Undo a window whose record this machine did not sign, step by step.
    UndoUnsigned,
    /// Undo a window with the command that lets transactions continue.
    UndoHook,

    /// Restore other nodes only.
    LeaveNodeOut,
    /// Restore chosen nodes only.
    ChooseNodes,
    /// Restore these nodes, too.
    RestoreNodes {
        /// Which.
        nodes: Vec<NodeId>,
        /// Set their existing data aside.
        replace: bool,
    },
    /// Restore all orderers of the channel together, with raft state that is created for them.
    RestoreOrderersTogether,
    /// No action is needed: it was asked for that a certificate authority keeps what it has.
    CaKeepAsked,
    /// Restore into a folder, or into another one.
    RestoreElsewhere,
    /// Restore into the directories that an inventory names.
    RestoreByInventory,
    /// Restore only what is missing.
    OnlyMissing,
    /// Let existing data be set aside and replaced.
    SetAside,
    /// Let an object be replaced; a copy of the existing one is kept.
    ReplaceObject,
    /// Restore the lost orderers by name: all of them are brought to one height.
    RestoreLost,
    /// Restore the raft logs as they were captured.
    CapturedRaftState,
    /// Restore fewer orderers without ledgers.
    ReplicateFewer,
    /// Go back to a height of a channel, or a later one.
    ChooseHeight {
        /// Which channel.
        channel: String,
        /// How many blocks are kept.
        height: u64,
    },
    /// Give the height that a channel goes back to.
    GiveHeight {
        /// Which channel.
        channel: String,
    },
    /// Restore an orderer without ledgers, which it fetches from the others.
    Replicate {
        /// Which orderer; `None`: the restored ones.
        node: Option<NodeId>,
    },
    /// Have every other orderer restarted before restored ones are started.
    RestartOthers,
    /// Restore without having the others restarted, although a rule asks for it.
    WithoutRestartOthers,
    /// Accept what the rule forbids.
    Override {
        /// Which.
        rule: Rule,
        /// What is accepted by that.
        accept: String,
    },
    /// Restore the recovery point's files of a certificate authority instead of keeping the existing ones.
    WithoutCaKeep {
        /// Only its TLS certificate and key were kept.
        tls: bool,
    },
    /// Keep the TLS certificate of a certificate authority, and not its configuration.
    KeepCaTlsOnly,
    /// Keep the configuration of a certificate authority, too.
    KeepCaConfigToo,
    /// Declare a node stopped.
    AssumeStopped {
        /// Which.
        node: NodeId,
    },
    /// Let fabkeep stop the node by its stop command.
    StopByCommand,
    /// Let fabkeep create workloads instead of using those that exist.
    CreateWorkloads,
    /// Let claims have another storage class.
    OtherStorageClass {
        /// The captured one; empty for claims without one.
        from: String,
        /// A class of the cluster, where one can be proposed.
        to: Option<String>,
    },
    /// Let images come from another registry.
    OtherRegistry,
    /// Run a restore that was begun once more: it continues.
    ContinueRestore,
    /// Run the same command again, and let it start the nodes.
    SameCommandWithStart,

    /// In words.
    #[serde(untagged)]
    Text(String),
    /// Something that only a later version knows.
    #[serde(untagged)]
    OfLaterVersion {
        /// Its name there.
        #[serde(rename = "do")]
        name: String,
    },
}

/// A way to keep transactions away from the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quiet {
    /// Clients are scaled down.
    Scale,
    /// The operator's commands.
    Hook,
    /// NetworkPolicies.
    Fence,
    /// The nodes are stopped.
    Stop,
}

/// What to do, or else leave the node out.
#[derive(Debug, Clone, Copy)]
pub struct OrLeaveOut(pub &'static str);

impl From<OrLeaveOut> for Remedy {
    fn from(OrLeaveOut(text): OrLeaveOut) -> Remedy {
        Remedy::from(text).or(Remedy::ExcludeNode)
    }
}

impl Remedy {
    /// Returns what to do when one of several nodes is wrong: how to find it, then a backup without it, then its repair.
    #[must_use]
    pub fn wrong_one_of(how: &str) -> Remedy {
        Remedy::from(how).and(Remedy::ExcludeNode).and("restore it from a correct one")
    }

    /// Returns the ways to keep transactions away from nodes.
    #[must_use]
    pub fn keep_transactions_away() -> Remedy {
        Remedy::KeepTransactionsAway { by: vec![Quiet::Scale, Quiet::Hook, Quiet::Fence, Quiet::Stop] }
    }

    /// Returns this remedy, or else another one.
    #[must_use]
    pub fn or(self, other: impl Into<Remedy>) -> Remedy {
        let parts = |remedy| match remedy {
            Remedy::Any { of } => of,
            one => vec![one],
        };
        Remedy::Any { of: [parts(self), parts(other.into())].concat() }
    }

    /// Returns this remedy, and then another one.
    #[must_use]
    pub fn and(self, other: impl Into<Remedy>) -> Remedy {
        let parts = |remedy| match remedy {
            Remedy::All { of } => of,
            one => vec![one],
        };
        Remedy::All { of: [parts(self), parts(other.into())].concat() }
    }
}

impl From<&str> for Remedy {
    fn from(text: &str) -> Remedy {
        Remedy::Text(text.to_owned())
    }
}

impl From<String> for Remedy {
    fn from(text: String) -> Remedy {
        Remedy::Text(text)
    }
}
