//! Compares the cluster with the recovery point before anything is replaced: heights of nodes that are not restored, databases of
//! certificate authorities.

use std::collections::BTreeSet;

use fabkeep_ledger::ca_dump::DUMP_FILE;
use fabkeep_network::{DirectorySource, Finding, NodeDirectory, NodeId, Rule};
use fabkeep_platform::Platform;
use fabkeep_platform::kubernetes::Kubernetes;

use super::Run;
use super::nodes::dump_of;
use super::volume::DirectoryToFill;
use crate::EngineError;
use crate::error::io;
use crate::restore::ca::forgotten;
use crate::restore::existing::Existing;
use crate::restore::surviving;

/// Nodes that are filled beside those that stay.
pub(super) fn heights(run: &Run<'_>, kubernetes: &Kubernetes) -> Result<Vec<Finding>, EngineError> {
    let filled: BTreeSet<&NodeId> = run.plan.fill.iter().map(|&position| &run.node(position).facts.id).collect();
    let findings = surviving::judge(kubernetes, run.point, &|id| filled.contains(id), run.options.restart_others);
    let errors = run.options.refusals(&findings);
    if errors.is_empty() { Ok(findings) } else { Err(EngineError::Precondition(errors)) }
}

/// What a certificate authority whose database is replaced will have forgotten.
pub(super) fn authority_in(run: &Run<'_>, directory: &DirectoryToFill<'_>) -> Result<Vec<Finding>, EngineError> {
    let Some(node) = run.point.nodes.iter().find(|node| node.facts.id == *directory.id) else { return Ok(Vec::new()) };
    let volume = directory.filler.as_volume();
    let existing = Existing {
        node,
        captured: &directory.captured,
        volume: volume.as_ref(),
        label: directory.label(),
        is_part: &|_| true,
        kept: &directory.kept,
    };
    forgotten::in_files(&existing, run.point, run.reader)
}

/// What certificate authorities whose servers' databases are replaced will have forgotten, where the servers run.
pub(super) fn servers(run: &Run<'_>, kubernetes: &Kubernetes) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for &position in run.plan.load.iter().filter(|position| run.plan.fill.contains(position)) {
        let node = run.node(position);
        let id = &node.facts.id;
        let known = kubernetes.network().node(id);
        let server = |directory: &&NodeDirectory| directory.source == DirectorySource::Server;
        let Some(directory) = known.and_then(|known| known.directories.iter().find(server)) else { continue };
        let Some(entry) = dump_of(node) else { continue };
        match kubernetes.volume(id, directory) {
            Ok(None) => {}
            Ok(Some(present)) => {
                let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
                let older = scratch.path().join(DUMP_FILE);
                forgotten::write_captured(entry, run.point, run.reader, &older)?;
                if let Some(present) = present.local(DUMP_FILE) {
                    findings.extend(forgotten::forgotten_by_dump(id, &present, &older)?);
                }
            }
            Err(error) => findings.push(Finding::note(
                Rule::IdentitiesKnown,
                id,
                format!("it cannot be determined what it knows beyond the recovery point: {error}"),
                "check the files that are set aside, if they can be read",
            )),
        }
    }
    Ok(findings)
}
