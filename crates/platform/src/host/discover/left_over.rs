//! Directories below the root that belong to no node: administrators' identities, channel artifacts, chaincode.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};

use super::is_of_a_restore;
use super::node::Node;
use super::remark::Remarks;
use crate::PlatformError;

/// What a certificate authority keeps in its home in folders.
const AUTHORITY_FOLDERS: [&str; 4] = ["msp", "ca", "tls", "tlsca"];

/// What needs no other owner.
#[derive(Default)]
pub(super) struct Covered {
    /// Directories with everything in them.
    whole: BTreeSet<PathBuf>,
    /// Directories whose files are a node's, and whose folders are not but for some.
    files: BTreeSet<PathBuf>,
}

/// Directories that need no other owner.
pub(super) fn covered(nodes: &[Node], copies: &[PathBuf], root: &Path) -> Covered {
    let mut out = Covered { whole: copies.iter().cloned().collect(), files: BTreeSet::new() };
    let real_root = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    // What a link leads to is the same directory, found a second time by its own path.
    let led_to = |path: &Path| {
        let real = path.canonicalize().ok()?;
        real.strip_prefix(&real_root).ok().map(|inside| root.join(inside)).filter(|real| real != path)
    };
    let all: Vec<&PathBuf> = nodes.iter().flat_map(|node| node.directories.iter().map(|(_, path)| path)).collect();
    for node in nodes {
        for (role, path) in &node.directories {
            let shared = all
                .iter()
                .any(|other| other.starts_with(path) && !node.directories.iter().any(|(_, own)| own == *other));
            // The folder that a server was started in may hold a whole network: then only what a server makes is its own.
            let opened = node.role == NodeRole::CertificateAuthority && *role == DirectoryRole::CaHome && shared;
            if opened || (path == root && shared) {
                let own = AUTHORITY_FOLDERS.iter().map(|name| path.join(name));
                out.whole.extend(own.filter(|path| path.is_dir()));
                out.files.insert(path.clone());
                out.files.extend(led_to(path));
            } else {
                out.whole.insert(path.clone());
                // A link to the root, or to what is above another node, covers nothing else.
                let holds_others = |real: &PathBuf| all.iter().any(|other| *other != path && other.starts_with(real));
                out.whole.extend(led_to(path).filter(|real| real != root && !holds_others(real)));
            }
        }
    }
    out
}

/// Directories below the root that are not covered, by organization.
pub(super) fn left_over(
    root: &Path,
    covered: &Covered,
    remarks: &mut Remarks,
) -> Result<BTreeMap<String, Vec<PathBuf>>, PlatformError> {
    let mut out: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    if covered.whole.contains(root) {
        return Ok(out);
    }
    collect(root, covered, remarks, &mut |path| {
        let below = path.strip_prefix(root).map(|path| path.components().count()).unwrap_or(0);
        let organization = match (below, path.parent().and_then(Path::file_name)) {
            (2.., Some(parent)) => parent.to_string_lossy().into_owned(),
            _ => "network".to_owned(),
        };
        out.entry(organization).or_default().push(path);
    })?;
    Ok(out)
}

fn collect(
    directory: &Path,
    covered: &Covered,
    remarks: &mut Remarks,
    add: &mut dyn FnMut(PathBuf),
) -> Result<(), PlatformError> {
    let io = |source| PlatformError::Io { path: directory.display().to_string(), source };
    let mut children: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_type().map_err(io)?.is_dir() {
            children.push(path);
        } else if !covered.files.contains(directory)
            && !covered.whole.contains(&path)
            && !is_of_a_restore(&path)
            && entry.file_name() != "fabkeep.toml"
        {
            remarks.push(format!("{} is not in any node's directory and is not in the inventory", path.display()));
        }
    }
    children.sort();
    for child in children {
        if covered.whole.contains(&child) || is_of_a_restore(&child) {
            continue;
        }
        if covered.whole.iter().chain(&covered.files).any(|path| path.starts_with(&child)) {
            collect(&child, covered, remarks, add)?;
        } else if child.read_dir().is_ok() {
            add(child);
        } else {
            remarks.push(format!("{} cannot be read and is not in the inventory", child.display()));
        }
    }
    Ok(())
}
