//! `fabkeep drill`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use fabkeep_engine::{
    DrillCluster, DrillOptions, DrillPlace, Drilled, EngineError, GoBack, RestoreOptions, drill, plan_drill,
};
use fabkeep_platform::Host;
use fabkeep_platform::kubernetes::{ClusterAddress, HelperOptions};
use fabkeep_store::{Commit, DrillResult, Repository, Signer};
use serde_json::json;

use super::{done, key_files, list, restore};
use crate::arguments::Drill;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

pub fn run(arguments: &Drill, output: &Output) -> Result<Code, CliError> {
    restore::check_overrides(&arguments.r#override)?;
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let commit = point(arguments, &repository, output)?;
    let identity = key_files::identity(&repository, &arguments.identity)?;
    let host = arguments.folder.inventory.as_deref().map(Host::open).transpose()?;
    let place = place(arguments, &repository, host.as_ref())?;
    let options = options(arguments)?;
    if arguments.dry_run {
        let (plan, namespaces) = plan_drill(&repository, &commit, &identity, &place, &options)?;
        restore::print_plan(&plan, output);
        if !namespaces.is_empty() {
            output.line(format!("  in the scratch namespaces {}, which are removed at the end", namespaces.join(", ")));
        }
        output.json(&plan);
        output.findings(&plan.findings);
        return Ok(if plan.refusals().is_empty() { done(&plan.findings) } else { Code::Refused });
    }
    let drilled = drill(&repository, &commit, &identity, &place, &options, output.reporter().as_ref())?;
    let record = record(arguments, &repository, &identity, &drilled);
    report(arguments, drilled, record, output)
}

/// Returns the recovery point.
fn point(arguments: &Drill, repository: &Repository, output: &Output) -> Result<Commit, CliError> {
    if !arguments.random {
        let (commit, of_repository) = list::point(repository, &arguments.point)?;
        output.remarks(&of_repository);
        return Ok(commit);
    }
    let mut commits = repository.history()?.commits;
    if commits.is_empty() {
        return Err(CliError::new(Code::Usage, "the repository has no recovery point", "make one: fabkeep backup"));
    }
    // Its keys are random; nobody gains anything by guessing the choice.
    let chosen = RandomState::new().build_hasher().finish() % commits.len() as u64;
    Ok(commits.swap_remove(usize::try_from(chosen).unwrap_or_default()))
}

/// Returns where the drill restores.
fn place<'h>(arguments: &Drill, repository: &Repository, host: Option<&'h Host>) -> Result<DrillPlace<'h>, CliError> {
    let scratch = &arguments.scratch;
    let address = ClusterAddress { kubeconfig: scratch.kubeconfig.clone(), context: scratch.context.clone() };
    let is_cluster = scratch.kubernetes || scratch.kubeconfig.is_some() || scratch.context.is_some();
    if !is_cluster && host.is_none() && arguments.folder.to.is_none() {
        return Err(CliError::new(
            Code::Usage,
            "it is not said where to drill",
            "name a cluster (--kubernetes, --context), an inventory of hosts (--inventory FILE) or a folder (--to DIR)",
        ));
    }
    if !is_cluster {
        let beside =
            || repository.folder().and_then(|folder| std::path::absolute(folder).ok()?.parent().map(PathBuf::from));
        let parent = arguments.folder.to.clone().or_else(beside).unwrap_or_else(std::env::temp_dir);
        return Ok(DrillPlace::Folder { parent, living: host.map(|host| host as _) });
    }
    let living = match &scratch.live_context {
        Some(context) => ClusterAddress { context: Some(context.clone()), ..address.clone() },
        None => address.clone(),
    };
    Ok(DrillPlace::Cluster(Box::new(DrillCluster {
        living,
        helper: HelperOptions { image: scratch.helper_image.clone(), ..HelperOptions::default() },
        storage_classes: scratch.storage_class.clone(),
        registries: scratch.registry.clone(),
        unfenced: scratch.allow_unfenced,
        ..DrillCluster::new(address, &scratch.prefix)
    })))
}

fn options(arguments: &Drill) -> Result<DrillOptions, CliError> {
    Ok(DrillOptions {
        restore: RestoreOptions {
            go_back: GoBack { heights: arguments.at_height.clone(), before: arguments.before },
            raft_state: arguments.raft_state.into(),
            overrides: arguments.r#override.clone(),
            deadline: Duration::from_secs(arguments.deadline),
            ..RestoreOptions::default()
        },
        check: arguments.check.clone(),
        keep: arguments.keep,
        max_rto: arguments.max_rto.map(|span| duration("--max-rto", span)).transpose()?,
        max_rpo: arguments.max_rpo.map(|span| duration("--max-rpo", span)).transpose()?,
    })
}

fn duration(option: &str, span: jiff::Span) -> Result<Duration, CliError> {
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok();
    length.and_then(|length| Duration::try_from(length).ok()).ok_or_else(|| {
        CliError::new(
            Code::Usage,
            format!("{option}: this time has no fixed length"),
            format!("give it in seconds, minutes, hours or days: {option} 15m"),
        )
    })
}

/// Records the drill; the problem otherwise.
fn record(
    arguments: &Drill,
    repository: &Repository,
    identity: &fabkeep_store::IdentityFile,
    drilled: &Drilled,
) -> Result<String, String> {
    let by_identity = repository.record_drill(&drilled.drill, &Signer::Identity(identity));
    let problem = match by_identity {
        Ok(name) => return Ok(name),
        Err(error) => error.to_string(),
    };
    match key_files::writer_if_any(repository, arguments.writer.as_deref()) {
        Some(writer) => {
            repository.record_drill(&drilled.drill, &Signer::Writer(&writer)).map_err(|error| error.to_string())
        }
        None => Err(problem),
    }
}

/// Prints what came of it.
fn report(
    arguments: &Drill,
    mut drilled: Drilled,
    record: Result<String, String>,
    output: &Output,
) -> Result<Code, CliError> {
    let removal = removal(arguments, &drilled);
    let error = drilled.error.take().map(|error| CliError::from(unwrapped(error)));
    let code = code(&drilled, error.as_ref(), record.is_ok());
    // A person reads its message among the problems.
    let (refusals, help) = error.map(|error| (error.findings, error.help)).unwrap_or_default();
    let Drilled { drill, findings, over, namespaces, folder, left, kept, .. } = drilled;
    output.json(&json!({
        "drill": drill, "record": record.as_ref().ok(), "not_recorded": record.as_ref().err(), "findings": findings,
        "refusals": refusals, "over": over, "namespaces": namespaces, "folder": folder, "left": left, "kept": kept,
        "removal": removal, "exit_code": code as u8,
    }));
    output.findings(&findings);
    output.findings(&refusals);
    output.line(format!("drill {}: {} in {}", drill.result.to_string().to_uppercase(), drill.point, drill.place));
    for stage in drill.stages.iter().filter(|stage| stage.seconds >= 0.05) {
        output.line(format!("  {:>12}  {}", units::seconds(stage.seconds), stage.name));
    }
    let blocks: Vec<String> = drill.rpo_blocks.iter().map(|(channel, blocks)| format!("{channel} {blocks}")).collect();
    let blocks = if blocks.is_empty() { String::new() } else { format!("; blocks since then: {}", blocks.join(", ")) };
    output.line(format!(
        "  RTO {} for {}, RPO {}{blocks}",
        units::seconds(drill.rto_seconds),
        units::bytes(drill.bytes),
        age(drill.rpo_seconds)
    ));
    // Findings that forbade it are printed with what to do.
    if refusals.is_empty() {
        drill.problems.iter().for_each(|sentence| output.line(format!("  PROBLEM: {sentence}")));
    }
    drill.proven.iter().for_each(|sentence| output.line(format!("  proven: {sentence}")));
    drill.not_proven.iter().for_each(|sentence| output.line(format!("  not proven: {sentence}")));
    left.iter().for_each(|thing| output.line(format!("  LEFT: {thing}")));
    match (kept, &removal) {
        (true, Some(removal)) => output.line(format!("  left as asked; remove it with: {removal}")),
        (false, Some(removal)) => output.line(format!("  remove what is left with: {removal}")),
        _ => {}
    }
    match &record {
        Ok(name) => output.line(format!("  recorded as {name}")),
        Err(problem) => output.line(format!("  NOT RECORDED: {problem}")),
    }
    if let Some(help) = help {
        output.line(format!("  next: {help}"));
    }
    Ok(code)
}

/// Returns the command that removes what is left.
fn removal(arguments: &Drill, drilled: &Drilled) -> Option<String> {
    if !drilled.kept && drilled.left.is_empty() {
        return None;
    }
    if let Some(parent) = drilled.folder.as_ref().and_then(|folder| folder.parent()) {
        return Some(format!("fabkeep clean --folder {}", parent.display()));
    }
    let mut command = "fabkeep clean".to_owned();
    for name in &drilled.namespaces {
        command += &format!(" --namespace {name}");
    }
    if let Some(file) = &arguments.scratch.kubeconfig {
        command += &format!(" --kubeconfig {}", file.display());
    }
    if let Some(context) = &arguments.scratch.context {
        command += &format!(" --context {context}");
    }
    Some(command)
}

/// Returns what an error is about: what was done until then is removed.
fn unwrapped(error: EngineError) -> EngineError {
    match error {
        EngineError::Interrupted { source, .. } => unwrapped(*source),
        EngineError::ProofFailed { source, .. } => EngineError::Differs(source),
        other => other,
    }
}

/// What a drill ends with: what is wrong with the point counts most, then what is left.
fn code(drilled: &Drilled, error: Option<&CliError>, is_recorded: bool) -> Code {
    match drilled.drill.result {
        DrillResult::Interrupted => Code::Interrupted,
        DrillResult::Refused => Code::Refused,
        DrillResult::Unproven => Code::Unproven,
        DrillResult::Failed | DrillResult::Unknown => error.map_or(Code::Failed, CliError::exit_code),
        DrillResult::OverLimit | DrillResult::Proven if !drilled.left.is_empty() => Code::Incomplete,
        DrillResult::OverLimit | DrillResult::Proven if !is_recorded => Code::Failed,
        DrillResult::OverLimit => Code::OverLimit,
        DrillResult::Proven => done(&drilled.findings),
    }
}

/// Returns an age: `42.00 s`, `3 h 20 min`, `2 d 4 h`.
pub fn age(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..3600 => units::seconds(seconds),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_limits_are_read_and_written() {
        assert_eq!(age(5.0), "5.00 s");
        assert_eq!(age(3600.0 * 3.0 + 1200.0), "3 h 20 min");
        assert_eq!(age(86_400.0 * 2.0 + 3600.0 * 4.0), "2 d 4 h");
        let limit = |text: &str| duration("--max-rto", text.parse().unwrap());
        assert_eq!(limit("15m").unwrap(), Duration::from_secs(900));
        assert_eq!(limit("1d").unwrap(), Duration::from_secs(86_400));
        assert!(limit("1mo").is_err() && limit("-1m").is_err());
    }
}
