//! Restarts the orderers of a host's network that are not restored, by their commands, one at a time.

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeId, Remedy, Rule};
use fabkeep_platform::{Host, NodeState, Platform};

use super::Run;
use super::journal::Journal;
use super::running::runs;
use crate::event::step;
use crate::transform::is_named;
use crate::{Done, EngineError};

/// What is missing to restart an orderer.
pub(super) fn no_command(host: &Host, id: &NodeId) -> Option<Finding> {
    let missing = match (host.can_stop(id), host.can_start(id)) {
        (true, true) => return None,
        (false, true) => "no stop command",
        (true, false) => "no start command",
        (false, false) => "neither a stop nor a start command",
    };
    Some(Finding::error(
        Rule::OrderersLevel,
        id,
        format!(
            "it has to be restarted before restored orderers are started (as requested), and the inventory has {missing} for it"
        ),
        Remedy::from("add the command to the inventory ([organization.node.commands])")
            .or(Remedy::from("restart it by hand").and(Remedy::WithoutRestartOthers)),
    ))
}

impl Run<'_> {
    /// Restarts the others of restored orderers, one at a time, with a leader awaited between. What an earlier run has restarted stays so.
    pub(super) fn restart_others(&self, journal: &mut Journal<'_>) -> Result<(), EngineError> {
        let Some(host) = self.plan.places.host() else { return Ok(()) };
        let others = &self.plan.others;
        let left: Vec<&NodeId> = others.nodes.iter().filter(|node| !journal.is_restarted(&node.to_string())).collect();
        if left.is_empty() {
            return Ok(());
        }
        for node in left {
            let name = node.to_string();
            if self.reporter.is_interrupted() {
                return Err(EngineError::Stopped);
            }
            self.restored_are_stopped(host)?;
            step(self.reporter, &format!("restart {node}"), None, || -> Result<(), EngineError> {
                let before = others.heights(host);
                // It counts as begun before it is known how far the command came.
                journal.note(Done::NodeRestarting { node: name.clone() })?;
                if host.state(node)? != NodeState::Stopped {
                    self.stop_one(host, node)?;
                }
                host.start(node)?;
                others.wait(host, node, &before, self.options.deadline, self.reporter)
            })?;
            journal.note(Done::NodeRestarted { node: name })?;
        }
        self.restored_are_stopped(host)
    }

    /// A restored orderer that runs while others are still to be restarted would tell a leader what it has, or panic.
    fn restored_are_stopped(&self, host: &Host) -> Result<(), EngineError> {
        let orderers = self
            .point
            .nodes
            .iter()
            .map(|node| &node.facts)
            .filter(|facts| facts.role == NodeRole::Orderer && is_named(&facts.id, &self.whole.transformed.nodes));
        for id in orderers.map(|facts| &facts.id).filter(|id| host.network().nodes().any(|known| known.id == **id)) {
            let running = host.running(id)?;
            if running.state == NodeState::Running {
                return Err(runs(id, &running, "the node was started before every other orderer was restarted"));
            }
        }
        Ok(())
    }
}
