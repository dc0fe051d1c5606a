//! A container of a compose file or of this machine: which node it is, and which directories of this machine it mounts.

use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_ledger::node_settings::Environment;

use super::script::{UNKNOWN, expand, node_command};
use super::started::{CONTAINER_CA_HOME, Mount, Started};
use crate::host::Commands;
use crate::shell::words;

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
    pub ports: Vec<u16>,
    pub commands: Commands,
    /// The files that say this, but for its compose files.
    pub reads: Vec<PathBuf>,
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
            ports: self.ports,
            starts: true,
            config_flag: None,
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
        let image = self.image.rsplit('/').next().unwrap_or(&self.image).to_ascii_lowercase();
        if image.contains("couchdb") {
            return Some((NodeRole::StateDatabase, None));
        }
        // A shell's line is a command of its own.
        let mut all: Vec<String> = self.command.clone();
        for word in self.command.iter().filter(|word| word.contains(' ')) {
            all.extend(words(word).iter().map(|word| expand(word, &self.environment)));
        }
        for position in 0..all.len() {
            let rest: Vec<&str> = all[position..].iter().map(String::as_str).collect();
            if let Some((role, arguments)) = node_command(&rest) {
                return Some((role, Some(arguments.iter().map(|word| (*word).to_owned()).collect())));
            }
        }
        let own = |name: &str| self.environment.contains_key(name);
        let enrols = all.iter().any(|word| word.rsplit('/').next() == Some("fabric-ca-client"))
            || (own("FABRIC_CA_CLIENT_HOME")
                && !self
                    .environment
                    .keys()
                    .any(|name| name.starts_with("FABRIC_CA_SERVER_") || name == "FABRIC_CA_HOME"));
        let tools = enrols || image.contains("tools") || image.contains("ca-client");
        let serves = own("CORE_PEER_LISTENADDRESS") && (own("CORE_PEER_ID") || own("CORE_PEER_LOCALMSPID"));
        let role = match () {
            () if tools => return None,
            () if image.contains("fabric-peer") || own("CORE_PEER_FILESYSTEMPATH") || serves => NodeRole::Peer,
            () if image.contains("fabric-orderer") || own("ORDERER_GENERAL_LOCALMSPID") => NodeRole::Orderer,
            () if image.contains("fabric-ca") || own("FABRIC_CA_SERVER_CA_NAME") => NodeRole::CertificateAuthority,
            () => return None,
        };
        // An administrator's shell in a peer's image is no peer.
        let shell = all.iter().any(|word| matches!(word.as_str(), "bash" | "sh" | "/bin/bash" | "/bin/sh"));
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
