//! Snapshots in a capture: planned before anything is changed, taken of all nodes' volumes or of none, and read like the volumes of stopped
//! nodes. They show what a power cut would leave: unfinished records at the ends of logs are no damage.

use std::collections::BTreeMap;
use std::time::Duration;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, Node, Rule};
use fabkeep_platform::{Platform, PlatformError, Progress, SnapshotPlan, SnapshotReport};

use super::{CaptureOptions, Members, survey};
use crate::EngineError;
use crate::event::{Event, Notice, Reporter, step};

/// How volumes are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Volumes {
    /// In the nodes' own containers or in helper pods, while the nodes run.
    #[default]
    Stream,
    /// From snapshots of all volumes; refused where one cannot be taken.
    Snapshot,
    /// From snapshots, if one can be taken of every volume; else as [`Volumes::Stream`].
    Auto,
}

/// How long heights have to stay equal inside a window when no channel configuration was read before it: more than any usual BatchTimeout.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// Returns whether a node's volumes are part of what has to be from one moment. Databases are dumped, or rebuilt from the chain.
fn is_taken(node: &Node, options: &CaptureOptions) -> bool {
    match node.role {
        NodeRole::Peer | NodeRole::Orderer | NodeRole::CertificateAuthority => true,
        NodeRole::StateDatabase => options.include_derived,
        NodeRole::CaDatabase => options.copy_databases,
        NodeRole::Chaincode | NodeRole::Files => false,
    }
}

/// Plans snapshots as the options ask for them; `None`: the volumes are read without.
pub(super) fn plan(platform: &dyn Platform, options: &CaptureOptions) -> Result<Decided, EngineError> {
    if options.volumes == Volumes::Stream {
        return Ok(Decided::Stream(None));
    }
    let nodes = platform.network().nodes();
    let nodes = nodes.filter(|node| !options.exclude.contains(&node.id.to_string()) && is_taken(node, options));
    let nodes: Vec<_> = nodes.map(|node| &node.id).collect();
    let plan = match platform.plan_snapshots(&nodes) {
        Err(PlatformError::NotHere { problem, .. }) if options.volumes == Volumes::Auto => {
            return Ok(Decided::Stream(Some(problem)));
        }
        other => other?,
    };
    let Some(first) = plan.obstacles.first() else {
        let keep = options.keep_snapshots.filter(|&count| count > 0);
        if let Some(access) = platform.kept_snapshots().filter(|_| keep.is_some()) {
            // Without the right to, none can be kept.
            access.list()?;
        }
        return Ok(Decided::Snapshots(plan, keep));
    };
    if options.volumes == Volumes::Auto {
        return Ok(Decided::Stream(Some(format!("{}, {}: {}", first.node, first.volume, first.problem))));
    }
    Err(EngineError::Refused(
        plan.obstacles
            .iter()
            .map(|obstacle| {
                Finding::error(
                    Rule::Snapshots,
                    format!("{} {}", obstacle.node, obstacle.volume),
                    format!("no snapshot can be taken of it: {}", obstacle.problem),
                    obstacle.remedy.clone(),
                )
            })
            .collect(),
    ))
}

/// Returns the steps of a capture by snapshots; refused where one cannot be taken.
pub(crate) fn steps(platform: &dyn Platform, options: &CaptureOptions) -> Result<Vec<String>, EngineError> {
    plan(platform, options).map(|decided| decided.steps())
}

/// How volumes will be read.
pub(super) enum Decided {
    /// Without snapshots; why, where the choice was left to fabkeep.
    Stream(Option<String>),
    /// From these snapshots, and for how many recovery points they stay in the cluster.
    Snapshots(SnapshotPlan, Option<usize>),
}

impl Decided {
    /// Reports why snapshots are not used.
    pub fn report(self, reporter: &dyn Reporter) -> Option<SnapshotPlan> {
        match self {
            Decided::Snapshots(plan, _) => Some(plan),
            Decided::Stream(reason) => {
                if let Some(reason) = reason {
                    reporter.event(Event::Notice(Notice::NoSnapshots { reason: &reason }));
                }
                None
            }
        }
    }

    /// Returns the steps, for the plan.
    pub fn steps(&self) -> Vec<String> {
        match self {
            Decided::Stream(None) => Vec::new(),
            Decided::Stream(Some(reason)) => vec![format!("read the volumes without snapshots, because {reason}")],
            Decided::Snapshots(plan, keep) => {
                let sets = plan.sets.iter().map(|set| {
                    let driver = set.driver.as_deref().unwrap_or("their driver");
                    let how = if set.grouped { "one group snapshot" } else { "a snapshot each" };
                    let class = set.class.as_ref().map_or_else(String::new, |class| format!(", class {class}"));
                    let namespace = &set.namespace;
                    format!(
                        "take {how} of {} in namespace {namespace} ({driver}{class})",
                        set.names().collect::<Vec<_>>().join(", ")
                    )
                });
                let after = match keep {
                    None => "read clones of the snapshots in helper pods; remove clones and snapshots".to_owned(),
                    Some(count) => format!(
                        "read clones of the snapshots in helper pods; remove the clones. The snapshots stay in the cluster for the newest {count} recovery points of this network, older ones are removed after the commit. They share the cluster's storage and zone: they do not replace the repository"
                    ),
                };
                sets.chain([after]).collect()
            }
        }
    }
}

/// Takes the snapshots: from now on the platform reads the volumes from them.
pub(super) fn take(
    platform: &dyn Platform,
    plan: &SnapshotPlan,
    limit: Duration,
    reporter: &dyn Reporter,
) -> Result<SnapshotReport, EngineError> {
    step(reporter, "take snapshots", None, || {
        let reported = |progress: &Progress<'_>| reporter.event(Event::Notice(Notice::Platform(progress)));
        Ok(platform.take_snapshots(plan, limit, &reported)?)
    })
}

/// Returns the channels of each peer and orderer, from a listing of their directories.
pub(super) fn members(platform: &dyn Platform, options: &CaptureOptions) -> Result<Members, EngineError> {
    let survey = survey::survey(platform, options, None)?;
    let mut members: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for node in survey.nodes.iter().filter(|node| matches!(node.node.role, NodeRole::Peer | NodeRole::Orderer)) {
        let channels = node.directories.iter().flat_map(|directory| directory.chains()).map(|chain| chain.channel);
        let mut channels: Vec<String> = channels.collect();
        channels.sort();
        channels.dedup();
        members.insert(node.node.id.clone(), channels);
    }
    Ok(members)
}
