//! Pruning: in two steps, beside running backups, in a folder and in a store as S3 is; what cannot be deleted or is not known is told.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use fabkeep_store::{
    BlobId, Clock, Commit, PointId, PointWriter, PruneOptions, Pruned, Repository, Sources, StoreError, WriterKey,
};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;

use super::{Place, summary};

const GRACE: SignedDuration = SignedDuration::from_hours(72);

fn options(alone: bool) -> PruneOptions {
    PruneOptions { grace: GRACE, alone, max_unused: 10, dry_run: false }
}

/// A clock that says what time it will be.
fn in_hours(hours: i64) -> Clock {
    Clock::standing_at(Timestamp::now() + SignedDuration::from_hours(hours))
}

fn prune(place: &Place, hours: i64) -> Pruned {
    place.open().with_clock(&in_hours(hours)).prune(&place.key(), options(false)).unwrap()
}

fn forget(place: &Place, commit: &Commit) {
    place.open().forget(&[(commit.id.clone(), String::new())], &place.key()).unwrap().unwrap();
}

fn big(number: u8) -> Vec<u8> {
    vec![number; 2 << 20]
}

fn begin<'a>(place: &Place, repository: &'a Repository) -> PointWriter<'a> {
    repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap()
}

fn commit(writer: PointWriter<'_>, ids: &[BlobId]) -> Result<Commit, StoreError> {
    Ok(writer.commit(&ids, summary(), Sources::new())?.0)
}

#[test]
fn what_is_forgotten_is_freed_by_the_second_prune_and_nothing_that_stays_is_stored_again() {
    let place = Place::new();
    let first = place.put(&[big(1), big(2), vec![7; 900]]);
    let second = place.put(&[big(1), big(3), vec![7; 900]]);
    let before = place.names("objects/");
    forget(&place, &first);
    // Too young.
    assert_eq!(prune(&place, 0).recorded.objects, 0);
    let recorded = prune(&place, 100);
    assert_eq!((recorded.freed.objects, recorded.recorded.objects), (0, 4), "one object and the point's three");
    assert_eq!(place.names("objects/"), before);
    let waiting = prune(&place, 101);
    assert_eq!((waiting.freed.objects, waiting.waiting.objects), (0, 4));
    let freed = prune(&place, 173);
    assert_eq!(freed.freed, recorded.recorded);
    assert_eq!(place.names("objects/").len(), before.len() - 1);
    assert_eq!(place.names("pruning/"), [""; 0]);
    assert_eq!(place.names("points/"), [format!("points/{}", second.id)]);
    assert_eq!(place.names("manifests/").len(), 1);
    place.restores(&second, &[big(1), big(3), vec![7; 900]]).unwrap();
    assert_eq!(place.open().history().unwrap().remarks, []);
    assert_eq!(place.open().strays().unwrap(), []);
    // What only the forgotten point's index knew.
    let third = place.put(&[big(1), big(3), vec![7; 900]]);
    assert_eq!(third.new_objects, 2);
    place.restores(&third, &[big(1), big(3), vec![7; 900]]).unwrap();
    // Also after the digest was made anew.
    forget(&place, &second);
    let all = place.open().with_clock(&in_hours(200)).prune(&place.key(), options(true)).unwrap();
    assert!(all.freed.objects >= 3, "{all:?}");
    assert_eq!(place.put(&[big(1), big(3), vec![7; 900]]).new_objects, 2);
}

#[test]
fn a_run_that_begins_after_a_record_builds_on_nothing_that_it_names() {
    let place = Place::new();
    let first = place.put(&[big(1)]);
    place.put(&[big(2)]);
    forget(&place, &first);
    prune(&place, 100);
    let third = place.put(&[big(1)]);
    assert_eq!(third.new_objects, 3, "it is stored again");
    assert!(prune(&place, 200).freed.objects > 0);
    place.restores(&third, &[big(1)]).unwrap();
}

#[test]
fn a_run_that_began_before_a_record_commits_in_half_of_the_grace_time_or_not_at_all() {
    let place = Place::new();
    let first = place.put(&[big(1)]);
    place.put(&[big(2)]);
    let clock = in_hours(99);
    let repository = place.open().with_clock(&clock);
    let (early, late) = (begin(&place, &repository), begin(&place, &repository));
    forget(&place, &first);
    prune(&place, 100);
    let ids = |writer: &PointWriter<'_>| [writer.put_alone(big(1)).unwrap()];
    let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    clock.set(hours(35));
    let wanted = ids(&early);
    let early = commit(early, &wanted).unwrap();
    clock.set(hours(137));
    let wanted = ids(&late);
    let error = commit(late, &wanted).unwrap_err();
    assert!(matches!(error, StoreError::FreedMeanwhile { objects: 1, committed: false, .. }), "{error}");
    // The one that committed needs the object: it stays.
    let freed = prune(&place, 200);
    place.restores(&early, &[big(1)]).unwrap();
    assert_eq!(freed.freed.objects, 3, "the forgotten point's manifest, index and commit record");
    assert_eq!(place.open().history().unwrap().commits.len(), 2);
}

#[test]
fn a_run_that_takes_longer_than_a_whole_prune_does_not_commit_what_is_gone() {
    let place = Place::new();
    let first = place.put(&[big(1)]);
    place.put(&[big(2)]);
    let repository = place.open();
    let writer = begin(&place, &repository);
    let wanted = [writer.put_alone(big(1)).unwrap()];
    forget(&place, &first);
    prune(&place, 100);
    assert!(prune(&place, 200).freed.objects > 0);
    assert_eq!(place.names("pruning/"), [""; 0], "nothing tells it but the absence");
    let error = commit(writer, &wanted).unwrap_err();
    assert!(matches!(error, StoreError::FreedMeanwhile { .. }), "{error}");
    assert_eq!(place.open().history().unwrap().commits.len(), 1);
}

#[test]
fn what_a_freed_index_knew_of_objects_that_a_later_point_needs_is_still_known() {
    let place = Place::new();
    let first = place.put(&[big(1)]);
    let second = place.put(&[big(1), big(2)]);
    place.put(&[big(3)]);
    forget(&place, &first);
    prune(&place, 100);
    let clock = in_hours(199);
    let repository = place.open().with_clock(&clock);
    let run = begin(&place, &repository);
    forget(&place, &second);
    // The first point's index is freed, while its object is needed by no point and is not recorded.
    let pruned = prune(&place, 200);
    assert_eq!((pruned.freed.objects, pruned.recorded.objects), (3, 5));
    // The store's clock is the machine's.
    clock.set(Timestamp::now() + SignedDuration::from_hours(35));
    let wanted = [run.put_alone(big(1)).unwrap()];
    let third = commit(run, &wanted).unwrap();
    assert_eq!(prune(&place, 300).freed.objects, 4);
    place.restores(&third, &[big(1)]).unwrap();
    assert_eq!(place.put(&[big(1)]).new_objects, 2, "what is stored was stored again");
}

#[test]
fn a_point_of_which_nothing_says_what_it_needs_stops_the_prune_and_its_manifest_takes_the_place_of_its_index() {
    let place = Place::new();
    let first = place.put(&[big(1)]);
    let second = place.put(&[big(1), big(2)]);
    let third = place.put(&[big(3)]);
    forget(&place, &first);
    std::fs::remove_file(place.path(&second.index.name)).unwrap();
    prune(&place, 100);
    let freed = prune(&place, 200);
    assert_eq!(freed.blocking, []);
    place.restores(&second, &[big(1), big(2)]).unwrap();
    let before = place.names("");
    std::fs::write(place.path(&second.manifest.name), b"x").unwrap();
    forget(&place, &third);
    let blocked = prune(&place, 300);
    assert_eq!(blocked.blocking[0].point, second.id);
    assert_eq!((blocked.freed.objects, blocked.recorded.objects), (0, 0));
    assert!(place.names("").len() > before.len(), "only the record of the forgotten point is new");
    // Once it is given up, the prune goes on.
    place.put(&[big(4)]);
    let named = [(second.id.clone(), "damaged".to_owned())];
    place.open().forget(&named, &place.key()).unwrap().unwrap();
    assert!(prune(&place, 400).blocking.is_empty());
}

#[test]
fn what_a_damaged_point_was_healed_with_stays_as_long_as_the_damaged_point() {
    let place = Place::new();
    let first = place.put(&[big(1), big(2)]);
    let object = place.names("objects/").remove(0);
    std::fs::remove_file(place.path(&object)).unwrap();
    let second = place.put(&[big(1), big(2)]);
    place.restores(&first, &[big(1), big(2)]).unwrap();
    let third = place.put(&[big(5)]);
    forget(&place, &second);
    prune(&place, 100);
    prune(&place, 200);
    place.restores(&first, &[big(1), big(2)]).unwrap();
    place.restores(&third, &[big(5)]).unwrap();
}

#[test]
fn what_the_store_refuses_to_delete_is_named_and_the_rest_goes_on() {
    let place = Place::new();
    let first = place.put(&[big(1), big(2), big(3)]);
    place.put(&[big(4)]);
    forget(&place, &first);
    let locked = place.names("objects/").remove(0);
    let folder = place.path(&locked).parent().unwrap().to_owned();
    let mode = |mode| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    // Rights say nothing to root.
    if std::fs::write(folder.join("probe"), b"").is_ok() {
        std::fs::remove_file(folder.join("probe")).unwrap();
        mode(0o700);
        return;
    }
    let pruned = place.open().prune(&place.key(), options(true)).unwrap();
    assert_eq!(pruned.refused.iter().map(|refused| refused.object.as_str()).collect::<Vec<_>>(), [locked.as_str()]);
    mode(0o700);
    assert!(pruned.freed.objects >= 5);
    assert_eq!(place.open().prune(&place.key(), options(true)).unwrap().freed.objects, 1);
}

#[test]
fn checkpoints_of_a_committed_point_go_at_once_and_those_of_a_stopped_run_after_the_grace_time() {
    let place = Place::new();
    let many: Vec<Vec<u8>> = (0..70).map(|number| vec![number; 1 << 20]).collect();
    let committed = place.put(&many);
    let repository = place.open();
    let stopped = begin(&place, &repository);
    for number in 100..140 {
        stopped.put_alone(vec![number; 1 << 20]).unwrap();
    }
    let stopped_id: PointId = stopped.id().clone();
    drop(stopped);
    let of = |point: &PointId| place.names("index/").iter().filter(|name| name.contains(point.as_str())).count();
    assert_eq!((of(&committed.id), of(&stopped_id)), (3, 1));
    let pruned = prune(&place, 0);
    assert_eq!((pruned.freed.objects, pruned.recorded.objects), (2, 0));
    assert_eq!((of(&committed.id), of(&stopped_id)), (1, 1));
    assert_eq!(prune(&place, 100).recorded.objects, 41);
    assert_eq!(prune(&place, 200).freed.objects, 41);
    place.restores(&committed, &many).unwrap();
}

#[test]
fn a_grace_time_of_less_than_an_hour_and_a_stranger_are_refused() {
    let place = Place::new();
    let short = PruneOptions { grace: SignedDuration::from_mins(59), ..options(false) };
    assert!(matches!(place.open().prune(&place.key(), short), Err(StoreError::Grace(3540))));
    let stranger = Place::new();
    assert!(matches!(place.open().prune(&stranger.key(), options(false)), Err(StoreError::WrongIdentity)));
}

#[test]
fn a_store_in_memory_is_pruned_as_a_folder_is() {
    let keys = tempfile::tempdir().unwrap();
    let (identity, writer) = (keys.path().join("identity"), keys.path().join("writer"));
    let store = Arc::new(InMemory::new());
    Repository::init_in(store.clone(), &identity, &writer).unwrap();
    let repository = Repository::open_in(store).unwrap();
    let identity = fabkeep_store::IdentityFile::read(&identity).unwrap();
    let put = |number| {
        let run = repository.writer(WriterKey::read(&writer).unwrap()).unwrap();
        let ids = [run.put_alone(big(number)).unwrap(), run.put_alone(big(9)).unwrap()];
        commit(run, &ids).unwrap()
    };
    let (first, second) = (put(1), put(2));
    repository.forget(&[(first.id, String::new())], &identity).unwrap().unwrap();
    let stats = repository.stats(None).unwrap();
    assert_eq!((stats.unreferenced.objects, stats.points.len()), (4, 1));
    let pruned = repository.prune(&identity, options(true)).unwrap();
    assert_eq!(pruned.freed, stats.unreferenced);
    assert_eq!(repository.stats(None).unwrap().unreferenced.objects, 0);
    let (ids, reader) = repository.read_point::<Vec<BlobId>>(&second, &identity).unwrap();
    assert_eq!(*reader.blob(&ids[1]).unwrap(), *big(9));
    assert_eq!(put(2).new_objects, 2);
}
