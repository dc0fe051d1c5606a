//! `fabkeep restore`.

use fabkeep_engine::{RestoreOptions, RestorePlan, RestoreStep, Restored, plan_restore, restore};
use fabkeep_platform::{Host, Platform};
use fabkeep_store::Repository;

use super::{done, key_files};
use crate::arguments::Restore;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

pub fn run(arguments: &Restore, output: &Output) -> Result<Code, CliError> {
    let repository = Repository::open(&arguments.repo.repo)?;
    let commit = repository.point(&arguments.point)?;
    let identity = key_files::identity(&repository, arguments.identity.identity.as_deref())?;
    let host = arguments.inventory.as_deref().map(Host::open).transpose()?;
    let platform = host.as_ref().map(|host| host as &dyn Platform);
    let options = RestoreOptions {
        to: arguments.to.clone(),
        nodes: arguments.node.clone(),
        replace: arguments.replace,
        stop: arguments.stop,
        start: arguments.start,
        overrides: arguments.r#override.clone(),
        threads: 0,
    };
    let plan = plan_restore(&repository, &commit, &identity, platform, &options)?;
    if arguments.dry_run {
        output.json(&plan);
        print_plan(&plan, output);
        output.findings(&plan.findings);
        let refused = !plan.refusals(&options.overrides).is_empty();
        return Ok(if refused { Code::Refused } else { done(&plan.findings) });
    }
    print_plan(&plan, output);
    let reporter = output.reporter();
    let restored = restore(&repository, &commit, &identity, platform, &options, reporter.as_ref())?;
    output.json(&restored);
    print(&restored, output);
    Ok(done(&restored.findings))
}

/// The plan, for people.
pub fn print_plan(plan: &RestorePlan, output: &Output) {
    output.line(format!("plan: restore {}: {} files, {}", plan.point, plan.files, units::bytes(plan.bytes)));
    for (number, step) in plan.steps.iter().enumerate() {
        let text = match step {
            RestoreStep::Stop { node } => format!("stop {node}"),
            RestoreStep::Write { node, path, files, bytes } => {
                format!("{node}: write and prove beside {} ({files} files, {})", path.display(), units::bytes(*bytes))
            }
            RestoreStep::SetAside { path, to } => {
                format!("set {} aside as {}, unless it is as captured already", path.display(), to.display())
            }
            RestoreStep::Place { path } => format!("put into place: {}", path.display()),
            RestoreStep::Start { node } => format!("start {node}"),
        };
        output.line(format!("  {:>3}. {text}", number + 1));
    }
}

/// What a restore did, for people.
pub fn print(restored: &Restored, output: &Output) {
    output.findings(&restored.findings);
    output.line(format!(
        "restored {}: {} files, {}, {}{}",
        restored.point,
        restored.files,
        units::bytes(restored.bytes),
        units::seconds(restored.seconds),
        if restored.resumed { " (went on where an earlier run stopped)" } else { "" }
    ));
    for sentence in &restored.proven {
        output.line(format!("  proven: {sentence}"));
    }
    for directory in &restored.directories {
        if let Some(aside) = &directory.set_aside {
            output.line(format!("  set aside: {} (remove it when the node runs well)", aside.display()));
        }
    }
    if !restored.started.is_empty() {
        output.line(format!("  started: {}", restored.started.join(", ")));
    }
}
