//! Reading one directory of a node.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, SeekFrom as HoleSeek, flock, seek};

use crate::PlatformError;

/// Deepest nesting of directories followed.
const MAX_DEPTH: usize = 64;
/// Most entries of one node directory.
const MAX_ENTRIES: usize = 10_000_000;

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
}

/// What tells whether a file changed.
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
}

/// A directory tree that can be read.
pub trait Volume: Send + Sync {
    /// Everything in it, sorted by path, the root first.
    ///
    /// # Errors
    /// [`PlatformError`], the first found.
    fn list(&self) -> Result<Vec<VolumeEntry>, PlatformError>;

    /// Opens a file at an offset in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &str, offset: u64) -> io::Result<Box<dyn Read + Send>>;

    /// The parts of a file that may hold something else than zeros, as byte ranges below `len`.
    ///
    /// # Errors
    /// What the system says.
    fn data_ranges(&self, path: &str, len: u64) -> io::Result<Vec<Range<u64>>>;

    /// A path in it as a path of this machine, for readers that need random access.
    fn local(&self, path: &str) -> PathBuf;

    /// Whether a process holds a lock on the file (as LevelDB and etcd's WAL do while their node runs).
    fn is_locked(&self, path: &str) -> bool;
}

/// A directory of this machine.
#[derive(Debug, Clone)]
pub struct HostVolume {
    root: PathBuf,
}

impl HostVolume {
    /// A volume over this directory.
    pub fn new(root: PathBuf) -> Self {
        HostVolume { root }
    }

    fn walk(&self, relative: &str, depth: usize, out: &mut Vec<VolumeEntry>) -> Result<(), PlatformError> {
        let path = self.local(relative);
        let io = |source| PlatformError::Io { path: path.display().to_string(), source };
        // The root may be a link (an operator's choice); below it links are kept as links.
        let metadata = if relative.is_empty() { path.metadata() } else { path.symlink_metadata() }.map_err(io)?;
        let kind = if metadata.is_dir() {
            EntryKind::Directory
        } else if metadata.is_file() {
            EntryKind::File
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(&path).map_err(io)?;
            EntryKind::Symlink(utf8(&target)?)
        } else {
            EntryKind::Special
        };
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let descend = kind == EntryKind::Directory;
        out.push(VolumeEntry {
            path: relative.to_owned(),
            kind,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            stamp: Stamp {
                size: metadata.size(),
                modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
                changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
                inode: metadata.ino(),
            },
        });
        if !descend {
            return Ok(());
        }
        if depth >= MAX_DEPTH || out.len() >= MAX_ENTRIES {
            return Err(io(io::Error::other(format!(
                "deeper than {MAX_DEPTH} directories or more than {MAX_ENTRIES} entries"
            ))));
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(io)? {
            names.push(utf8(Path::new(&entry.map_err(io)?.file_name()))?);
        }
        names.sort();
        for name in names {
            let child = if relative.is_empty() { name } else { format!("{relative}/{name}") };
            match self.walk(&child, depth + 1, out) {
                // Gone since it was listed: a running node removes files.
                Err(PlatformError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn utf8(path: &Path) -> Result<String, PlatformError> {
    path.to_str().map(str::to_owned).ok_or_else(|| PlatformError::Name { path: path.display().to_string() })
}

impl Volume for HostVolume {
    fn list(&self) -> Result<Vec<VolumeEntry>, PlatformError> {
        let mut out = Vec::new();
        self.walk("", 0, &mut out)?;
        Ok(out)
    }

    fn open(&self, path: &str, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(self.local(path))?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        Ok(Box::new(file))
    }

    fn data_ranges(&self, path: &str, len: u64) -> io::Result<Vec<Range<u64>>> {
        let file = File::open(self.local(path))?;
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < len {
            let start = match seek(&file, HoleSeek::Data(at)) {
                Ok(start) => start,
                // Only a hole is left.
                Err(rustix::io::Errno::NXIO) => break,
                // The file system does not tell: all of it may be data.
                Err(rustix::io::Errno::INVAL) => {
                    ranges.push(at..len);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let end = seek(&file, HoleSeek::Hole(start))?;
            if start >= len {
                break;
            }
            ranges.push(start..end.min(len));
            at = end;
        }
        Ok(ranges)
    }

    fn local(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn is_locked(&self, path: &str) -> bool {
        let Ok(file) = File::open(self.local(path)) else { return false };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                // Given back at once; closing would do it too.
                flock(&file, FlockOperation::Unlock).is_err()
            }
            Err(error) => error == rustix::io::Errno::WOULDBLOCK,
        }
    }
}
