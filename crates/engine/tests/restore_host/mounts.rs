//! Mount points in the places of directories. Each test runs again by itself in a mount namespace of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use fabkeep_engine::{EngineError, RestoreOptions, RestoreTarget, Silent};

use super::kills::{KillBefore, killed};
use super::place::{Place, named, refused, remove_asides, tree};

/// Runs the rest of the test where it may mount; `false` outside, or where that is not allowed.
pub fn may_mount(test: &str) -> bool {
    const INNER: &str = "FABKEEP_TEST_MAY_MOUNT";
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let namespace = ["-m", "--propagation", "private", "true"];
    if !Command::new("unshare").args(namespace).status().is_ok_and(|status| status.success()) {
        eprintln!("{test}: not allowed to mount here");
        return false;
    }
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(own)
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(INNER, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

pub fn mount(arguments: &[&str], at: &Path) {
    let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "mount {arguments:?} {}", at.display());
}

pub fn unmount(at: &Path) {
    assert!(Command::new("umount").arg(at).status().unwrap().success(), "{}", at.display());
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
}

/// Moves a folder's content onto a file system of its own.
pub fn onto_tmpfs(at: &Path, size: &str) {
    let saved = at.with_extension("saved");
    std::fs::rename(at, &saved).unwrap();
    std::fs::create_dir(at).unwrap();
    mount(&["-t", "tmpfs", "-o", size, "none"], at);
    copy(&saved, at);
    std::fs::remove_dir_all(&saved).unwrap();
}

/// Moves a folder beside the network, and binds it in its old place: the same file system.
pub fn bound(place: &Place, at: &Path, name: &str) {
    let disk = place.bench.path(name);
    std::fs::create_dir(&disk).unwrap();
    copy(at, &disk);
    std::fs::remove_dir_all(at).unwrap();
    std::fs::create_dir(at).unwrap();
    mount(&["--bind", disk.to_str().unwrap()], at);
}

pub const PRODUCTION: &str = "Org1/peer0/production";

#[test]
fn a_ledger_on_a_disk_of_its_own_is_restored_on_that_disk() {
    if !may_mount("mounts::a_ledger_on_a_disk_of_its_own_is_restored_on_that_disk") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let expected = {
        let aside = Place::new(&["Org1/peer0"]);
        aside.restore(&aside.options(), &Silent).unwrap();
        tree(&aside.path(PRODUCTION))
    };
    let production = place.path(PRODUCTION);
    let ledgers = production.join("ledgersData");
    onto_tmpfs(&ledgers, "size=64m");
    bound(&place, &ledgers.join("pvtdataStore"), "private");
    std::fs::write(ledgers.join("OLD"), b"").unwrap();
    std::fs::write(production.join("OLD-OUTSIDE"), b"").unwrap();
    let restored = place.restore(&place.options(), &Silent).unwrap();
    assert_eq!(tree(&production), expected);
    let mounted = |path: &Path| Command::new("mountpoint").arg("-q").arg(path).status().unwrap().success();
    assert!(mounted(&ledgers) && mounted(&ledgers.join("pvtdataStore")));
    let asides: Vec<_> = restored.directories.iter().filter_map(|directory| directory.set_aside.clone()).collect();
    assert!(asides.iter().any(|aside| aside.join("OLD").exists() && aside.starts_with(&ledgers)), "{asides:?}");
    assert!(asides.iter().any(|aside| aside.join("OLD-OUTSIDE").exists()), "{asides:?}");
    // What is on the disks is what was restored, whatever is mounted where.
    unmount(&ledgers.join("pvtdataStore"));
    assert!(std::fs::read_dir(ledgers.join("pvtdataStore")).unwrap().next().is_none());
    assert!(place.bench.path("private/CURRENT").exists());
    unmount(&ledgers);
    assert!(std::fs::read_dir(&ledgers).unwrap().next().is_none());
}

#[test]
fn killed_between_the_renames_of_mount_points_the_same_command_ends_right() {
    if !may_mount("mounts::killed_between_the_renames_of_mount_points_the_same_command_ends_right") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let production = place.path(PRODUCTION);
    onto_tmpfs(&production, "size=64m");
    bound(&place, &production.join("ledgersData"), "ledgers");
    bound(&place, &production.join("ledgersData/chains/chains"), "chains");
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    let good = tree(&production);
    let clear = || remove_asides(&place.bench.network());
    clear();
    let changes = counted.changes();
    let first = changes.iter().position(|what| *what == "rename").unwrap() - 3;
    for (number, change) in changes.iter().enumerate().skip(first) {
        std::fs::write(production.join("MARK"), b"").unwrap();
        std::fs::write(production.join("ledgersData/MARK"), b"").unwrap();
        killed(&place, number);
        place.restore(&place.options(), &Silent).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(tree(&production), good, "killed before change {number}, {change}");
        assert_eq!(named(&place.bench.network(), "MARK").len(), 2, "{number}");
        assert!(named(&place.bench.network(), "fabkeep-restore-").is_empty(), "{number}");
        clear();
    }
}

#[test]
fn a_bind_mount_of_the_same_file_system_is_restored_inside() {
    if !may_mount("mounts::a_bind_mount_of_the_same_file_system_is_restored_inside") {
        return;
    }
    let place = Place::new(&["Org1/peer1"]);
    let production = place.path("Org1/peer1/production");
    bound(&place, &production, "peer1");
    std::fs::write(production.join("OLD"), b"").unwrap();
    place.restore(&place.options(), &Silent).unwrap();
    assert!(place.bench.path("peer1/ledgersData/pvtdataStore/CURRENT").exists());
    assert_eq!(named(&place.bench.path("peer1"), "OLD").len(), 1);
    assert!(!production.join("OLD").exists());
}

#[test]
fn a_mount_that_cannot_be_written_or_has_no_room_is_refused_before_anything_changes() {
    if !may_mount("mounts::a_mount_that_cannot_be_written_or_has_no_room_is_refused_before_anything_changes") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let ledgers = place.path(PRODUCTION).join("ledgersData");
    bound(&place, &ledgers, "ledgers");
    mount(&["-o", "remount,bind,ro"], &ledgers);
    let before = tree(&place.bench.network());
    let findings = refused(place.restore(&place.options(), &Silent));
    assert!(
        findings.iter().any(|finding| finding.rule.code() == "B9" && finding.what.contains("written")),
        "{findings:?}"
    );
    assert_eq!(tree(&place.bench.network()), before);
    unmount(&ledgers);
    mount(&["-t", "tmpfs", "-o", "size=64k", "none"], &ledgers);
    let findings = refused(place.restore(&place.options(), &Silent));
    assert!(
        findings.iter().any(|finding| finding.rule.code() == "B9" && finding.what.contains("free")),
        "{findings:?}"
    );
    assert!(std::fs::read_dir(&ledgers).unwrap().next().is_none());
}

/// A disk of its own, and a restore into a folder on it.
fn new_disk(place: &Place, size: &str) -> (PathBuf, RestoreTarget<'static>, RestoreOptions) {
    let disk = place.bench.path("disk");
    std::fs::create_dir(&disk).unwrap();
    mount(&["-t", "tmpfs", "-o", size, "none"], &disk);
    let target = RestoreTarget::Folder(disk.join("out"));
    (disk, target, RestoreOptions { replace: false, ..place.options() })
}

#[test]
fn what_a_killed_run_has_written_needs_no_room_again() {
    if !may_mount("mounts::what_a_killed_run_has_written_needs_no_room_again") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let (disk, target, options) = new_disk(&place, "size=64m");
    let restore = |reporter: &dyn fabkeep_engine::Reporter| place.bench.restore_to(&target, &options, reporter);
    let counted = KillBefore::never();
    restore(&counted).unwrap();
    let used: u64 = {
        let room = rustix::fs::statvfs(&disk).unwrap();
        (room.f_blocks - room.f_bfree) * room.f_frsize
    };
    std::fs::remove_dir_all(disk.join("out")).unwrap();
    // Room for one copy and little more.
    mount(&[&format!("-oremount,size={}", used + (256 << 10))], &disk);
    let first = counted.changes().iter().position(|what| *what == "rename").unwrap();
    let reporter = KillBefore::new(first);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| restore(&reporter)));
    assert!(ended.is_err());
    match restore(&Silent) {
        Ok(restored) => assert!(restored.resumed),
        Err(EngineError::Precondition(findings)) => panic!("{findings:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// Fills what is free of a file system, but this much.
fn fill(folder: &Path, left: u64) {
    let room = rustix::fs::statvfs(folder).unwrap();
    let free = room.f_bavail * room.f_frsize;
    std::fs::write(folder.join("FILLED"), vec![1; usize::try_from(free - left).unwrap()]).unwrap();
}

#[test]
fn what_is_there_as_it_was_captured_needs_no_room() {
    if !may_mount("mounts::what_is_there_as_it_was_captured_needs_no_room") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let disk = place.path("Org1/peer0");
    onto_tmpfs(&disk, "size=64m");
    place.restore(&place.options(), &Silent).unwrap();
    remove_asides(&disk);
    fill(&disk, 64 << 10);
    let restored = place.restore(&place.options(), &Silent).unwrap();
    assert!(restored.set_aside.is_empty(), "{:?}", restored.set_aside);
    // What differs needs room for itself.
    std::fs::write(disk.join("msp/note"), "x").unwrap();
    std::fs::remove_file(disk.join("FILLED")).unwrap();
    fill(&disk, 256 << 10);
    let restored = place.restore(&place.options(), &Silent).unwrap();
    assert_eq!(restored.set_aside.len(), 1, "{:?}", restored.set_aside);
}

#[test]
fn files_that_a_disk_has_no_inodes_for_are_counted_before_anything_changes() {
    if !may_mount("mounts::files_that_a_disk_has_no_inodes_for_are_counted_before_anything_changes") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let (disk, target, options) = new_disk(&place, "size=64m,nr_inodes=20");
    let findings = refused(place.bench.restore_to(&target, &options, &Silent));
    assert!(findings.iter().any(|found| found.rule.code() == "B9" && found.what.contains("inodes")), "{findings:?}");
    assert!(std::fs::read_dir(&disk).unwrap().next().is_none());
}

#[test]
fn beside_a_mount_point_that_is_read_only_the_journal_lies_inside_the_mount() {
    if !may_mount("mounts::beside_a_mount_point_that_is_read_only_the_journal_lies_inside_the_mount") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    place.restore(&place.options(), &Silent).unwrap();
    remove_asides(&place.bench.network());
    let (peer, production) = (place.path("Org1/peer0"), place.path(PRODUCTION));
    let good = tree(&production);
    bound(&place, &production, "disk");
    mount(&["--rbind", peer.to_str().unwrap()], &peer);
    mount(&["-o", "remount,bind,ro"], &peer);
    let damage = || std::fs::write(production.join("MARK"), b"").unwrap();
    damage();
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    let clear = || remove_asides(&place.bench.network());
    clear();
    let changes = counted.changes();
    let first = changes.iter().position(|what| *what == "rename").unwrap();
    for number in [0, 1, 2, first, first + 3, changes.len() - 4, changes.len() - 1] {
        damage();
        assert!(killed(&place, number), "{number}");
        place.restore(&place.options(), &Silent).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(tree(&production), good, "killed before change {number}");
        assert!(named(&place.bench.network(), "fabkeep-restore-").is_empty(), "{number}");
        clear();
    }
    // Where nothing can be written there is no journal, and no restore.
    damage();
    mount(&["-o", "remount,bind,ro"], &production);
    let findings = refused(place.restore(&place.options(), &Silent));
    assert!(findings.iter().all(|found| found.rule.code() == "B9" && found.what.contains("written")), "{findings:?}");
}

#[test]
fn a_file_that_is_mounted_stays_if_it_is_what_was_captured_and_else_is_named_before_any_change() {
    if !may_mount("mounts::a_file_that_is_mounted_stays_if_it_is_what_was_captured_and_else_is_named_before_any_change")
    {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    for file in ["Org1/peer0/config/core.yaml", "Org1/peer0/tls/server.key"] {
        let source = place.bench.path("mounted-file");
        let folder = place.path(file).parent().unwrap().to_path_buf();
        let expected = tree(&folder);
        std::fs::copy(place.path(file), &source).unwrap();
        mount(&["--bind", source.to_str().unwrap()], &place.path(file));
        let beside = folder.join("OLD");
        std::fs::write(&beside, "").unwrap();
        std::fs::remove_dir_all(place.path("Org1/peer0/production/transientstore")).unwrap();
        let restored = place.restore(&place.options(), &Silent).unwrap();
        assert!(!restored.directories.is_empty());
        assert!(!beside.exists());
        std::fs::write(&source, "another").unwrap();
        let before = tree(&place.bench.network());
        let findings = refused(place.restore(&place.options(), &Silent));
        let named = |finding: &fabkeep_network::Finding| {
            finding.rule.code() == "B9" && finding.what.contains(place.path(file).to_str().unwrap())
        };
        assert!(findings.iter().any(named), "{findings:#?}");
        assert!(tree(&place.bench.network()) == before);
        unmount(&place.path(file));
        std::fs::remove_file(&source).unwrap();
        remove_asides(&place.bench.network());
        assert!(tree(&folder) == expected, "{file}");
        assert!(place.path("Org1/peer0/production/transientstore/CURRENT").exists());
    }
}
