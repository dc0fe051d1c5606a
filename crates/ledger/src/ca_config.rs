//! `fabric-ca-server-config.yaml`: the settings of a certificate authority that a recovery needs.

use serde_norway::Value;

use crate::node_settings::{Bccsp, Environment, Settings};
use crate::yaml::read_yaml;

/// What the file is called.
pub const CA_CONFIG_FILE: &str = "fabric-ca-server-config.yaml";
/// What the configuration of a further CA of a server is called when the server makes it.
pub const FURTHER_CA_CONFIG_FILE: &str = "fabric-ca-config.yaml";
/// The variable that stands for the configuration file which a server's command line names: its folder is the server's home.
pub const CONFIG_VARIABLE: &str = "FABRIC_CA_SERVER_CONFIG";
/// Most CAs of one server that are looked at.
const MAX_CAS: u32 = 1_000;
/// Longest configuration read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What the configuration file in a server's home is called.
pub fn config_file_name(environment: &Environment) -> &str {
    let named = environment.get(CONFIG_VARIABLE).and_then(|path| path.rsplit('/').next());
    named.filter(|name| !name.is_empty()).unwrap_or(CA_CONFIG_FILE)
}

/// A configuration, as far as it matters here. Paths are as written: absolute, or relative to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaConfig {
    /// The authority's name.
    pub name: String,
    /// Its certificate.
    pub certificate: String,
    /// Its key, when a file is named: else the key store's file that fits the certificate.
    pub key: Option<String>,
    /// Whether clients are served over TLS.
    pub tls: bool,
    /// The server's TLS certificate.
    pub tls_certificate: String,
    /// Its key, when a file is named: else the key store's file that fits.
    pub tls_key: Option<String>,
    /// The certificates that clients' certificates are checked against, where clients must show one.
    pub client_roots: Vec<String>,
    /// The TLS files of its operations endpoint, where TLS is on there, with their settings. Relative paths begin where the server is started.
    pub operations: Vec<(&'static str, String)>,
    /// Where identities and certificates are kept.
    pub database: DatabaseKind,
    /// The database's file or address with credentials: never to be printed.
    pub data_source: String,
    /// How the database's server is spoken to.
    pub database_tls: DatabaseTls,
    /// The certificates between it and its root, where a file is named.
    pub chain: String,
    /// Whether another authority vouches for it.
    pub intermediate: bool,
    /// Where its keys are.
    pub bccsp: Bccsp,
    /// The folder of its keys, where one is named: else `msp/keystore`.
    pub key_store: Option<String>,
    /// The server's version that the file was written for or by.
    pub version: Option<String>,
    /// The server's further CAs: their configuration files.
    pub further: Vec<String>,
    /// The affiliations that the server adds to its database when it starts, with those above them, in lower case: `org1.department1`.
    pub affiliations: Vec<String>,
}

/// TLS towards a database server; paths as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseTls {
    /// Certificates that vouch for the server.
    pub roots: Option<String>,
    /// The client's certificate.
    pub certificate: Option<String>,
    /// Its key.
    pub key: Option<String>,
}

/// Where a database server is and who is let in.
#[derive(Clone, PartialEq, Eq)]
pub struct DataSource {
    /// Its host, or the folder of its socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// The password; empty for none.
    pub password: String,
    /// The database.
    pub database: String,
    /// PostgreSQL's `sslmode`.
    pub ssl_mode: Option<String>,
}

impl std::fmt::Debug for DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

impl DataSource {
    /// Reads a data source as configurations write it.
    ///
    /// # Errors
    /// What is wrong with it; never its text.
    pub fn parse(kind: &DatabaseKind, text: &str) -> Result<Self, String> {
        match kind {
            DatabaseKind::Postgres => Self::postgres(text),
            DatabaseKind::MySql => Self::mysql(text),
            other => Err(format!("a {other} database has no server")),
        }
    }

    /// Returns a data source as configurations write it, without the password.
    #[must_use]
    pub fn without_password(&self, kind: &DatabaseKind) -> String {
        match kind {
            DatabaseKind::MySql => {
                let protocol = if self.host.starts_with('/') { "unix" } else { "tcp" };
                let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
                let port = if protocol == "tcp" { format!(":{}", self.port) } else { String::new() };
                format!("{}@{protocol}({host}{port})/{}", self.user, self.database)
            }
            _ => {
                let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
                let port = self.port.to_string();
                let named = [("host", &self.host), ("port", &port), ("user", &self.user), ("dbname", &self.database)];
                let mode = self.ssl_mode.iter().map(|mode| ("sslmode", mode));
                let all: Vec<String> =
                    named.into_iter().chain(mode).map(|(name, value)| format!("{name}={}", quoted(value))).collect();
                all.join(" ")
            }
        }
    }

    /// `host=… port=… user=… password=… dbname=…`, values in quotes where they need them.
    fn postgres(text: &str) -> Result<Self, String> {
        let mut out = DataSource {
            host: "localhost".to_owned(),
            port: 5432,
            user: "postgres".to_owned(),
            password: String::new(),
            database: String::new(),
            ssl_mode: None,
        };
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or("a word without =")?;
            let after = after.trim_start();
            let quoted = after.starts_with('\'');
            let mut value = String::new();
            let mut chars = after.char_indices().skip(usize::from(quoted));
            let mut end = after.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => value.extend(chars.next().map(|(_, c)| c)),
                    '\'' if quoted => {
                        end = at + 1;
                        break;
                    }
                    c if !quoted && c.is_whitespace() => {
                        end = at;
                        break;
                    }
                    c => value.push(c),
                }
            }
            rest = after[end..].trim_start();
            match name.trim() {
                "host" => out.host = value,
                "port" => out.port = value.parse().map_err(|_| "its port is no number".to_owned())?,
                "user" => out.user = value,
                "password" => out.password = value,
                "dbname" => out.database = value,
                "sslmode" => out.ssl_mode = Some(value),
                _ => {}
            }
        }
        if out.database.is_empty() {
            out.database.clone_from(&out.user);
        }
        Ok(out)
    }

    /// `user:password@tcp(host:port)/database?…`
    fn mysql(text: &str) -> Result<Self, String> {
        let (front, database) = text.rsplit_once('/').ok_or("no / before the database's name")?;
        let database = database.split('?').next().unwrap_or_default().to_owned();
        let (credentials, address) = front.rsplit_once('@').unwrap_or(("", front));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (protocol, address) = match address.split_once('(') {
            Some((protocol, rest)) => (protocol, rest.strip_suffix(')').ok_or("no ) after the address")?),
            None => (address, ""),
        };
        let (host, port) = match (protocol, address) {
            ("unix", socket) => (socket, "3306"),
            (_, "") => ("127.0.0.1", "3306"),
            (_, address) => match address.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
                _ => (address, "3306"),
            },
        };
        if database.is_empty() {
            return Err("it names no database".to_owned());
        }
        Ok(DataSource {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.parse().map_err(|_| "its port is no number".to_owned())?,
            user: user.to_owned(),
            password: password.to_owned(),
            database,
            ssl_mode: None,
        })
    }
}

/// What keeps a certificate authority's identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
    /// A MySQL or MariaDB server.
    MySql,
    /// Something else.
    Other(String),
}

impl std::fmt::Display for DatabaseKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "PostgreSQL",
            DatabaseKind::MySql => "MySQL",
            DatabaseKind::Other(name) => name,
        })
    }
}

/// Why a configuration cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaConfigError {
    /// It is longer than any is.
    #[error("the configuration has more than {MAX_CONFIG_BYTES} bytes")]
    TooLong,
    /// It is no YAML.
    #[error("the configuration is not YAML: {0}")]
    NotYaml(String),
}

impl DatabaseKind {
    /// By the name that configurations use.
    pub fn named(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "" | "sqlite3" => DatabaseKind::Sqlite,
            "postgres" => DatabaseKind::Postgres,
            "mysql" => DatabaseKind::MySql,
            other => DatabaseKind::Other(other.to_owned()),
        }
    }
}

impl CaConfig {
    /// Reads a configuration; what it does not say is as the server has it by itself.
    ///
    /// # Errors
    /// [`CaConfigError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CaConfigError> {
        Self::read(bytes, &Environment::new())
    }

    /// Reads a configuration with the environment variables (`FABRIC_CA_SERVER_CA_KEYFILE`, …) that override it. Flags are read as the
    /// variables of the same name.
    ///
    /// # Errors
    /// [`CaConfigError`].
    pub fn read(bytes: &[u8], environment: &Environment) -> Result<Self, CaConfigError> {
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(CaConfigError::TooLong);
        }
        let yaml = read_yaml(bytes).map_err(|error| {
            // The message may quote the file: only where, not what.
            let place = error.location().map_or(String::new(), |at| format!("line {}", at.line()));
            CaConfigError::NotYaml(place)
        })?;
        Ok(Self::of(&yaml, environment))
    }

    /// Returns what a server without a configuration file does.
    pub fn usual() -> Self {
        Self::of(&Value::Null, &Environment::new())
    }

    fn of(yaml: &Value, environment: &Environment) -> Self {
        let settings = Settings::new("FABRIC_CA_SERVER", yaml, environment);
        let text = |path: &[&str]| settings.text(path);
        let usual = |path: &[&str], usual: &str| text(path).unwrap_or_else(|| usual.to_owned());
        let count = text(&["cacount"]).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0).min(MAX_CAS);
        let mut further = settings.list(&["cafiles"]);
        if further.is_empty() {
            further = (1..=count).map(|number| format!("ca/ca{number}/{FURTHER_CA_CONFIG_FILE}")).collect();
        }
        CaConfig {
            name: usual(&["ca", "name"], ""),
            certificate: usual(&["ca", "certfile"], "ca-cert.pem"),
            key: text(&["ca", "keyfile"]),
            tls: settings.flag(&["tls", "enabled"]).unwrap_or(false),
            tls_certificate: usual(&["tls", "certfile"], "tls-cert.pem"),
            tls_key: text(&["tls", "keyfile"]),
            client_roots: client_roots(&settings),
            operations: operations_files(&settings),
            database: DatabaseKind::named(&usual(&["db", "type"], "sqlite3")),
            data_source: usual(&["db", "datasource"], "fabric-ca-server.db"),
            database_tls: DatabaseTls {
                roots: settings.list(&["db", "tls", "certfiles"]).into_iter().next(),
                certificate: text(&["db", "tls", "client", "certfile"]),
                key: text(&["db", "tls", "client", "keyfile"]),
            },
            chain: usual(&["ca", "chainfile"], "ca-chain.pem"),
            intermediate: text(&["intermediate", "parentserver", "url"]).is_some(),
            bccsp: Bccsp::read(&settings, &["bccsp"]),
            key_store: text(&["bccsp", "sw", "filekeystore", "keystore"]),
            version: text(&["version"]),
            further,
            affiliations: affiliations(yaml),
        }
    }

    /// Returns the sqlite file that the data source may mean, the most literal reading first: a server takes a relative one from its home
    /// before it looks for `file:`. Empty where the database is not a file.
    pub fn sqlite_files(&self) -> Vec<String> {
        if self.database != DatabaseKind::Sqlite {
            return Vec::new();
        }
        let literal = self.data_source.split('?').next().unwrap_or_default().to_owned();
        let bare = literal.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path).to_owned());
        std::iter::once(literal).chain(bare).filter(|path| !path.is_empty()).collect()
    }
}

fn client_roots(settings: &Settings<'_>) -> Vec<String> {
    let kind = settings.text(&["tls", "clientauth", "type"]).unwrap_or_else(|| "noclientcert".to_owned());
    let on = settings.flag(&["tls", "enabled"]) == Some(true) && !kind.eq_ignore_ascii_case("noclientcert");
    if on { settings.list(&["tls", "clientauth", "certfiles"]) } else { Vec::new() }
}

fn operations_files(settings: &Settings<'_>) -> Vec<(&'static str, String)> {
    if settings.flag(&["operations", "tls", "enabled"]) != Some(true) {
        return Vec::new();
    }
    let one = |name: &str| settings.text(&["operations", "tls", name, "file"]);
    let files = [("operations.tls.cert.file", one("cert")), ("operations.tls.key.file", one("key"))];
    files.into_iter().filter_map(|(setting, path)| Some((setting, path?))).collect()
}

/// Most levels of affiliations that are read.
const MAX_AFFILIATION_DEPTH: usize = 32;

/// Returns the section `affiliations`: names with lists or maps of names below them.
fn affiliations(yaml: &Value) -> Vec<String> {
    fn add(above: &str, value: &Value, depth: usize, out: &mut Vec<String>) {
        let name = |below: &str| {
            let below = below.to_ascii_lowercase();
            if above.is_empty() { below } else { format!("{above}.{below}") }
        };
        match value {
            Value::Mapping(map) if depth < MAX_AFFILIATION_DEPTH => {
                for (key, value) in map {
                    let Some(key) = key.as_str() else { continue };
                    out.push(name(key));
                    add(&name(key), value, depth + 1, out);
                }
            }
            Value::Sequence(items) if depth < MAX_AFFILIATION_DEPTH => {
                for item in items {
                    match item.as_str() {
                        Some(text) => out.push(name(text)),
                        None => add(above, item, depth + 1, out),
                    }
                }
            }
            Value::String(text) if !text.is_empty() => out.push(name(text)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    if let Some(section) = yaml.get("affiliations") {
        add("", section, 0, &mut out);
    }
    out
}

/// The newest schema level of identities that any server is known to write.
pub const NEWEST_IDENTITY_LEVEL: u32 = 2;

/// Returns the schema level of identities that a server of this version knows: it refuses a database of a higher one (C3). `None` when the
/// version cannot be read.
pub fn identity_level(version: &str) -> Option<u32> {
    let mut parts = version.trim_start_matches('v').split('-').next()?.split('.').map(|part| part.parse::<u32>());
    let mut next = || parts.next().map_or(Some(0), Result::ok);
    let version = (next()?, next()?, next()?);
    Some(match version {
        (0, _, _) | (1, 0, _) => 0,
        (1, 1 | 2, _) | (1, 3, 0) => 1,
        _ => NEWEST_IDENTITY_LEVEL,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_section_that_stands_twice_counts_as_it_stands_last() {
        let text = b"bccsp:\n  default: SW\n  sw: {hash: SHA2}\nca:\n  name: one\nbccsp:\n  default: PKCS11\n  pkcs11: {Library: /l.so, Label: fabric}\n";
        let config = CaConfig::parse(text).unwrap();
        assert!(format!("{config:?}").contains("fabric"), "{config:?}");
        assert!(CaConfig::parse(b"ca: [\nca: {").is_err());
    }

    #[test]
    fn what_a_configuration_does_not_say_is_the_servers_default() {
        let config = CaConfig::parse(b"version: v1.5.21\ntls:\n  certfile:\n").unwrap();
        assert_eq!((config.certificate.as_str(), config.tls_certificate.as_str()), ("ca-cert.pem", "tls-cert.pem"));
        assert_eq!((config.database, config.data_source.as_str()), (DatabaseKind::Sqlite, "fabric-ca-server.db"));
        assert!(!config.tls && config.key.is_none());
    }

    #[test]
    fn the_tls_files_of_clients_and_operations_count_where_they_are_used() {
        let read = |text: &str| {
            let config = CaConfig::parse(text.as_bytes()).unwrap();
            (config.client_roots, config.operations)
        };
        let text = "tls: {enabled: true, clientauth: {type: RequireAndVerifyClientCert, certfiles: [a.pem, b.pem]}}\noperations: {tls: {enabled: true, cert: {file: o.pem}, key: {file: }}}\n";
        let (roots, operations) = read(text);
        assert_eq!(roots, ["a.pem", "b.pem"]);
        assert_eq!(operations, [("operations.tls.cert.file", "o.pem".to_owned())]);
        assert!(read(&text.replace("RequireAndVerifyClientCert", "noclientcert")).0.is_empty());
        let off = text.replace("enabled: true", "enabled: false");
        assert_eq!(read(&off), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_it_says_is_read_and_a_broken_one_does_not_tell_its_secrets() {
        let yaml = "ca: {name: ca-org1, certfile: /k/ca.pem, keyfile: /k/ca.key}\ntls: {enabled: true, certfile: t.pem}\ndb: {type: postgres, datasource: host=db password=secret}";
        let config = CaConfig::parse(yaml.as_bytes()).unwrap();
        assert_eq!(config.key.as_deref(), Some("/k/ca.key"));
        assert!(config.tls && config.tls_certificate == "t.pem");
        assert_eq!(config.database, DatabaseKind::Postgres);
        let error = CaConfig::parse(b"db: [secret\n: }").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(CaConfig::parse(&vec![b' '; (MAX_CONFIG_BYTES + 1) as usize]), Err(CaConfigError::TooLong));
    }

    #[test]
    fn a_servers_environment_overrides_its_file_and_further_authorities_are_named() {
        let over = |pairs: &[(&str, &str)]| -> Environment {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let file = b"ca: {keyfile: /a}\ncacount: 2\nbccsp: {default: SW}\nversion: 1.5.5\n";
        let config = CaConfig::read(file, &over(&[("FABRIC_CA_SERVER_CA_KEYFILE", "/b")])).unwrap();
        assert_eq!(config.key.as_deref(), Some("/b"));
        let store = b"bccsp: {default: SW, sw: {filekeystore: {keystore: /k}}}\n";
        assert_eq!(CaConfig::parse(store).unwrap().key_store.as_deref(), Some("/k"));
        let over_store = over(&[("FABRIC_CA_SERVER_BCCSP_SW_FILEKEYSTORE_KEYSTORE", "/l")]);
        assert_eq!(CaConfig::read(store, &over_store).unwrap().key_store.as_deref(), Some("/l"));
        assert_eq!(config.further, ["ca/ca1/fabric-ca-config.yaml", "ca/ca2/fabric-ca-config.yaml"]);
        let files = CaConfig::read(b"cafiles: [a/x.yaml]", &over(&[])).unwrap();
        let named = b"affiliations:\n  Org1: [a, B]\n  org2:\n    c: {d: }\n    e: [f]\n";
        let named = CaConfig::parse(named).unwrap().affiliations;
        assert_eq!(named, ["org1", "org1.a", "org1.b", "org2", "org2.c", "org2.c.d", "org2.e", "org2.e.f"]);
        assert!(CaConfig::usual().affiliations.is_empty());
        assert_eq!((files.further, files.bccsp), (vec!["a/x.yaml".to_owned()], Bccsp::Software));
        let token = over(&[("FABRIC_CA_SERVER_BCCSP_DEFAULT", "PKCS11"), ("FABRIC_CA_SERVER_BCCSP_PKCS11_LABEL", "l")]);
        assert!(CaConfig::read(b"{}", &token).unwrap().bccsp.token().unwrap().contains("\"l\""));
    }

    #[test]
    fn the_database_file_is_read_out_of_every_form_of_a_data_source() {
        let files = |source: &str| {
            CaConfig::parse(format!("db: {{datasource: '{source}'}}").as_bytes()).unwrap().sqlite_files()
        };
        assert_eq!(files("ca.sqlite3"), ["ca.sqlite3"]);
        assert_eq!(files("/db/ca.db?_busy_timeout=5000"), ["/db/ca.db"]);
        assert_eq!(files("file:ca.db?mode=rwc"), ["file:ca.db", "ca.db"]);
        assert_eq!(files("file:///db/ca.db"), ["file:///db/ca.db", "/db/ca.db"]);
        assert_eq!(files(""), ["fabric-ca-server.db"]);
        let levels = ["1.0.6", "v1.1.0", "1.3.0", "1.3.1", "v1.5.21", "x"].map(identity_level);
        assert_eq!(levels, [Some(0), Some(1), Some(1), Some(2), Some(2), None]);
    }

    #[test]
    fn data_sources_are_read_in_both_forms_and_do_not_tell_their_password() {
        let postgres = DataSource::parse(
            &DatabaseKind::Postgres,
            r"host=db port=5433 user=ca password='it\'s a=secret' dbname=fabric_ca sslmode=verify-full",
        )
        .unwrap();
        assert_eq!((postgres.host.as_str(), postgres.port, postgres.password.as_str()), ("db", 5433, "it's a=secret"));
        assert_eq!((postgres.database.as_str(), postgres.ssl_mode.as_deref()), ("fabric_ca", Some("verify-full")));
        assert!(!format!("{postgres} {postgres:?}").contains("secret"));
        let mysql = |text| DataSource::parse(&DatabaseKind::MySql, text);
        let full = mysql("root:p@ss:w/rd@tcp(db.org1:3307)/fabric_ca?parseTime=true&tls=custom").unwrap();
        assert_eq!((full.user.as_str(), full.password.as_str(), full.host.as_str()), ("root", "p@ss:w/rd", "db.org1"));
        assert_eq!((full.port, full.database.as_str()), (3307, "fabric_ca"));
        let short = mysql("root@tcp/ca").unwrap();
        assert_eq!((short.host.as_str(), short.port, short.password.as_str()), ("127.0.0.1", 3306, ""));
        assert_eq!(mysql("u:p@tcp([fe80::1]:3306)/ca").unwrap().host, "fe80::1");
        assert_eq!(mysql("u:p@unix(/run/mysqld.sock)/ca").unwrap().host, "/run/mysqld.sock");
        for (kind, source) in [
            (DatabaseKind::Postgres, &postgres),
            (DatabaseKind::MySql, &full),
            (DatabaseKind::MySql, &mysql("u:p@unix(/run/mysqld.sock)/ca").unwrap()),
        ] {
            let kept = DataSource::parse(&kind, &source.without_password(&kind)).unwrap();
            assert_eq!(kept, DataSource { password: String::new(), ..source.clone() });
        }
        assert!(mysql("u:p@tcp(db:1)/").is_err() && mysql("nothing").is_err());
        assert!(DataSource::parse(&DatabaseKind::Postgres, "nothing").is_err());
    }
}
