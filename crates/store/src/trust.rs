//! Trust: the root key is derived from the identity or pinned; it certifies writers.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Put};
use crate::config::{CONFIG, RepositoryConfig};
use crate::history::History;
use crate::keys::{IdentityFile, WriterKey};
use crate::remark::{Remark, RemarkKind};
use crate::signed::Opened;
use crate::{Repository, StoreError, signed};

/// Who signs a record of what is damaged.
pub enum Signer<'a> {
    /// Whoever holds the identity that the root follows from.
    Identity(&'a IdentityFile),
    /// A writer.
    Writer(&'a WriterKey),
}

#[derive(Serialize, Deserialize)]
struct WriterCertificate {
    key: String,
    created: String,
    /// The repository that the writer may write to. Absent in what older versions wrote: one root may have certified writers of several
    /// repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
}

/// A writer, and its certificate under `writers/`.
pub(crate) struct CertifiedWriter {
    pub key: VerifyingKey,
    pub certificate: String,
}

pub(crate) fn untrusted(object: &str, problem: &str) -> StoreError {
    StoreError::Untrusted { object: object.to_owned(), problem: problem.to_owned() }
}

/// Returns a writer's certificate for one repository, signed by the root.
pub(crate) fn certificate(key: &VerifyingKey, repository: &str, root: &SigningKey) -> Result<String, StoreError> {
    let certificate = WriterCertificate {
        key: hex::encode(key.as_bytes()),
        created: jiff::Timestamp::now().to_string(),
        repository: Some(repository.to_owned()),
    };
    let payload = serde_json::to_vec(&certificate).map_err(|error| StoreError::Internal(error.to_string()))?;
    let bytes = signed::sign("writer", &payload, root)?;
    String::from_utf8(bytes).map_err(|error| StoreError::Internal(error.to_string()))
}

/// Returns the name of a writer's certificate.
pub(crate) fn certificate_name(key: &VerifyingKey) -> String {
    format!("writers/{}", hex::encode(key.as_bytes()))
}

/// Returns the writer that a certificate names, when the repository's root has signed it for this repository.
pub(crate) fn certified(object: &str, bytes: &[u8], config: &RepositoryConfig) -> Result<VerifyingKey, StoreError> {
    let Opened { payload, signer, .. } = signed::open(object, "writer", bytes)?;
    if hex::encode(signer.as_bytes()) != config.root {
        return Err(untrusted(object, "its signer is not the repository's root"));
    }
    let (key, repository) = certificate_of(object, payload)?;
    match repository {
        Some(repository) if repository != config.id => {
            Err(untrusted(object, &format!("it certifies a writer of another repository, {repository}")))
        }
        None if config.bound_writers => {
            Err(untrusted(object, "it does not name the repository that its writer may write to"))
        }
        _ => Ok(key),
    }
}

/// Returns the key in a certificate's payload, and the repository that its writer may write to, if it names one.
pub(crate) fn certificate_of(object: &str, payload: &[u8]) -> Result<(VerifyingKey, Option<String>), StoreError> {
    let certificate: WriterCertificate =
        serde_json::from_slice(payload).map_err(|error| StoreError::damaged(object, error.to_string()))?;
    let mut key = [0; 32];
    let key = hex::decode_to_slice(&certificate.key, &mut key)
        .ok()
        .and_then(|()| VerifyingKey::from_bytes(&key).ok())
        .ok_or_else(|| StoreError::damaged(object, "its key does not decode"))?;
    Ok((key, certificate.repository))
}

/// Returns every writer that the root has certified; other objects among the certificates are reported and ignored.
pub(crate) fn read_writers(
    backend: &Backend,
    config: &RepositoryConfig,
) -> Result<(Vec<CertifiedWriter>, Vec<Remark>), StoreError> {
    let (mut writers, mut remarks) = (Vec::new(), Vec::new());
    for name in backend.list("writers")?.into_keys() {
        let Some(read) = backend.get_if_readable(&name)? else { continue };
        let found = read.and_then(|bytes| {
            let key = certified(&name, &bytes, config)?;
            let certificate = String::from_utf8(bytes).map_err(|_| StoreError::damaged(&name, "it is not text"))?;
            Ok(CertifiedWriter { key, certificate })
        });
        match found {
            Ok(writer) if certificate_name(&writer.key) == name => writers.push(writer),
            Ok(_) => remarks.push(Remark::new(RemarkKind::Foreign, &name, "it is the certificate of another key")),
            Err(error) => remarks.push(Remark::new(RemarkKind::Foreign, &name, error.problem())),
        }
    }
    Ok((writers, remarks))
}

/// The payload of a small signed record.
pub(crate) trait Record: DeserializeOwned {
    /// The repository that it was written for.
    fn repository(&self) -> &str;
}

/// Returns a record that is in an envelope. One that says that it was written for another repository is refused.
pub(crate) fn record_of<T: Record>(
    object: &str,
    opened: &Opened<'_>,
    config: &RepositoryConfig,
) -> Result<T, StoreError> {
    let damaged = |problem: String| StoreError::damaged(object, problem);
    let record: T = serde_json::from_slice(opened.payload).map_err(|error| damaged(error.to_string()))?;
    if record.repository() != config.id {
        return Err(damaged("it was written for another repository".to_owned()));
    }
    Ok(record)
}

/// Returns when a certificate was made, as it says.
pub(crate) fn created(object: &str, certificate: &str) -> Result<String, StoreError> {
    let opened = signed::open(object, "writer", certificate.as_bytes())?;
    let certificate: WriterCertificate =
        serde_json::from_slice(opened.payload).map_err(|error| StoreError::damaged(object, error.to_string()))?;
    Ok(certificate.created)
}

impl Repository {
    /// Refuses a root key that is not this one: hexadecimal, as `init` prints it. Identities that do not vouch for the root themselves read
    /// then.
    ///
    /// # Errors
    /// [`StoreError::Untrusted`].
    pub fn pin(mut self, root: &str) -> Result<Self, StoreError> {
        if !root.trim().eq_ignore_ascii_case(&self.config.root) {
            return Err(untrusted(
                CONFIG,
                &format!("it names the root key {}, which is not the pinned one", self.config.root),
            ));
        }
        self.pinned = true;
        Ok(self)
    }

    /// Returns the root key that follows from this identity, if the repository was made with it.
    pub(crate) fn root_of(&self, identity: &IdentityFile) -> Result<SigningKey, StoreError> {
        let own = |root: &SigningKey| hex::encode(root.verifying_key().as_bytes()) == self.config.root;
        if let Some(root) = identity.roots().into_iter().find(own) {
            return Ok(root);
        }
        if identity.recipients().iter().any(|own| self.config.recipients.contains(&own.to_string())) {
            return Err(StoreError::RootNotPinned { root: self.config.root.clone() });
        }
        Err(StoreError::WrongIdentity)
    }

    /// Refuses an identity that cannot read, and one that can where nothing says that the root is the right one.
    pub(crate) fn check_identity(&self, identity: &IdentityFile) -> Result<(), StoreError> {
        match self.root_of(identity) {
            Ok(_) => Ok(()),
            Err(StoreError::RootNotPinned { .. }) if self.pinned => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Refuses a writer key of another repository, and settings that changed since the key was made.
    pub(crate) fn check_writer(&self, writer: &WriterKey) -> Result<(), StoreError> {
        if writer.repository != self.config.id {
            return Err(StoreError::KeyFile {
                file: writer
                    .file
                    .as_ref()
                    .map_or_else(|| "the writer key".to_owned(), |file| file.display().to_string()),
                problem: format!(
                    "it belongs to repository {}, this is repository {}",
                    writer.repository, self.config.id
                ),
            });
        }
        let recipients: Vec<String> = writer.recipients.iter().map(ToString::to_string).collect();
        if writer.root != self.config.root || recipients != self.config.recipients {
            return Err(untrusted(CONFIG, "its root key or recipients differ from those in the writer key"));
        }
        self.check_not_revoked(writer)
    }

    /// Refuses a signer that the root key has not certified: the certificate is under `writers/`, or in the object itself.
    pub(crate) fn check_signer(&self, object: &str, opened: &Opened<'_>) -> Result<(), StoreError> {
        self.revoked.check(object, &opened.signer, opened.bytes)?;
        if self.writers.iter().any(|writer| writer.key == opened.signer) {
            return Ok(());
        }
        let own = opened.certificate.as_deref();
        if own.is_some_and(|own| certified(object, own.as_bytes(), &self.config).is_ok_and(|key| key == opened.signer))
        {
            return Ok(());
        }
        Err(untrusted(object, "its signer is not a writer of the repository, or the writer's certificate is missing"))
    }

    /// Refuses a signer that is neither the root nor a writer. Returns whether it is the root.
    pub(crate) fn check_writer_or_root(&self, object: &str, opened: &Opened<'_>) -> Result<bool, StoreError> {
        let by_root = hex::encode(opened.signer.as_bytes()) == self.config.root;
        if !by_root {
            self.check_signer(object, opened)?;
        }
        Ok(by_root)
    }

    /// Returns a record that is in an envelope. One that says that it was written for another repository is refused.
    pub(crate) fn record<T: Record>(&self, object: &str, opened: &Opened<'_>) -> Result<T, StoreError> {
        record_of(object, opened, &self.config)
    }

    /// Returns the writer's certificate, from its key file or a commit of its own.
    pub(crate) fn kept_certificate(&self, writer: &WriterKey, history: &History) -> Result<String, StoreError> {
        let key = writer.signing.verifying_key();
        let name = certificate_name(&key);
        let good = |text: &&String| certified(&name, text.as_bytes(), &self.config).is_ok_and(|own| own == key);
        let found = writer.certificate.iter().chain(history.certificates.iter()).find(good).cloned();
        found.ok_or_else(|| StoreError::NotCertified { key: hex::encode(key.as_bytes()) })
    }

    /// Returns the writer's certificate, from the repository, its key file, or a commit of its own; where it is gone from `writers/`, it is
    /// put again.
    pub(crate) fn certificate_of(
        &self,
        writer: &WriterKey,
        history: &History,
        remarks: &mut Vec<Remark>,
    ) -> Result<String, StoreError> {
        let key = writer.signing.verifying_key();
        if let Some(known) = self.writers.iter().find(|known| known.key == key) {
            return Ok(known.certificate.clone());
        }
        let certificate = self.kept_certificate(writer, history)?;
        let name = certificate_name(&key);
        let put = self.backend.put_new(&name, certificate.clone().into_bytes())?;
        remarks.push(match put {
            Put::Created => {
                Remark::new(RemarkKind::PutAgain, &name, "the writer's certificate was missing: it was written again")
            }
            Put::Exists => {
                Remark::new(RemarkKind::Damaged, &name, "the writer's certificate is damaged; its points carry a copy")
            }
        });
        Ok(certificate)
    }
}
