//! `fabkeep drills`.

use fabkeep_engine::remark_finding;
use fabkeep_network::Finding;
use fabkeep_store::RecordedDrill;
use serde_json::json;

use super::drill::age;
use super::{done, key_files};
use crate::arguments::Drills;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &Drills, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let identity = key_files::identity_if_any(&repository, &arguments.identity)?;
    let (mut drills, remarks) = repository.drills(identity.as_ref())?;
    let findings: Vec<Finding> = remarks.iter().map(remark_finding).collect();
    if let Some(point) = &arguments.of {
        let point = repository.point(point)?.id;
        drills.retain(|recorded| recorded.drill.point == point);
    }
    if let Some(last) = arguments.last {
        drills.drain(..drills.len().saturating_sub(last));
    }
    output.json(&json!({"drills": drills, "findings": findings}));
    if drills.is_empty() {
        output.line("no drill is recorded; next: fabkeep drill --dry-run");
    } else {
        let mut table = table(["begun", "point", "place", "result", "RTO", "RPO", "bytes", "record"]);
        for recorded in &drills {
            table.add_row(row(recorded));
        }
        output.line(table.to_string());
        if let Some(last) = drills.last() {
            if last.sealed {
                output.line("where drills were made, and what they proved, is sealed: name the identity to see it (--identity FILE)");
            }
            last.drill.problems.iter().for_each(|problem| output.line(format!("last drill: {problem}")));
        }
    }
    output.findings(&findings);
    Ok(done(&findings))
}

fn row(RecordedDrill { record, drill, sealed, .. }: &RecordedDrill) -> [String; 8] {
    [
        drill.begun.split('.').next().unwrap_or(&drill.begun).replace('T', " "),
        drill.point.to_string(),
        if *sealed { "sealed".to_owned() } else { drill.place.clone() },
        format!("{}{}", drill.result, if drill.removed { "" } else { ", not removed" }),
        units::seconds(drill.rto_seconds),
        age(drill.rpo_seconds),
        units::bytes(drill.bytes),
        record.clone(),
    ]
}
