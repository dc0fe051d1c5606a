//! Keys: the identity decrypts; the root key is derived from it and certifies writers; writer keys sign.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::{ExposeSecret, SecretString};
use age::{scrypt, x25519};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::{NameKey, StoreError, memory};

const ROOT_CONTEXT: &str = "fabkeep 1 root signing key";
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// Returns the default folder of key files: `$XDG_CONFIG_HOME/fabkeep`, else `$HOME/.config/fabkeep`.
pub fn default_key_folder() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(config.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?.join("fabkeep"))
}

/// How a file that age encrypted begins: as it is, and as text.
const ENCRYPTED: [&[u8]; 2] = [b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----"];
/// The most work that opening a file with a passphrase may ask for, as a power of two: age asks for 18.
const MAX_WORK_FACTOR: u8 = 22;

/// Where the passphrase of an identity file comes from.
pub struct Passphrase<'a> {
    /// Whether a file that is made gets one.
    pub protect: bool,
    /// Returns it; `true` asks for a new one.
    pub ask: &'a dyn Fn(bool) -> std::io::Result<String>,
}

impl Passphrase<'_> {
    /// There is none: a file that needs one is refused.
    pub fn none() -> Passphrase<'static> {
        let none =
            &|_| Err(std::io::Error::other("it is protected by a passphrase, and there is nobody to ask for it"));
        Passphrase { protect: false, ask: none }
    }
}

/// The private key: reads every recovery point. An age identity file, plain or protected by a passphrase.
pub struct IdentityFile {
    pub(crate) identities: Vec<x25519::Identity>,
}

impl IdentityFile {
    pub(crate) fn generate() -> Self {
        IdentityFile { identities: vec![x25519::Identity::generate()] }
    }

    /// Reads an age identity file: lines that begin with `AGE-SECRET-KEY-1`, comments, nothing else.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`], also when it is protected by a passphrase.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        IdentityFile::read_with(path, &Passphrase::none())
    }

    /// Reads one that may be protected by a passphrase.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`].
    pub fn read_with(path: &Path, passphrase: &Passphrase<'_>) -> Result<Self, StoreError> {
        IdentityFile::parse(&path.display().to_string(), &read_key_bytes(path)?, passphrase)
    }

    /// Returns whether a file is protected by a passphrase.
    pub fn is_protected(path: &Path) -> bool {
        read_key_bytes(path).is_ok_and(|bytes| ENCRYPTED.iter().any(|begin| bytes.starts_with(begin)))
    }

    /// Reads the text of an identity file, from a place with this name.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`].
    pub fn parse(name: &str, bytes: &[u8], passphrase: &Passphrase<'_>) -> Result<Self, StoreError> {
        let problem = |problem: String| StoreError::KeyFile { file: name.to_owned(), problem };
        let opened = if ENCRYPTED.iter().any(|begin| bytes.starts_with(begin)) {
            Some(decrypted(bytes, passphrase).map_err(problem)?)
        } else {
            None
        };
        let text = std::str::from_utf8(opened.as_deref().unwrap_or(bytes))
            .map_err(|_| problem("it is not an age identity file (AGE-SECRET-KEY-1…)".to_owned()))?;
        let mut identities = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            // The content of the line is not part of the message: it may be a secret.
            let identity = x25519::Identity::from_str(line)
                .map_err(|_| problem("it is not an age identity file (AGE-SECRET-KEY-1…)".to_owned()))?;
            identities.push(identity);
        }
        if identities.is_empty() {
            return Err(problem("it contains no identity (AGE-SECRET-KEY-1…)".to_owned()));
        }
        Ok(IdentityFile { identities })
    }

    /// Writes a new file, with a passphrase if it is to be protected.
    pub(crate) fn write(&self, path: &Path, repository: &str, passphrase: &Passphrase<'_>) -> Result<(), StoreError> {
        let mut text = format!(
            "# fabkeep identity of the repository {repository}\n\
             # It decrypts every recovery point. Whoever has it can read everything; without it nothing can be restored.\n"
        );
        for identity in &self.identities {
            text += &format!("# public key: {}\n{}\n", identity.to_public(), identity.to_string().expose_secret());
        }
        if !passphrase.protect {
            return write_key_file(path, text.as_bytes());
        }
        let problem = |problem: String| StoreError::KeyFile { file: path.display().to_string(), problem };
        let secret = (passphrase.ask)(true).map_err(|error| problem(error.to_string()))?;
        let encrypted = encrypted(text.as_bytes(), secret).map_err(|error| problem(error.to_string()))?;
        write_key_file(path, &encrypted)
    }

    /// Returns the root signing keys that follow from the identities: each says who may write to a repository it was made for.
    pub(crate) fn roots(&self) -> Vec<SigningKey> {
        self.identities
            .iter()
            .map(|identity| {
                let secret = identity.to_string();
                SigningKey::from_bytes(&blake3::derive_key(ROOT_CONTEXT, secret.expose_secret().as_bytes()))
            })
            .collect()
    }

    pub(crate) fn recipients(&self) -> Vec<x25519::Recipient> {
        self.identities.iter().map(x25519::Identity::to_public).collect()
    }
}

fn encrypted(plain: &[u8], passphrase: String) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let armored = ArmoredWriter::wrap_output(&mut out, Format::AsciiArmor)?;
    let mut sealed = age::Encryptor::with_user_passphrase(SecretString::from(passphrase)).wrap_output(armored)?;
    sealed.write_all(plain)?;
    sealed.finish().and_then(ArmoredWriter::finish)?;
    Ok(out)
}

/// Returns the content of a file that age has encrypted with a passphrase; why not, if it cannot be opened.
fn decrypted(bytes: &[u8], passphrase: &Passphrase<'_>) -> Result<Vec<u8>, String> {
    let decryptor = age::Decryptor::new(ArmoredReader::new(bytes)).map_err(|error| error.to_string())?;
    if !decryptor.is_scrypt() {
        return Err("it is encrypted to a key and not protected by a passphrase: decrypt it with age first".to_owned());
    }
    let secret = (passphrase.ask)(false).map_err(|error| error.to_string())?;
    let mut identity = scrypt::Identity::new(SecretString::from(secret));
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    let input = match decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)) {
        Ok(input) => input,
        Err(age::DecryptError::DecryptionFailed | age::DecryptError::NoMatchingKeys) => {
            return Err("the passphrase is wrong".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut plain = Vec::new();
    input.take(MAX_KEY_FILE_BYTES).read_to_end(&mut plain).map_err(|error| error.to_string())?;
    Ok(plain)
}

/// What a backup machine holds: it can add recovery points and read none.
#[derive(Debug, Clone)]
pub struct WriterKey {
    pub(crate) repository: String,
    pub(crate) root: String,
    pub(crate) recipients: Vec<x25519::Recipient>,
    pub(crate) signing: SigningKey,
    pub(crate) names: NameKey,
    /// A copy of its certificate under `writers/`; older key files have none.
    pub(crate) certificate: Option<String>,
    /// The file it was read from; what it remembers is in a file beside it.
    pub(crate) file: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct WriterFile {
    fabkeep: u32,
    repository: String,
    root: String,
    recipients: Vec<String>,
    signing_key: String,
    name_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

impl WriterKey {
    /// Reads a writer key file.
    ///
    /// # Errors
    /// [`StoreError::KeyFile`].
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let problem =
            |problem: &str| StoreError::KeyFile { file: path.display().to_string(), problem: problem.to_owned() };
        let file: WriterFile =
            serde_json::from_str(&read_key_file(path)?).map_err(|_| problem("it is not a writer key file"))?;
        if file.fabkeep != crate::FORMAT {
            return Err(StoreError::Version { found: file.fabkeep });
        }
        let bytes = |text: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).map(|()| bytes).map_err(|_| problem("a key in it does not decode"))
        };
        Ok(WriterKey {
            repository: file.repository,
            root: file.root,
            recipients: file
                .recipients
                .iter()
                .map(|text| parse_recipient(text).map_err(|_| problem("a recipient in it does not decode")))
                .collect::<Result<_, _>>()?,
            signing: SigningKey::from_bytes(&bytes(&file.signing_key)?),
            names: NameKey(bytes(&file.name_key)?),
            certificate: file.certificate,
            file: Some(path.to_owned()),
        })
    }

    /// Returns the repository that it belongs to.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns its verifying key, in hexadecimal: the writer's name in the repository.
    pub fn key(&self) -> String {
        hex::encode(self.signing.verifying_key().as_bytes())
    }

    /// Returns the root key that it was created with, in hexadecimal.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Returns the file in which it remembers its recovery points, if it was read from a file.
    pub(crate) fn memory(&self) -> Option<PathBuf> {
        self.file.as_deref().map(memory::path_of)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), StoreError> {
        write_key_file(path, &self.encode()?)
    }

    /// Writes the key beside its place: its repository is not complete yet.
    pub(crate) fn begin(&self, path: &Path) -> Result<(), StoreError> {
        let begun = unfinished(path);
        // A whole one is used again: see `begun`.
        if let Err(error) = std::fs::remove_file(&begun)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(StoreError::KeyFile { file: begun.display().to_string(), problem: error.to_string() });
        }
        write_new(&begun, &self.encode()?)
    }

    /// Returns the key that an interrupted run began to make.
    pub(crate) fn begun(path: &Path) -> Option<WriterKey> {
        WriterKey::read(&unfinished(path)).ok()
    }

    /// Puts a key that was begun into its place.
    pub(crate) fn finish(path: &Path) -> Result<(), StoreError> {
        give_name(&unfinished(path), path)
    }

    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let file = WriterFile {
            fabkeep: crate::FORMAT,
            repository: self.repository.clone(),
            root: self.root.clone(),
            recipients: self.recipients.iter().map(ToString::to_string).collect(),
            signing_key: hex::encode(self.signing.to_bytes()),
            name_key: hex::encode(self.names.0),
            certificate: self.certificate.clone(),
        };
        serde_json::to_vec_pretty(&file).map_err(|error| StoreError::Internal(error.to_string()))
    }
}

pub(crate) fn parse_recipient(text: &str) -> Result<x25519::Recipient, StoreError> {
    x25519::Recipient::from_str(text).map_err(|_| StoreError::KeyFile {
        file: text.to_owned(),
        problem: "it is not an age recipient (age1…)".to_owned(),
    })
}

fn read_key_bytes(path: &Path) -> Result<Vec<u8>, StoreError> {
    let problem = |problem: String| StoreError::KeyFile { file: path.display().to_string(), problem };
    let size = std::fs::metadata(path).map_err(|error| problem(error.to_string()))?.len();
    if size > MAX_KEY_FILE_BYTES {
        return Err(problem(format!("{size} bytes are too large for a key file")));
    }
    let bytes = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    // Some editors begin a text with a byte order mark.
    Ok(bytes.strip_prefix("\u{feff}".as_bytes()).map(<[u8]>::to_vec).unwrap_or(bytes))
}

fn read_key_file(path: &Path) -> Result<String, StoreError> {
    let problem = |problem: &str| StoreError::KeyFile { file: path.display().to_string(), problem: problem.to_owned() };
    String::from_utf8(read_key_bytes(path)?).map_err(|_| problem("it is not text"))
}

/// Returns where a writer key is until its repository is complete: `FILE.unfinished`.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

/// Gives a complete key file its name. A file that has the name is not replaced.
fn give_name(from: &Path, path: &Path) -> Result<(), StoreError> {
    let problem = |problem: String| StoreError::KeyFile { file: path.display().to_string(), problem };
    match std::fs::hard_link(from, path) {
        Ok(()) => std::fs::remove_file(from),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(error),
        // File systems without links.
        Err(_) if path.symlink_metadata().is_err() => std::fs::rename(from, path),
        Err(error) => Err(error),
    }
    .map_err(|error| problem(error.to_string()))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // A folder that cannot be synced loses the name at most if the machine stops now.
        let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Key files are created, never overwritten, complete as soon as they have their names, and readable by their owner only.
fn write_key_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let begun = unfinished(path);
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::KeyFile { file: begun.display().to_string(), problem: error.to_string() });
        }
        _ => {}
    }
    write_new(&begun, bytes)?;
    give_name(&begun, path)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let problem =
        |error: std::io::Error| StoreError::KeyFile { file: path.display().to_string(), problem: error.to_string() };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(problem)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(problem)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // What is cut is no key.
        let _ = std::fs::remove_file(path);
        problem(error)
    })
}
