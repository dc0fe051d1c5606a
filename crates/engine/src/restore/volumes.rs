//! Filling volumes of a cluster: files as streams into helper pods, block files made from the channels' segments for all nodes at once,
//! and in the end every file hashed where it lies. What an interrupted run has written stays.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{NodeDirectory, NodeId};
use fabkeep_platform::kubernetes::{Expected, Filler, Kubernetes, WriteEntry, WriteKind, Writing};
use fabkeep_platform::{EntryKind, Fetch, PlatformError, VolumeEntry};
use fabkeep_store::PointReader;

use super::ca_keep::{self, Existing, ExistingFile};
use crate::content::{Contents, channel_of, is_block_file};
use crate::error::io as place_of;
use crate::event::{Event, Reporter, step};
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, Part, RecoveryPoint};
use crate::replay::{Sink, Target, replay};
use crate::{Difference, EngineError, parallel};

/// What data that is set aside is called, with the recovery point behind it.
const ASIDE: &str = ".before-";
/// How often a broken stream is begun anew, and the longest pause before.
const ATTEMPTS: u32 = 8;
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// A directory to fill.
pub(super) struct Filled<'a> {
    pub id: &'a NodeId,
    pub role: NodeRole,
    pub captured: Cow<'a, CapturedDirectory>,
    /// What is there and stays.
    pub kept: Vec<ExistingFile>,
    /// What comes and what stays fit.
    pub fits: bool,
    /// The directory in the cluster.
    pub target: NodeDirectory,
    pub filler: Filler,
    /// What of it has to be checked in the end, by path.
    expected: Mutex<HashMap<String, Expected>>,
}

impl<'a> Filled<'a> {
    pub fn new(
        kubernetes: &Kubernetes,
        id: &'a NodeId,
        role: NodeRole,
        captured: &'a CapturedDirectory,
        target: NodeDirectory,
    ) -> Result<Self, EngineError> {
        let filler = kubernetes.filler(id, &target)?;
        let captured = Cow::Borrowed(captured);
        Ok(Filled { id, role, captured, kept: Vec::new(), fits: false, target, filler, expected: Mutex::default() })
    }

    pub fn label(&self) -> String {
        format!("{} {}", self.id, self.target.mounted_at.as_deref().unwrap_or(&self.target.path))
    }

    /// What was written is void: everything is written anew.
    pub fn forget(&self) {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, path: &str, hash: digest::Context, len: u64, size: u64) {
        let sha256 = hex::encode(hash.finish().as_ref());
        let expected = Expected { path: path.to_owned(), sha256, len, size };
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), expected);
    }

    /// Files of a certificate authority that are there; those that an interrupted restore of this recovery point has set aside, when it is
    /// gone on with.
    pub fn present(&self, going_on: Option<&str>) -> Result<Existing, EngineError> {
        let wrong = |error| place_of(self.label())(error);
        let aside = match going_on {
            Some(point) => match self.filler.last_aside(point).map_err(wrong)? {
                Some(aside) => Some(aside),
                // Nothing was there.
                None => return Ok(Existing::new()),
            },
            None => None,
        };
        let from = aside.as_ref().unwrap_or(&self.filler);
        let found: Vec<VolumeEntry> = from
            .list()?
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter(|entry| ca_keep::is_looked_at(&self.captured.directory, &entry.path, entry.stamp.size))
            .collect();
        let scratch = tempfile::tempdir().map_err(place_of(std::env::temp_dir()))?;
        let to = |position: usize| scratch.path().join(position.to_string());
        let files = found.iter().enumerate();
        let files: Vec<Fetch> = files
            .map(|(position, entry)| Fetch { path: entry.path.clone(), to: to(position), sparse: false })
            .collect();
        let there = from.fetch(&files).map_err(wrong)?;
        let mut out = Existing::new();
        for (position, entry) in found.iter().enumerate().filter(|(position, _)| there.get(*position) == Some(&true)) {
            let bytes = std::fs::read(to(position)).map_err(place_of(to(position)))?;
            out.insert(entry.path.clone(), ExistingFile::new(entry, bytes));
        }
        Ok(out)
    }

    /// Writes what stays.
    pub fn write_kept(&self) -> Result<(), EngineError> {
        let label = self.label();
        let wrong = |error| place_of(&label)(error);
        let entries: Vec<WriteEntry> =
            self.kept.iter().map(|file| entry(&file.entry, WriteKind::File(file.bytes.len() as u64))).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let mut writing = self.filler.write(entries).map_err(wrong)?;
        for file in &self.kept {
            writing.begin_entry().map_err(wrong)?;
            writing.bytes(&file.bytes).map_err(wrong)?;
            let mut hash = digest::Context::new(&digest::SHA256);
            hash.update(&file.bytes);
            let len = file.bytes.len() as u64;
            self.note(&file.entry.path, hash, len, len);
        }
        writing.finish().map_err(wrong)
    }

    /// Sizes of the files that are there.
    fn there(&self) -> Result<BTreeMap<String, u64>, EngineError> {
        Ok(self.filler.list()?.into_iter().map(|entry| (entry.path, entry.stamp.size)).collect())
    }
}

/// Bytes of a file that are sent: up to the end of its last part.
fn sent(parts: &[Part]) -> u64 {
    parts.last().map_or(0, |part| part.offset + part.len)
}

fn entry(captured: &CapturedEntry, kind: WriteKind) -> WriteEntry {
    WriteEntry {
        path: captured.path.clone(),
        kind,
        mode: captured.mode,
        uid: captured.uid,
        gid: captured.gid,
        modified: u64::try_from(captured.modified_ns.div_euclid(1_000_000_000)).unwrap_or(0),
    }
}

/// Whether another try may go better: a stream broke, or the API server was away.
fn may_pass(error: &EngineError) -> bool {
    match error {
        EngineError::Io { source, .. } => {
            !matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied)
        }
        EngineError::Platform(PlatformError::Forbidden { .. }) => false,
        EngineError::Platform(_) => true,
        _ => false,
    }
}

/// What one run proved of the volumes that it filled.
#[derive(Default)]
pub(super) struct Proof {
    /// Files hashed where they lie.
    pub files: u64,
    /// Channels whose blocks were walked.
    pub channels: BTreeSet<String>,
}

impl Proof {
    pub fn add(&mut self, other: Proof) {
        self.files += other.files;
        self.channels.extend(other.channels);
    }

    /// In sentences; nothing of what was not done.
    pub fn reported(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.files > 0 {
            out.push(format!("{} files hashed where they lie in the volumes: each is what was captured", self.files));
        }
        if !self.channels.is_empty() {
            out.push(format!(
                "{} channels: every block walked to the recorded height and header hash while its files were written",
                self.channels.len()
            ));
        }
        out
    }
}

/// Tries again what may pass; what was written before stays.
fn persistently(
    reporter: &dyn Reporter,
    mut attempt: impl FnMut() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let mut pause = Duration::from_secs(1);
    for round in 1.. {
        match attempt() {
            Err(error) if round < ATTEMPTS && may_pass(&error) && !reporter.is_interrupted() => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(MAX_PAUSE);
            }
            other => return other,
        }
    }
    Ok(())
}

/// How often files that are not what was written are written again.
const REWRITES: usize = 2;

/// Fills every directory and proves it: what was written, or was found written by an earlier run, is hashed where it lies. A file that does
/// not hold is written again; one that nobody wrote is somebody else's.
pub(super) fn fill_all(
    directories: &[&Filled<'_>],
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<Proof, EngineError> {
    let bytes: u64 = directories
        .iter()
        .flat_map(|directory| &directory.captured.entries)
        .map(|entry| match &entry.content {
            EntryContent::File { parts, .. } => parts.iter().map(|part| part.len).sum(),
            _ => 0,
        })
        .sum();
    let contents = Contents::new(reader, point);
    for rewrite in 0.. {
        let mut proof = Proof::default();
        step(reporter, "write files", Some(bytes), || -> Result<(), EngineError> {
            let results = parallel::map(directories.to_vec(), threads, |directory: &Filled<'_>| {
                persistently(reporter, || write_files(directory, &contents, reporter))
            });
            results.into_iter().collect::<Result<Vec<()>, _>>()?;
            for channel in &point.channels {
                persistently(reporter, || {
                    if write_chains(directories, &channel.name, point, reader, threads, reporter)? {
                        proof.channels.insert(channel.name.clone());
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        let checked = step(reporter, "prove", Some(bytes), || {
            let results = parallel::map(directories.to_vec(), threads, |directory: &Filled<'_>| {
                let mut checked = Checked::default();
                persistently(reporter, || {
                    checked = finish(directory, reporter)?;
                    Ok(())
                })?;
                Ok(checked)
            });
            results.into_iter().collect::<Result<Vec<Checked>, EngineError>>()
        })?;
        proof.files = checked.iter().map(|checked| checked.files).sum();
        let mut wrong = None;
        for (directory, checked) in directories.iter().zip(checked) {
            if let Some(path) = checked.foreign.first() {
                let what = format!("{} files that no restore wrote, the first: {path}", checked.foreign.len());
                return Err(Difference::new(directory.label(), what).into());
            }
            if let Some(path) = checked.bad.first() {
                let what = format!("{} files are not what was written, the first: {path}", checked.bad.len());
                directory.filler.remove(&checked.bad).map_err(place_of(directory.label()))?;
                wrong.get_or_insert_with(|| Difference::new(directory.label(), what));
            }
        }
        match wrong {
            None => return Ok(proof),
            Some(difference) if rewrite >= REWRITES => return Err(difference.into()),
            Some(_) => {}
        }
    }
    Ok(Proof::default())
}

/// Everything but block files, in one stream.
fn write_files(directory: &Filled<'_>, contents: &Contents<'_>, reporter: &dyn Reporter) -> Result<(), EngineError> {
    let there = directory.there()?;
    let label = directory.label();
    let wrong = |error| place_of(&label)(error);
    let mut entries = Vec::new();
    let mut files: Vec<(&CapturedEntry, u64, &[Part], bool)> = Vec::new();
    for captured in &directory.captured.entries {
        match &captured.content {
            // Writable while it is filled, whatever it is in the end.
            EntryContent::Directory if !captured.path.is_empty() => {
                entries.push(WriteEntry { mode: captured.mode | 0o700, ..entry(captured, WriteKind::Directory) });
            }
            EntryContent::Directory => {}
            EntryContent::Symlink { target } => entries.push(entry(captured, WriteKind::Symlink(target.clone()))),
            EntryContent::File { size, parts } if !is_block_file(parts) => {
                let pending = there.get(&captured.path) != Some(size);
                files.push((captured, *size, parts.as_slice(), pending));
            }
            EntryContent::File { .. } => {}
        }
    }
    let heads = entries.len();
    entries.extend(
        files
            .iter()
            .filter(|(.., pending)| *pending)
            .map(|(captured, _, parts, _)| entry(captured, WriteKind::File(sent(parts)))),
    );
    let mut writing = directory.filler.write(entries).map_err(wrong)?;
    for _ in 0..heads {
        writing.begin_entry().map_err(wrong)?;
    }
    let mut extended = Vec::new();
    for (captured, size, parts, pending) in files {
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        if pending {
            writing.begin_entry().map_err(wrong)?;
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut at = 0;
        let mut put = |bytes: &[u8], writing: &mut Writing| -> Result<(), EngineError> {
            hash.update(bytes);
            if pending { writing.bytes(bytes).map_err(wrong) } else { Ok(()) }
        };
        for part in parts {
            while at < part.offset {
                let zeros = usize::try_from((part.offset - at).min(1 << 20)).unwrap_or(1 << 20);
                put(&vec![0; zeros], &mut writing)?;
                at += zeros as u64;
            }
            put(&contents.bytes(&captured.path, part)?, &mut writing)?;
            at = part.offset + part.len;
        }
        directory.note(&captured.path, hash, at, size);
        if pending && size > at {
            extended.push((captured.path.clone(), size));
        }
        reporter.event(Event::Advance { bytes: parts.iter().map(|part| part.len).sum(), blocks: 0 });
    }
    writing.finish().map_err(wrong)?;
    directory.filler.extend(&extended).map_err(wrong)
}

/// Block files of one node's channel on their way into a stream.
struct Stream<'a, 'f> {
    directory: &'a Filled<'f>,
    label: String,
    files: Vec<StreamFile<'a>>,
    /// Opened by the first file that is not there yet.
    writing: Option<Writing>,
    pending: Vec<WriteEntry>,
    left: usize,
}

struct StreamFile<'a> {
    entry: &'a CapturedEntry,
    written: bool,
    begun: bool,
    at: u64,
    hash: Option<digest::Context>,
}

impl Sink for Stream<'_, '_> {
    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let label = &self.label;
        let wrong = |error| place_of(label)(error);
        let Some(file) = self.files.get_mut(file) else { return Ok(()) };
        if offset != file.at {
            return Err(wrong(io::Error::other("blocks came out of order")));
        }
        file.at += bytes.len() as u64;
        file.hash.get_or_insert_with(|| digest::Context::new(&digest::SHA256)).update(bytes);
        if file.written {
            return Ok(());
        }
        let writing = match &mut self.writing {
            Some(writing) => writing,
            None => {
                let entries = std::mem::take(&mut self.pending);
                self.writing.insert(self.directory.filler.write(entries).map_err(wrong)?)
            }
        };
        if !file.begun {
            writing.begin_entry().map_err(wrong)?;
            file.begun = true;
        }
        writing.bytes(bytes).map_err(wrong)
    }

    fn finish(&mut self, file: usize) -> Result<(), EngineError> {
        let Some(file) = self.files.get_mut(file) else { return Ok(()) };
        let hash = file.hash.take().unwrap_or_else(|| digest::Context::new(&digest::SHA256));
        self.directory.note(&file.entry.path, hash, file.at, file.entry.size());
        self.left -= 1;
        if self.left == 0
            && let Some(writing) = self.writing.take()
        {
            writing.finish().map_err(place_of(&self.label))?;
        }
        Ok(())
    }
}

/// Block files of one channel, for all nodes at once. Whether any node has it.
fn write_chains(
    directories: &[&Filled<'_>],
    name: &str,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<bool, EngineError> {
    let Some(channel) = point.channel(name) else { return Ok(false) };
    let mut targets = Vec::new();
    for directory in directories {
        let mut chains: BTreeMap<&str, Vec<&CapturedEntry>> = BTreeMap::new();
        for entry in &directory.captured.entries {
            let EntryContent::File { parts, .. } = &entry.content else { continue };
            if channel_of(parts) == Some(name) {
                chains.entry(entry.path.rsplit_once('/').map_or("", |(folder, _)| folder)).or_default().push(entry);
            }
        }
        if chains.is_empty() {
            continue;
        }
        let there = directory.there()?;
        for entries in chains.into_values() {
            let files: Vec<StreamFile<'_>> = entries
                .iter()
                .map(|&entry| StreamFile {
                    entry,
                    written: there.get(&entry.path) == Some(&entry.size()),
                    begun: false,
                    at: 0,
                    hash: None,
                })
                .collect();
            let pending = files
                .iter()
                .filter(|file| !file.written)
                .map(|file| entry(file.entry, WriteKind::File(file.entry.size())))
                .collect();
            let parts = entries
                .iter()
                .map(|entry| match &entry.content {
                    EntryContent::File { parts, .. } => parts.clone(),
                    _ => Vec::new(),
                })
                .collect();
            let (label, left) = (directory.label(), files.len());
            targets.push(Target {
                label: directory.id.to_string(),
                peer: directory.role == NodeRole::Peer,
                files: parts,
                sink: Box::new(Stream { directory, label, files, writing: None, pending, left }),
            });
        }
    }
    if targets.is_empty() {
        return Ok(false);
    }
    replay(reader, channel, targets, false, threads, reporter).map(|_| true)
}

/// What a directory's check came to.
#[derive(Default)]
struct Checked {
    files: u64,
    /// Files that are not what was written.
    bad: Vec<String>,
    /// Files that are not of this restore.
    foreign: Vec<String>,
}

/// Directories' modes and times, and the proof.
fn finish(directory: &Filled<'_>, reporter: &dyn Reporter) -> Result<Checked, EngineError> {
    let label = directory.label();
    let wrong = |error| place_of(&label)(error);
    let folders: Vec<WriteEntry> = directory
        .captured
        .entries
        .iter()
        .filter(|captured| matches!(captured.content, EntryContent::Directory))
        .map(|captured| entry(captured, WriteKind::Directory))
        .collect();
    let count = folders.len();
    let mut writing = directory.filler.write(folders).map_err(wrong)?;
    for _ in 0..count {
        writing.begin_entry().map_err(wrong)?;
    }
    writing.finish().map_err(wrong)?;
    let mut expected: Vec<Expected> =
        directory.expected.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    let progress = |bytes| reporter.event(Event::Advance { bytes, blocks: 0 });
    let bad = directory.filler.check(&expected, &progress).map_err(wrong)?;
    let own: BTreeSet<&str> = directory
        .captured
        .entries
        .iter()
        .map(|captured| captured.path.as_str())
        .chain(directory.kept.iter().map(|file| file.entry.path.as_str()))
        .collect();
    let apart = |path: &str| path.split('/').any(|part| part == "lost+found" || part.starts_with(ASIDE));
    let there = directory.filler.list()?;
    let foreign: Vec<String> = there
        .into_iter()
        .filter(|entry| entry.kind != EntryKind::Directory && !own.contains(entry.path.as_str()) && !apart(&entry.path))
        .map(|entry| entry.path)
        .collect();
    Ok(Checked { files: (expected.len() - bad.len()) as u64, bad, foreign })
}

/// A directory of the cluster for a captured one: of the same role and place.
pub(super) fn place_for(kubernetes: &Kubernetes, id: &NodeId, captured: &NodeDirectory) -> Option<NodeDirectory> {
    use fabkeep_platform::Platform;
    let network = kubernetes.network();
    let node = network.nodes().find(|node| node.id == *id)?;
    let same_role: Vec<&NodeDirectory> = node
        .directories
        .iter()
        .filter(|known| known.role == captured.role && known.source == captured.source)
        .collect();
    let exact = same_role.iter().find(|known| known.mounted_at == captured.mounted_at);
    match (exact, same_role.as_slice()) {
        (Some(exact), _) => Some((*exact).clone()),
        (None, [single]) => Some((*single).clone()),
        _ => None,
    }
}
