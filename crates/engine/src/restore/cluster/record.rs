//! The progress record of one restore into a cluster: it is written before each change, and lets the same command continue wherever it
//! ended. It is sealed with a key that only a reader of the recovery point can derive; a record that somebody else wrote is ignored.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_platform::ObjectRef;
use fabkeep_platform::kubernetes::{Note, Suspension, Target, Written};
use serde::{Deserialize, Serialize};

use crate::point::RecoveryPoint;
use crate::restore::{ClusterTarget, RestoreOptions};
use crate::transform::RaftSource;
use crate::{Done, EngineError};

/// What keys of progress records are made for.
const CONTEXT: &str = "fabkeep 2026 progress record of a restore into a cluster";

/// A workload that this restore has at 0 replicas.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stopped {
    #[serde(flatten)]
    pub object: ObjectRef,
    /// How many replicas it had, or is declared with.
    pub replicas: Option<u32>,
}

/// What was done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub point: String,
    /// Fingerprint of what was asked for.
    pub plan: String,
    /// Tells this run from every other.
    pub run: String,
    pub begun: String,
    /// How often it was gone on with.
    pub resumed: u32,
    /// Controllers that were suspended.
    pub suspended: Vec<Suspension>,
    /// Operators scaled down: namespace and name.
    pub operators: Vec<(String, String)>,
    /// Workloads scaled down, or created with no pods wanted.
    pub stopped: Vec<Stopped>,
    /// Nodes whose volumes are being filled, or are filled.
    pub touched: BTreeSet<String>,
    /// Nodes whose volumes were filled, every file hashed.
    pub filled: BTreeSet<String>,
    /// Workloads that were begun to be scaled up: `Kind namespace/name`.
    pub started: BTreeSet<String>,
    /// Orderers that are not restored, and whose restart was begun.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub restarting: BTreeSet<String>,
    /// Those of them that run again, with a leader.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub restarted: BTreeSet<String>,
    /// Nodes whose databases' dumps are loaded.
    pub loaded: BTreeSet<String>,
    /// The generation of each workload when its nodes' volumes began to be filled, by `Kind namespace/name`.
    #[serde(default)]
    pub generations: BTreeMap<String, String>,
    /// Nodes that ran, or may have run, since this restore wrote their volumes: what is there is their own, until it is set aside.
    #[serde(default)]
    pub ran: BTreeSet<String>,
    /// Everything is done, and a run has ended before all that it started was ready.
    #[serde(default)]
    pub waiting: bool,
    /// The object that holds this record: a copy of its text in another one is not believed.
    #[serde(default)]
    pub object: String,
    /// What was changed, in order.
    pub done: Vec<Done>,
}

impl Progress {
    /// Whether nothing is left to be done when what was started is ready.
    pub fn is_done(&self) -> bool {
        let started = |known: &Stopped| self.started.contains(&known.label());
        self.operators.is_empty() && self.suspended.is_empty() && self.stopped.iter().all(started)
    }

    /// Whether it was written into this object. Before a record knows its own object, no node was touched.
    fn is_of(&self, object: &str) -> bool {
        self.object == object || (self.object.is_empty() && self.touched.is_empty() && self.started.is_empty())
    }
}

impl Stopped {
    /// `Kind namespace/name`.
    pub fn label(&self) -> String {
        self.object.to_string()
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    progress: String,
    seal: String,
}

/// What makes a record known: the same for the same command on the same recovery point.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    key: [u8; 32],
    point: String,
    plan: String,
}

impl Identity {
    /// That of a restore of this recovery point with these options. What may change between a run and the one that goes on (overrides,
    /// deadlines, `--replace`, `--missing`, `--no-start`) is not part of it.
    pub fn of(
        id: &str,
        point: &RecoveryPoint,
        place: &ClusterTarget,
        options: &RestoreOptions,
    ) -> Result<Identity, EngineError> {
        let material = serde_json::to_vec(point)
            .map_err(|error| EngineError::Point { point: id.to_owned(), problem: error.to_string() })?;
        let asked = format!(
            "{id} {:?} {:?} {:?} {:?} {:?} {}{}",
            options.nodes,
            options.ledgers,
            options.replicate,
            options.ca_keep,
            place.relocation,
            place.existing_workloads,
            // Nothing where nothing is asked: records of before are known.
            if options.go_back.is_asked() || options.raft_state != RaftSource::default() || options.restart_others {
                let others = if options.restart_others { " restart others" } else { "" };
                format!(" {:?} {:?}{others}", options.go_back, options.raft_state)
            } else {
                String::new()
            }
        );
        let plan = blake3::hash(asked.as_bytes()).to_hex()[..12].to_owned();
        Ok(Identity { key: blake3::derive_key(CONTEXT, &material), point: id.to_owned(), plan })
    }

    /// Fingerprint of what is asked for.
    pub fn plan(&self) -> &str {
        &self.plan
    }

    /// The record's name in the cluster.
    pub fn name(&self) -> String {
        format!("fabkeep-restore-{}", self.plan)
    }

    fn seal(&self, progress: &Progress) -> Result<String, EngineError> {
        let wrong = |error: serde_json::Error| EngineError::Usage(error.to_string());
        let progress = serde_json::to_string(progress).map_err(wrong)?;
        let seal = blake3::keyed_hash(&self.key, progress.as_bytes()).to_hex().to_string();
        serde_json::to_string(&Sealed { progress, seal }).map_err(wrong)
    }

    fn open(&self, text: &str) -> Option<Progress> {
        let sealed: Sealed = serde_json::from_str(text).ok()?;
        let seal = blake3::Hash::from_hex(&sealed.seal).ok()?;
        // Hashes are compared in constant time.
        if blake3::keyed_hash(&self.key, sealed.progress.as_bytes()) != seal {
            return None;
        }
        let progress: Progress = serde_json::from_str(&sealed.progress).ok()?;
        (progress.point == self.point && progress.plan == self.plan).then_some(progress)
    }
}

/// What the cluster has of a record.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// What this restore has done in earlier runs.
    pub progress: Option<Progress>,
    /// There is a note of this name that this restore did not write, or not there.
    pub foreign: bool,
    /// An earlier run has done everything, and has ended before what it started was ready. Now all of it is: when that run was.
    pub over: Option<String>,
    note: Option<Note>,
}

impl Known {
    /// Looks for the record of this restore. `replace`: data that is there is to be set aside; then a run that is over is not gone on with.
    pub fn look(target: &Target, namespace: &str, identity: &Identity, replace: bool) -> Result<Known, EngineError> {
        let Some(note) = target.read_note(namespace, &identity.name())? else { return Ok(Known::default()) };
        let progress = identity.open(&note.text).filter(|progress| progress.is_of(&note.uid));
        let mut known = Known { foreign: progress.is_none(), progress, over: None, note: Some(note) };
        if let Some(progress) =
            known.progress.as_ref().filter(|progress| replace && progress.waiting && !progress.stopped.is_empty())
        {
            for workload in &progress.stopped {
                if !target.is_ready(&workload.object)? {
                    return Ok(known);
                }
            }
            known.over = known.progress.take().map(|progress| progress.begun);
        }
        Ok(known)
    }
}

/// The record of a run that is under way.
pub(super) struct Record<'t> {
    target: &'t Target,
    namespace: String,
    identity: Identity,
    /// What this run has read or written last.
    note: Option<Note>,
    pub progress: Progress,
    /// An earlier run's work is gone on with.
    pub resumed: bool,
    /// Another run has taken this restore over: what is in the cluster is its own affair now.
    pub lost: bool,
    written: bool,
}

impl<'t> Record<'t> {
    /// A record that goes on with what is known. It is not written before the first change.
    pub fn new(target: &'t Target, namespace: &str, identity: Identity, known: Known) -> Record<'t> {
        let resumed = known.progress.is_some();
        let now = jiff::Timestamp::now();
        let mut progress = known.progress.unwrap_or_else(|| Progress {
            point: identity.point.clone(),
            plan: identity.plan.clone(),
            run: format!("{:x}{:04x}", now.as_nanosecond(), std::process::id() & 0xffff),
            begun: now.to_string(),
            ..Progress::default()
        });
        progress.resumed += u32::from(resumed);
        progress.waiting = false;
        Record {
            target,
            namespace: namespace.to_owned(),
            identity,
            note: known.note,
            progress,
            resumed,
            lost: false,
            written: resumed,
        }
    }

    /// Its name in the cluster.
    pub fn name(&self) -> String {
        self.identity.name()
    }

    /// Whether anything was changed, by this run or by one that it goes on with.
    pub fn is_changed(&self) -> bool {
        !self.progress.done.is_empty()
    }

    /// Writes it down.
    ///
    /// # Errors
    /// [`EngineError::Usage`] when another run has taken this restore over.
    pub fn write(&mut self) -> Result<(), EngineError> {
        let name = self.identity.name();
        loop {
            let text = self.identity.seal(&self.progress)?;
            match self.target.write_note(&self.namespace, &name, &text, self.note.as_ref())? {
                Written::Note(note) => {
                    self.written = true;
                    let known = self.progress.object == note.uid;
                    self.progress.object.clone_from(&note.uid);
                    self.note = Some(note);
                    if known {
                        return Ok(());
                    }
                }
                Written::Conflict => {
                    self.lost = true;
                    return Err(EngineError::Usage(format!(
                        "another run of this restore is under way: ConfigMap {}/{name} was written by it; wait until it has finished, or end it and run the same command again",
                        self.namespace,
                    )));
                }
            }
        }
    }

    /// Notes what is about to be done, and writes it down.
    pub fn note(&mut self, change: impl FnOnce(&mut Progress)) -> Result<(), EngineError> {
        let before = self.progress.clone();
        change(&mut self.progress);
        if self.written && before == self.progress { Ok(()) } else { self.write() }
    }

    /// Adds what was done; it is written with the next note.
    pub fn done(&mut self, done: Done) {
        if !self.progress.done.contains(&done) {
            self.progress.done.push(done);
        }
    }

    /// The restore is done, or undone: the record goes.
    pub fn remove(&mut self) -> Result<(), EngineError> {
        if self.written {
            self.target.remove_note(&self.namespace, &self.identity.name())?;
            (self.note, self.written) = (None, false);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_somebody_else_wrote_or_changed_is_not_believed() {
        let identity = Identity { key: [7; 32], point: "p".to_owned(), plan: "f".to_owned() };
        let progress = Progress {
            point: "p".to_owned(),
            plan: "f".to_owned(),
            filled: BTreeSet::from(["org1/peer0".to_owned()]),
            ..Progress::default()
        };
        let text = identity.seal(&progress).unwrap();
        assert_eq!(identity.open(&text), Some(progress));
        assert_eq!(identity.open(&text.replace("peer0", "peer1")), None);
        assert_eq!(Identity { key: [8; 32], ..identity.clone() }.open(&text), None);
        assert_eq!(Identity { plan: "other".to_owned(), ..identity.clone() }.open(&text), None);
        assert_eq!(identity.open("{}"), None);
    }

    #[test]
    fn a_record_is_believed_in_the_object_that_it_was_written_into() {
        let mut progress = Progress::default();
        assert!(progress.is_of("1"), "it is new, and says nothing yet");
        progress.touched.insert("org1/peer0".to_owned());
        assert!(!progress.is_of("1"));
        progress.object = "1".to_owned();
        assert!(progress.is_of("1") && !progress.is_of("2"));
    }
}
