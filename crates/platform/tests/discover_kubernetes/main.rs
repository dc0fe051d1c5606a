//! Nodes in namespaces as deployers make them, looked at through an API server that answers lists.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod evidence;
mod pods;
mod programs;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{DirectorySource, Node, NodeDirectory, Severity};
use fabkeep_platform::Platform;
use fabkeep_platform::kubernetes::{ClusterAddress, HelperOptions, Kubernetes, NodeView, Selection};
use serde::Deserialize;
use serde_json::{Value, json};

/// What a cluster with these objects in its namespace `org1` is found to hold.
fn look(manifests: &[String]) -> Kubernetes {
    look_in(manifests, vec!["org1".to_owned()])
}

/// The same without saying which namespaces.
fn look_everywhere(manifests: &[String]) -> Kubernetes {
    look_in(manifests, Vec::new())
}

fn look_in(manifests: &[String], namespaces: Vec<String>) -> Kubernetes {
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "org1"}})];
    for document in serde_norway::Deserializer::from_str(&manifests.concat()) {
        let mut object = Value::deserialize(document).unwrap();
        if !object.is_null() {
            object["metadata"]["namespace"] = "org1".into();
            objects.push(object);
        }
    }
    let (objects, listener) = (Arc::new(objects), TcpListener::bind("127.0.0.1:0").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let server = format!("http://{}", listener.local_addr().unwrap());
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let objects = Arc::clone(&objects);
            std::thread::spawn(move || answer(stream.unwrap(), &objects));
        }
    });
    let address = ClusterAddress { kubeconfig: Some(kubeconfig), context: None };
    let selection = Selection { namespaces, ..Selection::default() };
    Kubernetes::open(&address, &selection, HelperOptions::default()).unwrap()
}

/// Answers one request: a list of a kind by its plural, or the namespace.
fn answer(mut stream: TcpStream, objects: &[Value]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = first.split([' ', '?']).nth(1).unwrap_or_default();
    let plural = path.rsplit('/').next().unwrap_or_default();
    let of_kind = |object: &&Value| format!("{}s", object["kind"].as_str().unwrap().to_lowercase()) == plural;
    let items: Vec<&Value> = objects.iter().filter(of_kind).collect();
    let gone = path.strip_prefix("/api/v1/namespaces/").is_some_and(|name| name != "org1" && !name.contains('/'));
    let status = if gone { "404 Not Found" } else { "200 OK" };
    let body = match path {
        _ if gone => {
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "not found",
            "reason": "NotFound", "code": 404})
        }
        "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        "/api/v1/namespaces/org1" => objects[0].clone(),
        _ => json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}),
    }
    .to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

/// A workload with one container `main`; `more` is of its specification, `volumes` and `container` without brackets.
fn workload(kind: &str, name: &str, more: &str, volumes: &str, container: &str) -> String {
    format!(
        "---\n{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{more} selector: {{matchLabels: {{app: {name}}}}}, \
         template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{volumes: [{volumes}], containers: [{{name: main, {container}}}]}}}}}}}}\n"
    )
}

fn deployment(name: &str, volumes: &str, container: &str) -> String {
    workload("Deployment", name, "replicas: 1,", volumes, container)
}

fn claim(name: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{}}}}\n")
}

fn config_map(name: &str, key: &str, value: &str) -> String {
    format!(
        "---\n{}\n",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: value}})
    )
}

fn service(name: &str, of: &str) -> String {
    format!("---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{app: {of}}}}}}}\n")
}

/// A pod that runs, of this controller.
fn pod(name: &str, owner: (&str, &str), spec: &str) -> String {
    let (kind, of) = owner;
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {of}}}, ownerReferences: [{{kind: {kind}, name: {of}, \
         controller: true}}]}}, spec: {{nodeName: n1, {spec}}}, status: {{phase: Running, containerStatuses: [{{name: main, ready: true, \
         restartCount: 0, image: x, imageID: x, state: {{running: {{}}}}}}]}}}}\n"
    )
}

fn names(found: &Kubernetes) -> Vec<&str> {
    found.network().nodes().map(|node| node.id.node.as_str()).collect()
}

fn node<'a>(found: &'a Kubernetes, name: &str) -> &'a Node {
    let node = found.network().nodes().find(|node| node.id.node == name);
    node.unwrap_or_else(|| panic!("{name}: {:?}", names(found)))
}

fn role(found: &Kubernetes, name: &str) -> Option<NodeRole> {
    found.network().nodes().find(|node| node.id.node == name).map(|node| node.role)
}

fn view(found: &Kubernetes, name: &str) -> NodeView {
    found.view().nodes.into_iter().find(|node| node.node == format!("org1/{name}")).unwrap()
}

/// A node's directory of this role, and where its container sees it.
fn directory<'a>(found: &'a Kubernetes, name: &str, role: DirectoryRole) -> (&'a NodeDirectory, &'a str) {
    let all = &node(found, name).directories;
    let directory = all.iter().find(|known| known.role == role).unwrap_or_else(|| panic!("{role}: {all:?}"));
    (directory, directory.mounted_at.as_deref().unwrap())
}

fn findings(found: &Kubernetes, about: &str) -> Vec<String> {
    let of = found.findings().iter().filter(|finding| finding.subject.contains(about));
    of.map(|finding| format!("{}: {}", finding.severity, finding.what)).collect()
}

const DATA: &str = "{name: data, persistentVolumeClaim: {claimName: data}}, {name: msp, configMap: {name: msp}}";
const MOUNTS: &str = "{name: data, mountPath: /data}, {name: msp, mountPath: /msp}";

fn data_and_msp() -> String {
    claim("data") + &config_map("msp", "cert.pem", "x")
}

#[test]
fn what_a_mounted_script_sets_and_starts_is_read() {
    let script = "#!/bin/sh\n# export CORE_PEER_FILESYSTEMPATH=/wrong\nset -e\nBASE=/data\n\
         . /scripts/identity.env\n\
         export CORE_PEER_FILESYSTEMPATH=\"${BASE}/$(hostname)\" CORE_PEER_ID=$HOSTNAME\n\
         if [ -z \"$CORE_PEER_LOCALMSPID\" ]; then export CORE_PEER_LOCALMSPID=Wrong; fi\n\
         CORE_PEER_LISTENADDRESS='$none:7051' peer node start &\n\
         export CORE_PEER_MSPCONFIGPATH=/users/Admin/msp\npeer channel list; wait\n";
    let scripts = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "run"},
        "data": {"run.sh": script, "identity.env": "export CORE_PEER_LOCALMSPID=Org1MSP\nCORE_PEER_MSPCONFIGPATH=/msp\n"}});
    let volumes = format!("{DATA}, {{name: run, configMap: {{name: run}}}}");
    let mounts = format!("volumeMounts: [{MOUNTS}, {{name: run, mountPath: /scripts}}]");
    for command in ["[/scripts/run.sh]", "[/bin/bash, /scripts/run.sh]", "[sh, -c, 'cd /scripts && exec ./run.sh']"] {
        let container = format!("image: registry.corp/fabric:2.5, command: {command}, {mounts}");
        let peer = deployment("peer0", &volumes, &container);
        let found = look(&[data_and_msp(), format!("---\n{scripts}\n"), peer]);
        let peer = node(&found, "peer0");
        assert_eq!((peer.role, peer.msp_id.as_deref()), (NodeRole::Peer, Some("Org1MSP")), "{command}");
        let (data, at) = directory(&found, "peer0", DirectoryRole::PeerData);
        assert_eq!((data.source, at), (DirectorySource::Volume, "/data/peer0"), "{command}");
        assert_eq!(directory(&found, "peer0", DirectoryRole::Msp).1, "/msp", "{command}");
        assert_eq!(findings(&found, "peer0"), Vec::<String>::new(), "{command}");
    }
}

#[test]
fn what_an_inline_script_sets_is_read() {
    let volumes = DATA;
    let orderer = format!(
        "image: 'hyperledger/fabric-orderer:2.5', command: [sh, -c], args: ['export ORDERER_FILELEDGER_LOCATION=/data/ledger \
         ORDERER_CONSENSUS_WALDIR=/data/wal ORDERER_CONSENSUS_SNAPDIR=$(ROOT)/snap; exec orderer'], volumeMounts: [{MOUNTS}], \
         env: [{{name: ROOT, value: /data}}, {{name: ORDERER_GENERAL_LOCALMSPID, value: O}}, {{name: ORDERER_GENERAL_LOCALMSPDIR, value: /msp}}]"
    );
    let ca = format!(
        "image: own, command: [bash, -ec, \"export FABRIC_CA_SERVER_HOME=/data/ca\\nKEYS=/data/keys\\nfabric-ca-server start -b a:b \
         --ca.certfile $KEYS/ca.pem\"], volumeMounts: [{MOUNTS}]"
    );
    let found = look(&[data_and_msp(), deployment("orderer0", volumes, &orderer), deployment("ca", volumes, &ca)]);
    for (role, path) in [
        (DirectoryRole::OrdererLedger, "/data/ledger"),
        (DirectoryRole::OrdererWal, "/data/wal"),
        (DirectoryRole::OrdererSnapshots, "/data/snap"),
    ] {
        let (directory, at) = directory(&found, "orderer0", role);
        assert_eq!((directory.source, at), (DirectorySource::Volume, path));
    }
    assert_eq!(directory(&found, "ca", DirectoryRole::CaHome).1, "/data/ca");
    assert_eq!(directory(&found, "ca", DirectoryRole::Other).1, "/data/keys");
}

#[test]
fn a_setting_that_is_known_only_when_a_script_runs_is_told() {
    let container = "image: 'hyperledger/fabric-peer:2.5', command: [sh, -c, 'export CORE_PEER_FILESYSTEMPATH=/data/$(cat /id); exec peer node start'], \
         env: [{name: CORE_PEER_ID, value: p}, {name: CORE_PEER_MSPCONFIGPATH, value: /msp}], volumeMounts: [{MOUNTS}]";
    let found = look(&[data_and_msp(), deployment("peer0", DATA, container)]);
    let reported = findings(&found, "peer0");
    assert!(reported.iter().any(|what| what.contains("CORE_PEER_FILESYSTEMPATH")), "{reported:?}");
}

#[test]
fn nodes_are_seen_by_their_command_whatever_their_image() {
    let all = [
        (
            "peer",
            "image: 'registry.corp/fabric:2.5', command: [sh, -ec, 'CORE_PEER_ID=x CORE_PEER_LOCALMSPID=O exec peer node start']",
        ),
        ("bare", "image: 'registry.corp/fabric:2.5', command: [/vault/vault-env, peer, node, start]"),
        ("orderer", "image: 'registry.corp/fabric:2.5', command: [tini, --, orderer]"),
    ];
    let manifests: Vec<String> = all.iter().map(|(name, container)| deployment(name, "", container)).collect();
    let found = look(&manifests);
    assert_eq!(role(&found, "peer"), Some(NodeRole::Peer));
    assert_eq!(role(&found, "bare"), Some(NodeRole::Peer));
    assert_eq!(role(&found, "orderer"), Some(NodeRole::Orderer));
}

#[test]
fn clients_in_the_images_of_nodes_are_no_nodes() {
    let peer = "image: 'hyperledger/fabric-peer:3.1.0'";
    let ca = "image: 'hyperledger/fabric-ca:1.5'";
    let admin = "{name: CORE_PEER_LOCALMSPID, value: O}, {name: CORE_PEER_ADDRESS, value: 'p:7051'}, \
                 {name: CORE_PEER_MSPCONFIGPATH, value: /organizations/users/Admin@o/msp}";
    let user = "{name: FABRIC_CA_CLIENT_HOME, value: /x}";
    let all = [
        format!("{peer}, command: [sleep, infinity], env: [{admin}]"),
        format!("{peer}, command: [/bin/bash, -c, '/scripts/setup-channel.sh; tail -f /dev/null'], env: [{admin}]"),
        format!("{peer}, command: [/scripts/cli.sh], env: [{admin}]"),
        format!("{peer}, command: [sh, -c, 'peer channel list; sleep infinity'], env: [{{name: CORE_PEER_LOCALMSPID, value: O}}]"),
        format!("{ca}, command: [/scripts/enroll-loop.sh], env: [{user}]"),
        format!("{ca}, command: [sh, -c, 'sleep infinity'], env: [{user}, {{name: FABRIC_CA_HOME, value: /x}}]"),
        format!("{ca}, command: [sh, -c, 'fabric-ca-client enroll -u https://a:b@fabric-ca-server:7054'], env: [{user}]"),
        "image: 'registry.corp/tools:1', command: [sh, -c, 'mkdir -p /x/orderer && ls /x/orderer | grep orderer; sleep 5']".to_owned(),
    ];
    for container in &all {
        let found = look(&[deployment("client", "", container)]);
        assert_eq!(role(&found, "client"), None, "{container}");
    }
    // What serves is a node, whatever its MSP's folder is called.
    let serves = "{name: CORE_PEER_LISTENADDRESS, value: '0.0.0.0:7051'}";
    for container in [
        format!("{peer}, command: [/scripts/run.sh], env: [{admin}, {serves}]"),
        format!("{peer}, command: [sh, -c, 'peer node start'], env: [{admin}]"),
        format!("{peer}, env: [{admin}]"),
    ] {
        let found = look(&[deployment("peer", "", &container)]);
        assert_eq!(role(&found, "peer"), Some(NodeRole::Peer), "{container}");
    }
    let found = look(&[deployment("ca", "", &format!("{ca}, command: [/scripts/run.sh]"))]);
    assert_eq!(role(&found, "ca"), Some(NodeRole::CertificateAuthority));
}

#[test]
fn pods_of_controllers_that_are_not_known_are_nodes_too() {
    let spec = |n: u32| {
        format!(
            "volumes: [{{name: data, persistentVolumeClaim: {{claimName: data-orderer-{n}}}}}], containers: [{{name: main, \
             image: 'hyperledger/fabric-orderer:2.5', env: [{{name: ORDERER_GENERAL_LOCALMSPID, value: O}}], \
             volumeMounts: [{{name: data, mountPath: /var/hyperledger/production/orderer}}]}}]"
        )
    };
    let peer = "containers: [{name: main, image: 'hyperledger/fabric-peer:2.5', env: [{name: CORE_PEER_LOCALMSPID, value: O}]}]";
    let advanced = ("AdvancedStatefulSet", "orderer");
    let found = look(&[
        pod("orderer-0", advanced, &spec(0)),
        pod("orderer-1", advanced, &spec(1)),
        pod("peer-x7k2p", ("CloneSet", "peer"), peer),
        pod("etcd-n1", ("Node", "n1"), peer),
        pod("once-x1", ("Job", "once"), peer),
        claim("data-orderer-0"),
        claim("data-orderer-1"),
    ]);
    assert_eq!(names(&found), ["etcd-n1", "peer", "orderer-0", "orderer-1"]);
    for ordinal in 0..2 {
        let orderer = node(&found, &format!("orderer-{ordinal}"));
        let workload = orderer.workload.as_ref().unwrap();
        assert_eq!((workload.kind.as_str(), workload.name.as_str()), advanced);
        assert_eq!(workload.ordinal, Some(ordinal));
        assert_eq!(view(&found, &format!("orderer-{ordinal}")).pod, Some(format!("orderer-{ordinal}")));
        let (data, _) = directory(&found, &format!("orderer-{ordinal}"), DirectoryRole::OrdererLedger);
        assert_eq!(data.source, DirectorySource::Volume);
        let reported = findings(&found, &format!("orderer-{ordinal}"));
        assert!(reported.iter().any(|what| what.contains("AdvancedStatefulSet orderer")), "{reported:?}");
    }
}

#[test]
fn a_pod_belongs_to_its_deployment_where_replica_sets_cannot_be_listed() {
    let peer = "image: 'hyperledger/fabric-peer:2.5', env: [{name: CORE_PEER_LOCALMSPID, value: O}]";
    let spec = format!("containers: [{{name: main, {peer}}}]");
    let found = look(&[deployment("peer0", "", peer), pod("peer0-6f7-x2v", ("ReplicaSet", "peer0-6f7"), &spec)]);
    assert_eq!(names(&found), ["peer0"]);
    assert_eq!(view(&found, "peer0").pod.as_deref(), Some("peer0-6f7-x2v"));
}

#[test]
fn data_of_pods_that_are_not_captured_is_an_error() {
    let spec = |holder: &str| {
        format!(
            "volumes: [{{name: data, {holder}}}], containers: [{{name: main, image: 'hyperledger/fabric-peer:2.5', \
             env: [{{name: CORE_PEER_LOCALMSPID, value: O}}], volumeMounts: [{{name: data, mountPath: /var/hyperledger/production}}]}}]"
        )
    };
    let look = |kind: &str, holder: &str, pods: u32| {
        let spec = spec(holder);
        let workload = format!(
            "---\n{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: peer}}, spec: {{template: {{spec: {{{spec}}}}}}}}}\n"
        );
        let pods: Vec<String> = (0..pods).map(|n| pod(&format!("peer-x{n}"), (kind, "peer"), &spec)).collect();
        let found = look(&[vec![workload, claim("data")], pods].concat());
        let of =
            found.findings().iter().filter(|finding| finding.what.contains("pods") && finding.subject == "org1/peer");
        of.map(|finding| finding.severity).max()
    };
    let on_machine = "hostPath: {path: /srv/fabric}";
    assert_eq!(look("DaemonSet", on_machine, 2), Some(Severity::Error));
    assert_eq!(look("ReplicaSet", "emptyDir: {}", 2), Some(Severity::Error));
    assert_eq!(look("DaemonSet", on_machine, 1), None);
    assert_eq!(look("DaemonSet", "persistentVolumeClaim: {claimName: data}", 2), Some(Severity::Warning));
    assert_eq!(look("ReplicaSet", "persistentVolumeClaim: {claimName: data}", 1), None);
    // Those that do not run have data as well, and so have those of certificate authorities.
    let of_machines = |image: &str, at: &str, desired: u32, pods: u32| {
        let spec = format!(
            "volumes: [{{name: data, hostPath: {{path: /srv}}}}], containers: [{{name: main, image: 'hyperledger/{image}:2.5', \
             volumeMounts: [{{name: data, mountPath: {at}}}]}}]"
        );
        let set = format!(
            "---\n{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: d}}, spec: {{template: {{spec: {{{spec}}}}}}}, \
             status: {{desiredNumberScheduled: {desired}}}}}\n"
        );
        let pods: Vec<String> = (0..pods).map(|n| pod(&format!("d-x{n}"), ("DaemonSet", "d"), &spec)).collect();
        let found = self::look(&[vec![set], pods].concat());
        findings(&found, "org1/d").into_iter().find(|finding| finding.contains("data of their own"))
    };
    let (peer, ca) = ("/var/hyperledger/production", "/etc/hyperledger/fabric-ca-server");
    let gone = of_machines("fabric-peer", peer, 3, 1).unwrap();
    assert!(gone.starts_with("error") && gone.contains("d-x0 and 2 that are not there"), "{gone}");
    assert!(of_machines("fabric-ca", ca, 2, 2).is_some_and(|finding| finding.starts_with("error")));
    assert_eq!(of_machines("fabric-peer", peer, 1, 1), None);
}

#[test]
fn every_kind_of_controller_is_a_workload_and_one_that_cannot_be_read_is_told() {
    let container = format!(
        "image: 'hyperledger/fabric-peer:2.5', env: [{{name: CORE_PEER_LOCALMSPID, value: Org1MSP}}], volumeMounts: [{MOUNTS}]"
    );
    let controller = workload("ReplicationController", "peer", "replicas: 1,", DATA, &container);
    let found = look(&[controller.replace("apps/v1", "v1"), data_and_msp()]);
    assert_eq!(role(&found, "peer"), Some(NodeRole::Peer));
    assert_eq!(findings(&found, "claim data"), Vec::<String>::new());
    assert_eq!(findings(&found, "org1/peer").iter().filter(|what| what.contains("cannot scale")).count(), 0);
    let odd = "---\n{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: odd}, spec: {template: {spec: {containers: none}}}}\n";
    let found = look(&[odd.to_owned()]);
    let told = findings(&found, "StatefulSet org1/odd");
    assert!(told.len() == 1 && told[0].contains("cannot be read"), "{told:?}");
}

#[test]
fn what_a_nodes_environment_is_taken_from_must_be_there() {
    let container = format!(
        "image: 'hyperledger/fabric-peer:2.5', volumeMounts: [{MOUNTS}], envFrom: [{{configMapRef: {{name: gone}}}}, {{secretRef: {{name: maybe, optional: true}}}}], \
         env: [{{name: CORE_PEER_LOCALMSPID, valueFrom: {{configMapKeyRef: {{name: msp, key: id}}}}}}, {{name: A, valueFrom: {{secretKeyRef: {{name: lost, key: k}}}}}}, \
         {{name: B, valueFrom: {{configMapKeyRef: {{name: msp, key: cert.pem}}}}}}, {{name: C, valueFrom: {{secretKeyRef: {{name: maybe, key: k, optional: true}}}}}}]"
    );
    let found = look(&[deployment("peer", DATA, &container), data_and_msp()]);
    let missing: Vec<String> =
        findings(&found, "org1/peer").into_iter().filter(|what| what.contains("environment from")).collect();
    let expected = ["ConfigMap gone", "Secret lost", "id of ConfigMap msp"];
    assert_eq!(missing.len(), expected.len(), "{missing:?}");
    for what in expected {
        assert!(missing.iter().any(|known| known.contains(&format!("from {what}, which is not"))), "{missing:?}");
    }
}

#[test]
fn a_part_of_a_volume_may_be_named_by_what_the_pod_is() {
    let container = "image: 'hyperledger/fabric-peer:2.5', env: [{name: CORE_PEER_LOCALMSPID, value: O}, {name: CORE_PEER_FILESYSTEMPATH, value: /data}, \
         {name: CORE_PEER_MSPCONFIGPATH, value: /msp}, {name: APP, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}, \
         {name: HOST, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}], \
         volumeMounts: [{name: data, mountPath: /data, subPathExpr: $(HOST)/$(APP)}, {name: msp, mountPath: /msp}]";
    let set = workload("ReplicaSet", "peer", "replicas: 1,", DATA, container);
    let other = deployment("other", DATA, "image: busybox, volumeMounts: [{name: data, mountPath: /all}]");
    let found = look(&[set, pod("peer-x", ("ReplicaSet", "peer"), "containers: []"), other, data_and_msp()]);
    let rest = found.network().nodes().find(|node| node.role == NodeRole::Files).unwrap();
    assert_eq!(rest.directories[0].excluded, ["n1/peer"], "{:?}", rest.directories);
}

#[test]
fn a_stateful_set_counts_from_where_it_says() {
    let more = "replicas: 2, ordinals: {start: 1}, volumeClaimTemplates: [{metadata: {name: data}}],";
    let container = "image: 'hyperledger/fabric-orderer:2.5', env: [{name: ORDERER_GENERAL_LOCALMSPID, value: O}], \
         volumeMounts: [{name: data, mountPath: /var/hyperledger/production/orderer}]";
    let set = workload("StatefulSet", "ord", more, "", container);
    let found = look(&[set, claim("data-ord-1"), claim("data-ord-2")]);
    assert_eq!(names(&found), ["ord-1", "ord-2"]);
    assert_eq!(findings(&found, "claim data-ord"), Vec::<String>::new());
}

/// The nodes that serve one, by name.
fn served_by(found: &Kubernetes, name: &str) -> Vec<String> {
    node(found, name).served_by.iter().map(|id| id.node.clone()).collect()
}

#[test]
fn a_peer_and_its_couchdb_are_found_together_by_whatever_address_leads_there() {
    let couch = workload(
        "StatefulSet",
        "couchdb",
        "replicas: 2, serviceName: couchdb, volumeClaimTemplates: [{metadata: {name: data}}],",
        "",
        "image: 'couchdb:3.3', volumeMounts: [{name: data, mountPath: /opt/couchdb/data}]",
    );
    let peer = |address: &str| {
        format!(
            "image: 'hyperledger/fabric-peer:2.5', env: [{{name: CORE_PEER_LOCALMSPID, value: O}}, \
             {{name: CORE_LEDGER_STATE_STATEDATABASE, value: CouchDB}}, \
             {{name: CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS, value: '{address}'}}]"
        )
    };
    let found = look(&[
        couch,
        service("couchdb", "couchdb"),
        workload("StatefulSet", "peer", "replicas: 2,", "", &peer("couchdb:5984")),
        deployment("first", "", &peer("couchdb-0.couchdb:5984")),
        deployment("second", "", &peer("couchdb-1.couchdb.org1.svc.cluster.local:5984")),
        deployment("none", "", &peer("couchdb-7.couchdb:5984")),
    ]);
    for (peer, server) in
        [("peer-0", "couchdb-0"), ("peer-1", "couchdb-1"), ("first", "couchdb-0"), ("second", "couchdb-1")]
    {
        assert_eq!(served_by(&found, peer), [server], "{peer}");
    }
    assert_eq!(served_by(&found, "none"), Vec::<String>::new());
}

#[test]
fn a_peers_configuration_file_names_its_couchdb_too() {
    let config = "ledger: {state: {stateDatabase: CouchDB, couchDBConfig: {couchDBAddress: 'localhost:5984'}}}";
    let volumes = "{name: config, configMap: {name: config}}, {name: state, persistentVolumeClaim: {claimName: state}}";
    for image in ["couchdb:3.3", "registry.corp/db/state:1"] {
        let containers = format!(
            "image: 'hyperledger/fabric-peer:2.5', env: [{{name: CORE_PEER_LOCALMSPID, value: O}}], \
             volumeMounts: [{{name: config, mountPath: /etc/hyperledger/fabric}}]}}, {{name: state, image: '{image}', \
             ports: [{{containerPort: 5984}}], volumeMounts: [{{name: state, mountPath: /opt/couchdb/data}}]"
        );
        let found = look(&[
            claim("state"),
            config_map("config", "core.yaml", config),
            deployment("peer0", volumes, &containers),
        ]);
        assert_eq!(role(&found, "peer0.state"), Some(NodeRole::StateDatabase), "{image}");
        assert_eq!(served_by(&found, "peer0"), ["peer0.state"], "{image}");
        assert_eq!(directory(&found, "peer0.state", DirectoryRole::StateDatabase).1, "/opt/couchdb/data");
    }
}

#[test]
fn a_server_that_an_authority_names_is_its_database_whatever_its_image() {
    let ca = deployment(
        "ca",
        "",
        "image: 'hyperledger/fabric-ca:1.5', env: [{name: FABRIC_CA_SERVER_DB_TYPE, value: postgres}, \
         {name: FABRIC_CA_SERVER_DB_DATASOURCE, value: 'host=pg port=5432 user=ca password=x dbname=ca sslmode=disable'}]",
    );
    let server = workload(
        "StatefulSet",
        "pg",
        "replicas: 1, volumeClaimTemplates: [{metadata: {name: data}}],",
        "",
        "image: 'registry.corp/db/pgsql:15', volumeMounts: [{name: data, mountPath: /pgdata}]}, {name: metrics, image: exporter",
    );
    let found = look(&[ca.clone(), server, service("pg", "pg"), claim("data-pg-0")]);
    assert_eq!(role(&found, "pg-0"), Some(NodeRole::CaDatabase));
    assert_eq!(role(&found, "pg-0.metrics"), None);
    assert_eq!(served_by(&found, "ca"), ["pg-0"]);
    let roles: Vec<DirectoryRole> = node(&found, "pg-0").directories.iter().map(|known| known.role).collect();
    assert_eq!(roles, [DirectoryRole::DatabaseDump, DirectoryRole::Database]);
    // What only passes connections on keeps nothing.
    let proxy = deployment("proxy", "", "image: 'registry.corp/pooler:1', ports: [{containerPort: 5432}]");
    let found = look(&[ca, proxy, service("pg", "proxy")]);
    assert_eq!(role(&found, "proxy"), None);
    let reported = findings(&found, "org1/ca");
    assert!(reported.iter().any(|what| what.contains("Deployment org1/proxy")), "{reported:?}");
}

#[test]
fn a_directory_of_another_node_inside_a_nodes_own_is_not_captured_with_it() {
    let production = "{name: data, mountPath: /var/hyperledger/production}";
    let peer = format!(
        "image: 'hyperledger/fabric-peer:2.5', env: [{{name: CORE_PEER_LOCALMSPID, value: O}}, \
         {{name: CORE_PEER_MSPCONFIGPATH, value: /var/hyperledger/production/msp}}], volumeMounts: [{production}]"
    );
    let orderer = |mount: &str| {
        format!(
            "image: 'hyperledger/fabric-orderer:2.5', env: [{{name: ORDERER_GENERAL_LOCALMSPID, value: O}}], volumeMounts: [{mount}]"
        )
    };
    let check = |found: &Kubernetes, peer: &str, orderer: &str| {
        let (data, _) = directory(found, peer, DirectoryRole::PeerData);
        assert_eq!(data.excluded, ["orderer"]);
        assert_eq!(data.nested, [("msp".to_owned(), DirectoryRole::Msp)]);
        let (ledger, _) = directory(found, orderer, DirectoryRole::OrdererLedger);
        assert_eq!(ledger.excluded, Vec::<String>::new());
    };
    let on_claim = "{name: data, persistentVolumeClaim: {claimName: data}}";
    let together = format!("{peer}}}, {{name: orderer, {}", orderer(production));
    check(&look(&[claim("data"), deployment("both", on_claim, &together)]), "both", "both.orderer");
    // The same part of the volume under another path; the same folder of one machine.
    let part = orderer("{name: data, mountPath: /var/hyperledger/production/orderer, subPath: orderer}");
    let on_machine = |path: &str| format!("{{name: data, hostPath: {{path: {path}}}}}");
    let other = orderer("{name: data, mountPath: /var/hyperledger/production/orderer}");
    for (of_peer, of_orderer, orderer) in [
        (on_claim.to_owned(), on_claim.to_owned(), part),
        (on_machine("/srv/fabric"), on_machine("/srv/fabric/orderer"), other),
    ] {
        let found =
            look(&[claim("data"), deployment("peer0", &of_peer, &peer), deployment("orderer0", &of_orderer, &orderer)]);
        check(&found, "peer0", "orderer0");
    }
}

#[test]
fn the_home_of_an_authority_is_where_its_configuration_file_is() {
    let volumes = "{name: data, persistentVolumeClaim: {claimName: data}}";
    let home = |command: &str| {
        let container = format!(
            "image: 'hyperledger/fabric-ca:1.5', {command}, workingDir: /data, volumeMounts: [{{name: data, mountPath: /data}}], \
             env: [{{name: FABRIC_CA_SERVER_HOME, value: /data/home}}, {{name: FABRIC_CA_SERVER_CONFIG, value: /data/other/ca.yaml}}]"
        );
        let found = look(&[claim("data"), deployment("ca", volumes, &container)]);
        directory(&found, "ca", DirectoryRole::CaHome).1.to_owned()
    };
    assert_eq!(
        home("command: [fabric-ca-server], args: [start, -c, /data/ca/fabric-ca-server-config.yaml, -b, 'a:b']"),
        "/data/ca"
    );
    assert_eq!(
        home("command: [sh, -c, 'fabric-ca-server start --config=ca/fabric-ca-server-config.yaml']"),
        "/data/ca"
    );
    // Only the flag is read.
    assert_eq!(home("command: [fabric-ca-server, start]"), "/data/home");
}

#[test]
fn optional_objects_that_are_not_there_are_no_loss() {
    let volumes = "{name: a, secret: {secretName: a, optional: true}}, {name: b, configMap: {name: b, optional: true}}, \
         {name: c, projected: {sources: [{secret: {name: c, optional: true}}, {configMap: {name: d, optional: true}}, {secret: {name: e}}]}}";
    let container = "image: 'hyperledger/fabric-peer:2.5', env: [{name: CORE_PEER_LOCALMSPID, value: O}], volumeMounts: \
         [{name: a, mountPath: /a}, {name: b, mountPath: /b}, {name: c, mountPath: /c}]";
    let found = look(&[deployment("peer0", volumes, container)]);
    let reported: Vec<String> =
        findings(&found, "peer0").into_iter().filter(|what| what.contains("it mounts")).collect();
    assert_eq!(reported, ["warning: it mounts Secret e, which is not in the namespace"]);
}
