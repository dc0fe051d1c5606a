//! The manifest of a recovery point: what was captured, where each byte is stored, and what is known about the nodes.

use std::collections::BTreeSet;

use fabkeep_ledger::channel_config::ChannelConfig;
use fabkeep_ledger::layout::Class;
use fabkeep_network::{Finding, NodeDirectory, NodeFacts, NodeId, Workload};
use fabkeep_platform::SnapshotReport;
use fabkeep_store::BlobId;
use serde::{Deserialize, Serialize};

use crate::window::WindowReport;

/// The content of a recovery point's manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecoveryPoint {
    /// Version of fabkeep that captured it.
    pub fabkeep: String,
    /// The network's name.
    pub network: String,
    /// When the capture began, RFC 3339.
    pub created: String,
    /// Whether derived data (state, history, block index) is included.
    pub derived: bool,
    /// Nodes of the network that were left out on request.
    pub excluded: Vec<String>,
    /// Channels whose raft logs and snapshots were checked and are not stored: a restore creates them from the chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_logs: Vec<String>,
    /// The channels.
    pub channels: Vec<Channel>,
    /// The nodes.
    pub nodes: Vec<CapturedNode>,
    /// The findings, worst first.
    pub findings: Vec<Finding>,
    /// The objects that declare the network, in the order in which they must be created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<CapturedObject>,
    /// The no-transaction window that it was captured in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowReport>,
    /// The snapshots that the volumes were read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotReport>,
    /// The stages of the capture, in the order in which they began, without the commit itself. Older versions did not record them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

/// A stage of a capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What was done.
    pub name: String,
    /// When it began, in seconds since the capture began.
    pub begun_seconds: f64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes read in it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A channel: its blocks, once for all nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Number of the first block.
    pub first_block: u64,
    /// Height: number of blocks from genesis.
    pub height: u64,
    /// Header hash of the last block, hex.
    pub tip_hash: String,
    /// The highest node, from which the last blocks were read.
    pub donor: String,
    /// Header and data of all blocks, in order.
    pub segments: Vec<Segment>,
    /// The configuration at the height.
    pub config: Option<ChannelConfig>,
    /// Number of the configuration block.
    pub config_block: Option<u64>,
}

/// Headers and data of consecutive blocks in one blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Number of the first block.
    pub first: u64,
    /// Number of blocks.
    pub count: u64,
    /// The blob.
    pub blob: BlobId,
    /// Length in bytes.
    pub bytes: u64,
    /// Header hash of the last block, hex.
    pub last_hash: String,
}

impl Segment {
    /// Number after the last block.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }
}

/// A node: its files, and the facts about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CapturedNode {
    /// Facts that the rules judge.
    pub facts: NodeFacts,
    /// Its directories.
    pub directories: Vec<CapturedDirectory>,
    /// The workload that ran it, on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Databases that it cannot start without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served_by: Vec<NodeId>,
}

/// An object that declares a part of the network, on Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedObject {
    /// Its namespace; empty for the namespaces themselves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The object as JSON.
    pub blob: BlobId,
    /// Bytes of it.
    pub bytes: u64,
}

/// A directory of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CapturedDirectory {
    /// Its role and captured path.
    #[serde(flatten)]
    pub directory: NodeDirectory,
    /// All captured entries, sorted by path, the root first.
    pub entries: Vec<CapturedEntry>,
    /// What was left out.
    pub omitted: Vec<Omitted>,
}

/// A file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedEntry {
    /// Relative path, `/`-separated; empty for the directory itself.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Its kind and content.
    #[serde(flatten)]
    pub content: EntryContent,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum EntryContent {
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Its target, as written.
        target: String,
    },
    /// A file. Bytes that no part covers are zeros.
    File {
        /// Its size in bytes.
        size: u64,
        /// Its parts, in order.
        parts: Vec<Part>,
    },
}

/// A run of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// How the bytes are stored.
    #[serde(flatten)]
    pub content: Content,
}

/// How a run of bytes is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "lowercase")]
pub enum Content {
    /// A blob contains them unchanged.
    Raw {
        /// The blob.
        blob: BlobId,
    },
    /// Block-file records: header and data from the channel's segments, metadata from a blob.
    Blocks {
        /// The channel.
        channel: String,
        /// Number of the first block.
        first: u64,
        /// Number of blocks.
        count: u64,
        /// The blob with the metadata of the blocks.
        metadata: BlobId,
        /// Keyed hash of the run as it is in the file.
        hash: BlobId,
    },
    /// A split raft log: its blocks are taken from the channel's segments.
    Wal {
        /// The channel.
        channel: String,
        /// The split.
        split: BlobId,
        /// Keyed hash of the run as it is in the file.
        hash: BlobId,
    },
}

impl Content {
    /// Blobs that it needs in addition to the channel's segments.
    pub(crate) fn blob(&self) -> BlobId {
        match self {
            Content::Raw { blob } => *blob,
            Content::Blocks { metadata, .. } => *metadata,
            Content::Wal { split, .. } => *split,
        }
    }

    /// Keyed hash of the run as it is in the file.
    pub(crate) fn hash(&self) -> &BlobId {
        match self {
            Content::Raw { blob } => blob,
            Content::Blocks { hash, .. } | Content::Wal { hash, .. } => hash,
        }
    }
}

/// Files left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// The topmost directory or file left out.
    pub path: String,
    /// Why.
    pub class: Class,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl CapturedDirectory {
    /// Returns how many files it has.
    pub fn file_count(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry.content, EntryContent::File { .. })).count() as u64
    }

    /// Bytes of its files that a restore writes, holes not counted.
    pub fn data_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| match &entry.content {
                EntryContent::File { parts, .. } => parts.iter().map(|part| part.len).sum(),
                _ => 0,
            })
            .sum()
    }
}

impl CapturedEntry {
    /// Size in bytes, of files.
    pub fn size(&self) -> u64 {
        match &self.content {
            EntryContent::File { size, .. } => *size,
            _ => 0,
        }
    }
}

impl RecoveryPoint {
    /// Bytes of all captured files, holes included.
    pub fn source_bytes(&self) -> u64 {
        self.nodes
            .iter()
            .flat_map(|node| &node.directories)
            .flat_map(|directory| &directory.entries)
            .map(CapturedEntry::size)
            .sum()
    }

    /// Returns the blobs that some nodes' files consist of.
    pub(crate) fn blobs_of<'p>(&'p self, nodes: impl Iterator<Item = &'p CapturedNode>) -> BTreeSet<BlobId> {
        let mut out = BTreeSet::new();
        let mut channels: BTreeSet<&str> = BTreeSet::new();
        for entry in nodes.flat_map(|node| &node.directories).flat_map(|directory| &directory.entries) {
            let EntryContent::File { parts, .. } = &entry.content else { continue };
            for part in parts {
                out.insert(part.content.blob());
                match &part.content {
                    Content::Raw { .. } => {}
                    Content::Blocks { channel, .. } | Content::Wal { channel, .. } => drop(channels.insert(channel)),
                }
            }
        }
        let segments = channels.into_iter().filter_map(|name| self.channel(name)).flat_map(|channel| &channel.segments);
        out.extend(segments.map(|segment| segment.blob));
        out
    }

    /// Returns the channel of this name.
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == name)
    }
}

/// Returns the configuration of a channel among these, where it is known.
pub(crate) fn config_of<'a>(channels: &'a [Channel], name: &str) -> Option<&'a ChannelConfig> {
    channels.iter().find(|channel| channel.name == name)?.config.as_ref()
}
