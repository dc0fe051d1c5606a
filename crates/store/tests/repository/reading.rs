//! What is read is what was written, and is judged one by one: an object that cannot be read, that is no file, or that is another one with a
//! good signature keeps nobody from the others.

use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicU64;

use fabkeep_store::{Commit, ObjectsChecked, RemarkKind, WriterKey, check_objects};

use super::Place;

fn content(seed: u8) -> Vec<Vec<u8>> {
    vec![vec![seed; 3 << 20], vec![seed; 900]]
}

impl Place {
    fn check_quickly(&self, commit: &Commit, identity: bool) -> ObjectsChecked {
        let (repository, key) = (self.open(), self.key());
        check_objects(&repository, commit, identity.then_some(&key), false, 2, &AtomicU64::new(0)).unwrap()
    }

    fn remarks(&self) -> Vec<(RemarkKind, String)> {
        let repository = self.open();
        let writer = repository.writer(WriterKey::read(&self.writer()).unwrap()).unwrap();
        writer.remarks().iter().map(|remark| (remark.kind, remark.object.clone())).collect()
    }
}

fn flip(place: &Place, name: &str, from_end: usize) {
    let mut bytes = std::fs::read(place.path(name)).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    std::fs::write(place.path(name), bytes).unwrap();
}

#[test]
fn a_quick_check_reads_the_index_and_never_says_that_all_is_there_where_it_does_not_know_what_all_is() {
    let place = Place::new();
    let commit = place.put(&content(1));
    assert_eq!(place.check_quickly(&commit, false).faults, []);
    flip(&place, &commit.index.name, 20);
    let named = |identity: bool| -> Vec<(String, bool)> {
        let faults = place.check_quickly(&commit, identity).faults;
        faults.into_iter().map(|fault| (fault.object, fault.instead.is_some())).collect()
    };
    assert_eq!(named(false), [(commit.index.name.clone(), false)]);
    // With the identity the manifest says what there must be.
    assert_eq!(named(true), [(commit.index.name.clone(), true)]);
    for object in place.names("objects/") {
        std::fs::remove_file(place.path(&object)).unwrap();
    }
    assert_eq!(named(false), [(commit.index.name.clone(), false)]);
    assert!(named(true).iter().any(|(name, whole)| name.starts_with("objects/") && !whole));
}

#[test]
fn a_quick_check_with_the_identity_reads_the_manifest() {
    let place = Place::new();
    let commit = place.put(&content(1));
    flip(&place, &commit.manifest.name, 20);
    let faults = place.check_quickly(&commit, true).faults;
    assert_eq!(faults.iter().map(|fault| &fault.object).collect::<Vec<_>>(), [&commit.manifest.name]);
    assert_eq!(faults[0].instead, None);
}

#[test]
fn an_index_in_the_place_of_another_one_is_noticed_although_its_signature_is_good() {
    let place = Place::new();
    let (first, second) = (place.put(&content(1)), place.put(&content(2)));
    std::fs::copy(place.path(&first.index.name), place.path(&second.index.name)).unwrap();
    assert!(place.remarks().contains(&(RemarkKind::Damaged, second.index.name.clone())), "{:?}", place.remarks());
    for identity in [false, true] {
        let faults = place.check_quickly(&second, identity).faults;
        assert_eq!(faults.iter().map(|fault| &fault.object).collect::<Vec<_>>(), [&second.index.name]);
        assert_eq!(faults[0].instead.is_some(), identity);
        assert_eq!(place.check_quickly(&first, identity).faults, []);
    }
    // What only the lost index knew is put again, and the point is whole by it.
    for object in place.names("objects/") {
        let repository = place.open();
        let identity = place.key();
        let (_, reader) = repository.read_point::<serde_json::Value>(&first, &identity).unwrap();
        if !reader.objects().iter().any(|entry| entry.name == object) {
            std::fs::remove_file(place.path(&object)).unwrap();
        }
    }
    assert!(place.restores(&second, &content(2)).is_err());
    let third = place.put(&content(2));
    for (commit, seed) in [(&first, 1), (&second, 2), (&third, 2)] {
        place.restores(commit, &content(seed)).unwrap();
    }
    assert!(place.check(&second, true).faults.iter().all(|fault| fault.instead.is_some()));
}

#[test]
fn an_index_that_is_gone_and_one_that_is_empty_are_the_same() {
    let place = Place::new();
    let (first, second) = (place.put(&content(1)), place.put(&content(2)));
    let path = place.path(&first.index.name);
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, b"").unwrap();
        }
        let remarks = place.open().history().unwrap().remarks;
        let kinds: Vec<_> = remarks.iter().map(|remark| (remark.kind, remark.object.as_str())).collect();
        assert_eq!(kinds, [(RemarkKind::Unindexed, first.index.name.as_str())]);
        let faults = place.check(&first, true).faults;
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].instead, Some(vec![first.manifest.name.clone()]));
        assert_eq!(place.check(&second, true).faults, []);
        place.restores(&first, &content(1)).unwrap();
    }
}

/// A file whose bytes cannot be read: `/proc/self/mem` at address 0.
fn unreadable(place: &Place, name: &str) {
    let _ = std::fs::remove_file(place.path(name));
    symlink("/proc/self/mem", place.path(name)).unwrap();
}

#[test]
fn an_object_that_the_disk_does_not_give_is_named_and_the_others_go_on() {
    for kind in ["points/", "index/", "manifests/", "objects/"] {
        let place = Place::new();
        let (first, second) = (place.put(&content(1)), place.put(&content(2)));
        let name = place.names(kind).into_iter().find(|name| !name.contains(second.id.as_str())).unwrap();
        let of_first = kind != "objects/" || place.check(&first, false).faults.is_empty();
        assert!(of_first);
        unreadable(&place, &name);
        let history = place.open().history().unwrap();
        assert!(history.commits.contains(&second), "{kind}");
        let mut named: Vec<String> = history.remarks.into_iter().map(|remark| remark.object).collect();
        let mut whole = 0;
        for (commit, seed) in [(&first, 1), (&second, 2)] {
            named.extend(place.check(commit, true).faults.into_iter().map(|fault| fault.object));
            whole += usize::from(place.restores(commit, &content(seed)).is_ok());
        }
        assert!(named.contains(&name), "{kind}: {named:?}");
        assert!(whole >= 1, "{kind}");
        let third = place.put(&content(1));
        place.restores(&third, &content(1)).unwrap();
    }
}

#[test]
fn a_pipe_in_the_place_of_an_object_is_named_and_nobody_waits_for_it() {
    let place = Place::new();
    let (first, second) = (place.put(&content(1)), place.put(&content(2)));
    let mut names: Vec<String> = vec![format!("points/{}", first.id), first.index.name, first.manifest.name];
    names.extend(["points", "index", "faults"].map(|folder| format!("{folder}/20260101T000000000Z-aaaaaa")));
    names.push(format!("writers/{}", "a".repeat(64)));
    for name in &names {
        let path = place.path(name);
        let saved = std::fs::read(&path).ok();
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(place.open().history().unwrap().commits.contains(&second), "{name}");
        let mut named: Vec<String> = place.remarks().into_iter().map(|(_, object)| object).collect();
        named.extend(place.open().history().unwrap().remarks.into_iter().map(|remark| remark.object));
        assert!(named.contains(name), "{name}: {named:?}");
        place.restores(&second, &content(2)).unwrap();
        std::fs::remove_file(&path).unwrap();
        if let Some(bytes) = saved {
            std::fs::write(&path, bytes).unwrap();
        }
    }
}
