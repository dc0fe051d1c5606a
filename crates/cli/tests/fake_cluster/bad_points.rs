//! Drills of recovery points that are bad: each fails for its own reason, and leaves nothing.

use fabkeep_engine::RecoveryPoint;
use fabkeep_fake_cluster::fabric::{Node, SMALL};
use fabkeep_network::MissingCollection;
use fabkeep_store::{BlobId, IdentityFile, Repository, Sources, WriterKey};
use serde_json::Value;

use super::drills::captured;
use super::scene::{Ended, Scene, ended};

const PEERS: [Node; 2] = [SMALL[3], SMALL[4]];

/// Commits the newest recovery point once more, changed.
fn commit_changed(scene: &Scene, point: &str, change: impl FnOnce(&mut RecoveryPoint)) {
    let repository = Repository::open(&scene.path("repository").display().to_string()).unwrap();
    let identity = IdentityFile::read(&scene.path("keys/identity")).unwrap();
    let commit = repository.point(point).unwrap();
    let (mut body, _) = repository.read_point::<RecoveryPoint>(&commit, &identity).unwrap();
    change(&mut body);
    let writer = repository.writer(WriterKey::read(&scene.path("keys/writer")).unwrap()).unwrap();
    let mut blobs = Vec::new();
    collect(&serde_json::to_value(&body).unwrap(), &mut blobs);
    assert!(blobs.into_iter().all(|blob| writer.keep(blob)));
    writer.commit(&body, commit.summary, Sources::new()).unwrap();
}

/// The blobs that a recovery point names.
fn collect(value: &Value, out: &mut Vec<BlobId>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let blob = || serde_json::from_value::<BlobId>(value.clone()).ok();
                match blob().filter(|_| ["blob", "metadata", "split"].contains(&key.as_str())) {
                    Some(blob) => out.push(blob),
                    None => collect(value, out),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| collect(value, out)),
        _ => {}
    }
}

fn drill(scene: &Scene) -> Ended {
    let mut command =
        scene.command(&["drill", "--repo", "repository", "--identity", "keys/identity", "--deadline", "10", "-q"]);
    let ended = ended(&command.arg("--kubeconfig").arg(scene.cluster.kubeconfig()).output().unwrap());
    let left: Vec<String> = scene.cluster.names("Namespace", "");
    assert!(left.iter().all(|name| !name.starts_with("drill-")), "{left:?}");
    ended
}

#[test]
fn a_bad_point_fails_for_its_own_reason() {
    let scene = captured(&PEERS);
    let repository = Repository::open(&scene.path("repository").display().to_string()).unwrap();
    let good = repository.point("latest").unwrap().id.to_string();
    type Change = fn(&mut RecoveryPoint);
    let changes: [(&str, i32, Change); 6] = [
        ("I5", 4, |point| point.nodes[0].facts.keys.iter_mut().for_each(|key| key.key = None)),
        // One of two peers has another state.
        ("I4", 4, |point| {
            point.nodes.iter_mut().take(1).flat_map(|node| &mut node.facts.ledgers).for_each(|ledger| {
                ledger.commit_hash = Some("cd".repeat(32));
            });
        }),
        // One of two peers has another last block.
        ("the chain has forked", 7, |point| {
            point.nodes.iter_mut().take(1).flat_map(|node| &mut node.facts.ledgers).for_each(|ledger| {
                ledger.tip_hash = "ab".repeat(32);
            });
        }),
        // The private-data store of another peer: it is ahead of the blocks.
        ("I2", 4, |point| {
            point.nodes.iter_mut().flat_map(|node| &mut node.facts.ledgers).for_each(|ledger| {
                ledger.private_height = Some(ledger.height - 5);
            });
        }),
        ("private data of cc/secret", 7, |point| {
            let lost = MissingCollection {
                collection: "cc/secret".to_owned(),
                transactions: 3,
                first_block: 2,
                last_block: 4,
                held_elsewhere: Some(1),
            };
            point.nodes[0].facts.ledgers[0].missing_private.push(lost);
        }),
        ("expired", 7, |point| {
            for certificate in point.nodes[0].facts.keys.iter_mut().filter_map(|key| key.certificate.as_mut()) {
                certificate.not_after = 1_600_000_000;
            }
        }),
    ];
    for (part, code, change) in changes {
        commit_changed(&scene, &good, change);
        let ended = drill(&scene);
        assert_eq!(ended.code, code, "{part}: {}", ended.text);
        let is_told =
            |line: &str| line.contains("PROBLEM") && line.contains(part) || line.starts_with(&format!("error[{part}]"));
        assert!(ended.text.lines().any(is_told), "{part}: {}", ended.text);
    }
    let listed = scene.run(&["drills", "--repo", "repository"]);
    assert_eq!(
        (listed.text.matches("refused").count(), listed.text.matches("not proven").count()),
        (3, 3),
        "{}",
        listed.text
    );
}

#[test]
fn a_damaged_object_fails_a_drill_before_it_makes_anything() {
    let scene = captured(&PEERS[..1]);
    let mut objects = Vec::new();
    for folder in std::fs::read_dir(scene.path("repository/objects")).unwrap() {
        objects.extend(std::fs::read_dir(folder.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    objects.into_iter().for_each(|object| std::fs::remove_file(object).unwrap());
    let ended = drill(&scene);
    assert_eq!(ended.code, 5, "{}", ended.text);
    assert!(ended.text.contains("PROBLEM") && ended.text.contains("FAILED"), "{}", ended.text);
}
