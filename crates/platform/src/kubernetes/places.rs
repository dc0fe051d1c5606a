//! Where captured directories belong in a cluster: among its nodes as they are, or as they will be when objects are created.

use std::collections::BTreeMap;

use fabkeep_ledger::layout::DirectoryRole;
use fabkeep_network::{NodeDirectory, NodeId};

use super::discover::{self, Analysis, FoundNode, mounts};
use super::objects::{self, Namespace, name_of, text};
use super::{Kubernetes, Target};
use crate::{Declaration, PlatformError};

/// A directory of a node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPlace {
    /// The node that mounts it.
    pub node: NodeId,
    /// The directory.
    pub directory: NodeDirectory,
}

impl FoundPlace {
    /// Returns the directory's path in its container.
    pub fn path(&self) -> &str {
        self.directory.mounted_at.as_deref().unwrap_or(&self.directory.path)
    }
}

/// Returns the claim whose content beside the nodes' directories stands for itself under this name.
pub fn claim_of_files(id: &NodeId) -> Option<(String, String)> {
    let claim = id.node.strip_suffix(discover::FILES)?;
    Some((id.organization.clone(), claim.to_owned()))
}

/// The nodes of namespaces as they will be when objects are created in them.
pub struct PlannedNodes(pub(super) Analysis);

impl PlannedNodes {
    /// Returns the place of a captured directory.
    pub fn place(&self, node: &NodeId, captured: &NodeDirectory) -> Option<FoundPlace> {
        place(&self.0, node, captured)
    }

    /// Returns whether a node of this name will be there.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.nodes.iter().any(|found| found.node.id == *node)
    }

    /// Returns when a claim that is there was created.
    pub fn created(&self, namespace: &str, claim: &str) -> Option<jiff::Timestamp> {
        let (known, _) = self.0.all.iter().find(|(known, _)| known.name == namespace)?;
        text(known.find("PersistentVolumeClaim", claim)?, "/metadata/creationTimestamp")?.parse().ok()
    }
}

impl Kubernetes {
    /// Returns the place of a captured directory.
    pub fn place(&self, node: &NodeId, captured: &NodeDirectory) -> Option<FoundPlace> {
        place(&self.analysis, node, captured)
    }
}

impl Target {
    /// Returns the nodes of namespaces when `created` is created in them. `existing` are the namespaces that are there.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when a namespace cannot be read.
    pub fn planned_nodes<'d>(
        &self,
        existing: &[String],
        created: impl Iterator<Item = &'d Declaration>,
    ) -> Result<PlannedNodes, PlatformError> {
        let existing = objects::read_namespaces(&self.connection, existing, false, &mut Vec::new())?;
        Ok(PlannedNodes(analyse_with(existing, created)))
    }
}

/// Returns what namespaces contain with declared objects in them, each in the place of one of its kind and name.
pub(super) fn analyse_with<'d>(existing: Vec<Namespace>, declared: impl Iterator<Item = &'d Declaration>) -> Analysis {
    let mut namespaces: BTreeMap<String, Namespace> =
        existing.into_iter().map(|namespace| (namespace.name.clone(), namespace)).collect();
    for declaration in declared.filter(|declaration| !declaration.namespace.is_empty()) {
        let namespace = namespaces.entry(declaration.namespace.clone()).or_default();
        namespace.name.clone_from(&declaration.namespace);
        let known = namespace.objects.entry(declaration.kind.clone()).or_default();
        known.retain(|object| name_of(object) != declaration.name);
        known.push(declaration.object.clone());
    }
    discover::analyse("", namespaces.into_values().collect())
}

/// Adds bare pods and DaemonSets that are not there yet.
pub(super) fn expect(namespaces: &mut [Namespace], expected: &[Declaration]) {
    for known in expected.iter().filter(|known| matches!(known.kind.as_str(), "Pod" | "DaemonSet")) {
        let Some(namespace) = namespaces.iter_mut().find(|namespace| namespace.name == known.namespace) else {
            continue;
        };
        if namespace.find(&known.kind, &known.name).is_none() {
            namespace.objects.entry(known.kind.clone()).or_default().push(known.object.clone());
        }
    }
}

/// A directory of the same node, role and place. What a claim contains beside the nodes' own directories is a node's or stands for itself,
/// by who else mounts the claim: it is found by the claim.
fn place(analysis: &Analysis, id: &NodeId, captured: &NodeDirectory) -> Option<FoundPlace> {
    let named = analysis.nodes.iter().find(|found| found.node.id == *id);
    if let Some(found) = named {
        let same = |known: &&NodeDirectory| known.role == captured.role && known.source == captured.source;
        let same: Vec<&NodeDirectory> = found.node.directories.iter().filter(same).collect();
        let exact = same.iter().find(|known| known.mounted_at == captured.mounted_at);
        let single = if let [single] = same.as_slice() { Some(single) } else { None };
        if let Some(directory) = exact.or(single) {
            return Some(FoundPlace { node: id.clone(), directory: (*directory).clone() });
        }
    }
    if captured.role != DirectoryRole::Other || !captured.source.is_volume() {
        return None;
    }
    let at = captured.mounted_at.as_deref()?;
    let own = named.and_then(|found| mounts::in_claim(&found.mounts, at));
    let claim = match &own {
        Some((claim, _)) => claim.as_str(),
        None => id.node.strip_suffix(discover::FILES)?,
    };
    let others = analysis.nodes.iter().filter(|found| found.node.id.organization == id.organization);
    let rest = others.flat_map(|found| rest_of(found, claim));
    let mut fitting = rest.filter(|(_, known, inside)| match &own {
        Some((_, own)) => own == inside,
        None => known.mounted_at == captured.mounted_at,
    });
    let (found, directory, _) = fitting.next()?;
    fitting.next().is_none().then(|| FoundPlace { node: found.node.id.clone(), directory: directory.clone() })
}

/// What a node has of a claim beside the nodes' own directories, and where in the claim that is.
fn rest_of<'a>(
    found: &'a FoundNode,
    claim: &'a str,
) -> impl Iterator<Item = (&'a FoundNode, &'a NodeDirectory, String)> {
    let rest = found.node.directories.iter().filter(|known| known.role == DirectoryRole::Other);
    rest.filter_map(move |known| {
        let (holder, inside) = mounts::in_claim(&found.mounts, known.mounted_at.as_deref()?)?;
        (holder == claim).then_some((found, known, inside))
    })
}
