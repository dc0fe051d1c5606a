//! The exit codes. `docs/exit-codes.md` documents them.

/// The exit codes of fabkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Done, nothing to look at.
    Done = 0,
    /// Something failed that should not: a disk, the network, a bug.
    Failed = 1,
    /// The command line, a key file or the inventory is wrong.
    Usage = 2,
    /// Done, with warnings to look at.
    DoneWithFindings = 3,
    /// Refused: a rule is broken. Nothing was committed (backup) or changed (restore).
    Refused = 4,
    /// A recovery point or the repository is damaged.
    Damaged = 5,
    /// A restore ended early after its first change: what was done is listed; the same command continues. Or a window stays open.
    Incomplete = 6,
    /// What a restore wrote is not what was captured.
    Unproven = 7,
    /// A drill proved the point, but took longer, or the point was older, than allowed.
    OverLimit = 8,
    /// Stopped by Ctrl-C; the same command continues.
    Interrupted = 130,
}

impl From<Code> for std::process::ExitCode {
    fn from(code: Code) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}
