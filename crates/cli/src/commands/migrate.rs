//! `fabkeep migrate`: moves a network to another place. Everything that can be refused is refused before anything is stopped; the source
//! stays stopped.

use std::time::Duration;

use fabkeep_engine::{
    CaptureOptions, ClusterTarget, Consistency, EngineError, RecoveryPoint, RestoreOptions, RestorePlan, RestoreTarget,
    WindowOptions, capture, resume,
};
use fabkeep_platform::Host;
use fabkeep_platform::kubernetes::{ClusterAddress, Relocation};
use serde_json::json;

use super::restore::{check_overrides, print, print_plan, relocation};
use super::{backup, done, key_files, network};
use crate::arguments::Migrate;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn run(arguments: &Migrate, output: &Output) -> Result<Code, CliError> {
    let options = stopping(arguments)?;
    let relocation = relocation(&arguments.place)?;
    check_overrides(&arguments.r#override)?;
    let host = match &arguments.to_inventory {
        Some(_) if relocation.is_asked() => {
            return Err(CliError::new(
                Code::Usage,
                "--map-namespace, --storage-class and --registry apply only to a cluster as target",
                "remove them, or name the target cluster (--to-context)",
            ));
        }
        Some(inventory) => Some(Host::open(inventory)?),
        None => None,
    };
    let target = match &host {
        Some(host) => RestoreTarget::Host(host),
        None => RestoreTarget::Cluster(cluster(arguments, relocation)?),
    };
    let to = RestoreOptions {
        start: true,
        raft_state: arguments.raft_state.into(),
        overrides: arguments.r#override.clone(),
        deadline: Duration::from_secs(arguments.deadline),
        ..RestoreOptions::default()
    };
    let source = network::open(&arguments.source)?;
    let source = source.as_ref();
    let repository = key_files::open(&arguments.repo.repo, None)?;
    let identity = key_files::identity(&repository, &arguments.identity)?;
    let writer = || key_files::writer(&repository, arguments.writer.as_deref());
    let reporter = output.reporter();
    if let Some(open) = source.window()?.open {
        let history = repository.history()?;
        let newest = history.commits.iter().rev().find(|known| known.summary.network == source.network().name);
        // Only what was captured behind the stop is all of the source: the newest point was, or was made before it.
        let captured = match newest {
            Some(commit) => {
                let (point, _) = repository.read_point::<RecoveryPoint>(commit, &identity)?;
                point.window.is_some_and(|window| window.stays_closed).then_some(commit)
            }
            None => None,
        };
        let help = match captured {
            Some(point) => format!(
                "after an interrupted migration `fabkeep restore {}` with the target's options continues it, or `fabkeep resume` starts the source again",
                point.id
            ),
            None => "an interrupted migration has stopped the source and has not captured it since: no recovery point has its last transactions; `fabkeep resume` starts it again, then run the migration again".to_owned(),
        };
        return Err(CliError::new(
            Code::Refused,
            format!("the source has been in a no-transaction window since {} (opened by {})", open.begun, open.by),
            help,
        ));
    }

    output.line("1 of 3: capture while the source runs, without stopping anything");
    let first = capture(source, &repository, writer()?, &CaptureOptions::default(), reporter.as_ref())?;
    backup::print(&first, output);
    let plan = RestorePlan::make(&repository, &first.commit, &identity, &target, &to)?;
    print_plan(&plan, output);
    output.findings(&plan.findings);
    let refusals = plan.refusals();
    if !refusals.is_empty() {
        return Err(EngineError::Precondition(refusals).into());
    }
    if arguments.dry_run {
        output.json(&json!({"point": first.commit.id, "findings": plan.findings}));
        return Ok(done(&plan.findings));
    }

    output.line("2 of 3: stop the source at one height, and capture the difference");
    let consistency = Consistency::Window(options);
    let last = CaptureOptions { consistency, ..CaptureOptions::default() };
    let captured = capture(source, &repository, writer()?, &last, reporter.as_ref())?;
    backup::print(&captured, output);

    output.line("3 of 3: restore and verify in the target; the source stays stopped");
    let point = captured.commit.id.to_string();
    let restored = RestorePlan::make(&repository, &captured.commit, &identity, &target, &to)
        .and_then(|plan| plan.execute(reporter.as_ref()));
    let reported = |what: &str| {
        output.line(format!(
            "{what}: the source is stopped and its data is unchanged; `fabkeep resume` with the source's options starts it again, \
             `fabkeep restore {point}` with the target's options continues"
        ));
    };
    match restored {
        Err(error) => {
            let error = CliError::from(error);
            // A refusal has changed nothing in the target: the source is started again.
            if error.exit_code() == Code::Refused {
                resume(source, None, reporter.as_ref())?;
                output.line("the target refused: the source runs again");
            } else {
                reported("the restore failed");
            }
            Err(error)
        }
        Ok(restored) => {
            output.json(&restored);
            let code = print(&restored, output);
            if code == Code::Incomplete {
                reported("not everything is ready in the target");
                return Ok(code);
            }
            output.line(format!(
                "moved: {point} runs in the target. The source is stopped and keeps its data until you remove it; do not start it while the target runs"
            ));
            Ok(code)
        }
    }
}

/// Returns the window in which the source is stopped, and stays so.
fn stopping(arguments: &Migrate) -> Result<WindowOptions, CliError> {
    let wrong = |what| {
        Err(CliError::new(
            Code::Usage,
            what,
            "a migration always stops the nodes; --quiesce can add hook, scale or fence",
        ))
    };
    let mut options = match backup::consistency(&arguments.window)? {
        Consistency::Cut { .. } => return wrong("--consistency cut cannot be used for a migration"),
        Consistency::Window(options) => options,
        Consistency::AsRead => WindowOptions {
            quiesce: fabkeep_platform::Quiesce::default(),
            deadline: Duration::from_secs(arguments.window.window_deadline),
            settle: arguments.window.settle.map(Duration::from_secs_f64),
            extend: true,
            stay_closed: true,
        },
    };
    options.quiesce.stop = true;
    options.stay_closed = true;
    Ok(options)
}

/// Returns the target, if it is a cluster.
fn cluster(arguments: &Migrate, relocation: Relocation) -> Result<ClusterTarget, CliError> {
    let own = arguments.source.cluster.address();
    let named = arguments.to_context.is_some() || arguments.to_kubeconfig.is_some();
    if !named && relocation.namespaces.is_empty() {
        return Err(CliError::new(
            Code::Usage,
            "the target is missing",
            "name a cluster (--to-context, --to-kubeconfig), other namespaces (--map-namespace OLD=NEW) or hosts (--to-inventory FILE)",
        ));
    }
    let address = ClusterAddress {
        kubeconfig: arguments.to_kubeconfig.clone().or(own.kubeconfig),
        context: if named { arguments.to_context.clone() } else { own.context },
    };
    let helper = arguments.source.cluster.helper();
    Ok(ClusterTarget { address, helper, relocation, ..ClusterTarget::default() })
}
