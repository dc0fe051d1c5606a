//! Checks the objects of a recovery point: they exist, and their bytes are those that were written. This needs no identity; with the
//! identity the content is checked too.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::commit::Commit;
use crate::faults::{BadObject, BadObjects};
use crate::index::{BlobEntry, ObjectEntry};
use crate::keys::IdentityFile;
use crate::moved::Moved;
use crate::reader::check_sealed;
use crate::{Repository, StoreError};
use fabkeep_parallel as parallel;

/// An object that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectFault {
    /// Its name.
    pub object: String,
    /// BLAKE3 of the bytes that were put, hexadecimal.
    pub blake3: String,
    /// What is wrong.
    pub problem: String,
    /// Objects in which everything that the point needs of it was put again: the point is whole without it.
    pub instead: Option<Vec<String>>,
}

impl ObjectFault {
    /// Returns what must be recorded about it.
    pub fn to_record(&self) -> BadObject {
        BadObject { name: self.object.clone(), blake3: self.blake3.clone(), problem: self.problem.clone() }
    }
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

/// What a point needs, as far as it can be read.
struct Needs {
    objects: Vec<ObjectEntry>,
    /// Blobs by the manifest; `None` without an identity, or where the manifest is damaged.
    blobs: Option<(Vec<ObjectEntry>, Vec<BlobEntry>)>,
    index_is_whole: bool,
    /// What is wrong with the index or the manifest itself.
    faults: Vec<ObjectFault>,
}

/// Checks that every object of a point exists with its size; with `read`, also that its bytes hash to what was put. The index, and with the
/// identity the manifest, are read in any case: they say which objects there are.
///
/// # Errors
/// [`StoreError`] when the repository cannot be listed or read, or the identity is not one that reads it.
pub fn check_objects(
    repository: &Repository,
    commit: &Commit,
    identity: Option<&IdentityFile>,
    read: bool,
    threads: usize,
    progress: &AtomicU64,
) -> Result<ObjectsChecked, StoreError> {
    let mut needs = needs(repository, commit, identity)?;
    let own = std::mem::take(&mut needs.faults);
    let objects = &needs.objects;
    let mut present = repository.backend.list("objects")?;
    present.extend(repository.backend.list("manifests")?);
    present.extend(repository.backend.list("index")?);
    // A store that does not answer says nothing of its objects.
    let looked = parallel::try_map::<_, _, StoreError>(objects, threads, |entry| {
        let problem = look(repository, entry, &present, read)?;
        progress.fetch_add(entry.size, Ordering::Relaxed);
        let (object, blake3) = (entry.name.clone(), entry.blake3.clone());
        Ok(problem.map(|problem| ObjectFault { object, blake3, problem, instead: None }))
    })?;
    let mut faults: Vec<ObjectFault> = looked.into_iter().flatten().collect();
    let unknown = |fault: &ObjectFault| !faults.iter().any(|known| known.object == fault.object);
    let own: Vec<ObjectFault> = own.into_iter().filter(unknown).collect();
    faults.extend(own);
    faults.sort_by(|a, b| a.object.cmp(&b.object));
    let mut looked_at: BTreeMap<&str, u64> = objects.iter().map(|entry| (entry.name.as_str(), entry.size)).collect();
    if !faults.is_empty() {
        let (bad, _) = repository.bad_objects()?;
        let moved = repository.moved()?;
        look_for_others(repository, commit, &needs, &mut faults, &present, &bad, &moved, read)?;
        // What a prune packed anew is not missed: its content was looked at.
        let (found, rest): (Vec<ObjectFault>, Vec<ObjectFault>) = std::mem::take(&mut faults)
            .into_iter()
            .partition(|fault| fault.instead.is_some() && moved.is_moved(&fault.object, &fault.blake3));
        faults = rest;
        let gone: HashSet<&str> = found.iter().map(|fault| fault.object.as_str()).collect();
        looked_at.retain(|name, _| !gone.contains(name));
        let instead = found.iter().flat_map(|fault| fault.instead.iter().flatten());
        looked_at
            .extend(instead.filter_map(|name| present.get_key_value(name)).map(|(name, size)| (name.as_str(), *size)));
    }
    Ok(ObjectsChecked { objects: looked_at.len() as u64, bytes: looked_at.values().sum(), faults })
}

fn needs(repository: &Repository, commit: &Commit, identity: Option<&IdentityFile>) -> Result<Needs, StoreError> {
    let mut faults = Vec::new();
    let mut fault = |entry: &ObjectEntry, error: StoreError| {
        if !error.is_damage() {
            return Err(error);
        }
        let (object, blake3) = (entry.name.clone(), entry.blake3.clone());
        faults.push(ObjectFault { object, blake3, problem: error.problem(), instead: None });
        Ok(())
    };
    let index = match repository.index_of(commit) {
        Ok(index) => Some(index.objects),
        Err(error) => fault(&commit.index, error).map(|()| None)?,
    };
    let blobs = match identity.map(|identity| repository.needed(commit, identity)) {
        None => None,
        Some(Ok(needed)) => Some(needed),
        Some(Err(error)) => fault(&commit.manifest, error).map(|()| None)?,
    };
    let index_is_whole = index.is_some();
    let mut objects = index.unwrap_or_default();
    if let Some((named, _)) = &blobs {
        let known: HashSet<(String, String)> =
            objects.iter().map(|entry| (entry.name.clone(), entry.blake3.clone())).collect();
        objects
            .extend(named.iter().filter(|entry| !known.contains(&(entry.name.clone(), entry.blake3.clone()))).cloned());
    }
    objects.push(commit.manifest.clone());
    objects.push(commit.index.clone());
    Ok(Needs { objects, blobs, index_is_whole, faults })
}

/// Returns what is wrong with an object.
fn look(
    repository: &Repository,
    entry: &ObjectEntry,
    present: &BTreeMap<String, u64>,
    read: bool,
) -> Result<Option<String>, StoreError> {
    match present.get(&entry.name) {
        // What is in a folder that may not be read is not listed.
        None if repository.backend.has(&entry.name)? => {}
        None => return Ok(Some("it is missing".to_owned())),
        Some(&size) if size != entry.size => {
            return Ok(Some(format!("it has {size} bytes, {} were written", entry.size)));
        }
        Some(_) if !read => return Ok(None),
        Some(_) => {}
    }
    match repository.backend.get_if_readable(&entry.name)? {
        None => Ok(Some("it is missing".to_owned())),
        Some(read) => match read.and_then(|sealed| check_sealed(entry, &sealed)) {
            Ok(()) => Ok(None),
            Err(error) if error.is_damage() => Ok(Some(error.problem())),
            Err(error) => Err(error),
        },
    }
}

/// Looks whether what was lost has been put again.
#[allow(clippy::too_many_arguments)]
fn look_for_others(
    repository: &Repository,
    commit: &Commit,
    needs: &Needs,
    faults: &mut [ObjectFault],
    present: &BTreeMap<String, u64>,
    bad: &BadObjects,
    moved: &Moved,
    read: bool,
) -> Result<(), StoreError> {
    let (places, _) = repository.places()?;
    // An older version may have given a name twice: an object is its name and its bytes.
    let looked: RefCell<HashMap<(String, String), bool>> = RefCell::default();
    let lost: HashSet<(String, String)> =
        faults.iter().map(|fault| (fault.object.clone(), fault.blake3.clone())).collect();
    let manifest_is_lost = lost.iter().any(|(name, _)| *name == commit.manifest.name);
    let good = |entry: &ObjectEntry| {
        let own = (entry.name.clone(), entry.blake3.clone());
        if lost.contains(&own) || !Repository::usable(present, bad, entry) {
            return false;
        }
        let known = looked.borrow().get(&own).copied();
        known.unwrap_or_else(|| {
            let whole = matches!(look(repository, entry, present, read), Ok(None));
            looked.borrow_mut().insert(own, whole);
            whole
        })
    };
    for fault in faults {
        let names = |found: Vec<&ObjectEntry>| found.into_iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
        if fault.object == commit.index.name {
            // The manifest contains everything that a restore needs.
            let whole = needs.blobs.is_some() && !manifest_is_lost;
            fault.instead = whole.then(|| vec![commit.manifest.name.clone()]);
            continue;
        }
        let own = |entry: &&ObjectEntry| entry.name == fault.object && entry.blake3 == fault.blake3;
        let Some(entry) = needs.objects.iter().find(own) else { continue };
        let found = match &needs.blobs {
            Some((objects, blobs)) => {
                let inside = |object: u32| {
                    objects.get(object as usize).is_some_and(|own| own.name == entry.name && own.blake3 == entry.blake3)
                };
                places.hold(blobs.iter().filter(|blob| inside(blob.1)).map(|blob| &blob.0), entry, &good)
            }
            None if needs.index_is_whole => moved.instead_of(entry, &good).or_else(|| places.instead_of(entry, &good)),
            None => None,
        };
        fault.instead = found.map(names);
    }
    Ok(())
}
