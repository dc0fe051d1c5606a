//! A real cluster for tests: kubectl, and everything that a test makes named after itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Names the cluster's kubeconfig.
pub const VARIABLE: &str = "FABKEEP_TEST_KUBECONFIG";

/// The program that makes and looks at what the tests need.
pub fn kubectl() -> String {
    std::env::var("FABKEEP_TEST_KUBECTL").unwrap_or("kubectl".to_owned())
}

/// The cluster that tests may use.
pub struct Cluster {
    kubeconfig: PathBuf,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Cluster {
    /// The cluster, if one is named; else the test says that it tested nothing.
    pub fn get() -> Option<Cluster> {
        // One network at a time: the machine is small.
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        match std::env::var_os(VARIABLE) {
            Some(path) => {
                let turn = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                Some(Cluster { kubeconfig: PathBuf::from(path), _turn: turn })
            }
            None => {
                // Past the harness, which shows what a test prints only when it fails.
                let told =
                    format!("NOT TESTED: no cluster; {VARIABLE} names the kubeconfig of one that tests may use\n");
                let _ = std::io::stderr().write_all(told.as_bytes());
                None
            }
        }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(kubectl());
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    pub fn try_kubectl(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    pub fn kubectl(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.try_kubectl(arguments, input);
        assert!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn apply(&self, namespace: &str, manifests: &str) {
        if !manifests.trim().is_empty() {
            self.kubectl(&["-n", namespace, "apply", "-f", "-"], manifests.as_bytes());
        }
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.kubectl(&all, &[])).unwrap()
    }

    /// Runs a script in a pod.
    pub fn sh(&self, namespace: &str, pod: &str, script: &str) -> String {
        self.kubectl(&["-n", namespace, "exec", pod, "--", "sh", "-c", script], &[])
    }

    /// Removes namespaces and waits until they are gone.
    pub fn remove_namespaces(&self, names: &[String]) {
        let mut arguments = vec!["delete", "namespace", "--ignore-not-found", "--wait=false"];
        arguments.extend(names.iter().map(String::as_str));
        self.kubectl(&arguments, &[]);
        // Pods go at once: the tests do not watch nodes close their databases.
        for name in names {
            let _ = self.try_kubectl(&["-n", name, "delete", "pods", "--all", "--grace-period=0", "--force"], &[]);
        }
        let begun = Instant::now();
        for name in names {
            while self.try_kubectl(&["get", "namespace", name], &[]).status.success() {
                assert!(begun.elapsed() < Duration::from_secs(240), "namespace {name} does not go");
                std::thread::sleep(Duration::from_millis(300));
            }
        }
    }

    /// Waits until every pod of a namespace is ready.
    pub fn wait_ready(&self, namespace: &str) {
        let begun = Instant::now();
        loop {
            let pods = self.json(&["-n", namespace, "get", "pods"]);
            let pods = pods["items"].as_array().unwrap();
            let ready = |pod: &serde_json::Value| {
                pod.pointer("/status/conditions").and_then(|all| all.as_array()).is_some_and(|all| {
                    all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
                })
            };
            if !pods.is_empty() && pods.iter().all(ready) {
                return;
            }
            if begun.elapsed() > Duration::from_secs(240) {
                let described = self.kubectl(&["-n", namespace, "describe", "pods"], &[]);
                panic!("pods of {namespace} are not ready: {described}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}
