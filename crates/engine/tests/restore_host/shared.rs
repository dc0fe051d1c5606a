//! Key directories that several nodes have: captured with each of them, put back once, and left alone for the node that is not restored.

use std::fs;
use std::path::Path;

use fabkeep_engine::{CaptureOptions, RestoreOptions, RestoreTarget, Silent};
use fabkeep_network::{Finding, Severity};
use fabkeep_platform::{Host, discover};

use super::bench::Bench;
use super::place::{refused, tree};

/// Writes a setting's new value into the configurations of both peers of Org1.
fn edit(bench: &Bench, from: &str, to: &str) {
    for peer in ["peer0", "peer1"] {
        let path = bench.network().join(format!("Org1/{peer}/config/core.yaml"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

/// One key store for two peers, which their configuration names; what they read is in their own.
fn with_key_store() -> Bench {
    let bench = Bench::in_memory(fabkeep_fixtures::NETWORK_SMALL);
    let org = bench.network().join("Org1");
    fs::create_dir(org.join("keystore")).unwrap();
    for peer in ["peer0", "peer1"] {
        let own = org.join(peer).join("msp/keystore");
        fs::copy(own.join("priv_sk"), org.join(format!("keystore/{peer}_sk"))).unwrap();
    }
    edit(&bench, "KeyStore: null", "KeyStore: ../../keystore");
    bench
}

/// One MSP for two peers, inside the directory of one of them; one of the peers has its key store in it as well.
fn with_msp() -> Bench {
    let bench = Bench::in_memory(fabkeep_fixtures::NETWORK_SMALL);
    fs::remove_dir_all(bench.network().join("Org1/peer1/msp")).unwrap();
    edit(&bench, "mspConfigPath: ../msp", "mspConfigPath: ../../peer0/msp");
    bench
}

fn host(bench: &Bench) -> Host {
    let found = discover(&bench.network(), bench.folder.path()).unwrap();
    assert!(found.remarks.is_empty(), "{:?}", found.remarks);
    Host::new(&found.inventory, bench.folder.path()).unwrap()
}

fn alarms(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.severity > Severity::Note).collect()
}

fn options(nodes: &[&str]) -> RestoreOptions {
    let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
    RestoreOptions { nodes, replace: true, threads: 1, ..RestoreOptions::default() }
}

#[test]
fn both_nodes_are_captured_with_the_keys_that_they_share() {
    for bench in [with_key_store(), with_msp()] {
        let host = host(&bench);
        let captured = bench.capture_from(&host, &CaptureOptions::default()).unwrap();
        // That both show one certificate to others is told.
        let alarms = alarms(&captured.point.findings);
        assert!(alarms.iter().all(|finding| finding.what.contains("the same enrolment key as")), "{alarms:#?}");
        for name in ["peer0", "peer1"] {
            let node = captured.point.nodes.iter().find(|node| node.facts.id.to_string() == format!("Org1/{name}"));
            let facts = &node.unwrap().facts;
            let own = facts.keys.iter().filter(|key| key.key.is_some()).count();
            assert!(own >= 2, "{name}: {:#?}", facts.keys);
        }
    }
}

#[test]
fn what_is_shared_is_put_back_once() {
    for (bench, shared) in [(with_key_store(), "Org1/keystore"), (with_msp(), "Org1/peer0/msp")] {
        let host = host(&bench);
        bench.capture_from(&host, &CaptureOptions::default()).unwrap();
        let before = tree(&bench.network().join("Org1"));
        // A copy of everything.
        bench.restore_below("copy", &RestoreOptions::default()).unwrap();
        assert_eq!(tree(&bench.path("copy").join(shared)), tree(&bench.network().join(shared)));
        // In place, of both nodes and of one, where everything was lost.
        for nodes in [&["Org1/peer0", "Org1/peer1"][..], &["Org1/peer1"], &["Org1/peer0"]] {
            for node in nodes {
                fs::remove_dir_all(bench.network().join(node)).unwrap();
            }
            let _ = fs::remove_dir_all(bench.network().join(shared));
            let to = RestoreTarget::Host(&host);
            let restored = bench.restore_to(&to, &options(nodes), &Silent).unwrap();
            let places: Vec<&Path> = restored.directories.iter().map(|placed| placed.path.as_path()).collect();
            let times = places.iter().filter(|place| place.ends_with(shared)).count();
            assert_eq!(times, 1, "{places:?}");
            let keys = |tree: std::collections::BTreeMap<std::path::PathBuf, (u32, Vec<u8>)>| {
                tree.into_iter().filter(|(path, _)| !path.to_string_lossy().contains("production")).collect::<Vec<_>>()
            };
            assert_eq!(keys(tree(&bench.network().join("Org1"))), keys(before.clone()), "{nodes:?}");
        }
    }
}

#[test]
fn the_restore_of_one_node_does_not_replace_what_the_other_uses() {
    for (bench, shared) in [(with_key_store(), "Org1/keystore"), (with_msp(), "Org1/peer0/msp")] {
        let host = host(&bench);
        bench.capture_from(&host, &CaptureOptions::default()).unwrap();
        let to = RestoreTarget::Host(&host);
        // It is as it was captured.
        fs::remove_dir_all(bench.network().join("Org1/peer1/production")).unwrap();
        let restored = bench.restore_to(&to, &options(&["Org1/peer1"]), &Silent).unwrap();
        let said = |findings: &[Finding], severity: Severity, words: &str| {
            let of = |finding: &Finding| {
                finding.severity == severity && finding.rule.code() == "B8" && finding.what.contains(words)
            };
            assert!(findings.iter().any(of), "{words}: {findings:#?}");
        };
        said(&restored.findings, Severity::Note, "is used by Org1/peer0 too; it equals the captured directory");
        // It has changed since.
        let place = bench.network().join(shared);
        fs::write(place.join("more"), "text").unwrap();
        let before = tree(bench.folder.path());
        let findings = refused(bench.restore_to(&to, &options(&["Org1/peer1"]), &Silent));
        said(&findings, Severity::Error, "is used by Org1/peer0 too, which is not restored, and differs");
        assert!(tree(bench.folder.path()) == before);
        // With both, it is set aside.
        bench.restore_to(&to, &options(&["Org1/peer0", "Org1/peer1"]), &Silent).unwrap();
        assert!(!place.join("more").exists());
    }
}
