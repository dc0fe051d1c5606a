//! Resolves a path in a container to its storage: the deepest mount, and the volume of that mount.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume as PodVolumeSpec};
use serde_json::Value;

use super::environment::{Resolved, expand_known};
use super::mounted::MountedFiles;
use crate::kubernetes::objects::{Namespace, name_of};

/// What a volume of a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A PersistentVolumeClaim.
    Claim(String),
    /// Secrets, ConfigMaps, alone or projected together.
    Objects(Vec<Projection>),
    /// Gone with the pod.
    Ephemeral(String),
    /// A directory of the Kubernetes node: it stays, on that node.
    HostPath(String),
    /// Something else that outlives the pod (NFS, a CSI driver's inline volume): described.
    Other(String),
}

/// Keys of a Secret or ConfigMap as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Projection {
    pub secret: bool,
    pub name: String,
    /// Key and path; `None`: every key under its own name.
    pub items: Option<Vec<(String, String)>>,
    pub mode: u32,
    /// The pod starts without it too.
    pub optional: bool,
}

impl Holder {
    /// Returns what it is, without how long it lasts.
    pub fn what(&self) -> String {
        if let Holder::Ephemeral(what) = self { what.clone() } else { self.to_string() }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holder::Claim(name) => write!(f, "claim {name}"),
            Holder::Objects(projections) => {
                let names: Vec<String> = projections
                    .iter()
                    .map(|known| format!("{} {}", if known.secret { "secret" } else { "configmap" }, known.name))
                    .collect();
                f.write_str(&names.join(" + "))
            }
            Holder::Ephemeral(what) => write!(f, "not persistent ({what})"),
            Holder::HostPath(path) => write!(f, "hostPath {path}"),
            Holder::Other(what) => f.write_str(what),
        }
    }
}

/// A mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where the container sees it; no slash at the end.
    pub path: String,
    /// The pod's name of the volume.
    pub volume: String,
    /// The part of the volume that is seen; empty: all.
    pub sub_path: String,
    pub holder: Holder,
    /// The part of the volume has a name that is known only while its pod runs: nothing can be read there otherwise.
    pub unnamed: Option<Unnamed>,
}

/// What is not known of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unnamed {
    /// The variable without a value.
    pub variable: String,
    /// The claim of which a part is mounted.
    pub claim: Option<String>,
}

/// Removes `.`, `..`, doubled and closing slashes.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `path` relative to `root`, if it is `root` or lies in it.
pub(crate) fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    if root == "/" {
        return path.strip_prefix('/');
    }
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

/// The mounts of a container, shortest path first. `claims` are those of a StatefulSet's templates: volume name and claim.
pub(crate) fn mounts(
    spec: &PodSpec,
    container: &Container,
    resolved: &Resolved,
    claims: &[(String, String)],
) -> Vec<Mount> {
    let mut out = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(expression)) => expand_known(expression, resolved),
            _ => Ok(String::new()),
        };
        let template = claims.iter().find(|(volume, _)| *volume == mount.name);
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let holder = match (template, volume) {
            (Some((_, claim)), _) => Holder::Claim(claim.clone()),
            (None, Some(volume)) => holder(volume),
            (None, None) => Holder::Other(format!("volume {}, which the pod does not declare", mount.name)),
        };
        let (path, volume) = (normal(&mount.mount_path), mount.name.clone());
        out.push(match sub_path {
            Ok(sub_path) => {
                let sub_path = normal(&sub_path).trim_start_matches('/').to_owned();
                Mount { path, volume, sub_path, holder, unnamed: None }
            }
            Err(variable) => {
                let what = format!("a folder of {} named by $({variable})", holder.what());
                let claim = if let Holder::Claim(claim) = holder { Some(claim) } else { None };
                let (sub_path, holder) = (String::new(), Holder::Ephemeral(what));
                Mount { path, volume, sub_path, holder, unnamed: Some(Unnamed { variable, claim }) }
            }
        });
    }
    out.sort_by(|a, b| (a.path.len(), &a.path).cmp(&(b.path.len(), &b.path)));
    out
}

fn holder(volume: &PodVolumeSpec) -> Holder {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Holder::Claim(claim.claim_name.clone());
    }
    let items = |items: &Option<Vec<k8s_openapi::api::core::v1::KeyToPath>>| {
        items.as_ref().map(|items| items.iter().map(|item| (item.key.clone(), item.path.clone())).collect())
    };
    let mode = |mode: Option<i32>| u32::try_from(mode.unwrap_or(0o644)).unwrap_or(0o644);
    if let Some(secret) = &volume.secret {
        return Holder::Objects(vec![Projection {
            secret: true,
            name: secret.secret_name.clone().unwrap_or_default(),
            items: items(&secret.items),
            mode: mode(secret.default_mode),
            optional: secret.optional == Some(true),
        }]);
    }
    if let Some(map) = &volume.config_map {
        return Holder::Objects(vec![Projection {
            secret: false,
            name: map.name.clone(),
            items: items(&map.items),
            mode: mode(map.default_mode),
            optional: map.optional == Some(true),
        }]);
    }
    if let Some(projected) = &volume.projected {
        let mut projections = Vec::new();
        for source in projected.sources.iter().flatten() {
            let mode = mode(projected.default_mode);
            if let Some(secret) = &source.secret {
                let (name, items, optional) =
                    (secret.name.clone(), items(&secret.items), secret.optional == Some(true));
                projections.push(Projection { secret: true, name, items, mode, optional });
            }
            if let Some(map) = &source.config_map {
                let (name, items, optional) = (map.name.clone(), items(&map.items), map.optional == Some(true));
                projections.push(Projection { secret: false, name, items, mode, optional });
            }
        }
        return if projections.is_empty() {
            Holder::Ephemeral("projected token".to_owned())
        } else {
            Holder::Objects(projections)
        };
    }
    if volume.empty_dir.is_some() {
        return Holder::Ephemeral("emptyDir".to_owned());
    }
    if volume.downward_api.is_some() {
        return Holder::Ephemeral("downward API".to_owned());
    }
    if volume.ephemeral.is_some() {
        return Holder::Ephemeral("ephemeral volume".to_owned());
    }
    if let Some(path) = &volume.host_path {
        return Holder::HostPath(path.path.clone());
    }
    if let Some(nfs) = &volume.nfs {
        return Holder::Other(format!("NFS {}:{}", nfs.server, nfs.path));
    }
    if let Some(csi) = &volume.csi {
        // Inline CSI volumes are made with the pod: keys from a vault, certificates from cert-manager.
        return Holder::Ephemeral(format!("an inline CSI volume of {}", csi.driver));
    }
    Holder::Other(format!("volume {}", volume.name))
}

/// The deepest mount that holds a path.
pub(crate) fn holding<'a>(mounts: &'a [Mount], path: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| below(path, &mount.path).is_some())
}

/// Mounts below a path, not at it.
pub(crate) fn nested<'a>(mounts: &'a [Mount], path: &'a str) -> impl Iterator<Item = (&'a Mount, &'a str)> {
    mounts
        .iter()
        .filter_map(move |mount| Some((mount, below(&mount.path, path)?)))
        .filter(|(_, inside)| !inside.is_empty())
}

/// Where a path lies in what outlives its pod: the volume, and the path inside without slash at the front; of a directory of the Kubernetes
/// node, its path there.
pub(crate) fn in_volume<'a>(mounts: &'a [Mount], path: &str) -> Option<(&'a Holder, String)> {
    let mount = holding(mounts, path)?;
    let root = match &mount.holder {
        Holder::Objects(_) | Holder::Ephemeral(_) => return None,
        Holder::HostPath(path) => path.trim_matches('/'),
        Holder::Claim(_) | Holder::Other(_) => "",
    };
    let parts = [root, mount.sub_path.as_str(), below(path, &mount.path)?];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Some((&mount.holder, parts.join("/")))
}

/// The same of a claim.
pub(crate) fn in_claim(mounts: &[Mount], path: &str) -> Option<(String, String)> {
    let (Holder::Claim(claim), inside) = in_volume(mounts, path)? else { return None };
    Some((claim.clone(), inside))
}

/// The files that Secrets and ConfigMaps put below a path of the container.
pub(crate) fn object_files(mounts: &[Mount], namespace: &Namespace, path: &str) -> MountedFiles {
    let mut out = MountedFiles::new();
    for mount in mounts {
        let Holder::Objects(projections) = &mount.holder else { continue };
        // Only where this mount is the one that is seen.
        for (name, (bytes, mode)) in projected(projections, namespace) {
            let full = match mount.sub_path.as_str() {
                "" => format!("{}/{name}", mount.path),
                // One key, mounted as one file, or a folder of the projection.
                sub if name == sub => mount.path.clone(),
                sub => match below(&name, sub) {
                    Some(rest) => format!("{}/{rest}", mount.path),
                    None => continue,
                },
            };
            let seen = holding(mounts, &full).is_some_and(|seen| seen.path == mount.path);
            if let Some(inside) = below(&full, path).filter(|inside| seen && !inside.is_empty()) {
                out.insert(inside.to_owned(), (bytes, mode));
            }
        }
    }
    out
}

/// The text of a file that a Secret or ConfigMap puts there.
pub(crate) fn object_text(mounts: &[Mount], namespace: &Namespace, path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/')?;
    let (bytes, _) = object_files(mounts, namespace, &normal(folder)).remove(name)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the Secret or ConfigMap of a projection holds, by key.
fn values(projection: &Projection, namespace: &Namespace) -> BTreeMap<String, Vec<u8>> {
    if projection.secret { namespace.secret(&projection.name) } else { namespace.config_map(&projection.name) }
}

fn projected(projections: &[Projection], namespace: &Namespace) -> MountedFiles {
    let mut out = MountedFiles::new();
    for projection in projections {
        let mut values = values(projection, namespace);
        match &projection.items {
            None => out.extend(values.into_iter().map(|(key, value)| (key, (Arc::from(value), projection.mode)))),
            Some(items) => {
                for (key, path) in items {
                    if let Some(value) = values.remove(key) {
                        out.insert(path.clone(), (Arc::from(value), projection.mode));
                    }
                }
            }
        }
    }
    out
}

/// Secrets and ConfigMaps, and keys of them, that mounts need and the namespace does not have.
pub(crate) fn missing_objects(mounts: &[Mount], namespace: &Namespace) -> Vec<String> {
    let mut out = Vec::new();
    for mount in mounts {
        let Holder::Objects(projections) = &mount.holder else { continue };
        for projection in projections.iter().filter(|projection| !projection.optional) {
            let kind = if projection.secret { "Secret" } else { "ConfigMap" };
            let object = format!("{kind} {}", projection.name);
            if namespace.find(kind, &projection.name).is_none() {
                out.push(object);
                continue;
            }
            let values = values(projection, namespace);
            let wanted = projection.items.iter().flatten().filter(|(key, _)| !values.contains_key(key));
            out.extend(wanted.map(|(key, _)| format!("{key} of {object}")));
        }
    }
    out.sort();
    out.dedup();
    out
}

/// A claim's size and class, for people.
pub(crate) fn claim_label(namespace: &Namespace, claim: &str) -> String {
    let Some(object) = namespace.of_kind("PersistentVolumeClaim").iter().find(|object| name_of(object) == claim) else {
        return format!("claim {claim} (missing)");
    };
    let at = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("?").to_owned();
    format!("claim {claim} ({}, {})", at("/spec/resources/requests/storage"), at("/spec/storageClassName"))
}
