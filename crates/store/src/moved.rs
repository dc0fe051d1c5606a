//! Objects that a prune packed anew: what points need of them lies in other objects, and they are freed. Digests say where, and only the
//! root's word counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::history::checkpoint_of;
use crate::index::ObjectEntry;
use crate::{BlobId, Repository, StoreError};

/// What was packed anew.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// By the name of an object: the hash of its sealed bytes, and the objects that hold what was needed of it. Each entry is complete.
    entries: BTreeMap<String, Vec<(String, Vec<String>)>>,
    /// Objects into which something was moved.
    objects: BTreeMap<String, ObjectEntry>,
    /// Blobs in those: object, offset and length of each.
    blobs: HashMap<BlobId, Vec<(String, u64, u64)>>,
}

impl Moved {
    /// Returns whether an object was packed anew.
    pub fn contains(&self, entry: &ObjectEntry) -> bool {
        self.is_moved(&entry.name, &entry.blake3)
    }

    /// Returns the same, for a name and the hash of the sealed bytes.
    pub fn is_moved(&self, name: &str, blake3: &str) -> bool {
        self.entries.get(name).is_some_and(|all| all.iter().any(|(hash, _)| hash == blake3))
    }

    /// Returns the names of all objects to which something of an object was moved, also by way of others.
    pub fn chain(&self, name: &str) -> BTreeSet<String> {
        let (mut found, mut open) = (BTreeSet::new(), vec![name]);
        while let Some(name) = open.pop() {
            for target in self.entries.get(name).into_iter().flatten().flat_map(|(_, targets)| targets) {
                if found.insert(target.clone()) {
                    open.push(target);
                }
            }
        }
        found.remove(name);
        found
    }

    /// Returns which object of a chain holds a blob, with offset and length: always the same one of those that `good` accepts.
    pub fn holder(
        &self,
        chain: &BTreeSet<String>,
        blob: &BlobId,
        good: &dyn Fn(&ObjectEntry) -> bool,
    ) -> Option<(&ObjectEntry, u64, u64)> {
        let places = self.blobs.get(blob)?;
        chain.iter().find_map(|name| {
            let (_, offset, len) = places.iter().find(|(object, ..)| object == name)?;
            let entry = self.objects.get(name).filter(|entry| !self.contains(entry) && good(entry))?;
            Some((entry, *offset, *len))
        })
    }

    /// Returns the objects that hold what points need of an object; `None` when it was not packed anew, or when something of that is lost.
    /// `good` says which objects can be used. Only a manifest says which blobs a point needs: this is what was needed when it was moved.
    pub fn instead_of(&self, of: &ObjectEntry, good: &dyn Fn(&ObjectEntry) -> bool) -> Option<Vec<&ObjectEntry>> {
        if !self.contains(of) {
            return None;
        }
        let mut found = BTreeMap::new();
        self.collect(&of.name, good, &mut BTreeSet::new(), &mut found).then(|| found.into_values().collect())
    }

    /// Collects the usable objects of every entry that is whole. Returns whether one is.
    fn collect<'m>(
        &'m self,
        name: &str,
        good: &dyn Fn(&ObjectEntry) -> bool,
        seen: &mut BTreeSet<&'m str>,
        found: &mut BTreeMap<&'m str, &'m ObjectEntry>,
    ) -> bool {
        let mut any = false;
        for (_, targets) in self.entries.get(name).into_iter().flatten() {
            let whole = targets.iter().all(|target| match self.objects.get(target).filter(|entry| good(entry)) {
                Some(entry) => {
                    found.insert(target, entry);
                    true
                }
                None if seen.insert(target) => self.collect(target, good, seen, found),
                None => self.entries.contains_key(target),
            });
            any |= whole;
        }
        any
    }
}

impl Repository {
    /// Returns the objects that prunes packed anew, and where what points need of each lies now.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed or read.
    #[doc(hidden)]
    pub fn packed_anew(&self) -> Result<BTreeMap<String, BTreeSet<String>>, StoreError> {
        let moved = self.moved()?;
        Ok(moved.entries.keys().map(|name| (name.clone(), moved.chain(name))).collect())
    }

    /// Returns what prunes packed anew, by all digests that can be read.
    pub(crate) fn moved(&self) -> Result<Moved, StoreError> {
        let digest = |name: &String| matches!(checkpoint_of(name), Some((_, 0)));
        let names: Vec<String> = self.backend.list("index")?.into_keys().filter(digest).collect();
        let mut moved = Moved::default();
        self.read_indexes(&names, |_, index| {
            if let Some(Ok(index)) = index {
                for (name, blake3, targets) in index.moved {
                    moved.entries.entry(name).or_default().push((blake3, targets));
                }
            }
            Ok(())
        })?;
        if moved.entries.is_empty() {
            return Ok(moved);
        }
        let targets: HashSet<String> =
            moved.entries.values().flatten().flat_map(|(_, targets)| targets).cloned().collect();
        self.read_indexes(&names, |_, index| {
            let Some(Ok(index)) = index else { return Ok(()) };
            for (blob, position, offset, len) in index.blobs {
                let entry = index.objects.get(position as usize).filter(|entry| targets.contains(&entry.name));
                let Some(entry) = entry else { continue };
                moved.objects.entry(entry.name.clone()).or_insert_with(|| entry.clone());
                let places = moved.blobs.entry(blob).or_default();
                if places.iter().all(|(object, ..)| *object != entry.name) {
                    places.push((entry.name.clone(), offset, len));
                }
            }
            Ok(())
        })?;
        Ok(moved)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::index::Index;
    use crate::{IdentityFile, WriterKey, signed};

    #[test]
    fn only_the_root_says_what_was_packed_anew() {
        let keys = tempfile::tempdir().unwrap();
        let (identity, writer) = (keys.path().join("identity"), keys.path().join("writer"));
        let store = Arc::new(InMemory::new());
        Repository::init_in(store.clone(), &identity, &writer).unwrap();
        let repository = Repository::open_in(store).unwrap();
        let entry = ObjectEntry { name: "objects/aa/old".to_owned(), size: 7, blake3: "b".to_owned(), plain_size: 7 };
        let moved = vec![(entry.name.clone(), entry.blake3.clone(), vec!["objects/aa/new".to_owned()])];
        let index = Index { moved, ..Index::default() }.encode().unwrap();
        let put = |name: &str, key: &ed25519_dalek::SigningKey| {
            repository.backend.put_new(name, signed::sign("index", &index, key).unwrap()).unwrap();
        };
        put("index/20260101T000000000Z-00000a-0000", &WriterKey::read(&writer).unwrap().signing);
        assert!(!repository.moved().unwrap().contains(&entry));
        let root = IdentityFile::read(&identity).unwrap().roots().remove(0);
        put("index/20260101T000000000Z-00000b-0000", &root);
        let moved = repository.moved().unwrap();
        assert!(
            moved.contains(&entry) && moved.instead_of(&entry, &|_| true).is_none(),
            "the new one is not described"
        );
        assert!(!moved.is_moved(&entry.name, "c"), "other bytes are another object");
    }
}
