//! Attestations: signed statements about a recovery point that contain hashes and heights and nothing private. Another
//! organization of the network compares one with its own nodes, and sees a fork or a node that lags, without seeing any
//! data. `docs/format.md` has the form.

mod compare;
mod make;
mod own;

use std::collections::BTreeMap;

use fabkeep_ledger::Hash;
use serde::{Deserialize, Serialize};

use crate::EngineError;

pub use compare::{Agreement, ComparedChannel, ComparedCommits, ComparedNode, Comparison, compare_attestation};
pub use make::{AttestOptions, BlockRange, attestation};

/// Longest attestation that is read, in bytes.
pub const MAX_ATTESTATION_BYTES: u64 = 64 << 20;
/// Longest name in one.
const MAX_NAME_BYTES: usize = 1024;

/// What is stated about a recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// Identifier of the repository.
    pub repository: String,
    /// The repository's root key, hex.
    pub root: String,
    /// The recovery point.
    pub point: String,
    /// The network's name.
    pub network: String,
    /// When the capture began, RFC 3339.
    pub captured: String,
    /// When the point was committed, RFC 3339.
    pub committed: String,
    /// Version of fabkeep that captured it.
    pub captured_by: String,
    /// When the statement was made, RFC 3339.
    pub made: String,
    /// Version of fabkeep that made the statement.
    pub made_by: String,
    /// `complete` or `complete with findings`.
    pub verdict: String,
    /// How many findings there are, by rule and severity.
    pub findings: Vec<AttestedFinding>,
    /// The channels.
    pub channels: Vec<AttestedChannel>,
}

/// Findings of one rule and severity. Their texts stay in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedFinding {
    /// The rule's code.
    pub rule: String,
    /// `note` or `warning`.
    pub severity: String,
    /// How many.
    pub count: u64,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedChannel {
    /// Its name.
    pub name: String,
    /// Number of the first block in the set: above 0 where every captured peer joined by snapshot.
    pub first_block: u64,
    /// Blocks from genesis.
    pub height: u64,
    /// Header hash of the last block, hex.
    pub tip_hash: String,
    /// The configuration in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<AttestedConfiguration>,
    /// Header hashes by block number, in ascending order.
    pub header_hashes: Vec<(u64, String)>,
    /// Commit hashes of a peer by block number, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commit_hashes: Vec<(u64, String)>,
    /// The peers that hold the channel, without their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<AttestedPeer>,
}

/// The configuration in force at a channel's height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedConfiguration {
    /// Number of its block.
    pub block: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// The data hash of its block, hex: SHA-256 of the envelope with the configuration. Absent where the block is not
    /// in the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_hash: Option<String>,
}

/// A peer's state of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedPeer {
    /// Its organization's MSP, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msp_id: Option<String>,
    /// Its height.
    pub height: u64,
    /// The commit hash of its last block, hex; absent where the channel's capabilities have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_hash: Option<String>,
}

impl Attestation {
    /// Reads a statement's payload, which another organization wrote: nothing in it is trusted to be well-formed.
    ///
    /// # Errors
    /// [`EngineError::Point`] when it is none.
    pub fn parse(payload: &[u8]) -> Result<Attestation, EngineError> {
        let problem = |problem: String| EngineError::Point { point: "the attestation".to_owned(), problem };
        let read: Attestation = serde_json::from_slice(payload).map_err(|error| problem(error.to_string()))?;
        let texts = [&read.point, &read.network, &read.captured, &read.committed, &read.captured_by, &read.made];
        let more = [&read.made_by, &read.verdict, &read.repository, &read.root];
        let rules = read.findings.iter().flat_map(|finding| [&finding.rule, &finding.severity]);
        let names = read.channels.iter().map(|channel| &channel.name);
        let msps = read.channels.iter().flat_map(|channel| &channel.peers).filter_map(|peer| peer.msp_id.as_ref());
        for text in texts.into_iter().chain(more).chain(rules).chain(names).chain(msps) {
            if text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
                return Err(problem("a name in it is too long or has control characters".to_owned()));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        for channel in &read.channels {
            if !seen.insert(&channel.name) {
                return Err(problem(format!("it has two channels {}", channel.name)));
            }
            let wrong = |what: &str| problem(format!("{}: {what}", channel.name));
            let (headers, commits) =
                channel.numbered().ok_or_else(|| wrong("a hash in it is none, or out of order"))?;
            let last = headers.last_key_value().map(|(number, hash)| (number.checked_add(1), hex::encode(hash)));
            if last != Some((Some(channel.height), channel.tip_hash.clone())) {
                return Err(wrong("its last header hash is not that of its height"));
            }
            if commits.last_key_value().is_some_and(|(number, _)| *number >= channel.height) {
                return Err(wrong("it has commit hashes above its height"));
            }
        }
        Ok(read)
    }

    /// Returns the statement as it is signed.
    ///
    /// # Errors
    /// [`EngineError::Point`] when it cannot be written as JSON.
    pub fn payload(&self) -> Result<Vec<u8>, EngineError> {
        let written = serde_json::to_vec(self);
        written.map_err(|error| EngineError::Point { point: self.point.clone(), problem: error.to_string() })
    }
}

impl AttestedChannel {
    /// Returns header hashes and commit hashes by block number; `None` where one is no hash or a number does not
    /// ascend.
    fn numbered(&self) -> Option<(BTreeMap<u64, Hash>, BTreeMap<u64, Hash>)> {
        Some((numbered(&self.header_hashes)?, numbered(&self.commit_hashes)?))
    }
}

fn numbered(hashes: &[(u64, String)]) -> Option<BTreeMap<u64, Hash>> {
    let mut out = BTreeMap::new();
    for (number, text) in hashes {
        if out.last_key_value().is_some_and(|(last, _)| last >= number) {
            return None;
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        out.insert(*number, hash);
    }
    Some(out)
}
