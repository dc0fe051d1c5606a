//! Handles a restore that ends early: nodes of which nothing was changed are scaled up again, the others are named.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Rule};
use fabkeep_platform::ObjectRef;
use fabkeep_platform::kubernetes::WorkloadState;

use super::Run;
use super::record::Journal;
use crate::point::CapturedNode;
use crate::restore::progress::{AtRest, Step};
use crate::{Done, EngineError, Next};

/// Scales up what may be scaled up, and says what was done.
pub(super) fn after(run: &Run<'_>, record: &mut Journal<'_>, error: EngineError) -> EngineError {
    let mut done = record.changes();
    if record.storage.lost {
        return error.after(done, Next::SameCommand);
    }
    let (free, left) = split(run, record);
    let mut left: Vec<String> =
        left.iter().filter(|workload| stays_at_rest(run, workload)).map(AtRest::label).collect();
    // A claim that was created is not the node's own for the next run either: only the record says so.
    let untouched = left.is_empty() && !record.has_begun() && !record.has_lost();
    for workload in &free {
        let scaled = run.target.scale_up(&workload.object, workload.replicas).map_err(EngineError::from);
        if scaled.and_then(|_| put_back(record, workload.label(), &mut done)).is_err() {
            left.push(workload.label());
        }
    }
    let settled = if untouched && left.is_empty() {
        // Nothing of the network's is changed: what else was stopped goes on, and there is nothing to go on with.
        super::start::let_others_go_on(run, record, &mut done).and_then(|()| record.remove())
    } else {
        record.store()
    };
    if let Err(problem) = settled {
        left.push(format!("(and resuming what was suspended failed: {problem})"));
    }
    if !left.is_empty() {
        run.found(&Finding::warning(
            Rule::NotOverwritten,
            left.join(", "),
            "left at 0 replicas: the restore ended before their data was complete, or before it was safe to start them",
            "correct what the error names, then run the same command again: it continues and starts them",
        ));
    }
    error.after(done, Next::SameCommand)
}

/// Whether a workload whose data is not complete is at 0 replicas. One that somebody has scaled up is scaled down once more, and named.
fn stays_at_rest(run: &Run<'_>, workload: &AtRest) -> bool {
    match run.target.workload(&workload.object) {
        Ok(WorkloadState::Missing) => false,
        Ok(WorkloadState::Running) => {
            let stopped = run.target.scale_down(&workload.object).is_ok();
            let then = if stopped { "it was scaled down once more" } else { "it could not be scaled down again" };
            run.found(&Finding::error(
                Rule::OperatorScales,
                workload.label(),
                format!("somebody scaled it up before its data was complete, and it may have written into it: {then}"),
                "suspend what starts it, and see that it is at 0 replicas; then run the same command again",
            ));
            stopped
        }
        Ok(_) | Err(_) => true,
    }
}

/// Notes that something is as it was before the restore: the record says no more of it.
pub(super) fn put_back(record: &mut Journal<'_>, node: String, done: &mut Vec<Done>) -> Result<(), EngineError> {
    done.push(Done::NodeStarted { node: node.clone() });
    record.add(Step::Released { node })
}

/// Workloads that this restore has at 0 replicas: those that may be scaled up as they are, and those that may not.
fn split(run: &Run<'_>, record: &Journal<'_>) -> (Vec<AtRest>, Vec<AtRest>) {
    let of = |workload: &AtRest| -> Vec<&CapturedNode> {
        let nodes = run
            .point
            .nodes
            .iter()
            .filter(|node| node.workload.as_ref().is_some_and(|known| ObjectRef::from(known) == workload.object));
        nodes.collect()
    };
    let replaced: BTreeSet<String> = record
        .changes()
        .into_iter()
        .filter_map(|done| match done {
            Done::ObjectReplaced { object } | Done::ObjectCreated { object } => Some(object),
            Done::SetAside { what, .. } => Some(what),
            _ => None,
        })
        .collect();
    let objects_changed = |workload: &AtRest| {
        let keyed = run.plan.replace.iter().chain(&run.plan.create).chain(&run.plan.keyed);
        keyed
            .into_iter()
            .any(|known| replaced.contains(&known.label()) && run.plan.usage.users(known).contains(&workload.object))
    };
    let touched = |node: &CapturedNode| record.is_touched(&node.facts.id.to_string());
    let orderers_touched = run.point.nodes.iter().any(|node| node.facts.role == NodeRole::Orderer && touched(node));
    let is_free = |workload: &AtRest| {
        let nodes = of(workload);
        let own = nodes.iter().any(|node| touched(node));
        // A peer with its state database, an authority with its database.
        let beside = run.point.nodes.iter().filter(|node| touched(node)).any(|other| {
            nodes
                .iter()
                .any(|node| node.served_by.contains(&other.facts.id) || other.served_by.contains(&node.facts.id))
        });
        // Above a service that comes back older, a peer forks its chain; orderers start together.
        let ledger = nodes.iter().any(|node| matches!(node.facts.role, NodeRole::Orderer | NodeRole::Peer));
        let forks = ledger && orderers_touched;
        let of_changed = own || beside || forks || objects_changed(workload);
        record.is_stopped(&workload.label()) && !of_changed
    };
    record.at_rest().filter(|workload| !record.is_started(&workload.label())).cloned().partition(is_free)
}
