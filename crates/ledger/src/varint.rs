//! Protobuf's unsigned base-128 integers, as block files use them for every length.

/// Longest encoding of a 64-bit integer, in bytes.
pub const MAX_BYTES: usize = 10;

/// Reads one integer from the front of `bytes`: the value and the bytes it took.
///
/// `None` when `bytes` ends inside the integer, when it does not fit 64 bits, or when it is not the shortest encoding
/// (Fabric writes only the shortest, and a rebuilt file must equal its source bit for bit).
pub fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        let low = u64::from(byte & 0x7f);
        if i == 9 && byte > 1 {
            return None;
        }
        value |= low << (7 * i);
        if byte & 0x80 == 0 {
            return (i == 0 || byte != 0).then_some((value, i + 1));
        }
    }
    None
}

/// Appends `value` to `out`.
pub fn write(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_integer_comes_back(value: u64) {
            let mut out = Vec::new();
            write(value, &mut out);
            prop_assert_eq!(read(&out), Some((value, out.len())));
        }
    }

    #[test]
    fn a_cut_a_padded_and_an_overlong_integer_are_refused() {
        assert_eq!(read(&[0x80]), None);
        assert_eq!(read(&[0x80, 0x00]), None);
        assert_eq!(read(&[0xff; 11]), None);
    }
}
