//! The plan of a restore into a cluster, and reasons against it.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeDirectory, NodeId, Remedy, Rule, Stage};
use fabkeep_platform::kubernetes::{
    Controllers, KindServed, Target, Usage, declared_claims, foreign_to_network, is_managed,
};
use fabkeep_platform::{Declaration, KeptSnapshot, ObjectRef};
use fabkeep_store::PointReader;

use super::record::{Identity, RecordInCluster};
use super::{fenced, fill, node_ports, nodes, old_names, relocation, restart, scope, sources};
use crate::misuse::Misuse;
use crate::names::{unanswered, used_names};
use crate::objects::declarations;
use crate::point::{CapturedNode, RecoveryPoint};
use crate::restore::ca::databases;
use crate::restore::owners;
use crate::restore::progress::Record;
use crate::restore::{ClusterTarget, KeptFiles, RestoreOptions, RestorePlan, RestoreStep, Way, judge};
use crate::transform::{Transformed, is_named, not_level, transform};
use crate::{Done, EngineError};

/// What a restore into a cluster would do.
pub(in crate::restore) struct Plan {
    pub(super) target: Target,
    pub(super) place: ClusterTarget,
    pub(super) identity: Identity,
    pub(super) steps: Vec<RestoreStep>,
    pub(super) findings: Vec<Finding>,
    /// Bytes to write, holes not counted.
    pub(super) bytes: u64,
    /// Files to write.
    pub(super) files: u64,
    pub(super) create: Vec<Declaration>,
    pub(super) replace: Vec<Declaration>,
    /// Kept snapshots that claims are made from, by the claims' namespaces and names.
    pub(super) sources: BTreeMap<(String, String), KeptSnapshot>,
    /// Objects that come when the data is in.
    pub(super) late: Vec<Declaration>,
    /// Nodes whose volumes are filled, by position in the recovery point.
    pub(super) fill: Vec<usize>,
    /// Captured directories that belong to no node and that nothing in the cluster mounts, by their paths in the recovery point.
    pub(super) no_place: BTreeSet<String>,
    /// Nodes whose databases' dumps are loaded, by position in the recovery point.
    pub(super) load: Vec<usize>,
    /// Nodes that an earlier run has filled and started: this one does not write them.
    pub(super) left: Vec<String>,
    /// Nodes that an earlier run has written, and that ran since.
    pub(super) ran: BTreeSet<String>,
    /// Nodes whose claims are not there, or were created by an earlier run that did not begin to fill them.
    pub(super) lost: BTreeSet<String>,
    pub(super) namespaces: Vec<String>,
    /// Workloads to scale down.
    pub(super) scale_down: Vec<ObjectRef>,
    /// Deployments.
    pub(super) operators: Vec<ObjectRef>,
    /// What else would scale workloads up.
    pub(super) controllers: Controllers,
    /// Secrets and ConfigMaps that have to be as captured when nodes start.
    pub(super) keyed: Vec<Declaration>,
    /// Workloads that use each object of the recovery point.
    pub(super) usage: Usage,
    /// How many replicas each declared workload wants.
    pub(super) replicas: BTreeMap<ObjectRef, u32>,
    /// What earlier runs of the same restore have done.
    pub(super) known: RecordInCluster,
    /// Orderers that stay, and are restarted before restored ones are started.
    pub(super) others: Vec<NodeId>,
    /// Nodes that it is about, as `Organization/node`; empty: all.
    pub(super) nodes: Vec<String>,
    /// Users that the captured files of nodes belong to.
    pub(super) owners: BTreeMap<NodeId, u32>,
}

/// Kinds that start something by themselves: they come when the data is in.
pub(super) fn is_late(declaration: &Declaration) -> bool {
    let custom = declaration.api_version.contains('.')
        && !declaration.api_version.contains("k8s.io")
        && !declaration.api_version.starts_with("cert-manager.io");
    custom || matches!(declaration.kind.as_str(), "Pod" | "DaemonSet" | "CronJob" | "HorizontalPodAutoscaler")
}

pub(super) fn is_workload(kind: &str) -> bool {
    matches!(kind, "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController" | "DaemonSet" | "Pod")
}

/// Makes the plan of a restore into a cluster.
pub(in crate::restore) fn make<'a>(
    id: &str,
    point: RecoveryPoint,
    reader: PointReader<'a>,
    place: &ClusterTarget,
    options: &RestoreOptions,
) -> Result<RestorePlan<'a>, EngineError> {
    let target = Target::open(&place.address)?;
    let identity = Identity::of(id, &point, place, options)?;
    let fingerprint = identity.plan().to_owned();
    let declared = declarations(&point, &reader)?;
    at_the_border(&declared)?;
    let used = used_names(&point, &reader, &declared)?;
    let mut transformed = transform(point, &reader, &options.asked())?;
    let moved = relocation::move_to(place, &mut transformed, declared, &used, &target)?;
    at_the_border(&moved.declared)?;
    let (declared, closed_off) = match place.fenced {
        true => fenced::fenced(moved.declared, &transformed.point),
        false => (moved.declared, Vec::new()),
    };
    let (declared, unserved) = served_here(declared, &target)?;
    let mut plan = of_declared(id, &transformed, &declared, target, identity, place, options)?;
    plan.findings.extend(moved.findings);
    plan.findings.extend(closed_off);
    plan.findings.extend(unserved);
    plan.findings.extend(unanswered(&used));
    for &position in &plan.load {
        let node = &transformed.point.nodes[position];
        if let Some(entry) = nodes::dump_of(node) {
            plan.findings.extend(databases::refused_captured(&node.facts.id, entry, &transformed.point, &reader)?);
        }
    }
    let (steps, findings) = (std::mem::take(&mut plan.steps), std::mem::take(&mut plan.findings));
    Ok(RestorePlan {
        point: id.to_owned(),
        target: plan.target.cluster().to_owned(),
        fingerprint,
        steps,
        findings,
        bytes: plan.bytes,
        files: plan.files,
        kept: KeptFiles::default(),
        options: options.clone(),
        reader,
        transformed,
        way: Way::Cluster(Box::new(plan)),
    })
}

/// Objects that no capture of a network makes: whoever signed the recovery point, they are not created.
fn at_the_border(declared: &[Declaration]) -> Result<(), EngineError> {
    let foreign: Vec<Finding> = foreign_to_network(declared)
        .into_iter()
        .map(|(label, why)| {
            Finding::error(
                Rule::Declared,
                label,
                format!("the recovery point declares it, and a restore does not create it: {why}"),
                "find out who wrote this recovery point: fabkeep captures no such object",
            )
        })
        .collect();
    if foreign.is_empty() { Ok(()) } else { Err(EngineError::Precondition(foreign)) }
}

/// The declared objects of kinds that this cluster serves, in the versions in which it does; what it does not serve, as findings.
fn served_here(declared: Vec<Declaration>, target: &Target) -> Result<(Vec<Declaration>, Vec<Finding>), EngineError> {
    let (mut out, mut findings, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    let served = target.kinds_served(&declared)?;
    for (mut known, how) in declared.into_iter().zip(served) {
        match how {
            KindServed::Same => {}
            KindServed::Other(version) => {
                findings.push(Finding::warning(
                    Rule::Declared,
                    known.label(),
                    format!(
                        "this cluster serves its kind in {version} instead of {}: it is created in that version",
                        known.api_version
                    ),
                    "check that its fields have the same meaning in that version",
                ));
                known.object["apiVersion"] = version.clone().into();
                known.api_version = version;
            }
            KindServed::No => {
                findings.push(Finding::warning(
                    Rule::Declared,
                    known.label(),
                    format!("this cluster does not serve {} {}: it is not created", known.api_version, known.kind),
                    Remedy::from("install what defines this kind").and(Remedy::OnlyMissing),
                ));
                continue;
            }
            KindServed::ClusterWide => {
                foreign.push(Finding::error(
                    Rule::Declared,
                    known.label(),
                    format!("in this cluster {} is not namespaced: a restore does not create it", known.kind),
                    "find out who wrote this recovery point, or whether the kind has changed; fabkeep captures what is in namespaces",
                ));
                continue;
            }
        }
        out.push(known);
    }
    if foreign.is_empty() { Ok((out, findings)) } else { Err(EngineError::Precondition(foreign)) }
}

/// The plan for declared objects that this cluster takes.
fn of_declared(
    id: &str,
    transformed: &Transformed,
    declared: &[Declaration],
    target: Target,
    identity: Identity,
    place: &ClusterTarget,
    options: &RestoreOptions,
) -> Result<Plan, EngineError> {
    if declared.is_empty() {
        return Err(Misuse::new(format!("recovery point {id} was not captured on Kubernetes"))
            .next(Remedy::RestoreElsewhere.or(Remedy::RestoreByInventory))
            .into());
    }
    let (point, nodes) = (&transformed.point, &transformed.nodes);
    let chosen: Vec<(usize, &CapturedNode)> =
        point.nodes.iter().enumerate().filter(|(_, node)| is_named(&node.facts.id, nodes)).collect();
    let organizations: BTreeSet<&str> = chosen.iter().map(|(_, node)| node.facts.id.organization.as_str()).collect();
    let all: BTreeSet<&str> = declared
        .iter()
        .map(|known| if known.kind == "Namespace" { known.name.as_str() } else { known.namespace.as_str() })
        .collect();
    let namespaces = if nodes.is_empty() { all } else { organizations };
    let mut live = Vec::new();
    if !nodes.is_empty() {
        for namespace in &namespaces {
            live.extend(target.workloads_in(namespace)?);
        }
    }
    let first = namespaces.iter().next().copied().unwrap_or_default();
    let replicas = |known: &Declaration| {
        let replicas = known.object.pointer("/spec/replicas").and_then(serde_json::Value::as_u64).unwrap_or(1);
        (ObjectRef::from(known), u32::try_from(replicas).unwrap_or(1))
    };
    let known = RecordInCluster::look(&target, first, &identity, options.replace)?;
    let mut plan = Plan {
        target,
        place: place.clone(),
        identity,
        steps: Vec::new(),
        findings: transformed.findings.clone(),
        bytes: 0,
        files: 0,
        create: Vec::new(),
        replace: Vec::new(),
        sources: BTreeMap::new(),
        late: Vec::new(),
        fill: Vec::new(),
        no_place: BTreeSet::new(),
        load: Vec::new(),
        left: Vec::new(),
        ran: BTreeSet::new(),
        lost: BTreeSet::new(),
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        scale_down: Vec::new(),
        operators: Vec::new(),
        controllers: Controllers::default(),
        keyed: Vec::new(),
        usage: Usage::of(declared, &live),
        replicas: declared.iter().filter(|known| is_workload(&known.kind)).map(replicas).collect(),
        known,
        others: if options.restart_others { restart::planned(point, nodes) } else { Vec::new() },
        nodes: nodes.clone(),
        owners: owners::of_nodes(point),
    };
    if plan.known.foreign {
        plan.findings.push(Finding::warning(
            Rule::NotOverwritten,
            format!("ConfigMap {first}/{}", plan.identity.name()),
            "it has the name of this restore's progress record, and this restore did not write it there: it is ignored",
            "find out who created it; the restore begins anew and replaces it with its own record",
        ));
    }
    if let Some(begun) = &plan.known.over {
        plan.findings.push(Finding::note(
            Rule::NotOverwritten,
            format!("ConfigMap {first}/{}", plan.identity.name()),
            format!("an earlier run of the same restore, begun {begun}, is complete, and everything that it started is ready now: this restore begins anew"),
            "no action is needed if the data shall be replaced once more; if not, the restore is already complete",
        ));
    }
    let claims = declared_claims(declared);
    let scope = scope::Scope::of(declared, &chosen, &namespaces, &claims, &plan, options);
    scope::judge(&mut plan, &scope, declared, options)?;
    old_names::judge(&mut plan, declared)?;
    let staying = nodes::judge(&mut plan, &chosen, &claims, options)?;
    judge_places(&mut plan, point, &staying)?;
    // Nodes that stay as they are are not judged by what the recovery point has of them.
    let restored = |position: usize, node: &CapturedNode| {
        is_named(&node.facts.id, nodes)
            && (!options.missing || plan.fill.contains(&position) || plan.load.contains(&position))
    };
    let broken = judge::set(point, &restored, options);
    plan.findings.extend(broken);
    if options.missing {
        let filled: Vec<_> = plan.fill.iter().map(|&position| &point.nodes[position].facts).collect();
        plan.findings.extend(not_level(&filled, &point.channels));
    }
    let managed: BTreeSet<&str> =
        declared.iter().map(|known| known.api_version.as_str()).filter(|version| is_managed(version)).collect();
    if !managed.is_empty() {
        let operators = plan.target.operators(&managed.into_iter().collect::<Vec<_>>())?;
        let deployment = |(namespace, name)| ObjectRef::new("Deployment", namespace, name);
        plan.operators = operators.into_iter().map(deployment).collect();
        if plan.operators.is_empty() {
            plan.findings.push(Finding::warning(
                Rule::OperatorScaledDown,
                "operators",
                "the network is managed by an operator, and no operator was found in the cluster (or fabkeep has no right to search for it)",
                "if one runs, scale it to 0 until the restore is done; install it afterwards if it is gone",
            ));
        }
    }
    judge_controllers(&mut plan, point)?;
    // Pods may know Services of every namespace by their addresses.
    plan.create.sort_by_key(|known| is_workload(&known.kind));
    let classes = relocation::missing_classes(&plan.create, &plan.target)?;
    plan.findings.extend(classes);
    let ports = node_ports::judge(&mut plan.create, &plan.target, options)?;
    plan.findings.extend(ports);
    let from = if options.from_snapshots { sources::plan(&mut plan, point, &claims)? } else { Vec::new() };
    add_steps(&mut plan, point, from);
    Ok(plan)
}

/// Every directory that is filled has a place among the nodes as they will be. What belonged to no node may have lost its place with the
/// pod that mounted it.
fn judge_places(plan: &mut Plan, point: &RecoveryPoint, staying: &[nodes::Staying<'_>]) -> Result<(), EngineError> {
    if plan.fill.is_empty() && staying.is_empty() {
        return Ok(());
    }
    let created = plan.create.iter().chain(&plan.replace).chain(&plan.late);
    let planned = plan.target.planned_nodes(&plan.namespaces_there(), created)?;
    let captured: Option<jiff::Timestamp> = point.created.parse().ok();
    for nodes::Staying { id, claim: (namespace, claim) } in staying {
        if planned.created(namespace, claim) > captured {
            plan.findings.push(Finding::warning(
                Rule::NotOverwritten,
                id,
                format!("claim {namespace}/{claim} was created after this recovery point: nothing is missing, but it may have come back empty"),
                Remedy::from("no action is needed if the node has the recovery point's heights")
                    .or(Remedy::RestoreNodes { nodes: vec![(*id).clone()], replace: true }),
            ));
        }
    }
    plan.findings.extend(planned.lost_when_stopped(&plan.scale_down));
    let homeless = plan.fill.iter().filter_map(|&position| planned.without_machine(&point.nodes[position].facts.id));
    let homeless: Vec<Finding> = homeless.collect();
    if !homeless.is_empty() && !plan.target.has_one_machine()? {
        plan.findings.extend(homeless);
    }
    for node in plan.fill.iter().map(|&position| &point.nodes[position]) {
        let id = &node.facts.id;
        let unstoppable = node.workload.as_ref().and_then(|known| planned.unstoppable(id, &ObjectRef::from(known)));
        plan.findings.extend(unstoppable);
        for directory in node.directories.iter().map(|captured| &captured.directory) {
            if !directory.source.is_volume() || planned.place(id, directory).is_some() {
                continue;
            }
            if node.facts.role == NodeRole::Files {
                plan.no_place.insert(directory.path.clone());
                plan.findings.push(Finding::warning(
                    Rule::NotPersistent,
                    id,
                    format!(
                        "nothing in the cluster mounts {}, which belonged to no node: it is not restored",
                        directory.path
                    ),
                    Remedy::from("no action is needed if it is of no use")
                        .or(Remedy::from("start the pod that mounted it")
                            .and(Remedy::RestoreNodes { nodes: vec![id.clone()], replace: false }))
                        .or(Remedy::RestoreElsewhere),
                ));
            } else if planned.contains(id) || !plan.place.existing_workloads {
                plan.findings.push(fill::no_place(id, directory));
            }
        }
    }
    let no_place = &plan.no_place;
    plan.fill.retain(|&position| {
        let mut volumes = point.nodes[position].directories.iter().map(|captured| &captured.directory);
        volumes.any(|directory| directory.source.is_volume() && !no_place.contains(&directory.path))
    });
    Ok(())
}

/// What else starts the nodes that are filled.
fn judge_controllers(plan: &mut Plan, point: &RecoveryPoint) -> Result<(), EngineError> {
    let of_node = |&position: &usize| point.nodes[position].workload.as_ref().map(ObjectRef::from);
    let filled: BTreeSet<_> = plan.fill.iter().filter_map(of_node).collect();
    let filled: Vec<_> = filled.into_iter().collect();
    plan.controllers = plan.target.controllers(&filled)?;
    for unreachable in &plan.controllers.unreachable {
        plan.findings.push(Finding::warning(
            Rule::OperatorScales,
            "GitOps",
            format!("{unreachable}: if it scales nodes up while their volumes are filled, the fill is repeated, and refused if that happens again"),
            "give fabkeep the right to get, list and patch it (docs/kubernetes.md), or suspend it by hand until the restore is done",
        ));
    }
    for autoscaler in &plan.controllers.autoscalers {
        plan.findings.push(Finding::note(
            Rule::OperatorScales,
            autoscaler,
            "it scales a node that is restored; Kubernetes ignores it while its target has 0 replicas",
            "no action is needed: it works again when the node is scaled up",
        ));
    }
    Ok(())
}

fn add_steps(plan: &mut Plan, point: &RecoveryPoint, from: Vec<RestoreStep>) {
    let mut steps = Vec::new();
    if let Some(record) = plan.record() {
        let ((filled, started), (_, begun)) = (record.counts(), record.run());
        steps.push(RestoreStep::GoOn { begun: begun.to_owned(), filled, started });
    }
    let create = |known: &Declaration| RestoreStep::Create { object: known.label() };
    let suspended = plan.controllers.suspend.iter().map(|controller| controller.label());
    let operators = plan.operators.iter().map(ToString::to_string);
    steps.extend(suspended.chain(operators).map(|object| RestoreStep::Suspend { object }));
    steps.extend(plan.create.iter().filter(|known| !is_workload(&known.kind)).map(create));
    steps.extend(from);
    steps.extend(plan.replace.iter().map(|known| RestoreStep::Replace { object: known.label() }));
    steps.extend(plan.scale_down.iter().map(|workload| RestoreStep::Stop { node: workload.to_string() }));
    let workloads = plan.create.iter().filter(|known| is_workload(&known.kind));
    steps.extend(workloads.map(|known| RestoreStep::CreateStopped { object: known.label() }));
    for &position in &plan.fill {
        let node = &point.nodes[position];
        let filled: Vec<_> = node.directories.iter().filter(|known| plan.is_filled(&known.directory)).collect();
        for directory in filled {
            let (files, bytes) = (directory.file_count(), directory.data_bytes());
            plan.files += files;
            plan.bytes += bytes;
            let path = directory.directory.mounted_at.as_deref().unwrap_or(&directory.directory.path).into();
            let (node, kept) = (node.facts.id.to_string(), KeptFiles::default());
            steps.push(RestoreStep::Write { node, path, files, bytes, kept });
        }
    }
    let loads = plan.load.iter().map(|&position| point.nodes[position].facts.id.to_string());
    steps.extend(loads.map(|node| RestoreStep::Load { node, database: "its database server".to_owned() }));
    steps.extend(plan.late.iter().map(|known| RestoreStep::CreateLate { object: known.label() }));
    steps.extend(plan.others.iter().map(|node| RestoreStep::Restart { node: node.to_string() }));
    if !plan.fill.is_empty() || !plan.load.is_empty() || !plan.create.is_empty() || plan.is_resuming() {
        let stages = Stage::ALL.iter().map(ToString::to_string);
        steps.push(RestoreStep::Start { nodes: stages.collect() });
    }
    plan.steps = steps;
}

impl Plan {
    /// Its namespaces that are in the cluster already.
    pub(super) fn namespaces_there(&self) -> Vec<String> {
        let missing = |name: &String| self.create.iter().any(|known| known.kind == "Namespace" && known.name == *name);
        self.namespaces.iter().filter(|name| !missing(name)).cloned().collect()
    }

    /// Whether a directory of a node that is filled lies in a volume and has a place.
    pub(super) fn is_filled(&self, directory: &NodeDirectory) -> bool {
        directory.source.is_volume() && !self.no_place.contains(&directory.path)
    }

    /// What earlier runs of the same restore have done.
    pub(super) fn record(&self) -> Option<&Record> {
        self.known.record.as_ref()
    }

    /// The namespace that holds the progress record.
    pub(super) fn record_namespace(&self) -> &str {
        self.namespaces.first().map_or("", String::as_str)
    }

    /// What an earlier run of this restore has done.
    pub fn done(&self) -> Vec<Done> {
        self.record().map(Record::changes).unwrap_or_default()
    }

    /// Whether an earlier run of this restore is gone on with.
    pub fn is_resuming(&self) -> bool {
        self.record().is_some()
    }

    /// Objects that are created.
    pub fn created(&self) -> &[Declaration] {
        &self.create
    }

    /// Nodes whose data is written, or loaded into a database.
    pub fn written<'t>(&self, transformed: &'t Transformed) -> Vec<&'t CapturedNode> {
        self.fill.iter().chain(&self.load).map(|&position| &transformed.point.nodes[position]).collect()
    }
}
