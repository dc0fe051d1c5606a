//! Writing a first inventory: nodes recognised by their configuration files, else by the layout of their data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use serde_norway::Value;

use super::inventory::{Inventory, InventoryNode, InventoryOrganization, OneOrMany, normal};
use crate::PlatformError;

/// Deepest directory looked at below the root.
const MAX_DEPTH: usize = 8;
/// Longest configuration file read, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// An inventory, and what could not be settled.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// The inventory, with paths relative to its base.
    pub inventory: Inventory,
    /// What a person should look at.
    pub remarks: Vec<String>,
}

struct Found {
    role: NodeRole,
    /// The node's own directory: its name is the node's, its parent's the organization's.
    home: PathBuf,
    msp_id: Option<String>,
    directories: Vec<(DirectoryRole, PathBuf)>,
    served: Served,
}

/// Where a node can be asked, as its configuration says.
#[derive(Default)]
struct Served {
    operations: Option<String>,
    participation: Option<String>,
    /// Certificate and key of its own, where an endpoint wants a client's.
    client: Option<(PathBuf, PathBuf)>,
}

/// Looks for nodes below `root`. Paths in the inventory are relative to `base`.
///
/// # Errors
/// [`PlatformError`] when a directory cannot be read, or no node is found.
pub fn discover(root: &Path, base: &Path) -> Result<Discovered, PlatformError> {
    let io = |source| PlatformError::Io { path: root.display().to_string(), source };
    let root = root.canonicalize().map_err(io)?;
    if !root.is_dir() {
        return Err(io(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    let mut remarks = Vec::new();
    let mut found = Vec::new();
    look(&root, 0, &mut found, &mut remarks)?;
    drop_data_of_configured(&mut found);
    if found.is_empty() {
        return Err(PlatformError::Inventory {
            file: root.display().to_string(),
            problem:
                "no Fabric node was recognised below it: no core.yaml, orderer.yaml or fabric-ca-server-config.yaml, \
                      no ledgersData, no chains beside etcdraft or index"
                    .to_owned(),
        });
    }
    let mut organizations: BTreeMap<String, Vec<InventoryNode>> = BTreeMap::new();
    let base = base.canonicalize().unwrap_or_else(|_| normal(base));
    let mut covered: BTreeSet<PathBuf> = BTreeSet::new();
    for node in &found {
        covered.extend(node.directories.iter().map(|(_, path)| path.clone()));
        let (organization, name) = names(&root, &node.home);
        organizations.entry(organization).or_default().push(inventory_node(node, name, &base));
    }
    for (organization, paths) in left_over(&root, &covered, &mut remarks)? {
        let many = paths.iter().map(|path| relative(path, &base)).collect();
        organizations.entry(organization).or_default().push(InventoryNode {
            name: "files".to_owned(),
            role: NodeRole::Files,
            msp_id: None,
            directories: BTreeMap::from([(DirectoryRole::Other, OneOrMany::Many(many))]),
            operations: None,
            participation: None,
            log: None,
            client: None,
            commands: super::Commands::default(),
        });
    }
    let network = root.file_name().map_or_else(|| "network".to_owned(), |name| name.to_string_lossy().into_owned());
    let organizations = organizations
        .into_iter()
        .map(|(name, mut nodes)| {
            nodes.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
            InventoryOrganization { name, nodes }
        })
        .collect();
    Ok(Discovered { inventory: Inventory { network, organizations }, remarks })
}

/// Whether a restore left this directory: data that it set aside, or was writing when it was killed.
fn is_of_a_restore(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let point = |marker: &str| {
        let rest = name.split_once(marker).map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('T'))
    };
    point(".before-") || point(".fabkeep-restore-")
}

fn look(
    directory: &Path,
    depth: usize,
    found: &mut Vec<Found>,
    remarks: &mut Vec<String>,
) -> Result<(), PlatformError> {
    let io = |source| PlatformError::Io { path: directory.display().to_string(), source };
    let mut children = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        // Links are not followed: a network linked twice would be captured twice.
        let path = entry.path();
        if is_of_a_restore(&path) {
            remarks.push(format!("{} was left by a restore and is not in the inventory", path.display()));
        } else if entry.file_type().map_err(io)?.is_dir() {
            children.push(path);
        }
    }
    children.sort();
    let has = |name: &str| directory.join(name).exists();
    if has("core.yaml") {
        found.extend(configured(directory, "core.yaml", remarks));
    }
    if has("orderer.yaml") {
        found.extend(configured(directory, "orderer.yaml", remarks));
    }
    if has("fabric-ca-server-config.yaml") {
        found.push(Found {
            role: NodeRole::CertificateAuthority,
            home: directory.to_path_buf(),
            msp_id: None,
            directories: vec![(DirectoryRole::CaHome, directory.to_path_buf())],
            served: Served::default(),
        });
        return Ok(());
    }
    let data = |role, kind| Found {
        role,
        home: directory.parent().unwrap_or(directory).to_path_buf(),
        msp_id: None,
        directories: vec![(kind, directory.to_path_buf())],
        served: Served::default(),
    };
    if has("ledgersData") {
        found.push(data(NodeRole::Peer, DirectoryRole::PeerData));
        return Ok(());
    }
    if has("chains") && (has("etcdraft") || has("index") || has("pendingops")) {
        found.push(data(NodeRole::Orderer, DirectoryRole::OrdererLedger));
        return Ok(());
    }
    if depth < MAX_DEPTH {
        for child in children {
            look(&child, depth + 1, found, remarks)?;
        }
    }
    Ok(())
}

/// Data directories that a configuration file names belong to its node; only the others stand for themselves.
fn drop_data_of_configured(found: &mut Vec<Found>) {
    let named: BTreeSet<PathBuf> = found
        .iter()
        .filter(|node| node.directories.iter().any(|(role, _)| *role == DirectoryRole::Config))
        .flat_map(|node| node.directories.iter().map(|(_, path)| path.clone()))
        .collect();
    found.retain(|node| {
        let configured = node.directories.iter().any(|(role, _)| *role == DirectoryRole::Config);
        configured || !node.directories.iter().all(|(_, path)| named.contains(path))
    });
}

/// A value of a configuration file. Fabric reads its configuration without regard to case.
pub(crate) fn value_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| {
        value
            .as_mapping()?
            .iter()
            .find(|(name, _)| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(key)))
            .map(|(_, value)| value)
    })
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    value_at(value, path)?.as_str()
}

fn configured(directory: &Path, file: &str, remarks: &mut Vec<String>) -> Option<Found> {
    let path = directory.join(file);
    let text = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() <= MAX_CONFIG_BYTES => std::fs::read_to_string(&path).ok()?,
        _ => return None,
    };
    let yaml: Value = match serde_norway::from_str(&text) {
        Ok(yaml) => yaml,
        Err(error) => {
            remarks
                .push(format!("{}: not readable as YAML ({error}); the node is not in the inventory", path.display()));
            return None;
        }
    };
    let peer = file == "core.yaml";
    let home = match directory.file_name().and_then(|name| name.to_str()) {
        Some("config" | "conf" | "etc") => directory.parent().unwrap_or(directory).to_path_buf(),
        _ => directory.to_path_buf(),
    };
    // A path of the container that the node runs in is not one of this machine: then the node's own folder is tried.
    let resolve = |named: Option<&str>, usual: &[&str]| -> Option<PathBuf> {
        let named = named.map(|named| normal(&directory.join(named)));
        let usual = usual.iter().map(|usual| home.join(usual));
        named.clone().into_iter().chain(usual).find(|path| path.is_dir())
    };
    let mut directories = vec![(DirectoryRole::Config, directory.to_path_buf())];
    let mut add = |role, path: Option<PathBuf>, what: &str| match path {
        Some(path) => directories.push((role, path)),
        None => remarks.push(format!("{}: its {what} was not found here; name it in the inventory", path_of(&home))),
    };
    let parent = |file: Option<&str>| -> Option<String> {
        file.and_then(|file| Path::new(file).parent()).map(|path| path.display().to_string())
    };
    if peer {
        add(
            DirectoryRole::PeerData,
            resolve(at(&yaml, &["peer", "fileSystemPath"]), &["production", "data"]),
            "data directory (peer.fileSystemPath)",
        );
        add(
            DirectoryRole::Msp,
            resolve(at(&yaml, &["peer", "mspConfigPath"]), &["msp"]),
            "MSP directory (peer.mspConfigPath)",
        );
        let tls = parent(at(&yaml, &["peer", "tls", "cert", "file"]));
        add(DirectoryRole::Tls, resolve(tls.as_deref(), &["tls"]), "TLS directory (peer.tls.cert.file)");
    } else {
        let ledger = resolve(at(&yaml, &["FileLedger", "Location"]), &["production", "data"]);
        add(DirectoryRole::OrdererLedger, ledger, "ledger directory (FileLedger.Location)");
        add(
            DirectoryRole::Msp,
            resolve(at(&yaml, &["General", "LocalMSPDir"]), &["msp"]),
            "MSP directory (General.LocalMSPDir)",
        );
        let tls = parent(at(&yaml, &["General", "TLS", "Certificate"]));
        add(DirectoryRole::Tls, resolve(tls.as_deref(), &["tls"]), "TLS directory (General.TLS.Certificate)");
        let wal = resolve(at(&yaml, &["Consensus", "WALDir"]), &["production/etcdraft/wal", "etcdraft/wal"]);
        let snapshots =
            resolve(at(&yaml, &["Consensus", "SnapDir"]), &["production/etcdraft/snapshot", "etcdraft/snapshot"]);
        // One directory may serve both.
        if snapshots.is_some() && snapshots != wal {
            directories.extend(snapshots.map(|path| (DirectoryRole::OrdererSnapshots, path)));
        }
        directories.extend(wal.map(|path| (DirectoryRole::OrdererWal, path)));
    }
    let msp_id = if peer { at(&yaml, &["peer", "localMspId"]) } else { at(&yaml, &["General", "LocalMSPID"]) };
    Some(Found {
        role: if peer { NodeRole::Peer } else { NodeRole::Orderer },
        home,
        msp_id: msp_id.map(str::to_owned),
        directories,
        served: served(&yaml, peer, directory),
    })
}

/// Endpoints in a node's configuration.
fn served(yaml: &Value, peer: bool, directory: &Path) -> Served {
    let enabled = |path: &[&str]| value_at(yaml, path).and_then(Value::as_bool).unwrap_or(false);
    let url = |address: Option<&str>, tls: bool| {
        // Port 0 is any port: nobody can ask there.
        let (host, port) =
            address?.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))?;
        let host = if matches!(host, "" | "0.0.0.0" | "[::]") { "127.0.0.1" } else { host };
        Some(format!("{}://{host}:{port}", if tls { "https" } else { "http" }))
    };
    let operations = url(at(yaml, &["operations", "listenAddress"]), enabled(&["operations", "tls", "enabled"]));
    if peer {
        return Served { operations, ..Served::default() };
    }
    let participation = enabled(&["ChannelParticipation", "Enabled"])
        .then(|| url(at(yaml, &["Admin", "ListenAddress"]), enabled(&["Admin", "TLS", "Enabled"])))
        .flatten();
    let file = |path: &[&str]| at(yaml, path).map(|path| normal(&directory.join(path))).filter(|path| path.is_file());
    let client = file(&["Admin", "TLS", "Certificate"]).zip(file(&["Admin", "TLS", "PrivateKey"]));
    Served { operations, client: client.filter(|_| participation.is_some()), participation }
}

fn path_of(path: &Path) -> String {
    path.display().to_string()
}

/// A node's organization and name: the last two parts of its path, as far as they lie below the root.
fn names(root: &Path, home: &Path) -> (String, String) {
    let parts: Vec<String> = home
        .strip_prefix(root)
        .map(|path| path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    match parts.as_slice() {
        [] => ("network".to_owned(), "node".to_owned()),
        [node] => ("network".to_owned(), node.clone()),
        [organization, .., node] => {
            // crypto-config style: peerOrganizations/org1.example.com/peers/peer0.org1.example.com
            let kinds = ["peerOrganizations", "ordererOrganizations"];
            let organization = if kinds.contains(&organization.as_str()) { &parts[1] } else { organization };
            (organization.clone(), node.clone())
        }
    }
}

fn inventory_node(node: &Found, name: String, base: &Path) -> InventoryNode {
    let mut directories: BTreeMap<DirectoryRole, OneOrMany> = BTreeMap::new();
    for (role, path) in &node.directories {
        directories.insert(*role, OneOrMany::One(relative(path, base)));
    }
    InventoryNode {
        name,
        role: node.role,
        msp_id: node.msp_id.clone(),
        directories,
        operations: node.served.operations.clone(),
        participation: node.served.participation.clone(),
        log: None,
        client: node.served.client.as_ref().map(|(certificate, key)| super::ClientFiles {
            certificate: relative(certificate, base),
            key: relative(key, base),
            ca: None,
        }),
        commands: super::Commands::default(),
    }
}

fn relative(path: &Path, base: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).display().to_string()
}

/// Directories below the root that belong to no node, by organization: administrators' identities, channel artifacts, chaincode.
fn left_over(
    root: &Path,
    covered: &BTreeSet<PathBuf>,
    remarks: &mut Vec<String>,
) -> Result<BTreeMap<String, Vec<PathBuf>>, PlatformError> {
    let mut out: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    collect_left_over(root, covered, remarks, &mut |path| {
        let below = path.strip_prefix(root).map(|path| path.components().count()).unwrap_or(0);
        let organization = match (below, path.parent().and_then(Path::file_name)) {
            (2.., Some(parent)) => parent.to_string_lossy().into_owned(),
            _ => "network".to_owned(),
        };
        out.entry(organization).or_default().push(path);
    })?;
    Ok(out)
}

fn collect_left_over(
    directory: &Path,
    covered: &BTreeSet<PathBuf>,
    remarks: &mut Vec<String>,
    add: &mut dyn FnMut(PathBuf),
) -> Result<(), PlatformError> {
    let io = |source| PlatformError::Io { path: directory.display().to_string(), source };
    let mut children: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            children.push(entry.path());
        } else if entry.file_name() != "fabkeep.toml" {
            let path = entry.path();
            remarks.push(format!("{} lies in no node's directory and is not in the inventory", path.display()));
        }
    }
    children.sort();
    for child in children {
        if covered.contains(&child) || is_of_a_restore(&child) {
            continue;
        }
        if covered.iter().any(|path| path.starts_with(&child)) {
            collect_left_over(&child, covered, remarks, add)?;
        } else {
            add(child);
        }
    }
    Ok(())
}
