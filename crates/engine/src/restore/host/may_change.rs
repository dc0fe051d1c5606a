//! Finds what would keep the changes of a restore from being made, before the first of them (B9): folders that cannot be written to, the
//! attributes immutable and append-only, sticky folders with entries of other users.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_network::{Finding, Remedy, Rule};
use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, access, statx};

use super::plan::{Plan, PlannedDirectory};
use crate::EngineError;
use crate::point::{CapturedDirectory, RecoveryPoint};
use crate::restore::progress::Record;

/// What keeps something from being changed.
pub(super) struct Obstacle {
    path: PathBuf,
    what: &'static str,
    remedy: Remedy,
}

/// Refuses a restore that would end in the middle of its changes.
pub(super) fn check(plan: &mut Plan<'_>, point: &RecoveryPoint, record: &Record) -> Result<(), EngineError> {
    let mut found: BTreeMap<PathBuf, (String, Obstacle)> = BTreeMap::new();
    let mut add = |subject: &dyn ToString, obstacle: Obstacle| {
        found.entry(obstacle.path.clone()).or_insert((subject.to_string(), obstacle));
    };
    for (index, planned) in plan.directories.iter().enumerate() {
        if !planned.equal && !record.is_settled(index) {
            let captured = &point.nodes[planned.node].directories[planned.directory];
            obstacles(planned, captured)?.into_iter().for_each(|obstacle| add(&planned.id, obstacle));
        }
    }
    let folder = plan.journal.parent().unwrap_or(Path::new("/"));
    closed(folder).into_iter().for_each(|obstacle| add(&"the journal of the restore", obstacle));
    plan.findings.extend(found.into_values().map(|(subject, Obstacle { path, what, remedy })| {
        Finding::error(Rule::RoomEnough, subject, format!("{} {what}", path.display()), remedy)
    }));
    Ok(())
}

/// What keeps a directory from being put into its place.
fn obstacles(planned: &PlannedDirectory, captured: &CapturedDirectory) -> Result<Vec<Obstacle>, EngineError> {
    let staging = &planned.staging;
    let mut out = Vec::new();
    for region in &staging.regions {
        out.extend(closed(region.staging.parent().unwrap_or(&region.staging)));
        // Another user's run may have left it.
        out.extend(immovable(&region.staging, true));
    }
    if !staging.is_in_parts() {
        out.extend(immovable(&staging.place, false));
    }
    for folder in staging.fixed.iter().filter(|folder| staging.placed(folder).is_dir()) {
        let path = staging.placed(folder);
        if let Some(obstacle) = closed(&path) {
            out.push(obstacle);
            continue;
        }
        if captured.entries.iter().any(|entry| entry.path == *folder) {
            out.extend(path.metadata().ok().filter(|found| !is_own(found)).map(|_| Obstacle {
                path: path.clone(),
                what: "belongs to another user, who alone may set its mode and time",
                remedy: "run fabkeep as root or as that user".into(),
            }));
        }
        out.extend(staging.entries(folder)?.iter().filter_map(|name| immovable(&path.join(name), true)));
    }
    Ok(out)
}

/// What keeps entries of a folder, or of the nearest one above it that exists, from being made and removed.
pub(super) fn closed(folder: &Path) -> Option<Obstacle> {
    let path = folder.ancestors().find(|path| path.exists())?;
    attribute(path).or_else(|| {
        access(path, Access::WRITE_OK | Access::EXEC_OK).is_err().then(|| Obstacle {
            path: path.to_path_buf(),
            what: "cannot be written to",
            remedy: Remedy::from("mount it for writing and run fabkeep as a user who may write there")
                .or(Remedy::RestoreElsewhere),
        })
    })
}

/// What keeps something from being renamed. A rename `to_other_folder` changes a directory itself.
fn immovable(path: &Path, to_other_folder: bool) -> Option<Obstacle> {
    let found = path.symlink_metadata().ok()?;
    attribute(path).or_else(|| {
        let above = path.parent()?.metadata().ok()?;
        let what = if above.mode() & 0o1000 != 0 && !is_own(&above) && !is_own(&found) {
            "belongs to another user, and the folder that it is in has the sticky bit: this user cannot move it"
        } else if to_other_folder && found.is_dir() && access(path, Access::WRITE_OK).is_err() {
            "is a directory that this user may not write to, and so cannot move"
        } else {
            return None;
        };
        let remedy = Remedy::from("run fabkeep as root or as its owner").or(Remedy::RestoreElsewhere);
        Some(Obstacle { path: path.to_path_buf(), what, remedy })
    })
}

/// Whether this user may do what only an owner may.
pub(super) fn is_own(found: &Metadata) -> bool {
    let user = rustix::process::geteuid();
    user.is_root() || found.uid() == user.as_raw()
}

/// An attribute that keeps everybody, root too, from changing and moving something.
fn attribute(path: &Path) -> Option<Obstacle> {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok()?.stx_attributes;
    let (what, letter) = if found.contains(StatxAttributes::IMMUTABLE) {
        ("is immutable: nobody can change or move it", 'i')
    } else if found.contains(StatxAttributes::APPEND) {
        ("is append-only: nobody can move it, or anything in it", 'a')
    } else {
        return None;
    };
    let remedy = format!("remove the attribute (chattr -{letter} {}), and run the same command again", path.display());
    Some(Obstacle { path: path.to_path_buf(), what, remedy: remedy.into() })
}
