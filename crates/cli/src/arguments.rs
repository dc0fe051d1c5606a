//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fabkeep_engine::{HeightOf, LedgerFrom, RaftSource};
use fabkeep_platform::kubernetes::Mapping;

/// Backs up, verifies and restores Hyperledger Fabric networks.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "Begin with `fabkeep demo`: it backs up, damages and restores a bundled network of real Fabric nodes.\n\
                  Exit codes: 0 done, 1 failed, 2 usage, 3 done with findings, 4 refused, 5 damaged, 130 interrupted."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,

    /// How to print results.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,

    /// No progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// Log what is done, on standard error: -v steps and retries, -vv every request too. Secrets are never logged.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// How to log.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a repository, and the keys to it.
    #[command(after_help = "Examples:\n  \
        fabkeep init --repo /backup/fabric\n  \
        fabkeep init --repo s3://bucket/fabric --identity /safe/fabric.identity\n\n\
        The identity (private key) reads every recovery point; losing it loses them all. Move it off this machine:\n\
        backups need the writer key alone.")]
    Init(Init),
    /// Make a key for one more machine that writes recovery points (needs the identity).
    #[command(
        after_help = "Example:\n  fabkeep add-writer --repo /backup/fabric --identity fabric.identity --writer second.writer"
    )]
    AddWriter(AddWriter),
    /// Find the nodes of a network: on Kubernetes, or below a directory (then an inventory of them is written).
    #[command(after_help = "Examples:\n  \
        fabkeep discover --kubernetes                      # every namespace that holds a Fabric node\n  \
        fabkeep discover --namespace org1 --namespace orderers --output json\n  \
        fabkeep discover --root /srv/fabric                # a host: writes fabkeep.toml\n  \
        fabkeep discover --root /srv/fabric --inventory - | less\n  \
        fabkeep discover --compose docker-compose.yaml     # services, volumes, start and stop commands\n  \
        fabkeep discover --docker                          # the containers of this machine")]
    Discover(Discover),
    /// Capture the network into a new recovery point.
    #[command(after_help = "Examples:\n  \
        fabkeep backup --repo /backup/fabric --kubernetes            # every namespace that holds a Fabric node\n  \
        fabkeep backup --repo /backup/fabric -n org1 -n org2 -n orderers --context production\n  \
        fabkeep backup --repo /backup/fabric                         # hosts; inventory: ./fabkeep.toml\n  \
        fabkeep backup --repo /backup/fabric --root /srv/fabric      # no inventory: discover and back up\n  \
        fabkeep backup --repo /backup/fabric --dry-run               # what would be done\n  \
        fabkeep backup --repo /backup/fabric -k --consistency cut    # one height over all nodes; nothing is stopped\n  \
        fabkeep backup --repo /backup/fabric -k --quiesce scale --client apps/shop   # in a no-transaction window\n  \
        fabkeep backup --repo /backup/fabric -k --quiesce fence,stop # nobody reaches the nodes; then they are stopped\n  \
        fabkeep backup --repo /backup/fabric --quiesce hook --hook-before ./close.sh --hook-after ./open.sh\n  \
        fabkeep backup --repo /backup/fabric --exclude Org1/peer1    # leave a broken node out")]
    Backup(Backup),
    /// Show the network as it is now: who runs, heights and lag, raft leaders, certificates, logs, an open window.
    #[command(after_help = "Examples:\n  \
        fabkeep status --kubernetes\n  \
        fabkeep status --inventory fabkeep.toml --watch 5\n  \
        fabkeep status --kubernetes --files --output json            # heights from the block files too, compared")]
    Status(Status),
    /// Undo a no-transaction window that a killed backup left open.
    #[command(after_help = "Examples:\n  fabkeep resume --kubernetes\n  fabkeep resume --inventory fabkeep.toml\n  \
        fabkeep resume --kubernetes --hook-after ./open.sh           # the window's own record is on another machine\n  \
        fabkeep resume --kubernetes --unsigned                       # a note of an older version: asks for every step")]
    Resume(Resume),
    /// Copy recovery points to another place, which is an equal repository then; needs no identity.
    #[command(after_help = "Examples:\n  \
        fabkeep copy --repo /backup/fabric --to s3://bucket/fabric       # all of them; again: what is new\n  \
        fabkeep copy --repo /backup/fabric --to /mnt/second 20261123T1415\n\n\
        A place that holds chosen points only misses those that they were committed behind (R2).")]
    Copy(Copy),
    /// List the repository's recovery points.
    #[command(after_help = "Example:\n  fabkeep list --repo /backup/fabric --output json")]
    List(List),
    /// Show a recovery point: channels, nodes, keys, findings.
    #[command(
        after_help = "Examples:\n  fabkeep show --repo /backup/fabric\n  fabkeep show --repo /backup/fabric 20261123T1415 --files\n  fabkeep show --repo /backup/fabric --names"
    )]
    Show(Show),
    /// Verify a recovery point, or a channel's block files.
    #[command(after_help = "Examples:\n  \
        fabkeep verify --repo /backup/fabric                         # everything, with the identity if it is here\n  \
        fabkeep verify --repo /backup/fabric --level quick --all     # objects exist, signatures hold: for every day\n  \
        fabkeep verify --chain /srv/fabric/peer0/ledgersData/chains/chains/mychannel")]
    Verify(Verify),
    /// Restore a recovery point, whole or some nodes.
    #[command(after_help = "Examples:\n  \
        fabkeep restore --repo /backup/fabric --kubernetes --dry-run                   # into the cluster: the plan\n  \
        fabkeep restore --repo /backup/fabric --kubernetes                             # an empty cluster, or lost namespaces\n  \
        fabkeep restore --repo /backup/fabric --kubernetes --missing                   # what was lost; leave alone what is there\n  \
        fabkeep restore --repo /backup/fabric --kubernetes --node org1/peer0 --replace # one node; its data goes aside\n  \
        fabkeep restore --repo /backup/fabric --to /srv/restored                       # into a folder\n  \
        fabkeep restore --repo /backup/fabric --inventory fabkeep.toml --dry-run       # in place: the plan\n  \
        fabkeep restore --repo /backup/fabric --inventory fabkeep.toml --replace       # in place: what is there goes aside\n  \
        fabkeep restore --repo /backup/fabric --inventory fabkeep.toml --node Org1/peer0 --replace --stop --start\n  \
        fabkeep restore --repo /backup/fabric -k --node org1/peer1 --ledger-from org1/peer1=org1/peer0 --replace\n  \
        fabkeep restore --repo /backup/fabric -k --node org1/ca --replace --ca-keep tls,config    # a CA: its new TLS certificate stays\n  \
        fabkeep restore --repo /backup/fabric -k --map-namespace org1=org1-copy --storage-class gp2=fast --dry-run")]
    Restore(Restore),
    /// Move a network to another cluster, other namespaces or hosts: capture, stop, capture the difference, restore there, prove.
    #[command(after_help = "Examples:\n  \
        fabkeep migrate --repo /backup/fabric --context old --to-context new --storage-class gp2=fast --dry-run\n  \
        fabkeep migrate --repo /backup/fabric --context old --to-context new --storage-class gp2=fast\n  \
        fabkeep migrate --repo /backup/fabric -n org1 -n orderers --map-namespace org1=org1-new --map-namespace orderers=orderers-new\n  \
        fabkeep migrate --repo /backup/fabric --inventory here.toml --to-inventory there.toml\n\n\
        The source stays stopped in the end, with all of its data: two networks with the same keys must not run. `fabkeep resume` with the\n\
        same source options starts it again, if the new one is not to be.")]
    Migrate(Migrate),
    /// Remove what a killed run left in a cluster: helper pods.
    #[command(after_help = "Examples:\n  \
        fabkeep clean --kubernetes --dry-run\n  \
        fabkeep clean -n org1 -n org2 --older-than 3600")]
    Clean(Clean),
    /// Back up, damage, verify and restore a bundled network of real Fabric nodes.
    #[command(after_help = "Example:\n  fabkeep demo --dir /tmp/fabkeep-demo")]
    Demo(Demo),
}

#[derive(Debug, Args)]
pub struct Repo {
    /// The repository: a folder or a URL (s3://bucket/prefix, gs://…, az://…; credentials from the environment).
    #[arg(long, env = "FABKEEP_REPO")]
    pub repo: String,
}

/// What else says that a repository is the right one.
#[derive(Debug, Args)]
pub struct Pin {
    /// The repository's root key, as `init` printed it: another one is refused. Identities that are recipients only need it to read; without
    /// it what `init` noted on this machine, or the writer key, says which it is.
    #[arg(id = "root_key", long = "root", env = "FABKEEP_ROOT", value_name = "KEY")]
    pub root: Option<String>,
}

#[derive(Debug, Args)]
pub struct Copy {
    /// The recovery points: their names or the beginnings of them, or `latest`; without one, all.
    pub point: Vec<String>,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub pin: Pin,
    /// The other place: a folder or a URL; new, or a copy of this repository.
    #[arg(long, value_name = "PLACE")]
    pub to: String,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub pin: Pin,
    /// A recovery point that must be there: what another place knows of the repository.
    #[arg(long, value_name = "POINT")]
    pub expect_at_least: Option<String>,
}

#[derive(Debug, Args)]
pub struct Identity {
    /// The identity file; without it the one that `init` wrote to its usual place, if it is there.
    #[arg(long, env = "FABKEEP_IDENTITY", value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// Which network of which cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct Cluster {
    /// The network lives on Kubernetes; without --namespace or --selector: all namespaces that hold a Fabric node.
    #[arg(long, short = 'k')]
    pub kubernetes: bool,
    /// A namespace of the network: an organization. May be given more than once.
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// Namespaces with these labels.
    #[arg(long, value_name = "LABELS", conflicts_with = "namespace")]
    pub selector: Option<String>,
    /// A kubeconfig; without it KUBECONFIG, ~/.kube/config or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; without it the current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Image of helper pods: any with sh, tar and sha256sum that the cluster can pull.
    #[arg(long, env = "FABKEEP_HELPER_IMAGE", value_name = "IMAGE", default_value = "busybox:1.36")]
    pub helper_image: String,
    /// What to call the network; without it, its namespaces' names.
    #[arg(long, value_name = "NAME")]
    pub network_name: Option<String>,
}

#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    pub repo: Repo,
    /// Where to write the identity (an existing identity file is used instead).
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Where to write the writer key.
    #[arg(long, value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// Another age recipient (age1…) that may read, beside the identity. May be given more than once.
    #[arg(long, value_name = "AGE1…")]
    pub recipient: Vec<String>,
}

#[derive(Debug, Args)]
pub struct AddWriter {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    /// Where to write the new writer key. A writer key of this repository that is there is certified again, where its certificate is gone.
    #[arg(long, value_name = "FILE")]
    pub writer: PathBuf,
}

#[derive(Debug, Args)]
pub struct Discover {
    #[command(flatten)]
    pub cluster: Cluster,
    /// The directory to look below.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubernetes", "namespace", "selector"])]
    pub root: Option<PathBuf>,
    /// The compose file whose containers are the nodes. May be given more than once, as to docker compose.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubernetes", "namespace", "selector", "root"])]
    pub compose: Vec<PathBuf>,
    /// The containers of this machine are the nodes: `docker inspect` is asked.
    #[arg(long, conflicts_with_all = ["kubernetes", "namespace", "selector", "root", "compose"])]
    pub docker: bool,
    /// Where to write the inventory; `-` prints it.
    #[arg(long, value_name = "FILE", default_value = "fabkeep.toml")]
    pub inventory: PathBuf,
}

#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub place: Where,
    /// The writer key; without it the one that `init` wrote to its usual place.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// Leave a node out (Organization/node). May be given more than once.
    #[arg(long, value_name = "NODE")]
    pub exclude: Vec<String>,
    /// Keep state, history and index too: nodes start faster after a restore.
    #[arg(long)]
    pub include_derived: bool,
    /// Read everything again, also what an earlier recovery point holds unchanged.
    #[arg(long)]
    pub reread: bool,
    /// How often a running node's database is copied until a copy proves consistent.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub live_attempts: u32,
    /// Folder for copies of running nodes' databases.
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// On Kubernetes: copy the files of CA database servers, instead of dumping their databases by pg_dump or mysqldump in their pods.
    #[arg(long)]
    pub copy_databases: bool,
    #[command(flatten)]
    pub window: Window,
    /// Print the plan and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quiesce {
    /// No window: each node as it is when it is read.
    None,
    /// Wait until heights are equal; whoever sends transactions is stopped by you.
    Wait,
    /// Run --hook-before, and --hook-after in the end.
    Hook,
    /// Scale the workloads of --client to 0 (Kubernetes).
    Scale,
    /// NetworkPolicies around peers and orderers that let in nothing but each other (Kubernetes).
    Fence,
    /// Stop the nodes when heights are equal.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    /// As the nodes are read; --quiesce makes it one height.
    AsRead,
    /// Every chain cut at a height that all peers have and the orderers exceed. Where a rule forbids it, --quiesce is used if given.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnGrowth {
    /// The backup is refused.
    Fail,
    /// The window goes on until a capture saw no growth, or --window-deadline is over.
    Extend,
}

/// How the nodes' data become one whole.
#[derive(Debug, Args)]
#[command(next_help_heading = "Consistency")]
pub struct Window {
    /// What keeps transactions away while the difference is read. Several: --quiesce fence,stop.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE")]
    pub quiesce: Vec<Quiesce>,
    /// What makes the nodes' data one whole.
    #[arg(long, value_enum, default_value_t = Consistency::AsRead)]
    pub consistency: Consistency,
    /// Command that stops the transactions (--quiesce hook).
    #[arg(long, value_name = "COMMAND", requires = "hook_after")]
    pub hook_before: Option<String>,
    /// Command that lets them flow again; it may be run more than once.
    #[arg(long, value_name = "COMMAND", requires = "hook_before")]
    pub hook_after: Option<String>,
    /// A workload that sends transactions: namespace/name or namespace/kind/name (--quiesce scale). May be given more than once.
    #[arg(long, value_name = "WORKLOAD")]
    pub client: Vec<fabkeep_platform::ObjectRef>,
    /// How long heights may take to become equal, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub window_deadline: u64,
    /// How long heights must stay equal once transactions are kept away, in seconds; without it the longest BatchTimeout of the channels.
    #[arg(long, value_name = "SECONDS")]
    pub settle: Option<f64>,
    /// What a chain that grows inside the window means.
    #[arg(long, value_enum, default_value_t = OnGrowth::Fail)]
    pub on_growth: OnGrowth,
}

/// Where the network lives.
#[derive(Debug, Args)]
pub struct Where {
    /// The inventory.
    #[arg(long, value_name = "FILE", default_value = "fabkeep.toml", conflicts_with = "root")]
    pub inventory: PathBuf,
    /// Discover the nodes below this directory instead of reading an inventory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubernetes", "namespace", "selector"])]
    pub root: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: Cluster,
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub place: Where,
    /// Read every node's block files too, and compare them with what the node says.
    #[arg(long)]
    pub files: bool,
    /// Errors in the logs since so many minutes; 0 for none.
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    pub logs: u32,
    /// Look again every so many seconds, until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5")]
    pub watch: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    pub place: Where,
    /// The command that lets transactions flow again, where this machine has no record of the window's hook.
    #[arg(long, value_name = "COMMAND")]
    pub hook_after: Option<String>,
    /// Go through notes of windows that this machine did not sign: each step is shown and asked for, and no command of a note is run.
    #[arg(long, conflicts_with = "hook_after")]
    pub unsigned: bool,
}

#[derive(Debug, Args)]
pub struct Show {
    /// The recovery point: its name or the beginning of it.
    #[arg(default_value = "latest")]
    pub point: String,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// List every file.
    #[arg(long)]
    pub files: bool,
    /// List the blocks of a channel: when their transactions were made, how many, which change its configuration.
    #[arg(long, value_name = "CHANNEL")]
    pub blocks: Option<String>,
    /// Write every channel's genesis block into this directory, as `osnadmin channel join` and `peer channel join` take it.
    #[arg(long, value_name = "DIR")]
    pub genesis: Option<PathBuf>,
    /// List every name in channel configurations, chaincode packages and TLS certificates, and what answers to it.
    #[arg(long)]
    pub names: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Objects exist with their sizes, signatures hold.
    Quick,
    /// Every object read, every chain walked, every signature checked, every file made again.
    Full,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// The recovery point: its name or the beginning of it.
    #[arg(default_value = "latest")]
    pub point: String,
    /// The repository: a folder or a URL.
    #[arg(long, env = "FABKEEP_REPO", required_unless_present = "chain")]
    pub repo: Option<String>,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// The writer key: what is found damaged is recorded by it, where there is no identity that the root follows from.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// A recovery point that must be there: what another place knows of the repository.
    #[arg(long, value_name = "POINT", conflicts_with = "chain")]
    pub expect_at_least: Option<String>,
    /// How deep.
    #[arg(long, value_enum, default_value_t = Level::Full)]
    pub level: Level,
    /// Every recovery point.
    #[arg(long)]
    pub all: bool,
    /// Verify the block files of one channel in this directory instead of a recovery point.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["all", "point"])]
    pub chain: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workloads {
    /// As they were captured.
    Captured,
    /// Those that are there: scaled down, filled, scaled up.
    Existing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RaftState {
    /// Written from each channel's last block; every chain ends at the highest one.
    Rebuilt,
    /// The captured logs; one orderer's where the captured heights differ.
    Captured,
}

impl From<RaftState> for RaftSource {
    fn from(state: RaftState) -> Self {
        match state {
            RaftState::Rebuilt => RaftSource::Rebuilt,
            RaftState::Captured => RaftSource::Captured,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaPart {
    /// The TLS certificate and its key.
    Tls,
    /// `fabric-ca-server-config.yaml`.
    Config,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaAll {
    /// Key, certificate, database, TLS certificate, server configuration.
    All,
}

/// Where on a cluster what was captured goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Another place")]
pub struct AnotherPlace {
    /// On Kubernetes: restore a namespace under another name. The nodes' old names are kept alive in their pods. May be given more than once.
    #[arg(long, value_name = "OLD=NEW")]
    pub map_namespace: Vec<Mapping>,
    /// On Kubernetes: give claims another storage class; NEW alone gives it to all. May be given more than once.
    #[arg(long, value_name = "OLD=NEW")]
    pub storage_class: Vec<Mapping>,
    /// On Kubernetes: take images from another registry: docker.io/hyperledger=registry.local/fabric. May be given more than once.
    #[arg(long, value_name = "OLD=NEW")]
    pub registry: Vec<Mapping>,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    /// The writer key; without it the one that `init` wrote to its usual place.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    #[command(flatten)]
    pub source: Where,
    /// The cluster to go to: a context of the kubeconfig; without --to-context, --to-kubeconfig and --to-inventory the source's own cluster.
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub to_context: Option<String>,
    /// The kubeconfig of the cluster to go to.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub to_kubeconfig: Option<PathBuf>,
    /// Hosts to go to: an inventory.
    #[arg(long, value_name = "FILE", help_heading = "Target", conflicts_with_all = ["to_context", "to_kubeconfig"])]
    pub to_inventory: Option<PathBuf>,
    #[command(flatten)]
    pub place: AnotherPlace,
    #[command(flatten)]
    pub window: Window,
    /// Where the consensus state of orderers that are all restored together comes from.
    #[arg(long, value_enum, default_value_t = RaftState::Rebuilt)]
    pub raft_state: RaftState,
    /// On Kubernetes: how long each stage (databases, CAs, orderers, peers, …) may take to become ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub deadline: u64,
    /// Go on although this rule is broken (its code, as K5). It is recorded. May be given more than once.
    #[arg(long, value_name = "RULE")]
    pub r#override: Vec<String>,
    /// Capture once without stopping anything, show the plan for the target, and do nothing more.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The recovery point: its name or the beginning of it.
    #[arg(default_value = "latest")]
    pub point: String,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// Restore below this folder, in the captured layout.
    #[arg(long, value_name = "DIR", conflicts_with = "inventory")]
    pub to: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: Cluster,
    /// Restore into the places that this inventory names.
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Restore this node only (Organization/node). May be given more than once.
    #[arg(long, value_name = "NODE")]
    pub node: Vec<String>,
    /// Give a peer the ledger of another peer of its organization; its keys and chaincode packages stay its own.
    #[arg(long, value_name = "PEER=DONOR")]
    pub ledger_from: Vec<LedgerFrom>,
    /// Let an orderer come back with its keys only, and take its ledgers from the others: safer than an older copy beside orderers that went
    /// on. May be given more than once.
    #[arg(long, value_name = "ORDERER")]
    pub replicate: Vec<String>,
    /// Where the consensus state of orderers that are all restored together comes from.
    #[arg(long, value_enum, default_value_t = RaftState::Rebuilt)]
    pub raft_state: RaftState,
    /// Go back to an earlier height of a channel: this many of its blocks stay. All peers and orderers of the recovery point end there; what
    /// comes of later blocks is given up. `fabkeep show --blocks CHANNEL` lists the blocks. May be given more than once.
    #[arg(long, value_name = "CHANNEL=HEIGHT")]
    pub at_height: Vec<HeightOf>,
    /// Go back to a time (RFC 3339): each channel to the height before its first block with a transaction made later.
    #[arg(long, value_name = "TIME")]
    pub before: Option<jiff::Timestamp>,
    /// Let certificate authorities keep what is there of these: their TLS certificate, their server configuration. The rest is replaced.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub ca_keep: Vec<CaPart>,
    /// Replace everything of certificate authorities, as it is done without --ca-keep.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "ca_keep")]
    pub ca_replace: Option<CaAll>,
    /// Set existing data aside and take its place.
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub place: AnotherPlace,
    /// On Kubernetes: restore only what is missing, leave alone what is there.
    #[arg(long, conflicts_with = "replace")]
    pub missing: bool,
    /// On Kubernetes: create the captured workloads, or fill the volumes of those that Helm or GitOps has deployed again.
    #[arg(long, value_enum, default_value_t = Workloads::Captured)]
    pub workloads: Workloads,
    /// On Kubernetes: leave the workloads at 0 replicas in the end.
    #[arg(long, alias = "keep-asleep")]
    pub no_start: bool,
    /// On Kubernetes: how long each stage (databases, CAs, orderers, peers, …) may take to become ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub deadline: u64,
    /// Stop running nodes first, by their stop commands.
    #[arg(long, requires = "inventory")]
    pub stop: bool,
    /// Take this node for stopped where nothing tells whether it runs. May be given more than once.
    #[arg(long, value_name = "NODE", requires = "inventory")]
    pub assume_stopped: Vec<String>,
    /// Start the nodes afterwards, by their start commands: CAs, then orderers, then peers.
    #[arg(long, requires = "inventory")]
    pub start: bool,
    /// Go on although this rule is broken (its code, as I1). It is recorded. May be given more than once.
    #[arg(long, value_name = "RULE")]
    pub r#override: Vec<String>,
    /// Print the plan and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Where to work; must not exist.
    #[arg(long, value_name = "DIR", default_value = "fabkeep-demo")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Clean {
    #[command(flatten)]
    pub cluster: Cluster,
    /// Only what is older than this many seconds: a younger one may be of a run that goes on.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub older_than: i64,
    /// Print what would be removed.
    #[arg(long)]
    pub dry_run: bool,
}
