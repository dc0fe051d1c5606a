//! Settings in a container's environment and configuration files: directories, the MSP, operations endpoints.

use std::collections::BTreeSet;

use fabkeep_ledger::ca_config::{CA_CONFIG_FILE, CaConfig};
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::node_settings::{
    Listens, NodeSettings, ORDERER_CONFIG_FILE, PEER_CONFIG_FILE, StateDatabase, tls_files, value_at,
};
use fabkeep_ledger::yaml::parse;
use fabkeep_network::Operations;
use k8s_openapi::api::core::v1::Container;
use serde_norway::Value as Yaml;

use super::environment::Environment;
use super::mounts::{self, Holder, Mount, below, normal};
use crate::kubernetes::objects::Namespace;
use crate::shell::base;
use crate::sql::SqlDatabase;

/// A path that a node names, and what it is to it.
pub(super) struct ConfiguredPath {
    pub role: DirectoryRole,
    pub path: String,
    /// It must be there; else only what mounts put there counts.
    pub needed: bool,
}

/// What a node's configuration says of it.
#[derive(Default)]
pub(super) struct Configured {
    pub named: Vec<ConfiguredPath>,
    pub msp_id: Option<String>,
    pub operations: Option<Operations>,
    pub participation: Option<Operations>,
    /// The server that it keeps its data in, and that server's host.
    pub server: Option<(NodeRole, String)>,
}

/// A container that is looked at.
pub(super) struct ContainerView<'a> {
    pub namespace: &'a Namespace,
    pub container: &'a Container,
    pub environment: Environment,
    pub mounts: Vec<Mount>,
    /// Settings of folders that its scripts make when they run.
    pub unknown: BTreeSet<String>,
    /// A certificate authority's command has options that are known only when it runs.
    pub unknown_options: bool,
}

/// What besides its program tells of a node of a role.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Evidence {
    /// Its configuration file is mounted where it would be read.
    pub configured: bool,
    /// Its data directory is on a volume that lasts.
    pub keeps: bool,
}

impl ContainerView<'_> {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A configuration file as mounted Secrets and ConfigMaps hold it.
    fn yaml(&self, directory: &str, file: &str) -> Yaml {
        let files = mounts::object_files(&self.mounts, self.namespace, directory);
        files.get(file).and_then(|(bytes, _)| parse(bytes).ok()).unwrap_or(Yaml::Null)
    }

    /// What mounts tell of a node of this role: a peer, an orderer or a certificate authority.
    pub fn evidence(&self, role: NodeRole) -> Evidence {
        let (folder, file) = match role {
            NodeRole::Peer => (self.config_folder(PEER_CONFIG_FILE), PEER_CONFIG_FILE),
            NodeRole::Orderer => (self.config_folder(ORDERER_CONFIG_FILE), ORDERER_CONFIG_FILE),
            NodeRole::CertificateAuthority => (self.authority_home(), self.authority_file()),
            _ => return Evidence::default(),
        };
        let lasts = |mount: &Mount| !matches!(mount.holder, Holder::Objects(_) | Holder::Ephemeral(_));
        let keeps = self.configured(role).named.first().is_some_and(|data| {
            mounts::holding(&self.mounts, &data.path).is_some_and(lasts)
                || mounts::nested(&self.mounts, &data.path).any(|(mount, _)| lasts(mount))
        });
        Evidence { configured: self.yaml(&folder, file) != Yaml::Null, keeps }
    }

    /// Where the data of a node of this role would lie in volumes: the volume, and the path inside it.
    pub fn data_places(&self, role: NodeRole) -> BTreeSet<(String, String)> {
        let configured = self.configured(role);
        let Some(data) = configured.named.first() else { return BTreeSet::new() };
        let nested = mounts::nested(&self.mounts, &data.path).map(|(mount, _)| mount.path.as_str());
        let paths = std::iter::once(data.path.as_str()).chain(nested);
        let places = paths.filter_map(|path| mounts::in_volume(&self.mounts, path));
        places.map(|(volume, inside)| (volume.to_string(), format!("/{inside}"))).collect()
    }

    /// The folder of a configuration file: without a setting the working directory counts before the usual place.
    fn config_folder(&self, file: &str) -> String {
        let working = self.container.working_dir.as_deref().map(normal);
        let holds = |folder: &String| self.yaml(folder, file) != Yaml::Null;
        let usual = || working.filter(holds).unwrap_or("/etc/hyperledger/fabric".to_owned());
        self.get("FABRIC_CFG_PATH").map_or_else(usual, normal)
    }

    /// What the configuration says of a node of this role; each path once for what it is.
    pub fn configured(&self, role: NodeRole) -> Configured {
        let mut out = self.all_configured(role);
        let mut named: Vec<ConfiguredPath> = Vec::new();
        for known in out.named {
            match named.iter_mut().find(|other| other.role == known.role && other.path == known.path) {
                Some(other) => other.needed |= known.needed,
                None => named.push(known),
            }
        }
        out.named = named;
        out
    }

    fn all_configured(&self, role: NodeRole) -> Configured {
        let only = |named| Configured { named, ..Configured::default() };
        match role {
            NodeRole::Peer => self.peer(),
            NodeRole::Orderer => self.orderer(),
            NodeRole::CertificateAuthority => {
                let server = self.authority_database().map(|host| (NodeRole::CaDatabase, host));
                Configured { server, ..only(self.authority()) }
            }
            NodeRole::StateDatabase => only(self.database(DirectoryRole::StateDatabase, "/opt/couchdb/data")),
            NodeRole::CaDatabase => {
                let usual = self.get("PGDATA").unwrap_or("/var/lib/postgresql/data");
                let usual =
                    if self.environment.keys().any(|name| name.starts_with("MYSQL_") || name.starts_with("MARIADB_")) {
                        "/var/lib/mysql"
                    } else {
                        usual
                    };
                only(self.database(DirectoryRole::Database, usual))
            }
            NodeRole::Chaincode | NodeRole::Files => Configured::default(),
        }
    }

    /// The configuration folder, and the settings of a node of this role.
    fn settings(&self, role: NodeRole, file: &str) -> (String, NodeSettings) {
        let config = self.config_folder(file);
        let yaml = self.yaml(&config, file);
        (config, NodeSettings::of(role, &yaml, &self.environment))
    }

    /// The folders of the TLS files of endpoints where TLS is on: of the general one, of operations, of administration, of clients.
    fn tls_of_endpoints(&self, role: NodeRole, config: &str, file: &str) -> impl Iterator<Item = ConfiguredPath> {
        let files = tls_files(role, &self.yaml(config, file), &self.environment);
        files.into_iter().map(move |file| {
            let is_key = file.setting.to_lowercase().contains("key");
            named(DirectoryRole::Tls, parent(&resolve(config, &file.path)), is_key)
        })
    }

    fn peer(&self) -> Configured {
        let (config, settings) = self.settings(NodeRole::Peer, PEER_CONFIG_FILE);
        let absolute = |path: &String| resolve(&config, path);
        let data = settings.data.as_ref().map_or("/var/hyperledger/production".to_owned(), absolute);
        let msp = settings.msp.clone().unwrap_or("msp".to_owned());
        let mut out = vec![
            named(DirectoryRole::PeerData, data, true),
            named(DirectoryRole::Msp, absolute(&msp), true),
            named(DirectoryRole::Config, config.clone(), false),
        ];
        let tls = &settings.tls;
        if tls.enabled != Some(false) {
            let files = tls.certificate.iter().map(|path| (path, false)).chain(tls.key.iter().map(|path| (path, true)));
            for (path, needed) in files.chain(tls.roots.iter().map(|path| (path, false))) {
                out.push(named(DirectoryRole::Tls, parent(&absolute(path)), needed));
            }
        }
        out.extend(self.tls_of_endpoints(NodeRole::Peer, &config, PEER_CONFIG_FILE));
        let operations = settings.operations.as_ref().and_then(operations);
        let server = match &settings.state_database {
            StateDatabase::CouchDb { address } => {
                Some((NodeRole::StateDatabase, address.split(':').next().unwrap_or_default().to_owned()))
            }
            StateDatabase::LevelDb => None,
        };
        Configured { named: out, msp_id: settings.msp_id, operations, participation: None, server }
    }

    fn orderer(&self) -> Configured {
        let (config, settings) = self.settings(NodeRole::Orderer, ORDERER_CONFIG_FILE);
        let absolute = |path: &String| resolve(&config, path);
        let production = "/var/hyperledger/production/orderer";
        let path = |named: &Option<String>, usual: String| named.as_ref().map_or(usual, absolute);
        let ledger = path(&settings.data, production.to_owned());
        let wal = path(&settings.wal, format!("{production}/etcdraft/wal"));
        let snapshots = path(&settings.raft_snapshots, format!("{production}/etcdraft/snapshot"));
        let msp = settings.msp.clone().unwrap_or("msp".to_owned());
        let mut out = vec![
            named(DirectoryRole::OrdererLedger, ledger, true),
            named(DirectoryRole::OrdererWal, wal.clone(), true),
            named(DirectoryRole::Msp, absolute(&msp), true),
            named(DirectoryRole::Config, config.clone(), false),
        ];
        if snapshots != wal {
            out.push(named(DirectoryRole::OrdererSnapshots, snapshots, false));
        }
        let tls = &settings.tls;
        if tls.enabled != Some(false) {
            let pair = |certificate: &String, key: &String| [(certificate.clone(), false), (key.clone(), true)];
            let own = tls.certificate.iter().map(|path| (path.clone(), false));
            let own = own.chain(tls.key.iter().map(|path| (path.clone(), true)));
            for (path, needed) in own.chain(tls.client.iter().flat_map(|(certificate, key)| pair(certificate, key))) {
                out.push(named(DirectoryRole::Tls, parent(&absolute(&path)), needed));
            }
        }
        out.extend(self.tls_of_endpoints(NodeRole::Orderer, &config, ORDERER_CONFIG_FILE));
        let operations = settings.operations.as_ref().and_then(operations);
        let participation = settings.participation.as_ref().and_then(self::operations);
        Configured { named: out, msp_id: settings.msp_id, operations, participation, server: None }
    }

    /// The folder of the configuration file that a flag names counts before any home.
    fn authority_home(&self) -> String {
        if let Some(file) = self.get("FABRIC_CA_SERVER_CONFIG") {
            return parent(&resolve(self.container.working_dir.as_deref().unwrap_or("/"), file));
        }
        let home = self.get("FABRIC_CA_SERVER_HOME").or(self.get("FABRIC_CA_HOME"));
        normal(home.unwrap_or("/etc/hyperledger/fabric-ca-server"))
    }

    fn authority_file(&self) -> &str {
        self.get("FABRIC_CA_SERVER_CONFIG").map_or(CA_CONFIG_FILE, base)
    }

    fn authority(&self) -> Vec<ConfiguredPath> {
        let home = self.authority_home();
        let mut out = vec![named(DirectoryRole::CaHome, home.clone(), true)];
        let operations =
            self.get("FABRIC_CA_SERVER_OPERATIONS_TLS_ENABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        for name in [
            "FABRIC_CA_SERVER_CA_CERTFILE",
            "FABRIC_CA_SERVER_CA_KEYFILE",
            "FABRIC_CA_SERVER_TLS_CERTFILE",
            "FABRIC_CA_SERVER_TLS_KEYFILE",
            "FABRIC_CA_SERVER_OPERATIONS_TLS_CERT_FILE",
            "FABRIC_CA_SERVER_OPERATIONS_TLS_KEY_FILE",
        ] {
            if name.contains("OPERATIONS") && !operations {
                continue;
            }
            if let Some(path) = self.get(name) {
                let folder = parent(&resolve(&home, path));
                if below(&folder, &home).is_none() {
                    let role = if name.contains("TLS") { DirectoryRole::Tls } else { DirectoryRole::Other };
                    out.push(named(role, folder, true));
                }
            }
        }
        if let Some(path) = self.get("FABRIC_CA_SERVER_BCCSP_SW_FILEKEYSTORE_KEYSTORE") {
            let folder = resolve(&home, path);
            if below(&folder, &home).is_none() {
                out.push(named(DirectoryRole::Other, folder, true));
            }
        }
        // SQLite's file outside of the home.
        let sqlite = self.get("FABRIC_CA_SERVER_DB_TYPE").is_none_or(|kind| kind.eq_ignore_ascii_case("sqlite3"));
        if let Some(source) = self.get("FABRIC_CA_SERVER_DB_DATASOURCE").filter(|_| sqlite) {
            let file = source.trim_start_matches("file:").split('?').next().unwrap_or_default();
            let folder = parent(&resolve(&home, file));
            if below(&folder, &home).is_none() {
                out.push(named(DirectoryRole::Other, folder, true));
            }
        }
        out
    }

    /// The server and database that a CA keeps its identities in: the host, when it is not sqlite.
    fn authority_database(&self) -> Option<String> {
        let yaml = self.yaml(&self.authority_home(), self.authority_file());
        let or_yaml = |name: &str, at: &[&str]| self.get(name).map(str::to_owned).or_else(|| yaml_text(&yaml, at));
        let kind = or_yaml("FABRIC_CA_SERVER_DB_TYPE", &["db", "type"])?;
        if kind.eq_ignore_ascii_case("sqlite3") {
            return None;
        }
        let source = or_yaml("FABRIC_CA_SERVER_DB_DATASOURCE", &["db", "datasource"])?;
        // PostgreSQL: `host=ca-db port=5432 …`; MySQL: `user:password@tcp(ca-db:3306)/db`.
        let postgres = source.split_whitespace().find_map(|word| word.strip_prefix("host="));
        let mysql = source.split_once("tcp(").and_then(|(_, rest)| rest.split([':', ')']).next());
        Some(postgres.or(mysql).unwrap_or("an address that cannot be read").to_owned())
    }

    /// The same with who is let in, when all of it can be read.
    pub fn authority_sql(&self) -> Option<SqlDatabase> {
        let files = mounts::object_files(&self.mounts, self.namespace, &self.authority_home());
        let file =
            files.get(self.authority_file()).and_then(|(bytes, _)| CaConfig::read(bytes, &self.environment).ok());
        let config = file.or_else(|| CaConfig::read(b"{}", &self.environment).ok())?;
        SqlDatabase::of(&config).ok().flatten()
    }

    /// A database server: every claim that it mounts; without one, its usual place.
    fn database(&self, role: DirectoryRole, usual: &str) -> Vec<ConfiguredPath> {
        let claims: Vec<&Mount> = self
            .mounts
            .iter()
            .filter(|mount| !matches!(mount.holder, Holder::Objects(_) | Holder::Ephemeral(_)))
            .collect();
        if claims.is_empty() {
            return vec![named(role, normal(usual), true)];
        }
        claims.into_iter().map(|mount| named(role, mount.path.clone(), true)).collect()
    }
}

fn yaml_text(yaml: &Yaml, path: &[&str]) -> Option<String> {
    match value_at(yaml, path)? {
        Yaml::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Yaml::Bool(value) => Some(value.to_string()),
        Yaml::Number(value) => Some(value.to_string()),
        _ => None,
    }
}

fn named(role: DirectoryRole, path: String, needed: bool) -> ConfiguredPath {
    ConfiguredPath { role, path: normal(&path), needed }
}

/// A path that may be relative to a folder.
fn resolve(folder: &str, path: &str) -> String {
    if path.starts_with('/') { normal(path) } else { normal(&format!("{folder}/{path}")) }
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or("/".to_owned(), |(folder, _)| normal(folder))
}

fn operations(listens: &Listens) -> Option<Operations> {
    let port = listens.address.rsplit(':').next()?.parse().ok()?;
    Some(Operations { port, tls: listens.tls })
}
