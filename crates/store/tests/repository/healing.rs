//! Healing: what is known as bad is not built on, its content is put again under a new name, and older points are whole again by it.

use std::path::PathBuf;

use fabkeep_store::{BadObject, Commit, Signer, StoreError, WriterKey};

use super::{Place, blobs};

fn one_object(place: &Place) -> (String, PathBuf) {
    let name = place.names("objects/").remove(0);
    let path = place.path(&name);
    (name, path)
}

fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn record(place: &Place, commit: &Commit) -> Option<String> {
    let bad: Vec<BadObject> = place.check(commit, true).faults.iter().map(|fault| fault.to_record()).collect();
    place.open().record_bad(&bad, &Signer::Identity(&place.key())).unwrap()
}

#[test]
fn what_is_recorded_as_bad_is_put_again_under_a_new_name_and_the_older_points_are_whole() {
    let place = Place::new();
    let content = blobs();
    let (first, second) = (place.put(&content), place.put(&content));
    let (name, path) = one_object(&place);
    flip(&path);
    assert!(place.restores(&first, &content).is_err());
    let fault = place.check(&first, true).faults.remove(0);
    assert_eq!((fault.object.as_str(), fault.instead), (name.as_str(), None));
    let recorded = record(&place, &first).unwrap();
    assert!(recorded.starts_with("faults/"));
    assert_eq!(record(&place, &second), None, "it is recorded once");

    let third = place.put(&content);
    assert!(third.new_objects > 2);
    place.restores(&third, &content).unwrap();
    assert_eq!(place.check(&third, true).faults, vec![]);
    for commit in [&first, &second] {
        place.restores(commit, &content).unwrap();
        for identity in [true, false] {
            let fault = place.check(commit, identity).faults.remove(0);
            let instead = fault.instead.unwrap();
            assert!(fault.object == name && !instead.is_empty() && !instead.contains(&name), "{instead:?}");
        }
    }
    // The next ones build on what was put again.
    assert_eq!(place.put(&content).new_objects, 2);
}

#[test]
fn a_name_that_any_index_knows_is_never_given_again() {
    let place = Place::new();
    let content = vec![vec![7u8; 3 << 20]];
    let first = place.put(&content);
    let (name, path) = one_object(&place);
    std::fs::remove_file(&path).unwrap();
    let second = place.put(&content);
    assert!(!path.exists(), "the name was given again");
    place.restores(&second, &content).unwrap();
    place.restores(&first, &content).unwrap();
    let fault = place.check(&first, true).faults.remove(0);
    assert_eq!((fault.object, fault.problem.as_str()), (name.clone(), "it is missing"));

    // Where an index is gone, what it knew is not known: no name is taken that it may have given.
    let index = place.names("index/").into_iter().find(|index| index.ends_with(second.id.as_str())).unwrap();
    let (saved, knew) = (std::fs::read(place.path(&index)).unwrap(), place.names("objects/"));
    std::fs::remove_file(place.path(&index)).unwrap();
    for known in &knew {
        std::fs::remove_file(place.path(known)).unwrap();
    }
    let third = place.put(&content);
    assert!(place.names("objects/").iter().all(|new| !knew.contains(new)), "{:?}", place.names("objects/"));
    std::fs::write(place.path(&index), saved).unwrap();
    let fourth = place.put(&content);
    for commit in [&second, &third, &fourth] {
        place.restores(commit, &content).unwrap();
    }
}

#[test]
fn a_flipped_object_is_not_built_on_any_more_once_it_is_verified() {
    let place = Place::new();
    let content = vec![vec![7u8; 3 << 20]];
    place.put(&content);
    flip(&one_object(&place).1);
    let second = place.put(&content);
    // Nobody has looked at the object since: a backup by sizes cannot know. Verification does.
    assert!(place.restores(&second, &content).is_err());
    assert!(record(&place, &second).is_some());
    let third = place.put(&content);
    place.restores(&third, &content).unwrap();
    place.restores(&second, &content).unwrap();
}

#[test]
fn a_writer_can_record_and_a_stranger_cannot() {
    let (place, stranger) = (Place::new(), Place::new());
    let commit = place.put(&blobs());
    let bad = vec![BadObject { name: one_object(&place).0, blake3: "00".repeat(32), problem: "x".to_owned() }];
    let repository = place.open();
    let key = WriterKey::read(&stranger.writer()).unwrap();
    assert!(matches!(repository.record_bad(&bad, &Signer::Writer(&key)), Err(StoreError::KeyFile { .. })));
    assert!(repository.record_bad(&bad, &Signer::Identity(&stranger.key())).is_err());
    // A record copied from another repository says nothing here.
    let theirs = stranger.open().record_bad(&bad, &Signer::Writer(&key)).unwrap().unwrap();
    std::fs::create_dir_all(place.path("faults")).unwrap();
    std::fs::copy(stranger.path(&theirs), place.path(&theirs)).unwrap();
    let writer = repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
    assert!(writer.remarks().iter().any(|remark| remark.object == theirs), "{:?}", writer.remarks());
    drop(writer);
    let own = WriterKey::read(&place.writer()).unwrap();
    let recorded = repository.record_bad(&bad, &Signer::Writer(&own)).unwrap().unwrap();
    assert!(place.path(&recorded).exists());
    // Its hash is not that of the object that is there: nothing is put again for it.
    assert_eq!(place.put(&blobs()).new_objects, 2);
    place.restores(&commit, &blobs()).unwrap();
}
