//! [`RunLock`]: one run at a time in a folder.

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
    time::SystemTime,
};

use crate::error::TrainError;

/// Name of the file.
pub const LOCK_FILE: &str = "run.lock";

/// Holds a run's folder until it is dropped.
///
/// The system's own lock on the file `run.lock`: it ends with the process, however that ends, so
/// that the lock of a process that died is free. The file says who holds it, for people; it stays when
/// the run is over, and is empty then.
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the folder `run`, which is there.
    ///
    /// # Errors
    /// When another run holds it, with what is known of that; when the file cannot be written.
    pub fn take(run: &Path) -> Result<Self, TrainError> {
        let path = run.join(LOCK_FILE);
        let failed = |error: io::Error| TrainError::io(&path, advised(error));
        let file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::Held {
                    path: run.into(),
                    holder: holder(&file),
                });
            }
            // A file system without locks: nothing is known, and nobody is kept out.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut lock = Self { file };
        lock.say().map_err(failed)?;
        Ok(lock)
    }

    /// Whether the folder could be taken now; it is not.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn check(run: &Path) -> Result<(), TrainError> {
        if run.join(LOCK_FILE).exists() {
            Self::take(run)?;
        }
        Ok(())
    }

    fn say(&mut self) -> io::Result<()> {
        let host = sysinfo::System::host_name().unwrap_or_else(|| "this machine".into());
        let since = humantime::format_rfc3339_seconds(SystemTime::now());
        self.file.set_len(0)?;
        self.file.rewind()?;
        let id = std::process::id();
        writeln!(self.file, "process {id} on {host} since {since}")
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The file stays: another run may have it open, and would lock what is no longer there.
        let _ = self.file.set_len(0);
    }
}

/// What to do about a folder that may not be written, beside what the system says.
fn advised(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            let advice = "a run writes into its folder: choose another one with --output (a recipe's \
                          `output`), or let this user write there";
            io::Error::new(kind, format!("{error}; {advice}"))
        }
        _ => error,
    }
}

/// What a lock file says; the holder may be about to write it.
fn holder(file: &File) -> String {
    let mut text = String::new();
    let read = file.take(200).read_to_string(&mut text);
    match (read, text.trim()) {
        (Ok(_), said) if !said.is_empty() => said.into(),
        _ => "another process".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_once_and_free_again() {
        let dir = tempfile::tempdir().unwrap();
        RunLock::check(dir.path()).unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        let refused = RunLock::take(dir.path()).unwrap_err().to_string();
        let id = std::process::id();
        assert!(refused.contains(&format!("process {id} on ")), "{refused}");
        assert!(RunLock::check(dir.path()).is_err());
        drop(lock);
        RunLock::take(dir.path()).unwrap();
    }

    #[test]
    fn what_a_dead_holder_left_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "process 1 on x since y\n").unwrap();
        RunLock::check(dir.path()).unwrap();
        RunLock::take(dir.path()).unwrap();
    }
}
