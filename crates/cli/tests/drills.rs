//! Drills of hosts: into a folder that the drill makes, and removes whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use place::{Ended, Place, ended};

fn captured() -> Place {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    place
}

fn command(place: &Place, more: &[&str]) -> std::process::Command {
    let mut command = place.command(&["drill", "--repo", "repository", "--identity", "keys/identity"]);
    command.args(["--to", "scratch", "--output", "json", "-q"]).args(more);
    command
}

fn drill(place: &Place, more: &[&str]) -> Ended {
    ended(command(place, more).output().unwrap())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn sentences(of: &serde_json::Value) -> String {
    of.as_array().into_iter().flatten().filter_map(|text| text.as_str()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_drill_into_a_folder_proves_the_data_and_says_what_it_does_not_prove() {
    let place = captured();
    let check =
        "test -d \"$FABKEEP_DRILL_FOLDER\" && find \"$FABKEEP_DRILL_FOLDER\" -name blockfile_000000 | grep -q .";
    let found = place.run(&["discover", "--root", "network", "--inventory", "fabkeep.toml"]);
    assert!(matches!(found.code, 0 | 3), "{}", found.text);
    let drilled = drill(&place, &["--inventory", "fabkeep.toml", "--check", check, "--max-rto", "10m"]);
    assert!(matches!(drilled.code, 0 | 3), "{}", drilled.text);
    let record = &drilled.json["drill"];
    assert_eq!((&record["result"], &record["removed"]), (&"proven".into(), &true.into()), "{}", drilled.text);
    let proven = sentences(&record["proven"]);
    assert!(proven.contains("commit hash") && proven.contains("the given check succeeded"), "{proven}");
    assert!(sentences(&record["not_proven"]).contains("that nodes start on the data"), "{}", drilled.text);
    assert_eq!(record["rpo_blocks"]["mychannel"], 0, "{}", drilled.text);
    assert_eq!(entries(&place.path("scratch")), Vec::<PathBuf>::new());
    let failing = drill(&place, &["--check", "exit 1"]);
    assert_eq!((failing.code, &failing.json["drill"]["result"]), (7, &"unproven".into()), "{}", failing.text);
    let over = drill(&place, &["--max-rpo", "1ms"]);
    assert_eq!((over.code, &over.json["drill"]["result"]), (8, &"over-limit".into()), "{}", over.text);
    assert_eq!(entries(&place.path("scratch")), Vec::<PathBuf>::new());
    let listed = place.run(&["drills", "--repo", "repository", "--last", "2"]);
    let results: Vec<&str> =
        listed.json["drills"].as_array().unwrap().iter().map(|drill| drill["result"].as_str().unwrap()).collect();
    assert_eq!((listed.code, results), (0, vec!["unproven", "over-limit"]), "{}", listed.text);
}

#[test]
fn a_damaged_point_fails_the_drill_and_leaves_nothing() {
    let place = captured();
    for object in entries(&place.path("repository/objects")).iter().flat_map(|folder| entries(folder)) {
        let bytes = fs::read(&object).unwrap();
        fs::write(&object, &bytes[..bytes.len() / 2]).unwrap();
    }
    let drilled = drill(&place, &[]);
    assert_eq!((drilled.code, &drilled.json["drill"]["result"]), (5, &"failed".into()), "{}", drilled.text);
    assert_eq!(entries(&place.path("scratch")), Vec::<PathBuf>::new());
}

#[test]
fn what_a_killed_drill_left_in_a_folder_is_removed_by_clean() {
    let place = captured();
    let mut child = command(&place, &["--check", "sleep 60"]).spawn().unwrap();
    let begun = Instant::now();
    while entries(&place.path("scratch")).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    let left = entries(&place.path("scratch")).remove(0);
    let running = place.run(&["clean", "--folder", "scratch"]);
    assert!(running.code == 0 && left.exists(), "it still runs: {}", running.text);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::create_dir(place.path("scratch/fabkeep-drill-mine")).unwrap();
    let cleaned = place.run(&["clean", "--folder", "scratch"]);
    assert_eq!((cleaned.code, cleaned.json["found"].as_array().unwrap().len()), (0, 1), "{}", cleaned.text);
    assert_eq!(entries(&place.path("scratch")), [place.path("scratch/fabkeep-drill-mine")]);
}

#[test]
fn a_drill_says_where_it_could_go() {
    let place = captured();
    let nowhere = place.run(&["drill", "--repo", "repository", "--identity", "keys/identity"]);
    assert!(nowhere.code == 2 && nowhere.text.contains("--kubernetes"), "{}", nowhere.text);
    let hosts =
        place.run(&["drill", "--repo", "repository", "--identity", "keys/identity", "--to", "scratch", "--dry-run"]);
    assert!(hosts.code == 0 && !place.path("scratch").exists(), "{}", hosts.text);
    let random = drill(&place, &["--random", "--keep"]);
    assert_eq!(random.code, 0, "{}", random.text);
    let removal: Vec<&str> = random.json["removal"].as_str().unwrap().split(' ').skip(1).collect();
    assert_eq!(entries(&place.path("scratch")).len(), 1);
    assert_eq!(place.run(&removal).code, 0);
    assert_eq!(entries(&place.path("scratch")), Vec::<PathBuf>::new());
}
