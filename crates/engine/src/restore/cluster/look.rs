//! Examines the volumes that are to be filled: before anything is changed, and once more after the nodes are stopped.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, Remedy, Rule, Severity};
use fabkeep_platform::kubernetes::{FillState, Filler, Kubernetes};
use fabkeep_platform::{Platform, PlatformError};

use super::{Run, sources};
use crate::EngineError;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedEntry, CapturedNode, EntryContent};
use crate::restore::CaKeep;
use crate::restore::existing::Existing;
use crate::restore::progress::Record;
use crate::restore::taken_away::{self, Higher, lost_blocks};
use fabkeep_parallel as parallel;

/// Looks into the volumes that are there, in the nodes' own containers where they run. What forbids the restore ends it here, before its
/// first change; a volume that can be looked at only when its node is stopped is left to the second look.
pub(super) fn before(run: &Run<'_>, kubernetes: &Kubernetes, record: &Record) -> Result<Vec<Finding>, EngineError> {
    let mut wanted = Vec::new();
    for &position in &run.plan.fill {
        let node = run.node(position);
        let id = &node.facts.id;
        for captured in node.directories.iter().filter(|captured| run.plan.is_filled(&captured.directory)) {
            let Some(place) = kubernetes.place(id, &captured.directory) else { continue };
            let there = kubernetes.claims(&place.node);
            let missing = there.iter().any(|(namespace, name)| {
                run.plan.create.iter().any(|known| {
                    known.kind == "PersistentVolumeClaim" && known.namespace == *namespace && known.name == *name
                })
            });
            if !missing && !there.is_empty() {
                wanted.push((node, captured, place));
            }
        }
    }
    let threads = kubernetes.readers().unwrap_or_else(parallel::cores);
    let made = &sources::made(run, record)?;
    let looked = parallel::map(wanted, threads, |(node, captured, place)| -> Result<ExistingData, EngineError> {
        let id = &node.facts.id;
        let label = format!("{id} {}", place.path());
        let filler = match kubernetes.look_before(&place.node, &place.directory) {
            Ok(Some(filler)) => filler,
            // A helper pod that is not admitted now is not admitted later.
            Err(error @ PlatformError::Forbidden { .. }) => return Err(error.into()),
            Ok(None) | Err(_) => return Ok(ExistingData::default()),
        };
        let Ok(state) = filler.state_now() else { return Ok(ExistingData::default()) };
        let is_ours = is_ours(run, record, &id.to_string(), &state)
            || is_from_snapshot(run, record, &id.to_string(), (&filler, &state), made);
        if is_kept_whole(captured, node.facts.role, run.options.ca_keep) && state.holds_data && !is_ours {
            return Ok(ExistingData::default());
        }
        Ok(judge(run, &label, node, captured, &filler, &state, is_ours).unwrap_or_default())
    });
    let found = reported(run, kubernetes, looked.into_iter().collect::<Result<_, _>>()?);
    let (errors, others): (Vec<Finding>, Vec<Finding>) =
        found.into_iter().partition(|finding| finding.severity == Severity::Error);
    let (overridden, errors): (Vec<Finding>, Vec<Finding>) =
        errors.into_iter().partition(|finding| run.options.is_overridden(finding));
    if !errors.is_empty() {
        errors.iter().for_each(|finding| run.found(finding));
        return Err(EngineError::Precondition(errors));
    }
    Ok(others.into_iter().chain(overridden).collect())
}

/// Whether what is there was written by this restore, and by nobody since.
pub(super) fn is_ours(run: &Run<'_>, record: &Record, id: &str, state: &FillState) -> bool {
    let ours = match &state.marked {
        Some(mark) => mark.run == record.run().0,
        // The mark goes when the fill is proven, and the record has that already.
        None => record.is_filled(id),
    };
    ours && record.is_touched(id) && !run.plan.ran.contains(id)
}

/// Whether what is there came with a claim that this restore has made from a snapshot, and no run has filled it since. Whatever wrote into it
/// meanwhile, it is checked as a whole.
pub(super) fn is_from_snapshot(
    run: &Run<'_>,
    record: &Record,
    id: &str,
    (filler, state): (&Filler, &FillState),
    made: &BTreeSet<String>,
) -> bool {
    let untouched = state.marked.is_none() || !record.is_touched(id);
    made.contains(filler.held_by()) && untouched && !record.is_filled(id) && !run.plan.ran.contains(id)
}

/// Whether a directory holds nothing but what a certificate authority keeps.
pub(super) fn is_kept_whole(captured: &CapturedDirectory, role: NodeRole, keep: CaKeep) -> bool {
    keep.tls && role == NodeRole::CertificateAuthority && captured.directory.role == DirectoryRole::Tls
}

/// What was found in a directory.
#[derive(Default)]
pub(super) struct ExistingData {
    pub findings: Vec<Finding>,
    /// Channels that are higher there than what comes.
    pub higher: Vec<Higher>,
    pub room: Option<Room>,
}

/// What a directory needs of the volume that holds it.
pub(super) struct Room {
    pub held_by: String,
    pub need: u64,
    pub free: u64,
}

/// Volumes that have too little room for all directories that they hold.
fn too_small(rooms: Vec<Room>) -> Vec<Finding> {
    let mut volumes: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for Room { held_by, need, free } in rooms {
        let (needed, least) = volumes.entry(held_by).or_insert((0, u64::MAX));
        *needed = needed.saturating_add(need);
        *least = free.min(*least);
    }
    volumes.retain(|_, (need, free)| need > free);
    let finding = |(held_by, (need, free)): (String, (u64, u64))| {
        Finding::error(
            Rule::RoomEnough,
            held_by,
            format!("the restore needs {need} bytes there, {free} are free"),
            "enlarge the claim, or remove what was set aside (.before-…)",
        )
    };
    volumes.into_iter().map(finding).collect()
}

/// Bytes that a directory still lacks of what comes, where this restore has written a part of it.
fn lacking(captured: &CapturedDirectory, there: &BTreeMap<String, u64>) -> u64 {
    let lacks = |entry: &CapturedEntry| match (&entry.content, there.get(&entry.path)) {
        (EntryContent::File { size, .. }, Some(there)) if there == size => 0,
        (EntryContent::File { parts, .. }, there) => {
            let need: u64 = parts.iter().map(|part| part.len).sum();
            // What is there of it makes way.
            need.saturating_sub(there.copied().unwrap_or(0))
        }
        _ => 0,
    };
    captured.entries.iter().map(lacks).sum()
}

/// What was found in all of them: blocks that would be lost are a warning where a node that stays has them.
pub(super) fn reported(run: &Run<'_>, kubernetes: &Kubernetes, looked: Vec<ExistingData>) -> Vec<Finding> {
    let (mut findings, mut higher, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
    for one in looked {
        findings.extend(one.findings);
        higher.extend(one.higher);
        rooms.extend(one.room);
    }
    findings.extend(too_small(rooms));
    let restored: Vec<String> = run.plan.fill.iter().map(|&position| run.node(position).facts.id.to_string()).collect();
    findings.extend(lost_blocks(&restored, Some(kubernetes), higher, &run.options.go_back));
    findings
}

/// What is there against what comes.
pub(super) fn judge(
    run: &Run<'_>,
    label: &str,
    node: &CapturedNode,
    captured: &CapturedDirectory,
    filler: &Filler,
    state: &FillState,
    is_ours: bool,
) -> Result<ExistingData, EngineError> {
    let mut findings = Vec::new();
    let need = if is_ours {
        lacking(captured, &filler.list()?.into_iter().map(|entry| (entry.path, entry.stamp.size)).collect())
    } else {
        captured.data_bytes()
    };
    let room = Some(Room { held_by: filler.held_by().to_owned(), need, free: state.free_bytes });
    if is_ours || !state.holds_data {
        return Ok(ExistingData { room, ..ExistingData::default() });
    }
    if !run.options.replace {
        let what = match &state.marked {
            _ if run.plan.ran.contains(&node.facts.id.to_string()) => {
                "an earlier run of this restore has filled it, but its workload was scaled up or changed since: its content may be the node's own".to_owned()
            }
            Some(mark) => format!(
                "it contains data of another unfinished restore ({}, run {}), whose progress record is missing",
                mark.point, mark.run
            ),
            None => "it contains data".to_owned(),
        };
        findings.push(Finding::error(
            Rule::NotOverwritten,
            label,
            what,
            Remedy::OnlyMissing.or(Remedy::ChooseNodes).or(Remedy::SetAside),
        ));
        return Ok(ExistingData { findings, room, ..ExistingData::default() });
    }
    if keeps_new_one_away(captured, filler)? {
        findings.push(Finding::error(
            Rule::NotOverwritten,
            label,
            "PostgreSQL's files are in the volume's root: data that is set aside there would prevent it from initialising a new database",
            Remedy::from("back the database up once more").and("delete its workload and claim (the restore creates both)").and(Remedy::OnlyMissing),
        ));
    }
    let volume = filler.as_volume();
    let existing =
        Existing { node, captured, volume: volume.as_ref(), label: label.to_owned(), is_part: &|_| true, kept: &[] };
    let taken = taken_away::judge(&existing, run.options, run.reader.names())?;
    findings.extend(taken.finding);
    Ok(ExistingData { findings, higher: taken.higher, room })
}

/// Whether a database server would take what is set aside for a database that is there: PostgreSQL begins in an empty directory only.
fn keeps_new_one_away(captured: &CapturedDirectory, filler: &Filler) -> Result<bool, EngineError> {
    let made_anew = captured.directory.role == DirectoryRole::Database
        && !captured.entries.iter().any(|entry| matches!(entry.content, EntryContent::File { .. }));
    Ok(made_anew && filler.list()?.iter().any(|entry| entry.path == "PG_VERSION"))
}

/// The state of a directory of a stopped node.
pub(super) fn state(filler: &Filler, label: &str) -> Result<FillState, EngineError> {
    filler.state().map_err(io(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(held_by: &str, need: u64, free: u64) -> Room {
        Room { held_by: held_by.to_owned(), need, free }
    }

    #[test]
    fn what_directories_of_one_volume_need_is_added_up() {
        let rooms = vec![room("claim a/x", 6, 10), room("claim a/y", 6, 10), room("claim a/x", 5, 11)];
        let found: Vec<String> = too_small(rooms).into_iter().map(|finding| finding.subject).collect();
        assert_eq!(found, ["claim a/x"]);
        assert!(too_small(vec![room("claim a/x", 6, 10), room("claim a/x", 4, 10)]).is_empty());
    }
}
