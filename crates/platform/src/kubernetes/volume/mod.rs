//! Reads a directory in a container by commands. Broken streams are reopened after the last verified byte.

pub mod fill;
pub mod helper;
pub(crate) mod helper_pod;
mod listing;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::PlatformError;
use crate::kubernetes::connection::Connection;
use crate::kubernetes::connection::answer::Item;
use crate::kubernetes::connection::exec::ContainerRef;
use crate::kubernetes::connection::shell::{self, Shell};
use crate::volume::{Fetch, Volume, VolumeEntry};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use parking_lot::Mutex;

/// How often a stream is opened again without having moved on.
const RETRIES: usize = 12;
/// How often what came wrong, or could not be read in the container, is read again.
const REREADS: u32 = 3;
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
    place: ContainerRef,
    root: String,
    excluded: Vec<String>,
    ahead: Mutex<HashMap<String, Arc<[u8]>>>,
    /// What was in it when it was looked for.
    listed: Mutex<Option<Vec<VolumeEntry>>>,
}

/// Tries again what may go better: with pauses, and anew whenever it moved on.
pub(crate) struct RetryBudget {
    pauses: ExponentialBackoff,
    rereads_left: u32,
}

impl RetryBudget {
    pub fn new() -> Self {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(250))
            .with_max_delay(MAX_PAUSE)
            .with_max_times(RETRIES);
        RetryBudget { pauses: pauses.build(), rereads_left: REREADS }
    }

    /// It moved on: all budget is back.
    pub fn renew(&mut self) {
        *self = RetryBudget::new();
    }

    /// Waits before another try; the error when there were enough.
    pub fn wait(&mut self, error: io::Error) -> io::Result<()> {
        let final_kinds = [
            io::ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::FileTooLarge,
            io::ErrorKind::HostUnreachable,
        ];
        if final_kinds.contains(&error.kind()) {
            return Err(error);
        }
        if error.kind() == io::ErrorKind::InvalidData {
            if self.rereads_left == 0 {
                return Err(error);
            }
            self.rereads_left -= 1;
        }
        let Some(pause) = self.pauses.next() else { return Err(error) };
        std::thread::sleep(pause);
        Ok(())
    }
}

/// Runs something until it succeeds or budget ends.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut budget = RetryBudget::new();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => budget.wait(error)?,
        }
    }
}

impl PodVolume {
    pub fn new(connection: Arc<Connection>, place: ContainerRef, root: String, excluded: Vec<String>) -> Self {
        let mut excluded = excluded;
        // A file system of its own brings it, and only root may look inside.
        excluded.push("lost+found".to_owned());
        excluded.push(fill::MARKER.to_owned());
        PodVolume { connection, place, root, excluded, ahead: Mutex::default(), listed: Mutex::default() }
    }

    /// Lists it, which shows whether it exists; the first to ask for everything in it gets this answer.
    pub fn look(&self) -> Result<bool, PlatformError> {
        let entries = self.list_now("")?;
        let there = !entries.is_empty();
        *self.listed.lock() = Some(entries);
        Ok(there)
    }

    fn range(&self, path: &str, range: Range<u64>) -> Box<dyn Read + Send> {
        Box::new(RangeReader {
            connection: Arc::clone(&self.connection),
            place: self.place.clone(),
            path: self.file(path),
            range,
            open: None,
            piece: Cursor::new(Vec::new()),
            budget: RetryBudget::new(),
        })
    }

    fn file(&self, path: &str) -> String {
        if path.is_empty() { self.root.clone() } else { format!("{}/{path}", self.root) }
    }

    fn list_now(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError> {
        let command = shell::list(&self.root, path, &self.excluded);
        let listed = patiently(|| {
            let mut shell = self.connection.command(&self.place, &command)?;
            match listing::read(shell.answer()) {
                Ok(entries) => {
                    shell.keep(&self.connection);
                    Ok(entries)
                }
                Err(error) => Err(shell.why(error)),
            }
        });
        listed.map_err(|source| PlatformError::Io { path: format!("{} {}", self.place, self.file(path)), source })
    }

    /// One command for many files, from the first that is not done on: how many it did.
    fn read_many(
        &self,
        files: &[Fetch],
        take: &mut dyn FnMut(usize, FileAnswer<'_>) -> io::Result<()>,
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
                    _ if position == 0 => Err(shell.why(error)),
                    _ => Ok(position),
                };
            }
        }
        shell.answer().end()?;
        shell.keep(&self.connection);
        Ok(count)
    }

    fn read_all_of(
        &self,
        files: &[Fetch],
        take: &mut dyn FnMut(usize, FileAnswer<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        let mut budget = RetryBudget::new();
        while done < files.len() {
            match self.read_many(&files[done..], &mut |position, found| take(done + position, found)) {
                Ok(more) => {
                    done += more;
                    budget.renew();
                }
                Err(error) => budget.wait(error)?,
            }
        }
        Ok(())
    }
}

/// What a command said of one file.
enum FileAnswer<'a> {
    Missing,
    Bytes(u64, &'a mut dyn Read),
}

fn read_one(out: &mut Shell, file: &Fetch, take: &mut dyn FnMut(FileAnswer<'_>) -> io::Result<()>) -> io::Result<()> {
    let other = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", file.path));
    let Item::Word(head) = out.answer().next()? else { return Err(other("the answer has an unexpected form")) };
    match head.as_str() {
        "-" => return take(FileAnswer::Missing),
        "!" => {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{}: the container's user may not read it", file.path),
            ));
        }
        _ => {}
    }
    // Its length, and how much of it comes; the others are zeros.
    let numbers = head.strip_prefix('=').and_then(|numbers| numbers.split_once(' '));
    let numbers = numbers.and_then(|(len, sent)| Some((len.parse::<u64>().ok()?, sent.parse::<u64>().ok()?)));
    let (len, sent) = numbers.ok_or_else(|| other("the answer has an unexpected form"))?;
    let mut pieces = Pieces { shell: out, left: sent, piece: Cursor::new(Vec::new()) };
    take(FileAnswer::Bytes(len, &mut pieces))?;
    io::copy(&mut pieces, &mut io::sink())?;
    Ok(())
}

/// A file's pieces, each verified before any byte of it is handed on.
struct Pieces<'a> {
    shell: &'a mut Shell,
    left: u64,
    piece: Cursor<Vec<u8>>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.position() == self.piece.get_ref().len() as u64 && self.left > 0 {
            self.piece = Cursor::new(next_piece(self.shell, self.left)?);
            self.left -= self.piece.get_ref().len() as u64;
        }
        self.piece.read(buffer)
    }
}

/// Returns the next verified piece, of which at most so many bytes are expected.
fn next_piece(shell: &mut Shell, left: u64) -> io::Result<Vec<u8>> {
    let piece = shell.answer().bytes("data")?;
    if piece.is_empty() || piece.len() as u64 > left {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a piece has an unexpected length"));
    }
    Ok(piece)
}

impl Volume for PodVolume {
    fn list(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError> {
        let listed = self.listed.lock().take();
        match listed.filter(|_| path.is_empty()) {
            Some(entries) => Ok(entries),
            None => self.list_now(path),
        }
    }

    fn open(&self, path: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        let ahead = self.ahead.lock().get(path).cloned();
        if let Some(bytes) = ahead {
            let from = usize::try_from(range.start).unwrap_or(usize::MAX).min(bytes.len());
            let to = usize::try_from(range.end).unwrap_or(usize::MAX).clamp(from, bytes.len());
            let mut reader = Cursor::new(bytes);
            reader.set_position(from as u64);
            return Ok(Box::new(reader.take((to - from) as u64)));
        }
        Ok(self.range(path, range))
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
            if let FileAnswer::Bytes(len, bytes) = found {
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
            let ahead = self.ahead.lock();
            for (path, size) in files {
                if *size <= room && !ahead.contains_key(*path) {
                    room -= size;
                    wanted.push(Fetch { path: (*path).to_owned(), to: PathBuf::new(), sparse: false });
                }
            }
        }
        self.read_all_of(&wanted, &mut |position, found| {
            if let FileAnswer::Bytes(len, bytes) = found {
                let mut held = Vec::new();
                bytes.take(len.min(MAX_AHEAD_BYTES)).read_to_end(&mut held)?;
                let mut ahead = self.ahead.lock();
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

/// A range of a file as a stream that is opened again after the last piece that was verified.
struct RangeReader {
    connection: Arc<Connection>,
    place: ContainerRef,
    path: String,
    /// What is still to come, after the piece.
    range: Range<u64>,
    open: Option<Shell>,
    /// Verified bytes that were not handed on yet.
    piece: Cursor<Vec<u8>>,
    budget: RetryBudget,
}

impl RangeReader {
    fn next_piece(&mut self) -> io::Result<Vec<u8>> {
        let left = self.range.end - self.range.start;
        let mut shell = match self.open.take() {
            Some(open) => open,
            None => self.connection.command(&self.place, &shell::range(&self.path, self.range.start, left))?,
        };
        let piece = match next_piece(&mut shell, left) {
            Ok(piece) => piece,
            Err(error) => return Err(shell.why(error)),
        };
        if piece.len() as u64 == left {
            shell.answer().end()?;
            shell.keep(&self.connection);
        } else {
            self.open = Some(shell);
        }
        Ok(piece)
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.position() == self.piece.get_ref().len() as u64 && !self.range.is_empty() {
            match self.next_piece() {
                Ok(piece) => {
                    self.range.start += piece.len() as u64;
                    self.piece = Cursor::new(piece);
                    self.budget.renew();
                }
                Err(error) => self.budget.wait(error)?,
            }
        }
        self.piece.read(buffer)
    }
}
