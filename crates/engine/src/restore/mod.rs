//! Restore: a plan is a value, and what was shown is what is executed. Every directory is written and verified, and only then put into
//! place (`host`) or released for use (`cluster`); the previous data is set aside. A record of progress lets a run continue after a kill.

mod ca;
mod cluster;
mod existing;
mod host;
mod judge;
mod others;
mod owners;
mod progress;
mod surviving;
mod taken_away;
mod write;

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fabkeep_network::{Finding, Severity};
use fabkeep_platform::kubernetes::{ClusterAddress, HelperOptions, Relocation};
use fabkeep_platform::{Declaration, Host};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use crate::event::{Event, Reporter, step};
use crate::point::RecoveryPoint;
use crate::transform::{GoBack, LedgerFrom, RaftSource, RestoreScope, Transformed};
use crate::{Done, EngineError, Next};

pub use ca::keep::CaKeep;

/// The target of a restore.
#[derive(Clone)]
pub enum RestoreTarget<'a> {
    /// Below this folder, in the captured layout.
    Folder(PathBuf),
    /// Into the places that an inventory names.
    Host(&'a Host),
    /// Into a cluster.
    Cluster(ClusterTarget),
}

/// A cluster, and its differences from the place of the capture.
#[derive(Debug, Clone, Default)]
pub struct ClusterTarget {
    /// The cluster.
    pub address: ClusterAddress,
    /// How helper pods are made.
    pub helper: HelperOptions,
    /// Other namespaces, storage classes, registries than the captured ones.
    pub relocation: Relocation,
    /// Do not create workloads: fill the volumes of those that are there.
    pub existing_workloads: bool,
    /// Create nothing that leads in or out of the namespaces, acts by itself, or is shared with others: for a drill.
    pub fenced: bool,
}

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Nodes to restore, as `Organization/node`; empty: all.
    pub nodes: Vec<String>,
    /// Peers that take another peer's ledger.
    pub ledgers: Vec<LedgerFrom>,
    /// Orderers that are restored without ledgers, to fetch everything from the others.
    pub replicate: Vec<String>,
    /// Restart every other raft orderer, one at a time, before restored ones are started: then no leader remembers entries that these lack.
    pub restart_others: bool,
    /// The source of the raft state of orderers that are restored together.
    pub raft_state: RaftSource,
    /// To which earlier heights channels go back.
    pub go_back: GoBack,
    /// Parts that certificate authorities keep of the target.
    pub ca_keep: CaKeep,
    /// Set existing data aside and replace it; otherwise existing data is a reason to refuse.
    pub replace: bool,
    /// In a cluster: restore only what is missing, and leave everything else alone.
    pub missing: bool,
    /// In a cluster: make missing claims from the snapshots that the recovery point has kept there.
    pub from_snapshots: bool,
    /// On hosts: stop nodes that run before their data is replaced, by their stop commands. A cluster's are always scaled down.
    pub stop: bool,
    /// On hosts: nodes that are treated as stopped if it is unknown whether they run, as `Organization/node`.
    pub assume_stopped: Vec<String>,
    /// Start the nodes afterwards, in the order that Fabric needs.
    pub start: bool,
    /// Codes of rules that may be broken. What was overridden is recorded.
    pub overrides: Vec<String>,
    /// In a cluster: how long each stage of the start may take.
    pub deadline: Duration,
    /// Threads; 0 for as many as there are cores.
    pub threads: usize,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        RestoreOptions {
            nodes: Vec::new(),
            ledgers: Vec::new(),
            replicate: Vec::new(),
            restart_others: false,
            raft_state: RaftSource::default(),
            go_back: GoBack::default(),
            ca_keep: CaKeep::default(),
            replace: false,
            missing: false,
            from_snapshots: false,
            stop: false,
            assume_stopped: Vec::new(),
            start: false,
            overrides: Vec::new(),
            deadline: Duration::from_secs(600),
            threads: 0,
        }
    }
}

impl RestoreOptions {
    /// How many threads are used.
    fn threads(&self) -> usize {
        if self.threads == 0 { fabkeep_parallel::cores() } else { self.threads }
    }

    /// What they ask for of the recovery point.
    fn asked(&self) -> RestoreScope<'_> {
        let RestoreOptions { nodes, ledgers, replicate, raft_state, go_back, missing, .. } = self;
        RestoreScope { nodes, ledgers, replicate, raft_state: *raft_state, go_back, together: !missing }
    }

    /// Whether the rule of a finding may be broken.
    fn is_overridden(&self, finding: &Finding) -> bool {
        self.overrides.iter().any(|code| code == finding.rule.code())
    }

    /// Findings that forbid the restore.
    fn refusals<'f>(&self, findings: impl IntoIterator<Item = &'f Finding>) -> Vec<Finding> {
        let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
        errors.filter(|finding| !self.is_overridden(finding)).cloned().collect()
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum RestoreStep {
    /// An earlier run of the same restore is continued.
    GoOn {
        /// When it began.
        begun: String,
        /// Nodes whose volumes it has filled.
        filled: usize,
        /// Workloads that it has started.
        started: usize,
    },
    /// A controller or operator that would start nodes meanwhile is suspended until the end.
    Suspend {
        /// `Kind namespace/name`.
        object: String,
    },
    /// An object is created.
    Create {
        /// `Kind namespace/name`.
        object: String,
    },
    /// An object replaces the existing one, of which a copy is kept.
    Replace {
        /// `Kind namespace/name`.
        object: String,
    },
    /// A claim is made from a snapshot that the recovery point has kept in the cluster.
    FromSnapshot {
        /// `namespace/name`.
        claim: String,
        /// The VolumeSnapshot.
        snapshot: String,
    },
    /// A claim is filled from the repository, though snapshots were asked for.
    FromRepository {
        /// `namespace/name`.
        claim: String,
        /// Why.
        why: String,
    },
    /// A node is stopped, or its workload scaled down to 0 replicas.
    Stop {
        /// Which.
        node: String,
    },
    /// A workload is created with 0 replicas.
    CreateStopped {
        /// `Kind namespace/name`.
        object: String,
    },
    /// A directory is written and proven: beside its place on a host, in its volume in a cluster.
    Write {
        /// Of which node.
        node: String,
        /// Its place.
        path: PathBuf,
        /// Files.
        files: u64,
        /// Bytes, holes not counted.
        bytes: u64,
        /// Those of them that are there as captured, as far as this is known: they stay.
        #[serde(skip_serializing_if = "KeptFiles::is_empty")]
        kept: KeptFiles,
    },
    /// An existing file is kept: it is copied into the written directory.
    Keep {
        /// Of which node.
        node: String,
        /// The file.
        path: PathBuf,
    },
    /// Existing data is set aside.
    SetAside {
        /// From where.
        path: PathBuf,
        /// To where.
        to: PathBuf,
    },
    /// The written directory takes its place.
    Place {
        /// Where.
        path: PathBuf,
    },
    /// A dump is loaded into its database, after its present content was dumped or set aside.
    Load {
        /// Of which node.
        node: String,
        /// Where: kind, host, port, name.
        database: String,
    },
    /// An orderer that is not restored is restarted, and a leader awaited.
    Restart {
        /// Which.
        node: String,
    },
    /// An object that starts something by itself is created after the data is in place.
    CreateLate {
        /// `Kind namespace/name`.
        object: String,
    },
    /// Nodes are started together.
    Start {
        /// Which.
        nodes: Vec<String>,
    },
}

/// The plan of a restore: its steps and findings are shown, [`RestorePlan::execute`] executes it.
#[derive(Serialize)]
pub struct RestorePlan<'a> {
    /// The recovery point.
    pub point: String,
    /// The target, as text.
    pub target: String,
    /// Tells this plan from others.
    pub fingerprint: String,
    /// What would be done, in order.
    pub steps: Vec<RestoreStep>,
    /// Reasons against it, and other findings.
    pub findings: Vec<Finding>,
    /// Bytes to write, holes not counted.
    pub bytes: u64,
    /// Files to write.
    pub files: u64,
    /// Those of them that are there as captured, as far as this is known: they stay.
    pub kept: KeptFiles,
    #[serde(skip)]
    options: RestoreOptions,
    #[serde(skip)]
    reader: PointReader<'a>,
    #[serde(skip)]
    transformed: Transformed,
    #[serde(skip)]
    way: Way<'a>,
}

/// Files that are in their places as they were captured. They stay there, and are in no directory that is set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct KeptFiles {
    /// How many.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
}

impl KeptFiles {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Returns these and a further one of this size.
    fn and(self, bytes: u64) -> KeptFiles {
        KeptFiles { files: self.files + 1, bytes: self.bytes.saturating_add(bytes) }
    }
}

impl AddAssign for KeptFiles {
    fn add_assign(&mut self, more: KeptFiles) {
        self.files += more.files;
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// What a plan needs of its place.
enum Way<'a> {
    Host(Box<host::Plan<'a>>),
    Cluster(Box<cluster::Plan>),
}

/// The result of a restore: what it did and proved.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Restored {
    /// The recovery point.
    pub point: String,
    /// The target, as text.
    pub target: String,
    /// Objects created or replaced by this run.
    pub objects: usize,
    /// Directories put into their places, or filled, by this run.
    pub directories: Vec<RestoredDirectory>,
    /// What was there before and where it is now, whichever run of this restore has set it aside.
    pub set_aside: Vec<SetAside>,
    /// What this run proved, in sentences.
    pub proven: Vec<String>,
    /// Warnings, overridden rules, what did not become ready, what the nodes logged since they were started.
    pub findings: Vec<Finding>,
    /// Bytes written or found written by an earlier run, holes not counted.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Those of them that were there as captured, and stayed.
    pub kept: KeptFiles,
    /// Whether an earlier run's work was gone on with.
    pub resumed: bool,
    /// Nodes and workloads started by this run.
    pub started: Vec<String>,
    /// Nodes that are ready again, with the heights that they report.
    pub ready: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether everything that was to be started runs and logged no error that breaks a rule.
    pub well: bool,
    /// How long it took.
    pub seconds: f64,
}

/// A directory in its place.
#[derive(Debug, Clone, Serialize)]
pub struct RestoredDirectory {
    /// The node.
    pub node: String,
    /// Where it is.
    pub path: PathBuf,
    /// Where the earlier data is now.
    pub set_aside: Option<PathBuf>,
}

/// Something that made way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// A directory or an object.
    pub what: String,
    /// Where it is now.
    pub to: String,
}

impl<'a> RestorePlan<'a> {
    /// Makes the plan. Nothing is changed.
    ///
    /// # Errors
    /// [`EngineError`] when the recovery point cannot be read or does not hold what is asked for.
    pub fn make(
        repository: &'a Repository,
        commit: &Commit,
        identity: &'a IdentityFile,
        target: &RestoreTarget<'a>,
        options: &RestoreOptions,
    ) -> Result<RestorePlan<'a>, EngineError> {
        let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
        let id = commit.id.as_str();
        match target {
            RestoreTarget::Cluster(target) => cluster::plan(id, point, reader, target, options),
            RestoreTarget::Host(host) => {
                host::plan(id, point, reader, repository.folder(), &host::Places::Of(host), options)
            }
            RestoreTarget::Folder(to) => {
                host::plan(id, point, reader, repository.folder(), &host::Places::Below(to.clone()), options)
            }
        }
    }

    /// Findings that forbid the restore, less those whose rules are overridden.
    pub fn refusals(&self) -> Vec<Finding> {
        self.options.refusals(&self.findings)
    }

    /// Carries the plan out.
    ///
    /// # Errors
    /// [`EngineError::Precondition`] and what could not be read, before the first change; [`EngineError::Interrupted`] and
    /// [`EngineError::ProofFailed`] after it, with what was done: the same command continues. Nothing that existed was removed.
    pub fn execute(&self, reporter: &dyn Reporter) -> Result<Restored, EngineError> {
        let begun = Instant::now();
        let refusals = self.refusals();
        if !refusals.is_empty() {
            self.findings.iter().for_each(|finding| reporter.event(Event::Found(finding)));
            let refused = EngineError::Precondition(refusals);
            // What an earlier run has changed stays so.
            return Err(match self.done() {
                done if done.is_empty() => refused,
                done => refused.after(done, Next::SameCommand),
            });
        }
        let (written, resuming, stops) = match &self.way {
            Way::Host(plan) => (plan.written(&self.transformed), plan.resuming, !plan.to_stop.is_empty()),
            Way::Cluster(plan) => (plan.written(&self.transformed), plan.is_resuming(), true),
        };
        if !resuming {
            // What is missing in the repository is known before a node is stopped for it.
            let blobs = self.transformed.point.blobs_of(written.into_iter());
            step(reporter, "check the repository", None, || self.reader.check_needed(blobs, stops))?;
        }
        let mut restored = Restored {
            point: self.point.clone(),
            target: self.target.clone(),
            findings: self.findings.clone(),
            files: self.files,
            well: true,
            ..Restored::default()
        };
        match &self.way {
            Way::Host(plan) => host::Run::new(self, plan, reporter).execute(&mut restored)?,
            Way::Cluster(plan) => cluster::execute(self, plan, reporter, &mut restored)?,
        }
        restored.seconds = begun.elapsed().as_secs_f64();
        Ok(restored)
    }

    /// What an earlier run of the same restore has done.
    fn done(&self) -> Vec<Done> {
        match &self.way {
            Way::Host(plan) => plan.done.clone(),
            Way::Cluster(plan) => plan.done(),
        }
    }

    /// Objects that are created in a cluster.
    pub(crate) fn created(&self) -> &[Declaration] {
        match &self.way {
            Way::Host(_) => &[],
            Way::Cluster(plan) => plan.created(),
        }
    }

    /// The recovery point as it is restored.
    pub(crate) fn point(&self) -> &RecoveryPoint {
        &self.transformed.point
    }
}
