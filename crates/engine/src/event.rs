//! Events that the engine emits while it works; a reporter displays them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fabkeep_network::{Finding, Grown};
use fabkeep_platform::{Platform, Progress};
use parking_lot::Mutex;
use serde::Serialize;

use crate::point::Stage;

/// An event of the engine.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A step begins. `total_bytes` is the number of bytes to process, if known.
    Begin {
        /// The step.
        step: &'a str,
        /// Number of bytes to process.
        total_bytes: Option<u64>,
    },
    /// The step has made progress.
    Advance {
        /// Bytes processed since the last event.
        bytes: u64,
        /// Blocks processed since the last event.
        blocks: u64,
    },
    /// The step is done.
    End {
        /// The step.
        step: &'a str,
        /// Its duration in seconds.
        seconds: f64,
    },
    /// A finding.
    Found(&'a Finding),
    /// What the step does or waits for now.
    Notice(Notice<'a>),
}

/// The activity of a step, what it waits for, or a change of its course.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "notice", rename_all = "kebab-case")]
pub enum Notice<'a> {
    /// A notice of the platform.
    Platform(&'a Progress<'a>),
    /// The nodes are stopped.
    StoppingNodes,
    /// Pods of stopped workloads still exist.
    PodsGoing,
    /// These chains are behind: channel, node and height.
    Behind {
        /// Each as text.
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
    /// Volumes are read without snapshots, though snapshots are preferred.
    NoSnapshots {
        /// Why.
        reason: &'a str,
    },
    /// A capture uses a window instead of a cut, as requested.
    FallsBack,
    /// TLS handshakes failed while the nodes did not know each other yet: their logs are read again later.
    HandshakesFailed {
        /// After how many seconds.
        seconds: u64,
    },
    /// The capture reads the nodes once more, because they changed while they were read.
    OnceMore {
        /// What did not match.
        finding: &'a Finding,
    },
}

/// Displays events. It is called from several threads.
pub trait Reporter: Sync {
    /// Receives one event.
    fn event(&self, event: Event<'_>);

    /// Returns whether the user asked to stop; looked at between pieces of work.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Called before each change that a restore makes to a file system: what is done, and to which path.
    fn changing(&self, _what: &'static str, _path: &Path) {}
}

/// Displays nothing.
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// Most stages that are recorded of one run.
const MAX_STAGES: usize = 512;

/// Records how long each step takes, on the way to another reporter.
pub(crate) struct Timed<'a> {
    reporter: &'a dyn Reporter,
    begun: Instant,
    /// Each stage, and whether it goes on.
    stages: Mutex<Vec<(Stage, bool)>>,
}

impl<'a> Timed<'a> {
    pub fn new(reporter: &'a dyn Reporter) -> Self {
        Timed { reporter, begun: Instant::now(), stages: Mutex::default() }
    }

    /// Returns the stages that are over.
    pub fn stages(&self) -> Vec<Stage> {
        self.stages.lock().iter().filter(|(_, open)| !open).map(|(stage, _)| stage.clone()).collect()
    }
}

impl Reporter for Timed<'_> {
    fn event(&self, event: Event<'_>) {
        let mut stages = self.stages.lock();
        match &event {
            Event::Begin { step, .. } if stages.len() < MAX_STAGES => {
                let begun_seconds = self.begun.elapsed().as_secs_f64();
                stages.push((Stage { name: (*step).to_owned(), begun_seconds, seconds: 0.0, bytes: 0 }, true));
            }
            Event::Advance { bytes, .. } => {
                if let Some((stage, _)) = stages.iter_mut().rev().find(|(_, open)| *open) {
                    stage.bytes += bytes;
                }
            }
            Event::End { step, seconds } => {
                if let Some((stage, open)) = stages.iter_mut().rev().find(|(stage, open)| *open && stage.name == *step)
                {
                    (stage.seconds, *open) = (*seconds, false);
                }
            }
            Event::Begin { .. } | Event::Found(_) | Event::Notice(_) => {}
        }
        drop(stages);
        self.reporter.event(event);
    }

    fn is_interrupted(&self) -> bool {
        self.reporter.is_interrupted()
    }

    fn changing(&self, what: &'static str, path: &Path) {
        self.reporter.changing(what, path);
    }
}

/// Runs `work` as a step: begin and end are reported, also when it fails.
pub(crate) fn step<T>(reporter: &dyn Reporter, name: &str, total_bytes: Option<u64>, work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    tracing::info!(step = name, total_bytes, "step begins");
    reporter.event(Event::Begin { step: name, total_bytes });
    let result = work();
    let seconds = begun.elapsed().as_secs_f64();
    reporter.event(Event::End { step: name, seconds });
    tracing::info!(step = name, seconds, "step ends");
    result
}

/// Ends a thread that watches while something is done, however that ends.
pub(crate) struct Ends<'a> {
    /// What the thread looks at.
    pub over: &'a AtomicBool,
    /// The thread.
    pub watcher: &'a std::thread::Thread,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.watcher.unpark();
    }
}

/// How often helper pods that do not start are looked for.
const HELPERS_EVERY: Duration = Duration::from_secs(1);

/// Runs a step that may start helper pods: those that do not run soon are reported, with what the cluster says of them.
pub(crate) fn step_with_helpers<T>(
    reporter: &dyn Reporter,
    platform: &dyn Platform,
    name: &str,
    work: impl FnOnce() -> T,
) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut reported = Vec::new();
            while !over.load(Ordering::Acquire) {
                std::thread::park_timeout(HELPERS_EVERY);
                let slow = platform.slow_helpers();
                for (pod, problem) in slow.iter().filter(|known| !reported.contains(*known)) {
                    reporter.event(Event::Notice(Notice::Platform(&Progress::WaitsForHelper { pod, problem })));
                }
                reported = slow;
            }
        });
        let _ends = Ends { over: &over, watcher: watcher.thread() };
        step(reporter, name, None, work)
    })
}
