//! Restarts the orderers of a cluster that are not restored, one at a time: their pods are deleted, and their workloads make them anew.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeId, Remedy, Rule, WalKind};
use fabkeep_platform::ObjectRef;
use fabkeep_platform::kubernetes::{Kubernetes, WorkloadState};

use super::plan::Plan;
use super::record::Journal;
use super::{Run, open};
use crate::event::step;
use crate::point::{CapturedNode, RecoveryPoint};
use crate::restore::others::{self, Others};
use crate::restore::progress::Record;
use crate::transform::is_named;
use crate::{Done, EngineError};

/// The orderers of a recovery point that share a raft channel with those that are restored.
pub(super) fn planned(point: &RecoveryPoint, nodes: &[String]) -> Vec<NodeId> {
    let channels = |node: &CapturedNode| -> BTreeSet<String> {
        let raft = node.facts.raft.iter().filter(|raft| raft.kind == WalKind::Raft);
        raft.map(|raft| raft.channel.clone()).collect()
    };
    let orderers = || point.nodes.iter().filter(|node| node.facts.role == NodeRole::Orderer);
    let restored: Vec<_> = orderers().filter(|node| is_named(&node.facts.id, nodes)).collect();
    // One that comes back empty has no channel any more.
    let any = restored.iter().any(|node| node.facts.raft.is_empty());
    let shared: BTreeSet<String> = restored.iter().flat_map(|node| channels(node)).collect();
    let others = orderers().filter(|node| !is_named(&node.facts.id, nodes));
    let others = others.filter(|node| any || !channels(node).is_disjoint(&shared));
    others.map(|node| node.facts.id.clone()).collect()
}

/// All namespaces with orderers: the others may be in those of other organizations.
fn opened(run: &Run<'_>) -> Result<Kubernetes, EngineError> {
    let orderers = run.point.nodes.iter().filter(|node| node.facts.role == NodeRole::Orderer);
    let mut namespaces: BTreeSet<String> =
        orderers.filter_map(|node| Some(node.workload.as_ref()?.namespace.clone())).collect();
    namespaces.extend(run.plan.namespaces_there());
    open(namespaces.into_iter().collect(), run.plan)
}

fn restored(plan: &Plan) -> impl Fn(&NodeId) -> bool + '_ {
    |id| is_named(id, &plan.nodes)
}

/// Looks whether the others can be restarted, before anything is changed.
pub(super) fn look(run: &Run<'_>) -> Result<Vec<Finding>, EngineError> {
    found(run, &opened(run)?, &Record::default()).map(|(_, findings)| findings)
}

/// The others that run, or whose restart an earlier run has begun; what forbids to restart them ends it.
fn found(run: &Run<'_>, kubernetes: &Kubernetes, record: &Record) -> Result<(Others, Vec<Finding>), EngineError> {
    let begun = |id: &NodeId| record.is_restarting(&id.to_string());
    let (others, mut findings) = others::find(kubernetes, run.point, &restored(run.plan), run.options, &begun)?;
    let scaled: BTreeSet<ObjectRef> = workloads(run).map(|(_, workload)| workload).collect();
    for id in &others.nodes {
        let (what, remedy) = match kubernetes.remade_by(id) {
            None => ("nothing makes its pod anew when it is deleted", Remedy::from("restart it by hand")),
            Some(workload) if scaled.contains(&workload) => (
                "it is in one workload with an orderer that is restored, and stops with it",
                Remedy::Replicate { node: None },
            ),
            Some(_) => {
                findings.extend(kubernetes.lost_by_restart(id));
                continue;
            }
        };
        findings.push(Finding::error(
            Rule::OrderersLevel,
            id,
            format!("it has to be restarted before restored orderers are started (as requested): {what}"),
            remedy.and(Remedy::WithoutRestartOthers).or(Remedy::RestoreOrderersTogether),
        ));
    }
    let errors = run.options.refusals(&findings);
    if errors.is_empty() { Ok((others, findings)) } else { Err(EngineError::Precondition(errors)) }
}

/// The orderers that are restored, with their workloads.
fn workloads<'a>(run: &'a Run<'_>) -> impl Iterator<Item = (&'a NodeId, ObjectRef)> + 'a {
    let is_restored =
        |node: &&CapturedNode| node.facts.role == NodeRole::Orderer && is_named(&node.facts.id, &run.plan.nodes);
    let nodes = run.point.nodes.iter().filter(is_restored);
    nodes.filter_map(|node| Some((&node.facts.id, ObjectRef::from(node.workload.as_ref()?))))
}

/// Restarts the others of restored orderers, one at a time, with a leader awaited between. What an earlier run has restarted stays so.
pub(super) fn others(run: &Run<'_>, record: &mut Journal<'_>) -> Result<(), EngineError> {
    let started = |(_, workload): (&NodeId, ObjectRef)| record.is_started(&workload.to_string());
    if workloads(run).any(started) {
        // An earlier run has come that far.
        return Ok(());
    }
    let kubernetes = opened(run)?;
    let (others, _) = found(run, &kubernetes, record)?;
    let left: Vec<&NodeId> = others.nodes.iter().filter(|id| !record.is_restarted(&id.to_string())).collect();
    for id in left {
        run.interrupted()?;
        restored_are_at_rest(run)?;
        let name = id.to_string();
        record.note(Done::NodeRestarting { node: name.clone() })?;
        let before = others.heights(&kubernetes);
        step(run.reporter, &format!("restart {id}"), None, || -> Result<(), EngineError> {
            let deadline = run.options.deadline;
            let is_ready = kubernetes.restart(id, deadline, &|| run.reporter.is_interrupted())?;
            run.interrupted()?;
            if !is_ready {
                return Err(EngineError::Precondition(vec![Finding::error(
                    Rule::OrderersLevel,
                    id,
                    format!("its pod was deleted, and {} s later the new one is not ready", deadline.as_secs()),
                    "read the pod's events and log (`kubectl describe`, `kubectl logs`); then run the same command again: it continues",
                )]));
            }
            // Its pod may have another name now.
            others.wait(&opened(run)?, id, &before, deadline, run.reporter)
        })?;
        record.note(Done::NodeRestarted { node: name })?;
    }
    Ok(())
}

/// A restored orderer that runs while others are still to be restarted would tell a leader what it has, or panic.
fn restored_are_at_rest(run: &Run<'_>) -> Result<(), EngineError> {
    for (id, workload) in workloads(run) {
        if run.target.workload(&workload)? == WorkloadState::Running {
            return Err(EngineError::Precondition(vec![Finding::error(
                Rule::OrderersLevel,
                id,
                "it was scaled up before every other orderer was restarted",
                format!("scale {workload} to 0 replicas, and run the same command again"),
            )]));
        }
    }
    Ok(())
}
