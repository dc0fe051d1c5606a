//! What a writer remembers in a file beside its key: its last recovery point (a repository that does not have that point any more was
//! rolled back), and those that it was about to commit (one that was never committed was stopped just before its end).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::commit::{Commit, PointId};

/// Longest file read, in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Most recovery points that are remembered as begun.
const MAX_BEGUN: usize = 256;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    repository: String,
    #[serde(flatten)]
    last: Option<LastCommit>,
    /// Recovery points whose manifests were about to be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    begun: Vec<PointId>,
}

/// The last recovery point that a writer committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastCommit {
    pub point: PointId,
    pub sequence: u64,
    pub blake3: String,
}

/// Returns what is remembered of a repository; `None` if it cannot be read.
fn read(path: &Path, repository: &str) -> Option<Memory> {
    use std::io::Read;
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let memory: Memory = serde_json::from_str(&text).ok()?;
    let points = memory.last.iter().map(|last| &last.point).chain(&memory.begun);
    let good =
        memory.repository == repository && points.map(PointId::as_str).all(|point| PointId::parse(point).is_some());
    good.then_some(memory)
}

/// Returns the remembered recovery point; `None` if it cannot be read.
pub(crate) fn last(path: &Path, repository: &str) -> Option<LastCommit> {
    read(path, repository)?.last
}

/// Returns the recovery points that this writer was about to commit and has not committed, as far as it knows.
pub(crate) fn begun(path: &Path, repository: &str) -> Vec<PointId> {
    read(path, repository).map(|memory| memory.begun).unwrap_or_default()
}

/// Returns whether something can be remembered there.
pub(crate) fn can_write(path: &Path) -> bool {
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).is_ok()
}

/// Remembers that a recovery point is about to be committed.
pub(crate) fn begin(path: &Path, repository: &str, point: &PointId) -> std::io::Result<()> {
    let empty = Memory { repository: repository.to_owned(), last: None, begun: Vec::new() };
    let mut memory = read(path, repository).unwrap_or(empty);
    memory.begun.push(point.clone());
    let surplus = memory.begun.len().saturating_sub(MAX_BEGUN);
    memory.begun.drain(..surplus);
    write(path, &memory)
}

/// Remembers a commit. What it says of stopped recovery points need not be remembered any more.
pub(crate) fn committed(path: &Path, commit: &Commit, blake3: &str) -> std::io::Result<()> {
    let mut begun = begun(path, &commit.repository);
    begun.retain(|point| *point != commit.id && !commit.stopped.contains(point));
    let last =
        LastCommit { point: commit.id.clone(), sequence: commit.sequence.unwrap_or(0), blake3: blake3.to_owned() };
    write(path, &Memory { repository: commit.repository.clone(), last: Some(last), begun })
}

/// Replaces the file atomically: otherwise the earlier content stays.
fn write(path: &Path, memory: &Memory) -> std::io::Result<()> {
    let text = serde_json::to_vec(memory)?;
    let partial = path.with_extension(format!("last-{}", std::process::id()));
    let written = (|| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// A running backup's shared lock on its writer key.
#[derive(Debug)]
pub(crate) struct RunLock {
    _key: File,
    /// No other backup with this key file was running when this one began.
    pub alone: bool,
}

impl RunLock {
    /// Takes the lock; `None` where the file or the file system offers none.
    pub fn take(key: &Path) -> Option<RunLock> {
        let file = File::open(key).ok()?;
        file.lock_shared().ok()?;
        // A failed attempt gives up the shared lock.
        let alone = file.try_lock().is_ok();
        file.lock_shared().ok()?;
        Some(RunLock { _key: file, alone })
    }
}

/// Returns the path of the file in which a writer remembers: `KEY.last` beside its key.
pub(crate) fn path_of(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".last");
    PathBuf::from(name)
}
