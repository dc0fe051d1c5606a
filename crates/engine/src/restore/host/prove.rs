//! The proof of a restore: the written data is read from the disk and compared with the captured data, every chain is read up to the
//! recorded height and header hash, and every database and log is checked as in a capture.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use fabkeep_ledger::chain::walk_directory;
use fabkeep_ledger::layout::Kind;
use fabkeep_ledger::leveldb::Database;
use fabkeep_ledger::{raft, smartbft};
use fabkeep_network::{NodeId, WalKind};
use fabkeep_platform::{EntryKind, HostVolume, Volume};
use fabkeep_store::NameKey;

use super::Run;
use super::plan::PlannedDirectory;
use crate::content::channel_of;
use crate::error::io;
use crate::event::{Event, Reporter};
use crate::point::{CapturedDirectory, CapturedEntry, EntryContent, Part, RecoveryPoint};
use crate::restore::progress::Record;
use crate::{Difference, EngineError};
use fabkeep_parallel as parallel;

/// Bytes read at a time: few enough to stay in a core's cache between reading and hashing.
const READ_BYTES: usize = 256 << 10;

/// Proves every directory of the plan where it is now: staged, or in its place already. What was proven, in sentences. Directories that an
/// earlier run has put into place and whose node was started since are not read: the node writes to them.
pub(super) fn prove(run: &Run<'_>, record: &Record) -> Result<Vec<String>, EngineError> {
    let (plan, point, reader, threads, reporter) = (run.plan, run.point, &run.whole.reader, run.threads, run.reporter);
    let mut files = Vec::new();
    let mut chains: Vec<Chain> = Vec::new();
    let mut sentences = Vec::new();
    let mut databases = 0;
    let mut logs = 0;
    for (index, planned) in plan.directories.iter().enumerate() {
        let settled = record.is_settled(index);
        if settled && record.is_started(&planned.id.to_string()) {
            continue;
        }
        if record.is_loaded(index) {
            sentences
                .push(format!("{}: an earlier run has loaded its dump and compared the database with it", planned.id));
            continue;
        }
        let root = Root { planned, settled };
        let captured = &point.nodes[planned.node].directories[planned.directory];
        for entry in &captured.entries {
            let path = root.path(&entry.path);
            match &entry.content {
                EntryContent::File { size, parts } => {
                    if let Some(channel) = channel_of(parts) {
                        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
                        let chain = Chain { node: planned.id.clone(), channel: channel.to_owned(), folder };
                        if !chains.contains(&chain) {
                            chains.push(chain);
                        }
                    }
                    files.push((path, *size, parts.as_slice()));
                }
                EntryContent::Directory if !path.is_dir() => {
                    return Err(unproven(&path, "the directory is missing".to_owned()));
                }
                EntryContent::Symlink { target } => {
                    let found = std::fs::read_link(&path).map_err(io(&path))?;
                    if found != Path::new(target) {
                        return Err(unproven(&path, "the link leads to another target".to_owned()));
                    }
                }
                EntryContent::Directory => {}
            }
        }
        for file in &planned.kept {
            let path = root.path(&file.entry.path);
            if std::fs::read(&path).map_err(io(&path))? != file.bytes {
                return Err(unproven(&path, "it is not what was there before".to_owned()));
            }
        }
        if !planned.kept.is_empty() {
            sentences.push(planned.kept_sentence());
        }
        databases += check_databases(&root, captured)?;
        logs += check_logs(&root, captured, &point.nodes[planned.node].facts.raft)?;
    }
    let count = files.len();
    // A large one at the end would be waited for.
    files.sort_by_key(|(_, size, _)| Reverse(*size));
    let names = reader.names();
    let results = parallel::map(files, threads, |(path, size, parts)| {
        if reporter.is_interrupted() {
            return Err(EngineError::Stopped);
        }
        let result = compare(&path, size, parts, names);
        reporter.event(Event::Advance { bytes: parts.iter().map(|part| part.len).sum(), blocks: 0 });
        result
    });
    results.into_iter().collect::<Result<Vec<()>, _>>()?;
    let mut proven = vec![format!(
        "{count} files read back from the disk: bit for bit equal to the captured ones, with the same holes"
    )];
    proven.extend(walk_chains(point, &chains, threads, reporter)?);
    if databases + logs > 0 {
        proven.push(format!("{databases} LevelDB directories and {logs} consensus logs intact"));
    }
    proven.extend(sentences);
    Ok(proven)
}

/// Where a directory is now.
struct Root<'a> {
    planned: &'a PlannedDirectory,
    /// In its place.
    settled: bool,
}

impl Root<'_> {
    fn path(&self, path: &str) -> PathBuf {
        if self.settled { self.planned.staging.placed(path) } else { self.planned.staging.staged(path) }
    }
}

/// A node's chain of a channel.
#[derive(PartialEq, Eq)]
struct Chain {
    node: NodeId,
    channel: String,
    folder: PathBuf,
}

/// Whether a directory holds exactly what was captured of it, and nothing else. Files of it that are known to be so are not read again.
pub(super) fn is_as_captured(planned: &PlannedDirectory, captured: &CapturedDirectory, names: &NameKey) -> bool {
    let staging = &planned.staging;
    let existing = HostVolume::new(staging.place.clone()).following_links();
    let Ok(mut found) = existing.list("") else { return false };
    let is_captured = |path: &str| captured.entries.iter().any(|entry| entry.path == path);
    found.retain(|entry| staging.is_part(&entry.path) && (!staging.is_fixed(&entry.path) || is_captured(&entry.path)));
    let own =
        |uid, gid, entry: &CapturedEntry| !rustix::process::geteuid().is_root() || (uid, gid) == (entry.uid, entry.gid);
    let is_known = |position: usize| planned.same.iter().flatten().any(|file| file.position == position);
    found.len() == captured.entries.len()
        && found.iter().zip(&captured.entries).enumerate().all(|(position, (found, entry))| {
            let same = match (&found.kind, &entry.content) {
                (EntryKind::Directory, EntryContent::Directory) => found.mode == entry.mode,
                (EntryKind::Symlink(to), EntryContent::Symlink { target }) => to == target,
                (EntryKind::File, EntryContent::File { size, parts }) => {
                    let is_same =
                        || is_known(position) || compare(&staging.placed(&entry.path), *size, parts, names).is_ok();
                    found.mode == entry.mode && is_same()
                }
                _ => false,
            };
            same && found.path == entry.path && own(found.uid, found.gid, entry)
        })
}

fn unproven(path: &Path, problem: String) -> EngineError {
    Difference::new(path.display(), problem).into()
}

/// Reads a file and compares every part's hash, and that everything else is zero.
pub(super) fn compare(path: &Path, size: u64, parts: &[Part], names: &NameKey) -> Result<(), EngineError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(unproven(path, "the file is missing".to_owned()));
        }
        other => other.map_err(io(path))?,
    };
    let found = file.metadata().map_err(io(path))?.len();
    if found != size {
        return Err(unproven(path, format!("it has {found} bytes, {size} were captured")));
    }
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(READ_BYTES).min(READ_BYTES)];
    for part in parts {
        let expected = *part.content.hash();
        let mut hash = names.hasher();
        file.seek(SeekFrom::Start(part.offset)).map_err(io(path))?;
        let mut left = part.len;
        while left > 0 {
            let take = left.min(buffer.len() as u64) as usize;
            file.read_exact(&mut buffer[..take]).map_err(io(path))?;
            hash.update(&buffer[..take]);
            left -= take as u64;
        }
        if hash.finish() != expected {
            return Err(unproven(path, format!("bytes {} to {} differ", part.offset, part.offset + part.len)));
        }
    }
    let gaps = gaps(size, parts);
    if gaps.is_empty() {
        return Ok(());
    }
    // What no part covers must be zero; holes are, data between them is read.
    let volume = HostVolume::new(path.to_path_buf());
    for range in volume.data_ranges("", size).map_err(io(path))? {
        for gap in &gaps {
            let (mut at, end) = (gap.start.max(range.start), gap.end.min(range.end));
            while at < end {
                let take = (end - at).min(buffer.len() as u64) as usize;
                file.seek(SeekFrom::Start(at)).map_err(io(path))?;
                file.read_exact(&mut buffer[..take]).map_err(io(path))?;
                if buffer[..take].iter().any(|&byte| byte != 0) {
                    return Err(unproven(path, format!("bytes from {at} on should be zero")));
                }
                at += take as u64;
            }
        }
    }
    Ok(())
}

fn gaps(size: u64, parts: &[Part]) -> Vec<std::ops::Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = 0;
    for part in parts {
        if part.offset > at {
            gaps.push(at..part.offset);
        }
        at = part.offset + part.len;
    }
    if size > at {
        gaps.push(at..size);
    }
    gaps
}

fn walk_chains(
    point: &RecoveryPoint,
    chains: &[Chain],
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<Vec<String>, EngineError> {
    let mut proven = Vec::new();
    let mut by_channel: std::collections::BTreeMap<&str, (u64, Vec<u64>)> = std::collections::BTreeMap::new();
    let of_each = threads.div_ceil(chains.len().max(1));
    let walks = parallel::try_map(chains, threads, |Chain { folder, .. }| {
        walk_directory(folder, of_each, &AtomicU64::new(0)).map_err(|error| Difference::by(folder.display(), error))
    })?;
    for (Chain { node, channel, folder }, walk) in chains.iter().zip(walks) {
        let tip = walk.tip.map(|tip| (tip.height, hex::encode(tip.header_hash)));
        let recorded = point
            .nodes
            .iter()
            .filter(|captured| captured.facts.id == *node)
            .flat_map(|captured| &captured.facts.ledgers)
            .find(|ledger| ledger.channel == *channel)
            .map(|ledger| (ledger.height, ledger.tip_hash.clone()));
        if tip != recorded || walk.torn.is_some() {
            return Err(unproven(folder, format!("the chain ends at {tip:?}, {recorded:?} was recorded")));
        }
        reporter.event(Event::Advance { bytes: 0, blocks: walk.blocks });
        let entry = by_channel.entry(channel).or_default();
        entry.0 += 1;
        entry.1.push(walk.tip.map_or(0, |tip| tip.height));
    }
    for (channel, (nodes, heights)) in by_channel {
        let (low, high) = (heights.iter().min().copied().unwrap_or(0), heights.iter().max().copied().unwrap_or(0));
        let height = if low == high { format!("height {high}") } else { format!("heights {low} to {high}") };
        let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
        proven.push(format!("{channel}: every chain walked on {nodes} to the recorded {height} and header hash"));
    }
    Ok(proven)
}

/// Every LevelDB database that the node opens is whole. A file CURRENT elsewhere is a file as any other.
fn check_databases(root: &Root<'_>, captured: &CapturedDirectory) -> Result<usize, EngineError> {
    let mut count = 0;
    for entry in &captured.entries {
        let Some(folder) = entry.path.strip_suffix("/CURRENT") else { continue };
        if !matches!(captured.directory.classify(&entry.path, false).kind, Kind::LevelDb(_)) {
            continue;
        }
        let path = root.path(folder);
        Database::open(&path)
            .and_then(|database| database.check())
            .map_err(|error| Difference::by(path.display(), error))?;
        count += 1;
    }
    Ok(count)
}

/// Every raft or SmartBFT log reads as it did.
fn check_logs(
    root: &Root<'_>,
    captured: &CapturedDirectory,
    recorded: &[fabkeep_network::RaftFacts],
) -> Result<usize, EngineError> {
    let mut folders: Vec<&str> = captured
        .entries
        .iter()
        .filter(|entry| entry.path.ends_with(".wal"))
        .filter_map(|entry| Some(entry.path.rsplit_once('/')?.0))
        .collect();
    folders.dedup();
    for folder in &folders {
        let path = root.path(folder);
        let channel = folder.rsplit('/').next().unwrap_or(folder);
        let wrong = |problem: String| unproven(&path, problem);
        let Some(facts) = recorded.iter().find(|facts| facts.channel == channel) else { continue };
        let (files, last) = match facts.kind {
            WalKind::Raft => {
                let summary = raft::check_wal_directory(&path, |_, _| {})
                    .map_err(|error| Difference::by(path.display(), error))?;
                (summary.files, summary.last_index)
            }
            WalKind::SmartBft => {
                let summary =
                    smartbft::check_wal_directory(&path).map_err(|error| Difference::by(path.display(), error))?;
                (summary.files, None)
            }
        };
        if (files, last) != (facts.files, facts.last_index) {
            return Err(wrong(format!("the log ends at {last:?}, {:?} was recorded", facts.last_index)));
        }
    }
    Ok(folders.len())
}
