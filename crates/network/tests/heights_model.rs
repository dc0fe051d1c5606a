//! A model of a network whose heights are asked for: nothing is found in a thousand clean runs, and every fault that is put in is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::{HeightSource, NodeId, Observation, Reading, Rule, contradictions, grown, standings, unanswered};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CHANNELS: [&str; 2] = ["mychannel", "settlement"];

/// A node: when each block of each channel was on its disk, and when it said so.
struct Node {
    id: NodeId,
    role: NodeRole,
    /// By channel: moments at which blocks were written, and at which the metrics reported them.
    written: Vec<Vec<i64>>,
    reported: Vec<Vec<i64>>,
}

impl Node {
    fn files(&self, channel: usize, at: i64) -> u64 {
        self.written[channel].iter().filter(|&&moment| moment <= at).count() as u64
    }

    fn metrics(&self, channel: usize, at: i64) -> u64 {
        self.reported[channel].iter().filter(|&&moment| moment <= at).count() as u64
    }
}

/// Orderers write first; peers follow after a while; metrics are reported after the write. Transactions stop at `quiet`.
fn network(random: &mut StdRng, quiet: i64) -> Vec<Node> {
    let orders: Vec<Vec<i64>> = CHANNELS
        .iter()
        .map(|_| {
            let mut at = 0;
            let mut out = Vec::new();
            while out.len() < 400 {
                at += random.random_range(1..60);
                if at > quiet {
                    break;
                }
                out.push(at);
            }
            out
        })
        .collect();
    let mut nodes = Vec::new();
    for number in 0..7 {
        let role = if number < 3 { NodeRole::Orderer } else { NodeRole::Peer };
        let organization = if number < 3 { "OrdererOrg".to_owned() } else { format!("Org{}", (number - 1) / 2) };
        let id = NodeId { organization, node: format!("node{number}") };
        let slow = random.random_range(1..400);
        let delayed = |times: &[i64], by: i64, random: &mut StdRng| {
            let mut last = 0;
            times
                .iter()
                .map(|time| {
                    last = last.max(time + random.random_range(0..by.max(1)));
                    last
                })
                .collect::<Vec<i64>>()
        };
        let written: Vec<Vec<i64>> = orders.iter().map(|times| delayed(times, slow, random)).collect();
        let reported = written.iter().map(|times| delayed(times, 50, random)).collect();
        nodes.push(Node { id, role, written, reported });
    }
    nodes
}

/// Asks a node as fabkeep does: its metrics, then its block files. `lie` is added to what the metrics say.
fn ask(node: &Node, from: i64, random: &mut StdRng, lie: u64) -> Observation {
    let mut out = Observation::new(node.id.clone(), node.role, true);
    for (number, channel) in CHANNELS.iter().enumerate() {
        let mut asked_ms = from + random.random_range(0..20);
        for source in [HeightSource::Metrics, HeightSource::BlockFiles] {
            let answered_ms = asked_ms + random.random_range(0..30);
            // The truth is of some moment between question and answer.
            let moment = random.random_range(asked_ms..=answered_ms);
            let height = match source {
                HeightSource::BlockFiles => node.files(number, moment),
                _ => node.metrics(number, moment) + lie,
            };
            out.add(channel, Reading { source, height, asked_ms, answered_ms });
            asked_ms = answered_ms + random.random_range(0..10);
        }
    }
    out
}

#[test]
fn a_thousand_clean_runs_raise_no_alarm() {
    for seed in 0..1_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let quiet = 5_000;
        let nodes = network(&mut random, quiet);
        // While transactions flow: lags, never contradictions.
        for at in [100, 2_000, 4_900] {
            for node in &nodes {
                let observation = ask(node, at, &mut random, 0);
                assert!(contradictions(&observation).is_empty(), "seed {seed}: {:?}", contradictions(&observation));
                assert!(unanswered(&observation).is_none());
            }
        }
        // Behind the last transaction everybody becomes level and stays it.
        let level = |at: i64, random: &mut StdRng| {
            let observed: Vec<Observation> = nodes.iter().map(|node| ask(node, at, random, 0)).collect();
            standings(&observed, &BTreeMap::new())
        };
        let before = level(quiet + 1_000, &mut random);
        assert!(before.iter().all(|standing| standing.laggards().next().is_none()), "seed {seed}: {before:?}");
        let after = level(quiet + 2_000, &mut random);
        assert!(grown(&before, &after).is_empty(), "seed {seed}");
    }
}

#[test]
fn every_liar_every_silent_node_every_laggard_and_every_growth_is_named() {
    for seed in 0..1_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let quiet = 5_000;
        let mut nodes = network(&mut random, quiet);
        let at = quiet + 1_000;
        let victim = random.random_range(0..nodes.len());
        let name = nodes[victim].id.to_string();
        // Metrics three blocks above the files.
        let found = contradictions(&ask(&nodes[victim], at, &mut random, 3));
        assert_eq!(found.len(), CHANNELS.len(), "seed {seed}");
        assert!(found.iter().all(|finding| finding.rule == Rule::HeightsAgree && finding.subject.starts_with(&name)));
        // No answer at all.
        let silent = Observation::new(nodes[victim].id.clone(), nodes[victim].role, true);
        assert_eq!(unanswered(&silent).unwrap().subject, name);
        let mut observed: Vec<Observation> = nodes.iter().map(|node| ask(node, at, &mut random, 0)).collect();
        observed[victim] = silent;
        let members = BTreeMap::from([(nodes[victim].id.clone(), vec!["mychannel".to_owned()])]);
        let lag: Vec<String> = standings(&observed, &members)
            .iter()
            .flat_map(|standing| {
                standing.laggards().map(|(node, height, _)| format!("{node} {height:?}")).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(lag, [format!("{name} None")], "seed {seed}: a node that does not answer is not at height zero");
        // A node that has stopped committing.
        let before: Vec<Observation> = nodes.iter().map(|node| ask(node, at, &mut random, 0)).collect();
        let cut = nodes[victim].written[0].len() - 2;
        nodes[victim].written[0].truncate(cut);
        nodes[victim].reported[0].truncate(cut);
        let after: Vec<Observation> = nodes.iter().map(|node| ask(node, at, &mut random, 0)).collect();
        let behind = standings(&after, &BTreeMap::new());
        let named: Vec<(String, u64)> = behind[0].laggards().map(|(node, _, lag)| (node.to_string(), lag)).collect();
        assert_eq!(named, [(name.clone(), 2)], "seed {seed}");
        // A block inside the window.
        let grew = grown(&behind, &standings(&before, &BTreeMap::new()));
        assert_eq!((grew.len(), grew[0].node.to_string(), grew[0].to - grew[0].from), (1, name, 2), "seed {seed}");
    }
}
