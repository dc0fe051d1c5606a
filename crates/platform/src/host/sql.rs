//! Dumps of certificate authorities' databases, made and loaded from this machine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fabkeep_ledger::ca_config::{CA_CONFIG_FILE, CaConfig, FURTHER_CA_CONFIG_FILE, MAX_CONFIG_BYTES, config_file_name};
use fabkeep_ledger::ca_dump::DUMP_FILE;
use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_ledger::node_settings::Environment;
use fabkeep_network::{Node, NodeDirectory, NodeId};

use super::inventory::normal;
use super::{Host, MAX_SHOWN};
use crate::PlatformError;
use crate::sql::{Dumped, SqlDatabase, create_private, settle};
use crate::volume::Volume;

/// What the directory of an authority's dump is called: its home's name with this behind it.
const DUMP_SUFFIX: &str = ".database";

/// The directory that stands for the dump of the database of a certificate authority, whose home is this directory or lies inside it.
pub fn dump_directory(directory: &str, inside: &str) -> String {
    let inside = if inside.is_empty() { String::new() } else { format!(".{}", inside.replace('/', ".")) };
    format!("{}{inside}{DUMP_SUFFIX}", directory.trim_end_matches('/'))
}

/// A certificate authority of a server, with its home on this machine.
struct Authority {
    home: PathBuf,
    /// The directory that stands for its database's dump.
    dump: String,
    config: CaConfig,
}

/// A database, and how this machine reaches it.
#[derive(Debug, Clone)]
pub struct SqlAccess {
    node: NodeId,
    /// Reached by the tools of this machine.
    database: SqlDatabase,
    /// What paths in the configuration are relative to.
    home: PathBuf,
    dump: Option<String>,
    load: Option<String>,
}

impl Host {
    /// Returns the database server of a certificate authority, as a configuration says; `None` when it keeps a file.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] when the configuration names none that can be understood.
    pub fn sql(&self, node: &NodeId, config: &CaConfig, home: &Path) -> Result<Option<SqlAccess>, PlatformError> {
        let database = SqlDatabase::of(config).map_err(|problem| PlatformError::NotHere {
            problem: format!("{node}: {problem}"),
            next: "correct the db section of its configuration".into(),
        })?;
        let commands = self.commands(node);
        Ok(database.map(|database| SqlAccess {
            node: node.clone(),
            database,
            home: home.to_path_buf(),
            dump: commands.and_then(|commands| commands.dump.clone()),
            load: commands.and_then(|commands| commands.load.clone()),
        }))
    }

    /// Gives certificate authorities with a database server a directory for its dump.
    pub(super) fn add_dumps(node: &mut Node) {
        let served = authorities(node).into_iter().filter(|known| !matches!(SqlDatabase::of(&known.config), Ok(None)));
        let more: Vec<NodeDirectory> =
            served.map(|known| NodeDirectory::new(DirectoryRole::DatabaseDump, known.dump)).collect();
        node.directories.extend(more);
    }

    /// Dumps the database that a dump directory represents.
    pub(super) fn dumped(
        &self,
        node: &NodeId,
        directory: &NodeDirectory,
    ) -> Result<Option<Box<dyn Volume>>, PlatformError> {
        let all = self.network.node(node).map(authorities).unwrap_or_default();
        let Some(Authority { home, config, .. }) = all.into_iter().find(|known| known.dump == directory.path) else {
            return Ok(None);
        };
        let Some(access) = self.sql(node, &config, &home)? else { return Ok(None) };
        let folder = tempfile::Builder::new()
            .prefix("fabkeep-dump-")
            .tempdir()
            .map_err(|source| PlatformError::Io { path: std::env::temp_dir().display().to_string(), source })?;
        let path = folder.path().join(DUMP_FILE);
        access.dump(&path)?;
        // A dump that could not be loaded is not a backup: found now, not when it is needed.
        access.check(&path)?;
        Ok(Some(Box::new(Dumped::new(folder))))
    }
}

/// The certificate authorities of a server, the server's own first: what its environment says is said of that one only. One whose
/// configuration cannot be read has its finding when it is captured.
fn authorities(node: &Node) -> Vec<Authority> {
    let homes = node.directories.iter().flat_map(|directory| {
        let own = (directory.role == DirectoryRole::CaHome).then_some("");
        let nested = directory.nested.iter().filter(|(_, role)| *role == DirectoryRole::CaHome);
        own.into_iter().chain(nested.map(|(inside, _)| inside.as_str())).map(move |inside| (directory, inside))
    });
    let mut out: Vec<Authority> = Vec::new();
    for (directory, inside) in homes {
        let home = Path::new(&directory.path).join(inside);
        let environment = if out.is_empty() { node.environment.clone() } else { Environment::new() };
        let further = out.first().map(|first| (first.home.clone(), first.config.further.clone()));
        let further = further.iter().flat_map(|(base, named)| named.iter().map(|named| normal(&base.join(named))));
        let of_home = further.filter(|file| file.parent() == Some(&home)).collect::<Vec<_>>();
        let usual =
            [config_file_name(&environment), CA_CONFIG_FILE, FURTHER_CA_CONFIG_FILE].map(|name| home.join(name));
        let bytes = of_home.into_iter().chain(usual).find_map(|file| read(&file));
        let config = bytes.and_then(|bytes| CaConfig::read(&bytes, &environment).ok());
        let dump = dump_directory(&directory.path, inside);
        out.extend(config.map(|config| Authority { home, dump, config }));
    }
    out
}

fn read(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

impl SqlAccess {
    fn failed(&self, what: &str, problem: impl ToString) -> PlatformError {
        PlatformError::NotHere {
            problem: format!("{} of {}: {what} failed: {}", self.database, self.node, problem.to_string().trim()),
            next: "the credentials are those of the CA's configuration (a password of its environment is not kept: set PGPASSWORD or MYSQL_PWD); if the server cannot be reached from here, or the tools are not installed, give the node commands of its own in the inventory: dump (prints SQL) and load (reads SQL)".into(),
        }
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).envs(self.database.environment(Some(&self.home)));
        command
    }

    fn output(&self, what: &str, mut command: Command) -> Result<String, PlatformError> {
        let output = command.output().map_err(|error| self.failed(what, error))?;
        if !output.status.success() {
            let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(MAX_SHOWN).collect();
            return Err(self.failed(what, if said.is_empty() { output.status.to_string() } else { said }));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Dumps it into a file.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] with what the tool said.
    pub fn dump(&self, to: &Path) -> Result<(), PlatformError> {
        let wrong = |error: std::io::Error| self.failed("writing the dump", error);
        let raw = to.with_extension("raw");
        let file = create_private(&raw).map_err(wrong)?;
        let script = self.dump.clone().unwrap_or_else(|| self.database.dump_script());
        let mut command = self.command(&script);
        command.stdin(Stdio::null()).stdout(file);
        self.output("dumping", command)?;
        settle(&raw, to).map_err(wrong)
    }

    /// Loads a dump: the earlier content of its tables is removed.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] with what the tool said. PostgreSQL is then as it was before.
    pub fn load(&self, from: &Path) -> Result<(), PlatformError> {
        self.check(from)?;
        let file = File::open(from).map_err(|error| self.failed("reading the dump", error))?;
        let script = match &self.load {
            Some(own) => own.clone(),
            None => self.database.load_script().map_err(|error| self.failed("loading", error))?,
        };
        let mut command = self.command(&script);
        command.stdin(file).stdout(Stdio::null()).stderr(Stdio::piped());
        self.output("loading", command).map(|_| ())
    }

    /// Refuses a dump that would have the database's client do more than send SQL.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] with the line and why.
    pub fn check(&self, dump: &Path) -> Result<(), PlatformError> {
        let refused = self.database.refused(dump).map_err(|error| self.failed("reading the dump", error))?;
        match refused {
            None => Ok(()),
            Some(refused) => Err(PlatformError::NotHere {
                problem: format!("the dump of {} of {} is refused: {refused}; nothing of it was loaded", self.database, self.node),
                next: "check what in the database caused it (views, functions or comments of somebody else), and who can change the database".into(),
            }),
        }
    }

    /// Returns how many tables it has.
    ///
    /// # Errors
    /// [`PlatformError::NotHere`] with what the tool said.
    pub fn tables(&self) -> Result<u64, PlatformError> {
        if self.dump.is_some() {
            let scratch = tempfile::tempdir().map_err(|error| self.failed("dumping", error))?;
            let path = scratch.path().join(DUMP_FILE);
            self.dump(&path)?;
            let file = File::open(&path).map_err(|error| self.failed("dumping", error))?;
            let dump = fabkeep_ledger::ca_dump::read(file, &mut |_, _| {});
            return Ok(dump.map_err(|error| self.failed("dumping", error))?.tables.len() as u64);
        }
        let mut command = self.command(&self.database.tables_script());
        command.stdin(Stdio::null());
        let said = self.output("looking for tables", command)?;
        said.trim().parse().map_err(|_| self.failed("looking for tables", format!("it printed {:?}", said.trim())))
    }

    /// Returns what it is and where, without who is let in.
    pub fn label(&self) -> String {
        self.database.to_string()
    }
}
