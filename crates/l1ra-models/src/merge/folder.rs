//! [`Draft`]: a folder under construction, which takes its name when it is complete.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::error::ModelError;

/// A folder beside the one that is asked for. Dropped before it is finished, it is removed.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    output: PathBuf,
    finished: bool,
}

impl Draft {
    /// A new folder beside `output`, which must be absent or an empty folder.
    pub(super) fn beside(output: &Path) -> Result<Self, ModelError> {
        let output = absolute(output)?;
        refuse_occupied(&output)?;
        let (Some(parent), Some(name)) = (output.parent(), output.file_name()) else {
            return Err(ModelError::output(&output, "is no folder that can be made"));
        };
        let mut beside = name.to_owned();
        beside.push(".partial");
        let path = parent.join(beside);
        if path.exists() {
            let detail = "was left by a merge that was interrupted, or one is running; remove it \
                          if none is";
            return Err(ModelError::output(path, detail));
        }
        fs::create_dir_all(&path).map_err(|error| ModelError::io(&path, error))?;
        Ok(Self {
            path,
            output,
            finished: false,
        })
    }

    /// Where files are written to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ModelError> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(|error| ModelError::io(path, error))
    }

    /// Gives the folder its name. Returns it with the names and sizes of its files.
    pub(super) fn finish(mut self) -> Result<(PathBuf, Vec<(String, u64)>), ModelError> {
        let io = |error| ModelError::io(&self.output, error);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let size = entry.metadata().map_err(io)?.len();
            files.push((entry.file_name().to_string_lossy().into_owned(), size));
        }
        files.sort();
        refuse_occupied(&self.output)?;
        if self.output.is_dir() {
            fs::remove_dir(&self.output).map_err(io)?;
        }
        fs::rename(&self.path, &self.output).map_err(io)?;
        self.finished = true;
        Ok((self.output.clone(), files))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.path); // The first error is the one to tell.
        }
    }
}

/// `path` with a name at its end, also where it is `.` or a link.
fn absolute(path: &Path) -> Result<PathBuf, ModelError> {
    let io = |error| ModelError::io(path, error);
    if path.exists() {
        return fs::canonicalize(path).map_err(io);
    }
    std::path::absolute(path).map_err(io)
}

fn refuse_occupied(output: &Path) -> Result<(), ModelError> {
    if output.is_dir() {
        let mut entries = fs::read_dir(output).map_err(|error| ModelError::io(output, error))?;
        if entries.next().is_none() {
            return Ok(());
        }
        let detail = "is not empty; give a folder that is not there yet, or an empty one";
        return Err(ModelError::output(output, detail));
    }
    if output.exists() {
        let detail = "is a file; give a folder that is not there yet";
        return Err(ModelError::output(output, detail));
    }
    Ok(())
}
