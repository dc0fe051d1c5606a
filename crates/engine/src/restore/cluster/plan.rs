//! What a restore into a cluster would do, and what speaks against it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fabkeep_ledger::ca_dump::DUMP_FILE;
use fabkeep_network::{DirectorySource, Finding, NodeId, Rule, Severity, check_set};
use fabkeep_platform::Declaration;
use fabkeep_platform::kubernetes::{
    AuthorityObject, ClusterAddress, HelperOptions, ObjectState, Relocation, Target, WorkloadState, authority_objects,
    declared_claims, is_managed,
};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use super::super::keep::CaKeep;
use super::elsewhere;
use crate::EngineError;
use crate::arrange::{Arranged, LedgerFrom, arrange, is_named, not_level};
use crate::names::{unanswered, used_names};
use crate::objects::declarations;
use crate::point::{CapturedDirectory, CapturedEntry, CapturedNode, RecoveryPoint};

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
    /// Leave the workloads asleep in the end.
    pub keep_asleep: bool,
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
    #[serde(skip)]
    pub(super) namespaces: Vec<String>,
    /// Workloads to put to sleep: kind, namespace, name.
    #[serde(skip)]
    pub(super) sleep: Vec<(String, String, String)>,
    #[serde(skip)]
    pub(super) operators: Vec<(String, String)>,
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
fn is_late(declaration: &Declaration) -> bool {
    let custom = declaration.api_version.contains('.')
        && !declaration.api_version.contains("k8s.io")
        && !declaration.api_version.starts_with("cert-manager.io");
    custom || matches!(declaration.kind.as_str(), "Pod" | "DaemonSet" | "CronJob" | "HorizontalPodAutoscaler")
}

fn is_workload(kind: &str) -> bool {
    matches!(kind, "Deployment" | "StatefulSet" | "ReplicaSet" | "DaemonSet" | "Pod")
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
    Ok(arranged(commit, point, &reader, &target, options)?.1)
}

/// The recovery point as it would be restored, and the plan for it.
pub(super) fn arranged(
    commit: &Commit,
    point: RecoveryPoint,
    reader: &PointReader<'_>,
    target: &Target,
    options: &ClusterRestoreOptions,
) -> Result<(Arranged, ClusterRestorePlan), EngineError> {
    let declared = declarations(&point, reader)?;
    let used = used_names(&point, reader, &declared)?;
    let mut arranged = arrange(point, &options.nodes, &options.ledgers, &options.replicate, !options.missing)?;
    let moved = elsewhere::move_to(&options.relocation, &mut arranged, declared, &used, target)?;
    let mut plan = make(commit, &arranged, &moved.declared, target, options)?;
    plan.findings.extend(moved.findings);
    plan.findings.extend(unanswered(&used));
    Ok((arranged, plan))
}

fn make(
    commit: &Commit,
    arranged: &Arranged,
    declared: &[Declaration],
    target: &Target,
    options: &ClusterRestoreOptions,
) -> Result<ClusterRestorePlan, EngineError> {
    if declared.is_empty() {
        return Err(EngineError::Usage(format!(
            "recovery point {} was not captured on Kubernetes: restore it into a folder (--to) or by an inventory",
            commit.id
        )));
    }
    let (point, nodes) = (&arranged.point, &arranged.nodes);
    let mut plan = ClusterRestorePlan {
        point: commit.id.to_string(),
        cluster: target.cluster().to_owned(),
        steps: Vec::new(),
        findings: arranged.findings.clone(),
        bytes: 0,
        create: Vec::new(),
        replace: Vec::new(),
        late: Vec::new(),
        fill: Vec::new(),
        load: Vec::new(),
        namespaces: Vec::new(),
        sleep: Vec::new(),
        operators: Vec::new(),
        nodes: nodes.clone(),
    };
    let chosen: Vec<(usize, &CapturedNode)> =
        point.nodes.iter().enumerate().filter(|(_, node)| is_named(&node.facts.id, nodes)).collect();
    let namespaces: BTreeSet<&str> = chosen.iter().map(|(_, node)| node.facts.id.organization.as_str()).collect();
    let all: BTreeSet<&str> = declared
        .iter()
        .map(|known| if known.kind == "Namespace" { known.name.as_str() } else { known.namespace.as_str() })
        .collect();
    let namespaces = if nodes.is_empty() { all } else { namespaces };
    plan.namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();

    let claims = declared_claims(declared);
    let meant = meant(declared, &chosen, &namespaces, &claims, options);
    judge_set(&mut plan, point, &chosen, options);
    let stays = staying_objects(declared, options.ca_keep);
    judge_objects(&mut plan, &meant, &stays, target, options)?;
    judge_volumes(&mut plan, &chosen, &claims, commit.id.as_str(), target, options)?;
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
                Rule::OperatorAsleep,
                "operators",
                "the network is managed by an operator, and none was found in the cluster (or may not be looked for)",
                "if one runs, scale it to 0 until the restore is done; install it afterwards if it is gone",
            ));
        }
    }
    // Pods may know Services of every namespace by their addresses.
    plan.create.sort_by_key(|known| is_workload(&known.kind));
    plan.findings.extend(elsewhere::missing_classes(&plan.create, target)?);
    add_steps(&mut plan, point);
    Ok(plan)
}

/// The declared objects that this restore is about.
fn meant<'d>(
    declared: &'d [Declaration],
    chosen: &[(usize, &CapturedNode)],
    namespaces: &BTreeSet<&str>,
    claims: &BTreeMap<NodeId, Vec<(String, String)>>,
    options: &ClusterRestoreOptions,
) -> Vec<&'d Declaration> {
    let of_chosen: BTreeSet<&(String, String)> =
        chosen.iter().filter_map(|(_, node)| claims.get(&node.facts.id)).flatten().collect();
    let workloads: BTreeSet<(&str, &str, &str)> = chosen
        .iter()
        .filter_map(|(_, node)| node.workload.as_ref())
        .map(|workload| (workload.kind.as_str(), workload.namespace.as_str(), workload.name.as_str()))
        .collect();
    declared
        .iter()
        .filter(|known| {
            if known.kind == "Namespace" {
                return namespaces.contains(known.name.as_str());
            }
            if !namespaces.contains(known.namespace.as_str()) {
                return false;
            }
            if options.existing_workloads {
                return matches!(known.kind.as_str(), "Secret" | "ConfigMap" | "PersistentVolumeClaim");
            }
            if options.nodes.is_empty() {
                return true;
            }
            match known.kind.as_str() {
                "PersistentVolumeClaim" => of_chosen.contains(&(known.namespace.clone(), known.name.clone())),
                kind if is_workload(kind) => workloads.contains(&(kind, known.namespace.as_str(), known.name.as_str())),
                _ => true,
            }
        })
        .collect()
}

/// The rules over what is restored together.
fn judge_set(
    plan: &mut ClusterRestorePlan,
    point: &RecoveryPoint,
    chosen: &[(usize, &CapturedNode)],
    options: &ClusterRestoreOptions,
) {
    use fabkeep_ledger::layout::NodeRole;
    let facts: Vec<_> = chosen.iter().map(|(_, node)| node.facts.clone()).collect();
    let configs: Vec<_> = point.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    plan.findings.extend(check_set(&facts, &configs, point.derived, jiff::Timestamp::now().as_second()));
    let count = |nodes: &mut dyn Iterator<Item = NodeRole>| nodes.filter(|role| *role == NodeRole::Orderer).count();
    let all = count(&mut point.nodes.iter().map(|node| node.facts.role));
    // Those that come back empty are as old as nothing.
    let some = count(&mut facts.iter().filter(|node| !node.raft.is_empty()).map(|node| node.role));
    if some > 0 && (some < all || options.missing) {
        plan.findings.push(Finding::warning(
            Rule::OrderersLevel,
            format!("{some} of {all} orderers"),
            "orderers older than the rest of their cluster stop the leader (\"tocommit(N) is out of range\")",
            "let them come back empty and take everything from the others (--replicate NODE), or restart all other orderers before the restored ones start; if they are all lost, restore all together",
        ));
    }
}

/// Secrets and ConfigMaps that certificate authorities keep, when they are there.
fn staying_objects(declared: &[Declaration], keep: CaKeep) -> Vec<AuthorityObject> {
    if !keep.is_asked() {
        return Vec::new();
    }
    let mut objects = authority_objects(declared);
    // One that holds the authority's own key is never left: key, certificate and database belong together.
    objects.retain(|object| !object.own && ((keep.tls && object.tls) || (keep.config && object.config)));
    objects
}

fn judge_objects(
    plan: &mut ClusterRestorePlan,
    meant: &[&Declaration],
    stays: &[AuthorityObject],
    target: &Target,
    options: &ClusterRestoreOptions,
) -> Result<(), EngineError> {
    let states = target.compare(meant)?;
    let staying = |known: &Declaration| {
        stays.iter().find(|object| {
            (object.kind, &object.namespace, &object.name) == (known.kind.as_str(), &known.namespace, &known.name)
        })
    };
    for (&known, state) in meant.iter().zip(states) {
        let keyed = matches!(known.kind.as_str(), "Secret" | "ConfigMap");
        match state {
            ObjectState::Equal => {}
            ObjectState::Missing if is_late(known) => plan.late.push(known.clone()),
            ObjectState::Missing => plan.create.push(known.clone()),
            ObjectState::Differs(_) if staying(known).is_some() => {
                let of = staying(known).map(|object| object.id.to_string()).unwrap_or_default();
                plan.findings.push(Finding::note(
                    Rule::CaKept,
                    known.label(),
                    format!("it stays as it is there: {of} keeps it"),
                    "nothing: that is what --ca-keep asks for",
                ));
            }
            ObjectState::Differs(_) if keyed && options.replace => plan.replace.push(known.clone()),
            ObjectState::Differs(at) if keyed && options.missing => plan.findings.push(Finding::warning(
                Rule::NotOverwritten,
                known.label(),
                format!("it is there with another content ({at}) and is left as it is"),
                "compare it with the recovery point's; --replace puts that one in its place and keeps this one beside it",
            )),
            ObjectState::Differs(at) if keyed => plan.findings.push(Finding::error(
                Rule::NotOverwritten,
                known.label(),
                format!("it is there with another content ({at})"),
                "let the one of the recovery point take its place (--replace; the other is kept beside it), or leave it as it is (--missing)",
            )),
            // Claims and workloads grow and are tuned; what matters of them is their data.
            ObjectState::Differs(at) => plan.findings.push(Finding::note(
                Rule::Declared,
                known.label(),
                format!("it is there and declared otherwise ({at}): it is left as it is"),
                "compare it with the recovery point's, if it is not as it should be",
            )),
        }
    }
    Ok(())
}

fn judge_volumes(
    plan: &mut ClusterRestorePlan,
    chosen: &[(usize, &CapturedNode)],
    claims: &BTreeMap<NodeId, Vec<(String, String)>>,
    point: &str,
    target: &Target,
    options: &ClusterRestoreOptions,
) -> Result<(), EngineError> {
    let missing: BTreeSet<(String, String)> = plan
        .create
        .iter()
        .filter(|known| known.kind == "PersistentVolumeClaim")
        .map(|known| (known.namespace.clone(), known.name.clone()))
        .collect();
    for &(position, node) in chosen {
        let id = &node.facts.id;
        for directory in &node.directories {
            if directory.directory.source == DirectorySource::Ephemeral {
                plan.findings.push(Finding::warning(
                    Rule::NotPersistent,
                    id,
                    format!("its {} directory was held by no volume: it cannot be put back", directory.directory.role),
                    "its init container makes it anew; `fabkeep restore --to DIR` writes it into a folder",
                ));
            }
        }
        if !node.directories.iter().any(|directory| directory.directory.source.is_volume()) {
            continue;
        }
        let own = claims.get(id).map_or(&[][..], Vec::as_slice);
        let lost = own.iter().any(|claim| missing.contains(claim));
        let Some(workload) = &node.workload else { continue };
        let (kind, namespace, name) = (&workload.kind, &workload.namespace, &workload.name);
        let state = target.workload(kind, namespace, name)?;
        let mut notes = Vec::new();
        for (namespace, claim) in own.iter().filter(|_| !lost) {
            notes.push(target.restored_from(namespace, claim)?);
        }
        let noted = |text: &str| !notes.is_empty() && notes.iter().all(|note| note.as_deref() == Some(text));
        let restored = noted(point);
        let has_dump = dump_of(node).is_some();
        // Its volumes were made ready by an earlier run, which did not come to the dump.
        if has_dump && noted(&awaiting(point)) {
            plan.load.push(position);
            continue;
        }
        // An earlier run of this restore was here: it goes on.
        let going_on = state == WorkloadState::Asleep;
        if restored && going_on {
            continue;
        }
        if options.missing && !lost && !going_on {
            continue;
        }
        if state == WorkloadState::Missing && options.existing_workloads {
            plan.findings.push(Finding::error(
                Rule::Declared,
                id,
                format!("its workload {workload} is not in the cluster"),
                "deploy it first, or let fabkeep create it (without --workloads existing)",
            ));
        }
        if state == WorkloadState::Awake && !lost && !options.replace && !options.existing_workloads {
            plan.findings.push(Finding::error(
                Rule::NotOverwritten,
                id,
                "it runs, and its volumes are there",
                "restore only what is missing (--missing), choose nodes (--node), or let its data be set aside (--replace)",
            ));
            continue;
        }
        if state == WorkloadState::Awake {
            let workload = (kind.clone(), namespace.clone(), name.clone());
            if !plan.sleep.contains(&workload) {
                plan.sleep.push(workload);
            }
        }
        plan.fill.push(position);
        if has_dump {
            plan.load.push(position);
        }
    }
    Ok(())
}

/// The dump of a node's database.
pub(super) fn dump_of(node: &CapturedNode) -> Option<&CapturedEntry> {
    let server = |directory: &&CapturedDirectory| directory.directory.source == DirectorySource::Server;
    let entries = node.directories.iter().filter(server).flat_map(|directory| &directory.entries);
    entries.into_iter().find(|entry| entry.path == DUMP_FILE)
}

/// What is noted on the claims of a database that waits for its dump.
pub(super) fn awaiting(point: &str) -> String {
    format!("{point}, the dump is not loaded yet")
}

fn add_steps(plan: &mut ClusterRestorePlan, point: &RecoveryPoint) {
    let mut steps = Vec::new();
    let mut add = |step, subject: String| steps.push(ClusterStep { step, subject });
    for known in plan.create.iter().filter(|known| !is_workload(&known.kind)) {
        add("create", known.label());
    }
    for known in &plan.replace {
        add("replace, the present one kept beside it", known.label());
    }
    for (namespace, name) in &plan.operators {
        add("put the operator to sleep", format!("Deployment {namespace}/{name}"));
    }
    for (kind, namespace, name) in &plan.sleep {
        add("put to sleep", format!("{kind} {namespace}/{name}"));
    }
    for known in plan.create.iter().filter(|known| is_workload(&known.kind)) {
        add("create asleep", known.label());
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
        add("load its dump when it is awake, and compare", point.nodes[position].facts.id.to_string());
    }
    for known in &plan.late {
        add("create when the data is in", known.label());
    }
    if !plan.fill.is_empty() || !plan.load.is_empty() || !plan.create.is_empty() {
        add(
            "wake, each stage awaited",
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
