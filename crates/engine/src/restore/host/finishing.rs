//! Brings written files to the disk while others are still written and read back: a disk's answer is waited for beside the work, not in it.

use std::thread::Scope;

use fabkeep_parallel::Queue;
use parking_lot::Mutex;

use crate::EngineError;

/// How many files are brought to the disk at once: these threads wait, and do not work.
const AT_ONCE: usize = 4;

/// Takes files that have all their bytes.
pub(super) struct Finishing<'scope> {
    /// None: each file is finished before the next one is begun.
    queue: Option<Queue<'scope>>,
    failed: &'scope Mutex<Option<EngineError>>,
}

impl<'scope> Finishing<'scope> {
    /// Begins; with one thread to work with, files are finished one after the other. `failed` gets the first error; it is complete when the
    /// scope has ended.
    pub fn begin(
        scope: &'scope Scope<'scope, '_>,
        threads: usize,
        failed: &'scope Mutex<Option<EngineError>>,
    ) -> Finishing<'scope> {
        Finishing { queue: (threads > 1).then(|| Queue::start(scope, AT_ONCE)), failed }
    }

    /// Finishes a file, at once or soon.
    ///
    /// # Errors
    /// Of this file or an earlier one.
    pub fn finish(&self, file: impl FnOnce() -> Result<(), EngineError> + Send + 'scope) -> Result<(), EngineError> {
        let Some(queue) = &self.queue else { return file() };
        if let Some(error) = self.failed.lock().take() {
            return Err(error);
        }
        let failed = self.failed;
        queue.push(move || {
            if let Err(error) = file() {
                failed.lock().get_or_insert(error);
            }
        });
        Ok(())
    }
}
