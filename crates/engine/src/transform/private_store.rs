//! Private-data stores that are written anew for a restore: at an earlier height, at the height of a cut, or without what purging has left of
//! writes. A peer cannot make its state from such a remainder: its hash is not the one that the block names (FABRIC.md section 8).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use fabkeep_ledger::Hash;
use fabkeep_ledger::block::BlockSpan;
use fabkeep_ledger::block_file::metadata_at;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::leveldb::{self, Database, LevelDbError};
use fabkeep_ledger::private_hashes::{self, PrivateWrite};
use fabkeep_ledger::private_store::{Loss, Trim, TrimError};
use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_store::PointReader;

use super::height::wrong;
use super::is_named;
use super::ledger::data_of;
use crate::content::Contents;
use crate::error::io as at;
use crate::point::{CapturedEntry, CapturedNode, Channel, Content, EntryContent, Part, RecoveryPoint};
use crate::replay::Blocks;
use crate::{Difference, EngineError};

/// A peer's private-data store, from its data directory.
const PRIVATE_STORE: &str = "ledgersData/pvtdataStore/";
/// Largest file of a private-data store, in bytes.
const MAX_STORE_FILE_BYTES: u64 = 1 << 30;

/// Says of an open store to which heights its ledgers are brought.
type HeightsOf<'a> = &'a dyn Fn(&Database) -> Result<BTreeMap<String, u64>, LevelDbError>;

/// What a store cannot give back, by channel, chaincode and collection.
type Losses = BTreeMap<String, BTreeMap<(String, String), Loss>>;

/// Writes private-data stores anew: of peers whose state comes from them and in which keys were purged, and of peers whose stores are ahead of
/// the ordering service that is restored with them. Such a peer would keep what it has of blocks that the network makes anew, and would not
/// take their private data.
pub(super) fn write_anew(
    point: &mut RecoveryPoint,
    reader: &PointReader<'_>,
    nodes: &[String],
    together: bool,
) -> Result<Vec<Finding>, EngineError> {
    let service = if together { service_heights(point, nodes) } else { BTreeMap::new() };
    let stores = Stores { reader, channels: &point.channels };
    let (mut findings, mut ended) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    let peers = point.nodes.iter_mut().filter(|node| node.facts.role == NodeRole::Peer);
    for node in peers.filter(|node| is_named(&node.facts.id, nodes)) {
        let (mut purged, mut ahead) = (BTreeMap::new(), BTreeMap::new());
        for ledger in node.facts.ledgers.iter().filter(|ledger| ledger.first_block == 0) {
            let Some(private) = ledger.private_height else { continue };
            let to = (ledger.channel.clone(), private.min(ledger.height));
            if service.get(&ledger.channel).is_some_and(|service| private > *service) {
                ahead.extend([to]);
            } else if !point.derived && ledger.purged != Some(false) {
                // A recovery point of before does not tell; state that was captured is not made anew.
                purged.extend([to]);
            }
        }
        if purged.is_empty() && ahead.is_empty() {
            continue;
        }
        findings.extend(stores.bring(node, &|store| {
            let mut heights = ahead.clone();
            for (channel, &height) in &purged {
                if leveldb::has_purged(store, channel)? {
                    heights.insert(channel.clone(), height);
                }
            }
            Ok(heights)
        })?);
        for ledger in node.facts.ledgers.iter_mut() {
            if let Some(height) = ahead.get(&ledger.channel) {
                ledger.private_height = Some(*height);
                ended.entry(ledger.channel.clone()).or_default().push(node.facts.id.to_string());
            }
        }
    }
    findings.extend(ended.into_iter().map(|(channel, peers)| {
        Finding::note(
            Rule::StoresInOrder,
            &channel,
            format!(
                "private data of later blocks than the restored network has is left out of the stores of {}",
                peers.join(", ")
            ),
            "no action is needed: the network makes these blocks anew",
        )
    }));
    Ok(findings)
}

/// Heights of the ordering service by channel, where its orderers are restored.
fn service_heights(point: &RecoveryPoint, nodes: &[String]) -> BTreeMap<String, u64> {
    let mut out: BTreeMap<String, u64> = BTreeMap::new();
    let orderers = point.nodes.iter().filter(|node| node.facts.role == NodeRole::Orderer);
    let (restored, stays): (Vec<_>, Vec<_>) = orderers.partition(|node| is_named(&node.facts.id, nodes));
    for ledger in restored.iter().flat_map(|node| &node.facts.ledgers) {
        let height = out.entry(ledger.channel.clone()).or_default();
        *height = ledger.height.max(*height);
    }
    // One that stays has the blocks that come.
    for ledger in stays.iter().flat_map(|node| &node.facts.ledgers) {
        out.remove(&ledger.channel);
    }
    out
}

/// What stores are written anew with.
pub(super) struct Stores<'a> {
    pub reader: &'a PointReader<'a>,
    /// The channels, each with all blocks of the nodes' chains.
    pub channels: &'a [Channel],
}

impl Stores<'_> {
    /// Brings ledgers in a peer's private-data store to the heights that `heights` gives for it; where it gives none, nothing changes.
    pub fn bring(&self, node: &mut CapturedNode, heights: HeightsOf<'_>) -> Result<Vec<Finding>, EngineError> {
        let id = node.facts.id.clone();
        let Some((position, root)) = data_of(node) else {
            return Ok(vec![Finding::error(
                Rule::EarlierHeight,
                &id,
                "it has not one data directory: its private-data store cannot be written anew",
                Remedy::LeaveNodeOut,
            )]);
        };
        let below = format!("{root}{PRIVATE_STORE}");
        let is_store = |entry: &CapturedEntry| {
            entry.path.starts_with(&below) && matches!(entry.content, EntryContent::File { .. })
        };
        let scratch = tempfile::tempdir().map_err(at(std::env::temp_dir()))?;
        let store: Vec<&CapturedEntry> =
            node.directories[position].entries.iter().filter(|entry| is_store(entry)).collect();
        let Some(like) = store.first().map(|entry| (*entry).clone()) else { return Ok(Vec::new()) };
        let contents = Contents::of_channels(self.reader, self.channels);
        for entry in store {
            if entry.size() > MAX_STORE_FILE_BYTES {
                return Err(wrong(&id.to_string(), format!("{} is too large for a file of LevelDB", entry.path)));
            }
            let to = scratch.path().join(&entry.path[below.len()..]);
            std::fs::write(&to, contents.whole(entry)?).map_err(at(&to))?;
        }
        let mut made = Vec::new();
        let trimmed = self.trim(node, scratch.path(), heights, &mut |name, bytes| {
            let blob = self.reader.add(&bytes).map_err(io::Error::other)?;
            made.push((format!("{below}{name}"), bytes.len() as u64, blob));
            Ok(())
        });
        let losses = match trimmed {
            Ok(Some(losses)) => losses,
            Ok(None) => return Ok(Vec::new()),
            Err(TrimError::LevelDb(LevelDbError::Io { file, source })) => {
                return Err(EngineError::Io { path: file, source });
            }
            Err(error) => return Err(Difference::by(format!("{id} {}", below.trim_end_matches('/')), error).into()),
        };
        let entries = &mut node.directories[position].entries;
        entries.retain(|entry| !is_store(entry));
        entries.extend(made.into_iter().map(|(path, size, blob)| {
            let part = (size > 0).then_some(Part { offset: 0, len: size, content: Content::Raw { blob } });
            let content = EntryContent::File { size, parts: part.into_iter().collect() };
            CapturedEntry { path, content, ..like.clone() }
        }));
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(losses.iter().flat_map(|(channel, losses)| lost(&id, channel, losses)).collect())
    }

    /// Writes a store with its ledgers at their heights; `None` when there are none to be brought to a height.
    fn trim(
        &self,
        node: &CapturedNode,
        store: &Path,
        heights: HeightsOf<'_>,
        sink: &mut dyn FnMut(&str, Vec<u8>) -> io::Result<()>,
    ) -> Result<Option<Losses>, TrimError> {
        let database = Database::open(store)?;
        let heights = heights(&database)?;
        if heights.is_empty() {
            return Ok(None);
        }
        let blocks = |channel| Blocks::new(self.reader, channel);
        let blocks: BTreeMap<&str, Blocks<'_>> =
            self.channels.iter().map(|channel| (channel.name.as_str(), blocks(channel))).collect();
        let mut writes_of = |channel: &str, number: u64| {
            let known = blocks.get(channel).ok_or_else(|| wrong(channel, "the recovery point has no such channel"));
            known.and_then(|blocks| self.writes_of(node, blocks, channel, number)).map_err(io::Error::other)
        };
        let mut trim = Trim::new(&database, &heights, &mut writes_of)?;
        leveldb::write::<TrimError>(trim.by_ref(), sink)?;
        Ok(Some(trim.report().into_iter().map(|(channel, trimmed)| (channel, trimmed.collections)).collect()))
    }

    /// The private writes of a block's valid transactions, by this peer's own copy of the block.
    fn writes_of(
        &self,
        node: &CapturedNode,
        blocks: &Blocks<'_>,
        channel: &str,
        number: u64,
    ) -> Result<Vec<(PrivateWrite, Hash)>, EngineError> {
        let parts = node.directories.iter().flat_map(|directory| &directory.entries).flat_map(|entry| {
            if let EntryContent::File { parts, .. } = &entry.content { parts.as_slice() } else { &[] }
        });
        let mut runs = parts.filter_map(|part| match &part.content {
            Content::Blocks { channel: of, first, count, metadata, .. } if of == channel => {
                (*first..first.saturating_add(*count)).contains(&number).then_some((*first, *metadata))
            }
            _ => None,
        });
        let (first, metadata) = runs.next().ok_or_else(|| wrong(channel, format!("block {number} is not there")))?;
        let metadata = self.reader.blob(&metadata)?;
        let own = metadata_at(&metadata, number - first);
        let own = own.ok_or_else(|| wrong(channel, format!("the metadata of block {number} is cut")))?;
        let record = blocks.record(number)?.ok_or_else(|| wrong(channel, format!("block {number} is not there")))?;
        let block = [&record, own].concat();
        let span = BlockSpan::parse(&block, 0..block.len()).map_err(|error| wrong(channel, error.to_string()))?;
        Ok(private_hashes::of_block(&span, &block))
    }
}

/// What of a peer's private data cannot be given back.
fn lost(id: &NodeId, channel: &str, losses: &BTreeMap<(String, String), Loss>) -> Vec<Finding> {
    let subject = format!("{id} {channel}");
    let named = |count: &dyn Fn(&Loss) -> u64| -> Vec<String> {
        let lost = losses.iter().map(|((chaincode, collection), loss)| (chaincode, collection, count(loss)));
        let lost = lost.filter(|(.., count)| *count > 0);
        lost.map(|(chaincode, collection, count)| format!("{count} of {chaincode}/{collection}")).collect()
    };
    let gone = named(&|loss| loss.expired_writes + loss.purged_keys);
    let cut = named(&|loss| loss.cut_writes);
    let emptied = named(&|loss| loss.emptied_writes);
    let mut findings = Vec::new();
    if !gone.is_empty() {
        findings.push(Finding::warning(
            Rule::PrivateData,
            &subject,
            format!("private data that was there at that height has expired or was purged since: {}", gone.join(", ")),
            "nothing gives it back, unless an older recovery point has it",
        ));
    }
    if !cut.is_empty() {
        findings.push(Finding::warning(
            Rule::PrivateData,
            &subject,
            format!(
                "purging has left a part of private writes, and a peer cannot make its state from a part: {} are left out of its store and noted as missing",
                cut.join(", ")
            ),
            Remedy::from("no action is needed if other members of the collection have them: the peer asks these")
                .or(Remedy::IncludeDerived),
        ));
    }
    if !emptied.is_empty() {
        findings.push(Finding::note(
            Rule::PrivateData,
            &subject,
            format!(
                "writes whose private data was purged as a whole are left out of its store: {}",
                emptied.join(", ")
            ),
            "nothing: the peer makes its state anew without them, and cannot with them",
        ));
    }
    findings
}
