//! Checks a certificate authority's database: counts its rows, and checks that it is intact and belongs to the CA. Checks that certificate
//! and key are at the places that its configuration names (C3, C5).

use std::path::{Path, PathBuf};

use fabkeep_ledger::ca_config::{self, CaConfig, DatabaseKind};
use fabkeep_ledger::ca_dump::{self, DUMP_FILE};
use fabkeep_ledger::certificate::{Certificate, MAX_PEM_BYTES};
use fabkeep_ledger::layout::Kind;
use fabkeep_network::{CaFacts, Finding, KeyFacts, NodeDirectory, OrLeaveOut, Remedy, Rule};

use super::ca_tables::Tables;
use super::databases::{CachedFacts, Notes};
use super::settings::{self, CaHome};
use super::survey::{PlannedNode, SurveyedDirectory};
use crate::located::{Located, locate, locate_all};

/// Looks into the databases of all certificate authorities of a server.
pub(super) fn check_homes(
    node: &PlannedNode,
    homes: &[CaHome],
    notes: &Notes<'_>,
    found: &dyn Fn(Finding),
) -> Option<CaFacts> {
    let mut all = homes.iter().map(|home| check_home(node, home, notes, found));
    let mut facts = all.next()?;
    let add = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a + b);
    for more in all {
        facts.database = format!("{}, {}", facts.database, more.database);
        facts.identities = add(facts.identities, more.identities);
        facts.certificates = add(facts.certificates, more.certificates);
        facts.revoked = add(facts.revoked, more.revoked);
        facts.whole = match (facts.whole, more.whole) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (whole, more) => whole.and(more),
        };
    }
    Some(facts)
}

/// Returns the database that a home's configuration names, wherever it lies.
fn check_home(node: &PlannedNode, home: &CaHome, notes: &Notes<'_>, found: &dyn Fn(Finding)) -> CaFacts {
    let mut facts =
        CaFacts { database: "none found".to_owned(), identities: None, certificates: None, revoked: None, whole: None };
    let directories: Vec<&NodeDirectory> = node.directories.iter().map(|directory| &directory.directory).collect();
    let is_there = |at: &Located| {
        let mut files = node.directories[at.0].files(false);
        files.any(|(entry, place)| entry.path == at.1 && place.kind == Kind::Sqlite)
    };
    let files = home.config.sqlite_files();
    let named = files.iter().flat_map(|file| locate_all(&directories, (home.directory, &home.at), file));
    // Where the configuration cannot be read, a database is known by its name.
    let guessed = || {
        let directory = &node.directories[home.directory];
        let mut known = directory.files(false).filter(|(_, place)| place.kind == Kind::Sqlite);
        known.next().map(|(entry, _)| (home.directory, entry.path.clone()))
    };
    let unread = home.file.is_none() && node.node.environment.is_empty();
    let at = named.into_iter().find(is_there).or_else(|| guessed().filter(|_| unread));
    let Some(at) = at else {
        absent(node, home, &mut facts, found);
        return facts;
    };
    let directory = &node.directories[at.0];
    let path = at.1.as_str();
    facts.database = format!("sqlite {path}");
    let Some(local) = directory.local(path) else {
        return notes.recall(directory, path).and_then(|known| known.ca).unwrap_or(facts);
    };
    let subject = || format!("{} {path}", node.node.id);
    match Counted::read(&local) {
        Ok(counted) => {
            facts.whole = Some(counted.whole);
            facts.identities = Some(counted.identities);
            facts.certificates = Some(counted.certificates);
            facts.revoked = Some(counted.revoked);
            if counted.whole {
                notes.take(directory, path, CachedFacts::of_authority(facts.clone()));
            }
            if counted.whole && counted.identities == 0 {
                found(Finding::warning(
                    Rule::CaDatabase,
                    subject(),
                    "it contains no identity: a server that has been started with an empty database has at least the one that it was started with",
                    "no action is needed if the identities are in an LDAP directory; otherwise restore the database from an earlier recovery point",
                ));
            }
            counted.tables.check(home, counted.certificates, &subject(), found);
            check_level(home, &counted, &subject(), found);
            check_issuer(node, home, &counted, &subject(), found);
        }
        Err(error) => {
            facts.whole = Some(false);
            found(Finding::error(
                Rule::CaDatabase,
                subject(),
                format!("sqlite cannot read it: {error}"),
                OrLeaveOut("restore the database from an earlier recovery point"),
            ));
        }
    }
    facts
}

/// The database is not in the set: at a server, or missing.
fn absent(node: &PlannedNode, home: &CaHome, facts: &mut CaFacts, found: &dyn Fn(Finding)) {
    if settings::is_dumped(node, (home.directory, &home.at)) {
        return;
    }
    if let Some(server) = node.node.served_by.first() {
        facts.database = format!("at {server}");
        return;
    }
    let config = &home.config;
    if config.database != DatabaseKind::Sqlite || (home.file.is_none() && node.node.workload.is_some()) {
        found(Finding::warning(
            Rule::CaDatabase,
            &node.node.id,
            "its home directory contains no sqlite database: the CA may use PostgreSQL or MySQL",
            "back that database up separately; the recovery point does not contain it",
        ));
        return;
    }
    let named = config.sqlite_files().into_iter().next_back().unwrap_or_default();
    facts.whole = None;
    found(Finding::error(
        Rule::CaDatabase,
        &node.node.id,
        format!("its database {named}, which its configuration names (db.datasource), is not in the set"),
        OrLeaveOut(
            "correct db.datasource, or name the directory that holds the database in the inventory (other = \"…\")",
        ),
    ));
}

/// What a database holds, in numbers.
struct Counted {
    whole: bool,
    identities: u64,
    certificates: u64,
    revoked: u64,
    /// The schema level of identities.
    level: Option<u32>,
    /// Key identifiers of those who issued its certificates, hex.
    issuers: Vec<String>,
    tables: Tables,
}

impl Counted {
    /// Looks at a copy where a server has left a journal: its next start takes that into the database, or out of it. Else in memory:
    /// opening a file may write beside it.
    fn read(local: &Path) -> Result<Counted, String> {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let copy = copied(local, scratch.path()).map_err(|error| error.to_string())?;
        Self::read_whole(copy.as_deref(), local).map_err(|error| error.to_string())
    }

    fn read_whole(copy: Option<&Path>, local: &Path) -> rusqlite::Result<Counted> {
        let database = match copy {
            Some(copy) => rusqlite::Connection::open(copy)?,
            None => {
                let uri = format!("file:{}?mode=ro&immutable=1", percent(local));
                let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
                rusqlite::Connection::open_with_flags(uri, flags)?
            }
        };
        let check: String = database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|n| n.max(0) as u64);
        // Servers before 1.1 have no levels.
        let level = database
            .query_row("SELECT CAST(value AS TEXT) FROM properties WHERE property = 'identity.level'", [], |row| {
                row.get::<_, String>(0)
            })
            .ok()
            .and_then(|level| level.parse().ok());
        let mut issuers = Vec::new();
        if let Ok(mut statement) = database
            .prepare("SELECT DISTINCT lower(CAST(authority_key_identifier AS TEXT)) FROM certificates LIMIT 100")
            && let Ok(rows) = statement.query_map([], |row| row.get::<_, Option<String>>(0))
        {
            issuers.extend(rows.filter_map(Result::ok).flatten().filter(|issuer| !issuer.is_empty()));
        }
        Ok(Counted {
            whole: check == "ok",
            identities: count("SELECT count(*) FROM users")?,
            certificates: count("SELECT count(*) FROM certificates")?,
            revoked: count("SELECT count(*) FROM certificates WHERE status = 'revoked'")?,
            level,
            issuers,
            tables: Tables::read(&database)?,
        })
    }
}

/// Copies a database with its journals, where it has any.
fn copied(local: &Path, to: &Path) -> std::io::Result<Option<PathBuf>> {
    let beside = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let has = |suffix: &&str| beside(local, suffix).metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
    let journals: Vec<&str> = ["-wal", "-journal"].into_iter().filter(has).collect();
    if journals.is_empty() {
        return Ok(None);
    }
    let copy = to.join("copy.db");
    std::fs::copy(local, &copy)?;
    for suffix in journals {
        std::fs::copy(beside(local, suffix), beside(&copy, suffix))?;
    }
    Ok(Some(copy))
}

/// C3: a server refuses a database whose schema is newer than its own.
fn check_level(home: &CaHome, counted: &Counted, subject: &str, found: &dyn Fn(Finding)) {
    let Some(level) = counted.level else { return };
    let newest = ca_config::NEWEST_IDENTITY_LEVEL;
    let known = home.config.version.as_deref().and_then(|version| Some((version, ca_config::identity_level(version)?)));
    if level > newest {
        found(Finding::warning(
            Rule::CaDatabase,
            subject,
            format!("its schema has level {level}, the newest that fabkeep knows is {newest}"),
            "restore it with the server version that wrote it or a newer one; older ones refuse it",
        ));
    } else if let Some((version, of_version)) = known.filter(|(_, of_version)| level > *of_version) {
        found(Finding::note(
            Rule::CaDatabase,
            subject,
            format!(
                "its schema has level {level}; a server of its configuration's version {version} knows {of_version} and refuses it"
            ),
            "start the CA with the server version that wrote the database, or a newer one",
        ));
    }
}

/// C5: the certificates in a database were issued by the authority whose certificate lies beside it.
fn check_issuer(node: &PlannedNode, home: &CaHome, counted: &Counted, subject: &str, found: &dyn Fn(Finding)) {
    let directories: Vec<&NodeDirectory> = node.directories.iter().map(|directory| &directory.directory).collect();
    let at = locate_all(&directories, (home.directory, &home.at), &home.config.certificate);
    let bytes = at.iter().find_map(|at| settings::read(node, at, MAX_PEM_BYTES)?.ok());
    let Some(certificate) = bytes.and_then(|bytes| Certificate::from_pem(&bytes).ok()) else { return };
    let Some(own) = certificate.key_identifier().map(hex::encode) else { return };
    // Servers write the identifier as a number: without the zeros that it begins with.
    let number = |identifier: &str| identifier.trim_start_matches('0').to_owned();
    let is_own = |issuer: &String| number(issuer) == number(&own);
    if !counted.issuers.is_empty() && !counted.issuers.iter().any(is_own) {
        found(Finding::error(
            Rule::CaKey,
            subject,
            format!(
                "none of its certificates was issued by {} (key identifier {own}): the CA's certificate and its database belong to two different authorities",
                certificate.summary().common_name
            ),
            OrLeaveOut("put the CA's own certificate and key beside its database"),
        ));
    }
}

/// C5: the certificate and key that each authority's configuration names are in the set, wherever they lie.
pub(super) fn check_keys(node: &PlannedNode, homes: &[CaHome], keys: &[KeyFacts], found: &dyn Fn(Finding)) {
    let directories: Vec<&NodeDirectory> = node.directories.iter().map(|directory| &directory.directory).collect();
    // On a cluster its Secrets are in the set whether they are seen as its directories or not.
    let tell = |what: String, remedy: &str| {
        let remedy = Remedy::from(remedy).or(Remedy::ExcludeNode);
        found(match &node.node.workload {
            None => Finding::error(Rule::CaKey, &node.node.id, what, remedy),
            Some(_) => Finding::warning(Rule::CaKey, &node.node.id, what, remedy),
        });
    };
    let exists = |at: &Located| {
        let mut files = node.directories[at.0].files(false);
        files.any(|(entry, _)| entry.path == at.1)
    };
    let label = |at: &Located| format!("{}/{}", directories[at.0].role, at.1);
    let name_it = "name the directory that holds it in the inventory (other = \"…\")";
    for home in homes {
        let config = &home.config;
        let at =
            |named: &str| locate_all(&directories, (home.directory, &home.at), named).into_iter().find(|at| exists(at));
        let Some(certificate) = at(&config.certificate) else {
            tell(
                format!(
                    "its certificate {} (ca.certfile) is not in the set: without it the server creates a new root when it starts",
                    config.certificate
                ),
                name_it,
            );
            continue;
        };
        let certificate = label(&certificate);
        let read = keys.iter().find(|facts| facts.path == certificate && facts.certificate.is_some());
        let Some(facts) = read else {
            tell(format!("its certificate {certificate} (ca.certfile) cannot be read"), "restore the CA's certificate");
            continue;
        };
        if facts.certificate.as_ref().is_some_and(|certificate| !certificate.is_ca) {
            tell(
                format!("{certificate} (ca.certfile) is not a CA certificate: the server does not start with it"),
                "put the CA's own certificate there",
            );
        }
        // The folder that the configuration names, else the home's own.
        let named_store = config.key_store.as_deref().and_then(|store| {
            let inside = locate(&directories, (home.directory, &home.at), &format!("{store}/key"))?;
            label(&inside).strip_suffix("key").map(str::to_owned)
        });
        let usual_store = || format!("{}/{}", directories[home.directory].role, home.inside("msp/keystore/"));
        let store = named_store.unwrap_or_else(usual_store);
        let named = config.key.as_deref();
        let named_at = named.and_then(at);
        if let (Some(named), None, None) = (named, &named_at, &facts.key) {
            // The rule for keys says that it is missing; this says where it was looked for.
            tell(
                format!(
                    "its key {named} (ca.keyfile) is not in the set, and no key in {store} matches the certificate"
                ),
                name_it,
            );
        }
        // A server looks at ca.keyfile, then in its key store; old ones call the file ca-key.pem.
        let looked_at = |key: &str| {
            let usual = format!("{}/{}", directories[home.directory].role, home.inside("ca-key.pem"));
            named_at.is_some() || key.starts_with(&store) || key == usual
        };
        let in_file = config.bccsp.token().is_none() && node.node.workload.is_none();
        if let Some(key) = facts.key.as_ref().filter(|key| in_file && !looked_at(key)) {
            tell(
                format!(
                    "its key is at {key}, but its configuration names another place: without it the server creates a new root when it starts"
                ),
                "set ca.keyfile to it, or move it to msp/keystore",
            );
        }
        if config.intermediate && at(&config.chain).is_none() {
            tell(
                format!(
                    "it is an intermediate CA and its certificate chain {} (ca.chainfile) is not in the set",
                    config.chain
                ),
                name_it,
            );
        }
    }
}

/// C5: the further authorities that a server's configuration names are in the set.
pub(super) fn check_further(node: &PlannedNode, homes: &[CaHome], found: &dyn Fn(Finding)) {
    let Some(first) = homes.first() else { return };
    let directories: Vec<&NodeDirectory> = node.directories.iter().map(|directory| &directory.directory).collect();
    let remedy = OrLeaveOut(
        "restore that CA's directory, or name it in the inventory (ca-home = [\"…\", \"…\"]), or correct the server's configuration",
    );
    let tell = |what: String| {
        found(match &node.node.workload {
            None => Finding::error(Rule::CaKey, &node.node.id, what, remedy),
            Some(_) => Finding::warning(Rule::CaKey, &node.node.id, what, remedy),
        });
    };
    for named in &first.config.further {
        let places = locate_all(&directories, (first.directory, &first.at), named);
        let bytes = places.iter().find_map(|at| settings::read(node, at, ca_config::MAX_CONFIG_BYTES)?.ok());
        let whose =
            format!("the configuration {named} of a further CA, which its own configuration names (cafiles, cacount),");
        match bytes {
            Some(bytes) if bytes.trim_ascii().is_empty() => tell(format!("{whose} is empty")),
            Some(bytes) => {
                if let Err(problem) = CaConfig::parse(&bytes) {
                    tell(format!("{whose} cannot be read ({problem})"));
                }
            }
            // On a cluster it may be mounted where no directory is.
            None if places.is_empty() && node.node.workload.is_some() => {}
            // A path of a container: a home that ends as it does is the one.
            None if named.starts_with('/')
                && places.is_empty()
                && homes.iter().any(|home| ends_alike(node, home, named)) => {}
            None => tell(format!(
                "{whose} is not in the set: when the server starts, it does not serve that CA, or creates it anew with another key"
            )),
        }
    }
}

/// Whether a home's configuration file lies in a folder of the same name and is called the same.
fn ends_alike(node: &PlannedNode, home: &CaHome, named: &str) -> bool {
    let own = home.file.as_ref().map(|file| Path::new(&node.directories[home.directory].directory.path).join(file));
    let end = |path: &Path| {
        let parts: Vec<_> = path.components().rev().take(2).map(|part| part.as_os_str().to_owned()).collect();
        parts
    };
    own.is_some_and(|own| end(&own) == end(Path::new(named)))
}

/// Returns a path in an sqlite URI.
fn percent(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

/// Looks into a dump: a dump that was cut is none.
pub(super) fn check_dump(node: &PlannedNode, directory: &SurveyedDirectory, found: &dyn Fn(Finding)) -> CaFacts {
    let mut facts = CaFacts {
        database: "dump".to_owned(),
        identities: None,
        certificates: None,
        revoked: None,
        whole: Some(false),
    };
    let refuse = |what: String| {
        found(Finding::error(
            Rule::CaDatabase,
            format!("{} {}", node.node.id, directory.directory.path),
            what,
            OrLeaveOut("run the backup again; if it fails again, dump the database by hand to see why"),
        ));
    };
    let Some(path) = directory.local(DUMP_FILE) else {
        refuse("the dump is missing".to_owned());
        return facts;
    };
    let (mut identities, mut certificates, mut revoked) = (0, 0, 0);
    let read = std::fs::File::open(&path).and_then(|file| {
        ca_dump::read(file, &mut |table, row| match table {
            "users" => identities += 1,
            "certificates" => {
                certificates += 1;
                revoked += u64::from(row.get("status").and_then(Option::as_deref) == Some("revoked"));
            }
            _ => {}
        })
    });
    match read {
        Ok(dump) if !dump.complete => refuse("the dump is incomplete".to_owned()),
        Ok(dump) => {
            if let Some(table) = dump.lacks() {
                refuse(format!(
                    "the database has no table {table:?}: it is not the one that the authority uses, or it has lost it"
                ));
                return facts;
            }
            let rows = dump.tables.values().sum::<u64>();
            if let Some(others) = dump.others {
                found(Finding::note(
                    Rule::CaDatabase,
                    format!("{} {}", node.node.id, directory.directory.path),
                    format!(
                        "its database also has tables that are not a certificate authority's, and are not captured: {others}"
                    ),
                    "no action is needed if nobody misses them; if somebody does, back them up by the database's own means",
                ));
            }
            facts.database = format!("dump of {} tables, {rows} rows", dump.tables.len());
            facts.whole = Some(true);
            (facts.identities, facts.certificates, facts.revoked) =
                (Some(identities), Some(certificates), Some(revoked));
        }
        Err(error) => refuse(format!("the dump cannot be read: {error}")),
    }
    facts
}
