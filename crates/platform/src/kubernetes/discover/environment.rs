//! The environment of a container's processes, as far as the API shows it.

use std::collections::BTreeMap;

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
    match from.field_ref.as_ref()?.field_path.as_str() {
        "metadata.name" => Some(pod_name.to_owned()),
        "metadata.namespace" => Some(namespace.name.clone()),
        _ => None,
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
