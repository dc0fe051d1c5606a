//! What speaks against a restore on hosts before its first change: broken rules over the set, data in the way, nodes that run.

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeFacts, NodeId, Rule, check_set};
use fabkeep_platform::{Evidence, Host, NodeState, Platform, Running};

use super::journal::Record;
use super::plan::RestorePlan;
use super::{RestoreOptions, surviving};
use crate::EngineError;
use crate::transform::{Transformed, is_named};

/// Adds what speaks against the plan, and which nodes are stopped and started.
pub(super) fn judge(
    plan: &mut RestorePlan,
    transformed: &Transformed,
    platform: Option<&Host>,
    options: &RestoreOptions,
    record: &Record,
) -> Result<(), EngineError> {
    let point = &transformed.point;
    let now = jiff::Timestamp::now().as_second();
    let chosen: Vec<NodeFacts> = point
        .nodes
        .iter()
        .filter(|node| is_named(&node.facts.id, &transformed.nodes))
        .map(|node| node.facts.clone())
        .collect();
    let configs: Vec<_> = point.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    // The invariants over what is restored together; what is left where it is cannot be judged here.
    // An orderer that comes back empty lacks its channels because it was asked to: only its keys are judged.
    let (emptied, filled): (Vec<NodeFacts>, Vec<NodeFacts>) =
        chosen.iter().cloned().partition(|node| options.replicate.contains(&node.id.to_string()));
    plan.findings.extend(check_set(&filled, &configs, point.derived, now));
    plan.findings.extend(check_set(&emptied, &[], point.derived, now));
    plan.findings.extend(some_orderers(transformed, &chosen));
    for name in &options.assume_stopped {
        if !chosen.iter().any(|node| node.id.to_string() == *name) {
            return Err(EngineError::Usage(format!(
                "--assume-stopped {name}: it is not among the nodes that are restored"
            )));
        }
    }
    if !options.replace {
        let occupied = plan.directories.iter().enumerate().filter(|(index, planned)| {
            planned.occupied && !planned.equal && !record.is_switching(*index) && !record.is_equal(*index)
        });
        let findings: Vec<Finding> = occupied
            .map(|(_, planned)| {
                Finding::error(
                    Rule::NotOverwritten,
                    &planned.id,
                    format!("{} is not empty", planned.staging.place.display()),
                    "restore into another folder (--to DIR), or let the data there be set aside (--replace)",
                )
            })
            .collect();
        plan.findings.extend(findings);
    }
    let Some(platform) = platform.filter(|_| options.to.is_none()) else { return Ok(()) };
    plan.findings.extend(surviving::judge(platform, point, &|id| is_named(id, &transformed.nodes)));
    for node in &chosen {
        if !platform.network().nodes().any(|known| known.id == node.id) || is_settled(plan, &node.id, record) {
            continue;
        }
        let running = platform.running(&node.id)?;
        let assumed = options.assume_stopped.contains(&node.id.to_string());
        match refused_while_running(platform, &node.id, &running, options.stop, assumed, is_replaced(plan, &node.id)) {
            Decision::Stop => plan.to_stop.push(node.id.clone()),
            Decision::Refuse(finding) => plan.findings.push(finding),
            Decision::GoOn(note) => plan.findings.extend(note),
        }
    }
    // Independent services first: CAs, then orderers all together, then peers.
    for role in [NodeRole::CertificateAuthority, NodeRole::Orderer, NodeRole::Peer] {
        let of_role = chosen.iter().filter(|node| node.role == role).map(|node| node.id.clone());
        plan.to_start.extend(of_role.filter(|_| options.start));
    }
    Ok(())
}

/// Orderers that are restored beside others that are not.
fn some_orderers(transformed: &Transformed, chosen: &[NodeFacts]) -> Option<Finding> {
    let orderers = transformed.point.nodes.iter().filter(|node| node.facts.role == NodeRole::Orderer).count();
    // Those that come back empty are as old as nothing.
    let some = chosen.iter().filter(|node| node.role == NodeRole::Orderer && !node.raft.is_empty()).count();
    (some > 0 && some < orderers).then(|| {
        Finding::warning(
            Rule::OrderersLevel,
            format!("{some} of {orderers} orderers"),
            "orderers older than the rest of their cluster stop the leader (\"tocommit(N) is out of range\")",
            "let them come back empty and take everything from the others (--replicate NODE), or restart all other orderers before you start the restored ones; if they are all lost, restore all together",
        )
    })
}

/// Whether nothing of a node's data is changed any more.
fn is_settled(plan: &RestorePlan, id: &NodeId, record: &Record) -> bool {
    plan.directories
        .iter()
        .enumerate()
        .filter(|(_, planned)| planned.id == *id)
        .all(|(index, _)| record.is_settled(index))
}

/// Whether data of a node that is there is set aside.
fn is_replaced(plan: &RestorePlan, id: &NodeId) -> bool {
    plan.directories.iter().any(|planned| planned.id == *id && planned.occupied && !planned.equal)
}

enum Decision {
    /// It is stopped first.
    Stop,
    /// Its data must not be replaced.
    Refuse(Finding),
    /// Its data may be replaced.
    GoOn(Option<Finding>),
}

/// What to do about a node that runs, or of which it is not known whether it does.
fn refused_while_running(
    platform: &Host,
    id: &NodeId,
    running: &Running,
    stop: bool,
    assumed: bool,
    replaced: bool,
) -> Decision {
    match running.state {
        NodeState::Stopped => Decision::GoOn(None),
        NodeState::Unknown if assumed => Decision::GoOn(Some(Finding::warning(
            Rule::LiveCopy,
            id,
            "nothing tells whether it runs; it is taken for stopped, as asked",
            "make sure that it stays stopped until the restore is done",
        ))),
        // Nothing is there that it could be using.
        NodeState::Unknown if !replaced => Decision::GoOn(None),
        NodeState::Unknown => {
            let why = running.unknown.as_deref().unwrap_or("nothing tells");
            Decision::Refuse(Finding::error(
                Rule::LiveCopy,
                id,
                format!("it is not known whether the node runs: {why}"),
                format!(
                    "give the node a status command in the inventory, run fabkeep as root, or make sure that it is stopped and say so (--assume-stopped {id})"
                ),
            ))
        }
        NodeState::Running if assumed && !running.evidence.iter().any(Evidence::is_certain) => {
            Decision::GoOn(Some(Finding::warning(
                Rule::LiveCopy,
                id,
                format!("{}; the node is taken for stopped, as asked", reported(running)),
                "make sure that it stays stopped until the restore is done",
            )))
        }
        NodeState::Running if stop && platform.can_stop(id) => Decision::Stop,
        NodeState::Running => {
            let remedy = if stop {
                format!("--stop has no command for it: stop {id} by hand, or give it a stop command in the inventory")
            } else if running.evidence.iter().any(Evidence::is_certain) {
                "stop it, or let fabkeep do so by its stop command (--stop)".to_owned()
            } else {
                format!(
                    "stop it, or let fabkeep do so by its stop command (--stop); if the port is another process's: --assume-stopped {id}"
                )
            };
            let what = format!("the node runs: its data must not be replaced under it ({})", reported(running));
            Decision::Refuse(Finding::error(Rule::LiveCopy, id, what, remedy))
        }
    }
}

/// What tells that a node runs, in a sentence's part.
pub(super) fn reported(running: &Running) -> String {
    running.evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
