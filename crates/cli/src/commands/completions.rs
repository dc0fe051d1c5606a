//! `fabkeep completions`.

use clap::CommandFactory;
use clap_complete::{Generator, shells};

use crate::arguments::{Arguments, Completions, Shell};
use crate::error::CliError;
use crate::exit_code::Code;

pub fn run(arguments: &Completions) -> Result<Code, CliError> {
    match arguments.shell {
        Shell::Bash => print(shells::Bash),
        Shell::Zsh => print(shells::Zsh),
        Shell::Fish => print(shells::Fish),
    }
    Ok(Code::Done)
}

fn print(shell: impl Generator) {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "fabkeep", &mut text);
    // A closed pipe (`| head`) is no reason to fail.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &text);
}
