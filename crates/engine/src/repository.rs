//! What is not as it should be in a repository, as findings.

use fabkeep_network::{Finding, Rule};
use fabkeep_store::{Remark, RemarkKind};

/// A remark on the repository as a finding.
pub fn remark_finding(remark: &Remark) -> Finding {
    let subject = format!("repository {}", remark.object);
    let what = remark.problem.clone();
    match remark.kind {
        RemarkKind::Foreign => Finding::warning(
            Rule::RepositoryOwn,
            subject,
            what,
            "it was passed over; find out who can write to the repository, then remove the object",
        ),
        RemarkKind::Damaged => Finding::error(
            Rule::RepositoryOwn,
            subject,
            what,
            "it was passed over; bring the object back from a copy of the repository, and make a new recovery point now",
        ),
        RemarkKind::Missing => Finding::error(
            Rule::CommitChain,
            subject,
            what,
            "bring the object back from a copy of the repository, and find out who can delete there; a new recovery point holds what the nodes have now",
        ),
        RemarkKind::Uncommitted => Finding::warning(
            Rule::CommitChain,
            subject,
            what,
            "if no backup runs and none was killed then, bring the commit record back from a copy of the repository (points/)",
        ),
        RemarkKind::Clock => Finding::warning(
            Rule::CommitClock,
            subject,
            what,
            "set the clocks of the machines that write backups; `latest` is the recovery point that was committed last",
        ),
        RemarkKind::PutAgain => {
            Finding::warning(Rule::RepositoryOwn, subject, what, "find out who can delete in the repository")
        }
        RemarkKind::Note => Finding::note(
            Rule::CommitChain,
            subject,
            what,
            "let the folder of the writer key be written to, or use `fabkeep verify --expect-at-least POINT`",
        ),
    }
}
