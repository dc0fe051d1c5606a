//! The nodes whose volumes a restore fills, and reasons against it.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::ca_dump::DUMP_FILE;
use fabkeep_network::{DirectorySource, Finding, NodeId, Remedy, Rule};
use fabkeep_platform::ObjectRef;
use fabkeep_platform::kubernetes::{WorkloadState, claim_of_files, is_scalable};

use super::plan::Plan;
use crate::EngineError;
use crate::point::{CapturedDirectory, CapturedEntry, CapturedNode};
use crate::restore::RestoreOptions;

/// How far earlier runs of the same restore came with a node.
struct Before {
    /// Its claims were not there.
    lost: bool,
    /// Its volumes were being filled, or are.
    touched: bool,
    /// Its workload was scaled up behind the fill: what is in its volumes now is its own.
    started: bool,
    /// Its database's dump is loaded.
    loaded: bool,
    /// It ran since, or somebody has changed its workload, so that it may have.
    ran: bool,
}

/// A claim of a node that stays: namespace and name.
pub(super) struct Staying<'n> {
    pub id: &'n NodeId,
    pub claim: (String, String),
}

/// Judges every chosen node. Returns the claims of those that stay because nothing of them is missing.
pub(super) fn judge<'n>(
    plan: &mut Plan,
    chosen: &[(usize, &'n CapturedNode)],
    claims: &BTreeMap<NodeId, Vec<(String, String)>>,
    options: &RestoreOptions,
) -> Result<Vec<Staying<'n>>, EngineError> {
    let mut staying = Vec::new();
    let missing: BTreeSet<(String, String)> = plan
        .create
        .iter()
        .filter(|known| known.kind == "PersistentVolumeClaim")
        .map(|known| (known.namespace.clone(), known.name.clone()))
        .collect();
    for &(position, node) in chosen {
        let id = &node.facts.id;
        for directory in &node.directories {
            if directory.directory.source == DirectorySource::Ephemeral {
                plan.findings.push(Finding::warning(
                    Rule::NotPersistent,
                    id,
                    format!("its {} directory was not on a volume: it cannot be restored", directory.directory.role),
                    Remedy::from("no action is needed if its init container creates it again")
                        .or(Remedy::RestoreElsewhere),
                ));
            }
        }
        if !node.directories.iter().any(|directory| directory.directory.source.is_volume()) {
            continue;
        }
        let Some(workload) = &node.workload else { continue };
        let own = claims.get(id).cloned().unwrap_or_else(|| claim_of_files(id).into_iter().collect());
        let absent = own.iter().any(|claim| missing.contains(claim));
        let key = ObjectRef::from(workload);
        let state = plan.target.workload(&key)?;
        let before = before(plan, id, &key)?;
        // What an earlier run has created, and not begun to fill, has nothing of the node either.
        let lost = absent || (before.lost && !before.touched);
        if lost {
            plan.lost.insert(id.to_string());
        }
        let has_dump = dump_of(node).is_some();
        if before.started && !absent {
            // It was filled and started; a database may still wait for its dump.
            if has_dump && !before.loaded {
                plan.load.push(position);
            } else {
                plan.left.push(id.to_string());
            }
            continue;
        }
        if before.touched && (before.ran || before.started || state == WorkloadState::Running) {
            plan.ran.insert(id.to_string());
        }
        if options.missing && !lost && !before.touched {
            staying.extend(own.into_iter().map(|claim| Staying { id, claim }));
            continue;
        }
        if state == WorkloadState::Missing && plan.place.existing_workloads {
            plan.findings.push(Finding::error(
                Rule::Declared,
                id,
                format!("its workload {workload} is not in the cluster"),
                Remedy::from("deploy it first").or(Remedy::CreateWorkloads),
            ));
        }
        if state == WorkloadState::Running && !lost && !options.replace && !plan.place.existing_workloads {
            let what = if before.touched {
                "it runs, although this restore has not started it: somebody scaled it up, and the data in its volumes counts as its own now"
            } else {
                "it runs, and its volumes are there"
            };
            plan.findings.push(Finding::error(
                Rule::NotOverwritten,
                id,
                what,
                Remedy::OnlyMissing.or(Remedy::ChooseNodes).or(Remedy::SetAside),
            ));
            continue;
        }
        if state == WorkloadState::Running && is_scalable(&key) && !plan.scale_down.contains(&key) {
            plan.scale_down.push(key);
        }
        plan.fill.push(position);
        if has_dump {
            plan.load.push(position);
        }
    }
    Ok(staying)
}

fn before(plan: &Plan, id: &NodeId, workload: &ObjectRef) -> Result<Before, EngineError> {
    let Some(record) = plan.record() else {
        return Ok(Before { lost: false, touched: false, started: false, loaded: false, ran: false });
    };
    let (node, label) = (id.to_string(), workload.to_string());
    let changed = match record.generation(workload) {
        Some(known) => plan.target.generation(workload)?.as_deref() != Some(known),
        None => false,
    };
    Ok(Before {
        lost: record.is_lost(&node),
        touched: record.is_touched(&node),
        started: record.is_filled(&node) && record.is_started(&label),
        loaded: record.is_node_loaded(&node),
        ran: changed || record.has_run(&node),
    })
}

/// The dump of a node's database.
pub(super) fn dump_of(node: &CapturedNode) -> Option<&CapturedEntry> {
    let server = |directory: &&CapturedDirectory| directory.directory.source == DirectorySource::Server;
    let entries = node.directories.iter().filter(server).flat_map(|directory| &directory.entries);
    entries.into_iter().find(|entry| entry.path == DUMP_FILE)
}
