//! Findings: what is wrong, which rule is broken, and what to do.

use serde::{Deserialize, Serialize};

use crate::Remedy;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Information.
    Note,
    /// The set is complete, but needs a person's attention.
    Warning,
    /// The set is not complete, or the restore would do harm.
    Error,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

macro_rules! rules {
    ($($name:ident $code:literal $text:literal)*) => {
        /// A rule of recovery. `docs/rules.md` explains each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Rule { $(#[doc = $text] #[serde(rename = $code)] $name,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];

            /// Returns the rule's short name, as messages and options use it.
            pub fn code(self) -> &'static str {
                match self { $(Rule::$name => $code,)* }
            }

            /// Returns the rule in one sentence.
            pub fn text(self) -> &'static str {
                match self { $(Rule::$name => $text,)* }
            }
        }
    };
}

rules! {
    PeerAboveOrderer "I1" "Every peer's height is at most the ordering service's height."
    StoresInOrder "I2" "Inside a peer, state and history are at most at the block store's height, and the block store is at most at the private-data store's height."
    RaftInOrder "I3" "Inside an orderer, the raft log is at least as new as the chain, and the chain is at least as new as the raft snapshot."
    OneChain "I4" "At every height that two nodes share, their header hashes are equal; on peers also validation codes and commit hashes."
    EveryKey "I5" "Every key that a node needs is in the set."
    HashChain "B1" "Every block's data matches its header, and every header contains the hash of the previous header."
    BlockSigned "B2" "Every block is signed as the channel's BlockValidation policy requires."
    TornTail "B3" "The last block file may end with an incomplete block after a crash; the node drops that block when it starts."
    DatabaseWhole "B4" "A LevelDB directory is intact: CURRENT, manifest, tables and logs exist, and their checksums are correct."
    RaftLogWhole "B5" "A raft log and its snapshots are intact: records, checksums, sequence."
    FileReadable "B6" "Every file can be read to its end and does not change while it is read."
    Contained "B7" "Every path stays inside the node's directory."
    StartWork "B10" "Files that make a node act at its next start are known: a set whose node deletes a channel when it starts is not complete."
    NotOverwritten "B8" "Data that exists is never overwritten: it is set aside, and only on request."
    HeightsAgree "H1" "All sources agree on a node's heights: a height never decreases, and no source reports more blocks than the files contain."
    HeightsKnown "H2" "The heights of every running node are known; the height of a node that does not answer is unknown, not zero."
    EarlierHeight "H3" "A network goes back to an earlier height as a whole: chains, private data and consensus state end together, and everything that depends on later blocks is given up."
    WindowQuiet "W1" "Inside a no-transaction window no chain grows."
    WindowUndone "W2" "What a window changed is undone when it ends, however it ends."
    LevelBefore "W3" "A window's capture begins when every peer and orderer of a channel has the same height."
    LogsClean "L1" "The nodes' logs contain no panic, no ledger that failed to open, no failed consensus."
    RoomEnough "B9" "A restore begins only if there is enough room and it may write."
    NothingTakenAway "B11" "A restore takes away no channel, store, key or block that a node has and the recovery point does not have."
    StateDatabaseOlder "P3" "A copy of a state database is older than its peer's copy, or is left out and rebuilt."
    SnapshotJoined "P4" "A channel that was joined by snapshot cannot be rebuilt: all of its data is authoritative."
    IndexNotAhead "P5" "A node does not start with a block index that is ahead of the block files."
    LiveCopy "P6" "A copy of a running node's database is not safe without further checks: stop the node, use an atomic snapshot, or copy until a copy is consistent."
    ReadyPerChannel "P7" "A node is ready when every channel is open at its height: Kubernetes reports a peer as Ready even if one of its ledgers failed."
    TransientStore "P8" "Without the transient store, private transactions in flight are committed with missing data."
    PrivateData "P9" "A peer fetches missing private data from other members of the collection; data that none of them has is lost."
    Certificates "P10" "A node with an expired enrolment certificate does not start; one with an expired TLS certificate does not connect."
    OrderersLevel "O2" "Orderers restored at different heights can fork: give all of them the data of one donor."
    LedgerNotAheadOfLog "O3" "If the ledgers of a quorum are newer than their raft logs, blocks are lost without a message."
    SnapshotNoted "O5" "A raft snapshot without its record in the raft log cannot be opened."
    WalReleased "O9" "Two processes must never share a raft log: the old process has ended before the new one starts."
    LogsWiped "O10" "A removed channel leaves its raft log and snapshots behind: delete them before you join it again."
    LogPresent "O6" "An orderer without its raft log never campaigns; if no orderer has its raft log, the channel has no leader any more."
    ConsenterKey "O7" "A raft consenter is recognised by the public key of its TLS certificate, a SmartBFT consenter by that of its enrolment certificate."
    CaKept "C4" "A certificate authority may keep the TLS certificate and server configuration of the target; what is replaced must match them."
    CaKey "C5" "A certificate authority's key and certificate match; without the key it creates a new root when it starts."
    CaDatabase "C3" "A certificate authority's database is intact and no newer than its server."
    IdentitiesKnown "C1" "A restored certificate authority does not know identities and certificates that were issued after the recovery point."
    RevocationsKept "C2" "A restore of a certificate authority undoes revocations that were made after the recovery point."
    OperatorScaledDown "K1" "Operators and cert-manager create new keys if a custom resource exists before its Secret: Secrets are restored first, and the operator is scaled down until the data is in place."
    OperatorScales "K2" "What an operator manages is scaled down through its custom resource, or while the operator is scaled down; otherwise the operator undoes it."
    NotPersistent "K3" "Everything that a node of its role needs is in the set; a directory, store or file that is missing, empty, or not held by a volume, Secret or ConfigMap is not."
    NamesKept "K5" "Addresses inside chaincode packages and channel configurations cannot be changed: Services keep their names."
    Declared "K6" "Everything that declares a node is in the set: workloads, Services, claims, Secrets, ConfigMaps."
    StorageClass "K8" "The cluster has the storage class of every claim."
    Snapshots "K9" "Snapshots are taken of every volume of the captured nodes, or of none: volumes that are captured in different ways are not from one moment."
    DrillFenced "K10" "What a drill restores is closed off: it is in namespaces or a folder that the drill has made, reaches nothing outside, and shares nothing with the network that it is a copy of."
    RepositoryOwn "R1" "Everything in the repository was written by its writers and still exists: objects of others are ignored and reported, missing and damaged ones are reported."
    CommitChain "R2" "Every recovery point exists that another one, its writer or the operator knows."
    CommitClock "R3" "The commits define the order of recovery points; a time that contradicts this order is reported."
    NeededStays "R4" "What no recovery point needs can be freed; nothing is freed while it is not known what a point needs."
    Recognised "K7" "Every workload, and on hosts every directory, is recognised as part of the network, or reported as unrecognised."
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.code())
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule that it is about.
    pub rule: Rule,
    /// Its severity.
    pub severity: Severity,
    /// The node, channel or file that it is about.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// What to do next.
    pub remedy: Remedy,
}

impl Finding {
    /// Returns an error: the set is not complete.
    pub fn error(rule: Rule, subject: impl ToString, what: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self::new(rule, Severity::Error, subject, what, remedy)
    }

    /// Returns a warning: complete, but look.
    pub fn warning(rule: Rule, subject: impl ToString, what: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self::new(rule, Severity::Warning, subject, what, remedy)
    }

    /// Returns a note.
    pub fn note(rule: Rule, subject: impl ToString, what: impl Into<String>, remedy: impl Into<Remedy>) -> Self {
        Self::new(rule, Severity::Note, subject, what, remedy)
    }

    fn new(
        rule: Rule,
        severity: Severity,
        subject: impl ToString,
        what: impl Into<String>,
        remedy: impl Into<Remedy>,
    ) -> Self {
        Finding { rule, severity, subject: subject.to_string(), what: what.into(), remedy: remedy.into() }
    }
}
