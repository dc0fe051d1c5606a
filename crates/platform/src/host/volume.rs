//! Reads directories of this machine.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom as HoleSeek, seek};

use crate::PlatformError;
use crate::volume::{
    ASIDE, EntryKind, Fetch, MAX_DEPTH, MAX_ENTRIES, STAGED, Stamp, Unread, Volume, VolumeEntry, is_aside, join,
};

/// A directory of this machine.
#[derive(Debug, Clone)]
pub struct HostVolume {
    root: PathBuf,
    /// Relative paths inside it that are not part of it.
    excluded: Vec<String>,
    /// Links that lead out of it are part of it.
    follows: bool,
}

/// Returns the file or directory at the end of a link that root or the owner of what it leads to has made: somebody else could lead fabkeep to
/// what is not theirs.
pub fn trusted_link(link: &Path) -> Option<(PathBuf, std::fs::Metadata)> {
    let own = link.symlink_metadata().ok().filter(std::fs::Metadata::is_symlink)?;
    let target = link.canonicalize().ok()?;
    let metadata = target.metadata().ok().filter(|found| found.is_dir() || found.is_file())?;
    (own.uid() == 0 || own.uid() == metadata.uid()).then_some((target, metadata))
}

/// Returns the first name of a path.
fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

impl HostVolume {
    /// Returns a volume over this directory.
    pub fn new(root: PathBuf) -> Self {
        HostVolume { root, excluded: Vec::new(), follows: false }
    }

    /// Returns a volume over this directory without some relative paths inside it: they belong to other nodes.
    pub fn without(root: PathBuf, excluded: Vec<String>) -> Self {
        HostVolume { root, excluded, follows: false }
    }

    /// Returns the same; what links lead to outside of the directory is part of it, as if it lay in the links' places.
    #[must_use]
    pub fn following_links(self) -> Self {
        HostVolume { follows: true, ..self }
    }

    /// Returns what a link leads to outside of the directory: a file, or a directory that the link does not lie in.
    fn outside(&self, link: &Path) -> Option<(PathBuf, std::fs::Metadata)> {
        let (target, metadata) = trusted_link(link).filter(|_| self.follows)?;
        let around = link.parent()?.canonicalize().ok()?;
        let inside = target.starts_with(self.root.canonicalize().ok()?) || around.starts_with(&target);
        (!inside && target.to_str().is_some()).then_some((target, metadata))
    }

    /// Returns whether a path inside belongs to another node, or was set aside or staged beside such a path by a restore.
    fn is_excluded(&self, path: &str) -> bool {
        // What restores leave in the root of a mount point: what they have set aside, and what they were writing.
        let is_left = |name: &str| (name.starts_with(ASIDE) && is_aside(first(name))) || name.starts_with(STAGED);
        // Also where something is mounted inside, and beside a directory inside that is restored by itself.
        if is_left(path.rsplit('/').next().unwrap_or(path)) {
            return true;
        }
        self.excluded.iter().any(|excluded| match path.strip_prefix(excluded.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || is_left(rest),
            None => false,
        })
    }

    /// Returns a path in it as a path of this machine.
    pub fn at(&self, path: &str) -> PathBuf {
        join(&self.root, path)
    }

    fn copy(&self, file: &Fetch) -> io::Result<bool> {
        let from = match File::open(self.at(&file.path)) {
            Ok(from) => from,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if !file.sparse {
            io::copy(&mut &from, &mut File::create(&file.to)?)?;
            return Ok(true);
        }
        let len = from.metadata()?.len();
        let to = File::create(&file.to)?;
        to.set_len(len)?;
        let mut buffer = vec![0; 1 << 20];
        for range in self.data_ranges(&file.path, len)? {
            let mut at = range.start;
            while at < range.end {
                let take = (range.end - at).min(buffer.len() as u64) as usize;
                let read = from.read_at(&mut buffer[..take], at)?;
                if read == 0 {
                    break;
                }
                to.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
        }
        Ok(true)
    }

    /// Lists what is at a path of this machine; `relative`: the same in the volume.
    fn walk(&self, path: &Path, relative: String, depth: usize, found: &mut WalkResult) -> Result<(), PlatformError> {
        let out = &mut found.entries;
        let io = |source| PlatformError::Io { path: path.display().to_string(), source };
        // The root may be a link (an operator's choice); below it links are kept as links, unless they lead out of it.
        let mut metadata = if relative.is_empty() { path.metadata() } else { path.symlink_metadata() }.map_err(io)?;
        let mut followed = None;
        if metadata.is_symlink()
            && let Some((target, of_target)) = self.outside(path)
        {
            metadata = of_target;
            followed = target.to_str().map(str::to_owned);
        }
        let named = path.file_name().is_none_or(|name| name.to_str().is_some());
        let kind = if !relative.is_empty() && !named {
            EntryKind::Unnamed
        } else if metadata.is_dir() {
            EntryKind::Directory
        } else if metadata.is_file() {
            EntryKind::File
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(path).map_err(io)?;
            target.to_str().map_or(EntryKind::Unnamed, |target| EntryKind::Symlink(target.to_owned()))
        } else {
            EntryKind::Special
        };
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let descend = kind == EntryKind::Directory;
        out.push(VolumeEntry {
            path: relative.clone(),
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
            links: metadata.nlink(),
            attributes: has_attributes(path),
            followed,
        });
        if !descend {
            return Ok(());
        }
        if out.len() >= MAX_ENTRIES {
            return Err(io(io::Error::other(format!("it has more than {MAX_ENTRIES} entries"))));
        }
        if depth >= MAX_DEPTH {
            let problem = io::Error::other(format!("it lies more than {MAX_DEPTH} directories deep"));
            return found.unread(relative, depth, io(problem));
        }
        let mut names = Vec::new();
        let listed = match std::fs::read_dir(path) {
            // A file system's own folder for what it finds after a crash: its owner alone may read it, and no node uses it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.ends_with("lost+found") => {
                out.last_mut().into_iter().for_each(|entry| entry.kind = EntryKind::Special);
                return Ok(());
            }
            Err(error) => return found.unread(relative, depth, io(error)),
            Ok(listed) => listed,
        };
        for entry in listed {
            match entry {
                Ok(entry) => names.push(entry.file_name()),
                Err(error) => return found.unread(relative, depth, io(error)),
            }
        }
        names.sort();
        for name in names {
            let shown = name.to_string_lossy();
            let child = if relative.is_empty() { shown.into_owned() } else { format!("{relative}/{shown}") };
            if self.is_excluded(&child) {
                continue;
            }
            match self.walk(&path.join(&name), child.clone(), depth + 1, found) {
                // Gone since it was listed: a running node removes files.
                Err(PlatformError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => found.unread(child, depth + 1, error)?,
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// What a walk has found, and where it may go on behind what cannot be read, that as well.
#[derive(Default)]
struct WalkResult {
    entries: Vec<VolumeEntry>,
    unread: Option<Vec<Unread>>,
}

impl WalkResult {
    /// Takes note of a part that cannot be read; an error where none may be left out, or it is the whole tree.
    fn unread(&mut self, path: String, depth: usize, error: PlatformError) -> Result<(), PlatformError> {
        let full = self.entries.len() >= MAX_ENTRIES;
        match (&mut self.unread, error) {
            (Some(unread), PlatformError::Io { source, .. }) if depth > 0 && !full => {
                unread.push(Unread { path, source });
                Ok(())
            }
            (_, error) => Err(error),
        }
    }
}

/// Names of extended attributes that the system makes by itself, and makes again.
const OF_THE_SYSTEM: [&[u8]; 4] = [b"security.selinux", b"security.ima", b"security.evm", b"trusted.overlay."];

/// Returns whether a file has extended attributes (an access control list is one) that are somebody's own.
fn has_attributes(path: &Path) -> bool {
    let mut names = [0; 4096];
    match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => names[..len]
            .split(|&byte| byte == 0)
            .any(|name| !name.is_empty() && !OF_THE_SYSTEM.iter().any(|own| name.starts_with(own))),
        // More names than the system ever makes.
        Err(rustix::io::Errno::RANGE) => true,
        // The file system has none.
        Err(_) => false,
    }
}

impl Volume for HostVolume {
    fn list(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError> {
        let mut found = WalkResult::default();
        self.walk(&self.at(path), path.to_owned(), 0, &mut found)?;
        Ok(found.entries)
    }

    fn list_readable(&self) -> Result<(Vec<VolumeEntry>, Vec<Unread>), PlatformError> {
        let mut found = WalkResult { unread: Some(Vec::new()), ..WalkResult::default() };
        self.walk(&self.root, String::new(), 0, &mut found)?;
        Ok((found.entries, found.unread.unwrap_or_default()))
    }

    fn open(&self, path: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(self.at(path))?;
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start))?;
        }
        Ok(Box::new(file.take(range.end.saturating_sub(range.start))))
    }

    fn data_ranges(&self, path: &str, len: u64) -> io::Result<Vec<Range<u64>>> {
        let file = File::open(self.at(path))?;
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < len {
            let start = match seek(&file, HoleSeek::Data(at)) {
                Ok(start) => start,
                // Only a hole is left.
                Err(rustix::io::Errno::NXIO) => break,
                // The file system does not report holes: all of it may be data.
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

    fn local(&self, path: &str) -> Option<PathBuf> {
        Some(self.at(path))
    }

    fn fetch(&self, files: &[Fetch]) -> io::Result<Vec<bool>> {
        files.iter().map(|file| self.copy(file)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_listed_is_told_beside_what_can() {
        let folder = tempfile::tempdir().unwrap();
        let deep = (0..MAX_DEPTH + 3).fold(folder.path().join("deep"), |path, _| path.join("d"));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(folder.path().join("file"), "text").unwrap();
        let volume = HostVolume::new(folder.path().to_path_buf());
        let (entries, unread) = volume.list_readable().unwrap();
        assert!(entries.iter().any(|entry| entry.path == "file"));
        assert_eq!(unread.len(), 1);
        assert_eq!(unread[0].path.split('/').count(), MAX_DEPTH);
        assert!(unread[0].source.to_string().contains("64 directories deep"), "{}", unread[0].source);
        assert!(volume.list("").unwrap_err().to_string().contains("64 directories deep"));
        // A name that makes the path longer than the system allows.
        let long = "n".repeat(250);
        let mut at = folder.path().join("long");
        std::fs::create_dir(&at).unwrap();
        let mut within = std::fs::File::open(&at).unwrap();
        for _ in 0..20 {
            rustix::fs::mkdirat(&within, &long, rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
            within = rustix::fs::openat(&within, &long, flags, rustix::fs::Mode::empty()).unwrap().into();
            at.push(&long);
        }
        let (_, unread) = volume.list_readable().unwrap();
        assert_eq!(unread.len(), 2, "{unread:?}");
        assert!(unread.iter().any(|part| part.path.starts_with("long/n")));
        // The whole tree is no part.
        assert!(HostVolume::new(folder.path().join("none")).list_readable().is_err());
    }
}
