//! A container's directory that consists of Secrets and ConfigMaps, assembled in memory from the API.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::PlatformError;
use crate::volume::{EntryKind, Fetch, Stamp, Volume, VolumeEntry};

/// Files by relative path: their bytes and permission bits.
pub(crate) type MountedFiles = BTreeMap<String, (Arc<[u8]>, u32)>;

/// A directory made of Secrets and ConfigMaps.
pub(crate) struct MountedVolume {
    files: MountedFiles,
}

impl MountedVolume {
    pub fn new(files: MountedFiles) -> Self {
        MountedVolume { files }
    }
}

fn entry(path: &str, kind: EntryKind, mode: u32, size: u64) -> VolumeEntry {
    let stamp = Stamp { size, modified_ns: 0, changed_ns: 0, inode: 0 };
    VolumeEntry {
        path: path.to_owned(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        stamp,
        links: 1,
        attributes: false,
        followed: None,
    }
}

impl Volume for MountedVolume {
    fn list(&self, path: &str) -> Result<Vec<VolumeEntry>, PlatformError> {
        let mut entries: BTreeMap<Vec<&str>, VolumeEntry> = BTreeMap::new();
        for (file, (bytes, mode)) in &self.files {
            let parts: Vec<&str> = file.split('/').collect();
            for depth in 0..parts.len() {
                let folder = parts[..depth].join("/");
                entries.insert(parts[..depth].to_vec(), entry(&folder, EntryKind::Directory, 0o755, 0));
            }
            entries.insert(parts, entry(file, EntryKind::File, *mode, bytes.len() as u64));
        }
        let inside = |found: &VolumeEntry| {
            path.is_empty()
                || found.path == path
                || found.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        };
        Ok(entries.into_values().filter(inside).collect())
    }

    fn open(&self, path: &str, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        let (bytes, _) = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        let mut reader = Cursor::new(Arc::clone(bytes));
        reader.set_position(range.start);
        Ok(Box::new(reader.take(range.end.saturating_sub(range.start))))
    }

    fn data_ranges(&self, _: &str, len: u64) -> io::Result<Vec<Range<u64>>> {
        Ok(if len == 0 { Vec::new() } else { std::iter::once(0..len).collect() })
    }

    fn local(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn fetch(&self, files: &[Fetch]) -> io::Result<Vec<bool>> {
        files
            .iter()
            .map(|file| match self.files.get(&file.path) {
                Some((bytes, _)) => std::fs::write(&file.to, bytes).map(|()| true),
                None => Ok(false),
            })
            .collect()
    }
}
