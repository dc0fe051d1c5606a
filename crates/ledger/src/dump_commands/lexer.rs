//! Splits a dump into quotes, comments, rows and statements, as `psql`, `mysql` and `mariadb` do.

use super::statement::WATCHED;
use super::{Dialect, Refused, Why, mysql};

/// Bytes of a statement that are looked at: its first words, without comments and quotes.
pub(super) const MAX_HEAD: usize = 4096;
/// Longest tag of a dollar quote.
const MAX_TAG: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
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

pub(super) struct Scanner {
    pub(super) dialect: Dialect,
    pub(super) state: State,
    line: u64,
    /// The last bytes of plain text or of the quote, the newest first.
    last: u8,
    before: u8,
    third: u8,
    /// A quote that has just ended, and whether it took escapes: another one directly after it continues it.
    closed: Option<(u8, bool)>,
    /// The word that plain text is in, and the watched words that the statement holds.
    plain_word: Vec<u8>,
    pub(super) seen: [bool; WATCHED.len()],
    /// The text in the statement's quotes, the beginning of it.
    pub(super) in_quotes: Vec<u8>,
    /// Backslashes in a row inside a quote.
    slashes: usize,
    /// The byte before those backslashes.
    before_slashes: u8,
    /// The statement's words so far: lower case, one space between them, quotes as `'`.
    pub(super) head: Vec<u8>,
    pub(super) head_is_long: bool,
    pub(super) parentheses: u32,
    /// The first word of a line outside of quotes and comments (`mysql`).
    word: Option<Vec<u8>>,
    /// A dollar quote's tag that may be opening.
    tag: Option<Vec<u8>>,
    /// The line on which the statement begins.
    statement_line: u64,
    /// The last word, name (quoted parts as their quote) or sign of the statement, and the one before it.
    pub(super) token: Vec<u8>,
    pub(super) token_before: Vec<u8>,
    /// More of the word or name may follow.
    pub(super) token_open: bool,
    /// What the statement calls, where a dump of such a database calls nothing.
    pub(super) call: Option<String>,
    /// What may be a call: `name`(100) is the beginning of a column in a key.
    pub(super) maybe_call: Option<String>,
    /// What is refused, as far as it is a statement.
    pub(super) what: Option<String>,
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// What stands for a comment inside a statement.
pub(super) const COMMENT: &[u8] = b"--";
/// Longest word or name that is looked at.
const MAX_TOKEN: usize = 200;

impl Scanner {
    pub(super) fn new(dialect: Dialect) -> Self {
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

    pub(super) fn refused(&mut self, why: Why) -> Refused {
        let line = if why == Why::Statement { self.statement_line } else { self.line };
        Refused { line, why, what: self.what.take().filter(|what| why == Why::Statement && !what.is_empty()) }
    }

    pub(super) fn push(&mut self, byte: u8) -> Result<(), Why> {
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

    pub(super) fn finish(&mut self) -> Result<(), Why> {
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
        if self.dialect == Dialect::MySql && mysql::CLIENT_WORDS.iter().any(|known| known.as_bytes() == word) {
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

    /// Collects words of plain text, and remembers those that are watched.
    pub(super) fn watch(&mut self, byte: u8) {
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
}
