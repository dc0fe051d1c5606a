//! `fabkeep prune`.

use fabkeep_engine::remark_finding;
use fabkeep_network::{Finding, Rule};
use fabkeep_store::{IdentityFile, PruneOptions, Pruned, Repository};
use serde_json::json;

use super::{key_files, list};
use crate::arguments::{Freeing, Prune};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

/// Objects that the store refused to delete which are named.
const NAMED: usize = 10;

pub fn run(arguments: &Prune, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let identity = key_files::identity(&repository, &arguments.identity)?;
    let (pruned, findings) = prune(&repository, &identity, &arguments.freeing, arguments.dry_run)?;
    output.json(&json!({"pruned": pruned, "findings": findings, "dry_run": arguments.dry_run}));
    print(&pruned, &findings, arguments.dry_run, output);
    Ok(list::code(&findings))
}

/// Prunes. Returns what was done, and what is to be looked at.
pub fn prune(
    repository: &Repository,
    identity: &IdentityFile,
    freeing: &Freeing,
    dry_run: bool,
) -> Result<(Pruned, Vec<Finding>), CliError> {
    let (alone, max_unused) = (freeing.no_other_runs, freeing.max_unused);
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let grace = if alone { Ok(jiff::SignedDuration::ZERO) } else { freeing.grace.to_duration(days) };
    let grace = grace.map_err(|_| {
        CliError::new(Code::Usage, "the grace time has no fixed length", "give it in hours, days or weeks: --grace 3d")
    })?;
    let pruned = repository.prune(identity, PruneOptions { grace, alone, max_unused, dry_run })?;
    let mut findings: Vec<Finding> = pruned.remarks.iter().map(remark_finding).collect();
    findings.extend(pruned.blocking.iter().map(|blocking| {
        Finding::error(
            Rule::NeededStays,
            format!("recovery point {}", blocking.point),
            format!("it is not known which objects it needs, so nothing was freed or recorded: {}", blocking.problem),
            format!(
                "restore its index or its manifest from a copy of the repository; or give the point up: fabkeep forget {}",
                blocking.point
            ),
        )
    }));
    findings.extend(pruned.refused.iter().take(NAMED).map(|refused| {
        Finding::warning(
            Rule::NeededStays,
            format!("repository {}", refused.object),
            format!("the store refused to delete it: {}", refused.problem),
            "if the bucket has object lock, prune again when the retention time is over; else give these credentials the right to delete",
        )
    }));
    if let Some(problem) = &pruned.repacked.problem {
        findings.push(Finding::warning(
            Rule::NeededStays,
            "repository",
            format!("not all packs of which little is needed were packed anew, and nothing is lost: {problem}"),
            "if there was no room, prune again when the recorded objects are freed; else correct what the store says",
        ));
    }
    if pruned.refused.len() > NAMED {
        findings.push(Finding::warning(
            Rule::NeededStays,
            "repository",
            format!("the store refused to delete {} further objects", pruned.refused.len() - NAMED),
            "--output json names all of them",
        ));
    }
    Ok((pruned, findings))
}

/// Prints what was done as text.
pub fn print(pruned: &Pruned, findings: &[Finding], dry_run: bool, output: &Output) {
    let amount =
        |amount: fabkeep_store::Amount| format!("{} in {}", units::bytes(amount.bytes), units::objects(amount.objects));
    let would = |did: &str, would: &str| if dry_run { would.to_owned() } else { did.to_owned() };
    output.findings(findings);
    if !pruned.blocking.is_empty() {
        return;
    }
    output.line(format!("{}: {}", would("freed", "would be freed"), amount(pruned.freed)));
    if pruned.repacked.objects > 0 {
        output.line(format!(
            "{}: {} in {}, of which recovery points need {}",
            would("packed anew", "would be packed anew"),
            units::bytes(pruned.repacked.bytes),
            units::objects(pruned.repacked.objects),
            units::bytes(pruned.repacked.needed_bytes),
        ));
    }
    if pruned.recorded.objects > 0 {
        let what = would("recorded, to be freed by a later prune", "would be recorded");
        output.line(format!("{what}: {}", amount(pruned.recorded)));
    }
    if pruned.waiting.objects > 0 {
        output
            .line(format!("recorded earlier, and not freed before the grace time is over: {}", amount(pruned.waiting)));
    }
    if pruned.young.objects > 0 {
        let what = "needed by no recovery point and written less than the grace time ago: a later prune records";
        output.line(format!("{what} {}", amount(pruned.young)));
    }
    if let Some(next) = pruned.next {
        output.line(format!("next: fabkeep prune, after {}", next.strftime("%Y-%m-%d %H:%M UTC")));
    }
}
