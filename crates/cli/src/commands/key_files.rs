//! Locates key files: the named file, or else the one that `init` wrote to the key folder. Pins the root key by what this machine knows.

use std::path::{Path, PathBuf};

use fabkeep_engine::KeyFiles;
use fabkeep_store::{IdentityFile, Repository, StoreError, WriterKey, default_key_folder};

use crate::error::CliError;
use crate::exit_code::Code;

/// Names the root key, for commands that do not take it as an option.
const ROOT: &str = "FABKEEP_ROOT";
const WRITER: &str = "FABKEEP_WRITER";

fn usual(repository: &Repository, extension: &str) -> Option<PathBuf> {
    let path = default_key_folder()?.join(format!("{}.{extension}", repository.config().id));
    path.exists().then_some(path)
}

/// Opens a repository. Its root key is pinned by the option or the environment, a writer key of this repository, or what `init` noted here.
pub fn open(location: &str, root: Option<&str>) -> Result<Repository, CliError> {
    Ok(open_pinned(location, root)?)
}

/// The same, with the store's own error.
pub fn open_pinned(location: &str, root: Option<&str>) -> Result<Repository, StoreError> {
    let repository = Repository::open(location)?;
    let named = root.map(str::to_owned).or_else(|| std::env::var(ROOT).ok()).filter(|root| !root.is_empty());
    if let Some(root) = named {
        return repository.pin(&root);
    }
    if let Some(writer) = writer_if_any(&repository, None) {
        let root = writer.root().to_owned();
        return repository.pin(&root);
    }
    match usual(&repository, "root").and_then(|path| std::fs::read_to_string(path).ok()) {
        Some(root) => repository.pin(&root),
        None => Ok(repository),
    }
}

/// Notes the root key of a repository that was made here.
pub fn note_root(id: &str, root: &str) {
    if let Some(folder) = default_key_folder() {
        let path = folder.join(format!("{id}.root"));
        // A help for later commands on this machine: `init` prints the key too.
        let _ = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(path, format!("{root}\n")));
    }
}

/// Returns the key files that were named, or those in their usual places, if they are there.
pub fn found(repository: &Repository, writer: Option<&Path>, identity: Option<&Path>) -> KeyFiles {
    let of = |named: Option<&Path>, extension| named.map(Path::to_path_buf).or_else(|| usual(repository, extension));
    KeyFiles { writer: of(writer, "writer"), identity: of(identity, "identity") }
}

/// Returns the identity that was named, or the one in its usual place, if there is one.
pub fn identity_if_any(repository: &Repository, named: Option<&Path>) -> Result<Option<IdentityFile>, CliError> {
    let path = named.map(Path::to_path_buf).or_else(|| usual(repository, "identity"));
    Ok(path.map(|path| IdentityFile::read(&path)).transpose()?)
}

/// Returns the identity; an error that says where to look when there is none.
pub fn identity(repository: &Repository, named: Option<&Path>) -> Result<IdentityFile, CliError> {
    identity_if_any(repository, named)?.ok_or_else(|| {
        CliError::new(
            Code::Usage,
            format!(
                "reading repository {} needs its identity (private key), which is not in the key folder of this machine",
                repository.config().id
            ),
            "name the identity file that `fabkeep init` wrote: --identity FILE (or FABKEEP_IDENTITY)",
        )
    })
}

/// Returns the writer key that was named, in the environment or in its usual place, where it is one of this repository.
pub fn writer_if_any(repository: &Repository, named: Option<&Path>) -> Option<WriterKey> {
    let environment = || std::env::var_os(WRITER).filter(|file| !file.is_empty()).map(PathBuf::from);
    let path = named.map(Path::to_path_buf).or_else(environment).or_else(|| usual(repository, "writer"))?;
    WriterKey::read(&path).ok().filter(|key| key.repository() == repository.config().id)
}

/// Returns the writer key.
pub fn writer(repository: &Repository, named: Option<&Path>) -> Result<WriterKey, CliError> {
    let path = named.map(Path::to_path_buf).or_else(|| usual(repository, "writer"));
    match path {
        Some(path) => Ok(WriterKey::read(&path)?),
        None => Err(CliError::new(
            Code::Usage,
            format!(
                "writing to repository {} needs a writer key, which is not in the key folder of this machine",
                repository.config().id
            ),
            "name the writer key that `fabkeep init` wrote (--writer FILE or FABKEEP_WRITER); `fabkeep add-writer` creates another one",
        )),
    }
}
