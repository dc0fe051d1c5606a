//! Reads a channel's chain on all nodes at once, window by window. The blocks of every node are parsed, hashed, linked, compared between
//! nodes, and their signatures are checked. Headers and data are stored once in the channel's segments, metadata in each node's parts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fabkeep_ledger::Hash;
use fabkeep_ledger::block::BlockSpan;
use fabkeep_ledger::block_file::{Batch, file_name};
use fabkeep_ledger::block_signature::{SignatureChecker, orderer_metadata};
use fabkeep_ledger::channel_config::{ChannelConfig, is_config_block};
use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::private_hashes::{self, PrivateWrite};
use fabkeep_network::{Finding, LedgerFacts, Remedy, Rule};
use fabkeep_store::{PointWriter, Sources};
use serde::{Deserialize, Serialize};

use super::cursor::{Cursor, Member, first_difference, load_state, start};
use super::cut::Cuts;
use super::databases::Facts;
use super::histories::{self, Ordered};
use super::private_data;
use super::segments::{Results, SegmentBuilder, StoredDiffers};
use super::survey::Survey;
use super::{ByChannel, CaptureOptions, KnownHashes, source_name};
use crate::EngineError;
use crate::event::{Event, Reporter};
use crate::point::{Channel, Part, Segment};
use crate::validation::Validation;
use fabkeep_parallel::{self as parallel, Queue};

/// Bytes of one window over all nodes: what is in memory at a time.
const WINDOW_BYTES: usize = 16 << 20;
/// Least and most bytes of one node's share of a window.
const SHARE_BYTES: std::ops::RangeInclusive<usize> = (256 << 10)..=(4 << 20);

/// What the walks made of all channels.
pub(crate) struct Chains {
    pub channels: Vec<Channel>,
    /// Ledger facts, by node.
    pub ledgers: Vec<Vec<LedgerFacts>>,
    /// Parts of block files: by node, directory and path.
    pub parts: HashMap<(usize, usize, String), Vec<Part>>,
    /// Header hashes that raft logs speak of.
    pub known: ByChannel<KnownHashes>,
    /// Orderers whose raft state cannot be created from their last block of a channel, and why: by node and channel. Looked for only where
    /// raft logs need not be stored.
    pub no_raft_state: HashMap<(usize, String), String>,
    /// Channels whose raft logs and snapshots need not be stored.
    pub without_logs: BTreeSet<String>,
    pub findings: Vec<Finding>,
    pub read_bytes: u64,
}

/// What the index keeps of a channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ChannelState {
    segments: Vec<Segment>,
}

/// Walks every channel.
pub(crate) fn capture(
    survey: &Survey,
    facts: &Facts,
    cuts: &Cuts,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
    sources: &mut Sources,
) -> Result<Chains, EngineError> {
    let mut chains = Chains {
        channels: Vec::new(),
        ledgers: survey.nodes.iter().map(|_| Vec::new()).collect(),
        parts: HashMap::new(),
        known: ByChannel::new(),
        no_raft_state: HashMap::new(),
        without_logs: BTreeSet::new(),
        findings: Vec::new(),
        read_bytes: 0,
    };
    for (channel, mut members) in members(survey, writer, options) {
        for member in &mut members {
            member.cut(cuts.limit(&channel, member.peer));
        }
        // Blocks that raft logs speak of: their header hashes are kept for the logs' split.
        let logged = facts.nodes.iter().filter_map(|node| node.lowest_logged.get(&channel).copied());
        let of_snapshots = facts.nodes.iter().flat_map(|node| &node.raft).filter(|raft| raft.channel == channel);
        let of_snapshots = of_snapshots.filter_map(|raft| raft.snapshot.as_ref()?.block);
        let lowest_logged = logged.chain(of_snapshots).min().unwrap_or(u64::MAX);
        let name = source_name(writer, &["channel", &channel]);
        let stored = writer.source(&name).and_then(|value| serde_json::from_value::<ChannelState>(value.clone()).ok());
        let mut stored = stored.map(|state| state.segments).unwrap_or_default();
        if let Some(cut) = cuts.by_channel.get(&channel) {
            // A segment that reaches after the cut is made again, shorter.
            stored.retain(|segment| segment.end() <= cut.peers.max(cut.orderers));
        }
        let resume = members.iter().any(|member| member.resume.is_some());
        let heights = facts.nodes.iter().filter_map(|node| node.heights.get(&channel));
        let with_private = heights.flat_map(|heights| &heights.private_writes).map(|(write, _)| write.block).collect();
        let mut walk =
            Walk { channel: &channel, stored, resume, lowest_logged, with_private, writer, options, reporter };
        let mut outcome = loop {
            match walk.run(&members)? {
                Ok(outcome) => break outcome,
                // Something does not fit what earlier points hold: first everything is read again ...
                Err(_) if walk.resume => walk.resume = false,
                // ... and if it still does not fit, the nodes hold another chain.
                Err(restart) => {
                    chains.findings.extend(restart.finding(&channel).filter(|_| writer.continues()));
                    walk.stored.clear();
                }
            }
        };
        read_private_again(&channel, facts, &mut outcome);
        chains.findings.extend(private_data::compare(
            &channel,
            survey,
            &facts.nodes,
            outcome.progress.config.as_ref().map(|(_, config)| config),
            &outcome.progress.private,
            &outcome.progress.private_read,
        ));
        finish(&walk, outcome, facts, sources, &mut chains)?;
    }
    Ok(chains)
}

/// Returns every channel's chains, node by node.
pub(super) fn members<'a>(
    survey: &'a Survey,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
) -> ByChannel<Vec<Member<'a>>> {
    let mut by_channel: ByChannel<Vec<Member<'a>>> = BTreeMap::new();
    for (node, planned) in survey.nodes.iter().enumerate() {
        for (directory, surveyed) in planned.directories.iter().enumerate() {
            for files in surveyed.chains() {
                let label = planned.node.id.to_string();
                let resume = (!options.reread).then(|| load_state(writer, &label, &files)).flatten();
                let peer = planned.node.role == NodeRole::Peer;
                let member = Member { node, directory, label, peer, survey, files, resume, limit: None };
                by_channel.entry(member.files.channel.clone()).or_default().push(member);
            }
        }
    }
    by_channel
}

/// Why a walk must begin anew: what an earlier point holds does not fit.
enum Restart {
    /// Its segments do not reach to where the nodes would go on.
    Reread,
    /// The nodes hold other blocks.
    Differs(StoredDiffers),
    /// The nodes hold fewer blocks: they end inside this segment.
    Shorter(Segment),
}

impl Restart {
    fn finding(&self, channel: &str) -> Option<Finding> {
        let (what, remedy) = match self {
            Restart::Reread => return None,
            Restart::Differs(StoredDiffers { segment, found }) => (
                format!(
                    "the chain of the nodes differs from the one in the last recovery point and is captured as a new history: the header hash of block {} is {found} now, it was {}",
                    segment.end().saturating_sub(1),
                    segment.last_hash
                ),
                Remedy::from("find out why the chain was replaced (this recovery point contains the new chain, the earlier points the old one)")
                    .or(Remedy::NameNetwork),
            ),
            Restart::Shorter(segment) => (
                format!(
                    "the chains of all nodes end before block {}, which the last recovery point contains",
                    segment.end().saturating_sub(1)
                ),
                "find out why the blocks are missing; the earlier recovery points still contain them".into(),
            ),
        };
        Some(Finding::warning(Rule::OneChain, channel, what, remedy))
    }
}

struct Walk<'w> {
    channel: &'w str,
    /// Segments of the last recovery point.
    stored: Vec<Segment>,
    /// Whether nodes go on where the last capture stopped.
    resume: bool,
    lowest_logged: u64,
    /// Blocks of which peers hold private data.
    with_private: BTreeSet<u64>,
    writer: &'w PointWriter<'w>,
    options: &'w CaptureOptions,
    reporter: &'w dyn Reporter,
}

struct Outcome<'a> {
    cursors: Vec<Cursor<'a>>,
    segments: Vec<Segment>,
    progress: Progress,
}

/// What the walk carries from window to window.
#[derive(Default)]
struct Progress {
    /// The configuration in force, and the block that it came from.
    config: Option<(u64, ChannelConfig)>,
    checker: SignatureChecker,
    known: KnownHashes,
    /// Blocks by the raft index of their entry, as far back as raft logs go.
    ordered: Ordered,
    /// Hashes of private data in the blocks that peers hold some of.
    private: BTreeMap<PrivateWrite, Hash>,
    /// The blocks that were read for them.
    private_read: BTreeSet<u64>,
    findings: Vec<Finding>,
}

impl Progress {
    /// Remembers what a block says of private data.
    fn note_private(&mut self, batch: &Batch, span: &BlockSpan) {
        self.private_read.insert(span.number);
        for (transaction, envelope) in (0..).zip(span.envelopes(&batch.buffer)) {
            for (chaincode, collection, hash) in private_hashes::of_envelope(envelope) {
                let write = PrivateWrite { block: span.number, transaction, chaincode, collection };
                self.private.insert(write, hash);
            }
        }
    }
}

/// Reads the blocks again that the private data of a changed store is compared with, where the walk went on behind them: what an earlier
/// capture found in their place is of an earlier store.
fn read_private_again(channel: &str, facts: &Facts, outcome: &mut Outcome<'_>) {
    let heights = facts.nodes.iter().filter_map(|node| node.heights.get(channel));
    let changed = heights.filter(|heights| heights.private_changed).flat_map(|heights| &heights.private_writes);
    let mut wanted: BTreeSet<u64> = changed.map(|(write, _)| write.block).collect();
    let progress = &mut outcome.progress;
    for cursor in outcome.cursors.iter_mut().filter(|cursor| cursor.problem.is_none()) {
        wanted.retain(|block| !progress.private_read.contains(block));
        if let Err(error) = cursor.read_again(&wanted, &mut |batch, span| progress.note_private(batch, span)) {
            progress.findings.push(cursor.member.finding(channel, &error));
        }
    }
}

impl Walk<'_> {
    fn run<'a>(&self, members: &'a [Member<'a>]) -> Result<Result<Outcome<'a>, Restart>, EngineError> {
        let mut progress = Progress::default();
        let mut cursors = Vec::new();
        for member in members {
            match start(member, self.resume) {
                Ok(cursor) => cursors.push(cursor),
                Err(error) => progress.findings.push(member.finding(self.channel, &error.into())),
            }
        }
        let first = cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0);
        // Of the stored segments, those that the repository still holds, from the front.
        let mut stored = self.stored.clone();
        let held = stored.iter().take_while(|segment| self.writer.keep(segment.blob)).count();
        stored.truncate(held);
        let reaches = stored.last().map_or(0, Segment::end);
        if stored.first().is_none_or(|segment| segment.first > first) || reaches < first {
            if self.resume {
                return Ok(Err(Restart::Reread));
            }
            stored.clear();
        }
        progress.config = cursors.iter().filter(|cursor| cursor.next == first).find_map(Cursor::read_config);
        let results = Results::default();
        let walked = std::thread::scope(|scope| {
            let queue = Queue::start(scope, self.options.threads);
            let segments = SegmentBuilder::new(stored, first, self.writer, &results, queue);
            self.windows(&mut cursors, segments, &mut progress, &results)
        })?;
        if let Err(restart) = walked {
            return Ok(Err(restart));
        }
        let segments = results.take()?;
        Ok(Ok(Outcome { cursors, segments, progress }))
    }

    fn windows(
        &self,
        cursors: &mut [Cursor<'_>],
        mut segments: SegmentBuilder<'_>,
        progress: &mut Progress,
        results: &Results,
    ) -> Result<Result<(), Restart>, EngineError> {
        let (channel, threads, writer) = (self.channel, self.options.threads, self.writer);
        while !results.failed() {
            if self.reporter.is_interrupted() {
                return Err(EngineError::Stopped);
            }
            let active = |cursor: &Cursor<'_>| cursor.is_active().then_some(cursor.next);
            let Some(next) = cursors.iter().filter_map(active).min() else { break };
            // Nodes that come in later (resumed further on, joined by snapshot) bound the window.
            let limit = cursors.iter().filter_map(active).filter(|&other| other > next).min();
            let limit = limit.map_or(u64::MAX, |other| other - 1);
            let mut group: Vec<&mut Cursor<'_>> =
                cursors.iter_mut().filter(|cursor| cursor.is_active() && cursor.next == next).collect();
            let share = (WINDOW_BYTES / group.len().max(1)).clamp(*SHARE_BYTES.start(), *SHARE_BYTES.end());
            let leader = group.first_mut().and_then(|leader| leader.read_leader(channel, share, limit));
            let Some(end) = leader else { continue };
            let group = parallel::map(group, threads, |cursor| {
                cursor.read_until(channel, end);
                cursor.check(channel);
                cursor
            });
            let group = compare(channel, group);
            let Some(reference) = longest(&group) else { continue };
            let changes = config_changes(group[reference], channel, &mut progress.findings);
            if let Err(differs) = push_blocks(group[reference], &mut segments, progress, self) {
                return Ok(Err(Restart::Differs(differs)));
            }
            let before = progress.config.as_ref().map(|(_, config)| config);
            let validation = Validation { before, changes: &changes, checker: &progress.checker };
            let kept = parallel::map(group, threads, |cursor| {
                let blocks = cursor.hashes.len() as u64;
                let before = cursor.read_bytes;
                cursor.check_signatures(channel, &validation);
                cursor.note_config(&changes);
                cursor.keep_metadata(writer)?;
                cursor.advance();
                Ok((blocks, cursor.read_bytes - before))
            });
            let (mut blocks, mut bytes) = (0, 0);
            for kept in kept {
                let (more_blocks, more_bytes) = kept.map_err(|error: fabkeep_store::StoreError| error)?;
                blocks += more_blocks;
                bytes += more_bytes;
            }
            progress.config = changes.into_iter().next_back().or(progress.config.take());
            self.reporter.event(Event::Advance { bytes, blocks });
        }
        if let Some(segment) = segments.unfinished() {
            return Ok(Err(Restart::Shorter(segment)));
        }
        segments.cut();
        for cursor in cursors.iter_mut() {
            cursor.close_part(writer)?;
            progress.findings.extend(cursor.problem.clone());
        }
        Ok(Ok(()))
    }
}

/// Compares the windows of a group (I4): a node that differs from the most others gets a finding and leaves. What is left has equal
/// header hashes up to the end of each chain.
fn compare<'c, 'a>(channel: &str, group: Vec<&'c mut Cursor<'a>>) -> Vec<&'c mut Cursor<'a>> {
    let mut group: Vec<&mut Cursor<'_>> =
        group.into_iter().filter(|cursor| cursor.problem.is_none() && !cursor.hashes.is_empty()).collect();
    let differ = |one: &Cursor<'_>, other: &Cursor<'_>| one.hashes.iter().zip(&other.hashes).position(|(a, b)| a != b);
    loop {
        let worst = (0..group.len())
            .map(|i| (i, (0..group.len()).filter(|&j| differ(group[i], group[j]).is_some()).count()))
            .rev()
            .max_by_key(|&(_, differing)| differing)
            .filter(|&(_, differing)| differing > 0);
        let Some((worst, _)) = worst else { break };
        let forked = group.remove(worst);
        if let Some((other, at)) = group.iter().find_map(|other| Some((other, differ(forked, other)?))) {
            let number = forked.next + at as u64;
            forked.problem = Some(Finding::error(
                Rule::OneChain,
                format!("{} {channel}", forked.member.label),
                format!(
                    "the chain forks at block {number}: its header hash is {} here and {} at {}",
                    hex::encode(forked.hashes[at]),
                    hex::encode(other.hashes[at]),
                    other.member.label
                ),
                Remedy::wrong_one_of("ask the other organizations for this block's header hash"),
            ));
        }
    }
    let reference = group.iter().position(|cursor| cursor.member.peer);
    if let Some(reference) = reference {
        for i in reference + 1..group.len() {
            if !group[i].member.peer {
                continue;
            }
            if let Some((number, what)) = first_difference(group[reference], group[i]) {
                let other = group[reference].member.label.clone();
                group[i].problem = Some(Finding::error(
                    Rule::OneChain,
                    format!("{} {channel}", group[i].member.label),
                    format!("block {number}: its {what} differ from those of {other}"),
                    Remedy::wrong_one_of(
                        "one of the two peers computed a wrong world state: compare both with a third peer",
                    ),
                ));
            }
        }
    }
    group.retain(|cursor| cursor.problem.is_none());
    group
}

/// Returns the one with the most blocks in the window; the first among equals.
fn longest(group: &[&mut Cursor<'_>]) -> Option<usize> {
    (0..group.len()).rev().max_by_key(|&i| group[i].hashes.len())
}

/// Configuration blocks of the window.
fn config_changes(reference: &Cursor<'_>, channel: &str, findings: &mut Vec<Finding>) -> BTreeMap<u64, ChannelConfig> {
    let mut changes = BTreeMap::new();
    for (batch, span) in reference.blocks().filter(|(batch, span)| is_config_block(&batch.buffer, span)) {
        let Some(envelope) = span.envelopes(&batch.buffer).next() else { continue };
        match ChannelConfig::from_envelope(envelope) {
            Ok(config) => changes.extend(config.map(|config| (span.number, config))),
            Err(error) => findings.push(Finding::warning(
                Rule::BlockSigned,
                format!("{channel} block {}", span.number),
                format!("{error}: signatures after it are checked against the previous configuration"),
                "report this as a bug of fabkeep: the configuration has an unknown form",
            )),
        }
    }
    changes
}

/// Gives the window's header and data to the segments.
fn push_blocks(
    reference: &Cursor<'_>,
    segments: &mut SegmentBuilder<'_>,
    progress: &mut Progress,
    walk: &Walk<'_>,
) -> Result<(), StoredDiffers> {
    let mut before = reference.raft_index;
    for ((batch, span), hash) in reference.blocks().zip(&reference.hashes) {
        // The block before the lowest one counts too.
        let is_logged = span.number.saturating_add(1) >= walk.lowest_logged;
        let index = is_logged.then(|| orderer_metadata(span.slots(&batch.buffer)).raft_index).flatten();
        segments.push(span.number, &batch.buffer[span.canonical.clone()], *hash)?;
        if walk.with_private.contains(&span.number) {
            progress.note_private(batch, span);
        }
        if span.number >= walk.lowest_logged {
            progress.known.insert(span.number, *hash);
            // A block that changes the consenters has the index of the block before it: that of its own entry is not known.
            let own = index.filter(|_| index > before);
            progress.ordered.extend(own.map(|index| (index, (span.number, *hash))));
        }
        before = before.max(index);
    }
    Ok(())
}

fn finish(
    walk: &Walk<'_>,
    outcome: Outcome<'_>,
    facts: &Facts,
    sources: &mut Sources,
    chains: &mut Chains,
) -> Result<(), EngineError> {
    let Outcome { cursors, segments, progress } = outcome;
    let (channel, writer) = (walk.channel, walk.writer);
    chains.findings.extend(progress.findings.iter().cloned());
    let put_source = |sources: &mut Sources, name: &[&str], state: serde_json::Result<serde_json::Value>| {
        if let Ok(state) = state {
            sources.insert(source_name(writer, name).to_string(), state);
        }
    };
    for cursor in &cursors {
        let member = cursor.member;
        let checked = &facts.nodes[member.node];
        let heights = checked.heights.get(channel).cloned().unwrap_or_default();
        let ledger = cursor.facts(channel, &heights);
        chains.findings.extend(histories::compare(channel, cursor, checked, &progress.known, &progress.ordered));
        chains.findings.extend(torn(&ledger, &member.label, member.survey.nodes[member.node].may_be_torn()));
        chains.ledgers[member.node].push(ledger);
        if walk.options.without_raft_logs && !member.peer {
            let why = cursor.no_raft_state().map(|why| ((member.node, channel.to_owned()), why));
            chains.no_raft_state.extend(why);
        }
        for (file, parts) in &cursor.parts {
            let path = format!("{}/{}", member.files.path, file_name(*file));
            chains.parts.insert((member.node, member.directory, path), parts.clone());
        }
        put_source(sources, &["chain", &member.label, &member.files.path], serde_json::to_value(cursor.state()));
        chains.read_bytes += cursor.read_bytes;
    }
    let donor = cursors.iter().rev().max_by_key(|cursor| cursor.next);
    let Some((donor, tip)) = donor.and_then(|donor| Some((donor, donor.tip?))) else {
        chains.findings.push(Finding::error(
            Rule::HashChain,
            channel,
            "no node of this channel has a block",
            Remedy::ExcludeNodes.or("remove the empty chain directory"),
        ));
        return Ok(());
    };
    put_source(sources, &["channel", channel], serde_json::to_value(ChannelState { segments: segments.clone() }));
    let (config_block, config) = progress.config.unzip();
    chains.channels.push(Channel {
        name: channel.to_owned(),
        first_block: segments.first().map_or(0, |segment| segment.first),
        height: tip.height,
        tip_hash: hex::encode(tip.header_hash),
        donor: donor.member.label.clone(),
        segments,
        config,
        config_block,
    });
    chains.known.insert(channel.to_owned(), progress.known);
    Ok(())
}

fn torn(ledger: &LedgerFacts, label: &str, expected: bool) -> Option<Finding> {
    if ledger.torn_bytes == 0 {
        return None;
    }
    let subject = format!("{label} {}", ledger.channel);
    let what = format!(
        "the last block file ends inside block {} ({} bytes of it, left out)",
        ledger.height, ledger.torn_bytes
    );
    Some(if expected {
        Finding::note(Rule::TornTail, subject, what, "no action is needed: the node was writing it")
    } else {
        Finding::warning(
            Rule::TornTail,
            subject,
            what,
            "this happens after a crash, and the node drops the block when it starts; a truncated file looks the same: compare the heights of the other nodes",
        )
    })
}
