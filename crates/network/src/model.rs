//! Organizations, nodes, directories.

use fabkeep_ledger::layout::{Class, DirectoryRole, Kind, NodeRole, Place, classify};
use serde::{Deserialize, Serialize};

/// A Fabric network, as far as it is in reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name, as people call it.
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
    /// Which one.
    pub id: NodeId,
    /// What it is.
    pub role: NodeRole,
    /// Its MSP, when known.
    pub msp_id: Option<String>,
    /// Its directories; none lies inside another.
    pub directories: Vec<NodeDirectory>,
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
    /// What it holds.
    pub role: DirectoryRole,
    /// Where it is, as the platform names places.
    pub path: String,
    /// Directories inside it with a role of their own: relative path and role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<(String, DirectoryRole)>,
}

impl NodeDirectory {
    /// What the file at `path` (relative, `/`-separated) is; the deepest directory with a role decides.
    pub fn classify(&self, path: &str, joined_by_snapshot: bool) -> Place {
        let nested = self
            .nested
            .iter()
            .filter_map(|(at, role)| Some((at, *role, path.strip_prefix(at.as_str())?.strip_prefix('/')?)))
            .max_by_key(|(at, _, _)| at.len());
        let Some((at, role, rest)) = nested else { return classify(self.role, path, joined_by_snapshot) };
        let mut place = classify(role, rest, joined_by_snapshot);
        if let Kind::LevelDb(directory) = &mut place.kind {
            *directory = format!("{at}/{directory}");
        }
        place
    }

    /// Whether a path is needed by a recovery.
    pub fn is_authoritative(&self, path: &str, joined_by_snapshot: bool) -> bool {
        self.classify(path, joined_by_snapshot).class == Class::Authoritative
    }
}

impl Network {
    /// Every node, organization by organization.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.organizations.iter().flat_map(|organization| &organization.nodes)
    }
}
