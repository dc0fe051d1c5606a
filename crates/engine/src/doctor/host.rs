//! Hosts: room for a restore, and what earlier restores have left.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_platform::kubernetes::Purpose;
use fabkeep_platform::{Host, NodeState, Platform, STAGED, is_aside};

use super::{Diagnosis, DoctorOptions, Topic};
use crate::capture::Looked;
use crate::units;

/// Returns the free bytes of a folder's file system.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let room = rustix::fs::statvfs(folder).ok()?;
    Some(room.f_bavail.saturating_mul(room.f_frsize))
}

pub(super) fn examine(out: &mut Diagnosis, host: &Host, looked: Option<&Looked>, options: &DoctorOptions) {
    room(out, host, looked, options);
    leftovers(out, host);
    commands(out, host, options);
}

/// A restore in place writes beside the existing data.
fn room(out: &mut Diagnosis, host: &Host, looked: Option<&Looked>, options: &DoctorOptions) {
    let Some(looked) = looked else { return };
    struct Disk {
        path: PathBuf,
        needed: u64,
        nodes: BTreeSet<String>,
    }
    let mut disks: BTreeMap<u64, Disk> = BTreeMap::new();
    for node in host.network().nodes() {
        for (path, bytes) in looked.bytes_of(&node.id) {
            let Ok(metadata) = path.metadata() else { continue };
            let disk = Disk { path, needed: 0, nodes: BTreeSet::new() };
            let disk = disks.entry(metadata.dev()).or_insert(disk);
            disk.needed += bytes;
            disk.nodes.insert(node.id.to_string());
        }
    }
    for Disk { path, needed, nodes } in disks.into_values() {
        let Some(free) = free_bytes(&path) else { continue };
        let nodes = nodes.into_iter().collect::<Vec<_>>().join(", ");
        if free >= needed {
            let what = format!(
                "a restore in place needs at most {} beside the data of {nodes}; {} are free",
                units::bytes(needed),
                units::bytes(free)
            );
            out.ok(Topic::Room, path.display(), what);
            continue;
        }
        let what = format!(
            "a restore of all of {nodes} in place needs {} beside their data, {} are free",
            units::bytes(needed),
            units::bytes(free)
        );
        let remedy =
            Remedy::from("free some space").or(Remedy::RestoreElsewhere).or("restore the nodes one after the other");
        let mut finding = Finding::warning(Rule::RoomEnough, path.display(), what, remedy);
        if options.wants(Purpose::Restore) {
            finding.severity = fabkeep_network::Severity::Error;
        }
        out.finding(Topic::Room, finding);
    }
}

/// Names beside the nodes' directories, and in them, that a restore gives.
fn leftovers(out: &mut Diagnosis, host: &Host) {
    let mut folders = BTreeSet::new();
    for directory in host.network().nodes().flat_map(|node| &node.directories) {
        let path = Path::new(&directory.path);
        folders.insert(path.to_path_buf());
        folders.extend(path.parent().map(Path::to_path_buf));
    }
    let (mut begun, mut aside) = (BTreeSet::new(), BTreeSet::new());
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(STAGED) {
                begun.insert(entry.path());
            } else if is_aside(&name) {
                aside.insert(entry.path());
            }
        }
    }
    if begun.is_empty() {
        out.ok(Topic::Leftovers, "restores", "none was begun and not ended beside the nodes' directories");
    }
    for path in begun {
        out.warn(
            Topic::Leftovers,
            path.display(),
            "a restore was begun and has not ended: this is its journal, or what it has written so far",
            Remedy::ContinueRestore.or("if it is given up, and nothing of it is in place, remove it"),
        );
    }
    for path in aside {
        let what = "a restore has set this aside: it takes room and is not captured";
        out.note(Topic::Leftovers, path.display(), what, "remove it when the network works");
    }
}

/// Nodes of which it is not known whether they run, and those that a restore cannot stop and start.
fn commands(out: &mut Diagnosis, host: &Host, options: &DoctorOptions) {
    let nodes: Vec<_> = host.network().nodes().filter(|node| node.role != NodeRole::Files).collect();
    let unknown =
        |node: &&&fabkeep_network::Node| !matches!(host.state(&node.id), Ok(NodeState::Running | NodeState::Stopped));
    for node in nodes.iter().filter(unknown) {
        out.note(
            Topic::Nodes,
            &node.id,
            "it cannot be determined whether it runs: a backup reads it as one that does",
            "give it a `status` command in the inventory",
        );
    }
    let without: Vec<String> = nodes
        .iter()
        .filter(|node| !host.can_stop(&node.id) || !host.can_start(&node.id))
        .map(|node| node.id.to_string())
        .collect();
    if options.wants(Purpose::Restore) && !without.is_empty() {
        out.note(
            Topic::Nodes,
            without.join(", "),
            "the inventory has no commands that stop and start them: a restore needs them stopped by hand",
            "write `stop` and `start` commands into the inventory",
        );
    }
}
