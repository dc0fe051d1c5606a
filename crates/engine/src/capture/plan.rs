//! The plan of a capture: what would be done, without doing it.

use fabkeep_ledger::layout::{Class, NodeRole};
use fabkeep_network::Finding;
use fabkeep_platform::{EntryKind, Platform};
use serde::Serialize;

use super::{CaptureOptions, Consistency, snapshots, survey};
use crate::EngineError;
use crate::window::WindowOptions;

/// What a capture would do.
#[derive(Debug, Clone, Serialize)]
pub struct CapturePlan {
    /// The network's name.
    pub network: String,
    /// Each node and how it would be captured, in order.
    pub nodes: Vec<PlannedCapture>,
    /// What makes the nodes' data one whole, step by step.
    pub consistency: Vec<String>,
    /// What was found already.
    pub findings: Vec<Finding>,
}

/// How one node would be captured.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedCapture {
    /// The node.
    pub node: String,
    /// What it is.
    pub role: NodeRole,
    /// Whether it runs.
    pub running: bool,
    /// How it is read, and why so.
    pub strategy: String,
    /// Channels, as far as its directories show them.
    pub channels: Vec<String>,
    /// Files that a recovery needs.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes left out: derived or never needed.
    pub left_out_bytes: u64,
}

/// Plans a capture: lists, recognises, copies nothing.
///
/// # Errors
/// [`EngineError`] when a directory cannot be listed.
pub fn plan_capture(platform: &dyn Platform, options: &CaptureOptions) -> Result<CapturePlan, EngineError> {
    let mut survey = survey::survey(platform, options, None)?;
    let mut consistency = consistency(platform, options, &mut survey.findings)?;
    match snapshots::plan(platform, options) {
        Ok(decided) => consistency.extend(decided.steps()),
        Err(EngineError::Refused(findings)) => survey.findings.extend(findings),
        Err(error) => return Err(error),
    }
    let nodes = survey.nodes.iter().map(|node| planned(platform, options, node)).collect();
    Ok(CapturePlan { network: platform.network().name.clone(), nodes, consistency, findings: survey.findings })
}

/// Returns how a node would be captured.
pub(super) fn planned(platform: &dyn Platform, options: &CaptureOptions, node: &survey::PlannedNode) -> PlannedCapture {
    let derived = options.include_derived || node.joined_by_snapshot;
    let wanted = || node.directories.iter().flat_map(|directory| directory.files(derived));
    let all: u64 = node
        .directories
        .iter()
        .flat_map(|directory| &directory.entries)
        .filter(|(entry, place)| entry.kind == EntryKind::File && place.class != Class::Authoritative)
        .map(|(entry, _)| entry.stamp.size)
        .sum();
    let kept: u64 =
        wanted().filter(|(_, place)| place.class != Class::Authoritative).map(|(entry, _)| entry.stamp.size).sum();
    let mut channels: Vec<String> =
        node.directories.iter().flat_map(|directory| directory.chains()).map(|chain| chain.channel).collect();
    channels.sort();
    channels.dedup();
    PlannedCapture {
        node: node.node.id.to_string(),
        role: node.node.role,
        running: node.running,
        strategy: strategy(platform, node),
        channels,
        files: wanted().count() as u64,
        bytes: wanted().map(|(entry, _)| entry.stamp.size).sum(),
        left_out_bytes: all - kept,
    }
}

/// Returns the steps that make the data of all nodes consistent.
fn consistency(
    platform: &dyn Platform,
    options: &CaptureOptions,
    findings: &mut Vec<Finding>,
) -> Result<Vec<String>, EngineError> {
    let mut window = |options: &WindowOptions| -> Result<Vec<String>, EngineError> {
        let (changes, found) = platform.closing(&options.quiesce)?;
        findings.extend(found);
        let (stops, quiet): (Vec<_>, Vec<_>) = changes.into_iter().partition(fabkeep_platform::Change::is_stop);
        let mut steps: Vec<String> = quiet.iter().map(ToString::to_string).collect();
        steps.push(format!("wait until heights are equal, at most {} s", options.deadline.as_secs()));
        steps.extend(stops.iter().map(ToString::to_string));
        steps.push("read the difference since the steps above while heights are watched; undo the window".to_owned());
        Ok(steps)
    };
    Ok(match &options.consistency {
        Consistency::AsRead => Vec::new(),
        Consistency::Window(options) => window(options)?,
        Consistency::Cut { fallback } => {
            let mut steps = vec![
                "list everything again, peers before orderers, and read the difference up to one height for each channel".to_owned(),
                "give all orderers the chain and raft state of one of them (the donor)".to_owned(),
            ];
            if let Some(options) = fallback {
                steps.push("or, if a rule forbids the cut:".to_owned());
                steps.extend(window(options)?);
            }
            steps
        }
    })
}

fn strategy(platform: &dyn Platform, node: &survey::PlannedNode) -> String {
    let mut ways: Vec<String> =
        node.directories.iter().map(|known| platform.strategy(&node.node.id, &known.directory)).collect();
    ways.dedup();
    if platform.readers().is_none() {
        ways = vec!["read in place".to_owned()];
    }
    let how = if node.running {
        "running: blocks up to their current length; databases and logs copied until a copy is consistent (P6)"
    } else {
        "stopped"
    };
    format!("{}; {how}", ways.join(", "))
}
