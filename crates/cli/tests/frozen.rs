//! Repositories of every format version that there ever was are restored for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::path::Path;
use std::process::Command;

use place::Place;

#[test]
fn a_repository_of_version_1_verifies_and_restores_to_the_same_bytes() {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen/v1");
    let place = Place::empty();
    let packed = std::fs::File::open(frozen.join("repository.tar.zst")).unwrap();
    fabkeep_fixtures::unpack(packed, place.folder.path()).unwrap();
    let identity = frozen.join("identity").display().to_string();
    let verified = place.run(&["verify", "--repo", "repository", "--identity", &identity, "--all"]);
    assert_eq!(verified.code, 0, "{}", verified.text);
    let listed = place.run(&["list", "--repo", "repository"]);
    assert_eq!(listed.json["points"].as_array().unwrap().len(), 2);
    let arguments =
        ["restore", "--repo", "repository", "--identity", &identity, "--to", "out", "--raft-state", "captured"];
    let restored = place.run(&arguments);
    assert_eq!(restored.code, 0, "{}", restored.text);
    let sums = frozen.join("expected.sha256");
    let checked = Command::new("sha256sum")
        .arg("--check")
        .arg("--quiet")
        .arg(&sums)
        .current_dir(place.path("out"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let expected = std::fs::read_to_string(&sums).unwrap().lines().count();
    let mut found = 0;
    let mut folders = vec![place.path("out")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() {
                found += 1;
            }
        }
    }
    assert_eq!(found, expected);
    assert_eq!(std::fs::read_link(place.path("out/Org1/peer0/production/link")).unwrap(), Path::new("note"));
    let oldest = listed.json["points"][0]["id"].as_str().unwrap();
    let first = place.run(&["restore", oldest, "--repo", "repository", "--identity", &identity, "--to", "first"]);
    assert_eq!(first.code, 0, "{}", first.text);
    assert!(!place.path("first/Org2/peer1").exists());
}
