//! Options of drills.

use std::path::PathBuf;

use clap::Args;
use fabkeep_engine::HeightOf;
use fabkeep_platform::kubernetes::Mapping;

use super::{Identity, Pin, RaftState, Repo};

#[derive(Debug, Args)]
pub struct Drill {
    /// Name of the recovery point, or a prefix of the name.
    #[arg(default_value = "latest")]
    pub point: String,
    /// Drill one of all recovery points, chosen at random.
    #[arg(long, conflicts_with = "point")]
    pub random: bool,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// The writer key. It signs the record of the drill if the identity is not the one from which the root key is derived.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// Go back to an earlier height of a channel: HEIGHT blocks are kept. Can be repeated.
    #[arg(long, value_name = "CHANNEL=HEIGHT")]
    pub at_height: Vec<HeightOf>,
    /// Go back to a time (RFC 3339): each channel keeps the blocks before the first one with a later transaction.
    #[arg(long, value_name = "TIME")]
    pub before: Option<jiff::Timestamp>,
    /// Source of the consensus state of orderers.
    #[arg(long, value_enum, default_value_t = RaftState::Rebuilt)]
    pub raft_state: RaftState,
    /// A command that checks what was restored, with variables FABKEEP_DRILL_… for namespaces and Services or the folder. Exit code 0: as it
    /// should be.
    #[arg(long, value_name = "COMMAND")]
    pub check: Option<String>,
    /// Exit code 8 if the drill takes longer than this, teardown not counted: 90s, 15m, 2h.
    #[arg(long, value_name = "TIME")]
    pub max_rto: Option<jiff::Span>,
    /// Exit code 8 if the recovery point is older than this: 1h, 1d.
    #[arg(long, value_name = "TIME")]
    pub max_rpo: Option<jiff::Span>,
    /// Leave what was restored for a look, and print the command that removes it.
    #[arg(long)]
    pub keep: bool,
    /// How long each stage (databases, CAs, orderers, peers, …) and the check may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub deadline: u64,
    /// Continue although this rule is broken (its code, e.g. P10). Can be repeated.
    #[arg(long, value_name = "RULE")]
    pub r#override: Vec<String>,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub scratch: Scratch,
    #[command(flatten)]
    pub folder: ScratchFolder,
}

/// Scratch namespaces.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct Scratch {
    /// Drill in a cluster: that of the current context.
    #[arg(long, short = 'k')]
    pub kubernetes: bool,
    /// The kubeconfig file. Default: KUBECONFIG, ~/.kube/config or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig: it may be another cluster than the network's.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The context of the cluster where the network runs, if that is another one: its heights are compared.
    #[arg(long, value_name = "NAME")]
    pub live_context: Option<String>,
    /// Image of helper pods. It needs sh, tar, sha256sum and nc, and the cluster must be able to pull it.
    #[arg(long, env = "FABKEEP_HELPER_IMAGE", value_name = "IMAGE", default_value = "busybox:1.36")]
    pub helper_image: String,
    /// Scratch namespaces have this prefix and the captured name. They must not exist.
    #[arg(long, value_name = "PREFIX", default_value = "drill-")]
    pub prefix: String,
    /// Replace the storage class of claims. NEW alone applies to all claims. Can be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub storage_class: Vec<Mapping>,
    /// Pull images from another registry, e.g. docker.io/hyperledger=registry.local/fabric. Can be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub registry: Vec<Mapping>,
    /// Drill although the cluster does not enforce NetworkPolicies, or nothing shows that it does.
    #[arg(long)]
    pub allow_unfenced: bool,
}

/// A scratch folder.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hosts")]
pub struct ScratchFolder {
    /// Drill in a folder of this machine; the heights of this inventory's running nodes are compared.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubernetes", "kubeconfig", "context"])]
    pub inventory: Option<PathBuf>,
    /// The folder in which the drill makes its own. Default: beside the repository, or the system's temporary folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubernetes", "kubeconfig", "context"])]
    pub to: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Drills {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// Only drills of this recovery point.
    #[arg(long, value_name = "POINT")]
    pub of: Option<String>,
    /// Only the last N.
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
}
