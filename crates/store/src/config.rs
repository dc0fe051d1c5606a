//! The repository's settings, `fabkeep.json`: readable by everybody, signed by the root key, written once.

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::{StoreError, signed};

/// The repository format that this version reads and writes.
pub const FORMAT: u32 = 1;
/// The settings' name in the repository.
pub(crate) const CONFIG: &str = "fabkeep.json";

/// The repository's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryConfig {
    /// The repository's identifier, random.
    pub id: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Verifying key (ed25519, hex) of the root, which says who may write. It follows from the identity.
    pub root: String,
    /// Who can read: age recipients.
    pub recipients: Vec<String>,
    /// The naming key, sealed to the recipients, base64: the identity's holder can make new writers.
    pub sealed_name_key: String,
    /// Each place that holds the repository has a name; older ones get one when it is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub places: bool,
    /// Every writer's certificate names the repository; absent in what older versions made, whose certificates need not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bound_writers: bool,
}

impl RepositoryConfig {
    /// Reads the settings: a signed envelope, whose signer must be the root that the settings name. A key file or an identity
    /// says whether that root is the right one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, StoreError> {
        let signed::Opened { payload, signer, .. } = signed::open(CONFIG, "repository", bytes)?;
        let config: RepositoryConfig =
            serde_json::from_slice(payload).map_err(|error| StoreError::damaged(CONFIG, error.to_string()))?;
        if config.root != hex::encode(signer.as_bytes()) {
            return Err(StoreError::damaged(CONFIG, "its signer is not the root key that it names"));
        }
        Ok(config)
    }

    pub(crate) fn sign(&self, root: &SigningKey) -> Result<Vec<u8>, StoreError> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| StoreError::Internal(error.to_string()))?;
        signed::sign("repository", &json, root)
    }
}
