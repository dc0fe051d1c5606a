//! What would keep a restore from making its changes is found before the first of them; folders that it makes are what an operator expects.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use fabkeep_engine::Silent;
use fabkeep_network::Finding;
use rustix::process::{Uid, geteuid};

use super::kills::{KillBefore, killed};
use super::mounts::{PRODUCTION, bound, may_mount};
use super::place::{Place, named, refused, tree};

/// An attribute of a file that `chattr` sets, as long as it lives.
struct Attribute(&'static str, PathBuf);

impl Attribute {
    /// `None` where the file system has no attributes, or this user may not set them.
    fn set(letter: &'static str, path: &Path) -> Option<Attribute> {
        let set = Command::new("chattr").arg(format!("+{letter}")).arg(path).status();
        set.is_ok_and(|status| status.success()).then(|| Attribute(letter, path.to_path_buf()))
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg(format!("-{}", self.0)).arg(&self.1).status();
    }
}

/// The refusal that names this path.
fn naming<'f>(findings: &'f [Finding], path: &Path) -> &'f Finding {
    let named = |finding: &&Finding| finding.rule.code() == "B9" && finding.what.contains(path.to_str().unwrap());
    findings.iter().find(named).unwrap_or_else(|| panic!("{}: {findings:#?}", path.display()))
}

fn refused_for_attributes(place: &Place, cases: &[(&'static str, &str)]) {
    let before = tree(&place.bench.network());
    for (letter, path) in cases {
        let path = place.path(path);
        let Some(set) = Attribute::set(letter, &path) else { return eprintln!("no attributes here") };
        let findings = refused(place.restore(&place.options(), &Silent));
        assert!(
            format!("{:?}", naming(&findings, &path).remedy).contains(&format!("chattr -{letter}")),
            "{findings:#?}"
        );
        assert!(tree(&place.bench.network()) == before, "{letter} {}", path.display());
        drop(set);
    }
    place.restore(&place.options(), &Silent).unwrap();
}

#[test]
fn attributes_that_keep_a_place_from_being_renamed_are_named() {
    let place = Place::new(&["Org1/ca"]);
    fs::write(place.path("Org1/ca/OLD"), "").unwrap();
    refused_for_attributes(&place, &[("i", "Org1/ca"), ("a", "Org1/ca"), ("i", "Org1"), ("a", "Org1")]);
}

#[test]
fn attributes_of_what_is_moved_out_of_a_mount_point_are_named() {
    if !may_mount("obstacles::attributes_of_what_is_moved_out_of_a_mount_point_are_named") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let ledgers = place.path(PRODUCTION).join("ledgersData");
    bound(&place, &ledgers, "disk");
    fs::write(ledgers.join("OLD"), "").unwrap();
    let paths =
        ["", "/ledgersData", "/ledgersData/chains", "/ledgersData/OLD"].map(|path| format!("{PRODUCTION}{path}"));
    let cases: Vec<(&'static str, &str)> = paths.iter().flat_map(|path| [("i", path.as_str()), ("a", path)]).collect();
    refused_for_attributes(&place, &cases);
}

#[test]
fn entries_of_others_in_a_sticky_folder_and_folders_of_others_are_named() {
    if !geteuid().is_root() {
        return eprintln!("only root may become another user");
    }
    let place = Place::new(&["Org1/peer0"]);
    let own = 65534;
    assert!(
        Command::new("chown").arg("-R").arg(own.to_string()).arg(place.bench.folder.path()).status().unwrap().success()
    );
    let (peer, msp) = (place.path("Org1/peer0"), place.path("Org1/peer0/msp"));
    fs::write(msp.join("OLD"), "").unwrap();
    let as_user = || {
        let restore = || {
            let uid = Uid::from_raw(own);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            place.restore(&place.options(), &Silent)
        };
        std::thread::scope(|scope| scope.spawn(restore).join().unwrap())
    };
    let before = tree(&place.bench.network());
    chown(&peer, Some(0), None).unwrap();
    chown(&msp, Some(0), None).unwrap();
    fs::set_permissions(&peer, Permissions::from_mode(0o1777)).unwrap();
    let findings = refused(as_user());
    assert!(naming(&findings, &msp).what.contains("sticky"), "{findings:#?}");
    fs::set_permissions(&peer, Permissions::from_mode(0o755)).unwrap();
    assert!(naming(&refused(as_user()), &peer).what.contains("written"));
    assert!(tree(&place.bench.network()).keys().eq(before.keys()));
    chown(&peer, Some(own), None).unwrap();
    as_user().unwrap();
}

#[test]
fn folders_above_a_place_are_open_to_its_node_whatever_the_umask_and_whenever_the_restore_is_killed() {
    let test =
        "obstacles::folders_above_a_place_are_open_to_its_node_whatever_the_umask_and_whenever_the_restore_is_killed";
    if !may_mount(test) {
        return;
    }
    let place = Place::new(&["Org1/ca"]);
    let network = place.bench.network();
    fs::set_permissions(&network, Permissions::from_mode(0o2750)).unwrap();
    chown(&network, Some(1234), Some(2345)).unwrap();
    fs::set_permissions(&network, Permissions::from_mode(0o2750)).unwrap();
    for umask in [0o077, 0] {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        for number in [0, 1, 2, 3, 4, 5, 6, 7, 8, usize::MAX] {
            fs::remove_dir_all(place.path("Org1")).unwrap();
            killed(&place, number);
            place.restore(&place.options(), &Silent).unwrap_or_else(|error| panic!("{number}: {error}"));
            let made = place.path("Org1").metadata().unwrap();
            assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o2755, 1234, 2345), "{umask:o} {number}");
            assert!(named(&network, "fabkeep-restore-").is_empty());
        }
    }
    let counted = KillBefore::never();
    fs::remove_dir_all(place.path("Org1")).unwrap();
    place.restore(&place.options(), &counted).unwrap();
    assert!(counted.changes().len() > 9);
}
