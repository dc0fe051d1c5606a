//! Ctrl-C: the first one asks the work to stop at a safe point, the second one ends the process immediately.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Begins to listen.
pub fn watch() {
    // Without a handler Ctrl-C ends fabkeep at once, which is safe too.
    let _ = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(crate::exit_code::Code::Interrupted as i32);
        }
        eprintln!("stopping at the next safe point; press Ctrl-C again to stop immediately");
    });
}

/// Returns whether the user asked to stop.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
