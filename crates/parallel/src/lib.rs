//! Work on several threads: a map over items, and a bounded queue of jobs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;

use crossbeam_channel::{Sender, bounded};

/// Returns as many threads as there are cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Applies `work` to every item on at most `threads` threads. Returns the results in the items' order.
pub fn map<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    threads: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    map_until(items, threads, work, |_| false)
}

/// Returns the same, or an error of `work`: the first in the items' order among those that were met. No item is begun after an error.
///
/// # Errors
/// That of `work`.
pub fn try_map<T: Send, R: Send, E: Send>(
    items: impl IntoIterator<Item = T>,
    threads: usize,
    work: impl Fn(T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    map_until(items, threads, work, Result::is_err).into_iter().collect()
}

/// Applies `work` to items, beginning them in their order, until a result `ends` it. Returns the results of all items that were begun, in
/// the items' order: they are the first ones.
pub fn map_until<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    threads: usize,
    work: impl Fn(T) -> R + Sync,
    ends: impl Fn(&R) -> bool + Sync,
) -> Vec<R> {
    let items: Vec<(usize, T)> = items.into_iter().enumerate().collect();
    let threads = threads.min(items.len());
    let (sender, receiver) = bounded(items.len());
    for item in items {
        // It has room for all of them.
        let _ = sender.send(item);
    }
    drop(sender);
    let ended = AtomicBool::new(false);
    let worker = || {
        let mut results = Vec::new();
        while !ended.load(Ordering::Relaxed)
            && let Ok((position, item)) = receiver.recv()
        {
            let result = work(item);
            ended.fetch_or(ends(&result), Ordering::Relaxed);
            results.push((position, result));
        }
        results
    };
    let mut results = if threads <= 1 {
        worker()
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let joined = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.flatten().collect::<Vec<_>>()
        })
    };
    results.sort_unstable_by_key(|(position, _)| *position);
    results.into_iter().map(|(_, result)| result).collect()
}

type Job<'scope> = Box<dyn FnOnce() + Send + 'scope>;

/// A queue of jobs that threads of a scope work off. When it is full, the sender waits: memory stays bounded.
pub struct Queue<'scope> {
    sender: Sender<Job<'scope>>,
}

impl<'scope> Queue<'scope> {
    /// Starts the threads, at least one. They end when the queue is dropped and its jobs are done.
    pub fn start(scope: &'scope Scope<'scope, '_>, threads: usize) -> Self {
        let (sender, receiver) = bounded::<Job<'scope>>(1);
        for _ in 0..threads.max(1) {
            let receiver = receiver.clone();
            scope.spawn(move || receiver.iter().for_each(|job| job()));
        }
        Queue { sender }
    }

    /// Hands a job over; waits while the queue is full.
    pub fn push(&self, job: impl FnOnce() + Send + 'scope) {
        // The receivers run until the sender is dropped.
        let _ = self.sender.send(Box::new(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for threads in [0, 1, 3, 100] {
            let results = map(0..50u64, threads, |item| {
                std::thread::sleep(std::time::Duration::from_micros((50 - item) * 20));
                item * 2
            });
            assert_eq!(results, (0..50).map(|item| item * 2).collect::<Vec<u64>>(), "{threads} threads");
        }
        assert!(map(Vec::<u8>::new(), 4, |item| item).is_empty());
    }

    #[test]
    fn the_first_error_in_order_is_returned_and_nothing_is_begun_after_it() {
        for threads in [1, 4] {
            let begun = AtomicUsize::new(0);
            let result = try_map(0..1000usize, threads, |item| {
                begun.fetch_add(1, Ordering::Relaxed);
                if item >= 10 { Err(item) } else { Ok(item) }
            });
            assert_eq!(result, Err(10));
            assert!(begun.into_inner() <= 10 + threads, "{threads} threads");
        }
    }

    #[test]
    fn what_was_begun_is_a_beginning_of_the_items() {
        let results = map_until(0..1000usize, 4, |item| item, |item| *item == 20);
        assert!(results.len() > 20 && results.len() <= 24);
        assert_eq!(results, (0..results.len()).collect::<Vec<usize>>());
    }

    #[test]
    #[should_panic(expected = "in a worker")]
    fn a_panic_of_a_worker_goes_on_in_the_caller() {
        map(0..10, 2, |item| assert_ne!(item, 5, "in a worker"));
    }

    #[test]
    fn every_job_of_a_queue_is_done_before_its_scope_ends() {
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let queue = Queue::start(scope, 3);
            (0..100).for_each(|_| {
                queue.push(|| {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(done.into_inner(), 100);
    }
}
