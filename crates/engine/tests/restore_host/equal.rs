//! Block files that are in a place as they were captured stay, and what was set aside can be made whole again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fabkeep_engine::{
    CaptureOptions, KeptFiles, RestoreOptions, RestorePlan, RestoreStep, RestoreTarget, Restored, Silent,
};

use super::kills::{KillBefore, killed};
use super::place::{Place, named, remove_asides, tree};

const PRODUCTION: &str = "Org1/peer0/production";
const CHAINS: &str = "ledgersData/chains/chains";

fn block_file(place: &Place, channel: &str) -> PathBuf {
    place.path(PRODUCTION).join(CHAINS).join(channel).join("blockfile_000000")
}

/// Every file below a folder, what was set aside there too, by its inode.
fn inodes(folder: &Path) -> BTreeMap<(u64, u64), Vec<PathBuf>> {
    let mut out: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    for path in named(folder, "") {
        let found = path.symlink_metadata().unwrap();
        if found.is_file() {
            out.entry((found.dev(), found.ino())).or_default().push(path);
        }
    }
    out
}

fn assert_no_file_has_two_names(folder: &Path) {
    let shared: Vec<_> = inodes(folder).into_values().filter(|names| names.len() > 1).collect();
    assert!(shared.is_empty(), "{shared:?}");
}

/// What a restore makes of the peer's data.
fn as_restored(place: &Place) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let options = RestoreOptions { replace: false, ..place.options() };
    let to = place.bench.path("expected");
    place.bench.restore_to(&RestoreTarget::Folder(to.clone()), &options, &Silent).unwrap();
    let found = [to.join(PRODUCTION), to.join("production")].into_iter().find(|path| path.is_dir()).unwrap();
    let expected = tree(&found);
    fs::remove_dir_all(to).unwrap();
    expected
}

fn aside_of(restored: &Restored, end: &str) -> PathBuf {
    let of = restored.directories.iter().find(|directory| directory.path.ends_with(end)).unwrap();
    of.set_aside.clone().unwrap()
}

/// Makes what was set aside whole again, as docs/runbook.md says, and returns it.
fn go_back(place: &Path, aside: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let script = r#"while read -r size path; do
            cp -a "$PLACE/$path" "$PLACE.before-$POINT/$path" && truncate -s "$size" "$PLACE.before-$POINT/$path"
        done < "$PLACE.before-$POINT.kept""#;
    let point = aside.to_str().unwrap().split_once(".before-").unwrap().1;
    let status =
        Command::new("sh").args(["-e", "-c", script]).env("PLACE", place).env("POINT", point).status().unwrap();
    assert!(status.success());
    tree(aside)
}

#[test]
fn block_files_that_are_there_as_captured_stay_and_all_else_is_set_aside() {
    let place = Place::new(&["Org1/peer0"]);
    let expected = as_restored(&place);
    let (good, bad) = (block_file(&place, "mychannel"), block_file(&place, "settlement"));
    let mut bytes = fs::read(&bad).unwrap();
    bytes[1000] ^= 1;
    fs::write(&bad, bytes).unwrap();
    fs::write(place.path(PRODUCTION).join("MARK"), "was there").unwrap();
    fs::set_permissions(&good, fs::Permissions::from_mode(0o666)).unwrap();
    let kept = fs::metadata(&good).unwrap();
    let before = tree(&place.path(PRODUCTION));

    let repository = place.bench.repository();
    let commit = repository.point("latest").unwrap();
    let (host, identity) = (place.host(), place.bench.identity());
    let target = RestoreTarget::Host(&host);
    let plan = RestorePlan::make(&repository, &commit, &identity, &target, &place.options()).unwrap();
    let figures = KeptFiles { files: 1, bytes: kept.len() };
    assert_eq!(plan.kept, figures);
    let of_steps = plan.steps.iter().filter_map(|step| match step {
        RestoreStep::Write { kept, .. } if !kept.is_empty() => Some(*kept),
        _ => None,
    });
    assert_eq!(of_steps.collect::<Vec<_>>(), [figures]);
    let restored = plan.execute(&Silent).unwrap();

    assert_eq!(restored.kept, figures);
    assert_eq!(tree(&place.path(PRODUCTION)), expected);
    assert_eq!(fs::metadata(&good).unwrap().ino(), kept.ino(), "it was written anew");
    assert_eq!(fs::metadata(&good).unwrap().nlink(), 1);
    assert_no_file_has_two_names(&place.bench.network());

    // What the node had is in one of the two places, and can be put together again.
    let aside = aside_of(&restored, "production");
    let list = fs::read_to_string(format!("{}.kept", aside.display())).unwrap();
    assert_eq!(list, format!("{} {CHAINS}/mychannel/blockfile_000000\n", kept.len()));
    assert!(!aside.join(CHAINS).join("mychannel/blockfile_000000").exists());
    let mut set_aside = tree(&aside);
    for (path, (mode, bytes)) in &before {
        match set_aside.remove(path) {
            Some(found) => assert!(found == (*mode, bytes.clone()), "{}", path.display()),
            None => assert!(list.contains(path.to_str().unwrap()), "{} is lost", path.display()),
        }
    }
    assert!(set_aside.is_empty());
    // The node appends to it: what is set aside has no part in that, and is made whole again.
    let mut grown = fs::read(&good).unwrap();
    grown.extend(b"the next block");
    fs::write(&good, grown).unwrap();
    let back = go_back(&place.path(PRODUCTION), &aside);
    let bytes = |tree: &BTreeMap<PathBuf, (u32, Vec<u8>)>| -> BTreeMap<PathBuf, Vec<u8>> {
        tree.iter().map(|(path, (_, bytes))| (path.clone(), bytes.clone())).collect()
    };
    assert!(bytes(&back) == bytes(&before));
}

#[test]
fn size_and_time_are_no_evidence() {
    let place = Place::new(&["Org1/peer0"]);
    let file = block_file(&place, "mychannel");
    let (before, metadata) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap());
    let mut bytes = before.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
    let restored = place.restore(&place.options(), &Silent).unwrap();
    assert_eq!(restored.kept.files, 1, "{:?}", restored.kept);
    assert!(fs::read(&file).unwrap() == before);
    let aside = aside_of(&restored, "production").join(CHAINS).join("mychannel/blockfile_000000");
    assert!(fs::read(aside).unwrap() == bytes);
}

#[test]
fn a_file_that_has_another_name_is_written_anew() {
    let place = Place::new(&["Org1/peer0"]);
    let file = block_file(&place, "mychannel");
    let copy = place.bench.path("backup-by-links");
    fs::hard_link(&file, &copy).unwrap();
    let before = fs::metadata(&copy).unwrap();
    fs::write(place.path(PRODUCTION).join("MARK"), "").unwrap();
    let restored = place.restore(&place.options(), &Silent).unwrap();
    assert_eq!(restored.kept.files, 1);
    assert_ne!(fs::metadata(&file).unwrap().ino(), before.ino());
    let aside = aside_of(&restored, "production").join(CHAINS).join("mychannel/blockfile_000000");
    assert_eq!(fs::metadata(aside).unwrap().ino(), before.ino());
}

#[test]
fn files_of_another_node_behind_a_link_are_not_taken() {
    let place = Place::new(&["Org1/peer0"]);
    let chains = place.path(PRODUCTION).join(CHAINS);
    let other = place.path("Org1/peer1/production").join(CHAINS);
    let before = tree(&other);
    fs::remove_dir_all(&chains).unwrap();
    // A copy of what was captured, in the other node's directory.
    fs::remove_dir_all(&other).unwrap();
    let to = place.bench.path("copy");
    let options = RestoreOptions { replace: false, ..place.options() };
    place.bench.restore_to(&RestoreTarget::Folder(to.clone()), &options, &Silent).unwrap();
    let copied = named(&to, "chains").into_iter().find(|path| path.ends_with(CHAINS)).unwrap();
    assert!(Command::new("cp").arg("-a").arg(copied).arg(&other).status().unwrap().success());
    symlink(&other, &chains).unwrap();
    let there = inodes(&other);
    let restored = place.restore(&place.options(), &Silent).unwrap();
    assert!(restored.kept.is_empty(), "{:?}", restored.kept);
    assert!(!chains.is_symlink());
    assert!(inodes(&chains).keys().all(|inode| !there.contains_key(inode)));
    assert_eq!(tree(&other).keys().count(), before.keys().count());
}

/// As it is after a kill before the first rename: files that stay have two names.
fn killed_before_the_switch(place: &Place) {
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    remove_asides(&place.bench.network());
    fs::write(place.path(PRODUCTION).join("MARK"), "").unwrap();
    let first = counted.changes().iter().rposition(|what| *what == "keep").unwrap() + 40;
    assert!(killed(place, first));
    let linked = fs::metadata(block_file(place, "mychannel")).unwrap();
    assert_eq!(linked.nlink(), 2, "it has no second name yet");
}

#[test]
fn a_node_that_ran_after_a_kill_loses_nothing_that_it_has_appended() {
    let place = Place::new(&["Org1/peer0"]);
    let expected = as_restored(&place);
    fs::write(place.path(PRODUCTION).join("MARK"), "").unwrap();
    killed_before_the_switch(&place);
    // The node was started, and has written to a file that has a second name.
    let file = block_file(&place, "mychannel");
    let mut grown = fs::read(&file).unwrap();
    grown.extend(b"the next block");
    fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut open| std::io::Write::write_all(&mut open, b"the next block"))
        .unwrap();
    let restored =
        place.restore(&RestoreOptions { overrides: vec!["B11".to_owned()], ..place.options() }, &Silent).unwrap();
    assert_eq!(tree(&place.path(PRODUCTION)), expected);
    let aside = aside_of(&restored, "production");
    assert!(fs::read(aside.join(CHAINS).join("mychannel/blockfile_000000")).unwrap() == grown);
    assert_eq!(restored.kept.files, 1);
    assert_no_file_has_two_names(&place.bench.network());
}

#[test]
fn a_restore_that_is_given_up_before_the_switch_has_taken_nothing() {
    let place = Place::new(&["Org1/peer0"]);
    fs::write(place.path(PRODUCTION).join("MARK"), "").unwrap();
    killed_before_the_switch(&place);
    let before = tree(&place.path(PRODUCTION));
    for left in named(&place.bench.network(), ".fabkeep-restore-") {
        if left.is_dir() { fs::remove_dir_all(left).unwrap() } else { fs::remove_file(left).unwrap() }
    }
    assert_eq!(tree(&place.path(PRODUCTION)), before);
    assert_no_file_has_two_names(&place.bench.network());
}

#[test]
fn killed_before_every_change_of_the_switch_no_file_is_lost_or_has_two_names() {
    let place = Place::new(&["Org1/peer0"]);
    let expected = as_restored(&place);
    let prepare = || {
        remove_asides(&place.bench.network());
        fs::write(place.path(PRODUCTION).join("MARK"), "was there").unwrap();
    };
    prepare();
    let counted = KillBefore::never();
    let kept = place.restore(&place.options(), &counted).unwrap().kept;
    assert_eq!(kept.files, 2);
    let changes = counted.changes();
    let keeps = changes.iter().position(|what| *what == "keep").unwrap();
    let switch = changes.iter().position(|what| *what == "rename").unwrap() - 3;
    let numbers: BTreeSet<usize> = (keeps..keeps + 3).chain(switch..changes.len()).collect();
    for number in numbers {
        prepare();
        let had: BTreeMap<PathBuf, Vec<u8>> =
            tree(&place.path(PRODUCTION)).into_iter().map(|(path, (_, bytes))| (path, bytes)).collect();
        killed(&place, number);
        let restored = place.restore(&place.options(), &Silent).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(tree(&place.path(PRODUCTION)), expected, "killed before change {number}, {}", changes[number]);
        assert_no_file_has_two_names(&place.bench.network());
        let asides: Vec<PathBuf> = named(&place.path("Org1/peer0"), "production.before-");
        let aside = asides.iter().find(|path| path.is_dir()).unwrap_or_else(|| panic!("{number}: {asides:?}"));
        if restored.kept.is_empty() {
            // The run that was killed had ended, and what this one found was as captured.
            assert!(restored.directories.is_empty(), "{number}: {:?}", restored.directories);
        }
        let back = go_back(&place.path(PRODUCTION), aside);
        for (path, bytes) in had {
            assert!(back.get(&path).is_some_and(|(_, found)| *found == bytes), "{number}: {} is lost", path.display());
        }
    }
}

/// Ends of the records of a block file: each is its length (a varint) and as many bytes.
fn record_ends(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (0, Vec::new());
    while at < bytes.len() {
        let (mut len, mut shift) = (0usize, 0);
        loop {
            let byte = bytes[at];
            at += 1;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        at += len;
        ends.push(at);
    }
    ends
}

#[test]
fn of_a_chain_of_several_files_only_the_bad_ones_are_written() {
    let place = Place::new(&["OrdererOrg/orderer1"]);
    let chain = place.path("OrdererOrg/orderer1/production/chains/mychannel");
    let file = |number: usize| chain.join(format!("blockfile_{number:06}"));
    // As if a file held fewer blocks than an orderer lets it hold.
    let bytes = fs::read(file(0)).unwrap();
    let ends = record_ends(&bytes);
    let parts = [0, ends[ends.len() / 4], ends[ends.len() / 2], ends[ends.len() * 3 / 4], bytes.len()];
    for (number, part) in parts.windows(2).enumerate() {
        fs::write(file(number), &bytes[part[0]..part[1]]).unwrap();
    }
    let options = CaptureOptions { reread: true, ..CaptureOptions::default() };
    place.bench.capture(&options).unwrap();
    let expected = tree(&chain);
    assert_eq!(expected.len(), 4);
    for bad in [&[0][..], &[3], &[1, 2], &[0, 3], &[0, 2], &[0, 1, 2, 3]] {
        for &number in bad {
            let mut bytes = fs::read(file(number)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file(number), bytes).unwrap();
        }
        let before = inodes(&chain);
        let restored = place.restore(&place.options(), &Silent).unwrap();
        assert_eq!(restored.kept.files, 1 + 4 - bad.len() as u64, "{bad:?}");
        assert_eq!(tree(&chain), expected, "{bad:?}");
        let same = inodes(&chain).keys().filter(|inode| before.contains_key(inode)).count();
        assert_eq!(same, 4 - bad.len(), "{bad:?}");
        let walked = |sentence: &String| sentence.contains("mychannel: every chain walked on 1 node");
        assert!(restored.proven.iter().any(walked), "{restored:#?}");
        remove_asides(&place.bench.network());
    }
}
