//! A real Fabric CA with its database in a file: restored, it enrols and revokes as before.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::network::{BINARIES, KIT, Scenario, text};

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const ASKED_AGAIN: Duration = Duration::from_millis(200);

/// A CA in a network namespace of its own, its clients and a repository beside it.
struct Authority {
    kit: PathBuf,
    binaries: PathBuf,
    space: String,
    folder: tempfile::TempDir,
    server: Option<Child>,
    _scenario: Scenario,
}

impl Authority {
    /// A running CA with an administrator and a user, captured. Returns `None`, and says so, when no binaries are named.
    fn start(name: &str, scenario: &str) -> Option<Authority> {
        let found = std::env::var_os(BINARIES).map(|folder| PathBuf::from(folder).join("ca/bin"));
        let (Some(binaries), Some(kit)) = (found.filter(|folder| folder.exists()), std::env::var_os(KIT)) else {
            let line = format!("NOT TESTED: {name}: {BINARIES} and {KIT} name no real Fabric CA\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        };
        let mut authority = Authority {
            kit: PathBuf::from(kit),
            binaries,
            space: format!("fk-{name}"),
            folder: tempfile::tempdir().unwrap(),
            server: None,
            _scenario: Scenario::begin(scenario, "CA", "-"),
        };
        std::fs::create_dir_all(authority.home()).unwrap();
        // The namespace is made once: the server and its clients come later.
        assert!(authority.inside("true").status().unwrap().success());
        authority.up();
        authority.must("admin", &["enroll", "-u", "https://admin:adminpw@localhost:7054"]);
        authority.enrolls("user1");
        authority.fabkeep(&["init", "--repo", "repository", "--identity", "keys/identity", "--writer", "keys/writer"]);
        authority.fabkeep(&["discover", "--root", "network", "--inventory", "fabkeep.toml"]);
        authority.fabkeep(&[
            "backup",
            "--repo",
            "repository",
            "--inventory",
            "fabkeep.toml",
            "--writer",
            "keys/writer",
        ]);
        Some(authority)
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("network/Org1/ca")
    }

    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.kit.join("net"));
        command.arg("space").arg(&self.space).arg(program.as_ref());
        let folder = self.folder.path();
        command.current_dir(folder).env("XDG_CONFIG_HOME", folder).env("HOME", folder).stdin(Stdio::null());
        command
    }

    /// Starts the server, and waits until it answers.
    fn up(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.inside(self.binaries.join("fabric-ca-server"));
        command.args(["start", "-b", "admin:adminpw", "--tls.enabled", "--csr.hosts", "localhost,127.0.0.1"]);
        command.env("FABRIC_CA_SERVER_HOME", self.home()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !self.client("nobody", &["getcainfo", "-u", "https://localhost:7054"]).status.success() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(begun.elapsed() < ANSWERS_WITHIN, "the CA does not answer: {log}");
            std::thread::sleep(ASKED_AGAIN);
        }
    }

    /// Ends the server as a crash does.
    fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// A command of a client, each with a folder of its own.
    fn client(&self, who: &str, arguments: &[&str]) -> Output {
        let mut command = self.inside(self.binaries.join("fabric-ca-client"));
        command.args(arguments).arg("--tls.certfiles").arg(self.home().join("tls-cert.pem"));
        command.env("FABRIC_CA_CLIENT_HOME", self.folder.path().join("clients").join(who)).output().unwrap()
    }

    fn must(&self, who: &str, arguments: &[&str]) {
        let output = self.client(who, arguments);
        assert!(output.status.success(), "{who} {arguments:?}: {}", text(&output));
    }

    /// A new user gets a certificate.
    fn enrolls(&self, user: &str) {
        self.must("admin", &["register", "--id.name", user, "--id.secret", "secret"]);
        self.must(user, &["enroll", "-u", &format!("https://{user}:secret@localhost:7054")]);
    }

    fn fabkeep(&self, arguments: &[&str]) -> String {
        let output = self.inside(env!("CARGO_BIN_EXE_fabkeep")).args(arguments).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    fn restore(&self, more: &[&str]) -> String {
        let restore = ["restore", "--repo", "repository", "--inventory", "fabkeep.toml", "--identity", "keys/identity"];
        self.fabkeep(&[&restore[..], &["--replace"], more].concat())
    }

    /// What was issued and revoked behind the capture is told, and not known any more; everything else goes on.
    fn has_forgotten(&mut self, told: &str) {
        assert!(told.contains("[C1]") && told.contains("user2"), "{told}");
        assert!(told.contains("[C2]"), "{told}");
        self.up();
        let unknown = self.client("user2", &["reenroll"]);
        assert!(!unknown.status.success(), "{}", text(&unknown));
        self.must("user1", &["reenroll"]);
        self.enrolls("user3");
        self.must("admin", &["revoke", "-e", "user1", "--gencrl"]);
        let refused = self.client("user1", &["reenroll"]);
        assert!(!refused.status.success(), "{}", text(&refused));
        let crl = self.folder.path().join("clients/admin/msp/crls/crl.pem");
        assert!(std::fs::read_to_string(crl).unwrap().contains("X509 CRL"));
        self.fabkeep(&["backup", "--repo", "repository", "--inventory", "fabkeep.toml", "--writer", "keys/writer"]);
    }

    /// Issues and revokes certificates that the recovery point does not know.
    fn went_on(&self) {
        self.enrolls("user2");
        self.must("admin", &["revoke", "-e", "user1"]);
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.kill();
        let _ = Command::new("ip").args(["netns", "delete", &self.space]).output();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

#[test]
fn a_ca_that_comes_back_enrols_and_revokes() {
    let scenario = "a certificate authority restored; enrolled and revoked afterwards";
    let Some(mut authority) = Authority::start("ca", scenario) else { return };
    let tls = std::fs::read(authority.home().join("tls-cert.pem")).unwrap();
    authority.went_on();
    authority.kill();
    let told = authority.restore(&[]);
    assert!(std::fs::read(authority.home().join("tls-cert.pem")).unwrap() == tls);
    authority.has_forgotten(&told);
}

#[test]
fn a_ca_that_keeps_its_newer_tls_certificate_enrols_and_revokes() {
    let scenario = "a certificate authority restored with --ca-keep; enrolled and revoked afterwards";
    let Some(mut authority) = Authority::start("cakeep", scenario) else { return };
    authority.kill();
    let path = authority.home().join("tls-cert.pem");
    let old = std::fs::read(&path).unwrap();
    // The server makes another one.
    std::fs::remove_file(&path).unwrap();
    authority.up();
    authority.went_on();
    authority.kill();
    let new = std::fs::read(&path).unwrap();
    assert!(new != old);
    let told = authority.restore(&["--ca-keep", "tls,config"]);
    assert!(std::fs::read(&path).unwrap() == new);
    authority.has_forgotten(&told);
}
