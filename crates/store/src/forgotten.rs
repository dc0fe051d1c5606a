//! Recovery points that the holder of the identity has given up: signed records, written once. A record counts in the place that it names;
//! in other places that hold the repository it only explains why points are missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::commit::{PointId, Previous};
use crate::history::History;
use crate::keys::IdentityFile;
use crate::remark::{Remark, RemarkKind};
use crate::trust::{Record, untrusted};
use crate::{Repository, StoreError, json, signed};

/// The folder of the records.
pub(crate) const FOLDER: &str = "forgotten";
/// The object with the random name of the place.
pub(crate) const PLACE: &str = "place";

/// A forgotten recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    pub point: PointId,
    /// BLAKE3 of its commit record.
    pub blake3: String,
    pub network: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The commits that it followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Previous>,
    /// Why it was given up.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ForgottenRecord {
    repository: String,
    place: String,
    made: String,
    points: Vec<Forgotten>,
}

impl Record for ForgottenRecord {
    fn repository(&self) -> &str {
        &self.repository
    }
}

/// All forgotten recovery points.
#[derive(Debug, Clone, Default)]
pub(crate) struct ForgottenPoints {
    here: BTreeMap<PointId, Forgotten>,
    elsewhere: BTreeMap<PointId, Forgotten>,
}

impl ForgottenPoints {
    /// Returns whether it was forgotten in this place: it does not exist, whatever is still there of it.
    pub fn is_here(&self, point: &PointId) -> bool {
        self.here.contains_key(point)
    }

    /// Returns what was recorded about a point, here or in another place: it may be missing.
    pub fn any(&self, point: &PointId) -> Option<&Forgotten> {
        self.here.get(point).or_else(|| self.elsewhere.get(point))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Forgotten> {
        self.here.values().chain(self.elsewhere.values())
    }

    /// Returns those that say what was here before them: those of this place, and those that a commit of this place follows. A copy that is
    /// not complete yet has records of others.
    pub fn that_vouch<'a>(&'a self, named: impl Iterator<Item = &'a PointId>) -> Vec<&'a Forgotten> {
        let mut vouching: BTreeMap<&PointId, &Forgotten> = self.here.iter().collect();
        let mut open: Vec<&PointId> = named.collect();
        open.extend(self.here.values().flat_map(|point| &point.previous).map(|previous| &previous.point));
        while let Some(named) = open.pop() {
            if let Some(point) = self.elsewhere.get(named)
                && vouching.insert(&point.point, point).is_none()
            {
                open.extend(point.previous.iter().map(|previous| &previous.point));
            }
        }
        vouching.into_values().collect()
    }

    /// Those of this place.
    pub fn here(&self) -> impl Iterator<Item = &PointId> {
        self.here.keys()
    }
}

/// Returns a new name for a place: 32 random hex digits, and the first 32 of their BLAKE3, so that damage is noticed.
pub(crate) fn new_place() -> Vec<u8> {
    with_check(&hex::encode(rand::random::<[u8; 16]>())).into_bytes()
}

fn with_check(name: &str) -> String {
    let mut text = format!("{name}{}", blake3::hash(name.as_bytes()).to_hex());
    text.truncate(64);
    text
}

impl Repository {
    /// Returns the name of this place; `None` where it has none.
    pub(crate) fn place(&self) -> Result<Option<String>, StoreError> {
        let text = match self.backend.get_if_readable(PLACE)? {
            Some(Ok(bytes)) => String::from_utf8(bytes).ok(),
            _ => None,
        };
        Ok(text.filter(|text| text.get(..32).is_some_and(|name| with_check(name) == *text)))
    }

    /// Returns a remark if this place had a name and has none.
    pub(crate) fn nameless(&self, place: Option<&String>, any_forgotten: bool) -> Result<Option<Remark>, StoreError> {
        if place.is_some() {
            return Ok(None);
        }
        let damaged = self.backend.has(PLACE)?;
        let problem = if damaged { "it is damaged" } else { "it is missing" };
        let remark = Remark::new(
            RemarkKind::Place,
            PLACE,
            format!("{problem}: without the name of this place no recovery point is forgotten here"),
        );
        Ok((damaged || any_forgotten || self.config.places).then_some(remark))
    }

    /// Returns the forgotten recovery points, and remarks on records that are not to be trusted.
    pub(crate) fn forgotten(&self) -> Result<(ForgottenPoints, Vec<Remark>), StoreError> {
        let (mut all, mut remarks) = (ForgottenPoints::default(), Vec::new());
        let names: Vec<String> = self.backend.list(FOLDER)?.into_keys().collect();
        let place = self.place()?;
        remarks.extend(self.nameless(place.as_ref(), !names.is_empty())?);
        for (name, read) in self.backend.get_many(&names)? {
            match read.and_then(|bytes| self.parse_forgotten(&name, &bytes)) {
                Ok(record) => {
                    let here = place.as_ref() == Some(&record.place);
                    let points = if here { &mut all.here } else { &mut all.elsewhere };
                    points.extend(record.points.into_iter().map(|point| (point.point.clone(), point)));
                }
                Err(error) => remarks.push(Remark::new(RemarkKind::Foreign, &name, error.problem())),
            }
        }
        Ok((all, remarks))
    }

    pub(crate) fn parse_forgotten(&self, name: &str, bytes: &[u8]) -> Result<ForgottenRecord, StoreError> {
        let opened = signed::open(name, "forgotten", bytes)?;
        if hex::encode(opened.signer.as_bytes()) != self.config.root {
            return Err(untrusted(name, "its signer is not the repository's root: only the root can forget"));
        }
        self.record(name, &opened)
    }

    /// Records that recovery points are given up, each with the reason. From then on they are not listed any more; `prune` frees what only
    /// they need. Returns the record's name; `None` when there is nothing to record.
    ///
    /// # Errors
    /// [`StoreError`] when a point is on hold or is the last one of its network, when there is nothing of it, or when the identity is not
    /// the one that the root key follows from.
    pub fn forget(&self, points: &[(PointId, String)], identity: &IdentityFile) -> Result<Option<String>, StoreError> {
        let root = self.root_of(identity)?;
        let history = self.history()?;
        let marks = self.marks(&history)?;
        let refuse = |point: &PointId, problem: &str| {
            Err(StoreError::CannotForget { point: point.to_string(), problem: problem.to_owned() })
        };
        let goes = |id: &PointId| points.iter().any(|(point, _)| point == id);
        let mut entries = Vec::new();
        for (point, reason) in points {
            if history.forgotten.is_here(point) {
                continue;
            }
            if marks.of(point).hold {
                return refuse(point, "it is on hold");
            }
            let entry = self.forgotten_entry(&history, point, reason)?;
            let same_network = |id: &PointId| {
                history.commits.iter().any(|commit| commit.id == *id && commit.summary.network == entry.network)
            };
            if same_network(point) && !history.commits.iter().any(|other| same_network(&other.id) && !goes(&other.id)) {
                return refuse(point, "no recovery point of its network would remain");
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        self.backend.put_new(PLACE, new_place())?;
        let place = self.place()?.ok_or_else(|| StoreError::damaged(PLACE, "it is not the name of a place"))?;
        let now = self.clock.now();
        let record =
            ForgottenRecord { repository: self.config.id.clone(), place, made: now.to_string(), points: entries };
        let payload = json::encode("a record of forgotten recovery points", &record)?;
        let bytes = signed::sign("forgotten", &payload, &root)?;
        json::check_len("a record of forgotten recovery points", bytes.len())?;
        let name = format!("{FOLDER}/{}", PointId::new(now, &self.chance));
        self.backend.put_new(&name, bytes)?;
        Ok(Some(name))
    }

    /// Returns what is recorded about a point: by its commit record, or, where that is damaged or gone, by what others say of it.
    fn forgotten_entry(&self, history: &History, point: &PointId, reason: &str) -> Result<Forgotten, StoreError> {
        let mut entry = Forgotten {
            point: point.clone(),
            blake3: String::new(),
            network: String::new(),
            sequence: None,
            previous: Vec::new(),
            reason: reason.to_owned(),
        };
        if let Some(commit) = history.commits.iter().find(|commit| commit.id == *point) {
            entry.blake3 = history.hash(point).unwrap_or_default().to_owned();
            entry.network.clone_from(&commit.summary.network);
            entry.sequence = commit.sequence;
            entry.previous.clone_from(&commit.previous);
            return Ok(entry);
        }
        let named = history.commits.iter().flat_map(|commit| &commit.previous).find(|named| named.point == *point);
        if let Some(named) = named {
            entry.blake3.clone_from(&named.blake3);
            return Ok(entry);
        }
        match self.backend.get(&point.commit_name())? {
            Some(bytes) => entry.blake3 = blake3::hash(&bytes).to_hex().to_string(),
            None => return Err(StoreError::NoSuchPoint(point.to_string())),
        }
        Ok(entry)
    }
}
