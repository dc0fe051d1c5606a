//! Copies recovery points to another location, without the identity: sealed objects are copied as they are, and the hash of their bytes is
//! checked. The destination is an equivalent repository. Objects are created and never replaced, and the commit record is written last: an
//! interrupted copy can be continued.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStore;
use serde::Serialize;

use crate::backend::{Backend, Put};
use crate::check::ObjectFault;
use crate::commit::{Commit, PointId};
use crate::config::{CONFIG, RepositoryConfig};
use crate::faults::BadObjects;
use crate::index::ObjectEntry;
use crate::location::Location;
use crate::moved::Moved;
use crate::places::Places;
use crate::reader::check_sealed;
use crate::repository::check_empty;
use crate::trust::{self, untrusted};
use crate::{Repository, StoreError, drills, forgotten, history, location, marks, pruning, revoked};
use fabkeep_parallel as parallel;

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Recovery points that the other place holds now.
    pub points: Vec<PointId>,
    /// Those that were not copied, because something of them is damaged or missing, or freed in the other place.
    pub left: Vec<PointId>,
    /// Those that were not copied, because they were forgotten in the other place.
    pub forgotten: Vec<PointId>,
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
    check_apart(from, to)?;
    copy_to(from, location::open(to, true)?, points, threads, progress)
}

/// Copies recovery points into an object store that is open, as [`copy`] does.
///
/// # Errors
/// As [`copy`].
pub fn copy_in(
    from: &Repository,
    to: Arc<dyn ObjectStore>,
    points: &[Commit],
    threads: usize,
    progress: &AtomicU64,
) -> Result<Copied, StoreError> {
    copy_to(from, Location::of(to), points, threads, progress)
}

/// Refuses a destination that is the repository itself or inside it.
fn check_apart(from: &Repository, to: &str) -> Result<(), StoreError> {
    let refuse = |problem: &str| Err(StoreError::Location { location: to.to_owned(), problem: problem.to_owned() });
    let Some(own) = from.folder() else {
        let (own, to) =
            (format!("{}/", from.location().trim_end_matches('/')), format!("{}/", to.trim_end_matches('/')));
        return if to.starts_with(&own) { refuse("it is the repository itself, or inside it") } else { Ok(()) };
    };
    let Some(folder) = location::folder(to)? else { return Ok(()) };
    // Of a folder that is not there yet, the part that is.
    let whole = std::path::absolute(&folder)?;
    let there = whole.ancestors().find_map(|part| part.canonicalize().ok());
    match (there, own.canonicalize()) {
        (Some(there), Ok(own)) if there.starts_with(&own) => refuse("it is the repository itself, or inside it"),
        _ => Ok(()),
    }
}

fn copy_to(
    from: &Repository,
    to: Location,
    points: &[Commit],
    threads: usize,
    progress: &AtomicU64,
) -> Result<Copied, StoreError> {
    let to_name = to.name.clone();
    let mut backend = Backend::new(to)?;
    backend.readers = from.backend.readers;
    settings(from, &backend, &to_name)?;
    for folder in ["writers", revoked::FOLDER, "faults", marks::FOLDER, drills::FOLDER, forgotten::FOLDER] {
        let names: Vec<String> = from.backend.list(folder)?.into_keys().collect();
        for (name, read) in from.backend.get_many(&names)? {
            // What is not to be trusted would keep the name from what is.
            if let Ok(bytes) = read
                && from.trusts(folder, &name, &bytes)
            {
                backend.put_new(&name, bytes)?;
            }
        }
    }
    let target = from.at_another_place(backend)?;
    // What was given up there does not come back.
    let (given_up, _) = target.forgotten()?;
    let mut listing = Listing::of(&target)?;
    let mut copied = Copied::default();
    for commit in points {
        if given_up.is_here(&commit.id) {
            copied.forgotten.push(commit.id.clone());
            continue;
        }
        match copy_point(from, &target, commit, &mut listing, (threads, progress), &mut copied) {
            Ok(true) => copied.points.push(commit.id.clone()),
            Ok(false) => copied.left.push(commit.id.clone()),
            Err(StoreError::FreedMeanwhile { first, objects, .. }) => {
                let problem = format!(
                    "a prune of the destination is about to free {objects} objects that {} needs: let it end (fabkeep prune), then copy again",
                    commit.id
                );
                copied.faults.push(ObjectFault { object: first, blake3: String::new(), problem, instead: None });
                copied.left.push(commit.id.clone());
            }
            Err(error) => return Err(error),
        }
    }
    digests(from, &target, &listing)?;
    Ok(copied)
}

impl Repository {
    /// Returns whether an object of a folder of small signed records is one that this repository goes by.
    fn trusts(&self, folder: &str, name: &str, bytes: &[u8]) -> bool {
        match folder {
            "writers" => self
                .writers
                .iter()
                .any(|writer| trust::certificate_name(&writer.key) == name && writer.certificate.as_bytes() == bytes),
            revoked::FOLDER => self.is_revocation(name, bytes),
            "faults" => self.parse_faults(name, bytes).is_ok(),
            marks::FOLDER => self.parse_mark(name, bytes).is_ok(),
            drills::FOLDER => self.parse_drill(name, bytes).is_ok(),
            forgotten::FOLDER => self.parse_forgotten(name, bytes).is_ok(),
            _ => false,
        }
    }
}

/// What is in the destination.
struct Listing {
    present: BTreeMap<String, u64>,
    made: jiff::Timestamp,
    /// What was being freed then.
    freed: HashSet<String>,
    healing: Option<Healing>,
}

impl Listing {
    fn of(target: &Repository) -> Result<Listing, StoreError> {
        let made = target.clock.now();
        // The records come first: what has gone when the objects are listed is missed.
        let (prunings, _) = target.prunings()?;
        let mut present = target.backend.list("objects")?;
        present.extend(target.backend.list("manifests")?);
        present.extend(target.backend.list("index")?);
        let freed = prunings.into_iter().flat_map(|(pruning, _)| pruning.names).collect();
        Ok(Listing { present, made, freed, healing: None })
    }

    /// Returns what took the place of damaged objects in the source, read once.
    fn healing(&mut self, from: &Repository) -> Result<&Healing, StoreError> {
        if self.healing.is_none() {
            let (places, _) = from.places()?;
            let (bad, _) = from.bad_objects()?;
            let (moved, present) = (from.moved()?, from.backend.list("objects")?);
            let names: Vec<String> = from.backend.list("index")?.into_keys().collect();
            let mut speaks_of = Vec::new();
            from.read_indexes(&names, |at, index| {
                if let Some(Ok(index)) = index {
                    let inside = index.blobs.iter().filter_map(|blob| index.objects.get(blob.1 as usize));
                    let described: HashSet<&String> = inside.map(|entry| &entry.name).collect();
                    let moved = index.moved.iter().map(|(name, ..)| name);
                    speaks_of.push((names[at].clone(), described.into_iter().chain(moved).cloned().collect()));
                }
                Ok(())
            })?;
            self.healing = Some(Healing { places, moved, present, bad, speaks_of });
        }
        self.healing.as_ref().ok_or_else(|| StoreError::Internal("indexes were not read".to_owned()))
    }
}

/// Copies one recovery point; `false` where something of it is damaged or missing.
fn copy_point(
    from: &Repository,
    target: &Repository,
    commit: &Commit,
    listing: &mut Listing,
    (threads, progress): (usize, &AtomicU64),
    copied: &mut Copied,
) -> Result<bool, StoreError> {
    let index = match from.index_of(commit) {
        Ok(index) => index,
        Err(error) if error.is_of_the_object() => {
            add_faults(&mut copied.faults, [fault(&commit.index, error.problem())].iter());
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let mut entries: Vec<&ObjectEntry> = index.objects.iter().collect();
    entries.extend([&commit.manifest, &commit.index]);
    let mut copy_all = |entries: &[&ObjectEntry], present: &mut BTreeMap<String, u64>| {
        let (objects, bytes, faults) = objects(from, &target.backend, entries, present, threads, progress)?;
        copied.objects += objects;
        copied.bytes += bytes;
        Ok::<_, StoreError>(faults)
    };
    let mut faults = copy_all(&entries, &mut listing.present)?;
    // What says where the content of objects lies that are not there.
    let mut indexes: Vec<String> = Vec::new();
    let instead = if faults.is_empty() { None } else { listing.healing(from)?.instead(&entries, &mut faults) };
    if let Some(instead) = &instead {
        let more: Vec<&ObjectEntry> = instead.iter().collect();
        let lost = copy_all(&more, &mut listing.present)?;
        let (whole, healing) = (lost.is_empty(), listing.healing(from)?);
        // What a prune packed anew is not missed.
        let moved = |fault: &&ObjectFault| whole && healing.moved.is_moved(&fault.object, &fault.blake3);
        add_faults(&mut copied.faults, faults.iter().filter(|fault| !moved(fault)).chain(&lost));
        if !whole {
            return Ok(false);
        }
        indexes = healing.indexes(&faults, instead);
        for name in &indexes {
            if !listing.present.contains_key(name) {
                let bytes = from.backend.need(name)?;
                listing.present.insert(name.clone(), bytes.len() as u64);
                target.backend.put_new(name, bytes)?;
            }
        }
        entries.retain(|entry| !faults.iter().any(|fault| fault.object == entry.name));
        entries.extend(more);
    } else if !faults.is_empty() {
        add_faults(&mut copied.faults, faults.iter());
        return Ok(false);
    }
    let name = commit.id.commit_name();
    let Some(record) = from.backend.get(&name)? else {
        // It has been forgotten meanwhile.
        return Ok(false);
    };
    let indexes = indexes.iter().map(String::as_str);
    let used: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).chain(indexes).collect();
    let young = target.clock.now().duration_since(listing.made).abs() < pruning::TRUSTED_LISTING;
    let untouched = used.iter().all(|name| !listing.freed.contains(*name));
    let look = if young && untouched { pruning::Look::ForRecords } else { pruning::Look::ForAll };
    let confirmed = pruning::confirm(target.as_place(), &target.clock, &used, look)?;
    if target.backend.put_new(&name, record.clone())? == Put::Exists && target.backend.need(&name)? != record {
        return Err(untrusted(&name, "the destination has a different commit record with its name"));
    }
    pruning::confirm_again(&target.backend, &target.clock, &confirmed, &used)?;
    Ok(true)
}

/// Adds what is wrong, each object once.
fn add_faults<'f>(all: &mut Vec<ObjectFault>, more: impl Iterator<Item = &'f ObjectFault>) {
    for fault in more {
        if !all.iter().any(|known| known.object == fault.object && known.problem == fault.problem) {
            all.push(fault.clone());
        }
    }
}

/// What took the place of objects that are damaged here.
struct Healing {
    places: Places,
    moved: Moved,
    present: BTreeMap<String, u64>,
    bad: BadObjects,
    /// Indexes, and the objects that each describes or says of that they were packed anew.
    speaks_of: Vec<(String, HashSet<String>)>,
}

impl Healing {
    /// Returns the indexes that say where the content of what is damaged or moved lies.
    fn indexes(&self, faults: &[ObjectFault], instead: &[ObjectEntry]) -> Vec<String> {
        let mut wanted: HashSet<String> = instead.iter().map(|entry| entry.name.clone()).collect();
        for fault in faults.iter().filter(|fault| self.moved.is_moved(&fault.object, &fault.blake3)) {
            wanted.insert(fault.object.clone());
            wanted.extend(self.moved.chain(&fault.object));
        }
        let told = self.speaks_of.iter().filter(|(_, objects)| objects.iter().any(|object| wanted.contains(object)));
        told.map(|(name, _)| name.clone()).collect()
    }

    /// Returns the objects that hold everything of what is damaged, and says so of it; `None` when something of it is nowhere.
    fn instead(&self, entries: &[&ObjectEntry], faults: &mut [ObjectFault]) -> Option<Vec<ObjectEntry>> {
        let mut found: Vec<ObjectEntry> = Vec::new();
        let lost: HashSet<String> = faults.iter().map(|fault| fault.blake3.clone()).collect();
        let good =
            |entry: &ObjectEntry| !lost.contains(&entry.blake3) && Repository::usable(&self.present, &self.bad, entry);
        for fault in faults {
            let entry = entries.iter().find(|entry| entry.name == fault.object && entry.blake3 == fault.blake3)?;
            let instead = self.moved.instead_of(entry, &good).or_else(|| self.places.instead_of(entry, &good))?;
            fault.instead = Some(instead.iter().map(|entry| entry.name.clone()).collect());
            found.extend(instead.into_iter().cloned());
        }
        Some(found)
    }
}

/// Copies what the indexes of forgotten points know of objects that other points need.
fn digests(from: &Repository, target: &Repository, listing: &Listing) -> Result<(), StoreError> {
    let (forgotten, _) = from.forgotten()?;
    let of_forgotten = |name: &String| match history::checkpoint_of(name) {
        Some((_, number)) => number == 0,
        None => history::point_of(name, "index").is_some_and(|point| forgotten.is_here(&point)),
    };
    let names: Vec<String> = from.backend.list("index")?.into_keys().filter(of_forgotten).collect();
    for name in names.iter().filter(|name| !listing.present.contains_key(*name)) {
        let Some(Ok(bytes)) = from.backend.get_if_readable(name)? else { continue };
        let there = |entry: &ObjectEntry| listing.present.contains_key(&entry.name);
        if from.parse_index(name, &bytes).is_ok_and(|index| index.objects.iter().any(there)) {
            target.backend.put_new(name, bytes)?;
        }
    }
    Ok(())
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
    check_empty(target, to)?;
    // What is forgotten in one place stays in the other. A place with settings has its name.
    target.put_new(forgotten::PLACE, forgotten::new_place())?;
    target.put_once(CONFIG, own).map(drop)
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
    let made = parallel::try_map::<_, _, StoreError>(&wanted, threads, |entry| {
        let put = from.backend.need(&entry.name).and_then(|sealed| {
            check_sealed(entry, &sealed)?;
            target.put_new(&entry.name, sealed)
        });
        match put {
            Ok(put) => {
                progress.fetch_add(entry.size, Ordering::Relaxed);
                Ok(Ok(if put == Put::Created { (1, entry.size) } else { (0, 0) }))
            }
            Err(error) if error.is_of_the_object() => Ok(Err(fault(entry, error.problem()))),
            Err(error) => Err(error),
        }
    })?;
    let (mut put, mut bytes) = (0, 0);
    for one in made {
        match one {
            Ok((objects, size)) => (put, bytes) = (put + objects, bytes + size),
            Err(fault) => faults.push(fault),
        }
    }
    for entry in wanted.iter().filter(|entry| !faults.iter().any(|fault| fault.object == entry.name)) {
        present.insert(entry.name.clone(), entry.size);
    }
    Ok((put, bytes, faults))
}
