//! All changes to the target's file system: each is announced before it is made, and is on the disk before the next step relies on it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::Path;

use fabkeep_platform::STAGED;

use crate::EngineError;
use crate::error::io as at;
use crate::event::Reporter;

/// Makes changes.
#[derive(Clone, Copy)]
pub(in crate::restore) struct Disk<'a> {
    reporter: &'a dyn Reporter,
}

impl<'a> Disk<'a> {
    pub fn new(reporter: &'a dyn Reporter) -> Self {
        Disk { reporter }
    }

    /// Announces a change that is made through an open file.
    pub fn changing(&self, what: &'static str, path: &Path) {
        self.reporter.changing(what, path);
    }

    /// Makes a folder and those above it that are missing, and makes sure that they stay. Everybody may look into them, and they belong to
    /// the owner of the folder that they are in: it gets its name when this is so, whenever a run is killed.
    pub fn make_folders(&self, path: &Path) -> Result<(), EngineError> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        if path.is_dir() {
            return Ok(());
        }
        self.make_folders(above)?;
        let mut staged = OsString::from(STAGED);
        staged.push(name);
        let new = above.join(staged);
        self.make_private(&new)?;
        let around = above.metadata().map_err(at(above))?;
        if rustix::process::geteuid().is_root() {
            self.changing("set owner", &new);
            lchown(&new, Some(around.uid()), Some(around.gid())).map_err(at(&new))?;
        }
        // A group that is handed down goes on being so.
        self.set_mode(&new, 0o755 | (around.mode() & 0o2000))?;
        self.changing("make folder", path);
        fs::rename(&new, path).map_err(at(path))?;
        self.sync_folder(above)
    }

    /// Makes a folder that only its owner may look into, unless it is there.
    pub fn make_private(&self, path: &Path) -> Result<(), EngineError> {
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.make_folders(above)?;
        }
        self.changing("make folder", path);
        fs::DirBuilder::new().mode(0o700).create(path).map_err(at(path))?;
        path.parent().map_or(Ok(()), |above| self.sync_folder(above))
    }

    /// Makes a file to be written, empty and of this size. What a killed run left of it goes: it may be a second name of a file that a node
    /// has, which must not be written to.
    pub fn create(&self, path: &Path, size: u64) -> Result<File, EngineError> {
        if path.symlink_metadata().is_ok() {
            self.remove_file(path)?;
        }
        self.changing("write", path);
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
        file.set_len(size).map_err(at(path))?;
        Ok(file)
    }

    /// Writes a small file: whoever reads it finds it as it was or as it is now.
    pub fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
        let mut staged = path.file_name().unwrap_or_default().to_os_string();
        staged.push(STAGED);
        let new = path.with_file_name(staged);
        let file = self.create(&new, 0)?;
        file.write_all_at(bytes, 0).and_then(|()| file.sync_all()).map_err(at(&new))?;
        self.changing("rename", &new);
        fs::rename(&new, path).map_err(at(path))?;
        path.parent().map_or(Ok(()), |above| self.sync_folder(above))
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// When the file system, or a setting of the system, does not let it have one.
    pub fn second_name(&self, of: &Path, name: &Path) -> io::Result<()> {
        self.changing("keep", name);
        fs::hard_link(of, name)
    }

    /// Sets permission bits.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Result<(), EngineError> {
        self.changing("set mode", path);
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at(path))
    }

    /// Makes a symbolic link, in the place of what a killed run left there.
    pub fn link(&self, target: &str, path: &Path) -> Result<(), EngineError> {
        if path.symlink_metadata().is_ok() {
            self.remove_file(path)?;
        }
        self.changing("link", path);
        std::os::unix::fs::symlink(target, path).map_err(at(path))
    }

    /// Renames to a name that nothing has.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), EngineError> {
        self.changing("rename", from);
        if to.symlink_metadata().is_ok() {
            return Err(at(to)(io::ErrorKind::AlreadyExists.into()));
        }
        fs::rename(from, to).map_err(at(from))
    }

    pub fn remove_file(&self, path: &Path) -> Result<(), EngineError> {
        self.changing("remove", path);
        fs::remove_file(path).map_err(at(path))
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, path: &Path) -> Result<(), EngineError> {
        self.changing("remove", path);
        fs::remove_dir(path).map_err(at(path))
    }

    /// Removes a folder of our own with all that is in it.
    pub fn remove_tree(&self, path: &Path) -> Result<(), EngineError> {
        self.changing("remove", path);
        fs::remove_dir_all(path).map_err(at(path))
    }

    /// Makes sure that what was made, renamed or removed in a folder stays so after a loss of power.
    pub fn sync_folder(&self, path: &Path) -> Result<(), EngineError> {
        self.changing("sync", path);
        File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))
    }
}
