//! Layouts of real operators: what `discover` makes of each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authorities;
mod compose;
mod containers;
mod docker;
mod scripts;
mod site;
mod units;

use site::Site;

const PEERS: [(&str, &str); 4] =
    [("Org1/peer0", "org1"), ("Org1/peer1", "org1"), ("Org2/peer0", "org2"), ("Org2/peer1", "org2")];

/// Identities below `crypto-config`, data below `data`, as the official samples have them.
pub fn crypto_config(site: &Site, data: impl Fn(&str, &str) -> String) {
    for (peer, organization) in PEERS {
        let name = format!("{}.{organization}.example.com", peer.split('/').next_back().unwrap());
        let home = format!("net/crypto-config/peerOrganizations/{organization}.example.com/peers/{name}");
        site.identity(peer, &home).peer_data(&data(&name, &home));
    }
    for number in 1..=3 {
        let name = format!("orderer{number}.orderer.example.com");
        let home = format!("net/crypto-config/ordererOrganizations/orderer.example.com/orderers/{name}");
        site.identity(&format!("OrdererOrg/orderer{number}"), &home).orderer_data(&data(&name, &home));
    }
}

#[test]
fn identities_and_data_that_lie_apart_are_put_together_by_their_names() {
    type Place = fn(&str, &str) -> String;
    let places: [(&str, Place); 5] = [
        ("data/NAME", |name, _| format!("net/data/{name}")),
        ("data/NAME/production", |name, _| format!("net/data/{name}/production")),
        ("a volume of docker compose", |name, _| format!("net/volumes/compose_{name}/_data")),
        ("inside the identity's folder", |_, home| format!("{home}/production")),
        ("org/peer", |name, _| {
            let mut labels = name.split('.');
            let first = labels.next().unwrap().to_owned();
            format!("net/data/{}/{first}", labels.next().unwrap())
        }),
    ];
    for (what, place) in places {
        let site = Site::new();
        crypto_config(&site, place);
        let seen = site.discover("net");
        assert_eq!(
            seen.names(),
            [
                "orderer.example.com/orderer1.orderer.example.com orderer",
                "orderer.example.com/orderer2.orderer.example.com orderer",
                "orderer.example.com/orderer3.orderer.example.com orderer",
                "org1.example.com/peer0.org1.example.com peer",
                "org1.example.com/peer1.org1.example.com peer",
                "org2.example.com/peer0.org2.example.com peer",
                "org2.example.com/peer1.org2.example.com peer",
            ],
            "{what}: {:#?}",
            seen.remarks
        );
        for node in seen.nodes() {
            let own = node.split([' ', '/']).nth(1).unwrap().to_owned();
            assert!(node.contains(&format!("{own}/msp")) && node.contains(&format!("{own}/tls")), "{what}: {node}");
        }
    }
}

#[test]
fn data_never_gets_the_identity_of_another_organizations_peer() {
    // The identity of peer0.org1 is lost; that of peer0.org2 agrees with its data's name in all but one label.
    for with_data in [true, false] {
        let site = Site::new();
        let home = |organization: &str| {
            format!("net/organizations/peerOrganizations/{organization}/peers/peer0.{organization}")
        };
        site.peer_data("net/data/peer0.org1.example.com").identity("Org2/peer0", &home("org2.example.com"));
        if with_data {
            site.peer_data("net/data/peer0.org2.example.com");
        }
        let seen = site.discover("net");
        seen.reported(&["net/data/peer0.org1.example.com", "its identity is unknown"]);
        let paired = |node: &&String| node.contains("data/peer0.org1") && node.contains("/msp");
        assert_eq!(seen.nodes().iter().find(paired), None, "{with_data}");
        let own = |node: &&String| node.contains("data/peer0.org2") && node.contains("peer0.org2.example.com/msp");
        assert_eq!(seen.nodes().iter().any(|node| own(&node)), with_data, "{:?}", seen.nodes());
    }
    // Nor by the folders above it.
    let site = Site::new();
    site.peer_data("net/example/org1/peer0").identity("Org2/peer0", "net/keys/peers/peer0.org2.example.com");
    site.discover("net").reported(&["its identity is unknown"]);
}

#[test]
fn an_orderer_inside_a_peers_directory_is_a_node_of_its_own() {
    let site = Site::new();
    site.peer_data("net/var/hyperledger/production").orderer_data("net/var/hyperledger/production/orderer");
    site.identity("Org1/peer0", "net/etc/peer").identity("OrdererOrg/orderer1", "net/etc/orderer");
    let seen = site.discover("net");
    assert_eq!(seen.names(), ["network/peer peer", "network/orderer orderer"]);
    assert_eq!(seen.excluded("network/peer", "peer-data"), ["orderer"]);
    // Which identity is whose is asked for, with what to write.
    seen.reported(&["network/peer", "msp = \"net/etc/peer/msp\"", "tls = \"net/etc/peer/tls\""]);
    seen.reported(&["network/orderer", "msp = \"net/etc/orderer/msp\""]);

    // Named by configuration files, one with absolute paths, one with paths of the disk that the root is.
    for data in ["SITE/net/var/hyperledger/production", "/var/hyperledger/production"] {
        if data.starts_with("/var") && std::path::Path::new(data).exists() {
            continue;
        }
        let core = format!(
            "peer: {{fileSystemPath: {data}, mspConfigPath: msp, localMspId: Org1MSP, tls: {{enabled: true, cert: {{file: tls/server.crt}}, key: {{file: tls/server.key}}}}}}"
        );
        let orderer = format!(
            "General: {{LocalMSPDir: msp, LocalMSPID: O, TLS: {{Enabled: true, Certificate: tls/server.crt, PrivateKey: tls/server.key}}}}\nFileLedger: {{Location: {data}/orderer}}\nConsensus: {{WALDir: {data}/orderer/etcdraft/wal, SnapDir: {data}/orderer/etcdraft/snapshot}}"
        );
        site.write("net/etc/peer/core.yaml", &core).write("net/etc/orderer/orderer.yaml", &orderer);
        let seen = site.discover("net");
        assert_eq!(seen.remarks, Vec::<String>::new());
        let production = "net/var/hyperledger/production";
        assert_eq!(
            seen.nodes(),
            [
                format!(
                    "etc/peer peer: config=net/etc/peer msp=net/etc/peer/msp peer-data={production} tls=net/etc/peer/tls"
                ),
                format!(
                    "etc/orderer orderer: config=net/etc/orderer msp=net/etc/orderer/msp orderer-ledger={production}/orderer orderer-snapshots={production}/orderer/etcdraft/snapshot orderer-wal={production}/orderer/etcdraft/wal tls=net/etc/orderer/tls"
                ),
            ]
        );
        assert_eq!(seen.excluded("etc/peer", "peer-data"), ["orderer"]);
    }
}

#[test]
fn the_root_may_be_too_high_or_too_low_and_hold_several_networks() {
    let site = Site::new();
    site.whole("a/net");
    let usual = [
        "OrdererOrg/orderer1 orderer",
        "OrdererOrg/orderer2 orderer",
        "OrdererOrg/orderer3 orderer",
        "Org1/peer0 peer",
        "Org1/peer1 peer",
        "Org1/ca ca",
        "Org2/peer0 peer",
        "Org2/peer1 peer",
        "Org2/ca ca",
    ];
    assert_eq!(site.discover("a/net").names(), usual);
    let higher = site.discover("a").names();
    assert_eq!(higher.len(), 9, "{higher:#?}");
    // Too low: one node, with what lies beside its data.
    for low in ["a/net/Org1/peer0", "a/net/Org1/peer0/production", "a/net/Org1/peer0/production/ledgersData"] {
        let seen = site.discover(low);
        assert_eq!(
            seen.nodes(),
            [
                "Org1/peer0 peer: config=a/net/Org1/peer0/config msp=a/net/Org1/peer0/msp peer-data=a/net/Org1/peer0/production tls=a/net/Org1/peer0/tls"
            ],
            "{low}"
        );
    }
    // Two networks: everything has a name of its own.
    site.whole("a/second");
    let both = site.discover("a").names();
    let apart: std::collections::BTreeSet<&String> = both.iter().collect();
    assert_eq!((both.len(), apart.len()), (18, 18), "{both:#?}");
}

#[test]
fn a_copy_beside_is_no_second_node_and_is_told() {
    for copy in ["production.bak", "production.old", "production-2024-01-31", "production_backup", "old-production"] {
        let site = Site::new();
        site.whole("net").peer_data(&format!("net/Org1/peer0/{copy}"));
        let seen = site.discover("net");
        assert_eq!(seen.names().len(), 9, "{copy}");
        assert!(seen.node("Org1/peer0").contains("peer-data=net/Org1/peer0/production "), "{copy}");
        seen.reported(&[copy, "old copy"]);
        assert!(seen.files().iter().all(|path| !path.contains(copy)), "{copy}: {:?}", seen.files());
    }
    for copy in ["Org1/peer0.bak", "backup/2024/Org1/peer0", "Org1/peer0-old"] {
        let site = Site::new();
        site.whole("net")
            .identity("Org1/peer0", &format!("net/{copy}"))
            .copy("Org1/peer0/config", &format!("net/{copy}/config"));
        site.peer_data(&format!("net/{copy}/production"));
        let seen = site.discover("net");
        assert_eq!(seen.names().len(), 9, "{copy}: {:#?}", seen.names());
        seen.reported(&["old copy"]);
    }
    // The one that is configured is the node, whatever it is called.
    let site = Site::new();
    site.whole("net").peer_data("net/Org1/peer0/data2").edit(
        "net/Org1/peer0/config/core.yaml",
        "../production",
        "../data2",
    );
    let seen = site.discover("net");
    assert!(seen.node("Org1/peer0").contains("peer-data=net/Org1/peer0/data2 "));
    seen.reported(&["net/Org1/peer0/production", "no configuration names"]);
}

#[test]
fn both_configurations_in_one_folder_are_two_nodes() {
    for (core, orderer) in [("net/config", "net/config"), ("net", "net"), ("net/node1", "net/node1")] {
        let site = Site::new();
        site.peer_data("net/p").orderer_data("net/o");
        site.identity("Org1/peer0", "net/peer").identity("OrdererOrg/orderer1", "net/orderer");
        site.write(&format!("{core}/core.yaml"), "peer: {id: peer0.org1.example.com, fileSystemPath: SITE/net/p, mspConfigPath: SITE/net/peer/msp, tls: {enabled: true, cert: {file: SITE/net/peer/tls/server.crt}, key: {file: SITE/net/peer/tls/server.key}}}");
        site.write(&format!("{orderer}/orderer.yaml"), "FileLedger: {Location: SITE/net/o}\nGeneral: {LocalMSPDir: SITE/net/orderer/msp, TLS: {Enabled: true, Certificate: SITE/net/orderer/tls/server.crt, PrivateKey: SITE/net/orderer/tls/server.key}}");
        let seen = site.discover("net");
        let nodes = seen.nodes();
        assert_eq!(nodes.len(), 2, "{nodes:#?}");
        let of = |role: &str| nodes.iter().find(|node| node.contains(&format!(" {role}: "))).unwrap();
        assert!(of("peer").contains("peer-data=net/p") && of("peer").contains("msp=net/peer/msp"), "{nodes:#?}");
        assert!(
            of("orderer").contains("orderer-ledger=net/o") && of("orderer").contains("msp=net/orderer/msp"),
            "{nodes:#?}"
        );
        seen.reported(&["is used by", "captured with the first"]);
    }
}

#[test]
fn absolute_settings_outside_of_the_root_are_followed() {
    let site = Site::new();
    site.whole("net").copy("Org1/peer0/tls", "outside/tls").write("outside/snapshots/completed/x", "");
    site.copy("OrdererOrg/orderer1/tls", "outside/cluster");
    site.edit("net/Org1/peer0/config/core.yaml", "../tls/server", "SITE/outside/tls/server");
    site.edit("net/Org1/peer0/config/core.yaml", "rootDir: ''", "rootDir: SITE/outside/snapshots");
    site.edit(
        "net/OrdererOrg/orderer1/config/orderer.yaml",
        "ClientCertificate: ../tls",
        "ClientCertificate: SITE/outside/cluster",
    );
    site.edit(
        "net/OrdererOrg/orderer1/config/orderer.yaml",
        "ClientPrivateKey: ../tls",
        "ClientPrivateKey: SITE/outside/cluster",
    );
    let seen = site.discover("net");
    let peer = seen.node("Org1/peer0");
    assert!(peer.contains("tls=outside/tls") && peer.contains("other=outside/snapshots"), "{peer}");
    let orderer = seen.node("OrdererOrg/orderer1");
    assert!(
        orderer.contains("tls=net/OrdererOrg/orderer1/tls") && orderer.contains("tls=outside/cluster"),
        "{orderer}"
    );
}

#[test]
fn data_behind_a_link_is_found_by_layout_and_by_configuration() {
    let site = Site::new();
    site.whole("net").peer_data("disk/peer0").remove("net/Org1/peer0/production");
    std::os::unix::fs::symlink(site.path("disk/peer0"), site.path("net/Org1/peer0/production")).unwrap();
    let by_configuration = site.discover("net").node("Org1/peer0");
    assert!(by_configuration.contains("peer-data=net/Org1/peer0/production"), "{by_configuration}");
    site.remove("net/Org1/peer0/config");
    let by_layout = site.discover("net").node("Org1/peer0");
    assert_eq!(by_layout, by_configuration.replace("config=net/Org1/peer0/config ", ""));
}

#[test]
fn data_behind_a_link_inside_the_root_is_found_once() {
    let site = Site::new();
    site.whole("net").peer_data("net/big/p").remove("net/Org1/peer0/production");
    std::os::unix::fs::symlink("../../big/p", site.path("net/Org1/peer0/production")).unwrap();
    let found = site.discover("net");
    let text = found.text.clone();
    assert!(found.node("Org1/peer0").contains("peer-data=net/Org1/peer0/production"), "{text}");
    assert!(!text.contains("net/big"), "{text}");
    // What lies beside it is its own.
    std::fs::create_dir_all(site.path("net/big/notes")).unwrap();
    let text = site.discover("net").text;
    assert!(text.contains("net/big/notes") && !text.contains("net/big/p\""), "{text}");
}

#[test]
fn a_couchdb_belongs_to_its_peer() {
    let couch = "    stateDatabase: CouchDB";
    let configured = |site: &Site, peer: &str| {
        site.edit(&format!("net/{peer}/config/core.yaml"), "    stateDatabase: goleveldb", couch);
    };
    let site = Site::new();
    site.whole("net").couch_data("net/Org1/couchdb0/data");
    configured(&site, "Org1/peer0");
    let seen = site.discover("net");
    assert_eq!(seen.node("Org1/couchdb0"), "Org1/couchdb0 state-db: state-database=net/Org1/couchdb0/data");
    assert!(seen.text.contains("served_by = [\"Org1/couchdb0\"]"), "{}", seen.text);
    // Several: by their numbers.
    site.couch_data("net/Org1/couchdb1/data").couch_data("net/Org2/couchdb0/data");
    configured(&site, "Org1/peer1");
    configured(&site, "Org2/peer0");
    let seen = site.discover("net");
    let serves = |peer: &str| {
        let mut nodes = fabkeep_platform::Platform::network(&seen.host).nodes();
        nodes.find(|known| known.id.to_string() == peer).unwrap().served_by[0].to_string()
    };
    assert_eq!(
        ["Org1/peer0", "Org1/peer1", "Org2/peer0"].map(serves),
        ["Org1/couchdb0", "Org1/couchdb1", "Org2/couchdb0"]
    );
    // Not found: reported.
    configured(&site, "Org2/peer1");
    site.discover("net").reported(&["Org2/peer1", "CouchDB", "served_by"]);
}

#[test]
fn tls_files_below_a_folder_with_both_configurations_are_their_own_nodes() {
    let site = Site::new();
    site.peer_data("net/var/peer").orderer_data("net/var/orderer");
    for (of, name, to) in [("Org1/peer0", "peer", "p"), ("OrdererOrg/orderer1", "orderer", "o")] {
        site.copy(&format!("{of}/msp"), &format!("net/etc/fabric/{name}-msp"));
        for (file, own) in [("server.crt", "tls.pem"), ("server.key", "tls.key"), ("ca.crt", "ca.pem")] {
            site.copy(&format!("{of}/tls/{file}"), &format!("net/etc/fabric/{to}tls/{name}-{own}"));
        }
    }
    site.write("net/etc/fabric/core.yaml", "peer: {fileSystemPath: ../../var/peer, mspConfigPath: peer-msp, tls: {enabled: true, cert: {file: ptls/peer-tls.pem}, key: {file: ptls/peer-tls.key}}}\n");
    site.write("net/etc/fabric/orderer.yaml", "FileLedger: {Location: ../../var/orderer}\nGeneral: {LocalMSPDir: orderer-msp, TLS: {Enabled: true, Certificate: otls/orderer-tls.pem, PrivateKey: otls/orderer-tls.key}}\n");
    let seen = site.discover("net");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 2, "{nodes:#?}");
    let of = |role: &str| nodes.iter().find(|node| node.contains(&format!(" {role}: "))).unwrap();
    assert!(of("peer").contains("tls=net/etc/fabric/ptls"), "{nodes:#?}");
    assert!(of("orderer").contains("tls=net/etc/fabric/otls"), "{nodes:#?}");
    assert!(seen.remarks.iter().all(|remark| !remark.contains("TLS directory")), "{:#?}", seen.remarks);
    // What the second's file says of its keys is kept, also of a key that is gone.
    site.remove("net/etc/fabric/otls/orderer-tls.key");
    let text = site.discover("net").text;
    for (name, value) in [("CERTIFICATE", "otls/orderer-tls.pem"), ("PRIVATEKEY", "otls/orderer-tls.key")] {
        let line = format!("ORDERER_GENERAL_TLS_{name} = \"{}\"", site.path("net/etc/fabric").join(value).display());
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(text.contains("ORDERER_GENERAL_TLS_ENABLED = \"true\"") && !text.contains("CORE_PEER_TLS"), "{text}");
}

#[test]
fn raft_logs_beside_an_orderers_ledger_are_its_own() {
    let site = Site::new();
    for number in ["orderer1", "orderer2"] {
        let home = format!("net/orderers/{number}");
        site.identity(&format!("OrdererOrg/{number}"), &home);
        site.write(&format!("{home}/ledger/chains/mychannel/blockfile_000000"), "");
        site.write(&format!("{home}/ledger/index/CURRENT"), "");
        site.write(&format!("{home}/raft/wal/mychannel/0.wal"), "")
            .write(&format!("{home}/raft/snap/mychannel/0.snap"), "");
    }
    let seen = site.discover("net");
    for number in ["orderer1", "orderer2"] {
        let node = seen.node(&format!("orderers/{number}"));
        for part in ["orderer-wal={}/raft/wal", "orderer-snapshots={}/raft/snap", "tls={}/tls"] {
            let part = part.replace("{}", &format!("net/orderers/{number}"));
            assert!(node.contains(&part), "{part} in {node} {:#?}", seen.remarks);
        }
    }
    // Of several nobody knows which it is.
    site.write("net/orderers/orderer1/old-raft/wal/mychannel/0.wal", "");
    site.write("net/orderers/orderer1/raft2/wal/mychannel/0.wal", "");
    site.discover("net").reported(&["orderer1", "several folders", "orderer-wal"]);
}

#[test]
fn a_tls_directory_beside_an_msp_belongs_to_the_node_unless_tls_is_off() {
    for (switch, given) in
        [("", true), ("CORE_PEER_TLS_ENABLED=true\n", true), ("CORE_PEER_TLS_ENABLED=false\n", false)]
    {
        let site = Site::new();
        site.peer_data("net/d").identity("Org1/peer0", "net/ids/a");
        site.write(
            "net/peer.env",
            &format!("{switch}CORE_PEER_FILESYSTEMPATH=SITE/net/d\nCORE_PEER_MSPCONFIGPATH=SITE/net/ids/a/msp\n"),
        );
        let seen = site.discover("net");
        assert_eq!(seen.nodes()[0].contains("tls=net/ids/a/tls"), given, "{switch}{:#?}", seen.nodes());
    }
}
