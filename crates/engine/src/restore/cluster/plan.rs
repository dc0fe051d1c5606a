//! What a restore into a cluster would do, and what speaks against it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fabkeep_network::{Finding, Rule, Severity, check_set};
use fabkeep_platform::Declaration;
use fabkeep_platform::kubernetes::{
    ClusterAddress, Controllers, HelperOptions, KindServed, Relocation, Target, Usage, declared_claims,
    foreign_to_network, is_managed,
};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use super::super::ca_keep::CaKeep;
use super::super::databases;
use super::record::{Identity, Known, Progress};
use super::{nodes, relocation, scope};
use crate::EngineError;
use crate::names::{unanswered, used_names};
use crate::objects::declarations;
use crate::point::{CapturedNode, RecoveryPoint};
use crate::transform::{LedgerFrom, Transformed, is_named, not_level, transform};

/// Where and how to restore.
#[derive(Debug, Clone)]
pub struct ClusterRestoreOptions {
    /// The cluster.
    pub address: ClusterAddress,
    /// How helper pods are made.
    pub helper: HelperOptions,
    /// Nodes to restore, as `Organization/node`; empty: all.
    pub nodes: Vec<String>,
    /// Peers that take another peer's ledger.
    pub ledgers: Vec<LedgerFrom>,
    /// Orderers that come back empty, to take everything from the others.
    pub replicate: Vec<String>,
    /// What certificate authorities keep of what is there.
    pub ca_keep: CaKeep,
    /// Other namespaces, storage classes, registries than the captured ones.
    pub relocation: Relocation,
    /// Set existing data aside and take its place.
    pub replace: bool,
    /// Restore only what is missing; leave alone what is there.
    pub missing: bool,
    /// Do not create workloads: fill the volumes of those that are there.
    pub existing_workloads: bool,
    /// Leave the workloads at 0 replicas in the end.
    pub no_start: bool,
    /// Codes of rules that may be broken.
    pub overrides: Vec<String>,
    /// How long each stage may take to become ready.
    pub deadline: Duration,
}

/// What a restore into a cluster would do.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterRestorePlan {
    /// The recovery point.
    pub point: String,
    /// The cluster's address.
    pub cluster: String,
    /// What would be done, in order.
    pub steps: Vec<ClusterStep>,
    /// What speaks against it, and what to know.
    pub findings: Vec<Finding>,
    /// Bytes to write, holes not counted.
    pub bytes: u64,
    #[serde(skip)]
    pub(super) create: Vec<Declaration>,
    #[serde(skip)]
    pub(super) replace: Vec<Declaration>,
    /// Objects that come when the data is in.
    #[serde(skip)]
    pub(super) late: Vec<Declaration>,
    /// Nodes whose volumes are filled, by position in the recovery point.
    #[serde(skip)]
    pub(super) fill: Vec<usize>,
    /// Nodes whose databases' dumps are loaded, by position in the recovery point.
    #[serde(skip)]
    pub(super) load: Vec<usize>,
    /// Nodes that an earlier run has filled and started: this one does not write them.
    #[serde(skip)]
    pub(super) left: Vec<String>,
    /// Nodes that an earlier run has written, and that ran since.
    #[serde(skip)]
    pub(super) ran: BTreeSet<String>,
    #[serde(skip)]
    pub(super) namespaces: Vec<String>,
    /// Workloads to scale down: kind, namespace, name.
    #[serde(skip)]
    pub(super) scale_down: Vec<(String, String, String)>,
    #[serde(skip)]
    pub(super) operators: Vec<(String, String)>,
    /// What else would scale workloads up.
    #[serde(skip)]
    pub(super) controllers: Controllers,
    /// Secrets and ConfigMaps that have to be as captured when nodes start.
    #[serde(skip)]
    pub(super) keyed: Vec<Declaration>,
    /// Workloads that use each object of the recovery point.
    #[serde(skip)]
    pub(super) usage: Usage,
    /// How many replicas each declared workload wants: by kind, namespace, name.
    #[serde(skip)]
    pub(super) replicas: BTreeMap<(String, String, String), u32>,
    /// What earlier runs of the same restore have done.
    #[serde(skip)]
    pub(super) known: Known,
    /// Nodes that it is about, as `Organization/node`; empty: all.
    #[serde(skip)]
    pub(super) nodes: Vec<String>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterStep {
    /// What is done.
    pub step: &'static str,
    /// With what.
    pub subject: String,
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

/// Makes the plan of a restore into a cluster. Nothing is changed.
///
/// # Errors
/// [`EngineError`].
pub fn plan_cluster_restore(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    options: &ClusterRestoreOptions,
) -> Result<ClusterRestorePlan, EngineError> {
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    let target = Target::open(&options.address)?;
    Ok(transformed(commit, point, &reader, &target, options)?.plan)
}

/// A recovery point as it would be restored, the plan for it, and what makes its progress record known.
pub(super) struct Planned {
    pub transformed: Transformed,
    pub plan: ClusterRestorePlan,
    pub identity: Identity,
}

/// The recovery point as it would be restored, and the plan for it.
pub(super) fn transformed(
    commit: &Commit,
    point: RecoveryPoint,
    reader: &PointReader<'_>,
    target: &Target,
    options: &ClusterRestoreOptions,
) -> Result<Planned, EngineError> {
    let identity = Identity::of(commit.id.as_str(), &point, options)?;
    let declared = declarations(&point, reader)?;
    at_the_border(&declared)?;
    let used = used_names(&point, reader, &declared)?;
    let mut transformed = transform(point, &options.nodes, &options.ledgers, &options.replicate, !options.missing)?;
    let moved = relocation::move_to(&options.relocation, &mut transformed, declared, &used, target)?;
    at_the_border(&moved.declared)?;
    let (declared, unserved) = served_here(moved.declared, target)?;
    let mut plan = make(commit, &transformed, &declared, &identity, target, options)?;
    plan.findings.extend(moved.findings);
    plan.findings.extend(unserved);
    plan.findings.extend(unanswered(&used));
    for &position in &plan.load {
        let node = &transformed.point.nodes[position];
        if let Some(entry) = nodes::dump_of(node) {
            plan.findings.extend(databases::refused_captured(&node.facts.id, entry, &transformed.point, reader)?);
        }
    }
    Ok(Planned { transformed, plan, identity })
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
                        "this cluster serves its kind in {version}, and not in {}: it is created so",
                        known.api_version
                    ),
                    "compare it with what its new version means",
                ));
                known.object["apiVersion"] = version.clone().into();
                known.api_version = version;
            }
            KindServed::No => {
                findings.push(Finding::warning(
                    Rule::Declared,
                    known.label(),
                    format!("this cluster does not serve {} {}: it is not created", known.api_version, known.kind),
                    "install what defines this kind, then create what is missing by the same command with --missing",
                ));
                continue;
            }
            KindServed::ClusterWide => {
                foreign.push(Finding::error(
                    Rule::Declared,
                    known.label(),
                    format!("here {} belongs to no namespace: a restore does not create it", known.kind),
                    "find out who wrote this recovery point, or whether the kind has changed; fabkeep captures what is in namespaces",
                ));
                continue;
            }
        }
        out.push(known);
    }
    if foreign.is_empty() { Ok((out, findings)) } else { Err(EngineError::Precondition(foreign)) }
}

fn make(
    commit: &Commit,
    transformed: &Transformed,
    declared: &[Declaration],
    identity: &Identity,
    target: &Target,
    options: &ClusterRestoreOptions,
) -> Result<ClusterRestorePlan, EngineError> {
    if declared.is_empty() {
        return Err(EngineError::Usage(format!(
            "recovery point {} was not captured on Kubernetes: restore it into a folder (--to) or by an inventory",
            commit.id
        )));
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
        (fabkeep_platform::kubernetes::key_of(known), u32::try_from(replicas).unwrap_or(1))
    };
    let mut plan = ClusterRestorePlan {
        point: commit.id.to_string(),
        cluster: target.cluster().to_owned(),
        steps: Vec::new(),
        findings: transformed.findings.clone(),
        bytes: 0,
        create: Vec::new(),
        replace: Vec::new(),
        late: Vec::new(),
        fill: Vec::new(),
        load: Vec::new(),
        left: Vec::new(),
        ran: BTreeSet::new(),
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        scale_down: Vec::new(),
        operators: Vec::new(),
        controllers: Controllers::default(),
        keyed: Vec::new(),
        usage: Usage::of(declared, &live),
        replicas: declared.iter().filter(|known| is_workload(&known.kind)).map(replicas).collect(),
        known: Known::look(target, first, identity, options.replace)?,
        nodes: nodes.clone(),
    };
    if plan.known.foreign {
        plan.findings.push(Finding::warning(
            Rule::NotOverwritten,
            format!("ConfigMap {first}/{}", identity.name()),
            "it has the name of this restore's progress record, and this restore did not write it there: nothing of it is believed",
            "find out who made it; the restore begins anew and writes its own record in its place",
        ));
    }
    if let Some(begun) = &plan.known.over {
        plan.findings.push(Finding::note(
            Rule::NotOverwritten,
            format!("ConfigMap {first}/{}", identity.name()),
            format!("an earlier run of the same restore, begun {begun}, has done everything, and what it started is ready now: it is over, and this restore begins anew"),
            "nothing, if the data is to be replaced once more; if not, all is done",
        ));
    }
    let claims = declared_claims(declared);
    let scope = scope::Scope::of(declared, &chosen, &namespaces, &claims, &plan.usage, options);
    scope::judge(&mut plan, &scope, declared, target, options)?;
    nodes::judge(&mut plan, &chosen, &claims, target, options)?;
    judge_set(&mut plan, point, &chosen, options);
    if options.missing {
        let filled: Vec<_> = plan.fill.iter().map(|&position| &point.nodes[position].facts).collect();
        plan.findings.extend(not_level(&filled));
    }
    let managed: BTreeSet<&str> =
        declared.iter().map(|known| known.api_version.as_str()).filter(|version| is_managed(version)).collect();
    if !managed.is_empty() {
        plan.operators = target.operators(&managed.into_iter().collect::<Vec<_>>())?;
        if plan.operators.is_empty() {
            plan.findings.push(Finding::warning(
                Rule::OperatorScaledDown,
                "operators",
                "the network is managed by an operator, and none was found in the cluster (or may not be looked for)",
                "if one runs, scale it to 0 until the restore is done; install it afterwards if it is gone",
            ));
        }
    }
    judge_controllers(&mut plan, point, target)?;
    // Pods may know Services of every namespace by their addresses.
    plan.create.sort_by_key(|known| is_workload(&known.kind));
    plan.findings.extend(relocation::missing_classes(&plan.create, target)?);
    add_steps(&mut plan, point);
    Ok(plan)
}

/// What else starts the nodes that are filled.
fn judge_controllers(plan: &mut ClusterRestorePlan, point: &RecoveryPoint, target: &Target) -> Result<(), EngineError> {
    let of_node = |&position: &usize| {
        let workload = point.nodes[position].workload.as_ref()?;
        Some((workload.kind.clone(), workload.namespace.clone(), workload.name.clone()))
    };
    let filled: BTreeSet<_> = plan.fill.iter().filter_map(of_node).collect();
    let filled: Vec<_> = filled.into_iter().collect();
    plan.controllers = target.controllers(&filled)?;
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
            "it scales a node that is restored; Kubernetes leaves a target of 0 replicas alone",
            "nothing: it goes on when the node is scaled up",
        ));
    }
    Ok(())
}

/// The rules over what is restored together.
fn judge_set(
    plan: &mut ClusterRestorePlan,
    point: &RecoveryPoint,
    chosen: &[(usize, &CapturedNode)],
    options: &ClusterRestoreOptions,
) {
    use fabkeep_ledger::layout::NodeRole;
    // Nodes that stay as they are are not judged by what the recovery point has of them.
    let restored = |position: &usize| !options.missing || plan.fill.contains(position) || plan.load.contains(position);
    let facts: Vec<_> =
        chosen.iter().filter(|(position, _)| restored(position)).map(|(_, node)| node.facts.clone()).collect();
    let configs: Vec<_> = point.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    let now = jiff::Timestamp::now().as_second();
    // An orderer that comes back empty lacks its channels because it was asked to: only its keys are judged.
    let (emptied, filled): (Vec<_>, Vec<_>) =
        facts.iter().cloned().partition(|node| options.replicate.contains(&node.id.to_string()));
    plan.findings.extend(check_set(&filled, &configs, point.derived, now));
    plan.findings.extend(check_set(&emptied, &[], point.derived, now));
    let count = |nodes: &mut dyn Iterator<Item = NodeRole>| nodes.filter(|role| *role == NodeRole::Orderer).count();
    let all = count(&mut point.nodes.iter().map(|node| node.facts.role));
    // Those that come back empty are as old as nothing.
    let some = count(&mut facts.iter().filter(|node| !node.raft.is_empty()).map(|node| node.role));
    if some > 0 && some < all {
        plan.findings.push(Finding::warning(
            Rule::OrderersLevel,
            format!("{some} of {all} orderers"),
            "orderers older than the rest of their cluster stop the leader (\"tocommit(N) is out of range\")",
            "let them come back empty and take everything from the others (--replicate NODE), or restart all other orderers before the restored ones start; if they are all lost, restore all together",
        ));
    }
}

fn add_steps(plan: &mut ClusterRestorePlan, point: &RecoveryPoint) {
    let mut steps = Vec::new();
    let mut add = |step, subject: String| steps.push(ClusterStep { step, subject });
    if let Some(progress) = &plan.known.progress {
        let (filled, begun) = (progress.filled.len(), &progress.begun);
        add(
            "go on with an earlier run",
            format!("begun {begun}: {filled} nodes filled, {} workloads started", progress.started.len()),
        );
    }
    for controller in &plan.controllers.suspend {
        add("suspend until the end", controller.label());
    }
    for known in plan.create.iter().filter(|known| !is_workload(&known.kind)) {
        add("create", known.label());
    }
    for known in &plan.replace {
        add("replace, what is there is kept beside it", known.label());
    }
    for (namespace, name) in &plan.operators {
        add("scale the operator down", format!("Deployment {namespace}/{name}"));
    }
    for (kind, namespace, name) in &plan.scale_down {
        add("scale down", format!("{kind} {namespace}/{name}"));
    }
    for known in plan.create.iter().filter(|known| is_workload(&known.kind)) {
        add("create with 0 replicas", known.label());
    }
    let mut bytes = 0;
    for &position in &plan.fill {
        let node = &point.nodes[position];
        for directory in node.directories.iter().filter(|directory| directory.directory.source.is_volume()) {
            let own = directory.data_bytes();
            bytes += own;
            let at = directory.directory.mounted_at.as_deref().unwrap_or(&directory.directory.path);
            add("fill and prove", format!("{} {at} ({own} bytes)", node.facts.id));
        }
    }
    for &position in &plan.load {
        add("load its dump when it runs, and compare", point.nodes[position].facts.id.to_string());
    }
    for known in &plan.late {
        add("create when the data is in", known.label());
    }
    if !plan.fill.is_empty() || !plan.load.is_empty() || !plan.create.is_empty() || plan.known.progress.is_some() {
        add(
            "scale up, each stage awaited",
            "databases, certificate authorities, orderers, peers, chaincode, others".to_owned(),
        );
    }
    plan.bytes = bytes;
    plan.steps = steps;
}

impl ClusterRestorePlan {
    /// Its namespaces that are in the cluster already.
    pub(super) fn namespaces_there(&self) -> Vec<String> {
        let missing = |name: &String| self.create.iter().any(|known| known.kind == "Namespace" && known.name == *name);
        self.namespaces.iter().filter(|name| !missing(name)).cloned().collect()
    }

    /// What earlier runs of the same restore have done.
    pub(super) fn progress(&self) -> Option<&Progress> {
        self.known.progress.as_ref()
    }

    /// The namespace that holds the progress record.
    pub(super) fn record_namespace(&self) -> &str {
        self.namespaces.first().map_or("", String::as_str)
    }

    /// Findings that forbid the restore, less those whose rules are overridden.
    pub fn refusals(&self, overrides: &[String]) -> Vec<Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .filter(|finding| !overrides.iter().any(|code| code == finding.rule.code()))
            .cloned()
            .collect()
    }
}
