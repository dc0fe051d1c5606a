//! The restore's journal: a file of lines beside the restored data. A line says what is done; what no line says is done again.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use fabkeep_network::Finding;
use serde::{Deserialize, Serialize};

use super::place::newest_aside;
use super::plan::{PlannedDirectory, RestorePlan};
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
    /// A file is written: directory and entry by position.
    File { directory: usize, entry: usize },
    /// A directory is in its place; what was there is set aside, or nothing was there.
    Placed { directory: usize, aside: Option<PathBuf> },
    /// What was in a directory's place is set aside.
    Aside { directory: usize },
    /// What a database held is dumped there.
    DumpedAside { directory: usize, folder: PathBuf },
    /// A dump is loaded, and the database was compared with it.
    Loaded { directory: usize },
}

pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: BTreeSet<Line>,
    resumed: bool,
}

impl Journal {
    /// Opens the journal of this restore: a new one, or an earlier run's.
    pub fn open(path: &Path, point: &str, plan: &str) -> Result<Journal, EngineError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        let begin = Line::Begin { point: point.to_owned(), plan: plan.to_owned() };
        let mut text = String::new();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io(path))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            EngineError::Usage(format!("another fabkeep is restoring here ({} is locked); wait for it", path.display()))
        })?;
        Read::by_ref(&mut file).take(MAX_JOURNAL_BYTES).read_to_string(&mut text).map_err(io(path))?;
        // A line cut by a kill says nothing.
        let lines: BTreeSet<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let resumed = !lines.is_empty();
        if resumed && !lines.contains(&begin) {
            return Err(EngineError::Usage(format!(
                "{} belongs to another restore that did not finish: run that one again to its end, or remove the file to give it up",
                path.display()
            )));
        }
        let mut journal = Journal { path: path.to_path_buf(), file, lines, resumed };
        if !resumed {
            journal.append(begin)?;
        } else if !text.ends_with('\n') {
            journal.file.write_all(b"\n").map_err(io(path))?;
        }
        Ok(journal)
    }

    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    fn append(&mut self, line: Line) -> Result<(), EngineError> {
        let mut text = serde_json::to_vec(&line).map_err(|error| EngineError::Usage(error.to_string()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(io(&self.path))?;
        self.lines.insert(line);
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.file.sync_data().map_err(io(&self.path))
    }

    /// Writes down which broken rules the restore goes on in spite of.
    pub fn add_overrides(&mut self, findings: &[Finding]) -> Result<(), EngineError> {
        for finding in findings {
            self.append(Line::Overridden {
                rule: finding.rule.code().to_owned(),
                subject: finding.subject.clone(),
                what: finding.what.clone(),
            })?;
        }
        Ok(())
    }

    pub fn has_file(&self, directory: usize, entry: usize) -> bool {
        self.lines.contains(&Line::File { directory, entry })
    }

    pub fn add_file(&mut self, directory: usize, entry: usize) -> Result<(), EngineError> {
        self.append(Line::File { directory, entry })
    }

    pub fn has_aside(&self, directory: usize) -> bool {
        self.lines.contains(&Line::Aside { directory })
    }

    pub fn add_aside(&mut self, directory: usize) -> Result<(), EngineError> {
        self.append(Line::Aside { directory })?;
        self.sync()
    }

    /// Whether a directory is in its place, and where what was there is.
    pub fn placed(&self, directory: usize) -> Option<Option<PathBuf>> {
        self.lines.iter().find_map(|line| match line {
            Line::Placed { directory: of, aside } if *of == directory => Some(aside.clone()),
            _ => None,
        })
    }

    pub fn add_placed(&mut self, directory: usize, aside: Option<PathBuf>) -> Result<(), EngineError> {
        self.append(Line::Placed { directory, aside })?;
        self.sync()
    }

    pub fn is_loaded(&self, directory: usize) -> bool {
        self.lines.contains(&Line::Loaded { directory })
    }

    pub fn add_loaded(&mut self, directory: usize) -> Result<(), EngineError> {
        self.append(Line::Loaded { directory })?;
        self.sync()
    }

    /// Where what a database held before is dumped.
    pub fn dumped_aside(&self, directory: usize) -> Option<PathBuf> {
        self.lines.iter().find_map(|line| match line {
            Line::DumpedAside { directory: of, folder } if *of == directory => Some(folder.clone()),
            _ => None,
        })
    }

    pub fn add_dumped_aside(&mut self, directory: usize, folder: &Path) -> Result<(), EngineError> {
        self.append(Line::DumpedAside { directory, folder: folder.to_path_buf() })?;
        self.sync()
    }

    /// What this run and earlier ones of the same restore did to the target.
    pub fn done(&self, plan: &RestorePlan) -> Vec<Done> {
        let mut done = Vec::new();
        let node = |planned: &PlannedDirectory| planned.id.to_string();
        for (index, planned) in plan.directories.iter().enumerate() {
            let place = planned.place.display().to_string();
            match self.placed(index) {
                // It was there, as it was captured.
                Some(None) if planned.occupied => continue,
                Some(aside) => {
                    let to = aside.map(|aside| aside.display().to_string());
                    done.extend(to.map(|to| Done::SetAside { what: place.clone(), to }));
                    done.push(Done::Placed { node: node(planned), path: place.clone() });
                }
                None => {
                    let aside = newest_aside(&planned.aside).filter(|_| self.has_aside(index));
                    let to = aside.map(|aside| aside.display().to_string());
                    done.extend(to.map(|to| Done::SetAside { what: place.clone(), to }));
                    if planned.staging.exists() {
                        done.push(Done::Written { node: node(planned), path: planned.staging.display().to_string() });
                    }
                }
            }
        }
        for load in &plan.loads {
            let node = node(&plan.directories[load.directory]);
            if let Some(folder) = self.dumped_aside(load.directory) {
                done.push(Done::DatabaseDumped { node: node.clone(), to: folder.display().to_string() });
            }
            if self.is_loaded(load.directory) {
                done.push(Done::DatabaseLoaded { node, database: load.access.label() });
            }
        }
        done
    }

    /// Nothing was done: a journal that this run began goes.
    pub fn abandon(self) -> Result<(), EngineError> {
        if self.resumed { Ok(()) } else { std::fs::remove_file(&self.path).map_err(io(&self.path)) }
    }

    /// The restore is done: the journal goes; with overridden rules it stays, under another name.
    pub fn finish(&self) -> Result<(), EngineError> {
        if self.lines.iter().any(|line| matches!(line, Line::Overridden { .. })) {
            return std::fs::rename(&self.path, self.path.with_extension("overridden")).map_err(io(&self.path));
        }
        std::fs::remove_file(&self.path).map_err(io(&self.path))
    }
}
