//! The damage matrix: what is damaged × how → found by the capture, with node and place named; nothing committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::path::{Path, PathBuf};

use bench::Bench;
use fabkeep_engine::{CaptureOptions, EngineError, VerifyLevel};
use fabkeep_fixtures::Growth;
use fabkeep_network::Finding;

const PEER: &str = "Org2/peer0";
const ORDERER: &str = "OrdererOrg/orderer3";

/// Every file that the capture must watch over: block files, databases, raft logs.
fn watched() -> Vec<(&'static str, String)> {
    let peer = |path: &str| (PEER, format!("{PEER}/production/{path}"));
    let orderer = |path: &str| (ORDERER, format!("{ORDERER}/production/{path}"));
    vec![
        peer("ledgersData/chains/chains/mychannel/blockfile_000000"),
        peer("ledgersData/chains/chains/settlement/blockfile_000000"),
        peer("ledgersData/pvtdataStore/000002.log"),
        peer("ledgersData/pvtdataStore/MANIFEST-000003"),
        peer("ledgersData/pvtdataStore/CURRENT"),
        peer("ledgersData/ledgerProvider/000001.log"),
        peer("transientstore/000001.log"),
        orderer("chains/mychannel/blockfile_000000"),
        orderer("chains/settlement/blockfile_000000"),
        orderer("etcdraft/wal/mychannel/0000000000000000-0000000000000000.wal"),
        orderer("etcdraft/wal/settlement/0000000000000000-0000000000000000.wal"),
    ]
}

/// What the capture says of the network now: its errors and warnings, or what a capture that went through warned of.
fn findings(bench: &Bench) -> Vec<Finding> {
    match bench.capture(&CaptureOptions { reread: true, ..CaptureOptions::default() }) {
        Ok(captured) => captured.point.findings,
        Err(EngineError::Refused(findings)) => findings,
        Err(error) => panic!("{error}"),
    }
}

fn assert_found(bench: &Bench, node: &str, what: &str) {
    let findings = findings(bench);
    assert!(findings.iter().any(|finding| finding.subject.contains(node)), "{what}: {findings:?}");
}

/// Positions tried in each file; `FABKEEP_DAMAGE_SAMPLES` sets more.
fn samples() -> usize {
    std::env::var("FABKEEP_DAMAGE_SAMPLES").ok().and_then(|value| value.parse().ok()).unwrap_or(12)
}

/// Bytes that hold data: a raft log is mostly a hole.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..used(bytes)], 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

#[test]
fn every_flipped_byte_is_found_and_its_node_named() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    assert_eq!(findings(&bench), []);
    for (node, file) in watched() {
        let path = bench.network().join(&file);
        let whole = std::fs::read(&path).unwrap();
        let used = used(&whole);
        let spread = (0..used).step_by(used / samples() + 1);
        let ends = [0, 1, 5, used.saturating_sub(1), used.saturating_sub(3), used.saturating_sub(40)];
        for at in spread.chain(ends) {
            let mut broken = whole.clone();
            broken[at] ^= 0x01;
            write_sparse(&path, &broken);
            assert_found(&bench, node, &format!("{file} byte {at}"));
        }
        write_sparse(&path, &whole);
    }
    assert_eq!(findings(&bench), []);
}

#[test]
fn every_cut_or_removed_file_is_found_and_its_node_named() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for (node, file) in watched() {
        let path = bench.network().join(&file);
        let whole = std::fs::read(&path).unwrap();
        let used = used(&whole);
        // A transient store's log cut behind a record cannot be determined from one that was never longer.
        let lengths = [used / 2, used - 1, used / 3];
        for len in lengths.into_iter().filter(|_| !file.contains("transientstore")) {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_found(&bench, node, &format!("{file} cut to {len} bytes"));
        }
        std::fs::remove_file(&path).unwrap();
        assert_found(&bench, node, &format!("{file} removed"));
        write_sparse(&path, &whole);
    }
    assert_eq!(findings(&bench), []);
}

#[test]
fn blocks_cut_off_at_a_block_boundary_are_missed() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    for (node, file) in [
        (PEER, format!("{PEER}/production/ledgersData/chains/chains/mychannel")),
        (ORDERER, format!("{ORDERER}/production/chains/mychannel")),
    ] {
        let chain = bench.network().join(file);
        let path = chain.join("blockfile_000000");
        let whole = std::fs::read(&path).unwrap();
        let mut reader = fabkeep_ledger::block_file::ChainReader::open(&chain).unwrap();
        let batch = reader.next_batch(8 << 20, 24).unwrap().unwrap();
        std::fs::write(&path, &whole[..batch.len as usize]).unwrap();
        let findings = findings(&bench);
        assert!(
            findings.iter().any(|finding| finding.rule.code() == "P5" && finding.subject.contains(node)),
            "{findings:?}"
        );
        std::fs::write(&path, &whole).unwrap();
    }
}

/// Two networks of the same beginning that grew apart: one orderer's worth of data from the other.
#[test]
fn a_forked_node_is_named_with_the_first_differing_block_and_both_hashes() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let fork = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(30, 2).unwrap();
    let mut other = Growth::open(&fork.network(), "mychannel").unwrap();
    other.grow(30, 3).unwrap();
    let chain = "Org1/peer1/production/ledgersData/chains/chains/mychannel/blockfile_000000";
    std::fs::copy(fork.network().join(chain), bench.network().join(chain)).unwrap();
    let findings = findings(&bench);
    let forked = findings.iter().find(|finding| finding.rule.code() == "I4").unwrap();
    assert!(forked.subject.starts_with("Org1/peer1"), "{forked:?}");
    assert!(forked.what.contains("forks at block 27"), "{forked:?}");
    let hashes = forked.what.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64).count();
    assert_eq!(hashes, 2, "{forked:?}");
}

#[test]
fn peers_above_every_orderer_are_refused() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let old = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(3, 1).unwrap();
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        let data = format!("OrdererOrg/{orderer}/production");
        std::fs::remove_dir_all(bench.network().join(&data)).unwrap();
        std::fs::rename(old.network().join(&data), bench.network().join(&data)).unwrap();
    }
    assert!(findings(&bench).iter().any(|finding| finding.rule.code() == "I1"));
}

#[test]
fn a_missing_key_and_a_foreign_ca_key_are_refused() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let swap = |a: &Path, b: &Path| {
        let (one, other) = (std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
        std::fs::write(a, other).unwrap();
        std::fs::write(b, one).unwrap();
    };
    let key = |org: &str| -> PathBuf {
        let certificate = fabkeep_ledger::certificate::Certificate::from_pem(
            &std::fs::read(bench.network().join(org).join("ca/ca-cert.pem")).unwrap(),
        )
        .unwrap();
        std::fs::read_dir(bench.network().join(org).join("ca/msp/keystore"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| {
                let public = fabkeep_ledger::certificate::public_key_of_private_pem(&std::fs::read(path).unwrap());
                public.as_deref() == Some(certificate.public_key())
            })
            .unwrap()
    };
    let (one, other) = (key("Org1"), key("Org2"));
    swap(&one, &other);
    let broken = findings(&bench);
    assert_eq!(broken.iter().filter(|finding| finding.rule.code() == "C5").count(), 2, "{broken:?}");
    swap(&one, &other);
    std::fs::remove_file(bench.network().join("Org1/peer0/msp/keystore/priv_sk")).unwrap();
    let broken = findings(&bench);
    assert!(broken.iter().any(|finding| finding.rule.code() == "I5" && finding.subject.contains("Org1/peer0")));
}

#[test]
fn every_damaged_object_of_a_repository_is_found_by_verification_and_refused_by_restore() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    Growth::open(&bench.network(), "mychannel").unwrap().grow(200, 5).unwrap();
    bench.capture(&CaptureOptions::default()).unwrap();
    let mut objects = Vec::new();
    walk(&Path::new(&bench.location()).join("objects"), &mut objects);
    assert!(objects.len() >= 2);
    for path in objects {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 10 + 1).chain([whole.len() - 1]) {
            let mut broken = whole.clone();
            broken[at] ^= 0x80;
            std::fs::write(&path, &broken).unwrap();
            let proof = bench.verify(VerifyLevel::Full).unwrap();
            assert!(proof.findings.iter().any(|finding| finding.subject.contains(&name)), "{name} byte {at}");
        }
        assert!(bench.restore_all().is_err());
        std::fs::remove_file(&path).unwrap();
        let proof = bench.verify(VerifyLevel::Quick).unwrap();
        assert!(proof.findings.iter().any(|finding| finding.subject.contains(&name)));
        std::fs::write(&path, &whole).unwrap();
    }
    bench.restore_all().unwrap();
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}
