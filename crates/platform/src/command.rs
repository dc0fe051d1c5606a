//! Runs shell commands of the operator's. Only the shell is waited for: a command may start a process that stays, and what such a process
//! holds open is not the command's end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Most of what a command prints that is kept, in bytes: the end of it.
const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// Last lines that are told of a check that failed.
const CHECK_LINES: usize = 5;
/// How often a running command is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a command that is asked to end may take for it.
const GRACE: Duration = Duration::from_secs(5);

/// What ends the wait for a command.
#[derive(Clone, Copy)]
pub struct Until<'a> {
    /// How long it may take.
    pub deadline: Option<Duration>,
    /// Whether the user asked to stop.
    pub is_interrupted: &'a dyn Fn() -> bool,
}

impl Until<'static> {
    /// Waits until the command ends.
    pub const ITS_END: Until<'static> = Until { deadline: None, is_interrupted: &|| false };
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It was stopped because the user asked to stop.
    Interrupted,
    /// It was stopped because it took longer than this.
    TooLong(Duration),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Exited(status) => status.fmt(f),
            Ended::Interrupted => f.write_str("it was stopped on request"),
            Ended::TooLong(limit) => write!(f, "it did not end within {} s and was stopped", limit.as_secs_f64()),
        }
    }
}

/// A command that has ended.
pub(crate) struct Ran {
    pub ended: Ended,
    pub printed: String,
    pub error_output: String,
}

impl Ran {
    pub fn is_success(&self) -> bool {
        matches!(self.ended, Ended::Exited(status) if status.success())
    }

    /// Returns how it ended and the beginning of its error output.
    pub fn problem(&self, most: usize) -> String {
        let said: String = self.error_output.trim().chars().take(most).collect();
        format!("{}: {said}", self.ended)
    }
}

/// Runs a command with `sh`, in a process group of its own: a Ctrl-C on the terminal reaches only fabkeep, which decides what becomes of it.
pub(crate) fn run(command: &str, until: Until<'_>) -> io::Result<Ran> {
    run_with(command, &[], until)
}

/// The same, with variables beside those of fabkeep's own environment.
fn run_with(command: &str, environment: &[(String, String)], until: Until<'_>) -> io::Result<Ran> {
    let (printed, error_output) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = Command::new("sh")
        .args(["-c", command])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(error_output.try_clone()?)
        .process_group(0)
        .spawn()?;
    let ended = wait(&mut child, until)?;
    Ok(Ran { ended, printed: end_of(&printed)?, error_output: end_of(&error_output)? })
}

/// Runs a command of the operator's that checks something, with variables of its own. Success is exit code 0.
///
/// # Errors
/// How it ended, and the end of what it printed, in words.
pub fn check(command: &str, environment: &[(String, String)], until: Until<'_>) -> Result<(), String> {
    let ran = run_with(command, environment, until).map_err(|error| format!("it cannot be started: {error}"))?;
    if ran.is_success() {
        return Ok(());
    }
    let text = format!("{}\n{}", ran.printed.trim(), ran.error_output.trim());
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(CHECK_LINES)..].join(" | ");
    Err(if last.is_empty() { ran.ended.to_string() } else { format!("{}: {last}", ran.ended) })
}

fn wait(child: &mut Child, until: Until<'_>) -> io::Result<Ended> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Exited(status));
        }
        let too_long = until.deadline.filter(|limit| begun.elapsed() > *limit);
        let why = if (until.is_interrupted)() { Some(Ended::Interrupted) } else { too_long.map(Ended::TooLong) };
        if let Some(why) = why {
            stop(child)?;
            return Ok(why);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ends a command and what it has started in its group.
fn stop(child: &mut Child) -> io::Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let signal = |signal| group.is_some_and(|group| kill_process_group(group, signal).is_ok());
    let begun = Instant::now();
    if signal(Signal::TERM) {
        while begun.elapsed() < GRACE {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }
    if !signal(Signal::KILL) {
        child.kill()?;
    }
    child.wait().map(|_| ())
}

fn end_of(file: &File) -> io::Result<String> {
    let len = file.metadata()?.len();
    let begin = len.saturating_sub(MAX_OUTPUT_BYTES);
    let mut bytes = vec![0; usize::try_from(len - begin).unwrap_or(0)];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_leaves_a_process_behind_ends_with_its_shell() {
        let begun = Instant::now();
        let ran = run("echo out; echo err >&2; sleep 20 & echo $!", Until::ITS_END).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(ran.is_success());
        let mut lines = ran.printed.lines();
        assert_eq!((lines.next(), ran.error_output.as_str()), (Some("out"), "err\n"));
        let left: i32 = lines.next().unwrap().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_command_is_stopped_at_its_deadline_and_on_request() {
        let limit = Duration::from_millis(200);
        let ran = run("sleep 20; true", Until { deadline: Some(limit), is_interrupted: &|| false }).unwrap();
        assert_eq!(ran.ended, Ended::TooLong(limit));
        let begun = Instant::now();
        let asked = || begun.elapsed() > limit;
        let ran = run("sleep 20", Until { deadline: None, is_interrupted: &asked }).unwrap();
        assert_eq!(ran.ended, Ended::Interrupted);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(!run("exit 3", Until::ITS_END).unwrap().is_success());
    }
}
