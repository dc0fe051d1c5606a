//! A repository that this user may not read everywhere: nothing of it is called missing or damaged, and a stranger's files keep nobody from
//! his own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use place::{Ended, Place, ended};

/// Whose rights count: root may read everything.
const NOBODY: u32 = 65534;

fn give(path: &Path) {
    let _ = chown(path, Some(NOBODY), Some(NOBODY));
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// Runs a command as a user whose rights count.
fn run(place: &Place, arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    command.args(["--output", "json"]);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    ended(command.output().unwrap())
}

fn mode(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), Permissions::from_mode(mode)).unwrap();
}

/// A place with two recovery points, all of it this user's.
fn prepared() -> Place {
    let place = Place::new();
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o755)).unwrap();
    for _ in 0..2 {
        assert_eq!(place.backup(&[]).code, 0);
    }
    if rustix::process::geteuid().is_root() {
        give(place.folder.path());
    }
    place
}

const VERIFY: [&str; 6] = ["verify", "--repo", "repository", "--identity", "keys/identity", "--all"];
const LIST: [&str; 3] = ["list", "--repo", "repository"];
const RESTORE: [&str; 7] = ["restore", "--repo", "repository", "--identity", "keys/identity", "--to", "out"];
const BACKUP: [&str; 7] = ["backup", "--repo", "repository", "--root", "network", "--writer", "keys/writer"];

#[test]
fn folders_whose_files_may_not_be_looked_at_are_not_empty() {
    let place = prepared();
    fs::create_dir_all(place.path("repository/faults")).unwrap();
    give(&place.path("repository/faults"));
    let inner = fs::read_dir(place.path("repository/objects")).unwrap().next().unwrap().unwrap().file_name();
    let inner = format!("repository/objects/{}", inner.to_string_lossy());
    let cases: [(&str, u32, &[&[&str]]); 5] = [
        ("repository/objects", 0o600, &[&VERIFY]),
        (&inner, 0o600, &[&VERIFY]),
        (&inner, 0o000, &[&VERIFY]),
        ("repository/points", 0o600, &[&LIST, &RESTORE]),
        ("repository/faults", 0o600, &[&BACKUP]),
    ];
    // A folder without files has none that may not be looked at.
    fs::write(place.path("repository/faults/20260101T000000000Z-aaaaaa"), b"junk").unwrap();
    for (folder, closed, commands) in cases {
        mode(&place, folder, closed);
        for command in commands {
            let ended = run(&place, command);
            assert_eq!(ended.code, 1, "{folder} {closed:o} {}: {}", command[0], ended.text);
            let help = ended.json["help"].as_str().unwrap_or_default();
            assert!(help.contains("rights") || help.contains("right to read"), "{}", ended.text);
            assert!(!ended.text.contains("AWS_") && !ended.text.contains("it is missing"), "{}", ended.text);
        }
        mode(&place, folder, 0o700);
        assert_eq!(fs::read_dir(place.path("repository/faults")).unwrap().count(), 1, "damage was recorded");
    }
}

#[test]
fn a_file_of_a_stranger_that_may_not_be_read_is_named_and_keeps_nobody_from_the_others() {
    let place = prepared();
    let certificate = format!("writers/{}", "a".repeat(64));
    let point = "20260101T000000000Z-aaaaaa";
    let names = ["points", "index", "faults", "manifests"].map(|folder| format!("{folder}/{point}"));
    for name in names.iter().chain([&certificate]) {
        let path = place.path(&format!("repository/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        give(path.parent().unwrap());
        fs::write(&path, b"x").unwrap();
        give(&path);
        fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
        let mut named = false;
        for command in [&LIST[..], &BACKUP, &RESTORE] {
            let ended = run(&place, command);
            assert!(ended.code == 0 || ended.code == 3, "{name} {}: {}", command[0], ended.text);
            named |= ended.text.contains(point) || ended.text.contains(&certificate);
        }
        assert!(named, "{name}");
        fs::remove_dir_all(place.path("out")).unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let place = Place::new();
    let mut command = place.command(&["list", "--repo", "repository", "--output", "json"]);
    for variable in ["FABKEEP_IDENTITY", "FABKEEP_WRITER", "FABKEEP_ROOT", "FABKEEP_REPO"] {
        command.env(variable, "");
    }
    let listed = ended(command.output().unwrap());
    assert_eq!(listed.code, 0, "{}", listed.text);
    let mut command = place.command(&["verify", "--repo", "repository", "--output", "json"]);
    let verified = ended(command.env("FABKEEP_IDENTITY", "").env("FABKEEP_WRITER", "").output().unwrap());
    assert!(verified.code == 2 && verified.text.contains("no recovery point"), "{}", verified.text);
}

#[test]
fn a_repository_without_its_settings_is_not_called_none() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    fs::remove_file(place.path("repository/fabkeep.json")).unwrap();
    for command in [&LIST[..], &BACKUP, &VERIFY, &RESTORE] {
        let ended = place.run(command);
        assert_eq!(ended.code, 5, "{}", ended.text);
        assert!(ended.text.contains("fabkeep.json") && ended.text.contains("from a copy"), "{}", ended.text);
    }
}
