//! `fabkeep report`: everything about a recovery point, as a page, as JSON or in short.

use std::io::{Read, Write};
use std::path::Path;

use fabkeep_engine::{CommandPurpose, Report, ReportedPoint, report};
use fabkeep_network::Severity;

use super::{done, key_files, list};
use crate::arguments;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::report_page::{self, GENERATOR};
use crate::output::{Output, units};

pub fn run(arguments: &arguments::Report, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let (commit, findings) = list::point(&repository, &arguments.point)?;
    output.remarks(&findings);
    let identity = key_files::identity(&repository, &arguments.identity)?;
    let location = &arguments.repo.repo;
    let made = report(&repository, &commit, &identity, &|point, purpose| command(location, point, purpose))?;
    if let Some(file) = &arguments.html {
        write_page(file, report_page::render(&made)?.as_bytes())?;
    }
    output.json(&made);
    print(&made, output);
    if let Some(file) = &arguments.html {
        output.line(format!("report: {}", file.display()));
    }
    Ok(done(&findings))
}

/// Returns the command for a purpose, as it is typed.
fn command(location: &str, point: &ReportedPoint, purpose: &CommandPurpose) -> String {
    let (repo, id) = (shell_word(location), &point.id);
    let place = if point.kubernetes { "--kubernetes" } else { "--inventory fabkeep.toml" };
    match purpose {
        CommandPurpose::Verify => format!("fabkeep verify {id} --repo {repo}"),
        CommandPurpose::Plan => format!("fabkeep restore {id} --repo {repo} {place} --dry-run"),
        CommandPurpose::Restore if point.kubernetes => format!("fabkeep restore {id} --repo {repo} {place}"),
        CommandPurpose::Restore => format!("fabkeep restore {id} --repo {repo} {place} --replace"),
        CommandPurpose::RestoreMissing => format!("fabkeep restore {id} --repo {repo} {place} --missing"),
        CommandPurpose::RestoreNode(node) => {
            format!("fabkeep restore {id} --repo {repo} {place} --node {} --replace", shell_word(node))
        }
        CommandPurpose::RestoreIntoFolder => format!("fabkeep restore {id} --repo {repo} --to restored"),
        CommandPurpose::EarlierHeight(channel) => {
            let height = shell_word(&format!("{channel}=HEIGHT"));
            format!("fabkeep restore {id} --repo {repo} {place} --replace --at-height {height} --dry-run")
        }
    }
}

/// Returns a word of a shell's command line. What comes from a network is never executed when it is pasted.
fn shell_word(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=@%+,".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Writes a page. Only an earlier page is replaced.
fn write_page(file: &Path, page: &[u8]) -> Result<(), CliError> {
    match std::fs::File::open(file) {
        Ok(there) => {
            let mut begin = Vec::new();
            there.take(512).read_to_end(&mut begin).map_err(CliError::io(file))?;
            if !begin.is_empty() && !String::from_utf8_lossy(&begin).contains(GENERATOR) {
                return Err(CliError::new(
                    Code::Refused,
                    format!("{} exists and is no report of fabkeep; nothing was changed", file.display()),
                    "name another file (--html FILE)",
                ));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(CliError::io(file)(error)),
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    let unfinished = Path::new(&name);
    let written =
        std::fs::File::create(unfinished).and_then(|mut out| out.write_all(page).and_then(|()| out.sync_all()));
    written.and_then(|()| std::fs::rename(unfinished, file)).map_err(CliError::io(file))
}

fn print(report: &Report, output: &Output) {
    let point = &report.point;
    output.line(format!("network {}: {}", point.network, point.verdict));
    output.line(format!("  recovery point {}, captured {}", point.id, units::moment(&point.captured)));
    output.line(format!("  RPO: what was written in the last {} is not in it", units::span(report.rpo.seconds)));
    output.line(match &report.rto {
        Some(rto) => format!("  RTO: {}, measured {}", units::seconds(rto.seconds), units::moment(&rto.measured)),
        None => "  RTO: not measured".to_owned(),
    });
    report.proven.iter().for_each(|sentence| output.line(format!("  proven: {sentence}")));
    report.not_proven.iter().for_each(|sentence| output.line(format!("  not proven: {sentence}")));
    let warnings = report.findings.iter().filter(|finding| finding.severity >= Severity::Warning).count();
    output.line(format!(
        "  {} findings, {warnings} of them warnings (`fabkeep show` prints them)",
        report.findings.len()
    ));
    if let Some(first) = report.certificates.first() {
        output.line(format!(
            "  first certificate to expire: {} of {}, in {} days",
            first.common_name, first.node, first.days
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_are_quoted_where_a_shell_would_act_on_them() {
        for (text, word) in [
            ("/backup/fabric", "/backup/fabric"),
            ("s3://bucket/a b", "'s3://bucket/a b'"),
            ("org1/peer0$(rm -r x)", "'org1/peer0$(rm -r x)'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
