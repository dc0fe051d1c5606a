//! Orderers that stay while another comes back older than it was: they are restarted first, one at a time.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fabkeep_engine::{
    Done, EngineError, Event, Reporter, RestoreOptions, RestorePlan, RestoreStep, RestoreTarget, Silent,
};
use fabkeep_fixtures::Growth;
use fabkeep_network::{Finding, Severity};

use super::place::{Place, refused};

const RESTORED: &str = "OrdererOrg/orderer2";
/// The one that leads comes last.
const OTHERS: [&str; 2] = ["orderer3", "orderer1"];

/// Answers as an orderer's operations endpoint does while no file says that it is stopped; the first of `leads` that is not stopped leads.
fn operations(folder: PathBuf, name: &'static str) -> u16 {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let mut listener = Some(first);
    std::thread::spawn(move || {
        loop {
            let stopped = |name: &str| folder.join(format!("{name}.stopped")).exists();
            // Nothing listens while it is stopped.
            if stopped(name) {
                listener = None;
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let open = listener.get_or_insert_with(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
            open.set_nonblocking(true).unwrap();
            let Ok((mut stream, _)) = open.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            stream.set_nonblocking(false).unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let leader = if folder.join("no-leader").exists() { "" } else { "orderer1" };
            let leads = u8::from(name == leader || (name == "orderer3" && leader == "orderer1" && stopped("orderer1")));
            let mut text = String::new();
            for (channel, height) in [("mychannel", 37), ("settlement", 8)] {
                text += &format!(
                    "ledger_blockchain_height{{channel=\"{channel}\"}} {height}\n\
                     consensus_etcdraft_is_leader{{channel=\"{channel}\"}} {leads}\n\
                     participation_consensus_relation{{channel=\"{channel}\"}} 1\n"
                );
            }
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
        }
    });
    port
}

/// A network that went on while one of its orderers was lost; the others run, and have commands.
fn went_on() -> Place {
    let mut place = Place::new(&[RESTORED]);
    let lost = place.path("OrdererOrg/orderer2/production");
    let kept = place.bench.path("kept");
    super::bench::copy(&lost, &kept);
    Growth::open(&place.bench.network(), "mychannel").unwrap().grow(10, 2).unwrap();
    std::fs::remove_dir_all(&lost).unwrap();
    super::bench::copy(&kept, &lost);
    let folder = place.bench.path("running");
    std::fs::create_dir(&folder).unwrap();
    let organizations = place.inventory.organizations.iter_mut().filter(|known| known.name == "OrdererOrg");
    for node in organizations.flat_map(|known| &mut known.nodes).filter(|node| node.name.starts_with("orderer")) {
        let (stopped, calls) = (folder.join(format!("{}.stopped", node.name)), folder.join("calls"));
        let (stopped, calls) = (stopped.display(), calls.display());
        node.commands.stop = Some(format!("touch {stopped}; echo stop {} >> {calls}", node.name));
        node.commands.start = Some(format!("rm -f {stopped}; echo start {} >> {calls}", node.name));
        node.commands.status = Some(format!("test ! -e {stopped}"));
        if let Some(name) = OTHERS.into_iter().find(|name| *name == node.name) {
            node.operations = Some(format!("http://127.0.0.1:{}", operations(folder.clone(), name)));
        } else {
            std::fs::write(folder.join("orderer2.stopped"), b"").unwrap();
        }
    }
    place
}

fn calls(place: &Place) -> Vec<String> {
    let text = std::fs::read_to_string(place.bench.path("running/calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn options(place: &Place) -> RestoreOptions {
    RestoreOptions { restart_others: true, start: true, deadline: Duration::from_secs(2), ..place.options() }
}

fn found<'a>(findings: &'a [Finding], part: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.rule.code() == "O2" && finding.what.contains(part))
        .unwrap_or_else(|| panic!("{part:?}: {findings:?}"))
}

const WHOLE: [&str; 5] = ["stop orderer3", "start orderer3", "stop orderer1", "start orderer1", "start orderer2"];

#[test]
fn every_other_orderer_is_restarted_one_at_a_time_before_the_restored_one_is_started() {
    let place = went_on();
    let without = RestoreOptions { restart_others: false, ..options(&place) };
    let findings = refused(place.restore(&without, &Silent));
    let refusal = found(&findings, "tocommit(N) is out of range");
    let remedy = format!("{:?}", refusal.remedy);
    assert!(remedy.contains("Replicate") && remedy.contains("RestartOthers"), "{refusal:?}");
    assert_eq!(calls(&place), Vec::<String>::new());

    let (repository, host) = (place.bench.repository(), place.host());
    let (commit, identity) = (repository.point("latest").unwrap(), place.bench.identity());
    let target = RestoreTarget::Host(&host);
    let plan = RestorePlan::make(&repository, &commit, &identity, &target, &options(&place)).unwrap();
    let steps: Vec<&RestoreStep> = plan.steps.iter().rev().take(3).rev().collect();
    let restart = |node: &str| RestoreStep::Restart { node: format!("OrdererOrg/{node}") };
    let start = RestoreStep::Start { nodes: vec![RESTORED.to_owned()] };
    assert_eq!(steps, [&restart("orderer3"), &restart("orderer1"), &start]);
    assert!(plan.findings.iter().all(|finding| finding.severity < Severity::Error), "{:?}", plan.findings);
    assert!(plan.findings.iter().all(|finding| !finding.what.contains("panics")), "{:?}", plan.findings);
    let restored = plan.execute(&Silent).unwrap();
    assert_eq!(calls(&place), WHOLE);
    assert_eq!(restored.started, [RESTORED]);
}

/// Ends at the end of the first restart.
struct EndsBehind(AtomicBool, &'static str);

impl Reporter for EndsBehind {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::End { step, .. } if step == self.1) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_run_that_ends_between_two_restarts_is_gone_on_with() {
    let place = went_on();
    let first = place.restore(&options(&place), &EndsBehind(AtomicBool::new(false), "restart OrdererOrg/orderer3"));
    let Err(EngineError::Interrupted { done, .. }) = first else { panic!("{first:?}") };
    assert!(done.contains(&Done::NodeRestarted { node: "OrdererOrg/orderer3".to_owned() }), "{done:?}");
    assert_eq!(calls(&place), WHOLE[..2]);
    place.restore(&options(&place), &Silent).unwrap();
    assert_eq!(calls(&place), WHOLE);

    // One that was stopped and not started again is started.
    let place = went_on();
    std::fs::write(place.bench.path("running/no-leader"), b"").unwrap();
    let first = place.restore(&options(&place), &Silent);
    let Err(EngineError::Interrupted { done, source, .. }) = first else { panic!("{first:?}") };
    assert!(format!("{source:?}").contains("has no leader"), "{source:?}");
    // It runs again, as far as is known: that it was stopped would be wrong.
    assert!(done.contains(&Done::NodeRestarting { node: "OrdererOrg/orderer1".to_owned() }), "{done:?}");
    assert!(!done.iter().any(|done| matches!(done, Done::NodeStopped { .. })), "{done:?}");
    assert_eq!(calls(&place), ["stop orderer1", "start orderer1"], "nobody leads, so that the first one comes first");
    std::fs::write(place.bench.path("running/orderer1.stopped"), b"").unwrap();
    std::fs::remove_file(place.bench.path("running/no-leader")).unwrap();
    place.restore(&options(&place), &Silent).unwrap();
    assert_eq!(calls(&place)[2..], ["start orderer1", "stop orderer3", "start orderer3", "start orderer2"]);
}

/// The journal of the run that ended says that the others were restarted; what is restored once more was running since.
#[test]
fn a_restored_orderer_that_ran_meanwhile_is_not_taken_for_one_that_did_not() {
    let place = went_on();
    let ends = || EndsBehind(AtomicBool::new(false), "restart OrdererOrg/orderer3");
    place.restore(&options(&place), &ends()).unwrap_err();
    // Somebody starts it.
    std::fs::remove_file(place.bench.path("running/orderer2.stopped")).unwrap();
    let error = format!("{:?}", place.restore(&options(&place), &Silent).unwrap_err());
    assert!(error.contains("started before every other orderer was restarted"), "{error}");
    // It has written meanwhile: all begins anew.
    let chain: PathBuf = place.path("OrdererOrg/orderer2/production/chains/settlement/blockfile_000000");
    grow(&chain);
    std::fs::write(place.bench.path("running/orderer2.stopped"), b"").unwrap();
    place.restore(&options(&place), &Silent).unwrap();
    assert_eq!(calls(&place)[..2], WHOLE[..2]);
    assert_eq!(calls(&place)[2..], WHOLE);
}

fn grow(file: &Path) {
    let mut file = std::fs::File::options().append(true).open(file).unwrap();
    file.write_all(b"\x7f").unwrap();
}

#[test]
fn others_that_cannot_be_restarted_are_told_before_anything_is_changed() {
    let mut place = went_on();
    let orderers = |place: &mut Place, change: &dyn Fn(&mut fabkeep_platform::InventoryNode)| {
        let organizations = place.inventory.organizations.iter_mut().filter(|known| known.name == "OrdererOrg");
        organizations.flat_map(|known| &mut known.nodes).for_each(change);
    };
    let tell = |place: &Place, part: &str, remedy: &str| {
        let findings = refused(place.restore(&options(place), &Silent));
        let finding = found(&findings, part);
        assert!(format!("{:?}", finding.remedy).contains(remedy), "{finding:?}");
        assert_eq!(calls(place), Vec::<String>::new());
    };
    let whole = place.inventory.clone();
    orderers(&mut place, &|node| {
        if node.name == "orderer3" {
            node.commands.stop = None
        }
    });
    tell(&place, "has no stop command", "[organization.node.commands]");
    orderers(&mut place, &|node| node.operations = None);
    tell(&place, "no orderer tells which of them leads", "operations");
    place.inventory = whole.clone();
    place.inventory.organizations.iter_mut().for_each(|known| known.nodes.retain(|node| node.name != "orderer3"));
    tell(&place, "only 2 orderers are known here", "inventory");
    place.inventory = whole;
    std::fs::write(place.bench.path("running/orderer3.stopped"), b"").unwrap();
    tell(&place, "1 of its 3 consenters run", "start the others first");
    let peer = RestoreOptions { nodes: vec!["Org1/peer0".to_owned()], ..options(&place) };
    let error = place.restore(&peer, &Silent).unwrap_err();
    assert!(matches!(&error, EngineError::Usage(misuse) if misuse.problem.contains("no raft orderer")), "{error:?}");
}

/// An orderer that comes back empty is remembered just as well.
#[test]
fn others_are_restarted_also_before_one_that_comes_back_empty() {
    let place = went_on();
    let empty = RestoreOptions { replicate: vec![RESTORED.to_owned()], ..options(&place) };
    place.restore(&empty, &Silent).unwrap();
    assert_eq!(calls(&place), WHOLE);
}
