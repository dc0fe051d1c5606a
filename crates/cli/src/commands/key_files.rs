//! Locates key files: the named file, or else the one that `init` wrote to the key folder. Pins the root key by what this machine knows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fabkeep_engine::KeyFiles;
use fabkeep_store::{IdentityFile, Passphrase, Repository, StoreError, WriterKey, default_key_folder};

use crate::arguments::Identity;
use crate::error::CliError;
use crate::exit_code::Code;

/// Names the root key, for commands that do not take it as an option.
const ROOT: &str = "FABKEEP_ROOT";
const WRITER: &str = "FABKEEP_WRITER";
/// The passphrase of an identity file.
const PASSPHRASE: &str = "FABKEEP_PASSPHRASE";
/// Most bytes that an identity command may print.
const MAX_IDENTITY_BYTES: u64 = 64 << 10;

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
pub fn identity_if_any(repository: &Repository, named: &Identity) -> Result<Option<IdentityFile>, CliError> {
    let passphrase = Passphrase { protect: false, ask: &ask_for_passphrase };
    if let Some(command) = named.identity_command.as_deref().filter(|command| !command.is_empty()) {
        let printed = printed_by(command)?;
        return Ok(Some(IdentityFile::parse("what the identity command printed", &printed, &passphrase)?));
    }
    let path = named.identity.clone().or_else(|| usual(repository, "identity"));
    Ok(path.map(|path| IdentityFile::read_with(&path, &passphrase)).transpose()?)
}

/// Returns what a command prints, which no message repeats.
fn printed_by(command: &str) -> Result<Vec<u8>, CliError> {
    let failed = |problem: String| {
        CliError::new(
            Code::Usage,
            format!("the identity command failed: {problem}"),
            "run the command by hand: it must print the identity (AGE-SECRET-KEY-1…) and end with code 0",
        )
    };
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut printed = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(MAX_IDENTITY_BYTES).read_to_end(&mut printed).map_err(|error| failed(error.to_string()))?;
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(printed) } else { Err(failed(status.to_string())) }
}

/// Returns the passphrase of an identity file: from the environment, or typed by a person; a new one twice.
pub fn ask_for_passphrase(new: bool) -> std::io::Result<String> {
    if let Some(given) = std::env::var(PASSPHRASE).ok().filter(|given| !given.is_empty()) {
        return Ok(given);
    }
    let no_person = |_| {
        std::io::Error::other(format!(
            "it is protected by a passphrase: set {PASSPHRASE}, or run the command in a terminal"
        ))
    };
    let asked = |prompt: &str| rpassword::prompt_password(prompt).map_err(no_person);
    if !new {
        return asked("Passphrase of the identity: ");
    }
    let first = asked("New passphrase of the identity: ")?;
    if first.is_empty() || first != asked("The same once more: ")? {
        return Err(std::io::Error::other("the passphrases are empty or differ: nothing was written"));
    }
    Ok(first)
}

/// Returns the identity; an error that says where to look when there is none.
pub fn identity(repository: &Repository, named: &Identity) -> Result<IdentityFile, CliError> {
    identity_if_any(repository, named)?.ok_or_else(|| {
        CliError::new(
            Code::Usage,
            format!(
                "reading repository {} needs its identity (private key), which is not in the key folder of this machine",
                repository.config().id
            ),
            "name the identity file that `fabkeep init` wrote: --identity FILE (or FABKEEP_IDENTITY), or a command that prints it: --identity-command",
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
