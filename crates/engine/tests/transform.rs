//! What a restore makes of a recovery point: orderers levelled to one donor, a peer with another's ledger.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bench::Bench;
use fabkeep_engine::{CaptureOptions, EngineError, LedgerFrom, RaftSource, RestoreOptions, RestoreTarget, Restored};
use fabkeep_fixtures::Growth;
use fabkeep_ledger::raft::{FIRST_LOG_FILE, SEGMENT_BYTES, check_wal_directory, newest_snapshot};
use fabkeep_network::{Remedy, Severity};
use fabkeep_platform::{Host, Inventory};

const ORDERERS: [&str; 3] = ["orderer1", "orderer2", "orderer3"];

/// Every file's bytes, by path below `folder`.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                out.insert(path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    out
}

fn same(a: &BTreeMap<PathBuf, Vec<u8>>, b: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    let other = a.iter().find(|(path, bytes)| b[*path] != **bytes).map(|(path, _)| path);
    assert!(other.is_none(), "{what}: {other:?} differs");
}

fn as_captured() -> RestoreOptions {
    RestoreOptions { raft_state: RaftSource::Captured, ..RestoreOptions::default() }
}

fn reported<'a>(restored: &'a Restored, code: &'a str) -> impl Iterator<Item = &'a fabkeep_network::Finding> {
    restored.findings.iter().filter(move |finding| finding.rule.code() == code)
}

/// An orderer as it was a while ago: its production directory is put back after the network grew.
fn grown_without(bench: &Bench, orderers: &[&str], blocks: u64) {
    let production = |orderer: &str| bench.network().join("OrdererOrg").join(orderer).join("production");
    let kept: Vec<_> = orderers.iter().map(|orderer| (production(orderer), files(&production(orderer)))).collect();
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(blocks - 5, 2).unwrap();
    growth.compact().unwrap();
    growth.grow(5, 2).unwrap();
    for (folder, before) in kept {
        std::fs::remove_dir_all(&folder).unwrap();
        for (path, bytes) in before {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// What an orderer's raft state of a channel must be when it was written from the last block of a chain of this height.
fn assert_rebuilt(production: &Path, channel: &str, height: u64) {
    let (log, snapshots) =
        (production.join("etcdraft/wal").join(channel), production.join("etcdraft/snapshot").join(channel));
    assert_eq!(files(&log).keys().collect::<Vec<_>>(), [Path::new(FIRST_LOG_FILE)], "{}", log.display());
    let file = log.join(FIRST_LOG_FILE).metadata().unwrap();
    assert_eq!((file.len(), file.mode() & 0o777), (SEGMENT_BYTES, 0o600));
    assert!(file.blocks() * 512 < 1 << 20, "the preallocated rest is a hole");
    let log = check_wal_directory(&log, |_, _| {}).unwrap();
    assert_eq!(files(&snapshots).len(), 1);
    let snapshot = newest_snapshot(&snapshots).unwrap().unwrap();
    assert_eq!((log.last_index, log.commit, log.term), (None, snapshot.index, snapshot.term));
    assert_eq!(log.snapshots.last(), Some(&(snapshot.term, snapshot.index)));
    assert_eq!(snapshot.block, Some(height - 1));
    assert_eq!(bench::height(&production.join("chains").join(channel)), height);
}

#[test]
fn raft_state_is_written_from_the_last_block_when_all_consenters_come_back_together() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    grown_without(&bench, &["orderer1", "orderer3"], 30);
    bench.capture(&CaptureOptions { include_derived: true, ..CaptureOptions::default() }).unwrap();
    let restored = bench.restore_below("restored", &RestoreOptions::default()).unwrap();
    let notes: Vec<_> = reported(&restored, "O2").collect();
    assert_eq!(notes.iter().map(|note| note.subject.as_str()).collect::<Vec<_>>(), ["mychannel", "settlement"]);
    assert!(notes.iter().all(|note| note.severity == Severity::Note), "{notes:?}");
    let what = &notes[0].what;
    assert!(
        what.contains("raft state created from block 56 (raft index")
            && what
                .contains("orderer1 and OrdererOrg/orderer3 get the chain of OrdererOrg/orderer2, which has height 57"),
        "{what}"
    );
    assert!(notes[1].what.contains("from block 7 ") && !notes[1].what.contains("get the chain"), "{notes:?}");
    let folder = |orderer: &str| bench.path("restored").join("OrdererOrg").join(orderer).join("production");
    let captured = |orderer: &str| bench.network().join("OrdererOrg").join(orderer).join("production");
    // The highest term of the three: that of the one that took a snapshot.
    let term = check_wal_directory(&captured("orderer2").join("etcdraft/wal/mychannel"), |_, _| {}).unwrap().term;
    for orderer in ORDERERS {
        for (channel, height) in [("mychannel", 57), ("settlement", 8)] {
            assert_rebuilt(&folder(orderer), channel, height);
            let state = |orderer: &str| files(&folder(orderer).join("etcdraft"));
            same(&state("orderer1"), &state(orderer), "all are given the same");
            // A chain that is at the height stays the orderer's own, with its own signatures.
            let donor = if channel == "mychannel" { "orderer2" } else { orderer };
            let chain = format!("chains/{channel}");
            same(&files(&captured(donor).join(&chain)), &files(&folder(orderer).join(&chain)), &chain);
        }
        let log = check_wal_directory(&folder(orderer).join("etcdraft/wal/mychannel"), |_, _| {}).unwrap();
        assert_eq!(log.term, term);
        let index = std::fs::read_dir(folder(orderer).join("index")).map_or(0, Iterator::count);
        assert_eq!(index > 0, orderer == "orderer2", "an index of other block files would lead {orderer} astray");
    }

    // What was restored is complete in the next recovery point, before its nodes ran.
    bench.restore(&RestoreOptions { replace: true, ..RestoreOptions::default() }).unwrap();
    for orderer in ORDERERS {
        assert_rebuilt(&captured(orderer), "mychannel", 57);
    }
    let again = bench.capture(&CaptureOptions::default()).unwrap();
    let errors = again.point.findings.iter().filter(|finding| finding.severity != Severity::Note);
    assert_eq!(errors.count(), 0, "{:?}", again.point.findings);
    let restored = bench.restore_below("again", &RestoreOptions::default()).unwrap();
    assert!(reported(&restored, "O2").any(|note| note.what.contains(&format!("term {term}"))), "the term is kept");
}

#[test]
fn raft_state_goes_to_where_each_orderer_keeps_it() {
    raft_state_finds_its_place(&CaptureOptions::default());
}

#[test]
fn raft_state_goes_to_where_each_orderer_kept_its_logs_that_are_not_stored() {
    raft_state_finds_its_place(&CaptureOptions { without_raft_logs: true, ..CaptureOptions::default() });
}

fn raft_state_finds_its_place(options: &CaptureOptions) {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut inventory = "network = \"apart\"\n[[organization]]\nname = \"OrdererOrg\"\n".to_owned();
    for orderer in ORDERERS {
        let home = format!("network/OrdererOrg/{orderer}");
        let raft = bench.network().join("OrdererOrg").join(orderer).join("production/etcdraft");
        inventory += &format!(
            "[[organization.node]]\nname = \"{orderer}\"\nrole = \"orderer\"\n[organization.node.directories]\n\
             orderer-ledger = \"{home}/production\"\nmsp = \"{home}/msp\"\ntls = \"{home}/tls\"\n"
        );
        // The logs on a volume of their own, both on volumes of their own, both in one folder.
        inventory += match orderer {
            "orderer1" => {
                std::fs::rename(raft.join("wal"), bench.path("wal1")).unwrap();
                "orderer-wal = \"wal1\"\n"
            }
            "orderer2" => {
                std::fs::rename(raft.join("wal"), bench.path("wal2")).unwrap();
                std::fs::rename(raft.join("snapshot"), bench.path("snapshots2")).unwrap();
                "orderer-wal = \"wal2\"\norderer-snapshots = \"snapshots2\"\n"
            }
            _ => {
                std::fs::rename(raft.join("wal"), bench.path("raft3")).unwrap();
                std::fs::remove_dir_all(raft.join("snapshot")).unwrap();
                "orderer-wal = \"raft3\"\n"
            }
        };
    }
    std::fs::write(bench.path("fabkeep.toml"), inventory).unwrap();
    let host = Host::new(&Inventory::read(&bench.path("fabkeep.toml")).unwrap(), bench.folder.path()).unwrap();
    bench.capture_from(&host, options).unwrap();
    for lost in ["network/OrdererOrg", "wal1", "wal2", "snapshots2", "raft3"] {
        std::fs::remove_dir_all(bench.path(lost)).unwrap();
    }
    let options = RestoreOptions { replace: true, ..RestoreOptions::default() };
    bench.restore_to(&RestoreTarget::Host(&host), &options, &fabkeep_engine::Silent).unwrap();
    let places = [
        ("wal1", "network/OrdererOrg/orderer1/production/etcdraft/snapshot"),
        ("wal2", "snapshots2"),
        ("raft3", "raft3"),
    ];
    for (logs, snapshots) in places {
        let (logs, snapshots) = (bench.path(logs).join("mychannel"), bench.path(snapshots).join("mychannel"));
        let log = check_wal_directory(&logs, |_, _| {}).unwrap();
        let snapshot = newest_snapshot(&snapshots).unwrap().unwrap();
        assert_eq!((log.commit, log.files, snapshot.block), (snapshot.index, 1, Some(26)), "{}", logs.display());
    }
    let again = bench.capture_from(&host, &CaptureOptions::default()).unwrap();
    assert!(again.point.nodes.iter().flat_map(|node| &node.facts.raft).all(|raft| raft.snapshot.is_some()));
}

#[test]
fn raft_state_is_as_captured_where_a_consenter_is_not_among_those_that_come_back() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let log = |folder: &Path, orderer: &str| {
        let logs = folder.join("OrdererOrg").join(orderer).join("production/etcdraft/wal/settlement");
        std::fs::read(logs.join(FIRST_LOG_FILE)).unwrap()
    };
    let is_as_captured = |name: &str, orderer: &str| log(&bench.path(name), orderer) == log(&bench.network(), orderer);
    bench.restore_below("all", &RestoreOptions::default()).unwrap();
    assert!(!is_as_captured("all", "orderer1"));
    let nodes = ["OrdererOrg/orderer1", "OrdererOrg/orderer2"].map(str::to_owned).to_vec();
    bench.restore_below("two", &RestoreOptions { nodes, ..RestoreOptions::default() }).unwrap();
    assert!(is_as_captured("two", "orderer1") && is_as_captured("two", "orderer2"));
    let replicate = vec!["OrdererOrg/orderer3".to_owned()];
    bench.restore_below("replicated", &RestoreOptions { replicate, ..RestoreOptions::default() }).unwrap();
    assert!(is_as_captured("replicated", "orderer1"));
    bench.restore_below("asked", &as_captured()).unwrap();
    assert!(is_as_captured("asked", "orderer1"));
    // The third consenter may run elsewhere.
    let exclude = vec!["OrdererOrg/orderer3".to_owned()];
    bench.capture(&CaptureOptions { exclude, ..CaptureOptions::default() }).unwrap();
    bench.restore_below("excluded", &RestoreOptions::default()).unwrap();
    assert!(is_as_captured("excluded", "orderer1"));
}

#[test]
fn captured_raft_state_is_levelled_to_the_highest_orderers_also_with_derived_data() {
    for include_derived in [false, true] {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        grown_without(&bench, &["orderer1", "orderer3"], 30);
        let captured = bench.capture(&CaptureOptions { include_derived, ..CaptureOptions::default() }).unwrap();
        assert!(captured.point.findings.iter().any(|finding| finding.rule.code() == "O2"), "the capture tells it");

        let restored = bench.restore_below("restored", &as_captured()).unwrap();
        let note = reported(&restored, "O2").next().unwrap();
        assert_eq!((note.severity, note.subject.as_str()), (Severity::Note, "mychannel"), "{note:?}");
        assert!(note.what.contains("OrdererOrg/orderer2"), "{note:?}");
        let folder = |orderer: &str| bench.path("restored").join("OrdererOrg").join(orderer).join("production");
        let donor = bench.network().join("OrdererOrg/orderer2/production");
        for orderer in ORDERERS {
            for part in ["chains/mychannel", "etcdraft/wal/mychannel", "etcdraft/snapshot/mychannel"] {
                let whole = |folder: &Path| -> BTreeMap<_, _> {
                    let all = files(&folder.join(part)).into_iter();
                    all.filter(|(path, _)| path.extension().is_none_or(|end| end != "tmp")).collect()
                };
                same(&whole(&donor), &whole(&folder(orderer)), &format!("{orderer} {part}"));
            }
            // An index of other block files would lead the orderer astray.
            let index = std::fs::read_dir(folder(orderer).join("index")).map_or(0, Iterator::count);
            assert_eq!(index > 0, include_derived && orderer == "orderer2", "{orderer}");
            // The other channel is level: every orderer keeps its own.
            let own = bench.network().join("OrdererOrg").join(orderer).join("production/chains/settlement");
            same(&files(&own), &files(&folder(orderer).join("chains/settlement")), orderer);
        }
        let heights: BTreeSet<u64> =
            bench::chains(&bench.path("restored"), "mychannel").iter().map(|chain| bench::height(chain)).collect();
        assert_eq!(heights, BTreeSet::from([57]));

        // One of them alone is restored as it was; the plan says what that means.
        let one = RestoreOptions { nodes: vec!["OrdererOrg/orderer1".to_owned()], ..RestoreOptions::default() };
        let restored = bench.restore_below("one", &one).unwrap();
        assert!(reported(&restored, "O2").all(|finding| finding.severity == Severity::Warning));
        assert!(reported(&restored, "O2").any(|finding| finding.subject == "1 of 3 orderers"));
        let chain = bench.path("one/OrdererOrg/orderer1/production/chains/mychannel");
        assert_eq!(bench::height(&chain), 27);
    }
}

#[test]
fn a_set_without_a_quorum_of_consenters_is_told() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let exclude = ["OrdererOrg/orderer1", "OrdererOrg/orderer3"].map(str::to_owned).to_vec();
    bench.capture(&CaptureOptions { exclude, ..CaptureOptions::default() }).unwrap();
    let restored = bench.restore_below("restored", &RestoreOptions::default()).unwrap();
    let warnings: Vec<_> =
        reported(&restored, "O2").filter(|finding| finding.what.contains("1 of its 3 consenters")).collect();
    assert_eq!(warnings.len(), 2, "one for each channel: {warnings:?}");
}

#[test]
fn raft_state_is_as_captured_where_the_last_block_does_not_tell_it() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().without_consenters().grow(1, 2).unwrap();
    bench.capture(&CaptureOptions::default()).unwrap();
    let restored = bench.restore_below("restored", &RestoreOptions::default()).unwrap();
    let note = reported(&restored, "O2").find(|finding| finding.subject == "mychannel").unwrap();
    assert!(note.severity == Severity::Note && note.what.contains("as it was captured"), "{note:?}");
    let log = Path::new("OrdererOrg/orderer1/production/etcdraft/wal");
    let (before, after) = (bench.network().join(log), bench.path("restored").join(log));
    let read = |folder: &Path, channel: &str| std::fs::read(folder.join(channel).join(FIRST_LOG_FILE)).unwrap();
    assert!(read(&before, "mychannel") == read(&after, "mychannel"));
    assert!(read(&before, "settlement") != read(&after, "settlement"), "the other channel is not affected");
}

/// Orderers that are one block behind.
fn cut_last_block(bench: &Bench, orderers: &[&str]) {
    for orderer in orderers {
        let chains = bench.network().join("OrdererOrg").join(orderer).join("production/chains");
        let chain = std::fs::read_dir(&chains).unwrap().next().unwrap().unwrap().path();
        let height = bench::height(&chain);
        let file = chain.join("blockfile_000000");
        // One block: its log may propose the next one, and no later one.
        let end = bench::offset_of_block(&file, height - 1);
        std::fs::File::options().write(true).open(&file).unwrap().set_len(end).unwrap();
        // The index would be ahead.
        std::fs::remove_dir_all(chains.parent().unwrap().join("index")).unwrap();
    }
}
#[test]
fn smartbft_orderers_that_are_behind_are_restored_as_captured_only_while_a_quorum_remembers() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    cut_last_block(&bench, &["orderer4"]);
    bench.capture(&CaptureOptions::default()).unwrap();
    let restored = bench.restore_below("restored", &as_captured()).unwrap();
    let warning = reported(&restored, "O2").next().unwrap();
    assert!(warning.severity == Severity::Warning && warning.what.contains("3 of them at the highest"), "{warning:?}");

    cut_last_block(&bench, &["orderer3"]);
    bench.capture(&CaptureOptions::default()).unwrap();
    match bench.restore_below("refused", &as_captured()) {
        Err(EngineError::Precondition(findings)) => {
            let found = &findings[0];
            assert!(found.rule.code() == "O2" && found.what.contains("fewer than the 3"), "{found:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!bench.path("refused").exists());

    // At one height and without what their logs remember they need no quorum.
    let restored = bench.restore_below("level", &RestoreOptions::default()).unwrap();
    let note = reported(&restored, "O2").next().unwrap();
    assert!(note.severity == Severity::Note && note.what.contains("an empty SmartBFT log"), "{note:?}");
    let full = bench::height(&bench.network().join("OrdererOrg/orderer1/production/chains/mychannel"));
    for orderer in ["orderer1", "orderer2", "orderer3", "orderer4"] {
        let production = bench.path("level/OrdererOrg").join(orderer).join("production");
        assert_eq!(bench::height(&production.join("chains/mychannel")), full, "{orderer}");
        let logs = files(&production.join("etcdraft/wal/mychannel"));
        assert_eq!(logs.values().map(Vec::len).collect::<Vec<_>>(), [16], "{orderer}");
    }
}

#[test]
fn a_peer_takes_the_ledger_of_another_peer_of_its_organization_and_keeps_its_keys() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let from = |text: &str| vec![text.parse::<LedgerFrom>().unwrap()];
    let nodes = vec!["Org1/peer1".to_owned()];
    let options = RestoreOptions { nodes, ledgers: from("Org1/peer1=Org1/peer0"), ..RestoreOptions::default() };
    let restored = bench.restore_below("restored", &options).unwrap();
    assert!(reported(&restored, "I4").any(|finding| finding.what.contains("gets the ledger of Org1/peer0")));
    let (source, target) = (bench.network().join("Org1"), bench.path("restored/Org1/peer1"));
    for part in ["chains/chains", "pvtdataStore", "ledgerProvider"] {
        let part = format!("production/ledgersData/{part}");
        let needed = |folder: PathBuf| -> BTreeMap<_, _> {
            let locks = ["LOCK", "LOG", "LOG.old"];
            files(&folder).into_iter().filter(|(path, _)| !locks.iter().any(|lock| path.ends_with(lock))).collect()
        };
        same(&needed(source.join("peer0").join(&part)), &needed(target.join(&part)), &part);
    }
    for part in ["msp", "tls", "production/lifecycle"] {
        let own = files(&source.join("peer1").join(part));
        assert!(!own.is_empty());
        same(&own, &files(&target.join(part)), part);
    }
    let refused = |ledgers: Vec<LedgerFrom>, nodes: &[&str]| {
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        match bench.restore_below("refused", &RestoreOptions { nodes, ledgers, ..RestoreOptions::default() }) {
            Err(EngineError::Usage(misuse)) => *misuse,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(from("Org1/peer1=Org2/peer0"), &[]).problem.contains("different private data"));
    let unknown = refused(from("Org1/peer9=Org1/peer0"), &[]);
    assert!(unknown.problem.contains("has no peer Org1/peer9"), "{unknown:?}");
    assert_eq!(unknown.next, Some(Remedy::ListCaptured));
    assert!(refused(from("OrdererOrg/orderer1=OrdererOrg/orderer2"), &[]).problem.contains("has no peer"));
    assert_eq!(refused(from("Org1/peer1=Org1/peer0"), &["Org2/peer0"]).next, Some(Remedy::ChooseNodes));
    assert!("Org1/peer1".parse::<LedgerFrom>().is_err() && "a=a".parse::<LedgerFrom>().is_err());
}

#[test]
fn an_orderer_comes_back_empty_while_a_quorum_of_others_stays() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let (one, two) = ("OrdererOrg/orderer2".to_owned(), "OrdererOrg/orderer3".to_owned());
    let options = |replicate: &[&String], nodes: &[&String]| RestoreOptions {
        replicate: replicate.iter().map(ToString::to_string).collect(),
        nodes: nodes.iter().map(ToString::to_string).collect(),
        ..RestoreOptions::default()
    };
    let restored = bench.restore_below("one", &options(&[&one], &[&one])).unwrap();
    let finding = reported(&restored, "O2").next().unwrap();
    assert!(
        finding.what.contains("mychannel, settlement")
            && format!("{:?}", finding.remedy).contains("WriteGenesisBlocks"),
        "{finding:?}"
    );
    assert!(
        reported(&restored, "O2")
            .all(|finding| !finding.what.contains("tocommit") && !finding.what.contains("older than the rest"))
    );
    let home = bench.path("one/OrdererOrg/orderer2");
    let home = if home.exists() { home } else { bench.path("one/orderer2") };
    let home = if home.exists() { home } else { bench.path("one") };
    assert!(home.join("msp/signcerts").exists() && home.join("tls").exists(), "its keys come back");
    assert_eq!(bench::count_files(&home.join("production")), 0, "its ledger does not");

    for (replicate, nodes, part) in
        [(vec![&one, &two], vec![], "not a quorum"), (vec![&one], vec![&two], "not among the nodes")]
    {
        let error = bench.restore_below("refused", &options(&replicate, &nodes)).unwrap_err();
        assert!(format!("{error:?}").contains(part), "{error:?}");
    }
    let peer = "Org1/peer0".to_owned();
    assert!(
        bench.restore_below("refused", &options(&[&peer], &[])).unwrap_err().to_string().contains("not an orderer")
    );
}

#[test]
fn genesis_blocks_are_the_ones_that_the_network_began_with() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let repository = bench.repository();
    let commit = repository.point("latest").unwrap();
    let blocks = fabkeep_engine::genesis_blocks(&repository, &commit, &bench.identity()).unwrap();
    assert_eq!(blocks.iter().map(|(channel, _)| channel.as_str()).collect::<Vec<_>>(), ["mychannel", "settlement"]);
    for (channel, block) in blocks {
        let original = std::fs::read(bench.network().join("artifacts").join(format!("{channel}.block"))).unwrap();
        assert!(block == original, "{channel}: {} bytes, {} in the original", block.len(), original.len());
    }
}

#[test]
fn peers_and_orderers_that_stay_are_not_forked_by_those_that_come_back() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let older = bench.path("older");
    std::process::Command::new("cp").arg("-a").arg(bench.network().join("OrdererOrg")).arg(&older).status().unwrap();
    grown_without(&bench, &[], 10);
    let restore = |nodes: &[&str], overrides: &[&str]| {
        let nodes = nodes.iter().map(ToString::to_string).collect();
        let overrides = overrides.iter().map(ToString::to_string).collect();
        bench.restore(&RestoreOptions { nodes, overrides, replace: true, ..RestoreOptions::default() })
    };
    // The orderers go back, the peers went on.
    let orderers = ["OrdererOrg/orderer1", "OrdererOrg/orderer2", "OrdererOrg/orderer3"];
    let error = format!("{:?}", restore(&orderers, &[]).unwrap_err());
    for peer in ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"] {
        assert!(error.contains(&format!("{peer} mychannel")) && error.contains("stays at height 37"), "{error}");
    }
    assert!(!error.contains("settlement"), "{error}");
    // A peer that went back with them would be below.
    restore(&["Org1/peer0"], &[]).unwrap();
    // The orderers are older than the recovery point that a peer comes from.
    bench.capture(&CaptureOptions::default()).unwrap();
    std::fs::remove_dir_all(bench.network().join("OrdererOrg")).unwrap();
    std::fs::rename(&older, bench.network().join("OrdererOrg")).unwrap();
    let error = format!("{:?}", restore(&["Org2/peer0"], &[]).unwrap_err());
    assert!(error.contains("would be restored at height 37") && error.contains("would be at 27"), "{error}");
    let all = ["Org1/peer0", "Org2/peer0", "OrdererOrg/orderer1", "OrdererOrg/orderer2", "OrdererOrg/orderer3"];
    restore(&all, &[]).unwrap();
    restore(&["Org2/peer0"], &["I1"]).unwrap();
}

#[test]
fn a_raft_orderer_does_not_come_back_older_beside_others_that_went_on() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let orderer = "OrdererOrg/orderer2".to_owned();
    let options = RestoreOptions { nodes: vec![orderer.clone()], replace: true, ..RestoreOptions::default() };
    // Nothing has happened since.
    let restored = bench.restore(&options).unwrap();
    assert!(reported(&restored, "O2").all(|finding| finding.severity == Severity::Warning));
    grown_without(&bench, &["orderer2"], 10);
    let error = format!("{:?}", bench.restore(&options).unwrap_err());
    assert!(error.contains("OrdererOrg/orderer2 mychannel") && error.contains("height 27"), "{error}");
    assert!(error.contains("Replicate") && !error.contains("settlement"), "{error}");
    bench.restore(&RestoreOptions { replicate: vec![orderer], ..options.clone() }).unwrap();
    bench.restore(&RestoreOptions { overrides: vec!["O2".to_owned()], ..options }).unwrap();
}
