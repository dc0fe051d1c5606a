//! The preflight names what a backup on hosts would meet: the repository, keys, room, leftovers, nodes. And what else the program says of
//! itself: shell completions and manual pages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use place::{Ended, Place, ended};
use serde_json::Value;

/// Whose rights count: root may read and write everything.
const NOBODY: u32 = 65534;

const WITH_KEYS: [&str; 7] =
    ["doctor", "--repo", "repository", "--writer", "keys/writer", "--identity", "keys/identity"];

fn doctor(place: &Place, more: &[&str]) -> Ended {
    let network = if more.contains(&"--inventory") { &[][..] } else { &["--root", "network"] };
    place.run(&[&WITH_KEYS[..], network, more].concat())
}

fn checks<'a>(said: &'a Ended, topic: &str, outcome: &str, words: &[&str]) -> Vec<&'a Value> {
    let checks = said.json["checks"].as_array().unwrap_or_else(|| panic!("{}", said.text)).iter();
    checks
        .filter(|check| check["topic"] == topic && check["outcome"] == outcome)
        .filter(|check| words.iter().all(|word| check.to_string().contains(word)))
        .collect()
}

/// Asserts that a check names the fault and what to do about it, and that the exit code says how bad it is.
fn names(said: &Ended, topic: &str, outcome: &str, words: &[&str]) {
    let found = checks(said, topic, outcome, words);
    assert!(!found.is_empty(), "no {outcome} {topic} with {words:?}: {}", said.text);
    assert!(found.iter().all(|check| !check["remedy"].as_str().unwrap_or_default().is_empty()), "{found:?}");
    assert!(said.code >= if outcome == "failed" { 4 } else { 3 }, "{}: {}", said.code, said.text);
}

/// Everything below the place, with its size and time.
fn tree(path: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            out.extend(tree(&entry.path()));
        } else {
            out.push(format!("{} {} {:?}", entry.path().display(), metadata.len(), metadata.modified().unwrap()));
        }
    }
    out.sort();
    out
}

#[test]
fn a_network_without_faults_is_all_ok_and_nothing_is_changed() {
    let place = Place::new();
    let before = tree(place.folder.path());
    let said = doctor(&place, &[]);
    assert_eq!(said.code, 0, "{}", said.text);
    for outcome in ["warning", "failed"] {
        let bad = said.json["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == outcome);
        assert_eq!(bad.count(), 0, "{}", said.text);
    }
    for topic in ["network", "clocks", "leftovers", "nodes", "room", "repository", "keys", "effort"] {
        assert!(!checks(&said, topic, "ok", &[]).is_empty(), "{topic}: {}", said.text);
    }
    assert_eq!(tree(place.folder.path()), before);
    assert_eq!(said.json["effort"]["continues"], false);
    assert_eq!(place.backup(&[]).code, 0);
    assert_eq!(doctor(&place, &[]).json["effort"]["continues"], true);
    // For people: a line for each check, and what to do below those that are not ok.
    let with_wrong_key = ["doctor", "--repo", "repository", "--root", "network", "--writer", "nowhere", "-q"];
    let text = place.command(&with_wrong_key).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("failed   keys"), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with("next: ")), "{text}");
    assert!(text.lines().last().unwrap().contains("1 failed"), "{text}");
}

#[test]
fn without_a_repository_only_the_network_is_checked() {
    let place = Place::new();
    let said = place.run(&["doctor", "--root", "network"]);
    assert_eq!(said.code, 0, "{}", said.text);
    assert!(!checks(&said, "repository", "note", &["not checked", "--repo"]).is_empty(), "{}", said.text);
}

#[test]
fn a_repository_that_is_not_there_or_has_no_settings_is_named() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    fs::rename(place.path("repository"), place.path("elsewhere")).unwrap();
    names(&doctor(&place, &[]), "repository", "failed", &["repository", "fabkeep init"]);
    fs::rename(place.path("elsewhere"), place.path("repository")).unwrap();
    fs::remove_file(place.path("repository/fabkeep.json")).unwrap();
    names(&doctor(&place, &[]), "repository", "failed", &["fabkeep.json", "from a copy"]);
}

#[test]
fn keys_that_are_missing_of_another_repository_or_open_to_others_are_named() {
    let place = Place::new();
    let missing = place.run(&["doctor", "--repo", "repository", "--root", "network"]);
    names(&missing, "keys", "failed", &["writer key", "--writer"]);
    assert!(!checks(&missing, "keys", "ok", &["identity", "not on this machine"]).is_empty(), "{}", missing.text);
    let restore = place.run(&["doctor", "--repo", "repository", "--root", "network", "--for", "restore"]);
    names(&restore, "keys", "failed", &["identity", "--identity"]);
    let other = ["init", "--repo", "other", "--identity", "keys/other", "--writer", "keys/other.writer"];
    assert_eq!(place.run(&other).code, 0);
    let of_other = place.run(&[
        "doctor",
        "--repo",
        "repository",
        "--root",
        "network",
        "--writer",
        "keys/other.writer",
        "--identity",
        "keys/other",
    ]);
    names(&of_other, "keys", "failed", &["other.writer", "it belongs to repository"]);
    names(&of_other, "keys", "failed", &["identity keys/other", "--identity"]);
    fs::set_permissions(place.path("keys/writer"), Permissions::from_mode(0o644)).unwrap();
    let open = doctor(&place, &[]);
    names(&open, "keys", "warning", &["keys/writer", "mode 644", "chmod 600"]);
    assert_eq!(open.code, 3, "{}", open.text);
}

fn give(path: &Path) {
    let _ = chown(path, Some(NOBODY), Some(NOBODY));
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

/// Runs the preflight as a user whose rights count.
fn as_nobody(place: &Place) -> Ended {
    let mut command = place.command(&WITH_KEYS);
    command.args(["--root", "network", "--output", "json"]);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    ended(command.output().unwrap())
}

#[test]
fn a_repository_that_cannot_be_written_to_and_a_directory_that_cannot_be_read_are_named() {
    let place = Place::new();
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o755)).unwrap();
    if rustix::process::geteuid().is_root() {
        give(place.folder.path());
    }
    let good = as_nobody(&place);
    assert_eq!(good.code, 0, "{}", good.text);
    fs::set_permissions(place.path("repository"), Permissions::from_mode(0o555)).unwrap();
    names(&as_nobody(&place), "repository", "failed", &["writing", "permissions"]);
    fs::set_permissions(place.path("repository"), Permissions::from_mode(0o755)).unwrap();
    let production = place.network().join("Org1/peer0/production/ledgersData/pvtdataStore");
    fs::set_permissions(&production, Permissions::from_mode(0o000)).unwrap();
    let closed = as_nobody(&place);
    fs::set_permissions(&production, Permissions::from_mode(0o755)).unwrap();
    names(&closed, "nodes", "failed", &["Org1/peer0", "B6", "readable"]);
}

#[test]
fn too_little_room_for_temporary_copies_and_a_folder_for_them_that_is_not_there_are_named() {
    let place = Place::new();
    names(&doctor(&place, &["--work-dir", "nowhere"]), "room", "failed", &["nowhere", "--work-dir"]);
    // A database that is larger than any disk.
    let database = place.network().join("Org1/peer0/production/ledgersData/pvtdataStore/000999.ldb");
    File::create(&database).unwrap().set_len(8 << 40).unwrap();
    let said = doctor(&place, &[]);
    names(&said, "room", "warning", &["a restore of all of", "B9", "8.0 TiB"]);
    names(&said, "room", "warning", &["the first backup stores at most"]);
}

#[test]
fn a_window_and_a_restore_that_did_not_end_are_named() {
    let place = Place::new();
    let discovered = place.run(&["discover", "--root", "network"]);
    assert!(matches!(discovered.code, 0 | 3), "{}", discovered.text);
    let with = ["--inventory", "fabkeep.toml"];
    assert_eq!(doctor(&place, &with).code, 0, "{}", doctor(&place, &with).text);
    fs::write(place.path("fabkeep.toml.window"), "{}").unwrap();
    names(&doctor(&place, &with), "leftovers", "warning", &["fabkeep.toml.window", "W2"]);
    fs::remove_file(place.path("fabkeep.toml.window")).unwrap();
    fs::create_dir(place.network().join("Org1/peer0/production.fabkeep-restore-20261123T141500000Z-abcdef")).unwrap();
    fs::create_dir(place.network().join("Org1/peer0/production.before-20261123T141500000Z-abcdef")).unwrap();
    let said = doctor(&place, &with);
    names(&said, "leftovers", "warning", &["production.fabkeep-restore-", "fabkeep restore", "continues"]);
    assert!(!checks(&said, "leftovers", "note", &["production.before-"]).is_empty(), "{}", said.text);
}

#[test]
fn a_store_whose_clock_is_ahead_is_named() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    let point = fs::read_dir(place.path("repository/points")).unwrap().next().unwrap().unwrap().path();
    File::options()
        .write(true)
        .open(point)
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_secs(900))
        .unwrap();
    names(&doctor(&place, &[]), "clocks", "warning", &["the store's newest object", "ahead"]);
}

#[test]
fn a_node_without_its_key_its_channel_or_its_directory_is_named_before_a_backup_is_refused() {
    let place = Place::new();
    assert!(matches!(place.run(&["discover", "--root", "network"]).code, 0 | 3));
    let with = ["--inventory", "fabkeep.toml"];
    fs::remove_dir_all(place.network().join("Org1/peer0/msp/keystore")).unwrap();
    fs::remove_dir_all(place.network().join("Org1/peer1/production/ledgersData/chains/chains")).unwrap();
    fs::rename(place.network().join("Org2/peer0/production"), place.path("moved")).unwrap();
    let said = doctor(&place, &with);
    names(&said, "nodes", "failed", &["Org1/peer0", "I5"]);
    names(&said, "nodes", "failed", &["Org1/peer1"]);
    names(&said, "nodes", "failed", &["Org2/peer0", "K3", "does not exist"]);
    assert!(!checks(&said, "nodes", "ok", &["Org2/peer1"]).is_empty(), "{}", said.text);
}

#[test]
fn a_missing_inventory_is_named_and_the_repository_is_checked_all_the_same() {
    let place = Place::new();
    let said = doctor(&place, &["--inventory", "none.toml"]);
    names(&said, "network", "failed", &["none.toml", "fabkeep discover"]);
    assert!(!checks(&said, "repository", "ok", &["can be written to"]).is_empty(), "{}", said.text);
}

#[test]
fn a_bundle_of_a_host_holds_no_secret() {
    let place = Place::new();
    assert!(matches!(place.run(&["discover", "--root", "network"]).code, 0 | 3));
    assert_eq!(place.backup(&[]).code, 0);
    let planted = ["st0p-passw0rd", "ca-adm1n-pw", "db-pa55-w0rd", "t0ken-0f-the-log"];
    let [stop, admin, db, token] = planted;
    // In the inventory, in a CA's configuration, and in a log that repeats them.
    let inventory = fs::read_to_string(place.path("fabkeep.toml")).unwrap();
    let log = place.text("peer0.log");
    let with =
        format!("name = \"peer0\"\nlog = {log:?}\ncommands = {{ stop = \"ssh node stop --password {stop}\" }}\n");
    let inventory = inventory.replacen("name = \"peer0\"\n", &with, 1);
    assert!(inventory.contains(stop));
    fs::write(place.path("fabkeep.toml"), inventory).unwrap();
    let config = place.network().join("Org1/ca/fabric-ca-server-config.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\nplanted:\n  pass: {admin}\n  datasource: fabric:{db}@tcp(mysql:3306)/ca\n"))
        .unwrap();
    let key = fs::read_dir(place.network().join("Org1/peer0/msp/keystore")).unwrap().next().unwrap().unwrap().path();
    let key = fs::read_to_string(key).unwrap();
    let now = SystemTime::now();
    fs::write(&log, format!("harmless line\n{stop} {admin} {db}\nx-api-key={token}\n{key}")).unwrap();
    File::options().write(true).open(&log).unwrap().set_modified(now).unwrap();
    let made = place.run(&[
        "debug-bundle",
        "fault.tar.gz",
        "--inventory",
        "fabkeep.toml",
        "--repo",
        "repository",
        "--writer",
        "keys/writer",
        "--identity",
        "keys/identity",
    ]);
    assert_eq!(made.code, 0, "{}", made.text);
    let mut whole = String::new();
    let packed = File::open(place.path("fault.tar.gz")).unwrap();
    assert_eq!(packed.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut whole).unwrap();
    let line = key.lines().nth(1).unwrap();
    for secret in planted.into_iter().chain([line, "AGE-SECRET-KEY-1", "PRIVATE KEY"]) {
        assert!(!whole.contains(secret), "{secret}");
    }
    for kept in
        ["harmless line", "ssh node stop", "Org1/peer0", "mychannel", "doctor.txt", "fabkeep-debug/inventory.toml"]
    {
        assert!(whole.contains(kept), "{kept}");
    }
}

/// The commands that `--help` lists.
fn commands(place: &Place) -> Vec<String> {
    let help = place.command(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(names.len() > 20 && names.contains(&"doctor".to_owned()), "{names:?}");
    names
}

#[test]
fn completions_of_every_shell_know_every_command_and_its_options() {
    let place = Place::empty();
    for shell in ["bash", "zsh", "fish"] {
        let printed = place.command(&["completions", shell]).output().unwrap();
        assert!(printed.status.success());
        let text = String::from_utf8(printed.stdout).unwrap();
        for command in commands(&place) {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        for option in ["helper-image", "ca-keep", "map-namespace"] {
            assert!(text.contains(option), "{shell}: {option}");
        }
        // An old name of an option is accepted, and not offered.
        assert!(!text.contains("keep-asleep"), "{shell}");
    }
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let place = Place::empty();
    let written = place.run(&["man", "pages"]);
    assert_eq!(written.code, 0, "{}", written.text);
    let read = |name: &str| fs::read_to_string(place.path(&format!("pages/{name}.1"))).unwrap();
    let first = read("fabkeep");
    let commands = commands(&place);
    for command in commands.iter().filter(|command| *command != "help") {
        assert!(first.contains(&format!("fabkeep\\-{}", command.replace('-', "\\-"))), "{command}");
        let page = read(&format!("fabkeep-{command}"));
        assert!(page.contains(".SH NAME") && page.contains(".SH OPTIONS"), "{command}");
        assert!(!page.contains("keep\\-asleep"), "{command}");
    }
    assert!(read("fabkeep-backup").contains("fabkeep backup \\-\\-kubernetes"));
    let pages = fs::read_dir(place.path("pages")).unwrap().count();
    assert_eq!(pages, written.json["pages"].as_array().unwrap().len());
    assert_eq!(place.run(&["man", "pages"]).code, 0, "again");
}
