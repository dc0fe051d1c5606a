//! Recognises the role of a container by its custom resource, environment, command and image, in this order. Names and labels are not used:
//! one popular sample names every container `main`.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use k8s_openapi::api::core::v1::Container;

use super::command::{self, Start};
use super::configuration::ContainerView;
use super::environment::Environment;
use super::mounts::{Holder, Mount, below};
use crate::shell::base;

/// How sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// Environment and command or image agree.
    Sure,
    /// One of them is missing or unknown.
    Half,
}

/// What was recognised, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recognised {
    pub role: NodeRole,
    pub certainty: Certainty,
    pub by: String,
}

/// The image's name without registry, tag and digest.
fn image_name(container: &Container) -> String {
    let image = container.image.clone().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split(['@', ':']).next().unwrap_or_default().to_owned()
}

fn has_port(container: &Container, port: i32) -> bool {
    container.ports.iter().flatten().any(|known| known.container_port == port)
}

/// The role that an operator's custom resource gives its workload.
pub(crate) fn role_of_custom_kind(kind: &str) -> Option<NodeRole> {
    match kind {
        "FabricPeer" | "IBPPeer" => Some(NodeRole::Peer),
        "FabricOrdererNode" | "FabricOrderingService" | "IBPOrderer" => Some(NodeRole::Orderer),
        "FabricCA" | "IBPCA" => Some(NodeRole::CertificateAuthority),
        "FabricChaincode" | "IBPChaincode" => Some(NodeRole::Chaincode),
        _ => None,
    }
}

/// Whether a path leads to the identity of a person, as the samples and the deployers call its folder.
fn is_of_a_user(path: &str) -> bool {
    path.split('/').any(|part| part == "users" || part.to_lowercase().starts_with("admin"))
}

/// Parts of the names of images that work on a database server and are none.
const TOOLS_OF_SERVERS: [&str; 17] = [
    "admin",
    "adminer",
    "backup",
    "backups",
    "bouncer",
    "cli",
    "client",
    "dump",
    "exporter",
    "init",
    "metrics",
    "operator",
    "pgadmin",
    "pgbouncer",
    "prometheus",
    "proxy",
    "router",
];
/// Where the images of database servers keep their data.
const SERVER_DATA: [&str; 7] = [
    "/bitnami/couchdb",
    "/bitnami/mariadb",
    "/bitnami/mysql",
    "/bitnami/postgresql",
    "/opt/couchdb",
    "/var/lib/mysql",
    "/var/lib/postgresql",
];

/// Whether a database's image is that of its server, and not of a tool: by its name, or by where it keeps its data.
fn serves_data(container: &Container, image: &str) -> bool {
    let is_tool = image.split(['-', '_', '.']).any(|part| TOOLS_OF_SERVERS.contains(&part));
    let keeps = |path: &str| SERVER_DATA.iter().any(|data| below(path, data).is_some());
    !is_tool || container.volume_mounts.iter().flatten().any(|mount| keeps(&mount.mount_path))
}

/// The database that a server serves.
fn database_of(container: &Container, image: &str, environment: &Environment) -> Option<(NodeRole, &'static str)> {
    let any = |prefix: &str| environment.keys().any(|name| name.starts_with(prefix));
    if image.contains("couchdb") || (has_port(container, 5984) && any("COUCHDB_")) {
        return Some((NodeRole::StateDatabase, "CouchDB's image, or its port and environment"));
    }
    if image.contains("postgres") || (has_port(container, 5432) && any("POSTGRES")) {
        return Some((NodeRole::CaDatabase, "PostgreSQL's image, or its port and environment"));
    }
    let mysql = ["mysql", "mariadb"].iter().any(|name| image.contains(name))
        || (has_port(container, 3306) && (any("MYSQL_") || any("MARIADB_")));
    mysql.then_some((NodeRole::CaDatabase, "MySQL's image, or its port and environment"))
}

/// Whether a container is told that it is a chaincode.
fn has_chaincode(environment: &Environment) -> bool {
    ["CHAINCODE_SERVER_ADDRESS", "CHAINCODE_ID", "CORE_CHAINCODE_ID_NAME", "CHAINCODE_CCID"]
        .iter()
        .any(|name| environment.contains_key(*name))
}

/// Recognises a container by what it runs; `custom` is the kind of the custom resource that its workload belongs to.
pub(crate) fn recognise(
    container: &Container,
    words: &[String],
    environment: &Environment,
    custom: Option<&str>,
) -> Option<Recognised> {
    let image = image_name(container);
    let has = |name: &str| environment.contains_key(name);
    let any = |prefix: &str| environment.keys().any(|name| name.starts_with(prefix));
    let role_of_custom = custom.and_then(role_of_custom_kind);
    let start = command::start(words);
    let of_node = ["fabric-peer", "fabric-orderer", "fabric-ca"].iter().any(|name| image.contains(name));
    let wraps = matches!(start, Start::Image | Start::Script);
    let runs_image = |name: &str| image.contains(name) && wraps;
    if start == Start::Idle {
        // A node's own image with a node's environment waits until somebody starts the node in it; any other is a client's.
        let settings = has("CORE_PEER_LOCALMSPID") || has("CORE_PEER_ID") || has("ORDERER_GENERAL_LOCALMSPID");
        if !of_node || image.contains("tools") || !(settings || any("FABRIC_CA_SERVER_")) {
            return None;
        }
    }
    let data = |path: &str| path.starts_with("/var/hyperledger/production");
    let serves = container.volume_mounts.iter().flatten().any(|mount| data(&mount.mount_path))
        || has("CORE_PEER_FILESYSTEMPATH")
        || has("CORE_PEER_LISTENADDRESS")
        || ["CORE_PEER_GOSSIP_", "ORDERER_GENERAL_", "FABRIC_CA_SERVER_"].iter().any(|prefix| any(prefix));
    let user = environment.get("CORE_PEER_MSPCONFIGPATH").is_some_and(|path| is_of_a_user(path));
    let starts = matches!(start, Start::Image | Start::Node(_));
    if role_of_custom.is_none() && !serves && !starts && (start == Start::Client || user) {
        return None;
    }
    let found = |role, certainty, by: &str| {
        let certainty = if start == Start::Idle { Certainty::Half } else { certainty };
        Some(Recognised { role, certainty, by: by.to_owned() })
    };

    let peer_environment = has("CORE_PEER_LOCALMSPID") || has("CORE_PEER_ID");
    // The image's entry point may be the program.
    let bare = words.first().is_some_and(|word| word == "node") && !peer_environment && !image.contains("peer");
    let peer_command = start == Start::Node(NodeRole::Peer) && !bare;
    if role_of_custom == Some(NodeRole::Peer) && (peer_environment || peer_command) {
        return found(NodeRole::Peer, Certainty::Sure, custom.unwrap_or_default());
    }
    if peer_environment && (peer_command || image.contains("fabric-peer")) {
        return found(NodeRole::Peer, Certainty::Sure, "CORE_PEER_* and the peer's command or image");
    }
    if peer_command || runs_image("fabric-peer") {
        return found(NodeRole::Peer, Certainty::Half, "the peer's command or image, without CORE_PEER_LOCALMSPID");
    }

    let orderer_environment = has("ORDERER_GENERAL_LOCALMSPID") || has("ORDERER_GENERAL_LOCALMSPDIR");
    let orderer_command = start == Start::Node(NodeRole::Orderer);
    let names_orderer = words.iter().any(|word| base(word) == "orderer");
    if role_of_custom == Some(NodeRole::Orderer) && orderer_environment {
        return found(NodeRole::Orderer, Certainty::Sure, custom.unwrap_or_default());
    }
    if orderer_environment && (names_orderer || image.contains("fabric-orderer")) {
        return found(NodeRole::Orderer, Certainty::Sure, "ORDERER_GENERAL_* and the orderer's command or image");
    }
    if orderer_command || runs_image("fabric-orderer") {
        return found(
            NodeRole::Orderer,
            Certainty::Half,
            "the orderer's command or image, without ORDERER_GENERAL_LOCALMSPID",
        );
    }

    let ca_environment = has("FABRIC_CA_HOME") || any("FABRIC_CA_SERVER_");
    let ca_command = start == Start::Node(NodeRole::CertificateAuthority);
    let enrols = start == Start::Script && has("FABRIC_CA_CLIENT_HOME") && !ca_environment;
    let ca_image = image.contains("fabric-ca")
        && (wraps || ca_command || start == Start::Idle)
        && !image.contains("tools")
        && !enrols;
    if role_of_custom == Some(NodeRole::CertificateAuthority) && (ca_environment || ca_command) {
        return found(NodeRole::CertificateAuthority, Certainty::Sure, custom.unwrap_or_default());
    }
    if ca_environment && (ca_command || ca_image) {
        return found(NodeRole::CertificateAuthority, Certainty::Sure, "FABRIC_CA_* and the server's command or image");
    }
    if ca_command || ca_image {
        return found(
            NodeRole::CertificateAuthority,
            Certainty::Half,
            "fabric-ca's command or image, without FABRIC_CA_HOME",
        );
    }

    let database = database_of(container, &image, environment).filter(|_| serves_data(container, &image));
    if let Some((role, by)) = database {
        return found(role, Certainty::Sure, by);
    }
    if has_chaincode(environment) {
        return found(NodeRole::Chaincode, Certainty::Sure, "CHAINCODE_SERVER_ADDRESS or CHAINCODE_ID");
    }
    if role_of_custom == Some(NodeRole::Chaincode) {
        return found(NodeRole::Chaincode, Certainty::Sure, custom.unwrap_or_default());
    }
    // Nobody sets these for a client; the program itself is not known.
    if has("CORE_PEER_FILESYSTEMPATH") || (peer_environment && has("CORE_PEER_LISTENADDRESS")) {
        return found(
            NodeRole::Peer,
            Certainty::Half,
            "a peer's environment, with a command and image that are not known",
        );
    }
    if orderer_environment {
        return found(
            NodeRole::Orderer,
            Certainty::Half,
            "an orderer's environment, with a command and image that are not known",
        );
    }
    None
}

/// What a container is of which neither command nor image is known, by what it is told and by what it mounts: a node where its data is kept,
/// or a reason to think that it may be one.
fn by_evidence(looked: &ContainerView<'_>, words: &[String]) -> Result<Recognised, Option<Doubt>> {
    let image = image_name(looked.container);
    let start = command::start(words);
    let of_user = looked.get("CORE_PEER_MSPCONFIGPATH").is_some_and(is_of_a_user);
    let enrols = looked.get("FABRIC_CA_CLIENT_HOME").is_some();
    if matches!(start, Start::Idle | Start::Client) || image.contains("tools") || image.contains("ca-client") {
        return Err(None);
    }
    let any = |prefix: &str| looked.environment.keys().any(|name| name.starts_with(prefix));
    let peer = any("CORE_PEER_LOCALMSPID") || any("CORE_PEER_ID");
    let authority = any("FABRIC_CA_SERVER_") || any("FABRIC_CA_HOME");
    let mut doubt = None;
    for (role, name, told, program) in [
        (NodeRole::Peer, "core.yaml", peer && !of_user, "fabric-peer"),
        (NodeRole::Orderer, "orderer.yaml", any("ORDERER_GENERAL_LOCALMSP"), "fabric-orderer"),
        (NodeRole::CertificateAuthority, "fabric-ca-server-config.yaml", authority && !enrols, "fabric-ca"),
    ] {
        let evidence = looked.evidence(role);
        let by = match () {
            () if evidence.configured && !(of_user && role == NodeRole::Peer) => format!("a {name} that it mounts"),
            () if told => format!("the environment of one ({role})"),
            () if image.contains(program) && evidence.keeps && !enrols => {
                format!("its image, and a volume for the data of one ({role})")
            }
            () => continue,
        };
        if evidence.keeps {
            let by = format!("{by}, with a command that is not known");
            return Ok(Recognised { role, certainty: Certainty::Half, by });
        }
        doubt = doubt.or(Some(Doubt { role, by, configured: evidence.configured }));
    }
    Err(doubt)
}

/// Whether two nodes would keep their data at one place, or two of one role in one another.
fn is_same_data(a: (NodeRole, &ContainerView<'_>), b: (NodeRole, &ContainerView<'_>)) -> bool {
    let lies_in = |inner: &str, outer: &str| below(inner, outer).is_some();
    let (of_a, of_b) = (a.1.data_places(a.0), b.1.data_places(b.0));
    of_a.iter().any(|(volume, at)| {
        of_b.iter().any(|(other, there)| {
            let within = a.0 == b.0 && (lies_in(at, there) || lies_in(there, at));
            volume == other && (at == there || within)
        })
    })
}

/// Whether a container is told what a node of this role is told.
fn tells(looked: &ContainerView<'_>, role: NodeRole) -> bool {
    let prefixes: &[&str] = match role {
        NodeRole::Peer => &["CORE_PEER_LOCALMSPID", "CORE_PEER_ID"],
        NodeRole::Orderer => &["ORDERER_GENERAL_LOCALMSP"],
        _ => &["FABRIC_CA_SERVER_", "FABRIC_CA_HOME"],
    };
    let any = |prefix: &&str| looked.environment.keys().any(|name| name.starts_with(prefix));
    prefixes.iter().any(any) || looked.evidence(role).configured
}

/// Gives containers of a pod that are not known the roles that [`by_evidence`] shows, and returns which of the others may be nodes. What
/// stands beside a node and keeps nothing of its own is told the same as the node.
pub(super) fn recognise_by_evidence(
    containers: &mut [(Option<Recognised>, ContainerView<'_>)],
    words: &[Vec<String>],
) -> Vec<(usize, Doubt)> {
    let is_fabric =
        |role: NodeRole| matches!(role, NodeRole::Peer | NodeRole::Orderer | NodeRole::CertificateAuthority);
    let mut doubts = Vec::new();
    for (at, words) in words.iter().enumerate().take(containers.len()) {
        if containers[at].0.is_some() {
            continue;
        }
        let shown = by_evidence(&containers[at].1, words);
        let nodes = containers.iter().filter_map(|(found, looked)| Some((found.as_ref()?.role, looked)));
        let mut nodes = nodes.filter(|(role, _)| is_fabric(*role));
        match shown {
            Ok(node) if !nodes.any(|known| is_same_data((node.role, &containers[at].1), known)) => {
                containers[at].0 = Some(node);
            }
            // A tool beside a node is told addresses of servers and of other nodes; a configuration file it is not given.
            Err(Some(doubt)) => {
                let mut nodes = nodes.peekable();
                let own = nodes.peek().is_none() || doubt.configured;
                if own && nodes.all(|(role, node)| role != doubt.role && !tells(node, doubt.role)) {
                    doubts.push((at, doubt));
                }
            }
            _ => {}
        }
    }
    doubts
}

/// A node that a container may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    pub role: NodeRole,
    pub by: String,
    /// It has the configuration file of one.
    pub configured: bool,
}

/// Gives the role of a server that other nodes name to the container of its pod that is one: it listens at the server's port, or keeps data
/// that no recognised container has.
pub(super) fn give(role: NodeRole, containers: &mut [(Option<Recognised>, ContainerView<'_>)]) {
    if containers.iter().any(|(found, _)| found.as_ref().is_some_and(|found| found.role == role)) {
        return;
    }
    let ports: &[i32] = if role == NodeRole::StateDatabase { &[5984] } else { &[5432, 3306] };
    let lasts = |mount: &&Mount| !matches!(mount.holder, Holder::Objects(_) | Holder::Ephemeral(_));
    let volumes = |looked: &ContainerView<'_>| -> BTreeSet<String> {
        looked.mounts.iter().filter(lasts).map(|mount| mount.volume.clone()).collect()
    };
    let taken: BTreeSet<String> =
        containers.iter().filter(|(found, _)| found.is_some()).flat_map(|(_, looked)| volumes(looked)).collect();
    let evidence = |(found, looked): &(Option<Recognised>, ContainerView<'_>)| {
        let listens = ports.iter().any(|port| has_port(looked.container, *port));
        let keeps = !volumes(looked).is_subset(&taken);
        let enough = keeps || (listens && role == NodeRole::StateDatabase);
        (found.is_none() && enough).then_some((listens, keeps))
    };
    // The first of several that are alike.
    let server =
        containers.iter_mut().rev().max_by_key(|known| evidence(known)).filter(|known| evidence(known).is_some());
    if let Some((found, _)) = server {
        let by = "the address that its clients name".to_owned();
        *found = Some(Recognised { role, certainty: Certainty::Sure, by });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(image: &str, command: &[&str]) -> Container {
        Container {
            image: Some(image.to_owned()),
            command: (!command.is_empty()).then(|| command.iter().map(|word| (*word).to_owned()).collect()),
            ..Container::default()
        }
    }

    fn role(image: &str, command: &[&str], variables: &[&str]) -> Option<NodeRole> {
        let environment = variables.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let container = container(image, command);
        let words = super::super::script::read(&container, &environment, "pod", &|_| None, None).words;
        recognise(&container, &words, &environment, None).map(|found| found.role)
    }

    #[test]
    fn traps_of_the_deployers_are_not_walked_into() {
        let peer = ["CORE_PEER_LOCALMSPID", "CORE_PEER_ADDRESS"];
        assert_eq!(role("hyperledger/fabric-peer:2.5", &["peer", "node", "start"], &peer), Some(NodeRole::Peer));
        assert_eq!(role("hyperledger/fabric-peer:2.5", &[], &peer), Some(NodeRole::Peer));
        // A CLI pod carries CORE_PEER_* too.
        assert_eq!(role("hyperledger/fabric-tools:2.5", &["sleep", "infinity"], &peer), None);
        assert_eq!(role("hyperledger/fabric-tools:2.5", &["sh", "-c", "while true; do sleep 5; done"], &peer), None);
        // An operator's orderers carry FABRIC_CA_CLIENT_HOME.
        let orderer = ["ORDERER_GENERAL_LOCALMSPID", "FABRIC_CA_CLIENT_HOME"];
        assert_eq!(role("hyperledger/fabric-orderer:2.5", &["orderer"], &orderer), Some(NodeRole::Orderer));
        // A job that enrols is no server.
        assert_eq!(
            role("hyperledger/fabric-ca:1.5", &["sh", "-c", "fabric-ca-client enroll"], &["FABRIC_CA_CLIENT_HOME"]),
            None
        );
        let ca = ["FABRIC_CA_HOME"];
        assert_eq!(role("x/ca:1", &["sh", "-c", "fabric-ca-server start"], &ca), Some(NodeRole::CertificateAuthority));
        assert_eq!(role("docker.io/bitnami/postgresql:14", &[], &[]), Some(NodeRole::CaDatabase));
        assert_eq!(
            role("registry:5000/own/node@sha256:00", &["/start.sh"], &["CORE_PEER_FILESYSTEMPATH"]),
            Some(NodeRole::Peer)
        );
        assert_eq!(role("busybox", &[], &[]), None);
        // Wrapper scripts.
        assert_eq!(role("hyperledger/fabric-peer:2.5", &["/bin/sh", "/scripts/run.sh"], &peer), Some(NodeRole::Peer));
        let debug = ["/bin/bash", "-c", "peer node start || tail -f /dev/null"];
        assert_eq!(role("hyperledger/fabric-peer:2.5", &debug, &peer), Some(NodeRole::Peer));
        assert_eq!(role("x/fabric-orderer:2", &["sh", "/run.sh"], &orderer), Some(NodeRole::Orderer));
        assert_eq!(role("x/fabric-orderer:2", &["tail", "-f", "/dev/null"], &orderer), Some(NodeRole::Orderer));
        assert_eq!(role("hyperledger/fabric-peer:2.5", &["/scripts/run.sh"], &[]), Some(NodeRole::Peer));
        assert_eq!(role("hyperledger/fabric-tools:2.5", &["/bin/bash"], &peer), None);
    }
}
