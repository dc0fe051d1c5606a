//! A network at an earlier height: chains are cut, private-data stores are brought to the same height, and everything that is derived from
//! blocks is left out, to be rebuilt. The next step creates the raft state of that height.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use fabkeep_ledger::block_file::{metadata_prefix, write_record};
use fabkeep_ledger::chain::check_blocks;
use fabkeep_ledger::channel_config::{ChannelConfig, is_config_block};
use fabkeep_ledger::layout::{Class, DirectoryRole, NodeRole};
use fabkeep_network::{Finding, KeyPurpose, NodeId, Remedy, Rule};
use fabkeep_store::PointReader;
use jiff::Timestamp;

use super::private_store::Stores;
use super::{is_named, signers};
use crate::EngineError;
use crate::blocks::{self, BlockSummary};
use crate::content::channel_of;
use crate::misuse::{Misuse, Request};
use crate::point::{CapturedEntry, CapturedNode, Channel, Content, EntryContent, Part, RecoveryPoint, Segment};
use crate::replay::{Blocks, open_segment};

/// What a peer keeps of blocks that are no more, from its data directory.
const OF_LATER_BLOCKS: [&str; 2] = ["transientstore/", "ledgersData/couchdbRedoLogs/"];
/// Where a peer notes the height that it has to reach again after a reset.
const RESET_MARK: &str = "__preResetHeight";

/// How many blocks of a channel stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeightOf {
    /// The channel.
    pub channel: String,
    /// Blocks 0 to this one, without it.
    pub height: u64,
}

impl FromStr for HeightOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('=').and_then(|(channel, height)| Some((channel, height.parse().ok()?)));
        match parsed {
            Some((channel, height)) if !channel.is_empty() && height > 0 => {
                Ok(HeightOf { channel: channel.to_owned(), height })
            }
            _ => Err("name a channel and the number of blocks to keep: mychannel=120".to_owned()),
        }
    }
}

/// To which heights a network goes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoBack {
    /// Channels by height.
    pub heights: Vec<HeightOf>,
    /// All other channels: to the height before the first block with a transaction that was made later than this.
    pub before: Option<Timestamp>,
}

impl GoBack {
    /// Whether a channel may go back.
    pub(crate) fn names(&self, channel: &str) -> bool {
        self.before.is_some() || self.heights.iter().any(|known| known.channel == channel)
    }

    /// Whether it is asked for.
    pub fn is_asked(&self) -> bool {
        !self.heights.is_empty() || self.before.is_some()
    }
}

/// Brings the channels of a recovery point, and the nodes that are restored, to the heights that are asked for. What was done, and what
/// forbids the restore.
pub(super) fn go_back(
    point: &mut RecoveryPoint,
    reader: &PointReader<'_>,
    asked: &GoBack,
    nodes: &[String],
) -> Result<(BTreeSet<String>, Vec<Finding>), EngineError> {
    if !asked.is_asked() {
        return Ok((BTreeSet::new(), Vec::new()));
    }
    let (heights, mut findings) = heights(point, reader, asked)?;
    let mut cuts = BTreeMap::new();
    for channel in point.channels.iter().filter(|channel| heights.contains_key(&channel.name)) {
        cuts.insert(channel.name.clone(), cut(channel, reader, heights[&channel.name])?);
    }
    // The nodes' metadata belongs to the whole channels: these are cut last.
    let whole = point.channels.clone();
    // What is left out may have what cannot go back.
    for node in point.nodes.iter_mut().filter(|node| is_named(&node.facts.id, nodes)) {
        findings.extend(Back { reader, whole: &whole, cuts: &cuts }.node(node)?);
    }
    let chosen: Vec<&CapturedNode> = point.nodes.iter().filter(|node| is_named(&node.facts.id, nodes)).collect();
    for channel in whole.iter() {
        if let Some(cut) = cuts.get(&channel.name) {
            findings.extend(signers::judge(channel, cut, &chosen, reader)?);
        }
    }
    for channel in &mut point.channels {
        if let Some(cut) = cuts.remove(&channel.name) {
            *channel = cut;
        }
    }
    findings.extend(consenters(point, &heights));
    Ok((heights.into_keys().collect(), findings))
}

/// Orderers whose consensus state is ahead of a chain that went back: the step that writes it anew could not.
pub(super) fn left_behind(point: &RecoveryPoint, nodes: &[String], went_back: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in point.nodes.iter().filter(|node| is_named(&node.facts.id, nodes)) {
        for captured in &node.directories {
            let ahead = captured.entries.iter().find_map(|entry| {
                let EntryContent::File { parts, .. } = &entry.content else { return None };
                parts.iter().find_map(|part| match &part.content {
                    Content::Wal { channel, .. } if went_back.contains(channel) => Some(channel),
                    _ => None,
                })
            });
            if let Some(channel) = ahead {
                findings.push(Finding::error(
                    Rule::EarlierHeight,
                    format!("{} {channel}", node.facts.id),
                    "its raft log is ahead of the height and cannot be created anew for it",
                    Remedy::RestoreOrderersTogether.and("choose a height of two blocks or more"),
                ));
            }
        }
    }
    findings
}

fn request(channel: &str, height: Option<u64>) -> Request {
    Request::Height { channel: channel.to_owned(), height }
}

/// The heights of the channels that go back, and what that means.
fn heights(
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    asked: &GoBack,
) -> Result<(BTreeMap<String, u64>, Vec<Finding>), EngineError> {
    let mut heights = BTreeMap::new();
    let mut findings = Vec::new();
    for HeightOf { channel, height } in &asked.heights {
        let known = point.channel(channel).ok_or_else(|| {
            Misuse::of(request(channel, Some(*height)), format!("the recovery point has no channel {channel}"))
        })?;
        if *height > known.height || *height <= known.first_block {
            return Err(Misuse::of(
                request(channel, Some(*height)),
                format!(
                    "the recovery point has blocks {} to {} of {channel}; a height is the number of blocks that are kept",
                    known.first_block,
                    known.height.saturating_sub(1)
                ),
            )
            .into());
        }
        if heights.insert(channel.clone(), *height).is_some() {
            return Err(Misuse::of(request(channel, None), format!("two heights of {channel} are given")).into());
        }
    }
    for channel in point.channels.iter().filter(|channel| asked.names(&channel.name)) {
        let mut times = Times { before: asked.before, height: heights.get(&channel.name).copied(), ..Times::default() };
        blocks::of_channel::<EngineError>(reader, channel, &mut |block| {
            times.take(&block);
            Ok(())
        })?;
        let Some(height) = times.height else { continue };
        if height <= channel.first_block {
            return Err(Misuse::of(Request::Before, format!("{} had no block at that time", channel.name))
                .next(Remedy::LeaveNodeOut.or(Remedy::GiveHeight { channel: channel.name.clone() }))
                .into());
        }
        heights.insert(channel.name.clone(), height);
        let last = times.last.map_or("an unknown time".to_owned(), |time| time.to_string());
        findings.push(Finding::warning(
            Rule::EarlierHeight,
            &channel.name,
            format!(
                "it goes back to height {height}, whose last transaction is of {last}: {} blocks with {} transactions are given up",
                channel.height - height,
                times.given_up
            ),
            "make sure that everybody who has later blocks goes back too: peers and orderers of other organizations, and the records of clients",
        ));
    }
    heights.retain(|name, height| point.channel(name).is_some_and(|channel| channel.height > *height));
    Ok((heights, findings))
}

/// Looks for the height of a time, and what is given up behind a height.
#[derive(Default)]
struct Times {
    before: Option<Timestamp>,
    height: Option<u64>,
    /// The last transaction that stays.
    last: Option<Timestamp>,
    given_up: u64,
}

impl Times {
    fn take(&mut self, block: &BlockSummary) {
        let later = self.before.is_some_and(|before| block.last.is_some_and(|last| last > before));
        if self.height.is_none() && later {
            self.height = Some(block.number);
        }
        if self.height.is_some_and(|height| block.number >= height) {
            self.given_up += block.transactions;
        } else {
            self.last = self.last.max(block.last);
        }
    }
}

pub(super) fn wrong(channel: &str, problem: impl Into<String>) -> EngineError {
    EngineError::Point { point: channel.to_owned(), problem: problem.into() }
}

/// A channel that ends at a height.
fn cut(channel: &Channel, reader: &PointReader<'_>, height: u64) -> Result<Channel, EngineError> {
    let mut segments: Vec<Segment> =
        channel.segments.iter().filter(|segment| segment.first < height).cloned().collect();
    let last = segments.last_mut().ok_or_else(|| wrong(&channel.name, "it has no block below that height"))?;
    if last.end() > height {
        let opened = open_segment(reader, &channel.name, last)?;
        let count = usize::try_from(height - last.first).unwrap_or(0);
        let spans = opened.spans.get(..count).filter(|spans| !spans.is_empty());
        let spans = spans.ok_or_else(|| wrong(&channel.name, "a segment has fewer blocks than it says"))?;
        let bytes = &opened.bytes[..spans[count - 1].canonical.end];
        let checked = check_blocks(bytes, spans, &channel.name)?;
        *last = Segment {
            first: last.first,
            count: count as u64,
            blob: reader.add(bytes)?,
            bytes: bytes.len() as u64,
            last_hash: checked.header_hashes.last().map(hex::encode).unwrap_or_default(),
        };
    }
    let tip_hash = last.last_hash.clone();
    let mut out = Channel { height, tip_hash, segments, ..channel.clone() };
    if channel.config_block.is_none_or(|block| block >= height) {
        (out.config, out.config_block) = configuration(&out, reader)?;
    }
    Ok(out)
}

/// The last configuration of a channel's blocks, and its block.
fn configuration(
    channel: &Channel,
    reader: &PointReader<'_>,
) -> Result<(Option<ChannelConfig>, Option<u64>), EngineError> {
    for segment in channel.segments.iter().rev() {
        let opened = open_segment(reader, &channel.name, segment)?;
        if let Some(span) = opened.spans.iter().rfind(|span| is_config_block(&opened.bytes, span)) {
            let envelope = span.envelopes(&opened.bytes).next().unwrap_or_default();
            let config = ChannelConfig::from_envelope(envelope).ok().flatten();
            return Ok((config, Some(span.number)));
        }
    }
    Ok((None, None))
}

/// What nodes are brought back with.
struct Back<'a> {
    reader: &'a PointReader<'a>,
    /// The channels as they were captured.
    whole: &'a [Channel],
    /// Those that go back, as they will be.
    cuts: &'a BTreeMap<String, Channel>,
}

impl Back<'_> {
    fn blocks(&self, channel: &str) -> Result<Blocks<'_>, EngineError> {
        let whole = self.whole.iter().find(|known| known.name == channel);
        Ok(Blocks::new(self.reader, whole.ok_or_else(|| wrong(channel, "the recovery point has no such channel"))?))
    }

    /// Brings one node back; nothing happens to one that is not above the heights.
    fn node(&self, node: &mut CapturedNode) -> Result<Vec<Finding>, EngineError> {
        let above = |ledger: &&fabkeep_network::LedgerFacts| {
            self.cuts.get(&ledger.channel).is_some_and(|cut| ledger.height > cut.height)
        };
        let channels: BTreeSet<String> =
            node.facts.ledgers.iter().filter(above).map(|ledger| ledger.channel.clone()).collect();
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let id = node.facts.id.clone();
        if let Some(joined) = node.facts.ledgers.iter().find(|ledger| ledger.first_block > 0) {
            return Ok(vec![Finding::error(
                Rule::EarlierHeight,
                &id,
                format!(
                    "its ledger {} was joined by snapshot: its state cannot be rebuilt from blocks, and therefore not at an earlier height",
                    joined.channel
                ),
                Remedy::LeaveNodeOut.and("join it to the restored network with a new snapshot"),
            )]);
        }
        let mut findings = Vec::new();
        if node.facts.role == NodeRole::Peer {
            let heights: BTreeMap<String, u64> =
                channels.iter().map(|channel| (channel.clone(), self.cuts[channel].height)).collect();
            let stores = Stores { reader: self.reader, channels: self.whole };
            findings.extend(stores.bring(node, &|_| Ok(heights.clone()))?);
        }
        for captured in &mut node.directories {
            let of = captured.directory.clone();
            let mut entries = Vec::with_capacity(captured.entries.len());
            for entry in captured.entries.drain(..) {
                entries.extend(if is_made_anew(&of, &entry) { None } else { self.cut_file(&id, entry)? });
            }
            captured.entries = entries;
        }
        for ledger in node.facts.ledgers.iter_mut().filter(|ledger| channels.contains(&ledger.channel)) {
            let cut = &self.cuts[&ledger.channel];
            (ledger.height, ledger.tip_hash) = (cut.height, cut.tip_hash.clone());
            (ledger.commit_hash, ledger.index_height) = (None, None);
            (ledger.state_height, ledger.history_height) = (None, None);
            ledger.raft_index = None;
            ledger.torn_bytes = 0;
            ledger.private_height = ledger.private_height.map(|height| height.min(cut.height));
            ledger.missing_private.retain(|missing| missing.first_block < cut.height);
        }
        Ok(findings)
    }

    /// A file of blocks with those that stay; `None` when none does.
    fn cut_file(&self, id: &NodeId, mut entry: CapturedEntry) -> Result<Option<CapturedEntry>, EngineError> {
        let EntryContent::File { size, parts } = &mut entry.content else { return Ok(Some(entry)) };
        let Some(cut) = channel_of(parts).and_then(|channel| self.cuts.get(channel)) else { return Ok(Some(entry)) };
        let mut stay = Vec::new();
        for part in parts.drain(..) {
            match &part.content {
                Content::Blocks { first, .. } if *first >= cut.height => {}
                Content::Blocks { first, count, .. } if first.saturating_add(*count) > cut.height => {
                    stay.push(self.cut_part(id, &part, cut.height)?);
                }
                _ => stay.push(part),
            }
        }
        let Some(last) = stay.last() else { return Ok(None) };
        *size = last.offset.saturating_add(last.len);
        *parts = stay;
        Ok(Some(entry))
    }

    /// A run of blocks that ends at a height.
    fn cut_part(&self, id: &NodeId, part: &Part, height: u64) -> Result<Part, EngineError> {
        let Content::Blocks { channel, first, metadata, .. } = &part.content else { return Ok(part.clone()) };
        let (mut hash, mut len, mut used) = (self.reader.names().hasher(), 0u64, 0);
        let (blocks, all) = (self.blocks(channel)?, self.reader.blob(metadata)?);
        let mut record = Vec::new();
        for number in *first..height {
            let lacks = |what: String| wrong(&format!("{id} {channel}"), what);
            let own = metadata_prefix(&all[used..]).and_then(|range| all[used..].get(range));
            let own = own.ok_or_else(|| lacks(format!("the metadata of block {number} is cut")))?;
            let canonical = blocks.record(number)?.ok_or_else(|| lacks(format!("block {number} is not there")))?;
            record.clear();
            write_record(&canonical, own, &mut record);
            hash.update(&record);
            len += record.len() as u64;
            used += own.len();
        }
        let content = Content::Blocks {
            channel: channel.clone(),
            first: *first,
            count: height - first,
            metadata: self.reader.add(&all[..used])?,
            hash: hash.finish(),
        };
        Ok(Part { offset: part.offset, len, content })
    }
}

/// Whether a node makes a file anew from the blocks that stay, or may not have it at an earlier height.
fn is_made_anew(of: &fabkeep_network::NodeDirectory, entry: &CapturedEntry) -> bool {
    if !matches!(entry.content, EntryContent::File { .. }) {
        return false;
    }
    let place = of.classify(&entry.path, false);
    let (_, role, inside) = of.part(&entry.path);
    let of_peer = role == DirectoryRole::PeerData
        && (OF_LATER_BLOCKS.iter().any(|folder| inside.starts_with(folder)) || inside.ends_with(RESET_MARK));
    place.class == Class::Derived || of_peer
}

/// Orderers whose TLS certificates are none of the consenters' at that height.
fn consenters(point: &RecoveryPoint, heights: &BTreeMap<String, u64>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for channel in point.channels.iter().filter(|channel| heights.contains_key(&channel.name)) {
        let Some(config) = &channel.config else { continue };
        let of_config: BTreeSet<&str> = config
            .consenters
            .iter()
            .flat_map(|known| [known.client_tls_key.as_str(), known.server_tls_key.as_str()])
            .collect();
        let orderers = point.nodes.iter().filter(|node| node.facts.role == NodeRole::Orderer);
        for node in orderers.filter(|node| node.facts.raft.iter().any(|raft| raft.channel == channel.name)) {
            let mut keys = node.facts.keys.iter().filter(|key| key.purpose == KeyPurpose::Tls);
            let known = keys.any(|key| {
                key.certificate.as_ref().is_some_and(|certificate| of_config.contains(certificate.key_sha256.as_str()))
            });
            if !known {
                findings.push(Finding::warning(
                    Rule::EarlierHeight,
                    format!("{} {}", node.facts.id, channel.name),
                    "its TLS certificate does not belong to any consenter at that height: it was not a consenter then, or had another certificate",
                    "give it the certificate of that time, or choose a height after the change of the consenters",
                ));
            }
        }
    }
    findings
}
