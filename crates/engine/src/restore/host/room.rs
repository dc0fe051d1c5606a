//! Checks free space and write permission on every mount that a restore writes to (B9). Data that an earlier run has written needs no room
//! again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_network::{Finding, Rule};
use fabkeep_store::PointReader;

use super::journal::Record;
use super::plan::{Plan, PlannedDirectory};
use super::prove::is_as_captured;
use crate::EngineError;
use crate::error::io;
use crate::point::{CapturedDirectory, EntryContent, RecoveryPoint};

/// What one file system has to take.
struct Need {
    bytes: u64,
    free_bytes: u64,
    path: PathBuf,
}

/// Refuses what cannot be written, or has less room than the restore needs.
pub(super) fn check(
    plan: &mut Plan<'_>,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    record: &Record,
) -> Result<(), EngineError> {
    let mut needs: BTreeMap<u64, Need> = BTreeMap::new();
    for (index, planned) in plan.directories.iter().enumerate() {
        if planned.equal || record.is_settled(index) || record.has_aside(index) {
            continue;
        }
        let captured = &point.nodes[planned.node].directories[planned.directory];
        let bytes = needed(planned, captured)?;
        let closed: Vec<PathBuf> =
            planned.staging.regions.iter().filter_map(|region| closed(&region.staging)).collect();
        if !closed.is_empty() && !is_as_captured(planned, captured, reader.names()) {
            for path in closed {
                plan.findings.push(Finding::error(
                    Rule::RoomEnough,
                    &planned.id,
                    format!("{} cannot be written to", path.display()),
                    "mount it for writing and run fabkeep as a user who may write there, or restore into another folder (--to DIR)",
                ));
            }
            continue;
        }
        for (region, bytes) in planned.staging.regions.iter().zip(bytes) {
            let Some(existing) = region.staging.ancestors().find(|path| path.exists()) else { continue };
            let device = existing.metadata().map_err(io(existing))?.dev();
            let room = rustix::fs::statvfs(existing)
                .map_err(|error| EngineError::Io { path: existing.display().to_string(), source: error.into() })?;
            let free_bytes = room.f_bavail.saturating_mul(room.f_frsize);
            let need = needs.entry(device).or_insert(Need { bytes: 0, free_bytes, path: existing.to_path_buf() });
            need.bytes = need.bytes.saturating_add(bytes);
        }
    }
    for Need { bytes, free_bytes, path } in needs.into_values() {
        if bytes > free_bytes {
            plan.findings.push(Finding::error(
                Rule::RoomEnough,
                path.display(),
                format!("the restore needs {bytes} bytes there, {free_bytes} are free"),
                "free some space, or restore into a folder on another disk (--to DIR)",
            ));
        }
    }
    Ok(())
}

/// The folder that keeps a place from being written, if one does.
fn closed(staging: &Path) -> Option<PathBuf> {
    use rustix::fs::{Access, access};
    let existing = staging.ancestors().skip(1).find(|path| path.exists())?;
    access(existing, Access::WRITE_OK | Access::EXEC_OK).is_err().then(|| existing.to_path_buf())
}

/// Bytes that each part of a directory still needs on its disk, in whole blocks.
fn needed(planned: &PlannedDirectory, captured: &CapturedDirectory) -> Result<Vec<u64>, EngineError> {
    let staging = &planned.staging;
    let mut needed = Vec::new();
    for region in &staging.regions {
        let existing = region.staging.ancestors().find(|path| path.exists());
        let block = existing.and_then(|path| rustix::fs::statvfs(path).ok()).map_or(1, |room| room.f_frsize.max(1));
        let mut bytes = 0u64;
        for entry in captured.entries.iter().chain(planned.kept.iter().map(|kept| &kept.entry)) {
            if staging.region_of(&entry.path).root != region.root {
                continue;
            }
            let own = match &entry.content {
                EntryContent::File { parts, .. } => parts.iter().map(|part| whole(part.len, block)).sum(),
                EntryContent::Directory => block,
                EntryContent::Symlink { .. } => 0,
            };
            bytes = bytes.saturating_add(own);
        }
        needed.push(bytes.saturating_sub(written(&region.staging)?));
    }
    Ok(needed)
}

fn whole(bytes: u64, block: u64) -> u64 {
    bytes.div_ceil(block).saturating_mul(block)
}

/// Bytes that a folder of an earlier run takes on the disk.
fn written(folder: &Path) -> Result<u64, EngineError> {
    let metadata = match folder.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(io(folder)(error)),
    };
    let mut bytes = metadata.blocks().saturating_mul(512);
    if metadata.is_dir() {
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            bytes = bytes.saturating_add(written(&entry.map_err(io(folder))?.path())?);
        }
    }
    Ok(bytes)
}
