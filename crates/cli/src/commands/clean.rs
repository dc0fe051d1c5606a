//! `fabkeep clean`: removes helper pods, snapshots, their clones and drills that a killed run left behind.

use fabkeep_engine::{clean_folder, clean_kept};
use fabkeep_platform::kubernetes::Kubernetes;
use serde_json::json;

use super::key_files;
use crate::arguments::Clean;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn run(arguments: &Clean, output: &Output) -> Result<Code, CliError> {
    let (cluster, older, look) = (&arguments.cluster, arguments.older_than, arguments.dry_run);
    let found = match &arguments.folder {
        Some(folder) => clean_folder(folder, older, look)?,
        None => {
            let selection = cluster.selection();
            let mut found = Kubernetes::clean(&cluster.address(), &selection, older, look)?;
            if let Some(location) = &arguments.repo {
                let repository = key_files::open(location, None)?;
                found.extend(clean_kept(&repository, &cluster.address(), &selection.namespaces, older, look)?);
            }
            found
        }
    };
    output.json(&json!({"removed": !arguments.dry_run, "found": found}));
    for thing in &found {
        output.line(format!("{} {thing}", if arguments.dry_run { "would remove" } else { "removed" }));
    }
    if found.is_empty() {
        output.line("no helper pods, snapshots or clones were found, and no drills");
    }
    Ok(Code::Done)
}
