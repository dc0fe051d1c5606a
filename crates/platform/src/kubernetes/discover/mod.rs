//! Derives a network from the objects of namespaces: the nodes, what each needs, and where that is stored. Nothing here queries the
//! cluster, so that the objects of a recovery point can be examined in the same way.

pub(crate) mod authority;
mod command;
mod configuration;
mod environment;
pub mod mounted;
pub mod mounts;
mod recognise;
mod relations;
mod rest;
mod script;
pub mod view;
pub mod workloads;

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::kept_environment;
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{
    DirectorySource, Finding, Network, Node, NodeDirectory, NodeId, OrLeaveOut, Organization, Rule, Workload,
};

use crate::kubernetes::objects::Namespace;
use crate::sql::SqlDatabase;
use configuration::{Configured, ConfiguredPath, ContainerView};
use environment::OfPod;
use mounts::{Holder, Mount, below, holding};
use recognise::{Certainty, Doubt, Recognised, recognise};
pub(crate) use rest::FILES;
use workloads::{Instance, LivePod, WorkloadObject, lasting_containers, workloads};

/// A node as it was found.
#[derive(Debug, Clone)]
pub(crate) struct FoundNode {
    pub node: Node,
    pub by: String,
    pub image: String,
    pub mounts: Vec<Mount>,
    pub pod: Option<LivePod>,
    pub views: Vec<View>,
    /// What it serves, or what it is served by, in words.
    pub relations: Vec<String>,
    pub custom: Option<(String, String, String)>,
    /// Other workloads' pods share a claim with it.
    pub shares: BTreeSet<String>,
    /// Of a certificate authority: the server's database that it keeps its identities in; of such a server: that database.
    pub sql: Option<SqlDatabase>,
    /// The server that it keeps its data in, and that server's host.
    server: Option<(NodeRole, String)>,
}

impl FoundNode {
    /// Returns the name of its pod.
    pub fn pod_name(&self) -> Option<&String> {
        self.pod.as_ref().map(|pod| &pod.name)
    }
}

/// A directory and what holds it, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub role: DirectoryRole,
    pub path: String,
    pub held_by: String,
}

/// A workload that is no node of a network, as far as can be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    pub workload: String,
    pub images: Vec<String>,
    pub claims: Vec<String>,
}

/// What namespaces hold.
#[derive(Debug, Clone)]
pub(crate) struct Analysis {
    pub network: Network,
    pub nodes: Vec<FoundNode>,
    pub others: Vec<Other>,
    pub findings: Vec<Finding>,
    /// Those of them that tell of workloads that may be nodes.
    pub doubts: Vec<Finding>,
    pub all: Vec<(Namespace, Vec<WorkloadObject>)>,
}

/// What workloads (namespace, kind, name) are to nodes that name them.
type Wanted = BTreeMap<(String, String, String), NodeRole>;

/// What workloads are, one by one.
#[derive(Default)]
struct Recognition {
    found: Vec<FoundNode>,
    others: Vec<Other>,
    findings: Vec<Finding>,
    doubts: Vec<Finding>,
    /// Names of nodes.
    names: BTreeSet<NodeId>,
}

impl Recognition {
    fn of(all: &[(Namespace, Vec<WorkloadObject>)], wanted: &Wanted) -> Self {
        let mut out = Recognition::default();
        for (namespace, workload) in
            all.iter().flat_map(|(namespace, all)| all.iter().map(move |known| (namespace, known)))
        {
            let wanted = wanted.get(&workload.key()).copied();
            let nodes = out.look_at(namespace, workload, wanted);
            if nodes.iter().all(|node| node.node.role == NodeRole::Files) {
                let claims = nodes.iter().flat_map(|node| claims_of(&node.mounts)).collect();
                let images = workload.spec.containers.iter().filter_map(|container| container.image.clone()).collect();
                out.others.push(Other { workload: workload.label(), images, claims });
            }
            out.found.extend(nodes);
        }
        out
    }

    /// Returns a node's name that no other node has: two workloads of different kinds may call their pods the same.
    fn unique(&mut self, namespace: &Namespace, workload: &WorkloadObject, name: String) -> NodeId {
        let id = |node: String| NodeId { organization: namespace.name.clone(), node };
        let kind = workload.kind.to_lowercase();
        let others = (1_u32..).map(|number| match number {
            1 => format!("{name}.{kind}"),
            _ => format!("{name}.{kind}.{number}"),
        });
        // That ending is of claims' content.
        let is_free = |known: &NodeId| !self.names.contains(known) && !known.node.ends_with(FILES);
        let free = std::iter::once(name.clone()).chain(others).map(id).find(is_free);
        let free = free.unwrap_or_else(|| id(name));
        self.names.insert(free.clone());
        free
    }

    /// The nodes of a workload's pods. A container with claims that is no node counts as files.
    fn look_at(
        &mut self,
        namespace: &Namespace,
        workload: &WorkloadObject,
        wanted: Option<NodeRole>,
    ) -> Vec<FoundNode> {
        let mut out = Vec::new();
        let pods = workload.replicas.max(u32::try_from(workload.pods.len()).unwrap_or(u32::MAX));
        for Instance { name: pod_name, ordinal, claims } in workload.instances(namespace) {
            let several = ordinal.is_none() && pods > 1;
            let pod = workload.pod(ordinal).cloned();
            let live_name = pod.as_ref().map_or(pod_name.clone(), |pod| pod.name.clone());
            let hostname = workload.spec.hostname.as_ref().unwrap_or(&live_name);
            let named_later = pod.is_none() && !workload.names_its_pods();
            let of_pod = OfPod { workload, ordinal, name: &live_name, named_later };
            let mut recognised: Vec<(Option<Recognised>, ContainerView<'_>)> = Vec::new();
            let mut all_words = Vec::new();
            for container in lasting_containers(&workload.spec) {
                let resolved = environment::resolve(container, namespace, of_pod);
                let mounts = mounts::mounts(&workload.spec, container, &resolved, &claims);
                let mut environment = resolved.environment;
                let text = |path: &str| mounts::object_text(&mounts, namespace, path);
                let read = |role| script::read(container, &environment, hostname, &text, role);
                let all = read(None);
                let chosen = command::chosen(container, &environment, &all.words);
                let script::Read { words, settings, unknown } = chosen.map_or(all, |role| read(Some(role)));
                environment.extend(settings);
                let unknown_options = command::add_flags(&words, &mut environment);
                let custom = workload.custom.as_ref().map(|(_, kind, _)| kind.as_str());
                let role = recognise(container, &words, &environment, custom);
                recognised.push((
                    role,
                    ContainerView { namespace, container, environment, mounts, unknown, unknown_options },
                ));
                all_words.push(words);
            }
            if let Some(role) = wanted {
                recognise::give(role, &mut recognised);
            }
            let is_fabric = |found: &Recognised| {
                matches!(found.role, NodeRole::Peer | NodeRole::Orderer | NodeRole::CertificateAuthority)
            };
            // The Fabric node of the pod has the pod's name; what is beside it has its container's name too. What is known by its program
            // comes first.
            let of_fabric = |all: &[(Option<Recognised>, ContainerView<'_>)]| {
                all.iter().position(|(found, _)| found.as_ref().is_some_and(is_fabric))
            };
            let known = of_fabric(&recognised);
            let doubts = recognise::recognise_by_evidence(&mut recognised, &all_words);
            self.doubts.extend(doubts.iter().map(|(at, doubt)| may_be(workload, &recognised[*at].1, doubt)));
            let main = known.or_else(|| of_fabric(&recognised));
            let main = main.or_else(|| recognised.iter().position(|(role, _)| role.is_some())).unwrap_or(0);
            for (position, (role, looked)) in recognised.into_iter().enumerate() {
                if role.is_none() && claims_of(&looked.mounts).is_empty() {
                    continue;
                }
                let node_name =
                    if position == main { pod_name.clone() } else { format!("{pod_name}.{}", looked.container.name) };
                let id = match role {
                    Some(_) => self.unique(namespace, workload, node_name),
                    None => NodeId { organization: namespace.name.clone(), node: node_name },
                };
                let node = found_node(id, role, &looked, workload, ordinal, pod.clone(), &mut self.findings);
                if several && !matches!(node.node.role, NodeRole::Chaincode | NodeRole::Files) {
                    self.findings.push(several_pods(workload, &node, pods));
                }
                out.push(node);
            }
        }
        out
    }
}

/// Looks at namespaces.
pub(crate) fn analyse(name: &str, namespaces: Vec<Namespace>) -> Analysis {
    let mut unread = Vec::new();
    let all: Vec<(Namespace, Vec<WorkloadObject>)> =
        namespaces.into_iter().map(|namespace| (namespace.clone(), workloads(&namespace, &mut unread))).collect();
    let mut looked = Recognition::of(&all, &Wanted::new());
    // A database server whose image and environment say nothing is known by the nodes that name it.
    let wanted = relations::wanted(&all, &looked.found);
    if !wanted.is_empty() {
        looked = Recognition::of(&all, &wanted);
    }
    let Recognition { mut found, others, mut findings, doubts, .. } = looked;
    findings.extend(unread);
    findings.extend(doubts.iter().cloned());
    relations::relate(&all, &mut found, &mut findings);
    rest::add_rest(&mut found, &mut findings);
    rest::exclude_others(&mut found);
    found.retain(|node| node.node.role != NodeRole::Files || !node.node.directories.is_empty());
    rest::check_claims(&all, &found, &mut findings);
    found.sort_by(|a, b| {
        (&a.node.id.organization, a.node.role, &a.node.id.node).cmp(&(
            &b.node.id.organization,
            b.node.role,
            &b.node.id.node,
        ))
    });
    let organizations = all
        .iter()
        .map(|(namespace, _)| Organization {
            name: namespace.name.clone(),
            nodes: found
                .iter()
                .filter(|node| node.node.id.organization == namespace.name)
                .map(|node| node.node.clone())
                .collect(),
        })
        .collect();
    Analysis { network: Network { name: name.to_owned(), organizations }, nodes: found, others, findings, doubts, all }
}

fn claims_of(mounts: &[Mount]) -> Vec<String> {
    let mut claims: Vec<String> = mounts
        .iter()
        .filter_map(|mount| match &mount.holder {
            Holder::Claim(claim) => Some(claim.clone()),
            _ => None,
        })
        .collect();
    claims.sort();
    claims.dedup();
    claims
}

/// Claims that a node's container mounts: namespace and name.
pub(crate) fn claims_of_node(node: &FoundNode) -> Vec<(String, String)> {
    claims_of(&node.mounts).into_iter().map(|claim| (node.node.id.organization.clone(), claim)).collect()
}

/// A container that may be a node.
fn may_be(workload: &WorkloadObject, looked: &ContainerView<'_>, doubt: &Doubt) -> Finding {
    Finding::warning(
        Rule::Recognised,
        workload.label(),
        format!(
            "its container {} may be a node ({}), by {}: neither its command nor a volume at its data directory tells, and it is not captured as one",
            looked.container.name, doubt.role, doubt.by
        ),
        "look whether it is one: then start the node by its command in the workload, or set the variable of its data directory there",
    )
}

/// Several pods of one node: each may have data of its own.
fn several_pods(workload: &WorkloadObject, node: &FoundNode, pods: u32) -> Finding {
    let names: Vec<&str> = workload.pods.iter().map(|pod| pod.name.as_str()).collect();
    let is_data = |role| {
        matches!(
            role,
            DirectoryRole::PeerData | DirectoryRole::OrdererLedger | DirectoryRole::CaHome | DirectoryRole::Database
        )
    };
    let apart = |directory: &NodeDirectory| {
        let holder =
            directory.mounted_at.as_deref().and_then(|at| holding(&node.mounts, at)).map(|mount| &mount.holder);
        is_data(directory.role) && !matches!(holder, Some(Holder::Claim(_) | Holder::Other(_)))
    };
    // A DaemonSet's pods that do not run have left their data on their machines.
    let gone = if workload.kind == "DaemonSet" { (pods as usize).saturating_sub(names.len()) } else { 0 };
    if names.len() + gone > 1 && node.node.directories.iter().any(apart) {
        let gone = if gone > 0 { format!(" and {gone} that are not there") } else { String::new() };
        return Finding::error(
            Rule::Recognised,
            &node.node.id,
            format!(
                "its pods {}{gone} have data of their own, and only that of {} is captured",
                names.join(", "),
                node.pod.as_ref().map_or("none", |pod| &pod.name)
            ),
            OrLeaveOut("give each of them a workload of its own, or one StatefulSet with claims"),
        );
    }
    Finding::warning(
        Rule::Recognised,
        &node.node.id,
        format!("{} has {pods} pods of one node", workload.label()),
        "a node's data can be open in only one pod: check the workload; the first pod is captured",
    )
}

fn found_node(
    id: NodeId,
    recognised: Option<Recognised>,
    looked: &ContainerView<'_>,
    workload: &WorkloadObject,
    ordinal: Option<u32>,
    pod: Option<LivePod>,
    findings: &mut Vec<Finding>,
) -> FoundNode {
    let role = recognised.as_ref().map_or(NodeRole::Files, |found| found.role);
    if let Some(half) = recognised.as_ref().filter(|found| found.certainty == Certainty::Half) {
        findings.push(Finding::warning(
            Rule::Recognised,
            &id,
            format!("only partly recognised as {role}: by {}", half.by),
            OrLeaveOut("no action is needed if it is one"),
        ));
    }
    for mount in looked.mounts.iter().filter(|_| role != NodeRole::Files) {
        if let Some(unnamed) = &mount.unnamed {
            findings.push(Finding::error(
                Rule::NotPersistent,
                &id,
                format!(
                    "what it mounts at {} is {}, and that variable has no value before its pod runs: it cannot be read without the pod, and not be restored",
                    mount.path, mount.holder.what()
                ),
                format!("give {} a value that does not depend on the pod, or name the folder in the mount (subPath)", unnamed.variable),
            ));
        }
    }
    let Configured { named, msp_id, operations, participation, server } = looked.configured(role);
    let mut views = Vec::new();
    let mut directories = Vec::new();
    for known in &named {
        add_directories(known, &id, role, looked, pod.is_some(), &mut directories, &mut views, findings);
    }
    for name in looked.unknown.iter().filter(|_| role != NodeRole::Files) {
        findings.push(Finding::warning(
            Rule::Recognised,
            &id,
            format!("its script sets {name} to a value that is known only when it runs"),
            "check whether its directories are correct; otherwise set the variable in the container's environment",
        ));
    }
    if looked.unknown_options && role == NodeRole::CertificateAuthority {
        findings.push(Finding::warning(
            Rule::Recognised,
            &id,
            "options of its command are known only when it runs",
            "check whether its directories are correct; otherwise write the options into the command, or set the variables of the same names (FABRIC_CA_SERVER_…)",
        ));
    }
    if !workload.is_known() && role != NodeRole::Files {
        findings.push(Finding::warning(
            Rule::Recognised,
            &id,
            format!(
                "its pods are created by {} {}, a kind of controller that fabkeep cannot scale",
                workload.kind, workload.name
            ),
            "scale it down by hand before a restore, and up afterwards",
        ));
    }
    let mounted = mounts::missing_objects(&looked.mounts, looked.namespace).into_iter().map(|what| ("it mounts", what));
    let named = environment::missing(looked.container, looked.namespace);
    for (how, missing) in mounted.chain(named.into_iter().map(|what| ("it takes its environment from", what))) {
        findings.push(Finding::warning(
            Rule::EveryKey,
            &id,
            format!("{how} {missing}, which is not in the namespace"),
            "find out where it went: the node will not start without it",
        ));
    }
    FoundNode {
        node: Node {
            id,
            role,
            msp_id,
            directories: nest(directories),
            workload: Some(Workload {
                namespace: workload.namespace.clone(),
                kind: workload.kind.clone(),
                name: workload.name.clone(),
                container: looked.container.name.clone(),
                ordinal,
                operations,
                participation,
            }),
            served_by: Vec::new(),
            environment: kept_environment::kept(role, &looked.environment),
        },
        by: recognised.map_or("not recognised".to_owned(), |found| found.by),
        image: looked.container.image.clone().unwrap_or_default(),
        mounts: looked.mounts.clone(),
        pod,
        views,
        relations: Vec::new(),
        custom: workload.custom.clone(),
        shares: BTreeSet::new(),
        sql: looked.authority_sql().filter(|_| role == NodeRole::CertificateAuthority),
        server,
    }
}

/// What a path of a node becomes: files of Secrets and ConfigMaps, a directory of a volume, or one that goes with the pod.
#[allow(clippy::too_many_arguments)]
fn add_directories(
    known: &ConfiguredPath,
    id: &NodeId,
    node_role: NodeRole,
    looked: &ContainerView<'_>,
    lives: bool,
    directories: &mut Vec<NodeDirectory>,
    views: &mut Vec<View>,
    findings: &mut Vec<Finding>,
) {
    let at = known.path.as_str();
    let not_persistent = |what: String, findings: &mut Vec<Finding>| {
        let captured = if lives {
            "it is copied while the pod runs, and a restore cannot restore it"
        } else {
            "and the pod does not run: it cannot be captured"
        };
        findings.push(Finding::warning(
            Rule::NotPersistent,
            id,
            format!("its {} directory {at} is held by {what}: {captured}", known.role),
            match known.role {
                DirectoryRole::Msp | DirectoryRole::Tls => {
                    "if an init container fetches keys (from Vault, from a CA), back them up at their source"
                }
                DirectoryRole::StateDatabase => "no action is needed: the peer rebuilds its state when it starts",
                _ => "give the node a PersistentVolumeClaim there: its data is lost with the pod",
            },
        ));
    };
    if let Some(known_there) = directories.iter().find(|directory| directory.mounted_at.as_deref() == Some(at)) {
        if let Some(Holder::Ephemeral(what)) = holding(&looked.mounts, at).map(|mount| &mount.holder)
            && known_there.source == DirectorySource::Ephemeral
            && known.needed
        {
            not_persistent(what.clone(), findings);
        }
        return;
    }
    let mut add = |source: DirectorySource, held_by: String| {
        let beside = match source {
            DirectorySource::Volume | DirectorySource::Server => "",
            DirectorySource::Objects => "/from-secrets",
            DirectorySource::Ephemeral => "/not-persistent",
        };
        let mut directory = NodeDirectory::new(known.role, format!("{id}{beside}{at}"));
        directory.source = source;
        directory.mounted_at = Some(at.to_owned());
        if source != DirectorySource::Objects {
            directory.excluded = foreign_mounts(&looked.mounts, at);
        }
        directories.push(directory);
        views.push(View { role: known.role, path: at.to_owned(), held_by });
    };
    if !mounts::object_files(&looked.mounts, looked.namespace, at).is_empty() {
        let holders: BTreeSet<String> = looked
            .mounts
            .iter()
            .filter(|mount| {
                matches!(mount.holder, Holder::Objects(_))
                    && (below(&mount.path, at).is_some() || below(at, &mount.path).is_some())
            })
            .map(|mount| mount.holder.to_string())
            .collect();
        add(DirectorySource::Objects, holders.into_iter().collect::<Vec<_>>().join(", "));
    }
    match holding(&looked.mounts, at) {
        Some(mount) => match &mount.holder {
            Holder::Claim(claim) => add(DirectorySource::Volume, mounts::claim_label(looked.namespace, claim)),
            Holder::Objects(_) => {}
            Holder::Ephemeral(what) => {
                let only_frame = directories_from_objects(directories, at);
                if !only_frame || known.role == DirectoryRole::PeerData {
                    if lives {
                        add_ephemeral(&mut *directories, &mut *views, known, id, looked, what);
                    }
                    if known.needed && mount.unnamed.is_none() {
                        not_persistent(what.clone(), findings);
                    }
                }
            }
            Holder::HostPath(path) => {
                add(DirectorySource::Volume, format!("hostPath {path}"));
                findings.push(Finding::warning(
                    Rule::NotPersistent,
                    id,
                    format!("its {} directory {at} is the hostPath {path} of one Kubernetes node", known.role),
                    "a restore can only bring it back to a pod on that node: give the node a PersistentVolumeClaim",
                ));
            }
            Holder::Other(what) => add(DirectorySource::Volume, what.clone()),
        },
        None => {
            // What volumes put below it is all there is to keep; the rest comes with the image.
            let inside: Vec<(String, String)> = mounts::nested(&looked.mounts, at)
                .filter_map(|(mount, _)| match &mount.holder {
                    Holder::Claim(claim) => Some((mount.path.clone(), mounts::claim_label(looked.namespace, claim))),
                    _ => None,
                })
                .collect();
            if !inside.is_empty() {
                let held: Vec<String> = inside.into_iter().map(|(path, claim)| format!("{path}: {claim}")).collect();
                add(DirectorySource::Volume, held.join(", "));
            } else if known.needed && !directories_from_objects(directories, at) {
                let what = "the container's own file system";
                let data = matches!(
                    known.role,
                    DirectoryRole::PeerData
                        | DirectoryRole::OrdererLedger
                        | DirectoryRole::OrdererWal
                        | DirectoryRole::CaHome
                        | DirectoryRole::Database
                        | DirectoryRole::StateDatabase
                );
                // An orderer's default log directory that does not exist is no loss.
                let default_wal =
                    known.role == DirectoryRole::OrdererWal && looked.get("ORDERER_CONSENSUS_WALDIR").is_none();
                if (data && !default_wal) || node_role != NodeRole::CertificateAuthority {
                    if lives {
                        add_ephemeral(&mut *directories, &mut *views, known, id, looked, what);
                    }
                    not_persistent(what.to_owned(), findings);
                }
            }
        }
    }
}

fn add_ephemeral(
    directories: &mut Vec<NodeDirectory>,
    views: &mut Vec<View>,
    known: &ConfiguredPath,
    id: &NodeId,
    looked: &ContainerView<'_>,
    what: &str,
) {
    let mut directory = NodeDirectory::new(known.role, format!("{id}/not-persistent{}", known.path));
    directory.source = DirectorySource::Ephemeral;
    directory.mounted_at = Some(known.path.clone());
    directory.excluded = foreign_mounts(&looked.mounts, &known.path);
    directories.push(directory);
    views.push(View { role: known.role, path: known.path.clone(), held_by: format!("not persistent ({what})") });
}

fn directories_from_objects(directories: &[NodeDirectory], at: &str) -> bool {
    directories
        .iter()
        .any(|directory| directory.source == DirectorySource::Objects && directory.mounted_at.as_deref() == Some(at))
}

/// Mounts inside a directory that no claim holds: Secrets, ConfigMaps, emptyDirs. They are not the directory's.
fn foreign_mounts(mounts: &[Mount], at: &str) -> Vec<String> {
    mounts::nested(mounts, at)
        .filter(|(mount, _)| matches!(mount.holder, Holder::Objects(_) | Holder::Ephemeral(_)))
        .map(|(_, inside)| inside.to_owned())
        .collect()
}

/// Puts directories of volumes that lie inside others under those.
fn nest(directories: Vec<NodeDirectory>) -> Vec<NodeDirectory> {
    let mut sorted = directories;
    sorted.sort_by(|a, b| a.mounted_at.cmp(&b.mounted_at));
    let mut out: Vec<NodeDirectory> = Vec::new();
    for directory in sorted {
        let at = directory.mounted_at.clone().unwrap_or_default();
        let outer = out.iter_mut().find_map(|outer| {
            if outer.source != directory.source {
                return None;
            }
            let inside = below(&at, outer.mounted_at.as_deref()?)?.to_owned();
            Some((outer, inside))
        });
        match outer {
            Some((outer, inside)) => {
                if !inside.is_empty() {
                    outer.nested.push((inside, directory.role));
                }
            }
            None => out.push(directory),
        }
    }
    out
}
