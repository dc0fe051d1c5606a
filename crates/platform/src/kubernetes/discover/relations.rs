//! Relations between nodes: peers and certificate authorities, and the databases that serve them.

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{DirectorySource, Finding, NodeDirectory, OrLeaveOut, Remedy, Rule, Workload};

use super::workloads::{WorkloadObject, behind};
use super::{FoundNode, View, Wanted};
use crate::kubernetes::objects::Namespace;

/// The server that a node names.
struct Server<'a> {
    role: NodeRole,
    host: &'a str,
    /// It is in the node's own pod.
    beside: bool,
    /// What its host leads to.
    targets: Vec<(&'a WorkloadObject, Option<u32>)>,
}

impl<'a> Server<'a> {
    fn of(all: &'a [(Namespace, Vec<WorkloadObject>)], node: &'a FoundNode) -> Option<Self> {
        let (role, host) = node.server.as_ref()?;
        let beside = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1" | "0.0.0.0" | "[::1]");
        let targets = behind(all, &node.node.id.organization, host);
        Some(Server { role: *role, host, beside, targets })
    }

    fn is(&self, client: &FoundNode, other: &FoundNode) -> bool {
        let (Some(own), Some(theirs)) = (&client.node.workload, &other.node.workload) else { return false };
        let leads_there = if self.beside {
            is_same(own, theirs) && own.ordinal == theirs.ordinal && client.pod_name() == other.pod_name()
        } else {
            self.targets.iter().any(|(target, ordinal)| {
                target.runs(theirs, other.pod.as_ref()) && (ordinal.is_none() || *ordinal == theirs.ordinal)
            })
        };
        other.node.role == self.role && leads_there
    }

    /// Behind one Service for several, each client has the server of its own number, when there are as many of them.
    fn find(&self, found: &[FoundNode], client: &FoundNode) -> Option<usize> {
        let servers: Vec<usize> = (0..found.len()).filter(|&at| self.is(client, &found[at])).collect();
        let own = client.node.workload.as_ref()?;
        let of_own = |node: &&FoundNode| node.node.workload.as_ref().is_some_and(|known| is_same(own, known));
        let clients = found.iter().filter(|node| node.node.role == client.node.role).filter(of_own).count();
        let has_number =
            |at: &&usize| found[**at].node.workload.as_ref().is_some_and(|known| known.ordinal == own.ordinal);
        let same = servers.iter().find(has_number).filter(|_| own.ordinal.is_some() && clients == servers.len());
        same.or(servers.first()).copied()
    }
}

fn is_same(a: &Workload, b: &Workload) -> bool {
    (&a.kind, &a.namespace, &a.name) == (&b.kind, &b.namespace, &b.name)
}

/// The workloads that nodes name as their servers and that are not recognised as such.
pub(super) fn wanted(all: &[(Namespace, Vec<WorkloadObject>)], found: &[FoundNode]) -> Wanted {
    let mut out = Wanted::new();
    for node in found {
        let Some(server) = Server::of(all, node).filter(|server| server.find(found, node).is_none()) else { continue };
        match &node.node.workload {
            Some(own) if server.beside => {
                let all = all.iter().flat_map(|(_, workloads)| workloads);
                let own = all.filter(|workload| workload.runs(own, node.pod.as_ref()));
                out.extend(own.map(|workload| (workload.key(), server.role)));
            }
            _ => out.extend(server.targets.iter().map(|(target, _)| (target.key(), server.role))),
        }
    }
    out
}

/// Databases and whom they serve; CAs and what serves them.
pub(super) fn relate(all: &[(Namespace, Vec<WorkloadObject>)], found: &mut [FoundNode], findings: &mut Vec<Finding>) {
    let mut links: Vec<(usize, usize)> = Vec::new();
    for (position, node) in found.iter().enumerate() {
        let Some(server) = Server::of(all, node) else { continue };
        let host = server.host;
        let place = match server.targets.first() {
            Some((target, _)) => format!("points to {}, where no such server was found", target.label()),
            None => "is not in these namespaces".to_owned(),
        };
        match server.find(found, node) {
            Some(server) => links.push((position, server)),
            None => findings.push(match server.role {
                NodeRole::StateDatabase => Finding::note(
                    Rule::Recognised,
                    &node.node.id,
                    format!("its state database {host} {place}"),
                    "no action is needed: the peer rebuilds an empty one; it must exist when the peer starts",
                ),
                _ => Finding::warning(
                    Rule::CaDatabase,
                    &node.node.id,
                    format!("its database server {host} {place}"),
                    Remedy::from("back that database up separately").or(Remedy::NameNamespaces),
                ),
            }),
        }
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
                format!("a {} whose owner is unknown: no node of these namespaces names it", node.node.role),
                OrLeaveOut("no action is needed if it belongs to the network"),
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
            let workload = node.node.workload.as_ref();
            workload.map(|known| (known.kind.clone(), known.name.clone(), known.ordinal, node.pod_name().cloned()))
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
