//! A drill: a recovery point is restored beside production, into scratch namespaces or a scratch folder that nothing leads out of; what runs
//! there is looked at, everything is timed, and all of it is removed again. Only what a drill has made itself is ever removed.

mod cluster;
mod folder;
mod proof;
mod times;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fabkeep_network::{Finding, Rule, Severity};
use fabkeep_platform::Platform;
use fabkeep_platform::kubernetes::{ClusterAddress, HelperOptions, Mapping};
use fabkeep_platform::{Until, check};
use fabkeep_store::{Commit, Drill, DrillResult, IdentityFile, Repository};

use crate::event::Reporter;
use crate::restore::{RestoreOptions, Restored};
use crate::window::observe_all;
use crate::{EngineError, RestorePlan};
use times::Times;

pub use folder::clean_folder;

/// Most problems and sentences that are recorded, and the longest of them in characters.
const MAX_SENTENCES: usize = 100;
const MAX_SENTENCE_CHARS: usize = 600;
/// How long policies may take to have an effect.
const SETTLE: Duration = Duration::from_secs(10);

/// A cluster that a drill restores into.
#[derive(Debug, Clone)]
pub struct DrillCluster {
    /// The cluster.
    pub address: ClusterAddress,
    /// The cluster of the running network, whose heights are compared.
    pub living: ClusterAddress,
    /// How helper pods are made.
    pub helper: HelperOptions,
    /// What scratch namespaces are called: this, and the captured name.
    pub prefix: String,
    /// Storage classes of claims.
    pub storage_classes: Vec<Mapping>,
    /// Beginnings of image names.
    pub registries: Vec<Mapping>,
    /// Go on although the restored nodes can reach others.
    pub unfenced: bool,
    /// How long policies may take to have an effect.
    pub settle: Duration,
}

impl DrillCluster {
    /// Returns a cluster with the usual choices.
    pub fn new(address: ClusterAddress, prefix: &str) -> DrillCluster {
        DrillCluster {
            living: address.clone(),
            address,
            helper: HelperOptions::default(),
            prefix: prefix.to_owned(),
            storage_classes: Vec::new(),
            registries: Vec::new(),
            unfenced: false,
            settle: SETTLE,
        }
    }
}

/// Where a drill restores.
pub enum DrillPlace<'a> {
    /// Into scratch namespaces of a cluster.
    Cluster(Box<DrillCluster>),
    /// Into a folder that it makes in this one. The data is proven, and nothing is started.
    Folder {
        /// The folder.
        parent: PathBuf,
        /// The running network, whose heights are compared.
        living: Option<&'a dyn Platform>,
    },
}

/// How to drill.
#[derive(Debug, Clone, Default)]
pub struct DrillOptions {
    /// How to restore.
    pub restore: RestoreOptions,
    /// A command of the operator's that checks the restored network.
    pub check: Option<String>,
    /// Leave what was restored for a look.
    pub keep: bool,
    /// How long it may take.
    pub max_rto: Option<Duration>,
    /// How old the point may be.
    pub max_rpo: Option<Duration>,
}

/// What a drill did and found.
#[derive(Debug)]
pub struct Drilled {
    /// What is recorded of it.
    pub drill: Drill,
    /// What the restore and the look at the nodes found.
    pub findings: Vec<Finding>,
    /// Why it ended early.
    pub error: Option<EngineError>,
    /// Limits that were exceeded, in sentences.
    pub over: Vec<String>,
    /// Scratch namespaces that it made.
    pub namespaces: Vec<String>,
    /// The folder that it made.
    pub folder: Option<PathBuf>,
    /// What could not be removed, and why.
    pub left: Vec<String>,
    /// Whether what it made was left as asked.
    pub kept: bool,
}

impl Drilled {
    fn of(commit: &Commit, begun: jiff::Timestamp) -> Result<Drilled, EngineError> {
        let created: Option<jiff::Timestamp> = commit.created.parse().ok();
        let age = created.map_or(0.0, |created| begun.duration_since(created).as_secs_f64().max(0.0));
        let drill = Drill {
            id: new_id()?,
            point: commit.id.clone(),
            begun: begun.to_string(),
            place: String::new(),
            result: DrillResult::Failed,
            problems: Vec::new(),
            stages: Vec::new(),
            rto_seconds: 0.0,
            rpo_seconds: age,
            rpo_blocks: BTreeMap::new(),
            bytes: 0,
            proven: Vec::new(),
            not_proven: Vec::new(),
            removed: true,
            fabkeep: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(Drilled {
            drill,
            findings: Vec::new(),
            error: None,
            over: Vec::new(),
            namespaces: Vec::new(),
            folder: None,
            left: Vec::new(),
            kept: false,
        })
    }

    /// Takes over what a restore did.
    fn restored(&mut self, restored: Restored) {
        self.drill.bytes = restored.bytes;
        self.drill.proven.extend(restored.proven);
        if !restored.well {
            let errors = restored.findings.iter().filter(|finding| finding.severity == Severity::Error);
            let mut problems: Vec<String> = errors.map(sentence).collect();
            if problems.is_empty() {
                problems.push("not everything that was restored is ready".to_owned());
            }
            self.drill.problems.extend(problems);
        }
        let new = restored.findings.into_iter().filter(|finding| !self.findings.contains(finding)).collect::<Vec<_>>();
        self.findings.extend(new);
    }

    /// Takes over what was looked at.
    fn looked(&mut self, looked: proof::DrillFindings) {
        self.drill.proven.extend(looked.proven);
        self.drill.not_proven.extend(looked.not_proven);
        self.drill.problems.extend(looked.problems);
        self.findings.extend(looked.findings);
    }

    /// Judges the whole.
    fn judge(&mut self, options: &DrillOptions, interrupted: bool) {
        let limits = [
            ("it took", self.drill.rto_seconds, options.max_rto),
            ("the point was", self.drill.rpo_seconds, options.max_rpo),
        ];
        for (what, seconds, limit) in limits {
            let Some(limit) = limit.filter(|limit| seconds > limit.as_secs_f64()) else { continue };
            let old = if what == "it took" { "" } else { " old" };
            self.over.push(format!("{what} {seconds:.0} s{old}; {} s are allowed", limit.as_secs()));
        }
        self.drill.result = match &self.error {
            _ if interrupted => DrillResult::Interrupted,
            Some(error) => {
                self.drill.problems.extend(problems_of(error));
                result_of(error)
            }
            None if !self.drill.problems.is_empty() => DrillResult::Unproven,
            None if !self.over.is_empty() => DrillResult::OverLimit,
            None => DrillResult::Proven,
        };
        let over = self.over.iter().cloned();
        self.drill.problems.extend(over);
        for sentences in [&mut self.drill.problems, &mut self.drill.proven, &mut self.drill.not_proven] {
            let more = sentences.len().saturating_sub(MAX_SENTENCES);
            sentences.truncate(MAX_SENTENCES);
            for sentence in sentences.iter_mut().filter(|sentence| sentence.chars().count() > MAX_SENTENCE_CHARS) {
                *sentence = sentence.chars().take(MAX_SENTENCE_CHARS).chain(" …".chars()).collect();
            }
            if more > 0 {
                sentences.push(format!("{more} more"));
            }
        }
        self.drill.removed = self.left.is_empty() && !self.kept;
    }
}

/// Drills a recovery point. What goes wrong on the way is in the result, with how it ended.
///
/// # Errors
/// [`EngineError::Usage`] when what was asked for cannot be done: nothing was begun, and there is nothing to record.
pub fn drill(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    place: &DrillPlace<'_>,
    options: &DrillOptions,
    reporter: &dyn Reporter,
) -> Result<Drilled, EngineError> {
    let mut drilled = Drilled::of(commit, jiff::Timestamp::now())?;
    let times = Times::new(reporter);
    let asked = DrillRequest { repository, commit, identity, options, times: &times };
    let ended = match place {
        DrillPlace::Cluster(place) => cluster::drill(&asked, place, &mut drilled),
        DrillPlace::Folder { parent, living } => folder::drill(&asked, parent, *living, &mut drilled),
    };
    match ended {
        Err(error @ EngineError::Usage(_)) => return Err(error),
        Err(error) => drilled.error = Some(error),
        Ok(()) => {}
    }
    if drilled.drill.rto_seconds == 0.0 {
        drilled.drill.rto_seconds = times.elapsed();
    }
    drilled.drill.stages = times.stages();
    drilled.judge(options, reporter.is_interrupted());
    Ok(drilled)
}

/// Makes the plan of a drill. Nothing is changed. Returns it with the names of scratch namespaces.
///
/// # Errors
/// [`EngineError`] when the recovery point cannot be read, or what was asked for cannot be done.
pub fn plan_drill<'a>(
    repository: &'a Repository,
    commit: &'a Commit,
    identity: &'a IdentityFile,
    place: &DrillPlace<'_>,
    options: &'a DrillOptions,
) -> Result<(RestorePlan<'a>, Vec<String>), EngineError> {
    let times = Times::new(&crate::Silent);
    let asked = DrillRequest { repository, commit, identity, options, times: &times };
    match place {
        DrillPlace::Cluster(place) => cluster::planned(&asked, place),
        DrillPlace::Folder { parent, .. } => Ok((folder::planned(&asked, parent)?, Vec::new())),
    }
}

/// What is drilled, and how.
struct DrillRequest<'a, 't> {
    repository: &'a Repository,
    commit: &'a Commit,
    identity: &'a IdentityFile,
    options: &'a DrillOptions,
    times: &'t Times<'t>,
}

impl DrillRequest<'_, '_> {
    fn interrupted(&self) -> Result<(), EngineError> {
        if self.times.is_interrupted() { Err(EngineError::Stopped) } else { Ok(()) }
    }

    /// Runs the user's own check of what was restored.
    fn run_check(&self, command: &str, environment: &[(String, String)], drilled: &mut Drilled) {
        let is_interrupted = || self.times.is_interrupted();
        let until = Until { deadline: Some(self.options.restore.deadline), is_interrupted: &is_interrupted };
        match check(command, environment, until) {
            Ok(()) => drilled.drill.proven.push("the given check succeeded".to_owned()),
            Err(problem) => drilled.drill.problems.push(format!("the given check failed: {problem}")),
        }
    }

    /// Blocks that a running network has more than the recovery point, by channel.
    fn behind(&self, living: &dyn Platform, asked: fabkeep_platform::ProbeScope) -> BTreeMap<String, u64> {
        let mut highest: BTreeMap<String, u64> = BTreeMap::new();
        for observation in observe_all(living, asked) {
            for (channel, answer) in &observation.channels {
                let height = answer.readings.iter().map(|reading| reading.height).max();
                if let Some(height) = height {
                    let known = highest.entry(channel.clone()).or_default();
                    *known = height.max(*known);
                }
            }
        }
        let captured = self.commit.summary.channels.iter();
        captured
            .filter_map(|known| {
                Some((known.channel.clone(), highest.get(&known.channel)?.saturating_sub(known.height)))
            })
            .collect()
    }

    /// Refuses what the plan of the restore forbids.
    fn check(&self, plan: &RestorePlan<'_>, drilled: &mut Drilled) -> Result<(), EngineError> {
        let refusals = plan.refusals();
        drilled.findings.extend(plan.findings.iter().filter(|finding| !refusals.contains(finding)).cloned());
        if refusals.is_empty() { Ok(()) } else { Err(EngineError::Precondition(refusals)) }
    }
}

/// A random name: 32 hexadecimal digits.
fn new_id() -> Result<String, EngineError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| EngineError::Io {
        path: "random bytes".to_owned(),
        source: std::io::Error::other("there are none"),
    })?;
    Ok(hex::encode(bytes))
}

/// Returns what an error is about, without what it did until then: all of that is removed.
fn cause(error: &EngineError) -> &EngineError {
    match error {
        EngineError::Interrupted { source, .. } => cause(source),
        other => other,
    }
}

fn result_of(error: &EngineError) -> DrillResult {
    match cause(error) {
        EngineError::Stopped => DrillResult::Interrupted,
        EngineError::Precondition(_) | EngineError::Refused(_) => DrillResult::Refused,
        EngineError::Differs(_) | EngineError::ProofFailed { .. } => DrillResult::Unproven,
        _ => DrillResult::Failed,
    }
}

fn problems_of(error: &EngineError) -> Vec<String> {
    match cause(error) {
        EngineError::Precondition(findings) | EngineError::Refused(findings) => findings.iter().map(sentence).collect(),
        other => vec![other.to_string()],
    }
}

/// Returns a finding as a sentence.
fn sentence(finding: &Finding) -> String {
    format!("{} {}: {}", finding.rule, finding.subject, finding.what)
}

/// Returns a finding against a drill.
fn refused(subject: impl ToString, what: impl Into<String>, next: impl Into<fabkeep_network::Remedy>) -> EngineError {
    EngineError::Precondition(vec![Finding::error(Rule::DrillFenced, subject, what, next)])
}
