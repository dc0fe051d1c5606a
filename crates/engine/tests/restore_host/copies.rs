//! Restores beside what is there: into another folder, and of what is missing only.

use std::fs;

use fabkeep_engine::{CaptureOptions, Done, EngineError, RestoreOptions, RestoreTarget, Silent};

use fabkeep_ledger::layout::DirectoryRole;

use super::place::Place;

#[test]
fn lines_that_lead_to_the_original_are_named_with_their_new_paths() {
    let place = Place::new(&["Org1/peer0"]);
    let core = place.path("Org1/peer0/config/core.yaml");
    let data = place.path("Org1/peer0/production").display().to_string();
    let text = fs::read_to_string(&core).unwrap();
    fs::write(
        &core,
        format!("# {data} is only a comment\n{text}\nextra:\n  snapshots: {data}/snapshots\n  other: {data}-2\n"),
    )
    .unwrap();
    place.bench.capture(&CaptureOptions::default()).unwrap();
    let to = place.bench.path("copy");
    let options = RestoreOptions { replace: false, ..place.options() };
    let restored = place.bench.restore_to(&RestoreTarget::Folder(to.clone()), &options, &Silent).unwrap();
    let found: Vec<_> = restored.findings.iter().filter(|finding| finding.subject.ends_with("core.yaml")).collect();
    let [finding] = found.as_slice() else { panic!("{:#?}", restored.findings) };
    let number = text.lines().count() + 4;
    let new = to.join("Org1/peer0/production/snapshots");
    let wanted = format!("line {number}: {data}/snapshots is {} here", new.display());
    assert!(
        finding.what.contains(&wanted) || finding.what.contains(&wanted.replace("Org1/peer0/", "")),
        "{}",
        finding.what
    );
    assert!(!finding.what.contains("line 1:") && !finding.what.contains("-2"), "{}", finding.what);
}

#[test]
fn directories_that_are_there_as_captured_need_no_replace() {
    let place = Place::new(&["Org1/peer0"]);
    fs::remove_dir_all(place.path("Org1/peer0/production")).unwrap();
    let before = fs::metadata(place.path("Org1/peer0/msp")).unwrap();
    let restored = place.restore(&RestoreOptions { replace: false, ..place.options() }, &Silent).unwrap();
    assert!(place.path("Org1/peer0/production/ledgersData").is_dir());
    assert!(restored.directories.iter().all(|directory| directory.set_aside.is_none()), "{:#?}", restored.directories);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(place.path("Org1/peer0/msp")).unwrap().ino(), before.ino(), "it was replaced");

    // What is there and differs is refused, and nothing else is touched.
    fs::remove_dir_all(place.path("Org1/peer0/production")).unwrap();
    fs::write(place.path("Org1/peer0/msp/note"), "x").unwrap();
    let findings = super::place::refused(place.restore(&RestoreOptions { replace: false, ..place.options() }, &Silent));
    assert!(
        findings.iter().any(|finding| finding.rule.code() == "B8" && finding.what.contains("msp")),
        "{findings:#?}"
    );
    assert!(!place.path("Org1/peer0/production").exists());
}

/// What was captured inside another directory goes to its own place here, and the other way round; names that settle nothing are refused.
#[test]
fn directories_are_restored_where_this_inventory_names_them() {
    let mut place = Place::new(&["OrdererOrg/orderer1"]);
    let moved = place.bench.path("moved");
    let root = |path: &str| moved.join(path).display().to_string();
    let set = |place: &mut Place, role: DirectoryRole, paths: &[String]| {
        let nodes = place.inventory.organizations.iter_mut().flat_map(|known| &mut known.nodes);
        let node = nodes.into_iter().find(|node| node.name == "orderer1").unwrap();
        let text = format!("{{\"{role}\": {}}}", serde_json::to_string(paths).unwrap());
        let parsed: std::collections::BTreeMap<_, _> = serde_json::from_str(&text).unwrap();
        node.directories.extend(parsed);
    };
    for (role, path) in [
        (DirectoryRole::OrdererLedger, "ledger"),
        (DirectoryRole::OrdererWal, "fast/wal"),
        (DirectoryRole::Msp, "msp"),
        (DirectoryRole::Tls, "tls"),
        (DirectoryRole::Config, "config"),
    ] {
        set(&mut place, role, &[root(path)]);
    }
    let options = RestoreOptions { replace: false, ..place.options() };
    place.restore(&options, &Silent).unwrap();
    assert!(moved.join("fast/wal/mychannel").is_dir() && !moved.join("ledger/etcdraft/wal").exists());
    let (wal, chains) = (super::place::tree(&moved.join("fast/wal")), super::place::tree(&moved.join("ledger/chains")));
    // Captured apart, and one inside the other here.
    place.bench.capture_from(&place.host(), &CaptureOptions { reread: true, ..CaptureOptions::default() }).unwrap();
    let back = place.bench.path("back");
    let below = |path: &str| back.join(path).display().to_string();
    set(&mut place, DirectoryRole::OrdererLedger, &[below("ledger")]);
    set(&mut place, DirectoryRole::OrdererWal, &[below("ledger/raft/wal")]);
    place.restore(&options, &Silent).unwrap();
    assert_eq!(super::place::tree(&back.join("ledger/raft/wal")), wal);
    assert_eq!(super::place::tree(&back.join("ledger/chains")), chains);

    // Two directories of one role: known by the ends of their paths, or not at all.
    std::fs::create_dir_all(moved.join("client/tls")).unwrap();
    for file in std::fs::read_dir(moved.join("tls")).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), moved.join("client/tls").join(file.file_name())).unwrap();
    }
    set(&mut place, DirectoryRole::OrdererLedger, &[root("ledger")]);
    set(&mut place, DirectoryRole::OrdererWal, &[root("fast/wal")]);
    set(&mut place, DirectoryRole::Tls, &[root("tls"), root("client/tls")]);
    place.bench.capture_from(&place.host(), &CaptureOptions { reread: true, ..CaptureOptions::default() }).unwrap();
    for (role, path) in [
        (DirectoryRole::OrdererLedger, "third/ledger"),
        (DirectoryRole::OrdererWal, "third/wal"),
        (DirectoryRole::Msp, "third/msp"),
        (DirectoryRole::Config, "third/config"),
    ] {
        let path = place.bench.path(path).display().to_string();
        set(&mut place, role, &[path]);
    }
    let folder = place.bench.path("third");
    let third = |path: &str| folder.join(path).display().to_string();
    let (one, other) = (third("x"), third("y"));
    set(&mut place, DirectoryRole::Tls, &[one, other]);
    let findings = super::place::refused(place.restore(&options, &Silent));
    let ambiguous = |finding: &&fabkeep_network::Finding| finding.what.contains("may belong to any of");
    assert_eq!(findings.iter().filter(ambiguous).count(), 2, "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.rule.code() == "K3"), "{findings:#?}");
    let (one, other) = (third("client/tls"), third("o/tls"));
    set(&mut place, DirectoryRole::Tls, &[other, one]);
    place.restore(&options, &Silent).unwrap();
    assert!(folder.join("client/tls/server.crt").is_file() && folder.join("o/tls/server.crt").is_file());
}

/// What stands where a directory has to be is a finding with its place.
#[test]
fn a_file_in_a_place_is_a_refusal() {
    let place = Place::new(&["Org1/peer0"]);
    fs::rename(place.path("Org1/peer0/production"), place.path("production")).unwrap();
    fs::write(place.path("Org1/peer0/production"), "x").unwrap();
    let findings = super::place::refused(place.restore(&place.options(), &Silent));
    assert!(findings.iter().any(|finding| finding.rule.code() == "B8" && finding.what.contains("is a file")));
    let to = place.bench.path("file");
    fs::write(&to, "x").unwrap();
    let result = place.bench.restore_to(&RestoreTarget::Folder(to), &place.options(), &Silent);
    assert_eq!(super::place::refused(result)[0].rule.code(), "B8");
}

/// Keeps a copy of the journal as it is when it is about to be removed.
struct KeepJournal(std::sync::Mutex<Option<(std::path::PathBuf, Vec<u8>)>>);

impl fabkeep_engine::Reporter for KeepJournal {
    fn event(&self, _: fabkeep_engine::Event<'_>) {}

    fn changing(&self, what: &'static str, path: &std::path::Path) {
        if what == "remove" && path.extension().is_some_and(|end| end == "journal") {
            *self.0.lock().unwrap() = Some((path.to_path_buf(), fs::read(path).unwrap()));
        }
    }
}

#[test]
fn what_has_changed_since_an_earlier_run_has_put_it_into_place_is_restored_anew() {
    let place = Place::new(&["Org1/peer0"]);
    let tls = place.path("Org1/peer0/tls/server.crt");
    let blocks = place.path("Org1/peer0/production/ledgersData/chains/chains/mychannel/blockfile_000000");
    let before = (fs::read(&tls).unwrap(), fs::read(&blocks).unwrap());
    fs::write(&blocks, "damaged").unwrap();
    let keep = KeepJournal(std::sync::Mutex::default());
    place.restore(&place.options(), &keep).unwrap();
    // As after a kill just before the journal is removed: the node has moved on, or its data went bad.
    let (journal, lines) = keep.0.lock().unwrap().take().unwrap();
    fs::write(&journal, lines).unwrap();
    fs::write(&blocks, "damaged again").unwrap();
    fs::write(&tls, "renewed").unwrap();
    // The refusal names what the earlier run has changed.
    match place.restore(&RestoreOptions { replace: false, ..place.options() }, &Silent) {
        Err(EngineError::Interrupted { done, source, .. }) => {
            assert!(matches!(*source, EngineError::Precondition(_)), "{source:?}");
            assert!(done.iter().any(|done| matches!(done, Done::Placed { .. })), "{done:?}");
        }
        other => panic!("{:?}", other.map(|restored| restored.directories)),
    }
    place.restore(&place.options(), &Silent).unwrap();
    assert!((fs::read(&tls).unwrap(), fs::read(&blocks).unwrap()) == before);
    assert!(!journal.exists());
}

#[test]
fn an_object_that_is_missing_is_known_before_the_first_change() {
    let place = Place::new(&["Org1/peer0"]);
    let repository = place.bench.path("repository");
    for folder in fs::read_dir(repository.join("objects")).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() { fs::remove_dir_all(folder).unwrap() } else { fs::remove_file(folder).unwrap() }
    }
    let before = super::place::tree(&place.bench.network());
    match place.restore(&place.options(), &Silent) {
        Err(EngineError::Store(_)) => {}
        other => panic!("{:?}", other.map(|restored| restored.directories)),
    }
    assert!(super::place::tree(&place.bench.network()) == before);
}

#[test]
fn a_copy_is_not_written_over_data_that_a_process_uses() {
    let place = Place::new(&["Org1/peer0"]);
    let to = place.bench.path("copy");
    let target = RestoreTarget::Folder(to.clone());
    place.bench.restore_to(&target, &place.options(), &Silent).unwrap();
    let lock = to.join("Org1/peer0/production/ledgersData/pvtdataStore/LOCK");
    let lock = if lock.parent().unwrap().exists() { lock } else { to.join("production/ledgersData/pvtdataStore/LOCK") };
    fs::write(&lock, "").unwrap();
    let held = super::bench::lock(&lock);
    let findings = super::place::refused(place.bench.restore_to(&target, &place.options(), &Silent));
    assert!(findings.iter().any(|finding| finding.rule.code() == "P6"), "{findings:#?}");
    drop(held);
}

#[test]
fn a_journal_is_never_written_through_a_link_and_two_restores_do_not_work_in_one_place() {
    let place = Place::new(&["Org1/peer0"]);
    let commit = place.bench.repository().point("latest").unwrap();
    let journal = place.path("Org1/peer0").join(format!(".fabkeep-restore-{}.journal", commit.id));
    let victim = place.bench.path("victim");
    fs::write(&victim, "not yours").unwrap();
    std::os::unix::fs::symlink(&victim, &journal).unwrap();
    match place.restore(&place.options(), &Silent) {
        Err(EngineError::Usage(misuse)) => {
            assert!(misuse.problem.contains("no file that a restore has written"), "{misuse:?}");
        }
        other => panic!("{:?}", other.map(|restored| restored.directories)),
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "not yours");
    fs::remove_file(&journal).unwrap();

    // Another restore works beside the same place, of whichever recovery point.
    let other = fs::File::open(place.path("Org1/peer0")).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    match place.restore(&place.options(), &Silent) {
        Err(EngineError::Usage(misuse)) => assert!(misuse.problem.contains("another fabkeep"), "{misuse:?}"),
        other => panic!("{:?}", other.map(|restored| restored.directories)),
    }
    drop(other);
    place.restore(&place.options(), &Silent).unwrap();
}
