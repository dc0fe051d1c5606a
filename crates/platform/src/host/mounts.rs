//! The mounts of this machine. A mount point cannot be renamed, and nothing can be renamed into it or out of it, even if it shows the same
//! file system as its parent.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::PlatformError;

/// Where Linux lists the mounts that this process sees.
const MOUNTINFO: &str = "/proc/self/mountinfo";
/// File systems that other machines may write to at the same time.
const SHARED: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "ocfs2", "gfs2"];

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub point: PathBuf,
    /// Nothing can be written to it.
    pub read_only: bool,
    /// Its file system's type, such as `ext4`.
    pub file_system: String,
    /// Its file system, as the kernel numbers it.
    device: Vec<u8>,
    /// What it shows of its file system: a path in that.
    root: PathBuf,
}

impl Mount {
    /// Returns whether other machines may use it at the same time: their locks and processes are not seen here.
    pub fn is_shared(&self) -> bool {
        SHARED.contains(&self.file_system.as_str())
            || self
                .file_system
                .strip_prefix("fuse.")
                .is_some_and(|kind| kind.contains("sshfs") || SHARED.contains(&kind))
    }
}

/// All mounts, by their points.
#[derive(Debug, Clone, Default)]
pub struct Mounts {
    mounts: Vec<Mount>,
}

impl Mounts {
    /// Reads the mounts of this process's view.
    ///
    /// # Errors
    /// [`PlatformError::Io`] where `/proc` cannot be read.
    pub fn read() -> Result<Mounts, PlatformError> {
        let bytes =
            std::fs::read(MOUNTINFO).map_err(|source| PlatformError::Io { path: MOUNTINFO.to_owned(), source })?;
        Ok(Mounts::parse(&bytes))
    }

    fn parse(text: &[u8]) -> Mounts {
        let mut mounts: Vec<Mount> = Vec::new();
        for line in text.split(|&byte| byte == b'\n') {
            let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
            // id, parent, device, root, point, options, optional fields, "-", type, source, options of the file system
            let [_, _, device, root, point, options, ..] = fields.as_slice() else { continue };
            let behind = fields.iter().position(|field| *field == b"-").map_or(fields.len(), |at| at + 1);
            let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(field)).unwrap_or_default();
            let read_only = |options: &str| options.split(',').any(|option| option == "ro");
            let mount = Mount {
                point: unescape(point),
                read_only: read_only(&String::from_utf8_lossy(options)) || read_only(&text(behind + 2)),
                file_system: text(behind).into_owned(),
                device: device.to_vec(),
                root: unescape(root),
            };
            // A later mount at the same point covers an earlier one.
            mounts.retain(|known| known.point != mount.point);
            mounts.push(mount);
        }
        mounts.sort_by(|a, b| a.point.cmp(&b.point));
        Mounts { mounts }
    }

    /// Returns the mounts at a path and below it, in the order of their paths.
    pub fn at_or_below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Mount> {
        self.mounts.iter().filter(move |mount| mount.point.starts_with(path))
    }

    /// Returns the mount that a path lies on.
    pub fn of(&self, path: &Path) -> Option<&Mount> {
        let holds = self.mounts.iter().filter(|mount| path.starts_with(&mount.point));
        holds.max_by_key(|mount| mount.point.components().count())
    }

    /// Returns the paths under which mounts may show what a path shows: itself first, then others where its file system, or a part of it, is
    /// mounted more than once. Some network file systems do not say which part: compare device and inode.
    pub fn aliases(&self, path: &Path) -> Vec<PathBuf> {
        let inside = |mount: &Mount| Some(mount.root.join(path.strip_prefix(&mount.point).ok()?));
        let known = self.of(path).and_then(|mount| Some((&mount.device, inside(mount)?)));
        let shown = known.iter().flat_map(|(device, inside)| {
            let same = self.mounts.iter().filter(move |mount| mount.device == **device);
            same.filter_map(move |mount| Some(mount.point.join(inside.strip_prefix(&mount.root).ok()?)))
        });
        std::iter::once(path.to_path_buf()).chain(shown.filter(|alias| alias != path)).collect()
    }
}

/// Takes back the octal escapes (`\040` for a space) of a path.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let code = (byte == b'\\').then(|| text.get(at + 1..at + 4)).flatten();
        let value = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        out.push(value.unwrap_or(byte));
        at += if value.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Returns whether a path lies strictly below another.
#[must_use]
pub fn is_below(path: &Path, root: &Path) -> bool {
    path != root && path.starts_with(root) && !root.as_os_str().as_bytes().is_empty()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        22 1 254:0 / / rw,relatime - ext4 /dev/root rw\n\
        30 22 0:30 / /srv/my\\040disk rw,nosuid shared:1 master:2 - tmpfs none rw,size=64m\n\
        31 30 254:0 /data /srv/my\\040disk/ledgersData ro,relatime - ext4 /dev/root rw\n\
        32 22 0:31 / /shared rw - nfs4 server:/x rw\n\
        33 22 0:32 / /shared rw - ext4 /dev/vdb ro\n\
        34 22 0:33 / /far rw - fuse.sshfs host:/ rw\n\
        cut";

    #[test]
    fn mounts_are_read_with_their_escapes_optional_fields_and_options() {
        let mounts = Mounts::parse(TEXT.as_bytes());
        let below: Vec<(&str, bool)> = mounts
            .at_or_below(Path::new("/srv/my disk"))
            .map(|mount| (mount.point.to_str().unwrap(), mount.read_only))
            .collect();
        assert_eq!(below, [("/srv/my disk", false), ("/srv/my disk/ledgersData", true)]);
        assert_eq!(mounts.of(Path::new("/srv/my disk/x")).unwrap().file_system, "tmpfs");
        assert_eq!(mounts.of(Path::new("/srv/my diskette")).unwrap().point, Path::new("/"));
        let shared = mounts.of(Path::new("/shared/a")).unwrap();
        assert!(shared.read_only && !shared.is_shared());
        assert!(mounts.of(Path::new("/far")).unwrap().is_shared());
        let aliases = |path: &str| mounts.aliases(Path::new(path));
        assert_eq!(aliases("/data/a"), [Path::new("/data/a"), Path::new("/srv/my disk/ledgersData/a")]);
        assert_eq!(aliases("/srv/my disk/ledgersData"), [Path::new("/srv/my disk/ledgersData"), Path::new("/data")]);
        assert_eq!(aliases("/srv/x"), [Path::new("/srv/x")]);
    }
}
