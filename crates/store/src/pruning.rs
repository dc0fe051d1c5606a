//! Records of what a prune is going to free. No run that begins later builds on what they name; a run that began before looks again before
//! its commit. `docs/format.md` says why that is enough.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Stat};
use crate::commit::PointId;
use crate::keys::IdentityFile;
use crate::remark::{Remark, RemarkKind};
use crate::trust::untrusted;
use crate::{Clock, MAX_OBJECT_BYTES, Repository, StoreError, json, signed};

/// The folder of the records.
pub(crate) const FOLDER: &str = "pruning";
/// Most names in one record.
pub(crate) const MAX_NAMES: usize = 200_000;

#[derive(Serialize, Deserialize)]
struct PruningRecord {
    repository: String,
    made: Timestamp,
    grace_seconds: i64,
    names: Vec<String>,
}

/// What a prune is going to free.
pub(crate) struct Pruning {
    /// The record's name.
    pub record: String,
    made: Timestamp,
    grace: SignedDuration,
    pub names: Vec<String>,
}

impl Pruning {
    /// Returns until when a run that builds on what it names may commit.
    fn until(&self, stat: Stat) -> Timestamp {
        add(self.made.min(stat.written), self.grace / 2)
    }

    /// Returns when what it names may be freed: by the clock of whoever wrote it, and by the store's.
    pub fn ends(&self, stat: Stat) -> Timestamp {
        add(self.made.max(stat.written), self.grace)
    }
}

/// Returns a later time; the last one that there is where it is beyond that.
fn add(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Every record that can be trusted, with what the listing says of it, and remarks on others.
pub(crate) type Prunings = (Vec<(Pruning, Stat)>, Vec<Remark>);

/// Returns the records of a place.
pub(crate) fn read(backend: &Backend, repository: &str, root: &str) -> Result<Prunings, StoreError> {
    let (mut all, mut remarks) = (Vec::new(), Vec::new());
    let listed = backend.list_dated(FOLDER)?;
    let names: Vec<String> = listed.keys().cloned().collect();
    for (name, read) in backend.get_many(&names)? {
        match read.and_then(|bytes| parse(&name, &bytes, repository, root)) {
            Ok(record) => all.push((record, listed.get(&name).copied().unwrap_or_default())),
            Err(error) => remarks.push(Remark::new(RemarkKind::Foreign, &name, error.problem())),
        }
    }
    Ok((all, remarks))
}

fn parse(name: &str, bytes: &[u8], repository: &str, root: &str) -> Result<Pruning, StoreError> {
    use std::io::Read;
    let damaged = |problem: String| StoreError::damaged(name, problem);
    let opened = signed::open(name, "pruning", bytes)?;
    if hex::encode(opened.signer.as_bytes()) != root {
        return Err(untrusted(name, "its signer is not the repository's root: only the root can prune"));
    }
    let mut json = Vec::new();
    zstd::Decoder::new(opened.payload)
        .and_then(|decoder| decoder.take(MAX_OBJECT_BYTES).read_to_end(&mut json))
        .map_err(|error| damaged(error.to_string()))?;
    let record: PruningRecord = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    if record.repository != repository {
        return Err(damaged("it was written for another repository".to_owned()));
    }
    let grace = SignedDuration::from_secs(record.grace_seconds.max(0));
    Ok(Pruning { record: name.to_owned(), made: record.made, grace, names: record.names })
}

/// What a run wants to build on, just before its commit.
pub(crate) struct Confirmed {
    /// Until when the commit record must be there; `None` if nothing of it is being freed.
    until: Option<Timestamp>,
}

/// What [`confirm`] looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The records, and all objects.
    ForAll,
    /// The records only: a listing is so young that nothing can have been recorded and freed since, and no record named any of it then.
    ForRecords,
}

/// How long a listing may be trusted: half of the shortest grace time.
pub(crate) const TRUSTED_LISTING: SignedDuration = SignedDuration::from_mins(30);

/// Makes sure that what a run builds on stays: nothing of it is being freed, or the run commits early enough, and all of it is there.
/// This is called just before the commit record is put.
pub(crate) fn confirm(
    place: (&Backend, &str, &str),
    clock: &Clock,
    used: &HashSet<&str>,
    look: Look,
) -> Result<Confirmed, StoreError> {
    let (backend, repository, root) = place;
    let mut until: Option<Timestamp> = None;
    let mut freed: Vec<String> = Vec::new();
    for (record, stat) in read(backend, repository, root)?.0 {
        let mut named = record.names.iter().filter(|name| used.contains(name.as_str())).peekable();
        if named.peek().is_none() {
            continue;
        }
        let last = record.until(stat);
        if clock.now() > last {
            freed.extend(named.cloned());
        }
        until = Some(until.map_or(last, |until| until.min(last)));
    }
    // After the records: a record goes only when all that it names has gone.
    if freed.is_empty() && look == Look::ForAll {
        freed = missing(backend, used)?;
    }
    if freed.is_empty() { Ok(Confirmed { until }) } else { Err(freed_meanwhile(freed, false)) }
}

/// Looks once more after the commit record was put, if that took longer than it may.
pub(crate) fn confirm_again(
    backend: &Backend,
    clock: &Clock,
    confirmed: &Confirmed,
    used: &HashSet<&str>,
) -> Result<(), StoreError> {
    if confirmed.until.is_none_or(|until| clock.now() <= until) {
        return Ok(());
    }
    let missing = missing(backend, used)?;
    if missing.is_empty() { Ok(()) } else { Err(freed_meanwhile(missing, true)) }
}

fn freed_meanwhile(mut names: Vec<String>, committed: bool) -> StoreError {
    names.sort();
    names.dedup();
    StoreError::FreedMeanwhile { objects: names.len(), first: names.swap_remove(0), committed }
}

fn missing(backend: &Backend, used: &HashSet<&str>) -> Result<Vec<String>, StoreError> {
    let present = backend.list("objects")?;
    let mut missing = Vec::new();
    for name in used {
        let there = if name.starts_with("objects/") { present.contains_key(*name) } else { backend.has(name)? };
        if !there {
            missing.push((*name).to_owned());
        }
    }
    Ok(missing)
}

impl Repository {
    /// Returns the records of what is going to be freed.
    pub(crate) fn prunings(&self) -> Result<Prunings, StoreError> {
        read(&self.backend, &self.config.id, &self.config.root)
    }

    /// Returns this place, as [`confirm`] takes it.
    pub(crate) fn as_place(&self) -> (&Backend, &str, &str) {
        (&self.backend, &self.config.id, &self.config.root)
    }

    /// Records what is going to be freed.
    pub(crate) fn record_pruning(
        &self,
        names: &[String],
        grace: SignedDuration,
        identity: &IdentityFile,
    ) -> Result<Vec<String>, StoreError> {
        let root = self.root_of(identity)?;
        let mut records = Vec::new();
        for part in names.chunks(MAX_NAMES) {
            let made = self.clock.now();
            let record = PruningRecord {
                repository: self.config.id.clone(),
                made,
                grace_seconds: grace.as_secs(),
                names: part.to_vec(),
            };
            let json = json::encode("a record of what is going to be freed", &record)?;
            let bytes = signed::sign("pruning", &zstd::bulk::compress(&json, 3)?, &root)?;
            let name = format!("{FOLDER}/{}", PointId::new(made, &self.chance));
            self.backend.put_new(&name, bytes)?;
            records.push(name);
        }
        Ok(records)
    }
}
