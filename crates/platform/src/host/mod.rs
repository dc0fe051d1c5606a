//! The host platform: nodes are directories and commands of this machine (docker-compose, VMs, bare metal).

mod discover;
mod inventory;
mod mounts;
mod observe;
mod running;
mod sql;
mod volume;
mod window;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, Network, NodeDirectory, NodeId, Observation, Remedy, Rule, Stage};
use url::Url;

use crate::command::{self, Ran, Until};
use crate::volume::Volume;
use crate::{
    Change, Machine, NodeState, NotedWindows, OnProgress, Platform, PlatformError, ProbeScope, Quiesce, StrangeNote,
    WindowRecord,
};

pub use discover::{Discovered, Remark, discover, discover_compose, discover_docker};
pub use inventory::{ClientFiles, Commands, INVENTORY_HEADER, Inventory, InventoryNode, InventoryOrganization};
pub use inventory::{may_be_shared, normal};
pub use mounts::{Mount, Mounts, is_below};
pub(crate) use observe::health_word;
pub use running::{Evidence, Running, in_use};
pub use sql::{SqlAccess, dump_directory};
pub use volume::{HostVolume, trusted_link};

/// Most of a failed command's error output that is shown, in characters.
const MAX_SHOWN: usize = 2_000;

/// A network on this machine, as an inventory describes it.
pub struct Host {
    network: Network,
    /// What a person should look at, of a network that was discovered for this run.
    findings: Vec<Finding>,
    nodes: HashMap<NodeId, Reach>,
    /// Where an open window is noted.
    window_file: PathBuf,
    /// What signs the note.
    machine: Machine,
}

/// How a node is started, stopped and asked.
#[derive(Default)]
struct Reach {
    commands: Commands,
    operations: Option<Url>,
    participation: Option<Url>,
    log: Option<PathBuf>,
    client: Option<ClientFiles>,
}

impl Host {
    /// Opens an inventory file.
    ///
    /// # Errors
    /// [`PlatformError::Inventory`].
    pub fn open(inventory: &Path) -> Result<Host, PlatformError> {
        let read = Inventory::read(inventory)?;
        let io = |source| PlatformError::Io { path: inventory.display().to_string(), source };
        let absolute = std::path::absolute(inventory).map_err(io)?;
        let base = absolute.parent().unwrap_or(Path::new("/"));
        let window_file = PathBuf::from(format!("{}.window", absolute.display()));
        Host::new(&read, base).map(|host| Host { window_file, ..host }).map_err(|error| match error {
            PlatformError::Inventory { problem, .. } => {
                PlatformError::Inventory { file: inventory.display().to_string(), problem }
            }
            other => other,
        })
    }

    /// Takes an inventory whose paths are relative to `base`.
    ///
    /// # Errors
    /// [`PlatformError::Inventory`].
    pub fn new(inventory: &Inventory, base: &Path) -> Result<Host, PlatformError> {
        let mut network = inventory.network(&normal(base))?;
        for node in network.organizations.iter_mut().flat_map(|organization| &mut organization.nodes) {
            if node.role == NodeRole::CertificateAuthority {
                Self::add_dumps(node);
            }
        }
        let mut nodes = HashMap::new();
        for organization in &inventory.organizations {
            for node in &organization.nodes {
                let id = NodeId { organization: organization.name.clone(), node: node.name.clone() };
                let url = |text: &Option<String>| {
                    let parse = |text: &String| {
                        observe::parse_url(text).map_err(|problem| PlatformError::Inventory {
                            file: inventory.network.clone(),
                            problem: format!("{id}: {text}: {problem}"),
                        })
                    };
                    text.as_ref().map(parse).transpose()
                };
                let path = |text: &String| normal(&base.join(text)).display().to_string();
                let client = node.client.as_ref().map(|client| ClientFiles {
                    certificate: path(&client.certificate),
                    key: path(&client.key),
                    ca: client.ca.as_ref().map(path),
                });
                let reach = Reach {
                    commands: node.commands.clone(),
                    operations: url(&node.operations)?,
                    participation: url(&node.participation)?,
                    log: node.log.as_ref().map(|log| normal(&base.join(log))),
                    client,
                };
                nodes.insert(id, reach);
            }
        }
        let window_file = normal(base).join("fabkeep.window");
        Ok(Host { network, findings: Vec::new(), nodes, window_file, machine: Machine::default() })
    }

    /// Takes what was discovered below `base`, with the remarks on it.
    ///
    /// # Errors
    /// [`PlatformError::Inventory`].
    pub fn discovered(found: &Discovered, base: &Path) -> Result<Host, PlatformError> {
        let finding = |remark: &Remark| {
            let remedy = remark.remedy.clone().unwrap_or_else(|| Remedy::from("correct it"));
            Finding::warning(Rule::Recognised, "discovery", &remark.what, remedy.or(Remedy::WriteInventory))
        };
        let left = found.left.iter().map(|path| {
            Finding::note(
                Rule::Recognised,
                path.display(),
                "a restore has left it here: it is not captured",
                "remove it when the network works",
            )
        });
        let findings = found.remarks.iter().map(finding).chain(left).collect();
        Ok(Host { findings, ..Host::new(&found.inventory, base)? })
    }

    /// Keeps this machine's key and its records of windows in another place.
    #[must_use]
    pub fn kept_by(self, machine: Machine) -> Self {
        Host { machine, ..self }
    }

    fn commands(&self, node: &NodeId) -> Option<&Commands> {
        self.nodes.get(node).map(|reach| &reach.commands)
    }

    fn run(&self, node: &NodeId, which: &'static str, command: &str) -> Result<Ran, PlatformError> {
        tracing::info!(%node, which, "runs a command of the inventory");
        command::run(command, Until::ITS_END).map_err(|error| PlatformError::Command {
            node: node.to_string(),
            which,
            problem: error.to_string(),
        })
    }

    fn run_if_given(
        &self,
        node: &NodeId,
        which: &'static str,
        pick: impl Fn(&Commands) -> Option<&String>,
    ) -> Result<bool, PlatformError> {
        let Some(command) = self.commands(node).and_then(pick) else { return Ok(false) };
        let ran = self.run(node, which, command)?;
        if ran.is_success() {
            return Ok(true);
        }
        Err(PlatformError::Command { node: node.to_string(), which, problem: ran.problem(MAX_SHOWN) })
    }

    /// Returns the nodes in the order in which they start.
    pub fn start_order(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.network.nodes().map(|node| (Stage::of(node.role), node.id.clone())).collect();
        nodes.retain(|(stage, _)| *stage != Stage::Others);
        nodes.sort_by_key(|(stage, _)| *stage);
        nodes.into_iter().map(|(_, id)| id).collect()
    }

    /// Returns whether a node has a stop command.
    pub fn can_stop(&self, node: &NodeId) -> bool {
        self.commands(node).is_some_and(|commands| commands.stop.is_some())
    }

    /// Returns whether a node has a start command.
    pub fn can_start(&self, node: &NodeId) -> bool {
        self.commands(node).is_some_and(|commands| commands.start.is_some())
    }

    /// Runs a node's stop command; `false` when it has none.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    pub fn stop(&self, node: &NodeId) -> Result<bool, PlatformError> {
        self.run_if_given(node, "stop", |commands| commands.stop.as_ref())
    }

    /// Runs a node's start command; `false` when it has none.
    ///
    /// # Errors
    /// [`PlatformError::Command`].
    pub fn start(&self, node: &NodeId) -> Result<bool, PlatformError> {
        self.run_if_given(node, "start", |commands| commands.start.as_ref())
    }
}

impl Platform for Host {
    fn network(&self) -> &Network {
        &self.network
    }

    fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn volume(&self, node: &NodeId, directory: &NodeDirectory) -> Result<Option<Box<dyn Volume>>, PlatformError> {
        if directory.role == DirectoryRole::DatabaseDump {
            return self.dumped(node, directory);
        }
        let path = PathBuf::from(&directory.path);
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let volume = HostVolume::without(path, directory.excluded.clone());
                // Ordinary files lead anywhere.
                let of_node = self.network.node(node).is_some_and(|node| node.role != NodeRole::Files);
                Ok(Some(Box::new(if of_node { volume.following_links() } else { volume })))
            }
            Ok(_) => Err(PlatformError::Io {
                path: directory.path.clone(),
                source: std::io::Error::from(std::io::ErrorKind::NotADirectory),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PlatformError::Io { path: directory.path.clone(), source }),
        }
    }

    fn state(&self, node: &NodeId) -> Result<NodeState, PlatformError> {
        Ok(self.running(node)?.state)
    }

    fn strategy(&self, _: &NodeId, directory: &NodeDirectory) -> String {
        match directory.role {
            DirectoryRole::DatabaseDump => "dump: by the database server's own tools".to_owned(),
            _ => format!("{} read in place", directory.path),
        }
    }

    fn observe(&self, node: &NodeId, asked: ProbeScope) -> Observation {
        self.ask(node, asked)
    }

    fn log(&self, node: &NodeId, since: jiff::Timestamp) -> Result<Option<String>, PlatformError> {
        self.read_log(node, since)
    }

    fn closing(&self, quiesce: &Quiesce) -> Result<(Vec<Change>, Vec<Finding>), PlatformError> {
        self.plan_window(quiesce)
    }

    fn close(&self, changes: &[Change], until: Until<'_>) -> Result<(), PlatformError> {
        changes.iter().try_for_each(|change| self.change(change, until))
    }

    fn reopen(&self, changes: &[Change], reported: &OnProgress<'_>) -> Result<(), PlatformError> {
        self.undo(changes, reported)
    }

    fn window(&self) -> Result<NotedWindows, PlatformError> {
        self.noted_windows()
    }

    fn note_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        self.write_window(record)
    }

    fn forget_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        self.remove_window(record)
    }

    fn may_undo(&self, change: &Change) -> Result<(), String> {
        self.undoable(change)
    }

    fn forget_note(&self, _: &StrangeNote) -> Result<(), PlatformError> {
        self.remove_note()
    }
}

/// Runs a command of the operator's around a window.
pub(crate) fn run_hook(which: &'static str, command: &str, until: Until<'_>) -> Result<(), PlatformError> {
    let failed = |problem: String| PlatformError::NotHere {
        problem: format!("--{which} `{command}` failed: {problem}"),
        next: "correct the command".into(),
    };
    let ran = command::run(command, until).map_err(|error| failed(error.to_string()))?;
    if ran.is_success() { Ok(()) } else { Err(failed(ran.problem(MAX_SHOWN))) }
}
