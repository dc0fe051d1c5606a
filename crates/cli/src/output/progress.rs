//! Progress: a bar with bytes, blocks and remaining time on a terminal; otherwise a line every few seconds.

use std::io::Write;
use std::time::{Duration, Instant};

use fabkeep_engine::{Event, Notice, Reporter};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::json;

use super::{interrupt, print_findings, remedy, units};

/// Time between two plain lines of one step.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Draws events on standard error.
pub struct Progress {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bar: Option<ProgressBar>,
    step: String,
    total: Option<u64>,
    bytes: u64,
    blocks: u64,
    begun: Option<Instant>,
    last_line: Option<Instant>,
}

impl Progress {
    pub fn new(terminal: bool) -> Self {
        Progress { terminal, state: Mutex::default() }
    }

    fn begin(&self, state: &mut State, step: &str, total: Option<u64>) {
        let now = Instant::now();
        *state = State {
            step: step.to_owned(),
            total: total.filter(|&total| total > 0),
            begun: Some(now),
            last_line: Some(now),
            ..State::default()
        };
        if self.terminal {
            let bar = match state.total {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::new_spinner(),
            };
            let template = match state.total {
                Some(_) => "{prefix:>28} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg} {eta} left",
                None => "{prefix:>28} {spinner} {bytes} {msg} {elapsed}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(step.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            state.bar = Some(bar);
        }
    }

    fn advance(&self, state: &mut State, bytes: u64, blocks: u64) {
        state.bytes += bytes;
        state.blocks += blocks;
        if let Some(bar) = &state.bar {
            bar.inc(bytes);
            if state.blocks > 0 {
                bar.set_message(format!("{} blocks", state.blocks));
            }
            return;
        }
        let due = state.last_line.is_some_and(|last| last.elapsed() >= LINE_EVERY);
        if due {
            state.last_line = Some(Instant::now());
            let elapsed = state.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
            let left =
                state.total.filter(|&total| state.bytes > 0 && total > state.bytes).map_or_else(String::new, |total| {
                    let rest = (total - state.bytes) as f64 / state.bytes as f64 * elapsed;
                    format!(" of {}, about {} left", units::bytes(total), units::seconds(rest))
                });
            eprintln!("{}: {}{left}, {} blocks", state.step, units::bytes(state.bytes), state.blocks);
        }
    }

    fn end(&self, state: &mut State, step: &str, seconds: f64) {
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        let mut line = format!("{step:>28}  {:>9}", units::seconds(seconds));
        if state.bytes > 0 {
            line += &format!("  {}", units::bytes(state.bytes));
        }
        if state.blocks > 0 {
            line += &format!("  {} blocks", state.blocks);
        }
        let _ = writeln!(std::io::stderr(), "{line}");
        *state = State::default();
    }
}

impl Reporter for Progress {
    fn event(&self, event: Event<'_>) {
        let mut state = self.state.lock();
        match event {
            Event::Begin { step, total_bytes } => self.begin(&mut state, step, total_bytes),
            Event::Advance { bytes, blocks } => self.advance(&mut state, bytes, blocks),
            Event::End { step, seconds } => self.end(&mut state, step, seconds),
            // Errors come with the command's end; what is only worth a look is reported now.
            Event::Found(finding) if finding.severity < fabkeep_network::Severity::Error => {
                print_findings(&mut std::io::stderr(), std::slice::from_ref(finding));
            }
            Event::Found(_) => {}
            Event::Notice(notice) => {
                let line = text(&notice);
                match &state.bar {
                    Some(bar) => bar.set_message(line),
                    None if state.step.is_empty() => drop(writeln!(std::io::stderr(), "{line}")),
                    None => drop(writeln!(std::io::stderr(), "{}: {line}", state.step)),
                }
            }
        }
    }

    fn is_interrupted(&self) -> bool {
        interrupt::is_asked()
    }
}

/// Returns a notice for people.
fn text(notice: &Notice<'_>) -> String {
    use fabkeep_platform::Progress as Platform;
    match notice {
        Notice::Platform(Platform::Starting(node)) => format!("starting {node}"),
        Notice::Platform(Platform::ScalingUp(workload)) => format!("scaling up {workload}"),
        Notice::Platform(Platform::Left(finding)) => format!("{}: {}", finding.subject, finding.what),
        Notice::Platform(Platform::WaitsFor(finding)) => format!("waiting for {}: {}", finding.subject, finding.what),
        Notice::Platform(Platform::WaitsForHelper { pod, problem }) => {
            format!("waiting for the helper pod {pod}: {problem}")
        }
        Notice::Platform(Platform::WaitsForDatabase { node, problem }) => {
            format!("waiting for the database of {node}: {problem}")
        }
        Notice::Platform(Platform::WaitsForSnapshot { what, problem }) => format!("{what}: {problem}"),
        Notice::NoSnapshots { reason } => format!("reading the volumes without snapshots: {reason}"),
        Notice::StoppingNodes => "stopping the nodes".to_owned(),
        Notice::PodsGoing => "waiting until the pods are gone".to_owned(),
        Notice::Behind { chains } => format!("waiting for equal heights: {}", chains.join(", ")),
        Notice::Grew { grown } => {
            format!("{} {} grew inside the window: {} to {}", grown.node, grown.channel, grown.from, grown.to)
        }
        Notice::WindowExtended { chains } => format!("{chains} chains grew inside the window, which is extended"),
        Notice::WindowLeft { problem } => {
            format!("the window could not be undone: {problem}; `fabkeep resume` undoes it")
        }
        Notice::FallsBack => "a cut is not possible here: using a window instead, as requested".to_owned(),
        Notice::HandshakesFailed { seconds } => format!(
            "TLS handshakes failed while the nodes were starting: the logs are read again in {seconds} s, to see whether they still do"
        ),
        Notice::OnceMore { finding } => format!("reading once more: {}: {}", finding.subject, finding.what),
    }
}

/// Writes each event as a line of JSON on standard error, for programs; how far a step came only with its end.
pub struct Lines;

impl Reporter for Lines {
    fn event(&self, event: Event<'_>) {
        let line = match event {
            Event::Begin { step, total_bytes } => json!({"event": "begin", "step": step, "total_bytes": total_bytes}),
            Event::End { step, seconds } => json!({"event": "end", "step": step, "seconds": seconds}),
            Event::Found(finding) => {
                json!({"event": "finding", "finding": remedy::document(finding).unwrap_or_default()})
            }
            Event::Notice(notice) => json!({"event": "notice", "notice": notice, "text": text(&notice)}),
            Event::Advance { .. } => return,
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    fn is_interrupted(&self) -> bool {
        interrupt::is_asked()
    }
}

/// Draws nothing; Ctrl-C still works.
pub struct Quiet;

impl Reporter for Quiet {
    fn event(&self, _: Event<'_>) {}

    fn is_interrupted(&self) -> bool {
        interrupt::is_asked()
    }
}
