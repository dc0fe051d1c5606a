//! The services of a restored network awake: those first that others need, and databases' dumps before the authorities.

use std::collections::BTreeMap;

use fabkeep_ledger::ca_dump::DUMP_FILE;
use fabkeep_network::{Finding, NodeId, Rule};
use fabkeep_platform::kubernetes::{DATABASES, Kubernetes, Stage, WorkloadState};

use super::super::{authority, databases};
use super::plan::dump_of;
use super::{ClusterRestored, Run};
use crate::EngineError;
use crate::arrange::is_named;
use crate::error::io;
use crate::event::{Event, step};
use crate::point::CapturedNode;

/// Wakes what sleeps, stage by stage; what does not become ready in time is reported, and later stages are not begun. Whether all of it is
/// awake.
pub(super) fn wake(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    restored: &mut ClusterRestored,
) -> Result<bool, EngineError> {
    let (target, reporter) = (run.target, run.reporter);
    let heights: BTreeMap<NodeId, BTreeMap<String, u64>> = run
        .point
        .nodes
        .iter()
        .map(|node| {
            let ledgers = node.facts.ledgers.iter().map(|ledger| (ledger.channel.clone(), ledger.height));
            (node.facts.id.clone(), ledgers.collect())
        })
        .collect();
    let mut behind: Vec<String> = Vec::new();
    for stage in stages(run, kubernetes) {
        run.interrupted()?;
        if !behind.is_empty() {
            restored.findings.push(Finding::warning(
                Rule::ReadyPerChannel,
                stage.name,
                format!("left asleep, as {} are not ready", behind.join(", ")),
                "when the findings above are settled, run the same command again: it goes on",
            ));
            continue;
        }
        let name = format!("wake {}", stage.name);
        let awake = step(reporter, &name, None, || -> Result<_, EngineError> {
            for (kind, namespace, name) in &stage.workloads {
                if target.workload(kind, namespace, name)? == WorkloadState::Asleep {
                    target.wake(kind, namespace, name)?;
                }
            }
            let told = |line: &str| reporter.event(Event::Said(line));
            let is_interrupted = || reporter.is_interrupted();
            Ok(kubernetes.wait_until_ready(&stage, &heights, run.options.deadline, &told, &is_interrupted)?)
        })?;
        let in_time = awake.findings.is_empty();
        restored.ready.extend(awake.ready.into_iter().map(|(id, heights)| (id.to_string(), heights)));
        if !awake.findings.is_empty() {
            behind.push(stage.name.to_owned());
            restored.findings.extend(awake.findings);
        }
        if in_time && stage.name == DATABASES && !run.plan.load.is_empty() {
            // Before the authorities wake: on an empty database they would begin anew.
            step(reporter, "load databases", None, || load(run, kubernetes, restored))?;
        }
    }
    let told = restored.ready.values().filter(|heights| !heights.is_empty()).count();
    if told > 0 {
        restored.proven.push(format!("{told} nodes run and tell the recorded heights, or more, of every channel"));
    }
    Ok(behind.is_empty())
}

/// Loads the dumps of databases whose servers run again, and compares what they hold then.
fn load(run: &Run<'_>, kubernetes: &Kubernetes, restored: &mut ClusterRestored) -> Result<(), EngineError> {
    for &position in &run.plan.load {
        let node = run.node(position);
        let Some(entry) = dump_of(node) else { continue };
        let id = &node.facts.id;
        let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
        let path = scratch.path().join(DUMP_FILE);
        authority::write_captured(entry, run.point, run.reader, &path)?;
        let expected = databases::read(&path)?;
        let told = |line: &str| run.reporter.event(Event::Said(line));
        let found = kubernetes.load_dump(id, &path, run.options.deadline, &told)?;
        if !expected.complete || found.content != expected.content {
            return Err(EngineError::Refused(vec![Finding::error(
                Rule::CaDatabase,
                id,
                "the database does not hold the captured rows after its dump was loaded: the certificate authorities stay asleep",
                "look at the server's log; the same command tries again",
            )]));
        }
        for (namespace, claim) in kubernetes.claims(id) {
            run.target.note_restored(&namespace, &claim, &restored.point)?;
        }
        restored.proven.push(databases::told(&id.to_string(), &found));
    }
    Ok(())
}

/// The stages of what this restore is about.
fn stages(run: &Run<'_>, kubernetes: &Kubernetes) -> Vec<Stage> {
    let (plan, point, options) = (run.plan, run.point, run.options);
    if options.nodes.is_empty() && !options.missing {
        return kubernetes.stages(None);
    }
    let mut nodes: Vec<NodeId> =
        plan.fill.iter().chain(&plan.load).map(|&position| point.nodes[position].facts.id.clone()).collect();
    let created = |node: &&CapturedNode| {
        node.workload.as_ref().is_some_and(|workload| {
            plan.create.iter().chain(&plan.late).any(|known| {
                (&known.kind, &known.namespace, &known.name) == (&workload.kind, &workload.namespace, &workload.name)
            })
        })
    };
    nodes.extend(point.nodes.iter().filter(created).map(|node| node.facts.id.clone()));
    let named = point.nodes.iter().filter(|node| is_named(&node.facts.id, &plan.nodes));
    nodes.extend(named.map(|node| node.facts.id.clone()));
    kubernetes.stages(Some(&nodes))
}
