//! What can be tried at a repository without changing what it holds: whether its keys fit, whether objects can be written, the store's time.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

use crate::backend::{Put, of_folder};
use crate::keys::{IdentityFile, WriterKey};
use crate::{History, Repository, StoreError, trust};

/// Folders of a repository in which a backup writes.
const WRITTEN: [&str; 4] = ["objects", "manifests", "index", "points"];

/// How the trial of a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteTried {
    /// A file was written in each folder and removed. Readers pass over its name.
    InFolders {
        /// When the last one was written, by the clock of the file system.
        written: Timestamp,
    },
    /// The store refused to write over an object that exists, and did not refuse the writer: objects can be written, and only once.
    OnlyOnce,
    /// The store wrote over an object, with the bytes that it had: it does not keep objects from being overwritten.
    WroteOver,
}

impl Repository {
    /// Refuses a writer key that cannot write here.
    ///
    /// # Errors
    /// [`StoreError`] that says why.
    pub fn check_writer_key(&self, key: &WriterKey, history: &History) -> Result<(), StoreError> {
        self.check_writer(key)?;
        let own = key.signing.verifying_key();
        if self.writers.iter().any(|writer| writer.key == own) {
            return Ok(());
        }
        self.kept_certificate(key, history).map(|_| ())
    }

    /// Refuses an identity that cannot read this repository.
    ///
    /// # Errors
    /// [`StoreError`] that says why.
    pub fn check_reader(&self, identity: &IdentityFile) -> Result<(), StoreError> {
        self.check_identity(identity)
    }

    /// Tries whether objects can be written. In a folder a file is written and removed. In an object store, where nothing that is written
    /// may be removable, it is tried to create an object that exists: a store that can do what fabkeep needs refuses that.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot.
    pub fn try_write(&self, history: &History) -> Result<WriteTried, StoreError> {
        if let Some(folder) = self.folder() {
            let mut written = Timestamp::now();
            let there: Vec<&str> = WRITTEN.into_iter().filter(|name| folder.join(name).is_dir()).collect();
            for name in there.into_iter().chain([""]) {
                let path = folder.join(name).join(format!("trial-{}#1", hex::encode(rand::random::<[u8; 8]>())));
                written = written_and_removed(&path).map_err(|error| of_folder("writing", &place(name), error))?;
            }
            return Ok(WriteTried::InFolders { written });
        }
        let of_writer = || self.writers.first().map(|writer| trust::certificate_name(&writer.key));
        let name = history.latest().map(|commit| commit.id.commit_name()).or_else(of_writer);
        let Some(name) = name else { return Err(StoreError::Missing("writers/".to_owned())) };
        let bytes = self.backend.need(&name)?;
        Ok(match self.backend.put_new(&name, bytes)? {
            Put::Exists => WriteTried::OnlyOnce,
            Put::Created => WriteTried::WroteOver,
        })
    }

    /// Returns the newest time at which something was committed, by the clock of the store; `None` in an empty repository.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newest_write(&self) -> Result<Option<Timestamp>, StoreError> {
        let listed = self.backend.list_dated("points")?;
        Ok(listed.into_values().map(|stat| stat.written).max())
    }
}

fn place(name: &str) -> String {
    if name.is_empty() { "the folder".to_owned() } else { format!("{name}/") }
}

/// Writes a file and removes it; returns when it was written.
fn written_and_removed(path: &Path) -> std::io::Result<Timestamp> {
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| {
        file.write_all(b"fabkeep doctor: this file can be removed\n")?;
        file.sync_all()?;
        file.metadata()?.modified()
    });
    let removed = std::fs::remove_file(path);
    let written = written?;
    removed?;
    Ok(Timestamp::try_from(written).unwrap_or_default())
}
