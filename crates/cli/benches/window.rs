//! How long a no-transaction window is: the time inside it against a full copy of the same network, in one run.
//!
//! `cargo bench --bench window`; `FABKEEP_BENCH_LEDGER_MIB` sets the size of each of seven nodes' ledgers (256), `FABKEEP_BENCH_NEW_MIB` how
//! much every ledger grows between the bulk copy and the window (10).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fabkeep_engine::{CaptureOptions, Captured, Consistency, Event, Reporter, Silent, WindowOptions, capture};
use fabkeep_fixtures::Growth;
use fabkeep_platform::{Host, Quiesce, discover};
use fabkeep_store::{Repository, WriterKey};

fn size(chain: &Path) -> u64 {
    std::fs::read_dir(chain).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn grow(growth: &mut Growth, chain: &Path, to: u64) {
    while size(chain) < to {
        growth.grow(100, 10).unwrap();
        // As orderers do: the raft log stays short.
        growth.compact().unwrap();
    }
}

/// Lets the network grow once the bulk is copied, before the window opens.
struct GrowsBetween<'a> {
    growth: Mutex<Option<&'a mut Growth>>,
    chain: &'a Path,
    to: u64,
}

impl Reporter for GrowsBetween<'_> {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::End { step: "store files", .. })
            && let Some(growth) = self.growth.lock().unwrap().take()
        {
            grow(growth, self.chain, self.to);
        }
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let (mib, more) =
        if test { (2, 1) } else { (number("FABKEEP_BENCH_LEDGER_MIB", 256), number("FABKEEP_BENCH_NEW_MIB", 10)) };
    let folder = tempfile::tempdir().unwrap();
    let network = folder.path().join("network");
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &network).unwrap();
    let mut growth = Growth::open(&network, "mychannel").unwrap();
    let chain = network.join("OrdererOrg/orderer1/production/chains/mychannel");
    grow(&mut growth, &chain, mib << 20);
    let host = || Host::new(&discover(&network, folder.path()).unwrap().inventory, folder.path()).unwrap();
    let key = folder.path().join("writer");
    let run = |repository: &str, options: &CaptureOptions, reporter: &dyn Reporter| -> Captured {
        let location = folder.path().join(repository).display().to_string();
        if !Path::new(&location).exists() {
            let _ = std::fs::remove_file(&key);
            let identity = folder.path().join(format!("{repository}.identity"));
            Repository::init(&location, Some(&identity), Some(&key), &[]).unwrap();
        }
        let key = WriterKey::read(&key).unwrap();
        capture(&host(), &Repository::open(&location).unwrap(), key, options, reporter).unwrap()
    };
    let begun = Instant::now();
    run("full", &CaptureOptions::default(), &Silent);
    let full = begun.elapsed().as_secs_f64();
    let ledger = size(&chain);
    let window = WindowOptions {
        quiesce: Quiesce::default(),
        deadline: Duration::from_secs(600),
        settle: Some(Duration::ZERO),
        extend: false,
        stay_closed: false,
    };
    let options = CaptureOptions { consistency: Consistency::Window(window), ..CaptureOptions::default() };
    let reporter = GrowsBetween { growth: Mutex::new(Some(&mut growth)), chain: &chain, to: ledger + (more << 20) };
    let captured = run("windowed", &options, &reporter);
    let report = captured.point.window.unwrap();
    println!(
        "7 nodes, ledgers of {} MiB, height {}: full copy {full:.2} s; {} MiB more on every node: window {:.3} s, {:.1} times shorter",
        ledger >> 20,
        captured.commit.summary.channels[0].height,
        (size(&chain) - ledger) >> 20,
        report.seconds,
        full / report.seconds
    );
}
