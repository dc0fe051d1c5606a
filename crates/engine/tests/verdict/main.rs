//! The verdict: what is called complete can be restored. Absence, contradiction, what files order for the next start, earlier points, and
//! faults over all roles by the thousand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../bench/mod.rs"]
mod bench;

mod absence;
mod authorities;
mod contradiction;
mod dates;
mod derived;
mod earlier_points;
mod faults;
mod followers;
mod key_stores;
mod legacy_packages;
mod links;
mod msp_folders;
mod named;
mod other_files;
mod signatures;
mod start_marks;
mod stray_files;
mod torn_logs;

use std::path::Path;

use bench::{Bench, copy, copy_file, data_of};
use fabkeep_engine::{CaptureOptions, EngineError};
use fabkeep_network::{Finding, Severity};

/// What a capture says: the findings of a point that was made, or those that it was refused for.
fn verdict(bench: &Bench, options: &CaptureOptions) -> (bool, Vec<Finding>) {
    match bench.capture(options) {
        Ok(captured) => (true, captured.point.findings),
        Err(EngineError::Refused(findings)) => (false, findings),
        Err(error) => panic!("{error}"),
    }
}

fn assert_refused(bench: &Bench, rule: &str, node: &str, about: &str) {
    let (made, findings) = verdict(bench, &CaptureOptions::default());
    assert!(!made, "{rule} {node} {about}: a recovery point was made; {findings:#?}");
    assert_found(&findings, rule, node, about);
}

fn assert_found(findings: &[Finding], rule: &str, node: &str, about: &str) {
    let wanted = |finding: &&Finding| {
        finding.rule.code() == rule
            && finding.subject.contains(node)
            && format!("{} {}", finding.subject, finding.what).contains(about)
    };
    assert!(findings.iter().any(|finding| wanted(&finding)), "{rule} {node} {about}: {findings:#?}");
}

fn assert_no_alarm(findings: &[Finding]) {
    let alarms: Vec<&Finding> = findings.iter().filter(|finding| finding.severity > Severity::Note).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
}

/// Writes a file whose zeros at the end are a hole.
fn write_sparse(path: &Path, bytes: &[u8], len: u64) {
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn replace(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).unwrap();
    copy(from, to);
}
