//! A container of a compose file or of this machine: which node it is, and which directories of this machine it mounts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::node_settings::{Environment, NodeSettings};

use super::node::read_yaml;
use super::script::{UNKNOWN, line, node_command};
use super::started::{CONTAINER_CA_HOME, Mount, Started};
use super::tree::{is_authority, is_data, is_data_of};
use crate::host::Commands;
use crate::shell::is_separator;

/// Most entries of a mounted folder that are looked at.
const MAX_ENTRIES: usize = 1000;

/// What is known of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct Container {
    /// Its file and service, or its name: for people.
    pub origin: String,
    pub name: String,
    pub image: String,
    /// Entry point and command, one word each.
    pub command: Vec<String>,
    pub environment: Environment,
    pub mounts: Vec<Mount>,
    pub hosts: Vec<String>,
    /// Names that others of a network reach it by: the network, the name.
    pub aliases: Vec<(String, String)>,
    pub ports: Vec<u16>,
    pub commands: Commands,
    /// The files that say this, but for its compose files.
    pub reads: Vec<PathBuf>,
}

/// Containers, and what is known of them besides.
#[derive(Debug, Default)]
pub(super) struct Containers {
    /// Those that are nodes; those that only their data and configuration tell of last.
    pub started: Vec<Started>,
    /// Those that are none and hold what a node has.
    pub unrecognised: Vec<Unrecognised>,
    /// Those that do not run, by their origins.
    pub stopped: BTreeSet<String>,
    /// How many of the nodes are known by data and configuration only.
    by_configuration: usize,
}

/// A container that nothing makes a node and that holds what a node has.
#[derive(Debug)]
pub(super) struct Unrecognised {
    pub origin: String,
    /// Where it has nodes' data from. Empty when it only has a node's configuration.
    pub data: Vec<PathBuf>,
}

impl Containers {
    /// Adds a container that was started in this folder.
    pub fn add(&mut self, container: Container, folder: &Path) {
        let certain = container.role_by_command().is_some();
        let unrecognised = container.unrecognised();
        match container.started(folder) {
            Some(started) if certain => {
                let at = self.started.len() - self.by_configuration;
                self.started.insert(at, started);
            }
            Some(started) => {
                self.by_configuration += 1;
                self.started.push(started);
            }
            None => self.unrecognised.extend(unrecognised),
        }
    }
}

impl Container {
    /// The node that it runs; `None` when it runs none.
    pub fn started(mut self, folder: &Path) -> Option<Started> {
        let (role, arguments) = self.role()?;
        if role == NodeRole::CertificateAuthority {
            // An image has its home in its environment.
            let named =
                ["FABRIC_CA_SERVER_HOME", "FABRIC_CA_HOME"].iter().any(|name| self.environment.contains_key(*name));
            if !named {
                self.environment.insert("FABRIC_CA_HOME".to_owned(), CONTAINER_CA_HOME.to_owned());
            }
        }
        let unknown = self.mounts.iter().any(|mount| mount.path.to_string_lossy().contains(UNKNOWN));
        let mut started = Started {
            role,
            origin: self.origin,
            name: Some(self.name).filter(|name| !name.is_empty()),
            environment: self.environment,
            folder: folder.to_path_buf(),
            mounts: Some(self.mounts),
            commands: self.commands,
            hosts: self.hosts,
            aliases: self.aliases,
            ports: self.ports,
            starts: true,
            installed: false,
            config_flag: None,
            unknown_options: false,
            reads: self.reads,
        };
        if unknown {
            started.data_is_unknown();
        }
        let Some(arguments) = arguments else { return Some(started).filter(|started| !started.is_of_a_client()) };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        started.take_flags(&arguments);
        Some(started)
    }

    /// What node it is, and the arguments of the command that starts it, where it names one.
    fn role(&self) -> Option<(NodeRole, Option<Vec<String>>)> {
        self.role_by_command().or_else(|| Some((self.role_by_configuration()?, None)))
    }

    /// The words of the shell's lines in its command.
    fn lines(&self) -> Vec<String> {
        let texts = self.command.iter().filter(|word| word.contains([' ', '$', ';', '>']));
        texts.flat_map(|text| line(text, &self.environment)).collect()
    }

    /// Every word of its command; a shell's line is a command of its own.
    fn words(&self) -> Vec<String> {
        self.command.iter().cloned().chain(self.lines()).collect()
    }

    /// Whether it is an administrator's tool.
    fn is_tool(&self) -> bool {
        let own = |name: &str| self.environment.contains_key(name);
        let image = self.image_name();
        let serves =
            || self.environment.keys().any(|name| name.starts_with("FABRIC_CA_SERVER_") || name == "FABRIC_CA_HOME");
        self.words().iter().any(|word| word.rsplit('/').next() == Some("fabric-ca-client"))
            || (own("FABRIC_CA_CLIENT_HOME") && !serves())
            || image.contains("tools")
            || image.contains("ca-client")
    }

    fn image_name(&self) -> String {
        self.image.rsplit('/').next().unwrap_or(&self.image).to_ascii_lowercase()
    }

    /// It as a node of this role, to ask where its paths lead.
    fn probe(&self, role: NodeRole) -> Started {
        Started {
            environment: self.environment.clone(),
            mounts: Some(self.mounts.clone()),
            ..Started::on_host(role, Path::new("/"), Path::new("/"))
        }
    }

    /// Whether it has the data of a node of this role where such a node has it, and settings of one.
    fn holds(&self, role: NodeRole) -> bool {
        let root = Path::new("/");
        let probe = self.probe(role);
        let own = |name: &str| self.environment.contains_key(name);
        let config = probe.config_file(root);
        let (told, usual) = match role {
            NodeRole::Peer => (own("CORE_PEER_LOCALMSPID") || own("CORE_PEER_ID"), "/var/hyperledger/production"),
            NodeRole::Orderer => (own("ORDERER_GENERAL_LOCALMSPID"), "/var/hyperledger/production/orderer"),
            NodeRole::StateDatabase => (true, "/opt/couchdb/data"),
            NodeRole::CertificateAuthority => {
                let home = probe.find(&probe.home_named(), root, root).here();
                return home.is_some_and(|home| is_authority(&home));
            }
            _ => return false,
        };
        let yaml = config.as_deref().and_then(|file| read_yaml(file).ok());
        let settings = yaml.as_ref().map(|yaml| NodeSettings::of(role, yaml, &self.environment));
        let settings =
            settings.unwrap_or_else(|| NodeSettings::of(role, &serde_norway::Value::Null, &self.environment));
        let data = probe.find(settings.data.as_deref().unwrap_or(usual), root, root).here();
        (told || config.is_some()) && data.is_some_and(|data| is_data_of(role, &data))
    }

    /// The node that its data and its configuration make it, whatever its image and its command are called.
    fn role_by_configuration(&self) -> Option<NodeRole> {
        let roles = [NodeRole::Peer, NodeRole::Orderer, NodeRole::CertificateAuthority, NodeRole::StateDatabase];
        let held: Vec<NodeRole> = roles.into_iter().filter(|role| !self.is_tool() && self.holds(*role)).collect();
        match held.as_slice() {
            [role] => Some(*role),
            _ => None,
        }
    }

    /// What a container that is no node has of one.
    fn unrecognised(&self) -> Option<Unrecognised> {
        let held = |path: &Path| is_data(path) || is_authority(path);
        let mut data = Vec::new();
        for mount in &self.mounts {
            if held(&mount.path) {
                data.push(mount.path.clone());
                continue;
            }
            let below = std::fs::read_dir(&mount.path).into_iter().flatten().take(MAX_ENTRIES).filter_map(Result::ok);
            data.extend(below.map(|entry| entry.path()).filter(|path| held(path)));
        }
        data.sort();
        data.dedup();
        let configured = |role: NodeRole| {
            let probe = self.probe(role);
            probe.config_file(Path::new("/")).is_some() && !probe.is_of_a_client()
        };
        let settings =
            !self.is_tool() && !self.is_shell() && [NodeRole::Peer, NodeRole::Orderer].into_iter().any(configured);
        let any = !data.is_empty() || settings;
        any.then(|| Unrecognised { origin: self.origin.clone(), data })
    }

    fn is_shell(&self) -> bool {
        self.words().iter().any(|word| matches!(word.as_str(), "bash" | "sh" | "/bin/bash" | "/bin/sh" | "sleep"))
    }

    /// The node that its image, its command or its environment makes it.
    fn role_by_command(&self) -> Option<(NodeRole, Option<Vec<String>>)> {
        let image = self.image_name();
        if image.contains("couchdb") {
            return Some((NodeRole::StateDatabase, None));
        }
        let lines = self.lines();
        let words = (0..self.command.len()).map(|position| &self.command[position..]);
        for command in words.chain(lines.split(|word| is_separator(word))) {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            if let Some((role, arguments)) = node_command(&command) {
                return Some((role, Some(arguments.iter().map(|word| (*word).to_owned()).collect())));
            }
        }
        let own = |name: &str| self.environment.contains_key(name);
        let serves = own("CORE_PEER_LISTENADDRESS") && (own("CORE_PEER_ID") || own("CORE_PEER_LOCALMSPID"));
        let role = match () {
            () if self.is_tool() => return None,
            () if image.contains("fabric-peer") || own("CORE_PEER_FILESYSTEMPATH") || serves => NodeRole::Peer,
            () if image.contains("fabric-orderer") || own("ORDERER_GENERAL_LOCALMSPID") => NodeRole::Orderer,
            () if image.contains("fabric-ca") || own("FABRIC_CA_SERVER_CA_NAME") => NodeRole::CertificateAuthority,
            () => return None,
        };
        // An administrator's shell in a peer's image is no peer.
        let shell = self.words().iter().any(|word| matches!(word.as_str(), "bash" | "sh" | "/bin/bash" | "/bin/sh"));
        let listens =
            own("CORE_PEER_LISTENADDRESS") || own("CORE_PEER_FILESYSTEMPATH") || own("CORE_PEER_GOSSIP_BOOTSTRAP");
        if role == NodeRole::Peer && shell && !listens {
            return None;
        }
        Some((role, None))
    }
}

/// Commands of a container by its name.
pub(super) fn docker_commands(name: &str) -> Commands {
    Commands {
        start: Some(format!("docker start {name}")),
        stop: Some(format!("docker stop {name}")),
        status: Some(format!("docker inspect -f '{{{{.State.Running}}}}' {name} | grep -q true")),
        log: Some(format!("docker logs --since {{since}} {name} 2>&1")),
        ..Commands::default()
    }
}
