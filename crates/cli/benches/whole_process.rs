//! Whole processes against each other in one run: `fabkeep verify --chain`, `fabkeep backup`, `fabkeep restore`, restic, tar,
//! ledgerutil and one core's SHA-256.
//!
//! `cargo bench --bench whole_process` prints times, throughputs and ratios. `FABKEEP_BENCH_MIB` sets the ledger's size (1024),
//! `FABKEEP_BENCH_NODE_MIB` that of each of seven nodes' ledgers (128). What is not installed is said to be absent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use fabkeep_fixtures::Growth;

const FABKEEP: &str = env!("CARGO_BIN_EXE_fabkeep");

struct Run {
    name: String,
    seconds: f64,
    max_rss_kib: Option<u64>,
}

/// Runs a command `times` times and keeps the fastest.
fn run(name: &str, times: u32, mut make: impl FnMut() -> Command) -> Option<Run> {
    let mut best: Option<Run> = None;
    for _ in 0..times {
        let inner = make();
        let mut command = Command::new("/usr/bin/time");
        command.args(["-f", "%M"]).arg(inner.get_program()).args(inner.get_args());
        if let Some(folder) = inner.get_current_dir() {
            command.current_dir(folder);
        }
        for (key, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output().ok()?;
        let seconds = begun.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            println!("{name}: failed: {}", said.lines().next().unwrap_or_default());
            return None;
        }
        let max_rss_kib = said.lines().last().and_then(|line| line.trim().parse().ok());
        if best.as_ref().is_none_or(|best| seconds < best.seconds) {
            best = Some(Run { name: name.to_owned(), seconds, max_rss_kib });
        }
    }
    best
}

fn installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("{program}: not installed here, not measured");
    }
    found
}

fn print(run: &Run, mib: f64) {
    let rss = run.max_rss_kib.map_or_else(|| "?".to_owned(), |kib| format!("{} MiB", kib / 1024));
    println!("{:<44} {:>8.3} s {:>9.0} MiB/s  peak {rss}", run.name, run.seconds, mib / run.seconds);
}

fn mib_below(folder: &Path) -> f64 {
    let output = Command::new("du").args(["-sk"]).arg(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Lets the network's channel grow until an orderer's chain has this size.
fn grow(network: &Path, mib: u64) {
    let mut growth = Growth::open(network, "mychannel").unwrap();
    let chain = network.join("OrdererOrg/orderer1/production/chains/mychannel");
    while mib_below(&chain) < mib as f64 {
        growth.grow(200, 10).unwrap();
    }
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let folder = tempfile::tempdir().unwrap();
    let (ledger_mib, node_mib) =
        if test { (4, 2) } else { (env("FABKEEP_BENCH_MIB", 1024), env("FABKEEP_BENCH_NODE_MIB", 128)) };
    let times = if test { 1 } else { 3 };
    if !Path::new("/usr/bin/time").exists() {
        println!("/usr/bin/time (Debian's package time) is not installed: nothing measured");
        return;
    }
    bench_chain(folder.path(), ledger_mib, times);
    bench_backup(folder.path(), node_mib, times);
    bench_restore(folder.path(), times);
}

fn bench_chain(folder: &Path, mib: u64, times: u32) {
    let network = folder.join("one");
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &network).unwrap();
    // One chain is enough: the others go.
    for gone in ["Org1", "Org2", "OrdererOrg/orderer2", "OrdererOrg/orderer3"] {
        std::fs::remove_dir_all(network.join(gone)).unwrap();
    }
    std::fs::remove_dir_all(network.join("OrdererOrg/orderer1/production/chains/settlement")).unwrap();
    let mut growth = Growth::open(&network, "mychannel").unwrap().without_raft_log();
    let chain = network.join("OrdererOrg/orderer1/production/chains/mychannel");
    while mib_below(&chain) < mib as f64 {
        growth.grow(200, 10).unwrap();
    }
    let mib = mib_below(&chain);
    println!("\nchain of {mib:.0} MiB, {} blocks, in the page cache", growth.height());
    // In pieces that stay in the core's cache, as the walk reads.
    let data = vec![7u8; 512 << 10];
    let begun = Instant::now();
    let last = (0..1024).map(|_| fabkeep_ledger::sha256(&[&data])).fold(0, |sum, hash| sum ^ hash[0]);
    let sha = 512.0 / begun.elapsed().as_secs_f64();
    println!("{:<44} {:>20.0} MiB/s  ({last})", "SHA-256, one core, in its cache", sha);
    let verify = |cores: &'static str| {
        let chain = chain.clone();
        move || {
            let mut command = Command::new("taskset");
            command.args(["-c", cores, FABKEEP, "verify", "--quiet", "--chain"]).arg(&chain);
            command
        }
    };
    for cores in ["0", "0,1"] {
        if let Some(run) = run(&format!("fabkeep verify --chain, cores {cores}"), times, verify(cores)) {
            print(&run, mib);
            let count = cores.split(',').count() as f64;
            println!("    {:.0} % of one core's SHA-256 for each core", mib / run.seconds / sha / count * 100.0);
        }
    }
    if let Some(run) = run("tar to nowhere", times, || {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("tar cf - {} | cat > /dev/null", chain.display())]);
        command
    }) {
        print(&run, mib);
    }
    if installed("ledgerutil")
        && let Some(run) = run("ledgerutil verify", 1, || {
            let mut command = Command::new("ledgerutil");
            command.arg("verify").arg(&chain);
            command
        })
    {
        print(&run, mib);
    }
    std::fs::remove_dir_all(&network).unwrap();
}

fn bench_backup(folder: &Path, mib: u64, times: u32) {
    let network = folder.join("seven");
    fabkeep_fixtures::unpack(fabkeep_fixtures::NETWORK_SMALL, &network).unwrap();
    grow(&network, mib);
    let size = mib_below(&network);
    println!("\nnetwork of 7 nodes, {size:.0} MiB on the disk");
    let mut number = 0;
    let fabkeep = run("fabkeep backup, first", times, || {
        number += 1;
        let place = |name: &str| folder.join(format!("{name}{number}"));
        let keys = |command: &mut Command| {
            command.arg("--repo").arg(place("repo")).arg("--writer").arg(place("writer"));
        };
        let mut init = Command::new(FABKEEP);
        init.args(["init", "--quiet", "--identity"]).arg(place("identity"));
        keys(&mut init);
        assert!(init.stdout(Stdio::null()).status().unwrap().success());
        let mut command = Command::new(FABKEEP);
        command.args(["backup", "--quiet", "--root"]).arg(&network);
        keys(&mut command);
        command
    });
    let mut restics: Vec<PathBuf> = Vec::new();
    let restic = installed("restic").then(|| {
        run("restic backup, first (compression auto)", times, || {
            let repo = folder.join(format!("restic{}", restics.len()));
            restics.push(repo.clone());
            let mut init = Command::new("restic");
            init.env("RESTIC_PASSWORD", "x").args(["init", "-q", "-r"]).arg(&repo);
            assert!(init.status().unwrap().success());
            let mut command = Command::new("restic");
            command.env("RESTIC_PASSWORD", "x").args(["backup", "-q", "--no-cache", "-r"]).arg(&repo).arg(&network);
            command
        })
    });
    let tar = run("tar | zstd -3", times, || {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("tar cSf - {} | zstd -3 -T2 -q -o {}/all.tar.zst -f", network.display(), folder.display()),
        ]);
        command
    });
    let again = run("fabkeep backup, nothing new", times, || {
        let place = |name: &str| folder.join(format!("{name}{number}"));
        let mut command = Command::new(FABKEEP);
        command.args(["backup", "--quiet", "--root"]).arg(&network);
        command.arg("--repo").arg(place("repo")).arg("--writer").arg(place("writer"));
        command
    });
    for run in [&fabkeep, &again, &tar].into_iter().flatten() {
        print(run, size);
    }
    println!("    repository {:.1} MiB", mib_below(&folder.join("repo1")));
    if let (Some(Some(restic)), Some(fabkeep)) = (&restic, &fabkeep) {
        print(restic, size);
        println!("    repository {:.1} MiB", mib_below(&restics[0]));
        println!("    fabkeep's first backup is {:.1} times as fast as restic's", restic.seconds / fabkeep.seconds);
    }
}

/// Restores of the network that was backed up: from nothing, and where one file of a node is bad.
fn bench_restore(folder: &Path, times: u32) {
    let (network, repo, identity) = (folder.join("seven"), folder.join("repo1"), folder.join("identity1"));
    let restic_repo = folder.join("restic0");
    let size = mib_below(&network);
    println!("\nrestores of {size:.0} MiB, with everything in the page cache");
    let fabkeep = |more: &[&str]| {
        let mut command = Command::new(FABKEEP);
        command.args(["restore", "--quiet", "--repo"]).arg(&repo).arg("--identity").arg(&identity).args(more);
        command.current_dir(folder);
        command
    };
    let mut number = 0;
    let mut to = |name: &str| {
        let earlier = folder.join(format!("{name}{number}"));
        if earlier.exists() {
            std::fs::remove_dir_all(earlier).unwrap();
        }
        number += 1;
        format!("{name}{number}")
    };
    let whole = run("fabkeep restore, from nothing, proven", times, || fabkeep(&["--to", &to("restored")]));
    let restic = (restic_repo.exists() && installed("restic")).then(|| {
        run("restic restore, from nothing", times, || {
            let mut command = Command::new("restic");
            command.env("RESTIC_PASSWORD", "x").args(["restore", "latest", "-q", "--no-cache", "-r"]).arg(&restic_repo);
            command.arg("--target").arg(folder.join(to("restic-restored")));
            command
        })
    });
    let restic = restic.flatten();
    for run in [&whole, &restic].into_iter().flatten() {
        print(run, size);
    }
    if let (Some(whole), Some(restic)) = (&whole, &restic) {
        println!("    fabkeep's restore is {:.2} times as fast as restic's", restic.seconds / whole.seconds);
    }

    // In place: one block file of a peer has a flipped bit.
    let mut discover = Command::new(FABKEEP);
    discover.args(["discover", "--quiet", "--root", "seven"]).current_dir(folder).stdout(Stdio::null());
    assert!(discover.status().unwrap().success());
    let peer = network.join("Org1/peer0");
    let size = mib_below(&peer);
    println!("\nrestores of a peer of {size:.0} MiB, of which one block file has a flipped bit");
    let restore =
        ["--inventory", "fabkeep.toml", "--node", "Org1/peer0", "--replace", "--assume-stopped", "Org1/peer0"];
    // Until nothing of the peer is derived data.
    assert!(fabkeep(&restore).stdout(Stdio::null()).status().unwrap().success());
    let file = peer.join("production/ledgersData/chains/chains/mychannel/blockfile_000000");
    let damage = || {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    };
    let in_place = run("fabkeep restore --replace, proven", times, || {
        damage();
        fabkeep(&restore)
    });
    let restic = restic.and_then(|_| {
        run("restic restore over it", times, || {
            damage();
            let mut command = Command::new("restic");
            command.env("RESTIC_PASSWORD", "x").args(["restore", "latest", "-q", "--no-cache", "-r"]).arg(&restic_repo);
            command.arg("--include").arg(&peer).args(["--target", "/"]);
            command
        })
    });
    for run in [&in_place, &restic].into_iter().flatten() {
        print(run, size);
    }
    if let (Some(in_place), Some(restic)) = (&in_place, &restic) {
        println!("    fabkeep's restore is {:.2} times as fast as restic's", restic.seconds / in_place.seconds);
    }
}
