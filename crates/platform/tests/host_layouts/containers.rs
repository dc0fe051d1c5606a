//! docker-compose files, and the containers that docker tells of.

use std::os::unix::fs::PermissionsExt;

use fabkeep_platform::{discover_compose, discover_docker};

use super::site::{Seen, Site};

const COMPOSE: &str = r#"
version: '3.7'
volumes:
  peer0.org1.example.com:
  orderer.example.com: {driver_opts: {type: none, o: bind, device: SITE/disk/orderer}}
x-peer: &peer
  image: hyperledger/fabric-peer:${TAG:-2.5}
  command: peer node start
services:
  peer0.org1.example.com:
    <<: *peer
    container_name: peer0.org1.example.com
    environment:
      - CORE_PEER_ID=peer0.org1.example.com
      - CORE_PEER_LOCALMSPID=Org1MSP
      - CORE_PEER_MSPCONFIGPATH=/etc/hyperledger/fabric/msp
      - CORE_PEER_TLS_ENABLED=true
      - CORE_PEER_TLS_CERT_FILE=/etc/hyperledger/fabric/tls/server.crt
      - CORE_PEER_TLS_KEY_FILE=/etc/hyperledger/fabric/tls/server.key
      - CORE_OPERATIONS_LISTENADDRESS=0.0.0.0:9444
      - CORE_LEDGER_STATE_STATEDATABASE=CouchDB
      - CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS=couchdb0:5984
    volumes:
      - ./ids/peer0:/etc/hyperledger/fabric
      - peer0.org1.example.com:/var/hyperledger/production
    ports: ["7051:7051", "9444:9444"]
  couchdb0:
    image: couchdb:3.4
    volumes: [{type: bind, source: ./couch0, target: /opt/couchdb/data}]
    ports: ["5984:5984"]
  orderer.example.com:
    image: registry.example/fabric-orderer
    environment:
      ORDERER_GENERAL_LOCALMSPID: OrdererMSP
      ORDERER_GENERAL_LOCALMSPDIR: /var/hyperledger/orderer/msp
      ORDERER_GENERAL_TLS_ENABLED: "true"
      ORDERER_GENERAL_TLS_CERTIFICATE: /var/hyperledger/orderer/tls/server.crt
      ORDERER_GENERAL_TLS_PRIVATEKEY: /var/hyperledger/orderer/tls/server.key
    volumes:
      - ./ids/orderer/msp:/var/hyperledger/orderer/msp:ro
      - ./ids/orderer/tls/:/var/hyperledger/orderer/tls
      - orderer.example.com:/var/hyperledger/production/orderer
  cli:
    image: hyperledger/fabric-tools
    command: /bin/bash
    environment: [CORE_PEER_ADDRESS=peer0.org1.example.com:7051]
"#;

fn site() -> Site {
    let site = Site::new();
    site.write("net/docker-compose.yaml", COMPOSE);
    site.identity("Org1/peer0", "net/ids/peer0").identity("OrdererOrg/orderer1", "net/ids/orderer");
    site.orderer_data("disk/orderer")
        .couch_data("net/couch0")
        .peer_data("net/volumes/net_peer0.org1.example.com/_data");
    site
}

fn assert_right(seen: &Seen, what: &str) {
    let peer = seen.node("org1.example.com/peer0.org1.example.com");
    for part in
        ["peer-data=net/volumes/net_peer0.org1.example.com/_data", "msp=net/ids/peer0/msp", "tls=net/ids/peer0/tls"]
    {
        assert!(peer.contains(part), "{what}: {part} in {peer} {:#?}", seen.remarks);
    }
    let nodes = seen.nodes();
    let orderer = nodes.iter().find(|node| node.contains("orderer: ")).unwrap();
    for part in [
        "orderer-ledger=disk/orderer",
        "orderer-wal=disk/orderer/etcdraft/wal",
        "msp=net/ids/orderer/msp",
        "tls=net/ids/orderer/tls",
    ] {
        assert!(orderer.contains(part), "{what}: {part} in {orderer} {:#?}", seen.remarks);
    }
    assert!(nodes.iter().any(|node| node.contains("state-database=net/couch0")), "{what}: {nodes:#?}");
    assert_eq!(nodes.len(), 3, "{what}: {nodes:#?}");
    assert!(seen.text.contains("served_by = ["), "{what}");
}

#[test]
fn services_are_nodes_with_their_volumes_and_commands() {
    let site = site();
    let file = site.path("net/docker-compose.yaml");
    let seen = Seen::new(discover_compose(std::slice::from_ref(&file), site.folder.path()).unwrap(), &site);
    assert_right(&seen, "--compose");
    for part in [
        "docker start peer0.org1.example.com",
        "docker stop peer0.org1.example.com",
        "docker inspect -f '{{.State.Running}}' peer0.org1.example.com | grep -q true",
        "docker logs --since {since} peer0.org1.example.com 2>&1",
        "stop orderer.example.com",
        "http://127.0.0.1:9444",
    ] {
        assert!(seen.text.contains(part), "{part} in {}", seen.text);
    }
    // Below a root the same nodes are found; nobody says that docker runs them here.
    let below = site.discover("net");
    assert_right(&below, "--root");
    assert!(!below.text.contains("docker start peer0.org1"), "{}", below.text);
}

#[test]
fn files_that_override_others_are_read_with_them() {
    let site = site();
    site.edit("net/docker-compose.yaml", "      - ./ids/peer0:/etc/hyperledger/fabric\n", "");
    site.write("net/docker/docker-compose.override.yaml", "services:\n  peer0.org1.example.com:\n    volumes: ['./ids/peer0:/etc/hyperledger/fabric']\n    env_file: peer.env\n");
    site.write("net/peer.env", "CORE_PEER_BCCSP_DEFAULT=PKCS11\nCORE_PEER_BCCSP_PKCS11_LABEL=token\n");
    let seen = site.discover("net");
    assert_right(&seen, "override");
    assert!(seen.text.contains("CORE_PEER_BCCSP_PKCS11_LABEL = \"token\""), "{}", seen.text);
}

#[test]
fn containers_are_nodes_as_docker_tells_of_them() {
    let site = site();
    let inspected = r#"[
      {"Name": "/peer0.org1.example.com", "Config": {"Image": "hyperledger/fabric-peer:2.5", "Cmd": ["peer", "node", "start"], "Hostname": "abc",
        "Env": ["CORE_PEER_MSPCONFIGPATH=/etc/hyperledger/fabric/msp", "CORE_PEER_TLS_ENABLED=true", "CORE_PEER_TLS_CERT_FILE=/etc/hyperledger/fabric/tls/server.crt",
          "CORE_PEER_TLS_KEY_FILE=/etc/hyperledger/fabric/tls/server.key", "CORE_LEDGER_STATE_STATEDATABASE=CouchDB", "CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS=couchdb0:5984"]},
       "Mounts": [{"Type": "bind", "Source": "SITE/net/ids/peer0", "Destination": "/etc/hyperledger/fabric"},
         {"Type": "volume", "Name": "v", "Source": "SITE/net/volumes/net_peer0.org1.example.com/_data", "Destination": "/var/hyperledger/production"}]},
      {"Name": "/orderer.example.com", "Config": {"Image": "hyperledger/fabric-orderer", "Cmd": ["orderer"],
        "Env": ["ORDERER_GENERAL_LOCALMSPDIR=/o/msp", "ORDERER_GENERAL_TLS_CERTIFICATE=/o/tls/server.crt", "ORDERER_GENERAL_TLS_PRIVATEKEY=/o/tls/server.key"]},
       "Mounts": [{"Type": "bind", "Source": "SITE/net/ids/orderer", "Destination": "/o"},
         {"Type": "volume", "Source": "SITE/disk/orderer", "Destination": "/var/hyperledger/production/orderer"}]},
      {"Name": "/couch", "Config": {"Image": "couchdb:3.4", "Env": []}, "NetworkSettings": {"Networks": {"n": {"Aliases": ["couchdb0"]}}},
       "Mounts": [{"Type": "bind", "Source": "SITE/net/couch0", "Destination": "/opt/couchdb/data"}]},
      {"Name": "/web", "Config": {"Image": "nginx", "Env": []}, "Mounts": []}]"#;
    site.write("inspected.json", inspected);
    site.write("docker", "#!/bin/sh\ncase $1 in ps) echo 'a b c d';; inspect) cat SITE/inspected.json;; esac\n");
    let program = site.path("docker");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let seen = Seen::new(discover_docker(&program, site.folder.path()).unwrap(), &site);
    assert_right(&seen, "--docker");
    assert!(seen.text.contains("docker stop orderer.example.com"), "{}", seen.text);
    let missing = discover_docker(&site.path("none"), site.folder.path()).unwrap_err().to_string();
    assert!(missing.contains("docker cannot be run"), "{missing}");
}

/// What a peer's container needs to be seen as one.
const PEER: &str = "    image: hyperledger/fabric-peer:2.5\n    command: peer node start\n";

#[test]
fn services_that_extend_others_are_read_with_them() {
    let site = Site::new();
    site.peer_data("net/disk/peer0").orderer_data("net/disk/orderer1");
    site.identity("Org1/peer0", "net/ids/peer0").identity("OrdererOrg/orderer1", "net/ids/orderer1");
    site.write("net/base/peer-base.yaml", &format!("services:\n  peer-base:\n{PEER}    environment: [CORE_PEER_LOCALMSPID=Org1MSP, CORE_PEER_MSPCONFIGPATH=/id/msp]\n  orderer-base:\n    image: hyperledger/fabric-orderer\n    environment: [ORDERER_GENERAL_LOCALMSPID=OrdererMSP, ORDERER_GENERAL_LOCALMSPDIR=/id/msp]\n"));
    site.write("net/base/docker-compose-base.yaml", "services:\n  peer0.org1.example.com:\n    extends: {file: peer-base.yaml, service: peer-base}\n    container_name: peer0.org1.example.com\n    environment: [CORE_PEER_ID=peer0.org1.example.com]\n    volumes: ['../disk/peer0:/var/hyperledger/production', '../ids/peer0:/id']\n");
    site.write("net/docker-compose.yaml", "services:\n  common:\n    image: hyperledger/fabric-orderer\n  peer0.org1.example.com:\n    extends:\n      file: base/docker-compose-base.yaml\n      service: peer0.org1.example.com\n  orderer1.example.com:\n    extends: {file: base/peer-base.yaml, service: orderer-base}\n    volumes: ['./disk/orderer1:/var/hyperledger/production/orderer', './ids/orderer1:/id']\n  orderer2.example.com:\n    extends: common\n    environment: [ORDERER_GENERAL_LOCALMSPDIR=/id/msp]\n");
    let file = site.path("net/docker-compose.yaml");
    let compose = Seen::new(discover_compose(std::slice::from_ref(&file), site.folder.path()).unwrap(), &site);
    for seen in [site.discover("net"), compose] {
        let peer = seen.node("org1.example.com/peer0.org1.example.com");
        assert!(peer.contains("peer-data=net/disk/peer0") && peer.contains("msp=net/ids/peer0/msp"), "{peer}");
        let nodes = seen.nodes();
        let orderer = nodes.iter().find(|node| node.contains("orderer-ledger=net/disk/orderer1")).unwrap();
        assert!(orderer.contains("msp=net/ids/orderer1/msp"), "{orderer}");
        assert!(seen.text.contains("msp_id = \"Org1MSP\"") && seen.text.contains("msp_id = \"OrdererMSP\""));
        assert!(
            seen.remarks.iter().all(|remark| !remark.contains("-base") && !remark.contains("service common")),
            "{:#?}",
            seen.remarks
        );
    }
}

#[test]
fn services_of_one_name_are_one_node_only_where_that_is_possible() {
    let write = |site: &Site, file: &str, more: &str, number: u8| {
        site.write(file, &format!("services:\n  peer0:\n{PEER}{more}    environment: [CORE_PEER_MSPCONFIGPATH=/id/msp]\n    volumes: ['./data/{number}:/var/hyperledger/production', './ids/{number}:/id']\n"));
    };
    let place = |site: &Site, folder: &str, number: u8| {
        site.peer_data(&format!("{folder}/data/{number}"))
            .identity(&format!("Org{number}/peer0"), &format!("{folder}/ids/{number}"));
    };
    // Of several organizations in one folder, with and without names of their containers; a second network below.
    let site = Site::new();
    for number in [1, 2] {
        write(
            &site,
            &format!("net/docker-compose-org{number}.yaml"),
            &format!("    container_name: peer0.org{number}.example.com\n"),
            number,
        );
        place(&site, "net", number);
    }
    let files = ["net/docker-compose-org1.yaml", "net/docker-compose-org2.yaml"].map(|file| site.path(file));
    let compose = Seen::new(discover_compose(&files, site.folder.path()).unwrap(), &site);
    for seen in [compose, site.discover("net")] {
        for number in [1, 2] {
            let peer = seen.node(&format!("org{number}.example.com/peer0.org{number}.example.com"));
            assert!(
                peer.contains(&format!("peer-data=net/data/{number}")) && peer.contains(&format!("ids/{number}/msp")),
                "{peer}"
            );
        }
    }
    for files in [["net/one.yaml", "net/two.yaml"], ["net/docker-compose.yaml", "net/staging/docker-compose.yaml"]] {
        let site = Site::new();
        for (file, number) in files.iter().zip([1, 2]) {
            write(&site, file, "", number);
            place(&site, file.rsplit_once('/').unwrap().0, number);
        }
        let seen = site.discover("net");
        let nodes = seen.nodes();
        assert_eq!(nodes.len(), 2, "{files:?}: {nodes:#?} {:#?}", seen.remarks);
        for number in [1, 2] {
            let own = nodes.iter().find(|node| node.contains(&format!("data/{number}"))).unwrap();
            assert!(own.contains(&format!("ids/{number}/msp")), "{files:?}: {own}");
        }
    }
}

#[test]
fn containers_are_read_as_compose_and_their_images_have_it() {
    let site = Site::new();
    site.peer_data("net/volumes/net_all/_data/peer0").peer_data("net/volumes/net_all/_data/peer1");
    site.peer_data("net/disk/peer2").peer_data("net/disk/peer3");
    for (from, to) in
        [("Org1/peer0", "peer0"), ("Org1/peer1", "peer1"), ("Org2/peer0", "peer2"), ("Org2/peer1", "peer3")]
    {
        site.identity(from, &format!("net/ids/{to}"));
    }
    site.write("net/peer2.env.txt", "DATA=/data   # where\nCORE_PEER_ID=peer2   # its name\nCORE_PEER_LOCALMSPID=\"Org2MSP\" # its MSP\nCORE_PEER_FILESYSTEMPATH=${DATA}/peer2\nCORE_PEER_MSPCONFIGPATH='/id/msp'\n");
    let volume = |name: &str| {
        format!(
            "    environment: {{CORE_PEER_ID: {name}, CORE_PEER_TLS_ENABLED: 'true'}}\n    volumes: [{{type: volume, source: all, target: /var/hyperledger/production, volume: {{subpath: {name}}}}}, './ids/{name}:/etc/hyperledger/fabric']\n"
        )
    };
    site.write("net/docker-compose.yaml", &format!(
        "volumes: {{all: {{}}}}\nservices:\n  peer0:\n{PEER}{}  peer1:\n{PEER}{}  peer2:\n{PEER}    env_file: peer2.env.txt\n    volumes: ['./disk/peer2:/data/peer2', './ids/peer2:/id']\n  peer3:\n    image: registry.corp/peer:2.5\n    environment: {{CORE_PEER_ID: peer3, CORE_PEER_LISTENADDRESS: '0.0.0.0:7051', CORE_PEER_MSPCONFIGPATH: /id/msp}}\n    volumes: ['./disk/peer3:/var/hyperledger/production', './ids/peer3:/id']\n  setup:\n    image: hyperledger/fabric-ca:1.5\n    command: sh -c \"fabric-ca-client enroll -u http://admin:adminpw@ca:7054\"\n  cli:\n    image: hyperledger/fabric-peer:3.1\n    command: sleep infinity\n    environment: [CORE_PEER_MSPCONFIGPATH=/crypto/users/Admin@org1.example.com/msp]\n",
        volume("peer0"), volume("peer1")
    ));
    let file = site.path("net/docker-compose.yaml");
    let compose = discover_compose(std::slice::from_ref(&file), site.folder.path()).unwrap();
    let names: Vec<String> = compose
        .inventory
        .organizations
        .iter()
        .flat_map(|organization| organization.nodes.iter().map(|node| node.name.clone()))
        .collect();
    assert_eq!(names.len(), 4, "{names:?} {:#?}", compose.remarks);
    let seen = site.discover("net");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 4, "{nodes:#?} {:#?}", seen.remarks);
    for (name, data) in [
        ("peer0", "volumes/net_all/_data/peer0"),
        ("peer1", "volumes/net_all/_data/peer1"),
        ("peer2", "disk/peer2"),
        ("peer3", "disk/peer3"),
    ] {
        let own = nodes
            .iter()
            .find(|node| node.contains(&format!("peer-data=net/{data}")))
            .unwrap_or_else(|| panic!("{name} in {nodes:#?}"));
        assert!(own.contains(&format!("/{name} peer")) && own.contains(&format!("msp=net/ids/{name}/msp")), "{own}");
        assert!(own.contains(&format!("tls=net/ids/{name}/tls")), "{own} {:#?}", seen.remarks);
    }
}

#[test]
fn containers_that_scripts_and_units_run_are_nodes() {
    let site = Site::new();
    site.peer_data("net/disk/peer0").peer_data("net/disk/peer1").orderer_data("net/volumes/orderer-data/_data");
    site.couch_data("net/couch0");
    for (from, to) in [("Org1/peer0", "peer0"), ("Org1/peer1", "peer1"), ("OrdererOrg/orderer1", "orderer1")] {
        site.identity(from, &format!("net/ids/{to}"));
    }
    site.copy("Org1/ca", "net/ca");
    site.write("net/peer0.list", "CORE_PEER_ID=peer0.org1.example.com\nCORE_PEER_LOCALMSPID=Org1MSP\nCORE_PEER_MSPCONFIGPATH=/id/msp\nCORE_LEDGER_STATE_STATEDATABASE=CouchDB\nCORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS=couch0:5984\n");
    site.write("net/scripts/up.sh", "#!/bin/bash\nset -e\nBASE=$(cd \"$(dirname \"$0\")/..\" && pwd)\ndocker run -d --name couch0 -v $BASE/couch0:/opt/couchdb/data couchdb:3.4\n\
        sudo docker run -dit --restart unless-stopped \\\n  --name peer0.org1.example.com --env-file ../peer0.list \\\n  -v \"$BASE/disk/peer0:/var/hyperledger/production\" --mount type=bind,source=\"${BASE}/ids/peer0\",target=/id,readonly \\\n  -p 7051:7051 hyperledger/fabric-peer:2.5 peer node start\n\
        podman run --rm -e ORDERER_GENERAL_LOCALMSPID=OrdererMSP -e ORDERER_GENERAL_LOCALMSPDIR=/id/msp --name=orderer1.example.com --volume orderer-data:/var/hyperledger/production/orderer:z --volume=$BASE/ids/orderer1:/id:ro registry.corp/fabric-orderer:2.5\n\
        docker run --name cli -v $BASE/ids/peer0:/id -e CORE_PEER_MSPCONFIGPATH=/id/msp -it hyperledger/fabric-tools:2.5 /bin/bash\n\
        docker run --name ca.org1 -v $BASE/ca:/etc/hyperledger/fabric-ca-server hyperledger/fabric-ca:1.5 sh -c 'fabric-ca-server start -b admin:adminpw'\n");
    site.write("net/etc/systemd/system/peer1.service", "[Service]\nEnvironment=DATA=SITE/net/disk/peer1\nExecStartPre=-/usr/bin/docker rm -f peer1\nExecStart=/usr/bin/docker run --name peer1 \\\n  -e CORE_PEER_ID=peer1.org1.example.com -e CORE_PEER_MSPCONFIGPATH=/id/msp \\\n  -v ${DATA}:/var/hyperledger/production -v SITE/net/ids/peer1:/id hyperledger/fabric-peer:2.5 peer node start\n");
    let seen = site.discover("net");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 5, "{nodes:#?} {:#?}", seen.remarks);
    for parts in [
        &["/peer0.org1.example.com peer", "peer-data=net/disk/peer0", "msp=net/ids/peer0/msp"],
        &["/peer1 peer", "peer-data=net/disk/peer1", "msp=net/ids/peer1/msp"],
        &["orderer1.example.com orderer", "orderer-ledger=net/volumes/orderer-data/_data", "msp=net/ids/orderer1/msp"],
        &["couch0 state-db", "state-database=net/couch0", ""],
        &["ca.org1 ca", "ca-home=net/ca", ""],
    ] {
        assert!(nodes.iter().any(|node| parts.iter().all(|part| node.contains(part))), "{parts:?} in {nodes:#?}");
    }
    assert!(seen.text.contains("served_by = ["), "{}", seen.text);
    // What a function is called with is not known: reported, and found by its data.
    let site = Site::new();
    site.peer_data("net/disk/peer0").identity("Org1/peer0", "net/ids/peer0");
    site.write("net/up.sh", "peer() {\n  docker run -d --name $1 -v $PWD/disk/$1:/var/hyperledger/production -v $PWD/ids/$1:/etc/hyperledger/fabric hyperledger/fabric-peer:2.5 peer node start\n}\npeer peer0\n");
    let seen = site.discover("net");
    assert_eq!(seen.nodes().len(), 1, "{:#?}", seen.nodes());
    seen.reported(&["up.sh", "depends on how it is started"]);
}

#[test]
fn compose_files_are_read_with_what_they_include_and_give() {
    for mark in ["", "\u{feff}"] {
        let site = Site::new();
        site.peer_data("net/disk/peer0").identity("Org1/peer0", "net/ids/peer0");
        let text = format!(
            "\"services\":\n  peer0.org1.example.com:\n{PEER}    environment:\n      CORE_PEER_ID: peer0\n      CORE_PEER_MSPCONFIGPATH: /id/msp\n      CORE_PEER_TLS_ENABLED: 'true'\n      CORE_PEER_TLS_CERT_FILE: /certs/server.crt\n      CORE_PEER_TLS_KEY_FILE: /run/secrets/key\n    volumes: ['../disk/peer0:/var/hyperledger/production', '../ids/peer0/msp:/id/msp']\n    secrets: [{{source: peer0_key, target: key}}]\n    configs: [{{source: peer0_cert, target: /certs/server.crt}}]\nsecrets: {{peer0_key: {{file: ../ids/peer0/tls/server.key}}}}\nconfigs: {{peer0_cert: {{file: ../ids/peer0/tls/server.crt}}}}\n"
        );
        site.write("net/parts/peers.yaml", &format!("{mark}{}", text.replace('\n', "\r\n")));
        site.write("net/compose.yaml", "include:\n  - path: [parts/peers.yaml]\n");
        let file = site.path("net/compose.yaml");
        let compose = Seen::new(discover_compose(std::slice::from_ref(&file), site.folder.path()).unwrap(), &site);
        for seen in [compose, site.discover("net")] {
            let nodes = seen.nodes();
            assert_eq!(nodes.len(), 1, "{nodes:#?} {:#?}", seen.remarks);
            for part in [
                "peer0.org1.example.com peer",
                "peer-data=net/disk/peer0",
                "msp=net/ids/peer0/msp",
                "tls=net/ids/peer0/tls",
            ] {
                assert!(nodes[0].contains(part), "{part} in {nodes:#?} {:#?}", seen.remarks);
            }
        }
    }
}

#[test]
fn podmans_units_are_nodes() {
    let site = Site::new();
    site.peer_data("net/disk/peer0").orderer_data("net/volumes/systemd-ledger/_data");
    site.identity("Org1/peer0", "net/ids/peer0").identity("OrdererOrg/orderer1", "net/ids/orderer1");
    let units = "net/etc/containers/systemd";
    site.write(&format!("{units}/peer0.container"), "[Unit]\nDescription=A=b\n[Container]\nImage=docker.io/hyperledger/fabric-peer:2.5\nContainerName=peer0.org1.example.com\nExec=peer node start\nEnvironment=CORE_PEER_ID=peer0.org1.example.com \"CORE_PEER_MSPCONFIGPATH=/id/msp\"\nVolume=SITE/net/disk/peer0:/var/hyperledger/production:Z\nVolume=../../../ids/peer0:/id:ro\n[Service]\nEnvironment=CORE_PEER_ID=no\n");
    site.write(
        &format!("{units}/orderer.env"),
        "ORDERER_GENERAL_LOCALMSPID=OrdererMSP\nORDERER_GENERAL_LOCALMSPDIR=/id/msp\n",
    );
    site.write(&format!("{units}/orderer1.container"), "[Container]\nImage=hyperledger/fabric-orderer\nEnvironmentFile=./orderer.env\nVolume=ledger.volume:/var/hyperledger/production/orderer\nMount=type=bind,source=SITE/net/ids/orderer1,destination=/id\n");
    let seen = site.discover("net");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 2, "{nodes:#?} {:#?}", seen.remarks);
    for parts in [
        ["peer0.org1.example.com peer", "peer-data=net/disk/peer0", "msp=net/ids/peer0/msp"],
        ["systemd-orderer1 orderer", "orderer-ledger=net/volumes/systemd-ledger/_data", "msp=net/ids/orderer1/msp"],
    ] {
        assert!(nodes.iter().any(|node| parts.iter().all(|part| node.contains(part))), "{parts:?} in {nodes:#?}");
    }
}

#[test]
fn what_a_container_names_is_kept_with_paths_of_this_machine() {
    let site = Site::new();
    site.identity("Org1/peer0", "net/ids/peer0").peer_data("net/disk/peer0").orderer_data("net/disk/orderer");
    site.identity("OrdererOrg/orderer1", "net/ids/orderer").write("net/blocks/genesis.block", "block");
    site.write("net/conf/core.yaml", "peer: {localMspId: Org1MSP, mspConfigPath: msp, tls: {enabled: true, cert: {file: tls/server.crt}, key: {file: tls/server.key}, rootcert: {file: tls/gone.crt}}}\n");
    site.write(
        "net/docker-compose.yaml",
        "services:\n  peer0:\n    image: hyperledger/fabric-peer:2.5\n    environment: [CORE_PEER_ID=peer0]\n    volumes: ['./disk/peer0:/var/hyperledger/production', './ids/peer0/msp:/etc/hyperledger/fabric/msp', './ids/peer0/tls:/etc/hyperledger/fabric/tls', './conf/core.yaml:/etc/hyperledger/fabric/core.yaml']\n  orderer:\n    image: hyperledger/fabric-orderer:1.4\n    environment: {ORDERER_GENERAL_LOCALMSPDIR: /o/msp, ORDERER_GENERAL_TLS_ENABLED: 'true', ORDERER_GENERAL_TLS_CERTIFICATE: /o/tls/server.crt, ORDERER_GENERAL_TLS_PRIVATEKEY: /o/tls/server.key, ORDERER_GENERAL_TLS_ROOTCAS: '[/o/tls/ca.crt, /o/tls/gone.crt]', ORDERER_GENERAL_GENESISMETHOD: file, ORDERER_GENERAL_GENESISFILE: /o/genesis.block}\n    volumes: ['./disk/orderer:/var/hyperledger/production/orderer', './ids/orderer:/o', './blocks/genesis.block:/o/genesis.block']\n",
    );
    let seen = site.discover("net");
    let at = |path: &str| site.path(path).display().to_string();
    for line in [
        format!("CORE_PEER_TLS_ROOTCERT_FILE = \"{}\"", at("net/ids/peer0/tls/gone.crt")),
        format!("CORE_PEER_MSPCONFIGPATH = \"{}\"", at("net/ids/peer0/msp")),
        format!(
            "ORDERER_GENERAL_TLS_ROOTCAS = \"{},{}\"",
            at("net/ids/orderer/tls/ca.crt"),
            at("net/ids/orderer/tls/gone.crt")
        ),
        format!("ORDERER_GENERAL_GENESISFILE = \"{}\"", at("net/blocks/genesis.block")),
    ] {
        assert!(seen.text.contains(&line), "{line} in {}", seen.text);
    }
    let nodes = seen.nodes();
    assert!(nodes.iter().any(|node| node.contains("other=net/blocks")), "{nodes:#?} {:#?}", seen.remarks);
}

#[test]
fn what_an_images_configuration_names_is_found_through_the_mounts() {
    let orderer = |more: &str, volumes: &str| {
        format!(
            "services:\n  o1:\n    image: hyperledger/fabric-orderer:2.5\n    command: orderer\n    environment: {{ORDERER_GENERAL_LOCALMSPID: O, ORDERER_GENERAL_LOCALMSPDIR: /id/msp, ORDERER_GENERAL_TLS_ENABLED: 'false'{more}}}\n    volumes: ['./id:/id', {volumes}]\n"
        )
    };
    let looked = |site: &Site| {
        let files = [site.path("net/compose.yaml")];
        Seen::new(discover_compose(&files, site.folder.path()).unwrap(), site)
    };
    let moved = ", ORDERER_FILELEDGER_LOCATION: /var/hyperledger/ledger";
    for (what, more, volumes, ledger, raft) in [
        (
            "a volume of its own",
            "",
            "'./l:/var/hyperledger/production/orderer', './raft:/var/hyperledger/production/orderer/etcdraft'",
            "net/l",
            "net/raft",
        ),
        (
            "a ledger elsewhere on the volume",
            moved,
            "'./v:/var/hyperledger'",
            "net/v/ledger",
            "net/v/production/orderer/etcdraft",
        ),
        ("in the ledger", "", "'./l:/var/hyperledger/production/orderer'", "net/l", "net/l/etcdraft"),
    ] {
        let site = Site::new();
        site.identity("OrdererOrg/orderer1", "net/id").write(&format!("{ledger}/chains/c/blockfile_000000"), "");
        site.write(&format!("{ledger}/index/CURRENT"), "").write(&format!("{raft}/wal/c/0.wal"), "");
        site.write(&format!("{raft}/snapshot/c/0.snap"), "");
        site.write("net/compose.yaml", &orderer(more, volumes));
        let nodes = looked(&site).nodes();
        for part in [format!("orderer-wal={raft}/wal"), format!("orderer-snapshots={raft}/snapshot")] {
            assert!(nodes.iter().any(|node| node.contains(&part)), "{what}: {part} in {nodes:#?}");
        }
    }
    // A ledger without raft logs, as those of SmartBFT: nothing is missing.
    let site = Site::new();
    site.identity("OrdererOrg/orderer1", "net/id").write("net/v/ledger/chains/c/blockfile_000000", "");
    site.write("net/compose.yaml", &orderer(moved, "'./v:/var/hyperledger'"));
    let seen = looked(&site);
    assert!(seen.nodes().iter().all(|node| !node.contains("orderer-wal")), "{:#?}", seen.nodes());
    assert_eq!(seen.remarks, Vec::<String>::new());

    let site = Site::new();
    site.identity("Org1/peer0", "net/id").peer_data("net/data").write("net/snap/completed/c/10/x.data", "");
    site.write("net/compose.yaml", "services:\n  p0:\n    image: hyperledger/fabric-peer:2.5\n    command: peer node start\n    environment: {CORE_PEER_ID: p0, CORE_PEER_FILESYSTEMPATH: /data, CORE_PEER_MSPCONFIGPATH: /id/msp, CORE_PEER_TLS_ENABLED: 'false'}\n    volumes: ['./id:/id', './data:/data', './snap:/var/hyperledger/production/snapshots']\n");
    let nodes = looked(&site).nodes();
    assert!(nodes.iter().any(|node| node.contains("other=net/snap")), "{nodes:#?}");
}
