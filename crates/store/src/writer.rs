//! Writes one recovery point: blobs into packs, packs into objects, then manifest, index and finally the commit record.

use std::collections::{BTreeSet, HashMap, HashSet};

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

use crate::backend::Put;
use crate::commit::{Commit, PointId, PointSummary, Previous};
use crate::history::History;
use crate::index::{BlobEntry, Index, ObjectEntry, Sources};
use crate::keys::WriterKey;
use crate::pack::Pack;
use crate::reader::{Manifest, check_sealed};
use crate::remark::{Remark, RemarkKind};
use crate::{BlobId, NameKey, Repository, StoreError, json, memory, pruning, seal, signed, sources};

/// Number of objects after which a run writes a checkpoint, so that a run after a crash can reuse them.
const CHECKPOINT_OBJECTS: usize = 32;
/// How often indexes are listed again, because some have been replaced by others meanwhile.
const MAX_LISTINGS: usize = 8;
/// Networks whose last recovery points' notes are looked up: more do not share a repository.
const MAX_NETWORKS: usize = 64;

/// Statistics of what a run wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WriteStats {
    /// Number of objects written.
    pub objects: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// Number of blobs written.
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

/// Writes one recovery point. It is shared between threads: the thread that fills a pack seals and writes it.
pub struct PointWriter<'a> {
    repository: &'a Repository,
    key: WriterKey,
    id: PointId,
    created: jiff::Timestamp,
    /// Names that no object of this run may get: those of existing objects, and those in any index.
    taken: BTreeSet<String>,
    /// What recovery points noted of their sources, by network: that of the network which is captured first.
    noted: Vec<(String, Sources)>,
    /// The first of them are of the network that is captured.
    continues: bool,
    /// What this run has recorded of its sources so far, once it goes over them again.
    again: Option<Sources>,
    certificate: String,
    history: History,
    /// What this writer remembers as its last recovery point, where the repository does not have it any more.
    lost: Option<memory::LastCommit>,
    /// Recovery points of this writer that were stopped just before their end.
    stopped: Vec<PointId>,
    _running: Option<memory::RunLock>,
    remarks: Vec<Remark>,
    state: Mutex<State>,
}

impl Repository {
    /// Begins a recovery point.
    ///
    /// # Errors
    /// [`StoreError`] when the key does not fit the repository or the index cannot be read.
    pub fn writer(&self, key: WriterKey) -> Result<PointWriter<'_>, StoreError> {
        self.check_writer(&key)?;
        let running = key.file.as_deref().and_then(memory::RunLock::take);
        let history = self.history()?;
        let memory = key.memory();
        // Nobody else can still commit what this writer has begun.
        let stopped: Vec<PointId> = match &memory {
            Some(path) if running.as_ref().is_some_and(|lock| lock.alone) => {
                memory::begun(path, &self.config.id).into_iter().filter(|point| !history.accounts_for(point)).collect()
            }
            _ => Vec::new(),
        };
        // What is committed was begun before.
        let created = self.clock.now();
        let id = PointId::new(created, &self.chance);
        let mut remarks = history.remarks.clone();
        // One that is without its commit record and young may be on its way; of this writer's own, the commit says what they are.
        let young = (created - jiff::SignedDuration::from_hours(1), created + jiff::SignedDuration::from_hours(1));
        let (since, until) = (PointId::new(young.0, &self.chance), PointId::new(young.1, &self.chance));
        remarks.retain(|remark| {
            let name = remark.object.strip_prefix("points/").unwrap_or_default();
            let old = name < since.as_str() || name > until.as_str();
            remark.kind != RemarkKind::Uncommitted || old && stopped.iter().all(|point| point.as_str() != name)
        });
        let certificate = self.certificate_of(&key, &history, &mut remarks)?;
        remarks.extend(self.remembered(&key, &history));
        let last = memory.as_deref().and_then(|path| memory::last(path, &self.config.id));
        let lost = last.filter(|last| !history.accounts_for(&last.point));
        if memory.as_deref().is_some_and(|path| !memory::can_write(path)) {
            remarks.push(Remark::new(
                RemarkKind::Note,
                "the writer key's folder",
                "it is not writable: this machine cannot remember its last recovery point, so that the removal of a point may be noticed late or only by others",
            ));
        }
        if let Some(newest) = history.commits.iter().map(|commit| &commit.id).max().filter(|newest| **newest > id) {
            remarks.push(Remark::new(
                RemarkKind::Clock,
                id.commit_name(),
                format!(
                    "this machine's clock says {}, and recovery point {newest} is of {}: one of the two clocks is wrong; the commits define the order",
                    id.time(),
                    newest.time()
                ),
            ));
        }
        let (bad, more) = self.bad_objects()?;
        remarks.extend(more);
        let (prunings, more) = self.prunings()?;
        remarks.extend(more);
        let freed = prunings.into_iter().flat_map(|(pruning, _)| pruning.names).collect();
        let (state, taken) = self.known_blobs(&history, &bad, &freed, &mut remarks)?;
        let noted = self.last_sources(&history, &key);
        Ok(PointWriter {
            repository: self,
            key,
            id,
            created,
            taken,
            noted,
            continues: false,
            again: None,
            certificate,
            history,
            lost,
            stopped,
            _running: running,
            remarks,
            state: Mutex::new(state),
        })
    }

    /// Returns what is stored and can be built on, and the names that are taken: not what is bad, and not what is being freed. An index that
    /// cannot be read is passed over: what only it knows is put again.
    fn known_blobs(
        &self,
        history: &History,
        bad: &crate::faults::BadObjects,
        freed: &HashSet<String>,
        remarks: &mut Vec<Remark>,
    ) -> Result<(State, BTreeSet<String>), StoreError> {
        let present = self.backend.list("objects")?;
        let mut taken: BTreeSet<String> = present.keys().cloned().collect();
        for name in present.keys().filter(|name| name.matches('/').count() < 2) {
            let problem = "it is a file, and a repository has folders with such names: objects go into another folder";
            remarks.push(Remark::new(RemarkKind::Foreign, name, problem));
        }
        let mut state = State::default();
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut hashes: HashMap<String, String> = HashMap::new();
        let mut contradicted: HashSet<String> = HashSet::new();
        let mut read = BTreeSet::new();
        let committed: HashMap<&str, &ObjectEntry> =
            history.commits.iter().map(|commit| (commit.index.name.as_str(), &commit.index)).collect();
        for _ in 0..MAX_LISTINGS {
            let mut names: Vec<String> = self.backend.list("index")?.into_keys().collect();
            names.retain(|name| !read.contains(name));
            let mut replaced = false;
            // An index that is signed and not the one that the commit record names was put in its place.
            let check = |at: usize, bytes: &[u8]| match names.get(at).and_then(|name| committed.get(name.as_str())) {
                Some(entry) => check_sealed(entry, bytes),
                None => Ok(()),
            };
            self.read_indexes_with(&names, check, &mut |at, index| {
                let index = match index {
                    Some(Ok(index)) => index,
                    Some(Err(error)) if error.is_of_the_object() => {
                        remarks.push(Remark::new(RemarkKind::Damaged, &names[at], error.problem()));
                        return Ok(());
                    }
                    Some(Err(error)) => return Err(error),
                    // A prune has put what matters of it into another one.
                    None => {
                        replaced = true;
                        return Ok(());
                    }
                };
                let positions: Vec<Option<u32>> = index
                    .objects
                    .iter()
                    .map(|entry| {
                        taken.insert(entry.name.clone());
                        let hash = hashes.entry(entry.name.clone()).or_insert_with(|| entry.blake3.clone());
                        if *hash != entry.blake3 {
                            contradicted.insert(entry.name.clone());
                        }
                        // What is gone, cut, known as bad or being freed must be put again.
                        let usable = Repository::usable(&present, bad, entry) && !freed.contains(&entry.name);
                        usable.then(|| {
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
                Ok(())
            })?;
            read.extend(names);
            if !replaced {
                break;
            }
        }
        if !contradicted.is_empty() {
            // Two indexes contradict each other about one object: at least one of them is wrong.
            let objects = &state.objects;
            state.places.retain(|_, place| match place {
                Place::Stored(object, ..) => !contradicted.contains(&objects[*object as usize].name),
                Place::Pending => true,
            });
        }
        Ok((state, taken))
    }

    /// Returns what the last recovery points noted of their sources: of each network that of the newest one that this writer can open. It
    /// is a help only.
    fn last_sources(&self, history: &History, key: &WriterKey) -> Vec<(String, Sources)> {
        let mut out: Vec<(String, Sources)> = Vec::new();
        for commit in history.commits.iter().rev() {
            let network = &commit.summary.network;
            if out.iter().any(|(known, _)| known == network) || out.len() >= MAX_NETWORKS {
                continue;
            }
            let Ok(index) = self.index_of(commit) else { continue };
            let noted = match &index.sealed_sources {
                Some(sealed) => sources::open(sealed, key, &commit.index.name),
                None => Some(index.sources),
            };
            out.extend(noted.map(|noted| (network.clone(), noted)));
        }
        out
    }

    /// Returns a recovery point's index: the bytes that its commit record names, and no others.
    pub(crate) fn index_of(&self, commit: &Commit) -> Result<Index, StoreError> {
        let bytes = self.backend.need(&commit.index.name)?;
        check_sealed(&commit.index, &bytes)?;
        self.parse_index(&commit.index.name, &bytes)
    }
}

impl PointWriter<'_> {
    /// Returns the recovery point's name.
    pub fn id(&self) -> &PointId {
        &self.id
    }

    /// Returns the problems of the repository that this run has seen.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Returns the same, begun at another time: what a clock that is wrong does.
    #[doc(hidden)]
    #[must_use]
    pub fn begun_at(self, time: jiff::Timestamp) -> Self {
        PointWriter { id: PointId::new(time, &self.repository.chance), created: time, ..self }
    }

    /// When it was begun.
    pub fn created(&self) -> jiff::Timestamp {
        self.created
    }

    /// Returns the channels that any recovery point of the repository names.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        let channels = self.history.commits.iter().flat_map(|commit| &commit.summary.channels);
        channels.map(|channel| channel.channel.as_str())
    }

    /// Returns the key for the names of blobs.
    pub fn names(&self) -> &NameKey {
        &self.key.names
    }

    /// Looks up sources in the recovery points of this network first: networks in one repository may have nodes and channels of the same
    /// names.
    pub fn prefer(&mut self, network: &str) {
        if let Some(position) = self.noted.iter().position(|(known, _)| known == network) {
            self.noted[..=position].rotate_right(1);
            self.continues = true;
        }
    }

    /// Returns whether recovery points of the preferred network noted sources. What others noted saves reading, and says nothing of it.
    pub fn continues(&self) -> bool {
        self.continues || self.again.is_some()
    }

    /// Returns what the last recovery point of the preferred network recorded about a source, also when this run goes over it again.
    pub fn earlier(&self, name: &BlobId) -> Option<&serde_json::Value> {
        let (_, sources) = self.noted.first().filter(|_| self.continues)?;
        sources.get(&name.to_string())
    }

    /// Returns what the last committed points recorded about a source.
    pub fn source(&self, name: &BlobId) -> Option<&serde_json::Value> {
        let name = name.to_string();
        match &self.again {
            Some(again) => again.get(&name),
            None => self.noted.iter().find_map(|(_, sources)| sources.get(&name)),
        }
    }

    /// Goes over the sources once more: what this run has recorded of them so far takes the place of what the last points did, and the
    /// manifest needs nothing yet.
    pub fn begin_again(&mut self, sources: Sources) {
        self.again = Some(sources);
        self.state().used.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while holding the lock left the state whole: every change is a few assignments.
        self.state.lock()
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
            state.pack.is_full(self.repository.pack_bytes).then(|| std::mem::take(&mut state.pack))
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
        if bytes.len() < self.repository.pack_bytes / 16 {
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
        let taken = |name: &str| self.taken.contains(name);
        let entry = self.repository.put_sealed(&self.key.names, &self.key.recipients, &taken, &pack.bytes)?;
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
            self.repository.backend.put_new(&name, self.sign("index", &index.encode()?)?)?;
        }
        Ok(())
    }

    fn sign(&self, kind: &str, payload: &[u8]) -> Result<Vec<u8>, StoreError> {
        let bytes = signed::sign_certified(kind, payload, &self.key.signing, Some(&self.certificate))?;
        json::check_len("a signed object", bytes.len())?;
        Ok(bytes)
    }

    /// Returns the index of what this run added since a place in its lists.
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
            ..Index::default()
        }
    }

    /// Completes the recovery point: pending packs, manifest, index, and the commit record last. `sources` is what the next
    /// capture wants to know.
    ///
    /// # Errors
    /// [`StoreError`]; without a commit record the point does not exist.
    pub fn commit<T: Serialize>(
        mut self,
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
        let index_name = format!("index/{}", self.id);
        // A help only: without it the next capture reads everything again.
        index.sealed_sources = match sources::seal(&sources, &self.key, &index_name) {
            Ok(sealed) => Some(sealed),
            Err(StoreError::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        // What a reader would refuse is refused before anything says that the point is there.
        let payload = match index.encode() {
            Err(StoreError::TooLarge { .. }) if index.sealed_sources.is_some() => {
                index.sealed_sources = None;
                index.encode()
            }
            other => other,
        }?;
        let signed_index = self.sign("index", &payload)?;
        let manifest = Manifest { name_key: hex::encode(self.key.names.0), objects, blobs, body };
        let json = json::encode("the manifest", &manifest)?;
        drop(manifest);
        let sealed = seal::seal(&json, &self.key.recipients)?;
        json::check_len("the manifest", sealed.len())?;
        let memory = self.key.memory();
        if let Some(path) = &memory {
            let _ = memory::begin(path, &self.repository.config.id, &self.id);
        }
        let manifest_entry = self.put_named(format!("manifests/{}", self.id), sealed, json.len() as u64)?;
        let index_entry = self.put_named(index_name, signed_index, payload.len() as u64)?;
        stats.objects += 2;
        stats.bytes += manifest_entry.size + index_entry.size;
        let names = index.objects.iter().map(|entry| entry.name.as_str());
        let used: HashSet<&str> = names.chain([manifest_entry.name.as_str(), index_entry.name.as_str()]).collect();
        self.history.refresh(self.repository)?;
        let mut previous = self.history.heads();
        let mut sequence = self.history.next_sequence();
        if let Some(lost) = self.lost.take().filter(|lost| !self.history.accounts_for(&lost.point)) {
            // Whoever looks later misses it too.
            previous.push(Previous { point: lost.point, blake3: lost.blake3 });
            sequence = sequence.max(lost.sequence.saturating_add(1));
        }
        let commit = Commit {
            id: self.id.clone(),
            repository: self.repository.config.id.clone(),
            created: self.created.to_string(),
            committed: self.repository.clock.now().to_string(),
            summary,
            new_objects: stats.objects,
            new_bytes: stats.bytes,
            sequence: Some(sequence),
            previous,
            stopped: std::mem::take(&mut self.stopped),
            revoked: self.repository.revoked.keys(),
            manifest: manifest_entry.clone(),
            index: index_entry.clone(),
        };
        let payload = serde_json::to_vec(&commit).map_err(|error| StoreError::Internal(error.to_string()))?;
        let bytes = self.sign("commit", &payload)?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        stats.objects += 1;
        stats.bytes += bytes.len() as u64;
        let (place, clock) = (self.repository.as_place(), &self.repository.clock);
        let confirmed = pruning::confirm(place, clock, &used, pruning::Look::ForAll)?;
        if self.repository.backend.put_once(&self.id.commit_name(), bytes)? == Put::Exists {
            return Err(StoreError::Internal(format!("recovery point {} exists already", self.id)));
        }
        if let Some(path) = &memory {
            // The point is committed. A folder that cannot be written to was remarked at the beginning.
            let _ = memory::committed(path, &commit, &hash);
        }
        pruning::confirm_again(place.0, clock, &confirmed, &used)?;
        Ok((commit, stats))
    }

    fn put_named(&self, name: String, bytes: Vec<u8>, plain_size: u64) -> Result<ObjectEntry, StoreError> {
        let entry = ObjectEntry {
            size: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            plain_size,
            name: name.clone(),
        };
        if self.repository.backend.put_once(&name, bytes)? == Put::Exists {
            return Err(StoreError::Internal(format!("{name} exists already")));
        }
        Ok(entry)
    }
}
