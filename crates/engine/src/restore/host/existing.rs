//! Reads the existing data of hosts before it is replaced: files that certificate authorities keep, databases that are compared.

use std::path::PathBuf;

use fabkeep_ledger::layout::{DirectoryRole, NodeRole};
use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_platform::{HostVolume, Platform};
use fabkeep_store::PointReader;

use super::plan::{Plan, PlannedDirectory};
use crate::EngineError;
use crate::content::Contents;
use crate::point::CapturedDirectory;
use crate::restore::ca::forgotten;
use crate::restore::ca::keep::{self as ca_keep, ExistingFiles, KeptFiles};
use crate::restore::existing::{Existing, authority_files};
use crate::restore::progress::Record;
use crate::restore::{RestoreOptions, taken_away};
use crate::transform::Transformed;

/// Leaves to certificate authorities what of theirs is there and is to stay.
pub(super) fn keep(
    plan: &mut Plan<'_>,
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
        let known = plan.places.host().and_then(|host| host.network().node(&planned.id));
        let environment = known.map(|node| node.environment.clone()).unwrap_or_default();
        let kept = ca_keep::decide(node, captured, &environment, &known_as, &present, &contents, options.ca_keep)?;
        decided.push((index, kept));
    }
    drop(contents);
    for (index, kept) in decided {
        let planned = &mut plan.directories[index];
        let node = &mut transformed.point.nodes[planned.node];
        ca_keep::leave_out(&mut node.directories[planned.directory], Some(&mut node.facts), &kept);
        let KeptFiles { files, findings, fits } = kept;
        plan.findings.extend(findings);
        (planned.kept, planned.fits) = (files, fits);
    }
    for index in whole.into_iter().rev() {
        let planned = plan.directories.remove(index);
        plan.findings.push(Finding::note(
            Rule::CaKept,
            &planned.id,
            format!("its TLS directory {} is kept", planned.staging.place.display()),
            Remedy::CaKeepAsked,
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
) -> Result<ExistingFiles, EngineError> {
    let staging = &planned.staging;
    let asides = earlier.into_iter().flat_map(|earlier| earlier.asides(index));
    let mut roots: Vec<(PathBuf, &str)> = asides
        .filter_map(|(region, to)| Some((to.to_path_buf(), staging.regions.get(region)?.root.as_str())))
        .collect();
    if earlier.is_none_or(|earlier| !earlier.has_aside(index)) {
        roots.push((staging.place.clone(), ""));
    }
    let mut out = ExistingFiles::new();
    for (root, below) in roots.into_iter().filter(|(root, _)| root.is_dir()) {
        let (volume, label) = (HostVolume::new(root.clone()).following_links(), root.display().to_string());
        let found = authority_files(captured, &volume, &label, below, &|path| staging.is_part(path))?;
        for (path, file) in found {
            out.entry(path).or_insert(file);
        }
    }
    Ok(out)
}

/// What is there against what comes: what would be taken away, and what certificate authorities would have forgotten.
pub(super) fn compare(
    plan: &mut Plan<'_>,
    transformed: &Transformed,
    reader: &PointReader<'_>,
    options: &RestoreOptions,
    record: &Record,
) -> Result<(), EngineError> {
    let point = &transformed.point;
    let (mut findings, mut higher) = (Vec::new(), Vec::new());
    for (index, planned) in plan.directories.iter().enumerate().filter(|(_, planned)| planned.occupied) {
        if planned.equal || record.is_settled(index) || record.has_aside(index) {
            continue;
        }
        let node = &point.nodes[planned.node];
        let existing = Existing {
            node,
            captured: &node.directories[planned.directory],
            volume: &HostVolume::new(planned.staging.place.clone()).following_links(),
            label: planned.staging.place.display().to_string(),
            is_part: &|path| planned.staging.is_part(path),
            kept: &planned.kept,
        };
        findings.extend(forgotten::in_files(&existing, point, reader)?);
        if options.replace && !record.is_switching(index) {
            let taken = taken_away::judge(&existing, options, reader.names())?;
            findings.extend(taken.finding);
            higher.extend(taken.higher);
        }
    }
    let host = plan.places.host().map(|host| host as &dyn Platform);
    findings.extend(taken_away::lost_blocks(&transformed.nodes, host, higher, &options.go_back));
    plan.findings.extend(findings);
    Ok(())
}
