//! `fabkeep restore`.

use std::collections::BTreeMap;
use std::time::Duration;

use fabkeep_engine::{
    CaKeep, ClusterRestoreOptions, ClusterRestorePlan, ClusterRestored, RestoreOptions, RestorePlan, RestoreStep,
    Restored, plan_cluster_restore, plan_restore, restore, restore_cluster,
};
use fabkeep_network::{Finding, Rule, Severity};
use fabkeep_platform::Host;
use fabkeep_platform::kubernetes::Relocation;
use fabkeep_store::{Commit, IdentityFile, Repository};

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
    if arguments.cluster.is_meant() && arguments.to.is_none() && arguments.inventory.is_none() {
        return on_cluster(arguments, repository, commit, &identity, output);
    }
    if relocation(&arguments.place)?.is_asked() {
        return Err(CliError::new(
            Code::Usage,
            "--map-namespace, --storage-class and --registry go with a restore into a cluster",
            "name the cluster (--kubernetes, --context), without --to and --inventory",
        ));
    }
    if arguments.to.is_none() && arguments.inventory.is_none() {
        return Err(CliError::new(
            Code::Usage,
            "where to?",
            "name a cluster (--kubernetes, --context), a folder (--to DIR) or an inventory (--inventory FILE)",
        ));
    }
    let host = arguments.inventory.as_deref().map(Host::open).transpose()?;
    let platform = host.as_ref();
    let options = RestoreOptions {
        to: arguments.to.clone(),
        nodes: arguments.node.clone(),
        ledgers: arguments.ledger_from.clone(),
        replicate: arguments.replicate.clone(),
        raft_state: arguments.raft_state.into(),
        ca_keep: ca_keep(arguments),
        replace: arguments.replace,
        stop: arguments.stop,
        assume_stopped: arguments.assume_stopped.clone(),
        start: arguments.start,
        overrides: arguments.r#override.clone(),
        threads: 0,
    };
    let plan = plan_restore(repository, commit, &identity, platform, &options)?;
    if arguments.dry_run {
        output.json(&plan);
        print_plan(&plan, output);
        output.findings(&plan.findings);
        let refused = !plan.refusals(&options.overrides).is_empty();
        return Ok(if refused { Code::Refused } else { done(&plan.findings) });
    }
    print_plan(&plan, output);
    let reporter = output.reporter();
    let restored = restore(repository, commit, &identity, platform, &options, reporter.as_ref())?;
    output.json(&restored);
    print(&restored, output);
    Ok(done(&restored.findings))
}

fn ca_keep(arguments: &Restore) -> CaKeep {
    let kept = |part| arguments.ca_keep.contains(&part);
    CaKeep { tls: kept(CaPart::Tls), config: kept(CaPart::Config) }
}

/// Where what was captured goes, as the arguments say.
pub fn relocation(arguments: &AnotherPlace) -> Result<Relocation, CliError> {
    let wrong = |what: String| CliError::new(Code::Usage, what, "write it as OLD=NEW");
    let mut namespaces = BTreeMap::new();
    for mapping in &arguments.map_namespace {
        let old = mapping.from.clone().ok_or_else(|| wrong(format!("--map-namespace {}: which one?", mapping.to)))?;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !mapping.to.chars().all(letters) || mapping.to.len() > 63 {
            return Err(wrong(format!("--map-namespace: {} is no name for a namespace", mapping.to)));
        }
        if namespaces.values().any(|new| *new == mapping.to) || namespaces.contains_key(&old) {
            return Err(wrong(format!("--map-namespace {old}={}: one of the two is named twice", mapping.to)));
        }
        namespaces.insert(old, mapping.to.clone());
    }
    if let Some(mapping) = arguments.registry.iter().find(|mapping| mapping.from.is_none()) {
        return Err(wrong(format!("--registry {}: which one does it replace?", mapping.to)));
    }
    Ok(Relocation {
        namespaces,
        storage_classes: arguments.storage_class.clone(),
        registries: arguments.registry.clone(),
    })
}

fn on_cluster(
    arguments: &Restore,
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    output: &Output,
) -> Result<Code, CliError> {
    let options = ClusterRestoreOptions {
        address: arguments.cluster.address(),
        helper: arguments.cluster.helper(),
        nodes: arguments.node.clone(),
        ledgers: arguments.ledger_from.clone(),
        replicate: arguments.replicate.clone(),
        raft_state: arguments.raft_state.into(),
        ca_keep: ca_keep(arguments),
        relocation: relocation(&arguments.place)?,
        replace: arguments.replace,
        missing: arguments.missing,
        existing_workloads: arguments.workloads == Workloads::Existing,
        no_start: arguments.no_start,
        overrides: arguments.r#override.clone(),
        deadline: Duration::from_secs(arguments.deadline),
    };
    if arguments.dry_run {
        let plan = plan_cluster_restore(repository, commit, identity, &options)?;
        output.json(&plan);
        print_cluster_plan(&plan, output);
        output.findings(&plan.findings);
        let refused = !plan.refusals(&options.overrides).is_empty();
        return Ok(if refused { Code::Refused } else { done(&plan.findings) });
    }
    let reporter = output.reporter();
    let mut shown = |plan: &ClusterRestorePlan| print_cluster_plan(plan, output);
    let restored = restore_cluster(repository, commit, identity, &options, &mut shown, reporter.as_ref())?;
    output.json(&restored);
    Ok(print_cluster(&restored, output))
}

/// What a restore into a cluster did, for people.
pub fn print_cluster(restored: &ClusterRestored, output: &Output) -> Code {
    output.findings(&restored.findings);
    output.line(format!(
        "restored {} into {}: {} objects, {} directories, {}",
        restored.point,
        restored.cluster,
        restored.objects,
        restored.directories.len(),
        units::seconds(restored.seconds)
    ));
    for sentence in &restored.proven {
        output.line(format!("  proven: {sentence}"));
    }
    for (node, heights) in restored.ready.iter().filter(|(_, heights)| !heights.is_empty()) {
        let heights: Vec<String> = heights.iter().map(|(channel, height)| format!("{channel} {height}")).collect();
        output.line(format!("  {node}: {}", heights.join(", ")));
    }
    for aside in &restored.set_aside {
        output.line(format!("  set aside: {aside} (remove it when the network runs well)"));
    }
    if !restored.well {
        output
            .line("not everything is well: the data is in place; settle the findings, then run the same command again");
        return Code::Incomplete;
    }
    done(&restored.findings)
}

/// The plan of a restore into a cluster, for people.
pub fn print_cluster_plan(plan: &ClusterRestorePlan, output: &Output) {
    output.line(format!("plan: restore {} into {}: {}", plan.point, plan.cluster, units::bytes(plan.bytes)));
    for (number, step) in plan.steps.iter().enumerate() {
        output.line(format!("  {:>3}. {}: {}", number + 1, step.step, step.subject));
    }
    if plan.steps.is_empty() {
        output.line("  nothing is missing");
    }
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
            RestoreStep::Keep { node, path } => format!("{node}: keep {} as it is", path.display()),
            RestoreStep::SetAside { path, to } => {
                format!("set {} aside as {}, unless it is as captured already", path.display(), to.display())
            }
            RestoreStep::Place { path } => format!("put into place: {}", path.display()),
            RestoreStep::Load { node, database } => {
                format!("{node}: load the dump into {database}; what it holds is dumped beside before")
            }
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
