//! Reads one directory of a node.

use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::PlatformError;

/// Deepest nesting of directories followed.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most entries of one node directory.
pub(crate) const MAX_ENTRIES: usize = 10_000_000;

/// Begins the name of what a restore has set aside, or follows the name of what it was; the recovery point comes after it.
pub const ASIDE: &str = ".before-";
/// The shape of what follows [`ASIDE`] in such a name, as a pattern of the shell: the day of a recovery point.
pub(crate) const ASIDE_POINT: &str = "[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]T[0-9]*";
/// The same for what a restore on hosts writes before it is in its place, and for its journal.
pub const STAGED: &str = ".fabkeep-restore-";

/// Returns whether a name is one that a restore gives to what it sets aside. Others may have names that begin so.
pub fn is_aside(name: &str) -> bool {
    name.match_indices(ASIDE).any(|(at, _)| {
        let rest = &name.as_bytes()[at + ASIDE.len()..];
        rest.len() > 9 && rest[..8].iter().all(u8::is_ascii_digit) && rest[8] == b'T' && rest[9].is_ascii_digit()
    })
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link to this target, as written.
    Symlink(String),
    /// A socket, pipe or device.
    Special,
    /// An entry whose name, or a link whose target, is not UTF-8, or in a pod contains a line break; the path has a replacement character
    /// for those characters.
    Unnamed,
}

/// Data that shows whether a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Status-change time, nanoseconds since 1970.
    pub changed_ns: i128,
    /// Inode.
    pub inode: u64,
}

/// One entry of a directory tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeEntry {
    /// Relative path, `/`-separated; empty for the root itself.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size, times, inode.
    pub stamp: Stamp,
    /// Number of names (hard links) of the file; 0 if unknown.
    pub links: u64,
    /// Whether it has extended attributes or an access control list, other than the system's labels.
    pub attributes: bool,
    /// What it leads to, as a path of this machine, if it is a link out of the directory that was followed: the rest is of its target.
    pub followed: Option<String>,
}

/// A part of a volume that cannot be listed.
#[derive(Debug)]
pub struct Unread {
    /// Its path in the volume.
    pub path: String,
    /// The reason.
    pub source: io::Error,
}

/// A file to copy out of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Its path in the volume.
    pub path: String,
    /// The destination of the copy.
    pub to: PathBuf,
    /// Whether it may be mostly zeros (a preallocated log), so that holes are preserved.
    pub sparse: bool,
}

/// A directory tree that can be read.
pub trait Volume: Send + Sync {
    /// Everything below `path` (empty: the whole tree), sorted by path, `path` itself first. Paths are relative to the volume's root.
    ///
    /// # Errors
    /// [`PlatformError`], the first found.
    fn list(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError>;

    /// Everything that can be listed, as `list("")` returns it, and what cannot.
    ///
    /// # Errors
    /// [`PlatformError`] when that holds for the whole tree.
    fn list_readable(&self) -> Result<(Vec<VolumeEntry>, Vec<Unread>), PlatformError> {
        Ok((self.list("")?, Vec::new()))
    }

    /// Opens a range of a file, in bytes. If the file ends inside the range, the reader ends there.
    ///
    /// # Errors
    /// The system's error.
    fn open(&self, path: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>>;

    /// Returns the parts of a file that may hold something else than zeros, as byte ranges below `len`.
    ///
    /// # Errors
    /// The system's error.
    fn data_ranges(&self, path: &str, len: u64) -> io::Result<Vec<Range<u64>>>;

    /// Returns a path in it as a path of this machine, where it is one: for readers that need random access.
    fn local(&self, path: &str) -> Option<PathBuf>;

    /// Copies files out, one after the other in this order. Returns for each whether it existed.
    ///
    /// # Errors
    /// The system's error.
    fn fetch(&self, files: &[Fetch]) -> io::Result<Vec<bool>>;

    /// Announces which small files will be opened, so that a remote volume can read them in one request.
    ///
    /// # Errors
    /// The system's error.
    fn prefetch(&self, _files: &[(&str, u64)]) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a path of this machine relative to a root; an empty path is the root itself.
pub(crate) fn join(root: &Path, path: &str) -> PathBuf {
    if path.is_empty() { root.to_path_buf() } else { root.join(path) }
}
