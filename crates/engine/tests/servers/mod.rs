//! Real database servers, as Debian packs them, with the rows of a real certificate authority.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use tempfile::TempDir;

/// Nobody's: PostgreSQL does not run as root.
const NOBODY: u32 = 65534;
pub const PASSWORD: &str = "it's a se:cr@et/word";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    MariaDb,
}

/// A server on a port of its own.
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    folder: TempDir,
    process: Child,
}

fn postgres(program: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path()).collect();
    found.sort();
    let program = found.last()?.join("bin").join(program);
    program.exists().then_some(program)
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_nobody(program: &Path) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
    command
}

/// A port that no other test takes meanwhile, as it would take one that the system gives to everybody: below those, and by process.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1_000) as u16 * 10;
    let ports = std::iter::repeat_with(|| 20_000 + first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000);
    ports.take(2_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn done(mut command: Command) {
    let output = command.output().unwrap();
    let (said, reported) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{reported}");
}

impl Server {
    /// Starts one, when the machine has it; else says that nothing was tested.
    pub fn start(kind: Kind) -> Option<Server> {
        let there = match kind {
            Kind::Postgres => postgres("postgres").is_some(),
            Kind::MariaDb => Path::new("/usr/sbin/mariadbd").exists(),
        };
        if !there {
            let reported = format!("NOT TESTED: no {kind:?} server; install Debian's postgresql and mariadb-server\n");
            let _ = std::io::stderr().write_all(reported.as_bytes());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        if root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self::make(kind, folder.path());
        let process = Self::run(kind, folder.path(), port);
        let server = Server { kind, port, folder, process };
        server.wait();
        if kind == Kind::MariaDb {
            let password = PASSWORD.replace('\'', "''");
            server.admin(&format!("CREATE USER ca@'%' IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO ca@'%'; DROP USER IF EXISTS ''@'localhost'"));
        }
        server.renew();
        Some(server)
    }

    fn make(kind: Kind, folder: &Path) {
        match kind {
            Kind::Postgres => {
                let words = folder.join("password");
                std::fs::write(&words, PASSWORD).unwrap();
                if root() {
                    chown(&words, Some(NOBODY), Some(NOBODY)).unwrap();
                }
                let mut command = as_nobody(&postgres("initdb").unwrap());
                command.args(["--auth=scram-sha-256", "--username=ca", "--encoding=UTF8", "--no-sync"]);
                command.arg(format!("--pwfile={}", words.display())).arg("-D").arg(folder.join("data"));
                done(command);
            }
            Kind::MariaDb => {
                let mut command = as_nobody(Path::new("/usr/bin/mariadb-install-db"));
                command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
                command.arg(format!("--datadir={}", folder.join("data").display()));
                done(command);
            }
        }
    }

    fn run(kind: Kind, folder: &Path, port: u16) -> Child {
        let mut command = match kind {
            Kind::Postgres => {
                let mut command = as_nobody(&postgres("postgres").unwrap());
                command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
                command.args(["-h", "127.0.0.1", "-c", "fsync=off", "-p", &port.to_string()]);
                command
            }
            Kind::MariaDb => {
                let mut command = as_nobody(Path::new("/usr/sbin/mariadbd"));
                command.args(["--no-defaults", "--bind-address=127.0.0.1", &format!("--port={port}")]);
                command.arg(format!("--datadir={}", folder.join("data").display()));
                command.arg(format!("--socket={}", folder.join("socket").display()));
                command.arg(format!("--pid-file={}", folder.join("pid").display()));
                command
            }
        };
        let log = std::fs::File::create(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn wait(&self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn start_again(&mut self) {
        self.process = Self::run(self.kind, self.folder.path(), self.port);
        self.wait();
    }

    /// What a CA's configuration says of it.
    pub fn data_source(&self) -> (&'static str, String) {
        let port = self.port;
        match self.kind {
            Kind::Postgres => {
                let password = PASSWORD.replace('\'', "\\'");
                (
                    "postgres",
                    format!(
                        "host=127.0.0.1 port={port} user=ca password='{password}' dbname=fabric_ca sslmode=disable"
                    ),
                )
            }
            Kind::MariaDb => ("mysql", format!("ca:{PASSWORD}@tcp(127.0.0.1:{port})/fabric_ca?parseTime=true")),
        }
    }

    fn client(&self, database: &str) -> Command {
        match self.kind {
            Kind::Postgres => {
                let mut command = Command::new("psql");
                command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "ca", "-d", database]);
                command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]).env("PGPASSWORD", PASSWORD);
                command
            }
            Kind::MariaDb => {
                let mut command = Command::new("mariadb");
                command.args([
                    "--no-defaults",
                    "-h",
                    "127.0.0.1",
                    "--protocol=tcp",
                    "-P",
                    &self.port.to_string(),
                    "-u",
                    "ca",
                ]);
                command.args(["-N", "-B"]).arg(database).env("MYSQL_PWD", PASSWORD);
                command
            }
        }
    }

    fn admin(&self, sql: &str) {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "-u", "root", "-e", sql])
            .arg(format!("--socket={}", self.folder.path().join("socket").display()));
        done(command);
    }

    /// Runs SQL; what it prints.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("fabric_ca", sql)
    }

    fn sql_in(&self, database: &str, sql: &str) -> String {
        let mut child =
            self.client(database).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{sql:.200}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Drops the database and makes it anew, empty.
    pub fn renew(&self) {
        match self.kind {
            Kind::Postgres => {
                self.sql_in("postgres", "DROP DATABASE IF EXISTS fabric_ca;");
                self.sql_in("postgres", "CREATE DATABASE fabric_ca;");
            }
            Kind::MariaDb => {
                self.sql_in("mysql", "DROP DATABASE IF EXISTS fabric_ca; CREATE DATABASE fabric_ca;");
            }
        }
    }

    /// Makes a CA's tables as the server does on this kind of database, with the rows of an sqlite database.
    pub fn fill(&self, sqlite: &Path) {
        let (blob, time) = match self.kind {
            Kind::Postgres => ("bytea", "timestamp"),
            Kind::MariaDb => ("varbinary(4096)", "timestamp NULL"),
        };
        let key = if self.kind == Kind::Postgres { "bytea" } else { "varbinary(128)" };
        let name = if self.kind == Kind::Postgres { "VARCHAR(1024)" } else { "VARCHAR(256)" };
        self.sql(&format!(
            "CREATE TABLE users (id VARCHAR(255) PRIMARY KEY, token {blob}, type VARCHAR(256), affiliation VARCHAR(1024), attributes TEXT, state INTEGER, max_enrollments INTEGER, level INTEGER DEFAULT 0, incorrect_password_attempts INTEGER DEFAULT 0);
             CREATE TABLE affiliations (name {name} NOT NULL UNIQUE, prekey VARCHAR(1024), level INTEGER DEFAULT 0);
             CREATE TABLE certificates (id VARCHAR(255), serial_number {key} NOT NULL, authority_key_identifier {key} NOT NULL, ca_label {key}, status {key} NOT NULL, reason int, expiry {time}, revoked_at {time}, pem {blob} NOT NULL, level INTEGER DEFAULT 0, PRIMARY KEY(serial_number, authority_key_identifier));
             CREATE TABLE credentials (id VARCHAR(255), revocation_handle {key} NOT NULL PRIMARY KEY, cred {blob} NOT NULL, status {key} NOT NULL, level INTEGER DEFAULT 0);
             CREATE TABLE properties (property VARCHAR(255) PRIMARY KEY, value VARCHAR(256));",
        ));
        let from = rusqlite::Connection::open(sqlite).unwrap();
        for table in ["users", "affiliations", "certificates", "properties"] {
            let mut select = from.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns: Vec<String> = select.column_names().map(ToString::to_string).collect();
            let mut rows = select.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let values: Vec<String> = (0..columns.len())
                    .map(|column| self.literal(&columns[column], row.get_ref(column).unwrap()))
                    .collect();
                self.sql(&format!("INSERT INTO {table} ({}) VALUES ({});", columns.join(", "), values.join(", ")));
            }
        }
        // What dumps must get over.
        let odd =
            self.text("tab\there, 'quotes', back\\slash, \\. and \u{fc}ml\u{e4}ut;\nINSERT INTO x VALUES (1);\n\\.\n");
        self.sql(&format!("INSERT INTO properties (property, value) VALUES ('odd', {odd});"));
    }

    fn text(&self, text: &str) -> String {
        let text = text.replace('\'', "''");
        match self.kind {
            Kind::Postgres => format!("'{text}'"),
            Kind::MariaDb => format!("'{}'", text.replace('\\', "\\\\")),
        }
    }

    fn literal(&self, column: &str, value: ValueRef<'_>) -> String {
        let bytes =
            matches!(column, "token" | "serial_number" | "authority_key_identifier" | "ca_label" | "status" | "pem");
        let time = matches!(column, "expiry" | "revoked_at");
        match value {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) | ValueRef::Blob(text) if bytes => match self.kind {
                Kind::Postgres => format!("'\\x{}'", hex::encode(text)),
                Kind::MariaDb if text.is_empty() => "''".to_owned(),
                Kind::MariaDb => format!("0x{}", hex::encode(text)),
            },
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                let text = String::from_utf8_lossy(text).into_owned();
                // A zone behind a time is not MariaDB's.
                if time && (text.starts_with("0001") || text.is_empty()) {
                    return "NULL".to_owned();
                }
                let text = if time { text.chars().take(19).collect() } else { text };
                self.text(&text)
            }
        }
    }

    /// Everything that it holds, in one order.
    pub fn rows(&self) -> String {
        let mut out = String::new();
        for (table, key) in
            [("users", "id"), ("affiliations", "name"), ("certificates", "serial_number"), ("properties", "property")]
        {
            out += &self.sql(&format!("SELECT * FROM {table} ORDER BY {key};"));
        }
        out
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
