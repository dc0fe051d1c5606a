//! MSPs with which a node does not start: files that are PEM and no certificate, TLS CA certificates that lead to no root, files in the place
//! of folders.

use std::fs;
use std::path::PathBuf;

use super::absence::Place;
use super::{assert_found, assert_no_alarm, verdict};
use crate::bench::Bench;
use fabkeep_engine::CaptureOptions;
use fabkeep_network::{Finding, Severity};

const PEER: &str = "Org1/peer0";

fn first_in(bench: &Bench, folder: &str) -> PathBuf {
    fs::read_dir(bench.network().join(folder)).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn pem_that_is_no_certificate_is_an_error_in_every_folder_of_certificates() {
    let place = Place::new();
    for folder in ["cacerts", "tlscacerts", "intermediatecerts", "admincerts"] {
        let added = |bench: &Bench, bytes: &[u8]| {
            let folder = bench.network().join("Org1/peer0/msp").join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("zz.pem"), bytes).unwrap();
        };
        let key = |bench: &Bench| added(bench, &fs::read(first_in(bench, "Org1/peer0/msp/keystore")).unwrap());
        place.refused_after(PEER, key, "I5", PEER, "zz.pem what its first PEM block");
        // A certificate of which the end is lost, between whole lines.
        let cut = |bench: &Bench| {
            let text = fs::read_to_string(first_in(bench, "Org1/peer0/msp/cacerts")).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            added(bench, format!("{}\n{}\n", lines[..5].join("\n"), lines[lines.len() - 1]).as_bytes());
        };
        place.refused_after(PEER, cut, "I5", PEER, "zz.pem what its first PEM block");
        // A node reads the first block of a file.
        let behind = |bench: &Bench| {
            let mut bytes = fs::read(first_in(bench, "Org1/peer0/msp/keystore")).unwrap();
            bytes.extend(fs::read(first_in(bench, "Org1/peer0/msp/cacerts")).unwrap());
            added(bench, &bytes);
        };
        place.refused_after(PEER, behind, "I5", PEER, "zz.pem what its first PEM block");
        // A node ignores what is no PEM at all.
        for bytes in [&b"notes"[..], b"", b"-----BEGIN CERTIFICATE-----\nMIIB"] {
            let (made, findings) = place.after(PEER, |bench| added(bench, bytes));
            assert!(made, "{folder}: {findings:#?}");
            assert_found(&findings, "I5", PEER, "zz.pem");
            assert!(findings.iter().all(|finding| finding.severity < Severity::Error), "{findings:#?}");
        }
    }
}

#[test]
fn a_tls_ca_certificate_that_no_tls_root_has_issued_is_an_error() {
    let place = Place::new();
    let added = |bench: &Bench, from: &str| {
        let folder = bench.network().join("Org1/peer0/msp/tlsintermediatecerts");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(bench.network().join(from), folder.join("x.pem")).unwrap();
    };
    place.refused_after(PEER, |bench| added(bench, "Org2/peer0/tls/ca.crt"), "I5", PEER, "x.pem");
    // A root among those between leads to itself.
    let (made, findings) = place.after(PEER, |bench| added(bench, "Org1/peer0/tls/ca.crt"));
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
    // Without TLS roots the node does not look at them.
    let (made, findings) = place.after(PEER, |bench| {
        added(bench, "Org2/peer0/tls/ca.crt");
        fs::remove_file(first_in(bench, "Org1/peer0/msp/tlscacerts")).unwrap();
    });
    assert!(made, "{findings:#?}");
    let errors: Vec<&Finding> = findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn a_file_in_the_place_of_a_folder_of_certificates_is_an_error() {
    let place = Place::new();
    for folder in ["tlscacerts", "admincerts", "intermediatecerts", "crls"] {
        let change = |bench: &Bench| {
            let path = bench.network().join("Org1/peer0/msp").join(folder);
            let _ = fs::remove_dir_all(&path);
            fs::write(path, "x").unwrap();
        };
        place.refused_after(PEER, change, "I5", PEER, &format!("{folder} it is a file"));
    }
    let bench = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
}

#[test]
fn a_certificate_that_the_msps_configuration_names_for_a_unit_is_one_of_its_cas() {
    let place = Place::new();
    let unit = |bench: &Bench, certificate: &str| {
        let path = bench.network().join("Org1/peer0/msp/config.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let list = "OrganizationalUnitIdentifiers:\n  - OrganizationalUnitIdentifier: x\n";
        fs::write(path, format!("{text}{list}    Certificate: {certificate}\n")).unwrap();
    };
    place.refused_after(PEER, |bench| unit(bench, "cacerts/none.pem"), "I5", PEER, "cacerts/none.pem the MSP's config");
    let own = |bench: &Bench| {
        let name = first_in(bench, "Org1/peer0/msp/signcerts").file_name().unwrap().to_str().unwrap().to_owned();
        unit(bench, &format!("signcerts/{name}"));
    };
    place.refused_after(PEER, own, "I5", PEER, "none of the CA certificates in cacerts");
    let (made, findings) = place.after(PEER, |bench| {
        let name = first_in(bench, "Org1/peer0/msp/cacerts").file_name().unwrap().to_str().unwrap().to_owned();
        unit(bench, &format!("cacerts/{name}"));
    });
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
}
