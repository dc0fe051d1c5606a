//! fabkeep: backs up, verifies and restores Hyperledger Fabric networks.

mod arguments;
mod commands;
mod error;
mod exit_code;
#[cfg(test)]
mod options_in_texts;
mod output;

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};

use crate::arguments::Arguments;
use crate::output::Output;

/// An empty variable counts as unset.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg });
    command.mut_subcommands(without_empty_variables)
}

fn main() -> ExitCode {
    let given = without_empty_variables(Arguments::command()).try_get_matches();
    let arguments = match given.and_then(|given| Arguments::from_arg_matches(&given)) {
        Ok(arguments) => arguments,
        Err(error) => return output::misuse(&error, std::env::args_os()).into(),
    };
    output::log::start(arguments.verbose, arguments.log_format);
    let output = Output::new(arguments.output, arguments.quiet);
    output::interrupt::watch();
    match commands::run(arguments.command, &output) {
        Ok(code) => code.into(),
        Err(error) => {
            output.error(&error);
            error.exit_code().into()
        }
    }
}
