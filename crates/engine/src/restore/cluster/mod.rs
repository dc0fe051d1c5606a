//! Restore into a cluster, in stages: examine the target; create Secrets and ConfigMaps, then the other objects with workloads at 0
//! replicas; fill the volumes; verify; start the services in the order of their dependencies. A progress record in the cluster notes what
//! was done, so that the same command continues wherever it ended.

mod compare;
mod fenced;
mod fill;
mod guard;
mod look;
mod node_ports;
mod nodes;
mod objects;
mod old_names;
mod plan;
mod record;
mod rehearse;
mod relocation;
mod restart;
mod scope;
mod sources;
mod start;
mod undo;
mod volume;

use std::collections::BTreeSet;

use fabkeep_network::{Finding, NodeId, Remedy, Rule, Severity};
use fabkeep_platform::kubernetes::{HelperOptions, Kubernetes, Selection, Target};
use fabkeep_platform::{Declaration, ObjectRef, PlatformError};
use fabkeep_store::PointReader;

use super::progress::{AtRest, Step};
use super::{RestoreOptions, RestorePlan, Restored, SetAside};
use crate::event::{Event, Reporter, step, step_with_helpers};
use crate::point::{CapturedNode, RecoveryPoint};
use crate::{Done, EngineError};
use record::Journal;

pub(super) use plan::{Plan, make as plan};

/// One run of a restore: what it works with.
struct Run<'a> {
    /// The recovery point's identity.
    id: &'a str,
    plan: &'a Plan,
    point: &'a RecoveryPoint,
    reader: &'a PointReader<'a>,
    target: &'a Target,
    options: &'a RestoreOptions,
    reporter: &'a dyn Reporter,
}

impl Run<'_> {
    fn node(&self, position: usize) -> &CapturedNode {
        &self.point.nodes[position]
    }

    fn interrupted(&self) -> Result<(), EngineError> {
        if self.reporter.is_interrupted() { Err(EngineError::Stopped) } else { Ok(()) }
    }

    fn found(&self, finding: &Finding) {
        self.reporter.event(Event::Found(finding));
    }

    /// Reports a finding, which belongs to the result too.
    fn report(&self, restored: &mut Restored, finding: Finding) {
        self.found(&finding);
        restored.findings.push(finding);
    }
}

/// Carries a plan out.
pub(super) fn execute(
    whole: &RestorePlan<'_>,
    plan: &Plan,
    reporter: &dyn Reporter,
    restored: &mut Restored,
) -> Result<(), EngineError> {
    let (point, target, options) = (whole.point(), &plan.target, &whole.options);
    let run = Run { id: &whole.point, plan, point, reader: &whole.reader, target, options, reporter };
    let mut record = Journal::go_on(target, plan.record_namespace(), plan.identity.clone(), plan.known.clone())?;
    restored.resumed = record.is_resumed();
    if restored.resumed {
        restored.findings.push(gone_on_with(&run, &record));
    }
    match carry_out(&run, whole, &mut record, restored) {
        Ok(()) => {}
        Err(error) if record.changes().is_empty() => {
            // Nothing was done that could be gone on with; a record that stays behind says no more than that.
            let _ = record.remove();
            return Err(error);
        }
        Err(error) => return Err(undo::after(&run, &mut record, error)),
    }
    let aside = record.changes().into_iter().filter_map(|done| match done {
        Done::SetAside { what, to } => Some(SetAside { what, to }),
        _ => None,
    });
    restored.set_aside = aside.collect();
    restored.bytes = whole.bytes;
    Ok(())
}

/// The earlier run that is gone on with: nodes that it has started are neither written nor compared by this one.
fn gone_on_with(run: &Run<'_>, record: &Journal<'_>) -> Finding {
    let ((begun_by, begun), (filled, started)) = (record.run(), record.counts());
    let subject = format!("run {begun_by}");
    let what = format!(
        "this continues an earlier run of the same restore, begun {begun}: it filled the volumes of {filled} nodes and started {started} workloads"
    );
    if run.plan.left.is_empty() {
        let next = "no action is needed: what this run proves is reported separately; to begin anew instead, delete its progress record";
        return Finding::note(Rule::NotOverwritten, subject, what, next);
    }
    let what = format!("{what}; this run does not write or compare {}", run.plan.left.join(", "));
    let delete = format!(
        "delete the progress record, if it is there still (`kubectl -n {} delete configmap {}`)",
        run.plan.record_namespace(),
        record.name()
    );
    let next = Remedy::from("no action is needed if they are as they should be")
        .or(Remedy::from(delete).and(Remedy::SetAside).and("run the same command again: it restores them again"));
    Finding::warning(Rule::NotOverwritten, subject, what, next)
}

/// The steps, from the first look to the last start.
fn carry_out(
    run: &Run<'_>,
    whole: &RestorePlan<'_>,
    record: &mut Journal<'_>,
    restored: &mut Restored,
) -> Result<(), EngineError> {
    let (plan, options, reporter) = (run.plan, run.options, run.reporter);
    let there = plan.namespaces_there();
    let has_data = !plan.fill.is_empty() || !plan.load.is_empty();
    let mut examined = None;
    if has_data && !there.is_empty() {
        let kubernetes = step(reporter, "examine the target", None, || open(there, plan))?;
        fill::refuse_others(&kubernetes, &claims_to_fill(run, &kubernetes))?;
        restored.findings.extend(step(reporter, "compare heights", None, || compare::heights(run, &kubernetes))?);
        if options.restart_others {
            restored.findings.extend(step(reporter, "examine the other orderers", None, || restart::look(run))?);
        }
        if plan.load.iter().any(|position| plan.fill.contains(position)) {
            let found = step(reporter, "compare databases", None, || compare::servers(run, &kubernetes))?;
            found.iter().for_each(|finding| run.found(finding));
            restored.findings.extend(found);
        }
        let looked =
            step_with_helpers(reporter, &kubernetes, "examine the volumes", || look::before(run, &kubernetes, record));
        let removed = kubernetes.remove_helpers();
        restored.findings.extend(looked?);
        removed?;
        examined = Some(kubernetes);
    }
    if whole.steps.is_empty() {
        return Ok(());
    }
    run.interrupted()?;
    step(reporter, "try the changes as dry runs", None, || rehearse::rehearse(run, examined.as_ref()))?;
    drop(examined);
    objects::namespaces(run, record, restored)?;
    record.store()?;
    // Before there is a claim that a node could begin anew on.
    step(reporter, "scale down", None, || scale_down(run, record))?;
    // Before there is a claim that the next run could take for a node's own.
    record.note_all(plan.lost.iter().map(|node| Step::Lost { node: node.clone() }))?;
    let up = step(reporter, "create objects", None, || objects::create(run, record, restored))?;
    // Bare pods and DaemonSets are not there yet: what they will mount is filled.
    let kubernetes =
        step(reporter, "discover the nodes", None, || open_with(plan.namespaces.clone(), plan, &plan.late))?;
    wait_until_gone(run, &kubernetes, &up)?;
    let filled = fill::fill(run, &kubernetes, record, restored);
    if filled.is_ok() {
        sources::take_back(run, record, restored);
    }
    let removed = kubernetes.remove_helpers();
    filled?;
    removed?;
    step(reporter, "compare objects again", None, || objects::settle(run, record, restored))?;
    step(reporter, "create objects that start pods", None, || objects::late(run, record, restored))?;
    if !options.start {
        restored.findings.extend(start::kept_back(record));
        return Ok(());
    }
    // Bare pods and DaemonSets are there only now.
    let kubernetes = if plan.late.is_empty() { kubernetes } else { open(plan.namespaces.clone(), plan)? };
    if options.restart_others {
        restart::others(run, record)?;
    }
    let since = jiff::Timestamp::now();
    let started = start::start(run, &kubernetes, record, restored)?;
    let is_up = |id: &NodeId| restored.ready.contains_key(&id.to_string()) || !started;
    let logged = step(reporter, "read logs", None, || start::logged(run, &kubernetes, since, &is_up));
    let after = objects::changed_since(run)?;
    restored.well = started && after.is_empty() && logged.iter().all(|finding| finding.severity < Severity::Error);
    if logged.is_empty() && started {
        restored.proven.push("the logs since the start of the nodes contain no panic and no broken rule".to_owned());
    }
    restored.findings.extend(logged);
    restored.findings.extend(after);
    if started {
        start::let_others_go_on(run, record, &mut Vec::new())?;
        record.remove()?;
    } else {
        restored.findings.extend(start::kept_back(record));
        let loaded = |&position: &usize| record.is_node_loaded(&run.node(position).facts.id.to_string());
        let waits = record.is_complete() && plan.load.iter().all(loaded);
        record.note_all(waits.then_some(Step::Waiting))?;
    }
    Ok(())
}

fn open(namespaces: Vec<String>, plan: &Plan) -> Result<Kubernetes, EngineError> {
    open_with(namespaces, plan, &[])
}

fn open_with(namespaces: Vec<String>, plan: &Plan, expected: &[Declaration]) -> Result<Kubernetes, EngineError> {
    let selection = Selection { namespaces, ..Selection::default() };
    let helper = HelperOptions {
        owners: plan.owners.clone(),
        restore: Some(plan.identity.plan().to_owned()),
        ..plan.place.helper.clone()
    };
    Ok(Kubernetes::open_with(&plan.place.address, &selection, helper, expected)?)
}

/// Claims of the nodes that are filled, as far as the nodes are there.
fn claims_to_fill(run: &Run<'_>, kubernetes: &Kubernetes) -> BTreeSet<(String, String)> {
    run.plan.fill.iter().flat_map(|&position| kubernetes.claims(&run.node(position).facts.id)).collect()
}

/// Controllers and operators first: they would undo it.
fn scale_down(run: &Run<'_>, record: &mut Journal<'_>) -> Result<(), EngineError> {
    let (plan, target) = (run.plan, run.target);
    for controller in &plan.controllers.suspend {
        let node = controller.label();
        // What stood there before the first suspension is what comes back.
        let known = record.suspended().iter().any(|known| known.label() == node);
        let suspended = (!known).then(|| Step::Suspended(controller.clone()));
        record.note_all(suspended.into_iter().chain([Done::NodeStopping { node: node.clone() }.into()]))?;
        if target.suspend(controller)? {
            record.add(Done::NodeStopped { node })?;
            continue;
        }
        run.found(&Finding::warning(
            Rule::OperatorScales,
            &node,
            "fabkeep has no right to suspend it: if it scales nodes up while their volumes are filled, these are filled again",
            "give fabkeep the right to patch it (docs/kubernetes.md), or suspend it by hand until the restore is done",
        ));
        record.add(Step::Released { node })?;
    }
    for operator in &plan.operators {
        let node = operator.to_string();
        // What an earlier run has found is what it had before.
        let known = record.operators().into_iter().find(|known| known.object == *operator);
        let replicas = match known {
            Some(known) => known.replicas,
            None => target.replicas(operator)?,
        };
        let at_rest = Step::OperatorAtRest(AtRest { object: operator.clone(), replicas });
        record.note_all([at_rest, Done::NodeStopping { node: node.clone() }.into()])?;
        target.scale_down(operator)?;
        record.add(Done::NodeStopped { node })?;
    }
    if plan.scale_down.is_empty() {
        return Ok(());
    }
    for workload in &plan.scale_down {
        run.interrupted()?;
        let (before, node) = (record.clone(), workload.to_string());
        record.note_all([record.resting(workload, None), Done::NodeStopping { node: node.clone() }.into()])?;
        match target.scale_down(workload) {
            Ok(scaled) => {
                record.add(record.resting(workload, Some(scaled.replicas)))?;
                record.add(Done::NodeStopped { node })?;
            }
            Err(error) => {
                // After a failure it may be scaled down nevertheless, after a refusal it is not.
                if matches!(error, PlatformError::Forbidden { .. }) {
                    record.take_back(before);
                }
                return Err(error.into());
            }
        }
    }
    record.store()?;
    let kubernetes = open(plan.namespaces_there(), plan)?;
    wait_until_gone(run, &kubernetes, &plan.scale_down)
}

/// How often a workload that somebody scales up is scaled down again.
const SCALED_AGAIN: usize = 3;

/// Waits until the pods of workloads are gone. What somebody scales up meanwhile is scaled down again, a few times; then the restore ends.
fn wait_until_gone(run: &Run<'_>, kubernetes: &Kubernetes, workloads: &[ObjectRef]) -> Result<(), EngineError> {
    for tries in 0.. {
        let up = kubernetes.wait_until_gone(workloads)?;
        if up.is_empty() {
            break;
        }
        let finding = |workload: &ObjectRef| -> Result<Finding, EngineError> {
            let by = run.target.scaled_by(workload)?.filter(|manager| manager != "fabkeep");
            let by = by.map_or_else(String::new, |manager| format!(" (field manager {manager})"));
            Ok(Finding::error(
                Rule::OperatorScales,
                workload,
                format!("somebody{by} keeps scaling it up while it is to be at 0 replicas"),
                "suspend what starts it (GitOps, an operator, an autoscaler, a person); then run the same command again",
            ))
        };
        if tries >= SCALED_AGAIN {
            return Err(EngineError::Precondition(up.iter().map(finding).collect::<Result<_, _>>()?));
        }
        for workload in &up {
            run.target.scale_down(workload)?;
        }
    }
    Ok(())
}
