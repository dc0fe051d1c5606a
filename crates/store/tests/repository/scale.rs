//! How long it takes with many recovery points. Not part of the usual run: `cargo test --release -- --ignored many_points --nocapture`, with
//! `FABKEEP_SCALE_POINTS` points.

use std::time::Instant;

use fabkeep_store::{Clock, KeepRules, PruneOptions, Sources, WriterKey};
use jiff::{SignedDuration, Timestamp};

use super::{Place, summary};

#[test]
#[ignore = "it takes minutes"]
fn many_points_are_listed_forgotten_and_pruned() {
    let points: u32 = std::env::var("FABKEEP_SCALE_POINTS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let place = Place::new();
    let begin: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let blob = |number: u32| -> Vec<u8> {
        let mut state = u64::from(number) + 1;
        let byte = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        (0..4000).map(byte).collect()
    };
    let built = Instant::now();
    let clock = Clock::standing_at(begin);
    for point in 0..points {
        clock.set(begin + SignedDuration::from_hours(24 * i64::from(point)));
        let repository = place.open().with_clock(&clock);
        let began = Instant::now();
        let writer = repository.writer(WriterKey::read(&place.writer()).unwrap()).unwrap();
        // Files that stay, files that change, and a chain that grows.
        let numbers = (0..50).chain((0..50).map(|file| 1000 + file + 50 * (point / (1 + file % 20))));
        let numbers: Vec<u32> = numbers.chain((0..=point).map(|block| 1_000_000 + block)).collect();
        let ids: Vec<_> = numbers.into_iter().map(|number| writer.put(&blob(number)).unwrap()).collect();
        writer.commit(&ids, summary(), Sources::new()).unwrap();
        if point + 1 == points {
            println!("the last backup: {:.2?}", began.elapsed());
        }
    }
    println!("{points} points were made in {:.1?}", built.elapsed());
    let timed = |what: &str, begun: Instant| println!("{what}: {:.2?}", begun.elapsed());
    let later = Clock::standing_at(Timestamp::now() + SignedDuration::from_hours(100));
    let repository = place.open().with_clock(&later);
    let begun = Instant::now();
    assert_eq!(repository.history().unwrap().commits.len(), points as usize);
    timed("list", begun);
    let rules = KeepRules { daily: 7, weekly: 4, monthly: 12, last: points / 2, ..KeepRules::default() };
    let begun = Instant::now();
    let plan = repository.plan_forget(&rules, &[], None, None).unwrap();
    timed("forget --dry-run", begun);
    let begun = Instant::now();
    repository.forget(&plan.going(), &place.key()).unwrap();
    timed(&format!("forget {} points", plan.going().len()), begun);
    let before = repository.stats(None).unwrap();
    let options = PruneOptions { grace: SignedDuration::from_hours(72), alone: false, max_unused: 10, dry_run: false };
    let begun = Instant::now();
    let recorded = repository.prune(&place.key(), options).unwrap();
    timed(&format!("prune, first step, {:?}", recorded.recorded), begun);
    later.set(later.now() + SignedDuration::from_hours(100));
    let begun = Instant::now();
    let freed = repository.prune(&place.key(), options).unwrap();
    timed(&format!("prune, second step, {:?}", freed.freed), begun);
    assert_eq!(freed.freed, recorded.recorded);
    let begun = Instant::now();
    let after = repository.stats(None).unwrap();
    timed("stats", begun);
    println!("{:?}\n{:?}", before.kinds, after.kinds);
    // 7 daily, 4 weekly and 12 monthly ones stay.
    let rules = KeepRules { daily: 7, weekly: 4, monthly: 12, ..KeepRules::default() };
    let plan = repository.plan_forget(&rules, &[], None, None).unwrap();
    repository.forget(&plan.going(), &place.key()).unwrap();
    repository.prune(&place.key(), PruneOptions { alone: true, ..options }).unwrap();
    let last = repository.stats(None).unwrap();
    println!("{} points stay: {:?}", last.points.len(), last.kinds);
    let newest = last.points.last().unwrap().bytes.needed.bytes;
    println!("all {} bytes, the newest point {newest} bytes", last.all.bytes);
    let history = repository.history().unwrap();
    let latest = history.latest().unwrap();
    assert_eq!(place.check(latest, true).faults, []);
}
