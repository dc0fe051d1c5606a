//! Marks on recovery points: tags, and holds, which keep a point from being forgotten. A mark is a signed record that is written once. Marks
//! only add: whatever else is there, a point has the tags and the hold of every mark that no record of the root ends.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::commit::PointId;
use crate::history::History;
use crate::remark::{Remark, RemarkKind};
use crate::trust::{Record, Signer, untrusted};
use crate::{Repository, StoreError, json, signed};

/// The folder of the records.
pub(crate) const FOLDER: &str = "marks";
/// Longest tag, in bytes.
const MAX_TAG_BYTES: usize = 64;
/// Most tags of one record.
const MAX_TAGS: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MarkRecord {
    repository: String,
    made: String,
    point: PointId,
    /// BLAKE3 of the point's commit record.
    blake3: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hold: bool,
    /// Marks that do not count any more: only the root can end one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ends: Vec<String>,
}

impl Record for MarkRecord {
    fn repository(&self) -> &str {
        &self.repository
    }
}

/// What is marked on a recovery point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// It is on hold: nobody can forget it.
    pub hold: bool,
}

/// The marks of all recovery points.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    points: BTreeMap<PointId, Mark>,
    /// The records that count, with what they mark.
    records: BTreeMap<PointId, Vec<(String, Mark)>>,
    /// Records that are not to be trusted.
    pub remarks: Vec<Remark>,
}

impl Marks {
    /// Returns what is marked on a recovery point.
    pub fn of(&self, point: &PointId) -> Mark {
        self.points.get(point).cloned().unwrap_or_default()
    }
}

/// A change of a recovery point's marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarkChange {
    /// Tags that it gets.
    pub add: BTreeSet<String>,
    /// Tags that it loses; this needs the identity.
    pub remove: BTreeSet<String>,
    /// Whether it is put on hold (`true`) or released, which needs the identity.
    pub hold: Option<bool>,
}

impl MarkChange {
    /// Returns whether only the holder of the identity may make it.
    pub fn takes_away(&self) -> bool {
        !self.remove.is_empty() || self.hold == Some(false)
    }
}

/// Refuses a tag that cannot be written on a command line or in a table.
fn check_tag(tag: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+:@".contains(&byte);
    if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.starts_with('-') || !tag.bytes().all(plain) {
        return Err(StoreError::Tag(tag.to_owned()));
    }
    Ok(())
}

impl Repository {
    /// Returns the marks of the recovery points of a history.
    ///
    /// # Errors
    /// [`StoreError`] when the repository cannot be listed or read.
    pub fn marks(&self, history: &History) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        let names: Vec<String> = self.backend.list(FOLDER)?.into_keys().collect();
        let mut records = Vec::new();
        for (name, read) in self.backend.get_many(&names)? {
            match read.and_then(|bytes| self.parse_mark(&name, &bytes)) {
                Ok(record) => records.push((name, record)),
                Err(error) => marks.remarks.push(Remark::new(RemarkKind::Foreign, &name, error.problem())),
            }
        }
        let ended: HashSet<&String> = records.iter().flat_map(|(_, record)| &record.ends).collect();
        for (name, record) in &records {
            if ended.contains(name) || history.hash(&record.point) != Some(record.blake3.as_str()) {
                continue;
            }
            let mark = Mark { tags: record.tags.iter().cloned().collect(), hold: record.hold };
            let all = marks.points.entry(record.point.clone()).or_default();
            all.tags.extend(mark.tags.iter().cloned());
            all.hold |= mark.hold;
            marks.records.entry(record.point.clone()).or_default().push((name.clone(), mark));
        }
        Ok(marks)
    }

    pub(crate) fn parse_mark(&self, name: &str, bytes: &[u8]) -> Result<MarkRecord, StoreError> {
        let opened = signed::open(name, "mark", bytes)?;
        let by_root = self.check_writer_or_root(name, &opened)?;
        let record: MarkRecord = self.record(name, &opened)?;
        if !by_root && !record.ends.is_empty() {
            return Err(untrusted(name, "a writer wants to end marks, which only the holder of the identity can"));
        }
        if record.tags.len() > MAX_TAGS || record.tags.iter().any(|tag| check_tag(tag).is_err()) {
            return Err(StoreError::damaged(name, "it has tags that are none"));
        }
        Ok(record)
    }

    /// Changes the marks of a recovery point. Returns what is marked on it then.
    ///
    /// # Errors
    /// [`StoreError`] when the signer is not the repository's, may not take marks away, or the record cannot be put.
    pub fn mark(&self, point: &PointId, change: &MarkChange, signer: &Signer<'_>) -> Result<Mark, StoreError> {
        change.add.iter().chain(&change.remove).try_for_each(|tag| check_tag(tag))?;
        let history = self.history()?;
        let blake3 = history.hash(point).ok_or_else(|| StoreError::NoSuchPoint(point.to_string()))?.to_owned();
        let marks = self.marks(&history)?;
        let before = marks.of(point);
        let mut after = before.clone();
        after.tags.extend(change.add.iter().cloned());
        after.tags.retain(|tag| !change.remove.contains(tag));
        after.hold = change.hold.unwrap_or(before.hold);
        if after == before {
            return Ok(after);
        }
        let loses = before.hold && !after.hold || !before.tags.is_subset(&after.tags);
        let now = self.clock.now();
        let mut record = MarkRecord {
            repository: self.config.id.clone(),
            made: now.to_string(),
            point: point.clone(),
            blake3,
            tags: after.tags.difference(&before.tags).cloned().collect(),
            hold: after.hold && !before.hold,
            ends: Vec::new(),
        };
        if loses {
            // The records that mark too much end, and this one says what stays of them.
            let own = marks.records.get(point).map(Vec::as_slice).unwrap_or_default();
            let too_much = |mark: &Mark| mark.hold && !after.hold || !mark.tags.is_subset(&after.tags);
            record.ends = own.iter().filter(|(_, mark)| too_much(mark)).map(|(name, _)| name.clone()).collect();
            (record.tags, record.hold) = (after.tags.iter().cloned().collect(), after.hold);
        }
        let payload = json::encode("a mark", &record)?;
        let bytes = match signer {
            Signer::Identity(identity) => signed::sign("mark", &payload, &self.root_of(identity)?)?,
            Signer::Writer(_) if loses => {
                return Err(untrusted(FOLDER, "a writer cannot take marks away: this needs the identity"));
            }
            Signer::Writer(writer) => {
                self.check_writer(writer)?;
                signed::sign_certified("mark", &payload, &writer.signing, writer.certificate.as_deref())?
            }
        };
        self.backend.put_new(&format!("{FOLDER}/{}", PointId::new(now, &self.chance)), bytes)?;
        Ok(after)
    }
}
