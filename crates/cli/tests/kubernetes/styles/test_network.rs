//! test-network-k8s: every container is `main`, one claim for the whole organization, the MSPs on it, TLS from cert-manager's Secrets, raft
//! logs and snapshots in the same directory.

use super::node::{
    CA_IMAGE, CA_PROBE, Deployment, ORDERER_IMAGE, ORDERER_PROBE, PEER_IMAGE, PEER_PROBE, orderer_env, peer_env,
};
use super::{Style, claim, fill, service, tls_secret};
use crate::network::{Fill, Kind};

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
