//! Reads and writes objects in an object store, blocking, with names relative to the repository.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::location::Location;
use crate::{MAX_OBJECT_BYTES, StoreError};
use fabkeep_parallel as parallel;

/// Folders inside each other that are looked into: a repository has two.
const MAX_DEPTH: u32 = 8;
/// Requests at a time.
const READERS: usize = 16;
/// The object store that a folder is, by the name that its own errors give it.
pub(crate) const FOLDER_STORE: &str = "LocalFileSystem";

/// Files below a folder, with their sizes in bytes. What cannot be an object's name is named as well as it can be; a folder inside that may
/// not be read and what is neither a file nor a folder are among them.
fn walk(folder: &Path, prefix: &str, deep: u32, out: &mut BTreeMap<String, Stat>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        // An error of this one is the folder's: its names may be read and its files may not be looked at.
        let link = match std::fs::symlink_metadata(entry.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        let metadata = match std::fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            // A link to nowhere, or something that has gone meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // A link to something that may not be looked at.
            Err(_) if link.is_symlink() => {
                out.insert(name, Stat::default());
                continue;
            }
            Err(error) => return Err(error),
        };
        if metadata.is_dir() {
            // A link may lead around in a circle.
            if deep == 0 || walk(&entry.path(), &name, deep - 1, out).is_err() {
                out.insert(name, Stat::default());
            }
        } else if !metadata.is_file() {
            out.insert(name, Stat::default());
        } else if !is_staged(&name) {
            out.insert(name, Stat::of(&metadata));
        }
    }
    Ok(())
}

/// Names of files that are being written: `NAME#1`.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a listing says of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub written: jiff::Timestamp,
}

impl Stat {
    fn of(file: &std::fs::Metadata) -> Stat {
        let written = file.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        Stat { size: file.len(), written: written.unwrap_or_default() }
    }
}

/// The name of an object that may be deleted: no other has a way to [`Backend::delete`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deletable(String);

impl Deletable {
    /// Takes the name of an object of a recovery point, or of a record of what a prune frees; `None` for every other one.
    pub fn parse(name: &str) -> Option<Deletable> {
        let folders = ["objects/", "manifests/", "index/", "points/", "pruning/"];
        let good = folders.iter().any(|folder| name.starts_with(folder)) && crate::history::is_known(name);
        good.then(|| Deletable(name.to_owned()))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// How the deletion of an object ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// It is not there any more.
    Gone,
    /// The store keeps it, and says why.
    Refused(String),
}

/// Returns whether a store does not want to delete an object, while it answers otherwise.
fn is_refusal(error: &object_store::Error) -> bool {
    use std::error::Error;
    let refused = |kind| matches!(kind, std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem);
    match error {
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::Precondition { .. } => true,
        other => std::iter::successors(other.source(), |error| (**error).source())
            .filter_map(|error| error.downcast_ref::<std::io::Error>())
            .any(|error| refused(error.kind())),
    }
}

pub(crate) struct Backend {
    pub name: String,
    pub folder: Option<std::path::PathBuf>,
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    runtime: tokio::runtime::Runtime,
    /// Requests at a time.
    pub readers: usize,
}

/// What a create-only put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Exists,
}

/// Returns whether a file has the name of an object's folder.
pub(crate) fn is_blocked(error: &object_store::Error) -> bool {
    use std::error::Error;
    std::iter::successors(error.source(), |error| (**error).source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::NotADirectory)
}

/// Reads a file of a folder; `None` when there is none.
fn read_file(name: &str, folder: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    use std::path::Component;
    // A name that leads out of the folder is no object's.
    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(None);
    }
    let path = &folder.join(name);
    // What a disk says that does not give these bytes any more (EIO, EBADMSG, EUCLEAN).
    const UNREADABLE: [i32; 3] = [5, 74, 117];
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(None),
        ErrorKind::PermissionDenied => {
            Err(StoreError::Forbidden { object: name.to_owned(), problem: error.to_string() })
        }
        _ if error.raw_os_error().is_some_and(|number| UNREADABLE.contains(&number)) => {
            Err(StoreError::damaged(name, format!("it cannot be read: {error}")))
        }
        _ => Err(of_folder("reading", name, error)),
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return failed(error),
    };
    // Whoever opens a named pipe waits for ever.
    if !metadata.is_file() {
        return Err(StoreError::damaged(name, "it is not a file"));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_OBJECT_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(read) if read as u64 > MAX_OBJECT_BYTES => Err(too_large(name, metadata.len())),
        Ok(_) => Ok(Some(bytes)),
        Err(error) => failed(error),
    }
}

fn too_large(name: &str, size: u64) -> StoreError {
    StoreError::damaged(name, format!("{size} bytes; an object has at most {MAX_OBJECT_BYTES}"))
}

/// Returns an error of the folder in which a repository is.
pub(crate) fn of_folder(action: &'static str, object: &str, error: std::io::Error) -> StoreError {
    let source = object_store::Error::Generic { store: FOLDER_STORE, source: Box::new(error) };
    StoreError::Backend { action, object: object.to_owned(), source }
}

impl Backend {
    pub fn new(location: Location) -> Result<Backend, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Backend {
            name: location.name,
            folder: location.folder,
            store: location.store,
            prefix: location.prefix,
            runtime,
            readers: READERS,
        })
    }

    fn path(&self, name: &str) -> ObjectPath {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Writes an object unless one has its name. Never overwrites.
    pub fn put_new(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<Put, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let bytes = bytes.into();
        tracing::debug!(object = name, bytes = bytes.content_length(), "put");
        let path = self.path(name);
        let put = self.store.put_opts(&path, bytes, options);
        match self.runtime.block_on(put) {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(source) => Err(StoreError::Backend { action: "writing", object: name.to_owned(), source }),
        }
    }

    /// Writes an object as [`Backend::put_new`] does. One with these bytes is this one: the answer to an earlier request may have been lost.
    pub fn put_once(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<Put, StoreError> {
        let bytes = bytes.into();
        let same = |there: Vec<u8>| there.iter().eq(bytes.iter().flatten());
        match self.put_new(name, bytes.clone())? {
            Put::Exists if self.get(name)?.is_some_and(same) => Ok(Put::Created),
            put => Ok(put),
        }
    }

    /// Reads a whole object; `None` when there is none.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        tracing::debug!(object = name, "get");
        if let Some(folder) = &self.folder {
            return read_file(name, folder);
        }
        let path = self.path(name);
        let read = async {
            let found = self.store.get(&path).await?;
            if found.meta.size > MAX_OBJECT_BYTES {
                return Ok(Err(found.meta.size));
            }
            Ok(Ok(found.bytes().await?))
        };
        match self.runtime.block_on(read) {
            Ok(Ok(bytes)) => Ok(Some(bytes.into())),
            Ok(Err(size)) => Err(too_large(name, size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) if is_blocked(&source) => Ok(None),
            Err(source) => Err(StoreError::Backend { action: "reading", object: name.to_owned(), source }),
        }
    }

    /// Reads an object that may be anybody's; `None` when it has gone. What is wrong with the one object is kept apart from a store that
    /// does not answer.
    pub fn get_if_readable(&self, name: &str) -> Result<Option<Result<Vec<u8>, StoreError>>, StoreError> {
        match self.get(name) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Ok(Some(Ok(bytes))),
            Err(error) if error.is_of_the_object() => Ok(Some(Err(error))),
            Err(StoreError::Backend {
                source: source @ object_store::Error::PermissionDenied { .. }, object, ..
            }) => Ok(Some(Err(StoreError::Forbidden { object, problem: source.to_string() }))),
            Err(StoreError::Backend { source: object_store::Error::InvalidPath { .. }, object, .. }) => {
                Ok(Some(Err(StoreError::damaged(&object, "it may not be read"))))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads many objects at a time; those that have gone meanwhile are left out.
    #[allow(clippy::type_complexity)]
    pub fn get_many(&self, names: &[String]) -> Result<Vec<(String, Result<Vec<u8>, StoreError>)>, StoreError> {
        let read = parallel::try_map::<_, _, StoreError>(names, self.readers, |name| {
            Ok(self.get_if_readable(name)?.map(|read| (name.clone(), read)))
        })?;
        let mut found: Vec<_> = read.into_iter().flatten().collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// Reads an object that must be there.
    pub fn need(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.get(name)?.ok_or_else(|| StoreError::Missing(name.to_owned()))
    }

    /// Deletes an object, unless the store refuses that.
    pub fn delete(&self, object: &Deletable) -> Result<Deleted, StoreError> {
        tracing::debug!(object = object.name(), "delete");
        let path = self.path(object.name());
        match self.runtime.block_on(self.store.delete(&path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Deleted::Gone),
            Err(error) if is_refusal(&error) => Ok(Deleted::Refused(error.to_string())),
            Err(source) => Err(StoreError::Backend { action: "deleting", object: object.name().to_owned(), source }),
        }
    }

    /// Deletes many objects at a time. What the store refused is returned with its reason.
    pub fn delete_many(&self, objects: &[Deletable]) -> Result<Vec<(String, String)>, StoreError> {
        let deleted = parallel::try_map::<_, _, StoreError>(objects, self.readers, |object| {
            Ok(match self.delete(object)? {
                Deleted::Gone => None,
                Deleted::Refused(why) => Some((object.name().to_owned(), why)),
            })
        })?;
        let mut refused: Vec<_> = deleted.into_iter().flatten().collect();
        refused.sort();
        Ok(refused)
    }

    /// Returns whether an object is there.
    pub fn has(&self, name: &str) -> Result<bool, StoreError> {
        match self.runtime.block_on(self.store.head(&self.path(name))) {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) if is_blocked(&source) => Ok(false),
            Err(source) => Err(StoreError::Backend { action: "looking for", object: name.to_owned(), source }),
        }
    }

    /// Names (relative to the repository) and sizes in bytes of all objects below a prefix. A file that has the prefix for its name is one.
    pub fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, StoreError> {
        Ok(self.list_dated(prefix)?.into_iter().map(|(name, stat)| (name, stat.size)).collect())
    }

    /// Returns the same, with the times at which the objects were written.
    pub fn list_dated(&self, prefix: &str) -> Result<BTreeMap<String, Stat>, StoreError> {
        use futures_util::TryStreamExt;
        tracing::debug!(prefix, "list");
        if let Some(folder) = &self.folder {
            let mut out = BTreeMap::new();
            let inside = if prefix.is_empty() { folder.clone() } else { folder.join(prefix) };
            return match walk(&inside, prefix, MAX_DEPTH, &mut out) {
                Err(error) if error.kind() == ErrorKind::NotADirectory => {
                    let file = std::fs::metadata(&inside);
                    Ok(file.map(|file| (prefix.to_owned(), Stat::of(&file))).into_iter().collect())
                }
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(of_folder("listing", if prefix.is_empty() { "the folder" } else { prefix }, error))
                }
                _ => Ok(out),
            };
        }
        let path = self.path(prefix);
        let stat = |meta: object_store::ObjectMeta| {
            let time = &meta.last_modified;
            let written = jiff::Timestamp::new(time.timestamp(), time.timestamp_subsec_nanos() as i32);
            (meta.location, Stat { size: meta.size, written: written.unwrap_or_default() })
        };
        let list = self.store.list(Some(&path)).map_ok(stat).try_collect::<Vec<_>>();
        let found = self.runtime.block_on(list).map_err(|source| StoreError::Backend {
            action: "listing",
            object: prefix.to_owned(),
            source,
        })?;
        let skip = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        Ok(found.into_iter().filter_map(|(path, stat)| Some((path.as_ref().get(skip..)?.to_owned(), stat))).collect())
    }
}
