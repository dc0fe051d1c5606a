//! Captures everything that is not a block: small files as a whole, large ones in pieces, raft logs split, holes left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use fabkeep_ledger::layout::{Class, Kind, NodeRole, Place};
use fabkeep_ledger::raft::{MAX_FILE_BYTES, Wal};
use fabkeep_ledger::{smartbft, wal_split};
use fabkeep_network::{Finding, OrLeaveOut, Rule};
use fabkeep_platform::{EntryKind, VolumeEntry};
use fabkeep_store::{BlobId, PointWriter, Sources, StoreError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::chains::Chains;
use super::cut::Cuts;
use super::survey::{PlannedNode, Survey, SurveyedDirectory};
use super::{CaptureOptions, KnownHashes, source_name};
use crate::EngineError;
use crate::error::io;
use crate::event::{Event, Reporter};
use crate::point::{CapturedDirectory, CapturedEntry, Content, EntryContent, Omitted, Part};
use fabkeep_parallel as parallel;

/// Boundaries at which large files are cut: an append-only file costs its tail.
const PIECE_BYTES: u64 = 1 << 20;
/// Runs of zeros of this length, at multiples of it, are not kept.
const ZERO_BYTES: usize = 4 << 10;

/// What became of the files.
pub(crate) struct Files {
    /// By node.
    pub directories: Vec<Vec<CapturedDirectory>>,
    pub findings: Vec<Finding>,
    pub read_bytes: u64,
}

/// What the index keeps of a file.
#[derive(Debug, Serialize, Deserialize)]
struct FileState {
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
    inode: u64,
    parts: Vec<Part>,
    /// Of a raft log: bytes covered by whole records, and their keyed hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<(u64, BlobId)>,
    /// Of a raft log: a height that all blocks are below that its parts name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names_below: Option<u64>,
}

/// One file to keep.
struct Task<'a> {
    node: usize,
    directory: usize,
    /// Position among the captured directory's entries.
    position: usize,
    entry: &'a VolumeEntry,
    place: &'a Place,
    planned: &'a PlannedNode,
    surveyed: &'a SurveyedDirectory,
}

fn file_source(writer: &PointWriter<'_>, node: &PlannedNode, directory: &SurveyedDirectory, path: &str) -> BlobId {
    source_name(writer, &["file", &node.node.id.to_string(), &directory.directory.path, path])
}

fn earlier(writer: &PointWriter<'_>, name: &BlobId) -> Option<FileState> {
    serde_json::from_value(writer.source(name)?.clone()).ok()
}

/// Returns whether a file is as an earlier point holds it, by size, times and inode.
pub(crate) fn is_unchanged(
    writer: &PointWriter<'_>,
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    entry: &VolumeEntry,
) -> bool {
    let name = file_source(writer, node, directory, &entry.path);
    !directory.is_staged(&entry.path) && earlier(writer, &name).is_some_and(|state| state.is_of(entry))
}

impl FileState {
    fn is_of(&self, entry: &VolumeEntry) -> bool {
        let stamp = &entry.stamp;
        // Files of Secrets and ConfigMaps have no meaningful times.
        stamp.changed_ns != 0
            && self.size == stamp.size
            && self.modified_ns == stamp.modified_ns
            && self.changed_ns == stamp.changed_ns
            && self.inode == stamp.inode
    }
}

pub(crate) fn capture(
    survey: &Survey,
    chains: &Chains,
    cuts: &Cuts,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
    sources: &mut Sources,
) -> Result<Files, EngineError> {
    let mut directories: Vec<Vec<CapturedDirectory>> = Vec::new();
    let mut tasks = Vec::new();
    for (node, planned) in survey.nodes.iter().enumerate() {
        let mut captured = Vec::new();
        for (directory, surveyed) in planned.directories.iter().enumerate() {
            let peer = planned.node.role == NodeRole::Peer;
            let kept = FileSelection { derived: options.include_derived, without_logs: &chains.without_logs };
            let (skeleton, files) = skeleton(surveyed, &kept, |path, channel| {
                let parts = chains.parts.get(&(node, directory, path.to_owned())).cloned();
                // Behind a cut there are no block files.
                if cuts.limit(channel, peer).is_some() { parts } else { Some(parts.unwrap_or_default()) }
            });
            tasks.extend(files.into_iter().map(|(position, surveyed_position)| {
                let (entry, place) = &surveyed.entries[surveyed_position];
                Task { node, directory, position, entry, place, planned, surveyed }
            }));
            captured.push(skeleton);
        }
        directories.push(captured);
    }
    prefetch(&tasks, writer, options)?;
    let read_bytes = AtomicU64::new(0);
    let findings = Mutex::new(Vec::new());
    let results = parallel::map(tasks, options.threads, |task| {
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        let (entry, path) = (task.entry, &task.entry.path);
        let name = file_source(writer, task.planned, task.surveyed, path);
        let keeper = Keeper { task: &task, entry, writer, read_bytes: &read_bytes };
        let known = match &task.place.kind {
            Kind::WalFile(channel) => Some(KnownBlocks {
                channel,
                hashes: chains.known.get(channel),
                // A log may not name blocks that a cut leaves out.
                below: cuts.limit(channel, false),
            }),
            _ => None,
        };
        let state = match keeper.keep(&name, known, options.reread) {
            Ok(state) => state,
            Err(KeepError::Store(error)) => return Err(error.into()),
            Err(KeepError::Read(problem)) => {
                findings.lock().push(Finding::error(
                    Rule::FileReadable,
                    format!("{} {path}", task.planned.node.id),
                    problem,
                    OrLeaveOut("check the disk and the file's permissions"),
                ));
                return Ok(None);
            }
        };
        reporter.event(Event::Advance { bytes: entry.stamp.size, blocks: 0 });
        Ok(Some((task.node, task.directory, task.position, name, state)))
    });
    for result in results {
        let Some((node, directory, entry, name, state)) = result? else { continue };
        if let EntryContent::File { size, parts } = &mut directories[node][directory].entries[entry].content {
            *size = state.size;
            *parts = state.parts.clone();
        }
        if let Ok(value) = serde_json::to_value(state) {
            sources.insert(name.to_string(), value);
        }
    }
    Ok(Files { directories, findings: findings.into_inner(), read_bytes: read_bytes.into_inner() })
}

/// Small files that will be read: a volume that is far away reads them in one go.
fn prefetch(tasks: &[Task<'_>], writer: &PointWriter<'_>, options: &CaptureOptions) -> Result<(), EngineError> {
    let mut by_directory: BTreeMap<(usize, usize), Vec<&Task<'_>>> = BTreeMap::new();
    for task in tasks {
        let kept = !options.reread && is_unchanged(writer, task.planned, task.surveyed, task.entry);
        let near = task.surveyed.local(&task.entry.path).is_some();
        if !kept && !near && task.entry.stamp.size <= PIECE_BYTES {
            by_directory.entry((task.node, task.directory)).or_default().push(task);
        }
    }
    let results = parallel::map(by_directory.into_values(), options.threads, |tasks: Vec<&Task<'_>>| {
        let files: Vec<(&str, u64)> =
            tasks.iter().map(|task| (task.entry.path.as_str(), task.entry.stamp.size)).collect();
        // A file that cannot be read has its own finding when it is opened.
        match tasks.first().map(|task| task.surveyed.volume.prefetch(&files)) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::PermissionDenied => {
                Err(io(&tasks[0].surveyed.directory.path)(error))
            }
            _ => Ok(()),
        }
    });
    results.into_iter().collect()
}

/// What is stored of a directory.
struct FileSelection<'a> {
    /// Derived data too.
    derived: bool,
    /// Channels without their raft logs and snapshots.
    without_logs: &'a BTreeSet<String>,
}

impl FileSelection<'_> {
    /// Why a file is left out; `None` for one that is stored.
    fn left_out(&self, place: &Place) -> Option<Class> {
        let is_left = match (place.class, &place.kind) {
            (Class::Authoritative, Kind::WalFile(channel) | Kind::RaftSnapshot(channel)) => {
                return self.without_logs.contains(channel).then_some(Class::Derived);
            }
            (Class::Authoritative, _) => false,
            (Class::Derived, _) => !self.derived,
            (Class::Skip, _) => true,
        };
        is_left.then_some(place.class)
    }
}

/// Returns a directory's entries without the files' content, and the files still to be kept: position here and in the survey. Block files
/// have their parts from the walk.
fn skeleton(
    surveyed: &SurveyedDirectory,
    kept: &FileSelection<'_>,
    blocks: impl Fn(&str, &str) -> Option<Vec<Part>>,
) -> (CapturedDirectory, Vec<(usize, usize)>) {
    let mut entries = Vec::new();
    let mut files = Vec::new();
    let mut omitted: Vec<Omitted> = Vec::new();
    for (surveyed_position, (entry, place)) in surveyed.entries.iter().enumerate() {
        let is_file = entry.kind == EntryKind::File;
        if let Some(class) = kept.left_out(place).filter(|_| is_file || place.class != Class::Authoritative) {
            if is_file {
                omit(&mut omitted, entry, class, &place.kind);
            }
            continue;
        }
        let content = match &entry.kind {
            EntryKind::Directory => EntryContent::Directory,
            EntryKind::Symlink(target) => EntryContent::Symlink { target: target.clone() },
            EntryKind::Special | EntryKind::Unnamed => continue,
            EntryKind::File => {
                if let Kind::BlockFile(channel) = &place.kind {
                    let Some(parts) = blocks(&entry.path, channel) else { continue };
                    let size = parts.last().map_or(0, |part| part.offset + part.len);
                    EntryContent::File { size, parts }
                } else {
                    files.push((entries.len(), surveyed_position));
                    EntryContent::File { size: entry.stamp.size, parts: Vec::new() }
                }
            }
        };
        entries.push(CapturedEntry {
            path: entry.path.clone(),
            mode: entry.mode & kept_bits(&entry.kind),
            uid: entry.uid,
            gid: entry.gid,
            modified_ns: entry.stamp.modified_ns,
            content,
        });
    }
    let directory = CapturedDirectory { directory: surveyed.directory.clone(), entries, omitted };
    (directory, files)
}

/// Permission bits that are captured: a restore sets no file set user id, set group id or sticky, and no directory set user id.
pub(crate) fn kept_bits(kind: &EntryKind) -> u32 {
    if *kind == EntryKind::Directory { 0o3777 } else { 0o777 }
}

fn omit(omitted: &mut Vec<Omitted>, entry: &VolumeEntry, class: Class, kind: &Kind) {
    let path = match kind {
        Kind::LevelDb(directory) if class == Class::Derived => directory.clone(),
        Kind::Opaque => entry.path.split('/').next().unwrap_or_default().to_owned(),
        _ => entry.path.clone(),
    };
    match omitted.iter_mut().find(|known| known.path == path && known.class == class) {
        Some(known) => {
            known.files += 1;
            known.bytes += entry.stamp.size;
        }
        None => omitted.push(Omitted { path, class, files: 1, bytes: entry.stamp.size }),
    }
}

enum KeepError {
    Store(StoreError),
    Read(String),
}

impl From<StoreError> for KeepError {
    fn from(error: StoreError) -> Self {
        KeepError::Store(error)
    }
}

impl From<std::io::Error> for KeepError {
    fn from(error: std::io::Error) -> Self {
        KeepError::Read(error.to_string())
    }
}

/// Blocks that a raft log may name instead of holding them.
#[derive(Clone, Copy)]
struct KnownBlocks<'a> {
    channel: &'a str,
    hashes: Option<&'a KnownHashes>,
    below: Option<u64>,
}

struct Keeper<'a> {
    task: &'a Task<'a>,
    entry: &'a VolumeEntry,
    writer: &'a PointWriter<'a>,
    read_bytes: &'a AtomicU64,
}

impl Keeper<'_> {
    fn keep(&self, name: &BlobId, log: Option<KnownBlocks<'_>>, reread: bool) -> Result<FileState, KeepError> {
        let below = log.and_then(|known| known.below);
        let earlier = earlier(self.writer, name)
            .filter(|state| below.is_none_or(|below| state.names_below.is_some_and(|named| named <= below)))
            .filter(|state| state.parts.iter().all(|part| self.writer.keep(part.content.blob())));
        if let Some(state) = earlier.as_ref().filter(|state| !reread && state.is_of(self.entry)) {
            let whole = state.log.map_or(u64::MAX, |(whole, _)| whole);
            let parts =
                state.parts.iter().filter(|part| part.offset.saturating_add(part.len) <= whole).cloned().collect();
            return Ok(FileState { parts, ..*state });
        }
        let stamp = &self.entry.stamp;
        let mut state = FileState {
            size: stamp.size,
            modified_ns: stamp.modified_ns,
            changed_ns: stamp.changed_ns,
            inode: stamp.inode,
            parts: Vec::new(),
            log: None,
            names_below: None,
        };
        let raft_log = self.entry.path.rsplit('/').next().is_some_and(|name| smartbft::wal_file_number(name).is_none());
        match log {
            Some(known) if raft_log && stamp.size <= MAX_FILE_BYTES => {
                self.keep_log(known, earlier.as_ref(), &mut state)?;
            }
            _ => self.keep_pieces(0, &mut state)?,
        }
        Ok(state)
    }

    /// A file's bytes from `from` on, in pieces, without its holes.
    fn keep_pieces(&self, from: u64, state: &mut FileState) -> Result<(), KeepError> {
        let (volume, path) = self.task.surveyed.source(&self.entry.path);
        let mut buffer = Vec::new();
        for range in volume.data_ranges(path, state.size)? {
            let mut at = range.start.max(from);
            if at >= range.end {
                continue;
            }
            let mut file = volume.open(path, at..range.end)?;
            while at < range.end {
                let end = ((at / PIECE_BYTES + 1) * PIECE_BYTES).min(range.end);
                buffer.clear();
                file.by_ref().take(end - at).read_to_end(&mut buffer)?;
                if buffer.len() as u64 != end - at {
                    let have = at + buffer.len() as u64;
                    return Err(KeepError::Read(format!(
                        "it ends at byte {have}; when it was listed it had {} bytes",
                        state.size
                    )));
                }
                self.read_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                for run in data_runs(&buffer) {
                    let bytes = &buffer[run.clone()];
                    let content = Content::Raw { blob: self.writer.put(bytes)? };
                    state.parts.push(Part { offset: at + run.start as u64, len: bytes.len() as u64, content });
                }
                at = end;
            }
        }
        Ok(())
    }

    /// A raft log: the blocks that it proposes are kept already. What an earlier point holds of it is taken over when the file still
    /// begins with it.
    fn keep_log(
        &self,
        known: KnownBlocks<'_>,
        earlier: Option<&FileState>,
        state: &mut FileState,
    ) -> Result<(), KeepError> {
        let (volume, path) = self.task.surveyed.source(&self.entry.path);
        let mut bytes = Vec::new();
        // Only the part that holds data: a log file is preallocated.
        let used = volume.data_ranges(path, state.size)?.last().map_or(0, |range| range.end);
        volume.open(path, 0..used)?.read_to_end(&mut bytes)?;
        self.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let wal = Wal::parse(path, bytes, &mut None).map_err(|error| KeepError::Read(error.to_string()))?;
        let whole = wal.torn.unwrap_or(wal.bytes.len());
        let names = self.writer.names();
        let mut from = 0;
        state.names_below = Some(0);
        if let Some((parts, (covered, hash))) = earlier.and_then(|earlier| Some((&earlier.parts, earlier.log?)))
            && usize::try_from(covered)
                .is_ok_and(|covered| covered <= whole && names.name(&wal.bytes[..covered]) == hash)
        {
            from = covered as usize;
            state.names_below = earlier.and_then(|earlier| earlier.names_below);
            state.parts.extend(parts.iter().filter(|part| part.offset + part.len <= covered).cloned());
        }
        if from < whole {
            let range = from..whole;
            let highest = std::cell::Cell::new(0);
            let lookup = |number: u64| {
                let hash = known.hashes.and_then(|known| known.get(&number).copied())?;
                highest.set(highest.get().max(number.saturating_add(1)));
                Some(hash)
            };
            let split = wal_split::split(&wal.bytes, range.clone(), &wal.records, &lookup);
            state.names_below = state.names_below.map(|named: u64| named.max(highest.get()));
            let content = Content::Wal {
                channel: known.channel.to_owned(),
                split: self.writer.put(&split)?,
                hash: names.name(&wal.bytes[range]),
            };
            state.parts.push(Part { offset: from as u64, len: (whole - from) as u64, content });
        }
        state.log = Some((whole as u64, names.name(&wal.bytes[..whole])));
        // A record that was being written is left out: Fabric does not repair a log that ends in one (O5), and what stands after the last
        // whole record was not acknowledged. The rest of the file reads as zeros, as etcd preallocates it.
        Ok(())
    }
}

/// Runs of a piece that are not zeros, at multiples of [`ZERO_BYTES`].
fn data_runs(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for start in (0..bytes.len()).step_by(ZERO_BYTES) {
        let end = (start + ZERO_BYTES).min(bytes.len());
        if bytes[start..end].iter().all(|&byte| byte == 0) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out_and_nothing_else() {
        let mut bytes = vec![0u8; 5 * ZERO_BYTES + 100];
        bytes[ZERO_BYTES] = 1;
        bytes[3 * ZERO_BYTES - 1] = 1;
        bytes[5 * ZERO_BYTES + 99] = 1;
        assert_eq!(data_runs(&bytes), [ZERO_BYTES..3 * ZERO_BYTES, 5 * ZERO_BYTES..5 * ZERO_BYTES + 100]);
        assert!(data_runs(&[]).is_empty());
    }
}
