//! What the manifests of most deployers have in common: the workload of a node, its environment, its image.

use std::path::Path;

use super::fill;
use crate::network::{Fill, Kind, Node};

/// The Deployment that most deployers make, with what differs between them.
pub struct Deployment<'a> {
    pub name: &'a str,
    pub kind: &'a str,
    pub labels: &'a str,
    pub container: &'a str,
    pub image: &'a str,
    pub command: &'a str,
    pub env: Vec<(&'a str, String)>,
    pub mounts: Vec<String>,
    pub volumes: Vec<String>,
    pub init: String,
    pub more: String,
    pub probe: &'a str,
    pub templates: Vec<String>,
}

impl Deployment<'_> {
    pub fn text(&self) -> String {
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

pub const PEER_IMAGE: &str = "k8s.local/hyperledger/fabric-peer:2.5";
pub const ORDERER_IMAGE: &str = "k8s.local/hyperledger/fabric-orderer:2.5";
pub const CA_IMAGE: &str = "k8s.local/hyperledger/fabric-ca:1.5";
pub const PEER_PROBE: &str = "httpGet: {path: /healthz, port: 9443}";
pub const ORDERER_PROBE: &str = "httpGet: {path: /healthz, port: 8443}";
pub const CA_PROBE: &str = "tcpSocket: {port: 7054}";

pub fn peer_env<'a>(node: &Node, data: &str, msp: &str, tls: [&str; 3]) -> Vec<(&'a str, String)> {
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

pub fn orderer_env<'a>(node: &Node, ledger: &str, raft: &str, msp: &str, tls: [&str; 2]) -> Vec<(&'a str, String)> {
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
pub fn orderer_fills(claim: &str, ledger: &str, raft: &str, directory: &Path) -> Vec<Fill> {
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

pub fn short(kind: Kind) -> &'static str {
    match kind {
        Kind::Peer => "peer",
        Kind::Orderer => "orderer",
        Kind::Ca => "ca",
    }
}
