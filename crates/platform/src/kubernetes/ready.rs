//! Waits for started nodes: their pods, the heights of their channels, a leader for each channel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, NodeId, Rule};

use super::Kubernetes;
use super::discover::workloads::{LivePod, live_pod};
use super::scale::StageWorkloads;
use super::trouble::Trouble;
use crate::probe::answers;
use crate::{ObjectRef, OnProgress, PlatformError, Progress};

const POLL: Duration = Duration::from_millis(500);

/// What came of a stage.
#[derive(Debug, Clone, Default)]
pub struct Started {
    /// Nodes that are ready, with the heights that they report: channel and height.
    pub ready: Vec<(NodeId, BTreeMap<String, u64>)>,
    /// What did not come up in time, and why.
    pub findings: Vec<Finding>,
}

/// Since when each pod is in its trouble.
#[derive(Default)]
struct TroubleTimes(BTreeMap<String, Instant>);

impl TroubleTimes {
    /// Returns whether a trouble has lasted so long that waiting does not help.
    fn lasts(&mut self, trouble: &Trouble) -> bool {
        let since = self.0.entry(trouble.finding.subject.clone()).or_insert_with(Instant::now);
        trouble.hopeless_after.is_some_and(|long| since.elapsed() >= long)
    }

    /// What is over is not remembered.
    fn forget_others(&mut self, waits: &[Finding]) {
        let subjects: BTreeSet<&String> = waits.iter().map(|wait| &wait.subject).collect();
        self.0.retain(|subject, _| subjects.contains(subject));
    }
}

impl Kubernetes {
    /// Waits until a stage's workloads are ready, and until every node has every channel open at least at the expected height (P7).
    /// `reported` is called with what is waited for. Ends before the deadline when pods are in trouble that does not pass by waiting.
    ///
    /// # Errors
    /// [`PlatformError::Cluster`] when the cluster cannot be asked.
    pub fn wait_until_ready(
        &self,
        stage: &StageWorkloads,
        heights: &BTreeMap<NodeId, BTreeMap<String, u64>>,
        deadline: Duration,
        reported: &OnProgress<'_>,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<Started, PlatformError> {
        let begun = Instant::now();
        let mut said: Option<Finding> = None;
        let mut seen = TroubleTimes::default();
        loop {
            let mut started = Started::default();
            let mut waits: Vec<Finding> = Vec::new();
            let mut leads: BTreeMap<String, bool> = BTreeMap::new();
            let mut hopeless = false;
            for workload in &stage.workloads {
                let ObjectRef { kind, namespace, name } = workload;
                let replicas = self.workload(workload).map_or(1, |workload| workload.replicas);
                let objects = self.pod_objects(workload)?;
                let pods: Vec<LivePod> = objects.iter().filter_map(live_pod).collect();
                let ready = pods.iter().filter(|pod| pod.ready).count();
                if ready < replicas as usize && kind != "DaemonSet" {
                    let troubles = self.troubles(workload, &objects);
                    if troubles.is_empty() {
                        waits.push(Finding::error(
                            Rule::ReadyPerChannel,
                            workload.to_string(),
                            format!("{ready} of {replicas} pods are ready"),
                            "check the pods' events and logs (`kubectl describe`, `kubectl logs`)",
                        ));
                    }
                    for trouble in troubles {
                        hopeless |= seen.lasts(&trouble);
                        waits.insert(0, trouble.finding);
                    }
                    continue;
                }
                for found in self.analysis.nodes.iter().filter(|node| stage.nodes.contains(&node.node.id)) {
                    let Some(known) = found.node.workload.as_ref() else { continue };
                    if ObjectRef::from(known) != *workload {
                        continue;
                    }
                    let pod = match known.ordinal {
                        Some(ordinal) => pods.iter().find(|pod| pod.name == format!("{name}-{ordinal}")),
                        None => pods.first(),
                    };
                    let expected = heights.get(&found.node.id).cloned().unwrap_or_default();
                    let asked = known.operations.filter(|operations| !operations.tls && !expected.is_empty());
                    let (Some(pod), Some(operations)) = (pod, asked) else {
                        started.ready.push((found.node.id.clone(), BTreeMap::new()));
                        continue;
                    };
                    let at = (namespace.as_str(), pod.name.as_str(), operations.port);
                    let answer = super::observe::get(&self.connection, at, None, "/metrics", false);
                    match answer.map(|text| answers::metrics(&text)) {
                        Ok(answer) => {
                            let low: Vec<String> = expected
                                .iter()
                                .filter(|(channel, height)| answer.heights.get(*channel).is_none_or(|now| now < height))
                                .map(|(channel, height)| match answer.heights.get(channel) {
                                    Some(now) => format!("{channel} at {now}, {height} expected"),
                                    None => format!("{channel} is not open, height {height} expected"),
                                })
                                .collect();
                            for (channel, leading) in &answer.leads {
                                *leads.entry(channel.clone()).or_default() |= leading;
                            }
                            if low.is_empty() {
                                started.ready.push((found.node.id.clone(), answer.heights));
                            } else {
                                waits.push(Finding::error(
                                    Rule::ReadyPerChannel,
                                    &found.node.id,
                                    low.join("; "),
                                    "read the node's log: it says why a ledger did not open",
                                ));
                            }
                        }
                        Err(problem) => waits.push(Finding::error(
                            Rule::ReadyPerChannel,
                            &found.node.id,
                            format!("its operations endpoint (port {}) does not answer: {problem}", operations.port),
                            "read the node's log; `peer channel getinfo` shows the heights",
                        )),
                    }
                }
            }
            if leads.values().any(|leading| !leading) {
                // The leader may be an orderer that was running all the time.
                for channel in self.led_by_others(stage) {
                    leads.entry(channel).and_modify(|leading| *leading = true);
                }
            }
            for (channel, _) in leads.iter().filter(|(_, leading)| !**leading) {
                waits.push(Finding::error(
                    Rule::LogPresent,
                    channel,
                    "this channel has no leader yet",
                    "read the orderers' logs; a majority of the consenters must run and reach each other",
                ));
            }
            if waits.is_empty() {
                return Ok(started);
            }
            seen.forget_others(&waits);
            if hopeless || begun.elapsed() > deadline || is_interrupted() {
                started.findings = waits;
                return Ok(started);
            }
            if said.as_ref() != waits.first() {
                reported(&Progress::WaitsFor(&waits[0]));
                said = waits.into_iter().next();
            }
            std::thread::sleep(POLL);
        }
    }

    /// Channels that orderers lead which are not of the stage.
    fn led_by_others(&self, stage: &StageWorkloads) -> Vec<String> {
        let others = self
            .analysis
            .nodes
            .iter()
            .filter(|found| found.node.role == NodeRole::Orderer && !stage.nodes.contains(&found.node.id));
        let answers = others.filter_map(|found| {
            let (workload, pod) = (found.node.workload.as_ref()?, found.pod.as_ref()?);
            let operations = workload.operations.filter(|operations| !operations.tls)?;
            let at = (workload.namespace.as_str(), pod.name.as_str(), operations.port);
            let text = super::observe::get(&self.connection, at, None, "/metrics", false).ok()?;
            Some(answers::metrics(&text).leads)
        });
        answers.flatten().filter(|(_, leading)| *leading).map(|(channel, _)| channel).collect()
    }
}
