//! Starts the services of a restored network in the order of their dependencies, and loads database dumps before the certificate
//! authorities start.

use std::collections::BTreeMap;
use std::time::Duration;

use fabkeep_ledger::ca_dump::DUMP_FILE;
use fabkeep_network::{Finding, NodeId, Remedy, Rule, Severity, Stage};
use fabkeep_platform::kubernetes::{Kubernetes, StageWorkloads, Suspension, WorkloadState};
use fabkeep_platform::{ObjectRef, PlatformError, Progress};

use super::Run;
use super::nodes::dump_of;
use super::record::Journal;
use super::undo::put_back;
use crate::error::io;
use crate::event::{Event, Notice, step};
use crate::point::CapturedNode;
use crate::restore::Restored;
use crate::restore::ca::{databases, forgotten};
use crate::restore::progress::Step;
use crate::transform::is_named;
use crate::{Difference, Done, EngineError};

/// How long nodes that do not trust each other yet may take to: a peer asks others again after half a minute.
const SETTLE: Duration = Duration::from_secs(30);

/// Scales up what is at 0 replicas, stage by stage; what does not become ready in time is reported, and later stages are not begun. Whether
/// all of it runs.
pub(super) fn start(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    record: &mut Journal<'_>,
    restored: &mut Restored,
) -> Result<bool, EngineError> {
    let reporter = run.reporter;
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
    for mut stage in stages(run, kubernetes, record) {
        run.interrupted()?;
        for workload in std::mem::take(&mut stage.workloads) {
            if !rests_for_others(run, record, &workload)? {
                stage.workloads.push(workload);
            }
        }
        if !behind.is_empty() {
            restored.findings.push(Finding::warning(
                Rule::ReadyPerChannel,
                stage.stage,
                format!("left at 0 replicas, because {} are not ready", behind.join(", ")),
                "follow the advice of the findings above, then run the same command again: it continues",
            ));
            continue;
        }
        let name = format!("start {}", stage.stage);
        let started = step(reporter, &name, None, || -> Result<_, EngineError> {
            for workload in &stage.workloads {
                if scale_up(run, record, workload)? {
                    restored.started.push(workload.to_string());
                }
            }
            let reported = |progress: &Progress<'_>| reporter.event(Event::Notice(Notice::Platform(progress)));
            let is_interrupted = || reporter.is_interrupted();
            Ok(kubernetes.wait_until_ready(&stage, &heights, run.options.deadline, &reported, &is_interrupted)?)
        })?;
        run.interrupted()?;
        let in_time = started.findings.is_empty();
        restored.ready.extend(started.ready.into_iter().map(|(id, heights)| (id.to_string(), heights)));
        if !in_time {
            behind.push(stage.stage.to_string());
            restored.findings.extend(started.findings);
        }
        if in_time && stage.stage == Stage::Databases && !run.plan.load.is_empty() {
            // Before the authorities start: on an empty database they would begin anew.
            step(reporter, "load databases", None, || load(run, kubernetes, record, restored))?;
        }
    }
    let reported = restored.ready.values().filter(|heights| !heights.is_empty()).count();
    if reported > 0 {
        restored.proven.push(format!("{reported} nodes run and report at least the recorded height of every channel"));
    }
    Ok(behind.is_empty())
}

/// Whether a workload that is neither the recovery point's nor stopped by this restore is noted to be at rest: by a window, or by anybody.
fn rests_for_others(run: &Run<'_>, record: &Journal<'_>, workload: &ObjectRef) -> Result<bool, EngineError> {
    let own = record.at_rest().any(|known| known.object == *workload);
    let known = own || run.plan.replicas.contains_key(workload);
    Ok(!known && run.target.workload(workload)? == WorkloadState::ScaledDown)
}

/// Scales one workload up, if this restore has it at 0 replicas, or if it is one of the recovery point's that fabkeep has stopped. Whether it
/// does. What is noted on it tells no more than that: anybody can write it.
fn scale_up(run: &Run<'_>, record: &mut Journal<'_>, workload: &ObjectRef) -> Result<bool, EngineError> {
    let label = workload.to_string();
    let own = record.at_rest().find(|known| known.object == *workload).cloned();
    match run.target.workload(workload)? {
        WorkloadState::ScaledDown => {}
        // Somebody has taken the note of its replicas away.
        WorkloadState::AtRest if own.is_some() => {}
        _ => return Ok(false),
    }
    let before = record.clone();
    record.note(Done::NodeStarting { node: label.clone() })?;
    let declared = run.plan.replicas.get(workload).copied();
    if let Err(error) = run.target.scale_up(workload, own.and_then(|own| own.replicas).or(declared)) {
        // After a failure it may be scaled up nevertheless, after a refusal it is not.
        if matches!(error, PlatformError::Forbidden { .. }) {
            record.take_back(before);
        }
        return Err(error.into());
    }
    record.add(Done::NodeStarted { node: label })?;
    Ok(true)
}

/// Loads the dumps of databases whose servers run again, and compares what they hold then.
fn load(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    record: &mut Journal<'_>,
    restored: &mut Restored,
) -> Result<(), EngineError> {
    for &position in &run.plan.load {
        let node = run.node(position);
        let Some(entry) = dump_of(node) else { continue };
        let id = &node.facts.id;
        let scratch = tempfile::tempdir().map_err(io(std::env::temp_dir()))?;
        let path = scratch.path().join(DUMP_FILE);
        forgotten::write_captured(entry, run.point, run.reader, &path)?;
        let expected = databases::read(&path)?;
        let reported = |progress: &Progress<'_>| run.reporter.event(Event::Notice(Notice::Platform(progress)));
        record.note(Done::DatabaseLoaded { node: id.to_string(), database: "its database server".to_owned() })?;
        let found = kubernetes.load_dump(id, &path, run.options.deadline, &reported)?;
        if !expected.complete || found.content != expected.content {
            let what = "the database does not hold the captured rows after its dump was loaded: the certificate authorities are left at 0 replicas; read the server's log";
            return Err(Difference::new(id, what).into());
        }
        record.note(Step::NodeLoaded { node: id.to_string() })?;
        restored.proven.push(databases::reported(&id.to_string(), &found));
    }
    Ok(())
}

/// The stages of what this restore is about.
fn stages(run: &Run<'_>, kubernetes: &Kubernetes, record: &Journal<'_>) -> Vec<StageWorkloads> {
    let (plan, point, options) = (run.plan, run.point, run.options);
    if options.nodes.is_empty() && !options.missing {
        return kubernetes.stages(None);
    }
    let mut nodes: Vec<NodeId> =
        plan.fill.iter().chain(&plan.load).map(|&position| point.nodes[position].facts.id.clone()).collect();
    let created = |node: &&CapturedNode| {
        node.workload.as_ref().is_some_and(|workload| {
            let workload = ObjectRef::from(workload);
            plan.create.iter().chain(&plan.late).any(|known| ObjectRef::from(known) == workload)
                || record.at_rest().any(|known| known.object == workload)
        })
    };
    nodes.extend(point.nodes.iter().filter(created).map(|node| node.facts.id.clone()));
    if !plan.nodes.is_empty() {
        let named = point.nodes.iter().filter(|node| is_named(&node.facts.id, &plan.nodes));
        nodes.extend(named.map(|node| node.facts.id.clone()));
    }
    kubernetes.stages(Some(&nodes))
}

/// What was suspended and scaled down for the restore goes on: operators last, when everything that they manage is as it should be. Adds
/// it to what was done.
pub(super) fn let_others_go_on(
    run: &Run<'_>,
    record: &mut Journal<'_>,
    done: &mut Vec<Done>,
) -> Result<(), EngineError> {
    for operator in record.operators() {
        run.target.scale_up(&operator.object, operator.replicas)?;
        put_back(record, operator.label(), done)?;
    }
    for controller in record.suspended() {
        if !run.target.unsuspend(&controller)? {
            run.found(&Finding::warning(
                Rule::OperatorScales,
                controller.label(),
                "fabkeep has suspended it, but now has no right to resume it",
                format!("resume it by hand: the field was {} before", controller.before),
            ));
        }
        put_back(record, controller.label(), done)?;
    }
    Ok(())
}

/// What stays suspended, as not everything that it manages runs.
pub(super) fn kept_back(record: &Journal<'_>) -> Vec<Finding> {
    let operators = record.operators().into_iter().map(|operator| operator.label());
    operators
        .chain(record.suspended().iter().map(Suspension::label))
        .map(|subject| {
            Finding::warning(
                Rule::OperatorScaledDown,
                subject,
                "it is still scaled down or suspended, because not everything that it manages runs",
                Remedy::SameCommandWithStart,
            )
        })
        .collect()
}

/// What the nodes logged since they were started. Handshakes that fail only until the nodes know each other are no broken rule: they are
/// looked for once more when there was time for that.
pub(super) fn logged(
    run: &Run<'_>,
    kubernetes: &Kubernetes,
    since: jiff::Timestamp,
    is_up: &dyn Fn(&NodeId) -> bool,
) -> Vec<Finding> {
    let handshake = |finding: &Finding| finding.rule == Rule::Certificates && finding.severity == Severity::Warning;
    let mut logged = crate::logs::findings(kubernetes, since, is_up);
    if !logged.iter().any(handshake) {
        return logged;
    }
    run.reporter.event(Event::Notice(Notice::HandshakesFailed { seconds: SETTLE.as_secs() }));
    let later = jiff::Timestamp::now();
    std::thread::sleep(SETTLE);
    let again = crate::logs::findings(kubernetes, later, is_up);
    let subjects: Vec<&str> =
        again.iter().filter(|finding| handshake(finding)).map(|finding| finding.subject.as_str()).collect();
    logged.retain(|finding| !handshake(finding) || subjects.contains(&finding.subject.as_str()));
    logged
}
