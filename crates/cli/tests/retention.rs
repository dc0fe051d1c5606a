//! Retention at the command line: what is shown is what is done, and the codes say what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use place::Place;

const KEYS: [&str; 4] = ["--repo", "repository", "--identity", "keys/identity"];

fn run(place: &Place, command: &[&str]) -> place::Ended {
    place.run(&[command, &KEYS].concat())
}

fn points(place: &Place) -> Vec<String> {
    let listed = place.run(&["list", "--repo", "repository"]);
    assert_eq!(listed.code, 0, "{}", listed.text);
    let points = listed.json["points"].as_array().unwrap().iter();
    points.map(|point| point["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn points_are_marked_forgotten_and_freed() {
    let place = Place::new();
    for round in 0..4u8 {
        std::fs::write(place.network().join("Org1/peer0/note"), vec![round; 3000]).unwrap();
        // The file is no node's, which is a warning.
        let backed_up = place.backup(&[]);
        assert!([0, 3].contains(&backed_up.code), "{}", backed_up.text);
    }
    let all = points(&place);
    // A writer adds marks, and does not take them away.
    let writer = ["--repo", "repository", "--writer", "keys/writer"];
    let held = place.run(&[&["hold", &all[0]][..], &writer].concat());
    assert_eq!((held.code, held.json["hold"].as_bool()), (0, Some(true)), "{}", held.text);
    let released = place.run(&[&["release", &all[0]][..], &writer].concat());
    assert_eq!(released.code, 2, "{}", released.text);
    assert_eq!(run(&place, &["tag", &all[1], "--add", "audit"]).code, 0);
    assert_eq!(run(&place, &["tag", &all[1], "--add", "a b"]).code, 2);
    let listed = place.run(&["list", "--repo", "repository"]);
    assert_eq!(listed.json["marks"].as_array().unwrap().len(), 2, "{}", listed.text);

    // What is refused.
    assert_eq!(run(&place, &["forget"]).code, 2);
    assert_eq!(run(&place, &["forget", "--keep-last", "0"]).code, 2);
    assert_eq!(run(&place, &["forget", &all[0], "--keep-last", "1"]).code, 2);
    let on_hold = run(&place, &["forget", &all[0]]);
    assert_eq!(on_hold.code, 4, "{}", on_hold.text);
    assert!(on_hold.text.contains("on hold"));
    let without = place.run(&["forget", "--keep-last", "1", "--repo", "repository"]);
    assert_eq!(without.code, 2, "the identity is needed: {}", without.text);
    assert_eq!(run(&place, &["prune", "--grace", "5m"]).code, 2);
    assert_eq!(run(&place, &["prune", "--grace", "1mo"]).code, 2);

    // What is shown is what is done.
    let rules = ["forget", "--keep-last", "1", "--keep-tag", "audit"];
    let shown = run(&place, &[&rules[..], &["--dry-run"]].concat());
    assert_eq!(shown.code, 0, "{}", shown.text);
    let reasons = |at: usize| shown.json["points"][at]["reasons"][0]["reason"].as_str().unwrap().to_owned();
    assert_eq!([reasons(0), reasons(1), reasons(2), reasons(3)], ["hold", "tag", "no-rule", "last"]);
    assert_eq!(points(&place), all);
    let stats = run(&place, &["stats", "--keep-last", "1", "--keep-tag", "audit"]);
    assert_eq!(stats.json["forget"]["frees"], shown.json["frees"], "{}", stats.text);
    let done = run(&place, &rules);
    assert_eq!((done.code, &done.json["frees"]), (0, &shown.json["frees"]), "{}", done.text);
    let left = [all[0].clone(), all[1].clone(), all[3].clone()];
    assert_eq!(points(&place), left);

    // Nothing is old enough; without other runs nothing has to be.
    let waiting = run(&place, &["prune"]);
    assert_eq!((waiting.code, waiting.json["pruned"]["freed"]["objects"].as_u64()), (0, Some(0)), "{}", waiting.text);
    let unneeded = run(&place, &["stats"]).json["stats"]["unreferenced"].clone();
    let would = run(&place, &["prune", "--no-other-runs", "--dry-run"]);
    assert_eq!(would.json["pruned"]["freed"], unneeded, "{}", would.text);
    let freed = run(&place, &["prune", "--no-other-runs"]);
    assert_eq!((freed.code, &freed.json["pruned"]["freed"]), (0, &unneeded), "{}", freed.text);
    assert_eq!(run(&place, &["stats"]).json["stats"]["unreferenced"]["objects"].as_u64(), Some(0));
    assert_eq!(points(&place), left);
    let verified = run(&place, &["verify", "--all"]);
    assert_eq!(verified.code, 0, "{}", verified.text);
    let next = place.backup(&[]);
    assert_eq!(next.json["written"]["objects"].as_u64(), Some(3), "nothing is stored again: {}", next.text);

    // In one command, and as text.
    let text = place.command(&[&["forget", "--keep-last", "1", "--prune", "--no-other-runs"][..], &KEYS].concat());
    let ended = place::ended({ text }.output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.text);
    for words in ["on hold", "no rule keeps it", "the newest one", "were forgotten", "freed: "] {
        assert!(ended.text.contains(words), "{words:?} is not in: {}", ended.text);
    }
    assert_eq!(points(&place).len(), 2);
    assert_eq!(run(&place, &["verify", "--all"]).code, 0);
}

#[test]
fn packs_of_which_little_is_needed_are_packed_anew() {
    let place = Place::new();
    let files: Vec<_> =
        (1..=3).map(|n| place.network().join(format!("OrdererOrg/orderer{n}/config/orderer.yaml"))).collect();
    let plain: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for (number, (file, text)) in files.iter().zip(&plain).enumerate() {
        let comment = format!("# {number} a long comment that goes away again\n").repeat(20_000);
        std::fs::write(file, format!("{text}\n{comment}")).unwrap();
    }
    let backed_up = place.backup(&[]);
    assert!([0, 3].contains(&backed_up.code), "{}", backed_up.text);
    for (file, text) in files.iter().zip(&plain) {
        std::fs::write(file, text).unwrap();
    }
    // The backup after a change still names what it compared the files with.
    for _ in 0..2 {
        assert!([0, 3].contains(&place.backup(&[]).code));
    }
    assert_eq!(run(&place, &["forget", "--keep-last", "1"]).code, 0);
    assert_eq!(run(&place, &["prune", "--max-unused", "101"]).code, 2);
    let never = run(&place, &["prune", "--no-other-runs", "--max-unused", "100", "--dry-run"]);
    assert_eq!(never.json["pruned"]["repacked"]["objects"].as_u64(), Some(0), "{}", never.text);
    let shown = run(&place, &["prune", "--no-other-runs", "--dry-run"]);
    let repacked = &shown.json["pruned"]["repacked"];
    assert!(repacked["objects"].as_u64() > Some(0), "{}", shown.text);
    assert!(repacked["needed_bytes"].as_u64() < repacked["bytes"].as_u64(), "{}", shown.text);
    let text = place.command(&[&["prune", "--no-other-runs", "--dry-run"][..], &KEYS].concat());
    let text = place::ended({ text }.output().unwrap()).text;
    assert!(text.contains("would be packed anew: ") && text.contains(", of which recovery points need "), "{text}");
    let done = run(&place, &["prune", "--no-other-runs"]);
    assert_eq!((done.code, &done.json["pruned"]["repacked"]), (0, repacked), "{}", done.text);
    assert_eq!(done.json["pruned"]["freed"], shown.json["pruned"]["freed"], "{}", done.text);
    let again = run(&place, &["prune", "--no-other-runs"]);
    assert_eq!(again.json["pruned"]["repacked"]["objects"].as_u64(), Some(0), "{}", again.text);
    for verify in [&["verify", "--all", "--repo", "repository"][..], &[&["verify", "--all"][..], &KEYS].concat()] {
        let verified = place.run(verify);
        assert_eq!(verified.code, 0, "{}", verified.text);
        assert_eq!(verified.text.matches("put again").count(), 0, "{}", verified.text);
    }
    let next = place.backup(&[]);
    assert_eq!(next.json["written"]["objects"].as_u64(), Some(3), "nothing is stored again: {}", next.text);
}

#[test]
fn a_point_whose_needs_are_not_known_stops_a_prune_with_code_5() {
    let place = Place::new();
    assert_eq!(place.backup(&[]).code, 0);
    assert_eq!(place.backup(&[]).code, 0);
    let all = points(&place);
    for folder in ["index", "manifests"] {
        std::fs::write(place.path(&format!("repository/{folder}/{}", all[0])), b"x").unwrap();
    }
    let blocked = run(&place, &["prune", "--no-other-runs"]);
    assert_eq!(blocked.code, 5, "{}", blocked.text);
    assert!(blocked.text.contains("R4") && blocked.text.contains(&all[0]), "{}", blocked.text);
    let given_up = run(&place, &["forget", &all[0], "--prune", "--no-other-runs"]);
    assert_eq!(given_up.code, 0, "{}", given_up.text);
    assert_eq!(run(&place, &["verify", "--all"]).code, 0);
}

#[test]
fn writers_are_listed_replaced_and_revoked() {
    let place = Place::new();
    let repo = ["--repo", "repository"];
    assert!([0, 3].contains(&place.backup(&[]).code));
    let rotate = ["writers", "rotate", "--writer", "keys/writer", "--to", "keys/new", "--identity", "keys/identity"];
    let rotated = place.run(&[&rotate[..], &repo].concat());
    assert_eq!(rotated.code, 0, "{}", rotated.text);
    assert_eq!(rotated.json["revoked"]["kept"].as_array().unwrap().len(), 1);
    let again = place.run(&[&rotate[..], &repo].concat());
    assert_eq!(again.code, 2, "the new key is there: {}", again.text);
    // The old key cannot write any more, the new one can, and what the old one wrote is restored.
    let old = place.backup(&[]);
    assert!(old.code == 2 && old.text.contains("was revoked"), "{}", old.text);
    let new = ["backup", "--repo", "repository", "--root", "network", "--writer", "keys/new"];
    assert!([0, 3].contains(&place.run(&new).code));
    let all = points(&place);
    assert_eq!(all.len(), 2);
    assert_eq!(place.restore(&[&all[0], "--to", "first"]).code, 0);
    let listed = place.run(&[&["writers"][..], &repo].concat());
    let writers = listed.json["writers"].as_array().unwrap();
    assert_eq!((listed.code, writers.len()), (0, 2), "{}", listed.text);
    let revoked: Vec<bool> = writers.iter().map(|writer| writer["revoked"].is_string()).collect();
    assert_eq!(revoked, [true, false], "{}", listed.text);
    // Its points from one on, by the beginning of its key.
    let key = writers[1]["key"].as_str().unwrap();
    let revoke = ["writers", "revoke", &key[..10], "--distrust-from", &all[1]];
    let without = place.run(&[&revoke[..], &repo].concat());
    assert_eq!(without.code, 2, "the identity is needed: {}", without.text);
    let done = place.run(&[&revoke[..], &repo, &["--identity", "keys/identity"]].concat());
    assert_eq!((done.code, done.json["revoked"]["dropped"][0].as_str()), (0, Some(all[1].as_str())), "{}", done.text);
    let listed = place.run(&["list", "--repo", "repository"]);
    assert_eq!((listed.code, listed.json["points"].as_array().unwrap().len()), (3, 1), "{}", listed.text);
    assert!(listed.text.contains("was revoked"), "{}", listed.text);
    let people = place.command(&["writers", "--repo", "repository"]).output().unwrap();
    assert!(String::from_utf8_lossy(&people.stdout).contains(&key[..16]));
}
