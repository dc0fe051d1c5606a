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
            let mut at = &yaml;
            for key in path {
                at = at.get(*key)?;
            }
            match at {
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
        })
    }
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
}
