//! Reassembles the block files of a channel: each segment is opened and checked once, and every node's records are made from it and the
//! node's metadata.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use fabkeep_ledger::block::{BlockSpan, Slots};
use fabkeep_ledger::block_file::{metadata_prefix, parse_canonical_records, write_record};
use fabkeep_ledger::block_signature::SignatureChecker;
use fabkeep_ledger::chain::{CheckedBlocks, Tip, check_blocks};
use fabkeep_ledger::channel_config::{ChannelConfig, is_config_block};
use fabkeep_network::{Finding, Rule};
use fabkeep_store::{BlobBytes, BlobHasher, PointReader};
use parking_lot::Mutex;

use crate::EngineError;
use crate::event::{Event, Reporter};
use crate::point::{Channel, Content, Part, Segment};
use crate::validation::Validation;
use fabkeep_parallel as parallel;

/// Where a node's bytes go.
pub(crate) trait Sink: Send {
    /// Takes bytes of the file `file` (as its target names it) at an offset.
    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), EngineError>;

    /// All parts of the file are there.
    fn finish(&mut self, file: usize) -> Result<(), EngineError>;
}

/// Takes everything and keeps nothing: for verification.
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _: usize, _: u64, _: &[u8]) -> Result<(), EngineError> {
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<(), EngineError> {
        Ok(())
    }
}

/// One node's block files of a channel.
pub(crate) struct ReplayTarget<'a> {
    pub label: String,
    /// Whether the node is a peer.
    pub peer: bool,
    /// Files in order, each with its parts.
    pub files: Vec<Vec<Part>>,
    /// Whether these are all of the node's: then no block between them may be missing.
    pub whole: bool,
    pub sink: Box<dyn Sink + 'a>,
}

/// Most segments that are opened at once.
const OPEN_AT_ONCE: usize = 4;

/// Bytes that are hashed and written at once: few enough to stay in a core's cache.
const WRITE_BYTES: usize = 512 << 10;

struct Running<'a> {
    label: String,
    /// Records that are not written yet.
    buffer: Vec<u8>,
    peer: bool,
    sink: Box<dyn Sink + 'a>,
    parts: VecDeque<(usize, Part, bool)>,
    whole: bool,
    open: Option<OpenPart>,
    next: u64,
    bytes: u64,
    /// Blocks whose signatures could not be checked.
    unchecked: u64,
}

struct OpenPart {
    file: usize,
    last_of_file: bool,
    offset: u64,
    end: u64,
    left: u64,
    metadata: BlobBytes,
    at: usize,
    hash: BlobHasher,
    expected: fabkeep_store::BlobId,
}

/// A segment, opened and checked.
pub(crate) struct OpenSegment {
    segment: Segment,
    pub bytes: BlobBytes,
    pub spans: Vec<BlockSpan>,
    pub checked: CheckedBlocks,
}

/// What a replay found, where signatures were asked for.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Invalid signatures.
    pub findings: Vec<Finding>,
    /// Blocks whose signatures could not be checked, as no configuration was known: by node, where there are some.
    pub unchecked: BTreeMap<String, u64>,
}

/// Replays a channel into every target. Returns findings for invalid signatures (if `signatures` are requested). Segments that no target
/// needs are not opened, unless one asks for the whole channel.
///
/// # Errors
/// What does not fit together: a hash, a link, a length, an object.
pub(crate) fn replay(
    reader: &PointReader<'_>,
    channel: &Channel,
    targets: Vec<ReplayTarget<'_>>,
    signatures: bool,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<Replayed, EngineError> {
    let mut running: Vec<Running<'_>> =
        targets.into_iter().map(|target| Running::new(channel, target)).collect::<Result<_, _>>()?;
    let is_needed = |segment: &&Segment| running.iter().any(|target| target.whole || target.needs(segment));
    let needed: Vec<&Segment> = channel.segments.iter().filter(is_needed).collect();
    let all = needed.len() == channel.segments.len();
    let mut findings = Vec::new();
    let checker = SignatureChecker::default();
    let mut config: Option<ChannelConfig> = None;
    let mut tip: Option<Tip> = None;
    std::thread::scope(|scope| -> Result<(), EngineError> {
        let (sender, receiver) = sync_channel::<Result<OpenSegment, EngineError>>(1);
        let needed = &needed;
        scope.spawn(move || {
            for segments in needed.chunks(threads.clamp(1, OPEN_AT_ONCE)) {
                let opened = parallel::map(segments, threads, |segment| open_segment(reader, &channel.name, segment));
                for opened in opened {
                    let stop = opened.is_err();
                    if sender.send(opened).is_err() || stop {
                        return;
                    }
                }
            }
        });
        for opened in receiver {
            if reporter.is_interrupted() {
                return Err(EngineError::Stopped);
            }
            let opened = opened?;
            // Segments before it may have been left out.
            tip = tip.filter(|tip| all || tip.height == opened.segment.first);
            tip = Tip::link(tip, &opened.checked, &place(&channel.name, &opened.segment))?;
            let mut changes = BTreeMap::new();
            if signatures {
                for span in opened.spans.iter().filter(|span| is_config_block(&opened.bytes, span)) {
                    let envelope = span.envelopes(&opened.bytes).next().unwrap_or_default();
                    changes.extend(
                        ChannelConfig::from_envelope(envelope).ok().flatten().map(|config| (span.number, config)),
                    );
                }
            }
            let validation = Validation { before: config.as_ref(), changes: &changes, checker: &checker };
            let each: Vec<&mut Running<'_>> = running.iter_mut().collect();
            let results = parallel::map(each, threads, |target| {
                target.take(reader, &channel.name, &opened, signatures.then_some(&validation))
            });
            for result in results {
                let (bytes, finding) = result?;
                reporter.event(Event::Advance { bytes, blocks: opened.segment.count });
                findings.extend(finding);
            }
            config = changes.into_iter().next_back().map(|(_, config)| config).or(config.take());
        }
        Ok(())
    })?;
    let expected = (channel.height, channel.tip_hash.clone());
    let reached = tip.map(|tip| (tip.height, hex::encode(tip.header_hash))).unwrap_or_default();
    if all && reached != expected {
        return Err(broken(
            &channel.name,
            format!(
                "its segments end at height {} ({}), {} ({}) was recorded",
                reached.0, reached.1, expected.0, expected.1
            ),
        ));
    }
    for target in &running {
        if target.open.is_some() || !target.parts.is_empty() {
            return Err(broken(
                &channel.name,
                format!("{} needs blocks from {} on, the channel ends", target.label, target.next),
            ));
        }
    }
    let unchecked = running.iter().filter(|target| target.unchecked > 0);
    let unchecked = unchecked.map(|target| (target.label.clone(), target.unchecked)).collect();
    Ok(Replayed { findings, unchecked })
}

fn broken(channel: &str, problem: String) -> EngineError {
    EngineError::Point { point: channel.to_owned(), problem }
}

fn place(channel: &str, segment: &Segment) -> String {
    format!("{channel} segment of blocks {}–{}", segment.first, segment.end().saturating_sub(1))
}

pub(crate) fn open_segment(
    reader: &PointReader<'_>,
    channel: &str,
    segment: &Segment,
) -> Result<OpenSegment, EngineError> {
    let bytes = reader.blob(&segment.blob)?;
    let place = place(channel, segment);
    let spans = parse_canonical_records(&bytes).map_err(|error| broken(channel, format!("{place}: {error}")))?;
    let checked = check_blocks(&bytes, &spans, &place)?;
    let last = checked.header_hashes.last().map(hex::encode).unwrap_or_default();
    if spans.len() as u64 != segment.count || checked.first != segment.first || last != segment.last_hash {
        return Err(broken(channel, format!("{place} contains other blocks than it claims")));
    }
    Ok(OpenSegment { segment: segment.clone(), bytes, spans, checked })
}

impl<'a> Running<'a> {
    fn new(channel: &Channel, target: ReplayTarget<'a>) -> Result<Self, EngineError> {
        let mut parts = VecDeque::new();
        for (file, of_file) in target.files.into_iter().enumerate() {
            let count = of_file.len();
            parts.extend(of_file.into_iter().enumerate().map(|(i, part)| (file, part, i + 1 == count)));
        }
        let mut running = Running {
            label: target.label,
            buffer: Vec::new(),
            peer: target.peer,
            sink: target.sink,
            parts,
            whole: target.whole,
            open: None,
            next: u64::MAX,
            bytes: 0,
            unchecked: 0,
        };
        if let Some((_, part, _)) = running.parts.front() {
            running.next = match &part.content {
                Content::Blocks { first, .. } => *first,
                _ => {
                    return Err(broken(
                        &channel.name,
                        format!("{}: a block file has a part that does not contain blocks", running.label),
                    ));
                }
            };
        }
        Ok(running)
    }

    /// Whether blocks of a segment belong to parts that are still to come.
    fn needs(&self, segment: &Segment) -> bool {
        let parts = self.parts.iter().map(|(_, part, _)| &part.content);
        parts.into_iter().any(|content| match content {
            Content::Blocks { first, count, .. } => {
                *first < segment.end() && segment.first < first.saturating_add(*count)
            }
            _ => false,
        })
    }

    /// Makes this node's records of the segment's blocks. Returns the number of bytes, and the first invalid signature.
    fn take(
        &mut self,
        reader: &PointReader<'_>,
        channel: &str,
        opened: &OpenSegment,
        validation: Option<&Validation<'_>>,
    ) -> Result<(u64, Option<Finding>), EngineError> {
        let mut finding = None;
        let before = self.bytes;
        for span in &opened.spans {
            if span.number < self.next {
                continue;
            }
            if self.open.is_none() && !self.open_next(reader, channel)? {
                break;
            }
            let Some(part) = self.open.as_mut() else { break };
            let wrong = |problem: &str| broken(channel, format!("{} block {}: {problem}", self.label, span.number));
            if span.number != self.next {
                return Err(wrong("a block before it is missing"));
            }
            let rest = &part.metadata[part.at..];
            let metadata = metadata_prefix(rest)
                .and_then(|range| rest.get(range))
                .ok_or_else(|| wrong("its metadata is truncated"))?;
            if let Some(validation) = validation.filter(|_| finding.is_none()) {
                let slots = Slots::new(metadata);
                match validation.check(&opened.bytes, span, slots, self.peer) {
                    Ok(checked) => self.unchecked += u64::from(!checked),
                    Err(error) => {
                        finding = Some(Finding::error(
                            Rule::BlockSigned,
                            format!("{} {channel}", self.label),
                            format!("block {}: {error}", span.number),
                            "take the node's chain from another node or an earlier recovery point",
                        ));
                    }
                }
            }
            write_record(&opened.bytes[span.canonical.clone()], metadata, &mut self.buffer);
            part.at += metadata.len();
            part.left -= 1;
            self.next += 1;
            if part.left == 0 {
                self.flush()?;
                self.close(channel)?;
            } else if self.buffer.len() >= WRITE_BYTES {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok((self.bytes - before, finding))
    }

    fn open_next(&mut self, reader: &PointReader<'_>, channel: &str) -> Result<bool, EngineError> {
        let Some((file, part, last_of_file)) = self.parts.pop_front() else {
            self.next = u64::MAX;
            return Ok(false);
        };
        let wrong = |problem: &str| broken(channel, format!("{}: {problem}", self.label));
        let Content::Blocks { channel: of, first, count, metadata, hash } = part.content else {
            return Err(wrong("a block file has a part that does not contain blocks"));
        };
        if of != channel || first != self.next || count == 0 {
            return Err(wrong("the parts of its block files do not follow each other"));
        }
        self.open = Some(OpenPart {
            file,
            last_of_file,
            offset: part.offset,
            end: part.offset.saturating_add(part.len),
            left: count,
            metadata: reader.blob(&metadata)?,
            at: 0,
            hash: reader.names().hasher(),
            expected: hash,
        });
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        if let Some(part) = self.open.as_mut().filter(|_| !self.buffer.is_empty()) {
            part.hash.update(&self.buffer);
            self.sink.write(part.file, part.offset, &self.buffer)?;
            part.offset += self.buffer.len() as u64;
            self.bytes += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }

    fn close(&mut self, channel: &str) -> Result<(), EngineError> {
        let Some(part) = self.open.take() else { return Ok(()) };
        if part.offset != part.end || part.at != part.metadata.len() || part.hash.finish() != part.expected {
            let problem =
                format!("{}: the blocks before {} do not make up the bytes that were captured", self.label, self.next);
            return Err(broken(channel, problem));
        }
        if part.last_of_file {
            self.sink.finish(part.file)?;
        }
        if let Some((_, Part { content: Content::Blocks { first, .. }, .. }, _)) = self.parts.front()
            && !self.whole
            && *first > self.next
        {
            // The files in between are not asked for.
            self.next = *first;
        }
        Ok(())
    }
}

/// A channel's blocks by number, for raft logs: segments are opened as they are needed, the last ones kept.
pub(crate) struct Blocks<'a> {
    reader: &'a PointReader<'a>,
    channel: &'a Channel,
    open: Mutex<VecDeque<Arc<OpenSegment>>>,
}

impl<'a> Blocks<'a> {
    pub fn new(reader: &'a PointReader<'a>, channel: &'a Channel) -> Self {
        Blocks { reader, channel, open: Mutex::default() }
    }

    /// Returns a block's canonical record; `None` when the channel does not hold it.
    ///
    /// # Errors
    /// [`EngineError`] when its segment is missing or damaged.
    pub fn record(&self, number: u64) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(opened) = self.segment_of(number)? else { return Ok(None) };
        let position = usize::try_from(number - opened.segment.first).unwrap_or(usize::MAX);
        Ok(opened.spans.get(position).map(|span| opened.bytes[span.canonical.clone()].to_vec()))
    }

    fn segment_of(&self, number: u64) -> Result<Option<Arc<OpenSegment>>, EngineError> {
        let mut open = self.open.lock();
        let holds = |segment: &Segment| segment.first <= number && number < segment.end();
        if let Some(known) = open.iter().find(|opened| holds(&opened.segment)) {
            return Ok(Some(Arc::clone(known)));
        }
        let at = self.channel.segments.partition_point(|segment| segment.end() <= number);
        let Some(segment) = self.channel.segments.get(at).filter(|segment| holds(segment)) else { return Ok(None) };
        let opened = Arc::new(open_segment(self.reader, &self.channel.name, segment)?);
        open.push_back(Arc::clone(&opened));
        if open.len() > 2 {
            open.pop_front();
        }
        Ok(Some(opened))
    }
}
