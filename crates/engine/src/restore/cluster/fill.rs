//! Data into the volumes of a cluster: what is there is looked at first, and set aside or kept.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, Rule, Severity};
use fabkeep_platform::Platform;
use fabkeep_platform::kubernetes::Kubernetes;

use super::super::keep::{self, CaKeep, Present};
use super::super::volumes::{Filled, fill_all, place_for};
use super::plan::awaiting;
use super::{ClusterRestored, Run, compare};
use crate::content::Contents;
use crate::error::io;
use crate::event::{Event, step};
use crate::point::EntryContent;
use crate::{EngineError, parallel};

/// Fills every volume of the plan and proves it.
pub(super) fn fill(run: &Run<'_>, kubernetes: &Kubernetes, restored: &mut ClusterRestored) -> Result<(), EngineError> {
    let (plan, options, reporter) = (run.plan, run.options, run.reporter);
    let mut wanted = Vec::new();
    for &position in &plan.fill {
        let node = run.node(position);
        for captured in node.directories.iter().filter(|captured| captured.directory.source.is_volume()) {
            let id = &node.facts.id;
            let Some(place) = place_for(kubernetes, id, &captured.directory) else {
                return Err(EngineError::Refused(vec![Finding::error(
                    Rule::NotPersistent,
                    id,
                    format!(
                        "the cluster has no place for its {} directory {}",
                        captured.directory.role, captured.directory.path
                    ),
                    "compare `fabkeep discover` with `fabkeep show`: the workload mounts other volumes than when it was captured",
                )]));
            };
            wanted.push((id, node.facts.role, captured, place));
        }
    }
    let threads = kubernetes.readers().unwrap_or_else(parallel::cores);
    let point_id = restored.point.clone();
    let mut directories = step(reporter, "start helper pods", None, || {
        let opened = parallel::map(wanted, threads, |(id, role, captured, place)| {
            Filled::new(kubernetes, id, role, captured, place)
        });
        opened.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    run.interrupted()?;
    // What is there decides: look at everything before anything is written.
    let looked =
        parallel::map(directories.iter().collect(), threads, |directory: &Filled<'_>| directory.filler.state());
    let mut refused = Vec::new();
    let mut aside = Vec::new();
    let mut whole = Vec::new();
    for (position, (directory, state)) in directories.iter_mut().zip(looked).enumerate() {
        let state = state.map_err(io(directory.label()))?;
        let going_on = state.marked.as_deref() == Some(point_id.as_str());
        if options.ca_keep.is_asked() && directory.role == NodeRole::CertificateAuthority {
            if is_kept_whole(directory, options.ca_keep) && state.holds_data && !going_on {
                whole.push(position);
                continue;
            }
            let present = directory.present(going_on.then_some(point_id.as_str()))?;
            let (errors, others) = keep_present(run, directory, &present)?;
            refused.extend(errors);
            restored.findings.extend(others);
        }
        let need = directory.captured.data_bytes();
        if need > state.free_bytes && !going_on {
            refused.push(Finding::error(
                Rule::RoomEnough,
                directory.label(),
                format!("the restore needs {need} bytes there, {} are free", state.free_bytes),
                "enlarge the claim, or remove what was set aside (.before-…)",
            ));
        }
        if state.holds_data && !going_on {
            if options.replace && keeps_new_one_away(directory)? {
                refused.push(Finding::error(
                    Rule::NotOverwritten,
                    directory.label(),
                    "PostgreSQL's files are in the volume's root: what is set aside there would keep it from beginning anew",
                    "back the database up once more, delete its workload and claim (the restore makes both), and run this again with --missing",
                ));
            } else if options.replace {
                aside.push(position);
            } else {
                refused.push(Finding::error(
                    Rule::NotOverwritten,
                    directory.label(),
                    "it holds data",
                    "restore only what is missing (--missing), choose nodes (--node), or let the data be set aside (--replace)",
                ));
            }
        }
    }
    for directory in aside.iter().map(|&position| &directories[position]) {
        let found = compare::authority_in(run, directory)?;
        found.iter().for_each(|finding| reporter.event(Event::Found(finding)));
        restored.findings.extend(found);
    }
    if !refused.is_empty() {
        refused.iter().for_each(|finding| reporter.event(Event::Found(finding)));
        return Err(EngineError::Refused(refused));
    }
    for directory in aside.iter().map(|&position| &directories[position]) {
        let to = directory.filler.set_aside(&point_id).map_err(io(directory.label()))?;
        restored.set_aside.push(format!("{} in {to}", directory.label()));
    }
    for position in whole.into_iter().rev() {
        let kept = directories.remove(position);
        restored.proven.push(format!("{} stays as it is", kept.label()));
    }
    let marked = parallel::map(directories.iter().collect(), threads, |directory: &Filled<'_>| {
        directory.filler.mark(&point_id).map_err(io(directory.label()))
    });
    marked.into_iter().collect::<Result<Vec<()>, _>>()?;
    for directory in &directories {
        directory.write_kept()?;
        if !directory.kept.is_empty() {
            restored.proven.push(keep::told(directory.id, &directory.kept, directory.fits));
        }
    }
    restored.proven.extend(fill_all(&directories, run.point, run.reader, threads, reporter)?);
    let claims: BTreeSet<(String, String)> =
        directories.iter().flat_map(|directory| kubernetes.claims(directory.id)).collect();
    for directory in &directories {
        directory.filler.unmark().map_err(io(directory.label()))?;
        restored.directories.push(directory.label());
    }
    for (namespace, claim) in claims {
        let waits = plan.load.iter().any(|&position| {
            let of_node = kubernetes.claims(&run.node(position).facts.id);
            of_node.contains(&(namespace.clone(), claim.clone()))
        });
        let note = if waits { awaiting(&point_id) } else { point_id.clone() };
        run.target.note_restored(&namespace, &claim, &note)?;
    }
    Ok(())
}

/// Whether a database server would take what is set aside for a database that is there: PostgreSQL begins in an empty directory only.
fn keeps_new_one_away(directory: &Filled<'_>) -> Result<bool, EngineError> {
    let made_anew = directory.captured.directory.role == DirectoryRole::Database
        && !directory.captured.entries.iter().any(|entry| matches!(entry.content, EntryContent::File { .. }));
    Ok(made_anew && directory.filler.list()?.iter().any(|entry| entry.path == "PG_VERSION"))
}

/// Whether a directory holds nothing but what is kept.
fn is_kept_whole(directory: &Filled<'_>, keep: CaKeep) -> bool {
    keep.tls && directory.captured.directory.role == DirectoryRole::Tls
}

/// Leaves to a certificate authority what is there and is to stay. What forbids the restore, and what to know.
fn keep_present(
    run: &Run<'_>,
    directory: &mut Filled<'_>,
    present: &Present,
) -> Result<(Vec<Finding>, Vec<Finding>), EngineError> {
    let contents = Contents::new(run.reader, run.point);
    let known_as = keep::known_as(&directory.captured.directory, &directory.target);
    let kept = keep::decide(directory.id, &directory.captured, &known_as, present, &contents, run.options.ca_keep)?;
    keep::leave_out(directory.captured.to_mut(), None, &kept);
    (directory.kept, directory.fits) = (kept.files, kept.fits);
    Ok(kept.findings.into_iter().partition(|finding| finding.severity == Severity::Error))
}
