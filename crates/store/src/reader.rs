//! Reads a recovery point: its manifest, then any blob; every byte is checked against the manifest.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::commit::Commit;
use crate::index::{BlobEntry, ObjectEntry};
use crate::keys::IdentityFile;
use crate::places::Places;
use crate::{BlobId, NameKey, Repository, StoreError, seal};

/// Opened objects kept in memory: enough for every node's cursor in a pass over a channel, at 16 MiB each.
const CACHED_OBJECTS: usize = 5;
/// Objects read at the same time when they are only checked.
const READ_AT_ONCE: usize = 8;

/// A manifest as stored: everything that the point needs, and the caller's body.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest<T> {
    pub name_key: String,
    pub objects: Vec<ObjectEntry>,
    pub blobs: Vec<BlobEntry>,
    pub body: T,
}

type CacheSlot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// An open recovery point.
pub struct PointReader<'a> {
    repository: &'a Repository,
    identity: &'a IdentityFile,
    names: NameKey,
    objects: Vec<ObjectEntry>,
    blobs: HashMap<BlobId, (u32, u64, u64)>,
    by_object: Vec<Vec<(BlobId, u64, u64)>>,
    cache: Mutex<(HashMap<u32, CacheSlot>, VecDeque<u32>)>,
    /// Objects that are damaged or missing.
    lost: Mutex<HashSet<u32>>,
    /// Other locations of blobs, loaded if an object is lost.
    places: Mutex<Option<Arc<Places>>>,
    /// Blobs that were added.
    added: Mutex<Added>,
    /// Objects of others that were opened for what was lost, by the hash of their sealed bytes, the newest last.
    others: Mutex<VecDeque<(String, Arc<Vec<u8>>)>>,
}

/// Blobs that belong to the point as it is restored and are in no object: in a file without a name, as they may be many.
#[derive(Default)]
struct Added {
    file: Option<File>,
    /// Offset and length of each.
    places: HashMap<BlobId, (u64, u64)>,
    end: u64,
}

/// The bytes of a blob, as a part of its object.
#[derive(Debug, Clone)]
pub struct BlobBytes {
    object: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Deref for BlobBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.object[self.range.clone()]
    }
}

impl Repository {
    /// Opens a recovery point: its manifest's signature, hash and seal are checked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read_point<'a, T: DeserializeOwned>(
        &'a self,
        commit: &Commit,
        identity: &'a IdentityFile,
    ) -> Result<(T, PointReader<'a>), StoreError> {
        let entry = &commit.manifest;
        let damaged = |problem: String| StoreError::damaged(&entry.name, problem);
        let manifest: Manifest<T> = self.open_manifest(commit, identity)?;
        let mut names = [0; 32];
        hex::decode_to_slice(&manifest.name_key, &mut names).map_err(|error| damaged(error.to_string()))?;
        let mut by_object = vec![Vec::new(); manifest.objects.len()];
        let mut blobs = HashMap::with_capacity(manifest.blobs.len());
        for (id, object, offset, len) in manifest.blobs {
            let inside = manifest
                .objects
                .get(object as usize)
                .is_some_and(|entry| offset.checked_add(len).is_some_and(|end| end <= entry.plain_size));
            if !inside {
                return Err(damaged(format!("blob {id} is outside its object")));
            }
            by_object[object as usize].push((id, offset, len));
            blobs.insert(id, (object, offset, len));
        }
        let reader = PointReader {
            repository: self,
            identity,
            names: NameKey(names),
            objects: manifest.objects,
            blobs,
            by_object,
            cache: Mutex::default(),
            lost: Mutex::default(),
            places: Mutex::default(),
            others: Mutex::default(),
            added: Mutex::default(),
        };
        Ok((manifest.body, reader))
    }

    fn open_manifest<T: DeserializeOwned>(
        &self,
        commit: &Commit,
        identity: &IdentityFile,
    ) -> Result<Manifest<T>, StoreError> {
        self.check_identity(identity)?;
        let entry = &commit.manifest;
        let sealed = self.backend.need(&entry.name)?;
        check_sealed(entry, &sealed)?;
        let json = seal::open(&entry.name, &sealed, &identity.identities, Some(entry.plain_size))?;
        serde_json::from_slice(&json).map_err(|error| StoreError::damaged(&entry.name, error.to_string()))
    }

    /// Objects and blobs that a manifest names, whose hash is in no commit record that can be read.
    pub(crate) fn needed_by_name(
        &self,
        name: &str,
        identity: &IdentityFile,
    ) -> Result<(Vec<ObjectEntry>, Vec<BlobEntry>), StoreError> {
        self.check_identity(identity)?;
        let sealed = self.backend.need(name)?;
        let json = seal::open(name, &sealed, &identity.identities, None)?;
        let manifest: Manifest<serde::de::IgnoredAny> =
            serde_json::from_slice(&json).map_err(|error| StoreError::damaged(name, error.to_string()))?;
        Ok((manifest.objects, manifest.blobs))
    }

    /// Objects and blobs that a manifest names.
    pub(crate) fn needed(
        &self,
        commit: &Commit,
        identity: &IdentityFile,
    ) -> Result<(Vec<ObjectEntry>, Vec<BlobEntry>), StoreError> {
        let manifest: Manifest<serde::de::IgnoredAny> = self.open_manifest(commit, identity)?;
        Ok((manifest.objects, manifest.blobs))
    }
}

fn not_placed(id: &BlobId) -> StoreError {
    StoreError::damaged("the manifest", format!("it does not place blob {id}"))
}

/// Refuses bytes that differ from the written ones.
pub(crate) fn check_sealed(entry: &ObjectEntry, sealed: &[u8]) -> Result<(), StoreError> {
    if sealed.len() as u64 != entry.size {
        return Err(StoreError::damaged(&entry.name, format!("{} bytes, {} were written", sealed.len(), entry.size)));
    }
    if blake3::hash(sealed).to_hex().as_str() != entry.blake3 {
        return Err(StoreError::damaged(&entry.name, "its BLAKE3 hash differs from that of the written object"));
    }
    Ok(())
}

impl PointReader<'_> {
    /// Returns the key for the names of blobs.
    pub fn names(&self) -> &NameKey {
        &self.names
    }

    /// Returns every object that the point needs.
    pub fn objects(&self) -> &[ObjectEntry] {
        &self.objects
    }

    /// Adds a blob to what this reader has of the point: bytes that a restore makes. The repository gets nothing of it.
    ///
    /// # Errors
    /// [`StoreError::Io`] when there is no room for it in the directory of temporary files.
    pub fn add(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        let id = self.names.name(bytes);
        let mut added = self.added.lock();
        if !self.blobs.contains_key(&id) && !added.places.contains_key(&id) {
            let at = added.end;
            let file = match &added.file {
                Some(file) => file,
                None => added.file.insert(tempfile::tempfile()?),
            };
            file.write_all_at(bytes, at)?;
            added.places.insert(id, (at, bytes.len() as u64));
            added.end += bytes.len() as u64;
        }
        Ok(id)
    }

    fn added(&self, id: &BlobId) -> Result<Option<BlobBytes>, StoreError> {
        let added = self.added.lock();
        let (Some(&(at, len)), Some(file)) = (added.places.get(id), &added.file) else { return Ok(None) };
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, at)?;
        Ok(Some(BlobBytes { range: 0..bytes.len(), object: Arc::new(bytes) }))
    }

    /// Returns a blob's length in bytes, if the point has it.
    pub fn blob_len(&self, id: &BlobId) -> Option<u64> {
        if let Some(&(_, len)) = self.added.lock().places.get(id) {
            return Some(len);
        }
        self.blobs.get(id).map(|&(_, _, len)| len)
    }

    /// Makes sure that these blobs can be had: each object is there with the size that was put, or what is lost of it lies in another
    /// one. With `read` the objects' bytes are checked, too.
    ///
    /// # Errors
    /// [`StoreError`], naming the first object that is missing or damaged.
    pub fn check_needed(&self, wanted: impl IntoIterator<Item = BlobId>, read: bool) -> Result<(), StoreError> {
        let there = self.repository.backend.list("objects")?;
        let mut by_object: BTreeMap<u32, Vec<BlobId>> = BTreeMap::new();
        let wanted = wanted.into_iter().filter(|id| !self.added.lock().places.contains_key(id));
        for id in wanted {
            let &(object, ..) = self.blobs.get(&id).ok_or_else(|| not_placed(&id))?;
            by_object.entry(object).or_default().push(id);
        }
        let entry = |object: u32| &self.objects[object as usize];
        let (present, mut lost): (Vec<u32>, Vec<u32>) =
            by_object.keys().partition(|object| there.get(&entry(**object).name) == Some(&entry(**object).size));
        for objects in present.chunks(READ_AT_ONCE).filter(|_| read) {
            let names: Vec<String> = objects.iter().map(|object| entry(*object).name.clone()).collect();
            for (name, sealed) in self.repository.backend.get_many(&names)? {
                let Some(&object) = objects.iter().find(|object| entry(**object).name == name) else { continue };
                match sealed.and_then(|sealed| check_sealed(entry(object), &sealed)) {
                    Ok(()) => {}
                    Err(error) if error.is_of_the_object() => lost.push(object),
                    Err(error) => return Err(error),
                }
            }
        }
        self.lost.lock().extend(lost.iter().copied());
        for id in lost.iter().filter_map(|object| by_object.get(object)).flatten() {
            self.blob(id)?;
        }
        Ok(())
    }

    /// Returns a blob's bytes.
    ///
    /// # Errors
    /// [`StoreError`], naming the object.
    pub fn blob(&self, id: &BlobId) -> Result<BlobBytes, StoreError> {
        let Some(&(object, offset, len)) = self.blobs.get(id) else {
            return self.added(id)?.ok_or_else(|| not_placed(id));
        };
        let known_as_lost = self.lost.lock().contains(&object);
        let entry = &self.objects[object as usize];
        let error = if known_as_lost {
            None
        } else {
            match self.object(object) {
                Ok(bytes) => {
                    let range = offset as usize..(offset + len) as usize;
                    return Ok(BlobBytes { object: bytes, range });
                }
                Err(error) if error.is_of_the_object() => Some(error),
                Err(error) => return Err(error),
            }
        };
        self.lost.lock().insert(object);
        match (self.read_from_another(id, len, entry)?, error) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.why_lost(entry)?),
        }
    }

    /// Returns what is wrong with an object that was found to be lost.
    fn why_lost(&self, entry: &ObjectEntry) -> Result<StoreError, StoreError> {
        match self.repository.backend.need(&entry.name).and_then(|sealed| check_sealed(entry, &sealed)) {
            Ok(()) => Ok(StoreError::damaged(&entry.name, "its content differs from what its names say")),
            Err(error) if error.is_of_the_object() => Ok(error),
            Err(error) => Err(error),
        }
    }

    /// Returns a blob whose object is lost, from an object in which it was put again. Its name is the keyed hash of its bytes: what has it
    /// is it.
    fn read_from_another(&self, id: &BlobId, len: u64, lost: &ObjectEntry) -> Result<Option<BlobBytes>, StoreError> {
        let places = {
            let mut places = self.places.lock();
            match &*places {
                Some(known) => Arc::clone(known),
                None => Arc::clone(places.insert(Arc::new(self.repository.places()?.0))),
            }
        };
        for &(object, offset, other_len) in places.blobs.get(id).into_iter().flatten() {
            let Some(entry) = places.objects.get(object as usize) else { continue };
            if (entry.name == lost.name && entry.blake3 == lost.blake3) || other_len != len {
                continue;
            }
            let bytes = match self.open_other(entry) {
                Ok(bytes) => bytes,
                Err(error) if error.is_of_the_object() => continue,
                Err(error) => return Err(error),
            };
            let range = offset as usize..offset.saturating_add(len) as usize;
            if bytes.get(range.clone()).is_some_and(|inside| self.names.name(inside) == *id) {
                return Ok(Some(BlobBytes { object: bytes, range }));
            }
        }
        Ok(None)
    }

    fn open_other(&self, entry: &ObjectEntry) -> Result<Arc<Vec<u8>>, StoreError> {
        let mut others = self.others.lock();
        if let Some((_, bytes)) = others.iter().find(|(hash, _)| *hash == entry.blake3) {
            return Ok(Arc::clone(bytes));
        }
        let sealed = self.repository.backend.need(&entry.name)?;
        check_sealed(entry, &sealed)?;
        let plain = Arc::new(seal::open(&entry.name, &sealed, &self.identity.identities, Some(entry.plain_size))?);
        if others.len() >= CACHED_OBJECTS {
            others.pop_front();
        }
        others.push_back((entry.blake3.clone(), Arc::clone(&plain)));
        Ok(plain)
    }

    fn object(&self, position: u32) -> Result<Arc<Vec<u8>>, StoreError> {
        let slot = {
            let mut cache = self.cache.lock();
            let (slots, order) = &mut *cache;
            order.retain(|&other| other != position);
            order.push_back(position);
            if order.len() > CACHED_OBJECTS
                && let Some(oldest) = order.pop_front()
            {
                slots.remove(&oldest);
            }
            Arc::clone(slots.entry(position).or_default())
        };
        // Two threads that want the same object load it once.
        let mut slot = slot.lock();
        if let Some(bytes) = &*slot {
            return Ok(Arc::clone(bytes));
        }
        let bytes = Arc::new(self.load(position)?);
        *slot = Some(Arc::clone(&bytes));
        Ok(bytes)
    }

    fn load(&self, position: u32) -> Result<Vec<u8>, StoreError> {
        let entry = &self.objects[position as usize];
        let sealed = self.repository.backend.need(&entry.name)?;
        check_sealed(entry, &sealed)?;
        let plain = seal::open(&entry.name, &sealed, &self.identity.identities, Some(entry.plain_size))?;
        for (id, offset, len) in &self.by_object[position as usize] {
            let bytes = &plain[*offset as usize..(*offset + *len) as usize];
            if self.names.name(bytes) != *id {
                return Err(StoreError::damaged(&entry.name, format!("blob {id} inside it has a different hash")));
            }
        }
        Ok(plain)
    }
}
