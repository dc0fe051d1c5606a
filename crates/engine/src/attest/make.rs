//! Makes the attestation of a recovery point. Header hashes of all segments' ends are in the manifest; those of the
//! last blocks are computed from the blocks.

use std::collections::BTreeMap;

use fabkeep_ledger::Hash;
use fabkeep_ledger::block::Slots;
use fabkeep_ledger::block_file::metadata_prefix;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::Finding;
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};

use super::{Attestation, AttestedChannel, AttestedConfiguration, AttestedFinding, AttestedPeer};
use crate::EngineError;
use crate::event::{Event, Reporter, step};
use crate::misuse::{Misuse, Request};
use crate::point::{Channel, Content, EntryContent, Part, RecoveryPoint, Segment};
use crate::replay::open_segment;

/// Blocks at the end of a channel of which every hash is stated.
const LAST_BLOCKS: u64 = 128;
/// Most hashes of segments' ends: of more, the older ones are thinned out.
const MAX_ENDS: usize = 2048;
/// Most blocks of asked ranges.
const MAX_ASKED_BLOCKS: u64 = 1 << 16;

/// Consecutive blocks of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRange {
    /// Which channel.
    pub channel: String,
    /// Number of the first block.
    pub first: u64,
    /// Number of the last block.
    pub last: u64,
}

impl std::fmt::Display for BlockRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}..{}", self.channel, self.first, self.last)
    }
}

impl std::str::FromStr for BlockRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "write CHANNEL=FIRST..LAST, numbers of blocks".to_owned();
        let (channel, range) = text.rsplit_once('=').ok_or_else(form)?;
        let (first, last) = range.split_once("..").ok_or_else(form)?;
        let (first, last) = (first.parse().map_err(|_| form())?, last.parse().map_err(|_| form())?);
        if channel.is_empty() || first > last {
            return Err(form());
        }
        Ok(BlockRange { channel: channel.to_owned(), first, last })
    }
}

/// What an attestation contains.
#[derive(Debug, Clone, Default)]
pub struct AttestOptions {
    /// The channels; all when empty. A channel's name is known to its members only.
    pub channels: Vec<String>,
    /// Blocks of which every header hash is stated, beside the usual ones.
    pub ranges: Vec<BlockRange>,
}

/// Makes the attestation of a recovery point.
///
/// # Errors
/// [`EngineError::Usage`] when it has not what is asked for; others when it cannot be read.
pub fn attestation(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    options: &AttestOptions,
    reporter: &dyn Reporter,
) -> Result<Attestation, EngineError> {
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    crate::contained::check_channels(&point)?;
    check_options(&point, options)?;
    let mut channels = Vec::new();
    for channel in &point.channels {
        if options.channels.is_empty() || options.channels.contains(&channel.name) {
            let name = format!("hash blocks of {}", channel.name);
            channels.push(step(reporter, &name, None, || of_channel(&point, &reader, channel, options, reporter))?);
        }
    }
    Ok(Attestation {
        repository: repository.config().id.clone(),
        root: repository.config().root.clone(),
        point: commit.id.to_string(),
        network: point.network.clone(),
        captured: point.created.clone(),
        committed: commit.committed.clone(),
        captured_by: point.fabkeep.clone(),
        made: jiff::Timestamp::now().to_string(),
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        verdict: commit.summary.verdict.clone(),
        findings: counted(&point.findings),
        channels,
    })
}

fn check_options(point: &RecoveryPoint, options: &AttestOptions) -> Result<(), EngineError> {
    let known = || point.channels.iter().map(|channel| channel.name.as_str()).collect::<Vec<_>>().join(", ");
    for name in &options.channels {
        if point.channel(name).is_none() {
            let problem = format!("the recovery point has no such channel; it has {}", known());
            return Err(Misuse::of(Request::AttestChannel(name.clone()), problem).into());
        }
    }
    let mut blocks: u64 = 0;
    for range in &options.ranges {
        let wrong = |problem: String| EngineError::from(Misuse::of(Request::AttestBlocks(range.clone()), problem));
        let channel = point
            .channel(&range.channel)
            .ok_or_else(|| wrong(format!("the recovery point has no such channel; it has {}", known())))?;
        if range.first < channel.first_block || range.last >= channel.height {
            let (first, last) = (channel.first_block, channel.height.saturating_sub(1));
            return Err(wrong(format!("the recovery point has the blocks {first} to {last}")));
        }
        blocks = blocks.saturating_add(range.last - range.first + 1);
        if blocks > MAX_ASKED_BLOCKS {
            return Err(wrong(format!("an attestation lists at most {MAX_ASKED_BLOCKS} blocks in addition")));
        }
    }
    Ok(())
}

fn counted(findings: &[Finding]) -> Vec<AttestedFinding> {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for finding in findings {
        *counts.entry((finding.rule.code().to_owned(), finding.severity.to_string())).or_default() += 1;
    }
    counts.into_iter().map(|((rule, severity), count)| AttestedFinding { rule, severity, count }).collect()
}

fn of_channel(
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    channel: &Channel,
    options: &AttestOptions,
    reporter: &dyn Reporter,
) -> Result<AttestedChannel, EngineError> {
    let mut hashes = ends(channel)?;
    let tail = channel.height.saturating_sub(LAST_BLOCKS).max(channel.first_block);
    let mut wanted = vec![(channel.first_block, channel.first_block), (tail, channel.height.saturating_sub(1))];
    wanted.extend(channel.config_block.map(|block| (block, block)));
    let asked = options.ranges.iter().filter(|range| range.channel == channel.name);
    wanted.extend(asked.map(|range| (range.first, range.last)));
    let mut data_hash = None;
    for segment in &channel.segments {
        let overlaps = |(first, last): &&(u64, u64)| *first < segment.end() && segment.first <= *last;
        let of_segment: Vec<&(u64, u64)> = wanted.iter().filter(overlaps).collect();
        if of_segment.is_empty() {
            continue;
        }
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        let opened = open_segment(reader, &channel.name, segment)?;
        for (span, hash) in opened.spans.iter().zip(&opened.checked.header_hashes) {
            if of_segment.iter().any(|(first, last)| (*first..=*last).contains(&span.number)) {
                hashes.insert(span.number, *hash);
            }
            if channel.config_block == Some(span.number) {
                data_hash = Some(hex::encode(&opened.bytes[span.data_hash.clone()]));
            }
        }
        reporter.event(Event::Advance { bytes: segment.bytes, blocks: segment.count });
    }
    let configuration = channel.config.as_ref().zip(channel.config_block);
    let configuration =
        configuration.map(|(config, block)| AttestedConfiguration { block, sequence: config.sequence, data_hash });
    Ok(AttestedChannel {
        name: channel.name.clone(),
        first_block: channel.first_block,
        height: channel.height,
        tip_hash: channel.tip_hash.clone(),
        configuration,
        header_hashes: as_text(hashes),
        commit_hashes: as_text(commit_hashes(point, reader, &channel.name, tail)?),
        peers: peers(point, &channel.name),
    })
}

fn as_text(hashes: BTreeMap<u64, Hash>) -> Vec<(u64, String)> {
    hashes.into_iter().map(|(number, hash)| (number, hex::encode(hash))).collect()
}

/// Returns the header hashes at the ends of segments: the newest ones, and of the older ones some at equal distances.
fn ends(channel: &Channel) -> Result<BTreeMap<u64, Hash>, EngineError> {
    let old = channel.segments.len().saturating_sub(MAX_ENDS / 2);
    let apart = old.div_ceil(MAX_ENDS / 2).max(1);
    let chosen = channel.segments.iter().enumerate().filter(|(at, _)| *at >= old || at % apart == 0);
    let hash_of = |segment: &Segment| {
        let mut hash = [0; 32];
        hex::decode_to_slice(&segment.last_hash, &mut hash).map_err(|error| EngineError::Point {
            point: channel.name.clone(),
            problem: format!("the header hash of block {} is none: {error}", segment.end().saturating_sub(1)),
        })?;
        Ok((segment.end().saturating_sub(1), hash))
    };
    chosen.filter(|(_, segment)| segment.count > 0).map(|(_, segment)| hash_of(segment)).collect()
}

/// Returns the commit hashes of the highest peer, from a block on.
fn commit_hashes(
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    channel: &str,
    from: u64,
) -> Result<BTreeMap<u64, Hash>, EngineError> {
    let height = |node: &crate::point::CapturedNode| {
        node.facts.ledgers.iter().filter(|ledger| ledger.channel == channel).map(|ledger| ledger.height).max()
    };
    let peers = point.nodes.iter().filter(|node| node.facts.role == NodeRole::Peer);
    let Some(peer) = peers.filter(|node| height(node).is_some()).max_by_key(|node| height(node)) else {
        return Ok(BTreeMap::new());
    };
    let mut out = BTreeMap::new();
    for entry in peer.directories.iter().flat_map(|directory| &directory.entries) {
        let EntryContent::File { parts, .. } = &entry.content else { continue };
        for Part { content, .. } in parts {
            let Content::Blocks { channel: of, first, count, metadata, .. } = content else { continue };
            if of != channel || first.saturating_add(*count) <= from {
                continue;
            }
            let blob = reader.blob(metadata)?;
            let mut rest: &[u8] = &blob;
            for number in *first..first.saturating_add(*count) {
                let Some(range) = metadata_prefix(rest) else { break };
                let (own, behind) = rest.split_at(range.end);
                rest = behind;
                if number >= from
                    && let Some(hash) = Slots::new(own).commit_hash()
                {
                    out.insert(number, hash);
                }
            }
        }
    }
    Ok(out)
}

/// Returns the peers' heights and commit hashes, by organization.
fn peers(point: &RecoveryPoint, channel: &str) -> Vec<AttestedPeer> {
    let nodes = point.nodes.iter().filter(|node| node.facts.role == NodeRole::Peer);
    let of_node = |node: &crate::point::CapturedNode| {
        let ledgers = node.facts.ledgers.iter().filter(|ledger| ledger.channel == channel);
        let msp_id = node.facts.msp_id.clone();
        ledgers
            .map(|ledger| AttestedPeer {
                msp_id: msp_id.clone(),
                height: ledger.height,
                commit_hash: ledger.commit_hash.clone(),
            })
            .collect::<Vec<_>>()
    };
    let mut out: Vec<AttestedPeer> = nodes.flat_map(of_node).collect();
    out.sort_by(|a, b| (&a.msp_id, a.height).cmp(&(&b.msp_id, b.height)));
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn channel(segments: u64) -> Channel {
        let of = |number: u64| {
            serde_json::json!({
                "first": number * 10, "count": 10, "blob": "00".repeat(32), "bytes": 1, "last_hash": format!("{number:064x}"),
            })
        };
        serde_json::from_value(serde_json::json!({
            "name": "c", "first_block": 0, "height": segments * 10, "tip_hash": "", "donor": "", "config": null,
            "config_block": null, "segments": (0..segments).map(of).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn the_ends_of_segments_are_stated_and_thinned_out_where_there_are_very_many() {
        let numbers = |segments| ends(&channel(segments)).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!(numbers(3), [9, 19, 29]);
        let many = numbers(1_000_000);
        assert!(many.len() <= MAX_ENDS, "{}", many.len());
        assert_eq!(many.last(), Some(&9_999_999));
        let gaps: BTreeSet<u64> = many.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.contains(&10) && gaps.iter().all(|gap| *gap <= 10 * 977), "{gaps:?}");
    }

    #[test]
    fn ranges_are_read_as_they_are_written() {
        let range: BlockRange = "my.channel=4..10".parse().unwrap();
        assert_eq!((range.first, range.last, range.to_string().as_str()), (4, 10, "my.channel=4..10"));
        for wrong in ["", "c", "c=4", "c=4..", "c=..4", "c=5..4", "=1..2", "c=-1..2"] {
            assert!(wrong.parse::<BlockRange>().is_err(), "{wrong}");
        }
    }
}
