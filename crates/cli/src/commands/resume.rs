//! `fabkeep resume`.

use fabkeep_engine::resume;
use serde_json::json;

use super::network;
use crate::arguments::Resume;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::Output;

pub fn run(arguments: &Resume, output: &Output) -> Result<Code, CliError> {
    let platform = network::open(&arguments.place, output)?;
    let reporter = output.reporter();
    let undone = resume(platform.as_ref(), reporter.as_ref())?;
    output.json(&json!({"undone": undone}));
    match undone {
        Some(window) => {
            output.line(format!("undone: the window {} of {}, begun {}", window.run, window.by, window.begun));
            window.changes.iter().for_each(|change| output.line(format!("  {change}: undone")));
        }
        None => output.line("no window is open"),
    }
    Ok(Code::Done)
}
