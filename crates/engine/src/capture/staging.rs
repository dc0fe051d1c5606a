//! Copies of data that needs random access or must be from one moment: databases, raft logs, snapshots. For running nodes, copies are
//! repeated until one is consistent (P6). For remote volumes a copy is made once, and only if something changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fabkeep_ledger::layout::{DirectoryRole, Kind, Place};
use fabkeep_ledger::leveldb::Database;
use fabkeep_ledger::{raft, smartbft};
use fabkeep_platform::{EntryKind, Fetch, HostVolume, Stamp, Volume, VolumeEntry};

use super::CaptureOptions;
use super::survey::SurveyedDirectory;
use crate::EngineError;
use crate::error::io;

/// The first pause between two attempts; it grows with each.
const PAUSE: Duration = Duration::from_millis(20);
/// Suffix of a second reading of a file.
const AFTER: &str = ".fabkeep-after";

/// Returns a folder for the copies, readable by its owner only, removed when dropped.
pub(crate) fn scratch(options: &CaptureOptions) -> Result<tempfile::TempDir, EngineError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("fabkeep-");
    match &options.work_folder {
        Some(folder) => builder.tempdir_in(folder).map_err(io(folder)),
        None => builder.tempdir().map_err(io(std::env::temp_dir())),
    }
}

/// What is copied, and so how a copy proves consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LiveStore {
    /// LevelDB: a manifest that does not change while everything it names is copied describes one moment; the log copied beside it is
    /// a beginning of the log, as after a crash.
    Database,
    /// Raft or SmartBFT logs: each file grows at its end, and a checksum runs through all of them.
    Logs,
    /// Raft snapshots: written once, under a temporary name first.
    Snapshots,
    /// sqlite: through its own backup interface, which reads one transaction's view; from far away, as [`LiveStore::Moment`].
    Sqlite,
    /// Anything else whose files belong together: no file changed from before the first was copied until after the last was.
    Moment,
}

/// Something to copy: a directory, or the file of a sqlite database. An empty path is the whole directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopySource {
    pub path: String,
    pub copied: LiveStore,
}

/// The copies, by path, and what no copy proved consistent, with the reason.
pub(crate) type Staged = (BTreeMap<String, HostVolume>, Vec<(String, String)>);

/// Returns what of a directory has to be copied.
pub(crate) fn wanted(directory: &SurveyedDirectory, derived: bool, running: bool) -> Vec<CopySource> {
    let mut out = Vec::new();
    let mut add = |path: String, copied| out.push(CopySource { path, copied });
    for path in directory.databases(derived) {
        add(path, LiveStore::Database);
    }
    let logs = directory.logs();
    // One directory may hold logs and snapshots; then it is copied as logs, snapshots first by their names' order.
    for path in directory.snapshots().into_values().filter(|path| !logs.values().any(|logs| logs == path)) {
        add(path, LiveStore::Snapshots);
    }
    for path in logs.into_values() {
        add(path, LiveStore::Logs);
    }
    for (entry, _) in directory.files(false).filter(|(_, place)| place.kind == Kind::Sqlite) {
        add(entry.path.clone(), LiveStore::Sqlite);
    }
    // A server's files that rest are read where they are.
    let server = matches!(directory.directory.role, DirectoryRole::Database | DirectoryRole::StateDatabase);
    if running && server && directory.files(derived).next().is_some() {
        add(String::new(), LiveStore::Moment);
    }
    out
}

fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    if root.is_empty() { Some(path) } else { path.strip_prefix(root)?.strip_prefix('/') }
}

/// Copies everything that is wanted. `proving`: the node runs, so each copy must prove consistent.
pub(crate) fn stage(
    directory: &SurveyedDirectory,
    wanted: Vec<CopySource>,
    scratch: &Path,
    attempts: u32,
    proving: bool,
) -> Result<Staged, EngineError> {
    let mut staged = BTreeMap::new();
    let mut pending: Vec<(CopySource, String)> = Vec::new();
    let volume = directory.volume.as_ref();
    for wanted in wanted {
        match volume.local(&wanted.path).filter(|_| wanted.copied == LiveStore::Sqlite) {
            Some(source) => match copy_sqlite(&source, &wanted.path, scratch, attempts)? {
                Ok(copy) => {
                    staged.insert(wanted.path, copy);
                }
                Err(problem) => pending.push((wanted, problem)),
            },
            None => pending.push((wanted, String::new())),
        }
    }
    let (stuck, mut pending): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(_, problem)| !problem.is_empty());
    for round in 0..if proving { attempts.max(1) } else { 1 } {
        if pending.is_empty() {
            break;
        }
        if round > 0 {
            std::thread::sleep(PAUSE * round.min(50));
        }
        let listed = match volume.local("") {
            // Far away a question costs more than a listing that may be a little old: then the next round asks.
            None if round == 0 => stamps(directory.entries.iter().map(|(entry, _)| entry)),
            _ => listing(volume, &pending)?,
        };
        pending = attempt(directory, pending, &listed, scratch, proving, &mut staged)?;
    }
    let problems = stuck.into_iter().chain(pending).map(|(wanted, problem)| (wanted.path, problem)).collect();
    Ok((staged, problems))
}

/// One round: copies, looks whether each copy is good. What is not stays pending, with the reason.
fn attempt(
    directory: &SurveyedDirectory,
    pending: Vec<(CopySource, String)>,
    listed: &BTreeMap<String, Stamp>,
    scratch: &Path,
    proving: bool,
    staged: &mut BTreeMap<String, HostVolume>,
) -> Result<Vec<(CopySource, String)>, EngineError> {
    let volume = directory.volume.as_ref();
    let mut files: Vec<Fetch> = Vec::new();
    let mut targets: Vec<PathBuf> = Vec::new();
    for (wanted, _) in &pending {
        let target = scratch.join(format!("copy+{}", wanted.path.replace('/', "+")));
        if target.exists() {
            std::fs::remove_dir_all(&target).map_err(io(&target))?;
        }
        std::fs::create_dir_all(&target).map_err(io(&target))?;
        files.extend(plan(directory, wanted, listed, &target, proving));
        targets.push(target);
    }
    for file in &files {
        if let Some(folder) = file.to.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
    }
    let there = match volume.fetch(&files) {
        Ok(there) => there,
        Err(error) => {
            let problem = error.to_string();
            return Ok(pending.into_iter().map(|(wanted, _)| (wanted, problem.clone())).collect());
        }
    };
    let moment =
        proving && pending.iter().any(|(wanted, _)| matches!(wanted.copied, LiveStore::Moment | LiveStore::Sqlite));
    let after = if moment { listing(volume, &pending)? } else { BTreeMap::new() };
    let mut left = Vec::new();
    for ((wanted, _), target) in pending.into_iter().zip(targets) {
        let missing: Vec<&str> = files
            .iter()
            .zip(&there)
            .filter(|(file, there)| !**there && file.to.starts_with(&target))
            .map(|(file, _)| file.path.as_str())
            .collect();
        // Only what proves itself may lack a file that was listed.
        let proves_itself = matches!(wanted.copied, LiveStore::Database | LiveStore::Moment) && proving;
        if let Some(path) = missing.first().filter(|_| !proves_itself) {
            left.push((wanted, format!("{path} was listed and has disappeared")));
            continue;
        }
        match prove(directory, &wanted, &target, proving, listed, &after, &missing) {
            Ok(copy) => {
                staged.insert(wanted.path, copy);
            }
            Err(problem) => left.push((wanted, problem)),
        }
    }
    Ok(left)
}

/// Files of what is pending, as they are now.
fn listing(volume: &dyn Volume, pending: &[(CopySource, String)]) -> Result<BTreeMap<String, Stamp>, EngineError> {
    if volume.local("").is_none() {
        // Far away one question is cheaper than many.
        return Ok(stamps(&volume.list("")?));
    }
    let mut out = BTreeMap::new();
    for (wanted, _) in pending {
        out.append(&mut stamps(&volume.list(&wanted.path)?));
    }
    Ok(out)
}

fn stamps<'a>(entries: impl IntoIterator<Item = &'a VolumeEntry>) -> BTreeMap<String, Stamp> {
    let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
    files.map(|entry| (entry.path.clone(), entry.stamp)).collect()
}

fn plan(
    directory: &SurveyedDirectory,
    wanted: &CopySource,
    listed: &BTreeMap<String, Stamp>,
    target: &Path,
    proving: bool,
) -> Vec<Fetch> {
    let fetch = |path: &str, to: PathBuf, sparse| Fetch { path: path.to_owned(), to, sparse };
    let inside = || listed.keys().filter_map(|path| Some((path.as_str(), below(path, &wanted.path)?)));
    match wanted.copied {
        LiveStore::Database => {
            let mut first = Vec::new();
            let mut rest = Vec::new();
            for (path, name) in inside().filter(|(_, name)| !name.contains('/')) {
                match name {
                    "LOCK" | "LOG" | "LOG.old" => {}
                    name if name == "CURRENT" || name.starts_with("MANIFEST-") => first.push((path, name)),
                    _ => rest.push((path, name)),
                }
            }
            let named = |&(path, name): &(&str, &str)| fetch(path, target.join(name), false);
            let mut out: Vec<Fetch> = first.iter().chain(&rest).map(named).collect();
            if proving {
                out.extend(first.iter().map(|(path, name)| fetch(path, target.join(format!("{name}{AFTER}")), false)));
            }
            out
        }
        LiveStore::Logs => inside()
            .filter(|(_, name)| !name.contains('/') && (name.ends_with(".wal") || name.ends_with(".snap")))
            .map(|(path, name)| fetch(path, target.join(name), name.ends_with(".wal")))
            .collect(),
        LiveStore::Snapshots => inside()
            .filter(|(_, name)| !name.contains('/') && name.ends_with(".snap"))
            .map(|(path, name)| fetch(path, target.join(name), false))
            .collect(),
        LiveStore::Sqlite => sqlite_files(&wanted.path)
            .into_iter()
            .filter(|path| listed.contains_key(path))
            .map(|path| fetch(&path, target.join(path.rsplit('/').next().unwrap_or(&path)), false))
            .collect(),
        LiveStore::Moment => directory
            .files(true)
            .filter(|(entry, _)| listed.contains_key(&entry.path))
            .map(|(entry, _)| fetch(&entry.path, target.join(&entry.path), false))
            .collect(),
    }
}

/// Returns a sqlite database's files: itself and what a writer has open beside it.
fn sqlite_files(path: &str) -> Vec<String> {
    ["", "-wal", "-journal"].iter().map(|suffix| format!("{path}{suffix}")).collect()
}

fn prove(
    directory: &SurveyedDirectory,
    wanted: &CopySource,
    target: &Path,
    proving: bool,
    before: &BTreeMap<String, Stamp>,
    after: &BTreeMap<String, Stamp>,
    missing: &[&str],
) -> Result<HostVolume, String> {
    let copy = || HostVolume::new(target.to_path_buf());
    let text = |error: &dyn std::fmt::Display| error.to_string();
    match wanted.copied {
        LiveStore::Database if proving => {
            for name in names(target)?.iter().filter_map(|name| name.strip_suffix(AFTER)) {
                let read = |name: &str| std::fs::read(target.join(name)).map_err(|error| format!("{name}: {error}"));
                let second = format!("{name}{AFTER}");
                if read(name)? != read(&second)? {
                    return Err("the database was compacted meanwhile".to_owned());
                }
                std::fs::remove_file(target.join(&second)).map_err(|error| text(&error))?;
            }
            Database::open(target).and_then(|database| database.check()).map_err(|error| text(&error))?;
            Ok(copy())
        }
        LiveStore::Logs if proving => {
            if names(target)?.iter().any(|name| name.ends_with(".wal") && name.contains('-')) {
                raft::check_wal_directory(target, |_, _| {}).map_err(|error| text(&error))?;
            } else {
                smartbft::check_wal_directory(target).map_err(|error| text(&error))?;
            }
            Ok(copy())
        }
        LiveStore::Sqlite => {
            if proving && sqlite_files(&wanted.path).iter().any(|path| before.get(path) != after.get(path)) {
                return Err("the database was written to meanwhile".to_owned());
            }
            let name = wanted.path.rsplit('/').next().unwrap_or(&wanted.path);
            let beside =
                |suffix: &str| target.join(format!("{name}{suffix}")).metadata().is_ok_and(|file| file.len() > 0);
            if !beside("-wal") && !beside("-journal") {
                return Ok(HostVolume::new(target.join(name)));
            }
            let whole = format!("{name}.whole");
            // The content of a journal beside it is part of the copy: the copy is complete without the journal.
            let from = rusqlite::Connection::open(target.join(name)).map_err(|error| text(&error))?;
            from.backup("main", target.join(&whole), None::<fn(rusqlite::backup::Progress)>)
                .map_err(|error| text(&error))?;
            Ok(HostVolume::new(target.join(whole)))
        }
        LiveStore::Moment if proving => {
            let changed =
                directory.files(true).map(|(entry, _)| &entry.path).find(|path| before.get(*path) != after.get(*path));
            let new = after.keys().find(|path| {
                !before.contains_key(*path)
                    && super::survey::is_wanted(&directory.directory.classify(path, false), true)
            });
            match changed.map(String::as_str).or(new.map(String::as_str)).or(missing.first().copied()) {
                Some(path) => Err(format!("{path} was written to meanwhile")),
                None => Ok(copy()),
            }
        }
        LiveStore::Database | LiveStore::Logs | LiveStore::Snapshots | LiveStore::Moment => Ok(copy()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, String> {
    let read = std::fs::read_dir(directory).map_err(|error| error.to_string())?;
    let mut names = Vec::new();
    for entry in read {
        names.push(entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// sqlite on this machine.
fn copy_sqlite(
    source: &Path,
    path: &str,
    scratch: &Path,
    attempts: u32,
) -> Result<Result<HostVolume, String>, EngineError> {
    let target = scratch.join(format!("copy+{}", path.replace('/', "+")));
    std::fs::create_dir_all(&target).map_err(io(&target))?;
    let copy = target.join(path.rsplit('/').next().unwrap_or(path));
    let mut problem = String::new();
    for round in 0..attempts.max(1) {
        std::thread::sleep(PAUSE * round.min(50));
        let attempt = || -> rusqlite::Result<()> {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let from = rusqlite::Connection::open_with_flags(source, flags)?;
            from.backup("main", &copy, None::<fn(rusqlite::backup::Progress)>)
        };
        match attempt() {
            Ok(()) => return Ok(Ok(HostVolume::new(copy))),
            Err(error) => problem = error.to_string(),
        }
    }
    Ok(Err(problem))
}

/// What the copies hold takes the place of what the listing said of those paths.
pub(crate) fn replace_entries(
    directory: &mut SurveyedDirectory,
    staged: &BTreeMap<String, HostVolume>,
    joined_by_snapshot: bool,
) -> Result<(), EngineError> {
    for (path, copy) in staged {
        let root = copy.at("");
        if root.is_file() {
            let size = root.metadata().map_err(io(&root))?.len();
            for (entry, _) in directory.entries.iter_mut().filter(|(entry, _)| entry.path == *path) {
                // A journal that went into the copy makes it another file than the source.
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
            .filter(|(entry, _)| below(&entry.path, path).is_some() && entry.kind == EntryKind::File)
            .map(|(entry, _)| (entry.path.clone(), entry.clone()))
            .collect();
        let Some(model) = originals.values().next().cloned() else { continue };
        directory.entries.retain(|(entry, _)| !(below(&entry.path, path).is_some() && entry.kind == EntryKind::File));
        for entry in copy.list("")?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let full = if path.is_empty() { entry.path.clone() } else { format!("{path}/{}", entry.path) };
            // A file made since the listing has its neighbours' owner and mode.
            let original = originals.get(&full);
            let like = original.unwrap_or(&model);
            // The time stamp of the source shows the next capture whether the file changed; a copy of another size is from a later moment.
            let stamp = original.map(|original| original.stamp).filter(|stamp| stamp.size == entry.stamp.size);
            let merged = VolumeEntry {
                path: full.clone(),
                mode: like.mode,
                uid: like.uid,
                gid: like.gid,
                stamp: stamp.unwrap_or(entry.stamp),
                ..entry
            };
            let place: Place = directory.directory.classify(&full, joined_by_snapshot);
            directory.entries.push((merged, place));
        }
    }
    directory.entries.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    Ok(())
}
