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

#[test]
fn a_copy_into_itself_is_refused() {
    let place = Place::new();
    place.put(&[vec![1u8; 300_000]]);
    let before = place.objects();
    let link = place.folder.path().join("link");
    std::os::unix::fs::symlink(place.location(), &link).unwrap();
    let own = place.location();
    let own =
        [own.clone(), format!("{own}/"), format!("{own}/inside"), format!("{own}/objects/ab"), format!("file://{own}")];
    for to in own.into_iter().chain([link.display().to_string(), link.join("inside").display().to_string()]) {
        assert!(matches!(copied(&place, &to), Err(StoreError::Location { .. })), "{to}");
    }
    assert_eq!(place.objects(), before);
    assert!(!place.path("inside").exists());
    let beside = format!("{}-copy", place.location());
    assert_eq!(copied(&place, &beside).unwrap().points.len(), 1);
}

#[test]
fn only_what_is_trusted_is_copied_so_that_its_names_stay_free() {
    let place = Place::new();
    place.put(&[vec![1u8; 300_000]]);
    let certificate = place.names("writers/").remove(0);
    let whole = std::fs::read(place.path(&certificate)).unwrap();
    std::fs::write(place.path(&certificate), &whole[..whole.len() - 3]).unwrap();
    let junk = [format!("writers/{}", "a".repeat(64)), "writers/x".to_owned()]
        .into_iter()
        .chain(["faults", "marks", "drills", "forgotten"].map(|folder| format!("{folder}/20260101T000000000Z-aaaaaa")));
    let junk: Vec<String> = junk.collect();
    for name in &junk {
        std::fs::create_dir_all(place.path(name).parent().unwrap()).unwrap();
        std::fs::write(place.path(name), b"junk").unwrap();
    }
    let to = place.folder.path().join("second").display().to_string();
    copied(&place, &to).unwrap();
    let there = std::path::Path::new(&to);
    assert!(junk.iter().chain([&certificate]).all(|name| !there.join(name).exists()));
    // Put right here, it gets there too.
    std::fs::write(place.path(&certificate), &whole).unwrap();
    copied(&place, &to).unwrap();
    assert_eq!(std::fs::read(there.join(&certificate)).unwrap(), whole);
    assert_eq!(Repository::open(&to).unwrap().history().unwrap().remarks, []);
}

#[test]
fn a_copy_goes_on_that_was_stopped_at_its_first_object() {
    let place = Place::new();
    let commit = place.put(&[vec![1u8; 300_000]]);
    let to = place.folder.path().join("second");
    std::fs::create_dir_all(to.join("writers")).unwrap();
    std::fs::write(to.join("fabkeep.json#1"), b"half").unwrap();
    std::fs::write(to.join("place#1"), b"half").unwrap();
    let to = to.display().to_string();
    assert_eq!(copied(&place, &to).unwrap().points, std::slice::from_ref(&commit.id));
    // Its name was there, and its settings were not.
    for folder in ["points", "manifests", "index", "objects", "writers"] {
        std::fs::remove_dir_all(std::path::Path::new(&to).join(folder)).unwrap();
    }
    std::fs::remove_file(std::path::Path::new(&to).join("fabkeep.json")).unwrap();
    assert_eq!(copied(&place, &to).unwrap().points, [commit.id]);
    assert_eq!(Repository::open(&to).unwrap().history().unwrap().remarks, []);
}

#[test]
fn a_point_whose_damage_was_healed_is_copied_with_what_healed_it() {
    let place = Place::new();
    let content = vec![vec![7u8; 3 << 20], vec![8u8; 900]];
    let first = place.put(&content);
    let object = place.names("objects/").remove(0);
    let mut bytes = std::fs::read(place.path(&object)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(place.path(&object), bytes).unwrap();
    let to = place.folder.path().join("second").display().to_string();
    // As long as nothing holds its content, it is left out.
    assert_eq!(copied(&place, &to).unwrap().left, std::slice::from_ref(&first.id));
    let bad: Vec<_> = place.check(&first, true).faults.iter().map(|fault| fault.to_record()).collect();
    place.open().record_bad(&bad, &fabkeep_store::Signer::Identity(&place.key())).unwrap();
    let second = place.put(&content);
    let alone = place.folder.path().join("alone").display().to_string();
    for (to, points) in [(&to, vec![first.clone(), second]), (&alone, vec![first.clone()])] {
        let done = copy(&place.open(), to, &points, 2, &AtomicU64::new(0)).unwrap();
        assert_eq!(done.points, points.iter().map(|point| point.id.clone()).collect::<Vec<_>>());
        assert_eq!(done.faults.iter().map(|fault| &fault.object).collect::<Vec<_>>(), [&object]);
        assert!(done.faults[0].instead.is_some());
        let (other, identity) = (Repository::open(to).unwrap(), place.key());
        for point in &points {
            let (ids, reader) = other.read_point::<Vec<fabkeep_store::BlobId>>(point, &identity).unwrap();
            for (id, blob) in ids.iter().zip(&content) {
                assert_eq!(&*reader.blob(id).unwrap(), blob.as_slice());
            }
        }
        assert_eq!(copy(&place.open(), to, &points, 2, &AtomicU64::new(0)).unwrap().objects, 0);
    }
}
