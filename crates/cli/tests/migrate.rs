//! A network moves to other hosts: what can be refused is refused while it runs; in the end it runs there, and is stopped here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod place;

use std::path::Path;

use fabkeep_platform::{Commands, Inventory};
use place::Place;

const ARGUMENTS: [&str; 11] = [
    "migrate",
    "--repo",
    "repository",
    "--identity",
    "keys/identity",
    "--writer",
    "keys/writer",
    "--settle",
    "0.05",
    "--to-inventory",
    "there.toml",
];

/// The small network here, every node running (a file says so), and an inventory of the same nodes elsewhere.
fn network() -> Place {
    let place = Place::new();
    assert_eq!(place.run(&["discover", "--root", "network"]).code, 0);
    std::fs::create_dir(place.path("runs")).unwrap();
    let here = Inventory::read(&place.path("fabkeep.toml")).unwrap();
    let with_commands = |at: &str| {
        let mut inventory = here.clone();
        for organization in &mut inventory.organizations {
            for node in &mut organization.nodes {
                let mark = place.path("runs").join(format!("{at}-{}-{}", organization.name, node.name));
                let mark = mark.display();
                node.operations = None;
                node.participation = None;
                node.commands = Commands {
                    start: Some(format!("touch {mark}")),
                    stop: Some(format!("rm {mark}")),
                    status: Some(format!("test -e {mark}")),
                    ..Commands::default()
                };
                if at == "here" {
                    std::fs::write(format!("{mark}"), "").unwrap();
                }
            }
        }
        inventory.to_text().unwrap()
    };
    let (first, second) = (with_commands("here"), with_commands("there"));
    std::fs::write(place.path("fabkeep.toml"), first).unwrap();
    std::fs::write(place.path("there.toml"), second.replace("network/", "there/")).unwrap();
    place
}

fn running(place: &Place, at: &str) -> usize {
    let names = std::fs::read_dir(place.path("runs")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(at)).count()
}

fn same(place: &Place, path: &str) {
    let (here, there) = (place.path("network").join(path), place.path("there").join(path));
    place::assert_same_tree(&here, &there);
}

#[test]
fn a_network_moves_and_the_old_one_stays_stopped() {
    let place = network();
    let nodes = running(&place, "here");
    println!("-- what would be refused is refused while everything runs");
    std::fs::create_dir_all(place.path("there/Org1/peer0/production")).unwrap();
    std::fs::write(place.path("there/Org1/peer0/production/something"), "of somebody's").unwrap();
    let refused = place.run(&ARGUMENTS);
    assert_eq!(refused.code, 4, "{}", refused.text);
    assert!(refused.text.contains("B8"), "{}", refused.text);
    assert_eq!((running(&place, "here"), running(&place, "there")), (nodes, 0));
    assert!(!place.path("fabkeep.toml.window").exists());
    std::fs::remove_dir_all(place.path("there")).unwrap();

    println!("-- a plan stops nothing");
    let mut dry = ARGUMENTS.to_vec();
    dry.push("--dry-run");
    let planned = place.run(&dry);
    assert!(matches!(planned.code, 0 | 3), "{}", planned.text);
    assert!(planned.json["point"].is_string());
    assert_eq!((running(&place, "here"), running(&place, "there")), (nodes, 0));

    println!("-- the move");
    let moved = place.run(&ARGUMENTS);
    assert!(matches!(moved.code, 0 | 3), "{}", moved.text);
    assert_eq!(running(&place, "there"), 9, "{}", moved.text);
    // All but files that belong to no node, which do not run.
    assert_eq!(running(&place, "here"), nodes - 9);
    for path in [
        "Org1/peer0/msp",
        "Org1/ca/msp",
        "OrdererOrg/orderer1/production/chains",
        "Org2/peer1/production/ledgersData/pvtdataStore/CURRENT",
    ] {
        same(&place, path);
    }

    println!("-- the old one does not run by accident, and can be brought back");
    let again = place.run(&ARGUMENTS);
    assert_eq!(again.code, 4, "{}", again.text);
    assert!(again.text.contains("in a no-transaction window since"), "{}", again.text);
    let moved_point = moved.json["point"].as_str().unwrap();
    assert!(again.text.contains(&format!("fabkeep restore {moved_point}")), "{}", again.text);
    let back = place.run(&["resume"]);
    assert_eq!(back.code, 0, "{}", back.text);
    assert_eq!(running(&place, "here"), nodes);
}

#[test]
fn a_move_that_cannot_be_finished_leaves_the_old_network_as_it_is() {
    let place = network();
    let nodes = running(&place, "here");
    // A peer that cannot be started: it is reported, and what was restored stays.
    let there = std::fs::read_to_string(place.path("there.toml")).unwrap();
    let start = |text: &str| text.replace("touch ", "false # touch ");
    std::fs::write(place.path("there.toml"), start(&there)).unwrap();
    let failed = place.run(&ARGUMENTS);
    assert_eq!(failed.code, 6, "{}", failed.text);
    assert!(failed.text.contains("command"), "{}", failed.text);
    assert_eq!((running(&place, "here"), running(&place, "there")), (nodes - 9, 0));
    assert!(Path::new(&place.path("fabkeep.toml.window")).exists(), "the note of what was stopped");
    assert_eq!(place.run(&["resume"]).code, 0);
    assert_eq!(running(&place, "here"), nodes);

    let nowhere = place.run(&["migrate", "--repo", "repository", "--identity", "keys/identity"]);
    assert_eq!(nowhere.code, 2, "{}", nowhere.text);
}

#[test]
fn a_move_that_ended_before_the_difference_was_captured_is_begun_again() {
    let place = network();
    let nodes = running(&place, "here");
    // The stop of one node kills the migration, as a person may.
    let file = place.path("fabkeep.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let stop = good.lines().find(|line| line.contains("rm ") && line.contains("orderer1")).unwrap();
    let killing = stop.replace("rm ", "kill -9 $PPID; rm ");
    std::fs::write(&file, good.replace(stop, &killing)).unwrap();
    let killed = place.run(&ARGUMENTS);
    assert!(!matches!(killed.code, 0 | 3 | 4), "{}", killed.text);
    std::fs::write(&file, &good).unwrap();
    let again = place.run(&ARGUMENTS);
    assert_eq!(again.code, 4, "{}", again.text);
    assert!(
        again.text.contains("has not captured it since") && !again.text.contains("fabkeep restore"),
        "{}",
        again.text
    );
    assert_eq!(place.run(&["resume"]).code, 0);
    assert_eq!(running(&place, "here"), nodes);
}
