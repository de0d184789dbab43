//! Files that are whole or not there: written beside, flushed, renamed.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes `bytes` as the file `path`.
///
/// # Errors
/// When the file cannot be written; what was there before is still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_whole(path, |beside| File::create(beside)?.write_all(bytes))
}

/// Has `write` make a file beside `path`, flushes it to the disk and gives it its name, so that
/// `path` is at any moment the old file or the new one.
///
/// # Errors
/// When the file cannot be written; what was there before is still there, and nothing is beside it.
pub fn replace_whole(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path);
    let written = write(&beside)
        .and_then(|()| File::options().write(true).open(&beside)?.sync_all())
        .and_then(|()| {
            pause();
            fs::rename(&beside, path)
        });
    match written {
        Ok(()) => {
            flush_folder(path);
            Ok(())
        }
        Err(error) => {
            let _ = fs::remove_file(&beside); // The first error is the one to tell.
            Err(error)
        }
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
}
