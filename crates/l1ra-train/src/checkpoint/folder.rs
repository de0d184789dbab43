//! [`CheckpointFolder`]: a run's checkpoints.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    checkpoint::{Checkpoint, CheckpointOptions},
    error::TrainError,
    lock::RunLock,
};

/// Name of the folder within a run's.
pub const CHECKPOINT_FOLDER: &str = "checkpoints";

/// The checkpoints of a run, `checkpoints/step-00000040.safetensors` in its folder.
#[derive(Clone, Debug)]
pub struct CheckpointFolder {
    run: PathBuf,
    path: PathBuf,
}

impl CheckpointFolder {
    /// Those of the run in the folder `run`, which may have none.
    pub fn of_run(run: &Path) -> Self {
        Self {
            run: run.into(),
            path: run.join(CHECKPOINT_FOLDER),
        }
    }

    /// The file of the checkpoint after `step` steps.
    pub fn file(&self, step: usize) -> PathBuf {
        self.path.join(format!("step-{step:08}.safetensors"))
    }

    /// Every checkpoint, by its steps, the earliest first. Files of other names are left out.
    ///
    /// # Errors
    /// When the folder cannot be read; one that is not there has none.
    pub fn list(&self) -> Result<Vec<(usize, PathBuf)>, TrainError> {
        self.named(".safetensors")
    }

    fn named(&self, ending: &str) -> Result<Vec<(usize, PathBuf)>, TrainError> {
        let failed = |error| TrainError::io(&self.path, error);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let step = name
                .and_then(|name| name.strip_prefix("step-")?.strip_suffix(ending))
                .and_then(|step| step.parse().ok());
            found.extend(step.map(|step| (step, path)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The newest checkpoint that is whole.
    ///
    /// # Errors
    /// When there is none, or only damaged ones.
    pub fn newest(&self) -> Result<Found, TrainError> {
        let mut damaged = Vec::new();
        for (_, path) in self.list()?.into_iter().rev() {
            match Checkpoint::read(&path) {
                Ok(checkpoint) => {
                    return Ok(Found {
                        run: self.run.clone(),
                        file: path,
                        checkpoint,
                        damaged,
                    });
                }
                Err(error) => damaged.push(error.to_string()),
            }
        }
        let detail = match damaged.first() {
            None => {
                "holds no checkpoint to go on from; train without --resume, or name another folder"
                    .into()
            }
            Some(first) => format!("holds no whole checkpoint; the newest: {first}"),
        };
        Err(TrainError::Data {
            path: self.path.clone(),
            detail,
        })
    }

    /// Writes a checkpoint and then removes those that `options` do not keep.
    ///
    /// # Errors
    /// When it cannot be written; every former one is then still there.
    pub fn save(
        &self,
        checkpoint: &Checkpoint,
        options: &CheckpointOptions,
    ) -> Result<PathBuf, TrainError> {
        // Not all folders above: a run's folder that vanished is not made again behind the user's back.
        match fs::create_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(TrainError::io(&self.path, error));
            }
            _ => {}
        }
        let path = self.file(checkpoint.progress.step);
        // One that vanishes only now is said as one that was gone before.
        checkpoint
            .write(&path)
            .map_err(|error| match fs::metadata(&self.path) {
                Err(gone) => TrainError::io(&self.path, gone),
                Ok(_) => error,
            })?;
        let best = checkpoint.progress.best.map(|best| best.step);
        self.retain(options, best)?;
        Ok(path)
    }

    /// Removes all but the last ones and the best, and what a killed process left half written.
    pub(crate) fn retain(
        &self,
        options: &CheckpointOptions,
        best: Option<usize>,
    ) -> Result<(), TrainError> {
        let all = self.list()?;
        let old = all.len().saturating_sub(options.keep_last);
        let best = best.filter(|_| options.keep_best);
        for (_, path) in all[..old].iter().filter(|(step, _)| Some(*step) != best) {
            remove(path)?;
        }
        self.remove_halves()
    }

    /// Removes what a process that died was about to write.
    fn remove_halves(&self) -> Result<(), TrainError> {
        let halves = self.named(".safetensors.tmp")?;
        halves.iter().try_for_each(|(_, path)| remove(path))
    }

    /// Removes every checkpoint: another run begins in this folder.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn clear(&self) -> Result<(), TrainError> {
        self.list()?.iter().try_for_each(|(_, path)| remove(path))?;
        self.remove_halves()
    }

    /// Removes the checkpoints after `step`: the run goes on from there another time.
    pub(crate) fn clear_after(&self, step: usize) -> Result<(), TrainError> {
        let later = self.list()?;
        let mut later = later.iter().filter(|(at, _)| *at > step);
        later.try_for_each(|(_, path)| remove(path))
    }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    fs::remove_file(path).map_err(|error| TrainError::io(path, error))
}

/// A checkpoint to go on from, and where it was.
#[derive(Clone, Debug)]
pub struct Found {
    /// Folder of its run.
    pub run: PathBuf,
    /// The file.
    pub file: PathBuf,
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// What is wrong with each newer one.
    pub damaged: Vec<String>,
}

impl Found {
    /// What `path` means: the file itself, or the newest whole checkpoint of the run in that folder.
    ///
    /// # Errors
    /// When there is none; when a run holds the folder, whose checkpoints come and go meanwhile.
    pub fn at(path: &Path) -> Result<Self, TrainError> {
        if !path.is_file() {
            RunLock::check(path)?;
            return CheckpointFolder::of_run(path).newest();
        }
        let checkpoint = Checkpoint::read(path)?;
        let folder = path
            .parent()
            .filter(|folder| folder.ends_with(CHECKPOINT_FOLDER));
        let Some(run) = folder.and_then(Path::parent) else {
            return Err(TrainError::Data {
                path: path.into(),
                detail: format!(
                    "does not lie in the folder `{CHECKPOINT_FOLDER}` of a run; put it back there"
                ),
            });
        };
        let run = if run == Path::new("") {
            Path::new(".")
        } else {
            run
        };
        RunLock::check(run)?;
        Ok(Self {
            run: run.into(),
            file: path.into(),
            checkpoint,
            damaged: Vec::new(),
        })
    }
}
