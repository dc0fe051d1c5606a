//! What a backup or a restore would meet, found out before the first one: rights, helper pods, classes, clocks, room, the repository and its
//! keys, leftovers, the nodes. Nothing is changed; helper pods that are tried are removed.

mod cluster;
mod effort;
mod host;
mod nodes;
mod repository;

use std::collections::BTreeSet;
use std::path::PathBuf;

use fabkeep_network::{Finding, Remedy, Severity};
use fabkeep_platform::kubernetes::{Kubernetes, Preflight, Purpose, RightHeld};
use fabkeep_platform::{Host, Platform, PlatformError};
use fabkeep_store::{History, Repository, StoreError};
use serde::Serialize;

use crate::capture::{CaptureOptions, Looked, PlannedCapture};
use crate::event::step;
use crate::{EngineError, Reporter};

pub use effort::Effort;

/// A clock that differs by more than this is reported, in seconds.
const CLOCK_SECONDS: i64 = 10;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Something to know: it was not checked, or only something that was not asked for is affected.
    Note,
    /// A backup is made, and something is not as it should be.
    Warning,
    /// A backup, or what else was asked for, would fail.
    Failed,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Whether the network is reached.
    Network,
    /// Rights in the cluster.
    Rights,
    /// Helper pods.
    Helpers,
    /// Claims and their storage classes.
    Storage,
    /// Snapshots.
    Snapshots,
    /// Clocks.
    Clocks,
    /// What earlier runs have left: windows, restores, helper pods.
    Leftovers,
    /// The nodes, their data and keys.
    Nodes,
    /// Room on disks.
    Room,
    /// The repository.
    Repository,
    /// The writer key and the identity.
    Keys,
    /// What a backup costs.
    Effort,
}

/// What was seen, and what to do.
#[derive(Debug)]
pub enum Seen {
    /// In words.
    Text {
        /// What was seen.
        what: String,
        /// What to do next.
        next: Option<Remedy>,
    },
    /// A finding of discovery, or of a rule.
    Finding(Finding),
    /// An error.
    Error(EngineError),
}

/// One check.
#[derive(Debug)]
pub struct Check {
    /// What it is about.
    pub topic: Topic,
    /// How it ended.
    pub outcome: Outcome,
    /// The namespace, node, file or object that it is about; empty if the topic says it.
    pub subject: String,
    /// What was seen.
    pub seen: Seen,
}

/// All checks.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// In order of topics.
    pub checks: Vec<Check>,
    /// Every right that was asked for.
    pub rights: Vec<RightHeld>,
    /// How each node would be captured.
    pub nodes: Vec<PlannedCapture>,
    /// What a backup costs.
    pub effort: Option<Effort>,
}

/// What is examined, and what must be possible.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// How a backup would be made.
    pub capture: CaptureOptions,
    /// What has to be possible; what else is not possible is a note only.
    pub purposes: Vec<Purpose>,
    /// Whether helper pods are tried.
    pub pods: bool,
}

/// The network that is examined, as far as it could be opened.
pub enum DoctorNetwork {
    /// It could not be opened.
    NotOpened(PlatformError),
    /// On hosts.
    Host(Box<Host>),
    /// On a cluster.
    Cluster {
        /// The cluster.
        cluster: Preflight,
        /// The network in it.
        network: Result<Box<Kubernetes>, PlatformError>,
    },
}

/// Where the key files are.
#[derive(Debug, Clone, Default)]
pub struct KeyFiles {
    /// The writer key.
    pub writer: Option<PathBuf>,
    /// The identity.
    pub identity: Option<PathBuf>,
}

/// The repository that is examined, as far as it could be opened.
pub struct DoctorRepository<'a> {
    /// Its location.
    pub location: &'a str,
    /// The repository.
    pub opened: Result<Repository, StoreError>,
    /// Its keys, as far as they are found.
    pub keys: KeyFiles,
}

impl DoctorOptions {
    fn wants(&self, purpose: Purpose) -> bool {
        purpose == Purpose::Backup || self.purposes.contains(&purpose)
    }
}

impl Diagnosis {
    /// Returns how the worst check ended.
    #[must_use]
    pub fn worst(&self) -> Outcome {
        self.checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Ok)
    }

    fn add(
        &mut self,
        topic: Topic,
        outcome: Outcome,
        subject: impl ToString,
        what: impl Into<String>,
        next: Option<Remedy>,
    ) {
        let seen = Seen::Text { what: what.into(), next };
        self.checks.push(Check { topic, outcome, subject: subject.to_string(), seen });
    }

    fn ok(&mut self, topic: Topic, subject: impl ToString, what: impl Into<String>) {
        self.add(topic, Outcome::Ok, subject, what, None);
    }

    fn note(&mut self, topic: Topic, subject: impl ToString, what: impl Into<String>, next: impl Into<Remedy>) {
        self.add(topic, Outcome::Note, subject, what, Some(next.into()));
    }

    fn warn(&mut self, topic: Topic, subject: impl ToString, what: impl Into<String>, next: impl Into<Remedy>) {
        self.add(topic, Outcome::Warning, subject, what, Some(next.into()));
    }

    fn fail(&mut self, topic: Topic, subject: impl ToString, what: impl Into<String>, next: impl Into<Remedy>) {
        self.add(topic, Outcome::Failed, subject, what, Some(next.into()));
    }

    fn error(&mut self, topic: Topic, outcome: Outcome, subject: impl ToString, error: impl Into<EngineError>) {
        self.checks.push(Check { topic, outcome, subject: subject.to_string(), seen: Seen::Error(error.into()) });
    }

    fn finding(&mut self, topic: Topic, finding: Finding) {
        let outcome = match finding.severity {
            Severity::Note => Outcome::Note,
            Severity::Warning => Outcome::Warning,
            Severity::Error => Outcome::Failed,
        };
        self.checks.push(Check { topic, outcome, subject: finding.subject.clone(), seen: Seen::Finding(finding) });
    }

    /// Reports a clock that was compared with this machine's.
    fn clock(&mut self, of: &str, ahead_seconds: i64) {
        if ahead_seconds.abs() <= CLOCK_SECONDS {
            self.ok(Topic::Clocks, of, "it agrees with this machine's clock");
            return;
        }
        let direction = if ahead_seconds > 0 { "ahead of" } else { "behind" };
        let what = format!("its clock is {} s {direction} this machine's clock", ahead_seconds.abs());
        self.warn(
            Topic::Clocks,
            of,
            what,
            "set the clock that is wrong: `timedatectl` shows whether a machine's clock is synchronised, `timedatectl set-ntp true` makes it so; certificates and the times of recovery points depend on it",
        );
    }
}

/// Examines a network and a repository. Checks that cannot be made are reported; nothing ends the examination.
pub fn examine(
    network: DoctorNetwork,
    repository: Option<DoctorRepository<'_>>,
    options: &DoctorOptions,
    reporter: &dyn Reporter,
) -> Diagnosis {
    let mut out = Diagnosis::default();
    let mut looked = None;
    match network {
        DoctorNetwork::NotOpened(error) => out.error(Topic::Network, Outcome::Failed, "", error),
        DoctorNetwork::Host(host) => {
            looked = Some(nodes::examine(&mut out, host.as_ref(), options, &BTreeSet::new(), reporter));
            windows(&mut out, host.as_ref(), options);
            step(reporter, "look at the disks", None, || host::examine(&mut out, &host, looked.as_ref(), options));
        }
        DoctorNetwork::Cluster { cluster, network } => {
            let unread = cluster::examine(&mut out, &cluster, network.as_deref().ok(), options, reporter);
            match network {
                Ok(network) => {
                    looked = Some(nodes::examine(&mut out, network.as_ref(), options, &unread, reporter));
                    windows(&mut out, network.as_ref(), options);
                    // What looking at the nodes has made.
                    if let Err(error) = network.remove_helpers() {
                        out.error(Topic::Helpers, Outcome::Warning, "", error);
                    }
                }
                Err(error) if out.worst() < Outcome::Failed => out.error(Topic::Network, Outcome::Failed, "", error),
                Err(error) => out.error(Topic::Network, Outcome::Failed, "its nodes", error),
            }
        }
    }
    if repository.is_none() {
        let what = "the repository and its keys were not checked: none was named";
        out.note(Topic::Repository, "", what, Remedy::NameRepository);
    }
    let known = repository.and_then(|repository| {
        step(reporter, "look at the repository", None, || repository::examine(&mut out, repository, options))
    });
    if let Some(looked) = looked {
        effort::examine(&mut out, looked, known.as_ref(), options);
    }
    out.checks.sort_by_key(|check| check.topic);
    out
}

/// What is known of the repository.
struct Known {
    history: History,
    /// The folder it is in, when it is one.
    folder: Option<PathBuf>,
}

/// Reports windows that are recorded.
fn windows(out: &mut Diagnosis, platform: &dyn Platform, options: &DoctorOptions) {
    match platform.window() {
        Ok(noted) => {
            let findings = crate::window::noted_findings(&noted);
            if findings.is_empty() {
                out.ok(Topic::Leftovers, "windows", "no window is open");
            }
            for finding in findings {
                // A backup without a window is made all the same.
                let outcome = if options.wants(Purpose::Window) { Outcome::Failed } else { Outcome::Warning };
                let subject = finding.subject.clone();
                out.checks.push(Check { topic: Topic::Leftovers, outcome, subject, seen: Seen::Finding(finding) });
            }
        }
        Err(error @ PlatformError::Forbidden { .. }) if !options.wants(Purpose::Window) => {
            out.error(Topic::Leftovers, Outcome::Note, "windows", error);
        }
        Err(error) => out.error(Topic::Leftovers, Outcome::Failed, "windows", error),
    }
}

fn all_bytes(looked: &Looked) -> u64 {
    looked.nodes.iter().map(|node| node.bytes).sum()
}
