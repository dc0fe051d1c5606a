//! JSON with a limit: a document that would exceed the limit of readers is detected while it is written, before memory is allocated for it.

use std::io::{self, Write};

use serde::Serialize;

use crate::{MAX_OBJECT_BYTES, StoreError};

/// Takes bytes up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: u64,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.bytes.len() as u64 + buffer.len() as u64 > self.limit {
            self.full = true;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.bytes.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the value as JSON of at most as many bytes as a reader accepts.
///
/// # Errors
/// [`StoreError::TooLarge`] with `what`.
pub(crate) fn encode(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    encode_within(what, value, MAX_OBJECT_BYTES)
}

fn encode_within(what: &'static str, value: &impl Serialize, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut out = Bounded { bytes: Vec::new(), limit, full: false };
    match serde_json::to_writer(&mut out, value) {
        Ok(()) => Ok(out.bytes),
        Err(_) if out.full => Err(StoreError::TooLarge { what, limit }),
        Err(error) => Err(StoreError::Internal(error.to_string())),
    }
}

/// Refuses bytes that a reader would.
///
/// # Errors
/// [`StoreError::TooLarge`] with `what`.
pub(crate) fn check_len(what: &'static str, len: usize) -> Result<(), StoreError> {
    if len as u64 > MAX_OBJECT_BYTES {
        return Err(StoreError::TooLarge { what, limit: MAX_OBJECT_BYTES });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_limit_is_refused_and_what_is_at_it_is_not() {
        let value = vec![7u8; 1000];
        let len = serde_json::to_vec(&value).unwrap().len() as u64;
        assert_eq!(encode_within("x", &value, len).unwrap().len() as u64, len);
        assert!(matches!(encode_within("x", &value, len - 1), Err(StoreError::TooLarge { what: "x", .. })));
        assert!(
            check_len("x", MAX_OBJECT_BYTES as usize).is_ok() && check_len("x", MAX_OBJECT_BYTES as usize + 1).is_err()
        );
    }
}
