//! The environment of a container's processes, as far as the API shows it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::workloads::WorkloadObject;
use crate::kubernetes::objects::{Namespace, text};

/// Variables by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// The pod that a container is in, or would be in.
#[derive(Clone, Copy)]
pub(crate) struct OfPod<'a> {
    pub workload: &'a WorkloadObject,
    pub ordinal: Option<u32>,
    pub name: &'a str,
    /// Its name is not known before it exists.
    pub named_later: bool,
}

/// What is known of a container's variables before it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolved {
    pub environment: Environment,
    /// Those whose values stand for others that only a pod has.
    pub uncertain: BTreeSet<String>,
}

/// Resolves `env` and `envFrom` with the namespace's Secrets and ConfigMaps, and `$(NAME)` in values.
pub(crate) fn resolve(container: &Container, namespace: &Namespace, pod: OfPod<'_>) -> Resolved {
    let mut environment = Environment::new();
    let mut uncertain = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        let mut add = |values: BTreeMap<String, Vec<u8>>| {
            for (name, value) in values {
                environment.insert(format!("{prefix}{name}"), String::from_utf8_lossy(&value).into_owned());
            }
        };
        if let Some(reference) = &from.config_map_ref {
            add(namespace.config_map(&reference.name));
        }
        if let Some(reference) = &from.secret_ref {
            add(namespace.secret(&reference.name));
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, namespace, pod) {
            let stands_for_another = pod.named_later && field(variable) == Some(NAME);
            if stands_for_another || references(&value).any(|name| uncertain.contains(name)) {
                uncertain.insert(variable.name.clone());
            } else {
                uncertain.remove(&variable.name);
            }
            let value = expand(&value, &environment);
            environment.insert(variable.name.clone(), value);
        }
    }
    Resolved { environment, uncertain }
}

/// The field of a pod's name.
const NAME: &str = "metadata.name";

/// The field of its pod that a variable takes its value from.
fn field(variable: &EnvVar) -> Option<&str> {
    Some(variable.value_from.as_ref()?.field_ref.as_ref()?.field_path.as_str())
}

/// Secrets and ConfigMaps, and keys of them, that a container takes its environment from and the namespace does not have: it does not start.
pub(crate) fn missing(container: &Container, namespace: &Namespace) -> BTreeSet<String> {
    let object = |kind: &str, name: &str| format!("{kind} {name}");
    let is_gone = |kind: &str, name: &str| namespace.find(kind, name).is_none();
    let mut out = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        let config_map = from.config_map_ref.as_ref().map(|known| ("ConfigMap", &known.name, known.optional));
        let secret = from.secret_ref.as_ref().map(|known| ("Secret", &known.name, known.optional));
        for (kind, name, optional) in config_map.into_iter().chain(secret) {
            if optional != Some(true) && is_gone(kind, name) {
                out.insert(object(kind, name));
            }
        }
    }
    for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        let config_map = from.config_map_key_ref.as_ref();
        let config_map = config_map.map(|known| ("ConfigMap", &known.name, &known.key, known.optional));
        let secret = from.secret_key_ref.as_ref().map(|known| ("Secret", &known.name, &known.key, known.optional));
        for (kind, name, key, optional) in config_map.into_iter().chain(secret) {
            let values = || if kind == "Secret" { namespace.secret(name) } else { namespace.config_map(name) };
            if optional == Some(true) {
                continue;
            }
            if is_gone(kind, name) {
                out.insert(object(kind, name));
            } else if !values().contains_key(key) {
                out.insert(format!("{key} of {}", object(kind, name)));
            }
        }
    }
    out
}

fn value_of(variable: &EnvVar, namespace: &Namespace, pod: OfPod<'_>) -> Option<String> {
    if let Some(value) = &variable.value {
        return Some(value.clone());
    }
    let from = variable.value_from.as_ref()?;
    let utf8 = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if let Some(reference) = &from.config_map_key_ref {
        return namespace.config_map(&reference.name).remove(&reference.key).map(utf8);
    }
    if let Some(reference) = &from.secret_key_ref {
        return namespace.secret(&reference.name).remove(&reference.key).map(utf8);
    }
    let path = field(variable)?;
    let live = |at: &str| text(namespace.find("Pod", pod.name)?, at).map(str::to_owned);
    let workload = pod.workload;
    let entry = |map: &str| path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']");
    let live_entry = |map: &str, key: &str| {
        let all = namespace.find("Pod", pod.name)?.pointer("/metadata")?.get(map)?;
        all.get(key)?.as_str().map(str::to_owned)
    };
    match path {
        NAME => Some(pod.name.to_owned()),
        "metadata.namespace" => Some(namespace.name.clone()),
        "spec.nodeName" => live("/spec/nodeName").or_else(|| workload.spec.node_name.clone()),
        "spec.serviceAccountName" => live("/spec/serviceAccountName")
            .or_else(|| workload.spec.service_account_name.clone())
            .or_else(|| Some("default".to_owned())),
        _ => match (entry("metadata.labels"), entry("metadata.annotations")) {
            (Some(key), _) => live_entry("labels", key).or_else(|| label_of_template(key, pod)),
            (_, Some(key)) => live_entry("annotations", key).or_else(|| workload.annotations.get(key).cloned()),
            _ => None,
        },
    }
}

/// A label that a pod will have: its template's, or its number in a StatefulSet.
fn label_of_template(key: &str, pod: OfPod<'_>) -> Option<String> {
    let of_set = || pod.ordinal.filter(|_| pod.workload.kind == "StatefulSet");
    pod.workload.labels.get(key).cloned().or_else(|| match key {
        "statefulset.kubernetes.io/pod-name" => of_set().map(|_| pod.name.to_owned()),
        "apps.kubernetes.io/pod-index" => of_set().map(|ordinal| ordinal.to_string()),
        _ => None,
    })
}

/// The variables that a text names by `$(NAME)`.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[rest.find('$')? + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                rest = after;
                return Some(name);
            }
        }
    })
}

/// Returns a text with its variables, or the first one that is not known.
pub(crate) fn expand_known(text: &str, resolved: &Resolved) -> Result<String, String> {
    let is_unknown = |name: &&str| !resolved.environment.contains_key(*name) || resolved.uncertain.contains(*name);
    match references(text).find(is_unknown) {
        Some(name) => Err(name.to_owned()),
        None => Ok(expand(text, &resolved.environment)),
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar; what is not defined stays as it is.
pub(crate) fn expand(text: &str, environment: &Environment) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match environment.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_the_kubelet_does() {
        let environment = Environment::from([("POD".to_owned(), "peer-0".to_owned())]);
        assert_eq!(expand("/data/$(POD)/x", &environment), "/data/peer-0/x");
        assert_eq!(expand("$$(POD) $(NONE) $5", &environment), "$(POD) $(NONE) $5");
    }
}
