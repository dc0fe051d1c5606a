//! The position in one node's chain while it is read: its blocks of the current window, and the parts that are made from them.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::Hash;
use fabkeep_ledger::block::{BlockSpan, SLOT_COMMIT_HASH, SLOT_TRANSACTIONS_FILTER};
use fabkeep_ledger::block_file::{
    BOOTSTRAPPING_SNAPSHOT, Batch, BlockFileError, BootstrappingSnapshot, ChainReader, StartAt, check_sequence,
    file_name,
};
use fabkeep_ledger::block_signature::orderer_metadata;
use fabkeep_ledger::chain::{ChainError, Tip, check_blocks, place};
use fabkeep_ledger::channel_config::ChannelConfig;
use fabkeep_ledger::raft::RaftState;
use fabkeep_network::{Finding, LedgerFacts, OrLeaveOut, Rule};
use fabkeep_platform::Stamp;
use fabkeep_store::{BlobHasher, PointWriter, StoreError};
use serde::{Deserialize, Serialize};

use super::databases::Heights;
use super::source_name;
use super::survey::{ChainFiles, Survey};
use crate::point::{Content, Part};
use crate::validation::Validation;

/// Bytes of a block file after which a part ends.
const PART_BYTES: u64 = 16 << 20;
const TAKE_FROM_ANOTHER: OrLeaveOut =
    OrLeaveOut("restore this node's chain from another node or an earlier recovery point");

/// What the index keeps of a chain on a node: where to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChainState {
    first_block: u64,
    height: u64,
    tip_hash: String,
    commit_hash: Option<String>,
    raft_index: Option<u64>,
    /// Whether that is the raft index of an earlier block's entry.
    #[serde(default)]
    inherits_index: bool,
    /// Where the next record begins.
    file: u32,
    offset: u64,
    /// Parts so far, by block file.
    parts: Vec<(u32, Vec<Part>)>,
    /// The last configuration block: number, file, offset.
    config: Option<(u64, u32, u64)>,
    /// What the block files were, by number: those of another stamp are read again.
    #[serde(default)]
    stamps: Vec<(u32, FileStamp)>,
    /// Where the last block's record begins: file, offset.
    #[serde(default)]
    last: Option<(u32, u64)>,
    /// Blocks whose signatures could not be checked, as no configuration was known.
    #[serde(default)]
    unchecked: u64,
    /// Whether the files are exactly as the earlier capture read them.
    #[serde(skip)]
    untouched: bool,
}

/// Data that distinguishes a block file from another one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
    inode: u64,
}

impl From<&Stamp> for FileStamp {
    fn from(stamp: &Stamp) -> Self {
        FileStamp { size: stamp.size, modified_ns: stamp.modified_ns, changed_ns: stamp.changed_ns, inode: stamp.inode }
    }
}

impl FileStamp {
    /// Returns whether the times show every change: a file system that counts whole seconds hides a second change in the same second.
    fn is_exact(&self) -> bool {
        self.changed_ns != 0 && self.changed_ns % 1_000_000_000 != 0
    }
}

/// A chain of one node.
pub(crate) struct Member<'a> {
    pub node: usize,
    pub directory: usize,
    pub label: String,
    pub peer: bool,
    pub survey: &'a Survey,
    pub files: ChainFiles,
    pub resume: Option<ChainState>,
    /// The height at which the chain is cut.
    pub limit: Option<u64>,
}

impl Member<'_> {
    /// Ends the chain at a height. What an earlier capture read beyond it cannot be gone on from.
    pub fn cut(&mut self, limit: Option<u64>) {
        self.limit = limit;
        if let Some(limit) = limit {
            self.resume = self.resume.take().filter(|state| state.height <= limit);
        }
    }

    /// Number of the last block that belongs to the capture, at most.
    fn last(&self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(1))
    }

    fn open(&self, number: u32, offset: u64) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        let directory = &self.survey.nodes[self.node].directories[self.directory];
        let path = format!("{}/{}", self.files.path, file_name(number));
        let end = self.files.files.iter().find(|file| file.number == number).map_or(offset, |file| file.len);
        directory.volume.open(&path, offset..end)
    }

    fn read_small(&self, name: &str) -> Option<Vec<u8>> {
        use std::io::Read;
        let directory = &self.survey.nodes[self.node].directories[self.directory];
        let mut bytes = Vec::new();
        let path = format!("{}/{name}", self.files.path);
        let size = directory.entries.iter().find(|(entry, _)| entry.path == path)?.0.stamp.size;
        let file = directory.volume.open(&path, 0..size).ok()?;
        file.take(1 << 16).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    pub fn finding(&self, channel: &str, error: &ChainError) -> Finding {
        let what = match error.block() {
            Some(_) => error.to_string(),
            None => format!("its chain cannot be read: {error}"),
        };
        Finding::error(Rule::HashChain, format!("{} {channel}", self.label), what, TAKE_FROM_ANOTHER)
    }
}

/// A member while it is walked.
pub(crate) struct Cursor<'a> {
    pub member: &'a Member<'a>,
    reader: ChainReader<'a>,
    /// Number of the next block.
    pub next: u64,
    pub first_block: u64,
    pub tip: Option<Tip>,
    pub parts: BTreeMap<u32, Vec<Part>>,
    open_part: Option<OpenPart>,
    commit_hash: Option<String>,
    /// Raft index of the last block's entry.
    pub raft_index: Option<u64>,
    /// Whether that is the raft index of an earlier block's entry: a configuration block that changes the consenters has the index of the
    /// block before it (`writeConfigBlock` of etcdraft).
    pub inherits_index: bool,
    /// The last configuration block: number, file, offset.
    pub config: Option<(u64, u32, u64)>,
    /// Where the last block's record begins: file, offset.
    pub last: Option<(u32, u64)>,
    /// Blocks whose signatures could not be checked, as no configuration was known.
    unchecked: u64,
    /// The current window's blocks, and their header hashes.
    pub window: Vec<Batch>,
    pub hashes: Vec<Hash>,
    pub problem: Option<Finding>,
    done: bool,
    pub read_bytes: u64,
}

struct OpenPart {
    file: u32,
    offset: u64,
    len: u64,
    first: u64,
    count: u64,
    metadata: Vec<u8>,
    hash: BlobHasher,
}

/// Returns the state of an earlier capture, if the files can still be those that it read. It is a hint: whoever goes on from it reads the
/// last block again, unless nothing was touched.
pub(crate) fn load_state(writer: &PointWriter<'_>, label: &str, files: &ChainFiles) -> Option<ChainState> {
    let name = source_name(writer, &["chain", label, &files.path]);
    let mut state: ChainState = serde_json::from_value(writer.source(&name)?.clone()).ok()?;
    for (number, parts) in &state.parts {
        let covered = parts.last().map_or(0, |part| part.offset + part.len);
        let extent = files.files.iter().find(|file| file.number == *number)?;
        // Closed files keep their size; the last one only grows.
        let fits = if *number < state.file { extent.len == covered } else { extent.len >= covered };
        let kept = parts.iter().all(|part| writer.keep(part.content.blob()));
        if !fits || !kept {
            return None;
        }
    }
    let mut untouched = files.stamps.len() == state.stamps.len();
    for (number, stamp) in &state.stamps {
        let now = FileStamp::from(files.stamps.get(number)?);
        // A file that was put in the place of another one, a closed one that was written to, and the last one, where it was written to and did
        // not grow, are read again.
        let written = now.size == stamp.size && now.modified_ns != stamp.modified_ns;
        if now.inode != stamp.inode || written || (*number < state.file && now != *stamp) {
            return None;
        }
        untouched &= now == *stamp && now.is_exact();
    }
    if state.stamps.is_empty() {
        return None;
    }
    state.untouched = untouched;
    Some(state)
}

/// Returns the height of a chain as it was listed: counted from where an earlier capture stopped. `None` when it holds no block.
pub(crate) fn height_of(member: &Member<'_>) -> Result<Option<u64>, BlockFileError> {
    let mut cursor = start(member, true)?;
    let mut height = cursor.tip.map(|tip| tip.height);
    while let Some(batch) = cursor.reader.next_batch(1 << 20, u64::MAX)? {
        height = batch.blocks.last().map(|span| span.number.saturating_add(1)).or(height);
    }
    Ok(height)
}

/// Opens a member where an earlier capture stopped, if it may be resumed and its last block is still there, else at its beginning.
pub(crate) fn start<'a>(member: &'a Member<'a>, resume: bool) -> Result<Cursor<'a>, BlockFileError> {
    check_sequence(&member.files.files)?;
    if resume && let Some(cursor) = member.resume.as_ref().and_then(|state| resumed(member, state)) {
        return Ok(cursor);
    }
    let snapshot = member
        .files
        .joined_by_snapshot
        .then(|| member.read_small(BOOTSTRAPPING_SNAPSHOT))
        .flatten()
        .and_then(|bytes| BootstrappingSnapshot::parse(&bytes));
    let (first, tip) = match &snapshot {
        Some(snapshot) => {
            let number = snapshot.last_block.saturating_add(1);
            let header_hash = snapshot.last_block_hash.as_slice().try_into().unwrap_or([0; 32]);
            (number, Some(Tip { height: number, header_hash }))
        }
        None => (0, None),
    };
    let at = StartAt { number: Some(first), ..StartAt::default() };
    Ok(Cursor {
        member,
        reader: reader(member, at),
        next: first,
        first_block: first,
        tip,
        parts: BTreeMap::new(),
        open_part: None,
        commit_hash: None,
        raft_index: None,
        inherits_index: false,
        config: None,
        last: None,
        unchecked: 0,
        window: Vec::new(),
        hashes: Vec::new(),
        problem: None,
        done: false,
        read_bytes: 0,
    })
}

fn reader<'a>(member: &'a Member<'a>, at: StartAt) -> ChainReader<'a> {
    let open = Box::new(|number, offset| member.open(number, offset));
    ChainReader::new(member.files.files.clone(), at, open)
}

/// Returns a cursor after the last block of an earlier capture; `None` if another block, or no block, is there.
fn resumed<'a>(member: &'a Member<'a>, state: &ChainState) -> Option<Cursor<'a>> {
    let mut header_hash = [0; 32];
    hex::decode_to_slice(&state.tip_hash, &mut header_hash).ok()?;
    let at = StartAt { file: state.file, offset: state.offset, number: Some(state.height) };
    let reader = if state.untouched {
        reader(member, at)
    } else {
        let (file, offset) = state.last?;
        let last = state.height.checked_sub(1)?;
        let mut reader = reader(member, StartAt { file, offset, number: Some(last) });
        let batch = reader.next_batch(1, last).ok()??;
        let block = batch.blocks.first().filter(|block| block.number == last)?;
        if batch.blocks.len() != 1 || block.header_hash(&batch.buffer) != header_hash {
            return None;
        }
        // Where the next record begins must be where it began.
        (reader.position() == (state.file, state.offset)).then_some(reader)?
    };
    Some(Cursor {
        member,
        reader,
        next: state.height,
        first_block: state.first_block,
        tip: Some(Tip { height: state.height, header_hash }),
        parts: state.parts.iter().cloned().collect(),
        open_part: None,
        commit_hash: state.commit_hash.clone(),
        raft_index: state.raft_index,
        inherits_index: state.inherits_index,
        config: state.config,
        last: state.last,
        unchecked: state.unchecked,
        window: Vec::new(),
        hashes: Vec::new(),
        problem: None,
        done: false,
        read_bytes: 0,
    })
}

impl Cursor<'_> {
    pub fn is_active(&self) -> bool {
        !self.done && self.problem.is_none() && self.member.limit.is_none_or(|limit| self.next < limit)
    }

    /// Returns the blocks of the window, each with its buffer.
    pub fn blocks(&self) -> impl Iterator<Item = (&Batch, &BlockSpan)> {
        self.window.iter().flat_map(|batch| batch.blocks.iter().map(move |span| (batch, span)))
    }

    fn fail(&mut self, channel: &str, error: &ChainError) {
        self.problem = Some(self.member.finding(channel, error));
    }

    /// Reads this node's share of a new window; the number of its last block. `None` at the chain's end.
    pub fn read_leader(&mut self, channel: &str, bytes: usize, limit: u64) -> Option<u64> {
        match self.reader.next_batch(bytes, limit.min(self.member.last())) {
            Ok(Some(batch)) => {
                let end = batch.blocks.last().map(|span| span.number);
                self.window.push(batch);
                end
            }
            Ok(None) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.fail(channel, &error.into());
                None
            }
        }
    }

    /// Reads on to the window's last block, as far as this node has it.
    pub fn read_until(&mut self, channel: &str, end: u64) {
        let end = end.min(self.member.last());
        let has_end = |batch: &Batch| batch.blocks.last().is_some_and(|span| span.number >= end);
        while !self.window.last().is_some_and(has_end) {
            match self.reader.next_batch(1 << 20, end) {
                Ok(Some(batch)) => self.window.push(batch),
                Ok(None) => {
                    self.done = self.window.is_empty();
                    return;
                }
                Err(error) => return self.fail(channel, &error.into()),
            }
        }
    }

    /// Checks the window: data hashes, and the links from the block before it to its end.
    pub fn check(&mut self, channel: &str) {
        let mut tip = self.tip;
        let mut hashes = Vec::new();
        for batch in &self.window {
            let place = place(batch);
            let checked = check_blocks(&batch.buffer, &batch.blocks, &place).and_then(|checked| {
                tip = Tip::link(tip, &checked, &place)?;
                Ok(checked)
            });
            match checked {
                Ok(checked) => hashes.extend(checked.header_hashes),
                Err(error) => return self.fail(channel, &error),
            }
        }
        self.hashes = hashes;
    }

    /// Checks the orderers' signatures on the window's blocks; the first invalid one becomes the node's problem.
    pub fn check_signatures(&mut self, channel: &str, validation: &Validation<'_>) {
        let mut unchecked = 0;
        let problem = self.blocks().find_map(|(batch, span)| {
            let slots = span.slots(&batch.buffer);
            let error = match validation.check(&batch.buffer, span, slots, self.member.peer) {
                Ok(checked) => {
                    unchecked += u64::from(!checked);
                    return None;
                }
                Err(error) => error,
            };
            Some(Finding::error(
                Rule::BlockSigned,
                format!("{} {channel}", self.member.label),
                format!("block {} ({}): {error}", span.number, place(batch)),
                TAKE_FROM_ANOTHER,
            ))
        });
        self.problem = problem;
        self.unchecked += unchecked;
    }

    /// Remembers where the window's last configuration block lies.
    pub fn note_config(&mut self, changes: &BTreeMap<u64, ChannelConfig>) {
        let last = changes.keys().rev().find_map(|&number| Some((number, self.place_of(number)?)));
        if let Some((number, (file, offset))) = last {
            self.config = Some((number, file, offset));
        }
    }

    /// Adds the window to the node's parts: metadata, and the hash of the bytes as they are in the file.
    pub fn keep_metadata(&mut self, writer: &PointWriter<'_>) -> Result<(), StoreError> {
        for batch in std::mem::take(&mut self.window) {
            let continues = self.open_part.as_ref().is_some_and(|part| {
                part.file == batch.file && part.offset + part.len == batch.offset && part.len < PART_BYTES
            });
            if !continues {
                self.close_part(writer)?;
            }
            let part = self.open_part.get_or_insert_with(|| OpenPart {
                file: batch.file,
                offset: batch.offset,
                len: 0,
                first: batch.blocks.first().map_or(0, |span| span.number),
                count: 0,
                metadata: Vec::new(),
                hash: writer.names().hasher(),
            });
            part.hash.update(batch.bytes());
            part.len += batch.len;
            part.count += batch.blocks.len() as u64;
            for span in &batch.blocks {
                part.metadata.extend_from_slice(&batch.buffer[span.metadata.clone()]);
            }
            let start = batch.blocks.len().checked_sub(2).map_or(0, |before| batch.blocks[before].metadata.end);
            self.last = Some((batch.file, batch.offset + start as u64));
            if let Some(last) = batch.blocks.last() {
                let index_of = |span: &BlockSpan| orderer_metadata(span.slots(&batch.buffer)).raft_index;
                let slots = last.slots(&batch.buffer);
                let before =
                    batch.blocks.len().checked_sub(2).map_or(self.raft_index, |at| index_of(&batch.blocks[at]));
                self.raft_index = index_of(last);
                self.inherits_index = self.raft_index.is_some() && self.raft_index <= before;
                self.commit_hash = slots.commit_hash().map(hex::encode);
            }
            self.read_bytes += batch.len;
        }
        Ok(())
    }

    /// Puts what was collected of the open part into the repository.
    pub fn close_part(&mut self, writer: &PointWriter<'_>) -> Result<(), StoreError> {
        let Some(part) = self.open_part.take() else { return Ok(()) };
        let metadata = writer.put(&part.metadata)?;
        let content = Content::Blocks {
            channel: self.member.files.channel.clone(),
            first: part.first,
            count: part.count,
            metadata,
            hash: part.hash.finish(),
        };
        self.parts.entry(part.file).or_default().push(Part { offset: part.offset, len: part.len, content });
        Ok(())
    }

    /// Moves after the window.
    pub fn advance(&mut self) {
        if let Some(last) = self.hashes.last() {
            self.next += self.hashes.len() as u64;
            self.tip = Some(Tip { height: self.next, header_hash: *last });
        }
        self.hashes.clear();
    }

    /// Returns where in the node's files the record of a block of the window begins: file and offset.
    fn place_of(&self, number: u64) -> Option<(u32, u64)> {
        self.window.iter().find_map(|batch| {
            let index = batch.blocks.iter().position(|span| span.number == number)?;
            let start = index.checked_sub(1).map_or(0, |before| batch.blocks[before].metadata.end);
            Some((batch.file, batch.offset + start as u64))
        })
    }

    /// Returns the last configuration block, read again from the node's own files.
    pub fn read_config(&self) -> Option<(u64, ChannelConfig)> {
        let (number, file, offset) = self.config?;
        let batch = self.reader_of(file, offset, number).next_batch(1, number).ok()??;
        let envelope = batch.blocks.first()?.envelopes(&batch.buffer).next()?;
        Some((number, ChannelConfig::from_envelope(envelope).ok()??))
    }

    /// Why a raft orderer's state cannot be created from the chain's last block, read again from the node's own files; `None` if it can.
    pub fn no_raft_state(&self) -> Option<String> {
        let (file, offset) = self.last?;
        let number = self.next.checked_sub(1)?;
        let read = self.reader_of(file, offset, number).next_batch(1, number);
        let batch = match read {
            Ok(batch) => batch?,
            Err(error) => return Some(error.to_string()),
        };
        let span = batch.blocks.first()?;
        let record = &batch.buffer[span.canonical.start..span.metadata.end];
        RaftState::of_block(record, 1).err().map(|why| format!("block {number}: {why}"))
    }

    /// A reader of one block file, from the record of a block on.
    fn reader_of(&self, file: u32, offset: u64, number: u64) -> ChainReader<'_> {
        let files: Vec<_> = self.member.files.files.iter().filter(|extent| extent.number == file).copied().collect();
        let at = StartAt { file, offset, number: Some(number) };
        ChainReader::new(files, at, Box::new(|number, offset| self.member.open(number, offset)))
    }

    /// Reads blocks again that an earlier capture read, as far as this node has them.
    pub fn read_again(
        &mut self,
        wanted: &BTreeSet<u64>,
        on_block: &mut dyn FnMut(&Batch, &BlockSpan),
    ) -> Result<(), ChainError> {
        let mut read_bytes = 0;
        for (&file, parts) in &self.parts {
            for part in parts {
                let Content::Blocks { first, count, .. } = part.content else { continue };
                let Some(&last) = wanted.range(first..first.saturating_add(count)).next_back() else { continue };
                let mut reader = self.reader_of(file, part.offset, first);
                while let Some(batch) = reader.next_batch(1 << 20, last)? {
                    check_blocks(&batch.buffer, &batch.blocks, &place(&batch))?;
                    read_bytes += batch.len;
                    let spans = batch.blocks.iter().filter(|span| wanted.contains(&span.number));
                    spans.for_each(|span| on_block(&batch, span));
                }
            }
        }
        self.read_bytes += read_bytes;
        Ok(())
    }

    /// What the rules judge of this chain.
    pub fn facts(&self, channel: &str, heights: &Heights) -> LedgerFacts {
        LedgerFacts {
            channel: channel.to_owned(),
            first_block: self.first_block,
            height: self.next,
            tip_hash: self.tip.map(|tip| hex::encode(tip.header_hash)).unwrap_or_default(),
            commit_hash: self.commit_hash.clone(),
            torn_bytes: self.reader.torn_tail().map_or(0, |torn| torn.len),
            index_height: heights.index,
            state_height: heights.state,
            history_height: heights.history,
            private_height: heights.private,
            raft_index: self.raft_index,
            missing_private: heights.missing_private.clone(),
            purged: heights.purged,
            unchecked_signatures: self.unchecked,
        }
    }

    /// Returns the notes for the next capture.
    pub fn state(&self) -> ChainState {
        let (file, offset) = self.reader.position();
        ChainState {
            first_block: self.first_block,
            height: self.next,
            tip_hash: self.tip.map(|tip| hex::encode(tip.header_hash)).unwrap_or_default(),
            commit_hash: self.commit_hash.clone(),
            raft_index: self.raft_index,
            inherits_index: self.inherits_index,
            file,
            offset,
            parts: self.parts.iter().map(|(file, parts)| (*file, parts.clone())).collect(),
            config: self.config,
            stamps: self.member.files.stamps.iter().map(|(number, stamp)| (*number, stamp.into())).collect(),
            last: self.last,
            unchecked: self.unchecked,
            untouched: false,
        }
    }
}

/// Returns where the validation codes or commit hashes of two peers' windows differ first: number, and which of the two.
pub(crate) fn first_difference(one: &Cursor<'_>, other: &Cursor<'_>) -> Option<(u64, &'static str)> {
    one.blocks().zip(other.blocks()).find_map(|((batch, span), (other_batch, other_span))| {
        let (slots, others) = (span.slots(&batch.buffer), other_span.slots(&other_batch.buffer));
        if slots.get(SLOT_TRANSACTIONS_FILTER) != others.get(SLOT_TRANSACTIONS_FILTER) {
            return Some((span.number, "validation codes (TRANSACTIONS_FILTER)"));
        }
        let (hash, other_hash) = (slots.get(SLOT_COMMIT_HASH), others.get(SLOT_COMMIT_HASH));
        // Absent where the ledger was joined by snapshot or the capability is off.
        let differ = !hash.is_empty() && !other_hash.is_empty() && hash != other_hash;
        differ.then_some((span.number, "commit hashes (COMMIT_HASH)"))
    })
}
