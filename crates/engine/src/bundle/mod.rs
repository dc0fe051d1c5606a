//! What helps to find a fault, as files without secrets: versions, the network, the states of pods, events, the ends of logs, the recovery
//! points of the repository.

mod redact;

use std::path::PathBuf;

use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{DirectorySource, Node};
use fabkeep_platform::kubernetes::Kubernetes;
use fabkeep_platform::{EntryKind, Host, NodeState, Platform};
use fabkeep_store::Repository;
use serde_json::{Value, json};

use crate::event::step;
use crate::{Reporter, remark_finding};

pub use redact::{REDACTED, Redactor, is_secret_name};

/// Most of a node's log that is taken, from its end.
const MAX_LOG_BYTES: usize = 1 << 20;
/// A larger file holds no key and no configuration.
const MAX_FILE_BYTES: u64 = 256 << 10;
/// Most files of a directory that are read for their secrets.
const MAX_FILES: usize = 2_000;

/// A file of a bundle, without secrets.
#[derive(Debug, Clone)]
pub struct BundleFile {
    /// Its name in the bundle.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The network that a bundle is about.
pub enum BundleNetwork<'a> {
    /// On hosts, with the text of its inventory.
    Host(&'a Host, Option<String>),
    /// On a cluster.
    Cluster(&'a Kubernetes),
}

/// Collects files, and takes the secrets out of each.
#[derive(Default)]
pub struct Bundle {
    redactor: Redactor,
    files: Vec<BundleFile>,
    /// What could not be collected.
    problems: Vec<String>,
}

impl Bundle {
    /// Learns the secrets of files of this machine, as key files are.
    pub fn learn_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        for file in files {
            if let Ok(bytes) = std::fs::read(&file) {
                self.redactor.learn(&bytes);
                self.redactor.learn_values_of(&bytes);
            }
        }
    }

    /// Learns the values of environment variables whose names say that they are secret, and the passwords in the others.
    pub fn learn_environment(&mut self) {
        for (name, value) in std::env::vars_os() {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            if is_secret_name(&name) {
                self.redactor.learn(value.as_bytes());
            }
            self.redactor.learn_from(&value);
        }
    }

    /// Learns the secrets that a text holds, as a command line.
    pub fn learn_text(&mut self, text: &str) {
        self.redactor.learn_from(text);
    }

    /// Learns the secrets of a network: Secrets, passwords in ConfigMaps, environments and configurations, private keys. Without a helper
    /// pod: what a stopped node has on its volume is not read.
    pub fn learn_network(&mut self, network: &BundleNetwork<'_>) {
        let platform: &dyn Platform = match network {
            BundleNetwork::Host(host, inventory) => {
                inventory.iter().for_each(|text| self.redactor.learn_from(text));
                *host
            }
            BundleNetwork::Cluster(cluster) => {
                cluster.secret_values().iter().for_each(|secret| self.redactor.learn(secret));
                for text in cluster.configuration_texts() {
                    self.redactor.learn_from(&text);
                }
                *cluster
            }
        };
        for node in platform.network().nodes() {
            self.learn_node(platform, node);
        }
    }

    fn learn_node(&mut self, platform: &dyn Platform, node: &Node) {
        let near = platform.readers().is_none();
        let runs = near || platform.state(&node.id).is_ok_and(|state| state == NodeState::Running);
        let holds = |role: DirectoryRole| {
            matches!(role, DirectoryRole::Msp | DirectoryRole::Tls | DirectoryRole::CaHome | DirectoryRole::Config)
        };
        for directory in node.directories.iter().filter(|directory| holds(directory.role) && runs) {
            if matches!(directory.source, DirectorySource::Server) {
                continue;
            }
            let Ok(Some(volume)) = platform.volume(&node.id, directory) else { continue };
            let Ok((entries, _)) = volume.list_readable() else { continue };
            let files =
                entries.iter().filter(|entry| entry.kind == EntryKind::File && entry.stamp.size <= MAX_FILE_BYTES);
            for entry in files.take(MAX_FILES) {
                let mut bytes = Vec::new();
                let read = volume
                    .open(&entry.path, 0..entry.stamp.size)
                    .and_then(|mut file| std::io::Read::read_to_end(&mut file, &mut bytes));
                if read.is_err() {
                    continue;
                }
                let text = String::from_utf8_lossy(&bytes);
                if text.contains("PRIVATE KEY") {
                    self.redactor.learn(&bytes);
                }
                self.redactor.learn_from(&text);
            }
        }
    }

    /// Adds a text.
    pub fn text(&mut self, name: &str, text: &str) {
        let text = self.redactor.text(text);
        self.add(name, text);
    }

    /// Adds a document.
    pub fn document(&mut self, name: &str, value: Value) {
        let value = self.redactor.document(value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        self.add(name, text + "\n");
    }

    fn add(&mut self, name: &str, text: String) {
        if self.redactor.holds_secret(&text) {
            self.problem(format!("{name} was left out: a secret could not be taken out of it"));
            return;
        }
        let name = self.redactor.text(name);
        self.files.push(BundleFile { name, text });
    }

    /// Notes what could not be collected.
    pub fn problem(&mut self, problem: impl ToString) {
        self.problems.push(self.redactor.text(&problem.to_string()));
    }

    /// Adds the network, its events and the states of its pods, and the logs of its nodes since a time; `None`: no logs.
    pub fn network(&mut self, network: &BundleNetwork<'_>, since: Option<jiff::Timestamp>, reporter: &dyn Reporter) {
        let platform: &dyn Platform = match network {
            BundleNetwork::Host(host, inventory) => {
                let nodes = host.network().nodes().map(|node| {
                    let directories = node.directories.iter();
                    let directories = directories.map(|known| json!({"role": known.role, "path": known.path}));
                    json!({"node": node.id.to_string(), "role": node.role, "msp_id": node.msp_id,
                        "directories": directories.collect::<Vec<_>>()})
                });
                let nodes: Vec<Value> = nodes.collect();
                self.document("network.json", json!({"network": host.network().name, "nodes": nodes}));
                if let Some(inventory) = inventory {
                    self.text("inventory.toml", inventory);
                }
                *host
            }
            BundleNetwork::Cluster(cluster) => {
                self.document("network.json", json!(cluster.view()));
                for (name, read) in step(reporter, "read events and pods", None, || cluster.states()) {
                    match read {
                        Ok(value) => self.document(&name, value),
                        Err(error) => self.problem(format!("{name}: {error}")),
                    }
                }
                *cluster
            }
        };
        self.document("findings.json", json!(platform.findings()));
        let Some(since) = since else { return };
        step(reporter, "read logs", None, || {
            for node in platform.network().nodes() {
                match platform.log(&node.id, since) {
                    Ok(Some(log)) => {
                        let mut from = log.len().saturating_sub(MAX_LOG_BYTES);
                        while !log.is_char_boundary(from) {
                            from += 1;
                        }
                        self.text(&format!("logs/{}.log", node.id), &log[from..]);
                    }
                    Ok(None) => {}
                    Err(error) => self.problem(format!("log of {}: {error}", node.id)),
                }
            }
        });
    }

    /// Adds the recovery points of a repository, and what is not as it should be in it.
    pub fn repository(&mut self, repository: &Repository) {
        match repository.history() {
            Ok(history) => {
                let points: Vec<Value> = history
                    .commits
                    .iter()
                    .map(|commit| {
                        json!({"id": commit.id, "created": commit.created, "committed": commit.committed,
                            "summary": commit.summary, "new_objects": commit.new_objects, "new_bytes": commit.new_bytes,
                            "sequence": commit.sequence, "stopped": commit.stopped})
                    })
                    .collect();
                let remarks: Vec<_> = history.remarks.iter().map(remark_finding).collect();
                let config = repository.config();
                self.document(
                    "repository.json",
                    json!({"location": repository.location(), "id": config.id, "created": config.created,
                        "points": points, "remarks": remarks}),
                );
            }
            Err(error) => self.problem(format!("repository: {error}")),
        }
    }

    /// Returns the files.
    pub fn finish(mut self) -> Vec<BundleFile> {
        if !self.problems.is_empty() {
            let text = self.problems.join("\n") + "\n";
            self.text("not-collected.txt", &text);
        }
        self.files
    }
}
