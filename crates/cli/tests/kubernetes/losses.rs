//! What is lost comes back, and only that: a claim, a node, an organization, the data of a network whose manifests are deployed again.
//! All of it with exactly the rights that `docs/kubernetes.md` gives.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Output;

use crate::cluster::Cluster;
use crate::network::Network;
use crate::run::{Place, succeeded};
use crate::styles;
use crate::whole::{assert_same, needed};

/// The roles of the documentation, with a test's name before theirs.
fn roles(test: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubernetes.md")).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let blocks: Vec<String> = blocks.filter(|block| block.contains("\nkind: ClusterRole\n")).collect();
    assert_eq!(blocks.len(), 5);
    blocks.iter().map(|block| block.replace("name: fabkeep-", &format!("name: {test}-fabkeep-"))).collect()
}

/// Service accounts with the documented roles, in a namespace of their own. What they are, the test's name says.
pub struct Accounts<'c> {
    cluster: &'c Cluster,
    test: &'static str,
    namespace: String,
}

impl<'c> Accounts<'c> {
    pub fn new(cluster: &'c Cluster, test: &'static str) -> Self {
        let accounts = Accounts { cluster, test, namespace: format!("{test}-accounts") };
        accounts.remove();
        let namespace = &accounts.namespace;
        cluster.remove_namespaces(std::slice::from_ref(namespace));
        cluster.kubectl(&["create", "namespace", namespace], &[]);
        cluster.apply(namespace, &roles(test).join("---\n"));
        for account in ["backup", "restore"] {
            cluster.kubectl(&["-n", namespace, "create", "serviceaccount", account], &[]);
        }
        accounts
    }

    fn remove(&self) {
        let named = |name: &str| format!("{}-{name}", self.test);
        let bindings = ["backup-fabkeep-snapshot", "restore-fabkeep-backup", "restore-fabkeep-restore"].map(named);
        let roles = ["fabkeep-backup", "fabkeep-window", "fabkeep-snapshot", "fabkeep-restore"].map(named);
        for (kind, names) in [("clusterrolebinding", &bindings[..]), ("clusterrole", &roles[..])] {
            let mut arguments = vec!["delete", kind, "--ignore-not-found"];
            arguments.extend(names.iter().map(String::as_str));
            let _ = self.cluster.try_kubectl(&arguments, &[]);
        }
        let arguments = ["delete", "namespace", &self.namespace, "--ignore-not-found", "--wait=false"];
        let _ = self.cluster.try_kubectl(&arguments, &[]);
    }

    fn binding(&self, account: &str, role: &str) -> [String; 3] {
        let subject = format!("--serviceaccount={}:{account}", self.namespace);
        [format!("{}-{account}-{role}", self.test), format!("--clusterrole={}-{role}", self.test), subject]
    }

    /// Binds a role in a namespace.
    pub fn bind(&self, namespace: &str, account: &str, role: &str) {
        let [name, role, subject] = self.binding(account, role);
        self.cluster.kubectl(&["-n", namespace, "create", "rolebinding", &name, &role, &subject], &[]);
    }

    fn bind_everywhere(&self, account: &str, role: &str) {
        let [name, role, subject] = self.binding(account, role);
        self.cluster.kubectl(&["create", "clusterrolebinding", &name, &role, &subject], &[]);
    }

    pub fn kubeconfig(&self, account: &str) -> tempfile::NamedTempFile {
        let arguments = ["-n", &self.namespace, "create", "token", account, "--duration=2h"];
        let token = self.cluster.kubectl(&arguments, &[]);
        let mut config = self.cluster.json(&["config", "view", "--raw", "--minify"]);
        config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        file
    }
}

impl Drop for Accounts<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Pods by namespace and name, with their identities.
fn pods(network: &Network<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for namespace in network.names() {
        let list = network.cluster.json(&["-n", &namespace, "get", "pods"]);
        for pod in list["items"].as_array().unwrap() {
            let name = pod.pointer("/metadata/name").unwrap().as_str().unwrap();
            out.insert(format!("{namespace}/{name}"), pod.pointer("/metadata/uid").unwrap().to_string());
        }
    }
    out
}

/// What must be as before; what was set aside is beside it.
fn now(network: &Network<'_>) -> BTreeMap<String, String> {
    let mut all = needed(network.style, network.fingerprint());
    all.retain(|place, _| !place.contains(".before-"));
    all
}

fn refused(output: Output, rule: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains(rule), "{text}");
}

#[test]
fn losses_come_back_with_the_documented_rights() {
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::new(&cluster, &styles::OWKIN, "losses");
    network.deploy();
    let accounts = Accounts::new(&cluster, "losses");
    for namespace in network.names() {
        accounts.bind(&namespace, "backup", "fabkeep-backup");
        accounts.bind(&namespace, "restore", "fabkeep-backup");
        accounts.bind(&namespace, "restore", "fabkeep-restore");
    }
    let (heights, before) = (network.heights(), now(&network));
    let place = Place::new(&network);
    let (backup, restore) = (accounts.kubeconfig("backup"), accounts.kubeconfig("restore"));
    let repo = place.repo();
    let repo = repo.to_str().unwrap();
    let run = |arguments: &[&str], kubeconfig: &tempfile::NamedTempFile| {
        let mut all = vec![arguments[0], "--repo", repo];
        all.extend(&arguments[1..]);
        place.command(&all).arg("--kubeconfig").arg(kubeconfig.path()).output().unwrap()
    };

    println!("-- backup with its rights only: in the nodes' containers, and from snapshots");
    let reported = succeeded(place.with_kubeconfig(&["backup", "--repo", repo], backup.path()).output().unwrap());
    assert!(!reported.contains("no right"), "{reported}");
    accounts.bind_everywhere("backup", "fabkeep-snapshot");
    let arguments = ["backup", "--repo", repo, "--volumes", "snapshot"];
    let reported = succeeded(place.with_kubeconfig(&arguments, backup.path()).output().unwrap());
    assert!(reported.contains("snapshots, taken in") && !reported.contains("no right"), "{reported}");
    let left = |namespace: &String| {
        let all = cluster.json(&["-n", namespace, "get", "volumesnapshots"]);
        !all["items"].as_array().unwrap().is_empty()
    };
    let begun = std::time::Instant::now();
    while network.names().iter().any(left) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(120), "snapshots are left");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }

    println!("-- nothing to do: everything is there");
    let (pods_before, org2) = (pods(&network), network.namespaces["Org2"].clone());
    succeeded(run(&["restore", "--missing"], &restore));
    assert_eq!(pods_before, pods(&network), "pods were touched though nothing was missing");
    refused(run(&["restore"], &restore), "B8");

    println!("-- one claim lost");
    let peer = pods_before.keys().find(|pod| pod.starts_with(&org2) && pod.contains("peer0")).unwrap().clone();
    let (_, peer) = peer.split_once('/').unwrap();
    let spec = cluster.json(&["-n", &org2, "get", "pod", peer]);
    let volumes = spec.pointer("/spec/volumes").unwrap().as_array().unwrap();
    let claim = volumes.iter().find_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")).unwrap();
    let claim = claim.as_str().unwrap();
    cluster.kubectl(&["-n", &org2, "delete", "pvc", claim, "--wait=false"], &[]);
    cluster.kubectl(&["-n", &org2, "delete", "pod", peer, "--grace-period=0", "--force"], &[]);
    while cluster.try_kubectl(&["-n", &org2, "get", "pvc", claim], &[]).status.success() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let output = run(&["restore", "--missing"], &backup);
    assert_eq!(output.status.code(), Some(1), "a backup's rights are not enough for a restore");
    assert!(String::from_utf8_lossy(&output.stderr).contains("forbidden"), "{output:?}");
    println!("{}", succeeded(run(&["restore", "--missing"], &restore)));
    let others = |pods: BTreeMap<String, String>| -> BTreeMap<String, String> {
        pods.into_iter().filter(|(pod, _)| !(pod.starts_with(&org2) && pod.contains("peer0"))).collect()
    };
    assert_eq!(others(pods_before), others(pods(&network)), "pods were touched that had lost nothing");
    assert_eq!(heights, network.heights());
    assert_same(&before, &now(&network));

    println!("-- one node's data replaced");
    let found = place.with_kubeconfig(&["discover", "--output", "json"], restore.path()).output().unwrap();
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let named = |namespace: &str, role: &str, part: &str| {
        let node = found["topology"]["nodes"].as_array().unwrap().iter().find(|node| {
            let name = node["node"].as_str().unwrap();
            node["role"] == role && name.starts_with(namespace) && name.contains(part)
        });
        node.unwrap()["node"].as_str().unwrap().to_owned()
    };
    let node = named(&org2, "peer", "peer1");
    refused(run(&["restore", "--node", &node], &restore), "B8");
    let reported = succeeded(run(&["restore", "--node", &node, "--replace"], &restore));
    assert!(reported.contains(".before-"), "{reported}");
    assert!(network.fingerprint().keys().any(|place| place.contains(".before-")), "nothing was set aside");
    assert_eq!(heights, network.heights());
    assert_same(&before, &now(&network));

    println!("-- a peer takes the ledger of another");
    let from = format!("{node}={}", named(&org2, "peer", "peer0"));
    let reported = succeeded(run(&["restore", "--node", &node, "--ledger-from", &from, "--replace"], &restore));
    assert!(reported.contains("it gets the ledger of"), "{reported}");
    assert_eq!(heights, network.heights());

    println!("-- the CouchDB of peers goes with them, empty, and not with one of them");
    let org1 = network.namespaces["Org1"].clone();
    let (one, other) = (named(&org1, "peer", "peer0"), named(&org1, "peer", "peer1"));
    let reported = succeeded(run(&["restore", "--node", &one, "--replace", "--dry-run"], &restore));
    assert!(reported.contains("P3") && reported.contains(&format!("{org1}/couchdb serves {other} too")), "{reported}");
    let reported = succeeded(run(&["restore", "--node", &one, "--node", &other, "--replace"], &restore));
    println!("{reported}");
    assert!(reported.contains("P3") && reported.contains(&format!("{org1}/couchdb is restored with it")), "{reported}");
    let aside = |place: &&String| place.starts_with(&format!("{org1} claim couchdb ")) && place.contains(".before-");
    assert!(network.fingerprint().keys().any(|place| aside(&place)), "the state was left where it was");
    assert_eq!(heights, network.heights());

    println!("-- a certificate authority goes back: who came later is listed");
    let since = std::time::SystemTime::now();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let database = network.folder().join("Org2/ca/fabric-ca-server.db");
    let database = rusqlite::Connection::open(database).unwrap();
    database.execute("INSERT INTO users (id, type, state) VALUES ('latecomer', 'client', 0)", []).unwrap();
    drop(database);
    network.refill(&["Org2"], since);
    let authority = named(&org2, "ca", "");
    let output = run(&["restore", "--node", &authority, "--replace"], &restore);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let reported = succeeded(output);
    println!("{reported}");
    assert!(reported.contains("C1") && reported.contains("latecomer"), "{reported}");

    println!("-- a certificate authority keeps its newer configuration and TLS certificate");
    let since = std::time::SystemTime::now();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let configuration = network.folder().join("Org2/ca/fabric-ca-server-config.yaml");
    let newer = std::fs::read_to_string(&configuration).unwrap().replace("expiry: 8760h", "expiry: 4380h");
    std::fs::write(&configuration, newer).unwrap();
    network.refill(&["Org2"], since);
    let reported = succeeded(run(&["restore", "--node", &authority, "--replace", "--ca-keep", "tls,config"], &restore));
    println!("{reported}");
    assert!(reported.contains(&format!("{authority} keeps ")) && reported.contains("tls-cert.pem"), "{reported}");
    let kept = now(&network);
    // peer1 has another's ledger still.
    let of_authority = before.iter().filter(|(place, _)| place.contains("fabric-ca/"));
    let differ = of_authority.filter(|(place, hash)| kept.get(*place) != Some(hash)).map(|(place, _)| place);
    let differ: Vec<&String> = differ.collect();
    assert!(differ.len() == 1 && differ[0].ends_with("fabric-ca-server-config.yaml"), "{differ:?}");

    println!("-- one organization lost, and then the workloads of all deployed again without their data");
    accounts.bind_everywhere("restore", "fabkeep-backup");
    accounts.bind_everywhere("restore", "fabkeep-restore");
    cluster.remove_namespaces(std::slice::from_ref(&org2));
    println!("{}", succeeded(run(&["restore", "--missing"], &restore)));
    assert_eq!(heights, network.heights());
    assert_same(&before, &now(&network));

    cluster.remove_namespaces(&network.names());
    network.deploy_without_data();
    let output = run(&["restore", "--workloads", "existing"], &restore);
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(4) {
        // Nodes that have started on the empty volumes have made something there.
        println!("{}", succeeded(run(&["restore", "--workloads", "existing", "--replace"], &restore)));
    }
    assert_eq!(heights, network.heights());
    assert_same(&before, &now(&network));
}
