//! Places that are one directory under two paths, or lie where a restore must not write: in another node's data, in the repository.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use fabkeep_engine::{RestoreOptions, RestoreTarget, Silent};
use fabkeep_network::Finding;

use super::mounts::{PRODUCTION, may_mount, mount, unmount};
use super::place::{Place, refused, tree};

/// The restore is refused for this rule with these words, and nothing changes.
fn assert_refused(place: &Place, rule: &str, words: &[&str], restore: impl Fn() -> Vec<Finding>) {
    let before = tree(place.bench.folder.path());
    let findings = restore();
    let said = |finding: &Finding| {
        finding.rule.code() == rule && words.iter().all(|word| format!("{finding:?}").contains(word))
    };
    assert!(findings.iter().any(said), "{rule} {words:?}: {findings:#?}");
    assert!(tree(place.bench.folder.path()) == before, "{rule} {words:?}");
}

fn bind(from: &Path, at: &Path) {
    mount(&["--bind", from.to_str().unwrap()], at);
}

#[test]
fn a_directory_that_a_bind_mount_shows_as_two_nodes_is_not_written_twice() {
    if !may_mount("same_place::a_directory_that_a_bind_mount_shows_as_two_nodes_is_not_written_twice") {
        return;
    }
    let both = Place::new(&["Org1/peer0", "Org1/peer1"]);
    let only = |node: &str| RestoreOptions { nodes: vec![node.to_owned()], ..both.options() };
    let all_refused = |words: &[&str]| {
        for options in [both.options(), only("Org1/peer0"), only("Org1/peer1")] {
            assert_refused(&both, "B8", words, || refused(both.restore(&options, &Silent)));
        }
    };
    let (first, second) = (both.path(PRODUCTION), both.path("Org1/peer1/production"));
    // The whole directory, a part of each, one inside the other.
    bind(&first, &second);
    all_refused(&["Org1/peer0", "Org1/peer1"]);
    unmount(&second);
    bind(&first.join("ledgersData/chains"), &second.join("ledgersData/chains"));
    all_refused(&["ledgersData/chains"]);
    unmount(&second.join("ledgersData/chains"));
    fs::create_dir(first.join("inside")).unwrap();
    bind(&first.join("inside"), &second);
    all_refused(&["Org1/peer0", "Org1/peer1"]);
    unmount(&second);
    bind(&second, &first.join("inside"));
    all_refused(&["Org1/peer0", "Org1/peer1"]);
    unmount(&first.join("inside"));
    both.restore(&both.options(), &Silent).unwrap();
}

#[test]
fn a_link_to_another_nodes_directory_is_not_replaced() {
    let place = Place::new(&["Org1/peer1"]);
    let second = place.path("Org1/peer1/production");
    fs::remove_dir_all(&second).unwrap();
    symlink(place.path(PRODUCTION), &second).unwrap();
    assert_refused(&place, "B8", &["Org1/peer0"], || refused(place.restore(&place.options(), &Silent)));
    // A place that is not there yet, below a link.
    fs::remove_file(&second).unwrap();
    fs::rename(place.path("Org1/peer0"), place.bench.path("peer0")).unwrap();
    fs::rename(place.path("Org1/peer1"), place.bench.path("peer1")).unwrap();
    fs::create_dir(place.bench.path("empty")).unwrap();
    symlink(place.bench.path("empty"), place.path("Org1/peer0")).unwrap();
    symlink(place.bench.path("empty"), place.path("Org1/peer1")).unwrap();
    assert_refused(&place, "B8", &["Org1/peer0"], || refused(place.restore(&place.options(), &Silent)));
}

#[test]
fn a_copy_lies_neither_in_a_captured_nodes_data_nor_in_the_repository_nor_around_it() {
    let place = Place::new(&["Org1/peer0"]);
    let options = RestoreOptions { replace: false, ..place.options() };
    let below =
        |to: &Path| refused(place.bench.restore_to(&RestoreTarget::Folder(to.to_path_buf()), &options, &Silent));
    let production = place.path("Org1/peer1/production");
    assert_refused(&place, "B8", &["Org1/peer1"], || below(&production.join("a/copy")));
    let link = place.bench.path("link");
    symlink(&production, &link).unwrap();
    assert_refused(&place, "B8", &["Org1/peer1"], || below(&link));
    let repository = place.bench.path("repository");
    assert_refused(&place, "R1", &["repository"], || below(&repository.join("out")));
    assert_refused(&place, "R1", &["repository"], || below(place.bench.folder.path()));
    // In place by its own folder, and beside everything else.
    let restored = place.bench.restore_to(&RestoreTarget::Folder(place.bench.network()), &place.options(), &Silent);
    restored.unwrap();
    place.bench.restore_to(&RestoreTarget::Folder(place.bench.path("copy")), &options, &Silent).unwrap();
}

#[test]
fn a_repository_inside_of_a_place_is_not_set_aside_while_it_is_read() {
    let place = Place::new(&["Org1/ca"]);
    let inside = place.path("Org1/ca/repository");
    fs::rename(place.bench.path("repository"), &inside).unwrap();
    symlink(&inside, place.bench.path("repository")).unwrap();
    assert_refused(&place, "R1", &["Org1/ca"], || refused(place.restore(&place.options(), &Silent)));
}
