//! `fabkeep resume`.

use std::io::{BufRead, Write};

use fabkeep_engine::{Question, StepOutcome, quoted, resume, resume_unsigned};
use fabkeep_platform::Platform;
use serde_json::json;

use super::{done, network};
use crate::arguments::Resume;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn run(arguments: &Resume, output: &Output) -> Result<Code, CliError> {
    let platform = network::open(&arguments.place)?;
    network::print_remarks(&arguments.place, platform.as_ref(), output);
    if arguments.unsigned {
        return unsigned(platform.as_ref(), output);
    }
    let reporter = output.reporter();
    let resumed = resume(platform.as_ref(), arguments.hook_after.as_deref(), reporter.as_ref())?;
    output.json(&json!({"undone": resumed.undone, "findings": resumed.findings}));
    output.findings(&resumed.findings);
    match resumed.undone {
        Some(window) => {
            output.line(format!("undone: window {}, opened by {} at {}", window.run, window.by, window.begun));
            for change in &window.changes {
                let scaled = change.scaled().map(|(workload, _)| workload.to_string());
                let is_left = resumed.findings.iter().any(|finding| Some(&finding.subject) == scaled.as_ref());
                output.line(format!("  {change}: {}", if is_left { "left as it is now" } else { "undone" }));
            }
            Ok(done(&resumed.findings))
        }
        None if resumed.findings.is_empty() => {
            output.line("no window is open");
            Ok(Code::Done)
        }
        None => {
            output.line("this machine has not opened a window; nothing was changed");
            Ok(Code::Refused)
        }
    }
}

/// Goes through notes that this machine did not sign; a person answers by lines of the standard input.
fn unsigned(platform: &dyn Platform, output: &Output) -> Result<Code, CliError> {
    let reporter = output.reporter();
    let mut answers = std::io::stdin().lock();
    let mut ask = |question: &Question<'_>| {
        let text = match question {
            Question::Undo(note, change) => format!("{note} contains this change: {}. Undo it?", quoted(change)),
            Question::Remove(note) => format!("Remove {note}?"),
        };
        let mut terminal = std::io::stderr().lock();
        let _ = write!(terminal, "{text} [y/N] ").and_then(|()| terminal.flush());
        let mut line = String::new();
        let answered = std::io::Read::take(&mut answers, 1 << 10).read_line(&mut line).is_ok();
        answered && matches!(line.trim(), "y" | "Y" | "yes")
    };
    let steps = resume_unsigned(platform, &mut ask, reporter.as_ref())?;
    output.json(&json!({"steps": steps}));
    if steps.is_empty() {
        output.line("there are no records of windows that this machine did not sign");
        return Ok(Code::Done);
    }
    for step in &steps {
        output.line(format!("  {}: {}: {}", step.note, step.step, step.outcome));
    }
    let left = steps.iter().any(|step| matches!(step.outcome, StepOutcome::Left(_)));
    Ok(if left { Code::DoneWithFindings } else { Code::Done })
}
