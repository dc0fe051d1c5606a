//! fabkeep: backs up, verifies and restores Hyperledger Fabric networks.

mod arguments;
mod commands;
mod error;
mod exit_code;
#[cfg(test)]
mod options_in_texts;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
