//! Detects pods that mount a claim while it is filled, and claims that are deleted meanwhile. Whoever does that, such a fill cannot be
//! trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fabkeep_platform::kubernetes::{MountingPod, Target};
use parking_lot::Mutex;

use crate::EngineError;
use crate::event::{Ends, Event, Reporter};

/// How often pods are looked at while claims are filled.
const EVERY: Duration = Duration::from_secs(1);

/// Watches claims.
pub(super) struct Guard<'a> {
    target: &'a Target,
    reporter: &'a dyn Reporter,
    /// Claims by namespace.
    claims: BTreeMap<String, BTreeSet<String>>,
    /// Pods that were there before, by namespace and name, and are of no node that is filled.
    allowed: BTreeSet<(String, String)>,
    seen: Mutex<BTreeSet<MountingPod>>,
    /// Claims that are being deleted or are gone, by namespace and name.
    lost: Mutex<BTreeSet<(String, String)>>,
    intruded: AtomicBool,
}

impl<'a> Guard<'a> {
    pub fn new(
        target: &'a Target,
        reporter: &'a dyn Reporter,
        claims: &BTreeSet<(String, String)>,
        allowed: BTreeSet<(String, String)>,
    ) -> Guard<'a> {
        let mut by_namespace: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (namespace, claim) in claims {
            by_namespace.entry(namespace.clone()).or_default().insert(claim.clone());
        }
        Guard {
            target,
            reporter,
            claims: by_namespace,
            allowed,
            seen: Mutex::default(),
            lost: Mutex::default(),
            intruded: AtomicBool::new(false),
        }
    }

    /// Pods that mount the claims now, those that are allowed left out.
    pub fn look(&self) -> Result<Vec<MountingPod>, EngineError> {
        let mut out = Vec::new();
        for (namespace, claims) in &self.claims {
            out.extend(self.target.pods_mounting(namespace, claims)?);
        }
        out.retain(|pod| !self.allowed.contains(&(pod.namespace.clone(), pod.name.clone())));
        if !out.is_empty() {
            self.intruded.store(true, Ordering::Relaxed);
            self.seen.lock().extend(out.iter().cloned());
        }
        Ok(out)
    }

    /// Looks at everything that is watched.
    fn look_at_all(&self) -> Result<(), EngineError> {
        self.look()?;
        for (namespace, claims) in &self.claims {
            let lost = self.target.claims_lost(namespace, claims)?;
            if !lost.is_empty() {
                self.intruded.store(true, Ordering::Relaxed);
                self.lost.lock().extend(lost.into_iter().map(|claim| (namespace.clone(), claim)));
            }
        }
        Ok(())
    }

    /// Claims that were being deleted or gone.
    pub fn lost(&self) -> Vec<(String, String)> {
        self.lost.lock().iter().cloned().collect()
    }

    /// Pods that were seen.
    pub fn seen(&self) -> Vec<MountingPod> {
        self.seen.lock().iter().cloned().collect()
    }

    /// Works while the claims are watched, and looks once more at the end. The work's reporter says that it is interrupted when a pod appears or a
    /// claim goes.
    pub fn during<T>(&self, work: impl FnOnce(&dyn Reporter) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let over = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    // A look that fails is made up for by the next, and the last one counts.
                    let _ = self.look_at_all();
                    std::thread::park_timeout(EVERY);
                }
            });
            let _ends = Ends { over: &over, watcher: watcher.thread() };
            work(self)
        });
        let last = self.look_at_all();
        match result {
            Ok(value) => last.map(|()| value),
            Err(error) => Err(error),
        }
    }
}

impl Reporter for Guard<'_> {
    fn event(&self, event: Event<'_>) {
        self.reporter.event(event);
    }

    fn is_interrupted(&self) -> bool {
        self.intruded.load(Ordering::Relaxed) || self.reporter.is_interrupted()
    }
}
