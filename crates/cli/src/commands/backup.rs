//! `fabkeep backup`.

use fabkeep_engine::{CaptureOptions, CapturePlan, Captured, capture, plan_capture};
use fabkeep_network::Severity;
use fabkeep_platform::{Host, Platform, discover};
use fabkeep_store::Repository;
use serde_json::json;

use super::{done, key_files};
use crate::arguments::Backup;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Backup, output: &Output) -> Result<Code, CliError> {
    let platform = platform(arguments, output)?;
    let platform = platform.as_ref();
    let options = CaptureOptions {
        include_derived: arguments.include_derived,
        reread: arguments.reread,
        exclude: arguments.exclude.clone(),
        work_folder: arguments.work_dir.clone(),
        live_attempts: arguments.live_attempts,
        ..CaptureOptions::default()
    };
    if arguments.dry_run {
        let plan = plan_capture(platform, &options)?;
        output.json(&plan);
        print_plan(&plan, &arguments.repo.repo, output);
        let refused = plan.findings.iter().any(|finding| finding.severity == Severity::Error);
        return Ok(if refused { Code::Refused } else { done(&plan.findings) });
    }
    let repository = Repository::open(&arguments.repo.repo)?;
    let key = key_files::writer(&repository, arguments.writer.as_deref())?;
    let reporter = output.reporter();
    let captured = capture(platform, &repository, key, &options, reporter.as_ref())?;
    output.json(&report(&captured));
    print(&captured, output);
    Ok(done(&captured.point.findings))
}

/// Where the network lives.
fn platform(arguments: &Backup, output: &Output) -> Result<Box<dyn Platform>, CliError> {
    if arguments.cluster.is_meant() {
        return Ok(Box::new(arguments.cluster.open()?));
    }
    let Some(root) = &arguments.root else { return Ok(Box::new(Host::open(&arguments.inventory)?)) };
    let base = std::path::absolute(root).map_err(CliError::io(root))?;
    let found = discover(&base, &base)?;
    found.remarks.iter().for_each(|remark| output.line(format!("look at this: {remark}")));
    Ok(Box::new(Host::new(&found.inventory, &base)?))
}

/// What a backup made, for programs.
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
        "findings": captured.point.findings,
        "seconds": captured.seconds,
    })
}

/// What a backup made, for people.
pub fn print(captured: &Captured, output: &Output) {
    output.findings(&captured.point.findings);
    let summary = &captured.commit.summary;
    let channels: Vec<String> =
        summary.channels.iter().map(|channel| format!("{} {}", channel.channel, channel.height)).collect();
    output.line(format!("recovery point {}: {}", captured.commit.id, summary.verdict));
    output.line(format!("  {} nodes, heights: {}", summary.nodes, channels.join(", ")));
    output.line(format!(
        "  {} of files, {} read, {} written in {} objects, {}",
        units::bytes(summary.source_bytes),
        units::bytes(captured.read_bytes),
        units::bytes(captured.stats.bytes),
        captured.stats.objects,
        units::seconds(captured.seconds)
    ));
}

fn print_plan(plan: &CapturePlan, repo: &str, output: &Output) {
    output.line(format!("plan: capture network {} into {repo}; nothing is done now", plan.network));
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
    let steps = [
        "check databases, raft logs, certificates and keys",
        "walk every channel's chain on all its nodes: hashes, links, forks, signatures; keep each block once",
        "keep the other files",
        "judge the invariants I1 to I5; only then sign and commit",
    ];
    for (number, step) in steps.iter().enumerate() {
        output.line(format!("  {}. {step}", number + 1));
    }
    output.findings(&plan.findings);
}
