//! `fabkeep list`.

use fabkeep_engine::remark_finding;
use fabkeep_network::{Finding, Severity};
use fabkeep_store::{Commit, History, Mark, PointId, Remark, RemarkKind, Repository, StoreError};
use serde_json::json;

use super::{done, key_files};
use crate::arguments::List;
use crate::error::CliError;
use crate::exit_code::Code;
use crate::output::{Output, table, units};

pub fn run(arguments: &List, output: &Output) -> Result<Code, CliError> {
    let repository = key_files::open(&arguments.repo.repo, arguments.pin.root.as_deref())?;
    let history = repository.history()?;
    let findings = findings(&repository, &history, None, arguments.expect_at_least.as_deref())?;
    let (bytes, objects) = repository.usage()?;
    let marks = repository.marks(&history)?;
    let mut table = table(["point", "network", "nodes", "heights", "files", "added", "verdict", "marks"]);
    for commit in &history.commits {
        let heights: Vec<String> =
            commit.summary.channels.iter().map(|channel| format!("{} {}", channel.channel, channel.height)).collect();
        table.add_row([
            commit.id.to_string(),
            commit.summary.network.clone(),
            commit.summary.nodes.to_string(),
            heights.join(", "),
            units::bytes(commit.summary.source_bytes),
            units::bytes(commit.new_bytes),
            commit.summary.verdict.clone(),
            marked(&marks.of(&commit.id)),
        ]);
    }
    let of_points: Vec<_> = history
        .commits
        .iter()
        .map(|commit| (&commit.id, marks.of(&commit.id)))
        .filter(|(_, mark)| mark.hold || !mark.tags.is_empty())
        .map(|(point, mark)| json!({"point": point, "tags": mark.tags, "hold": mark.hold}))
        .collect();
    let damaged: Vec<&Finding> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    output.json(&json!({
        "repository": repository.config(), "points": history.commits, "damaged": damaged, "findings": findings, "bytes": bytes,
        "objects": objects, "marks": of_points,
    }));
    if history.commits.is_empty() {
        output.line(format!("no recovery point yet; next: fabkeep backup --repo {}", arguments.repo.repo));
    } else {
        output.line(table.to_string());
    }
    output.line(format!("{} in {}", units::bytes(bytes), units::objects(objects)));
    output.findings(&findings);
    Ok(code(&findings))
}

/// Returns the marks of a recovery point: `hold` and its tags.
pub fn marked(mark: &Mark) -> String {
    let hold = mark.hold.then_some("hold");
    hold.into_iter().chain(mark.tags.iter().map(String::as_str)).collect::<Vec<_>>().join(", ")
}

/// What a command that has done its work ends with, by what is wrong with the repository.
pub fn code(findings: &[Finding]) -> Code {
    let damaged = findings.iter().any(|finding| finding.severity == Severity::Error);
    if damaged { Code::Damaged } else { done(findings) }
}

/// Returns a recovery point's commit record. Whoever asks for the latest one gets what is not as it should be among the commits.
///
/// # Errors
/// [`Code::Damaged`] when the latest one was committed, and its commit record is damaged or gone: an older one is not taken for it.
pub fn point(repository: &Repository, wanted: &str) -> Result<(Commit, Vec<Finding>), CliError> {
    if wanted != "latest" {
        return Ok((repository.point(wanted)?, Vec::new()));
    }
    let history = repository.history()?;
    let mut remarks = history.remarks.clone();
    remarks.extend(remembered(repository, &history, None));
    let newer = |remark: &Remark| {
        let id = remark.object.strip_prefix("points/").and_then(PointId::parse);
        let lost = matches!(remark.kind, RemarkKind::Damaged | RemarkKind::Missing);
        lost && id.is_some_and(|id| history.latest().is_none_or(|latest| id > latest.id))
    };
    let findings = as_findings(&remarks);
    if remarks.iter().any(newer) {
        let next = match history.latest() {
            Some(latest) => {
                format!("restore it from a copy of the repository, or name another recovery point: {}", latest.id)
            }
            None => "restore it from a copy of the repository".to_owned(),
        };
        let mut error =
            CliError::new(Code::Damaged, "the latest recovery point was committed and cannot be read", next);
        error.findings = findings;
        return Err(error);
    }
    let latest = history.latest().cloned().ok_or_else(|| StoreError::NoSuchPoint(wanted.to_owned()))?;
    Ok((latest, findings))
}

/// Returns the problems of a repository: what its objects say, what this machine remembers, what is expected.
pub fn findings(
    repository: &Repository,
    history: &History,
    writer: Option<&std::path::Path>,
    expected: Option<&str>,
) -> Result<Vec<Finding>, CliError> {
    let mut remarks = history.remarks.clone();
    remarks.extend(repository.marks(history)?.remarks);
    remarks.extend(repository.strays()?);
    remarks.extend(remembered(repository, history, writer));
    if let Some(point) = expected {
        remarks.extend(repository.expected(point, history)?);
    }
    Ok(as_findings(&remarks))
}

/// Returns what this machine's writer remembers and the repository does not have.
fn remembered(repository: &Repository, history: &History, writer: Option<&std::path::Path>) -> Option<Remark> {
    repository.remembered(&key_files::writer_if_any(repository, writer)?, history)
}

/// Returns the findings, the worst first, without duplicates.
fn as_findings(remarks: &[Remark]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = remarks.iter().map(remark_finding).collect();
    findings.sort_by(|a, b| (b.severity, a.rule, &a.subject).cmp(&(a.severity, b.rule, &b.subject)));
    findings.dedup_by(|a, b| a.subject == b.subject && a.rule == b.rule);
    findings
}
