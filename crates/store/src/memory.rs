//! What a writer remembers of its last recovery point, in a file beside its key: a repository that does not have that point any more was
//! rolled back.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::commit::{Commit, PointId};

/// Longest file read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The last recovery point that a writer committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastCommit {
    pub repository: String,
    pub point: PointId,
    pub sequence: u64,
    pub blake3: String,
}

/// Returns the remembered recovery point; `None` if it cannot be read.
pub(crate) fn read(path: &Path, repository: &str) -> Option<LastCommit> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let last: LastCommit = serde_json::from_str(&text).ok()?;
    (last.repository == repository && PointId::parse(last.point.as_str()).is_some()).then_some(last)
}

/// Returns whether something can be remembered there.
pub(crate) fn can_write(path: &Path) -> bool {
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).is_ok()
}

/// Remembers a commit, atomically: otherwise the earlier content stays.
pub(crate) fn write(path: &Path, commit: &Commit, blake3: &str) -> std::io::Result<()> {
    let last = LastCommit {
        repository: commit.repository.clone(),
        point: commit.id.clone(),
        sequence: commit.sequence.unwrap_or(0),
        blake3: blake3.to_owned(),
    };
    let text = serde_json::to_vec(&last)?;
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
