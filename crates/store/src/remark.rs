//! Remarks on a repository: objects of others, missing objects, commits that are missing from the chain.

use serde::Serialize;

/// What kind of thing a remark is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemarkKind {
    /// An object that no writer of the repository has put, or that cannot be read as one: it is passed over.
    Foreign,
    /// A commit record, an index or a certificate that was the repository's, and is damaged or not to be trusted.
    Damaged,
    /// A commit record that is signed by a writer and is not the one that another commit names: it is used.
    Replaced,
    /// Something that another object names is not there.
    Missing,
    /// A recovery point's index is missing or damaged: the point can be restored without it.
    Unindexed,
    /// A manifest and an index without commit record.
    Uncommitted,
    /// A recovery point whose time contradicts the order of commits.
    Clock,
    /// Something that was gone has been put again.
    PutAgain,
    /// The name of the place is gone or damaged.
    Place,
    /// Something that the repository or this machine cannot do, and that is good to know.
    Note,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// The object's name, or what it is about.
    pub object: String,
    /// What kind.
    pub kind: RemarkKind,
    /// What is wrong, as a sentence without its subject.
    pub problem: String,
}

impl Remark {
    pub(crate) fn new(kind: RemarkKind, object: impl Into<String>, problem: impl Into<String>) -> Self {
        Remark { object: object.into(), kind, problem: problem.into() }
    }
}
