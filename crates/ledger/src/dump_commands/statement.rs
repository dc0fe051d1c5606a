//! Judges a whole statement of a dump: by its first words, the words that are looked for in all of it, and what it calls.

use super::lexer::{COMMENT, Scanner, State, is_word};
use super::{Dialect, Why, mysql, postgres};

/// Words of statements that are looked for, however long the statement is.
pub(super) const WATCHED: [&str; 14] = [
    "select",
    "global",
    "persist",
    "password",
    "role",
    "program",
    "infile",
    "outfile",
    "dumpfile",
    "load_file",
    "soname",
    "sql_mode",
    "client_encoding",
    "standard_conforming_strings",
];

/// Words that stand before a parenthesis without being a call that does anything: keywords, types, functions of a value.
const BEFORE_PARENTHESIS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "bigint",
    "binary",
    "bit",
    "blob",
    "bpchar",
    "brin",
    "btree",
    "by",
    "case",
    "char",
    "char_length",
    "character",
    "check",
    "coalesce",
    "columns",
    "current_timestamp",
    "datetime",
    "decimal",
    "default",
    "double",
    "else",
    "enum",
    "exclude",
    "float",
    "from",
    "gin",
    "gist",
    "greatest",
    "hash",
    "identity",
    "in",
    "include",
    "insert",
    "int",
    "integer",
    "interval",
    "is",
    "key",
    "lcase",
    "least",
    "length",
    "list",
    "localtimestamp",
    "lower",
    "mediumint",
    "nextval",
    "not",
    "now",
    "numeric",
    "octet_length",
    "or",
    "range",
    "references",
    "select",
    "set",
    "smallint",
    "spgist",
    "text",
    "then",
    "time",
    "timestamp",
    "tinyint",
    "to",
    "unique",
    "update",
    "upper",
    "values",
    "varbinary",
    "varchar",
    "varying",
    "when",
    "where",
    "with",
];
/// Words that a table's name follows, which a parenthesis may follow.
const BEFORE_NAME: [&str; 8] = ["table", "exists", "into", "copy", "only", "references", "of", "key"];

impl Scanner {
    /// Returns what is called where a parenthesis opens: a name before it that is neither a table's nor a known word.
    pub(super) fn called(&self) -> Option<String> {
        let token = String::from_utf8_lossy(&self.token).into_owned();
        let is_name =
            self.token == COMMENT || self.token.iter().any(|byte| is_word(*byte) || matches!(byte, b'.' | b'"' | b'`'));
        let before = String::from_utf8_lossy(&self.token_before);
        let of_table = BEFORE_NAME.contains(&before.as_ref()) && self.token != COMMENT;
        let known = BEFORE_PARENTHESIS.contains(&token.strip_prefix("pg_catalog.").unwrap_or(&token));
        let digits = self.token.iter().all(u8::is_ascii_digit);
        let of_dump = self.head.starts_with(b"select pg_catalog.set");
        (is_name && !of_table && !known && !digits && !of_dump).then(|| {
            let shown: String = match self.token.as_slice() {
                COMMENT => "what stands before a comment".to_owned(),
                quoted if quoted.iter().any(|byte| matches!(byte, b'"' | b'`')) => "a quoted name".to_owned(),
                _ => token.chars().filter(|c| !c.is_control()).take(60).collect(),
            };
            format!("it calls {shown}")
        })
    }

    /// Looks at a whole statement.
    pub(super) fn judge(&mut self, ended: bool) -> Result<(), Why> {
        self.watch(b';');
        let head = std::mem::take(&mut self.head);
        let long = std::mem::take(&mut self.head_is_long);
        let seen = std::mem::replace(&mut self.seen, [false; WATCHED.len()]);
        let in_quotes = std::mem::take(&mut self.in_quotes);
        let call = self.call.take().or(self.maybe_call.take());
        self.token.clear();
        self.token_before.clear();
        self.token_open = false;
        self.parentheses = 0;
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut text = text.trim();
        if self.dialect == Dialect::MySql {
            // `/*!40101 SET …*/;` is seen as `40101 set …`, `*/;`.
            text = text.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
            let rest = text.trim_end_matches([';', ' ']).trim_end_matches("*/").trim();
            if rest.is_empty() {
                return Ok(());
            }
            // What the tools write as `/*M!999999\- …*/` is a comment for the server.
        } else if text.trim_matches([';', ' ']).is_empty() {
            return Ok(());
        }
        let known: &[&str] = if self.dialect == Dialect::Postgres { postgres::STATEMENTS } else { mysql::STATEMENTS };
        let ends = if ended { text.to_owned() } else { format!("{text};") };
        let is_known = known.iter().any(|known| ends.starts_with(known));
        let words = text.trim_end_matches(';').split(' ').map(|word| word.trim_end_matches("*/"));
        let words = words.take_while(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic())).take(4);
        let first = words.collect::<Vec<_>>().join(" ").to_uppercase();
        let is_call = call.is_some();
        self.what = Some(call.filter(|_| is_known).unwrap_or(first));
        if is_call || !is_known {
            return Err(Why::Statement);
        }
        let has = |word: &str| WATCHED.iter().zip(&seen).any(|(known, seen)| *seen && *known == word);
        if has("select")
            && !["select ", "grant ", "revoke ", "alter default "].iter().any(|begin| text.starts_with(begin))
        {
            return Err(Why::Statement);
        }
        match self.dialect {
            Dialect::Postgres => {
                if text.starts_with("copy ") {
                    if !text.ends_with(" from stdin;") || has("program") || long {
                        return Err(Why::Statement);
                    }
                    self.state = State::Rows { begun: false, line: Vec::new() };
                }
                if !postgres::is_harmless(&ends, &in_quotes) {
                    return Err(Why::Statement);
                }
                let setting = has("standard_conforming_strings") || has("client_encoding");
                if setting && !["set standard_conforming_strings = on;", "set client_encoding = '';"].contains(&text) {
                    return Err(Why::Ambiguous);
                }
            }
            Dialect::MySql => {
                let file = has("infile") || has("outfile") || has("dumpfile") || has("load_file") || has("soname");
                let gtid = text.starts_with("set @@global.gtid_purged=") && !text.contains(',');
                let of_server = has("persist") || has("password") || has("role") || (has("global") && !gtid);
                if file || (text.starts_with("set ") && of_server) || !mysql::is_harmless(text, long) {
                    return Err(Why::Statement);
                }
                let escapes = in_quotes.windows(12).any(|part| part == b"no_backslash");
                if has("sql_mode") && (escapes || text.contains('(') || long) {
                    return Err(Why::Ambiguous);
                }
            }
        }
        self.what = None;
        Ok(())
    }
}
