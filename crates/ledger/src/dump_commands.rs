//! Finds what a dump makes a database client do besides sending SQL: `psql` obeys every backslash outside of quotes (`\!`, `\copy`, `\g
//! |cmd`), `mysql` and `mariadb` also words at the beginning of a line (`system`, `source`). A dump of a certificate authority's database
//! needs none of these, nor statements that run programs or read files; a dump that contains any is refused before it is loaded. Of
//! statements only those pass that such a database needs: its tables, indexes and sequences with their rows, owners and grants. A function,
//! a trigger or a rule would be run with the rights of the one who loads the dump, and so would what a constraint or a default calls.
//!
//! The text is split into quotes, comments and statements as the clients do. If two settings of a server would split it differently, it is
//! refused.

use std::io::{self, BufRead, BufReader, Read};

/// Which client reads the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `psql`.
    Postgres,
    /// `mysql`, `mariadb`.
    MySql,
}

impl Dialect {
    /// Returns what wrote a dump, by the comment at its beginning; `None` when it does not say.
    ///
    /// # Errors
    /// What the reader says.
    pub fn of(reader: impl Read) -> io::Result<Option<Dialect>> {
        let mut beginning = Vec::new();
        reader.take(MAX_HEAD as u64).read_to_end(&mut beginning)?;
        let text = String::from_utf8_lossy(&beginning);
        let says = |words: &str| text.lines().any(|line| line.starts_with(words));
        Ok(if says("-- PostgreSQL database dump") {
            Some(Dialect::Postgres)
        } else if says("-- MySQL dump") || says("-- MariaDB dump") || beginning.starts_with(b"/*M!") {
            Some(Dialect::MySql)
        } else {
            None
        })
    }
}

/// What a dump must not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The line, counted from 1.
    pub line: u64,
    /// Why.
    pub why: Why,
    /// What it is, where it is a statement: its first words, or what it calls.
    pub what: Option<String>,
}

/// Why a dump is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A backslash outside of quotes, comments and rows.
    Backslash,
    /// A line that begins with a word that the client obeys.
    ClientCommand,
    /// A statement that no dump of such a database holds.
    Statement,
    /// Quotes that end in another place under another setting of the server.
    Ambiguous,
    /// It ends inside a quote, a comment or rows.
    Unfinished,
    /// A byte of value zero: clients stop reading a line there.
    Zero,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Why::Backslash => "a backslash outside of quotes: the client would take it for a command",
            Why::ClientCommand => "it begins with a word that the client would take for a command",
            Why::Statement => "a statement that a dump of a certificate authority's database does not hold",
            Why::Ambiguous => "a quote that ends in another place under another setting of the server",
            Why::Unfinished => "the dump ends inside a quote, a comment or the rows of a table",
            Why::Zero => "a byte of value zero",
        })
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)?;
        self.what.as_ref().map_or(Ok(()), |what| write!(f, " ({what})"))
    }
}

/// What newer versions of `mariadb-dump` write first: it makes the client obey nothing else.
const SANDBOX: &[u8] = b"/*M!999999\\- enable the sandbox mode */";
/// Bytes of a statement that are looked at: its first words, without comments and quotes.
const MAX_HEAD: usize = 4096;
/// Longest tag of a dollar quote.
const MAX_TAG: usize = 63;

/// Reads a dump to its end, and says what of it is refused first; `None` when nothing is.
///
/// # Errors
/// What the reader says.
pub fn refused(reader: impl Read, dialect: Dialect) -> io::Result<Option<Refused>> {
    let mut scanner = Scanner::new(dialect);
    let mut reader = BufReader::with_capacity(1 << 18, reader);
    if dialect == Dialect::MySql {
        let mut first = Vec::new();
        (&mut reader).take(SANDBOX.len() as u64).read_to_end(&mut first)?;
        if first != SANDBOX {
            for byte in first {
                if let Err(why) = scanner.push(byte) {
                    return Ok(Some(scanner.refused(why)));
                }
            }
        }
    }
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        for &byte in bytes {
            if let Err(why) = scanner.push(byte) {
                return Ok(Some(scanner.refused(why)));
            }
        }
        reader.consume(len);
    }
    Ok(scanner.finish().err().map(|why| scanner.refused(why)))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// SQL.
    Plain,
    /// A quote that began with this byte; `escapes`: a backslash takes the next byte with it.
    Quoted {
        quote: u8,
        escapes: bool,
    },
    LineComment,
    /// Depth: `psql` nests them.
    Comment(u32),
    /// `$tag$`, with what was matched of its end.
    Dollar {
        tag: Vec<u8>,
        matched: usize,
    },
    /// Rows of a COPY; the line so far, if it may be the end.
    Rows {
        begun: bool,
        line: Vec<u8>,
    },
}

struct Scanner {
    dialect: Dialect,
    state: State,
    line: u64,
    /// The last bytes of plain text or of the quote, the newest first.
    last: u8,
    before: u8,
    third: u8,
    /// A quote that has just ended, and whether it took escapes: another one directly after it continues it.
    closed: Option<(u8, bool)>,
    /// The word that plain text is in, and the watched words that the statement holds.
    plain_word: Vec<u8>,
    seen: [bool; WATCHED.len()],
    /// The text in the statement's quotes, the beginning of it.
    in_quotes: Vec<u8>,
    /// Backslashes in a row inside a quote.
    slashes: usize,
    /// The byte before those backslashes.
    before_slashes: u8,
    /// The statement's words so far: lower case, one space between them, quotes as `'`.
    head: Vec<u8>,
    head_is_long: bool,
    parentheses: u32,
    /// The first word of a line outside of quotes and comments (`mysql`).
    word: Option<Vec<u8>>,
    /// A dollar quote's tag that may be opening.
    tag: Option<Vec<u8>>,
    /// The line on which the statement begins.
    statement_line: u64,
    /// The last word, name (quoted parts as their quote) or sign of the statement, and the one before it.
    token: Vec<u8>,
    token_before: Vec<u8>,
    /// More of the word or name may follow.
    token_open: bool,
    /// What the statement calls, where a dump of such a database calls nothing.
    call: Option<String>,
    /// What may be a call: `name`(100) is the beginning of a column in a key.
    maybe_call: Option<String>,
    /// What is refused, as far as it is a statement.
    what: Option<String>,
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Words of statements that are looked for, however long the statement is.
const WATCHED: [&str; 14] = [
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

/// Words that `mysql` and `mariadb` take for a command of theirs at the beginning of a line.
const CLIENT_WORDS: [&str; 30] = [
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

/// Beginnings of statements that `pg_dump` writes of tables, indexes and sequences. Older versions name the language that every database has.
const POSTGRES: &[&str] = &[
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
/// Beginnings of statements that `mysqldump` and `mariadb-dump` write of tables.
const MYSQL: &[&str] = &[
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
/// What stands for a comment inside a statement.
const COMMENT: &[u8] = b"--";
/// Longest word or name that is looked at.
const MAX_TOKEN: usize = 200;

impl Scanner {
    fn new(dialect: Dialect) -> Self {
        Scanner {
            dialect,
            state: State::Plain,
            line: 1,
            last: b'\n',
            before: b'\n',
            third: b'\n',
            closed: None,
            plain_word: Vec::new(),
            seen: [false; WATCHED.len()],
            in_quotes: Vec::new(),
            slashes: 0,
            before_slashes: 0,
            head: Vec::new(),
            head_is_long: false,
            parentheses: 0,
            word: Some(Vec::new()),
            tag: None,
            statement_line: 1,
            token: Vec::new(),
            token_before: Vec::new(),
            token_open: false,
            call: None,
            maybe_call: None,
            what: None,
        }
    }

    fn refused(&mut self, why: Why) -> Refused {
        let line = if why == Why::Statement { self.statement_line } else { self.line };
        Refused { line, why, what: self.what.take().filter(|what| why == Why::Statement && !what.is_empty()) }
    }

    fn push(&mut self, byte: u8) -> Result<(), Why> {
        let result = match std::mem::replace(&mut self.state, State::Plain) {
            State::Plain => self.plain(byte),
            State::Quoted { quote, escapes } => self.quoted(byte, quote, escapes),
            State::LineComment => {
                self.state = if byte == b'\n' { State::Plain } else { State::LineComment };
                if byte == b'\n' {
                    self.new_line();
                    self.space();
                }
                Ok(())
            }
            State::Comment(depth) => {
                self.comment(byte, depth);
                Ok(())
            }
            State::Dollar { tag, matched } => {
                self.dollar(byte, tag, matched);
                Ok(())
            }
            State::Rows { begun, line } => self.rows(byte, begun, line),
        };
        result?;
        if byte == b'\n' {
            self.line += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Why> {
        match &self.state {
            State::Plain | State::LineComment => {}
            _ => return Err(Why::Unfinished),
        }
        self.end_word()?;
        // A statement without its end is sent all the same by some clients.
        if self.head.iter().any(|byte| !byte.is_ascii_whitespace()) { self.judge(false) } else { Ok(()) }
    }

    fn new_line(&mut self) {
        self.word = Some(Vec::new());
        self.last = b'\n';
    }

    fn space(&mut self) {
        if self.head.last().is_some_and(|last| *last != b' ') {
            self.note(b' ');
        }
    }

    fn note(&mut self, byte: u8) {
        if self.head.is_empty() {
            self.statement_line = self.line;
        }
        if self.head.len() < MAX_HEAD {
            self.head.push(byte.to_ascii_lowercase());
        } else {
            self.head_is_long = true;
        }
    }

    /// The first word of a line is complete.
    fn end_word(&mut self) -> Result<(), Why> {
        let Some(word) = self.word.take() else { return Ok(()) };
        if self.dialect == Dialect::MySql && CLIENT_WORDS.iter().any(|known| known.as_bytes() == word) {
            return Err(Why::ClientCommand);
        }
        Ok(())
    }

    fn plain(&mut self, byte: u8) -> Result<(), Why> {
        if byte == 0 {
            return Err(Why::Zero);
        }
        if let Some((quote, escapes)) = self.closed.take()
            && quote == byte
        {
            self.open(quote, escapes);
            return Ok(());
        }
        self.watch(byte);
        self.look_at(byte);
        if let Some(mut tag) = self.tag.take() {
            // Dollar quotes are psql's.
            if byte == b'$' {
                self.note(b'\'');
                self.last = byte;
                self.state = State::Dollar { tag, matched: 0 };
                return Ok(());
            }
            let first = tag.is_empty();
            if (is_word(byte) && !(first && byte.is_ascii_digit())) && tag.len() < MAX_TAG {
                tag.push(byte);
                self.note(byte);
                self.last = byte;
                self.tag = Some(tag);
                return Ok(());
            }
        }
        let pair = (self.last, byte);
        (self.third, self.before, self.last) = (self.before, self.last, byte);
        let mysql = self.dialect == Dialect::MySql;
        match byte {
            b'\\' => return Err(Why::Backslash),
            b'\'' | b'"' => {
                self.end_word()?;
                // E'…' of PostgreSQL takes escapes; so does every quote of MySQL.
                let e = matches!(self.before, b'e' | b'E') && !is_word(self.third);
                let escapes = mysql || (byte == b'\'' && e);
                self.open(byte, escapes);
                return Ok(());
            }
            b'`' if mysql => {
                self.end_word()?;
                self.open(byte, false);
                return Ok(());
            }
            b'#' if mysql => {
                self.end_word()?;
                self.interrupt_token();
                self.state = State::LineComment;
                return Ok(());
            }
            _ => {}
        }
        if pair == (b'-', b'-') && !mysql {
            self.drop_last();
            self.interrupt_token();
            self.state = State::LineComment;
            return Ok(());
        }
        // MySQL's needs a space after the two.
        if mysql && byte.is_ascii_whitespace() && (self.third, self.before) == (b'-', b'-') {
            self.drop_last();
            self.drop_last();
            self.interrupt_token();
            if byte == b'\n' {
                self.new_line();
            } else {
                self.state = State::LineComment;
            }
            return Ok(());
        }
        if pair == (b'/', b'*') {
            self.drop_last();
            self.interrupt_token();
            self.last = 0;
            self.state = State::Comment(1);
            return Ok(());
        }
        if byte == b'$' && !mysql {
            // Behind a letter or a digit, versions of the client take it differently.
            if is_word(self.before) {
                return Err(Why::Ambiguous);
            }
            self.tag = Some(Vec::new());
        }
        if let Some(word) = &mut self.word {
            if (is_word(byte) || byte == b'?') && word.len() < MAX_TAG {
                word.push(byte.to_ascii_lowercase());
            } else if !(byte.is_ascii_whitespace() && word.is_empty()) {
                self.end_word()?;
            }
        }
        match byte {
            b'(' => self.parentheses = self.parentheses.saturating_add(1),
            b')' => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        if byte.is_ascii_whitespace() {
            self.space();
            if byte == b'\n' {
                self.new_line();
            }
            return Ok(());
        }
        self.note(byte);
        if byte == b';' {
            // Inside parentheses psql continues, MySQL does not: a dump contains neither.
            if self.parentheses > 0 {
                return Err(Why::Ambiguous);
            }
            return self.judge(true);
        }
        Ok(())
    }

    fn drop_last(&mut self) {
        self.head.pop();
    }

    /// Follows words, names and signs, and notes what is called.
    fn look_at(&mut self, byte: u8) {
        let quote = match self.dialect {
            Dialect::Postgres => b'"',
            Dialect::MySql => b'`',
        };
        if self.maybe_call.is_some() && !byte.is_ascii_digit() && byte != b')' {
            self.call = self.call.take().or(self.maybe_call.take());
        }
        if byte == b')' {
            self.maybe_call = None;
        }
        if is_word(byte) || byte == b'.' || byte == quote {
            if !self.token_open {
                self.token_before = std::mem::take(&mut self.token);
                self.token_open = true;
            }
            if self.token.len() < MAX_TOKEN {
                self.token.push(byte.to_ascii_lowercase());
            }
            return;
        }
        self.token_open = false;
        if byte.is_ascii_whitespace() {
            return;
        }
        if byte == b'(' && self.call.is_none() {
            let called = self.called();
            if self.token.ends_with(b"`") && self.token_before != b"." && self.head.starts_with(b"create table ") {
                self.maybe_call = called;
            } else {
                self.call = called;
            }
        }
        self.token_before = std::mem::replace(&mut self.token, vec![byte]);
    }

    /// A comment inside a statement: what is before it and what is behind it may belong together.
    fn interrupt_token(&mut self) {
        if self.head.iter().any(|byte| !byte.is_ascii_whitespace()) {
            self.token = COMMENT.to_vec();
            self.token_before.clear();
        }
        self.token_open = false;
    }

    /// Returns what is called where a parenthesis opens: a name before it that is neither a table's nor a known word.
    fn called(&self) -> Option<String> {
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

    /// Collects words of plain text, and remembers those that are watched.
    fn watch(&mut self, byte: u8) {
        if is_word(byte) {
            if self.plain_word.len() <= MAX_TAG {
                self.plain_word.push(byte.to_ascii_lowercase());
            }
            return;
        }
        if let Some(known) = WATCHED.iter().position(|known| known.as_bytes() == self.plain_word) {
            self.seen[known] = true;
        }
        self.plain_word.clear();
    }

    fn open(&mut self, quote: u8, escapes: bool) {
        self.note(quote);
        self.watch(quote);
        (self.slashes, self.before_slashes) = (0, 0);
        self.state = State::Quoted { quote, escapes };
    }

    fn quoted(&mut self, byte: u8, quote: u8, escapes: bool) -> Result<(), Why> {
        if byte == 0 {
            return Err(Why::Zero);
        }
        self.state = State::Quoted { quote, escapes };
        if byte == b'\\' {
            // In some encodings a backslash is the second half of a letter.
            if self.slashes == 0 {
                self.before_slashes = self.last;
            }
            self.slashes += 1;
            self.last = byte;
            self.note_quoted(byte);
            return Ok(());
        }
        let odd = self.slashes % 2 == 1;
        if byte == quote && self.slashes > 0 {
            let plain = !escapes && quote == b'\'' && odd;
            let half = escapes && self.before_slashes >= 0x80;
            if (plain || half) && self.dialect == Dialect::Postgres {
                return Err(Why::Ambiguous);
            }
        }
        let escaped = escapes && odd;
        self.slashes = 0;
        self.last = byte;
        if byte == quote && !escaped {
            // Two of them are one inside: the next opens again, with the same escapes.
            self.state = State::Plain;
            self.note(quote);
            (self.third, self.before, self.last) = (quote, quote, quote);
            self.closed = Some((quote, escapes));
        } else {
            self.note_quoted(byte);
        }
        Ok(())
    }

    fn note_quoted(&mut self, byte: u8) {
        if self.in_quotes.len() < MAX_HEAD {
            self.in_quotes.push(byte.to_ascii_lowercase());
        }
    }

    fn comment(&mut self, byte: u8, depth: u32) {
        let pair = (self.last, byte);
        self.state = State::Comment(depth);
        // `/*!`, `/*M!` and `/*+` are not comments for MySQL: their content is sent, and the client interprets it.
        if self.dialect == Dialect::MySql && depth == 1 {
            let opens = (self.last == 0 && matches!(byte, b'!' | b'+'))
                || (self.last == b'M' && self.before == 0 && byte == b'!');
            if opens {
                self.state = State::Plain;
                self.last = byte;
                self.before = 0;
                return;
            }
        }
        self.before = self.last;
        self.last = byte;
        match pair {
            (b'*', b'/') if depth == 1 => {
                self.state = State::Plain;
                self.space();
                self.last = b' ';
            }
            (b'*', b'/') => {
                self.state = State::Comment(depth - 1);
                self.last = 0xff;
            }
            (b'/', b'*') if self.dialect == Dialect::Postgres => {
                self.state = State::Comment(depth.saturating_add(1));
                self.last = 0xff;
            }
            _ => {}
        }
        if byte == b'\n' && self.word.is_some() {
            self.word = Some(Vec::new());
        }
    }

    fn dollar(&mut self, byte: u8, tag: Vec<u8>, matched: usize) {
        // The end is `$tag$`: `matched` bytes of it were seen.
        let end = |position: usize| match position {
            0 => b'$',
            n if n == tag.len() + 1 => b'$',
            n => tag[n - 1],
        };
        let matched = if byte == end(matched) { matched + 1 } else { usize::from(byte == b'$') };
        self.state = if matched == tag.len() + 2 { State::Plain } else { State::Dollar { tag, matched } };
        self.last = b'\'';
    }

    fn rows(&mut self, byte: u8, begun: bool, mut line: Vec<u8>) -> Result<(), Why> {
        if byte == 0 {
            return Err(Why::Zero);
        }
        if !begun {
            // The line of the statement ends first and contains nothing else.
            return match byte {
                b'\n' => {
                    self.state = State::Rows { begun: true, line };
                    Ok(())
                }
                b' ' | b'\r' | b'\t' => {
                    self.state = State::Rows { begun, line };
                    Ok(())
                }
                _ => Err(Why::Statement),
            };
        }
        if byte == b'\n' {
            if line == b"\\." || line == b"\\.\r" {
                self.new_line();
            } else {
                line.clear();
                self.state = State::Rows { begun, line };
            }
            return Ok(());
        }
        if line.len() < 4 {
            line.push(byte);
        }
        self.state = State::Rows { begun, line };
        Ok(())
    }

    /// Looks at a whole statement.
    fn judge(&mut self, ended: bool) -> Result<(), Why> {
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
        let known: &[&str] = if self.dialect == Dialect::Postgres { POSTGRES } else { MYSQL };
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
                if !judge_postgres(&ends, &in_quotes) {
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
                if file || (text.starts_with("set ") && of_server) || !judge_mysql(text, long) {
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

/// Looks closer at statements whose beginning is known. `in_quotes`: the text of their quotes.
fn judge_postgres(text: &str, in_quotes: &[u8]) -> bool {
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

/// The same for `mysqldump`.
fn judge_mysql(text: &str, long: bool) -> bool {
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
