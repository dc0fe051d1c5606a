//! Findings: what is not as it should be, which rule says so, and what to do.

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// The set is complete; somebody should look.
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

            /// The rule's short name, as messages and options use it.
            pub fn code(self) -> &'static str {
                match self { $(Rule::$name => $code,)* }
            }

            /// The rule in one sentence.
            pub fn text(self) -> &'static str {
                match self { $(Rule::$name => $text,)* }
            }
        }
    };
}

rules! {
    PeerAboveOrderer "I1" "Every peer's height is at most the ordering service's height."
    StoresInOrder "I2" "Inside a peer: state and history at most at the block store's height, the block store at most at the private-data store's."
    RaftInOrder "I3" "Inside an orderer: the raft log is at least as new as the chain, the chain at least as new as the raft snapshot."
    OneChain "I4" "At every height that two nodes share, their header hashes are equal, and so are the peers' validation codes and commit hashes."
    EveryKey "I5" "Every key that a node needs is in the set."
    HashChain "B1" "Every block's data matches its header, and every header names the header before it."
    BlockSigned "B2" "Every block is signed as the channel's BlockValidation policy demands."
    TornTail "B3" "The last block file may end inside a block that a crash cut; the node drops it at its start."
    DatabaseWhole "B4" "A LevelDB directory is whole: CURRENT, manifest, tables and logs, checksums good."
    RaftLogWhole "B5" "A raft log and its snapshots are whole: records, checksums, sequence."
    FileReadable "B6" "Every file can be read to its end and stays as it is meanwhile."
    Contained "B7" "Every path stays inside the node's directory."
    StartWork "B10" "What a node's files order for its next start is known: a start that deletes a channel is not part of a complete set."
    NotOverwritten "B8" "Data that exists is never overwritten: it is set aside, and only on request."
    HeightsAgree "H1" "A node's heights agree, whoever is asked: a height never falls, and nobody tells more blocks than the files hold."
    HeightsKnown "H2" "The heights of every node that runs are known; a node that does not answer is not at height zero."
    EarlierHeight "H3" "A network that goes back to an earlier height does so as a whole: chains, private data and consensus state end together, and what comes of later blocks is given up."
    WindowQuiet "W1" "Inside a no-transaction window no chain grows."
    WindowUndone "W2" "What a window changed is undone when it ends, however it ends."
    LevelBefore "W3" "A window's capture begins when every peer and orderer of a channel has the same height."
    LogsClean "L1" "The nodes' logs speak of no panic, no ledger that failed to open, no consensus that failed."
    RoomEnough "B9" "A restore begins only where there is room for it and it may write."
    NothingTakenAway "B11" "A restore takes away no channel, store, key or block that a node has and the recovery point has not."
    StateDatabaseOlder "P3" "A copy of a state database is older than its peer's copy, or is left out and rebuilt."
    SnapshotJoined "P4" "A channel joined by snapshot cannot be rebuilt: all of its data is authoritative."
    IndexNotAhead "P5" "A block index ahead of the block files stops the node."
    LiveCopy "P6" "A live copy of a database is not safe by itself: stop the node, use an atomic snapshot, or copy until the copy proves consistent."
    ReadyPerChannel "P7" "A node is ready when every channel is open at its height: a peer stays Ready when one of its ledgers failed."
    TransientStore "P8" "Without the transient store, private transactions in flight commit with missing data."
    PrivateData "P9" "Private data that a peer lacks comes from other members of the collection; what none of them has is lost."
    Certificates "P10" "An expired enrolment certificate keeps a node from starting, an expired TLS certificate from connecting."
    OrderersLevel "O2" "Orderers restored at different heights can fork: level them to one donor."
    LedgerNotAheadOfLog "O3" "A ledger newer than the raft log on a quorum loses blocks silently."
    SnapshotNoted "O5" "A raft snapshot without its record in the raft log cannot be opened."
    WalReleased "O9" "Two processes never share a raft log: the old one is gone before the new one starts."
    LogsWiped "O10" "A channel that is removed leaves its raft log and snapshots behind: they are wiped before it is joined again."
    LogPresent "O6" "An orderer without its raft log never campaigns; without all of them the channel is dead."
    ConsenterKey "O7" "A raft consenter is recognised by the public key of its TLS certificate, a SmartBFT consenter by its enrolment certificate's."
    CaKept "C4" "A certificate authority may keep its target's TLS certificate and server configuration; what is replaced beside them must fit."
    CaKey "C5" "A certificate authority's key and certificate match; without the key it makes a new root at its start."
    CaDatabase "C3" "A certificate authority's database is whole and no newer than its server."
    IdentitiesKnown "C1" "Identities and certificates that came after a recovery point are unknown to a certificate authority restored from it."
    RevocationsKept "C2" "Revocations made after a recovery point are undone in a certificate authority restored from it."
    OperatorScaledDown "K1" "Operators and cert-manager mint new keys when a custom resource comes before its Secret: Secrets first, the operator scaled down until the data is in."
    OperatorScales "K2" "What an operator manages is scaled down through its custom resource, or with the operator scaled down: a bare scale is undone."
    NotPersistent "K3" "What a node of its role must have is in the set: a directory, store or file that is missing, empty, or held by no volume, Secret or ConfigMap, is not."
    NamesKept "K5" "Addresses inside chaincode packages and channel configurations are kept: Services keep their names."
    Declared "K6" "Everything that declares a node is in the set: workloads, Services, claims, Secrets, ConfigMaps."
    StorageClass "K8" "Every claim's storage class is one that the cluster has."
    RepositoryOwn "R1" "What is in the repository was put by its writers and is there: objects of others are passed over and reported, and so is what is gone or damaged."
    CommitChain "R2" "Every recovery point is there that another one, its writer or the operator knows of."
    CommitClock "R3" "Recovery points are ordered by their commits; a time that contradicts the order is reported."
    Recognised "K7" "Every workload is either recognised as what it is in the network, or named as what is not."
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.code())
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// How bad.
    pub severity: Severity,
    /// Which node, channel or file.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// An error: the set is not complete.
    pub fn error(rule: Rule, subject: impl ToString, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(rule, Severity::Error, subject, what, remedy)
    }

    /// A warning: complete, but look.
    pub fn warning(rule: Rule, subject: impl ToString, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(rule, Severity::Warning, subject, what, remedy)
    }

    /// A note.
    pub fn note(rule: Rule, subject: impl ToString, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(rule, Severity::Note, subject, what, remedy)
    }

    fn new(
        rule: Rule,
        severity: Severity,
        subject: impl ToString,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding { rule, severity, subject: subject.to_string(), what: what.into(), remedy: remedy.into() }
    }
}
