//! Copies of running nodes' databases and logs (P6): made again until one proves consistent.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fabkeep_ledger::layout::{Kind, Place};
use fabkeep_ledger::leveldb::Database;
use fabkeep_ledger::{raft, smartbft};
use fabkeep_platform::{EntryKind, HostVolume, Volume, VolumeEntry};

use super::CaptureOptions;
use super::survey::SurveyedDirectory;
use crate::EngineError;
use crate::error::io;

/// The first pause between two attempts; it grows with each.
const PAUSE: Duration = Duration::from_millis(20);

/// A folder for the copies, readable by its owner only, removed when dropped.
pub(crate) fn scratch(options: &CaptureOptions) -> Result<tempfile::TempDir, EngineError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("fabkeep-");
    match &options.work_folder {
        Some(folder) => builder.tempdir_in(folder).map_err(io(folder)),
        None => builder.tempdir().map_err(io(std::env::temp_dir())),
    }
}

fn target(scratch: &Path, path: &str) -> std::path::PathBuf {
    scratch.join(path.replace('/', "+"))
}

type Copy = Result<(), String>;

/// Copies until `attempt` says that the copy is good. What is wrong with the last one otherwise.
fn until_good(
    path: &str,
    scratch: &Path,
    attempts: u32,
    staged: &mut BTreeMap<String, HostVolume>,
    attempt: impl Fn(&Path) -> Copy,
) -> Result<Option<(String, String)>, EngineError> {
    let target = target(scratch, path);
    let mut problem = String::new();
    for round in 0..attempts.max(1) {
        if round > 0 {
            std::thread::sleep(PAUSE * round.min(50));
            std::fs::remove_dir_all(&target).map_err(io(&target))?;
        }
        std::fs::create_dir_all(&target).map_err(io(&target))?;
        match attempt(&target) {
            Ok(()) => {
                staged.insert(path.to_owned(), HostVolume::new(target));
                return Ok(None);
            }
            Err(why) => problem = why,
        }
    }
    Ok(Some((path.to_owned(), problem)))
}

fn names(directory: &Path) -> Result<Vec<String>, String> {
    let read = std::fs::read_dir(directory).map_err(|error| error.to_string())?;
    let mut names = Vec::new();
    for entry in read {
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn copy(from: &Path, to: &Path, name: &str) -> Copy {
    std::fs::copy(from.join(name), to.join(name)).map(|_| ()).map_err(|error| format!("{name}: {error}"))
}

/// LevelDB: a manifest that does not change while everything it names is copied describes one moment; the log copied beside it is
/// a beginning of the log, as after a crash.
pub(crate) fn copy_database(
    directory: &SurveyedDirectory,
    path: &str,
    scratch: &Path,
    attempts: u32,
    staged: &mut BTreeMap<String, HostVolume>,
) -> Result<Option<(String, String)>, EngineError> {
    let source = directory.volume.local(path);
    until_good(path, scratch, attempts, staged, |to| {
        let version = || -> Result<(Vec<u8>, Vec<u8>), String> {
            let current = std::fs::read(source.join("CURRENT")).map_err(|error| format!("CURRENT: {error}"))?;
            let name = String::from_utf8_lossy(&current).trim().to_owned();
            if name.contains('/') {
                return Err("CURRENT does not name a manifest".to_owned());
            }
            let manifest = std::fs::read(source.join(&name)).map_err(|error| format!("{name}: {error}"))?;
            Ok((current, manifest))
        };
        let before = version()?;
        for name in names(&source)? {
            match name.as_str() {
                "LOCK" | "LOG" | "LOG.old" => {}
                // A file that the version does not need may go while it is copied; the check below tells.
                _ => match copy(&source, to, &name) {
                    Err(problem) if source.join(&name).exists() => return Err(problem),
                    _ => {}
                },
            }
        }
        let name = String::from_utf8_lossy(&before.0).trim().to_owned();
        std::fs::write(to.join("CURRENT"), &before.0).map_err(|error| error.to_string())?;
        std::fs::write(to.join(&name), &before.1).map_err(|error| error.to_string())?;
        if version()? != before {
            return Err("the database was compacted meanwhile".to_owned());
        }
        Database::open(to).and_then(|database| database.check()).map(|_| ()).map_err(|error| error.to_string())
    })
}

/// Raft logs: each file grows at its end, and a checksum runs through all of them.
pub(crate) fn copy_logs(
    directory: &SurveyedDirectory,
    path: &str,
    scratch: &Path,
    attempts: u32,
    staged: &mut BTreeMap<String, HostVolume>,
) -> Result<Option<(String, String)>, EngineError> {
    let source = directory.volume.local(path);
    until_good(path, scratch, attempts, staged, |to| {
        let mut raft_log = false;
        for name in names(&source)?.into_iter().filter(|name| name.ends_with(".wal") || name.ends_with(".snap")) {
            raft_log |= name.contains('-');
            copy(&source, to, &name)?;
        }
        if raft_log {
            raft::check_wal_directory(to, |_, _| {}).map(|_| ()).map_err(|error| error.to_string())
        } else {
            smartbft::check_wal_directory(to).map(|_| ()).map_err(|error| error.to_string())
        }
    })
}

/// Raft snapshots are written once, under a temporary name first.
pub(crate) fn copy_snapshots(
    directory: &SurveyedDirectory,
    path: &str,
    scratch: &Path,
    staged: &mut BTreeMap<String, HostVolume>,
) -> Result<(), EngineError> {
    // One directory may hold logs too; then it is copied with the logs, snapshots first by their names' order.
    if directory.logs().values().any(|logs| logs == path) {
        return Ok(());
    }
    let source = directory.volume.local(path);
    until_good(path, scratch, 3, staged, |to| {
        names(&source)?.into_iter().filter(|name| name.ends_with(".snap")).try_for_each(|name| copy(&source, to, &name))
    })?;
    Ok(())
}

/// The sqlite databases of a directory.
pub(crate) fn sqlite_files(directory: &SurveyedDirectory) -> Vec<String> {
    directory
        .files(false)
        .filter(|(_, place)| place.kind == Kind::Sqlite)
        .map(|(entry, _)| entry.path.clone())
        .collect()
}

/// sqlite: copied through its own backup interface, which reads one transaction's view.
pub(crate) fn copy_sqlite(
    directory: &SurveyedDirectory,
    path: &str,
    scratch: &Path,
    attempts: u32,
    staged: &mut BTreeMap<String, HostVolume>,
) -> Result<Option<(String, String)>, EngineError> {
    let source = directory.volume.local(path);
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    // Staged under the file's own path: the copy's folder holds this one file.
    let outcome = until_good(&format!("{path}.copy"), scratch, attempts, staged, |to| {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let from = rusqlite::Connection::open_with_flags(&source, flags).map_err(|error| error.to_string())?;
        from.backup("main", to.join(&name), None::<fn(rusqlite::backup::Progress)>).map_err(|error| error.to_string())
    })?;
    if let Some(copy) = staged.remove(&format!("{path}.copy")) {
        staged.insert(path.to_owned(), HostVolume::new(copy.local(&name)));
    }
    Ok(outcome)
}

/// What the copies hold takes the place of what the listing said of those paths.
pub(crate) fn replace_entries(
    directory: &mut SurveyedDirectory,
    staged: &BTreeMap<String, HostVolume>,
    joined_by_snapshot: bool,
) -> Result<(), EngineError> {
    for (path, copy) in staged {
        let inside = format!("{path}/");
        if copy.local("").is_file() {
            let size = copy.local("").metadata().map_err(io(copy.local("")))?.len();
            for (entry, _) in directory.entries.iter_mut().filter(|(entry, _)| entry.path == *path) {
                entry.stamp.size = size;
            }
            // The journal belongs to the moment of the source, the copy is whole without it.
            directory.entries.retain(|(entry, _)| {
                !["-wal", "-shm", "-journal"].iter().any(|suffix| entry.path == format!("{path}{suffix}"))
            });
            continue;
        }
        let originals: BTreeMap<String, VolumeEntry> = directory
            .entries
            .iter()
            .filter(|(entry, _)| entry.path.starts_with(&inside) && entry.kind == EntryKind::File)
            .map(|(entry, _)| (entry.path.clone(), entry.clone()))
            .collect();
        let Some(model) = originals.values().next().cloned() else { continue };
        directory.entries.retain(|(entry, _)| !(entry.path.starts_with(&inside) && entry.kind == EntryKind::File));
        for entry in copy.list()?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let full = format!("{inside}{}", entry.path);
            // A file made since the listing has its neighbours' owner and mode.
            let original = originals.get(&full).unwrap_or(&model);
            let merged =
                VolumeEntry { path: full.clone(), mode: original.mode, uid: original.uid, gid: original.gid, ..entry };
            let place: Place = directory.directory.classify(&full, joined_by_snapshot);
            directory.entries.push((merged, place));
        }
    }
    directory.entries.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    Ok(())
}
