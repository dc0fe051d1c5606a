//! Output of results, findings, progress and errors, as text or JSON.

mod findings;
pub mod interrupt;
pub mod log;
mod progress;
pub mod remedy;
pub mod report_page;
mod table;
pub mod units;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use fabkeep_engine::{Event, Reporter};
use fabkeep_network::Finding;
use serde::Serialize;
use serde_json::json;

use crate::arguments::Format;
use crate::error::CliError;
use crate::exit_code::Code;

pub use findings::{plain, print_findings};
pub use progress::Progress;
pub use table::table;

/// Where results go.
pub struct Output {
    format: Format,
    quiet: bool,
}

/// Prints why the arguments of a command line cannot be used, or the help that they ask for. Returns the exit code.
pub fn misuse(error: &clap::Error, arguments: impl Iterator<Item = OsString>) -> Code {
    let asks_for_help = !error.use_stderr();
    let arguments: Vec<OsString> = arguments.collect();
    let json = arguments.iter().any(|word| word == "--output=json")
        || arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    if asks_for_help || !json {
        let _ = error.print();
    } else {
        let text = error.render().to_string();
        let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
        let (message, help) =
            message.split_once("\n\n").map_or((message, None), |(message, help)| (message, Some(help)));
        Output::new(Format::Json, false).json(&json!({
            "error": message, "help": help, "findings": [], "done": [], "exit_code": Code::Usage as u8,
        }));
    }
    if asks_for_help { Code::Done } else { Code::Usage }
}

impl Output {
    pub fn new(format: Format, quiet: bool) -> Self {
        Output { format, quiet }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Returns a reporter for one command: bars on a terminal, lines elsewhere, JSON lines for programs, nothing when asked so.
    pub fn reporter(&self) -> Box<dyn Reporter> {
        if self.quiet {
            Box::new(progress::Quiet)
        } else if self.is_json() {
            Box::new(progress::Lines)
        } else {
            Box::new(Progress::new(std::io::stderr().is_terminal()))
        }
    }

    /// Prints a line for people.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.is_json() {
            // A closed pipe (`| head`) is no reason to fail.
            let _ = writeln!(std::io::stdout(), "{}", text.as_ref());
        }
    }

    /// Prints a result for programs.
    pub fn json(&self, value: &impl Serialize) {
        if self.is_json() {
            let text = remedy::document(value)
                .and_then(|document| serde_json::to_string_pretty(&document))
                .unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Prints a part of a long result for programs, on a line of its own.
    pub fn json_line(&self, value: &impl Serialize) {
        if self.is_json() {
            let text =
                serde_json::to_string(value).unwrap_or_else(|error| json!({"error": error.to_string()}).to_string());
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Prints findings for people.
    pub fn findings(&self, findings: &[Finding]) {
        if !self.is_json() {
            print_findings(&mut std::io::stdout(), findings);
        }
    }

    /// Prints findings that belong to no result: for programs as lines of progress.
    pub fn remarks(&self, findings: &[Finding]) {
        self.findings(findings);
        if self.is_json() {
            let reporter = self.reporter();
            findings.iter().for_each(|finding| reporter.event(Event::Found(finding)));
        }
    }

    /// Prints what a command failed with: on standard error for people, as the result for programs.
    pub fn error(&self, error: &CliError) {
        if self.is_json() {
            self.json(&json!({
                "error": error.message, "help": error.help, "findings": error.findings,
                "done": error.done, "exit_code": error.exit_code() as u8,
            }));
            return;
        }
        let mut err = std::io::stderr();
        print_findings(&mut err, &error.findings);
        let _ = writeln!(err, "error: {}", error.message);
        for done in &error.done {
            let _ = writeln!(err, "  done: {}", crate::error::reported(done));
        }
        if let Some(help) = &error.help {
            let _ = writeln!(err, "  next: {help}");
        }
    }
}
