//! Writers that are revoked: what they had written before stays, nothing that they write afterwards counts, and nobody takes that back unseen.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use fabkeep_store::{
    Commit, MarkChange, PointId, RemarkKind, Repository, Signer, Sources, StoreError, WriterKey, copy,
};

use super::{Place, blobs, summary};

/// A repository with two writers: the one that made it, and a second one whose machine is taken over.
fn two_writers() -> (Place, PathBuf) {
    let place = Place::new();
    let second = place.folder.path().join("second-writer");
    place.open().add_writer(&place.key(), &second).unwrap();
    (place, second)
}

fn put_by(place: &Place, writer: &std::path::Path, content: &[u8]) -> Result<Commit, StoreError> {
    let repository = place.open();
    let point = repository.writer(WriterKey::read(writer)?)?;
    let blob = point.put(content)?;
    point.commit(&vec![blob], summary(), Sources::new()).map(|(commit, _)| commit)
}

fn key_of(file: &std::path::Path) -> String {
    WriterKey::read(file).unwrap().key()
}

fn ids(repository: &Repository) -> Vec<PointId> {
    repository.history().unwrap().commits.iter().map(|commit| commit.id.clone()).collect()
}

/// What the second writer wrote with the key that it still has: a run that began before it was revoked.
fn while_revoked(place: &Place, second: &std::path::Path, since: Option<&PointId>) -> Commit {
    let before = place.open();
    let point = before.writer(WriterKey::read(second).unwrap()).unwrap();
    let blob = point.put(b"written by a thief").unwrap();
    place.open().revoke_writer(&place.key(), &key_of(second), since).unwrap();
    point.commit(&vec![blob], summary(), Sources::new()).unwrap().0
}

#[test]
fn what_a_writer_signs_after_it_was_revoked_is_ignored_and_what_it_had_signed_stays() {
    let (place, second) = two_writers();
    let own = place.put(&blobs());
    let good = put_by(&place, &second, b"good").unwrap();
    let late = while_revoked(&place, &second, None);
    let repository = place.open();
    assert_eq!(ids(&repository), [own.id.clone(), good.id.clone()]);
    let history = repository.history().unwrap();
    let ignored = history.remarks.iter().find(|remark| remark.object.contains(late.id.as_str())).unwrap();
    assert!(ignored.kind == RemarkKind::Foreign && ignored.problem.contains("was revoked"), "{ignored:?}");
    assert!(repository.point(late.id.as_str()).is_err());
    // Both good points are read as ever, and the next one is made.
    place.restores(&own, &blobs()).unwrap();
    place.restores(&good, &[b"good".to_vec()]).unwrap();
    let next = place.put(&blobs());
    assert!(place.restores(&next, &blobs()).is_ok() && next.revoked == [key_of(&second)]);
    // The key cannot write, tag or vouch any more.
    for error in [
        put_by(&place, &second, b"x").map(drop),
        place
            .open()
            .mark(
                &own.id,
                &MarkChange { add: ["t".to_owned()].into(), ..MarkChange::default() },
                &Signer::Writer(&WriterKey::read(&second).unwrap()),
            )
            .map(drop),
        place.open().add_writer(&place.key(), &second),
    ] {
        assert!(matches!(error, Err(StoreError::WriterRevoked { .. })), "{error:?}");
    }
}

#[test]
fn points_since_a_moment_are_given_up_with_the_writer() {
    let (place, second) = two_writers();
    let good = put_by(&place, &second, b"good").unwrap();
    let bad = put_by(&place, &second, b"bad").unwrap();
    let held = MarkChange { hold: Some(true), ..MarkChange::default() };
    place.open().mark(&good.id, &held, &Signer::Writer(&WriterKey::read(&second).unwrap())).unwrap();
    let own = place.put(&blobs());
    let stranger = place.open().revoke_writer(&place.key(), "00000000", None);
    assert!(matches!(stranger, Err(StoreError::NoSuchWriter(_))));
    let short = place.open().revoke_writer(&place.key(), &key_of(&second)[..7], None);
    assert!(matches!(short, Err(StoreError::NoSuchWriter(_))));
    let revoked = place.open().revoke_writer(&place.key(), &key_of(&second)[..8], Some(&bad.id)).unwrap();
    assert_eq!((revoked.kept, revoked.dropped), (vec![good.id.clone()], vec![bad.id.clone()]));
    let repository = place.open();
    // The good writer's point names the bad one as the one before it: that is no missing point.
    assert_eq!(ids(&repository), [good.id.clone(), own.id.clone()]);
    let history = repository.history().unwrap();
    assert!(history.remarks.iter().all(|remark| remark.kind == RemarkKind::Foreign), "{:?}", history.remarks);
    assert!(!repository.marks(&history).unwrap().of(&good.id).hold, "a hold of the thief");
    place.restores(&good, &[b"good".to_vec()]).unwrap();
    // Revoked once more, from the beginning: only less stays.
    let again = place.open().revoke_writer(&place.key(), &key_of(&second), Some(&good.id)).unwrap();
    assert_eq!((again.kept.len(), again.dropped), (0, vec![good.id.clone()]));
    assert_eq!(ids(&place.open()), [own.id]);
    let states = place.open().writers(&place.open().history().unwrap()).unwrap();
    let of = |key: &str| states.iter().find(|state| state.key == key).unwrap();
    assert!(of(&key_of(&second)).revoked.is_some() && of(&key_of(&second)).points == 0);
    assert!(of(&key_of(&place.writer())).revoked.is_none() && of(&key_of(&place.writer())).points == 1);
}

#[test]
fn a_revocation_is_the_roots_alone_and_its_removal_is_noticed() {
    let (place, second) = two_writers();
    put_by(&place, &second, b"good").unwrap();
    // A writer's identity of another repository revokes nobody here.
    let other = Place::new();
    assert!(place.open().revoke_writer(&other.key(), &key_of(&second), None).is_err());
    let late = while_revoked(&place, &second, None);
    place.put(&blobs());
    let record = place.names("revoked/").remove(0);
    let bytes = std::fs::read(place.path(&record)).unwrap();
    // A copy carries it.
    let to = place.folder.path().join("copy");
    let points = place.open().history().unwrap().commits;
    copy(&place.open(), &to.display().to_string(), &points, 2, &AtomicU64::new(0)).unwrap();
    let copied = Repository::open(&to.display().to_string()).unwrap();
    assert!(copied.history().unwrap().commits.len() == 2 && to.join(&record).exists());
    // Somebody who can delete in the store takes it away: the point of the thief counts again, and that is told.
    std::fs::remove_file(place.path(&record)).unwrap();
    let history = place.open().history().unwrap();
    assert!(history.commits.iter().any(|commit| commit.id == late.id));
    let gone = history.remarks.iter().find(|remark| remark.kind == RemarkKind::Missing).unwrap();
    assert!(gone.problem.contains(&key_of(&second)) && gone.problem.contains("revoke it once more"), "{gone:?}");
    // A record that nobody of the repository has signed is ignored and named.
    let mut forged = bytes.clone();
    let at = forged.len() - 5;
    forged[at] ^= 1;
    std::fs::write(place.path(&record), &forged).unwrap();
    let remarks = place.open().history().unwrap().remarks;
    assert!(remarks.iter().any(|remark| remark.object == record && remark.kind == RemarkKind::Foreign), "{remarks:?}");
    std::fs::write(place.path(&record), &bytes).unwrap();
    assert!(place.open().history().unwrap().commits.iter().all(|commit| commit.id != late.id));
}
