//! Writing a recovery point's files beside their places: block files from the channels' segments, everything else from its blobs; holes
//! stay holes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_store::PointReader;

use super::journal::Journal;
use super::plan::{PlannedDirectory, RestorePlan};
use crate::EngineError;
use crate::content::{Contents, channel_of, is_block_file};
use crate::error::io;
use crate::event::{Event, Reporter};
use crate::parallel;
use crate::point::{CapturedEntry, EntryContent, Part, RecoveryPoint};
use crate::replay::{Sink, Target, replay};

type SharedJournal<'a> = Mutex<&'a mut Journal>;

fn add_file(journal: &SharedJournal<'_>, directory: usize, entry: usize) -> Result<(), EngineError> {
    journal.lock().unwrap_or_else(PoisonError::into_inner).add_file(directory, entry)
}

fn has_file(journal: &SharedJournal<'_>, directory: usize, entry: usize) -> bool {
    journal.lock().unwrap_or_else(PoisonError::into_inner).has_file(directory, entry)
}

/// Writes everything that the journal does not have. Bytes written or found written, holes not counted.
pub(super) fn write_all(
    plan: &RestorePlan,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    journal: &mut Journal,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<u64, EngineError> {
    let pending: Vec<(usize, &PlannedDirectory)> = plan
        .directories
        .iter()
        .enumerate()
        .filter(|(index, _)| journal.placed(*index).is_none() && !journal.has_aside(*index))
        .collect();
    for (_, planned) in &pending {
        for entry in entries(point, planned) {
            if matches!(entry.content, EntryContent::Directory) {
                let path = join(&planned.staging, &entry.path);
                fs::create_dir_all(&path).map_err(io(&path))?;
                // Writable while it is filled, whatever it was.
                fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(io(&path))?;
            }
        }
    }
    for (_, planned) in &pending {
        // What stays of what is there.
        for file in &planned.kept {
            let path = join(&planned.staging, &file.entry.path);
            let open = open(&path, file.entry.size())?;
            open.write_all_at(&file.bytes, 0).map_err(io(&path))?;
            finish_file(&open, &path, &file.entry)?;
        }
    }
    let journal: SharedJournal<'_> = Mutex::new(journal);
    write_files(&pending, point, reader, &journal, threads, reporter)?;
    write_chains(&pending, point, reader, &journal, threads, reporter)?;
    for (_, planned) in &pending {
        finish_directory(planned, point)?;
    }
    Ok(plan.bytes)
}

fn entries<'a>(point: &'a RecoveryPoint, planned: &PlannedDirectory) -> &'a [CapturedEntry] {
    &point.nodes[planned.node].directories[planned.directory].entries
}

pub(super) fn join(root: &Path, path: &str) -> PathBuf {
    if path.is_empty() { root.to_path_buf() } else { root.join(path) }
}

/// Opens a file to be written: new, or what a killed run left of it.
fn open(path: &Path, size: u64) -> Result<File, EngineError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io(folder))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .map_err(io(path))?;
    file.set_len(size).map_err(io(path))?;
    Ok(file)
}

/// Mode, owner and time as captured. The owner can be set by root only; others keep their own.
fn finish_file(file: &File, path: &Path, entry: &CapturedEntry) -> Result<(), EngineError> {
    set_owner(path, entry)?;
    file.set_permissions(Permissions::from_mode(entry.mode)).map_err(io(path))?;
    file.set_modified(time(entry.modified_ns)).map_err(io(path))?;
    file.sync_all().map_err(io(path))
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
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    journal: &SharedJournal<'_>,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<(), EngineError> {
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
    let results = parallel::map(tasks, threads, |(index, position, planned, entry, size, parts)| {
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        let bytes = parts.iter().map(|part| part.len).sum();
        if !has_file(journal, index, position) {
            let path = join(&planned.staging, &entry.path);
            let file = open(&path, size)?;
            for part in parts {
                file.write_all_at(&contents.bytes(&entry.path, part)?, part.offset).map_err(io(&path))?;
            }
            finish_file(&file, &path, entry)?;
            add_file(journal, index, position)?;
        }
        reporter.event(Event::Advance { bytes, blocks: 0 });
        Ok(())
    });
    results.into_iter().collect()
}

/// Block files of one node's channel on their way to the disk.
struct Files<'a, 'j> {
    journal: &'a SharedJournal<'j>,
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

impl Sink for Files<'_, '_> {
    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let Some(file) = self.files.get_mut(file).filter(|file| !file.written) else { return Ok(()) };
        let open = match &file.open {
            Some(open) => open,
            None => file.open.insert(open(&file.path, file.entry.size())?),
        };
        open.write_all_at(bytes, offset).map_err(io(&file.path))
    }

    fn finish(&mut self, file: usize) -> Result<(), EngineError> {
        let Some(file) = self.files.get_mut(file).filter(|file| !file.written) else { return Ok(()) };
        if let Some(open) = file.open.take() {
            finish_file(&open, &file.path, file.entry)?;
        }
        file.written = true;
        add_file(self.journal, self.directory, file.position)
    }
}

fn write_chains(
    pending: &[(usize, &PlannedDirectory)],
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    journal: &SharedJournal<'_>,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<(), EngineError> {
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
                    path: join(&planned.staging, &entry.path),
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
                        sink: Box::new(Files { journal, directory: index, files }),
                    }),
            );
        }
        if !targets.is_empty() {
            replay(reader, channel, targets, false, threads, reporter)?;
        }
    }
    Ok(())
}

/// Links, then modes, owners and times of directories, the deepest first: writing into a directory moves its time.
fn finish_directory(planned: &PlannedDirectory, point: &RecoveryPoint) -> Result<(), EngineError> {
    for entry in entries(point, planned) {
        if let EntryContent::Symlink { target } = &entry.content {
            let path = join(&planned.staging, &entry.path);
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path).map_err(io(&path))?;
            }
            std::os::unix::fs::symlink(target, &path).map_err(io(&path))?;
            set_owner(&path, entry)?;
        }
    }
    for entry in entries(point, planned).iter().rev() {
        if matches!(entry.content, EntryContent::Directory) {
            let path = join(&planned.staging, &entry.path);
            set_owner(&path, entry)?;
            let folder = File::open(&path).map_err(io(&path))?;
            folder.set_modified(time(entry.modified_ns)).map_err(io(&path))?;
            folder.set_permissions(Permissions::from_mode(entry.mode)).map_err(io(&path))?;
            folder.sync_all().map_err(io(&path))?;
        }
    }
    Ok(())
}
