//! Reads what is in a place before it is replaced: a directory of a host, or of a cluster's volume. Both are read as volumes.

use fabkeep_network::NodeId;
use fabkeep_platform::{EntryKind, Fetch, Volume, VolumeEntry};

use super::ca::keep::{self, ExistingFile, ExistingFiles};
use crate::EngineError;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedNode};

/// A place that is to be filled.
pub(super) struct Existing<'a> {
    pub node: &'a CapturedNode,
    /// The data that replaces it.
    pub captured: &'a CapturedDirectory,
    /// What is there.
    pub volume: &'a dyn Volume,
    /// Its name for people.
    pub label: String,
    /// Whether a path in it is its own: not another node's.
    pub is_part: &'a dyn Fn(&str) -> bool,
    /// What stays of it.
    pub kept: &'a [ExistingFile],
}

impl Existing<'_> {
    pub fn id(&self) -> &NodeId {
        &self.node.facts.id
    }

    /// Files that are there.
    pub fn files(&self) -> Result<Vec<VolumeEntry>, EngineError> {
        let mut found = self.volume.list("")?;
        found.retain(|entry| entry.kind == EntryKind::File && (self.is_part)(&entry.path));
        Ok(found)
    }

    /// Reads whole small files; those that are gone meanwhile are left out.
    pub fn read(&self, files: Vec<VolumeEntry>) -> Result<Vec<(VolumeEntry, Vec<u8>)>, EngineError> {
        read(self.volume, &self.label, files)
    }
}

fn read(volume: &dyn Volume, label: &str, files: Vec<VolumeEntry>) -> Result<Vec<(VolumeEntry, Vec<u8>)>, EngineError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
    let to = |position: usize| scratch.path().join(position.to_string());
    let wanted: Vec<Fetch> = files
        .iter()
        .enumerate()
        .map(|(position, entry)| Fetch { path: entry.path.clone(), to: to(position), sparse: false })
        .collect();
    let there = volume.fetch(&wanted).map_err(io(label))?;
    let mut out = Vec::new();
    for (position, entry) in files.into_iter().enumerate().filter(|(position, _)| there.get(*position) == Some(&true)) {
        out.push((entry, std::fs::read(to(position)).map_err(io(to(position)))?));
    }
    Ok(out)
}

/// Files of a certificate authority's directory that may stay. `below`: where in the directory the volume begins.
pub(super) fn authority_files(
    captured: &CapturedDirectory,
    volume: &dyn Volume,
    label: &str,
    below: &str,
    is_part: &dyn Fn(&str) -> bool,
) -> Result<ExistingFiles, EngineError> {
    let inside = |path: &str| if below.is_empty() { path.to_owned() } else { format!("{below}/{path}") };
    let mut found = volume.list("")?;
    found.retain(|entry| {
        let path = inside(&entry.path);
        entry.kind == EntryKind::File
            && is_part(&path)
            && keep::is_looked_at(&captured.directory, &path, entry.stamp.size)
    });
    let read = read(volume, label, found)?.into_iter();
    let files = read.map(|(entry, bytes)| {
        let path = inside(&entry.path);
        (path.clone(), ExistingFile::new(&VolumeEntry { path, ..entry }, bytes))
    });
    Ok(files.collect())
}
