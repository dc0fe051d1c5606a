//! Writes the elements of etcd's log and snapshot files. etcd writes every integer of its messages, even if it is zero.

use super::RecordKind;
use crate::varint;

/// Appends a record to a log file's bytes. `crc` is the checksum that runs through the file; without data the record has no field for it.
pub fn write_log_record(kind: RecordKind, data: Option<&[u8]>, crc: &mut u32, out: &mut Vec<u8>) {
    *crc = crc32c::crc32c_append(*crc, data.unwrap_or_default());
    let mut body = Vec::new();
    integers(&[(1, kind as u64), (2, u64::from(*crc))], &mut body);
    if let Some(data) = data {
        bytes(3, data, &mut body);
    }
    let pad = (8 - body.len() % 8) % 8;
    let frame = body.len() as u64 | if pad > 0 { (0x80 | pad as u64) << 56 } else { 0 };
    out.extend(frame.to_le_bytes());
    out.extend(body);
    out.resize(out.len() + pad, 0);
}

/// Appends fields that hold integers: number and value. A field's number is below 16.
pub(super) fn integers(fields: &[(u8, u64)], out: &mut Vec<u8>) {
    for &(number, value) in fields {
        out.push(number << 3);
        varint::write(value, out);
    }
}

/// Appends a field that holds bytes.
pub(super) fn bytes(number: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint::write(value.len() as u64, out);
    out.extend_from_slice(value);
}
