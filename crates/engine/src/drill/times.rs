//! The times of a drill: how long each step took, and the whole.

use std::path::Path;
use std::time::Instant;

use fabkeep_store::DrillStage;
use parking_lot::Mutex;

use crate::event::{Event, Reporter};

/// Most stages that are kept.
const MAX_STAGES: usize = 200;

/// Passes events on, and keeps how long the outermost steps took.
pub(super) struct Times<'a> {
    reporter: &'a dyn Reporter,
    begun: Instant,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Steps that have begun and not ended.
    open: usize,
    stages: Vec<DrillStage>,
}

impl<'a> Times<'a> {
    pub fn new(reporter: &'a dyn Reporter) -> Times<'a> {
        Times { reporter, begun: Instant::now(), kept: Mutex::default() }
    }

    /// Returns the time since the beginning, in seconds.
    pub fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub fn stages(&self) -> Vec<DrillStage> {
        self.kept.lock().stages.clone()
    }
}

impl Reporter for Times<'_> {
    fn event(&self, event: Event<'_>) {
        match &event {
            Event::Begin { .. } => self.kept.lock().open += 1,
            Event::End { step, seconds } => {
                let mut kept = self.kept.lock();
                kept.open = kept.open.saturating_sub(1);
                if kept.open == 0 && kept.stages.len() < MAX_STAGES {
                    kept.stages.push(DrillStage { name: (*step).to_owned(), seconds: *seconds });
                }
            }
            _ => {}
        }
        self.reporter.event(event);
    }

    fn is_interrupted(&self) -> bool {
        self.reporter.is_interrupted()
    }

    fn changing(&self, what: &'static str, path: &Path) {
        self.reporter.changing(what, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Silent, step};

    #[test]
    fn only_the_outermost_steps_are_kept() {
        let times = Times::new(&Silent);
        step(&times, "fill", None, || step(&times, "one volume", None, || ()));
        step(&times, "start", None, || ());
        let names: Vec<String> = times.stages().into_iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["fill", "start"]);
    }
}
