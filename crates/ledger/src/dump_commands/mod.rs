//! Finds what a dump makes a database client do besides sending SQL: `psql` obeys every backslash outside of quotes (`\!`, `\copy`, `\g
//! |cmd`), `mysql` and `mariadb` also words at the beginning of a line (`system`, `source`). A dump of a certificate authority's database
//! needs none of these, nor statements that run programs or read files; a dump that contains any is refused before it is loaded. Of
//! statements only those pass that such a database needs: its tables, indexes and sequences with their rows, owners and grants. A function,
//! a trigger or a rule would be run with the rights of the one who loads the dump, and so would what a constraint or a default calls.
//!
//! The text is split into quotes, comments and statements as the clients do. If two settings of a server would split it differently, it is
//! refused.

mod lexer;
mod mysql;
mod postgres;
mod statement;

use std::io::{self, BufRead, BufReader, Read};

use lexer::{MAX_HEAD, Scanner};

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
