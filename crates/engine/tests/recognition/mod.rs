//! What a backup says of keys, tokens, certificate authorities' files and databases, and CouchDBs, in every form that operators have.

mod authorities;
mod keys;

use std::path::{Path, PathBuf};

use fabkeep_engine::{CaptureOptions, EngineError};
use fabkeep_network::{Finding, Severity};
use fabkeep_platform::{Host, Inventory, discover};

use crate::bench::Bench;

/// One node of the small network, its data as it is.
pub struct One {
    pub bench: Bench,
    node: &'static str,
}

impl One {
    pub fn new(node: &'static str) -> One {
        One { bench: Bench::new(fabkeep_fixtures::NETWORK_SMALL), node }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.bench.network().canonicalize().unwrap().join(self.node).join(name)
    }

    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name}: {from}");
        std::fs::write(self.path(name), text.replacen(from, to, 1)).unwrap();
    }

    /// What a backup of the node finds, and whether there is a recovery point.
    pub fn capture(&self) -> (bool, Vec<Finding>) {
        self.capture_with(|_| {})
    }

    pub fn capture_with(&self, change: impl Fn(&mut Inventory)) -> (bool, Vec<Finding>) {
        let base = self.bench.folder.path();
        let mut found = discover(&self.bench.network().join(self.node), base).unwrap();
        change(&mut found.inventory);
        let host = Host::new(&found.inventory, base).unwrap();
        match self.bench.capture_from(&host, &CaptureOptions::default()) {
            Ok(captured) => (true, captured.point.findings),
            Err(EngineError::Refused(findings)) => (false, findings),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[track_caller]
pub fn reported<'a>(what: &str, findings: &'a [Finding], severity: Severity, code: &str, part: &str) -> &'a Finding {
    let of =
        |finding: &&Finding| finding.severity == severity && finding.rule.code() == code && finding.what.contains(part);
    findings.iter().find(of).unwrap_or_else(|| panic!("{what}: no {severity} {code} with {part:?} in {findings:#?}"))
}

/// A node's findings of its own, without what is said because its network is not there.
pub fn own(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| !["I1", "P9", "O2"].contains(&finding.rule.code())).collect()
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

#[test]
fn a_peer_with_a_couchdb_is_restored_above_an_empty_one() {
    let one = One::new("Org1");
    let core = "peer0/config/core.yaml";
    one.edit(core, "stateDatabase: goleveldb", "stateDatabase: CouchDB");
    std::fs::remove_dir_all(one.path("peer0/production/ledgersData/stateLeveldb")).unwrap();
    // Its CouchDB is not here: a backup says what a restore needs, and the restore says it again.
    let (complete, findings) = one.capture();
    assert!(complete, "{findings:#?}");
    reported("far away", &findings, Severity::Warning, "P3", "not a node of the inventory");
    let data = one.path("couchdb0/data");
    for file in ["_dbs.couch", "shards/00000000-7fffffff/mychannel_.1700000000.couch"] {
        std::fs::create_dir_all(data.join(file).parent().unwrap()).unwrap();
        std::fs::write(data.join(file), b"documents").unwrap();
    }
    let (complete, findings) = one.capture();
    assert!(complete, "{findings:#?}");
    reported("beside", &findings, Severity::Note, "P3", "left out");
    let host = {
        let found = discover(&one.bench.network().join("Org1"), one.bench.folder.path()).unwrap();
        Host::new(&found.inventory, one.bench.folder.path()).unwrap()
    };
    let peer = {
        let network = fabkeep_platform::Platform::network(&host);
        network.nodes().find(|node| node.id.node == "peer0").unwrap().id.to_string()
    };
    let options = fabkeep_engine::RestoreOptions { nodes: vec![peer], replace: true, ..Default::default() };
    let target = fabkeep_engine::RestoreTarget::Host(&host);
    let restored = one.bench.restore_to(&target, &options, &fabkeep_engine::Silent).unwrap();
    reported("restore", &restored.findings, Severity::Note, "P3", "restored with it");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "the state database is empty");
}
