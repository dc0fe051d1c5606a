//! Signed envelopes: a line of JSON with the signer and the signature, then the payload.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::StoreError;

#[derive(Serialize, Deserialize)]
struct Head {
    fabkeep: u32,
    kind: String,
    signer: String,
    signature: String,
    /// A copy of the signer's certificate under `writers/`: the object can be trusted even if that one is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

/// An opened envelope. Its signature is good; whether to trust the signer is the caller's.
pub(crate) struct Opened<'a> {
    pub payload: &'a [u8],
    pub signer: VerifyingKey,
    pub certificate: Option<String>,
    /// The whole object.
    pub bytes: &'a [u8],
}

/// Longest first line, in bytes.
const MAX_HEAD_BYTES: usize = 4096;

/// Returns the signed bytes: the envelope's kind and the payload, so that one kind cannot be used as another.
fn message(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("fabkeep {} {kind}\n", crate::FORMAT).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// Puts a payload into a signed envelope.
pub(crate) fn sign(kind: &str, payload: &[u8], key: &SigningKey) -> Result<Vec<u8>, StoreError> {
    sign_certified(kind, payload, key, None)
}

/// Returns the same, with the signer's certificate.
pub(crate) fn sign_certified(
    kind: &str,
    payload: &[u8],
    key: &SigningKey,
    certificate: Option<&str>,
) -> Result<Vec<u8>, StoreError> {
    let head = Head {
        fabkeep: crate::FORMAT,
        kind: kind.to_owned(),
        signer: hex::encode(key.verifying_key().as_bytes()),
        signature: hex::encode(key.sign(&message(kind, payload)).to_bytes()),
        certificate: certificate.map(str::to_owned),
    };
    let mut out = serde_json::to_vec(&head).map_err(|error| StoreError::Internal(error.to_string()))?;
    out.push(b'\n');
    out.extend_from_slice(payload);
    Ok(out)
}

/// Opens a signed envelope.
pub(crate) fn open<'a>(object: &str, kind: &str, bytes: &'a [u8]) -> Result<Opened<'a>, StoreError> {
    let damaged = |problem: &str| StoreError::damaged(object, problem);
    let end = bytes
        .iter()
        .take(MAX_HEAD_BYTES)
        .position(|&byte| byte == b'\n')
        .ok_or_else(|| damaged("it is empty, cut or no signed object: it does not begin with an envelope"))?;
    let head: Head = serde_json::from_slice(&bytes[..end]).map_err(|_| damaged("its envelope does not decode"))?;
    if head.fabkeep != crate::FORMAT {
        return Err(StoreError::Version { found: head.fabkeep });
    }
    if head.kind != kind {
        return Err(damaged(&format!("it is a {}, not a {kind}", head.kind)));
    }
    let payload = &bytes[end + 1..];
    let parse = || -> Option<(VerifyingKey, Signature)> {
        let mut key = [0; 32];
        hex::decode_to_slice(&head.signer, &mut key).ok()?;
        let mut signature = [0; 64];
        hex::decode_to_slice(&head.signature, &mut signature).ok()?;
        Some((VerifyingKey::from_bytes(&key).ok()?, Signature::from_bytes(&signature)))
    };
    let (key, signature) = parse().ok_or_else(|| damaged("its signature does not decode"))?;
    key.verify_strict(&message(kind, payload), &signature).map_err(|_| damaged("its signature is wrong"))?;
    Ok(Opened { payload, signer: key, certificate: head.certificate, bytes })
}
