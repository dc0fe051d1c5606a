//! Real Fabric networks in pods: everything lost, also when the restore is killed; single claims lost; other
//! namespaces; new authorities.

mod authorities;
mod kit;
mod losses;

use std::time::{Duration, Instant};

use super::heights::{Random, SEED, number};
use super::network::Consensus;
use kit::Pods;

/// How many times a restore is killed: 3 unless the environment says otherwise.
const KILLS: &str = "FABKEEP_KILLS";

/// A restore of everything, killed at random moments; then the same command ends right.
fn killed(pods: &Pods, whole: Duration) {
    let _scenario = pods.also("in pods: everything lost, the restore killed at random moments, the same command again");
    let count = number(KILLS).unwrap_or(3);
    let seed = number(SEED).unwrap_or_else(|| u64::from(std::process::id()));
    // The last third of a restore only reads logs.
    let longest = u64::try_from(whole.as_millis()).unwrap() * 2 / 3;
    eprintln!("{count} kills within {longest} ms, seed {seed}: set {SEED} to try the same again");
    let mut random = Random(seed);
    pods.lose(&pods.prefix);
    let mut kills = 0;
    while kills < count {
        let moment = Duration::from_millis(random.within(100..=longest));
        let (was_killed, told) = pods.restore_killed_after(moment, &[]);
        if was_killed {
            kills += 1;
            eprintln!("kill {kills} of {count} after {moment:.1?}: {told}");
        } else {
            eprintln!("done before it was killed after {moment:.1?}");
            pods.check(&pods.prefix);
            pods.lose(&pods.prefix);
        }
    }
    pods.restore(&[]);
    pods.goes_on(&pods.prefix, "after kills");
}

/// A cut under load, everything lost at once, restored; and again from a recovery point of the restored network.
#[test]
fn a_network_in_pods_goes_on_after_losing_everything() {
    let scenario = "in pods: cut under load, everything lost, restored twice";
    let Some(pods) = Pods::start("2.5", Consensus::Raft, "all", scenario) else { return };
    let mut load = pods.load();
    pods.backup(&pods.prefix, &["--consistency", "cut"]);
    assert!(load.is_sent(), "the load ended before the cut");
    pods.lose(&pods.prefix);
    load.ends();
    let begun = Instant::now();
    pods.restore(&[]);
    let whole = begun.elapsed();
    pods.goes_on(&pods.prefix, "second");
    losses::from_snapshots(&pods);
    killed(&pods, whole);
}

/// A window under load, everything lost, restored; and again from a recovery point of the restored network.
#[test]
fn a_smartbft_network_in_pods_goes_on_after_losing_everything() {
    let scenario = "in pods: window under load, everything lost, restored twice";
    let Some(pods) = Pods::start("3.1", Consensus::SmartBft, "bft", scenario) else { return };
    losses::window(&pods);
    for prefix in ["second", "third"] {
        pods.lose(&pods.prefix);
        pods.restore(&[]);
        pods.goes_on(&pods.prefix, prefix);
    }
}

/// A claim of each role is lost while the rest of a network runs.
#[test]
fn nodes_in_pods_that_lose_their_claims_come_back() {
    let scenario = "in pods: one network from loss to loss of single claims";
    let Some(pods) = Pods::start("2.5", Consensus::Raft, "claims", scenario) else { return };
    losses::window(&pods);
    losses::claims(&pods);
    losses::orderer_with_its_raft_log(&pods);
    losses::orderer_that_replicates(&pods);
}

/// Authorities that were deployed anew; a copy beside the network, and the copy moves.
#[test]
fn a_network_in_pods_gets_its_authorities_back_and_moves_twice() {
    let scenario = "in pods: one network with other authorities, and in other namespaces";
    let Some(pods) = Pods::start("2.5", Consensus::Raft, "moves", scenario) else { return };
    pods.backup(&pods.prefix, &[]);
    authorities::replaced(&pods);
    losses::moved(&pods);
}
