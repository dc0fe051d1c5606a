//! The command, as a user calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::network::Network;

/// A repository with its keys, and the command.
pub struct Place {
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    namespaces: Vec<String>,
}

impl Place {
    pub fn new(network: &Network<'_>) -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
            kubeconfig: network.cluster.kubeconfig().to_owned(),
            namespaces: network.names(),
        };
        place.ok(&["init", "--repo", place.repo().to_str().unwrap()]);
        place
    }

    pub fn repo(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// The command with these arguments, without a cluster's options.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabkeep"));
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env("HOME", self.folder.path())
            .env("FABKEEP_STATE_DIR", self.folder.path().join("state"))
            .env("FABKEEP_HELPER_IMAGE", "k8s.local/busybox:1")
            .current_dir(self.folder.path());
        command
    }

    /// The command on the network's namespaces.
    pub fn on_cluster(&self, arguments: &[&str]) -> Command {
        self.with_kubeconfig(arguments, &self.kubeconfig)
    }

    pub fn with_kubeconfig(&self, arguments: &[&str], kubeconfig: &Path) -> Command {
        let mut command = self.command(arguments);
        command.arg("--kubeconfig").arg(kubeconfig);
        for namespace in &self.namespaces {
            command.args(["--namespace", namespace]);
        }
        command
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        succeeded(self.command(arguments).output().unwrap())
    }

    pub fn backup(&self) -> String {
        succeeded(self.on_cluster(&["backup", "--repo", self.repo().to_str().unwrap()]).output().unwrap())
    }

    pub fn restore(&self, more: &[&str]) -> String {
        let repo = self.repo();
        let mut arguments = vec!["restore", "--repo", repo.to_str().unwrap()];
        arguments.extend(more);
        succeeded(self.command(&arguments).arg("--kubeconfig").arg(&self.kubeconfig).output().unwrap())
    }
}

/// Done, or done with findings: the output.
pub fn succeeded(output: Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}\n{stdout}\n{stderr}", output.status);
    format!("{stdout}{stderr}")
}
