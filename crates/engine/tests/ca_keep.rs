//! A certificate authority keeps its target's TLS certificate and configuration, while its key, certificate and database come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bench::{Bench, copy};
use fabkeep_engine::{
    CaKeep, CaptureOptions, EngineError, Event, Reporter, RestoreOptions, RestoreTarget, Restored, Silent,
};
use fabkeep_platform::{Host, Platform};

const CONFIG: &str = "fabric-ca-server-config.yaml";
const BOTH: CaKeep = CaKeep { tls: true, config: true };

struct Redeployed {
    bench: Bench,
    host: Host,
    home: PathBuf,
    original: PathBuf,
    /// The TLS key of the new deployment.
    new_key: String,
}

fn keys(home: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(home.join("msp/keystore"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("_sk"))
        .collect();
    names.sort();
    names
}

/// The key in the home's key store that belongs to a certificate.
fn key_of(home: &Path, certificate: &str) -> String {
    let public = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        match fabkeep_ledger::certificate::Certificate::from_pem(&bytes) {
            Ok(certificate) => certificate.public_key().to_vec(),
            Err(_) => fabkeep_ledger::certificate::public_key_of_private_pem(&bytes).unwrap(),
        }
    };
    let wanted = public(&home.join(certificate));
    keys(home).into_iter().find(|key| public(&home.join("msp/keystore").join(key)) == wanted).unwrap()
}

/// Org1's CA is captured; then its place holds a new deployment: another root, another TLS certificate (Org2's files, all of them real), a
/// configuration with a newer profile, an empty database.
fn redeployed() -> Redeployed {
    redeployed_with(|_| {})
}

/// The same of a network that is changed before it is captured.
fn redeployed_with(change: impl FnOnce(&Path)) -> Redeployed {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    change(&bench.network());
    bench.capture(&CaptureOptions::default()).unwrap();
    let host = bench.host();
    let (home, original) = (bench.network().join("Org1/ca"), bench.path("original"));
    std::fs::rename(&home, &original).unwrap();
    copy(&bench.network().join("Org2/ca"), &home);
    let config = std::fs::read_to_string(home.join(CONFIG)).unwrap();
    std::fs::write(home.join(CONFIG), config.replace("expiry: 8760h", "expiry: 4380h")).unwrap();
    std::fs::write(home.join("fabric-ca-server.db"), "").unwrap();
    let new_key = key_of(&home, "tls-cert.pem");
    Redeployed { bench, host, home, original, new_key }
}

impl Redeployed {
    fn restore(&self, ca_keep: CaKeep, reporter: &dyn Reporter) -> Result<Restored, EngineError> {
        self.restore_with(ca_keep, &[], reporter)
    }

    fn restore_with(
        &self,
        ca_keep: CaKeep,
        overrides: &[&str],
        reporter: &dyn Reporter,
    ) -> Result<Restored, EngineError> {
        let of_home = |node: &&fabkeep_network::Node| {
            node.directories.iter().any(|directory| directory.path == self.home.display().to_string())
        };
        let nodes = vec![self.host.network().nodes().find(of_home).unwrap().id.to_string()];
        let overrides = overrides.iter().map(|code| (*code).to_owned()).collect();
        let options = RestoreOptions { nodes, replace: true, ca_keep, overrides, ..RestoreOptions::default() };
        self.bench.restore_to(&RestoreTarget::Host(&self.host), &options, reporter)
    }

    fn refused(&self, ca_keep: CaKeep, code: &str, part: &str) {
        match self.restore(ca_keep, &Silent) {
            Err(EngineError::Precondition(findings)) => {
                let reported =
                    findings.iter().any(|finding| finding.rule.code() == code && finding.what.contains(part));
                assert!(reported, "no {code} with {part:?} in {findings:#?}");
            }
            other => panic!("{:?}", other.map(|restored| restored.findings)),
        }
    }

    fn edit(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.home.join(CONFIG)).unwrap();
        assert!(config.contains(from), "{from}");
        std::fs::write(self.home.join(CONFIG), config.replacen(from, to, 1)).unwrap();
    }

    fn same(&self, name: &str, as_of: &Path) -> bool {
        std::fs::read(self.home.join(name)).unwrap() == std::fs::read(as_of.join(name)).unwrap()
    }

    /// TLS and configuration are the new deployment's, everything else is as captured.
    fn assert_kept(&self) {
        let new = self.bench.network().join("Org2/ca");
        assert!(self.same("tls-cert.pem", &new));
        assert!(std::fs::read_to_string(self.home.join(CONFIG)).unwrap().contains("expiry: 4380h"));
        for name in ["ca-cert.pem", "fabric-ca-server.db", "IssuerPublicKey", "msp/keystore/IssuerSecretKey"] {
            assert!(self.same(name, &self.original), "{name}");
        }
        let mut expected = keys(&self.original);
        expected.push(self.new_key.clone());
        expected.sort();
        assert_eq!(keys(&self.home), expected, "its own keys, the new TLS key, and not the new root's");
    }
}

#[test]
fn tls_and_configuration_stay_while_key_certificate_and_database_come_back() {
    let new = redeployed();
    let restored = new.restore(BOTH, &Silent).unwrap();
    new.assert_kept();
    let reported = restored.proven.iter().find(|line| line.starts_with("Org1/ca keeps ")).unwrap();
    assert!(
        reported.contains(CONFIG) && reported.contains("tls-cert.pem") && reported.ends_with("match"),
        "{reported}"
    );
    // Asked for the whole, the whole comes; that the new TLS key goes has to be said.
    new.refused(CaKeep::default(), "B11", &new.new_key);
    new.restore_with(CaKeep::default(), &["B11"], &Silent).unwrap();
    assert!(new.same(CONFIG, &new.original) && new.same("tls-cert.pem", &new.original));
    assert_eq!(keys(&new.home), keys(&new.original));
}

#[test]
fn either_alone_stays() {
    let new = redeployed();
    new.restore(CaKeep { tls: true, config: false }, &Silent).unwrap();
    assert!(new.same("tls-cert.pem", &new.bench.network().join("Org2/ca")) && new.same(CONFIG, &new.original));
    let new = redeployed();
    new.restore(CaKeep { tls: false, config: true }, &Silent).unwrap();
    assert!(new.same("tls-cert.pem", &new.original) && !new.same(CONFIG, &new.original));
}

#[test]
fn what_would_not_fit_is_refused_and_nothing_is_touched() {
    let new = redeployed();
    let config = CaKeep { tls: false, config: true };
    new.edit("type: sqlite3", "type: postgres");
    new.refused(config, "C4", "names a PostgreSQL database");
    new.edit("type: postgres", "type: sqlite3");
    new.edit("datasource: fabric-ca-server.db", "datasource: other.db");
    new.refused(config, "C4", "would begin with an empty database");
    new.edit("datasource: other.db", "datasource: fabric-ca-server.db");
    new.edit("  # Certificate file (default: ca-cert.pem)\n  certfile:", "  certfile: root.pem");
    new.refused(config, "C5", "would make a new root");
    new.edit("certfile: root.pem", "certfile:");
    new.edit("  # TLS for the server's listening port\n  certfile:", "  certfile: server.pem");
    std::fs::rename(new.home.join("tls-cert.pem"), new.home.join("server.pem")).unwrap();
    new.refused(CaKeep { tls: true, config: false }, "C4", "would not be found");
    // As a container calls the same file.
    new.edit("  certfile: server.pem", "  certfile: /etc/hyperledger/fabric-ca-server/server.pem");
    new.restore(BOTH, &Silent).unwrap();
    assert!(new.home.join("server.pem").exists());
    new.edit("certfile: /etc/hyperledger/fabric-ca-server/server.pem", "certfile: /run/secrets/server.pem");
    let restored = new.restore(BOTH, &Silent).unwrap();
    let reported = |finding: &&fabkeep_network::Finding| finding.what.contains("outside of its home");
    assert!(restored.findings.iter().any(|finding| reported(&finding)), "{:?}", restored.findings);

    let new = redeployed();
    std::fs::remove_file(new.home.join("msp/keystore").join(&new.new_key)).unwrap();
    new.refused(BOTH, "C4", "no existing key matches");
    std::fs::write(new.home.join(CONFIG), "a: [").unwrap();
    new.refused(BOTH, "C4", "cannot be read");
    assert!(std::fs::read_to_string(new.home.join(CONFIG)).unwrap() == "a: [", "something was replaced");
    // Nothing is there to be kept: the captured one, and a warning.
    std::fs::remove_dir_all(&new.home).unwrap();
    let restored = new.restore(BOTH, &Silent).unwrap();
    assert!(restored.findings.iter().any(|finding| finding.rule.code() == "C4"), "{:?}", restored.findings);
    assert!(new.same(CONFIG, &new.original) && new.same("tls-cert.pem", &new.original));
}

/// The environment names the authority's certificate and key: they are judged where they are.
#[test]
fn a_certificate_and_a_key_that_the_environment_names_are_found() {
    let new = redeployed_with(|network| {
        let (home, keys) = (network.join("Org1/ca"), network.join("Org1/ca-keys"));
        std::fs::create_dir(&keys).unwrap();
        let key = home.join("msp/keystore").join(key_of(&home, "ca-cert.pem"));
        std::fs::rename(key, keys.join("ca.key")).unwrap();
        std::fs::rename(home.join("ca-cert.pem"), keys.join("ca.pem")).unwrap();
        std::fs::write(
            network.join("docker-compose.yml"),
            "services:\n  ca.org1:\n    image: hyperledger/fabric-ca:1.5\n    environment: {FABRIC_CA_HOME: /home/ca, FABRIC_CA_SERVER_CA_NAME: ca-org1, FABRIC_CA_SERVER_CA_CERTFILE: /keys/ca.pem, FABRIC_CA_SERVER_CA_KEYFILE: /keys/ca.key}\n    volumes: ['./Org1/ca:/home/ca', './Org1/ca-keys:/keys']\n",
        )
        .unwrap();
    });
    let restored = new.restore(BOTH, &Silent).unwrap();
    assert!(new.same("tls-cert.pem", &new.bench.network().join("Org2/ca")));
    assert!(new.same("fabric-ca-server.db", &new.original));
    let reported = restored.proven.iter().find(|line| line.contains(" keeps the target's ")).unwrap();
    assert!(reported.ends_with("match"), "{reported}");
}

/// Is interrupted when a step begins.
struct InterruptedAt(&'static str, AtomicBool);

impl Reporter for InterruptedAt {
    fn event(&self, event: Event<'_>) {
        if let Event::Begin { step, .. } = event
            && step == self.0
        {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    fn is_interrupted(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

/// Is killed between the rename that sets the home aside and the one that puts the restored one into its place.
struct KilledBetween;

impl Reporter for KilledBetween {
    fn event(&self, _: Event<'_>) {}

    fn changing(&self, what: &'static str, path: &std::path::Path) {
        let staged = path.file_name().is_some_and(|name| name.to_string_lossy().contains("fabkeep-restore-"));
        assert!(what != "rename" || !staged, "killed");
    }
}

#[test]
fn a_restore_that_was_killed_still_knows_what_stays() {
    for moved in [false, true] {
        let new = redeployed();
        if moved {
            let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| new.restore(BOTH, &KilledBetween)));
            assert!(killed.is_err() && !new.home.exists());
        } else {
            let reporter = InterruptedAt("prove", AtomicBool::new(false));
            let ended = new.restore(BOTH, &reporter).unwrap_err();
            assert!(
                matches!(&ended, EngineError::Interrupted { source, .. } if matches!(**source, EngineError::Stopped)),
                "{ended:?}"
            );
        }
        let restored = new.restore(BOTH, &Silent).unwrap();
        assert!(restored.resumed);
        new.assert_kept();
        assert!(restored.directories[0].set_aside.as_ref().unwrap().join("tls-cert.pem").exists());
    }
}
