//! What is in the cluster against what comes, before anything is replaced: heights of the nodes that stay, databases of authorities.

use std::collections::BTreeSet;

use fabkeep_ledger::ca_dump::DUMP_FILE;
use fabkeep_network::{DirectorySource, Finding, NodeDirectory, NodeId, Rule};
use fabkeep_platform::kubernetes::Kubernetes;
use fabkeep_platform::{Fetch, Platform};

use super::super::volumes::Filled;
use super::super::{authority, surviving};
use super::Run;
use super::nodes::dump_of;
use crate::EngineError;
use crate::error::io;

/// Nodes that are filled beside those that stay.
pub(super) fn heights(run: &Run<'_>, kubernetes: &Kubernetes) -> Result<Vec<Finding>, EngineError> {
    let filled: BTreeSet<&NodeId> = run.plan.fill.iter().map(|&position| &run.node(position).facts.id).collect();
    let findings = surviving::judge(kubernetes, run.point, &|id| filled.contains(id));
    let overridden = |finding: &Finding| run.options.overrides.iter().any(|code| code == finding.rule.code());
    let errors: Vec<Finding> = findings.iter().filter(|finding| !overridden(finding)).cloned().collect();
    if errors.is_empty() { Ok(findings) } else { Err(EngineError::Precondition(errors)) }
}

/// What a certificate authority whose database is replaced will have forgotten.
pub(super) fn authority_in(run: &Run<'_>, directory: &Filled<'_>) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for entry in authority::databases(&directory.captured) {
        let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
        let present = scratch.path().join("present.db");
        let fetch = |suffix: &str| Fetch {
            path: format!("{}{suffix}", entry.path),
            to: scratch.path().join(format!("present.db{suffix}")),
            sparse: false,
        };
        let files: Vec<Fetch> = std::iter::once("").chain(authority::BESIDE).map(fetch).collect();
        let there = directory.filler.fetch(&files).map_err(io(directory.label()))?;
        if there.first() == Some(&true) {
            findings.extend(authority::forgotten(
                directory.id,
                &present,
                entry,
                run.point,
                run.reader,
                scratch.path(),
            )?);
        }
    }
    Ok(findings)
}

/// What certificate authorities whose servers' databases are replaced will have forgotten, where the servers run.
pub(super) fn servers(run: &Run<'_>, kubernetes: &Kubernetes) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    for &position in run.plan.load.iter().filter(|position| run.plan.fill.contains(position)) {
        let node = run.node(position);
        let id = &node.facts.id;
        let known = kubernetes.network().nodes().find(|known| known.id == *id);
        let server = |directory: &&NodeDirectory| directory.source == DirectorySource::Server;
        let Some(directory) = known.and_then(|known| known.directories.iter().find(server)) else { continue };
        let Some(entry) = dump_of(node) else { continue };
        match kubernetes.volume(id, directory) {
            Ok(None) => {}
            Ok(Some(present)) => {
                let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
                let older = scratch.path().join(DUMP_FILE);
                authority::write_captured(entry, run.point, run.reader, &older)?;
                if let Some(present) = present.local(DUMP_FILE) {
                    findings.extend(authority::forgotten_by_dump(id, &present, &older)?);
                }
            }
            Err(error) => findings.push(Finding::note(
                Rule::IdentitiesKnown,
                id,
                format!("what it knows beyond the recovery point cannot be determined: {error}"),
                "look into the files that are set aside, if they can be read",
            )),
        }
    }
    Ok(findings)
}
