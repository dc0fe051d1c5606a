//! A Kubernetes cluster in the test's own process: the API over plain HTTP on loopback, objects in memory, volumes as folders, commands
//! in containers as local shells. It needs no root, no container runtime and no network, starts in milliseconds, and fails on demand.
//!
//! # How to use it
//!
//! ```no_run
//! use fabkeep_fake_cluster::{Answer, FakeCluster, fabric};
//!
//! let cluster = FakeCluster::start();
//! // A network of real nodes' data: two peers and an orderer, each in a Deployment with a claim, its keys in Secrets.
//! let network = std::path::Path::new("/tmp/network");
//! fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, network).unwrap();
//! fabric::deploy(&cluster, network, &fabric::THREE_NODES);
//! // The program under test gets the kubeconfig: fabkeep backup --kubeconfig FILE --namespace org1 …
//! let kubeconfig = cluster.kubeconfig();
//! // Operations endpoints answer with the heights of the block files in the claims.
//! fabric::serve_operations(&cluster, &fabric::THREE_NODES);
//! // Objects, as kubectl sees them.
//! cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: org1}, data: {k: v}}");
//! cluster.scale("Deployment", "org1", "peer0", 0);
//! assert!(cluster.pod("org1", "peer0-").is_none());
//! // A claim's files are a folder of this machine.
//! std::fs::write(cluster.volume("org1", "peer0-data").join("file"), "bytes").unwrap();
//! // Faults: the first two creations of Secrets are answered with 429, every list of pods is forbidden.
//! cluster.fault(2, Answer::too_many(), |call| call.is("create", "secrets"));
//! cluster.forbid(|call| call.is("list", "pods"));
//! // The third command in a container loses its stream after 1,000 bytes of output.
//! let execs = std::sync::atomic::AtomicUsize::new(0);
//! cluster.before(move |_, call| {
//!     let third = call.is_exec() && execs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2;
//!     if third { Answer::CutOutput(1_000) } else { Answer::Go }
//! });
//! // Somebody else creates a Secret between a deletion and a creation, scales a workload up during a fill.
//! cluster.before(|cluster, call| {
//!     if call.is("create", "secrets") && cluster.get("Secret", &call.namespace, &call.name).is_none() {
//!         let name = &call.name;
//!         cluster.apply(&format!("{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: org1}}, stringData: {{a: minted}}}}"));
//!     }
//!     Answer::Go
//! });
//! // A tool that fails: `find` reports an error for one directory.
//! cluster.tool("find", r#"$REAL "$@"; echo "find: './x': Input/output error" >&2; exit 1"#);
//! // Kill at request N: the hook runs before the request is carried out, and may wait.
//! cluster.before(|_, call| {
//!     if call.number == 57 { /* kill the child process here */ }
//!     Answer::Go
//! });
//! ```
//!
//! # What it does
//!
//! * discovery (`/version`, `/api`, `/apis`, resource lists; a CustomResourceDefinition adds its kind), get, list with selectors and
//!   pages, watch, create with `generateName`, update, merge, JSON and strategic patches, server-side apply as a patch, deletion with
//!   finalizers, `resourceVersion` conflicts, 409 for names that are taken; subresources `status`, `scale`, `log`, `exec`,
//!   `portforward`, `eviction`.
//! * controllers, at once: ReplicaSets and pods of Deployments, pods and claims of StatefulSets, a pod for each DaemonSet; claims bound
//!   to new volumes of their class or to free static ones (class `""`); deletion of objects whose owner is gone; addresses of Services;
//!   a namespace's `default` ServiceAccount and `kube-root-ca.crt`. A pod waits for its claims, Secrets and ConfigMaps.
//! * snapshots and groups of them, where [`Cluster::serve_snapshots`] asks for it: copies of volumes, and claims filled from them.
//! * commands: `exec` runs its words as a process of this machine. Absolute paths in the words after a script, and quoted absolute
//!   paths in lines that a script reads and executes, are mapped to the container's folders: that of a volume, or an empty folder that
//!   represents the image ([`Cluster::path`] finds it).
//!
//! # What it does not do
//!
//! Scheduling, probes, rolling updates, admission, quotas and real isolation: a command sees this machine's files. A volume that is mounted
//! inside another one is not visible through the outer one. Jobs and CronJobs create no pods.
#![deny(missing_docs)]
// A test's cluster that cannot be set up ends the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod call;
mod cluster;
mod controllers;
mod exec;
pub mod fabric;
mod folders;
mod forward;
mod kinds;
mod patch;
mod selector;
mod server;
mod snapshots;
mod state;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

pub use call::{Answer, Call};
pub use cluster::{Cluster, Get};

/// A cluster that is served until this is dropped.
pub struct FakeCluster {
    cluster: Arc<Cluster>,
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl FakeCluster {
    /// Starts an empty cluster: one machine, the storage class `standard`, the namespace `default`.
    pub fn start() -> FakeCluster {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let cluster = Arc::new(Cluster::new());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port on loopback");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let config = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: fake, cluster: {{server: \"{address}\"}}}}]\nusers: [{{name: test, \
             user: {{token: t}}}}]\ncontexts: [{{name: fake, context: {{cluster: fake, user: test}}}}]\ncurrent-context: fake\n"
        );
        std::fs::write(cluster.folder().join("kubeconfig"), config).expect("writing the kubeconfig");
        runtime.spawn(server::serve(Arc::clone(&cluster), listener));
        FakeCluster { cluster, address, runtime: Some(runtime) }
    }

    /// Returns a kubeconfig file that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster.folder().join("kubeconfig")
    }

    /// Returns its address, as `http://127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Deref for FakeCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        self.cluster.end_processes();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
