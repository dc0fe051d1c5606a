//! A captured network, and restores of it into its places.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabkeep_engine::{CaptureOptions, EngineError, Reporter, RestoreOptions, RestoreTarget, Restored};
use fabkeep_platform::{Host, Inventory};

use super::bench::Bench;

/// A network as an inventory describes it, a repository with a recovery point of it.
pub struct Place {
    pub bench: Bench,
    pub inventory: Inventory,
    pub nodes: Vec<String>,
}

impl Place {
    /// The small network, to restore these nodes of it.
    pub fn new(nodes: &[&str]) -> Place {
        let bench = Bench::in_memory(fabkeep_fixtures::NETWORK_SMALL);
        let inventory = fabkeep_platform::discover(&bench.network(), bench.folder.path()).unwrap().inventory;
        bench.capture(&CaptureOptions::default()).unwrap();
        Place { bench, inventory, nodes: nodes.iter().map(|node| (*node).to_owned()).collect() }
    }

    pub fn host(&self) -> Host {
        Host::new(&self.inventory, self.bench.folder.path()).unwrap()
    }

    pub fn options(&self) -> RestoreOptions {
        RestoreOptions { nodes: self.nodes.clone(), replace: true, threads: 1, ..RestoreOptions::default() }
    }

    pub fn restore(&self, options: &RestoreOptions, reporter: &dyn Reporter) -> Result<Restored, EngineError> {
        self.bench.restore_to(&RestoreTarget::Host(&self.host()), options, reporter)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.bench.network().join(name)
    }
}

/// The broken rules that a restore was refused for, before it changed anything.
pub fn refused(result: Result<Restored, EngineError>) -> Vec<fabkeep_network::Finding> {
    match result {
        Err(EngineError::Precondition(findings)) => findings,
        other => panic!("{:?}", other.map(|restored| restored.directories)),
    }
}

/// Everything below a folder: kind, mode, bytes; what restores leave there is left out.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

fn walk(root: &Path, folder: &Path, out: &mut BTreeMap<PathBuf, (u32, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().contains(".before-") {
            continue;
        }
        let metadata = path.symlink_metadata().unwrap();
        let bytes = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        out.insert(path.strip_prefix(root).unwrap().to_owned(), (metadata.mode(), bytes));
        if metadata.is_dir() {
            walk(root, &path, out);
        }
    }
}

/// Removes everything that restores have set aside below a folder.
pub fn remove_asides(folder: &Path) {
    for aside in named(folder, ".before-") {
        match aside.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(aside).unwrap(),
            Ok(_) => std::fs::remove_file(aside).unwrap(),
            Err(_) => {}
        }
    }
}

/// Paths below a folder whose names hold a text.
pub fn named(folder: &Path, part: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().contains(part) {
            out.push(path.clone());
        }
        if path.symlink_metadata().unwrap().is_dir() {
            out.extend(named(&path, part));
        }
    }
    out
}
