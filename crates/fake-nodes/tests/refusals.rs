//! A fake node refuses where the real node does, on real nodes' data; else it would prove nothing about a restore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

struct Network {
    folder: tempfile::TempDir,
}

/// A started node; stopped when dropped.
struct Node {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Network {
    fn new() -> Network {
        let folder = tempfile::tempdir().unwrap();
        fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, folder.path()).unwrap();
        for name in ["peer", "orderer", "fabric-ca-server"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fabkeep-fake-node"), folder.path().join(name)).unwrap();
        }
        Network { folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn start(&self, name: &str, arguments: &[&str], variables: &[(&str, PathBuf)]) -> Node {
        let mut command = Command::new(self.at(name));
        command.args(arguments).env_clear().stderr(Stdio::piped());
        for (key, value) in variables {
            command.env(key, value);
        }
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Node { child, lines }
    }

    fn peer(&self) -> Node {
        self.start(
            "peer",
            &["node", "start"],
            &[
                ("CORE_PEER_FILESYSTEMPATH", self.at("Org1/peer0/production")),
                ("CORE_PEER_MSPCONFIGPATH", self.at("Org1/peer0/msp")),
                ("CORE_OPERATIONS_LISTENADDRESS", "127.0.0.1:0".into()),
            ],
        )
    }

    fn orderer(&self) -> Node {
        self.start(
            "orderer",
            &[],
            &[
                ("ORDERER_FILELEDGER_LOCATION", self.at("OrdererOrg/orderer1/production")),
                ("ORDERER_CONSENSUS_WALDIR", self.at("OrdererOrg/orderer1/production/etcdraft/wal")),
                ("ORDERER_GENERAL_LOCALMSPDIR", self.at("OrdererOrg/orderer1/msp")),
                ("ORDERER_OPERATIONS_LISTENADDRESS", "127.0.0.1:0".into()),
            ],
        )
    }

    fn authority(&self) -> Node {
        let home = self.at("Org1/ca");
        self.start(
            "fabric-ca-server",
            &["start"],
            &[("FABRIC_CA_SERVER_HOME", home), ("FABRIC_CA_SERVER_PORT", "0".into())],
        )
    }
}

impl Node {
    /// Its lines up to one with this text; all of them, if none has it.
    fn until(&self, text: &str) -> Vec<String> {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(30)) {
            let found = line.contains(text);
            seen.push(line);
            if found {
                break;
            }
        }
        seen
    }

    fn says(&self, text: &str) -> Vec<String> {
        let seen = self.until(text);
        assert!(seen.last().is_some_and(|line| line.contains(text)), "{text:?} is not in {seen:#?}");
        seen
    }

    fn refuses(mut self, text: &str) {
        self.says(text);
        let begun = std::time::Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it said {text:?}, and runs all the same");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(2));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts another node's keys in the place of these.
fn foreign_keys(keystore: &Path, other: &Path) {
    fs::remove_dir_all(keystore).unwrap();
    fs::create_dir(keystore).unwrap();
    for key in fs::read_dir(other).unwrap() {
        let key = key.unwrap();
        fs::copy(key.path(), keystore.join(key.file_name())).unwrap();
    }
}

/// Cuts the last block of a chain.
fn cut(chain: &Path) {
    let file = fs::OpenOptions::new().write(true).open(chain.join("blockfile_000000")).unwrap();
    file.set_len(file.metadata().unwrap().len() - 10).unwrap();
}

#[test]
fn a_peer_refuses_what_a_real_one_refuses() {
    let network = Network::new();
    let first = network.peer();
    first.says("Opened ledger mychannel at height 27");
    first.says("serving at");
    network.peer().refuses("lock is already acquired");
    drop(first);

    cut(&network.at("Org1/peer0/production/ledgersData/chains/chains/mychannel"));
    let behind = network.peer();
    let seen = behind.says("serving at");
    assert!(seen.iter().any(|line| line.contains("is ahead of the block store")), "{seen:#?}");
    assert!(!seen.iter().any(|line| line.contains("Opened ledger mychannel")), "{seen:#?}");
    drop(behind);

    foreign_keys(&network.at("Org1/peer0/msp/keystore"), &network.at("Org2/peer0/msp/keystore"));
    network.peer().refuses("no key for its certificate");
}

#[test]
fn an_orderer_refuses_what_a_real_one_refuses() {
    let network = Network::new();
    network.orderer().says("channel=mychannel raft.node: opened at height 27");

    let log = network.at("OrdererOrg/orderer1/production/etcdraft/wal/mychannel");
    // Beside the log lies an empty file for the next one, which nobody reads yet.
    let files = fs::read_dir(&log).unwrap().map(|file| file.unwrap().path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "wal")).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[400] ^= 1;
    fs::write(&file, bytes).unwrap();
    network.orderer().refuses("mychannel");

    fs::remove_dir_all(&log).unwrap();
    let without = network.orderer();
    let seen = without.says("serving at");
    assert!(seen.iter().any(|line| line.contains("No Raft leader, the log is missing")), "{seen:#?}");
}

#[test]
fn a_certificate_authority_refuses_a_foreign_key_and_a_lost_database() {
    let network = Network::new();
    network.authority().says("Listening");
    let database = network.at("Org1/ca/fabric-ca-server.db");
    fs::rename(&database, database.with_extension("lost")).unwrap();
    network.authority().refuses("Failed to open sqlite3 DB");
    fs::rename(database.with_extension("lost"), &database).unwrap();
    foreign_keys(&network.at("Org1/ca/msp/keystore"), &network.at("Org2/ca/msp/keystore"));
    network.authority().refuses("CA certificate and key do not match");
}
