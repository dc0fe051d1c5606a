//! Capture: surveys the nodes, checks their stores, reads every channel's chain once over all nodes, stores the other files, judges the
//! whole set, and only then commits. With a window or a cut the nodes are read twice: most data while they run, then the difference.

mod authority;
mod ca_tables;
mod chain_folders;
mod chains;
mod changed;
mod cursor;
mod cut;
mod databases;
mod derived;
mod entries;
mod files;
mod gone;
mod histories;
mod identities;
mod issuer;
mod key_store;
mod keys;
mod links;
mod look;
mod memory;
mod named;
mod packages;
mod pass;
mod plan;
mod presence;
mod private_data;
mod raft_logs;
mod segments;
mod servers;
mod settings;
mod snapshots;
mod staging;
mod start_marks;
pub(crate) mod survey;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fabkeep_ledger::Hash;
use fabkeep_network::{
    Finding, Grown, NodeId, Observation, OrLeaveOut, Quiet, Remedy, Rule, Severity, check_set, contradictions,
    unanswered,
};
use fabkeep_platform::{BlockFiles, Change, Platform, ProbeScope, SnapshotPlan, SnapshotReport};
use fabkeep_store::{ChannelHeight, Commit, PointSummary, PointWriter, Repository, WriteStats, WriterKey};

use crate::EngineError;
use crate::event::{Event, Notice, Reporter, Timed, step};
use crate::kept;
use crate::misuse::Misuse;
use crate::point::{CapturedNode, CapturedObject, RecoveryPoint};
use crate::repository::remark_finding;
use crate::window::{self, OpenWindow, WindowOptions, WindowReport};
use fabkeep_parallel as parallel;

pub(crate) use entries::leaves;
pub(crate) use keys::certificates_of;
pub(crate) use look::{Looked, look};
use pass::{Effort, Pass};
pub use plan::{CapturePlan, PlannedCapture, plan_capture};
pub use snapshots::Volumes;
pub(crate) use snapshots::steps as snapshot_steps;
pub(crate) use survey::ChainFiles;
pub use survey::PlannedNode;

/// What makes the nodes' data one whole.
#[derive(Debug, Clone, Default)]
pub enum Consistency {
    /// Each node as it is when it is read; the rules judge what came of it.
    #[default]
    AsRead,
    /// One height over all nodes, inside a no-transaction window.
    Window(WindowOptions),
    /// Every chain cut at one height that all peers have and the ordering service exceeds; nothing is stopped.
    Cut {
        /// What is done instead where a rule forbids the cut; without it the backup refuses.
        fallback: Option<WindowOptions>,
    },
}

/// How to capture.
#[derive(Debug, Clone)]
pub struct CaptureOptions {
    /// Keep state, history and index too: nodes start faster after a restore.
    pub include_derived: bool,
    /// Check raft logs and snapshots, and do not store those that a restore can create from the chain.
    pub without_raft_logs: bool,
    /// Read everything again, also what an earlier recovery point holds unchanged.
    pub reread: bool,
    /// Nodes to leave out, as `Organization/node`.
    pub exclude: Vec<String>,
    /// Folder for copies of running nodes' databases; the system's temporary folder when `None`.
    pub work_folder: Option<PathBuf>,
    /// How volumes are read.
    pub volumes: Volumes,
    /// For how many recovery points of the network snapshots stay in the cluster, this one included. `None`: those that are kept stay, and
    /// no more are.
    pub keep_snapshots: Option<usize>,
    /// Copy the files of database servers on a cluster instead of dumping their databases.
    pub copy_databases: bool,
    /// How often a running node's database is copied until the copy proves consistent.
    pub live_attempts: u32,
    /// Threads.
    pub threads: usize,
    /// What makes the nodes' data one whole.
    pub consistency: Consistency,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        CaptureOptions {
            include_derived: false,
            without_raft_logs: false,
            reread: false,
            exclude: Vec::new(),
            work_folder: None,
            volumes: Volumes::default(),
            keep_snapshots: None,
            copy_databases: false,
            live_attempts: 10,
            threads: parallel::cores(),
            consistency: Consistency::default(),
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
    /// What is not as it should be in the repository, or with snapshots that stay in the cluster. It says nothing of the point.
    pub repository: Vec<Finding>,
    /// How long it took.
    pub seconds: f64,
}

/// Header hashes of a channel's blocks, by number: those that raft logs may speak of.
type KnownHashes = HashMap<u64, Hash>;

/// Captures a network into a new recovery point.
///
/// # Errors
/// [`EngineError::Refused`] with every finding when a rule is broken: then there is no recovery point. Others as they come. A window that
/// was opened is undone before this returns.
pub fn capture(
    platform: &dyn Platform,
    repository: &Repository,
    key: WriterKey,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
) -> Result<Captured, EngineError> {
    let stays = matches!(&options.consistency, Consistency::Window(window) if window.stay_closed);
    let before = if stays { platform.window()?.open } else { None };
    let captured = capture_all(platform, repository, key, options, reporter);
    if stays && before.is_none() && captured.is_err() {
        // Nothing moves now.
        window::resume(platform, None, reporter)?;
    }
    captured
}

fn capture_all(
    platform: &dyn Platform,
    repository: &Repository,
    key: WriterKey,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
) -> Result<Captured, EngineError> {
    let begun = Instant::now();
    let timed = Timed::new(reporter);
    let reporter: &dyn Reporter = &timed;
    stop_on_errors(&mut inside_a_node(platform, repository), reporter)?;
    let mut writer = step(reporter, "open repository", None, || repository.writer(key.clone()))?;
    writer.prefer(&platform.network().name);
    let mut remarks: Vec<Finding> = writer.remarks().iter().map(remark_finding).collect();
    // Secrets and ConfigMaps first: they are small, and without them nothing else is of use.
    let (objects, undeclared) = step(reporter, "store objects", None, || keep_objects(platform, &writer))?;
    interrupted(reporter)?;
    let planned = snapshots::plan(platform, options)?.report(reporter);
    let planned = planned.as_ref();
    let made = match &options.consistency {
        Consistency::AsRead => as_read(platform, &mut writer, options, planned, reporter)?,
        Consistency::Window(window) => in_window(platform, &mut writer, options, window, planned, reporter)?,
        Consistency::Cut { fallback } => match cut::capture(platform, &mut writer, options, planned, reporter)? {
            cut::Outcome::Made(pass, snapshots) => {
                CaptureResult { pass: *pass, window: None, snapshots, findings: Vec::new() }
            }
            cut::Outcome::Forbidden(findings) => {
                let Some(window) = fallback else { return Err(EngineError::Refused(findings)) };
                for finding in &findings {
                    reporter.event(Event::Found(finding));
                }
                reporter.event(Event::Notice(Notice::FallsBack));
                let made = in_window(platform, &mut writer, options, window, planned, reporter)?;
                let reported = findings.into_iter().map(|finding| Finding { severity: Severity::Warning, ..finding });
                CaptureResult { findings: made.findings.into_iter().chain(reported).collect(), ..made }
            }
        },
    };
    interrupted(reporter)?;
    // A capture that went over the nodes again needs the objects still.
    objects.iter().for_each(|object| {
        writer.keep(object.blob);
    });
    let CaptureResult { pass, window, mut snapshots, findings: more } = made;
    let Pass { mut findings, sources, read_bytes, facts, channels, directories, without_logs, nodes } = pass;
    findings.extend(more);
    findings.extend(undeclared);
    let configs: Vec<_> = channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
    findings.extend(check_set(&facts, &configs, options.include_derived, writer.created().as_second()));
    stop_on_errors(&mut findings, reporter)?;
    interrupted(reporter)?;

    if let Some(taken) = snapshots.as_mut().filter(|_| options.keep_snapshots.is_some_and(|count| count > 0)) {
        taken.kept = step(reporter, "keep snapshots", None, || platform.snapshots_to_keep())?;
    }
    findings.sort_by(|a, b| (b.severity, a.rule, &a.subject).cmp(&(a.severity, b.rule, &b.subject)));
    let point = RecoveryPoint {
        fabkeep: env!("CARGO_PKG_VERSION").to_owned(),
        network: platform.network().name.clone(),
        created: writer.created().to_string(),
        derived: options.include_derived,
        excluded: options.exclude.clone(),
        without_logs: without_logs.into_iter().collect(),
        channels,
        nodes: facts
            .into_iter()
            .zip(directories)
            .zip(nodes)
            .map(|((facts, directories), node)| CapturedNode {
                facts,
                directories,
                workload: node.workload,
                served_by: node.served_by,
            })
            .collect(),
        findings,
        objects,
        window,
        snapshots,
        stages: timed.stages(),
    };
    // Nothing is committed that a restore would refuse.
    if let Err(EngineError::Point { point: subject, problem }) = crate::contained::check(&point, point.nodes.iter()) {
        let remedy = OrLeaveOut("rename or remove what is named");
        let finding = Finding::error(Rule::Contained, subject, problem, remedy);
        reporter.event(Event::Found(&finding));
        return Err(EngineError::Refused(vec![finding]));
    }
    platform.finish()?;
    let summary = summary(&point);
    let (commit, stats) = step(reporter, "commit", None, || writer.commit(&point, summary, sources))?;
    if let Some(count) = options.keep_snapshots {
        let kept = point.snapshots.as_ref().map_or(&[][..], |taken| &taken.kept);
        let of = (commit.id.as_str(), point.network.as_str());
        remarks.extend(kept::after_commit(platform, repository, &key, of, kept, count));
    }
    Ok(Captured { commit, point, stats, read_bytes, repository: remarks, seconds: begun.elapsed().as_secs_f64() })
}

/// What the passes came to.
struct CaptureResult {
    pass: Pass,
    window: Option<WindowReport>,
    snapshots: Option<SnapshotReport>,
    findings: Vec<Finding>,
}

/// How long a set of snapshots may take outside a window.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// The pause before nodes that moved on are gone over again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Runs passes until one is not refused for what running orderers did while it read: a snapshot taken, a log compacted, between the copies
/// of the two. Each further pass reads only what changed.
fn until_settled(
    writer: &mut PointWriter<'_>,
    options: &CaptureOptions,
    reporter: &dyn Reporter,
    mut run: impl FnMut(&PointWriter<'_>) -> Result<Pass, EngineError>,
) -> Result<Pass, EngineError> {
    let mut read_bytes = 0;
    let mut left = options.live_attempts.max(1);
    loop {
        let mut pass = run(writer)?;
        read_bytes += pass.read_bytes;
        left -= 1;
        let configs: Vec<_> = pass.channels.iter().filter_map(|channel| channel.config.as_ref()).collect();
        let judged = check_set(&pass.facts, &configs, options.include_derived, writer.created().as_second());
        let errors: Vec<&Finding> = judged.iter().filter(|finding| finding.severity == Severity::Error).collect();
        let running = pass.facts.iter().any(|node| node.running);
        let moved = |finding: &&Finding| {
            matches!(finding.rule, Rule::RaftInOrder | Rule::SnapshotNoted | Rule::LedgerNotAheadOfLog)
        };
        if errors.is_empty() || left == 0 || !running || !errors.iter().all(moved) {
            return Ok(Pass { read_bytes, ..pass });
        }
        reporter.event(Event::Notice(Notice::OnceMore { finding: errors[0] }));
        writer.begin_again(std::mem::take(&mut pass.sources));
        std::thread::sleep(AGAIN_AFTER);
    }
}

/// One pass over the nodes as they are.
fn as_read(
    platform: &dyn Platform,
    writer: &mut PointWriter<'_>,
    options: &CaptureOptions,
    planned: Option<&SnapshotPlan>,
    reporter: &dyn Reporter,
) -> Result<CaptureResult, EngineError> {
    let observed = window::observe_all(platform, ProbeScope { block_files: BlockFiles::Never, health: false });
    let read_ms = jiff::Timestamp::now().as_millisecond();
    let snapshots = planned.map(|plan| snapshots::take(platform, plan, SNAPSHOT_DEADLINE, reporter)).transpose()?;
    let mut first = true;
    let pass = until_settled(writer, options, reporter, |writer| {
        // What was read again is read.
        let options = CaptureOptions { reread: options.reread && std::mem::take(&mut first), ..options.clone() };
        pass::run(platform, writer, &options, Effort::Final, reporter)
    })?;
    let findings = window::cross_check(&observed, &pass.facts, read_ms);
    Ok(CaptureResult { pass, window: None, snapshots, findings })
}

/// Returns the bulk while transactions flow, then the window, then the difference.
fn in_window(
    platform: &dyn Platform,
    writer: &mut PointWriter<'_>,
    options: &CaptureOptions,
    how: &WindowOptions,
    planned: Option<&SnapshotPlan>,
    reporter: &dyn Reporter,
) -> Result<CaptureResult, EngineError> {
    if !how.quiesce.changes_nothing() {
        window::refuse_open(platform)?;
    }
    let (changes, mut findings) = platform.closing(&how.quiesce)?;
    stop_on_errors(&mut findings, reporter)?;
    if let Some(plan) = planned {
        return with_snapshots(platform, writer, options, how, plan, (changes, findings), reporter);
    }
    let mut bulk = pass::run(platform, writer, options, Effort::Bulk, reporter)?;
    let members = bulk.members();
    let mut read_bytes = bulk.read_bytes;
    let run = writer.id().to_string();
    let (begun, since) = (Instant::now(), jiff::Timestamp::now());
    let mut window = OpenWindow::open(platform, reporter, how, &run, changes, members, bulk.batch_timeout())?;
    let mut passes = 0;
    loop {
        step(reporter, "wait for equal heights", None, || window.wait_until_level())?;
        writer.begin_again(std::mem::take(&mut bulk.sources));
        passes += 1;
        let read_ms = jiff::Timestamp::now().as_millisecond();
        let (last, mut grown) = window::watched(&window, || {
            // What was read again is read: only the difference is left.
            let options = CaptureOptions { reread: false, ..options.clone() };
            pass::run(platform, writer, &options, Effort::Final, reporter)
        });
        let last = last?;
        read_bytes += last.read_bytes;
        add_grown(&mut grown, window.grown(&last.heights()));
        if !grown.is_empty() && how.extend && begun.elapsed() < how.deadline {
            reporter.event(Event::Notice(Notice::WindowExtended { chains: grown.len() }));
            bulk = last;
            continue;
        }
        findings.extend(judged(window.observed(), &grown, &last, read_ms));
        let (report, left) = step(reporter, "end the window", None, || window.close(passes))?;
        findings.extend(left);
        let captured = |id: &NodeId| last.facts.iter().any(|node| node.id == *id);
        findings.extend(step(reporter, "read logs", None, || crate::logs::findings(platform, since, captured)));
        let pass = Pass { read_bytes, ..last };
        return Ok(CaptureResult { pass, window: Some(report), snapshots: None, findings });
    }
}

/// Returns what snapshots show that were taken inside a window. The window ends when they are cut; they are read afterwards.
fn with_snapshots(
    platform: &dyn Platform,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    how: &WindowOptions,
    plan: &SnapshotPlan,
    (changes, mut findings): (Vec<Change>, Vec<Finding>),
    reporter: &dyn Reporter,
) -> Result<CaptureResult, EngineError> {
    let members = step(reporter, "list nodes", None, || snapshots::members(platform, options))?;
    let run = writer.id().to_string();
    let (begun, since) = (Instant::now(), jiff::Timestamp::now());
    let mut window = OpenWindow::open(platform, reporter, how, &run, changes, members, snapshots::SETTLE)?;
    let mut passes = 0;
    let (taken, read_ms, mut grown) = loop {
        step(reporter, "wait for equal heights", None, || window.wait_until_level())?;
        passes += 1;
        let read_ms = jiff::Timestamp::now().as_millisecond();
        let limit = how.deadline.saturating_sub(begun.elapsed());
        let (taken, grown) = window::watched(&window, || snapshots::take(platform, plan, limit, reporter));
        let taken = taken?;
        if grown.is_empty() || !how.extend || begun.elapsed() >= how.deadline {
            break (taken, read_ms, grown);
        }
        reporter.event(Event::Notice(Notice::WindowExtended { chains: grown.len() }));
    };
    let (level, observed) = (window.level().to_vec(), window.observed().to_vec());
    let (report, left) = step(reporter, "end the window", None, || window.close(passes))?;
    findings.extend(left);
    let pass = pass::run(platform, writer, options, Effort::Final, reporter)?;
    add_grown(&mut grown, window::grown(&level, &pass.heights()));
    findings.extend(judged(&observed, &grown, &pass, read_ms));
    let captured = |id: &NodeId| pass.facts.iter().any(|node| node.id == *id);
    findings.extend(step(reporter, "read logs", None, || crate::logs::findings(platform, since, captured)));
    Ok(CaptureResult { pass, window: Some(report), snapshots: Some(taken), findings })
}

/// Adds chains that grew to those that are known, each once.
fn add_grown(grown: &mut Vec<Grown>, more: Vec<Grown>) {
    for more in more {
        if !grown.iter().any(|known| (&known.node, &known.channel) == (&more.node, &more.channel)) {
            grown.push(more);
        }
    }
}

/// Returns what is wrong with a capture inside a window: what the nodes said when they were level, and what was captured.
fn judged(observed: &[Observation], grown: &[Grown], pass: &Pass, read_ms: i64) -> Vec<Finding> {
    let mut findings = window::cross_check(observed, &pass.facts, read_ms);
    findings.extend(observed.iter().flat_map(contradictions));
    findings.extend(observed.iter().filter_map(unanswered));
    findings.extend(grown.iter().map(Grown::finding));
    findings.extend(unequal(pass));
    findings
}

/// Chains that were captured at different heights though they were captured inside a window.
fn unequal(pass: &Pass) -> Vec<Finding> {
    let standings = fabkeep_network::standings(&pass.heights(), &BTreeMap::new());
    let mut findings = Vec::new();
    for standing in &standings {
        for (node, height, lag) in standing.laggards() {
            findings.push(Finding::error(
                Rule::WindowQuiet,
                format!("{node} {}", standing.channel),
                format!(
                    "it was captured at height {}, {lag} below the highest ({}): new blocks were added between the equal heights and the capture",
                    height.unwrap_or(0),
                    standing.highest
                ),
                Remedy::KeepTransactionsAway { by: vec![Quiet::Fence, Quiet::Stop] }.or(Remedy::ExtendWindow),
            ));
        }
    }
    findings
}

/// Keeps the objects that declare the network.
fn keep_objects(
    platform: &dyn Platform,
    writer: &PointWriter<'_>,
) -> Result<(Vec<CapturedObject>, Vec<Finding>), EngineError> {
    let mut out = Vec::new();
    let declared = platform.declarations()?;
    for declaration in declared.objects {
        let bytes = serde_json::to_vec(&declaration.object).map_err(|error| Misuse::new(error.to_string()))?;
        out.push(CapturedObject {
            namespace: declaration.namespace,
            api_version: declaration.api_version,
            kind: declaration.kind,
            name: declaration.name,
            blob: writer.put(&bytes)?,
            bytes: bytes.len() as u64,
        });
    }
    Ok((out, declared.findings))
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

/// A repository in a node's directory: every backup would capture it once more, and every restore in place would be refused.
fn inside_a_node(platform: &dyn Platform, repository: &Repository) -> Vec<Finding> {
    let Some(folder) = repository.folder().and_then(|folder| folder.canonicalize().ok()) else { return Vec::new() };
    let on_host = platform.network().nodes().filter(|node| node.workload.is_none());
    let directories = on_host.flat_map(|node| node.directories.iter().map(move |directory| (&node.id, directory)));
    let inside = directories.filter(|(_, directory)| {
        let Ok(root) = Path::new(&directory.path).canonicalize() else { return false };
        let Ok(at) = folder.strip_prefix(root) else { return false };
        !directory.excluded.iter().any(|excluded| at.starts_with(excluded))
    });
    inside
        .map(|(id, directory)| {
            Finding::error(
                Rule::RepositoryOwn,
                id,
                format!("its directory {} contains the repository {}", directory.path, folder.display()),
                "move the repository out of the nodes' directories, or remove that directory from the inventory",
            )
        })
        .collect()
}

fn interrupted(reporter: &dyn Reporter) -> Result<(), EngineError> {
    if reporter.is_interrupted() { Err(EngineError::Stopped) } else { Ok(()) }
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

/// Channels by node.
type Members = BTreeMap<NodeId, Vec<String>>;
