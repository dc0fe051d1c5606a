//! A place, a copy of it, two machines that back up, one that prunes, and what must be true of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fabkeep_store::{
    BlobId, Chance, Clock, Commit, IdentityFile, KeepRules, MarkChange, PointId, PointSummary, PointWriter,
    PruneOptions, Repository, Signer, Sources, StoreError, WriterKey, check_objects, copy_in,
};
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::shared::{Place, Way};

mod checks;

const GRACE_HOURS: i64 = 72;
const MACHINES: usize = 2;
/// Blobs that there are at all.
const UNIVERSE: u32 = 40;

/// Bytes of a pack: small, so that a history takes milliseconds.
const PACK_BYTES: usize = 16 << 10;

/// What a blob contains: every fifth lies in an object of its own.
fn bytes(blob: u32) -> Vec<u8> {
    let len = if blob.is_multiple_of(5) { PACK_BYTES / 8 } else { 200 + (blob as usize * 37) % 700 };
    let mut bytes = vec![blob as u8; len];
    bytes[..4].copy_from_slice(&blob.to_le_bytes());
    bytes
}

/// A backup that runs.
struct Run<'a> {
    writer: PointWriter<'a>,
    wanted: Vec<u32>,
    put: Vec<BlobId>,
}

/// One of the two places.
struct Side {
    place: Arc<Place>,
    way: Arc<Way>,
    repository: Arc<Repository>,
    /// Recovery points that are committed and not forgotten, with their content.
    points: BTreeMap<PointId, Vec<u32>>,
    forgotten: BTreeSet<PointId>,
    /// Points that damage has broken.
    broken: BTreeSet<PointId>,
    damaged: bool,
    /// Points that could not be copied are missed by those behind them.
    gaps: bool,
    /// Objects that the source of a copy had lost, and those that it had in their place.
    healed: BTreeMap<String, BTreeSet<String>>,
    /// Points that this place knows to be on hold.
    held: BTreeSet<PointId>,
}

pub struct World {
    seed: u64,
    rng: StdRng,
    chance: Chance,
    _folder: TempDir,
    clocks: Vec<Clock>,
    identity: Arc<IdentityFile>,
    keys: Vec<WriterKey>,
    ways: Vec<Arc<Way>>,
    machines: Vec<Repository>,
    sides: Vec<Side>,
    content: Vec<Vec<u32>>,
    contents: BTreeMap<PointId, Vec<u32>>,
    copied: bool,
    log: RefCell<Vec<String>>,
    pub counts: BTreeMap<&'static str, u64>,
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn summary(network: usize) -> PointSummary {
    PointSummary {
        network: format!("n{network}"),
        verdict: "complete".into(),
        nodes: 1,
        channels: vec![],
        source_bytes: 1,
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        // The stores', the machines' and the pruner's clocks: they differ by at most a quarter of the grace time.
        let clock = |rng: &mut StdRng| {
            let skew = rng.random_range(-GRACE_HOURS * 60 / 8..=GRACE_HOURS * 60 / 8);
            Clock::standing_at(begin + SignedDuration::from_mins(skew))
        };
        let clocks: Vec<Clock> = (0..MACHINES + 2).map(|_| clock(&mut rng)).collect();
        let (stores, pruners) = (&clocks[MACHINES], &clocks[MACHINES + 1]);
        let (first, second) = (Place::new(stores), Place::new(stores));
        let path = |name: &str| folder.path().join(name);
        let init = Way::to(&first, vec![]);
        let chance = Chance::seeded(seed);
        Repository::init_repeatable(init.clone(), &path("identity"), &path("w0"), &chance).unwrap();
        let identity = Arc::new(IdentityFile::read(&path("identity")).unwrap());
        let made = Repository::open_in(init).unwrap().repeatable(&chance, PACK_BYTES);
        made.add_writer(&identity, &path("w1")).unwrap();
        let keys: Vec<WriterKey> = (0..MACHINES).map(|at| WriterKey::read(&path(&format!("w{at}"))).unwrap()).collect();
        copy_in(&made, Way::to(&second, vec![]), &[], 1, &AtomicU64::new(0)).unwrap();
        let ways: Vec<Arc<Way>> = (0..MACHINES).map(|_| Way::to(&first, clocks.clone())).collect();
        let open = |way: &Arc<Way>, clock: &Clock| {
            Repository::open_in(way.clone()).unwrap().with_clock(clock).repeatable(&chance, PACK_BYTES)
        };
        let machines = ways.iter().zip(&clocks).map(|(way, clock)| open(way, clock)).collect();
        let sides = [first, second]
            .into_iter()
            .map(|place| {
                let way = Way::to(&place, clocks.clone());
                let repository = Arc::new(open(&way, pruners));
                Side {
                    place,
                    way,
                    repository,
                    points: BTreeMap::new(),
                    forgotten: BTreeSet::new(),
                    broken: BTreeSet::new(),
                    damaged: false,
                    gaps: false,
                    healed: BTreeMap::new(),
                    held: BTreeSet::new(),
                }
            })
            .collect();
        let content = (0..MACHINES).map(|_| (0..6).map(|_| rng.random_range(0..UNIVERSE)).collect()).collect();
        World {
            seed,
            rng,
            chance,
            _folder: folder,
            clocks,
            identity,
            keys,
            ways,
            machines,
            sides,
            content,
            contents: BTreeMap::new(),
            copied: false,
            log: RefCell::default(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    fn note(&self, what: impl Into<String>) {
        self.log.borrow_mut().push(what.into());
    }

    /// Returns what happened, without numbers of bytes: what is sealed is padded at random.
    pub fn story(&self) -> String {
        let log = self.log.borrow().join("\n");
        let mut parts = log.split("bytes: ");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |story, part| story + part.trim_start_matches(|letter: char| letter.is_ascii_digit()))
    }

    /// A whole history.
    pub fn live(&mut self) {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.live_on()));
        if let Err(panic) = done {
            eprintln!("history {}:\n  {}", self.seed, self.log.borrow().join("\n  "));
            std::panic::resume_unwind(panic);
        }
    }

    fn live_on(&mut self) {
        // The runs borrow the machines; everything else is changed beside them.
        let machines = std::mem::take(&mut self.machines);
        let mut runs: Vec<Option<Run<'_>>> = (0..MACHINES).map(|_| None).collect();
        let steps = self.rng.random_range(30..70);
        let with_damage = self.rng.random_bool(0.25);
        for _ in 0..steps {
            match self.rng.random_range(0..100) {
                0..43 => {
                    let at = self.rng.random_range(0..MACHINES);
                    self.step(at, &machines, &mut runs);
                }
                43..56 => self.go_on(),
                56..66 => self.forget(),
                66..82 => self.prune(&machines, &mut runs),
                82..88 => self.mark(),
                88..93 => self.copy(),
                93..95 => self.late_commits(&machines, &mut runs),
                95..97 => drop(runs[self.rng.random_range(0..MACHINES)].take()),
                _ if with_damage => self.damage(),
                _ => self.heal(),
            }
            self.check_lists();
        }
        runs.clear();
        self.end();
        self.machines = machines;
    }

    /// Runs that begin before a record, and build on what it names, want to commit while that is freed.
    fn late_commits<'a>(&mut self, machines: &'a [Repository], runs: &mut [Option<Run<'a>>]) {
        self.go_on_by(hours(GRACE_HOURS + 20));
        for at in 0..MACHINES {
            runs[at] = None;
            self.step(at, machines, runs);
        }
        self.forget();
        self.forget();
        self.prune(machines, runs);
        for at in 0..MACHINES {
            while runs[at].as_ref().is_some_and(|run| run.put.len() < run.wanted.len()) {
                self.step(at, machines, runs);
            }
        }
        self.go_on_by(hours(GRACE_HOURS + 20));
        self.prune(machines, runs);
    }

    fn go_on(&mut self) {
        let minutes = *[5, 60, 600, 24 * 60, 30 * 60, 80 * 60].get(self.rng.random_range(0..6)).unwrap();
        self.go_on_by(SignedDuration::from_mins(minutes));
    }

    fn go_on_by(&self, time: SignedDuration) {
        self.note(format!("time goes on by {time:?}"));
        self.clocks.iter().for_each(|clock| clock.set(clock.now() + time));
    }

    /// The next step of a machine's backup.
    fn step<'a>(&mut self, at: usize, machines: &'a [Repository], runs: &mut [Option<Run<'a>>]) {
        let Some(mut run) = runs[at].take() else {
            if self.rng.random_bool(0.25) && !self.contents.is_empty() {
                // What was captured long ago, and may be forgotten, comes back.
                let before = self.rng.random_range(0..self.contents.len());
                self.content[at] = self.contents.values().nth(before).unwrap()[..6].to_vec();
            } else {
                let place = self.rng.random_range(0..6);
                self.content[at][place] = self.rng.random_range(0..UNIVERSE);
            }
            let mut wanted = self.content[at].clone();
            if self.rng.random_bool(0.03) {
                // Enough objects of their own for a checkpoint.
                wanted.extend((200..235).map(|blob| blob * 5));
            }
            match machines[at].writer(self.keys[at].clone()) {
                Ok(writer) => {
                    self.note(format!("machine {at} begins {} with {wanted:?}", writer.id()));
                    runs[at] = Some(Run { writer, wanted, put: Vec::new() });
                }
                Err(error) => panic!("a backup does not begin: {error}"),
            }
            return;
        };
        let stop = self.rng.random_bool(0.1);
        if stop {
            self.ways[at].stop_after(self.rng.random_range(0..5), self.rng.random_bool(0.5));
        }
        if run.put.len() < run.wanted.len() {
            let until = if self.rng.random_bool(0.5) { run.wanted.len() } else { run.put.len() + 2 };
            while run.put.len() < until.min(run.wanted.len()) {
                match run.writer.put_alone(bytes(run.wanted[run.put.len()])) {
                    Ok(id) => run.put.push(id),
                    Err(error) => {
                        assert!(stop, "{error}");
                        self.note(format!("machine {at} is stopped: {error}"));
                        self.count("stopped", 1);
                        self.ways[at].run_on();
                        return;
                    }
                }
            }
            self.ways[at].run_on();
            runs[at] = Some(run);
            return;
        }
        if self.rng.random_bool(0.2) {
            let pause = self.rng.random_range(0..GRACE_HOURS as u64 * 3_600_000 / 5);
            self.ways[at].pause.store(pause, Ordering::SeqCst);
        }
        let network = if at == 1 && self.seed.is_multiple_of(3) { 1 } else { 0 };
        let id = run.writer.id().clone();
        let result = run.writer.commit(&run.put, summary(network), Sources::new());
        self.ways[at].run_on();
        self.ways[at].pause.store(0, Ordering::SeqCst);
        let put = self.sides[0].place.names().contains(&format!("points/{id}"));
        match result {
            Ok((commit, _)) => assert!(put && commit.id == id),
            Err(StoreError::FreedMeanwhile { committed, .. }) => {
                assert!(!committed && !put, "nothing was paused for as long as that");
                self.count("freed meanwhile", 1);
                self.note(format!("machine {at}: {id} builds on what is freed"));
            }
            Err(error) => {
                assert!(stop, "{error}");
                self.count("stopped", 1);
                self.note(format!("machine {at} is stopped at its commit: {error}"));
            }
        }
        if put {
            self.note(format!("machine {at} has committed {id}"));
            self.count("committed", 1);
            self.contents.insert(id.clone(), run.wanted.clone());
            self.sides[0].points.insert(id.clone(), run.wanted);
            let error = self.restore(0, &id).err();
            if let Some(error) = error {
                assert!(self.sides[0].damaged, "{id} cannot be restored: {error}");
                self.sides[0].broken.insert(id);
            }
            if self.sides[0].damaged {
                // It may build on what is damaged and belonged to no point.
                self.verify();
            }
        }
    }

    fn some_point(&mut self, side: usize) -> Option<PointId> {
        let points = &self.sides[side].points;
        if points.is_empty() {
            return None;
        }
        points.keys().nth(self.rng.random_range(0..points.len())).cloned()
    }

    fn some_side(&mut self) -> usize {
        usize::from(self.copied && self.rng.random_bool(0.3))
    }

    fn forget(&mut self) {
        let side = self.some_side();
        let mut rules = KeepRules::default();
        let mut named = Vec::new();
        match self.rng.random_range(0..6) {
            0 | 5 => rules.last = self.rng.random_range(1..4),
            1 => rules.daily = self.rng.random_range(1..4),
            2 => rules.within = Some("2d".parse().unwrap()),
            3 => (rules.weekly, rules.tags) = (2, BTreeSet::from(["t".to_owned()])),
            _ => named.extend(self.some_point(side)),
        }
        if rules.is_empty() && named.is_empty() {
            return;
        }
        let here = &self.sides[side];
        let plan = match here.repository.plan_forget(&rules, &named, None, Some(&self.identity)) {
            Ok(plan) => plan,
            Err(StoreError::CannotForget { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let going = plan.going();
        if self.rng.random_bool(0.15) {
            here.way.stop_after(self.rng.random_range(0..2), self.rng.random_bool(0.5));
        }
        let before = here.place.names();
        let result = here.repository.forget(&going, &self.identity);
        here.way.run_on();
        let new = here.place.names().iter().any(|name| name.starts_with("forgotten/") && !before.contains(name));
        self.note(format!("forget in {side}: {going:?}: {result:?}"));
        if result.is_err() {
            self.count("stopped", 1);
        }
        if new {
            for (point, _) in &going {
                assert!(!self.sides[side].held.contains(point), "{point} is on hold");
                self.sides[side].points.remove(point);
                self.sides[side].broken.remove(point);
                self.sides[side].forgotten.insert(point.clone());
            }
            self.count("forgotten", going.len() as u64);
        }
    }

    fn prune<'a>(&mut self, machines: &'a [Repository], runs: &mut [Option<Run<'a>>]) {
        let side = self.some_side();
        let alone = side == 0 && runs.iter().all(Option::is_none) && self.rng.random_bool(0.2);
        let grace = if alone { SignedDuration::ZERO } else { hours(GRACE_HOURS) };
        let max_unused = [0, 0, 10, 40, 100][self.rng.random_range(0..5)];
        let options = PruneOptions { grace, alone, max_unused, dry_run: self.rng.random_bool(0.1) };
        let whole = self.whole(side);
        let before = self.sides[side].place.names();
        let stop = self.rng.random_bool(0.25);
        if stop {
            let way = &self.sides[side].way;
            way.stop_after(self.rng.random_range(0..12), self.rng.random_bool(0.5));
        }
        let hold = !alone && side == 0 && !options.dry_run && self.rng.random_bool(0.5);
        let (repository, identity) = (Arc::clone(&self.sides[side].repository), Arc::clone(&self.identity));
        let result = if hold {
            let request = self.rng.random_bool(0.6).then(|| self.rng.random_range(0..60));
            let (reached, go_on) = self.sides[side].way.hold_at(request);
            let prune = std::thread::spawn(move || repository.prune(&identity, options));
            while !prune.is_finished() {
                if reached.recv_timeout(Duration::from_millis(1)).is_ok() {
                    self.note("the prune is held");
                    self.count("held", 1);
                    for _ in 0..self.rng.random_range(1..6) {
                        let at = self.rng.random_range(0..MACHINES);
                        self.step(at, machines, runs);
                    }
                    let _ = go_on.send(());
                }
            }
            prune.join().unwrap()
        } else {
            repository.prune(&identity, options)
        };
        self.sides[side].way.run_on();
        self.note(format!("prune in {side}, {options:?}: {result:?}"));
        match result {
            Ok(pruned) => {
                self.count("objects freed", pruned.freed.objects);
                self.count("packed anew", pruned.repacked.objects);
                assert!(stop || pruned.repacked.problem.is_none(), "{:?}", pruned.repacked);
                if !pruned.blocking.is_empty() {
                    assert!(self.sides[side].damaged, "{:?}", pruned.blocking);
                    self.count("blocked", 1);
                }
                if options.dry_run {
                    assert_eq!(before, self.sides[side].place.names(), "a dry run changes nothing");
                }
            }
            Err(error) => {
                assert!(stop, "{error}");
                self.count("stopped", 1);
            }
        }
        self.still(side, &whole);
    }

    /// Points of a damaged place that can be restored now.
    fn whole(&self, side: usize) -> Vec<PointId> {
        let here = &self.sides[side];
        if !here.damaged {
            return Vec::new();
        }
        here.points.keys().filter(|point| self.restore(side, point).is_ok()).cloned().collect()
    }

    fn still(&self, side: usize, whole: &[PointId]) {
        for point in whole.iter().filter(|point| self.sides[side].points.contains_key(point)) {
            if let Err(error) = self.restore(side, point) {
                panic!("{point} could be restored before: {error}");
            }
        }
    }

    fn commit(&self, side: usize, point: &PointId) -> Commit {
        let history = self.sides[side].repository.history().unwrap();
        history.commits.into_iter().find(|commit| commit.id == *point).unwrap()
    }

    /// Restores a point and compares it.
    fn restore(&self, side: usize, point: &PointId) -> Result<(), StoreError> {
        let commit = self.commit(side, point);
        let (ids, reader) = self.sides[side].repository.read_point::<Vec<BlobId>>(&commit, &self.identity)?;
        let wanted = &self.contents[point];
        assert_eq!(ids.len(), wanted.len());
        for (id, blob) in ids.iter().zip(wanted) {
            assert!(*reader.blob(id)? == *bytes(*blob), "{point}: other bytes for blob {blob}");
        }
        Ok(())
    }

    fn mark(&mut self) {
        let Some(point) = self.some_point(0) else { return };
        let mut change = MarkChange::default();
        match self.rng.random_range(0..4) {
            0 => change.hold = Some(true),
            1 => change.hold = Some(false),
            2 => drop(change.add.insert("t".to_owned())),
            _ => drop(change.remove.insert("t".to_owned())),
        }
        let by_writer = self.rng.random_bool(0.5);
        let key = self.keys[0].clone();
        let signer = if by_writer { Signer::Writer(&key) } else { Signer::Identity(&self.identity) };
        let result = self.sides[0].repository.mark(&point, &change, &signer);
        self.note(format!("{change:?} of {point}: {result:?}"));
        match result {
            Ok(mark) if mark.hold => drop(self.sides[0].held.insert(point)),
            Ok(_) => drop(self.sides[0].held.remove(&point)),
            Err(StoreError::Untrusted { .. }) => assert!(by_writer && change.takes_away()),
            Err(error) => panic!("{error}"),
        }
    }

    fn copy(&mut self) {
        let commits = self.sides[0].repository.history().unwrap().commits;
        let stop = self.rng.random_bool(0.2);
        let way = Arc::clone(&self.sides[1].way);
        if stop {
            way.stop_after(self.rng.random_range(0..20), self.rng.random_bool(0.5));
        }
        // What is being freed there may be left out.
        let freeing = self.sides[1].place.names().iter().any(|name| name.starts_with("pruning/"));
        let from = &self.sides[0].repository;
        let result = copy_in(from, way.clone(), &commits, 1, &AtomicU64::new(0));
        way.run_on();
        self.note(format!("copy: {result:?}"));
        self.copied = true;
        let names = self.sides[1].place.names();
        let there = |point: &PointId| names.contains(&format!("points/{point}"));
        match &result {
            Ok(copied) => {
                self.count("copied", copied.points.len() as u64);
                self.sides[1].gaps |= !copied.left.is_empty();
                for fault in &copied.faults {
                    let instead = fault.instead.iter().flatten().cloned();
                    self.sides[1].healed.entry(fault.object.clone()).or_default().extend(instead);
                }
                self.sides[1].held = self.sides[0].held.clone();
                self.count("not copied while it is freed", copied.left.len() as u64);
                assert!(copied.forgotten.iter().all(|point| self.sides[1].forgotten.contains(point)));
                assert!(copied.points.iter().all(there));
            }
            Err(error) => {
                assert!(stop, "{error}");
                self.sides[1].held.clear();
                self.count("stopped", 1);
                // Points are copied in their order: what is not there before one that is was left out.
                let absent = |commit: &&Commit| !there(&commit.id) && !self.sides[1].forgotten.contains(&commit.id);
                let behind = commits.iter().rposition(|commit| there(&commit.id)).unwrap_or(0);
                let left = commits[..behind].iter().find(absent).map(|commit| &commit.id);
                let may_be_left = freeing || self.sides[0].damaged || self.sides[1].gaps;
                assert!(left.is_none() || may_be_left, "{left:?} was not copied");
                self.sides[1].gaps |= left.is_some() || self.sides[0].damaged;
            }
        }
        for commit in commits.iter().filter(|commit| there(&commit.id)) {
            if !self.sides[1].forgotten.contains(&commit.id) {
                let wanted = self.contents[&commit.id].clone();
                self.sides[1].points.insert(commit.id.clone(), wanted);
            }
        }
    }

    /// Something of a recovery point is lost or flipped.
    fn damage(&mut self) {
        let here = &self.sides[0];
        let names: Vec<String> = here
            .place
            .names()
            .into_iter()
            .filter(|name| ["objects/", "manifests/", "index/"].iter().any(|folder| name.starts_with(folder)))
            .collect();
        if names.is_empty() {
            return;
        }
        let name = names[self.rng.random_range(0..names.len())].clone();
        let flip = self.rng.random_bool(0.5);
        if flip {
            here.place.flip(&name)
        } else {
            here.place.remove(&name)
        }
        self.note(format!("damage: {name}, flipped: {flip}"));
        self.sides[0].damaged = true;
        self.count("damaged", 1);
        if flip {
            // What nobody has looked at, nobody knows.
            self.verify();
        }
    }

    fn heal(&mut self) {
        if self.sides[0].damaged {
            self.verify();
        }
    }

    fn verify(&mut self) {
        let repository = &self.sides[0].repository;
        for commit in repository.history().unwrap().commits {
            let checked =
                check_objects(repository, &commit, Some(&self.identity), true, 1, &AtomicU64::new(0)).unwrap();
            let bad: Vec<_> = checked.faults.iter().map(|fault| fault.to_record()).collect();
            repository.record_bad(&bad, &Signer::Identity(&self.identity)).unwrap();
        }
    }
}
