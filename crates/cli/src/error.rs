//! Errors as the command line prints them: what happened, the broken rules, and what to do next.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::ErrorKind;

use fabkeep_engine::{Done, EngineError, Misuse, Next};
use fabkeep_network::Finding;
use fabkeep_platform::PlatformError;
use fabkeep_store::StoreError;

use crate::exit_code::Code;
use crate::output::remedy;

/// The error of a command.
#[derive(Debug)]
pub struct CliError {
    /// What happened.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// Broken rules.
    pub findings: Vec<Finding>,
    /// What was done before it ended, in order.
    pub done: Vec<Done>,
    code: Code,
}

impl CliError {
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        CliError { message: message.into(), help: Some(help.into()), findings: Vec::new(), done: Vec::new(), code }
    }

    pub fn exit_code(&self) -> Code {
        self.code
    }

    pub fn io(path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> CliError {
        let path = path.as_ref().display().to_string();
        move |error| from_io(&path, &error)
    }
}

fn from_io(path: &str, error: &std::io::Error) -> CliError {
    let help = match error.kind() {
        ErrorKind::PermissionDenied => "run fabkeep as a user who may read the nodes' directories and write to them",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space, then run the same command again: it continues"
        }
        ErrorKind::ReadOnlyFilesystem => "name a writable location",
        ErrorKind::HostUnreachable => {
            "the pod has disappeared or does not answer: check it with kubectl, then run the same command again"
        }
        ErrorKind::NotFound => "check the path",
        ErrorKind::NotADirectory => "name a directory",
        _ => "check the disk, then run the same command again",
    };
    CliError::new(Code::Failed, format!("{path}: {error}"), help)
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Platform(error) => error.into(),
            EngineError::Refused(findings) => refused(findings, "nothing was committed"),
            EngineError::Precondition(findings) => refused(findings, "nothing was changed"),
            EngineError::Io { path, source } => from_io(&path, &source),
            EngineError::Usage(misuse) => {
                let Misuse { request, problem, next } = *misuse;
                let message = match &request {
                    Some(request) => format!("{}: {problem}", remedy::request(request)),
                    None => problem,
                };
                let next = next.as_ref().map(remedy::text);
                let next = next.unwrap_or_else(|| "correct the command line; --help explains the options".to_owned());
                CliError::new(Code::Usage, message, next)
            }
            EngineError::Stopped => {
                CliError::new(Code::Interrupted, "interrupted", "run the same command again: it continues where it can")
            }
            EngineError::WindowLeft(source) => {
                let cause = CliError::from(source);
                let first = cause.help.map(|help| format!("{help}; then ")).unwrap_or_default();
                CliError::new(
                    Code::Incomplete,
                    format!("the window stays open: {}", cause.message),
                    format!("{first}`fabkeep resume` undoes it, with the same --kubernetes or --inventory options"),
                )
            }
            EngineError::Interrupted { done, next, source } => interrupted(done, &next, *source),
            EngineError::ProofFailed { done, next, source } => {
                let message = format!("the proof failed: the restored data differs from the captured data: {source}");
                let help = format!(
                    "do not start the node on this data; check the disk, then {}",
                    next_command(&next, Some(Code::Unproven))
                );
                CliError { done, ..CliError::new(Code::Unproven, message, help) }
            }
            EngineError::Differs(error) => CliError::new(
                Code::Unproven,
                format!("the data that was read back differs from the captured data: {error}"),
                "check the disk, then run the same command again",
            ),
            error @ (EngineError::Chain(_) | EngineError::Point { .. }) => CliError::new(
                Code::Damaged,
                error.to_string(),
                "`fabkeep verify --level full` says what is damaged in this recovery point; `fabkeep list` shows the others",
            ),
        }
    }
}

fn refused(findings: Vec<Finding>, unchanged: &str) -> CliError {
    let rules = if findings.len() == 1 { "rule" } else { "rules" };
    let message = format!("refused: {} broken {rules}; {unchanged}", findings.len());
    let help = "follow the findings' advice, then run the same command again";
    CliError { findings, ..CliError::new(Code::Refused, message, help) }
}

/// Returns a restore that ended after its first change: the reason, and how to continue.
fn interrupted(done: Vec<Done>, next: &Next, source: EngineError) -> CliError {
    let broken = matches!(source, EngineError::Precondition(_) | EngineError::Refused(_));
    let cause = CliError::from(source);
    let code = if cause.code == Code::Interrupted { Code::Interrupted } else { Code::Incomplete };
    let why = if broken { format!("{} broken rules", cause.findings.len()) } else { cause.message };
    let message = format!("the restore ended after its first change and is not complete: {why}");
    let settle = match cause.help {
        Some(help) if code == Code::Incomplete && !broken => format!("{help}. Afterwards "),
        _ => String::new(),
    };
    let help = format!("{settle}{}{}", next_command(next, None), give_up(&done));
    CliError { findings: cause.findings, done, ..CliError::new(code, message, help) }
}

fn next_command(next: &Next, code: Option<Code>) -> String {
    match next {
        Next::SameCommand if code == Some(Code::Unproven) => {
            "run the same command again: it reads the written data and rewrites what differs".to_owned()
        }
        Next::SameCommand => "run the same command again: it continues from here".to_owned(),
        Next::StartNodes { nodes } => format!(
            "all data is in place: run the same command again, or start these nodes by hand: {}",
            nodes.join(", ")
        ),
    }
}

/// Text that says how to undo a restore by hand.
fn give_up(done: &[Done]) -> String {
    let mut steps = Vec::new();
    if done.iter().any(|done| matches!(done, Done::Placed { .. })) {
        steps.push("move away what was put into place");
    }
    if done.iter().any(|done| matches!(done, Done::SetAside { .. })) {
        steps.push("move back what was set aside");
    }
    if done.iter().any(|done| matches!(done, Done::DatabaseDumped { .. })) {
        steps.push("load the dumps of the databases' earlier content");
    }
    let mut stopped: BTreeSet<&str> = BTreeSet::new();
    for done in done {
        match done {
            Done::NodeStopped { node } | Done::NodeStopping { node } | Done::NodeRestarting { node } => {
                stopped.insert(node);
            }
            Done::NodeStarted { node } | Done::NodeRestarted { node } => {
                stopped.remove(node.as_str());
            }
            _ => {}
        }
    }
    if !stopped.is_empty() {
        steps.push("start the nodes that were stopped");
    }
    if steps.is_empty() { String::new() } else { format!("; to give it up instead, {}", steps.join(", then ")) }
}

/// Text for a completed change.
pub fn reported(done: &Done) -> String {
    match done {
        Done::NodeStopped { node } => format!("{node} was stopped"),
        Done::NodeStarted { node } => format!("{node} was started"),
        Done::NodeStopping { node } => format!("the stop of {node} was begun; it is not known whether it runs"),
        Done::NodeStarting { node } => format!("the start of {node} was begun; it is not known whether it runs"),
        Done::NodeRestarting { node } => format!("the restart of {node} was begun; it is not known whether it runs"),
        Done::NodeRestarted { node } => format!("{node} was restarted"),
        Done::Written { node, path } => format!("{node}: data was written to {path}; nothing uses it yet"),
        Done::SetAside { what, to } => format!("{what} was set aside as {to}"),
        Done::Placed { node, path } => format!("{node}: {path} was put into place"),
        Done::DatabaseDumped { node, to } => format!("{node}: the earlier content of its database was dumped to {to}"),
        Done::DatabaseLoaded { node, database } => format!("{node}: the dump was loaded into {database}"),
        Done::ObjectCreated { object } => format!("{object} was created"),
        Done::ObjectReplaced { object } => format!("{object} was replaced"),
    }
}

impl From<PlatformError> for CliError {
    fn from(error: PlatformError) -> Self {
        match error {
            PlatformError::Inventory { .. } => CliError::new(
                Code::Usage,
                error.to_string(),
                "`fabkeep discover --root DIR` writes an inventory of the nodes below a directory",
            ),
            PlatformError::Io { path, source } => from_io(&path, &source),
            PlatformError::NotHere { problem, next } => CliError::new(Code::Usage, problem, remedy::text(&next)),
            PlatformError::Cluster { ref next, .. } | PlatformError::Forbidden { ref next, .. } => {
                CliError::new(Code::Failed, error.to_string(), remedy::text(next))
            }
            PlatformError::Command { .. } => {
                CliError::new(Code::Failed, error.to_string(), "correct the node's commands in the inventory")
            }
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let (code, help) = match &error {
            StoreError::NotARepository(place) => {
                (Code::Usage, format!("`fabkeep init --repo {place}` creates one; or name the right location (--repo)"))
            }
            StoreError::NoSettings { .. } => (
                Code::Damaged,
                "copy fabkeep.json from a copy of the repository: every copy has the same one".to_owned(),
            ),
            StoreError::AlreadyARepository(_) => (Code::Usage, "use it, or name another location (--repo)".to_owned()),
            StoreError::FolderNotEmpty(_) | StoreError::Location { .. } => {
                (Code::Usage, "name a new or empty folder, or a URL (s3://…, gs://…, az://…)".to_owned())
            }
            StoreError::Version { .. } => {
                (Code::Usage, "use the version of fabkeep that wrote it, or a newer version than this one".to_owned())
            }
            StoreError::RootNotPinned { root } => (
                Code::Usage,
                format!("compare it with the key that `fabkeep init` printed; if they are equal, add --root {root} (or set FABKEEP_ROOT={root})"),
            ),
            StoreError::NotCertified { .. } => (
                Code::Refused,
                "the holder of the identity can certify it again: fabkeep add-writer --identity FILE --writer FILE, with the existing writer key file"
                    .to_owned(),
            ),
            StoreError::TooLarge { .. } => (
                Code::Refused,
                "capture fewer nodes in one recovery point (--exclude NODE), or remove files with very many holes".to_owned(),
            ),
            StoreError::WrongIdentity => {
                (Code::Usage, "name the identity file that `fabkeep init` wrote for this repository (--identity FILE)".to_owned())
            }
            StoreError::KeyFile { .. } => {
                (Code::Usage, "name the key file (--identity FILE, --writer FILE); `fabkeep init` printed where they are".to_owned())
            }
            StoreError::Tag(_) | StoreError::Rules(_) | StoreError::Grace(_) => {
                (Code::Usage, "correct the option; `fabkeep forget --help` and `fabkeep prune --help` show examples".to_owned())
            }
            StoreError::CannotForget { .. } => (
                Code::Refused,
                "`fabkeep forget --dry-run` shows what stays and why; `fabkeep release` ends a hold".to_owned(),
            ),
            StoreError::FreedMeanwhile { .. } => (
                Code::Failed,
                "run the backup again: it stores what it needs again; if backups take longer than half of the grace time, prune with a longer --grace"
                    .to_owned(),
            ),
            StoreError::NoSuchPoint(_) => (Code::Usage, "`fabkeep list` shows the recovery points".to_owned()),
            StoreError::Missing(_) | StoreError::Damaged { .. } => {
                (Code::Damaged, "`fabkeep verify --level full` tells what else is damaged; restore the object from a copy of the repository".to_owned())
            }
            StoreError::Forbidden { .. } => (
                Code::Failed,
                "run fabkeep as a user who may read the repository, or give this user the right to read the object; nothing says that it is damaged".to_owned(),
            ),
            StoreError::Untrusted { .. } => {
                (Code::Damaged, "somebody else wrote this object: do not use it, and find out who has write access to the repository".to_owned())
            }
            StoreError::Revoked { .. } => {
                (Code::Damaged, "do not use it; `fabkeep writers` shows who was revoked and when".to_owned())
            }
            StoreError::WriterRevoked { .. } => (
                Code::Usage,
                "use the new writer key of this machine; the holder of the identity creates one with `fabkeep add-writer`".to_owned(),
            ),
            StoreError::NoSuchWriter(_) => (Code::Usage, "`fabkeep writers` lists the writers with their keys".to_owned()),
            StoreError::Backend { source, action, .. } => (Code::Failed, backend_help(source, action, error.is_of_a_folder())),
            StoreError::Io(error) => return from_io("the repository", error),
            StoreError::Internal(_) => (Code::Failed, "this is a bug: report it with the command and its output".to_owned()),
        };
        CliError::new(code, error.to_string(), help)
    }
}

/// Returns the kind of the innermost system error in a chain of errors.
fn io_kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    std::iter::successors(Some(error), |error| (**error).source())
        .find_map(|error| error.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind)
}

fn backend_help(error: &(dyn Error + 'static), action: &str, folder: bool) -> String {
    let reads = ["reading", "listing", "looking for"].contains(&action);
    let help = match io_kind(error) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            "free some space for the repository, then run the same command again: it uses what was already stored"
        }
        _ if folder && reads => {
            "the repository cannot be read: check the folder's owner, its rights and its disk, then run the same command again"
        }
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            "the repository cannot be written to: check its permissions and its disk"
        }
        _ if folder => "check the folder's owner, its rights and its disk, then run the same command again",
        _ => {
            "check the network and the credentials (AWS_*, GOOGLE_*, AZURE_* in the environment), then run the same command again"
        }
    };
    help.to_owned()
}
