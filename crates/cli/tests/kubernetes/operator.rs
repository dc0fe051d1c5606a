//! An operator played by the test, as Fabric's operators behave: while its Deployment wants a pod, it scales the nodes of its custom
//! resources back up (K1), and mints a new key for a node whose Secret it does not find (K2).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::network::Network;

const NAMESPACE: &str = "fabkeep-test-operator";
const DEPLOYMENT: &str = "---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hlf-operator-controller-manager}
spec:
  selector: {matchLabels: {control-plane: controller-manager}}
  template:
    metadata: {labels: {control-plane: controller-manager}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: manager, image: 'k8s.local/hlf-operator:1'}
";

/// The Deployment that says whether the operator runs; removed when dropped.
pub struct Operator<'c> {
    cluster: &'c Cluster,
    stop: AtomicBool,
    /// How often it did something.
    pub acts: AtomicUsize,
}

impl<'c> Operator<'c> {
    pub fn install(cluster: &'c Cluster) -> Self {
        cluster.remove_namespaces(&[NAMESPACE.to_owned()]);
        cluster.kubectl(&["create", "namespace", NAMESPACE], &[]);
        cluster.apply(NAMESPACE, DEPLOYMENT);
        Operator { cluster, stop: AtomicBool::new(false), acts: AtomicUsize::new(0) }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Its loop.
    pub fn reconcile(&self, network: &Network<'_>) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.is_running() {
                network.names().iter().for_each(|namespace| self.look_after(namespace));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    pub fn is_running(&self) -> bool {
        let name = "hlf-operator-controller-manager";
        let asked = self
            .cluster
            .try_kubectl(&["-n", NAMESPACE, "get", "deployment", name, "-o", "jsonpath={.spec.replicas}"], &[]);
        String::from_utf8_lossy(&asked.stdout).trim().parse::<u32>().is_ok_and(|replicas| replicas > 0)
    }

    fn look_after(&self, namespace: &str) {
        let names = |kinds: &str, path: &str| -> Vec<String> {
            let asked = self.cluster.try_kubectl(&["-n", namespace, "get", kinds, "-o", path], &[]);
            String::from_utf8_lossy(&asked.stdout).split_whitespace().map(str::to_owned).collect()
        };
        let custom = names("fabricpeers,fabricorderernodes", "jsonpath={.items[*].metadata.name}");
        if custom.is_empty() {
            return;
        }
        let stopped =
            names("deployments", "jsonpath={range .items[?(@.spec.replicas==0)]}{.metadata.name}{'\\n'}{end}");
        let secrets = names("secrets", "jsonpath={.items[*].metadata.name}");
        for name in custom {
            if stopped.contains(&name) {
                self.act(&["-n", namespace, "scale", "deployment", &name, "--replicas=1"]);
            }
            let secret = format!("{name}--msp-cryptomaterial");
            if !secrets.contains(&secret) {
                self.act(&["-n", namespace, "create", "secret", "generic", &secret, "--from-literal=key.pem=minted"]);
            }
        }
    }

    fn act(&self, arguments: &[&str]) {
        // Between looking and acting it may have been put to sleep: an operator whose pod is gone does nothing more.
        if self.is_running() && self.cluster.try_kubectl(arguments, &[]).status.success() {
            println!("operator: {}", arguments.join(" "));
            self.acts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Operator<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.try_kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"], &[]);
    }
}
