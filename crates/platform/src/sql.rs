//! A certificate authority's database server, used through its own tools: `pg_dump` and `psql`, `mysqldump` and `mysql` (or those of
//! MariaDB). The caller, on this machine or in a pod, passes address and credentials in the environment: no process list shows them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use fabkeep_ledger::ca_config::{CaConfig, DataSource, DatabaseKind, DatabaseTls};
use fabkeep_ledger::ca_dump::OTHER_TABLES;
use fabkeep_ledger::dump_commands::{self, Dialect, Refused};

use crate::PlatformError;
use crate::host::HostVolume;
use crate::volume::{Fetch, Volume, VolumeEntry};

/// Where a database is, and how it is dumped and loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlDatabase {
    kind: DatabaseKind,
    source: DataSource,
    tls: DatabaseTls,
}

/// Most of a line that is looked at in one piece.
const PIECE_BYTES: u64 = 1 << 20;
/// The tables of a certificate authority, quoted: of its database only these are dumped. Servers add functions, views and extensions. A
/// comment at the end of a dump names other tables: the first line of MariaDB's dumps has to stay the first.
const TABLES: &str =
    "'affiliations', 'certificates', 'credentials', 'nonces', 'properties', 'revocation_authority_info', 'users'";
const PG_DUMP: &str = r#"ask() { psql --no-password --no-psqlrc --tuples-only --no-align --command="$1"; }
from="from information_schema.tables where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')"
own=$(ask "select table_name $from and table_name in (TABLES) order by table_name") || exit
names="left(string_agg(regexp_replace(table_name, '[^A-Za-z0-9_]', '?', 'g'), ', ' order by table_name), 500)"
others=$(ask "select $names $from and table_name not in (TABLES)") || exit
set --; for table in $own; do set -- "$@" "--table=$table"; done
dump() { pg_dump --no-password --no-owner --no-privileges --clean --if-exists --encoding=UTF8 "$@"; }
if [ -n "$own" ]; then dump "$@" || exit; else echo '-- PostgreSQL database dump complete'; fi
[ -z "$others" ] || printf '%s%s\n' 'OTHERS' "$others""#;
/// All of it, or nothing. Where `psql` can be restricted, it obeys no command of the dump's: only who knows the token could end that.
const PG_LOAD: &str = "load() { psql --no-password --no-psqlrc --quiet --single-transaction --set=ON_ERROR_STOP=1 --output=/dev/null; }\n\
    case \"$(psql --no-psqlrc --help=commands 2>/dev/null)\" in\n\
    *'\\restrict'*) { printf '\\\\restrict %s\\n' TOKEN && cat && printf '\\n\\\\unrestrict %s\\n' TOKEN; } | load ;;\n\
    *) load ;;\n\
    esac";
const PG_TABLES: &str = "exec psql --no-password --no-psqlrc --tuples-only --no-align --command=\"select count(*) from information_schema.tables where table_schema not in ('pg_catalog', 'information_schema') and table_name in (TABLES)\"";
const MY_TOOL: &str = "tool() { for t in \"$@\"; do command -v \"$t\" 2>/dev/null && return; done; echo \"$2\"; }\n\
    where=\"--host=$FABKEEP_DB_HOST --port=$FABKEEP_DB_PORT --protocol=tcp\"; case $FABKEEP_DB_HOST in /*) where=\"--socket=$FABKEEP_DB_HOST\" ;; esac\n\
    set -- $where \"--user=$FABKEEP_DB_USER\" --default-character-set=utf8mb4\n\
    [ -z \"$FABKEEP_DB_CA\" ] || set -- \"$@\" \"--ssl-ca=$FABKEEP_DB_CA\"\n\
    [ -z \"$FABKEEP_DB_CERT\" ] || set -- \"$@\" \"--ssl-cert=$FABKEEP_DB_CERT\" \"--ssl-key=$FABKEEP_DB_KEY\"\n";
const MY_DUMP: &str = r#"client=$(tool mariadb mysql)
ask() { "$client" "$@" --batch --skip-column-names "$FABKEEP_DB_NAME"; }
from="from information_schema.tables where table_type = 'BASE TABLE' and table_schema = database()"
own=$(ask "$@" --execute="select table_name $from and table_name in (TABLES) order by table_name") || exit
names="left(group_concat(table_name order by table_name separator ', '), 500)"
others=$(ask "$@" --execute="select $names $from and table_name not in (TABLES)") || exit
dump() { "$(tool mariadb-dump mysqldump)" "$@" --single-transaction --skip-dump-date --skip-extended-insert --complete-insert --hex-blob --no-tablespaces "$FABKEEP_DB_NAME" $own; }
if [ -n "$own" ]; then dump "$@" || exit; else echo '-- Dump completed'; fi
case $others in NULL | '') ;; *) printf '%s%s\n' 'OTHERS' "$(printf %s "$others" | tr -c 'A-Za-z0-9_, ' '?')" ;; esac"#;
/// In binary mode the client obeys no command of the dump's but `delimiter`; no server gets a file of this machine.
const MY_LOAD: &str = "exec \"$(tool mariadb mysql)\" \"$@\" --batch --binary-mode --skip-named-commands --local-infile=0 \"$FABKEEP_DB_NAME\"";
const MY_TABLES: &str = "exec \"$(tool mariadb mysql)\" \"$@\" --batch --skip-column-names --execute=\"select count(*) from information_schema.tables where table_schema = database() and table_name in (TABLES)\" \"$FABKEEP_DB_NAME\"";

impl SqlDatabase {
    /// Returns the database that a certificate authority's configuration names; `None` when it is a file.
    ///
    /// # Errors
    /// What is wrong with the configuration; never its text.
    pub fn of(config: &CaConfig) -> Result<Option<SqlDatabase>, String> {
        match &config.database {
            DatabaseKind::Sqlite => Ok(None),
            kind => {
                let source = DataSource::parse(kind, &config.data_source)
                    .map_err(|problem| format!("its data source ({kind}) cannot be read: {problem}"))?;
                Ok(Some(SqlDatabase { kind: kind.clone(), source, tls: config.database_tls.clone() }))
            }
        }
    }

    /// Returns the same as the server's own pod reaches it: files for TLS are the authority's and not there.
    pub(crate) fn seen_from_its_pod(&self) -> SqlDatabase {
        let source = DataSource { host: "127.0.0.1".to_owned(), ssl_mode: None, ..self.source.clone() };
        SqlDatabase { source, kind: self.kind.clone(), tls: DatabaseTls::default() }
    }

    /// Returns where it is: for the tools' environment. `home`: what paths in the configuration are relative to.
    pub(crate) fn environment(&self, home: Option<&Path>) -> Vec<(&'static str, String)> {
        let file = |path: &Option<String>| {
            let path = path.as_deref().unwrap_or_default();
            let inside = home.filter(|_| !path.is_empty() && !path.starts_with('/'));
            inside.map_or(path.to_owned(), |home| home.join(path).display().to_string())
        };
        let (roots, certificate, key) = (file(&self.tls.roots), file(&self.tls.certificate), file(&self.tls.key));
        let source = &self.source;
        let (host, port, user) = (source.host.clone(), source.port.to_string(), source.user.clone());
        let mut out = match self.kind {
            DatabaseKind::Postgres => vec![
                ("PGHOST", host),
                ("PGPORT", port),
                ("PGUSER", user),
                ("PGPASSWORD", source.password.clone()),
                ("PGDATABASE", source.database.clone()),
                ("PGSSLMODE", source.ssl_mode.clone().unwrap_or_default()),
                ("PGSSLROOTCERT", roots),
                ("PGSSLCERT", certificate),
                ("PGSSLKEY", key),
                ("PGCONNECT_TIMEOUT", "15".to_owned()),
            ],
            _ => vec![
                ("FABKEEP_DB_HOST", host),
                ("FABKEEP_DB_PORT", port),
                ("FABKEEP_DB_USER", user),
                ("MYSQL_PWD", source.password.clone()),
                ("FABKEEP_DB_NAME", source.database.clone()),
                ("FABKEEP_DB_CA", roots),
                ("FABKEEP_DB_CERT", certificate),
                ("FABKEEP_DB_KEY", key),
            ],
        };
        // libpq takes an empty one for a value.
        out.retain(|(name, value)| !value.is_empty() || name.starts_with("FABKEEP"));
        out
    }

    fn script(&self, postgres: &str, mysql: &str) -> String {
        match self.kind {
            DatabaseKind::Postgres => postgres.to_owned(),
            _ => format!("{MY_TOOL}{mysql}"),
        }
    }

    /// Prints a dump.
    pub(crate) fn dump_script(&self) -> String {
        self.script(PG_DUMP, MY_DUMP).replace("TABLES", TABLES).replace("OTHERS", OTHER_TABLES)
    }

    /// Loads a dump that it reads. The dump is to be looked at first: [`Self::refused`].
    pub(crate) fn load_script(&self) -> io::Result<String> {
        let mut token = [0; 16];
        aws_lc_rs::rand::fill(&mut token).map_err(|_| io::Error::other("no random bytes"))?;
        Ok(self.script(PG_LOAD, MY_LOAD).replace("TOKEN", &hex::encode(token)))
    }

    /// Returns what of a dump would have the client do more than send SQL.
    pub(crate) fn refused(&self, dump: &Path) -> io::Result<Option<Refused>> {
        dump_commands::refused(File::open(dump)?, self.dialect())
    }

    fn dialect(&self) -> Dialect {
        match self.kind {
            DatabaseKind::Postgres => Dialect::Postgres,
            _ => Dialect::MySql,
        }
    }

    /// Fails when a dump is refused.
    pub(crate) fn check(&self, dump: &Path) -> io::Result<()> {
        match self.refused(dump)? {
            None => Ok(()),
            Some(refused) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the dump is refused: {refused}"))),
        }
    }

    /// Prints how many tables of a certificate authority there are.
    pub(crate) fn tables_script(&self) -> String {
        self.script(PG_TABLES, MY_TABLES).replace("TABLES", TABLES)
    }
}

impl std::fmt::Display for SqlDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.source)
    }
}

/// Returns a new file that nobody else can read.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Moves a dump without what is different each time: the token that newer `pg_dump`s restrict `psql` by, which older ones do not know. A dump
/// of one content is one file then, and costs nothing the second time. Only the lines with that token go: others are not the tool's.
pub(crate) fn settle(from: &Path, to: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(from)?);
    let mut writer = BufWriter::new(create_private(to)?);
    let (mut line, mut begins, mut in_rows) = (Vec::new(), true, false);
    let mut token: Option<Vec<u8>> = None;
    loop {
        line.clear();
        // A long row is read in pieces.
        if (&mut reader).take(PIECE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if begins && !in_rows && line.starts_with(b"COPY ") && line.ends_with(b" FROM stdin;\n") {
            in_rows = true;
        } else if begins && line == b"\\.\n" {
            in_rows = false;
        }
        let plain = begins && !in_rows;
        let restricts = match (line.strip_prefix(b"\\restrict "), line.strip_prefix(b"\\unrestrict ")) {
            (Some(named), _) if plain && token.is_none() => {
                token = Some(named.to_vec());
                true
            }
            (_, Some(named)) => plain && token.as_deref() == Some(named),
            _ => false,
        };
        if !restricts {
            writer.write_all(&line)?;
        }
        begins = line.ends_with(b"\n");
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::remove_file(from)
}

/// A dump as a directory; it is removed when it is no longer read.
pub(crate) struct Dumped {
    inner: HostVolume,
    _folder: tempfile::TempDir,
}

impl Dumped {
    /// Returns a folder for one.
    pub fn folder() -> Result<tempfile::TempDir, PlatformError> {
        tempfile::Builder::new()
            .prefix("fabkeep-dump-")
            .tempdir()
            .map_err(|source| PlatformError::Io { path: std::env::temp_dir().display().to_string(), source })
    }

    /// Returns what was dumped into a folder.
    pub fn new(folder: tempfile::TempDir) -> Self {
        Dumped { inner: HostVolume::new(folder.path().to_path_buf()), _folder: folder }
    }
}

impl Volume for Dumped {
    fn list(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError> {
        self.inner.list(path)
    }

    fn open(&self, path: &str, range: std::ops::Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        self.inner.open(path, range)
    }

    fn data_ranges(&self, path: &str, len: u64) -> io::Result<Vec<std::ops::Range<u64>>> {
        self.inner.data_ranges(path, len)
    }

    fn local(&self, path: &str) -> Option<PathBuf> {
        self.inner.local(path)
    }

    fn fetch(&self, files: &[Fetch]) -> io::Result<Vec<bool>> {
        self.inner.fetch(files)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_each_time_goes_and_rows_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (raw, to) = (folder.path().join("raw"), folder.path().join("sql"));
        let rows = "COPY public.t (a) FROM stdin;\n\\restrict in a row\n\\.\n";
        let planted = "\\unrestrict guessed\n\\restrict other\n";
        std::fs::write(&raw, format!("--\n\\restrict abc\n{rows}{planted}\\unrestrict abc\n-- end")).unwrap();
        settle(&raw, &to).unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), format!("--\n{rows}{planted}-- end"));
    }

    #[test]
    fn nothing_secret_stands_in_a_command() {
        let config =
            CaConfig::parse(b"db: {type: mysql, datasource: 'root:secret@tcp(db:3306)/ca', tls: {certfiles: [r.pem]}}")
                .unwrap();
        let database = SqlDatabase::of(&config).unwrap().unwrap();
        for script in [
            database.dump_script(),
            database.load_script().unwrap(),
            database.tables_script(),
            format!("{database} {database:?}"),
        ] {
            assert!(!script.contains("secret"), "{script}");
        }
        let environment = database.environment(Some(Path::new("/home")));
        assert!(environment.contains(&("MYSQL_PWD", "secret".to_owned())));
        assert!(environment.contains(&("FABKEEP_DB_CA", "/home/r.pem".to_owned())));
        assert_eq!(database.to_string(), "MySQL db:3306/ca");
    }
}
