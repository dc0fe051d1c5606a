//! Determines whether a node of this machine runs. Evidence of a running process (locks that it holds, files that it has open for writing,
//! a port of its own that something listens on) overrides a status command that says otherwise. Without a command and without evidence the
//! state is unknown.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use fabkeep_ledger::layout::{DirectoryRole, Kind, NodeRole};
use fabkeep_ledger::node_settings::value_at;
use fabkeep_ledger::yaml::parse;
use fabkeep_network::{NodeDirectory, NodeId};
use rustix::fs::{FlockOperation, fcntl_lock, flock};

use super::mounts::{Mount, Mounts};
use super::{Host, HostVolume, MAX_SHOWN};
use crate::command::Ended;
use crate::volume::{EntryKind, Volume, VolumeEntry};
use crate::{NodeState, PlatformError};

/// What a shell exits with when a command cannot be run, or is not found.
const NOT_RUN: [i32; 2] = [126, 127];
/// Most evidence that is collected of one node.
const MAX_EVIDENCE: usize = 4;

/// Evidence that a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Its status command says so.
    Status,
    /// A process holds the lock of one of its databases or raft logs.
    Locked(PathBuf),
    /// A process has one of its files open for writing.
    Open {
        /// The process.
        process: u32,
        /// The file.
        file: PathBuf,
    },
    /// Something listens on a port that only this node of the inventory has.
    Listening(u16),
}

impl Evidence {
    /// Returns whether it is of this node and no other process's.
    pub fn is_certain(&self) -> bool {
        !matches!(self, Evidence::Listening(_))
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Evidence::Status => write!(f, "its status command says that it runs"),
            Evidence::Locked(path) => write!(f, "a process holds the lock {}", path.display()),
            Evidence::Open { process, file } => write!(f, "process {process} has {} open for writing", file.display()),
            Evidence::Listening(port) => write!(f, "a process listens on its port {port}"),
        }
    }
}

/// Whether a node runs, and the evidence for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The state.
    pub state: NodeState,
    /// The evidence that it runs.
    pub evidence: Vec<Evidence>,
    /// Why it is unknown, when it is.
    pub unknown: Option<String>,
}

impl Running {
    fn stopped() -> Self {
        Running { state: NodeState::Stopped, evidence: Vec::new(), unknown: None }
    }
}

/// What a node's status command says.
enum Said {
    Runs,
    Stopped,
    /// It could not be run, or was killed.
    Nothing(String),
}

/// Returns the evidence that a process uses directories of a node: locks that it holds, else files that it has open for writing.
///
/// # Errors
/// [`PlatformError`] when the directories cannot be read.
pub fn in_use(directories: &[NodeDirectory]) -> Result<Vec<Evidence>, PlatformError> {
    let (locks, files) = look(directories)?;
    let mut evidence: Vec<Evidence> = locks.held.into_iter().map(Evidence::Locked).collect();
    if evidence.is_empty() {
        evidence = Processes::look(&files).open;
    }
    if let (true, Some(error)) = (evidence.is_empty(), locks.unread) {
        return Err(error);
    }
    evidence.truncate(MAX_EVIDENCE);
    Ok(evidence)
}

/// Each directory, with the files in it.
type Files = Vec<(PathBuf, Vec<VolumeEntry>)>;

/// Looks at the locks and the files of the directories that a node writes to.
fn look(directories: &[NodeDirectory]) -> Result<(Locks, Files), PlatformError> {
    let mut locks = Locks::default();
    let mut files = Vec::new();
    for directory in directories.iter().filter(|directory| is_written(directory)) {
        let root = PathBuf::from(&directory.path);
        if root.is_dir() {
            let volume = HostVolume::without(root.clone(), directory.excluded.clone()).following_links();
            // What cannot be listed may hold a lock.
            let (entries, unread) = volume.list_readable().unwrap_or_else(|error| {
                locks.unread = Some(error);
                (Vec::new(), Vec::new())
            });
            if let Some(part) = unread.into_iter().next() {
                locks.unread =
                    Some(PlatformError::Io { path: volume.at(&part.path).display().to_string(), source: part.source });
            }
            locks.look(directory, &volume, &entries);
            files.push((root.canonicalize().unwrap_or(root), entries));
        } else {
            // A file that a process has open in a removed directory still has its path.
            files.push((root, Vec::new()));
        }
    }
    Ok((locks, files))
}

impl Host {
    /// Returns whether a node runs, and the evidence for it.
    ///
    /// # Errors
    /// [`PlatformError`] when its directories cannot be read.
    pub fn running(&self, node: &NodeId) -> Result<Running, PlatformError> {
        let Some(known) = self.network.node(node) else { return Ok(Running::stopped()) };
        if known.role == NodeRole::Files {
            return Ok(Running::stopped());
        }
        let said =
            self.commands(node).and_then(|commands| commands.status.as_ref()).map(|command| self.status(node, command));
        let said = said.transpose()?;
        let mut evidence: Vec<Evidence> = Vec::new();
        if matches!(said, Some(Said::Runs)) {
            evidence.push(Evidence::Status);
        }
        let (locks, files) = look(&known.directories)?;
        evidence.extend(locks.held.iter().map(|path| Evidence::Locked(path.clone())));
        let mut processes = Processes::default();
        if evidence.is_empty() {
            processes = Processes::look(&files);
            evidence.extend(processes.open.clone());
        }
        if evidence.is_empty() {
            let listening = listening_ports();
            let own = self.own_ports(node).into_iter().filter(|port| listening.contains(port));
            evidence.extend(own.map(Evidence::Listening));
        }
        evidence.truncate(MAX_EVIDENCE);
        if !evidence.is_empty() {
            return Ok(Running { state: NodeState::Running, evidence, unknown: None });
        }
        let why = match said {
            Some(Said::Stopped) => return Ok(Running::stopped()),
            Some(Said::Nothing(problem)) => format!("its status command could not be run ({problem})"),
            // That it runs would be evidence.
            Some(Said::Runs) | None if self.is_on_shared_disk(&files) => {
                "its data is on a file system that other machines use too, and it has no status command".to_owned()
            }
            // A peer or orderer that runs holds its locks.
            Some(Said::Runs) | None if locks.tried > 0 && locks.unreadable == 0 && locks.unread.is_none() => {
                return Ok(Running::stopped());
            }
            Some(Said::Runs) | None if processes.unreadable == 0 && processes.seen > 0 => return Ok(Running::stopped()),
            Some(Said::Runs) | None => format!(
                "it has no status command, and this user may not inspect {} processes of this machine",
                processes.unreadable
            ),
        };
        Ok(Running { state: NodeState::Unknown, evidence, unknown: Some(why) })
    }

    fn status(&self, node: &NodeId, command: &str) -> Result<Said, PlatformError> {
        let ran = self.run(node, "status", command)?;
        let problem = ran.problem(MAX_SHOWN);
        match ran.ended {
            Ended::Exited(status) => Ok(judge_status(status, problem)),
            Ended::Interrupted | Ended::TooLong(_) => {
                Err(PlatformError::Command { node: node.to_string(), which: "status", problem })
            }
        }
    }

    fn is_on_shared_disk(&self, files: &[(PathBuf, Vec<VolumeEntry>)]) -> bool {
        let Ok(mounts) = Mounts::read() else { return false };
        files.iter().any(|(root, _)| mounts.of(root).is_some_and(Mount::is_shared))
    }

    /// Ports of a node's endpoints on this machine that no other node of the inventory has.
    fn own_ports(&self, node: &NodeId) -> Vec<u16> {
        let ports = |id: &NodeId| -> Vec<u16> {
            let Some(reach) = self.nodes.get(id) else { return Vec::new() };
            let urls = [&reach.operations, &reach.participation].into_iter().flatten();
            let here = urls.filter(|url| url.host_str().is_some_and(is_this_machine));
            let mut ports: Vec<u16> = here.filter_map(url::Url::port_or_known_default).collect();
            ports.extend(self.configured_ports(id));
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        let others: HashSet<u16> = self.nodes.keys().filter(|id| *id != node).flat_map(ports).collect();
        ports(node).into_iter().filter(|port| *port != 0 && !others.contains(port)).collect()
    }

    /// Ports that a node's configuration file makes it listen on.
    fn configured_ports(&self, node: &NodeId) -> Vec<u16> {
        let Some(known) = self.network.node(node) else { return Vec::new() };
        let mut ports = Vec::new();
        for directory in &known.directories {
            let places = directory.nested.iter().map(|(at, role)| (format!("{}/{at}", directory.path), *role));
            for (path, role) in places.chain([(directory.path.clone(), directory.role)]) {
                if matches!(role, DirectoryRole::Config | DirectoryRole::CaHome) {
                    ports.extend(ports_of(known.role, Path::new(&path)));
                }
            }
        }
        ports
    }
}

fn judge_status(status: ExitStatus, problem: String) -> Said {
    match status.code() {
        Some(0) => Said::Runs,
        Some(code) if !NOT_RUN.contains(&code) => Said::Stopped,
        _ => Said::Nothing(if problem.is_empty() { status.to_string() } else { problem }),
    }
}

/// Largest configuration file that is read for its ports, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Returns the port of a peer, orderer or certificate authority by the configuration in a directory.
fn ports_of(role: NodeRole, folder: &Path) -> Option<u16> {
    let (name, keys): (&str, &[&str]) = match role {
        NodeRole::Peer => ("core.yaml", &["peer", "listenAddress"]),
        NodeRole::Orderer => ("orderer.yaml", &["General", "ListenPort"]),
        NodeRole::CertificateAuthority => ("fabric-ca-server-config.yaml", &["port"]),
        _ => return None,
    };
    let path = folder.join(name);
    if path.metadata().ok()?.len() > MAX_CONFIG_BYTES {
        return None;
    }
    let yaml = parse(&fs::read(path).ok()?).ok()?;
    let value = value_at(&yaml, keys)?;
    match value.as_str() {
        Some(address) => address.rsplit(':').next()?.parse().ok(),
        None => value.as_u64()?.try_into().ok(),
    }
}

fn is_this_machine(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]" | "::1" | "0.0.0.0" | "[::]")
}

/// Returns the ports of this machine that something listens on: state 0A of `/proc/net/tcp` is LISTEN. To read these files takes
/// milliseconds.
fn listening_ports() -> HashSet<u16> {
    let mut ports = HashSet::new();
    for text in ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|path| fs::read_to_string(path).ok()) {
        ports.extend(text.lines().skip(1).filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
            let port = local.rsplit(':').next().filter(|_| state == "0A")?;
            u16::from_str_radix(port, 16).ok()
        }));
    }
    ports
}

/// Returns whether a node that runs has files of this directory open for writing.
fn is_written(directory: &NodeDirectory) -> bool {
    let written = |role: &DirectoryRole| {
        matches!(
            role,
            DirectoryRole::PeerData
                | DirectoryRole::OrdererLedger
                | DirectoryRole::OrdererWal
                | DirectoryRole::OrdererSnapshots
                | DirectoryRole::CaHome
                | DirectoryRole::StateDatabase
                | DirectoryRole::Database
        )
    };
    written(&directory.role) || directory.nested.iter().any(|(_, role)| written(role))
}

/// Locks of LevelDB directories and raft logs: a peer or orderer that runs holds them.
#[derive(Default)]
struct Locks {
    held: Vec<PathBuf>,
    tried: usize,
    unreadable: usize,
    /// Why a part of the directories, which may hold more of them, cannot be listed.
    unread: Option<PlatformError>,
}

impl Locks {
    fn look(&mut self, directory: &NodeDirectory, volume: &HostVolume, entries: &[VolumeEntry]) {
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
            let is_lock = entry.path.rsplit('/').next() == Some("LOCK")
                || matches!(directory.classify(&entry.path, false).kind, Kind::WalFile(_));
            if !is_lock || self.held.len() >= MAX_EVIDENCE {
                continue;
            }
            let path = volume.at(&entry.path);
            match is_locked(&path) {
                Some(true) => self.held.push(path),
                Some(false) => self.tried += 1,
                None => self.unreadable += 1,
            }
        }
    }
}

/// Returns whether a process holds a lock on a file: goleveldb takes `flock`, etcd's raft log open-file-description locks. `None` when it
/// cannot be opened.
pub(super) fn is_locked(path: &Path) -> Option<bool> {
    let file = File::open(path).ok()?;
    // Given back at once; closing does it too.
    let by_file = match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => flock(&file, FlockOperation::Unlock).is_err(),
        Err(error) => error == rustix::io::Errno::WOULDBLOCK,
    };
    let by_range = match fcntl_lock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => fcntl_lock(&file, FlockOperation::Unlock).is_err(),
        Err(error) => matches!(error, rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS),
    };
    Some(by_file || by_range)
}

/// Processes of this machine that have files of a node open for writing.
#[derive(Default)]
struct Processes {
    open: Vec<Evidence>,
    seen: usize,
    unreadable: usize,
}

impl Processes {
    fn look(files: &[(PathBuf, Vec<VolumeEntry>)]) -> Processes {
        let mut inodes: HashSet<(u64, u64)> = HashSet::new();
        for (root, entries) in files {
            let Ok(device) = root.metadata().map(|metadata| metadata.dev()) else { continue };
            for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
                // A mount below is another device: what is open there is found by its path.
                inodes.insert((device, entry.stamp.inode));
            }
        }
        let mut found = Processes::default();
        let own = std::process::id();
        let Ok(processes) = fs::read_dir("/proc") else {
            found.unreadable = 1;
            return found;
        };
        for process in processes.filter_map(Result::ok) {
            let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if id == own {
                continue;
            }
            found.seen += 1;
            let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
                // A process that ended meanwhile has none.
                found.unreadable += usize::from(process.path().join("stat").exists());
                continue;
            };
            for descriptor in descriptors.filter_map(Result::ok) {
                let Ok(target) = fs::read_link(descriptor.path()) else { continue };
                if !target.is_absolute() {
                    continue;
                }
                // A container sees the file by another path: then it is the same inode.
                let named = files.iter().any(|(root, _)| target.starts_with(root));
                let same = || {
                    let metadata = fs::metadata(descriptor.path()).ok();
                    metadata.is_some_and(|found| found.is_file() && inodes.contains(&(found.dev(), found.ino())))
                };
                if (named || same()) && is_open_for_writing(&process.path(), &descriptor.file_name()) {
                    found.open.push(Evidence::Open { process: id, file: target });
                    if found.open.len() >= MAX_EVIDENCE {
                        return found;
                    }
                    break;
                }
            }
        }
        found
    }
}

/// Returns whether a descriptor was opened for writing: the last octal digit of its flags holds the access mode.
fn is_open_for_writing(process: &Path, descriptor: &std::ffi::OsStr) -> bool {
    let Ok(text) = fs::read_to_string(process.join("fdinfo").join(descriptor)) else { return false };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o3 != 0)
}
