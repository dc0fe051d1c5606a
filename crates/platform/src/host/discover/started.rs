//! Evidence of how a node is started: a script, an environment file, a systemd unit, a service of a compose file, a container.

use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::node_settings::{self, Environment, ORDERER_CONFIG_FILE, PEER_CONFIG_FILE};

use super::normal;
use super::script::{UNKNOWN, WORKING_FOLDER};
use crate::host::Commands;

/// Where a container's image has its configuration.
const CONTAINER_CONFIG: &str = "/etc/hyperledger/fabric";
/// Where a certificate authority's image has its home.
pub(super) const CONTAINER_CA_HOME: &str = "/etc/hyperledger/fabric-ca-server";
/// The variables that name a certificate authority's home, the one that counts most first.
const CA_HOMES: [&str; 3] = ["FABRIC_CA_SERVER_HOME", "FABRIC_CA_HOME", "CA_CFG_PATH"];

/// Flags of a certificate authority that have no value.
const SWITCHES: [&str; 4] = ["d", "debug", "tls.enabled", "allowremove"];

/// A directory of this machine that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Where the container sees it.
    pub at: String,
    pub path: PathBuf,
    /// Its name, where it is a named volume.
    pub volume: Option<String>,
}

/// One node as something that starts it describes it.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub role: NodeRole,
    /// The file, and which of its services: for people.
    pub origin: String,
    /// The name of a container, service or unit.
    pub name: Option<String>,
    pub environment: Environment,
    /// The folder that it is started in, or that its file lies in.
    pub folder: PathBuf,
    /// What its container sees of this machine; `None` when it runs on the machine itself.
    pub mounts: Option<Vec<Mount>>,
    pub commands: Commands,
    /// Names that others reach it by.
    pub hosts: Vec<String>,
    /// The same in networks of containers: the network, the name.
    pub aliases: Vec<(String, String)>,
    /// Ports of this machine that lead to it.
    pub ports: Vec<u16>,
    /// A command was seen that starts it.
    pub starts: bool,
    /// The machine itself starts it: it is a node of the machine whether its directories are there or not.
    pub installed: bool,
    /// The configuration file that a certificate authority's command line names: its folder is the home.
    pub config_flag: Option<String>,
    /// Its command has options that are not known.
    pub unknown_options: bool,
    /// Other files that were read for it, by their real paths.
    pub reads: Vec<PathBuf>,
}

/// What of a node cannot be known without running something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Nothing that matters.
    Nothing,
    /// Where its data is.
    Data,
    /// A certificate authority's home: nothing names it.
    Home,
    /// What a certificate authority's options name beside its home.
    Options,
    /// What these settings of a peer or an orderer name beside its data.
    Settings(Vec<String>),
}

/// Where a path of a node leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResolvedPath {
    /// It is here.
    Here(PathBuf),
    /// It would be here, and is not.
    Missing(PathBuf),
}

impl ResolvedPath {
    pub fn here(self) -> Option<PathBuf> {
        match self {
            ResolvedPath::Here(path) => Some(path),
            ResolvedPath::Missing(_) => None,
        }
    }

    pub fn path(self) -> PathBuf {
        match self {
            ResolvedPath::Here(path) | ResolvedPath::Missing(path) => path,
        }
    }
}

impl Started {
    /// A node that a file of this machine starts.
    pub fn on_host(role: NodeRole, file: &Path, folder: &Path) -> Self {
        Started {
            role,
            origin: file.display().to_string(),
            name: None,
            environment: Environment::new(),
            folder: folder.to_path_buf(),
            mounts: None,
            commands: Commands::default(),
            hosts: Vec::new(),
            aliases: Vec::new(),
            ports: Vec::new(),
            starts: false,
            installed: false,
            config_flag: None,
            unknown_options: false,
            reads: Vec::new(),
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Flags of a certificate authority's command line are settings of the same name: `--ca.keyfile` is `FABRIC_CA_SERVER_CA_KEYFILE`.
    pub fn take_flags(&mut self, arguments: &[&str]) {
        if self.role != NodeRole::CertificateAuthority {
            return;
        }
        let mut arguments = arguments.iter().copied().peekable();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                self.unknown_options |= argument.contains(UNKNOWN);
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, arguments.next_if(|next| !next.starts_with('-')).map(str::to_owned)),
            };
            let name = match name {
                "H" => "home",
                "c" => "config",
                name => name,
            };
            // A switch without a value is on.
            let value = value.unwrap_or("true".to_owned());
            if name == "config" {
                // A container's working directory is its image's matter.
                self.config_flag = Some(value).filter(|value| value.starts_with('/') || self.mounts.is_none());
            } else if name.contains(UNKNOWN) || (SWITCHES.contains(&name) && value == UNKNOWN.to_string()) {
                self.unknown_options = true;
            } else if name.len() > 1 {
                let name = format!("FABRIC_CA_SERVER_{}", name.replace('.', "_").to_ascii_uppercase());
                self.environment.insert(name, value);
            }
        }
    }

    /// Settings of an administrator's command line: they name an identity below `users`, and no data.
    pub fn is_of_a_client(&self) -> bool {
        let msp = self.get("CORE_PEER_MSPCONFIGPATH").unwrap_or_default();
        let user = msp.contains("/users/") || msp.contains("Admin@") || msp.contains("User1@");
        self.role == NodeRole::Peer && self.get("CORE_PEER_FILESYSTEMPATH").is_none() && user
    }

    /// The settings that say where its data is, the one that counts most first.
    fn data_settings(&self) -> &'static [&'static str] {
        match self.role {
            NodeRole::Peer => &["CORE_PEER_FILESYSTEMPATH", "FABRIC_CFG_PATH"],
            NodeRole::Orderer => &["ORDERER_FILELEDGER_LOCATION", "FABRIC_CFG_PATH"],
            _ => &CA_HOMES,
        }
    }

    /// Notes that where its data is cannot be known, as what its container sees of this machine is not.
    pub fn data_is_unknown(&mut self) {
        if let Some(name) = self.data_settings().first() {
            self.environment.insert((*name).to_owned(), UNKNOWN.to_string());
        }
    }

    /// Drops the settings that depend on what nobody can know without running something, and returns what that leaves open.
    pub fn settle_unknown(&mut self) -> Unknown {
        let data = self.data_settings();
        let unknown = |value: &str| value.contains(UNKNOWN);
        let settings = self.config_flag.as_deref().into_iter().chain(data.iter().filter_map(|name| self.get(name)));
        let known: Vec<&str> = settings.take(1).collect();
        let moved = known.iter().any(|value| unknown(value));
        let authority = self.role == NodeRole::CertificateAuthority;
        let paths = self.environment.iter().filter(|(name, value)| {
            unknown(value) && node_settings::is_path(name) && !CA_HOMES.contains(&name.as_str())
        });
        let settings: Vec<String> = paths.map(|(name, _)| name.clone()).collect();
        let options = authority && (self.unknown_options || !settings.is_empty());
        let out = match () {
            () if moved => Unknown::Data,
            () if authority && known.is_empty() && self.mounts.is_none() => {
                let home = self.get("FABRIC_CA_SERVER_CONFIG").is_some()
                    || (!options && super::tree::is_authority(&self.folder));
                match home {
                    false => Unknown::Home,
                    true if options => Unknown::Options,
                    true => Unknown::Nothing,
                }
            }
            () if options => Unknown::Options,
            () if !settings.is_empty() => Unknown::Settings(settings),
            () => Unknown::Nothing,
        };
        self.environment.retain(|_, value| !unknown(value));
        out
    }

    /// The configuration folder as the node sees it.
    fn config_named(&self) -> Option<String> {
        match (self.get("FABRIC_CFG_PATH"), &self.mounts) {
            (Some(path), _) => Some(path.to_owned()),
            (None, Some(_)) => Some(CONTAINER_CONFIG.to_owned()),
            (None, None) => None,
        }
    }

    /// The configuration file that it reads, where it is on this machine.
    pub fn config_file(&self, root: &Path) -> Option<PathBuf> {
        let name = match self.role {
            NodeRole::Peer => PEER_CONFIG_FILE,
            NodeRole::Orderer => ORDERER_CONFIG_FILE,
            _ => return None,
        };
        if let Some(named) = self.config_named() {
            let file = format!("{}/{name}", named.trim_end_matches('/'));
            return self.find(&file, &self.folder, root).here();
        }
        let beside = ["", "config", "conf", "etc"].iter().map(|folder| self.folder.join(folder).join(name));
        beside.into_iter().find(|path| path.is_file())
    }

    /// A certificate authority's home, as it sees it.
    pub fn home_named(&self) -> String {
        let home = || CA_HOMES.iter().find_map(|name| self.get(name)).map(str::to_owned);
        let of_config = || Some(parent(self.get("FABRIC_CA_SERVER_CONFIG")?));
        // The server takes the folder of a file that its command line names before everything else.
        let flag = self.config_flag.as_deref().map(parent);
        flag.or_else(home).or_else(of_config).unwrap_or_else(|| match &self.mounts {
            Some(_) => CONTAINER_CA_HOME.to_owned(),
            None => self.folder.display().to_string(),
        })
    }

    /// Where a path leads that the node names. Relative ones start at `config`, in a container at its configuration folder.
    pub fn find(&self, named: &str, config: &Path, root: &Path) -> ResolvedPath {
        match &self.mounts {
            Some(mounts) => {
                let base = self.config_named().unwrap_or_default();
                let base = if self.role == NodeRole::CertificateAuthority { self.home_named() } else { base };
                let absolute = if named.starts_with('/') { named.to_owned() } else { format!("{base}/{named}") };
                in_container(&normal(Path::new(&absolute)), mounts)
            }
            None => on_host(named, config, &self.folder, root),
        }
    }
}

pub(super) fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or(".".to_owned(), |(folder, _)| if folder.is_empty() { "/" } else { folder }.to_owned())
}

/// A path of a container as one of this machine: through the deepest mount that holds it.
fn in_container(path: &Path, mounts: &[Mount]) -> ResolvedPath {
    let through = mounts
        .iter()
        .filter_map(|mount| Some((mount, path.strip_prefix(&mount.at).ok()?)))
        .max_by_key(|(mount, _)| mount.at.len());
    let Some((mount, inside)) = through else { return ResolvedPath::Missing(path.to_path_buf()) };
    let here = if inside.as_os_str().is_empty() { mount.path.clone() } else { mount.path.join(inside) };
    if here.exists() { ResolvedPath::Here(here) } else { ResolvedPath::Missing(here) }
}

/// A path that something on this machine names: below the root (a disk of another machine), as it is, from the folder it starts in.
pub(super) fn on_host(named: &str, config: &Path, folder: &Path, root: &Path) -> ResolvedPath {
    let mut candidates = Vec::new();
    if let Some(rest) = named.strip_prefix(WORKING_FOLDER) {
        let rest = rest.trim_start_matches('/');
        // Scripts are started in their own folder, or in one above it.
        let folders = folder.ancestors().take_while(|folder| *folder == root || folder.starts_with(root));
        candidates.push(normal(&folder.join(rest)));
        candidates.extend(folders.map(|folder| normal(&folder.join(rest))));
    } else if named.starts_with('/') {
        let own = normal(Path::new(named));
        let below = normal(&root.join(named.trim_start_matches('/')));
        if !own.starts_with(root) && below.exists() {
            return ResolvedPath::Here(below);
        }
        candidates.extend([own, below]);
    } else {
        candidates.extend([config, folder, root].map(|base| normal(&base.join(named))));
    }
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => ResolvedPath::Here(path.clone()),
        None => ResolvedPath::Missing(candidates.swap_remove(0)),
    }
}
