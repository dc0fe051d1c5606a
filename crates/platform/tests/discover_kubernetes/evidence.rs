//! Workloads whose programs are not known: what else tells that they are nodes.

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::DirectorySource;

use super::{DATA, MOUNTS, config_map, data_and_msp, deployment, directory, findings, look, node, role};

const PEER_YAML: &str = "peer: {id: p0, localMspId: Org1MSP, fileSystemPath: /data/p0, mspConfigPath: /msp}";
const ORDERER_YAML: &str = "General: {LocalMSPID: O, LocalMSPDir: /msp}\nFileLedger: {Location: /data/led}\n";

#[test]
fn a_workload_is_a_node_when_what_it_is_told_and_keeps_says_so() {
    let yaml = config_map("cfg", "core.yaml", PEER_YAML) + &config_map("ordy", "orderer.yaml", ORDERER_YAML);
    let yaml = yaml + &config_map("ca", "fabric-ca-server-config.yaml", "ca: {name: ca1}") + &data_and_msp();
    let volumes = |map: &str| format!("{DATA}, {{name: cfg, configMap: {{name: {map}}}}}");
    let own = "image: 'own/img:3'";
    let settings = "env: [{name: FABRIC_CFG_PATH, value: /cfg}]";
    let peer = "env: [{name: CORE_PEER_LOCALMSPID, value: O}, {name: CORE_PEER_FILESYSTEMPATH, value: /data}]";
    let usual = "env: [{name: CORE_PEER_LOCALMSPID, value: O}]";
    let production = "{name: data, mountPath: /var/hyperledger/production}";
    for (what, map, container, expected) in [
        (
            "core.yaml",
            "cfg",
            format!("{own}, {settings}, volumeMounts: [{MOUNTS}, {{name: cfg, mountPath: /cfg}}]"),
            NodeRole::Peer,
        ),
        (
            "core.yaml at its usual place",
            "cfg",
            format!(
                "{own}, command: [/start], volumeMounts: [{MOUNTS}, {{name: cfg, mountPath: /etc/hyperledger/fabric}}]"
            ),
            NodeRole::Peer,
        ),
        (
            "core.yaml in the working directory",
            "cfg",
            format!("{own}, workingDir: /w, volumeMounts: [{MOUNTS}, {{name: cfg, mountPath: /w}}]"),
            NodeRole::Peer,
        ),
        (
            "orderer.yaml",
            "ordy",
            format!("{own}, {settings}, volumeMounts: [{MOUNTS}, {{name: cfg, mountPath: /cfg}}]"),
            NodeRole::Orderer,
        ),
        (
            "a server's configuration",
            "ca",
            format!(
                "{own}, env: [{{name: FABRIC_CA_HOME, value: /data/ca}}], volumeMounts: [{MOUNTS}, {{name: cfg, mountPath: /data/ca/fabric-ca-server-config.yaml, subPath: fabric-ca-server-config.yaml}}]"
            ),
            NodeRole::CertificateAuthority,
        ),
        (
            "python",
            "cfg",
            format!(
                "{own}, command: [python3, -c, 'import os; os.execvp(\"peer\", [])'], {usual}, volumeMounts: [{production}]"
            ),
            NodeRole::Peer,
        ),
        (
            "supervisord",
            "cfg",
            format!("{own}, command: [supervisord, -c, /etc/s.conf], {peer}, volumeMounts: [{MOUNTS}]"),
            NodeRole::Peer,
        ),
        (
            "supervisord in the peer's image",
            "cfg",
            format!("image: 'hyperledger/fabric-peer:2.5', command: [supervisord, -n], volumeMounts: [{production}]"),
            NodeRole::Peer,
        ),
        (
            "a debugger",
            "cfg",
            format!(
                "{own}, command: [dlv, exec, /usr/bin/peer, --headless, --, node, start], volumeMounts: [{production}]"
            ),
            NodeRole::Peer,
        ),
        (
            "another user",
            "cfg",
            format!("{own}, command: [su, fabric, -c, 'peer node start'], volumeMounts: [{production}]"),
            NodeRole::Peer,
        ),
        (
            "a command in a variable",
            "cfg",
            format!(
                "{own}, command: [sh, -c, $CMD], env: [{{name: CMD, value: peer node start}}], volumeMounts: [{production}]"
            ),
            NodeRole::Peer,
        ),
    ] {
        let found = look(&[yaml.clone(), deployment("x0", &volumes(map), &container)]);
        assert_eq!(role(&found, "x0"), Some(expected), "{what}");
        let data = match expected {
            NodeRole::Peer => DirectoryRole::PeerData,
            NodeRole::Orderer => DirectoryRole::OrdererLedger,
            _ => DirectoryRole::CaHome,
        };
        let mut kept = node(&found, "x0").directories.iter().filter(|known| known.role == data);
        assert!(kept.any(|known| known.source == DirectorySource::Volume), "{what}");
    }
}

#[test]
fn what_may_be_a_node_is_told_by_name() {
    let yaml = config_map("cfg", "core.yaml", PEER_YAML) + &data_and_msp();
    let volumes = format!("{DATA}, {{name: cfg, configMap: {{name: cfg}}}}");
    let own = "image: 'own/img:3'";
    for (what, container) in [
        (
            "its data elsewhere",
            format!(
                "{own}, env: [{{name: CORE_PEER_LOCALMSPID, value: O}}, {{name: CORE_PEER_MSPCONFIGPATH, value: /msp}}], volumeMounts: [{MOUNTS}]"
            ),
        ),
        (
            "core.yaml, and no volume",
            format!(
                "{own}, env: [{{name: FABRIC_CFG_PATH, value: /cfg}}], volumeMounts: [{{name: cfg, mountPath: /cfg}}]"
            ),
        ),
    ] {
        let found = look(&[yaml.clone(), deployment("x0", &volumes, &container)]);
        assert_ne!(role(&found, "x0"), Some(NodeRole::Peer), "{what}");
        let told = findings(&found, "Deployment org1/x0");
        assert!(
            told.iter().any(|told| told.starts_with("warning: its container main may be a node (peer)")),
            "{what}: {told:?}"
        );
    }
    // Clients, and what stands beside a node.
    let admin = "{name: CORE_PEER_LOCALMSPID, value: O}, {name: CORE_PEER_MSPCONFIGPATH, value: /organizations/users/Admin@o/msp}";
    for container in [
        format!("{own}, env: [{admin}], volumeMounts: [{MOUNTS}]"),
        format!(
            "{own}, command: [sh, -c, 'peer channel list'], env: [{{name: CORE_PEER_LOCALMSPID, value: O}}], volumeMounts: [{MOUNTS}]"
        ),
        format!(
            "{own}, command: [sleep, infinity], env: [{{name: CORE_PEER_LOCALMSPID, value: O}}], volumeMounts: [{MOUNTS}]"
        ),
        "image: 'hyperledger/fabric-tools:2.5', env: [{name: CORE_PEER_LOCALMSPID, value: O}]".to_owned(),
        format!("{own}, env: [{{name: CHAINCODE_ID, value: c}}, {{name: CORE_PEER_LOCALMSPID, value: O}}]"),
        format!(
            "{own}, command: [peer, node, start], env: [{{name: CORE_PEER_LOCALMSPID, value: O}}], volumeMounts: [{MOUNTS}]}}, {{name: beside, {own}, env: [{{name: CORE_PEER_LOCALMSPID, value: O}}]"
        ),
    ] {
        let found = look(&[yaml.clone(), deployment("x0", &volumes, &container)]);
        let told = findings(&found, "x0");
        assert!(told.iter().all(|told| !told.contains("may be a node")), "{container}: {told:?}");
    }
}

#[test]
fn options_of_an_authority_that_are_known_only_when_it_runs_are_told() {
    let container = |script: &str| {
        format!(
            "image: 'hyperledger/fabric-ca:1.5', command: [sh, -c, '{script}'], env: [{{name: OPTS, value: '-b a:b -H /data/ca'}}], volumeMounts: [{MOUNTS}]"
        )
    };
    for (script, told) in [
        ("fabric-ca-server start $OPTS", false),
        ("exec fabric-ca-server start ${OPTS} -d", false),
        ("fabric-ca-server start $OPTS $MORE", true),
    ] {
        let found = look(&[data_and_msp(), deployment("ca", DATA, &container(script))]);
        assert_eq!(directory(&found, "ca", DirectoryRole::CaHome).1, "/data/ca", "{script}");
        let reported = findings(&found, "ca").iter().any(|what| what.contains("options of its command"));
        assert_eq!(reported, told, "{script}");
    }
}
