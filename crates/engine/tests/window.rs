//! No-transaction windows on hosts: heights equal before, watched inside, everything undone behind, and every fault named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bench::{Bench, locks};
use fabkeep_engine::{
    CaptureOptions, Captured, Consistency, EngineError, Event, Reporter, VerifyLevel, WindowOptions, capture,
};
use fabkeep_fixtures::Growth;
use fabkeep_network::Finding;
use fabkeep_platform::{Hook, Host, Platform, Quiesce, discover};
use fabkeep_store::WriterKey;

fn window(hook: Option<Hook>) -> WindowOptions {
    WindowOptions {
        quiesce: Quiesce { hook, ..Quiesce::default() },
        deadline: Duration::from_secs(20),
        settle: Some(Duration::ZERO),
        extend: false,
        stay_closed: false,
    }
}

fn options(window: WindowOptions) -> CaptureOptions {
    CaptureOptions { consistency: Consistency::Window(window), ..CaptureOptions::default() }
}

/// Commands that write what they did into a file.
fn hook(bench: &Bench) -> Hook {
    let reported = bench.path("reported").display().to_string();
    Hook {
        before: format!("echo closed >> {reported}; touch {reported}.closed"),
        after: format!("echo open >> {reported}; rm -f {reported}.closed"),
    }
}

fn reported(bench: &Bench) -> String {
    std::fs::read_to_string(bench.path("reported")).unwrap_or_default()
}

fn refused(result: Result<Captured, EngineError>) -> Vec<Finding> {
    match result {
        Err(EngineError::Refused(findings)) => findings,
        other => panic!("{other:?}"),
    }
}

fn named<'a>(findings: &'a [Finding], rule: &str, subject: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.rule.code() == rule && finding.subject.contains(subject))
        .unwrap_or_else(|| panic!("no {rule} about {subject}: {findings:?}"))
}

/// A host whose inventory is changed first.
fn host(bench: &Bench, change: impl FnOnce(&mut fabkeep_platform::Inventory)) -> Host {
    let mut found = discover(&bench.network(), bench.folder.path()).unwrap();
    change(&mut found.inventory);
    Host::new(&found.inventory, bench.folder.path()).unwrap().kept_by(bench.machine())
}

#[test]
fn transactions_stop_for_the_window_only_and_the_capture_is_level() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let (stop, closed) = (AtomicBool::new(false), bench.path("reported.closed"));
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if !closed.exists() {
                    growth.grow(1, 2).unwrap();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            growth.height()
        });
        // Clients need a moment to stop: heights must stay equal for longer than that.
        let settle = Some(Duration::from_millis(300));
        let captured = bench.capture(&options(WindowOptions { settle, ..window(Some(hook(&bench))) }));
        let after = growth_goes_on(&bench);
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        let captured = captured.unwrap();
        let report = captured.point.window.as_ref().unwrap();
        assert_eq!((report.passes, report.changes.len()), (1, 1));
        assert!(report.level_after_seconds >= 0.3 && report.seconds >= report.level_after_seconds, "{report:?}");
        let heights: Vec<u64> = captured
            .point
            .nodes
            .iter()
            .flat_map(|node| &node.facts.ledgers)
            .filter(|ledger| ledger.channel == "mychannel")
            .map(|ledger| ledger.height)
            .collect();
        assert_eq!(heights.len(), 7);
        assert!(heights.iter().all(|height| *height == report.heights["mychannel"]), "{heights:?}");
        assert!(after > report.heights["mychannel"], "the writer did not go on behind the window");
    });
    assert_eq!(reported(&bench), "closed\nopen\n");
    assert!(bench.host().window().unwrap().open.is_none());
    bench.verify(VerifyLevel::Full).unwrap();
    bench.restore_all().unwrap();
}

fn growth_goes_on(bench: &Bench) -> u64 {
    std::thread::sleep(Duration::from_millis(300));
    bench::height(&bench::chains(&bench.network(), "mychannel")[4])
}

/// Lets the network grow as soon as its heights are equal: just before the capture reads.
struct GrowsInside<'a> {
    growth: Mutex<&'a mut Growth>,
    left: AtomicU32,
}

impl Reporter for GrowsInside<'_> {
    fn event(&self, event: Event<'_>) {
        let level = matches!(event, Event::End { step: "wait for equal heights", .. });
        if level && self.left.load(Ordering::Relaxed) > 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
            self.growth.lock().unwrap().grow(1, 2).unwrap();
        }
    }
}

fn grow_inside(bench: &Bench, growth: &mut Growth, extend: bool, times: u32) -> Result<Captured, EngineError> {
    let reporter = GrowsInside { growth: Mutex::new(growth), left: AtomicU32::new(times) };
    let key = WriterKey::read(&bench.writer_file()).unwrap();
    let options = options(WindowOptions { extend, ..window(Some(hook(bench))) });
    capture(&bench.host(), &bench.repository(), key, &options, &reporter)
}

#[test]
fn growth_inside_the_window_fails_it_and_undoes_it_or_extends_it_as_asked() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(5, 2).unwrap();
    let findings = refused(grow_inside(&bench, &mut growth, false, 1));
    assert_eq!(findings.iter().filter(|finding| finding.rule.code() == "W1").count(), 7, "{findings:?}");
    let finding = named(&findings, "W1", "Org2/peer1 mychannel");
    assert!(finding.what.contains("its height went from 32 to 33"), "{finding:?}");
    assert_eq!(reported(&bench), "closed\nopen\n", "the window was not undone");
    assert!(bench.host().window().unwrap().open.is_none() && bench.repository().history().unwrap().commits.is_empty());
    let captured = grow_inside(&bench, &mut growth, true, 2).unwrap();
    let report = captured.point.window.as_ref().unwrap();
    assert_eq!((report.passes, report.heights["mychannel"]), (3, 35), "{report:?}");
    assert_eq!(reported(&bench), "closed\nopen\nclosed\nopen\n");
    bench.verify(VerifyLevel::Full).unwrap();
}

#[test]
fn a_node_that_lags_is_named_with_its_lag_when_the_deadline_is_over() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let file = bench.network().join("Org2/peer1/production/ledgersData/chains/chains/mychannel/blockfile_000000");
    let len = bench::offset_of_block(&file, 24);
    std::fs::File::options().write(true).open(&file).unwrap().set_len(len).unwrap();
    let deadline = Duration::from_millis(300);
    let findings = refused(bench.capture(&options(WindowOptions { deadline, ..window(Some(hook(&bench))) })));
    let finding = named(&findings, "W3", "Org2/peer1 mychannel");
    assert!(finding.what.contains("its height is 24, 3 behind the highest (27)"), "{finding:?}");
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(reported(&bench), "closed\nopen\n");
}

/// An operations endpoint that tells these heights.
fn endpoint(metrics: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{metrics}",
                metrics.len()
            );
        }
    });
    format!("http://{address}")
}

fn metrics(heights: &[(&str, u64)]) -> String {
    heights
        .iter()
        .map(|(channel, height)| format!("ledger_blockchain_height{{channel=\"{channel}\"}} {height}\n"))
        .collect()
}

fn give_operations(inventory: &mut fabkeep_platform::Inventory, node: (&str, &str), url: Option<String>) {
    for organization in &mut inventory.organizations {
        for known in &mut organization.nodes {
            let wanted = organization.name == node.0 && known.name == node.1;
            known.operations = if wanted { url.clone() } else { None };
            known.participation = None;
        }
    }
}

#[test]
fn a_node_that_lies_about_its_height_is_named_with_both_heights() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let liar = endpoint(metrics(&[("mychannel", 30), ("settlement", 8)]));
    let platform = host(&bench, |inventory| give_operations(inventory, ("Org1", "peer0"), Some(liar)));
    // It is found in a plain backup as in one with a window.
    for options in
        [CaptureOptions::default(), options(WindowOptions { deadline: Duration::from_millis(200), ..window(None) })]
    {
        let findings = refused(bench.capture_from(&platform, &options));
        if matches!(options.consistency, Consistency::AsRead) {
            let finding = named(&findings, "H1", "Org1/peer0 mychannel");
            assert!(
                finding.what.contains("metrics said height 30") && finding.what.contains("block files said 27"),
                "{finding:?}"
            );
        } else {
            // All others seem to lag behind the liar.
            assert_eq!(findings.iter().filter(|finding| finding.rule.code() == "W3").count(), 6, "{findings:?}");
        }
    }
    let honest = endpoint(metrics(&[("mychannel", 27), ("settlement", 8)]));
    let platform = host(&bench, |inventory| give_operations(inventory, ("Org1", "peer0"), Some(honest)));
    bench.capture_from(&platform, &options(window(None))).unwrap();
}

#[test]
fn a_node_that_never_answers_is_named_and_is_not_at_height_zero() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let platform =
        host(&bench, |inventory| give_operations(inventory, ("Org1", "peer0"), Some(format!("http://{nobody}"))));
    let asked = fabkeep_platform::ProbeScope { block_files: fabkeep_platform::BlockFiles::Never, health: false };
    let node = platform.network().nodes().find(|node| node.id.to_string() == "Org1/peer0").unwrap();
    let observation = platform.observe(&node.id, asked);
    assert_eq!(observation.height("mychannel"), None);
    let finding = fabkeep_network::unanswered(&observation).unwrap();
    assert!(finding.what.contains("metrics:"), "{finding:?}");
    // Its block files answer for it.
    let asked = fabkeep_platform::ProbeScope { block_files: fabkeep_platform::BlockFiles::IfSilent, ..asked };
    assert_eq!(platform.observe(&node.id, asked).height("mychannel"), Some(27));
}

/// Copies a folder with cp: attributes and holes stay.
fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_chain_that_forked_at_block_57_is_found_there() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let mut growth = Growth::open(&bench.network(), "mychannel").unwrap();
    growth.grow(30, 2).unwrap();
    copy(&bench.network(), &bench.path("other"));
    growth.grow(10, 2).unwrap();
    let mut other = Growth::open(&bench.path("other"), "mychannel").unwrap();
    other.grow(10, 3).unwrap();
    let data = "Org2/peer1/production";
    std::fs::remove_dir_all(bench.network().join(data)).unwrap();
    copy(&bench.path("other").join(data), &bench.network().join(data));
    for consistency in [Consistency::Window(window(Some(hook(&bench)))), Consistency::Cut { fallback: None }] {
        let findings = refused(bench.capture(&CaptureOptions { consistency, ..CaptureOptions::default() }));
        let finding = named(&findings, "I4", "Org2/peer1 mychannel");
        assert!(finding.what.contains("the chain forks at block 57"), "{finding:?}");
    }
    assert_eq!(reported(&bench), "", "a network that cannot be captured is not closed for it");
}

#[test]
fn nodes_are_stopped_when_they_are_level_and_started_again_orderers_before_peers() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let order = bench.path("order").display().to_string();
    let platform = host(&bench, |inventory| {
        for organization in &mut inventory.organizations {
            for node in &mut organization.nodes {
                let name = format!("{}-{}", organization.name, node.name);
                let up = bench.path(&format!("{name}.up"));
                std::fs::write(&up, "").unwrap();
                let up = up.display();
                node.operations = None;
                node.participation = None;
                node.commands.start = Some(format!("echo start {name} >> {order}; touch {up}"));
                node.commands.stop = Some(format!("echo stop {name} >> {order}; rm {up}"));
                node.commands.status = Some(format!("test -e {up}"));
            }
        }
    });
    let quiesce = Quiesce { stop: true, ..Quiesce::default() };
    let captured = bench.capture_from(&platform, &options(WindowOptions { quiesce, ..window(None) })).unwrap();
    let peers = captured.point.nodes.iter().filter(|node| node.facts.id.node.starts_with("peer"));
    assert!(peers.into_iter().all(|node| !node.facts.running), "the final capture is of stopped nodes");
    let lines: Vec<String> = std::fs::read_to_string(&order).unwrap().lines().map(str::to_owned).collect();
    let position =
        |line: &str| lines.iter().position(|known| known == line).unwrap_or_else(|| panic!("{line}: {lines:?}"));
    assert_eq!(lines.len(), 18, "{lines:?}");
    assert!(position("stop Org2-peer1") < position("stop OrdererOrg-orderer1"));
    assert!(position("stop OrdererOrg-orderer1") < position("start OrdererOrg-orderer1"));
    assert!(position("start OrdererOrg-orderer3") < position("start Org1-peer0"));
    assert!(position("start Org1-ca") < position("start OrdererOrg-orderer1"));
    assert!(platform.window().unwrap().open.is_none());
}

#[test]
fn a_panic_in_a_log_since_the_window_began_fails_the_proof_and_an_older_one_does_not() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let _locks = locks(&bench);
    let log = bench.path("peer0.log");
    std::fs::write(&log, "2020-01-01 00:00:00.000 UTC 1 PANI [gossip.state] commitBlock -> an old one\n").unwrap();
    let platform = host(&bench, |inventory| {
        give_operations(inventory, ("", ""), None);
        for node in
            inventory.organizations.iter_mut().filter(|known| known.name == "Org1").flat_map(|known| &mut known.nodes)
        {
            node.log = (node.name == "peer0").then(|| log.display().to_string());
        }
    });
    bench.capture_from(&platform, &options(window(Some(hook(&bench))))).unwrap();
    let line = "2099-01-01 00:00:00.000 UTC 2 PANI [gossip.state] commitBlock -> Cannot commit block to the ledger due to unexpected Previous block hash";
    std::fs::write(&log, line).unwrap();
    let findings = refused(bench.capture_from(&platform, &options(window(Some(hook(&bench))))));
    let finding = named(&findings, "I1", "Org1/peer0");
    assert!(
        finding.what.contains("its log says") && format!("{:?}", finding.remedy).contains("restore the peer"),
        "{finding:?}"
    );
    assert_eq!(reported(&bench), "closed\nopen\nclosed\nopen\n");
}
