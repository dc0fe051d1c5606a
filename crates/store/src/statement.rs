//! Statements about recovery points that leave the repository. They are signed as its records are, and checked without
//! it: a writer's certificate is in the envelope.

use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

use crate::trust::{Signer, certificate_of, untrusted};
use crate::{Repository, StoreError, signed};

/// The kind of the envelope.
const KIND: &str = "attestation";

/// An opened statement. Its signature is good; whose key it is, only somebody who knows the key can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What was signed.
    pub payload: Vec<u8>,
    /// The key that signed it, hexadecimal.
    pub signer: String,
    /// The root key that certified the signer as a writer of the repository, or the signer itself, if the statement
    /// says that it is the root.
    pub root: Option<String>,
}

/// What a statement says of its repository.
#[derive(Deserialize)]
struct Origin {
    repository: String,
    root: String,
}

impl Repository {
    /// Signs a statement about a recovery point. The payload must be JSON with `repository` and `root` of this
    /// repository.
    ///
    /// # Errors
    /// [`StoreError`] when the signer is not the repository's.
    pub fn sign_statement(&self, payload: &[u8], signer: &Signer<'_>) -> Result<Vec<u8>, StoreError> {
        match signer {
            Signer::Identity(identity) => signed::sign(KIND, payload, &self.root_of(identity)?),
            Signer::Writer(writer) => {
                self.check_writer(writer)?;
                let key = writer.signing.verifying_key();
                let known = self.writers.iter().find(|known| known.key == key).map(|known| known.certificate.as_str());
                let certificate = known.or(writer.certificate.as_deref());
                signed::sign_certified(KIND, payload, &writer.signing, certificate)
            }
        }
    }
}

/// Opens a statement. With `key` (hexadecimal) it must be signed by that key, or by a writer that this root key has
/// certified.
///
/// # Errors
/// [`StoreError::Damaged`] when it is no statement or its signature is wrong, [`StoreError::Untrusted`] when somebody
/// else signed it.
pub fn open_statement(name: &str, bytes: &[u8], key: Option<&str>) -> Result<Statement, StoreError> {
    let opened = signed::open(name, KIND, bytes)?;
    let origin: Origin =
        serde_json::from_slice(opened.payload).map_err(|error| StoreError::damaged(name, error.to_string()))?;
    let signer = hex::encode(opened.signer.as_bytes());
    let certified = opened.certificate.as_deref().map(|text| vouched(name, text, &opened.signer, &origin.repository));
    let root = match certified.transpose()? {
        Some(root) => Some(root),
        None => (signer == origin.root).then(|| signer.clone()),
    };
    if root.as_ref().is_some_and(|root| *root != origin.root) {
        return Err(untrusted(name, "it names another root key than the one that certified its signer"));
    }
    if let Some(key) = key.map(|key| key.trim().to_ascii_lowercase())
        && signer != key
        && root.as_deref() != Some(key.as_str())
    {
        let by = root.as_deref().unwrap_or(&signer);
        return Err(untrusted(name, &format!("it is signed by {by}, not by the expected key")));
    }
    Ok(Statement { payload: opened.payload.to_vec(), signer, root })
}

/// Returns the root key that certified a writer for a repository.
fn vouched(name: &str, certificate: &str, writer: &VerifyingKey, repository: &str) -> Result<String, StoreError> {
    let opened = signed::open(name, "writer", certificate.as_bytes())?;
    let (key, of) = certificate_of(name, opened.payload)?;
    if key != *writer {
        return Err(untrusted(name, "the certificate in it is one of another writer"));
    }
    if of.is_some_and(|of| of != repository) {
        return Err(untrusted(name, "its signer was certified for another repository"));
    }
    Ok(hex::encode(opened.signer.as_bytes()))
}
