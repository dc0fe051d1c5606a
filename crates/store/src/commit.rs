//! The commit record of a recovery point: small, readable without the identity, signed, written last.

use serde::{Deserialize, Serialize};

use crate::index::ObjectEntry;
use crate::{Chance, StoreError};

/// A recovery point's name: when it was begun, in UTC to the millisecond, and six random hex
/// digits. Names sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PointId(String);

impl PointId {
    /// Returns a new name for a point begun at `now`.
    pub(crate) fn new(now: jiff::Timestamp, chance: &Chance) -> Self {
        let random: [u8; 3] = chance.bytes();
        PointId(format!("{}-{}", now.strftime("%Y%m%dT%H%M%S%3fZ"), hex::encode(random)))
    }

    /// Takes a name as written; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, random) = text.split_once('-')?;
        let good = time.len() == 19
            && time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'T' || byte == b'Z')
            && random.len() == 6
            && random.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| PointId(text.to_owned()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was begun by its writer's clock, as text; the name itself when it is not a time.
    pub fn time(&self) -> String {
        let (digits, rest) = (self.0.as_bytes(), &self.0);
        let at = |range: std::ops::Range<usize>| rest.get(range).unwrap_or_default();
        if digits.len() < 19 {
            return self.0.clone();
        }
        format!("{}-{}-{} {}:{}:{} UTC", at(0..4), at(4..6), at(6..8), at(9..11), at(11..13), at(13..15))
    }

    pub(crate) fn commit_name(&self) -> String {
        format!("points/{}", self.0)
    }
}

impl std::fmt::Display for PointId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// A channel and its height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelHeight {
    /// The channel's name.
    pub channel: String,
    /// Blocks from genesis.
    pub height: u64,
}

/// The part of a commit record that everybody who reads the repository can see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointSummary {
    /// The network's name.
    pub network: String,
    /// `complete` or `complete with findings`.
    pub verdict: String,
    /// Nodes captured.
    pub nodes: usize,
    /// Channels captured.
    pub channels: Vec<ChannelHeight>,
    /// Bytes of the captured files.
    pub source_bytes: u64,
}

/// A commit that another one follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The recovery point's name.
    pub point: PointId,
    /// BLAKE3 of its commit record's bytes, hexadecimal.
    pub blake3: String,
}

/// A commit record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The recovery point's name.
    pub id: PointId,
    /// The repository's identifier: a record copied from another repository is refused.
    pub repository: String,
    /// When the capture began, RFC 3339.
    pub created: String,
    /// When it was committed, RFC 3339.
    pub committed: String,
    /// For people and schedulers.
    pub summary: PointSummary,
    /// Objects that this point added, manifest and index included.
    pub new_objects: u64,
    /// Their bytes, sealed.
    pub new_bytes: u64,
    /// Its place in the chain of commits: one more than the highest that its writer saw. Absent in what older versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The commits that its writer saw and no other had followed: a recovery point that is named here and is not there was removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Previous>,
    /// Recovery points of the same writer that were stopped just before their end: manifests or indexes of theirs may be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<PointId>,
    /// Keys of the revoked writers that its writer knew of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<String>,
    /// The sealed manifest.
    pub manifest: ObjectEntry,
    /// The signed index.
    pub index: ObjectEntry,
}

impl Commit {
    pub(crate) fn parse(object: &str, payload: &[u8]) -> Result<Commit, StoreError> {
        serde_json::from_slice(payload).map_err(|error| StoreError::damaged(object, error.to_string()))
    }
}
