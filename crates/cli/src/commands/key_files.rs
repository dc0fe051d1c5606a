//! Key files: the one that was named, else the one that `init` wrote to its usual place.

use std::path::{Path, PathBuf};

use fabkeep_store::{IdentityFile, Repository, WriterKey, default_key_folder};

use crate::error::CliError;
use crate::exit_code::Code;

fn usual(repository: &Repository, extension: &str) -> Option<PathBuf> {
    let path = default_key_folder()?.join(format!("{}.{extension}", repository.config().id));
    path.exists().then_some(path)
}

/// The identity that was named, or the one in its usual place, if there is one.
pub fn identity_if_any(repository: &Repository, named: Option<&Path>) -> Result<Option<IdentityFile>, CliError> {
    let path = named.map(Path::to_path_buf).or_else(|| usual(repository, "identity"));
    Ok(path.map(|path| IdentityFile::read(&path)).transpose()?)
}

/// The identity; an error that says where to look when there is none.
pub fn identity(repository: &Repository, named: Option<&Path>) -> Result<IdentityFile, CliError> {
    identity_if_any(repository, named)?.ok_or_else(|| {
        CliError::new(
            Code::Usage,
            format!(
                "reading repository {} needs its identity (private key), and none is in its usual place",
                repository.config().id
            ),
            "name the identity file that `fabkeep init` wrote: --identity FILE (or FABKEEP_IDENTITY)",
        )
    })
}

/// The writer key.
pub fn writer(repository: &Repository, named: Option<&Path>) -> Result<WriterKey, CliError> {
    let path = named.map(Path::to_path_buf).or_else(|| usual(repository, "writer"));
    match path {
        Some(path) => Ok(WriterKey::read(&path)?),
        None => Err(CliError::new(
            Code::Usage,
            format!(
                "writing to repository {} needs a writer key, and none is in its usual place",
                repository.config().id
            ),
            "name the writer key that `fabkeep init` wrote (--writer FILE or FABKEEP_WRITER); `fabkeep add-writer` makes another",
        )),
    }
}
