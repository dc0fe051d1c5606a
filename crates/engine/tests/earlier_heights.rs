//! Networks that go back to an earlier height: chains, private data and consensus state end there, and the same nodes are captured again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::path::Path;

use bench::{Bench, join_by_snapshot};
use fabkeep_engine::{CaptureOptions, EngineError, GoBack, HeightOf, RestoreOptions, blocks};
use fabkeep_ledger::leveldb::{Database, private_data_height};
use fabkeep_network::Severity;

const CHANNEL: &str = "mychannel";

fn at(height: u64) -> RestoreOptions {
    let heights = vec![HeightOf { channel: CHANNEL.to_owned(), height }];
    RestoreOptions { go_back: GoBack { heights, before: None }, ..RestoreOptions::default() }
}

fn blocks_of(bench: &Bench) -> Vec<fabkeep_engine::BlockSummary> {
    let repository = bench.repository();
    let mut out = Vec::new();
    let commit = repository.point("latest").unwrap();
    blocks::<EngineError>(&repository, &commit, &bench.identity(), CHANNEL, &mut |block| {
        out.push(block);
        Ok(())
    })
    .unwrap();
    out
}

/// Every chain of the channel ends at the height with the original's bytes; every peer's private data ends with it.
fn is_at(bench: &Bench, restored: &Path, height: u64) {
    let chains = bench::chains(restored, CHANNEL);
    assert!(chains.len() >= 4, "{chains:?}");
    for chain in chains {
        let original = bench.network().join(chain.strip_prefix(restored).unwrap());
        let file = original.join("blockfile_000000");
        let end = bench::offset_of_block(&file, height) as usize;
        let now = std::fs::read(chain.join("blockfile_000000")).unwrap();
        assert!(now == std::fs::read(&file).unwrap()[..end], "{}", chain.display());
        let Some(ledgers) = chain.ancestors().find(|path| path.ends_with("ledgersData")) else { continue };
        let store = ledgers.join("pvtdataStore");
        assert_eq!(private_data_height(&store, CHANNEL).unwrap(), Some(height), "{}", store.display());
        Database::open(&store).unwrap().check().unwrap();
        let other = bench.network().join(ledgers.strip_prefix(restored).unwrap()).join("pvtdataStore");
        assert_eq!(
            private_data_height(&store, "settlement").unwrap(),
            private_data_height(&other, "settlement").unwrap(),
            "the other channel stays"
        );
        for derived in ["stateLeveldb", "historyLeveldb", "configHistory", "bookkeeper", "chains/index"] {
            assert_eq!(bench::count_files(&ledgers.join(derived)), 0, "{derived}");
        }
    }
}

#[test]
fn a_network_goes_back_to_any_height_and_is_captured_from_there() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let all = blocks_of(&bench);
    assert!(all.iter().map(|block| block.number).eq(0..all.len() as u64));
    assert!(all[0].configuration && all.iter().any(|block| block.transactions > 1));
    let last = all.len() as u64;
    for height in [2, 9, last / 2, last - 1] {
        let name = format!("at-{height}");
        let restored = bench.restore_below(&name, &at(height)).unwrap();
        let finding = restored.findings.iter().find(|finding| finding.rule.code() == "H3").unwrap();
        assert!(
            finding.severity == Severity::Warning && finding.what.contains(&format!("height {height}")),
            "{finding:?}"
        );
        assert!(restored.proven.iter().any(|line| line.contains(&format!("{CHANNEL}: every chain walked"))));
        is_at(&bench, &bench.path(&name), height);
    }
    // By time: the first block with a later transaction ends it.
    let middle = &all[all.len() / 2];
    let before = middle.last;
    let height = all.iter().find(|block| block.last > before).unwrap().number;
    let go_back = GoBack { heights: vec![HeightOf { channel: "settlement".to_owned(), height: 3 }], before };
    bench.restore_below("by-time", &RestoreOptions { go_back, ..RestoreOptions::default() }).unwrap();
    let chain = &bench::chains(&bench.path("by-time"), CHANNEL)[0];
    assert_eq!(bench::height(chain), height);
    assert_eq!(bench::height(&bench::chains(&bench.path("by-time"), "settlement")[0]), 3);

    // What was restored is a network: complete, and captured into a repository of its own.
    let again = Bench::of(&bench.path(&format!("at-{}", last / 2)));
    let captured = again.capture(&CaptureOptions::default()).unwrap();
    let channel = captured.point.channels.iter().find(|channel| channel.name == CHANNEL).unwrap();
    assert_eq!(channel.height, last / 2);
    let errors: Vec<_> = captured.point.findings.iter().filter(|found| found.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn heights_that_are_none_are_refused_before_anything_is_written() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let refused = |options: &RestoreOptions, part: &str| match bench.restore_below("refused", options) {
        Err(EngineError::Usage(misuse)) => assert!(misuse.problem.contains(part), "{misuse:?}"),
        other => panic!("{other:?}"),
    };
    refused(&at(1_000_000), "has blocks 0 to");
    let heights = vec![HeightOf { channel: "absent".to_owned(), height: 3 }];
    refused(
        &RestoreOptions { go_back: GoBack { heights, before: None }, ..RestoreOptions::default() },
        "no channel absent",
    );
    let before = Some("2001-01-01T00:00:00Z".parse().unwrap());
    refused(
        &RestoreOptions { go_back: GoBack { heights: Vec::new(), before }, ..RestoreOptions::default() },
        "had no block at that time",
    );
    assert!("mychannel=0".parse::<HeightOf>().is_err() && "mychannel".parse::<HeightOf>().is_err());
    assert!(!bench.path("refused").exists());
}

/// What nobody can rebuild does not go back; the others do.
#[test]
fn a_peer_that_was_joined_by_snapshot_stays_out_of_an_earlier_height() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    join_by_snapshot(&bench.network().join("Org1/peer0/production/ledgersData/chains/chains/mychannel"), 12);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    for height in [5, 20] {
        let Err(EngineError::Precondition(findings)) = bench.restore_below("refused", &at(height)) else {
            panic!("height {height} is restored")
        };
        let found = findings.iter().find(|finding| finding.rule.code() == "H3").unwrap();
        assert!(found.subject == "Org1/peer0" && found.what.contains("joined by snapshot"), "{found:?}");
        assert!(format!("{:?}", found.remedy).contains("LeaveNodeOut"), "{found:?}");
    }
    // The way out.
    let others = captured.point.nodes.iter().map(|node| node.facts.id.to_string()).filter(|id| id != "Org1/peer0");
    let nodes: Vec<String> = others.collect();
    bench.restore_below("others", &RestoreOptions { nodes, ..at(20) }).unwrap();
    let chains: Vec<_> =
        bench::chains(&bench.path("others"), CHANNEL).into_iter().filter(|chain| chain.exists()).collect();
    assert!(chains.len() >= 6 && chains.iter().all(|chain| bench::height(chain) == 20), "{chains:?}");
}
