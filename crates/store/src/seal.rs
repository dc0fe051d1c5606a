//! Sealing: zstd inside age. `age -d -i identity FILE | zstd -d` opens an object without fabkeep.

use std::io::{Read, Write};

use age::x25519;

use crate::{MAX_OBJECT_BYTES, StoreError};

const LEVEL: i32 = 3;
/// Largest zstd window, as a power of two: 128 MiB is what `zstd -d` accepts without being asked.
const MAX_WINDOW_LOG: u32 = 27;

fn internal(error: impl std::fmt::Display) -> StoreError {
    StoreError::Internal(format!("sealing failed: {error}"))
}

/// Compresses and encrypts to every recipient.
pub(crate) fn seal(plain: &[u8], recipients: &[x25519::Recipient]) -> Result<Vec<u8>, StoreError> {
    let encryptor =
        age::Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient))
            .map_err(internal)?;
    let mut sealed = Vec::with_capacity(plain.len() / 3 + 1024);
    let output = encryptor.wrap_output(&mut sealed).map_err(internal)?;
    let mut compressor = zstd::Encoder::new(output, LEVEL).map_err(internal)?;
    compressor.set_pledged_src_size(Some(plain.len() as u64)).map_err(internal)?;
    // Nodes of one channel repeat each other at a distance: look further back than a level's default window.
    let window_log = usize::BITS - plain.len().max(1 << 20).leading_zeros();
    compressor.window_log(window_log.min(MAX_WINDOW_LOG)).map_err(internal)?;
    compressor.long_distance_matching(true).map_err(internal)?;
    compressor.write_all(plain).map_err(internal)?;
    compressor.finish().and_then(|output| output.finish()).map_err(internal)?;
    Ok(sealed)
}

/// Decrypts and decompresses `object`'s bytes; `expected` is its plain size, if it is known.
pub(crate) fn open(
    object: &str,
    sealed: &[u8],
    identities: &[x25519::Identity],
    expected: Option<u64>,
) -> Result<Vec<u8>, StoreError> {
    let damaged = |problem: String| StoreError::damaged(object, problem);
    let decryptor = age::Decryptor::new(sealed).map_err(|error| damaged(error.to_string()))?;
    let input = match decryptor.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity)) {
        Ok(input) => input,
        Err(age::DecryptError::NoMatchingKeys) => return Err(StoreError::WrongIdentity),
        Err(error) => return Err(damaged(error.to_string())),
    };
    let mut decompressor = zstd::Decoder::new(input).map_err(|error| damaged(error.to_string()))?;
    decompressor.window_log_max(MAX_WINDOW_LOG).map_err(|error| damaged(error.to_string()))?;
    let limit = expected.unwrap_or(MAX_OBJECT_BYTES).min(MAX_OBJECT_BYTES);
    let mut plain = Vec::with_capacity(expected.unwrap_or(0).min(64 << 20) as usize);
    decompressor.take(limit + 1).read_to_end(&mut plain).map_err(|error| damaged(error.to_string()))?;
    if plain.len() as u64 > limit || expected.is_some_and(|expected| expected != plain.len() as u64) {
        return Err(damaged(format!("{} bytes inside, {limit} expected", plain.len())));
    }
    Ok(plain)
}
