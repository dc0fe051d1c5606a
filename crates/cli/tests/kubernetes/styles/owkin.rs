//! Substra/owkin's charts: CouchDB from a chart of its own, a Deployment and a Service beside the peers.

use super::node::{
    CA_IMAGE, CA_PROBE, Deployment, ORDERER_IMAGE, ORDERER_PROBE, PEER_IMAGE, PEER_PROBE, orderer_env, orderer_fills,
    peer_env,
};
use super::{Style, claim, config, fill, keyed, only, service, tls_secret};
use crate::network::Kind;

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
                config(format!("hlf--{}-ou", node.name), "config.yaml", msp.join("config.yaml")),
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
            mounts.push("name: ou, mountPath: /var/hyperledger/msp/config.yaml, subPath: config.yaml".to_owned());
            volumes.push(format!("name: ou, configMap: {{name: hlf--{name}-ou}}"));
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
