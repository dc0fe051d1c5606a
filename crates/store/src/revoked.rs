//! Revocations of writers: records of the root, written once. What a revoked writer had signed before stays trusted, object by object, because
//! the record names it with its hash; everything else that it signs is ignored, whatever time it claims.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::commit::PointId;
use crate::config::RepositoryConfig;
use crate::history::{History, point_of};
use crate::keys::{IdentityFile, WriterKey};
use crate::remark::{Remark, RemarkKind};
use crate::trust::{Record, untrusted};
use crate::{Repository, StoreError, drills, json, marks, signed, trust};

/// The folder of the records.
pub(crate) const FOLDER: &str = "revoked";
const KIND: &str = "revocation";
/// Shortest beginning of a key by which a writer is named, in hexadecimal digits.
const SHORTEST_NAME: usize = 8;

#[derive(Serialize, Deserialize)]
struct RevocationRecord {
    repository: String,
    key: String,
    revoked: String,
    /// BLAKE3 of the writer's objects that stay trusted, by name.
    keeps: BTreeMap<String, String>,
}

impl Record for RevocationRecord {
    fn repository(&self) -> &str {
        &self.repository
    }
}

/// A writer that is revoked.
pub(crate) struct Revocation {
    pub time: String,
    keeps: BTreeMap<String, String>,
}

/// The revoked writers, by key in hexadecimal.
#[derive(Default)]
pub(crate) struct Revocations(BTreeMap<String, Revocation>);

impl Revocations {
    pub fn of(&self, key: &str) -> Option<&Revocation> {
        self.0.get(key)
    }

    pub fn keys(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Of several records of one writer, only what all of them name stays trusted.
    fn add(&mut self, record: RevocationRecord) {
        match self.0.get_mut(&record.key) {
            Some(known) => {
                known.keeps.retain(|name, hash| record.keeps.get(name) == Some(hash));
                known.time = known.time.clone().min(record.revoked);
            }
            None => {
                self.0.insert(record.key, Revocation { time: record.revoked, keeps: record.keeps });
            }
        }
    }

    /// Refuses an object that a revoked writer has signed and that is not one of those that stay trusted.
    pub fn check(&self, object: &str, signer: &VerifyingKey, bytes: &[u8]) -> Result<(), StoreError> {
        let key = hex::encode(signer.as_bytes());
        let Some(revocation) = self.of(&key) else { return Ok(()) };
        if revocation.keeps.get(object).is_some_and(|hash| *hash == blake3::hash(bytes).to_hex().as_str()) {
            return Ok(());
        }
        Err(StoreError::Revoked { object: object.to_owned(), key, time: revocation.time.clone() })
    }
}

fn parse(name: &str, bytes: &[u8], config: &RepositoryConfig) -> Result<RevocationRecord, StoreError> {
    let opened = signed::open(name, KIND, bytes)?;
    if hex::encode(opened.signer.as_bytes()) != config.root {
        return Err(untrusted(name, "its signer is not the repository's root"));
    }
    trust::record_of(name, &opened, config)
}

/// Returns the revoked writers; other objects among the records are reported and ignored.
pub(crate) fn read(backend: &Backend, config: &RepositoryConfig) -> Result<(Revocations, Vec<Remark>), StoreError> {
    let (mut revoked, mut remarks) = (Revocations::default(), Vec::new());
    let names: Vec<String> = backend.list(FOLDER)?.into_keys().collect();
    for (name, read) in backend.get_many(&names)? {
        match read.and_then(|bytes| parse(&name, &bytes, config)) {
            Ok(record) => revoked.add(record),
            Err(error) => remarks.push(Remark::new(RemarkKind::Foreign, &name, error.problem())),
        }
    }
    Ok((revoked, remarks))
}

/// A writer of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WriterState {
    /// Its verifying key, hexadecimal.
    pub key: String,
    /// When it was certified, RFC 3339; `None` when its certificate is not under `writers/`.
    pub created: Option<String>,
    /// When it was revoked.
    pub revoked: Option<String>,
    /// How many of the recovery points are its own.
    pub points: usize,
    /// The one that it has committed last.
    pub last: Option<PointId>,
}

/// What a revocation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevokedWriter {
    /// The writer's verifying key, hexadecimal.
    pub key: String,
    /// Its recovery points that stay trusted.
    pub kept: Vec<PointId>,
    /// Its recovery points that do not count any more.
    pub dropped: Vec<PointId>,
}

impl Repository {
    pub(crate) fn is_revocation(&self, name: &str, bytes: &[u8]) -> bool {
        parse(name, bytes, &self.config).is_ok()
    }

    /// Refuses a writer key that is revoked.
    pub(crate) fn check_not_revoked(&self, writer: &WriterKey) -> Result<(), StoreError> {
        let key = writer.key();
        match self.revoked.of(&key) {
            Some(known) => Err(StoreError::WriterRevoked { key, time: known.time.clone() }),
            None => Ok(()),
        }
    }

    /// Returns the writers, those without a certificate last.
    ///
    /// # Errors
    /// [`StoreError`] when a certificate cannot be read again.
    pub fn writers(&self, history: &History) -> Result<Vec<WriterState>, StoreError> {
        let mut out: HashMap<String, WriterState> = HashMap::new();
        let new = |key: &str| WriterState {
            key: key.to_owned(),
            created: None,
            revoked: self.revoked.of(key).map(|known| known.time.clone()),
            points: 0,
            last: None,
        };
        for writer in &self.writers {
            let key = hex::encode(writer.key.as_bytes());
            let state = out.entry(key.clone()).or_insert_with(|| new(&key));
            state.created = Some(trust::created(&trust::certificate_name(&writer.key), &writer.certificate)?);
        }
        for key in self.revoked.keys() {
            out.entry(key.clone()).or_insert_with(|| new(&key));
        }
        for commit in &history.commits {
            let Some(key) = history.signer(&commit.id) else { continue };
            let state = out.entry(key.to_owned()).or_insert_with(|| new(key));
            state.points += 1;
            state.last = Some(commit.id.clone());
        }
        let mut out: Vec<WriterState> = out.into_values().collect();
        out.sort_by(|a, b| (a.created.is_none(), &a.created, &a.key).cmp(&(b.created.is_none(), &b.created, &b.key)));
        Ok(out)
    }

    /// Revokes a writer, named by its key or the beginning of it. Recovery points that it has committed stay trusted; with `since`, only
    /// those that were committed before that point.
    ///
    /// # Errors
    /// [`StoreError`] when the identity is not that of the root, there is no such writer or point, or the record cannot be put.
    pub fn revoke_writer(
        &self,
        identity: &IdentityFile,
        wanted: &str,
        since: Option<&PointId>,
    ) -> Result<RevokedWriter, StoreError> {
        let root = self.root_of(identity)?;
        let history = self.history()?;
        let wanted = wanted.to_ascii_lowercase();
        let all = self.writers(&history)?;
        let mut named = all.iter().filter(|writer| wanted.len() >= SHORTEST_NAME && writer.key.starts_with(&wanted));
        let key = match (named.next(), named.next()) {
            (Some(writer), None) => writer.key.clone(),
            (Some(_), Some(_)) => return Err(StoreError::NoSuchWriter(format!("{wanted} (several begin with it)"))),
            (None, _) => return Err(StoreError::NoSuchWriter(wanted)),
        };
        let mut keeps = BTreeMap::new();
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        let mut is_before = true;
        for commit in &history.commits {
            is_before &= since != Some(&commit.id);
            if history.signer(&commit.id) != Some(&key) {
                continue;
            }
            let hash = history.hash(&commit.id).filter(|_| is_before);
            let Some(hash) = hash else {
                dropped.push(commit.id.clone());
                continue;
            };
            keeps.insert(commit.id.commit_name(), hash.to_owned());
            keeps.insert(commit.index.name.clone(), commit.index.blake3.clone());
            kept.push(commit.id.clone());
        }
        if let Some(since) = since.filter(|_| is_before) {
            return Err(StoreError::NoSuchPoint(since.to_string()));
        }
        for (folder, kind) in [(marks::FOLDER, "mark"), (drills::FOLDER, "drill"), ("faults", "faults")] {
            let mut names: Vec<String> = self.backend.list(folder)?.into_keys().collect();
            names.retain(|name| point_of(name, folder).is_some_and(|id| since.is_none_or(|since| id < *since)));
            for (name, read) in self.backend.get_many(&names)? {
                let Ok(bytes) = read else { continue };
                let is_own = |bytes: &[u8]| {
                    let signer = signed::open(&name, kind, bytes).map(|opened| hex::encode(opened.signer.as_bytes()));
                    signer.is_ok_and(|signer| signer == key)
                };
                if is_own(&bytes) {
                    keeps.insert(name.clone(), blake3::hash(&bytes).to_hex().to_string());
                }
            }
        }
        let now = self.clock.now();
        let record =
            RevocationRecord { repository: self.config.id.clone(), key: key.clone(), revoked: now.to_string(), keeps };
        let payload = json::encode("a revocation", &record)?;
        let bytes = signed::sign(KIND, &payload, &root)?;
        json::check_len("a revocation", bytes.len())?;
        self.backend.put_new(&format!("{FOLDER}/{}", PointId::new(now, &self.chance)), bytes)?;
        Ok(RevokedWriter { key, kept, dropped })
    }
}

/// Revocations that commits name and that are gone.
pub(crate) fn judge_gone(history: &mut History, revoked: &Revocations) {
    let named: BTreeSet<&String> = history.commits.iter().flat_map(|commit| &commit.revoked).collect();
    let gone = named.into_iter().filter(|key| revoked.of(key).is_none());
    let remarks: Vec<Remark> = gone
        .map(|key| {
            Remark::new(
                RemarkKind::Missing,
                FOLDER,
                format!("the revocation of the writer {key}, which later recovery points name, is gone: what that writer has signed since counts again; revoke it once more"),
            )
        })
        .collect();
    history.remarks.extend(remarks);
}
