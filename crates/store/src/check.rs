//! Checking a recovery point's objects: that they are there, and that their bytes are those that were put. Needs no identity.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

use crate::commit::Commit;
use crate::index::ObjectEntry;
use crate::reader::check_sealed;
use crate::{Repository, StoreError};

/// An object that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectFault {
    /// Its name.
    pub object: String,
    /// What is wrong.
    pub problem: String,
}

/// What a check did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ObjectsChecked {
    /// Objects looked at.
    pub objects: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// What is wrong, by object name.
    pub faults: Vec<ObjectFault>,
}

/// Checks that every object of a point exists with its size; with `read`, also that its bytes hash to what was put.
///
/// # Errors
/// [`StoreError`] when the point's index cannot be read or the repository cannot be listed.
pub fn check_objects(
    repository: &Repository,
    commit: &Commit,
    read: bool,
    threads: usize,
    progress: &AtomicU64,
) -> Result<ObjectsChecked, StoreError> {
    let index = repository.read_index(&commit.index.name)?;
    let mut objects: Vec<ObjectEntry> = index.objects;
    objects.push(commit.manifest.clone());
    objects.push(commit.index.clone());
    let mut present = repository.backend.list("objects")?;
    present.extend(repository.backend.list("manifests")?);
    present.extend(repository.backend.list("index")?);
    let faults: Mutex<Vec<ObjectFault>> = Mutex::default();
    let fault = |entry: &ObjectEntry, problem: String| {
        let mut faults = faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.push(ObjectFault { object: entry.name.clone(), problem });
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(entry) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match present.get(&entry.name) {
                        None => fault(entry, "it is missing".to_owned()),
                        Some(&size) if size != entry.size => {
                            fault(entry, format!("it has {size} bytes, {} were put", entry.size));
                        }
                        Some(_) if read => {
                            let checked =
                                repository.backend.need(&entry.name).and_then(|sealed| check_sealed(entry, &sealed));
                            match checked {
                                Ok(()) => {}
                                Err(StoreError::Damaged { problem, .. }) => fault(entry, problem),
                                Err(error) => fault(entry, error.to_string()),
                            }
                        }
                        Some(_) => {}
                    }
                    progress.fetch_add(entry.size, Ordering::Relaxed);
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap_or_default();
    faults.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(ObjectsChecked { objects: objects.len() as u64, bytes: objects.iter().map(|entry| entry.size).sum(), faults })
}
