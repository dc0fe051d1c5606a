//! Reads protobuf messages without their definitions: fields in their order.

use crate::varint;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    /// A number of fixed length.
    Fixed,
}

/// Returns the fields of a message: number and content. Ends where the message does not decode.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let (tag, used) = varint::read(rest)?;
        let body = &rest[used..];
        let (value, len) = match tag & 7 {
            0 => varint::read(body).map(|(value, used)| (Value::Integer(value), used))?,
            1 => (Value::Fixed, 8),
            5 => (Value::Fixed, 4),
            2 => {
                let (len, used) = varint::read(body)?;
                let end = used.checked_add(usize::try_from(len).ok()?)?;
                (Value::Bytes(body.get(used..end)?), end)
            }
            _ => return None,
        };
        rest = body.get(len..)?;
        Some((tag >> 3, value))
    })
}

/// Returns every field of this number that holds bytes.
pub(crate) fn all(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |(of, value)| match value {
        Value::Bytes(bytes) if of == number => Some(bytes),
        _ => None,
    })
}

/// Returns the first field of this number that holds bytes.
pub(crate) fn bytes(message: &[u8], number: u64) -> Option<&[u8]> {
    all(message, number).next()
}

/// Returns the first field of this number that holds an integer.
pub(crate) fn integer(message: &[u8], number: u64) -> Option<u64> {
    fields(message).find_map(|(of, value)| match value {
        Value::Integer(integer) if of == number => Some(integer),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_number_and_kind_and_a_cut_message_ends_early() {
        let message = [0x08, 7, 0x12, 2, b'a', b'b', 0x1d, 1, 2, 3, 4, 0x12, 1, b'c'];
        assert_eq!((integer(&message, 1), bytes(&message, 2)), (Some(7), Some(&b"ab"[..])));
        assert_eq!(all(&message, 2).count(), 2);
        assert_eq!(fields(&message).count(), 4);
        assert_eq!(fields(&message[..5]).count(), 1);
        assert_eq!(fields(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]).count(), 0);
    }
}
