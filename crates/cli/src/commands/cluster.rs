//! The options that select a cluster, and the text form of a discovered network.

use fabkeep_platform::PlatformError;
use fabkeep_platform::kubernetes::{ClusterAddress, HelperOptions, Kubernetes, Selection, TopologyView};

use crate::arguments::Cluster;
use crate::error::CliError;
use crate::output::{Output, table};

impl Cluster {
    /// Returns whether the options speak of a cluster.
    pub fn is_meant(&self) -> bool {
        self.kubernetes
            || !self.namespace.is_empty()
            || self.selector.is_some()
            || self.kubeconfig.is_some()
            || self.context.is_some()
    }

    pub fn address(&self) -> ClusterAddress {
        ClusterAddress { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    pub fn selection(&self) -> Selection {
        Selection {
            namespaces: self.namespace.clone(),
            selector: self.selector.clone(),
            name: self.network_name.clone(),
        }
    }

    pub fn helper(&self) -> HelperOptions {
        HelperOptions {
            image: self.helper_image.clone(),
            snapshot_classes: self.snapshot_class.clone(),
            ..HelperOptions::default()
        }
    }

    pub fn open(&self) -> Result<Kubernetes, CliError> {
        Ok(self.open_network()?)
    }

    /// The same, with the platform's own error.
    pub fn open_network(&self) -> Result<Kubernetes, PlatformError> {
        Kubernetes::open(&self.address(), &self.selection(), self.helper())
    }
}

/// The network as a tree, and its volumes as a table.
pub fn print(view: &TopologyView, output: &Output) {
    output.line(format!("cluster {}", view.cluster));
    for namespace in &view.namespaces {
        output.line(namespace);
        let prefix = format!("{namespace}/");
        for node in view.nodes.iter().filter(|node| node.node.starts_with(&prefix)) {
            let msp = node.msp_id.as_deref().map(|msp| format!(" {msp}")).unwrap_or_default();
            output.line(format!(
                "  {:<10}{}{msp}: {}, {}",
                node.role,
                node.node.strip_prefix(&prefix).unwrap_or(&node.node),
                node.workload,
                node.state
            ));
            for relation in &node.relations {
                output.line(format!("            {relation}"));
            }
        }
        for other in view.others.iter().filter(|other| other.workload.contains(&format!(" {prefix}"))) {
            let claims = if other.claims.is_empty() {
                String::new()
            } else {
                format!(", claims {} captured as files", other.claims.join(", "))
            };
            output.line(format!("  {:<10}{} ({}){claims}", "no node", other.workload, other.images.join(", ")));
        }
    }
    let mut table = table(["node", "holds", "path", "held by"]);
    for node in &view.nodes {
        for directory in &node.directories {
            table.add_row([
                node.node.clone(),
                directory.role.clone(),
                directory.path.clone(),
                directory.held_by.clone(),
            ]);
        }
    }
    output.line(table.to_string());
}
