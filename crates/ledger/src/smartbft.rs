//! A SmartBFT orderer's write-ahead log (Fabric 3): framed records with a running CRC-32C; no preallocation, no snapshots.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::raft::{MAX_FILE_BYTES, MAX_RECORD_BYTES, RaftError};
use crate::{Hash, varint, wire};

/// The checksum that the first file of a log begins with.
const FIRST_CRC: u32 = 0xdeed_0001;
const ANCHOR: u64 = 2;
const FIRST_FILE: &str = "0000000000000001.wal";

/// What a directory of log files says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmartBftSummary {
    /// Log files.
    pub files: usize,
    /// Records that carry data.
    pub entries: u64,
    /// An incomplete last record: its file and offset in bytes.
    pub torn: Option<(String, u64)>,
    /// Blocks that the entries propose: number and header hash, in the log's order.
    pub proposals: Vec<(u64, Hash)>,
    /// The consenter that wrote the log: who signed its last commit message.
    pub signer: Option<u64>,
}

/// Returns the number in a log file's name, `NNNNNNNNNNNNNNNN.wal`.
pub fn wal_file_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Returns a log that nothing was written to yet, as an orderer makes it: the first file's name, and its bytes.
pub fn empty_log() -> (&'static str, Vec<u8>) {
    let record = [0x08, ANCHOR as u8];
    let mut out = (u64::from(FIRST_CRC) << 32 | record.len() as u64).to_le_bytes().to_vec();
    out.extend(record);
    out.resize(16, 0);
    (FIRST_FILE, out)
}

/// Reads and checks every log file of a directory.
///
/// # Errors
/// [`RaftError`], the first found.
pub fn check_wal_directory(directory: &Path) -> Result<SmartBftSummary, RaftError> {
    let io = |source| RaftError::Io { file: directory.display().to_string(), source };
    let mut files: Vec<(u64, String, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = wal_file_number(&name) {
            files.push((number, name, entry.path()));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(RaftError::Missing("the directory holds no log file (*.wal)".to_owned()));
    }
    let mut summary = SmartBftSummary { files: files.len(), ..SmartBftSummary::default() };
    let mut crc = None;
    let count = files.len();
    for (position, (number, name, path)) in files.iter().enumerate() {
        let expected = files[0].0 + position as u64;
        if *number != expected {
            return Err(RaftError::Missing(format!("log file {expected:016x}.wal is missing, while {name} is there")));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
            .map_err(|source| RaftError::Io { file: name.clone(), source })?;
        let mut on_entry = |body: &[u8]| {
            summary.entries += 1;
            let Some(saved) = wire::bytes(body, DATA) else { return };
            summary.proposals.extend(proposal(saved));
            summary.signer = signer(saved).or(summary.signer);
        };
        if let Some(offset) = check_file(name, &bytes, &mut crc, &mut on_entry)? {
            if position + 1 < count {
                let problem = "a record is truncated, and later log files exist".to_owned();
                return Err(RaftError::Corrupt { file: name.clone(), offset, problem });
            }
            summary.torn = Some((name.clone(), offset));
        }
    }
    Ok(summary)
}

/// A record's field that holds what was saved.
const DATA: u64 = 3;

/// Returns the block that a saved message proposes: `proposed_record.pre_prepare.proposal.header` is a block header in DER.
fn proposal(saved: &[u8]) -> Option<(u64, Hash)> {
    let proposal = wire::bytes(wire::bytes(wire::bytes(saved, 1)?, 1)?, 3)?;
    let header = wire::bytes(proposal, 1)?;
    // SEQUENCE { INTEGER number, … }: all lengths are below 128.
    let (&[0x30, _, 0x02, len], rest) = header.split_first_chunk::<4>()? else { return None };
    let digits = rest.get(..usize::from(len)).filter(|digits| (1..=9).contains(&digits.len()))?;
    let number = digits.iter().try_fold(0u64, |sum, &byte| sum.checked_mul(256)?.checked_add(u64::from(byte)))?;
    Some((number, crate::sha256(&[header])))
}

/// Who signed a saved commit message: `commit.commit.signature.signer`.
fn signer(saved: &[u8]) -> Option<u64> {
    wire::integer(wire::bytes(wire::bytes(wire::bytes(saved, 2)?, 3)?, 4)?, 1)
}

/// Checks one file; the offset of an incomplete record at its end, if there is one.
fn check_file(
    name: &str,
    bytes: &[u8],
    crc: &mut Option<u32>,
    on_entry: &mut dyn FnMut(&[u8]),
) -> Result<Option<u64>, RaftError> {
    let mut at = 0;
    while at < bytes.len() {
        let bad = |problem: &str| RaftError::Corrupt {
            file: name.to_owned(),
            offset: at as u64,
            problem: problem.to_owned(),
        };
        let Some(header) = bytes[at..].first_chunk::<8>() else { return Ok(Some(at as u64)) };
        let header = u64::from_le_bytes(*header);
        let (len, stored) = (header & 0xffff_ffff, (header >> 32) as u32);
        if len == 0 || len > MAX_RECORD_BYTES {
            return Err(bad("the record's length is out of range"));
        }
        let padded = len.div_ceil(8) * 8;
        let start = at + 8;
        let Some(data) = usize::try_from(padded).ok().and_then(|padded| bytes.get(start..start + padded)) else {
            // The length is not covered by the checksum: see whether the rest of the file is a whole record.
            let whole = crc.is_some_and(|crc| crc32c::crc32c_append(crc, &bytes[start..]) == stored);
            return if whole { Err(bad("the record's length does not match its data")) } else { Ok(Some(at as u64)) };
        };
        let (body, padding) = data.split_at(len as usize);
        let kind = record_type(body).ok_or_else(|| bad("the record does not decode"))?;
        if kind == ANCHOR {
            if stored != crc.unwrap_or(stored) || padding.iter().any(|&byte| byte != 0) {
                return Err(bad("the file does not continue the one before it"));
            }
            if crc.is_none() && name == FIRST_FILE && stored != FIRST_CRC {
                return Err(bad("the log's first checksum is wrong"));
            }
            *crc = Some(stored);
        } else {
            let Some(running) = crc else { return Err(bad("the log does not begin with a checksum record")) };
            let running = crc32c::crc32c_append(*running, data);
            if running != stored || padding.iter().any(|&byte| byte != 0) {
                return Err(bad("the record's checksum is wrong"));
            }
            *crc = Some(running);
            on_entry(body);
        }
        at = start + data.len();
    }
    Ok(None)
}

/// Returns the record's type: field 1, absent for an ordinary entry; then `truncate_to` and `data` in order, filling the record.
fn record_type(body: &[u8]) -> Option<u64> {
    let mut at = 0;
    let mut integer = |tag: u8| -> Option<Option<u64>> {
        if body.get(at) != Some(&tag) {
            return Some(None);
        }
        let (value, used) = varint::read(&body[at + 1..])?;
        at += 1 + used;
        Some(Some(value))
    };
    let kind = integer(0x08)?.unwrap_or(0);
    integer(0x10)?;
    let len = integer(0x1a)?;
    let end = len.map_or(Some(at), |len| at.checked_add(usize::try_from(len).ok()?))?;
    (kind <= ANCHOR && end == body.len()).then_some(kind)
}
