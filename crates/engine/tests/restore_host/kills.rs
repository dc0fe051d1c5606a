//! A restore that is killed before any of its changes, and the same command again: it ends right, and what was there is set aside once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fabkeep_engine::{Event, Reporter, Silent};

use super::place::{Place, named, remove_asides, tree};

/// Ends the run before its change of this number, and lets none be made after it, as a kill does.
pub struct KillBefore {
    number: usize,
    seen: AtomicUsize,
    dead: AtomicBool,
    changes: Mutex<Vec<&'static str>>,
}

impl KillBefore {
    pub fn new(number: usize) -> Self {
        KillBefore { number, seen: AtomicUsize::new(0), dead: AtomicBool::new(false), changes: Mutex::default() }
    }

    /// Never: counts the changes.
    pub fn never() -> Self {
        KillBefore::new(usize::MAX)
    }

    pub fn changes(&self) -> Vec<&'static str> {
        self.changes.lock().unwrap().clone()
    }
}

impl Reporter for KillBefore {
    fn event(&self, _: Event<'_>) {}

    fn changing(&self, what: &'static str, _: &Path) {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        if number >= self.number || self.dead.load(Ordering::SeqCst) {
            self.dead.store(true, Ordering::SeqCst);
            // Unlike a panic this prints nothing.
            std::panic::resume_unwind(Box::new("killed"));
        }
        self.changes.lock().unwrap().push(what);
    }
}

/// Runs the restore until it is killed; whether it was.
pub fn killed(place: &Place, number: usize) -> bool {
    let reporter = KillBefore::new(number);
    let ended = catch_unwind(AssertUnwindSafe(|| place.restore(&place.options(), &reporter)));
    match ended {
        Err(_) => true,
        Ok(result) => {
            result.unwrap();
            false
        }
    }
}

/// A generator of numbers from a seed (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.max(1))
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// Puts a mark into a directory, kills its restore once or twice, and lets the same command end it.
pub fn kill_and_finish(place: &Place, folder: &str, numbers: &[usize]) {
    let root = place.path(folder);
    let mark = root.join("MARK");
    std::fs::write(&mark, b"was there").unwrap();
    for &number in numbers {
        if !killed(place, number) {
            break;
        }
    }
    let restored = place.restore(&place.options(), &Silent).unwrap_or_else(|error| panic!("{numbers:?}: {error}"));
    assert!(!restored.proven.is_empty(), "{numbers:?}");
    if mark.exists() {
        // The run before was not killed: it was done, and this one found all as it was captured.
        panic!("{numbers:?}: the mark is still in its place");
    }
    let marks = named(&place.bench.network(), "MARK");
    assert_eq!(marks.len(), 1, "{numbers:?}: {marks:?}");
    let left = named(&place.bench.network(), "fabkeep-restore-");
    assert!(left.is_empty(), "{numbers:?}: {left:?}");
    for marked in marks {
        std::fs::remove_file(marked).unwrap();
    }
    remove_asides(&place.bench.network());
}

#[test]
fn killed_before_every_change_the_same_command_ends_right() {
    let place = Place::new(&["Org1/ca"]);
    let before = tree(&place.path("Org1/ca"));
    std::fs::write(place.path("Org1/ca/MARK"), b"").unwrap();
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    let steps = counted.changes().len();
    assert!(steps > 30, "{steps}");
    remove_asides(&place.bench.network());
    for number in 0..steps {
        kill_and_finish(&place, "Org1/ca", &[number]);
        assert_eq!(tree(&place.path("Org1/ca")), before, "killed before change {number}");
    }
}

#[test]
fn killed_at_random_two_hundred_times_the_same_command_ends_right() {
    let place = Place::new(&["Org1/ca"]);
    let before = tree(&place.path("Org1/ca"));
    std::fs::write(place.path("Org1/ca/MARK"), b"").unwrap();
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    remove_asides(&place.bench.network());
    let steps = counted.changes().len();
    let seed = std::env::var("FABKEEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_101);
    println!("seed {seed} (FABKEEP_SEED), {steps} changes");
    let mut random = Random::new(seed);
    let mut kills = 0;
    while kills < 200 {
        let numbers: Vec<usize> = (0..=1 + random.below(4)).map(|_| random.below(steps)).collect();
        kills += numbers.len();
        kill_and_finish(&place, "Org1/ca", &numbers);
        assert_eq!(tree(&place.path("Org1/ca")), before, "killed before the changes {numbers:?}");
    }
}

#[test]
fn a_peer_killed_while_it_is_written_and_switched_ends_right_and_damage_in_between_is_written_again() {
    let place = Place::new(&["Org1/peer0"]);
    std::fs::write(place.path("Org1/peer0/production/MARK"), b"").unwrap();
    let counted = KillBefore::never();
    place.restore(&place.options(), &counted).unwrap();
    let good = tree(&place.path("Org1/peer0/production"));
    remove_asides(&place.bench.network());
    let steps = counted.changes().len();
    let switches: Vec<usize> =
        counted.changes().iter().enumerate().filter(|(_, what)| **what == "rename").map(|(at, _)| at).collect();
    let mut numbers = switches.clone();
    numbers.extend(switches.iter().map(|at| at + 1));
    let mut random = Random::new(7);
    numbers.extend((0..6).map(|_| random.below(steps)));
    for number in numbers {
        kill_and_finish(&place, "Org1/peer0/production", &[number]);
        assert_eq!(tree(&place.path("Org1/peer0/production")), good, "killed before change {number}");
    }

    // What an earlier run wrote is not believed: it is read.
    std::fs::write(place.path("Org1/peer0/production/MARK"), b"").unwrap();
    assert!(killed(&place, switches[0]));
    let staged = named(&place.path("Org1/peer0"), "blockfile_000000");
    let staged: Vec<_> = staged.iter().filter(|path| path.to_str().unwrap().contains("fabkeep-restore-")).collect();
    for path in &staged {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    assert!(!staged.is_empty());
    place.restore(&place.options(), &Silent).unwrap();
    assert_eq!(tree(&place.path("Org1/peer0/production")), good);
}
