//! The inventory file: organizations, nodes, their directories, and the commands that start and stop them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Network, Node, NodeDirectory, NodeId, Organization};
use serde::{Deserialize, Serialize};

use crate::PlatformError;

/// Longest inventory file read, in bytes.
const MAX_INVENTORY_BYTES: u64 = 16 << 20;

/// What a new inventory file begins with.
pub const INVENTORY_HEADER: &str = "\
# fabkeep inventory: the nodes of a network and their directories. Written by `fabkeep discover`; you maintain it from now on.
# Paths are relative to this file. Roles of a node's directories:
#   peer-data (CORE_PEER_FILESYSTEMPATH), orderer-ledger, orderer-wal, orderer-snapshots, ca-home, msp, tls, config,
#   state-database (the files of a CouchDB, which is a node of its own that its peer names: served_by = [\"Org1/couchdb0\"]), other
# A directory belongs to one node; if it is inside another node's directory, it is not part of that one. Several nodes may name the same
# msp, tls or config directory: each is captured with what it needs of it, and a restore of one of them does not change it for the others.
# Commands are run by `sh -c`. `status` exits with 0 if the node runs, `height` prints the output of `peer channel getinfo`, `log` the log:
#   [organization.node.commands]
#   start = \"docker start peer0\"
#   stop = \"docker stop peer0\"
#   status = \"docker inspect -f '{{.State.Running}}' peer0 | grep -q true\"
#   height = \"docker exec peer0 peer channel getinfo -c {channel}\"
#   log = \"docker logs --since {since} peer0 2>&1\"
# For a CA whose database server or its tools cannot be reached from this machine (otherwise fabkeep uses the CA's configuration):
#   dump = \"docker exec ca-db pg_dump -U ca --clean --if-exists fabric_ca\"
#   load = \"docker exec -i ca-db psql -U ca -q -1 -v ON_ERROR_STOP=1 fabric_ca\"
# Endpoints for heights and health while the node runs, and its log file if it has one:
#   operations = \"http://127.0.0.1:9443\"
#   participation = \"https://127.0.0.1:9443\"      # orderers; needs the client certificate of [organization.node.client]
#   log = \"/var/log/fabric/peer0.log\"

";

/// An inventory file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// The network's name.
    pub network: String,
    /// The organizations.
    #[serde(default, rename = "organization")]
    pub organizations: Vec<InventoryOrganization>,
}

/// An organization in an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryOrganization {
    /// Its name.
    pub name: String,
    /// Its nodes.
    #[serde(default, rename = "node")]
    pub nodes: Vec<InventoryNode>,
}

/// A node in an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryNode {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: NodeRole,
    /// Its MSP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msp_id: Option<String>,
    /// Its directories by role; several of one role as a list.
    pub directories: BTreeMap<DirectoryRole, OneOrMany>,
    /// Nodes that it cannot start without, as `Organization/node`: a peer's CouchDB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served_by: Vec<String>,
    /// Its operations endpoint: `http://host:port` or `https://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<String>,
    /// An orderer's channel participation API, in the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participation: Option<String>,
    /// Its log file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The certificate that its endpoints want from a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientFiles>,
    /// Settings that override its configuration file, as environment variables, with paths of this machine: where keys, certificates and
    /// databases are. Never credentials.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// How to start and stop it.
    #[serde(default, skip_serializing_if = "Commands::is_empty")]
    pub commands: Commands,
}

/// Files of a TLS client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFiles {
    /// Certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// Certificates that may vouch for the endpoint, PEM; without them any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// One path or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    fn paths(&self) -> &[String] {
        match self {
            OneOrMany::One(path) => std::slice::from_ref(path),
            OneOrMany::Many(paths) => paths,
        }
    }
}

/// A node's commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// Exits with 0 when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Prints what `peer channel getinfo -c {channel}` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<String>,
    /// Prints its log since `{since}` (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Of a certificate authority with a database server: prints a dump of its database, as `pg_dump` or `mysqldump` do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<String>,
    /// Loads the dump that it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
}

impl Commands {
    fn is_empty(&self) -> bool {
        *self == Commands::default()
    }
}

impl Inventory {
    /// Reads an inventory file.
    ///
    /// # Errors
    /// [`PlatformError::Inventory`], with line and column where it does not parse.
    pub fn read(path: &Path) -> Result<Inventory, PlatformError> {
        let problem = |problem: String| PlatformError::Inventory { file: path.display().to_string(), problem };
        let metadata = std::fs::metadata(path).map_err(|error| problem(error.to_string()))?;
        if metadata.is_dir() {
            return Err(problem("it is a directory".to_owned()));
        }
        if metadata.len() > MAX_INVENTORY_BYTES {
            return Err(problem(format!("{} bytes are too large for an inventory", metadata.len())));
        }
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        toml::from_str(&text).map_err(|error| problem(error.to_string()))
    }

    /// Returns the file's text.
    ///
    /// # Errors
    /// [`PlatformError::Inventory`] when a value has no TOML form.
    pub fn to_text(&self) -> Result<String, PlatformError> {
        toml::to_string(self)
            .map(|text| format!("{INVENTORY_HEADER}{text}"))
            .map_err(|error| PlatformError::Inventory { file: "inventory".to_owned(), problem: error.to_string() })
    }

    /// Returns the network it describes; relative paths are taken from `base`.
    ///
    /// # Errors
    /// [`PlatformError::Inventory`] when two nodes have one name, or a directory is named twice.
    pub fn network(&self, base: &Path) -> Result<Network, PlatformError> {
        let problem = |problem: String| PlatformError::Inventory { file: self.network.clone(), problem };
        let mut owners = Owners::default();
        let mut named: Vec<Vec<(PathBuf, DirectoryRole)>> = Vec::new();
        for (organization, node) in self.nodes() {
            let id = NodeId { organization: organization.to_owned(), node: node.name.clone() };
            let mut directories: Vec<(PathBuf, DirectoryRole)> = Vec::new();
            for (role, paths) in &node.directories {
                directories.extend(paths.paths().iter().map(|path| (normal(&base.join(path)), *role)));
            }
            directories.sort();
            for (path, role) in &directories {
                owners
                    .add(path, &id, *role)
                    .map_err(|other| problem(format!("{} is named twice, by {other} and by {id}", path.display())))?;
            }
            named.push(directories);
        }
        let mut named = named.into_iter();
        let mut organizations = Vec::new();
        for organization in &self.organizations {
            let mut nodes: Vec<Node> = Vec::new();
            for node in &organization.nodes {
                let id = NodeId { organization: organization.name.clone(), node: node.name.clone() };
                let twice = organizations
                    .iter()
                    .flat_map(|organization: &Organization| &organization.nodes)
                    .chain(&nodes)
                    .any(|other| other.id == id);
                if twice {
                    return Err(problem(format!("two nodes are called {id}")));
                }
                let directories = owners.of_node(&id, named.next().unwrap_or_default());
                nodes.push(Node {
                    id,
                    role: node.role,
                    msp_id: node.msp_id.clone(),
                    directories,
                    workload: None,
                    served_by: node.served_by.iter().map(|name| node_id(name, &organization.name)).collect(),
                    environment: node.environment.clone(),
                });
            }
            organizations.push(Organization { name: organization.name.clone(), nodes });
        }
        let known: Vec<NodeId> =
            organizations.iter().flat_map(|organization| &organization.nodes).map(|node| node.id.clone()).collect();
        for node in organizations.iter().flat_map(|organization| &organization.nodes) {
            if let Some(unknown) = node.served_by.iter().find(|id| !known.contains(id)) {
                return Err(problem(format!(
                    "{} is served by {unknown}, which is not a node of the inventory",
                    node.id
                )));
            }
        }
        if organizations.iter().all(|organization| organization.nodes.is_empty()) {
            return Err(problem("it contains no node".to_owned()));
        }
        Ok(Network { name: self.network.clone(), organizations })
    }

    /// Returns every node with the name of its organization.
    fn nodes(&self) -> impl Iterator<Item = (&str, &InventoryNode)> {
        let organizations = self.organizations.iter();
        organizations.flat_map(|organization| organization.nodes.iter().map(|node| (organization.name.as_str(), node)))
    }
}

/// `Organization/node`, or a node of the same organization.
fn node_id(name: &str, organization: &str) -> NodeId {
    let (organization, node) = name.split_once('/').unwrap_or((organization, name));
    NodeId { organization: organization.to_owned(), node: node.to_owned() }
}

/// Returns whether several nodes may have the same directory of this role: its files are read by the nodes and written by people.
pub fn may_be_shared(role: DirectoryRole) -> bool {
    matches!(role, DirectoryRole::Msp | DirectoryRole::Tls | DirectoryRole::Config)
}

/// The nodes that name each directory.
#[derive(Default)]
struct Owners(BTreeMap<PathBuf, Vec<(NodeId, DirectoryRole)>>);

impl Owners {
    /// Adds a directory of a node.
    ///
    /// # Errors
    /// The node that has it already.
    fn add(&mut self, path: &Path, id: &NodeId, role: DirectoryRole) -> Result<(), NodeId> {
        let owners = self.0.entry(path.to_path_buf()).or_default();
        let may_not =
            |(other, of): &&(NodeId, DirectoryRole)| other == id || !may_be_shared(*of) || !may_be_shared(role);
        if let Some((other, _)) = owners.iter().find(may_not) {
            return Err(other.clone());
        }
        owners.push((id.clone(), role));
        Ok(())
    }

    /// Returns a node's directories. Where one node's lies inside another's, the outer node's does not hold it: Fabric's own defaults put an
    /// orderer into a peer's data directory. What several nodes have is a directory of its own for each of them, wherever it lies.
    fn of_node(&self, id: &NodeId, mut named: Vec<(PathBuf, DirectoryRole)>) -> Vec<NodeDirectory> {
        // Whatever lies in a directory of several nodes is apart for all of them: what each has of it is the same.
        let is_shared = |path: &PathBuf| self.0.get(path).is_some_and(|owners| owners.len() > 1);
        let in_shared = |path: &Path| path.ancestors().skip(1).map(Path::to_path_buf).any(|outer| is_shared(&outer));
        let is_apart = |path: &Path| {
            self.0.get(path).is_some_and(|owners| owners.iter().any(|(of, _)| of != id)) || in_shared(path)
        };
        // Keys that another node names inside this node's are keys of both.
        let keys = |role: DirectoryRole| matches!(role, DirectoryRole::Msp | DirectoryRole::Tls);
        let mut more: Vec<(PathBuf, DirectoryRole)> = Vec::new();
        for (path, role) in named.iter().filter(|(_, role)| keys(*role)) {
            let inside = self.0.iter().filter(|(inner, owners)| {
                *inner != path && inner.starts_with(path) && owners.iter().all(|(of, role)| of != id && keys(*role))
            });
            more.extend(inside.map(|(inner, _)| (inner.clone(), *role)));
        }
        named.extend(more);
        named.sort();
        named.dedup_by(|b, a| a.0 == b.0);
        let mut directories = nest(named, is_apart);
        for directory in &mut directories {
            let root = Path::new(&directory.path);
            let inside = |path: &Path| Some(path.strip_prefix(root).ok()?.to_str()?.to_owned());
            let others = self.0.keys().filter(|path| is_apart(path)).filter_map(|path| inside(path));
            let mut excluded: Vec<String> = Vec::new();
            // Sorted, so that the outermost of several comes first.
            for path in others.filter(|path| !path.is_empty()) {
                if !excluded.iter().any(|outer| Path::new(&path).starts_with(outer)) {
                    excluded.push(path);
                }
            }
            directory.nested.retain(|(at, _)| !excluded.iter().any(|outer| Path::new(at).starts_with(outer)));
            directory.excluded = excluded;
        }
        directories
    }
}

/// Returns a path without `.` and `..`; links are not followed.
pub fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Puts directories inside others under those: a file is captured once. `apart`: those that stay directories of their own.
fn nest(sorted: Vec<(PathBuf, DirectoryRole)>, apart: impl Fn(&Path) -> bool) -> Vec<NodeDirectory> {
    let mut out: Vec<(PathBuf, NodeDirectory)> = Vec::new();
    for (path, role) in sorted {
        // The innermost is the last one.
        let outer = out.iter_mut().rev().filter(|_| !apart(&path)).find_map(|(outer, directory)| {
            let inside = path.strip_prefix(&*outer).ok()?.to_str()?.to_owned();
            Some((directory, inside))
        });
        match outer {
            Some((directory, inside)) => directory.nested.push((inside, role)),
            None => {
                let directory = NodeDirectory::new(role, path.display().to_string());
                out.push((path, directory));
            }
        }
    }
    out.into_iter().map(|(_, directory)| directory).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn directories_inside_others_are_captured_once_and_keep_their_role() {
        let text = r#"
            network = "n"
            [[organization]]
            name = "O"
            [[organization.node]]
            name = "o1"
            role = "orderer"
            directories = { orderer-ledger = "data", orderer-wal = "data/raft/wal", msp = ["../msp"] }
        "#;
        let inventory: Inventory = toml::from_str(text).unwrap();
        let network = inventory.network(Path::new("/base/x")).unwrap();
        let node = network.nodes().next().unwrap();
        let paths: Vec<&str> = node.directories.iter().map(|directory| directory.path.as_str()).collect();
        assert_eq!(paths, ["/base/msp", "/base/x/data"]);
        assert_eq!(node.directories[1].nested, [("raft/wal".to_owned(), DirectoryRole::OrdererWal)]);
        let again: Inventory = toml::from_str(&inventory.to_text().unwrap()).unwrap();
        assert_eq!(again, inventory);
    }

    #[test]
    fn a_nodes_directory_inside_anothers_is_not_part_of_it() {
        let text = r#"
            network = "n"
            [[organization]]
            name = "O"
            [[organization.node]]
            name = "p"
            role = "peer"
            directories = { peer-data = "production" }
            served_by = ["db"]
            [[organization.node]]
            name = "o"
            role = "orderer"
            directories = { orderer-ledger = "production/orderer", orderer-wal = "production/orderer/etcdraft/wal" }
            [[organization.node]]
            name = "db"
            role = "state-database"
            directories = { state-database = "production/couch" }
            [[organization.node]]
            name = "all"
            role = "files"
            directories = { other = "." }
        "#;
        let network = toml::from_str::<Inventory>(text).unwrap().network(Path::new("/b")).unwrap();
        let excluded = |name: &str| {
            let node = network.nodes().find(|node| node.id.node == name).unwrap();
            (node.directories[0].excluded.clone(), node.directories[0].nested.len())
        };
        assert_eq!(excluded("p"), (vec!["couch".to_owned(), "orderer".to_owned()], 0));
        assert_eq!(excluded("o"), (vec![], 1));
        assert_eq!(excluded("all"), (vec!["production".to_owned()], 0));
        let peer = network.nodes().next().unwrap();
        assert_eq!(peer.served_by[0].to_string(), "O/db");
        let wrong = text.replace("[\"db\"]", "[\"none\"]");
        let error = toml::from_str::<Inventory>(&wrong).unwrap().network(Path::new("/b")).unwrap_err();
        assert!(error.to_string().contains("served by O/none"), "{error}");
    }

    #[test]
    fn a_directory_of_two_nodes_and_an_unknown_field_are_refused() {
        let node = |name: &str| {
            format!(
                "[[organization.node]]\nname = \"{name}\"\nrole = \"peer\"\ndirectories = {{ peer-data = \"d\" }}\n"
            )
        };
        let text = format!("network = \"n\"\n[[organization]]\nname = \"O\"\n{}{}", node("a"), node("b"));
        let error = toml::from_str::<Inventory>(&text).unwrap().network(Path::new("/")).unwrap_err();
        assert!(error.to_string().contains("named twice"), "{error}");
        assert!(toml::from_str::<Inventory>("network = \"n\"\nnodes = 3").is_err());
    }

    #[test]
    fn key_directories_of_several_nodes_are_directories_of_each_wherever_they_lie() {
        let text = r#"
            network = "n"
            [[organization]]
            name = "O"
            [[organization.node]]
            name = "a"
            role = "peer"
            directories = { peer-data = "a", msp = "a/msp", tls = "a/msp/tls" }
            [[organization.node]]
            name = "b"
            role = "peer"
            directories = { peer-data = "b", msp = "a/msp" }
            [[organization.node]]
            name = "c"
            role = "peer"
            directories = { peer-data = "c", msp = ["c/msp", "a/msp/keystore"] }
        "#;
        let read = |text: &str| toml::from_str::<Inventory>(text).unwrap().network(Path::new("/"));
        let network = read(text).unwrap();
        let found: Vec<Vec<String>> = network
            .nodes()
            .map(|node| {
                let show = |known: &NodeDirectory| {
                    let nested: Vec<&str> = known.nested.iter().map(|(at, _)| at.as_str()).collect();
                    format!("{} {} +{} -{}", known.role, known.path, nested.join(","), known.excluded.join(","))
                };
                node.directories.iter().map(show).collect()
            })
            .collect();
        let keys = "msp /a/msp/keystore + -".to_owned();
        let msp = "msp /a/msp + -keystore,tls".to_owned();
        assert_eq!(found[0], ["peer-data /a + -msp", msp.as_str(), keys.as_str(), "tls /a/msp/tls + -"]);
        assert_eq!(found[1], [msp.as_str(), keys.as_str(), "msp /a/msp/tls + -", "peer-data /b + -"]);
        assert_eq!(found[2], [keys.as_str(), "peer-data /c +msp -"]);
        // Not data, and not twice by one node.
        let error = read(&text.replace("peer-data = \"c\"", "peer-data = \"b\"")).unwrap_err();
        assert!(error.to_string().contains("/b is named twice, by O/b and by O/c"), "{error}");
        let error = read(&text.replace("peer-data = \"c\"", "peer-data = \"a/msp\"")).unwrap_err();
        assert!(error.to_string().contains("/a/msp is named twice"), "{error}");
        let error = read(&text.replace("\"c/msp\"", "\"c/msp\", \"c/msp\"")).unwrap_err();
        assert!(error.to_string().contains("/c/msp is named twice, by O/c and by O/c"), "{error}");
    }
}
