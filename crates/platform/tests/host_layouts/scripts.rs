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

/// The peer and the orderer are found with their directories, and nothing else is.
fn assert_both_nodes(site: &Site) {
    let seen = site.discover("net");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 2, "{nodes:#?} {:#?}", seen.remarks);
    for part in
        ["peer-data=net/d1", "msp=net/ids/a/msp", "orderer-ledger=net/d2", "msp=net/ids/b/msp", "tls=net/ids/b/tls"]
    {
        assert!(nodes.iter().any(|node| node.contains(part)), "{part} in {nodes:#?} {:#?}", seen.remarks);
    }
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

/// Two peers and an orderer with their data below `net/data`, and their identities below `net/ids`.
fn below_data() -> Site {
    let site = Site::new();
    site.peer_data("net/data/peer0").peer_data("net/data/peer1").orderer_data("net/data/orderer1");
    site.identity("Org1/peer0", "net/ids/peer0").identity("Org1/peer1", "net/ids/peer1");
    site.identity("OrdererOrg/orderer1", "net/ids/orderer1");
    site
}

#[test]
fn a_folder_that_holds_every_nodes_data_is_no_nodes_data() {
    let peer = |name: &str| {
        format!(
            "CORE_PEER_ID={name}\nCORE_PEER_LOCALMSPID=Org1MSP\nCORE_PEER_MSPCONFIGPATH=/etc/hyperledger/fabric/msp\n"
        )
    };
    let service = |name: &str, image: &str, inside: &str| {
        format!(
            "  {name}:\n    image: hyperledger/{image}\n    env_file: {name}.env\n    volumes: ['./data/{name}:/var/hyperledger/production{inside}', './ids/{name}:/etc/hyperledger/fabric']\n"
        )
    };
    type Write<'a> = Box<dyn Fn(&Site) + 'a>;
    let cases: Vec<(&str, Write<'_>)> = vec![
        (
            "environment files of a compose file",
            Box::new(|site: &Site| {
                site.write("net/peer0.env", &peer("peer0")).write("net/peer1.env", &peer("peer1"));
                site.write("net/orderer1.env", "ORDERER_GENERAL_LOCALMSPDIR=/etc/hyperledger/fabric/msp\n");
                let services = [
                    ("peer0", "fabric-peer", ""),
                    ("peer1", "fabric-peer", ""),
                    ("orderer1", "fabric-orderer", "/orderer"),
                ];
                let services: String = services.map(|(name, image, inside)| service(name, image, inside)).concat();
                site.write("net/docker-compose.yaml", &format!("services:\n{services}"));
            }),
        ),
        (
            "containers that a script starts",
            Box::new(|site: &Site| {
                site.write("net/start.sh", "docker run -d --name peer0 -e CORE_PEER_ID=peer0 -v $PWD/data/peer0:/var/hyperledger/production hyperledger/fabric-peer peer node start\n");
            }),
        ),
        (
            "a function of a script",
            Box::new(|site: &Site| {
                site.write("net/start.sh", "start_peer() {\n  local n=$1\n  export CORE_PEER_ID=$n\n  export CORE_PEER_FILESYSTEMPATH=$PWD/data/$n\n  export CORE_PEER_MSPCONFIGPATH=$PWD/ids/$n/msp\n  peer node start &\n}\nfor p in 0 1; do start_peer peer$p; done\n");
            }),
        ),
        (
            "Fabric's own sample of a configuration",
            Box::new(|site: &Site| {
                site.write(
                    "net/config/core.yaml",
                    "peer: {id: jdoe, fileSystemPath: /nowhere/production, mspConfigPath: msp}\n",
                );
            }),
        ),
    ];
    for (what, write) in cases {
        let site = below_data();
        write(&site);
        let seen = site.discover("net");
        let nodes = seen.nodes();
        assert_eq!(nodes.len(), 3, "{what}: {nodes:#?} {:#?}", seen.remarks);
        for (number, part) in
            ["peer-data=net/data/peer0", "peer-data=net/data/peer1", "orderer-ledger=net/data/orderer1"]
                .iter()
                .enumerate()
        {
            let own = part.split('/').next_back().unwrap();
            let node =
                nodes.iter().find(|node| node.contains(part)).unwrap_or_else(|| panic!("{what}: {number} {nodes:#?}"));
            assert!(node.contains(&format!("msp=net/ids/{own}/msp")), "{what}: {node} {:#?}", seen.remarks);
        }
    }
}

#[test]
fn units_are_read_with_what_changes_them() {
    let whole = |name: &str| {
        format!(
            "CORE_PEER_ID={name} CORE_PEER_MSPCONFIGPATH=/ids/{name}/msp CORE_PEER_TLS_ENABLED=true CORE_PEER_TLS_CERT_FILE=/ids/{name}/tls/server.crt CORE_PEER_TLS_KEY_FILE=/ids/{name}/tls/server.key"
        )
    };
    let lines = |name: &str| whole(name).replace(' ', "\n");
    let start = "ExecStart=/usr/bin/peer node start\n";
    type Write<'a> = Box<dyn Fn(&Site) + 'a>;
    let both = |site: &Site, write: &dyn Fn(&Site, &str)| {
        write(site, "peer0");
        write(site, "peer1");
    };
    let cases: Vec<(&str, Write<'_>)> = vec![
        (
            "drop-ins",
            Box::new(|site: &Site| {
                both(site, &|site, name| {
                    site.write(
                        &format!("net/usr/lib/systemd/system/{name}.service"),
                        &format!("[Service]\nEnvironment=CORE_PEER_FILESYSTEMPATH=/none\n{start}"),
                    );
                    site.write(
                        &format!("net/usr/lib/systemd/system/{name}.service.d/override.conf"),
                        "[Service]\nEnvironment=CORE_PEER_FILESYSTEMPATH=/wrong\n",
                    );
                    site.write(
                        &format!("net/etc/systemd/system/{name}.service.d/override.conf"),
                        &format!(
                            "[Service]\nEnvironment=CORE_PEER_FILESYSTEMPATH=/data/{name}\nEnvironment={}\n",
                            whole(name)
                        ),
                    );
                });
            }),
        ),
        (
            "a template",
            Box::new(|site: &Site| {
                site.write("net/etc/systemd/system/fabric-peer@.service", &format!("[Service]\nEnvironmentFile=/etc/fabric/%i.env\nEnvironment=CORE_PEER_FILESYSTEMPATH=/data/%i\n{start}"));
                both(site, &|site, name| {
                    site.write(&format!("net/etc/fabric/{name}.env"), &lines(name));
                    let folder = site.path("net/etc/systemd/system/multi-user.target.wants");
                    std::fs::create_dir_all(&folder).unwrap();
                    // As systemctl makes it: the path of the machine that the disk is of.
                    std::os::unix::fs::symlink(
                        "/etc/systemd/system/fabric-peer@.service",
                        folder.join(format!("fabric-peer@{name}.service")),
                    )
                    .unwrap();
                });
            }),
        ),
        (
            "a file before what it overrides",
            Box::new(|site: &Site| {
                site.peer_data("net/data/default");
                both(site, &|site, name| {
                    site.write(
                        &format!("net/etc/{name}.env"),
                        &format!("{}\nCORE_PEER_FILESYSTEMPATH=/data/{name}\n", lines(name)),
                    );
                    site.write(&format!("net/units/{name}.service"), &format!("[Service]\nEnvironmentFile=/etc/{name}.env\nEnvironment=CORE_PEER_FILESYSTEMPATH=/data/default\n{start}"));
                });
                site.remove("net/data/default");
            }),
        ),
        (
            "scripts that a unit runs",
            Box::new(|site: &Site| {
                site.write(
                    "net/opt/run-peer.sh",
                    "#!/bin/sh\n# CORE_PEER_ settings are the unit's\nexec peer node start \"$@\"\n",
                );
                site.write(
                    "net/units/peer0.service",
                    &format!(
                        "[Service]\nEnvironment=CORE_PEER_FILESYSTEMPATH=/data/peer0 {}\nExecStart=/opt/run-peer.sh\n",
                        whole("peer0")
                    ),
                );
                site.write("net/etc/peervars", &format!("{}\nCORE_PEER_FILESYSTEMPATH=/data/peer1\n", lines("peer1")));
                site.write("net/units/peer1.service", "[Service]\nExecStart=/bin/bash -c 'set -a; source /etc/peervars && exec /usr/bin/peer node start'\n");
            }),
        ),
    ];
    for (what, write) in cases {
        let site = Site::new();
        site.peer_data("net/data/peer0").peer_data("net/data/peer1");
        site.identity("Org1/peer0", "net/ids/peer0").identity("Org1/peer1", "net/ids/peer1");
        write(&site);
        let seen = site.discover("net");
        let nodes = seen.nodes();
        assert_eq!(nodes.len(), 2, "{what}: {nodes:#?} {:#?}", seen.remarks);
        for name in ["peer0", "peer1"] {
            let own = nodes.iter().find(|node| node.contains(&format!("peer-data=net/data/{name}"))).unwrap();
            assert!(own.contains(&format!("msp=net/ids/{name}/msp")), "{what}: {own} {:#?}", seen.remarks);
            assert!(own.contains(&format!("tls=net/ids/{name}/tls")), "{what}: {own} {:#?}", seen.remarks);
        }
    }
}

#[test]
fn certificates_that_vouch_for_others_are_no_claim_on_their_folder() {
    let site = Site::new();
    let script = |name: &str| {
        format!(
            "export CORE_PEER_TLS_ENABLED=true CORE_PEER_ID={name} CORE_PEER_MSPCONFIGPATH=$PWD/ids/{name}/msp CORE_PEER_FILESYSTEMPATH=$PWD/data/{name}\nexport CORE_PEER_TLS_CERT_FILE=$PWD/ids/{name}/tls/server.crt CORE_PEER_TLS_KEY_FILE=$PWD/ids/{name}/tls/server.key\nexport CORE_PEER_TLS_ROOTCERT_FILE=$PWD/ids/peer0/tls/ca.crt\npeer node start\n"
        )
    };
    for name in ["peer0", "peer1"] {
        site.peer_data(&format!("net/data/{name}")).identity(&format!("Org1/{name}"), &format!("net/ids/{name}"));
    }
    // The one that only names the other's file comes first.
    site.write("net/a.sh", &script("peer1")).write("net/b.sh", &script("peer0"));
    let seen = site.discover("net");
    let nodes = seen.nodes();
    for name in ["peer0", "peer1"] {
        let own = nodes.iter().find(|node| node.contains(&format!("peer-data=net/data/{name}"))).unwrap();
        assert!(own.ends_with(&format!("tls=net/ids/{name}/tls")), "{own} {:#?}", seen.remarks);
    }
    assert!(seen.remarks.iter().all(|remark| !remark.contains("is used by")), "{:#?}", seen.remarks);
}

#[test]
fn files_of_other_systems_editors_are_read() {
    let site = bare();
    let dos = |text: String| format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let pair = |name: &str, value: &str| format!("{name}={value}");
    site.write("net/peer.env", &dos(lines(PEER, "SITE/net", pair)));
    let orderer = lines(ORDERER, "\"SITE/net\"", |name, value| format!("export {name}={value} \\\n  A=b"));
    site.write("net/orderer.sh", &dos(format!("#!/bin/sh\n{orderer}orderer \\\n  start\n")));
    assert_both_nodes(&site);
}

#[test]
fn programs_of_supervisord_are_nodes() {
    let site = bare();
    let pairs = |pairs: &[(&str, &str)]| {
        let all: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", value.replace("BASE", "SITE/net"))).collect();
        all.join(",\n  ")
    };
    site.write("net/etc/supervisor/conf.d/fabric.conf", &format!(
        "; both\n[supervisord]\nnodaemon=true\n[program:peer0]\ncommand=/usr/local/bin/peer node start\nenvironment={}\ndirectory=%(here)s\n\n[program:orderer1]\ncommand=bash -c \"exec orderer\"\nenvironment={}\n[group:fabric]\nprograms=peer0,orderer1\n",
        pairs(PEER), pairs(ORDERER)
    ));
    assert_both_nodes(&site);
}

/// Three orderers with nothing but data and identities.
fn orderers() -> Site {
    let site = Site::new();
    for number in 1..=3 {
        site.orderer_data(&format!("net/l{number}"));
        site.identity(&format!("OrdererOrg/orderer{number}"), &format!("net/id/k{number}"));
    }
    site
}

fn assert_orderers(seen: &super::site::Seen, what: &str) {
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 3, "{what}: {nodes:#?} {:#?}", seen.remarks);
    for number in 1..=3 {
        let own = nodes.iter().find(|node| node.contains(&format!("orderer-ledger=net/l{number}"))).unwrap();
        for part in ["msp", "tls"] {
            assert!(own.contains(&format!("{part}=net/id/k{number}/{part}")), "{what}: {own} {:#?}", seen.remarks);
        }
    }
}

fn of_orderer(number: usize, base: &str) -> Vec<(&'static str, String)> {
    ORDERER
        .iter()
        .map(|(name, value)| {
            let value = value.replace("BASE/d2", &format!("{base}/l{number}"));
            (*name, value.replace("BASE/ids/b", &format!("{base}/id/k{number}")))
        })
        .collect()
}

#[test]
fn several_nodes_of_one_script_are_found_behind_redirections_and_wrappers() {
    for form in [
        "nohup orderer > oN.log 2>&1 &",
        "nohup orderer >oN.log 2>&1 &",
        "orderer &> oN.log &",
        "orderer 2> oN.log &",
        "orderer>oN.log &",
        "setsid orderer </dev/null >oN.log 2>&1 &",
        "su fabric -c \"orderer\" &",
        "screen -dmS oN orderer",
        "start-stop-daemon --start --background --exec /usr/bin/orderer",
        "taskset -c 1 orderer &",
        "nice -n 5 ionice -c2 -n7 env A=b orderer >>oN.log &",
        "sudo -E -u fabric orderer &",
    ] {
        let site = orderers();
        let text = (1..=3).map(|number| {
            let settings = of_orderer(number, "$PWD");
            let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("export {}\n{}\n", settings.join(" "), form.replace('N', &number.to_string()))
        });
        site.write("net/start.sh", &text.collect::<String>());
        assert_orderers(&site.discover("net"), form);
    }
}

#[test]
fn units_set_variables_and_redirect_as_scripts_do() {
    let pairs = |number: usize| -> Vec<String> {
        let of = of_orderer(number, "SITE/net");
        of.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    type Unit<'a> = Box<dyn Fn(&Site, usize) -> String + 'a>;
    let cases: Vec<(&str, Unit<'_>)> = vec![
        (
            "a shell that redirects",
            Box::new(|_, number| {
                let all = pairs(number).join(" ");
                format!("Environment={all}\nExecStart=/bin/sh -c 'exec orderer >>/var/log/o{number}.log 2>&1'\n")
            }),
        ),
        ("env", Box::new(|_, number| format!("ExecStart=/usr/bin/env {} /usr/bin/orderer\n", pairs(number).join(" ")))),
        (
            "several files",
            Box::new(|site, number| {
                for (part, some) in pairs(number).chunks(3).enumerate() {
                    site.write(&format!("net/etc/o{number}/{part}.env"), &some.join("\n"));
                }
                site.write(&format!("net/etc/o{number}/other.conf"), "ORDERER_FILELEDGER_LOCATION=/wrong\n");
                format!("EnvironmentFile=-/etc/o{number}/*.env\nExecStart=/usr/bin/orderer\n")
            }),
        ),
        (
            "values that go on in the next line",
            Box::new(|site, number| {
                let all = pairs(number).join("\n").replace("/net/", "/net/\\\n");
                site.write(&format!("net/etc/o{number}.env"), &all);
                format!("EnvironmentFile=/etc/o{number}.env\nExecStart=/usr/bin/orderer\n")
            }),
        ),
    ];
    for (what, unit) in cases {
        let site = orderers();
        for number in 1..=3 {
            let text = unit(&site, number);
            site.write(&format!("net/etc/systemd/system/o{number}.service"), &format!("[Service]\n{text}"));
        }
        assert_orderers(&site.discover("net"), what);
    }
}

#[test]
fn a_unit_whose_directories_are_not_there_is_a_node_of_its_machine() {
    let peer = "[Service]\nEnvironment=CORE_PEER_ID=p0 CORE_PEER_FILESYSTEMPATH=/nowhere/disk2/p0 CORE_PEER_MSPCONFIGPATH=/nowhere/disk2/msp\nExecStart=/opt/fabric/bin/peer node start\n";
    let authority = "[Service]\nExecStart=/usr/bin/fabric-ca-server start -b a:b -H /nowhere/disk2/ca\n";
    let site = Site::new();
    site.whole("net").remove("net/Org1/peer0").remove("net/Org2/ca");
    site.write("net/etc/systemd/system/p0.service", peer).write("net/etc/systemd/system/ca.service", authority);
    let seen = site.discover("net");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 9, "{nodes:#?}");
    for part in ["peer-data=/nowhere/disk2/p0", "msp=/nowhere/disk2/msp", "ca-home=/nowhere/disk2/ca"] {
        assert!(nodes.iter().any(|node| node.contains(part)), "{part} in {nodes:#?}");
    }
    seen.reported(&["p0.service", "/nowhere/disk2/p0", "not on this machine"]);
    // A package's unit that nothing wants, and a file in another place, are told and are none.
    for folder in ["net/usr/lib/systemd/system", "net/templates"] {
        let site = Site::new();
        site.whole("net").write(&format!("{folder}/p0.service"), peer);
        let seen = site.discover("net");
        assert_eq!(seen.names().len(), 9, "{:#?}", seen.names());
        seen.reported(&["p0.service", "not in the inventory"]);
    }
    let site = Site::new();
    site.whole("net").write("net/usr/lib/systemd/system/p0.service", peer);
    let wants = site.path("net/etc/systemd/system/multi-user.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("/usr/lib/systemd/system/p0.service", wants.join("p0.service")).unwrap();
    assert_eq!(site.discover("net").names().len(), 10);
}

#[test]
fn a_path_is_that_of_the_disk_which_is_looked_at_and_this_machines_is_told() {
    let site = Site::new();
    let local = site.path("local").display().to_string();
    // Both machines have the directory.
    for base in ["local".to_owned(), format!("disk{local}")] {
        site.peer_data(&format!("{base}/production")).identity("Org1/peer0", &base);
    }
    site.write("disk/etc/systemd/system/p0.service", "[Service]\nEnvironment=CORE_PEER_ID=p0 CORE_PEER_FILESYSTEMPATH=SITE/local/production CORE_PEER_MSPCONFIGPATH=SITE/local/msp\nEnvironment=CORE_PEER_TLS_ENABLED=true CORE_PEER_TLS_CERT_FILE=SITE/local/tls/server.crt CORE_PEER_TLS_KEY_FILE=SITE/local/tls/server.key\nExecStart=/usr/bin/peer node start\n");
    let seen = site.discover("disk");
    let nodes = seen.nodes();
    assert_eq!(nodes.len(), 1, "{nodes:#?}");
    for part in ["peer-data", "msp", "tls"] {
        let place = if part == "peer-data" { "production" } else { part };
        assert!(nodes[0].contains(&format!("{part}=disk{local}/{place}")), "{part}: {nodes:#?}");
    }
    seen.reported(&["p0.service", &format!("{local}/production"), "as well as"]);
    // Nothing is told where only the disk has it.
    site.remove("local");
    let seen = site.discover("disk");
    assert!(seen.nodes()[0].contains(&format!("peer-data=disk{local}/production")), "{:#?}", seen.nodes());
    assert_eq!(seen.remarks, Vec::<String>::new());
}
