//! The rows of a certificate authority's database in a dump of `pg_dump` (plain) or `mysqldump` (one row per statement, with column names).

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use aws_lc_rs::digest;

/// What the dump's file is called.
pub const DUMP_FILE: &str = "database.sql";
/// Begins the comment of a dump that names the database's other tables, which are not dumped.
pub const OTHER_TABLES: &str = "-- Tables beside those of a certificate authority: ";
/// Tables that every version's server makes when it starts.
const NEEDED: [&str; 3] = ["affiliations", "certificates", "users"];
/// Longest line read, in bytes: a row.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// A row: columns and values.
pub type Row = BTreeMap<String, Option<String>>;

/// What a dump holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump {
    /// Whether it was written to its end.
    pub complete: bool,
    /// Rows by table; 0 for those that it only creates.
    pub tables: BTreeMap<String, u64>,
    /// The names of the database's other tables.
    pub others: Option<String>,
    /// SHA-256 over all rows with their tables and columns, hex: two dumps of one content have the same, whatever versions wrote them.
    pub content: String,
}

impl Dump {
    /// Returns the first table that a certificate authority needs and the dump does not create.
    pub fn lacks(&self) -> Option<&'static str> {
        NEEDED.into_iter().find(|table| !self.tables.contains_key(*table))
    }
}

/// Reads a dump row by row.
///
/// # Errors
/// What the reader says; a line longer than any row is.
pub fn read(reader: impl Read, each: &mut dyn FnMut(&str, &Row)) -> io::Result<Dump> {
    let mut reader = io::BufReader::new(reader);
    let mut dump = Dump::default();
    let mut content = digest::Context::new(&digest::SHA256);
    let mut copied: Option<(String, Vec<String>)> = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') && line.len() as u64 >= MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than any row of a CA's database"));
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        let mut row = |table: &str, row: Row, dump: &mut Dump| {
            *dump.tables.entry(table.to_owned()).or_default() += 1;
            content.update(table.as_bytes());
            for (column, value) in &row {
                let value = value.as_deref().map_or("-".to_owned(), |value| format!("{} {value}", value.len()));
                content.update(format!("\0{column}={value}").as_bytes());
            }
            content.update(b"\n");
            each(table, &row);
        };
        match &copied {
            Some(_) if text == "\\." => copied = None,
            Some((table, columns)) => {
                let values = text.split('\t').map(copied_value);
                row(table, columns.iter().cloned().zip(values).collect(), &mut dump);
            }
            None => {
                if let Some(begun) = copy_header(text) {
                    copied = Some(begun);
                } else if let Some((table, found)) = insert(text) {
                    row(&table, found, &mut dump);
                } else if let Some(table) = created(text) {
                    dump.tables.entry(table).or_default();
                } else if let Some(others) = text.strip_prefix(OTHER_TABLES) {
                    dump.others = Some(others.to_owned());
                } else if text.starts_with("-- PostgreSQL database dump complete")
                    || text.starts_with("-- Dump completed")
                {
                    dump.complete = true;
                }
            }
        }
    }
    dump.content = hex::encode(content.finish());
    Ok(dump)
}

/// `COPY public.users (id, token) FROM stdin;`
fn copy_header(text: &str) -> Option<(String, Vec<String>)> {
    let rest = text.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")?;
    let (table, columns) = rest.split_once(" (")?;
    let name = |text: &str| text.trim().trim_matches('"').to_owned();
    let table = name(table.rsplit('.').next()?);
    Some((table, columns.strip_suffix(')')?.split(',').map(name).collect()))
}

/// `CREATE TABLE public.users (`
fn created(text: &str) -> Option<String> {
    let name = text.strip_prefix("CREATE TABLE ")?.split([' ', '(']).next()?;
    Some(name.rsplit('.').next()?.trim_matches(['"', '`']).to_owned())
}

fn copied_value(text: &str) -> Option<String> {
    if text == "\\N" {
        return None;
    }
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|c| match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'v' => '\u{b}',
                other => other,
            })),
            c => out.push(c),
        }
    }
    Some(bytes_as_text(&out, "\\x").unwrap_or(out))
}

/// Text in a column of bytes is written in hexadecimal.
fn bytes_as_text(value: &str, before: &str) -> Option<String> {
    let digits = value.strip_prefix(before)?;
    String::from_utf8(hex::decode(digits).ok()?).ok()
}

/// ``INSERT INTO `users` (`id`, `token`) VALUES ('a',NULL);``
fn insert(text: &str) -> Option<(String, Row)> {
    let rest = text.strip_prefix("INSERT INTO ")?.strip_suffix(");")?;
    let (head, values) = rest.split_once(") VALUES (")?;
    let (table, columns) = head.split_once(" (")?;
    let name = |text: &str| text.trim().trim_matches('`').to_owned();
    let mut row = Row::new();
    let mut rest = values;
    for column in columns.split(',') {
        let (value, after) = value(rest)?;
        row.insert(name(column), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some((name(table), row))
}

/// Returns the first value of a list, and what follows it.
fn value(text: &str) -> Option<(Option<String>, &str)> {
    let text = text.strip_prefix("_binary ").unwrap_or(text);
    let Some(inside) = text.strip_prefix('\'') else {
        let end = text.find(',').unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        let value = match word {
            "NULL" => None,
            word => Some(bytes_as_text(word, "0x").unwrap_or_else(|| word.to_owned())),
        };
        return Some((value, rest));
    };
    let mut out = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, c)| match c {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'Z' => '\u{1a}',
                other => other,
            })),
            '\'' if inside[at + 1..].starts_with('\'') => {
                out.push('\'');
                chars.next();
            }
            '\'' => return Some((Some(out), &inside[at + 1..])),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(text: &str) -> (Dump, Vec<(String, Row)>) {
        let mut rows = Vec::new();
        let dump = read(text.as_bytes(), &mut |table, row| rows.push((table.to_owned(), row.clone()))).unwrap();
        (dump, rows)
    }

    #[test]
    fn both_servers_dumps_tell_the_same_rows() {
        let postgres = "--\nSET x = 0;\nCOPY public.users (id, token, state) FROM stdin;\nadm\\\\in\\t1\t\\\\x6162\t0\nb\t\\N\t-1\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n";
        let mysql = "/*M!1 */\nINSERT INTO `users` (`id`, `token`, `state`) VALUES ('adm\\\\in\\t1',0x6162,0);\nINSERT INTO `users` (`id`, `token`, `state`) VALUES ('b',NULL,-1);\n-- Dump completed\n";
        let ((first, reported), (second, others)) = (rows(postgres), rows(mysql));
        assert_eq!(reported, others);
        assert_eq!(reported[0].1["id"].as_deref(), Some("adm\\in\t1"));
        assert_eq!((reported[0].1["token"].as_deref(), reported[1].1["token"].as_deref()), (Some("ab"), None));
        assert_eq!(first, second);
        assert!(first.complete && first.tables["users"] == 2);
    }

    #[test]
    fn quotes_inside_values_do_not_end_them_and_a_cut_dump_is_not_complete() {
        let (dump, reported) = rows("INSERT INTO `t` (`a`, `b`) VALUES ('it''s, \\'x\\'); (',_binary 'b');\n");
        assert_eq!(reported[0].1["a"].as_deref(), Some("it's, 'x'); ("));
        assert_eq!(reported[0].1["b"].as_deref(), Some("b"));
        assert!(!dump.complete);
        assert_ne!(dump.content, rows("INSERT INTO `t` (`a`, `b`) VALUES ('its','b');\n").0.content);
    }
}
