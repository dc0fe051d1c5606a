//! Nodes that run, or may: their data is not replaced under them.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use fabkeep_engine::{Done, EngineError, RestoreOptions, Silent};
use fabkeep_platform::{NodeState, Platform};

use super::bench::lock;
use super::place::{Place, refused, tree};

/// Sets a node's commands.
fn commands(place: &mut Place, node: &str, set: impl Fn(&mut fabkeep_platform::Commands)) {
    let (organization, name) = node.split_once('/').unwrap();
    let organizations = place.inventory.organizations.iter_mut().filter(|known| known.name == organization);
    let node = organizations.flat_map(|known| &mut known.nodes).find(|known| known.name == name).unwrap();
    set(&mut node.commands);
}

/// A process that has a file open for writing.
fn writer(file: &std::path::Path) -> Child {
    let open = File::options().append(true).create(true).open(file).unwrap();
    Command::new("sleep").arg("600").stdout(open).stdin(Stdio::null()).spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn evidence_of_running_beats_a_status_command_that_says_otherwise() {
    let mut place = Place::new(&["Org1/peer0"]);
    commands(&mut place, "Org1/peer0", |commands| commands.status = Some("false".to_owned()));
    let before = tree(&place.bench.network());
    let held = lock(&place.path("Org1/peer0/production/ledgersData/fileLock/LOCK"));
    let findings = refused(place.restore(&place.options(), &Silent));
    let found = findings.iter().find(|finding| finding.rule.code() == "P6").unwrap();
    assert!(found.what.contains("LOCK") && found.subject == "Org1/peer0", "{found:?}");
    // Nothing can be assumed against a lock.
    let assumed = RestoreOptions { assume_stopped: place.nodes.clone(), ..place.options() };
    refused(place.restore(&assumed, &Silent));
    assert_eq!(tree(&place.bench.network()), before);
    drop(held);
    place.restore(&place.options(), &Silent).unwrap();
}

#[test]
fn a_file_that_is_open_for_writing_is_evidence_and_one_that_is_read_is_not() {
    let place = Place::new(&["Org1/ca"]);
    let database = place.path("Org1/ca/fabric-ca-server.db");
    let reading = File::open(&database).unwrap();
    let reader = Command::new("sleep").arg("600").stdin(reading).spawn().unwrap();
    let writing = writer(&database);
    let findings = refused(place.restore(&place.options(), &Silent));
    let found = findings.iter().find(|finding| finding.rule.code() == "P6").unwrap();
    assert!(found.what.contains("open for writing") && found.what.contains("fabric-ca-server.db"), "{found:?}");
    end(writing);
    place.restore(&place.options(), &Silent).unwrap();
    end(reader);
}

#[test]
fn a_status_command_that_cannot_be_run_leaves_it_unknown_and_only_a_word_of_the_operator_goes_on() {
    let mut place = Place::new(&["Org1/ca"]);
    commands(&mut place, "Org1/ca", |commands| commands.status = Some("no-such-command-here".to_owned()));
    let host = place.host();
    let id = host.network().nodes().find(|node| node.id.to_string() == "Org1/ca").unwrap().id.clone();
    assert_eq!(host.state(&id).unwrap(), NodeState::Unknown);
    std::fs::write(place.path("Org1/ca/OLD"), b"").unwrap();
    let findings = refused(place.restore(&place.options(), &Silent));
    let found = findings.iter().find(|finding| finding.rule.code() == "P6").unwrap();
    assert!(found.what.contains("not known") && format!("{:?}", found.remedy).contains("AssumeStopped"), "{found:?}");
    let assumed = RestoreOptions { assume_stopped: place.nodes.clone(), ..place.options() };
    let restored = place.restore(&assumed, &Silent).unwrap();
    assert!(restored.findings.iter().any(|finding| finding.rule.code() == "P6"), "{:?}", restored.findings);
    // Where nothing is there, nothing can be replaced under a node.
    std::fs::remove_dir_all(place.path("Org1/ca")).unwrap();
    place.restore(&place.options(), &Silent).unwrap();
}

#[test]
fn stop_without_a_stop_command_or_one_that_does_not_stop_replaces_nothing() {
    let mut place = Place::new(&["Org1/peer0"]);
    let path = "Org1/peer0/production/ledgersData/fileLock/LOCK";
    let held = lock(&place.path(path));
    let options = RestoreOptions { stop: true, ..place.options() };
    let findings = refused(place.restore(&options, &Silent));
    let found = findings.iter().find(|finding| finding.rule.code() == "P6").unwrap();
    assert!(
        format!("{:?}", found.remedy).contains("no command") && format!("{:?}", found.remedy).contains("Org1/peer0"),
        "{found:?}"
    );
    drop(held);

    // A stop command that fails: what was done is reported.
    let held = lock(&place.path(path));
    commands(&mut place, "Org1/peer0", |commands| commands.stop = Some("exit 3".to_owned()));
    let before = tree(&place.path("Org1/peer0"));
    match place.restore(&options, &Silent) {
        Err(EngineError::Interrupted { done, .. }) => {
            assert_eq!(done, [Done::NodeStopping { node: "Org1/peer0".to_owned() }]);
        }
        other => panic!("{:?}", other.map(|restored| restored.directories)),
    }
    // The journal of the begun restore is beside the data; nothing else is there that was not.
    let mut after = tree(&place.path("Org1/peer0"));
    after.retain(|path, _| !path.to_string_lossy().contains(".fabkeep-"));
    assert_eq!(after.keys().len(), before.keys().len());
    drop(held);
}

#[test]
fn a_stop_command_that_works_is_waited_for_and_reported() {
    let mut place = Place::new(&["Org1/ca"]);
    std::fs::write(place.path("Org1/ca/OLD"), b"").unwrap();
    let child = writer(&place.path("Org1/ca/fabric-ca-server.db"));
    let stop = format!("kill {}", child.id());
    commands(&mut place, "Org1/ca", |commands| commands.stop = Some(stop.clone()));
    let reaper = std::thread::spawn(move || {
        let mut child = child;
        child.wait().unwrap()
    });
    let options = RestoreOptions { stop: true, ..place.options() };
    place.restore(&options, &Silent).unwrap();
    reaper.join().unwrap();
    assert!(!place.path("Org1/ca/OLD").exists());
}
