//! The objects of a restore: created, replaced after a copy was kept, and compared again before nodes start with them. An object that
//! somebody else created meanwhile is never taken for the recovery point's (K1).

use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_platform::kubernetes::{Created, ObjectState, Replaced, WorkloadState, is_scalable};
use fabkeep_platform::{Declaration, ObjectRef};

use super::Run;
use super::plan::is_workload;
use super::record::Journal;
use super::sources;
use crate::restore::Restored;
use crate::{Done, EngineError};

/// Namespaces: the progress record lies in the first of them.
pub(super) fn namespaces(run: &Run<'_>, record: &mut Journal<'_>, restored: &mut Restored) -> Result<(), EngineError> {
    for known in run.plan.create.iter().filter(|known| known.kind == "Namespace") {
        run.interrupted()?;
        if run.target.create(known)? == Created::Made {
            record.add(Done::ObjectCreated { object: known.label() })?;
            restored.objects += 1;
        }
    }
    Ok(())
}

/// Secrets and ConfigMaps first, in the order of the recovery point. Returns workloads that somebody else created meanwhile, and that wanted
/// pods: they are at 0 replicas now.
pub(super) fn create(
    run: &Run<'_>,
    record: &mut Journal<'_>,
    restored: &mut Restored,
) -> Result<Vec<ObjectRef>, EngineError> {
    let (plan, target) = (run.plan, run.target);
    let (mut minted, mut up) = (Vec::new(), Vec::new());
    for known in &plan.replace {
        run.interrupted()?;
        minted.extend(replace(run, record, restored, known)?);
    }
    for known in plan.create.iter().filter(|known| known.kind != "Namespace") {
        run.interrupted()?;
        if is_workload(&known.kind) && !minted.is_empty() {
            // No workload begins to look for what is not the recovery point's.
            break;
        }
        if is_workload(&known.kind) {
            let replicas = plan.replicas.get(&ObjectRef::from(known)).copied();
            record.note(record.resting(&known.into(), replicas))?;
        }
        let source = plan.sources.get(&(known.namespace.clone(), known.name.clone()));
        let created = match source.filter(|_| known.kind == "PersistentVolumeClaim") {
            Some(kept) => sources::create(run, record, restored, known, kept)?,
            None => target.create(known)?,
        };
        match created {
            Created::Made => {
                record.add(Done::ObjectCreated { object: known.label() })?;
                restored.objects += 1;
            }
            Created::There(state) => {
                minted.extend(made_by_others(run, record, restored, known, state)?);
                up.extend(scaled_down(run, restored, known)?);
            }
        }
    }
    record.store()?;
    if minted.is_empty() { Ok(up) } else { Err(EngineError::Precondition(minted)) }
}

/// Scales a workload of others down that wants pods: they would begin on empty volumes.
fn scaled_down(run: &Run<'_>, restored: &mut Restored, known: &Declaration) -> Result<Option<ObjectRef>, EngineError> {
    let workload = ObjectRef::from(known);
    if !is_scalable(&workload) || run.target.workload(&workload)? != WorkloadState::Running {
        return Ok(None);
    }
    run.target.scale_down(&workload)?;
    let finding = Finding::warning(
        Rule::OperatorScales,
        known.label(),
        "somebody else created it while the restore ran, and it wanted pods: it was scaled down again until its data is there",
        "find out what creates it (GitOps, an operator, a person) and stop that until the restore is done",
    );
    run.report(restored, finding);
    Ok(Some(workload))
}

/// What somebody else has made since the plan was made.
fn made_by_others(
    run: &Run<'_>,
    record: &mut Journal<'_>,
    restored: &mut Restored,
    known: &Declaration,
    state: ObjectState,
) -> Result<Option<Finding>, EngineError> {
    let keyed = matches!(known.kind.as_str(), "Secret" | "ConfigMap");
    let at = match state {
        ObjectState::Equal => return Ok(None),
        ObjectState::Differs(at) => at,
        ObjectState::Missing => "something keeps creating and deleting it".to_owned(),
        ObjectState::Going(finalizers) => format!("it is being deleted, kept by {}", finalizers.join(", ")),
        ObjectState::Forbidden(said) => format!("it may not be read: {said}"),
    };
    if keyed && run.options.replace {
        return replace(run, record, restored, known);
    }
    if keyed {
        return Ok(Some(minted(known, &at, run.options.missing)));
    }
    let finding = Finding::warning(
        Rule::Declared,
        known.label(),
        format!("somebody else created it while the restore ran, with another declaration ({at}): it is left as it is"),
        "compare it with that of the recovery point, and correct it if necessary",
    );
    run.report(restored, finding);
    Ok(None)
}

/// `missing`: only what is missing is restored, which replaces nothing.
fn minted(known: &Declaration, at: &str, missing: bool) -> Finding {
    let replaced = if missing {
        Remedy::from("delete it, if nothing needs it, and run the same command again")
    } else {
        Remedy::ReplaceObject
    };
    Finding::error(
        Rule::OperatorScaledDown,
        known.label(),
        format!(
            "somebody else created it while the restore ran, with different content ({at}): it is not the recovery point's, and was not touched"
        ),
        Remedy::from("find out what creates it (cert-manager, an operator, GitOps) and stop that")
            .and(replaced.or(Remedy::from("keep this one").and(Remedy::LeaveNodeOut))),
    )
}

fn replace(
    run: &Run<'_>,
    record: &mut Journal<'_>,
    restored: &mut Restored,
    known: &Declaration,
) -> Result<Option<Finding>, EngineError> {
    let replaced = run.target.replace(known, &restored.point, &mut |name| {
        let to = format!("{} {}/{name}", known.kind, known.namespace);
        record.note(Done::SetAside { what: known.label(), to })
    })?;
    if replaced == Replaced::MadeAgain {
        return Ok(Some(Finding::error(
            Rule::OperatorScaledDown,
            known.label(),
            "somebody else keeps creating it with different content, before that of the recovery point can be created",
            "stop what creates it (cert-manager, an operator, GitOps) until the restore is done; then run the same command again",
        )));
    }
    record.add(Done::ObjectReplaced { object: known.label() })?;
    restored.objects += 1;
    Ok(None)
}

/// Secrets and ConfigMaps as nodes are about to find them: all have to be the recovery point's.
pub(super) fn settle(run: &Run<'_>, record: &mut Journal<'_>, restored: &mut Restored) -> Result<(), EngineError> {
    let all: Vec<&Declaration> = run.plan.keyed.iter().collect();
    let mut minted = Vec::new();
    for (known, state) in all.iter().copied().zip(run.target.compare(&all)?) {
        match state {
            ObjectState::Equal => {}
            ObjectState::Missing => match run.target.create(known)? {
                Created::Made => {
                    record.add(Done::ObjectCreated { object: known.label() })?;
                    restored.objects += 1;
                }
                Created::There(state) => minted.extend(made_by_others(run, record, restored, known, state)?),
            },
            state => minted.extend(made_by_others(run, record, restored, known, state)?),
        }
    }
    if minted.is_empty() { Ok(()) } else { Err(EngineError::Precondition(minted)) }
}

/// Objects that start something by themselves.
pub(super) fn late(run: &Run<'_>, record: &mut Journal<'_>, restored: &mut Restored) -> Result<(), EngineError> {
    for known in &run.plan.late {
        run.interrupted()?;
        if is_workload(&known.kind) {
            // It runs as soon as it is there.
            record.note(Done::NodeStarting { node: known.label() })?;
        }
        match run.target.create(known)? {
            Created::Made => {
                record.add(Done::ObjectCreated { object: known.label() })?;
                if is_workload(&known.kind) {
                    record.add(Done::NodeStarted { node: known.label() })?;
                }
                restored.objects += 1;
            }
            Created::There(state) => {
                made_by_others(run, record, restored, known, state)?;
            }
        }
    }
    Ok(())
}

/// Secrets and ConfigMaps that changed while nodes started on them.
pub(super) fn changed_since(run: &Run<'_>) -> Result<Vec<Finding>, EngineError> {
    let all: Vec<&Declaration> = run.plan.keyed.iter().collect();
    let states = run.target.compare(&all)?;
    let changed = all.iter().zip(states).filter(|(_, state)| *state != ObjectState::Equal);
    Ok(changed
        .map(|(known, _)| {
            Finding::error(
                Rule::OperatorScaledDown,
                known.label(),
                "it differs from the recovery point now: somebody else replaced or removed it while the nodes started",
                Remedy::from("stop what creates it (cert-manager, an operator, GitOps)").and(Remedy::ReplaceObject),
            )
        })
        .collect())
}
