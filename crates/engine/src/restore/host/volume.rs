//! Writes a directory beside its place.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::NodeId;
use fabkeep_store::NameKey;
use parking_lot::{Mutex, MutexGuard};

use super::Run;
use super::disk::Disk;
use super::finishing::Finishing;
use super::journal::Journal;
use super::plan::PlannedDirectory;
use super::prove::compare;
use super::same_files::{self, SameFile};
use crate::EngineError;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, Part};
use crate::replay::Sink;
use crate::restore::progress::Step;
use crate::restore::write::{FileToWrite, Wants, WriteVolume};
use fabkeep_parallel as parallel;

/// The journal of a run whose threads write files.
pub(super) type SharedJournal<'j, 'd> = Mutex<&'j mut Journal<'d>>;

/// A directory that is still to be written, or gone on with.
pub(super) struct Directory<'f, 'a, 'j, 'd> {
    index: usize,
    planned: &'a PlannedDirectory,
    captured: &'a CapturedDirectory,
    role: NodeRole,
    /// Files in its place that stay.
    same: Vec<SameFile>,
    names: &'a NameKey,
    disk: Disk<'a>,
    journal: &'a SharedJournal<'j, 'd>,
    finishing: &'f Finishing<'a>,
}

/// Directories that are not in their places yet. Files that an earlier run has written are read: those that are not as they should be are
/// written again.
pub(super) fn pending<'f, 'a, 'j, 'd>(
    run: &'a Run<'_>,
    journal: &'a SharedJournal<'j, 'd>,
    finishing: &'f Finishing<'a>,
) -> Vec<Directory<'f, 'a, 'j, 'd>> {
    let names = run.whole.reader.names();
    let mut directories: Vec<Directory<'_, '_, '_, '_>> = run
        .plan
        .directories
        .iter()
        .enumerate()
        .map(|(index, planned)| {
            let node = &run.point.nodes[planned.node];
            let captured = &node.directories[planned.directory];
            let (role, same) = (node.facts.role, planned.same.clone().unwrap_or_default());
            Directory { index, planned, captured, role, same, names, disk: run.disk, journal, finishing }
        })
        .filter(|one| !one.journal().is_settled(one.index) && !one.journal().has_aside(one.index))
        .collect();
    let mut written = Vec::new();
    for one in &directories {
        for (position, entry) in one.captured.entries.iter().enumerate() {
            if let EntryContent::File { size, parts } = &entry.content
                && one.journal().has_file(one.index, position)
            {
                written.push((one, position, one.planned.staging.staged(&entry.path), *size, parts));
            }
        }
    }
    parallel::map(written, run.threads, |(one, position, path, size, parts)| {
        let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
        if !is_file || compare(&path, size, parts, names).is_err() {
            let mut journal = one.journal();
            journal.forget(&Step::File { directory: one.index, entry: position });
            journal.forget(&Step::Kept { directory: one.index, entry: position });
        }
    });
    // Nodes that this run has stopped, and what an earlier run has begun.
    let unknown: Vec<usize> = (0..directories.len())
        .filter(|&one| {
            run.options.replace && directories[one].planned.occupied && directories[one].planned.same.is_none()
        })
        .collect();
    let places: Vec<_> = unknown.iter().map(|&one| (directories[one].planned, directories[one].captured)).collect();
    for (one, same) in unknown.into_iter().zip(same_files::find(&places, names, run.threads)) {
        directories[one].same = same;
    }
    directories
}

impl<'j, 'd> Directory<'_, '_, 'j, 'd> {
    fn journal(&self) -> MutexGuard<'_, &'j mut Journal<'d>> {
        self.journal.lock()
    }

    /// Opens a file to be written.
    fn open(&self, path: &Path, size: u64) -> Result<File, EngineError> {
        if let Some(folder) = path.parent() {
            self.disk.make_folders(folder)?;
        }
        self.disk.create(path, size)
    }
}

impl WriteVolume for Directory<'_, '_, '_, '_> {
    fn node(&self) -> (&NodeId, NodeRole) {
        (&self.planned.id, self.role)
    }

    fn entries(&self) -> &[CapturedEntry] {
        &self.captured.entries
    }

    fn begin(&self) -> Result<(), EngineError> {
        let staging = &self.planned.staging;
        for entry in self.captured.entries.iter().filter(|entry| matches!(entry.content, EntryContent::Directory)) {
            let path = staging.staged(&entry.path);
            self.disk.make_private(&path)?;
            // Writable while it is filled, whatever it was.
            self.disk.set_mode(&path, 0o700)?;
        }
        for file in &self.planned.kept {
            let path = staging.staged(&file.entry.path);
            let open = self.open(&path, file.entry.size())?;
            open.write_all_at(&file.bytes, 0).map_err(io(&path))?;
            finish_file(&open, &path, &file.entry, self.disk)?;
        }
        for file in self.same.iter().filter(|file| !self.journal().has_file(self.index, file.position)) {
            let entry = &self.captured.entries[file.position];
            if same_files::keep(file, staging, entry, self.disk)? {
                self.journal().add(Step::Kept { directory: self.index, entry: file.position })?;
            }
        }
        Ok(())
    }

    fn wants(&self, position: usize, _: &CapturedEntry) -> Wants {
        if self.journal().has_file(self.index, position) { Wants::Nothing } else { Wants::Bytes }
    }

    fn there(&self, entry: &CapturedEntry, part: &Part) -> Option<Vec<u8>> {
        if !self.planned.occupied {
            return None;
        }
        let file = File::open(self.planned.staging.unlinked(&entry.path)?).ok()?;
        let found = file.metadata().ok().filter(|found| found.is_file() && found.len() == entry.size());
        found.filter(|found| part.offset.checked_add(part.len).is_some_and(|end| end <= found.len()))?;
        let mut bytes = vec![0; usize::try_from(part.len).ok()?];
        file.read_exact_at(&mut bytes, part.offset).ok()?;
        (self.names.name(&bytes) == *part.content.hash()).then_some(bytes)
    }

    fn stream<'s>(&'s self, files: Vec<FileToWrite<'s>>) -> Result<Box<dyn Sink + 's>, EngineError> {
        let open = |file: FileToWrite<'s>| (file, self.planned.staging.staged(&file.entry.path), None);
        Ok(Box::new(Files { directory: self, files: files.into_iter().map(open).collect() }))
    }

    fn is_far(&self) -> bool {
        false
    }

    fn may_pass(&self, _: &EngineError) -> bool {
        false
    }

    /// Links, then modes, owners and times of directories, the deepest first: writing into a directory moves its time. What stays where it
    /// is gets them in its place.
    fn finish(&self) -> Result<(), EngineError> {
        let staging = &self.planned.staging;
        for entry in &self.captured.entries {
            if let EntryContent::Symlink { target } = &entry.content {
                let path = staging.staged(&entry.path);
                self.disk.link(target, &path)?;
                set_owner(&path, entry)?;
            }
        }
        for entry in self.captured.entries.iter().rev() {
            if matches!(entry.content, EntryContent::Directory) {
                let path = staging.staged(&entry.path);
                if staging.is_fixed(&entry.path) {
                    self.disk.sync_folder(&path)?;
                } else {
                    set_attributes(&path, entry, self.disk)?;
                }
            }
        }
        // The folder may have no entry of its own.
        staging.regions.iter().try_for_each(|region| self.disk.sync_folder(&region.staging))
    }
}

/// Files on their way to the disk, each with its path.
struct Files<'s, 'f, 'a, 'j, 'd> {
    directory: &'s Directory<'f, 'a, 'j, 'd>,
    files: Vec<(FileToWrite<'s>, PathBuf, Option<File>)>,
}

impl Files<'_, '_, '_, '_, '_> {
    /// Opens a file once; `None` when it is written already.
    fn opened(&mut self, number: usize) -> Result<Option<(&CapturedEntry, &Path, &File)>, EngineError> {
        let directory = self.directory;
        let Some((file, path, open)) = self.files.get_mut(number) else { return Ok(None) };
        if file.wants == Wants::Nothing {
            return Ok(None);
        }
        let open = match open {
            Some(open) => open,
            None => open.insert(directory.open(path, file.entry.size())?),
        };
        Ok(Some((file.entry, path, open)))
    }
}

impl Sink for Files<'_, '_, '_, '_, '_> {
    fn write(&mut self, number: usize, offset: u64, bytes: &[u8]) -> Result<(), EngineError> {
        match self.opened(number)? {
            Some((_, path, open)) => open.write_all_at(bytes, offset).map_err(io(path)),
            None => Ok(()),
        }
    }

    fn finish(&mut self, number: usize) -> Result<(), EngineError> {
        if self.opened(number)?.is_none() {
            return Ok(());
        }
        let (file, path, open) = &mut self.files[number];
        let Some(open) = open.take() else { return Ok(()) };
        let (path, position) = (std::mem::take(path), file.position);
        let Directory { index, captured, disk, journal, .. } = *self.directory;
        self.directory.finishing.finish(move || {
            finish_file(&open, &path, &captured.entries[position], disk)?;
            journal.lock().add(Step::File { directory: index, entry: position })
        })
    }
}

/// Mode, owner and time as captured. The owner can be set by root only; others keep their own.
fn finish_file(file: &File, path: &Path, entry: &CapturedEntry, disk: Disk<'_>) -> Result<(), EngineError> {
    disk.changing("finish", path);
    if rustix::process::geteuid().is_root() {
        fchown(file, Some(entry.uid), Some(entry.gid)).map_err(io(path))?;
    }
    file.set_permissions(Permissions::from_mode(entry.mode)).map_err(io(path))?;
    file.set_modified(time(entry.modified_ns)).map_err(io(path))?;
    file.sync_all().map_err(io(path))
}

/// The same of a directory.
pub(super) fn set_attributes(path: &Path, entry: &CapturedEntry, disk: Disk<'_>) -> Result<(), EngineError> {
    disk.changing("finish", path);
    set_owner(path, entry)?;
    let folder = File::open(path).map_err(io(path))?;
    folder.set_modified(time(entry.modified_ns)).map_err(io(path))?;
    folder.set_permissions(Permissions::from_mode(entry.mode)).map_err(io(path))?;
    folder.sync_all().map_err(io(path))
}

/// Whether something has the attributes that it was captured with, as far as this user may set them.
pub(super) fn has_attributes(path: &Path, entry: &CapturedEntry) -> bool {
    path.symlink_metadata().is_ok_and(|found| {
        let modified = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        let own = !rustix::process::geteuid().is_root() || (found.uid(), found.gid()) == (entry.uid, entry.gid);
        own && found.mode() & 0o7777 == entry.mode & 0o7777 && modified == entry.modified_ns
    })
}

fn set_owner(path: &Path, entry: &CapturedEntry) -> Result<(), EngineError> {
    if rustix::process::geteuid().is_root() {
        lchown(path, Some(entry.uid), Some(entry.gid)).map_err(io(path))?;
    }
    Ok(())
}

fn time(nanoseconds: i128) -> SystemTime {
    let amount = |value: i128| Duration::from_nanos(u64::try_from(value).unwrap_or(u64::MAX));
    if nanoseconds >= 0 {
        SystemTime::UNIX_EPOCH + amount(nanoseconds)
    } else {
        SystemTime::UNIX_EPOCH - amount(-nanoseconds)
    }
}
