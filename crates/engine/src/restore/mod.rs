//! Restore: a plan first; then every directory is written beside its place, proven there, and only then put into its place, with what
//! was there before set aside. A journal lets a run after a kill go on.

mod authority;
mod ca_keep;
mod cluster;
mod databases;
mod disk;
mod existing;
mod journal;
mod judge;
mod old_paths;
mod place;
mod plan;
mod prove;
mod room;
mod staging;
mod surviving;
mod taken_away;
mod volumes;
mod write;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fabkeep_network::{Finding, NodeId, Rule, Severity};
use fabkeep_platform::{Host, NodeState, Platform, Running};
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use crate::event::{Event, Reporter, step};
use crate::point::RecoveryPoint;
use crate::transform::{LedgerFrom, RaftSource, Transformed, is_named, transform};
use crate::{EngineError, Next, parallel};
use disk::Disk;
use journal::Journal;

pub use ca_keep::CaKeep;
pub use cluster::{
    ClusterRestoreOptions, ClusterRestorePlan, ClusterRestored, ClusterStep, plan_cluster_restore, restore_cluster,
};
pub use plan::{RestorePlan, RestoreStep, plan_restore};

/// How long a node may take to stop after its command.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const ASKED_AGAIN: Duration = Duration::from_millis(200);

/// Where and how to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Restore below this folder, in the captured layout. `None`: into the platform's places.
    pub to: Option<PathBuf>,
    /// Nodes to restore, as `Organization/node`; empty: all.
    pub nodes: Vec<String>,
    /// Peers that take another peer's ledger.
    pub ledgers: Vec<LedgerFrom>,
    /// Orderers that come back empty, to take everything from the others.
    pub replicate: Vec<String>,
    /// Where the raft state of orderers comes from that are restored together.
    pub raft_state: RaftSource,
    /// What certificate authorities keep of what is there.
    pub ca_keep: CaKeep,
    /// Set existing data aside and take its place; else existing data is a reason to refuse.
    pub replace: bool,
    /// Stop nodes that run before their data is replaced, by their stop commands.
    pub stop: bool,
    /// Nodes that are taken for stopped where nothing tells whether they run, as `Organization/node`.
    pub assume_stopped: Vec<String>,
    /// Start the nodes afterwards, by their start commands, in the order that Fabric needs.
    pub start: bool,
    /// Codes of rules that may be broken. What was overridden is kept in the journal, which then stays beside the restored data.
    pub overrides: Vec<String>,
    /// Threads; 0 for as many as there are cores.
    pub threads: usize,
}

/// What a restore did and proved.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    /// The recovery point.
    pub point: String,
    /// Directories put into their places.
    pub directories: Vec<RestoredDirectory>,
    /// What was proven, in sentences.
    pub proven: Vec<String>,
    /// Warnings and overridden rules.
    pub findings: Vec<Finding>,
    /// Bytes written or found written by an earlier run, holes not counted.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Whether an earlier run's work was gone on with.
    pub resumed: bool,
    /// Nodes started.
    pub started: Vec<String>,
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
    /// Where what was there before is now.
    pub set_aside: Option<PathBuf>,
}

/// Carries a plan out.
///
/// # Errors
/// [`EngineError::Precondition`] and others before the first change; [`EngineError::Interrupted`] or [`EngineError::ProofFailed`] after it:
/// a second run with the same plan goes on. Nothing that existed was removed.
pub fn restore(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    platform: Option<&Host>,
    options: &RestoreOptions,
    reporter: &dyn Reporter,
) -> Result<Restored, EngineError> {
    let begun = Instant::now();
    let (point, reader) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    let mut transformed = arranged(point, &reader, options)?;
    let plan = plan::make(commit, &mut transformed, &reader, platform, options)?;
    let errors: Vec<Finding> = plan.refusals(&options.overrides);
    if !errors.is_empty() {
        for finding in &plan.findings {
            reporter.event(Event::Found(finding));
        }
        return Err(EngineError::Precondition(errors));
    }
    if !plan.resuming {
        // What is missing in the repository is known before a node is stopped for it.
        let point = &transformed.point;
        let restored = point.nodes.iter().filter(|node| is_named(&node.facts.id, &transformed.nodes));
        step(reporter, "check the repository", None, || {
            reader.check_needed(point.blobs_of(restored), !plan.to_stop.is_empty())
        })?;
    }
    let disk = Disk::new(reporter);
    let journal = Journal::open(&plan.journal, commit.id.as_str(), &plan.fingerprint(), &plan.again, disk)?;
    let threads = if options.threads == 0 { parallel::cores() } else { options.threads };
    let run =
        Run { plan: &plan, point: &transformed.point, reader: &reader, platform, options, threads, reporter, disk };
    run.execute(journal, commit.id.as_str(), begun)
}

/// The recovery point as these options restore it.
fn arranged(
    point: RecoveryPoint,
    reader: &PointReader<'_>,
    options: &RestoreOptions,
) -> Result<Transformed, EngineError> {
    let RestoreOptions { nodes, ledgers, replicate, raft_state, .. } = options;
    transform(point, reader, nodes, ledgers, replicate, *raft_state, true)
}

/// One run of a restore: what it works with.
struct Run<'a> {
    plan: &'a RestorePlan,
    point: &'a RecoveryPoint,
    reader: &'a PointReader<'a>,
    platform: Option<&'a Host>,
    options: &'a RestoreOptions,
    threads: usize,
    reporter: &'a dyn Reporter,
    disk: Disk<'a>,
}

impl Run<'_> {
    /// Carries the plan out; an error carries what was done until then.
    fn execute(&self, mut journal: Journal<'_>, point: &str, begun: Instant) -> Result<Restored, EngineError> {
        let resumed = journal.is_resumed();
        let data = match self.data(&mut journal) {
            Ok(data) => data,
            Err(error) => {
                let done = journal.done(self.plan);
                if done.is_empty() {
                    journal.abandon()?;
                    return Err(error);
                }
                return Err(error.after(done, Next::SameCommand));
            }
        };
        let mut started = Vec::new();
        let mut findings = self.plan.findings.clone();
        let finished = self
            .start(&mut journal, &mut started, &mut findings)
            .and_then(|()| databases::remove_loaded(self.plan, self.disk))
            .and_then(|()| journal.finish());
        if let Err(error) = finished {
            let nodes = self.plan.to_start.iter().map(ToString::to_string);
            let nodes: Vec<String> = nodes.filter(|node| !journal.is_started(node)).collect();
            let next = if nodes.is_empty() { Next::SameCommand } else { Next::StartNodes { nodes } };
            return Err(error.after(journal.done(self.plan), next));
        }
        Ok(Restored {
            point: point.to_owned(),
            directories: data.directories,
            proven: data.proven,
            findings,
            bytes: data.bytes,
            files: self.plan.files,
            resumed,
            started,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// Stops what has to be stopped, writes, proves, puts into place and loads databases.
    fn data(&self, journal: &mut Journal<'_>) -> Result<Data, EngineError> {
        let (plan, point, reporter, disk) = (self.plan, self.point, self.reporter, self.disk);
        journal.add_overrides(&overridden(&plan.findings, &self.options.overrides))?;
        self.stop(journal)?;
        place::finish_begun(plan, point, journal, disk)?;
        place::keep_equal(plan, point, self.reader.names(), journal)?;
        place::prepare(plan, journal, disk)?;
        let bytes = step(reporter, "write files", Some(plan.bytes), || write::write_all(self, journal))?;
        let mut proven = step(reporter, "prove", Some(plan.bytes), || prove::prove(self, journal))?;
        self.check_stopped(journal)?;
        let mut directories = step(reporter, "put into place", None, || place::switch_all(plan, point, journal, disk))?;
        if !plan.loads.is_empty() {
            let loaded = step(reporter, "load databases", None, || databases::load_all(plan, journal, disk))?;
            proven.extend(loaded.0);
            directories.extend(loaded.1);
        }
        Ok(Data { bytes, proven, directories })
    }

    /// Stops nodes by their commands, and waits until nothing tells any more that they run.
    fn stop(&self, journal: &mut Journal<'_>) -> Result<(), EngineError> {
        let Some(platform) = self.platform else { return Ok(()) };
        for node in &self.plan.to_stop {
            // It counts as done before it is known how far the command came.
            journal.add_stopped(node.to_string())?;
            step(self.reporter, &format!("stop {node}"), None, || -> Result<(), EngineError> {
                platform.stop(node)?;
                let begun = Instant::now();
                loop {
                    let running = platform.running(node)?;
                    if running.state != NodeState::Running {
                        return Ok(());
                    }
                    if self.reporter.is_interrupted() {
                        return Err(EngineError::Stopped);
                    }
                    if begun.elapsed() > STOPPED_WITHIN {
                        return Err(runs(node, &running, "the node still runs after its stop command"));
                    }
                    std::thread::sleep(ASKED_AGAIN);
                }
            })?;
        }
        Ok(())
    }

    /// Nothing has started a node whose data is about to be replaced.
    fn check_stopped(&self, journal: &Journal<'_>) -> Result<(), EngineError> {
        let Some(platform) = self.platform.filter(|_| self.options.to.is_none()) else { return Ok(()) };
        let pending = self.plan.directories.iter().enumerate().filter(|(index, _)| !journal.is_settled(*index));
        let nodes: BTreeSet<_> = pending.map(|(_, planned)| &planned.id).collect();
        for node in nodes {
            let running = platform.running(node)?;
            let assumed = self.options.assume_stopped.contains(&node.to_string());
            let counts = running.evidence.iter().any(|evidence| !assumed || evidence.is_certain());
            let overridden = self.options.overrides.iter().any(|code| code == Rule::LiveCopy.code());
            if running.state == NodeState::Running && counts && !overridden {
                return Err(runs(node, &running, "the node was started while its data was written beside it"));
            }
        }
        Ok(())
    }

    /// Starts nodes in the order that they need, and reads what they log.
    fn start(
        &self,
        journal: &mut Journal<'_>,
        started: &mut Vec<String>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), EngineError> {
        let since = jiff::Timestamp::now();
        let Some(platform) = self.platform.filter(|_| self.options.start) else { return Ok(()) };
        for node in &self.plan.to_start {
            let name = node.to_string();
            // An earlier run may have started it.
            if journal.is_started(&name) && platform.state(node)? == NodeState::Running {
                continue;
            }
            if !platform.can_start(node) {
                continue;
            }
            journal.add_started(name.clone())?;
            step(self.reporter, &format!("start {node}"), None, || platform.start(node))?;
            started.push(name);
        }
        findings.extend(crate::logs::findings(platform, since, |id| started.contains(&id.to_string())));
        Ok(())
    }
}

/// What a restore ends with where a node runs that must not.
fn runs(node: &NodeId, running: &Running, what: &str) -> EngineError {
    EngineError::Precondition(vec![Finding::error(
        Rule::LiveCopy,
        node,
        format!("{what}: {}", judge::reported(running)),
        "stop it, keep whatever starts it from doing so, and run the same command again",
    )])
}

/// What was written and proven.
struct Data {
    bytes: u64,
    proven: Vec<String>,
    directories: Vec<RestoredDirectory>,
}

/// Findings that would have forbidden the restore.
fn overridden(findings: &[Finding], overrides: &[String]) -> Vec<Finding> {
    let broken = findings.iter().filter(|finding| finding.severity == Severity::Error);
    broken.filter(|finding| overrides.iter().any(|code| code == finding.rule.code())).cloned().collect()
}
