//! Nodes started by scripts and shell lines of a deployer are nodes; clients with the same environment are not.

use fabkeep_fake_cluster::FakeCluster;

use crate::scene::ended;

/// A Deployment with a claim at `path`.
fn workload(name: &str, image: &str, command: &str, variables: &[(&str, &str)], path: &str) -> String {
    let env: Vec<String> =
        variables.iter().map(|(name, value)| format!("{{name: {name}, value: '{value}'}}")).collect();
    format!(
        "---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}, namespace: org1}}, spec: {{accessModes: [ReadWriteOnce], \
         resources: {{requests: {{storage: 1Gi}}}}}}}}\n---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}, namespace: org1}}, \
         spec: {{selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{volumes: [{{name: data, \
         persistentVolumeClaim: {{claimName: {name}}}}}], containers: [{{name: main, image: {image}, {command}, env: [{}], volumeMounts: \
         [{{name: data, mountPath: {path}}}]}}]}}}}}}}}\n",
        env.join(", ")
    )
}

#[test]
fn nodes_behind_wrapper_scripts_are_found_with_their_roles() {
    let cluster = FakeCluster::start();
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: org1}}");
    let peer = [("CORE_PEER_ID", "p"), ("CORE_PEER_LOCALMSPID", "Org1MSP"), ("CORE_PEER_MSPCONFIGPATH", "/msp")];
    let orderer = [("ORDERER_GENERAL_LOCALMSPID", "OrdererMSP"), ("ORDERER_GENERAL_LOCALMSPDIR", "/msp")];
    let data = "/var/hyperledger/production";
    let all = [
        workload("peer0", "hyperledger/fabric-peer:2.5.9", "command: [/bin/sh, /scripts/run.sh]", &peer, data),
        workload(
            "peer1",
            "hyperledger/fabric-peer:2.5.9",
            "command: [/bin/bash, -c], args: ['peer node start || tail -f /dev/null']",
            &peer,
            data,
        ),
        workload(
            "orderer0",
            "hyperledger/fabric-orderer:2.5.9",
            "command: [/bin/sh, /scripts/orderer.sh]",
            &orderer,
            "/var/hyperledger/production/orderer",
        ),
        workload(
            "ca",
            "own/ca:1",
            "command: [fabric-ca-server], args: [start, -H, /home/ca, -b, 'admin:pw']",
            &[],
            "/home/ca",
        ),
        workload(
            "cli",
            "hyperledger/fabric-tools:2.5.9",
            "command: [/bin/bash, -c, 'tail -f /dev/null']",
            &peer,
            "/work",
        ),
    ];
    all.iter().for_each(|manifest| cluster.apply(manifest));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fabkeep"));
    command.args(["discover", "--output", "json", "--namespace", "org1", "--kubeconfig"]).arg(cluster.kubeconfig());
    let output = command.env("HOME", cluster.folder()).output().unwrap();
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", ended(&output).text));
    let text = found.to_string();
    for node in ["peer0", "peer1", "orderer0", "ca"] {
        assert!(text.contains(&format!("\"{node}\"")) || text.contains(&format!("org1/{node}")), "{node}: {text}");
    }
    assert!(text.contains("/home/ca"), "{text}");
    assert!(!text.contains("org1/cli/"), "{text}");
}
