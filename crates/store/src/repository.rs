//! A repository: made once, opened often.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Put};
use crate::commit::{Commit, PointId};
use crate::config::{CONFIG, RepositoryConfig};
use crate::keys::{IdentityFile, WriterKey, parse_recipient};
use crate::{NameKey, StoreError, location, seal, signed};

/// A commit record's object name, and the record or why it cannot be read.
pub type NamedCommit = (String, Result<Commit, StoreError>);

/// An open repository.
pub struct Repository {
    pub(crate) backend: Backend,
    pub(crate) config: RepositoryConfig,
    writers: Vec<VerifyingKey>,
}

/// What `init` made.
#[derive(Debug, Clone, Serialize)]
pub struct Initialized {
    /// The repository's identifier.
    pub id: String,
    /// Who can read.
    pub recipients: Vec<String>,
    /// Where the identity (private key) is.
    pub identity_file: String,
    /// Whether the identity was made now, or was there before.
    pub identity_is_new: bool,
    /// Where the writer key is.
    pub writer_file: String,
}

#[derive(Serialize, Deserialize)]
struct WriterCertificate {
    key: String,
    created: String,
}

/// Where the two key files go; `None`: `<default folder>/<repository id>.identity` and `.writer`.
fn key_file(given: Option<&Path>, id: &str, extension: &str) -> Result<std::path::PathBuf, StoreError> {
    match given {
        Some(path) => Ok(path.to_path_buf()),
        None => crate::default_key_folder().map(|folder| folder.join(format!("{id}.{extension}"))).ok_or_else(|| {
            StoreError::KeyFile {
                file: extension.to_owned(),
                problem: "no place to write it: HOME is not set; name a file".to_owned(),
            }
        }),
    }
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
        let place = location::open(location, true)?;
        let folder = place.folder.clone();
        let backend = Backend::new(place)?;
        if backend.get(CONFIG)?.is_some() {
            return Err(StoreError::AlreadyARepository(location.to_owned()));
        }
        if folder.is_some_and(|folder| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())) {
            return Err(StoreError::FolderNotEmpty(location.to_owned()));
        }
        let id = hex::encode(rand::random::<[u8; 8]>());
        let more = more_recipients.iter().map(|text| parse_recipient(text)).collect::<Result<Vec<_>, _>>()?;
        let identity_path = key_file(identity_file, &id, "identity")?;
        let identity_is_new = !identity_path.exists();
        let identity = if identity_is_new {
            let identity = IdentityFile::generate();
            identity.write(&identity_path, location)?;
            identity
        } else {
            IdentityFile::read(&identity_path)?
        };
        let root = identity
            .roots()
            .into_iter()
            .next()
            .ok_or_else(|| StoreError::Internal("the identity file holds no identity".to_owned()))?;
        let recipients: Vec<_> = identity.recipients().into_iter().chain(more).collect();
        let names = NameKey(rand::random());
        let config = RepositoryConfig {
            id: id.clone(),
            created: jiff::Timestamp::now().to_string(),
            root: hex::encode(root.verifying_key().as_bytes()),
            recipients: recipients.iter().map(ToString::to_string).collect(),
            sealed_name_key: BASE64.encode(seal::seal(&names.0, &recipients)?),
        };
        let writer = WriterKey {
            repository: id.clone(),
            root: config.root.clone(),
            recipients,
            signing: SigningKey::from_bytes(&rand::random()),
            names,
        };
        let writer_path = key_file(writer_file, &id, "writer")?;
        writer.write(&writer_path)?;
        certify(&backend, &writer.signing.verifying_key(), &root)?;
        if backend.put_new(CONFIG, config.sign(&root)?)? == Put::Exists {
            return Err(StoreError::AlreadyARepository(location.to_owned()));
        }
        Ok(Initialized {
            id,
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
        let backend = Backend::new(location::open(location, false)?)?;
        let Some(bytes) = backend.get(CONFIG)? else {
            return Err(StoreError::NotARepository(location.to_owned()));
        };
        let config = RepositoryConfig::parse(&bytes)?;
        let mut writers = Vec::new();
        for name in backend.list("writers")?.into_keys() {
            let bytes = backend.need(&name)?;
            let (payload, signer) = signed::open(&name, "writer", &bytes)?;
            if hex::encode(signer.as_bytes()) != config.root {
                return Err(untrusted(&name, "its signer is not the repository's root"));
            }
            let certificate: WriterCertificate =
                serde_json::from_slice(payload).map_err(|error| StoreError::damaged(&name, error.to_string()))?;
            let mut key = [0; 32];
            let key = hex::decode_to_slice(&certificate.key, &mut key)
                .ok()
                .and_then(|()| VerifyingKey::from_bytes(&key).ok())
                .ok_or_else(|| StoreError::damaged(&name, "its key does not decode"))?;
            writers.push(key);
        }
        Ok(Repository { backend, config, writers })
    }

    /// Where it is, as it was given.
    pub fn location(&self) -> &str {
        &self.backend.name
    }

    /// The folder it lies in, when it is one.
    pub fn folder(&self) -> Option<&Path> {
        self.backend.folder.as_deref()
    }

    /// Its settings.
    pub fn config(&self) -> &RepositoryConfig {
        &self.config
    }

    /// Makes a key for one more writer; the identity's holder may.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_writer(&self, identity: &IdentityFile, writer_file: &Path) -> Result<(), StoreError> {
        let root = self.root_of(identity)?;
        let sealed = BASE64
            .decode(&self.config.sealed_name_key)
            .map_err(|_| StoreError::damaged(CONFIG, "the naming key does not decode"))?;
        let names = seal::open(CONFIG, &sealed, &identity.identities, Some(32))?;
        let names = <[u8; 32]>::try_from(names.as_slice())
            .map_err(|_| StoreError::damaged(CONFIG, "the naming key does not decode"))?;
        let writer = WriterKey {
            repository: self.config.id.clone(),
            root: self.config.root.clone(),
            recipients: self.config.recipients.iter().map(|text| parse_recipient(text)).collect::<Result<_, _>>()?,
            signing: SigningKey::from_bytes(&rand::random()),
            names: NameKey(names),
        };
        writer.write(writer_file)?;
        certify(&self.backend, &writer.signing.verifying_key(), &root)
    }

    /// The root key that follows from this identity, if the repository was made with it.
    pub(crate) fn root_of(&self, identity: &IdentityFile) -> Result<SigningKey, StoreError> {
        if let Some(root) =
            identity.roots().into_iter().find(|root| hex::encode(root.verifying_key().as_bytes()) == self.config.root)
        {
            return Ok(root);
        }
        let known = identity.recipients().iter().any(|own| self.config.recipients.contains(&own.to_string()));
        if known {
            return Err(untrusted(CONFIG, "its root key does not follow from this identity"));
        }
        Err(StoreError::WrongIdentity)
    }

    /// Refuses a writer key of another repository, and settings that changed since the key was made.
    pub(crate) fn check_writer(&self, writer: &WriterKey) -> Result<(), StoreError> {
        if writer.repository != self.config.id {
            return Err(StoreError::KeyFile {
                file: "the writer key".to_owned(),
                problem: format!(
                    "it belongs to repository {}, this is repository {}",
                    writer.repository, self.config.id
                ),
            });
        }
        let recipients: Vec<String> = writer.recipients.iter().map(ToString::to_string).collect();
        if writer.root != self.config.root || recipients != self.config.recipients {
            return Err(untrusted(CONFIG, "root or recipients are not those that the writer key was made with"));
        }
        self.check_signer("the writer key", &writer.signing.verifying_key())
    }

    pub(crate) fn check_signer(&self, object: &str, signer: &VerifyingKey) -> Result<(), StoreError> {
        if self.writers.contains(signer) {
            Ok(())
        } else {
            Err(untrusted(object, "its signer is no writer of the repository"))
        }
    }

    /// Every committed recovery point, oldest first; a damaged commit record is an error in its place.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed.
    pub fn points(&self) -> Result<Vec<NamedCommit>, StoreError> {
        let names: BTreeMap<String, u64> = self.backend.list("points")?;
        Ok(names.into_keys().map(|name| (name.clone(), self.read_commit(&name))).collect())
    }

    /// One recovery point's commit record. `latest` and unambiguous beginnings of a name are understood.
    ///
    /// # Errors
    /// [`StoreError::NoSuchPoint`] and others.
    pub fn point(&self, wanted: &str) -> Result<Commit, StoreError> {
        let names = self.backend.list("points")?;
        let mut matching = names.keys().filter(|name| {
            let id = name.trim_start_matches("points/");
            wanted == "latest" || (!wanted.is_empty() && id.starts_with(wanted))
        });
        match (matching.next(), matching.next_back()) {
            (Some(name), None) => self.read_commit(name),
            (Some(_), Some(newest)) if wanted == "latest" => self.read_commit(newest),
            (Some(_), Some(_)) => Err(StoreError::NoSuchPoint(format!("{wanted} (more than one begins so)"))),
            (None, _) => Err(StoreError::NoSuchPoint(wanted.to_owned())),
        }
    }

    fn read_commit(&self, name: &str) -> Result<Commit, StoreError> {
        let bytes = self.backend.need(name)?;
        let (payload, signer) = signed::open(name, "commit", &bytes)?;
        self.check_signer(name, &signer)?;
        let commit = Commit::parse(name, payload)?;
        if commit.repository != self.config.id
            || PointId::parse(commit.id.as_str()).is_none()
            || commit.id.commit_name() != name
        {
            return Err(untrusted(name, "it was written for another repository or point"));
        }
        Ok(commit)
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

fn certify(backend: &Backend, key: &VerifyingKey, root: &SigningKey) -> Result<(), StoreError> {
    let certificate =
        WriterCertificate { key: hex::encode(key.as_bytes()), created: jiff::Timestamp::now().to_string() };
    let payload = serde_json::to_vec(&certificate).map_err(|error| StoreError::Internal(error.to_string()))?;
    backend.put_new(&format!("writers/{}", certificate.key), signed::sign("writer", &payload, root)?)?;
    Ok(())
}

fn untrusted(object: &str, problem: &str) -> StoreError {
    StoreError::Untrusted { object: object.to_owned(), problem: problem.to_owned() }
}
