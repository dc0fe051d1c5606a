//! A folder of nodes put together of the small network's identities and configurations, with the outlines of their data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fabkeep_platform::{Discovered, Host, Platform, discover};
use tempfile::TempDir;

/// The small network, unpacked once.
fn network() -> &'static Path {
    static NETWORK: OnceLock<TempDir> = OnceLock::new();
    NETWORK
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, folder.path()).unwrap();
            folder
        })
        .path()
}

pub struct Site {
    pub folder: TempDir,
}

impl Site {
    pub fn new() -> Site {
        Site { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// Copies a file or folder of the small network.
    pub fn copy(&self, from: &str, to: &str) -> &Self {
        copy_all(&network().join(from), &self.path(to));
        self
    }

    pub fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("SITE", self.path("").display().to_string().trim_end_matches('/'))).unwrap();
        self
    }

    pub fn edit(&self, path: &str, from: &str, to: &str) -> &Self {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert!(text.contains(from), "{path}: {from}");
        self.write(path, &text.replace(from, to))
    }

    pub fn remove(&self, path: &str) -> &Self {
        let path = self.path(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        self
    }

    /// The outline of a peer's data.
    pub fn peer_data(&self, path: &str) -> &Self {
        self.write(&format!("{path}/ledgersData/stateLeveldb/CURRENT"), "")
    }

    /// The outline of an orderer's.
    pub fn orderer_data(&self, path: &str) -> &Self {
        self.write(&format!("{path}/chains/mychannel/blockfile_000000"), "");
        self.write(&format!("{path}/index/CURRENT"), "");
        self.write(&format!("{path}/etcdraft/wal/mychannel/0.wal"), "");
        self.write(&format!("{path}/etcdraft/snapshot/mychannel/0.snap"), "")
    }

    /// The outline of a CouchDB's.
    pub fn couch_data(&self, path: &str) -> &Self {
        self.write(&format!("{path}/_dbs.couch"), "");
        self.write(&format!("{path}/shards/00000000-7fffffff/mychannel_.1700000000.couch"), "")
    }

    /// MSP and TLS directories of one of the small network's nodes.
    pub fn identity(&self, of: &str, to: &str) -> &Self {
        self.copy(&format!("{of}/msp"), &format!("{to}/msp")).copy(&format!("{of}/tls"), &format!("{to}/tls"))
    }

    /// The small network, with outlines for data.
    pub fn whole(&self, to: &str) -> &Self {
        for peer in ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"] {
            self.identity(peer, &format!("{to}/{peer}"))
                .copy(&format!("{peer}/config"), &format!("{to}/{peer}/config"));
            self.peer_data(&format!("{to}/{peer}/production"));
        }
        for orderer in ["orderer1", "orderer2", "orderer3"] {
            let path = format!("OrdererOrg/{orderer}");
            self.identity(&path, &format!("{to}/{path}"))
                .copy(&format!("{path}/config"), &format!("{to}/{path}/config"));
            self.orderer_data(&format!("{to}/{path}/production"));
        }
        self.copy("Org1/ca", &format!("{to}/Org1/ca")).copy("Org2/ca", &format!("{to}/Org2/ca"))
    }

    pub fn discover(&self, root: &str) -> Seen {
        Seen::new(discover(&self.path(root), self.folder.path()).unwrap(), self)
    }
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy_all(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

/// What was found: the inventory, opened again from its text, and the remarks.
pub struct Seen {
    pub host: Host,
    pub text: String,
    pub remarks: Vec<String>,
    base: PathBuf,
}

impl Seen {
    pub fn new(found: Discovered, site: &Site) -> Seen {
        let text = found.inventory.to_text().unwrap();
        Seen {
            host: Seen::host_of(&text, site),
            text,
            remarks: found
                .remarks
                .into_iter()
                .map(|remark| match remark.remedy {
                    Some(remedy) => format!("{}: {remedy:?}", remark.what),
                    None => remark.what,
                })
                .collect(),
            base: site.path(""),
        }
    }

    /// The network that an inventory's text describes.
    pub fn host_of(text: &str, site: &Site) -> Host {
        Host::new(&toml_of(text), &site.path("")).unwrap()
    }

    /// Every node that is one, with its directories by role: `Org1/peer0: config=…, msp=…`.
    pub fn nodes(&self) -> Vec<String> {
        let nodes = self.host.network().nodes().filter(|node| node.role.to_string() != "files");
        nodes
            .map(|node| {
                let mut directories: BTreeSet<String> = BTreeSet::new();
                for directory in &node.directories {
                    let path = self.short(&directory.path);
                    directories.insert(format!("{}={path}", directory.role));
                    for (at, role) in &directory.nested {
                        directories.insert(format!("{role}={path}/{at}"));
                    }
                }
                let all: Vec<String> = directories.into_iter().collect();
                format!("{} {}: {}", node.id, node.role, all.join(" "))
            })
            .collect()
    }

    /// Names and roles only.
    pub fn names(&self) -> Vec<String> {
        self.nodes().iter().map(|node| node.split(':').next().unwrap().to_owned()).collect()
    }

    pub fn node(&self, name: &str) -> String {
        let all = self.nodes();
        all.iter()
            .find(|node| node.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("no {name} in {all:#?}, remarks {:#?}", self.remarks))
            .clone()
    }

    fn short(&self, path: &str) -> String {
        Path::new(path).strip_prefix(&self.base).map_or(path.to_owned(), |path| path.display().to_string())
    }

    /// What of a node's directory belongs to others.
    pub fn excluded(&self, name: &str, role: &str) -> Vec<String> {
        let nodes = self.host.network().nodes();
        let node = nodes.into_iter().find(|node| node.id.to_string() == name).unwrap();
        node.directories.iter().find(|directory| directory.role.to_string() == role).unwrap().excluded.clone()
    }

    pub fn files(&self) -> Vec<String> {
        let nodes = self.host.network().nodes().filter(|node| node.role.to_string() == "files");
        nodes.flat_map(|node| &node.directories).map(|directory| self.short(&directory.path)).collect()
    }

    #[track_caller]
    pub fn reported(&self, parts: &[&str]) {
        let reported = self.remarks.iter().any(|remark| parts.iter().all(|part| remark.contains(part)));
        assert!(reported, "{parts:?} in none of {:#?}", self.remarks);
    }
}

fn toml_of(text: &str) -> fabkeep_platform::Inventory {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fabkeep.toml");
    fs::write(&file, text).unwrap();
    fabkeep_platform::Inventory::read(&file).unwrap()
}
