//! Bevel's charts: StatefulSets with claim templates; keys come from Vault into an emptyDir (a Secret stands in for Vault); the CA's key
//! in a Secret of its own.

use std::path::{Path, PathBuf};

use super::node::{
    CA_IMAGE, CA_PROBE, Deployment, ORDERER_IMAGE, ORDERER_PROBE, PEER_IMAGE, PEER_PROBE, orderer_env, peer_env, short,
};
use super::{MSP_ITEMS, Style, claim, fill, keyed, msp_secret, nothing, service, tls_secret};
use crate::network::Kind;

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
