//! What a volume holds that the recovery point has not (B11), before it is set aside.

use std::collections::BTreeSet;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeId};
use fabkeep_platform::kubernetes::Filler;
use fabkeep_platform::{EntryKind, Fetch, VolumeEntry};
use fabkeep_store::BlobId;

use super::super::taken_away::{Unit, captured_blobs, higher_in, is_key, lost_units, may_be_key, taken};
use super::Run;
use crate::EngineError;
use crate::error::io;
use crate::point::{CapturedDirectory, CapturedNode};

/// A node's channel that is higher than what comes: the channel, its height there and in the recovery point.
pub(super) type Higher = (NodeId, String, u64, u64);

/// Compares one directory.
pub(super) fn judge(
    run: &Run<'_>,
    node: &CapturedNode,
    captured: &CapturedDirectory,
    filler: &Filler,
    label: &str,
) -> Result<(Option<Finding>, Vec<Higher>), EngineError> {
    let id = &node.facts.id;
    let emptied = run.options.replicate.contains(&id.to_string());
    let found: Vec<VolumeEntry> = filler.list()?.into_iter().filter(|entry| entry.kind == EntryKind::File).collect();
    let mut lost = lost_units(captured, &found, emptied);
    // What an authority keeps was asked for: its own key is not among it.
    if node.facts.role != NodeRole::CertificateAuthority || !run.options.ca_keep.is_asked() {
        lost.extend(lost_keys(run, id, captured, filler, &found, label)?);
    }
    let volume = filler.as_volume();
    let heights = if emptied { Vec::new() } else { higher_in(node, volume.as_ref(), captured) };
    Ok((taken(id, label, &lost), heights))
}

/// Private keys that no file of the node in the recovery point holds.
fn lost_keys(
    run: &Run<'_>,
    id: &NodeId,
    captured: &CapturedDirectory,
    filler: &Filler,
    found: &[VolumeEntry],
    label: &str,
) -> Result<Vec<Unit>, EngineError> {
    let maybe: Vec<&VolumeEntry> = found.iter().filter(|entry| may_be_key(captured, entry)).collect();
    if maybe.is_empty() {
        return Ok(Vec::new());
    }
    let position = run.point.nodes.iter().position(|node| node.facts.id == *id);
    let blobs: BTreeSet<BlobId> =
        position.and_then(|position| captured_blobs(run.point).remove(&position)).unwrap_or_default();
    let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
    let to = |position: usize| scratch.path().join(position.to_string());
    let files: Vec<Fetch> = maybe
        .iter()
        .enumerate()
        .map(|(position, entry)| Fetch { path: entry.path.clone(), to: to(position), sparse: false })
        .collect();
    let there = filler.fetch(&files).map_err(io(label))?;
    let mut out = Vec::new();
    for (position, entry) in maybe.iter().enumerate().filter(|(position, _)| there.get(*position) == Some(&true)) {
        let bytes = std::fs::read(to(position)).map_err(io(to(position)))?;
        if is_key(&bytes) && !blobs.contains(&run.reader.names().name(&bytes)) {
            out.push(Unit::Key(entry.path.clone()));
        }
    }
    Ok(out)
}
