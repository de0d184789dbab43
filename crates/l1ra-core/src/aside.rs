//! Work in a thread of its own, with an end in time: for libraries that may panic or not come back.

use std::{
    error::Error,
    fmt, io, mem,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{Builder, JoinHandle},
    time::Duration,
};

/// Why work aside has no result.
#[derive(Debug)]
pub enum Unfinished {
    /// The thread could not be started.
    NotStarted(io::Error),
    /// The work panicked.
    Panicked,
    /// It was not done in time; its thread is left to itself.
    TimedOut(Duration),
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(f, "no thread for it: {error}"),
            Self::Panicked => write!(f, "it gave up without a word"),
            Self::TimedOut(limit) => {
                write!(f, "it was not done within {} s", limit.as_secs())
            }
        }
    }
}

impl Error for Unfinished {}

/// Does `work` in a thread with this name and, where `stack` says so, a stack of that many bytes, which take no
/// memory until they are used. Waits for it for `limit`.
///
/// # Errors
/// No thread, a panic, or no end in time.
pub fn aside<T: Send + 'static>(
    name: &str,
    stack: Option<usize>,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (answer, done) = mpsc::channel();
    let mut builder = Builder::new().name(name.into());
    if let Some(stack) = stack {
        builder = builder.stack_size(stack);
    }
    let thread = builder.spawn(move || {
        let _ = answer.send(work()); // Nobody listens any more where the time is over.
    });
    let thread = thread.map_err(Unfinished::NotStarted)?;
    let result = done.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Disconnected => Unfinished::Panicked,
        RecvTimeoutError::Timeout => Unfinished::TimedOut(limit),
    });
    match result {
        Err(Unfinished::TimedOut(_)) => leave(thread),
        _ => end(thread),
    }
    result
}

/// Waits for a thread that has nothing left to do.
pub fn end(thread: JoinHandle<()>) {
    let _ = thread.join(); // What it has to say was said through its channel.
}

/// Leaves a thread to itself for good.
///
/// Dropping its handle would detach it. Where a thread ends at that very moment, glibc (seen with 2.36) may have
/// given its stack back to the system before `pthread_detach` looks at it a last time, and the process dies.
pub fn leave(thread: JoinHandle<()>) {
    mem::forget(thread);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn work_is_done_or_it_is_said_why_not() {
        assert_eq!(aside("sum", None, LONG, || 1 + 1).unwrap(), 2);
        let panicked = aside("panic", None, LONG, || panic!("expected in this test"));
        assert!(matches!(panicked, Err::<(), _>(Unfinished::Panicked)));
        let short = Duration::from_millis(1);
        let (_hold, wait) = mpsc::channel::<()>();
        let late = aside("late", None, short, move || wait.recv().is_ok());
        assert!(matches!(late, Err(Unfinished::TimedOut(_))));
        let stack = aside("stack", Some(usize::MAX / 4), LONG, || ());
        assert!(matches!(stack, Err(Unfinished::NotStarted(_))));
    }

    /// Stacks so large that the system takes them back at once.
    #[test]
    fn many_short_threads_end_well() {
        for round in 0..2000 {
            let done = aside("short", Some(256 << 20), LONG, move || round);
            assert_eq!(done.unwrap(), round);
        }
    }
}
