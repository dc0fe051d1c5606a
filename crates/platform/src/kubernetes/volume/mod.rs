//! A directory in a container, read by commands there. Streams that break are opened again where they broke.

pub mod fill;
pub mod helper;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;

use crate::PlatformError;
use crate::kubernetes::connection::Connection;
use crate::kubernetes::connection::exec::Place;
use crate::kubernetes::connection::shell::{self, Shell, line};
use crate::volume::{EntryKind, Fetch, MAX_ENTRIES, Stamp, Volume, VolumeEntry};

/// How often a stream is opened again without having moved on.
const RETRIES: u32 = 12;
/// The longest pause before that.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Most bytes of small files that are read ahead, for one volume.
const MAX_AHEAD_BYTES: u64 = 32 << 20;
/// Most files of one command, and most bytes of their names: they are written before anything is read.
const MAX_BATCH: usize = 2_000;
const MAX_BATCH_BYTES: usize = 256 << 10;
/// Piece of a file written at a time.
const PIECE_BYTES: usize = 64 << 10;

/// A directory in a container.
pub(crate) struct PodVolume {
    connection: Arc<Connection>,
    place: Place,
    root: String,
    excluded: Vec<String>,
    ahead: Mutex<HashMap<String, Arc<[u8]>>>,
    /// What was in it when it was looked for.
    listed: Mutex<Option<Vec<VolumeEntry>>>,
}

/// Tries again what may go better: with pauses, and anew whenever it moved on.
pub(crate) struct Patience {
    left: u32,
    pause: Duration,
}

impl Patience {
    pub fn new() -> Self {
        Patience { left: RETRIES, pause: Duration::from_millis(250) }
    }

    /// It moved on: all patience is back.
    pub fn renew(&mut self) {
        *self = Patience::new();
    }

    /// Waits before another try; the error when there were enough.
    pub fn wait(&mut self, error: io::Error) -> io::Result<()> {
        let final_kinds = [
            io::ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidData,
            io::ErrorKind::FileTooLarge,
            io::ErrorKind::HostUnreachable,
        ];
        let passing = !final_kinds.contains(&error.kind());
        if self.left == 0 || !passing {
            return Err(error);
        }
        self.left -= 1;
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        Ok(())
    }
}

/// Runs something until it succeeds or patience ends.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut patience = Patience::new();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => patience.wait(error)?,
        }
    }
}

impl PodVolume {
    pub fn new(connection: Arc<Connection>, place: Place, root: String, excluded: Vec<String>) -> Self {
        let mut excluded = excluded;
        // A file system of its own brings it, and only root may look inside.
        excluded.push("lost+found".to_owned());
        excluded.push(fill::MARKER.to_owned());
        PodVolume { connection, place, root, excluded, ahead: Mutex::default(), listed: Mutex::default() }
    }

    /// Lists it, which tells whether it is there; the first to ask for everything in it gets this answer.
    pub fn look(&self) -> Result<bool, PlatformError> {
        let entries = self.list_now("")?;
        let there = !entries.is_empty();
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(entries);
        Ok(there)
    }

    fn range(&self, path: &str, range: Range<u64>, proven: bool) -> Box<dyn Read + Send> {
        Box::new(RangeReader {
            connection: Arc::clone(&self.connection),
            place: self.place.clone(),
            path: self.file(path),
            range,
            proven,
            open: None,
            patience: Patience::new(),
        })
    }

    fn file(&self, path: &str) -> String {
        if path.is_empty() { self.root.clone() } else { format!("{}/{path}", self.root) }
    }

    fn list_now(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError> {
        let command = shell::list(&self.root, path, &self.excluded);
        let io = |source| PlatformError::Io { path: format!("{} {}", self.place, self.file(path)), source };
        patiently(|| {
            let mut shell = self.connection.command(&self.place, &command)?;
            let mut entries = Vec::new();
            match parse_list(&mut shell, &mut entries) {
                Ok(()) => {
                    shell.done(&self.connection)?;
                    Ok(Ok(entries))
                }
                Err(ListError::Platform(error)) => Ok(Err(error)),
                Err(ListError::Io(error)) => Err(shell.end().err().unwrap_or(error)),
            }
        })
        .map_err(io)?
        .map(|mut entries| {
            entries.sort_by(|a: &VolumeEntry, b| a.path.split('/').cmp(b.path.split('/')));
            entries
        })
    }

    /// One command for many files, from the first that is not done on: how many it did.
    fn read_many(
        &self,
        files: &[Fetch],
        take: &mut dyn FnMut(usize, Found<'_>) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut names = String::new();
        let mut count = 0;
        for file in files.iter().take(MAX_BATCH) {
            if count > 0 && names.len() + file.path.len() > MAX_BATCH_BYTES {
                break;
            }
            names.push_str(if file.sparse { "z " } else { "p " });
            names.push_str(if file.path.is_empty() { "." } else { &file.path });
            names.push('\n');
            count += 1;
        }
        names.push_str(".\n");
        let mut shell = self.connection.command(&self.place, &shell::many(&self.root))?;
        shell.write(names.as_bytes())?;
        for (position, file) in files[..count].iter().enumerate() {
            if let Err(error) = read_one(&mut shell, file, &mut |found| take(position, found)) {
                return match error.kind() {
                    io::ErrorKind::PermissionDenied => Err(error),
                    io::ErrorKind::UnexpectedEof if position == 0 => Err(shell.end().err().unwrap_or(error)),
                    _ if position == 0 => Err(error),
                    _ => Ok(position),
                };
            }
        }
        shell.done(&self.connection)?;
        Ok(count)
    }

    fn read_all_of(&self, files: &[Fetch], take: &mut dyn FnMut(usize, Found<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut done = 0;
        let mut patience = Patience::new();
        while done < files.len() {
            match self.read_many(&files[done..], &mut |position, found| take(done + position, found)) {
                Ok(more) => {
                    done += more;
                    patience.renew();
                }
                Err(error) => patience.wait(error)?,
            }
        }
        Ok(())
    }
}

/// What a command said of one file.
enum Found<'a> {
    Missing,
    Bytes(u64, &'a mut dyn Read),
}

fn read_one(out: &mut Shell, file: &Fetch, take: &mut dyn FnMut(Found<'_>) -> io::Result<()>) -> io::Result<()> {
    let head = line(out)?;
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| io::Error::other("the stream is out of step"));
    let (len, sent) = match head.as_str() {
        "-" => return take(Found::Missing),
        "!" => {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{}: the container's user may not read it", file.path),
            ));
        }
        // Its length, and how much of it comes; the others are zeros.
        numbers => match numbers.strip_prefix('z').unwrap_or(numbers).split_once(' ') {
            Some((len, sent)) => (number(len)?, number(sent)?),
            None => (number(numbers)?, number(numbers)?),
        },
    };
    let mut hashed = Hashed { inner: (&mut *out).take(sent), hash: Some(digest::Context::new(&digest::SHA256)) };
    take(Found::Bytes(len, &mut hashed))?;
    io::copy(&mut hashed, &mut io::sink())?;
    if hashed.inner.limit() > 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended inside a file"));
    }
    let hash = hashed.hash.take();
    check_end(&line(out)?, hash)
}

/// The line behind a file's bytes: their SHA-256, or, where the reader proves them itself, a word that all of them came.
fn check_end(line: &str, hash: Option<digest::Context>) -> io::Result<()> {
    let expected = hash.map_or_else(|| "proven".to_owned(), |hash| hex::encode(hash.finish()));
    if line.split(' ').next() == Some(expected.as_str()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the bytes that came are not those that were sent (SHA-256)"))
}

struct Hashed<R> {
    inner: R,
    hash: Option<digest::Context>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..read]);
        }
        Ok(read)
    }
}

impl Volume for PodVolume {
    fn list(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match listed.filter(|_| path.is_empty()) {
            Some(entries) => Ok(entries),
            None => self.list_now(path),
        }
    }

    fn open(&self, path: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(bytes) = ahead {
            let from = usize::try_from(range.start).unwrap_or(usize::MAX).min(bytes.len());
            let to = usize::try_from(range.end).unwrap_or(usize::MAX).clamp(from, bytes.len());
            let mut reader = Cursor::new(bytes);
            reader.set_position(from as u64);
            return Ok(Box::new(reader.take((to - from) as u64)));
        }
        Ok(self.range(path, range, false))
    }

    fn open_proven(&self, path: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        Ok(self.range(path, range, true))
    }

    fn data_ranges(&self, _: &str, len: u64) -> io::Result<Vec<Range<u64>>> {
        Ok(if len == 0 { Vec::new() } else { std::iter::once(0..len).collect() })
    }

    fn local(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn fetch(&self, files: &[Fetch]) -> io::Result<Vec<bool>> {
        let mut there = vec![false; files.len()];
        self.read_all_of(files, &mut |position, found| {
            if let Found::Bytes(len, bytes) = found {
                there[position] = true;
                write_sparsely(&files[position], len, bytes)?;
            }
            Ok(())
        })?;
        Ok(there)
    }

    fn prefetch(&self, files: &[(&str, u64)]) -> io::Result<()> {
        let mut room = MAX_AHEAD_BYTES;
        let mut wanted = Vec::new();
        {
            let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            for (path, size) in files {
                if *size <= room && !ahead.contains_key(*path) {
                    room -= size;
                    wanted.push(Fetch { path: (*path).to_owned(), to: PathBuf::new(), sparse: false });
                }
            }
        }
        self.read_all_of(&wanted, &mut |position, found| {
            if let Found::Bytes(len, bytes) = found {
                let mut held = Vec::new();
                bytes.take(len.min(MAX_AHEAD_BYTES)).read_to_end(&mut held)?;
                let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
                ahead.insert(wanted[position].path.clone(), held.into());
            }
            Ok(())
        })
    }
}

fn write_sparsely(file: &Fetch, len: u64, bytes: &mut dyn Read) -> io::Result<()> {
    let mut to = File::options().write(true).create(true).truncate(true).mode(0o600).open(&file.to)?;
    if !file.sparse {
        io::copy(bytes, &mut to)?;
        return to.flush();
    }
    to.set_len(len)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match bytes.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        if buffer[..filled].iter().any(|&byte| byte != 0) {
            to.write_all_at(&buffer[..filled], at)?;
        }
        at += filled as u64;
    }
}

enum ListError {
    Io(io::Error),
    Platform(PlatformError),
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        ListError::Io(error)
    }
}

fn parse_list(from: &mut impl BufRead, entries: &mut Vec<VolumeEntry>) -> Result<(), ListError> {
    loop {
        let text = line(from)?;
        match text.as_str() {
            "links" => break,
            "missing" => return Ok(()),
            _ => {}
        }
        let entry = parse_entry(&text)
            .ok_or_else(|| ListError::Platform(PlatformError::Name { path: text.chars().take(200).collect() }))?;
        entries.push(entry);
        if entries.len() > MAX_ENTRIES {
            return Err(ListError::Io(io::Error::other(format!("more than {MAX_ENTRIES} entries"))));
        }
    }
    let position: HashMap<String, usize> =
        entries.iter().enumerate().map(|(position, entry)| (entry.path.clone(), position)).collect();
    loop {
        let path = line(from)?;
        if path == "end" {
            break;
        }
        let target = line(from)?;
        if let Some(&at) = position.get(relative(&path)) {
            entries[at].kind = EntryKind::Symlink(target);
        }
    }
    Ok(())
}

fn relative(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(if path == "." { "" } else { path })
}

/// `mode(hex) uid gid size inode modified|changed|./path`
fn parse_entry(line: &str) -> Option<VolumeEntry> {
    let (head, rest) = line.split_once('|')?;
    let (changed, path) = rest.split_once('|')?;
    let mut words = head.splitn(6, ' ');
    let mode = u32::from_str_radix(words.next()?, 16).ok()?;
    let uid = words.next()?.parse().ok()?;
    let gid = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let inode = words.next()?.parse().ok()?;
    let modified_ns = nanoseconds(words.next()?)?;
    if path != "." && !path.starts_with("./") {
        return None;
    }
    let kind = match mode & 0o170_000 {
        0o040_000 => EntryKind::Directory,
        0o100_000 => EntryKind::File,
        0o120_000 => EntryKind::Symlink(String::new()),
        _ => EntryKind::Special,
    };
    Some(VolumeEntry {
        path: relative(path).to_owned(),
        kind,
        mode: mode & 0o7777,
        uid,
        gid,
        stamp: Stamp { size, modified_ns, changed_ns: nanoseconds(changed)?, inode },
    })
}

/// `2026-11-23 20:12:01.070885850 +0000`, as `stat` writes it under UTC.
fn nanoseconds(text: &str) -> Option<i128> {
    let (date, rest) = text.split_once(' ')?;
    let time = rest.split(' ').next()?;
    let stamp: jiff::Timestamp = format!("{date}T{time}Z").parse().ok()?;
    Some(stamp.as_nanosecond())
}

/// A range of a file as a stream that is opened again where it broke.
struct RangeReader {
    connection: Arc<Connection>,
    place: Place,
    path: String,
    /// What is still to come.
    range: Range<u64>,
    /// The reader proves the bytes itself.
    proven: bool,
    open: Option<Hashed<Shell>>,
    patience: Patience,
}

impl RangeReader {
    fn attempt(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end - self.range.start;
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let command = shell::range(&self.path, self.range.start, left, self.proven);
                let inner = self.connection.command(&self.place, &command)?;
                let hash = (!self.proven).then(|| digest::Context::new(&digest::SHA256));
                self.open.insert(Hashed { inner, hash })
            }
        };
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = open.read(&mut buffer[..take])?;
        if read == 0 {
            let ended = self.open.take().map_or(Ok(()), |open| open.inner.end());
            return Err(ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
        }
        self.range.start += read as u64;
        if self.range.start == self.range.end
            && let Some(mut open) = self.open.take()
        {
            let hash = open.hash.take();
            check_end(&open.inner.line()?, hash)?;
            open.inner.done(&self.connection)?;
        }
        Ok(read)
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.range.is_empty() || buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let before = self.range.start;
            match self.attempt(buffer) {
                Ok(read) => {
                    self.patience.renew();
                    return Ok(read);
                }
                // The last bytes' status was lost: nobody has seen them yet.
                Err(error) => {
                    self.range.start = before;
                    self.open = None;
                    self.patience.wait(error)?;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_as_stat_writes_it_and_a_line_that_is_none_is_refused() {
        let text = "41ed 0 0 4096 12 2026-11-23 20:12:01.070885850 +0000|2026-11-23 20:12:01.1 +0000|.\n\
                    81a4 7051 7051 3 13 2026-11-23 20:12:01.070885850 +0000|2026-11-23 20:12:01.1 +0000|./a b|c\n\
                    a1ff 0 0 1 14 2026-11-23 20:12:01.000000000 +0000|2026-11-23 20:12:01.1 +0000|./link\n\
                    links\n./link\na b|c\nend\n";
        let mut entries = Vec::new();
        assert!(parse_list(&mut text.as_bytes(), &mut entries).is_ok());
        assert_eq!(entries[0].kind, EntryKind::Directory);
        assert_eq!((entries[1].path.as_str(), entries[1].mode, entries[1].uid), ("a b|c", 0o644, 7051));
        assert_eq!(entries[1].stamp.modified_ns % 1_000_000_000, 70_885_850);
        assert_eq!(entries[2].kind, EntryKind::Symlink("a b|c".to_owned()));
        // A name with a line break in it falls into two lines.
        let broken = "81a4 0 0 3 13 2026-11-23 20:12:01.0 +0000|2026-11-23 20:12:01.1 +0000|./a\nb\nlinks\nend\n";
        assert!(matches!(parse_list(&mut broken.as_bytes(), &mut Vec::new()), Err(ListError::Platform(_))));
        // A stream that was cut is no listing.
        let cut = &text[..text.len() - 5];
        assert!(matches!(parse_list(&mut cut.as_bytes(), &mut Vec::new()), Err(ListError::Io(_))));
    }
}
