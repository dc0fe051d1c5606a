//! The statements that `mysqldump` and `mariadb-dump` write of a certificate authority's database, and the commands of their clients.

/// Words that `mysql` and `mariadb` take for a command of theirs at the beginning of a line.
pub(super) const CLIENT_WORDS: [&str; 30] = [
    "?",
    "charset",
    "clear",
    "connect",
    "costs",
    "edit",
    "ego",
    "exit",
    "go",
    "help",
    "nopager",
    "notee",
    "nowarning",
    "pager",
    "print",
    "prompt",
    "query_attributes",
    "quit",
    "rehash",
    "resetconnection",
    "sandbox",
    "source",
    "ssl_session_data_print",
    "status",
    "system",
    "tee",
    "use",
    "warnings",
    "ping",
    "delimiter",
];

/// Beginnings of statements that `mysqldump` and `mariadb-dump` write of tables.
pub(super) const STATEMENTS: &[&str] = &[
    "set ",
    "drop table ",
    "create table ",
    "lock tables ",
    "unlock tables;",
    "insert into ",
    "insert ignore into ",
    "replace into ",
    "alter table ",
    "start transaction;",
    "begin;",
    "commit;",
    "lock table ",
];
/// Engines of tables that keep rows and nothing else: others read files or ask other servers.
const ENGINES: [&str; 7] = ["innodb", "myisam", "aria", "memory", "rocksdb", "ndbcluster", "ndb"];

/// Returns whether a statement whose beginning is known does no more than such a dump needs. `long`: its end was not looked at.
pub(super) fn is_harmless(text: &str, long: bool) -> bool {
    if text.starts_with("alter table ") {
        return text.contains(" disable keys") || text.contains(" enable keys");
    }
    if text.starts_with("create table ") {
        let engines = text.match_indices("engine").filter_map(|(at, word)| {
            let rest = text[at + word.len()..].trim_start();
            let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
            (!rest.is_empty()).then(|| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default())
        });
        let elsewhere = [" connection=", " data directory", " index directory", " like ", " union="];
        // What a long statement ends with is not seen.
        return !long
            && engines.into_iter().all(|engine| ENGINES.contains(&engine))
            && !elsewhere.iter().any(|word| text.contains(word));
    }
    true
}
