//! The interface for tests: the objects of the cluster, faults for requests, the files that commands see.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::call::{Answer, Call};
use crate::folders::{self, Container};
use crate::patch;
use crate::selector::Selector;
use crate::snapshots;
use crate::state::{Refusal, State, text};

type Chosen = Arc<dyn Fn(&Call) -> bool + Send + Sync>;
type Hook = Arc<dyn Fn(&Cluster, &Call) -> Answer + Send + Sync>;
/// Answers a GET at a port of a pod: code and body.
type HttpHook = Arc<dyn Fn(&Cluster, &Get<'_>) -> Option<(u16, String)> + Send + Sync>;

/// A GET that is forwarded to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Get<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The port.
    pub port: u16,
    /// As `/metrics`.
    pub path: &'a str,
}

/// What is in the cluster, and how it behaves. [`crate::FakeCluster`] serves one.
pub struct Cluster {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    hooks: Mutex<Vec<Hook>>,
    forbidden: Mutex<Vec<Chosen>>,
    clock_ahead: Mutex<i64>,
    calls: Mutex<Vec<Call>>,
    logs: Mutex<HashMap<(String, String), String>>,
    http: Mutex<Vec<HttpHook>>,
    without_shell: Mutex<Vec<String>>,
    only_v4: Mutex<bool>,
    processes: Mutex<Vec<Arc<Mutex<Child>>>>,
    folder: TempDir,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["bin", "volumes", "pods", "host"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let cluster = Cluster {
            state: Mutex::new(State::new(folder.path().to_owned())),
            changes: watch::channel(0).0,
            hooks: Mutex::default(),
            forbidden: Mutex::default(),
            clock_ahead: Mutex::new(0),
            calls: Mutex::default(),
            logs: Mutex::default(),
            http: Mutex::default(),
            without_shell: Mutex::default(),
            only_v4: Mutex::new(false),
            processes: Mutex::default(),
            folder,
        };
        cluster.apply(include_str!("start.yaml"));
        cluster
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    // What is in it.

    /// Creates the objects of a YAML or JSON text of one or more documents; those that are there already are replaced. Objects without
    /// a namespace go into `default`.
    pub fn apply(&self, manifests: &str) {
        use serde_norway::Deserializer;
        for document in Deserializer::from_str(manifests) {
            let value: Value = serde::Deserialize::deserialize(document).expect("a manifest is YAML");
            match value.get("items").and_then(Value::as_array) {
                Some(items) => items.iter().for_each(|item| self.put(item.clone())),
                None if value.is_null() => {}
                None => self.put(value),
            }
        }
    }

    /// Creates an object, or replaces the one of its name.
    pub fn put(&self, object: Value) {
        let kind = text(&object, "/kind").to_owned();
        let (namespace, name) =
            (text(&object, "/metadata/namespace").to_owned(), text(&object, "/metadata/name").to_owned());
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        let group = text(&object, "/apiVersion").split_once('/').map_or("", |(group, _)| group).to_owned();
        {
            let mut state = self.state();
            let known = state
                .kind_named(&kind, Some(&group))
                .cloned()
                .unwrap_or_else(|| panic!("the cluster serves no {kind} of group {group:?}"));
            let key = state.key(&format!("{kind}.{group}"), &namespace, &name).expect("the kind is known");
            let result = if state.objects.contains_key(&key) {
                state.change(&key, |found| {
                    *found = object;
                    Ok(())
                })
            } else {
                state.create(&known.group, &known.plural, &namespace, object)
            };
            if let Err(Refusal(_, _, message)) = result {
                panic!("{kind} {namespace}/{name}: {message}");
            }
        }
        self.tell_watchers();
    }

    /// Returns an object as it is now. Of two kinds of one name the group chooses: `Event.events.k8s.io`.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state().find(kind, namespace, name).cloned()
    }

    /// Returns all objects of a kind in a namespace; in all namespaces when it is empty.
    pub fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let state = self.state();
        let Some(key) = state.key(kind, namespace, "") else { return Vec::new() };
        state.list(&key.group, &key.plural, namespace, &Selector::default()).into_iter().cloned().collect()
    }

    /// Returns the names of all objects of a kind in a namespace.
    pub fn names(&self, kind: &str, namespace: &str) -> Vec<String> {
        self.list(kind, namespace).iter().map(|object| text(object, "/metadata/name").to_owned()).collect()
    }

    /// Changes an object as `kubectl patch --type merge` does.
    pub fn patch(&self, kind: &str, namespace: &str, name: &str, change: &Value) {
        {
            let mut state = self.state();
            let key = state.key(kind, namespace, name).expect("the cluster serves the kind");
            let result = state.change(&key, |object| {
                patch::merge(object, change);
                Ok(())
            });
            result.unwrap_or_else(|Refusal(_, _, message)| panic!("patching {kind} {namespace}/{name}: {message}"));
        }
        self.tell_watchers();
    }

    /// Scales a workload, as another writer would.
    pub fn scale(&self, kind: &str, namespace: &str, name: &str, replicas: u64) {
        self.patch(kind, namespace, name, &serde_json::json!({"spec": {"replicas": replicas}}));
    }

    /// Deletes an object, with what belongs to it; whether it was there.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let gone = {
            let mut state = self.state();
            let key = state.key(kind, namespace, name).expect("the cluster serves the kind");
            state.delete(&key).is_ok()
        };
        self.tell_watchers();
        gone
    }

    /// Serves a kind that no CustomResourceDefinition declares: `group/version`, kind and plural.
    pub fn serve_kind(&self, api_version: &str, kind: &str, plural: &str, namespaced: bool) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let scope = if namespaced { "Namespaced" } else { "Cluster" };
        let definition = serde_json::json!({"spec": {"group": group, "scope": scope, "names": {"kind": kind, "plural": plural},
            "versions": [{"name": version, "served": true}]}});
        self.state().kinds.extend(crate::kinds::of_definition(&definition));
    }

    /// Serves the API of snapshots, with a default class of the only driver, `fake`; with `groups`, that of groups of them too. A claim
    /// whose annotation `k8s.local/fail-snapshot` has a message cannot be snapshotted, and the message is the driver's error.
    pub fn serve_snapshots(&self, groups: bool) {
        let v1 = |group: &str| format!("{group}/v1");
        let mut kinds = vec![(snapshots::GROUP, "VolumeSnapshot", "volumesnapshots")];
        if groups {
            kinds.push((snapshots::GROUPS, "VolumeGroupSnapshot", "volumegroupsnapshots"));
        }
        for (group, kind, plural) in kinds {
            self.serve_kind(&v1(group), kind, plural, true);
            for (suffix, plurals) in [("Class", "classes"), ("Content", "contents")] {
                let plural = format!("{}{plurals}", kind.to_lowercase());
                self.serve_kind(&v1(group), &format!("{kind}{suffix}"), &plural, false);
            }
            let class = serde_json::json!({"apiVersion": v1(group), "kind": format!("{kind}Class"),
                "metadata": {"name": "fake"}, "driver": "fake", "deletionPolicy": "Delete"});
            self.put(class);
        }
    }

    /// Returns the handles of the snapshots that the driver keeps.
    pub fn snapshot_handles(&self) -> Vec<String> {
        snapshots::handles(&self.state().root)
    }

    /// Returns the folder of the snapshot that the driver keeps under this handle.
    pub fn snapshot_folder(&self, handle: &str) -> PathBuf {
        snapshots::folder(&self.state().root, handle)
    }

    /// Stops serving a kind, as a cluster without that API.
    pub fn forget_kind(&self, plural: &str) {
        self.state().kinds.retain(|kind| kind.plural != plural);
    }

    // What commands find.

    /// Returns the folder of a claim, which is bound once it is made.
    pub fn volume(&self, namespace: &str, claim: &str) -> PathBuf {
        let state = self.state();
        let found = state.find("PersistentVolumeClaim", namespace, claim);
        let name = found.map(|claim| text(claim, "/spec/volumeName")).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| panic!("claim {namespace}/{claim} is not bound"));
        folders::volume(&state.root, name)
    }

    /// Returns the name of the first pod whose name begins so.
    pub fn pod(&self, namespace: &str, prefix: &str) -> Option<String> {
        self.names("Pod", namespace).into_iter().find(|name| name.starts_with(prefix))
    }

    /// Returns where an absolute path of a container lies on this machine: on a volume, or beside them, where the image's files would be.
    pub fn path(&self, namespace: &str, pod: &str, container: &str, path: &str) -> PathBuf {
        let state = self.state();
        let found = state.find("Pod", namespace, pod).unwrap_or_else(|| panic!("there is no pod {namespace}/{pod}"));
        let containers = found.pointer("/spec/containers").and_then(Value::as_array);
        let spec = containers.into_iter().flatten().find(|known| text(known, "/name") == container);
        Container::of(&state, found, spec.unwrap_or_else(|| panic!("pod {pod} has no container {container}")))
            .path(path)
    }

    /// Puts a tool before those of this machine, for commands in all containers: a script for `sh`. In it `$REAL` is the tool of this
    /// machine, `$FAKE_POD` and `$FAKE_NAMESPACE` say where it runs, `$STATE` is a folder of the test.
    pub fn tool(&self, name: &str, script: &str) {
        let path = self.folder.path().join("bin").join(name);
        let search = std::env::var("PATH").unwrap_or_default();
        let real = search.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
        let real = real.unwrap_or_default();
        let text = format!("#!/bin/sh\nREAL={}\nSTATE={}\n{script}\n", real.display(), self.folder.path().display());
        // Written beside and renamed: a file that is open for writing cannot be run.
        let beside = path.with_extension("new");
        fs::write(&beside, text).expect("writing a tool");
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("making a tool executable");
        fs::rename(beside, path).expect("placing a tool");
    }

    /// Removes a tool that [`Self::tool`] has put there.
    pub fn remove_tool(&self, name: &str) {
        let _ = fs::remove_file(self.folder.path().join("bin").join(name));
    }

    /// Containers whose image's name holds this text have no shell.
    pub fn image_without_shell(&self, part: &str) {
        lock(&self.without_shell).push(part.to_owned());
    }

    /// Returns where the cluster keeps its folders; tests may keep files there, too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `kubectl logs` shows of a pod.
    pub fn set_log(&self, namespace: &str, pod: &str, log: &str) {
        lock(&self.logs).insert((namespace.to_owned(), pod.to_owned()), log.to_owned());
    }

    /// Answers GETs that are forwarded to pods with a code and a body. Those added later are asked first; without an answer the
    /// connection is refused.
    pub fn answer_http(&self, answer: impl Fn(&Cluster, &Get<'_>) -> Option<(u16, String)> + Send + Sync + 'static) {
        lock(&self.http).push(Arc::new(answer));
    }

    // How it behaves.

    /// Shows every request to `hook` before it is carried out, on a thread that may wait; hooks added later are asked first, and the
    /// first that does not say [`Answer::Go`] decides. A hook may change the cluster, as another writer does, and kill the program
    /// under test.
    pub fn before(&self, hook: impl Fn(&Cluster, &Call) -> Answer + Send + Sync + 'static) {
        lock(&self.hooks).push(Arc::new(hook));
    }

    /// Gives an answer to the first `times` requests that `chosen` chooses.
    pub fn fault(&self, times: usize, answer: Answer, chosen: impl Fn(&Call) -> bool + Send + Sync + 'static) {
        let left = Mutex::new(times);
        self.before(move |_, call| {
            let mut left = lock(&left);
            if *left == 0 || !chosen(call) {
                return Answer::Go;
            }
            *left -= 1;
            answer.clone()
        });
    }

    /// Takes the right to do something away: 403, also as the answer to whether it is allowed (SelfSubjectAccessReview).
    pub fn forbid(&self, chosen: impl Fn(&Call) -> bool + Send + Sync + 'static) {
        let chosen = Arc::new(chosen);
        lock(&self.forbidden).push(chosen.clone());
        self.before(move |_, call| if chosen(call) { Answer::forbidden() } else { Answer::Go });
    }

    /// Forgets all hooks, faults and rights that were taken away.
    pub fn forget_hooks(&self) {
        lock(&self.hooks).clear();
        lock(&self.forbidden).clear();
    }

    /// Sets the clock of the API server ahead of this machine's, in seconds: the `Date` of its answers.
    pub fn set_clock_ahead(&self, seconds: i64) {
        *lock(&self.clock_ahead) = seconds;
    }

    /// Gives pods another status than that of one that runs: called for a pod that does not run yet.
    pub fn pod_status(&self, status: impl Fn(&Value) -> Option<Value> + Send + 'static) {
        self.state().pod_status = Some(Box::new(status));
    }

    /// Speaks only the older protocol of commands, in which the end of standard input cannot be signalled.
    pub fn speak_only_v4(&self) {
        *lock(&self.only_v4) = true;
    }

    /// Returns the requests so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// Forgets the requests so far; counting goes on.
    pub fn forget_calls(&self) {
        lock(&self.calls).clear();
    }

    // What the server asks.

    /// Counts a request, shows it to the hooks, and says what they want.
    pub(crate) fn show(&self, mut call: Call) -> (u64, Answer) {
        let number = {
            let mut calls = lock(&self.calls);
            let number = calls.last().map_or(1, |last| last.number + 1);
            call.number = number;
            calls.push(call.clone());
            number
        };
        let hooks = lock(&self.hooks).clone();
        let answer = hooks.iter().rev().map(|hook| hook(self, &call)).find(|answer| *answer != Answer::Go);
        (number, answer.unwrap_or_default())
    }

    /// Returns whether a right that is asked about is there.
    pub(crate) fn allows(&self, call: &Call) -> bool {
        let forbidden = lock(&self.forbidden).clone();
        !forbidden.iter().any(|chosen| chosen(call))
    }

    /// Returns the server's time, where it is not this machine's.
    pub(crate) fn date(&self) -> Option<String> {
        let ahead = *lock(&self.clock_ahead);
        (ahead != 0).then(|| {
            let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
            now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
        })
    }

    /// Ends a process with the cluster, if it runs still.
    pub(crate) fn keep_process(&self, process: Arc<Mutex<Child>>) {
        let mut all = lock(&self.processes);
        all.retain(|known| !matches!(lock(known).try_wait(), Ok(Some(_))));
        all.push(process);
    }

    /// Ends the processes of commands that run still.
    pub(crate) fn end_processes(&self) {
        for process in lock(&self.processes).drain(..) {
            let mut process = lock(&process);
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn tell_watchers(&self) {
        let version = self.state().version();
        self.changes.send_replace(version);
    }

    pub(crate) fn log_of(&self, namespace: &str, pod: &str) -> String {
        lock(&self.logs).get(&(namespace.to_owned(), pod.to_owned())).cloned().unwrap_or_default()
    }

    pub(crate) fn http_answer(&self, get: &Get<'_>) -> Option<(u16, String)> {
        let hooks = lock(&self.http).clone();
        hooks.iter().rev().find_map(|hook| hook(self, get))
    }

    pub(crate) fn has_no_shell(&self, image: &str) -> bool {
        lock(&self.without_shell).iter().any(|part| image.contains(part))
    }

    pub(crate) fn search_path(&self) -> String {
        format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap_or_default())
    }

    pub(crate) fn only_v4(&self) -> bool {
        *lock(&self.only_v4)
    }
}
