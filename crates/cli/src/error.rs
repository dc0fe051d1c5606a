//! Errors as a person sees them: what happened, the rule, and the next command to type.

use fabkeep_engine::EngineError;
use fabkeep_network::Finding;
use fabkeep_platform::PlatformError;
use fabkeep_store::StoreError;

use crate::exit_code::Code;

/// What a command ends with when it does not succeed.
#[derive(Debug)]
pub struct CliError {
    /// What happened.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// Broken rules.
    pub findings: Vec<Finding>,
    code: Code,
}

impl CliError {
    pub fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        CliError { message: message.into(), help: Some(help.into()), findings: Vec::new(), code }
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
    use std::io::ErrorKind;
    let help = match error.kind() {
        ErrorKind::PermissionDenied => "run fabkeep as a user that may read the nodes' directories and write there",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room, then run the same command again: it goes on",
        ErrorKind::ReadOnlyFilesystem => "name a place that can be written to",
        ErrorKind::HostUnreachable => {
            "the pod went away or does not answer: look at it with kubectl, then run the same command again"
        }
        ErrorKind::NotFound => "check the path",
        ErrorKind::NotADirectory => "name a directory",
        _ => "look at the disk, then run the same command again",
    };
    CliError::new(Code::Failed, format!("{path}: {error}"), help)
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Platform(error) => error.into(),
            EngineError::Refused(findings) => CliError {
                message: format!(
                    "refused: {} broken {}",
                    findings.len(),
                    if findings.len() == 1 { "rule" } else { "rules" }
                ),
                help: Some(
                    "follow the findings' advice, then run the same command again; nothing was committed or replaced"
                        .to_owned(),
                ),
                findings,
                code: Code::Refused,
            },
            EngineError::Io { path, source } => from_io(&path, &source),
            EngineError::Usage(problem) => CliError::new(Code::Usage, problem, "see --help"),
            EngineError::Interrupted => {
                CliError::new(Code::Interrupted, "interrupted", "run the same command again: it goes on where it can")
            }
            error @ (EngineError::Chain(_) | EngineError::Point { .. }) => CliError::new(
                Code::Damaged,
                error.to_string(),
                "`fabkeep verify --level full` tells what of the recovery point is damaged; `fabkeep list` names the others",
            ),
        }
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
            PlatformError::NotHere { problem, next } => CliError::new(Code::Usage, problem, next),
            PlatformError::Name { .. } => {
                CliError::new(Code::Failed, error.to_string(), "rename the file, or leave the node out (--exclude)")
            }
            PlatformError::Cluster { ref next, .. } => {
                let next = next.clone();
                CliError::new(Code::Failed, error.to_string(), next)
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
                (Code::Usage, format!("`fabkeep init --repo {place}` makes one; or name the right place (--repo)"))
            }
            StoreError::AlreadyARepository(_) => (Code::Usage, "use it, or name another place (--repo)".to_owned()),
            StoreError::FolderNotEmpty(_) | StoreError::Location { .. } => {
                (Code::Usage, "name a new or empty folder, or a URL (s3://…, gs://…, az://…)".to_owned())
            }
            StoreError::Version { .. } => {
                (Code::Usage, "use the fabkeep that wrote it, or a newer one than this".to_owned())
            }
            StoreError::RootNotPinned { root } => (
                Code::Usage,
                format!("compare it with what `fabkeep init` printed; if it is the same, give it: --root {root} (or FABKEEP_ROOT={root})"),
            ),
            StoreError::NotCertified { .. } => (
                Code::Refused,
                "the identity's holder certifies it again: fabkeep add-writer --identity FILE --writer FILE, with the writer key file that is there"
                    .to_owned(),
            ),
            StoreError::TooLarge { .. } => (
                Code::Refused,
                "put fewer nodes into one recovery point (--exclude NODE), or leave out files with very many holes".to_owned(),
            ),
            StoreError::WrongIdentity => {
                (Code::Usage, "name the identity file that `fabkeep init` wrote for this repository (--identity FILE)".to_owned())
            }
            StoreError::KeyFile { .. } => {
                (Code::Usage, "name the key file (--identity FILE, --writer FILE); `fabkeep init` printed where they are".to_owned())
            }
            StoreError::NoSuchPoint(_) => (Code::Usage, "`fabkeep list` shows the recovery points".to_owned()),
            StoreError::Missing(_) | StoreError::Damaged { .. } => {
                (Code::Damaged, "`fabkeep verify --level full` tells what else is damaged; restore the object from a copy of the repository".to_owned())
            }
            StoreError::Untrusted { .. } => {
                (Code::Damaged, "somebody else wrote this object: do not use it, and find out who can write to the repository".to_owned())
            }
            StoreError::Backend { source, .. } => (Code::Failed, backend_help(&source.to_string())),
            StoreError::Io(error) => return from_io("the repository", error),
            StoreError::Internal(_) => (Code::Failed, "this is a bug: report it with the command and its output".to_owned()),
        };
        CliError::new(code, error.to_string(), help)
    }
}

fn backend_help(problem: &str) -> String {
    let help = if problem.contains("No space left") {
        "make room where the repository lies, then run the same command again: what was put already is found and used"
    } else if problem.contains("Permission denied") || problem.contains("Read-only") {
        "the repository cannot be written to: check its permissions and its disk"
    } else {
        "check the network and the credentials (AWS_*, GOOGLE_*, AZURE_* in the environment), then run the same command again"
    };
    help.to_owned()
}
