//! The statements that `pg_dump` writes of a certificate authority's database.

/// Beginnings of statements that `pg_dump` writes of tables, indexes and sequences. Older versions name the language that every database has.
pub(super) const STATEMENTS: &[&str] = &[
    "set ",
    "select pg_catalog.set_config(",
    "select pg_catalog.setval(",
    "create table ",
    "create unlogged table ",
    "create sequence ",
    "create index ",
    "create unique index ",
    "create schema public;",
    "create schema if not exists public;",
    "create extension if not exists plpgsql with schema pg_catalog;",
    "alter table ",
    "alter sequence ",
    "alter index ",
    "alter schema public owner to ",
    "alter default privileges ",
    "drop table ",
    "drop index ",
    "drop sequence ",
    "drop schema public;",
    "drop schema if exists public;",
    "drop extension plpgsql;",
    "drop extension if exists plpgsql;",
    "comment on table ",
    "comment on column ",
    "comment on index ",
    "comment on sequence ",
    "comment on constraint ",
    "comment on schema ",
    "comment on database ",
    "comment on extension plpgsql ",
    "insert into ",
    "grant ",
    "revoke ",
    "copy ",
    "begin;",
    "commit;",
    "start transaction;",
];
/// What grants of tables and sequences name. A grant of anything else may make its receiver the server's master.
const GRANTED: [&str; 3] = [" on table ", " on sequence ", " on schema "];

/// Returns whether a statement whose beginning is known does no more than such a dump needs. `in_quotes`: the text of its quotes.
pub(super) fn is_harmless(text: &str, in_quotes: &[u8]) -> bool {
    if let Some(set) = text.strip_prefix("set ") {
        let name = set.split([' ', '=']).next().unwrap_or_default();
        return !matches!(name, "role" | "session" | "local") && !name.contains("librar") && !name.contains("\"");
    }
    if text.starts_with("select pg_catalog.set_config(") {
        return text == "select pg_catalog.set_config('', '', false);" && in_quotes == b"search_path";
    }
    if let Some(rest) = text.strip_prefix("select pg_catalog.setval('', ") {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
        return matches!(rest, ", true);" | ", false);");
    }
    if text.starts_with("select ") {
        return false;
    }
    if text.starts_with("grant ") || text.starts_with("revoke ") {
        return GRANTED.iter().any(|on| text.contains(on));
    }
    true
}
