//! Writing a recovery point's files beside their places: block files from the channels' segments, everything else from its blobs; holes
//! stay holes.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fabkeep_ledger::layout::NodeRole;

use super::Run;
use super::disk::Disk;
use super::journal::Journal;
use super::plan::PlannedDirectory;
use super::prove::compare;
use crate::EngineError;
use crate::content::{Contents, channel_of, is_block_file};
use crate::error::io;
use crate::event::Event;
use crate::parallel;
use crate::point::{CapturedEntry, EntryContent, Part, RecoveryPoint};
use crate::replay::{Sink, Target, replay};

type SharedJournal<'a, 'd> = Mutex<&'a mut Journal<'d>>;

fn add_file(journal: &SharedJournal<'_, '_>, directory: usize, entry: usize) -> Result<(), EngineError> {
    journal.lock().unwrap_or_else(PoisonError::into_inner).add_file(directory, entry)
}

fn has_file(journal: &SharedJournal<'_, '_>, directory: usize, entry: usize) -> bool {
    journal.lock().unwrap_or_else(PoisonError::into_inner).has_file(directory, entry)
}

/// Writes everything that the journal does not have. Bytes written or found written, holes not counted.
pub(super) fn write_all(run: &Run<'_>, journal: &mut Journal<'_>) -> Result<u64, EngineError> {
    let (plan, point, disk) = (run.plan, run.point, run.disk);
    let pending: Vec<(usize, &PlannedDirectory)> = plan
        .directories
        .iter()
        .enumerate()
        .filter(|(index, _)| !journal.is_settled(*index) && !journal.has_aside(*index))
        .collect();
    check_written(&pending, run, journal)?;
    for (_, planned) in &pending {
        for entry in entries(point, planned) {
            if matches!(entry.content, EntryContent::Directory) {
                let path = planned.staging.staged(&entry.path);
                disk.make_folders(&path)?;
                // Writable while it is filled, whatever it was.
                disk.set_mode(&path, 0o700)?;
            }
        }
    }
    for (_, planned) in &pending {
        // What stays of what is there.
        for file in &planned.kept {
            let path = planned.staging.staged(&file.entry.path);
            let open = open(&path, file.entry.size(), disk)?;
            open.write_all_at(&file.bytes, 0).map_err(io(&path))?;
            finish_file(&open, &path, &file.entry, disk)?;
        }
    }
    let journal: SharedJournal<'_, '_> = Mutex::new(journal);
    write_files(&pending, run, &journal)?;
    write_chains(&pending, run, &journal)?;
    for (_, planned) in &pending {
        finish_directory(planned, point, disk)?;
    }
    Ok(plan.bytes)
}

/// Reads what an earlier run has written; what is not as it should be is written again.
fn check_written(
    pending: &[(usize, &PlannedDirectory)],
    run: &Run<'_>,
    journal: &mut Journal<'_>,
) -> Result<(), EngineError> {
    let mut written = Vec::new();
    for &(index, planned) in pending {
        for (position, entry) in entries(run.point, planned).iter().enumerate() {
            if let EntryContent::File { size, parts } = &entry.content
                && journal.has_file(index, position)
            {
                written.push((index, position, planned.staging.staged(&entry.path), *size, parts));
            }
        }
    }
    let names = run.reader.names();
    let bad = parallel::map(written, run.threads, |(index, position, path, size, parts)| {
        let is_good =
            path.symlink_metadata().is_ok_and(|found| found.is_file()) && compare(&path, size, parts, names).is_ok();
        (!is_good).then_some((index, position))
    });
    bad.into_iter().flatten().for_each(|(index, position)| journal.forget_file(index, position));
    Ok(())
}

fn entries<'a>(point: &'a RecoveryPoint, planned: &PlannedDirectory) -> &'a [CapturedEntry] {
    &point.nodes[planned.node].directories[planned.directory].entries
}

/// Opens a file to be written.
fn open(path: &Path, size: u64, disk: Disk<'_>) -> Result<File, EngineError> {
    if let Some(folder) = path.parent() {
        disk.make_folders(folder)?;
    }
    disk.create(path, size)
}

/// Mode, owner and time as captured. The owner can be set by root only; others keep their own.
fn finish_file(file: &File, path: &Path, entry: &CapturedEntry, disk: Disk<'_>) -> Result<(), EngineError> {
    disk.changing("finish", path);
    set_owner(path, entry)?;
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

fn set_owner(path: &Path, entry: &CapturedEntry) -> Result<(), EngineError> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(entry.uid), Some(entry.gid)).map_err(io(path))?;
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

fn write_files(
    pending: &[(usize, &PlannedDirectory)],
    run: &Run<'_>,
    journal: &SharedJournal<'_, '_>,
) -> Result<(), EngineError> {
    let (point, reader, disk, reporter) = (run.point, run.reader, run.disk, run.reporter);
    let contents = Contents::new(reader, point);
    let mut tasks = Vec::new();
    for &(index, planned) in pending {
        for (position, entry) in entries(point, planned).iter().enumerate() {
            if let EntryContent::File { size, parts } = &entry.content
                && !is_block_file(parts)
            {
                tasks.push((index, position, planned, entry, *size, parts));
            }
        }
    }
    let results = parallel::map(tasks, run.threads, |(index, position, planned, entry, size, parts)| {
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        let bytes = parts.iter().map(|part| part.len).sum();
        if !has_file(journal, index, position) {
            let path = planned.staging.staged(&entry.path);
            let file = open(&path, size, disk)?;
            for part in parts {
                file.write_all_at(&contents.bytes(&entry.path, part)?, part.offset).map_err(io(&path))?;
            }
            finish_file(&file, &path, entry, disk)?;
            add_file(journal, index, position)?;
        }
        reporter.event(Event::Advance { bytes, blocks: 0 });
        Ok(())
    });
    results.into_iter().collect()
}

/// Block files of one node's channel on their way to the disk.
struct Files<'a, 'j, 'd> {
    journal: &'a SharedJournal<'j, 'd>,
    disk: Disk<'a>,
    directory: usize,
    files: Vec<OpenFile<'a>>,
}

struct OpenFile<'a> {
    position: usize,
    entry: &'a CapturedEntry,
    path: PathBuf,
    written: bool,
    open: Option<File>,
}

impl Sink for Files<'_, '_, '_> {
    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let Some(file) = self.files.get_mut(file).filter(|file| !file.written) else { return Ok(()) };
        let open = match &file.open {
            Some(open) => open,
            None => file.open.insert(open(&file.path, file.entry.size(), self.disk)?),
        };
        open.write_all_at(bytes, offset).map_err(io(&file.path))
    }

    fn finish(&mut self, file: usize) -> Result<(), EngineError> {
        let Some(file) = self.files.get_mut(file).filter(|file| !file.written) else { return Ok(()) };
        if let Some(open) = file.open.take() {
            finish_file(&open, &file.path, file.entry, self.disk)?;
        }
        file.written = true;
        add_file(self.journal, self.directory, file.position)
    }
}

fn write_chains(
    pending: &[(usize, &PlannedDirectory)],
    run: &Run<'_>,
    journal: &SharedJournal<'_, '_>,
) -> Result<(), EngineError> {
    let (point, reader, disk) = (run.point, run.reader, run.disk);
    for channel in &point.channels {
        let mut targets = Vec::new();
        for &(index, planned) in pending {
            let mut chains: BTreeMap<&str, (Vec<Vec<Part>>, Vec<OpenFile<'_>>)> = BTreeMap::new();
            for (position, entry) in entries(point, planned).iter().enumerate() {
                let EntryContent::File { parts, .. } = &entry.content else { continue };
                if channel_of(parts) != Some(channel.name.as_str()) {
                    continue;
                }
                let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let (files, open) = chains.entry(folder).or_default();
                files.push(parts.clone());
                open.push(OpenFile {
                    position,
                    entry,
                    path: planned.staging.staged(&entry.path),
                    written: has_file(journal, index, position),
                    open: None,
                });
            }
            targets.extend(
                chains
                    .into_values()
                    // Nothing is left to write where a killed run wrote every file.
                    .filter(|(_, files)| files.iter().any(|file| !file.written))
                    .map(|(parts, files)| Target {
                        label: planned.id.to_string(),
                        peer: point.nodes[planned.node].facts.role == NodeRole::Peer,
                        files: parts,
                        sink: Box::new(Files { journal, disk, directory: index, files }),
                    }),
            );
        }
        if !targets.is_empty() {
            replay(reader, channel, targets, false, run.threads, run.reporter)?;
        }
    }
    Ok(())
}

/// Links, then modes, owners and times of directories, the deepest first: writing into a directory moves its time. What stays where it is
/// gets them in its place.
fn finish_directory(planned: &PlannedDirectory, point: &RecoveryPoint, disk: Disk<'_>) -> Result<(), EngineError> {
    for entry in entries(point, planned) {
        if let EntryContent::Symlink { target } = &entry.content {
            let path = planned.staging.staged(&entry.path);
            disk.link(target, &path)?;
            set_owner(&path, entry)?;
        }
    }
    for entry in entries(point, planned).iter().rev() {
        if matches!(entry.content, EntryContent::Directory) {
            let path = planned.staging.staged(&entry.path);
            if planned.staging.is_fixed(&entry.path) {
                disk.sync_folder(&path)?;
            } else {
                set_attributes(&path, entry, disk)?;
            }
        }
    }
    // The folder may have no entry of its own.
    planned.staging.regions.iter().try_for_each(|region| disk.sync_folder(&region.staging))
}
