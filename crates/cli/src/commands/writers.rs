//! `fabkeep writers`: who may write to a repository, and who not any more.

use fabkeep_engine::remark_finding;
use fabkeep_network::Finding;
use fabkeep_store::{Repository, RevokedWriter, WriterKey, WriterState};
use serde_json::json;

use super::{done, key_files};
use crate::arguments::{RevokeWriter, RotateWriter, Writers, WritersCommand};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table};

/// Digits of a key in a table: enough to name the writer.
const SHOWN: usize = 16;

pub fn run(arguments: &Writers, output: &Output) -> Result<Code, CliError> {
    match &arguments.command {
        None => list(arguments, output),
        Some(WritersCommand::Revoke(arguments)) => revoke(arguments, output),
        Some(WritersCommand::Rotate(arguments)) => rotate(arguments, output),
    }
}

fn list(arguments: &Writers, output: &Output) -> Result<Code, CliError> {
    let place = arguments.repo.as_deref().unwrap_or_default();
    let repository = key_files::open(place, arguments.pin.root.as_deref())?;
    let history = repository.history()?;
    let writers = repository.writers(&history)?;
    let findings: Vec<Finding> = history.remarks.iter().map(remark_finding).collect();
    output.json(&json!({"writers": writers, "findings": findings}));
    let mut table = table(["key", "certified", "revoked", "points", "last point"]);
    for writer in &writers {
        table.add_row(row(writer));
    }
    output.line(table.to_string());
    output.findings(&findings);
    Ok(done(&findings))
}

fn row(writer: &WriterState) -> [String; 5] {
    let time =
        |time: &Option<String>| time.as_deref().map(|time| time.split('.').next().unwrap_or(time).replace('T', " "));
    [
        writer.key.chars().take(SHOWN).collect(),
        time(&writer.created).unwrap_or_else(|| "certificate missing".to_owned()),
        time(&writer.revoked).unwrap_or_default(),
        writer.points.to_string(),
        writer.last.as_ref().map(ToString::to_string).unwrap_or_default(),
    ]
}

fn revoke(arguments: &RevokeWriter, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, None)?;
    let identity = key_files::identity(&repository, &arguments.identity)?;
    let since = arguments.distrust_from.as_deref().map(|point| repository.point(point)).transpose()?;
    let revoked = repository.revoke_writer(&identity, &arguments.key, since.as_ref().map(|commit| &commit.id))?;
    output.json(&json!({"revoked": revoked}));
    print(&revoked, output);
    Ok(Code::Done)
}

fn print(revoked: &RevokedWriter, output: &Output) {
    output.line(format!(
        "writer {} is revoked: {} of its recovery points stay trusted, {} do not count any more",
        revoked.key,
        revoked.kept.len(),
        revoked.dropped.len()
    ));
    for point in &revoked.dropped {
        output.line(format!("  {point} is ignored from now on"));
    }
    output.line("  Revoke it in every copy of the repository, too: `fabkeep copy --to PLACE` copies the revocation.");
    output.line("  Take away what else the machine had: its credentials for the storage.");
}

fn rotate(arguments: &RotateWriter, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, None)?;
    let identity = key_files::identity(&repository, &arguments.identity)?;
    let old = WriterKey::read(&arguments.writer)?;
    if old.repository() != repository.config().id {
        return Err(CliError::new(
            Code::Usage,
            format!("{} is a writer key of repository {}", arguments.writer.display(), old.repository()),
            format!("name a writer key of repository {}", repository.config().id),
        ));
    }
    if arguments.to.symlink_metadata().is_ok() {
        return Err(CliError::new(
            Code::Usage,
            format!("{} exists already: nothing was changed", arguments.to.display()),
            "name a file that does not exist",
        ));
    }
    repository.add_writer(&identity, &arguments.to)?;
    output.line(format!("writer key written to {}", arguments.to.display()));
    let revoked = Repository::open(&arguments.repo.repo)?.revoke_writer(&identity, &old.key(), None)?;
    output.json(&json!({"writer_file": arguments.to, "revoked": revoked}));
    print(&revoked, output);
    Ok(Code::Done)
}
