//! The commands, one per file.

mod attest;
mod backup;
mod clean;
mod cluster;
mod completions;
mod copy;
mod debug_bundle;
mod demo;
mod discover;
mod doctor;
mod drill;
mod drills;
mod forget;
mod init;
mod key_files;
mod list;
mod man;
mod marks;
mod migrate;
mod network;
mod prune;
mod report;
mod restore;
mod resume;
mod show;
mod stats;
mod status;
mod verify;
mod writers;

use fabkeep_network::{Finding, Severity};

use crate::arguments::Command;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn run(command: Command, output: &Output) -> Result<Code, CliError> {
    match command {
        Command::Init(arguments) => init::init(&arguments, output),
        Command::AddWriter(arguments) => init::add_writer(&arguments, output),
        Command::Writers(arguments) => writers::run(&arguments, output),
        Command::Discover(arguments) => discover::run(&arguments, output),
        Command::Backup(arguments) => backup::run(&arguments, output),
        Command::Status(arguments) => status::run(&arguments, output),
        Command::Resume(arguments) => resume::run(&arguments, output),
        Command::Copy(arguments) => copy::run(&arguments, output),
        Command::List(arguments) => list::run(&arguments, output),
        Command::Forget(arguments) => forget::run(&arguments, output),
        Command::Prune(arguments) => prune::run(&arguments, output),
        Command::Stats(arguments) => stats::run(&arguments, output),
        Command::Tag(arguments) => marks::tag(&arguments, output),
        Command::Hold(arguments) => marks::hold(&arguments, output),
        Command::Release(arguments) => marks::release(&arguments, output),
        Command::Show(arguments) => show::run(&arguments, output),
        Command::Report(arguments) => report::run(&arguments, output),
        Command::Attest(arguments) => attest::run(&arguments, output),
        Command::Verify(arguments) => verify::run(&arguments, output),
        Command::Restore(arguments) => restore::run(&arguments, output),
        Command::Migrate(arguments) => migrate::run(&arguments, output),
        Command::Drill(arguments) => drill::run(&arguments, output),
        Command::Drills(arguments) => drills::run(&arguments, output),
        Command::Clean(arguments) => clean::run(&arguments, output),
        Command::Doctor(arguments) => doctor::run(&arguments, output),
        Command::DebugBundle(arguments) => debug_bundle::run(&arguments, output),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments, output),
        Command::Demo(arguments) => demo::run(&arguments, output),
    }
}

/// Done, or done with warnings to look at.
fn done(findings: &[Finding]) -> Code {
    let warned = findings.iter().any(|finding| finding.severity >= Severity::Warning);
    if warned { Code::DoneWithFindings } else { Code::Done }
}
