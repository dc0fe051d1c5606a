//! What stands in an index is nobody's who cannot read the recovery points.

use fabkeep_store::{BlobId, Sources, WriterKey};
use serde_json::json;

use super::{Place, summary};

fn sources(word: &str) -> Sources {
    Sources::from([("0".repeat(64), json!({"heights": {word: 7}}))])
}

#[test]
fn an_index_names_nothing_and_its_writer_finds_its_notes_again() {
    let place = Place::new();
    let repository = place.open();
    let begin = |file: &std::path::Path| repository.writer(WriterKey::read(file).unwrap()).unwrap();
    let mut first = summary();
    first.network = "first".to_owned();
    begin(&place.writer()).commit(&(), first, sources("secretchannel")).unwrap();
    begin(&place.writer()).commit(&(), summary(), Sources::from([("1".repeat(64), json!("othernetwork"))])).unwrap();
    for name in place.names("index/") {
        let bytes = std::fs::read(place.path(&name)).unwrap();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let text = String::from_utf8(zstd::decode_all(&bytes[end + 1..]).unwrap()).unwrap();
        assert!(
            !text.contains("secretchannel") && !text.contains("heights") && !text.contains("othernetwork"),
            "{text}"
        );
    }
    // Of each network what its last point noted.
    let writer = begin(&place.writer());
    let id = |digit: &str| -> BlobId { serde_json::from_value(json!(digit.repeat(64))).unwrap() };
    assert_eq!(writer.source(&id("0")), Some(&json!({"heights": {"secretchannel": 7}})));
    assert_eq!(writer.source(&id("1")), Some(&json!("othernetwork")));
    drop(writer);
    // Another writer reads none of it.
    let second = place.folder.path().join("second");
    repository.add_writer(&place.key(), &second).unwrap();
    let repository = place.open();
    let writer = repository.writer(WriterKey::read(&second).unwrap()).unwrap();
    assert_eq!((writer.source(&id("0")), writer.source(&id("1"))), (None, None));
}
