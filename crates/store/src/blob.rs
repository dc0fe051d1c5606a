//! Names of blobs: keyed BLAKE3 hashes, so that a name does not confirm a guess of the content.

use serde::{Deserialize, Serialize};

/// The key that names are made with. Not secret enough to read anything, secret enough to confirm a guess.
#[derive(Clone, PartialEq, Eq)]
pub struct NameKey(pub(crate) [u8; 32]);

impl NameKey {
    /// Names these bytes.
    pub fn name(&self, bytes: &[u8]) -> BlobId {
        BlobId(*blake3::keyed_hash(&self.0, bytes).as_bytes())
    }

    /// Names bytes that come piece by piece.
    pub fn hasher(&self) -> BlobHasher {
        BlobHasher(blake3::Hasher::new_keyed(&self.0))
    }

    /// Names bytes that come in several parts, or a place: `parts` are hashed with their lengths.
    pub fn name_of(&self, parts: &[&str]) -> BlobId {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        BlobId(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Debug for NameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameKey(…)")
    }
}

/// Makes a name of bytes that come piece by piece.
#[derive(Debug, Clone)]
pub struct BlobHasher(blake3::Hasher);

impl BlobHasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the name of all pieces in order.
    pub fn finish(&self) -> BlobId {
        BlobId(*self.0.finalize().as_bytes())
    }
}

/// A blob's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(pub [u8; 32]);

impl std::fmt::Display for BlobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for BlobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(BlobId(bytes))
    }
}
