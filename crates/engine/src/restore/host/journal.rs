//! The record of a restore on hosts: a file of lines beside the restored data. Each line is a step; steps without a line are done again. It
//! survives a kill at any byte: an incomplete line is ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Places;
use super::disk::Disk;
use super::plan::Plan;
use super::staging::free_name;
use crate::error::io;
use crate::misuse::Misuse;
use crate::restore::progress::{self, Record, Step, Storage};
use crate::{Done, EngineError};
use fabkeep_network::Remedy;

/// Longest journal read, in bytes.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;

/// Reads what an earlier run recorded; `None` without a journal.
pub(super) fn read(path: &Path) -> Result<Option<Record>, EngineError> {
    match opened(OpenOptions::new().read(true), path) {
        Ok(file) => Ok(Some(record(&text(&file, path)?))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(no_journal(path, error)),
    }
}

fn record(text: &str) -> Record {
    text.lines().filter_map(|line| serde_json::from_str::<Step>(line).ok()).collect()
}

/// What a record says of directories.
impl Record {
    pub fn has_file(&self, directory: usize, entry: usize) -> bool {
        self.has(&Step::File { directory, entry }) || self.is_kept(directory, entry)
    }

    /// Whether a file of the place stays.
    pub fn is_kept(&self, directory: usize, entry: usize) -> bool {
        self.has(&Step::Kept { directory, entry })
    }

    pub fn is_equal(&self, directory: usize) -> bool {
        self.has(&Step::Equal { directory })
    }

    pub fn has_aside(&self, directory: usize) -> bool {
        self.has(&Step::Aside { directory })
    }

    pub fn is_placed(&self, directory: usize) -> bool {
        self.has(&Step::Placed { directory })
    }

    pub fn is_loaded(&self, directory: usize) -> bool {
        self.has(&Step::Loaded { directory })
    }

    /// Nothing is left to do for a directory.
    pub fn is_settled(&self, directory: usize) -> bool {
        self.is_equal(directory) || self.is_placed(directory)
    }

    /// Whether a run has begun to put a directory into its place.
    pub fn is_switching(&self, directory: usize) -> bool {
        self.is_placed(directory) || self.has_aside(directory) || self.asides(directory).next().is_some()
    }

    /// Where what was in the parts of a directory's place goes: part and folder.
    pub fn asides(&self, directory: usize) -> impl Iterator<Item = (usize, &Path)> {
        self.steps().filter_map(move |step| match step {
            Step::SettingAside { directory: of, region, to } if *of == directory => Some((*region, to.as_path())),
            _ => None,
        })
    }

    /// Where what a database held before is dumped.
    pub fn dumped_aside(&self, directory: usize) -> Option<PathBuf> {
        self.steps().find_map(|step| match step {
            Step::DumpedAside { directory: of, folder } if *of == directory => Some(folder.clone()),
            _ => None,
        })
    }
}

impl Plan<'_> {
    /// What was done to the target, in order; last what was written and is not in its place.
    pub fn done_by(&self, record: &Record) -> Vec<Done> {
        let text = |path: &Path| path.display().to_string();
        let of = |directory: usize| self.directories.get(directory);
        let mut done = record.done(|step| match step {
            Step::SettingAside { directory, region, to } if to.exists() => {
                let staging = &of(*directory)?.staging;
                let what = staging.regions.get(*region).map_or(&staging.place, |region| &region.at);
                Some(Done::SetAside { what: text(what), to: text(to) })
            }
            Step::Placed { directory } => {
                let planned = of(*directory)?;
                Some(Done::Placed { node: planned.id.to_string(), path: text(&planned.staging.place) })
            }
            Step::DumpedAside { directory, folder } => {
                Some(Done::DatabaseDumped { node: of(*directory)?.id.to_string(), to: text(folder) })
            }
            Step::Loading { directory } => {
                let load = self.loads.iter().find(|load| load.directory == *directory);
                let database = load.map_or_else(|| "its database".to_owned(), |load| load.access.label());
                Some(Done::DatabaseLoaded { node: of(*directory)?.id.to_string(), database })
            }
            _ => None,
        });
        for planned in &self.directories {
            let written = planned.staging.regions.iter().filter(|region| region.staging.exists());
            done.extend(
                written.map(|region| Done::Written { node: planned.id.to_string(), path: text(&region.staging) }),
            );
        }
        done
    }
}

/// Opens a journal: never through a link, and nothing that would block.
fn opened(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options.mode(0o600).custom_flags(flags.bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

fn no_journal(path: &Path, error: std::io::Error) -> EngineError {
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => Misuse::new(format!(
            "{} is where a restore keeps its journal, and is no file that a restore has written",
            path.display()
        ))
        .next("find out who made it, and remove it")
        .into(),
        _ => io(path)(error),
    }
}

fn restoring_here(path: &Path) -> EngineError {
    let problem = format!("another fabkeep is restoring here ({} is locked)", path.display());
    Misuse::new(problem).next("wait until it has finished").into()
}

/// Whether a lock was taken; a file system without locks gives it.
fn lock(file: &File) -> bool {
    let taken = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    !matches!(taken, Err(rustix::io::Errno::WOULDBLOCK))
}

/// Locks the folders that a restore works in: another one, of whichever recovery point and nodes, must not work there meanwhile. `locks`:
/// those that are locked already.
fn lock_places(plan: &Plan<'_>, locks: &mut BTreeMap<PathBuf, File>) -> Result<(), EngineError> {
    let folders: BTreeSet<&Path> = match &plan.places {
        Places::Below(to) => std::iter::once(to.as_path()).filter(|to| to.is_dir()).collect(),
        Places::Of(_) => plan
            .directories
            .iter()
            .flat_map(|planned| &planned.staging.regions)
            .filter_map(|region| region.staging.ancestors().skip(1).find(|folder| folder.is_dir()))
            .collect(),
    };
    for folder in folders {
        if locks.contains_key(folder) {
            continue;
        }
        let file = File::open(folder).map_err(io(folder))?;
        if !lock(&file) {
            return Err(restoring_here(folder));
        }
        locks.insert(folder.to_path_buf(), file);
    }
    Ok(())
}

fn text(file: &File, path: &Path) -> Result<String, EngineError> {
    let mut bytes = Vec::new();
    file.take(MAX_JOURNAL_BYTES).read_to_end(&mut bytes).map_err(io(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a second run of another plan is refused with.
pub(super) fn of_another(path: &Path) -> EngineError {
    let again = Remedy::from("run that command again until it finishes");
    Misuse::new(format!("{} belongs to another restore that did not finish", path.display()))
        .next(again.or("remove the file to give that restore up"))
        .into()
}

/// The file of lines.
pub(in crate::restore) struct Lines<'a> {
    path: PathBuf,
    file: File,
    /// Held until the end.
    _locks: BTreeMap<PathBuf, File>,
    disk: Disk<'a>,
}

impl Lines<'_> {
    fn sync_folder(&self) -> Result<(), EngineError> {
        self.disk.sync_folder(self.path.parent().unwrap_or(Path::new("/")))
    }
}

impl Storage for Lines<'_> {
    fn add(&mut self, step: &Step) -> Result<(), EngineError> {
        self.disk.changing("journal", &self.path);
        let mut text = serde_json::to_vec(step).map_err(|error| Misuse::new(error.to_string()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(io(&self.path))
    }

    fn store(&mut self, _: &Record) -> Result<(), EngineError> {
        self.disk.changing("sync journal", &self.path);
        self.file.sync_data().map_err(io(&self.path))
    }

    fn remove(&mut self) -> Result<(), EngineError> {
        self.disk.remove_file(&self.path)?;
        self.sync_folder()
    }
}

pub(in crate::restore) type Journal<'a> = progress::Journal<Lines<'a>>;

impl<'a> Journal<'a> {
    /// Opens the journal of this restore: a new one, or an earlier run's. Earlier lines of directories that are restored anew do not count.
    pub fn open(plan: &Plan<'_>, point: &str, fingerprint: &str, disk: Disk<'a>) -> Result<Journal<'a>, EngineError> {
        let path = plan.journal.clone();
        // A run that has to wait for another one makes nothing.
        let mut locks = BTreeMap::new();
        lock_places(plan, &mut locks)?;
        disk.make_folders(path.parent().unwrap_or(Path::new("/")))?;
        // A folder that was made is nearer to the places.
        lock_places(plan, &mut locks)?;
        disk.changing("make journal", &path);
        let mut file = opened(OpenOptions::new().read(true).append(true).create(true), &path)
            .map_err(|error| no_journal(&path, error))?;
        if !lock(&file) {
            return Err(restoring_here(&path));
        }
        let text = text(&file, &path)?;
        let earlier = record(&text);
        if !earlier.is_of(point, fingerprint) {
            return Err(of_another(&path));
        }
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(io(&path))?;
        }
        let mut journal = Journal::new(Lines { path, file, _locks: locks, disk }, earlier, point, fingerprint)?;
        if !journal.is_resumed() {
            journal.store()?;
            journal.storage.sync_folder()?;
        }
        journal.note_all(plan.again.iter().map(|&directory| Step::Again { directory }))?;
        Ok(journal)
    }

    /// Nothing was done: a journal that this run began goes.
    pub fn abandon(&mut self) -> Result<(), EngineError> {
        if self.is_resumed() { Ok(()) } else { self.remove() }
    }

    /// The restore is done: the journal goes; with overridden rules it stays, under another name.
    pub fn finish(&mut self) -> Result<(), EngineError> {
        if !self.steps().any(|step| matches!(step, Step::Overridden { .. })) {
            return self.remove();
        }
        let Lines { path, disk, .. } = &self.storage;
        disk.rename(path, &free_name(&path.with_extension("overridden")))?;
        self.storage.sync_folder()
    }
}
