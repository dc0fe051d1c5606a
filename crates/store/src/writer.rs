//! Writing one recovery point: blobs into packs, packs into objects, then manifest, index and, last, the commit record.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use serde::Serialize;

use crate::backend::Put;
use crate::commit::{Commit, PointId, PointSummary};
use crate::index::{BlobEntry, Index, ObjectEntry, Sources};
use crate::keys::WriterKey;
use crate::pack::{PACK_BYTES, Pack};
use crate::reader::Manifest;
use crate::{BlobId, NameKey, Repository, StoreError, seal, signed};

/// Objects after which the run writes down what it has put, so that a run after a crash finds it.
const CHECKPOINT_OBJECTS: usize = 32;
/// How often one content may be put beside an object of the same name that no index knows.
const MAX_GENERATIONS: u32 = 1_000;

/// What a run wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WriteStats {
    /// Objects put.
    pub objects: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// Blobs put.
    pub blobs: u64,
    /// Their bytes before sealing.
    pub plain_bytes: u64,
}

#[derive(Clone, Copy)]
enum Place {
    /// In an object: its position in `State::objects`, offset and length.
    Stored(u32, u64, u64),
    /// In the pack that is being filled, or on its way.
    Pending,
}

#[derive(Default)]
struct State {
    objects: Vec<ObjectEntry>,
    places: HashMap<BlobId, Place>,
    pack: Pack,
    /// Blobs that the manifest will need.
    used: HashSet<BlobId>,
    /// Objects and blobs that this run added.
    new_objects: Vec<u32>,
    new_blobs: Vec<BlobId>,
    checkpointed: (usize, usize),
    checkpoints: u32,
    stats: WriteStats,
}

/// Writes one recovery point. Shared between threads: whoever fills a pack seals and puts it.
pub struct PointWriter<'a> {
    repository: &'a Repository,
    key: WriterKey,
    id: PointId,
    created: jiff::Timestamp,
    present: BTreeMap<String, u64>,
    sources: Sources,
    state: Mutex<State>,
}

impl Repository {
    /// Begins a recovery point.
    ///
    /// # Errors
    /// [`StoreError`] when the key does not fit the repository or the index cannot be read.
    pub fn writer(&self, key: WriterKey) -> Result<PointWriter<'_>, StoreError> {
        self.check_writer(&key)?;
        let created = jiff::Timestamp::now();
        let present = self.backend.list("objects")?;
        let mut state = State::default();
        let mut known: HashMap<String, u32> = HashMap::new();
        for name in self.backend.list("index")?.into_keys() {
            let index = self.read_index(&name)?;
            let positions: Vec<Option<u32>> = index
                .objects
                .iter()
                .map(|entry| {
                    // What is gone or cut must be put again.
                    (present.get(&entry.name) == Some(&entry.size)).then(|| {
                        *known.entry(entry.name.clone()).or_insert_with(|| {
                            state.objects.push(entry.clone());
                            (state.objects.len() - 1) as u32
                        })
                    })
                })
                .collect();
            for (id, position, offset, len) in index.blobs {
                if let Some(Some(position)) = positions.get(position as usize) {
                    state.places.insert(id, Place::Stored(*position, offset, len));
                }
            }
        }
        let mut sources = Sources::new();
        for (_, commit) in self.points()?.into_iter().rev() {
            if let Ok(commit) = commit {
                sources = self.read_index(&commit.index.name)?.sources;
                break;
            }
        }
        Ok(PointWriter {
            repository: self,
            key,
            id: PointId::new(created),
            created,
            present,
            sources,
            state: Mutex::new(state),
        })
    }

    pub(crate) fn read_index(&self, name: &str) -> Result<Index, StoreError> {
        let bytes = self.backend.need(name)?;
        let (payload, signer) = signed::open(name, "index", &bytes)?;
        self.check_signer(name, &signer)?;
        Index::decode(name, payload)
    }
}

impl PointWriter<'_> {
    /// The recovery point's name.
    pub fn id(&self) -> &PointId {
        &self.id
    }

    /// When it was begun.
    pub fn created(&self) -> jiff::Timestamp {
        self.created
    }

    /// The key that blobs are named with.
    pub fn names(&self) -> &NameKey {
        &self.key.names
    }

    /// What the last committed point recorded about a source.
    pub fn source(&self, name: &BlobId) -> Option<&serde_json::Value> {
        self.sources.get(&name.to_string())
    }

    /// Goes over the sources once more: what this run has recorded of them so far takes the place of what the last point did, and the
    /// manifest needs nothing yet.
    pub fn begin_again(&mut self, sources: Sources) {
        self.sources = sources;
        self.state().used.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while holding the lock left the state whole: every change is a few assignments.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Stores a small blob, in a pack with others; nothing when it is stored already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put(&self, bytes: &[u8]) -> Result<BlobId, StoreError> {
        let id = self.key.names.name(bytes);
        let full = {
            let mut state = self.state();
            state.used.insert(id);
            if state.places.contains_key(&id) {
                return Ok(id);
            }
            state.places.insert(id, Place::Pending);
            state.pack.push(id, bytes);
            state.pack.is_full().then(|| std::mem::take(&mut state.pack))
        };
        if let Some(pack) = full {
            self.put_object(&pack)?;
        }
        Ok(id)
    }

    /// Stores a large blob in an object of its own; nothing when it is stored already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_alone(&self, bytes: Vec<u8>) -> Result<BlobId, StoreError> {
        if bytes.len() < PACK_BYTES / 16 {
            return self.put(&bytes);
        }
        let id = self.key.names.name(&bytes);
        {
            let mut state = self.state();
            state.used.insert(id);
            if state.places.contains_key(&id) {
                return Ok(id);
            }
            state.places.insert(id, Place::Pending);
        }
        let len = bytes.len() as u64;
        self.put_object(&Pack { bytes, blobs: vec![(id, 0, len)] })?;
        Ok(id)
    }

    /// Says that the manifest needs a blob of an earlier point; `false` when the repository does not have it any more.
    pub fn keep(&self, id: BlobId) -> bool {
        let mut state = self.state();
        let known = state.places.contains_key(&id);
        if known {
            state.used.insert(id);
        }
        known
    }

    fn put_object(&self, pack: &Pack) -> Result<(), StoreError> {
        let entry = self.put_sealed(&pack.bytes)?;
        let checkpoint = {
            let mut state = self.state();
            let position = state.objects.len() as u32;
            state.stats.objects += 1;
            state.stats.bytes += entry.size;
            state.stats.blobs += pack.blobs.len() as u64;
            state.stats.plain_bytes += pack.bytes.len() as u64;
            state.objects.push(entry);
            state.new_objects.push(position);
            for &(id, offset, len) in &pack.blobs {
                state.places.insert(id, Place::Stored(position, offset, len));
                state.new_blobs.push(id);
            }
            if state.new_objects.len() - state.checkpointed.0 >= CHECKPOINT_OBJECTS {
                let index = self.added(&state, state.checkpointed);
                state.checkpointed = (state.new_objects.len(), state.new_blobs.len());
                state.checkpoints += 1;
                Some((index, state.checkpoints))
            } else {
                None
            }
        };
        if let Some((index, number)) = checkpoint {
            let name = format!("index/{}-{number:04}", self.id);
            self.repository.backend.put_new(&name, signed::sign("index", &index.encode()?, &self.key.signing)?)?;
        }
        Ok(())
    }

    /// Seals bytes and puts them under their keyed name. An object of that name that no index knows may be anything: it is left
    /// alone, and the next generation of the name is taken.
    fn put_sealed(&self, plain: &[u8]) -> Result<ObjectEntry, StoreError> {
        let sealed = seal::seal(plain, &self.key.recipients)?;
        let hash = self.key.names.name(plain).to_string();
        let base = format!("objects/{}/{hash}", &hash[..2]);
        let size = sealed.len() as u64;
        let blake3 = blake3::hash(&sealed).to_hex().to_string();
        for generation in 0..MAX_GENERATIONS {
            let name = if generation == 0 { base.clone() } else { format!("{base}.{generation}") };
            if self.present.contains_key(&name) {
                continue;
            }
            if self.repository.backend.put_new(&name, sealed.clone())? == Put::Created {
                return Ok(ObjectEntry { name, size, blake3, plain_size: plain.len() as u64 });
            }
        }
        Err(StoreError::Internal(format!("{base} and its generations are all taken")))
    }

    /// The index of what this run added since a place in its lists.
    fn added(&self, state: &State, since: (usize, usize)) -> Index {
        let objects: Vec<u32> = state.new_objects[since.0..].to_vec();
        let position: HashMap<u32, u32> = objects.iter().zip(0u32..).map(|(&object, new)| (object, new)).collect();
        let blobs: Vec<BlobEntry> = state.new_blobs[since.1..]
            .iter()
            .filter_map(|id| match state.places.get(id) {
                Some(Place::Stored(object, offset, len)) => Some((*id, *position.get(object)?, *offset, *len)),
                _ => None,
            })
            .collect();
        Index {
            objects: objects.iter().map(|&object| state.objects[object as usize].clone()).collect(),
            blobs,
            sources: Sources::new(),
        }
    }

    /// Completes the recovery point: pending packs, manifest, index, and the commit record last. `sources` is what the next
    /// capture wants to know.
    ///
    /// # Errors
    /// [`StoreError`]; without a commit record the point does not exist.
    pub fn commit<T: Serialize>(
        self,
        body: &T,
        summary: PointSummary,
        sources: Sources,
    ) -> Result<(Commit, WriteStats), StoreError> {
        let pack = std::mem::take(&mut self.state().pack);
        if !pack.bytes.is_empty() {
            self.put_object(&pack)?;
        }
        let state = self.state();
        // The manifest's own lists: only what it needs.
        let mut objects: Vec<ObjectEntry> = Vec::new();
        let mut positions: HashMap<u32, u32> = HashMap::new();
        let mut blobs: Vec<BlobEntry> = Vec::new();
        let mut used: Vec<&BlobId> = state.used.iter().collect();
        used.sort();
        for id in used {
            let Some(Place::Stored(object, offset, len)) = state.places.get(id).copied() else {
                return Err(StoreError::Internal(format!("blob {id} was not stored")));
            };
            let position = *positions.entry(object).or_insert_with(|| {
                objects.push(state.objects[object as usize].clone());
                (objects.len() - 1) as u32
            });
            blobs.push((*id, position, offset, len));
        }
        let mut index = self.added(&state, (0, 0));
        let mut stats = state.stats;
        drop(state);
        let own: HashSet<&str> = index.objects.iter().map(|entry| entry.name.as_str()).collect();
        let others: Vec<ObjectEntry> =
            objects.iter().filter(|entry| !own.contains(entry.name.as_str())).cloned().collect();
        index.objects.extend(others);
        index.sources = sources;

        let manifest = Manifest { name_key: hex::encode(self.key.names.0), objects, blobs, body };
        let json = serde_json::to_vec(&manifest).map_err(|error| StoreError::Internal(error.to_string()))?;
        let sealed = seal::seal(&json, &self.key.recipients)?;
        let manifest_entry = self.put_named(format!("manifests/{}", self.id), sealed, json.len() as u64)?;
        let payload = index.encode()?;
        let signed_index = signed::sign("index", &payload, &self.key.signing)?;
        let index_entry = self.put_named(format!("index/{}", self.id), signed_index, payload.len() as u64)?;
        stats.objects += 2;
        stats.bytes += manifest_entry.size + index_entry.size;
        let commit = Commit {
            id: self.id.clone(),
            repository: self.repository.config.id.clone(),
            created: self.created.to_string(),
            committed: jiff::Timestamp::now().to_string(),
            summary,
            new_objects: stats.objects,
            new_bytes: stats.bytes,
            manifest: manifest_entry,
            index: index_entry,
        };
        let payload = serde_json::to_vec(&commit).map_err(|error| StoreError::Internal(error.to_string()))?;
        let bytes = signed::sign("commit", &payload, &self.key.signing)?;
        stats.objects += 1;
        stats.bytes += bytes.len() as u64;
        if self.repository.backend.put_new(&self.id.commit_name(), bytes)? == Put::Exists {
            return Err(StoreError::Internal(format!("recovery point {} exists already", self.id)));
        }
        Ok((commit, stats))
    }

    fn put_named(&self, name: String, bytes: Vec<u8>, plain_size: u64) -> Result<ObjectEntry, StoreError> {
        let entry = ObjectEntry {
            size: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            plain_size,
            name: name.clone(),
        };
        if self.repository.backend.put_new(&name, bytes)? == Put::Exists {
            return Err(StoreError::Internal(format!("{name} exists already")));
        }
        Ok(entry)
    }
}
