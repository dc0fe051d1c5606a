//! `fabkeep restore`.

use std::collections::BTreeMap;
use std::time::Duration;

use fabkeep_engine::{
    CaKeep, ClusterTarget, GoBack, RestoreOptions, RestorePlan, RestoreStep, RestoreTarget, Restored, SetAside,
};
use fabkeep_network::{Finding, Rule, Severity};
use fabkeep_platform::Host;
use fabkeep_platform::kubernetes::Relocation;
use fabkeep_store::{Commit, Repository};

use super::{done, key_files, list};
use crate::arguments::{AnotherPlace, CaPart, Restore, Workloads};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, units};

pub fn run(arguments: &Restore, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let (commit, of_repository) = list::point(&repository, &arguments.point)?;
    output.remarks(&of_repository);
    let code = restore_point(arguments, &repository, &commit, output)?;
    // Another point than the operator thinks of may be the latest. What others have put into the repository is none.
    let of_points = |finding: &&Finding| finding.rule != Rule::RepositoryOwn || finding.severity == Severity::Error;
    let of_points: Vec<Finding> = of_repository.iter().filter(of_points).cloned().collect();
    Ok(if code == Code::Done { done(&of_points) } else { code })
}

fn restore_point(
    arguments: &Restore,
    repository: &Repository,
    commit: &Commit,
    output: &Output,
) -> Result<Code, CliError> {
    let identity = key_files::identity(repository, arguments.identity.identity.as_deref())?;
    let host = arguments.inventory.as_deref().map(Host::open).transpose()?;
    let target = target(arguments, host.as_ref())?;
    check_overrides(&arguments.r#override)?;
    let start = if let RestoreTarget::Cluster(_) = target { !arguments.no_start } else { arguments.start };
    let options = RestoreOptions {
        nodes: arguments.node.clone(),
        ledgers: arguments.ledger_from.clone(),
        replicate: arguments.replicate.clone(),
        raft_state: arguments.raft_state.into(),
        go_back: GoBack { heights: arguments.at_height.clone(), before: arguments.before },
        ca_keep: ca_keep(arguments),
        replace: arguments.replace,
        missing: arguments.missing,
        stop: arguments.stop,
        assume_stopped: arguments.assume_stopped.clone(),
        start,
        overrides: arguments.r#override.clone(),
        deadline: Duration::from_secs(arguments.deadline),
        threads: 0,
    };
    let plan = RestorePlan::make(repository, commit, &identity, &target, &options)?;
    print_plan(&plan, output);
    if arguments.dry_run {
        output.json(&plan);
        output.findings(&plan.findings);
        return Ok(if plan.refusals().is_empty() { done(&plan.findings) } else { Code::Refused });
    }
    let restored = plan.execute(output.reporter().as_ref())?;
    output.json(&restored);
    Ok(print(&restored, output))
}

/// Refuses codes that are no rule's: they would override nothing.
pub fn check_overrides(codes: &[String]) -> Result<(), CliError> {
    match codes.iter().find(|code| !Rule::ALL.iter().any(|rule| rule.code() == **code)) {
        Some(code) => Err(CliError::new(
            Code::Usage,
            format!("--override {code}: there is no such rule"),
            "name a rule by its code, as the finding does: --override B11",
        )),
        None => Ok(()),
    }
}

/// Returns the target of the restore.
fn target<'h>(arguments: &Restore, host: Option<&'h Host>) -> Result<RestoreTarget<'h>, CliError> {
    let relocation = relocation(&arguments.place)?;
    let existing_workloads = arguments.workloads == Workloads::Existing;
    let target = match (&arguments.to, host) {
        (Some(to), _) => RestoreTarget::Folder(to.clone()),
        (None, Some(host)) => RestoreTarget::Host(host),
        (None, None) if arguments.cluster.is_meant() => {
            let (address, helper) = (arguments.cluster.address(), arguments.cluster.helper());
            return Ok(RestoreTarget::Cluster(ClusterTarget { address, helper, relocation, existing_workloads }));
        }
        (None, None) => {
            return Err(CliError::new(
                Code::Usage,
                "the target is missing",
                "name a cluster (--kubernetes, --context), a folder (--to DIR) or an inventory (--inventory FILE)",
            ));
        }
    };
    let of_clusters = [
        (relocation.is_asked(), "--map-namespace, --storage-class and --registry"),
        (arguments.missing, "--missing"),
        (existing_workloads, "--workloads"),
        (arguments.no_start, "--no-start"),
    ];
    match of_clusters.into_iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(CliError::new(
            Code::Usage,
            format!("{option} applies only to a restore into a cluster"),
            "remove it, or name the cluster (--kubernetes, --context) without --to and --inventory",
        )),
        None => Ok(target),
    }
}

fn ca_keep(arguments: &Restore) -> CaKeep {
    let kept = |part| arguments.ca_keep.contains(&part);
    CaKeep { tls: kept(CaPart::Tls), config: kept(CaPart::Config) }
}

/// Returns the relocation that the arguments request.
pub fn relocation(arguments: &AnotherPlace) -> Result<Relocation, CliError> {
    let wrong = |what: String| CliError::new(Code::Usage, what, "write it as OLD=NEW");
    let mut namespaces = BTreeMap::new();
    for mapping in &arguments.map_namespace {
        let old = mapping
            .from
            .clone()
            .ok_or_else(|| wrong(format!("--map-namespace {}: the old namespace is missing", mapping.to)))?;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !mapping.to.chars().all(letters) || mapping.to.len() > 63 {
            return Err(wrong(format!("--map-namespace: {} is not a valid name of a namespace", mapping.to)));
        }
        if namespaces.values().any(|new| *new == mapping.to) || namespaces.contains_key(&old) {
            return Err(wrong(format!("--map-namespace {old}={}: one of these names is given twice", mapping.to)));
        }
        namespaces.insert(old, mapping.to.clone());
    }
    if let Some(mapping) = arguments.registry.iter().find(|mapping| mapping.from.is_none()) {
        return Err(wrong(format!("--registry {}: the old registry is missing", mapping.to)));
    }
    Ok(Relocation {
        namespaces,
        storage_classes: arguments.storage_class.clone(),
        registries: arguments.registry.clone(),
    })
}

/// Prints the plan as text.
pub fn print_plan(plan: &RestorePlan<'_>, output: &Output) {
    output.line(format!(
        "plan: restore {} into {}: {} files, {}",
        plan.point,
        plan.target,
        plan.files,
        units::bytes(plan.bytes)
    ));
    for (number, step) in plan.steps.iter().enumerate() {
        output.line(format!("  {:>3}. {}", number + 1, text(step)));
    }
    if plan.steps.is_empty() {
        output.line("  nothing to do");
    }
}

fn text(step: &RestoreStep) -> String {
    match step {
        RestoreStep::GoOn { begun, filled, started } => {
            format!(
                "continue the run that began {begun}: it has filled the volumes of {filled} nodes and started {started} workloads"
            )
        }
        RestoreStep::Suspend { object } => format!("suspend {object} until the end of the restore"),
        RestoreStep::Create { object } => format!("create {object}"),
        RestoreStep::Replace { object } => format!("replace {object}; a copy of the existing one is kept"),
        RestoreStep::Stop { node } => format!("stop {node}"),
        RestoreStep::CreateStopped { object } => format!("create {object} with 0 replicas"),
        RestoreStep::Write { node, path, files, bytes } => {
            format!("{node}: write and verify {} ({files} files, {})", path.display(), units::bytes(*bytes))
        }
        RestoreStep::Keep { node, path } => format!("{node}: keep {} as it is", path.display()),
        RestoreStep::SetAside { path, to } => {
            format!("set {} aside as {}, unless it equals the captured one", path.display(), to.display())
        }
        RestoreStep::Place { path } => format!("put into place: {}", path.display()),
        RestoreStep::Load { node, database } => {
            format!(
                "{node}: load the dump into {database} and compare; its present content is dumped or set aside first"
            )
        }
        RestoreStep::CreateLate { object } => format!("create {object} after the data is in place"),
        RestoreStep::Start { nodes } => format!("start {}", nodes.join(", then ")),
    }
}

/// Prints the result of a restore as text.
pub fn print(restored: &Restored, output: &Output) -> Code {
    output.findings(&restored.findings);
    let objects = if restored.objects > 0 { format!("{} objects, ", restored.objects) } else { String::new() };
    output.line(format!(
        "restored {} into {}: {objects}{} directories, {} files, {}, {}{}",
        restored.point,
        restored.target,
        restored.directories.len(),
        restored.files,
        units::bytes(restored.bytes),
        units::seconds(restored.seconds),
        if restored.resumed { " (continued an earlier run)" } else { "" }
    ));
    for sentence in &restored.proven {
        output.line(format!("  proven: {sentence}"));
    }
    for (node, heights) in restored.ready.iter().filter(|(_, heights)| !heights.is_empty()) {
        let heights: Vec<String> = heights.iter().map(|(channel, height)| format!("{channel} {height}")).collect();
        output.line(format!("  {node}: {}", heights.join(", ")));
    }
    for SetAside { what, to } in &restored.set_aside {
        output.line(format!("  set aside: {what} as {to} (remove it when the network works)"));
    }
    if !restored.started.is_empty() {
        output.line(format!("  started: {}", restored.started.join(", ")));
    }
    if !restored.well {
        output
            .line("the data is in place, but not everything is ready: follow the findings' advice, then run the same command again");
        return Code::Incomplete;
    }
    done(&restored.findings)
}
