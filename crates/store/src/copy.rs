//! Copies recovery points to another location, without the identity: sealed objects are copied as they are, and the hash of their bytes is
//! checked. The destination is an equivalent repository. Objects are created and never replaced, and the commit record is written last: an
//! interrupted copy can be continued.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::backend::{Backend, Put};
use crate::check::ObjectFault;
use crate::commit::{Commit, PointId};
use crate::config::{CONFIG, RepositoryConfig};
use crate::index::ObjectEntry;
use crate::reader::check_sealed;
use crate::trust::untrusted;
use crate::{Repository, StoreError, location};

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Recovery points that the other place holds now.
    pub points: Vec<PointId>,
    /// Those that were not copied, because something of them is damaged or missing.
    pub left: Vec<PointId>,
    /// Objects put.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong here, or there.
    pub faults: Vec<ObjectFault>,
}

/// Copies recovery points, in this order, into the place `to`: a new one, or one that holds a copy of this repository. `progress` counts bytes.
///
/// # Errors
/// [`StoreError`] when a place cannot be listed, read or written, or `to` holds something else.
pub fn copy(
    from: &Repository,
    to: &str,
    points: &[Commit],
    threads: usize,
    progress: &AtomicU64,
) -> Result<Copied, StoreError> {
    let target = Backend::new(location::open(to, true)?)?;
    settings(from, &target, to)?;
    for name in from.backend.list("writers")?.into_keys().chain(from.backend.list("faults")?.into_keys()) {
        if let Some(Ok(bytes)) = from.backend.get_if_readable(&name)? {
            target.put_new(&name, bytes)?;
        }
    }
    let mut present = target.list("objects")?;
    present.extend(target.list("manifests")?);
    present.extend(target.list("index")?);
    let mut copied = Copied::default();
    for commit in points {
        let index = match from.read_index(&commit.index.name) {
            Ok(index) => index,
            Err(error) if error.is_of_the_object() => {
                copied.faults.push(fault(&commit.index, error.problem()));
                copied.left.push(commit.id.clone());
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut entries: Vec<&ObjectEntry> = index.objects.iter().collect();
        entries.extend([&commit.manifest, &commit.index]);
        let done = objects(from, &target, &entries, &mut present, threads, progress)?;
        copied.objects += done.0;
        copied.bytes += done.1;
        if !done.2.is_empty() {
            copied.faults.extend(done.2);
            copied.left.push(commit.id.clone());
            continue;
        }
        let name = commit.id.commit_name();
        let record = from.backend.need(&name)?;
        if target.put_new(&name, record.clone())? == Put::Exists && target.need(&name)? != record {
            return Err(untrusted(&name, "the destination has a different commit record with its name"));
        }
        copied.points.push(commit.id.clone());
    }
    Ok(copied)
}

/// The settings come first: a place that holds others is none for this copy.
fn settings(from: &Repository, target: &Backend, to: &str) -> Result<(), StoreError> {
    let own = from.backend.need(CONFIG)?;
    if let Some(there) = target.get(CONFIG)? {
        let there = RepositoryConfig::parse(&there)?;
        if there != from.config {
            return Err(StoreError::AlreadyARepository(to.to_owned()));
        }
        return Ok(());
    }
    let foreign = target
        .folder
        .as_ref()
        .is_some_and(|folder| std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()));
    if foreign {
        return Err(StoreError::FolderNotEmpty(to.to_owned()));
    }
    target.put_new(CONFIG, own).map(|_| ())
}

fn fault(entry: &ObjectEntry, problem: String) -> ObjectFault {
    ObjectFault { object: entry.name.clone(), blake3: entry.blake3.clone(), problem, instead: None }
}

/// Copies objects that are not there yet: how many, their bytes, and what is wrong.
fn objects(
    from: &Repository,
    target: &Backend,
    entries: &[&ObjectEntry],
    present: &mut BTreeMap<String, u64>,
    threads: usize,
    progress: &AtomicU64,
) -> Result<(u64, u64, Vec<ObjectFault>), StoreError> {
    let (mut wanted, mut faults) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for entry in entries.iter().filter(|entry| seen.insert(entry.name.as_str())) {
        match present.get(&entry.name) {
            None => wanted.push(*entry),
            Some(&size) if size == entry.size => {}
            Some(&size) => faults
                .push(fault(entry, format!("the destination has {size} bytes of it, {} were written", entry.size))),
        }
    }
    let (next, put) = (AtomicUsize::new(0), AtomicU64::new(0));
    let (bytes, lost, failed) = (AtomicU64::new(0), Mutex::new(faults), Mutex::new(None));
    let lock = |error| *failed.lock() = Some(error);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, wanted.len().max(1)) {
            scope.spawn(|| {
                while let Some(entry) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = from.backend.get(&entry.name).and_then(|found| {
                        let sealed = found.ok_or_else(|| StoreError::Missing(entry.name.clone()))?;
                        check_sealed(entry, &sealed)?;
                        target.put_new(&entry.name, sealed)
                    });
                    match read {
                        Ok(made) => {
                            if made == Put::Created {
                                put.fetch_add(1, Ordering::Relaxed);
                                bytes.fetch_add(entry.size, Ordering::Relaxed);
                            }
                            progress.fetch_add(entry.size, Ordering::Relaxed);
                        }
                        Err(error) if error.is_of_the_object() => {
                            lost.lock().push(fault(entry, error.problem()));
                        }
                        Err(error) => lock(error),
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let lost = lost.into_inner();
    for entry in wanted.iter().filter(|entry| !lost.iter().any(|fault| fault.object == entry.name)) {
        present.insert(entry.name.clone(), entry.size);
    }
    Ok((put.into_inner(), bytes.into_inner(), lost))
}
