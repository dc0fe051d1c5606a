//! No-transaction windows on hosts: the operator's hook, nodes' stop and start commands; noted in a file beside the inventory.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use fabkeep_network::{Finding, NodeId};

use super::{Host, observe, run_hook};
use crate::{Change, NodeState, Platform, PlatformError, Quiesce, WindowRecord};

/// Longest note of a window, in bytes.
const MAX_RECORD_BYTES: u64 = 16 << 20;

impl Host {
    pub(super) fn plan_window(&self, quiesce: &Quiesce) -> Result<(Vec<Change>, Vec<Finding>), PlatformError> {
        if quiesce.fence || !quiesce.scale.is_empty() {
            return Err(PlatformError::NotHere {
                problem: "fences and the scaling of clients are Kubernetes' means; this network lives on hosts"
                    .to_owned(),
                next: "use commands of your own (--quiesce hook --hook-before CMD --hook-after CMD), or --quiesce stop"
                    .to_owned(),
            });
        }
        let mut changes: Vec<Change> = quiesce.hook.iter().cloned().map(Change::Hook).collect();
        if quiesce.stop {
            // Peers first: what they have is at most what the orderers have (I1).
            for node in observe::start_order(&self.network).into_iter().rev() {
                let commands = self.commands(&node);
                let whole = commands.is_some_and(|commands| commands.start.is_some() && commands.stop.is_some());
                if self.state(&node)? != NodeState::Running {
                    continue;
                }
                if !whole {
                    return Err(PlatformError::NotHere {
                        problem: format!(
                            "{node} runs, and the inventory names no command that stops and one that starts it"
                        ),
                        next: "add start and stop to its [organization.node.commands]".to_owned(),
                    });
                }
                changes.push(Change::Stop { node, workload: None });
            }
        }
        Ok((changes, Vec::new()))
    }

    pub(super) fn change(&self, change: &Change) -> Result<(), PlatformError> {
        match change {
            Change::Hook(hook) => run_hook("hook-before", &hook.before),
            Change::Stop { node, .. } => {
                if self.state(node)? != NodeState::Stopped {
                    self.stop(node)?;
                }
                Ok(())
            }
            Change::Scale(_) | Change::Fence { .. } => Ok(()),
        }
    }

    pub(super) fn undo(&self, changes: &[Change], told: &dyn Fn(&str)) -> Result<(), PlatformError> {
        let mut result = Ok(());
        let stopped: Vec<&NodeId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Stop { node, .. } => Some(node),
                _ => None,
            })
            .collect();
        for node in observe::start_order(&self.network).iter().filter(|node| stopped.contains(node)) {
            told(&format!("starting {node}"));
            let started = self.state(node).and_then(|state| match state {
                NodeState::Running => Ok(false),
                NodeState::Stopped | NodeState::Unknown => self.start(node),
            });
            result = result.and(started.map(|_| ()));
        }
        for change in changes {
            if let Change::Hook(hook) = change {
                result = result.and(run_hook("hook-after", &hook.after));
            }
        }
        result
    }

    fn window_error(&self, source: std::io::Error) -> PlatformError {
        PlatformError::Io { path: self.window_file.display().to_string(), source }
    }

    pub(super) fn noted_window(&self) -> Result<Option<WindowRecord>, PlatformError> {
        let mut text = String::new();
        match File::open(&self.window_file).and_then(|file| file.take(MAX_RECORD_BYTES).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.window_error(error)),
        }
        serde_json::from_str(&text).map(Some).map_err(|error| PlatformError::Inventory {
            file: self.window_file.display().to_string(),
            problem: format!("it is no note of a window ({error}); undo what it says by hand, then remove it"),
        })
    }

    pub(super) fn write_window(&self, record: &WindowRecord) -> Result<(), PlatformError> {
        let text = serde_json::to_string_pretty(record)
            .map_err(|error| self.window_error(std::io::Error::other(error.to_string())))?;
        // Whole under its name, or not there: a kill while it is written leaves no half of it.
        let partial = self.window_file.with_extension(format!("window-{}", std::process::id()));
        let written = (|| {
            let mut file = File::create(&partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::hard_link(&partial, &self.window_file)
        })();
        let _ = std::fs::remove_file(&partial);
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => PlatformError::NotHere {
                problem: format!("another window is open: {}", self.window_file.display()),
                next: "`fabkeep status` shows it, `fabkeep resume` undoes it".to_owned(),
            },
            _ => self.window_error(error),
        })
    }

    pub(super) fn remove_window(&self) -> Result<(), PlatformError> {
        match std::fs::remove_file(&self.window_file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.window_error(error)),
            _ => Ok(()),
        }
    }
}
