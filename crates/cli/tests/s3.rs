//! The main job with the repository in an object store: s3s-fs, a server of the S3 protocol, on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod object_store;
mod place;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use place::{Ended, Place, assert_same_tree, ended};

fn run(place: &Place, server: SocketAddr, arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    command
        .args(["--output", "json"])
        .env("AWS_ENDPOINT", format!("http://{server}"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret");
    ended(command.output().unwrap())
}

/// Files below a folder, with the times at which they were written.
fn walked(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut out: Vec<_> = entries
        .flat_map(|path| match path.is_dir() {
            true => walked(&path),
            false => vec![(path.clone(), path.metadata().unwrap().modified().unwrap())],
        })
        .collect();
    out.sort();
    out
}

#[test]
fn a_network_goes_into_a_bucket_and_comes_back() {
    let place = Place::empty();
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &place.network()).unwrap();
    std::fs::create_dir_all(place.path("s3/bucket")).unwrap();
    let server = object_store::serve(place.path("s3"), "127.0.0.1");
    let repo = "s3://bucket/fabric/backups";
    let init = ["init", "--repo", repo, "--identity", "keys/identity", "--writer", "keys/writer"];
    let made = run(&place, server, &init);
    assert_eq!(made.code, 0, "{}", made.text);
    assert!(place.path("s3/bucket/fabric/backups/fabkeep.json").exists());
    let backup = ["backup", "--repo", repo, "--root", "network", "--writer", "keys/writer"];
    for _ in 0..2 {
        // A trial of a write leaves nothing behind.
        let objects = || walked(&place.path("s3/bucket"));
        let before = objects();
        let doctor = ["doctor", "--repo", repo, "--root", "network", "--writer", "keys/writer"];
        let said = run(&place, server, &doctor);
        assert!(said.code == 0 && said.text.contains("refuses to write over"), "{}", said.text);
        assert_eq!(objects(), before);
        let backed_up = run(&place, server, &backup);
        assert_eq!(backed_up.code, 0, "{}", backed_up.text);
    }
    let listed = run(&place, server, &["list", "--repo", repo]);
    assert_eq!(listed.json["points"].as_array().unwrap().len(), 2);
    let verified = run(&place, server, &["verify", "--repo", repo, "--identity", "keys/identity", "--all"]);
    assert_eq!(verified.code, 0, "{}", verified.text);
    let restored = run(&place, server, &["restore", "--repo", repo, "--identity", "keys/identity", "--to", "out"]);
    assert_eq!(restored.code, 0, "{}", restored.text);
    assert_same_tree(&place.network().join("Org1/ca"), &place.path("out/Org1/ca"));
    let again = run(&place, server, &init);
    assert_eq!(again.code, 2, "{}", again.text);
    // Space is freed there, too.
    let keys = ["--repo", repo, "--identity", "keys/identity"];
    let forget = [&["forget", "--keep-last", "1", "--prune", "--no-other-runs"][..], &keys].concat();
    let forgotten = run(&place, server, &forget);
    assert_eq!(forgotten.code, 0, "{}", forgotten.text);
    assert_eq!(forgotten.json["pruned"]["freed"]["objects"].as_u64(), Some(3), "{}", forgotten.text);
    let stats = run(&place, server, &[&["stats"][..], &keys].concat());
    assert_eq!(stats.json["stats"]["unreferenced"]["objects"].as_u64(), Some(0), "{}", stats.text);
    let verified = run(&place, server, &[&["verify", "--all"][..], &keys].concat());
    assert_eq!(verified.code, 0, "{}", verified.text);
    let next = run(&place, server, &backup);
    assert_eq!((next.code, next.json["written"]["objects"].as_u64()), (0, Some(3)), "{}", next.text);
}
