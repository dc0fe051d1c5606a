//! Checks the room on every mount that a restore writes to (B9): bytes, and inodes where their number is fixed. What an earlier run has
//! written needs no room again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_network::{Finding, Remedy, Rule};

use super::plan::{Plan, PlannedDirectory};
use crate::EngineError;
use crate::error::io;
use crate::point::{CapturedDirectory, EntryContent, RecoveryPoint};
use crate::restore::progress::Record;

/// Room in a file system.
#[derive(Clone, Copy, Default)]
struct Room {
    bytes: u64,
    /// Files, directories and links.
    inodes: u64,
}

impl AddAssign for Room {
    fn add_assign(&mut self, more: Room) {
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.inodes = self.inodes.saturating_add(more.inodes);
    }
}

/// What one file system has to take.
struct Need {
    needed: Room,
    free: Room,
    path: PathBuf,
}

/// Refuses what has less room than the restore needs.
pub(super) fn check(plan: &mut Plan<'_>, point: &RecoveryPoint, record: &Record) -> Result<(), EngineError> {
    let mut needs: BTreeMap<u64, Need> = BTreeMap::new();
    for (index, planned) in plan.directories.iter().enumerate() {
        if planned.equal || record.is_settled(index) || record.has_aside(index) {
            continue;
        }
        let captured = &point.nodes[planned.node].directories[planned.directory];
        for (region, needed) in planned.staging.regions.iter().zip(needed(planned, captured)?) {
            let Some(existing) = region.staging.ancestors().find(|path| path.exists()) else { continue };
            let device = existing.metadata().map_err(io(existing))?.dev();
            let room = rustix::fs::statvfs(existing)
                .map_err(|error| EngineError::Io { path: existing.display().to_string(), source: error.into() })?;
            // A file system that makes inodes as it needs them has no number of them.
            let inodes = if room.f_files == 0 { u64::MAX } else { room.f_favail };
            let free = Room { bytes: room.f_bavail.saturating_mul(room.f_frsize), inodes };
            let path = existing.to_path_buf();
            needs.entry(device).or_insert(Need { needed: Room::default(), free, path }).needed += needed;
        }
    }
    for Need { needed, free, path } in needs.into_values() {
        let amounts = [("bytes", needed.bytes, free.bytes), ("inodes", needed.inodes, free.inodes)];
        plan.findings.extend(amounts.into_iter().filter(|(_, needed, free)| needed > free).map(
            |(of, needed, free)| {
                Finding::error(
                    Rule::RoomEnough,
                    path.display(),
                    format!("the restore needs {needed} {of} there, {free} are free"),
                    Remedy::from("free some space, or mount another disk").or(Remedy::RestoreElsewhere),
                )
            },
        ));
    }
    Ok(())
}

/// Room that each part of a directory still needs on its disk, in whole blocks.
fn needed(planned: &PlannedDirectory, captured: &CapturedDirectory) -> Result<Vec<Room>, EngineError> {
    let staging = &planned.staging;
    let mut needed = Vec::new();
    for region in &staging.regions {
        let existing = region.staging.ancestors().find(|path| path.exists());
        let block = existing.and_then(|path| rustix::fs::statvfs(path).ok()).map_or(1, |room| room.f_frsize.max(1));
        let mut room = Room::default();
        let same: BTreeSet<usize> = planned.same.iter().flatten().map(|file| file.position).collect();
        let fresh = captured.entries.iter().enumerate().filter(|(position, _)| !same.contains(position));
        for entry in fresh.map(|(_, entry)| entry).chain(planned.kept.iter().map(|kept| &kept.entry)) {
            if staging.region_of(&entry.path).root != region.root {
                continue;
            }
            let bytes = match &entry.content {
                EntryContent::File { parts, .. } => parts.iter().map(|part| whole(part.len, block)).sum(),
                EntryContent::Directory => block,
                EntryContent::Symlink { .. } => 0,
            };
            room += Room { bytes, inodes: 1 };
        }
        let written = written(&region.staging)?;
        needed.push(Room {
            bytes: room.bytes.saturating_sub(written.bytes),
            inodes: room.inodes.saturating_sub(written.inodes),
        });
    }
    Ok(needed)
}

fn whole(bytes: u64, block: u64) -> u64 {
    bytes.div_ceil(block).saturating_mul(block)
}

/// Room that a folder of an earlier run takes on the disk.
fn written(folder: &Path) -> Result<Room, EngineError> {
    let metadata = match folder.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Room::default()),
        Err(error) => return Err(io(folder)(error)),
    };
    let mut room = Room { bytes: metadata.blocks().saturating_mul(512), inodes: 1 };
    if metadata.is_dir() {
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            room += written(&entry.map_err(io(folder))?.path())?;
        }
    }
    Ok(room)
}
