//! Creates an inventory. Nodes are recognised by what starts them (scripts, environment files, systemd units, compose files, containers),
//! by their configuration files, and by the layout of their data. A directory belongs to one node, and the search never stops at the first
//! match.

mod authority;
mod claims;
mod compose;
mod container;
mod docker;
mod left_over;
mod matching;
mod names;
mod node;
mod project;
mod quadlet;
mod remark;
mod run;
mod script;
mod started;
mod supervisor;
mod tree;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fabkeep_ledger::ca_config::{CA_CONFIG_FILE, FURTHER_CA_CONFIG_FILE};
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::node_settings::{Environment, PEER_CONFIG_FILE};

use super::inventory::{Inventory, InventoryNode, InventoryOrganization, OneOrMany, normal};
use crate::PlatformError;
use crate::volume::{STAGED, is_aside};
use container::{Containers, Unrecognised};
use node::Node;
use project::Given;
pub use remark::Remark;
use remark::Remarks;
use started::{Started, Unknown};
use tree::Tree;

/// An inventory, and what could not be settled.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// The inventory, with paths relative to its base.
    pub inventory: Inventory,
    /// What a person should look at.
    pub remarks: Vec<Remark>,
    /// What restores have left beside data: it is in no inventory.
    pub left: Vec<PathBuf>,
}

/// Looks for nodes below `root`. Paths in the inventory are relative to `base`.
///
/// # Errors
/// [`PlatformError`] when the root cannot be read, or no node is found.
pub fn discover(root: &Path, base: &Path) -> Result<Discovered, PlatformError> {
    let io = |source| PlatformError::Io { path: root.display().to_string(), source };
    let asked = root.canonicalize().map_err(io)?;
    if !asked.is_dir() {
        return Err(io(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    let root = whole_node(&asked);
    let mut tree = Tree::look(&root)?;
    let mut remarks = std::mem::take(&mut tree.remarks);
    if root != asked {
        remarks.push(format!(
            "{} is only a part of a node: searched below {} instead",
            asked.display(),
            root.display()
        ));
    }
    let used = |tree: &Tree| {
        let (nodes, _) = told_nodes(tree, &root, &mut Remarks::default());
        nodes.into_iter().flat_map(|node| node.directories).map(|(_, path)| path).filter(|path| path.exists()).collect()
    };
    let mut copies = claims::set_copies_apart(&mut tree, &root, used, &mut remarks);
    let (mut nodes, unrecognised) = told_nodes(&tree, &root, &mut remarks);
    claims::settle(&mut nodes, &mut remarks);
    claims::add_data(&tree, &mut nodes, &mut remarks);
    if nodes.is_empty() {
        return Err(PlatformError::Inventory {
            file: root.display().to_string(),
            problem:
                "no Fabric node was recognised below it: no core.yaml, orderer.yaml or fabric-ca-server-config.yaml, \
                      no ledgersData, no chains beside etcdraft or index"
                    .to_owned(),
        });
    }
    claims::tell_unrecognised(&unrecognised, &nodes, &mut remarks);
    let base = base.canonicalize().unwrap_or_else(|_| normal(base));
    matching::identities(&tree, &mut nodes);
    claims::one_owner_each(&mut nodes, &mut remarks);
    nodes.iter().for_each(|node| remarks.extend(also_outside(node, &root)));
    let named = names::name_all(&nodes, &root);
    matching::ask_for_identities(&tree, &nodes, &named, &base, &mut remarks);
    let served = matching::state_databases(&nodes, &named, &mut remarks);
    // What is mounted twice is kept under one of its paths.
    for (second, first) in &tree.twice {
        let all = nodes.iter().flat_map(|node| &node.directories);
        let here = all.filter_map(|(_, path)| Some(first.join(path.strip_prefix(second).ok()?)));
        copies.extend(here.collect::<Vec<_>>());
        copies.push(second.clone());
    }
    let covered = left_over::covered(&nodes, &copies, &root);
    let rest = left_over::left_over(&root, &covered, &mut remarks)?;
    for node in &mut nodes {
        remarks.extend(node.remarks.drain(..).map(|remark| remark.text));
    }
    let network = root.file_name().map_or_else(|| "network".to_owned(), |name| name.to_string_lossy().into_owned());
    let inventory = inventory(network, &nodes, &named, &served, rest, &base);
    Ok(Discovered { inventory, remarks: remarks.finish(), left: tree.left })
}

/// The nodes that files below a root start or configure, and the containers that are none and hold what a node has.
fn told_nodes(tree: &Tree, root: &Path, remarks: &mut Remarks) -> (Vec<Node>, Vec<Unrecognised>) {
    let known: Vec<PathBuf> = tree.data.iter().map(|data| data.path.clone()).collect();
    let scripts = tree
        .scripts
        .iter()
        .flat_map(|file| supervisor::read(file, root, &known).unwrap_or_else(|| script::read(file, root, &known)));
    let mut started: Vec<Started> = scripts.collect();
    started.extend(tree.units.iter().filter_map(|file| unit::read(file, root, &known)));
    started.extend(tree.quadlets.iter().filter_map(|file| quadlet::read(file, root, &known)));
    let mut containers = compose::read(&tree.compose, Given::Found, root, &known, remarks);
    // Whether docker runs here and these containers are its own is not known: commands are written by `--compose` and `--docker`.
    containers.started.iter_mut().for_each(|service| service.commands = super::Commands::default());
    started.append(&mut containers.started);
    // What a node reads or runs at its start is no node of its own.
    let read: BTreeSet<(NodeRole, PathBuf)> =
        started.iter().flat_map(|one| one.reads.iter().map(|file| (one.role, file.clone()))).collect();
    started.retain(|one| !read.contains(&(one.role, claims::real(Path::new(&one.origin)))));
    let mut nodes = started_nodes(started, root, true, remarks);
    configured_nodes(tree, root, &mut nodes, remarks);
    (nodes, containers.unrecognised)
}

/// The nodes of compose files: their containers' volumes on this machine, and the commands that start and stop them.
///
/// # Errors
/// [`PlatformError`] when a file cannot be read, or none of its services is a node.
pub fn discover_compose(files: &[PathBuf], base: &Path) -> Result<Discovered, PlatformError> {
    for file in files {
        std::fs::metadata(file).map_err(|source| PlatformError::Io { path: file.display().to_string(), source })?;
    }
    let first = files.first().map_or(Path::new("."), PathBuf::as_path);
    let absolute = std::path::absolute(first).unwrap_or_else(|_| first.to_path_buf());
    let folder = absolute.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut remarks = Remarks::default();
    // Compose takes variables of its environment before those of `.env`. The folder that fabkeep runs in is not the one that compose runs in.
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment: Environment = texts.filter(|(name, _)| name != "PWD").collect();
    let containers = compose::read(files, Given::InOrder(&environment), &folder, &[], &mut remarks);
    let name = folder.file_name().map_or_else(|| "network".to_owned(), |name| name.to_string_lossy().into_owned());
    of_containers(containers, &folder, name, base, remarks, &first.display().to_string())
}

/// The nodes of this machine's containers, running or not: what `docker inspect` says of them. `program`: docker, or what answers as it does.
///
/// # Errors
/// [`PlatformError::NotHere`] when docker cannot be asked; [`PlatformError::Inventory`] when none of its containers is a node.
pub fn discover_docker(program: &Path, base: &Path) -> Result<Discovered, PlatformError> {
    let containers = docker::containers(program)?;
    of_containers(containers, Path::new("/"), "docker".to_owned(), base, Remarks::default(), "docker")
}

fn of_containers(
    containers: Containers,
    root: &Path,
    network: String,
    base: &Path,
    mut remarks: Remarks,
    file: &str,
) -> Result<Discovered, PlatformError> {
    let mut nodes = started_nodes(containers.started, root, false, &mut remarks);
    claims::set_stopped_apart(&mut nodes, &containers.stopped, &mut remarks);
    claims::settle(&mut nodes, &mut remarks);
    if nodes.is_empty() {
        let mut problem =
            "none of its containers is a peer, an orderer, a certificate authority or a CouchDB".to_owned();
        for one in &containers.unrecognised {
            problem.push_str(&format!("; {} has what such a node has and was not recognised (K7)", one.origin));
        }
        return Err(PlatformError::Inventory { file: file.to_owned(), problem });
    }
    claims::tell_unrecognised(&containers.unrecognised, &nodes, &mut remarks);
    claims::one_owner_each(&mut nodes, &mut remarks);
    let named = names::name_all(&nodes, root);
    let served = matching::state_databases(&nodes, &named, &mut remarks);
    for node in &mut nodes {
        remarks.extend(node.remarks.drain(..).map(|remark| remark.text));
    }
    let base = base.canonicalize().unwrap_or_else(|_| normal(base));
    let inventory = inventory(network, &nodes, &named, &served, BTreeMap::new(), &base);
    Ok(Discovered { inventory, remarks: remarks.finish(), left: Vec::new() })
}

/// A root inside a node's data, or that is a node's data directory: the folder that holds the rest of the node.
fn whole_node(root: &Path) -> PathBuf {
    let data = root.ancestors().take(5).filter(|path| tree::is_data(path)).last();
    let Some(data) = data else { return root.to_path_buf() };
    let holds_rest = |folder: &&Path| {
        ["msp", "tls", "config", PEER_CONFIG_FILE, "orderer.yaml"].iter().any(|name| folder.join(name).exists())
    };
    data.parent().filter(holds_rest).unwrap_or(data).to_path_buf()
}

/// Whether a restore left this directory: data that it set aside, or was writing when it was killed.
fn is_of_a_restore(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    is_aside(&name) || name.contains(STAGED)
}

/// The directories of a node below the root that this machine has at the paths which something names too: those are another node's.
fn also_outside(node: &Node, root: &Path) -> Option<String> {
    let outside = |path: &Path| Some(Path::new("/").join(path.strip_prefix(root).ok()?));
    let twice = |path: &Path| {
        // Every machine has the root and folders like /etc and /var.
        let outside = outside(path).filter(|outside| outside.components().count() > 2)?;
        if outside.starts_with(root) || !outside.exists() {
            return None;
        }
        (path.exists() && claims::real(&outside) != claims::real(path)).then(|| outside.display().to_string())
    };
    let twice: Vec<String> = node.directories.iter().filter_map(|(_, path)| twice(path)).collect();
    let told = root != Path::new("/") && !node.by_layout && !twice.is_empty();
    told.then(|| {
        format!(
            "{}: this machine has {} as well as the disk {}: the inventory names what is on the disk; if the node uses this machine's, correct it there",
            node.origin,
            twice.join(", "),
            root.display()
        )
    })
}

/// The nodes that something starts. `only_here`: those of which nothing is on this machine are no part of what was asked for.
fn started_nodes(started: Vec<Started>, root: &Path, only_here: bool, remarks: &mut Remarks) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::new();
    // Those that a file of settings tells of, which nothing here reads.
    let mut only_told: Vec<Node> = Vec::new();
    for mut one in started {
        match one.settle_unknown() {
            Unknown::Nothing => {}
            Unknown::Data => {
                remarks.push(format!(
                    "{}: the location of the {}'s data depends on how it is started: the node is recognised by its data alone",
                    one.origin, one.role
                ));
                continue;
            }
            Unknown::Home => {
                remarks.push(format!(
                    "{}: the home of the certificate authority is not known, as nothing names it: the node is recognised by its data alone; look whether the inventory has it with all of its directories",
                    one.origin
                ));
                continue;
            }
            Unknown::Settings(names) => remarks.push(format!(
                "{}: what {} names depends on how the {} is started: it is not in the inventory; write its folder there",
                one.origin,
                names.join(", "),
                one.role
            )),
            Unknown::Options => remarks.push(format!(
                "{}: some options of the certificate authority's command are not known: a database, certificate or key that they name is not in the inventory; write its folder there",
                one.origin
            )),
        }
        let config = one.config_file(root);
        let built = match one.role {
            NodeRole::CertificateAuthority => Ok(authority::of_started(&one, root)),
            _ => node::of_started(&one, config.as_deref(), root),
        };
        match built {
            // Kept in the inventory: that its directories are missing is then found by every backup.
            Ok(node) if !one.starts && node.is_here() && !node.data().is_some_and(Path::is_dir) => only_told.push(node),
            Ok(node) if node.is_here() || !only_here || one.installed => out.push(node),
            Ok(node) if one.starts => remarks.push(format!(
                "{}: the {} that it starts has nothing on this machine and is not in the inventory",
                node.origin, node.role
            )),
            Ok(_) => {}
            Err(problem) => remarks.push(format!(
                "{}: {problem}; the node is not in the inventory",
                config.as_deref().unwrap_or(&one.folder).display()
            )),
        }
    }
    add_told(only_told, &mut out, remarks);
    out
}

/// Adds nodes of settings that nothing reads and whose data is not here. With the keys of a node that is here, it is that node as it was once.
fn add_told(told: Vec<Node>, nodes: &mut Vec<Node>, remarks: &mut Remarks) {
    let keys = |node: &Node| -> BTreeSet<PathBuf> {
        let keys = node.directories.iter().filter(|(role, _)| matches!(role, DirectoryRole::Msp | DirectoryRole::Tls));
        keys.map(|(_, path)| claims::real(path)).collect()
    };
    for node in told {
        let own = keys(&node);
        if nodes.iter().any(|other| other.role == node.role && !keys(other).is_disjoint(&own)) {
            remarks.push(format!(
                "{}: nothing reads these settings, their data is not on this machine, and another node has their keys: no node of the inventory",
                node.origin
            ));
        } else {
            nodes.push(node);
        }
    }
}

/// The nodes that configuration files tell of which nothing was seen to start.
fn configured_nodes(tree: &Tree, root: &Path, nodes: &mut Vec<Node>, remarks: &mut Remarks) {
    let used: BTreeSet<PathBuf> = nodes.iter().filter_map(|node| node.config.clone()).collect();
    for file in &tree.configs {
        let peer = file.file_name().is_some_and(|name| name.eq_ignore_ascii_case(PEER_CONFIG_FILE));
        let role = if peer { NodeRole::Peer } else { NodeRole::Orderer };
        match node::of_config(file, role, root) {
            // A file that other nodes read is one of its own only when its own data is here.
            Ok(node) if used.contains(file) => {
                let data = node.data().filter(|path| tree::is_data(path)).map(Path::to_path_buf);
                if data.is_some_and(|data| !nodes.iter().any(|known| known.data() == Some(&data))) {
                    nodes.push(node);
                }
            }
            Ok(node) if node.is_here() => nodes.push(node),
            Ok(_) => remarks.push(format!(
                "{}: nothing that it names is on this machine: it is treated as a template, not as a node of the inventory",
                file.display()
            )),
            Err(problem) => {
                remarks.push(format!("{}: {problem}; the node is not in the inventory", file.display()));
            }
        }
    }
    let mut homes = tree.authorities.clone();
    homes.sort();
    for home in homes {
        let known = nodes.iter().any(|node| {
            node.role == NodeRole::CertificateAuthority
                && node.directories.iter().any(|(role, path)| *role == DirectoryRole::CaHome && *path == home)
        });
        if !known {
            let mut started = Started::on_host(NodeRole::CertificateAuthority, &home, &home);
            let further = home.join(FURTHER_CA_CONFIG_FILE);
            let server = nodes.iter_mut().find(|node| {
                node.role == NodeRole::CertificateAuthority && node.data().is_some_and(|outer| home.starts_with(outer))
            });
            // A flag that nobody sees may have made it.
            if let Some(server) = server.filter(|_| further.is_file() && !home.join(CA_CONFIG_FILE).is_file()) {
                authority::add_further(&started, &further, root, server);
                continue;
            }
            started.environment.insert("FABRIC_CA_SERVER_HOME".to_owned(), home.display().to_string());
            nodes.push(authority::of_started(&started, root));
        }
    }
}

fn inventory(
    network: String,
    nodes: &[Node],
    named: &[(String, String)],
    served: &BTreeMap<usize, String>,
    rest: BTreeMap<String, Vec<PathBuf>>,
    base: &Path,
) -> Inventory {
    let mut organizations: BTreeMap<String, Vec<InventoryNode>> = BTreeMap::new();
    for (position, (node, (organization, name))) in nodes.iter().zip(named).enumerate() {
        let served = served.get(&position).cloned();
        organizations.entry(organization.clone()).or_default().push(inventory_node(node, name.clone(), served, base));
    }
    for (organization, paths) in rest {
        let many = paths.iter().map(|path| relative(path, base)).collect();
        organizations.entry(organization).or_default().push(InventoryNode {
            name: "files".to_owned(),
            role: NodeRole::Files,
            msp_id: None,
            directories: BTreeMap::from([(DirectoryRole::Other, OneOrMany::Many(many))]),
            served_by: Vec::new(),
            operations: None,
            participation: None,
            log: None,
            client: None,
            environment: BTreeMap::new(),
            commands: super::Commands::default(),
        });
    }
    let organizations = organizations
        .into_iter()
        .map(|(name, mut nodes)| {
            nodes.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
            InventoryOrganization { name, nodes }
        })
        .collect();
    Inventory { network, organizations }
}

fn inventory_node(node: &Node, name: String, served: Option<String>, base: &Path) -> InventoryNode {
    let mut directories: BTreeMap<DirectoryRole, OneOrMany> = BTreeMap::new();
    for (role, path) in &node.directories {
        let path = relative(path, base);
        let together = match directories.remove(role) {
            None => OneOrMany::One(path),
            Some(OneOrMany::One(first)) => OneOrMany::Many(vec![first, path]),
            Some(OneOrMany::Many(mut paths)) => {
                paths.push(path);
                OneOrMany::Many(paths)
            }
        };
        directories.insert(*role, together);
    }
    InventoryNode {
        name,
        role: node.role,
        msp_id: node.msp_id.clone(),
        directories,
        served_by: served.into_iter().collect(),
        operations: node.operations.clone(),
        participation: node.participation.clone(),
        log: None,
        client: node.client.as_ref().map(|client| super::ClientFiles {
            certificate: relative(Path::new(&client.certificate), base),
            key: relative(Path::new(&client.key), base),
            ca: None,
        }),
        environment: node.environment.clone(),
        commands: node.commands.clone(),
    }
}

fn relative(path: &Path, base: &Path) -> String {
    match path.strip_prefix(base) {
        Ok(inside) if inside.as_os_str().is_empty() => ".".to_owned(),
        Ok(inside) => inside.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}
