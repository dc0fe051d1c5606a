//! Random heights of a network with private data, configuration updates and two channels.

use std::time::{Duration, Instant};

use super::network::{Consensus, Network};

/// How many heights: 2 unless the environment says otherwise.
const COUNT: &str = "FABKEEP_HEIGHTS";
/// What they are chosen by: printed, and another one each time, unless the environment names it.
pub const SEED: &str = "FABKEEP_SEED";
/// Blocks that a channel has when its chaincode is committed: genesis, two approvals, the commit.
const WITH_CHAINCODE: u64 = 4;
/// No peer waits longer than this for what it lacks.
const NO_WAIT: Duration = Duration::from_secs(5);

pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Numbers in a row that looks random.
pub struct Random(pub u64);

impl Random {
    pub fn within(&mut self, range: std::ops::RangeInclusive<u64>) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        range.start() + (self.0 >> 33) % (range.end() - range.start() + 1)
    }
}

/// A copy of each height starts at it, and takes transactions on both channels without a fork and without a wait.
#[test]
fn copies_of_random_heights_start_and_go_on() {
    let count = number(COUNT).unwrap_or(2);
    let scenario =
        "random heights of two channels with private data and configuration updates, each restored to a copy";
    let Some(network) = Network::start("2.5", Consensus::Raft, "heights", scenario) else { return };
    for round in 1..=3 {
        network.transactions(&format!("round {round}"), 40);
        for channel in network.channels() {
            let set = format!(".channel_group.groups.Orderer.values.BatchSize.value.max_message_count = {}", 5 + round);
            network.net("update", &[channel, &set]);
        }
    }
    network.transactions("last", 40);
    network.backup(&["--quiesce", "wait"]);
    network.kill(&[]);
    let heights: Vec<u64> = network.channels().iter().map(|channel| network.captured_height(channel) as u64).collect();
    let seed = number(SEED).unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("heights up to {heights:?}, seed {seed}: set {SEED} to try the same again");
    let mut random = Random(seed);
    for turn in 1..=count {
        let wanted: Vec<String> = network
            .channels()
            .iter()
            .zip(&heights)
            .map(|(channel, height)| format!("{channel}={}", random.within(WITH_CHAINCODE..=*height)))
            .collect();
        let options: Vec<&str> = wanted.iter().flat_map(|height| ["--at-height", height]).collect();
        let begun = Instant::now();
        let copy = network.copy("copy", &options);
        let restored = begun.elapsed();
        copy.net("up", &[]);
        // Every node is there at once: nothing is fetched from others.
        for height in &wanted {
            let (channel, height) = height.split_once('=').unwrap();
            let told = copy.net("heights", &[channel]);
            let all = told.split_whitespace().filter(|word| word.ends_with(&format!("={height}"))).count();
            assert_eq!(all, 7, "{wanted:?}: {told}");
        }
        let mut waits = Vec::new();
        for channel in network.channels() {
            waits.push(copy.transactions(channel, 50));
            // What a peer waits for keeps it behind the others.
            let level = Instant::now();
            copy.net("level", &[channel, "60"]);
            assert!(level.elapsed() < NO_WAIT, "{wanted:?}: level after {:?}", level.elapsed());
        }
        copy.net("check", &["10"]);
        eprintln!(
            "{turn} of {count}: {} restored in {restored:.1?}, first transactions after {waits:.1?}",
            wanted.join(" ")
        );
    }
}
