//! Certificate authorities: the tables of their databases, their idemix issuers, and copies of one under another's name.

use std::fs;

use fabkeep_engine::CaptureOptions;
use fabkeep_network::{Finding, Severity};

use super::absence::Place;
use super::{assert_found, assert_no_alarm, copy, verdict};
use crate::bench::Bench;

const CA: &str = "Org1/ca";

fn change_database(bench: &Bench, statements: &str) {
    let database = rusqlite::Connection::open(bench.network().join("Org1/ca/fabric-ca-server.db")).unwrap();
    database.execute_batch(statements).unwrap();
}

/// An identity that enrolled for an idemix credential, as a server writes it.
const CREDENTIAL: &str = "INSERT INTO credentials VALUES('app1','1','c','','good',0,NULL,NULL,1); UPDATE revocation_authority_info SET next_handle = 2";

#[test]
fn tables_and_columns_that_a_ca_database_lacks_are_errors() {
    let place = Place::new();
    for (statements, about) in [
        ("DROP TABLE affiliations", "its table affiliations is missing"),
        ("DROP TABLE credentials", "its table credentials is missing"),
        ("DROP TABLE revocation_authority_info", "its table revocation_authority_info is missing"),
        (
            "DROP TABLE affiliations; DROP TABLE properties; DROP TABLE revocation_authority_info; DROP TABLE nonces; DROP TABLE credentials",
            "its table affiliations is missing",
        ),
        ("DROP TABLE users", "sqlite cannot read it"),
        ("DROP TABLE certificates", "sqlite cannot read it"),
        ("DROP TABLE properties; DROP TABLE credentials", "its table credentials is missing"),
        ("ALTER TABLE users DROP COLUMN incorrect_password_attempts", "no column incorrect_password_attempts"),
        ("ALTER TABLE users DROP COLUMN level", "its table users has no column level"),
        ("ALTER TABLE users DROP COLUMN affiliation", "its table users has no column affiliation"),
        ("ALTER TABLE certificates DROP COLUMN level", "its table certificates has no column level"),
        ("ALTER TABLE certificates DROP COLUMN ca_label", "its table certificates has no column ca_label"),
        ("ALTER TABLE affiliations DROP COLUMN level", "its table affiliations has no column level"),
        ("ALTER TABLE credentials DROP COLUMN cred", "its table credentials has no column cred"),
        (
            "ALTER TABLE revocation_authority_info DROP COLUMN next_handle",
            "its table revocation_authority_info has no column next_handle",
        ),
        ("DELETE FROM certificates", "4 of its identities have enrolled, and it contains no certificate"),
    ] {
        place.refused_after(CA, |bench| change_database(bench, statements), "C3", CA, about);
    }
    let emptied = format!("{CREDENTIAL}; DELETE FROM revocation_authority_info");
    place.refused_after(
        CA,
        |bench| change_database(bench, &emptied),
        "C3",
        CA,
        "1 idemix credentials, and its table revocation_authority_info is empty",
    );
    let own = "DELETE FROM affiliations; UPDATE users SET affiliation = 'org9.sales' WHERE id = 'app1'";
    place.refused_after(CA, |bench| change_database(bench, own), "C3", CA, "its identities belong to org9.sales");
}

#[test]
fn what_a_server_makes_again_by_itself_is_no_alarm() {
    let place = Place::new();
    for statements in [
        "DELETE FROM affiliations",
        "DROP TABLE nonces",
        "DELETE FROM properties",
        "DELETE FROM properties WHERE property = 'identity.level'",
        "DROP TABLE properties",
        "DELETE FROM revocation_authority_info",
        "UPDATE users SET affiliation = 'org9' WHERE id = 'app1'",
        CREDENTIAL,
    ] {
        let (made, findings) = place.after(CA, |bench| change_database(bench, statements));
        assert!(made, "{statements}: {findings:#?}");
        assert_no_alarm(&findings);
    }
    let (made, findings) =
        place.after(CA, |bench| change_database(bench, &format!("{CREDENTIAL}; DELETE FROM credentials")));
    assert!(made, "{findings:#?}");
    assert_found(&findings, "C3", CA, "it has issued 1 idemix credentials, and contains none");
}

#[test]
fn keys_of_an_idemix_issuer_that_are_damaged_or_do_not_belong_together_are_errors() {
    let place = Place::new();
    let cut = |file: &'static str, len: u64| {
        move |bench: &Bench| {
            let file = fs::File::options().write(true).open(bench.network().join(CA).join(file)).unwrap();
            file.set_len(len).unwrap();
        }
    };
    let text = |file: &'static str, text: &'static str| {
        move |bench: &Bench| fs::write(bench.network().join(CA).join(file), text).unwrap()
    };
    let flip = |file: &'static str, at: usize| {
        move |bench: &Bench| {
            let path = bench.network().join(CA).join(file);
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 4;
            fs::write(path, bytes).unwrap();
        }
    };
    let swap = |file: &'static str| {
        move |bench: &Bench| {
            fs::copy(bench.network().join("Org2/ca").join(file), bench.network().join(CA).join(file)).unwrap();
        }
    };
    const PRIVATE: &str = "msp/keystore/IssuerRevocationPrivateKey";
    const SECRET: &str = "msp/keystore/IssuerSecretKey";
    type Change = Box<dyn Fn(&Bench)>;
    let changes: Vec<(Change, &str)> = vec![
        (Box::new(cut("IssuerPublicKey", 100)), "ca/IssuerPublicKey it is not a whole public key"),
        (Box::new(flip("IssuerPublicKey", 0x40)), "one of its points is not on the curve"),
        (Box::new(flip("IssuerPublicKey", 3)), "does not match the hash in it"),
        (Box::new(text("IssuerPublicKey", "hello")), "a part of it is missing"),
        (Box::new(swap("IssuerPublicKey")), "ca/IssuerPublicKey it does not belong to the idemix issuer's secret key"),
        (Box::new(swap(SECRET)), "ca/IssuerPublicKey it does not belong to the idemix issuer's secret key"),
        (Box::new(flip(SECRET, 31)), "ca/IssuerPublicKey it does not belong to the idemix issuer's secret key"),
        (Box::new(cut(SECRET, 31)), "IssuerSecretKey it has 31 bytes"),
        (Box::new(swap("IssuerRevocationPublicKey")), "IssuerRevocationPublicKey it does not belong"),
        (Box::new(swap(PRIVATE)), "IssuerRevocationPublicKey it does not belong"),
        (Box::new(cut("IssuerRevocationPublicKey", 100)), "IssuerRevocationPublicKey it is damaged or truncated"),
        (Box::new(cut(PRIVATE, 100)), "IssuerRevocationPrivateKey it is damaged or truncated"),
        (
            Box::new(text(PRIVATE, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
            "IssuerRevocationPrivateKey it is damaged or truncated",
        ),
    ];
    for (change, about) in changes {
        place.refused_after(CA, change, "C5", CA, about);
    }
}

/// Org1's certificate authority is replaced by a copy of Org2's.
fn copied(bench: &Bench) {
    let network = bench.network();
    fs::remove_dir_all(network.join(CA)).unwrap();
    copy(&network.join("Org2/ca"), &network.join(CA));
}

#[test]
fn a_copy_of_another_organizations_ca_is_warned_of() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    copied(&bench);
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "C5", "Org2/ca", "the same certificate and key as Org1/ca, a CA of another organization");
    let alarms: Vec<&Finding> = findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert_eq!(alarms.len(), 1, "{alarms:#?}");
}

/// A server in the place of its certificate's own root: the one that the channels' configurations name.
#[test]
fn a_copy_in_the_place_of_a_ca_that_the_channels_trust_is_an_error() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let network = bench.network();
    for organization in ["Org1", "Org2"] {
        let home = network.join(organization).join("ca");
        let roots = fs::read_dir(network.join(organization).join("peer0/msp/cacerts")).unwrap();
        let root = roots.map(|entry| entry.unwrap().path()).next().unwrap();
        fs::copy(root, home.join("ca-cert.pem")).unwrap();
    }
    copied(&bench);
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(!made, "{findings:#?}");
    assert_found(
        &findings,
        "C5",
        "Org1/ca",
        "those of Org2/ca, a CA of another organization, and the MSP of its own organization does not trust them",
    );
}

/// Two servers of one organization, as they are run for availability.
#[test]
fn two_servers_of_one_organization_may_share_a_key() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    copy(&bench.network().join(CA), &bench.network().join("Org1/ca2"));
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert!(!findings.iter().any(|finding| finding.what.contains("the same certificate and key")), "{findings:#?}");
}

/// Leaves a database as a server leaves it that is killed: with a journal beside it.
fn killed_while(bench: &Bench, statements: &str) {
    let path = bench.network().join("Org1/ca/fabric-ca-server.db");
    let live = bench.path("live.db");
    fs::copy(&path, &live).unwrap();
    let database = rusqlite::Connection::open(&live).unwrap();
    database.execute_batch(statements).unwrap();
    for suffix in ["", "-journal", "-wal"] {
        let from = bench.path(&format!("live.db{suffix}"));
        if from.exists() {
            fs::copy(from, bench.network().join(format!("Org1/ca/fabric-ca-server.db{suffix}"))).unwrap();
        }
    }
    drop(database);
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let _ = fs::remove_file(bench.path(&format!("live.db{suffix}")));
    }
}

#[test]
fn a_database_is_looked_at_with_the_journal_that_a_killed_server_has_left() {
    let place = Place::new();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) \
        INSERT INTO users (id, token, type, affiliation, attributes, state, max_enrollments, level) \
        SELECT 'n' || i, hex(randomblob(500)), 'client', '', '', 0, -1, 1 FROM n";
    for (begin, file) in [
        ("PRAGMA cache_size = 1; BEGIN; UPDATE certificates SET pem = hex(randomblob(6000))", "-journal"),
        ("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; BEGIN", "-wal"),
    ] {
        let end = if file == "-wal" { "; COMMIT" } else { "" };
        let (made, findings) = place.after(CA, |bench| {
            killed_while(bench, &format!("{begin}; {many}{end}"));
            let journal = bench.network().join(format!("Org1/ca/fabric-ca-server.db{file}"));
            assert!(journal.metadata().is_ok_and(|found| found.len() > 0), "{file}");
        });
        assert!(made, "{file}: {findings:#?}");
        assert_no_alarm(&findings);
    }
    // What is wrong in a journal is wrong.
    let wrong = |bench: &Bench| {
        killed_while(bench, "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; DROP TABLE affiliations");
    };
    place.refused_after(CA, wrong, "C3", CA, "its table affiliations is missing");
}
