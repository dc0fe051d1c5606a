//! The names that a real network's nodes call each other by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use bench::Bench;
use fabkeep_engine::{CaptureOptions, UsedName, names};

#[test]
fn names_of_configurations_packages_and_certificates_are_told_with_who_uses_them() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    bench.capture(&CaptureOptions::default()).unwrap();
    let repository = bench.repository();
    let commit = repository.point("latest").unwrap();
    let all = names(&repository, &commit, &bench.identity()).unwrap();
    let of = |name: &str| -> &UsedName { all.iter().find(|used| used.name == name).unwrap() };
    // The fixtures' network lives on one machine.
    let called = of("127.0.0.1");
    for user in ["consenter of mychannel", "anchor peer of Org2MSP on settlement", "chaincode multi_1.0 on Org1/peer0"]
    {
        assert!(called.used_by.contains(user), "{user}: {called:?}");
    }
    assert!([17050, 18250, 19999].iter().all(|port| called.ports.contains(port)), "{called:?}");
    assert_eq!((called.certificates.len(), called.answered_by.len()), (9, 1), "{called:?}");
    let carried = of("orderer2.orderer.example.com");
    assert!(carried.used_by.is_empty() && carried.certificates.contains("OrdererOrg/orderer2"), "{carried:?}");
    assert!(carried.answered_by.is_empty());
}
