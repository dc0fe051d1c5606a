//! Restore into a cluster, in stages: Secrets and ConfigMaps, the other objects with workloads asleep, data into the volumes, proof, and
//! then the services awake, those first that others need. Every step finds out what is done already, so a second run goes on.

mod compare;
mod elsewhere;
mod fill;
mod plan;
mod wake;

use std::collections::BTreeMap;
use std::time::Instant;

use fabkeep_network::{Finding, NodeId, Rule, Severity};
use fabkeep_platform::kubernetes::{Kubernetes, Selection, Target};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use plan::arranged;
pub use plan::{ClusterRestoreOptions, ClusterRestorePlan, ClusterStep, plan_cluster_restore};

use crate::EngineError;
use crate::event::{Event, Reporter, step};
use crate::point::{CapturedNode, RecoveryPoint};

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

/// One run of a restore: what it works with.
struct Run<'a> {
    plan: &'a ClusterRestorePlan,
    point: &'a RecoveryPoint,
    reader: &'a PointReader<'a>,
    target: &'a Target,
    options: &'a ClusterRestoreOptions,
    reporter: &'a dyn Reporter,
}

impl Run<'_> {
    fn node(&self, position: usize) -> &CapturedNode {
        &self.point.nodes[position]
    }

    fn interrupted(&self) -> Result<(), EngineError> {
        if self.reporter.is_interrupted() { Err(EngineError::Stopped) } else { Ok(()) }
    }
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
    let run = Run { plan: &plan, point, reader: &reader, target: &target, options, reporter };
    let there = plan.namespaces_there();
    let has_data = !plan.fill.is_empty() || !plan.load.is_empty();
    if has_data && !there.is_empty() {
        let kubernetes = step(reporter, "look at what is there", None, || open(there, options))?;
        restored.findings.extend(step(reporter, "compare heights", None, || compare::heights(&run, &kubernetes))?);
        if plan.load.iter().any(|position| plan.fill.contains(position)) {
            let found = step(reporter, "compare databases", None, || compare::servers(&run, &kubernetes))?;
            found.iter().for_each(|finding| reporter.event(Event::Found(finding)));
            restored.findings.extend(found);
        }
        // Before there is a claim that a node could begin anew on.
        step(reporter, "put to sleep", None, || asleep(&run, &kubernetes))?;
    }
    step(reporter, "objects", None, || objects(&run, &mut restored))?;
    let kubernetes = step(reporter, "look at the cluster", None, || open(plan.namespaces.clone(), options))?;
    let filled = fill::fill(&run, &kubernetes, &mut restored);
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
        let kubernetes = if plan.late.is_empty() { kubernetes } else { open(plan.namespaces.clone(), options)? };
        let since = jiff::Timestamp::now();
        all_awake = wake::wake(&run, &kubernetes, &mut restored)?;
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

fn open(namespaces: Vec<String>, options: &ClusterRestoreOptions) -> Result<Kubernetes, EngineError> {
    let selection = Selection { namespaces, ..Selection::default() };
    Ok(Kubernetes::open(&options.address, &selection, options.helper.clone())?)
}

/// Secrets and ConfigMaps first, in the order of the recovery point; operators asleep before anything that they look at.
fn objects(run: &Run<'_>, restored: &mut ClusterRestored) -> Result<(), EngineError> {
    let (plan, target) = (run.plan, run.target);
    for (namespace, name) in &plan.operators {
        target.sleep("Deployment", namespace, name)?;
    }
    for known in &plan.replace {
        run.interrupted()?;
        let aside = target.replace(known, &restored.point)?;
        restored.set_aside.push(format!("{} {}/{aside}", known.kind, known.namespace));
        restored.objects += 1;
    }
    for known in &plan.create {
        run.interrupted()?;
        target.create(known)?;
        restored.objects += 1;
    }
    Ok(())
}

/// Operators first: awake they would undo it.
fn asleep(run: &Run<'_>, kubernetes: &Kubernetes) -> Result<(), EngineError> {
    for (namespace, name) in &run.plan.operators {
        run.target.sleep("Deployment", namespace, name)?;
    }
    // Workloads of an earlier run sleep already; their pods may still be on their way.
    for (kind, namespace, name) in &run.plan.sleep {
        run.target.sleep(kind, namespace, name)?;
    }
    Ok(kubernetes.wait_until_gone(&run.plan.sleep)?)
}
