//! Objects of which little is needed are packed anew by a prune: old points stay whole, nothing is stored twice, and the space is freed.

use std::sync::atomic::AtomicU64;

use fabkeep_store::{
    BlobId, Clock, Commit, PruneOptions, Pruned, Repository, Sources, StoreError, WriterKey, check_objects, copy,
};
use jiff::{SignedDuration, Timestamp};

use super::{Place, summary};

fn small(number: u8) -> Vec<u8> {
    vec![number; 40_000 + usize::from(number)]
}

fn smalls(numbers: std::ops::Range<u8>) -> Vec<Vec<u8>> {
    numbers.map(small).collect()
}

fn prune_with(place: &Place, hours: i64, max_unused: u8, dry_run: bool) -> Pruned {
    let clock = Clock::standing_at(Timestamp::now() + SignedDuration::from_hours(hours));
    let options = PruneOptions { grace: SignedDuration::from_hours(72), alone: false, max_unused, dry_run };
    place.open().with_clock(&clock).prune(&place.key(), options).unwrap()
}

fn prune(place: &Place, hours: i64) -> Pruned {
    prune_with(place, hours, 10, false)
}

fn forget(place: &Place, commit: &Commit) {
    place.open().forget(&[(commit.id.clone(), String::new())], &place.key()).unwrap().unwrap();
}

/// Everything says that a point is whole: with and without the identity, and after its bytes were read.
fn is_whole(place: &Place, commit: &Commit, content: &[Vec<u8>]) {
    place.restores(commit, content).unwrap();
    assert_eq!(place.check(commit, false).faults, []);
    assert_eq!(place.check(commit, true).faults, []);
    let history = place.open().history().unwrap();
    assert_eq!(history.remarks, []);
    for identity in [None, Some(place.key())] {
        let plan = place.open().plan_forget(&Default::default(), &[], None, identity.as_ref()).unwrap();
        assert!(plan.points.iter().all(|planned| planned.damaged.is_none()), "{plan:?}");
    }
}

/// A pack of twenty blobs of which two are needed, by a point that has added nothing of it.
fn mostly_dead(place: &Place) -> (String, Commit, Vec<Vec<u8>>) {
    let first = place.put(&smalls(0..20));
    let pack = place.names("objects/").remove(0);
    let content = [smalls(4..6), smalls(100..103)].concat();
    let second = place.put(&content);
    forget(place, &first);
    (pack, second, content)
}

#[test]
fn a_pack_of_which_little_is_needed_is_packed_anew_and_freed() {
    let place = Place::new();
    let (pack, second, content) = mostly_dead(&place);
    let before = place.names("");
    let shown = prune_with(&place, 100, 10, true);
    assert_eq!(place.names(""), before, "a dry run changes nothing");
    let recorded = prune(&place, 100);
    assert_eq!((&recorded.repacked, recorded.recorded), (&shown.repacked, shown.recorded));
    assert_eq!((recorded.repacked.objects, recorded.recorded.objects, &recorded.repacked.problem), (1, 4, &None));
    assert!(recorded.repacked.needed_bytes * 5 < recorded.repacked.bytes, "{:?}", recorded.repacked);
    assert_eq!(place.names("objects/").len(), 3);
    is_whole(&place, &second, &content);
    // Once is enough.
    assert_eq!(prune(&place, 101).repacked.objects, 0);
    let freed = prune(&place, 200);
    assert_eq!((freed.freed.objects, freed.repacked.objects), (4, 0));
    assert!(!place.names("objects/").contains(&pack));
    assert_eq!(place.names("objects/").len(), 2);
    is_whole(&place, &second, &content);
    let key = place.key();
    for identity in [None, Some(&key)] {
        assert_eq!(place.open().stats(identity).unwrap().unreferenced.objects, 0);
    }
    // What was moved is not stored again, and goes with the last point that needs it.
    let third = place.put(&content);
    assert_eq!(third.new_objects, 2);
    is_whole(&place, &third, &content);
    let last = place.put(&[small(200)]);
    forget(&place, &second);
    forget(&place, &third);
    for hours in [300, 400, 500, 600, 700] {
        prune(&place, hours);
    }
    assert_eq!((place.names("objects/").len(), place.names("index/").len()), (1, 1));
    is_whole(&place, &last, &[small(200)]);
}

#[test]
fn what_is_mostly_needed_stays_as_it_is_and_so_does_everything_if_that_is_wanted() {
    let place = Place::new();
    let first = place.put(&smalls(0..20));
    let second = place.put(&smalls(1..20));
    forget(&place, &first);
    let pruned = prune(&place, 100);
    assert_eq!((pruned.repacked.objects, pruned.recorded.objects), (0, 3), "a twentieth is not needed");
    assert_eq!(prune_with(&place, 100, 0, true).repacked.objects, 1);
    is_whole(&place, &second, &smalls(1..20));
    let place = Place::new();
    mostly_dead(&place);
    assert_eq!(prune_with(&place, 100, 100, false).repacked.objects, 0);
}

#[test]
fn alone_it_is_freed_at_once() {
    let place = Place::new();
    let (pack, second, content) = mostly_dead(&place);
    let options = PruneOptions { grace: SignedDuration::ZERO, alone: true, max_unused: 10, dry_run: false };
    let pruned = place.open().prune(&place.key(), options).unwrap();
    assert_eq!((pruned.repacked.objects, pruned.freed.objects), (1, 4));
    assert!(!place.names("objects/").contains(&pack));
    is_whole(&place, &second, &content);
}

#[test]
fn a_digest_that_is_made_anew_at_once_loses_nothing_of_what_stays() {
    let place = Place::new();
    let (_, second, content) = mostly_dead(&place);
    place.put(&content);
    forget(&place, &second);
    let options = PruneOptions { grace: SignedDuration::ZERO, alone: true, max_unused: 10, dry_run: false };
    for _ in 0..2 {
        place.open().prune(&place.key(), options).unwrap();
    }
    assert_eq!(place.put(&content).new_objects, 2, "nothing is stored again");
}

/// It builds on what was not needed when the pack was packed anew, and commits in time.
#[test]
fn a_run_that_began_before_keeps_the_old_pack_until_it_is_packed_anew_for_it_too() {
    let place = Place::new();
    let first = place.put(&smalls(0..20));
    let pack = place.names("objects/").remove(0);
    let content = [smalls(4..6), smalls(100..103)].concat();
    let second = place.put(&content);
    let clock = Clock::standing_at(Timestamp::now());
    let repository = place.open().with_clock(&clock);
    let run = repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
    forget(&place, &first);
    assert_eq!(prune(&place, 100).repacked.objects, 1);
    let wanted = smalls(4..8);
    let ids: Vec<BlobId> = wanted.iter().map(|blob| run.put_alone(blob.clone()).unwrap()).collect();
    clock.set(Timestamp::now() + SignedDuration::from_hours(35));
    let third = run.commit(&ids, summary(), Sources::new()).unwrap().0;
    assert_eq!(third.new_objects, 2, "it builds on the old pack");
    assert_eq!(prune(&place, 200).freed.objects, 3, "the first point's manifest, index and commit record");
    assert!(place.names("objects/").contains(&pack));
    is_whole(&place, &second, &content);
    is_whole(&place, &third, &wanted);
    assert_eq!(prune(&place, 201).repacked.objects, 1);
    prune(&place, 300);
    assert!(!place.names("objects/").contains(&pack));
    is_whole(&place, &second, &content);
    is_whole(&place, &third, &wanted);
}

#[test]
fn what_was_packed_anew_twice_is_found_and_copied_without_the_identity() {
    let place = Place::new();
    let first = place.put(&smalls(0..20));
    let second = place.put(&[smalls(4..14), smalls(100..103)].concat());
    let third = place.put(&[smalls(4..5), smalls(110..113)].concat());
    forget(&place, &first);
    assert_eq!(prune(&place, 100).repacked.objects, 1);
    prune(&place, 200);
    forget(&place, &second);
    assert_eq!(prune(&place, 300).repacked.objects, 1);
    prune(&place, 400);
    let content = [smalls(4..5), smalls(110..113)].concat();
    is_whole(&place, &third, &content);
    assert_eq!(place.put(&content).new_objects, 2);

    let to = place.folder.path().join("second").display().to_string();
    let from = place.open();
    let commits = from.history().unwrap().commits;
    let copied = copy(&from, &to, &commits, 2, &AtomicU64::new(0)).unwrap();
    assert_eq!((copied.points.len(), copied.faults.as_slice()), (2, [].as_slice()));
    let other = Repository::open(&to).unwrap();
    let key = place.key();
    for identity in [None, Some(&key)] {
        for commit in &commits {
            let checked = check_objects(&other, commit, identity, true, 1, &AtomicU64::new(0)).unwrap();
            assert_eq!(checked.faults, []);
        }
    }
    let (ids, reader) = other.read_point::<Vec<BlobId>>(&third, &key).unwrap();
    for (id, blob) in ids.iter().zip(&content) {
        assert_eq!(&*reader.blob(id).unwrap(), blob.as_slice());
    }
    assert_eq!(other.history().unwrap().remarks, []);
}

#[test]
fn a_new_pack_that_is_lost_is_missed_and_healed_by_the_next_backup() {
    let place = Place::new();
    let (_, second, content) = mostly_dead(&place);
    let before = place.names("objects/");
    prune(&place, 100);
    prune(&place, 200);
    let new = place.names("objects/").into_iter().find(|name| !before.contains(name)).unwrap();
    std::fs::remove_file(place.path(&new)).unwrap();
    assert!(matches!(place.restores(&second, &content), Err(StoreError::Missing(_))));
    for identity in [true, false] {
        assert!(place.check(&second, identity).faults.iter().any(|fault| fault.instead.is_none()));
    }
    place.put(&content);
    place.restores(&second, &content).unwrap();
    assert!(place.check(&second, true).faults.iter().all(|fault| fault.instead.is_some()));
}
