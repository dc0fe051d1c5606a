//! The folders of volumes and containers on this machine, and the mapping from container paths to them.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::Value;

use crate::state::{State, text};

/// Returns the folder of a persistent volume.
pub(crate) fn volume(root: &Path, name: &str) -> PathBuf {
    root.join("volumes").join(name)
}

/// Returns what a pod has beside its persistent volumes.
pub(crate) fn pod(root: &Path, namespace: &str, name: &str) -> PathBuf {
    root.join("pods").join(namespace).join(name)
}

pub(crate) fn remove(folder: &Path) {
    if fs::symlink_metadata(folder).is_ok() {
        let _ = fs::remove_dir_all(folder);
    }
}

/// The file system of a container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// Mount path and folder, the longest path first.
    mounts: Vec<(String, PathBuf)>,
    /// What lies on no volume.
    image: PathBuf,
}

/// Paths that commands need as they are on this machine.
const OF_THIS_MACHINE: [&str; 6] = ["/proc", "/dev", "/bin", "/usr", "/lib", "/tmp"];

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || parent.ends_with('/'))
}

impl Container {
    /// Returns the file system of a pod's container; its Secrets and ConfigMaps are written when it is first looked at.
    pub fn of(state: &State, pod: &Value, container: &Value) -> Container {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let own = self::pod(&state.root, namespace, name);
        let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut mounts = Vec::new();
        for mount in container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten() {
            let Some(found) = volumes.iter().find(|volume| volume["name"] == mount["name"]) else { continue };
            let mut folder = folder_of(state, namespace, &own, found);
            let sub = text(mount, "/subPath");
            if !sub.is_empty() {
                folder.push(sub);
                // The kubelet makes a sub path that is not there.
                if fs::symlink_metadata(&folder).is_err()
                    && found.get("secret").is_none()
                    && found.get("configMap").is_none()
                {
                    let _ = fs::create_dir_all(&folder);
                }
            }
            mounts.push((text(mount, "/mountPath").trim_end_matches('/').to_owned(), folder));
        }
        mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let image = own.join(format!("image-{}", text(container, "/name")));
        let _ = fs::create_dir_all(&image);
        Container { mounts, image }
    }

    /// Returns where an absolute path of the container lies.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(self.translated(path))
    }

    fn translated(&self, path: &str) -> String {
        for (at, folder) in &self.mounts {
            if is_below(path, at) {
                return format!("{}{}", folder.display(), &path[at.len()..]);
            }
        }
        if OF_THIS_MACHINE.iter().any(|known| is_below(path, known)) {
            return path.to_owned();
        }
        format!("{}{path}", self.image.display())
    }

    /// Returns a word of a command: absolute paths as they are on this machine.
    pub fn word(&self, word: &str) -> String {
        if word.starts_with('/') { self.translated(word) } else { word.to_owned() }
    }

    /// Returns a line that a shell will read: every quoted absolute path as it is on this machine.
    pub fn line(&self, line: &[u8]) -> Vec<u8> {
        let Ok(mut rest) = std::str::from_utf8(line) else { return line.to_vec() };
        let mut out = String::with_capacity(rest.len());
        let mut begins = true;
        while let Some(at) = rest.find("'/") {
            let free = (at == 0 && begins) || rest[..at].ends_with(' ');
            out.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            begins = false;
            if free {
                let end = rest.find('\'').unwrap_or(rest.len());
                out.push_str(&self.translated(&rest[..end]));
                rest = &rest[end..];
            }
        }
        out.push_str(rest);
        out.into_bytes()
    }
}

fn folder_of(state: &State, namespace: &str, own: &Path, found: &Value) -> PathBuf {
    let name = text(found, "/name");
    if let Some(claim) = found.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
        let bound = state.find("PersistentVolumeClaim", namespace, claim).map(|claim| text(claim, "/spec/volumeName"));
        return volume(&state.root, bound.unwrap_or("not-bound"));
    }
    if let Some(path) = found.pointer("/hostPath/path").and_then(Value::as_str) {
        let folder = state.root.join("host").join(path.trim_start_matches('/'));
        let _ = fs::create_dir_all(&folder);
        return folder;
    }
    let folder = own.join("volumes").join(name);
    if folder.exists() {
        return folder;
    }
    let _ = fs::create_dir_all(&folder);
    write_source(state, namespace, found, &folder);
    for source in found.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten() {
        write_source(state, namespace, source, &folder);
    }
    folder
}

/// Writes a Secret's or ConfigMap's values as files.
fn write_source(state: &State, namespace: &str, source: &Value, folder: &Path) {
    let (kind, part) = match (source.get("secret"), source.get("configMap")) {
        (Some(part), _) => ("Secret", part),
        (_, Some(part)) => ("ConfigMap", part),
        _ => return,
    };
    let name = part.get("secretName").or(part.get("name")).and_then(Value::as_str).unwrap_or_default();
    let Some(object) = state.find(kind, namespace, name) else { return };
    let decode = |value: &Value| {
        base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
    };
    let items = part.get("items").and_then(Value::as_array);
    for (field, coded) in [("data", kind == "Secret"), ("binaryData", true)] {
        for (key, value) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
            let path = match items {
                None => Some(key.as_str()),
                Some(items) => items.iter().find(|item| text(item, "/key") == key).map(|item| text(item, "/path")),
            };
            let Some(path) = path else { continue };
            let bytes = if coded { decode(value) } else { value.as_str().unwrap_or_default().as_bytes().to_vec() };
            let path = folder.join(path);
            let _ = path.parent().map(fs::create_dir_all);
            let _ = fs::write(path, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_container_lead_to_the_folders_of_its_volumes() {
        let container = Container {
            mounts: vec![("/data/wal".to_owned(), "/x/wal".into()), ("/data".to_owned(), "/x/data".into())],
            image: "/x/image".into(),
        };
        assert_eq!(container.word("/data/wal/a"), "/x/wal/a");
        assert_eq!(container.word("/database"), "/x/image/database");
        assert_eq!(container.word("relative/data"), "relative/data");
        assert_eq!(container.line(b"list '/data' './x' it'\n"), b"list '/x/data' './x' it'\n");
        assert_eq!(container.line(b"p a'/data\n"), b"p a'/data\n");
        assert_eq!(container.word("/proc/self"), "/proc/self");
    }
}
