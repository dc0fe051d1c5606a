//! Capture: survey the nodes, check what they hold, walk every channel's chain once over all nodes, keep the other files, judge the
//! whole, and only then commit.

mod chains;
mod cursor;
mod databases;
mod files;
mod keys;
mod plan;
mod segments;
mod staging;
mod survey;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use fabkeep_ledger::Hash;
use fabkeep_network::{Finding, Severity, check_set};
use fabkeep_platform::Platform;
use fabkeep_store::{ChannelHeight, Commit, PointSummary, PointWriter, Repository, Sources, WriteStats, WriterKey};

use crate::event::{Event, Reporter, step};
use crate::point::{CapturedNode, CapturedObject, RecoveryPoint};
use crate::{EngineError, parallel};

pub use plan::{CapturePlan, plan_capture};
pub use survey::PlannedNode;
pub(crate) use survey::leaves;

/// How to capture.
#[derive(Debug, Clone)]
pub struct CaptureOptions {
    /// Keep state, history and index too: nodes start faster after a restore.
    pub include_derived: bool,
    /// Read everything again, also what an earlier recovery point holds unchanged.
    pub reread: bool,
    /// Nodes to leave out, as `Organization/node`.
    pub exclude: Vec<String>,
    /// Folder for copies of running nodes' databases; the system's temporary folder when `None`.
    pub work_folder: Option<PathBuf>,
    /// How often a running node's database is copied until the copy proves consistent.
    pub live_attempts: u32,
    /// Threads.
    pub threads: usize,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        CaptureOptions {
            include_derived: false,
            reread: false,
            exclude: Vec::new(),
            work_folder: None,
            live_attempts: 10,
            threads: parallel::cores(),
        }
    }
}

/// What a capture made.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The commit record.
    pub commit: Commit,
    /// The manifest.
    pub point: RecoveryPoint,
    /// What was written.
    pub stats: WriteStats,
    /// Bytes read from the nodes.
    pub read_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Header hashes of a channel's blocks, by number: those that raft logs may speak of.
type KnownHashes = HashMap<u64, Hash>;

/// Captures a network into a new recovery point.
///
/// # Errors
/// [`EngineError::Refused`] with every finding when a rule is broken: then there is no recovery point. Others as they come.
pub fn capture(
    platform: &dyn Platform,
    repository: &Repository,
    key: WriterKey,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
) -> Result<Captured, EngineError> {
    let begun = Instant::now();
    let writer = step(reporter, "open repository", None, || repository.writer(key))?;
    // Secrets and ConfigMaps first: they are small, and without them nothing else is of use.
    let objects = step(reporter, "keep objects", None, || keep_objects(platform, &writer))?;
    interrupted(reporter)?;
    let scratch = staging::scratch(options)?;
    let staging = survey::Staging { scratch: scratch.path(), writer: &writer };
    let mut survey = step(reporter, "survey nodes", None, || survey::survey(platform, options, Some(staging)))?;
    let mut findings = std::mem::take(&mut survey.findings);
    stop_on_errors(&mut findings, reporter)?;
    interrupted(reporter)?;

    let total = survey.database_bytes();
    let options = &CaptureOptions { threads: platform.readers().unwrap_or(options.threads), ..options.clone() };
    let facts = step(reporter, "check databases and logs", Some(total), || {
        databases::check(&survey, &writer, options, reporter)
    })?;
    let mut sources: Sources = facts.learned.clone();
    let chains = step(reporter, "walk chains", Some(survey.chain_bytes()), || {
        chains::capture(&survey, &facts, &writer, options, reporter, &mut sources)
    })?;
    findings.extend(facts.findings.iter().cloned());
    findings.extend(chains.findings.iter().cloned());
    stop_on_errors(&mut findings, reporter)?;
    interrupted(reporter)?;

    let files = step(reporter, "keep files", Some(survey.file_bytes()), || {
        files::capture(&survey, &chains, &writer, options, reporter, &mut sources)
    })?;
    findings.extend(files.findings);
    findings.extend(survey::changed_since(&survey)?);

    let node_facts = facts.into_node_facts(&survey, &chains.ledgers);
    let configs: Vec<_> = chains.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    findings.extend(check_set(&node_facts, &configs, options.include_derived, writer.created().as_second()));
    stop_on_errors(&mut findings, reporter)?;
    interrupted(reporter)?;

    findings.sort_by(|a, b| (b.severity, a.rule, &a.subject).cmp(&(a.severity, b.rule, &b.subject)));
    let point = RecoveryPoint {
        fabkeep: env!("CARGO_PKG_VERSION").to_owned(),
        network: platform.network().name.clone(),
        created: writer.created().to_string(),
        derived: options.include_derived,
        excluded: options.exclude.clone(),
        channels: chains.channels,
        nodes: node_facts
            .into_iter()
            .zip(files.directories)
            .zip(&survey.nodes)
            .map(|((facts, directories), planned)| CapturedNode {
                facts,
                directories,
                workload: planned.node.workload.clone(),
            })
            .collect(),
        findings,
        objects,
    };
    platform.finish()?;
    let summary = summary(&point);
    let (commit, stats) = step(reporter, "commit", None, || writer.commit(&point, summary, sources))?;
    Ok(Captured {
        commit,
        point,
        stats,
        read_bytes: chains.read_bytes + files.read_bytes,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// Keeps the objects that declare the network.
fn keep_objects(platform: &dyn Platform, writer: &PointWriter<'_>) -> Result<Vec<CapturedObject>, EngineError> {
    let mut out = Vec::new();
    for declaration in platform.declarations()? {
        let bytes = serde_json::to_vec(&declaration.object).map_err(|error| EngineError::Usage(error.to_string()))?;
        out.push(CapturedObject {
            namespace: declaration.namespace,
            api_version: declaration.api_version,
            kind: declaration.kind,
            name: declaration.name,
            blob: writer.put(&bytes)?,
            bytes: bytes.len() as u64,
        });
    }
    Ok(out)
}

fn summary(point: &RecoveryPoint) -> PointSummary {
    let warnings = point.findings.iter().any(|finding| finding.severity >= Severity::Warning);
    PointSummary {
        network: point.network.clone(),
        verdict: if warnings { "complete with findings" } else { "complete" }.to_owned(),
        nodes: point.nodes.len(),
        channels: point
            .channels
            .iter()
            .map(|channel| ChannelHeight { channel: channel.name.clone(), height: channel.height })
            .collect(),
        source_bytes: point.source_bytes(),
    }
}

/// Tells new findings, and refuses when one is an error. Nothing was committed then: the repository is as before.
fn stop_on_errors(findings: &mut Vec<Finding>, reporter: &dyn Reporter) -> Result<(), EngineError> {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings.dedup();
    let errors: Vec<Finding> = findings.iter().filter(|finding| finding.severity == Severity::Error).cloned().collect();
    if errors.is_empty() {
        return Ok(());
    }
    for finding in findings.iter() {
        reporter.event(Event::Found(finding));
    }
    Err(EngineError::Refused(errors))
}

fn interrupted(reporter: &dyn Reporter) -> Result<(), EngineError> {
    if reporter.is_interrupted() { Err(EngineError::Interrupted) } else { Ok(()) }
}

/// Keeps an order of work over nodes: results by node position.
fn over_nodes<R: Send>(
    survey: &survey::Survey,
    threads: usize,
    work: impl Fn(usize, &PlannedNode) -> R + Sync,
) -> Vec<R> {
    let items: Vec<(usize, &PlannedNode)> = survey.nodes.iter().enumerate().collect();
    parallel::map(items, threads, |(index, node)| work(index, node))
}

/// Names a source for the index: what the next capture looks up.
fn source_name(writer: &PointWriter<'_>, parts: &[&str]) -> fabkeep_store::BlobId {
    writer.names().name_of(parts)
}

/// Channel names with what belongs to each, in order.
type ByChannel<T> = BTreeMap<String, T>;
