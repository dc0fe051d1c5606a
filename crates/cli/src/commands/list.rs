//! `fabkeep list`.

use fabkeep_store::Repository;
use serde_json::json;

use crate::arguments::Repo;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Repo, output: &Output) -> Result<Code, CliError> {
    let repository = Repository::open(&arguments.repo)?;
    let points = repository.points()?;
    let (bytes, objects) = repository.usage()?;
    let mut table = table(["point", "network", "nodes", "heights", "files", "added", "verdict"]);
    let mut rows = Vec::new();
    let mut damaged = Vec::new();
    for (name, point) in &points {
        match point {
            Ok(commit) => {
                let heights: Vec<String> = commit
                    .summary
                    .channels
                    .iter()
                    .map(|channel| format!("{} {}", channel.channel, channel.height))
                    .collect();
                table.add_row([
                    commit.id.to_string(),
                    commit.summary.network.clone(),
                    commit.summary.nodes.to_string(),
                    heights.join(", "),
                    units::bytes(commit.summary.source_bytes),
                    units::bytes(commit.new_bytes),
                    commit.summary.verdict.clone(),
                ]);
                rows.push(json!(commit));
            }
            Err(error) => damaged.push(json!({"object": name, "problem": error.to_string()})),
        }
    }
    output.json(&json!({"repository": repository.config(), "points": rows, "damaged": damaged, "bytes": bytes, "objects": objects}));
    if points.is_empty() {
        output.line(format!("no recovery point yet; next: fabkeep backup --repo {}", arguments.repo));
    } else {
        output.line(table.to_string());
    }
    output.line(format!("{} in {objects} objects", units::bytes(bytes)));
    for fault in &damaged {
        output.line(format!("damaged: {} {}", fault["object"], fault["problem"]));
    }
    Ok(if damaged.is_empty() { Code::Done } else { Code::Damaged })
}
