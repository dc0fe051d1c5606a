//! Settings in start scripts, environment files and systemd units.

use super::site::Site;

/// One peer and one orderer with nothing but data and identities, under names that say nothing.
fn bare() -> Site {
    let site = Site::new();
    site.peer_data("net/d1").orderer_data("net/d2");
    site.identity("Org1/peer0", "net/ids/a").identity("OrdererOrg/orderer1", "net/ids/b");
    site
}

const PEER: &[(&str, &str)] = &[
    ("CORE_PEER_ID", "peer0.org1.example.com"),
    ("CORE_PEER_LOCALMSPID", "Org1MSP"),
    ("CORE_PEER_FILESYSTEMPATH", "BASE/d1"),
    ("CORE_PEER_MSPCONFIGPATH", "BASE/ids/a/msp"),
    ("CORE_PEER_TLS_ENABLED", "true"),
    ("CORE_PEER_TLS_CERT_FILE", "BASE/ids/a/tls/server.crt"),
    ("CORE_PEER_TLS_KEY_FILE", "BASE/ids/a/tls/server.key"),
    ("CORE_PEER_BCCSP_DEFAULT", "SW"),
];

const ORDERER: &[(&str, &str)] = &[
    ("ORDERER_GENERAL_LOCALMSPID", "OrdererMSP"),
    ("ORDERER_FILELEDGER_LOCATION", "BASE/d2"),
    ("ORDERER_CONSENSUS_WALDIR", "BASE/d2/etcdraft/wal"),
    ("ORDERER_CONSENSUS_SNAPDIR", "BASE/d2/etcdraft/snapshot"),
    ("ORDERER_GENERAL_LOCALMSPDIR", "BASE/ids/b/msp"),
    ("ORDERER_GENERAL_TLS_ENABLED", "true"),
    ("ORDERER_GENERAL_TLS_CERTIFICATE", "BASE/ids/b/tls/server.crt"),
    ("ORDERER_GENERAL_TLS_PRIVATEKEY", "BASE/ids/b/tls/server.key"),
];

fn lines(pairs: &[(&str, &str)], base: &str, line: impl Fn(&str, &str) -> String) -> String {
    pairs.iter().map(|(name, value)| line(name, &value.replace("BASE", base)) + "\n").collect()
}

#[test]
fn settings_are_read_wherever_operators_write_them() {
    let export = |name: &str, value: &str| format!("export {name}={value}");
    let plain = |name: &str, value: &str| format!("{name}={value}");
    type Write = Box<dyn Fn(&Site)>;
    let cases: Vec<(&str, Write)> = vec![
        (
            "scripts with ${PWD}",
            Box::new(move |site: &Site| {
                let peer = lines(PEER, "\"${PWD}\"", export);
                site.write("net/peer0.sh", &format!("#!/bin/sh\nset -eu\n{peer}\npeer node start\n"));
                let orderer = lines(ORDERER, "$(cd \"$(dirname \"$0\")\" && pwd)", export);
                site.write("net/orderer1.sh", &format!("{orderer}exec orderer\n"));
            }),
        ),
        (
            "one script in a folder below",
            Box::new(move |site: &Site| {
                let peer = lines(PEER, "$BASE_DIR", export);
                let orderer = lines(ORDERER, "$BASE_DIR", export);
                site.write("net/bin/start-all.sh", &format!(
                "BASE_DIR=$(dirname \"$0\")/..\n(\n{peer}nohup peer node start > p.log 2>&1 &\n)\n{orderer}orderer start &\n"));
            }),
        ),
        (
            "a script that reads an environment file",
            Box::new(move |site: &Site| {
                site.write("net/peer.env", &lines(PEER, "SITE/net", plain));
                site.write("net/start-peer.sh", "set -a\n. ./peer.env\nset +a\npeer node start\n");
                site.write("net/orderer.env", &lines(ORDERER, "SITE/net", plain));
            }),
        ),
        (
            "environment files alone",
            Box::new(move |site: &Site| {
                site.write("net/peer0.env", &lines(PEER, "SITE/net", plain));
                site.write("net/orderer/.env", &lines(ORDERER, "SITE/net", plain));
            }),
        ),
        (
            "systemd with Environment",
            Box::new(move |site: &Site| {
                let entry = |name: &str, value: &str| format!("Environment=\"{name}={value}\"");
                let peer = lines(PEER, "SITE/net", entry);
                let orderer = lines(ORDERER, "SITE/net", entry);
                site.write(
                    "net/etc/systemd/system/peer.service",
                    &format!("[Service]\n{peer}ExecStart=/usr/bin/peer node start\n"),
                );
                site.write(
                    "net/etc/systemd/system/orderer.service",
                    &format!("[Service]\n{orderer}ExecStart=/usr/bin/orderer\n"),
                );
            }),
        ),
        (
            "systemd with EnvironmentFile, on a disk of another machine",
            Box::new(move |site: &Site| {
                site.write("net/etc/fabric/peer.conf", &lines(PEER, "", plain));
                site.write("net/etc/fabric/orderer.conf", &lines(ORDERER, "", plain));
                let unit = |file: &str, command: &str| {
                    format!(
                        "[Service]\nWorkingDirectory=/\nEnvironmentFile=-/etc/fabric/{file}\nExecStart=/bin/sh -c '{command}'\n"
                    )
                };
                site.write("net/units/peer.service", &unit("peer.conf", "exec /usr/bin/peer node start"));
                site.write("net/units/orderer.service", &unit("orderer.conf", "/usr/bin/orderer start"));
            }),
        ),
        (
            "a configuration file beside the environment",
            Box::new(move |site: &Site| {
                site.write("net/config/core.yaml", "peer: {fileSystemPath: /nowhere, mspConfigPath: /nowhere}\n");
                site.write("net/config/orderer.yaml", "FileLedger: {Location: /nowhere}\n");
                let configured = "export FABRIC_CFG_PATH=${PWD}/config\n";
                site.write("net/p.sh", &format!("{configured}{}peer node start\n", lines(PEER, "$PWD", export)));
                site.write("net/o.sh", &format!("{configured}{}orderer\n", lines(ORDERER, "$PWD", export)));
            }),
        ),
    ];
    for (what, write) in cases {
        let site = bare();
        write(&site);
        let seen = site.discover("net");
        let nodes = seen.nodes();
        assert_eq!(nodes.len(), 2, "{what}: {nodes:#?} {:#?}", seen.remarks);
        let of = |role: &str| nodes.iter().find(|node| node.contains(&format!(" {role}: "))).unwrap().clone();
        for part in ["msp=net/ids/a/msp", "peer-data=net/d1", "tls=net/ids/a/tls"] {
            assert!(of("peer").contains(part), "{what}: {part} in {nodes:#?} {:#?}", seen.remarks);
        }
        for part in
            ["msp=net/ids/b/msp", "orderer-ledger=net/d2", "orderer-wal=net/d2/etcdraft/wal", "tls=net/ids/b/tls"]
        {
            assert!(of("orderer").contains(part), "{what}: {part} in {nodes:#?} {:#?}", seen.remarks);
        }
    }
}

#[test]
fn an_environment_file_beside_a_configuration_overrides_it() {
    for file in ["net/Org1/peer0/.env", "net/Org1/peer0/config/peer.env"] {
        let site = Site::new();
        site.whole("net").write(file, "CORE_PEER_BCCSP_DEFAULT=PKCS11\nCORE_PEER_BCCSP_PKCS11_LABEL=ForFabric\nCORE_PEER_BCCSP_PKCS11_PIN=98765432\n");
        let seen = site.discover("net");
        assert_eq!(seen.names().len(), 9, "{file}: {:#?}", seen.nodes());
        assert!(seen.text.contains("CORE_PEER_BCCSP_PKCS11_LABEL = \"ForFabric\""), "{file}: {}", seen.text);
        assert!(!seen.text.contains("98765432"), "{file}");
        let peer = seen.nodes().into_iter().find(|node| node.contains("peer-data=net/Org1/peer0/production")).unwrap();
        assert!(
            peer.contains("msp=net/Org1/peer0/msp") && peer.contains("config=net/Org1/peer0/config"),
            "{file}: {peer}"
        );
    }
}

#[test]
fn a_clients_settings_and_templates_are_no_nodes() {
    let site = Site::new();
    site.whole("net");
    site.write("net/admin.sh", "export CORE_PEER_LOCALMSPID=Org1MSP\nexport CORE_PEER_MSPCONFIGPATH=$PWD/Org1/users/Admin/msp\npeer channel list\n");
    site.write("net/templates/core.yaml", "peer: {fileSystemPath: /nowhere/production, mspConfigPath: msp}\n");
    let seen = site.discover("net");
    assert_eq!(seen.names().len(), 9, "{:#?}", seen.names());
    seen.reported(&["templates/core.yaml", "template"]);
}
