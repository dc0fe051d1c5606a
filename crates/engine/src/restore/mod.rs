//! Restore: a plan first; then every directory is written beside its place, proven there, and only then put into its place, with what
//! was there before set aside. A journal lets a run after a kill go on.

mod authority;
mod cluster;
mod databases;
mod journal;
mod keep;
mod living;
mod place;
mod plan;
mod present;
mod prove;
mod volumes;
mod write;

use std::path::PathBuf;
use std::time::Instant;

use fabkeep_network::{Finding, Severity};
use fabkeep_platform::Host;
use fabkeep_store::{Commit, IdentityFile, PointReader, Repository};
use serde::Serialize;

use crate::arrange::{LedgerFrom, arrange};
use crate::event::{Event, Reporter, step};
use crate::point::RecoveryPoint;
use crate::{Done, EngineError, Next, parallel};

pub use cluster::{
    ClusterRestoreOptions, ClusterRestorePlan, ClusterRestored, ClusterStep, plan_cluster_restore, restore_cluster,
};
pub use keep::CaKeep;
pub use plan::{RestorePlan, RestoreStep, plan_restore};

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
    /// What certificate authorities keep of what is there.
    pub ca_keep: CaKeep,
    /// Set existing data aside and take its place; else existing data is a reason to refuse.
    pub replace: bool,
    /// Stop nodes that run before their data is replaced, by their stop commands.
    pub stop: bool,
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
    let mut arranged = arrange(point, &options.nodes, &options.ledgers, &options.replicate, true)?;
    let plan = plan::make(commit, &mut arranged, &reader, platform, options)?;
    let errors: Vec<Finding> = plan.refusals(&options.overrides);
    if !errors.is_empty() {
        for finding in &plan.findings {
            reporter.event(Event::Found(finding));
        }
        return Err(EngineError::Precondition(errors));
    }
    let journal = journal::Journal::open(&plan.journal, commit.id.as_str(), &plan.fingerprint())?;
    let threads = if options.threads == 0 { parallel::cores() } else { options.threads };
    let run = Run { plan: &plan, point: &arranged.point, reader: &reader, platform, options, threads, reporter };
    run.execute(journal, commit.id.as_str(), begun)
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
}

impl Run<'_> {
    /// Carries the plan out; an error carries what was done until then.
    fn execute(&self, mut journal: journal::Journal, point: &str, begun: Instant) -> Result<Restored, EngineError> {
        let resumed = journal.is_resumed();
        let mut done = Vec::new();
        let data = match self.data(&mut journal, &mut done) {
            Ok(data) => data,
            Err(error) => {
                done.extend(journal.done(self.plan));
                if done.is_empty() {
                    journal.abandon()?;
                    return Err(error);
                }
                return Err(error.after(done, Next::SameCommand));
            }
        };
        let mut started = Vec::new();
        let mut findings = self.plan.findings.clone();
        let finished = self.start(&mut started, &mut findings).and_then(|()| journal.finish());
        if let Err(error) = finished.and_then(|()| databases::remove_loaded(self.plan)) {
            done.extend(journal.done(self.plan));
            done.extend(started.iter().map(|node| Done::NodeStarted { node: node.clone() }));
            let nodes = self.plan.to_start.iter().map(ToString::to_string).filter(|node| !started.contains(node));
            let nodes: Vec<String> = nodes.collect();
            let next = if nodes.is_empty() { Next::SameCommand } else { Next::StartNodes { nodes } };
            return Err(error.after(done, next));
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
    fn data(&self, journal: &mut journal::Journal, done: &mut Vec<Done>) -> Result<Data, EngineError> {
        let (plan, point, reporter) = (self.plan, self.point, self.reporter);
        if let Some(platform) = self.platform {
            for node in &plan.to_stop {
                if step(reporter, &format!("stop {node}"), None, || platform.stop(node))? {
                    done.push(Done::NodeStopped { node: node.to_string() });
                }
            }
        }
        journal.add_overrides(&overridden(&plan.findings, &self.options.overrides))?;
        place::keep_equal(plan, point, self.reader.names(), journal)?;
        place::prepare(plan, journal)?;
        let bytes = step(reporter, "write files", Some(plan.bytes), || {
            write::write_all(plan, point, self.reader, journal, self.threads, reporter)
        })?;
        let mut proven = step(reporter, "prove", Some(plan.bytes), || {
            prove::prove(plan, point, self.reader, journal, self.threads, reporter)
        })?;
        let mut directories = step(reporter, "put into place", None, || place::switch_all(plan, journal))?;
        if !plan.loads.is_empty() {
            let loaded = step(reporter, "load databases", None, || databases::load_all(plan, journal))?;
            proven.extend(loaded.0);
            directories.extend(loaded.1);
        }
        Ok(Data { bytes, proven, directories })
    }

    /// Starts nodes in the order that they need, and reads what they log.
    fn start(&self, started: &mut Vec<String>, findings: &mut Vec<Finding>) -> Result<(), EngineError> {
        let since = jiff::Timestamp::now();
        let Some(platform) = self.platform.filter(|_| self.options.start) else { return Ok(()) };
        for node in &self.plan.to_start {
            if step(self.reporter, &format!("start {node}"), None, || platform.start(node))? {
                started.push(node.to_string());
            }
        }
        findings.extend(crate::logs::findings(platform, since, |id| started.contains(&id.to_string())));
        Ok(())
    }
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
