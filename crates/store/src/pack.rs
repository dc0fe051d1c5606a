//! A pack: collects blobs until they fill an object.

use crate::BlobId;

/// Bytes at which a pack becomes an object.
pub(crate) const PACK_BYTES: usize = 16 << 20;

/// Blobs one behind the other.
#[derive(Default)]
pub(crate) struct Pack {
    pub bytes: Vec<u8>,
    pub blobs: Vec<(BlobId, u64, u64)>,
}

impl Pack {
    pub fn push(&mut self, id: BlobId, bytes: &[u8]) {
        self.blobs.push((id, self.bytes.len() as u64, bytes.len() as u64));
        self.bytes.extend_from_slice(bytes);
    }

    pub fn is_full(&self, pack_bytes: usize) -> bool {
        self.bytes.len() >= pack_bytes
    }
}
