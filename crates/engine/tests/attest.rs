//! Attestations: what one organization states is compared with another organization's nodes, without any data.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bench::{Bench, chains, height, join_by_snapshot, offset_of_block};
use fabkeep_engine::{
    Agreement, AttestOptions, Attestation, BlockRange, CaptureOptions, ComparedCommits, ComparedNode, Comparison,
    EngineError, Silent, attestation, compare_attestation,
};
use fabkeep_fixtures::Growth;
use fabkeep_network::{Finding, Severity};

const CHANNEL: &str = "settlement";
/// Height of the channel in the bundled network.
const BUNDLED: u64 = 8;

/// The same network at two organizations, which have gone on with blocks of these sizes: number of blocks, transactions in each.
fn grown(blocks: &[(u64, usize)]) -> Bench {
    let bench = Bench::in_memory(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), CHANNEL).unwrap();
    blocks.iter().for_each(|(blocks, transactions)| growth.grow(*blocks, *transactions).unwrap());
    bench
}

fn attested(bench: &Bench, options: &AttestOptions) -> Result<Attestation, EngineError> {
    let repository = bench.repository();
    let commit = repository.point("latest").unwrap();
    let made = attestation(&repository, &commit, &bench.identity(), options, &Silent)?;
    Attestation::parse(&made.payload().unwrap())
}

fn captured(bench: &Bench) -> Attestation {
    bench.capture(&CaptureOptions::default()).unwrap();
    attested(bench, &AttestOptions::default()).unwrap()
}

fn compare(stated: &Attestation, own: &Bench) -> Comparison {
    compare_attestation(stated, &own.host(), &Silent).unwrap()
}

fn nodes<'a>(compared: &'a Comparison, channel: &str) -> &'a [ComparedNode] {
    &compared.channels.iter().find(|known| known.channel == channel).unwrap().nodes
}

fn errors(compared: &Comparison) -> Vec<&Finding> {
    compared.findings.iter().filter(|finding| finding.severity == Severity::Error).collect()
}

fn fork_of(node: &ComparedNode) -> (Option<u64>, u64) {
    match &node.headers {
        Agreement::Fork { last_equal, different, attested, own } => {
            assert_ne!(attested, own);
            (*last_equal, *different)
        }
        other => panic!("{}: {other:?}", node.node),
    }
}

#[test]
fn the_same_chain_agrees_on_every_node_and_a_longer_one_does_too() {
    let (one, other) = (grown(&[(40, 2)]), grown(&[(40, 2)]));
    let stated = captured(&one);
    let compared = compare(&stated, &other);
    assert_eq!(compared.findings, []);
    assert_eq!((compared.only_attested.len(), compared.only_own.len()), (0, 0));
    for (channel, height) in [(CHANNEL, BUNDLED + 40), ("mychannel", 27)] {
        let nodes = nodes(&compared, channel);
        assert_eq!(nodes.len(), 7);
        for node in nodes {
            assert_eq!(node.headers, Agreement::Equal { block: height - 1 });
            assert_eq!((node.height, node.behind, node.ahead), (Some(height), 0, 0));
            let commits = node.node.contains("peer").then_some(ComparedCommits::Equal { block: height - 1 });
            assert_eq!(node.commits, commits, "{}", node.node);
        }
    }
    Growth::open(&other.network(), CHANNEL).unwrap().grow(5, 1).unwrap();
    let compared = compare(&stated, &other);
    assert_eq!(compared.findings, []);
    assert!(nodes(&compared, CHANNEL).iter().all(|node| node.ahead == 5));
}

#[test]
fn a_fork_of_one_block_is_found_with_its_number() {
    let (one, other) = (grown(&[(20, 2), (1, 3)]), grown(&[(20, 2), (1, 1)]));
    let stated = captured(&one);
    let compared = compare(&stated, &other);
    let forked = BUNDLED + 20;
    for node in nodes(&compared, CHANNEL) {
        assert_eq!(fork_of(node), (Some(forked - 1), forked));
    }
    assert!(nodes(&compared, "mychannel").iter().all(|node| matches!(node.headers, Agreement::Equal { .. })));
    let errors = errors(&compared);
    assert_eq!(errors.len(), 7, "{errors:#?}");
    assert!(errors.iter().all(|finding| finding.rule.code() == "I4"));
    assert!(errors.iter().all(|finding| finding.what.contains(&format!("forks at block {forked}:"))), "{errors:#?}");
    // It is found, too, when both have gone on since.
    Growth::open(&other.network(), CHANNEL).unwrap().grow(3, 2).unwrap();
    assert!(nodes(&compare(&stated, &other), CHANNEL).iter().all(|node| fork_of(node).1 == forked));
}

#[test]
fn a_fork_far_below_the_height_is_bounded_and_then_found_by_the_hashes_between() {
    let (one, other) = (grown(&[(30, 2), (300, 3)]), grown(&[(30, 2), (300, 1)]));
    let stated = captured(&one);
    let forked = BUNDLED + 30;
    let compared = compare(&stated, &other);
    let (last_equal, different) = fork_of(&nodes(&compared, CHANNEL)[0]);
    let first = last_equal.unwrap() + 1;
    assert!(first <= forked && forked < different, "{first} {different}");
    let range = BlockRange { channel: CHANNEL.to_owned(), first, last: different };
    assert!(errors(&compared).iter().all(|finding| {
        finding.what.contains(&format!("between block {first} and block {different}"))
            && serde_json::to_string(&finding.remedy).unwrap().contains(&range.to_string())
    }));
    let closer = attested(&one, &AttestOptions { ranges: vec![range], ..AttestOptions::default() }).unwrap();
    let compared = compare(&closer, &other);
    assert!(nodes(&compared, CHANNEL).iter().all(|node| fork_of(node) == (Some(forked - 1), forked)));
}

#[test]
fn a_node_that_lags_is_told_with_how_many_blocks_and_its_blocks_are_compared() {
    let (one, other) = (grown(&[(20, 2), (7, 3)]), grown(&[(20, 2)]));
    let compared = compare(&captured(&one), &other);
    assert_eq!(errors(&compared).len(), 0);
    assert_eq!(compared.findings.len(), 7, "{:#?}", compared.findings);
    assert!(compared.findings.iter().all(|finding| finding.what.contains("7 blocks behind")));
    for node in nodes(&compared, CHANNEL) {
        assert_eq!((node.behind, &node.headers), (7, &Agreement::Equal { block: BUNDLED + 19 }));
    }
    // A lagging node on another chain is no node that only lags.
    let forked = grown(&[(19, 2), (1, 1)]);
    let compared = compare(&captured(&one), &forked);
    assert!(nodes(&compared, CHANNEL).iter().all(|node| fork_of(node) == (Some(BUNDLED + 18), BUNDLED + 19)));
}

#[test]
fn another_world_state_is_seen_by_the_commit_hash_of_the_peer_that_has_it() {
    let (one, other) = (grown(&[(20, 2)]), grown(&[(20, 2)]));
    let chain = other.network().join("Org2/peer1/production/ledgersData/chains/chains").join(CHANNEL);
    // The commit hash is the last thing in a peer's block.
    let file = fs::File::options().write(true).open(chain.join("blockfile_000000")).unwrap();
    let at = file.metadata().unwrap().len() - 1;
    let mut byte = [0];
    fs::File::open(chain.join("blockfile_000000")).unwrap().read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let compared = compare(&captured(&one), &other);
    let errors = errors(&compared);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].subject.contains("Org2/peer1 settlement"), "{errors:#?}");
    let last = BUNDLED + 19;
    let differs = |node: &&ComparedNode| {
        matches!(&node.commits, Some(ComparedCommits::Differ { last_equal: Some(before), different, .. })
            if *before == last - 1 && *different == last)
    };
    let found: Vec<_> = nodes(&compared, CHANNEL).iter().filter(differs).map(|node| node.node.as_str()).collect();
    assert_eq!(found, ["Org2/peer1"]);
    assert!(nodes(&compared, CHANNEL).iter().all(|node| node.headers == Agreement::Equal { block: last }));
}

/// Spreads the blocks of a chain's only file over several files, as a node does with a long chain.
fn split(chain: &Path, at: &[u64]) {
    let file = chain.join("blockfile_000000");
    let offsets: Vec<usize> = at.iter().map(|number| offset_of_block(&file, *number) as usize).collect();
    let whole = fs::read(&file).unwrap();
    let begins: Vec<usize> = [0].into_iter().chain(offsets.iter().copied()).collect();
    let ends = offsets.iter().copied().chain([whole.len()]);
    for (number, (begin, end)) in begins.into_iter().zip(ends).enumerate() {
        fs::write(chain.join(format!("blockfile_{number:06}")), &whole[begin..end]).unwrap();
    }
}

#[test]
fn blocks_are_found_in_whichever_file_they_are_and_behind_a_snapshot() {
    let (one, other) = (grown(&[(30, 2), (200, 3)]), grown(&[(30, 2), (200, 1)]));
    let forked = BUNDLED + 30;
    let range = BlockRange { channel: CHANNEL.to_owned(), first: 0, last: 120 };
    captured(&one);
    let stated = attested(&one, &AttestOptions { ranges: vec![range], ..AttestOptions::default() }).unwrap();
    for chain in chains(&other.network(), CHANNEL) {
        split(&chain, &[1, 20, forked, forked + 1, 90, 200]);
        assert_eq!(height(&chain), BUNDLED + 230);
    }
    let compared = compare(&stated, &other);
    assert!(nodes(&compared, CHANNEL).iter().all(|node| fork_of(node) == (Some(forked - 1), forked)));

    // A peer whose first block comes after the fork is another chain from its beginning.
    let joined = grown(&[(30, 2), (200, 1)]);
    let peer = joined.network().join("Org2/peer1/production/ledgersData/chains/chains").join(CHANNEL);
    join_by_snapshot(&peer, 60);
    let compared = compare(&stated, &joined);
    let of = |node: &str| nodes(&compared, CHANNEL).iter().find(|known| known.node == node).unwrap();
    assert_eq!(fork_of(of("Org2/peer1")), (None, 60));
    assert_eq!(fork_of(of("Org2/peer0")), (Some(forked - 1), forked));
    // One on the same chain agrees.
    let same = grown(&[(30, 2), (200, 3)]);
    join_by_snapshot(&same.network().join("Org2/peer1/production/ledgersData/chains/chains").join(CHANNEL), 60);
    assert_eq!(compare(&stated, &same).findings, []);
}

#[test]
fn a_chain_that_is_damaged_is_no_fork() {
    let (one, other) = (grown(&[(20, 2)]), grown(&[(20, 2)]));
    let chain = other.network().join("Org1/peer0/production/ledgersData/chains/chains").join(CHANNEL);
    let file = chain.join("blockfile_000000");
    let at = offset_of_block(&file, BUNDLED + 10) + 200;
    fs::File::options().write(true).open(&file).unwrap().write_all_at(b"damage", at).unwrap();
    let compared = compare(&captured(&one), &other);
    let errors = errors(&compared);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!((errors[0].rule.code(), errors[0].subject.as_str()), ("B1", "Org1/peer0 settlement"));
}

#[test]
fn what_is_asked_for_and_is_not_there_is_named() {
    let bench = grown(&[(5, 1)]);
    captured(&bench);
    let range = |channel: &str, first, last| BlockRange { channel: channel.to_owned(), first, last };
    for (options, words) in [
        (AttestOptions { channels: vec!["absent".to_owned()], ..AttestOptions::default() }, "no such channel"),
        (AttestOptions { ranges: vec![range("absent", 0, 1)], ..AttestOptions::default() }, "no such channel"),
        (AttestOptions { ranges: vec![range(CHANNEL, 3, 400)], ..AttestOptions::default() }, "the blocks 0 to 12"),
    ] {
        let error = attested(&bench, &options).unwrap_err();
        assert!(matches!(error, EngineError::Usage(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let only = AttestOptions { channels: vec![CHANNEL.to_owned()], ..AttestOptions::default() };
    let stated = attested(&bench, &only).unwrap();
    assert_eq!(stated.channels.len(), 1);
    let compared = compare(&stated, &bench);
    assert_eq!((compared.only_own, compared.findings), (vec!["mychannel".to_owned()], Vec::new()));
    // Nodes of other channels: that nothing disagrees says nothing.
    let stranger = Bench::in_memory(fabkeep_fixtures::NETWORK_BFT);
    let compared = compare(&stated, &stranger);
    assert_eq!(compared.only_attested, [CHANNEL]);
    assert!(errors(&compared).iter().any(|finding| finding.what.starts_with("nothing was compared")));
}

#[test]
fn statements_that_contradict_themselves_are_refused() {
    let bench = grown(&[(5, 1)]);
    let good = serde_json::to_value(captured(&bench)).unwrap();
    let parse = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        Attestation::parse(&serde_json::to_vec(&changed).unwrap())
    };
    assert!(parse(&|_| {}).is_ok());
    let wrong: [&dyn Fn(&mut serde_json::Value); 8] = [
        &|value| value["channels"][0]["tip_hash"] = "00".repeat(32).into(),
        &|value| value["channels"][0]["height"] = u64::MAX.into(),
        &|value| value["channels"][0]["header_hashes"][0][1] = "zz".into(),
        &|value| value["channels"][0]["header_hashes"].as_array_mut().unwrap().reverse(),
        &|value| value["channels"][0]["header_hashes"] = serde_json::json!([]),
        &|value| value["channels"][0]["commit_hashes"] = serde_json::json!([[u64::MAX, "00".repeat(32)]]),
        &|value| value["network"] = "a\u{1b}[2Jb".into(),
        &|value| value["channels"][1]["name"] = value["channels"][0]["name"].clone(),
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        assert!(matches!(parse(change), Err(EngineError::Point { .. })), "{number}");
    }
}
