//! Files beside the nodes' stores: what grows, what has no name or no rights, what is no file.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use super::{assert_found, assert_refused, verdict};
use crate::bench::Bench;
use fabkeep_engine::{CaptureOptions, Event, Reporter, VerifyLevel, capture};
use fabkeep_network::Severity;
use fabkeep_store::WriterKey;

/// Writes to a file each time a step ends, as a process that logs.
struct Writes<'a> {
    path: &'a std::path::Path,
    line: &'a [u8],
    append: bool,
}

impl Reporter for Writes<'_> {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::End { .. }) {
            let mut file = fs::OpenOptions::new().append(self.append).write(true).open(self.path).unwrap();
            file.write_all(self.line).unwrap();
        }
    }
}

fn capture_while(bench: &Bench, writes: &Writes<'_>) -> Vec<fabkeep_network::Finding> {
    let key = WriterKey::read(&bench.writer_file()).unwrap();
    match capture(&bench.host(), &bench.repository(), key, &CaptureOptions::default(), writes) {
        Ok(captured) => captured.point.findings,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_log_of_no_node_that_grows_is_kept_to_the_length_that_it_had() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let log = bench.network().join("Org1/users/tool.log");
    fs::write(&log, "first line\n").unwrap();
    let findings = capture_while(&bench, &Writes { path: &log, line: b"one more line\n", append: true });
    assert_found(&findings, "B6", "tool.log", "it grew while it was captured");
    assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
    bench.verify(VerifyLevel::Full).unwrap();
    let restored = bench.restore_all().unwrap().join("Org1/users/tool.log");
    assert!(fs::read_to_string(restored).unwrap().starts_with("first line\n"));
}

#[test]
fn a_file_of_no_node_that_is_written_over_is_warned_of() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let file = bench.network().join("Org1/users/state");
    fs::write(&file, "0123456789").unwrap();
    let findings = capture_while(&bench, &Writes { path: &file, line: b"x", append: false });
    assert_found(&findings, "B6", "state", "two versions");
}

#[test]
fn a_name_that_is_not_utf8_is_a_finding_beside_the_others() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let name = std::ffi::OsStr::from_bytes(b"odd\xff.txt");
    fs::write(bench.network().join("Org1/peer0/msp").join(name), "x").unwrap();
    fs::remove_dir_all(bench.network().join("Org1/peer1/msp/keystore")).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(!made);
    assert_found(&findings, "B6", "Org1/peer0", "not UTF-8");
}

#[test]
fn a_socket_is_reported_and_not_kept() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let socket = bench.network().join("Org1/peer0/production/socket");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made);
    assert_found(&findings, "B6", "Org1/peer0 socket", "socket");
}

#[test]
fn a_link_out_of_the_directory_is_an_error_if_it_leads_nowhere_or_to_what_is_somebody_elses() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let link = bench.network().join("Org1/peer0/msp/elsewhere");
    std::os::unix::fs::symlink("/no/such/file", &link).unwrap();
    assert_refused(&bench, "B7", "Org1/peer0", "elsewhere");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    // Of root's files only links of root's own may lead to them.
    match std::os::unix::fs::lchown(&link, Some(7051), Some(7051)) {
        Ok(()) => assert_refused(&bench, "B7", "Org1/peer0", "elsewhere"),
        Err(error) => eprintln!("not tried: a link of another user cannot be made here ({error})"),
    }
}

#[test]
fn what_of_the_metadata_is_not_captured_is_a_finding() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let msp = bench.network().join("Org1/peer0/msp");
    fs::hard_link(msp.join("config.yaml"), bench.path("another-name")).unwrap();
    fs::set_permissions(msp.join("signcerts"), fs::Permissions::from_mode(0o4755)).unwrap();
    let tool = bench.network().join("Org1/users/tool");
    fs::write(&tool, "x").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o6755)).unwrap();
    let listed = bench.network().join("Org1/peer0/config/core.yaml");
    let attribute = rustix::fs::setxattr(&listed, "user.note", b"x", rustix::fs::XattrFlags::empty());
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B6", "Org1/peer0 config.yaml", "hard link");
    assert_found(&findings, "B6", "Org1/peer0 signcerts", "set-user-id");
    assert_found(&findings, "B6", "tool", "set-user-id");
    // The file system of temporary files may have no attributes.
    if attribute.is_ok() {
        assert_found(&findings, "B6", "core.yaml", "extended attributes");
    }
    // It can be restored.
    bench.restore_all().unwrap();
}

#[test]
fn a_name_that_a_restore_would_refuse_is_refused_before_the_commit() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    fs::write(bench.network().join("Org1/peer0/msp/two\tcolumns"), "x").unwrap();
    assert_refused(&bench, "B7", "Org1/peer0", "control character");
}

#[test]
fn a_link_among_ordinary_files_that_leads_out_of_them_is_left_out_with_a_warning() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let link = bench.network().join("Org1/users/peer.service");
    std::os::unix::fs::symlink("/etc/systemd/system/peer.service", &link).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    assert_found(&findings, "B7", "peer.service", "the link is not captured");
    assert!(bench.restore_all().unwrap().join("Org1/users/peer.service").symlink_metadata().is_err());
}

#[test]
fn of_several_certificates_in_signcerts_the_first_is_the_nodes_own() {
    let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
    let signcerts = bench.network().join("Org1/peer0/msp/signcerts");
    let own = fs::read_dir(&signcerts).unwrap().next().unwrap().unwrap().path();
    let other = fs::read_dir(bench.network().join("Org2/peer0/msp/signcerts")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&other, signcerts.join("zz-old.pem")).unwrap();
    let (made, findings) = verdict(&bench, &CaptureOptions::default());
    assert!(made, "{findings:#?}");
    super::assert_no_alarm(&findings);
    fs::rename(&own, signcerts.join("zzz.pem")).unwrap();
    assert_refused(&bench, "I5", "Org1/peer0", "zz-old.pem");
}

#[test]
fn a_part_of_a_directory_that_cannot_be_listed_is_a_finding_beside_the_others() {
    // In files of no node, in a node's keys, in data that a running node would lock.
    for (folder, about) in [
        ("Org1/users", "a part of its other directory cannot be listed"),
        ("Org1/peer0/msp", "a part of its msp directory cannot be listed"),
        ("Org1/peer0/production/ledgersData", "a part of its peer-data directory cannot be listed"),
    ] {
        let bench = Bench::new(fabkeep_fixtures::NETWORK_SMALL);
        let deep = (0..70).fold(bench.network().join(folder).join("deep"), |path, _| path.join("d"));
        fs::create_dir_all(deep).unwrap();
        fs::remove_dir_all(bench.network().join("Org2/peer1/production/ledgersData/pvtdataStore")).unwrap();
        let (made, findings) = verdict(&bench, &CaptureOptions::default());
        assert!(!made, "{folder}: {findings:#?}");
        assert_found(&findings, "B6", &format!("{folder}/deep/d/d"), about);
        assert_found(&findings, "I2", "Org2/peer1", "the private-data store is missing");
    }
}
