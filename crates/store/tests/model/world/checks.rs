//! What must be true of the places at any time, and in the end.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use fabkeep_store::{BlobId, Commit, PointId, PruneOptions, RemarkKind, Repository, Sources, check_objects};

use super::{GRACE_HOURS, PACK_BYTES, World, bytes, hours, summary};

impl World {
    /// What is listed is what was committed and not forgotten, and nothing else is remarkable about it.
    pub(super) fn check_lists(&self) {
        for (at, side) in self.sides.iter().enumerate() {
            if at == 1 && !self.copied {
                continue;
            }
            let history = side.repository.history().unwrap();
            let listed: BTreeSet<&PointId> = history.commits.iter().map(|commit| &commit.id).collect();
            assert_eq!(listed, side.points.keys().collect(), "listed in {at}");
            let usual = [RemarkKind::Uncommitted, RemarkKind::Clock];
            let odd = history.remarks.iter().find(|remark| !usual.contains(&remark.kind));
            assert!(side.damaged || side.gaps || odd.is_none(), "in {at}: {odd:?}");
            if at == 0 && !side.damaged {
                for key in &self.keys {
                    assert_eq!(side.repository.remembered(key, &history), None);
                }
                let numbers: BTreeSet<Option<u64>> = history.commits.iter().map(|commit| commit.sequence).collect();
                assert!(!numbers.contains(&None));
            }
        }
    }

    /// A verification finds nothing that is wrong, with the identity and without it.
    fn check_whole(&self, side: usize, commit: &Commit) {
        for identity in [None, Some(&*self.identity)] {
            let checked =
                check_objects(&self.sides[side].repository, commit, identity, true, 1, &AtomicU64::new(0)).unwrap();
            let healed = |object: &String| self.sides[side].healed.contains_key(object);
            let fault = checked.faults.iter().find(|fault| !healed(&fault.object));
            assert_eq!(fault, None, "{} in {side}, with identity: {}", commit.id, identity.is_some());
        }
    }

    /// In the end everything is there, and nothing else.
    pub(super) fn end(&mut self) {
        for side in 0..=usize::from(self.copied) {
            for _ in 0..4 {
                self.go_on_by(hours(GRACE_HOURS * 2));
                let options = PruneOptions { grace: hours(GRACE_HOURS), alone: false, max_unused: 0, dry_run: false };
                let whole = self.whole(side);
                let pruned = self.sides[side].repository.prune(&self.identity, options).unwrap();
                self.note(format!("prune at the end: {pruned:?}"));
                self.still(side, &whole);
                self.count("objects freed", pruned.freed.objects);
            }
            self.check_lists();
            if self.sides[side].damaged || self.sides[side].gaps {
                continue;
            }
            let mut needed: BTreeSet<String> = BTreeSet::new();
            let points: Vec<PointId> = self.sides[side].points.keys().cloned().collect();
            for point in &points {
                if let Err(error) = self.restore(side, point) {
                    panic!("{point} is lost in {side}: {error}");
                }
                self.count("restored", 1);
                let commit = self.commit(side, point);
                let (_, reader) =
                    self.sides[side].repository.read_point::<Vec<BlobId>>(&commit, &self.identity).unwrap();
                needed.extend(reader.objects().iter().map(|entry| entry.name.clone()));
                needed.extend([commit.manifest.name.clone(), format!("points/{point}")]);
                self.check_whole(side, &commit);
            }
            // What was packed anew lies in other objects, and may be gone.
            let moved = self.sides[side].repository.packed_anew().unwrap();
            let targets: BTreeSet<&String> = needed.iter().filter_map(|name| moved.get(name)).flatten().collect();
            let there: BTreeSet<String> = self.sides[side].place.names().into_iter().collect();
            let of_points = |name: &&String| {
                ["objects/", "manifests/", "points/", "pruning/"].iter().any(|folder| name.starts_with(folder))
            };
            let kept: BTreeSet<String> = there.iter().filter(of_points).cloned().collect();
            // What the source had lost, a copy has in other objects.
            let healed = &self.sides[side].healed;
            let gone = needed.difference(&kept).find(|name| !healed.contains_key(*name) && !moved.contains_key(*name));
            assert_eq!(gone, None, "in {side}: {kept:?}");
            let other = |name: &String| targets.contains(name) || healed.values().any(|instead| instead.contains(name));
            let more = kept.difference(&needed).find(|name| !other(name));
            // What is damaged in one place is known as bad in both, and what holds the same stays.
            assert!(self.sides[0].damaged || more.is_none(), "{more:?} in {side}: {needed:?}");
            let stats = self.sides[side].repository.stats(Some(&self.identity)).unwrap();
            assert_eq!(stats.unreferenced.objects, 0, "in {side}: {stats:?}");
            self.count("all freed", 1);
        }
        let newest = self.sides[0].repository.history().unwrap().latest().cloned();
        if let Some(newest) = newest.filter(|_| !self.sides[0].damaged) {
            // What forgotten points knew of objects that stay is still known.
            let machine = Repository::open_in(self.ways[0].clone()).unwrap().with_clock(&self.clocks[0]);
            let machine = machine.repeatable(&self.chance, PACK_BYTES);
            let writer = machine.writer(self.keys[0].clone()).unwrap();
            let wanted = &self.contents[&newest.id];
            let ids: Vec<BlobId> = wanted.iter().map(|blob| writer.put_alone(bytes(*blob)).unwrap()).collect();
            let (commit, _) = writer.commit(&ids, summary(0), Sources::new()).unwrap();
            assert_eq!(commit.new_objects, 2, "what is stored was stored again");
        }
    }
}
