//! `kill -9` at any moment of a backup or a restore: the repository verifies, the next run finishes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::process::Stdio;
use std::time::{Duration, Instant};

use fabkeep_fixtures::Growth;
use place::{Place, assert_same_tree};

const KILLS: u32 = 50;

/// Starts a command and kills it after `part` of the time that a whole run takes; whether it was still running.
fn kill_after(place: &Place, arguments: &[&str], whole: Duration, part: f64) -> bool {
    let mut child = place.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(whole.mul_f64(part));
    let alive = child.try_wait().unwrap().is_none();
    let _ = child.kill();
    child.wait().unwrap();
    alive
}

/// Parts spread over a whole run, in an order that mixes early and late ones.
fn parts() -> impl Iterator<Item = f64> {
    (0..KILLS).map(|i| f64::from(i * 37 % KILLS) / f64::from(KILLS))
}

#[test]
fn a_killed_backup_leaves_a_repository_that_verifies_and_the_next_one_finishes() {
    let place = Place::new();
    let mut growth = Growth::open(&place.network(), "mychannel").unwrap();
    growth.grow(300, 8).unwrap();
    let arguments = ["backup", "--repo", "repository", "--root", "network", "--writer", "keys/writer", "--reread"];
    let begun = Instant::now();
    assert_eq!(place.backup(&["--reread"]).code, 0);
    let whole = begun.elapsed();
    let mut killed = 0;
    for (round, part) in parts().enumerate() {
        if round % 5 == 0 {
            // Something new to write.
            growth.grow(20, 8).unwrap();
        }
        killed += u32::from(kill_after(&place, &arguments, whole, part));
        let verified =
            place.run(&["verify", "--repo", "repository", "--identity", "keys/identity", "--level", "quick", "--all"]);
        // Between the manifest and the commit record, the rest of the stopped backup is a warning until the next one.
        let findings = verified.json["repository"].as_array().unwrap();
        assert_eq!(verified.code, if findings.is_empty() { 0 } else { 3 }, "{}", verified.text);
        let stopped = |finding: &serde_json::Value| finding["what"].to_string().contains("stopped just before its end");
        assert!(findings.iter().all(stopped), "{}", verified.text);
    }
    assert!(killed >= KILLS / 4, "only {killed} of {KILLS} runs were still running");
    let last = place.backup(&[]);
    assert_eq!(last.code, 0, "{}", last.text);
    let all = place.run(&["verify", "--repo", "repository", "--identity", "keys/identity", "--all"]);
    assert_eq!(all.code, 0, "{}", all.text);
}

#[test]
fn a_killed_restore_is_finished_by_the_next_one() {
    let place = Place::new();
    Growth::open(&place.network(), "mychannel").unwrap().grow(100, 8).unwrap();
    assert_eq!(place.backup(&["--include-derived"]).code, 0);
    let fresh = |to: &str| {
        vec![
            "restore".to_owned(),
            "--repo".into(),
            "repository".into(),
            "--identity".into(),
            "keys/identity".into(),
            "--to".into(),
            to.to_owned(),
        ]
    };
    let begun = Instant::now();
    assert_eq!(place.restore(&["--to", "whole"]).code, 0);
    let whole = begun.elapsed();
    let mut killed = 0;
    for part in parts() {
        let to = format!("out{}", (part * 100.0) as u32);
        let arguments = fresh(&to);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        killed += u32::from(kill_after(&place, &arguments, whole, part));
        let finished = place.restore(&["--to", &to, "--replace"]);
        assert_eq!(finished.code, 0, "killed at {part}: {}", finished.text);
        // A run that was not killed leaves a whole restore, which the second one sets aside.
        for entry in std::fs::read_dir(place.path(&to)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(!name.contains(".fabkeep-restore"), "{name} is left over");
        }
        for node in ["Org1/peer0/production", "OrdererOrg/orderer1/production", "Org2/ca", "Org1/peer1/msp"] {
            assert_same_tree(&place.path("whole").join(node), &place.path(&to).join(node));
        }
        std::fs::remove_dir_all(place.path(&to)).unwrap();
    }
    assert!(killed >= KILLS / 4, "only {killed} of {KILLS} runs were still running");
}

#[test]
fn a_restore_in_place_killed_while_switching_loses_nothing() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    assert_eq!(place.run(&["discover", "--root", "network"]).code, 0);
    let arguments =
        ["restore", "--repo", "repository", "--identity", "keys/identity", "--inventory", "fabkeep.toml", "--replace"];
    let whole = {
        let begun = Instant::now();
        assert_eq!(place.restore(&["--inventory", "fabkeep.toml", "--replace"]).code, 0);
        begun.elapsed()
    };
    // The last part of a run, where directories are swapped.
    for i in 0..20u32 {
        let mark = format!("mark-{i}");
        let marked = place.network().join("Org1/peer0/production").join(&mark);
        std::fs::write(&marked, &mark).unwrap();
        kill_after(&place, &arguments, whole, 0.70 + f64::from(i) * 0.015);
        let finished = place.restore(&["--inventory", "fabkeep.toml", "--replace"]);
        assert_eq!(finished.code, 0, "{}", finished.text);
        // What was in place before is in one of the directories set aside.
        let found = std::fs::read_dir(place.network().join("Org1/peer0"))
            .unwrap()
            .map(|entry| entry.unwrap().path().join(&mark))
            .any(|path| path.exists());
        assert!(found, "{mark} is lost");
        assert!(
            place.network().join("Org1/peer0/production/ledgersData/chains/chains/mychannel/blockfile_000000").exists()
        );
    }
}
