//! Heights from block files: the last file of each chain contains its last block.

use std::collections::BTreeMap;

use fabkeep_ledger::block_file::{
    BOOTSTRAPPING_SNAPSHOT, BlockFileExtent, BootstrappingSnapshot, ChainReader, StartAt, file_name, file_number,
};
use fabkeep_ledger::layout::Kind;
use fabkeep_network::NodeDirectory;

use crate::{EntryKind, Volume};

/// Bytes of blocks looked at in one go.
const BATCH_BYTES: usize = 1 << 20;
/// Longest `bootstrappingSnapshot.info`.
const MAX_SNAPSHOT_INFO_BYTES: u64 = 1 << 16;

/// Heights of the chains in a directory of a node, by channel.
///
/// # Errors
/// Why a chain cannot be read, in words.
pub fn heights(volume: &dyn Volume, directory: &NodeDirectory) -> Result<Vec<(String, u64)>, String> {
    let entries = volume.list("").map_err(|error| error.to_string())?;
    let mut chains: BTreeMap<(String, String), Vec<BlockFileExtent>> = BTreeMap::new();
    let mut snapshots: Vec<(String, u64)> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        let Some((folder, name)) = entry.path.rsplit_once('/') else { continue };
        if name == BOOTSTRAPPING_SNAPSHOT {
            snapshots.push((folder.to_owned(), entry.stamp.size));
        }
        let Kind::BlockFile(channel) = directory.classify(&entry.path, false).kind else { continue };
        let Some(number) = file_number(name) else { continue };
        let extent = BlockFileExtent { number, len: entry.stamp.size };
        chains.entry((channel, folder.to_owned())).or_default().push(extent);
    }
    let mut out = Vec::new();
    for ((channel, folder), mut files) in chains {
        files.sort_by_key(|file| file.number);
        let snapshot = snapshots.iter().find(|(known, _)| *known == folder);
        let base = snapshot.map_or(0, |(_, size)| joined_at(volume, &folder, *size));
        out.push((channel, height(volume, &folder, files)?.unwrap_or(base)));
    }
    Ok(out)
}

/// Returns the height at which a ledger joined by snapshot begins.
fn joined_at(volume: &dyn Volume, folder: &str, size: u64) -> u64 {
    use std::io::Read;
    let mut bytes = Vec::new();
    let path = format!("{folder}/{BOOTSTRAPPING_SNAPSHOT}");
    let read = volume
        .open(&path, 0..size.min(MAX_SNAPSHOT_INFO_BYTES))
        .and_then(|file| file.take(MAX_SNAPSHOT_INFO_BYTES).read_to_end(&mut bytes));
    let parsed = read.ok().and_then(|_| BootstrappingSnapshot::parse(&bytes));
    parsed.map_or(0, |snapshot| snapshot.last_block.saturating_add(1))
}

/// Returns the number after the last complete block, from the last file that contains one. `None` if there is no block.
fn height(volume: &dyn Volume, folder: &str, mut files: Vec<BlockFileExtent>) -> Result<Option<u64>, String> {
    while let Some(last) = files.last().copied() {
        let open = Box::new(move |number: u32, offset: u64| {
            volume.open(&format!("{folder}/{}", file_name(number)), offset..last.len)
        });
        let start = StartAt { file: last.number, offset: 0, number: None };
        let mut reader = ChainReader::new(vec![last], start, open);
        let mut height = None;
        while let Some(batch) = reader.next_batch(BATCH_BYTES, u64::MAX).map_err(|error| error.to_string())? {
            height = batch.blocks.last().map(|span| span.number.saturating_add(1)).or(height);
        }
        if height.is_some() {
            return Ok(height);
        }
        files.pop();
    }
    Ok(None)
}
