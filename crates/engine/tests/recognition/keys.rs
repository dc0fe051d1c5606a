//! Keys of every kind that nodes accept, keys that are none, and keys in tokens.

use fabkeep_network::Severity;

use super::{One, own, reported};

fn key(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn keys_of_every_kind_are_understood_and_matched() {
    let one = One::new("Org1/peer0");
    let (certificate, private) = (one.path("tls/server.crt"), one.path("tls/server.key"));
    let chain = std::fs::read(one.path("tls/ca.crt")).unwrap();
    let preamble = b"Certificate:\n    Data: \xe9\n\r\n".to_vec();
    let joined = |parts: &[&[u8]]| parts.concat();
    let wide = |pem: &[u8]| String::from_utf8(pem.to_vec()).unwrap().replace('\n', "\r\n  ").into_bytes();
    let good: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        ("RSA, PKCS#8", key("rsa.crt"), key("rsa.key")),
        ("RSA, PKCS#1", key("rsa.crt"), key("rsa-pkcs1.key")),
        ("P-384", key("p384.crt"), key("p384.key")),
        ("P-521, PKCS#8", key("p521.crt"), key("p521.key")),
        ("P-521, SEC1", key("p521.crt"), key("p521-sec1.key")),
        ("P-521, with parameters before", key("p521.crt"), key("p521-parameters.key")),
        ("Ed25519", key("ed25519.crt"), key("ed25519.key")),
        ("text before both", joined(&[&preamble, &key("rsa.crt")]), joined(&[&preamble, &key("rsa.key")])),
        ("a chain", joined(&[&key("rsa.crt"), &chain]), key("rsa.key")),
        ("odd line ends", wide(&key("p384.crt")), wide(&key("p384.key"))),
        ("both in one file", joined(&[&key("rsa.key"), &key("rsa.crt")]), key("rsa.key")),
    ];
    for (what, new_certificate, new_key) in good {
        std::fs::write(&certificate, new_certificate).unwrap();
        std::fs::write(&private, new_key).unwrap();
        let (complete, findings) = one.capture();
        // That they are signed by no CA beside them is another matter.
        let about = own(&findings).into_iter().filter(|finding| !finding.what.contains("has signed"));
        assert!(complete && about.count() == 0, "{what}: {:#?}", own(&findings));
    }
    let cut = |name: &str| {
        let text = String::from_utf8(key(name)).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.remove(2);
        (lines.join("\n") + "\n").into_bytes()
    };
    let bad: Vec<(&str, Vec<u8>, Severity, &str)> = vec![
        ("another's key", key("p384.key"), Severity::Error, "does not match the"),
        ("encrypted, PKCS#8", key("rsa-encrypted.key"), Severity::Error, "encrypted"),
        ("encrypted, PKCS#1", key("rsa-encrypted-pkcs1.key"), Severity::Error, "encrypted"),
        ("a line is missing", cut("rsa.key"), Severity::Error, "cannot be used"),
        ("not a key", b"hello".to_vec(), Severity::Error, "is not in the set"),
        ("empty", Vec::new(), Severity::Error, "is not in the set"),
    ];
    std::fs::write(&certificate, key("rsa.crt")).unwrap();
    for (what, new_key, severity, part) in bad {
        std::fs::write(&private, new_key).unwrap();
        let (complete, findings) = one.capture();
        reported(what, &findings, severity, "I5", part);
        assert!(!complete, "{what}");
    }
    // A curve that is not known: captured, and said to be unchecked.
    std::fs::write(&certificate, key("p224.crt")).unwrap();
    std::fs::write(&private, key("p224.key")).unwrap();
    let (complete, findings) = one.capture();
    reported("P-224", &findings, Severity::Warning, "I5", "cannot be checked");
    assert!(complete, "{findings:#?}");
}

#[test]
fn a_tls_certificate_of_another_name_is_found_by_the_configuration() {
    let one = One::new("Org1/peer0");
    for name in ["server.crt", "server.key"] {
        std::fs::rename(one.path(&format!("tls/{name}")), one.path(&format!("tls/peer0-{name}.pem"))).unwrap();
    }
    one.edit("config/core.yaml", "../tls/server.crt", "../tls/peer0-server.crt.pem");
    one.edit("config/core.yaml", "../tls/server.key", "../tls/peer0-server.key.pem");
    let (complete, findings) = one.capture();
    assert!(complete && own(&findings).is_empty(), "{findings:#?}");
    std::fs::remove_file(one.path("tls/peer0-server.key.pem")).unwrap();
    let (_, findings) = one.capture();
    reported("no key", &findings, Severity::Error, "I5", "(TLS) is not in the set");
    std::fs::remove_file(one.path("tls/peer0-server.crt.pem")).unwrap();
    let (_, findings) = one.capture();
    reported("no certificate", &findings, Severity::Error, "I5", "in none of its directories");
}

#[test]
fn keys_in_a_token_are_noted_and_not_missed() {
    let token = |one: &One| {
        for entry in std::fs::read_dir(one.path("msp/keystore")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    };
    let set = |environment: [(&'static str, &'static str); 2]| {
        move |inventory: &mut fabkeep_platform::Inventory| {
            let nodes = inventory.organizations.iter_mut().flat_map(|organization| &mut organization.nodes);
            for node in nodes {
                node.environment.extend(environment.map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
        }
    };
    // In the configuration file.
    let peer = One::new("Org1/peer0");
    token(&peer);
    let (complete, findings) = peer.capture();
    reported("no token", &findings, Severity::Error, "I5", "is not in the set");
    assert!(!complete);
    peer.edit("config/core.yaml", "Default: SW", "Default: PKCS11");
    peer.edit("config/core.yaml", "Label: null", "Label: ForFabric");
    let (complete, findings) = peer.capture();
    assert!(complete, "{findings:#?}");
    reported("core.yaml", &findings, Severity::Note, "I5", "\"ForFabric\"");
    // In the environment.
    let orderer = One::new("OrdererOrg/orderer1");
    token(&orderer);
    let with = set([("ORDERER_GENERAL_BCCSP_DEFAULT", "PKCS11"), ("ORDERER_GENERAL_BCCSP_PKCS11_LABEL", "hsm1")]);
    let (complete, findings) = orderer.capture_with(with);
    assert!(complete, "{findings:#?}");
    reported("environment", &findings, Severity::Note, "I5", "\"hsm1\"");
    // A TLS key is a file in every case.
    std::fs::remove_file(peer.path("tls/server.key")).unwrap();
    let (complete, findings) = peer.capture();
    reported("TLS", &findings, Severity::Error, "I5", "(TLS) is not in the set");
    assert!(!complete);
    // A certificate authority's.
    let ca = One::new("Org1/ca");
    token(&ca);
    let with = set([("FABRIC_CA_SERVER_BCCSP_DEFAULT", "PKCS11"), ("FABRIC_CA_SERVER_BCCSP_PKCS11_LABEL", "root")]);
    let (complete, findings) = ca.capture_with(with);
    assert!(complete, "{findings:#?}");
    reported("CA", &findings, Severity::Note, "C5", "\"root\"");
    let config = "fabric-ca-server-config.yaml";
    let text = std::fs::read_to_string(ca.path(config)).unwrap();
    std::fs::write(
        ca.path(config),
        format!("{text}\nbccsp:\n  default: PKCS11\n  pkcs11: {{Label: fabric, Pin: \"1\"}}\n"),
    )
    .unwrap();
    let (complete, findings) = ca.capture();
    assert!(complete, "{findings:#?}");
    reported("CA's file", &findings, Severity::Note, "C5", "\"fabric\"");
}
