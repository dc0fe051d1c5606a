//! Certificate authorities: homes, files outside of them, several of one server.

use fabkeep_platform::Platform;

use super::site::{Seen, Site};

const CONFIG: &str = "net/Org1/ca/fabric-ca-server-config.yaml";

#[test]
fn a_home_that_holds_the_whole_network_is_one_node_of_it() {
    let site = Site::new();
    site.whole("net").copy("Org1/ca", "net").remove("net/Org1/ca").write("net/artifacts/channel.tx", "");
    let seen = site.discover("net");
    let names = seen.names();
    assert_eq!(names.len(), 9, "{names:#?}");
    assert!(names.contains(&"network/ca ca".to_owned()), "{names:#?}");
    let excluded = seen.excluded("network/ca", "ca-home");
    for others in ["Org1/peer0/config", "Org2/ca", "OrdererOrg/orderer1/production", "artifacts"] {
        assert!(excluded.iter().any(|path| path == others), "{others} in {excluded:?}");
    }
    assert!(!excluded.iter().any(|path| path.starts_with("msp")), "{excluded:?}");
}

#[test]
fn certificates_and_keys_outside_of_a_home_are_followed() {
    type Write = fn(&Site);
    let cases: [(&str, Write); 5] = [
        ("the configuration, absolute", |site| {
            site.edit(CONFIG, "  keyfile:\n  # Certificate", "  keyfile: SITE/outside/ca/priv_sk\n  # Certificate");
            site.edit(CONFIG, "  certfile:\n  # Chain", "  certfile: SITE/outside/ca/ca.pem\n  # Chain");
        }),
        ("the configuration, relative", |site| {
            site.edit(CONFIG, "  keyfile:\n  # Certificate", "  keyfile: ../../../outside/ca/priv_sk\n  # Certificate");
            site.edit(CONFIG, "  certfile:\n  # Chain", "  certfile: ../../../outside/ca/ca.pem\n  # Chain");
        }),
        ("flags of a start script", |site| {
            site.write("net/ca.sh", "cd Org1/ca\nfabric-ca-server start -b admin:adminpw --ca.certfile SITE/outside/ca/ca.pem --ca.keyfile=SITE/outside/ca/priv_sk\n");
        }),
        ("environment of a unit", |site| {
            site.write("net/ca.service", "[Service]\nEnvironment=FABRIC_CA_SERVER_HOME=SITE/net/Org1/ca FABRIC_CA_SERVER_CA_CERTFILE=SITE/outside/ca/ca.pem\nEnvironment=FABRIC_CA_SERVER_CA_KEYFILE=SITE/outside/ca/priv_sk\nExecStart=/usr/bin/fabric-ca-server start\n");
        }),
        ("a container's paths, by its compose file", |site| {
            site.edit(
                CONFIG,
                "  keyfile:\n  # Certificate",
                "  keyfile: /etc/hyperledger/keys/priv_sk\n  # Certificate",
            );
            site.edit(CONFIG, "  certfile:\n  # Chain", "  certfile: /etc/hyperledger/keys/ca.pem\n  # Chain");
            site.write("net/docker-compose.yaml", "services:\n  ca.org1:\n    image: hyperledger/fabric-ca:1.5\n    command: sh -c 'fabric-ca-server start -b admin:adminpw'\n    environment: [FABRIC_CA_HOME=/etc/hyperledger/fabric-ca-server]\n    volumes:\n      - ./Org1/ca:/etc/hyperledger/fabric-ca-server\n      - ../outside/ca:/etc/hyperledger/keys\n");
        }),
    ];
    for (what, write) in cases {
        let site = Site::new();
        site.whole("net").copy("Org1/ca/ca-cert.pem", "outside/ca/ca.pem").write("outside/ca/priv_sk", "");
        site.remove("net/Org1/ca/ca-cert.pem");
        write(&site);
        let seen = site.discover("net");
        let nodes = seen.nodes();
        let ca = nodes.iter().find(|node| node.contains("ca-home=net/Org1/ca")).unwrap();
        assert!(ca.contains("other=outside/ca"), "{what}: {ca} {:#?}", seen.remarks);
        assert_eq!(nodes.len(), 9, "{what}: {nodes:#?}");
        if what.starts_with("a container's") || what.starts_with("flags") || what.starts_with("environment") {
            assert!(seen.text.contains("FABRIC_CA_SERVER_CA_KEYFILE"), "{what}: {}", seen.text);
        }
    }
    // Nobody knows where a container's path is: reported.
    let site = Site::new();
    site.whole("net").edit(
        CONFIG,
        "  keyfile:\n  # Certificate",
        "  keyfile: /etc/hyperledger/keys/priv_sk\n  # Certificate",
    );
    site.discover("net").reported(&["Org1/ca", "/etc/hyperledger/keys/priv_sk", "not on this machine"]);
}

#[test]
fn databases_outside_of_a_home_are_followed_in_every_form() {
    for source in [
        "SITE/db/ca.sqlite",
        "SITE/db/ca.sqlite?_busy_timeout=5000",
        "file:SITE/db/ca.sqlite?mode=rwc",
        "../../../db/ca.sqlite",
    ] {
        let site = Site::new();
        site.whole("net").copy("Org1/ca/fabric-ca-server.db", "db/ca.sqlite").remove("net/Org1/ca/fabric-ca-server.db");
        site.edit(CONFIG, "datasource: fabric-ca-server.db", &format!("datasource: {source}"));
        let seen = site.discover("net");
        assert!(seen.node("Org1/ca").contains("other=db"), "{source}: {}", seen.node("Org1/ca"));
    }
}

#[test]
fn every_authority_of_a_server_is_found() {
    let site = Site::new();
    site.whole("net").copy("Org2/ca", "net/Org1/ca/ca/ca1").copy("Org2/ca", "outside/second");
    std::fs::rename(
        site.path("net/Org1/ca/ca/ca1/fabric-ca-server-config.yaml"),
        site.path("net/Org1/ca/ca/ca1/fabric-ca-config.yaml"),
    )
    .unwrap();
    site.edit(CONFIG, "\ncacount:", "\ncacount: 1");
    let seen = site.discover("net");
    assert_eq!(seen.names().len(), 9, "{:#?}", seen.names());
    let ca = seen.node("Org1/ca");
    assert!(ca.contains("ca-home=net/Org1/ca ") || ca.ends_with("ca-home=net/Org1/ca"), "{ca}");
    assert!(ca.contains("ca-home=net/Org1/ca/ca/ca1"), "{ca}");
    site.edit(CONFIG, "cacount: 1", "cacount: 0");
    site.edit(CONFIG, "\ncafiles:", "\ncafiles: [SITE/outside/second/fabric-ca-server-config.yaml]");
    let ca = site.discover("net").node("Org1/ca");
    assert!(ca.contains("ca-home=outside/second"), "{ca}");
    // An intermediate CA with a home of its own inside another's is a node of its own.
    let site = Site::new();
    site.whole("net").copy("Org2/ca", "net/Org1/ca/intermediate");
    let seen = site.discover("net");
    assert_eq!(seen.names().len(), 10, "{:#?}", seen.names());
    assert_eq!(seen.excluded("Org1/ca", "ca-home"), ["intermediate"]);
}

#[test]
fn a_folder_that_is_entered_in_parentheses_is_left_behind_them() {
    let site = Site::new();
    site.copy("Org1/ca", "net/org1/ca")
        .copy("Org2/ca", "net/org2/ca")
        .copy("Org2/ca/ca-cert.pem", "net/keys2/ca-cert.pem");
    site.remove("net/org2/ca/ca-cert.pem");
    site.write("net/start.sh", "(cd org1/ca; fabric-ca-server start -b a:b &)\n(cd org2/ca; fabric-ca-server start -b a:b --ca.certfile ../../keys2/ca-cert.pem &)\n");
    let seen = site.discover("net");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 2, "{nodes:#?}");
    let second = nodes.iter().find(|node| node.contains("ca-home=net/org2/ca")).unwrap();
    assert!(second.contains("other=net/keys2"), "{nodes:#?} {:#?}", seen.remarks);
}

#[test]
fn a_configuration_that_the_command_line_names_says_where_the_home_is() {
    let site = Site::new();
    site.copy("Org1/ca", "net/ca-conf");
    site.write("net/docker-compose.yaml", "services:\n  ca.org1:\n    image: hyperledger/fabric-ca:1.5\n    environment: [FABRIC_CA_HOME=/etc/hyperledger/fabric-ca-server]\n    command: sh -c 'fabric-ca-server start -c /etc/ca/fabric-ca-server-config.yaml -b admin:adminpw'\n    volumes: ['./ca-conf:/etc/ca']\n");
    let seen = site.discover("net");
    assert_eq!(seen.nodes(), ["network/ca.org1 ca: ca-home=net/ca-conf"], "{:#?}", seen.remarks);
    assert_eq!(seen.remarks.iter().filter(|remark| remark.contains("nothing on this machine")).count(), 0);
    let site = Site::new();
    site.copy("Org1/ca", "net/elsewhere")
        .write("net/start.sh", "fabric-ca-server start --config elsewhere/fabric-ca-server-config.yaml -b a:b\n");
    assert!(site.discover("net").nodes()[0].contains("ca-home=net/elsewhere"));
}

#[test]
fn a_further_authority_that_no_setting_names_belongs_to_its_server() {
    let site = Site::new();
    site.whole("net").copy("Org2/ca", "net/Org1/ca/ca/ca1");
    std::fs::rename(
        site.path("net/Org1/ca/ca/ca1/fabric-ca-server-config.yaml"),
        site.path("net/Org1/ca/ca/ca1/fabric-ca-config.yaml"),
    )
    .unwrap();
    let seen = site.discover("net");
    assert_eq!(seen.names().len(), 9, "{:#?}", seen.names());
    assert!(seen.node("Org1/ca").contains("ca-home=net/Org1/ca/ca/ca1"), "{:#?}", seen.nodes());
}

#[test]
fn a_database_server_in_the_environment_is_kept_without_its_password() {
    for (kind, source, label, command) in [
        (
            "postgres",
            "host=ca-db port=5432 user=ca password=hushhush dbname=fabric_ca sslmode=disable",
            "PostgreSQL ca-db:5432/fabric_ca",
            "docker exec ca-db pg_dump -U ca --clean --if-exists fabric_ca",
        ),
        (
            "mysql",
            "root:hushhush@tcp(ca-db:3306)/fabric_ca?parseTime=true",
            "MySQL ca-db:3306/fabric_ca",
            "docker exec ca-db mysqldump -u root --skip-extended-insert --complete-insert --hex-blob fabric_ca",
        ),
    ] {
        let site = Site::new();
        site.copy("Org1/ca", "net/ca");
        site.write("net/docker-compose.yaml", &format!("services:\n  ca:\n    image: hyperledger/fabric-ca:1.5\n    environment:\n    - FABRIC_CA_HOME=/etc/hyperledger/fabric-ca-server\n    - FABRIC_CA_SERVER_DB_TYPE={kind}\n    - FABRIC_CA_SERVER_DB_DATASOURCE={source}\n    command: fabric-ca-server start -b admin:adminpw\n    volumes: ['./ca:/etc/hyperledger/fabric-ca-server']\n"));
        let seen = site.discover("net");
        seen.reported(&[label, &format!("dump = \"{command}\""), "password is not kept"]);
        assert!(!seen.text.contains("hushhush") && seen.remarks.iter().all(|remark| !remark.contains("hushhush")));
        // With commands of its own it is dumped.
        let text = format!("{}\n[organization.node.commands]\ndump = \"echo '-- nothing'\"\n", seen.text);
        let host = Seen::host_of(&text, &site);
        let node = host.network().nodes().find(|node| node.role.to_string() == "ca").unwrap();
        let directory = node.directories.iter().find(|directory| directory.role.to_string() == "database-dump");
        let directory = directory.unwrap_or_else(|| panic!("{:#?}", node.directories));
        let volume = host.volume(&node.id, directory).unwrap().unwrap();
        assert_eq!(volume.list("").unwrap().iter().filter(|entry| entry.stamp.size == 11).count(), 1);
    }
}

#[test]
fn every_authority_of_a_server_has_its_own_database() {
    let site = Site::new();
    site.whole("net").copy("Org2/ca", "net/Org1/ca/ca/ca1").copy("Org2/ca", "outside/second");
    let own = "net/Org1/ca/ca/ca1/fabric-ca-server-config.yaml";
    site.edit(own, "type: sqlite3", "type: mysql");
    site.edit(own, "datasource: fabric-ca-server.db", "datasource: root:secret@tcp(db:3306)/ca1");
    std::fs::rename(site.path(own), site.path("net/Org1/ca/ca/ca1/fabric-ca-config.yaml")).unwrap();
    let second = "outside/second/fabric-ca-server-config.yaml";
    site.edit(second, "type: sqlite3", "type: postgres");
    site.edit(second, "datasource: fabric-ca-server.db", "datasource: host=db user=ca dbname=second");
    std::fs::rename(site.path(second), site.path("outside/second/second.yaml")).unwrap();
    site.edit(CONFIG, "\ncafiles:", "\ncafiles: [ca/ca1/fabric-ca-config.yaml, SITE/outside/second/second.yaml]");
    let dumps = |site: &Site| -> Vec<String> {
        let node = site.discover("net").node("Org1/ca");
        let words = node.split(' ').filter_map(|word| word.strip_prefix("database-dump="));
        words.map(str::to_owned).collect()
    };
    assert_eq!(dumps(&site), ["net/Org1/ca.ca.ca1.database", "outside/second.database"]);
    // What the server's environment says is said of its own authority only.
    site.write("net/ca.sh", "cd Org1/ca\nexport FABRIC_CA_SERVER_DB_TYPE=postgres FABRIC_CA_SERVER_DB_DATASOURCE='host=db user=ca dbname=first'\nfabric-ca-server start -b admin:adminpw\n");
    assert_eq!(dumps(&site), ["net/Org1/ca.ca.ca1.database", "net/Org1/ca.database", "outside/second.database"]);
    site.edit(second.replace("fabric-ca-server-config", "second").as_str(), "type: postgres", "type: sqlite3");
    assert_eq!(dumps(&site), ["net/Org1/ca.ca.ca1.database", "net/Org1/ca.database"]);
}

#[test]
fn a_configuration_under_another_name_is_kept_with_the_node() {
    for (what, script) in [
        ("a flag", "cd Org1/ca\nfabric-ca-server start -c own.yaml -b a:b\n"),
        ("a long flag and a path", "fabric-ca-server start --config=SITE/net/Org1/ca/own.yaml -b a:b\n"),
        (
            "the environment",
            "export FABRIC_CA_SERVER_CONFIG=SITE/net/Org1/ca/own.yaml\nfabric-ca-server start -b a:b\n",
        ),
    ] {
        let site = Site::new();
        site.whole("net").write("net/ca.sh", script);
        std::fs::rename(site.path(CONFIG), site.path("net/Org1/ca/own.yaml")).unwrap();
        let seen = site.discover("net");
        let expected = format!("FABRIC_CA_SERVER_CONFIG = \"{}\"", site.path("net/Org1/ca/own.yaml").display());
        assert!(seen.text.contains(&expected), "{what}: {} {:#?}", seen.text, seen.remarks);
        assert_eq!(seen.names().len(), 9, "{what}: {:#?}", seen.names());
    }
    let site = Site::new();
    site.whole("net").write("net/ca.sh", "cd Org1/ca\nfabric-ca-server start -c own.yaml -b a:b\n");
    site.discover("net").reported(&["net/Org1/ca/own.yaml", "not on this machine"]);
}
