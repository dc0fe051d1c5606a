//! A network, a repository and the command, in a temporary folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub struct Place {
    pub folder: TempDir,
}

/// What a command ended with.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub json: serde_json::Value,
    pub text: String,
}

impl Place {
    /// An empty place.
    pub fn empty() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    /// A place with the small network and a repository.
    pub fn new() -> Place {
        let place = Place::empty();
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &place.network()).unwrap();
        assert_eq!(place.init().code, 0);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn network(&self) -> PathBuf {
        self.path("network")
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fabkeep"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("FABKEEP_STATE_DIR", self.path("state"))
            .env_remove("FABKEEP_WINDOW_KEY")
            .env_remove("FABKEEP_ROOT")
            .env_remove("FABKEEP_REPO")
            .env_remove("FABKEEP_IDENTITY")
            .env_remove("FABKEEP_WRITER");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).args(["--output", "json"]).output().unwrap())
    }

    pub fn init(&self) -> Ended {
        self.run(&["init", "--repo", "repository", "--identity", "keys/identity", "--writer", "keys/writer"])
    }

    pub fn backup(&self, more: &[&str]) -> Ended {
        let mut arguments = vec!["backup", "--repo", "repository", "--root", "network", "--writer", "keys/writer"];
        arguments.extend(more);
        self.run(&arguments)
    }

    pub fn verify(&self) -> Ended {
        self.run(&["verify", "--repo", "repository", "--identity", "keys/identity"])
    }

    pub fn restore(&self, more: &[&str]) -> Ended {
        let mut arguments = vec!["restore", "--repo", "repository", "--identity", "keys/identity"];
        arguments.extend(more);
        self.run(&arguments)
    }
}

pub fn ended(output: Output) -> Ended {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ended {
        code: output.status.code().unwrap_or(-1),
        json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        text,
    }
}

/// Asserts that two trees hold the same files with the same bytes.
pub fn assert_same_tree(one: &Path, other: &Path) {
    let status = Command::new("diff").arg("-r").arg(one).arg(other).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}
