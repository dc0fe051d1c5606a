//! Containers as docker tells of them: which are nodes, which of two counts, and which CouchDB is whose.

use std::os::unix::fs::PermissionsExt;

use fabkeep_platform::{discover_compose, discover_docker};
use serde_json::{Value, json};

use super::site::{Seen, Site};

/// What `docker inspect` says of a container.
fn container(name: &str, image: &str, environment: &[&str], mounts: &[(String, &str)]) -> Value {
    let mounts: Vec<Value> =
        mounts.iter().map(|(source, at)| json!({"Type": "bind", "Source": source, "Destination": at})).collect();
    json!({"Name": format!("/{name}"), "Config": {"Image": image, "Entrypoint": ["/entry.sh"], "Env": environment},
        "Mounts": mounts, "State": {"Running": true}})
}

fn at(site: &Site, path: &str) -> String {
    site.path(path).display().to_string()
}

fn docker(site: &Site, all: &[Value]) -> Result<Seen, String> {
    site.write("inspected.json", &serde_json::to_string(all).unwrap());
    site.write("docker", "#!/bin/sh\ncase $1 in ps) echo 'a b c d';; inspect) cat SITE/inspected.json;; esac\n");
    let program = site.path("docker");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = discover_docker(&program, site.folder.path()).map_err(|error| error.to_string())?;
    Ok(Seen::new(found, site))
}

/// A peer's container with its identity and data, which its image makes one.
fn peer(site: &Site, name: &str, home: &str, more: &[&str]) -> Value {
    let environment = [&["CORE_PEER_MSPCONFIGPATH=/id/msp", "CORE_PEER_LOCALMSPID=Org1MSP"], more].concat();
    let mounts = [(at(site, home), "/id"), (at(site, &format!("{home}/production")), "/var/hyperledger/production")];
    container(name, "hyperledger/fabric-peer:2.5", &environment, &mounts)
}

const OWN: &str = "registry.example/acme/hlf:7";

#[test]
fn containers_of_own_images_are_nodes_by_their_configuration_and_data() {
    let site = Site::new();
    site.whole("net").couch_data("net/couch");
    site.edit("net/Org1/peer1/config/core.yaml", "../production", "/var/hyperledger/production");
    site.edit("net/Org1/peer1/config/core.yaml", "../", "/id/");
    site.edit("net/OrdererOrg/orderer1/config/orderer.yaml", "../", "/id/");
    let data = |peer: &str| (at(&site, &format!("net/{peer}/production")), "/var/hyperledger/production");
    let home = |node: &str, to: &'static str| (at(&site, &format!("net/{node}")), to);
    let all = [
        container("p1", OWN, &["FABRIC_CFG_PATH=/id/config"], &[home("Org1/peer1", "/id"), data("Org1/peer1")]),
        container(
            "p2",
            OWN,
            &["CORE_PEER_LOCALMSPID=Org2MSP", "CORE_PEER_MSPCONFIGPATH=/id/msp"],
            &[home("Org2/peer0", "/id"), data("Org2/peer0")],
        ),
        container("o1", OWN, &["FABRIC_CFG_PATH=/id/config"], &[home("OrdererOrg/orderer1", "/id")]),
        container("ca", OWN, &["FABRIC_CA_SERVER_HOME=/ca"], &[home("Org1/ca", "/ca")]),
        container("ca2", OWN, &["FABRIC_CA_HOME=/ca"], &[home("Org2/ca", "/ca")]),
        container("state", OWN, &[], &[home("couch", "/opt/couchdb/data")]),
        // It has a node's data too, and by its name it comes first.
        container("a-metrics", OWN, &["FABRIC_CFG_PATH=/id/config"], &[home("Org1/peer1", "/id"), data("Org1/peer1")]),
        // These are none, and nothing is to be said of them.
        container("agent", "fluentd", &[], &[data("Org1/peer1")]),
        container("tools", "hyperledger/fabric-tools", &["FABRIC_CFG_PATH=/id/config"], &[home("Org1/peer0", "/id")]),
        container("web", "nginx", &[], &[(at(&site, "net/Org1/peer0/tls"), "/tls")]),
    ];
    let without_metrics: Vec<Value> =
        all.iter().filter(|one| one["Name"] != "/a-metrics" && one["Name"] != "/tools").cloned().collect();
    let seen = docker(&site, &without_metrics).unwrap();
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 6, "{nodes:#?} {:#?}", seen.remarks);
    for parts in [
        ["/p1 peer", "peer-data=net/Org1/peer1/production", "msp=net/Org1/peer1/msp"],
        ["/p2 peer", "peer-data=net/Org2/peer0/production", "msp=net/Org2/peer0/msp"],
        ["/o1 orderer", "orderer-ledger=net/OrdererOrg/orderer1/production", "msp=net/OrdererOrg/orderer1/msp"],
        ["/ca ca", "ca-home=net/Org1/ca", ""],
        ["/ca2 ca", "ca-home=net/Org2/ca", ""],
        ["/state state-db", "state-database=net/couch", ""],
    ] {
        assert!(nodes.iter().any(|node| parts.iter().all(|part| node.contains(part))), "{parts:?} in {nodes:#?}");
    }
    assert!(seen.remarks.iter().all(|remark| !remark.contains("K7")), "{:#?}", seen.remarks);
}

#[test]
fn a_container_with_a_nodes_data_that_nothing_recognises_is_told_by_name() {
    let site = Site::new();
    site.whole("net");
    let data = (at(&site, "net/Org1/peer1/production"), "/data");
    let unknown = || container("unknown", OWN, &[], std::slice::from_ref(&data));
    let seen = docker(&site, &[peer(&site, "p0", "net/Org1/peer0", &[]), unknown()]).unwrap();
    assert_eq!(seen.nodes().len(), 1, "{:#?}", seen.nodes());
    seen.reported(&["container unknown", "net/Org1/peer1/production", "K7"]);
    let alone = docker(&site, &[unknown()]).map(|_| ()).unwrap_err();
    assert!(alone.contains("container unknown") && alone.contains("K7"), "{alone}");
    // Settings whose data is nowhere.
    let settings = container(
        "settings",
        OWN,
        &["FABRIC_CFG_PATH=/id/config"],
        &[(at(&site, "net/Org1/peer1/config"), "/id/config")],
    );
    let seen = docker(&site, &[peer(&site, "p0", "net/Org1/peer0", &[]), settings]).unwrap();
    seen.reported(&["container settings", "configuration", "K7"]);
    // The same in a compose file.
    site.write("net/compose.yaml", "services:\n  p0:\n    image: hyperledger/fabric-peer:2.5\n    environment: [CORE_PEER_MSPCONFIGPATH=/id/msp]\n    volumes: ['./Org1/peer0:/id', './Org1/peer0/production:/var/hyperledger/production']\n  unknown: {image: acme, volumes: ['./Org1/peer1/production:/data']}\n  web: {image: nginx}\n");
    let compose = discover_compose(&[site.path("net/compose.yaml")], site.folder.path()).unwrap();
    Seen::new(compose, &site).reported(&["service unknown", "K7"]);
}

#[test]
fn the_container_that_runs_counts_before_a_stopped_one_with_its_data() {
    let site = Site::new();
    site.whole("net");
    let stopped = |name: &str| {
        let mut old = peer(&site, name, "net/Org1/peer0", &[]);
        old["State"]["Running"] = json!(false);
        old
    };
    let seen = docker(&site, &[stopped("0_p0_old"), peer(&site, "p0", "net/Org1/peer0", &[])]).unwrap();
    assert_eq!(seen.names(), ["Org1MSP/p0 peer"], "{:#?}", seen.remarks);
    assert!(seen.text.contains("docker start p0") && !seen.text.contains("p0_old"), "{}", seen.text);
    seen.reported(&["0_p0_old", "does not run", "container p0"]);
    // Of two that do not run nobody knows which is started.
    let seen = docker(&site, &[stopped("p0"), stopped("p0_old")]).unwrap();
    assert_eq!(seen.names(), ["Org1MSP/p0 peer"]);
    seen.reported(&["p0_old", "both do not run"]);
    let seen = docker(&site, &[stopped("p0")]).unwrap();
    assert_eq!(seen.remarks, Vec::<String>::new());
}

const COUCH: [&str; 2] =
    ["CORE_LEDGER_STATE_STATEDATABASE=CouchDB", "CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS=couchdb:5984"];

#[test]
fn a_couchdb_is_looked_for_in_its_peers_own_network() {
    let site = Site::new();
    site.whole("net");
    let mut all = Vec::new();
    for number in ["1", "2"] {
        site.couch_data(&format!("net/couch{number}"));
        let mut peer = peer(&site, &format!("site{number}-peer0-1"), &format!("net/Org{number}/peer0"), &COUCH);
        let mount = [(at(&site, &format!("net/couch{number}")), "/opt/couchdb/data")];
        let mut couch = container(&format!("site{number}-couchdb-1"), "couchdb:3.3", &[], &mount);
        for (one, service) in [(&mut peer, "peer0"), (&mut couch, "couchdb")] {
            one["NetworkSettings"] = json!({"Networks": {format!("site{number}_default"): {"Aliases": [service]}}});
        }
        all.extend([peer, couch]);
    }
    let serves = |seen: &Seen, peer: &str| -> Option<String> {
        let nodes = fabkeep_platform::Platform::network(&seen.host).nodes();
        let mut nodes = nodes.filter(|node| node.id.node == peer);
        nodes.next().unwrap().served_by.first().map(ToString::to_string)
    };
    let seen = docker(&site, &all).unwrap();
    for number in ["1", "2"] {
        let database = serves(&seen, &format!("site{number}-peer0-1")).unwrap_or_default();
        assert!(database.contains(&format!("site{number}-couchdb-1")), "{database} {:#?}", seen.remarks);
    }
    // One that no name leads to is not taken because it is left.
    let mut two = all[2..].to_vec();
    two[1]["NetworkSettings"] = json!({"Networks": {"other": {"Aliases": ["state"]}}});
    let seen = docker(&site, &two).unwrap();
    assert_eq!(serves(&seen, "site2-peer0-1"), None);
    seen.reported(&["site2-peer0-1", "couchdb:5984", "does not lead to", "site2-couchdb-1"]);
    // Without networks the name leads to two: neither is taken.
    for one in &mut all {
        one["Config"]["Hostname"] = json!("couchdb");
        one.as_object_mut().unwrap().remove("NetworkSettings");
    }
    let seen = docker(&site, &all).unwrap();
    for number in ["1", "2"] {
        let peer = format!("site{number}-peer0-1");
        assert_eq!(serves(&seen, &peer), None);
        seen.reported(&[&peer, "couchdb:5984", "site1-couchdb-1", "site2-couchdb-1", "served_by"]);
    }
}

#[test]
fn a_couchdb_of_a_compose_project_serves_its_own_peer() {
    let site = Site::new();
    for number in ["1", "2"] {
        let folder = format!("net/site{number}");
        site.couch_data(&format!("{folder}/couch")).identity(&format!("Org{number}/peer0"), &format!("{folder}/p"));
        site.peer_data(&format!("{folder}/p/production"));
        site.write(&format!("{folder}/compose.yaml"), &format!("services:\n  peer0:\n    image: hyperledger/fabric-peer:2.5\n    environment: [CORE_PEER_ID=peer0.org{number}, CORE_PEER_MSPCONFIGPATH=/id/msp, {}]\n    volumes: ['./p:/id', './p/production:/var/hyperledger/production']\n  couchdb: {{image: 'couchdb:3.3', volumes: ['./couch:/opt/couchdb/data']}}\n", COUCH.join(", ")));
    }
    let seen = site.discover("net");
    let mut pairs = 0;
    for peer in fabkeep_platform::Platform::network(&seen.host).nodes().filter(|node| !node.served_by.is_empty()) {
        let database = seen.node(&peer.served_by[0].to_string());
        let own = peer.directories.iter().find(|directory| directory.role.to_string() == "peer-data").unwrap();
        for number in ["site1", "site2"] {
            assert_eq!(own.path.contains(number), database.contains(number), "{database} {:#?}", seen.nodes());
        }
        pairs += 1;
    }
    assert_eq!(pairs, 2, "{:#?}", seen.remarks);
}

#[test]
fn a_file_that_is_mounted_alone_does_not_bring_its_folder() {
    let site = Site::new();
    site.whole("net").remove("net/Org1/peer0/tls/server.key").copy("Org1/peer0/tls/server.key", "key.pem");
    let tls = [
        "CORE_PEER_TLS_ENABLED=true",
        "CORE_PEER_TLS_CERT_FILE=/id/tls/server.crt",
        "CORE_PEER_TLS_KEY_FILE=/id/tls/server.key",
    ];
    let with = |key: &str| {
        let mut one = peer(&site, "p0", "net/Org1/peer0", &tls);
        let mount = json!({"Type": "bind", "Source": at(&site, key), "Destination": "/id/tls/server.key"});
        one["Mounts"].as_array_mut().unwrap().push(mount);
        docker(&site, &[one]).unwrap()
    };
    let seen = with("key.pem");
    let node = seen.node("Org1MSP/p0");
    assert!(node.contains("tls=net/Org1/peer0/tls") && !node.contains("tls= ") && !node.ends_with("tls="), "{node}");
    seen.reported(&["key.pem", "more than this node's files", "move it"]);
    // A repository is never a node's keys.
    site.write("k/fabkeep.json", "{}").copy("Org1/peer0/tls/server.key", "k/key.pem");
    with("k/key.pem").reported(&["k/key.pem", "more than this node's files"]);
    // A folder of its own is.
    site.copy("Org1/peer0/tls/server.key", "keys/key.pem");
    let seen = with("keys/key.pem");
    assert!(seen.node("Org1MSP/p0").contains("tls=keys"), "{:#?}", seen.nodes());
    assert_eq!(seen.remarks, Vec::<String>::new());
}
