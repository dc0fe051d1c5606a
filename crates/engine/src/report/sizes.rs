//! Where the bytes of a recovery point are, by kind of file.

use std::collections::BTreeMap;

use fabkeep_ledger::layout::{DirectoryRole, Kind};
use fabkeep_store::Commit;
use schemars::JsonSchema;
use serde::Serialize;

use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, RecoveryPoint};

/// What files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SizeKind {
    /// Block files.
    Blocks,
    /// Raft and SmartBFT logs and snapshots.
    Consensus,
    /// Private data.
    PrivateData,
    /// World state, history and indexes, which nodes can rebuild.
    Derived,
    /// Other databases of nodes.
    Databases,
    /// Files and databases of certificate authorities.
    CertificateAuthorities,
    /// MSP and TLS folders.
    Keys,
    /// Configuration files.
    Configuration,
    /// Objects of the cluster.
    Objects,
    /// Everything else.
    Other,
}

impl std::fmt::Display for SizeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            SizeKind::Blocks => "block files",
            SizeKind::Consensus => "consensus logs",
            SizeKind::PrivateData => "private data",
            SizeKind::Derived => "state, history, indexes",
            SizeKind::Databases => "other databases",
            SizeKind::CertificateAuthorities => "certificate authorities",
            SizeKind::Keys => "keys and certificates",
            SizeKind::Configuration => "configuration",
            SizeKind::Objects => "Kubernetes objects",
            SizeKind::Other => "other files",
        })
    }
}

/// The bytes of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SizeOf {
    /// What they are for.
    pub kind: SizeKind,
    /// Bytes that a restore writes, holes not counted.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// Where the bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Sizes {
    /// By kind, the largest first.
    pub kinds: Vec<SizeOf>,
    /// All of them.
    pub bytes: u64,
    /// Bytes of headers and transactions, which are stored once for all nodes.
    pub blocks_once: u64,
    /// Bytes that this point added to the repository, compressed and encrypted.
    pub added: u64,
}

pub(super) fn of_point(point: &RecoveryPoint, commit: &Commit) -> Sizes {
    let mut kinds: BTreeMap<SizeKind, (u64, u64)> = BTreeMap::new();
    for directory in point.nodes.iter().flat_map(|node| &node.directories) {
        for entry in &directory.entries {
            let EntryContent::File { parts, .. } = &entry.content else { continue };
            let (bytes, files) = kinds.entry(kind(directory, entry)).or_default();
            *bytes = bytes.saturating_add(parts.iter().map(|part| part.len).sum());
            *files += 1;
        }
    }
    if !point.objects.is_empty() {
        let bytes = point.objects.iter().map(|object| object.bytes).sum();
        kinds.insert(SizeKind::Objects, (bytes, point.objects.len() as u64));
    }
    let mut kinds: Vec<SizeOf> =
        kinds.into_iter().map(|(kind, (bytes, files))| SizeOf { kind, bytes, files }).collect();
    kinds.sort_by_key(|size| std::cmp::Reverse(size.bytes));
    Sizes {
        bytes: kinds.iter().map(|size| size.bytes).sum(),
        kinds,
        blocks_once: point.channels.iter().flat_map(|channel| &channel.segments).map(|segment| segment.bytes).sum(),
        added: commit.new_bytes,
    }
}

fn kind(directory: &CapturedDirectory, entry: &CapturedEntry) -> SizeKind {
    let (_, role, inside) = directory.directory.part(&entry.path);
    match directory.directory.classify(&entry.path, false).kind {
        Kind::BlockFile(_) => return SizeKind::Blocks,
        Kind::WalFile(_) | Kind::RaftSnapshot(_) => return SizeKind::Consensus,
        Kind::Plain | Kind::LevelDb(_) | Kind::Sqlite | Kind::Opaque => {}
    }
    match role {
        DirectoryRole::PeerData if inside.starts_with("ledgersData/pvtdataStore/") => SizeKind::PrivateData,
        DirectoryRole::PeerData if is_derived(directory, entry) => SizeKind::Derived,
        DirectoryRole::PeerData | DirectoryRole::OrdererLedger if is_database(directory, entry) => SizeKind::Databases,
        DirectoryRole::OrdererWal | DirectoryRole::OrdererSnapshots => SizeKind::Consensus,
        DirectoryRole::StateDatabase => SizeKind::Derived,
        DirectoryRole::CaHome | DirectoryRole::Database | DirectoryRole::DatabaseDump => {
            SizeKind::CertificateAuthorities
        }
        DirectoryRole::Msp | DirectoryRole::Tls => SizeKind::Keys,
        DirectoryRole::Config => SizeKind::Configuration,
        DirectoryRole::PeerData | DirectoryRole::OrdererLedger | DirectoryRole::Other => SizeKind::Other,
    }
}

fn is_derived(directory: &CapturedDirectory, entry: &CapturedEntry) -> bool {
    directory.directory.classify(&entry.path, false).class == fabkeep_ledger::layout::Class::Derived
}

fn is_database(directory: &CapturedDirectory, entry: &CapturedEntry) -> bool {
    matches!(directory.directory.classify(&entry.path, false).kind, Kind::LevelDb(_))
}
