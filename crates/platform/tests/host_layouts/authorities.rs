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
    // Every machine has a root: the home, which is the searched folder, is not on a second disk because of that.
    assert!(seen.remarks.iter().all(|remark| !remark.contains("as well as the disk")), "{:#?}", seen.remarks);
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

/// A server whose database is not in its home, where an old one lies.
fn with_database_elsewhere() -> Site {
    let site = Site::new();
    site.whole("net").copy("Org1/ca/fabric-ca-server.db", "net/db/ca.db");
    site
}

const OPTIONS: &str = "-b admin:adminpw -H SITE/net/Org1/ca --db.datasource SITE/net/db/ca.db";

#[test]
fn options_in_a_variable_are_split_as_their_shell_does_it() {
    let unit = |site: &Site, start: &str| {
        site.write("net/etc/default/ca", &format!("OPTS=\"{OPTIONS}\"\nCMD=\"fabric-ca-server start {OPTIONS}\"\n"));
        site.write(
            "net/etc/systemd/system/ca1.service",
            &format!("[Service]\nEnvironmentFile=/etc/default/ca\nExecStart={start}\n"),
        );
    };
    let compose = |site: &Site, command: &str| {
        site.write("net/compose.yaml", &format!("services:\n  ca:\n    image: hyperledger/fabric-ca:1.5\n    environment: {{OPTS: '-b a:b --db.datasource /db/ca.db', CMD: 'fabric-ca-server start --db.datasource /db/ca.db'}}\n    command: {command}\n    volumes: ['./Org1/ca:/etc/hyperledger/fabric-ca-server', './db:/db']\n"));
    };
    type Write<'a> = Box<dyn Fn(&Site) + 'a>;
    let script = |text: &'static str| -> Write<'_> {
        Box::new(move |site: &Site| {
            site.write("net/start-ca.sh", &text.replace("OPTIONS", OPTIONS));
        })
    };
    let cases: Vec<(&str, Write<'_>)> = vec![
        ("a unit", Box::new(|site| unit(site, "/usr/local/bin/fabric-ca-server start $OPTS"))),
        ("a unit's shell", Box::new(|site| unit(site, "/bin/sh -c 'exec fabric-ca-server start $OPTS'"))),
        ("a unit's command in a variable", Box::new(|site| unit(site, "/bin/sh -c 'exec $CMD'"))),
        ("a script", script("OPTS=\"OPTIONS\"\nfabric-ca-server start $OPTS\n")),
        (
            "a script's own folder",
            script("OPTS=\"-H $PWD/Org1/ca --db.datasource=$PWD/db/ca.db\"\nfabric-ca-server start ${OPTS}\n"),
        ),
        ("a script's command in a variable", script("CMD='fabric-ca-server start OPTIONS'\nsh -c \"$CMD\"\n")),
        ("a compose file", Box::new(|site| compose(site, "sh -c \"fabric-ca-server start $$OPTS\""))),
        (
            "a compose file's list",
            Box::new(|site| compose(site, "[sh, -c, 'exec fabric-ca-server start $${OPTS} -d']")),
        ),
        ("a compose file's command in a variable", Box::new(|site| compose(site, "[sh, -c, $$CMD]"))),
    ];
    for (what, write) in cases {
        let site = with_database_elsewhere();
        write(&site);
        let seen = site.discover("net");
        let nodes = seen.nodes();
        let ca: Vec<&String> = nodes.iter().filter(|node| node.contains("ca-home=net/Org1/ca")).collect();
        assert_eq!((nodes.len(), ca.len()), (9, 1), "{what}: {nodes:#?} {:#?}", seen.remarks);
        assert!(ca[0].contains("other=net/db"), "{what}: {} {:#?}", ca[0], seen.remarks);
        let line = format!("FABRIC_CA_SERVER_DB_DATASOURCE = \"{}\"", site.path("net/db/ca.db").display());
        assert!(seen.text.contains(&line), "{what}: {}", seen.text);
        assert!(
            seen.remarks.iter().all(|told| told.contains("not in any node's directory")),
            "{what}: {:#?}",
            seen.remarks
        );
    }
}

#[test]
fn options_that_are_not_known_are_told_and_make_no_home() {
    let unit = "net/etc/systemd/system/ca1.service";
    for (what, path, text, told) in [
        (
            "a file that is not here",
            unit,
            "EnvironmentFile=/etc/none\nExecStart=/usr/bin/fabric-ca-server start $OPTS",
            "home",
        ),
        (
            "braces are one word",
            unit,
            "Environment=\"OPTS=-b a:b -H /x\"\nExecStart=/usr/bin/fabric-ca-server start ${OPTS}",
            "home",
        ),
        ("a unit without a home", unit, "ExecStart=/usr/bin/fabric-ca-server start -b a:b", "home"),
        ("a script's arguments", "net/start-ca.sh", "fabric-ca-server start -b a:b \"$@\"", "home"),
        (
            "a script's arguments beside a home",
            "net/start-ca.sh",
            "fabric-ca-server start -H $PWD/Org1/ca -d $MORE",
            "options",
        ),
        ("a value", "net/start-ca.sh", "fabric-ca-server start -H $PWD/Org1/ca --db.datasource $DIR/ca.db", "options"),
    ] {
        let site = with_database_elsewhere();
        let head = if path == unit { "[Service]\n" } else { "" };
        site.write(path, &format!("{head}{text}\n"));
        let seen = site.discover("net");
        assert_eq!(seen.names().len(), 9, "{what}: {:#?}", seen.nodes());
        assert!(seen.node("Org1/ca").contains("ca-home=net/Org1/ca"), "{what}");
        seen.reported(&[path, told, "not known"]);
    }
    // What is known is not told.
    let site = with_database_elsewhere();
    site.write("net/start-ca.sh", "cd Org1/ca\nfabric-ca-server start -b $USER:$PASSWORD -d >>log 2>&1 &\n");
    let seen = site.discover("net");
    assert!(seen.remarks.iter().all(|told| !told.contains("not known")), "{:#?}", seen.remarks);
}

#[test]
fn a_key_store_outside_of_a_home_is_followed() {
    type Write = fn(&Site);
    let cases: [(&str, Write); 3] = [
        ("the configuration, absolute", |site| {
            site.edit(CONFIG, "keystore: msp/keystore", "keystore: SITE/outside/keys");
        }),
        ("the configuration, relative", |site| {
            site.edit(CONFIG, "keystore: msp/keystore", "keystore: ../../../outside/keys");
        }),
        ("a container's environment", |site| {
            site.write("net/compose.yaml", "services:\n  ca.org1:\n    image: hyperledger/fabric-ca:1.5\n    environment: [FABRIC_CA_SERVER_BCCSP_SW_FILEKEYSTORE_KEYSTORE=/keys]\n    volumes: ['./Org1/ca:/etc/hyperledger/fabric-ca-server', '../outside/keys:/keys']\n");
        }),
    ];
    for (what, write) in cases {
        let site = Site::new();
        site.whole("net").copy("Org1/ca/msp/keystore", "outside/keys").remove("net/Org1/ca/msp/keystore");
        write(&site);
        let seen = site.discover("net");
        let nodes = seen.nodes();
        let ca = nodes.iter().find(|node| node.contains("ca-home=net/Org1/ca")).unwrap();
        assert!(ca.contains("other=outside/keys"), "{what}: {ca} {:#?}", seen.remarks);
        let line =
            format!("FABRIC_CA_SERVER_BCCSP_SW_FILEKEYSTORE_KEYSTORE = \"{}\"", site.path("outside/keys").display());
        assert_eq!(seen.text.contains(&line), what.starts_with("a container"), "{what}: {}", seen.text);
    }
}
