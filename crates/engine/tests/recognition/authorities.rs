//! A certificate authority's certificate, key and database, wherever its configuration says that they are (C3, C5).

use std::path::PathBuf;

use fabkeep_network::Severity;

use super::{One, copy, own, reported};

const CONFIG: &str = "fabric-ca-server-config.yaml";

fn own_key(one: &One) -> PathBuf {
    let pem = std::fs::read(one.path("ca-cert.pem")).unwrap();
    let certificate = fabkeep_ledger::certificate::Certificate::from_pem(&pem).unwrap();
    let entries = std::fs::read_dir(one.path("msp/keystore")).unwrap().map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        let public = fabkeep_ledger::certificate::public_key_of_private_pem(&std::fs::read(path).unwrap());
        public.as_deref() == Some(certificate.public_key())
    };
    entries.into_iter().find(fits).unwrap()
}

fn set_key(one: &One, to: &str) {
    one.edit(CONFIG, "  keyfile:\n  # Certificate", &format!("  keyfile: {to}\n  # Certificate"));
}

fn set_certificate(one: &One, to: &str) {
    one.edit(CONFIG, "  certfile:\n  # Chain", &format!("  certfile: {to}\n  # Chain"));
}

#[test]
fn a_certificate_and_key_are_found_wherever_they_lie_and_missed_when_they_are_gone() {
    type Change = fn(&One);
    let good: [(&str, Change); 4] = [
        ("as they are", |_| {}),
        ("in a folder of the home", |one| {
            copy(&own_key(one), &one.path("keys/ca.key"));
            std::fs::rename(one.path("ca-cert.pem"), one.path("keys/ca.cert")).unwrap();
            set_key(one, "keys/ca.key");
            set_certificate(one, "keys/ca.cert");
        }),
        ("outside of the home", |one| {
            let outside = one.bench.path("outside/ca");
            copy(&own_key(one), &outside.join("priv_sk"));
            std::fs::remove_file(own_key(one)).unwrap();
            copy(&one.path("ca-cert.pem"), &outside.join("ca.pem"));
            std::fs::remove_file(one.path("ca-cert.pem")).unwrap();
            set_key(one, &outside.join("priv_sk").display().to_string());
            set_certificate(one, &outside.join("ca.pem").display().to_string());
        }),
        ("a key file that is gone, the key in the key store", |one| set_key(one, "/nowhere/priv_sk")),
    ];
    for (what, change) in good {
        let one = One::new("Org1/ca");
        change(&one);
        let (complete, findings) = one.capture();
        assert!(
            complete && own(&findings).iter().all(|finding| finding.severity == Severity::Note),
            "{what}: {findings:#?}"
        );
    }
    let bad: [(&str, Change, &str); 7] = [
        ("no certificate", |one| std::fs::remove_file(one.path("ca-cert.pem")).unwrap(), "is not in the set"),
        ("no key", |one| std::fs::remove_file(own_key(one)).unwrap(), "is not in the set"),
        ("a damaged certificate", |one| std::fs::write(one.path("ca-cert.pem"), "hello").unwrap(), "cannot be read"),
        (
            "a container's paths",
            |one| {
                std::fs::remove_file(own_key(one)).unwrap();
                std::fs::remove_file(one.path("ca-cert.pem")).unwrap();
                set_key(one, "/etc/hyperledger/fabric-ca-server-config/priv_sk");
                set_certificate(one, "/etc/hyperledger/fabric-ca-server-config/ca.pem");
            },
            "/etc/hyperledger/fabric-ca-server-config/ca.pem",
        ),
        (
            "another authority's certificate",
            |one| {
                let other = one.bench.network().join("Org2/ca/ca-cert.pem");
                std::fs::copy(other, one.path("ca-cert.pem")).unwrap();
            },
            "is not in the set",
        ),
        (
            "another authority's certificate and key",
            |one| {
                let other = one.bench.network().join("Org2/ca");
                std::fs::copy(other.join("ca-cert.pem"), one.path("ca-cert.pem")).unwrap();
                for entry in std::fs::read_dir(other.join("msp/keystore")).unwrap() {
                    let entry = entry.unwrap();
                    std::fs::copy(entry.path(), one.path("msp/keystore").join(entry.file_name())).unwrap();
                }
            },
            "two different authorities",
        ),
        (
            "a key where nothing looks for it",
            |one| {
                let key = own_key(one);
                std::fs::create_dir_all(one.path("old")).unwrap();
                std::fs::rename(&key, one.path("old/ca.key")).unwrap();
            },
            "names another place",
        ),
    ];
    for (what, change, part) in bad {
        let one = One::new("Org1/ca");
        change(&one);
        let (complete, findings) = one.capture();
        reported(what, &findings, Severity::Error, "C5", part);
        assert!(!complete, "{what}");
    }
}

#[test]
fn the_database_is_the_one_that_the_configuration_names() {
    let damage = |path: PathBuf| {
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (4096..bytes.len()).step_by(4096) {
            bytes[at..at + 64].fill(0xee);
        }
        std::fs::write(path, bytes).unwrap();
    };
    type Place = fn(&One) -> PathBuf;
    let usual: Place = |one| one.path("fabric-ca-server.db");
    let named: Place = |one| {
        std::fs::rename(one.path("fabric-ca-server.db"), one.path("ca.sqlite3")).unwrap();
        one.edit(CONFIG, "datasource: fabric-ca-server.db", "datasource: ca.sqlite3");
        one.path("ca.sqlite3")
    };
    let uri: Place = |one| {
        std::fs::rename(one.path("fabric-ca-server.db"), one.path("x.data")).unwrap();
        one.edit(CONFIG, "datasource: fabric-ca-server.db", "datasource: 'file:x.data?mode=rwc'");
        one.path("x.data")
    };
    let outside: Place = |one| {
        let to = one.bench.path("db/identities");
        copy(&one.path("fabric-ca-server.db"), &to);
        std::fs::remove_file(one.path("fabric-ca-server.db")).unwrap();
        one.edit(CONFIG, "datasource: fabric-ca-server.db", &format!("datasource: {}", to.display()));
        to
    };
    let stale: Place = |one| {
        copy(&one.path("fabric-ca-server.db"), &one.path("backup-2023.db"));
        one.path("fabric-ca-server.db")
    };
    let alien: Place = |one| {
        std::fs::write(one.path("Thumbs.db"), "not a database").unwrap();
        std::fs::write(one.path("aaa.db"), "").unwrap();
        one.path("fabric-ca-server.db")
    };
    let all =
        [("usual", usual), ("named", named), ("uri", uri), ("outside", outside), ("stale", stale), ("alien", alien)];
    for (what, place) in all {
        let one = One::new("Org1/ca");
        let database = place(&one);
        let (complete, findings) = one.capture();
        assert!(
            complete && own(&findings).iter().all(|finding| finding.severity == Severity::Note),
            "{what}: {findings:#?}"
        );
        let repository = one.bench.repository();
        let (point, _) = repository
            .read_point::<fabkeep_engine::RecoveryPoint>(&repository.point("latest").unwrap(), &one.bench.identity())
            .unwrap();
        let facts = point.nodes.iter().find_map(|node| node.facts.ca.clone()).unwrap();
        let name = database.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            (facts.database, facts.identities, facts.whole),
            (format!("sqlite {name}"), Some(8), Some(true)),
            "{what}"
        );
        // The same, damaged; the same, gone.
        damage(database.clone());
        let (complete, findings) = one.capture();
        reported(what, &findings, Severity::Error, "C3", "");
        assert!(!complete, "{what}");
        std::fs::remove_file(database).unwrap();
        let (complete, findings) = one.capture();
        reported(what, &findings, Severity::Error, "C3", "is not in the set");
        assert!(!complete, "{what}");
    }
}

#[test]
fn every_authority_of_a_server_is_judged() {
    let one = One::new("Org1/ca");
    let second = one.path("ca/ca1");
    for file in ["ca-cert.pem", "fabric-ca-server.db", "IssuerPublicKey"] {
        copy(&one.bench.network().join("Org2/ca").join(file), &second.join(file));
    }
    for entry in std::fs::read_dir(one.bench.network().join("Org2/ca/msp/keystore")).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &second.join("msp/keystore").join(entry.file_name()));
    }
    std::fs::write(second.join("fabric-ca-config.yaml"), "ca: {name: ca1}\n").unwrap();
    one.edit(CONFIG, "\ncacount:", "\ncacount: 1");
    let (complete, findings) = one.capture();
    assert!(complete && own(&findings).iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
    std::fs::remove_file(second.join("fabric-ca-server.db")).unwrap();
    reported("database", &one.capture().1, Severity::Error, "C3", "is not in the set");
    std::fs::remove_file(second.join("ca-cert.pem")).unwrap();
    reported("certificate", &one.capture().1, Severity::Error, "C5", "is not in the set");
    // An intermediate CA needs its chain.
    let one = One::new("Org1/ca");
    one.edit(CONFIG, "    url:\n    caname:", "    url: http://root:7054\n    caname:");
    reported("chain", &one.capture().1, Severity::Error, "C5", "ca-chain.pem");
    std::fs::write(one.path("ca-chain.pem"), std::fs::read(one.path("ca-cert.pem")).unwrap()).unwrap();
    let (complete, findings) = one.capture();
    assert!(complete, "{findings:#?}");
}

#[test]
fn a_schema_that_is_newer_than_its_server_is_told() {
    let one = One::new("Org1/ca");
    let database = rusqlite::Connection::open(one.path("fabric-ca-server.db")).unwrap();
    database.execute("UPDATE properties SET value = '3' WHERE property = 'identity.level'", []).unwrap();
    drop(database);
    reported("newer", &one.capture().1, Severity::Warning, "C3", "level 3");
    let one = One::new("Org1/ca");
    one.edit(CONFIG, "version: v1.5.21", "version: 1.2.0");
    reported("older", &one.capture().1, Severity::Note, "C3", "1.2.0");
}

#[test]
fn a_configuration_under_another_name_is_the_servers_own() {
    let renamed = || {
        let one = One::new("Org1/ca");
        std::fs::rename(one.path(CONFIG), one.path("org1-ca.yaml")).unwrap();
        std::fs::write(one.path("start.sh"), "fabric-ca-server start -b admin:adminpw -c org1-ca.yaml -d\n").unwrap();
        copy(&one.path("fabric-ca-server.db"), &one.path("data/ca.sqlite"));
        std::fs::remove_file(one.path("fabric-ca-server.db")).unwrap();
        one.edit("org1-ca.yaml", "datasource: fabric-ca-server.db", "datasource: data/ca.sqlite");
        copy(&own_key(&one), &one.path("keys/own.key"));
        std::fs::remove_file(own_key(&one)).unwrap();
        one.edit("org1-ca.yaml", "  keyfile:\n  # Certificate", "  keyfile: keys/own.key\n  # Certificate");
        one
    };
    let one = renamed();
    let (complete, findings) = one.capture();
    assert!(complete && own(&findings).iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
    let one = renamed();
    std::fs::remove_file(one.path("data/ca.sqlite")).unwrap();
    let (complete, findings) = one.capture();
    assert!(!complete);
    reported("no database", &findings, Severity::Error, "C3", "data/ca.sqlite");
    let one = renamed();
    std::fs::remove_file(one.path("keys/own.key")).unwrap();
    assert!(!one.capture().0);
    // Made anew at the next start, with other profiles.
    let one = renamed();
    let text = std::fs::read_to_string(one.path("org1-ca.yaml")).unwrap();
    let (complete, findings) = one.capture_with(|_| std::fs::remove_file(one.path("org1-ca.yaml")).unwrap());
    assert!(!complete && !text.is_empty());
    reported("no configuration", &findings, Severity::Error, "C5", "configuration is not there");
}

#[test]
fn a_database_servers_files_are_left_out_while_it_runs() {
    let files = |one: &One, names: &[&str]| {
        names.iter().for_each(|name| {
            std::fs::create_dir_all(one.path(name).parent().unwrap()).unwrap();
            std::fs::write(one.path(name), "x").unwrap();
        })
    };
    let postgres = ["pg/PG_VERSION", "pg/global/pg_control", "pg/base/1/1259"];
    let mysql = ["db/my/ibdata1", "db/my/fabric_ca/users.ibd"];
    let captured = |one: &One| {
        let base = one.bench.folder.path();
        let found = fabkeep_platform::discover(&one.bench.network().join("Org1"), base).unwrap();
        let host = fabkeep_platform::Host::new(&found.inventory, base).unwrap();
        let point = one.bench.capture_from(&host, &fabkeep_engine::CaptureOptions::default()).unwrap().point;
        let directories = point.nodes.into_iter().flat_map(|node| node.directories);
        let entries = directories.flat_map(|known| {
            let place = known.directory.path.clone();
            known.entries.into_iter().map(move |entry| format!("{place}/{}", entry.path))
        });
        (entries.collect::<Vec<String>>(), point.findings)
    };
    let one = One::new("Org1");
    files(&one, &[&postgres[..], &mysql[..], &["db/notes.txt"][..]].concat());
    let (entries, findings) = captured(&one);
    for name in postgres.iter().chain(&mysql) {
        assert!(entries.iter().any(|entry| entry.ends_with(name)), "{name} in {entries:#?}");
    }
    assert!(findings.iter().all(|finding| finding.rule.code() != "P6"), "{findings:#?}");
    files(&one, &["pg/postmaster.pid", "db/my/ibtmp1"]);
    let (entries, findings) = captured(&one);
    for name in ["pg/", "db/my/"] {
        let inside = |entry: &&String| entry.contains(&format!("/{name}")) && !entry.ends_with(name);
        assert_eq!(entries.iter().find(inside), None);
    }
    assert!(entries.iter().any(|entry| entry.ends_with("db/notes.txt")));
    for server in ["PostgreSQL", "MySQL"] {
        reported(server, &findings, Severity::Warning, "P6", &format!("{server} server that runs"));
    }
}
