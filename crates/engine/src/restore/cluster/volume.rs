//! A directory in a volume of a cluster: files are streamed into helper pods, and in the end every file is hashed inside the volume. Files
//! that an interrupted run has written are kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use aws_lc_rs::digest;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::NodeId;
use fabkeep_platform::kubernetes::{Expected, Filler, FoundPlace, Kubernetes, WriteEntry, WriteKind, Writing};
use fabkeep_platform::{EntryKind, PlatformError, VolumeEntry, is_aside};
use fabkeep_store::PointReader;
use parking_lot::{Mutex, MutexGuard};

use crate::content::channel_of;
use crate::error::io as place_of;
use crate::event::{Event, Reporter, step};
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, Part, RecoveryPoint};
use crate::replay::Sink;
use crate::restore::ca::keep::{ExistingFile, ExistingFiles};
use crate::restore::existing::authority_files;
use crate::restore::write::{FileToWrite, Wants, WriteVolume, persistently, write_all};
use crate::{Difference, EngineError};
use fabkeep_parallel as parallel;

/// A directory to fill.
pub(super) struct DirectoryToFill<'a> {
    pub id: &'a NodeId,
    pub role: NodeRole,
    pub captured: Cow<'a, CapturedDirectory>,
    /// What is there and stays.
    pub kept: Vec<ExistingFile>,
    /// What comes and what stays fit.
    pub fits: bool,
    /// The directory in the cluster, and the node there that mounts it.
    pub place: FoundPlace,
    pub filler: Filler,
    /// Its claim was made from a snapshot: what is there was written by the node.
    pub from_snapshot: bool,
    /// Sizes of the files that were there when it was begun.
    there: Mutex<BTreeMap<String, u64>>,
    /// What of it has to be checked in the end, by path.
    expected: Mutex<HashMap<String, Expected>>,
}

impl<'a> DirectoryToFill<'a> {
    pub fn new(
        kubernetes: &Kubernetes,
        id: &'a NodeId,
        role: NodeRole,
        captured: &'a CapturedDirectory,
        place: FoundPlace,
    ) -> Result<Self, EngineError> {
        let filler = kubernetes.filler(&place.node, &place.directory)?;
        let captured = Cow::Borrowed(captured);
        let (there, expected) = (Mutex::default(), Mutex::default());
        Ok(DirectoryToFill {
            id,
            role,
            captured,
            kept: Vec::new(),
            fits: false,
            from_snapshot: false,
            place,
            filler,
            there,
            expected,
        })
    }

    pub fn label(&self) -> String {
        format!("{} {}", self.id, self.place.path())
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<String, Expected>> {
        self.expected.lock()
    }

    /// Removes what a node has written that the recovery point does not have: what is derived, what is behind a cut, what other kinds of
    /// entries are in the place of.
    fn clear(&self, there: &[VolumeEntry]) -> Result<(), EngineError> {
        let kept = self.kept.iter().map(|file| &file.entry);
        let own: HashMap<&str, &EntryContent> = self
            .captured
            .entries
            .iter()
            .chain(kept)
            .map(|captured| (captured.path.as_str(), &captured.content))
            .collect();
        let stays = |entry: &VolumeEntry| match (own.get(entry.path.as_str()), &entry.kind) {
            (Some(EntryContent::Directory), EntryKind::Directory)
            | (Some(EntryContent::File { .. }), EntryKind::File) => true,
            (Some(EntryContent::Symlink { target }), EntryKind::Symlink(there)) => target == there,
            _ => entry.path.is_empty() || is_apart(&entry.path),
        };
        // What is in a directory comes after it in the list.
        let gone: Vec<String> =
            there.iter().rev().filter(|entry| !stays(entry)).map(|entry| entry.path.clone()).collect();
        self.filler.clear(&gone).map_err(place_of(self.label()))
    }

    /// Leaves out what has not the captured mode and owner, as far as this restore can set them: it is written anew.
    fn leave_out_others(&self, there: &mut Vec<VolumeEntry>) {
        let own: HashMap<&str, &CapturedEntry> =
            self.captured.entries.iter().map(|captured| (captured.path.as_str(), captured)).collect();
        let any_owner = self.filler.owner().is_some();
        there.retain(|entry| {
            own.get(entry.path.as_str()).is_some_and(|known| {
                known.mode == entry.mode && (any_owner || (known.uid, known.gid) == (entry.uid, entry.gid))
            })
        });
    }

    /// What was written is void: everything is written anew.
    pub fn forget(&self) {
        self.expected().clear();
    }

    fn note(&self, path: &str, hash: digest::Context, len: u64, size: u64) {
        let sha256 = hex::encode(hash.finish().as_ref());
        self.expected().insert(path.to_owned(), Expected { path: path.to_owned(), sha256, len, size });
    }

    /// Files of a certificate authority that are there; those that an interrupted restore of this recovery point has set aside, when it is
    /// gone on with.
    pub fn present(&self, going_on: Option<&str>) -> Result<ExistingFiles, EngineError> {
        let label = self.label();
        let aside = match going_on {
            Some(point) => match self.filler.last_aside(point).map_err(place_of(&label))? {
                Some(aside) => Some(aside),
                // Nothing was there.
                None => return Ok(ExistingFiles::new()),
            },
            None => None,
        };
        let volume = aside.as_ref().unwrap_or(&self.filler).as_volume();
        authority_files(&self.captured, volume.as_ref(), &label, "", &|_| true)
    }

    /// Writes entries that are not captured files: each with its bytes.
    fn write(&self, entries: Vec<(WriteEntry, &[u8])>) -> Result<(), EngineError> {
        let label = self.label();
        let wrong = |error| place_of(&label)(error);
        let (entries, bytes): (Vec<WriteEntry>, Vec<&[u8]>) = entries.into_iter().unzip();
        let mut writing = self.filler.write(entries).map_err(wrong)?;
        for bytes in bytes {
            writing.begin_entry().map_err(wrong)?;
            writing.bytes(bytes).map_err(wrong)?;
        }
        writing.finish().map_err(wrong)
    }
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

impl WriteVolume for DirectoryToFill<'_> {
    fn node(&self) -> (&NodeId, NodeRole) {
        (self.id, self.role)
    }

    fn entries(&self) -> &[CapturedEntry] {
        &self.captured.entries
    }

    fn begin(&self) -> Result<(), EngineError> {
        let mut there = self.filler.list()?;
        if self.from_snapshot {
            self.clear(&there)?;
            self.leave_out_others(&mut there);
        }
        *self.there.lock() = there.into_iter().map(|entry| (entry.path, entry.stamp.size)).collect();
        let mut entries: Vec<(WriteEntry, &[u8])> = Vec::new();
        for captured in &self.captured.entries {
            match &captured.content {
                // Writable while it is filled, whatever it is in the end.
                EntryContent::Directory if !captured.path.is_empty() => {
                    let made = entry(captured, WriteKind::Directory);
                    entries.push((WriteEntry { mode: captured.mode | 0o700, ..made }, &[]));
                }
                EntryContent::Symlink { target } => {
                    entries.push((entry(captured, WriteKind::Symlink(target.clone())), &[]))
                }
                EntryContent::Directory | EntryContent::File { .. } => {}
            }
        }
        for file in &self.kept {
            let len = file.bytes.len() as u64;
            let mut hash = digest::Context::new(&digest::SHA256);
            hash.update(&file.bytes);
            self.note(&file.entry.path, hash, len, len);
            entries.push((entry(&file.entry, WriteKind::File(len)), &file.bytes));
        }
        if entries.is_empty() { Ok(()) } else { self.write(entries) }
    }

    fn wants(&self, _: usize, entry: &CapturedEntry) -> Wants {
        let there = self.there.lock();
        if there.get(&entry.path) == Some(&entry.size()) { Wants::Check } else { Wants::Bytes }
    }

    fn stream<'s>(&'s self, files: Vec<FileToWrite<'s>>) -> Result<Box<dyn Sink + 's>, EngineError> {
        let pending = files.iter().filter(|file| file.wants == Wants::Bytes);
        let pending = pending.map(|file| entry(file.entry, WriteKind::File(sent(file.parts())))).collect();
        let left = files.len();
        let files = files
            .into_iter()
            .map(|file| StreamFile { file, begun: false, at: 0, hash: digest::Context::new(&digest::SHA256) })
            .collect();
        Ok(Box::new(Stream {
            directory: self,
            label: self.label(),
            files,
            writing: None,
            pending,
            extended: Vec::new(),
            left,
        }))
    }

    fn is_far(&self) -> bool {
        true
    }

    /// A stream broke, or the API server was away.
    fn may_pass(&self, error: &EngineError) -> bool {
        match error {
            EngineError::Io { source, .. } => {
                !matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::PermissionDenied)
            }
            EngineError::Platform(error) => !matches!(error, PlatformError::Forbidden { .. }),
            _ => false,
        }
    }

    fn finish(&self) -> Result<(), EngineError> {
        let with_root = self.filler.may_change_root().map_err(place_of(self.label()))?;
        let folders =
            self.captured.entries.iter().filter(|entry| {
                matches!(entry.content, EntryContent::Directory) && (with_root || !entry.path.is_empty())
            });
        self.write(folders.map(|captured| (entry(captured, WriteKind::Directory), &[][..])).collect())
    }
}

/// Whether a path is of what a file system or an earlier restore has put there.
fn is_apart(path: &str) -> bool {
    path.split('/').any(|part| part == "lost+found" || is_aside(part))
}

/// Bytes of a file that are sent: up to the end of its last part.
fn sent(parts: &[Part]) -> u64 {
    parts.last().map_or(0, |part| part.offset + part.len)
}

/// Files on their way into a volume.
struct Stream<'s, 'f> {
    directory: &'s DirectoryToFill<'f>,
    label: String,
    files: Vec<StreamFile<'s>>,
    /// Opened by the first file that is not there yet.
    writing: Option<Writing>,
    pending: Vec<WriteEntry>,
    /// Files that end in a hole, with their sizes.
    extended: Vec<(String, u64)>,
    left: usize,
}

struct StreamFile<'s> {
    file: FileToWrite<'s>,
    begun: bool,
    at: u64,
    hash: digest::Context,
}

impl Stream<'_, '_> {
    /// Takes the next bytes of a file.
    fn put(&mut self, number: usize, bytes: &[u8]) -> Result<(), EngineError> {
        let label = &self.label;
        let wrong = |error| place_of(label)(error);
        let Some(file) = self.files.get_mut(number) else { return Ok(()) };
        file.at += bytes.len() as u64;
        file.hash.update(bytes);
        if file.file.wants != Wants::Bytes {
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
}

impl Sink for Stream<'_, '_> {
    fn write(&mut self, number: usize, offset: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let at = self.files.get(number).map_or(offset, |file| file.at);
        let Some(mut hole) = offset.checked_sub(at) else {
            return Err(place_of(&self.label)(io::Error::other("bytes arrived out of order")));
        };
        while hole > 0 {
            let zeros = usize::try_from(hole.min(1 << 20)).unwrap_or(1 << 20);
            self.put(number, &vec![0; zeros])?;
            hole -= zeros as u64;
        }
        self.put(number, bytes)
    }

    fn finish(&mut self, number: usize) -> Result<(), EngineError> {
        // An empty file is begun, too.
        self.put(number, &[])?;
        let Some(file) = self.files.get_mut(number) else { return Ok(()) };
        let (entry, size) = (file.file.entry, file.file.entry.size());
        // Nobody knows what the node has written where the captured file has a hole.
        while self.directory.from_snapshot && file.file.wants == Wants::Check && file.at < size {
            let zeros = usize::try_from((size - file.at).min(1 << 20)).unwrap_or(1 << 20);
            file.hash.update(&vec![0; zeros]);
            file.at += zeros as u64;
        }
        let hash = std::mem::replace(&mut file.hash, digest::Context::new(&digest::SHA256));
        self.directory.note(&entry.path, hash, file.at, size);
        if file.file.wants == Wants::Bytes && size > file.at {
            self.extended.push((entry.path.clone(), size));
        }
        self.left -= 1;
        if self.left == 0 {
            if let Some(writing) = self.writing.take() {
                writing.finish().map_err(place_of(&self.label))?;
            }
            self.directory.filler.extend(&self.extended).map_err(place_of(&self.label))?;
        }
        Ok(())
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
            out.push(format!("{} files hashed inside the volumes: each equals the captured one", self.files));
        }
        if !self.channels.is_empty() {
            out.push(format!(
                "{} channels: every block checked up to the recorded height and header hash while its files were written",
                self.channels.len()
            ));
        }
        out
    }
}

/// How often files that are not what was written are written again.
const REWRITES: usize = 2;

/// Fills every directory and proves it: what was written, or was found written by an earlier run, is hashed where it lies. A file that does
/// not hold is written again; one that nobody wrote is somebody else's.
pub(super) fn fill_all(
    directories: &[&DirectoryToFill<'_>],
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<Proof, EngineError> {
    let bytes: u64 = directories.iter().map(|directory| directory.captured.data_bytes()).sum();
    let volumes: Vec<&dyn WriteVolume> = directories.iter().map(|directory| *directory as &dyn WriteVolume).collect();
    let mut channels = BTreeSet::new();
    for entry in directories.iter().flat_map(|directory| &directory.captured.entries) {
        if let EntryContent::File { parts, .. } = &entry.content {
            channels.extend(channel_of(parts).map(str::to_owned));
        }
    }
    for rewrite in 0.. {
        write_all(&volumes, point, reader, threads, bytes, reporter)?;
        let checked = step(reporter, "prove", Some(bytes), || {
            let checked = parallel::map(directories.to_vec(), threads, |directory: &DirectoryToFill<'_>| {
                persistently(&[directory], reporter, || Ok(()), || check(directory, reporter))
            });
            checked.into_iter().collect::<Result<Vec<DirectoryCheck>, EngineError>>()
        })?;
        let files = checked.iter().map(|checked| checked.files).sum();
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
            None => return Ok(Proof { files, channels }),
            Some(difference) if rewrite >= REWRITES => return Err(difference.into()),
            Some(_) => {}
        }
    }
    Ok(Proof::default())
}

/// What a directory's check came to.
#[derive(Default)]
struct DirectoryCheck {
    files: u64,
    /// Files that are not what was written.
    bad: Vec<String>,
    /// Files that are not of this restore.
    foreign: Vec<String>,
}

/// The proof: every file is hashed where it lies.
fn check(directory: &DirectoryToFill<'_>, reporter: &dyn Reporter) -> Result<DirectoryCheck, EngineError> {
    let mut expected: Vec<Expected> = directory.expected().values().cloned().collect();
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    let progress = |bytes| reporter.event(Event::Advance { bytes, blocks: 0 });
    let bad = directory.filler.check(&expected, &progress).map_err(place_of(directory.label()))?;
    let own: BTreeSet<&str> = directory
        .captured
        .entries
        .iter()
        .map(|captured| captured.path.as_str())
        .chain(directory.kept.iter().map(|file| file.entry.path.as_str()))
        .collect();
    let there = directory.filler.list()?;
    let foreign: Vec<String> = there
        .into_iter()
        .filter(|entry| {
            entry.kind != EntryKind::Directory && !own.contains(entry.path.as_str()) && !is_apart(&entry.path)
        })
        .map(|entry| entry.path)
        .collect();
    Ok(DirectoryCheck { files: (expected.len() - bad.len()) as u64, bad, foreign })
}
