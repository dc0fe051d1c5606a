//! Names in a place that are not UTF-8: what has them is set aside with everything else, byte for byte.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fabkeep_engine::Silent;

use super::kills::{KillBefore, killed};
use super::mounts::{PRODUCTION, bound, may_mount};
use super::place::{Place, named, tree};

fn odd(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

/// A file, a directory with a file, and a link whose names or target are not UTF-8.
fn put(folder: &Path) {
    fs::write(odd(folder, b"file-\xff"), "1").unwrap();
    fs::create_dir(odd(folder, b"folder-\xfe")).unwrap();
    fs::write(odd(folder, b"folder-\xfe/\xfd"), "2").unwrap();
    std::os::unix::fs::symlink(OsStr::from_bytes(b"to-\xfc"), folder.join("link")).unwrap();
}

fn assert_whole(folder: &Path) {
    assert_eq!(fs::read_to_string(odd(folder, b"file-\xff")).unwrap(), "1");
    assert_eq!(fs::read_to_string(odd(folder, b"folder-\xfe/\xfd")).unwrap(), "2");
    assert_eq!(fs::read_link(folder.join("link")).unwrap().as_os_str().as_bytes(), b"to-\xfc");
}

fn only_aside(place: &Place) -> PathBuf {
    let mut asides = named(&place.bench.network(), ".before-");
    asides.retain(|path| path.is_dir());
    assert_eq!(asides.len(), 1, "{asides:?}");
    asides[0].clone()
}

#[test]
fn in_a_place_that_is_renamed_they_are_set_aside_with_it() {
    let place = Place::new(&["Org1/ca"]);
    put(&place.path("Org1/ca"));
    place.restore(&place.options(), &Silent).unwrap();
    assert_whole(&only_aside(&place));
}

#[test]
fn in_a_mount_point_they_are_set_aside_one_by_one_and_a_kill_loses_none() {
    if !may_mount("odd_names::in_a_mount_point_they_are_set_aside_one_by_one_and_a_kill_loses_none") {
        return;
    }
    let place = Place::new(&["Org1/peer0"]);
    let production = place.path(PRODUCTION);
    bound(&place, &production, "disk");
    put(&production);
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    let good = tree(&production);
    assert_whole(&only_aside(&place));
    let changes = counted.changes();
    for number in changes.iter().enumerate().filter(|(_, what)| **what == "rename").map(|(number, _)| number) {
        fs::remove_dir_all(only_aside(&place)).unwrap();
        put(&production);
        assert!(killed(&place, number), "{number}");
        place.restore(&place.options(), &Silent).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(tree(&production), good, "killed before change {number}");
        assert_whole(&only_aside(&place));
    }
}
