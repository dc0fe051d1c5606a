//! Objects into a cluster, workloads to sleep and awake: the steps of a restore around the data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeId, Rule};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::Kubernetes;
use super::connection::{failed, is_missing};
use super::discover::workloads::{LivePod, WorkloadObject, live_pod};
use super::objects::{REPLICAS, clean, resource};
use super::relocation;
use crate::asking::answers;
use crate::{Declaration, PlatformError};

/// How long pods may take to go.
const GOING: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);

/// How an object in the cluster stands to a declared one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectState {
    /// There is none.
    Missing,
    /// It has everything that is declared.
    Equal,
    /// It is another: the first field that differs. Values are not told.
    Differs(String),
}

/// How a workload stands in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkloadState {
    /// There is none.
    Missing,
    /// It wants pods.
    Awake,
    /// fabkeep put it to sleep, and has not woken it.
    Asleep,
    /// It wants no pods, by somebody else's will.
    AtRest,
}

/// Operators by a part of their image's name, and the API group of the custom resources that they manage.
const OPERATORS: [(&str, &str); 3] =
    [("hlf-operator", "hlf.kungfusoftware.es"), ("fabric-operator", "ibp.com"), ("ibp-operator", "ibp.com")];

/// Whether an operator that is known manages custom resources of an API version.
pub fn is_managed(api_version: &str) -> bool {
    OPERATORS.iter().any(|(_, group)| api_version.split('/').next() == Some(group))
}

/// Where a claim says which recovery point its data is from.
const RESTORED: &str = "fabkeep.io/restored-from";

/// Workloads that start together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What they are.
    pub name: &'static str,
    /// The workloads: kind, namespace, name.
    pub workloads: Vec<(String, String, String)>,
    /// The nodes that they run.
    pub nodes: Vec<NodeId>,
}

/// A workload that was put to sleep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asleep {
    /// Kind, namespace and name.
    pub workload: String,
    /// How many replicas it had.
    pub replicas: u32,
}

/// What came of a stage.
#[derive(Debug, Clone, Default)]
pub struct Awake {
    /// Nodes that are ready, with the heights that they tell: channel and height.
    pub ready: Vec<(NodeId, BTreeMap<String, u64>)>,
    /// What did not come up in time, and why.
    pub findings: Vec<Finding>,
}

fn api(client: kube::Client, declaration: &Declaration) -> Api<DynamicObject> {
    let resource = resource(&declaration.api_version, &declaration.kind, None);
    if declaration.namespace.is_empty() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, &declaration.namespace, &resource)
    }
}

/// The first field of `declared` that `found` does not have so.
fn difference(declared: &Value, found: Option<&Value>, at: &str) -> Option<String> {
    match (declared, found) {
        (Value::Object(declared), Some(Value::Object(found))) => {
            declared.iter().find_map(|(key, value)| difference(value, found.get(key), &format!("{at}/{key}")))
        }
        (Value::Array(declared), Some(Value::Array(found))) if declared.len() == found.len() => {
            declared.iter().zip(found).enumerate().find_map(|(i, (a, b))| difference(a, Some(b), &format!("{at}/{i}")))
        }
        (declared, Some(found)) if declared == found => None,
        // What the API server leaves out when it is empty.
        (Value::Null, None) => None,
        (Value::Object(map), None) if map.is_empty() => None,
        _ => Some(at.to_owned()),
    }
}

fn compare(declaration: &Declaration, found: &Value) -> ObjectState {
    let found = clean(&declaration.kind, found);
    let mut differs = difference(&declaration.object, Some(&found), "");
    if differs.is_none() && matches!(declaration.kind.as_str(), "Secret" | "ConfigMap") {
        // A key more is another content, too.
        differs = ["data", "binaryData"]
            .iter()
            .find(|field| {
                let empty = |value: Option<&Value>| {
                    value.is_none_or(|value| value.as_object().is_some_and(serde_json::Map::is_empty))
                };
                let (a, b) = (declaration.object.get(field), found.get(field));
                a != b && !(empty(a) && empty(b))
            })
            .map(|field| format!("/{field}"));
    }
    differs.map_or(ObjectState::Equal, ObjectState::Differs)
}

impl super::Connection {
    /// How declared objects stand in the cluster.
    pub(crate) fn compare(&self, declarations: &[&Declaration]) -> Result<Vec<ObjectState>, PlatformError> {
        let mut out = Vec::new();
        for batch in declarations.chunks(16) {
            let answers = self.wait(async {
                let gets = batch.iter().map(|declaration| {
                    let api = api(self.client(), declaration);
                    async move { api.get_opt(&declaration.name).await }
                });
                futures_util::future::join_all(gets).await
            });
            for (declaration, answer) in batch.iter().zip(answers) {
                let answer = match answer {
                    Err(error) if super::connection::is_passing(&error) => self.try_run(|client| {
                        let api = api(client, declaration);
                        async move { api.get_opt(&declaration.name).await }
                    }),
                    other => other,
                };
                out.push(match answer {
                    Ok(None) => ObjectState::Missing,
                    Ok(Some(found)) => compare(declaration, &serde_json::to_value(found).unwrap_or_default()),
                    Err(error) if is_missing(&error) => ObjectState::Missing,
                    // Without the right to read it it may still be there: creating tells.
                    Err(error) if super::connection::is_forbidden(&error) && declaration.kind == "Namespace" => {
                        ObjectState::Equal
                    }
                    Err(error) => return Err(failed(&format!("looking at {}", declaration.label()), &error)),
                });
            }
        }
        Ok(out)
    }
}

/// A cluster that a restore writes objects into, before there is a network to look at.
pub struct Target {
    connection: Arc<super::Connection>,
    /// Addresses of Services, by namespace and name.
    addresses: Mutex<BTreeMap<(String, String), String>>,
}

impl Target {
    /// Connects.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn open(address: &super::ClusterAddress) -> Result<Target, PlatformError> {
        Ok(Target::over(Arc::new(super::Connection::open(address)?)))
    }

    /// Over a connection that there is.
    pub(super) fn over(connection: Arc<super::Connection>) -> Target {
        Target { connection, addresses: Mutex::default() }
    }

    /// The cluster's address, for people.
    pub fn cluster(&self) -> &str {
        &self.connection.name
    }

    /// How declared objects stand in the cluster.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn compare(&self, declarations: &[&Declaration]) -> Result<Vec<ObjectState>, PlatformError> {
        self.connection.compare(declarations)
    }

    /// Creates an object; workloads asleep. That it is there already is fine.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn create(&self, declaration: &Declaration) -> Result<(), PlatformError> {
        let mut object = declaration.object.clone();
        if matches!(declaration.kind.as_str(), "Deployment" | "StatefulSet" | "ReplicaSet") {
            let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            object["spec"]["replicas"] = 0.into();
            if !object["metadata"]["annotations"].is_object() {
                object["metadata"]["annotations"] = json!({});
            }
            object["metadata"]["annotations"][REPLICAS] = replicas.to_string().into();
        }
        let mut aliases = Vec::new();
        for old in relocation::told(&object) {
            aliases.push((self.address(&old.namespace, &old.service)?, old.names));
        }
        if !aliases.is_empty() {
            relocation::add_aliases(&declaration.kind, &mut object, &aliases);
        }
        let what = format!("creating {}", declaration.label());
        let object: DynamicObject = serde_json::from_value(object).map_err(|error| PlatformError::Cluster {
            what: what.clone(),
            problem: error.to_string(),
            next: "report this to fabkeep's makers".to_owned(),
        })?;
        let result = self.connection.try_run(|client| {
            let (api, object) = (api(client, declaration), object.clone());
            async move { api.create(&PostParams::default(), &object).await.map(|_| ()) }
        });
        match result {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(failed(&what, &error)),
            Ok(()) => Ok(()),
        }
    }

    /// The address of a Service.
    fn address(&self, namespace: &str, name: &str) -> Result<String, PlatformError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(known) = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let service = Declaration { api_version: "v1".to_owned(), ..handle("Service", namespace, name) };
        let what = format!("asking for the address of {}", service.label());
        let found = self.get(&service, &what)?;
        let address = found.as_ref().and_then(|found| found.data.pointer("/spec/clusterIP")).and_then(Value::as_str);
        let Some(address) = address.filter(|address| !address.is_empty() && *address != "None") else {
            return Err(PlatformError::Cluster {
                what,
                problem: "it is not there, or has no address: names of the old place would lead nowhere".to_owned(),
                next: "look at the Service; then run the same command again".to_owned(),
            });
        };
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(key, address.to_owned());
        Ok(address.to_owned())
    }

    fn get(&self, declaration: &Declaration, what: &str) -> Result<Option<DynamicObject>, PlatformError> {
        self.connection.run(what, |client| {
            let api = api(client, declaration);
            async move { api.get_opt(&declaration.name).await }
        })
    }

    /// The storage classes of the cluster, and whether each is the default; `None` without the right to list them.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn storage_classes(&self) -> Result<Option<Vec<(String, bool)>>, PlatformError> {
        let classes = resource("storage.k8s.io/v1", "StorageClass", Some("storageclasses"));
        let list = self.connection.try_run(|client| {
            let classes = classes.clone();
            async move { Api::<DynamicObject>::all_with(client, &classes).list(&ListParams::default()).await }
        });
        match list {
            Ok(list) => Ok(Some(
                list.items
                    .into_iter()
                    .map(|class| {
                        let marked = class.metadata.annotations.as_ref().and_then(|all| {
                            all.get("storageclass.kubernetes.io/is-default-class")
                                .or(all.get("storageclass.beta.kubernetes.io/is-default-class"))
                        });
                        let default = marked.is_some_and(|value| value == "true");
                        (class.metadata.name.unwrap_or_default(), default)
                    })
                    .collect(),
            )),
            Err(error) if super::connection::is_forbidden(&error) => Ok(None),
            Err(error) => Err(failed("listing storage classes", &error)),
        }
    }

    /// Puts a declared Secret or ConfigMap in the place of the one that is there, which is kept under another name.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn replace(&self, declaration: &Declaration, point: &str) -> Result<String, PlatformError> {
        let what = format!("replacing {}", declaration.label());
        let found = self.get(declaration, &what)?;
        let mut aside = format!("{}.before-{}", declaration.name, point.to_lowercase());
        if let Some(found) = found {
            let mut old = clean(&declaration.kind, &serde_json::to_value(found).unwrap_or_default());
            aside = self.free_name(declaration, &old, aside)?;
            old["metadata"] =
                json!({"name": aside, "namespace": declaration.namespace, "labels": {"fabkeep.io/set-aside": "true"}});
            old["apiVersion"] = declaration.api_version.clone().into();
            old["kind"] = declaration.kind.clone().into();
            self.create(&Declaration { name: aside.clone(), object: old, ..declaration.clone() })?;
            let deleted = self.connection.try_run(|client| {
                let api = api(client, declaration);
                async move { api.delete(&declaration.name, &DeleteParams::default()).await.map(|_| ()) }
            });
            if let Err(error) = deleted
                && !is_missing(&error)
            {
                return Err(failed(&what, &error));
            }
        }
        self.create(declaration)?;
        Ok(aside)
    }

    /// A name for what is set aside: one that nothing has, or that an earlier try of the same has given to the same content.
    fn free_name(&self, declaration: &Declaration, old: &Value, base: String) -> Result<String, PlatformError> {
        let mut name = base.clone();
        for number in 1.. {
            let there = self.connection.run("looking at what was set aside before", |client| {
                let (api, name) = (api(client, declaration), name.clone());
                async move { api.get_opt(&name).await }
            })?;
            let same = |there: &DynamicObject| {
                let there = clean(&declaration.kind, &serde_json::to_value(there).unwrap_or_default());
                ["data", "binaryData", "stringData", "type"].iter().all(|field| there[field] == old[field])
            };
            if there.as_ref().is_none_or(same) {
                break;
            }
            name = format!("{base}.{number}");
        }
        Ok(name)
    }

    /// Deployments of the operators that manage custom resources of these API versions and would undo a restore's steps, in any namespace
    /// that may be looked at: namespace and name.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn operators(&self, api_versions: &[&str]) -> Result<Vec<(String, String)>, PlatformError> {
        let deployments = resource("apps/v1", "Deployment", None);
        let list = self.connection.try_run(|client| {
            let deployments = deployments.clone();
            async move { Api::<DynamicObject>::all_with(client, &deployments).list(&ListParams::default()).await }
        });
        let list = match list {
            Ok(list) => list,
            Err(error) if super::connection::is_forbidden(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed("looking for operators", &error)),
        };
        let is_asked = |group: &str| api_versions.iter().any(|version| version.split('/').next() == Some(group));
        let known: Vec<&str> = OPERATORS.iter().filter(|(_, group)| is_asked(group)).map(|(image, _)| *image).collect();
        Ok(list
            .items
            .into_iter()
            .filter(|object| {
                let images = object.data.pointer("/spec/template/spec/containers").and_then(Value::as_array);
                images.into_iter().flatten().any(|container| {
                    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
                    known.iter().any(|name| image.contains(name))
                })
            })
            .filter_map(|object| Some((object.metadata.namespace?, object.metadata.name?)))
            .collect())
    }

    /// Puts workloads to sleep; what had none running stays as it is.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn sleep(&self, kind: &str, namespace: &str, name: &str) -> Result<Asleep, PlatformError> {
        let declaration = handle(kind, namespace, name);
        let what = format!("putting {} to sleep", declaration.label());
        let found = self.connection.run(&what, |client| {
            let api = api(client, &declaration);
            async move { api.get(name).await }
        })?;
        let replicas = found.data.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        let known = found.metadata.annotations.as_ref().and_then(|all| all.get(REPLICAS)?.parse().ok());
        let recorded = known.unwrap_or_else(|| u32::try_from(replicas).unwrap_or(1));
        let patch = json!({"metadata": {"annotations": {REPLICAS: recorded.to_string()}}, "spec": {"replicas": 0}});
        self.patch(&declaration, &patch, &what)?;
        Ok(Asleep { workload: declaration.label(), replicas: recorded })
    }

    /// Wakes a workload with the replicas that it had.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn wake(&self, kind: &str, namespace: &str, name: &str) -> Result<(), PlatformError> {
        let declaration = handle(kind, namespace, name);
        let what = format!("waking {}", declaration.label());
        let found = self.connection.run(&what, |client| {
            let api = api(client, &declaration);
            async move { api.get(name).await }
        })?;
        let known: Option<u64> = found.metadata.annotations.as_ref().and_then(|all| all.get(REPLICAS)?.parse().ok());
        let Some(replicas) = known else { return Ok(()) };
        let patch = json!({"metadata": {"annotations": {REPLICAS: null}}, "spec": {"replicas": replicas}});
        self.patch(&declaration, &patch, &what)
    }

    /// Writes on a claim from which recovery point its data is; what is written there otherwise.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn note_restored(&self, namespace: &str, claim: &str, point: &str) -> Result<(), PlatformError> {
        let declaration =
            Declaration { api_version: "v1".to_owned(), ..handle("PersistentVolumeClaim", namespace, claim) };
        let patch = json!({"metadata": {"annotations": {RESTORED: point}}});
        self.patch(&declaration, &patch, &format!("marking {} as restored", declaration.label()))
    }

    /// From which recovery point a claim's data is, as noted on it; `None` when it is not noted or there is no such claim.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn restored_from(&self, namespace: &str, claim: &str) -> Result<Option<String>, PlatformError> {
        let declaration =
            Declaration { api_version: "v1".to_owned(), ..handle("PersistentVolumeClaim", namespace, claim) };
        let found = self.get(&declaration, &format!("looking at {}", declaration.label()))?;
        Ok(found.and_then(|found| found.metadata.annotations?.remove(RESTORED)))
    }

    /// Whether a workload is there, and whether it sleeps: because fabkeep put it to sleep.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn workload(&self, kind: &str, namespace: &str, name: &str) -> Result<WorkloadState, PlatformError> {
        let declaration = handle(kind, namespace, name);
        let found = self.get(&declaration, &format!("looking at {}", declaration.label()))?;
        let Some(found) = found else { return Ok(WorkloadState::Missing) };
        let noted = found.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(REPLICAS));
        let replicas = found.data.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        Ok(match (replicas, noted) {
            (0, true) => WorkloadState::Asleep,
            (0, false) if kind != "Pod" && kind != "DaemonSet" => WorkloadState::AtRest,
            _ => WorkloadState::Awake,
        })
    }

    fn patch(&self, declaration: &Declaration, patch: &Value, what: &str) -> Result<(), PlatformError> {
        self.connection.run(what, |client| {
            let api = api(client, declaration);
            async move { api.patch(&declaration.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()) }
        })
    }
}

/// A workload by its name only.
fn handle(kind: &str, namespace: &str, name: &str) -> Declaration {
    Declaration {
        namespace: namespace.to_owned(),
        api_version: if kind == "Pod" { "v1" } else { "apps/v1" }.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        object: Value::Null,
    }
}

/// The stage in which databases start.
pub const DATABASES: &str = "databases";

/// The order in which services start: what others need first.
const STAGES: [(&str, &[NodeRole]); 6] = [
    (DATABASES, &[NodeRole::StateDatabase, NodeRole::CaDatabase]),
    ("certificate authorities", &[NodeRole::CertificateAuthority]),
    ("orderers", &[NodeRole::Orderer]),
    ("peers", &[NodeRole::Peer]),
    ("chaincode", &[NodeRole::Chaincode]),
    ("others", &[NodeRole::Files]),
];

impl Kubernetes {
    /// The stages in which workloads start. A pod with several nodes starts with the last of them. `chosen`: nodes whose workloads are
    /// meant; all without.
    pub fn stages(&self, chosen: Option<&[NodeId]>) -> Vec<Stage> {
        let mut stages: Vec<Stage> =
            STAGES.iter().map(|(name, _)| Stage { name, workloads: Vec::new(), nodes: Vec::new() }).collect();
        for (_, workloads) in &self.analysis.all {
            for workload in workloads {
                let of_it = self.analysis.nodes.iter().filter(|node| {
                    node.node.workload.as_ref().is_some_and(|known| {
                        (&known.kind, &known.namespace, &known.name)
                            == (&workload.kind, &workload.namespace, &workload.name)
                    })
                });
                let nodes: Vec<_> = of_it.collect();
                if chosen.is_some_and(|chosen| !nodes.iter().any(|node| chosen.contains(&node.node.id))) {
                    continue;
                }
                let stage = nodes
                    .iter()
                    .filter_map(|node| STAGES.iter().position(|(_, roles)| roles.contains(&node.node.role)))
                    .filter(|&stage| stage < STAGES.len() - 1)
                    .max()
                    .unwrap_or(STAGES.len() - 1);
                stages[stage].workloads.push((
                    workload.kind.clone(),
                    workload.namespace.clone(),
                    workload.name.clone(),
                ));
                let running = nodes.iter().filter(|node| node.node.role != NodeRole::Files);
                stages[stage].nodes.extend(running.map(|node| node.node.id.clone()));
            }
        }
        stages.retain(|stage| !stage.workloads.is_empty());
        stages
    }

    fn workload(&self, kind: &str, namespace: &str, name: &str) -> Option<&WorkloadObject> {
        let (_, workloads) = self.analysis.all.iter().find(|(known, _)| known.name == namespace)?;
        workloads.iter().find(|workload| workload.kind == kind && workload.name == name)
    }

    /// Whether the workload has pods, or would have.
    pub fn is_awake(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.workload(kind, namespace, name).is_some_and(|workload| !workload.pods.is_empty())
    }

    /// Waits until no pod of these workloads is left.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when pods stay.
    pub fn wait_until_gone(&self, workloads: &[(String, String, String)]) -> Result<(), PlatformError> {
        let begun = Instant::now();
        loop {
            let mut left = Vec::new();
            for (kind, namespace, name) in workloads {
                left.extend(
                    self.pods_of(kind, namespace, name, true)?
                        .into_iter()
                        .map(|pod| format!("{namespace}/{}", pod.name)),
                );
            }
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > GOING {
                return Err(PlatformError::Cluster {
                    what: "putting workloads to sleep".to_owned(),
                    problem: format!("after {} s there are still pods: {}", GOING.as_secs(), left.join(", ")),
                    next:
                        "look whether an operator or autoscaler starts them again (K2); then run the same command again"
                            .to_owned(),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Pods of a workload as they are now; with `going`, those too that are on their way out.
    pub(super) fn pods_of(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        going: bool,
    ) -> Result<Vec<LivePod>, PlatformError> {
        let pods = resource("v1", "Pod", None);
        let list =
            self.connection.run(&format!("listing pods in {namespace}"), |client| {
                let pods = pods.clone();
                async move {
                    Api::<DynamicObject>::namespaced_with(client, namespace, &pods).list(&ListParams::default()).await
                }
            })?;
        let mut out = Vec::new();
        for pod in list.items {
            let value = serde_json::to_value(&pod).unwrap_or_default();
            let owner = super::objects::controller(&value);
            let pod_name = super::objects::name_of(&value);
            let of_it = match (kind, owner) {
                ("Pod", None) => pod_name == name,
                // A ReplicaSet's name is its Deployment's and a hash.
                ("Deployment", Some(("ReplicaSet", set))) => set.rsplit_once('-').is_some_and(|(base, _)| base == name),
                (_, Some((owner_kind, owner_name))) => owner_kind == kind && owner_name == name,
                _ => false,
            };
            if !of_it {
                continue;
            }
            match live_pod(&value) {
                Some(live) => out.push(live),
                None if going && pod.metadata.deletion_timestamp.is_some() => out.push(LivePod {
                    name: pod_name.to_owned(),
                    host: None,
                    running: Vec::new(),
                    ready: false,
                    labels: BTreeMap::new(),
                }),
                None => {}
            }
        }
        Ok(out)
    }

    /// Waits until a stage's workloads are ready, and until every node has every channel open at least at the expected height (P7).
    /// `told` is called with what is waited for.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when the cluster cannot be asked.
    pub fn wait_until_ready(
        &self,
        stage: &Stage,
        heights: &BTreeMap<NodeId, BTreeMap<String, u64>>,
        deadline: Duration,
        told: &dyn Fn(&str),
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<Awake, PlatformError> {
        let begun = Instant::now();
        let mut said = String::new();
        loop {
            let mut awake = Awake::default();
            let mut waits: Vec<Finding> = Vec::new();
            let mut leads: BTreeMap<String, bool> = BTreeMap::new();
            for (kind, namespace, name) in &stage.workloads {
                let replicas = self.workload(kind, namespace, name).map_or(1, |workload| workload.replicas);
                let pods = self.pods_of(kind, namespace, name, false)?;
                let ready = pods.iter().filter(|pod| pod.ready).count();
                if ready < replicas as usize && kind != "DaemonSet" {
                    waits.push(Finding::error(
                        Rule::ReadyPerChannel,
                        format!("{kind} {namespace}/{name}"),
                        format!("{ready} of {replicas} pods are ready"),
                        "look at the pods' events and logs (`kubectl describe`, `kubectl logs`)",
                    ));
                    continue;
                }
                for found in self.analysis.nodes.iter().filter(|node| stage.nodes.contains(&node.node.id)) {
                    let Some(known) = found.node.workload.as_ref() else { continue };
                    if (&known.kind, &known.namespace, &known.name) != (kind, namespace, name) {
                        continue;
                    }
                    let pod = match known.ordinal {
                        Some(ordinal) => pods.iter().find(|pod| pod.name == format!("{name}-{ordinal}")),
                        None => pods.first(),
                    };
                    let expected = heights.get(&found.node.id).cloned().unwrap_or_default();
                    let asked = known.operations.filter(|operations| !operations.tls && !expected.is_empty());
                    let (Some(pod), Some(operations)) = (pod, asked) else {
                        awake.ready.push((found.node.id.clone(), BTreeMap::new()));
                        continue;
                    };
                    let at = (namespace.as_str(), pod.name.as_str(), operations.port);
                    let answer = super::observe::get(&self.connection, at, None, "/metrics", false);
                    match answer.map(|text| answers::metrics(&text)) {
                        Ok(answer) => {
                            let low: Vec<String> = expected
                                .iter()
                                .filter(|(channel, height)| answer.heights.get(*channel).is_none_or(|now| now < height))
                                .map(|(channel, height)| match answer.heights.get(channel) {
                                    Some(now) => format!("{channel} at {now}, {height} expected"),
                                    None => format!("{channel} is not open, height {height} expected"),
                                })
                                .collect();
                            for (channel, leading) in &answer.leads {
                                *leads.entry(channel.clone()).or_default() |= leading;
                            }
                            if low.is_empty() {
                                awake.ready.push((found.node.id.clone(), answer.heights));
                            } else {
                                waits.push(Finding::error(
                                    Rule::ReadyPerChannel,
                                    &found.node.id,
                                    low.join("; "),
                                    "read the node's log: it says why a ledger did not open",
                                ));
                            }
                        }
                        Err(problem) => waits.push(Finding::error(
                            Rule::ReadyPerChannel,
                            &found.node.id,
                            format!("its operations endpoint (port {}) does not answer: {problem}", operations.port),
                            "read the node's log; heights can be asked for with `peer channel getinfo`",
                        )),
                    }
                }
            }
            for (channel, _) in leads.iter().filter(|(_, leading)| !**leading) {
                waits.push(Finding::error(
                    Rule::LogPresent,
                    channel,
                    "no orderer leads this channel yet",
                    "read the orderers' logs; a majority of the consenters must run and reach each other",
                ));
            }
            if waits.is_empty() {
                return Ok(awake);
            }
            if begun.elapsed() > deadline || is_interrupted() {
                awake.findings = waits;
                return Ok(awake);
            }
            let line = format!("waiting for {}: {}", waits[0].subject, waits[0].what);
            if line != said {
                told(&line);
                said = line;
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn declaration(kind: &str, object: Value) -> Declaration {
        Declaration {
            namespace: "n".to_owned(),
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            name: "x".to_owned(),
            object,
        }
    }

    #[test]
    fn what_the_api_server_adds_is_no_difference_and_another_value_is() {
        let declared = declaration("Service", json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 1}]}}));
        let added = json!({"metadata": {"name": "x", "uid": "1"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1, "protocol": "TCP"}]}});
        assert_eq!(compare(&declared, &added), ObjectState::Equal);
        let other = json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 2}]}});
        assert_eq!(compare(&declared, &other), ObjectState::Differs("/spec/ports/0/port".to_owned()));
        // A Secret with a key more is another Secret.
        let secret = declaration("Secret", json!({"metadata": {"name": "x"}, "data": {"a": "MQ=="}}));
        let more = json!({"metadata": {"name": "x"}, "data": {"a": "MQ==", "b": "Mg=="}});
        assert_eq!(compare(&secret, &more), ObjectState::Differs("/data".to_owned()));
    }
}
