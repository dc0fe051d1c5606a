//! Plain puts and gets over an object store, blocking, with names relative to the repository.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::location::Location;
use crate::{MAX_OBJECT_BYTES, StoreError};

pub(crate) struct Backend {
    pub name: String,
    pub folder: Option<std::path::PathBuf>,
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    runtime: tokio::runtime::Runtime,
}

/// What a create-only put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    Created,
    Exists,
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
        })
    }

    fn path(&self, name: &str) -> ObjectPath {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Writes an object unless one has its name. Never overwrites.
    pub fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<Put, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = self.path(name);
        let put = self.store.put_opts(&path, PutPayload::from(bytes), options);
        match self.runtime.block_on(put) {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Exists),
            Err(source) => Err(StoreError::Backend { action: "writing", object: name.to_owned(), source }),
        }
    }

    /// Reads a whole object; `None` when there is none.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
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
            Ok(Err(size)) => {
                Err(StoreError::damaged(name, format!("{size} bytes; an object has at most {MAX_OBJECT_BYTES}")))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(StoreError::Backend { action: "reading", object: name.to_owned(), source }),
        }
    }

    /// Reads an object that must be there.
    pub fn need(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.get(name)?.ok_or_else(|| StoreError::Missing(name.to_owned()))
    }

    /// Names (relative to the repository) and sizes in bytes of all objects below a prefix.
    pub fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, StoreError> {
        use futures_util::TryStreamExt;
        let path = self.path(prefix);
        let list = self.store.list(Some(&path)).map_ok(|meta| (meta.location, meta.size)).try_collect::<Vec<_>>();
        let found = self.runtime.block_on(list).map_err(|source| StoreError::Backend {
            action: "listing",
            object: prefix.to_owned(),
            source,
        })?;
        let skip = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        Ok(found.into_iter().filter_map(|(path, size)| Some((path.as_ref().get(skip..)?.to_owned(), size))).collect())
    }
}
