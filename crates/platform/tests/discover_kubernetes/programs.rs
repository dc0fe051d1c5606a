//! What containers run, and the keys and settings that they take from elsewhere.

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_platform::Platform;

use super::{DATA, MOUNTS, claim, config_map, data_and_msp, deployment, directory, findings, look, names, role};

#[test]
fn one_script_for_all_nodes_starts_the_one_that_its_container_is() {
    let by_argument = "#!/bin/bash\ncase \"$1\" in\n  peer) exec peer node start ;;\n  orderer) exec orderer ;;\n  ca) exec fabric-ca-server start -b a:b ;;\nesac\n";
    let by_variable = "if [ \"$ROLE\" = orderer ]; then\n  export ORDERER_FILELEDGER_LOCATION=/wrong\n  exec orderer\nelse\n  exec peer node start\nfi\n";
    let scripts = config_map("run", "run.sh", by_argument) + &config_map("run2", "run.sh", by_variable);
    let volumes = |map: &str| format!("{DATA}, {{name: run, configMap: {{name: {map}}}}}");
    let mounts = format!("volumeMounts: [{MOUNTS}, {{name: run, mountPath: /scripts}}]");
    let orderer =
        "env: [{name: ORDERER_GENERAL_LOCALMSPID, value: O}, {name: ORDERER_FILELEDGER_LOCATION, value: /data}]";
    let peer = "env: [{name: ROLE, value: peer}, {name: CORE_PEER_LOCALMSPID, value: O}, {name: CORE_PEER_FILESYSTEMPATH, value: /data}]";
    let ca = "env: [{name: FABRIC_CA_HOME, value: /data}]";
    for (what, map, container, expected, data) in [
        (
            "an orderer by its image",
            "run",
            format!("image: 'hyperledger/fabric-orderer:2.5', command: [bash, /scripts/run.sh, orderer], {orderer}"),
            NodeRole::Orderer,
            DirectoryRole::OrdererLedger,
        ),
        (
            "an orderer by its variables",
            "run",
            format!("image: own, command: [/scripts/run.sh], args: [orderer], {orderer}"),
            NodeRole::Orderer,
            DirectoryRole::OrdererLedger,
        ),
        (
            "an authority by its image",
            "run",
            format!("image: 'hyperledger/fabric-ca:1.5', command: [bash, /scripts/run.sh, ca], {ca}"),
            NodeRole::CertificateAuthority,
            DirectoryRole::CaHome,
        ),
        (
            "an authority by its argument",
            "run",
            "image: own, command: [bash, /scripts/run.sh, ca], env: [{name: HOME, value: /data}, {name: FABRIC_CA_HOME, value: /data}, \
             {name: CORE_PEER_ID, value: x}]"
                .to_owned(),
            NodeRole::CertificateAuthority,
            DirectoryRole::CaHome,
        ),
        (
            "a peer by its variables",
            "run2",
            format!("image: 'own/hlf:1', command: [bash, /scripts/run.sh], {peer}"),
            NodeRole::Peer,
            DirectoryRole::PeerData,
        ),
    ] {
        let found = look(&[scripts.clone(), data_and_msp(), deployment("x", &volumes(map), &format!("{container}, {mounts}"))]);
        assert_eq!(role(&found, "x"), Some(expected), "{what}");
        assert_eq!(directory(&found, "x", data).1, "/data", "{what}");
    }
}

#[test]
fn tools_that_work_on_a_database_server_are_no_servers() {
    let backups = "volumeMounts: [{name: data, mountPath: /backups}]";
    for container in [
        "image: 'quay.io/prometheuscommunity/postgres-exporter:v0.15'".to_owned(),
        "image: 'prom/mysqld-exporter:v0.15'".to_owned(),
        "image: 'gesellix/couchdb-prometheus-exporter:v30'".to_owned(),
        format!("image: 'prodrigestivill/postgres-backup-local:15', {backups}"),
        "image: 'own/mysql-router:8'".to_owned(),
    ] {
        let found = look(&[deployment("x", DATA, &container), data_and_msp()]);
        let kept = found.network().nodes().filter(|node| node.role != NodeRole::Files).count();
        assert_eq!(kept, 0, "{container}: {:?}", names(&found));
    }
    for (container, expected) in [
        ("image: 'bitnami/postgresql-repmgr:15'", NodeRole::CaDatabase),
        (
            "image: 'own/postgres-init:15', volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]",
            NodeRole::CaDatabase,
        ),
        ("image: 'couchdb:3.3'", NodeRole::StateDatabase),
        // Options for the program of the image's entry point.
        (
            "image: 'mysql:5.7', args: ['--default-authentication-plugin=x', '--character-set-server=utf8mb4']",
            NodeRole::CaDatabase,
        ),
        ("image: 'postgres:15', args: [-c, max_connections=200]", NodeRole::CaDatabase),
    ] {
        let found = look(&[deployment("x", DATA, container), data_and_msp()]);
        assert_eq!(role(&found, "x"), Some(expected), "{container}");
    }
}

#[test]
fn keys_of_every_endpoint_that_go_with_the_pod_are_told() {
    let volumes = format!(
        "{DATA}, {{name: adm, emptyDir: {{}}}}, {{name: ops, csi: {{driver: csi.vault}}}}, {{name: tls, secret: {{secretName: tls}}}}"
    );
    let mounts = format!(
        "volumeMounts: [{MOUNTS}, {{name: adm, mountPath: /admin}}, {{name: ops, mountPath: /ops}}, {{name: tls, mountPath: /tls}}]"
    );
    let secret = "---\n{apiVersion: v1, kind: Secret, metadata: {name: tls}, data: {tls.key: eA==, tls.crt: eA==}}\n";
    let variables = |pairs: &[(&str, &str)]| {
        let all: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{{name: {name}, value: '{value}'}}")).collect();
        all.join(", ")
    };
    let own = [
        ("ORDERER_GENERAL_LOCALMSPID", "O"),
        ("ORDERER_GENERAL_LOCALMSPDIR", "/msp"),
        ("ORDERER_FILELEDGER_LOCATION", "/data/l"),
        ("ORDERER_CONSENSUS_WALDIR", "/data/w"),
    ];
    let admin = |at: &'static str, enabled: &'static str| {
        [("ORDERER_ADMIN_TLS_ENABLED", enabled), ("ORDERER_ADMIN_TLS_PRIVATEKEY", at)]
    };
    let operations =
        |at: &'static str| [("ORDERER_OPERATIONS_TLS_ENABLED", "true"), ("ORDERER_OPERATIONS_TLS_PRIVATEKEY", at)];
    let told = |more: &[(&str, &str)]| {
        let all = [&own[..], more].concat();
        let container = format!("image: 'hyperledger/fabric-orderer:2.5', env: [{}], {mounts}", variables(&all));
        let found = look(&[deployment("o", &volumes, &container), data_and_msp(), secret.to_owned()]);
        findings(&found, "org1/o")
    };
    let of = |told: &[String], at: &str| {
        told.iter().filter(|what| what.contains(&format!("directory {at} is held by"))).count()
    };
    assert_eq!(of(&told(&admin("/admin/tls.key", "true")), "/admin"), 1);
    assert_eq!(of(&told(&operations("/ops/tls.key")), "/ops"), 1);
    assert_eq!(of(&told(&operations("/gone/tls.key")), "/gone"), 1);
    for fine in [admin("/admin/tls.key", "false"), admin("/tls/tls.key", "true"), operations("/data/tls/tls.key")] {
        assert_eq!(told(&fine), Vec::<String>::new(), "{fine:?}");
    }
    let peer = [
        ("CORE_PEER_LOCALMSPID", "O"),
        ("CORE_PEER_FILESYSTEMPATH", "/data/p"),
        ("CORE_PEER_MSPCONFIGPATH", "/msp"),
        ("CORE_PEER_TLS_ENABLED", "true"),
        ("CORE_PEER_TLS_KEY_FILE", "/tls/tls.key"),
        ("CORE_PEER_TLS_CLIENTKEY_FILE", "/admin/client.key"),
        ("CORE_OPERATIONS_TLS_ENABLED", "true"),
        ("CORE_OPERATIONS_TLS_CERT_FILE", "/ops/tls.crt"),
        ("CORE_OPERATIONS_TLS_KEY_FILE", "/ops/tls.key"),
    ];
    let container = format!("image: 'hyperledger/fabric-peer:2.5', env: [{}], {mounts}", variables(&peer));
    let found = look(&[deployment("p", &volumes, &container), data_and_msp(), secret.to_owned()]);
    let told = findings(&found, "org1/p");
    assert_eq!((of(&told, "/admin"), of(&told, "/ops"), of(&told, "/tls")), (1, 1, 0), "{told:?}");
}

#[test]
fn keys_that_volumes_take_from_objects_must_be_in_them() {
    let item = |key: &str| format!("items: [{{key: {key}, path: x}}]");
    let volumes = format!(
        "{{name: a, configMap: {{name: c, {}}}}}, {{name: b, projected: {{sources: [{{secret: {{name: s, {}}}}}, {{configMap: {{name: c, optional: true, {}}}}}]}}}}",
        item("core.yaml"),
        item("server.key"),
        item("other")
    );
    let objects = config_map("c", "core-yaml", "x")
        + "---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {tls.key: eA==}}\n";
    let container = "image: 'hyperledger/fabric-peer:2.5', env: [{name: CORE_PEER_LOCALMSPID, value: O}], volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}]";
    let found = look(&[objects, deployment("p", &volumes, container), claim("data")]);
    let told: Vec<String> = findings(&found, "org1/p").into_iter().filter(|what| what.contains("it mounts")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    for what in ["core.yaml of ConfigMap c", "server.key of Secret s"] {
        assert!(told.iter().any(|told| told.contains(&format!("it mounts {what}, which is not in"))), "{told:?}");
    }
}
