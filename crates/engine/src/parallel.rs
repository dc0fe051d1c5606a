//! Work on several cores: a map over items, and a bounded queue of jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use parking_lot::Mutex;
/// As many threads as there are cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Applies `work` to every item on at most `threads` threads; results in the items' order.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, threads: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() <= 1 || threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let count = items.len();
    let slots: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    let results: Vec<Mutex<Option<R>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = slots.get(index) else { break };
                    let item = slot.lock().take();
                    if let Some(item) = item {
                        let result = work(item);
                        *results[index].lock() = Some(result);
                    }
                }
            });
        }
    });
    results.into_iter().filter_map(|slot| slot.into_inner()).collect()
}

type Job<'scope> = Box<dyn FnOnce() + Send + 'scope>;

/// A queue of jobs, worked off by threads of a scope. Full, it makes the sender wait: memory stays bounded.
pub(crate) struct Queue<'scope> {
    sender: SyncSender<Job<'scope>>,
}

impl<'scope> Queue<'scope> {
    pub fn start(scope: &'scope Scope<'scope, '_>, threads: usize) -> Self {
        let (sender, receiver) = sync_channel::<Job<'scope>>(1);
        let receiver: Arc<Mutex<Receiver<Job<'scope>>>> = Arc::new(Mutex::new(receiver));
        for _ in 0..threads.max(1) {
            let receiver = Arc::clone(&receiver);
            scope.spawn(move || {
                loop {
                    let job = receiver.lock().recv();
                    match job {
                        Ok(job) => job(),
                        Err(_) => break,
                    }
                }
            });
        }
        Queue { sender }
    }

    /// Hands a job over; waits while the queue is full.
    pub fn push(&self, job: impl FnOnce() + Send + 'scope) {
        // The receivers run until the sender is dropped.
        let _ = self.sender.send(Box::new(job));
    }
}
