//! Private data that a peer lacks is reported by collection, with whether another captured peer has it (P9).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use bench::Bench;
use fabkeep_engine::{CaptureOptions, RestoreOptions};
use fabkeep_fixtures::write_to_store;
use fabkeep_ledger::leveldb::{Database, has_private_data, missing_private_data, private_data_height};
use fabkeep_network::Severity;

const STORE: &str = "production/ledgersData/pvtdataStore";

/// A key of the store: group, and block and transaction in order (data) or the block counted down (notes of what is missing).
fn data(block: u8, transaction: u8, collection: &str) -> Vec<u8> {
    let transaction: &[u8] = if transaction == 0 { &[0] } else { &[1, transaction] };
    [b"mychannel\0\x02\x01", &[block][..], transaction, b"multi\0", collection.as_bytes()].concat()
}

fn note(group: u8, block: u8, collection: &str) -> Vec<u8> {
    [b"mychannel\0", &[group, 7, !block][..], b"multi\0", collection.as_bytes()].concat()
}

/// A set of one or two transactions.
fn bits(transactions: &[u64]) -> Vec<u8> {
    let word = transactions.iter().fold(0u64, |word, bit| word | 1 << bit);
    [64u64.to_be_bytes(), word.to_be_bytes()].concat()
}

#[test]
fn what_a_peer_lacks_and_who_has_it() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    assert!(
        captured.point.findings.iter().all(|finding| finding.rule.code() != "P9"),
        "nothing lacks anything at first"
    );
    // Real peers note what they may not have in a group of its own: that is not missing.
    let org2 = bench.network().join("Org2/peer0").join(STORE);
    assert_eq!(missing_private_data(&org2, "mychannel").unwrap(), []);
    let peer0 = bench.network().join("Org1/peer0").join(STORE);
    let store = Database::open(&peer0).unwrap();
    let (marbles, details) = (("multi", "collectionMarbles"), ("multi", "collectionMarblePrivateDetails"));
    assert!(has_private_data(&store, "mychannel", (5, 0), marbles).unwrap());
    assert!(has_private_data(&store, "mychannel", (5, 3), details).unwrap());
    assert!(!has_private_data(&store, "mychannel", (5, 2), details).unwrap());

    // peer1 loses data that peer0 has, and data of which nobody has any more; another transaction of the same block it keeps.
    let peer1 = bench.network().join("Org1/peer1").join(STORE);
    write_to_store(
        &peer1,
        &[
            (data(5, 3, "collectionMarbles"), None),
            (note(4, 5, "collectionMarbles"), Some(bits(&[3]))),
            (data(5, 3, "collectionMarblePrivateDetails"), None),
            (data(5, 4, "collectionMarblePrivateDetails"), None),
            (note(8, 5, "collectionMarblePrivateDetails"), Some(bits(&[3, 4]))),
        ],
    )
    .unwrap();
    write_to_store(&peer0, &[(data(5, 4, "collectionMarblePrivateDetails"), None)]).unwrap();
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let of = |collection: &str| {
        let named = |finding: &&fabkeep_network::Finding| {
            finding.rule.code() == "P9" && finding.what.contains(&format!("multi/{collection}:"))
        };
        captured.point.findings.iter().find(named).unwrap().clone()
    };
    let marbles = of("collectionMarbles");
    assert_eq!((marbles.severity, marbles.subject.as_str()), (Severity::Note, "Org1/peer1 mychannel"));
    assert!(
        marbles.what.contains("1 transactions in blocks 5 to 5") && marbles.what.contains("have all of it"),
        "{marbles:?}"
    );
    let details = of("collectionMarblePrivateDetails");
    assert_eq!(details.severity, Severity::Warning);
    assert!(details.what.contains("2 transactions") && details.what.contains("have 1 of these"), "{details:?}");
}

#[test]
fn private_data_that_changed_since_the_last_point_is_compared_with_the_blocks_again() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let first = bench.capture(&CaptureOptions::default()).unwrap();
    let peer0 = bench.network().join("Org1/peer0").join(STORE);
    let collection = "collectionMarbles";
    let other = Database::open(&peer0).unwrap().get(&data(5, 1, collection)).unwrap().unwrap();
    assert!(first.read_bytes > 0);
    // Nothing changed: nothing is read again.
    assert_eq!(bench.capture(&CaptureOptions::default()).unwrap().read_bytes, 0);
    write_to_store(&peer0, &[(data(5, 0, collection), Some(other))]).unwrap();
    match bench.capture(&CaptureOptions::default()) {
        Err(fabkeep_engine::EngineError::Refused(findings)) => {
            let found = findings.iter().find(|finding| finding.subject == "Org1/peer0 mychannel").unwrap();
            assert_eq!(found.rule.code(), "I2");
            assert!(
                found.what.contains("does not belong to this chain") && found.what.contains(collection),
                "{found:?}"
            );
        }
        other => panic!("{:?}", other.map(|captured| captured.point.findings)),
    }
}

/// As at a cut: the chains of all nodes end at one height, the stores were captured later.
#[test]
fn stores_that_are_ahead_of_the_restored_ordering_service_end_with_it() {
    const HEIGHT: u64 = 20;
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let peers = ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"];
    for peer in peers {
        let ledgers = bench.network().join(peer).join("production/ledgersData");
        for derived in ["stateLeveldb", "historyLeveldb", "configHistory", "bookkeeper", "chains/index"] {
            std::fs::remove_dir_all(ledgers.join(derived)).unwrap();
        }
    }
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        let index = bench.network().join("OrdererOrg").join(orderer).join("production/index");
        std::fs::remove_dir_all(index).unwrap();
    }
    for chain in bench::chains(&bench.network(), "mychannel") {
        let file = chain.join("blockfile_000000");
        let end = bench::offset_of_block(&file, HEIGHT);
        std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(end).unwrap();
    }
    bench.capture(&CaptureOptions::default()).unwrap();
    let heights = |restored: &std::path::Path, peer: &str| {
        let store = restored.join(peer).join(STORE);
        Database::open(&store).unwrap().check().unwrap();
        ["mychannel", "settlement"].map(|channel| private_data_height(&store, channel).unwrap())
    };
    let restored = bench.restore_below("all", &RestoreOptions::default()).unwrap();
    assert!(restored.findings.iter().any(|finding| finding.what.contains("private data of later blocks")));
    for peer in peers {
        assert_eq!(heights(&bench.path("all"), peer), [Some(HEIGHT), Some(8)], "{peer}");
    }
    // Beside an ordering service that stays, the peer fetches the blocks whose private data it has.
    let nodes = vec!["Org1/peer0".to_owned()];
    bench.restore_below("one", &RestoreOptions { nodes, ..RestoreOptions::default() }).unwrap();
    assert_eq!(heights(&bench.path("one"), "Org1/peer0"), [Some(27), Some(8)]);
}
