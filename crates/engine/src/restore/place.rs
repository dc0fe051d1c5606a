//! Putting written directories into their places.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fabkeep_store::NameKey;

use super::RestoredDirectory;
use super::journal::Journal;
use super::plan::{PlannedDirectory, RestorePlan};
use super::prove::is_as_captured;
use crate::EngineError;
use crate::error::io;
use crate::point::RecoveryPoint;

/// Leaves directories alone that are already as they were captured: keys and configuration often are.
pub(super) fn keep_equal(
    plan: &RestorePlan,
    point: &RecoveryPoint,
    names: &NameKey,
    journal: &mut Journal,
) -> Result<(), EngineError> {
    for (index, planned) in plan.directories.iter().enumerate() {
        let captured = &point.nodes[planned.node].directories[planned.directory];
        let touched = journal.placed(index).is_some() || journal.has_aside(index) || planned.staging.exists();
        if planned.occupied && !touched && is_as_captured(&planned.place, captured, names) {
            journal.add_placed(index, None)?;
        }
    }
    Ok(())
}

/// Makes the folders that directories are written into. A first run wants them new; a run that goes on keeps what is in them.
pub(super) fn prepare(plan: &RestorePlan, journal: &mut Journal) -> Result<(), EngineError> {
    for (index, planned) in plan.directories.iter().enumerate() {
        if journal.placed(index).is_some() || journal.has_aside(index) {
            continue;
        }
        if planned.staging.exists() && !journal.is_resumed() {
            // Left by a run whose journal is gone: its content is not known to be good.
            fs::remove_dir_all(&planned.staging).map_err(io(&planned.staging))?;
        }
        fs::create_dir_all(&planned.staging).map_err(io(&planned.staging))?;
    }
    Ok(())
}

/// Puts every directory into its place: what is there goes aside first. Each step is a rename, written down when it is done.
pub(super) fn switch_all(plan: &RestorePlan, journal: &mut Journal) -> Result<Vec<RestoredDirectory>, EngineError> {
    let mut restored = Vec::new();
    for (index, planned) in plan.directories.iter().enumerate() {
        let aside = match journal.placed(index) {
            Some(aside) => aside,
            None => {
                let aside = switch(index, planned, journal)?;
                journal.add_placed(index, aside.clone())?;
                aside
            }
        };
        restored.push(RestoredDirectory {
            node: planned.id.to_string(),
            path: planned.place.clone(),
            set_aside: aside,
        });
    }
    Ok(restored)
}

fn switch(index: usize, planned: &PlannedDirectory, journal: &mut Journal) -> Result<Option<PathBuf>, EngineError> {
    if planned.mounted {
        return switch_inside(planned);
    }
    // A kill between the renames leaves the place empty and the data aside: then the staged directory is all there is to move.
    let aside = planned.aside.exists().then(|| planned.aside.clone());
    let aside = if journal.has_aside(index) || (aside.is_some() && !planned.place.exists()) {
        aside
    } else if planned.place.exists() {
        let empty = fs::read_dir(&planned.place).map_err(io(&planned.place))?.next().is_none();
        if empty && planned.staging.exists() {
            fs::remove_dir(&planned.place).map_err(io(&planned.place))?;
            None
        } else if planned.staging.exists() {
            let aside = free_name(&planned.aside);
            fs::rename(&planned.place, &aside).map_err(io(&planned.place))?;
            Some(aside)
        } else {
            aside
        }
    } else {
        None
    };
    journal.add_aside(index)?;
    if planned.staging.exists() {
        fs::rename(&planned.staging, &planned.place).map_err(io(&planned.staging))?;
    }
    if let Some(parent) = planned.place.parent() {
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(io(parent))?;
    }
    Ok(aside)
}

/// A mount point cannot be renamed: what is in it moves into a folder inside, then the staged entries move up.
fn switch_inside(planned: &PlannedDirectory) -> Result<Option<PathBuf>, EngineError> {
    // What goes aside goes into one folder, however often the run is killed: the first marker names it. Staged entries that a killed run
    // has moved up already must not go aside: the second says so.
    let (naming, moving) = (planned.staging.with_extension("aside"), planned.staging.with_extension("moving"));
    let aside = match fs::read_to_string(&naming) {
        Ok(name) if !name.is_empty() => planned.place.join(name),
        _ => {
            let aside = free_name(&planned.aside);
            let name = aside.file_name().unwrap_or_default().as_encoded_bytes();
            fs::write(&naming, name).map_err(io(&naming))?;
            aside
        }
    };
    let is_own = |path: &Path| {
        [&planned.staging, &naming, &moving].contains(&&path.to_path_buf())
            || is_aside(path, &planned.aside)
            || path == planned.place.join("lost+found")
    };
    let mut staged: Vec<PathBuf> = Vec::new();
    if planned.staging.exists() {
        for entry in fs::read_dir(&planned.staging).map_err(io(&planned.staging))? {
            staged.push(entry.map_err(io(&planned.staging))?.path());
        }
    }
    if !moving.exists() {
        for entry in fs::read_dir(&planned.place).map_err(io(&planned.place))? {
            let path = entry.map_err(io(&planned.place))?.path();
            if !is_own(&path) {
                fs::create_dir_all(&aside).map_err(io(&aside))?;
                let to = aside.join(path.file_name().unwrap_or_default());
                fs::rename(&path, &to).map_err(io(&path))?;
            }
        }
        File::create(&moving).map_err(io(&moving))?;
    }
    for path in staged {
        let to = planned.place.join(path.file_name().unwrap_or_default());
        fs::rename(&path, &to).map_err(io(&path))?;
    }
    if planned.staging.exists() {
        fs::remove_dir(&planned.staging).map_err(io(&planned.staging))?;
    }
    fs::remove_file(&moving).map_err(io(&moving))?;
    fs::remove_file(&naming).map_err(io(&naming))?;
    Ok(aside.exists().then_some(aside))
}

/// A name that nothing has: data set aside by an earlier restore of the same point stays where it is.
pub(super) fn free_name(path: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{number}"));
        path.with_file_name(name)
    };
    if !path.exists() {
        return path.to_path_buf();
    }
    (1..).map(numbered).find(|name| !name.exists()).unwrap_or_else(|| path.to_path_buf())
}

/// Whether a path is the name for what is set aside, or a numbered one of it.
pub(super) fn is_aside(path: &Path, aside: &Path) -> bool {
    let (path, aside) = (path.display().to_string(), aside.display().to_string());
    path.strip_prefix(&aside).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('.').is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

/// What was set aside last.
pub(super) fn newest_aside(aside: &Path) -> Option<PathBuf> {
    let mut newest = aside.exists().then(|| aside.to_path_buf());
    for number in 1.. {
        let name = PathBuf::from(format!("{}.{number}", aside.display()));
        if !name.exists() {
            break;
        }
        newest = Some(name);
    }
    newest
}
