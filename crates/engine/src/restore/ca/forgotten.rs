//! What a certificate authority loses when an older database replaces its database: identities and certificates that it does not know any
//! more (C1), revocations and removals that are undone (C2). Compares the existing database with the captured one: sqlite files, or dumps
//! of a server's database.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fabkeep_ledger::ca_dump;
use fabkeep_ledger::layout::Kind;
use fabkeep_network::{Finding, NodeId, Rule};
use fabkeep_platform::Fetch;
use fabkeep_store::PointReader;
use rusqlite::{Connection, OpenFlags};

use crate::EngineError;
use crate::content::{Contents, check_parts};
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, RecoveryPoint};
use crate::restore::existing::Existing;

/// Names reported one by one; of more only how many there are.
const MAX_REPORTED: usize = 20;
/// Largest database that is compared.
const MAX_DATABASE_BYTES: u64 = 1 << 30;
/// What a database server has open beside an sqlite file.
const BESIDE: [&str; 2] = ["-wal", "-journal"];

/// `users.state` of an identity that was revoked as a whole.
const REVOKED_STATE: i64 = -1;

/// What a CA's database knows.
#[derive(Debug, Default, PartialEq, Eq)]
struct CaEntries {
    /// Whether each identity is revoked.
    identities: BTreeMap<String, bool>,
    /// Each certificate (serial number and authority key identifier, hex): its identity, and whether it is revoked.
    certificates: BTreeMap<(String, String), (String, bool)>,
}

/// sqlite databases of a captured directory.
fn databases(captured: &CapturedDirectory) -> impl Iterator<Item = &CapturedEntry> {
    captured.entries.iter().filter(|entry| {
        let sqlite = captured.directory.classify(&entry.path, false).kind == Kind::Sqlite;
        sqlite && matches!(entry.content, EntryContent::File { size, .. } if size <= MAX_DATABASE_BYTES)
    })
}

/// Compares the databases that are in a place, each with what a server has beside it, with the captured ones.
pub(in crate::restore) fn in_files(
    existing: &Existing<'_>,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for captured in databases(existing.captured) {
        let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
        let (present, older) = (scratch.path().join("present.db"), scratch.path().join("captured.db"));
        let fetch = |suffix: &str| Fetch {
            path: format!("{}{suffix}", captured.path),
            to: scratch.path().join(format!("present.db{suffix}")),
            sparse: false,
        };
        let files: Vec<Fetch> = std::iter::once("").chain(BESIDE).map(fetch).collect();
        if existing.volume.fetch(&files).map_err(io(&existing.label))?.first() != Some(&true) {
            continue;
        }
        write_captured(captured, point, reader, &older)?;
        let id = existing.id();
        let note = |problem: String| {
            Finding::note(
                Rule::IdentitiesKnown,
                format!("{id} {}", captured.path),
                format!("it cannot be determined what it knows beyond the recovery point: {problem}"),
                "check the database that is set aside, if it can be read",
            )
        };
        match (read(&present), read(&older)) {
            (Ok(now), Ok(then)) => findings.extend(differences(id, &now, &then)),
            (Err(error), _) => findings.push(note(format!("the existing database cannot be read ({error})"))),
            (_, Err(error)) => findings.push(note(format!("the captured database cannot be read ({error})"))),
        }
    }
    Ok(findings)
}

/// Writes a captured file that is not made of blocks.
pub(in crate::restore) fn write_captured(
    captured: &CapturedEntry,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    to: &Path,
) -> Result<(), EngineError> {
    let EntryContent::File { size, parts } = &captured.content else { return Ok(()) };
    let contents = Contents::new(reader, point);
    check_parts(&captured.path, *size, parts)?;
    let file = std::fs::File::create(to).map_err(io(to))?;
    file.set_len(*size).map_err(io(to))?;
    for part in parts {
        file.write_all_at(&contents.bytes(&captured.path, part)?, part.offset).map_err(io(to))?;
    }
    Ok(())
}

fn read(path: &Path) -> rusqlite::Result<CaEntries> {
    // A journal beside a copy is played back into it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    let mut known = CaEntries::default();
    let mut users = database.prepare("SELECT id, state FROM users")?;
    for row in users.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?)))? {
        let (id, state) = row?;
        known.identities.insert(id, state == Some(REVOKED_STATE));
    }
    let columns = "CAST(serial_number AS TEXT), CAST(authority_key_identifier AS TEXT), id, CAST(status AS TEXT)";
    let mut certificates = database.prepare(&format!("SELECT {columns} FROM certificates"))?;
    let rows = certificates.query_map([], |row| {
        let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
        Ok(((text(0)?, text(1)?), (text(2)?, text(3)? == "revoked")))
    })?;
    for row in rows {
        let (key, value) = row?;
        known.certificates.insert(key, value);
    }
    Ok(known)
}

/// Compares a dump of the database that is there with the captured one.
pub(in crate::restore) fn forgotten_by_dump(
    id: &NodeId,
    present: &Path,
    captured: &Path,
) -> Result<Vec<Finding>, EngineError> {
    Ok(differences(id, &read_dump(present)?, &read_dump(captured)?))
}

fn read_dump(path: &Path) -> Result<CaEntries, EngineError> {
    let mut known = CaEntries::default();
    let file = std::fs::File::open(path).map_err(io(path))?;
    ca_dump::read(file, &mut |table, row| {
        let text = |column: &str| row.get(column).cloned().flatten().unwrap_or_default();
        match table {
            "users" => {
                known.identities.insert(text("id"), text("state") == REVOKED_STATE.to_string());
            }
            "certificates" => {
                let key = (text("serial_number"), text("authority_key_identifier"));
                known.certificates.insert(key, (text("id"), text("status") == "revoked"));
            }
            _ => {}
        }
    })
    .map_err(io(path))?;
    Ok(known)
}

fn differences(id: &NodeId, now: &CaEntries, then: &CaEntries) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tell = |rule, reported: BTreeSet<String>, what: &str, remedy: &str| {
        if !reported.is_empty() {
            let more = reported.len().saturating_sub(MAX_REPORTED);
            let listed: Vec<&str> = reported.iter().take(MAX_REPORTED).map(String::as_str).collect();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            findings.push(Finding::warning(
                rule,
                id,
                format!("{} {what}: {}{more}", reported.len(), listed.join(", ")),
                remedy,
            ));
        }
    };
    let unknown = now.identities.keys().filter(|name| !then.identities.contains_key(*name)).cloned().collect();
    tell(
        Rule::IdentitiesKnown,
        unknown,
        "identities were registered after the recovery point and will be unknown",
        "register them again; their certificates stay valid until they expire, but cannot be renewed until then",
    );
    let issued = now
        .certificates
        .iter()
        .filter(|(key, (name, _))| !then.certificates.contains_key(*key) && then.identities.contains_key(name))
        .map(|((serial, _), (name, _))| format!("{name} ({serial})"))
        .collect();
    tell(
        Rule::IdentitiesKnown,
        issued,
        "certificates were issued after the recovery point and will be unknown",
        "their holders must enrol again with the identity's secret; reenroll refuses a certificate that the CA does not know",
    );
    let revoked = now
        .certificates
        .iter()
        .filter(|(key, (_, revoked))| *revoked && !then.certificates.get(*key).is_some_and(|(_, before)| *before))
        .map(|((serial, authority), (name, _))| format!("{name} (serial {serial}, authority key {authority})"))
        .collect();
    tell(
        Rule::RevocationsKept,
        revoked,
        "certificates were revoked after the recovery point and will not be in the next CRL",
        "keep the newest CRL in the MSPs, and revoke them again: fabric-ca-client revoke --serial … --aki …",
    );
    // A database that began anew has removed nobody.
    let is_later =
        then.certificates.is_empty() || then.certificates.keys().any(|key| now.certificates.contains_key(key));
    let back = then
        .identities
        .iter()
        .filter(|(name, revoked)| !**revoked && now.identities.get(*name).map_or(is_later, |revoked| *revoked))
        .map(|(name, _)| name.clone())
        .collect();
    tell(
        Rule::RevocationsKept,
        back,
        "identities were revoked or removed after the recovery point and may enrol again",
        "revoke them again before clients reach the CA: fabric-ca-client revoke --revoke.name …",
    );
    findings
}
