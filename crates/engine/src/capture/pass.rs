//! One pass over all nodes: survey, checks, chains, files. A pass commits nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, HeightSource, Node, NodeFacts, Observation, Reading, Rule, Severity};
use fabkeep_platform::Platform;
use fabkeep_store::{PointWriter, Sources};

use super::cut::Cuts;
use super::{
    CaptureOptions, Members, chains, databases, files, gone, interrupted, memory, raft_logs, staging, stop_on_errors,
};
use super::{changed, survey};
use crate::EngineError;
use crate::event::{Reporter, step, step_with_helpers};
use crate::point::{CapturedDirectory, Channel, config_of};
use crate::transform::level::{self, Levelled};
use crate::transform::rebuild;

/// Fabric's own default, for a channel whose configuration cannot be read.
const USUAL_BATCH_TIMEOUT: Duration = Duration::from_secs(2);
/// No window waits longer than this for blocks that may still come.
const MAX_BATCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a duration as Go writes it: `2s`, `200ms`, `1m30s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = behind;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// What a pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Most of the bytes, while the network runs: what moves too fast now is left to the final pass.
    Bulk,
    /// What the recovery point is made of.
    Final,
    /// The same, every chain cut at one height.
    Cut,
}

/// What a pass found and kept, node by node in the survey's order.
pub(super) struct Pass {
    pub facts: Vec<NodeFacts>,
    pub channels: Vec<Channel>,
    pub directories: Vec<Vec<CapturedDirectory>>,
    /// Channels whose raft logs and snapshots were checked and are not kept.
    pub without_logs: BTreeSet<String>,
    pub nodes: Vec<Node>,
    pub sources: Sources,
    pub findings: Vec<Finding>,
    pub read_bytes: u64,
}

impl Pass {
    /// Channels that each peer and orderer holds.
    pub fn members(&self) -> Members {
        let holds = |node: &&NodeFacts| matches!(node.role, NodeRole::Peer | NodeRole::Orderer);
        let nodes = self.facts.iter().filter(holds);
        nodes
            .map(|node| (node.id.clone(), node.ledgers.iter().map(|ledger| ledger.channel.clone()).collect()))
            .collect()
    }

    /// Returns the longest time for which an orderer of these channels holds transactions back before it cuts a block.
    pub fn batch_timeout(&self) -> Duration {
        let of_channel = |channel: &Channel| {
            let text = channel.config.as_ref().map(|config| config.batch_timeout.as_str()).unwrap_or_default();
            go_duration(text).unwrap_or(USUAL_BATCH_TIMEOUT)
        };
        self.channels.iter().map(of_channel).max().unwrap_or(USUAL_BATCH_TIMEOUT).min(MAX_BATCH_TIMEOUT)
    }

    /// Returns the captured heights, as observations of the block files.
    pub fn heights(&self) -> Vec<Observation> {
        self.facts
            .iter()
            .map(|node| {
                let mut out = Observation::new(node.id.clone(), node.role, node.running);
                for ledger in &node.ledgers {
                    let source = HeightSource::BlockFiles;
                    out.add(&ledger.channel, Reading { source, height: ledger.height, asked_ms: 0, answered_ms: 0 });
                }
                out
            })
            .collect()
    }
}

/// Goes over all nodes once.
pub(super) fn run(
    platform: &dyn Platform,
    writer: &PointWriter<'_>,
    options: &CaptureOptions,
    effort: Effort,
    reporter: &dyn Reporter,
) -> Result<Pass, EngineError> {
    let scratch = staging::scratch(options)?;
    let staging = survey::Staging { scratch: scratch.path(), writer };
    let name = if effort == Effort::Bulk { "survey nodes (bulk)" } else { "survey nodes" };
    let mut survey = step_with_helpers(reporter, platform, name, || survey::survey(platform, options, Some(staging)))?;
    let mut findings = std::mem::take(&mut survey.findings);
    let judge = |findings: &mut Vec<Finding>| {
        if effort == Effort::Bulk {
            findings.retain(|finding| finding.rule != Rule::LiveCopy);
        }
        // Keys and certificates do not keep the chains from being read: what these say is found with them, in one run.
        let of_keys = |rule: Rule| matches!(rule, Rule::EveryKey | Rule::CaKey | Rule::Certificates);
        if findings.iter().any(|finding| finding.severity == Severity::Error && !of_keys(finding.rule)) {
            stop_on_errors(findings, reporter)?;
        }
        interrupted(reporter)
    };
    judge(&mut findings)?;

    let total = survey.database_bytes();
    let options = &CaptureOptions { threads: platform.readers().unwrap_or(options.threads), ..options.clone() };
    let facts = step(reporter, "check databases and logs", Some(total), || {
        databases::check(&survey, writer, options, reporter)
    })?;
    let cuts = match effort {
        Effort::Cut => step(reporter, "choose heights", None, || Cuts::choose(&survey, &facts, writer, options))?,
        Effort::Bulk | Effort::Final => Cuts::default(),
    };
    let mut sources: Sources = facts.learned.clone();
    let mut chains = step(reporter, "read chains", Some(survey.chain_bytes()), || {
        chains::capture(&survey, &facts, &cuts, writer, options, reporter, &mut sources)
    })?;
    findings.extend(facts.findings.iter().cloned());
    findings.extend(chains.findings.iter().cloned());
    let names: Vec<String> = chains.channels.iter().map(|channel| channel.name.clone()).collect();
    // A channel with another chain is another channel: what its nodes held of the former is not missed.
    let renewed: BTreeSet<&str> = chains
        .findings
        .iter()
        .filter(|finding| finding.rule == Rule::OneChain)
        .map(|finding| finding.subject.as_str())
        .collect();
    findings.extend(gone::check(&survey, writer, options, &mut sources));
    findings.extend(memory::check(&survey, &facts.nodes, &renewed, &names, writer, options, &mut sources));
    judge(&mut findings)?;

    if options.without_raft_logs {
        chains.without_logs = raft_logs::left_out(&facts, &chains, &mut findings);
    }
    let files = step(reporter, "store files", Some(survey.file_bytes()), || {
        files::capture(&survey, &chains, &cuts, writer, options, reporter, &mut sources)
    })?;
    findings.extend(files.findings);
    findings.extend(changed::changed_since(&survey)?);
    let mut directories = files.directories;
    let channels = std::mem::take(&mut chains.channels);
    let mut facts = facts.into_node_facts(&survey, &chains.ledgers);
    if effort == Effort::Cut {
        for (channel, cut) in &cuts.by_channel {
            let nodes = facts.iter_mut().zip(&mut directories);
            let mut nodes: Vec<_> = nodes.map(|(facts, directories)| Levelled { facts, directories }).collect();
            let config = config_of(&channels, channel);
            match cut.donor {
                Some(donor) => findings.extend(level::to_donor(channel, config, donor, &mut nodes)),
                None => findings.extend(rebuild::empty_smartbft_logs(channel, &mut nodes, writer)?),
            }
        }
    }
    Ok(Pass {
        facts,
        channels,
        directories,
        without_logs: chains.without_logs,
        nodes: survey.nodes.iter().map(|planned| planned.node.clone()).collect(),
        sources,
        findings,
        read_bytes: chains.read_bytes + files.read_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_timeouts_are_read_as_go_writes_them() {
        assert_eq!(go_duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(go_duration("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(
            (go_duration(""), go_duration("2"), go_duration("s2"), go_duration("2 parsecs")),
            (None, None, None, None)
        );
    }
}
