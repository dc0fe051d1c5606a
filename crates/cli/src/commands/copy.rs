//! `fabkeep copy`: copies recovery points to another location, without the identity.

use std::sync::atomic::AtomicU64;

use fabkeep_engine::cores;
use fabkeep_store::copy;
use serde_json::json;

use super::{key_files, list};
use crate::arguments::Copy;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

pub fn run(arguments: &Copy, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let history = repository.history()?;
    let mut points = Vec::new();
    for wanted in &arguments.point {
        points.push(repository.point(wanted)?);
    }
    // In the order of commits: a copy that is stopped is the repository as it once was.
    let chosen = |id| points.is_empty() || points.iter().any(|point| point.id == id);
    let commits: Vec<_> = history.commits.iter().filter(|commit| chosen(commit.id.clone())).cloned().collect();
    let findings = list::findings(&repository, &history, None, None)?;
    let copied = copy(&repository, &arguments.to, &commits, cores(), &AtomicU64::new(0))?;
    output.json(&json!({
        "points": copied.points, "left": copied.left, "forgotten": copied.forgotten, "objects": copied.objects, "bytes": copied.bytes, "faults": copied.faults,
        "findings": findings,
    }));
    output.line(format!(
        "{} of {} recovery points are in {}: {}, {} copied by this run",
        copied.points.len(),
        commits.len(),
        arguments.to,
        units::objects(copied.objects),
        units::bytes(copied.bytes)
    ));
    for fault in &copied.faults {
        output.line(match &fault.instead {
            None => format!("  not copied: {}: {}", fault.object, fault.problem),
            Some(instead) => format!(
                "  not copied: {}: {}; everything of it was stored again, and that was copied: {}",
                fault.object,
                fault.problem,
                instead.join(", ")
            ),
        });
    }
    if !copied.forgotten.is_empty() {
        let names: Vec<String> = copied.forgotten.iter().map(ToString::to_string).collect();
        output.line(format!("forgotten in {} and not copied again: {}", arguments.to, names.join(", ")));
    }
    output.findings(&findings);
    if copied.left.is_empty() {
        output.line(format!(
            "objects that were there before this run were compared by their sizes and not read; next: fabkeep verify --all --repo {} reads everything",
            arguments.to
        ));
        let healed = !copied.faults.is_empty();
        return Ok(match list::code(&findings) {
            Code::Done if healed => Code::DoneWithFindings,
            code => code,
        });
    }
    let left: Vec<String> = copied.left.iter().map(ToString::to_string).collect();
    output.line(format!(
        "not copied, for the reasons above: {}; `fabkeep verify --all` says what is damaged here",
        left.join(", ")
    ));
    Ok(Code::Damaged)
}
