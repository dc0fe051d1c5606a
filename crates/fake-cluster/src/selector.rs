//! Label and field selectors of list and watch requests.

use serde_json::Value;

/// What a list is limited to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    pub labels: String,
    pub fields: String,
}

impl Selector {
    pub fn matches(&self, object: &Value) -> bool {
        terms(&self.labels).all(|term| label_matches(term, object))
            && terms(&self.fields).all(|term| field_matches(term, object))
    }
}

/// Terms between commas, those in brackets apart.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn label_matches(term: &str, object: &Value) -> bool {
    let label =
        |name: &str| object.pointer("/metadata/labels").and_then(|all| all.get(name.trim())).and_then(Value::as_str);
    let listed = |set: &str, value: Option<&str>| {
        let set = set.trim().trim_start_matches('(').trim_end_matches(')');
        value.is_some_and(|value| set.split(',').any(|item| item.trim() == value))
    };
    if let Some((name, set)) = term.split_once(" notin ") {
        !listed(set, label(name))
    } else if let Some((name, set)) = term.split_once(" in ") {
        listed(set, label(name))
    } else if let Some((name, value)) = term.split_once("!=") {
        label(name) != Some(value.trim())
    } else if let Some((name, value)) = term.split_once("==").or(term.split_once('=')) {
        label(name) == Some(value.trim())
    } else if let Some(name) = term.strip_prefix('!') {
        label(name).is_none()
    } else {
        label(term).is_some()
    }
}

fn field_matches(term: &str, object: &Value) -> bool {
    let (path, value, wanted) = match (term.split_once("!="), term.split_once("==").or(term.split_once('='))) {
        (Some((path, value)), _) => (path, value, false),
        (None, Some((path, value))) => (path, value, true),
        _ => return true,
    };
    let pointer = format!("/{}", path.trim().replace('.', "/"));
    (object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default() == value.trim()) == wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_read_as_kubectl_writes_them() {
        let object =
            json!({"metadata": {"name": "p", "labels": {"app": "peer", "tier": "a"}}, "status": {"phase": "Running"}});
        let labels = |text: &str| Selector { labels: text.to_owned(), fields: String::new() }.matches(&object);
        for yes in ["app=peer", "app==peer,tier", "app in (peer, orderer),tier!=b", "!none", "tier notin (b)", ""] {
            assert!(labels(yes), "{yes}");
        }
        for no in ["app=orderer", "none", "app in (x)", "!app", "app!=peer"] {
            assert!(!labels(no), "{no}");
        }
        let fields = |text: &str| Selector { labels: String::new(), fields: text.to_owned() }.matches(&object);
        assert!(fields("metadata.name=p,status.phase!=Failed") && !fields("metadata.name=q"));
    }
}
