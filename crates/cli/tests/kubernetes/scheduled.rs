//! fabkeep in the cluster as a CronJob, in a restricted namespace, with an object store: as the documentation has it.

use std::collections::HashMap;

use crate::cluster::Cluster;
use crate::losses::Accounts;
use crate::network::{NODES, Network};
use crate::object_store;
use crate::run::{Place, succeeded};
use crate::styles;

const DOCUMENTATION: &str = include_str!("../../../../docs/kubernetes.md");
const REPOSITORY: &str = "s3://bucket/fabric";

/// The documented manifests.
fn manifests() -> &'static str {
    let marked = DOCUMENTATION.split("<!-- the tests use exactly this -->\n```yaml\n").nth(1).unwrap();
    marked.split("\n```").next().unwrap()
}

/// Text with each of these replaced, which must be in it.
fn with(mut text: String, changes: &[(&str, String)]) -> String {
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    text
}

#[test]
fn a_job_in_the_cluster_backs_up_into_an_object_store() {
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::of(&cluster, &styles::TEST_NETWORK, "scheduled", NODES.split_at(6).0.split_at(3).1);
    network.deploy();
    let namespace = network.namespaces["Org1"].clone();
    let own = "scheduled-fabkeep".to_owned();
    let roles = Accounts::new(&cluster, "scheduled");
    cluster.remove_namespaces(std::slice::from_ref(&own));
    cluster.kubectl(&["create", "namespace", &own], &[]);
    cluster.kubectl(&["label", "namespace", &own, "pod-security.kubernetes.io/enforce=restricted"], &[]);

    // The cluster's machine is this one: pods reach the object store at its address.
    let place = Place::new(&network);
    let folder = place.repo().with_file_name("s3");
    std::fs::create_dir_all(folder.join("bucket")).unwrap();
    let server = object_store::serve(folder, "0.0.0.0");
    let machine = cluster.json(&["get", "nodes"]);
    let addresses = machine.pointer("/items/0/status/addresses").unwrap().as_array().unwrap();
    let address =
        addresses.iter().find(|address| address["type"] == "InternalIP").unwrap()["address"].as_str().unwrap();
    let endpoint = format!("http://{address}:{}", server.port());
    let storage = HashMap::from([
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]);
    let run = |arguments: &[&str]| succeeded(place.command(arguments).envs(&storage).output().unwrap());
    run(&["init", "--repo", REPOSITORY, "--identity", "fabric.identity", "--writer", "writer"]);
    let writer = place.repo().with_file_name("writer");

    let keys = format!("--from-file=writer={}", writer.display());
    cluster.kubectl(&["-n", &own, "create", "secret", "generic", "fabkeep-keys", &keys], &[]);
    let values: Vec<String> = storage.iter().map(|(name, value)| format!("--from-literal={name}={value}")).collect();
    let mut secret = vec!["-n", &own, "create", "secret", "generic", "fabkeep-storage"];
    secret.extend(values.iter().map(String::as_str));
    cluster.kubectl(&secret, &[]);
    let env = "            - {name: HOME, value: /tmp}\n";
    let text = with(
        manifests().to_owned(),
        &[
            ("namespace: fabkeep}", format!("namespace: {own}}}")),
            ("namespace: org1}", format!("namespace: {namespace}}}")),
            (
                "kind: ClusterRole, name: fabkeep-backup}",
                "kind: ClusterRole, name: scheduled-fabkeep-backup}".to_owned(),
            ),
            ("--namespace, org1", format!("--namespace, {namespace}")),
            ("image: fabkeep:0.1.0", "image: k8s.local/fabkeep:0.1.0".to_owned()),
            (env, format!("{env}            - {{name: FABKEEP_HELPER_IMAGE, value: \"k8s.local/busybox:1\"}}\n")),
        ],
    );
    cluster.kubectl(&["apply", "-f", "-"], text.as_bytes());
    cluster.kubectl(&["-n", &own, "create", "job", "now", "--from=cronjob/fabkeep"], &[]);
    let wait = ["-n", &own, "wait", "--for=condition=complete", "job/now", "--timeout=120s"];
    let ended = cluster.try_kubectl(&wait, &[]);
    let log = cluster.try_kubectl(&["-n", &own, "logs", "job/now"], &[]);
    let log = format!("{}{}", String::from_utf8_lossy(&log.stdout), String::from_utf8_lossy(&log.stderr));
    assert!(ended.status.success(), "{log}");
    println!("{log}");

    // What it has made is read elsewhere, and the network comes back from it.
    cluster.remove_namespaces(&[own, namespace.clone()]);
    let kubeconfig = cluster.kubeconfig().display().to_string();
    run(&["restore", "--repo", REPOSITORY, "--identity", "fabric.identity", "--kubeconfig", &kubeconfig]);
    cluster.wait_ready(&namespace);
    drop(roles);
}
