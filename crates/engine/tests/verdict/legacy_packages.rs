//! Chaincode packages of the lifecycle before Fabric 2.0: a peer reads every file with a dot in its name at its start.

use std::fs;

use super::absence::Place;
use super::{assert_no_alarm, verdict};
use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;

const PEER: &str = "Org1/peer0";
/// A deployment spec of the chaincode `mycc`, version `1.0`.
const PACKAGE: &[u8] = b"\x0a\x0d\x12\x0b\x12\x04mycc\x1a\x031.0\x1a\x04\x1f\x8b\x08\x00";

fn write(bench: &Bench, name: &str, bytes: &[u8]) {
    let folder = bench.network().join("Org1/peer0/production/chaincodes");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

#[test]
fn a_file_that_is_no_package_keeps_the_peer_from_starting() {
    let place = Place::new();
    for (name, bytes) in [
        ("mycc.1.0", &b""[..]),
        ("mycc.1.0", &PACKAGE[..PACKAGE.len() - 2]),
        (".DS_Store", b"\0\0\0\x01Bud1"),
        (".gitkeep", b""),
    ] {
        let about = format!("production/chaincodes/{name} it is not a chaincode package");
        place.refused_after(PEER, |bench| write(bench, name, bytes), "K3", PEER, &about);
    }
    let link = |bench: &Bench| {
        write(bench, "README", b"");
        let folder = bench.network().join("Org1/peer0/production/chaincodes");
        std::os::unix::fs::symlink("nothing", folder.join("mycc.1.0")).unwrap();
    };
    place.refused_after(PEER, link, "K3", PEER, "a link that leads to nothing");
}

#[test]
fn packages_and_what_a_peer_passes_over_are_no_alarm() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    write(&bench, "mycc.1.0", PACKAGE);
    write(&bench, "README", b"text");
    fs::create_dir(bench.network().join("Org1/peer0/production/chaincodes/old.1")).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
}
