//! The index: what a writer must know of earlier points. It is readable without the identity and contains only keyed hashes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{BlobId, StoreError, json};

/// An object: its name and what its bytes must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its name in the repository.
    pub name: String,
    /// Sealed size in bytes.
    pub size: u64,
    /// BLAKE3 of the sealed bytes, hex.
    pub blake3: String,
    /// Size of what is inside, in bytes.
    pub plain_size: u64,
}

/// A blob's place: `(name, object, offset, length)`; `object` counts in the list beside, offset and length are in bytes of what
/// is inside the object.
pub(crate) type BlobEntry = (BlobId, u32, u64, u64);

/// An object that was packed anew: its name, the BLAKE3 of its sealed bytes, and the names of the objects that hold what was needed of it.
pub(crate) type MovedEntry = (String, String, Vec<String>);

/// State of the captured sources, by keyed name, as the engine wants to find it at the next capture.
pub type Sources = BTreeMap<String, serde_json::Value>;

/// An index as stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Every object that the point needs (a checkpoint: that the run has written).
    pub objects: Vec<ObjectEntry>,
    /// Blobs that the run has added, in those objects.
    pub blobs: Vec<BlobEntry>,
    /// As older versions wrote it; empty now.
    pub sources: Sources,
    /// What the next capture looks up, sealed for the writer itself; absent in a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_sources: Option<String>,
    /// Objects that a prune packed anew: name, BLAKE3, and the objects that hold what was needed of them. Only the root says so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<MovedEntry>,
}

impl Index {
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        Ok(zstd::bulk::compress(&json::encode("the index", self)?, 3)?)
    }

    pub fn decode(object: &str, payload: &[u8]) -> Result<Index, StoreError> {
        use std::io::Read;
        let mut json = Vec::new();
        zstd::Decoder::new(payload)
            .and_then(|decoder| decoder.take(crate::MAX_OBJECT_BYTES).read_to_end(&mut json))
            .map_err(|error| StoreError::damaged(object, error.to_string()))?;
        let index: Index =
            serde_json::from_slice(&json).map_err(|error| StoreError::damaged(object, error.to_string()))?;
        for (_, position, offset, len) in &index.blobs {
            let inside = index
                .objects
                .get(*position as usize)
                .is_some_and(|entry| offset.checked_add(*len).is_some_and(|end| end <= entry.plain_size));
            if !inside {
                return Err(StoreError::damaged(object, "a blob is outside its object"));
            }
        }
        Ok(index)
    }
}
