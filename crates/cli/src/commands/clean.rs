//! `fabkeep clean`: removes helper pods, snapshots and their clones that a killed run left behind.

use fabkeep_platform::kubernetes::Kubernetes;
use serde_json::json;

use crate::arguments::Clean;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn run(arguments: &Clean, output: &Output) -> Result<Code, CliError> {
    let cluster = &arguments.cluster;
    let found = Kubernetes::clean(&cluster.address(), &cluster.selection(), arguments.older_than, arguments.dry_run)?;
    output.json(&json!({"removed": !arguments.dry_run, "found": found}));
    for thing in &found {
        output.line(format!("{} {thing}", if arguments.dry_run { "would remove" } else { "removed" }));
    }
    if found.is_empty() {
        output.line("no helper pods, snapshots or clones were found");
    }
    Ok(Code::Done)
}
