//! The command line.

mod doctor;
mod drill;
mod report;
mod repository;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fabkeep_engine::{HeightOf, LedgerFrom, RaftSource};
use fabkeep_platform::kubernetes::Mapping;

pub use doctor::{Completions, DebugBundle, Doctor, Examined, Man, Shell};
pub use drill::{Drill, Drills};
pub use report::{Attest, AttestCommand, AttestVerify, Report};
pub use repository::{
    AddWriter, Copy, Forget, Freeing, Hold, Init, Keep, List, Prune, RevokeWriter, RotateWriter, Stats, Tag, Writers,
    WritersCommand,
};

/// Backs up, verifies and restores Hyperledger Fabric networks.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 110,
    after_help = "Begin with `fabkeep demo`: it backs up, damages and restores a bundled network of real Fabric nodes.\n\
                  Exit codes: 0 done, 1 failed, 2 usage, 3 done with findings, 4 refused, 5 damaged, 6 incomplete, 7 unproven, \
                  8 over a limit, 130 interrupted."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,

    /// Format of the results.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,

    /// Print no progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// Log to standard error: -v steps and retries, -vv every request too. FABKEEP_LOG sets a level or a filter instead.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Format of the log.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a repository and its keys.
    #[command(after_help = "Examples:\n  \
        fabkeep init --repo /backup/fabric\n  \
        fabkeep init --repo s3://bucket/fabric --identity /safe/fabric.identity\n\n\
        The identity (private key) reads every recovery point; if it is lost, all recovery points are lost.\n\
        Move it away from this machine: backups need only the writer key.")]
    Init(Init),
    /// Create a writer key for another backup machine (needs the identity).
    #[command(
        after_help = "Example:\n  fabkeep add-writer --repo /backup/fabric --identity fabric.identity --writer second.writer"
    )]
    AddWriter(AddWriter),
    /// List the writers of a repository, revoke one, or replace its key.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  \
        fabkeep writers --repo /backup/fabric                                  # who may write, and what each has written\n  \
        fabkeep writers revoke 5f2c9a01 --repo /backup/fabric --identity fabric.identity\n  \
        fabkeep writers revoke 5f2c9a01 --distrust-from 20261123T1415 --repo /backup/fabric --identity fabric.identity\n  \
        fabkeep writers rotate --writer old.writer --to new.writer --repo /backup/fabric --identity fabric.identity"
    )]
    Writers(Writers),
    /// Find the nodes of a network on Kubernetes, or on this machine (this writes an inventory).
    #[command(after_help = "Examples:\n  \
        fabkeep discover --kubernetes                      # every namespace that contains a Fabric node\n  \
        fabkeep discover --namespace org1 --namespace orderers --output json\n  \
        fabkeep discover --root /srv/fabric                # a host; writes fabkeep.toml\n  \
        fabkeep discover --root /srv/fabric --inventory - | less\n  \
        fabkeep discover --compose docker-compose.yaml     # services, volumes, start and stop commands\n  \
        fabkeep discover --docker                          # the containers of this machine")]
    Discover(Discover),
    /// Capture a network into a new recovery point.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep backup --kubernetes                   # every namespace that contains a Fabric node\n  \
        fabkeep backup -n org1 -n org2 -n orderers --context production\n  \
        fabkeep backup                                # hosts; inventory ./fabkeep.toml\n  \
        fabkeep backup --root /srv/fabric             # without an inventory: discover and back up\n  \
        fabkeep backup --dry-run                      # print the plan\n  \
        fabkeep backup -k --consistency cut           # one height for all nodes; stops nothing\n  \
        fabkeep backup -k --quiesce scale --client apps/shop   # in a no-transaction window\n  \
        fabkeep backup -k --quiesce fence,stop        # isolate the nodes, then stop them\n  \
        fabkeep backup --quiesce hook --hook-before ./close.sh --hook-after ./open.sh\n  \
        fabkeep backup --exclude Org1/peer1           # leave a broken node out")]
    Backup(Backup),
    /// Show the current state of a network: running nodes, heights and lag, raft leaders, certificates, logs, open windows.
    #[command(after_help = "Examples:\n  \
        fabkeep status --kubernetes\n  \
        fabkeep status --inventory fabkeep.toml --watch 5\n  \
        fabkeep status --kubernetes --files --output json            # also compares the block files")]
    Status(Status),
    /// Undo a no-transaction window that a killed backup left open.
    #[command(after_help = "Examples:\n  fabkeep resume --kubernetes\n  fabkeep resume --inventory fabkeep.toml\n  \
        fabkeep resume --kubernetes --hook-after ./open.sh           # if this machine's record is lost\n  \
        fabkeep resume --kubernetes --unsigned                       # an unsigned record: asks before each step")]
    Resume(Resume),
    /// Copy recovery points to another location, which becomes an equivalent repository; needs no identity.
    #[command(after_help = "Examples:\n  \
        fabkeep copy --repo /backup/fabric --to s3://bucket/fabric       # all points; a second run copies new ones\n  \
        fabkeep copy --repo /backup/fabric --to /mnt/second 20261123T1415\n\n\
        A copy of selected points reports the points before them as missing (R2).")]
    Copy(Copy),
    /// List the recovery points of a repository.
    #[command(after_help = "Example:\n  fabkeep list --repo /backup/fabric --output json")]
    List(List),
    /// Give up recovery points, by rules or by name; `prune` then frees what only they need. Needs the identity.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --dry-run   # what stays and goes, and why\n  \
        fabkeep forget --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --prune     # once a month\n  \
        fabkeep forget --keep-within 30d --keep-tag audit --network shop\n  \
        fabkeep forget 20261123T1415\n\n\
        The rules hold for each network by itself, in UTC; only complete points count. The last complete point of a network and points on \
        hold always stay.")]
    Forget(Forget),
    /// Free what no recovery point needs: now what an earlier prune recorded, later what this one records. Needs the identity.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep prune --dry-run\n  \
        fabkeep prune                                  # safe beside running backups\n  \
        fabkeep prune --no-other-runs                  # frees everything at once; no backup or copy may run\n  \
        fabkeep prune --max-unused 0                   # also packs anew what is needed in part, whatever that costs\n\n\
        Packs of which recovery points need a small part are packed anew: the part is read and written again, and the old packs are freed as \
        everything else. A killed prune loses nothing; the next one continues.")]
    Prune(Prune),
    /// Show what the bytes of a repository are for: by network, by recovery point, by kind; and how it grows.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep stats\n  \
        fabkeep stats --keep-daily 7 --keep-monthly 12   # what forgetting by these rules would free")]
    Stats(Stats),
    /// Add tags to a recovery point, or remove them.
    #[command(after_help = "Examples:\n  fabkeep tag --repo /backup/fabric latest --add audit-2026\n  \
        fabkeep tag --repo /backup/fabric 20261123T1415 --remove audit-2026     # needs the identity")]
    Tag(Tag),
    /// Keep a recovery point whatever `forget` is asked to do.
    #[command(after_help = "Example:\n  fabkeep hold --repo /backup/fabric 20261123T1415")]
    Hold(Hold),
    /// End the hold of a recovery point. Needs the identity.
    #[command(after_help = "Example:\n  fabkeep release --repo /backup/fabric 20261123T1415")]
    Release(Hold),
    /// Show a recovery point: channels, nodes, keys, findings.
    #[command(
        after_help = "Examples:\n  fabkeep show --repo /backup/fabric\n  fabkeep show --repo /backup/fabric 20261123T1415 --files\n  fabkeep show --repo /backup/fabric --names"
    )]
    Show(Show),
    /// Report everything about a recovery point: verdict, RPO, what was proven, heights, sizes, certificates, findings, commands.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep report --html report.html             # one page, without scripts; prints well\n  \
        fabkeep report 20261123T1415 --output json    # docs/report.schema.json describes the document")]
    Report(Report),
    /// Write a signed statement about a recovery point that contains hashes and nothing private, or verify one with your own nodes.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep attest --file org1.attestation        # heights, header hashes, commit hashes; no keys, no names of nodes, no data\n  \
        fabkeep attest 20261123T1415 --channel mychannel --file mychannel.attestation\n  \
        fabkeep attest verify org1.attestation --key 5f2c… --inventory fabkeep.toml   # what another organization runs")]
    Attest(Attest),
    /// Verify recovery points, or the block files of one channel.
    #[command(after_help = "Examples:\n  \
        fabkeep verify --repo /backup/fabric                         # full; uses the identity if this machine has it\n  \
        fabkeep verify --repo /backup/fabric --level quick --all     # objects and signatures only: for daily use\n  \
        fabkeep verify --chain /srv/fabric/peer0/ledgersData/chains/chains/mychannel")]
    Verify(Verify),
    /// Restore a recovery point, or some of its nodes.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep restore --kubernetes --dry-run        # print the plan for the cluster\n  \
        fabkeep restore --kubernetes                  # an empty cluster, or lost namespaces\n  \
        fabkeep restore --kubernetes --missing        # only what is missing\n  \
        fabkeep restore -k --node org1/peer0 --replace          # one node; its data is set aside\n  \
        fabkeep restore --to /srv/restored            # into a folder\n  \
        fabkeep restore --inventory fabkeep.toml --dry-run      # print the plan for these hosts\n  \
        fabkeep restore --inventory fabkeep.toml --replace      # in place; existing data is set aside\n  \
        fabkeep restore --inventory fabkeep.toml --node Org1/peer0 --replace --stop --start\n  \
        fabkeep restore -k --node org1/peer1 --ledger-from org1/peer1=org1/peer0 --replace\n  \
        fabkeep restore -k --node org1/ca --replace --ca-keep tls,config\n  \
        fabkeep restore --inventory fabkeep.toml --replace --at-height mychannel=1200   # an earlier height\n  \
        fabkeep restore -k --map-namespace org1=org1-copy --storage-class gp2=fast --dry-run")]
    Restore(Restore),
    /// Move a network to another cluster, other namespaces or hosts: capture, stop, capture the difference, restore, verify.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep migrate --context old --to-context new --storage-class gp2=fast --dry-run\n  \
        fabkeep migrate --context old --to-context new --storage-class gp2=fast\n  \
        fabkeep migrate -n org1 -n orderers --map-namespace org1=org1-new --map-namespace orderers=orderers-new\n  \
        fabkeep migrate --inventory here.toml --to-inventory there.toml\n\n\
        The source stays stopped and keeps all of its data: two networks with the same keys must not run.\n\
        To give the target up, remove it and run `fabkeep resume` with the options of the source: it starts the source.")]
    Migrate(Migrate),
    /// Rehearse a restore beside production: restore, start, look, measure, remove. Only what the drill has made is ever removed.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep drill --kubernetes --dry-run\n  \
        fabkeep drill --kubernetes --max-rto 15m --max-rpo 1h     # scratch namespaces drill-…, closed off by NetworkPolicies\n  \
        fabkeep drill --context spare --live-context production   # in another cluster\n  \
        fabkeep drill -k --check ./query-every-channel.sh         # your own check counts too\n  \
        fabkeep drill -k --random --keep                          # leaves it for a look\n  \
        fabkeep drill --inventory fabkeep.toml --to /mnt/scratch  # hosts: proves the data, starts nothing\n\n\
        Every drill is recorded in the repository (`fabkeep drills`). After a kill `fabkeep clean` removes what it left.")]
    Drill(Drill),
    /// List the drills that were made: what was drilled, how it ended, how long it took.
    #[command(
        after_help = "Examples:\n  fabkeep drills --repo /backup/fabric\n  fabkeep drills --repo /backup/fabric --last 1 --output json"
    )]
    Drills(Drills),
    /// Remove helper pods and drills that a killed run left in a cluster, or drills in a folder.
    #[command(after_help = "Examples:\n  \
        fabkeep clean --kubernetes --dry-run\n  \
        fabkeep clean -n org1 -n org2 --older-than 3600\n  \
        fabkeep clean --namespace drill-org1              # a drill that was kept\n  \
        fabkeep clean --folder /mnt/scratch               # drills of hosts")]
    Clean(Clean),
    /// Check everything that a backup needs before the first one: rights, helper pods, clocks, room, repository, keys, nodes.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep doctor --kubernetes\n  \
        fabkeep doctor -n org1 -n orderers --for window,restore      # what these need, too\n  \
        fabkeep doctor --inventory fabkeep.toml\n  \
        fabkeep doctor -k --no-pods --output json                    # makes no helper pods\n\n\
        It changes nothing; helper pods that it tries are removed. Exit code: 0 all is well, 3 warnings, 4 something would fail.")]
    Doctor(Doctor),
    /// Write an archive for the report of a fault: versions, doctor's result, network, pods, events, logs, recovery points; no secrets.
    #[command(after_help = "Examples (FABKEEP_REPO names the repository; else add --repo):\n  \
        fabkeep debug-bundle fault.tar.gz --kubernetes\n  \
        fabkeep debug-bundle fault.tar.gz --inventory fabkeep.toml --logs 1440\n\n\
        Values of Secrets, private keys, passwords and tokens are taken out. Names of hosts, organizations and channels stay: look through it \
        before you give it to others.")]
    DebugBundle(DebugBundle),
    /// Print the completions of a shell.
    #[command(after_help = "Examples:\n  \
        fabkeep completions bash > /etc/bash_completion.d/fabkeep\n  \
        fabkeep completions zsh > /usr/local/share/zsh/site-functions/_fabkeep\n  \
        fabkeep completions fish > ~/.config/fish/completions/fabkeep.fish")]
    Completions(Completions),
    /// Write manual pages: one for fabkeep, and one for each command.
    #[command(after_help = "Example:\n  fabkeep man /usr/local/share/man/man1")]
    Man(Man),
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

/// Options that pin the repository.
#[derive(Debug, Args)]
pub struct Pin {
    /// The repository's root key, as printed by `init`: a repository with another root key is refused. Without this option the key is taken
    /// from the writer key, or from what `init` stored on this machine. Identities that were added as recipients need one of these to read.
    #[arg(id = "root_key", long = "root", env = "FABKEEP_ROOT", value_name = "KEY")]
    pub root: Option<String>,
}

#[derive(Debug, Args)]
pub struct Identity {
    /// The identity file. Default: the file that `init` wrote to the key folder of this machine, if it exists.
    #[arg(long, env = "FABKEEP_IDENTITY", value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// A command that prints the identity, for example one of a key management service. It is run by `sh`, instead of reading a file.
    #[arg(long, env = "FABKEEP_IDENTITY_COMMAND", value_name = "COMMAND", conflicts_with = "identity")]
    pub identity_command: Option<String>,
}

/// The cluster, and the network in it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct Cluster {
    /// The network runs on Kubernetes. Without --namespace or --selector: all namespaces that contain a Fabric node.
    #[arg(long, short = 'k')]
    pub kubernetes: bool,
    /// A namespace (organization) of the network. Can be repeated.
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// Select namespaces by their labels.
    #[arg(long, value_name = "LABELS", conflicts_with = "namespace")]
    pub selector: Option<String>,
    /// The kubeconfig file. Default: KUBECONFIG, ~/.kube/config or the pod's service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: the current context.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Image of helper pods. It needs sh, tar and sha256sum, and the cluster must be able to pull it.
    #[arg(long, env = "FABKEEP_HELPER_IMAGE", value_name = "IMAGE", default_value = "busybox:1.36")]
    pub helper_image: String,
    /// A VolumeSnapshotClass or VolumeGroupSnapshotClass to use instead of its driver's default (--volumes). Can be repeated.
    #[arg(long, value_name = "NAME")]
    pub snapshot_class: Vec<String>,
    /// Name of the network in recovery points. Default: the names of its namespaces.
    #[arg(long, value_name = "NAME")]
    pub network_name: Option<String>,
}

#[derive(Debug, Args)]
pub struct Discover {
    /// Search for nodes below this directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubernetes", "namespace", "selector"])]
    pub root: Option<PathBuf>,
    /// Read the nodes from this compose file. Can be repeated for override files, as with docker compose.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubernetes", "namespace", "selector", "root"])]
    pub compose: Vec<PathBuf>,
    /// Read the nodes from the containers of this machine, with `docker inspect`.
    #[arg(long, conflicts_with_all = ["kubernetes", "namespace", "selector", "root", "compose"])]
    pub docker: bool,
    /// Where to write the inventory; `-` prints it.
    #[arg(long, value_name = "FILE", default_value = "fabkeep.toml")]
    pub inventory: PathBuf,
    #[command(flatten)]
    pub cluster: Cluster,
}

#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub place: Where,
    /// The writer key. Default: the file that `init` wrote to the key folder of this machine.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// Leave a node (Organization/node) out. Can be repeated.
    #[arg(long, value_name = "NODE")]
    pub exclude: Vec<String>,
    /// Capture state, history and block index too: nodes then start faster after a restore.
    #[arg(long)]
    pub include_derived: bool,
    /// Check raft logs and snapshots of orderers (and SmartBFT logs), but do not store them. A restore of all consenters of a channel creates
    /// their state from the chain; a single orderer comes back empty and fetches everything from the others (restore --replicate).
    #[arg(long)]
    pub without_raft_logs: bool,
    /// Read everything again, including data that has not changed since an earlier recovery point.
    #[arg(long)]
    pub reread: bool,
    /// End with code 0 instead of 3 if there are only warnings: for schedulers that take every other code for a failure. The warnings are in
    /// the recovery point and are printed.
    #[arg(long)]
    pub accept_warnings: bool,
    /// How many times a running node's database is copied until a copy is consistent.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub live_attempts: u32,
    /// Folder for temporary copies of running nodes' databases. Default: the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// On Kubernetes: copy the files of CA database servers instead of dumping their databases with pg_dump or mysqldump in their pods.
    #[arg(long)]
    pub copy_databases: bool,
    /// How volumes are read on Kubernetes.
    #[arg(long, value_enum, default_value_t = Volumes::Stream)]
    pub volumes: Volumes,
    /// With --volumes snapshot or auto: leave the snapshots in the cluster for `restore --from-snapshots`, for the newest N recovery points of
    /// this network. Older ones are removed after the commit; 0 keeps none. They share the cluster's storage: they do not replace the
    /// repository.
    #[arg(long, value_name = "N")]
    pub keep_snapshots: Option<usize>,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Volumes {
    /// Through the nodes' own containers, or helper pods with the same volumes, while the nodes run.
    Stream,
    /// From CSI snapshots of all volumes, read as clones. A window ends as soon as they are cut. Refused if one cannot be taken.
    Snapshot,
    /// From CSI snapshots, if one can be taken of every volume; else as stream.
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quiesce {
    /// No window: each node is captured as it is when it is read.
    None,
    /// Wait until heights are equal. You stop the clients yourself.
    Wait,
    /// Run --hook-before at the beginning and --hook-after at the end.
    Hook,
    /// Scale the workloads of --client to 0 (Kubernetes).
    Scale,
    /// Create NetworkPolicies that let only peers and orderers reach peers and orderers (Kubernetes).
    Fence,
    /// Stop the nodes when heights are equal.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    /// Each node as it is when it is read. With --quiesce all heights are equal.
    AsRead,
    /// Every chain ends at a height that all peers have and the orderers reach or exceed. If a rule forbids that, --quiesce is used.
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnGrowth {
    /// Refuse the backup.
    Fail,
    /// Extend the window until a capture sees no growth, or until --window-deadline.
    Extend,
}

/// How the data of all nodes is made consistent.
#[derive(Debug, Args)]
#[command(next_help_heading = "Consistency")]
pub struct Window {
    /// How transactions are kept away while the difference is read. Can be combined: --quiesce fence,stop.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "MODE")]
    pub quiesce: Vec<Quiesce>,
    /// How the heights of the nodes are made consistent.
    #[arg(long, value_enum, default_value_t = Consistency::AsRead)]
    pub consistency: Consistency,
    /// The command that stops transactions (--quiesce hook).
    #[arg(long, value_name = "COMMAND", requires = "hook_after")]
    pub hook_before: Option<String>,
    /// The command that lets transactions continue. It may be run more than once.
    #[arg(long, value_name = "COMMAND", requires = "hook_before")]
    pub hook_after: Option<String>,
    /// A workload that sends transactions: namespace/name or namespace/kind/name (--quiesce scale). Can be repeated.
    #[arg(long, value_name = "WORKLOAD")]
    pub client: Vec<fabkeep_platform::ObjectRef>,
    /// How long to wait for equal heights, and how long --hook-before may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub window_deadline: u64,
    /// How long heights must stay equal before the difference is read, in seconds. Default: the longest BatchTimeout of the channels.
    #[arg(long, value_name = "SECONDS")]
    pub settle: Option<f64>,
    /// What to do if a chain grows inside the window.
    #[arg(long, value_enum, default_value_t = OnGrowth::Fail)]
    pub on_growth: OnGrowth,
}

/// Where the network runs.
#[derive(Debug, Args)]
pub struct Where {
    /// The inventory file.
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
    /// Also read every node's block files, and compare them with the heights that the node reports.
    #[arg(long)]
    pub files: bool,
    /// Report errors in the logs of the last MINUTES minutes; 0 reads no logs.
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    pub logs: u32,
    /// Repeat every SECONDS seconds until Ctrl-C.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5")]
    pub watch: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    pub place: Where,
    /// The command that lets transactions continue, if this machine has no record of the window's hook.
    #[arg(long, value_name = "COMMAND")]
    pub hook_after: Option<String>,
    /// Undo windows whose record this machine did not sign: shows each step, asks before it, and runs no command.
    #[arg(long, conflicts_with = "hook_after")]
    pub unsigned: bool,
}

#[derive(Debug, Args)]
pub struct Show {
    /// Name of the recovery point, or a prefix of the name.
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
    /// List the blocks of a channel: the time of their last transaction, the number of transactions, configuration updates.
    #[arg(long, value_name = "CHANNEL")]
    pub blocks: Option<String>,
    /// Write every channel's genesis block to DIR/CHANNEL.block, for `osnadmin channel join` and `peer channel join`.
    #[arg(long, value_name = "DIR")]
    pub genesis: Option<PathBuf>,
    /// List every host name in channel configurations, chaincode packages and TLS certificates, and what answers to it.
    #[arg(long)]
    pub names: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Objects exist and have their sizes, signatures are valid.
    Quick,
    /// Reads every object and chain, checks every signature, and reconstructs every file.
    Full,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Name of the recovery point, or a prefix of the name.
    #[arg(default_value = "latest")]
    pub point: String,
    /// The repository: a folder or a URL.
    #[arg(long, env = "FABKEEP_REPO", required_unless_present = "chain")]
    pub repo: Option<String>,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// The writer key. It signs the record of damaged objects if the identity is not the one from which the root key is derived.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    /// Fail if this recovery point is missing: a name that was noted outside of the repository.
    #[arg(long, value_name = "POINT", conflicts_with = "chain")]
    pub expect_at_least: Option<String>,
    /// How thoroughly to verify.
    #[arg(long, value_enum, default_value_t = Level::Full)]
    pub level: Level,
    /// Verify every recovery point.
    #[arg(long)]
    pub all: bool,
    /// Verify the block files of one channel in this directory instead of a recovery point.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["all", "point"])]
    pub chain: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workloads {
    /// Create them as they were captured.
    Captured,
    /// Use the existing ones: scale them down, fill their volumes, scale them up.
    Existing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RaftState {
    /// Created from the last block of each channel; all orderers get the highest chain.
    Rebuilt,
    /// The captured logs; if the captured heights differ, all orderers get those of one orderer.
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

/// A different place in a cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "Another place")]
pub struct AnotherPlace {
    /// On Kubernetes: restore a namespace under another name. The nodes' old host names keep working inside their pods. Can be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub map_namespace: Vec<Mapping>,
    /// On Kubernetes: replace the storage class of claims. NEW alone applies to all claims. Can be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub storage_class: Vec<Mapping>,
    /// On Kubernetes: pull images from another registry, e.g. docker.io/hyperledger=registry.local/fabric. Can be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub registry: Vec<Mapping>,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    /// The writer key. Default: the file that `init` wrote to the key folder of this machine.
    #[arg(long, env = "FABKEEP_WRITER", value_name = "FILE")]
    pub writer: Option<PathBuf>,
    #[command(flatten)]
    pub source: Where,
    /// The context of the target cluster. Without --to-context, --to-kubeconfig and --to-inventory the target is the cluster of the source.
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub to_context: Option<String>,
    /// The kubeconfig of the target cluster.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub to_kubeconfig: Option<PathBuf>,
    /// The inventory of the target hosts.
    #[arg(long, value_name = "FILE", help_heading = "Target", conflicts_with_all = ["to_context", "to_kubeconfig"])]
    pub to_inventory: Option<PathBuf>,
    /// Source of the consensus state of orderers, if all orderers of a channel are restored together.
    #[arg(long, value_enum, default_value_t = RaftState::Rebuilt)]
    pub raft_state: RaftState,
    /// On Kubernetes: how long each stage (databases, CAs, orderers, peers, …) may take to become ready, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub deadline: u64,
    /// Continue although this rule is broken (its code, e.g. K5). The override is recorded. Can be repeated.
    #[arg(long, value_name = "RULE")]
    pub r#override: Vec<String>,
    /// Capture once without stopping anything, print the plan for the target, and change nothing else.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub place: AnotherPlace,
    #[command(flatten)]
    pub window: Window,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// Name of the recovery point, or a prefix of the name.
    #[arg(default_value = "latest")]
    pub point: String,
    #[command(flatten)]
    pub repo: Repo,
    #[command(flatten)]
    pub identity: Identity,
    #[command(flatten)]
    pub pin: Pin,
    /// Restore into this folder, with the captured layout.
    #[arg(long, value_name = "DIR", conflicts_with = "inventory")]
    pub to: Option<PathBuf>,
    /// Restore in place: into the directories that this inventory names.
    #[arg(long, value_name = "FILE")]
    pub inventory: Option<PathBuf>,
    /// Restore only this node (Organization/node). Can be repeated.
    #[arg(long, value_name = "NODE")]
    pub node: Vec<String>,
    /// Give a peer the ledger of another peer of its organization. It keeps its own keys and chaincode packages. Can be repeated.
    #[arg(long, value_name = "PEER=DONOR")]
    pub ledger_from: Vec<LedgerFrom>,
    /// Restore an orderer with its keys but without ledgers; it fetches these from the other orderers. This is safer than an old ledger
    /// beside orderers that kept running. Can be repeated.
    #[arg(long, value_name = "ORDERER")]
    pub replicate: Vec<String>,
    /// With raft orderers among --node: restart every other orderer of their channels, one at a time with a leader awaited between, before
    /// the restored ones are started. A leader that remembers later entries of a restored orderer would make it panic. On hosts with the
    /// stop and start commands of the inventory.
    #[arg(long, requires = "node", conflicts_with_all = ["to", "no_start"])]
    pub restart_others: bool,
    /// Source of the consensus state of orderers, if all orderers of a channel are restored together.
    #[arg(long, value_enum, default_value_t = RaftState::Rebuilt)]
    pub raft_state: RaftState,
    /// Go back to an earlier height of a channel: HEIGHT blocks are kept, on all peers and orderers of the recovery point. Later blocks, and
    /// everything that depends on them, are given up. `fabkeep show --blocks CHANNEL` lists the blocks. Can be repeated.
    #[arg(long, value_name = "CHANNEL=HEIGHT")]
    pub at_height: Vec<HeightOf>,
    /// Go back to a time (RFC 3339): each channel keeps the blocks before the first one with a later transaction.
    #[arg(long, value_name = "TIME")]
    pub before: Option<jiff::Timestamp>,
    /// Keep these parts of an existing certificate authority; everything else of it is replaced.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    pub ca_keep: Vec<CaPart>,
    /// Replace everything of certificate authorities. This is the default.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "ca_keep")]
    pub ca_replace: Option<CaAll>,
    /// Set existing data aside and put the restored data into its place.
    #[arg(long)]
    pub replace: bool,
    /// On Kubernetes: restore only what is missing, and leave everything else alone.
    #[arg(long, conflicts_with = "replace")]
    pub missing: bool,
    /// On Kubernetes: make claims that are missing from the snapshots that the recovery point has kept in the cluster
    /// (`backup --keep-snapshots`). Every file is hashed, and what differs is written from the repository. Claims that are there, and those
    /// without a usable snapshot, are filled from the repository; the plan says why.
    #[arg(long)]
    pub from_snapshots: bool,
    /// On Kubernetes: create the captured workloads, or fill the volumes of workloads that Helm or GitOps has deployed again.
    #[arg(long, value_enum, default_value_t = Workloads::Captured)]
    pub workloads: Workloads,
    /// On Kubernetes: leave the workloads at 0 replicas.
    #[arg(long, alias = "keep-asleep")]
    pub no_start: bool,
    /// On Kubernetes: how long each stage (databases, CAs, orderers, peers, …) may take to become ready, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub deadline: u64,
    /// Stop running nodes first, with the stop commands of the inventory.
    #[arg(long, requires = "inventory")]
    pub stop: bool,
    /// Treat this node as stopped if it cannot be determined whether it runs. Can be repeated.
    #[arg(long, value_name = "NODE", requires = "inventory")]
    pub assume_stopped: Vec<String>,
    /// Start the nodes afterwards, with the start commands of the inventory: CAs, then orderers, then peers.
    #[arg(long, requires = "inventory")]
    pub start: bool,
    /// Continue although this rule is broken (its code, e.g. I1). The override is recorded. Can be repeated.
    #[arg(long, value_name = "RULE")]
    pub r#override: Vec<String>,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub cluster: Cluster,
    #[command(flatten)]
    pub place: AnotherPlace,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Working folder of the demo; must not exist.
    #[arg(long, value_name = "DIR", default_value = "fabkeep-demo")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Clean {
    /// Remove what drills have left in this folder, instead of looking at a cluster.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubernetes", "namespace", "selector", "kubeconfig", "context"])]
    pub folder: Option<PathBuf>,
    /// Remove also the snapshots that backups into this repository have kept (`backup --keep-snapshots`) for recovery points that are gone
    /// from it. Without this, snapshots that are kept stay.
    #[arg(long, value_name = "LOCATION", conflicts_with = "folder")]
    pub repo: Option<String>,
    /// Remove only what is older than this, in seconds: something younger may belong to a run that is still active.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub older_than: i64,
    /// Print what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub cluster: Cluster,
}
