//! Which nodes serve which: databases and their peers and certificate authorities.

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{DirectorySource, Finding, NodeDirectory, Rule};

use super::workloads::{WorkloadObject, behind};
use super::{FoundNode, View};
use crate::kubernetes::objects::Namespace;

/// Databases and whom they serve; CAs and what serves them.
pub(super) fn relate(all: &[(Namespace, Vec<WorkloadObject>)], found: &mut [FoundNode], findings: &mut Vec<Finding>) {
    let mut links: Vec<(usize, usize)> = Vec::new();
    for (position, node) in found.iter().enumerate() {
        let (host, role) = match node.node.role {
            NodeRole::Peer => {
                let couch =
                    node.environment.get("CORE_LEDGER_STATE_STATEDATABASE").is_some_and(|kind| kind == "CouchDB");
                let address = node.environment.get("CORE_LEDGER_STATE_COUCHDBCONFIG_COUCHDBADDRESS").filter(|_| couch);
                let Some(address) = address else { continue };
                (address.split(':').next().unwrap_or_default().to_owned(), NodeRole::StateDatabase)
            }
            NodeRole::CertificateAuthority => {
                let Some(host) = node.relations.first() else { continue };
                (host.clone(), NodeRole::CaDatabase)
            }
            _ => continue,
        };
        let workload = |node: &FoundNode| node.node.workload.clone();
        let own = workload(node);
        let beside = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1" | "0.0.0.0" | "[::1]");
        let targets = behind(all, &node.node.id.organization, &host);
        let serves = |other: &FoundNode| {
            let Some(theirs) = workload(other) else { return false };
            let same_pod = own.as_ref().is_some_and(|own| {
                (&own.kind, &own.name, own.ordinal, &own.namespace)
                    == (&theirs.kind, &theirs.name, theirs.ordinal, &theirs.namespace)
            });
            // A host of a StatefulSet's pod begins with the pod's name.
            let by_service = targets.iter().any(|target| {
                (&target.kind, &target.name, &target.namespace) == (&theirs.kind, &theirs.name, &theirs.namespace)
            });
            other.node.role == role && if beside { same_pod } else { by_service }
        };
        match found.iter().position(serves) {
            Some(server) => links.push((position, server)),
            None => findings.push(match role {
                NodeRole::StateDatabase => Finding::note(
                    Rule::Recognised,
                    &node.node.id,
                    format!("its state database {host} is not in these namespaces"),
                    "nothing: the peer rebuilds an empty one; it must be there when the peer starts",
                ),
                _ => Finding::warning(
                    Rule::CaDatabase,
                    &node.node.id,
                    format!("its database is at {host}, which is not in these namespaces"),
                    "back that database up beside this recovery point, or name its namespace too (--namespace)",
                ),
            }),
        }
    }
    for node in found.iter_mut() {
        node.relations.clear();
    }
    for (client, server) in links {
        let (client_id, server_id) = (found[client].node.id.clone(), found[server].node.id.clone());
        found[server].relations.push(format!("serves {client_id}"));
        found[client].relations.push(format!("served by {server_id}"));
        add_dump(found, client, server);
        found[client].node.served_by.push(server_id);
    }
    for node in found.iter_mut().filter(|node| node.node.role == NodeRole::CertificateAuthority) {
        node.sql = None;
    }
    for node in found.iter().filter(|node| matches!(node.node.role, NodeRole::CaDatabase | NodeRole::StateDatabase)) {
        if node.relations.is_empty() {
            findings.push(Finding::warning(
                Rule::Recognised,
                &node.node.id,
                format!("a {} whose owner is not known: no node of these namespaces names it", node.node.role),
                "it is captured; leave it out (--exclude) if it has nothing to do with the network",
            ));
        }
    }
    for node in found.iter() {
        if let Some((_, kind, name)) = &node.custom {
            findings.push(Finding::note(
                Rule::OperatorScales,
                &node.node.id,
                format!("it is managed by an operator through {kind} {name}"),
                "a restore keeps the operator scaled down until the data is in",
            ));
        }
    }
}

/// A database server that a certificate authority lets in is dumped, whatever its files do meanwhile. One beside the authority in its pod
/// starts together with it: between the two there is no time to load a dump, so its files are copied.
fn add_dump(found: &mut [FoundNode], client: usize, server: usize) {
    let same_pod = {
        let pod = |node: &FoundNode| {
            node.node.workload.as_ref().map(|known| (known.kind.clone(), known.name.clone(), known.ordinal))
        };
        pod(&found[client]) == pod(&found[server])
    };
    let Some(sql) = found[client].sql.clone().filter(|_| !same_pod) else { return };
    let server = &mut found[server];
    if server.node.role != NodeRole::CaDatabase || server.sql.is_some() {
        return;
    }
    let mut directory = NodeDirectory::new(DirectoryRole::DatabaseDump, format!("{}/database-dump", server.node.id));
    directory.source = DirectorySource::Server;
    // Before its files: with a dump those are left out.
    server.node.directories.insert(0, directory);
    server.views.push(View {
        role: DirectoryRole::DatabaseDump,
        path: sql.to_string(),
        held_by: "the server: dumped by its own tools".to_owned(),
    });
    server.sql = Some(sql);
}
