//! What a certificate authority forgets when an older database takes its database's place; what a backup says of keys and authorities.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod recognition;

use bench::Bench;
use fabkeep_engine::{CaptureOptions, RestoreOptions};
use fabkeep_network::{Finding, Severity};

fn reported<'a>(findings: &'a [Finding], code: &str, part: &str) -> &'a Finding {
    let of = |finding: &&Finding| finding.rule.code() == code && finding.what.contains(part);
    findings.iter().find(of).unwrap_or_else(|| panic!("no {code} with {part:?} in {findings:#?}"))
}

#[test]
fn identities_certificates_and_revocations_that_came_later_are_listed_before_they_are_lost() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let path = bench.network().join("Org1/ca/fabric-ca-server.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch(
            "INSERT INTO users (id, type, state) VALUES ('latecomer', 'client', 0);
             INSERT INTO certificates (id, serial_number, authority_key_identifier, status, pem)
               VALUES ('app1', 'abc123', 'a1', 'good', ''), ('latecomer', 'def456', 'a1', 'good', '');
             UPDATE certificates SET status = 'revoked' WHERE id = 'app2';
             UPDATE users SET state = -1 WHERE id = 'app2';
             DELETE FROM users WHERE id = 'app6';",
        )
        .unwrap();
    // A server that runs has more beside its file than in it.
    database
        .execute_batch("PRAGMA journal_mode = WAL; INSERT INTO users (id, state) VALUES ('in-the-journal', 0);")
        .unwrap();
    let nodes = vec!["Org1/ca".to_owned()];
    let options = RestoreOptions { nodes, replace: true, ..RestoreOptions::default() };
    let restored = bench.restore(&options).unwrap();
    let findings = &restored.findings;
    let unknown = reported(findings, "C1", "registered after");
    assert!(unknown.what.starts_with("2 ") && unknown.what.contains("in-the-journal, latecomer"), "{unknown:?}");
    let issued = reported(findings, "C1", "issued after");
    assert!(issued.what.ends_with("app1 (abc123)"), "{issued:?}");
    let revoked = reported(findings, "C2", "revoked after the recovery point and will not be");
    assert!(revoked.what.contains("app2 (serial 2d01da5f575e6df70c53a58f63ae7529f167a14b"), "{revoked:?}");
    let back = reported(findings, "C2", "may enrol again");
    assert!(back.what.ends_with(": app2, app6"), "{back:?}");
    assert!(findings.iter().all(|finding| finding.severity <= Severity::Warning && finding.subject == "Org1/ca"));
    drop(database);

    // The same again: nothing is lost. A database that cannot be read is no reason not to restore it.
    let again = bench.restore(&options).unwrap();
    assert!(again.findings.is_empty(), "{:?}", again.findings);
    std::fs::write(&path, "no database").unwrap();
    let healed = bench.restore(&options).unwrap();
    assert_eq!(reported(&healed.findings, "C1", "cannot be determined").severity, Severity::Note);
}

#[test]
fn a_database_that_has_less_than_in_the_last_recovery_point_is_warned_of() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let findings = bench.capture(&CaptureOptions::default()).unwrap().point.findings;
    assert!(findings.iter().all(|finding| finding.rule.code() != "C3"), "{findings:#?}");
    let change = |statements: &str| {
        let path = bench.network().join("Org1/ca/fabric-ca-server.db");
        rusqlite::Connection::open(path).unwrap().execute_batch(statements).unwrap();
        bench.capture(&CaptureOptions::default()).unwrap().point.findings
    };
    let findings = change("DELETE FROM users WHERE id = 'app6';");
    assert_eq!(reported(&findings, "C3", "the last recovery point has").severity, Severity::Note);
    let findings = change("DELETE FROM certificates WHERE id = 'app1';");
    assert_eq!(reported(&findings, "C3", "the last recovery point has").severity, Severity::Warning);
    let findings = change("DELETE FROM users; DELETE FROM certificates;");
    assert_eq!(reported(&findings, "C3", "it contains no identity").severity, Severity::Warning);
}
