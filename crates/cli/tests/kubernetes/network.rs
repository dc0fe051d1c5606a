//! The small network of real nodes' data, put on a cluster in the style of a deployer, with fake nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

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

/// The whole network: two channels, on all peers and orderers.
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

impl Node {
    /// How many nodes of these are of a kind.
    pub fn count(nodes: &[Node], kind: Kind) -> usize {
        nodes.iter().filter(|node| node.kind == kind).count()
    }
}

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

/// A Secret or ConfigMap made of files.
fn object(keyed: &Keyed) -> serde_json::Value {
    let kind = if keyed.secret { "Secret" } else { "ConfigMap" };
    let mut object = serde_json::json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": keyed.name}});
    for (key, path) in &keyed.files {
        let bytes = std::fs::read(path).unwrap();
        object["data"][key] = match keyed.secret {
            true => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            false => String::from_utf8(bytes).unwrap().into(),
        };
    }
    object
}

/// A network on the cluster.
pub struct Network<'c> {
    pub cluster: &'c Cluster,
    pub style: &'static Style,
    nodes: &'static [Node],
    /// By organization.
    pub namespaces: BTreeMap<&'static str, String>,
    folder: tempfile::TempDir,
}

impl<'c> Network<'c> {
    /// Namespaces of a test, and the network's data on this machine.
    pub fn new(cluster: &'c Cluster, style: &'static Style, test: &str) -> Self {
        Network::of(cluster, style, test, &NODES)
    }

    /// With some of the nodes only.
    pub fn of(cluster: &'c Cluster, style: &'static Style, test: &str, nodes: &'static [Node]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, folder.path()).unwrap();
        let namespaces = nodes
            .iter()
            .map(|node| (node.organization, format!("{test}-{}", node.organization.to_lowercase())))
            .collect();
        let network = Network { cluster, style, nodes, namespaces, folder };
        cluster.remove_namespaces(&network.names());
        network
    }

    pub fn names(&self) -> Vec<String> {
        self.namespaces.values().cloned().collect()
    }

    /// The network's data on this machine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn directory(&self, node: &Node) -> PathBuf {
        self.folder.path().join(node.organization).join(node.name)
    }

    /// The nodes of an organization.
    fn of_organization<'n>(&'n self, organization: &'n str) -> impl Iterator<Item = &'static Node> + 'n {
        self.nodes.iter().filter(move |node| node.organization == organization)
    }

    /// Does something for each organization and its namespace, for all at once.
    fn for_each(&self, work: impl Fn(&'static str, &str) + Sync) {
        std::thread::scope(|scope| {
            let work = &work;
            for (organization, namespace) in &self.namespaces {
                scope.spawn(move || work(organization, namespace));
            }
        });
    }

    /// Puts everything on the cluster: objects first, data into the claims, then the workloads; waits until all run.
    pub fn deploy(&self) {
        self.make_cluster_objects();
        self.for_each(|organization, namespace| {
            self.make_objects(organization, namespace);
            self.fill(organization, namespace, &[]);
            self.make_workloads(organization, namespace);
            self.cluster.wait_ready(namespace);
        });
        if self.has_postgres() {
            // What a certificate authority's server makes when it starts.
            self.psql("create table users as select g as id, md5(g::text) as token from generate_series(1, 5000) g");
            self.psql("create table affiliations (name text); create table certificates (id text)");
        }
    }

    /// Whether an authority has its identities in PostgreSQL.
    pub fn has_postgres(&self) -> bool {
        self.style.name == "raw" && self.nodes.iter().any(|node| node.organization == "Org2" && node.kind == Kind::Ca)
    }

    /// Asks that database.
    pub fn psql(&self, statement: &str) -> String {
        let script = format!(
            "PGPASSWORD=only-for-tests /usr/lib/postgresql/*/bin/psql -h 127.0.0.1 -U ca -d postgres -At -c \"{statement}\""
        );
        self.cluster.sh(&self.namespaces["Org2"], "ca-db-0", &script)
    }

    /// Brings what was written on this machine since a moment into the organizations' claims, as running nodes would have written it there.
    pub fn refill(&self, organizations: &[&str], since: std::time::SystemTime) {
        let seconds = since.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let newer = format!("--newer-mtime=@{seconds:.3}");
        self.for_each(|organization, namespace| {
            if organizations.contains(&organization) {
                self.fill(organization, namespace, &[&newer]);
            }
        });
    }

    /// The same manifests, as Helm or GitOps deploy them again: the claims are empty.
    pub fn deploy_without_data(&self) {
        self.make_cluster_objects();
        self.for_each(|organization, namespace| {
            self.make_objects(organization, namespace);
            self.make_workloads(organization, namespace);
        });
    }

    fn make_cluster_objects(&self) {
        if !self.style.cluster.is_empty() {
            self.cluster.apply("default", self.style.cluster);
        }
    }

    fn make_workloads(&self, organization: &str, namespace: &str) {
        let workloads = self.of_organization(organization).map(self.style.workload);
        self.cluster.apply(namespace, &workloads.collect::<String>());
    }

    fn make_objects(&self, organization: &str, namespace: &str) {
        let labels = serde_json::json!({"fabric.example.com/network": "small"});
        let mut objects = vec![serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}
        })];
        let mut more = (self.style.organization)(organization);
        for node in self.of_organization(organization) {
            objects.extend((self.style.objects)(node, &self.directory(node)).iter().map(object));
            more += &(self.style.claims)(node);
        }
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.kubectl(&["-n", namespace, "create", "-f", "-"], list.to_string().as_bytes());
        self.cluster.apply(namespace, &more);
    }

    /// Starts a pod with claims; a new namespace's service account may come a moment later than the namespace.
    fn start_pod(&self, namespace: &str, name: &str, claims: &[&str]) {
        let manifest = with_claims(name, claims).to_string();
        let begun = std::time::Instant::now();
        loop {
            let made = self.cluster.try_kubectl(&["-n", namespace, "create", "-f", "-"], manifest.as_bytes());
            if made.status.success() {
                break;
            }
            let problem = String::from_utf8_lossy(&made.stderr);
            assert!(begun.elapsed().as_secs() < 20 && problem.contains("serviceaccount"), "{problem}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let pod = format!("pod/{name}");
        self.cluster.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", &pod, "--timeout=240s"], &[]);
    }

    fn remove_pod(&self, namespace: &str, name: &str) {
        self.cluster.kubectl(&["-n", namespace, "delete", "pod", name, "--grace-period=0", "--force"], &[]);
    }

    /// Puts the nodes' data, as it is on this machine now, into the claims. `only`: options of tar that choose files.
    fn fill(&self, organization: &str, namespace: &str, only: &[&str]) {
        let fills: Vec<Fill> = self
            .of_organization(organization)
            .flat_map(|node| (self.style.fills)(node, &self.directory(node)))
            .collect();
        let mut claims: Vec<&str> = fills.iter().map(|fill| fill.claim.as_str()).collect();
        claims.sort_unstable();
        claims.dedup();
        if claims.is_empty() {
            return;
        }
        self.start_pod(namespace, "filler", &claims);
        for fill in &fills {
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
        self.remove_pod(namespace, "filler");
    }

    /// What must survive, by place: SHA-256 of every file of every claim (as a pod of its own sees it), every Secret's and ConfigMap's
    /// values.
    pub fn fingerprint(&self) -> BTreeMap<String, String> {
        let out = Mutex::new(BTreeMap::new());
        self.for_each(|_, namespace| {
            let objects = self.cluster.json(&["-n", namespace, "get", "secrets,configmaps,pvc"]);
            let mut found = Vec::new();
            let mut claims = Vec::new();
            for object in objects["items"].as_array().unwrap() {
                let name = object.pointer("/metadata/name").unwrap().as_str().unwrap();
                match object["kind"].as_str().unwrap() {
                    "PersistentVolumeClaim" => claims.push(name),
                    _ if name == "kube-root-ca.crt" => {}
                    kind => found.push((format!("{namespace} {kind} {name}"), object["data"].to_string())),
                }
            }
            found.extend(
                self.hashes(namespace, &claims)
                    .into_iter()
                    .map(|(path, hash)| (format!("{namespace} claim {path}"), hash)),
            );
            out.lock().unwrap().extend(found);
        });
        out.into_inner().unwrap()
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
                        assert!(!text.contains(line), "{namespace} {key} was reported");
                    }
                    assert!(coded.len() < 40 || !text.contains(&coded[..40]), "{namespace} {key} was reported");
                }
            }
        }
        assert!(looked > 10 || self.style.name == "test-network-k8s", "{looked} secret lines looked for");
    }

    /// Mode, owner, size and SHA-256 of the files in claims, by claim and path.
    fn hashes(&self, namespace: &str, claims: &[&str]) -> Vec<(String, String)> {
        if claims.is_empty() {
            return Vec::new();
        }
        self.start_pod(namespace, "looker", claims);
        let script = "cd /claims && find . -type f -printf '%m %U %G %s %p\\n' | sort -k 5 \
            && echo && { find . -type f -print0 | xargs -0 -r sha256sum || true; }";
        let listing = self.cluster.sh(namespace, "looker", script);
        self.remove_pod(namespace, "looker");
        let (heads, hashes) = listing.split_once("\n\n").unwrap_or_default();
        let hashes: BTreeMap<&str, &str> =
            hashes.lines().filter_map(|line| line.split_once("  ")).map(|(hash, path)| (path, hash)).collect();
        // A running database server removes files meanwhile.
        let placed = |line: &str| {
            let (head, path) = line.split_once(" ./").unwrap();
            let hash = hashes.get(format!("./{path}").as_str())?;
            Some((path.replacen('/', " ", 1), format!("{head} {hash}")))
        };
        heads.lines().filter_map(placed).collect()
    }

    /// Heights that the nodes tell, by node and channel.
    pub fn heights(&self) -> BTreeMap<String, String> {
        let out = Mutex::new(BTreeMap::new());
        self.for_each(|organization, namespace| {
            let pods = self.cluster.json(&["-n", namespace, "get", "pods"]);
            for pod in pods["items"].as_array().unwrap() {
                let name = pod.pointer("/metadata/name").unwrap().as_str().unwrap();
                let node = name.split('-').find(|part| part.starts_with("peer") || part.starts_with("orderer"));
                let Some(node) = node else { continue };
                let container = pod.pointer("/spec/containers/0/name").unwrap().as_str().unwrap();
                let log = self.cluster.kubectl(&["-n", namespace, "logs", name, "-c", container], &[]);
                for line in log.lines().filter(|line| line.contains("at height")) {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let channel = words.iter().find_map(|word| word.strip_prefix("channel="));
                    let channel = channel.unwrap_or(words[4]);
                    let height = words.last().unwrap().to_string();
                    out.lock().unwrap().insert(format!("{organization}/{node} {channel}"), height);
                }
            }
        });
        out.into_inner().unwrap()
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
