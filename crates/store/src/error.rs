//! Errors of the repository.

/// An error of the repository, with what to do about it where there is something to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The place cannot be understood as a repository's place.
    #[error("{location} is not a folder or a URL that can hold a repository: {problem}")]
    Location {
        /// What was given.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing there.
    #[error("there is no repository at {0}")]
    NotARepository(String),
    /// A repository whose settings are gone.
    #[error(
        "{location}: fabkeep.json, the repository's settings, is missing, although {folder}/ is there; nothing was changed"
    )]
    NoSettings {
        /// What was given.
        location: String,
        /// What is there.
        folder: &'static str,
    },
    /// Something there already.
    #[error("{0} is a repository already; nothing was changed")]
    AlreadyARepository(String),
    /// `init` into a folder that holds something else.
    #[error("{0} is not empty and is not a repository; a repository needs a folder of its own")]
    FolderNotEmpty(String),
    /// Written by another version.
    #[error("the repository has format version {found}; this fabkeep reads and writes version {}", crate::FORMAT)]
    Version {
        /// The version found.
        found: u32,
    },
    /// The object store failed.
    #[error("{action} {object}: {source}")]
    Backend {
        /// What was tried.
        action: &'static str,
        /// The object's name.
        object: String,
        /// What the object store said.
        source: object_store::Error,
    },
    /// An object is there, and this user may not read it. That says nothing of its bytes.
    #[error("object {object} may not be read: {problem}")]
    Forbidden {
        /// The object's name.
        object: String,
        /// What the system said.
        problem: String,
    },
    /// An object is missing.
    #[error("object {0} is missing from the repository")]
    Missing(String),
    /// An object is not what it should be.
    #[error("object {object} is damaged: {problem}")]
    Damaged {
        /// The object's name.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// A signature is wrong or of nobody trusted.
    #[error("object {object} cannot be trusted: {problem}")]
    Untrusted {
        /// The object's name.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// The identity reads, and does not vouch for who may write.
    #[error(
        "this identity can read the repository, but the root key {root}, which certifies writers, cannot be derived from it"
    )]
    RootNotPinned {
        /// The root that the settings name.
        root: String,
    },
    /// The writer's certificate is gone.
    #[error("the certificate of the writer key {key} is missing from the repository")]
    NotCertified {
        /// The verifying key.
        key: String,
    },
    /// The writer is revoked.
    #[error("the writer key {key} was revoked at {time}: nothing that it signs counts any more; nothing was changed")]
    WriterRevoked {
        /// The verifying key.
        key: String,
        /// When.
        time: String,
    },
    /// An object of a revoked writer that is not among those that stay trusted.
    #[error("object {object} cannot be trusted: the writer {key} was revoked at {time}")]
    Revoked {
        /// The object's name.
        object: String,
        /// The verifying key.
        key: String,
        /// When.
        time: String,
    },
    /// No such writer.
    #[error("there is no writer {0} in the repository: a writer is named by at least eight digits of its key")]
    NoSuchWriter(String),
    /// A reader would refuse what was to be written.
    #[error("{what} would be larger than {limit} bytes, which no reader accepts; nothing was committed")]
    TooLarge {
        /// The manifest, the index, an object.
        what: &'static str,
        /// What readers accept.
        limit: u64,
    },
    /// The identity does not open the repository.
    #[error("this identity does not open the repository: it was sealed to other recipients")]
    WrongIdentity,
    /// A key file is missing or unreadable.
    #[error("{file}: {problem}")]
    KeyFile {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// No such recovery point.
    #[error("there is no recovery point {0} in the repository")]
    NoSuchPoint(String),
    /// A tag that cannot be one.
    #[error(
        "{0:?} cannot be a tag: a tag has at most 64 letters, digits and characters of . _ - + : @, and does not begin with a hyphen"
    )]
    Tag(String),
    /// A prune frees what a run builds on.
    #[error(
        "{objects} of the objects that this run builds on have gone meanwhile or are being freed by a prune, for example {first}; {}",
        if *committed { "the recovery point was committed and is damaged" } else { "nothing was committed" }
    )]
    FreedMeanwhile {
        /// How many of them.
        objects: usize,
        /// The first of them.
        first: String,
        /// The commit record was put before that was known.
        committed: bool,
    },
    /// A point that must not be forgotten.
    #[error("recovery point {point} cannot be forgotten: {problem}; nothing was changed")]
    CannotForget {
        /// The recovery point.
        point: String,
        /// Why.
        problem: String,
    },
    /// A rule with which nothing would be kept or that is none.
    #[error("{0}")]
    Rules(String),
    /// A grace time that is too short for what depends on it.
    #[error("a grace time of {0} seconds is too short: the shortest is one hour")]
    Grace(i64),
    /// Sealing or serializing failed.
    #[error("{0}")]
    Internal(String),
    /// Local input or output failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl StoreError {
    /// Returns the problem without the object's name.
    pub fn problem(&self) -> String {
        match self {
            StoreError::Damaged { problem, .. } | StoreError::Untrusted { problem, .. } => problem.clone(),
            StoreError::Missing(_) => "it is missing".to_owned(),
            StoreError::Revoked { key, time, .. } => format!("its writer {key} was revoked at {time}"),
            StoreError::Forbidden { problem, .. } => format!("it may not be read: {problem}"),
            other => other.to_string(),
        }
    }

    /// Returns whether a folder cannot be read or written, not an object store.
    pub fn is_of_a_folder(&self) -> bool {
        matches!(
            self,
            StoreError::Backend {
                source: object_store::Error::Generic { store: crate::backend::FOLDER_STORE, .. },
                ..
            }
        )
    }

    /// Returns whether it is the one object's fault, so that others can be gone on with; not the store's, which may answer later.
    pub(crate) fn is_of_the_object(&self) -> bool {
        matches!(
            self,
            StoreError::Damaged { .. }
                | StoreError::Untrusted { .. }
                | StoreError::Revoked { .. }
                | StoreError::Forbidden { .. }
                | StoreError::Missing(_)
                | StoreError::Version { .. }
        )
    }

    /// Returns whether it says that an object is not what was put: this may be recorded. What may not be read is as good as ever.
    pub(crate) fn is_damage(&self) -> bool {
        self.is_of_the_object() && !matches!(self, StoreError::Forbidden { .. })
    }

    pub(crate) fn damaged(object: &str, problem: impl Into<String>) -> Self {
        StoreError::Damaged { object: object.to_owned(), problem: problem.into() }
    }
}
