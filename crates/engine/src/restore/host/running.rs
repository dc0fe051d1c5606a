//! Nodes of hosts that run, or may run, while their data is to be replaced.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fabkeep_network::{Finding, NodeDirectory, NodeId, Remedy, Rule, Severity};
use fabkeep_platform::{Evidence, Host, NodeState, Platform, Running, in_use};

use super::journal::Journal;
use super::{Plan, Run};
use crate::event::step;
use crate::point::RecoveryPoint;
use crate::restore::progress::Record;
use crate::restore::{RestoreOptions, Restored};
use crate::{Done, EngineError};

/// How long a node may take to stop after its command.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const ASKED_AGAIN: Duration = Duration::from_millis(200);

/// Judges the nodes that are restored: which are stopped first, and which forbid the restore.
pub(super) fn judge(
    plan: &mut Plan<'_>,
    host: &Host,
    chosen: &[NodeId],
    options: &RestoreOptions,
    record: &Record,
) -> Result<(), EngineError> {
    for id in chosen {
        if !host.network().nodes().any(|known| known.id == *id) || is_settled(plan, id, record) {
            continue;
        }
        let running = host.running(id)?;
        let assumed = options.assume_stopped.contains(&id.to_string());
        match refused_while_running(host, id, &running, options.stop, assumed, is_replaced(plan, id)) {
            Decision::Stop => plan.to_stop.push(id.clone()),
            Decision::Refuse(finding) => plan.findings.push(finding),
            Decision::GoOn(note) => plan.findings.extend(note),
        }
    }
    Ok(())
}

/// Judges places that no inventory names: what a process uses there is not replaced under it.
pub(super) fn judge_places(plan: &mut Plan<'_>, point: &RecoveryPoint, record: &Record) -> Result<(), EngineError> {
    let mut findings = Vec::new();
    for (index, planned) in plan.directories.iter().enumerate().filter(|(_, planned)| planned.occupied) {
        if planned.equal || record.is_settled(index) {
            continue;
        }
        let path = planned.staging.place.display().to_string();
        let known = &point.nodes[planned.node].directories[planned.directory].directory;
        let evidence = in_use(&[NodeDirectory { path: path.clone(), ..known.clone() }])?;
        if let Some(first) = evidence.first() {
            findings.push(Finding::error(
                Rule::LiveCopy,
                &planned.id,
                format!("a process uses {path}: its data must not be replaced under it ({first})"),
                Remedy::from("stop it").or(Remedy::RestoreElsewhere),
            ));
        }
    }
    plan.findings.extend(findings);
    Ok(())
}

/// Whether nothing of a node's data is changed any more.
fn is_settled(plan: &Plan<'_>, id: &NodeId, record: &Record) -> bool {
    plan.directories
        .iter()
        .enumerate()
        .filter(|(_, planned)| planned.id == *id)
        .all(|(index, _)| record.is_settled(index))
}

/// Whether data of a node that is there is set aside.
fn is_replaced(plan: &Plan<'_>, id: &NodeId) -> bool {
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
        NodeState::Stopped | NodeState::Snapshot => Decision::GoOn(None),
        NodeState::Unknown if assumed => Decision::GoOn(Some(Finding::warning(
            Rule::LiveCopy,
            id,
            "it is unknown whether it runs; it is treated as stopped, as requested",
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
                Remedy::from("give the node a status command in the inventory")
                    .or("run fabkeep as root")
                    .or(Remedy::from("make sure that it is stopped").and(Remedy::AssumeStopped { node: id.clone() })),
            ))
        }
        NodeState::Running if assumed && !running.evidence.iter().any(Evidence::is_certain) => {
            Decision::GoOn(Some(Finding::warning(
                Rule::LiveCopy,
                id,
                format!("{}; the node is treated as stopped, as requested", reported(running)),
                "make sure that it stays stopped until the restore is done",
            )))
        }
        NodeState::Running if stop && platform.can_stop(id) => Decision::Stop,
        NodeState::Running => {
            let remedy = if stop {
                Remedy::Text(format!(
                    "stop {id} by hand, as there is no command for it, or give it a stop command in the inventory"
                ))
            } else if running.evidence.iter().any(Evidence::is_certain) {
                Remedy::from("stop it").or(Remedy::StopByCommand)
            } else {
                let port = Remedy::from("make sure that the port is another process's");
                Remedy::from("stop it")
                    .or(Remedy::StopByCommand)
                    .or(port.and(Remedy::AssumeStopped { node: id.clone() }))
            };
            let what = format!("the node runs: its data must not be replaced meanwhile ({})", reported(running));
            Decision::Refuse(Finding::error(Rule::LiveCopy, id, what, remedy))
        }
    }
}

/// The evidence that a node runs, as part of a sentence.
fn reported(running: &Running) -> String {
    running.evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Run<'_> {
    /// Stops nodes by their commands, and waits until nothing tells any more that they run.
    pub(super) fn stop(&self, journal: &mut Journal<'_>) -> Result<(), EngineError> {
        let Some(host) = self.plan.places.host() else { return Ok(()) };
        for node in &self.plan.to_stop {
            // Noted before it is known how far the command came.
            journal.note(Done::NodeStopping { node: node.to_string() })?;
            step(self.reporter, &format!("stop {node}"), None, || self.stop_one(host, node))?;
            journal.note(Done::NodeStopped { node: node.to_string() })?;
        }
        Ok(())
    }

    /// Stops one node by its command, and waits until nothing tells any more that it runs.
    pub(super) fn stop_one(&self, host: &Host, node: &NodeId) -> Result<(), EngineError> {
        host.stop(node)?;
        let begun = Instant::now();
        loop {
            let running = host.running(node)?;
            if running.state != NodeState::Running {
                return Ok(());
            }
            if self.reporter.is_interrupted() {
                return Err(EngineError::Stopped);
            }
            if begun.elapsed() > STOPPED_WITHIN {
                return Err(runs(node, &running, "the node still runs after its stop command"));
            }
            std::thread::sleep(ASKED_AGAIN);
        }
    }

    /// Nothing has started a node whose data is about to be replaced.
    pub(super) fn check_stopped(&self, journal: &Journal<'_>) -> Result<(), EngineError> {
        let Some(host) = self.plan.places.host() else { return Ok(()) };
        let pending = self.plan.directories.iter().enumerate().filter(|(index, _)| !journal.is_settled(*index));
        let nodes: BTreeSet<_> = pending.map(|(_, planned)| &planned.id).collect();
        for node in nodes {
            let running = host.running(node)?;
            let assumed = self.options.assume_stopped.contains(&node.to_string());
            let counts = running.evidence.iter().any(|evidence| !assumed || evidence.is_certain());
            let overridden = self.options.overrides.iter().any(|code| code == Rule::LiveCopy.code());
            if running.state == NodeState::Running && counts && !overridden {
                return Err(runs(node, &running, "the node was started while its data was written beside it"));
            }
        }
        Ok(())
    }

    /// Starts nodes in the order that they need, and reads what they log.
    pub(super) fn start(&self, journal: &mut Journal<'_>, restored: &mut Restored) -> Result<(), EngineError> {
        let since = jiff::Timestamp::now();
        let Some(host) = self.plan.places.host().filter(|_| self.options.start) else { return Ok(()) };
        for node in &self.plan.to_start {
            let name = node.to_string();
            // An earlier run may have started it.
            if journal.is_started(&name) && host.state(node)? == NodeState::Running {
                continue;
            }
            if !host.can_start(node) {
                continue;
            }
            journal.note(Done::NodeStarting { node: name.clone() })?;
            step(self.reporter, &format!("start {node}"), None, || host.start(node))?;
            journal.note(Done::NodeStarted { node: name.clone() })?;
            restored.started.push(name);
        }
        let started = &restored.started;
        let logged = crate::logs::findings(host, since, |id| started.contains(&id.to_string()));
        restored.well = logged.iter().all(|finding| finding.severity < Severity::Error);
        restored.findings.extend(logged);
        Ok(())
    }
}

/// What a restore ends with where a node runs that must not.
pub(super) fn runs(node: &NodeId, running: &Running, what: &str) -> EngineError {
    EngineError::Precondition(vec![Finding::error(
        Rule::LiveCopy,
        node,
        format!("{what}: {}", reported(running)),
        "stop it and what starts it, then run the same command again",
    )])
}
