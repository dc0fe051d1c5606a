//! `core.yaml` and `orderer.yaml`, overridden by the environment: the settings of a node that a recovery needs. All platforms use this
//! reader; they resolve the paths themselves.

use std::collections::BTreeMap;

use serde_norway::Value;

use crate::layout::NodeRole;
use crate::yaml::read_yaml;

/// What a peer's configuration file is called.
pub const PEER_CONFIG_FILE: &str = "core.yaml";
/// What an orderer's configuration file is called.
pub const ORDERER_CONFIG_FILE: &str = "orderer.yaml";

/// Environment variables, by name.
pub type Environment = BTreeMap<String, String>;

/// Returns a value of a configuration file. Fabric reads its configuration without regard to case.
pub fn value_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| {
        value
            .as_mapping()?
            .iter()
            .find(|(name, _)| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(key)))
            .map(|(_, value)| value)
    })
}

/// Returns whether a switch is on.
pub(crate) fn is_true(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// A file or directory that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The setting, as the file spells it out: `peer.tls.rootcert.file`.
    pub setting: String,
    /// The environment variable that sets it: `CORE_PEER_TLS_ROOTCERT_FILE`.
    pub variable: String,
    /// Whether the environment says it, not the file.
    pub by_environment: bool,
    /// The path as written: absolute, or relative to the configuration file.
    pub path: String,
}

impl NamedFile {
    /// Returns whether it holds certificates that vouch for others, and is no file of the node's own.
    pub fn is_root(&self) -> bool {
        ["RootCAs", "RootCAs.files", "rootcert.file"].iter().any(|end| self.setting.ends_with(end))
    }
}

/// A configuration file and the environment variables that override it: `CORE_PEER_MSPCONFIGPATH` is `peer.mspConfigPath`.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    prefix: &'static str,
    yaml: &'a Value,
    environment: &'a Environment,
}

impl<'a> Settings<'a> {
    /// Settings whose environment variables begin with `prefix` (`CORE`, `ORDERER`, `FABRIC_CA_SERVER`).
    pub fn new(prefix: &'static str, yaml: &'a Value, environment: &'a Environment) -> Self {
        Settings { prefix, yaml, environment }
    }

    /// Returns the name of the environment variable that overrides a setting.
    fn variable_name(&self, path: &[&str]) -> String {
        format!("{}_{}", self.prefix, path.join("_").to_ascii_uppercase())
    }

    fn variable(&self, path: &[&str]) -> Option<&'a str> {
        self.environment.get(&self.variable_name(path)).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Returns the paths that a setting names. A path of another environment's is not known here.
    fn named(&self, path: &[&str]) -> Vec<NamedFile> {
        let by_environment = self.variable(path).is_some();
        let (setting, variable) = (path.join("."), self.variable_name(path));
        let all = if is_list(&variable) { self.list(path) } else { self.text(path).into_iter().collect() };
        let known = all.into_iter().filter(|text| !text.contains('$'));
        known
            .map(|path| NamedFile { setting: setting.clone(), variable: variable.clone(), by_environment, path })
            .collect()
    }

    /// Returns a setting as text; `None` when it is not set or empty.
    pub fn text(&self, path: &[&str]) -> Option<String> {
        if let Some(text) = self.variable(path) {
            return Some(text.to_owned());
        }
        match value_at(self.yaml, path)? {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(value) => Some(value.to_string()),
            _ => None,
        }
    }

    /// Returns a switch; `None` when it is not set.
    pub fn flag(&self, path: &[&str]) -> Option<bool> {
        self.text(path).map(|text| text.eq_ignore_ascii_case("true") || text == "1")
    }

    /// Returns a list: of a sequence, or of a text with commas or in brackets, as environment variables hold one.
    pub fn list(&self, path: &[&str]) -> Vec<String> {
        if let Some(text) = self.variable(path) {
            return split(text);
        }
        match value_at(self.yaml, path) {
            Some(Value::Sequence(items)) => {
                items.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect()
            }
            Some(Value::String(text)) => split(text),
            _ => Vec::new(),
        }
    }
}

/// Returns the parts of a list as environment variables hold one: with commas or spaces, with or without brackets.
pub fn split(text: &str) -> Vec<String> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let parts = inner.split([',', ' ']).map(|part| part.trim().trim_matches(['"', '\'']));
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Returns whether an environment variable holds a list of paths.
pub fn is_list(variable: &str) -> bool {
    ["ROOTCAS", "_FILES", "CAFILES"].iter().any(|end| variable.ends_with(end))
}

/// Returns whether an environment variable holds a path, or a list of paths.
pub fn is_path(variable: &str) -> bool {
    let one = ["FILE", "CERTIFICATE", "PRIVATEKEY", "DATASOURCE", "KEYSTORE"].iter().any(|end| variable.ends_with(end));
    one || is_list(variable)
        || PLACES.iter().any(|of_role| of_role.iter().any(|place| variable.ends_with(&place.join("_").to_uppercase())))
}

/// Where a node's signing keys are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Bccsp {
    /// In files.
    #[default]
    Software,
    /// In a token that a PKCS#11 library reaches: an HSM. They cannot be captured.
    Pkcs11 {
        /// The token's label.
        label: Option<String>,
        /// The library.
        library: Option<String>,
    },
}

impl Bccsp {
    /// Reads the section at `path`.
    pub fn read(settings: &Settings<'_>, path: &[&str]) -> Self {
        let at = |more: &[&str]| settings.text(&[path, more].concat());
        if at(&["Default"]).is_none_or(|name| !name.eq_ignore_ascii_case("PKCS11")) {
            return Bccsp::Software;
        }
        Bccsp::Pkcs11 { label: at(&["PKCS11", "Label"]), library: at(&["PKCS11", "Library"]) }
    }

    /// Returns the token, in words; `None` where keys are files.
    pub fn token(&self) -> Option<String> {
        let Bccsp::Pkcs11 { label, library } = self else { return None };
        let label = label.as_ref().map_or("without a label".to_owned(), |label| format!("with the label {label:?}"));
        let library = library.as_ref().map_or(String::new(), |library| format!(", library {library}"));
        Some(format!("PKCS#11 token {label}{library}"))
    }
}

/// TLS of a node; paths as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Whether it is switched off; `None` when nothing says so.
    pub enabled: Option<bool>,
    /// The certificate.
    pub certificate: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// Certificates that vouch for others.
    pub roots: Vec<String>,
    /// Certificate and key that it shows as a client, where they are others.
    pub client: Option<(String, String)>,
}

/// Where a peer keeps its world state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StateDatabase {
    /// In its own directory.
    #[default]
    LevelDb,
    /// In a CouchDB.
    CouchDb {
        /// `host:port`.
        address: String,
    },
}

/// An address that is listened at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listens {
    /// `host:port`.
    pub address: String,
    /// Whether it wants TLS.
    pub tls: bool,
}

impl Listens {
    fn read(settings: &Settings<'_>, address: &[&str], tls: &[&str]) -> Option<Self> {
        Some(Listens { address: settings.text(address)?, tls: settings.flag(tls).unwrap_or(false) })
    }
}

/// What both kinds of nodes say. Paths are as written: relative ones start at the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// The node's own name.
    pub id: Option<String>,
    /// Its MSP.
    pub msp_id: Option<String>,
    /// A peer's data directory, an orderer's ledger directory.
    pub data: Option<String>,
    /// The MSP directory.
    pub msp: Option<String>,
    /// A key store apart from the MSP directory.
    pub keystore: Option<String>,
    /// TLS.
    pub tls: TlsFiles,
    /// Where signing keys are.
    pub bccsp: Bccsp,
    /// Where heights and health are asked for.
    pub operations: Option<Listens>,
    /// A peer's snapshots of its ledgers.
    pub snapshots: Option<String>,
    /// A peer's world state.
    pub state_database: StateDatabase,
    /// An orderer's raft or SmartBFT logs.
    pub wal: Option<String>,
    /// An orderer's raft snapshots.
    pub raft_snapshots: Option<String>,
    /// An orderer's channel participation API.
    pub participation: Option<Listens>,
    /// The certificate and key that an orderer's channel participation API shows.
    pub admin: Option<(String, String)>,
}

impl NodeSettings {
    /// Reads a peer's settings.
    pub fn peer(yaml: &Value, environment: &Environment) -> Self {
        let settings = Settings::new("CORE", yaml, environment);
        let text = |path: &[&str]| settings.text(path);
        let state = &["ledger", "state"];
        let couch =
            text(&["ledger", "state", "stateDatabase"]).is_some_and(|kind| kind.eq_ignore_ascii_case("CouchDB"));
        let address = || settings.text(&[state, &["couchDBConfig", "couchDBAddress"][..]].concat());
        NodeSettings {
            id: text(&["peer", "id"]),
            msp_id: text(&["peer", "localMspId"]),
            data: text(&["peer", "fileSystemPath"]),
            msp: text(&["peer", "mspConfigPath"]),
            keystore: text(&["peer", "BCCSP", "SW", "FileKeyStore", "KeyStore"]),
            tls: TlsFiles {
                enabled: settings.flag(&["peer", "tls", "enabled"]),
                certificate: text(&["peer", "tls", "cert", "file"]),
                key: text(&["peer", "tls", "key", "file"]),
                roots: text(&["peer", "tls", "rootcert", "file"]).into_iter().collect(),
                client: text(&["peer", "tls", "clientCert", "file"]).zip(text(&["peer", "tls", "clientKey", "file"])),
            },
            bccsp: Bccsp::read(&settings, &["peer", "BCCSP"]),
            operations: Listens::read(&settings, &["operations", "listenAddress"], &["operations", "tls", "enabled"]),
            snapshots: text(&["ledger", "snapshots", "rootDir"]),
            state_database: match couch {
                true => StateDatabase::CouchDb { address: address().unwrap_or("127.0.0.1:5984".to_owned()) },
                false => StateDatabase::LevelDb,
            },
            ..NodeSettings::default()
        }
    }

    /// Reads an orderer's settings.
    pub fn orderer(yaml: &Value, environment: &Environment) -> Self {
        let settings = Settings::new("ORDERER", yaml, environment);
        let text = |path: &[&str]| settings.text(path);
        let pair = |at: &[&str], certificate: &str, key: &str| {
            settings.text(&[at, &[certificate][..]].concat()).zip(settings.text(&[at, &[key][..]].concat()))
        };
        let serves = settings.flag(&["ChannelParticipation", "Enabled"]).unwrap_or(false);
        NodeSettings {
            msp_id: text(&["General", "LocalMSPID"]),
            data: text(&["FileLedger", "Location"]),
            msp: text(&["General", "LocalMSPDir"]),
            keystore: text(&["General", "BCCSP", "SW", "FileKeyStore", "KeyStore"]),
            tls: TlsFiles {
                enabled: settings.flag(&["General", "TLS", "Enabled"]),
                certificate: text(&["General", "TLS", "Certificate"]),
                key: text(&["General", "TLS", "PrivateKey"]),
                roots: settings.list(&["General", "TLS", "RootCAs"]),
                client: pair(&["General", "Cluster"], "ClientCertificate", "ClientPrivateKey"),
            },
            bccsp: Bccsp::read(&settings, &["General", "BCCSP"]),
            operations: Listens::read(&settings, &["Operations", "ListenAddress"], &["Operations", "TLS", "Enabled"]),
            wal: text(&["Consensus", "WALDir"]),
            raft_snapshots: text(&["Consensus", "SnapDir"]),
            participation: Listens::read(&settings, &["Admin", "ListenAddress"], &["Admin", "TLS", "Enabled"])
                .filter(|_| serves),
            admin: pair(&["Admin", "TLS"], "Certificate", "PrivateKey"),
            ..NodeSettings::default()
        }
    }

    /// Reads the settings of a node of this role out of a configuration file's bytes; a file that is no YAML says nothing.
    pub fn read(role: NodeRole, bytes: &[u8], environment: &Environment) -> Self {
        let yaml = read_yaml(bytes).unwrap_or(Value::Null);
        Self::of(role, &yaml, environment)
    }

    /// Reads the settings of a node of this role; nothing for a node that is neither peer nor orderer.
    pub fn of(role: NodeRole, yaml: &Value, environment: &Environment) -> Self {
        match role {
            NodeRole::Peer => Self::peer(yaml, environment),
            NodeRole::Orderer => Self::orderer(yaml, environment),
            _ => NodeSettings::default(),
        }
    }
}

/// Returns whether a configuration file has a section of this name at its top.
pub fn has_section(yaml: &Value, name: &str) -> bool {
    value_at(yaml, &[name]).is_some_and(|value| !value.is_null())
}

/// The directories that a node's configuration names: a peer's, an orderer's.
const PLACES: [&[&[&str]]; 2] = [
    &[&["peer", "fileSystemPath"], &["peer", "mspConfigPath"], &["peer", "BCCSP", "SW", "FileKeyStore", "KeyStore"]],
    &[
        &["FileLedger", "Location"],
        &["General", "LocalMSPDir"],
        &["General", "BCCSP", "SW", "FileKeyStore", "KeyStore"],
        &["Consensus", "WALDir"],
        &["Consensus", "SnapDir"],
    ],
];

/// Returns the settings of a node of this role, and the places of its directories among them.
fn of_role<'a>(
    role: NodeRole,
    yaml: &'a Value,
    environment: &'a Environment,
) -> Option<(Settings<'a>, &'static [&'static [&'static str]])> {
    match role {
        NodeRole::Peer => Some((Settings::new("CORE", yaml, environment), PLACES[0])),
        NodeRole::Orderer => Some((Settings::new("ORDERER", yaml, environment), PLACES[1])),
        _ => None,
    }
}

/// Returns the TLS files that a node of this role reads at its start, of the endpoints where TLS is on.
pub fn tls_files(role: NodeRole, yaml: &Value, environment: &Environment) -> Vec<NamedFile> {
    let Some((settings, _)) = of_role(role, yaml, environment) else { return Vec::new() };
    let on = |path: &[&str]| settings.flag(path) == Some(true);
    let mut wanted: Vec<Vec<&str>> = Vec::new();
    if role == NodeRole::Peer {
        if on(&["peer", "tls", "enabled"]) {
            let files = ["cert", "key", "rootcert", "clientCert", "clientKey"];
            wanted.extend(files.map(|name| vec!["peer", "tls", name, "file"]));
            if on(&["peer", "tls", "clientAuthRequired"]) {
                wanted.push(vec!["peer", "tls", "clientRootCAs", "files"]);
            }
        }
        if on(&["operations", "tls", "enabled"]) {
            wanted.extend(["cert", "key"].map(|name| vec!["operations", "tls", name, "file"]));
            wanted.push(vec!["operations", "tls", "clientRootCAs", "files"]);
        }
    } else {
        for section in ["General", "Admin", "Operations"] {
            if on(&[section, "TLS", "Enabled"]) {
                wanted.extend(["Certificate", "PrivateKey", "RootCAs"].map(|name| vec![section, "TLS", name]));
                // The general listener reads these only where clients must show a certificate.
                if section != "General" || on(&[section, "TLS", "ClientAuthRequired"]) {
                    wanted.push(vec![section, "TLS", "ClientRootCAs"]);
                }
            }
        }
        let own_listener = settings.text(&["General", "Cluster", "ServerCertificate"]).is_some();
        if own_listener || on(&["General", "TLS", "Enabled"]) {
            let files = ["ClientCertificate", "ClientPrivateKey", "RootCAs", "ServerCertificate", "ServerPrivateKey"];
            wanted.extend(files.map(|name| vec!["General", "Cluster", name]));
        }
    }
    wanted.iter().flat_map(|path| settings.named(path)).collect()
}

/// Returns the directories that the configuration of a node of this role names: data, MSP, key store, raft.
pub fn places(role: NodeRole, yaml: &Value, environment: &Environment) -> Vec<NamedFile> {
    let Some((settings, places)) = of_role(role, yaml, environment) else { return Vec::new() };
    let token = Bccsp::read(&settings, if role == NodeRole::Peer { &["peer", "BCCSP"] } else { &["General", "BCCSP"] });
    let used = |place: &&&[&str]| !(place.ends_with(&["KeyStore"]) && token.token().is_some());
    places.iter().filter(used).flat_map(|path| settings.named(path)).collect()
}

/// Returns the file with the first block of the system channel that an orderer's configuration names. Fabric 1.4 calls it genesis.
pub fn bootstrap_file(role: NodeRole, yaml: &Value, environment: &Environment) -> Option<NamedFile> {
    let (settings, _) = of_role(role, yaml, environment).filter(|_| role == NodeRole::Orderer)?;
    let methods = ["BootstrapMethod", "GenesisMethod"];
    let method = methods.iter().find_map(|name| settings.text(&["General", name]))?;
    if !method.eq_ignore_ascii_case("file") {
        return None;
    }
    let files = ["BootstrapFile", "GenesisFile"];
    files.iter().find_map(|name| settings.named(&["General", name]).into_iter().next())
}

/// The section of a peer's configuration that names libraries.
pub const HANDLERS: &str = "peer.handlers";

/// Returns the libraries that a peer loads at its start in place of its own handlers. Relative paths begin where it is started.
pub fn handler_libraries(role: NodeRole, yaml: &Value, environment: &Environment) -> Vec<NamedFile> {
    fn add(setting: &str, value: &Value, out: &mut Vec<NamedFile>) {
        let library = value_at(value, &["library"]).and_then(Value::as_str).unwrap_or_default();
        if !library.is_empty() && !library.contains('$') {
            let setting = format!("{setting}.library");
            let variable = format!("CORE_{}", setting.replace('.', "_").to_ascii_uppercase());
            out.push(NamedFile { setting, variable, by_environment: false, path: library.to_owned() });
        }
    }
    let Some((settings, _)) = of_role(role, yaml, environment).filter(|_| role == NodeRole::Peer) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for kind in ["authFilters", "decorators", "endorsers", "validators"] {
        let setting = format!("{HANDLERS}.{kind}");
        match value_at(settings.yaml, &["peer", "handlers", kind]) {
            Some(Value::Sequence(items)) => items.iter().for_each(|item| add(&setting, item, &mut out)),
            Some(Value::Mapping(items)) => {
                for (name, item) in items {
                    add(&format!("{setting}.{}", name.as_str().unwrap_or_default()), item, &mut out);
                }
            }
            _ => {}
        }
    }
    out
}

/// Returns the file of a peer's TLS client certificate or key where only one of the two is set: the peer does not start.
pub fn client_file_without_partner(role: NodeRole, yaml: &Value, environment: &Environment) -> Option<NamedFile> {
    let (settings, _) = of_role(role, yaml, environment).filter(|_| role == NodeRole::Peer)?;
    settings.flag(&["peer", "tls", "enabled"]).filter(|on| *on)?;
    let [certificate, key] = ["clientCert", "clientKey"].map(|name| ["peer", "tls", name, "file"]);
    match (settings.text(&certificate), settings.text(&key)) {
        (Some(_), None) => settings.named(&certificate).into_iter().next(),
        (None, Some(_)) => settings.named(&key).into_iter().next(),
        _ => None,
    }
}

/// Returns everything that the configuration of a node of this role names: files and directories.
pub fn named_paths(role: NodeRole, yaml: &Value, environment: &Environment) -> Vec<NamedFile> {
    let mut out = tls_files(role, yaml, environment);
    out.extend(places(role, yaml, environment));
    out.extend(bootstrap_file(role, yaml, environment));
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kept_environment::kept;
    use crate::yaml::parse;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_overrides_the_file_and_case_does_not_matter() {
        let yaml: Value = serde_norway::from_str(
            "Peer: {filesystempath: ../a, LocalMspId: Org1MSP, BCCSP: {Default: SW}}\nledger: {state: {stateDatabase: CouchDB}}",
        )
        .unwrap();
        let file = NodeSettings::peer(&yaml, &Environment::new());
        assert_eq!((file.data.as_deref(), file.msp_id.as_deref()), (Some("../a"), Some("Org1MSP")));
        assert_eq!(file.state_database, StateDatabase::CouchDb { address: "127.0.0.1:5984".to_owned() });
        assert_eq!(file.bccsp, Bccsp::Software);
        let over = environment(&[
            ("CORE_PEER_FILESYSTEMPATH", "/b"),
            ("CORE_PEER_BCCSP_DEFAULT", "pkcs11"),
            ("CORE_PEER_BCCSP_PKCS11_LABEL", "ForFabric"),
            ("CORE_LEDGER_STATE_STATEDATABASE", "goleveldb"),
        ]);
        let both = NodeSettings::peer(&yaml, &over);
        assert_eq!(both.data.as_deref(), Some("/b"));
        assert!(both.bccsp.token().unwrap().contains("ForFabric"));
        assert_eq!(both.state_database, StateDatabase::LevelDb);
    }

    #[test]
    fn a_file_of_whatever_editor_is_read() {
        let text = "x: &tls\n  enabled: true\n  cert: {file: a.crt}\npeer:\n  id: 'peer0'\n  localMspId: \"Org1MSP\"\n  tls:\n    <<: *tls\n    key: {file: a.key}\n";
        for text in
            [text.to_owned(), text.replace('\n', "\r\n"), format!("\u{feff}{text}"), format!("---\n{text}...\n")]
        {
            let settings = NodeSettings::read(NodeRole::Peer, text.as_bytes(), &Environment::new());
            assert_eq!(
                (settings.id.as_deref(), settings.msp_id.as_deref()),
                (Some("peer0"), Some("Org1MSP")),
                "{text:?}"
            );
            assert_eq!(settings.tls.certificate.as_deref(), Some("a.crt"), "{text:?}");
            assert_eq!((settings.tls.enabled, settings.tls.key.as_deref()), (Some(true), Some("a.key")), "{text:?}");
        }
    }

    #[test]
    fn an_orderers_lists_are_read_in_every_form() {
        let read = |text: &str, pairs: &[(&str, &str)]| {
            NodeSettings::orderer(&serde_norway::from_str(text).unwrap(), &environment(pairs)).tls.roots
        };
        assert_eq!(read("General: {TLS: {RootCAs: [a, b]}}", &[]), ["a", "b"]);
        assert_eq!(read("General: {TLS: {RootCAs: a}}", &[]), ["a"]);
        assert_eq!(read("{}", &[("ORDERER_GENERAL_TLS_ROOTCAS", "[a,b]")]), ["a", "b"]);
        assert_eq!(read("{}", &[]), Vec::<String>::new());
    }

    #[test]
    fn the_files_of_endpoints_with_tls_are_named_and_no_others() {
        let yaml = b"General: {TLS: {Enabled: true, Certificate: ../tls/s.crt, RootCAs: [../tls/ca.crt, $X/ca2.crt]}}\nAdmin: {TLS: {Enabled: false, Certificate: no.crt}}\n";
        let yaml = parse(yaml).unwrap();
        let files: Vec<(String, String)> = tls_files(NodeRole::Orderer, &yaml, &Environment::new())
            .into_iter()
            .map(|file| (file.setting, file.path))
            .collect();
        assert_eq!(
            files,
            [
                ("General.TLS.Certificate".to_owned(), "../tls/s.crt".to_owned()),
                ("General.TLS.RootCAs".to_owned(), "../tls/ca.crt".to_owned())
            ]
        );
        assert!(has_section(&yaml, "general") && !has_section(&yaml, "FileLedger"));
        let peer = parse(b"peer: {tls: {enabled: true, rootcert: {file: tls/ca.crt}}}").unwrap();
        let root = tls_files(NodeRole::Peer, &peer, &Environment::new()).remove(0);
        assert_eq!(
            (root.setting.as_str(), root.is_root(), root.by_environment),
            ("peer.tls.rootcert.file", true, false)
        );
        let off = environment(&[("CORE_PEER_TLS_ENABLED", "false")]);
        assert_eq!(tls_files(NodeRole::Peer, &peer, &off), Vec::new());
        assert!(parse(b"peer: [").is_err());
    }

    #[test]
    fn the_files_that_only_the_environment_names_are_known() {
        let over = environment(&[
            ("ORDERER_GENERAL_TLS_ENABLED", "true"),
            ("ORDERER_GENERAL_TLS_ROOTCAS", "[/t/ca.crt, /t/more.crt]"),
            ("ORDERER_GENERAL_TLS_CLIENTROOTCAS", "/t/unread.crt"),
            ("ORDERER_GENERAL_GENESISMETHOD", "file"),
            ("ORDERER_GENERAL_GENESISFILE", "/b/genesis.block"),
            ("ORDERER_FILELEDGER_LOCATION", "/data"),
        ]);
        let over = kept(NodeRole::Orderer, &over);
        let named = named_paths(NodeRole::Orderer, &Value::Null, &over);
        let paths: Vec<&str> = named.iter().map(|named| named.path.as_str()).collect();
        assert_eq!(paths, ["/t/ca.crt", "/t/more.crt", "/data", "/b/genesis.block"]);
        assert!(named.iter().all(|named| named.by_environment && is_path(&named.variable)), "{named:?}");
        assert_eq!(named[0].variable, "ORDERER_GENERAL_TLS_ROOTCAS");
        let peer = parse(b"peer: {tls: {enabled: true, clientAuthRequired: true, clientKey: {file: k}, clientRootCAs: {files: [a, b]}}}\noperations: {tls: {enabled: true, cert: {file: o}}}").unwrap();
        let named = tls_files(NodeRole::Peer, &peer, &Environment::new());
        let paths: Vec<&str> = named.iter().map(|named| named.path.as_str()).collect();
        assert_eq!(paths, ["k", "a", "b", "o"]);
    }

    #[test]
    fn a_peers_libraries_are_named_in_every_form_and_client_files_come_in_pairs() {
        let yaml = parse(b"peer:\n  tls: {enabled: true, clientCert: {file: c.crt}}\n  handlers:\n    authFilters: [{name: A}, {name: B, library: /l/b.so}]\n    validators: {vscc: {name: V, library: v.so}, x: {name: X, library: }}\n").unwrap();
        let named = handler_libraries(NodeRole::Peer, &yaml, &Environment::new());
        let named: Vec<(&str, &str)> = named.iter().map(|one| (one.setting.as_str(), one.path.as_str())).collect();
        assert_eq!(
            named,
            [("peer.handlers.authFilters.library", "/l/b.so"), ("peer.handlers.validators.vscc.library", "v.so")]
        );
        let alone = |pairs: &[(&str, &str)]| {
            client_file_without_partner(NodeRole::Peer, &yaml, &environment(pairs)).map(|one| one.path)
        };
        assert_eq!(alone(&[]).as_deref(), Some("c.crt"));
        assert_eq!(alone(&[("CORE_PEER_TLS_CLIENTKEY_FILE", "/k")]), None);
        assert_eq!(alone(&[("CORE_PEER_TLS_ENABLED", "false")]), None);
    }
}
