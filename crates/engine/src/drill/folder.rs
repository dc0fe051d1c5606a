//! A drill in a folder of this machine: the data is restored below a folder that the drill makes, proven there, and removed. Nothing is
//! started.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fabkeep_network::NodeFacts;
use fabkeep_platform::{BlockFiles, Platform, ProbeScope};
use rustix::fs::{FlockOperation, flock};

use super::{DrillRequest, Drilled, proof, refused};
use crate::error::io;
use crate::event::step;
use crate::restore::{RestoreOptions, RestoreTarget};
use crate::{EngineError, RestorePlan};

/// What folders of drills are called.
const NAME: &str = "fabkeep-drill-";
/// Digits of the drill's name in that of its folder.
const DIGITS: usize = 12;
/// Says that a drill has made the folder. A running drill holds a lock on it.
const MARK: &str = ".fabkeep-drill";
/// Longest mark that is read, in bytes.
const MAX_MARK_BYTES: u64 = 1024;
/// Below it the network is restored.
const RESTORED: &str = "restored";
const MARK_CONTEXT: &str = "fabkeep 2026 mark of a drill's folder";

/// A folder that this drill has made. It is removed when this is dropped.
struct Scratch {
    path: PathBuf,
    guards: bool,
    /// Locked for as long as the drill runs.
    _mark: fs::File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.guards {
            // `clean` removes what is left.
            let _ = remove(&self.path);
        }
    }
}

fn mark(name: &str) -> String {
    format!("{}\n", blake3::Hash::from_bytes(blake3::derive_key(MARK_CONTEXT, name.as_bytes())).to_hex())
}

fn make(parent: &Path, id: &str) -> Result<Scratch, EngineError> {
    let name = format!("{NAME}{}", id.get(..DIGITS).unwrap_or(id));
    let path = parent.join(&name);
    fs::create_dir_all(parent).map_err(io(parent))?;
    // Only this user: keys of nodes will be in it. One that is there already is nobody's of this drill.
    DirBuilder::new().mode(0o700).create(&path).map_err(io(&path))?;
    let at = path.join(MARK);
    let made = fs::write(&at, mark(&name)).and_then(|()| fs::File::open(&at)).map_err(io(&at))?;
    // Where locks do not exist, `clean` goes by the age alone.
    let _ = flock(&made, FlockOperation::NonBlockingLockExclusive);
    Ok(Scratch { path, guards: true, _mark: made })
}

/// Removes a tree, also below directories that may not be written to.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(path: &Path) -> std::io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    fs::read_dir(path)?.try_for_each(|entry| open_up(&entry?.path()))
}

/// Removes folders that drills have left in this one and that are older than this many seconds; those of running drills stay. Returns what
/// they are.
///
/// # Errors
/// [`EngineError::Io`].
pub fn clean_folder(parent: &Path, older_than_seconds: i64, only_look: bool) -> Result<Vec<String>, EngineError> {
    let mut out = Vec::new();
    for entry in fs::read_dir(parent).map_err(io(parent))? {
        let entry = entry.map_err(io(parent))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let is_folder = entry.file_type().map_err(io(&path))?.is_dir();
        let at = path.join(MARK);
        if !is_folder || !name.starts_with(NAME) || !is_marked(&at, &name) {
            continue;
        }
        let Ok(held) = fs::File::open(&at) else { continue };
        if flock(&held, FlockOperation::NonBlockingLockExclusive)
            .is_err_and(|error| error == rustix::io::Errno::WOULDBLOCK)
        {
            continue;
        }
        let made = held.metadata().and_then(|metadata| metadata.modified()).map_err(io(&at))?;
        let age = SystemTime::now().duration_since(made).map_or(0, |age| age.as_secs());
        if i64::try_from(age).unwrap_or(i64::MAX) < older_than_seconds {
            continue;
        }
        if !only_look {
            remove(&path).map_err(io(&path))?;
        }
        out.push(format!("folder {} (of a drill, {age} s old)", path.display()));
    }
    out.sort();
    Ok(out)
}

fn is_marked(at: &Path, name: &str) -> bool {
    let small = fs::symlink_metadata(at).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_MARK_BYTES);
    small && fs::read_to_string(at).is_ok_and(|text| text == mark(name))
}

pub(super) fn drill(
    asked: &DrillRequest<'_, '_>,
    parent: &Path,
    living: Option<&dyn Platform>,
    drilled: &mut Drilled,
) -> Result<(), EngineError> {
    measure_age(asked, living, drilled);
    let parent = std::path::absolute(parent).map_err(io(parent))?;
    let mut scratch = make(&parent, &drilled.drill.id)?;
    drilled.drill.place = scratch.path.display().to_string();
    drilled.folder = Some(scratch.path.clone());
    let ended = in_scratch(asked, &scratch.path, drilled);
    drilled.drill.rto_seconds = asked.times.elapsed();
    scratch.guards = false;
    if asked.options.keep {
        drilled.kept = true;
    } else if let Err(error) = step(asked.times, "tear down", None, || remove(&scratch.path)) {
        drilled.left.push(format!("folder {}: {error}", scratch.path.display()));
    }
    ended
}

/// Returns what a drill of a recovery point into a folder would do.
pub(super) fn planned<'a>(asked: &DrillRequest<'a, '_>, parent: &Path) -> Result<RestorePlan<'a>, EngineError> {
    plan(asked, &parent.join(format!("{NAME}{}", "0".repeat(DIGITS))))
}

fn plan<'a>(asked: &DrillRequest<'a, '_>, path: &Path) -> Result<RestorePlan<'a>, EngineError> {
    let target = RestoreTarget::Folder(path.join(RESTORED));
    let options = RestoreOptions { start: false, replace: false, missing: false, ..asked.options.restore.clone() };
    RestorePlan::make(asked.repository, asked.commit, asked.identity, &target, &options)
}

fn in_scratch(asked: &DrillRequest<'_, '_>, path: &Path, drilled: &mut Drilled) -> Result<(), EngineError> {
    let plan = step(asked.times, "plan", None, || plan(asked, path))?;
    asked.check(&plan, drilled)?;
    asked.interrupted()?;
    if plan.bytes == 0 && plan.files == 0 {
        return Err(refused(
            "the recovery point",
            "it has no files that could be restored",
            "drill another recovery point",
        ));
    }
    let restored = plan.execute(asked.times)?;
    drilled.restored(restored);
    let facts: Vec<&NodeFacts> = plan.point().nodes.iter().map(|node| &node.facts).collect();
    let mut looked = proof::commit_hashes(&facts);
    looked.add(proof::point(&facts, jiff::Timestamp::now()));
    drilled.looked(looked);
    asked.interrupted()?;
    match &asked.options.check {
        Some(command) => step(asked.times, "the check", None, || run_check(asked, path, command, drilled)),
        None => drilled.drill.not_proven.push("what only you can check: no check was given".to_owned()),
    }
    let not = [
        "that nodes start on the data: a drill into a folder starts none",
        "that channels find a leader, and that transactions are endorsed and committed",
        "that certificate authorities answer",
    ];
    drilled.drill.not_proven.extend(not.map(str::to_owned));
    Ok(())
}

fn measure_age(asked: &DrillRequest<'_, '_>, living: Option<&dyn Platform>, drilled: &mut Drilled) {
    if let Some(living) = living {
        drilled.drill.rpo_blocks = step(asked.times, "ask the running network", None, || {
            asked.behind(living, ProbeScope { block_files: BlockFiles::IfSilent, health: false })
        });
    }
    let all = asked.commit.summary.channels.iter().map(|known| known.channel.as_str());
    let unknown: Vec<&str> = all.filter(|channel| !drilled.drill.rpo_blocks.contains_key(*channel)).collect();
    if !unknown.is_empty() {
        let sentence =
            format!("how many blocks the running network has more on {}: no node of it was asked", unknown.join(", "));
        drilled.drill.not_proven.push(sentence);
    }
}

fn run_check(asked: &DrillRequest<'_, '_>, path: &Path, command: &str, drilled: &mut Drilled) {
    let environment = [
        ("FABKEEP_DRILL".to_owned(), drilled.drill.id.clone()),
        ("FABKEEP_DRILL_POINT".to_owned(), asked.commit.id.to_string()),
        ("FABKEEP_DRILL_FOLDER".to_owned(), path.join(RESTORED).display().to_string()),
    ];
    asked.run_check(command, &environment, drilled);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_that_a_drill_has_made_and_left_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        let mut left = make(parent.path(), id).unwrap();
        left.guards = false;
        let path = left.path.clone();
        assert!(make(parent.path(), id).is_err(), "one that is there already is not used");
        // A locked directory inside, as nodes have.
        fs::create_dir_all(path.join("restored/keys")).unwrap();
        fs::set_permissions(path.join("restored/keys"), Permissions::from_mode(0o500)).unwrap();
        // Others that only look like it.
        for name in ["fabkeep-drill-of-mine", "fabkeep-drill-0123456789ff"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        fs::copy(path.join(MARK), parent.path().join("fabkeep-drill-0123456789ff").join(MARK)).unwrap();
        assert_eq!(clean_folder(parent.path(), 0, false).unwrap(), Vec::<String>::new(), "it runs");
        drop(left);
        assert_eq!(clean_folder(parent.path(), 60, false).unwrap(), Vec::<String>::new(), "it is too young");
        assert_eq!(clean_folder(parent.path(), 0, true).unwrap().len(), 1);
        assert!(path.exists());
        assert_eq!(clean_folder(parent.path(), 0, false).unwrap().len(), 1);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_is_removed_whatever_ends_the_drill() {
        let parent = tempfile::tempdir().unwrap();
        let path = make(parent.path(), "0123456789abcdef").map(|scratch| scratch.path.clone()).unwrap();
        assert!(!path.exists());
    }
}
