//! The objects in memory, and what the API server does with them: names, versions, finalizers, history.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::controllers;
use crate::kinds::{self, Kind};
use crate::selector::Selector;

/// What an object is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub group: String,
    pub plural: String,
    pub namespace: String,
    pub name: String,
}

/// A change, for those who watch.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub version: u64,
    pub what: &'static str,
    pub key: Key,
    pub object: Value,
}

/// Why something is not done: code, reason and message of a Status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(pub u16, pub &'static str, pub String);

/// Makes the status of a new pod; `None` for a pod that runs.
pub(crate) type PodStatus = Box<dyn Fn(&Value) -> Option<Value> + Send>;

pub(crate) struct State {
    pub kinds: Vec<Kind>,
    pub objects: BTreeMap<Key, Value>,
    pub history: Vec<Event>,
    pub pod_status: Option<PodStatus>,
    /// Where volumes and containers have their folders.
    pub root: PathBuf,
    version: u64,
    made: u64,
}

pub(crate) fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn not_found(key: &Key) -> Refusal {
    Refusal(404, "NotFound", format!("{} \"{}\" not found", key.plural, key.name))
}

impl State {
    pub fn new(root: PathBuf) -> State {
        State {
            kinds: kinds::built_in(),
            objects: BTreeMap::new(),
            history: Vec::new(),
            pod_status: None,
            root,
            version: 100,
            made: 0,
        }
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns a name or identity that nothing had yet.
    pub fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{:05x}", self.made * 40_503 % 1_048_573)
    }

    pub fn kind(&self, group: &str, plural: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.group == group && kind.plural == plural)
    }

    /// Returns the kind of this name; of several that which the group names, if one is named.
    pub fn kind_named(&self, name: &str, group: Option<&str>) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.kind == name && group.is_none_or(|group| kind.group == group))
    }

    pub fn key(&self, kind: &str, namespace: &str, name: &str) -> Option<Key> {
        let (group, kind) = match kind.split_once('.') {
            Some((kind, group)) => (Some(group), kind),
            None => (None, kind),
        };
        let known = self.kind_named(kind, group)?;
        Some(Key {
            group: known.group.clone(),
            plural: known.plural.clone(),
            namespace: if known.namespaced { namespace.to_owned() } else { String::new() },
            name: name.to_owned(),
        })
    }

    pub fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&self.key(kind, namespace, name)?)
    }

    /// Objects of a kind, in one namespace or in all.
    pub fn list(&self, group: &str, plural: &str, namespace: &str, selector: &Selector) -> Vec<&Value> {
        self.objects
            .iter()
            .filter(|(key, _)| key.group == group && key.plural == plural)
            .filter(|(key, object)| (namespace.is_empty() || key.namespace == namespace) && selector.matches(object))
            .map(|(_, object)| object)
            .collect()
    }

    /// Creates an object and lets the controllers act.
    pub fn create(&mut self, group: &str, plural: &str, namespace: &str, mut object: Value) -> Result<Value, Refusal> {
        let kind =
            self.kind(group, plural).cloned().ok_or(Refusal(404, "NotFound", format!("there is no {plural}")))?;
        if !object.get("metadata").is_some_and(Value::is_object) {
            return Err(Refusal(422, "Invalid", "metadata is required".to_owned()));
        }
        if text(&object, "/metadata/name").is_empty() {
            let base = text(&object, "/metadata/generateName").to_owned();
            if base.is_empty() {
                return Err(Refusal(422, "Invalid", "name or generateName is required".to_owned()));
            }
            object["metadata"]["name"] = format!("{base}{}", self.fresh()).into();
        }
        let name = text(&object, "/metadata/name").to_owned();
        let namespace = if kind.namespaced { namespace.to_owned() } else { String::new() };
        if kind.namespaced && self.find("Namespace", "", &namespace).is_none() {
            return Err(Refusal(404, "NotFound", format!("namespaces \"{namespace}\" not found")));
        }
        let key = Key { group: group.to_owned(), plural: plural.to_owned(), namespace: namespace.clone(), name };
        if self.objects.contains_key(&key) {
            return Err(Refusal(409, "AlreadyExists", format!("{plural} \"{}\" already exists", key.name)));
        }
        if kind.namespaced {
            object["metadata"]["namespace"] = namespace.into();
        }
        if object.get("apiVersion").is_none() {
            object["apiVersion"] = kind.api_version().into();
        }
        object["kind"] = kind.kind.clone().into();
        object["metadata"]["uid"] = format!("uid-{}", self.fresh()).into();
        object["metadata"]["creationTimestamp"] = now().into();
        object["metadata"]["generation"] = 1.into();
        if kind.kind == "Secret" {
            encode_strings(&mut object);
        }
        self.store(&key, object, "ADDED");
        controllers::created(self, &key);
        controllers::reconcile(self);
        self.objects.get(&key).cloned().ok_or_else(|| not_found(&key))
    }

    /// Changes an object and lets the controllers act.
    pub fn change(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut Value) -> Result<(), Refusal>,
    ) -> Result<Value, Refusal> {
        let before = self.objects.get(key).ok_or_else(|| not_found(key))?;
        let mut object = before.clone();
        change(&mut object)?;
        let (was, is) = (text(before, "/metadata/resourceVersion"), text(&object, "/metadata/resourceVersion"));
        if !is.is_empty() && is != was {
            return Err(Refusal(409, "Conflict", format!("{} \"{}\" has been modified", key.plural, key.name)));
        }
        for fixed in
            ["uid", "creationTimestamp", "name", "namespace", "deletionTimestamp", "resourceVersion", "generation"]
        {
            match before["metadata"].get(fixed) {
                Some(value) => object["metadata"][fixed] = value.clone(),
                None => drop(object["metadata"].as_object_mut().map(|map| map.remove(fixed))),
            }
        }
        if key.plural == "secrets" {
            encode_strings(&mut object);
        }
        if object == *before {
            return Ok(object);
        }
        if object.get("spec") != before.get("spec") {
            object["metadata"]["generation"] = (before["metadata"]["generation"].as_u64().unwrap_or(1) + 1).into();
        }
        if object["metadata"].get("deletionTimestamp").is_some() && finalizers(&object).is_empty() {
            self.drop_object(key);
            controllers::reconcile(self);
            return Ok(object);
        }
        self.store(key, object, "MODIFIED");
        controllers::reconcile(self);
        Ok(self.objects.get(key).cloned().unwrap_or_default())
    }

    /// Deletes an object, or marks it when finalizers hold it, and lets the controllers act.
    pub fn delete(&mut self, key: &Key) -> Result<Value, Refusal> {
        let mut object = self.objects.get(key).cloned().ok_or_else(|| not_found(key))?;
        if finalizers(&object).is_empty() {
            self.drop_object(key);
        } else {
            object["metadata"]["deletionTimestamp"] = now().into();
            self.store(key, object.clone(), "MODIFIED");
        }
        controllers::reconcile(self);
        Ok(object)
    }

    /// Stores without checks, as the cluster's own controllers do.
    pub fn store(&mut self, key: &Key, mut object: Value, what: &'static str) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.history.push(Event { version: self.version, what, key: key.clone(), object: object.clone() });
        if key.plural == "customresourcedefinitions"
            && let Some(kind) = kinds::of_definition(&object)
            && self.kind(&kind.group, &kind.plural).is_none()
        {
            self.kinds.push(kind);
        }
        self.objects.insert(key.clone(), object);
    }

    /// Removes without regard to finalizers.
    pub fn drop_object(&mut self, key: &Key) {
        let Some(object) = self.objects.remove(key) else { return };
        self.version += 1;
        let version = self.version;
        controllers::removed(self, key, &object);
        self.history.push(Event { version, what: "DELETED", key: key.clone(), object });
    }
}

fn finalizers(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn encode_strings(object: &mut Value) {
    use base64::Engine;
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    if !object["data"].is_object() {
        object["data"] = json!({});
    }
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        object["data"][key] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
}

/// Returns the time now, as the API writes it.
pub(crate) fn now() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The date of a day counted from 1970, in the proleptic Gregorian calendar.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}
