//! The no-transaction window: it is recorded first, then transactions are kept away and heights are awaited to be equal; heights are
//! watched while the capture reads; everything is undone in the end, however the window ends.

mod heights;
mod watch;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fabkeep_network::{Finding, Grown, NodeId, Observation, Remedy, Rule, Standing};
use fabkeep_platform::{
    Change, NotedWindows, Platform, PlatformError, Progress, Quiesce, StrangeNote, Until, WindowRecord,
};
use serde::{Deserialize, Serialize};

pub(crate) use heights::{cross_check, observe, observe_all};
pub(crate) use watch::watched;

use crate::EngineError;
use crate::event::{Event, Notice, Reporter, step};

/// How a window is opened and what ends it.
#[derive(Debug, Clone)]
pub struct WindowOptions {
    /// What keeps transactions away; by default nothing: the window only waits for equal heights.
    pub quiesce: Quiesce,
    /// How long heights may take to become equal.
    pub deadline: Duration,
    /// How long they must stay equal before the capture begins: orderers still cut blocks from transactions that they had. `None`: the
    /// longest BatchTimeout of the channels.
    pub settle: Option<Duration>,
    /// When a chain grows inside the window: wait for equal heights and capture the difference once more, instead of failing.
    pub extend: bool,
    /// Leave it closed when the capture is done: the network moves, and what was captured is not to change any more. Noted, so that
    /// [`resume`] opens it again; a capture that fails opens it by itself.
    pub stay_closed: bool,
}

/// What became of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowReport {
    /// What was done to keep transactions away.
    pub changes: Vec<String>,
    /// The changes stay in force after the capture, as for a migration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays_closed: bool,
    /// Seconds from the first change until everything was undone, or until the capture was done.
    pub seconds: f64,
    /// Of these, until heights were equal.
    pub level_after_seconds: f64,
    /// How often the difference was captured: more than once when a chain grew and the window was extended.
    pub passes: u32,
    /// Heights inside, by channel.
    pub heights: BTreeMap<String, u64>,
}

/// A window that is open. Dropped without [`OpenWindow::close`] it is undone all the same.
pub(crate) struct OpenWindow<'p> {
    platform: &'p dyn Platform,
    reporter: &'p dyn Reporter,
    options: &'p WindowOptions,
    record: WindowRecord,
    /// Channels that each node is known to hold.
    members: BTreeMap<NodeId, Vec<String>>,
    settle: Duration,
    begun: Instant,
    level_after: Option<Duration>,
    level: Vec<Standing>,
    /// What the nodes said when they were level.
    observed: Vec<Observation>,
    noted: bool,
}

/// Refuses a second window: it would take the first one's changes for the original state. A note that this machine did not sign may be
/// that of another machine's window.
pub(crate) fn refuse_open(platform: &dyn Platform) -> Result<(), EngineError> {
    let findings = noted_findings(&platform.window()?);
    if findings.is_empty() { Ok(()) } else { Err(EngineError::Refused(findings)) }
}

/// Returns the recorded windows, as findings.
pub(crate) fn noted_findings(noted: &NotedWindows) -> Vec<Finding> {
    noted.open.iter().map(open_finding).chain(noted.strange.iter().map(strange_finding)).collect()
}

/// Returns a note that this machine did not sign, as a finding. What it says is somebody else's text: it is not repeated here.
fn strange_finding(note: &StrangeNote) -> Finding {
    let steps = note.says.as_ref().map_or(0, |says| says.changes.len());
    Finding::error(
        Rule::WindowUndone,
        &note.at,
        format!(
            "it looks like the record of an open window with {steps} steps, but {}: nothing of it is undone",
            note.problem
        ),
        Remedy::from("if a backup of yours opened a window from another machine, go to that machine")
            .and(Remedy::UndoWindow)
            .or(Remedy::from("if an older version wrote it, check its steps").and(Remedy::UndoUnsigned))
            .or(format!("check the record and remove it: {}", note.removal)),
    )
}

/// Returns an open window as a finding.
pub(crate) fn open_finding(open: &WindowRecord) -> Finding {
    let changes: Vec<String> = open.changes.iter().map(ToString::to_string).collect();
    Finding::error(
        Rule::WindowUndone,
        format!("window {}", open.run),
        format!("it has been open since {} (opened by {}): {}", open.begun, open.by, changes.join("; ")),
        Remedy::from("make sure that this backup does not run any more").and(Remedy::UndoWindow),
    )
}

/// Returns the chains that grew since the channels were level, by later observations.
pub(crate) fn grown(level: &[Standing], now: &[Observation]) -> Vec<Grown> {
    fabkeep_network::grown(level, &fabkeep_network::standings(now, &BTreeMap::new()))
}

impl<'p> OpenWindow<'p> {
    /// Notes the window and keeps transactions away. Nodes are stopped later, when they are level.
    pub fn open(
        platform: &'p dyn Platform,
        reporter: &'p dyn Reporter,
        options: &'p WindowOptions,
        run: &str,
        changes: Vec<Change>,
        members: BTreeMap<NodeId, Vec<String>>,
        batch_timeout: Duration,
    ) -> Result<Self, EngineError> {
        let record = WindowRecord {
            run: run.to_owned(),
            begun: jiff::Timestamp::now().to_string(),
            by: format!("{}, process {}", host_name(), std::process::id()),
            changes,
        };
        let noted = !record.changes.is_empty();
        if noted {
            platform.note_window(&record)?;
        }
        let window = OpenWindow {
            platform,
            reporter,
            options,
            record,
            members,
            settle: options.settle.unwrap_or(batch_timeout),
            begun: Instant::now(),
            level_after: None,
            level: Vec::new(),
            observed: Vec::new(),
            noted,
        };
        // From here on an error undoes what was done: the value is dropped.
        let quiet: Vec<Change> = window.record.changes.iter().filter(|change| !change.is_stop()).cloned().collect();
        match window.shut(&quiet) {
            Ok(()) => Ok(window),
            Err(error) => Err(window.give_up(error)),
        }
    }

    fn shut(&self, changes: &[Change]) -> Result<(), EngineError> {
        let asked = || self.reporter.is_interrupted();
        let until = Until { deadline: Some(self.options.deadline), is_interrupted: &asked };
        self.platform.close(changes, until).map_err(|error| if asked() { EngineError::Stopped } else { error.into() })
    }

    /// Undoes what was done. An undo that fails weighs more than what came before it: the network stays as it is.
    fn give_up(mut self, error: EngineError) -> EngineError {
        match self.undo() {
            Ok(left) => {
                left.iter().for_each(|finding| self.reporter.event(Event::Found(finding)));
                error
            }
            Err(left) => {
                self.noted = false;
                left
            }
        }
    }

    fn stops(&self) -> Vec<Change> {
        self.record.changes.iter().filter(|change| change.is_stop()).cloned().collect()
    }

    /// Waits until heights are equal, and stops what is to be stopped.
    pub fn wait_until_level(&mut self) -> Result<(), EngineError> {
        let settle = if self.record.changes.is_empty() { Duration::ZERO } else { self.settle };
        let (level, observed) =
            heights::wait_until_level(self.platform, &self.members, self.options.deadline, settle, self.reporter)?;
        self.level = level;
        self.observed = observed;
        self.level_after.get_or_insert(self.begun.elapsed());
        let stops = self.stops();
        if !stops.is_empty() {
            self.reporter.event(Event::Notice(Notice::StoppingNodes));
            self.shut(&stops)?;
        }
        Ok(())
    }

    /// Returns whether the nodes can be asked while the window is open.
    pub fn can_watch(&self) -> bool {
        self.stops().is_empty()
    }

    /// Returns what the nodes said when they were level.
    pub fn observed(&self) -> &[Observation] {
        &self.observed
    }

    /// Returns the heights of the channels when they were level.
    pub fn level(&self) -> &[Standing] {
        &self.level
    }

    /// Returns the chains that grew since then, by other observations.
    pub fn grown(&self, now: &[Observation]) -> Vec<Grown> {
        grown(&self.level, now)
    }

    /// Undoes everything, unless it is to stay closed.
    ///
    /// Returns what it was, and what of it could not be undone.
    pub fn close(mut self, passes: u32) -> Result<(WindowReport, Vec<Finding>), EngineError> {
        if self.options.stay_closed {
            self.noted = false;
        }
        let left = self.undo()?;
        let report = WindowReport {
            changes: self.record.changes.iter().map(ToString::to_string).collect(),
            stays_closed: self.options.stay_closed,
            seconds: self.begun.elapsed().as_secs_f64(),
            level_after_seconds: self.level_after.unwrap_or_default().as_secs_f64(),
            passes,
            heights: self.level.iter().map(|standing| (standing.channel.clone(), standing.highest)).collect(),
        };
        Ok((report, left))
    }

    fn undo(&mut self) -> Result<Vec<Finding>, EngineError> {
        if !self.noted {
            return Ok(Vec::new());
        }
        let left = undone(self.platform, &self.record.changes, self.reporter).map_err(EngineError::WindowLeft)?;
        self.platform.forget_window(&self.record).map_err(EngineError::WindowLeft)?;
        self.noted = false;
        Ok(left)
    }
}

impl Drop for OpenWindow<'_> {
    fn drop(&mut self) {
        match self.undo() {
            Ok(left) => left.iter().for_each(|finding| self.reporter.event(Event::Found(finding))),
            Err(error) => self.reporter.event(Event::Notice(Notice::WindowLeft { problem: &error.to_string() })),
        }
    }
}

/// Undoes changes. Returns what of them was left as it is, because somebody has changed it meanwhile.
fn undone(platform: &dyn Platform, changes: &[Change], reporter: &dyn Reporter) -> Result<Vec<Finding>, PlatformError> {
    let left = RefCell::new(Vec::new());
    platform.reopen(changes, &|progress: &Progress<'_>| match progress {
        Progress::Left(finding) => left.borrow_mut().push((*finding).clone()),
        other => reporter.event(Event::Notice(Notice::Platform(other))),
    })?;
    Ok(left.into_inner())
}

/// What [`resume`] did.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    /// The window that was undone; `None` when this machine has none open.
    pub undone: Option<WindowRecord>,
    /// Notes that this machine did not sign: nothing of them was undone. And what of the window was left, because somebody has changed it
    /// since.
    pub findings: Vec<Finding>,
}

/// Undoes a window that a killed run of this machine has left open. `hook_after`: the command that lets transactions flow again, where this
/// machine has no record of it.
///
/// # Errors
/// [`EngineError::WindowLeft`]: then the record stays, and another attempt continues.
pub fn resume(
    platform: &dyn Platform,
    hook_after: Option<&str>,
    reporter: &dyn Reporter,
) -> Result<Resumed, EngineError> {
    let noted = platform.window()?;
    let mut findings: Vec<Finding> = noted.strange.iter().map(strange_finding).collect();
    let Some(record) = noted.open else { return Ok(Resumed { undone: None, findings }) };
    let record = match hook_after {
        Some(command) => record.with_hook(command),
        None => record,
    };
    let left = step(reporter, "undo the window", None, || {
        let left = undone(platform, &record.changes, reporter)?;
        platform.forget_window(&record)?;
        Ok(left)
    })
    .map_err(EngineError::WindowLeft)?;
    findings.extend(left);
    Ok(Resumed { undone: Some(record), findings })
}

/// A step of [`resume_unsigned`] that a person is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question<'a> {
    /// Whether to undo this change of the note at this place.
    Undo(&'a str, &'a Change),
    /// Whether to remove the note at this place.
    Remove(&'a str),
}

/// What became of a step of an unsigned note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnsignedStep {
    /// The location of the record.
    pub note: String,
    /// What it names, quoted.
    pub step: String,
    /// What became of it.
    pub outcome: StepOutcome,
}

/// What became of a step of an unsigned record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// It was undone.
    Undone,
    /// The record was removed.
    Removed,
    /// It was left, because nobody agreed, or for this reason.
    Left(Option<String>),
}

impl std::fmt::Display for StepOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StepOutcome::Undone => f.write_str("undone"),
            StepOutcome::Removed => f.write_str("removed"),
            StepOutcome::Left(None) => f.write_str("left"),
            StepOutcome::Left(Some(reason)) => write!(f, "left: {reason}"),
        }
    }
}

impl Serialize for StepOutcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Goes through notes that this machine did not sign, step by step: what a window changes in this network is undone when `ask` agrees;
/// commands are never run.
///
/// # Errors
/// [`EngineError::Platform`]: then the note stays.
pub fn resume_unsigned(
    platform: &dyn Platform,
    ask: &mut dyn FnMut(&Question<'_>) -> bool,
    reporter: &dyn Reporter,
) -> Result<Vec<UnsignedStep>, EngineError> {
    let mut steps = Vec::new();
    for note in platform.window()?.strange {
        let mut done = |step: String, outcome| steps.push(UnsignedStep { note: note.at.clone(), step, outcome });
        for change in note.says.iter().flat_map(|says| &says.changes) {
            let quoted = quoted(change);
            match platform.may_undo(change) {
                Err(problem) => done(quoted, StepOutcome::Left(Some(problem))),
                Ok(()) if ask(&Question::Undo(&note.at, change)) => {
                    let left = undone(platform, std::slice::from_ref(change), reporter)?;
                    let outcome = left.into_iter().next().map(|finding| StepOutcome::Left(Some(finding.what)));
                    done(quoted, outcome.unwrap_or(StepOutcome::Undone));
                }
                Ok(()) => done(quoted, StepOutcome::Left(None)),
            }
        }
        if ask(&Question::Remove(&note.at)) {
            platform.forget_note(&note)?;
            done("the note".to_owned(), StepOutcome::Removed);
        } else {
            done("the note".to_owned(), StepOutcome::Left(None));
        }
    }
    Ok(steps)
}

/// Returns a change that somebody else's text names, without what a terminal would obey.
pub fn quoted(change: &Change) -> String {
    const MOST: usize = 300;
    let text = match change {
        Change::Hook(hook) => format!("run {:?}", hook.after),
        other => other.to_string().escape_debug().to_string(),
    };
    if text.chars().count() > MOST { text.chars().take(MOST).chain("…".chars()).collect() } else { text }
}

fn host_name() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = read.trim();
    if name.is_empty() { "this machine".to_owned() } else { name.to_owned() }
}
