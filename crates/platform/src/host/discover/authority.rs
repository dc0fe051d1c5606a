//! Certificate authorities: their homes, and what their configurations name outside of them.

use std::path::Path;

use fabkeep_ledger::ca_config::{CA_CONFIG_FILE, CONFIG_VARIABLE, CaConfig, DataSource, DatabaseKind};
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_ledger::node_settings::Environment;

use super::node::{KEY_STORE, Node};
use super::started::{ResolvedPath, Started};

/// A certificate authority as what starts it and its configuration file say.
pub(super) fn of_started(started: &Started, root: &Path) -> Node {
    let named = started.home_named();
    let home = started.find(&named, &started.folder, root);
    let path = home.clone().path();
    let mut node =
        Node { name: started.name.clone(), ..Node::new(NodeRole::CertificateAuthority, path.clone(), &path) };
    node.origin = started.origin.clone();
    node.commands = started.commands.clone();
    node.hosts.clone_from(&started.hosts);
    if let ResolvedPath::Missing(path) = &home {
        node.missing(Some(DirectoryRole::CaHome), "home directory", path);
    }
    node.add(DirectoryRole::CaHome, path.clone());
    let usual = path.join(CA_CONFIG_FILE);
    // A server looks at its command line only.
    let of_environment = || started.get(CONFIG_VARIABLE).filter(|_| !usual.is_file());
    let config = match started.config_flag.as_deref().or_else(of_environment) {
        Some(named) => started.find(named, &path, root),
        None => ResolvedPath::Here(usual.clone()),
    };
    if let ResolvedPath::Missing(file) = &config {
        node.missing(None, "configuration file", file);
    }
    let config = config.here().unwrap_or(usual);
    node.config = Some(config.clone()).filter(|path| path.is_file());
    node.keep_environment(started, &path, root);
    // Its own file is looked for under the name that it has.
    node.environment.remove(CONFIG_VARIABLE);
    if !config.ends_with(CA_CONFIG_FILE) {
        node.environment.insert(CONFIG_VARIABLE.to_owned(), config.display().to_string());
    }
    let settings = settings_of(&config, &started.environment, &mut node);
    follow(started, &settings, &path, root, true, &mut node);
    let mut further = Vec::new();
    for named in &settings.further {
        let place = started.find(named, &path, root);
        further.push(place.clone().path());
        match place {
            ResolvedPath::Here(file) => add_further(started, &file, root, &mut node),
            ResolvedPath::Missing(file) => node.missing(None, "further CA's configuration", &file),
        }
    }
    let moved = settings.further.iter().zip(&further).any(|(named, here)| super::normal(&path.join(named)) != *here);
    if moved {
        let further: Vec<String> = further.iter().map(|file| file.display().to_string()).collect();
        node.environment.insert("FABRIC_CA_SERVER_CAFILES".to_owned(), further.join(","));
    }
    if started.get("FABRIC_CA_SERVER_DB_DATASOURCE").is_some()
        && let Some(text) = dump_wanted(&settings, started.mounts.is_some(), &node.origin)
    {
        node.remark(None, text);
    }
    node
}

/// Adds a further CA of a server by its configuration file.
pub(super) fn add_further(started: &Started, file: &Path, root: &Path, node: &mut Node) {
    let folder = file.parent().unwrap_or(file).to_path_buf();
    node.add(DirectoryRole::CaHome, folder.clone());
    let further = settings_of(file, &Environment::new(), node);
    follow(started, &further, &folder, root, false, node);
}

/// What to do about a database server whose password stands in the environment of the CA's server: it is not kept.
fn dump_wanted(settings: &CaConfig, in_container: bool, origin: &str) -> Option<String> {
    let (tool, password, commands) = match settings.database {
        DatabaseKind::Postgres => (
            "pg_dump",
            "PGPASSWORD",
            ["pg_dump -U USER --clean --if-exists DB", "psql -U USER -q -1 -v ON_ERROR_STOP=1 DB"],
        ),
        DatabaseKind::MySql => (
            "mysqldump",
            "MYSQL_PWD",
            ["mysqldump -u USER --skip-extended-insert --complete-insert --hex-blob DB", "mysql -u USER DB"],
        ),
        _ => return None,
    };
    let source = DataSource::parse(&settings.database, &settings.data_source).ok()?;
    let of_container = |options: &str, command: &str| {
        let command = command.replace("USER", &source.user).replace("DB", &source.database);
        format!("docker exec {options}{} {command}", source.host)
    };
    let commands = match in_container {
        true => format!(
            "; if it cannot be reached from here, add to the CA's commands in the inventory dump = \"{}\" and load = \"{}\"",
            of_container("", commands[0]),
            of_container("-i ", commands[1])
        ),
        false => String::new(),
    };
    Some(format!(
        "{origin}: its database {} {source} is dumped by {tool}, and its password is not kept: give fabkeep {password} in its environment{commands}",
        settings.database
    ))
}

fn settings_of(file: &Path, environment: &Environment, node: &mut Node) -> CaConfig {
    let bytes = std::fs::read(file).unwrap_or_else(|_| b"{}".to_vec());
    CaConfig::read(&bytes, environment).unwrap_or_else(|error| {
        node.remark(None, format!("{}: {error}", file.display()));
        CaConfig::usual()
    })
}

/// Follows what a CA's configuration names outside of its home. What container paths mean here is written into the node's environment.
fn follow(started: &Started, settings: &CaConfig, home: &Path, root: &Path, main: bool, node: &mut Node) {
    let sqlite = settings.sqlite_files();
    let source = sqlite.iter().find(|named| started.find(named, home, root).here().is_some()).or(sqlite.first());
    let files = [
        ("CA_CERTFILE", DirectoryRole::Other, Some(&settings.certificate), "certificate"),
        ("CA_KEYFILE", DirectoryRole::Other, settings.key.as_ref(), "key"),
        ("CA_CHAINFILE", DirectoryRole::Other, Some(&settings.chain), "certificate chain"),
        ("TLS_CERTFILE", DirectoryRole::Tls, Some(&settings.tls_certificate), "TLS certificate"),
        ("TLS_KEYFILE", DirectoryRole::Tls, settings.tls_key.as_ref(), "TLS key"),
        ("DB_DATASOURCE", DirectoryRole::Other, source, "database"),
    ];
    for (name, role, named, what) in files {
        let Some(named) = named else { continue };
        // Relative paths begin at the home, whatever the server's working directory is.
        let absolute = named.starts_with(['/', super::script::WORKING_FOLDER]);
        let place = if absolute { started.find(named, home, root) } else { beside(home, named) };
        match place {
            ResolvedPath::Here(file) => {
                let moved = absolute && file != super::normal(Path::new(named));
                if moved && main {
                    node.environment.insert(format!("FABRIC_CA_SERVER_{name}"), file.display().to_string());
                }
                if !file.starts_with(home) {
                    node.add_folder_of(role, &file, root);
                }
            }
            ResolvedPath::Missing(file) if absolute => node.missing(None, what, &file),
            ResolvedPath::Missing(_) => {}
        }
    }
    follow_key_store(started, settings, home, root, main, node);
}

/// Follows the folder of a CA's keys where it is not in its home.
fn follow_key_store(started: &Started, settings: &CaConfig, home: &Path, root: &Path, main: bool, node: &mut Node) {
    let Some(named) = settings.key_store.as_deref().filter(|_| settings.bccsp.token().is_none()) else { return };
    let absolute = named.starts_with(['/', super::script::WORKING_FOLDER]);
    match if absolute { started.find(named, home, root) } else { beside(home, named) } {
        ResolvedPath::Here(folder) => {
            if absolute && main && folder != super::normal(Path::new(named)) {
                node.environment.insert(format!("FABRIC_CA_SERVER_{KEY_STORE}"), folder.display().to_string());
            }
            if !node.directories.iter().any(|(_, known)| folder.starts_with(known)) {
                node.add(DirectoryRole::Other, folder);
            }
        }
        ResolvedPath::Missing(folder) if absolute => node.missing(None, "key store", &folder),
        ResolvedPath::Missing(_) => {}
    }
}

fn beside(home: &Path, named: &str) -> ResolvedPath {
    let path = super::normal(&home.join(named));
    if path.exists() { ResolvedPath::Here(path) } else { ResolvedPath::Missing(path) }
}
