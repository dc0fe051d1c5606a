//! How seven deployers lay a network out on Kubernetes: labels, environment, mounts and traps as theirs, the text our own.

use std::path::{Path, PathBuf};

use crate::network::{Fill, Keyed, Kind, Node};

/// A deployer's style.
pub struct Style {
    pub name: &'static str,
    /// Objects of the whole cluster: custom resource definitions.
    pub cluster: &'static str,
    /// Objects of an organization's namespace.
    pub organization: fn(&str) -> String,
    /// Secrets and ConfigMaps of a node.
    pub objects: fn(&Node, &Path) -> Vec<Keyed>,
    /// Claims of a node.
    pub claims: fn(&Node) -> String,
    /// What belongs into them.
    pub fills: fn(&Node, &Path) -> Vec<Fill>,
    /// The node's workload and Services.
    pub workload: fn(&Node) -> String,
}

/// The one file of a folder.
fn only(folder: PathBuf) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("{} is empty", folder.display()))
}

fn keyed(name: String, files: Vec<(&str, PathBuf)>) -> Keyed {
    Keyed { secret: true, name, files: files.into_iter().map(|(key, path)| (key.to_owned(), path)).collect() }
}

/// A node's MSP as one Secret: keys as file names cannot hold slashes.
fn msp_secret(name: String, directory: &Path) -> Keyed {
    let msp = directory.join("msp");
    keyed(
        name,
        vec![
            ("cert.pem", only(msp.join("signcerts"))),
            ("key.pem", only(msp.join("keystore"))),
            ("cacert.pem", only(msp.join("cacerts"))),
            ("tlscacert.pem", only(msp.join("tlscacerts"))),
            ("config.yaml", msp.join("config.yaml")),
        ],
    )
}

const MSP_ITEMS: &str = "[{key: cert.pem, path: signcerts/cert.pem}, {key: key.pem, path: keystore/key.pem}, \
    {key: cacert.pem, path: cacerts/ca.pem}, {key: tlscacert.pem, path: tlscacerts/tlsca.pem}, {key: config.yaml, path: config.yaml}]";

fn tls_secret(name: String, directory: &Path, names: [&str; 3]) -> Keyed {
    let tls = directory.join("tls");
    let [certificate, key, ca] = names;
    keyed(name, vec![(certificate, tls.join("server.crt")), (key, tls.join("server.key")), (ca, tls.join("ca.crt"))])
}

fn config(name: String, key: &str, path: PathBuf) -> Keyed {
    Keyed { secret: false, name, files: vec![(key.to_owned(), path)] }
}

fn claim(name: &str, class: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  storageClassName: {class}\n  \
         accessModes: [ReadWriteOnce]\n  resources: {{requests: {{storage: 1Gi}}}}\n"
    )
}

fn fill(claim: impl Into<String>, path: impl Into<String>, from: PathBuf) -> Fill {
    Fill { claim: claim.into(), path: path.into(), from }
}

fn nothing(_: &str) -> String {
    String::new()
}

fn service(name: &str, selector: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{{selector}}}\n  ports: [{{name: grpc, port: {port}}}]\n"
    )
}

// Raw manifests: arbitrary names; Org1's peer0 has a CouchDB beside it; orderer1 keeps its raft log on a volume of its own inside the
// ledger's; Org2's CA keeps its identities in PostgreSQL.

pub static RAW: Style = Style {
    name: "raw",
    cluster: "",
    organization: nothing,
    objects: |node, directory| match node.kind {
        Kind::Ca if node.organization == "Org2" => {
            let password = directory.with_file_name("ca-db-password");
            std::fs::write(&password, "only-for-tests").unwrap();
            vec![keyed("ca-db".to_owned(), vec![("password", password)])]
        }
        Kind::Ca => Vec::new(),
        _ => {
            let file = if node.kind == Kind::Peer { "core.yaml" } else { "orderer.yaml" };
            vec![
                msp_secret(format!("{}-identity", node.name), directory),
                tls_secret(format!("{}-tls", node.name), directory, ["server.crt", "server.key", "ca.crt"]),
                config(format!("{}-config", node.name), file, directory.join("config").join(file)),
            ]
        }
    },
    claims: |node| {
        let mut out = claim(&format!("{}-data", node.name), "local-path");
        match (node.organization, node.name) {
            ("Org1", "peer0") => out += &claim("peer0-couch", "local-path"),
            ("OrdererOrg", "orderer1") => out += &claim("orderer1-wal", "csi-local"),
            ("Org2", "ca") => out += &claim("ca-db-data", "local-path-wffc"),
            _ => {}
        }
        out
    },
    fills: |node, directory| match (node.kind, node.name) {
        (Kind::Ca, _) => vec![fill("ca-data", "", directory.to_owned())],
        (Kind::Orderer, "orderer1") => {
            let production = directory.join("production");
            vec![
                fill("orderer1-data", "chains", production.join("chains")),
                fill("orderer1-data", "index", production.join("index")),
                fill("orderer1-data", "pendingops", production.join("pendingops")),
                fill("orderer1-data", "etcdraft/snapshot", production.join("etcdraft/snapshot")),
                fill("orderer1-wal", "", production.join("etcdraft/wal")),
            ]
        }
        (_, name) => vec![fill(format!("{name}-data"), "", directory.join("production"))],
    },
    workload: |node| {
        let name = node.name;
        let couch = node.organization == "Org1" && name == "peer0";
        match node.kind {
            Kind::Peer => {
                let (couch_env, couch_container, couch_volume) = if couch {
                    (
                        "        - {name: CORE_LEDGER_STATE_STATEDATABASE, value: CouchDB}\n        - {name: CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS, value: 'localhost:5984'}\n",
                        "      - name: state\n        image: k8s.local/couchdb:3\n        ports: [{containerPort: 5984}]\n        volumeMounts: [{name: couch, mountPath: /opt/couchdb/data}]\n",
                        "      - {name: couch, persistentVolumeClaim: {claimName: peer0-couch}}\n",
                    )
                } else {
                    ("", "", "")
                };
                // peer1 has an image without shell and tar.
                let image = if name == "peer1" {
                    "k8s.local/bare/fabric-peer:2.5"
                } else {
                    "k8s.local/hyperledger/fabric-peer:2.5"
                };
                format!(
                    "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{node: {name}}}}}
  template:
    metadata: {{labels: {{node: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: ledger
        image: {image}
        env:
        - {{name: CORE_PEER_ID, value: {name}}}
        - {{name: CORE_PEER_LOCALMSPID, value: {msp}}}
        - {{name: CORE_PEER_MSPCONFIGPATH, value: /etc/hyperledger/identity}}
        - {{name: CORE_PEER_TLS_ENABLED, value: 'true'}}
        - {{name: CORE_PEER_TLS_CERT_FILE, value: /etc/hyperledger/tls/server.crt}}
        - {{name: CORE_PEER_TLS_KEY_FILE, value: /etc/hyperledger/tls/server.key}}
        - {{name: CORE_PEER_TLS_ROOTCERT_FILE, value: /etc/hyperledger/tls/ca.crt}}
        - {{name: CORE_OPERATIONS_LISTENADDRESS, value: '0.0.0.0:9443'}}
        - {{name: CORE_PEER_FILESYSTEMPATH, value: /var/hyperledger/production}}
{couch_env}        readinessProbe: {{httpGet: {{path: /healthz, port: 9443}}, periodSeconds: 1}}
        volumeMounts:
        - {{name: data, mountPath: /var/hyperledger/production}}
        - {{name: identity, mountPath: /etc/hyperledger/identity}}
        - {{name: tls, mountPath: /etc/hyperledger/tls}}
        - {{name: config, mountPath: /etc/hyperledger/fabric/core.yaml, subPath: core.yaml}}
{couch_container}      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: {name}-data}}}}
      - {{name: identity, secret: {{secretName: {name}-identity, items: {MSP_ITEMS}}}}}
      - {{name: tls, secret: {{secretName: {name}-tls}}}}
      - {{name: config, configMap: {{name: {name}-config}}}}
{couch_volume}{}",
                    service(name, &format!("node: {name}"), 7051),
                    msp = node.msp
                )
            }
            Kind::Orderer => {
                let (mount, volume) = if name == "orderer1" {
                    (
                        "        - {name: wal, mountPath: /var/hyperledger/production/orderer/etcdraft/wal}\n",
                        "      - {name: wal, persistentVolumeClaim: {claimName: orderer1-wal}}\n",
                    )
                } else {
                    ("", "")
                };
                format!(
                    "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{node: {name}}}}}
  template:
    metadata: {{labels: {{node: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: ordering
        image: k8s.local/hyperledger/fabric-orderer:2.5
        env:
        - {{name: ORDERER_GENERAL_LOCALMSPID, value: {msp}}}
        - {{name: ORDERER_GENERAL_LOCALMSPDIR, value: /etc/hyperledger/identity}}
        - {{name: ORDERER_GENERAL_TLS_ENABLED, value: 'true'}}
        - {{name: ORDERER_GENERAL_TLS_CERTIFICATE, value: /etc/hyperledger/tls/server.crt}}
        - {{name: ORDERER_GENERAL_TLS_PRIVATEKEY, value: /etc/hyperledger/tls/server.key}}
        - {{name: ORDERER_OPERATIONS_LISTENADDRESS, value: '0.0.0.0:8443'}}
        readinessProbe: {{httpGet: {{path: /healthz, port: 8443}}, periodSeconds: 1}}
        volumeMounts:
        - {{name: data, mountPath: /var/hyperledger/production/orderer}}
{mount}        - {{name: identity, mountPath: /etc/hyperledger/identity}}
        - {{name: tls, mountPath: /etc/hyperledger/tls}}
      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: {name}-data}}}}
{volume}      - {{name: identity, secret: {{secretName: {name}-identity, items: {MSP_ITEMS}}}}}
      - {{name: tls, secret: {{secretName: {name}-tls}}}}
{}",
                    service(name, &format!("node: {name}"), 7050),
                    msp = node.msp
                )
            }
            Kind::Ca => {
                let postgres = node.organization == "Org2";
                let database = if postgres {
                    "        - {name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: ca-db, key: password}}}\n        - {name: FABRIC_CA_SERVER_DB_TYPE, value: postgres}\n        - {name: FABRIC_CA_SERVER_DB_DATASOURCE, value: 'host=ca-db port=5432 user=ca password=$(DB_PASSWORD) dbname=postgres sslmode=disable'}\n"
                } else {
                    ""
                };
                let server = if postgres {
                    format!(
                        "---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: ca-db}}
spec:
  serviceName: ca-db
  selector: {{matchLabels: {{node: ca-db}}}}
  template:
    metadata: {{labels: {{node: ca-db}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: sql
        image: k8s.local/postgres:15
        env:
        - {{name: POSTGRES_USER, value: ca}}
        - {{name: POSTGRES_PASSWORD, valueFrom: {{secretKeyRef: {{name: ca-db, key: password}}}}}}
        - {{name: PGDATA, value: /var/lib/postgresql/data/pgdata}}
        ports: [{{containerPort: 5432}}]
        readinessProbe: {{tcpSocket: {{port: 5432}}, periodSeconds: 1}}
        volumeMounts: [{{name: data, mountPath: /var/lib/postgresql/data}}]
      volumes: [{{name: data, persistentVolumeClaim: {{claimName: ca-db-data}}}}]
{}",
                        service("ca-db", "node: ca-db", 5432)
                    )
                } else {
                    String::new()
                };
                format!(
                    "{server}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: ca}}
spec:
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{node: ca}}}}
  template:
    metadata: {{labels: {{node: ca}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: ca
        image: k8s.local/hyperledger/fabric-ca:1.5
        env:
        - {{name: FABRIC_CA_HOME, value: /etc/hyperledger/fabric-ca-server}}
{database}        readinessProbe: {{tcpSocket: {{port: 7054}}, periodSeconds: 1}}
        volumeMounts: [{{name: home, mountPath: /etc/hyperledger/fabric-ca-server}}]
      volumes: [{{name: home, persistentVolumeClaim: {{claimName: ca-data}}}}]
{}",
                    service("ca", "node: ca", 7054)
                )
            }
        }
    },
};

/// The Deployment that most deployers make, with what differs between them.
struct Deployment<'a> {
    name: &'a str,
    kind: &'a str,
    labels: &'a str,
    container: &'a str,
    image: &'a str,
    command: &'a str,
    env: Vec<(&'a str, String)>,
    mounts: Vec<String>,
    volumes: Vec<String>,
    init: String,
    more: String,
    probe: &'a str,
    templates: Vec<String>,
}

impl Deployment<'_> {
    fn text(&self) -> String {
        let env: String =
            self.env.iter().map(|(name, value)| format!("        - {{name: {name}, value: '{value}'}}\n")).collect();
        let mounts: String = self.mounts.iter().map(|mount| format!("        - {{{mount}}}\n")).collect();
        let volumes: String = self.volumes.iter().map(|volume| format!("      - {{{volume}}}\n")).collect();
        let (strategy, tail) = if self.kind == "StatefulSet" {
            let templates: String = self
                .templates
                .iter()
                .map(|name| format!("  - metadata: {{name: {name}}}\n    spec: {{accessModes: [ReadWriteOnce], storageClassName: local-path, resources: {{requests: {{storage: 1Gi}}}}}}\n"))
                .collect();
            let tail =
                if templates.is_empty() { String::new() } else { format!("  volumeClaimTemplates:\n{templates}") };
            (format!("  serviceName: {}\n", self.name), tail)
        } else {
            ("  strategy: {type: Recreate}\n".to_owned(), String::new())
        };
        let command =
            if self.command.is_empty() { String::new() } else { format!("        command: {}\n", self.command) };
        let volumes = if volumes.is_empty() { String::new() } else { format!("      volumes:\n{volumes}") };
        format!(
            "---
apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
{strategy}  selector: {{matchLabels: {{{labels}}}}}
  template:
    metadata: {{labels: {{{labels}}}}}
    spec:
      terminationGracePeriodSeconds: 0
{init}      containers:
      - name: {container}
        image: {image}
{command}        env:
{env}        readinessProbe: {{{probe}, periodSeconds: 1}}
        volumeMounts:
{mounts}{more}{volumes}{tail}",
            kind = self.kind,
            name = self.name,
            labels = self.labels,
            init = self.init,
            container = self.container,
            image = self.image,
            probe = self.probe,
            more = self.more
        )
    }
}

const PEER_IMAGE: &str = "k8s.local/hyperledger/fabric-peer:2.5";
const ORDERER_IMAGE: &str = "k8s.local/hyperledger/fabric-orderer:2.5";
const CA_IMAGE: &str = "k8s.local/hyperledger/fabric-ca:1.5";
const PEER_PROBE: &str = "httpGet: {path: /healthz, port: 9443}";
const ORDERER_PROBE: &str = "httpGet: {path: /healthz, port: 8443}";
const CA_PROBE: &str = "tcpSocket: {port: 7054}";

fn peer_env<'a>(node: &Node, data: &str, msp: &str, tls: [&str; 3]) -> Vec<(&'a str, String)> {
    vec![
        ("CORE_PEER_ID", node.name.to_owned()),
        ("CORE_PEER_LOCALMSPID", node.msp.to_owned()),
        ("CORE_PEER_FILESYSTEMPATH", data.to_owned()),
        ("CORE_PEER_MSPCONFIGPATH", msp.to_owned()),
        ("CORE_PEER_TLS_ENABLED", "true".to_owned()),
        ("CORE_PEER_TLS_CERT_FILE", tls[0].to_owned()),
        ("CORE_PEER_TLS_KEY_FILE", tls[1].to_owned()),
        ("CORE_PEER_TLS_ROOTCERT_FILE", tls[2].to_owned()),
        ("CORE_OPERATIONS_LISTENADDRESS", "0.0.0.0:9443".to_owned()),
    ]
}

fn orderer_env<'a>(node: &Node, ledger: &str, raft: &str, msp: &str, tls: [&str; 2]) -> Vec<(&'a str, String)> {
    vec![
        ("ORDERER_GENERAL_LOCALMSPID", node.msp.to_owned()),
        ("ORDERER_GENERAL_LOCALMSPDIR", msp.to_owned()),
        ("ORDERER_FILELEDGER_LOCATION", ledger.to_owned()),
        ("ORDERER_CONSENSUS_WALDIR", format!("{raft}/wal")),
        ("ORDERER_CONSENSUS_SNAPDIR", format!("{raft}/snapshot")),
        ("ORDERER_GENERAL_TLS_ENABLED", "true".to_owned()),
        ("ORDERER_GENERAL_TLS_CERTIFICATE", tls[0].to_owned()),
        ("ORDERER_GENERAL_TLS_PRIVATEKEY", tls[1].to_owned()),
        ("ORDERER_OPERATIONS_LISTENADDRESS", "0.0.0.0:8443".to_owned()),
    ]
}

/// The ledger and the raft directories of an orderer, each to its place in a claim.
fn orderer_fills(claim: &str, ledger: &str, raft: &str, directory: &Path) -> Vec<Fill> {
    let production = directory.join("production");
    let mut out: Vec<Fill> = ["chains", "index", "pendingops"]
        .iter()
        .map(|part| fill(claim, format!("{ledger}/{part}"), production.join(part)))
        .collect();
    for part in ["wal", "snapshot"] {
        out.push(fill(claim, format!("{raft}/{part}"), production.join("etcdraft").join(part)));
    }
    out
}

fn short(kind: Kind) -> &'static str {
    match kind {
        Kind::Peer => "peer",
        Kind::Orderer => "orderer",
        Kind::Ca => "ca",
    }
}

// bevel-operator-fabric: custom resources with the releases' names, no owner references; the orderers carry FABRIC_CA_CLIENT_HOME; the
// raft log lies beside the ledger, not in it.

pub static HLF_OPERATOR: Style = Style {
    name: "hlf-operator",
    cluster: "---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fabricpeers.hlf.kungfusoftware.es}
spec:
  group: hlf.kungfusoftware.es
  scope: Namespaced
  names: {plural: fabricpeers, singular: fabricpeer, kind: FabricPeer}
  versions:
  - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fabricorderernodes.hlf.kungfusoftware.es}
spec:
  group: hlf.kungfusoftware.es
  scope: Namespaced
  names: {plural: fabricorderernodes, singular: fabricorderernode, kind: FabricOrdererNode}
  versions:
  - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: fabriccas.hlf.kungfusoftware.es}
spec:
  group: hlf.kungfusoftware.es
  scope: Namespaced
  names: {plural: fabriccas, singular: fabricca, kind: FabricCA}
  versions:
  - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
",
    organization: nothing,
    objects: |node, directory| match node.kind {
        Kind::Ca => Vec::new(),
        _ => vec![
            msp_secret(format!("{}--msp-cryptomaterial", node.name), directory),
            tls_secret(format!("{}--tls-cryptomaterial", node.name), directory, ["tls.crt", "tls.key", "cacert.pem"]),
        ],
    },
    claims: |node| {
        let name = node.name;
        let couch = if node.kind == Kind::Peer { claim(&format!("{name}--couchdb"), "local-path") } else { String::new() };
        claim(name, "local-path") + &couch
    },
    fills: |node, directory| match node.kind {
        Kind::Peer => vec![fill(node.name, "production", directory.join("production"))],
        Kind::Orderer => orderer_fills(node.name, "ledger", "production/orderer/etcdraft", directory),
        Kind::Ca => vec![fill(node.name, "fabric-ca", directory.to_owned())],
    },
    workload: |node| {
        let name = node.name;
        let kind = match node.kind {
            Kind::Peer => "FabricPeer",
            Kind::Orderer => "FabricOrdererNode",
            Kind::Ca => "FabricCA",
        };
        let custom = format!("---\napiVersion: hlf.kungfusoftware.es/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, finalizers: []}}\nspec: {{replicas: 1, mspID: {}}}\n", node.msp);
        let mut mounts = vec!["name: data, mountPath: /var/hyperledger".to_owned()];
        let mut volumes = vec![format!("name: data, persistentVolumeClaim: {{claimName: {name}}}")];
        if node.kind != Kind::Ca {
            mounts.extend(["name: msp, mountPath: /crypto/msp".to_owned(), "name: tls, mountPath: /crypto/tls".to_owned()]);
            volumes.push(format!("name: msp, secret: {{secretName: {name}--msp-cryptomaterial, items: {MSP_ITEMS}}}"));
            volumes.push(format!("name: tls, secret: {{secretName: {name}--tls-cryptomaterial}}"));
        }
        let mut more = String::new();
        let (app, image, env, probe) = match node.kind {
            Kind::Peer => {
                let mut env = peer_env(node, "/var/hyperledger/production", "/crypto/msp", ["/crypto/tls/tls.crt", "/crypto/tls/tls.key", "/crypto/tls/cacert.pem"]);
                env.push(("CORE_LEDGER_STATE_STATEDATABASE", "CouchDB".to_owned()));
                env.push(("CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS", "localhost:5984".to_owned()));
                more = "      - name: couchdb\n        image: k8s.local/couchdb:3\n        volumeMounts: [{name: couchdb, mountPath: /opt/couchdb/data}]\n".to_owned();
                volumes.push(format!("name: couchdb, persistentVolumeClaim: {{claimName: {name}--couchdb}}"));
                ("hlf-peer", PEER_IMAGE, env, PEER_PROBE)
            }
            Kind::Orderer => {
                let mut env = orderer_env(node, "/var/hyperledger/ledger", "/var/hyperledger/production/orderer/etcdraft", "/crypto/msp", ["/crypto/tls/tls.crt", "/crypto/tls/tls.key"]);
                env.push(("FABRIC_CA_CLIENT_HOME", "/var/hyperledger/admin".to_owned()));
                ("hlf-ordnode", ORDERER_IMAGE, env, ORDERER_PROBE)
            }
            Kind::Ca => ("hlf-ca", CA_IMAGE, vec![("FABRIC_CA_HOME", "/var/hyperledger/fabric-ca".to_owned())], CA_PROBE),
        };
        let labels = format!("app: {app}, release: {name}");
        let text = Deployment { name, kind: "Deployment", labels: &labels, container: short(node.kind), image, command: "", env, mounts, volumes, init: String::new(), more, probe, templates: Vec::new() }.text();
        custom + &text + &service(name, &labels, 7051)
    },
};

// fabric-operator: `<n>-pvc` by subPath at /data, an owner reference to the custom resource, `creator: fabric`; a state database's claim
// even where LevelDB is used.

pub static FABRIC_OPERATOR: Style = Style {
    name: "fabric-operator",
    cluster: "---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ibppeers.ibp.com}
spec:
  group: ibp.com
  scope: Namespaced
  names: {plural: ibppeers, singular: ibppeer, kind: IBPPeer}
  versions:
  - {name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ibporderers.ibp.com}
spec:
  group: ibp.com
  scope: Namespaced
  names: {plural: ibporderers, singular: ibporderer, kind: IBPOrderer}
  versions:
  - {name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ibpcas.ibp.com}
spec:
  group: ibp.com
  scope: Namespaced
  names: {plural: ibpcas, singular: ibpca, kind: IBPCA}
  versions:
  - {name: v1beta1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
",
    organization: nothing,
    objects: |node, directory| {
        let name = node.name;
        if node.kind == Kind::Ca {
            return vec![config(format!("{name}-ca-config"), "fabric-ca-server-config.yaml", directory.join("fabric-ca-server-config.yaml"))];
        }
        let (msp, tls) = (directory.join("msp"), directory.join("tls"));
        vec![
            keyed(format!("ecert-{name}-signcert"), vec![("cert.pem", only(msp.join("signcerts")))]),
            keyed(format!("ecert-{name}-keystore"), vec![("key.pem", only(msp.join("keystore")))]),
            keyed(format!("ecert-{name}-cacerts"), vec![("cacert-0.pem", only(msp.join("cacerts")))]),
            keyed(format!("tls-{name}-signcert"), vec![("cert.pem", tls.join("server.crt"))]),
            keyed(format!("tls-{name}-keystore"), vec![("key.pem", tls.join("server.key"))]),
            keyed(format!("tls-{name}-cacerts"), vec![("cacert-0.pem", tls.join("ca.crt"))]),
        ]
    },
    claims: |node| {
        let state = if node.kind == Kind::Peer { claim(&format!("{}-statedb-pvc", node.name), "local-path") } else { String::new() };
        claim(&format!("{}-pvc", node.name), "local-path") + &state
    },
    fills: |node, directory| {
        let pvc = format!("{}-pvc", node.name);
        match node.kind {
            Kind::Peer => vec![fill(pvc, "data", directory.join("production"))],
            Kind::Orderer => orderer_fills(&pvc, "data/ledger", "data/raft", directory),
            Kind::Ca => vec![fill(pvc, "fabric-ca-server", directory.to_owned())],
        }
    },
    workload: |node| {
        let name = node.name;
        let kind = match node.kind {
            Kind::Peer => "IBPPeer",
            Kind::Orderer => "IBPOrderer",
            Kind::Ca => "IBPCA",
        };
        let custom = format!("---\napiVersion: ibp.com/v1beta1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{mspID: {}, replicas: 1}}\n", node.msp);
        let mut mounts = Vec::new();
        let mut volumes = Vec::new();
        if node.kind != Kind::Ca {
            for part in ["signcert", "keystore", "cacerts"] {
                let folder = if part == "signcert" { "signcerts" } else { part };
                mounts.push(format!("name: ecert-{part}, mountPath: /certs/msp/{folder}"));
                mounts.push(format!("name: tls-{part}, mountPath: /certs/tls/{folder}"));
                volumes.push(format!("name: ecert-{part}, secret: {{secretName: ecert-{name}-{part}}}"));
                volumes.push(format!("name: tls-{part}, secret: {{secretName: tls-{name}-{part}}}"));
            }
        }
        let labels = format!("app: {name}, creator: fabric, orgname: {}", node.msp.to_lowercase());
        let tls = ["/certs/tls/signcerts/cert.pem", "/certs/tls/keystore/key.pem", "/certs/tls/cacerts/cacert-0.pem"];
        let (image, env, probe) = match node.kind {
            Kind::Peer => {
                mounts.push("name: fabric-peer-0, mountPath: /data, subPath: data".to_owned());
                mounts.push("name: db-data, mountPath: /data/stateLeveldb, subPath: data".to_owned());
                volumes.push(format!("name: db-data, persistentVolumeClaim: {{claimName: {name}-statedb-pvc}}"));
                (PEER_IMAGE, peer_env(node, "/data/", "/certs/msp", tls), PEER_PROBE)
            }
            Kind::Orderer => {
                mounts.push("name: fabric-peer-0, mountPath: /ordererdata, subPath: data".to_owned());
                (ORDERER_IMAGE, orderer_env(node, "/ordererdata/ledger", "/ordererdata/raft", "/certs/msp", [tls[0], tls[1]]), ORDERER_PROBE)
            }
            Kind::Ca => {
                mounts.push("name: fabric-peer-0, mountPath: /data, subPath: fabric-ca-server".to_owned());
                mounts.push("name: config, mountPath: /data/config".to_owned());
                volumes.push(format!("name: config, configMap: {{name: {name}-ca-config}}"));
                (CA_IMAGE, vec![("FABRIC_CA_HOME", "/data".to_owned())], CA_PROBE)
            }
        };
        volumes.push(format!("name: fabric-peer-0, persistentVolumeClaim: {{claimName: {name}-pvc}}"));
        let init = "      initContainers:\n      - {name: init, image: 'k8s.local/busybox:1', command: [sh, -c, 'true'], env: [{name: LICENSE, value: accept}]}\n".to_owned();
        let text = Deployment { name, kind: "Deployment", labels: &labels, container: short(node.kind), image, command: "", env, mounts, volumes, init, more: String::new(), probe, templates: Vec::new() }.text();
        custom + &text + &service(name, &format!("app: {name}"), 7051)
    },
};

// Bevel's charts: StatefulSets with claim templates; keys come from Vault into an emptyDir (a Secret stands in for Vault); the CA's key
// in a Secret of its own.

pub static BEVEL: Style = Style {
    name: "bevel",
    cluster: "",
    organization: nothing,
    objects: |node, directory| match node.kind {
        Kind::Ca => vec![keyed(
            format!("{}-certs", node.name),
            vec![("server.crt", directory.join("ca-cert.pem")), ("server.key", ca_key(directory))],
        )],
        _ => vec![
            msp_secret(format!("vault-{}-msp", node.name), directory),
            tls_secret(format!("vault-{}-tls", node.name), directory, ["server.crt", "server.key", "ca.crt"]),
        ],
    },
    claims: |node| {
        let claims = match node.kind {
            Kind::Peer => vec![format!("datadir-{0}-0", node.name), format!("datadir-couchdb-{0}-0", node.name)],
            Kind::Orderer => vec![format!("datadir-{0}-0", node.name)],
            Kind::Ca => vec![format!("ca-server-db-pvc-{0}-0", node.name)],
        };
        claims.iter().map(|name| claim(name, "local-path")).collect()
    },
    fills: |node, directory| match node.kind {
        Kind::Peer => vec![fill(format!("datadir-{}-0", node.name), "", directory.join("production"))],
        Kind::Orderer => vec![fill(format!("datadir-{}-0", node.name), "", directory.join("production"))],
        Kind::Ca => vec![fill(format!("ca-server-db-pvc-{}-0", node.name), "", directory.to_owned())],
    },
    workload: |node| {
        let name = node.name;
        let labels = format!(
            "app.kubernetes.io/name: {name}, app.kubernetes.io/component: fabric, app.kubernetes.io/part-of: hyperledger-fabric"
        );
        let mut volumes = vec![];
        let mut init = String::new();
        let mut mounts = vec!["name: certificates, mountPath: /etc/hyperledger/fabric/crypto".to_owned()];
        if node.kind != Kind::Ca {
            volumes.push("name: certificates, emptyDir: {medium: Memory}".to_owned());
            volumes.push(format!("name: vault-msp, secret: {{secretName: vault-{name}-msp, items: {MSP_ITEMS}}}"));
            volumes.push(format!("name: vault-tls, secret: {{secretName: vault-{name}-tls}}"));
            init = "      initContainers:
      - name: certificates-init
        image: k8s.local/busybox:1
        command: [sh, -c, 'mkdir -p /crypto/msp /crypto/tls; for d in signcerts keystore cacerts tlscacerts; do mkdir -p /crypto/msp/$d; cp /vault/msp/$d/* /crypto/msp/$d/; done; cp /vault/msp/config.yaml /crypto/msp/; cp /vault/tls/* /crypto/tls/']
        volumeMounts:
        - {name: certificates, mountPath: /crypto}
        - {name: vault-msp, mountPath: /vault/msp}
        - {name: vault-tls, mountPath: /vault/tls}
".to_owned();
        }
        let crypto = "/etc/hyperledger/fabric/crypto";
        let tls =
            [format!("{crypto}/tls/server.crt"), format!("{crypto}/tls/server.key"), format!("{crypto}/tls/ca.crt")];
        let tls = [tls[0].as_str(), tls[1].as_str(), tls[2].as_str()];
        let mut more = String::new();
        let (image, command, env, probe, templates): (_, _, _, _, Vec<String>) = match node.kind {
            Kind::Peer => {
                mounts.push("name: datadir, mountPath: /var/hyperledger/production".to_owned());
                more = "      - name: couchdb\n        image: k8s.local/couchdb:3\n        ports: [{containerPort: 5984}]\n        volumeMounts: [{name: datadir-couchdb, mountPath: /opt/couchdb/data}]\n".to_owned();
                let mut env = peer_env(node, "/var/hyperledger/production", &format!("{crypto}/msp"), tls);
                env.push(("CORE_LEDGER_STATE_STATEDATABASE", "CouchDB".to_owned()));
                env.push(("CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS", "localhost:5984".to_owned()));
                (
                    PEER_IMAGE,
                    "[sh, -c, 'exec peer node start']",
                    env,
                    PEER_PROBE,
                    vec!["datadir".to_owned(), "datadir-couchdb".to_owned()],
                )
            }
            Kind::Orderer => {
                mounts.push("name: datadir, mountPath: /var/hyperledger/production/orderer".to_owned());
                let env = orderer_env(
                    node,
                    "/var/hyperledger/production/orderer",
                    "/var/hyperledger/production/orderer/etcdraft",
                    &format!("{crypto}/msp"),
                    [tls[0], tls[1]],
                );
                (ORDERER_IMAGE, "[sh, -c, 'exec orderer']", env, ORDERER_PROBE, vec!["datadir".to_owned()])
            }
            Kind::Ca => {
                volumes.push(format!("name: certificates, secret: {{secretName: {name}-certs}}"));
                mounts = vec![
                    "name: certificates, mountPath: /etc/hyperledger/fabric-ca-server-config".to_owned(),
                    "name: ca-server-db-pvc, mountPath: /var/hyperledger/fabric-ca-server".to_owned(),
                ];
                let config = "/etc/hyperledger/fabric-ca-server-config";
                let env = vec![
                    ("FABRIC_CA_HOME", "/var/hyperledger/fabric-ca-server".to_owned()),
                    ("FABRIC_CA_SERVER_CA_CERTFILE", format!("{config}/server.crt")),
                    ("FABRIC_CA_SERVER_CA_KEYFILE", format!("{config}/server.key")),
                ];
                (
                    CA_IMAGE,
                    "[sh, -c, 'exec fabric-ca-server start']",
                    env,
                    CA_PROBE,
                    vec!["ca-server-db-pvc".to_owned()],
                )
            }
        };
        Deployment {
            name,
            kind: "StatefulSet",
            labels: &labels,
            container: short(node.kind),
            image,
            command,
            env,
            mounts,
            volumes,
            init,
            more,
            probe,
            templates,
        }
        .text()
            + &service(name, &format!("app.kubernetes.io/name: {name}"), 7051)
    },
};

/// The CA's private key among the keys of its home.
fn ca_key(directory: &Path) -> PathBuf {
    use fabkeep_ledger::certificate::{Certificate, public_key_of_private_pem};
    let certificate = Certificate::from_pem(&std::fs::read(directory.join("ca-cert.pem")).unwrap()).unwrap();
    std::fs::read_dir(directory.join("msp/keystore"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            public_key_of_private_pem(&std::fs::read(path).unwrap()).is_some_and(|key| key == certificate.public_key())
        })
        .unwrap()
}

// test-network-k8s: every container is `main`, one claim for the whole organization, the MSPs on it, TLS from cert-manager's Secrets, raft
// logs and snapshots in the same directory.

pub static TEST_NETWORK: Style = Style {
    name: "test-network-k8s",
    cluster: "",
    organization: |organization| claim(&format!("fabric-{}", organization.to_lowercase()), "local-path"),
    objects: |node, directory| match node.kind {
        Kind::Ca => Vec::new(),
        _ => vec![tls_secret(format!("{}-tls-cert", node.name), directory, ["tls.crt", "tls.key", "ca.crt"])],
    },
    claims: |_| String::new(),
    fills: |node, directory| {
        let claim = format!("fabric-{}", node.organization.to_lowercase());
        let name = node.name;
        let mut out = match node.kind {
            Kind::Peer => vec![fill(&claim, format!("fabric/data/{name}"), directory.join("production"))],
            Kind::Orderer => {
                let production = directory.join("production");
                let mut out: Vec<Fill> = ["chains", "index", "pendingops"]
                    .iter()
                    .map(|part| fill(&claim, format!("fabric/data/{name}/{part}"), production.join(part)))
                    .collect();
                for part in ["wal", "snapshot"] {
                    out.push(fill(
                        &claim,
                        format!("fabric/data/{name}/etcdraft/wal"),
                        production.join("etcdraft").join(part),
                    ));
                }
                out
            }
            Kind::Ca => vec![fill(&claim, "fabric-ca-server", directory.to_owned())],
        };
        if node.kind != Kind::Ca {
            out.push(fill(&claim, format!("fabric/organizations/{name}/msp"), directory.join("msp")));
        }
        out
    },
    workload: |node| {
        let name = node.name;
        let labels = format!("app: {name}");
        let mut mounts = vec!["name: fabric-volume, mountPath: /var/hyperledger".to_owned()];
        let mut volumes = vec![format!(
            "name: fabric-volume, persistentVolumeClaim: {{claimName: fabric-{}}}",
            node.organization.to_lowercase()
        )];
        if node.kind != Kind::Ca {
            mounts.push(
                "name: tls-cert-volume, mountPath: /var/hyperledger/fabric/config/tls, readOnly: true".to_owned(),
            );
            volumes.push(format!("name: tls-cert-volume, secret: {{secretName: {name}-tls-cert}}"));
        }
        let (data, msp) = (
            format!("/var/hyperledger/fabric/data/{name}"),
            format!("/var/hyperledger/fabric/organizations/{name}/msp"),
        );
        let tls = [
            "/var/hyperledger/fabric/config/tls/tls.crt",
            "/var/hyperledger/fabric/config/tls/tls.key",
            "/var/hyperledger/fabric/config/tls/ca.crt",
        ];
        let (image, env, probe) = match node.kind {
            Kind::Peer => (PEER_IMAGE, peer_env(node, &data, &msp, tls), PEER_PROBE),
            Kind::Orderer => {
                let mut env = orderer_env(node, &data, "", &msp, [tls[0], tls[1]]);
                for (name, value) in &mut env {
                    if matches!(*name, "ORDERER_CONSENSUS_WALDIR" | "ORDERER_CONSENSUS_SNAPDIR") {
                        *value = format!("{data}/etcdraft/wal");
                    }
                }
                (ORDERER_IMAGE, env, ORDERER_PROBE)
            }
            Kind::Ca => (CA_IMAGE, vec![("FABRIC_CA_HOME", "/var/hyperledger/fabric-ca-server".to_owned())], CA_PROBE),
        };
        Deployment {
            name,
            kind: "Deployment",
            labels: &labels,
            container: "main",
            image,
            command: "",
            env,
            mounts,
            volumes,
            init: String::new(),
            more: String::new(),
            probe,
            templates: Vec::new(),
        }
        .text()
            + &service(name, &labels, 7051)
    },
};

// Substra/owkin's charts: CouchDB from a chart of its own, a Deployment and a Service beside the peers.

pub static OWKIN: Style = Style {
    name: "owkin",
    cluster: "",
    organization: |organization| {
        if organization == "OrdererOrg" {
            String::new()
        } else {
            claim("couchdb", "local-path") + "---
apiVersion: apps/v1
kind: Deployment
metadata: {name: couchdb, labels: {app: couchdb}}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: couchdb}}
  template:
    metadata: {labels: {app: couchdb}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: couchdb, image: 'k8s.local/couchdb:3', ports: [{containerPort: 5984}], volumeMounts: [{name: data, mountPath: /opt/couchdb/data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: couchdb}}]
" + &service("couchdb", "app: couchdb", 5984)
        }
    },
    objects: |node, directory| match node.kind {
        Kind::Ca => Vec::new(),
        _ => {
            let msp = directory.join("msp");
            vec![
                keyed(format!("hlf--{}-idcert", node.name), vec![("cert.pem", only(msp.join("signcerts")))]),
                keyed(format!("hlf--{}-idkey", node.name), vec![("key.pem", only(msp.join("keystore")))]),
                keyed(format!("hlf--{}-cacert", node.name), vec![("cacert.pem", only(msp.join("cacerts")))]),
                tls_secret(format!("hlf--{}-tls", node.name), directory, ["tls.crt", "tls.key", "ca.crt"]),
            ]
        }
    },
    claims: |node| claim(&format!("{}-hlf", node.name), "local-path"),
    fills: |node, directory| {
        let pvc = format!("{}-hlf", node.name);
        match node.kind {
            Kind::Peer => vec![fill(pvc, "production", directory.join("production"))],
            Kind::Orderer => orderer_fills(&pvc, "ledger", "etcdraft", directory),
            Kind::Ca => vec![fill(pvc, "fabric-ca", directory.to_owned())],
        }
    },
    workload: |node| {
        let name = node.name;
        let mut mounts = vec!["name: data, mountPath: /var/hyperledger".to_owned()];
        let mut volumes = vec![format!("name: data, persistentVolumeClaim: {{claimName: {name}-hlf}}")];
        if node.kind != Kind::Ca {
            for (part, folder) in [("idcert", "signcerts"), ("idkey", "keystore"), ("cacert", "cacerts")] {
                mounts.push(format!("name: {part}, mountPath: /var/hyperledger/msp/{folder}"));
                volumes.push(format!("name: {part}, secret: {{secretName: hlf--{name}-{part}}}"));
            }
            mounts.push("name: tls, mountPath: /var/hyperledger/tls/server/pair".to_owned());
            volumes.push(format!("name: tls, secret: {{secretName: hlf--{name}-tls}}"));
        }
        let tls = [
            "/var/hyperledger/tls/server/pair/tls.crt",
            "/var/hyperledger/tls/server/pair/tls.key",
            "/var/hyperledger/tls/server/pair/ca.crt",
        ];
        let (app, image, env, probe) = match node.kind {
            Kind::Peer => {
                let mut env = peer_env(node, "/var/hyperledger/production", "/var/hyperledger/msp", tls);
                env.push(("CORE_LEDGER_STATE_STATEDATABASE", "CouchDB".to_owned()));
                env.push(("CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS", "couchdb:5984".to_owned()));
                ("hlf-peer", PEER_IMAGE, env, PEER_PROBE)
            }
            Kind::Orderer => (
                "hlf-ord",
                ORDERER_IMAGE,
                orderer_env(
                    node,
                    "/var/hyperledger/ledger",
                    "/var/hyperledger/etcdraft",
                    "/var/hyperledger/msp",
                    [tls[0], tls[1]],
                ),
                ORDERER_PROBE,
            ),
            Kind::Ca => {
                ("hlf-ca", CA_IMAGE, vec![("FABRIC_CA_HOME", "/var/hyperledger/fabric-ca".to_owned())], CA_PROBE)
            }
        };
        let labels = format!("app: {app}, release: {name}");
        Deployment {
            name,
            kind: "Deployment",
            labels: &labels,
            container: app,
            image,
            command: "",
            env,
            mounts,
            volumes,
            init: String::new(),
            more: String::new(),
            probe,
            templates: Vec::new(),
        }
        .text()
            + &service(name, &labels, 7051)
    },
};

// PIVT: StatefulSets, a Docker-in-Docker beside the peer whose disk is nobody's, MSPs in Secrets mounted key by key.

pub static PIVT: Style = Style {
    name: "pivt",
    cluster: "",
    organization: nothing,
    objects: |node, directory| match node.kind {
        Kind::Ca => Vec::new(),
        _ => vec![
            msp_secret(format!("hlf-{}-msp", node.name), directory),
            tls_secret(format!("hlf-{}-tls", node.name), directory, ["server.crt", "server.key", "ca.crt"]),
        ],
    },
    claims: |node| match node.kind {
        Kind::Peer => claim(&format!("peer-disk-hlf-{}-0", node.name), "local-path"),
        Kind::Orderer => claim(&format!("orderer-disk-hlf-{}-0", node.name), "local-path"),
        Kind::Ca => claim(&format!("ca-disk-hlf-{}-0", node.name), "local-path"),
    },
    fills: |node, directory| match node.kind {
        Kind::Peer => vec![fill(format!("peer-disk-hlf-{}-0", node.name), "", directory.join("production"))],
        Kind::Orderer => vec![fill(format!("orderer-disk-hlf-{}-0", node.name), "", directory.join("production"))],
        Kind::Ca => vec![fill(format!("ca-disk-hlf-{}-0", node.name), "", directory.to_owned())],
    },
    workload: |node| {
        let name = format!("hlf-{}", node.name);
        let labels = format!("name: {name}, addToExternalLB: 'no'");
        let mut volumes = Vec::new();
        let mut mounts = Vec::new();
        if node.kind != Kind::Ca {
            for (key, path) in [
                ("cert.pem", "signcerts/cert.pem"),
                ("key.pem", "keystore/key.pem"),
                ("cacert.pem", "cacerts/ca.pem"),
                ("config.yaml", "config.yaml"),
            ] {
                mounts.push(format!("name: msp, mountPath: /etc/hyperledger/fabric/msp/{path}, subPath: {key}"));
            }
            mounts.push("name: tls, mountPath: /etc/hyperledger/fabric/tls".to_owned());
            volumes.push(format!("name: msp, secret: {{secretName: {name}-msp}}"));
            volumes.push(format!("name: tls, secret: {{secretName: {name}-tls}}"));
        }
        let tls = [
            "/etc/hyperledger/fabric/tls/server.crt",
            "/etc/hyperledger/fabric/tls/server.key",
            "/etc/hyperledger/fabric/tls/ca.crt",
        ];
        let mut more = String::new();
        let (image, env, probe, template) = match node.kind {
            Kind::Peer => {
                mounts.push("name: peer-disk, mountPath: /var/hyperledger/production".to_owned());
                volumes.push("name: dind-disk, emptyDir: {}".to_owned());
                more = "      - name: dind\n        image: k8s.local/busybox:1\n        command: [sh, -c, 'exec sleep 100000']\n        volumeMounts: [{name: dind-disk, mountPath: /var/lib/docker}]\n".to_owned();
                (
                    PEER_IMAGE,
                    peer_env(node, "/var/hyperledger/production", "/etc/hyperledger/fabric/msp", tls),
                    PEER_PROBE,
                    "peer-disk",
                )
            }
            Kind::Orderer => {
                mounts.push("name: orderer-disk, mountPath: /var/hyperledger/production/orderer".to_owned());
                (
                    ORDERER_IMAGE,
                    orderer_env(
                        node,
                        "/var/hyperledger/production/orderer",
                        "/var/hyperledger/production/orderer/etcdraft",
                        "/etc/hyperledger/fabric/msp",
                        [tls[0], tls[1]],
                    ),
                    ORDERER_PROBE,
                    "orderer-disk",
                )
            }
            Kind::Ca => {
                mounts.push("name: ca-disk, mountPath: /etc/hyperledger/fabric-ca-server".to_owned());
                (
                    CA_IMAGE,
                    vec![("FABRIC_CA_HOME", "/etc/hyperledger/fabric-ca-server".to_owned())],
                    CA_PROBE,
                    "ca-disk",
                )
            }
        };
        Deployment {
            name: &name,
            kind: "StatefulSet",
            labels: &labels,
            container: &name,
            image,
            command: "",
            env,
            mounts,
            volumes,
            init: String::new(),
            more,
            probe,
            templates: vec![template.to_owned()],
        }
        .text()
            + &service(&name, &format!("name: {name}"), 7051)
    },
};
