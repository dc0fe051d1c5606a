//! Keys and certificates that are there and that a node does not read: it takes the first PEM block of a file, and files directly in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::absence::Place;
use super::{assert_found, assert_no_alarm};
use crate::bench::Bench;
use fabkeep_engine::{CaptureOptions, EngineError};
use fabkeep_ledger::certificate::Certificate;
use fabkeep_network::{Finding, Severity};

const PEER: &str = "Org1/peer0";
/// What `openssl ecparam -genkey` writes before a key.
const PARAMETERS: &str = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";

fn only_in(folder: &Path) -> PathBuf {
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

fn msp(bench: &Bench) -> PathBuf {
    bench.network().join("Org1/peer0/msp")
}

fn put_before(file: &Path, text: &str) {
    let old = fs::read_to_string(file).unwrap();
    fs::write(file, format!("{text}{old}")).unwrap();
}

fn own_key(bench: &Bench) -> PathBuf {
    only_in(&msp(bench).join("keystore"))
}

/// The name by which a node looks for the key of its certificate before it looks into other files.
fn by_identifier(bench: &Bench) -> PathBuf {
    let certificate = fs::read(only_in(&msp(bench).join("signcerts"))).unwrap();
    let point = Certificate::from_pem(&certificate).unwrap().public_key().to_vec();
    msp(bench).join("keystore").join(format!("{}_sk", hex::encode(fabkeep_ledger::sha256(&[&point]))))
}

#[test]
fn an_enrolment_key_that_the_nodes_key_store_does_not_read_is_an_error() {
    let place = Place::new();
    let parameters = |bench: &Bench| put_before(&own_key(bench), PARAMETERS);
    place.refused_after(PEER, parameters, "I5", PEER, "cannot be used: the first PEM block in it is EC PARAMETERS");
    let certificate = |bench: &Bench| {
        let text = fs::read_to_string(only_in(&msp(bench).join("signcerts"))).unwrap();
        put_before(&own_key(bench), &text);
    };
    place.refused_after(PEER, certificate, "I5", PEER, "the first PEM block in it is CERTIFICATE");
    let folder = |bench: &Bench| {
        let key = own_key(bench);
        fs::create_dir(msp(bench).join("keystore/old")).unwrap();
        fs::rename(&key, msp(bench).join("keystore/old/priv_sk")).unwrap();
    };
    place.refused_after(PEER, folder, "I5", PEER, "files directly in the folder keystore");
    let long = |bench: &Bench| {
        let key = own_key(bench);
        fs::write(&key, [fs::read(&key).unwrap(), vec![b' '; 70_000]].concat()).unwrap();
    };
    place.refused_after(PEER, long, "I5", PEER, "more than 64 KiB");
    let damaged = |bench: &Bench| fs::write(by_identifier(bench), "junk").unwrap();
    place.refused_after(PEER, damaged, "I5", PEER, "_sk in its place");
    let of_authority = |bench: &Bench| {
        for entry in fs::read_dir(bench.network().join("Org1/ca/msp/keystore")).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().ends_with("_sk") {
                put_before(&path, PARAMETERS);
            }
        }
    };
    place.refused_after("Org1/ca", of_authority, "C5", "Org1/ca", "the first PEM block in it is EC PARAMETERS");
}

#[test]
fn a_key_in_the_folder_that_the_configuration_names_as_key_store_is_not_read() {
    let bench = Bench::in_memory(fabkeep_fixtures::NETWORK_SMALL);
    let config = bench.network().join("Org1/peer0/config/core.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("KeyStore: null", "KeyStore: ../keys", 1)).unwrap();
    let keys = bench.network().join("Org1/peer0/keys");
    fs::create_dir(&keys).unwrap();
    let own = own_key(&bench);
    let capture = || {
        let found = fabkeep_platform::discover(&bench.network(), bench.folder.path()).unwrap();
        let host = fabkeep_platform::Host::new(&found.inventory, bench.folder.path()).unwrap();
        bench.capture_from(&host, &CaptureOptions::default())
    };
    // In both places: the node reads one of them.
    fs::copy(&own, keys.join("priv_sk")).unwrap();
    assert_no_alarm(&capture().unwrap().point.findings);
    fs::remove_file(&own).unwrap();
    let Err(EngineError::Refused(findings)) = capture() else { panic!("a recovery point was made") };
    assert_found(&findings, "I5", PEER, "do not read the setting BCCSP.SW.FileKeyStore.KeyStore");
}

#[test]
fn keys_that_the_node_reads_are_no_alarm() {
    let place = Place::new();
    let quiet = |what: &str, change: &dyn Fn(&Bench)| {
        let (made, findings) = place.after(PEER, change);
        assert!(made, "{what}: {findings:#?}");
        assert_no_alarm(&findings);
    };
    quiet("named by its identifier", &|bench| fs::rename(own_key(bench), by_identifier(bench)).unwrap());
    quiet("long, and named by its identifier", &|bench| {
        let bytes = [fs::read(own_key(bench)).unwrap(), vec![b' '; 70_000]].concat();
        fs::remove_file(own_key(bench)).unwrap();
        fs::write(by_identifier(bench), bytes).unwrap();
    });
    quiet("text before it, another block behind it", &|bench| {
        let key = own_key(bench);
        put_before(&key, "Bag Attributes\n");
        fs::write(&key, format!("{}{PARAMETERS}", fs::read_to_string(&key).unwrap())).unwrap();
    });
    quiet("a second copy that is not read", &|bench| {
        let text = fs::read_to_string(own_key(bench)).unwrap();
        fs::create_dir(msp(bench).join("keystore/old")).unwrap();
        fs::write(msp(bench).join("keystore/old/priv_sk"), &text).unwrap();
        fs::write(msp(bench).join("keystore/a_sk"), format!("{PARAMETERS}{text}")).unwrap();
    });
    quiet("a link in the folder", &|bench| {
        let key = own_key(bench);
        fs::create_dir(msp(bench).join("keystore/..2026")).unwrap();
        fs::rename(&key, msp(bench).join("keystore/..2026/priv_sk")).unwrap();
        std::os::unix::fs::symlink("..2026/priv_sk", &key).unwrap();
    });
    quiet("the parameters before a TLS key", &|bench| {
        put_before(&bench.network().join("Org1/peer0/tls/server.key"), PARAMETERS);
    });
}

#[test]
fn a_node_takes_the_first_pem_file_of_its_certificates_and_the_first_block_of_that() {
    let place = Place::new();
    let parameters = |bench: &Bench| put_before(&only_in(&msp(bench).join("signcerts")), PARAMETERS);
    place.refused_after(PEER, parameters, "I5", PEER, "first PEM block in signcerts");
    let key = |bench: &Bench| {
        fs::copy(own_key(bench), msp(bench).join("signcerts/aaa.pem")).unwrap();
    };
    place.refused_after(PEER, key, "I5", PEER, "aaa.pem what its first PEM block in signcerts");
    // What is not PEM is passed over.
    let (made, findings) = place.after(PEER, |bench| fs::write(msp(bench).join("signcerts/aaa.txt"), "x").unwrap());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "I5", PEER, "signcerts/aaa.txt it is not PEM");
    assert!(findings.iter().all(|finding: &Finding| finding.severity < Severity::Error), "{findings:#?}");
    let alone = |bench: &Bench| fs::write(only_in(&msp(bench).join("signcerts")), "x").unwrap();
    place.refused_after(PEER, alone, "I5", PEER, "no enrolment certificate");
}
