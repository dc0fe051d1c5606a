//! What a node's configuration names: files and directories that are not there, and configurations that contradict the inventory.

use std::fs;

use fabkeep_engine::CaptureOptions;
use fabkeep_network::{Finding, Severity};
use fabkeep_platform::discover;

use super::absence::Place;
use super::{assert_found, assert_no_alarm, verdict};
use crate::bench::Bench;

const PEER: &str = "Org1/peer0";
const ORDERER: &str = "OrdererOrg/orderer1";
const CORE: &str = "Org1/peer0/config/core.yaml";
const ORDERER_YAML: &str = "OrdererOrg/orderer1/config/orderer.yaml";

fn edit(bench: &Bench, file: &str, changes: &[(&str, &str)]) {
    let path = bench.network().join(file);
    let mut text = fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{file}: {from}");
        text = text.replacen(from, to, 1);
    }
    fs::write(path, text).unwrap();
}

/// A warning, and a recovery point all the same.
#[track_caller]
fn warned(place: &Place, of: &str, change: impl Fn(&Bench), rule: &str, about: &str) {
    let (made, findings) = place.after(of, change);
    assert!(made, "{about}: {findings:#?}");
    assert_found(&findings, rule, of, about);
    let alarms: Vec<&Finding> = findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert_eq!(alarms.len(), 1, "{alarms:#?}");
}

#[test]
fn tls_files_that_the_configuration_names_and_that_are_missing_are_errors() {
    let place = Place::new();
    let other_folder: &[(&str, &str)] = &[("file: ../tls/server.crt", "file: ../tls2/server.crt")];
    let client: &[(&str, &str)] = &[
        ("    clientKey:\n      file: null", "    clientKey:\n      file: ../tls/client.key"),
        ("    clientCert:\n      file: null", "    clientCert:\n      file: ../tls/client.crt"),
    ];
    let roots: &[(&str, &str)] = &[
        ("clientAuthRequired: false", "clientAuthRequired: true"),
        ("      files:\n      - ../tls/ca.crt", "      files:\n      - ../tls/ca.crt\n      - ../tls3/clientca.crt"),
    ];
    for (changes, about) in [
        (other_folder, "tls2/server.crt core.yaml names it (peer.tls.cert.file), but it is missing"),
        (client, "tls/client.key core.yaml names it (peer.tls.clientKey.file), but it is missing"),
        (client, "tls/client.crt core.yaml names it (peer.tls.clientCert.file), but it is missing"),
        (roots, "tls3/clientca.crt core.yaml names it (peer.tls.clientRootCAs.files), but it is missing"),
    ] {
        place.refused_after(PEER, |bench| edit(bench, CORE, changes), "I5", PEER, about);
    }
    let operations = "Operations: {ListenAddress: 127.0.0.1:17055, TLS: {Enabled: false}}";
    for (from, to, about) in [
        (
            operations,
            "Operations: {TLS: {Enabled: true, Certificate: ../tls/operations.crt, PrivateKey: ../tls/server.key}}",
            "operations.crt orderer.yaml names it (Operations.TLS.Certificate)",
        ),
        (
            "ClientCertificate: ../tls/server.crt",
            "ClientCertificate: ../cluster/client.crt",
            "cluster/client.crt orderer.yaml names it (General.Cluster.ClientCertificate)",
        ),
    ] {
        place.refused_after(ORDERER, |bench| edit(bench, ORDERER_YAML, &[(from, to)]), "I5", ORDERER, about);
    }
    // What a container's engine makes of a file to mount that is missing.
    for (node, name) in [(PEER, "core.yaml"), (ORDERER, "orderer.yaml")] {
        for file in ["ca.crt", "server.crt"] {
            let folder = |bench: &Bench| {
                let path = bench.network().join(node).join("tls").join(file);
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            };
            place.refused_after(node, folder, "I5", node, &format!("tls/{file} {name} names it"));
            place.refused_after(node, folder, "I5", node, "but it is a directory");
        }
    }
    // It is there, and outside of what is captured.
    let outside = |bench: &Bench| {
        fs::create_dir_all(bench.path("elsewhere")).unwrap();
        fs::copy(bench.network().join("Org1/peer0/tls/ca.crt"), bench.path("elsewhere/ca.crt")).unwrap();
        edit(
            bench,
            CORE,
            &[("rootcert:\n      file: ../tls/ca.crt", "rootcert:\n      file: ../../../../elsewhere/ca.crt")],
        );
    };
    warned(&place, PEER, outside, "I5", "in none of the captured directories");
    // One of another node's directories.
    let others = |bench: &Bench| {
        edit(bench, CORE, &[("rootcert:\n      file: ../tls/ca.crt", "rootcert:\n      file: ../../peer1/tls/ca.crt")]);
    };
    let (made, findings) = place.after(PEER, others);
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
}

/// Files of sections whose paths begin where the node is started.
#[test]
fn files_that_no_captured_path_ends_like_are_warned_of() {
    let place = Place::new();
    let roots = |bench: &Bench| {
        edit(bench, ORDERER_YAML, &[("ClientRootCAs: [../tls/ca.crt]}", "ClientRootCAs: [../adm/ca.pem]}")]);
    };
    warned(&place, ORDERER, roots, "I5", "../adm/ca.pem orderer.yaml names it (Admin.TLS.ClientRootCAs) by a path");
    let library = |named: &'static str| {
        move |bench: &Bench| {
            let text = fs::read_to_string(bench.network().join(CORE)).unwrap();
            let line = text.lines().find(|line| line.trim() == "library: null" || line.trim() == "library:").unwrap();
            let with = line.replace("library:", &format!("library: {named} #"));
            edit(bench, CORE, &[(line, &with)]);
        }
    };
    warned(&place, PEER, library("plugins/none.so"), "K3", "plugins/none.so core.yaml names it (peer.handlers.");
}

#[test]
fn a_client_certificate_without_its_key_is_an_error() {
    let place = Place::new();
    let alone = &[("    clientCert:\n      file: null", "    clientCert:\n      file: ../tls/server.crt")];
    place.refused_after(PEER, |bench| edit(bench, CORE, alone), "I5", PEER, "the peer does not start");
}

#[test]
fn further_tls_files_that_a_ca_names_are_missed() {
    let place = Place::new();
    const CA: &str = "Org1/ca";
    let with = |bench: &Bench, section: &str, text: &str| {
        let path = bench.network().join("Org1/ca/fabric-ca-server-config.yaml");
        let old = fs::read_to_string(&path).unwrap();
        // A section that stands twice counts as it stands last.
        fs::write(path, format!("{}\n{section}:\n{text}", old.trim_end())).unwrap();
        for (from, to) in [("server.crt", "c.pem"), ("server.key", "k.pem"), ("ca.crt", "roots.pem")] {
            fs::copy(bench.network().join("Org1/peer0/tls").join(from), bench.network().join(CA).join(to)).unwrap();
        }
    };
    let clients = |roots: &'static str| {
        move |bench: &Bench| {
            let text = format!(
                "  enabled: true\n  certfile: c.pem\n  keyfile: k.pem\n  clientauth:\n    type: RequireAndVerifyClientCert\n    certfiles: [{roots}]\n"
            );
            with(bench, "tls", &text);
        }
    };
    place.refused_after(CA, clients("ca9.pem"), "I5", CA, "ca9.pem the CA's configuration names it (tls.clientauth");
    let (made, findings) = place.after(CA, clients("roots.pem"));
    assert!(made && findings.iter().all(|finding| !finding.what.contains("clientauth")), "{findings:#?}");
    let operations = |bench: &Bench| {
        with(bench, "operations", "  tls:\n    enabled: true\n    cert: {file: c.pem}\n    key: {file: o.pem}\n");
    };
    warned(&place, CA, operations, "I5", "o.pem the CA's configuration names it (operations.tls.key.file)");
}

#[test]
fn the_block_that_an_orderer_begins_with_is_missed() {
    let place = Place::new();
    for (method, file) in [("BootstrapMethod", "BootstrapFile"), ("GenesisMethod", "GenesisFile")] {
        let to = format!("{method}: file\n  {file}: ../genesis.block");
        let change = |bench: &Bench| edit(bench, ORDERER_YAML, &[("BootstrapMethod: none", &to)]);
        let about = format!("orderer1/genesis.block orderer.yaml names it (General.{file}), but it is missing");
        place.refused_after(ORDERER, change, "K3", ORDERER, &about);
        let there = |bench: &Bench| {
            change(bench);
            fs::write(bench.network().join("OrdererOrg/orderer1/genesis.block"), "block").unwrap();
        };
        warned(&place, ORDERER, there, "K3", "in none of the captured directories");
    }
    // Discovery takes its folder.
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    edit(
        &bench,
        ORDERER_YAML,
        &[("BootstrapMethod: none", "BootstrapMethod: file\n  BootstrapFile: ../first/genesis.block")],
    );
    fs::create_dir_all(bench.network().join("OrdererOrg/orderer1/first")).unwrap();
    fs::write(bench.network().join("OrdererOrg/orderer1/first/genesis.block"), "block").unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
}

/// A revocation list without entries.
const CRL: &str = "-----BEGIN X509 CRL-----\n\
MIHNMHUCAQEwCgYIKoZIzj0EAwIwFTETMBEGA1UEAwwKY2EuZXhhbXBsZRcNMjYx\n\
MTMwMDkxMTI4WhcNMzYxMTI3MDkxMTI4WqAvMC0wHwYDVR0jBBgwFoAU/goxcEV6\n\
hjkB0qaMrL9yVZXeCUYwCgYDVR0UBAMCAQEwCgYIKoZIzj0EAwIDSAAwRQIgIJQJ\n\
LZlxrZaheJg4JLa04RHXXoBdSDGCOdxtxJlJvl0CIQDW4xGbvZii0JQirtLDYeKD\n\
CS+9J2dlvzM9PGOfByBcIw==\n\
-----END X509 CRL-----\n";

/// Two services whose settings are in their environment alone.
const COMPOSE: &str = r#"
services:
  peer0:
    image: hyperledger/fabric-peer:2.5
    environment: {CORE_PEER_ID: peer0.org1, CORE_PEER_LOCALMSPID: Org1MSP, CORE_PEER_MSPCONFIGPATH: /m, CORE_PEER_TLS_ENABLED: "true", CORE_PEER_TLS_CERT_FILE: /t/server.crt, CORE_PEER_TLS_KEY_FILE: /t/server.key, CORE_PEER_TLS_ROOTCERT_FILE: /t/ca.crt, CORE_PEER_TLS_CLIENTCERT_FILE: /t/client.crt, CORE_PEER_TLS_CLIENTKEY_FILE: /t/client.key}
    volumes: ["./Org1/peer0/production:/var/hyperledger/production", "./Org1/peer0/msp:/m", "./Org1/peer0/tls:/t"]
  orderer1:
    image: hyperledger/fabric-orderer:1.4
    environment: {ORDERER_GENERAL_GENESISMETHOD: file, ORDERER_GENERAL_GENESISFILE: /var/hyperledger/orderer/orderer.genesis.block, ORDERER_GENERAL_LOCALMSPID: OrdererMSP, ORDERER_GENERAL_LOCALMSPDIR: /m, ORDERER_GENERAL_TLS_ENABLED: "true", ORDERER_GENERAL_TLS_CERTIFICATE: /t/server.crt, ORDERER_GENERAL_TLS_PRIVATEKEY: /t/server.key, ORDERER_GENERAL_TLS_ROOTCAS: "[/t/ca.crt, /t/more.crt]"}
    volumes: ["./OrdererOrg/orderer1/production:/var/hyperledger/production/orderer", "./OrdererOrg/orderer1/msp:/m", "./OrdererOrg/orderer1/tls:/t", "./channel-artifacts/genesis.block:/var/hyperledger/orderer/orderer.genesis.block"]
"#;

#[test]
fn files_that_only_the_environment_names_are_missed() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let network = bench.network();
    for folder in ["Org1/peer0/config", "OrdererOrg/orderer1/config"] {
        fs::remove_dir_all(network.join(folder)).unwrap();
    }
    fs::write(network.join("docker-compose.yml"), COMPOSE).unwrap();
    let named = [
        "Org1/peer0/tls/client.crt",
        "Org1/peer0/tls/client.key",
        "OrdererOrg/orderer1/tls/more.crt",
        "channel-artifacts/genesis.block",
    ];
    fs::create_dir_all(network.join("channel-artifacts")).unwrap();
    for file in named {
        let from = if file.ends_with("client.key") { "Org1/peer0/tls/server.key" } else { "Org1/peer0/tls/server.crt" };
        let from = if file.ends_with("more.crt") { "OrdererOrg/orderer1/tls/ca.crt" } else { from };
        fs::copy(network.join(from), network.join(file)).unwrap();
    }
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
    for (file, rule, variable) in [
        (named[0], "I5", "CORE_PEER_TLS_CLIENTCERT_FILE"),
        (named[1], "I5", "CORE_PEER_TLS_CLIENTKEY_FILE"),
        ("Org1/peer0/tls/ca.crt", "I5", "CORE_PEER_TLS_ROOTCERT_FILE"),
        (named[2], "I5", "ORDERER_GENERAL_TLS_ROOTCAS"),
        (named[3], "K3", "ORDERER_GENERAL_GENESISFILE"),
    ] {
        let aside = bench.path("aside");
        fs::rename(network.join(file), &aside).unwrap();
        let (made, findings) = verdict(&bench, &CaptureOptions::default());
        assert!(!made, "{file}: {findings:#?}");
        assert_found(&findings, rule, file, &format!("the environment names it ({variable}), but it is missing"));
        fs::rename(aside, network.join(file)).unwrap();
    }
}

#[test]
fn directories_that_the_configuration_names_in_another_place_contradict_the_inventory() {
    let place = Place::new();
    for (file, of, rule, from, to, about) in [
        (
            CORE,
            PEER,
            "I5",
            "mspConfigPath: ../msp",
            "mspConfigPath: ../msp2",
            "msp2 core.yaml names this directory, which does not exist (peer.mspConfigPath)",
        ),
        (CORE, PEER, "K3", "fileSystemPath: ../production", "fileSystemPath: ../production2", "(peer.fileSystemPath)"),
        (CORE, PEER, "I5", "KeyStore: null", "KeyStore: ../nokeys", "(peer.BCCSP.SW.FileKeyStore.KeyStore)"),
        (ORDERER_YAML, ORDERER, "K3", "WALDir: ../production/etcdraft/wal", "WALDir: ../wal2", "(Consensus.WALDir)"),
        (ORDERER_YAML, ORDERER, "K3", "{Location: ../production}", "{Location: ../other}", "(FileLedger.Location)"),
        (CORE, PEER, "I5", "localMspId: Org1MSP", "localMspId: Org2MSP", "MSP is Org2MSP, the inventory says Org1MSP"),
    ] {
        warned(&place, of, |bench| edit(bench, file, &[(from, to)]), rule, about);
    }
    // An existing directory that is not the node's in the inventory.
    let elsewhere = |bench: &Bench| {
        super::copy(&bench.network().join("Org2/peer0/msp"), &bench.network().join("Org1/peer0/msp2"));
        edit(bench, CORE, &[("mspConfigPath: ../msp", "mspConfigPath: ../msp2")]);
    };
    warned(&place, PEER, elsewhere, "I5", "core.yaml names this directory (peer.mspConfigPath)");
}

/// Another node's directory in the place of the one that the configuration names, in the inventory.
#[test]
fn directories_of_two_nodes_that_are_exchanged_in_the_inventory_are_reported() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut found = discover(&bench.network(), bench.folder.path()).unwrap();
    let text = serde_json::to_string(&found.inventory).unwrap();
    let (one, other) = ("Org1/peer0/msp\"", "Org1/peer1/msp\"");
    let text = text.replace(one, "\0").replace(other, one).replace('\0', other);
    let (one, other) = ("orderer1/production/etcdraft/wal\"", "orderer2/production/etcdraft/wal\"");
    let text = text.replace(one, "\0").replace(other, one).replace('\0', other);
    found.inventory = serde_json::from_str(&text).unwrap();
    let host = fabkeep_platform::Host::new(&found.inventory, bench.folder.path()).unwrap();
    let findings = bench.capture_from(&host, &CaptureOptions::default()).unwrap().point.findings;
    assert_found(&findings, "I5", "Org1/peer0", "core.yaml names this directory (peer.mspConfigPath)");
    assert_found(&findings, "I5", "Org1/peer1", "core.yaml names this directory (peer.mspConfigPath)");
    assert_found(&findings, "K3", "OrdererOrg/orderer1", "orderer.yaml names this directory (Consensus.WALDir)");
}

/// A container's configuration names its own paths.
#[test]
fn a_containers_paths_and_what_its_environment_overrides_are_no_contradiction() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    edit(
        &bench,
        CORE,
        &[
            ("fileSystemPath: ../production", "fileSystemPath: /var/hyperledger/production"),
            ("mspConfigPath: ../msp", "mspConfigPath: /id/msp"),
            ("localMspId: Org1MSP", "localMspId: OtherMSP"),
            ("file: ../tls/server.crt", "file: tls/server.crt"),
            ("file: ../tls/server.key", "file: tls/server.key"),
            ("rootcert:\n      file: ../tls/ca.crt", "rootcert:\n      file: tls/ca.crt"),
            ("KeyStore: null", "KeyStore: msp2/keys"),
        ],
    );
    fs::write(
        bench.network().join("docker-compose.yml"),
        "services:\n  peer0:\n    image: hyperledger/fabric-peer:2.5\n    environment: {CORE_PEER_ID: peer0.org1, CORE_PEER_LOCALMSPID: Org1MSP, CORE_PEER_BCCSP_SW_FILEKEYSTORE_KEYSTORE: /id/msp/keystore}\n    volumes: ['./Org1/peer0/production:/var/hyperledger/production', './Org1/peer0/msp:/id/msp', './Org1/peer0/tls:/etc/hyperledger/fabric/tls', './Org1/peer0/config/core.yaml:/etc/hyperledger/fabric/core.yaml']\n",
    )
    .unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
    // A file that it names there is missing here.
    fs::remove_file(bench.network().join("Org1/peer0/tls/ca.crt")).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(!made, "{findings:#?}");
    assert_found(&findings, "I5", "Org1/peer0/tls/ca.crt", "but it is missing");
    // An inventory that says nothing of the container: its paths say nothing of this machine.
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut found = discover(&bench.network(), bench.folder.path()).unwrap();
    let path = bench.network().join(CORE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(": ../", ": /etc/hyperledger/fabric/").replace("- ../tls", "- /etc/tls")).unwrap();
    found
        .inventory
        .organizations
        .iter_mut()
        .flat_map(|known| &mut known.nodes)
        .for_each(|node| node.environment.clear());
    let host = fabkeep_platform::Host::new(&found.inventory, bench.folder.path()).unwrap();
    let captured = bench.capture_from(&host, &CaptureOptions::default()).unwrap();
    assert_no_alarm(&captured.point.findings);
}

#[test]
fn an_empty_configuration_is_no_configuration() {
    let place = Place::new();
    for (file, of) in [(CORE, PEER), (ORDERER_YAML, ORDERER)] {
        for text in ["", "\n \n"] {
            let empty = |bench: &Bench| fs::write(bench.network().join(file), text).unwrap();
            place.refused_after(of, empty, "K3", of, "the node's configuration is empty");
        }
    }
}

#[test]
fn a_further_certificate_authority_that_is_not_there_is_missed() {
    let place = Place::new();
    let config = "Org1/ca/fabric-ca-server-config.yaml";
    let cafiles: &[(&str, &str)] = &[("\ncafiles:", "\ncafiles: [ca2/fabric-ca-server-config.yaml]")];
    place.refused_after(
        "Org1/ca",
        |bench| edit(bench, config, cafiles),
        "C5",
        "Org1/ca",
        "ca2/fabric-ca-server-config.yaml",
    );
    let cacount: &[(&str, &str)] = &[("\ncacount:", "\ncacount: 2")];
    for missing in ["ca/ca1/fabric-ca-config.yaml", "ca/ca2/fabric-ca-config.yaml"] {
        place.refused_after("Org1/ca", |bench| edit(bench, config, cacount), "C5", "Org1/ca", missing);
    }
    for (text, about) in [("", "is empty"), ("ca: [", "cannot be read")] {
        let change = |bench: &Bench| {
            edit(bench, config, cafiles);
            fs::create_dir_all(bench.network().join("Org1/ca/ca2")).unwrap();
            fs::write(bench.network().join("Org1/ca/ca2/fabric-ca-server-config.yaml"), text).unwrap();
        };
        place.refused_after("Org1/ca", change, "C5", "Org1/ca", about);
    }
}

#[test]
fn an_msp_with_which_fabric_does_not_start_is_an_error() {
    let place = Place::new();
    let put = |bench: &Bench, folder: &str, from: &str| {
        let folder = bench.network().join("Org1/peer0/msp").join(folder);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(bench.network().join(from)).unwrap() {
            fs::copy(entry.unwrap().path(), folder.join("other.pem")).unwrap();
        }
    };
    let leaf = |bench: &Bench| put(bench, "intermediatecerts", "Org2/peer0/msp/signcerts");
    place.refused_after(PEER, leaf, "I5", "msp/intermediatecerts/other.pem", "is not a CA's");
    let alien = |bench: &Bench| {
        put(bench, "intermediatecerts", "Org2/peer0/msp/cacerts");
    };
    place.refused_after(PEER, alien, "I5", "msp/intermediatecerts/other.pem", "was not issued by any");
    let admin = |bench: &Bench| put(bench, "admincerts", "Org2/users/Admin/msp/signcerts");
    place.refused_after(PEER, admin, "I5", "msp/admincerts/other.pem", "was not issued by any");
    let own = |bench: &Bench| put(bench, "admincerts", "Org1/users/Admin/msp/signcerts");
    let (made, findings) = place.after(PEER, own);
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
    let list = |text: &'static str| {
        move |bench: &Bench| {
            fs::create_dir_all(bench.network().join("Org1/peer0/msp/crls")).unwrap();
            fs::write(bench.network().join("Org1/peer0/msp/crls/x.pem"), text).unwrap();
        }
    };
    let broken = "-----BEGIN X509 CRL-----\nMIIBAAAA\n-----END X509 CRL-----\n";
    place.refused_after(PEER, list(broken), "I5", "msp/crls/x.pem", "not a readable revocation list");
    warned(&place, PEER, list("nothing\n"), "I5", "not PEM");
    let (made, findings) = place.after(PEER, list(CRL));
    assert!(made, "{findings:#?}");
    assert_no_alarm(&findings);
}
