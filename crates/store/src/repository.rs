//! A repository: creates and opens it.

use std::path::Path;
use std::sync::Arc;

use age::x25519;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;
use object_store::ObjectStore;
use serde::Serialize;

use crate::backend::{Backend, Put};
use crate::config::{CONFIG, RepositoryConfig};
use crate::history::is_known;
use crate::keys::{IdentityFile, Passphrase, WriterKey, parse_recipient};
use crate::location::Location;
use crate::pack::PACK_BYTES;
use crate::remark::Remark;
use crate::revoked::{self, Revocations};
use crate::trust::{self, CertifiedWriter};
use crate::{Chance, Clock, NameKey, StoreError, forgotten, location, seal};

/// An open repository.
pub struct Repository {
    pub(crate) backend: Backend,
    pub(crate) config: RepositoryConfig,
    pub(crate) writers: Vec<CertifiedWriter>,
    pub(crate) revoked: Revocations,
    /// Objects among the writers' certificates and the revocations that are none.
    pub(crate) remarks: Vec<Remark>,
    /// Whether something else than the identity says that the root is the right one.
    pub(crate) pinned: bool,
    /// What time it is.
    pub(crate) clock: Clock,
    /// Where random parts of names come from.
    pub(crate) chance: Chance,
    /// Bytes at which a pack becomes an object; a blob of a sixteenth of them gets one of its own.
    pub(crate) pack_bytes: usize,
}

/// What `init` made.
#[derive(Debug, Clone, Serialize)]
pub struct Initialized {
    /// The repository's identifier.
    pub id: String,
    /// The root key, which says who may write: hexadecimal. It can be pinned by it.
    pub root: String,
    /// Who can read.
    pub recipients: Vec<String>,
    /// Where the identity (private key) is.
    pub identity_file: String,
    /// Whether the identity was made now, or was there before.
    pub identity_is_new: bool,
    /// Where the writer key is.
    pub writer_file: String,
}

/// Returns where the two key files go; `None`: `<default folder>/<repository id>.identity` and `.writer`.
fn key_file(given: Option<&Path>, id: &str, extension: &str) -> Result<std::path::PathBuf, StoreError> {
    match given {
        Some(path) => Ok(path.to_path_buf()),
        None => crate::default_key_folder().map(|folder| folder.join(format!("{id}.{extension}"))).ok_or_else(|| {
            StoreError::KeyFile {
                file: extension.to_owned(),
                problem: "HOME is not set: name the file to write".to_owned(),
            }
        }),
    }
}

/// Returns what a place without settings is.
fn without_settings(backend: &Backend, location: &str) -> Result<StoreError, StoreError> {
    for folder in ["points", "manifests", "objects"] {
        if backend.list(folder)?.into_keys().any(|name| is_known(&name)) {
            return Ok(StoreError::NoSettings { location: location.to_owned(), folder });
        }
    }
    Ok(StoreError::NotARepository(location.to_owned()))
}

/// Refuses a place that holds something: a repository without its settings, or something else. What an interrupted `init` or copy leaves
/// behind is nothing.
pub(crate) fn check_empty(backend: &Backend, location: &str) -> Result<(), StoreError> {
    if let error @ StoreError::NoSettings { .. } = without_settings(backend, location)? {
        let problem = format!("{error}; copy fabkeep.json from a copy of the repository");
        return Err(StoreError::Location { location: location.to_owned(), problem });
    }
    let left = |name: &String| *name == forgotten::PLACE || name.starts_with("writers/") && is_known(name);
    if backend.folder.is_some() && !backend.list("")?.keys().all(left) {
        return Err(StoreError::FolderNotEmpty(location.to_owned()));
    }
    Ok(())
}

impl Repository {
    /// Makes a repository at `location` (a folder or URL). An identity file that exists is used, else one is made.
    ///
    /// # Errors
    /// [`StoreError`]; nothing that exists is changed.
    pub fn init(
        location: &str,
        identity_file: Option<&Path>,
        writer_file: Option<&Path>,
        more_recipients: &[String],
    ) -> Result<Initialized, StoreError> {
        Repository::init_with(location, identity_file, writer_file, more_recipients, &Passphrase::none())
    }

    /// Makes a repository whose identity file may be protected by a passphrase.
    ///
    /// # Errors
    /// As [`Repository::init`].
    pub fn init_with(
        location: &str,
        identity_file: Option<&Path>,
        writer_file: Option<&Path>,
        more_recipients: &[String],
        passphrase: &Passphrase<'_>,
    ) -> Result<Initialized, StoreError> {
        // A key is not replaced, and nothing is made before that is known.
        if let Some(file) = writer_file.filter(|file| file.symlink_metadata().is_ok()) {
            return Err(StoreError::KeyFile {
                file: file.display().to_string(),
                problem: "it exists already: name another file for this repository's writer key".to_owned(),
            });
        }
        let (place, files) = (location::open(location, true)?, (identity_file, writer_file));
        Repository::init_at(location, place, files, more_recipients, (&Chance::default(), passphrase))
    }

    /// Makes a repository in an object store that is open.
    ///
    /// # Errors
    /// [`StoreError`]; nothing that exists is changed.
    pub fn init_in(
        store: Arc<dyn ObjectStore>,
        identity_file: &Path,
        writer_file: &Path,
    ) -> Result<Initialized, StoreError> {
        Repository::init_repeatable(store, identity_file, writer_file, &Chance::default())
    }

    /// Makes one whose names of blobs are the same each time.
    #[doc(hidden)]
    pub fn init_repeatable(
        store: Arc<dyn ObjectStore>,
        identity_file: &Path,
        writer_file: &Path,
        chance: &Chance,
    ) -> Result<Initialized, StoreError> {
        let place = Location::of(store);
        let files = (Some(identity_file), Some(writer_file));
        Repository::init_at(&place.name.clone(), place, files, &[], (chance, &Passphrase::none()))
    }

    fn init_at(
        location: &str,
        place: Location,
        (identity_file, writer_file): (Option<&Path>, Option<&Path>),
        more_recipients: &[String],
        (chance, passphrase): (&Chance, &Passphrase<'_>),
    ) -> Result<Initialized, StoreError> {
        let backend = Backend::new(place)?;
        // What an interrupted run has begun is gone on with: its settings may be there already.
        let begun = writer_file.and_then(WriterKey::begun).filter(|writer| writer.certificate.is_some());
        if let Some(bytes) = backend.get(CONFIG)? {
            let config = RepositoryConfig::parse(&bytes)?;
            return match (begun, writer_file, identity_file) {
                (Some(begun), Some(writer), Some(identity)) if begun.repository == config.id && identity.exists() => {
                    WriterKey::finish(writer)?;
                    Ok(Initialized {
                        id: config.id,
                        root: config.root,
                        recipients: config.recipients,
                        identity_file: identity.display().to_string(),
                        identity_is_new: false,
                        writer_file: writer.display().to_string(),
                    })
                }
                _ => Err(StoreError::AlreadyARepository(location.to_owned())),
            };
        }
        check_empty(&backend, location)?;
        // A key that was begun for another place is none of this one: this place has its certificate.
        let begun = match begun {
            Some(begun) if backend.has(&trust::certificate_name(&begun.signing.verifying_key()))? => Some(begun),
            _ => None,
        };
        let id = match &begun {
            Some(begun) => begun.repository.clone(),
            None => hex::encode(rand::random::<[u8; 8]>()),
        };
        let more = more_recipients.iter().map(|text| parse_recipient(text)).collect::<Result<Vec<_>, _>>()?;
        let identity_path = key_file(identity_file, &id, "identity")?;
        let identity_is_new = !identity_path.exists();
        let identity = if identity_is_new {
            let identity = IdentityFile::generate();
            identity.write(&identity_path, location, passphrase)?;
            identity
        } else {
            IdentityFile::read_with(&identity_path, passphrase)?
        };
        let root = identity
            .roots()
            .into_iter()
            .next()
            .ok_or_else(|| StoreError::Internal("the identity file contains no identity".to_owned()))?;
        let recipients: Vec<_> = identity.recipients().into_iter().chain(more).collect();
        let root_text = hex::encode(root.verifying_key().as_bytes());
        let as_begun = |begun: &WriterKey| {
            let own = begun.recipients.iter().map(ToString::to_string).eq(recipients.iter().map(ToString::to_string));
            own && begun.root == root_text
        };
        let was_begun = begun.is_some();
        let begun = begun.filter(as_begun);
        // A key file in the key folder has the repository's name already.
        let renamed = was_begun && begun.is_none() && identity_file.is_some();
        let id = if renamed { hex::encode(rand::random::<[u8; 8]>()) } else { id };
        let names = begun.as_ref().map_or_else(|| NameKey(chance.bytes()), |begun| begun.names.clone());
        let config = RepositoryConfig {
            id: id.clone(),
            created: jiff::Timestamp::now().to_string(),
            root: root_text,
            recipients: recipients.iter().map(ToString::to_string).collect(),
            sealed_name_key: BASE64.encode(seal::seal(&names.0, &recipients)?),
            places: true,
            bound_writers: true,
        };
        let (signing, certificate) = match begun {
            Some(WriterKey { signing, certificate: Some(certificate), .. }) => (signing, certificate),
            _ => {
                let signing = SigningKey::from_bytes(&chance.bytes());
                let certificate = trust::certificate(&signing.verifying_key(), &id, &root)?;
                (signing, certificate)
            }
        };
        let writer = WriterKey {
            repository: id.clone(),
            root: config.root.clone(),
            recipients,
            signing,
            names,
            certificate: Some(certificate.clone()),
            file: None,
        };
        let writer_path = key_file(writer_file, &id, "writer")?;
        writer.begin(&writer_path)?;
        backend.put_new(&trust::certificate_name(&writer.signing.verifying_key()), certificate.into_bytes())?;
        backend.put_new(forgotten::PLACE, forgotten::new_place())?;
        if backend.put_once(CONFIG, config.sign(&root)?)? == Put::Exists {
            return Err(StoreError::AlreadyARepository(location.to_owned()));
        }
        WriterKey::finish(&writer_path)?;
        Ok(Initialized {
            id,
            root: config.root,
            recipients: config.recipients,
            identity_file: identity_path.display().to_string(),
            identity_is_new,
            writer_file: writer_path.display().to_string(),
        })
    }

    /// Opens the repository at `location`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(location: &str) -> Result<Repository, StoreError> {
        Repository::open_at(location::open(location, false)?)
    }

    /// Opens the repository in an object store that is open.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_in(store: Arc<dyn ObjectStore>) -> Result<Repository, StoreError> {
        Repository::open_at(Location::of(store))
    }

    fn open_at(place: Location) -> Result<Repository, StoreError> {
        let location = place.name.clone();
        let backend = Backend::new(place)?;
        let Some(bytes) = backend.get(CONFIG)? else {
            return Err(without_settings(&backend, &location)?);
        };
        let config = RepositoryConfig::parse(&bytes)?;
        let (clock, chance) = (Clock::default(), Chance::default());
        Repository::with_parts(backend, config, false, clock, chance, PACK_BYTES)
    }

    fn with_parts(
        backend: Backend,
        config: RepositoryConfig,
        pinned: bool,
        clock: Clock,
        chance: Chance,
        pack_bytes: usize,
    ) -> Result<Repository, StoreError> {
        let (writers, mut remarks) = trust::read_writers(&backend, &config)?;
        let (revoked, more) = revoked::read(&backend, &config)?;
        remarks.extend(more);
        Ok(Repository { backend, config, writers, revoked, remarks, pinned, clock, chance, pack_bytes })
    }

    /// Returns the same, which goes by another clock.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock(self, clock: &Clock) -> Self {
        Repository { clock: clock.clone(), ..self }
    }

    /// Returns the same, with names that are the same each time, one request after the other, and small packs.
    #[doc(hidden)]
    #[must_use]
    pub fn repeatable(mut self, chance: &Chance, pack_bytes: usize) -> Self {
        self.backend.readers = 1;
        Repository { chance: chance.clone(), pack_bytes, ..self }
    }

    /// Returns the same repository in another place.
    pub(crate) fn at_another_place(&self, backend: Backend) -> Result<Repository, StoreError> {
        let (clock, chance) = (self.clock.clone(), self.chance.clone());
        Repository::with_parts(backend, self.config.clone(), self.pinned, clock, chance, self.pack_bytes)
    }

    /// Returns its location, as it was given.
    pub fn location(&self) -> &str {
        &self.backend.name
    }

    /// Returns the folder it lies in, when it is one.
    pub fn folder(&self) -> Option<&Path> {
        self.backend.folder.as_deref()
    }

    /// Returns its settings.
    pub fn config(&self) -> &RepositoryConfig {
        &self.config
    }

    /// Makes a key for one more writer; the identity's holder may. A writer key file of this repository that exists is certified again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_writer(&self, identity: &IdentityFile, writer_file: &Path) -> Result<(), StoreError> {
        let root = self.root_of(identity)?;
        if writer_file.exists() {
            let writer = WriterKey::read(writer_file)?;
            self.check_writer(&writer)?;
            let key = writer.signing.verifying_key();
            let certificate = trust::certificate(&key, &self.config.id, &root)?;
            let put = self.backend.put_new(&trust::certificate_name(&key), certificate.into_bytes())?;
            return match put {
                Put::Created => Ok(()),
                Put::Exists => Err(StoreError::KeyFile {
                    file: writer_file.display().to_string(),
                    problem: "it exists, and its certificate is in the repository".to_owned(),
                }),
            };
        }
        let signing = SigningKey::from_bytes(&self.chance.bytes());
        let certificate = trust::certificate(&signing.verifying_key(), &self.config.id, &root)?;
        let writer = WriterKey {
            repository: self.config.id.clone(),
            root: self.config.root.clone(),
            recipients: self.recipients()?,
            signing,
            names: self.name_key(identity)?,
            certificate: Some(certificate.clone()),
            file: None,
        };
        writer.write(writer_file)?;
        self.backend.put_new(&trust::certificate_name(&writer.signing.verifying_key()), certificate.into_bytes())?;
        Ok(())
    }

    /// Returns who can read what is put.
    pub(crate) fn recipients(&self) -> Result<Vec<x25519::Recipient>, StoreError> {
        self.config.recipients.iter().map(|text| parse_recipient(text)).collect()
    }

    /// Returns the key for the names of blobs.
    pub(crate) fn name_key(&self, identity: &IdentityFile) -> Result<NameKey, StoreError> {
        let damaged = || StoreError::damaged(CONFIG, "the naming key does not decode");
        let sealed = BASE64.decode(&self.config.sealed_name_key).map_err(|_| damaged())?;
        let names = seal::open(CONFIG, &sealed, &identity.identities, Some(32))?;
        Ok(NameKey(<[u8; 32]>::try_from(names.as_slice()).map_err(|_| damaged())?))
    }

    /// Bytes and number of all objects in the repository, referenced or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage(&self) -> Result<(u64, u64), StoreError> {
        let all = self.backend.list("")?;
        Ok((all.values().sum(), all.len() as u64))
    }
}
