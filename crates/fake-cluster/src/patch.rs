//! The three ways to patch an object: merge patch (RFC 7386), JSON patch (RFC 6902), strategic merge by the `name` of list items.

use serde_json::Value;

/// Applies a merge patch; `null` removes.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// As [`merge`], but items of lists that carry a name are merged by it, as the API server does with containers, volumes and variables.
pub(crate) fn strategic(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    strategic(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(target), Value::Array(patch)) if patch.iter().all(|item| item.get("name").is_some()) => {
            for item in patch {
                match target.iter_mut().find(|known| known.get("name") == item.get("name")) {
                    Some(known) => strategic(known, item),
                    None => target.push(item.clone()),
                }
            }
        }
        (target, patch) => {
            let mut made = Value::Null;
            merge(&mut made, patch);
            *target = made;
        }
    }
}

/// Applies a JSON patch; what is wrong otherwise.
pub(crate) fn json(target: &mut Value, patch: &Value) -> Result<(), String> {
    for operation in patch.as_array().ok_or("a JSON patch is a list")? {
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        let path = text("path").ok_or("an operation without a path")?.to_owned();
        match text("op") {
            Some("add") => add(target, &path, operation.get("value").cloned().unwrap_or_default())?,
            Some("remove") => drop(remove(target, &path)?),
            Some("replace") => {
                remove(target, &path)?;
                add(target, &path, operation.get("value").cloned().unwrap_or_default())?;
            }
            Some("test") if target.pointer(&path) == operation.get("value") => {}
            Some("test") => return Err(format!("the test of {path} failed")),
            Some("move") => {
                let value = remove(target, text("from").unwrap_or_default())?;
                add(target, &path, value)?;
            }
            Some("copy") => {
                let from = text("from").unwrap_or_default();
                let value = target.pointer(from).cloned().ok_or(format!("there is no {from}"))?;
                add(target, &path, value)?;
            }
            other => return Err(format!("operation {other:?} is unknown")),
        }
    }
    Ok(())
}

fn parent<'v>(target: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or(format!("{path:?} is no pointer"))?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = target.pointer_mut(parent).ok_or(format!("there is no {parent}"))?;
    Ok((parent, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let at: usize = key.parse().map_err(|_| format!("{path} names no position"))?;
            if at > list.len() {
                return Err(format!("{path} is behind the list's end"));
            }
            list.insert(at, value);
        }
        _ => return Err(format!("{path} lies in no object")),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let gone = match parent(target, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(list), key) => key.parse::<usize>().ok().filter(|&at| at < list.len()).map(|at| list.remove(at)),
        _ => None,
    };
    gone.ok_or(format!("there is no {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_three_patches_change_what_the_api_server_would_change() {
        let mut object = json!({"a": 1, "l": [{"name": "x", "v": 1}, {"name": "y"}]});
        merge(&mut object, &json!({"a": null, "b": {"c": 2, "d": null}}));
        assert_eq!(object, json!({"b": {"c": 2}, "l": [{"name": "x", "v": 1}, {"name": "y"}]}));
        strategic(&mut object, &json!({"l": [{"name": "x", "v": 3}, {"name": "z"}]}));
        assert_eq!(object["l"], json!([{"name": "x", "v": 3}, {"name": "y"}, {"name": "z"}]));
        let patch = json!([{"op": "test", "path": "/b/c", "value": 2}, {"op": "add", "path": "/b/a~1b", "value": 5},
            {"op": "remove", "path": "/l/0"}, {"op": "replace", "path": "/b/c", "value": 9}, {"op": "add", "path": "/l/-", "value": 1}]);
        assert_eq!(json(&mut object, &patch), Ok(()));
        assert_eq!(object, json!({"b": {"a/b": 5, "c": 9}, "l": [{"name": "y"}, {"name": "z"}, 1]}));
        assert!(json(&mut object, &json!([{"op": "test", "path": "/b/c", "value": 2}])).is_err());
    }
}
