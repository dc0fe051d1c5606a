//! The chain of commits: one that is removed or replaced is missed, and no clock decides which is the latest.

use fabkeep_store::{Commit, RemarkKind, Repository, WriterKey};

use super::Place;

fn blobs() -> Vec<Vec<u8>> {
    vec![vec![5; 1000]]
}

fn kinds(place: &Place) -> Vec<(RemarkKind, String)> {
    let history = place.open().history().unwrap();
    history.remarks.into_iter().map(|remark| (remark.kind, remark.object)).collect()
}

fn commit_name(commit: &Commit) -> String {
    format!("points/{}", commit.id)
}

#[test]
fn a_removed_commit_is_missed_by_those_behind_it_by_its_manifest_and_by_its_writer() {
    let place = Place::new();
    let commits: Vec<Commit> = (0..3).map(|_| place.put(&blobs())).collect();
    assert_eq!(commits.iter().map(|commit| commit.sequence).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    assert_eq!(kinds(&place), []);
    // In the middle: the one behind it names it.
    let middle = place.path(&commit_name(&commits[1]));
    let saved = std::fs::read(&middle).unwrap();
    std::fs::remove_file(&middle).unwrap();
    assert!(kinds(&place).contains(&(RemarkKind::Missing, commit_name(&commits[1]))));
    std::fs::write(&middle, saved).unwrap();
    // The newest: its manifest and index stand there without it.
    std::fs::remove_file(place.path(&commit_name(&commits[2]))).unwrap();
    let manifest = format!("manifests/{}", commits[2].id);
    assert!(kinds(&place).contains(&(RemarkKind::Uncommitted, commit_name(&commits[2]))));
    // All of it: its writer remembers, and so does who has written its name down.
    std::fs::remove_file(place.path(&manifest)).unwrap();
    std::fs::remove_file(place.path(&format!("index/{}", commits[2].id))).unwrap();
    assert_eq!(kinds(&place), []);
    let repository = place.open();
    let history = repository.history().unwrap();
    let key = WriterKey::read(&place.writer()).unwrap();
    let remembered = repository.remembered(&key, &history).unwrap();
    assert_eq!((remembered.kind, remembered.object), (RemarkKind::Missing, commit_name(&commits[2])));
    let expected = |commit: &Commit| repository.expected(commit.id.as_str(), &history).unwrap();
    assert!(expected(&commits[2]).is_some() && expected(&commits[1]).is_none());
    assert!(repository.expected("2026", &history).is_err());
    // The next backup says so, and everybody misses it from then on.
    let writer = repository.writer(key).unwrap();
    assert!(writer.remarks().iter().any(|remark| remark.object == commit_name(&commits[2])));
    drop(writer);
    let next = place.put(&blobs());
    assert_eq!(next.sequence, Some(4));
    assert_eq!(kinds(&place), [(RemarkKind::Missing, commit_name(&commits[2]))]);
    assert_eq!(place.open().point("latest").unwrap().id, next.id);
}

#[test]
fn a_backup_that_was_stopped_before_its_commit_is_known_as_that_after_the_next_one() {
    let place = Place::new();
    let first = place.put(&blobs());
    let memory = place.writer().with_extension("last");
    let before = std::fs::read_to_string(&memory).unwrap();
    let stopped = place.put(&blobs());
    std::fs::remove_file(place.path(&commit_name(&stopped))).unwrap();
    // What the file contains while the manifest is written.
    let open = before.strip_suffix('}').unwrap();
    std::fs::write(&memory, format!("{open},\"begun\":[\"{}\"]}}", stopped.id)).unwrap();
    assert_eq!(kinds(&place), [(RemarkKind::Uncommitted, commit_name(&stopped))]);
    // While another backup with this key runs, it may be that one's.
    let repository = place.open();
    let other = repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
    assert_eq!(place.put(&blobs()).stopped, []);
    assert_eq!(kinds(&place), [(RemarkKind::Uncommitted, commit_name(&stopped))]);
    drop(other);
    let next = place.put(&blobs());
    assert_eq!(next.stopped, std::slice::from_ref(&stopped.id));
    assert_eq!(kinds(&place), []);
    assert_eq!(place.put(&blobs()).stopped, []);
    // One that was committed is missed as ever.
    std::fs::remove_file(place.path(&commit_name(&first))).unwrap();
    assert!(kinds(&place).contains(&(RemarkKind::Missing, commit_name(&first))));
}

#[test]
fn two_writers_at_once_make_two_ends_that_the_next_commit_joins() {
    let place = Place::new();
    place.put(&blobs());
    let repository = place.open();
    let begin = || repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
    let (one, two) = (begin(), begin());
    let commit = |writer: fabkeep_store::PointWriter<'_>| {
        writer.commit(&(), super::summary(), fabkeep_store::Sources::new()).unwrap().0
    };
    let (one, two) = (commit(one), commit(two));
    let next = place.put(&blobs());
    assert!(next.previous.iter().any(|previous| previous.point == two.id));
    assert_eq!(kinds(&place), []);
    let order: Vec<_> = place.open().history().unwrap().commits.into_iter().map(|commit| commit.id).collect();
    let at = |commit: &Commit| order.iter().position(|id| *id == commit.id).unwrap();
    assert!(at(&one) < at(&next) && at(&two) < at(&next));
}

/// Gives a point another name, as a wrong clock would have: signed anew, by the key in the file.
fn at_another_time(place: &Place, time: &str) -> Commit {
    // The name is made of the clock: a point of the same content is written under it by hand.
    let repository = place.open();
    let writer = repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
    let writer = writer.begun_at(time.parse().unwrap());
    writer.commit(&(), super::summary(), fabkeep_store::Sources::new()).unwrap().0
}

#[test]
fn a_clock_that_was_wrong_does_not_hide_the_latest_point_and_is_named_with_both_times() {
    let place = Place::new();
    let ahead = at_another_time(&place, "2028-11-24T10:11:12Z");
    let now = place.put(&blobs());
    assert!(ahead.id > now.id);
    let repository = place.open();
    assert_eq!(repository.point("latest").unwrap().id, now.id);
    let order: Vec<_> = repository.history().unwrap().commits.into_iter().map(|commit| commit.id).collect();
    assert_eq!(order, [ahead.id.clone(), now.id.clone()]);
    let writer = repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
    let odd = |remarks: &[fabkeep_store::Remark], text: &str| {
        remarks.iter().any(|remark| remark.kind == RemarkKind::Clock && remark.problem.contains(text))
    };
    assert!(odd(writer.remarks(), "2028-11-24 10:11:12 UTC") && odd(writer.remarks(), &now.id.time()[..4]));
    let history = repository.history().unwrap();
    assert!(odd(&history.remarks, "2028-11-24 10:11:12 UTC") && odd(&history.remarks, &now.id.time()));
    drop(writer);
    // And one that is set back.
    let back = at_another_time(&place, "2020-01-01T00:00:00Z");
    assert_eq!(place.open().point("latest").unwrap().id, back.id);
}

#[test]
fn a_point_is_found_by_an_unambiguous_beginning_of_its_name() {
    let place = Place::new();
    let first = place.put(&blobs());
    let repository: Repository = place.open();
    assert_eq!(repository.point(&first.id.as_str()[..15]).unwrap().id, first.id);
    assert!(repository.point("").is_err() && repository.point("2").is_ok() && repository.point("zzz").is_err());
}
