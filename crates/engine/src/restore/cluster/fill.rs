//! Fills the volumes of a cluster: existing data is examined first, and set aside or kept. If a pod mounts a volume while it is filled,
//! that fill is worthless and is repeated.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeDirectory, NodeId, Remedy, Rule, Severity};
use fabkeep_platform::kubernetes::{Kubernetes, Mark, MountingPod, OtherHelper, is_scalable};
use fabkeep_platform::{ObjectRef, Platform};

use super::guard::Guard;
use super::look::{self, is_from_snapshot, is_kept_whole, is_ours};
use super::record::Journal;
use super::volume::{DirectoryToFill, Proof, fill_all};
use super::{Run, compare, sources, wait_until_gone};
use crate::content::Contents;
use crate::error::io;
use crate::event::{Event, Notice, step, step_with_helpers};
use crate::point::CapturedEntry;
use crate::restore::ca::keep::{self as ca_keep, ExistingFiles};
use crate::restore::owners;
use crate::restore::progress::{Record, Step};
use crate::restore::{Restored, RestoredDirectory};
use crate::{Done, EngineError};
use fabkeep_parallel as parallel;

/// How often a fill is begun anew because a pod appeared.
const REPEATS: usize = 3;

/// Fills every volume of the plan and proves it.
pub(super) fn fill(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    record: &mut Journal<'_>,
    restored: &mut Restored,
) -> Result<(), EngineError> {
    if run.plan.fill.is_empty() {
        return Ok(());
    }
    let reporter = run.reporter;
    let threads = kubernetes.readers().unwrap_or_else(parallel::cores);
    let mut directories =
        step_with_helpers(reporter, kubernetes, "start helper pods", || opened(run, kubernetes, threads))?;
    run.interrupted()?;
    let claims = |directories: &[DirectoryToFill<'_>]| -> BTreeSet<(String, String)> {
        directories.iter().flat_map(|directory| kubernetes.claims(&directory.place.node)).collect()
    };
    refuse_beside(run, kubernetes, &claims(&directories))?;
    decide(run, kubernetes, record, &mut directories, threads, restored)?;
    let ids: BTreeSet<String> = directories.iter().map(|directory| directory.id.to_string()).collect();
    let claims = claims(&directories);
    let allowed = allowed(run, kubernetes, &claims, restored)?;
    let mut proof = Proof::default();
    let mut left: Vec<&DirectoryToFill<'_>> = directories.iter().collect();
    for repeat in 0.. {
        let guard = Guard::new(run.target, reporter, &claims, allowed.clone());
        let filled = guard.during(|reporter| fill_all(&left, run.point, run.reader, threads, reporter));
        let lost = guard.lost();
        if !lost.is_empty() {
            return Err(EngineError::Precondition(lost.iter().map(lost_claim).collect()));
        }
        let pods = guard.seen();
        match filled {
            Ok(more) if pods.is_empty() => {
                proof.add(more);
                break;
            }
            Err(error) if pods.is_empty() => return Err(error),
            // Whatever was written beside a pod is worth nothing.
            _ => {}
        }
        let hit: BTreeSet<(String, String)> = pods.iter().flat_map(claims_of).collect();
        tell(run, restored, &pods);
        stop_again(run, kubernetes, record, &hit)?;
        let still = guard.look()?;
        if repeat + 1 >= REPEATS || !still.is_empty() {
            return Err(EngineError::Precondition(refused(if still.is_empty() { &pods } else { &still })));
        }
        // Those that no pod mounts are whole, or gone on with; of the others everything is written anew.
        for directory in &left {
            if kubernetes.claims(&directory.place.node).iter().any(|claim| hit.contains(claim)) {
                set_aside(run, record, directory)?;
                directory.filler.mark(&mark(run, record)).map_err(io(directory.label()))?;
                directory.forget();
            }
        }
        // What ran beside the fill is set aside now.
        record.note_all(generations(run)?)?;
        left = directories.iter().collect();
    }
    restored.proven.extend(proof.reported());
    record.note_all(ids.into_iter().map(|node| Step::Filled { node }))?;
    for directory in &directories {
        directory.filler.unmark().map_err(io(directory.label()))?;
        let path = directory.place.path().to_owned();
        let node = directory.id.to_string();
        restored.directories.push(RestoredDirectory { node: node.clone(), path: path.clone().into(), set_aside: None });
        record.add(Done::Placed { node, path })?;
    }
    record.store()
}

/// A claim that somebody deletes takes with it what is written into it.
fn lost_claim((namespace, claim): &(String, String)) -> Finding {
    Finding::error(
        Rule::NotPersistent,
        ObjectRef::new("PersistentVolumeClaim", namespace, claim),
        "it was deleted while it was filled: what the restore has written into it goes with it",
        "find out what deletes it and stop that; then run the same command again: it creates the claim and fills it",
    )
}

/// Another run of fabkeep works in helper pods that mount these claims: neither could trust what it does.
pub(super) fn refuse_others(kubernetes: &Kubernetes, claims: &BTreeSet<(String, String)>) -> Result<(), EngineError> {
    let used = kubernetes.helpers_in_use(claims)?;
    if used.is_empty() {
        return Ok(());
    }
    let finding = |other: &OtherHelper| {
        Finding::error(
            Rule::OperatorScales,
            &other.pod,
            format!(
                "another run of fabkeep ({}), a backup or another restore, uses it and the volumes that it mounts",
                other.run
            ),
            "wait until that run has ended, or end it; then run the same command again",
        )
    };
    Err(EngineError::Precondition(used.iter().map(finding).collect()))
}

/// What has no place in the cluster.
pub(super) fn no_place(id: &NodeId, directory: &NodeDirectory) -> Finding {
    Finding::error(
        Rule::NotPersistent,
        id,
        format!(
            "the cluster has no place for its {} directory {}: the workload mounts other volumes than when it was captured",
            directory.role, directory.path
        ),
        Remedy::CompareNodes,
    )
}

/// The directories of the plan, each in a helper pod.
fn opened<'a>(run: &Run<'a>, kubernetes: &Kubernetes, threads: usize) -> Result<Vec<DirectoryToFill<'a>>, EngineError> {
    let mut wanted = Vec::new();
    for &position in &run.plan.fill {
        let node = &run.point.nodes[position];
        for captured in node.directories.iter().filter(|captured| run.plan.is_filled(&captured.directory)) {
            let id = &node.facts.id;
            let Some(place) = kubernetes.place(id, &captured.directory) else {
                return Err(EngineError::Precondition(vec![no_place(id, &captured.directory)]));
            };
            wanted.push((id, node.facts.role, captured, place));
        }
    }
    let claims: BTreeSet<(String, String)> =
        wanted.iter().flat_map(|(.., place)| kubernetes.claims(&place.node)).collect();
    refuse_others(kubernetes, &claims)?;
    kubernetes.remove_left_helpers(&claims)?;
    let opened = parallel::map(wanted, threads, |(id, role, captured, place)| {
        DirectoryToFill::new(kubernetes, id, role, captured, place)
    });
    opened.into_iter().collect()
}

/// What is there decides: everything is looked at before anything is written. Then what is there is set aside, and what comes is marked.
fn decide(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    record: &mut Journal<'_>,
    directories: &mut Vec<DirectoryToFill<'_>>,
    threads: usize,
    restored: &mut Restored,
) -> Result<(), EngineError> {
    let options = run.options;
    let looked = parallel::map(directories.iter(), threads, |directory: &DirectoryToFill<'_>| {
        look::state(&directory.filler, &directory.label())
    });
    let made = sources::made(run, record)?;
    let (mut refused, mut aside, mut whole, mut seen) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (position, (directory, state)) in directories.iter_mut().zip(looked).enumerate() {
        let state = state?;
        let id = directory.id.to_string();
        let is_new = is_from_snapshot(run, record, &id, (&directory.filler, &state), &made);
        let going_on = is_new || is_ours(run, record, &id, &state);
        directory.from_snapshot = going_on && made.contains(directory.filler.held_by());
        if options.ca_keep.is_asked() && directory.role == NodeRole::CertificateAuthority {
            if is_kept_whole(&directory.captured, directory.role, options.ca_keep) && state.holds_data && !going_on {
                whole.push(position);
                continue;
            }
            let present = directory.present(going_on.then_some(run.id))?;
            let (errors, others) = keep_existing(run, kubernetes, directory, &present)?;
            refused.extend(errors);
            restored.findings.extend(others);
        }
        let node = run.point.nodes.iter().find(|node| node.facts.id == *directory.id);
        if let Some(node) = node {
            let (label, captured) = (directory.label(), &directory.captured);
            seen.push(look::judge(run, &label, node, captured, &directory.filler, &state, going_on)?);
        }
        if state.holds_data && !going_on {
            aside.push(position);
        }
    }
    refused.extend(look::reported(run, kubernetes, seen));
    let errors = options.refusals(&refused);
    if !errors.is_empty() {
        errors.iter().for_each(|finding| run.found(finding));
        return Err(EngineError::Precondition(errors));
    }
    for directory in aside.iter().map(|&position| &directories[position]) {
        let found = compare::authority_in(run, directory)?;
        found.iter().for_each(|finding| run.found(finding));
        restored.findings.extend(found);
    }
    for finding in directories.iter().filter_map(judge_owners) {
        run.report(restored, finding);
    }
    let kept: BTreeSet<usize> = whole.iter().copied().collect();
    let ids: Vec<String> = directories
        .iter()
        .enumerate()
        .filter(|(position, _)| !kept.contains(position))
        .map(|(_, directory)| directory.id.to_string())
        .collect();
    let touched = ids.iter().map(|node| Step::Filling { node: node.clone() });
    let ran = run.plan.ran.iter().map(|node| Step::Ran { node: node.clone() });
    record.note_all(touched.chain(generations(run)?).chain(ran))?;
    for directory in aside.iter().map(|&position| &directories[position]) {
        run.interrupted()?;
        set_aside(run, record, directory)?;
    }
    for position in whole.into_iter().rev() {
        let kept = directories.remove(position);
        restored.proven.push(format!("{} stays as it is", kept.label()));
    }
    let mark = mark(run, record);
    let marked = parallel::map(directories.iter(), threads, |directory: &DirectoryToFill<'_>| {
        directory.filler.mark(&mark).map_err(io(directory.label()))
    });
    marked.into_iter().collect::<Result<Vec<()>, _>>()?;
    // From here on the marks say whose it is.
    for node in ids {
        record.add(Step::Emptied { node })?;
    }
    record.store()?;
    for directory in directories.iter() {
        if !directory.kept.is_empty() {
            restored.proven.push(ca_keep::reported(directory.id, &directory.kept, directory.fits));
        }
    }
    Ok(())
}

/// A helper that may not be root gives files to no other user.
fn judge_owners(directory: &DirectoryToFill<'_>) -> Option<Finding> {
    let user = directory.filler.owner()?;
    let next = "check that the node's user may read and write them (fsGroup); or let the namespace admit pods of the level baseline while it is restored, and restore it once more";
    let will_be =
        user.map_or("the user that the cluster gives to helper pods".to_owned(), |user| format!("user {user}"));
    let stays = |entry: &CapturedEntry| user == Some(i64::from(entry.uid)) || entry.path.is_empty();
    owners::judge(directory.label(), &directory.captured.entries, stays, &will_be, next)
}

fn mark(run: &Run<'_>, record: &Record) -> Mark {
    Mark { point: run.id.to_owned(), run: record.run().0.to_owned() }
}

fn set_aside(run: &Run<'_>, record: &mut Journal<'_>, directory: &DirectoryToFill<'_>) -> Result<(), EngineError> {
    let to = directory.filler.set_aside(run.id).map_err(io(directory.label()))?;
    record.add(Done::SetAside { what: directory.label(), to })
}

/// Nothing is set aside under a running node: a pod of a filled node that cannot be scaled down ends the restore.
fn refuse_beside(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    claims: &BTreeSet<(String, String)>,
) -> Result<(), EngineError> {
    let mut pods = Guard::new(run.target, run.reporter, claims, BTreeSet::new()).look()?;
    let mut fixed = workloads(run);
    fixed.retain(|workload| !is_scalable(workload));
    pods.retain(|pod| fixed.iter().any(|workload| kubernetes.is_of(pod, workload)));
    if pods.is_empty() { Ok(()) } else { Err(EngineError::Precondition(refused(&pods))) }
}

/// Pods that mount the claims and are of no node that is filled: they may stay, and are reported.
fn allowed(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    claims: &BTreeSet<(String, String)>,
    restored: &mut Restored,
) -> Result<BTreeSet<(String, String)>, EngineError> {
    let pods = Guard::new(run.target, run.reporter, claims, BTreeSet::new()).look()?;
    let filled = workloads(run);
    let mut out = BTreeSet::new();
    for pod in pods {
        let of_filled = filled.iter().any(|workload| kubernetes.is_of(&pod, workload));
        if of_filled {
            continue;
        }
        let finding = Finding::warning(
            Rule::NotOverwritten,
            format!("Pod {}/{}", pod.namespace, pod.name),
            format!("it mounts {} while a part of it is filled", pod.claims.join(", ")),
            "make sure that it does not write into the restored directories",
        );
        run.report(restored, finding);
        out.insert((pod.namespace, pod.name));
    }
    Ok(out)
}

/// Workloads of the nodes that are filled.
fn workloads(run: &Run<'_>) -> BTreeSet<ObjectRef> {
    run.plan.fill.iter().filter_map(|&position| run.node(position).workload.as_ref().map(ObjectRef::from)).collect()
}

fn claims_of(pod: &MountingPod) -> Vec<(String, String)> {
    pod.claims.iter().map(|claim| (pod.namespace.clone(), claim.clone())).collect()
}

fn made_by(pod: &MountingPod) -> String {
    match &pod.made_by {
        Some((kind, name)) => format!("created by {kind} {name}"),
        None => "created by hand".to_owned(),
    }
}

fn tell(run: &Run<'_>, restored: &mut Restored, pods: &[MountingPod]) {
    for pod in pods {
        let finding = Finding::warning(
            Rule::OperatorScales,
            format!("Pod {}/{}", pod.namespace, pod.name),
            format!(
                "it appeared while {} was filled ({}): the volume is filled again",
                pod.claims.join(", "),
                made_by(pod)
            ),
            "find out what starts it (GitOps, an operator, an autoscaler, a person) and stop that until the restore is done",
        );
        run.report(restored, finding);
    }
}

fn refused(pods: &[MountingPod]) -> Vec<Finding> {
    let finding = |pod: &MountingPod| {
        Finding::error(
            Rule::OperatorScales,
            format!("Pod {}/{}", pod.namespace, pod.name),
            format!("it keeps mounting {} while that is filled ({})", pod.claims.join(", "), made_by(pod)),
            "suspend what starts it (GitOps, an operator, an autoscaler, a person), or delete the pod; then run the same command again",
        )
    };
    pods.iter().map(finding).collect()
}

/// The generations of the filled nodes' workloads as they are now.
fn generations(run: &Run<'_>) -> Result<Vec<Step>, EngineError> {
    let mut out = Vec::new();
    for workload in workloads(run) {
        let generation = run.target.generation(&workload)?;
        out.extend(generation.map(|generation| Step::Generation { workload: workload.to_string(), generation }));
    }
    Ok(out)
}

/// Scales down what was scaled up, and waits until its pods are gone.
fn stop_again(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    record: &mut Journal<'_>,
    hit: &BTreeSet<(String, String)>,
) -> Result<(), EngineError> {
    let mut again = Vec::new();
    for &position in &run.plan.fill {
        let node = run.node(position);
        let Some(workload) = &node.workload else { continue };
        let key = ObjectRef::from(workload);
        if kubernetes.claims(&node.facts.id).iter().any(|claim| hit.contains(claim)) && !again.contains(&key) {
            again.push(key);
        }
    }
    record.note_all(again.iter().map(|workload| Done::NodeStopping { node: workload.to_string() }.into()))?;
    step(run.reporter, "scale down again", None, || -> Result<(), EngineError> {
        for workload in again.iter().filter(|workload| is_scalable(workload)) {
            run.target.scale_down(workload)?;
        }
        run.reporter.event(Event::Notice(Notice::PodsGoing));
        wait_until_gone(run, kubernetes, &again)
    })?;
    for workload in again {
        record.add(Done::NodeStopped { node: workload.to_string() })?;
    }
    Ok(())
}

/// Leaves to a certificate authority what is there and is to stay. What forbids the restore, and what to know.
fn keep_existing(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    directory: &mut DirectoryToFill<'_>,
    present: &ExistingFiles,
) -> Result<(Vec<Finding>, Vec<Finding>), EngineError> {
    let contents = Contents::new(run.reader, run.point);
    let known_as = ca_keep::known_as(&directory.captured.directory, &directory.place.directory);
    let Some(node) = run.point.nodes.iter().find(|node| node.facts.id == *directory.id) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let known = kubernetes.network().node(&directory.place.node);
    let environment = known.map(|node| node.environment.clone()).unwrap_or_default();
    let captured = &directory.captured;
    let kept = ca_keep::decide(node, captured, &environment, &known_as, present, &contents, run.options.ca_keep)?;
    ca_keep::leave_out(directory.captured.to_mut(), None, &kept);
    (directory.kept, directory.fits) = (kept.files, kept.fits);
    Ok(kept.findings.into_iter().partition(|finding| finding.severity == Severity::Error))
}
