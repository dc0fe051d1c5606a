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

/// Returns an error with what caused it: a client that cannot be made says why only there (no certificates on this machine, for example).
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
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
        let (store, prefix) = object_store::parse_url_opts(&url, options).map_err(|error| bad(with_sources(&error)))?;
        return Ok(Location { name: location.to_owned(), store: Arc::from(store), prefix, folder: None });
    }
    let Some(folder) = folder(location)? else { return Err(bad("it has no path".to_owned())) };
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

/// Returns the folder that a location names; `None` for an object store.
pub(crate) fn folder(location: &str) -> Result<Option<PathBuf>, StoreError> {
    let bad = |problem: &str| StoreError::Location { location: location.to_owned(), problem: problem.to_owned() };
    if let Some(path) = location.strip_prefix("file://") {
        // A URL encodes what a path may contain; a path that is not absolute is no URL, and taken as it is.
        let url = if path.starts_with('/') { Url::parse(location).ok() } else { None };
        return match url {
            Some(url) => url.to_file_path().map(Some).map_err(|()| bad("its path cannot be decoded")),
            None => Ok(Some(PathBuf::from(path))),
        };
    }
    if location.contains("://") {
        return Ok(None);
    }
    let scheme = location.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some(
            scheme @ ("s3" | "s3a" | "gs" | "az" | "adl" | "azure" | "abfs" | "abfss" | "http" | "https" | "file"),
        ) => Err(bad(&format!("a URL begins with {scheme}://; a folder of this name is written ./{location}"))),
        _ => Ok(Some(PathBuf::from(location))),
    }
}

/// Objects must be on the disk before the commit record that names them is: hence fsync.
fn local(folder: &Path) -> Result<LocalFileSystem, object_store::Error> {
    Ok(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true))
}
