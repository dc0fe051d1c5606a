//! Claims that are made from snapshots which the recovery point has kept in the cluster. Nothing in them is believed: what the recovery point
//! does not have is removed, every other file is hashed, and what differs is written from the repository.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_network::{Finding, NodeId, Rule};
use fabkeep_platform::kubernetes::{Created, ObjectState, SnapshotSource, made_from};
use fabkeep_platform::{Declaration, KeptSnapshot};

use super::Run;
use super::plan::Plan;
use super::record::Journal;
use crate::EngineError;
use crate::point::RecoveryPoint;
use crate::restore::progress::{Record, Step};
use crate::restore::{RestoreStep, Restored};

/// A claim: its namespace and its name.
type Claim = (String, String);

/// Decides for each claim whether it is made from a snapshot: it has to be missing, and the snapshot to be the recorded one.
pub(super) fn plan(
    plan: &mut Plan,
    point: &RecoveryPoint,
    claims: &BTreeMap<NodeId, Vec<Claim>>,
) -> Result<Vec<RestoreStep>, EngineError> {
    let kept = point.snapshots.as_ref().map_or(&[][..], |taken| &taken.kept);
    let namespaces = &plan.place.relocation.namespaces;
    let place = |kept: &KeptSnapshot| -> Claim {
        let namespace = namespaces.get(&kept.namespace).unwrap_or(&kept.namespace);
        (namespace.clone(), kept.claim.clone())
    };
    let kept: BTreeMap<Claim, &KeptSnapshot> = kept.iter().map(|kept| (place(kept), kept)).collect();
    let filled = plan.fill.iter().filter_map(|&position| claims.get(&point.nodes[position].facts.id));
    let filled: BTreeSet<&Claim> = filled.flatten().collect();
    let mut steps = Vec::new();
    for claim in filled {
        let label = format!("{}/{}", claim.0, claim.1);
        let declared = plan.create.iter().find(|known| {
            known.kind == "PersistentVolumeClaim" && (&known.namespace, &known.name) == (&claim.0, &claim.1)
        });
        let is_made = plan.record().is_some_and(|record| record.source_of(&label).is_some());
        let why = match (kept.get(claim), declared) {
            (_, None) if is_made => continue,
            (None, _) => Some("the recovery point has kept no snapshot of it".to_owned()),
            (_, None) => Some("it is there, and only claims that are missing are made from snapshots".to_owned()),
            (Some(kept), Some(declared)) => plan.target.unusable(kept, declared)?,
        };
        let known = kept.get(claim).filter(|_| why.is_none());
        steps.push(match (known, why) {
            (Some(kept), None) => {
                plan.sources.insert(claim.clone(), (*kept).clone());
                RestoreStep::FromSnapshot { claim: label, snapshot: kept.name.clone() }
            }
            (_, why) => RestoreStep::FromRepository { claim: label, why: why.unwrap_or_default() },
        });
    }
    Ok(steps)
}

/// Creates a claim from its snapshot. Where the driver does not provide that, it is created empty, and filled from the repository.
pub(super) fn create(
    run: &Run<'_>,
    record: &mut Journal<'_>,
    restored: &mut Restored,
    declared: &Declaration,
    kept: &KeptSnapshot,
) -> Result<Created, EngineError> {
    let label = format!("{}/{}", declared.namespace, declared.name);
    let mark = blake3::hash(format!("{label} {} {}", kept.content_uid, kept.handle).as_bytes()).to_hex();
    let source = match run.target.snapshot_source(kept, &declared.namespace, &mark[..16])? {
        Ok(source) => source,
        Err(problem) => {
            let finding = Finding::warning(
                Rule::Snapshots,
                declared.label(),
                format!("it is filled from the repository, because its kept snapshot cannot be used: {problem}"),
                "no action is needed for this restore; look at the driver before you rely on kept snapshots again",
            );
            run.report(restored, finding);
            return Ok(run.target.create(declared)?);
        }
    };
    let SnapshotSource { name, lent } = source.clone();
    record.note(Step::FromSnapshot { claim: label, snapshot: name, lent })?;
    match run.target.create(&made_from(declared, kept, &source))? {
        Created::There(_) => {
            let state = run.target.compare(&[declared])?.into_iter().next();
            Ok(Created::There(state.unwrap_or(ObjectState::Missing)))
        }
        made => Ok(made),
    }
}

/// Returns the claims that this restore has made from snapshots, as `claim namespace/name`. One that somebody has made anew since is none.
pub(super) fn made(run: &Run<'_>, record: &Record) -> Result<BTreeSet<String>, EngineError> {
    let mut out = BTreeSet::new();
    for (claim, snapshot, _) in record.sources() {
        let Some((namespace, name)) = claim.split_once('/') else { continue };
        if run.target.source_of(namespace, name)?.as_deref() == Some(snapshot) {
            out.insert(format!("claim {claim}"));
        }
    }
    Ok(out)
}

/// Takes back what was lent for the claims. What cannot be is a warning: the data is in its place.
pub(super) fn take_back(run: &Run<'_>, record: &Record, restored: &mut Restored) {
    for (claim, snapshot, lent) in record.sources() {
        let namespace = claim.split_once('/').map_or("", |(namespace, _)| namespace);
        if let Some(Err(error)) = lent.then(|| run.target.take_back(namespace, snapshot)) {
            let finding = Finding::warning(
                Rule::Snapshots,
                format!("VolumeSnapshot {namespace}/{snapshot}"),
                format!("it was made for this restore and could not be removed: {error}"),
                "remove it with `fabkeep clean`; the kept snapshot stays",
            );
            run.report(restored, finding);
        }
    }
}
