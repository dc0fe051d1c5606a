//! The small network of real nodes' data, put on a cluster in the style of a deployer, with stand-in nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;

use crate::cluster::Cluster;
use crate::styles::Style;

/// A node of the network, and where its real data is.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its organization's folder, as `Org1`.
    pub organization: &'static str,
    /// Its folder, as `peer0`.
    pub name: &'static str,
    pub msp: &'static str,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Peer,
    Orderer,
    Ca,
}

const fn node(organization: &'static str, name: &'static str, msp: &'static str, kind: Kind) -> Node {
    Node { organization, name, msp, kind }
}

pub const NODES: [Node; 9] = [
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

/// A Secret or ConfigMap made of files of a node.
pub struct Keyed {
    pub secret: bool,
    pub name: String,
    /// Key and file.
    pub files: Vec<(String, PathBuf)>,
}

/// A directory of a node's real data that belongs into a claim.
pub struct Fill {
    pub claim: String,
    /// Where in the claim.
    pub path: String,
    pub from: PathBuf,
}

/// A pod with claims, each mounted below `/claims`.
fn with_claims(name: &str, claims: &[&str]) -> serde_json::Value {
    let numbered = || claims.iter().enumerate();
    let volumes: Vec<serde_json::Value> = numbered()
        .map(|(i, claim)| serde_json::json!({"name": format!("v{i}"), "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let mounts: Vec<serde_json::Value> = numbered()
        .map(|(i, claim)| serde_json::json!({"name": format!("v{i}"), "mountPath": format!("/claims/{claim}")}))
        .collect();
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "volumes": volumes, "containers": [{
            "name": name, "image": "k8s.local/debian:12", "command": ["sleep", "3600"], "volumeMounts": mounts}]}
    })
}

/// A network on the cluster.
pub struct Network<'c> {
    pub cluster: &'c Cluster,
    pub style: &'static Style,
    /// By organization.
    pub namespaces: BTreeMap<&'static str, String>,
    folder: tempfile::TempDir,
}

impl<'c> Network<'c> {
    /// Namespaces of a test, and the network's data on this machine.
    pub fn new(cluster: &'c Cluster, style: &'static Style, test: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, folder.path()).unwrap();
        let namespaces = ["OrdererOrg", "Org1", "Org2"]
            .map(|organization| (organization, format!("{test}-{}", organization.to_lowercase())));
        let network = Network { cluster, style, namespaces: namespaces.into(), folder };
        cluster.remove_namespaces(&network.names());
        network
    }

    pub fn names(&self) -> Vec<String> {
        self.namespaces.values().cloned().collect()
    }

    /// The network's data on this machine.
    #[allow(dead_code)]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn directory(&self, node: &Node) -> PathBuf {
        self.folder.path().join(node.organization).join(node.name)
    }

    /// Puts everything on the cluster: objects first, data into the claims, then the workloads; waits until all run.
    pub fn deploy(&self) {
        self.make_objects();
        self.fill_all(&["OrdererOrg", "Org1", "Org2"], &[]);
        self.make_workloads();
        for namespace in self.namespaces.values() {
            self.cluster.wait_ready(namespace);
        }
    }

    /// Puts the nodes' data, as it is on this machine now, into the claims.
    fn fill_all(&self, organizations: &[&str], only: &[&str]) {
        for namespace in organizations.iter().map(|organization| &self.namespaces[organization]) {
            let fills: Vec<Fill> = NODES
                .iter()
                .filter(|node| self.of(node) == namespace)
                .flat_map(|node| (self.style.fills)(node, &self.directory(node)))
                .collect();
            self.fill(namespace, &fills, only);
        }
    }

    /// Brings what was written on this machine since a moment into the organizations' claims, as running nodes would have written it there.
    #[allow(dead_code)]
    pub fn refill(&self, organizations: &[&str], since: std::time::SystemTime) {
        let seconds = since.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        self.fill_all(organizations, &[&format!("--newer-mtime=@{seconds:.3}")]);
    }

    /// The same manifests, as Helm or GitOps deploy them again: the claims are empty.
    pub fn deploy_without_data(&self) {
        self.make_objects();
        self.make_workloads();
    }

    fn of(&self, node: &Node) -> &String {
        &self.namespaces[node.organization]
    }

    fn make_workloads(&self) {
        for node in &NODES {
            self.cluster.apply(self.of(node), &(self.style.workload)(node));
        }
    }

    fn make_objects(&self) {
        if !self.style.cluster.is_empty() {
            self.cluster.apply("default", self.style.cluster);
        }
        for (organization, namespace) in &self.namespaces {
            self.cluster.kubectl(&["create", "namespace", namespace], &[]);
            self.cluster.kubectl(&["label", "namespace", namespace, "fabric.example.com/network=small"], &[]);
            self.cluster.apply(namespace, &(self.style.organization)(organization));
        }
        for node in &NODES {
            for keyed in (self.style.objects)(node, &self.directory(node)) {
                self.make(self.of(node), &keyed);
            }
            self.cluster.apply(self.of(node), &(self.style.claims)(node));
        }
    }

    fn make(&self, namespace: &str, keyed: &Keyed) {
        let kind: &[&str] = if keyed.secret { &["secret", "generic"] } else { &["configmap"] };
        let files: Vec<String> =
            keyed.files.iter().map(|(key, path)| format!("--from-file={key}={}", path.display())).collect();
        let mut arguments = vec!["-n", namespace, "create"];
        arguments.extend(kind);
        arguments.push(&keyed.name);
        arguments.extend(files.iter().map(String::as_str));
        self.cluster.kubectl(&arguments, &[]);
    }

    fn fill(&self, namespace: &str, fills: &[Fill], only: &[&str]) {
        let mut claims: Vec<&str> = fills.iter().map(|fill| fill.claim.as_str()).collect();
        claims.sort_unstable();
        claims.dedup();
        if claims.is_empty() {
            return;
        }
        let pod = with_claims("filler", &claims);
        self.cluster.apply(namespace, &pod.to_string());
        self.cluster.wait_ready(namespace);
        for fill in fills {
            let target = format!("/claims/{}/{}", fill.claim, fill.path);
            let mut tar = Command::new("tar")
                .args(only)
                .args(["-S", "-cf", "-", "-C"])
                .arg(&fill.from)
                .arg(".")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // Files that are there already stay the same files, as when a node writes to them.
            let script = format!("mkdir -p {target} && tar -S --overwrite -xpf - -C {target}");
            let unpack = self
                .cluster
                .command(&["-n", namespace, "exec", "-i", "filler", "--", "sh", "-c", &script])
                .stdin(tar.stdout.take().unwrap())
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(tar.wait().unwrap().success() && unpack.success(), "filling {target}");
        }
        self.cluster.kubectl(&["-n", namespace, "delete", "pod", "filler", "--grace-period=0", "--force"], &[]);
    }

    /// What must survive, by place: SHA-256 of every file of every claim (as a pod of its own sees it), every Secret's and ConfigMap's
    /// values.
    pub fn fingerprint(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for namespace in self.namespaces.values() {
            for kind in ["secrets", "configmaps"] {
                let list = self.cluster.json(&["-n", namespace, "get", kind]);
                for object in list["items"].as_array().unwrap() {
                    let name = object.pointer("/metadata/name").unwrap().as_str().unwrap();
                    if object["type"] == "kubernetes.io/service-account-token" || name == "kube-root-ca.crt" {
                        continue;
                    }
                    out.insert(format!("{namespace} {kind} {name}"), object["data"].to_string());
                }
            }
            let claims = self.cluster.json(&["-n", namespace, "get", "pvc"]);
            let claims: Vec<&str> = claims["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|claim| claim.pointer("/metadata/name").unwrap().as_str().unwrap())
                .collect();
            for (claim, files) in self.hashes(namespace, &claims) {
                for (path, hash) in files {
                    out.insert(format!("{namespace} claim {claim} {path}"), hash);
                }
            }
        }
        out
    }

    /// No line of a private key and no password of a Secret is in a text, plain or as the API tells it.
    pub fn assert_no_secret_in(&self, text: &str) {
        let mut looked = 0;
        for namespace in self.namespaces.values() {
            let list = self.cluster.json(&["-n", namespace, "get", "secrets"]);
            for object in list["items"].as_array().unwrap() {
                for (key, value) in object["data"].as_object().into_iter().flatten() {
                    let coded = value.as_str().unwrap();
                    let plain = base64::engine::general_purpose::STANDARD.decode(coded).unwrap();
                    let plain = String::from_utf8_lossy(&plain).into_owned();
                    let private = plain.contains("PRIVATE KEY") || key.contains("password");
                    for line in
                        plain.lines().filter(|line| private && line.len() >= 12 && !line.contains("PRIVATE KEY"))
                    {
                        looked += 1;
                        assert!(!text.contains(line), "{namespace} {key} was told");
                    }
                    assert!(coded.len() < 40 || !text.contains(&coded[..40]), "{namespace} {key} was told");
                }
            }
        }
        assert!(looked > 10 || self.style.name == "test-network-k8s", "{looked} secret lines looked for");
    }

    /// Mode, owner and SHA-256 of the files in claims, by path.
    fn hashes(&self, namespace: &str, claims: &[&str]) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut out = BTreeMap::new();
        if claims.is_empty() {
            return out;
        }
        let pod = with_claims("looker", claims);
        self.cluster.apply(namespace, &pod.to_string());
        self.cluster.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", "pod/looker", "--timeout=120s"], &[]);
        let script = "cd /claims && find . -type f -printf '%m %U %G %s %p\\n' -exec sh -c 'sha256sum \"$1\" | cut -d\" \" -f1' x {} \\;";
        let listing = self.cluster.sh(namespace, "looker", script);
        self.cluster.kubectl(&["-n", namespace, "delete", "pod", "looker", "--grace-period=0", "--force"], &[]);
        let lines: Vec<&str> = listing.lines().collect();
        for pair in lines.chunks(2) {
            let (head, path) = pair[0].split_once(" ./").unwrap();
            let (claim, path) = path.split_once('/').unwrap();
            out.entry(claim.to_owned())
                .or_insert_with(BTreeMap::new)
                .insert(path.to_owned(), format!("{head} {}", pair[1]));
        }
        out
    }

    /// Heights that the nodes tell, by pod and channel.
    pub fn heights(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for (organization, namespace) in &self.namespaces {
            let pods = self.cluster.json(&["-n", namespace, "get", "pods"]);
            for pod in pods["items"].as_array().unwrap() {
                let name = pod.pointer("/metadata/name").unwrap().as_str().unwrap();
                let container = pod.pointer("/spec/containers/0/name").unwrap().as_str().unwrap();
                let log = self.cluster.kubectl(&["-n", namespace, "logs", name, "-c", container], &[]);
                for line in log.lines().filter(|line| line.contains("at height")) {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let channel = words.iter().find_map(|word| word.strip_prefix("channel="));
                    let channel = channel.unwrap_or(words[4]);
                    let node = name.split('-').find(|part| part.starts_with("peer") || part.starts_with("orderer"));
                    let node = node.unwrap_or(name);
                    out.insert(format!("{organization}/{node} {channel}"), words.last().unwrap().to_string());
                }
            }
        }
        out
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        if std::env::var_os("FABKEEP_TEST_KEEP").is_none() {
            let mut arguments = vec!["delete", "namespace", "--ignore-not-found", "--wait=false"];
            let names = self.names();
            arguments.extend(names.iter().map(String::as_str));
            let _ = self.cluster.try_kubectl(&arguments, &[]);
        }
    }
}
