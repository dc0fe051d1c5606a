//! A real cluster for tests: kubectl, and everything that a test makes named after itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Writes a line past the harness, which shows what a test prints only when it fails.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Names the cluster's kubeconfig.
pub const VARIABLE: &str = "FABKEEP_TEST_KUBECONFIG";

/// The program that makes and looks at what the tests need.
pub fn kubectl() -> String {
    std::env::var("FABKEEP_TEST_KUBECTL").unwrap_or("kubectl".to_owned())
}

/// Tests that use the cluster at once: the machine and the cluster's one node are small.
const AT_ONCE: usize = 3;
/// How many tests may begin.
static FREE: (Mutex<usize>, Condvar) = (Mutex::new(AT_ONCE), Condvar::new());

/// The cluster that tests may use. One test holds one.
pub struct Cluster {
    kubeconfig: PathBuf,
    begun: Instant,
}

impl Cluster {
    /// The cluster, if one is named; else the test says that it tested nothing.
    pub fn get() -> Option<Cluster> {
        match std::env::var_os(VARIABLE) {
            Some(path) => {
                let free = FREE.0.lock().unwrap_or_else(PoisonError::into_inner);
                let mut free = FREE.1.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
                *free -= 1;
                Some(Cluster { kubeconfig: PathBuf::from(path), begun: Instant::now() })
            }
            None => {
                say(&format!("NOT TESTED: no cluster; {VARIABLE} names the kubeconfig of one that tests may use"));
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
        if self.kubectl(&arguments, &[]).is_empty() {
            return;
        }
        // Pods go at once: the tests do not watch nodes close their databases.
        for name in names {
            let _ = self.try_kubectl(&["-n", name, "delete", "pods", "--all", "--grace-period=0", "--force"], &[]);
        }
        for name in names {
            let gone = ["wait", "--for=delete", &format!("namespace/{name}"), "--timeout=240s"].map(str::to_owned);
            let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
            let output = self.try_kubectl(&gone, &[]);
            let problem = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || problem.contains("NotFound"), "namespace {name} does not go: {problem}");
        }
    }

    /// Waits until every workload of a namespace has the pods that it wants, and every pod is ready.
    pub fn wait_ready(&self, namespace: &str) {
        let begun = Instant::now();
        loop {
            let all = self.json(&["-n", namespace, "get", "deployments,statefulsets,pods"]);
            let all = all["items"].as_array().unwrap();
            if !all.is_empty() && all.iter().all(is_ready) {
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

/// Whether a pod is ready, or all pods that a workload wants.
fn is_ready(object: &serde_json::Value) -> bool {
    if object["kind"] == "Pod" {
        let conditions = object.pointer("/status/conditions").and_then(|all| all.as_array());
        return conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
    }
    let number = |path: &str| object.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
    number("/status/observedGeneration") == number("/metadata/generation")
        && number("/status/readyReplicas") == number("/spec/replicas")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let thread = std::thread::current();
        say(&format!("{}: {} s on the cluster", thread.name().unwrap_or("test"), self.begun.elapsed().as_secs()));
        *FREE.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        FREE.1.notify_one();
    }
}
