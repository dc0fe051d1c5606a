//! Combines what starts a node, its configuration file and its data on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fabkeep_ledger::ca_config::CA_CONFIG_FILE;
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::node_settings::{self, Bccsp, Environment, Listens, NamedFile, NodeSettings, StateDatabase};
use fabkeep_ledger::{kept_environment, yaml};
use serde_norway::Value;

use super::started::{ResolvedPath, Started};
use crate::host::{ClientFiles, Commands};

/// Folders that configuration files lie in below their node's own.
const CONFIG_FOLDERS: [&str; 3] = ["config", "conf", "etc"];
/// What the setting of a certificate authority's key store is called.
pub(super) const KEY_STORE: &str = "BCCSP_SW_FILEKEYSTORE_KEYSTORE";
/// Folders of a system that hold more than one node's files.
const SYSTEM_FOLDERS: [&str; 20] = [
    "/",
    "/etc",
    "/etc/ssl",
    "/etc/ssl/certs",
    "/etc/ssl/private",
    "/etc/pki",
    "/etc/pki/tls",
    "/home",
    "/root",
    "/tmp",
    "/usr",
    "/usr/local",
    "/usr/share",
    "/var",
    "/var/lib",
    "/opt",
    "/srv",
    "/mnt",
    "/data",
    "/etc/hyperledger",
];

/// The file that makes a folder a repository.
const REPOSITORY_FILE: &str = "fabkeep.json";
/// Most directories below a folder with a node's keys that are looked at, and how deep.
const MAX_LOOKED: usize = 1000;
const MAX_LOOKED_DEPTH: usize = 4;

/// A node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub role: NodeRole,
    /// The folder that names it when nothing else does.
    pub home: PathBuf,
    /// The name that what starts it gives it.
    pub name: Option<String>,
    /// What its configuration calls it.
    pub id: Option<String>,
    pub msp_id: Option<String>,
    pub directories: Vec<(DirectoryRole, PathBuf)>,
    pub operations: Option<String>,
    pub participation: Option<String>,
    pub client: Option<ClientFiles>,
    pub environment: Environment,
    pub commands: Commands,
    /// A peer's CouchDB: its address, empty when it is not known.
    pub couch: Option<String>,
    /// Names and ports of this machine that lead to it.
    pub hosts: Vec<String>,
    /// Names in networks of containers: the network, the name.
    pub aliases: Vec<(String, String)>,
    pub ports: Vec<u16>,
    /// The file that tells of it, for people.
    pub origin: String,
    /// The configuration file that it reads.
    pub config: Option<PathBuf>,
    /// Found by its data alone.
    pub by_layout: bool,
    /// What its configuration file says of its keys, as the environment variables that would say the same.
    pub own: Environment,
    /// Folders that it names only for certificates that vouch for others.
    pub roots: BTreeSet<PathBuf>,
    pub remarks: Vec<Remark>,
}

/// What a person should know of a node.
#[derive(Debug, Clone)]
pub(super) struct Remark {
    /// The directory that it is about: when that is found, the remark is settled.
    about: Option<DirectoryRole>,
    pub text: String,
}

impl Node {
    /// A node of which only its data is known.
    pub fn of_data(role: NodeRole, kind: DirectoryRole, path: &Path) -> Self {
        let home = super::names::home_of_data(path);
        Node { directories: vec![(kind, path.to_path_buf())], by_layout: true, ..Node::new(role, home, path) }
    }

    pub fn new(role: NodeRole, home: PathBuf, origin: &Path) -> Self {
        Node {
            role,
            home,
            name: None,
            id: None,
            msp_id: None,
            directories: Vec::new(),
            operations: None,
            participation: None,
            client: None,
            environment: Environment::new(),
            commands: Commands::default(),
            couch: None,
            hosts: Vec::new(),
            aliases: Vec::new(),
            ports: Vec::new(),
            origin: origin.display().to_string(),
            config: None,
            by_layout: false,
            own: Environment::new(),
            roots: BTreeSet::new(),
            remarks: Vec::new(),
        }
    }

    /// Its directory of this role, the first of several.
    pub fn directory(&self, role: DirectoryRole) -> Option<&Path> {
        self.directories.iter().find(|(known, _)| *known == role).map(|(_, path)| path.as_path())
    }

    /// The directory that makes it this node.
    pub fn data(&self) -> Option<&Path> {
        let role = match self.role {
            NodeRole::Peer => DirectoryRole::PeerData,
            NodeRole::Orderer => DirectoryRole::OrdererLedger,
            NodeRole::CertificateAuthority => DirectoryRole::CaHome,
            NodeRole::StateDatabase => DirectoryRole::StateDatabase,
            _ => return None,
        };
        self.directory(role)
    }

    /// Whether anything of it is on this machine.
    pub fn is_here(&self) -> bool {
        let own = [DirectoryRole::Config, DirectoryRole::Other];
        self.directories.iter().any(|(role, path)| !own.contains(role) && path.is_dir())
    }

    pub fn add(&mut self, role: DirectoryRole, path: PathBuf) {
        match self.directories.iter_mut().find(|(_, known)| *known == path) {
            // A directory has one role: what lies beside a configuration file says more than that.
            Some((known, _)) if *known == DirectoryRole::Config => *known = role,
            Some(_) => {}
            None => self.directories.push((role, path)),
        }
    }

    /// The folder of a file that the node names, unless it holds more than this node's files.
    pub fn add_folder_of(&mut self, role: DirectoryRole, file: &Path, root: &Path) {
        let Some(folder) = file.parent() else { return };
        // One below the folder of the configuration file has an owner of its own: that folder may be another node's as well.
        let held = |(role, known): &(DirectoryRole, PathBuf)| {
            *role != DirectoryRole::Config && folder.starts_with(known) && known != folder
        };
        if self.directories.iter().any(held) {
            return;
        }
        let system = SYSTEM_FOLDERS.iter().any(|system| folder == Path::new(system));
        if root.starts_with(folder) || system || self.is_of_others(folder) {
            self.remark(None, format!(
                "{}: {} is in {}, which contains more than this node's files: move it to a folder of its own and name that in the inventory",
                self.origin,
                file.display(),
                folder.display()
            ));
            return;
        }
        self.add(role, folder.to_path_buf());
    }

    /// Whether a folder holds what no node has beside its keys: other nodes' data and identities, a repository, or too much to look at.
    fn is_of_others(&self, folder: &Path) -> bool {
        let mut left = vec![(folder.to_path_buf(), 0)];
        let mut looked = 0;
        while let Some((directory, depth)) = left.pop() {
            let own = self.directories.iter().any(|(_, known)| *known != *folder && directory.starts_with(known));
            if own || directory.is_symlink() {
                continue;
            }
            looked += 1;
            // One folder below it may be this node's own, or one that lies beside it: each of those has an owner.
            let of_node = || {
                let identity = directory.join("signcerts").is_dir() && directory.join("keystore").is_dir();
                identity || directory.join(CA_CONFIG_FILE).is_file() || super::tree::is_data(&directory)
            };
            if looked > MAX_LOOKED || directory.join(REPOSITORY_FILE).is_file() || (depth > 1 && of_node()) {
                return true;
            }
            if depth < MAX_LOOKED_DEPTH {
                let below = std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
                let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                left.extend(below.map(|entry| (entry.path(), depth + 1)));
            }
        }
        false
    }

    pub fn remark(&mut self, about: Option<DirectoryRole>, text: String) {
        self.remarks.push(Remark { about, text });
    }

    /// A directory of these roles is known now: remarks on it are settled.
    pub fn settle(&mut self, roles: &[DirectoryRole]) {
        self.remarks.retain(|remark| remark.about.is_none_or(|role| !roles.contains(&role)));
    }

    pub fn missing(&mut self, about: Option<DirectoryRole>, what: &str, path: &Path) {
        let text = format!(
            "{}: its {what} {} is not on this machine; write its place into the inventory",
            self.origin,
            path.display()
        );
        self.remark(about, text);
    }

    /// Keeps of the environment what overrides the configuration, with paths of this machine.
    pub fn keep_environment(&mut self, started: &Started, config: &Path, root: &Path) {
        let authority = self.role == NodeRole::CertificateAuthority;
        for (name, value) in kept_environment::kept(self.role, &started.environment) {
            let value = if !node_settings::is_path(&name) {
                value
            } else if authority {
                let found = started.find(&value, config, root).here();
                found.map_or(value, |path| path.display().to_string())
            } else {
                // Also of what is not there: that it is missing is then found by every backup.
                let all = if node_settings::is_list(&name) { node_settings::split(&value) } else { vec![value] };
                let all = all.iter().map(|named| started.find(named, config, root).path().display().to_string());
                all.collect::<Vec<_>>().join(",")
            };
            self.environment.insert(name, value.replace(super::script::WORKING_FOLDER, "."));
        }
    }

    /// Keeps what its configuration file names and what is in another place here than the file says: a container's paths, those of a disk
    /// of another machine.
    fn keep_moved(&mut self, started: &Started, yaml: &Value, config: &Path, root: &Path) {
        let mut moved: BTreeMap<String, (bool, Vec<String>)> = BTreeMap::new();
        for named in node_settings::named_paths(self.role, yaml, &started.environment) {
            if named.by_environment {
                continue;
            }
            let place = started.find(&named.path, config, root);
            let elsewhere = (started.mounts.is_some() || matches!(place, ResolvedPath::Here(_)))
                && place.clone().path() != super::normal(&config.join(&named.path));
            let (any, paths) = moved.entry(named.variable).or_default();
            *any |= elsewhere;
            paths.push(place.path().display().to_string());
        }
        let moved = moved.into_iter().filter(|(_, (any, _))| *any);
        self.environment.extend(moved.map(|(name, (_, paths))| (name, paths.join(","))));
    }
}

pub(super) fn read_yaml(file: &Path) -> Result<Value, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > yaml::MAX_CONFIG_BYTES {
        return Err(format!("{length} bytes are too many for a configuration"));
    }
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    yaml::parse(&bytes).map_err(|error| format!("it is not readable as YAML ({error})"))
}

/// The folder that a configuration file's node is named by.
fn home_of_config(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(file);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some(name) if CONFIG_FOLDERS.contains(&name) => folder.parent().unwrap_or(folder).to_path_buf(),
        _ => folder.to_path_buf(),
    }
}

/// A node that a configuration file alone tells of.
pub(super) fn of_config(file: &Path, role: NodeRole, root: &Path) -> Result<Node, String> {
    let folder = file.parent().unwrap_or(file);
    of_started(&Started::on_host(role, file, folder), Some(file), root)
}

/// A peer, an orderer or a state database as what starts it and its configuration file say.
pub(super) fn of_started(started: &Started, config: Option<&Path>, root: &Path) -> Result<Node, String> {
    let yaml = config.map_or(Ok(Value::Null), read_yaml)?;
    let settings = NodeSettings::of(started.role, &yaml, &started.environment);
    let config_folder = config.and_then(Path::parent).unwrap_or(&started.folder).to_path_buf();
    let alone = config.is_some() && started.environment.is_empty();
    let home = config.map_or(started.folder.clone(), home_of_config);
    let own_name = started.name.clone().filter(|_| started.mounts.is_some() || started.get("CORE_PEER_ID").is_none());
    let own_name = own_name.or_else(|| started.get("CORE_PEER_ID").map(str::to_owned));
    let mut node = Node { name: own_name, ..Node::new(started.role, home.clone(), &started.folder) };
    node.origin = started.origin.clone();
    node.id.clone_from(&settings.id);
    node.msp_id.clone_from(&settings.msp_id);
    node.commands = started.commands.clone();
    node.hosts.clone_from(&started.hosts);
    node.aliases.clone_from(&started.aliases);
    node.ports.clone_from(&started.ports);
    node.config = config.map(Path::to_path_buf);
    if let Some(file) = config.filter(|_| alone || config_folder.starts_with(root)) {
        node.add(DirectoryRole::Config, file.parent().unwrap_or(file).to_path_buf());
    }
    node.keep_environment(started, &config_folder, root);
    let reader = Reader { started, config: &config_folder, home: &home, root, alone };
    match started.role {
        NodeRole::Peer => reader.peer(&settings, &mut node),
        NodeRole::Orderer => reader.orderer(&settings, &mut node),
        NodeRole::StateDatabase => {
            let data = started.find("/opt/couchdb/data", &config_folder, root).path();
            node.add(DirectoryRole::StateDatabase, data);
        }
        _ => {}
    }
    let named = node_settings::tls_files(started.role, &yaml, &started.environment);
    reader.tls(&settings, &named, &mut node);
    let bootstrap = node_settings::bootstrap_file(started.role, &yaml, &started.environment);
    if let Some(named) = bootstrap {
        reader.bootstrap(&named, &mut node);
    }
    if config.is_some() {
        node.keep_moved(started, &yaml, &config_folder, root);
    }
    node.own = reader.own(&settings);
    reader.served(&settings, &mut node);
    if !alone && config.is_none_or(|file| !file.starts_with(&started.folder) || started.mounts.is_some()) {
        // Named by its identity or its data, not by the folder of scripts.
        let msp = node.directory(DirectoryRole::Msp).filter(|path| path.is_dir()).and_then(Path::parent);
        let data = node.data().map(super::names::home_of_data);
        node.home = msp.map(Path::to_path_buf).or(data).unwrap_or(home);
    }
    Ok(node)
}

/// Resolves what a configuration names.
struct Reader<'a> {
    started: &'a Started,
    config: &'a Path,
    home: &'a Path,
    root: &'a Path,
    /// The configuration file is all that is known: what it names may lie beside it under its usual name.
    alone: bool,
}

impl Reader<'_> {
    fn find(&self, named: &str) -> ResolvedPath {
        self.started.find(named, self.config, self.root)
    }

    /// The data directory. A folder of its usual name may hold every node's: it counts when it is data itself.
    fn data(&self, named: Option<&str>, default: &str) -> Option<ResolvedPath> {
        let role = self.started.role;
        let fits = |path: &Path| super::tree::is_data_of(role, path) || (self.alone && path.ends_with("production"));
        self.directory_that(named, &["production", "data"], Some(default), fits)
    }

    fn directory(&self, named: Option<&str>, usual: &[&str], default: Option<&str>) -> Option<ResolvedPath> {
        self.directory_that(named, usual, default, |_| true)
    }

    /// A directory that is named, else one of the node's own folder, else Fabric's default.
    fn directory_that(
        &self,
        named: Option<&str>,
        usual: &[&str],
        default: Option<&str>,
        fits: impl Fn(&Path) -> bool,
    ) -> Option<ResolvedPath> {
        let named_place = named.map(|named| self.find(named));
        if let Some(ResolvedPath::Here(path)) = named_place {
            return Some(ResolvedPath::Here(path));
        }
        if self.started.mounts.is_none() && (self.alone || named.is_none()) {
            let beside = usual.iter().map(|usual| self.home.join(usual)).find(|path| path.is_dir() && fits(path));
            if let Some(path) = beside {
                return Some(ResolvedPath::Here(path));
            }
        }
        // Settings that nothing was seen to start with are not enough for a default.
        let known = self.alone || self.started.starts;
        let default = default.filter(|_| named.is_none() && known).map(|default| self.find(default));
        named_place.or(default)
    }

    fn add(&self, node: &mut Node, role: DirectoryRole, place: Option<ResolvedPath>, what: &str) {
        match place {
            Some(ResolvedPath::Here(path)) => node.add(role, path),
            Some(ResolvedPath::Missing(path)) => {
                node.missing(Some(role), what, &path);
                // Kept in the inventory: that it is missing is then found by every backup.
                node.add(role, path);
            }
            None => {
                let origin = node.origin.clone();
                node.remark(Some(role), format!("{origin}: its {what} is not known; write it into the inventory"));
            }
        }
    }

    fn peer(&self, settings: &NodeSettings, node: &mut Node) {
        let data = self.data(settings.data.as_deref(), "/var/hyperledger/production");
        self.add(node, DirectoryRole::PeerData, data, "data directory (peer.fileSystemPath)");
        let msp = self.directory(settings.msp.as_deref(), &["msp"], self.of_image("msp"));
        self.add(node, DirectoryRole::Msp, msp, "MSP directory (peer.mspConfigPath)");
        // The image's configuration file names its own place, wherever the data is.
        let of_image = || self.of_image("/var/hyperledger/production/snapshots").filter(|_| node.config.is_none());
        if let Some(ResolvedPath::Here(path)) =
            settings.snapshots.as_deref().or_else(of_image).map(|named| self.find(named))
            && !node.directories.iter().any(|(_, known)| path.starts_with(known))
        {
            node.add(DirectoryRole::Other, path);
        }
        if let StateDatabase::CouchDb { address } = &settings.state_database {
            node.couch = Some(address.clone());
        }
        self.keystore(settings, node);
    }

    fn orderer(&self, settings: &NodeSettings, node: &mut Node) {
        let ledger = self.data(settings.data.as_deref(), "/var/hyperledger/production/orderer");
        let data = ledger.clone().map(ResolvedPath::path);
        self.add(node, DirectoryRole::OrdererLedger, ledger, "ledger directory (FileLedger.Location)");
        let msp = self.directory(settings.msp.as_deref(), &["msp"], self.of_image("msp"));
        self.add(node, DirectoryRole::Msp, msp, "MSP directory (General.LocalMSPDir)");
        let inside =
            |name: &str| data.as_ref().map(|data| data.join("etcdraft").join(name)).filter(|path| path.is_dir());
        // What the image's configuration file names, wherever the ledger is.
        let of_image = |named: Option<&str>, name: &str| {
            let default = format!("/var/hyperledger/production/orderer/etcdraft/{name}");
            self.find(self.of_image(&default).filter(|_| named.is_none() && node.config.is_none())?).here()
        };
        let raft = |named: Option<&str>, usual: [&str; 2], name: &str| match self.directory(named, &usual, None) {
            Some(ResolvedPath::Here(path)) => Some(ResolvedPath::Here(path)),
            missing => of_image(named, name).or_else(|| inside(name)).map(ResolvedPath::Here).or(missing),
        };
        let wal = raft(settings.wal.as_deref(), ["production/etcdraft/wal", "etcdraft/wal"], "wal");
        let usual = ["production/etcdraft/snapshot", "etcdraft/snapshot"];
        let snapshots = raft(settings.raft_snapshots.as_deref(), usual, "snapshot");
        if let Some(wal) = wal {
            self.add(node, DirectoryRole::OrdererWal, Some(wal), "raft log directory (Consensus.WALDir)");
        }
        // One directory may serve both; one that is not there holds no snapshot yet.
        if let Some(ResolvedPath::Here(path)) = snapshots {
            node.add(DirectoryRole::OrdererSnapshots, path);
        }
        self.keystore(settings, node);
    }

    fn keystore(&self, settings: &NodeSettings, node: &mut Node) {
        if let Some(named) = &settings.keystore
            && let Some(path) = self.find(named).here().filter(|path| path.is_dir())
            && !node.directories.iter().any(|(_, known)| path.starts_with(known))
        {
            node.add(DirectoryRole::Msp, path);
        }
    }

    /// What the configuration file of a container's image names.
    fn of_image<'p>(&self, path: &'p str) -> Option<&'p str> {
        self.started.mounts.is_some().then_some(path)
    }

    /// What it says of its keys, as environment variables with paths of this machine: kept with a node whose configuration file is
    /// another's to keep.
    fn own(&self, settings: &NodeSettings) -> Environment {
        let (prefix, names) = match self.started.role {
            NodeRole::Peer => ("CORE_PEER", ["CERT_FILE", "KEY_FILE"]),
            NodeRole::Orderer => ("ORDERER_GENERAL", ["CERTIFICATE", "PRIVATEKEY"]),
            _ => return Environment::new(),
        };
        let files = [&settings.tls.certificate, &settings.tls.key].into_iter().zip(names);
        let mut out: Environment = files
            .filter_map(|(named, name)| {
                let path = self.find(named.as_deref()?).path();
                Some((format!("{prefix}_TLS_{name}"), path.display().to_string()))
            })
            .collect();
        out.extend(settings.tls.enabled.map(|enabled| (format!("{prefix}_TLS_ENABLED"), enabled.to_string())));
        if let Bccsp::Pkcs11 { label, library } = &settings.bccsp {
            out.insert(format!("{prefix}_BCCSP_DEFAULT"), "PKCS11".to_owned());
            for (name, value) in [("LABEL", label), ("LIBRARY", library)] {
                out.extend(value.clone().map(|value| (format!("{prefix}_BCCSP_PKCS11_{name}"), value)));
            }
        }
        out
    }

    /// The folders of TLS certificates and keys, wherever they lie.
    fn tls(&self, settings: &NodeSettings, more: &[NamedFile], node: &mut Node) {
        if !matches!(node.role, NodeRole::Peer | NodeRole::Orderer) || settings.tls.enabled == Some(false) {
            return;
        }
        let client =
            settings.tls.client.iter().chain(&settings.admin).flat_map(|(certificate, key)| [certificate, key]);
        let of_image = ["tls/server.crt", "tls/server.key"].map(str::to_owned);
        let mut own: Vec<&String> = settings.tls.certificate.iter().chain(&settings.tls.key).chain(client).collect();
        if own.is_empty() && settings.tls.enabled == Some(true) && self.started.mounts.is_some() {
            own.extend(&of_image);
        }
        let mut missing = None;
        let mut found = false;
        let roots = settings.tls.roots.iter().map(|root| (root, true));
        let mut all: Vec<(&String, bool)> = own.into_iter().map(|own| (own, false)).chain(roots).collect();
        for file in more {
            if !all.iter().any(|(known, _)| **known == file.path) {
                all.push((&file.path, file.is_root()));
            }
        }
        for (named, is_root) in all {
            match self.find(named) {
                ResolvedPath::Here(file) if file.is_file() => {
                    found = true;
                    let before = node.directories.len();
                    node.add_folder_of(DirectoryRole::Tls, &file, self.root);
                    if is_root {
                        node.roots.extend(node.directories.get(before).map(|(_, folder)| folder.clone()));
                    }
                }
                place => missing = missing.or(Some(place.path())),
            }
        }
        let beside = self.home.join("tls");
        if !found && self.started.mounts.is_none() && beside.is_dir() {
            node.add(DirectoryRole::Tls, beside);
        } else if let Some(path) = missing {
            node.missing(Some(DirectoryRole::Tls), "TLS file", &path);
        } else if !found && self.alone {
            let origin = node.origin.clone();
            let text = format!("{origin}: its TLS directory is not known; write it into the inventory");
            node.remark(Some(DirectoryRole::Tls), text);
        }
    }

    /// The folder of the block that an orderer's ledger begins with. One that holds more than files is more than this.
    fn bootstrap(&self, named: &NamedFile, node: &mut Node) {
        let file = self.find(&named.path).path();
        let Some(folder) = file.parent() else { return };
        if !file.is_file() {
            node.missing(None, "bootstrap block", &file);
            return;
        }
        let mut entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let only_files = entries.all(|entry| !entry.path().is_dir());
        let known = node.directories.iter().any(|(_, known)| folder.starts_with(known));
        if known || !only_files {
            return;
        }
        let before = node.directories.len();
        node.add_folder_of(DirectoryRole::Other, &file, self.root);
        // Orderers may share it.
        node.roots.extend(node.directories.get(before).map(|(_, folder)| folder.clone()));
    }

    /// Where it is asked for heights and health. A container's ports are this machine's only where they are published.
    fn served(&self, settings: &NodeSettings, node: &mut Node) {
        let url = |listens: &Option<Listens>| {
            let listens = listens.as_ref()?;
            let (host, port) = listens.address.rsplit_once(':')?;
            // Port 0 is any port: nobody can ask there.
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            if self.started.mounts.is_some() && !self.started.ports.contains(&port) {
                return None;
            }
            let local = self.started.mounts.is_some() || matches!(host, "" | "0.0.0.0" | "[::]");
            let host = if local { "127.0.0.1" } else { host };
            Some(format!("{}://{host}:{port}", if listens.tls { "https" } else { "http" }))
        };
        node.operations = url(&settings.operations);
        node.participation = url(&settings.participation);
        let file = |named: &String| self.find(named).here().filter(|path| path.is_file());
        if let Some((certificate, key)) = settings.admin.as_ref().filter(|_| node.participation.is_some())
            && let (Some(certificate), Some(key)) = (file(certificate), file(key))
        {
            node.client = Some(ClientFiles {
                certificate: certificate.display().to_string(),
                key: key.display().to_string(),
                ca: None,
            });
        }
    }
}
