//! Files that are whole or not there: written beside, flushed, renamed.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::error::CoreError;

/// Writes `bytes` as the file `path`.
///
/// # Errors
/// When the file cannot be written; what was there before is still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_whole(path, |beside| write_new(beside, bytes))
}

/// Has `write` make a file beside `path`, flushes it to the disk and gives it its name, so that
/// `path` is at any moment the old file or the new one.
///
/// # Errors
/// When the file cannot be written; what was there before is still there, and nothing is beside it.
pub fn replace_whole(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let staged = Staged::new(path, write)?;
    pause();
    staged.place()
}

/// Writes files that belong together: all of them beside their places, and their names only when the last
/// is on the disk. A disk that is full leaves all the old ones.
///
/// # Errors
/// The first file that cannot be written.
pub(crate) fn write_together(files: &[(PathBuf, Vec<u8>)]) -> Result<(), CoreError> {
    let mut staged = Vec::with_capacity(files.len());
    for (path, bytes) in files {
        let file = Staged::new(path, |beside| write_new(beside, bytes));
        staged.push(file.map_err(|error| CoreError::io(path, error))?);
    }
    for file in staged {
        pause();
        file.place()
            .map_err(|error| CoreError::io(file.path, error))?;
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(bytes)
}

/// A file that is whole and flushed, but not in its place; gone when dropped.
struct Staged<'a> {
    path: &'a Path,
    beside: PathBuf,
}

impl<'a> Staged<'a> {
    fn new(path: &'a Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Self> {
        let beside = beside(path);
        let staged = Self { path, beside };
        write(&staged.beside)?;
        File::options()
            .write(true)
            .open(&staged.beside)?
            .sync_all()?;
        Ok(staged)
    }

    fn place(&self) -> io::Result<()> {
        fs::rename(&self.beside, self.path)?;
        flush_folder(self.path);
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.beside); // It has its name by now, or an error was told.
    }
}

/// Where `path` is written before it has its name. A process that dies may leave such a file.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Makes a rename outlast a loss of power, where the system has a way to.
fn flush_folder(path: &Path) {
    #[cfg(unix)]
    {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        // The file itself is whole either way.
        let _ = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Lets tests of debug builds kill this process between write and rename.
fn pause() {
    #[cfg(debug_assertions)]
    {
        let wanted = std::env::var("L1RA_TEST_PAUSE_BEFORE_RENAME_MS");
        if let Some(pause) = wanted.ok().and_then(|text| text.parse().ok()) {
            std::thread::sleep(std::time::Duration::from_millis(pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_whole(&path, b"old").unwrap();
        let full = replace_whole(&path, |beside| {
            fs::write(beside, "half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(!beside(&path).exists());
        write_whole(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(write_whole(&dir.path().join("no/b"), b"").is_err());
    }

    #[test]
    fn files_that_belong_together_are_all_old_or_all_new() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let with = |last: &str, text: &[u8]| {
            write_together(&[(path("a"), text.to_vec()), (path(last), text.to_vec())])
        };
        with("b", b"old").unwrap();
        let error = with("no/b", b"new").unwrap_err().to_string();
        assert!(error.contains("no/b"), "{error}");
        for name in ["a", "b"] {
            assert_eq!(fs::read(path(name)).unwrap(), b"old");
            assert!(!beside(&path(name)).exists());
        }
        with("b", b"new").unwrap();
        for name in ["a", "b"] {
            assert_eq!(fs::read(path(name)).unwrap(), b"new");
        }
    }
}
