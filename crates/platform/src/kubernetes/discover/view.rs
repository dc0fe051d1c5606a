//! The discovered network, for people and programs.

use serde::Serialize;

use crate::kubernetes::{Kubernetes, is_fabric};

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct TopologyView {
    /// The cluster's address.
    pub cluster: String,
    /// The namespaces.
    pub namespaces: Vec<String>,
    /// The nodes, organization by organization.
    pub nodes: Vec<NodeView>,
    /// Workloads that are no node.
    pub others: Vec<OtherView>,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    /// `organization/node`.
    pub node: String,
    /// What it is.
    pub role: String,
    /// Its MSP.
    pub msp_id: Option<String>,
    /// Its workload and container.
    pub workload: String,
    /// Its pod, when there is one.
    pub pod: Option<String>,
    /// `running`, `not running`.
    pub state: &'static str,
    /// Its image.
    pub image: String,
    /// What it was recognised by.
    pub recognised_by: String,
    /// Databases, operators, shared claims.
    pub relations: Vec<String>,
    /// Its directories.
    pub directories: Vec<DirectoryView>,
}

/// A directory of a node.
#[derive(Debug, Clone, Serialize)]
pub struct DirectoryView {
    /// What it holds.
    pub role: String,
    /// Where its container sees it.
    pub path: String,
    /// The claim, Secret or ConfigMap that holds it, or that nothing does.
    pub held_by: String,
}

/// A workload that is no node.
#[derive(Debug, Clone, Serialize)]
pub struct OtherView {
    /// Kind, namespace, name.
    pub workload: String,
    /// Its images.
    pub images: Vec<String>,
    /// Claims that it mounts: captured as files.
    pub claims: Vec<String>,
}

impl Kubernetes {
    /// What was found.
    pub fn view(&self) -> TopologyView {
        let nodes = self
            .analysis
            .nodes
            .iter()
            .map(|found| {
                let workload = found.node.workload.as_ref();
                let running =
                    found.pod.as_ref().zip(workload).is_some_and(|(pod, known)| pod.running.contains(&known.container));
                let mut relations = found.relations.clone();
                if let Some((_, kind, name)) = found.custom.as_ref().filter(|_| is_fabric(found)) {
                    relations.push(format!("managed by {kind} {name}"));
                }
                relations.extend(found.shares.iter().map(|claim| format!("shares claim {claim}")));
                NodeView {
                    node: found.node.id.to_string(),
                    role: found.node.role.to_string(),
                    msp_id: found.node.msp_id.clone(),
                    workload: workload.map_or_else(String::new, |known| format!("{known} ({})", known.container)),
                    pod: found.pod.as_ref().map(|pod| pod.name.clone()),
                    state: if running { "running" } else { "not running" },
                    image: found.image.clone(),
                    recognised_by: found.by.clone(),
                    relations,
                    directories: found
                        .views
                        .iter()
                        .map(|view| DirectoryView {
                            role: view.role.to_string(),
                            path: view.path.clone(),
                            held_by: view.held_by.clone(),
                        })
                        .collect(),
                }
            })
            .collect();
        let others = self
            .analysis
            .others
            .iter()
            .map(|other| OtherView {
                workload: other.workload.clone(),
                images: other.images.clone(),
                claims: other.claims.clone(),
            })
            .collect();
        TopologyView { cluster: self.cluster().to_owned(), namespaces: self.namespaces(), nodes, others }
    }
}
