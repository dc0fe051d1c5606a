//! Forgetting: only the holder of the identity can, the chain stays whole, copies keep their own.

use std::sync::atomic::AtomicU64;

use fabkeep_store::{Commit, KeepRules, PointId, Reason, Repository, StoreError, WriterKey, copy};

use super::Place;

fn forget(place: &Place, commits: &[&Commit]) -> Option<String> {
    let points: Vec<(PointId, String)> = commits.iter().map(|commit| (commit.id.clone(), "x".to_owned())).collect();
    place.open().forget(&points, &place.key()).unwrap()
}

fn listed(repository: &Repository) -> Vec<PointId> {
    let history = repository.history().unwrap();
    assert_eq!(history.remarks, []);
    history.commits.into_iter().map(|commit| commit.id).collect()
}

fn blob(number: u8) -> Vec<u8> {
    vec![number; 2000]
}

#[test]
fn a_forgotten_point_is_not_listed_and_nothing_misses_it_even_if_it_was_the_newest() {
    let place = Place::new();
    let commits: Vec<Commit> = (0..4).map(|number| place.put(&[blob(number)])).collect();
    let record = forget(&place, &[&commits[1], &commits[3]]).unwrap();
    assert!(record.starts_with("forgotten/"));
    assert_eq!(forget(&place, &[&commits[1]]), None, "it is recorded once");
    let repository = place.open();
    assert_eq!(listed(&repository), [commits[0].id.clone(), commits[2].id.clone()]);
    assert_eq!(repository.point("latest").unwrap().id, commits[2].id);
    assert!(matches!(repository.point(commits[3].id.as_str()), Err(StoreError::NoSuchPoint(_))));
    // Also when nothing of it is left.
    for commit in [&commits[1], &commits[3]] {
        for name in
            [format!("points/{}", commit.id), format!("manifests/{}", commit.id), format!("index/{}", commit.id)]
        {
            std::fs::remove_file(place.path(&name)).unwrap();
        }
    }
    let repository = place.open();
    assert_eq!(listed(&repository), [commits[0].id.clone(), commits[2].id.clone()]);
    assert_eq!(repository.strays().unwrap(), []);
    let history = repository.history().unwrap();
    let key = WriterKey::read(&place.writer()).unwrap();
    assert_eq!(repository.remembered(&key, &history), None);
    assert_eq!(repository.expected(commits[3].id.as_str(), &history).unwrap(), None);
    // The chain goes on behind it.
    let next = place.put(&[blob(9)]);
    assert_eq!(next.sequence, Some(5));
    assert_eq!(
        next.previous.iter().map(|previous| previous.point.clone()).collect::<Vec<_>>(),
        [commits[3].id.clone()]
    );
    assert_eq!(listed(&place.open()).last(), Some(&next.id));
    // What the forgotten ones said of others is still known.
    std::fs::remove_file(place.path(&format!("points/{}", commits[2].id))).unwrap();
    let remarks = place.open().history().unwrap().remarks;
    assert!(remarks.iter().any(|remark| remark.object == format!("points/{}", commits[2].id)), "{remarks:?}");
    std::fs::remove_file(place.path(&record)).unwrap();
    let remarks = place.open().history().unwrap().remarks;
    assert!(remarks.iter().any(|remark| remark.object == format!("points/{}", commits[3].id)), "{remarks:?}");
}

#[test]
fn a_writer_and_a_stranger_can_forget_nothing() {
    let (place, stranger) = (Place::new(), Place::new());
    let first = place.put(&[blob(1)]);
    place.put(&[blob(2)]);
    let points = [(first.id.clone(), String::new())];
    assert!(matches!(place.open().forget(&points, &stranger.key()), Err(StoreError::WrongIdentity)));
    // A record of another repository, and one of another kind that a writer signed.
    let theirs = stranger.put(&[blob(1)]);
    stranger.put(&[blob(2)]);
    let record = forget(&stranger, &[&theirs]).unwrap();
    std::fs::create_dir_all(place.path("forgotten")).unwrap();
    std::fs::copy(stranger.path(&record), place.path(&record)).unwrap();
    let other = format!("forgotten/{}", first.id);
    std::fs::copy(place.path(&format!("points/{}", first.id)), place.path(&other)).unwrap();
    let history = place.open().history().unwrap();
    assert_eq!(history.commits.len(), 2);
    let mut reported: Vec<String> = history.remarks.into_iter().map(|remark| remark.object).collect();
    reported.sort();
    let mut expected = [record, other];
    expected.sort();
    assert_eq!(reported, expected);
}

#[test]
fn the_last_point_of_a_network_cannot_be_forgotten_and_each_reason_is_told() {
    let place = Place::new();
    let commits: Vec<Commit> = (0..3).map(|number| place.put(&[blob(number)])).collect();
    let repository = place.open();
    let all: Vec<PointId> = commits.iter().map(|commit| commit.id.clone()).collect();
    let plan = repository.plan_forget(&KeepRules::default(), &all, None, None);
    assert!(matches!(plan, Err(StoreError::CannotForget { .. })), "{plan:?}");
    let points: Vec<(PointId, String)> = all.iter().map(|point| (point.clone(), String::new())).collect();
    assert!(matches!(repository.forget(&points, &place.key()), Err(StoreError::CannotForget { .. })));
    let rules = KeepRules { tags: ["none".to_owned()].into(), ..KeepRules::default() };
    let plan = repository.plan_forget(&rules, &[], None, None).unwrap();
    assert_eq!(plan.points[2].reasons, [Reason::OnlyComplete]);
    assert_eq!(plan.going().len(), 2);
    // Each of the two needs an object and a manifest of its own.
    assert_eq!((plan.frees.objects, plan.points[0].own.objects), (4, 2));
    // The newest is damaged: the one before it is the last complete one.
    let object = repository.read_point::<serde_json::Value>(&commits[2], &place.key()).unwrap().1.objects()[0].clone();
    std::fs::remove_file(place.path(&object.name)).unwrap();
    let plan = place.open().plan_forget(&rules, &[], None, Some(&place.key())).unwrap();
    assert_eq!(plan.points[1].reasons, [Reason::OnlyComplete]);
    assert_eq!(plan.points[2].reasons, [Reason::NoNewerComplete]);
    assert!(plan.points[2].damaged.as_ref().unwrap().contains(&object.name));
    assert_eq!(plan.going().len(), 1);
    let unknown = repository.plan_forget(&rules, &[], Some("m"), None);
    assert!(matches!(unknown, Err(StoreError::Rules(_))));
}

#[test]
fn a_copy_keeps_what_the_first_place_has_forgotten_and_gets_back_nothing_that_it_has_forgotten_itself() {
    let place = Place::new();
    let to = place.folder.path().join("second").display().to_string();
    let copied = |commits: &[Commit]| copy(&place.open(), &to, commits, 2, &AtomicU64::new(0)).unwrap();
    let first = place.put(&[blob(1)]);
    let second = place.put(&[blob(1), blob(2)]);
    copied(&place.open().history().unwrap().commits);
    forget(&place, &[&first]);
    let third = place.put(&[blob(1), blob(3)]);
    copied(&place.open().history().unwrap().commits);
    let other = Repository::open(&to).unwrap();
    assert_eq!(listed(&other), [first.id.clone(), second.id.clone(), third.id.clone()]);
    // The record counts in its own place, also if somebody brings it to the other one again.
    other.forget(&[(second.id.clone(), String::new())], &place.key()).unwrap().unwrap();
    assert_eq!(listed(&other), [first.id.clone(), third.id.clone()]);
    let again = copied(&place.open().history().unwrap().commits);
    assert_eq!((again.points, again.forgotten), (vec![third.id.clone()], vec![second.id.clone()]));
    assert_eq!(listed(&Repository::open(&to).unwrap()), [first.id, third.id.clone()]);
    assert_eq!(listed(&place.open()), [second.id, third.id]);
}
