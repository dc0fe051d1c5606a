//! `fabkeep man`.

use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::arguments::{Arguments, Man};
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn run(arguments: &Man, output: &Output) -> Result<Code, CliError> {
    let dir = arguments.dir.as_path();
    std::fs::create_dir_all(dir).map_err(CliError::io(dir))?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    write(command, dir, &mut pages)?;
    output.json(&json!({"pages": pages}));
    output.line(format!(
        "{} manual pages were written to {}; `man -l {}/fabkeep.1` shows the first",
        pages.len(),
        dir.display(),
        dir.display()
    ));
    Ok(Code::Done)
}

/// Writes the page of a command and those of its subcommands: `fabkeep.1`, `fabkeep-backup.1`. A page that exists is replaced.
fn write(command: clap::Command, dir: &Path, pages: &mut Vec<String>) -> Result<(), CliError> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let subcommands: Vec<clap::Command> = command.get_subcommands().filter(|one| !one.is_hide_set()).cloned().collect();
    let mut page = Vec::new();
    let file = dir.join(format!("{name}.1"));
    clap_mangen::Man::new(command).render(&mut page).map_err(CliError::io(&file))?;
    std::fs::write(&file, page).map_err(CliError::io(&file))?;
    pages.push(file.display().to_string());
    subcommands.into_iter().try_for_each(|subcommand| write(subcommand, dir, pages))
}
