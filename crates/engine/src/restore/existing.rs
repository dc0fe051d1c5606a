//! What is in the places of hosts before it is replaced: files that certificate authorities keep, databases that are compared.

use std::path::{Path, PathBuf};

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, Rule};
use fabkeep_platform::{EntryKind, HostVolume, Volume};
use fabkeep_store::PointReader;

use super::ca_keep::{self, Existing, ExistingFile, Kept};
use super::journal::Record;
use super::plan::{PlannedDirectory, RestorePlan};
use super::{RestoreOptions, authority};
use crate::EngineError;
use crate::content::Contents;
use crate::error::io;
use crate::point::{CapturedDirectory, RecoveryPoint};
use crate::transform::Transformed;

/// Leaves to certificate authorities what of theirs is there and is to stay.
pub(super) fn keep(
    plan: &mut RestorePlan,
    transformed: &mut Transformed,
    reader: &PointReader<'_>,
    options: &RestoreOptions,
    earlier: Option<&Record>,
) -> Result<(), EngineError> {
    let mut whole = Vec::new();
    let mut decided = Vec::new();
    let contents = Contents::new(reader, &transformed.point);
    for (index, planned) in plan.directories.iter().enumerate() {
        let node = &transformed.point.nodes[planned.node];
        let captured = &node.directories[planned.directory];
        if node.facts.role != NodeRole::CertificateAuthority {
            continue;
        }
        if captured.directory.role == DirectoryRole::Tls && options.ca_keep.tls && planned.occupied {
            whole.push(index);
        }
        if ca_keep::homes(&captured.directory).is_empty() {
            continue;
        }
        let place = planned.staging.place.display().to_string();
        let mut known_as = ca_keep::known_as(&captured.directory, &captured.directory);
        known_as.push(&place);
        let present = files(index, planned, captured, earlier)?;
        let kept = ca_keep::decide(&planned.id, captured, &known_as, &present, &contents, options.ca_keep)?;
        decided.push((index, kept));
    }
    drop(contents);
    for (index, kept) in decided {
        let planned = &mut plan.directories[index];
        let node = &mut transformed.point.nodes[planned.node];
        ca_keep::leave_out(&mut node.directories[planned.directory], Some(&mut node.facts), &kept);
        let Kept { files, findings, fits } = kept;
        plan.findings.extend(findings);
        (planned.kept, planned.fits) = (files, fits);
    }
    for index in whole.into_iter().rev() {
        let planned = plan.directories.remove(index);
        plan.findings.push(Finding::note(
            Rule::CaKept,
            &planned.id,
            format!("its TLS directory {} stays as it is", planned.staging.place.display()),
            "nothing: that is what --ca-keep tls asks for",
        ));
    }
    Ok(())
}

/// Files of a certificate authority that are there. A run that was killed may have set some of them aside, or all.
fn files(
    index: usize,
    planned: &PlannedDirectory,
    captured: &CapturedDirectory,
    earlier: Option<&Record>,
) -> Result<Existing, EngineError> {
    let staging = &planned.staging;
    let asides = earlier.into_iter().flat_map(|earlier| earlier.asides(index));
    let mut roots: Vec<(PathBuf, String)> =
        asides.filter_map(|(region, to)| Some((to.to_path_buf(), staging.regions.get(region)?.root.clone()))).collect();
    if earlier.is_none_or(|earlier| !earlier.has_aside(index)) {
        roots.push((staging.place.clone(), String::new()));
    }
    let mut out = Existing::new();
    for (root, below) in roots.iter().filter(|(root, _)| root.is_dir()) {
        for mut entry in HostVolume::new(root.clone()).list("")? {
            let path = root.join(&entry.path);
            if !below.is_empty() {
                entry.path = format!("{below}/{}", entry.path);
            }
            let looked_at = ca_keep::is_looked_at(&captured.directory, &entry.path, entry.stamp.size);
            let skipped = !staging.is_part(&entry.path) || out.contains_key(&entry.path);
            if entry.kind != EntryKind::File || !looked_at || skipped {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(io(&path))?;
            let file = ExistingFile::new(&entry, bytes);
            out.insert(entry.path, file);
        }
    }
    Ok(out)
}

/// What certificate authorities whose databases are replaced will have forgotten.
pub(super) fn compare_authorities(
    plan: &mut RestorePlan,
    point: &RecoveryPoint,
    reader: &PointReader<'_>,
    record: &Record,
) -> Result<(), EngineError> {
    for (index, planned) in plan.directories.iter().enumerate() {
        if !planned.occupied || record.is_settled(index) || record.has_aside(index) {
            continue;
        }
        let captured = &point.nodes[planned.node].directories[planned.directory];
        for entry in authority::databases(captured) {
            let source = planned.staging.placed(&entry.path);
            if !source.is_file() {
                continue;
            }
            let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
            let present = scratch.path().join("present.db");
            std::fs::copy(&source, &present).map_err(io(&source))?;
            for beside in authority::BESIDE {
                let with = |path: &Path| PathBuf::from(format!("{}{beside}", path.display()));
                if with(&source).is_file() {
                    std::fs::copy(with(&source), with(&present)).map_err(io(with(&source)))?;
                }
            }
            let found = authority::forgotten(&planned.id, &present, entry, point, reader, scratch.path())?;
            plan.findings.extend(found);
        }
    }
    Ok(())
}
