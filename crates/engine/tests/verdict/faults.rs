//! Faults over all roles by the thousand: every authoritative file and directory of two networks is removed, emptied, cut, put in the place of
//! another node's or another network's, or is older than the rest. None may be silent, and each must name its node and its path.
//!
//! `FABKEEP_FAULTS_SEED` sets the order and the places of the cuts, `FABKEEP_FAULTS` the number of cases of each of the three networks: a
//! sample without it, all of them (over 2,000, minutes) with `FABKEEP_FAULTS=all`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{copy_file, data_of};
use crate::bench::Bench;
use fabkeep_engine::{CaptureOptions, EngineError, EntryContent};
use fabkeep_fixtures::Growth;
use fabkeep_ledger::layout::NodeRole;
use fabkeep_network::Finding;
use fabkeep_platform::{Host, Inventory, discover};

/// Fewest faults that there must be.
const LEAST: usize = 2000;
/// How many of each network are tried unless it is said otherwise.
const SAMPLE: usize = 40;

#[derive(Debug, Clone, PartialEq)]
enum Fault {
    Remove,
    /// A file of length zero, a directory without files.
    Empty,
    /// Of a directory: only lock files are left.
    OnlyLocks,
    /// The file ends behind this part of it.
    Cut(f64),
    /// What is at another path takes its place.
    Swap(PathBuf, &'static str),
}

#[derive(Debug, Clone)]
struct Case {
    node: String,
    /// Relative to the network's folder.
    path: String,
    fault: Fault,
}

/// A small generator of numbers: the same seed, the same numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Everything that a recovery point holds of a network's nodes: node, role, path, whether it is a file.
fn watched(bench: &Bench) -> Vec<(String, NodeRole, String, bool)> {
    let captured = bench.capture(&CaptureOptions::default()).unwrap();
    let root = bench.network().canonicalize().unwrap();
    let mut out = Vec::new();
    for node in captured.point.nodes.iter().filter(|node| node.facts.role != NodeRole::Files) {
        for directory in &node.directories {
            let folder = Path::new(&directory.directory.path);
            for entry in &directory.entries {
                let path = folder.join(&entry.path);
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
                let file = matches!(entry.content, EntryContent::File { .. });
                out.push((node.facts.id.to_string(), node.facts.role, path, file));
            }
        }
    }
    // A directory of which no file is kept holds what the node makes anew.
    let files: Vec<String> = out.iter().filter(|known| known.3).map(|known| format!("{}/", known.2)).collect();
    out.retain(|(_, _, path, file)| *file || files.iter().any(|known| known.starts_with(&format!("{path}/"))));
    out
}

/// The same place at another node: where files are named after their node, the file at the same position.
fn at_another(root: &Path, path: &str, node: &str, other: &str) -> Option<PathBuf> {
    let rest = path.strip_prefix(node)?.trim_start_matches('/');
    let there = root.join(other).join(rest);
    if there.exists() {
        return Some(there);
    }
    let sorted = |folder: &Path| -> Option<Vec<PathBuf>> {
        let mut names: Vec<PathBuf> = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.sort();
        Some(names)
    };
    let here = root.join(path);
    let position = sorted(here.parent()?)?.iter().position(|known| *known == here)?;
    sorted(there.parent()?)?.into_iter().nth(position)
}

fn bytes_of(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    if path.is_file() {
        return vec![(String::new(), data_of(path))];
    }
    let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for name in names {
        let label = name.file_name().unwrap().to_str().unwrap().to_owned();
        out.extend(bytes_of(&name).into_iter().map(|(below, bytes)| (format!("{label}/{below}"), bytes)));
    }
    out
}

/// What does no harm, or cannot be determined from what does none.
fn is_harmless(case: &Case, here: &Path) -> bool {
    let name = case.path.rsplit('/').next().unwrap();
    let has = |part: &str| case.path.contains(part);
    let content: Vec<(String, Vec<u8>)> = bytes_of(here);
    let empty = content.iter().all(|(_, bytes)| bytes.is_empty());
    // goleveldb's copy of an old CURRENT is never read.
    if name == "CURRENT.bak" {
        return true;
    }
    // SmartBFT begins anew without its log; which TLS CAs an MSP names matters to others only.
    let newest_of_bft = has("/etcdraft/wal/") && name.len() == 20;
    if matches!(case.fault, Fault::Remove | Fault::Empty) && (newest_of_bft || name == "tlscacerts") {
        return true;
    }
    // Private data of transactions in flight: a shorter log is an earlier moment.
    if has("/transientstore/")
        && (name.ends_with(".log") || name.starts_with("MANIFEST"))
        && case.fault != Fault::Remove
    {
        return true;
    }
    match &case.fault {
        Fault::Remove => !here.is_file() && content.is_empty(),
        Fault::Empty | Fault::OnlyLocks => empty,
        Fault::Cut(part) => {
            let used = content[0].1.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            // A text without its last words may say the same.
            let text = [".yaml", ".pem", ".crt", "_sk", ".key"].iter().any(|end| name.ends_with(end));
            // What is in an idemix issuer's public key is not looked at.
            let of_issuer = name == "IssuerPublicKey" || (name.starts_with("IssuerRevocation") && *part > 0.99);
            of_issuer || (used as f64 * part) as usize >= used || (text && *part > 0.9)
        }
        Fault::Swap(from, of) => {
            let same = bytes_of(from) == content;
            let chain = has("/chains/") || name == "chains";
            let raft = has("/etcdraft");
            // A node may have another one's blocks, raft state and list of ledgers: that is how a lost one is brought back.
            let donated = *of == "node" && (chain || raft || has("ledgerProvider") || has("/transientstore"));
            // Ports and addresses are no reason to refuse.
            let settings = has("/config/") || name == "config" || name.ends_with(".yaml");
            let organization = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
            let inside = from.to_str().unwrap().split("/network/").nth(1).unwrap_or_default().to_owned();
            let same_organization = organization(&inside) == organization(&case.path);
            let data = ["production", "ledgersData", "pvtdataStore"].contains(&name) || has("/pvtdataStore/");
            let whole = *of == "node" && data && same_organization;
            // Which TLS CAs an MSP names beside its node's own certificate is the organization's choice.
            let trusted = has("/tlscacerts");
            let in_flight = has("/transientstore");
            // Nothing in them tells whose they are.
            let issuer = name.starts_with("Issuer");
            same || has("/pvtdataStore") && says_the_same(case, here, from)
                || donated
                || settings
                || whole
                || in_flight
                || issuer
                || trusted
        }
    }
}

/// Whether a private-data store holds the same after the swap: members of one collection have the same private data.
fn says_the_same(case: &Case, here: &Path, from: &Path) -> bool {
    let content = |store: &Path| {
        let database = fabkeep_ledger::leveldb::Database::open(store).ok()?;
        database.range(&[], &[0xff; 8]).ok()
    };
    let scratch = tempfile::tempdir().unwrap();
    let (store, swapped) = match here.is_dir() {
        true => (here, from.to_path_buf()),
        false => {
            let (store, copy) = (here.parent().unwrap(), scratch.path().join("store"));
            super::copy(store, &copy);
            copy_file(from, &copy.join(case.path.rsplit('/').next().unwrap()));
            (store, copy)
        }
    };
    let (before, after) = (content(store), content(&swapped));
    before.is_some() && before == after
}

fn cases(bench: &Bench, other: &Bench, numbers: &mut Numbers) -> Vec<Case> {
    let watched = watched(bench);
    let root = bench.network();
    let nodes: BTreeSet<(String, NodeRole)> = watched.iter().map(|(node, role, _, _)| (node.clone(), *role)).collect();
    let mut out = Vec::new();
    for (node, role, path, file) in &watched {
        let here = root.join(path);
        let mut faults = vec![Fault::Remove, Fault::Empty];
        if *file {
            let part = |numbers: &mut Numbers| (numbers.next() % 1000) as f64 / 1000.0;
            faults.extend([
                Fault::Cut(0.5),
                Fault::Cut(part(numbers)),
                Fault::Cut(part(numbers) * 0.3),
                Fault::Cut(0.999),
            ]);
        } else {
            faults.push(Fault::OnlyLocks);
        }
        let partners = nodes.iter().filter(|(other, of)| other != node && of == role);
        for (partner, _) in partners {
            faults.extend(at_another(&root, path, node, partner).map(|from| Fault::Swap(from, "node")));
        }
        faults.extend(at_another(&other.network(), path, node, node).map(|from| Fault::Swap(from, "network")));
        for fault in faults {
            if matches!(&fault, Fault::Swap(from, _) if from.is_file() != *file) {
                continue;
            }
            let case = Case { node: node.clone(), path: path.clone(), fault };
            if !is_harmless(&case, &here) {
                out.push(case);
            }
        }
    }
    out
}

/// What is older than the rest by one backup, where that is a fault: stores that must be at least as new as another one.
fn aged(old: &Bench) -> Vec<Case> {
    let mut out = Vec::new();
    let mut add = |node: &str, path: &str| {
        let path = format!("{node}/production/{path}");
        let fault = Fault::Swap(old.network().join(&path), "earlier");
        out.push(Case { node: node.to_owned(), path, fault });
    };
    for peer in ["Org1/peer0", "Org1/peer1", "Org2/peer0", "Org2/peer1"] {
        add(peer, "ledgersData/pvtdataStore");
        add(peer, "ledgersData/pvtdataStore/000002.log");
    }
    for orderer in ["orderer1", "orderer2", "orderer3"] {
        let node = format!("OrdererOrg/{orderer}");
        for path in [
            "etcdraft",
            "etcdraft/wal",
            "etcdraft/wal/mychannel",
            "chains",
            "chains/mychannel",
            "chains/mychannel/blockfile_000000",
        ] {
            add(&node, path);
        }
    }
    out
}

fn apply(case: &Case, here: &Path, aside: &Path) {
    fs::rename(here, aside).unwrap();
    match &case.fault {
        Fault::Remove => {}
        Fault::Empty if aside.is_file() => fs::write(here, "").unwrap(),
        Fault::Empty => fs::create_dir(here).unwrap(),
        Fault::OnlyLocks => {
            fs::create_dir(here).unwrap();
            fs::write(here.join("LOCK"), "").unwrap();
        }
        Fault::Cut(part) => {
            let bytes = data_of(aside);
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            fs::write(here, &bytes[..(used as f64 * part) as usize]).unwrap();
        }
        Fault::Swap(from, _) if from.is_file() => copy_file(from, here),
        Fault::Swap(from, _) => super::copy(from, here),
    }
}

fn undo(here: &Path, aside: &Path) {
    if here.is_dir() {
        fs::remove_dir_all(here).unwrap();
    } else if here.exists() {
        fs::remove_file(here).unwrap();
    }
    fs::rename(aside, here).unwrap();
}

/// Whether a finding names the node and the place: the file, its folder, the database or the channel that it belongs to.
fn names(finding: &Finding, case: &Case) -> bool {
    let text = format!("{} {}", finding.subject, finding.what);
    let inside = case.path.strip_prefix(case.node.as_str()).unwrap_or_default();
    let mut parts = inside.split('/').filter(|part| !part.is_empty());
    text.contains(&case.node) && (inside.is_empty() || parts.any(|part| text.contains(part)) || is_about(&text, inside))
}

/// Words that stand for a place: messages name the channel, the certificate or what a directory is for.
fn is_about(text: &str, inside: &str) -> bool {
    [
        ("production", "channel"),
        ("production", "settlement"),
        ("production", "ledger directory"),
        ("msp", "enrolment"),
        ("keystore", "private key"),
        ("/ca/msp", "private key"),
        ("tls", "TLS"),
        ("config", "configuration"),
    ]
    .iter()
    .any(|(place, word)| inside.contains(place) && text.contains(word))
}

/// Captures each case's network; the cases that nobody heard of.
fn silent(packed: &[u8], grown: bool, cases: &[Case], threads: usize) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let silent = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let bench = Bench::new(packed);
                if grown {
                    Growth::open(&bench.network(), "mychannel").unwrap().grow(5, 2).unwrap();
                }
                let found = discover(&bench.network(), bench.folder.path()).unwrap();
                fs::write(bench.path("fabkeep.toml"), found.inventory.to_text().unwrap()).unwrap();
                let inventory = Inventory::read(&bench.path("fabkeep.toml")).unwrap();
                let host = Host::new(&inventory, bench.folder.path()).unwrap();
                bench.capture_from(&host, &CaptureOptions::default()).unwrap();
                let aside = bench.path("aside");
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let here = bench.network().join(&case.path);
                    apply(case, &here, &aside);
                    let options = CaptureOptions { threads: 1, ..CaptureOptions::default() };
                    let findings = match bench.capture_from(&host, &options) {
                        Ok(captured) => captured.point.findings,
                        Err(EngineError::Refused(findings)) => findings,
                        Err(error) => panic!("{case:?}: {error}"),
                    };
                    if !findings.iter().any(|finding| names(finding, case)) {
                        let of_node: Vec<&Finding> =
                            findings.iter().filter(|finding| finding.subject.contains(&case.node)).collect();
                        silent.lock().unwrap().push(format!("{case:?}: {of_node:?}"));
                    }
                    undo(&here, &aside);
                }
            });
        }
    });
    silent.into_inner().unwrap()
}

#[test]
fn no_fault_is_silent_and_each_names_its_node_and_place() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("FABKEEP_FAULTS_SEED").unwrap_or(20_261_125);
    let all = std::env::var("FABKEEP_FAULTS").is_ok_and(|value| value == "all");
    let wanted = if all { usize::MAX } else { number("FABKEEP_FAULTS").map_or(SAMPLE, |wanted| wanted as usize) };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    println!("FABKEEP_FAULTS_SEED={seed}");
    let mut numbers = Numbers(seed.max(1));
    let (small, bft) = (Bench::new(fabkeep_fixtures::NETWORK_SMALL), Bench::new(fabkeep_fixtures::NETWORK_BFT));
    let (mut there, mut tried) = (0, 0);
    let mut all_silent = Vec::new();
    let of_small = cases(&small, &bft, &mut numbers);
    let of_bft = cases(&bft, &small, &mut numbers);
    let of_age = aged(&small);
    for (packed, grown, mut cases) in [
        (fabkeep_fixtures::NETWORK_SMALL, false, of_small),
        (fabkeep_fixtures::NETWORK_BFT, false, of_bft),
        (fabkeep_fixtures::NETWORK_SMALL, true, of_age),
    ] {
        for at in (1..cases.len()).rev() {
            cases.swap(at, numbers.below(at + 1));
        }
        there += cases.len();
        cases.truncate(wanted);
        tried += cases.len();
        all_silent.extend(silent(packed, grown, &cases, threads));
    }
    println!("{tried} of {there} faults");
    all_silent.sort();
    let shown: Vec<&String> = all_silent.iter().take(60).collect();
    assert!(all_silent.is_empty(), "{} of {tried} faults are silent (seed {seed}): {shown:#?}", all_silent.len());
    assert!(there >= LEAST, "there are {there} faults only");
}

/// Networks in which nothing is wrong, in several states: no alarm.
#[test]
fn clean_variants_raise_no_alarm() {
    let quiet = |bench: &Bench, what: &str| match bench.capture(&CaptureOptions::default()) {
        Ok(captured) => {
            let alarms: Vec<&Finding> = captured
                .point
                .findings
                .iter()
                .filter(|finding| finding.severity > fabkeep_network::Severity::Note)
                .collect();
            assert!(alarms.is_empty(), "{what}: {alarms:#?}");
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let bft = Bench::new(fabkeep_fixtures::NETWORK_BFT);
    quiet(&bft, "SmartBFT");
    quiet(&bft, "SmartBFT again");
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    quiet(&bench, "raft");
    let restored = bench.restore_all().unwrap();
    let moved = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    super::replace(&restored, &moved.network());
    quiet(&moved, "restored, in a new repository");
    super::replace(&restored, &bench.network());
    quiet(&bench, "restored over itself");
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(7, 2).unwrap();
    quiet(&bench, "grown");
    growth.compact().unwrap();
    quiet(&bench, "raft logs compacted");
    let data = |node: &str| bench.network().join(node).join("production");
    super::replace(&data("OrdererOrg/orderer1"), &data("OrdererOrg/orderer3"));
    quiet(&bench, "an orderer with another one's data");
    super::replace(&data("Org1/peer0"), &data("Org1/peer1"));
    quiet(&bench, "a peer with another one's data");
    for derived in ["chains/index", "stateLeveldb", "historyLeveldb", "configHistory", "bookkeeper"] {
        fs::remove_dir_all(data("Org2/peer0").join("ledgersData").join(derived)).unwrap();
    }
    quiet(&bench, "derived data dropped");
    let joined = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let chain = joined.network().join("Org1/peer0/production/ledgersData/chains/chains/mychannel");
    crate::bench::join_by_snapshot(&chain, 12);
    // The index of a ledger that was joined by snapshot counts from its own first record.
    fs::remove_dir_all(joined.network().join("Org1/peer0")).unwrap();
    quiet(&joined, "one peer less");
}
