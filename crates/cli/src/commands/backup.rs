//! `fabkeep backup`.

use std::time::Duration;

use fabkeep_engine::{
    CaptureOptions, CapturePlan, Captured, Consistency, Volumes, WindowOptions, capture, plan_capture,
};
use fabkeep_network::Severity;
use fabkeep_platform::Hook;
use serde_json::json;

use super::show::{print_snapshots, print_window};
use super::{done, key_files, network};
use crate::arguments::{Backup, Consistency as Asked, OnGrowth, Quiesce, Volumes as AskedVolumes, Window};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Backup, output: &Output) -> Result<Code, CliError> {
    let consistency = consistency(&arguments.window)?;
    let platform = network::open(&arguments.place)?;
    let platform = platform.as_ref();
    let options = CaptureOptions {
        include_derived: arguments.include_derived,
        without_raft_logs: arguments.without_raft_logs,
        reread: arguments.reread,
        exclude: arguments.exclude.clone(),
        work_folder: arguments.work_dir.clone(),
        volumes: match arguments.volumes {
            AskedVolumes::Stream => Volumes::Stream,
            AskedVolumes::Snapshot => Volumes::Snapshot,
            AskedVolumes::Auto => Volumes::Auto,
        },
        keep_snapshots: kept(arguments)?,
        copy_databases: arguments.copy_databases,
        live_attempts: arguments.live_attempts,
        consistency,
        ..CaptureOptions::default()
    };
    if arguments.dry_run {
        let plan = plan_capture(platform, &options)?;
        output.json(&plan);
        print_plan(&plan, &arguments.repo.repo, output);
        let refused = plan.findings.iter().any(|finding| finding.severity == Severity::Error);
        return Ok(if refused { Code::Refused } else { done(&plan.findings) });
    }
    let repository = key_files::open(&arguments.repo.repo, None)?;
    let key = key_files::writer(&repository, arguments.writer.as_deref())?;
    let reporter = output.reporter();
    let captured = capture(platform, &repository, key, &options, reporter.as_ref())?;
    output.json(&report(&captured));
    print(&captured, output);
    let code = worst(&captured);
    Ok(if arguments.accept_warnings && code == Code::DoneWithFindings { Code::Done } else { code })
}

/// Returns for how many recovery points snapshots are kept.
fn kept(arguments: &Backup) -> Result<Option<usize>, CliError> {
    if arguments.keep_snapshots.is_some() && arguments.volumes == AskedVolumes::Stream {
        return Err(CliError::new(
            Code::Usage,
            "--keep-snapshots needs a backup that takes snapshots",
            "add --volumes snapshot or --volumes auto",
        ));
    }
    Ok(arguments.keep_snapshots)
}

/// Returns the exit code for findings of the point and of the repository.
fn worst(captured: &Captured) -> Code {
    let all: Vec<_> = captured.point.findings.iter().chain(&captured.repository).cloned().collect();
    done(&all)
}

/// Returns the consistency mode that the arguments request.
pub fn consistency(window: &Window) -> Result<Consistency, CliError> {
    let has = |mode: Quiesce| window.quiesce.contains(&mode);
    let wrong = |what: &str, next: &str| Err(CliError::new(Code::Usage, what, next));
    if has(Quiesce::None) && window.quiesce.len() > 1 {
        return wrong("--quiesce none cannot be combined with another mode", "remove none, or all other modes");
    }
    let hook = window.hook_before.clone().zip(window.hook_after.clone());
    if has(Quiesce::Hook) != hook.is_some() {
        return wrong(
            "--quiesce hook, --hook-before and --hook-after must be given together",
            "name the command that stops transactions and the one that lets them continue",
        );
    }
    if has(Quiesce::Scale) == window.client.is_empty() {
        return wrong(
            "--quiesce scale and --client must be given together",
            "name the workloads that send transactions: --client NAMESPACE/NAME",
        );
    }
    if window.settle.is_some_and(|settle| !(0.0..=3600.0).contains(&settle)) {
        return wrong(
            "--settle takes 0 to 3600 seconds",
            "use at least the BatchTimeout of the channels, usually 2 seconds",
        );
    }
    let closed = !window.quiesce.is_empty() && !has(Quiesce::None);
    let options = closed.then(|| WindowOptions {
        quiesce: fabkeep_platform::Quiesce {
            hook: hook.map(|(before, after)| Hook { before, after }),
            scale: window.client.clone(),
            fence: has(Quiesce::Fence),
            stop: has(Quiesce::Stop),
        },
        deadline: Duration::from_secs(window.window_deadline),
        settle: window.settle.map(Duration::from_secs_f64),
        extend: window.on_growth == OnGrowth::Extend,
        stay_closed: false,
    });
    Ok(match (window.consistency, options) {
        (Asked::Cut, fallback) => Consistency::Cut { fallback },
        (Asked::AsRead, Some(options)) => Consistency::Window(options),
        (Asked::AsRead, None) => Consistency::AsRead,
    })
}

/// Returns the result of a backup, as JSON.
pub fn report(captured: &Captured) -> serde_json::Value {
    json!({
        "point": captured.commit.id,
        "verdict": captured.commit.summary.verdict,
        "network": captured.point.network,
        "channels": captured.commit.summary.channels,
        "nodes": captured.commit.summary.nodes,
        "source_bytes": captured.commit.summary.source_bytes,
        "read_bytes": captured.read_bytes,
        "written": captured.stats,
        "window": captured.point.window,
        "snapshots": captured.point.snapshots,
        "findings": captured.point.findings,
        "repository": captured.repository,
        "seconds": captured.seconds,
    })
}

/// Prints the result of a backup as text.
pub fn print(captured: &Captured, output: &Output) {
    output.findings(&captured.point.findings);
    output.findings(&captured.repository);
    let summary = &captured.commit.summary;
    let channels: Vec<String> =
        summary.channels.iter().map(|channel| format!("{} {}", channel.channel, channel.height)).collect();
    output.line(format!("recovery point {}: {}", captured.commit.id, summary.verdict));
    output.line(format!("  {} nodes, heights: {}", summary.nodes, channels.join(", ")));
    if let Some(window) = &captured.point.window {
        print_window(window, output);
    }
    if let Some(snapshots) = &captured.point.snapshots {
        print_snapshots(snapshots, output);
    }
    output.line(format!(
        "  {} of files, {} read, {} written in {}, {}",
        units::bytes(summary.source_bytes),
        units::bytes(captured.read_bytes),
        units::bytes(captured.stats.bytes),
        units::objects(captured.stats.objects),
        units::seconds(captured.seconds)
    ));
}

fn print_plan(plan: &CapturePlan, repo: &str, output: &Output) {
    output.line(format!("plan: capture network {} into {repo}; nothing is changed", plan.network));
    let mut table = table(["node", "role", "channels", "files", "size", "left out", "how"]);
    for node in &plan.nodes {
        table.add_row([
            node.node.clone(),
            node.role.to_string(),
            node.channels.join(" "),
            node.files.to_string(),
            units::bytes(node.bytes),
            units::bytes(node.left_out_bytes),
            node.strategy.clone(),
        ]);
    }
    output.line(table.to_string());
    let mut steps: Vec<String> = vec![
        "check databases, raft logs, certificates and keys".to_owned(),
        "read every channel's chain on all its nodes: check hashes, links, forks and signatures; store each block once"
            .to_owned(),
        "store the other files".to_owned(),
    ];
    steps.extend(plan.consistency.iter().cloned());
    steps.push("check the invariants I1 to I5; sign and commit only if they hold".to_owned());
    for (number, step) in steps.iter().enumerate() {
        output.line(format!("  {}. {step}", number + 1));
    }
    output.findings(&plan.findings);
}
