//! What the pods of a workload are: nodes of their own, with names of their own, and with parts of volumes that their templates name.

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{DirectorySource, Severity};
use fabkeep_platform::kubernetes::Kubernetes;
use fabkeep_platform::{Change, Platform, Quiesce};

use super::{
    DATA, MOUNTS, claim, config_map, data_and_msp, deployment, directory, findings, look, look_everywhere, names, node,
    pod, role, service, view, workload,
};

/// A pod's specification: an orderer with its ledger on a claim.
fn orderer_on(claim: &str) -> String {
    format!(
        "volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}], containers: [{{name: main, \
         image: 'hyperledger/fabric-orderer:2.5', env: [{{name: ORDERER_GENERAL_LOCALMSPID, value: O}}], \
         volumeMounts: [{{name: data, mountPath: /var/hyperledger/production/orderer}}]}}]"
    )
}

/// The claim that a node's directory is on, as it is shown.
fn held_by(found: &Kubernetes, name: &str, role: DirectoryRole) -> String {
    let directories = view(found, name).directories.into_iter();
    directories.filter(|known| known.role == role.to_string()).map(|known| known.held_by).collect()
}

#[test]
fn pods_of_a_controller_with_the_name_of_kubernetes_own_are_each_a_node() {
    let of = |name: &str| {
        let owner = ("StatefulSet", "orderer");
        let pod = pod(name, owner, &orderer_on(&format!("data-{name}")));
        pod.replace("[{kind: StatefulSet", "[{apiVersion: apps.kruise.io/v1beta1, kind: StatefulSet")
    };
    let found = look(&[of("orderer-0"), of("orderer-1"), claim("data-orderer-0"), claim("data-orderer-1")]);
    assert_eq!(names(&found), ["orderer-0", "orderer-1"]);
    for name in names(&found) {
        assert_eq!(view(&found, name).pod.as_deref(), Some(name));
        assert!(held_by(&found, name, DirectoryRole::OrdererLedger).starts_with(&format!("claim data-{name} ")));
        assert_eq!(found.claims(&node(&found, name).id), [("org1".to_owned(), format!("data-{name}"))]);
        // It is not Kubernetes' own, which can be scaled.
        let workload = node(&found, name).workload.clone().unwrap();
        assert_eq!(workload.kind, "StatefulSet.apps.kruise.io");
        assert!(findings(&found, name).iter().any(|what| what.contains("cannot scale")), "{name}");
    }
}

#[test]
fn pods_of_one_custom_resource_with_volumes_of_their_own_are_nodes_of_their_own() {
    let owner = ("FabricNetwork", "net");
    let all = |second: &str| {
        look(&[
            pod("alpha", owner, &orderer_on("a")),
            pod("beta", owner, &orderer_on(second)),
            claim("a"),
            claim("b"),
            service("alpha", "net"),
        ])
    };
    let found = all("b");
    assert_eq!(names(&found), ["alpha", "beta"]);
    for (name, claim) in [("alpha", "a"), ("beta", "b")] {
        assert_eq!(view(&found, name).pod.as_deref(), Some(name));
        assert_eq!(found.claims(&node(&found, name).id), [("org1".to_owned(), claim.to_owned())]);
        assert!(!findings(&found, name).iter().any(|what| what.contains("pods of one node")), "{name}");
    }
    // With the same volume they are pods of one node.
    let found = all("a");
    assert_eq!(names(&found), ["net"]);
    assert!(findings(&found, "org1/net").iter().any(|what| what.contains("2 pods of one node")));
}

#[test]
fn no_two_nodes_have_one_name() {
    let container = "image: 'hyperledger/fabric-orderer:2.5', env: [{name: ORDERER_GENERAL_LOCALMSPID, value: O}], \
         volumeMounts: [{name: data, mountPath: /var/hyperledger/production/orderer}]";
    let templates = "replicas: 1, volumeClaimTemplates: [{metadata: {name: data}}],";
    let volume = "{name: data, persistentVolumeClaim: {claimName: other}}";
    let found = look(&[
        workload("StatefulSet", "orderer", templates, "", container),
        deployment("orderer-0", volume, container),
        deployment("last.files", volume, container),
        claim("data-orderer-0"),
        claim("other"),
    ]);
    assert_eq!(names(&found), ["last.files.deployment", "orderer-0", "orderer-0.deployment"]);
    let ledger = |name: &str| directory(&found, name, DirectoryRole::OrdererLedger).0.path.clone();
    assert!(ledger("orderer-0.deployment").starts_with("org1/orderer-0.deployment/"));
    assert!(held_by(&found, "orderer-0", DirectoryRole::OrdererLedger).starts_with("claim data-orderer-0 "));
    assert!(held_by(&found, "orderer-0.deployment", DirectoryRole::OrdererLedger).starts_with("claim other "));
}

#[test]
fn a_fence_is_made_for_each_of_two_workloads_with_one_name() {
    let container = "image: 'hyperledger/fabric-orderer:2.5', env: [{name: ORDERER_GENERAL_LOCALMSPID, value: O}]";
    let found = look(&[
        workload("StatefulSet", "orderer", "replicas: 1,", "", container),
        deployment("orderer", "", container),
    ]);
    let (changes, _) = found.closing(&Quiesce { fence: true, ..Quiesce::default() }).unwrap();
    let policies = changes.iter().filter_map(|change| match change {
        Change::Fence { policy, .. } => Some(policy.as_str()),
        _ => None,
    });
    let policies: Vec<&str> = policies.collect();
    assert_eq!(policies, ["fabkeep-window-orderer", "fabkeep-window-orderer.statefulset"]);
}

#[test]
fn a_part_of_a_volume_is_named_by_what_the_template_says_where_no_pod_runs() {
    let peer = |expression: &str, variable: &str| {
        format!(
            "image: 'hyperledger/fabric-peer:2.5', env: [{{name: CORE_PEER_LOCALMSPID, value: O}}, {{name: CORE_PEER_FILESYSTEMPATH, value: /data}}, \
             {{name: CORE_PEER_MSPCONFIGPATH, value: /msp}}, {{name: PART, valueFrom: {{fieldRef: {{fieldPath: \"{variable}\"}}}}}}, {{name: AGAIN, value: x-$(PART)}}], \
             volumeMounts: [{{name: data, mountPath: /data, subPathExpr: {expression}}}, {{name: msp, mountPath: /msp}}]"
        )
    };
    let whole = deployment("other", DATA, "image: busybox, volumeMounts: [{name: data, mountPath: /all}]");
    let look = |kind: &str, expression: &str, variable: &str| {
        let set = workload(kind, "peer", "replicas: 0,", DATA, &peer(expression, variable));
        let set = set.replace("labels: {app: peer}}", "labels: {app: peer}, annotations: {part: noted}}");
        look(&[set, whole.clone(), data_and_msp()])
    };
    let excluded = |found: &Kubernetes| {
        let rest = found.network().nodes().find(|node| node.role == NodeRole::Files).unwrap();
        rest.directories[0].excluded.clone()
    };
    for (kind, expression, variable, part) in [
        ("Deployment", "$(PART)", "metadata.labels['app']", "peer"),
        ("Deployment", "$(AGAIN)", "metadata.labels['app']", "x-peer"),
        ("Deployment", "$(PART)/x", "metadata.annotations['part']", "noted/x"),
        ("Deployment", "$(PART)", "metadata.namespace", "org1"),
        ("StatefulSet", "$(AGAIN)", "metadata.name", "x-peer-0"),
        ("StatefulSet", "$(PART)", "metadata.labels['apps.kubernetes.io/pod-index']", "0"),
    ] {
        let found = look(kind, expression, variable);
        assert_eq!(excluded(&found), [part], "{kind} {expression} {variable}");
        assert!(!found.findings().iter().any(|finding| finding.what.contains("no value before its pod runs")));
    }
    for (expression, variable, named) in [
        ("$(PART)", "metadata.name", "PART"),
        ("a/$(AGAIN)", "metadata.name", "AGAIN"),
        ("$(PART)", "spec.nodeName", "PART"),
        ("$(PART)", "status.podIP", "PART"),
        ("$(NONE)", "metadata.name", "NONE"),
    ] {
        let found = look("Deployment", expression, variable);
        let told = found.findings().iter().find(|finding| finding.what.contains("no value before its pod runs"));
        let told = told.unwrap_or_else(|| panic!("{expression} {variable}: {:?}", found.findings()));
        assert!(told.severity == Severity::Error && told.subject == "org1/peer", "{told:?}");
        assert!(told.what.contains("/data") && told.what.contains(&format!("$({named})")), "{}", told.what);
        let volume = |known: &&fabkeep_network::NodeDirectory| known.source == DirectorySource::Volume;
        assert_eq!(node(&found, "peer").directories.iter().filter(volume).count(), 0);
        assert_eq!(excluded(&found), Vec::<String>::new());
    }
}

#[test]
fn a_part_of_a_volume_is_the_same_however_its_path_is_written() {
    for path in ["./peer0", "peer0//", "x/../peer0", "peer0/."] {
        let peer = format!(
            "image: 'hyperledger/fabric-peer:2.5', env: [{{name: CORE_PEER_LOCALMSPID, value: O}}], \
             volumeMounts: [{{name: data, mountPath: /var/hyperledger/production, subPath: {path}}}]"
        );
        let whole = deployment("other", DATA, "image: busybox, volumeMounts: [{name: data, mountPath: /all}]");
        let found = look(&[deployment("peer", DATA, &peer), whole, data_and_msp()]);
        let rest = found.network().nodes().find(|node| node.role == NodeRole::Files).unwrap();
        assert_eq!(rest.directories[0].excluded, ["peer0"], "{path}");
    }
}

#[test]
fn nodes_of_other_images_beside_a_node_are_found() {
    let peer = "image: 'hyperledger/fabric-peer:2.5', env: [{name: CORE_PEER_LOCALMSPID, value: O}], \
         volumeMounts: [{name: data, mountPath: /var/hyperledger/production}]";
    let ca = "name: ca, image: 'own/pki:3', env: [{name: FABRIC_CA_HOME, value: /home/ca}], volumeMounts: [{name: ca, mountPath: /home/ca}]";
    let volumes =
        "{name: data, persistentVolumeClaim: {claimName: data}}, {name: ca, persistentVolumeClaim: {claimName: ca}}";
    let found = look(&[deployment("p", volumes, &format!("{peer}}}, {{{ca}")), claim("data"), claim("ca")]);
    assert_eq!(role(&found, "p"), Some(NodeRole::Peer));
    assert_eq!(role(&found, "p.ca"), Some(NodeRole::CertificateAuthority));
    assert_eq!(directory(&found, "p.ca", DirectoryRole::CaHome).1, "/home/ca");
    // It stands first, and the node that is known by its program keeps the pod's name.
    let first = format!("image: own, command: [/x]}}, {{{ca}}}, {{name: peer, {peer}");
    let found = look(&[deployment("p", volumes, &first), claim("data"), claim("ca")]);
    assert_eq!((role(&found, "p"), role(&found, "p.ca")), (Some(NodeRole::Peer), Some(NodeRole::CertificateAuthority)));
    // What stands beside a node, with its variables and its data, is none.
    let beside = "name: logs, image: 'own/logs:1', env: [{name: CORE_PEER_LOCALMSPID, value: O}], \
         volumeMounts: [{name: data, mountPath: /var/hyperledger/production}]";
    let found = look(&[deployment("p", volumes, &format!("{peer}}}, {{{beside}")), claim("data"), claim("ca")]);
    assert_eq!(names(&found), ["p"]);
    assert!(findings(&found, "p").iter().all(|told| !told.contains("recognised") && !told.contains("may be a node")));
}

#[test]
fn a_label_alone_hides_nothing() {
    let ours = "labels: {app.kubernetes.io/managed-by: fabkeep";
    let peer = deployment(
        "peer",
        DATA,
        &format!(
            "image: 'hyperledger/fabric-peer:2.5', env: [{{name: CORE_PEER_LOCALMSPID, value: O}}], volumeMounts: [{MOUNTS}]"
        ),
    );
    let helper = "---\n{apiVersion: v1, kind: Pod, metadata: {name: fabkeep-1a-0, labels: {app.kubernetes.io/managed-by: fabkeep, \
         app.kubernetes.io/component: helper, fabkeep.io/run: 1a}}, spec: {containers: [{name: helper, image: busybox, \
         volumeMounts: [{name: v, mountPath: /all}]}], volumes: [{name: v, persistentVolumeClaim: {claimName: fabkeep-1a-s1}}]}}\n";
    let clone = claim("fabkeep-1a-s1").replace(
        "metadata: {",
        "metadata: {labels: {app.kubernetes.io/managed-by: fabkeep, app.kubernetes.io/component: clone, fabkeep.io/run: 1a}, ",
    );
    let window = config_map("fabkeep-window", "window.json", "{}")
        .replace("\"name\"", "\"labels\":{\"app.kubernetes.io/managed-by\":\"fabkeep\"},\"name\"");
    let labelled = |text: String| text.replace("metadata: {name: ", &format!("metadata: {{{ours}}}, name: "));
    let found = look(&[
        labelled(peer),
        labelled(claim("data")),
        config_map("msp", "cert.pem", "x"),
        helper.to_owned(),
        clone,
        window,
    ]);
    assert_eq!(names(&found), ["peer"]);
    let mut declared: Vec<String> = found.declarations().unwrap().objects.into_iter().map(|known| known.name).collect();
    declared.sort();
    assert_eq!(declared, ["data", "msp", "org1", "peer"]);
}

#[test]
fn a_namespace_that_goes_while_all_are_looked_at_is_left_out() {
    let other = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: gone}}\n";
    let orderer = pod("orderer", ("FabricNetwork", "net"), &orderer_on("a"));
    let found = look_everywhere(&[other.to_owned(), orderer, claim("a")]);
    assert_eq!(found.namespaces(), ["org1"]);
}
