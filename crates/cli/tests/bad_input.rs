//! Bad input of every kind: a clear error, the documented exit code, nothing lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use place::{Ended, Place, ended};

/// An error that says what happened and what to do next, with this code.
fn assert_clear(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, code, "{}", ended.text);
    assert!(ended.text.contains(words), "{words:?} is not in: {}", ended.text);
    let helped = ended.json["help"].is_string() || !ended.json["findings"].as_array().is_none_or(Vec::is_empty);
    assert!(helped, "{}", ended.text);
    assert!(!ended.text.contains("panicked"), "{}", ended.text);
}

#[test]
fn places_that_are_none() {
    let place = Place::new();
    fs::write(place.path("file"), "x").unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    assert_clear(&place.run(&["discover", "--root", "absent"]), 1, "No such file");
    assert_clear(&place.run(&["discover", "--root", "file"]), 1, "ot a directory");
    assert_clear(&place.run(&["discover", "--root", "empty"]), 2, "no Fabric node");
    assert_clear(&place.run(&["backup", "--repo", "repository"]), 2, "fabkeep.toml");
    assert_clear(&place.run(&["backup", "--repo", "repository", "--inventory", "network"]), 2, "it is a directory");
    assert_clear(&place.run(&["list", "--repo", "absent"]), 2, "no repository");
    assert_clear(&place.run(&["list", "--repo", "empty"]), 2, "no repository");
    assert_clear(&place.run(&["list", "--repo", "ftp://host/x"]), 2, "ftp");
    assert_clear(&place.run(&["show", "--repo", "repository"]), 2, "no recovery point");
    assert_clear(&place.run(&["verify", "--chain", "empty"]), 2, "no block file");
    assert_clear(&place.run(&["init", "--repo", "network"]), 2, "not empty");
    assert_clear(&place.init(), 2, "already");
    fs::write(place.path("fabkeep.toml"), "network = \"n\"\n[[organization]]\nname = 3\n").unwrap();
    assert_clear(&place.run(&["backup", "--repo", "repository", "--writer", "keys/writer"]), 2, "line 3");
}

#[test]
fn options_that_cannot_be_used_are_a_document_for_programs() {
    let place = Place::new();
    let zero = ["restore", "--repo", "repository", "--to", "out", "--at-height", "mychannel=0"];
    for arguments in
        [&zero[..], &["forget", "--repo", "repository"], &["no-such-command"], &["backup", "--no-such-option"]]
    {
        for json in [&["--output", "json"][..], &["--output=json"]] {
            let output = place.command(&[arguments, json].concat()).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(document["error"].as_str().is_some_and(|error| !error.is_empty()), "{document}");
            assert!(document["exit_code"] == 2 && document["findings"] == serde_json::json!([]), "{document}");
            assert!(output.stderr.is_empty(), "{arguments:?}");
        }
        let output = place.command(arguments).output().unwrap();
        assert!(output.status.code() == Some(2) && output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let help = place.command(&["backup", "--help", "--output", "json"]).output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage"));
}

#[test]
fn keys_that_do_not_fit() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    let stranger = Place::new();
    let foreign = |name: &str| stranger.text(name);
    assert_clear(
        &place.run(&["verify", "--repo", "repository", "--identity", &foreign("keys/identity")]),
        2,
        "identity",
    );
    assert_clear(&place.run(&["show", "--repo", "repository", "--identity", "keys/writer"]), 2, "identity");
    let backup = ["backup", "--repo", "repository", "--root", "network", "--writer", &foreign("keys/writer")];
    assert_clear(&place.run(&backup), 2, "belongs to repository");
    assert_clear(&place.run(&["backup", "--repo", "repository", "--root", "network"]), 2, "writer key");
    assert_clear(&place.run(&["restore", "--repo", "repository", "--to", "out"]), 2, "identity");
    // The secret key stays out of every message.
    let secret = fs::read_to_string(place.path("keys/identity")).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET")).unwrap().to_owned();
    fs::write(place.path("keys/cut"), &secret[..40]).unwrap();
    let cut = place.run(&["verify", "--repo", "repository", "--identity", "keys/cut"]);
    assert_clear(&cut, 2, "not an age identity");
    assert!(!cut.text.contains(&secret[20..40]), "{}", cut.text);
}

#[test]
fn options_of_clusters_are_refused_for_a_folder() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    let unknown =
        ["restore", "--repo", "repository", "--identity", "keys/identity", "--to", "out", "--override", "b11"];
    assert_clear(&place.run(&unknown), 2, "there is no such rule");
    for option in [&["--missing"][..], &["--no-start"], &["--workloads", "existing"], &["--map-namespace", "a=b"]] {
        let restore = ["restore", "--repo", "repository", "--identity", "keys/identity", "--to", "out"];
        let ended = place.run(&[&restore[..], option].concat());
        assert_clear(&ended, 2, "applies only to a restore into a cluster");
        assert!(!place.path("out").exists());
    }
}

#[test]
fn the_log_names_requests_and_steps_and_no_secret() {
    let place = Place::new();
    let logged = place.backup(&["-vv", "--log-format", "json"]);
    assert_eq!(logged.code, 0, "{}", logged.text);
    for wanted in ["\"message\":\"put\"", "\"step\":\"commit\"", "\"target\":\"fabkeep_store"] {
        assert!(logged.text.contains(wanted), "{wanted} is not in: {}", logged.text);
    }
    let writer: serde_json::Value = serde_json::from_slice(&fs::read(place.path("keys/writer")).unwrap()).unwrap();
    for (name, secret) in
        writer.as_object().unwrap().iter().filter(|(name, _)| !["repository", "root"].contains(&name.as_str()))
    {
        let secret = secret.as_str().unwrap_or_default();
        assert!(secret.len() < 16 || !logged.text.contains(secret), "{name} is in the log");
    }
    assert!(!place.backup(&[]).text.contains("\"target\""), "nothing is logged unasked");
}

#[test]
fn a_repository_of_another_version() {
    let place = Place::new();
    let config = place.path("repository/fabkeep.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("\"fabkeep\":1", "\"fabkeep\":7", 1)).unwrap();
    assert_clear(&place.run(&["list", "--repo", "repository"]), 2, "format version 7");
}

#[test]
fn lengths_that_lie() {
    let place = Place::new();
    let chain = place.network().join("Org1/peer0/production/ledgersData/chains/chains/mychannel");
    let file = chain.join("blockfile_000000");
    let whole = fs::read(&file).unwrap();
    // A record that claims 10 GiB, in the middle of the chain and at its end.
    let mut claim = Vec::new();
    fabkeep_ledger::varint::write(10 << 30, &mut claim);
    for tail in [vec![0; 64], vec![7; 1 << 20]] {
        let mut lying = whole.clone();
        lying.extend(&claim);
        lying.extend(tail);
        fs::write(&file, &lying).unwrap();
        let ended = place.run(&["verify", "--chain", &chain.display().to_string()]);
        assert_clear(&ended, 5, "block 27");
        assert!(ended.text.contains("claims 10737418240 bytes"), "{}", ended.text);
        assert_clear(&place.backup(&["--reread"]), 4, "Org1/peer0");
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(place.backup(&["--reread"]).code, 0);
}

#[test]
fn foreign_and_odd_files_are_kept_or_told() {
    let place = Place::new();
    let data = place.network().join("Org1/peer0/production");
    fs::write(data.join("left-by-somebody.txt"), "hello").unwrap();
    fs::create_dir(data.join("an empty folder")).unwrap();
    std::os::unix::fs::symlink("left-by-somebody.txt", data.join("inside")).unwrap();
    fs::write(data.join("ledgersData/chains/chains/mychannel/notes"), "x").unwrap();
    let sparse = fs::File::create(data.join("sparse")).unwrap();
    sparse.set_len(10 << 30).unwrap();
    sparse.write_all_at(b"end", (10 << 30) - 3).unwrap();
    assert_eq!(place.backup(&[]).code, 0);
    assert_eq!(place.restore(&["--to", "out", "--node", "Org1/peer0"]).code, 0);
    let back = place.path("out/Org1/peer0/production");
    let back = if back.exists() { back } else { find(&place.path("out"), "production") };
    assert_eq!(fs::read(back.join("left-by-somebody.txt")).unwrap(), b"hello");
    assert_eq!(fs::read_link(back.join("inside")).unwrap(), Path::new("left-by-somebody.txt"));
    assert!(back.join("an empty folder").is_dir());
    let restored = back.join("sparse").metadata().unwrap();
    assert_eq!(restored.len(), 10 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&restored) < 100);

    // A link that leaves the node's directory, and a socket.
    std::os::unix::fs::symlink("../../../../etc/passwd", data.join("outside")).unwrap();
    assert_clear(&place.backup(&[]), 4, "B7");
    fs::remove_file(data.join("outside")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(data.join("socket")).unwrap();
    let reported = place.backup(&[]);
    assert_eq!(reported.code, 3, "{}", reported.text);
    assert!(reported.text.contains("socket"));
}

fn find(folder: &Path, name: &str) -> std::path::PathBuf {
    let mut stack = vec![folder.to_path_buf()];
    while let Some(path) = stack.pop() {
        if path.file_name().is_some_and(|found| found == name) {
            return path;
        }
        if path.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    panic!("{name} is not below {}", folder.display());
}

#[test]
fn data_in_the_way_is_never_overwritten_and_set_aside_on_request() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    assert_eq!(place.run(&["discover", "--root", "network"]).code, 0);
    let precious = place.network().join("Org1/peer0/production/precious");
    fs::write(&precious, "mine").unwrap();
    let refused = place.restore(&["--inventory", "fabkeep.toml", "--node", "Org1/peer0"]);
    assert_clear(&refused, 4, "is not empty");
    assert_eq!(fs::read(&precious).unwrap(), b"mine");
    let replaced = place.restore(&["--inventory", "fabkeep.toml", "--node", "Org1/peer0", "--replace"]);
    assert_eq!(replaced.code, 0, "{}", replaced.text);
    assert!(!precious.exists());
    let aside = replaced.json["directories"].as_array().unwrap().iter().find_map(|directory| {
        let aside = directory["set_aside"].as_str()?;
        aside.contains("production").then(|| Path::new(aside).join("precious"))
    });
    assert_eq!(fs::read(aside.unwrap()).unwrap(), b"mine");
    // What was set aside is not taken for another node.
    let backed_up = place.backup(&[]);
    assert_eq!(backed_up.code, 0, "{}", backed_up.text);
    assert_eq!(backed_up.json["nodes"], 13);
    // Again: the data set aside before stays too.
    let again = place.restore(&["--inventory", "fabkeep.toml", "--node", "Org1/peer0", "--replace"]);
    assert_eq!(again.code, 0, "{}", again.text);
    assert_clear(
        &place.restore(&["--to", "out", "--node", "Org9/peer9"]),
        2,
        "--node Org9/peer9: the recovery point has no node Org9/peer9",
    );
}

#[test]
fn a_running_node_is_not_replaced() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    assert_eq!(place.run(&["discover", "--root", "network"]).code, 0);
    let lock = fs::File::open(place.network().join("Org1/peer0/production/ledgersData/fileLock/LOCK")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let refused = place.restore(&["--inventory", "fabkeep.toml", "--node", "Org1/peer0", "--replace"]);
    assert_clear(&refused, 4, "the node runs");
}

#[test]
fn two_backups_at_the_same_time_both_end_well() {
    let place = Place::new();
    let arguments =
        ["backup", "--repo", "repository", "--root", "network", "--writer", "keys/writer", "--output", "json"];
    let runs: Vec<_> =
        (0..3).map(|_| place.command(&arguments).stdout(std::process::Stdio::piped()).spawn().unwrap()).collect();
    for run in runs {
        let run = ended(run.wait_with_output().unwrap());
        assert_eq!(run.code, 0, "{}", run.text);
    }
    let listed = place.run(&["list", "--repo", "repository"]);
    assert_eq!(listed.json["points"].as_array().unwrap().len(), 3);
    let all = place.run(&["verify", "--repo", "repository", "--identity", "keys/identity", "--all"]);
    assert_eq!(all.code, 0, "{}", all.text);
}

/// Mounts a small file system; `None` (and says so) where that is not allowed.
fn small_disk(at: &Path, options: &str) -> Option<Unmount> {
    fs::create_dir_all(at).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
    if mounted.is_ok_and(|status| status.success()) {
        return Some(Unmount(at.to_path_buf()));
    }
    eprintln!("NOT TESTED: mounting a file system is not allowed here (run as root)");
    None
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_the_next_run_goes_on() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    let Some(_disk) = small_disk(&place.path("disk"), "size=96k") else { return };
    // The repository's disk.
    let init = ["init", "--repo", "disk/repository", "--identity", "keys/i2", "--writer", "keys/w2"];
    assert_eq!(place.run(&init).code, 0);
    let backup = ["backup", "--repo", "disk/repository", "--root", "network", "--writer", "keys/w2"];
    assert_clear(&place.run(&backup), 1, "No space left");
    let bigger = Command::new("mount").args(["-o", "remount,size=64m"]).arg(place.path("disk")).status().unwrap();
    assert!(bigger.success());
    assert_eq!(place.run(&backup).code, 0);
    let verified = place.run(&["verify", "--repo", "disk/repository", "--identity", "keys/i2"]);
    assert_eq!(verified.code, 0, "{}", verified.text);
    // The restore's disk: refused before anything is written.
    let Some(_target) = small_disk(&place.path("target"), "size=512k") else { return };
    assert_clear(&place.restore(&["--to", "target/network"]), 4, "are free");
    assert_eq!(fs::read_dir(place.path("target")).unwrap().count(), 0);
}

#[test]
fn a_place_that_cannot_be_written_to_is_told() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    if let Some(_disk) = small_disk(&place.path("disk"), "size=1m,ro") {
        assert_clear(&place.restore(&["--to", "disk/network", "--node", "Org1/ca"]), 4, "cannot be written to");
        assert_clear(&place.run(&["init", "--repo", "disk/repository"]), 2, "ead-only");
    }
    // Somebody who may not read a key file.
    if !rustix::process::geteuid().is_root() {
        let key = place.network().join("Org1/peer0/msp/keystore/priv_sk");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
        assert_clear(&place.backup(&["--reread"]), 4, "ermission denied");
    }
}

#[test]
fn a_mounted_volume_is_restored_inside() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    assert_eq!(place.run(&["discover", "--root", "network"]).code, 0);
    let data = place.network().join("Org1/peer0/production");
    let kept = place.path("kept");
    fs::rename(&data, &kept).unwrap();
    let Some(_disk) = small_disk(&data, "size=64m") else { return };
    fs::write(data.join("old"), "old").unwrap();
    let restored = place.restore(&["--inventory", "fabkeep.toml", "--node", "Org1/peer0", "--replace"]);
    assert_eq!(restored.code, 0, "{}", restored.text);
    assert!(data.join("ledgersData/chains/chains/mychannel/blockfile_000000").exists());
    let aside: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".before-"))
        .collect();
    assert_eq!(fs::read(aside[0].join("old")).unwrap(), b"old");
    assert_eq!(
        fs::read(data.join(
            "lifecycle/chaincodes/multi_1.0.b0456965874c6a757e5d9cc904ca029a37506778156dda4d23f94b2a151b81f4.tar.gz"
        ))
        .unwrap(),
        fs::read(kept.join(
            "lifecycle/chaincodes/multi_1.0.b0456965874c6a757e5d9cc904ca029a37506778156dda4d23f94b2a151b81f4.tar.gz"
        ))
        .unwrap()
    );
}

#[test]
fn what_others_put_into_a_repository_or_take_from_it_is_told_and_blocks_nothing() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    fs::write(place.path("network/Org1/peer0/msp/more"), "x").unwrap();
    let second = place.backup(&[]);
    let second = second.json["point"].as_str().unwrap().to_owned();
    for name in
        ["writers/zzz", "points/zzz", "points/20990101T000000000Z-ffffff", "index/zzz", "manifests/zzz", "objects/zz"]
    {
        fs::write(place.path("repository").join(name), "junk").unwrap();
        let listed = place.run(&["list", "--repo", "repository"]);
        assert_eq!((listed.code, listed.json["points"].as_array().unwrap().len()), (3, 2), "{name}: {}", listed.text);
        assert!(listed.text.contains("R1") && listed.text.contains(name), "{}", listed.text);
        let verified = place.verify();
        assert_eq!(verified.code, 3, "{name}: {}", verified.text);
        assert_eq!(verified.json["proofs"][0]["point"], second.as_str(), "{}", verified.text);
        fs::remove_file(place.path("repository").join(name)).unwrap();
    }
    assert_eq!(place.verify().code, 0);
    assert_eq!(place.restore(&["--to", "out"]).code, 0);
    // The newest commit record is taken away, with everything that names it.
    for kind in ["points", "manifests", "index"] {
        fs::remove_file(place.path("repository").join(kind).join(&second)).unwrap();
    }
    assert_eq!(place.verify().code, 0, "nothing here knows of it");
    let expected = |point: &str| {
        place.run(&["verify", "--repo", "repository", "--identity", "keys/identity", "--expect-at-least", point])
    };
    assert_eq!(expected(&second).code, 5);
    let by_writer = ["verify", "--repo", "repository", "--identity", "keys/identity", "--writer", "keys/writer"];
    let remembered = place.run(&by_writer);
    assert_eq!(remembered.code, 5, "{}", remembered.text);
    assert!(remembered.text.contains("R2") && remembered.text.contains(&second), "{}", remembered.text);
    let third = place.backup(&[]);
    assert_eq!(third.code, 3, "{}", third.text);
    assert_eq!(place.verify().code, 5, "the next one knows of it");
    assert_eq!(place.restore(&["--to", "again"]).code, 3, "a point is missing");
}

#[test]
fn a_recipient_reads_with_the_root_key_that_init_printed() {
    let place = Place::empty();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &place.network()).unwrap();
    let other = place.run(&["init", "--repo", "other", "--identity", "keys/second", "--writer", "keys/w2"]);
    let recipient = other.json["recipients"][0].as_str().unwrap().to_owned();
    let init = [
        "init",
        "--repo",
        "repository",
        "--identity",
        "keys/identity",
        "--writer",
        "keys/writer",
        "--recipient",
        &recipient,
    ];
    let made = place.run(&init);
    let root = made.json["root"].as_str().unwrap().to_owned();
    assert_eq!(place.backup(&[]).code, 0);
    let verify = ["verify", "--repo", "repository", "--identity", "keys/second", "--level", "quick"];
    // What `init` noted on this machine.
    assert_eq!(place.run(&verify).code, 0);
    fs::remove_dir_all(place.path("config")).unwrap();
    assert_clear(&place.run(&verify), 2, &root);
    assert_eq!(place.run(&[&verify[..], &["--root", &root]].concat()).code, 0);
    let environment = place.command(&verify).env("FABKEEP_ROOT", &root).output().unwrap();
    assert!(environment.status.success());
    let wrong = other.json["root"].as_str().unwrap();
    assert_clear(&place.run(&[&verify[..], &["--root", wrong]].concat()), 5, "pinned");
    let restore = ["restore", "--repo", "repository", "--identity", "keys/second", "--to", "out", "--root", &root];
    assert_eq!(place.run(&restore).code, 0);
}

#[test]
fn an_older_point_is_not_taken_for_the_latest() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    let newest = || {
        let mut names: Vec<_> =
            fs::read_dir(place.path("repository/points")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.pop().unwrap()
    };
    let first = newest();
    fs::write(place.path("network/Org1/users/note"), "x").unwrap();
    assert!(matches!(place.backup(&[]).code, 0 | 3));
    let commit = newest();
    assert_ne!(first, commit);
    let bytes = fs::read(&commit).unwrap();
    let restore = |more: &[&str]| {
        let mut all = vec!["restore", "--repo", "repository", "--identity", "keys/identity", "--to"];
        all.extend(more);
        place.run(&all)
    };
    fs::write(&commit, &bytes[..bytes.len() / 2]).unwrap();
    let damaged = restore(&["out"]);
    assert_clear(&damaged, 5, "the latest recovery point was committed and cannot be read");
    assert!(!place.path("out").exists());
    let named = first.file_name().unwrap().to_str().unwrap();
    assert!(matches!(restore(&["out", named]).code, 0 | 3));
    fs::remove_file(&commit).unwrap();
    let gone = restore(&["out2"]);
    assert!(matches!(gone.code, 3 | 5), "{}", gone.text);
}

#[test]
fn what_discovery_could_not_read_is_in_the_recovery_point() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    fs::write(place.network().join("Org1/peer0/config/core.yaml"), "peer: [").unwrap();
    let reported = place.backup(&[]);
    assert_ne!(reported.code, 0, "{}", reported.text);
    assert!(reported.text.contains("\"K7\"") && reported.text.contains("core.yaml"), "{}", reported.text);
}

#[test]
fn keys_that_nobody_names_are_made_and_found_in_the_key_folder() {
    let place = Place::new();
    let made = place.run(&["init", "--repo", "another"]);
    assert_eq!(made.code, 0, "{}", made.text);
    let backed_up = place.run(&["backup", "--repo", "another", "--root", "network"]);
    assert_eq!(backed_up.code, 0, "{}", backed_up.text);
    let verified = place.run(&["verify", "--repo", "another"]);
    assert_eq!(verified.code, 0, "{}", verified.text);
    let restored = place.run(&["restore", "--repo", "another", "--to", "restored", "--node", "Org1/peer0"]);
    assert_eq!(restored.code, 0, "{}", restored.text);
}
