//! `fabric-ca-server-config.yaml`: what of a certificate authority's configuration a recovery must know.

use serde_norway::Value;

/// What the file is called.
pub const CA_CONFIG_FILE: &str = "fabric-ca-server-config.yaml";
/// Longest configuration read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

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
    /// Where identities and certificates are kept.
    pub database: DatabaseKind,
    /// The database's file or address with credentials: never to be printed.
    pub data_source: String,
    /// How the database's server is spoken to.
    pub database_tls: DatabaseTls,
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
            Some((protocol, rest)) => (protocol, rest.strip_suffix(')').ok_or("no ) behind the address")?),
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
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(CaConfigError::TooLong);
        }
        let yaml: Value = serde_norway::from_slice(bytes).map_err(|error| {
            // The message may quote the file: only where, not what.
            let place = error.location().map_or(String::new(), |at| format!("line {}", at.line()));
            CaConfigError::NotYaml(place)
        })?;
        let text = |path: &[&str]| -> Option<String> {
            match at(&yaml, path)? {
                Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
                Value::Bool(value) => Some(value.to_string()),
                Value::Number(value) => Some(value.to_string()),
                _ => None,
            }
        };
        let usual = |path: &[&str], usual: &str| text(path).unwrap_or_else(|| usual.to_owned());
        Ok(CaConfig {
            name: usual(&["ca", "name"], ""),
            certificate: usual(&["ca", "certfile"], "ca-cert.pem"),
            key: text(&["ca", "keyfile"]),
            tls: text(&["tls", "enabled"]).is_some_and(|text| text.eq_ignore_ascii_case("true")),
            tls_certificate: usual(&["tls", "certfile"], "tls-cert.pem"),
            tls_key: text(&["tls", "keyfile"]),
            database: DatabaseKind::named(&usual(&["db", "type"], "sqlite3")),
            data_source: usual(&["db", "datasource"], "fabric-ca-server.db"),
            database_tls: DatabaseTls {
                roots: text(&["db", "tls", "certfiles"]).or_else(|| first(&yaml, &["db", "tls", "certfiles"])),
                certificate: text(&["db", "tls", "client", "certfile"]),
                key: text(&["db", "tls", "client", "keyfile"]),
            },
        })
    }
}

fn at<'a>(yaml: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(yaml, |at, key| at.get(*key))
}

/// The first text of a list.
fn first(yaml: &Value, path: &[&str]) -> Option<String> {
    at(yaml, path)?.as_sequence()?.first()?.as_str().map(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_does_not_say_is_the_servers_default() {
        let config = CaConfig::parse(b"version: v1.5.21\ntls:\n  certfile:\n").unwrap();
        assert_eq!((config.certificate.as_str(), config.tls_certificate.as_str()), ("ca-cert.pem", "tls-cert.pem"));
        assert_eq!((config.database, config.data_source.as_str()), (DatabaseKind::Sqlite, "fabric-ca-server.db"));
        assert!(!config.tls && config.key.is_none());
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
        assert!(mysql("u:p@tcp(db:1)/").is_err() && mysql("nothing").is_err());
        assert!(DataSource::parse(&DatabaseKind::Postgres, "nothing").is_err());
    }
}
