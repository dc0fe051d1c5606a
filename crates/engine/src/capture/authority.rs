//! What a certificate authority's database holds: counted, and whether it is whole.

use std::path::Path;

use fabkeep_ledger::ca_dump::{self, DUMP_FILE};
use fabkeep_ledger::layout::{DirectoryRole, Kind};
use fabkeep_network::{CaFacts, Finding, Rule};

use super::databases::{Known, Notes};
use super::survey::{PlannedNode, SurveyedDirectory};

/// Looks into a home directory.
pub(super) fn check_home(
    node: &PlannedNode,
    directory: &SurveyedDirectory,
    notes: &Notes<'_>,
    found: &dyn Fn(Finding),
) -> CaFacts {
    let mut facts =
        CaFacts { database: "none found".to_owned(), identities: None, certificates: None, revoked: None, whole: None };
    let database = directory.files(false).find(|(_, place)| place.kind == Kind::Sqlite);
    let Some((entry, _)) = database else {
        if node.directories.iter().any(|known| known.directory.role == DirectoryRole::DatabaseDump) {
            return facts;
        }
        if let Some(server) = node.node.served_by.first() {
            facts.database = format!("at {server}");
            return facts;
        }
        found(Finding::warning(
            Rule::CaDatabase,
            &node.node.id,
            "no sqlite database is in its home: the CA may use PostgreSQL or MySQL",
            "back that database up beside this recovery point; its dump is not part of it",
        ));
        return facts;
    };
    facts.database = format!("sqlite {}", entry.path);
    let Some(local) = directory.local(&entry.path) else {
        return notes.recall(directory, &entry.path).and_then(|known| known.ca).unwrap_or(facts);
    };
    // Looked at in memory: opening a file may write beside it.
    let count = || -> rusqlite::Result<(bool, [u64; 3])> {
        let uri = format!("file:{}?mode=ro&immutable=1", percent(&local));
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
        let database = rusqlite::Connection::open_with_flags(uri, flags)?;
        let check: String = database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|n| n.max(0) as u64);
        Ok((
            check == "ok",
            [
                count("SELECT count(*) FROM users")?,
                count("SELECT count(*) FROM certificates")?,
                count("SELECT count(*) FROM certificates WHERE status = 'revoked'")?,
            ],
        ))
    };
    match count() {
        Ok((whole, [identities, certificates, revoked])) => {
            facts.whole = Some(whole);
            facts.identities = Some(identities);
            facts.certificates = Some(certificates);
            facts.revoked = Some(revoked);
            if whole {
                notes.take(directory, &entry.path, Known::of_authority(facts.clone()));
            }
        }
        Err(error) => {
            facts.whole = Some(false);
            found(Finding::error(
                Rule::CaDatabase,
                format!("{} {}", node.node.id, entry.path),
                format!("sqlite cannot read it: {error}"),
                "restore the database from an earlier recovery point, or leave the CA out (--exclude)",
            ));
        }
    }
    facts
}

/// A path in an sqlite URI.
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
            "run the backup again; if it fails again, dump the database by hand to see why, or leave the node out (--exclude)",
        ));
    };
    let Some(path) = directory.local(DUMP_FILE) else {
        refuse("there is no dump".to_owned());
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
        Ok(dump) if !dump.complete => refuse("the dump does not come to its end".to_owned()),
        Ok(dump) => {
            let rows = dump.tables.values().sum::<u64>();
            facts.database = format!("dump of {} tables, {rows} rows", dump.tables.len());
            facts.whole = Some(true);
            (facts.identities, facts.certificates, facts.revoked) =
                (Some(identities), Some(certificates), Some(revoked));
        }
        Err(error) => refuse(format!("the dump cannot be read: {error}")),
    }
    facts
}
