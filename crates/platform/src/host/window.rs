//! No-transaction windows on hosts: the operator's hook, and the nodes' stop and start commands. The window is recorded in a file beside
//! the inventory.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use fabkeep_network::{Finding, NodeId, Quiet, Remedy};

use super::{Host, run_hook};
use crate::command::Until;
use crate::window::unknown_hook;
use crate::{
    Change, NodeState, NotedWindows, OnProgress, Platform, PlatformError, Progress, Quiesce, StrangeNote, WindowRecord,
};

/// Longest note of a window, in bytes.
const MAX_RECORD_BYTES: u64 = 16 << 20;

impl Host {
    pub(super) fn plan_window(&self, quiesce: &Quiesce) -> Result<(Vec<Change>, Vec<Finding>), PlatformError> {
        if quiesce.fence || !quiesce.scale.is_empty() {
            return Err(PlatformError::NotHere {
                problem: "fences and scaling of clients need Kubernetes; this network runs on hosts".to_owned(),
                next: Remedy::KeepTransactionsAway { by: vec![Quiet::Hook, Quiet::Stop] },
            });
        }
        let mut changes: Vec<Change> = quiesce.hook.iter().cloned().map(Change::Hook).collect();
        if quiesce.stop {
            // Peers first: what they have is at most what the orderers have (I1).
            for node in self.start_order().into_iter().rev() {
                let commands = self.commands(&node);
                let whole = commands.is_some_and(|commands| commands.start.is_some() && commands.stop.is_some());
                if self.state(&node)? != NodeState::Running {
                    continue;
                }
                if !whole {
                    return Err(PlatformError::NotHere {
                        problem: format!("{node} runs, and the inventory has no commands that stop and start it"),
                        next: "add start and stop to its [organization.node.commands]".into(),
                    });
                }
                changes.push(Change::Stop { node, workload: None, replicas: None });
            }
        }
        Ok((changes, Vec::new()))
    }

    pub(super) fn change(&self, change: &Change, until: Until<'_>) -> Result<(), PlatformError> {
        match change {
            Change::Hook(hook) => run_hook("hook-before", &hook.before, until),
            Change::Stop { node, .. } => {
                if self.state(node)? != NodeState::Stopped {
                    self.stop(node)?;
                }
                Ok(())
            }
            Change::Scale { .. } | Change::Fence { .. } | Change::UnknownHook => Ok(()),
        }
    }

    /// On hosts a window stops nodes of the inventory, and changes nothing that a note could name otherwise.
    pub(super) fn undoable(&self, change: &Change) -> Result<(), String> {
        match change {
            Change::Stop { node, workload: None, .. } if self.network.nodes().any(|known| known.id == *node) => Ok(()),
            Change::Hook(_) | Change::UnknownHook => {
                Err("commands are never taken from a record of a window".to_owned())
            }
            _ => Err("a window on hosts stops only nodes of the inventory".to_owned()),
        }
    }

    pub(super) fn undo(&self, changes: &[Change], reported: &OnProgress<'_>) -> Result<(), PlatformError> {
        let mut result = Ok(());
        let stopped: Vec<&NodeId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Stop { node, .. } => Some(node),
                _ => None,
            })
            .collect();
        for node in self.start_order().iter().filter(|node| stopped.contains(node)) {
            reported(&Progress::Starting(node));
            let started = self.state(node).and_then(|state| match state {
                NodeState::Running => Ok(false),
                NodeState::Stopped | NodeState::Snapshot | NodeState::Unknown => self.start(node),
            });
            result = result.and(started.map(|_| ()));
        }
        for change in changes {
            match change {
                Change::Hook(hook) => result = result.and(run_hook("hook-after", &hook.after, Until::ITS_END)),
                Change::UnknownHook => result = result.and(Err(unknown_hook())),
                Change::Scale { .. } | Change::Fence { .. } | Change::Stop { .. } => {}
            }
        }
        result
    }

    fn window_error(&self, source: std::io::Error) -> PlatformError {
        PlatformError::Io { path: self.window_file.display().to_string(), source }
    }

    /// Returns the place that a note is written for.
    fn window_place(&self) -> Vec<String> {
        vec![format!("file {}", self.window_file.display())]
    }

    pub(super) fn noted_windows(&self) -> Result<NotedWindows, PlatformError> {
        let here = self.window_place();
        let fits = |place: &[String]| place == here;
        let mut text = String::new();
        match File::open(&self.window_file).and_then(|file| file.take(MAX_RECORD_BYTES).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(NotedWindows { open: self.machine.remembered(&fits), strange: Vec::new() });
            }
            // Text that is not UTF-8 is not a note.
            Err(error) if error.kind() == ErrorKind::InvalidData => text.clear(),
            Err(error) => return Err(self.window_error(error)),
        }
        Ok(match self.machine.read(&text, &fits) {
            Ok(open) => NotedWindows { open: Some(open), strange: Vec::new() },
            Err((problem, says)) => {
                let at = self.window_file.display().to_string();
                let removal = format!("rm {at}");
                let strange = StrangeNote { at, namespace: String::new(), problem, says, removal };
                NotedWindows { open: None, strange: vec![strange] }
            }
        })
    }

    pub(super) fn write_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        let place = self.window_place();
        let text = self.machine.sign(record, &place)?;
        self.machine.remember(record, &place, false)?;
        // Whole under its name, or not there: a kill while it is written leaves no half of it.
        let partial = self.window_file.with_extension(format!("window-{}", std::process::id()));
        let written = (|| {
            let mut file = File::create(&partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::hard_link(&partial, &self.window_file)
        })();
        let _ = std::fs::remove_file(&partial);
        if let Err(error) = written {
            self.machine.forget(&record.run)?;
            return Err(match error.kind() {
                ErrorKind::AlreadyExists => PlatformError::NotHere {
                    problem: format!("another window is open: {}", self.window_file.display()),
                    next: Remedy::SeeStatus.and(Remedy::UndoWindow),
                },
                _ => self.window_error(error),
            });
        }
        self.machine.remember(record, &place, true)
    }

    pub(super) fn remove_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        let place = self.window_place();
        self.machine.remember(record, &place, false)?;
        // Somebody may have put another note there meanwhile: that one stays, and is reported.
        if self.noted_windows()?.open.is_some_and(|open| open.run == record.run) {
            self.remove_note()?;
        }
        self.machine.forget(&record.run)
    }

    pub(super) fn remove_note(&self) -> Result<(), PlatformError> {
        match std::fs::remove_file(&self.window_file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.window_error(error)),
            _ => Ok(()),
        }
    }
}
