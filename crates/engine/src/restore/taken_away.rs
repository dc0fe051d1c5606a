//! Data in a replaced directory that the recovery point does not have (B11): channels, stores, keys and blocks. A recovery point that is
//! incomplete or older must not replace data that exists nowhere else.

use std::collections::BTreeSet;

use fabkeep_ledger::certificate::is_private_key_der;
use fabkeep_ledger::layout::{Class, DirectoryRole, Kind, NodeRole};
use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_platform::{BlockFiles, Platform, ProbeScope, Volume, VolumeEntry, block_file_heights};
use fabkeep_store::{BlobId, NameKey};

use super::RestoreOptions;
use super::existing::Existing;
use crate::EngineError;
use crate::point::{CapturedDirectory, CapturedNode, Content, EntryContent};
use crate::transform::{GoBack, is_named};
use crate::window::observe;

/// Largest file that is looked into for a private key, in bytes.
const MAX_KEY_BYTES: u64 = 64 << 10;
/// What every private key in PEM says.
const PRIVATE_KEY: &[u8] = b"PRIVATE KEY-----";
/// Most things named in one finding.
const MAX_REPORTED: usize = 20;

/// Something that a directory holds as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Chain(String),
    RaftLog(String),
    RaftSnapshot(String),
    Store(String),
    Database(String),
    Key(String),
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unit::Chain(channel) => write!(f, "the channel {channel}"),
            Unit::RaftLog(channel) => write!(f, "the consensus log of {channel}"),
            Unit::RaftSnapshot(channel) => write!(f, "the raft snapshots of {channel}"),
            Unit::Store(path) => write!(f, "the store {path}"),
            Unit::Database(path) => write!(f, "the database {path}"),
            Unit::Key(path) => write!(f, "the private key {path}"),
        }
    }
}

/// A channel that is higher in a place than in the recovery point.
pub(super) struct Higher {
    node: NodeId,
    channel: String,
    present: u64,
    comes: u64,
}

/// What would be taken away: as a finding, and by channels, which other nodes may have.
#[derive(Default)]
pub(super) struct TakenAway {
    pub finding: Option<Finding>,
    pub higher: Vec<Higher>,
}

/// Compares existing data with the data that replaces it.
pub(super) fn judge(
    existing: &Existing<'_>,
    options: &RestoreOptions,
    names: &NameKey,
) -> Result<TakenAway, EngineError> {
    let Existing { node, captured, volume, .. } = existing;
    let id = &node.facts.id;
    let emptied = options.replicate.contains(&id.to_string());
    let found = existing.files()?;
    let mut lost = lost_units(captured, &found, emptied);
    // What an authority keeps was asked for: its own key is not among it.
    if node.facts.role != NodeRole::CertificateAuthority || !options.ca_keep.is_asked() {
        lost.extend(lost_keys(existing, found, names)?);
    }
    if options.go_back.is_asked() {
        // Private data of transactions of later blocks is left out on purpose.
        lost.retain(|unit| !matches!(unit, Unit::Store(path) if path.ends_with("transientstore")));
    }
    let higher = if emptied { Vec::new() } else { higher(node, *volume, captured) };
    Ok(TakenAway { finding: taken(id, &existing.label, &lost), higher })
}

/// What a directory has as a whole and the recovery point has not. `emptied`: its ledger is meant to come back empty.
fn lost_units(captured: &CapturedDirectory, found: &[VolumeEntry], emptied: bool) -> BTreeSet<Unit> {
    let joined = is_joined_by_snapshot(found);
    let mut lost: BTreeSet<Unit> = found.iter().filter_map(|entry| unit(captured, &entry.path, joined)).collect();
    for entry in &captured.entries {
        if matches!(entry.content, EntryContent::File { .. }) {
            unit(captured, &entry.path, joined).into_iter().for_each(|unit| {
                lost.remove(&unit);
            });
        }
    }
    lost.retain(|unit| !emptied || !matches!(unit, Unit::Chain(_) | Unit::RaftLog(_) | Unit::RaftSnapshot(_)));
    lost
}

/// Refuses to take them away.
fn taken(id: &NodeId, place: &str, lost: &BTreeSet<Unit>) -> Option<Finding> {
    if lost.is_empty() {
        return None;
    }
    let more = lost.len().saturating_sub(MAX_REPORTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let reported: Vec<String> = lost.iter().take(MAX_REPORTED).map(ToString::to_string).collect();
    Some(Finding::error(
        Rule::NothingTakenAway,
        id,
        format!("{place} contains data that the recovery point does not have: {}{more}", reported.join(", ")),
        Remedy::from("restore a recovery point that has it")
            .or(Remedy::LeaveNodeOut)
            .or(Remedy::Override { rule: Rule::NothingTakenAway, accept: "the loss".to_owned() }),
    ))
}

/// Whether a file may be a private key that a node needs: of a directory of keys, and small.
fn may_be_key(captured: &CapturedDirectory, entry: &VolumeEntry) -> bool {
    let (_, role, _) = captured.directory.part(&entry.path);
    let holds_keys = matches!(
        role,
        DirectoryRole::Msp | DirectoryRole::Tls | DirectoryRole::CaHome | DirectoryRole::Config | DirectoryRole::Other
    );
    holds_keys && entry.stamp.size <= MAX_KEY_BYTES
}

/// Whether a file is a private key: by its bytes, or because it lies in a key store, as idemix keys do, which have a form of their own.
fn is_key(path: &str, bytes: &[u8]) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stored = folder.rsplit('/').next() == Some("keystore") && !name.ends_with("_pk") && !bytes.is_empty();
    stored || bytes.windows(PRIVATE_KEY.len()).any(|window| window == PRIVATE_KEY) || is_private_key_der(bytes)
}

/// Channels whose chain is higher in the place than in the recovery point.
fn higher(node: &CapturedNode, volume: &dyn Volume, captured: &CapturedDirectory) -> Vec<Higher> {
    // A chain that cannot be read is no reason against its restore.
    let present = block_file_heights(volume, &captured.directory).unwrap_or_default();
    let comes = |channel: &str| node.facts.ledgers.iter().find(|ledger| ledger.channel == channel);
    let higher = present.into_iter().filter_map(|(channel, present)| {
        let comes = comes(&channel)?.height;
        (present > comes).then(|| Higher { node: node.facts.id.clone(), channel, present, comes })
    });
    higher.collect()
}

/// Names of the blobs that hold whole small files of a node.
fn small_blobs(node: &CapturedNode) -> BTreeSet<BlobId> {
    let mut blobs = BTreeSet::new();
    for entry in node.directories.iter().flat_map(|directory| &directory.entries) {
        if let EntryContent::File { size, parts } = &entry.content
            && *size <= MAX_KEY_BYTES
            && let [part] = parts.as_slice()
            && let Content::Raw { blob } = part.content
        {
            blobs.insert(blob);
        }
    }
    blobs
}

fn is_joined_by_snapshot(found: &[VolumeEntry]) -> bool {
    let info = fabkeep_ledger::block_file::BOOTSTRAPPING_SNAPSHOT;
    found.iter().any(|entry| entry.path.rsplit('/').next() == Some(info))
}

/// What a file is a part of.
fn unit(captured: &CapturedDirectory, path: &str, joined_by_snapshot: bool) -> Option<Unit> {
    let place = captured.directory.classify(path, joined_by_snapshot);
    if place.class != Class::Authoritative {
        return None;
    }
    match place.kind {
        Kind::BlockFile(channel) => Some(Unit::Chain(channel)),
        Kind::WalFile(channel) => Some(Unit::RaftLog(channel)),
        Kind::RaftSnapshot(channel) => Some(Unit::RaftSnapshot(channel)),
        // A database that is open and empty has these files, too.
        Kind::LevelDb(folder) => Some(Unit::Store(folder)),
        Kind::Sqlite => Some(Unit::Database(path.to_owned())),
        Kind::Opaque => None,
        Kind::Plain => {
            let (at, role, inside) = captured.directory.part(path);
            let store = inside.rsplit_once('/').map(|(folder, _)| folder)?;
            let packages = ["lifecycle/chaincodes", "chaincodes"].contains(&store);
            let folder = if at.is_empty() { store.to_owned() } else { format!("{at}/{store}") };
            (role == DirectoryRole::PeerData && packages).then_some(Unit::Store(folder))
        }
    }
}

/// Private keys that no file of the node in the recovery point holds.
fn lost_keys(existing: &Existing<'_>, found: Vec<VolumeEntry>, names: &NameKey) -> Result<Vec<Unit>, EngineError> {
    let kept = |path: &str| existing.kept.iter().any(|kept| kept.entry.path == path);
    let maybe = found.into_iter().filter(|entry| may_be_key(existing.captured, entry) && !kept(&entry.path)).collect();
    let blobs = small_blobs(existing.node);
    let lost = |path: &str, bytes: &[u8]| is_key(path, bytes) && !blobs.contains(&names.name(bytes));
    let read = existing.read(maybe)?.into_iter();
    Ok(read.filter(|(entry, bytes)| lost(&entry.path, bytes)).map(|(entry, _)| Unit::Key(entry.path)).collect())
}

/// Blocks that would be lost, unless a node that stays has them.
pub(super) fn lost_blocks(
    restored: &[String],
    platform: Option<&dyn Platform>,
    higher: Vec<Higher>,
    go_back: &GoBack,
) -> Vec<Finding> {
    if higher.is_empty() {
        return Vec::new();
    }
    let asked = ProbeScope { block_files: BlockFiles::IfSilent, health: false };
    let observed = platform.map(|platform| {
        let stays = |id: &NodeId| !is_named(id, restored);
        let known: BTreeSet<NodeId> = platform.network().nodes().map(|node| node.id.clone()).collect();
        observe(platform, asked, |id| known.contains(id) && stays(id))
    });
    let observed = observed.unwrap_or_default();
    higher
        .into_iter()
        .map(|Higher { node: id, channel, present, comes }| {
            let what = format!("{channel} has height {present} in the target and {comes} in the recovery point");
            let subject = format!("{id} {channel}");
            let keeper = observed
                .iter()
                .find(|observation| observation.height(&channel).is_some_and(|height| height >= present));
            match keeper {
                Some(keeper) => Finding::warning(
                    Rule::NothingTakenAway,
                    subject,
                    format!("{what}; {}, which is not restored, has these blocks", keeper.node),
                    "the node fetches them when it runs again; it gets their private data from other members of the collections, if they have it",
                ),
                None if go_back.names(&channel) => Finding::warning(
                    Rule::NothingTakenAway,
                    subject,
                    format!("{what}: the blocks from {comes} on are given up, as requested"),
                    "what is set aside has them",
                ),
                None => Finding::error(
                    Rule::NothingTakenAway,
                    subject,
                    format!("{what}: no node that is not restored has the blocks from {comes} on"),
                    Remedy::from("restore a newer recovery point")
                        .or(Remedy::Override { rule: Rule::NothingTakenAway, accept: "the loss of these blocks".to_owned() }),
                ),
            }
        })
        .collect()
}
