//! How seven deployers lay a network out on Kubernetes: labels, environment, mounts and traps as theirs, the text our own.

mod bevel;
mod fabric_operator;
mod hlf_operator;
mod node;
mod owkin;
mod pivt;
mod raw;
mod test_network;

use std::path::{Path, PathBuf};

pub use bevel::BEVEL;
pub use fabric_operator::FABRIC_OPERATOR;
pub use hlf_operator::HLF_OPERATOR;
pub use owkin::OWKIN;
pub use pivt::PIVT;
pub use raw::RAW;
pub use test_network::TEST_NETWORK;

use crate::network::{Fill, Keyed, Node};

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
