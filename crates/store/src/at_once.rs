//! Work on many items at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::StoreError;

/// Applies `work` to every item on at most `threads` threads; results in the items' order. No item is begun after a failure, which is
/// returned.
///
/// # Errors
/// That of `work`.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, StoreError> + Sync,
) -> Result<Vec<R>, StoreError> {
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let (results, failed) = (Mutex::new(Vec::with_capacity(items.len())), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at).filter(|_| failed.lock().is_none()) else { return };
                    match work(item) {
                        Ok(result) => results.lock().push((at, result)),
                        Err(error) => *failed.lock() = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let mut results: Vec<(usize, R)> = results.into_inner();
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
