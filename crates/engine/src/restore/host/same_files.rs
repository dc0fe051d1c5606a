//! Block files that are in a place as they were captured: they stay. Nodes only append to them, so that what is set aside can be
//! made whole again from them. Each gets a second name in the directory that is written; when what is in the place was set aside,
//! its first name goes: no file is in both. What is set aside has a list of them beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_store::NameKey;

use super::disk::Disk;
use super::may_change::{closed, is_own};
use super::plan::PlannedDirectory;
use super::prove::compare;
use super::staging::{Staging, inside, join};
use super::volume::{has_attributes, set_attributes};
use crate::EngineError;
use crate::content::is_block_file;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, Part};
use fabkeep_parallel as parallel;

/// Longest list read, in bytes.
const MAX_LIST_BYTES: u64 = 1 << 26;

/// A file in a place whose bytes are those that were captured, as it was when they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::restore) struct SameFile {
    /// Its position among the directory's entries.
    pub position: usize,
    pub size: u64,
    stamp: Stamp,
}

/// Changes with whatever changes the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    id: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            id: (found.dev(), found.ino()),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

fn id(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().filter(Metadata::is_file).map(|found| (found.dev(), found.ino()))
}

/// The block files of a directory: position, entry, size, parts.
fn block_files(captured: &CapturedDirectory) -> impl Iterator<Item = (usize, &CapturedEntry, u64, &[Part])> {
    captured.entries.iter().enumerate().filter_map(|(position, entry)| match &entry.content {
        // A list has one line for each.
        EntryContent::File { size, parts } if is_block_file(parts) && !entry.path.contains('\n') => {
            Some((position, entry, *size, parts.as_slice()))
        }
        _ => None,
    })
}

/// Returns what a file is if it may stay when its bytes are right: it has no other name that somebody else relies on, and this user may set
/// its attributes and take its name away.
fn candidate(staging: &Staging, entry: &CapturedEntry, size: u64) -> Option<(PathBuf, Stamp)> {
    let path = staging.unlinked(&entry.path)?;
    let found = path.symlink_metadata().ok().filter(|found| found.is_file() && found.len() == size)?;
    let is_named_by_us = || id(&staging.staged(&entry.path)) == Some((found.dev(), found.ino()));
    let is_alone = found.nlink() == 1 || (found.nlink() == 2 && is_named_by_us());
    let may_change = is_alone && is_own(&found) && closed(path.parent()?).is_none();
    may_change.then(|| (path, Stamp::of(&found)))
}

/// Finds the block files of these directories that are there as captured: every byte of them is read.
pub(super) fn find<'a>(
    directories: &[(&'a PlannedDirectory, &'a CapturedDirectory)],
    names: &NameKey,
    threads: usize,
) -> Vec<Vec<SameFile>> {
    let mut tasks = Vec::new();
    for (number, (planned, captured)) in directories.iter().enumerate() {
        for (position, entry, size, parts) in block_files(captured) {
            if let Some((path, stamp)) = candidate(&planned.staging, entry, size) {
                tasks.push((number, position, path, stamp, size, parts));
            }
        }
    }
    let compared = parallel::map(tasks, threads, |(number, position, path, stamp, size, parts)| {
        let is_same = compare(&path, size, parts, names).is_ok();
        is_same.then_some((number, SameFile { position, size, stamp }))
    });
    let mut out = vec![Vec::new(); directories.len()];
    compared.into_iter().flatten().for_each(|(number, file)| out[number].push(file));
    out
}

/// Gives a file that stays a second name in the directory that is written. Returns whether it has it: a file that was changed since it was
/// read, or cannot have another name on its file system, is written anew.
pub(super) fn keep(
    file: &SameFile,
    staging: &Staging,
    entry: &CapturedEntry,
    disk: Disk<'_>,
) -> Result<bool, EngineError> {
    let Some((path, stamp)) = candidate(staging, entry, file.size) else { return Ok(false) };
    if stamp != file.stamp {
        return Ok(false);
    }
    let second = staging.staged(&entry.path);
    if id(&second) != Some(stamp.id) {
        if second.symlink_metadata().is_ok() {
            disk.remove_file(&second)?;
        }
        if disk.second_name(&path, &second).is_err() {
            return Ok(false);
        }
    }
    File::open(&second).and_then(|file| file.sync_all()).map_err(io(&second))?;
    Ok(true)
}

/// Takes the names of files that stay away from what was set aside, and writes the list of them; then they get the captured attributes.
/// `asides`: parts of the directory, and where what was in them is.
pub(super) fn release(
    planned: &PlannedDirectory,
    captured: &CapturedDirectory,
    asides: &[(usize, PathBuf)],
    disk: Disk<'_>,
) -> Result<(), EngineError> {
    let staging = &planned.staging;
    let now = |path: &str| [staging.staged(path), staging.placed(path)].into_iter().find(|path| id(path).is_some());
    for (region, aside) in asides {
        let Some(region) = staging.regions.get(*region).filter(|_| aside.is_dir()) else { continue };
        let mut shared: BTreeMap<PathBuf, String> = BTreeMap::new();
        for (_, entry, size, _) in block_files(captured) {
            let path = inside(&entry.path, &region.root);
            let first = join(aside, path);
            if staging.region_of(&entry.path).root == region.root
                && now(&entry.path).is_some_and(|now| id(&now) == id(&first))
            {
                shared.insert(first, format!("{size} {path}"));
            }
        }
        if shared.is_empty() {
            continue;
        }
        add_to_list(&kept_list(aside), shared.values().cloned(), disk)?;
        for first in shared.keys() {
            disk.remove_file(first)?;
        }
        let folders: BTreeSet<&Path> = shared.keys().filter_map(|first| first.parent()).collect();
        folders.into_iter().try_for_each(|folder| disk.sync_folder(folder))?;
    }
    for (_, entry, _, _) in block_files(captured) {
        if let Some(path) = now(&entry.path).filter(|path| !has_attributes(path, entry)) {
            set_attributes(&path, entry, disk)?;
        }
    }
    Ok(())
}

/// The list of the files that are not in what was set aside because they stay: a size and a path on each line.
pub(in crate::restore) fn kept_list(aside: &Path) -> PathBuf {
    let mut name = aside.file_name().unwrap_or_default().to_os_string();
    name.push(".kept");
    aside.with_file_name(name)
}

/// Adds lines to a list before what they say is true. A run that was killed in between has written the first ones.
fn add_to_list(list: &Path, more: impl Iterator<Item = String>, disk: Disk<'_>) -> Result<(), EngineError> {
    let mut text = String::new();
    if list.symlink_metadata().is_ok_and(|found| found.is_file()) {
        let known = File::open(list).map_err(io(list))?;
        known.take(MAX_LIST_BYTES).read_to_string(&mut text).map_err(io(list))?;
    }
    let mut lines: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    lines.extend(more);
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    disk.write_whole(list, text.as_bytes())
}
