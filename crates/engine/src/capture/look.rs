//! What can be seen of nodes before a capture: their directories, listed, and their certificates and keys, read. Nothing is copied.

use std::collections::BTreeSet;
use std::path::PathBuf;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Node, NodeFacts, NodeId, check_keys};
use fabkeep_platform::Platform;
use parking_lot::Mutex;

use super::plan::PlannedCapture;
use super::survey::{self, PlannedNode, Survey};
use super::{CaptureOptions, identities, keys, links, named, plan};
use crate::EngineError;
use fabkeep_parallel as parallel;

/// What was seen.
pub(crate) struct Looked {
    /// The network's name.
    pub network: String,
    /// How each node would be captured.
    pub nodes: Vec<PlannedCapture>,
    pub findings: Vec<Finding>,
    /// Nodes that could not be looked at.
    pub failed: Vec<(NodeId, EngineError)>,
    /// Bytes of databases and logs that would be copied to this machine first.
    pub staged_bytes: u64,
    survey: Survey,
}

/// Looks at every node that is not among those left out. One that cannot be looked at keeps no other from being looked at.
pub(crate) fn look(platform: &dyn Platform, options: &CaptureOptions, left_out: &BTreeSet<NodeId>) -> Looked {
    let is_wanted = |node: &&Node| !left_out.contains(&node.id) && !options.exclude.contains(&node.id.to_string());
    let nodes: Vec<(usize, &Node)> = platform.network().nodes().filter(is_wanted).enumerate().collect();
    let threads = platform.readers().unwrap_or(1);
    let looked = parallel::map(nodes, threads, |(position, node)| {
        (node.id.clone(), survey::survey_node(platform, node, position, options, None))
    });
    let mut survey = Survey { nodes: Vec::new(), findings: Vec::new() };
    let mut failed = Vec::new();
    for (id, result) in looked {
        match result {
            Ok((planned, findings)) => {
                survey.findings.extend(findings);
                survey.nodes.push(planned);
            }
            Err(error) => failed.push((id, error)),
        }
    }
    survey.findings.extend(links::judge_followed(&survey.nodes));
    let keys = look_at_keys(&survey.nodes, options.threads);
    survey.findings.extend(keys);
    let copied = |node: &&PlannedNode| node.running || platform.readers().is_some();
    Looked {
        network: platform.network().name.clone(),
        nodes: survey.nodes.iter().map(|node| plan::planned(platform, options, node)).collect(),
        findings: std::mem::take(&mut survey.findings),
        failed,
        staged_bytes: survey.nodes.iter().filter(copied).map(survey::database_bytes).sum(),
        survey,
    }
}

impl Looked {
    /// Returns the directories of a node on this machine, and the bytes of each that a recovery needs.
    pub fn bytes_of(&self, node: &NodeId) -> Vec<(PathBuf, u64)> {
        let directories =
            self.survey.nodes.iter().filter(|known| known.node.id == *node).flat_map(|known| &known.directories);
        let sizes = directories.filter_map(|directory| {
            let bytes = directory.files(false).map(|(entry, _)| entry.stamp.size).sum();
            Some((directory.volume.local("")?, bytes))
        });
        sizes.collect()
    }

    /// Reads the beginnings of the largest block files, at most this many bytes, and returns how many bytes were read.
    pub fn read_sample(&self, most_bytes: u64) -> std::io::Result<u64> {
        let largest = self.survey.nodes.iter().flat_map(|node| &node.directories).flat_map(|directory| {
            let files = directory
                .files(false)
                .filter(|(_, place)| matches!(place.kind, fabkeep_ledger::layout::Kind::BlockFile(_)));
            files.map(move |(entry, _)| (entry.stamp.size, directory, entry))
        });
        let Some((size, directory, entry)) = largest.max_by_key(|(size, ..)| *size) else { return Ok(0) };
        let (volume, path) = directory.source(&entry.path);
        let mut reader = volume.open(path, 0..size.min(most_bytes))?;
        std::io::copy(&mut reader, &mut std::io::sink())
    }
}

fn look_at_keys(nodes: &[PlannedNode], threads: usize) -> Vec<Finding> {
    let findings = Mutex::new(Vec::new());
    let found = |finding: Finding| findings.lock().push(finding);
    let now = jiff::Timestamp::now().as_second();
    let with_keys = |node: &&PlannedNode| {
        matches!(node.node.role, NodeRole::Peer | NodeRole::Orderer | NodeRole::CertificateAuthority)
    };
    parallel::map(nodes.iter().filter(with_keys), threads, |node| {
        let keys = keys::collect(node, &found);
        identities::check(node, &keys, &found);
        named::check(node, nodes, &found);
        let facts = NodeFacts {
            id: node.node.id.clone(),
            role: node.node.role,
            msp_id: node.node.msp_id.clone(),
            running: node.running,
            ledgers: Vec::new(),
            raft: Vec::new(),
            keys,
            ca: None,
            snapshots_from_logs: None,
        };
        let mut judged = Vec::new();
        check_keys(&facts, now, &mut judged);
        findings.lock().extend(judged);
    });
    findings.into_inner()
}
