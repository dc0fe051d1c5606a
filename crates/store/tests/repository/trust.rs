//! Who may write where: a certificate is good for one repository, also where one identity made several.

use fabkeep_store::{IdentityFile, RemarkKind, Repository, Sources, StoreError, WriterKey};

use super::{Place, summary};

/// Two repositories of one identity: the folder of the first, and the second one's location and writer.
fn two() -> (Place, String, std::path::PathBuf) {
    let place = Place::new();
    let (second, writer) = (place.folder.path().join("other"), place.folder.path().join("other-writer"));
    let location = second.display().to_string();
    Repository::init(&location, Some(&place.identity()), Some(&writer), &[]).unwrap();
    (place, location, writer)
}

/// A writer key of the first repository that says that it is one of the second.
fn forged(place: &Place, other: &Repository, edit: impl Fn(&mut serde_json::Value)) -> WriterKey {
    let mut key: serde_json::Value = serde_json::from_slice(&std::fs::read(place.writer()).unwrap()).unwrap();
    key["repository"] = other.config().id.clone().into();
    edit(&mut key);
    let path = place.folder.path().join("forged");
    std::fs::write(&path, key.to_string()).unwrap();
    WriterKey::read(&path).unwrap()
}

#[test]
fn a_writer_of_one_repository_is_none_of_another_one_of_the_same_identity() {
    let (place, location, writer) = two();
    let other = Repository::open(&location).unwrap();
    let own = other.writer(WriterKey::read(&writer).unwrap()).unwrap();
    own.commit(&(), summary(), Sources::new()).unwrap();
    let error = other.writer(forged(&place, &other, |_| {})).err().unwrap();
    assert!(matches!(error, StoreError::NotCertified { .. }), "{error}");
    // Nor if its certificate is put there.
    let certificate = place.names("writers/").remove(0);
    std::fs::copy(place.path(&certificate), std::path::Path::new(&location).join(&certificate)).unwrap();
    let other = Repository::open(&location).unwrap();
    assert!(other.writer(forged(&place, &other, |_| {})).is_err());
    let remarks = other.history().unwrap().remarks;
    assert_eq!(remarks.iter().map(|remark| &remark.object).collect::<Vec<_>>(), [&certificate]);
    assert_eq!(remarks[0].kind, RemarkKind::Foreign);
    assert!(remarks[0].problem.contains(&place.open().config().id), "{}", remarks[0].problem);
    // The identity's holder certifies the key for the second one too.
    let added = place.folder.path().join("added");
    other.add_writer(&IdentityFile::read(&place.identity()).unwrap(), &added).unwrap();
    let other = Repository::open(&location).unwrap();
    other.writer(WriterKey::read(&added).unwrap()).unwrap().commit(&(), summary(), Sources::new()).unwrap();
    assert_eq!(other.history().unwrap().commits.len(), 2);
}
