//! The Kubernetes platform: an organization is a namespace, its nodes are discovered from their workloads, and their volumes are read by
//! commands in their pods, or in helper pods with the same mounts.

mod authority;
mod clean;
mod connection;
mod discover;
mod foreign;
mod hand_made;
mod mounting;
mod objects;
mod observe;
mod places;
mod preflight;
mod progress;
mod ready;
mod rehearsal;
mod relocation;
mod restart;
mod rights;
mod scale;
mod scratch;
mod served;
mod snapshots;
mod sql;
mod states;
mod stopping;
mod suspend;
mod target;
mod trouble;
mod uses;
mod volume;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fabkeep_network::{DirectorySource, Finding, Network, NodeDirectory, NodeId, Observation, Remedy};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use parking_lot::Mutex;

use connection::Connection;
use connection::exec::ContainerRef;
use discover::mounted::MountedVolume;
use discover::{Analysis, FoundNode, mounts, workloads};
use volume::helper::{self, Helper};
use volume::helper_pod::{HelperPod, Rights};
use volume::{PodVolume, patiently};

use crate::command::Until;
use crate::volume::{EntryKind, Volume};
use crate::{
    Change, Declaration, Declared, KeptSnapshot, Machine, NodeState, NotedWindows, ObjectRef, OnProgress, Platform,
    PlatformError, ProbeScope, Quiesce, SnapshotPlan, SnapshotReport, StrangeNote, WindowRecord,
};

pub use connection::ClusterAddress;
pub use discover::authority::AuthorityObject;
pub use discover::view::{DirectoryView, NodeView, OtherView, TopologyView};
pub use foreign::foreign_to_network;
pub use hand_made::hand_made_volume;
pub use mounting::{MountingPod, OtherHelper};
pub use objects::RESTORE_RECORD;
pub use places::{FoundPlace, PlannedNodes, claim_of_files};
pub use preflight::{ClaimState, ClockSeen, HelperTried, Left, Preflight, ReadIn, ReadNode};
pub use progress::{Note, Written};
pub use ready::Started;
pub use rehearsal::{RefusedChange, TriedChange};
pub use relocation::{Mapping, OldNames, Relocation, alias_addresses, has_own_aliases, keep_old_names, old_names};
pub use rights::{Purpose, Right, RightHeld, Without, rights};
pub use scale::{ScaledDown, ScaledUp, StageWorkloads, WorkloadState};
pub use scratch::{FenceProbe, FenceSeen, MadeScratch, ScratchNamespace};
pub use served::KindServed;
pub use snapshots::{KeptSnapshots, SnapshotSource, made_from};
pub use states::StateRead;
pub use stopping::is_scalable;
pub use suspend::{Controllers, Suspension};
pub use target::{Created, ObjectState, Replaced, Target, is_managed};
pub use uses::Usage;
pub use volume::fill::{Expected, FillState, Filler, Mark, WriteEntry, WriteKind, Writing};
pub use volume::helper::HelperOptions;

/// Directories read at a time: streams wait more than they work.
const READERS: usize = 8;

/// Links that lead to others, one after the other.
const MAX_LINKS: usize = 8;

/// Which namespaces.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These.
    pub namespaces: Vec<String>,
    /// Those with these labels.
    pub selector: Option<String>,
    /// What to call the network; without it, the namespaces' names.
    pub name: Option<String>,
}

/// A network on a cluster.
pub struct Kubernetes {
    connection: Arc<Connection>,
    analysis: Analysis,
    options: HelperOptions,
    /// Marks what this run makes.
    run: String,
    /// Where each node's directories are read, in their own volumes and in clones of snapshots: found when first asked for.
    places: Mutex<HashMap<(usize, Volumes), Slot<Reached>>>,
    /// By the first node of those that a helper serves.
    helpers: Mutex<HashMap<(usize, Volumes), Slot<Helper>>>,
    /// Helper pods made so far, by namespace and name, and how many there were in all.
    made: Mutex<(Vec<(String, String)>, usize)>,
    /// What this run made for snapshots.
    taken: Mutex<Option<snapshots::CreatedSnapshots>>,
    /// Nodes whose volumes are read from snapshots.
    frozen: Mutex<BTreeSet<NodeId>>,
    /// Workloads that a window of this run has stopped: their pods are gone.
    stopped: Mutex<BTreeSet<ObjectRef>>,
    /// What signs the notes of windows.
    machine: Machine,
}

/// Something that is made when it is first asked for; who asks meanwhile waits.
type Slot<T> = Arc<Mutex<Option<T>>>;

/// Which volumes of a node are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Volumes {
    /// Its own.
    Own,
    /// Clones of their snapshots.
    Clones,
}

/// Where a node's paths are reached.
#[derive(Debug, Clone)]
struct Reached {
    place: ContainerRef,
    /// The prefix of its container's paths there.
    root: String,
    /// Of a helper pod; `None` in the node's own container.
    rights: Option<Rights>,
}

impl Kubernetes {
    /// Connects to a cluster and looks at namespaces: the selected ones; without a selection, all that hold a Fabric node.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn open(
        address: &ClusterAddress,
        selection: &Selection,
        options: HelperOptions,
    ) -> Result<Kubernetes, PlatformError> {
        Kubernetes::open_with(address, selection, options, &[])
    }

    /// The same, with workloads that are not there yet: `expected` objects that start pods by themselves are looked at as if they were.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn open_with(
        address: &ClusterAddress,
        selection: &Selection,
        options: HelperOptions,
        expected: &[Declaration],
    ) -> Result<Kubernetes, PlatformError> {
        let connection = Arc::new(Connection::open(address)?);
        let names = namespaces(&connection, selection)?;
        let mut findings = Vec::new();
        let mut read = objects::read_namespaces(&connection, &names, selection.namespaces.is_empty(), &mut findings)?;
        let chosen = !selection.namespaces.is_empty() || selection.selector.is_some();
        if !chosen {
            let mut doubts = Vec::new();
            let mut doubtful = Vec::new();
            read.retain(|namespace| {
                let analysis = discover::analyse("", vec![namespace.clone()]);
                let holds_node = analysis.nodes.iter().any(is_fabric);
                if !holds_node && !analysis.doubts.is_empty() {
                    doubts.extend(analysis.doubts);
                    doubtful.push(namespace.clone());
                }
                holds_node
            });
            if read.is_empty() {
                read = doubtful;
                doubts.clear();
            }
            findings.retain(|finding| {
                read.iter().any(|namespace| finding.subject.ends_with(&format!(" in {}", namespace.name)))
            });
            // What may be a node is told wherever it is.
            findings.extend(doubts);
        }
        if read.is_empty() {
            return Err(PlatformError::Cluster {
                what: format!("looking for Fabric nodes at {}", connection.name),
                problem: format!("none of {} namespaces contains one", names.len()),
                next: Remedy::NameNamespaces.or(Remedy::NameCluster),
            });
        }
        let name = selection
            .name
            .clone()
            .unwrap_or_else(|| read.iter().map(|namespace| namespace.name.clone()).collect::<Vec<_>>().join("+"));
        places::expect(&mut read, expected);
        let mut analysis = discover::analyse(&name, read);
        analysis.findings.append(&mut findings);
        analysis.findings.sort_by(|a, b| (b.severity, a.rule, &a.subject).cmp(&(a.severity, b.rule, &b.subject)));
        analysis.findings.dedup();
        let run = format!("{:x}", jiff::Timestamp::now().as_millisecond());
        Ok(Kubernetes {
            connection,
            analysis,
            options,
            run,
            places: Mutex::default(),
            helpers: Mutex::default(),
            made: Mutex::default(),
            taken: Mutex::default(),
            frozen: Mutex::default(),
            stopped: Mutex::default(),
            machine: Machine::default(),
        })
    }

    /// Returns the cluster's address, for people.
    pub fn cluster(&self) -> &str {
        &self.connection.name
    }

    /// Returns the namespaces that were searched.
    pub fn namespaces(&self) -> Vec<String> {
        self.analysis.all.iter().map(|(namespace, _)| namespace.name.clone()).collect()
    }

    fn position(&self, node: &NodeId) -> Option<usize> {
        self.analysis.nodes.iter().position(|found| found.node.id == *node)
    }

    fn found(&self, node: &NodeId) -> Result<(usize, &FoundNode), PlatformError> {
        let position = self.position(node).ok_or_else(|| PlatformError::Cluster {
            what: format!("looking for {node}"),
            problem: "the cluster has no such node".to_owned(),
            next: Remedy::ListNodes,
        })?;
        Ok((position, &self.analysis.nodes[position]))
    }

    /// Returns where a node's paths are reached: in a helper pod with clones of its volumes, when snapshots were taken of them; in its own
    /// running container; else in a helper pod with its volumes.
    fn reach(&self, position: usize, only_own: bool) -> Result<Option<Reached>, PlatformError> {
        let frozen = self.frozen.lock().contains(&self.analysis.nodes[position].node.id);
        let volumes = if frozen && !only_own { Volumes::Clones } else { Volumes::Own };
        let slot = {
            let mut places = self.places.lock();
            Arc::clone(places.entry((position, volumes)).or_default())
        };
        let mut slot = slot.lock();
        if let Some(reached) = slot.as_ref() {
            return Ok(Some(reached.clone()));
        }
        let own = if volumes == Volumes::Own { self.own_place(position)? } else { None };
        let reached = match own {
            Some(place) => Reached { place, root: String::new(), rights: None },
            None if only_own => return Ok(None),
            None => self.in_helper(position, volumes)?,
        };
        *slot = Some(reached.clone());
        Ok(Some(reached))
    }

    /// Returns a node's own container, when it runs and has the tools.
    fn own_place(&self, position: usize) -> Result<Option<ContainerRef>, PlatformError> {
        let node = &self.analysis.nodes[position];
        let (Some(pod), Some(workload)) = (&node.pod, &node.node.workload) else { return Ok(None) };
        if self.is_stopped_by_window(node) {
            return Ok(None);
        }
        if !pod.running.contains(&workload.container) {
            return Ok(None);
        }
        let place = ContainerRef {
            namespace: workload.namespace.clone(),
            pod: pod.name.clone(),
            container: workload.container.clone(),
        };
        match patiently(|| self.connection.has_tools(&place)) {
            Ok(true) => Ok(Some(place)),
            Ok(false) => Ok(None),
            Err(source) => Err(PlatformError::Io { path: place.to_string(), source }),
        }
    }

    /// A window of this run has stopped a workload: what was reached in its pods is reached at another place now.
    fn note_stopped(&self, workload: &ObjectRef) {
        self.stopped.lock().insert(workload.clone());
        self.places.lock().clear();
    }

    fn forget_stopped(&self) {
        self.stopped.lock().clear();
        self.places.lock().clear();
    }

    /// Returns whether a node's container runs.
    fn runs(&self, node: &FoundNode) -> bool {
        let container = node.node.workload.as_ref().map(|workload| workload.container.clone()).unwrap_or_default();
        node.pod.as_ref().is_some_and(|pod| pod.running.contains(&container)) && !self.is_stopped_by_window(node)
    }

    fn is_stopped_by_window(&self, node: &FoundNode) -> bool {
        let stopped = self.stopped.lock();
        node.node.workload.as_ref().is_some_and(|known| {
            stopped.iter().any(|workload| {
                workload.kind == known.kind && workload.namespace == known.namespace && workload.name == known.name
            })
        })
    }

    /// Returns where a link leads that cannot be followed in a helper: its path is one of the node's container, whose mounts the helper has
    /// below a root of their own.
    fn link_in_helper(&self, reached: &Reached, path: &str) -> Result<Option<String>, PlatformError> {
        let Some((parent, name)) = path.rsplit_once('/').filter(|_| !reached.root.is_empty()) else { return Ok(None) };
        let parent = PodVolume::new(Arc::clone(&self.connection), reached.place.clone(), parent.to_owned(), Vec::new());
        let target =
            parent.list(name)?.into_iter().find(|entry| entry.path == name).and_then(|entry| match entry.kind {
                EntryKind::Symlink(target) => Some(target),
                _ => None,
            });
        let inside = target.filter(|target| target.starts_with('/'));
        Ok(inside.map(|target| format!("{}{}", reached.root, mounts::normal(&target))))
    }

    /// Returns the cluster, to change what is in it.
    fn target(&self) -> Target {
        Target::over(Arc::clone(&self.connection))
    }

    fn in_helper(&self, position: usize, volumes: Volumes) -> Result<Reached, PlatformError> {
        let mut group = self.group(position);
        if volumes == Volumes::Clones {
            let frozen = self.frozen.lock();
            group.retain(|&position| frozen.contains(&self.analysis.nodes[position].node.id));
        }
        let slot = {
            let mut helpers = self.helpers.lock();
            Arc::clone(helpers.entry((group.first().copied().unwrap_or(position), volumes)).or_default())
        };
        // Other groups' helpers start meanwhile.
        let mut slot = slot.lock();
        let running = match slot.take() {
            // Somebody may have removed it: then another is made.
            Some(known) if helper::runs(&self.connection, &known.place)? => known,
            _ => self.start_helper(&group, position, volumes)?,
        };
        let root = running.roots.iter().find(|(of, _)| *of == position).map(|(_, root)| root.clone());
        let (place, rights) = (running.place.clone(), Some(running.rights));
        *slot = Some(running);
        root.map(|root| Reached { place, root, rights }).ok_or_else(|| PlatformError::Cluster {
            what: "starting a helper pod".to_owned(),
            problem: "the node's workload is not known".to_owned(),
            next: Remedy::ListNodes,
        })
    }

    /// Returns the name of the next helper pod.
    fn helper_name(&self) -> String {
        let mut made = self.made.lock();
        made.1 += 1;
        format!("fabkeep-{}-{}", self.run, made.1 - 1)
    }

    /// Notes a helper pod before it is made: a run that fails then still removes it.
    fn note_helper(&self, namespace: &str, name: &str) {
        self.made.lock().0.push((namespace.to_owned(), name.to_owned()));
    }

    fn start_helper(&self, group: &[usize], position: usize, volumes: Volumes) -> Result<Helper, PlatformError> {
        self.with_helper_pod(group, position, volumes, |pod| {
            self.note_helper(&self.analysis.nodes[position].node.id.organization, pod.name);
            helper::start(&self.connection, pod)
        })
    }

    /// Hands over the helper pod for a group of nodes, which has a name of its own.
    fn with_helper_pod<T>(
        &self,
        group: &[usize],
        position: usize,
        volumes: Volumes,
        take: impl FnOnce(&HelperPod<'_>) -> Result<T, PlatformError>,
    ) -> Result<T, PlatformError> {
        let nodes: Vec<_> = group
            .iter()
            .filter_map(|&position| {
                let node = &self.analysis.nodes[position];
                Some((position, node, self.workload_of(node)?))
            })
            .collect();
        let name = self.helper_name();
        let clones = match volumes {
            Volumes::Own => None,
            Volumes::Clones => Some(self.clones_of(&nodes.iter().map(|(_, node, _)| *node).collect::<Vec<_>>())?),
        };
        let organization = &self.analysis.nodes[position].node.id.organization;
        let namespace = self.analysis.all.iter().map(|(namespace, _)| namespace);
        let pod = HelperPod {
            name: &name,
            run: &self.run,
            options: &self.options,
            nodes: &nodes,
            host: None,
            clones: clones.as_ref(),
            namespace: namespace.into_iter().find(|namespace| namespace.name == *organization),
            trial: false,
        };
        take(&pod)
    }

    /// Claims that a node's container mounts: namespace and name.
    pub fn claims(&self, node: &NodeId) -> Vec<(String, String)> {
        self.position(node).map_or_else(Vec::new, |position| discover::claims_of_node(&self.analysis.nodes[position]))
    }

    /// Nodes that are best reached together: those of the same pod, and those that share a claim.
    fn group(&self, position: usize) -> Vec<usize> {
        let nodes = &self.analysis.nodes;
        let linked = |a: &FoundNode, b: &FoundNode| {
            let pod = |node: &FoundNode| {
                node.node.workload.clone().map(|known| (known.namespace, known.kind, known.name, known.ordinal))
            };
            let same_pod = pod(a) == pod(b) && a.pod_name() == b.pod_name();
            let same_namespace = a.node.id.organization == b.node.id.organization;
            same_pod || (same_namespace && a.shares.intersection(&b.shares).next().is_some())
        };
        let mut group: BTreeSet<usize> = BTreeSet::from([position]);
        loop {
            let more: Vec<usize> = (0..nodes.len())
                .filter(|other| !group.contains(other))
                .filter(|&other| group.iter().any(|&known| linked(&nodes[known], &nodes[other])))
                .collect();
            if more.is_empty() {
                return group.into_iter().collect();
            }
            group.extend(more);
        }
    }

    fn workload_of(&self, node: &FoundNode) -> Option<&workloads::WorkloadObject> {
        let known = node.node.workload.as_ref()?;
        let (_, workloads) = self.analysis.all.iter().find(|(namespace, _)| namespace.name == known.namespace)?;
        workloads.iter().find(|workload| workload.runs(known, node.pod.as_ref()))
    }

    /// Removes what this run made in the cluster and forgets where nodes were reached.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when a helper pod cannot be removed.
    pub fn remove_helpers(&self) -> Result<(), PlatformError> {
        self.places.lock().clear();
        self.connection.end_shells();
        self.helpers.lock().clear();
        let made = std::mem::take(&mut self.made.lock().0);
        let mut result = Ok(());
        for (namespace, name) in made {
            result = result.and(helper::remove(&self.connection, &namespace, &name));
        }
        result.and(self.remove_snapshots())
    }

    /// Removes every helper pod, snapshot and clone in the namespaces, of any run, and every scratch namespace of a drill, older than this
    /// many seconds. Returns what they are.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`].
    pub fn clean(
        address: &ClusterAddress,
        selection: &Selection,
        older_than_seconds: i64,
        only_look: bool,
    ) -> Result<Vec<String>, PlatformError> {
        let connection = Connection::open(address)?;
        let mut out = Vec::new();
        for namespace in namespaces(&connection, selection)? {
            for (name, run, age) in helper::left(&connection, &namespace)? {
                if age >= older_than_seconds {
                    if !only_look {
                        helper::remove(&connection, &namespace, &name)?;
                    }
                    out.push(format!("Pod {namespace}/{name} (run {run}, {age} s old)"));
                }
            }
            for (thing, name, run, age) in snapshots::left(&connection, &namespace)? {
                if age >= older_than_seconds {
                    if !only_look {
                        snapshots::remove(&connection, thing, &namespace, &name)?;
                    }
                    out.push(format!("{} {namespace}/{name} (run {run}, {age} s old)", thing.kind()));
                }
            }
        }
        let scratch = scratch::left(&connection, &selection.namespaces, selection.selector.as_deref())?;
        for (scratch, drill, age) in scratch.into_iter().filter(|(.., age)| *age >= older_than_seconds) {
            if !only_look {
                scratch::remove(&connection, &scratch)?;
            }
            out.push(format!("Namespace {} (drill {drill}, {age} s old)", scratch.name));
        }
        Ok(out)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        // Snapshots that were to stay, and were not kept for good, go too.
        if let Some(taken) = self.taken.lock().as_mut() {
            taken.leave();
        }
        // What cannot be removed now, `fabkeep clean` removes.
        let _ = self.remove_helpers();
    }
}

/// Secrets and ConfigMaps of the certificate authorities that objects declare.
pub fn authority_objects(declarations: &[Declaration]) -> Vec<AuthorityObject> {
    discover::authority::authority_objects(&declared(declarations))
}

/// A node's workload: its namespace; what it is; the operator's custom resource that it belongs to.
type ManagedWorkload = (String, ObjectRef, Option<(String, String, String)>);

/// Returns the workloads of the nodes that objects declare, with their namespaces and the operators' custom resources that they belong to.
fn custom_resources_of(declarations: &[Declaration]) -> Vec<ManagedWorkload> {
    let nodes = declared(declarations).nodes.into_iter();
    let with_workload = nodes.filter_map(|found| {
        let workload = found.node.workload?;
        Some((workload.namespace.clone(), ObjectRef::from(&workload), found.custom))
    });
    with_workload.collect()
}

/// Claims of the nodes that objects declare: namespace and name, by node.
pub fn declared_claims(declarations: &[Declaration]) -> BTreeMap<NodeId, Vec<(String, String)>> {
    let nodes = declared(declarations).nodes;
    nodes.iter().map(|node| (node.node.id.clone(), discover::claims_of_node(node))).collect()
}

/// Returns what objects declare, looked at as a cluster is.
fn declared(declarations: &[Declaration]) -> discover::Analysis {
    places::analyse_with(Vec::new(), declarations.iter())
}

fn is_fabric(node: &FoundNode) -> bool {
    use fabkeep_ledger::layout::NodeRole;
    matches!(node.node.role, NodeRole::Peer | NodeRole::Orderer | NodeRole::CertificateAuthority)
}

fn namespaces(connection: &Connection, selection: &Selection) -> Result<Vec<String>, PlatformError> {
    if !selection.namespaces.is_empty() {
        return Ok(selection.namespaces.clone());
    }
    let resource = objects::resource("v1", "Namespace", Some("namespaces"));
    let mut parameters = ListParams::default();
    if let Some(selector) = &selection.selector {
        parameters = parameters.labels(selector);
    }
    let list = connection.run("listing namespaces", |client| {
        let (resource, parameters) = (resource.clone(), parameters.clone());
        async move { Api::<DynamicObject>::all_with(client, &resource).list(&parameters).await }
    });
    let list = list.map_err(|error| match error {
        PlatformError::Forbidden { what, problem, next } => {
            PlatformError::Forbidden { what, problem, next: Remedy::NameNamespaces.or(next) }
        }
        other => other,
    })?;
    Ok(list
        .items
        .into_iter()
        // What a drill restored is a copy of the network, which must not be taken for a part of it.
        .filter(|namespace| !scratch::is_scratch(namespace))
        .filter_map(|namespace| namespace.metadata.name)
        .filter(|name| !name.starts_with("kube-"))
        .collect())
}

impl Platform for Kubernetes {
    fn network(&self) -> &Network {
        &self.analysis.network
    }

    fn findings(&self) -> &[Finding] {
        &self.analysis.findings
    }

    fn declarations(&self) -> Result<Declared, PlatformError> {
        let known = self.analysis.all.iter().map(|(namespace, _)| namespace);
        let mut declared = Declared::default();
        declared.objects.extend(known.clone().flat_map(objects::declarations));
        let namespaces: Vec<_> = known.collect();
        declared.findings.extend(hand_made::note(&self.connection, &namespaces, &mut declared.objects)?);
        let names: Vec<&str> = namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
        let others = objects::read_others(&self.connection, &names)?;
        declared.objects.extend(others.declarations);
        declared.findings.extend(others.findings);
        Ok(declared)
    }

    fn volume(&self, node: &NodeId, directory: &NodeDirectory) -> Result<Option<Box<dyn Volume>>, PlatformError> {
        let (position, found) = self.found(node)?;
        let at = directory.mounted_at.as_deref().unwrap_or("/");
        if directory.source == DirectorySource::Objects {
            let namespace = self.analysis.all.iter().find(|(namespace, _)| namespace.name == node.organization);
            let files = namespace.map(|(namespace, _)| mounts::object_files(&found.mounts, namespace, at));
            return Ok(files.map(|files| Box::new(MountedVolume::new(files)) as Box<dyn Volume>));
        }
        if directory.source == DirectorySource::Server {
            return self.dumped(node);
        }
        let only_own = directory.source == DirectorySource::Ephemeral;
        let Some(reached) = self.reach(position, only_own)? else { return Ok(None) };
        let mut root = format!("{}{at}", reached.root);
        for _ in 0..MAX_LINKS {
            let (place, excluded) = (reached.place.clone(), directory.excluded.clone());
            let volume = PodVolume::new(Arc::clone(&self.connection), place, root.clone(), excluded);
            if volume.look()? {
                return Ok(Some(Box::new(volume)));
            }
            match self.link_in_helper(&reached, &root)? {
                Some(target) => root = target,
                None => break,
            }
        }
        Ok(None)
    }

    fn strategy(&self, node: &NodeId, directory: &NodeDirectory) -> String {
        let Some(found) = self.position(node).map(|position| &self.analysis.nodes[position]) else {
            return "not there".to_owned();
        };
        if directory.source == DirectorySource::Objects {
            return "from Secrets and ConfigMaps, by the API".to_owned();
        }
        if directory.source == DirectorySource::Server {
            return "dump: the server's own tools, by exec in its pod".to_owned();
        }
        let runs = found.pod.as_ref().zip(found.node.workload.as_ref());
        match runs.filter(|(pod, workload)| pod.running.contains(&workload.container)) {
            Some((pod, _)) => format!("stream: exec in pod {}, a helper pod if its image has no tools", pod.name),
            None => "stream: helper pod with the same mounts, because its own pod does not run".to_owned(),
        }
    }

    fn state(&self, node: &NodeId) -> Result<NodeState, PlatformError> {
        let (_, found) = self.found(node)?;
        Ok(match self.runs(found) {
            _ if self.frozen.lock().contains(node) => NodeState::Snapshot,
            true => NodeState::Running,
            false => NodeState::Stopped,
        })
    }

    fn plan_snapshots(&self, nodes: &[&NodeId]) -> Result<SnapshotPlan, PlatformError> {
        self.plan_of_snapshots(nodes)
    }

    fn take_snapshots(
        &self,
        plan: &SnapshotPlan,
        limit: Duration,
        reported: &OnProgress<'_>,
    ) -> Result<SnapshotReport, PlatformError> {
        self.take_planned_snapshots(plan, limit, reported)
    }

    fn snapshots_to_keep(&self) -> Result<Vec<KeptSnapshot>, PlatformError> {
        self.staying_snapshots()
    }

    fn keep_snapshots(&self, notes: &[(KeptSnapshot, String)]) -> Result<(), PlatformError> {
        self.keep_taken(notes)
    }

    fn kept_snapshots(&self) -> Option<KeptSnapshots> {
        Some(self.earlier_snapshots())
    }

    fn observe(&self, node: &NodeId, asked: ProbeScope) -> Observation {
        self.ask(node, asked)
    }

    fn log(&self, node: &NodeId, since: jiff::Timestamp) -> Result<Option<String>, PlatformError> {
        self.read_log(node, since)
    }

    fn closing(&self, quiesce: &Quiesce) -> Result<(Vec<Change>, Vec<Finding>), PlatformError> {
        self.plan_window(quiesce)
    }

    fn close(&self, changes: &[Change], until: Until<'_>) -> Result<(), PlatformError> {
        self.change(changes, until)
    }

    fn reopen(&self, changes: &[Change], reported: &OnProgress<'_>) -> Result<(), PlatformError> {
        self.undo(changes, reported)
    }

    fn window(&self) -> Result<NotedWindows, PlatformError> {
        self.noted_windows()
    }

    fn note_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        self.write_window(record)
    }

    fn forget_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        self.remove_window(record)
    }

    fn may_undo(&self, change: &Change) -> Result<(), String> {
        self.undoable(change)
    }

    fn forget_note(&self, note: &StrangeNote) -> Result<(), PlatformError> {
        self.remove_note(&note.namespace)
    }

    fn readers(&self) -> Option<usize> {
        Some(READERS)
    }

    fn slow_helpers(&self) -> Vec<(String, String)> {
        self.connection.starting.slow()
    }

    fn finish(&self) -> Result<(), PlatformError> {
        self.remove_helpers()
    }
}
