//! Long random histories against a model: backups of two machines, forget, prune, marks, copies, damage, kills at any write, steps of one in
//! the middle of another. Time is a number.
//!
//! `FABKEEP_MODEL_HISTORIES` says how many, `FABKEEP_MODEL_SEED` where they begin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod shared;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn no_history_loses_a_point_that_was_not_forgotten_or_lists_one_that_was() {
    let (first, count) = (number("FABKEEP_MODEL_SEED", 1), number("FABKEEP_MODEL_HISTORIES", 200));
    println!("histories {first} to {}", first + count - 1);
    let next = AtomicU64::new(first);
    let told: parking_lot::Mutex<std::collections::BTreeMap<&str, u64>> = parking_lot::Mutex::default();
    std::thread::scope(|scope| {
        let run = || {
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= first + count {
                    return;
                }
                let done = std::panic::catch_unwind(|| {
                    let mut world = World::new(seed);
                    world.live();
                    world.counts
                });
                match done {
                    Ok(counts) => {
                        let mut told = told.lock();
                        counts.into_iter().for_each(|(what, times)| *told.entry(what).or_default() += times);
                    }
                    Err(panic) => {
                        println!("history {seed} failed");
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        };
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(run);
        }
    });
    let told = told.into_inner();
    println!("{told:?}");
    // A model in which nothing happens proves nothing.
    if count >= 200 {
        for what in [
            "committed",
            "forgotten",
            "objects freed",
            "stopped",
            "freed meanwhile",
            "packed anew",
            "held",
            "damaged",
            "copied",
        ] {
            assert!(told.get(what).is_some_and(|times| *times > 10), "{what}: {told:?}");
        }
    }
}

#[test]
fn a_history_is_the_same_each_time() {
    for seed in 1..8 {
        let stories: Vec<String> = (0..2)
            .map(|_| {
                let mut world = World::new(seed);
                world.live();
                world.story()
            })
            .collect();
        assert!(stories[0].lines().count() > 20);
        for (first, second) in stories[0].lines().zip(stories[1].lines()) {
            assert_eq!(first, second, "history {seed}");
        }
        assert_eq!(stories[0].len(), stories[1].len());
    }
}
