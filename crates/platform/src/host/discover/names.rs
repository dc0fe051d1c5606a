//! Names nodes by what starts them or by the path of their folder, so that all names are different.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};

use super::node::Node;

/// Folders that say what is in them and not whose it is.
const GENERIC: [&str; 20] = [
    "production",
    "data",
    "_data",
    "ledger",
    "ledgers",
    "ledgersData",
    "hyperledger",
    "fabric",
    "fabric-ca-server",
    "var",
    "lib",
    "srv",
    "opt",
    "volumes",
    "docker",
    "mnt",
    "store",
    "storage",
    "node",
    "nodes",
];
/// Names of a certificate authority's organization's folder trees.
const ORGANIZATIONS: [&str; 2] = ["peerOrganizations", "ordererOrganizations"];

fn is_generic(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_none_or(|name| GENERIC.contains(&name))
}

/// The folder that data is named by: its own, or the first above it whose name says whose it is.
pub(super) fn home_of_data(path: &Path) -> PathBuf {
    path.ancestors().find(|path| !is_generic(path)).unwrap_or(path).to_path_buf()
}

fn text(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn role_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Peer => "peer",
        NodeRole::Orderer => "orderer",
        NodeRole::CertificateAuthority => "ca",
        NodeRole::StateDatabase => "couchdb",
        _ => "node",
    }
}

/// Organization and node, for each node, no two the same.
pub(super) fn name_all(nodes: &[Node], root: &Path) -> Vec<(String, String)> {
    let mut names: Vec<(String, String)> = nodes.iter().map(|node| name(node, root, nodes.len() == 1, false)).collect();
    if has_twice(&names) {
        // The root may hold several networks: then more of the path tells them apart.
        let longer: Vec<(String, String)> = nodes.iter().map(|node| name(node, root, nodes.len() == 1, true)).collect();
        let twice = counted(&names);
        for (position, name) in names.iter_mut().enumerate() {
            if twice.get(name).is_some_and(|count| *count > 1) {
                *name = longer[position].clone();
            }
        }
    }
    if has_twice(&names) {
        let twice = counted(&names);
        for (position, (organization, name)) in names.iter_mut().enumerate() {
            if twice.get(&(organization.clone(), name.clone())).is_none_or(|count| *count < 2) {
                continue;
            }
            let node = &nodes[position];
            let identity = node.directory(DirectoryRole::Msp).and_then(super::tree::common_name);
            *name = match node.id.clone().or(identity) {
                Some(known) if !known.is_empty() => known,
                _ => format!("{name}-{}", role_name(node.role)),
            };
        }
    }
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    for name in &mut names {
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            name.1 = format!("{}-{count}", name.1);
        }
    }
    names
}

fn counted(names: &[(String, String)]) -> BTreeMap<(String, String), usize> {
    let mut out = BTreeMap::new();
    for name in names {
        *out.entry(name.clone()).or_default() += 1;
    }
    out
}

fn has_twice(names: &[(String, String)]) -> bool {
    counted(names).values().any(|count| *count > 1)
}

/// A node's organization and name. `long`: as much of the path as there is.
fn name(node: &Node, root: &Path, alone: bool, long: bool) -> (String, String) {
    let parts: Vec<String> = node
        .home
        .strip_prefix(root)
        .map(|path| path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
        .unwrap_or_else(|_| {
            // Outside of the root: the last two parts.
            let parent = node.home.parent().map(text).filter(|name| !name.is_empty());
            parent.into_iter().chain([text(&node.home)]).collect()
        });
    // Folders like `data` say nothing, at the beginning and at the end.
    let known: Vec<&String> = if node.by_layout {
        parts.iter().skip_while(|part| GENERIC.contains(&part.as_str())).collect()
    } else {
        parts.iter().collect()
    };
    let of_tree = parts.iter().position(|part| ORGANIZATIONS.contains(&part.as_str()));
    let of_tree = of_tree.and_then(|position| parts.get(position + 1)).cloned();
    let (organization, by_path) = match known.as_slice() {
        [] if alone => {
            let parent = root.parent().map(text).filter(|name| !name.is_empty());
            (parent.unwrap_or("network".to_owned()), text(root))
        }
        [] => ("network".to_owned(), role_name(node.role).to_owned()),
        [node] => (domain(node).unwrap_or("network".to_owned()), (*node).clone()),
        [folders @ .., node] if long => {
            let folders: Vec<&str> = folders.iter().map(|part| part.as_str()).collect();
            (folders.join("-"), (*node).clone())
        }
        [organization, .., node] => ((*organization).clone(), (*node).clone()),
    };
    let organization = of_tree.filter(|_| !long).unwrap_or(organization);
    match &node.name {
        Some(name) => {
            let by_name = domain(name).or(node.msp_id.clone());
            (if long { organization } else { by_name.unwrap_or(organization) }, name.clone())
        }
        None => (organization, by_path),
    }
}

/// `org1.example.com` of `peer0.org1.example.com`.
fn domain(host: &str) -> Option<String> {
    let (_, domain) = host.split_once('.')?;
    domain.contains('.').then(|| domain.to_owned())
}

/// Whether a folder or file name is a copy's of another: `production.bak`, `peer0-old`, `production.20240131`, `old-production`.
pub(super) fn copied_from(name: &str) -> Option<&str> {
    const MARKS: [&str; 9] = ["bak", "old", "orig", "backup", "save", "saved", "copy", "prev", "before"];
    if let Some(base) = name.strip_suffix('~') {
        return Some(base);
    }
    let is_mark = |rest: &str| {
        let rest = rest.to_ascii_lowercase();
        let tail_is_no_word = |tail: &str| !tail.chars().any(|c| c.is_ascii_alphabetic() && !matches!(c, 't' | 'z'));
        MARKS.iter().any(|mark| rest.strip_prefix(mark).is_some_and(tail_is_no_word))
            || (rest.chars().filter(char::is_ascii_digit).count() >= 6 && tail_is_no_word(&rest))
    };
    for (position, separator) in name.char_indices().filter(|(_, c)| matches!(c, '.' | '-' | '_' | ' ')) {
        let rest = &name[position + separator.len_utf8()..];
        if position > 0 && is_mark(rest.trim_matches(['(', ')'])) {
            return Some(&name[..position]);
        }
    }
    let (first, rest) = name.split_once(['-', '_', '.', ' '])?;
    MARKS
        .contains(&first.to_ascii_lowercase().as_str())
        .then(|| rest.trim_start_matches("of ").trim_start_matches("of-"))
}

/// Folders that copies are put into.
pub(super) fn holds_copies(name: &str) -> bool {
    ["backup", "backups", "bak", "old", "archive", "archives", "copies", "saved"]
        .contains(&name.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_by_their_names_and_nodes_are_not_taken_for_them() {
        for (name, base) in [
            ("production.bak", "production"),
            ("production.old", "production"),
            ("peer0-old", "peer0"),
            ("peer0.org1.example.com_backup", "peer0.org1.example.com"),
            ("production.bak-2024-01-31", "production"),
            ("production.20240131", "production"),
            ("production-2024-01-31T10_00", "production"),
            ("production~", "production"),
            ("old-production", "production"),
            ("production (copy)", "production"),
        ] {
            assert_eq!(copied_from(name), Some(base), "{name}");
        }
        for name in
            ["production", "peer0.org1.example.com", "orderer-2", "orderer.3", "peer-1.old-town.example", "golden"]
        {
            assert_eq!(copied_from(name), None, "{name}");
        }
    }
}
