//! `fabkeep forget`.

use fabkeep_store::{ForgetPlan, KeepRules, Planned, PointId, Reason, Repository};
use serde_json::json;

use super::{key_files, list, prune};
use crate::arguments::{Forget, Keep};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Forget, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let named = &arguments.identity;
    let identity = if arguments.dry_run {
        key_files::identity_if_any(&repository, named)?
    } else {
        Some(key_files::identity(&repository, named)?)
    };
    let points = arguments.point.iter().map(|point| wanted(&repository, point)).collect::<Result<Vec<_>, _>>()?;
    let rules = rules(&arguments.keep);
    if rules.is_empty() && points.is_empty() {
        return Err(CliError::new(
            Code::Usage,
            "these rules keep nothing",
            "give at least one of the rules a number above 0, or name recovery points",
        ));
    }
    let plan = repository.plan_forget(&rules, &points, arguments.network.as_deref(), identity.as_ref())?;
    let going = plan.going();
    let mut forgotten = None;
    let mut pruned = None;
    if let (Some(identity), false) = (&identity, arguments.dry_run) {
        forgotten = repository.forget(&going, identity)?;
        if arguments.prune {
            pruned = Some(prune::prune(&repository, identity, &arguments.freeing, false)?);
        }
    }
    let findings = pruned.as_ref().map(|(_, findings)| findings.clone()).unwrap_or_default();
    output.json(&json!({
        "points": plan.points, "frees": plan.frees, "forgotten": forgotten, "dry_run": arguments.dry_run,
        "pruned": pruned.as_ref().map(|(pruned, _)| pruned), "findings": findings,
    }));
    print(&plan, output);
    let verb = if arguments.dry_run { "would be forgotten" } else { "were forgotten" };
    output.line(format!(
        "{} of {} recovery points {verb}; only they need {} in {}",
        going.len(),
        plan.points.len(),
        units::bytes(plan.frees.bytes),
        units::objects(plan.frees.objects)
    ));
    match &pruned {
        Some((pruned, findings)) => prune::print(pruned, findings, false, output),
        None if forgotten.is_some() => output.line("next: fabkeep prune"),
        None => {}
    }
    Ok(list::code(&findings))
}

/// Returns the name of a point: also of one whose commit record is damaged or gone, if the complete name is given.
fn wanted(repository: &Repository, point: &str) -> Result<PointId, CliError> {
    match (repository.point(point), PointId::parse(point)) {
        (Ok(commit), _) => Ok(commit.id),
        (Err(_), Some(point)) => Ok(point),
        (Err(error), None) => Err(error.into()),
    }
}

/// Returns the rules of the command line.
pub fn rules(keep: &Keep) -> KeepRules {
    KeepRules {
        last: keep.keep_last.unwrap_or(0),
        hourly: keep.keep_hourly.unwrap_or(0),
        daily: keep.keep_daily.unwrap_or(0),
        weekly: keep.keep_weekly.unwrap_or(0),
        monthly: keep.keep_monthly.unwrap_or(0),
        yearly: keep.keep_yearly.unwrap_or(0),
        within: keep.keep_within,
        tags: keep.keep_tag.iter().cloned().collect(),
    }
}

/// Prints what becomes of each point.
fn print(plan: &ForgetPlan, output: &Output) {
    let mut table = table(["point", "network", "", "only it needs", "why"]);
    for planned in &plan.points {
        let what = if planned.goes { "goes" } else { "stays" };
        table.add_row([
            planned.point.to_string(),
            planned.network.clone(),
            what.to_owned(),
            units::bytes(planned.own.bytes),
            why(planned),
        ]);
    }
    if !plan.points.is_empty() {
        output.line(table.to_string());
    }
}

fn why(planned: &Planned) -> String {
    if planned.reasons.is_empty() {
        return "not named".to_owned();
    }
    planned.reasons.iter().map(reason).collect::<Vec<_>>().join("; ")
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Last { number: 1 } => "the newest one".to_owned(),
        Reason::Last { number } => format!("number {number} of the newest ones"),
        Reason::Newest { of, period } => format!("the newest of its {of} ({period})"),
        Reason::Within { since } => format!("after {}", since.strftime("%Y-%m-%d %H:%M UTC")),
        Reason::Tag { tag } => format!("tag {tag}"),
        Reason::Hold => "on hold".to_owned(),
        Reason::OnlyComplete => "the last complete one of its network".to_owned(),
        Reason::NoNewerComplete => "damaged, and no newer one is complete".to_owned(),
        Reason::NoRule => "no rule keeps it".to_owned(),
        Reason::Damaged { problem } => format!("a newer one is complete, and this one is damaged: {problem}"),
        Reason::Named => "named".to_owned(),
        Reason::OtherNetwork => "another network".to_owned(),
    }
}
