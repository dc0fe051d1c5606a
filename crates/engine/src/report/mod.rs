//! The report of a recovery point: everything that a person wants to see of it, as one value. The command line writes
//! it as a page or as JSON; `docs/report.schema.json` describes that.

mod proof;
mod sizes;

use std::collections::BTreeMap;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, KeyPurpose, NodeId};
use fabkeep_store::{Commit, IdentityFile, Repository};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::point::{CapturedDirectory, CapturedNode, Channel, RecoveryPoint};
use crate::{EngineError, Stage};

pub use sizes::{SizeKind, SizeOf, Sizes};

/// The version of the report's form.
const VERSION: u32 = 1;
const DAY_SECONDS: i64 = 86_400;

/// The report of a recovery point.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Report {
    /// Version of this form. Fields may be added without a new version.
    pub version: u32,
    /// When the report was made, RFC 3339.
    pub made: String,
    /// Version of fabkeep that made it.
    pub made_by: String,
    /// What it is about.
    pub point: ReportedPoint,
    /// How much would be lost now.
    pub rpo: Rpo,
    /// How long a recovery takes, as a drill has measured it; `null` where none has.
    pub rto: Option<Rto>,
    /// What was proven, in sentences.
    pub proven: Vec<String>,
    /// What was not proven, in sentences.
    pub not_proven: Vec<String>,
    /// The organizations and their nodes.
    pub organizations: Vec<ReportedOrganization>,
    /// The channels.
    pub channels: Vec<ReportedChannel>,
    /// How the time went: a timeline for each operation whose stages are known.
    pub timelines: Vec<Timeline>,
    /// The no-transaction window that the point was captured in.
    pub window: Option<ReportedWindow>,
    /// Where the bytes are.
    pub sizes: Sizes,
    /// The certificates of nodes, the one that expires first in front.
    pub certificates: Vec<ReportedCertificate>,
    /// The findings of the capture, worst first.
    #[schemars(with = "Vec<ReportedFinding>")]
    pub findings: Vec<Finding>,
    /// Commands to verify and restore this point.
    pub commands: Vec<ReportedCommand>,
}

/// The recovery point.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedPoint {
    /// Its name.
    pub id: String,
    /// The repository's identifier.
    pub repository: String,
    /// The network's name.
    pub network: String,
    /// `complete` or `complete with findings`.
    pub verdict: String,
    /// When the capture began, RFC 3339.
    pub captured: String,
    /// When the point was committed, RFC 3339.
    pub committed: String,
    /// Version of fabkeep that captured it.
    pub captured_by: String,
    /// Whether derived data (state, history, block index) is included.
    pub derived: bool,
    /// Nodes that were left out on request.
    pub excluded: Vec<String>,
    /// Whether the network runs on Kubernetes.
    pub kubernetes: bool,
    /// Objects of the cluster that are in the point.
    pub objects: usize,
}

/// The recovery point objective, as it is: what was written after the capture began is not in the point.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Rpo {
    /// Seconds from the beginning of the capture until the report was made.
    pub seconds: i64,
    /// Blocks that the living network had more, by channel, when a drill looked; `null` where none has.
    pub blocks: Option<BTreeMap<String, u64>>,
}

/// The recovery time objective, as a drill measured it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Rto {
    /// Seconds from the beginning of the restore until all was proven.
    pub seconds: f64,
    /// When that was measured, RFC 3339.
    pub measured: String,
}

/// An organization.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedOrganization {
    /// Its name in the inventory, or its namespace.
    pub name: String,
    /// Its nodes.
    pub nodes: Vec<ReportedNode>,
}

/// A node.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedNode {
    /// Which: `Organization/node`.
    pub node: String,
    /// `peer`, `orderer`, `ca`, `state-db`, `ca-db`, `chaincode` or `files`.
    pub role: String,
    /// Its MSP, when known.
    pub msp_id: Option<String>,
    /// Whether it ran while it was captured.
    pub running: bool,
    /// The workload that runs it, on Kubernetes.
    pub workload: Option<String>,
    /// Databases that it cannot start without.
    pub served_by: Vec<String>,
    /// The channels that it holds.
    pub channels: Vec<String>,
    /// Bytes of its files that a restore writes.
    pub bytes: u64,
    /// Certificates of its own.
    pub certificates: usize,
    /// How many of them have their private key in the set.
    pub keys: usize,
}

/// A channel.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedChannel {
    /// Its name.
    pub name: String,
    /// Number of the first block in the set.
    pub first_block: u64,
    /// Blocks from genesis.
    pub height: u64,
    /// Header hash of the last block, hex.
    pub tip_hash: String,
    /// `etcdraft`, `BFT` …, when the configuration is known.
    pub consensus: Option<String>,
    /// How many consenters the configuration names.
    pub consenters: Option<usize>,
    /// MSPs of the organizations in the configuration.
    pub organizations: Vec<String>,
    /// Number of the configuration block in force.
    pub configuration_block: Option<u64>,
    /// The nodes that hold it, in the order of the point.
    pub nodes: Vec<ReportedHeight>,
}

/// A channel's height on a node.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedHeight {
    /// Which: `Organization/node`.
    pub node: String,
    /// Its role.
    pub role: String,
    /// Its height.
    pub height: u64,
    /// Blocks that it has fewer than the channel.
    pub behind: u64,
    /// Commit hash of its last block, hex (peers).
    pub commit_hash: Option<String>,
}

/// What a timeline is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TimelineOf {
    /// The capture.
    Capture,
    /// A drill: a restore beside the living network.
    Drill,
}

/// How the time of an operation went.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Timeline {
    /// Which operation.
    pub of: TimelineOf,
    /// When it began, RFC 3339.
    pub begun: String,
    /// Seconds until its last stage ended.
    pub seconds: f64,
    /// Its stages, in the order in which they began.
    pub stages: Vec<ReportedStage>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReportedStage {
    /// What was done.
    pub name: String,
    /// Seconds from the operation's beginning to its own.
    pub begun_seconds: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Bytes read in it.
    pub bytes: u64,
}

/// A no-transaction window.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedWindow {
    /// Seconds from its first change until everything was undone, or until the capture was done.
    pub seconds: f64,
    /// Of these, until heights were equal.
    pub level_after_seconds: f64,
    /// How often the difference was captured.
    pub passes: u32,
}

/// A certificate of a node.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedCertificate {
    /// Which node: `Organization/node`.
    pub node: String,
    /// The subject's common name.
    pub common_name: String,
    /// `enrolment`, `TLS` or `CA`.
    pub purpose: String,
    /// Its location: directory role and path.
    pub location: String,
    /// When it expires, RFC 3339.
    pub not_after: String,
    /// Whole days until then, from when the report was made; negative where it has expired.
    pub days: i64,
    /// Whether its private key is in the set.
    pub key: bool,
}

/// A command.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReportedCommand {
    /// What it is for.
    pub purpose: CommandPurpose,
    /// The command as it is typed.
    pub command: String,
}

/// What a command is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommandPurpose {
    /// Verify every object and every chain of the point.
    Verify,
    /// Show what a restore would do.
    Plan,
    /// Restore the whole network.
    Restore,
    /// Restore only what is missing in the cluster.
    RestoreMissing,
    /// Restore one node and set its data aside.
    RestoreNode(String),
    /// Restore into a folder, beside everything.
    RestoreIntoFolder,
    /// Go back to an earlier height of a channel.
    EarlierHeight(String),
}

/// A finding, as it is written for programs.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct ReportedFinding {
    /// The rule's code.
    rule: String,
    /// How bad it is.
    severity: ReportedSeverity,
    /// What it is about.
    subject: String,
    /// What was found.
    what: String,
    /// What to do next, as a sentence that names the options of the command line.
    remedy: String,
    /// The same as data: a string where it is only words, else an object whose field `do` is its kind.
    remedy_data: serde_json::Value,
}

/// The severity of a finding.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)]
enum ReportedSeverity {
    /// Information.
    Note,
    /// Needs a person's attention.
    Warning,
    /// A rule is broken.
    Error,
}

/// Makes the report of a recovery point. `command` writes the command for a purpose.
///
/// # Errors
/// [`EngineError`] when the recovery point cannot be read.
pub fn report(
    repository: &Repository,
    commit: &Commit,
    identity: &IdentityFile,
    command: &dyn Fn(&ReportedPoint, &CommandPurpose) -> String,
) -> Result<Report, EngineError> {
    let (point, _) = repository.read_point::<RecoveryPoint>(commit, identity)?;
    crate::contained::check_channels(&point)?;
    Ok(of_point(&point, commit, Timestamp::now(), command))
}

/// Returns the report of an open recovery point, at a time.
fn of_point(
    point: &RecoveryPoint,
    commit: &Commit,
    now: Timestamp,
    command: &dyn Fn(&ReportedPoint, &CommandPurpose) -> String,
) -> Report {
    let captured: Option<Timestamp> = point.created.parse().ok();
    let about = ReportedPoint {
        id: commit.id.to_string(),
        repository: commit.repository.clone(),
        network: point.network.clone(),
        verdict: commit.summary.verdict.clone(),
        captured: point.created.clone(),
        committed: commit.committed.clone(),
        captured_by: point.fabkeep.clone(),
        derived: point.derived,
        excluded: point.excluded.clone(),
        kubernetes: point.nodes.iter().any(|node| node.workload.is_some()),
        objects: point.objects.len(),
    };
    let written = |purpose: CommandPurpose| {
        let command = command(&about, &purpose);
        ReportedCommand { purpose, command }
    };
    Report {
        version: VERSION,
        made: now.to_string(),
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        rpo: Rpo {
            seconds: captured.map_or(0, |captured| (now.as_second() - captured.as_second()).max(0)),
            blocks: None,
        },
        rto: None,
        proven: proof::proven(point),
        not_proven: proof::not_proven(point),
        organizations: organizations(point),
        channels: point.channels.iter().map(|channel| of_channel(channel, point)).collect(),
        timelines: timeline(&point.stages, TimelineOf::Capture, &point.created).into_iter().collect(),
        window: point.window.as_ref().map(|window| ReportedWindow {
            seconds: window.seconds,
            level_after_seconds: window.level_after_seconds,
            passes: window.passes,
        }),
        sizes: sizes::of_point(point, commit),
        certificates: certificates(point, now),
        findings: point.findings.clone(),
        commands: purposes(point, about.kubernetes).into_iter().map(written).collect(),
        point: about,
    }
}

/// Returns the timeline of an operation, if its stages are known.
fn timeline(stages: &[Stage], of: TimelineOf, begun: &str) -> Option<Timeline> {
    let end = |stage: &Stage| stage.begun_seconds + stage.seconds;
    let seconds = stages.iter().map(end).reduce(f64::max)?;
    let stages = stages.iter().map(|stage| ReportedStage {
        name: stage.name.clone(),
        begun_seconds: stage.begun_seconds,
        seconds: stage.seconds,
        bytes: stage.bytes,
    });
    Some(Timeline { of, begun: begun.to_owned(), seconds, stages: stages.collect() })
}

fn organizations(point: &RecoveryPoint) -> Vec<ReportedOrganization> {
    let mut out: Vec<ReportedOrganization> = Vec::new();
    for node in &point.nodes {
        let name = &node.facts.id.organization;
        let reported = of_node(node);
        match out.iter_mut().find(|known| known.name == *name) {
            Some(known) => known.nodes.push(reported),
            None => out.push(ReportedOrganization { name: name.clone(), nodes: vec![reported] }),
        }
    }
    out.iter_mut().for_each(|organization| organization.nodes.sort_by(|a, b| a.node.cmp(&b.node)));
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn of_node(node: &CapturedNode) -> ReportedNode {
    let own = || node.facts.keys.iter().filter(|key| key.purpose != KeyPurpose::Trusted);
    let mut channels: Vec<String> = node.facts.ledgers.iter().map(|ledger| ledger.channel.clone()).collect();
    channels.sort();
    channels.dedup();
    ReportedNode {
        node: node.facts.id.to_string(),
        role: node.facts.role.to_string(),
        msp_id: node.facts.msp_id.clone(),
        running: node.facts.running,
        workload: node.workload.as_ref().map(ToString::to_string),
        served_by: node.served_by.iter().map(NodeId::to_string).collect(),
        channels,
        bytes: node.directories.iter().map(CapturedDirectory::data_bytes).sum(),
        certificates: own().count(),
        keys: own().filter(|key| key.key.is_some()).count(),
    }
}

fn of_channel(channel: &Channel, point: &RecoveryPoint) -> ReportedChannel {
    let config = channel.config.as_ref();
    let mut organizations: Vec<String> = config
        .map(|config| config.organizations.iter().map(|organization| organization.msp_id.clone()).collect())
        .unwrap_or_default();
    organizations.sort();
    organizations.dedup();
    let mut nodes = Vec::new();
    for node in &point.nodes {
        for ledger in node.facts.ledgers.iter().filter(|ledger| ledger.channel == channel.name) {
            nodes.push(ReportedHeight {
                node: node.facts.id.to_string(),
                role: node.facts.role.to_string(),
                height: ledger.height,
                behind: channel.height.saturating_sub(ledger.height),
                commit_hash: ledger.commit_hash.clone(),
            });
        }
    }
    ReportedChannel {
        name: channel.name.clone(),
        first_block: channel.first_block,
        height: channel.height,
        tip_hash: channel.tip_hash.clone(),
        consensus: config.map(|config| config.consensus_type.clone()),
        consenters: config.map(|config| config.consenters.len()),
        organizations,
        configuration_block: channel.config_block,
        nodes,
    }
}

/// Returns the nodes' own certificates, each once, the one that expires first in front.
fn certificates(point: &RecoveryPoint, now: Timestamp) -> Vec<ReportedCertificate> {
    let mut dated: Vec<(i64, ReportedCertificate)> = Vec::new();
    for node in &point.nodes {
        for key in node.facts.keys.iter().filter(|key| key.purpose != KeyPurpose::Trusted) {
            let Some(certificate) = &key.certificate else { continue };
            let not_after = Timestamp::from_second(certificate.not_after);
            let reported = ReportedCertificate {
                node: node.facts.id.to_string(),
                common_name: certificate.common_name.clone(),
                purpose: key.purpose.to_string(),
                location: key.path.clone(),
                not_after: not_after.map_or_else(|_| String::new(), |time| time.to_string()),
                days: (certificate.not_after - now.as_second()).div_euclid(DAY_SECONDS),
                key: key.key.is_some(),
            };
            dated.push((certificate.not_after, reported));
        }
    }
    dated.sort_by(|(a, one), (b, other)| (a, &one.node, &one.location).cmp(&(b, &other.node, &other.location)));
    dated.into_iter().map(|(_, reported)| reported).collect()
}

/// Returns what commands are shown for: those that fit where the network runs.
fn purposes(point: &RecoveryPoint, kubernetes: bool) -> Vec<CommandPurpose> {
    let mut out = vec![CommandPurpose::Verify, CommandPurpose::Plan, CommandPurpose::Restore];
    if kubernetes {
        out.push(CommandPurpose::RestoreMissing);
    }
    let peer = point.nodes.iter().find(|node| node.facts.role == NodeRole::Peer);
    out.extend(peer.or(point.nodes.first()).map(|node| CommandPurpose::RestoreNode(node.facts.id.to_string())));
    out.push(CommandPurpose::RestoreIntoFolder);
    out.extend(point.channels.first().map(|channel| CommandPurpose::EarlierHeight(channel.name.clone())));
    out
}
