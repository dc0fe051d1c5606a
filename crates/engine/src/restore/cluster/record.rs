//! The record of a restore into a cluster: one sealed object, written before each change. It is sealed with a key that only a reader of the
//! recovery point can derive; a record that somebody else wrote is ignored.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_network::Remedy;
use fabkeep_platform::ObjectRef;
use fabkeep_platform::kubernetes::{Note, RESTORE_RECORD, Suspension, Target, Written};
use serde::{Deserialize, Serialize};

use crate::misuse::Misuse;
use crate::point::RecoveryPoint;
use crate::restore::progress::{self, AtRest, Record, Step, Storage};
use crate::restore::{ClusterTarget, RestoreOptions};
use crate::transform::RaftSource;
use crate::{Done, EngineError};

/// What keys of progress records are made for.
const CONTEXT: &str = "fabkeep 2026 progress record of a restore into a cluster";

/// What a record says of nodes and workloads.
impl Record {
    /// Whether a node's volumes are being filled, or are filled.
    pub fn is_touched(&self, node: &str) -> bool {
        self.has(&Step::Filling { node: node.to_owned() })
    }

    pub fn is_filled(&self, node: &str) -> bool {
        self.has(&Step::Filled { node: node.to_owned() })
    }

    pub fn has_run(&self, node: &str) -> bool {
        self.has(&Step::Ran { node: node.to_owned() })
    }

    /// Whether the dump of a node's database is loaded.
    pub fn is_node_loaded(&self, node: &str) -> bool {
        self.has(&Step::NodeLoaded { node: node.to_owned() })
    }

    /// Nodes whose volumes are filled, and workloads whose start was begun.
    pub fn counts(&self) -> (usize, usize) {
        let is_filled = |step: &&Step| matches!(step, Step::Filled { .. });
        let is_started =
            |step: &&Step| matches!(step, Step::Changed(Done::NodeStarting { .. } | Done::NodeStarted { .. }));
        (self.steps().filter(is_filled).count(), self.steps().filter(is_started).count())
    }

    pub fn generation(&self, of: &ObjectRef) -> Option<&str> {
        let of = of.to_string();
        self.steps().find_map(|step| match step {
            Step::Generation { workload, generation } if *workload == of => Some(generation.as_str()),
            _ => None,
        })
    }

    /// Workloads that this restore has at 0 replicas, or had before it started them.
    pub fn at_rest(&self) -> impl Iterator<Item = &AtRest> {
        self.steps().filter_map(|step| if let Step::AtRest(known) = step { Some(known) } else { None })
    }

    /// The same of one workload, with what is known of its replicas by now.
    pub fn resting(&self, object: &ObjectRef, replicas: Option<u32>) -> Step {
        let known = self.at_rest().find(|known| known.object == *object).and_then(|known| known.replicas);
        Step::AtRest(AtRest { object: object.clone(), replicas: replicas.or(known) })
    }

    /// Whether a node's claims were not there when this restore began with it.
    pub fn is_lost(&self, node: &str) -> bool {
        self.has(&Step::Lost { node: node.to_owned() })
    }

    /// Whether any node's claims were not there then.
    pub fn has_lost(&self) -> bool {
        self.steps().any(|step| matches!(step, Step::Lost { .. }))
    }

    /// Claims that were made from snapshots, or about to be: the claim as `namespace/name`, the snapshot, whether that was lent.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.steps().filter_map(|step| match step {
            Step::FromSnapshot { claim, snapshot, lent } => Some((claim.as_str(), snapshot.as_str(), *lent)),
            _ => None,
        })
    }

    /// The snapshot that a claim was made from.
    pub fn source_of(&self, claim: &str) -> Option<&str> {
        self.sources().find(|(of, ..)| *of == claim).map(|(_, snapshot, _)| snapshot)
    }

    /// Controllers that are suspended.
    pub fn suspended(&self) -> Vec<Suspension> {
        let suspended = |step: &Step| if let Step::Suspended(known) = step { Some(known.clone()) } else { None };
        self.steps().filter_map(suspended).collect()
    }

    /// Operators that are scaled down.
    pub fn operators(&self) -> Vec<AtRest> {
        let operator = |step: &Step| if let Step::OperatorAtRest(known) = step { Some(known.clone()) } else { None };
        self.steps().filter_map(operator).collect()
    }

    /// Whether the volumes of a node were touched, or the start of anything was begun.
    pub fn has_begun(&self) -> bool {
        let (_, started) = self.counts();
        started > 0 || self.steps().any(|step| matches!(step, Step::Filling { .. }))
    }

    /// What was changed in the cluster, in order.
    pub fn changes(&self) -> Vec<Done> {
        self.done(|_| None)
    }

    /// Whether nothing is left to be done when what was started is ready.
    pub fn is_complete(&self) -> bool {
        let started = |known: &AtRest| self.is_started(&known.label());
        self.operators().is_empty() && self.suspended().is_empty() && self.at_rest().all(started)
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    progress: String,
    seal: String,
}

/// What is sealed.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Text {
    /// The object that holds it: a copy in another one is not believed.
    #[serde(default)]
    object: String,
    #[serde(flatten)]
    content: Content,
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(untagged)]
enum Content {
    Steps { steps: Vec<Step> },
    Earlier(Box<Earlier>),
}

/// What an earlier version wrote.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Earlier {
    point: String,
    plan: String,
    run: String,
    begun: String,
    suspended: Vec<Suspension>,
    operators: Vec<(String, String)>,
    stopped: Vec<AtRest>,
    touched: BTreeSet<String>,
    filled: BTreeSet<String>,
    started: BTreeSet<String>,
    #[serde(default)]
    restarting: BTreeSet<String>,
    #[serde(default)]
    restarted: BTreeSet<String>,
    loaded: BTreeSet<String>,
    #[serde(default)]
    generations: BTreeMap<String, String>,
    #[serde(default)]
    ran: BTreeSet<String>,
    #[serde(default)]
    waiting: bool,
    done: Vec<Done>,
}

impl From<Earlier> for Record {
    fn from(known: Earlier) -> Record {
        let Earlier { point, plan, run, begun, .. } = known;
        let mut steps = vec![Step::Begin { point, plan, run, begun }];
        steps.extend(known.suspended.into_iter().map(Step::Suspended));
        let operators = known.operators.iter();
        steps.extend(operators.map(|(namespace, name)| {
            let object = ObjectRef::new("Deployment", namespace, name);
            Step::OperatorAtRest(AtRest { object, replicas: None })
        }));
        steps.extend(known.stopped.into_iter().map(Step::AtRest));
        let generations = known.generations.into_iter();
        steps.extend(generations.map(|(workload, generation)| Step::Generation { workload, generation }));
        steps.extend(known.touched.into_iter().map(|node| Step::Filling { node }));
        steps.extend(known.filled.into_iter().map(|node| Step::Filled { node }));
        steps.extend(known.ran.into_iter().map(|node| Step::Ran { node }));
        steps.extend(known.loaded.into_iter().map(|node| Step::NodeLoaded { node }));
        // What was restarted or started and does not count any more was among what was done still.
        let counts = |done: &Done| !matches!(done, Done::NodeStarted { .. } | Done::NodeRestarted { .. });
        let done: BTreeSet<&Done> = known.done.iter().collect();
        steps.extend(known.done.iter().filter(|done| counts(done)).cloned().map(Step::Changed));
        for node in known.restarting {
            let is_restarted = known.restarted.contains(&node);
            steps.push(if is_restarted { Done::NodeRestarted { node } } else { Done::NodeRestarting { node } }.into());
        }
        for node in known.started {
            let started = Done::NodeStarted { node: node.clone() };
            steps.push(if done.contains(&started) { started } else { Done::NodeStarting { node } }.into());
        }
        steps.extend(known.waiting.then_some(Step::Waiting));
        steps.into_iter().collect()
    }
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
        format!("{RESTORE_RECORD}{}", self.plan)
    }

    fn seal(&self, object: &str, record: &Record) -> Result<String, EngineError> {
        let wrong = |error: serde_json::Error| EngineError::from(Misuse::new(error.to_string()));
        let steps = record.in_order().into_iter().cloned().collect();
        let text = Text { object: object.to_owned(), content: Content::Steps { steps } };
        serde_json::to_string(&self.sealed(serde_json::to_string(&text).map_err(wrong)?)).map_err(wrong)
    }

    fn sealed(&self, progress: String) -> Sealed {
        let seal = blake3::keyed_hash(&self.key, progress.as_bytes()).to_hex().to_string();
        Sealed { progress, seal }
    }

    /// The record of this restore that this object holds, if it was written into this object.
    fn open(&self, text: &str, object: &str) -> Option<Record> {
        let sealed: Sealed = serde_json::from_str(text).ok()?;
        let seal = blake3::Hash::from_hex(&sealed.seal).ok()?;
        // Hashes are compared in constant time.
        if blake3::keyed_hash(&self.key, sealed.progress.as_bytes()) != seal {
            return None;
        }
        let text: Text = serde_json::from_str(&sealed.progress).ok()?;
        let record: Record = match text.content {
            Content::Steps { steps } => steps.into_iter().collect(),
            Content::Earlier(known) => (*known).into(),
        };
        // Before a record knows its own object, no node was touched.
        let is_there = text.object == object || (text.object.is_empty() && !record.has_begun());
        (is_there && !record.is_empty() && record.is_of(&self.point, &self.plan)).then_some(record)
    }
}

/// What the cluster has of a record.
#[derive(Debug, Clone, Default)]
pub(super) struct RecordInCluster {
    /// What this restore has done in earlier runs.
    pub record: Option<Record>,
    /// There is a note of this name that this restore did not write, or not there.
    pub foreign: bool,
    /// An earlier run has done everything, and has ended before what it started was ready. Now all of it is: when that run was.
    pub over: Option<String>,
    note: Option<Note>,
}

impl RecordInCluster {
    /// Looks for the record of this restore. `replace`: data that is there is to be set aside; then a run that is over is not gone on with.
    pub fn look(
        target: &Target,
        namespace: &str,
        identity: &Identity,
        replace: bool,
    ) -> Result<RecordInCluster, EngineError> {
        let Some(note) = target.read_note(namespace, &identity.name())? else { return Ok(RecordInCluster::default()) };
        let record = identity.open(&note.text, &note.uid);
        let mut known = RecordInCluster { foreign: record.is_none(), record, over: None, note: Some(note) };
        if let Some(record) = known.record.as_ref().filter(|record| replace && record.has(&Step::Waiting)) {
            let mut is_ready = record.at_rest().next().is_some();
            for workload in record.at_rest() {
                is_ready = is_ready && target.is_ready(&workload.object)?;
            }
            known.over = is_ready.then(|| record.run().1.to_owned());
            known.record = known.record.filter(|_| !is_ready);
        }
        Ok(known)
    }
}

/// The object that holds a record.
pub(super) struct RecordObject<'t> {
    target: &'t Target,
    namespace: String,
    identity: Identity,
    /// What this run has read or written last.
    note: Option<Note>,
    /// What is there is this restore's.
    is_own: bool,
    /// Another run has taken this restore over: what is in the cluster is its own affair now.
    pub lost: bool,
}

impl Storage for RecordObject<'_> {
    fn add(&mut self, _: &Step) -> Result<(), EngineError> {
        Ok(())
    }

    fn store(&mut self, record: &Record) -> Result<(), EngineError> {
        let name = self.identity.name();
        let mut object = self.note.as_ref().filter(|_| self.is_own).map(|note| note.uid.clone()).unwrap_or_default();
        loop {
            let text = self.identity.seal(&object, record)?;
            match self.target.write_note(&self.namespace, &name, &text, self.note.as_ref())? {
                Written::Note(note) => {
                    let known = std::mem::replace(&mut object, note.uid.clone());
                    self.is_own = true;
                    self.note = Some(note);
                    if known == object {
                        return Ok(());
                    }
                }
                Written::Conflict => {
                    self.lost = true;
                    return Err(Misuse::new(format!(
                        "another run of this restore is under way: ConfigMap {}/{name} was written by it",
                        self.namespace,
                    ))
                    .next(Remedy::from("wait until it has finished").or("end it and run the same command again"))
                    .into());
                }
            }
        }
    }

    fn remove(&mut self) -> Result<(), EngineError> {
        if self.is_own {
            self.target.remove_note(&self.namespace, &self.identity.name())?;
            (self.note, self.is_own) = (None, false);
        }
        Ok(())
    }
}

pub(super) type Journal<'t> = progress::Journal<RecordObject<'t>>;

impl<'t> Journal<'t> {
    /// Returns a record that goes on with what is known. It is not written before the first change.
    pub fn go_on(
        target: &'t Target,
        namespace: &str,
        identity: Identity,
        known: RecordInCluster,
    ) -> Result<Journal<'t>, EngineError> {
        let (point, plan) = (identity.point.clone(), identity.plan.clone());
        let (is_own, note) = (known.record.is_some(), known.note);
        let object = RecordObject { target, namespace: namespace.to_owned(), identity, note, is_own, lost: false };
        Journal::new(object, known.record.unwrap_or_default(), &point, &plan)
    }

    /// Its name in the cluster.
    pub fn name(&self) -> String {
        self.storage.identity.name()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { key: [7; 32], point: "p".to_owned(), plan: "f".to_owned() }
    }

    fn record(steps: impl IntoIterator<Item = Step>) -> Record {
        let begin = Step::Begin {
            point: "p".to_owned(),
            plan: "f".to_owned(),
            run: "r".to_owned(),
            begun: "2026-01-01T00:00:00Z".to_owned(),
        };
        std::iter::once(begin).chain(steps).collect()
    }

    #[test]
    fn a_record_that_somebody_else_wrote_or_changed_is_not_believed() {
        let known = record([Step::Filled { node: "org1/peer0".to_owned() }]);
        let text = identity().seal("1", &known).unwrap();
        assert_eq!(identity().open(&text, "1"), Some(known));
        assert_eq!(identity().open(&text.replace("peer0", "peer1"), "1"), None);
        assert_eq!(Identity { key: [8; 32], ..identity() }.open(&text, "1"), None);
        assert_eq!(Identity { plan: "other".to_owned(), ..identity() }.open(&text, "1"), None);
        assert_eq!(identity().open("{}", "1"), None);
    }

    #[test]
    fn a_record_is_believed_in_the_object_that_it_was_written_into() {
        let opened = |object: &str, known: &Record| identity().open(&identity().seal(object, known).unwrap(), "1");
        let begun = record([]);
        assert!(opened("", &begun).is_some(), "it is new, and says nothing yet");
        let touched = record([Step::Filling { node: "org1/peer0".to_owned() }]);
        assert!(opened("", &touched).is_none());
        assert!(opened("1", &touched).is_some() && opened("2", &touched).is_none());
    }

    #[test]
    fn what_an_earlier_version_has_recorded_is_gone_on_with() {
        let text = r#"{"point":"p","plan":"f","run":"r","begun":"2026-01-01T00:00:00Z","resumed":1,
            "suspended":[{"api_version":"argoproj.io/v1alpha1","kind":"Application","namespace":"argocd","name":"fabric","before":"null"}],
            "operators":[["operators","hlf"]],
            "stopped":[{"kind":"Deployment","namespace":"org1","name":"peer0","replicas":1},
                {"kind":"Deployment","namespace":"org1","name":"peer1","replicas":null}],
            "touched":["org1/peer0"],"filled":["org1/peer0"],"started":["Deployment org1/peer0"],
            "restarting":["org1/orderer1","org1/orderer3"],"restarted":["org1/orderer3"],
            "loaded":["org1/ca-db"],"generations":{"Deployment org1/peer0":"3"},"ran":["org1/peer0"],"waiting":true,"object":"1",
            "done":[{"done":"node-started","node":"Deployment org1/peer0"},{"done":"node-stopped","node":"Deployment org1/peer0"},
                {"done":"node-started","node":"Deployment org1/peer1"},{"done":"node-stopped","node":"Deployment org1/peer1"},
                {"done":"set-aside","what":"org1/peer0 /data","to":"/data/.before-p"}]}"#;
        let text = serde_json::to_string(&identity().sealed(text.to_owned())).unwrap();
        assert_eq!(identity().open(&text, "2"), None);
        let known = identity().open(&text, "1").unwrap();
        assert_eq!(known.run(), ("r", "2026-01-01T00:00:00Z"));
        assert!(known.is_touched("org1/peer0") && known.is_filled("org1/peer0") && known.has_run("org1/peer0"));
        assert!(known.is_started("Deployment org1/peer0") && !known.is_started("Deployment org1/peer1"));
        assert!(known.is_restarting("org1/orderer1") && !known.is_restarted("org1/orderer1"));
        assert!(known.is_restarted("org1/orderer3") && known.is_node_loaded("org1/ca-db"));
        assert_eq!(known.at_rest().map(|known| known.replicas).collect::<Vec<_>>(), [Some(1), None]);
        let object = ObjectRef::new("Deployment", "operators", "hlf");
        assert_eq!(known.operators(), [AtRest { object, replicas: None }]);
        assert_eq!(known.suspended()[0].label(), "Application argocd/fabric");
        assert_eq!(known.generation(&ObjectRef::new("Deployment", "org1", "peer0")), Some("3"));
        assert!(known.has(&Step::Waiting) && !known.is_complete());
        let aside = Done::SetAside { what: "org1/peer0 /data".to_owned(), to: "/data/.before-p".to_owned() };
        assert!(known.changes().contains(&aside));
        // What it is written as now says the same.
        let again = identity().seal("1", &known).unwrap();
        assert_eq!(identity().open(&again, "1").unwrap().in_order(), known.in_order());
    }
}
