//! Records of objects that a verification found damaged or missing: signed, written once. Recorded objects are not reused any more; the next
//! backup stores their content again under a new name.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::commit::PointId;
use crate::remark::{Remark, RemarkKind};
use crate::trust::{Record, Signer};
use crate::{Repository, StoreError, json, signed};

/// An object that is not what was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadObject {
    /// Its name.
    pub name: String,
    /// BLAKE3 of the bytes that were put, hexadecimal.
    pub blake3: String,
    /// What is wrong.
    pub problem: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct FaultRecord {
    repository: String,
    found: String,
    objects: Vec<BadObject>,
}

impl Record for FaultRecord {
    fn repository(&self) -> &str {
        &self.repository
    }
}

/// Objects that are known as bad: their hashes by name.
pub(crate) type BadObjects = HashMap<String, Vec<String>>;

/// Returns whether an object of this name with this hash is known as bad.
pub(crate) fn is_bad(bad: &BadObjects, name: &str, blake3: &str) -> bool {
    bad.get(name).is_some_and(|hashes| hashes.iter().any(|hash| hash == blake3))
}

impl Repository {
    /// Objects that are recorded as bad, and records that are not to be trusted.
    pub(crate) fn bad_objects(&self) -> Result<(BadObjects, Vec<Remark>), StoreError> {
        let (mut bad, mut remarks) = (BadObjects::new(), Vec::new());
        let names: Vec<String> = self.backend.list("faults")?.into_keys().collect();
        for (name, read) in self.backend.get_many(&names)? {
            match read.and_then(|bytes| self.parse_faults(&name, &bytes)) {
                Ok(record) => {
                    for object in record.objects {
                        bad.entry(object.name).or_default().push(object.blake3);
                    }
                }
                Err(error) => remarks.push(Remark::new(RemarkKind::Foreign, &name, error.problem())),
            }
        }
        Ok((bad, remarks))
    }

    pub(crate) fn parse_faults(&self, name: &str, bytes: &[u8]) -> Result<FaultRecord, StoreError> {
        let opened = signed::open(name, "faults", bytes)?;
        self.check_writer_or_root(name, &opened)?;
        self.record(name, &opened)
    }

    /// Records objects as bad, those that are not yet. The record's name; `None` when there is nothing new.
    ///
    /// # Errors
    /// [`StoreError`] when the signer is not the repository's, or the record cannot be put.
    pub fn record_bad(&self, objects: &[BadObject], signer: &Signer<'_>) -> Result<Option<String>, StoreError> {
        let (bad, _) = self.bad_objects()?;
        let new: Vec<BadObject> =
            objects.iter().filter(|object| !is_bad(&bad, &object.name, &object.blake3)).cloned().collect();
        if new.is_empty() {
            return Ok(None);
        }
        let now = self.clock.now();
        let record = FaultRecord { repository: self.config.id.clone(), found: now.to_string(), objects: new };
        let payload = json::encode("a record of damaged objects", &record)?;
        let bytes = match signer {
            Signer::Identity(identity) => signed::sign("faults", &payload, &self.root_of(identity)?)?,
            Signer::Writer(writer) => {
                self.check_writer(writer)?;
                signed::sign_certified("faults", &payload, &writer.signing, writer.certificate.as_deref())?
            }
        };
        json::check_len("a record of damaged objects", bytes.len())?;
        let name = format!("faults/{}", PointId::new(now, &self.chance));
        self.backend.put_new(&name, bytes)?;
        Ok(Some(name))
    }
}
