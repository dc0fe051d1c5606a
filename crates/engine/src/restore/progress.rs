//! The progress of a restore, whatever its target: each step is recorded before or after it changes something, so that the same command
//! continues wherever a run ended, and so that a run that ends early says what was done. Where the record is stored is the target's own: a
//! file of lines on hosts, a sealed object in a cluster.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;

use fabkeep_platform::ObjectRef;
use fabkeep_platform::kubernetes::Suspension;
use serde::{Deserialize, Serialize};

use crate::{Done, EngineError};

/// A workload that a restore has at 0 replicas.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct AtRest {
    #[serde(flatten)]
    pub object: ObjectRef,
    /// How many replicas it had, or is declared with.
    pub replicas: Option<u32>,
}

impl AtRest {
    /// `Kind namespace/name`.
    pub fn label(&self) -> String {
        self.object.to_string()
    }
}

/// What a record says. On hosts a directory is named by its position in the plan, and a file by its position in the directory; in a cluster
/// a node is named by its identity, and a workload, a controller or an operator by its label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "kebab-case")]
pub(super) enum Step {
    /// First step: which restore this is.
    Begin {
        point: String,
        /// Fingerprint of what was asked for.
        plan: String,
        /// Tells this run from every other.
        #[serde(default)]
        run: String,
        #[serde(default)]
        begun: String,
    },
    /// A broken rule that the restore went on in spite of.
    Overridden { rule: String, subject: String, what: String },

    /// A directory was there as it was captured: it is left alone.
    Equal { directory: usize },
    /// A file is written.
    File { directory: usize, entry: usize },
    /// A file that is in a directory's place as it was captured stays: it has a second name in the directory that is written.
    Kept { directory: usize, entry: usize },
    /// What is in a part of a directory's place is about to be set aside there: a name that nothing had.
    SettingAside { directory: usize, region: usize, to: PathBuf },
    /// What was in a directory's place is set aside; the place is free.
    Aside { directory: usize },
    /// A directory is in its place.
    Placed { directory: usize },
    /// What is in a directory's place is not what an earlier run has put there: nothing of that counts.
    Again { directory: usize },
    /// What a database held is dumped there.
    DumpedAside { directory: usize, folder: PathBuf },
    /// A dump is about to be loaded.
    Loading { directory: usize },
    /// A dump is loaded, and the database was compared with it.
    Loaded { directory: usize },

    /// A controller is suspended, or about to be.
    Suspended(Suspension),
    /// An operator is scaled down, or about to be.
    OperatorAtRest(AtRest),
    /// A workload is scaled down, about to be, or was created with no pods wanted.
    AtRest(AtRest),
    /// A workload, controller or operator is again as it was before the restore.
    Released { node: String },
    /// A node's claims are not there and are about to be created: what is in them then is not the node's data.
    Lost { node: String },
    /// A claim is about to be made from a snapshot, which was lent for it.
    FromSnapshot { claim: String, snapshot: String, lent: bool },
    /// A node's volumes are about to be filled.
    Filling { node: String },
    /// They hold nothing that an earlier run has filled: their marks say whose they are.
    Emptied { node: String },
    /// They are filled, every file hashed.
    Filled { node: String },
    /// A node ran, or may have run, since its volumes were filled: what is there is its own, until it is set aside.
    Ran { node: String },
    /// The dump of a node's database is loaded, and the database was compared with it.
    NodeLoaded { node: String },
    /// The generation of a workload when its nodes' volumes began to be filled.
    Generation { workload: String, generation: String },
    /// Everything is done, and a run has ended before all that it started was ready.
    Waiting,

    /// The target was changed.
    #[serde(untagged)]
    Changed(Done),
}

impl From<Done> for Step {
    fn from(done: Done) -> Step {
        Step::Changed(done)
    }
}

impl Step {
    /// Whether an earlier step is no longer true, or no longer counts, after this one.
    fn overrules(&self, earlier: &Step) -> bool {
        use Done::{NodeRestarted, NodeRestarting, NodeStarted, NodeStarting, NodeStopped, NodeStopping};
        match (self, earlier) {
            (Step::Again { directory: of }, _) => earlier.is_of_place(*of) || earlier.is_restart(),
            // The node may have run since: what leaders remember of it now counts.
            (Step::Filling { .. }, _) => earlier.is_restart(),
            (Step::Emptied { node: of }, Step::Filled { node } | Step::Ran { node } | Step::NodeLoaded { node }) => {
                of == node
            }
            (Step::FromSnapshot { claim: of, .. }, Step::FromSnapshot { claim, .. }) => of == claim && self != earlier,
            (Step::AtRest(of), Step::AtRest(known)) => of.object == known.object && of != known,
            (Step::Generation { workload: of, generation: now }, Step::Generation { workload, generation }) => {
                of == workload && now != generation
            }
            (Step::Released { node: of }, Step::AtRest(known)) => *of == known.label(),
            (Step::Released { node: of }, Step::Suspended(known)) => *of == known.label(),
            (Step::Released { node: of }, Step::OperatorAtRest(known)) => *of == known.label(),
            (
                Step::Released { node: of },
                Step::Changed(
                    NodeStopping { node } | NodeStopped { node } | NodeStarting { node } | NodeStarted { node },
                ),
            ) => of == node,
            (Step::Changed(now), Step::Changed(earlier)) => match (now, earlier) {
                (NodeStopping { node: of }, NodeStopped { node } | NodeStarting { node } | NodeStarted { node })
                | (NodeStopped { node: of }, NodeStopping { node } | NodeStarting { node } | NodeStarted { node })
                | (NodeStarting { node: of }, NodeStarted { node })
                | (NodeStarted { node: of }, NodeStarting { node })
                | (NodeRestarting { node: of }, NodeRestarted { node })
                | (NodeRestarted { node: of }, NodeRestarting { node }) => of == node,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether it says something of what is in a directory's place, or comes there.
    fn is_of_place(&self, of: usize) -> bool {
        match self {
            Step::Equal { directory }
            | Step::File { directory, .. }
            | Step::Kept { directory, .. }
            | Step::SettingAside { directory, .. }
            | Step::Aside { directory }
            | Step::Placed { directory } => *directory == of,
            _ => false,
        }
    }

    fn is_restart(&self) -> bool {
        matches!(self, Step::Changed(Done::NodeRestarted { .. }))
    }

    /// Whether it only ends what other steps say.
    fn only_overrules(&self) -> bool {
        matches!(self, Step::Again { .. } | Step::Released { .. } | Step::Emptied { .. })
    }
}

/// What is known to be done, or to have been begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Steps that count, each with its position.
    steps: BTreeMap<Step, usize>,
    next: usize,
}

impl FromIterator<Step> for Record {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Record {
        let mut record = Record::default();
        steps.into_iter().for_each(|step| record.add(step));
        record
    }
}

impl Record {
    /// Takes a step in: what it overrules does not count any more.
    pub fn add(&mut self, step: Step) {
        // There may be very many files.
        match step {
            Step::File { directory, entry } => self.forget(&Step::Kept { directory, entry }),
            Step::Kept { directory, entry } => self.forget(&Step::File { directory, entry }),
            _ => self.steps.retain(|earlier, _| !step.overrules(earlier)),
        }
        if !step.only_overrules() && !self.has(&step) {
            self.steps.insert(step, self.next);
            self.next += 1;
        }
    }

    /// A step does not count any more.
    pub fn forget(&mut self, step: &Step) {
        self.steps.remove(step);
    }

    fn is_changed_by(&self, step: &Step) -> bool {
        (!step.only_overrules() && !self.has(step)) || self.steps().any(|earlier| step.overrules(earlier))
    }

    pub fn has(&self, step: &Step) -> bool {
        self.steps.contains_key(step)
    }

    /// Its steps, in no order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.keys()
    }

    /// Its steps in their order.
    pub fn in_order(&self) -> Vec<&Step> {
        let mut steps: Vec<(&usize, &Step)> = self.steps.iter().map(|(step, position)| (position, step)).collect();
        steps.sort_unstable_by_key(|(position, _)| **position);
        steps.into_iter().map(|(_, step)| step).collect()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether it is of this restore. An empty one is of any.
    pub fn is_of(&self, point: &str, plan: &str) -> bool {
        let is_begin = |step: &Step| matches!(step, Step::Begin { point: p, plan: f, .. } if p == point && f == plan);
        self.is_empty() || self.steps().any(is_begin)
    }

    /// What tells the run that it began with from every other, and when that was.
    pub fn run(&self) -> (&str, &str) {
        let begin = self.steps().find_map(|step| match step {
            Step::Begin { run, begun, .. } => Some((run.as_str(), begun.as_str())),
            _ => None,
        });
        begin.unwrap_or_default()
    }

    /// What was done to the target, in order. `other`: what a step means that only its target can tell.
    pub fn done(&self, other: impl Fn(&Step) -> Option<Done>) -> Vec<Done> {
        let done = |step: &Step| if let Step::Changed(done) = step { Some(done.clone()) } else { other(step) };
        self.in_order().into_iter().filter_map(done).collect()
    }

    fn was(&self, done: Done) -> bool {
        self.has(&Step::Changed(done))
    }

    /// Whether a node was stopped, or its stop was begun.
    pub fn is_stopped(&self, node: &str) -> bool {
        let node = || node.to_owned();
        self.was(Done::NodeStopping { node: node() }) || self.was(Done::NodeStopped { node: node() })
    }

    /// Whether the start of a node was begun, however it ended.
    pub fn is_started(&self, node: &str) -> bool {
        let node = || node.to_owned();
        self.was(Done::NodeStarting { node: node() }) || self.was(Done::NodeStarted { node: node() })
    }

    /// Whether the restart of a node that is not restored has begun.
    pub fn is_restarting(&self, node: &str) -> bool {
        self.was(Done::NodeRestarting { node: node.to_owned() }) || self.is_restarted(node)
    }

    /// Whether a node that is not restored was restarted.
    pub fn is_restarted(&self, node: &str) -> bool {
        self.was(Done::NodeRestarted { node: node.to_owned() })
    }
}

/// Where a record is stored.
pub(super) trait Storage {
    /// Takes a step. It may be lost until [`Storage::store`] has returned.
    fn add(&mut self, step: &Step) -> Result<(), EngineError>;

    /// Makes sure that the record outlasts the process and a loss of power.
    fn store(&mut self, record: &Record) -> Result<(), EngineError>;

    /// Removes the record: the restore is done, or nothing was done.
    fn remove(&mut self) -> Result<(), EngineError>;
}

/// The record of a run that is under way.
pub(super) struct Journal<S> {
    pub storage: S,
    record: Record,
    resumed: bool,
    /// Something was added that is not stored yet.
    pending: bool,
}

impl<S> Deref for Journal<S> {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl<S: Storage> Journal<S> {
    /// Returns a journal that goes on with what earlier runs have recorded, or begins. A new one is not stored yet.
    pub fn new(mut storage: S, earlier: Record, point: &str, plan: &str) -> Result<Journal<S>, EngineError> {
        let resumed = !earlier.is_empty();
        let mut record = earlier;
        record.forget(&Step::Waiting);
        if !resumed {
            let now = jiff::Timestamp::now();
            let run = format!("{:x}{:04x}", now.as_nanosecond(), std::process::id() & 0xffff);
            let begin = Step::Begin { point: point.to_owned(), plan: plan.to_owned(), run, begun: now.to_string() };
            storage.add(&begin)?;
            record.add(begin);
        }
        Ok(Journal { storage, record, resumed, pending: !resumed })
    }

    /// Whether an earlier run's work is gone on with.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Adds a step that nothing relies on yet.
    pub fn add(&mut self, step: impl Into<Step>) -> Result<(), EngineError> {
        let step = step.into();
        if self.record.is_changed_by(&step) {
            self.storage.add(&step)?;
            self.record.add(step);
            self.pending = true;
        }
        Ok(())
    }

    /// Adds a step that what follows relies on: it is stored before anything else is done.
    pub fn note(&mut self, step: impl Into<Step>) -> Result<(), EngineError> {
        self.note_all([step.into()])
    }

    /// Adds several such steps at once.
    pub fn note_all(&mut self, steps: impl IntoIterator<Item = Step>) -> Result<(), EngineError> {
        for step in steps {
            self.add(step)?;
        }
        if self.pending { self.store() } else { Ok(()) }
    }

    /// Stores what was added.
    pub fn store(&mut self) -> Result<(), EngineError> {
        self.storage.store(&self.record)?;
        self.pending = false;
        Ok(())
    }

    /// A step that an earlier run has recorded is not true any more; the next run will see that for itself.
    pub fn forget(&mut self, step: &Step) {
        self.record.forget(step);
    }

    /// Takes back what was added since the record said this. The next store makes it so.
    pub fn take_back(&mut self, record: Record) {
        (self.record, self.pending) = (record, true);
    }

    /// The restore is done, or nothing was done: the record goes.
    pub fn remove(&mut self) -> Result<(), EngineError> {
        self.storage.remove()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NODE: &str = "Org1/peer0";

    fn node() -> String {
        NODE.to_owned()
    }

    #[test]
    fn lines_of_an_earlier_version_are_read() {
        let lines = [
            r#"{"done":"begin","point":"p","plan":"f"}"#,
            r#"{"done":"overridden","rule":"O2","subject":"s","what":"w"}"#,
            r#"{"done":"node-stopping","node":"Org1/peer0"}"#,
            r#"{"done":"node-stopped","node":"Org1/peer0"}"#,
            r#"{"done":"file","directory":0,"entry":7}"#,
            r#"{"done":"setting-aside","directory":0,"region":0,"to":"/srv/x.before-p"}"#,
            r#"{"done":"aside","directory":0}"#,
            r#"{"done":"placed","directory":0}"#,
            r#"{"done":"dumped-aside","directory":1,"folder":"/srv/dump"}"#,
            r#"{"done":"loading","directory":1}"#,
            r#"{"done":"loaded","directory":1}"#,
            r#"{"done":"restarting","node":"Org1/orderer1"}"#,
            r#"{"done":"restarting","node":"Org1/orderer2"}"#,
            r#"{"done":"restarted","node":"Org1/orderer2"}"#,
            r#"{"done":"node-starting","node":"Org1/peer0"}"#,
            r#"{"done":"node-started","node":"Org1/peer0"}"#,
        ];
        let record: Record = lines.iter().map(|line| serde_json::from_str::<Step>(line).unwrap()).collect();
        assert!(record.is_of("p", "f") && !record.is_of("p", "g") && !record.is_of("q", "f"));
        assert!(record.has(&Step::File { directory: 0, entry: 7 }) && record.has(&Step::Placed { directory: 0 }));
        assert!(record.has(&Step::Loaded { directory: 1 }) && record.is_started(NODE));
        let done = [
            Done::NodeStopped { node: node() },
            Done::NodeRestarting { node: "Org1/orderer1".to_owned() },
            Done::NodeRestarted { node: "Org1/orderer2".to_owned() },
            Done::NodeStarted { node: node() },
        ];
        assert_eq!(record.done(|_| None), done);
    }

    #[test]
    fn every_step_is_read_as_it_was_written() {
        let object = ObjectRef::new("Deployment", "org1", "peer0");
        let steps: [Step; 6] = [
            Step::Placed { directory: 3 },
            Done::Placed { node: node(), path: "/data".to_owned() }.into(),
            Done::NodeRestarting { node: node() }.into(),
            Step::AtRest(AtRest { object: object.clone(), replicas: Some(2) }),
            Step::OperatorAtRest(AtRest { object, replicas: Some(1) }),
            Step::Waiting,
        ];
        for step in steps {
            let text = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step, "{text}");
        }
    }

    #[test]
    fn what_is_stopped_again_is_not_started_and_what_is_put_back_is_no_change() {
        let mut record = Record::default();
        record.add(Done::NodeStopped { node: node() }.into());
        record.add(Done::NodeStarted { node: node() }.into());
        record.add(Done::NodeStopping { node: node() }.into());
        assert!(!record.is_started(NODE) && record.is_stopped(NODE));
        assert_eq!(record.done(|_| None), [Done::NodeStopping { node: node() }]);
        record.add(Step::Released { node: node() });
        assert!(record.is_empty());
    }

    #[test]
    fn a_directory_that_is_restored_anew_leaves_nothing_of_its_own_and_no_finished_restart() {
        let other = Step::Placed { directory: 1 };
        let begun: Step = Done::NodeRestarting { node: "Org1/orderer1".to_owned() }.into();
        let restarted: Step = Done::NodeRestarted { node: "Org1/orderer2".to_owned() }.into();
        let own = [Step::File { directory: 0, entry: 1 }, Step::Aside { directory: 0 }, Step::Placed { directory: 0 }];
        let steps = own.into_iter().chain([other.clone(), begun.clone(), restarted]);
        let mut record: Record = steps.collect();
        record.add(Step::Again { directory: 0 });
        // One whose restart has not ended may be stopped still.
        assert_eq!(record.in_order(), [&other, &begun]);
    }
}
