//! Restore into a cluster, in stages: Secrets and ConfigMaps, the other objects with workloads asleep, data into the volumes, proof, and
//! then the services awake, those first that others need. Every step finds out what is done already, so a second run goes on.

mod elsewhere;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fabkeep_ledger::ca_dump::{self, DUMP_FILE};
use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{DirectorySource, Finding, NodeDirectory, NodeId, Rule, Severity};
use fabkeep_platform::Fetch;
use fabkeep_platform::kubernetes::{DATABASES, Kubernetes, Selection, Stage, Target, WorkloadState};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

pub use plan::{ClusterRestoreOptions, ClusterRestorePlan, ClusterStep, plan_cluster_restore};
use plan::{arranged, awaiting, dump_of};

use super::authority;
use super::keep::{self, CaKeep, Present};
use super::volumes::{Filled, fill_all, place_for};
use crate::arrange::is_named;
use crate::content::Contents;
use crate::event::{Event, Reporter, step};
use crate::point::{CapturedNode, EntryContent, RecoveryPoint};
use crate::{EngineError, parallel};

/// What a restore into a cluster did and proved.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterRestored {
    /// The recovery point.
    pub point: String,
    /// The cluster's address.
    pub cluster: String,
    /// Objects created or replaced.
    pub objects: usize,
    /// Directories filled.
    pub directories: Vec<String>,
    /// Where what was there is now.
    pub set_aside: Vec<String>,
    /// What was proven, in sentences.
    pub proven: Vec<String>,
    /// Nodes that are ready again, with the heights that they tell.
    pub ready: BTreeMap<String, BTreeMap<String, u64>>,
    /// Warnings, overridden rules, what did not become ready, what the nodes logged since they woke.
    pub findings: Vec<Finding>,
    /// Whether everything that was woken is ready and logged no error that breaks a rule.
    pub well: bool,
    /// How long it took.
    pub seconds: f64,
}

/// Carries a plan out.
///
/// # Errors
/// [`EngineError`]; a second run goes on. Nothing that existed was removed.
pub fn restore_cluster(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    options: &ClusterRestoreOptions,
    shown: &mut dyn FnMut(&ClusterRestorePlan),
    reporter: &dyn Reporter,
) -> Result<ClusterRestored, EngineError> {
    let begun = Instant::now();
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    let target = Target::open(&options.address)?;
    let (arranged, plan) = arranged(commit, point, &reader, &target, options)?;
    let point = &arranged.point;
    shown(&plan);
    let errors = plan.refusals(&options.overrides);
    if !errors.is_empty() {
        plan.findings.iter().for_each(|finding| reporter.event(Event::Found(finding)));
        return Err(EngineError::Refused(errors));
    }
    let mut restored = ClusterRestored {
        point: commit.id.to_string(),
        cluster: plan.cluster.clone(),
        objects: 0,
        directories: Vec::new(),
        set_aside: Vec::new(),
        proven: Vec::new(),
        ready: BTreeMap::new(),
        findings: plan.findings.clone(),
        well: true,
        seconds: 0.0,
    };
    step(reporter, "objects", None, || objects(&plan, &target, commit.id.as_str(), reporter, &mut restored))?;
    let kubernetes = step(reporter, "look at the cluster", None, || open(&plan, options))?;
    if plan.load.iter().any(|position| plan.fill.contains(position)) {
        let found = step(reporter, "compare databases", None, || compare_servers(&plan, point, &reader, &kubernetes))?;
        found.iter().for_each(|finding| reporter.event(Event::Found(finding)));
        restored.findings.extend(found);
    }
    step(reporter, "put to sleep", None, || asleep(&plan, &target, &kubernetes))?;
    let filled = fill(&plan, point, &reader, &kubernetes, &target, options, reporter, &mut restored);
    let removed = kubernetes.remove_helpers();
    filled?;
    removed?;
    step(reporter, "objects that start something", None, || -> Result<(), EngineError> {
        for known in &plan.late {
            target.create(known)?;
            restored.objects += 1;
        }
        Ok(())
    })?;
    let mut all_awake = false;
    if !options.keep_asleep {
        // Bare pods and DaemonSets are there only now.
        let kubernetes = if plan.late.is_empty() { kubernetes } else { open(&plan, options)? };
        let since = jiff::Timestamp::now();
        all_awake = wake(&plan, point, &reader, &kubernetes, &target, options, reporter, &mut restored)?;
        let woken = |id: &NodeId| restored.ready.contains_key(&id.to_string()) || !all_awake;
        let logged = step(reporter, "read logs", None, || crate::logs::findings(&kubernetes, since, woken));
        restored.well = all_awake && logged.iter().all(|finding| finding.severity < Severity::Error);
        if logged.is_empty() && all_awake {
            restored.proven.push("the logs since the nodes woke speak of no panic and of no broken rule".to_owned());
        }
        restored.findings.extend(logged);
    }
    for (namespace, name) in &plan.operators {
        if all_awake {
            target.wake("Deployment", namespace, name)?;
        } else {
            // Awake it would start what is left asleep.
            restored.findings.push(Finding::warning(
                Rule::OperatorAsleep,
                format!("Deployment {namespace}/{name}"),
                "the operator is still asleep, as not everything that it manages is awake",
                "run the same command again, without --keep-asleep: it wakes the operator last",
            ));
        }
    }
    restored.seconds = begun.elapsed().as_secs_f64();
    Ok(restored)
}

fn open(plan: &ClusterRestorePlan, options: &ClusterRestoreOptions) -> Result<Kubernetes, EngineError> {
    let selection = Selection { namespaces: plan.namespaces.clone(), ..Selection::default() };
    Ok(Kubernetes::open(&options.address, &selection, options.helper.clone())?)
}

fn interrupted(reporter: &dyn Reporter) -> Result<(), EngineError> {
    if reporter.is_interrupted() { Err(EngineError::Interrupted) } else { Ok(()) }
}

/// Secrets and ConfigMaps first, in the order of the recovery point; operators asleep before anything that they look at.
fn objects(
    plan: &ClusterRestorePlan,
    target: &Target,
    point: &str,
    reporter: &dyn Reporter,
    restored: &mut ClusterRestored,
) -> Result<(), EngineError> {
    for (namespace, name) in &plan.operators {
        target.sleep("Deployment", namespace, name)?;
    }
    for known in &plan.replace {
        interrupted(reporter)?;
        let aside = target.replace(known, point)?;
        restored.set_aside.push(format!("{} {}/{aside}", known.kind, known.namespace));
        restored.objects += 1;
    }
    for known in &plan.create {
        interrupted(reporter)?;
        target.create(known)?;
        restored.objects += 1;
    }
    Ok(())
}

fn asleep(plan: &ClusterRestorePlan, target: &Target, kubernetes: &Kubernetes) -> Result<(), EngineError> {
    // Workloads of an earlier run sleep already; their pods may still be on their way.
    for (kind, namespace, name) in &plan.sleep {
        target.sleep(kind, namespace, name)?;
    }
    Ok(kubernetes.wait_until_gone(&plan.sleep)?)
}

#[allow(clippy::too_many_arguments)]
fn fill(
    plan: &ClusterRestorePlan,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    kubernetes: &Kubernetes,
    target: &Target,
    options: &ClusterRestoreOptions,
    reporter: &dyn Reporter,
    restored: &mut ClusterRestored,
) -> Result<(), EngineError> {
    use fabkeep_platform::Platform;
    let mut wanted = Vec::new();
    for &position in &plan.fill {
        let node = &point.nodes[position];
        for captured in node.directories.iter().filter(|captured| captured.directory.source.is_volume()) {
            let id = &node.facts.id;
            let Some(place) = place_for(kubernetes, id, &captured.directory) else {
                return Err(EngineError::Refused(vec![Finding::error(
                    Rule::NotPersistent,
                    id,
                    format!(
                        "the cluster has no place for its {} directory {}",
                        captured.directory.role, captured.directory.path
                    ),
                    "compare `fabkeep discover` with `fabkeep show`: the workload mounts other volumes than when it was captured",
                )]));
            };
            wanted.push((id, node.facts.role, captured, place));
        }
    }
    let threads = kubernetes.readers().unwrap_or_else(parallel::cores);
    let point_id = restored.point.clone();
    let mut directories = step(reporter, "start helper pods", None, || {
        let opened = parallel::map(wanted, threads, |(id, role, captured, place)| {
            Filled::new(kubernetes, id, role, captured, place)
        });
        opened.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    interrupted(reporter)?;
    // What is there decides: look at everything before anything is written.
    let looked =
        parallel::map(directories.iter().collect(), threads, |directory: &Filled<'_>| directory.filler.state());
    let mut refused = Vec::new();
    let mut aside = Vec::new();
    let mut whole = Vec::new();
    for (position, (directory, state)) in directories.iter_mut().zip(looked).enumerate() {
        let state = state.map_err(crate::error::io(directory.label()))?;
        let going_on = state.marked.as_deref() == Some(point_id.as_str());
        if options.ca_keep.is_asked() && directory.role == NodeRole::CertificateAuthority {
            if is_kept_whole(directory, options.ca_keep) && state.holds_data && !going_on {
                whole.push(position);
                continue;
            }
            let present = directory.present(going_on.then_some(point_id.as_str()))?;
            let (errors, others) = keep_present(directory, &present, point, reader, options.ca_keep)?;
            refused.extend(errors);
            restored.findings.extend(others);
        }
        let need = directory.captured.data_bytes();
        if need > state.free_bytes && !going_on {
            refused.push(Finding::error(
                Rule::RoomEnough,
                directory.label(),
                format!("the restore needs {need} bytes there, {} are free", state.free_bytes),
                "enlarge the claim, or remove what was set aside (.before-…)",
            ));
        }
        if state.holds_data && !going_on {
            if options.replace && keeps_new_one_away(directory)? {
                refused.push(Finding::error(
                    Rule::NotOverwritten,
                    directory.label(),
                    "PostgreSQL's files are in the volume's root: what is set aside there would keep it from beginning anew",
                    "back the database up once more, delete its workload and claim (the restore makes both), and run this again with --missing",
                ));
            } else if options.replace {
                aside.push(position);
            } else {
                refused.push(Finding::error(
                    Rule::NotOverwritten,
                    directory.label(),
                    "it holds data",
                    "restore only what is missing (--missing), choose nodes (--node), or let the data be set aside (--replace)",
                ));
            }
        }
    }
    for directory in aside.iter().map(|&position| &directories[position]) {
        let found = compare_authority(directory, point, reader)?;
        found.iter().for_each(|finding| reporter.event(Event::Found(finding)));
        restored.findings.extend(found);
    }
    if !refused.is_empty() {
        refused.iter().for_each(|finding| reporter.event(Event::Found(finding)));
        return Err(EngineError::Refused(refused));
    }
    for directory in aside.iter().map(|&position| &directories[position]) {
        let to = directory.filler.set_aside(&point_id).map_err(crate::error::io(directory.label()))?;
        restored.set_aside.push(format!("{} in {to}", directory.label()));
    }
    for position in whole.into_iter().rev() {
        let kept = directories.remove(position);
        restored.proven.push(format!("{} stays as it is", kept.label()));
    }
    let marked = parallel::map(directories.iter().collect(), threads, |directory: &Filled<'_>| {
        directory.filler.mark(&point_id).map_err(crate::error::io(directory.label()))
    });
    marked.into_iter().collect::<Result<Vec<()>, _>>()?;
    for directory in &directories {
        directory.write_kept()?;
        if !directory.kept.is_empty() {
            restored.proven.push(keep::told(directory.id, &directory.kept, directory.fits));
        }
    }
    restored.proven.extend(fill_all(&directories, point, reader, threads, reporter)?);
    let claims: BTreeSet<(String, String)> =
        directories.iter().flat_map(|directory| kubernetes.claims(directory.id)).collect();
    for directory in &directories {
        directory.filler.unmark().map_err(crate::error::io(directory.label()))?;
        restored.directories.push(directory.label());
    }
    for (namespace, claim) in claims {
        let waits = plan.load.iter().any(|&position| {
            let of_node = kubernetes.claims(&point.nodes[position].facts.id);
            of_node.contains(&(namespace.clone(), claim.clone()))
        });
        let note = if waits { awaiting(&point_id) } else { point_id.clone() };
        target.note_restored(&namespace, &claim, &note)?;
    }
    Ok(())
}

/// Whether a database server would take what is set aside for a database that is there: PostgreSQL begins in an empty directory only.
fn keeps_new_one_away(directory: &Filled<'_>) -> Result<bool, EngineError> {
    let made_anew = directory.captured.directory.role == DirectoryRole::Database
        && !directory.captured.entries.iter().any(|entry| matches!(entry.content, EntryContent::File { .. }));
    Ok(made_anew && directory.filler.list()?.iter().any(|entry| entry.path == "PG_VERSION"))
}

/// Whether a directory holds nothing but what is kept.
fn is_kept_whole(directory: &Filled<'_>, keep: CaKeep) -> bool {
    keep.tls && directory.captured.directory.role == DirectoryRole::Tls
}

/// Leaves to a certificate authority what is there and is to stay. What forbids the restore, and what to know.
fn keep_present(
    directory: &mut Filled<'_>,
    present: &Present,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    keep: CaKeep,
) -> Result<(Vec<Finding>, Vec<Finding>), EngineError> {
    let contents = Contents::new(reader, point);
    let known_as = keep::known_as(&directory.captured.directory, &directory.target);
    let kept = keep::decide(directory.id, &directory.captured, &known_as, present, &contents, keep)?;
    keep::leave_out(directory.captured.to_mut(), None, &kept);
    (directory.kept, directory.fits) = (kept.files, kept.fits);
    Ok(kept.findings.into_iter().partition(|finding| finding.severity == Severity::Error))
}

/// What a certificate authority whose database is replaced will have forgotten.
fn compare_authority(
    directory: &Filled<'_>,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for entry in authority::databases(&directory.captured) {
        let scratch = tempfile::tempdir().map_err(crate::error::io(std::env::temp_dir()))?;
        let present = scratch.path().join("present.db");
        let fetch = |suffix: &str| Fetch {
            path: format!("{}{suffix}", entry.path),
            to: scratch.path().join(format!("present.db{suffix}")),
            sparse: false,
        };
        let files: Vec<Fetch> = std::iter::once("").chain(authority::BESIDE).map(fetch).collect();
        let there = directory.filler.fetch(&files).map_err(crate::error::io(directory.label()))?;
        if there.first() == Some(&true) {
            findings.extend(authority::forgotten(directory.id, &present, entry, point, reader, scratch.path())?);
        }
    }
    Ok(findings)
}

/// What certificate authorities whose servers' databases are replaced will have forgotten, where the servers run.
fn compare_servers(
    plan: &ClusterRestorePlan,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    kubernetes: &Kubernetes,
) -> Result<Vec<Finding>, EngineError> {
    use fabkeep_platform::Platform;
    let mut findings = Vec::new();
    for &position in plan.load.iter().filter(|position| plan.fill.contains(position)) {
        let node = &point.nodes[position];
        let id = &node.facts.id;
        let known = kubernetes.network().nodes().find(|known| known.id == *id);
        let server = |directory: &&NodeDirectory| directory.source == DirectorySource::Server;
        let Some(directory) = known.and_then(|known| known.directories.iter().find(server)) else { continue };
        let Some(entry) = dump_of(node) else { continue };
        match kubernetes.volume(id, directory) {
            Ok(None) => {}
            Ok(Some(present)) => {
                let scratch = tempfile::tempdir().map_err(crate::error::io(std::env::temp_dir()))?;
                let older = scratch.path().join(DUMP_FILE);
                authority::write_captured(entry, point, reader, &older)?;
                if let Some(present) = present.local(DUMP_FILE) {
                    findings.extend(authority::forgotten_by_dump(id, &present, &older)?);
                }
            }
            Err(error) => findings.push(Finding::note(
                Rule::IdentitiesKnown,
                id,
                format!("what it knows beyond the recovery point cannot be told: {error}"),
                "look into the files that are set aside, if they can be read",
            )),
        }
    }
    Ok(findings)
}

/// Wakes what sleeps, stage by stage; what does not become ready in time is reported, and later stages are not begun. Whether all of it is
/// awake.
#[allow(clippy::too_many_arguments)]
fn wake(
    plan: &ClusterRestorePlan,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    kubernetes: &Kubernetes,
    target: &Target,
    options: &ClusterRestoreOptions,
    reporter: &dyn Reporter,
    restored: &mut ClusterRestored,
) -> Result<bool, EngineError> {
    let heights: BTreeMap<NodeId, BTreeMap<String, u64>> = point
        .nodes
        .iter()
        .map(|node| {
            let ledgers = node.facts.ledgers.iter().map(|ledger| (ledger.channel.clone(), ledger.height));
            (node.facts.id.clone(), ledgers.collect())
        })
        .collect();
    let mut behind: Vec<String> = Vec::new();
    for stage in stages(plan, point, kubernetes, options) {
        interrupted(reporter)?;
        if !behind.is_empty() {
            restored.findings.push(Finding::warning(
                Rule::ReadyPerChannel,
                stage.name,
                format!("left asleep, as {} are not ready", behind.join(", ")),
                "when the findings above are settled, run the same command again: it goes on",
            ));
            continue;
        }
        let name = format!("wake {}", stage.name);
        let awake = step(reporter, &name, None, || -> Result<_, EngineError> {
            for (kind, namespace, name) in &stage.workloads {
                if target.workload(kind, namespace, name)? == WorkloadState::Asleep {
                    target.wake(kind, namespace, name)?;
                }
            }
            let told = |line: &str| reporter.event(Event::Said(line));
            let is_interrupted = || reporter.is_interrupted();
            Ok(kubernetes.wait_until_ready(&stage, &heights, options.deadline, &told, &is_interrupted)?)
        })?;
        let in_time = awake.findings.is_empty();
        restored.ready.extend(awake.ready.into_iter().map(|(id, heights)| (id.to_string(), heights)));
        if !awake.findings.is_empty() {
            behind.push(stage.name.to_owned());
            restored.findings.extend(awake.findings);
        }
        if in_time && stage.name == DATABASES && !plan.load.is_empty() {
            // Before the authorities wake: on an empty database they would begin anew.
            step(reporter, "load databases", None, || {
                load(plan, point, reader, kubernetes, target, options, reporter, restored)
            })?;
        }
    }
    let told = restored.ready.values().filter(|heights| !heights.is_empty()).count();
    if told > 0 {
        restored.proven.push(format!("{told} nodes run and tell the recorded heights, or more, of every channel"));
    }
    Ok(behind.is_empty())
}

/// Loads the dumps of databases whose servers run again, and compares what they hold then.
#[allow(clippy::too_many_arguments)]
fn load(
    plan: &ClusterRestorePlan,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    kubernetes: &Kubernetes,
    target: &Target,
    options: &ClusterRestoreOptions,
    reporter: &dyn Reporter,
    restored: &mut ClusterRestored,
) -> Result<(), EngineError> {
    for &position in &plan.load {
        let node = &point.nodes[position];
        let Some(entry) = dump_of(node) else { continue };
        let id = &node.facts.id;
        let scratch = tempfile::tempdir().map_err(crate::error::io(std::env::temp_dir()))?;
        let path = scratch.path().join(DUMP_FILE);
        authority::write_captured(entry, point, reader, &path)?;
        let expected = std::fs::File::open(&path).and_then(|file| ca_dump::read(file, &mut |_, _| {}));
        let expected = expected.map_err(crate::error::io(&path))?;
        let told = |line: &str| reporter.event(Event::Said(line));
        let found = kubernetes.load_dump(id, &path, options.deadline, &told)?;
        if !expected.complete || found.content != expected.content {
            return Err(EngineError::Refused(vec![Finding::error(
                Rule::CaDatabase,
                id,
                "the database does not hold the captured rows after its dump was loaded: the certificate authorities stay asleep",
                "look at the server's log; the same command tries again",
            )]));
        }
        for (namespace, claim) in kubernetes.claims(id) {
            target.note_restored(&namespace, &claim, &restored.point)?;
        }
        let rows: Vec<String> = found.tables.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
        restored.proven.push(format!(
            "{id}: dumped again after it was loaded, every row is the captured one ({})",
            rows.join(", ")
        ));
    }
    Ok(())
}

/// The stages of what this restore is about.
fn stages(
    plan: &ClusterRestorePlan,
    point: &RecoveryPoint,
    kubernetes: &Kubernetes,
    options: &ClusterRestoreOptions,
) -> Vec<Stage> {
    if options.nodes.is_empty() && !options.missing {
        return kubernetes.stages(None);
    }
    let mut nodes: Vec<NodeId> =
        plan.fill.iter().chain(&plan.load).map(|&position| point.nodes[position].facts.id.clone()).collect();
    let created = |node: &&CapturedNode| {
        node.workload.as_ref().is_some_and(|workload| {
            plan.create.iter().chain(&plan.late).any(|known| {
                (&known.kind, &known.namespace, &known.name) == (&workload.kind, &workload.namespace, &workload.name)
            })
        })
    };
    nodes.extend(point.nodes.iter().filter(created).map(|node| node.facts.id.clone()));
    let named = point.nodes.iter().filter(|node| is_named(&node.facts.id, &plan.nodes));
    nodes.extend(named.map(|node| node.facts.id.clone()));
    kubernetes.stages(Some(&nodes))
}
