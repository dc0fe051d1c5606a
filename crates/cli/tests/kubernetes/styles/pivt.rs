//! PIVT: StatefulSets, a Docker-in-Docker beside the peer whose disk is nobody's, MSPs in Secrets mounted key by key.

use super::node::{
    CA_IMAGE, CA_PROBE, Deployment, ORDERER_IMAGE, ORDERER_PROBE, PEER_IMAGE, PEER_PROBE, orderer_env, peer_env,
};
use super::{Style, claim, fill, msp_secret, nothing, service, tls_secret};
use crate::network::Kind;

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
