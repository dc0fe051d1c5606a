//! Random bytes for names and keys: the system's, or in tests those that follow from a number.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A source of random bytes.
#[derive(Debug, Clone, Default)]
pub struct Chance(Option<Arc<Mutex<StdRng>>>);

impl Chance {
    /// Returns a source that gives the same bytes for the same number: nothing of what comes from it is secret.
    pub fn seeded(seed: u64) -> Self {
        Chance(Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// Returns the next bytes.
    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        match &self.0 {
            None => rand::random(),
            Some(seeded) => seeded.lock().random(),
        }
    }
}
