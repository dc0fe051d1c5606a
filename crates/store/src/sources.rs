//! A writer's notes for its next capture, sealed with its own key: nobody else may read names of channels, heights and collections.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::index::Sources;
use crate::keys::WriterKey;
use crate::{MAX_OBJECT_BYTES, StoreError, json};

const CONTEXT: &str = "fabkeep 1 sources of a writer";
const NONCE_BYTES: usize = 12;

fn key_of(writer: &WriterKey) -> Result<RandomizedNonceKey, StoreError> {
    let key = blake3::derive_key(CONTEXT, &writer.signing.to_bytes());
    RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| StoreError::Internal("no key for the sources".to_owned()))
}

/// base64( nonce | AES-256-GCM( zstd( JSON ) ) ), bound to the index's name.
pub(crate) fn seal(sources: &Sources, writer: &WriterKey, index: &str) -> Result<String, StoreError> {
    let json = json::encode("what the next capture looks up", sources)?;
    let mut bytes = zstd::bulk::compress(&json, 3)?;
    let nonce = key_of(writer)?
        .seal_in_place_append_tag(Aad::from(index.as_bytes()), &mut bytes)
        .map_err(|_| StoreError::Internal("sealing the sources failed".to_owned()))?;
    let mut out = nonce.as_ref().to_vec();
    out.extend(bytes);
    Ok(BASE64.encode(out))
}

/// Opens them; `None` when another writer sealed them, or they are damaged: they are a help only.
pub(crate) fn open(sealed: &str, writer: &WriterKey, index: &str) -> Option<Sources> {
    use std::io::Read;
    let mut bytes = BASE64.decode(sealed).ok()?;
    if bytes.len() < NONCE_BYTES {
        return None;
    }
    let nonce = Nonce::try_assume_unique_for_key(bytes.get(..NONCE_BYTES)?).ok()?;
    let plain =
        key_of(writer).ok()?.open_in_place(nonce, Aad::from(index.as_bytes()), bytes.get_mut(NONCE_BYTES..)?).ok()?;
    let mut json = Vec::new();
    zstd::Decoder::new(&*plain).ok()?.take(MAX_OBJECT_BYTES).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}
