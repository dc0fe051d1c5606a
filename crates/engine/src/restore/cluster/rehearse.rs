//! Tries the restore's changes as dry runs before the first of them: what the API server would refuse is known while nothing is changed.

use fabkeep_network::{Finding, NodeId, Rule};
use fabkeep_platform::kubernetes::{Kubernetes, RefusedChange, Target, TriedChange};

use super::Run;
use crate::EngineError;

/// Refuses a restore of which the cluster would not admit a change. `kubernetes`: the nodes that are there, if there are any.
pub(super) fn rehearse(run: &Run<'_>, kubernetes: Option<&Kubernetes>) -> Result<(), EngineError> {
    let plan = run.plan;
    let there = plan.namespaces_there();
    let mut changes = Vec::new();
    for workload in plan.operators.iter().chain(&plan.scale_down) {
        changes.push(TriedChange::Stop { workload, start: run.options.start });
    }
    changes.extend(plan.create.iter().filter(|known| there.contains(&known.namespace)).map(TriedChange::Create));
    changes.extend(plan.replace.iter().flat_map(|known| [TriedChange::Delete(known), TriedChange::Create(known)]));
    let mut refused = run.target.refused(&changes)?;
    if let Some(kubernetes) = kubernetes {
        let nodes: Vec<&NodeId> = plan.fill.iter().map(|&position| &run.node(position).facts.id).collect();
        refused.extend(kubernetes.refused_helpers(&nodes)?);
    }
    if refused.is_empty() {
        return Ok(());
    }
    let finding = |refused: RefusedChange| {
        Finding::error(
            Rule::Declared,
            refused.object,
            format!("the API server would refuse to {}: {}", refused.change, refused.said),
            Target::AFTER_REFUSAL,
        )
    };
    Err(EngineError::Precondition(refused.into_iter().map(finding).collect()))
}
