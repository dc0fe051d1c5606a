//! Raft snapshot files: a checksum around the raft metadata and one complete block.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use prost::Message;

use super::{MAX_FILE_BYTES, RaftError, corrupt};
use crate::Hash;
use crate::proto::{common, raft as proto};

/// What a snapshot file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftSnapshot {
    /// The file's name.
    pub file: String,
    /// Raft term.
    pub term: u64,
    /// Raft index: entries up to here are in it.
    pub index: u64,
    /// Number of the block in it.
    pub block: Option<u64>,
    /// Header hash of the block in it.
    pub block_hash: Option<Hash>,
}

/// The term and index in a snapshot file's name.
fn snapshot_file_name(name: &str) -> Option<(u64, u64)> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    Some((u64::from_str_radix(term, 16).ok()?, u64::from_str_radix(index, 16).ok()?))
}

/// Reads and checks one snapshot file.
///
/// # Errors
/// [`RaftError`].
pub fn read_snapshot(path: &Path) -> Result<RaftSnapshot, RaftError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|source| RaftError::Io { file: name.clone(), source })?;
    let bad = |problem: &str| corrupt(&name, 0, problem);
    let file = proto::SnapshotFile::decode(bytes.as_slice()).map_err(|_| bad("the snapshot does not decode"))?;
    if file.data.is_empty() || crc32c::crc32c(&file.data) != file.crc || file.encode_to_vec() != bytes {
        return Err(bad("the snapshot's checksum is wrong"));
    }
    let snapshot = proto::Snapshot::decode(file.data.as_slice()).map_err(|_| bad("the snapshot does not decode"))?;
    let metadata = snapshot.metadata.unwrap_or_default();
    if snapshot_file_name(&name) != Some((metadata.term, metadata.index)) {
        return Err(bad(&format!("it holds term {} index {}, its name says otherwise", metadata.term, metadata.index)));
    }
    let block = common::Block::decode(snapshot.data.as_slice()).ok().and_then(|block| block.header);
    let block = block.map(|header| {
        let whole = header.previous_hash.len() <= 32 && header.data_hash.len() <= 32;
        let der = whole.then(|| crate::block::header_der(header.number, &header.previous_hash, &header.data_hash));
        (header.number, der.map(|der| crate::sha256(&[&der])))
    });
    Ok(RaftSnapshot {
        file: name,
        term: metadata.term,
        index: metadata.index,
        block: block.map(|(number, _)| number),
        block_hash: block.and_then(|(_, hash)| hash),
    })
}

/// Reads and checks every snapshot file of a directory; the newest, if there is one.
///
/// # Errors
/// [`RaftError`], the first found.
pub fn newest_snapshot(directory: &Path) -> Result<Option<RaftSnapshot>, RaftError> {
    let io = |source| RaftError::Io { file: directory.display().to_string(), source };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "snap") {
            paths.push(path);
        }
    }
    let mut newest: Option<RaftSnapshot> = None;
    for path in paths {
        let snapshot = read_snapshot(&path)?;
        if newest.as_ref().is_none_or(|newest| snapshot.index > newest.index) {
            newest = Some(snapshot);
        }
    }
    Ok(newest)
}
