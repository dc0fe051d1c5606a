//! Objects as the target of a restore: compares declared objects with existing ones, creates and replaces them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::clean::{clean, without_notes};
use super::connection::{failed, is_forbidden, is_missing, is_passing};
use super::foreign::MAX_NAME_BYTES;
use super::objects::{REPLICAS, SCALED, controller, name_of, resource, text};
use super::relocation;
use super::served::KindServed;
use crate::{Declaration, ObjectRef, PlatformError};

/// Operators by the last part of their image's name, and the API group of the custom resources that they manage.
const OPERATORS: [(&str, &str); 3] =
    [("hlf-operator", "hlf.kungfusoftware.es"), ("fabric-operator", "ibp.com"), ("ibp-operator", "ibp.com")];

/// Returns whether an operator that is known manages custom resources of an API version.
pub fn is_managed(api_version: &str) -> bool {
    OPERATORS.iter().any(|(_, group)| api_version.split('/').next() == Some(group))
}

/// The last part of an image's name, without tag and digest.
fn image_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(['@', ':']).next().unwrap_or(last)
}

/// How long an object that is being deleted may take to go.
const GOING: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);
/// How often an object is put in the place of one that somebody else makes again.
const REPLACE_TRIES: usize = 4;

/// The relation of an object in the cluster to a declared one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectState {
    /// There is none.
    Missing,
    /// It has everything that is declared.
    Equal,
    /// It is another: the first field that differs. Values are not reported.
    Differs(String),
    /// It is being deleted, and these finalizers keep it.
    Going(Vec<String>),
    /// It may not be read: what the API server said.
    Forbidden(String),
}

/// What came of creating an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was made.
    Made,
    /// Somebody else had created it: its relation to the declared one.
    There(ObjectState),
}

/// What came of putting an object in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It is in its place.
    Placed,
    /// Somebody else makes the other again each time: it was not put in its place.
    MadeAgain,
}

pub(super) fn api(
    connection: &super::Connection,
    client: kube::Client,
    declaration: &Declaration,
) -> Api<DynamicObject> {
    let resource = connection.resource_of(declaration);
    if declaration.namespace.is_empty() {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, &declaration.namespace, &resource)
    }
}

/// Returns the first field of `declared` that `found` does not have so.
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
    if found.pointer("/metadata/deletionTimestamp").is_some() {
        let finalizers = found.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
        return ObjectState::Going(finalizers.filter_map(|name| name.as_str().map(str::to_owned)).collect());
    }
    let found = clean(&declaration.kind, found);
    let mut differs = difference(&without_notes(&declaration.object), Some(&found), "");
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

/// Returns the state of an object, from the answer of the API server.
fn state_of(
    declaration: &Declaration,
    answer: Result<Option<DynamicObject>, kube::Error>,
) -> Result<ObjectState, PlatformError> {
    match answer {
        Ok(None) => Ok(ObjectState::Missing),
        Ok(Some(found)) => Ok(compare(declaration, &serde_json::to_value(found).unwrap_or_default())),
        Err(error) if is_missing(&error) => Ok(ObjectState::Missing),
        // Without the right to read it, only creating it shows whether it exists.
        Err(error) if is_forbidden(&error) && declaration.kind == "Namespace" => Ok(ObjectState::Equal),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(ObjectState::Forbidden(status.message.clone())),
        Err(error) => Err(failed(&format!("looking at {}", declaration.label()), &error)),
    }
}

impl super::Connection {
    /// Returns the states of declared objects in the cluster.
    pub(crate) fn compare(&self, declarations: &[&Declaration]) -> Result<Vec<ObjectState>, PlatformError> {
        let mut out = Vec::new();
        for batch in declarations.chunks(16) {
            let answers = self.wait(async {
                let gets = batch.iter().map(|declaration| {
                    let api = api(self, self.client(), declaration);
                    async move { api.get_opt(&declaration.name).await }
                });
                futures_util::future::join_all(gets).await
            });
            for (declaration, answer) in batch.iter().zip(answers) {
                let answer = match answer {
                    Err(error) if is_passing(&error) => self.look(declaration),
                    other => other,
                };
                out.push(state_of(declaration, answer)?);
            }
        }
        Ok(out)
    }

    fn look(&self, declaration: &Declaration) -> Result<Option<DynamicObject>, kube::Error> {
        self.try_run(|client| {
            let api = api(self, client, declaration);
            async move { api.get_opt(&declaration.name).await }
        })
    }
}

/// A cluster that a restore writes objects into, before there is a network to look at.
pub struct Target {
    pub(super) connection: Arc<super::Connection>,
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

    /// Returns the cluster's address, for people.
    pub fn cluster(&self) -> &str {
        &self.connection.name
    }

    /// Returns how the kind of each declared object is served here.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn kinds_served(&self, declarations: &[Declaration]) -> Result<Vec<KindServed>, PlatformError> {
        let served = self.connection.served()?;
        Ok(declarations.iter().map(|known| served.how(known)).collect())
    }

    /// Returns the states of declared objects in the cluster.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn compare(&self, declarations: &[&Declaration]) -> Result<Vec<ObjectState>, PlatformError> {
        self.connection.compare(declarations)
    }

    /// Creates an object; workloads with no pods wanted. One that is there already is compared and left as it is; one that is being deleted
    /// is waited for.
    ///
    /// # Errors
    /// [`PlatformError::Forbidden`] when it may not be created, [`PlatformError::Cluster`].
    pub fn create(&self, declaration: &Declaration) -> Result<Created, PlatformError> {
        let what = format!("creating {}", declaration.label());
        let object = self.as_created(declaration, &what)?;
        let begun = Instant::now();
        loop {
            let result = self.connection.try_run(|client| {
                let (api, object) = (api(&self.connection, client, declaration), object.clone());
                async move { api.create(&PostParams::default(), &object).await.map(|_| ()) }
            });
            match result {
                Ok(()) => return Ok(Created::Made),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed(&what, &error)),
            }
            match state_of(declaration, self.connection.look(declaration))? {
                ObjectState::Going(_) if begun.elapsed() > GOING => {
                    let found = self.get(declaration, &what)?;
                    let found = serde_json::to_value(found).unwrap_or_default();
                    return Err(still_going(&what, &found));
                }
                // It is being deleted, or was deleted between the two requests.
                ObjectState::Going(_) | ObjectState::Missing if begun.elapsed() <= GOING => std::thread::sleep(POLL),
                state => return Ok(Created::There(state)),
            }
        }
    }

    /// Returns an object as it is sent to the API server.
    pub(super) fn as_created(&self, declaration: &Declaration, what: &str) -> Result<DynamicObject, PlatformError> {
        let mut object = without_notes(&declaration.object);
        if SCALED.contains(&declaration.kind.as_str()) {
            let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            object["spec"]["replicas"] = 0.into();
            if !object["metadata"]["annotations"].is_object() {
                object["metadata"]["annotations"] = json!({});
            }
            object["metadata"]["annotations"][REPLICAS] = replicas.to_string().into();
        }
        let mut aliases = Vec::new();
        for old in relocation::old_names(&object) {
            aliases.push((self.address(&old.namespace, &old.service)?, old.names));
        }
        if !aliases.is_empty() {
            relocation::add_aliases(&declaration.kind, &mut object, &aliases);
        }
        serde_json::from_value(object).map_err(|error| PlatformError::Cluster {
            what: what.to_owned(),
            problem: error.to_string(),
            next: "report this to fabkeep's makers".into(),
        })
    }

    /// Returns whether a Service is there and has an address.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn has_address(&self, namespace: &str, name: &str) -> Result<bool, PlatformError> {
        let service = service(namespace, name);
        let found = self.get(&service, &format!("asking for the address of {}", service.label()))?;
        let address = found.as_ref().and_then(|found| found.data.pointer("/spec/clusterIP")).and_then(Value::as_str);
        Ok(address.is_some_and(|address| !address.is_empty() && address != "None"))
    }

    /// Returns whether the cluster has one machine only; `false` without the right to list them.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn has_one_machine(&self) -> Result<bool, PlatformError> {
        self.connection.has_one_machine()
    }

    /// Returns the address of a Service.
    fn address(&self, namespace: &str, name: &str) -> Result<String, PlatformError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(known) = self.addresses.lock().get(&key) {
            return Ok(known.clone());
        }
        let service = service(namespace, name);
        let what = format!("asking for the address of {}", service.label());
        let found = self.get(&service, &what)?;
        let address = found.as_ref().and_then(|found| found.data.pointer("/spec/clusterIP")).and_then(Value::as_str);
        let Some(address) = address.filter(|address| !address.is_empty() && *address != "None") else {
            return Err(PlatformError::Cluster {
                what,
                problem: "it does not exist or has no address: the old names would not resolve".to_owned(),
                next: "check the Service; then run the same command again".into(),
            });
        };
        self.addresses.lock().insert(key, address.to_owned());
        Ok(address.to_owned())
    }

    /// Returns the addresses of every Service of a namespace.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn service_addresses(&self, namespace: &str) -> Result<Vec<String>, PlatformError> {
        let services = resource("v1", "Service", None);
        let list = self.connection.run(&format!("listing Services in namespace {namespace}"), |client| {
            let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &services);
            async move { api.list(&ListParams::default()).await }
        })?;
        let address =
            |service: DynamicObject| service.data.pointer("/spec/clusterIP").and_then(Value::as_str).map(str::to_owned);
        Ok(list
            .items
            .into_iter()
            .filter_map(address)
            .filter(|address| !address.is_empty() && address != "None")
            .collect())
    }

    /// Returns the node ports of every Service of the cluster; none without the right to list them.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn node_ports(&self) -> Result<BTreeMap<u64, ObjectRef>, PlatformError> {
        let services = resource("v1", "Service", None);
        let list = self.connection.try_run(|client| {
            let services = services.clone();
            async move { Api::<DynamicObject>::all_with(client, &services).list(&ListParams::default()).await }
        });
        let list = match list {
            Ok(list) => list,
            Err(error) if is_forbidden(&error) || is_missing(&error) => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed("listing Services", &error)),
        };
        let mut out = BTreeMap::new();
        for service in list.items {
            let ports = service.data.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
            let numbers: Vec<u64> = ports.filter_map(|port| port.get("nodePort")?.as_u64()).collect();
            let (namespace, name) =
                (service.metadata.namespace.unwrap_or_default(), service.metadata.name.unwrap_or_default());
            out.extend(numbers.into_iter().map(|number| (number, ObjectRef::new("Service", &namespace, &name))));
        }
        Ok(out)
    }

    pub(super) fn get(&self, declaration: &Declaration, what: &str) -> Result<Option<DynamicObject>, PlatformError> {
        self.connection.run(what, |client| {
            let api = api(&self.connection, client, declaration);
            async move { api.get_opt(&declaration.name).await }
        })
    }

    /// Returns the storage classes of the cluster, and whether each is the default; `None` without the right to list them.
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
            Err(error) if is_forbidden(&error) => Ok(None),
            Err(error) => Err(failed("listing storage classes", &error)),
        }
    }

    /// The volumes of these claims' classes that wait for a claim, or are kept for one of them (namespace, name, class): their number.
    /// `None` without the right to list volumes.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn static_volumes(&self, claims: &[(String, String, String)]) -> Result<Option<usize>, PlatformError> {
        let Some(list) = self.connection.persistent_volumes()? else { return Ok(None) };
        let waits = |volume: &&DynamicObject| {
            let at = |path: &str| volume.data.pointer(path).and_then(Value::as_str);
            let class = at("/spec/storageClassName").unwrap_or_default();
            let of_class = claims.iter().any(|claim| claim.2 == class);
            let kept = at("/spec/claimRef/namespace").zip(at("/spec/claimRef/name"));
            let for_one = kept.is_some_and(|(namespace, name)| {
                let bound = at("/spec/claimRef/uid").is_some();
                !bound && claims.iter().any(|claim| (claim.0.as_str(), claim.1.as_str()) == (namespace, name))
            });
            of_class && (for_one || (kept.is_none() && at("/status/phase") == Some("Available")))
        };
        Ok(Some(list.iter().filter(waits).count()))
    }

    /// Puts a declared Secret or ConfigMap in the place of the one that is there, which is kept under another name. Only what was kept is
    /// deleted: what somebody else makes meanwhile is kept, too, and replaced in its turn. `kept` gets each name before the deletion; what
    /// was there is put back when the API server refuses what comes.
    ///
    /// # Errors
    /// [`PlatformError::Forbidden`], [`PlatformError::Cluster`], and what `kept` says.
    pub fn replace<E: From<PlatformError>>(
        &self,
        declaration: &Declaration,
        point: &str,
        kept: &mut dyn FnMut(String) -> Result<(), E>,
    ) -> Result<Replaced, E> {
        let what = format!("replacing {}", declaration.label());
        let mut deleted = None;
        for _ in 0..REPLACE_TRIES {
            if let Some(found) = self.get(declaration, &what)? {
                let whole = serde_json::to_value(&found).unwrap_or_default();
                match compare(declaration, &whole) {
                    ObjectState::Equal => return Ok(Replaced::Placed),
                    ObjectState::Going(_) => {}
                    _ => {
                        kept(self.keep_beside(declaration, &whole, point)?)?;
                        self.delete(declaration, &found, &what)?;
                        let mut object = clean(&declaration.kind, &whole);
                        object["apiVersion"] = declaration.api_version.clone().into();
                        object["kind"] = declaration.kind.clone().into();
                        deleted = Some(Declaration { object, ..declaration.clone() });
                    }
                }
            }
            match (self.create(declaration), &deleted) {
                (Ok(Created::Made | Created::There(ObjectState::Equal)), _) => return Ok(Replaced::Placed),
                (Ok(Created::There(_)), _) => {}
                (Err(error), deleted) => {
                    if let Some(deleted) = deleted {
                        let _ = self.create(deleted);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(Replaced::MadeAgain)
    }

    /// Keeps what is in an object's place under another name.
    fn keep_beside(&self, declaration: &Declaration, found: &Value, point: &str) -> Result<String, PlatformError> {
        let mut old = clean(&declaration.kind, found);
        let end = format!(".before-{}", point.to_lowercase());
        // With room for a number behind it; the end of a long name makes way.
        let room = MAX_NAME_BYTES.saturating_sub(end.len() + 4);
        let begin = declaration.name.get(..room).unwrap_or(&declaration.name).trim_end_matches(['.', '-']);
        let name = self.free_name(declaration, &old, format!("{begin}{end}"))?;
        old["metadata"] =
            json!({"name": name, "namespace": declaration.namespace, "labels": {"fabkeep.io/set-aside": "true"}});
        old["apiVersion"] = declaration.api_version.clone().into();
        old["kind"] = declaration.kind.clone().into();
        let kept = Declaration { name: name.clone(), object: old, ..declaration.clone() };
        match self.create(&kept)? {
            Created::Made | Created::There(ObjectState::Equal) => Ok(name),
            Created::There(_) => Err(PlatformError::Cluster {
                what: format!("keeping {} as {name}", declaration.label()),
                problem: "something else has created an object with this name at the same moment".to_owned(),
                next: "run the same command again".into(),
            }),
        }
    }

    /// Deletes an object, if it is still the one that was looked at.
    fn delete(&self, declaration: &Declaration, seen: &DynamicObject, what: &str) -> Result<(), PlatformError> {
        let preconditions =
            Preconditions { uid: seen.metadata.uid.clone(), resource_version: seen.metadata.resource_version.clone() };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let deleted = self.connection.try_run(|client| {
            let api = api(&self.connection, client, declaration);
            let parameters = parameters.clone();
            async move { api.delete(&declaration.name, &parameters).await.map(|_| ()) }
        });
        match deleted {
            Ok(()) => Ok(()),
            // It changed, or somebody else was faster: the next request shows which.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(()),
            Err(error) => Err(failed(what, &error)),
        }
    }

    /// Returns a name for what is set aside: one that nothing has, or that an earlier try of the same has given to the same content.
    fn free_name(&self, declaration: &Declaration, old: &Value, base: String) -> Result<String, PlatformError> {
        let mut name = base.clone();
        for number in 1.. {
            let there = self.connection.run("looking at what was set aside before", |client| {
                let (api, name) = (api(&self.connection, client, declaration), name.clone());
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
            Err(error) if is_forbidden(&error) => return Ok(Vec::new()),
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
                    known.contains(&image_name(image))
                })
            })
            .filter_map(|object| Some((object.metadata.namespace?, object.metadata.name?)))
            .collect())
    }

    /// Returns the workloads of a namespace as they are now, and the pods of those that fabkeep does not know (a Job, a controller of another
    /// kind): what may not be listed is left out.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn workloads_in(&self, namespace: &str) -> Result<Vec<Declaration>, PlatformError> {
        let mut out: Vec<Declaration> = Vec::new();
        let mut sets: BTreeMap<String, Option<String>> = BTreeMap::new();
        for (kind, api_version) in [
            ("Deployment", "apps/v1"),
            ("StatefulSet", "apps/v1"),
            ("DaemonSet", "apps/v1"),
            ("ReplicationController", "v1"),
            ("CronJob", "batch/v1"),
            ("ReplicaSet", "apps/v1"),
            ("Pod", "v1"),
        ] {
            let resource = resource(api_version, kind, None);
            let list = self.connection.try_run(|client| {
                let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
                async move { api.list(&ListParams::default()).await }
            });
            let list = match list {
                Ok(list) => list,
                Err(error) if is_forbidden(&error) || is_missing(&error) => continue,
                Err(error) => return Err(failed(&format!("listing {kind}s in namespace {namespace}"), &error)),
            };
            for object in list.items {
                let object = serde_json::to_value(object).unwrap_or_default();
                let is_known =
                    |kind: &str, name: &str| out.iter().any(|known| known.kind == kind && known.name == name);
                let others = match (kind, controller(&object)) {
                    ("ReplicaSet", owner) => {
                        sets.insert(name_of(&object).to_owned(), owner.map(|(kind, _)| kind.to_owned()));
                        owner.is_some()
                    }
                    // A ReplicaSet's name is its Deployment's and a hash, where those may not be listed.
                    ("Pod", Some(("ReplicaSet", set))) => match sets.get(set) {
                        Some(owner) => owner.as_deref().is_none_or(|kind| kind == "Deployment"),
                        None => set.rsplit_once('-').is_some_and(|(base, _)| is_known("Deployment", base)),
                    },
                    ("Pod", Some((kind, name))) => is_known(kind, name),
                    _ => false,
                };
                let ended = kind == "Pod" && matches!(text(&object, "/status/phase"), Some("Succeeded" | "Failed"));
                if others || ended || (kind == "Pod" && super::volume::helper::run_of(&object).is_some()) {
                    continue;
                }
                out.push(Declaration {
                    namespace: namespace.to_owned(),
                    api_version: api_version.to_owned(),
                    kind: kind.to_owned(),
                    name: name_of(&object).to_owned(),
                    object,
                });
            }
        }
        Ok(out)
    }

    pub(super) fn patch(&self, declaration: &Declaration, patch: &Value, what: &str) -> Result<(), PlatformError> {
        self.connection.run(what, |client| {
            let api = api(&self.connection, client, declaration);
            async move { api.patch(&declaration.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()) }
        })
    }
}

/// Returns what keeps an object that is being deleted: its finalizers; of a namespace, what its controller says of the objects in it.
fn kept_by(found: &Value) -> Vec<String> {
    let finalizers = found.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    let named = finalizers.filter_map(Value::as_str).map(|name| format!("its finalizer {name}"));
    let conditions = found.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let said = conditions.filter(|condition| {
        let remains = text(condition, "/type").is_some_and(|kind| {
            matches!(
                kind,
                "NamespaceFinalizersRemaining"
                    | "NamespaceContentRemaining"
                    | "NamespaceDeletionContentFailure"
                    | "NamespaceDeletionDiscoveryFailure"
            )
        });
        remains && text(condition, "/status") == Some("True")
    });
    named.chain(said.filter_map(|condition| text(condition, "/message")).map(str::to_owned)).collect()
}

fn still_going(what: &str, found: &Value) -> PlatformError {
    let kept = kept_by(found);
    let (kept, next) = if kept.is_empty() {
        ("nothing says what keeps it".to_owned(), "check it with `kubectl describe`; then run the same command again")
    } else {
        (
            kept.join("; "),
            "wait until the controllers of these finalizers have finished, or remove the finalizers (`kubectl edit`); then run the same command again",
        )
    };
    PlatformError::Cluster {
        what: what.to_owned(),
        problem: format!("the existing one has been in deletion for more than {} s: {kept}", GOING.as_secs()),
        next: next.into(),
    }
}

fn service(namespace: &str, name: &str) -> Declaration {
    Declaration { api_version: "v1".to_owned(), ..handle(&ObjectRef::new("Service", namespace, name)) }
}

/// Returns a workload by its name only.
pub(super) fn handle(object: &ObjectRef) -> Declaration {
    Declaration {
        namespace: object.namespace.clone(),
        api_version: if matches!(object.kind.as_str(), "Pod" | "ReplicationController") { "v1" } else { "apps/v1" }
            .to_owned(),
        kind: object.kind.clone(),
        name: object.name.clone(),
        object: Value::Null,
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
