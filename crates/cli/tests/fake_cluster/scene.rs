//! A cluster with a network on it, a repository, and the command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fabkeep_fake_cluster::fabric::{self, Node};
use fabkeep_fake_cluster::{Cluster, FakeCluster};
use tempfile::TempDir;

/// A cluster with nodes of the small network, and a repository beside it.
pub struct Scene {
    pub cluster: FakeCluster,
    pub nodes: Vec<Node>,
    folder: TempDir,
}

/// What a command ended with.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    /// Standard output and standard error.
    pub text: String,
}

impl Scene {
    /// These nodes with their data, and an empty repository.
    pub fn with(nodes: &[Node]) -> Scene {
        let scene =
            Scene { cluster: FakeCluster::start(), nodes: nodes.to_vec(), folder: tempfile::tempdir().unwrap() };
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &scene.network()).unwrap();
        fabric::deploy(&scene.cluster, &scene.network(), nodes);
        fabric::serve_operations(&scene.cluster, nodes);
        let made =
            scene.run(&["init", "--repo", "repository", "--identity", "keys/identity", "--writer", "keys/writer"]);
        assert_eq!(made.code, 0, "{}", made.text);
        scene
    }

    /// Two peers and an orderer.
    pub fn new() -> Scene {
        Scene::with(&fabric::THREE_NODES)
    }

    /// The network's data on this machine, as it was put into the claims.
    pub fn network(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabkeep"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.folder.path().join("config"))
            .env("NO_COLOR", "1");
        for variable in ["FABKEEP_REPO", "FABKEEP_IDENTITY", "FABKEEP_WRITER", "KUBECONFIG"] {
            command.env_remove(variable);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(&self.command(arguments).output().unwrap())
    }

    /// The command on the cluster, in the network's namespaces.
    pub fn on_cluster(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig());
        for namespace in fabric::namespaces(&self.nodes) {
            command.args(["--namespace", &namespace]);
        }
        command
    }

    pub fn discover(&self) -> Ended {
        ended(&self.on_cluster(&["discover"]).output().unwrap())
    }

    pub fn backup(&self, more: &[&str]) -> Ended {
        let mut command = self.on_cluster(&["backup", "--repo", "repository", "--writer", "keys/writer", "-q"]);
        ended(&command.args(more).output().unwrap())
    }

    /// A backup that must succeed, with findings or without.
    pub fn back_up(&self) {
        let backup = self.backup(&[]);
        assert!(matches!(backup.code, 0 | 3), "{}", backup.text);
    }

    pub fn verify(&self) -> Ended {
        self.run(&["verify", "--repo", "repository", "--identity", "keys/identity", "-q"])
    }

    /// Restores to the cluster.
    pub fn restore(&self, more: &[&str]) -> Ended {
        ended(&self.restore_command(more).output().unwrap())
    }

    pub fn restore_command(&self, more: &[&str]) -> Command {
        let mut command =
            self.command(&["restore", "--repo", "repository", "--identity", "keys/identity", "--deadline", "5", "-q"]);
        command.arg("--kubernetes").arg("--kubeconfig").arg(self.cluster.kubeconfig()).args(more);
        command
    }

    /// Restores to a folder of this machine.
    pub fn restore_to(&self, folder: &str) -> Ended {
        self.run(&["restore", "--repo", "repository", "--identity", "keys/identity", "--to", folder, "-q"])
    }

    /// What is in the claims: size and hash of each file, by claim and path.
    pub fn contents(&self) -> BTreeMap<String, u64> {
        contents(&self.cluster, &self.nodes)
    }
}

pub fn ended(output: &Output) -> Ended {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ended { code: output.status.code().unwrap_or(-1), text }
}

/// A hash of each file of the nodes' claims, by claim and path.
pub fn contents(cluster: &Cluster, nodes: &[Node]) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for node in nodes {
        let folder = cluster.volume(&node.namespace(), &node.claim());
        add_files(&folder, &format!("{}/{}", node.namespace(), node.claim()), &mut out);
    }
    out
}

fn add_files(folder: &Path, name: &str, out: &mut BTreeMap<String, u64>) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            add_files(&entry.path(), &name, out);
        } else if entry.file_type().unwrap().is_file() {
            let mut hasher = DefaultHasher::new();
            std::fs::read(entry.path()).unwrap().hash(&mut hasher);
            out.insert(name, hasher.finish());
        }
    }
}
