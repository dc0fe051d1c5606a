//! The command line of reports and attestations.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fabkeep_engine::BlockRange;

use super::{Identity, Pin, Repo, Where};

#[derive(Debug, Args)]
pub struct Report {
    /// Name of the recovery point, or a prefix of the name.
    #[arg(default_value = "latest")]
    pub point: String,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// Write the report as one HTML page, without scripts and other files. An earlier report with this name is
    /// replaced.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Attest {
    #[command(subcommand)]
    pub command: Option<AttestCommand>,
    /// Name of the recovery point, or a prefix of the name.
    #[arg(default_value = "latest")]
    pub point: String,
    /// The repository: a folder or a URL (s3://bucket/prefix, gs://…, az://…; credentials from the environment).
    #[arg(long, env = "FABKEEP_REPO", required = true)]
    pub repo: Option<String>,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// The writer key. It signs the statement if the identity is not the one from which the root key is derived.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// Write the statement into this file, which must not exist. Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// State only this channel. Can be repeated. Default: all channels, with their names.
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Vec<String>,
    /// State the header hash of every block in this range, too: FIRST..LAST are numbers of blocks. Can be repeated.
    #[arg(long, value_name = "CHANNEL=FIRST..LAST")]
    pub hashes: Vec<BlockRange>,
}

#[derive(Debug, Subcommand)]
pub enum AttestCommand {
    /// Compare a statement of another organization with the chains of your own peers and orderers. Changes nothing and
    /// sends nothing.
    #[command(after_help = "Examples:\n  \
        fabkeep attest verify org1.attestation --key 5f2c… --inventory fabkeep.toml\n  \
        fabkeep attest verify org1.attestation --key 5f2c… --kubernetes\n\n\
        Ends with 0 if everything agrees, 3 with warnings (a node lags, the signer is not known), 5 if the statement was changed or is \
        signed by somebody else, 7 if a chain forks, a world state differs or nothing could be compared.")]
    Verify(AttestVerify),
}

#[derive(Debug, Args)]
pub struct AttestVerify {
    /// The statement; `-` reads standard input.
    pub statement: PathBuf,
    /// The key that must have signed it: the root key of the other organization's repository, as its `init` printed it,
    /// or a writer's key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    #[command(flatten)]
    pub place: Where,
}
