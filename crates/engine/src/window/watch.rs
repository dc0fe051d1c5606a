//! Watches heights while a capture reads inside a window.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fabkeep_network::{Grown, NodeId};
use fabkeep_platform::{BlockFiles, ProbeScope};

use super::{OpenWindow, observe_all};
use crate::event::{Event, Notice};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(1000);
const SLICE: Duration = Duration::from_millis(20);

/// Does work while the nodes' heights are looked at again and again; what grew meanwhile, each node and channel once.
pub(crate) fn watched<T>(window: &OpenWindow<'_>, work: impl FnOnce() -> T) -> (T, Vec<Grown>) {
    if !window.can_watch() {
        return (work(), Vec::new());
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut grown: BTreeMap<(NodeId, String), Grown> = BTreeMap::new();
            loop {
                for _ in 0..PAUSE.as_millis() / SLICE.as_millis() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(SLICE);
                }
                // Once more after the work: what grew in its last moments counts too.
                let last = done.load(Ordering::Relaxed);
                let now = observe_all(window.platform, ProbeScope { block_files: BlockFiles::Never, health: false });
                for more in window.grown(&now) {
                    let key = (more.node.clone(), more.channel.clone());
                    if !grown.contains_key(&key) {
                        window.reporter.event(Event::Notice(Notice::Grew { grown: &more }));
                    }
                    grown.insert(key, more);
                }
                if last {
                    return grown.into_values().collect();
                }
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap_or_default())
    })
}
