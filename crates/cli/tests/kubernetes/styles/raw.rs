//! Raw manifests: arbitrary names; Org1's peer0 has a CouchDB beside it; orderer1 keeps its raft log on a volume of its own inside the
//! ledger's; Org2's CA keeps its identities in PostgreSQL.

use super::{MSP_ITEMS, Style, claim, config, fill, keyed, msp_secret, nothing, service, tls_secret};
use crate::network::Kind;

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
