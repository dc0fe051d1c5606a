//! Parts of a node's directory that lie elsewhere, behind links.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fabkeep_engine::{CaptureOptions, Captured, EngineError, Silent};
use fabkeep_network::{Finding, Severity};

use super::kills::{KillBefore, killed};
use super::mounts::PRODUCTION;
use super::place::{Place, named, remove_asides, tree};

const LEDGERS: &str = "Org1/peer0/production/ledgersData";

/// Moves a folder or file beside the network, and leaves a link to it.
fn behind_a_link(place: &Place, path: &str, name: &str) -> PathBuf {
    let (from, to) = (place.path(path), place.bench.path(name));
    std::fs::rename(&from, &to).unwrap();
    symlink(&to, &from).unwrap();
    to
}

fn contained<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.rule.code() == "B7" && finding.subject.contains(subject));
    found.unwrap_or_else(|| panic!("{findings:#?}"))
}

fn capture(place: &Place) -> Captured {
    place.bench.capture(&CaptureOptions::default()).unwrap()
}

/// What a recovery point has of a peer's ledgers: paths.
fn ledger_paths(captured: &Captured) -> Vec<String> {
    let node = captured.point.nodes.iter().find(|node| node.facts.id.to_string() == "Org1/peer0").unwrap();
    let entries = node.directories.iter().flat_map(|directory| &directory.entries);
    entries.map(|entry| entry.path.clone()).filter(|path| path.starts_with("ledgersData")).collect()
}

#[test]
fn a_ledger_behind_a_link_is_captured_and_restored_where_the_link_leads() {
    let place = Place::new(&["Org1/peer0"]);
    let plain = ledger_paths(&capture(&place));
    let expected = {
        let aside = Place::new(&["Org1/peer0"]);
        aside.restore(&aside.options(), &Silent).unwrap();
        tree(&aside.path(LEDGERS))
    };
    let disk = behind_a_link(&place, LEDGERS, "disk");
    let captured = capture(&place);
    assert_eq!(ledger_paths(&captured), plain);
    let note = contained(&captured.point.findings, "ledgersData");
    assert!(note.severity == Severity::Note && note.what.contains("disk"), "{note:?}");
    std::fs::write(disk.join("OLD"), b"").unwrap();
    std::fs::write(disk.join("chains/chains/mychannel/blockfile_000000"), b"no block").unwrap();
    let restored = place.restore(&place.options(), &Silent).unwrap();
    assert!(place.path(LEDGERS).is_symlink());
    assert_eq!(tree(&disk), expected);
    let asides: Vec<_> = restored.directories.iter().filter_map(|directory| directory.set_aside.clone()).collect();
    assert!(asides.iter().any(|aside| aside.starts_with(&disk) && aside.join("OLD").exists()), "{asides:?}");
    // What is set aside there is no part of the node.
    assert!(ledger_paths(&capture(&place)).iter().all(|path| !path.contains(".before-")));
    // The link is gone with the old disk: a folder takes its place.
    std::fs::remove_file(place.path(LEDGERS)).unwrap();
    place.restore(&place.options(), &Silent).unwrap();
    assert!(!place.path(LEDGERS).is_symlink());
    assert_eq!(tree(&place.path(LEDGERS)), expected);
}

#[test]
fn killed_at_any_step_beside_a_link_the_same_command_ends_right() {
    let place = Place::new(&["Org1/peer0"]);
    let disk = behind_a_link(&place, LEDGERS, "disk");
    let clear = || {
        remove_asides(&place.bench.network());
        remove_asides(&disk);
    };
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    let (good, of_disk) = (tree(&place.path(PRODUCTION)), tree(&disk));
    clear();
    let changes = counted.changes();
    let first = changes.iter().position(|what| *what == "rename").unwrap() - 3;
    for (number, change) in changes.iter().enumerate().skip(first) {
        std::fs::write(disk.join("MARK"), b"").unwrap();
        killed(&place, number);
        place.restore(&place.options(), &Silent).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(tree(&place.path(PRODUCTION)), good, "killed before change {number}, {change}");
        assert_eq!(tree(&disk), of_disk, "killed before change {number}, {change}");
        assert_eq!(named(&disk, "MARK").len(), 1, "{number}");
        assert!(named(&disk, "fabkeep-restore-").is_empty(), "{number}");
        clear();
    }
}

#[test]
fn a_file_behind_a_link_is_captured_as_a_file() {
    let place = Place::new(&["Org1/peer0"]);
    let folder = place.path("Org1/peer0/msp/signcerts");
    let name = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().file_name();
    let path = format!("Org1/peer0/msp/signcerts/{}", name.to_str().unwrap());
    let certificate = std::fs::read(place.path(&path)).unwrap();
    let outside = behind_a_link(&place, &path, "certificate.pem");
    let captured = capture(&place);
    let note = contained(&captured.point.findings, "signcerts");
    assert!(format!("{:?}", note.remedy).contains("a file"), "{note:?}");
    std::fs::write(outside, b"another").unwrap();
    place.restore(&place.options(), &Silent).unwrap();
    assert!(!place.path(&path).is_symlink());
    assert_eq!(std::fs::read(place.path(&path)).unwrap(), certificate);
}

#[test]
fn a_folder_that_belongs_to_another_directory_is_refused() {
    let place = Place::new(&["Org1/peer0"]);
    let other = place.path("Org1/peer1/production/ledgersData");
    std::fs::remove_dir_all(place.path(LEDGERS)).unwrap();
    symlink(&other, place.path(LEDGERS)).unwrap();
    let findings = match place.bench.capture(&CaptureOptions::default()) {
        Err(EngineError::Refused(findings)) => findings,
        other => panic!("{other:?}"),
    };
    let refused = contained(&findings, "Org1/peer0 ledgersData");
    assert!(refused.severity == Severity::Error && refused.what.contains("Org1/peer1"), "{refused:?}");
    // A restore leaves the other node's data alone, and makes a folder.
    let before = tree(&other);
    place.restore(&place.options(), &Silent).unwrap();
    assert_eq!(tree(&other), before);
    assert!(Path::new(&place.path(LEDGERS)).join("chains").is_dir() && !place.path(LEDGERS).is_symlink());
}
