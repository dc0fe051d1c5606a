//! The command line of commands that are about a repository only.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::{Identity, Pin, Repo};

#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    pub repo: Repo,
    /// Where to write the identity. An existing identity file is used as it is.
    #[arg(long, env = "FABKEEP_IDENTITY", value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Where to write the writer key.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// Protect the identity file by a passphrase, which is asked for or taken from FABKEEP_PASSPHRASE.
    #[arg(long)]
    pub passphrase: bool,
    /// An additional age recipient (age1…) that may read recovery points. Can be repeated.
    #[arg(long, value_name = "AGE1…")]
    pub recipient: Vec<String>,
}

#[derive(Debug, Args)]
pub struct AddWriter {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    /// Where to write the new writer key. If the file is a writer key of this repository whose certificate is gone, it is certified again.
    #[arg(long, value_name = "FILE")]
    pub writer: PathBuf,
}

#[derive(Debug, Args)]
pub struct Writers {
    #[command(subcommand)]
    pub command: Option<WritersCommand>,
    /// The repository. Without a command its writers are listed.
    #[arg(long, env = "FABKEEP_REPO", value_name = "PLACE", required = true)]
    pub repo: Option<String>,
    #[command(flatten)]
    pub pin: Pin,
}

#[derive(Debug, Subcommand)]
pub enum WritersCommand {
    /// Revoke a writer: nothing that it signs from now on counts, whatever time it claims (needs the identity).
    Revoke(RevokeWriter),
    /// Create a new writer key and revoke the old one, whose recovery points stay trusted (needs the identity).
    Rotate(RotateWriter),
}

#[derive(Debug, Args)]
pub struct RevokeWriter {
    /// The writer's key, or at least its first eight digits, as `fabkeep writers` shows it.
    pub key: String,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    /// The first recovery point that is not trusted any more: points of this writer that were committed before it stay trusted. Without
    /// this option all its points stay trusted.
    #[arg(long, value_name = "POINT")]
    pub distrust_from: Option<String>,
}

#[derive(Debug, Args)]
pub struct RotateWriter {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    /// The writer key file that is replaced. It stays where it is, and cannot write any more.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: PathBuf,
    /// Where to write the new writer key.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
}

#[derive(Debug, Args)]
pub struct Copy {
    /// Names of the recovery points, or prefixes of names, or `latest`. Default: all.
    pub point: Vec<String>,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub pin: Pin,
    /// The destination: a new folder or URL, or an existing copy of this repository.
    #[arg(long, value_name = "PLACE")]
    pub to: String,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub pin: Pin,
    /// Fail if this recovery point is missing: a name that was noted outside of the repository.
    #[arg(long, value_name = "POINT")]
    pub expect_at_least: Option<String>,
}

/// Rules that say which recovery points stay.
#[derive(Debug, Args)]
#[command(next_help_heading = "What stays")]
pub struct Keep {
    /// Keep the newest N points.
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the newest point of each of the newest N hours that have points.
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// The same for days (UTC).
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// The same for weeks, which begin on Monday.
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// The same for months.
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
    /// The same for years.
    #[arg(long, value_name = "N")]
    pub keep_yearly: Option<u32>,
    /// Keep all points that are at most this much older than the newest complete one: 30d, 2w, 1y.
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<jiff::Span>,
    /// Keep all points with this tag. Can be repeated.
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
}

/// How space is freed.
#[derive(Debug, Args)]
pub struct Freeing {
    /// How long what is recorded to be freed stays; every backup must take less than half of it. At least one hour.
    #[arg(long, value_name = "TIME", default_value = "3d")]
    pub grace: jiff::Span,
    /// Free everything at once. Only while no backup, copy or other prune runs, and until this one ends: such a run could lose its data.
    #[arg(long, conflicts_with = "grace")]
    pub no_other_runs: bool,
    /// How much of what is kept may be unused, in percent: if it is more, packs of which the least is needed are packed anew. 100: none are.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub max_unused: u8,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args([
    "point", "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within", "keep_tag",
])))]
pub struct Forget {
    /// Names of the recovery points, or prefixes of names, instead of rules.
    #[arg(conflicts_with_all = [
        "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within", "keep_tag", "network",
    ])]
    pub point: Vec<String>,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    #[command(flatten)]
    pub keep: Keep,
    /// Only points of this network.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// Show what would stay and go, and why, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Run `prune` afterwards.
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub freeing: Freeing,
}

#[derive(Debug, Args)]
pub struct Prune {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    #[command(flatten)]
    pub freeing: Freeing,
    /// Show what would be freed, recorded and packed anew, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Stats {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    #[command(flatten)]
    pub keep: Keep,
}

#[derive(Debug, Args)]
pub struct Tag {
    /// Name of the recovery point, or a prefix of the name, or `latest`.
    pub point: String,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// The writer key: it can add tags if the identity is not on this machine.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// A tag to add. Can be repeated.
    #[arg(long, value_name = "TAG", required_unless_present = "remove")]
    pub add: Vec<String>,
    /// A tag to remove, which needs the identity. Can be repeated.
    #[arg(long, value_name = "TAG")]
    pub remove: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Hold {
    /// Name of the recovery point, or a prefix of the name, or `latest`.
    pub point: String,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// The writer key: it can hold a point if the identity is not on this machine.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
}
