//! etcd's write-ahead log: framed records with a running CRC-32C, in files of 64 MB that are preallocated with zeros.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use prost::Message;

use super::frame::integers;
use super::{MAX_FILE_BYTES, MAX_RECORD_BYTES, RaftError, corrupt};
use crate::proto::raft as proto;
use crate::varint;

const SECTOR_BYTES: usize = 512;
const ENTRY_NORMAL: u64 = 0;
const ENTRY_CONF_CHANGE_V2: u64 = 2;
/// Most noted snapshots of which it is looked at whether the log opens there: an orderer keeps five.
const MAX_OPENED: usize = 100;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// The node's metadata, first in every file.
    Metadata = 1,
    /// A raft entry.
    Entry,
    /// Term, vote and commit index.
    HardState,
    /// The checksum carried over from the file before.
    Crc,
    /// A note that a snapshot exists up to an index.
    Snapshot,
}

/// One record: where it lies and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where its frame starts, in bytes.
    pub start: usize,
    /// Behind its frame and padding.
    pub end: usize,
    /// Its kind.
    pub kind: RecordKind,
    /// Where its data lies; empty when it has none.
    pub data: std::ops::Range<usize>,
    /// The checksum it carries.
    pub crc: u32,
}

/// What stands at a place in a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A record.
    Record(Record),
    /// Zeros, or the end of the file.
    End,
    /// A record that was being written when the node stopped.
    Torn,
}

/// Reads the record at `at`, without checking its checksum.
///
/// # Errors
/// What is wrong, in words.
pub fn next_record(bytes: &[u8], at: usize) -> Result<Next, String> {
    let Some(frame) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
        return if bytes[at.min(bytes.len())..].iter().all(|&byte| byte == 0) { Ok(Next::End) } else { Ok(Next::Torn) };
    };
    let frame = i64::from_le_bytes(*frame);
    if frame == 0 {
        return Ok(Next::End);
    }
    // The low 56 bits are the record's length; a negative frame carries the padding in bits 56 to 58.
    let len = (frame as u64) & 0x00ff_ffff_ffff_ffff;
    let pad = if frame < 0 { ((frame as u64) >> 56) & 0x7 } else { 0 };
    if frame < 0 && ((frame as u64) >> 59) & 0xf != 0 || frame > 0 && (frame as u64) >> 56 != 0 {
        return Err("the frame's upper bits are not a padding length".to_owned());
    }
    if len > MAX_RECORD_BYTES {
        return Err(format!("the record claims {len} bytes; one has at most {MAX_RECORD_BYTES}"));
    }
    if pad != (8 - len % 8) % 8 {
        return Err("the padding does not align the record".to_owned());
    }
    let start = at + 8;
    let end = start + (len + pad) as usize;
    if end > bytes.len() {
        return Ok(Next::Torn);
    }
    let body_end = start + len as usize;
    if bytes[body_end..end].iter().any(|&byte| byte != 0) {
        return Err("the padding is not zero".to_owned());
    }
    match parse_body(bytes, start, body_end) {
        Some((kind, crc, data)) => Ok(Next::Record(Record { start: at, end, kind, data, crc })),
        None if is_torn(&bytes[start..end], start) => Ok(Next::Torn),
        None => Err("the record does not decode".to_owned()),
    }
}

/// Fields in order, as etcd writes them: type, checksum, and data where there is some. Anything else is damage.
fn parse_body(bytes: &[u8], start: usize, end: usize) -> Option<(RecordKind, u32, std::ops::Range<usize>)> {
    let mut at = start;
    let mut field = |tag: u8| -> Option<u64> {
        if bytes.get(at).filter(|_| at < end) != Some(&tag) {
            return None;
        }
        let (value, used) = varint::read(&bytes[at + 1..end])?;
        at += 1 + used;
        Some(value)
    };
    let kind = match field(0x08)? {
        1 => RecordKind::Metadata,
        2 => RecordKind::Entry,
        3 => RecordKind::HardState,
        4 => RecordKind::Crc,
        5 => RecordKind::Snapshot,
        _ => return None,
    };
    let crc = u32::try_from(field(0x10)?).ok()?;
    let data = match field(0x1a) {
        Some(len) => {
            let data_end = at.checked_add(usize::try_from(len).ok()?)?;
            (data_end == end).then_some(at..data_end)?
        }
        None => (at == end).then_some(at..at)?,
    };
    Some((kind, crc, data))
}

/// As etcd decides it: a record whose data has a whole sector of zeros was cut while being written.
fn is_torn(body: &[u8], file_offset: usize) -> bool {
    let mut at = 0;
    while at < body.len() {
        let sector_left = SECTOR_BYTES - (file_offset + at) % SECTOR_BYTES;
        let end = (at + sector_left).min(body.len());
        if body[at..end].iter().all(|&byte| byte == 0) {
            return true;
        }
        at = end;
    }
    false
}

/// One log file, read whole.
#[derive(Debug)]
pub struct Wal {
    /// The file's bytes, up to the trailing zeros that etcd preallocates.
    pub bytes: Vec<u8>,
    /// Its records, checksums checked.
    pub records: Vec<Record>,
    /// Where an incomplete record starts, if there is one, in bytes.
    pub torn: Option<usize>,
}

/// What a directory of log files says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalSummary {
    /// Log files.
    pub files: usize,
    /// Raft index of the first entry from which on none is missing: behind a snapshot that a leader has sent, the next one.
    pub first_index: Option<u64>,
    /// Raft index of the last entry, or of such a snapshot.
    pub last_index: Option<u64>,
    /// The last entry's term.
    pub entry_term: u64,
    /// The last hard state's term.
    pub term: u64,
    /// The last hard state's commit index.
    pub commit: u64,
    /// Snapshots noted: `(term, index)`.
    pub snapshots: Vec<(u64, u64)>,
    /// Those of them from which the log can be opened: etcd chooses the file to begin with by the files' names.
    pub opens_at: Vec<(u64, u64)>,
    /// An incomplete last record: its file and offset in bytes.
    pub torn: Option<(String, u64)>,
}

impl Wal {
    /// Parses a log file's bytes. `crc` is the running checksum, carried from file to file.
    ///
    /// # Errors
    /// [`RaftError::Corrupt`], naming `file`.
    pub fn parse(file: &str, mut bytes: Vec<u8>, crc: &mut Option<u32>) -> Result<Wal, RaftError> {
        let mut records = Vec::new();
        let mut at = 0;
        let torn = loop {
            match next_record(&bytes, at).map_err(|problem| corrupt(file, at as u64, problem))? {
                Next::Record(record) => {
                    let data = &bytes[record.data.clone()];
                    if record.kind == RecordKind::Crc {
                        // A new file begins with the checksum of the one before it.
                        if crc.is_some_and(|crc| crc != record.crc) {
                            return Err(corrupt(file, at as u64, "the file does not continue the one before it"));
                        }
                        *crc = Some(record.crc);
                    } else {
                        let running = crc32c::crc32c_append(crc.unwrap_or(0), data);
                        if running != record.crc {
                            if is_torn(data, record.data.start) {
                                break Some(at);
                            }
                            return Err(corrupt(file, at as u64, "the record's checksum is wrong"));
                        }
                        *crc = Some(running);
                    }
                    at = record.end;
                    records.push(record);
                }
                Next::End => break None,
                Next::Torn => break Some(at),
            }
        };
        if torn.is_none() && bytes[at..].iter().any(|&byte| byte != 0) {
            return Err(corrupt(file, at as u64, "bytes stand behind the end of the log"));
        }
        if torn.is_none() {
            bytes.truncate(at);
        }
        Ok(Wal { bytes, records, torn })
    }
}

/// Reads a file up to the hole that it ends with, if it does: the rest of a preallocated log file reads as zeros.
///
/// # Errors
/// What the system says.
pub fn read_up_to_hole(path: &Path) -> std::io::Result<Vec<u8>> {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(path)?;
    let len = file.metadata()?.len().min(MAX_FILE_BYTES);
    let (mut at, mut used) = (0, 0);
    while at < len {
        let hole = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => seek(&file, SeekFrom::Hole(start))?,
            Err(rustix::io::Errno::NXIO) => break,
            // The file system does not report holes: all of it may be data.
            Err(rustix::io::Errno::INVAL) => len,
            Err(error) => return Err(error.into()),
        };
        (at, used) = (hole, hole.min(len));
    }
    let mut bytes = Vec::with_capacity(used as usize);
    seek(&file, SeekFrom::Start(0))?;
    file.take(used).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The sequence number and first raft index in a log file's name.
pub fn wal_file_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?;
    Some((number(sequence)?, number(index)?))
}

/// Reads and checks every log file of a directory (temporary files are left alone). `on_file` sees each one parsed.
///
/// # Errors
/// [`RaftError`], the first found.
pub fn check_wal_directory(directory: &Path, mut on_file: impl FnMut(&str, &Wal)) -> Result<WalSummary, RaftError> {
    let io = |file: &Path| {
        let file = file.display().to_string();
        move |source| RaftError::Io { file, source }
    };
    let mut files: Vec<(u64, u64, String, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io(directory))? {
        let entry = entry.map_err(io(directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((sequence, index)) = wal_file_name(&name) {
            files.push((sequence, index, name, entry.path()));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(RaftError::Missing("the directory holds no log file (*.wal)".to_owned()));
    }
    let mut summary = WalSummary { files: files.len(), ..WalSummary::default() };
    let mut crc = None;
    let mut metadata: Option<Vec<u8>> = None;
    let mut opened: Vec<OpenedFile> = Vec::new();
    let count = files.len();
    for (position, (sequence, index, name, path)) in files.iter().enumerate() {
        let expected = files[0].0 + position as u64;
        if *sequence != expected {
            return Err(RaftError::Missing(format!("log file {expected:016x}-… is missing, while {name} is there")));
        }
        let bytes = read_up_to_hole(path).map_err(io(path))?;
        let wal = Wal::parse(name, bytes, &mut crc)?;
        if position == 0 && crc.is_none() {
            return Err(corrupt(name, 0, "the log does not begin with a checksum record"));
        }
        let first = wal.records.iter().find(|record| record.kind != RecordKind::Crc);
        if first.is_some_and(|record| record.kind != RecordKind::Metadata) {
            return Err(corrupt(name, 0, "the file does not begin with the node's metadata"));
        }
        let noted = summary.snapshots.len();
        let mut entries = Vec::new();
        for record in &wal.records {
            read_meaning(name, &wal, record, &mut summary, &mut metadata)?;
            if record.kind == RecordKind::Entry {
                entries.extend(summary.last_index);
            }
        }
        opened.push(OpenedFile { from: *index, entries, snapshots: summary.snapshots[noted..].to_vec() });
        if let Some(offset) = wal.torn {
            if position + 1 < count {
                return Err(corrupt(name, offset as u64, "a record is cut, and later log files exist"));
            }
            summary.torn = Some((name.clone(), offset as u64));
        }
        on_file(name, &wal);
    }
    if summary.last_index.is_some_and(|last| summary.commit > last) {
        let problem =
            format!("the hard state commits index {}, the last entry is {:?}", summary.commit, summary.last_index);
        return Err(RaftError::Missing(problem));
    }
    let newest = summary.snapshots.iter().rev().take(MAX_OPENED);
    let mut opens_at: Vec<(u64, u64)> = newest.copied().filter(|snapshot| opens(&opened, *snapshot)).collect();
    opens_at.sort_unstable();
    opens_at.dedup();
    summary.opens_at = opens_at;
    Ok(summary)
}

/// What counts of a log file when etcd opens the log.
struct OpenedFile {
    /// The raft index in its name.
    from: u64,
    /// Raft indices of its entries, in order.
    entries: Vec<u64>,
    /// Snapshots noted in it.
    snapshots: Vec<(u64, u64)>,
}

/// Returns whether etcd opens the log at a snapshot: it begins with the last file whose name does not have a higher index, wants the
/// snapshot's note from there on, and no gap between the entries behind it (`wal.Open`, `ReadAll`).
fn opens(files: &[OpenedFile], (term, index): (u64, u64)) -> bool {
    let Some(first) = files.iter().rposition(|file| file.from <= index) else { return false };
    let read = &files[first..];
    let mut notes = read.iter().flat_map(|file| &file.snapshots).filter(|(_, of)| *of == index).peekable();
    let mut last = index;
    notes.peek().is_some()
        && notes.all(|(of, _)| *of == term)
        && read.iter().flat_map(|file| &file.entries).filter(|entry| **entry > index).all(|entry| {
            let follows = *entry <= last + 1;
            last = *entry;
            follows
        })
}

/// A hard state as etcd writes it: all three fields, also where they are zero.
pub fn hard_state_bytes(state: &proto::HardState) -> Vec<u8> {
    let mut out = Vec::new();
    integers(&[(1, state.term), (2, state.vote), (3, state.commit)], &mut out);
    out
}

fn read_meaning(
    file: &str,
    wal: &Wal,
    record: &Record,
    summary: &mut WalSummary,
    metadata: &mut Option<Vec<u8>>,
) -> Result<(), RaftError> {
    let data = &wal.bytes[record.data.clone()];
    let bad = |problem: &str| corrupt(file, record.start as u64, problem);
    match record.kind {
        RecordKind::Crc => {}
        RecordKind::Metadata => {
            if metadata.as_ref().is_some_and(|known| known != data) {
                return Err(bad("the node's metadata differs from an earlier record's"));
            }
            *metadata = Some(data.to_vec());
        }
        RecordKind::Entry => {
            let entry = proto::Entry::decode(data).map_err(|_| bad("the raft entry does not decode"))?;
            // The record's type is not covered by its checksum: a hard state must not pass for an entry.
            let empty_change = entry.r#type != ENTRY_NORMAL && entry.data.is_empty();
            if entry.r#type > ENTRY_CONF_CHANGE_V2 || empty_change || entry.term < summary.entry_term {
                return Err(bad("the record is marked as an entry and is none"));
            }
            summary.entry_term = entry.term;
            // A new leader may overwrite entries that were not committed: the index then steps back, never ahead.
            if summary.last_index.is_some_and(|last| entry.index > last + 1) {
                return Err(bad(&format!("raft entry {} follows entry {:?}", entry.index, summary.last_index)));
            }
            summary.first_index.get_or_insert(entry.index);
            summary.last_index = Some(entry.index);
        }
        RecordKind::HardState => {
            let state = proto::HardState::decode(data).map_err(|_| bad("the hard state does not decode"))?;
            if hard_state_bytes(&state) != data {
                return Err(bad("the record is marked as a hard state and is none"));
            }
            if state.term < summary.term || state.commit < summary.commit {
                return Err(bad("the hard state steps back"));
            }
            (summary.term, summary.commit) = (state.term, state.commit);
        }
        RecordKind::Snapshot => {
            let snapshot = proto::WalSnapshot::decode(data).map_err(|_| bad("the snapshot note does not decode"))?;
            summary.snapshots.push((snapshot.term, snapshot.index));
            // A leader's snapshot takes the place of the entries that a follower lacks: the log goes on behind it.
            if summary.last_index.is_some_and(|last| snapshot.index > last) {
                summary.first_index = Some(snapshot.index + 1);
                summary.last_index = Some(snapshot.index);
            }
        }
    }
    Ok(())
}
