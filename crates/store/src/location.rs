//! The location of a repository: a folder, or the URL of an object store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use url::Url;

use crate::StoreError;

/// An opened place.
pub(crate) struct Location {
    /// As the user gave it.
    pub name: String,
    pub store: Arc<dyn ObjectStore>,
    pub prefix: ObjectPath,
    /// The folder, when it is one.
    pub folder: Option<PathBuf>,
}

impl Location {
    /// Takes a store that is open.
    pub fn of(store: Arc<dyn ObjectStore>) -> Location {
        Location { name: store.to_string(), store, prefix: ObjectPath::default(), folder: None }
    }
}

/// Opens `location`: an URL with a scheme (`s3://`, `gs://`, `az://`, `file://` …; credentials and endpoints come from the
/// environment, `AWS_*`, `GOOGLE_*`, `AZURE_*`), or a folder. `create` makes the folder.
pub(crate) fn open(location: &str, create: bool) -> Result<Location, StoreError> {
    let bad = |problem: String| StoreError::Location { location: location.to_owned(), problem };
    if let Some((scheme, _)) = location.split_once("://")
        && scheme != "file"
    {
        let url = Url::parse(location).map_err(|error| bad(error.to_string()))?;
        let options = std::env::vars().map(|(key, value)| (key.to_ascii_lowercase(), value));
        let (store, prefix) = object_store::parse_url_opts(&url, options).map_err(|error| bad(error.to_string()))?;
        return Ok(Location { name: location.to_owned(), store: Arc::from(store), prefix, folder: None });
    }
    let folder = PathBuf::from(location.strip_prefix("file://").unwrap_or(location));
    if create {
        std::fs::create_dir_all(&folder).map_err(|error| bad(error.to_string()))?;
    } else if !folder.is_dir() {
        return Err(StoreError::NotARepository(location.to_owned()));
    }
    Ok(Location {
        name: location.to_owned(),
        store: Arc::new(local(&folder).map_err(|error| bad(error.to_string()))?),
        prefix: ObjectPath::default(),
        folder: Some(folder),
    })
}

/// Objects must be on the disk before the commit record that names them is: hence fsync.
fn local(folder: &Path) -> Result<LocalFileSystem, object_store::Error> {
    Ok(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true))
}
