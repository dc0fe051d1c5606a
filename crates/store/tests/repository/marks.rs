//! Tags and holds: everybody who writes can add them, only the holder of the identity takes them away.

use std::collections::BTreeSet;

use fabkeep_store::{Commit, KeepRules, Mark, MarkChange, RemarkKind, Signer, StoreError, WriterKey};

use super::Place;

fn tags(tags: &[&str]) -> BTreeSet<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

fn change(place: &Place, commit: &Commit, change: &MarkChange, by_writer: bool) -> Result<Mark, StoreError> {
    let (key, identity) = (WriterKey::read(&place.writer()).unwrap(), place.key());
    let signer = if by_writer { Signer::Writer(&key) } else { Signer::Identity(&identity) };
    place.open().mark(&commit.id, change, &signer)
}

fn hold(hold: bool) -> MarkChange {
    MarkChange { hold: Some(hold), ..MarkChange::default() }
}

#[test]
fn a_writer_adds_marks_and_only_the_identity_takes_them_away() {
    let place = Place::new();
    let commit = place.put(&[vec![1; 500]]);
    let add = MarkChange { add: tags(&["audit", "q1"]), hold: Some(true), ..MarkChange::default() };
    assert_eq!(change(&place, &commit, &add, true).unwrap(), Mark { tags: tags(&["audit", "q1"]), hold: true });
    let remove = MarkChange { remove: tags(&["audit"]), ..MarkChange::default() };
    for taking in [&hold(false), &remove] {
        assert!(matches!(change(&place, &commit, taking, true), Err(StoreError::Untrusted { .. })));
    }
    assert_eq!(change(&place, &commit, &remove, false).unwrap(), Mark { tags: tags(&["q1"]), hold: true });
    assert_eq!(change(&place, &commit, &hold(false), false).unwrap(), Mark { tags: tags(&["q1"]), hold: false });
    let again = MarkChange { add: tags(&["audit"]), ..MarkChange::default() };
    assert_eq!(change(&place, &commit, &again, true).unwrap().tags, tags(&["audit", "q1"]));
    let history = place.open().history().unwrap();
    assert_eq!(place.open().marks(&history).unwrap().remarks, []);
    assert_eq!(history.remarks, []);
    assert_eq!(place.open().strays().unwrap(), []);
}

#[test]
fn tags_that_could_be_options_or_tables_are_refused() {
    let place = Place::new();
    let commit = place.put(&[vec![1; 500]]);
    for tag in ["", "-x", "a b", "a,b", "a\n", &"x".repeat(65)] {
        let add = MarkChange { add: tags(&[tag]), ..MarkChange::default() };
        assert!(matches!(change(&place, &commit, &add, false), Err(StoreError::Tag(_))), "{tag:?}");
    }
}

#[test]
fn a_point_on_hold_is_forgotten_neither_by_rules_nor_by_name() {
    let place = Place::new();
    let held = place.put(&[vec![1; 500]]);
    let other = place.put(&[vec![2; 500]]);
    place.put(&[vec![3; 500]]);
    change(&place, &held, &hold(true), true).unwrap();
    let repository = place.open();
    let rules = KeepRules { last: 1, ..KeepRules::default() };
    let plan = repository.plan_forget(&rules, &[], None, None).unwrap();
    assert_eq!(plan.going().into_iter().map(|(point, _)| point).collect::<Vec<_>>(), [other.id]);
    let named = repository.plan_forget(&KeepRules::default(), std::slice::from_ref(&held.id), None, None);
    assert!(matches!(named, Err(StoreError::CannotForget { .. })));
    let directly = repository.forget(&[(held.id.clone(), String::new())], &place.key());
    assert!(matches!(directly, Err(StoreError::CannotForget { .. })));
    change(&place, &held, &hold(false), false).unwrap();
    repository.forget(&[(held.id, String::new())], &place.key()).unwrap().unwrap();
}

#[test]
fn a_record_that_a_writer_made_to_end_a_hold_is_reported_and_ends_nothing() {
    let place = Place::new();
    let commit = place.put(&[vec![1; 500]]);
    change(&place, &commit, &hold(true), false).unwrap();
    let mark = place.names("marks/").remove(0);
    // The record that only the identity's holder makes, with the writer's signature instead of the root's.
    change(&place, &commit, &hold(false), false).unwrap();
    let ending = place.names("marks/").into_iter().find(|name| *name != mark).unwrap();
    let bytes = std::fs::read(place.path(&ending)).unwrap();
    let (by_root, payload) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap());
    let root: serde_json::Value = serde_json::from_slice(by_root).unwrap();
    change(&place, &commit, &MarkChange { add: tags(&["x"]), ..MarkChange::default() }, true).unwrap();
    let own = place.names("marks/").into_iter().find(|name| *name != mark && *name != ending).unwrap();
    let own = std::fs::read(place.path(&own)).unwrap();
    let mut head: serde_json::Value =
        serde_json::from_slice(&own[..own.iter().position(|byte| *byte == b'\n').unwrap()]).unwrap();
    assert_ne!(head["signer"], root["signer"]);
    head["signature"] = root["signature"].clone();
    std::fs::write(place.path(&ending), [head.to_string().as_bytes(), payload].concat()).unwrap();
    let repository = place.open();
    let history = repository.history().unwrap();
    let marks = repository.marks(&history).unwrap();
    assert!(marks.of(&commit.id).hold);
    assert_eq!((marks.remarks[0].kind, marks.remarks[0].object.as_str()), (RemarkKind::Foreign, ending.as_str()));
}
