//! Packs anew what a prune cannot free because points need a small part of it. What they need is put into new objects, a digest says so, and
//! the old objects are freed as everything else is: recorded first, and freed when the grace time is over, if still no point needs them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::index::{Index, ObjectEntry};
use crate::pack::Pack;
use crate::prune::{DIGEST_BLOBS, Prune};
use crate::reader::check_sealed;
use crate::{BlobId, NameKey, StoreError, seal};

/// What a prune packed anew, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repacked {
    /// Objects whose content was put into others.
    pub objects: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// The part of these that points need, as far as it is known before it is sealed again.
    pub needed_bytes: u64,
    /// Why not everything was packed anew that should be.
    pub problem: Option<String>,
}

/// An object and what points need of it.
struct Live {
    entry: ObjectEntry,
    /// By offset and length.
    blobs: BTreeMap<(u64, u64), BlobId>,
}

impl Live {
    fn unused(&self) -> u64 {
        let used: u64 = self.blobs.keys().map(|(_, len)| len).sum();
        self.entry.plain_size.saturating_sub(used)
    }

    /// Sealed bytes that points need, if all of it is compressed in the same way.
    fn needed_bytes(&self) -> u64 {
        let used = u128::from(self.entry.plain_size - self.unused());
        u64::try_from(u128::from(self.entry.size) * used / u128::from(self.entry.plain_size.max(1))).unwrap_or(u64::MAX)
    }
}

/// What goes into one digest.
#[derive(Default)]
struct Batch {
    pack: Pack,
    digest: Index,
    /// What has been put, or is in the pack.
    seen: HashSet<BlobId>,
    /// Objects whose content is in it.
    from: Vec<Live>,
}

impl Prune<'_> {
    /// Packs anew what is mostly not needed, until at most the allowed part of everything is unused. Records the old objects.
    pub(crate) fn repack(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let chosen = self.choose(now)?;
        if chosen.is_empty() {
            return Ok(());
        }
        let moved = if self.options.dry_run {
            chosen
        } else {
            let mut moved = Vec::new();
            match self.move_all(chosen, &mut moved) {
                // What there is no room for stays as it is.
                Err(error @ StoreError::Backend { action: "writing", .. }) => {
                    self.done.repacked.problem = Some(error.to_string());
                }
                other => other?,
            }
            moved
        };
        for live in &moved {
            self.done.repacked.objects += 1;
            self.done.repacked.bytes += live.entry.size;
            self.done.repacked.needed_bytes += live.needed_bytes();
            self.repacked.insert(live.entry.name.clone());
        }
        let names: Vec<String> = moved.into_iter().map(|live| live.entry.name).collect();
        if self.options.alone { self.free(&names).map(drop) } else { self.record(&names, now) }
    }

    /// Returns the objects to be packed anew, those first of which the least is needed.
    fn choose(&self, now: Timestamp) -> Result<Vec<Live>, StoreError> {
        if self.options.max_unused >= 100 {
            return Ok(Vec::new());
        }
        let mut live = self.live(now)?;
        let unused = |live: &Live| (live.unused() as f64) / (live.entry.plain_size.max(1) as f64);
        live.retain(|live| live.unused() > 0);
        live.sort_by(|a, b| unused(b).total_cmp(&unused(a)).then_with(|| a.entry.name.cmp(&b.entry.name)));
        let all: u128 = self.reach.needed().map(|object| u128::from(object.plain_size)).sum();
        let mut rest: u128 = live.iter().map(|live| u128::from(live.unused())).sum();
        let allowed = all * u128::from(self.options.max_unused) / 100;
        let chosen = live.iter().take_while(|live| {
            let more = rest > allowed;
            rest -= u128::from(live.unused());
            more
        });
        let count = chosen.count();
        live.truncate(count);
        Ok(live)
    }

    /// Returns what points need of objects that no index of a point describes: what such an index describes, its point needs.
    fn live(&self, now: Timestamp) -> Result<Vec<Live>, StoreError> {
        let mut candidates: HashMap<&str, Option<Live>> = HashMap::new();
        let mut points: BTreeSet<u32> = BTreeSet::new();
        for (name, stat) in &self.present {
            let Some(object) = self.reach.get(name) else { continue };
            let untouched = !self.recorded.contains(name) && self.is_old(stat, now);
            if untouched && object.is_needed() && !object.described && !object.heals && object.size == stat.size {
                candidates.insert(name, None);
                points.extend(object.points());
            }
        }
        let good = |entry: &ObjectEntry| self.is_usable(entry) && !self.recorded.contains(&entry.name);
        let moved = &self.reach.moved;
        let mut chains: HashMap<String, BTreeSet<String>> = HashMap::new();
        for at in points {
            let Some(root) = self.roots.get(at as usize) else { continue };
            let Some((objects, blobs)) = self.repository.manifest_of(root, Some(self.identity))? else {
                // What it needs of an object is not known.
                candidates.retain(|name, _| {
                    self.reach.get(name).is_some_and(|object| object.points().all(|point| point != at))
                });
                continue;
            };
            for (blob, object, offset, len) in blobs {
                let Some(entry) = objects.get(object as usize) else { continue };
                let mut place = (entry, offset, len);
                if moved.contains(entry) {
                    let chain = chains.entry(entry.name.clone()).or_insert_with(|| moved.chain(&entry.name));
                    place = moved.holder(chain, &blob, &good).unwrap_or(place);
                }
                let (entry, offset, len) = place;
                if let Some(live) = candidates.get_mut(entry.name.as_str()) {
                    let live = live.get_or_insert_with(|| Live { entry: entry.clone(), blobs: BTreeMap::new() });
                    live.blobs.insert((offset, len), blob);
                }
            }
        }
        Ok(candidates.into_values().flatten().filter(|live| self.is_usable(&live.entry)).collect())
    }

    /// Puts what is needed of objects into new ones. `moved` gets those of which all is done.
    fn move_all(&mut self, chosen: Vec<Live>, moved: &mut Vec<Live>) -> Result<(), StoreError> {
        let names = self.repository.name_key(self.identity)?;
        let mut batch = Batch::default();
        for live in chosen {
            let plain = match self.open(&live, &names) {
                Ok(plain) => plain,
                // Damage is what `verify` looks for.
                Err(error) if error.is_of_the_object() => continue,
                Err(error) => return Err(error),
            };
            for (&(offset, len), blob) in &live.blobs {
                let bytes = plain.get(offset as usize..offset.saturating_add(len) as usize);
                if let Some(bytes) = bytes.filter(|_| batch.seen.insert(*blob)) {
                    batch.pack.push(*blob, bytes);
                }
                if batch.pack.is_full(self.repository.pack_bytes) {
                    self.put_pack(&mut batch, &names)?;
                }
            }
            batch.from.push(live);
            if batch.seen.len() >= DIGEST_BLOBS {
                self.put_batch(std::mem::take(&mut batch), &names, moved)?;
            }
        }
        self.put_batch(batch, &names, moved)
    }

    /// Returns what is inside an object, if all that is needed of it is there.
    fn open(&self, live: &Live, names: &NameKey) -> Result<Vec<u8>, StoreError> {
        let entry = &live.entry;
        let sealed = self.repository.backend.need(&entry.name)?;
        check_sealed(entry, &sealed)?;
        let plain = seal::open(&entry.name, &sealed, &self.identity.identities, Some(entry.plain_size))?;
        for (&(offset, len), blob) in &live.blobs {
            let bytes = plain.get(offset as usize..offset.saturating_add(len) as usize);
            if bytes.is_none_or(|bytes| names.name(bytes) != *blob) {
                return Err(StoreError::damaged(&entry.name, format!("blob {blob} inside it has a different hash")));
            }
        }
        Ok(plain)
    }

    fn put_pack(&self, batch: &mut Batch, names: &NameKey) -> Result<(), StoreError> {
        let pack = std::mem::take(&mut batch.pack);
        if pack.blobs.is_empty() {
            return Ok(());
        }
        let recipients = self.repository.recipients()?;
        let taken = |name: &str| self.present.contains_key(name) || self.reach.get(name).is_some();
        let entry = self.repository.put_sealed(names, &recipients, &taken, &pack.bytes)?;
        let position = batch.digest.objects.len() as u32;
        batch.digest.objects.push(entry);
        batch.digest.blobs.extend(pack.blobs.into_iter().map(|(blob, offset, len)| (blob, position, offset, len)));
        Ok(())
    }

    /// Puts the digest that says where everything is: from then on the old objects are not needed.
    fn put_batch(&mut self, mut batch: Batch, names: &NameKey, moved: &mut Vec<Live>) -> Result<(), StoreError> {
        if batch.from.is_empty() {
            return Ok(());
        }
        self.put_pack(&mut batch, names)?;
        let digest = &mut batch.digest;
        let places: HashMap<BlobId, u32> = digest.blobs.iter().map(|(blob, object, ..)| (*blob, *object)).collect();
        for live in &batch.from {
            let mut targets: BTreeSet<String> = live
                .blobs
                .values()
                .filter_map(|blob| Some(digest.objects.get(*places.get(blob)? as usize)?.name.clone()))
                .collect();
            // What was moved out of it before.
            let before = self.reach.moved.chain(&live.entry.name);
            targets.extend(before.into_iter().filter(|name| self.present.contains_key(name)));
            targets.remove(&live.entry.name);
            digest.moved.push((live.entry.name.clone(), live.entry.blake3.clone(), targets.into_iter().collect()));
        }
        self.put_digest(&batch.digest)?;
        moved.extend(batch.from);
        Ok(())
    }
}
