//! Handles a restore that ends early: nodes of which nothing was changed are scaled up again, the others are named.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Rule};
use fabkeep_platform::ObjectRef;

use super::Run;
use super::record::{Record, Stopped};
use crate::point::CapturedNode;
use crate::{Done, EngineError, Next};

/// Scales up what may be scaled up, and says what was done.
pub(super) fn after(run: &Run<'_>, record: &mut Record<'_>, error: EngineError) -> EngineError {
    if record.lost {
        return error.after(record.progress.done.clone(), Next::SameCommand);
    }
    let (free, left) = split(run, record);
    let mut left: Vec<String> = left.iter().map(Stopped::label).collect();
    let untouched = left.is_empty() && record.progress.touched.is_empty() && record.progress.started.is_empty();
    for workload in &free {
        match run.target.scale_up(&workload.object, workload.replicas) {
            Ok(()) => {
                record.done(Done::NodeStarted { node: workload.label() });
                record.progress.stopped.retain(|known| known != workload);
            }
            Err(_) => left.push(workload.label()),
        }
    }
    let settled = if untouched && left.is_empty() {
        // Nothing of the network's is changed: what else was stopped goes on, and there is nothing to go on with.
        super::start::let_others_go_on(run, record).and_then(|()| record.remove())
    } else {
        record.write()
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
    error.after(record.progress.done.clone(), Next::SameCommand)
}

/// Workloads that this restore has at 0 replicas: those that may be scaled up as they are, and those that may not.
fn split(run: &Run<'_>, record: &Record<'_>) -> (Vec<Stopped>, Vec<Stopped>) {
    let progress = &record.progress;
    let of = |workload: &Stopped| -> Vec<&CapturedNode> {
        let nodes = run
            .point
            .nodes
            .iter()
            .filter(|node| node.workload.as_ref().is_some_and(|known| ObjectRef::from(known) == workload.object));
        nodes.collect()
    };
    let was_there: BTreeSet<String> = progress
        .done
        .iter()
        .filter_map(|done| if let Done::NodeStopped { node } = done { Some(node.clone()) } else { None })
        .collect();
    let replaced: BTreeSet<&String> = progress
        .done
        .iter()
        .filter_map(|done| match done {
            Done::ObjectReplaced { object } | Done::ObjectCreated { object } => Some(object),
            Done::SetAside { what, .. } => Some(what),
            _ => None,
        })
        .collect();
    let objects_changed = |workload: &Stopped| {
        let keyed = run.plan.replace.iter().chain(&run.plan.create).chain(&run.plan.keyed);
        keyed
            .into_iter()
            .any(|known| replaced.contains(&known.label()) && run.plan.usage.users(known).contains(&workload.object))
    };
    let touched = |node: &CapturedNode| progress.touched.contains(&node.facts.id.to_string());
    let orderers_touched = run.point.nodes.iter().any(|node| node.facts.role == NodeRole::Orderer && touched(node));
    let is_free = |workload: &Stopped| {
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
        was_there.contains(&workload.label()) && !of_changed
    };
    let waiting = progress.stopped.iter().filter(|workload| !progress.started.contains(&workload.label()));
    let (free, left): (Vec<Stopped>, Vec<Stopped>) = waiting.cloned().partition(is_free);
    (free, left)
}
