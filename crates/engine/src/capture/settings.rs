//! Settings of a node's own configuration: its keys and certificates, the databases of a certificate authority, and their locations in the
//! node's directories.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use fabkeep_ledger::ca_config::{CA_CONFIG_FILE, CaConfig, FURTHER_CA_CONFIG_FILE, config_file_name};
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::node_settings::{Environment, NodeSettings, ORDERER_CONFIG_FILE, PEER_CONFIG_FILE};
use fabkeep_ledger::yaml::MAX_CONFIG_BYTES;
use fabkeep_network::{Node, NodeDirectory};
use fabkeep_platform::{EntryKind, Platform, Volume, dump_directory, normal};

use super::survey::PlannedNode;
use crate::located::{Located, locate};

/// One certificate authority of a server.
pub(super) struct CaHome {
    /// The directory that it lies in, and where in it; empty for the directory itself.
    pub directory: usize,
    pub at: String,
    /// Its configuration file, when there is one.
    pub file: Option<String>,
    pub config: CaConfig,
}

impl CaHome {
    /// Returns a path inside the home as one of its directory.
    pub fn inside(&self, path: &str) -> String {
        if self.at.is_empty() { path.to_owned() } else { format!("{}/{path}", self.at) }
    }
}

/// Reads a small file of a surveyed directory.
pub(super) fn read(node: &PlannedNode, at: &Located, limit: u64) -> Option<std::io::Result<Vec<u8>>> {
    let directory = node.directories.get(at.0)?;
    let (entry, _) = directory.entries.iter().find(|(entry, _)| entry.path == at.1)?;
    if entry.kind != EntryKind::File {
        return None;
    }
    let (volume, path) = directory.source(&entry.path);
    let mut bytes = Vec::new();
    let read =
        volume.open(path, 0..entry.stamp.size.min(limit)).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    Some(read.map(|_| bytes))
}

/// Returns the settings of a peer or an orderer, and the location of its configuration file; without one only the environment is used.
pub(super) fn node_settings(node: &PlannedNode) -> (NodeSettings, Option<Located>) {
    let file = match node.node.role {
        NodeRole::Peer => PEER_CONFIG_FILE,
        NodeRole::Orderer => ORDERER_CONFIG_FILE,
        _ => return (NodeSettings::default(), None),
    };
    let mut found = None;
    for (position, directory) in node.directories.iter().enumerate() {
        for (entry, _) in &directory.entries {
            let (_, role, inside) = directory.directory.part(&entry.path);
            let first = inside == file && (role == DirectoryRole::Config || found.is_none());
            if first && entry.kind == EntryKind::File {
                found = Some((position, entry.path.clone()));
            }
        }
    }
    let bytes = found.as_ref().and_then(|at| read(node, at, MAX_CONFIG_BYTES)?.ok());
    (NodeSettings::read(node.node.role, &bytes.unwrap_or_default(), &node.node.environment), found)
}

/// Returns an orderer's directory of raft snapshots, relative to that of its raft logs, where its settings name both. Both may be seen from
/// the folder in which the node is started.
pub(super) fn snapshots_from_logs(node: &PlannedNode) -> Option<String> {
    if node.node.role != NodeRole::Orderer {
        return None;
    }
    let (settings, _) = node_settings(node);
    relative(&settings.wal?, &settings.raft_snapshots?)
}

/// Returns a path without `.`, and with `..` at its beginning only.
fn without_detours(path: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Returns a path relative to another, if both begin at the same place.
fn relative(from: &str, to: &str) -> Option<String> {
    let (from, to) = (without_detours(from), without_detours(to));
    if from.is_absolute() != to.is_absolute() {
        return None;
    }
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|part| matches!(part, Component::Normal(_)).then_some(".."));
    let down = to.components().skip(shared).map(|part| part.as_os_str().to_str());
    let parts = up.chain(down).collect::<Option<Vec<&str>>>()?;
    Some(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
}

/// Returns every certificate authority of a server, the server's own first. `read`: a file of one of its directories.
pub(super) fn ca_homes(
    directories: &[&NodeDirectory],
    environment: &Environment,
    read: &dyn Fn(&Located) -> Option<Vec<u8>>,
) -> Vec<CaHome> {
    let mut places: Vec<(usize, String)> = Vec::new();
    for (position, directory) in directories.iter().enumerate() {
        if directory.role == DirectoryRole::CaHome {
            places.push((position, String::new()));
        }
        let nested = directory.nested.iter().filter(|(_, role)| *role == DirectoryRole::CaHome);
        places.extend(nested.map(|(at, _)| (position, at.clone())));
    }
    // What is mounted into a home from objects is a part of the home in the volume.
    places.sort_by_key(|(position, _)| !directories[*position].source.is_volume());
    let absolute = |position: usize, at: &str| {
        let directory = directories[position];
        normal(&Path::new(directory.mounted_at.as_deref().unwrap_or(&directory.path)).join(at))
    };
    let mut homes: Vec<(usize, String, Vec<Located>)> = Vec::new();
    for (position, at) in places {
        let here = absolute(position, &at);
        match homes.iter_mut().find(|(known, known_at, _)| absolute(*known, known_at) == here) {
            Some((_, _, all)) => all.push((position, at)),
            None => homes.push((position, at.clone(), vec![(position, at)])),
        }
    }
    let inside = |at: &str, name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
    let mut out: Vec<CaHome> = Vec::new();
    let mut further: Vec<Located> = Vec::new();
    for (directory, at, all) in homes {
        let own = further.iter().find(|(position, path)| {
            *position == directory && path.rsplit_once('/').map_or("", |(folder, _)| folder) == at
        });
        // A configuration that is mounted beside the home is what the home was made from: a server keeps its data in a volume.
        if !out.is_empty() && own.is_none() && !directories[directory].source.is_volume() {
            continue;
        }
        let first = out.is_empty();
        let environment = if first { environment.clone() } else { Environment::new() };
        let names = [config_file_name(&environment), CA_CONFIG_FILE, FURTHER_CA_CONFIG_FILE];
        let named = names.iter().flat_map(|name| all.iter().map(|(position, at)| (*position, inside(at, name))));
        let mut candidates = own.cloned().into_iter().chain(named);
        let found = candidates.find_map(|file| Some((read(&file)?, file)));
        let (bytes, file) = match found {
            Some((bytes, file)) => (bytes, Some(file.1)),
            None => (b"{}".to_vec(), None),
        };
        // A file that is no YAML has its own finding; a server would not start with it.
        let Ok(config) = CaConfig::read(&bytes, &environment) else {
            out.push(CaHome { directory, at, file, config: CaConfig::usual() });
            continue;
        };
        if first {
            further = config.further.iter().filter_map(|named| locate(directories, (directory, &at), named)).collect();
            // Those that the configuration names and no directory was named for.
            let more: Vec<Located> = further.clone();
            out.push(CaHome { directory, at, file, config });
            for (position, path) in more {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                let listed = directories[position].role == DirectoryRole::CaHome && folder.is_empty()
                    || directories[position]
                        .nested
                        .iter()
                        .any(|(at, role)| *at == folder && *role == DirectoryRole::CaHome);
                let bytes = read(&(position, path.clone())).filter(|_| !listed);
                if let Some(config) = bytes.and_then(|bytes| CaConfig::parse(&bytes).ok()) {
                    out.push(CaHome { directory: position, at: folder, file: Some(path), config });
                }
            }
        } else {
            out.push(CaHome { directory, at, file, config });
        }
    }
    out
}

/// Returns the certificate authorities of a surveyed node.
pub(super) fn surveyed_homes(node: &PlannedNode) -> Vec<CaHome> {
    let directories: Vec<&NodeDirectory> = node.directories.iter().map(|directory| &directory.directory).collect();
    ca_homes(&directories, &node.node.environment, &|at| read(node, at, MAX_CONFIG_BYTES)?.ok())
}

/// Whether the database of an authority with this home is dumped. On a cluster an authority is alone on its server.
pub(super) fn is_dumped(node: &PlannedNode, (directory, inside): (usize, &str)) -> bool {
    let of_home = dump_directory(&node.directories[directory].directory.path, inside);
    let dumps = node.directories.iter().map(|known| &known.directory);
    let mut dumps = dumps.filter(|known| known.role == DirectoryRole::DatabaseDump);
    dumps.any(|dump| node.node.workload.is_some() || dump.path == of_home)
}

/// A certificate authority's node with its sqlite databases named, as its configuration says: they are files under any name, and other
/// files are none, whatever they are called.
pub(super) fn with_databases(platform: &dyn Platform, node: &Node) -> Node {
    let mut out = node.clone();
    let volumes: Vec<Option<Box<dyn Volume>>> = node
        .directories
        .iter()
        .map(|directory| match directory.role {
            DirectoryRole::DatabaseDump | DirectoryRole::Database => None,
            _ => platform.volume(&node.id, directory).ok().flatten(),
        })
        .collect();
    let read = |at: &Located| {
        let volume = volumes.get(at.0)?.as_ref()?;
        let mut bytes = Vec::new();
        volume.open(&at.1, 0..MAX_CONFIG_BYTES).ok()?.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty()).then_some(bytes)
    };
    let directories: Vec<&NodeDirectory> = node.directories.iter().collect();
    let homes = ca_homes(&directories, &node.environment, &read);
    let reported = homes.iter().any(|home| home.file.is_some()) || !node.environment.is_empty();
    if !reported {
        return out;
    }
    let mut named: Vec<Vec<String>> = vec![Vec::new(); directories.len()];
    for home in &homes {
        for file in home.config.sqlite_files() {
            if let Some((position, path)) = locate(&directories, (home.directory, &home.at), &file) {
                named[position].push(path);
            }
        }
    }
    for (directory, named) in out.directories.iter_mut().zip(named) {
        directory.sqlite = Some(named);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::relative;

    #[test]
    fn snapshots_are_found_from_the_logs() {
        let cases = [
            ("/var/etcdraft/wal", "/var/etcdraft/snapshot", Some("../snapshot")),
            ("../production/etcdraft/wal", "../production/etcdraft/wal", Some(".")),
            ("../production/etcdraft/wal", "../snap", Some("../../../snap")),
            ("raft/wal", "raft/wal/snap", Some("snap")),
            ("../../wal", "../snap", None),
            ("../wal", "../../snap", Some("../../snap")),
            ("a/../wal/.", "./b/../snap", Some("../snap")),
            ("/wal", "snap", None),
            ("../wal", "snap", None),
        ];
        for (wal, snapshots, expected) in cases {
            assert_eq!(relative(wal, snapshots).as_deref(), expected, "{wal} {snapshots}");
        }
    }
}
