//! [`StopSignal`]: asks a run to stop after its step.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Asks a run to finish its step, save and end. Clones are the same signal.
///
/// A program sets it from a signal handler:
///
/// ```ignore
/// let stop = StopSignal::default();
/// signal_hook::flag::register_usize(SIGINT, stop.shared(), SIGINT as usize)?;
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<AtomicUsize>);

impl StopSignal {
    /// Asks for it; `reason` is the program's own number, for instance that of a signal, and not 0.
    pub fn request(&self, reason: usize) {
        self.0.store(reason.max(1), Ordering::Relaxed);
    }

    /// The reason, once someone asked.
    pub fn requested(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|reason| *reason != 0)
    }

    /// What a signal handler writes the reason to.
    pub fn shared(&self) -> Arc<AtomicUsize> {
        self.0.clone()
    }
}
