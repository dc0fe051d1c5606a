//! The locations of every blob, by all indexes: if its object is damaged, another object may contain it too.

use std::collections::HashMap;

use crate::faults::BadObjects;
use crate::index::ObjectEntry;
use crate::remark::{Remark, RemarkKind};
use crate::{BlobId, Repository, StoreError, faults};

/// Objects of all readable indexes, and the blobs in them.
#[derive(Default)]
pub(crate) struct Places {
    pub objects: Vec<ObjectEntry>,
    pub blobs: HashMap<BlobId, Vec<(u32, u64, u64)>>,
    /// Blobs in each object.
    pub inside: Vec<Vec<BlobId>>,
}

impl Places {
    /// Objects that hold everything that an object held, beside it; `None` when something of it is nowhere.
    /// `good` says which objects can be used.
    pub fn instead_of(&self, lost: &ObjectEntry, good: &dyn Fn(&ObjectEntry) -> bool) -> Option<Vec<&ObjectEntry>> {
        let mut blobs = Vec::new();
        for (entry, inside) in self.objects.iter().zip(&self.inside) {
            if entry.name == lost.name && entry.blake3 == lost.blake3 {
                blobs.extend(inside);
            }
        }
        if blobs.is_empty() {
            return None;
        }
        self.hold(blobs.into_iter(), lost, good)
    }

    /// Objects that hold these blobs, beside one that is lost.
    pub fn hold<'b>(
        &self,
        blobs: impl Iterator<Item = &'b BlobId>,
        lost: &ObjectEntry,
        good: &dyn Fn(&ObjectEntry) -> bool,
    ) -> Option<Vec<&ObjectEntry>> {
        let mut found: Vec<&ObjectEntry> = Vec::new();
        for blob in blobs {
            let entry = self
                .blobs
                .get(blob)?
                .iter()
                .filter_map(|(object, ..)| self.objects.get(*object as usize))
                .find(|entry| (entry.name != lost.name || entry.blake3 != lost.blake3) && good(entry))?;
            if !found.iter().any(|known| known.name == entry.name) {
                found.push(entry);
            }
        }
        Some(found)
    }
}

impl Repository {
    /// Returns every index that can be trusted, read once; what cannot is remarked.
    pub(crate) fn places(&self) -> Result<(Places, Vec<Remark>), StoreError> {
        let (mut places, mut remarks) = (Places::default(), Vec::new());
        let mut known: HashMap<(String, String), u32> = HashMap::new();
        let names: Vec<String> = self.backend.list("index")?.into_keys().collect();
        self.read_indexes(&names, |at, index| {
            let index = match index {
                Some(Ok(index)) => index,
                None => return Ok(()),
                Some(Err(error)) if error.is_of_the_object() => {
                    remarks.push(Remark::new(RemarkKind::Damaged, &names[at], error.problem()));
                    return Ok(());
                }
                Some(Err(error)) => return Err(error),
            };
            let positions: Vec<u32> = index
                .objects
                .into_iter()
                .map(|entry| {
                    *known.entry((entry.name.clone(), entry.blake3.clone())).or_insert_with(|| {
                        places.objects.push(entry);
                        places.inside.push(Vec::new());
                        (places.objects.len() - 1) as u32
                    })
                })
                .collect();
            for (id, position, offset, len) in index.blobs {
                let Some(&object) = positions.get(position as usize) else { continue };
                let at = places.blobs.entry(id).or_default();
                if !at.iter().any(|(other, ..)| *other == object) {
                    at.push((object, offset, len));
                    places.inside[object as usize].push(id);
                }
            }
            Ok(())
        })?;
        Ok((places, remarks))
    }

    /// Says which objects can be used: they are there with their size, and not known as bad.
    pub(crate) fn usable(
        present: &std::collections::BTreeMap<String, u64>,
        bad: &BadObjects,
        entry: &ObjectEntry,
    ) -> bool {
        present.get(&entry.name) == Some(&entry.size) && !faults::is_bad(bad, &entry.name, &entry.blake3)
    }
}
