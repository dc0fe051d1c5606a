//! bevel-operator-fabric: custom resources with the releases' names, no owner references; the orderers carry FABRIC_CA_CLIENT_HOME; the
//! raft log lies beside the ledger, not in it.

use super::node::{
    CA_IMAGE, CA_PROBE, Deployment, ORDERER_IMAGE, ORDERER_PROBE, PEER_IMAGE, PEER_PROBE, orderer_env, orderer_fills,
    peer_env, short,
};
use super::{MSP_ITEMS, Style, claim, fill, msp_secret, nothing, service, tls_secret};
use crate::network::Kind;

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
