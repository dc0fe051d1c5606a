//! Records of drills: whoever may write signs them, and copies carry them along.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use fabkeep_store::{
    Commit, Drill, DrillResult, DrillStage, RemarkKind, Repository, Signer, StoreError, WriterKey, copy,
};

use super::Place;

fn drill(commit: &Commit, result: DrillResult) -> Drill {
    Drill {
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        point: commit.id.clone(),
        begun: "2026-11-30T08:00:00Z".to_owned(),
        place: "https://cluster.example: drill-org1".to_owned(),
        result,
        problems: Vec::new(),
        stages: vec![DrillStage { name: "start peers".to_owned(), seconds: 4.5 }],
        rto_seconds: 90.0,
        rpo_seconds: 3600.0,
        rpo_blocks: BTreeMap::from([("mychannel".to_owned(), 12)]),
        bytes: 1000,
        proven: vec!["all files are the captured ones".to_owned()],
        not_proven: Vec::new(),
        removed: true,
        fabkeep: "0.1.0".to_owned(),
    }
}

#[test]
fn drills_are_recorded_by_writer_and_identity_and_listed_in_order() {
    let place = Place::new();
    let commit = place.put(&[vec![1; 500]]);
    let (key, identity) = (WriterKey::read(&place.writer()).unwrap(), place.key());
    let repository = place.open();
    let drills = [drill(&commit, DrillResult::Proven), drill(&commit, DrillResult::Unproven)];
    repository.record_drill(&drills[0], &Signer::Writer(&key)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    let name = repository.record_drill(&drills[1], &Signer::Identity(&identity)).unwrap();
    let (listed, remarks) = place.open().drills(Some(&identity)).unwrap();
    assert_eq!(listed.iter().map(|listed| listed.drill.clone()).collect::<Vec<_>>(), drills);
    assert_eq!((remarks, listed[1].record.as_str(), listed[1].blake3.len()), (Vec::new(), name.as_str(), 64));
    assert_eq!(place.open().strays().unwrap(), []);
    assert_eq!(place.open().history().unwrap().remarks, []);
    let to = place.folder.path().join("second").display().to_string();
    copy(&repository, &to, &[commit], 2, &AtomicU64::new(0)).unwrap();
    assert_eq!(Repository::open(&to).unwrap().drills(Some(&identity)).unwrap().0, listed);
    // Whoever reads only the bucket sees no node and no place.
    let bytes = std::fs::read_to_string(place.path(&name)).unwrap();
    assert!(!bytes.contains("cluster.example") && !bytes.contains("captured ones"), "{bytes}");
    let (without, _) = place.open().drills(None).unwrap();
    assert!(
        without.iter().all(|listed| listed.sealed && listed.drill.place.is_empty() && listed.drill.proven.is_empty())
    );
    assert_eq!(without[0].drill.rto_seconds, listed[0].drill.rto_seconds);
}

#[test]
fn a_record_that_was_changed_is_reported_and_not_listed() {
    let place = Place::new();
    let commit = place.put(&[vec![1; 500]]);
    let identity = place.key();
    let name = place.open().record_drill(&drill(&commit, DrillResult::Failed), &Signer::Identity(&identity)).unwrap();
    let text = std::fs::read_to_string(place.path(&name)).unwrap();
    std::fs::write(place.path(&name), text.replace("\"failed\"", "\"proven\"")).unwrap();
    let (listed, remarks) = place.open().drills(Some(&identity)).unwrap();
    assert_eq!(listed, []);
    assert_eq!((remarks[0].kind, remarks[0].object.as_str()), (RemarkKind::Foreign, name.as_str()));
}

#[test]
fn drills_of_unknown_points_and_endless_ones_are_not_recorded() {
    let place = Place::new();
    let commit = place.put(&[vec![1; 500]]);
    let identity = place.key();
    let mut long = drill(&commit, DrillResult::Proven);
    long.stages = vec![DrillStage { name: "x".repeat(1000), seconds: 1.0 }; 2000];
    let recorded = place.open().record_drill(&long, &Signer::Identity(&identity));
    assert!(matches!(recorded, Err(StoreError::TooLarge { .. })), "{recorded:?}");
    let mut strange = drill(&commit, DrillResult::Proven);
    strange.point = fabkeep_store::PointId::parse("20200101T000000000Z-abcdef").unwrap();
    let recorded = place.open().record_drill(&strange, &Signer::Identity(&identity));
    assert!(matches!(recorded, Err(StoreError::NoSuchPoint(_))), "{recorded:?}");
    assert_eq!(place.names("drills/"), Vec::<String>::new());
}
