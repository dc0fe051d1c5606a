//! The time that a repository goes by: the machine's, or in tests one that is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// Returns a clock that stands still until it is set.
    pub fn standing_at(time: jiff::Timestamp) -> Self {
        Clock(Some(Arc::new(AtomicI64::new(time.as_millisecond()))))
    }

    /// Sets a clock that stands still; the machine's clock stays as it is.
    pub fn set(&self, time: jiff::Timestamp) {
        if let Some(clock) = &self.0 {
            clock.store(time.as_millisecond(), Ordering::SeqCst);
        }
    }

    /// Returns the time.
    pub fn now(&self) -> jiff::Timestamp {
        match &self.0 {
            None => jiff::Timestamp::now(),
            Some(clock) => jiff::Timestamp::from_millisecond(clock.load(Ordering::SeqCst)).unwrap_or_default(),
        }
    }
}
