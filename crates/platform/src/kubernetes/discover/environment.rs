//! The environment of a container's processes, as far as the API shows it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, EnvVar};

use crate::kubernetes::objects::Namespace;

/// Variables by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// Resolves `env` and `envFrom` with the namespace's Secrets and ConfigMaps, and `$(NAME)` in values. `pod_name` stands for
/// `metadata.name`.
pub(crate) fn resolve(container: &Container, namespace: &Namespace, pod_name: &str) -> Environment {
    let mut environment = Environment::new();
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
        if let Some(value) = value_of(variable, namespace, pod_name) {
            let value = expand(&value, &environment);
            environment.insert(variable.name.clone(), value);
        }
    }
    environment
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

fn value_of(variable: &EnvVar, namespace: &Namespace, pod_name: &str) -> Option<String> {
    if let Some(value) = &variable.value {
        return Some(value.clone());
    }
    let from = variable.value_from.as_ref()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if let Some(reference) = &from.config_map_key_ref {
        return namespace.config_map(&reference.name).remove(&reference.key).map(text);
    }
    if let Some(reference) = &from.secret_key_ref {
        return namespace.secret(&reference.name).remove(&reference.key).map(text);
    }
    let path = from.field_ref.as_ref()?.field_path.as_str();
    let of_pod = |at: &str| namespace.find("Pod", pod_name)?.pointer(at).cloned();
    let entry = |map: &str| path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']");
    let found = match path {
        "metadata.name" => return Some(pod_name.to_owned()),
        "metadata.namespace" => return Some(namespace.name.clone()),
        "spec.nodeName" | "spec.serviceAccountName" => of_pod(&format!("/{}", path.replace('.', "/"))),
        _ => ["labels", "annotations"].iter().find_map(|map| {
            let all = of_pod(&format!("/metadata/{map}"))?;
            all.get(entry(&format!("metadata.{map}"))?).cloned()
        }),
    };
    found?.as_str().map(str::to_owned)
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
