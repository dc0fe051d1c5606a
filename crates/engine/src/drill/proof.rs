//! What the nodes of a drill show: open channels at their heights, leaders, certificate authorities that answer. And what the recovery point
//! shows of its peers: one commit hash for each channel.

use std::collections::{BTreeMap, BTreeSet};

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{Finding, KeyPurpose, NodeFacts, NodeId, Observation, Participating, Rule};

/// What was looked at.
#[derive(Debug, Default, PartialEq)]
pub(super) struct DrillFindings {
    pub proven: Vec<String>,
    pub not_proven: Vec<String>,
    pub problems: Vec<String>,
    pub findings: Vec<Finding>,
}

/// Compares what the restored nodes answer with what was captured.
pub(super) fn nodes(captured: &[&NodeFacts], observed: &[Observation]) -> DrillFindings {
    let mut out = DrillFindings::default();
    let (mut chains, mut unknown) = (0, Vec::new());
    for facts in captured {
        let observation = observed.iter().find(|observation| observation.node == facts.id);
        for ledger in &facts.ledgers {
            let answer = observation.and_then(|observation| observation.channels.get(&ledger.channel));
            let height = answer.and_then(|answer| answer.readings.iter().map(|reading| reading.height).max());
            let label = format!("{} {}", facts.id, ledger.channel);
            match height {
                Some(height) if height < ledger.height => {
                    out.problems.push(format!("{label}: its height is {height}, {} was captured", ledger.height));
                }
                Some(_) => chains += 1,
                None if observation.is_some_and(|observation| observation.running) => unknown.push(label.clone()),
                None => out.problems.push(format!("{label}: the node does not run")),
            }
            match answer.and_then(|answer| answer.participating) {
                None | Some(Participating::Active) => {}
                Some(other) => out.problems.push(format!("{label}: the orderer reports the channel as {other}")),
            }
        }
        if let Some(health) =
            observation.and_then(|observation| observation.health.as_deref()).filter(|health| *health != "OK")
        {
            out.findings.push(Finding::warning(
                Rule::ReadyPerChannel,
                &facts.id,
                format!("/healthz says: {health}"),
                "check the component that it names: a drill has no Docker, and reaches no chaincode outside",
            ));
        }
    }
    if chains > 0 {
        out.proven.push(format!("{chains} chains are open on the running nodes, at the captured height or higher"));
    }
    if !unknown.is_empty() {
        out.not_proven.push(format!("the heights of {}: these nodes report none", unknown.join(", ")));
    }
    leaders(captured, observed, &mut out);
    out
}

/// A leader for each channel that has orderers here.
fn leaders(captured: &[&NodeFacts], observed: &[Observation], out: &mut DrillFindings) {
    let orderers = captured.iter().filter(|facts| facts.role == NodeRole::Orderer);
    let channels: BTreeSet<&str> =
        orderers.flat_map(|facts| &facts.ledgers).map(|ledger| ledger.channel.as_str()).collect();
    for channel in channels {
        let answers = observed.iter().filter(|observation| observation.role == NodeRole::Orderer);
        let leads: Vec<(String, bool)> = answers
            .filter_map(|observation| Some((observation.node.to_string(), observation.channels.get(channel)?.leads?)))
            .collect();
        match leads.iter().find(|(_, leads)| *leads) {
            Some((leader, _)) => out.proven.push(format!("{channel} has a leader: {leader}")),
            None if leads.is_empty() => {
                out.not_proven.push(format!("that {channel} has a leader: no orderer says who leads"));
            }
            None => out.problems.push(format!("{channel} has no leader")),
        }
    }
}

/// Whether the captured peers have one state: commit hashes at the same height. That every file was restored as captured is proven elsewhere.
pub(super) fn commit_hashes(captured: &[&NodeFacts]) -> DrillFindings {
    let mut out = DrillFindings::default();
    // By channel and height: hash, and how many peers have it.
    let mut known: BTreeMap<(&str, u64), BTreeMap<&str, usize>> = BTreeMap::new();
    let mut without: BTreeSet<&str> = BTreeSet::new();
    for facts in captured.iter().filter(|facts| facts.role == NodeRole::Peer) {
        for ledger in &facts.ledgers {
            match &ledger.commit_hash {
                Some(hash) => {
                    *known.entry((&ledger.channel, ledger.height)).or_default().entry(hash).or_default() += 1;
                }
                None => drop(without.insert(&ledger.channel)),
            }
        }
    }
    for ((channel, height), hashes) in known {
        match hashes.iter().next() {
            Some((hash, count)) if hashes.len() == 1 => out.proven.push(format!(
                "{channel}: commit hash {} at height {height}, on {count} {}",
                hash.chars().take(16).collect::<String>(),
                if *count == 1 { "peer" } else { "peers" }
            )),
            _ => out.problems.push(format!("{channel}: peers at height {height} have different commit hashes")),
        }
    }
    if !without.is_empty() {
        let channels: Vec<&str> = without.into_iter().collect();
        out.not_proven
            .push(format!("that the states of peers are equal on {}: some have no commit hash", channels.join(", ")));
    }
    out
}

/// What the recovery point shows of nodes that would start and not do their work: a restore only warns of it, or leaves it to the capture.
pub(super) fn point(captured: &[&NodeFacts], now: jiff::Timestamp) -> DrillFindings {
    let mut out = DrillFindings::default();
    let mut tips: BTreeMap<(&str, u64), (&NodeId, &String)> = BTreeMap::new();
    for facts in captured {
        let own = facts.keys.iter().filter(|key| key.purpose != KeyPurpose::Trusted);
        for (key, certificate) in own.filter_map(|key| Some((key, key.certificate.as_ref()?))) {
            if certificate.not_after < now.as_second() {
                out.problems.push(format!(
                    "{} {} {}: the {} certificate of {} has expired",
                    Rule::Certificates,
                    facts.id,
                    key.path,
                    key.purpose,
                    certificate.common_name
                ));
            }
        }
        for ledger in &facts.ledgers {
            let at = (ledger.channel.as_str(), ledger.height);
            match tips.get(&at) {
                Some((other, hash)) if **hash != ledger.tip_hash => out.problems.push(format!(
                    "{} {}: the last block of {} and of {other} at height {} differ: the chain has forked",
                    Rule::OneChain,
                    ledger.channel,
                    facts.id,
                    ledger.height
                )),
                Some(_) => {}
                None => drop(tips.insert(at, (&facts.id, &ledger.tip_hash))),
            }
            for missing in &ledger.missing_private {
                let Some(held) = missing.held_elsewhere.filter(|held| *held < missing.transactions) else { continue };
                out.problems.push(format!(
                    "{} {} {}: private data of {} is lost for {} transactions in blocks {} to {}",
                    Rule::PrivateData,
                    facts.id,
                    ledger.channel,
                    missing.collection,
                    missing.transactions - held,
                    missing.first_block,
                    missing.last_block
                ));
            }
        }
    }
    out
}

impl DrillFindings {
    pub fn add(&mut self, more: DrillFindings) {
        self.proven.extend(more.proven);
        self.not_proven.extend(more.not_proven);
        self.problems.extend(more.problems);
        self.findings.extend(more.findings);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(node: &str, role: &str, height: u64) -> NodeFacts {
        let ledger = json!({"channel": "ch", "first_block": 0, "height": height, "tip_hash": "aa", "commit_hash": "bb",
            "torn_bytes": 0, "index_height": null, "state_height": null, "private_height": null, "raft_index": null});
        let facts = json!({"id": {"organization": "org", "node": node}, "role": role, "msp_id": null, "running": false,
            "ledgers": [ledger], "raft": [], "keys": [], "ca": null});
        serde_json::from_value(facts).unwrap()
    }

    fn observed(facts: &NodeFacts, height: Option<u64>, leads: Option<bool>) -> Observation {
        let mut out = Observation::new(facts.id.clone(), facts.role, true);
        let answer = out.channels.entry("ch".to_owned()).or_default();
        answer.leads = leads;
        let source = fabkeep_network::HeightSource::Metrics;
        let reading = |height| fabkeep_network::Reading { source, height, asked_ms: 0, answered_ms: 0 };
        answer.readings.extend(height.map(reading));
        out
    }

    #[test]
    fn a_chain_that_is_lower_or_silent_or_without_leader_is_no_proof() {
        let (peer, orderer) = (facts("peer0", "peer", 10), facts("orderer1", "orderer", 10));
        let all = [&peer, &orderer];
        let good = nodes(&all, &[observed(&peer, Some(10), None), observed(&orderer, Some(11), Some(true))]);
        assert_eq!((good.problems.len(), good.proven.len(), good.not_proven.len()), (0, 2, 0), "{good:?}");
        let low = nodes(&all, &[observed(&peer, Some(9), None), observed(&orderer, Some(10), Some(false))]);
        assert!(low.problems[0].contains("its height is 9, 10 was captured"), "{low:?}");
        assert!(low.problems[1].contains("ch has no leader"), "{low:?}");
        let silent = nodes(&all, &[observed(&peer, None, None), observed(&orderer, None, None)]);
        assert_eq!((silent.problems.len(), silent.proven.len(), silent.not_proven.len()), (0, 0, 2), "{silent:?}");
        assert_eq!(nodes(&all, &[]).problems.len(), 2);
    }

    #[test]
    fn what_the_point_itself_shows_is_a_problem() {
        let (one, mut other) = (facts("peer0", "peer", 10), facts("peer1", "peer", 10));
        assert_eq!(commit_hashes(&[&one, &other]).proven, ["ch: commit hash bb at height 10, on 2 peers"]);
        assert_eq!(point(&[&one, &other], jiff::Timestamp::now()), DrillFindings::default());
        other.ledgers[0].commit_hash = Some("cc".to_owned());
        assert_eq!(commit_hashes(&[&one, &other]).problems.len(), 1);
        other.ledgers[0].tip_hash = "dd".to_owned();
        assert!(point(&[&one, &other], jiff::Timestamp::now()).problems[0].contains("the chain has forked"));
        other.ledgers[0].commit_hash = None;
        assert_eq!(commit_hashes(&[&one, &other]).not_proven.len(), 1);
    }
}
