//! What the engine tells while it works; a reporter draws it.

use std::path::Path;

use fabkeep_network::Finding;

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
    /// What the step waits for now.
    Said(&'a str),
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
    reporter.event(Event::Begin { step: name, total_bytes });
    let result = work();
    reporter.event(Event::End { step: name, seconds: begun.elapsed().as_secs_f64() });
    result
}
