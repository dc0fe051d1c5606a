//! References to objects of a cluster by namespace, kind and name.

use fabkeep_network::Workload;
use serde::{Deserialize, Serialize};

use crate::Declaration;

/// An object of a cluster: a workload, a Secret, …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// `Deployment`, `StatefulSet`, …
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// Returns an object by its parts.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> ObjectRef {
        ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl From<&Workload> for ObjectRef {
    fn from(workload: &Workload) -> Self {
        ObjectRef::new(&workload.kind, &workload.namespace, &workload.name)
    }
}

impl From<&Declaration> for ObjectRef {
    fn from(known: &Declaration) -> Self {
        ObjectRef::new(&known.kind, &known.namespace, &known.name)
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

impl std::str::FromStr for ObjectRef {
    type Err = String;

    /// From `namespace/kind/name`, as `kubectl` would name it; a Deployment when no kind is given. Of workloads that can be scaled only.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, kind, name) = match parts.as_slice() {
            [namespace, name] => (*namespace, "deployment", *name),
            [namespace, kind, name] => (*namespace, *kind, *name),
            _ => return Err(format!("{text}: write it as namespace/name or namespace/kind/name")),
        };
        let kind = match kind.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" => "Deployment",
            "statefulset" | "statefulsets" | "sts" => "StatefulSet",
            other => return Err(format!("{other}: only a deployment or a statefulset can be scaled to 0")),
        };
        if namespace.is_empty() || name.is_empty() {
            return Err(format!("{text}: write it as namespace/name or namespace/kind/name"));
        }
        Ok(ObjectRef::new(kind, namespace, name))
    }
}
