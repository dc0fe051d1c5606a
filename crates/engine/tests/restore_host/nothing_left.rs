//! Restores that end before their first change leave nothing behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use fabkeep_engine::{EngineError, Silent};
use fabkeep_store::StoreError;

use super::bench::Bench;
use super::place::{Place, tree};

#[test]
fn a_restore_that_has_to_wait_for_another_one_makes_nothing() {
    let place = Place::new(&["Org1/peer0"]);
    fs::remove_dir_all(place.path("Org1/peer0/production/ledgersData/pvtdataStore")).unwrap();
    let before = tree(&place.bench.network());
    let other = File::open(place.path("Org1/peer0")).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let result = place.restore(&place.options(), &Silent);
    assert!(matches!(result, Err(EngineError::Usage(_))), "{:?}", result.err());
    assert!(tree(&place.bench.network()) == before);
    drop(other);
    place.restore(&place.options(), &Silent).unwrap();
}

#[test]
fn a_damaged_object_leaves_neither_written_data_nor_a_journal() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let inventory = fabkeep_platform::discover(&bench.network(), bench.folder.path()).unwrap().inventory;
    bench.capture(&fabkeep_engine::CaptureOptions::default()).unwrap();
    let place = Place { bench, inventory, nodes: vec!["Org1/peer0".to_owned()] };
    let objects = std::path::Path::new(&place.bench.location()).join("objects");
    let files = fs::read_dir(objects).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let largest = files.map(|file| file.unwrap().path()).max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    fs::set_permissions(&largest, fs::Permissions::from_mode(0o644)).unwrap();
    let whole = fs::read(&largest).unwrap();
    let mut damaged = whole.clone();
    damaged[5000] ^= 0xff;
    fs::write(&largest, damaged).unwrap();
    fs::remove_dir_all(place.path("Org1/peer0/production/ledgersData/pvtdataStore")).unwrap();
    let before = tree(&place.bench.network());
    for _ in 0..2 {
        let result = place.restore(&place.options(), &Silent);
        assert!(
            matches!(result, Err(EngineError::Store(StoreError::Damaged { .. }))),
            "{:?}",
            result.map(|restored| restored.directories)
        );
        assert!(tree(&place.bench.network()) == before);
    }
    fs::write(&largest, whole).unwrap();
    place.restore(&place.options(), &Silent).unwrap();
}
