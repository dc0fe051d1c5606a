//! Consensus state as derived data: if all consenters of a channel are restored together, their chains end at one height, and their
//! consensus state is created from the last block instead of being copied.

use fabkeep_ledger::block_file::{file_number, metadata_at};
use fabkeep_ledger::layout::Kind;
use fabkeep_ledger::raft::{FIRST_LOG_FILE, NoState, RaftState, SEGMENT_BYTES};
use fabkeep_ledger::smartbft;
use fabkeep_network::{Finding, LedgerFacts, NodeFacts, RaftFacts, RaftSnapshotFacts, Remedy, Rule, WalKind};
use fabkeep_store::{BlobId, PointReader, PointWriter};

use super::level::{Levelled, LevelledPart, add_donor_ledger, ledger_of, raft_of, replace, taken};
use crate::EngineError;
use crate::point::{CapturedDirectory, CapturedEntry, Channel, Content, EntryContent, Part as FilePart};
use crate::replay::Blocks;

/// Mode of a log file, as an orderer makes it.
const LOG_MODE: u32 = 0o600;
/// Mode of a snapshot file.
const SNAPSHOT_MODE: u32 = 0o644;

/// What the consenters of a channel are given.
pub(super) struct LevelledState {
    /// Files that are not captured ones, with their names.
    files: Vec<(LevelledPart, String, CapturedEntry)>,
    facts: RaftFacts,
    /// What it is, for a sentence.
    what: String,
}

/// What the consenters of a channel are given: made from the donor's last block; or why it cannot be, as a note.
pub(super) fn made_anew(
    reader: &PointReader<'_>,
    channel: &Channel,
    kind: WalKind,
    donor: usize,
    consenters: &[usize],
    nodes: &[Levelled<'_>],
) -> Result<Result<LevelledState, Finding>, EngineError> {
    let node = &nodes[donor];
    let source = Source { reader, channel, facts: node.facts, directories: node.directories };
    match kind {
        WalKind::Raft => {
            let facts = consenters.iter().map(|&position| &*nodes[position].facts);
            Ok(source.raft(highest_term(&channel.name, facts))?.map_err(|why| {
                Finding::note(
                    Rule::OrderersLevel,
                    &channel.name,
                    format!("its raft state is restored as it was captured, because it cannot be derived from its last block: {why}"),
                    "no action is needed: the recovery point contains the captured logs",
                )
            }))
        }
        WalKind::SmartBft => source.smartbft().map(Ok),
    }
}

/// Where a channel's state comes from.
struct Source<'a> {
    reader: &'a PointReader<'a>,
    channel: &'a Channel,
    facts: &'a NodeFacts,
    directories: &'a [CapturedDirectory],
}

impl Source<'_> {
    /// Raft's state behind the donor's last block, in a term; or why the block does not tell it.
    fn raft(&self, term: u64) -> Result<Result<LevelledState, NoState>, EngineError> {
        let ledger = self.ledger()?;
        let (record, modified_ns) = self.last_block(&ledger)?;
        let state = match RaftState::of_block(&record, term) {
            Ok(state) => state,
            Err(why) => return Ok(Err(why)),
        };
        if hex::encode(state.hash) != ledger.tip_hash {
            return Err(self.wrong("the block files end with another block than was recorded"));
        }
        let log = self.file(&state.log(), Some(SEGMENT_BYTES), LOG_MODE, modified_ns)?;
        let snapshot = self.file(&state.snapshot(), None, SNAPSHOT_MODE, modified_ns)?;
        let files = vec![
            (LevelledPart::Log, FIRST_LOG_FILE.to_owned(), log),
            (LevelledPart::Snapshot, state.snapshot_file(), snapshot),
        ];
        let facts = RaftFacts {
            commit: state.index,
            term: Some(term),
            snapshot: Some(RaftSnapshotFacts {
                term,
                index: state.index,
                block: Some(state.number),
                block_hash: Some(ledger.tip_hash.clone()),
            }),
            noted_snapshot: Some(state.index),
            ..self.no_entries(WalKind::Raft)
        };
        let what = format!("raft state created from block {} (raft index {}, term {term})", state.number, state.index);
        Ok(Ok(LevelledState { files, facts, what }))
    }

    /// A SmartBFT log that nothing was written to yet.
    fn smartbft(&self) -> Result<LevelledState, EngineError> {
        let ledger = self.ledger()?;
        let (_, modified_ns) = self.last_block(&ledger)?;
        let (name, bytes) = smartbft::empty_log();
        let files = vec![(LevelledPart::Log, name.to_owned(), self.file(&bytes, None, LOG_MODE, modified_ns)?)];
        Ok(LevelledState { files, facts: self.no_entries(WalKind::SmartBft), what: "an empty SmartBFT log".to_owned() })
    }

    fn wrong(&self, problem: &str) -> EngineError {
        EngineError::Point { point: format!("{} {}", self.facts.id, self.channel.name), problem: problem.to_owned() }
    }

    fn ledger(&self) -> Result<LedgerFacts, EngineError> {
        ledger_of(self.facts, &self.channel.name).ok_or_else(|| self.wrong("it has no chain of the channel"))
    }

    /// Of one log file without entries.
    fn no_entries(&self, kind: WalKind) -> RaftFacts {
        RaftFacts { files: 1, ..RaftFacts::new(&self.channel.name, kind) }
    }

    /// The donor's last block as its block file holds it, and when that file was written.
    fn last_block(&self, ledger: &LedgerFacts) -> Result<(Vec<u8>, i128), EngineError> {
        let of_channel = |captured: &CapturedDirectory, entry: &CapturedEntry| {
            captured.directory.classify(&entry.path, false).kind == Kind::BlockFile(self.channel.name.clone())
        };
        let files = self.directories.iter().flat_map(|captured| {
            captured.entries.iter().filter(|entry| of_channel(captured, entry)).filter_map(|entry| {
                let number = file_number(entry.path.rsplit('/').next().unwrap_or(&entry.path))?;
                let EntryContent::File { parts, .. } = &entry.content else { return None };
                Some((number, parts.last()?, entry.modified_ns))
            })
        });
        let last = files.max_by_key(|(number, ..)| *number);
        let (_, part, modified_ns) = last.ok_or_else(|| self.wrong("it has no block file of the channel"))?;
        let Content::Blocks { first, count, metadata, .. } = &part.content else {
            return Err(self.wrong("a block file ends with a part that contains no block"));
        };
        let number = first.saturating_add(*count).wrapping_sub(1);
        if *count == 0 || number.wrapping_add(1) != ledger.height {
            return Err(self.wrong("the block files end with another block than was recorded"));
        }
        let blocks = Blocks::new(self.reader, self.channel);
        let mut record = blocks.record(number)?.ok_or_else(|| self.wrong("the last block is missing"))?;
        let metadata = self.reader.blob(metadata)?;
        let own = metadata_at(&metadata, count - 1);
        record.extend_from_slice(own.ok_or_else(|| self.wrong("the metadata of a block is truncated"))?);
        Ok((record, modified_ns))
    }

    /// A file of made bytes. Behind them it is zeros up to its size.
    fn file(
        &self,
        bytes: &[u8],
        size: Option<u64>,
        mode: u32,
        modified_ns: i128,
    ) -> Result<CapturedEntry, EngineError> {
        let (blob, len) = (self.reader.add(bytes)?, bytes.len() as u64);
        Ok(file(blob, len, size.unwrap_or(len), mode, modified_ns))
    }
}

/// A file that begins with a blob's bytes, and whose place and owner are not known yet.
fn file(blob: BlobId, len: u64, size: u64, mode: u32, modified_ns: i128) -> CapturedEntry {
    let parts = vec![FilePart { offset: 0, len, content: Content::Raw { blob } }];
    CapturedEntry {
        path: String::new(),
        mode,
        uid: 0,
        gid: 0,
        modified_ns,
        content: EntryContent::File { size, parts },
    }
}

/// Gives SmartBFT's orderers of a channel empty logs: what theirs propose lies behind the height that their chains were cut at. A note that
/// says so, where there is one.
pub(crate) fn empty_smartbft_logs(
    channel: &str,
    nodes: &mut [Levelled<'_>],
    writer: &PointWriter<'_>,
) -> Result<Option<Finding>, EngineError> {
    let (name, bytes) = smartbft::empty_log();
    let mut names = Vec::new();
    for node in nodes {
        let Some(raft) = raft_of(node.facts, channel).filter(|raft| raft.kind == WalKind::SmartBft) else { continue };
        let own = taken(node.directories, channel).into_iter().filter(|(part, ..)| *part == LevelledPart::Log);
        let facts = RaftFacts { files: 1, ..RaftFacts::new(channel, raft.kind) };
        let Some(modified_ns) = own.map(|(.., entry)| entry.modified_ns).max() else {
            // It is not stored, and is not missed at the height of the cut either.
            node.facts.raft.retain(|known| known.channel != channel);
            node.facts.raft.push(facts);
            continue;
        };
        let len = bytes.len() as u64;
        let empty = file(writer.put(&bytes)?, len, len, LOG_MODE, modified_ns);
        // A node that has a log has a place for it.
        if replace(node, channel, &[LevelledPart::Log], &[(LevelledPart::Log, name.to_owned(), empty)]).is_ok() {
            node.facts.raft.retain(|known| known.channel != channel);
            node.facts.raft.push(facts);
            names.push(node.facts.id.to_string());
        }
    }
    Ok((!names.is_empty()).then(|| {
        Finding::note(
            Rule::OrderersLevel,
            channel,
            format!(
                "{} are captured with an empty SmartBFT log: theirs are of later blocks than the cut",
                names.join(" and ")
            ),
            "nothing: orderers whose chains end at one height begin anew from there",
        )
    }))
}

/// The term that a channel's raft goes on in: the highest that any of its consenters was captured in.
fn highest_term<'a>(channel: &str, consenters: impl Iterator<Item = &'a NodeFacts>) -> u64 {
    let of = |facts: &NodeFacts| {
        let raft = raft_of(facts, channel)?;
        raft.term.max(raft.snapshot.map(|snapshot| snapshot.term))
    };
    consenters.filter_map(of).max().unwrap_or(0).max(1)
}

/// Gives a channel's state to all of its consenters, and the donor's chain to those whose own ends at another height; a note that says
/// so, or what forbids it.
pub(super) fn give(
    channel: &str,
    donor: usize,
    consenters: &[usize],
    given: LevelledState,
    nodes: &mut [Levelled<'_>],
) -> Vec<Finding> {
    let ledger = ledger_of(nodes[donor].facts, channel);
    let chain = taken(nodes[donor].directories, channel).into_iter().filter(|(part, ..)| *part == LevelledPart::Chain);
    let with_chain: Vec<_> = chain.chain(given.files.iter().cloned()).collect();
    let donor_id = nodes[donor].facts.id.clone();
    let tip = |ledger: &Option<LedgerFacts>| ledger.as_ref().map(|ledger| ledger.tip_hash.clone());
    let (mut findings, mut names, mut levelled) = (Vec::new(), Vec::new(), Vec::new());
    for &position in consenters {
        let node = &mut nodes[position];
        let is_level = tip(&ledger_of(node.facts, channel)) == tip(&ledger);
        let (parts, files): (&[LevelledPart], _) = if is_level {
            (&[LevelledPart::Log, LevelledPart::Snapshot], &given.files)
        } else {
            (&[LevelledPart::Chain, LevelledPart::Log, LevelledPart::Snapshot], &with_chain)
        };
        if let Err(part) = replace(node, channel, parts, files) {
            findings.push(super::level::no_place(&node.facts.id, channel, &donor_id, part));
            continue;
        }
        if !is_level {
            add_donor_ledger(node.facts, channel, ledger.as_ref());
            levelled.push(node.facts.id.to_string());
        }
        node.facts.raft.retain(|known| known.channel != channel);
        node.facts.raft.push(given.facts.clone());
        names.push(node.facts.id.to_string());
    }
    let height = ledger.map_or(0, |ledger| ledger.height);
    let chains = if levelled.is_empty() {
        String::new()
    } else {
        format!("; {} get the chain of {donor_id}, which has height {height}", levelled.join(" and "))
    };
    findings.push(Finding::note(
        Rule::OrderersLevel,
        channel,
        format!("all of its consenters ({}) continue with {}{chains}", names.join(", "), given.what),
        Remedy::from("no action is needed: they are restored together, at one height").or(Remedy::CapturedRaftState),
    ));
    findings
}
