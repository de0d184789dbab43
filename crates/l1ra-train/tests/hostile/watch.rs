//! Ends the process when one input takes too long: a loop that never ends cannot be left otherwise.

use std::{
    path::PathBuf,
    process,
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Longest time that a loader may take for one input.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

struct Running {
    since: Instant,
    what: String,
    file: PathBuf,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches from here until it is dropped.
pub(crate) struct Watched;

impl Watched {
    pub(crate) fn new(what: String, file: PathBuf) -> Self {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            thread::spawn(look);
        });
        *running() = Some(Running {
            since: Instant::now(),
            what,
            file,
        });
        Self
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        *running() = None;
    }
}

fn look() {
    loop {
        thread::sleep(Duration::from_millis(200));
        if let Some(late) = running().as_ref().filter(|r| r.since.elapsed() > LIMIT) {
            eprintln!(
                "\n{}: not done after {} s; the input is {}",
                late.what,
                LIMIT.as_secs(),
                late.file.display()
            );
            process::exit(101);
        }
    }
}

/// Whether an input is being loaded: its panics are told with its name, not as they happen.
pub(crate) fn is_watching() -> bool {
    running().is_some()
}
