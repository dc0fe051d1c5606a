//! Users that restored files belong to, where they cannot be given to the captured ones.

use std::collections::BTreeMap;

use fabkeep_network::{Finding, NodeId, Rule};

use crate::point::{CapturedEntry, CapturedNode, EntryContent, RecoveryPoint};

/// Returns a finding if entries belong to another user or group than those that they will belong to.
pub(in crate::restore) fn judge(
    subject: String,
    entries: &[CapturedEntry],
    stays: impl Fn(&CapturedEntry) -> bool,
    will_be: &str,
    next: &str,
) -> Option<Finding> {
    let mut others = entries.iter().filter(|entry| !stays(entry));
    let first = others.next()?;
    Some(Finding::warning(
        Rule::FileReadable,
        subject,
        format!(
            "{} files and directories belong to another user or group (the first: {:?}, {}:{}), and will belong to {will_be}",
            others.count() + 1,
            first.path,
            first.uid,
            first.gid
        ),
        next,
    ))
}

/// Returns the user that most files of each node's volumes belong to.
pub(in crate::restore) fn of_nodes(point: &RecoveryPoint) -> BTreeMap<NodeId, u32> {
    point.nodes.iter().filter_map(|node| Some((node.facts.id.clone(), of_node(node)?))).collect()
}

fn of_node(node: &CapturedNode) -> Option<u32> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    let volumes = node.directories.iter().filter(|captured| captured.directory.source.is_volume());
    for entry in volumes.flat_map(|captured| &captured.entries) {
        if matches!(entry.content, EntryContent::File { .. }) {
            *counts.entry(entry.uid).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(user, _)| user)
}
