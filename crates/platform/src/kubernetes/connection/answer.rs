//! The format of everything that is read from containers: items, each preceded by its length and followed by its SHA-256.
//!
//! ```text
//! +NAME LENGTH    LENGTH bytes follow, then a line that begins with their SHA-256
//! WORD            a line of its own, as `-`, `!` or `=LENGTH SENT`
//! .               the answer is complete
//! ```
//!
//! Bytes are passed on only after the length and hash of their item were verified. An answer without its last line is incomplete.

use std::io::{self, BufRead, Read};

use aws_lc_rs::digest;

/// The line after the last item.
pub(crate) const END: &str = ".";
/// Longest line.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// Longest item, in bytes.
const MAX_ITEM_BYTES: u64 = 64 << 20;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Bytes under a name, their length and hash checked.
    Bytes(String, Vec<u8>),
    /// A line.
    Word(String),
    /// The answer is complete.
    End,
}

/// Reads answers from a stream.
pub(crate) struct Answer<R> {
    from: R,
}

fn out_of_step(line: &str) -> io::Error {
    let begin: String = line.chars().take(40).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has an unexpected form: {begin:?}"))
}

impl<R: BufRead> Answer<R> {
    pub fn new(from: R) -> Self {
        Answer { from }
    }

    pub fn get_mut(&mut self) -> &mut R {
        &mut self.from
    }

    pub fn into_inner(self) -> R {
        self.from
    }

    /// Returns the next line, without its end.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.from).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended inside a line"));
        }
        String::from_utf8(line).map_err(|_| out_of_step("bytes that are not text"))
    }

    /// Returns the next item.
    pub fn next(&mut self) -> io::Result<Item> {
        let line = self.line()?;
        if line == END {
            return Ok(Item::End);
        }
        let Some(head) = line.strip_prefix('+') else { return Ok(Item::Word(line)) };
        let (name, len) = head.split_once(' ').ok_or_else(|| out_of_step(&line))?;
        let len: u64 = len.parse().ok().filter(|&len| len <= MAX_ITEM_BYTES).ok_or_else(|| out_of_step(&line))?;
        let mut bytes = Vec::new();
        (&mut self.from).take(len).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended inside an item"));
        }
        let hash = hex::encode(digest::digest(&digest::SHA256, &bytes));
        if self.line()?.split(' ').next() != Some(hash.as_str()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the received bytes are not those that were sent (SHA-256)",
            ));
        }
        Ok(Item::Bytes(name.to_owned(), bytes))
    }

    /// Returns the next item, which must be bytes under this name.
    pub fn bytes(&mut self, name: &str) -> io::Result<Vec<u8>> {
        match self.next()? {
            Item::Bytes(found, bytes) if found == name => Ok(bytes),
            Item::Bytes(found, _) => Err(out_of_step(&found)),
            Item::Word(word) => Err(out_of_step(&word)),
            Item::End => Err(out_of_step(END)),
        }
    }

    /// The answer is complete.
    pub fn end(&mut self) -> io::Result<()> {
        match self.next()? {
            Item::End => Ok(()),
            Item::Word(word) => Err(out_of_step(&word)),
            Item::Bytes(name, _) => Err(out_of_step(&name)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `hello` as an item.
    const HELLO: &str = "+data 5\nhello2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  -\n.\n";

    #[test]
    fn an_item_is_handed_on_only_with_its_length_and_hash() {
        let mut answer = Answer::new(HELLO.as_bytes());
        assert_eq!(answer.bytes("data").unwrap(), b"hello");
        assert!(answer.end().is_ok());
        // Cut anywhere: no item, or no end.
        for cut in 0..HELLO.len() {
            let mut answer = Answer::new(&HELLO.as_bytes()[..cut]);
            let result = answer.bytes("data").and_then(|_| answer.end());
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        // One byte differs anywhere: no item, or no end.
        for at in 0..HELLO.len() {
            let mut bytes = HELLO.as_bytes().to_vec();
            bytes[at] ^= 1;
            let mut answer = Answer::new(bytes.as_slice());
            let whole = answer.bytes("data").is_ok_and(|bytes| bytes == b"hello") && answer.end().is_ok();
            // What follows the hash on its line is not looked at.
            assert!(!whole || (77..80).contains(&at), "{at}");
        }
        // An item that would fill the memory is refused before anything is read.
        assert!(Answer::new("+data 99999999999999\n".as_bytes()).next().is_err());
    }
}
