//! Statements that leave the repository are checked without it.

use fabkeep_store::{Signer, StoreError, WriterKey, open_statement};

use super::Place;

fn payload(place: &Place) -> Vec<u8> {
    let repository = place.open();
    let config = repository.config();
    serde_json::to_vec(&serde_json::json!({"repository": config.id, "root": config.root, "more": [1, 2]})).unwrap()
}

#[test]
fn statements_of_the_root_and_of_writers_are_known_by_the_root_key() {
    let place = Place::new();
    let (identity, writer, payload) = (place.key(), WriterKey::read(&place.writer()).unwrap(), payload(&place));
    let repository = place.open();
    let root = repository.config().root.clone();
    for signer in [Signer::Identity(&identity), Signer::Writer(&writer)] {
        let signed = repository.sign_statement(&payload, &signer).unwrap();
        let opened = open_statement("it", &signed, Some(&root.to_uppercase())).unwrap();
        assert_eq!((&opened.payload, opened.root.as_deref()), (&payload, Some(root.as_str())));
        assert_eq!(opened.signer == root, matches!(signer, Signer::Identity(_)));
        // The signer's own key will do, too.
        assert!(open_statement("it", &signed, Some(&opened.signer)).is_ok());
        assert!(open_statement("it", &signed, None).is_ok());
        let other = open_statement("it", &signed, Some(&"00".repeat(32)));
        assert!(matches!(other, Err(StoreError::Untrusted { .. })), "{other:?}");
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 4;
            assert!(open_statement("it", &changed, Some(&root)).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_writer_of_another_repository_does_not_speak_for_this_one() {
    let (place, stranger) = (Place::new(), Place::new());
    let writer = WriterKey::read(&stranger.writer()).unwrap();
    assert!(place.open().sign_statement(&payload(&place), &Signer::Writer(&writer)).is_err());
    // It may sign such a statement all the same: its root is not the one that is named.
    let signed = stranger.open().sign_statement(&payload(&place), &Signer::Writer(&writer)).unwrap();
    let root = place.open().config().root.clone();
    for key in [None, Some(root.as_str())] {
        let opened = open_statement("it", &signed, key);
        assert!(matches!(opened, Err(StoreError::Untrusted { .. })), "{opened:?}");
    }
}
