//! Organizations, nodes, directories.

use std::collections::BTreeMap;

use fabkeep_ledger::layout::{Class, DirectoryRole, Kind, NodeRole, Place, classify};
use serde::{Deserialize, Serialize};

/// The reachable part of a Fabric network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its organizations.
    pub organizations: Vec<Organization>,
}

/// An organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its name.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its organization and name.
    pub id: NodeId,
    /// Its role.
    pub role: NodeRole,
    /// Its MSP, when known.
    pub msp_id: Option<String>,
    /// Its directories. If one is inside another, the outer one excludes it.
    pub directories: Vec<NodeDirectory>,
    /// The workload that runs it, on Kubernetes.
    pub workload: Option<Workload>,
    /// Databases that it cannot start without.
    pub served_by: Vec<NodeId>,
    /// Settings that override its configuration file, as environment variables: those that name keys, certificates and databases. Paths
    /// are as its directories' are, or as its container sees them. Never credentials.
    pub environment: BTreeMap<String, String>,
}

/// A node's workload on Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// `Deployment`, `StatefulSet`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The node's container in its pods.
    pub container: String,
    /// The ordinal of its pod, if a StatefulSet runs several nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u32>,
    /// The endpoint for heights and health, if its configuration names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Operations>,
    /// The channel participation API of an orderer, if its configuration names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participation: Option<Operations>,
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A node's operations endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operations {
    /// Its port.
    pub port: u16,
    /// Whether it requires TLS.
    pub tls: bool,
}

/// Names a node: organization and node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId {
    /// The organization's name.
    pub organization: String,
    /// The node's name in it.
    pub node: String,
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}/{}", self.organization, self.node))
    }
}

/// A directory of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDirectory {
    /// Its role.
    pub role: DirectoryRole,
    /// Its path, in the form that the platform uses.
    pub path: String,
    /// Directories inside it with a role of their own: relative path and role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<(String, DirectoryRole)>,
    /// Relative paths inside it that are not part of it: other directories' places, other volumes' mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// The sqlite databases in it, as relative paths, where the configuration that names them was read; `None` where it was not: then files
    /// are known by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<Vec<String>>,
    /// Its storage.
    #[serde(default, skip_serializing_if = "DirectorySource::is_volume")]
    pub source: DirectorySource,
    /// Its path in the container, on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounted_at: Option<String>,
}

/// The storage of a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectorySource {
    /// A volume or a disk: a restore writes it.
    #[default]
    Volume,
    /// Secrets and ConfigMaps: a restore of those restores it.
    Objects,
    /// The container's own file system or an emptyDir: it is lost with the pod and created again when the pod starts.
    Ephemeral,
    /// A database server: it is dumped, and a restore loads the dump after the server has started again.
    Server,
}

impl DirectorySource {
    /// Returns whether a restore writes it.
    pub fn is_volume(&self) -> bool {
        *self == DirectorySource::Volume
    }
}

impl NodeDirectory {
    /// Returns a directory with nothing nested in it.
    pub fn new(role: DirectoryRole, path: String) -> Self {
        NodeDirectory {
            role,
            path,
            nested: Vec::new(),
            excluded: Vec::new(),
            sqlite: None,
            source: DirectorySource::Volume,
            mounted_at: None,
        }
    }

    /// Returns the innermost part of this directory that a path lies in: where it begins (empty: the directory itself), its role, and the
    /// path from there.
    pub fn part<'a>(&'a self, path: &'a str) -> (&'a str, DirectoryRole, &'a str) {
        self.nested
            .iter()
            .filter_map(|(at, role)| Some((at.as_str(), *role, path.strip_prefix(at.as_str())?.strip_prefix('/')?)))
            .max_by_key(|(at, _, _)| at.len())
            .unwrap_or(("", self.role, path))
    }

    /// Returns what the file at `path` (relative, `/`-separated) is; the deepest directory with a role decides.
    pub fn classify(&self, path: &str, joined_by_snapshot: bool) -> Place {
        let (at, role, rest) = self.part(path);
        if let Some(named) = &self.sqlite {
            if named.iter().any(|named| named == path) {
                return Place { class: Class::Authoritative, kind: Kind::Sqlite };
            }
            // Another file with a database's name is a file.
            if classify(role, rest, joined_by_snapshot).kind == Kind::Sqlite {
                return Place { class: Class::Authoritative, kind: Kind::Plain };
            }
        }
        if at.is_empty() {
            return classify(self.role, path, joined_by_snapshot);
        }
        let mut place = classify(role, rest, joined_by_snapshot);
        if let Kind::LevelDb(directory) = &mut place.kind {
            *directory = format!("{at}/{directory}");
        }
        place
    }

    /// Returns whether a path is needed by a recovery.
    pub fn is_authoritative(&self, path: &str, joined_by_snapshot: bool) -> bool {
        self.classify(path, joined_by_snapshot).class == Class::Authoritative
    }
}

impl Network {
    /// Returns every node, organization by organization.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.organizations.iter().flat_map(|organization| &organization.nodes)
    }

    /// Returns the node of this name.
    pub fn node(&self, id: &NodeId) -> Option<&Node> {
        self.nodes().find(|node| node.id == *id)
    }
}
