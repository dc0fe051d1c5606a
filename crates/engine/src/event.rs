//! Events that the engine emits while it works; a reporter displays them.

use std::path::Path;

use fabkeep_network::{Finding, Grown};
use fabkeep_platform::Progress;
use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A step begins. `total_bytes` is what it has to go through, when that is known.
    Begin {
        /// The step.
        step: &'a str,
        /// Bytes to go through.
        total_bytes: Option<u64>,
    },
    /// The step came further.
    Advance {
        /// Bytes gone through since the last event.
        bytes: u64,
        /// Blocks gone through since the last event.
        blocks: u64,
    },
    /// The step is done.
    End {
        /// The step.
        step: &'a str,
        /// How long it took.
        seconds: f64,
    },
    /// Something was found.
    Found(&'a Finding),
    /// What the step does or waits for now.
    Notice(Notice<'a>),
}

/// What a step does or waits for, or what changed its way.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "notice", rename_all = "kebab-case")]
pub enum Notice<'a> {
    /// The platform's.
    Platform(&'a Progress<'a>),
    /// The nodes are stopped.
    StoppingNodes,
    /// Pods of stopped workloads are still there.
    PodsGoing,
    /// These chains are behind: channel, node and height.
    Behind {
        /// Each in words.
        chains: &'a [String],
    },
    /// A chain grew inside a window.
    Grew {
        /// Which.
        grown: &'a Grown,
    },
    /// A window is extended, because chains grew in it.
    WindowExtended {
        /// How many chains.
        chains: usize,
    },
    /// A window could not be undone.
    WindowLeft {
        /// Why.
        problem: &'a str,
    },
    /// A capture falls back from a cut to a window, as asked.
    FallsBack,
    /// The capture reads the nodes once more: they moved while they were read.
    OnceMore {
        /// What did not fit.
        finding: &'a Finding,
    },
}

/// Draws events. Called from several threads.
pub trait Reporter: Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);

    /// Whether the user asked to stop; looked at between pieces of work.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Called before each change that a restore makes to a file system: what is done, and to which path.
    fn changing(&self, _what: &'static str, _path: &Path) {}
}

/// Draws nothing.
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// Runs `work` as a step: begin and end are reported, also when it fails.
pub(crate) fn step<T>(reporter: &dyn Reporter, name: &str, total_bytes: Option<u64>, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    tracing::info!(step = name, total_bytes, "begins");
    reporter.event(Event::Begin { step: name, total_bytes });
    let result = work();
    let seconds = begun.elapsed().as_secs_f64();
    reporter.event(Event::End { step: name, seconds });
    tracing::info!(step = name, seconds, "ends");
    result
}
