//! A copy in another place: an equal repository, made without the identity, that goes on where it was stopped.

use std::sync::atomic::AtomicU64;

use fabkeep_store::{Commit, Copied, Repository, StoreError, copy};

use super::{Place, blobs};

fn copied(place: &Place, to: &str) -> Result<Copied, StoreError> {
    let repository = place.open();
    let commits: Vec<Commit> = repository.history()?.commits;
    copy(&repository, to, &commits, 2, &AtomicU64::new(0))
}

#[test]
fn a_copy_is_an_equal_repository_and_goes_on_where_it_was_stopped() {
    let place = Place::new();
    let content = blobs();
    let first = place.put(&content[..20]);
    let to = place.folder.path().join("second").display().to_string();
    let done = copied(&place, &to).unwrap();
    assert_eq!((done.points.as_slice(), done.left.len(), done.faults.len()), ([first.id.clone()].as_slice(), 0, 0));
    assert_eq!(copied(&place, &to).unwrap().objects, 0, "a second time costs nothing");
    let second = place.put(&content);
    // Stopped before its end: some objects are there, and no commit record.
    copied(&place, &to).unwrap();
    let there = std::path::Path::new(&to);
    std::fs::remove_file(there.join(format!("points/{}", second.id))).unwrap();
    std::fs::remove_file(there.join(&second.manifest.name)).unwrap();
    assert_eq!(copied(&place, &to).unwrap().objects, 1);
    let other = Repository::open(&to).unwrap();
    assert_eq!(other.history().unwrap().commits, [first, second.clone()]);
    assert_eq!(other.history().unwrap().remarks, []);
    let identity = place.key();
    let (ids, reader) = other.read_point::<Vec<fabkeep_store::BlobId>>(&second, &identity).unwrap();
    for (id, blob) in ids.iter().zip(&content) {
        assert_eq!(&*reader.blob(id).unwrap(), blob.as_slice());
    }
    // It goes on by itself.
    let key = fabkeep_store::WriterKey::read(&place.writer()).unwrap();
    let next = other.writer(key).unwrap().commit(&(), super::summary(), fabkeep_store::Sources::new()).unwrap().0;
    assert_eq!(next.sequence, Some(3));
}

#[test]
fn what_is_damaged_is_not_copied_and_another_repository_is_left_alone() {
    let place = Place::new();
    let first = place.put(&[vec![1u8; 3 << 20]]);
    let second = place.put(&[vec![2u8; 3 << 20]]);
    let object = place.names("objects/").into_iter().find(|name| {
        let identity = place.key();
        let repository = place.open();
        let (_, reader) = repository.read_point::<serde_json::Value>(&second, &identity).unwrap();
        reader.objects().iter().any(|entry| entry.name == *name)
    });
    let object = object.unwrap();
    let mut bytes = std::fs::read(place.path(&object)).unwrap();
    bytes[70] ^= 1;
    std::fs::write(place.path(&object), bytes).unwrap();
    let to = place.folder.path().join("second").display().to_string();
    let done = copied(&place, &to).unwrap();
    assert_eq!((done.points, done.left), (vec![first.id], vec![second.id]));
    assert_eq!(done.faults[0].object, object);
    let stranger = Place::new();
    assert!(matches!(copied(&stranger, &to), Err(StoreError::AlreadyARepository(_))));
    let taken = place.folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("file"), "x").unwrap();
    assert!(matches!(copied(&stranger, &taken.display().to_string()), Err(StoreError::FolderNotEmpty(_))));
}
