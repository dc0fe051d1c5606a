//! What changed while it was captured.

use std::collections::BTreeMap;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Rule};
use fabkeep_platform::VolumeEntry;

use super::survey::Survey;
use crate::EngineError;

/// Files of stopped nodes that changed while they were captured. A file of no node may grow: what is kept of it is what it was when it was
/// listed.
pub(super) fn changed_since(survey: &Survey) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for node in survey.nodes.iter().filter(|node| !node.running) {
        for directory in &node.directories {
            let now: BTreeMap<String, VolumeEntry> =
                directory.volume.list("")?.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
            for (entry, _) in directory.files(false) {
                let change = Change::of(entry, now.get(&entry.path), directory.is_staged(&entry.path));
                let subject = format!("{} {}", node.node.id, entry.path);
                match change {
                    Change::None => {}
                    Change::Grown if node.node.role == NodeRole::Files => findings.push(Finding::note(
                        Rule::FileReadable,
                        subject,
                        format!(
                            "it grew while it was captured: the recovery point contains its first {} bytes",
                            entry.stamp.size
                        ),
                        "no action is needed if it is a log",
                    )),
                    Change::Gone | Change::Written if node.node.role == NodeRole::Files => {
                        findings.push(Finding::warning(
                            Rule::FileReadable,
                            subject,
                            "it was written to or removed while it was captured: the captured content may mix two versions",
                            "no action is needed if it is a log that was rotated; otherwise stop what writes it and back up again",
                        ));
                    }
                    Change::Grown | Change::Gone | Change::Written => findings.push(Finding::error(
                        Rule::FileReadable,
                        subject,
                        "it changed while it was captured, although the node seemed to be stopped",
                        "give the node a status command in the inventory, or stop it; then run the backup again",
                    )),
                }
            }
        }
    }
    Ok(findings)
}

/// What became of a file since it was listed.
enum Change {
    None,
    /// It has the same beginning, as far as can be determined, and more after it.
    Grown,
    Gone,
    Written,
}

impl Change {
    fn of(listed: &VolumeEntry, now: Option<&VolumeEntry>, staged: bool) -> Change {
        let Some(now) = now else { return Change::Gone };
        let (before, after) = (&listed.stamp, &now.stamp);
        // A sqlite copy has its journal in it: its size is its own.
        if before == after || (staged && before.changed_ns == after.changed_ns) {
            Change::None
        } else if after.inode == before.inode && after.size > before.size {
            Change::Grown
        } else {
            Change::Written
        }
    }
}
