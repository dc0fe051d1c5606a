//! `fabkeep init` and `fabkeep add-writer`.

use fabkeep_store::{Passphrase, Repository};
use serde_json::json;

use super::key_files;
use crate::arguments::{AddWriter, Init};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn init(arguments: &Init, output: &Output) -> Result<Code, CliError> {
    let made = Repository::init_with(
        &arguments.repo.repo,
        arguments.identity.as_deref(),
        arguments.writer.as_deref(),
        &arguments.recipient,
        &Passphrase { protect: arguments.passphrase, ask: &key_files::ask_for_passphrase },
    )?;
    key_files::note_root(&made.id, &made.root);
    output.json(&made);
    output.line(format!("repository {} created at {}", made.id, arguments.repo.repo));
    output.line(format!("  writer key (writes, cannot read):     {}", made.writer_file));
    let state = if made.identity_is_new { "" } else { " (existed before)" };
    output.line(format!("  identity (private key, reads all):    {}{state}", made.identity_file));
    output.line(format!("  root key (public, certifies writers): {}", made.root));
    output.line("  LOSING THE IDENTITY LOSES EVERY BACKUP in this repository: nobody can open them without it.");
    output.line("  Copy it to two safe places away from this machine, then remove it here: backups do not need it.");
    output.line("  Note the root key: with --root KEY or FABKEEP_ROOT, fabkeep refuses a repository whose settings were exchanged.");
    output.line(format!(
        "next: fabkeep discover --root DIR (or --kubernetes), then fabkeep backup --repo {}",
        arguments.repo.repo
    ));
    Ok(Code::Done)
}

pub fn add_writer(arguments: &AddWriter, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, None)?;
    let identity = key_files::identity(&repository, &arguments.identity)?;
    repository.add_writer(&identity, &arguments.writer)?;
    output.json(&json!({"writer_file": arguments.writer}));
    output.line(format!("writer key written to {}", arguments.writer.display()));
    Ok(Code::Done)
}
