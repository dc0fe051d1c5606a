//! What goes wrong in the middle of a backup and of a restore: it ends right or fails clearly, and a re-run completes.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::network::Network;
use crate::proxy::Proxy;
use crate::run::{Place, succeeded};
use crate::styles;
use crate::whole::{assert_same, needed};

const HELPERS: &str = "app.kubernetes.io/managed-by=fabkeep,app.kubernetes.io/component=helper";

/// Right in the end, or failed with words for a person: never a panic, never without the next step.
fn right_or_clear(output: Output) -> bool {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    match output.status.code() {
        Some(0 | 3) => true,
        Some(1 | 4 | 6) => {
            println!("failed clearly: {stderr}");
            assert!(stderr.contains("error") && stderr.contains("next: "), "{stderr}");
            false
        }
        other => panic!("{other:?}: {stderr}"),
    }
}

fn backup(place: &Place, proxy: &Proxy) -> Output {
    let repo = place.repo();
    place.with_kubeconfig(&["backup", "--repo", repo.to_str().unwrap()], &proxy.kubeconfig()).output().unwrap()
}

fn restore(place: &Place, proxy: &Proxy) -> std::process::Command {
    let repo = place.repo();
    let mut command = place.command(&["restore", "--repo", repo.to_str().unwrap()]);
    command.arg("--kubeconfig").arg(proxy.kubeconfig()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn helpers(network: &Network<'_>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for namespace in network.names() {
        let pods = network.cluster.json(&["-n", &namespace, "get", "pods", "-l", HELPERS]);
        let names = pods["items"].as_array().unwrap().iter();
        out.extend(names.map(|pod| (namespace.clone(), pod["metadata"]["name"].as_str().unwrap().to_owned())));
    }
    out
}

/// Runs a command and kills it once so many bytes have passed. Whether it was killed.
fn killed_after(mut command: std::process::Command, proxy: &Proxy, bytes: u64) -> bool {
    let child = Arc::new(std::sync::Mutex::new(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()));
    let killed = Arc::new(AtomicBool::new(false));
    let (victim, flag) = (Arc::clone(&child), Arc::clone(&killed));
    proxy.after(bytes, move || {
        victim.lock().unwrap().kill().unwrap();
        flag.store(true, Ordering::Relaxed);
    });
    while child.lock().unwrap().try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    proxy.forget();
    killed.load(Ordering::Relaxed)
}

/// The cluster's only machine takes no new pods, until this is dropped.
struct Cordon<'c> {
    cluster: &'c Cluster,
    node: String,
}

impl<'c> Cordon<'c> {
    fn new(cluster: &'c Cluster) -> Self {
        let nodes = cluster.json(&["get", "nodes"]);
        let node = nodes["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
        cluster.kubectl(&["cordon", &node], &[]);
        Cordon { cluster, node }
    }
}

impl Drop for Cordon<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.try_kubectl(&["uncordon", &self.node], &[]);
    }
}

#[test]
fn faults_in_the_middle() {
    let Some(cluster) = Cluster::get() else { return };
    let network = Network::new(&cluster, &styles::RAW, "faults");
    network.deploy();
    let heights = network.heights();
    let before = needed(&styles::RAW, network.fingerprint());
    let place = Place::new(&network);
    let proxy = Proxy::new(&cluster);

    println!("-- backup killed: what it left is found and removed, and the next one is whole");
    let repo = place.repo();
    let command = place.with_kubeconfig(&["backup", "--repo", repo.to_str().unwrap()], &proxy.kubeconfig());
    assert!(killed_after(command, &proxy, 1_500_000), "the backup ended before it could be killed");
    assert!(!helpers(&network).is_empty(), "nothing was left: there was nothing to clean");
    let left = succeeded(place.on_cluster(&["clean"]).output().unwrap());
    assert!(left.contains("fabkeep-"), "{left}");
    assert!(helpers(&network).is_empty());

    println!("-- backup while the API server goes away three times");
    for bytes in [300_000, 2_000_000, 5_000_000] {
        proxy.away_after(bytes, Duration::from_secs(4));
    }
    assert!(right_or_clear(backup(&place, &proxy)), "a backup outlives an API server that comes back");
    assert_eq!(proxy.pending(), 0, "not every fault happened");
    succeeded(place.command(&["verify", "--repo", repo.to_str().unwrap()]).output().unwrap());

    println!("-- backup while a node's pod and a helper pod are removed");
    let second = Place::new(&network);
    let victims: Vec<String> = network.names();
    let kubeconfig = cluster.kubeconfig().to_owned();
    proxy.after(1_500_000, move || {
        for namespace in victims {
            let mut command = std::process::Command::new(crate::cluster::kubectl());
            command.arg("--kubeconfig").arg(&kubeconfig).args(["-n", &namespace, "delete", "pods", "--all"]);
            let _ = command.args(["--grace-period=0", "--force", "--wait=false"]).output();
        }
    });
    let first_try = right_or_clear(backup(&second, &proxy));
    assert_eq!(proxy.pending(), 0, "the pods were not removed");
    network.names().iter().for_each(|namespace| cluster.wait_ready(namespace));
    if !first_try {
        assert!(right_or_clear(backup(&second, &proxy)), "the second try completes");
    }
    assert!(helpers(&network).is_empty(), "{:?}", helpers(&network));

    println!("-- restore killed five times, with the API server away, helper pods removed and pods that start slowly");
    cluster.remove_namespaces(&network.names());
    for bytes in [30_000, 400_000, 1_000_000, 2_500_000, 5_000_000] {
        assert!(killed_after(restore(&place, &proxy), &proxy, bytes), "the restore ended before {bytes} bytes");
    }
    proxy.away_after(400_000, Duration::from_secs(5));
    proxy.away_after(6_000_000, Duration::from_secs(5));
    let namespaces = network.names();
    let kubeconfig = cluster.kubeconfig().to_owned();
    proxy.after(3_000_000, move || {
        for namespace in &namespaces {
            let mut command = std::process::Command::new(crate::cluster::kubectl());
            command.arg("--kubeconfig").arg(&kubeconfig).args(["-n", namespace, "delete", "pods", "-l", HELPERS]);
            let _ = command.args(["--grace-period=0", "--force", "--wait=false"]).output();
        }
    });
    let cordon = Cordon::new(&cluster);
    let child = restore(&place, &proxy).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(8));
    drop(cordon);
    let done = right_or_clear(child.wait_with_output().unwrap());
    proxy.forget();
    if !done {
        assert!(right_or_clear(restore(&place, &proxy).output().unwrap()), "the second try completes");
    }
    assert_eq!(heights, network.heights());
    assert_same(&before, &needed(&styles::RAW, network.fingerprint()));
    succeeded(place.on_cluster(&["clean"]).output().unwrap());
    assert!(helpers(&network).is_empty());
}
