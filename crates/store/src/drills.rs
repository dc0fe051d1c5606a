//! Records of drills: what was restored for a rehearsal, how long it took, and what that proved. A signed record, written once. It says
//! nothing about the recovery point that a restore would go by. What names nodes and places is sealed: only the identity's holder reads it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::commit::PointId;
use crate::remark::{Remark, RemarkKind};
use crate::trust::{Record, Signer};
use crate::{IdentityFile, Repository, StoreError, json, keys, seal, signed};

/// The folder of the records.
pub(crate) const FOLDER: &str = "drills";
/// Longest record that is read or written, in bytes.
const MAX_RECORD_BYTES: usize = 1 << 20;

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillResult {
    /// The point was restored, and everything that was looked at is as it should be.
    Proven,
    /// The same, but it took longer, or the point was older, than allowed.
    OverLimit,
    /// It was restored, and something is not as it should be.
    Unproven,
    /// A rule forbids its restore, or the drill.
    Refused,
    /// The point cannot be read, or something failed on the way.
    Failed,
    /// Somebody stopped it.
    Interrupted,
    /// A result of a later version.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Display for DrillResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            DrillResult::Proven => "proven",
            DrillResult::OverLimit => "over the limit",
            DrillResult::Unproven => "not proven",
            DrillResult::Refused => "refused",
            DrillResult::Failed => "failed",
            DrillResult::Interrupted => "interrupted",
            DrillResult::Unknown => "unknown",
        })
    }
}

/// A part of a drill, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillStage {
    /// What was done.
    pub name: String,
    /// How long, in seconds.
    pub seconds: f64,
}

/// What a drill did and found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// Its random name: 32 hex digits.
    pub id: String,
    /// The recovery point.
    pub point: PointId,
    /// When it began, RFC 3339.
    pub begun: String,
    /// Where it restored: a cluster's address and namespaces, or a folder. Sealed in the record.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// How it ended.
    pub result: DrillResult,
    /// Why it did not prove the point; empty if it did. Sealed in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Its parts, in order.
    pub stages: Vec<DrillStage>,
    /// From the beginning to the end of the proof, in seconds.
    pub rto_seconds: f64,
    /// Age of the point when the drill began, in seconds.
    pub rpo_seconds: f64,
    /// Blocks that the running network had more than the point, by channel; only channels of which it was asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rpo_blocks: BTreeMap<String, u64>,
    /// Bytes restored.
    pub bytes: u64,
    /// What was proven, in sentences. Sealed in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proven: Vec<String>,
    /// What was not, in sentences. Sealed in the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_proven: Vec<String>,
    /// Whether what it restored was removed again.
    pub removed: bool,
    /// The version of fabkeep.
    pub fabkeep: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct DrillRecord {
    repository: String,
    made: String,
    /// BLAKE3 of the point's commit record.
    blake3: String,
    drill: Drill,
    /// The details, sealed, base64.
    details: String,
}

/// What names nodes and places.
#[derive(Serialize, Deserialize)]
struct Details {
    place: String,
    problems: Vec<String>,
    proven: Vec<String>,
    not_proven: Vec<String>,
}

impl Record for DrillRecord {
    fn repository(&self) -> &str {
        &self.repository
    }
}

/// A drill as it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordedDrill {
    /// The record's name.
    pub record: String,
    /// When it was made, by its signer's clock.
    pub made: String,
    /// BLAKE3 of the point's commit record.
    pub blake3: String,
    /// Whether the sealed part of it could not be read, because no identity was given.
    pub sealed: bool,
    /// What it says.
    #[serde(flatten)]
    pub drill: Drill,
}

impl Repository {
    /// Returns the recorded drills, oldest first, and remarks on records that are not to be trusted. Without the identity their sealed parts
    /// are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed or read, or the identity is not one of its own.
    pub fn drills(&self, identity: Option<&IdentityFile>) -> Result<(Vec<RecordedDrill>, Vec<Remark>), StoreError> {
        let (mut drills, mut remarks) = (Vec::new(), Vec::new());
        let names: Vec<String> = self.backend.list(FOLDER)?.into_keys().collect();
        for (name, read) in self.backend.get_many(&names)? {
            let opened = read.and_then(|bytes| {
                let record = self.parse_drill(&name, &bytes)?;
                open(&name, record, identity)
            });
            match opened {
                Ok(drill) => drills.push(drill),
                Err(error @ StoreError::WrongIdentity) => return Err(error),
                Err(error) => remarks.push(Remark::new(RemarkKind::Foreign, &name, error.problem())),
            }
        }
        // Names begin with the time at which the record was made.
        drills.sort_by(|a, b| a.record.cmp(&b.record));
        Ok((drills, remarks))
    }

    pub(crate) fn parse_drill(&self, name: &str, bytes: &[u8]) -> Result<DrillRecord, StoreError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(StoreError::damaged(name, "it is longer than a record of a drill can be"));
        }
        let opened = signed::open(name, "drill", bytes)?;
        self.check_writer_or_root(name, &opened)?;
        self.record(name, &opened)
    }

    /// Records a drill. Returns the record's name.
    ///
    /// # Errors
    /// [`StoreError`] when the point is not in the repository, the signer is not the repository's, or the record cannot be put.
    pub fn record_drill(&self, drill: &Drill, signer: &Signer<'_>) -> Result<String, StoreError> {
        let history = self.history()?;
        let blake3 = history.hash(&drill.point).ok_or_else(|| StoreError::NoSuchPoint(drill.point.to_string()))?;
        let now = self.clock.now();
        let mut open = drill.clone();
        let details = Details {
            place: std::mem::take(&mut open.place),
            problems: std::mem::take(&mut open.problems),
            proven: std::mem::take(&mut open.proven),
            not_proven: std::mem::take(&mut open.not_proven),
        };
        let recipients = self.config.recipients.iter().map(|text| keys::parse_recipient(text));
        let recipients = recipients.collect::<Result<Vec<_>, _>>()?;
        let details = seal::seal(&json::encode("a record of a drill", &details)?, &recipients)?;
        let record = DrillRecord {
            repository: self.config.id.clone(),
            made: now.to_string(),
            blake3: blake3.to_owned(),
            drill: open,
            details: BASE64.encode(details),
        };
        let payload = json::encode("a record of a drill", &record)?;
        let bytes = match signer {
            Signer::Identity(identity) => signed::sign("drill", &payload, &self.root_of(identity)?)?,
            Signer::Writer(writer) => {
                self.check_writer(writer)?;
                signed::sign_certified("drill", &payload, &writer.signing, writer.certificate.as_deref())?
            }
        };
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(StoreError::TooLarge { what: "a record of a drill", limit: MAX_RECORD_BYTES as u64 });
        }
        let name = format!("{FOLDER}/{}", PointId::new(now, &self.chance));
        self.backend.put_new(&name, bytes)?;
        Ok(name)
    }
}

/// Returns a record with its sealed part, where the identity is there.
fn open(name: &str, record: DrillRecord, identity: Option<&IdentityFile>) -> Result<RecordedDrill, StoreError> {
    let DrillRecord { made, blake3, mut drill, details, .. } = record;
    if let Some(identity) = identity {
        let damaged = |problem: String| StoreError::damaged(name, problem);
        let sealed = BASE64.decode(details).map_err(|error| damaged(error.to_string()))?;
        let plain = seal::open(name, &sealed, &identity.identities, None)?;
        let details: Details = serde_json::from_slice(&plain).map_err(|error| damaged(error.to_string()))?;
        (drill.place, drill.problems) = (details.place, details.problems);
        (drill.proven, drill.not_proven) = (details.proven, details.not_proven);
    }
    Ok(RecordedDrill { record: name.to_owned(), made, blake3, sealed: identity.is_none(), drill })
}
