//! Networks with the data of real nodes on the cluster, in a simple layout: a namespace for each organization, a Deployment and a claim for each
//! node, its MSP and TLS files in Secrets, its configuration in a ConfigMap.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use base64::Engine;
use serde_json::{Map, Value, json};

use crate::cluster::Cluster;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A peer.
    Peer,
    /// An orderer.
    Orderer,
    /// A certificate authority with its database in a file.
    Ca,
}

/// A node of an unpacked network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its organization's folder, as `Org1`.
    pub organization: &'static str,
    /// Its folder, as `peer0`.
    pub name: &'static str,
    /// Its MSP.
    pub msp: &'static str,
    /// What it is.
    pub kind: Kind,
}

const fn node(organization: &'static str, name: &'static str, msp: &'static str, kind: Kind) -> Node {
    Node { organization, name, msp, kind }
}

/// All nodes of the small network.
pub const SMALL: [Node; 9] = [
    node("OrdererOrg", "orderer1", "OrdererMSP", Kind::Orderer),
    node("OrdererOrg", "orderer2", "OrdererMSP", Kind::Orderer),
    node("OrdererOrg", "orderer3", "OrdererMSP", Kind::Orderer),
    node("Org1", "peer0", "Org1MSP", Kind::Peer),
    node("Org1", "peer1", "Org1MSP", Kind::Peer),
    node("Org1", "ca", "Org1MSP", Kind::Ca),
    node("Org2", "peer0", "Org2MSP", Kind::Peer),
    node("Org2", "peer1", "Org2MSP", Kind::Peer),
    node("Org2", "ca", "Org2MSP", Kind::Ca),
];

/// Two peers and an orderer of the small network.
pub const THREE_NODES: [Node; 3] = [SMALL[3], SMALL[4], SMALL[0]];

impl Node {
    /// Returns its namespace, as `org1`.
    pub fn namespace(&self) -> String {
        self.organization.to_lowercase()
    }

    /// Returns its claim, as `peer0-data`.
    pub fn claim(&self) -> String {
        format!("{}-data", self.name)
    }

    /// Returns its own folder in an unpacked network.
    pub fn folder(&self, network: &Path) -> PathBuf {
        network.join(self.organization).join(self.name)
    }

    /// Returns where its container sees its data.
    pub fn data_path(&self) -> &'static str {
        match self.kind {
            Kind::Peer => "/var/hyperledger/production",
            Kind::Orderer => "/var/hyperledger/production/orderer",
            Kind::Ca => "/etc/hyperledger/fabric-ca-server",
        }
    }

    /// Returns what of its folder belongs into its claim.
    pub fn data(&self, network: &Path) -> PathBuf {
        match self.kind {
            Kind::Ca => self.folder(network),
            _ => self.folder(network).join("production"),
        }
    }
}

/// Returns the namespaces of nodes.
pub fn namespaces(nodes: &[Node]) -> Vec<String> {
    let mut out: Vec<String> = nodes.iter().map(Node::namespace).collect();
    out.sort_unstable();
    out.dedup();
    out
}

/// Puts nodes with their keys and data on the cluster.
pub fn deploy(cluster: &Cluster, network: &Path, nodes: &[Node]) {
    deploy_without_data(cluster, network, nodes);
    nodes.iter().for_each(|node| fill(cluster, network, node));
}

/// Puts nodes on the cluster as Helm or GitOps would: with their keys, their claims empty.
pub fn deploy_without_data(cluster: &Cluster, network: &Path, nodes: &[Node]) {
    for namespace in namespaces(nodes) {
        if cluster.get("Namespace", "", &namespace).is_none() {
            cluster.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
        }
    }
    for node in nodes {
        objects(network, node).into_iter().for_each(|object| cluster.put(object));
    }
}

/// Answers at the nodes' operations endpoints: healthy, and as high as the block files in their claims are. Every orderer says that it
/// leads. An endpoint answers while its pod runs.
pub fn serve_operations(cluster: &Cluster, nodes: &[Node]) {
    let nodes = nodes.to_vec();
    cluster.answer_http(move |cluster, get| {
        let of_it = |node: &&Node| node.namespace() == get.namespace && get.pod.starts_with(&format!("{}-", node.name));
        let node = nodes.iter().find(of_it)?;
        if get.path != "/metrics" {
            return Some((200, "{\"status\":\"OK\"}".to_owned()));
        }
        let mut out = String::new();
        for (channel, height) in heights(cluster, node) {
            out += &format!("ledger_blockchain_height{{channel=\"{channel}\"}} {height}\n");
            if node.kind == Kind::Orderer {
                out += &format!("consensus_etcdraft_is_leader{{channel=\"{channel}\"}} 1\n");
                out += &format!("participation_consensus_relation{{channel=\"{channel}\"}} 1\n");
                out += &format!("participation_status{{channel=\"{channel}\"}} 1\n");
            }
        }
        Some((200, out))
    });
}

/// Returns the heights of the chains in a node's claim, by channel; what cannot be read is left out.
pub fn heights(cluster: &Cluster, node: &Node) -> BTreeMap<String, u64> {
    let data = cluster.volume(&node.namespace(), &node.claim());
    let chains = match node.kind {
        Kind::Peer => data.join("ledgersData/chains/chains"),
        Kind::Orderer => data.join("chains"),
        Kind::Ca => return BTreeMap::new(),
    };
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(chains).into_iter().flatten().filter_map(Result::ok) {
        let walk = fabkeep_ledger::chain::walk_directory(&entry.path(), 1, &AtomicU64::new(0));
        if let Some(tip) = walk.ok().and_then(|walk| walk.tip) {
            out.insert(entry.file_name().to_string_lossy().into_owned(), tip.height);
        }
    }
    out
}

/// Copies a node's data into its claim; what is there is removed first.
pub fn fill(cluster: &Cluster, network: &Path, node: &Node) {
    let to = cluster.volume(&node.namespace(), &node.claim());
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).unwrap();
    let from = node.data(network);
    let done = std::process::Command::new("cp").arg("-a").arg("--sparse=always").arg(from.join(".")).arg(&to).status();
    assert!(done.unwrap().success(), "copying {}", from.display());
}

/// Returns the manifests of a node: Secrets, ConfigMap, claim, Service, Deployment.
pub fn objects(network: &Path, node: &Node) -> Vec<Value> {
    let (name, namespace, folder) = (node.name, node.namespace(), node.folder(network));
    let object = |api: &str, kind: &str, name: String, rest: Value| {
        let mut out = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}});
        if let (Some(out), Value::Object(rest)) = (out.as_object_mut(), rest) {
            out.extend(rest);
        }
        out
    };
    let mut out = Vec::new();
    if node.kind != Kind::Ca {
        let msp = folder.join("msp");
        let msp = [
            ("cert.pem", only(&msp.join("signcerts"))),
            ("key.pem", only(&msp.join("keystore"))),
            ("ca.pem", only(&msp.join("cacerts"))),
            ("tlsca.pem", only(&msp.join("tlscacerts"))),
            ("config.yaml", msp.join("config.yaml")),
        ];
        let tls = ["server.crt", "server.key", "ca.crt"].map(|file| (file, folder.join("tls").join(file)));
        out.push(object("v1", "Secret", format!("{name}-msp"), json!({"type": "Opaque", "data": values(&msp)})));
        out.push(object("v1", "Secret", format!("{name}-tls"), json!({"type": "Opaque", "data": values(&tls)})));
        let file = if node.kind == Kind::Peer { "core.yaml" } else { "orderer.yaml" };
        let text = fs::read_to_string(folder.join("config").join(file)).unwrap();
        out.push(object("v1", "ConfigMap", format!("{name}-config"), json!({"data": {file: text}})));
    }
    out.push(object(
        "v1",
        "PersistentVolumeClaim",
        node.claim(),
        json!({"spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "standard", "resources": {"requests": {"storage": "1Gi"}}}}),
    ));
    let port = match node.kind {
        Kind::Peer => 7051,
        Kind::Orderer => 7050,
        Kind::Ca => 7054,
    };
    out.push(object(
        "v1",
        "Service",
        name.to_owned(),
        json!({"spec": {"selector": {"app": name}, "ports": [{"name": "grpc", "port": port}]}}),
    ));
    out.push(object(
        "apps/v1",
        "Deployment",
        name.to_owned(),
        json!({"spec": {"replicas": 1, "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod(node)}}}),
    ));
    out
}

/// Returns the pod of a node.
fn pod(node: &Node) -> Value {
    let name = node.name;
    let (prefix, image, program, environment): (_, _, &[&str], Vec<(&str, String)>) = match node.kind {
        Kind::Peer => (
            "peer",
            "hyperledger/fabric-peer:2.5",
            &["peer", "node", "start"],
            vec![
                ("CORE_PEER_ID", name.to_owned()),
                ("CORE_PEER_LOCALMSPID", node.msp.to_owned()),
                ("CORE_PEER_FILESYSTEMPATH", node.data_path().to_owned()),
                ("CORE_PEER_MSPCONFIGPATH", "/etc/hyperledger/msp".to_owned()),
                ("CORE_PEER_TLS_ENABLED", "true".to_owned()),
                ("CORE_PEER_TLS_CERT_FILE", "/etc/hyperledger/tls/server.crt".to_owned()),
                ("CORE_PEER_TLS_KEY_FILE", "/etc/hyperledger/tls/server.key".to_owned()),
                ("CORE_PEER_TLS_ROOTCERT_FILE", "/etc/hyperledger/tls/ca.crt".to_owned()),
            ],
        ),
        Kind::Orderer => (
            "orderer",
            "hyperledger/fabric-orderer:2.5",
            &["orderer"],
            vec![
                ("ORDERER_GENERAL_LOCALMSPID", node.msp.to_owned()),
                ("ORDERER_GENERAL_LOCALMSPDIR", "/etc/hyperledger/msp".to_owned()),
                ("ORDERER_GENERAL_TLS_ENABLED", "true".to_owned()),
                ("ORDERER_GENERAL_TLS_CERTIFICATE", "/etc/hyperledger/tls/server.crt".to_owned()),
                ("ORDERER_GENERAL_TLS_PRIVATEKEY", "/etc/hyperledger/tls/server.key".to_owned()),
                ("ORDERER_FILELEDGER_LOCATION", node.data_path().to_owned()),
                ("ORDERER_CONSENSUS_WALDIR", format!("{}/etcdraft/wal", node.data_path())),
                ("ORDERER_CONSENSUS_SNAPDIR", format!("{}/etcdraft/snapshot", node.data_path())),
            ],
        ),
        Kind::Ca => (
            "ca",
            "hyperledger/fabric-ca:1.5",
            &["fabric-ca-server", "start"],
            vec![("FABRIC_CA_SERVER_HOME", node.data_path().to_owned())],
        ),
    };
    let environment: Vec<Value> =
        environment.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let mut mounts = vec![json!({"name": "data", "mountPath": node.data_path()})];
    let mut volumes = vec![json!({"name": "data", "persistentVolumeClaim": {"claimName": node.claim()}})];
    if node.kind != Kind::Ca {
        let file = if node.kind == Kind::Peer { "core.yaml" } else { "orderer.yaml" };
        let items = [
            ("cert.pem", "signcerts/cert.pem"),
            ("key.pem", "keystore/key.pem"),
            ("ca.pem", "cacerts/ca.pem"),
            ("tlsca.pem", "tlscacerts/tlsca.pem"),
            ("config.yaml", "config.yaml"),
        ]
        .map(|(key, path)| json!({"key": key, "path": path}));
        mounts.push(json!({"name": "msp", "mountPath": "/etc/hyperledger/msp"}));
        mounts.push(json!({"name": "tls", "mountPath": "/etc/hyperledger/tls"}));
        mounts.push(json!({"name": "config", "mountPath": format!("/etc/hyperledger/fabric/{file}"), "subPath": file}));
        volumes.push(json!({"name": "msp", "secret": {"secretName": format!("{name}-msp"), "items": items}}));
        volumes.push(json!({"name": "tls", "secret": {"secretName": format!("{name}-tls")}}));
        volumes.push(json!({"name": "config", "configMap": {"name": format!("{name}-config")}}));
    }
    json!({"containers": [{"name": prefix, "image": image, "command": program, "env": environment, "volumeMounts": mounts}], "volumes": volumes})
}

fn values(files: &[(&str, PathBuf)]) -> Map<String, Value> {
    let coded = |path: &PathBuf| base64::engine::general_purpose::STANDARD.encode(fs::read(path).unwrap());
    files.iter().map(|(key, path)| ((*key).to_owned(), coded(path).into())).collect()
}

/// Returns the one file of a folder.
fn only(folder: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.into_iter().next().unwrap_or_else(|| panic!("{} is empty", folder.display()))
}
