//! Compares an attestation with the chains of one's own nodes: equal, forked (and where), behind, or without a common
//! block.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::Hash;
use fabkeep_ledger::chain::ChainError;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Remedy, Rule, Severity};
use fabkeep_platform::Platform;
use serde::Serialize;

use super::own::OwnChain;
use super::{Attestation, AttestedChannel, BlockRange};
use crate::capture::{ChainFiles, survey};
use crate::event::{Event, Reporter, step};
use crate::{CaptureOptions, EngineError};
use fabkeep_parallel as parallel;

/// What a comparison found.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Channels that both sides have.
    pub channels: Vec<ComparedChannel>,
    /// Channels that only the attestation has.
    pub only_attested: Vec<String>,
    /// Channels that only the own nodes have.
    pub only_own: Vec<String>,
    /// What does not agree, the worst first.
    pub findings: Vec<Finding>,
}

/// A channel that both sides have.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedChannel {
    /// Its name.
    pub channel: String,
    /// The attested height.
    pub height: u64,
    /// The own nodes that have it.
    pub nodes: Vec<ComparedNode>,
}

/// A node's chain beside the attested one.
#[derive(Debug, Clone, Serialize)]
pub struct ComparedNode {
    /// Which: `Organization/node`.
    pub node: String,
    /// Its height; `None` when its chain cannot be read.
    pub height: Option<u64>,
    /// Blocks that it has fewer than the attestation.
    pub behind: u64,
    /// Blocks that it has more than the attestation.
    pub ahead: u64,
    /// How the header hashes compare.
    pub headers: Agreement,
    /// How the commit hashes compare; `None` for orderers, which have none.
    pub commits: Option<ComparedCommits>,
}

/// How the header hashes of two chains compare. All blocks before an equal one are equal: each header contains the hash
/// of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Agreement {
    /// Equal up to this block, the highest that both sides have and state.
    Equal {
        /// Its number.
        block: u64,
    },
    /// They differ.
    Fork {
        /// The highest block that is known to be equal.
        last_equal: Option<u64>,
        /// The lowest block that is known to differ. The fork is at it, or between the two where they are not
        /// neighbours.
        different: u64,
        /// The attested header hash of that block, hex.
        attested: String,
        /// The own one, hex.
        own: String,
    },
    /// No block is in both.
    NothingCommon,
    /// The own chain cannot be read.
    Unread {
        /// Why.
        problem: String,
    },
}

/// How commit hashes compare: equal ones mean that the two peers validated all blocks up to there alike and wrote the
/// same state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum ComparedCommits {
    /// Equal up to this block.
    Equal {
        /// Its number.
        block: u64,
    },
    /// They differ.
    Differ {
        /// The highest block at which they are known to be equal.
        last_equal: Option<u64>,
        /// The lowest block at which they are known to differ.
        different: u64,
        /// The attested one, hex.
        attested: String,
        /// The own one, hex.
        own: String,
    },
    /// No block has one on both sides.
    NothingCommon,
}

/// A chain of an own node.
struct Own<'a> {
    node: String,
    peer: bool,
    volume: &'a dyn fabkeep_platform::Volume,
    files: ChainFiles,
}

/// Compares an attestation with the chains of a network's peers and orderers. Only block files are read.
///
/// # Errors
/// [`EngineError`] when the network cannot be read at all. A chain that cannot be read is reported in its place.
pub fn compare_attestation(
    attestation: &Attestation,
    platform: &dyn Platform,
    reporter: &dyn Reporter,
) -> Result<Comparison, EngineError> {
    let others = platform.network().nodes().filter(|node| !matches!(node.role, NodeRole::Peer | NodeRole::Orderer));
    let exclude = others.map(|node| node.id.to_string()).collect();
    let options = CaptureOptions { exclude, ..CaptureOptions::default() };
    let survey = step(reporter, "survey nodes", None, || survey::survey(platform, &options, None))?;
    let mut by_channel: BTreeMap<String, Vec<Own<'_>>> = BTreeMap::new();
    for node in &survey.nodes {
        for directory in &node.directories {
            for files in directory.chains() {
                by_channel.entry(files.channel.clone()).or_default().push(Own {
                    node: node.node.id.to_string(),
                    peer: node.node.role == NodeRole::Peer,
                    volume: directory.volume.as_ref(),
                    files,
                });
            }
        }
    }
    let attested: BTreeSet<&str> = attestation.channels.iter().map(|channel| channel.name.as_str()).collect();
    let mut out = Comparison {
        channels: Vec::new(),
        only_attested: Vec::new(),
        only_own: by_channel.keys().filter(|name| !attested.contains(name.as_str())).cloned().collect(),
        findings: unreadable(&survey.findings),
    };
    for channel in &attestation.channels {
        let Some(own) = by_channel.remove(&channel.name) else {
            out.only_attested.push(channel.name.clone());
            continue;
        };
        let threads = platform.readers().unwrap_or_else(parallel::cores);
        let name = format!("compare {}", channel.name);
        let nodes = step(reporter, &name, None, || {
            parallel::map(own, threads, |own| (!reporter.is_interrupted()).then(|| compare(channel, &own, reporter)))
        });
        let nodes: Option<Vec<ComparedNode>> = nodes.into_iter().collect();
        out.channels.push(ComparedChannel {
            channel: channel.name.clone(),
            height: channel.height,
            nodes: nodes.ok_or(EngineError::Stopped)?,
        });
    }
    platform.finish()?;
    let judged: Vec<Finding> = judge(attestation, &out);
    out.findings.extend(judged);
    out.findings.sort_by(|a, b| (b.severity, a.rule, &a.subject).cmp(&(a.severity, b.rule, &b.subject)));
    Ok(out)
}

/// What the survey could not read: these nodes are not compared.
fn unreadable(findings: &[Finding]) -> Vec<Finding> {
    let about = |finding: &&Finding| matches!(finding.rule, Rule::FileReadable | Rule::NotPersistent);
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).filter(about);
    errors.map(|finding| Finding { severity: Severity::Warning, ..finding.clone() }).collect()
}

fn compare(channel: &AttestedChannel, own: &Own<'_>, reporter: &dyn Reporter) -> ComparedNode {
    let mut compared = ComparedNode {
        node: own.node.clone(),
        height: None,
        behind: 0,
        ahead: 0,
        headers: Agreement::NothingCommon,
        commits: None,
    };
    let mut bytes = 0;
    if let Err(error) = compare_chain(channel, own, &mut compared, &mut bytes) {
        compared.headers = Agreement::Unread { problem: error.to_string() };
    }
    reporter.event(Event::Advance { bytes, blocks: 0 });
    compared
}

fn compare_chain(
    channel: &AttestedChannel,
    own: &Own<'_>,
    compared: &mut ComparedNode,
    bytes: &mut u64,
) -> Result<(), ChainError> {
    let mut chain = OwnChain::open(own.volume, &own.files)?;
    let (first, height) = chain.extent()?;
    compared.height = Some(height);
    (compared.behind, compared.ahead) = (channel.height.saturating_sub(height), height.saturating_sub(channel.height));
    let (headers, commits) = channel.numbered().unwrap_or_default();
    let common = |hashes: &BTreeMap<u64, Hash>| -> Vec<(u64, Hash)> {
        hashes.iter().filter(|(number, _)| (first..height).contains(number)).map(|(n, hash)| (*n, *hash)).collect()
    };
    let headers = common(&headers);
    compared.headers = match differ(&headers, |number| Ok(chain.block(number)?.map(|block| block.header)))? {
        Differ::Nowhere(Some(block)) => Agreement::Equal { block },
        Differ::Nowhere(None) => Agreement::NothingCommon,
        Differ::From { last_equal, different, attested, own } => {
            Agreement::Fork { last_equal, different, attested: hex::encode(attested), own: hex::encode(own) }
        }
    };
    if own.peer {
        // On two chains that fork, commit hashes differ behind the fork for that reason.
        let before = match &compared.headers {
            Agreement::Fork { different, .. } => *different,
            _ => u64::MAX,
        };
        let mut stated = Vec::new();
        for (number, hash) in common(&commits).into_iter().filter(|(number, _)| *number < before) {
            if chain.block(number)?.is_some_and(|block| block.commit.is_some()) {
                stated.push((number, hash));
            }
        }
        let found = differ(&stated, |number| Ok(chain.block(number)?.and_then(|block| block.commit)))?;
        compared.commits = Some(match found {
            Differ::Nowhere(Some(block)) => ComparedCommits::Equal { block },
            Differ::Nowhere(None) => ComparedCommits::NothingCommon,
            Differ::From { last_equal, different, attested, own } => {
                let (attested, own) = (hex::encode(attested), hex::encode(own));
                ComparedCommits::Differ { last_equal, different, attested, own }
            }
        });
    }
    *bytes = chain.bytes;
    Ok(())
}

/// Where two rows of hashes differ.
enum Differ {
    /// Nowhere; the last number that was compared.
    Nowhere(Option<u64>),
    From {
        last_equal: Option<u64>,
        different: u64,
        attested: Hash,
        own: Hash,
    },
}

/// Returns where chained hashes begin to differ: from there on all of them do, so few have to be looked at.
fn differ(
    attested: &[(u64, Hash)],
    mut own: impl FnMut(u64) -> Result<Option<Hash>, ChainError>,
) -> Result<Differ, ChainError> {
    let Some((last, hash)) = attested.last() else { return Ok(Differ::Nowhere(None)) };
    if own(*last)? == Some(*hash) {
        return Ok(Differ::Nowhere(Some(*last)));
    }
    let (mut low, mut high) = (0, attested.len() - 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let (number, hash) = attested[middle];
        if own(number)? == Some(hash) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let (different, hash) = attested[high];
    let last_equal = high.checked_sub(1).map(|at| attested[at].0);
    Ok(Differ::From { last_equal, different, attested: hash, own: own(different)?.unwrap_or_default() })
}

fn judge(attestation: &Attestation, compared: &Comparison) -> Vec<Finding> {
    let mut findings = Vec::new();
    for channel in &compared.channels {
        for node in &channel.nodes {
            findings.extend(judge_node(channel, node));
        }
    }
    let equal = |node: &ComparedNode| matches!(node.headers, Agreement::Equal { .. } | Agreement::Fork { .. });
    if !compared.channels.iter().flat_map(|channel| &channel.nodes).any(equal) {
        findings.push(Finding::error(
            Rule::OneChain,
            &attestation.network,
            "nothing was compared: no block of these nodes is in the attestation",
            "name the nodes that hold the attested channels, or ask for an attestation of the channels that both \
             organizations have",
        ));
    }
    findings
}

fn judge_node(channel: &ComparedChannel, node: &ComparedNode) -> Vec<Finding> {
    let subject = format!("{} {}", node.node, channel.channel);
    let mut findings = Vec::new();
    match &node.headers {
        Agreement::Fork { last_equal, different, attested, own } => {
            let first = last_equal.map_or(0, |number| number.saturating_add(1));
            let ask: Remedy =
                "compare this block's header hash with a third organization's: one side has another chain. \
                               Transactions behind it are not those of the other side"
                    .into();
            let (place, remedy) = if first == *different {
                (format!("at block {different}"), ask)
            } else {
                let range = BlockRange { channel: channel.channel.clone(), first, last: *different };
                let closer = Remedy::AttestBlocks { blocks: range.to_string() };
                (format!("between block {first} and block {different}"), ask.and(closer))
            };
            let what = format!(
                "the chain forks {place}: the header hash of block {different} is {own} here, and {attested} in the \
                 attestation"
            );
            findings.push(Finding::error(Rule::OneChain, &subject, what, remedy));
        }
        Agreement::Unread { problem } => findings.push(Finding::error(
            Rule::HashChain,
            &subject,
            format!("its chain cannot be compared: {problem}"),
            Remedy::from("check the node's block files, or compare without this node's directory"),
        )),
        Agreement::NothingCommon => findings.push(Finding::warning(
            Rule::OneChain,
            &subject,
            "no block of this node is in the attestation",
            "a node that joined by snapshot has no earlier blocks; a node that lags far behind has none of the \
             stated ones",
        )),
        Agreement::Equal { .. } => {}
    }
    if let (true, Some(height)) = (node.behind > 0, node.height) {
        let compared = match &node.headers {
            Agreement::Equal { block } => format!("; its blocks up to {block} are those of the attestation"),
            _ => String::new(),
        };
        findings.push(Finding::warning(
            Rule::OneChain,
            &subject,
            format!(
                "it is {} behind the attestation: its height is {height}, the attested one {}{compared}",
                blocks(node.behind),
                channel.height
            ),
            Remedy::from("wait until the node has caught up, and compare again").or(Remedy::SeeStatus),
        ));
    }
    if let Some(ComparedCommits::Differ { different, last_equal, attested, own }) = &node.commits {
        let first = last_equal.map_or(0, |number| number.saturating_add(1));
        let place = if first == *different {
            String::new()
        } else {
            format!(", at the latest; at the earliest at block {first}")
        };
        findings.push(Finding::error(
            Rule::OneChain,
            &subject,
            format!(
                "the commit hash of block {different} is {own} here, and {attested} in the attestation{place}: the \
                 blocks are equal, and one of the two peers computed another world state"
            ),
            "compare both with a third peer; the one that differs must be rebuilt from its blocks (`peer node \
             rebuild-dbs`) or restored",
        ));
    }
    findings
}

fn blocks(count: u64) -> String {
    if count == 1 { "1 block".to_owned() } else { format!("{count} blocks") }
}
