//! Puts written directories into place. Existing data is set aside first. Each step is a rename that is recorded in the journal after it is
//! on the disk; a run after a kill determines from the journal and from the directories how far the previous run got.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fabkeep_store::NameKey;

use super::disk::Disk;
use super::journal::Journal;
use super::plan::{Plan, PlannedDirectory};
use super::prove::is_as_captured;
use super::same_files::release;
use super::staging::{Staging, free_name};
use super::volume::set_attributes;
use crate::EngineError;
use crate::error::io;
use crate::point::{EntryContent, RecoveryPoint};
use crate::restore::RestoredDirectory;
use crate::restore::progress::Step;

/// Leaves directories alone that are already as they were captured: keys and configuration often are. Those of nodes that were stopped for
/// the restore are looked at now.
pub(super) fn keep_equal(
    plan: &Plan<'_>,
    point: &RecoveryPoint,
    names: &NameKey,
    journal: &mut Journal<'_>,
) -> Result<(), EngineError> {
    for (index, planned) in plan.directories.iter().enumerate() {
        let touched = journal.is_switching(index) || journal.is_equal(index) || planned.staging.is_staged();
        let stopped = || plan.to_stop.contains(&planned.id);
        let is_equal = || planned.equal || (stopped() && is_as_captured(planned, captured(point, planned), names));
        if planned.occupied && !touched && is_equal() {
            journal.note(Step::Equal { directory: index })?;
        }
    }
    Ok(())
}

fn captured<'a>(point: &'a RecoveryPoint, planned: &PlannedDirectory) -> &'a crate::point::CapturedDirectory {
    &point.nodes[planned.node].directories[planned.directory]
}

/// Makes the folders that directories are written into. A first run wants them new; a run that goes on keeps what is in them.
pub(super) fn prepare(plan: &Plan<'_>, journal: &Journal<'_>, disk: Disk<'_>) -> Result<(), EngineError> {
    for (index, planned) in plan.directories.iter().enumerate() {
        if journal.is_settled(index) || journal.has_aside(index) {
            continue;
        }
        for region in &planned.staging.regions {
            if region.staging.symlink_metadata().is_ok() && !journal.is_resumed() {
                // Left by a run whose journal is gone: its content is not known to be good.
                disk.remove_tree(&region.staging)?;
            }
            disk.make_private(&region.staging)?;
        }
    }
    Ok(())
}

/// Goes on with directories that an earlier run had begun to put into place when the way was free for them already.
pub(super) fn finish_begun(
    plan: &Plan<'_>,
    point: &RecoveryPoint,
    journal: &mut Journal<'_>,
    disk: Disk<'_>,
) -> Result<(), EngineError> {
    for (index, planned) in plan.directories.iter().enumerate() {
        if journal.has_aside(index) && !journal.is_placed(index) {
            put_into_place(index, planned, point, journal, disk)?;
        }
    }
    Ok(())
}

/// Puts every directory into its place: what is there goes aside first.
pub(super) fn switch_all(
    plan: &Plan<'_>,
    point: &RecoveryPoint,
    journal: &mut Journal<'_>,
    disk: Disk<'_>,
) -> Result<Vec<RestoredDirectory>, EngineError> {
    let mut restored = Vec::new();
    for (index, planned) in plan.directories.iter().enumerate() {
        if journal.is_equal(index) {
            continue;
        }
        if !journal.is_settled(index) {
            if !journal.has_aside(index) {
                set_aside(index, planned, journal, disk)?;
            }
            put_into_place(index, planned, point, journal, disk)?;
        }
        let mut asides: Vec<(PathBuf, Option<PathBuf>)> = journal
            .asides(index)
            .filter(|(_, to)| to.exists())
            .filter_map(|(region, to)| Some((planned.staging.regions.get(region)?.at.clone(), Some(to.to_path_buf()))))
            .collect();
        if asides.is_empty() {
            asides.push((planned.staging.place.clone(), None));
        }
        let node = planned.id.to_string();
        restored.extend(asides.into_iter().map(|(path, set_aside)| RestoredDirectory {
            node: node.clone(),
            path,
            set_aside,
        }));
    }
    Ok(restored)
}

/// A folder for what is in a part of a place: the one that an earlier run chose, else a new one. Where the place itself gets the name, it
/// must be free.
fn aside_name(
    index: usize,
    region: usize,
    staging: &Staging,
    journal: &mut Journal<'_>,
) -> Result<PathBuf, EngineError> {
    let is_usable = |to: &Path| staging.is_in_parts() || to.symlink_metadata().is_err();
    let known = journal.asides(index).find(|(of, to)| *of == region && is_usable(to)).map(|(_, to)| to.to_path_buf());
    if let Some(known) = known {
        return Ok(known);
    }
    let to = free_name(&staging.regions[region].aside);
    journal.note(Step::SettingAside { directory: index, region, to: to.clone() })?;
    Ok(to)
}

/// Sets aside what is in a place.
fn set_aside(
    index: usize,
    planned: &PlannedDirectory,
    journal: &mut Journal<'_>,
    disk: Disk<'_>,
) -> Result<(), EngineError> {
    let staging = &planned.staging;
    if staging.is_in_parts() {
        for folder in &staging.fixed {
            let names = staging.entries(folder)?;
            set_entries_aside(index, folder, &names, staging, journal, disk)?;
        }
    } else {
        // A kill behind the rename leaves no place.
        free_place(index, staging, journal, disk)?;
    }
    journal.note(Step::Aside { directory: index })
}

/// Moves what has these names out of a folder that stays.
fn set_entries_aside(
    index: usize,
    folder: &str,
    names: &[OsString],
    staging: &Staging,
    journal: &mut Journal<'_>,
    disk: Disk<'_>,
) -> Result<(), EngineError> {
    if names.is_empty() {
        return Ok(());
    }
    let root = &staging.region_of(folder).root;
    let region = staging.regions.iter().position(|region| region.root == *root).unwrap_or(0);
    let root = aside_name(index, region, staging, journal)?;
    disk.make_private(&root)?;
    let to = staging.aside_of(folder, &root);
    disk.make_folders(&to)?;
    let from = staging.placed(folder);
    for name in names {
        disk.rename(&from.join(name), &free_name(&to.join(name)))?;
    }
    disk.sync_folder(&to)?;
    disk.sync_folder(&from)
}

/// Moves a whole place, or removes an empty one.
fn free_place(index: usize, staging: &Staging, journal: &mut Journal<'_>, disk: Disk<'_>) -> Result<(), EngineError> {
    if !staging.place.exists() {
        return Ok(());
    }
    let empty = std::fs::read_dir(&staging.place).map_err(io(&staging.place))?.next().is_none();
    if empty {
        disk.remove_folder(&staging.place)?;
    } else {
        let to = aside_name(index, 0, staging, journal)?;
        disk.rename(&staging.place, &to)?;
    }
    sync_above(&staging.place, disk)
}

fn sync_above(path: &Path, disk: Disk<'_>) -> Result<(), EngineError> {
    path.parent().map_or(Ok(()), |folder| disk.sync_folder(folder))
}

/// Moves what was written into a place that is free.
fn put_into_place(
    index: usize,
    planned: &PlannedDirectory,
    point: &RecoveryPoint,
    journal: &mut Journal<'_>,
    disk: Disk<'_>,
) -> Result<(), EngineError> {
    let staging = &planned.staging;
    let asides: Vec<(usize, PathBuf)> = journal.asides(index).map(|(part, to)| (part, to.to_path_buf())).collect();
    release(planned, captured(point, planned), &asides, disk)?;
    if staging.is_in_parts() {
        for folder in &staging.fixed {
            let (from, to) = (staging.staged(folder), staging.placed(folder));
            disk.make_folders(&to)?;
            for name in staged_names(staging, folder, &from)? {
                if to.join(&name).symlink_metadata().is_ok() {
                    // Something came after the place was free.
                    set_entries_aside(index, folder, std::slice::from_ref(&name), staging, journal, disk)?;
                }
                disk.rename(&from.join(&name), &to.join(&name))?;
            }
            disk.sync_folder(&to)?;
        }
        for entry in captured(point, planned).entries.iter().rev() {
            if matches!(entry.content, EntryContent::Directory) && staging.is_fixed(&entry.path) {
                set_attributes(&staging.placed(&entry.path), entry, disk)?;
            }
        }
        for region in staging.regions.iter().filter(|region| region.staging.exists()) {
            // Only folders that stay are left in it.
            disk.remove_tree(&region.staging)?;
            sync_above(&region.staging, disk)?;
        }
    } else if staging.regions[0].staging.exists() {
        // Something may have come after the place was free.
        free_place(index, staging, journal, disk)?;
        disk.rename(&staging.regions[0].staging, &staging.place)?;
        sync_above(&staging.place, disk)?;
    } else if !staging.place.exists() {
        return Err(io(&staging.place)(std::io::ErrorKind::NotFound.into()));
    }
    journal.note(Step::Placed { directory: index })
}

/// Names of what was written into a folder that stays, and has to be moved there.
fn staged_names(staging: &Staging, folder: &str, from: &Path) -> Result<Vec<OsString>, EngineError> {
    let mut out = Vec::new();
    let found = match std::fs::read_dir(from) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        Err(error) => return Err(io(from)(error)),
    };
    for entry in found {
        let name = entry.map_err(io(from))?.file_name();
        // Names that a restore wrote are UTF-8.
        let shown = name.to_string_lossy();
        let path = if folder.is_empty() { shown.into_owned() } else { format!("{folder}/{shown}") };
        if !staging.is_fixed(&path) {
            out.push(name);
        }
    }
    out.sort();
    Ok(out)
}
