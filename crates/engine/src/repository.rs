//! Converts the repository's remarks into findings.

use fabkeep_network::{Finding, Remedy, Rule};
use fabkeep_store::{Remark, RemarkKind};

/// Returns a remark on the repository as a finding.
pub fn remark_finding(remark: &Remark) -> Finding {
    let subject = format!("repository {}", remark.object);
    let what = remark.problem.clone();
    match remark.kind {
        RemarkKind::Foreign => Finding::warning(
            Rule::RepositoryOwn,
            subject,
            what,
            "it was ignored; find out who can write to the repository, then remove the object",
        ),
        RemarkKind::Damaged => Finding::error(
            Rule::RepositoryOwn,
            subject,
            what,
            "it was ignored; restore the object from a copy of the repository, and make a new recovery point now",
        ),
        RemarkKind::Missing => Finding::error(
            Rule::CommitChain,
            subject,
            what,
            "restore the object from a copy of the repository, and find out who can delete there; a new recovery point captures what the nodes have now",
        ),
        RemarkKind::Replaced => Finding::error(
            Rule::RepositoryOwn,
            subject,
            what,
            "it is used, as its signature is valid: find out who holds the key of its writer, and compare the recovery point with a copy of the repository",
        ),
        RemarkKind::Unindexed => Finding::warning(
            Rule::RepositoryOwn,
            subject,
            what,
            "find out who can delete or write in the repository; put the object back if a copy of the repository has it: without it, checks of this point need the identity",
        ),
        RemarkKind::Uncommitted => Finding::warning(
            Rule::CommitChain,
            subject,
            what,
            "if a backup was killed then, the next one with the same writer key file records that, and this warning ends; if none was killed and none runs, restore the commit record (points/) from a copy of the repository",
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
        RemarkKind::Place => Finding::warning(
            Rule::RepositoryOwn,
            subject,
            what,
            "find out who can delete in the repository; delete the object if it is damaged, then forget the points again: this gives the place a new name",
        ),
        RemarkKind::Note => Finding::note(
            Rule::CommitChain,
            subject,
            what,
            Remedy::from("make the folder of the writer key writable").or(Remedy::ExpectPoint),
        ),
    }
}
