//! Certificate authorities whose identities are in a PostgreSQL or MariaDB server: dumped, loaded, compared. With real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;
mod servers;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bench::Bench;
use fabkeep_engine::{
    CaKeep, CaptureOptions, Captured, EngineError, EntryContent, Event, Reporter, RestoreOptions, RestoreTarget,
    Restored, Silent, VerifyLevel,
};
use fabkeep_network::Finding;
use fabkeep_platform::{Commands, Host, Inventory, discover};
use servers::{Kind, PASSWORD, Server};

const CONFIG: &str = "fabric-ca-server-config.yaml";
const NODE: &str = "Org1/ca";

struct Place {
    bench: Bench,
    server: Server,
    home: PathBuf,
}

/// Org1's CA moves its identities into a server.
fn place(kind: Kind) -> Option<Place> {
    let server = Server::start(kind)?;
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let home = bench.network().join("Org1/ca");
    server.fill(&home.join("fabric-ca-server.db"));
    std::fs::remove_file(home.join("fabric-ca-server.db")).unwrap();
    let place = Place { bench, server, home };
    let (kind, source) = place.server.data_source();
    place.edit("type: sqlite3", &format!("type: {kind}"));
    place.edit("datasource: fabric-ca-server.db", &format!("datasource: {}", serde_json::to_string(&source).unwrap()));
    Some(place)
}

impl Place {
    fn edit(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.home.join(CONFIG)).unwrap();
        assert!(config.contains(from), "{from}");
        std::fs::write(self.home.join(CONFIG), config.replacen(from, to, 1)).unwrap();
    }

    fn restore(
        &self,
        host: &Host,
        replace: bool,
        ca_keep: CaKeep,
        reporter: &dyn Reporter,
    ) -> Result<Restored, EngineError> {
        let nodes = vec![NODE.to_owned()];
        let options = RestoreOptions { nodes, replace, ca_keep, ..RestoreOptions::default() };
        self.bench.restore_to(&RestoreTarget::Host(host), &options, reporter)
    }

    fn capture(&self) -> Captured {
        self.bench.capture(&CaptureOptions::default()).unwrap()
    }
}

fn reported<'a>(findings: &'a [Finding], code: &str, part: &str) -> &'a Finding {
    let of = |finding: &&Finding| finding.rule.code() == code && finding.what.contains(part);
    findings.iter().find(of).unwrap_or_else(|| panic!("no {code} with {part:?} in {findings:#?}"))
}

fn refused<T: std::fmt::Debug>(result: Result<T, EngineError>) -> Vec<Finding> {
    match result {
        Err(EngineError::Precondition(findings) | EngineError::Refused(findings)) => {
            assert!(!format!("{findings:?}").contains(PASSWORD), "{findings:?}");
            findings
        }
        other => panic!("{other:?}"),
    }
}

fn dump_of(captured: &Captured) -> EntryContent {
    let node = captured.point.nodes.iter().find(|node| node.facts.id.to_string() == NODE).unwrap();
    let entries = node.directories.iter().flat_map(|directory| &directory.entries);
    entries.filter(|entry| entry.path == "database.sql").map(|entry| entry.content.clone()).next().unwrap()
}

fn a_database_comes_back(kind: Kind) {
    let Some(mut place) = place(kind) else { return };
    let rows = place.server.rows();
    let captured = place.capture();
    let facts =
        captured.point.nodes.iter().find(|node| node.facts.id.to_string() == NODE).unwrap().facts.ca.clone().unwrap();
    assert_eq!((facts.identities, facts.revoked, facts.whole), (Some(8), Some(1), Some(true)), "{facts:?}");
    assert!(!format!("{:?}", captured.point).contains(PASSWORD));
    // One content is one dump: it costs nothing again.
    assert_eq!(format!("{:?}", dump_of(&captured)), format!("{:?}", dump_of(&place.capture())));
    place.bench.verify(VerifyLevel::Full).unwrap();
    let files = place.bench.restore_all().unwrap();
    assert!(files.join("Org1/ca.database/database.sql").exists(), "in a folder it is a file");

    // Life goes on; then the CA goes back.
    let host = place.bench.host();
    place.server.sql("INSERT INTO users (id, type, state) VALUES ('latecomer', 'client', 0); UPDATE users SET state = -1 WHERE id = 'app2'; DELETE FROM affiliations;");
    let later = place.server.rows();
    let findings = refused(place.restore(&host, false, CaKeep::default(), &Silent));
    reported(&findings, "B8", "contains 5 tables");
    assert_eq!(later, place.server.rows());
    let restored = place.restore(&host, true, CaKeep::default(), &Silent).unwrap();
    assert_eq!(rows, place.server.rows());
    assert!(reported(&restored.findings, "C1", "registered after").what.ends_with("latecomer"));
    assert!(reported(&restored.findings, "C2", "may enrol again").what.ends_with("app2"));
    let proven = restored.proven.iter().find(|line| line.contains("dumped again after it was loaded")).unwrap();
    assert!(proven.contains("users 8") && !proven.contains(PASSWORD), "{proven}");
    let aside = restored.directories.last().unwrap().set_aside.clone().unwrap();
    assert!(std::fs::read_to_string(aside.join("database.sql")).unwrap().contains("latecomer"));
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&aside.join("database.sql").metadata().unwrap().permissions()) & 0o077,
        0
    );

    // A machine with nothing but the server.
    place.server.renew();
    let inventory = discover(&place.bench.network(), place.bench.folder.path()).unwrap().inventory;
    std::fs::remove_dir_all(&place.home).unwrap();
    assert!(!place.home.with_file_name("ca.database").exists(), "a dump was left that is loaded");
    let host = Host::new(&inventory, place.bench.folder.path()).unwrap();
    place.server.kill();
    reported(&refused(place.restore(&host, false, CaKeep::default(), &Silent)), "C3", "failed");
    assert!(!place.home.exists());
    place.server.start_again();

    // The server goes away between the plan and the load: the same command goes on.
    let broken = Mutex::new(Some(&mut place.server));
    struct Breaks<'a, 'b>(&'a Mutex<Option<&'b mut Server>>);
    impl Reporter for Breaks<'_, '_> {
        fn event(&self, event: Event<'_>) {
            if let Event::Begin { step: "load databases", .. } = event
                && let Some(server) = self.0.lock().unwrap().take()
            {
                server.kill();
            }
        }
    }
    let options = RestoreOptions { nodes: vec![NODE.to_owned()], ..RestoreOptions::default() };
    let failed = place.bench.restore_to(&RestoreTarget::Host(&host), &options, &Breaks(&broken));
    assert!(!format!("{:?}", failed.unwrap_err()).contains(PASSWORD));
    place.server.start_again();
    let restored = place.restore(&host, false, CaKeep::default(), &Silent).unwrap();
    assert!(restored.resumed);
    assert_eq!(rows, place.server.rows());
}

fn commands_of_ca(inventory: &mut Inventory) -> &mut Commands {
    let organization = inventory.organizations.iter_mut().find(|known| known.name == "Org1").unwrap();
    &mut organization.nodes.iter_mut().find(|node| node.name == "ca").unwrap().commands
}

#[test]
fn postgresql_is_dumped_and_loaded() {
    a_database_comes_back(Kind::Postgres);
}

#[test]
fn mariadb_is_dumped_and_loaded() {
    a_database_comes_back(Kind::MariaDb);
}

#[test]
fn a_server_that_lets_nobody_in_is_told_and_its_password_is_not() {
    let Some(place) = place(Kind::Postgres) else { return };
    let right = std::fs::read_to_string(place.home.join(CONFIG)).unwrap();
    let wrong = right.replace("word' dbname", "wrong' dbname");
    assert_ne!(right, wrong);
    std::fs::write(place.home.join(CONFIG), wrong).unwrap();
    let findings = refused(place.bench.capture(&CaptureOptions::default()));
    assert!(!format!("{findings:?}").contains("se:cr@et"));
    reported(&findings, "C3", "password authentication failed");
    // Where the server is not in reach, commands of the inventory's own.
    let network = place.bench.network();
    let mut inventory = discover(&network, place.bench.folder.path()).unwrap().inventory;
    let port = place.server.port;
    let commands = commands_of_ca(&mut inventory);
    let words = place.bench.path("words");
    std::fs::write(&words, format!("export PGPASSWORD=\"{PASSWORD}\"\n")).unwrap();
    let run = |tool: &str| format!(". {} && {tool} -h 127.0.0.1 -p {port} -U ca -d fabric_ca", words.display());
    commands.dump = Some(run("pg_dump --clean --if-exists"));
    commands.load = Some(run("psql -q -X -1 -v ON_ERROR_STOP=1"));
    let host = Host::new(&inventory, place.bench.folder.path()).unwrap();
    let rows = place.server.rows();
    place.bench.capture_from(&host, &CaptureOptions::default()).unwrap();
    place.server.sql("DELETE FROM users;");
    place.restore(&host, true, CaKeep::default(), &Silent).unwrap();
    assert_eq!(rows, place.server.rows());
}

#[test]
fn a_configuration_that_stays_says_where_the_database_goes() {
    let Some(place) = place(Kind::Postgres) else { return };
    let rows = place.server.rows();
    place.capture();
    let Some(other) = Server::start(Kind::Postgres) else { return };
    place.edit(&format!("port={}", place.server.port), &format!("port={}", other.port));
    let host = place.bench.host();
    place.restore(&host, true, CaKeep { tls: false, config: true }, &Silent).unwrap();
    assert_eq!(rows, other.rows());
    assert!(Path::new(&place.home).join(CONFIG).exists());
}

/// What servers and others add to a database: it is not the certificate authority's, and is not dumped.
fn only_its_own_tables_are_dumped(kind: Kind) {
    let Some(place) = place(kind) else { return };
    let rows = place.server.rows();
    match kind {
        Kind::Postgres => place.server.sql(
            "CREATE TABLE shop (a int); CREATE VIEW v AS SELECT 1 AS one; CREATE SCHEMA helpers; \
             CREATE FUNCTION helpers.size() RETURNS int LANGUAGE sql AS $f$ SELECT 1 $f$; \
             CREATE TABLE helpers.users (a int);",
        ),
        Kind::MariaDb => place.server.sql(
            "CREATE TABLE shop (a int); CREATE VIEW v AS SELECT 1 AS one; \
             CREATE FUNCTION size() RETURNS int DETERMINISTIC RETURN 1;",
        ),
    };
    let captured = place.capture();
    let found = captured.point.findings.iter().find(|finding| finding.rule.code() == "C3");
    let note = found.unwrap_or_else(|| panic!("{:?}", captured.point.findings));
    assert!(note.severity == fabkeep_network::Severity::Note && note.what.contains("shop"), "{note:?}");
    place.server.sql("DELETE FROM users;");
    place.restore(&place.bench.host(), true, CaKeep::default(), &Silent).unwrap();
    assert_eq!(rows, place.server.rows());
    // A database without the authority's tables is not one.
    place.server.sql("DROP TABLE certificates;");
    let findings = refused(place.bench.capture(&CaptureOptions::default()));
    reported(&findings, "C3", "no table \"certificates\"");
}

#[test]
fn only_the_tables_of_a_certificate_authority_are_dumped_from_postgres() {
    only_its_own_tables_are_dumped(Kind::Postgres);
}

#[test]
fn only_the_tables_of_a_certificate_authority_are_dumped_from_mariadb() {
    only_its_own_tables_are_dumped(Kind::MariaDb);
}

#[test]
fn a_dump_that_was_cut_is_none() {
    let Some(place) = place(Kind::Postgres) else { return };
    let network = place.bench.network();
    let mut inventory = discover(&network, place.bench.folder.path()).unwrap().inventory;
    let commands = commands_of_ca(&mut inventory);
    commands.dump = Some("pg_dump --clean --if-exists | head -c 3000".to_owned());
    let host = Host::new(&inventory, place.bench.folder.path()).unwrap();
    let findings = refused(place.bench.capture_from(&host, &CaptureOptions::default()));
    reported(&findings, "C3", "is incomplete");
}

/// Where a dump on somebody's database server would have its client write.
fn pwned(place: &Place) -> PathBuf {
    place.bench.path("pwned")
}

/// What a server that was taken over writes into dumps: a constraint whose text ends with a client's command.
fn taken_over(place: &Place, kind: Kind) {
    let pwned = pwned(place).display().to_string();
    match kind {
        Kind::Postgres => place.server.sql(&format!(
            "ALTER TABLE users ADD CONSTRAINT x CHECK (true); SET allow_system_table_mods = on; \
             CREATE OR REPLACE FUNCTION pg_catalog.pg_get_constraintdef(oid) RETURNS text LANGUAGE sql AS \
             $f$ SELECT 'CHECK (true))' || chr(10) || '\\! id > {pwned}' || chr(10) || '--' $f$;"
        )),
        Kind::MariaDb => place.server.sql("CREATE TABLE x (`a\n\\! id\nb` int);"),
    };
}

fn a_dump_that_commands_its_client_is_refused(kind: Kind) {
    let Some(place) = place(kind) else { return };
    // By commands of the operator's own, which know no restriction: an older version's point.
    let captured = place.capture();
    assert!(!captured.point.nodes.is_empty());
    taken_over(&place, kind);
    match kind {
        Kind::Postgres => {
            reported(&refused(place.bench.capture(&CaptureOptions::default())), "C3", "the dump of");
        }
        // Its own tool may quote it; what it writes is loaded, and nothing is run.
        Kind::MariaDb => drop(place.bench.capture(&CaptureOptions::default())),
    }
    assert!(!pwned(&place).exists());
    // A point that holds such a dump: refused before anything is changed.
    let mut inventory = discover(&place.bench.network(), place.bench.folder.path()).unwrap().inventory;
    let home = place.home.clone();
    let host = Host::new(&inventory, place.bench.folder.path()).unwrap();
    let config = std::fs::read(home.join(CONFIG)).unwrap();
    let config = fabkeep_ledger::ca_config::CaConfig::parse(&config).unwrap();
    let id = fabkeep_network::NodeId { organization: "Org1".to_owned(), node: "ca".to_owned() };
    let access = host.sql(&id, &config, &home).unwrap().unwrap();
    let rows = place.server.rows();
    let good = place.bench.path("good.sql");
    if kind == Kind::Postgres {
        place.server.sql("ALTER TABLE users DROP CONSTRAINT x;");
    } else {
        place.server.sql("DROP TABLE x;");
    }
    access.dump(&good).unwrap();
    let text = std::fs::read_to_string(&good).unwrap();
    let pwned = pwned(&place).display().to_string();
    let mut commands =
        vec![format!("\\! id > {pwned}"), format!("SELECT 1 \\g |id > {pwned}"), "\\. /etc/passwd".to_owned()];
    if kind == Kind::MariaDb {
        commands.extend([
            format!("system id > {pwned}"),
            format!("SYSTEM id > {pwned}"),
            "source /etc/passwd".to_owned(),
        ]);
    } else {
        commands.push(format!("COPY users TO PROGRAM 'id > {pwned}';"));
    }
    for command in commands {
        for planted in [format!("{command}\n{text}"), format!("{text}\n{command}\n")] {
            let path = place.bench.path("planted.sql");
            std::fs::write(&path, planted).unwrap();
            assert!(access.load(&path).unwrap_err().to_string().contains("refused"), "{command}");
            assert_eq!(rows, place.server.rows(), "{command}");
        }
    }
    assert!(!Path::new(&pwned).exists());
    access.load(&good).unwrap();
    assert_eq!(rows, place.server.rows());
    // The plan says so, before anything is changed.
    let bad = place.bench.path("bad.sql");
    std::fs::write(&bad, format!("\\! id > {pwned}\n{text}")).unwrap();
    commands_of_ca(&mut inventory).dump = Some(format!("cat {}", bad.display()));
    let host = Host::new(&inventory, place.bench.folder.path()).unwrap();
    reported(&refused(place.bench.capture_from(&host, &CaptureOptions::default())), "C3", "line 1");
    assert!(!Path::new(&pwned).exists());
}

#[test]
fn a_postgresql_dump_that_commands_its_client_is_refused() {
    a_dump_that_commands_its_client_is_refused(Kind::Postgres);
}

#[test]
fn a_mariadb_dump_that_commands_its_client_is_refused() {
    a_dump_that_commands_its_client_is_refused(Kind::MariaDb);
}
