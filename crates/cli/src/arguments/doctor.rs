//! Arguments of the commands that look at an installation: the preflight, the bundle for a report of a fault, shell completions, manual pages.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fabkeep_platform::kubernetes::Purpose;

use super::{Identity, Pin, Where};

/// What must be possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// Backups. This is always checked.
    Backup,
    /// Windows that scale, fence or stop, and their end.
    Window,
    /// Snapshots of every volume.
    Snapshot,
    /// Restores: rights, storage classes, room, the identity.
    Restore,
}

impl From<For> for Purpose {
    fn from(purpose: For) -> Purpose {
        match purpose {
            For::Backup => Purpose::Backup,
            For::Window => Purpose::Window,
            For::Snapshot => Purpose::Snapshot,
            For::Restore => Purpose::Restore,
        }
    }
}

/// What is examined.
#[derive(Debug, Args)]
pub struct Examined {
    /// The repository: a folder or a URL. Without it the repository and its keys are not checked.
    #[arg(long, env = "FABKEEP_REPO")]
    pub repo: Option<String>,
    #[command(flatten)]
    pub place: Where,
    /// The writer key. Default: the file that `init` wrote to the key folder of this machine.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// What must be possible besides a backup. What is missing for anything else is only a note.
    #[arg(long = "for", value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub purposes: Vec<For>,
    /// Leave a node (Organization/node) out. Can be repeated.
    #[arg(long, value_name = "NODE")]
    pub exclude: Vec<String>,
    /// Folder for temporary copies of running nodes' databases. Default: the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// On Kubernetes: try no helper pods. Nodes that only a helper pod can read are not looked at.
    #[arg(long)]
    pub no_pods: bool,
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub examined: Examined,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

#[derive(Debug, Args)]
pub struct Man {
    /// The folder to write the pages to. It is created.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct DebugBundle {
    /// The archive to write (tar.gz). A file that exists is never overwritten.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Take the logs of the last MINUTES minutes; 0 takes none.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub logs: u32,
    #[command(flatten)]
    pub examined: Examined,
}
