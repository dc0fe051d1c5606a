//! The tables of a certificate authority's sqlite database: those of its schema level are there with their columns, and what one contains
//! fits the others (C3). A server makes a missing table anew, empty, when it starts, and does not say so; with a column missing it starts
//! and fails at the first request that needs it (fabric-ca 1.5.21, tried).

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_network::{Finding, OrLeaveOut, Remedy, Rule, Severity};
use rusqlite::Connection;

use super::settings::CaHome;

/// A table: its level's property, its columns, and those that come with a level.
struct Table {
    name: &'static str,
    level: &'static str,
    columns: &'static [&'static str],
    of_level: &'static [(u32, &'static str)],
    /// What is lost with it; nothing where the server makes it again with all that it needs.
    lost: Option<&'static str>,
}

/// The tables of fabric-ca (`lib/server/db/sqlite/sqlite.go`).
const TABLES: [Table; 7] = [
    Table {
        name: "users",
        level: "identity.level",
        columns: &["id", "token", "type", "affiliation", "attributes", "state", "max_enrollments"],
        of_level: &[(1, "level"), (2, "incorrect_password_attempts")],
        lost: Some("all identities"),
    },
    Table {
        name: "affiliations",
        level: "affiliation.level",
        columns: &["name", "prekey"],
        of_level: &[(1, "level")],
        lost: Some("affiliations that were added since the server's first start"),
    },
    Table {
        name: "certificates",
        level: "certificate.level",
        columns: &[
            "id",
            "serial_number",
            "authority_key_identifier",
            "ca_label",
            "status",
            "reason",
            "expiry",
            "revoked_at",
            "pem",
        ],
        of_level: &[(1, "level")],
        lost: Some("all certificates and revocations"),
    },
    Table {
        name: "credentials",
        level: "credential.level",
        columns: &["id", "revocation_handle", "cred", "ca_label", "status", "reason", "expiry", "revoked_at"],
        of_level: &[(1, "level")],
        lost: Some("idemix credentials and their revocations"),
    },
    Table {
        name: "revocation_authority_info",
        level: "rcinfo.level",
        columns: &["epoch", "next_handle", "lasthandle_in_pool"],
        of_level: &[(1, "level")],
        lost: Some("the idemix revocation epoch and handles, which are then issued a second time"),
    },
    Table { name: "nonces", level: "nonce.level", columns: &["val", "expiry"], of_level: &[(1, "level")], lost: None },
    Table { name: "properties", level: "", columns: &["property", "value"], of_level: &[], lost: None },
];

/// Most affiliations without a row that are told by name.
const MAX_SHOWN: usize = 3;
const REMEDY: OrLeaveOut = OrLeaveOut("restore the database from an earlier recovery point");

/// What a database has.
#[derive(Default)]
pub(super) struct Tables {
    /// Columns by table, in lower case.
    columns: BTreeMap<String, BTreeSet<String>>,
    /// Schema levels by property.
    levels: BTreeMap<String, u32>,
    /// Identities that have enrolled.
    enrolled: u64,
    /// Affiliations of identities, in lower case.
    used: BTreeSet<String>,
    /// Affiliations that it has rows of, in lower case.
    affiliations: BTreeSet<String>,
    /// Idemix credentials.
    credentials: u64,
    /// The next revocation handle; 1 before the first credential.
    next_handle: Option<u64>,
}

impl Tables {
    /// Reads what a database has. What is not there is empty.
    pub fn read(database: &Connection) -> rusqlite::Result<Tables> {
        let mut out = Tables::default();
        let names = texts(database, "SELECT name FROM sqlite_master WHERE type = 'table'")?;
        for name in names {
            let mut statement = database.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
            let columns = statement.query_map([&name], |row| row.get::<_, String>(0))?;
            out.columns.insert(name.to_ascii_lowercase(), columns.collect::<rusqlite::Result<_>>()?);
        }
        let count = |table: &str, columns: &[&str], sql: &str| -> rusqlite::Result<Option<u64>> {
            let known = out.columns.get(table);
            if !known.is_some_and(|known| columns.iter().all(|column| known.contains(*column))) {
                return Ok(None);
            }
            Ok(database.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.map(|n| n.max(0).unsigned_abs()))
        };
        out.enrolled = count("users", &["state"], "SELECT count(*) FROM users WHERE state > 0")?.unwrap_or(0);
        out.credentials = count("credentials", &[], "SELECT count(*) FROM credentials")?.unwrap_or(0);
        let next = "SELECT max(next_handle) FROM revocation_authority_info";
        out.next_handle = count("revocation_authority_info", &["next_handle"], next)?;
        if out.has("properties", "property") && out.has("properties", "value") {
            let mut statement = database.prepare("SELECT property, CAST(value AS TEXT) FROM properties")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            for row in rows {
                let (property, value) = row?;
                out.levels.extend(value.parse().ok().map(|level| (property, level)));
            }
        }
        if out.has("users", "affiliation") {
            let used = "SELECT DISTINCT lower(CAST(affiliation AS TEXT)) FROM users WHERE affiliation IS NOT NULL";
            out.used = texts(database, used)?.into_iter().filter(|name| !name.trim_matches('.').is_empty()).collect();
        }
        if out.has("affiliations", "name") {
            let known = "SELECT lower(CAST(name AS TEXT)) FROM affiliations";
            out.affiliations = texts(database, known)?.into_iter().collect();
        }
        Ok(out)
    }

    fn has(&self, table: &str, column: &str) -> bool {
        self.columns.get(table).is_some_and(|columns| columns.contains(column))
    }

    /// Servers before 1.1 have the first three tables only.
    fn is_of_first_servers(&self) -> bool {
        let later = ["credentials", "revocation_authority_info", "nonces"];
        let by_level = self.levels.contains_key("credential.level") || self.has("users", "incorrect_password_attempts");
        !by_level && !later.iter().any(|table| self.columns.contains_key(*table))
    }

    /// Finds what is missing, and what one table says of another that is not so.
    pub fn check(&self, home: &CaHome, certificates: u64, subject: &str, found: &dyn Fn(Finding)) {
        let error = |what: String| found(Finding::error(Rule::CaDatabase, subject, what, REMEDY));
        let first = self.is_of_first_servers();
        for table in &TABLES {
            match (self.columns.get(table.name), table.lost) {
                (Some(columns), _) => {
                    let level = self.levels.get(table.level).copied().unwrap_or(0);
                    let of_level = table.of_level.iter().filter(|(of, _)| *of <= level).map(|(_, column)| *column);
                    let wanted = table.columns.iter().copied().chain(of_level);
                    let lacks: Vec<&str> = wanted.filter(|column| !columns.contains(*column)).collect();
                    if !lacks.is_empty() {
                        error(format!(
                            "its table {} has no column {}, which its schema level has: the server fails when it needs it",
                            table.name,
                            lacks.join(", ")
                        ));
                    }
                }
                (None, Some(lost)) if !first || table.name == "affiliations" => error(format!(
                    "its table {} is missing: the server makes an empty one when it starts, and loses {lost}",
                    table.name
                )),
                (None, _) => {}
            }
        }
        self.check_rows(home, certificates, subject, found);
    }

    fn check_rows(&self, home: &CaHome, certificates: u64, subject: &str, found: &dyn Fn(Finding)) {
        let tell = |severity: Severity, what: String, remedy: Remedy| {
            found(Finding { severity, ..Finding::error(Rule::CaDatabase, subject, what, remedy) });
        };
        if self.enrolled > 0 && certificates == 0 && self.credentials == 0 {
            let what = format!("{} of its identities have enrolled, and it contains no certificate", self.enrolled);
            tell(Severity::Error, what, REMEDY.into());
        }
        match self.next_handle {
            None if self.credentials > 0 && self.has("revocation_authority_info", "next_handle") => {
                let what = format!(
                    "it contains {} idemix credentials, and its table revocation_authority_info is empty: the server issues their revocation handles a second time",
                    self.credentials
                );
                tell(Severity::Error, what, REMEDY.into());
            }
            Some(next) if next > 1 && self.credentials == 0 && self.columns.contains_key("credentials") => {
                let what = format!("it has issued {} idemix credentials, and contains none", next - 1);
                let remedy = "no action is needed if their identities were removed; otherwise restore the database from an earlier recovery point";
                tell(Severity::Warning, what, remedy.into());
            }
            _ => {}
        }
        if !self.columns.contains_key("affiliations") || home.file.is_none() {
            return;
        }
        // What the configuration names, the server adds when it starts.
        let is_known = |name: &&String| self.affiliations.contains(*name) || home.config.affiliations.contains(name);
        let unknown: Vec<&str> = self.used.iter().filter(|name| !is_known(name)).map(String::as_str).collect();
        let more = unknown.len().saturating_sub(MAX_SHOWN);
        let shown = unknown.iter().take(MAX_SHOWN).copied().collect::<Vec<_>>().join(", ");
        let shown = if more > 0 { format!("{shown} (and {more} more)") } else { shown };
        if unknown.is_empty() {
        } else if self.affiliations.is_empty() {
            let what = format!(
                "its table affiliations is empty, and its identities belong to {shown}, which its configuration does not name"
            );
            tell(Severity::Error, what, REMEDY.into());
        } else {
            let what = format!("its identities belong to {shown}, which its table affiliations does not contain");
            let remedy = "no action is needed unless identities are to be registered there: add the affiliation then";
            tell(Severity::Note, what, remedy.into());
        }
    }
}

fn texts(database: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = database.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0))?;
    Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
}
