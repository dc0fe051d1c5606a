//! What recovery points need: the objects that their indexes list, or, where an index cannot be read, their manifests. Memory is bounded by
//! the number of objects.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::backend::Stat;
use crate::commit::{Commit, PointId};
use crate::faults::BadObjects;
use crate::history::History;
use crate::index::{BlobEntry, Index, ObjectEntry};
use crate::keys::IdentityFile;
use crate::moved::Moved;
use crate::reader::check_sealed;
use crate::{BlobId, Repository, StoreError, faults, signed};
use fabkeep_parallel as parallel;

/// Indexes kept in memory at a time.
const INDEXES_AT_ONCE: usize = 16;

/// Objects and blobs of a manifest.
pub(crate) type Content = (Vec<ObjectEntry>, Vec<BlobEntry>);

/// A recovery point whose needs are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    pub id: PointId,
    /// Its commit record, if that can be read.
    pub commit: Option<Commit>,
}

impl Root {
    fn index_name(&self) -> String {
        self.commit.as_ref().map_or_else(|| format!("index/{}", self.id), |commit| commit.index.name.clone())
    }

    fn manifest_name(&self) -> String {
        self.commit.as_ref().map_or_else(|| format!("manifests/{}", self.id), |commit| commit.manifest.name.clone())
    }
}

/// An object that recovery points need.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// Its sealed size in bytes.
    pub size: u64,
    /// The size of what is inside, in bytes.
    pub plain_size: u64,
    /// Which points need it: positions in the list of points, from the first to before the second.
    pub needed_by: Vec<(u32, u32)>,
    /// An index of these points says what is in it.
    pub described: bool,
    /// Something of it takes the place of what was lost elsewhere.
    pub heals: bool,
}

impl Reached {
    fn needed_by(&mut self, point: u32) {
        if self.needed_by.iter().any(|(first, end)| (*first..*end).contains(&point)) {
            return;
        }
        match self.needed_by.last_mut() {
            Some((_, end)) if *end == point => *end = point + 1,
            _ => self.needed_by.push((point, point + 1)),
        }
    }

    /// Returns whether a point needs it.
    pub fn is_needed(&self) -> bool {
        !self.needed_by.is_empty()
    }

    /// Returns the points that need it.
    pub fn points(&self) -> impl Iterator<Item = u32> {
        self.needed_by.iter().flat_map(|(first, end)| *first..*end)
    }
}

/// What was found out about one point.
#[derive(Debug, Default)]
pub(crate) struct PointNeeds {
    /// What it needs is not known: neither its index nor its manifest can be read.
    pub unknown: Option<String>,
    /// It cannot be restored completely, as far as that is known without reading its objects.
    pub damaged: Option<String>,
    /// Objects of it that are missing, cut or known as bad.
    lost: Vec<ObjectEntry>,
    /// Objects of it that a prune packed anew.
    moved: Vec<ObjectEntry>,
}

/// What recovery points need.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    names: HashMap<String, u32>,
    pub objects: Vec<Reached>,
    /// One for each point that was asked for.
    pub points: Vec<PointNeeds>,
    /// What was packed anew.
    pub moved: Moved,
}

impl Reach {
    /// Returns an object that a point needs.
    pub fn get(&self, name: &str) -> Option<&Reached> {
        self.objects.get(*self.names.get(name)? as usize)
    }

    /// Returns all objects that points need.
    pub fn needed(&self) -> impl Iterator<Item = &Reached> {
        self.objects.iter().filter(|object| object.is_needed())
    }

    fn position(&mut self, entry: &ObjectEntry) -> u32 {
        if let Some(&position) = self.names.get(&entry.name) {
            return position;
        }
        let position = self.objects.len() as u32;
        self.names.insert(entry.name.clone(), position);
        self.objects.push(Reached { size: entry.size, plain_size: entry.plain_size, ..Reached::default() });
        position
    }

    fn add(&mut self, point: u32, entry: &ObjectEntry) -> &mut Reached {
        let position = self.position(entry);
        let object = &mut self.objects[position as usize];
        object.needed_by(point);
        object
    }
}

impl Repository {
    /// Reads many indexes, several at a time, and hands them on in the order of their names: `None` for one that has gone since.
    pub(crate) fn read_indexes(
        &self,
        names: &[String],
        mut each: impl FnMut(usize, Option<Result<Index, StoreError>>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.read_indexes_with(names, |_, _| Ok(()), &mut each)
    }

    /// Returns the same; `check` says which bytes are those of the index.
    pub(crate) fn read_indexes_with(
        &self,
        names: &[String],
        check: impl Fn(usize, &[u8]) -> Result<(), StoreError> + Sync,
        each: &mut dyn FnMut(usize, Option<Result<Index, StoreError>>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let numbered: Vec<(usize, &String)> = names.iter().enumerate().collect();
        for part in numbered.chunks(INDEXES_AT_ONCE) {
            let indexes = parallel::try_map::<_, _, StoreError>(part, self.backend.readers, |(at, name)| {
                let read = self.backend.get_if_readable(name)?;
                Ok(read.map(|read| {
                    let bytes = read?;
                    check(*at, &bytes)?;
                    self.parse_index(name, &bytes)
                }))
            })?;
            for ((at, _), index) in part.iter().zip(indexes) {
                each(*at, index)?;
            }
        }
        Ok(())
    }

    /// Returns an index, from its bytes; writers and the root sign indexes.
    pub(crate) fn parse_index(&self, name: &str, bytes: &[u8]) -> Result<Index, StoreError> {
        let opened = signed::open(name, "index", bytes)?;
        let by_root = self.check_writer_or_root(name, &opened)?;
        let mut index = Index::decode(name, opened.payload)?;
        if !by_root {
            index.moved.clear();
        }
        Ok(index)
    }

    /// Returns every point whose objects must stay: those that are listed, by network and in the order of their commits, then those whose
    /// commit records are damaged or gone.
    pub(crate) fn roots(&self, history: &History) -> Vec<Root> {
        let root = |commit: &Commit| Root { id: commit.id.clone(), commit: Some(commit.clone()) };
        let mut roots: Vec<Root> = history.commits.iter().map(root).collect();
        let network = |root: &Root| root.commit.as_ref().map(|commit| commit.summary.network.clone());
        roots.sort_by_key(network);
        roots.extend(history.lost.iter().map(|id| Root { id: id.clone(), commit: None }));
        roots
    }

    /// Finds out what points need. With the identity, manifests take the place of indexes that cannot be read. `recorded` is going to be freed:
    /// nothing else goes because of what is in it.
    pub(crate) fn reach(
        &self,
        roots: &[Root],
        present: &BTreeMap<String, Stat>,
        bad: &BadObjects,
        recorded: &HashSet<String>,
        identity: Option<&IdentityFile>,
    ) -> Result<Reach, StoreError> {
        let mut reach = Reach { moved: self.moved()?, ..Reach::default() };
        reach.points.resize_with(roots.len(), PointNeeds::default);
        let names: Vec<String> = roots.iter().map(Root::index_name).collect();
        let usable = |entry: &ObjectEntry| {
            present.get(&entry.name).is_some_and(|stat| stat.size == entry.size)
                && !faults::is_bad(bad, &entry.name, &entry.blake3)
        };
        // What a commit record names by its hash is that and nothing else.
        let check = |at: usize, bytes: &[u8]| match roots.get(at).and_then(|root| root.commit.as_ref()) {
            Some(commit) => check_sealed(&commit.index, bytes),
            None => Ok(()),
        };
        let mut each = |at: usize, index: Option<Result<Index, StoreError>>| {
            let root = &roots[at];
            let mut needs = PointNeeds::default();
            let by_index = match index {
                Some(Ok(index)) => {
                    for (_, position, ..) in &index.blobs {
                        if let Some(entry) = index.objects.get(*position as usize) {
                            let position = reach.position(entry);
                            reach.objects[position as usize].described = true;
                        }
                    }
                    Ok(index.objects)
                }
                Some(Err(error)) if error.is_of_the_object() => Err(Some(error.problem())),
                Some(Err(error)) => return Err(error),
                None => Err(None),
            };
            let objects = match by_index {
                Ok(objects) => objects,
                Err(problem) => {
                    let missing = problem.is_none() && !present.contains_key(&root.manifest_name());
                    match self.needs_by_manifest(root, identity)? {
                        Ok(objects) => objects,
                        // Of a point without a commit record, an index and a manifest nothing is there to go by.
                        Err(_) if root.commit.is_none() && missing => Vec::new(),
                        Err(manifest) => {
                            let index = problem.unwrap_or_else(|| "it is missing".to_owned());
                            needs.unknown = Some(format!("its index: {index}; its manifest: {manifest}"));
                            Vec::new()
                        }
                    }
                }
            };
            match &root.commit {
                Some(commit) if !usable(&commit.manifest) => {
                    needs.damaged = Some("its manifest is damaged or missing".to_owned());
                }
                Some(_) => {}
                None => needs.damaged = Some("its commit record is damaged or missing".to_owned()),
            }
            if let Some(unknown) = &needs.unknown {
                needs.damaged = Some(unknown.clone());
            }
            for entry in objects {
                if reach.moved.contains(&entry) {
                    needs.moved.push(entry);
                    continue;
                }
                reach.add(at as u32, &entry);
                if !usable(&entry) {
                    needs.lost.push(entry);
                }
            }
            reach.points[at] = needs;
            Ok(())
        };
        self.read_indexes_with(&names, check, &mut each)?;
        let stays = |entry: &ObjectEntry| usable(entry) && !recorded.contains(&entry.name);
        self.reach_moved(roots, &mut reach, &usable, &stays, identity)?;
        self.reach_others(roots, &mut reach, &usable, identity)?;
        Ok(reach)
    }

    /// Finds the objects in which lies what was packed anew. An old object is needed by a point as long as something that the point needs
    /// of it lies nowhere else.
    fn reach_moved(
        &self,
        roots: &[Root],
        reach: &mut Reach,
        usable: &dyn Fn(&ObjectEntry) -> bool,
        stays: &dyn Fn(&ObjectEntry) -> bool,
        identity: Option<&IdentityFile>,
    ) -> Result<(), StoreError> {
        for (at, root) in roots.iter().enumerate() {
            let listed = std::mem::take(&mut reach.points[at].moved);
            if listed.is_empty() {
                continue;
            }
            let manifest = self.manifest_of(root, identity)?;
            for entry in listed {
                let chain = reach.moved.chain(&entry.name);
                let found: Option<Vec<ObjectEntry>> = match &manifest {
                    Some((objects, blobs)) => {
                        let own = |object: u32| {
                            let known = objects.get(object as usize);
                            known.is_some_and(|known| known.name == entry.name && known.blake3 == entry.blake3)
                        };
                        let inside = blobs.iter().filter(|blob| own(blob.1));
                        inside.map(|(blob, ..)| Some(reach.moved.holder(&chain, blob, stays)?.0.clone())).collect()
                    }
                    None => reach.moved.instead_of(&entry, usable).map(|found| found.into_iter().cloned().collect()),
                };
                // Where it is not known which blobs a point needs, all of it stays.
                let unknown = manifest.is_none() && identity.is_some() && usable(&entry);
                if found.is_none() || unknown {
                    reach.add(at as u32, &entry);
                    if !usable(&entry) {
                        reach.points[at].lost.push(entry);
                    }
                }
                for holder in found.into_iter().flatten() {
                    reach.add(at as u32, &holder);
                }
            }
        }
        Ok(())
    }

    /// Returns the objects and blobs of a point's manifest; `None` without the identity, where the manifest cannot be read, or where no commit
    /// record says that it is the right one.
    pub(crate) fn manifest_of(
        &self,
        root: &Root,
        identity: Option<&IdentityFile>,
    ) -> Result<Option<Content>, StoreError> {
        let (Some(commit), Some(identity)) = (&root.commit, identity) else { return Ok(None) };
        match self.needed(commit, identity) {
            Ok(needed) => Ok(Some(needed)),
            Err(error) if error.is_of_the_object() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a manifest needs; the problem where it cannot be read.
    fn needs_by_manifest(
        &self,
        root: &Root,
        identity: Option<&IdentityFile>,
    ) -> Result<Result<Vec<ObjectEntry>, String>, StoreError> {
        let Some(identity) = identity else { return Ok(Err("it is not read without the identity".to_owned())) };
        let needed = match &root.commit {
            Some(commit) => self.needed(commit, identity),
            None => self.needed_by_name(&root.manifest_name(), identity),
        };
        match needed {
            Ok((objects, _)) => Ok(Ok(objects)),
            Err(error) if error.is_of_the_object() => Ok(Err(error.problem())),
            Err(error) => Err(error),
        }
    }

    /// Finds the objects in which lies what points have lost: those are needed in place of the lost ones.
    fn reach_others(
        &self,
        roots: &[Root],
        reach: &mut Reach,
        usable: &dyn Fn(&ObjectEntry) -> bool,
        identity: Option<&IdentityFile>,
    ) -> Result<(), StoreError> {
        let mut wanted: HashMap<BlobId, HashSet<u32>> = HashMap::new();
        let mut by_index: HashMap<(String, String), HashSet<u32>> = HashMap::new();
        for (at, root) in roots.iter().enumerate() {
            let lost: HashSet<(&str, &str)> =
                reach.points[at].lost.iter().map(|entry| (entry.name.as_str(), entry.blake3.as_str())).collect();
            if lost.is_empty() {
                continue;
            }
            match self.manifest_of(root, identity)? {
                Some((objects, blobs)) => {
                    for (blob, object, ..) in blobs {
                        let entry = objects.get(object as usize);
                        if entry.is_some_and(|entry| lost.contains(&(entry.name.as_str(), entry.blake3.as_str()))) {
                            wanted.entry(blob).or_default().insert(at as u32);
                        }
                    }
                }
                None => {
                    for (name, blake3) in lost {
                        by_index.entry((name.to_owned(), blake3.to_owned())).or_default().insert(at as u32);
                    }
                }
            }
        }
        if wanted.is_empty() && by_index.is_empty() {
            for needs in reach.points.iter_mut().filter(|needs| !needs.lost.is_empty()) {
                needs.damaged.get_or_insert_with(|| "objects of it are missing".to_owned());
            }
            return Ok(());
        }
        let names: Vec<String> = self.backend.list("index")?.into_keys().collect();
        let mut described: HashSet<(String, String)> = HashSet::new();
        if !by_index.is_empty() {
            self.read_indexes(&names, |_, index| {
                let Some(Ok(index)) = index else { return Ok(()) };
                for (blob, position, ..) in &index.blobs {
                    let Some(entry) = index.objects.get(*position as usize) else { continue };
                    let key = (entry.name.clone(), entry.blake3.clone());
                    if let Some(points) = by_index.get(&key) {
                        wanted.entry(*blob).or_default().extend(points);
                        described.insert(key);
                    }
                }
                Ok(())
            })?;
        }
        let mut found: HashMap<BlobId, Vec<ObjectEntry>> = HashMap::new();
        self.read_indexes(&names, |_, index| {
            let Some(Ok(index)) = index else { return Ok(()) };
            for (blob, position, ..) in &index.blobs {
                let Some(entry) = index.objects.get(*position as usize) else { continue };
                if wanted.contains_key(blob) && usable(entry) {
                    found.entry(*blob).or_default().push(entry.clone());
                }
            }
            Ok(())
        })?;
        let mut whole = vec![true; roots.len()];
        for (key, points) in &by_index {
            if !described.contains(key) {
                points.iter().for_each(|point| whole[*point as usize] = false);
            }
        }
        for (blob, points) in &wanted {
            let places = found.get(blob);
            for point in points {
                whole[*point as usize] &= places.is_some();
                for entry in places.into_iter().flatten() {
                    reach.add(*point, entry).heals = true;
                }
            }
        }
        for (needs, whole) in reach.points.iter_mut().zip(whole) {
            if let Some(lost) = needs.lost.first()
                && !whole
            {
                let (count, first) = (needs.lost.len(), &lost.name);
                let problem = format!("{count} of its objects are damaged or missing, for example {first}");
                needs.damaged.get_or_insert(problem);
            }
        }
        Ok(())
    }
}
