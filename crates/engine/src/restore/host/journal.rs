//! The journal of a restore: a file of lines beside the restored data. Each line records a completed step; steps without a line are done
//! again. It survives a kill at any byte: an incomplete line is ignored.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use fabkeep_network::Finding;
use serde::{Deserialize, Serialize};

use super::Places;
use super::disk::Disk;
use super::plan::{Plan, PlannedDirectory};
use super::staging::free_name;
use crate::error::io;
use crate::{Done, EngineError};

/// Longest journal read, in bytes.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "kebab-case")]
enum Line {
    /// First line: which restore this is.
    Begin { point: String, plan: String },
    /// A broken rule that the restore went on in spite of.
    Overridden { rule: String, subject: String, what: String },
    /// A node's stop command is about to be run.
    NodeStopping { node: String },
    /// A node was stopped.
    NodeStopped { node: String },
    /// A node's start command is about to be run.
    NodeStarting { node: String },
    /// A node was started.
    NodeStarted { node: String },
    /// The restart of a node that is not restored has begun.
    Restarting { node: String },
    /// It runs again, and its channels have a leader.
    Restarted { node: String },
    /// A directory was there as it was captured: it is left alone.
    Equal { directory: usize },
    /// A file is written: directory and entry by position.
    File { directory: usize, entry: usize },
    /// What is in a part of a directory's place is about to be set aside there: a name that nothing had.
    SettingAside { directory: usize, region: usize, to: PathBuf },
    /// What was in a directory's place is set aside; the place is free.
    Aside { directory: usize },
    /// A directory is in its place.
    Placed { directory: usize },
    /// What is in a directory's place is not what an earlier run has put there: nothing of that counts.
    Again { directory: usize },
    /// What a database held is dumped there.
    DumpedAside { directory: usize, folder: PathBuf },
    /// A dump is about to be loaded.
    Loading { directory: usize },
    /// A dump is loaded, and the database was compared with it.
    Loaded { directory: usize },
}

/// What is known to be done.
#[derive(Debug, Clone, Default)]
pub(in crate::restore) struct Record {
    lines: BTreeSet<Line>,
}

impl Record {
    /// Reads what an earlier run wrote; `None` without a journal.
    pub fn read(path: &Path) -> Result<Option<Record>, EngineError> {
        match opened(OpenOptions::new().read(true), path) {
            Ok(file) => Ok(Some(Record::of(&text(&file, path)?))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(no_journal(path, error)),
        }
    }

    fn of(text: &str) -> Record {
        let mut record = Record::default();
        for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::Again { directory } => record.forget(directory),
                line => drop(record.lines.insert(line)),
            }
        }
        record
    }

    /// Nothing that was done for a directory counts any more.
    pub fn forget(&mut self, index: usize) {
        self.lines.retain(|line| match line {
            Line::Equal { directory }
            | Line::File { directory, .. }
            | Line::SettingAside { directory, .. }
            | Line::Aside { directory }
            | Line::Placed { directory } => *directory != index,
            // The node may have run since: what leaders remember of it now counts.
            Line::Restarting { .. } | Line::Restarted { .. } => false,
            _ => true,
        });
    }

    /// Whether it is of this restore. An empty one is of any.
    pub fn is_of(&self, point: &str, plan: &str) -> bool {
        self.lines.is_empty() || self.lines.contains(&begin(point, plan))
    }

    pub fn has_file(&self, directory: usize, entry: usize) -> bool {
        self.lines.contains(&Line::File { directory, entry })
    }

    pub fn is_equal(&self, directory: usize) -> bool {
        self.lines.contains(&Line::Equal { directory })
    }

    pub fn has_aside(&self, directory: usize) -> bool {
        self.lines.contains(&Line::Aside { directory })
    }

    pub fn is_placed(&self, directory: usize) -> bool {
        self.lines.contains(&Line::Placed { directory })
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
        self.lines.iter().filter_map(move |line| match line {
            Line::SettingAside { directory: of, region, to } if *of == directory => Some((*region, to.as_path())),
            _ => None,
        })
    }

    /// Whether a node's start command was run, however it ended.
    pub fn is_started(&self, node: &str) -> bool {
        let node = || node.to_owned();
        self.lines.contains(&Line::NodeStarting { node: node() })
            || self.lines.contains(&Line::NodeStarted { node: node() })
    }

    /// Whether the restart of a node that is not restored has begun.
    pub fn is_restarting(&self, node: &str) -> bool {
        self.lines.contains(&Line::Restarting { node: node.to_owned() })
    }

    /// Whether a node that is not restored was restarted.
    pub fn is_restarted(&self, node: &str) -> bool {
        self.lines.contains(&Line::Restarted { node: node.to_owned() })
    }

    pub fn is_loaded(&self, directory: usize) -> bool {
        self.lines.contains(&Line::Loaded { directory })
    }

    /// Where what a database held before is dumped.
    pub fn dumped_aside(&self, directory: usize) -> Option<PathBuf> {
        self.lines.iter().find_map(|line| match line {
            Line::DumpedAside { directory: of, folder } if *of == directory => Some(folder.clone()),
            _ => None,
        })
    }

    /// What was done to the target, in the order in which a restore does it.
    pub fn done(&self, plan: &Plan<'_>) -> Vec<Done> {
        let mut done: Vec<Done> = Vec::new();
        let text = |path: &Path| path.display().to_string();
        let node = |planned: &PlannedDirectory| planned.id.to_string();
        done.extend(self.lines.iter().filter_map(|line| match line {
            Line::NodeStopped { node } => Some(Done::NodeStopped { node: node.clone() }),
            Line::NodeStopping { node } if !self.lines.contains(&Line::NodeStopped { node: node.clone() }) => {
                Some(Done::StopCommandRun { node: node.clone() })
            }
            _ => None,
        }));
        for (index, planned) in plan.directories.iter().enumerate() {
            for (region, to) in self.asides(index).filter(|(_, to)| to.exists()) {
                let what = planned.staging.regions.get(region).map_or(&planned.staging.place, |region| &region.at);
                done.push(Done::SetAside { what: text(what), to: text(to) });
            }
            if self.is_placed(index) {
                done.push(Done::Placed { node: node(planned), path: text(&planned.staging.place) });
            }
            for region in planned.staging.regions.iter().filter(|region| region.staging.exists()) {
                done.push(Done::Written { node: node(planned), path: text(&region.staging) });
            }
        }
        for load in &plan.loads {
            let node = node(&plan.directories[load.directory]);
            if let Some(folder) = self.dumped_aside(load.directory) {
                done.push(Done::DatabaseDumped { node: node.clone(), to: text(&folder) });
            }
            if self.lines.contains(&Line::Loading { directory: load.directory }) {
                done.push(Done::DatabaseLoaded { node, database: load.access.label() });
            }
        }
        done.extend(self.lines.iter().filter_map(|line| match line {
            Line::Restarting { node } if self.is_restarted(node) => Some(Done::NodeRestarted { node: node.clone() }),
            Line::Restarting { node } => Some(Done::NodeStopped { node: node.clone() }),
            _ => None,
        }));
        done.extend(self.lines.iter().filter_map(|line| match line {
            Line::NodeStarted { node } => Some(Done::NodeStarted { node: node.clone() }),
            Line::NodeStarting { node } if !self.lines.contains(&Line::NodeStarted { node: node.clone() }) => {
                Some(Done::StartCommandRun { node: node.clone() })
            }
            _ => None,
        }));
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
        Ok(found) if !found.is_file() => EngineError::Usage(format!(
            "{} is where a restore keeps its journal, and is no file that a restore has written: look who made it, and remove it",
            path.display()
        )),
        _ => io(path)(error),
    }
}

fn restoring_here(path: &Path) -> EngineError {
    EngineError::Usage(format!("another fabkeep is restoring here ({} is locked); wait for it", path.display()))
}

/// Whether a lock was taken; a file system without locks gives it.
fn lock(file: &File) -> bool {
    let taken = rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    !matches!(taken, Err(rustix::io::Errno::WOULDBLOCK))
}

/// Locks the folders that a restore works in: another one, of whichever recovery point and nodes, must not work there meanwhile.
fn lock_places(plan: &Plan<'_>) -> Result<Vec<File>, EngineError> {
    let folders: BTreeSet<&Path> = match &plan.places {
        Places::Below(to) => BTreeSet::from([to.as_path()]),
        Places::Of(_) => plan
            .directories
            .iter()
            .flat_map(|planned| &planned.staging.regions)
            .filter_map(|region| region.staging.ancestors().skip(1).find(|folder| folder.is_dir()))
            .collect(),
    };
    let mut locks = Vec::new();
    for folder in folders {
        let file = File::open(folder).map_err(io(folder))?;
        if !lock(&file) {
            return Err(restoring_here(folder));
        }
        locks.push(file);
    }
    Ok(locks)
}

fn begin(point: &str, plan: &str) -> Line {
    Line::Begin { point: point.to_owned(), plan: plan.to_owned() }
}

fn text(file: &File, path: &Path) -> Result<String, EngineError> {
    let mut bytes = Vec::new();
    file.take(MAX_JOURNAL_BYTES).read_to_end(&mut bytes).map_err(io(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a second run of another plan is refused with.
pub(super) fn of_another(path: &Path) -> EngineError {
    EngineError::Usage(format!(
        "{} belongs to another restore that did not finish: run that command again until it finishes, or remove the file to give that restore up",
        path.display()
    ))
}

pub(in crate::restore) struct Journal<'a> {
    path: PathBuf,
    file: File,
    /// Held until the end.
    _locks: Vec<File>,
    disk: Disk<'a>,
    record: Record,
    resumed: bool,
}

impl std::ops::Deref for Journal<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl<'a> Journal<'a> {
    /// Opens the journal of this restore: a new one, or an earlier run's. Earlier lines of directories that are restored anew do not count.
    pub fn open(plan: &Plan<'_>, point: &str, fingerprint: &str, disk: Disk<'a>) -> Result<Journal<'a>, EngineError> {
        let path = plan.journal.as_path();
        let folder = path.parent().unwrap_or(Path::new("/"));
        disk.make_folders(folder)?;
        disk.changing("make journal", path);
        let mut file = opened(OpenOptions::new().read(true).append(true).create(true), path)
            .map_err(|error| no_journal(path, error))?;
        let locks = lock_places(plan)?;
        if !lock(&file) {
            return Err(restoring_here(path));
        }
        let text = text(&file, path)?;
        let record = Record::of(&text);
        if !record.is_of(point, fingerprint) {
            return Err(of_another(path));
        }
        let resumed = !record.lines.is_empty();
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(io(path))?;
        }
        let mut journal = Journal { path: path.to_path_buf(), file, _locks: locks, disk, record, resumed };
        if !resumed {
            journal.write_down(begin(point, fingerprint))?;
            disk.sync_folder(folder)?;
        }
        for &directory in &plan.again {
            journal.write_down(Line::Again { directory })?;
            journal.record.forget(directory);
        }
        Ok(journal)
    }

    /// Whether an earlier run's work is gone on with.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    fn append(&mut self, line: Line) -> Result<(), EngineError> {
        self.disk.changing("journal", &self.path);
        let mut text = serde_json::to_vec(&line).map_err(|error| EngineError::Usage(error.to_string()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(io(&self.path))?;
        self.record.lines.insert(line);
        Ok(())
    }

    /// Appends a line that what follows relies on: it is on the disk before anything else is done.
    fn write_down(&mut self, line: Line) -> Result<(), EngineError> {
        if self.record.lines.contains(&line) {
            return Ok(());
        }
        self.append(line)?;
        self.disk.changing("sync journal", &self.path);
        self.file.sync_data().map_err(io(&self.path))
    }

    /// Writes down which broken rules the restore goes on in spite of.
    pub fn add_overrides(&mut self, findings: &[Finding]) -> Result<(), EngineError> {
        for finding in findings {
            self.write_down(Line::Overridden {
                rule: finding.rule.code().to_owned(),
                subject: finding.subject.clone(),
                what: finding.what.clone(),
            })?;
        }
        Ok(())
    }

    pub fn add_stopping(&mut self, node: String) -> Result<(), EngineError> {
        self.write_down(Line::NodeStopping { node })
    }

    pub fn add_stopped(&mut self, node: String) -> Result<(), EngineError> {
        self.write_down(Line::NodeStopped { node })
    }

    pub fn add_starting(&mut self, node: String) -> Result<(), EngineError> {
        self.write_down(Line::NodeStarting { node })
    }

    pub fn add_started(&mut self, node: String) -> Result<(), EngineError> {
        self.write_down(Line::NodeStarted { node })
    }

    pub fn add_restarting(&mut self, node: String) -> Result<(), EngineError> {
        self.write_down(Line::Restarting { node })
    }

    pub fn add_restarted(&mut self, node: String) -> Result<(), EngineError> {
        self.write_down(Line::Restarted { node })
    }

    pub fn add_file(&mut self, directory: usize, entry: usize) -> Result<(), EngineError> {
        self.append(Line::File { directory, entry })
    }

    /// A file that an earlier run wrote is not what it should be: it is written again.
    pub fn forget_file(&mut self, directory: usize, entry: usize) {
        self.record.lines.remove(&Line::File { directory, entry });
    }

    pub fn add_equal(&mut self, directory: usize) -> Result<(), EngineError> {
        self.write_down(Line::Equal { directory })
    }

    pub fn add_setting_aside(&mut self, directory: usize, region: usize, to: PathBuf) -> Result<(), EngineError> {
        self.write_down(Line::SettingAside { directory, region, to })
    }

    pub fn add_aside(&mut self, directory: usize) -> Result<(), EngineError> {
        self.write_down(Line::Aside { directory })
    }

    pub fn add_placed(&mut self, directory: usize) -> Result<(), EngineError> {
        self.write_down(Line::Placed { directory })
    }

    pub fn add_loading(&mut self, directory: usize) -> Result<(), EngineError> {
        self.write_down(Line::Loading { directory })
    }

    pub fn add_loaded(&mut self, directory: usize) -> Result<(), EngineError> {
        self.write_down(Line::Loaded { directory })
    }

    pub fn add_dumped_aside(&mut self, directory: usize, folder: &Path) -> Result<(), EngineError> {
        self.write_down(Line::DumpedAside { directory, folder: folder.to_path_buf() })
    }

    /// Nothing was done: a journal that this run began goes.
    pub fn abandon(&self) -> Result<(), EngineError> {
        if self.resumed { Ok(()) } else { self.remove() }
    }

    /// The restore is done: the journal goes; with overridden rules it stays, under another name.
    pub fn finish(&self) -> Result<(), EngineError> {
        if self.record.lines.iter().any(|line| matches!(line, Line::Overridden { .. })) {
            self.disk.rename(&self.path, &free_name(&self.path.with_extension("overridden")))?;
            return self.disk.sync_folder(self.path.parent().unwrap_or(Path::new("/")));
        }
        self.remove()
    }

    fn remove(&self) -> Result<(), EngineError> {
        self.disk.remove_file(&self.path)?;
        self.disk.sync_folder(self.path.parent().unwrap_or(Path::new("/")))
    }
}
