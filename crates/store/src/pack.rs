//! A pack: collects blobs until they fill an object, which is sealed and put under a new name.

use age::x25519;
use object_store::PutPayload;

use crate::backend::{Put, is_blocked};
use crate::index::ObjectEntry;
use crate::{BlobId, NameKey, Repository, StoreError, json, seal};

/// How many names are tried for an object.
const MAX_NAMES: usize = 1_000;

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

impl Repository {
    /// Seals bytes and puts them under their keyed name and a random number: a name that nobody has given and nobody will give again, also
    /// where this place and the copies of it forget different points.
    pub(crate) fn put_sealed(
        &self,
        names: &NameKey,
        recipients: &[x25519::Recipient],
        taken: &dyn Fn(&str) -> bool,
        plain: &[u8],
    ) -> Result<ObjectEntry, StoreError> {
        json::check_len("an object", plain.len())?;
        let sealed = seal::seal(plain, recipients)?;
        json::check_len("an object", sealed.len())?;
        let hash = names.name(plain).to_string();
        let size = sealed.len() as u64;
        let blake3 = blake3::hash(&sealed).to_hex().to_string();
        let sealed = PutPayload::from(sealed);
        for folder in folders(&hash) {
            for _ in 0..MAX_NAMES {
                let number = u32::from_le_bytes(self.chance.bytes());
                let name = format!("{folder}/{hash}.{number}");
                if taken(&name) {
                    continue;
                }
                match self.backend.put_once(&name, sealed.clone()) {
                    Ok(Put::Created) => return Ok(ObjectEntry { name, size, blake3, plain_size: plain.len() as u64 }),
                    Ok(Put::Exists) => {}
                    Err(StoreError::Backend { source, .. }) if is_blocked(&source) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Err(StoreError::Internal(format!("all names for object {hash} are taken")))
    }
}

/// Returns the folders for an object, its own first: the next one takes it where a file has a folder's name.
fn folders(hash: &str) -> impl Iterator<Item = String> {
    let own = hash.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(0);
    (0..=u8::MAX).map(move |further| format!("objects/{:02x}", own.wrapping_add(further)))
}
