//! Frees what no recovery point needs, in two steps: what is going to be freed is recorded, and freed when the grace time is over, if still
//! no point needs it. Nothing is locked; `docs/format.md` says why no running backup can lose anything by it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::backend::{Backend, Deletable, Stat};
use crate::commit::PointId;
use crate::faults::BadObjects;
use crate::history::{History, checkpoint_of, point_of};
use crate::index::{BlobEntry, Index, MovedEntry, ObjectEntry};
use crate::keys::IdentityFile;
use crate::pruning::Pruning;
use crate::reach::{Reach, Reached, Root};
use crate::remark::Remark;
use crate::repack::Repacked;
use crate::{Repository, StoreError, faults, json, signed};

/// Shortest grace time, in seconds.
const MIN_GRACE_SECONDS: i64 = 3600;
/// Blobs in one digest.
pub(crate) const DIGEST_BLOBS: usize = 500_000;
/// Digests that are left as they are; of more, the small ones are joined.
const MAX_DIGESTS: usize = 16;

/// How to prune.
#[derive(Debug, Clone, Copy)]
pub struct PruneOptions {
    /// How long what is going to be freed stays.
    pub grace: SignedDuration,
    /// No other run uses the repository, now and until this one ends: nothing needs to stay.
    pub alone: bool,
    /// How much of what points need may be unused, in percent: until then, objects of which the least is needed are packed anew. From 100 on
    /// nothing is.
    pub max_unused: u8,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Their sealed bytes.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// An object that the store did not delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its name.
    pub object: String,
    /// What the store said.
    pub problem: String,
}

/// A recovery point whose needs are not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocking {
    /// The recovery point.
    pub point: PointId,
    /// Why they are not known.
    pub problem: String,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Freed now.
    pub freed: Amount,
    /// Recorded now, to be freed by a later prune.
    pub recorded: Amount,
    /// Recorded by earlier prunes, whose grace time is not over.
    pub waiting: Amount,
    /// Needed by no point, and written less than the grace time ago: a later prune records it.
    pub young: Amount,
    /// Packed anew.
    pub repacked: Repacked,
    /// When the first of what is recorded can be freed.
    pub next: Option<Timestamp>,
    /// What the store refused to delete: everything else was done.
    pub refused: Vec<Refused>,
    /// Recovery points whose needs are not known: nothing was freed or recorded because of them.
    pub blocking: Vec<Blocking>,
    /// What else is not as it should be.
    pub remarks: Vec<Remark>,
}

/// What a prune knows.
pub(crate) struct Prune<'a> {
    pub repository: &'a Repository,
    pub identity: &'a IdentityFile,
    pub options: PruneOptions,
    history: History,
    /// Points whose needs are known.
    pub roots: Vec<Root>,
    pub reach: Reach,
    /// Objects, manifests, indexes and commit records.
    pub present: BTreeMap<String, Stat>,
    bad: BadObjects,
    /// Names of manifests, indexes and commit records that stay.
    stays: HashSet<String>,
    /// What records of earlier prunes name.
    pub recorded: HashSet<String>,
    /// Objects that this prune packed anew.
    pub repacked: HashSet<String>,
    pub done: Pruned,
}

/// Lists the objects that belong to recovery points.
pub(crate) fn list_all(backend: &Backend) -> Result<BTreeMap<String, Stat>, StoreError> {
    let mut present = BTreeMap::new();
    for folder in ["objects", "manifests", "index", "points"] {
        present.extend(backend.list_dated(folder)?);
    }
    Ok(present)
}

impl Repository {
    /// Frees what earlier prunes have recorded, and records what can be freed next. A run that is stopped anywhere is gone on with by the
    /// next one.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed, read or written, the identity is not the one that the root key follows from, or
    /// the grace time is shorter than an hour.
    pub fn prune(&self, identity: &IdentityFile, options: PruneOptions) -> Result<Pruned, StoreError> {
        self.root_of(identity)?;
        if !options.alone && options.grace.as_secs() < MIN_GRACE_SECONDS {
            return Err(StoreError::Grace(options.grace.as_secs()));
        }
        // The order matters: what is over now was recorded before the listing, and commits are read after it.
        let now = self.clock.now();
        let (records, remarks) = self.prunings()?;
        let present = list_all(&self.backend)?;
        let history = self.history()?;
        let (bad, _) = self.bad_objects()?;
        let roots = self.roots(&history);
        let recorded = records.iter().flat_map(|(record, _)| record.names.iter().cloned()).collect();
        let reach = self.reach(&roots, &present, &bad, &recorded, Some(identity))?;
        let mut stays = HashSet::new();
        for root in &roots {
            stays.extend([format!("manifests/{}", root.id), format!("index/{}", root.id), root.id.commit_name()]);
            if let Some(commit) = &root.commit {
                stays.extend([commit.manifest.name.clone(), commit.index.name.clone()]);
            }
        }
        let mut done = Pruned { remarks, ..Pruned::default() };
        for (root, needs) in roots.iter().zip(&reach.points) {
            if let Some(problem) = &needs.unknown {
                done.blocking.push(Blocking { point: root.id.clone(), problem: problem.clone() });
            }
        }
        if !done.blocking.is_empty() {
            return Ok(done);
        }
        let mut prune = Prune {
            repository: self,
            identity,
            options,
            history,
            roots,
            reach,
            present,
            bad,
            stays,
            recorded,
            repacked: HashSet::new(),
            done,
        };
        prune.free_checkpoints()?;
        let (over, waiting): (Vec<_>, Vec<_>) =
            records.iter().partition(|(record, stat)| options.alone || record.ends(*stat) <= now);
        prune.finish(&over)?;
        prune.wait_for(&waiting);
        prune.go_on(now)?;
        prune.repack(now)?;
        Ok(prune.done)
    }
}

impl Prune<'_> {
    /// Returns whether an object has to stay.
    fn is_needed(&self, name: &str) -> bool {
        if name.starts_with("objects/") {
            return !self.repacked.contains(name) && self.reach.get(name).is_some_and(Reached::is_needed);
        }
        if let Some(point) = point_of(name, "points") {
            return !self.history.forgotten.is_here(&point);
        }
        if self.stays.contains(name) {
            return true;
        }
        // A digest goes by what is in it; the checkpoints of a point that is there go once its index contains them.
        checkpoint_of(name).is_some_and(|(point, number)| number > 0 && self.stays.contains(&format!("index/{point}")))
    }

    fn delete(&mut self, names: &[String]) -> Result<Vec<Refused>, StoreError> {
        let objects: Vec<Deletable> = names.iter().filter_map(|name| Deletable::parse(name)).collect();
        let refused: Vec<Refused> = if self.options.dry_run {
            Vec::new()
        } else {
            let refused = self.repository.backend.delete_many(&objects)?;
            refused.into_iter().map(|(object, problem)| Refused { object, problem }).collect()
        };
        for object in &objects {
            if let Some(stat) = self.present.remove(object.name())
                && refused.iter().all(|refused| refused.object != object.name())
            {
                self.done.freed.add(stat.size);
            }
        }
        self.done.refused.extend(refused.iter().cloned());
        Ok(refused)
    }

    /// Frees checkpoints whose point was committed, if its index contains all that they contain. This needs no record: a reader that
    /// misses one finds the same in the index.
    fn free_checkpoints(&mut self) -> Result<(), StoreError> {
        let mut by_point: BTreeMap<PointId, Vec<String>> = BTreeMap::new();
        for name in self.present.keys() {
            if let Some((point, 1..)) = checkpoint_of(name)
                && self.history.has(&point)
            {
                by_point.entry(point).or_default().push(name.clone());
            }
        }
        let mut replaced = Vec::new();
        for (point, checkpoints) in by_point {
            let Some(commit) = self.history.commits.iter().find(|commit| commit.id == point) else { continue };
            let index = match self.repository.index_of(commit) {
                Ok(index) => index,
                Err(error) if error.is_of_the_object() => continue,
                Err(error) => return Err(error),
            };
            let contents = Contents::of(&index);
            self.repository.read_indexes(&checkpoints, |at, checkpoint| {
                if let Some(Ok(checkpoint)) = checkpoint
                    && contents.contain(&checkpoint)
                {
                    replaced.push(checkpoints[at].clone());
                }
                Ok(())
            })?;
        }
        self.delete(&replaced).map(drop)
    }

    /// Frees what records name, and then the records.
    fn finish(&mut self, records: &[&(Pruning, Stat)]) -> Result<(), StoreError> {
        let names: BTreeSet<&String> = records.iter().flat_map(|(record, _)| &record.names).collect();
        let refused: HashSet<String> = self.free(names)?.into_iter().map(|refused| refused.object).collect();
        // An object that stays is one that a point needs after all.
        let done = records.iter().filter(|(record, _)| record.names.iter().all(|name| !refused.contains(name)));
        let done: Vec<Deletable> = done.filter_map(|(record, _)| Deletable::parse(&record.record)).collect();
        if !self.options.dry_run {
            for (object, problem) in self.repository.backend.delete_many(&done)? {
                self.done.refused.push(Refused { object, problem });
            }
        }
        Ok(())
    }

    /// Says what is still there of what records name whose grace time is not over.
    fn wait_for(&mut self, records: &[&(Pruning, Stat)]) {
        let names: BTreeSet<&String> = records.iter().flat_map(|(record, _)| &record.names).collect();
        for name in names {
            if let Some(stat) = self.present.get(name)
                && !self.is_needed(name)
            {
                self.done.waiting.add(stat.size);
            }
        }
        self.done.next = records.iter().map(|(record, stat)| record.ends(*stat)).min();
    }

    /// Frees those of these objects that are there and that no point needs.
    pub(crate) fn free<'n>(&mut self, names: impl IntoIterator<Item = &'n String>) -> Result<Vec<Refused>, StoreError> {
        let free = names.into_iter().filter(|name| self.present.contains_key(*name) && !self.is_needed(name)).cloned();
        let (indexes, others): (Vec<String>, Vec<String>) = free.partition(|name| name.starts_with("index/"));
        // Objects first: they make room for the digest.
        let mut refused = self.delete(&others)?;
        refused.extend(self.free_indexes(&indexes)?);
        Ok(refused)
    }

    /// Frees indexes. What they alone know of objects that stay is put into a digest before.
    fn free_indexes(&mut self, names: &[String]) -> Result<Vec<Refused>, StoreError> {
        let mut refused = Vec::new();
        let mut known = if names.is_empty() { HashSet::new() } else { self.digested(names)? };
        let (mut digest, mut read) = (Index::default(), 0);
        let mut begin = 0;
        while begin < names.len() {
            let part = &names[begin..names.len().min(begin + 16)];
            self.repository.read_indexes(part, |_, index| {
                if let Some(Ok(mut index)) = index {
                    // As long as something of it is there, also a point that was forgotten can be brought back.
                    let of_use = |moved: &MovedEntry| {
                        self.reach.moved.chain(&moved.0).iter().any(|name| self.present.contains_key(name))
                    };
                    digest.moved.extend(std::mem::take(&mut index.moved).into_iter().filter(of_use));
                    for (entry, blobs) in self.remaining(index) {
                        if known.insert(entry.name.clone()) {
                            let position = digest.objects.len() as u32;
                            digest.objects.push(entry);
                            digest.blobs.extend(blobs.into_iter().map(|(id, _, at, len)| (id, position, at, len)));
                        }
                    }
                }
                Ok(())
            })?;
            begin += part.len();
            if digest.blobs.len() >= DIGEST_BLOBS || begin == names.len() {
                self.put_digest(&std::mem::take(&mut digest))?;
                refused.extend(self.delete(&names[read..begin])?);
                read = begin;
            }
        }
        Ok(refused)
    }

    /// Returns the objects that digests which stay describe.
    fn digested(&self, without: &[String]) -> Result<HashSet<String>, StoreError> {
        let mut known = HashSet::new();
        let goes = |name: &String| self.recorded.contains(name) || without.contains(name);
        let digest = |name: &&String| matches!(checkpoint_of(name), Some((_, 0))) && !goes(name);
        let names: Vec<String> = self.present.keys().filter(digest).cloned().collect();
        self.repository.read_indexes(&names, |_, index| {
            if let Some(Ok(index)) = index {
                known.extend(index.objects.into_iter().map(|entry| entry.name));
            }
            Ok(())
        })?;
        Ok(known)
    }

    pub(crate) fn put_digest(&mut self, digest: &Index) -> Result<(), StoreError> {
        if digest.blobs.is_empty() && digest.moved.is_empty() || self.options.dry_run {
            return Ok(());
        }
        let root = self.repository.root_of(self.identity)?;
        let bytes = signed::sign("index", &digest.encode()?, &root)?;
        json::check_len("a digest of indexes", bytes.len())?;
        let name = format!("index/{}-0000", PointId::new(self.repository.clock.now(), &self.repository.chance));
        self.repository.backend.put_new(&name, bytes).map(drop)
    }

    /// Records, or frees at once, what no point needs and nothing has recorded.
    fn go_on(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let digests = self.digests_to_replace()?;
        let unneeded = self
            .present
            .iter()
            .filter(|(name, _)| Deletable::parse(name).is_some() && !self.recorded.contains(*name))
            .filter(|(name, _)| match checkpoint_of(name) {
                Some((_, 0)) => digests.contains(*name),
                _ => !self.is_needed(name),
            });
        let (mut free, mut young) = (Vec::new(), Amount::default());
        for (name, stat) in unneeded {
            if self.is_old(stat, now) {
                free.push(name.clone());
            } else {
                young.add(stat.size);
            }
        }
        self.done.young = young;
        if free.is_empty() {
            return Ok(());
        }
        if self.options.alone {
            return self.free(&free).map(drop);
        }
        self.record(&free, now)
    }

    /// Returns whether an object was written so long ago that it may be recorded.
    pub(crate) fn is_old(&self, stat: &Stat, now: Timestamp) -> bool {
        self.options.alone || stat.written.checked_add(self.options.grace).is_ok_and(|end| end <= now)
    }

    /// Returns whether an object is there with its size and not known as bad.
    pub(crate) fn is_usable(&self, entry: &ObjectEntry) -> bool {
        self.present.get(&entry.name).is_some_and(|stat| stat.size == entry.size)
            && !faults::is_bad(&self.bad, &entry.name, &entry.blake3)
    }

    /// Records what is going to be freed.
    pub(crate) fn record(&mut self, names: &[String], now: Timestamp) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            self.done.recorded.add(self.present.get(name).map_or(0, |stat| stat.size));
        }
        if !self.options.dry_run {
            self.repository.record_pruning(names, self.options.grace, self.identity)?;
        }
        let ends = now.checked_add(self.options.grace).unwrap_or(Timestamp::MAX);
        self.done.next = Some(self.done.next.map_or(ends, |next| next.min(ends)));
        Ok(())
    }

    /// Returns the digests most of whose content is of no use any more, and the small ones if there are many.
    fn digests_to_replace(&self) -> Result<HashSet<String>, StoreError> {
        let names: Vec<String> =
            self.present.keys().filter(|name| matches!(checkpoint_of(name), Some((_, 0)))).cloned().collect();
        let many = names.len() > MAX_DIGESTS;
        let mut replace = HashSet::new();
        self.repository.read_indexes(&names, |at, index| {
            let Some(Ok(index)) = index else { return Ok(()) };
            let all = index.blobs.len();
            let stay: usize = self.remaining(index).iter().map(|(_, blobs)| blobs.len()).sum();
            if stay * 2 < all || many && all < DIGEST_BLOBS {
                replace.insert(names[at].clone());
            }
            Ok(())
        })?;
        Ok(replace)
    }

    /// Returns the objects of an index that are there and that no index of a point describes, with the blobs in them. Also what no point
    /// needs now may be needed before it is freed.
    fn remaining(&self, index: Index) -> Vec<(ObjectEntry, Vec<BlobEntry>)> {
        let mut inside: Vec<Vec<BlobEntry>> = vec![Vec::new(); index.objects.len()];
        for blob in index.blobs {
            if let Some(blobs) = inside.get_mut(blob.1 as usize) {
                blobs.push(blob);
            }
        }
        let stays = |entry: &ObjectEntry| {
            self.present.get(&entry.name).is_some_and(|stat| stat.size == entry.size)
                && self.reach.get(&entry.name).is_none_or(|object| !object.described)
        };
        index.objects.into_iter().zip(inside).filter(|(entry, blobs)| stays(entry) && !blobs.is_empty()).collect()
    }
}

/// What an index contains.
struct Contents<'a> {
    objects: HashSet<(&'a str, &'a str)>,
    blobs: HashSet<(&'a crate::BlobId, &'a str, u64, u64)>,
}

impl<'a> Contents<'a> {
    fn of(index: &'a Index) -> Self {
        Contents {
            objects: index.objects.iter().map(|entry| (entry.name.as_str(), entry.blake3.as_str())).collect(),
            blobs: blobs_of(index).collect(),
        }
    }

    fn contain(&self, other: &Index) -> bool {
        other.objects.iter().all(|entry| self.objects.contains(&(entry.name.as_str(), entry.blake3.as_str())))
            && blobs_of(other).all(|blob| self.blobs.contains(&blob))
    }
}

fn blobs_of(index: &Index) -> impl Iterator<Item = (&crate::BlobId, &str, u64, u64)> {
    index.blobs.iter().filter_map(|(id, position, offset, len)| {
        Some((id, index.objects.get(*position as usize)?.name.as_str(), *offset, *len))
    })
}
