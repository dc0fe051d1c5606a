//! Searches the directories below a root once, for data, configuration and identities of nodes, and for files that start nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fabkeep_ledger::ca_config::CA_CONFIG_FILE;
use fabkeep_ledger::certificate::{Certificate, MAX_PEM_BYTES};
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::node_settings::{ORDERER_CONFIG_FILE, PEER_CONFIG_FILE};

use super::claims::{DirectoryKey, same_directory};
use super::remark::Remarks;
use crate::PlatformError;

/// Deepest directory looked at below the root.
const MAX_DEPTH: usize = 16;
/// Most directories looked at.
const MAX_DIRECTORIES: usize = 100_000;
/// Longest script, environment or compose file read, in bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Directories in which nothing is looked for: the inside of a node's data, version control, packages.
const NOT_ENTERED: [&str; 15] = [
    "ledgersData",
    "transientstore",
    "externalbuilder",
    "lifecycle",
    "chaincodes",
    "chains",
    "index",
    "pendingops",
    "etcdraft",
    "shards",
    ".shards",
    "keystore",
    ".git",
    "node_modules",
    "signcerts",
];

/// How a compose file's section of services begins.
const SERVICES: [&str; 4] = ["services:", "\"services\":", "'services':", "include:"];

/// A directory that holds a node's data, by what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Data {
    pub role: NodeRole,
    pub kind: DirectoryRole,
    pub path: PathBuf,
}

/// An MSP directory of a node.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub msp: PathBuf,
    /// The TLS directory beside it.
    pub tls: Option<PathBuf>,
    /// The folder that holds both: `peers/peer0.org1.example.com`.
    pub home: PathBuf,
    /// The certificate's common name.
    pub common_name: String,
    /// `peer` or `orderer`, when the certificate or the folder says so.
    pub role: Option<NodeRole>,
}

/// The directories that were looked at.
struct VisitedDirectories {
    directories: BTreeMap<DirectoryKey, PathBuf>,
    /// As many are looked at.
    most: usize,
    /// There were more.
    left_out: bool,
}

/// Everything below a root that could tell of a node.
#[derive(Debug, Default, Clone)]
pub(super) struct Tree {
    pub data: Vec<Data>,
    /// `core.yaml`, `orderer.yaml`.
    pub configs: Vec<PathBuf>,
    /// Homes of certificate authorities.
    pub authorities: Vec<PathBuf>,
    pub identities: Vec<Identity>,
    /// Scripts, environment files and supervisord's configurations with settings of nodes.
    pub scripts: Vec<PathBuf>,
    pub compose: Vec<PathBuf>,
    pub units: Vec<PathBuf>,
    /// Podman's units of containers.
    pub quadlets: Vec<PathBuf>,
    pub remarks: Remarks,
    /// What restores have left beside data.
    pub left: Vec<PathBuf>,
    /// Directories that were found a second time under another path, each with the first.
    pub twice: Vec<(PathBuf, PathBuf)>,
}

impl Tree {
    /// Looks below a root.
    pub fn look(root: &Path) -> Result<Tree, PlatformError> {
        Self::look_at_most(root, MAX_DIRECTORIES)
    }

    fn look_at_most(root: &Path, most: usize) -> Result<Tree, PlatformError> {
        let io = |source| PlatformError::Io { path: root.display().to_string(), source };
        std::fs::read_dir(root).map_err(io)?;
        let mut tree = Tree::default();
        let mut seen = VisitedDirectories { directories: BTreeMap::new(), most, left_out: false };
        let mut later = Vec::new();
        tree.enter(root, 0, &mut seen, &mut later);
        // Links last: what lies below the root is known by its own path first.
        while let Some((link, depth)) = later.pop() {
            tree.enter(&link, depth, &mut seen, &mut later);
        }
        if seen.left_out {
            return Err(PlatformError::Inventory {
                file: root.display().to_string(),
                problem: format!(
                    "more than {most} directories are below it, and nodes in the rest would be missed: name a smaller directory"
                ),
            });
        }
        tree.data.sort_by(|a, b| a.path.cmp(&b.path));
        let twice = std::mem::take(&mut tree.twice);
        tree.twice = twice.into_iter().filter(|(_, first)| tree.tells_of(first)).collect();
        tree.remarks.extend(tree.twice.iter().map(|(second, first)| same_directory(second, first)));
        Ok(tree)
    }

    /// Whether anything that tells of a node lies in a directory.
    fn tells_of(&self, directory: &Path) -> bool {
        let files = [&self.configs, &self.authorities, &self.scripts, &self.compose, &self.units, &self.quadlets];
        let data = self.data.iter().map(|data| &data.path);
        let identities = self.identities.iter().map(|identity| &identity.msp);
        files.into_iter().flatten().chain(data).chain(identities).any(|path| path.starts_with(directory))
    }

    /// Takes out what lies in these directories: everything, or only the files that start and configure nodes.
    pub fn set_apart(&mut self, directories: &[PathBuf], everything: bool) {
        let is_apart = |path: &Path| directories.iter().any(|directory| path.starts_with(directory));
        let files = [&mut self.authorities, &mut self.configs, &mut self.scripts, &mut self.compose, &mut self.units];
        files.into_iter().for_each(|paths| paths.retain(|path| !is_apart(path)));
        if everything {
            self.data.retain(|data| !is_apart(&data.path));
            self.identities.retain(|identity| !is_apart(&identity.msp));
        }
    }

    fn enter(
        &mut self,
        directory: &Path,
        depth: usize,
        seen: &mut VisitedDirectories,
        links: &mut Vec<(PathBuf, usize)>,
    ) {
        // A network that is linked twice is one network.
        let Ok(real) = directory.canonicalize() else { return };
        let place = DirectoryKey::of(&real);
        if let Some(first) = seen.directories.get(&place) {
            // Behind a link it has the same real path; mounted twice it has two.
            if *first != real {
                self.twice.push((directory.to_path_buf(), first.clone()));
            }
            return;
        }
        if seen.directories.len() >= seen.most {
            seen.left_out = true;
            return;
        }
        seen.directories.insert(place, real);
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.remarks.push(format!(
                    "{} cannot be read ({error}): nodes in it are not in the inventory",
                    directory.display()
                ));
                return;
            }
        };
        let (mut directories, mut files) = (Vec::new(), Vec::new());
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if super::is_of_a_restore(&path) {
                self.left.push(path.clone());
            } else if kind.is_dir() {
                directories.push(path);
            } else if kind.is_symlink() && path.is_dir() {
                links.push((path, depth + 1));
            } else {
                files.push(path);
            }
        }
        directories.sort();
        files.sort();
        self.recognise(directory);
        for file in &files {
            self.recognise_file(file);
        }
        if depth >= MAX_DEPTH {
            self.remarks.push(format!("{} is nested too deeply to be searched", directory.display()));
            return;
        }
        for child in directories {
            let name = child.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !NOT_ENTERED.contains(&name) {
                self.enter(&child, depth + 1, seen, links);
            }
        }
    }

    fn recognise(&mut self, directory: &Path) {
        let has = |name: &str| directory.join(name).exists();
        for (role, kind) in [
            (NodeRole::Peer, DirectoryRole::PeerData),
            (NodeRole::Orderer, DirectoryRole::OrdererLedger),
            (NodeRole::StateDatabase, DirectoryRole::StateDatabase),
        ] {
            if is_data_of(role, directory) {
                self.data.push(Data { role, kind, path: directory.to_path_buf() });
            }
        }
        if is_authority(directory) {
            self.authorities.push(directory.to_path_buf());
        }
        if has("signcerts")
            && has("keystore")
            && let Some(identity) = Identity::read(directory)
        {
            self.identities.push(identity);
        }
    }

    fn recognise_file(&mut self, file: &Path) {
        let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return };
        let lower = name.to_ascii_lowercase();
        let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
        // A part of a systemd unit, which is read with the unit.
        if file.parent().and_then(Path::to_str).is_some_and(|folder| folder.ends_with(".service.d")) {
            return;
        }
        match lower.as_str() {
            PEER_CONFIG_FILE | ORDERER_CONFIG_FILE => self.configs.push(file.to_path_buf()),
            _ if ends(&[".yaml", ".yml"])
                && text_of(file)
                    .is_some_and(|text| text.lines().any(|line| SERVICES.iter().any(|top| line.starts_with(top)))) =>
            {
                self.compose.push(file.to_path_buf());
            }
            _ if ends(&[".service"]) => self.units.push(file.to_path_buf()),
            _ if ends(&[".container"]) => self.quadlets.push(file.to_path_buf()),
            _ if ends(&[".sh", ".env", ".environment", ".bash", ".conf"])
                || lower.starts_with(".env")
                || lower.starts_with("env.")
                || matches!(lower.as_str(), "env" | "environment")
                || !lower.contains('.') =>
            {
                let tells = |text: String| {
                    [
                        "CORE_PEER_",
                        "CORE_LEDGER_",
                        "ORDERER_",
                        "FABRIC_CA_",
                        "fabric-ca",
                        "fabric-peer",
                        "fabric-orderer",
                        "couchdb",
                    ]
                    .iter()
                    .any(|word| text.contains(word))
                };
                if text_of(file).is_some_and(tells) {
                    self.scripts.push(file.to_path_buf());
                }
            }
            _ => {}
        }
    }
}

/// A small text file's content.
pub(super) fn text_of(file: &Path) -> Option<String> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_TEXT_BYTES {
        return None;
    }
    let text = String::from_utf8(std::fs::read(file).ok()?).ok()?;
    // As an editor on another system left it.
    Some(text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n"))
}

/// Whether a directory holds an orderer's ledger: and is not the inside of a peer's.
fn is_orderer_data(directory: &Path) -> bool {
    let has = |name: &str| directory.join(name).exists();
    let of_peer = directory.parent().is_some_and(|parent| {
        parent.file_name().is_some_and(|name| name == "ledgersData")
            || (parent.join("pvtdataStore").exists() && parent.join("ledgerProvider").exists())
    });
    has("chains") && (has("etcdraft") || has("index") || has("pendingops")) && !of_peer && !has("pvtdataStore")
}

/// Whether a directory holds a CouchDB's files.
fn is_couchdb(directory: &Path) -> bool {
    let has = |name: &str| directory.join(name).exists();
    has("_dbs.couch") || (has("shards") && (has("_nodes.couch") || has(".shards")))
}

/// Whether a directory holds the data of a node of this role.
pub(super) fn is_data_of(role: NodeRole, directory: &Path) -> bool {
    match role {
        NodeRole::Peer => directory.join("ledgersData").exists(),
        NodeRole::Orderer => is_orderer_data(directory),
        NodeRole::StateDatabase => is_couchdb(directory),
        _ => false,
    }
}

/// Whether a directory is a certificate authority's home.
pub(super) fn is_authority(directory: &Path) -> bool {
    let has = |name: &str| directory.join(name).exists();
    has(CA_CONFIG_FILE) || has("fabric-ca-server.db") || (has("ca-cert.pem") && has("IssuerPublicKey") && has("msp"))
}

/// Whether a directory holds a node's data.
pub(super) fn is_data(directory: &Path) -> bool {
    [NodeRole::Peer, NodeRole::Orderer, NodeRole::StateDatabase].iter().any(|role| is_data_of(*role, directory))
}

/// The common name of the certificate in an MSP directory.
pub(super) fn common_name(msp: &Path) -> Option<String> {
    Identity::read(msp).map(|identity| identity.common_name)
}

impl Identity {
    fn read(msp: &Path) -> Option<Identity> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(msp.join("signcerts"))
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.metadata().is_ok_and(|file| file.is_file() && file.len() <= MAX_PEM_BYTES))
            .collect();
        files.sort();
        let read = |path: &PathBuf| Certificate::from_pem(&std::fs::read(path).ok()?).ok();
        let summary = files.iter().find_map(read)?.summary();
        let home = msp.parent().unwrap_or(msp).to_path_buf();
        let folder = home.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        let unit = |unit: &str| summary.units.iter().any(|known| known.eq_ignore_ascii_case(unit));
        let role = match () {
            () if unit("peer") || folder == "peers" => Some(NodeRole::Peer),
            () if unit("orderer") || folder == "orderers" => Some(NodeRole::Orderer),
            () if unit("client") || unit("admin") || folder == "users" => return None,
            () => None,
        };
        let tls = home.join("tls");
        Some(Identity {
            msp: msp.to_path_buf(),
            tls: tls.is_dir().then_some(tls),
            home,
            common_name: summary.common_name,
            role,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_root_with_too_many_directories_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b/c"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        assert!(Tree::look_at_most(folder.path(), 4).is_ok());
        let refused = Tree::look_at_most(folder.path(), 3).unwrap_err().to_string();
        assert!(refused.contains("more than 3 directories"), "{refused}");
    }
}
