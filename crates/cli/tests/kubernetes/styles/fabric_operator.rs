//! fabric-operator: `<n>-pvc` by subPath at /data, an owner reference to the custom resource, `creator: fabric`; a state database's claim
//! even where LevelDB is used.

use super::node::{
    CA_IMAGE, CA_PROBE, Deployment, ORDERER_IMAGE, ORDERER_PROBE, PEER_IMAGE, PEER_PROBE, orderer_env, orderer_fills,
    peer_env, short,
};
use super::{Style, claim, config, fill, keyed, nothing, only, service};
use crate::network::Kind;

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
            config(format!("{name}-config"), "config.yaml", msp.join("config.yaml")),
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
            mounts.push("name: node-ou, mountPath: /certs/msp/config.yaml, subPath: config.yaml".to_owned());
            volumes.push(format!("name: node-ou, configMap: {{name: {name}-config}}"));
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
