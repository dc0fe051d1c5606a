//! Everything deleted, everything back: for each deployer's style. Owkin's charts are where losses are tried.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::network::{Kind, NODES, Network, Node};
use crate::operator::Operator;
use crate::run::{Place, succeeded};
use crate::styles::{self, Style};

/// What need not come back: derived data, locks, what a node or server makes anew, and what fabkeep leaves out.
fn is_needed(style: &Style, place: &str) -> bool {
    let derived = [
        "/stateLeveldb/",
        "/historyLeveldb/",
        "/configHistory/",
        "/bookkeeper/",
        "/chains/index/",
        "/fileLock/",
        "/transientStoreFileLock/",
        "/snapshots/temp/",
        "/externalbuilder/builds/",
        "/pg_stat_tmp/",
        "/pg_internal.init",
        "/postmaster.pid",
        "/postmaster.opts",
    ];
    let path = place.split_once(" claim ").map_or("", |(_, rest)| rest.split_once(' ').map_or("", |(_, path)| path));
    let path = format!("/{path}");
    let left_out = derived.iter().any(|part| path.contains(part));
    let name = path.rsplit('/').next().unwrap_or("");
    let lock = matches!(name, "LOCK" | "LOG" | "LOG.old") || path.ends_with(".tmp");
    // An orderer's index; a state database's whole claim.
    let index = path.contains("/index/");
    let state = place.contains("couch") || place.contains("statedb");
    // A running PostgreSQL writes these by itself.
    let postgres = style.name == "raw" && place.contains("ca-db-data");
    // Orderers that come back together get raft state that is written from the last block.
    let raft = name.ends_with(".wal") || name.ends_with(".snap");
    !(left_out || lock || index || state || postgres || raft)
}

pub fn needed(style: &Style, all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.into_iter().filter(|(place, _)| is_needed(style, place)).collect()
}

/// Compares what there was with what there is, and says where they differ.
pub fn assert_same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    for (place, value) in before {
        match after.get(place) {
            Some(now) if now == value => {}
            Some(now) => panic!("{place} differs: {value:.200} before, {now:.200} now"),
            None => panic!("{place} did not come back"),
        }
    }
    let new: Vec<&String> = after.keys().filter(|place| !before.contains_key(*place)).collect();
    assert!(new.is_empty(), "there was no {new:?} before");
}

/// The nodes that show what a deployer does: the orderers, and one organization with more than one peer.
fn nodes_of(style: &Style) -> &'static [Node] {
    // The raw manifests' second organization keeps its authority's identities in PostgreSQL.
    if style.name == "raw" { &NODES } else { NODES.split_at(6).0 }
}

fn whole_network_comes_back(style: &'static Style) {
    let Some(cluster) = Cluster::get() else { return };
    comes_back(&Network::of(&cluster, style, &format!("whole-{}", style.name), nodes_of(style)));
}

fn comes_back(network: &Network<'_>) {
    let (cluster, style, nodes) = (network.cluster, network.style, nodes_of(network.style));
    network.deploy();
    let place = Place::new(network);
    let found = succeeded(place.on_cluster(&["discover"]).output().unwrap());
    println!("{found}");
    let recognised =
        ["  peer ", "  orderer ", "  ca "].map(|role| found.lines().filter(|line| line.starts_with(role)).count());
    let expected = [Kind::Peer, Kind::Orderer, Kind::Ca].map(|kind| Node::count(nodes, kind));
    assert_eq!(recognised, expected, "{found}");
    let rows = sql(network);
    let heights = network.heights();
    let before = needed(style, network.fingerprint());
    assert!(before.len() >= 7 * nodes.len(), "{} places", before.len());
    let channels = 2 * (expected[0] + expected[1]);
    assert!(heights.values().any(|height| height == "27") && heights.len() == channels, "{heights:?}");
    let mut reported = found;
    reported += &place.backup();
    reported += &place.ok(&["show", "--repo", place.repo().to_str().unwrap(), "--output", "json"]);
    let shown = place.ok(&["show", "--repo", place.repo().to_str().unwrap()]);
    assert!(shown.contains("objects: ") && shown.contains(" Secret"), "{shown}");

    cluster.remove_namespaces(&network.names());
    reported += &place.restore(&["--dry-run"]);
    reported += &place.restore(&[]);
    println!("{reported}");
    network.assert_no_secret_in(&reported);
    assert_eq!(heights, network.heights());
    assert_eq!(rows, sql(network));
    assert_same(&before, &needed(style, network.fingerprint()));
    if style.name == "raw" {
        database_goes_back(network, &place, &rows);
    }
    let left = succeeded(place.on_cluster(&["clean", "--dry-run"]).output().unwrap());
    assert!(left.contains("no helper pods, snapshots or clones were found"), "{left}");
}

/// The CA's PostgreSQL alone, while it runs; then the same in two runs, the first of which does not come to the dump.
fn database_goes_back(network: &Network<'_>, place: &Place, rows: &str) {
    let node = format!("{}/ca-db-0", network.namespaces["Org2"]);
    let psql = |statement: &str| network.psql(statement);
    psql("insert into users values (999999, 'latecomer')");
    let reported = place.restore(&["--node", &node, "--replace"]);
    println!("{reported}");
    assert!(reported.contains("C1") && reported.contains("unknown: 999999"), "{reported}");
    assert!(reported.contains(".before-") && reported.contains("every row equals the captured one"), "{reported}");
    assert_eq!(rows, sql(network));

    // The files in its place, as they hold still.
    let repo = place.repo();
    let reported = succeeded(
        place.on_cluster(&["backup", "--repo", repo.to_str().unwrap(), "--copy-databases"]).output().unwrap(),
    );
    let shown = place.ok(&["show", "--repo", repo.to_str().unwrap(), "--files"]);
    assert!(shown.contains("pgdata/PG_VERSION") && !shown.contains("database.sql"), "{reported}{shown}");
    place.backup();
    let shown = place.ok(&["show", "--repo", repo.to_str().unwrap(), "--files"]);
    assert!(shown.contains("database.sql") && !shown.contains("pgdata/PG_VERSION"), "{shown}");

    psql("delete from users where id > 7");
    let reported = place.restore(&["--node", &node, "--replace", "--no-start"]);
    assert!(!reported.contains("every row equals the captured one"), "{reported}");
    let reported = place.restore(&["--node", &node]);
    assert!(reported.contains("every row equals the captured one"), "{reported}");
    assert_eq!(rows, sql(network));
}

/// What the CA's PostgreSQL holds, where there is one.
fn sql(network: &Network<'_>) -> String {
    if !network.has_postgres() {
        return String::new();
    }
    let psql = |statement: &str| network.psql(statement);
    psql("select count(*), md5(string_agg(id || token, ',' order by id)) from users")
}

#[test]
fn raw_manifests() {
    whole_network_comes_back(&styles::RAW);
}

#[test]
fn bevel_operator_fabric() {
    let Some(cluster) = Cluster::get() else { return };
    let style = &styles::HLF_OPERATOR;
    let network = Network::of(&cluster, style, "whole-hlf-operator", nodes_of(style));
    let operator = Operator::install(&cluster);
    std::thread::scope(|scope| {
        scope.spawn(|| operator.reconcile(&network));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| comes_back(&network)));
        let running = operator.is_running();
        operator.stop();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        assert!(running, "the operator was left scaled down");
        let acts = operator.acts.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(acts, 0, "the operator found something to do");
    });
}

#[test]
fn fabric_operator() {
    whole_network_comes_back(&styles::FABRIC_OPERATOR);
}

#[test]
fn bevel_charts() {
    whole_network_comes_back(&styles::BEVEL);
}

#[test]
fn test_network_k8s() {
    whole_network_comes_back(&styles::TEST_NETWORK);
}

#[test]
fn pivt_charts() {
    whole_network_comes_back(&styles::PIVT);
}
