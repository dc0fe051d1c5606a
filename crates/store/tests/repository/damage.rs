//! The damage matrix: every kind of object, deleted, cut, flipped, swapped with another one, replaced by rubbish. Nothing of it blocks what is not
//! damaged, and nothing passes unnoticed.

use std::path::Path;

use fabkeep_store::{RemarkKind, Repository, StoreError, WriterKey};

use super::{Place, blobs};

const DAMAGES: [&str; 7] = ["remove", "cut", "flip", "empty", "rubbish", "swap", "grow"];

fn damage(how: &str, path: &Path, other: &Path) {
    let whole = std::fs::read(path).unwrap();
    match how {
        "remove" => std::fs::remove_file(path).unwrap(),
        "cut" => std::fs::write(path, &whole[..whole.len() - 1]).unwrap(),
        "flip" => {
            let mut bytes = whole;
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
        "empty" => std::fs::write(path, b"").unwrap(),
        "rubbish" => std::fs::write(path, b"{\"fabkeep\":1}\nrubbish").unwrap(),
        "swap" => std::fs::write(path, std::fs::read(other).unwrap()).unwrap(),
        _ => std::fs::write(path, [&whole[..], b"x"].concat()).unwrap(),
    }
}

#[test]
fn whatever_object_is_damaged_the_other_point_is_restored_a_backup_goes_on_and_it_is_noticed() {
    let place = Place::new();
    let (one, two) = (vec![vec![1u8; 3 << 20], b"shared".to_vec()], vec![vec![2u8; 3 << 20], b"shared".to_vec()]);
    let (first, second) = (place.put(&one), place.put(&two));
    let names: Vec<String> = place.names("").into_iter().filter(|name| name != "fabkeep.json").collect();
    assert!(
        ["writers/", "objects/", "index/", "manifests/", "points/"]
            .iter()
            .all(|kind| names.iter().any(|name| name.starts_with(kind)))
    );
    let copy = tempfile::tempdir().unwrap();
    let saved = copy.path().join("repo");
    copy_tree(Path::new(&place.location()), &saved);
    for name in &names {
        for how in DAMAGES {
            let other = names.iter().find(|other| *other != name && other.split('/').next() == name.split('/').next());
            let other = other.unwrap_or(&names[0]);
            damage(how, &place.path(name), &saved.join(other));
            let what = format!("{how} {name}");
            let repository = Repository::open(&place.location()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let history = repository.history().unwrap();
            let listed = |commit: &fabkeep_store::Commit| history.commits.iter().any(|known| known == commit);
            let mut noticed: Vec<String> = history.remarks.iter().map(|remark| remark.object.clone()).collect();
            noticed.extend(repository.strays().unwrap().into_iter().map(|remark| remark.object));
            let mut whole = 0;
            for (commit, content) in [(&first, &one), (&second, &two)] {
                if !listed(commit) {
                    continue;
                }
                let checked = place.check(commit, true);
                noticed.extend(checked.faults.iter().map(|fault| fault.object.clone()));
                match place.restores(commit, content) {
                    Ok(()) => whole += 1,
                    Err(error) => assert!(error.to_string().contains(name.as_str()), "{what}: {error}"),
                }
                let damaged = checked.faults.iter().any(|fault| fault.instead.is_none());
                assert_eq!(damaged, place.restores(commit, content).is_err(), "{what}: {:?}", checked.faults);
                let without = place.check(commit, false);
                assert!(without.faults.iter().all(|fault| noticed.contains(&fault.object)), "{what}");
            }
            let of_both =
                name.starts_with("objects/") && place.needs(&saved, &first, name) && place.needs(&saved, &second, name);
            assert!(whole >= 1 || of_both, "{what}: no point can be restored");
            let certificate = name.starts_with("writers/");
            // A certificate that is gone is put again by the next backup: its points carry a copy.
            assert!(certificate || noticed.iter().any(|known| known == name), "{what}: {noticed:?}");
            if certificate {
                assert_eq!(whole, 2, "{what}");
            }
            // The next backup goes on, and is whole.
            let third = place.try_put(&two).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(place.open().point("latest").unwrap().id, third.id, "{what}");
            if name.starts_with("objects/") && how != "remove" && how != "cut" && how != "grow" && how != "empty" {
                // The same size, or not listed as another one: known only when it is verified.
                let _ = place.restores(&third, &two);
            } else {
                place.restores(&third, &two).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            std::fs::remove_dir_all(place.location()).unwrap();
            copy_tree(&saved, Path::new(&place.location()));
            let _ = std::fs::remove_file(place.folder.path().join("writer.last"));
        }
    }
}

#[test]
fn foreign_objects_anywhere_are_named_and_passed_over() {
    let place = Place::new();
    let content = blobs();
    let commit = place.put(&content);
    let future = "20990101T000000000Z-ffffff";
    let foreign = [
        "writers/zzz",
        "writers/folder/x",
        "points/zzz",
        &format!("points/{future}"),
        "points/folder/x",
        "index/zzz",
        &format!("index/{}-0007", commit.id),
        "manifests/zzz",
        "objects/zz/x",
        "objects/x",
        "faults/zzz",
        &format!("faults/{future}"),
        "top",
        "other/place/x",
        "points/with space %41 and \u{fc}",
        &format!("writers/{}", "0".repeat(64)),
    ];
    for name in foreign {
        std::fs::create_dir_all(place.path(name).parent().unwrap()).unwrap();
        std::fs::write(place.path(name), b"junk").unwrap();
    }
    use std::os::unix::ffi::OsStrExt;
    std::fs::write(place.path("points").join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), b"junk").unwrap();
    std::os::unix::fs::symlink("/nowhere", place.path("points/link")).unwrap();
    std::os::unix::fs::symlink(".", place.path("points/circle")).unwrap();
    let repository = place.open();
    let history = repository.history().unwrap();
    assert_eq!(history.commits, std::slice::from_ref(&commit));
    let mut reported: Vec<String> = history.remarks.into_iter().map(|remark| remark.object).collect();
    reported.extend(repository.strays().unwrap().into_iter().map(|remark| remark.object));
    let next = place.put(&content);
    reported.extend(
        place
            .open()
            .writer(fabkeep_store::WriterKey::read(&place.writer()).unwrap())
            .unwrap()
            .remarks()
            .iter()
            .map(|remark| remark.object.clone()),
    );
    for name in foreign {
        assert!(reported.iter().any(|known| known == name), "{name}: {reported:?}");
    }
    assert!(reported.iter().any(|known| known.contains('\u{fffd}')), "{reported:?}");
    assert_eq!(place.open().point("latest").unwrap().id, next.id);
    place.restores(&next, &content).unwrap();
    place.restores(&commit, &content).unwrap();
    assert_eq!(place.check(&next, true).faults, vec![]);
}

#[test]
fn a_writers_certificate_that_is_gone_is_put_again_and_an_old_key_is_certified_by_the_identitys_holder() {
    let place = Place::new();
    let content = blobs();
    let commit = place.put(&content);
    let certificate = place.names("writers/").remove(0);
    std::fs::remove_file(place.path(&certificate)).unwrap();
    place.restores(&commit, &content).unwrap();
    let repository = place.open();
    let writer = repository.writer(fabkeep_store::WriterKey::read(&place.writer()).unwrap()).unwrap();
    assert!(writer.remarks().iter().any(|remark| remark.kind == RemarkKind::PutAgain && remark.object == certificate));
    drop(writer);
    assert_eq!(place.names("writers/"), std::slice::from_ref(&certificate));

    // A key file of an older version, in a repository whose objects carry no certificate.
    let text = std::fs::read_to_string(place.writer()).unwrap();
    let mut key: serde_json::Value = serde_json::from_str(&text).unwrap();
    key.as_object_mut().unwrap().remove("certificate");
    std::fs::write(place.writer(), key.to_string()).unwrap();
    for name in place.names("points/").iter().chain([&certificate]) {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    assert!(matches!(place.try_put(&content), Err(StoreError::NotCertified { .. })));
    place.open().add_writer(&place.key(), &place.writer()).unwrap();
    let commit = place.put(&content);
    place.restores(&commit, &content).unwrap();
    assert!(matches!(place.open().add_writer(&place.key(), &place.writer()), Err(StoreError::KeyFile { .. })));
}

#[test]
fn a_recipient_reads_when_the_root_is_pinned_and_never_when_another_one_is() {
    let (place, other) = (Place::new(), Place::new());
    let second = other.open().config().recipients.clone();
    let location = place.folder.path().join("both").display().to_string();
    let (identity, writer) = (place.folder.path().join("both-identity"), place.folder.path().join("both-writer"));
    let made = Repository::init(&location, Some(&identity), Some(&writer), &second).unwrap();
    let repository = Repository::open(&location).unwrap();
    let key = fabkeep_store::WriterKey::read(&writer).unwrap();
    assert_eq!(key.root(), made.root);
    let commit =
        repository.writer(key).unwrap().commit(&7u32, super::summary(), fabkeep_store::Sources::new()).unwrap().0;
    let reads = |repository: &Repository| repository.read_point::<u32>(&commit, &other.key()).map(|read| read.0);
    assert!(matches!(reads(&repository), Err(StoreError::RootNotPinned { root }) if root == made.root));
    let pinned = Repository::open(&location).unwrap().pin(&made.root.to_uppercase()).unwrap();
    assert_eq!(reads(&pinned).unwrap(), 7);
    let stranger = Place::new();
    assert!(matches!(pinned.read_point::<u32>(&commit, &stranger.key()).err(), Some(StoreError::WrongIdentity)));
    let wrong = Repository::open(&location).unwrap().pin(&other.open().config().root);
    assert!(matches!(wrong.err(), Some(StoreError::Untrusted { .. })));
}

impl Place {
    /// Whether a point needs an object, as an undamaged copy says.
    fn needs(&self, saved: &Path, commit: &fabkeep_store::Commit, name: &str) -> bool {
        let repository = Repository::open(&saved.display().to_string()).unwrap();
        let identity = self.key();
        let (_, reader) = repository.read_point::<serde_json::Value>(commit, &identity).unwrap();
        reader.objects().iter().any(|entry| entry.name == name)
    }
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target)
        } else {
            let _ = std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Somebody else's files with the names of the repository's folders.
#[test]
fn files_with_the_names_of_folders_are_told_and_keep_nothing_from_being_put() {
    let place = Place::new();
    let blobs = |seed: u8| vec![vec![seed; 3000], vec![seed.wrapping_add(1); 300_000]];
    let first = place.put(&blobs(1));
    std::fs::write(place.folder.path().join("repo/faults"), "junk").unwrap();
    let named = |name: &str| {
        let repository = place.open();
        let writer = repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
        assert!(writer.remarks().iter().any(|remark| remark.object == name), "{name}: {:?}", writer.remarks());
    };
    named("faults");
    let second = place.put(&blobs(10));
    for number in 0..=255u8 {
        let folder = place.folder.path().join(format!("repo/objects/{number:02x}"));
        if !folder.exists() {
            std::fs::write(folder, "junk").unwrap();
        }
    }
    let third = place.put(&blobs(20));
    for (commit, seed) in [(&first, 1), (&second, 10), (&third, 20)] {
        place.restores(commit, &blobs(seed)).unwrap();
    }
    let strays = place.open().strays().unwrap();
    // An object in another folder than its own is no stranger.
    assert!(strays.iter().all(|remark| remark.object == "faults" || remark.object.len() == "objects/xx".len()));
    assert!(strays.iter().any(|remark| remark.object == "faults"), "{strays:?}");
}
